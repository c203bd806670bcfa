//! The story itself.

use core::time::Duration;
use std::collections::HashSet;
use std::thread;
use std::time::Instant;

use obol_client::CallError;
use obol_client::Client;
use obol_ipc::approvals::{RequestApprovalParams, WantedCall};
use obol_ipc::auth::{RegisterParams, RegistrationState};
use obol_ipc::names::{Label, ToolName, WishedName};
use obol_verify::{Request, Unverified};

use super::authority::Authority;
use super::home::{Home, LATER, SOON, wait_for};
use super::http;
use super::report::Report;
use super::server::Server;
use super::sidecar::{Authenticator, Sidecar, draw};
use crate::exit::{Failure, Outcome};

const AUDIENCE: &str = "https://api.example/mcp";
const AGENT: &str = "builder";
/// Life of a token of the tool that is there to expire, in seconds.
const BRIEF_TTL_SECS: u64 = 1;
/// Clients that present one token at the same moment.
const RACERS: usize = 32;
/// Calls that are timed.
const SAMPLES: usize = 500;
/// How long the agent waits to hear of a yes.
const DECISION_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between timed draws: an agent that makes 500 calls a second.
const PACE: Duration = Duration::from_millis(2);
/// How a call is told that was not refused.
const GRANTED: &str = "granted";
/// Tokens that are on their way when the agent is disabled: one is accepted, and gone, with each look.
const IN_FLIGHT: usize = 200;

/// Tells the story from a human's yes to the end.
pub(crate) fn tell(report: &mut Report) -> Outcome {
    let home = Home::new()?;
    let authority = Authority::start(&home)?;
    let server = Server::start(AUDIENCE, &authority, &home)?;
    let sidecar = Sidecar::start(&home)?;
    let authenticator = Authenticator::start(&home, &authority.pin)?;
    let mut client = sidecar.client()?;
    let mut drawn = HashSet::new();

    register(report, &authority, &authenticator, &mut client)?;
    authenticate(report, &authenticator, &server)?;
    mint(report, &sidecar, &mut client)?;
    let brief = Drawn { token: draw(&mut client, "brief")?, at: Instant::now() };
    spend(report, &server, &mut client, &mut drawn)?;
    refuse(report, &server, &mut client)?;
    ask(report, &authority, &authenticator, &server, &mut client)?;
    race(report, &server, &mut client)?;
    expire(report, &server, &brief)?;
    measure(report, &server, &mut client, &mut drawn)?;
    let sidecar = kill(report, sidecar, &home, &mut drawn)?;
    disable(report, &authority, &authenticator, &server, &sidecar)
}

struct Drawn {
    token: String,
    at: Instant,
}

fn register(
    report: &mut Report,
    authority: &Authority,
    authenticator: &Authenticator,
    client: &mut Client,
) -> Outcome {
    let early = outcome(client.dequeue_token(&tool("search")?, Duration::ZERO));
    report.line("an agent that nobody has approved gets no token", "NO_SESSION", early);
    let wish = |text: &str| WishedName::new(text).map_err(Failure::other);
    let wishes = RegisterParams {
        name: Some(wish(AGENT)?),
        roles: vec![wish("developer")?],
        ..RegisterParams::default()
    };
    let asked = authenticator.client()?.register(wishes)?;
    let waits = if asked.state == RegistrationState::Waiting { "a human must say yes" } else { "no" };
    report.line("it asks to be registered", "a human must say yes", waits);
    let code = asked.code.ok_or_else(|| Failure::other("there is no code to approve it by"))?;
    let seen = authority.operator.review(&code)?;
    let words = if seen.registration.words == asked.words { "the same" } else { "others" };
    report.line("the words that agent and human see for its key", "the same", words);
    authority.operator.approve(&code, &seen)
}

fn authenticate(report: &mut Report, authenticator: &Authenticator, server: &Server) -> Outcome {
    let mut session = None;
    let mut client = authenticator.client()?;
    wait_for("a session", LATER, || {
        session = client.auth_status()?.session;
        Ok(session.is_some())
    })?;
    let session = session.ok_or_else(|| Failure::other("there is no session"))?;
    report.line(
        "the human approves; agent and service do a post-quantum handshake",
        "suite 4",
        format!("suite {}", session.algorithm_suite),
    );
    wait_for("the resource server to hear of the session", SOON, || Ok(server.knows(session.session_id)))?;
    report.line("the API learns of the session over its stream", "yes", "yes");
    Ok(())
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
    report.line("a tool that policy does not grant it gets no token", "POLICY_DENY", unknown);
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
    report.line("one bit of it changed", "401 DECRYPTION_FAILED", tampered);
    let after = http::call(server.address, "/search", Some(&token))?;
    report.line("the same token, unchanged, at /search: refusals burn nothing", "200", after);
    Ok(())
}

/// A call that nobody but a human lets through: nothing is minted ahead for it, and one yes is one call.
fn ask(
    report: &mut Report,
    authority: &Authority,
    authenticator: &Authenticator,
    server: &Server,
    client: &mut Client,
) -> Outcome {
    let refund = tool("refund")?;
    let without = outcome(client.dequeue_token(&refund, Duration::ZERO));
    let call = WantedCall {
        tool: refund.clone(),
        audience: None,
        actions: Vec::new(),
        resource: None,
        constraints: None,
        arguments: None,
        count: None,
    };
    let request = RequestApprovalParams { calls: vec![call], purpose: None, lifetime_seconds: None };
    let asked = authenticator.client()?.request_approval(request)?;
    authority.operator.approve_call(&asked.approval_id)?;
    let label = |text: &str| Label::new(text).map_err(Failure::other);
    let mut approved =
        authenticator.client()?.approval_status(label(&asked.approval_id)?, DECISION_PATIENCE)?;
    let id = approved.calls.pop().ok_or_else(|| Failure::other("the yes is to no call"))?;
    let token = client.dequeue_approved(&refund, None, label(&id)?, None)?.token.expose().to_owned();
    let mut called = String::new();
    wait_for("the API to hear of the yes", SOON, || {
        called = http::call(server.address, "/refund", Some(&token))?;
        Ok(called == "200")
    })?;
    report.line(
        "a call that needs a human's approval: before it, with it, once more",
        "APPROVAL_REQUIRED, 200, APPROVAL_REQUIRED",
        format!(
            "{without}, {called}, {}",
            outcome(client.dequeue_approved(&refund, None, label(&id)?, None))
        ),
    );
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
    report.line("a token valid for one second, two seconds later", "401 STALE_TIMESTAMP", late);
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
    report.latency("verify a token (suite 4), without spending it", verifications);
    Ok(())
}

fn kill(report: &mut Report, sidecar: Sidecar, home: &Home, drawn: &mut HashSet<String>) -> Outcome<Sidecar> {
    sidecar.kill()?;
    let sidecar = Sidecar::start(home)?;
    let mut client = sidecar.client()?;
    // Nothing of the session is handed out before the sidecar was told that the service is heard still.
    wait_for("word of the service at the sidecar", SOON, || Ok(client.session_info().is_ok()))?;
    let mut again = 0;
    // It knows of no service that is heard before the authenticator has told it, within a moment.
    wait_for("the sidecar to hand out again", SOON, || match draw(&mut client, "search") {
        Ok(token) => {
            again += usize::from(!drawn.insert(token));
            Ok(true)
        }
        Err(_) => Ok(false),
    })?;
    for _ in 1..100 {
        again += usize::from(!drawn.insert(draw(&mut client, "search")?));
    }
    report.line(
        "the sidecar is killed (-9) and restarted on its file: 100 tokens",
        "0 seen before",
        format!("{again} seen before"),
    );
    Ok(sidecar)
}

/// One verb at the service, and everything that was minted, is on its way, or is still to come is good for nothing.
fn disable(
    report: &mut Report,
    authority: &Authority,
    authenticator: &Authenticator,
    server: &Server,
    sidecar: &Sidecar,
) -> Outcome {
    let mut client = sidecar.client()?;
    let in_flight = (0..IN_FLIGHT).map(|_| draw(&mut client, "search")).collect::<Outcome<Vec<_>>>()?;
    let mut in_flight = in_flight.iter();
    let mut present = || match in_flight.next() {
        Some(token) => http::call(server.address, "/search", Some(token)),
        None => Err(Failure::other("the API still accepts the agent's tokens")),
    };
    report.line("a token in flight, before the agent is disabled", "200", present()?);

    let begun = Instant::now();
    let ended = authority.operator.disable(AGENT)?;
    report.line(
        "one command: obol agent disable builder",
        "1 session ended",
        format!("{} session ended", ended.sessions_ended),
    );
    let mut refused = String::new();
    wait_for("the API's refusal", SOON, || {
        refused = present()?;
        Ok(refused != "200")
    })?;
    report.time("until the API refused a token in flight", begun.elapsed());
    report.line("a token in flight, after it", "401 SESSION_EXPIRED", refused);
    let mut queue = String::new();
    wait_for("the sidecar's refusal", SOON, || {
        queue = outcome(client.dequeue_token(&tool("search")?, Duration::ZERO));
        Ok(queue != GRANTED)
    })?;
    report.time("until the sidecar destroyed the tokens minted ahead", begun.elapsed());
    report.line("drawing after it", "SESSION_FLUSHED", queue);
    let status = client.token_status(None)?;
    report.line("the queue after it", "0 tokens", format!("{} tokens", status.queue_depth));
    let again = outcome(authenticator.client()?.authenticate());
    report.line("another session for it", "SUSPENDED", again);
    Ok(())
}

fn tool(name: &str) -> Outcome<ToolName> {
    ToolName::new(name).map_err(Failure::other)
}

/// A call's outcome in one word.
fn outcome<T>(answer: Result<T, CallError>) -> String {
    match answer {
        Ok(_) => GRANTED.to_owned(),
        Err(error) => error.refusal().map_or_else(|| error.to_string(), |refusal| refusal.code().to_string()),
    }
}
