//! Humans and their browsers: a published identity provider as a process, the service with its pages, the authenticator as a process,
//! and whoever would like to be somebody else.

mod apart;
mod asked;
mod browser;
mod calls;
mod chromium;
mod console;
mod crowd;
mod framed;
mod logins;
mod mix_up;
mod organisations;
mod pages;
mod policies;
mod provider;
mod registers;
mod rotates;
mod several;

use core::net::{Ipv4Addr, SocketAddr};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use obol_audit::{ChainKey, LogOptions};
use obol_authority::directory::{Agent, Human, MemoryDirectory, Person};
use obol_authority::http::{Handle, Options};
use obol_authority::identity::{Provider, ProviderSettings, Providers};
use obol_authority::policy::{KeptPolicy, Policies};
use obol_authority::{
    Authority, Decided, Decider, Moment, Now, Outbound, Parts, PerCall, Settings, Undecided, Verdict,
};
use obol_handshake::AuthoritySecret;
use obol_secret::text::to_hex;
use obol_session::{Grant, Suite};
use obol_world::home::{self, command, free_port};
use obol_world::rs::RsProcess;
use obol_world::{now, tqs};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use self::browser::Browser;
use crate::authenticator::Authenticator;

/// The service's audit log, in the home.
const LOG: &str = "as-audit.jsonl";
const SECRET: &str = "a-client-secret-of-the-tests-0123456789";

/// Grants one tool to whoever has the role `dev`, and another call by call, to which `ops` say yes; lets everybody approve everything, but privileged agents by a typed code; and
/// `auditor` reach beyond their organisation.
#[derive(Debug)]
struct Plain;

impl Decider for Plain {
    fn decide(&self, agent: &Agent, owner: &Person, _moment: Moment) -> Result<Decided, Undecided> {
        let grant = json!({
            "tool": "search", "aud": "https://a", "action": "call", "resource": "docs/**", "trust_level": 2, "ttl": 4,
        });
        let grant: Grant = serde_json::from_value(grant).unwrap();
        let is_dev = owner.bounds(&agent.roles).iter().any(|role| role == "dev");
        let payment = json!({
            "tool": "pay", "aud": "https://a", "action": ["pay", "refund"], "resource": "accounts/**",
            "constraints": { "max_rows": 9 }, "trust_level": 2, "ttl": 4, "approval": "per_call",
        });
        let payment: Grant = serde_json::from_value(payment).unwrap();
        let payment = PerCall { offer: "any account".to_owned(), grant: payment };
        Ok(Decided {
            grants: is_dev.then_some(grant).into_iter().collect(),
            per_call: is_dev.then_some(payment).into_iter().collect(),
            ..Decided::default()
        })
    }

    fn may_approve_call(
        &self,
        by: &Person,
        _: &Agent,
        _: &Person,
        _: &PerCall,
        _: u64,
    ) -> Result<bool, Undecided> {
        Ok(by.roles.contains("ops"))
    }

    fn may_register(
        &self,
        _: &Person,
        _: &str,
        roles: &[String],
        flow: &str,
        _: u64,
    ) -> Result<bool, Undecided> {
        Ok(flow != "code" || !roles.iter().any(|role| role == "privileged"))
    }

    fn may_reach(&self, person: &Person, organisation: &str) -> Result<bool, Undecided> {
        Ok(person.roles.contains("auditor") && organisation != person.organisation)
    }

    fn may_operate(&self, person: &Person, verb: &str) -> Result<Verdict, Undecided> {
        let looks = verb == "console.view" && person.roles.contains("dev");
        Ok(Verdict { allowed: looks || person.roles.contains("ops"), decided_by: Vec::new() })
    }
}

/// The identity provider, killed when dropped.
struct Idp {
    child: Child,
    issuer: String,
}

impl Idp {
    fn start(redirect: &str) -> Self {
        Self::start_for(&[redirect])
    }

    /// One that sends browsers back to these addresses.
    fn start_for(redirects: &[&str]) -> Self {
        let modules = root().join("target/npm");
        let library = modules.join("node_modules/oidc-provider");
        assert!(library.exists(), "{} is missing: scripts/test installs it", library.display());
        let mut child = Command::new("node")
            .arg(root().join("tests/it/people/idp.mjs"))
            .arg(modules)
            .args(redirects)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut issuer = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut issuer).unwrap();
        let issuer = issuer.trim().to_owned();
        assert!(issuer.starts_with("http://127.0.0.1:"), "the provider did not start: {issuer:?}");
        Self { child, issuer }
    }

    /// Has it behave like this from now on.
    fn control(&self, how: Value) {
        let page =
            Browser::default().send("POST", &format!("{}/control", self.issuer), &[], &how.to_string());
        assert_eq!(page.status, 200, "{page:?}");
    }

    /// What it was asked so far.
    fn seen(&self) -> Value {
        let page = Browser::default().send("GET", &format!("{}/seen", self.issuer), &[], "");
        serde_json::from_str(&page.body).unwrap()
    }

    /// The codes that somebody wanted to exchange there.
    fn codes(&self) -> Vec<String> {
        serde_json::from_value(self.seen()["codes"].clone()).unwrap()
    }

    /// How often this path was asked for.
    fn asked_for(&self, path: &str) -> u64 {
        self.seen()["paths"][path].as_u64().unwrap_or(0)
    }

    /// What a service says of it that is registered there.
    fn settings(&self) -> ProviderSettings {
        let settings = ProviderSettings::new(&self.issuer, "obol").unwrap();
        settings.client_secret(Zeroizing::new(SECRET.to_owned()))
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn moment() -> Now {
    Now { ms: now() * 1_000 }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All of it, in a home of its own.
struct World {
    home: tempfile::TempDir,
    idp: Idp,
    origin: String,
    authority: Arc<Authority>,
    policies: Arc<Policies>,
    handle: Handle,
    _runtime: Runtime,
}

impl World {
    fn new() -> Self {
        Self::with(|settings| settings)
    }

    fn with(set: impl FnOnce(ProviderSettings) -> ProviderSettings) -> Self {
        Self::of(|origin, settings| {
            let idp = Idp::start(&format!("{origin}/callback"));
            let provider = Provider::new(set(idp.settings()), origin, Outbound::new(None).unwrap()).unwrap();
            (idp, provider.into(), settings)
        })
    }

    /// With the providers that this makes for its origin, the first of which is kept as its own.
    fn of(make: impl FnOnce(&str, Settings) -> (Idp, Providers, Settings)) -> Self {
        home::obol();
        let home = home::home();
        let log = LogOptions::new(home.path().join(LOG), home.path().join("as-audit.head"));
        let log = log.open(ChainKey::from_bytes([5; 32])).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let origin = format!("http://{address}");
        let settings = Settings::new(&origin, "example").unwrap().with_pages();
        let (idp, providers, settings) = make(&origin, settings);
        let directory = Arc::new(MemoryDirectory::new());
        let kept = KeptPolicy::load(&*directory).unwrap();
        let parts = Parts {
            settings,
            directory,
            decider: Arc::new(Plain),
            key: AuthoritySecret::from_bytes(&[7; 32]),
            code_key: [3; 32],
            audit: Some(Arc::new(log)),
        };
        let authority = Arc::new(Authority::new(parts, moment()).unwrap());
        let policies = Arc::new(Policies::new(Arc::clone(&authority), kept));
        let runtime = Runtime::new().unwrap();
        let options = Options::new(address).rate(None).providers(providers).policies(Arc::clone(&policies));
        let service = runtime.block_on(options.bind(Arc::clone(&authority))).unwrap();
        let handle = service.handle();
        runtime.spawn(service.run(core::future::pending()));
        Self { home, idp, origin, authority, policies, handle, _runtime: runtime }
    }

    /// An authenticator beside a sidecar.
    fn agent(&self) -> (tqs::Tqs, Authenticator) {
        let pinned = format!("{}#{}", self.origin, to_hex(&self.authority.key().0));
        let sidecar = tqs::Tqs::start(self.home.path(), &[]);
        (sidecar, Authenticator::start(self.home.path(), &["--url", &pinned]))
    }

    /// A copy of a resource server that follows the service.
    fn server(&self, audience: &str) -> RsProcess {
        let (by, suites) = (Human::local("root"), [Suite::HybridAesGcm]);
        let invited = self.authority.add_resource_server(audience, &suites, &by, moment()).unwrap();
        let pin = format!("{}#{}", self.origin, to_hex(&self.authority.key().0));
        let code = invited.ticket.to_text();
        let mut rs = RsProcess::joined_by(
            self.home.path(),
            &pin,
            &code,
            audience,
            &["--first-start", "--spent", "memory"],
        );
        rs.start_again();
        rs
    }

    /// Runs a command of the agent.
    fn obol(&self, arguments: &[&str]) -> Value {
        let output = command(self.home.path()).args(arguments).arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    /// Runs a command of the agent that fails: what it says.
    fn obol_failing(&self, arguments: &[&str]) -> String {
        let output = command(self.home.path()).args(arguments).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// A browser in which this human has logged in a moment ago.
    fn logged_in(&self, account: &str) -> Browser {
        self.idp.control(json!({ "account": account }));
        let mut browser = Browser::default();
        let page = browser.open(&self.url("/activate"));
        assert_eq!(page.status, 200, "{page:?}");
        assert!(page.body.contains(&format!("({account} at ")), "{page:?}");
        browser
    }

    fn agent_row(&self) -> Option<Agent> {
        self.authority.directory().agent("builder").unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.handle.stop();
    }
}
