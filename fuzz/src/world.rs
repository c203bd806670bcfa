//! A few sessions, the tokens that were minted in them, and the server that accepts those.

use std::sync::{Arc, OnceLock};

use obol_token::{Audience, Suite};
use obol_verify::{
    Denial, MemorySessionTable, MemorySpentSet, Request, Session, Spent, SpentSet, Template, Unverified,
    Verifier,
};
use obol_world::ManualClock;
use obol_world::mint::mint;
pub use obol_world::{AUDIENCE, Keys, LIFE_SECS, NOW, ORG, RESOURCE, TOOL};

/// How far the server lets clocks differ, in seconds.
pub const CLOCK_SKEW_SECS: u64 = 60;
/// Sessions of each suite.
const PEERS: u64 = 2;
/// Tokens of each session.
const TOKENS: usize = 2;

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
            .flat_map(|suite| (0..PEERS).map(move |number| Keys::of(suite, number)))
            .collect();
        let sessions = MemorySessionTable::new();
        for keys in &keys {
            sessions
                .add(Session::new(keys.material(), Audience::new(AUDIENCE).expect("an audience"), ORG))
                .expect("few sessions");
        }
        let tokens = keys.iter().flat_map(|keys| mint(&keys.material(), 0, TOKENS)).collect();
        Self { keys, tokens, sessions: Arc::new(sessions) }
    }

    /// Whether these very bytes were minted here.
    pub fn minted(&self, token: &[u8]) -> bool {
        self.tokens.iter().any(|minted| minted == token)
    }

    /// A server that has seen no token yet.
    pub fn server(&self) -> Server {
        let clock = Arc::new(ManualClock::new(NOW));
        let spent = Arc::new(MemorySpentSet::unfenced(clock.clone(), CLOCK_SKEW_SECS));
        let verifier = Verifier::builder(
            Audience::new(AUDIENCE).expect("an audience"),
            self.sessions.clone(),
            spent.clone(),
        )
        .templates(Arc::new(Template::Any))
        .clock(clock.clone())
        .build()
        .expect("the parts fit");
        Server { clock, spent, verifier }
    }
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
