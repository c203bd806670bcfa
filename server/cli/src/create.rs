//! `obol session create`: a session by hand, for as long as no Authentication Service makes them.
//!
//! Both halves hold the keys of one session with one resource server: the sidecar's says what may be minted, the
//! resource server's what is accepted.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use obol_secret::file::PrivateFile;
use obol_secret::text::to_hex;
use obol_token::{Audience, SessionId, SessionSecret, Suite};
use serde_json::{Value, json};
use zeroize::{Zeroize, Zeroizing};

use crate::args::CreateArgs;
use crate::exit::{Failure, Outcome};
use crate::output;

/// One session's two halves, as JSON text.
pub(crate) struct Halves {
    pub(crate) session_id: String,
    pub(crate) agent: Zeroizing<String>,
    pub(crate) resource_server: Zeroizing<String>,
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
}

/// `obol session create`.
pub(crate) fn run(args: &CreateArgs) -> Outcome {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
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
    })?;
    write_new(&args.agent_file, &halves.agent)?;
    if let Err(failure) = write_new(&args.rs_file, &halves.resource_server) {
        // Half a session is of no use to anybody; what we just made is ours to take away.
        let _leave_it_then = std::fs::remove_file(&args.agent_file);
        return Err(failure);
    }
    output::line(&format!(
        "session {}: {} for the sidecar, {} for the resource server",
        halves.session_id,
        args.agent_file.display(),
        args.rs_file.display()
    ));
    Ok(())
}

/// Makes a session from a fresh random secret, with the keys derived from it for its one audience.
pub(crate) fn halves(plan: &Plan<'_>) -> Outcome<Halves> {
    let session_id = SessionId(u64::from_be_bytes(*random::<8>()?));
    let secret = SessionSecret::from_bytes(*random()?);
    let derived = secret.for_audience(plan.suite, session_id, &Audience::new(plan.audience));
    let hex = |bytes: &[u8; 32]| Zeroizing::new(to_hex(bytes));
    let mut keys = json!({
        "aud": plan.audience,
        "K_session": *hex(derived.session_key.expose()),
        "verifier_secret": *hex(derived.verifier_secret.expose()),
        "mutual_auth": *hex(derived.mutual_auth.expose()),
        "SEK_PK": *hex(&*random()?),
    });
    let grants: Vec<Value> = plan
        .grants
        .iter()
        .map(|(tool, action, resource, ttl)| {
            json!({"tool": tool, "aud": plan.audience, "action": action, "resource": resource, "ttl": ttl})
        })
        .collect();
    let end = plan.now.saturating_add(plan.lifetime);
    let mut agent = json!({
        "obol_session": 1, "session_id": session_id, "suite": plan.suite.number(),
        "agent_instance_id": plan.agent, "org_id": "local", "iss": "obol session create", "sub": plan.agent,
        "established_at": plan.now, "expires_at": end, "policy_epoch": 1,
        "resource_servers": [keys], "grants": grants,
    });
    let mut server = keys.clone();
    merge(
        &mut server,
        json!({
            "session_id": session_id, "suite": plan.suite.number(), "org_id": "local",
            "window": {"start": plan.now, "end": end}, "policy_epoch": 1,
            // Both halves are for Obol, whose minter derives them all.
            "nonces": "derived",
        }),
    );
    let mut resource_server = json!({"obol_rs_sessions": 1, "sessions": [server]});
    let halves = Halves {
        session_id: session_id.to_string(),
        agent: Zeroizing::new(format!("{agent:#}\n")),
        resource_server: Zeroizing::new(format!("{resource_server:#}\n")),
    };
    for document in [&mut keys, &mut agent, &mut resource_server] {
        wipe(document);
    }
    // What the queue would refuse is refused before anything is written.
    obol_queue::SessionDocument::from_json(halves.agent.as_bytes()).map_err(Failure::usage)?;
    Ok(halves)
}

fn random<const N: usize>() -> Outcome<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice())
        .map_err(|_| Failure::other("the system's random number generator failed"))?;
    Ok(bytes)
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// Overwrites every string in a document.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        _ => {}
    }
}

/// Writes a file that did not exist, closed to others.
pub(crate) fn write_new(path: &Path, text: &str) -> Outcome {
    let failed = |error: std::io::Error| {
        Failure::usage(format_args!("cannot create {}: {error}; name another file", path.display()))
    };
    let mut file = PrivateFile::create(path).map_err(|error| failed(error.into()))?.into_file();
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}
