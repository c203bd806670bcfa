//! Streams that somebody else than their follower wants: strangers, followers of another kind, repeated and forged messages; and
//! keys, which are in a stream and nowhere else.

use std::collections::BTreeSet;

use obol_handshake::{IdentityKey, Purpose};
use obol_resource::provision::join;
use obol_session::Suite;
use obol_stream::{Item, Mode, Word};
use obol_uplink::{
    Answer, AuthError, Caller, Greeted, Pinned, Stream, Uplink, UplinkConnector, UplinkOptions, begin,
};
use obol_world::authority::AsProcess;
use obol_world::home;
use obol_world::http::Http;
use obol_world::now;
use obol_world::rs::RsProcess;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::Agent;
use super::captured::minted;
use super::stream::API;

const SERVERS: &str = "/v1/resource-servers/stream";
const AGENTS: &str = "/v1/agents/stream";
const WORDS: &str = "/v1/stream/words";

/// Whoever holds a key, and asks for a stream with it.
struct Holder(IdentityKey);

impl Holder {
    fn new() -> Self {
        Self(IdentityKey::generate(&mut obol_authority::id::SystemRandom))
    }
}

impl Caller for Holder {
    fn key(&self) -> IdentityKey {
        IdentityKey::from_bytes(self.0.expose())
    }

    fn payload(&self, _greeted: &Greeted) -> Result<Value, AuthError> {
        Ok(json!({ "now": now() }))
    }
}

/// A service, and the way to it.
struct World {
    runtime: Runtime,
    pinned: Pinned,
    uplink: Uplink,
}

impl World {
    fn new(service: &AsProcess) -> Self {
        let pinned = Pinned::parse(&service.pin()).unwrap();
        let uplink = Uplink::new(pinned.clone(), &UplinkOptions::new()).unwrap();
        Self { runtime: Runtime::new().unwrap(), pinned, uplink }
    }

    fn joined(&mut self, service: &AsProcess, audience: &str) -> Holder {
        let holder = Holder::new();
        let code = service.told(&["rs", "invite", audience])["ticket"].as_str().unwrap().to_owned();
        self.runtime.block_on(join(&mut self.uplink, &holder.0, &code, now())).unwrap();
        holder
    }

    fn follow(&mut self, purpose: Purpose, path: &str, holder: &mut Holder) -> Result<Stream, AuthError> {
        self.runtime.block_on(self.uplink.follow(purpose, path, now(), holder))
    }

    fn servers(&mut self, holder: &mut Holder) -> Result<Stream, AuthError> {
        self.follow(Purpose::ResourceStream, SERVERS, holder)
    }

    /// What is said up to the end of the list.
    fn listed(&self, stream: &mut Stream) -> Vec<Item> {
        let mut items = Vec::new();
        while !matches!(items.last(), Some(Item::Listed { .. })) {
            items.push(self.runtime.block_on(stream.next()).unwrap());
        }
        items
    }

    /// The code that some bytes are refused with.
    fn posted(&self, path: &str, bytes: &[u8]) -> String {
        let connector = UplinkConnector::new(&self.pinned, None).unwrap();
        let posted = self
            .runtime
            .block_on(async { connector.open(&self.pinned).await.unwrap().post(path, bytes).await });
        match posted {
            Ok(Answer::Refused(clear)) => clear.code,
            Ok(Answer::Done(_)) => "OK".to_owned(),
            Err(error) => error.code().to_owned(),
        }
    }
}

#[test]
fn a_follower_gets_its_own_and_junk_and_strangers_get_nothing() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let mut world = World::new(&service);
    let (mut api, mut bank) = (world.joined(&service, API), world.joined(&service, "https://bank.example"));
    let mut agent = Agent::new(&service, home.path(), "builder").with_roles(&["dev", "clerk"]);
    let (code, _) = agent.register();
    service.told(&["approve", &code, "--yes"]);
    let session = agent.open().unwrap().half.session_id;
    // Each has the keys that are its own, of the same session.
    for (holder, audience, tool) in [(&mut api, API, "search"), (&mut bank, "https://bank.example", "pay")] {
        let mut stream = world.servers(holder).unwrap();
        assert_eq!(
            (stream.hello().mode, stream.hello().audience.as_deref()),
            (Mode::Snapshot, Some(audience))
        );
        let items = world.listed(&mut stream);
        let [Item::Live { session: named, half: Some(half) }, Item::Listed { .. }] = items.as_slice() else {
            panic!("{items:?}")
        };
        assert_eq!((*named, half.keys.aud.as_str()), (session, audience));
        let tools: Vec<_> = half.grants.iter().flatten().map(|grant| grant.tool.as_str()).collect();
        assert_eq!(tools, [tool]);
    }
    // A stranger, and followers on the way of the other kind.
    let code = |refused: Result<Stream, AuthError>| match refused {
        Err(AuthError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    let mut stranger = Holder::new();
    assert_eq!(code(world.servers(&mut stranger)), "NOT_JOINED");
    assert_eq!(code(world.follow(Purpose::AgentStream, AGENTS, &mut stranger)), "NOT_REGISTERED");
    assert_eq!(code(world.follow(Purpose::AgentStream, AGENTS, &mut api)), "NOT_REGISTERED");
    let elsewhere = world.follow(Purpose::ResourceStream, AGENTS, &mut api);
    assert!(matches!(elsewhere, Err(AuthError::Rejected { .. })), "{elsewhere:?}");
    for junk in [&b""[..], &[0; 23], &[7; 64], &[0xff; 16_000]] {
        for path in [SERVERS, AGENTS] {
            assert_eq!(world.posted(path, junk), "MALFORMED");
        }
        assert!(["MALFORMED", "NO_SUCH_STREAM"].contains(&world.posted(WORDS, junk).as_str()));
    }
}

#[test]
fn a_third_message_begins_one_stream_and_its_repetition_gets_no_byte_of_it() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let mut world = World::new(&service);
    let holder = world.joined(&service, API);
    let connector = UplinkConnector::new(&world.pinned, None).unwrap();
    let suites = [Suite::HybridAesGcm];
    let message = world.runtime.block_on(async {
        let (begun, hello) = begin(&world.pinned, Purpose::ResourceStream, suites[0], &suites).unwrap();
        let mut connection = connector.open(&world.pinned).await.unwrap();
        let Answer::Done(reply) = connection.post("/v1/handshake", &hello).await.unwrap() else { panic!() };
        let (greeted, _) = begun.greeted(&reply, &suites, now()).unwrap();
        let payload = holder.payload(&greeted).unwrap();
        greeted.prove(&holder.key(), payload).unwrap().1
    });
    // Its answer has no end, which who reads answers whole gives up.
    let first = world.runtime.spawn({
        let (pinned, message) = (world.pinned.clone(), message.clone());
        async move {
            let connector = UplinkConnector::new(&pinned, None).unwrap();
            let mut connection = connector.open(&pinned).await.unwrap();
            connection.post(SERVERS, &message).await.map(drop)
        }
    });
    home::wait_until("it follows", || service.told(&["rs", "list"])["copies"][0]["follows"] == true);
    for _ in 0..3 {
        assert_eq!(world.posted(SERVERS, &message), "HANDSHAKE_USED");
    }
    let mut changed = message;
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(world.posted(SERVERS, &changed), "MALFORMED");
    assert!(world.runtime.block_on(first).unwrap().is_err());
}

#[test]
fn nobody_can_confirm_for_another_or_what_has_not_happened() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let mut world = World::new(&service);
    let mut holder = world.joined(&service, API);
    let (mut agent, _) = Agent::approved(&service, home.path(), "builder");
    agent.open().unwrap();
    let mut stream = world.servers(&mut holder).unwrap();
    world.listed(&mut stream);
    let id = stream.hello().stream;
    let mut voice = stream.voice().unwrap();
    // Junk under its name, also under a number that comes later: the real words are taken as ever.
    for number in [0, 1, u64::MAX] {
        assert_eq!(world.posted(WORDS, &Word::envelope(id, number, &[5; 40])), "MALFORMED");
    }
    world.runtime.block_on(voice.say(&Word::Applied { seq: u64::MAX })).unwrap();
    let flushed = Word::Flushed { since: 1, scope: "all".to_owned(), reason: "not mine".to_owned() };
    let refused = world.runtime.block_on(voice.say(&flushed)).unwrap_err();
    assert_eq!(refused.code(), "MALFORMED", "a resource server has no sidecar");
    assert_eq!(service.told(&["agent", "show", "builder"])["agent"]["state"], "active");
    let disabled = service.told(&["agent", "disable", "builder", "--wait", "0.2"]);
    let copy = &disabled["copies"][0];
    assert_eq!((&copy["follows"], &copy["confirmed"]), (&true.into(), &false.into()), "{disabled}");
}

/// Every text of 64 hex digits in a document: its keys.
fn keys(document: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8(document.to_vec()).unwrap();
    let words = text.split(|letter: char| !letter.is_ascii_hexdigit());
    words.filter(|word| word.len() == 64).map(str::to_owned).collect()
}

#[test]
fn no_key_of_a_session_is_in_a_log_a_metric_a_status_or_a_file_of_those_who_know_it() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let kept = ["--first-start", "--session-store", "sessions.redb"];
    let rs = RsProcess::follow(home.path(), &service, API, &kept);
    let (mut agent, _) = Agent::approved(&service, home.path(), "builder");
    let session = agent.open().unwrap();
    assert_eq!(rs.present(&minted(&session, |_| {}), "search"), "OK", "{}", rs.log());
    service.told(&["agent", "disable", "builder"]);
    assert_eq!(rs.present(&minted(&session, |_| {}), "search"), "SESSION_EXPIRED");
    let keys = keys(&session.half.to_json());
    assert!(keys.len() >= 3, "{}", keys.len());
    let metrics = Http::new(rs.port()).get("/metrics").unwrap().1;
    let said = [service.log(), rs.log(), metrics, rs.operate("status").to_string()].concat();
    for key in &keys {
        assert!(!said.contains(key), "a key is said");
    }
    let bytes: Vec<Vec<u8>> =
        keys.iter().map(|key| obol_secret::text::bytes_from_hex(key).unwrap()).collect();
    let state = home.path().join(".local/state/obol");
    let mut looked = 0;
    for folder in [state.as_path(), home.path()] {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            // The agent's own identity is not of those who verify.
            if !entry.file_type().unwrap().is_file()
                || entry.file_name().to_string_lossy().contains("identity")
            {
                continue;
            }
            let file = std::fs::read(entry.path()).unwrap();
            looked += 1;
            for (key, hex) in bytes.iter().zip(&keys) {
                let has = |wanted: &[u8]| file.windows(wanted.len()).any(|window| window == wanted);
                assert!(!has(key) && !has(hex.as_bytes()), "a key is in {}", entry.path().display());
            }
        }
    }
    assert!(looked >= 5, "only {looked} files");
}
