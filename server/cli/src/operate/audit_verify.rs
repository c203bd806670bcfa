//! `obol audit verify`: whether a log is as it was written.

use std::path::PathBuf;

use obol_audit::ChainKey;
use obol_audit::verify::{self, Report, VerifyError};
use obol_queue::MasterKey;
use serde_json::json;

use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::places::{place, state_folder};
use crate::role::audit::{AS_KEY, AUTHENTICATOR_KEY, RS_KEY, chain_key, head_of};
use crate::settings::args::AuditVerifyArgs;
use crate::settings::config::Config;

/// A server's own log: what names it, and the key it is sealed under.
struct Log<'a> {
    setting: &'static str,
    file: Option<&'a PathBuf>,
    key: Option<&'a PathBuf>,
    usual_key: &'static str,
    /// What the note of the log's end lies beside, where that is not the key.
    anchor: Option<(Option<&'a PathBuf>, &'static str)>,
}

/// Whose log is meant: the one that is said, or else the sidecar's, unless only the resource server has one.
fn meant<'a>(args: &AuditVerifyArgs, config: &'a Config) -> Log<'a> {
    let beside_key = |setting, file: &'a Option<PathBuf>, key: &'a Option<PathBuf>, usual_key| Log {
        setting,
        file: file.as_ref(),
        key: key.as_ref(),
        usual_key,
        anchor: None,
    };
    let (tqs, rs) = (&config.tqs, &config.rs);
    let only_rs = args.files.is_empty() && tqs.audit_log.is_none() && rs.audit_log.is_some();
    if args.authenticator {
        let of = &config.authenticator;
        beside_key("authenticator.audit_log", &of.audit_log, &of.audit_key, AUTHENTICATOR_KEY)
    } else if args.authority {
        beside_key("as.audit_log", &config.authority.audit_log, &config.authority.audit_key, AS_KEY)
    } else if args.rs || only_rs {
        beside_key("rs.audit_log", &rs.audit_log, &rs.audit_key, RS_KEY)
    } else {
        Log {
            setting: "tqs.audit_log",
            file: tqs.audit_log.as_ref(),
            key: tqs.master_key.as_ref(),
            usual_key: "master.key",
            anchor: Some((tqs.store.as_ref(), "tokens.redb")),
        }
    }
}

/// `obol audit verify`.
pub(crate) fn run(args: &AuditVerifyArgs, config: &Config) -> Outcome {
    let log = meant(args, config);
    let files = files(args, &log)?;
    let key = key(args, &log)?;
    let head = head(args, &log)?;
    let checked = verify::verify(&files, key.as_ref(), head.as_deref());
    let report = match checked {
        // A key nobody named is a guess; without it the chain alone can be checked.
        Err(VerifyError::OtherKey(_)) if args.master_key.is_none() => verify::verify(&files, None, None),
        checked => checked,
    }
    .map_err(Failure::usage)?;
    if args.output.json {
        let mut value = serde_json::to_value(&report).map_err(Failure::other)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("ok".to_owned(), json!(report.is_good()));
        }
        output::json(&value);
    } else {
        tell(&report);
    }
    if report.is_good() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Other,
        format_args!("the audit log was tampered with: {} problems", report.problem_count),
    ))
}

fn files(args: &AuditVerifyArgs, log: &Log<'_>) -> Outcome<Vec<PathBuf>> {
    if !args.files.is_empty() {
        return Ok(args.files.clone());
    }
    let path = log.file.ok_or_else(|| {
        Failure::usage(format_args!(
            "name the log's files, or set the current one as {} in the configuration; --rs, --authenticator and --as choose whose log to check",
            log.setting
        ))
    })?;
    let files = verify::files_of(path)
        .map_err(|error| Failure::usage(format_args!("cannot read {}: {error}", path.display())))?;
    if files.is_empty() {
        return Err(Failure::unavailable(format_args!("there is no audit log in {} yet", path.display())));
    }
    Ok(files)
}

/// The key that was named, or the server's own if it is there to be read.
fn key(args: &AuditVerifyArgs, log: &Log<'_>) -> Outcome<Option<ChainKey>> {
    if let Some(named) = &args.master_key {
        return Ok(Some(chain_key(&MasterKey::load(named).map_err(Failure::usage)?)));
    }
    let path = log.key.cloned().unwrap_or_else(|| state_folder().join(log.usual_key));
    Ok(MasterKey::load(path).ok().map(|key| chain_key(&key)))
}

/// The head that was named; or, where a server's own log is checked as a whole, the one it keeps.
fn head(args: &AuditVerifyArgs, log: &Log<'_>) -> Outcome<Option<PathBuf>> {
    if let Some(named) = &args.head {
        if !named.exists() {
            return Err(Failure::usage(format_args!("{} does not exist", named.display())));
        }
        return Ok(Some(named.clone()));
    }
    if !args.files.is_empty() {
        return Ok(None);
    }
    let (named, usual) = log.anchor.unwrap_or((log.key, log.usual_key));
    Ok(Some(head_of(&place(named, usual)?)))
}

fn tell(report: &Report) {
    for problem in &report.problems {
        let line = if problem.line > 0 { format!(":{}", problem.line) } else { String::new() };
        output::line(&format!("{}{line}: {}: {}", problem.file.display(), problem.kind, problem.message));
    }
    let more = report.problem_count - report.problems.len() as u64;
    if more > 0 {
        output::line(&format!("and {more} more problems"));
    }
    let span = match (&report.from, &report.to, report.first, report.last) {
        (Some(from), Some(to), Some(first), Some(last)) => {
            format!(", numbers {first} to {last}, {from} to {to}")
        }
        _ => String::new(),
    };
    output::line(&format!("{} good lines in {} files{span}", report.lines, report.files.len()));
    output::line(&format!(
        "{} hand-outs, {} acceptances, {} denials; {} starts, {} of them after an unclean end; {} lines torn by a crash",
        report.hand_outs, report.spends, report.denials, report.starts, report.unclean_starts, report.torn
    ));
    if report.refused > 0 || report.dropped > 0 {
        output::line(&format!(
            "{} requests were refused because the log could not be written; {} other lines were dropped",
            report.refused, report.dropped
        ));
    }
    let seals = if report.sealed {
        "seals checked"
    } else {
        "only the chain was checked, not the seals; to check them, name the key with --master-key"
    };
    let end = if report.head_checked {
        "end checked"
    } else {
        "the end was not checked: lines cut off there would not show"
    };
    output::line(&format!("{seals}; {end}"));
}
