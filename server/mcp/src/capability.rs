//! Capability negotiation (TBAC r41, section 2). It tells each side what to expect; it opens no door. A client that
//! does not speak the extension can use whatever needs no token.

use obol_secret::json;
use obol_verify::{DEFAULT_MAX_DELEGATION_DEPTH, Verifier};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{EXTENSION, TOKEN_FORMAT, VERSION};

/// The revision before this one, with the same wire format.
const VERSION_R40: &str = "2026-04-20-r40";
/// Where an SDK knows the mechanism for extensions.
const EXTENSIONS: &str = "extensions";
/// Where it does not yet (section 2.2, transitional note).
const EXPERIMENTAL: &str = "experimental";

/// Who holds the keys on the client's side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum DeploymentProfile {
    /// An assembler beside the agent attaches tokens; the agent has no cryptography at all.
    #[default]
    E,
    /// The agent attaches tokens itself.
    S,
}

/// What a server does with the user's intent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentMode {
    /// It is written down.
    #[default]
    LogOnly,
    /// It is compared by keywords.
    KeywordMatch,
    /// It is compared by a classifier.
    Classifier,
}

/// What a server says of itself. Absent fields have the defaults of section 2.1; unknown ones are ignored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerCapability {
    /// The revision, compared byte for byte.
    pub version: String,
    /// Formats of tokens that it reads.
    pub token_formats: Vec<String>,
    /// The longest chain of delegation.
    #[serde(default)]
    pub max_delegation_depth: u32,
    /// Whether a refusal says what token would have been needed.
    #[serde(default)]
    pub supports_step_up: bool,
    /// Whether it answers `tbac/templates`.
    #[serde(default)]
    pub supports_policy_template_discovery: bool,
    /// Whether it accepts tokens of the consumer profile.
    #[serde(default)]
    pub supports_consumer_profile: bool,
    /// Whether it accepts ephemeral tokens.
    #[serde(default)]
    pub supports_ephemeral_profile: bool,
    /// Whether it compares actions with the user's intent.
    #[serde(default)]
    pub supports_intent_verification: bool,
    /// How.
    #[serde(default)]
    pub intent_verification_mode: IntentMode,
    /// Whether it keeps budgets by transaction.
    #[serde(default)]
    pub supports_transactions: bool,
    /// Who holds the client's keys.
    #[serde(default)]
    pub deployment_profile: DeploymentProfile,
    /// The most assemblers of one agent.
    #[serde(default = "default_assemblers")]
    pub max_assemblers_per_agent: u32,
}

fn default_assemblers() -> u32 {
    8
}

/// A depth as it is advertised: what does not fit the field is told as the most that does.
fn shown_depth(depth: u64) -> u32 {
    u32::try_from(depth).unwrap_or(u32::MAX)
}

impl ServerCapability {
    /// What a server guarded by this verifier can do.
    pub fn of(verifier: &Verifier) -> Self {
        Self { max_delegation_depth: shown_depth(verifier.limits().max_delegation_depth), ..Self::default() }
    }
}

impl Default for ServerCapability {
    /// What a server guarded by this crate can do, with the verifier's usual limits.
    fn default() -> Self {
        Self {
            version: VERSION.to_owned(),
            token_formats: vec![TOKEN_FORMAT.to_owned()],
            max_delegation_depth: shown_depth(DEFAULT_MAX_DELEGATION_DEPTH),
            supports_step_up: true,
            supports_policy_template_discovery: false,
            supports_consumer_profile: false,
            supports_ephemeral_profile: false,
            supports_intent_verification: false,
            intent_verification_mode: IntentMode::LogOnly,
            supports_transactions: false,
            // Whoever presents a token attaches it; there is no assembler to go with this server.
            deployment_profile: DeploymentProfile::S,
            max_assemblers_per_agent: default_assemblers(),
        }
    }
}

/// What a client says of itself. Absent fields have the defaults of section 2.2; unknown ones are ignored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientCapability {
    /// The revision, compared byte for byte.
    pub version: String,
    /// Formats of tokens that it can attach.
    pub token_formats: Vec<String>,
    /// Whether a token queue runs beside it.
    #[serde(default)]
    pub has_tqs: bool,
    /// Whether an assembler runs beside it.
    #[serde(default)]
    pub has_assembler: bool,
    /// Who holds its keys.
    #[serde(default)]
    pub deployment_profile: DeploymentProfile,
}

impl Default for ClientCapability {
    /// A client that draws tokens from a sidecar and attaches them itself.
    fn default() -> Self {
        Self {
            version: VERSION.to_owned(),
            token_formats: vec![TOKEN_FORMAT.to_owned()],
            has_tqs: true,
            has_assembler: false,
            deployment_profile: DeploymentProfile::S,
        }
    }
}

/// What [`ServerCapability`] and [`ClientCapability`] have in common.
pub trait Capability: Serialize + DeserializeOwned {
    /// The revision.
    fn version(&self) -> &str;
    /// Formats of tokens.
    fn token_formats(&self) -> &[String];

    /// The object under the extension's name.
    fn to_object(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(object)) => object,
            _ => Map::new(),
        }
    }

    /// Puts this into a `capabilities` object.
    fn advertise(&self, capabilities: &mut Map<String, Value>, place: Position) {
        let key = place.key();
        let extensions = capabilities.entry(key).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(extensions) = extensions {
            extensions.insert(EXTENSION.to_owned(), Value::Object(self.to_object()));
        }
    }
}

impl Capability for ServerCapability {
    fn version(&self) -> &str {
        &self.version
    }
    fn token_formats(&self) -> &[String] {
        &self.token_formats
    }
}

impl Capability for ClientCapability {
    fn version(&self) -> &str {
        &self.version
    }
    fn token_formats(&self) -> &[String] {
        &self.token_formats
    }
}

/// Where in `capabilities` something stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// `capabilities.extensions`
    Extensions,
    /// `capabilities.experimental`, where an SDK does not know extensions yet.
    Experimental,
}

impl Position {
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Extensions => EXTENSIONS,
            Self::Experimental => EXPERIMENTAL,
        }
    }
}

/// What follows from the other side's capabilities.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Negotiated<T> {
    /// Both speak the extension.
    Enabled {
        /// What the other side says.
        peer: T,
        /// Where it said so.
        place: Position,
    },
    /// The connection goes on without it.
    Disabled(WhyDisabled),
}

/// Why a connection goes on without the extension.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WhyDisabled {
    /// The other side does not mention it.
    Absent,
    /// It says something that cannot be read.
    Unreadable,
    /// Another revision, which must not be guessed at (section 2.1).
    Version(String),
    /// No token format that both know.
    Format,
}

/// Reads the other side's `capabilities`. What stands under `extensions` counts, also where `experimental` says
/// something else.
pub fn negotiate<T: Capability>(capabilities: &Map<String, Value>) -> Negotiated<T> {
    let found = [Position::Extensions, Position::Experimental]
        .into_iter()
        .find_map(|place| Some((place, capabilities.get(place.key())?.get(EXTENSION)?)));
    let Some((place, value)) = found else { return Negotiated::Disabled(WhyDisabled::Absent) };
    let Some(peer) = json::read_part::<T>(value) else {
        return Negotiated::Disabled(WhyDisabled::Unreadable);
    };
    if ![VERSION, VERSION_R40].contains(&peer.version()) {
        return Negotiated::Disabled(WhyDisabled::Version(peer.version().to_owned()));
    }
    if !peer.token_formats().iter().any(|format| format == TOKEN_FORMAT) {
        return Negotiated::Disabled(WhyDisabled::Format);
    }
    Negotiated::Enabled { peer, place }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn server(capabilities: &Value) -> Negotiated<ServerCapability> {
        negotiate(capabilities.as_object().unwrap())
    }

    /// The example of section 2.1.
    fn published() -> Value {
        json!({
            "version": "2026-04-21-r41", "tokenFormats": ["opaque"], "maxDelegationDepth": 3, "supportsStepUp": true,
            "supportsPolicyTemplateDiscovery": true, "supportsConsumerProfile": false,
            "supportsEphemeralProfile": false, "supportsIntentVerification": false,
            "intentVerificationMode": "log_only", "supportsTransactions": false, "deploymentProfile": "E",
            "maxAssemblersPerAgent": 8
        })
    }

    #[test]
    fn the_published_examples_are_read_and_written() {
        let capabilities = json!({"extensions": {EXTENSION: published()}});
        let Negotiated::Enabled { peer, place: Position::Extensions } = server(&capabilities) else {
            panic!("not enabled");
        };
        assert_eq!(Value::Object(peer.to_object()), published());
        let expected = ServerCapability {
            supports_policy_template_discovery: true,
            deployment_profile: DeploymentProfile::E,
            ..Default::default()
        };
        assert_eq!(peer, expected);

        let client = json!({"version": "2026-04-21-r41", "tokenFormats": ["opaque"], "hasTqs": true,
                            "hasAssembler": true, "deploymentProfile": "E"});
        let peer: ClientCapability = serde_json::from_value(client.clone()).unwrap();
        assert_eq!(Value::Object(peer.to_object()), client);
    }

    #[test]
    fn absent_fields_have_the_published_defaults() {
        let least = json!({"version": VERSION, "tokenFormats": ["opaque"], "unknown": 1});
        let peer: ServerCapability = serde_json::from_value(least.clone()).unwrap();
        assert_eq!((peer.max_delegation_depth, peer.max_assemblers_per_agent), (0, 8));
        assert!(!peer.supports_step_up);
        let peer: ClientCapability = serde_json::from_value(least).unwrap();
        assert_eq!((peer.has_tqs, peer.has_assembler), (false, false));
        assert_eq!(peer.deployment_profile, DeploymentProfile::E);
    }

    #[test]
    fn experimental_is_the_place_to_look_next() {
        let mut capabilities = Map::new();
        ServerCapability::default().advertise(&mut capabilities, Position::Experimental);
        let expected =
            Negotiated::Enabled { peer: ServerCapability::default(), place: Position::Experimental };
        assert_eq!(negotiate::<ServerCapability>(&capabilities), expected);
        let other = ServerCapability { max_delegation_depth: 9, ..Default::default() };
        other.advertise(&mut capabilities, Position::Extensions);
        let expected = Negotiated::Enabled { peer: other, place: Position::Extensions };
        assert_eq!(negotiate::<ServerCapability>(&capabilities), expected);
    }

    #[test]
    fn versions_are_compared_byte_for_byte() {
        let with = |version: &str| {
            server(&json!({"extensions": {EXTENSION: {"version": version, "tokenFormats": ["opaque"]}}}))
        };
        for known in ["2026-04-21-r41", "2026-04-20-r40"] {
            assert!(matches!(with(known), Negotiated::Enabled { .. }), "{known}");
        }
        for unknown in ["2026-04-21-r42", "2026-04-21-R41", "2026-04-21-r41 ", "2026-04-19-r39", ""] {
            assert_eq!(with(unknown), Negotiated::Disabled(WhyDisabled::Version(unknown.to_owned())));
        }
    }

    #[test]
    fn what_does_not_fit_leaves_the_connection_without_the_extension() {
        let disabled = |capabilities: Value| match server(&capabilities) {
            Negotiated::Disabled(why) => why,
            Negotiated::Enabled { .. } => panic!("enabled by {capabilities}"),
        };
        assert_eq!(disabled(json!({})), WhyDisabled::Absent);
        assert_eq!(disabled(json!({"extensions": {"other": {}}})), WhyDisabled::Absent);
        assert_eq!(disabled(json!({"extensions": {EXTENSION: true}})), WhyDisabled::Unreadable);
        assert_eq!(
            disabled(json!({"extensions": {EXTENSION: {"version": VERSION}}})),
            WhyDisabled::Unreadable
        );
        let jose = json!({"version": VERSION, "tokenFormats": ["jose"]});
        assert_eq!(disabled(json!({"experimental": {EXTENSION: jose}})), WhyDisabled::Format);
    }
}
