//! The words that policies are written with: Cedar's schema, and the names of things as Cedar knows them.

use core::str::FromStr as _;
use std::sync::LazyLock;

use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema};
use obol_secret::text::is_plain;

/// The schema that policies are held to, as text.
pub const SCHEMA: &str = include_str!("../obol.cedarschema");

/// The namespace of all names.
const NAMESPACE: &str = "Obol";

static PARSED: LazyLock<Schema> = LazyLock::new(|| {
    let (schema, _warnings) =
        Schema::from_cedarschema_str(SCHEMA).expect("the schema that is built in is valid");
    schema
});

/// The schema, read.
pub(crate) fn schema() -> &'static Schema {
    &PARSED
}

/// What there is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Kind {
    Org,
    Role,
    AgentClass,
    ToolSet,
    Audience,
    Human,
    Agent,
    Tool,
    Action,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Org,
        Self::Role,
        Self::AgentClass,
        Self::ToolSet,
        Self::Audience,
        Self::Human,
        Self::Agent,
        Self::Tool,
        Self::Action,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Org => "Org",
            Self::Role => "Role",
            Self::AgentClass => "AgentClass",
            Self::ToolSet => "ToolSet",
            Self::Audience => "Audience",
            Self::Human => "Human",
            Self::Agent => "Agent",
            Self::Tool => "Tool",
            Self::Action => "Action",
        }
    }

    /// What a name of a type means, as in `Obol::Agent`.
    pub(crate) fn of(name: &EntityTypeName) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name.basename() && name.namespace() == NAMESPACE)
    }

    /// The name of one of these.
    pub(crate) fn uid(self, id: &str) -> EntityUid {
        static TYPES: LazyLock<Vec<EntityTypeName>> = LazyLock::new(|| {
            let name = |kind: Kind| format!("{NAMESPACE}::{}", kind.name());
            let kinds = Kind::ALL.into_iter().map(name);
            kinds.map(|name| EntityTypeName::from_str(&name).expect("these are names of types")).collect()
        });
        let place = Self::ALL.iter().position(|kind| *kind == self).unwrap_or_default();
        let name = TYPES.get(place).cloned().expect("each kind has its type");
        EntityUid::from_type_name_and_id(name, EntityId::new(id))
    }
}

/// What may be asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Action {
    Use,
    UseUnattended,
    Register,
    ApproveCall,
    Reach,
    Operate,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Use => "use",
            Self::UseUnattended => "useUnattended",
            Self::Register => "register",
            Self::ApproveCall => "approveCall",
            Self::Reach => "reach",
            Self::Operate => "operate",
        }
    }

    pub(crate) fn uid(self) -> EntityUid {
        Kind::Action.uid(self.name())
    }
}

/// Whether this can name something: 1 to so many bytes that may stand in a log.
pub(crate) fn is_id(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.chars().all(is_plain)
}
