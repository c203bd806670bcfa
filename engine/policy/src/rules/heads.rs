//! Which policies can bear on a question, told by their first lines alone: whom they are about, what may be done, and to what. Cedar evaluates
//! that line first and goes no further where it does not hold; so a policy whose line cannot hold neither decides nor fails.

use cedar_policy::{EntityTypeName, EntityUid, PrincipalConstraint, ResourceConstraint};

use crate::party::Party;

/// Whom, or what, the first line of a policy means.
#[derive(Debug)]
pub(crate) enum Meant {
    All,
    One(EntityUid),
    Within(EntityUid),
    Kind(EntityTypeName),
    KindWithin(EntityTypeName, EntityUid),
}

impl Meant {
    /// Whether it can mean this one. A slot of a template, which nothing fills in, means nobody; none is loaded.
    pub(crate) fn can_be(&self, party: &Party) -> bool {
        let is_in = |group: &EntityUid| *group == party.uid || party.groups.contains(group);
        let is = |name: &EntityTypeName| name == party.uid.type_name();
        match self {
            Self::All => true,
            Self::One(uid) => *uid == party.uid,
            Self::Within(group) => is_in(group),
            Self::Kind(name) => is(name),
            Self::KindWithin(name, group) => is(name) && is_in(group),
        }
    }
}

impl From<PrincipalConstraint> for Meant {
    fn from(constraint: PrincipalConstraint) -> Self {
        match constraint {
            PrincipalConstraint::Any => Self::All,
            PrincipalConstraint::Eq(uid) => Self::One(uid),
            PrincipalConstraint::In(group) => Self::Within(group),
            PrincipalConstraint::Is(name) => Self::Kind(name),
            PrincipalConstraint::IsIn(name, group) => Self::KindWithin(name, group),
        }
    }
}

impl From<ResourceConstraint> for Meant {
    fn from(constraint: ResourceConstraint) -> Self {
        match constraint {
            ResourceConstraint::Any => Self::All,
            ResourceConstraint::Eq(uid) => Self::One(uid),
            ResourceConstraint::In(group) => Self::Within(group),
            ResourceConstraint::Is(name) => Self::Kind(name),
            ResourceConstraint::IsIn(name, group) => Self::KindWithin(name, group),
        }
    }
}

/// Some policies of a version: a bit for each, in their order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Marked(Vec<u64>);

impl Marked {
    pub(crate) fn of(marks: impl Iterator<Item = bool>) -> Self {
        let mut words = Vec::new();
        for (place, mark) in marks.enumerate() {
            if place.is_multiple_of(64) {
                words.push(0);
            }
            if let Some(word) = words.last_mut() {
                *word |= u64::from(mark) << (place % 64);
            }
        }
        Self(words)
    }

    /// Those that are in both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one & other).collect())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Their places.
    pub(crate) fn places(&self) -> impl Iterator<Item = usize> {
        let words = self.0.iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(number, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| number * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn marks_are_a_set_of_places(pairs in proptest::collection::vec(any::<(bool, bool)>(), 0..200)) {
            let (one, other) = (Marked::of(pairs.iter().map(|pair| pair.0)), Marked::of(pairs.iter().map(|pair| pair.1)));
            let both: Vec<_> = pairs.iter().enumerate().filter(|(_, pair)| pair.0 && pair.1).map(|(place, _)| place).collect();
            prop_assert_eq!(one.and(&other).count(), both.len());
            prop_assert_eq!(one.and(&other).places().collect::<Vec<_>>(), both);
        }
    }
}
