//! The kinds of tokens.

pub mod biscuit;
pub mod jwt;
pub mod obol;
pub mod paseto;

use obol_token::{Jti, SessionId};
use obol_world::scope::scope;
use obol_world::{AUDIENCE, NOW as ISSUED_AT, ORG};
use serde::{Deserialize, Serialize};

/// Under which session all tokens are filed in the set of spent tokens.
pub const SESSION: SessionId = SessionId::from_u64(7);
/// The clock of every verification.
pub const NOW: u64 = ISSUED_AT + 1;
/// How long a token lives, in seconds.
const LIFE_SECS: u64 = 60;

/// A kind of token.
pub trait Peer {
    /// Its name in the table.
    fn name(&self) -> &str;

    /// A token as it travels; `number` tells it from others.
    fn mint(&self, number: u64) -> Vec<u8>;

    /// What a server reads from a token that it accepts.
    fn verify(&self, token: &[u8]) -> Option<Verified>;
}

/// What it takes to spend a token.
pub struct Verified {
    pub jti: Jti,
    pub expires_at: u64,
}

/// The name of a token.
pub fn jti(number: u64) -> Jti {
    let mut name = [0; 16];
    name.split_at_mut(8).1.copy_from_slice(&number.to_be_bytes());
    Jti::from_random(name)
}

/// The claims, for formats that carry JSON.
#[derive(Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub agent_instance_id: String,
    pub org_id: String,
    pub tool: String,
    pub action: Vec<String>,
    pub resource: String,
    pub aud: String,
    pub iat: u64,
    pub exp: u64,
    pub jti: String,
}

impl Claims {
    pub fn new(number: u64) -> Self {
        let scope = scope();
        Self {
            iss: scope.iss,
            sub: scope.sub,
            agent_instance_id: scope.agent_instance_id,
            org_id: scope.org_id,
            tool: scope.tool,
            action: scope.action,
            resource: scope.resource,
            aud: scope.aud,
            iat: ISSUED_AT,
            exp: ISSUED_AT + LIFE_SECS,
            jti: jti(number).as_str().to_owned(),
        }
    }

    /// What a server compares by itself when its library has checked the signature.
    pub fn check(&self) -> Option<Verified> {
        let allowed = self.iss == "as.example"
            && self.org_id == ORG
            && self.aud == AUDIENCE
            && self.tool == "search"
            && self.action.iter().any(|action| action == "read")
            && self.resource == "docs/**"
            && self.iat <= NOW
            && NOW <= self.exp;
        let jti = Jti::parse(self.jti.as_bytes())?;
        allowed.then_some(Verified { jti, expires_at: self.exp })
    }
}
