//! Any bytes as a token, with the keys of every session at hand: nothing opens but what was minted, byte for byte.
#![no_main]

use std::collections::HashMap;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use obol_fuzz::seeds::{self, vector_sessions, vector_tokens};
use obol_fuzz::world::World;
use obol_token::{Envelope, FramingError, MAX_TOKEN_BYTES, SessionMaterial};

struct Known {
    sessions: HashMap<u64, SessionMaterial>,
    tokens: Vec<Vec<u8>>,
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let world = World::get();
        let keys = world.keys.iter().copied().chain(vector_sessions());
        let known = Known {
            sessions: keys.map(|keys| (keys.session_id, keys.material())).collect(),
            tokens: world.tokens.iter().cloned().chain(vector_tokens()).collect(),
        };
        for token in &known.tokens {
            let envelope = Envelope::parse(token).expect("what was minted parses");
            let body = known.sessions[&envelope.session_id().as_u64()]
                .open(&envelope)
                .expect("what was minted opens");
            body.scope().expect("what was minted has a scope");
        }
        known
    })
}

fuzz_target!(init: seeds::write_if_asked("token"), |data: &[u8]| {
    let envelope = match Envelope::parse(data) {
        Ok(envelope) => envelope,
        Err(error) => {
            assert!(!known().tokens.iter().any(|token| token == data), "a token that was minted does not parse");
            assert!(data.len() <= MAX_TOKEN_BYTES || error == FramingError::Length);
            return;
        }
    };
    // Also under the keys of sessions that the token does not name.
    for session in known().sessions.values() {
        let opened = session.open(&envelope).is_ok();
        let minted = known().tokens.iter().any(|token| token == data) && session.session_id() == envelope.session_id();
        assert_eq!(opened, minted, "a token opens exactly where it was minted");
    }
});
