//! Scopes: compared byte for byte, never by prefix and never without regard to case.

use core::fmt;
use std::collections::BTreeSet;

use serde::{Serialize, Serializer};

/// The longest scope, in bytes.
const MAX_SCOPE_BYTES: usize = 64;
/// The most scopes in one request or token.
pub const MAX_SCOPES: usize = 32;

/// One scope: 1 to 64 characters of `A-Z a-z 0-9 . _ : / * -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AtpScope(Box<str>);

/// The text is not a scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAScope;

impl fmt::Display for NotAScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scope has 1 to 64 characters of A-Z a-z 0-9 . _ : / * -")
    }
}

impl core::error::Error for NotAScope {}

/// Whether a text has the form of a scope.
pub(crate) fn is_scope(text: &str) -> bool {
    (1..=MAX_SCOPE_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:/*-".contains(&byte))
}

impl AtpScope {
    /// Reads a scope.
    ///
    /// # Errors
    /// [`NotAScope`] if it is empty, too long, or has a character that scopes do not have.
    pub fn new(text: &str) -> Result<Self, NotAScope> {
        if is_scope(text) { Ok(Self(text.into())) } else { Err(NotAScope) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::str::FromStr for AtpScope {
    type Err = NotAScope;

    fn from_str(text: &str) -> Result<Self, NotAScope> {
        Self::new(text)
    }
}

impl core::borrow::Borrow<str> for AtpScope {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AtpScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Distinct scopes, sorted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScopeSet(BTreeSet<AtpScope>);

impl ScopeSet {
    /// Whether a scope is one of them, byte for byte.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.contains(scope)
    }

    /// Whether all of these are in `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// Sorted by bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(AtpScope::as_str)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Separated by spaces, as in the claim `scope`.
    pub fn joined(&self) -> String {
        self.iter().collect::<Vec<_>>().join(" ")
    }

    /// Whether a list can be [read](Self::from_texts).
    pub(crate) fn can_be<'a>(texts: impl ExactSizeIterator<Item = &'a str> + Clone) -> bool {
        // So few that to compare each with those before it takes less than to sort them.
        let earlier = texts.clone();
        let is_new = |(place, text)| !earlier.clone().take(place).any(|earlier| earlier == text);
        texts.len() <= MAX_SCOPES && texts.clone().all(is_scope) && texts.enumerate().all(is_new)
    }

    /// Reads a list; `None` if an entry is not a scope, appears twice, or there are more than [`MAX_SCOPES`].
    pub fn from_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut set = BTreeSet::new();
        for text in texts {
            if set.len() == MAX_SCOPES || !set.insert(AtpScope::new(text).ok()?) {
                return None;
            }
        }
        Some(Self(set))
    }
}

impl FromIterator<AtpScope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = AtpScope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl Serialize for ScopeSet {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_compared_byte_for_byte() {
        let set = ScopeSet::from_texts(["read", "emails:send"]).unwrap();
        assert!(set.contains("read"));
        for other in ["READ", "rea", "read ", "emails:*", ""] {
            assert!(!set.contains(other), "{other:?}");
        }
        assert_eq!(set.joined(), "emails:send read");
    }

    #[test]
    fn lists_are_bounded_and_distinct() {
        assert_eq!(ScopeSet::from_texts(["a", "a"]), None);
        assert_eq!(ScopeSet::from_texts(["a b"]), None);
        let many: Vec<String> = (0..33).map(|n| n.to_string()).collect();
        assert!(ScopeSet::from_texts(many.iter().take(32).map(String::as_str)).is_some());
        assert!(ScopeSet::from_texts(many.iter().map(String::as_str)).is_none());
        assert!(ScopeSet::can_be(many.iter().take(32).map(String::as_str)));
        assert!(!ScopeSet::can_be(many.iter().map(String::as_str)));
        assert!(AtpScope::new(&"x".repeat(64)).is_ok() && AtpScope::new(&"x".repeat(65)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_can_be_a_set_is_what_is_read_as_one(texts in proptest::collection::vec("[ab_:é]{0,3}|x{63,66}", 0..40)) {
            let texts: Vec<_> = texts.iter().map(String::as_str).collect();
            for some in [texts.get(..3).unwrap_or(&texts), &texts] {
                proptest::prop_assert_eq!(
                    ScopeSet::can_be(some.iter().copied()),
                    ScopeSet::from_texts(some.iter().copied()).is_some()
                );
            }
        }
    }
}
