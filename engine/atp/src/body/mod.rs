//! The signed bodies: parsed strictly, written in canonical form, and usable only once their signature held.
//!
//! A body is one JSON object without duplicate, unknown or `null` members, and with nothing before or behind it. Every
//! text that is accepted for one value leads to the same canonical bytes, because these are written from the value that was
//! read. Members are written in the order of RFC 8785, one behind the other; property tests keep this equal to the general
//! way.

mod member;
mod members;

use core::fmt;
use std::borrow::Cow;

use serde::Deserialize;

use self::members::Members;
use crate::MAX_BODY_BYTES;
use crate::agent_id::AgentId;
use crate::purpose;
use crate::scope::ScopeSet;
use crate::signature::{SIGNATURE, Secret, Signature};
use crate::text::Text;

/// Bounds of a nonce, in characters.
const NONCE_LENGTH: core::ops::RangeInclusive<usize> = 8..=64;
/// The least timestamp, in milliseconds: anything smaller is a time in seconds.
const MIN_TIMESTAMP_MS: u64 = 1_000_000_000_000;
/// The first timestamp that a double does not hold with every neighbour.
const END_OF_TIMESTAMPS_MS: u64 = 1 << 53;
/// The only action there is.
const REVOKE: &str = "revoke";
const NOT_JSON: &str = "is not JSON";
const TIMESTAMP: &str = "must be Unix time in milliseconds, an integer";

/// Why a body is not taken. Never repeats a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyError {
    /// The member, or `body`.
    pub field: &'static str,
    /// What is expected of it.
    pub problem: &'static str,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl core::error::Error for BodyError {}

const fn wrong(field: &'static str, problem: &'static str) -> BodyError {
    BodyError { field, problem }
}

/// A request for a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenBody<'a> {
    /// Who asks.
    pub agent_id: AgentId,
    /// The endpoint it is meant for.
    pub aud: Option<Cow<'a, str>>,
    /// Makes two requests of one millisecond differ.
    pub nonce: Option<Cow<'a, str>>,
    /// What the token is for.
    pub purpose: Option<Cow<'a, str>>,
    /// In the order in which they were asked for; their form is sound, and none appears twice.
    pub scopes: Vec<Cow<'a, str>>,
    /// Unix milliseconds.
    pub timestamp: u64,
}

/// A request to revoke a token.
#[derive(Clone, PartialEq, Eq)]
pub struct RevokeBody<'a> {
    /// Who asks.
    pub agent_id: AgentId,
    /// The endpoint it is meant for.
    pub aud: Option<Cow<'a, str>>,
    /// Makes two requests of one millisecond differ.
    pub nonce: Option<Cow<'a, str>>,
    /// Unix milliseconds.
    pub timestamp: u64,
    /// The token.
    pub token: Cow<'a, str>,
}

impl fmt::Debug for RevokeBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevokeBody").field("agent_id", &self.agent_id).finish_non_exhaustive()
    }
}

/// A kind of signed body.
pub trait Body: sealed::Canonical {
    /// Who asks.
    fn agent_id(&self) -> AgentId;
    /// The endpoint it is meant for.
    fn aud(&self) -> Option<&str>;
    /// Unix milliseconds.
    fn timestamp(&self) -> u64;
}

mod sealed {
    pub trait Canonical {
        /// Appends the canonical form.
        fn write(&self, out: &mut Vec<u8>);
    }
}

macro_rules! body {
    ($body:ident) => {
        impl Body for $body<'_> {
            fn agent_id(&self) -> AgentId {
                self.agent_id
            }
            fn aud(&self) -> Option<&str> {
                self.aud.as_deref()
            }
            fn timestamp(&self) -> u64 {
                self.timestamp
            }
        }

        impl $body<'_> {
            /// The RFC 8785 form, which signatures cover.
            pub fn canonical(&self) -> Vec<u8> {
                let mut out = Vec::with_capacity(512);
                sealed::Canonical::write(self, &mut out);
                out
            }

            /// The body with its signature, ready to be sent.
            pub fn signed_with(&self, secret: &Secret) -> Vec<u8> {
                let mut out = self.canonical();
                let signature = secret.sign(&out);
                out.pop();
                let mut members = Members::behind(&mut out);
                members.hex(SIGNATURE, signature.as_bytes());
                members.end();
                out
            }
        }
    };
}

body!(TokenBody);
body!(RevokeBody);

impl sealed::Canonical for TokenBody<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let mut members = Members::begin(out);
        members.hex("agent_id", self.agent_id.as_bytes());
        members.text_if("aud", self.aud.as_deref());
        members.text_if("nonce", self.nonce.as_deref());
        members.text_if("purpose", self.purpose.as_deref());
        members.texts("scopes", self.scopes.iter().map(|scope| &**scope));
        members.number("timestamp", self.timestamp);
        members.end();
    }
}

impl sealed::Canonical for RevokeBody<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let mut members = Members::begin(out);
        members.text("action", REVOKE);
        members.hex("agent_id", self.agent_id.as_bytes());
        members.text_if("aud", self.aud.as_deref());
        members.text_if("nonce", self.nonce.as_deref());
        members.number("timestamp", self.timestamp);
        members.text("token", &self.token);
        members.end();
    }
}

/// A body that was read and whose signature was not checked. Only its claimed agent can be seen, to find the keys.
#[derive(Debug)]
pub struct Signed<B> {
    body: B,
    signature: Signature,
}

/// A body whose signature held.
#[derive(Debug)]
pub struct Authentic<B> {
    body: B,
    signature: Signature,
    key: KeyUsed,
}

/// Which of an agent's two secrets signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyUsed {
    /// The newest.
    Current,
    /// The one before.
    Previous,
}

impl<B: Body> Signed<B> {
    /// Who the body says it is from.
    pub fn claimed_agent(&self) -> AgentId {
        self.body.agent_id()
    }

    /// The RFC 8785 form, which the signature has to cover.
    pub fn canonical(&self) -> Vec<u8> {
        let mut canonical = Vec::with_capacity(512);
        self.body.write(&mut canonical);
        canonical
    }

    /// Checks the signature against two keys, always both, so that time does not tell which one there is.
    pub fn verify(self, current: &Secret, previous: &Secret) -> Option<Authentic<B>> {
        let canonical = self.canonical();
        let matches = [current, previous].map(|key| key.signed(&canonical, &self.signature));
        let key = match matches {
            [true, _] => KeyUsed::Current,
            [false, true] => KeyUsed::Previous,
            [false, false] => return None,
        };
        Some(Authentic { body: self.body, signature: self.signature, key })
    }
}

impl<B> Authentic<B> {
    /// The body.
    pub fn body(&self) -> &B {
        &self.body
    }

    /// What replay marks are made of.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Which secret signed it.
    pub fn key(&self) -> KeyUsed {
        self.key
    }
}

/// How far a timestamp may be from now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimestampWindow {
    back_secs: u64,
    ahead_secs: u64,
}

/// The longest that a window may reach back, in seconds: replay marks are kept as long as this needs.
pub const MAX_WINDOW_BACK_SECS: u64 = 900;
const DEFAULT_BACK_SECS: u64 = 300;
const AHEAD_SECS: u64 = 60;

impl TimestampWindow {
    /// A window that reaches back so many seconds, at most [`MAX_WINDOW_BACK_SECS`], and 60 s ahead.
    pub fn back(seconds: u64) -> Option<Self> {
        (1..=MAX_WINDOW_BACK_SECS)
            .contains(&seconds)
            .then_some(Self { back_secs: seconds, ahead_secs: AHEAD_SECS })
    }

    /// The same with another bound ahead, in seconds, at most 60.
    #[must_use]
    pub fn ahead(self, seconds: u64) -> Self {
        Self { ahead_secs: seconds.min(AHEAD_SECS), ..self }
    }

    /// Whether a time in Unix milliseconds is within the window around `now_ms`.
    pub fn contains(&self, timestamp_ms: u64, now_ms: u64) -> bool {
        let earliest = now_ms.saturating_sub(self.back_secs * 1000);
        (earliest..=now_ms.saturating_add(self.ahead_secs * 1000)).contains(&timestamp_ms)
    }
}

impl Default for TimestampWindow {
    fn default() -> Self {
        Self { back_secs: DEFAULT_BACK_SECS, ahead_secs: AHEAD_SECS }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadToken<'a> {
    #[serde(borrow, deserialize_with = "member::agent_id")]
    agent_id: Text<'a>,
    #[serde(borrow, default, deserialize_with = "member::aud")]
    aud: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "member::nonce")]
    nonce: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "member::purpose")]
    purpose: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "member::scopes")]
    scopes: Vec<Text<'a>>,
    #[serde(deserialize_with = "member::timestamp")]
    timestamp: u64,
    #[serde(borrow, deserialize_with = "member::signature")]
    signature: Text<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadRevoke<'a> {
    #[serde(borrow, deserialize_with = "member::action")]
    action: Text<'a>,
    #[serde(borrow, deserialize_with = "member::agent_id")]
    agent_id: Text<'a>,
    #[serde(borrow, default, deserialize_with = "member::aud")]
    aud: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "member::nonce")]
    nonce: Option<Text<'a>>,
    #[serde(deserialize_with = "member::timestamp")]
    timestamp: u64,
    #[serde(borrow, deserialize_with = "member::token")]
    token: Text<'a>,
    #[serde(borrow, deserialize_with = "member::signature")]
    signature: Text<'a>,
}

impl<'a> Signed<TokenBody<'a>> {
    /// Reads a request for a token.
    ///
    /// # Errors
    /// [`BodyError`] names the first member that is wrong.
    pub fn parse(json: &'a [u8]) -> Result<Self, BodyError> {
        let read: ReadToken<'a> = read_object(json)?;
        let body = TokenBody {
            agent_id: agent_id(&read.agent_id)?,
            aud: read.aud.map(aud).transpose()?,
            nonce: read.nonce.map(nonce).transpose()?,
            purpose: read.purpose.map(checked_purpose).transpose()?,
            scopes: scopes(read.scopes)?,
            timestamp: timestamp(read.timestamp)?,
        };
        Ok(Self { body, signature: signature(&read.signature)? })
    }
}

impl<'a> Signed<RevokeBody<'a>> {
    /// Reads a request to revoke a token.
    ///
    /// # Errors
    /// [`BodyError`] names the first member that is wrong.
    pub fn parse(json: &'a [u8]) -> Result<Self, BodyError> {
        let read: ReadRevoke<'a> = read_object(json)?;
        if read.action.0 != REVOKE {
            return Err(wrong("action", "must be \"revoke\""));
        }
        let body = RevokeBody {
            agent_id: agent_id(&read.agent_id)?,
            aud: read.aud.map(aud).transpose()?,
            nonce: read.nonce.map(nonce).transpose()?,
            timestamp: timestamp(read.timestamp)?,
            token: read.token.0,
        };
        Ok(Self { body, signature: signature(&read.signature)? })
    }
}

/// One object and nothing else. `serde` would also take a list for the members in their order.
fn read_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, BodyError> {
    if json.len() > MAX_BODY_BYTES {
        return Err(wrong("body", "has more than 8192 bytes"));
    }
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(wrong("body", "must be one JSON object"));
    }
    // JSON is UTF-8 (RFC 8259). Checked once, not string by string.
    let json = core::str::from_utf8(json).map_err(|_| wrong("body", NOT_JSON))?;
    serde_json::from_str(json).map_err(|error| in_words(&error))
}

/// `serde`'s messages repeat what they found; only the kind of mistake, and a member's name if it is one of ours, come out.
fn in_words(error: &serde_json::Error) -> BodyError {
    let message = error.to_string();
    let ours = |start: &str| {
        let name = message.strip_prefix(start)?.strip_prefix('`')?;
        let is_name = |member: &&&str| name.strip_prefix(**member).is_some_and(|rest| rest.starts_with('`'));
        member::MEMBERS.iter().find(is_name).copied()
    };
    if let Some(field) = ours(member::WRONG_TYPE) {
        return wrong(field, of_type(field));
    }
    if let Some(field) = ours("missing field ") {
        return wrong(field, "is missing");
    }
    if let Some(field) = ours("duplicate field ") {
        return wrong(field, "appears twice");
    }
    if message.starts_with("unknown field") {
        return wrong("body", "has an unknown member");
    }
    if error.is_data() {
        return wrong("body", "must be one JSON object");
    }
    wrong("body", NOT_JSON)
}

/// What a member has to be.
fn of_type(member: &str) -> &'static str {
    match member {
        "scopes" => "must be a list of texts",
        "timestamp" => TIMESTAMP,
        _ => "must be text",
    }
}

fn agent_id(text: &Text<'_>) -> Result<AgentId, BodyError> {
    AgentId::parse(&text.0).ok_or(wrong("agent_id", "must be 64 lower-case hex digits"))
}

fn aud(text: Text<'_>) -> Result<Cow<'_, str>, BodyError> {
    let fits = !text.0.is_empty() && text.0.len() <= crate::endpoint::MAX_ENDPOINT_BYTES;
    if fits { Ok(text.0) } else { Err(wrong("aud", "must be the endpoint's URL, at most 512 bytes")) }
}

fn nonce(text: Text<'_>) -> Result<Cow<'_, str>, BodyError> {
    let fits = NONCE_LENGTH.contains(&text.0.len())
        && text.0.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if fits { Ok(text.0) } else { Err(wrong("nonce", "must be 8 to 64 characters of A-Z a-z 0-9 _ -")) }
}

fn checked_purpose(text: Text<'_>) -> Result<Cow<'_, str>, BodyError> {
    if purpose::is_valid(&text.0) {
        return Ok(text.0);
    }
    Err(wrong("purpose", "must have at most 256 bytes and no control or format characters"))
}

/// Their form. None at all is a matter of what is granted, and is refused as such, after the signature.
fn scopes(texts: Vec<Text<'_>>) -> Result<Vec<Cow<'_, str>>, BodyError> {
    let problem =
        wrong("scopes", "must be at most 32 distinct texts of 1 to 64 characters of A-Z a-z 0-9 . _ : / * -");
    if !ScopeSet::can_be(texts.iter().map(|text| &*text.0)) {
        return Err(problem);
    }
    Ok(texts.into_iter().map(|text| text.0).collect())
}

fn timestamp(milliseconds: u64) -> Result<u64, BodyError> {
    if (MIN_TIMESTAMP_MS..END_OF_TIMESTAMPS_MS).contains(&milliseconds) {
        return Ok(milliseconds);
    }
    Err(wrong("timestamp", TIMESTAMP))
}

fn signature(text: &Text<'_>) -> Result<Signature, BodyError> {
    Signature::parse(&text.0).ok_or(wrong("signature", "must be 64 lower-case hex digits"))
}

#[cfg(test)]
mod tests;
