//! What is asked for: whose identifier, which, and for how long it could be presented.

use obol_verify::Mark;
use serde::Deserialize;

/// What identifiers are hashed under. Tokens' marks are made of other bytes.
const LABEL: &[u8] = b"obol-identifier-v1";
/// The longest issuer, in bytes.
const MAX_ISSUER_BYTES: usize = 512;
/// The longest identifier, in bytes. What is longer is to be hashed by who asks.
const MAX_ID_BYTES: usize = 4_096;
/// The longest that an identifier may be remembered, in seconds from now.
pub(super) const MAX_LIFE_SECS: u64 = 86_400;

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    issuer: String,
    id: String,
    expires: u64,
    /// When it was issued, where that is known.
    #[serde(default)]
    issued: Option<u64>,
}

/// One whose form is right.
#[derive(Debug)]
pub(super) struct Identifier {
    name: Vec<u8>,
    expires: u64,
    /// At the earliest.
    issued: u64,
}

impl Asked {
    /// Looks at the form. The error says what is wrong with it.
    pub(super) fn check(self, now: u64, skew: u64) -> Result<Identifier, String> {
        let Self { issuer, id, expires, issued } = self;
        for (field, text, most) in [("issuer", &issuer, MAX_ISSUER_BYTES), ("id", &id, MAX_ID_BYTES)] {
            if text.is_empty() || text.len() > most {
                return Err(format!("{field} must have 1 to {most} bytes; send a hash of a longer one"));
            }
        }
        let latest = now.saturating_add(skew);
        if expires > latest.saturating_add(MAX_LIFE_SECS) {
            return Err(format!("expires is more than {MAX_LIFE_SECS} s from now, in Unix seconds"));
        }
        if issued.is_some_and(|issued| issued > expires || issued > latest) {
            return Err("issued is later than expires or than now, in Unix seconds".to_owned());
        }
        let mut name = Vec::with_capacity(8 + issuer.len() + id.len());
        name.extend_from_slice(&(issuer.len() as u64).to_be_bytes());
        name.extend_from_slice(issuer.as_bytes());
        name.extend_from_slice(id.as_bytes());
        let issued = issued.unwrap_or_else(|| expires.saturating_sub(MAX_LIFE_SECS));
        Ok(Identifier { name, expires, issued })
    }
}

impl Identifier {
    pub(super) fn mark(&self) -> Mark {
        Mark::labelled(LABEL, &self.name, self.expires)
    }

    pub(super) fn has_expired(&self, now: u64, skew: u64) -> bool {
        self.expires.saturating_add(skew) < now
    }

    /// Whether it may have been spent before marks were lost.
    pub(super) fn may_be_older_than(&self, fence: Option<u64>) -> bool {
        fence.is_some_and(|fence| self.issued <= fence)
    }
}

#[cfg(test)]
mod tests {
    use obol_token::{Jti, SessionId};

    use super::*;

    const NOW: u64 = 1_000_000;

    fn asked(issuer: &str, id: &str) -> Asked {
        Asked { issuer: issuer.to_owned(), id: id.to_owned(), expires: NOW + 60, issued: None }
    }

    fn mark(issuer: &str, id: &str) -> [u8; 16] {
        *asked(issuer, id).check(NOW, 60).unwrap().mark().id()
    }

    #[test]
    fn no_two_identifiers_and_no_token_have_one_mark() {
        let jti = Jti::from_random([7; 16]);
        let token = *Mark::new(SessionId::from_u64(0), &jti, NOW).id();
        let marks = [
            mark("a", "bc"),
            mark("ab", "c"),
            mark("A", "bc"),
            mark("a", "bC"),
            mark("\0\0\0\0\0\0\0\0", jti.as_str()),
            token,
        ];
        let different: std::collections::BTreeSet<_> = marks.iter().collect();
        assert_eq!(different.len(), marks.len());
        assert_eq!(mark("a", "bc"), mark("a", "bc"));
    }

    #[test]
    fn what_is_too_long_or_at_odds_with_itself_is_refused_in_words() {
        for (asked, says) in [
            (asked("", "b"), "issuer"),
            (asked("a", ""), "id"),
            (asked(&"a".repeat(MAX_ISSUER_BYTES + 1), "b"), "512"),
            (asked("a", &"b".repeat(MAX_ID_BYTES + 1)), "4096"),
            (Asked { expires: NOW + 60 + MAX_LIFE_SECS + 1, ..asked("a", "b") }, "86400 s"),
            (Asked { expires: u64::MAX, ..asked("a", "b") }, "86400 s"),
            (Asked { issued: Some(NOW + 61), ..asked("a", "b") }, "issued"),
        ] {
            let why = asked.check(NOW, 60).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        let longest = Asked { expires: NOW + 60 + MAX_LIFE_SECS, ..asked("a", "b") };
        assert!(longest.check(NOW, 60).is_ok());
    }

    #[test]
    fn one_that_does_not_say_when_it_was_issued_is_as_old_as_may_be() {
        let unsaid = asked("a", "b").check(NOW, 60).unwrap();
        let said = Asked { issued: Some(NOW), ..asked("a", "b") }.check(NOW, 60).unwrap();
        let fence = Some(NOW - 1);
        assert!(unsaid.may_be_older_than(fence) && !said.may_be_older_than(fence));
        assert!(said.may_be_older_than(Some(NOW)) && !unsaid.may_be_older_than(None));
        assert!(said.has_expired(NOW + 121, 60) && !said.has_expired(NOW + 120, 60));
    }
}
