//! `obol policy activate` and `obol policy history`: the policy of a service that runs.

use obol_client::AsControlClient;
use obol_ipc::as_control::{
    ActivateMode, ActivateParams, ActivateResult, PolicyPartParams, PolicyVersionStatus,
};
use obol_policy::PolicyVersion;

use super::{connect, json, label};
use crate::exit::{Failure, Outcome};
use crate::output::{self, Table};
use crate::policy::folder;
use crate::settings::args::authority::{ActivateArgs, AsOperatorArgs};

/// The longest part of a text, in bytes as JSON has it: it fits a frame, and a message of an operator elsewhere.
const PART_BYTES: usize = 12 << 10;
/// The fewest digits of a digest that name a version.
const MIN_DIGITS: usize = 8;

/// `obol policy activate`.
pub(crate) fn activate(args: &ActivateArgs) -> Outcome {
    let mode = match (args.stop_observing, args.observe, args.dry_run) {
        (true, ..) => ActivateMode::StopObserving,
        (_, true, _) => ActivateMode::Observe,
        (.., true) => ActivateMode::Weigh,
        _ => ActivateMode::Force,
    };
    let mut client = connect(&args.operator)?;
    let digest = match (&args.back_to, mode) {
        (_, ActivateMode::StopObserving) => "none".to_owned(),
        (Some(named), _) => kept(&client.policy_versions()?.versions, named)?,
        (None, _) => {
            let version = folder::version(&args.folder)?;
            send(&mut client, &version)?;
            version.digest().to_string()
        }
    };
    let params = ActivateParams { digest: label(&digest)?, mode, anyway: args.yes };
    let done = client.activate(params)?;
    if args.operator.output.json {
        return json(&done);
    }
    tell(mode, &digest, &done);
    Ok(())
}

fn tell(mode: ActivateMode, digest: &str, done: &ActivateResult) {
    match (&done.version, mode) {
        (Some(version), _) => {
            output::line(&format!(
                "in force: version {}, {digest}, epoch {}",
                version.version, version.epoch
            ));
        }
        (None, ActivateMode::StopObserving) => {
            return output::line("no other version is observed any longer");
        }
        (None, ActivateMode::Observe) => {
            output::line(&format!("{digest} is observed from now on; it decides nothing"));
        }
        (None, _) => output::line(&format!("{digest} is not in force; nothing was changed")),
    }
    done.warnings.iter().for_each(|warning| output::line(&format!("warning: {warning}")));
    let impact = done.impact;
    output::line(&format!(
        "of {} agents, {} get less and {} get more; {} of {} grants go",
        impact.agents, impact.narrowed, impact.widened, impact.lost, impact.held
    ));
    if mode == ActivateMode::Force {
        output::line(&format!(
            "Sessions of agents that get less have ended. The other sessions keep their grants until they end, for at most {}.",
            output::duration(done.sessions_last_seconds)
        ));
    }
}

/// Sends a version's texts, in parts.
fn send(client: &mut AsControlClient, version: &PolicyVersion) -> Outcome {
    let source = version.source();
    let digest = label(&version.digest().to_string())?;
    let mut first = true;
    let files = [(folder::CATALOGUE, source.catalogue.as_str())].into_iter();
    let policies = source.policies.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    for (file, text) in files.chain(policies) {
        for part in parts(text) {
            client.policy_part(PolicyPartParams {
                digest: digest.clone(),
                first: core::mem::take(&mut first),
                file: file.to_owned(),
                text: part.to_owned(),
            })?;
        }
    }
    Ok(())
}

/// A text in parts that are not too long; an empty text is one part.
fn parts(mut text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    loop {
        let (part, rest) = text.split_at(fitting(text));
        parts.push(part);
        if rest.is_empty() {
            return parts;
        }
        text = rest;
    }
}

/// How much of a text fits one part.
fn fitting(text: &str) -> usize {
    let mut bytes = 0;
    let too_long = text.char_indices().find(|(_, letter)| {
        bytes += match letter {
            '"' | '\\' | '\n' | '\r' | '\t' => 2,
            letter if letter.is_control() => 6,
            letter => letter.len_utf8(),
        };
        bytes > PART_BYTES
    });
    too_long.map_or(text.len(), |(place, _)| place)
}

/// The digest of the version that is named by its number, or by how its digest begins.
fn kept(versions: &[PolicyVersionStatus], named: &str) -> Outcome<String> {
    let is_named = |version: &&PolicyVersionStatus| {
        named.parse() == Ok(version.version) || named.len() >= MIN_DIGITS && version.digest.starts_with(named)
    };
    let mut digests: Vec<&str> =
        versions.iter().filter(is_named).map(|version| version.digest.as_str()).collect();
    digests.sort_unstable();
    digests.dedup();
    match digests.as_slice() {
        [digest] => Ok((*digest).to_owned()),
        [] => Err(Failure::usage(format_args!(
            "there is no version {named}; name one by its number or by at least {MIN_DIGITS} digits of its digest, as `obol \
             policy history` shows them"
        ))),
        _ => Err(Failure::usage(format_args!("{named} names several versions; give more digits"))),
    }
}

/// `obol policy history`.
pub(crate) fn history(args: &AsOperatorArgs) -> Outcome {
    let found = connect(args)?.policy_versions()?;
    if args.output.json {
        return json(&found);
    }
    let Some(newest) = found.versions.last() else {
        output::line("no policy was ever in force");
        return Ok(());
    };
    let mut table = Table::new(&["version", "epoch", "digest", "by", "at", ""]);
    for version in &found.versions {
        let word = if version.version == newest.version { "in force" } else { "" };
        table.row([
            version.version.to_string(),
            version.epoch.to_string(),
            version.digest.clone(),
            version.by.clone(),
            version.at.to_string(),
            word.to_owned(),
        ]);
    }
    table.print();
    if let Some(observed) = &found.observed {
        output::line(&format!("looked at: {observed}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use obol_ipc::time::UtcTime;

    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_nothing_is_lost() {
        assert_eq!(parts(""), [""]);
        let text = "ä€😀x".repeat(3_000);
        let parts = parts(&text);
        assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= PART_BYTES));
        assert_eq!(parts.concat(), text);
        let written = |part: &&str| serde_json::to_string(part).unwrap().len() <= PART_BYTES + 2;
        for letters in ["\u{1}", "\"\n", "\u{7f}x"] {
            let text = letters.repeat(9_000);
            let parts = super::parts(&text);
            assert!(parts.len() > 1 && parts.iter().all(written), "{letters:?}");
            assert_eq!(parts.concat(), text);
        }
    }

    #[test]
    fn a_version_is_named_by_its_number_or_by_enough_of_its_digest() {
        let version = |version: u64, digest: &str| PolicyVersionStatus {
            version,
            epoch: version,
            digest: digest.repeat(8),
            by: "local:anna".to_owned(),
            at: UtcTime::from_unix_seconds(0),
        };
        let versions =
            [version(1, "11112222"), version(2, "33334444"), version(3, "11112222"), version(4, "11112223")];
        for named in ["1", "3", "111122221", &"11112222".repeat(8)] {
            assert_eq!(kept(&versions, named).unwrap(), "11112222".repeat(8), "{named}");
        }
        assert_eq!(kept(&versions, "33334444").unwrap(), "33334444".repeat(8));
        for named in ["5", "0", "", "1111222", "33334445", "x"] {
            assert!(kept(&versions, named).is_err(), "{named}");
        }
        let long = [version(1, "1111222233"), version(2, "1111222244")];
        assert!(kept(&long, "11112222").unwrap_err().to_string().contains("several"));
    }
}
