//! What the service says. An item is an object of JSON; behind that of a session there is a line feed, and the half of it
//! that the resource server verifies by, as a session file has it.

use core::fmt;

use obol_secret::json::{Bounds, parse_within};
use obol_secret::text::{hex_array, hex_option};
use obol_session::{ResourceHalf, SessionId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::word::StreamId;

/// The longest item, in bytes: a session with all its grants, and what is before it.
pub const MAX_ITEM_BYTES: usize = 1_100_000;
/// The most values in an item, the session behind it aside, and how deep they may lie.
const BOUNDS: Bounds = Bounds { values: 256, depth: 4 };
/// Between an item's object and the session behind it.
const SEPARATOR: u8 = b'\n';

/// How a stream begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// With everything there is: what is not listed is over.
    Snapshot,
    /// With what happened since the follower's cursor.
    Resume,
}

/// Whether an agent may open sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It may.
    Active,
    /// It may not until somebody enables it.
    Suspended,
}

/// What comes first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The stream's name, for words.
    pub stream: StreamId,
    /// Which life of the service's directory the numbers belong to.
    #[serde(with = "hex_array")]
    pub incarnation: [u8; 16],
    /// The newest event's number.
    pub head: u64,
    /// For how long a follower goes on without hearing anything, in seconds, if it does not decide that itself.
    pub lease_secs: u64,
    /// How often there is a heartbeat, in seconds.
    pub heartbeat_secs: u64,
    /// How the stream begins.
    pub mode: Mode,
    /// Who follows, as the service knows it: a copy of a resource server, or an agent.
    pub follower: String,
    /// The resource server that the follower is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Whether the agent that follows may open sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
}

/// A transaction that a human said yes to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Transaction(#[serde(with = "hex_array")] pub [u8; 16]);

/// One use of a call that a human said yes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovedUse {
    /// The transaction.
    #[serde(with = "hex_array")]
    pub txn_id: [u8; 16],
    /// What was approved (TBAC r41, section 3.2).
    #[serde(with = "hex_array")]
    pub digest: [u8; 32],
    /// SHA-256 of the canonical arguments, where the human saw them: a call with others is refused.
    #[serde(default, with = "hex_option", skip_serializing_if = "Option::is_none")]
    pub arguments: Option<[u8; 32]>,
}

/// What happened.
#[derive(Debug)]
pub enum What {
    /// A session was opened. Its half is there for resource servers, and absent where it has ended meanwhile.
    SessionOpen {
        /// The session.
        session: SessionId,
        /// What its tokens are verified by.
        half: Option<Box<ResourceHalf>>,
    },
    /// A session was ended before its time.
    SessionEnd {
        /// The session.
        session: SessionId,
        /// Why.
        reason: String,
    },
    /// The agent may open no session any more.
    AgentEnd {
        /// Whether for good.
        revoked: bool,
        /// Why.
        reason: String,
    },
    /// The agent may open sessions again.
    AgentEnabled,
    /// A human said yes to calls at this resource server.
    Approval {
        /// Each use of each of them.
        uses: Vec<ApprovedUse>,
        /// When the human said so, in Unix seconds.
        confirmed_at: u64,
        /// Until when they may be made, in Unix seconds.
        expires_at: u64,
    },
    /// They may not be made any more.
    ApprovalEnd {
        /// Which.
        transactions: Vec<Transaction>,
    },
    /// Something became of a request of the agent for a human's yes.
    CallsDecided {
        /// The request.
        approval: String,
    },
}

/// One thing that the service says.
#[derive(Debug)]
pub enum Item {
    /// The first.
    Hello(Box<Hello>),
    /// The first and only one, where the service does not let the follower follow.
    Refused {
        /// The stable code.
        code: String,
        /// What it means, and what to do.
        detail: String,
    },
    /// A session of the list of everything; with its half for resource servers.
    Live {
        /// The session.
        session: SessionId,
        /// What its tokens are verified by.
        half: Option<Box<ResourceHalf>>,
    },
    /// The end of that list, which holds for this number.
    Listed {
        /// The number.
        seq: u64,
    },
    /// Something that happened.
    Happened {
        /// Its number.
        seq: u64,
        /// The number that the follower had come to before.
        prev: u64,
        /// What.
        what: What,
    },
    /// Everything up to this number was said.
    Heartbeat {
        /// The number.
        head: u64,
        /// The service's time, in Unix seconds.
        now: u64,
    },
}

/// The object of an item.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Head {
    Hello { hello: Hello },
    Error { code: String, detail: String },
    Live { session: SessionId },
    Listed { seq: u64 },
    SessionOpen { seq: u64, prev: u64, session: SessionId },
    SessionEnd { seq: u64, prev: u64, session: SessionId, reason: String },
    AgentEnd { seq: u64, prev: u64, revoked: bool, reason: String },
    AgentEnabled { seq: u64, prev: u64 },
    Approval { seq: u64, prev: u64, uses: Vec<ApprovedUse>, confirmed_at: u64, expires_at: u64 },
    ApprovalEnd { seq: u64, prev: u64, transactions: Vec<Transaction> },
    CallsDecided { seq: u64, prev: u64, approval: String },
    Heartbeat { head: u64, now: u64 },
}

/// The bytes are not an item. No part of them is repeated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ItemError(String);

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service says what this program does not understand: {}", self.0)
    }
}

impl core::error::Error for ItemError {}

impl Item {
    /// As it is sealed. Holds keys where there is a half.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let half = match self {
            Self::Live { half, .. } | Self::Happened { what: What::SessionOpen { half, .. }, .. } => {
                half.as_ref()
            }
            _ => None,
        };
        match half {
            Some(half) => self.head().with(&half.to_json()),
            None => self.head().with(&[]),
        }
    }

    /// An item of a session whose half is at hand as a session file has it.
    pub fn live_with(session: SessionId, half: &[u8]) -> Zeroizing<Vec<u8>> {
        Head::Live { session }.with(half)
    }

    fn head(&self) -> Head {
        match self {
            Self::Hello(hello) => Head::Hello { hello: (**hello).clone() },
            Self::Refused { code, detail } => Head::Error { code: code.clone(), detail: detail.clone() },
            Self::Live { session, .. } => Head::Live { session: *session },
            Self::Listed { seq } => Head::Listed { seq: *seq },
            Self::Heartbeat { head, now } => Head::Heartbeat { head: *head, now: *now },
            Self::Happened { seq, prev, what } => {
                let (seq, prev) = (*seq, *prev);
                match what {
                    What::SessionOpen { session, .. } => Head::SessionOpen { seq, prev, session: *session },
                    What::SessionEnd { session, reason } => {
                        Head::SessionEnd { seq, prev, session: *session, reason: reason.clone() }
                    }
                    What::AgentEnd { revoked, reason } => {
                        Head::AgentEnd { seq, prev, revoked: *revoked, reason: reason.clone() }
                    }
                    What::AgentEnabled => Head::AgentEnabled { seq, prev },
                    What::Approval { uses, confirmed_at, expires_at } => Head::Approval {
                        seq,
                        prev,
                        uses: uses.clone(),
                        confirmed_at: *confirmed_at,
                        expires_at: *expires_at,
                    },
                    What::ApprovalEnd { transactions } => {
                        Head::ApprovalEnd { seq, prev, transactions: transactions.clone() }
                    }
                    What::CallsDecided { approval } => {
                        Head::CallsDecided { seq, prev, approval: approval.clone() }
                    }
                }
            }
        }
    }

    /// Reads one that was opened.
    ///
    /// # Errors
    ///
    /// [`ItemError`] says what is wrong, and repeats nothing of it.
    pub fn read(bytes: &[u8]) -> Result<Self, ItemError> {
        if bytes.len() > MAX_ITEM_BYTES {
            return Err(ItemError("it is too long".to_owned()));
        }
        let place = bytes.iter().position(|byte| *byte == SEPARATOR);
        let (head, half) = match place.and_then(|place| bytes.split_at_checked(place)) {
            Some((head, rest)) => (head, rest.get(1..)),
            None => (bytes, None),
        };
        let head: Head = parse_within(head, BOUNDS).map_err(|error| ItemError(error.to_string()))?;
        let half = half.map(ResourceHalf::from_json).transpose();
        let half = half.map_err(|error| ItemError(error.to_string()))?.map(Box::new);
        match &half {
            Some(half) if head.session() != Some(half.session_id) => {
                Err(ItemError("a half of another session".to_owned()))
            }
            _ => Ok(head.into_item(half)),
        }
    }
}

impl Head {
    fn with(&self, half: &[u8]) -> Zeroizing<Vec<u8>> {
        // Texts and numbers alone, which can always be written.
        let head = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = Zeroizing::new(Vec::with_capacity(head.len() + 1 + half.len()));
        bytes.extend_from_slice(&head);
        if !half.is_empty() {
            bytes.push(SEPARATOR);
            bytes.extend_from_slice(half);
        }
        bytes
    }

    /// The session that a half behind it must be of.
    fn session(&self) -> Option<SessionId> {
        match self {
            Self::Live { session } | Self::SessionOpen { session, .. } => Some(*session),
            _ => None,
        }
    }

    fn into_item(self, half: Option<Box<ResourceHalf>>) -> Item {
        let happened = |seq, prev, what| Item::Happened { seq, prev, what };
        match self {
            Self::Hello { hello } => Item::Hello(Box::new(hello)),
            Self::Error { code, detail } => Item::Refused { code, detail },
            Self::Live { session } => Item::Live { session, half },
            Self::Listed { seq } => Item::Listed { seq },
            Self::Heartbeat { head, now } => Item::Heartbeat { head, now },
            Self::SessionOpen { seq, prev, session } => {
                happened(seq, prev, What::SessionOpen { session, half })
            }
            Self::SessionEnd { seq, prev, session, reason } => {
                happened(seq, prev, What::SessionEnd { session, reason })
            }
            Self::AgentEnd { seq, prev, revoked, reason } => {
                happened(seq, prev, What::AgentEnd { revoked, reason })
            }
            Self::AgentEnabled { seq, prev } => happened(seq, prev, What::AgentEnabled),
            Self::Approval { seq, prev, uses, confirmed_at, expires_at } => {
                happened(seq, prev, What::Approval { uses, confirmed_at, expires_at })
            }
            Self::ApprovalEnd { seq, prev, transactions } => {
                happened(seq, prev, What::ApprovalEnd { transactions })
            }
            Self::CallsDecided { seq, prev, approval } => {
                happened(seq, prev, What::CallsDecided { approval })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "5ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7";

    fn half(id: u64) -> ResourceHalf {
        let text = format!(
            r#"{{"obol_rs_sessions":1,"sessions":[{{"session_id":"{id:016x}","suite":1,"aud":"https://rs","K_session":"{SECRET}",
            "verifier_secret":"{SECRET}","mutual_auth":"{SECRET}","SEK_PK":"{SECRET}","org_id":"org",
            "window":{{"start":1,"end":2}}}}]}}"#
        );
        ResourceHalf::from_json(text.as_bytes()).unwrap()
    }

    /// As many as one approval has at the most.
    fn uses(count: u8) -> Vec<ApprovedUse> {
        let one = |number| ApprovedUse {
            txn_id: [number; 16],
            digest: [number; 32],
            arguments: (number % 2 == 0).then_some([number; 32]),
        };
        (0..count).map(one).collect()
    }

    fn items() -> Vec<Item> {
        let session = SessionId::from_u64(7);
        let happened = |what| Item::Happened { seq: 9, prev: 4, what };
        vec![
            Item::Hello(Box::new(Hello {
                stream: StreamId([1; 16]),
                incarnation: [2; 16],
                head: 9,
                lease_secs: 300,
                heartbeat_secs: 5,
                mode: Mode::Snapshot,
                follower: "rsr_x".to_owned(),
                audience: Some("https://rs".to_owned()),
                standing: None,
            })),
            Item::Refused { code: "REVOKED".to_owned(), detail: "gone".to_owned() },
            Item::Live { session, half: Some(Box::new(half(7))) },
            Item::Live { session, half: None },
            Item::Listed { seq: 9 },
            Item::Heartbeat { head: 9, now: 100 },
            happened(What::SessionOpen { session, half: Some(Box::new(half(7))) }),
            happened(What::SessionOpen { session, half: None }),
            happened(What::SessionEnd { session, reason: "disabled".to_owned() }),
            happened(What::AgentEnd { revoked: false, reason: "a\nb".to_owned() }),
            happened(What::AgentEnabled),
            happened(What::Approval { uses: uses(32), confirmed_at: 5, expires_at: 305 }),
            happened(What::ApprovalEnd { transactions: vec![Transaction([7; 16])] }),
            happened(What::CallsDecided { approval: "apr_x".to_owned() }),
        ]
    }

    #[test]
    fn items_are_read_as_they_are_written() {
        for item in items() {
            let bytes = item.to_bytes();
            let again = Item::read(&bytes).unwrap();
            assert_eq!(format!("{again:?}"), format!("{item:?}"));
            assert_eq!(*again.to_bytes(), *bytes);
        }
        let half = half(7);
        let live = Item::Live { session: half.session_id, half: Some(Box::new(self::half(7))) };
        assert_eq!(*Item::live_with(half.session_id, &half.to_json()), *live.to_bytes());
    }

    #[test]
    fn what_is_not_an_item_is_refused_and_no_error_repeats_a_key() {
        let whole = Item::Live { session: SessionId::from_u64(7), half: Some(Box::new(half(7))) }.to_bytes();
        let other =
            [br#"{"kind":"live","session":"0000000000000008"}"#, &b"\n"[..], &half(7).to_json()].concat();
        let beside = [br#"{"kind":"listed","seq":1}"#, &b"\n"[..], &half(7).to_json()].concat();
        let cut = &whole[..whole.len() - 3];
        for bad in [
            &b""[..],
            b"{}",
            br#"{"kind":"listed"}"#,
            br#"{"kind":"listed","seq":1,"more":1}"#,
            br#"{"kind":"listed","seq":1,"seq":2}"#,
            br#"{"kind":"unheard_of","seq":1}"#,
            b"{\"kind\":\"listed\",\"seq\":1}\n",
            cut,
            &other,
            &beside,
        ] {
            let error = Item::read(bad).unwrap_err().to_string();
            assert!(!error.contains("5ec7e7"), "{error}");
        }
        assert!(Item::read(&vec![b' '; MAX_ITEM_BYTES + 1]).is_err());
    }
}
