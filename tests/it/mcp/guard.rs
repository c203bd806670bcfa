//! MCP: the example server under the official SDK's own client, and the guard without any SDK.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use ed25519_dalek::{Signer, SigningKey};
use obol_mcp::capability::{ClientCapability, Negotiated, Position, ServerCapability, negotiate};
use obol_mcp::{Admitted, Denied, EXTENSION, RequestMeta, TokenText, ToolGuard, ToolResult, ToolsCall};
use obol_resource::{Gate, PopProof, SealedMessage, ToolCall};
use obol_token::text::to_base64url;
use obol_token::{ChannelKeys, ResponseKey, possession_transcript};
use obol_verify::{Denial, arguments_hash};
use obol_world::forge::Forge;
use obol_world::home;
use obol_world::scope::scope_with;
use obol_world::server::{Server, session};
use obol_world::tqs::Tqs;
use obol_world::{SESSION, TOOL};
use rmcp::ServiceExt;
use rmcp::model::{CallToolRequestParams, CallToolResult, RequestMetaObject};
use rmcp::service::{RoleClient, RunningService};
use serde_json::{Map, Value, json};

use crate::end_to_end::{AUDIENCE, create_session, draw};

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// `_meta` with a token in it.
fn meta(token: &str) -> Map<String, Value> {
    let mut meta = Map::new();
    RequestMeta::new(TokenText::new(token)).attach(&mut meta);
    meta
}

/// The example, as a command that serves the session in this home.
fn example(home: &Path) -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let what = ["--package", "obol-mcp", "--features", "rmcp"];
    let binary = BINARY.get_or_init(|| home::example("mcp-server", &what));
    let mut command = Command::new(binary);
    command.args(["rs-sessions.json", AUDIENCE]).current_dir(home).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(std::fs::File::create(home.join("mcp.log")).unwrap());
    command
}

/// Session and sidecar with a grant for two of the example's tools.
fn world() -> (tempfile::TempDir, Tqs) {
    let home = home::home();
    let created = home::command(home.path())
        .args(["session", "create", "--audience", AUDIENCE, "--tool", "add", "--tool", "greet"])
        .output()
        .unwrap();
    assert!(created.status.success(), "{created:?}");
    let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
    (home, tqs)
}

async fn call(
    client: &RunningService<RoleClient, ()>,
    tool: &'static str,
    arguments: Value,
    token: Option<&str>,
) -> CallToolResult {
    let mut params = CallToolRequestParams::new(tool).with_arguments(object(arguments));
    if let Some(token) = token {
        let mut carried = RequestMetaObject::default();
        carried.0.0 = meta(token);
        params.meta = Some(carried);
    }
    client.call_tool(params).await.unwrap()
}

fn denied(result: &CallToolResult) -> (String, String) {
    let result: ToolResult = serde_json::from_value(serde_json::to_value(result).unwrap()).unwrap();
    let denied = Denied::of(&result).unwrap_or_else(|| panic!("no refusal: {result:?}"));
    (denied.reason, denied.failed_check)
}

fn names(reason: &str, check: &str) -> (String, String) {
    (reason.to_owned(), check.to_owned())
}

fn text(result: &CallToolResult) -> String {
    assert_ne!(result.is_error, Some(true), "{result:?}");
    serde_json::to_value(&result.content).unwrap()[0]["text"].as_str().unwrap().to_owned()
}

#[test]
fn the_example_server_runs_a_tool_once_for_each_token() {
    let (home, tqs) = world();
    let (adding, greeting) = (draw(&tqs, "add"), draw(&tqs, "greet"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut child = tokio::process::Command::from(example(home.path())).spawn().unwrap();
        let transport = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let client = ().serve(transport).await.unwrap();

        let capabilities = serde_json::to_value(&client.peer_info().unwrap().capabilities).unwrap();
        let negotiated: Negotiated<ServerCapability> = negotiate(capabilities.as_object().unwrap());
        let expected = Negotiated::Enabled { peer: ServerCapability::default(), place: Position::Extensions };
        assert_eq!(negotiated, expected);
        let mut tools: Vec<_> =
            client.list_all_tools().await.unwrap().into_iter().map(|tool| tool.name).collect();
        tools.sort();
        assert_eq!(tools, ["add", "greet", "ping"]);

        let sum = json!({"a": 2, "b": 3});
        let absent = call(&client, "add", sum.clone(), None).await;
        assert_eq!(denied(&absent), names("TBAC_REQUIRED", "TOKEN_ABSENT"));
        let wrong_tool = call(&client, "add", sum.clone(), Some(&greeting)).await;
        assert_eq!(denied(&wrong_tool), names("INSUFFICIENT_PRIVILEGE", "TBAC_SCOPE_EVALUATION"));
        let garbage = call(&client, "add", sum.clone(), Some("AAAA")).await;
        assert_eq!(denied(&garbage), names("MALFORMED_TOKEN", "FRAMING_CHECK"));
        assert_eq!(text(&call(&client, "add", sum.clone(), Some(&adding)).await), "5");
        let replay = call(&client, "add", sum, Some(&adding)).await;
        assert_eq!(denied(&replay), names("TOKEN_REPLAYED", "REPLAY_CONSUME"));
        let greeted = call(&client, "greet", json!({"name": "Ann"}), Some(&greeting)).await;
        assert!(text(&greeted).starts_with("Hello Ann, from "));
        assert_eq!(text(&call(&client, "ping", json!({}), None).await), "pong");
        assert_eq!(text(&call(&client, "ping", json!({}), Some(&greeting)).await), "pong", "not looked at");

        client.cancel().await.unwrap();
        assert!(child.wait().await.unwrap().success());
    });
    // The example logs everything there is, the SDK's own lines included.
    let log = std::fs::read_to_string(home.path().join("mcp.log")).unwrap();
    assert!(log.contains("TOKEN_REPLAYED") && log.contains("TRACE"), "{log}");
    for token in [&adding, &greeting] {
        assert!(
            !log.contains(&token[..32]) && !log.contains(&token[token.len() - 32..]),
            "a token is in the log"
        );
    }
}

/// The example, spoken to line by line.
struct Raw {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Raw {
    fn start(home: &Path) -> Self {
        let mut child = example(home).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut raw = Self { child, lines };
        let mut capabilities = Map::new();
        obol_mcp::capability::Capability::advertise(
            &ClientCapability::default(),
            &mut capabilities,
            Position::Extensions,
        );
        let params = json!({"protocolVersion": "2025-06-18", "capabilities": capabilities,
                            "clientInfo": {"name": "raw", "version": "1"}});
        let answer = raw.ask(json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}));
        assert_eq!(answer["result"]["capabilities"]["extensions"][EXTENSION]["version"], obol_mcp::VERSION);
        raw.tell(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        raw
    }

    fn tell(&mut self, message: &Value) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    fn ask(&mut self, message: Value) -> Value {
        self.tell(&message);
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

#[test]
fn a_refusal_is_a_result_under_the_requests_own_id() {
    let home = home::home();
    create_session(home.path());
    let mut raw = Raw::start(home.path());
    for id in [json!(41), json!("forty-two")] {
        let params = json!({"name": "add", "arguments": {"a": 1, "b": 2}, "_meta": {"other": 1}});
        let answer = raw.ask(json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}));
        assert_eq!(
            answer,
            json!({"jsonrpc": "2.0", "id": id, "result": {
                "isError": true,
                "content": [{"type": "text", "text": "The call is refused: TBAC_REQUIRED"}],
                "_meta": {EXTENSION: {
                    "denied": true, "reason": "TBAC_REQUIRED", "failed_check": "TOKEN_ABSENT", "tool": "add",
                    "action": "call", "hint": "Draw a token for this tool from the local token queue and call again"
                }}
            }})
        );
    }
    // What the SDK cannot read as a call of a tool reaches no tool either.
    let params = json!({"name": ["add"], "arguments": {"a": 1, "b": 2}});
    let answer = raw.ask(json!({"jsonrpc": "2.0", "id": 43, "method": "tools/call", "params": params}));
    assert_eq!((&answer["id"], answer.get("result")), (&json!(43), None), "{answer}");
    assert!(answer["error"]["code"].is_i64(), "{answer}");
}

/// The guard on its own, with the session of the resource server's tests.
struct Bench {
    server: Server,
    guard: ToolGuard,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Self {
        let signing = SigningKey::from_bytes(&[0x77; 32]);
        let session = session().with_pop_key(signing.verifying_key().as_bytes()).unwrap();
        let server = Server::with_session(session, |builder| builder);
        let guard = ToolGuard::new(Gate::new(server.verifier.clone()))
            .tool(ToolCall::new(TOOL).action("read"))
            .tool_with("by_argument", |arguments| {
                let name = arguments.get("doc").and_then(Value::as_str);
                let name = name.ok_or_else(|| Denial::malformed_request("no document is named"))?;
                Ok(ToolCall::new("by_argument").action("read").resource(format!("docs/{name}")))
            })
            .tool_with("borrowing", |_| Ok(ToolCall::new(TOOL)));
        Self { server, guard, runtime: tokio::runtime::Runtime::new().unwrap() }
    }

    fn admit(&self, tool: &str, arguments: Value, sent: RequestMeta) -> Result<Admitted, String> {
        let mut meta = Map::new();
        sent.attach(&mut meta);
        let admitted = self.runtime.block_on(self.guard.admit(tool, object(arguments), &mut meta));
        assert!(meta.is_empty(), "the token goes no further");
        admitted.map_err(|refusal| Denied::of(&refusal).unwrap().reason)
    }
}

fn sent(token: &Forge) -> RequestMeta {
    RequestMeta::new(TokenText::new(token.text()))
}

fn keys(token: &Forge) -> ChannelKeys {
    ChannelKeys::derive(SESSION, &token.jti(), &ResponseKey::from_bytes(token.response_key))
}

fn sealed(token: &Forge, arguments: &Value) -> SealedMessage {
    let plaintext = arguments.to_string();
    let ciphertext = keys(token).seal_request(&[4; 12], plaintext.as_bytes()).unwrap();
    SealedMessage::new([4; 12], ciphertext).unwrap()
}

fn encrypting(number: u64, tool: &str) -> Forge {
    let constraints = json!({"require_channel_encryption": true});
    Forge::new(number, &scope_with(json!({"tool": tool, "constraints": constraints})))
}

#[test]
fn a_call_without_an_sdk_goes_from_json_to_json() {
    let bench = Bench::new();
    let token = Forge::standard(1);
    let request = json!({"jsonrpc": "2.0", "id": "a", "method": "tools/call",
                         "params": {"name": TOOL, "arguments": {"q": 1}, "_meta": meta(&token.text())}});
    let ask = || {
        let mut call = ToolsCall::from_json(request.to_string().as_bytes()).unwrap();
        let arguments = core::mem::take(&mut call.arguments);
        let admitted = bench.runtime.block_on(bench.guard.admit(&call.name, arguments, &mut call.meta));
        let result = match admitted {
            Ok(admitted) => admitted.finish(ToolResult::text(json!(admitted.arguments()).to_string())),
            Err(refusal) => refusal,
        };
        call.answer(&result)
    };
    let first = ask();
    assert_eq!((&first["id"], &first["result"]["content"][0]["text"]), (&json!("a"), &json!("{\"q\":1}")));
    let second = ask();
    assert_eq!(second["id"], "a");
    assert_eq!(second["result"]["isError"], true);
    assert_eq!(second["result"]["_meta"][EXTENSION]["reason"], "TOKEN_REPLAYED");
    assert!(second["result"]["_meta"][EXTENSION].get("tool").is_none(), "told only where there is no token");
}

#[test]
fn a_tool_that_nobody_named_needs_a_token_too() {
    let bench = Bench::new();
    let refusal = bench.runtime.block_on(bench.guard.admit("unheard_of", Map::new(), &mut Map::new()));
    assert_eq!(Denied::of(&refusal.unwrap_err()).unwrap().reason, "TBAC_REQUIRED");
    let other = bench.admit("unheard_of", json!({}), sent(&Forge::standard(1)));
    assert_eq!(other.unwrap_err(), "INSUFFICIENT_PRIVILEGE");
    assert!(bench.admit(TOOL, json!({}), sent(&Forge::standard(1))).is_ok(), "and that burned nothing");
}

#[test]
fn a_rule_sees_the_arguments_and_lends_no_other_tools_tokens() {
    let bench = Bench::new();
    let token =
        |number| Forge::new(number, &scope_with(json!({"tool": "by_argument", "resource": "docs/a"})));
    let admit = |arguments, number| bench.admit("by_argument", arguments, sent(&token(number)));
    assert_eq!(admit(json!({}), 1).unwrap_err(), "MALFORMED_REQUEST");
    assert_eq!(admit(json!({"doc": "b"}), 1).unwrap_err(), "INSUFFICIENT_PRIVILEGE");
    assert!(admit(json!({"doc": "a"}), 1).is_ok());
    assert_eq!(
        bench.admit("borrowing", json!({}), sent(&Forge::standard(2))).unwrap_err(),
        "MALFORMED_REQUEST"
    );
}

#[test]
fn sealed_arguments_reach_the_tool_and_its_result_leaves_sealed() {
    let bench = Bench::new();
    let token = encrypting(1, TOOL);
    let with = |message: SealedMessage| sent(&token).with_sealed_arguments(&message);
    let good = || with(sealed(&token, &json!({"q": "rows"})));
    assert_eq!(
        bench.admit(TOOL, json!({"q": "rows"}), sent(&token)).unwrap_err(),
        "CHANNEL_ENCRYPTION_REQUIRED"
    );
    assert_eq!(bench.admit(TOOL, json!({"q": 1}), good()).unwrap_err(), "MALFORMED_REQUEST");
    let others = with(sealed(&encrypting(2, TOOL), &json!({"q": "rows"})));
    assert_eq!(bench.admit(TOOL, json!({}), others).unwrap_err(), "MALFORMED_REQUEST");
    let unasked = Forge::standard(3);
    let needless = sent(&unasked).with_sealed_arguments(&sealed(&unasked, &json!({})));
    assert_eq!(bench.admit(TOOL, json!({}), needless).unwrap_err(), "MALFORMED_REQUEST");

    let admitted = bench.admit(TOOL, json!({}), good()).unwrap();
    assert_eq!(json!(admitted.arguments()), json!({"q": "rows"}));
    let result = ToolResult {
        structured_content: Some(json!({"rows": 3})),
        meta: Some(object(json!({"other": 1}))),
        ..ToolResult::error("secret")
    };
    let wire = admitted.finish(result.clone());
    let seen = serde_json::to_value(&wire).unwrap();
    assert_eq!(seen["content"], json!([{"type": "text", "text": "encrypted"}]));
    assert_eq!((&seen["isError"], &seen["_meta"]["other"]), (&json!(true), &json!(1)));
    assert!(seen.get("structuredContent").is_none() && !seen.to_string().contains("secret"));
    assert_eq!(wire.clone().open(&keys(&token)), Ok(result.clone()));
    assert!(wire.open(&keys(&encrypting(2, TOOL))).is_err());
    let second = admitted.finish(result);
    assert_eq!(second, ToolResult::error("The result could not be sealed"), "the nonce is used up");
}

#[test]
fn an_empty_object_in_meta_is_no_token_and_gets_the_hint() {
    let bench = Bench::new();
    for empty in [Value::Null, json!({})] {
        let mut meta = object(json!({EXTENSION: empty}));
        let refusal = bench.runtime.block_on(bench.guard.admit(TOOL, Map::new(), &mut meta)).unwrap_err();
        let denied = Denied::of(&refusal).unwrap();
        assert_eq!((denied.reason.as_str(), denied.failed_check.as_str()), ("TBAC_REQUIRED", "TOKEN_ABSENT"));
        assert_eq!((denied.tool.as_deref(), denied.hint.is_some()), (Some(TOOL), true));
        assert!(meta.is_empty());
    }
}

/// As from a server that cannot make sure to seal only once (TBAC r41, section 10.4).
#[test]
fn a_client_opens_a_result_under_a_random_nonce_of_the_suites_algorithm() {
    use aes_gcm::aead::{Aead, KeyInit, Payload};
    let token = encrypting(1, TOOL);
    let keys = keys(&token);
    let (iv, aad) = ([0xA5; 12], keys.response_aad());
    let said = json!({"content": [{"type": "text", "text": "done"}], "isError": false}).to_string();
    let cipher = aes_gcm::Aes256Gcm::new_from_slice(keys.response_key()).unwrap();
    let sealed = cipher.encrypt((&iv).into(), Payload { msg: said.as_bytes(), aad: &aad }).unwrap();
    let wire = |alg: &str| -> ToolResult {
        let enc = json!({"alg": alg, "iv": to_base64url(&iv), "ct": to_base64url(&sealed)});
        serde_json::from_value(json!({
            "content": [{"type": "text", "text": "encrypted"}], "isError": false, "_meta": {EXTENSION: {"enc": enc}}
        }))
        .unwrap()
    };
    assert_eq!(wire("AES-256-GCM").open(&keys), Ok(ToolResult::text("done")));
    assert!(wire("ChaCha20-Poly1305").open(&keys).is_err(), "another algorithm than the suite's");
}

#[test]
fn a_rule_sees_sealed_arguments_too() {
    let bench = Bench::new();
    let token = encrypting(1, "by_argument");
    let admit = |doc: &str| {
        let message = sealed(&token, &json!({"doc": doc}));
        bench.admit("by_argument", json!({}), sent(&token).with_sealed_arguments(&message))
    };
    let outside = Forge::new(
        2,
        &scope_with(
            json!({"tool": "by_argument", "resource": "docs/x", "constraints": {"require_channel_encryption": true}}),
        ),
    );
    let message = sealed(&outside, &json!({"doc": "y"}));
    let refused = bench.admit("by_argument", json!({}), sent(&outside).with_sealed_arguments(&message));
    assert_eq!(refused.unwrap_err(), "INSUFFICIENT_PRIVILEGE");
    assert_eq!(bench.server.spent.marks(), Some(0));
    assert_eq!(json!(admit("a").unwrap().arguments()), json!({"doc": "a"}));
    assert_eq!(admit("a").unwrap_err(), "TOKEN_REPLAYED");
}

#[test]
fn a_proof_of_possession_travels_in_meta() {
    let bench = Bench::new();
    let token = Forge::new(1, &scope_with(json!({"require_pop": true})));
    let signing = SigningKey::from_bytes(&[0x77; 32]);
    let proof = |arguments: &Value| {
        let hash = arguments_hash(arguments.as_object()).unwrap();
        let transcript = possession_transcript(SESSION, &token.jti(), &hash);
        PopProof::from_bytes(signing.sign(&transcript).to_bytes())
    };
    let arguments = json!({"q": "rows"});
    let admit = |meta| bench.admit(TOOL, arguments.clone(), meta);
    assert_eq!(admit(sent(&token)).unwrap_err(), "POP_REQUIRED");
    assert_eq!(admit(sent(&token).with_proof(&proof(&json!({})))).unwrap_err(), "POP_FAILED");
    assert!(admit(sent(&token).with_proof(&proof(&arguments))).is_ok());
}
