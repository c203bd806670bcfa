//! An agent and a service over real sockets: what they reach together, and what somebody between them cannot do.

mod between;
mod kept;
mod kills;
mod listening;
mod rotating;
mod tls;

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use obol_authority::directory::{Agent, EndScope, Human, Person, RedbDirectory};
use obol_authority::http::{Ended, Handle, Options as ServiceOptions};
use obol_authority::id::UserCode;
use obol_authority::{Authority, Decided, Decider, Moment, Now, Parts, Settings, Undecided};
use obol_handshake::{AuthoritySecret, Purpose, SystemRandom};
use obol_secret::key::Key32;
use obol_secret::text::to_hex;
use obol_session::{Grant, Suite};
use obol_uplink::{Answer, AuthError, Pinned, UplinkConnector, UplinkOptions, begin};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::identity::Identity;
use crate::{Authenticator, Registered, RegistrationState, Wishes};

/// Grants two tools at two resource servers to whoever has the role `dev`.
#[derive(Debug)]
struct Plain;

impl Decider for Plain {
    fn decide(&self, agent: &Agent, _owner: &Person, _moment: Moment) -> Result<Decided, Undecided> {
        let grant = |tool: &str, audience: &str| -> Grant {
            let fields = json!({
                "tool": tool, "aud": audience, "action": "call", "resource": "**", "trust_level": 2,
            });
            serde_json::from_value(fields).unwrap()
        };
        let both = || vec![grant("search", "https://a"), grant("pay", "https://b")];
        let is_dev = agent.roles.iter().any(|role| role == "dev");
        Ok(Decided { grants: if is_dev { both() } else { Vec::new() }, ..Decided::default() })
    }

    fn may_register(
        &self,
        _human: &Person,
        _class: &str,
        _roles: &[String],
        _flow: &str,
        _days: u64,
    ) -> Result<bool, Undecided> {
        Ok(true)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn moment() -> Now {
    Now { ms: now() * 1_000 }
}

/// A service that runs, with a directory in a file.
struct Running {
    authority: Arc<Authority>,
    handle: Handle,
    task: JoinHandle<Ended>,
    pinned: Pinned,
    folder: tempfile::TempDir,
}

fn free_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A service with its files in this folder, that agents know by this address.
fn authority_in(folder: &Path, known: SocketAddr, suites: &[Suite]) -> Arc<Authority> {
    authority_called(folder, &format!("http://{known}"), suites)
}

fn authority_called(folder: &Path, origin: &str, suites: &[Suite]) -> Arc<Authority> {
    let settings = Settings::new(origin, "example").unwrap().suites(suites).unwrap();
    let key = Key32::load_or_create(folder.join("authority.key")).unwrap();
    let master = Key32::load_or_create(folder.join("master.key")).unwrap();
    let directory = directory_in(folder, &master);
    let parts = Parts {
        settings,
        directory: Arc::new(directory),
        decider: Arc::new(Plain),
        key: AuthoritySecret::from_bytes(key.expose()),
        code_key: [3; 32],
        audit: None,
    };
    Arc::new(Authority::new(parts, moment()).unwrap())
}

/// What forgets now and then may have the directory of a service that ended for a moment longer, and with it the file's lock.
fn directory_in(folder: &Path, master: &Key32) -> RedbDirectory {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match RedbDirectory::open(&folder.join("authority.redb"), master) {
            Err(error) if error.to_string().contains("already open") && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
}

fn pinned(authority: &Authority) -> Pinned {
    let origin = authority.settings().origin();
    Pinned::parse(&format!("{origin}#{}", to_hex(&authority.key().0))).unwrap()
}

impl Running {
    async fn start() -> Self {
        Self::with(tempfile::tempdir().unwrap(), free_port(), &Suite::ALL, None).await
    }

    /// A service in this folder that is known by this address; `listen` where it is another than that.
    async fn with(
        folder: tempfile::TempDir,
        known: SocketAddr,
        suites: &[Suite],
        listen: Option<SocketAddr>,
    ) -> Self {
        let authority = authority_in(folder.path(), known, suites);
        let pinned = pinned(&authority);
        let options = ServiceOptions::new(listen.unwrap_or(known)).rate(None);
        let service = options.bind(Arc::clone(&authority)).await.unwrap();
        let handle = service.handle();
        let task = tokio::spawn(service.run(core::future::pending()));
        Self { authority, handle, task, pinned, folder }
    }

    /// Ends it; the folder stays.
    async fn stop(self) -> tempfile::TempDir {
        self.handle.stop();
        let _ended = self.task.await.unwrap();
        drop((self.authority, self.handle));
        self.folder
    }

    fn agent(&self, name: &str, options: &UplinkOptions) -> Authenticator {
        self.agent_of(&self.pinned, name, options)
    }

    fn agent_of(&self, service: &Pinned, name: &str, options: &UplinkOptions) -> Authenticator {
        let place = |end: &str| -> PathBuf { self.folder.path().join(format!("{name}.{end}")) };
        let identity = Identity::open_or_create(&place("identity"), &place("key")).unwrap();
        Authenticator::new(service.clone(), identity, options).unwrap()
    }

    /// Does what a human does who typed the code.
    fn approve(&self, code: &str, words: &str) {
        let review = self.authority.review(&UserCode::parse(code).unwrap(), moment()).unwrap();
        assert_eq!(review.words, words, "both sides show the same words");
        let roles = ["dev".to_owned()];
        self.authority.approve(&review, &roles, None, Human::local("anna"), moment()).unwrap();
    }

    async fn approved(&self, name: &str, options: &UplinkOptions) -> Authenticator {
        let mut agent = self.agent(name, options);
        let Registered::Waits { code, words, .. } = agent.register(&wishes(name), None, now()).await.unwrap()
        else {
            panic!("nobody was invited");
        };
        assert_eq!(agent.registration().await.unwrap(), RegistrationState::Pending);
        self.approve(&code, &words);
        agent
    }
}

fn wishes(name: &str) -> Wishes {
    Wishes {
        name: name.to_owned(),
        class: "coding".to_owned(),
        roles: vec!["dev".to_owned()],
        ..Wishes::default()
    }
}

fn code(error: &AuthError) -> String {
    error.code().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_registers_is_approved_and_shares_keys_in_every_suite() {
    let service = Running::start().await;
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    // Asked too soon after it was asked before.
    let state = loop {
        match agent.registration().await {
            Err(error) if code(&error) == "SLOW_DOWN" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            state => break state.unwrap(),
        }
    };
    let RegistrationState::Approved { agent_id, .. } = state else { panic!("{state:?}") };
    assert_eq!(agent.identity().agent_id(), Some(agent_id.as_str()));
    assert_eq!(agent.authenticate(None, now()).await.unwrap().half.suite, Suite::HybridAesGcm);
    drop(agent);
    for suite in Suite::ALL {
        let mut agent = service.agent("builder", &UplinkOptions::new().suites(&[suite]));
        let pop = obol_session::PopKey::from_bytes([5; 32]).public();
        let session = agent.authenticate(Some(pop), now()).await.unwrap();
        let half = session.half;
        assert!(half.pop_key.is_none(), "the private half is whoever's it is");
        assert_eq!((half.suite, half.agent.agent_instance_id.as_str()), (suite, agent_id.as_str()));
        assert_eq!(half.grants.len(), 2);
        for keys in &half.resource_servers {
            let other = service.authority.directory().half(half.session_id, &keys.aud).unwrap().unwrap();
            assert!(keys.session_key.matches(other.keys.session_key.expose()));
            assert!(keys.verifier_secret.matches(other.keys.verifier_secret.expose()));
            assert!(keys.mutual_auth.matches(other.keys.mutual_auth.expose()));
            assert_eq!(other.pop_pub, Some(pop));
        }
    }
    let seen = service.authority.directory().agent("builder").unwrap().unwrap();
    assert!(!seen.clone_suspected, "each session presented what the last one left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_agent_gets_no_further_session_until_it_is_enabled() {
    let service = Running::start().await;
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    let first = agent.authenticate(None, now()).await.unwrap().half.session_id;
    let by = Human::local("anna");
    service.authority.end(&EndScope::Agent("builder".into()), "test", &by, moment()).unwrap();
    assert_eq!(code(&agent.authenticate(None, now()).await.unwrap_err()), "SUSPENDED");
    assert!(service.authority.directory().half(first, "https://a").unwrap().is_none());
    service.authority.enable_agent("builder", &by, moment()).unwrap();
    assert_ne!(agent.authenticate(None, now()).await.unwrap().half.session_id, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invited_agent_needs_no_human_and_a_stranger_gets_nothing() {
    let service = Running::start().await;
    let by = Human::local("anna");
    let roles = ["dev".to_owned()];
    let invited = service.authority.invite("coding", &roles, 1, 60, by, moment()).unwrap();
    let mut agent = service.agent("ci", &UplinkOptions::new());
    assert_eq!(code(&agent.authenticate(None, now()).await.unwrap_err()), "NOT_REGISTERED");
    let ticket = invited.ticket.to_text();
    let registered = agent.register(&wishes("ci"), Some(&ticket), now()).await.unwrap();
    assert!(matches!(registered, Registered::Active { .. }));
    agent.authenticate(None, now()).await.unwrap();
    let mut second = service.agent("ci-2", &UplinkOptions::new());
    assert_eq!(
        code(&second.register(&wishes("ci-2"), Some(&ticket), now()).await.unwrap_err()),
        "INVITATION"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_on_after_a_restart_of_the_service() {
    let address = free_port();
    let service = Running::with(tempfile::tempdir().unwrap(), address, &Suite::ALL, None).await;
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    let first = agent.authenticate(None, now()).await.unwrap().half.session_id;
    let folder = service.stop().await;
    assert_eq!(code(&agent.authenticate(None, now()).await.unwrap_err()), "AUTHORITY_UNREACHABLE");
    let service = Running::with(folder, address, &Suite::ALL, None).await;
    let second = agent.authenticate(None, now()).await.unwrap().half.session_id;
    assert!(second > first, "numbers rise over a restart");
    let seen = service.authority.directory().agent("builder").unwrap().unwrap();
    assert!(!seen.clone_suspected);
    assert!(service.authority.directory().half(first, "https://a").unwrap().is_some());
}

/// Goes as far as message C by hand.
async fn third_message(service: &Running, agent: &Authenticator) -> (UplinkConnector, Vec<u8>) {
    let connector = UplinkConnector::new(&service.pinned, None).unwrap();
    let (begun, hello) = begin(&service.pinned, Purpose::Session, Suite::HybridAesGcm, &Suite::ALL).unwrap();
    let mut connection = connector.open(&service.pinned).await.unwrap();
    let Answer::Done(reply) = connection.post("/v1/handshake", &hello).await.unwrap() else {
        panic!("message A was refused");
    };
    let (greeted, _) = begun.greeted(&reply, &[Suite::HybridAesGcm], now()).unwrap();
    let identity = agent.identity();
    let mut request = greeted.sek_fields(&identity.sek().unwrap());
    request.insert("now".to_owned(), json!(now()));
    let (_, message) = greeted.prove(&identity.identity_key(), request.into()).unwrap();
    (connector, message)
}

async fn post(
    connector: &UplinkConnector,
    service: &Pinned,
    path: &str,
    body: &[u8],
) -> Result<Vec<u8>, String> {
    match connector.open(service).await.unwrap().post(path, body).await.unwrap() {
        Answer::Done(answer) => Ok(answer),
        Answer::Refused(clear) => Err(clear.code),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_message_sent_a_hundred_times_at_once_opens_one_session() {
    let service = Running::start().await;
    let agent = service.approved("builder", &UplinkOptions::new()).await;
    let (connector, message) = third_message(&service, &agent).await;
    let (connector, message) = (Arc::new(connector), Arc::new(message));
    let askers: Vec<_> = (0..100)
        .map(|_| {
            let (connector, message, pinned) =
                (Arc::clone(&connector), Arc::clone(&message), service.pinned.clone());
            tokio::spawn(async move { post(&connector, &pinned, "/v1/sessions", &message).await })
        })
        .collect();
    let mut answers = BTreeMap::new();
    for asker in askers {
        *answers.entry(asker.await.unwrap().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(answers.into_values().collect::<Vec<_>>(), [100], "the same bytes each time");
    let id = service.authority.directory().agent("builder").unwrap().unwrap().id;
    assert_eq!(service.authority.directory().sessions(&id).unwrap().len(), 1);
    for path in ["/v1/agents", "/v1/agents/rotate", "/v1/agents/deregister", "/v1/resource-servers"] {
        let elsewhere = post(&connector, &service.pinned, path, &message).await;
        assert_eq!(elsewhere.unwrap_err(), "MALFORMED", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_third_message_opens_nothing() {
    let service = Running::start().await;
    let agent = service.approved("builder", &UplinkOptions::new()).await;
    let (connector, message) = third_message(&service, &agent).await;
    for place in (0..message.len()).step_by(11) {
        let mut changed = message.clone();
        changed[place] ^= 1 << (place % 8);
        let refused = post(&connector, &service.pinned, "/v1/sessions", &changed).await.unwrap_err();
        assert!(["MALFORMED", "COOKIE_EXPIRED"].contains(&refused.as_str()), "{place}: {refused}");
    }
    let id = service.authority.directory().agent("builder").unwrap().unwrap().id;
    assert!(service.authority.directory().sessions(&id).unwrap().is_empty());
    assert!(
        post(&connector, &service.pinned, "/v1/sessions", &message).await.is_ok(),
        "unchanged it is good"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_the_pinned_key_gets_nothing_from_an_agent() {
    let service = Running::start().await;
    let other = to_hex(&AuthoritySecret::generate(&mut SystemRandom).key().0);
    let wrong = Pinned::parse(&format!("{}#{other}", service.pinned.origin())).unwrap();
    let mut agent = service.agent_of(&wrong, "builder", &UplinkOptions::new());
    let error = agent.register(&wishes("builder"), None, now()).await.unwrap_err();
    assert_eq!(code(&error), "UNKNOWN_AUTHORITY_KEY");
    assert!(service.authority.directory().agents(None).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_service_without_the_best_suite_is_followed_down_once() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::with(folder, free_port(), &[Suite::AesGcm, Suite::Tbac], None).await;
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    assert_eq!(agent.authenticate(None, now()).await.unwrap().half.suite, Suite::AesGcm);
    let mut strict = service.agent("builder", &UplinkOptions::new().suites(&[Suite::HybridAesGcm]));
    assert_eq!(code(&strict.authenticate(None, now()).await.unwrap_err()), "NO_SUITE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_servers_suites_are_followed_because_the_service_says_so() {
    let service = Running::start().await;
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    let by = Human::local("anna");
    service.authority.add_resource_server("https://a", &[Suite::Tbac], &by, moment()).unwrap();
    assert_eq!(agent.authenticate(None, now()).await.unwrap().half.suite, Suite::Tbac);
    let mut strict =
        service.agent("builder", &UplinkOptions::new().suites(&[Suite::HybridAesGcm, Suite::AesGcm]));
    assert_eq!(code(&strict.authenticate(None, now()).await.unwrap_err()), "SUITE_REQUIRED");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_too_far_apart_are_told_by_how_much() {
    let service = Running::start().await;
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    let error = agent.authenticate(None, now() + 3_600).await.unwrap_err();
    assert!(matches!(error, AuthError::ClockSkew(3_599..=3_601)), "{error}");
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_junk_messages_leave_memory_and_directory_as_they_were() {
    let service = Running::start().await;
    let agent = service.approved("builder", &UplinkOptions::new()).await;
    let (connector, _) = third_message(&service, &agent).await;
    let before_events = service.authority.directory().last_event().unwrap();
    let suites = [Suite::AesGcm, Suite::HybridAesGcm];
    let hellos: Vec<Vec<u8>> = suites
        .iter()
        .map(|suite| begin(&service.pinned, Purpose::Session, *suite, &Suite::ALL).unwrap().1)
        .collect();
    let mut connection = connector.open(&service.pinned).await.unwrap();
    let (mut after_warm_up, mut refused) = (0, 0);
    for number in 0_u64..100_000 {
        if number % 10_000 == 0 {
            connection = connector.open(&service.pinned).await.unwrap();
        }
        if number == 20_000 {
            after_warm_up = resident();
        }
        // Whole first messages that nobody goes on with, changed ones, and bytes that are none.
        let mut body = hellos[usize::from(number % 50 == 0)].clone();
        match number % 4 {
            0 => {}
            1 => body[20] ^= 1,
            2 => body.truncate(30),
            _ => body = number.to_be_bytes().repeat(6),
        }
        let path = if number % 8 < 4 { "/v1/handshake" } else { "/v1/sessions" };
        refused += u64::from(matches!(connection.post(path, &body).await.unwrap(), Answer::Refused(_)));
    }
    let grown = resident().saturating_sub(after_warm_up);
    assert!(grown < 16 << 20, "memory grew by {grown} bytes");
    assert!(refused > 80_000, "{refused}");
    assert_eq!(service.authority.directory().last_event().unwrap(), before_events);
}
