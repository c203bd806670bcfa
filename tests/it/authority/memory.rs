//! The service keeps no session's keys: not in its memory once the session is over, nor anywhere else that others can come by.

use std::fs::File;
use std::path::PathBuf;

use obol_handshake::{IdentityKey, Purpose, SekKey, SystemRandom};
use obol_session::{SessionId, Suite};
use obol_token::text::from_hex;
use obol_token::{Audience, SessionSecret};
use obol_uplink::{AuthError, Caller, Greeted, Pinned, Proven, Uplink, UplinkOptions};
use obol_world::authority::AsProcess;
use obol_world::canary::Canaries;
use obol_world::home::{self, wait_until};
use obol_world::now;
use obol_world::rs::RsProcess;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::stream::API;

/// Sessions of others that come and go before memory is looked at: what they use is what was used before.
const OTHERS: usize = 40;

/// An agent that forgets nothing: it keeps the session's own secret, which every other agent drops.
struct Keeper {
    uplink: Uplink,
    identity: IdentityKey,
    sek: SekKey,
    runtime: Runtime,
    chain: Vec<String>,
}

/// What it says, beside its proof.
struct Says<'a> {
    keeper: (&'a IdentityKey, &'a SekKey),
    more: Map<String, Value>,
}

impl Caller for Says<'_> {
    fn key(&self) -> IdentityKey {
        IdentityKey::from_bytes(self.keeper.0.expose())
    }

    fn payload(&self, greeted: &Greeted) -> Result<Value, AuthError> {
        let mut request = greeted.sek_fields(self.keeper.1);
        request.extend(self.more.clone());
        Ok(Value::Object(request))
    }
}

/// A session with all its secrets.
struct Kept {
    session: SessionId,
    suite: Suite,
    secret: SessionSecret,
}

impl Kept {
    /// Everything that nobody but agent, sidecar and resource server may have.
    fn canaries(&self) -> Canaries {
        let keys = self.secret.for_audience(self.suite, self.session, &Audience::new(API).unwrap());
        Canaries::of([
            ("session secret", *self.secret.expose()),
            ("K_session", *keys.session_key.expose()),
            ("verifier_secret", *keys.verifier_secret.expose()),
            ("mutual_auth", *keys.mutual_auth.expose()),
        ])
    }
}

impl Keeper {
    fn approved(service: &AsProcess, suite: Suite) -> Self {
        let options = UplinkOptions::new().suites(&[suite]);
        let mut keeper = Self {
            uplink: Uplink::new(Pinned::parse(&service.pin()).unwrap(), &options).unwrap(),
            identity: IdentityKey::generate(&mut SystemRandom),
            sek: SekKey::generate(&mut SystemRandom),
            runtime: Runtime::new().unwrap(),
            chain: Vec::new(),
        };
        let wanted = json!({
            "name": format!("keeper-{suite:?}"), "class": "coding", "roles": ["dev"], "tools": [], "host": "h",
            "user": "u", "software": "s",
        });
        let (_, told) = keeper.say(Purpose::Register, "/v1/agents", json!({ "wanted": wanted }));
        service.told(&["approve", told["user_code"].as_str().unwrap(), "--yes"]);
        keeper
    }

    fn say(&mut self, purpose: Purpose, path: &str, more: Value) -> (Proven, Value) {
        let more = more.as_object().unwrap().clone();
        let mut caller = Says { keeper: (&self.identity, &self.sek), more };
        let carried = self.uplink.carry_out(purpose, path, now(), &mut caller);
        let (proven, document) = self.runtime.block_on(carried).unwrap();
        (proven, serde_json::from_slice(&document).unwrap())
    }

    fn open(&mut self) -> Kept {
        let more = json!({ "now": now(), "chain": self.chain });
        let (proven, told) = self.say(Purpose::Session, "/v1/sessions", more);
        let Proven { established, suite } = proven;
        self.chain = vec![obol_token::text::to_hex(established.chain.expose())];
        let session = serde_json::from_value(told["session_id"].clone()).unwrap();
        Kept { session, suite, secret: established.secret }
    }
}

/// The service's own key, which it needs for as long as it runs.
fn own_key(home: &std::path::Path) -> [u8; 32] {
    let text = std::fs::read_to_string(own_key_file(home)).unwrap();
    from_hex(text.trim()).unwrap()
}

fn own_key_file(home: &std::path::Path) -> PathBuf {
    home.join(".local/state/obol/as-identity.key")
}

#[test]
fn no_key_of_a_session_is_in_the_services_memory_once_it_is_over_nor_in_a_file_a_log_or_a_metric() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    if File::open(format!("/proc/{}/mem", service.pid())).is_err() {
        eprintln!(
            "SKIPPED: only root reads the memory of a process that is closed to others; run this test as root"
        );
        return;
    }
    // The controls: what must be in memory is found there, by the same search.
    let own = Canaries::of([("the service's key", own_key(home.path()))]);
    assert_eq!(own.found_in_process(service.pid()), ["the service's key"]);
    let rs = RsProcess::follow(home.path(), &service, API, &["--first-start", "--spent", "memory"]);
    for suite in Suite::ALL {
        let mut keeper = Keeper::approved(&service, suite);
        let kept = keeper.open();
        let canaries = kept.canaries();
        let session = kept.session.to_string();
        let active = || {
            let status = rs.operate("status");
            let sessions = status["sessions"].as_array().unwrap().clone();
            sessions.iter().any(|shown| shown["sessionId"] == session.as_str() && shown["state"] == "active")
        };
        wait_until("the resource server has the session", active);
        let held = canaries.found_in_process(rs.pid());
        assert!(held.iter().any(|name| name == "K_session"), "{suite:?}, the control: {held:?}");

        service.told(&["agent", "end-session", &session, "--wait", "2"]);
        // Others come and go, over the same threads and the same memory.
        for _ in 0..OTHERS {
            keeper.open();
        }
        assert_eq!(canaries.found_in_process(service.pid()), Vec::<String>::new(), "{suite:?}");
        let (found, searched) = canaries.found_in_files(home.path(), &[]);
        assert_eq!(found, Vec::<String>::new(), "{suite:?}");
        assert!(searched >= 5, "its directory, its keys, its log, and those of the resource server");
        let metrics = service.metrics();
        assert_eq!(canaries.found_in(metrics.as_bytes()), Vec::<&str>::new());
    }
    // The control of the search through files.
    let (found, _) = own.found_in_files(home.path(), &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(own_key_file(home.path()).to_str().unwrap()), "{found:?}");
}
