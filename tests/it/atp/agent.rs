//! The agent in Rust against a provider on a real TLS socket: how many requests a herd makes, what is kept fresh in the background and
//! over restarts, and which keychain is used.

use core::time::Duration;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use obol_atp::Host;
use obol_atp_client::{AtpError, Client, KeychainChoice, Options, TokenRequest};
use obol_atp_server::serve::{Certificate, Options as ServeOptions, TLS12_AND_13};
use obol_atp_server::{Builder, Router, SecretBook, Store};
use obol_verify::{MemorySpentSet, SystemClock};
use obol_world::certificates;
use obol_world::home::{command, free_port, obol, write_private};
use tokio::task::JoinHandle;

pub(crate) const SECRET: &str = "a secret that is long enough, truly";

/// A provider that can be stopped and started again, and a folder for agents.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) host: Host,
    pub(crate) router: Router,
    running: Option<JoinHandle<()>>,
}

impl World {
    pub(crate) async fn new(ttl: u64) -> Self {
        Self::with(ttl, |builder| builder.address_rate(0).agent_rate(0)).await
    }

    /// With other settings.
    pub(crate) async fn with(ttl: u64, set: impl FnOnce(Builder) -> Builder) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates::self_signed(folder.path(), "cert.pem", "key.pem");
        write_private(&folder.path().join("secret"), SECRET);
        let host: Host = format!("localhost:{}", free_port()).parse().unwrap();
        let clock = Arc::new(SystemClock::new());
        let builder = Router::builder(format!("https://{host}/v1/agent-tokens").parse().unwrap())
            .secrets(SecretBook::shared(SECRET.as_bytes()).unwrap())
            .scopes(["read", "write"])
            .store(Store::memory())
            .spent(Arc::new(MemorySpentSet::unfenced(clock, 60)))
            .token_ttl(Duration::from_secs(ttl));
        let router = set(builder).build().unwrap();
        let settings = format!("[atp]\nallow_private = [\"{host}\"]\n");
        std::fs::write(folder.path().join("obol.toml"), settings).unwrap();
        let mut world = Self { folder, host, router, running: None };
        world.start().await;
        world
    }

    async fn start(&mut self) {
        let certificate =
            Certificate::load(&self.path("cert.pem"), &self.path("key.pem"), TLS12_AND_13).unwrap();
        let options = ServeOptions::new(([127, 0, 0, 1], self.host.port()).into());
        let service = options.certificate(Arc::new(certificate)).bind(self.router.clone()).await.unwrap();
        self.running = Some(tokio::spawn(async move {
            let _ended = service.run(core::future::pending()).await;
        }));
    }

    async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.abort();
        let _aborted = running.await;
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn client(&self, agent: &str) -> Client {
        let options = Options::new(self.path(agent)).secret_file(self.path("secret"));
        let options = options.ca_file(self.path("cert.pem")).allow_private([self.host.clone()]);
        Client::open(options.keychain(KeychainChoice::File)).unwrap()
    }

    /// How many tokens the provider has issued.
    pub(crate) fn issued(&self) -> u64 {
        let metrics = self.router.metrics();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("obol_atp_requests_total{route=\"issue\",code=\"ok\"} "));
        line.map_or(0, |count| count.parse().unwrap())
    }

    /// What a command of this agent prints.
    async fn said(&self, agent: &str, arguments: &[&str]) -> String {
        let mut obol = self.obol(agent);
        obol.args(arguments);
        let output = tokio::task::spawn_blocking(move || obol.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// How it stands with the provider's token, as `obol atp status` tells from another process.
    async fn status(&self, agent: &str) -> serde_json::Value {
        let mut all: serde_json::Value =
            serde_json::from_str(&self.said(agent, &["status", "--json"]).await).unwrap();
        all["hosts"][&self.host.to_string()].take()
    }

    /// The binary as this agent.
    pub(crate) fn obol(&self, agent: &str) -> Command {
        let mut obol = command(self.folder.path());
        obol.arg("--config").arg(self.path("obol.toml")).arg("atp");
        obol.env("OBOL_ATP__STATE", self.path(agent)).env("OBOL_ATP__SECRET_FILE", self.path("secret"));
        obol.env("OBOL_ATP__CA_FILE", self.path("cert.pem"));
        obol
    }
}

pub(crate) fn read() -> TokenRequest {
    TokenRequest::new(["read"]).unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_callers_in_one_process_and_fifty_in_others_make_one_request() {
    let world = World::new(3_600).await;
    let client = world.client("agent");
    let others: Vec<_> = (0..50)
        .map(|_| {
            let mut request = world.obol("agent");
            request.args(["request", &world.host.to_string(), "--scope", "read", "--cached"]);
            request.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let callers: Vec<_> = (0..1_000)
        .map(|_| {
            let (client, host) = (client.clone(), world.host.clone());
            tokio::spawn(async move { client.ensure_token(&host, &read()).await })
        })
        .collect();
    let mut tokens = std::collections::HashSet::new();
    for caller in callers {
        tokens.insert(caller.await.unwrap().unwrap().access_token.to_string());
    }
    let printed = tokio::task::spawn_blocking(move || {
        others.into_iter().map(|other| other.wait_with_output().unwrap()).collect::<Vec<_>>()
    });
    for output in printed.await.unwrap() {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        tokens.insert(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    assert_eq!((tokens.len(), world.issued()), (1, 1), "one token, and one request for it");
    // Control: without the keychain between them each asks for itself.
    for agent in ["other-1", "other-2"] {
        world.client(agent).ensure_token(&world.host, &read()).await.unwrap();
    }
    assert_eq!(world.issued(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_callers_share_one_failure_and_keep_a_token_that_lives() {
    let mut world = World::new(8).await;
    let client = world.client("agent");
    let first = client.request_token(&world.host, &read()).await.unwrap();
    world.stop().await;
    let due = Duration::from_millis(first.refresh_at.saturating_sub(now_ms()));
    tokio::time::sleep(due + Duration::from_millis(20)).await;
    let kept = client.ensure_token(&world.host, &read()).await.unwrap();
    assert_eq!(*kept.access_token, *first.access_token, "while it lives it is better than none");
    tokio::time::sleep(Duration::from_millis(kept.expires_at.saturating_sub(now_ms()))).await;
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let (client, host) = (client.clone(), world.host.clone());
            tokio::spawn(async move { client.ensure_token(&host, &read()).await })
        })
        .collect();
    for caller in callers {
        assert!(caller.await.unwrap().is_err(), "an expired token is never handed out");
    }
    let unavailable = client
        .metrics()
        .lines()
        .find_map(|line| {
            line.strip_prefix("obol_atp_refreshes_total{outcome=\"unavailable\"} ")?.parse().ok()
        })
        .unwrap_or(0);
    assert!((2..=4).contains(&unavailable), "64 callers made {unavailable} requests in all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refreshed_in_the_background_also_after_a_restart_and_an_outage() {
    let mut world = World::new(5).await;
    let client = world.client("agent");
    let refresher = client.refresh_in_background();
    let first = client.request_token(&world.host, &read()).await.unwrap();
    until("a newer token is kept", async || {
        let status = client.status().await.unwrap();
        status[&world.host].expires_at > Some(first.expires_at)
    })
    .await;
    drop(refresher);
    drop(client);

    let again = world.client("agent");
    let issued = world.issued();
    let refresher = again.refresh_in_background();
    until("the list of hosts outlived the process", async || world.issued() > issued).await;
    world.stop().await;
    until("it fails", async || again.status().await.unwrap()[&world.host].failures > 0).await;
    let told = world.status("agent").await;
    assert!(told["failures"].as_u64() > Some(0), "another process tells it: {told}");
    let why = told["last_failure"]["why"].as_str().unwrap_or_default();
    assert!(
        why.contains("cannot be reached") && told["last_failure"]["at"].as_u64() > Some(1_700_000_000_000),
        "{told}"
    );
    world.start().await;
    let issued = world.issued();
    until("it tries again", async || world.issued() > issued).await;
    until("and it is well", async || again.status().await.unwrap()[&world.host].failures == 0).await;
    assert_eq!(world.status("agent").await.get("last_failure"), None);
    let metrics = again.metrics();
    assert!(
        !metrics.contains("outcome=\"ok\"} 0") && !metrics.contains("outcome=\"unavailable\"} 0"),
        "{metrics}"
    );

    again.revoke_token(&world.host).await.unwrap();
    let issued = world.issued();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.issued(), issued, "what was given back is not asked for again");
    drop(refresher);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_says_no_is_not_asked_again() {
    let world = World::new(5).await;
    let client = world.client("agent");
    client.request_token(&world.host, &read()).await.unwrap();
    world.router.reload(SecretBook::shared(b"another secret, long enough").unwrap()).unwrap();
    let refresher = client.refresh_in_background();
    until("it ended", async || client.status().await.unwrap()[&world.host].ended.is_some()).await;
    assert_eq!(client.status().await.unwrap()[&world.host].ended.as_deref(), Some("invalid_signature"));
    let told = world.status("agent").await;
    assert_eq!(told["ended"], "invalid_signature", "another process tells it: {told}");
    let said = world.said("agent", &["status"]).await;
    assert!(said.contains("not refreshed until it is requested again: invalid_signature"), "{said}");
    for file in std::fs::read_dir(world.path("agent")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()), "no secret is in it");
    }
    let metrics = client.metrics();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(client.metrics(), metrics);
    world.router.reload(SecretBook::shared(SECRET.as_bytes()).unwrap()).unwrap();
    // The old secret was retired with that; the provider wants a new one.
    write_private(&world.path("secret"), "a third secret that is long enough");
    world.router.reload(SecretBook::shared(b"a third secret that is long enough").unwrap()).unwrap();
    client.request_token(&world.host, &read()).await.unwrap();
    let issued = world.issued();
    until("a request by hand begins it anew", async || world.issued() > issued).await;
    let told = world.status("agent").await;
    assert_eq!((told.get("ended"), &told["failures"]), (None, &0.into()), "{told}");
    drop(refresher);
}

#[tokio::test(flavor = "multi_thread")]
async fn revocations_that_did_not_get_through_are_delivered_later_every_one() {
    let mut world = World::new(3_600).await;
    let client = world.client("agent");
    let mut tokens = Vec::new();
    world.stop().await;
    for _ in 0..3 {
        world.start().await;
        tokens.push(client.request_token(&world.host, &read()).await.unwrap());
        world.stop().await;
        let revocation = client.revoke_token(&world.host).await.unwrap();
        assert!(revocation.had_token && !revocation.remote);
        // What is buried before the next request is kept for this one.
        tokens.drain(..tokens.len() - 1);
    }
    drop(client);
    world.start().await;
    let again = world.client("agent");
    assert!(again.status().await.unwrap()[&world.host].to_be_revoked);
    let _refresher = again.refresh_in_background();
    until("nothing is left", async || again.status().await.unwrap().is_empty()).await;
    let verdict = again.verify_token(&tokens[0].access_token, &world.host).await.unwrap();
    assert!(!verdict.valid);
}

#[tokio::test]
async fn what_is_expired_wrong_or_not_offered_is_an_error_with_its_reason() {
    let world = World::new(3_600).await;
    let client = world.client("agent");
    let refused =
        client.request_token(&world.host, &TokenRequest::new(["admin"]).unwrap()).await.unwrap_err();
    assert!(
        matches!(refused.cause(), AtpError::Refused { code, .. } if code == "invalid_scope"),
        "{refused}"
    );
    let nowhere: Host = format!("localhost:{}", free_port()).parse().unwrap();
    let options =
        Options::new(world.path("nowhere")).allow_private([nowhere.clone()]).ca_file(world.path("cert.pem"));
    let client = Client::open(options.keychain(KeychainChoice::File)).unwrap();
    let begin = Instant::now();
    for _ in 0..100 {
        assert!(client.request_token(&nowhere, &read()).await.unwrap_err().is_passing());
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "a host without a document is left alone for a while");
}

pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// Runs a script under a session bus with an unlocked gnome-keyring of its own.
fn with_keyring(world: &World, script: &str) -> std::process::Output {
    let run = world.path("run");
    std::fs::create_dir_all(&run).unwrap();
    let mut session = Command::new("dbus-run-session");
    session.args(["--", "bash", "-euo", "pipefail", "-c"]);
    session.arg(format!(
        "echo -n unlocked | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1\n{script}"
    ));
    session.env_clear().env("HOME", world.folder.path()).env("XDG_RUNTIME_DIR", &run);
    session.env("XDG_DATA_HOME", world.path("data")).env("PATH", std::env::var_os("PATH").unwrap());
    session.env("OBOL", obol()).env("HOST", world.host.to_string()).env("FOLDER", world.folder.path());
    session.env("OBOL_ATP__CA_FILE", world.path("cert.pem")).env("OBOL_CONFIG", world.path("obol.toml"));
    session.env("OBOL_ATP__STATE", world.path("agent")).stdin(Stdio::null());
    session.output().expect("dbus-run-session is installed by scripts/install")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_service_keeps_tokens_and_secrets_and_headless_sealed_files_do() {
    let world = World::new(3_600).await;
    let script = r#"
        "$OBOL" atp keep-secret "$HOST" --secret-file "$FOLDER/secret" --json | tr -d '\n'; echo
        "$OBOL" atp request "$HOST" --scope read --json | tr -d '\n'; echo
        secret-tool lookup service agentdom account "$HOST"
        echo
        secret-tool lookup service agentdom account "__atp_secret__:$HOST"
        echo
        "$OBOL" atp revoke "$HOST"
        secret-tool lookup service agentdom account "$HOST" || echo gone"#;
    let output = with_keyring(&world, script);
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    let json = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|_| panic!("{text}{errors}"))
    };
    assert_eq!(json(lines[0])["stored_in"], "secret-service", "{text}{errors}");
    let token = json(lines[1]);
    assert_eq!(token["stored_in"], "secret-service");
    assert_eq!(json(lines[2])["access_token"], token["access_token"], "where other clients look for it");
    assert_eq!((lines[3], lines[4]), (SECRET, "gone"));
    for entry in std::fs::read_dir(world.path("agent")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let token = token["access_token"].as_str().unwrap().as_bytes();
        assert!(!bytes.windows(token.len()).any(|window| window == token), "not in a file");
    }

    // Control: the same without a session bus.
    let mut headless = world.obol("headless");
    headless.args(["request", &world.host.to_string(), "--scope", "read", "--json"]);
    let output = tokio::task::spawn_blocking(move || headless.output().unwrap()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(json(&String::from_utf8_lossy(&output.stdout))["stored_in"], "file", "{errors}");
    assert!(errors.contains("sealed files") && errors.contains("Secret Service"), "{errors}");
    let mut again = world.obol("headless");
    again.args(["request", &world.host.to_string(), "--scope", "read"]);
    let output = tokio::task::spawn_blocking(move || again.output().unwrap()).await.unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("sealed files"), "said once");
    let mut wanted = world.obol("wanted");
    wanted.args(["request", &world.host.to_string(), "--scope", "read", "--keychain", "secret-service"]);
    let output = tokio::task::spawn_blocking(move || wanted.output().unwrap()).await.unwrap();
    assert!(!output.status.success(), "what was asked for by name is not replaced");
}
