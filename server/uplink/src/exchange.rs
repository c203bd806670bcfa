//! One handshake with the service, without its network: which suite, what the service's greeting must say, and what its
//! answer means.

use core::fmt;

use obol_handshake::{
    AwaitsReply, Established, HandshakeError, Header, IdentityKey, Initiator, Prologue, Purpose,
    ReadyToProve, SekKey, SuiteOffer, SystemRandom, open_answer,
};
use obol_secret::json::{Bounds, parse, parse_within};
use obol_secret::text::to_hex;
use obol_session::Suite;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::error::AuthError;
use crate::pinned::Pinned;

/// The longest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// The most values in an answer that is not a session, and how deep it may be nested.
const BOUNDS: Bounds = Bounds { values: 256, depth: 4 };

/// Message A was sent.
pub struct Begun {
    waiting: AwaitsReply,
    suite: Suite,
}

/// What the service says before it knows who asks.
#[derive(Debug, Deserialize)]
struct Greeting {
    now: u64,
    suites: Vec<u8>,
}

/// Gives message A, for a suite of those that are offered.
///
/// # Errors
///
/// Where the pinned key is not one.
pub fn begin(
    service: &Pinned,
    purpose: Purpose,
    suite: Suite,
    offered: &[Suite],
) -> Result<(Begun, Vec<u8>), AuthError> {
    let header = Header { purpose, suite, offer: SuiteOffer::of(offered), authority_key: service.key().id() };
    let prologue = Prologue::new(header, service.origin()).map_err(AuthError::NotTheService)?;
    let (waiting, hello) =
        Initiator::start(&prologue, service.key(), &mut SystemRandom).map_err(AuthError::NotTheService)?;
    Ok((Begun { waiting, suite }, hello))
}

impl Begun {
    /// Reads message B. What the service itself says it could have done must not be better than what is being done: else
    /// somebody on the way made it so. Also tells how far this machine's clock is ahead, in seconds.
    ///
    /// # Errors
    ///
    /// [`AuthError`] where the message is not the service's, or another suite was possible.
    pub fn greeted(self, reply: &[u8], preferred: &[Suite], now: u64) -> Result<(Greeted, i64), AuthError> {
        let (ready, greeting) = self.waiting.read(reply).map_err(AuthError::NotTheService)?;
        let greeting: Greeting = parse(&greeting).map_err(|error| AuthError::Answer(error.to_string()))?;
        let better = preferred.iter().take_while(|suite| **suite != self.suite);
        if let Some(possible) =
            better.map(|suite| suite.number()).find(|suite| greeting.suites.contains(suite))
        {
            return Err(AuthError::Downgrade { used: self.suite.number(), possible });
        }
        let skew = i128::from(now) - i128::from(greeting.now);
        let skew = i64::try_from(skew).unwrap_or(if skew < 0 { i64::MIN } else { i64::MAX });
        Ok((Greeted { ready }, skew))
    }
}

/// The service has shown who it is.
pub struct Greeted {
    ready: ReadyToProve,
}

impl fmt::Debug for Greeted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Greeted")
    }
}

impl Greeted {
    /// The fields by which the SEK is proven, for this handshake alone.
    pub fn sek_fields(&self, sek: &SekKey) -> Map<String, Value> {
        let proof = sek.prove(&self.ready.hash(), &mut SystemRandom);
        let mut fields = Map::new();
        fields.insert("sek_pk".to_owned(), json!(to_hex(&sek.public().0)));
        fields.insert("sek_proof".to_owned(), json!(to_hex(&proof)));
        fields
    }

    /// Gives message C.
    ///
    /// # Errors
    ///
    /// Where it is too long.
    #[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
    pub fn prove(self, own: &IdentityKey, payload: Value) -> Result<(Proven, Vec<u8>), AuthError> {
        let suite = self.ready.suite();
        let payload = Zeroizing::new(payload.to_string());
        let proved = self.ready.prove(own, payload.as_bytes());
        let (established, message) = proved.map_err(|error| match error {
            HandshakeError::Length => AuthError::System("what is asked for is too long".to_owned()),
            error => AuthError::NotTheService(error),
        })?;
        Ok((Proven { established, suite }, message))
    }
}

/// Message C was sent.
pub struct Proven {
    /// What the handshake left.
    pub established: Established,
    /// The suite that it was of.
    pub suite: Suite,
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proven").field("suite", &self.suite).finish_non_exhaustive()
    }
}

/// The service's answer, read.
pub(crate) enum Told {
    /// It did what was asked.
    Done(Zeroizing<Vec<u8>>),
    /// It refused; the suite to use where that is why.
    Refused { code: String, detail: String, suite: Option<Suite> },
}

#[derive(Deserialize)]
struct ErrorDocument {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: String,
    detail: String,
    #[serde(default)]
    suite: Option<u8>,
}

impl Proven {
    /// Opens message D.
    pub(crate) fn told(&mut self, answer: &[u8]) -> Result<Told, AuthError> {
        let opened = open_answer(&mut self.established.receive, answer, MAX_ANSWER_BYTES)
            .map_err(|_| AuthError::NotTheService(HandshakeError::Tag))?;
        Ok(match parse_within::<ErrorDocument>(&opened, BOUNDS) {
            Ok(ErrorDocument { error }) => Told::Refused {
                code: error.code,
                detail: error.detail,
                suite: error.suite.and_then(Suite::from_number),
            },
            Err(_) => Told::Done(opened),
        })
    }
}
