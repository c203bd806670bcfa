//! `obol session create`: a session by hand, for as long as no Authentication Service makes them.
//!
//! Both halves hold the keys of one session with one resource server: the sidecar's says what may be minted, the
//! resource server's what is accepted.

use std::path::Path;

use obol_secret::file::{PrivateFile, change};
use obol_secret::wipe::Wiped;
use obol_session::clock::{Clock as _, SystemClock};
use obol_session::limits::MAX_LIST_BYTES;
use obol_session::{AgentIdentity, Establish, Grant, PopKey, ResourceHalf};
use obol_token::{SessionId, SessionSecret, Suite};
use obol_verify::DEFAULT_MAX_TTL_SECS;
use zeroize::Zeroizing;

use crate::exit::{Failure, Outcome};
use crate::output;
use crate::settings::args::CreateArgs;

/// One session's two halves: the sidecar's as JSON text, and the resource server's.
pub(crate) struct Halves {
    pub(crate) session_id: String,
    pub(crate) agent: Wiped,
    pub(crate) servers: Vec<ResourceHalf>,
}

/// What a new session grants.
pub(crate) struct Plan<'a> {
    pub(crate) suite: Suite,
    pub(crate) audience: &'a str,
    pub(crate) agent: &'a str,
    pub(crate) now: u64,
    /// Seconds.
    pub(crate) lifetime: u64,
    /// Tool, action, resource, life of a token in seconds.
    pub(crate) grants: Vec<(&'a str, &'a str, &'a str, u64)>,
    /// Whether each call must prove that it comes from the session's sidecar.
    pub(crate) require_pop: bool,
}

/// `obol session create`.
pub(crate) fn run(args: &CreateArgs) -> Outcome {
    let now = SystemClock::new().now();
    let grants =
        args.tool.iter().map(|tool| (tool.as_str(), args.action.as_str(), args.resource.as_str(), args.ttl));
    let suite = Suite::from_number(args.suite).ok_or_else(|| Failure::usage("--suite must be 1 to 4"))?;
    let halves = halves(&Plan {
        suite,
        audience: &args.audience,
        agent: &args.agent,
        now,
        lifetime: args.lifetime,
        grants: grants.collect(),
        require_pop: args.require_pop,
    })?;
    write_new(&args.agent_file, &halves.agent)?;
    let rs_file = args.append.as_ref().unwrap_or(&args.rs_file);
    let written = match &args.append {
        Some(file) => append(file, halves.servers),
        None => write_new(rs_file, &ResourceHalf::list_to_json_lines(&halves.servers)),
    };
    if let Err(failure) = written {
        // Half a session is of no use to anybody; what we just made is ours to take away.
        let _leave_it_then = std::fs::remove_file(&args.agent_file);
        return Err(failure);
    }
    output::line(&format!(
        "session {}: {} for the sidecar, {} for the resource server",
        halves.session_id,
        args.agent_file.display(),
        rs_file.display()
    ));
    if args.append.is_some() {
        output::line("a running server takes it with `obol rs reload`");
    }
    if args.ttl > DEFAULT_MAX_TTL_SECS {
        tracing::warn!(
            ttl = args.ttl,
            max_ttl = DEFAULT_MAX_TTL_SECS,
            "a resource server with default settings refuses tokens that live this long: set its rs.max_ttl to this, or make the session with a shorter --ttl"
        );
    }
    Ok(())
}

/// Makes a session from a fresh random secret, with the keys derived from it for its one audience.
pub(crate) fn halves(plan: &Plan<'_>) -> Outcome<Halves> {
    let session_id = SessionId::from_u64(u64::from_be_bytes(*random()?));
    let establish = Establish {
        session_id,
        suite: plan.suite,
        agent: AgentIdentity {
            agent_instance_id: plan.agent.to_owned(),
            iss: "obol session create".to_owned(),
            sub: plan.agent.to_owned(),
        },
        org_id: "local".to_owned(),
        lifetime_secs: plan.lifetime,
        policy_epoch: 1,
        sek_public: *random()?,
        pop_key: if plan.require_pop { Some(PopKey::from_bytes(*random()?)) } else { None },
    };
    let grants = plan.grants.iter().map(|(tool, action, resource, ttl)| Grant {
        tool: (*tool).to_owned(),
        aud: plan.audience.to_owned(),
        action: vec![(*action).to_owned()],
        resource: (*resource).to_owned(),
        constraints: None,
        delegation_depth: 0,
        require_pop: plan.require_pop,
        trust_level: 0,
        approval: obol_session::ApprovalRule::None,
        purpose: None,
        ttl: *ttl,
    });
    let secret = SessionSecret::from_bytes(*random()?);
    let (agent, servers) = establish
        .from_secret(&secret, &[plan.audience], grants.collect(), plan.now)
        .map_err(Failure::usage)?;
    Ok(Halves { session_id: session_id.to_string(), agent: agent.to_json_lines(), servers })
}

fn random<const N: usize>() -> Outcome<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice())
        .map_err(|_| Failure::other("the system's random number generator failed"))?;
    Ok(bytes)
}

/// Adds halves to a file of sessions, whole or not at all.
fn append(path: &Path, halves: Vec<ResourceHalf>) -> Outcome {
    let wrong = |why: &dyn core::fmt::Display| {
        Failure::usage(format_args!("session file {}: {why}; nothing was changed", path.display()))
    };
    if std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Err(Failure::usage(format_args!(
            "there is no session file {} to add to; name a new one with --rs-file",
            path.display()
        )));
    }
    change(path, MAX_LIST_BYTES, |text| {
        let mut listed = ResourceHalf::list_from_json(text).map_err(|error| wrong(&error))?;
        for half in halves {
            if listed.iter().any(|known| known.session_id == half.session_id) {
                return Err(wrong(&format_args!("session {} is already listed", half.session_id)));
            }
            listed.push(half);
        }
        let text = ResourceHalf::list_to_json_lines(&listed);
        match text.len() > MAX_LIST_BYTES {
            true => {
                Err(wrong(&format_args!("it would grow beyond {MAX_LIST_BYTES} bytes; start another file")))
            }
            false => Ok(text),
        }
    })
}

/// Writes a file that did not exist, closed to others.
pub(crate) fn write_new(path: &Path, text: &[u8]) -> Outcome {
    PrivateFile::create_whole(path, text).map_err(|error| {
        let error = std::io::Error::from(error);
        Failure::usage(format_args!("cannot create {}: {error}; name another file", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_added_once_and_an_older_one_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rs-sessions.json");
        let made = |agent| {
            let plan = Plan {
                suite: Suite::Tbac,
                audience: "https://api.example",
                agent,
                now: 1_000,
                lifetime: 100,
                grants: vec![("search", "call", "**", 60)],
                require_pop: true,
            };
            halves(&plan).unwrap().servers
        };
        let text = ResourceHalf::list_to_json_lines;
        let (first, second) = (text(&made("agent-1")), text(&made("agent-2")));
        let append = |session: &[u8]| append(&path, ResourceHalf::list_from_json(session).unwrap());
        assert!(append(&first).unwrap_err().to_string().contains("--rs-file"));
        write_new(&path, &first).unwrap();
        append(&second).unwrap();
        let both = std::fs::read(&path).unwrap();
        let listed = ResourceHalf::list_from_json(&both).unwrap();
        assert_eq!((&*text(&listed[..1]), &*text(&listed[1..])), (&*first, &*second));
        let twice = append(&first).unwrap_err().to_string();
        assert!(twice.contains("already listed"), "{twice}");
        assert_eq!(std::fs::read(&path).unwrap(), both);
        std::fs::write(&path, "{").unwrap();
        assert!(append(&first).unwrap_err().to_string().contains("nothing was changed"));
        assert_eq!(std::fs::read(&path).unwrap(), b"{");
    }
}
