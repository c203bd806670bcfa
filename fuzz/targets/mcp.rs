//! Any bytes as what an MCP client and its server say. As a stream of events they are the same however they are cut, and say what
//! a slow reader hears. As lines they reach the server only as one line each, saying the same without the extension; and none
//! that could be the call of a tool, since nobody here has a token.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use obol_fuzz::{mcp, seeds};
use obol_mcp::front::{FromClient, FromServer, Front};
use obol_mcp::routing::Outline;
use obol_mcp::sse::{Event, Events, TooLong};
use obol_mcp::wrap::{self, Wrap};
use obol_mcp::{Rules, ToolGuard, ToolsCall};
use obol_resource::Gate;
use obol_token::Audience;
use obol_verify::{MemorySessionTable, MemorySpentSet, SystemClock, Verifier};
use serde_json::Value;

const MAX_EVENT_BYTES: usize = 1_024;
const ENDS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];

fn cut<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Event>, TooLong> {
    let (mut events, mut found) = (Events::at_most(MAX_EVENT_BYTES), Vec::new());
    for piece in pieces {
        found.extend(events.push(piece)?);
    }
    Ok(found)
}

fn said(events: &[Event]) -> Vec<Vec<u8>> {
    events.iter().filter_map(Event::data).collect()
}

fn check_events(stream: &[u8], size: usize) {
    let (whole, pieces) = (cut(core::iter::once(stream)), cut(stream.chunks(size)));
    for events in [&whole, &pieces].into_iter().flatten() {
        assert_eq!(said(events), mcp::said(stream));
        let raw: usize = events.iter().map(|event| event.raw().len()).sum();
        assert!(raw <= stream.len() && events.iter().all(|event| event.raw().len() <= MAX_EVENT_BYTES));
    }
    for event in whole.iter().flatten() {
        let (_id, _retry) = (event.id(), event.retry_millis());
        let Some(data) = event.data() else { continue };
        let text = String::from_utf8_lossy(&data).into_owned();
        let written = event.with_data(&text);
        let again = Events::at_most(2 * written.len()).push(&written).expect("it is short enough");
        assert_eq!(said(&again), [text.replace('\r', "\n").into_bytes()], "one event that says this");
    }
}

/// A guard that knows no session, so that no token is good.
fn front() -> Front {
    let clock = Arc::new(SystemClock::new());
    let audience = Audience::new("https://mcp.example").expect("an audience");
    let spent = Arc::new(MemorySpentSet::unfenced(clock.clone(), 60));
    let verifier =
        Verifier::builder(audience, Arc::new(MemorySessionTable::new()), spent).clock(clock).build();
    let gate = Gate::new(verifier.expect("the parts fit"));
    Front::new(ToolGuard::new(gate), Rules::default(), Box::new(|_| false))
}

fn one_message(text: &str) -> Value {
    assert!(!text.contains(ENDS), "a line within a line: {text}");
    let message: Value = serde_json::from_str(text).expect("what is written is JSON");
    assert!(message.is_object());
    message
}

async fn check_lines(lines: &[&[u8]]) {
    let front = front();
    for line in lines {
        match front.from_client(line).await {
            FromClient::Send(sent) => {
                let sent = one_message(&sent);
                assert!(!mcp::could_be_a_call(&sent), "a call without a token");
                let came: Value = serde_json::from_slice(line).expect("only JSON goes on");
                assert_eq!(sent, mcp::without_extension(came));
            }
            FromClient::Answer(answer) => assert_eq!(one_message(&answer)["jsonrpc"], "2.0"),
            FromClient::Drop => {}
        }
        if let FromServer::Tell(told) = front.from_server(line) {
            serde_json::from_str::<serde_json::Map<String, Value>>(&told).expect("an answer is an object");
        }
    }
}

/// The client's side: whatever goes on in a line's place is JSON, and without a token.
fn check_wrap(lines: &[&str]) {
    let mut wrap = Wrap::new([7; 8]);
    for line in lines {
        if let Some(outline) = Outline::of(line) {
            assert!(outline.request.is_none() || outline.answers.is_none(), "one message is of one kind");
        }
        let _tools_call = ToolsCall::from_json(line.as_bytes());
        let sent = match wrap.from_client(line) {
            wrap::FromClient::Draw(call) => match wrap.with_token(call, Err("none".to_owned())) {
                wrap::Sent::ToServer(line) | wrap::Sent::ToClient(line) => Some(line),
            },
            wrap::FromClient::Send(line) | wrap::FromClient::Answer(line) => Some(line),
            wrap::FromClient::Pass => None,
        };
        let told = match wrap.from_server(line) {
            wrap::FromServer::Tell(line) | wrap::FromServer::Stolen { line, .. } => Some(line),
            wrap::FromServer::Again(_) | wrap::FromServer::Pass | wrap::FromServer::Drop => None,
        };
        for line in [sent, told].into_iter().flatten() {
            serde_json::from_str::<Value>(&line).expect("what is written is JSON");
        }
    }
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
}

fuzz_target!(init: seeds::write_if_asked("mcp"), |data: &[u8]| {
    let Some((size, stream)) = data.split_first() else { return };
    check_events(stream, usize::from(*size) + 1);
    let lines: Vec<&[u8]> = stream.split(|byte| *byte == b'\n').collect();
    RUNTIME.with(|runtime| runtime.block_on(check_lines(&lines)));
    let texts: Vec<&str> = lines.iter().filter_map(|line| core::str::from_utf8(line).ok()).collect();
    check_wrap(&texts);
});
