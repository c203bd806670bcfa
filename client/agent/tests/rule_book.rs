//! The rule book's cases (`tests/vectors/sdk`), against scripted daemons and servers that count.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails by panicking"
)]

#[path = "rule_book/tls.rs"]
mod tls;

use core::error::Error as _;
use core::time::Duration;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use http::{Method, Request};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use obol_agent::{
    Agent, Approval, ApprovalRequest, ApprovedCall, Body, CallOptions, Code, Error, Redirect, Registration,
    Route, read_url,
};
use serde_json::{Map, Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The scripted sidecar, authenticator and servers: a line in, a line out.
struct World {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// What stands for what, of the case that is open.
    places: Vec<(String, String)>,
}

impl World {
    fn start() -> Self {
        let own = root().join("target/python/bin/python");
        let python = if own.exists() { own } else { PathBuf::from("python3") };
        let mut child = Command::new(python)
            .arg(root().join("tests/vectors/sdk/world.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from, places: Vec::new() }
    }

    fn ask(&mut self, step: &Value) -> Value {
        writeln!(self.to, "{step}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{step}: {error}: {line}"))
    }

    fn open(&mut self, world: &Value) -> Value {
        let opened = self.ask(&json!({"open": world}));
        self.places = opened["servers"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(name, origin)| {
                let origin = origin.as_str().unwrap();
                let port = origin.rsplit(':').next().unwrap();
                [(format!("{{{name}.port}}"), port.to_owned()), (format!("{{{name}}}"), origin.to_owned())]
            })
            .collect();
        opened
    }

    fn filled(&self, value: &Value) -> Value {
        let text =
            self.places.iter().fold(value.to_string(), |text, (name, place)| text.replace(name, place));
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// What a call came to.
#[derive(Debug)]
enum Outcome {
    Answer(u16, Result<String, Error>),
    Result(Value),
    Failed(Error),
}

impl From<Result<Value, Error>> for Outcome {
    fn from(result: Result<Value, Error>) -> Self {
        result.map_or_else(Self::Failed, Self::Result)
    }
}

fn text<'a>(call: &'a Value, name: &str) -> Option<&'a str> {
    call.get(name).and_then(Value::as_str)
}

fn options(call: &Value) -> CallOptions {
    let mut options = CallOptions::new();
    if let Some(tool) = text(call, "tool") {
        options = options.tool(tool);
    }
    if let Some(key) = text(call, "idempotencyKey") {
        options = options.idempotency_key(key);
    }
    if let Some(timeout) = call.get("timeoutMs").and_then(Value::as_u64) {
        options = options.timeout(Duration::from_millis(timeout));
    }
    if let Some(id) = text(call, "approvalId") {
        options = options.approval_id(id);
    }
    if let Some(said) = call.get("approval").filter(|said| **said != "never") {
        options = options.approval(approval(said));
    }
    options.redirect(match text(call, "redirect") {
        Some("manual") => Redirect::Manual,
        Some("error") => Redirect::Refuse,
        _ => Redirect::Follow,
    })
}

fn approval(said: &Value) -> Approval {
    let mut approval = Approval::wait().on_prompt(|_| {});
    let actions = match &said["action"] {
        Value::Array(actions) => actions.iter().map(|action| action.as_str().unwrap()).collect(),
        action => Vec::from_iter(action.as_str()),
    };
    for action in actions {
        approval = approval.action(action);
    }
    if let Some(purpose) = text(said, "purpose") {
        approval = approval.purpose(purpose);
    }
    if let Some(resource) = text(said, "resource") {
        approval = approval.resource(resource);
    }
    if let Some(constraints) = said.get("constraints") {
        approval = approval.constraints(constraints.to_string());
    }
    if said["showArguments"] == false {
        approval = approval.show_arguments(false);
    }
    if said["always"] == true {
        approval = approval.always();
    }
    match said["timeoutMs"].as_u64() {
        Some(timeout) => approval.timeout(Duration::from_millis(timeout)),
        None => approval,
    }
}

fn approval_request(said: &Value) -> ApprovalRequest {
    let call = |said: &Value| {
        let mut call = ApprovedCall::new(text(said, "tool").unwrap());
        if let Some(audience) = text(said, "audience") {
            call = call.audience(audience);
        }
        if let Some(action) = text(said, "action") {
            call = call.action(action);
        }
        if let Some(resource) = text(said, "resource") {
            call = call.resource(resource);
        }
        if let Some(constraints) = said.get("constraints") {
            call = call.constraints(constraints.to_string());
        }
        if let Some(arguments) = said.get("arguments") {
            call = call.arguments(arguments.to_string());
        }
        match said["count"].as_u64() {
            Some(count) => call.count(count),
            None => call,
        }
    };
    let mut request =
        ApprovalRequest::new(said["calls"].as_array().unwrap().iter().map(call)).on_prompt(|_| {});
    if let Some(purpose) = text(said, "purpose") {
        request = request.purpose(purpose);
    }
    if let Some(seconds) = said["lifetimeSeconds"].as_u64() {
        request = request.lifetime(Duration::from_secs(seconds));
    }
    if let Some(count) = said["count"].as_u64() {
        request = request.count(count);
    }
    match said["timeoutMs"].as_u64() {
        Some(timeout) => request.timeout(Duration::from_millis(timeout)),
        None => request,
    }
}

fn request(call: &Value) -> Result<Request<Body>, Error> {
    let method: Method = text(call, "method").unwrap_or("GET").parse().unwrap();
    let mut request = Request::builder().method(method).uri(read_url(text(call, "url").unwrap())?);
    for (name, value) in call.get("headers").and_then(Value::as_object).unwrap_or(&Map::new()) {
        request = request.header(name, value.as_str().unwrap());
    }
    let body = text(call, "body").unwrap_or_default().to_owned();
    let body = match call.get("stream") {
        Some(_) => Body::stream(StreamBody::new(Pieces(vec![body]))),
        None => body.into(),
    };
    // The types of a request already refuse some of what other languages have to look for.
    request.body(body).map_err(|_| read_url("").unwrap_err())
}

/// A stream of texts.
struct Pieces(Vec<String>);

impl futures_core::Stream for Pieces {
    type Item = Result<Frame<Bytes>, core::convert::Infallible>;

    fn poll_next(
        mut self: core::pin::Pin<&mut Self>,
        _context: &mut core::task::Context<'_>,
    ) -> core::task::Poll<Option<Self::Item>> {
        core::task::Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(piece.into()))))
    }
}

async fn perform(agent: &Agent, kind: &str, call: &Value) -> Outcome {
    match kind {
        "fetch" => {
            let request = match request(call) {
                Ok(request) => request,
                Err(error) => return Outcome::Failed(error),
            };
            match agent.fetch_with(request, &options(call)).await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    assert!(!format!("{:?}", response.body()).contains("tok_"));
                    let body = response.into_body().collect_up_to(1 << 20).await;
                    Outcome::Answer(status, body.map(|body| String::from_utf8_lossy(&body).into_owned()))
                }
                Err(error) => Outcome::Failed(error),
            }
        }
        "dequeueToken" => {
            let drawn = agent.dequeue_token_with(&options(call), None).await;
            assert!(
                drawn.as_ref().is_ok_and(|token| !format!("{token:?}").contains("tok_")) || drawn.is_err()
            );
            drawn.map(|token| json!({"tool": token.details().tool})).into()
        }
        "requestApproval" => {
            let approved = agent.request_approval(&approval_request(call)).await;
            approved.map(|approved| json!(approved)).into()
        }
        "authenticate" => agent.authenticate().await.map(|opened| json!(opened)).into(),
        "ensureAuthenticated" => agent.ensure_authenticated().await.map(|opened| json!(opened)).into(),
        "register" => {
            let wait = call.get("wait").is_none_or(|wait| wait != false);
            let wishes = Registration::new().on_prompt(|_| {});
            let wishes = if wait { wishes } else { wishes.wait(Duration::ZERO) };
            agent.register(wishes).await.map(|seen| json!(seen)).into()
        }
        "tokenStatus" => agent.token_status(text(call, "tool")).await.map(|status| json!(status)).into(),
        "sessionInfo" => agent.session_info().await.map(|session| json!(session)).into(),
        other => panic!("{other} is not a call"),
    }
}

/// Whether all that is expected is there.
fn holds(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            expected.iter().all(|(name, value)| holds(value, found.get(name).unwrap_or(&Value::Null)))
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len() && expected.iter().zip(found).all(|(one, other)| holds(one, other))
        }
        (expected, found) => expected == found,
    }
}

fn is_expected(expect: &Value, outcome: &Outcome) -> bool {
    let code = |error: &Error| {
        error.code().as_str() == text(expect, "error").or(text(expect, "bodyError")).unwrap_or_default()
    };
    match outcome {
        Outcome::Failed(error) => expect.get("error").is_some() && code(error),
        Outcome::Answer(status, body) => {
            expect.get("status").is_some_and(|expected| *expected == *status)
                && match body {
                    Ok(body) => {
                        expect.get("bodyError").is_none()
                            && text(expect, "body").is_none_or(|expected| expected == body)
                    }
                    Err(error) => expect.get("bodyError").is_some() && code(error),
                }
        }
        Outcome::Result(found) => expect.get("result").is_some_and(|expected| holds(expected, found)),
    }
}

/// All that it tells of itself. An answer's body is the server's word to its caller, whatever it holds.
fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(error) | Outcome::Answer(_, Err(error)) => {
            let because = core::iter::successors(error.source(), |error| (*error).source());
            let because: Vec<_> = because.map(|error| format!("{error} {error:?}")).collect();
            format!("{error} {error:?} {because:?}")
        }
        Outcome::Answer(_, Ok(_)) => String::new(),
        Outcome::Result(found) => found.to_string(),
    }
}

/// What of a case is not as it should be.
async fn wrong(world: &mut World, case: &Value) -> Vec<String> {
    let opened = world.open(&case["world"]);
    let case = &world.filled(case);
    let mut builder = Agent::builder()
        .socket(opened["agentSocket"].as_str().unwrap())
        .auth_socket(opened["authSocket"].as_str().unwrap());
    if let Some(routes) = case.pointer("/options/routes") {
        builder = builder.routes(serde_json::from_value::<Vec<Route>>(routes.clone()).unwrap());
    }
    let agent = builder.connect().await.unwrap();
    let (kind, call) = case["call"].as_object().unwrap().iter().next().unwrap();
    let began = Instant::now();
    let times = case.get("together").and_then(Value::as_u64).unwrap_or(1);
    let calls: Vec<_> = (0..times)
        .map(|_| {
            let (agent, kind, call) = (agent.clone(), kind.clone(), call.clone());
            tokio::spawn(async move { perform(&agent, &kind, &call).await })
        })
        .collect();
    let mut found = Vec::new();
    for call in calls {
        let outcome = call.await.unwrap();
        if !is_expected(&case["expect"], &outcome) {
            found.push(format!("came to {outcome:?}"));
        }
        if told(&outcome).contains("tok_") || format!("{agent:?}").contains("tok_") {
            found.push("tells a token".to_owned());
        }
    }
    let took = u64::try_from(began.elapsed().as_millis()).unwrap();
    drop(agent);
    let counts = world.ask(&json!("close"));
    found.extend(counted(case, &counts));
    if case.get("atLeastMs").and_then(Value::as_u64).is_some_and(|least| took < least)
        || case.get("withinMs").and_then(Value::as_u64).is_some_and(|most| took > most)
    {
        found.push(format!("took {took} ms"));
    }
    found
}

/// What the world counted otherwise.
fn counted(case: &Value, counts: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if counts["violations"] != json!([]) {
        found.push(format!("violations {}", counts["violations"]));
    }
    let drawn = counts["drawn"].as_array().unwrap();
    if case.get("drawn").is_some_and(|expected| *expected != drawn.len()) {
        found.push(format!("drew {} tokens", drawn.len()));
    }
    if let Some(expected) = case.get("popFor") {
        let said: Vec<_> =
            drawn.iter().map(|params| params.get("popFor").cloned().unwrap_or_default()).collect();
        if *expected != json!(said) {
            found.push(format!("said popFor {said:?}"));
        }
    }
    if let Some(expected) = case.get("approvalIds") {
        let by: Vec<_> =
            drawn.iter().map(|params| params.get("approvalId").cloned().unwrap_or_default()).collect();
        if *expected != json!(by) {
            found.push(format!("drew by {by:?}"));
        }
    }
    for list in ["told", "asked"] {
        if case.get(list).is_some_and(|expected| *expected != counts[list]) {
            found.push(format!("{list} {}", counts[list]));
        }
    }
    for (name, requests) in counts["servers"].as_object().unwrap() {
        let expected = case.pointer(&format!("/servers/{name}")).and_then(Value::as_u64).unwrap_or(0);
        let seen = requests.as_array().unwrap();
        if case.get("servers").is_some() && seen.len() as u64 != expected {
            found.push(format!("server {name} saw {} requests", seen.len()));
        }
        if case.pointer(&format!("/seen/{name}")).is_some_and(|expected| !holds(expected, requests)) {
            found.push(format!("server {name} saw {requests}"));
        }
    }
    for daemon in ["authenticator", "tqs"] {
        for (method, expected) in case.get(daemon).and_then(Value::as_object).unwrap_or(&Map::new()) {
            if counts[daemon].get(method).unwrap_or(&json!(0)) != expected {
                found.push(format!("asked the {daemon} {}", counts[daemon]));
            }
        }
    }
    found
}

async fn hold(file: &str) {
    let cases = std::fs::read_to_string(root().join("tests/vectors/sdk").join(file)).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
    let only = std::env::var("ONLY").unwrap_or_default();
    let (mut world, mut failed, mut count) = (World::start(), Vec::new(), 0);
    for case in cases.iter().filter(|case| case["what"].as_str().unwrap().contains(&only)) {
        count += 1;
        let wrong = wrong(&mut world, case).await;
        if !wrong.is_empty() {
            failed.push(format!("{}\n    {}", case["what"].as_str().unwrap(), wrong.join("\n    ")));
        }
    }
    assert!(failed.is_empty(), "{} of {count} cases:\n{}", failed.len(), failed.join("\n"));
    assert!(count > 30 || !only.is_empty(), "{count}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_goes_by_the_rule_book() {
    hold("calls.json").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_takes_a_humans_yes_is_asked_for_once_and_sent_once() {
    hold("approvals.json").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_attack_of_the_rule_book_gets_a_token_or_a_second_run() {
    hold("attacks.json").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_at_any_byte_costs_a_token_and_runs_nothing_unsafe_twice() {
    let head = "HTTP/1.1 200 Scripted\r\nContent-Length: 2\r\n\r\n".len();
    let mut world = World::start();
    for cut in 0..=head + 2 {
        for (method, key) in [("GET", None), ("POST", None), ("POST", Some("order-1"))] {
            let (is_answer, is_whole) = (cut >= head, cut == head + 2);
            let sent = if is_answer || (method == "POST" && key.is_none()) { 1 } else { 2 };
            let expect = match (is_answer, is_whole) {
                (false, _) => json!({"error": "OUTCOME_UNKNOWN"}),
                (true, false) => json!({"status": 200, "bodyError": "OUTCOME_UNKNOWN"}),
                (true, true) => json!({"status": 200, "body": "ok"}),
            };
            let case = json!({
                "world": {"servers": {"A": [{"cut": cut}]}},
                "options": {"routes": [{"audience": "{A}", "tools": ["search"]}]},
                "call": {"fetch": {"method": method, "url": "{A}/v1/x", "idempotencyKey": key}},
                "expect": expect,
                "drawn": sent,
                "servers": {"A": sent},
            });
            assert_eq!(wrong(&mut world, &case).await, [""; 0], "{method} with key {key:?}, cut at {cut}");
        }
    }
}

#[test]
fn threads_and_clients_of_ones_own_send_a_token_with_each_request() {
    let mut world = World::start();
    let opened = world.open(&json!({"servers": {"A": []}}));
    let routes = world.filled(&json!([{"audience": "{A}", "tools": ["search"]}]));
    let url = world.filled(&json!("{A}/v1/x")).as_str().unwrap().to_owned();
    let builder = Agent::builder()
        .socket(opened["agentSocket"].as_str().unwrap())
        .routes(serde_json::from_value::<Vec<Route>>(routes).unwrap());
    let get = || Request::get(&url).body(()).unwrap();

    let agent = obol_agent::blocking::Agent::from_builder(builder.clone()).unwrap();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| agent.fetch(get()).unwrap())).collect();
        assert!(calls.into_iter().all(|call| call.join().unwrap().body() == "ok"));
    });
    assert!(!format!("{:?}", agent.dequeue_token("search").unwrap()).contains("tok_"));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use tower::{Layer as _, Service as _};
        let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
        let client = client.build_http::<http_body_util::Empty<Bytes>>();
        let mut client = obol_agent::AgentLayer::new(builder.connect().await.unwrap()).layer(client);
        let request = |url: &str| Request::get(url).body(http_body_util::Empty::new()).unwrap();
        assert_eq!(client.call(request(&url)).await.unwrap().status(), 200);
        let refused = client.call(request("https://elsewhere.example/")).await.unwrap_err();
        assert_eq!(refused.downcast_ref::<Error>().unwrap().code(), Code::UnknownDestination);
    });
    let counts = world.ask(&json!("close"));
    assert_eq!((counts["drawn"].as_array().unwrap().len(), &counts["violations"]), (6, &json!([])));
    assert!(counts["servers"]["A"].as_array().unwrap().iter().all(|request| request["token"] == true));
}

#[test]
fn a_url_is_read_strictly() {
    assert_eq!(read_url("HTTPS://Api.Example/%41 b#c").unwrap().to_string(), "https://api.example/A%20b");
    assert_eq!(read_url("https://api.example/../x").unwrap_err().code(), Code::InvalidArgument);
}
