//! The story itself.

use core::time::Duration;
use std::collections::HashSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use obol_client::CallError;
use obol_client::Client;
use obol_ipc::control::FlushScope;
use obol_ipc::names::{EventKind, Reason, ToolName};
use obol_verify::{Request, ResourceHalf, Unverified};

use super::http;
use super::report::Report;
use super::server::Server;
use super::sidecar::{Sidecar, draw};
use crate::exit::{Failure, Outcome};
use crate::sessions::create::{self, Halves, Plan};

const AUDIENCE: &str = "https://api.example/mcp";
/// Life of a token of the tool that is there to expire, in seconds.
const BRIEF_TTL_SECS: u64 = 1;
/// Clients that present one token at the same moment.
const RACERS: usize = 32;
/// Calls that are timed.
const SAMPLES: usize = 500;
/// Pause between timed draws: an agent that makes 500 calls a second.
const PACE: Duration = Duration::from_millis(2);

/// Tells the story from a session to its end.
pub(crate) fn tell(report: &mut Report) -> Outcome {
    let closed = Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new().prefix("obol-demo-").permissions(closed).tempdir()?;
    let halves = session()?;
    create::write_new(&folder.path().join("agent.json"), &halves.agent)?;
    let servers = ResourceHalf::list_to_json_lines(&halves.servers);
    let server = Server::start(AUDIENCE, &servers, &folder.path().join("spent.redb"))?;
    let sidecar = Sidecar::start(folder.path())?;
    let mut client = sidecar.client()?;
    let mut drawn = HashSet::new();

    mint(report, &sidecar, &mut client)?;
    let brief = Drawn { token: draw(&mut client, "brief")?, at: Instant::now() };
    spend(report, &server, &mut client, &mut drawn)?;
    refuse(report, &server, &mut client)?;
    race(report, &server, &mut client)?;
    expire(report, &server, &brief)?;
    measure(report, &server, &mut client, &mut drawn)?;
    let sidecar = kill(report, sidecar, folder.path(), &mut drawn)?;
    flush(report, &server, &sidecar, &halves.session_id)
}

struct Drawn {
    token: String,
    at: Instant,
}

/// A session by hand, as `obol session create` makes it.
fn session() -> Outcome<Halves> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    create::halves(&Plan {
        suite: obol_token::Suite::Tbac,
        audience: AUDIENCE,
        agent: "demo-agent",
        now,
        lifetime: 600,
        grants: vec![
            ("search", "call", "docs/**", 60),
            ("pay", "call", "invoices/*", 60),
            ("brief", "call", "**", BRIEF_TTL_SECS),
        ],
        require_pop: false,
    })
}

fn mint(report: &mut Report, sidecar: &Sidecar, client: &mut Client) -> Outcome {
    draw(client, "search")?;
    let status = sidecar.control()?.status()?;
    let minted: u64 =
        status.tools.iter().filter(|tool| tool.tool.as_str() == "search").map(|tool| tool.minted).sum();
    report.line(
        "tokens are minted ahead into redb and one is drawn",
        "yes",
        if minted > 1 { "yes" } else { "no" },
    );
    let unknown = outcome(client.dequeue_token(&tool("delete_everything")?, Duration::ZERO));
    report.line("a tool that was not granted gets no token", "POLICY_DENY", unknown);
    Ok(())
}

fn spend(report: &mut Report, server: &Server, client: &mut Client, drawn: &mut HashSet<String>) -> Outcome {
    for (path, what) in
        [("/search", "a token for search opens /search"), ("/pay", "a token for pay opens /pay")]
    {
        let token = draw(client, path.trim_start_matches('/'))?;
        report.line(what, "200", http::call(server.address, path, Some(&token))?);
        if path == "/pay" {
            let again = http::call(server.address, path, Some(&token))?;
            report.line("the same token again", "401 TOKEN_REPLAYED", again);
        }
        drawn.insert(token);
    }
    Ok(())
}

fn refuse(report: &mut Report, server: &Server, client: &mut Client) -> Outcome {
    report.line("no token", "401 TBAC_REQUIRED", http::call(server.address, "/pay", None)?);
    let token = draw(client, "search")?;
    let wrong = http::call(server.address, "/pay", Some(&token))?;
    report.line("a token for search at /pay", "403 INSUFFICIENT_PRIVILEGE", wrong);
    let tampered = http::call(server.address, "/search", Some(&tamper(&token)))?;
    report.line("one bit of it changed", "401 INVALID_SIGNATURE", tampered);
    let after = http::call(server.address, "/search", Some(&token))?;
    report.line("the same token, unchanged, at /search: refusals burn nothing", "200", after);
    Ok(())
}

/// Changes one bit in the middle of the ciphertext.
fn tamper(token: &str) -> String {
    let mut bytes = obol_token::text::from_base64url(token.as_bytes()).unwrap_or_default();
    let middle = bytes.len() - bytes.len() / 4;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    obol_token::text::to_base64url(&bytes)
}

fn race(report: &mut Report, server: &Server, client: &mut Client) -> Outcome {
    let token = draw(client, "search")?;
    let answers: Vec<Outcome<String>> = thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS)
            .map(|_| scope.spawn(|| http::call(server.address, "/search", Some(&token))))
            .collect();
        let panicked = |_| Err(Failure::other("a client of the race panicked"));
        racers.into_iter().map(|racer| racer.join().unwrap_or_else(panicked)).collect()
    });
    let answers = answers.into_iter().collect::<Outcome<Vec<_>>>()?;
    let accepted = answers.iter().filter(|answer| *answer == "200").count();
    let replayed = answers.iter().filter(|answer| *answer == "401 TOKEN_REPLAYED").count();
    report.line(
        "32 clients present one token at the same moment",
        format!("1 accepted, {} replayed", RACERS - 1),
        format!("{accepted} accepted, {replayed} replayed"),
    );
    Ok(())
}

fn expire(report: &mut Report, server: &Server, brief: &Drawn) -> Outcome {
    // Times are whole seconds: one more makes sure that its last has passed.
    let over = Duration::from_secs(BRIEF_TTL_SECS + 1) + Duration::from_millis(100);
    thread::sleep(over.saturating_sub(brief.at.elapsed()));
    let late = http::call(server.address, "/brief", Some(&brief.token))?;
    report.line("a token that lived one second, two seconds later", "401 STALE_TIMESTAMP", late);
    Ok(())
}

fn measure(
    report: &mut Report,
    server: &Server,
    client: &mut Client,
    drawn: &mut HashSet<String>,
) -> Outcome {
    let (mut draws, mut verifications) = (Vec::new(), Vec::new());
    let request = Request { action: Some("call"), ..Request::new("search") };
    for _ in 0..SAMPLES {
        let start = Instant::now();
        let token = draw(client, "search")?;
        draws.push(start.elapsed());

        let start = Instant::now();
        let verified = Unverified::from_text(token.as_bytes())
            .and_then(|token| token.verify(&server.verifier, &request))
            .map_err(Failure::other)?;
        verifications.push(start.elapsed());
        drop(verified);
        if !drawn.insert(token) {
            return Err(Failure::other("a token was handed out twice"));
        }
        thread::sleep(PACE);
    }
    report.latency("draw a token over the socket", draws);
    report.latency("verify a token (suite 1), without spending it", verifications);
    Ok(())
}

fn kill(
    report: &mut Report,
    sidecar: Sidecar,
    folder: &Path,
    drawn: &mut HashSet<String>,
) -> Outcome<Sidecar> {
    sidecar.kill()?;
    let sidecar = Sidecar::start(folder)?;
    let mut client = sidecar.client()?;
    let mut again = 0;
    for _ in 0..100 {
        again += usize::from(!drawn.insert(draw(&mut client, "search")?));
    }
    report.line(
        "the sidecar is killed (-9) and restarted on its file: 100 tokens",
        "0 seen before",
        format!("{again} seen before"),
    );
    Ok(sidecar)
}

fn flush(report: &mut Report, server: &Server, sidecar: &Sidecar, session: &str) -> Outcome {
    let mut client = sidecar.client()?;
    let in_flight = [draw(&mut client, "search")?, draw(&mut client, "search")?];
    let [first, second] = &in_flight;
    let kind = EventKind::new("session-compromised").map_err(Failure::other)?;
    let reason = Reason::new("demo: the agent was hijacked").map_err(Failure::other)?;
    let flushed = sidecar.control()?.security_event(kind, FlushScope::All, reason)?;
    let some = if flushed.tokens_discarded > 0 { "destroyed" } else { "nothing was there" };
    report.line("a security event flushes what was minted ahead", "destroyed", some);

    let status = client.token_status(None)?;
    report.line("the queue after it", "0 tokens", format!("{} tokens", status.queue_depth));
    let refused = outcome(client.dequeue_token(&tool("search")?, Duration::ZERO));
    report.line("drawing after it", "SESSION_FLUSHED", refused);

    let before = http::call(server.address, "/search", Some(first))?;
    report.line("a token in flight, before the session is revoked", "200", before);
    let revoked = server.revoke(session);
    report.line(
        "the resource server revokes the session",
        "revoked",
        if revoked { "revoked" } else { "unknown" },
    );
    let after = http::call(server.address, "/search", Some(second))?;
    report.line("a token in flight, after it", "401 SESSION_EXPIRED", after);
    Ok(())
}

fn tool(name: &str) -> Outcome<ToolName> {
    ToolName::new(name).map_err(Failure::other)
}

/// A draw's outcome in one word.
fn outcome<T>(drawn: Result<T, CallError>) -> String {
    match drawn {
        Ok(_) => "a token".to_owned(),
        Err(error) => error.refusal().map_or_else(|| error.to_string(), |refusal| refusal.code().to_string()),
    }
}
