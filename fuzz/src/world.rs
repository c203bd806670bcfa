//! A few sessions, the tokens that were minted in them, and the server that accepts those.

use std::sync::{Arc, OnceLock};

use obol_token::{
    Audience, Jti, Minter, MutualAuth, ResponseKey, Scope, SessionId, SessionKey, SessionMaterial, Suite,
    TokenSeed, Validity, VerifierSecret,
};
use obol_verify::{
    Denial, ManualClock, MemorySessionTable, MemorySpentSet, Request, Session, Spent, SpentSet, Template,
    Unverified, Verifier,
};

pub const AUDIENCE: &str = "https://api.example/mcp";
pub const ORG: &str = "example";
pub const TOOL: &str = "search";
pub const RESOURCE: &str = "docs/**";
/// When every token was issued, in Unix seconds.
pub const ISSUED_AT: u64 = 1_780_000_000;
/// How long every token lives, in seconds.
pub const LIFE: u64 = 60;
/// How far the server lets clocks differ, in seconds.
pub const CLOCK_SKEW: u64 = 60;
/// Sessions of each suite, and tokens of each session.
const PEERS: u64 = 2;

/// The keys of one session. Two sessions of different suites may have the same keys: that is one of the attacks.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    pub session_id: u64,
    pub suite: Suite,
    pub session_key: [u8; 32],
    pub verifier_secret: [u8; 32],
    pub mutual_auth: [u8; 32],
    pub sek_public: [u8; 32],
}

impl Keys {
    fn new(suite: Suite, number: u64) -> Self {
        let byte = 16 * u8::try_from(number).expect("few sessions");
        Self {
            session_id: u64::from(suite.number()) << 8 | number,
            suite,
            session_key: [byte + 1; 32],
            verifier_secret: [byte + 2; 32],
            mutual_auth: [byte + 3; 32],
            sek_public: [byte + 4; 32],
        }
    }

    pub fn material(&self) -> SessionMaterial {
        SessionMaterial::new(
            SessionId(self.session_id),
            self.suite,
            SessionKey::from_bytes(self.session_key),
            VerifierSecret::from_bytes(self.verifier_secret),
            MutualAuth::from_bytes(self.mutual_auth),
            self.sek_public,
        )
    }
}

pub fn scope() -> Scope {
    Scope {
        iss: "as.example".to_owned(),
        sub: "agent-key:1".to_owned(),
        agent_instance_id: "agent-1".to_owned(),
        tool: TOOL.to_owned(),
        action: vec!["read".to_owned()],
        resource: RESOURCE.to_owned(),
        constraints: None,
        delegation_depth: 0,
        parent_token_hash: None,
        require_pop: false,
        aud: AUDIENCE.to_owned(),
        org_id: ORG.to_owned(),
        trust_level: 1,
        human_confirmed_at: 0,
        approval_digest: None,
        purpose: None,
        txn_id: None,
        user_raw_intent: None,
        intent_hash: None,
    }
}

/// What is the same for every input.
pub struct World {
    pub keys: Vec<Keys>,
    /// Every token that was ever minted here.
    pub tokens: Vec<Vec<u8>>,
    sessions: Arc<MemorySessionTable>,
}

impl World {
    pub fn get() -> &'static Self {
        static WORLD: OnceLock<World> = OnceLock::new();
        WORLD.get_or_init(Self::new)
    }

    fn new() -> Self {
        let keys: Vec<Keys> = Suite::ALL
            .into_iter()
            .flat_map(|suite| (0..PEERS).map(move |number| Keys::new(suite, number)))
            .collect();
        let sessions = MemorySessionTable::new();
        for keys in &keys {
            sessions.add(Session::new(keys.material(), Audience::new(AUDIENCE), ORG)).expect("few sessions");
        }
        let tokens = keys.iter().flat_map(mint).collect();
        Self { keys, tokens, sessions: Arc::new(sessions) }
    }

    /// Whether these very bytes were minted here.
    pub fn minted(&self, token: &[u8]) -> bool {
        self.tokens.iter().any(|minted| minted == token)
    }

    /// A server that has seen no token yet.
    pub fn server(&self) -> Server {
        let clock = Arc::new(ManualClock::new(ISSUED_AT));
        let spent = Arc::new(MemorySpentSet::unfenced(clock.clone(), CLOCK_SKEW));
        let verifier = Verifier::builder(Audience::new(AUDIENCE), self.sessions.clone(), spent.clone())
            .templates(Arc::new(Template::Any))
            .clock(clock.clone())
            .build()
            .expect("the parts fit");
        Server { clock, spent, verifier }
    }
}

fn mint(keys: &Keys) -> Vec<Vec<u8>> {
    let material = keys.material();
    let seeds: Vec<TokenSeed> = (0..PEERS)
        .map(|number| {
            let byte = u8::try_from(number).expect("few tokens");
            TokenSeed {
                jti: Jti::from_random([byte; 16]),
                iv: [byte; 12],
                response_key: ResponseKey::from_bytes([byte; 32]),
                nonce: None,
            }
        })
        .collect();
    let validity = Validity { issued_at: ISSUED_AT, expires_at: ISSUED_AT + LIFE };
    let minter = Minter::new(&material, &scope(), 1).expect("the scope is sound");
    minter.mint(validity, &seeds).expect("the scope is sound")
}

/// One resource server.
pub struct Server {
    pub clock: Arc<ManualClock>,
    spent: Arc<MemorySpentSet>,
    verifier: Verifier,
}

impl Server {
    /// The whole way of a token, spending included.
    pub fn accept(&self, token: &[u8], request: &Request<'_>) -> Result<Spent, Denial> {
        Unverified::from_bytes(token.to_vec())?.verify(&self.verifier, request)?.spend().wait()
    }

    /// The same for a token as text.
    pub fn accept_text(&self, text: &[u8], request: &Request<'_>) -> Result<Spent, Denial> {
        Unverified::from_text(text)?.verify(&self.verifier, request)?.spend().wait()
    }

    /// How many tokens were spent here.
    pub fn spent(&self) -> usize {
        self.spent.marks().expect("a set in memory knows")
    }
}
