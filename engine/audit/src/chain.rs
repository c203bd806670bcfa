//! The form of a line, and what ties it to the one before.
//!
//! A line is one JSON object and a line end. Its last two members are
//!
//! - `prev`: SHA-256 of the whole line before it, without the line end; zeros in a chain's first line. Anybody can check
//!   this, with `sha256sum`.
//! - `mac`: the first 16 bytes of HMAC-SHA-256, under the sealing key, of the SHA-256 of the line up to `,"mac":`.
//!
//! So a line that was changed is known by itself, and one that was moved by its neighbours.

use core::fmt;
use std::collections::HashMap;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use obol_secret::text::{from_hex, plain, to_hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::entry::{Decision, Entry, Event, RequestTag};
use crate::time::iso;

/// Longest line that is written or read, in bytes. The longest fields are four names (256 bytes each), a scope and a
/// reason (1,024), each byte of which may take six as JSON.
pub(crate) const MAX_LINE_BYTES: usize = 32 << 10;
/// Version of the form, in a file's first line.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a seal.
const MAC_BYTES: usize = 16;
/// What stands between the end of the sealed part and the seal.
const MAC_PREFIX: &[u8] = br#","mac":""#;
const MAC_SUFFIX: &[u8] = br#""}"#;
/// Bytes of a `jti`'s hash that are written; enough to tell any two apart.
const JTI_HASH_BYTES: usize = 16;

/// SHA-256 of a line.
pub(crate) type LineHash = [u8; 32];

obol_secret::secret! {
    /// The key lines are sealed under. Derive it from the master key, for this use alone.
    ChainKey
}

impl ChainKey {
    /// Names the key without giving anything away: 16 hex digits in a file's first line.
    pub(crate) fn id(&self) -> String {
        to_hex(self.tag(b"obol audit key", b"").get(..8).unwrap_or_default())
    }

    /// A seal of `digest` for one purpose.
    pub(crate) fn tag(&self, purpose: &[u8], digest: &[u8]) -> [u8; MAC_BYTES] {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.expose()) else { return [0; MAC_BYTES] };
        mac.update(purpose);
        mac.update(digest);
        let full = mac.finalize().into_bytes();
        let mut tag = [0; MAC_BYTES];
        tag.iter_mut().zip(full).for_each(|(place, byte)| *place = byte);
        tag
    }

    /// Whether a line carries its seal.
    pub(crate) fn vouches_for(&self, line: &[u8]) -> bool {
        let Some((sealed, mac)) = split_mac(line) else { return false };
        let tag = to_hex(&self.tag(LINE, &Sha256::digest(sealed)));
        tag.as_bytes().ct_eq(mac).into()
    }
}

const LINE: &[u8] = b"obol audit line";

/// The sealed part of a line, and its seal in hex.
fn split_mac(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_suffix(MAC_SUFFIX)?;
    let (rest, mac) = rest.split_at_checked(rest.len().checked_sub(2 * MAC_BYTES)?)?;
    Some((rest.strip_suffix(MAC_PREFIX)?, mac))
}

/// SHA-256 of a line without its line end.
pub(crate) fn hash(line: &[u8]) -> LineHash {
    Sha256::digest(line).into()
}

/// What a process says about the files when it begins to write.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Opening {
    /// Version of the form.
    #[serde(rename = "v", skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chain: Option<String>,
    /// The sealing key's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// The file's number in the chain, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    /// Whether the process before ended in good order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clean: Option<bool>,
    /// What lies between the last good line and this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) torn: Option<Torn>,
    /// Lines that had been durable and are not there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) missing: Option<u64>,
    /// What was wrong with the note of how far the log had got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) head: Option<&'static str>,
}

/// Bytes that are not a line: a crash in the middle of a write.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Torn {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

impl Torn {
    /// Describes what lies between two lines, its last line end not counted.
    pub(crate) fn of(region: &[u8]) -> Self {
        let region = region.strip_suffix(b"\n").unwrap_or(region);
        Self { bytes: region.len() as u64, sha256: to_hex(&hash(region)) }
    }
}

/// A line as it is written. The order of the members is part of the form.
#[derive(Serialize)]
struct Written<'a> {
    n: u64,
    time: String,
    event: Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestTag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions_ended: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    cut: bool,
    #[serde(flatten)]
    opening: &'a Opening,
    prev: String,
}

/// The end of a chain: where the next line goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tip {
    /// The next line's number.
    pub(crate) next: u64,
    /// The hash of the last line; zeros before the first.
    pub(crate) prev: LineHash,
}

impl Tip {
    /// Before the first line of a chain.
    pub(crate) const GENESIS: Self = Self { next: 0, prev: [0; 32] };
}

/// Writes lines, one after another.
pub(crate) struct Chain {
    key: Arc<ChainKey>,
    pub(crate) tip: Tip,
    /// The agents of the sessions that are known.
    agents: HashMap<u64, Box<str>>,
}

/// The most sessions whose agents are remembered; more are written without.
const MAX_AGENTS: usize = 20_000;

impl Chain {
    pub(crate) fn new(key: impl Into<Arc<ChainKey>>, tip: Tip) -> Self {
        Self { key: key.into(), tip, agents: HashMap::new() }
    }

    pub(crate) fn key(&self) -> &ChainKey {
        &self.key
    }

    /// Remembers whose session this is.
    pub(crate) fn introduce(&mut self, session: u64, agent: Box<str>) {
        if self.agents.len() < MAX_AGENTS && !agent.is_empty() {
            self.agents.insert(session, agent);
        }
    }

    /// Adds a line to `out`.
    pub(crate) fn append(&mut self, entry: &Entry, opening: &Opening, out: &mut Vec<u8>) {
        let start = out.len();
        let known = entry.session.and_then(|session| self.agents.get(&session));
        let line = Written {
            n: self.tip.next,
            time: iso(entry.time),
            event: entry.event,
            decision: entry.decision,
            request: entry.request,
            client: entry.client.as_deref(),
            agent: entry.agent.as_deref().or(known.map(AsRef::as_ref)),
            session: entry.session.map(|session| format!("{session:016x}")),
            tool: entry.tool.as_deref(),
            audience: entry.audience.as_deref(),
            jti_sha256: jti_hash(entry),
            expires_at: entry.expires_at,
            code: entry.code,
            check: entry.check,
            scope: entry.scope.as_deref(),
            reason: entry.reason.as_deref(),
            tokens: entry.tokens,
            sessions_ended: entry.sessions_ended,
            epoch: entry.epoch,
            count: entry.count,
            cut: entry.cut,
            opening,
            prev: to_hex(&self.tip.prev),
        };
        let written = serde_json::to_string(&line).unwrap_or_default();
        debug_assert!(!written.is_empty(), "strings and numbers into memory");
        out.extend_from_slice(plain(&written).as_bytes());
        self.seal(start, out);
        if let (Event::SessionStart, Some(session), Some(agent)) = (entry.event, entry.session, &entry.agent)
        {
            self.introduce(session, agent.clone());
        }
        if let (Event::SessionEnd, Some(session)) = (entry.event, entry.session) {
            self.agents.remove(&session);
        }
        if let (Event::Spend, Some(session), Some(agent)) = (entry.event, entry.session, &entry.agent) {
            self.learn(session, agent);
        }
    }

    /// Remembers whose session this is, as a token of it said. Nobody tells when such a session ends; where there are
    /// too many, all are forgotten, and learnt again from the tokens that follow.
    fn learn(&mut self, session: u64, agent: &str) {
        if self.agents.get(&session).is_some_and(|known| **known == *agent) {
            return;
        }
        if self.agents.len() >= MAX_AGENTS {
            self.agents.clear();
        }
        self.introduce(session, agent.into());
    }

    /// Puts the seal to the line that begins at `start`, and the line end.
    fn seal(&mut self, start: usize, out: &mut Vec<u8>) {
        out.pop();
        let mut hasher = Sha256::new_with_prefix(out.get(start..).unwrap_or_default());
        let digest = hasher.clone().finalize();
        let tail = out.len();
        out.extend_from_slice(MAC_PREFIX);
        out.extend_from_slice(to_hex(&self.key.tag(LINE, &digest)).as_bytes());
        out.extend_from_slice(MAC_SUFFIX);
        hasher.update(out.get(tail..).unwrap_or_default());
        self.tip = Tip { next: self.tip.next + 1, prev: hasher.finalize().into() };
        out.push(b'\n');
    }
}

fn jti_hash(entry: &Entry) -> Option<String> {
    let jti =
        entry.jti.as_ref().map(<[u8; 22]>::as_slice).or(entry.token_id.as_deref().map(str::as_bytes))?;
    Some(to_hex(hash(jti).get(..JTI_HASH_BYTES).unwrap_or_default()))
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("tip", &self.tip).finish_non_exhaustive()
    }
}

/// What a reader needs of a line.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Read {
    pub(crate) n: u64,
    pub(crate) time: String,
    pub(crate) event: String,
    pub(crate) prev: String,
    pub(crate) mac: String,
    #[serde(default, rename = "v")]
    pub(crate) version: Option<u32>,
    #[serde(default)]
    pub(crate) chain: Option<String>,
    #[serde(default)]
    pub(crate) key: Option<String>,
    #[serde(default)]
    pub(crate) file: Option<u64>,
    #[serde(default)]
    pub(crate) clean: Option<bool>,
    #[serde(default)]
    pub(crate) torn: Option<Torn>,
    #[serde(default)]
    pub(crate) missing: Option<u64>,
    #[serde(default)]
    pub(crate) head: Option<String>,
    #[serde(default)]
    pub(crate) count: Option<u64>,
}

impl Read {
    /// Reads a line; `None` where it is none.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        if line.len() > MAX_LINE_BYTES {
            return None;
        }
        split_mac(line)?;
        let read: Self = serde_json::from_slice(line).ok()?;
        from_hex::<32>(&read.prev)?;
        from_hex::<MAC_BYTES>(&read.mac)?;
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::time::UNIX_EPOCH;

    pub(crate) fn key() -> ChainKey {
        ChainKey::from_bytes([7; 32])
    }

    #[test]
    fn the_form_of_a_line_is_fixed() {
        let mut chain = Chain::new(key(), Tip::GENESIS);
        chain.introduce(9, "agent-1".into());
        let entry = Entry {
            time: UNIX_EPOCH + Duration::from_millis(1_776_763_800_250),
            decision: Some(Decision::Allow),
            request: Some(RequestTag { connection: 12, request: 3 }),
            client: Some("my-agent/1.0".into()),
            session: Some(9),
            tool: Some("search".into()),
            jti: Some(*b"AAAAAAAAAAAAAAAAAAAAAA"),
            expires_at: Some(1_776_763_860),
            ..Entry::new(Event::HandOut)
        };
        let mut out = Vec::new();
        chain.append(&entry, &Opening::default(), &mut out);
        let text = core::str::from_utf8(&out).unwrap();
        let expected = concat!(
            r#"{"n":0,"time":"2026-04-21T09:30:00.250Z","event":"hand_out","decision":"allow","request":"12.3","#,
            r#""client":"my-agent/1.0","agent":"agent-1","session":"0000000000000009","tool":"search","#,
            r#""jti_sha256":"8a5bdb4cc15164126c6ef2668de9dd24","expires_at":1776763860,"#,
            r#""prev":"0000000000000000000000000000000000000000000000000000000000000000","mac":""#,
        );
        assert!(text.starts_with(expected), "{text}");
        let line = text.trim_end().as_bytes();
        assert!(key().vouches_for(line) && Read::parse(line).is_some());
        assert_eq!(chain.tip, Tip { next: 1, prev: hash(line) });
        assert!(!ChainKey::from_bytes([8; 32]).vouches_for(line));
    }

    #[test]
    fn one_changed_byte_breaks_the_seal() {
        let mut chain = Chain::new(key(), Tip::GENESIS);
        let mut out = Vec::new();
        chain.append(&Entry::new(Event::Start), &Opening::default(), &mut out);
        out.pop();
        assert!(key().vouches_for(&out));
        for place in 0..out.len() {
            let mut changed = out.clone();
            changed[place] ^= 1;
            assert!(!key().vouches_for(&changed), "byte {place}");
            assert!(!key().vouches_for(&out[..place]), "cut at {place}");
        }
    }

    #[test]
    fn hex_is_read_as_it_is_written_and_not_otherwise() {
        assert_eq!(from_hex::<3>(&to_hex(&[0, 0x9a, 0xff])), Some([0, 0x9a, 0xff]));
        for wrong in ["", "00", "000", "00000", "0g0000", "0A0000", "00000000"] {
            assert_eq!(from_hex::<3>(wrong), None, "{wrong}");
        }
    }
}
