//! Reads single members of a body; one of the wrong type is named.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::text::{Text, present};

/// How the message about a member of the wrong type begins; its name in `` ` `` follows.
pub(super) const WRONG_TYPE: &str = "wrong type of ";

/// What a member may be.
pub(super) trait Member<'de>: Sized {
    fn read<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error>;
}

impl<'de: 'a, 'a> Member<'de> for Text<'a> {
    fn read<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::deserialize(from)
    }
}

impl<'de: 'a, 'a> Member<'de> for Vec<Text<'a>> {
    fn read<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::deserialize(from)
    }
}

impl<'de> Member<'de> for u64 {
    fn read<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::deserialize(from)
    }
}

impl<'de: 'a, 'a> Member<'de> for Option<Text<'a>> {
    fn read<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        present(from)
    }
}

/// `serde`'s message repeats what it found, and does not say where.
fn named<E: Error>(member: &str, error: E) -> E {
    let message = error.to_string();
    let is_type = message.starts_with("invalid type") || message.starts_with("invalid value");
    if is_type { E::custom(format_args!("{WRONG_TYPE}`{member}`")) } else { error }
}

macro_rules! members {
    ($($member:ident)*) => {
        /// All names.
        pub(super) const MEMBERS: &[&str] = &[$(stringify!($member)),*];

        $(pub(super) fn $member<'de, D, T>(from: D) -> Result<T, D::Error>
        where
            D: Deserializer<'de>,
            T: Member<'de>,
        {
            T::read(from).map_err(|error| named(stringify!($member), error))
        })*
    };
}

members!(action agent_id aud nonce purpose scopes timestamp token signature);
