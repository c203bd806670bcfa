//! What the directory knows: agents, registrations, sessions, resource servers, policy versions.

use core::fmt;
use std::collections::BTreeSet;

use obol_handshake::{IdentityPublic, SekPublic};
use obol_secret::text::{hex_array, hex_option};
use obol_session::{SessionId, Suite};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::{AgentId, RegistrationId, ReplicaId};

/// Who knows the users of this machine. No identity provider is called so: theirs are URLs.
const LOCAL: &str = "local";

/// A human, or another who answers for agents: who vouches for them, and under which name.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Human {
    /// Who knows them: `local` for this machine's user list, else an identity provider's issuer.
    pub issuer: String,
    /// Their name there.
    pub subject: String,
}

impl Human {
    /// A user of this machine.
    pub fn local(user: impl Into<String>) -> Self {
        Self { issuer: LOCAL.to_owned(), subject: user.into() }
    }

    /// Whether it is a user of this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.issuer == LOCAL
    }
}

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.issuer, self.subject)
    }
}

/// Whether a human may answer for agents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PersonStatus {
    /// They may.
    Active,
    /// Whoever knows them said that they may not any more. A login after that says otherwise.
    Disabled,
}

/// A human as last known: what their identity provider said at a login, or later.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Person {
    /// Who it is, for ever.
    pub human: Human,
    /// What to call them. Nothing is decided by it.
    pub name: String,
    /// Their roles.
    pub roles: BTreeSet<String>,
    /// Whether the last login took a second factor.
    pub mfa: bool,
    /// When they last logged in, in Unix seconds; 0 if they never did.
    pub login_at: u64,
    /// Since when this is known, in Unix seconds.
    pub known_at: u64,
    /// When they last lost a role, in Unix seconds. The directory notes it.
    #[serde(default)]
    pub(crate) narrowed_at: u64,
    /// Whether they may answer for agents.
    pub status: PersonStatus,
    /// The organisation that they are of. It is kept nowhere: settings say whose humans are whose.
    #[serde(skip)]
    pub organisation: String,
}

impl Person {
    /// Somebody of whom nothing is known but who they are: they have no role. A user of this machine needs none.
    pub fn unknown(human: Human) -> Self {
        Self {
            name: human.subject.clone(),
            human,
            roles: BTreeSet::new(),
            mfa: false,
            login_at: 0,
            known_at: 0,
            narrowed_at: 0,
            status: PersonStatus::Active,
            organisation: String::new(),
        }
    }

    /// Those of these roles that somebody may have whom this person answers for. An agent never outranks its human. A user of
    /// this machine, who speaks on the operator's socket, may give away all that policy lets them.
    pub fn bounds(&self, roles: &[String]) -> Vec<String> {
        let has = |role: &&String| self.human.is_local() || self.roles.contains(*role);
        match self.status {
            PersonStatus::Active => roles.iter().filter(has).cloned().collect(),
            PersonStatus::Disabled => Vec::new(),
        }
    }
}

/// What an agent says of itself and asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Its name, by which humans call it.
    pub name: String,
    /// Its class, such as `coding`.
    pub class: String,
    /// Roles that it would like.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Tools that it would like to use, for whoever decides to read.
    #[serde(default)]
    pub tools: Vec<String>,
    /// The machine it runs on.
    #[serde(default)]
    pub host: String,
    /// The user it runs as.
    #[serde(default)]
    pub user: String,
    /// Its software and version.
    #[serde(default)]
    pub software: String,
}

/// Whether an agent may open sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentStatus {
    /// It may, until its approval ends.
    Active,
    /// It may not until somebody enables it.
    Suspended,
    /// It may never again.
    Revoked,
}

/// An agent that a human approved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Agent {
    /// Its id, the `agent_instance_id` of its tokens.
    pub id: AgentId,
    /// What it said of itself, as it was approved.
    pub wanted: Wanted,
    /// Who answers for it.
    pub owner: Human,
    /// Its identity key.
    #[serde(with = "identity")]
    pub identity: IdentityPublic,
    /// The public half of its SEK.
    #[serde(with = "sek")]
    pub sek: SekPublic,
    /// Approved roles.
    pub roles: Vec<String>,
    /// Whether it may open sessions.
    pub status: AgentStatus,
    /// How it was approved: `local`, `invite`.
    pub flow: String,
    /// When it was approved first, and last, in Unix seconds.
    pub registered_at: u64,
    /// When it was approved last, in Unix seconds.
    pub approved_at: u64,
    /// Who approved it last.
    pub approved_by: Human,
    /// When the approval ends, in Unix seconds.
    pub expires_at: u64,
    /// The number of a suite; it may use none that is weaker.
    #[serde(default)]
    pub min_suite: Option<u8>,
    /// Whether a copy of its key was seen.
    #[serde(default)]
    pub clone_suspected: bool,
    /// The digest of what its next session must present.
    #[serde(default, with = "hex_option")]
    pub(crate) chain: Option<[u8; 32]>,
    /// When it opened a session last, in Unix seconds.
    #[serde(default)]
    pub last_session_at: Option<u64>,
    /// Rises with every change of what sessions follow from.
    pub version: u64,
}

impl Agent {
    /// Whether its approval has ended.
    pub fn is_expired(&self, now: u64) -> bool {
        now >= self.expires_at
    }
}

/// Whose key this is, and until when.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct KeyOwner {
    pub(crate) agent: AgentId,
    /// A key that was replaced ends then, in Unix seconds.
    #[serde(default)]
    pub(crate) until: Option<u64>,
}

/// How the word of a human who decides in a browser comes back to the agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flow {
    /// It does not: a human of the service's machine decides.
    #[default]
    Local,
    /// The browser goes on to this port of the machine that it runs on: the agent's, or the agent never becomes active.
    Loopback(u16),
    /// The human types a code here, and another one there.
    Code,
}

impl Flow {
    /// What policies call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Loopback(_) => "loopback",
            Self::Code => "code",
        }
    }
}

/// What became of a registration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum RegistrationState {
    /// It waits for a human.
    Pending,
    /// A human said yes in a browser, and the agent has yet to show that it heard so.
    Confirming(Confirming),
    /// It was approved.
    Approved {
        /// The agent.
        agent: AgentId,
        /// When the approval ends, in Unix seconds.
        expires_at: u64,
    },
    /// It was denied.
    Denied,
}

/// A human's yes that has not come back to the agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Confirming {
    /// Whose yes.
    pub by: Human,
    /// With which roles.
    pub roles: Vec<String>,
    /// For how many seconds.
    pub secs: u64,
    /// Which agent it would be, should there be a new one.
    pub(crate) agent: AgentId,
    /// Hash of what the agent has to show.
    #[serde(with = "hex_array")]
    pub(crate) code_hash: [u8; 32],
    /// How often it may still be wrong.
    pub tries_left: u8,
}

/// A registration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Registration {
    /// Its id.
    pub id: RegistrationId,
    /// What the agent says of itself and asks for.
    pub wanted: Wanted,
    /// The key that it holds.
    #[serde(with = "identity")]
    pub identity: IdentityPublic,
    /// The public half of the SEK that it holds.
    #[serde(with = "sek")]
    pub sek: SekPublic,
    /// Where it came from: an address.
    pub source: String,
    /// When it came, in Unix seconds.
    pub created_at: u64,
    /// When it is forgotten if nobody decides, in Unix seconds.
    pub expires_at: u64,
    /// The agent that has this key already: an approval of it renews that agent's.
    pub renews: Option<AgentId>,
    /// How a human's word comes back.
    #[serde(default)]
    pub flow: Flow,
    /// What became of it.
    pub state: RegistrationState,
    #[serde(with = "hex_array")]
    pub(crate) poll_hash: [u8; 32],
    #[serde(with = "hex_array")]
    pub(crate) code_hash: [u8; 32],
}

/// A session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionRow {
    /// Its number.
    pub id: SessionId,
    /// Whose it is.
    pub agent: AgentId,
    /// The suite that was negotiated.
    pub suite: u8,
    /// When it was opened, in Unix seconds.
    pub established_at: u64,
    /// When it ends, in Unix seconds.
    pub expires_at: u64,
    /// The policy epoch that its grants follow from.
    pub policy_epoch: u64,
    /// The resource servers it is for.
    pub audiences: Vec<String>,
    /// The tools that it grants.
    pub tools: Vec<String>,
    /// When it is to be ended because another took its place, in Unix seconds.
    #[serde(default)]
    pub closes_at: Option<u64>,
    /// When and why it was ended, if it was.
    pub ended: Option<Ending>,
}

/// The end of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ending {
    /// When, in Unix seconds.
    pub at: u64,
    /// Why.
    pub reason: String,
}

/// Leave for agents to register without a human who looks at each.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Invitation {
    /// The class that its agents get.
    pub class: String,
    /// The roles that its agents get.
    pub roles: Vec<String>,
    /// How many agents may use it.
    pub max_agents: u32,
    /// How many have.
    pub used: u32,
    /// When it ends, in Unix seconds.
    pub expires_at: u64,
    /// How long each approval lasts, in seconds.
    pub approval_secs: u64,
    /// Who answers for its agents.
    pub by: Human,
}

/// A resource server, with all its replicas.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResourceServer {
    /// Its identifier, the audience of tokens for it.
    pub audience: String,
    /// The suites that it can read, by number.
    pub suites: Vec<u8>,
    /// When it was added, in Unix seconds.
    pub added_at: u64,
}

impl ResourceServer {
    /// Whether it can read this suite.
    pub(crate) fn reads(&self, suite: Suite) -> bool {
        self.suites.contains(&suite.number())
    }
}

/// One running copy of a resource server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replica {
    /// Its id.
    pub id: ReplicaId,
    /// Its resource server.
    pub audience: String,
    /// Its identity key.
    #[serde(with = "identity")]
    pub identity: IdentityPublic,
    /// When it joined, in Unix seconds.
    pub joined_at: u64,
    /// The last event that it says it has applied.
    pub cursor: u64,
    /// When it was heard of last, in Unix seconds.
    pub seen_at: u64,
    /// How many seconds it goes on without hearing anything, as it said when it began to follow; `None` before that.
    #[serde(default)]
    pub lease_secs: Option<u64>,
}

/// Leave for one replica to join.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct JoinCode {
    pub(crate) audience: String,
    pub(crate) expires_at: u64,
}

/// A tool that nobody is granted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeniedTool {
    /// The tool.
    pub tool: String,
    /// Why.
    pub reason: String,
    /// Who said so.
    pub by: Human,
    /// Since when, in Unix seconds.
    pub at: u64,
}

/// A version of the policy that came into force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// Its number; each activation has the next.
    pub version: u64,
    /// The epoch from its activation on.
    pub epoch: u64,
    /// SHA-256 of its text, in hex.
    pub digest: String,
    /// Who activated it.
    pub by: Human,
    /// When, in Unix seconds.
    pub at: u64,
}

/// A policy as it was given: what it says is another's business.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyText {
    /// SHA-256 of its text, in hex: what it is known by.
    pub digest: String,
    /// Its text.
    pub text: String,
}

/// A stream of security events that somebody holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventStream {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub receiver: String,
    /// What is told, by CAEP's short names.
    pub events: Vec<String>,
    /// Where it is pushed to; `None` where it is fetched.
    pub push: Option<String>,
    /// What the header `Authorization` says there.
    pub authorization: Option<String>,
    /// What its holder says of it.
    pub description: String,
    /// `enabled`, `paused` or `disabled`.
    pub status: String,
    /// Why, as its holder said.
    pub reason: Option<String>,
    /// The last event that was told.
    pub cursor: u64,
}

/// The first half of replacing an identity key: the old key has named the new one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct KeyRotation {
    #[serde(with = "hex_array")]
    pub(crate) next: [u8; 32],
    /// The transcript of the handshake in which the old key said so.
    #[serde(with = "hex_array")]
    pub(crate) first: [u8; 32],
    pub(crate) expires_at: u64,
}

/// What a key is found by.
pub(crate) fn key_digest(key: &IdentityPublic) -> [u8; 32] {
    Sha256::new().chain_update(b"obol-identity-v1").chain_update(key.0).finalize().into()
}

macro_rules! public_key {
    ($module:ident, $type:ident) => {
        mod $module {
            use obol_handshake::$type;
            use obol_secret::text::hex_array;
            use serde::{Deserializer, Serializer};

            pub(super) fn serialize<S: Serializer>(key: &$type, to: S) -> Result<S::Ok, S::Error> {
                hex_array::serialize(&key.0, to)
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                hex_array::deserialize(from).map($type)
            }
        }
    };
}
public_key!(identity, IdentityPublic);
public_key!(sek, SekPublic);
