//! Obol's own tokens, of every suite.

use std::sync::Arc;

use obol_token::text::to_base64url;
use obol_token::{Audience, Minter, Nonces, ResponseKey, SessionMaterial, Suite, TokenSeed, Validity};
use obol_verify::{MemorySessionTable, MemorySpentSet, Request, Session, Template, Unverified, Verifier};
use obol_world::ManualClock;
use obol_world::scope::scope;
use obol_world::{AUDIENCE, KEYS, NOW as ISSUED_AT, ORG};

use super::{LIFE_SECS, NOW, Peer, Verified, jti};

/// The epoch of policy under which all tokens are minted.
const POLICY_EPOCH: u64 = 1;

/// A suite, as its minter and its verifier. Minting makes one token at a time, as the others do; batches cost less.
pub struct Obol {
    name: String,
    material: SessionMaterial,
    verifier: Verifier,
}

impl Obol {
    /// Every suite that this build has.
    pub fn all() -> Vec<Self> {
        (1..=4).filter_map(Suite::from_number).map(Self::new).collect()
    }

    fn new(suite: Suite) -> Self {
        let sessions = MemorySessionTable::new();
        sessions
            .add(Session::new(material(suite), Audience::new(AUDIENCE).expect("an audience"), ORG))
            .expect("one session");
        let clock = Arc::new(ManualClock::new(NOW));
        // Nothing is ever spent in it: the replay check is the same for all peers, and outside.
        let spent = Arc::new(MemorySpentSet::unfenced(clock.clone(), 60));
        let verifier =
            Verifier::builder(Audience::new(AUDIENCE).expect("an audience"), Arc::new(sessions), spent)
                .templates(Arc::new(Template::Any))
                .clock(clock)
                .build();
        Self {
            name: format!("obol, suite {suite}"),
            material: material(suite),
            verifier: verifier.expect("the parts fit"),
        }
    }
}

fn material(suite: Suite) -> SessionMaterial {
    KEYS.in_suite(suite).material().with_nonces(Nonces::Derived)
}

impl Peer for Obol {
    fn name(&self) -> &str {
        &self.name
    }

    fn mint(&self, number: u64) -> Vec<u8> {
        let mut iv = [0; 12];
        iv.split_at_mut(4).1.copy_from_slice(&number.to_be_bytes());
        let seed =
            TokenSeed { jti: jti(number), iv, response_key: ResponseKey::from_bytes([5; 32]), nonce: None };
        let validity = Validity { issued_at: ISSUED_AT, expires_at: ISSUED_AT + LIFE_SECS };
        let minter = Minter::new(&self.material, &scope(), POLICY_EPOCH).expect("the scope is sound");
        let tokens = minter.mint(validity, &[seed]).expect("the scope is sound");
        tokens.first().map(|token| to_base64url(token).into_bytes()).expect("one token for one seed")
    }

    fn verify(&self, token: &[u8]) -> Option<Verified> {
        let request = Request { action: Some("read"), resource: Some("docs/a"), ..Request::new("search") };
        let verified =
            Unverified::from_text(token).and_then(|token| token.verify(&self.verifier, &request)).ok()?;
        Some(Verified { jti: verified.jti(), expires_at: ISSUED_AT + LIFE_SECS })
    }
}
