//! The texts of a version, as their owners wrote them, and the digest that names them.

use core::fmt;
use core::str::FromStr;
use std::collections::BTreeMap;

use obol_secret::text::{from_hex, to_hex};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// The name that problems of the catalogue are told under.
pub(crate) const CATALOGUE_FILE: &str = "catalogue.toml";
/// Begins what is hashed.
const LABEL: &[u8] = b"obol-policy-version-v1";

/// The texts of a version.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySource {
    /// The catalogue, in TOML.
    pub catalogue: String,
    /// Policies in Cedar, by file name.
    pub policies: BTreeMap<String, String>,
}

impl PolicySource {
    /// SHA-256 over all texts and their names, each with its length before it: what was reviewed is what is in force, to
    /// the byte.
    pub fn digest(&self) -> PolicyDigest {
        let mut hash = Sha256::new();
        hash.update(LABEL);
        let parts = self.policies.iter().flat_map(|(name, text)| [name, text]);
        for part in core::iter::once(&self.catalogue).chain(parts) {
            // A length of memory always fits.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        PolicyDigest(hash.finalize().into())
    }

    /// How long all texts are together, in bytes.
    pub fn bytes(&self) -> usize {
        self.catalogue.len() + self.policies.values().map(String::len).sum::<usize>()
    }
}

/// What names a version: the digest of its texts. 64 hex digits in text and JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyDigest(pub [u8; 32]);

impl fmt::Display for PolicyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for PolicyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotADigest;

impl fmt::Display for NotADigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a version's digest has 64 lower-case hex digits")
    }
}

impl core::error::Error for NotADigest {}

impl FromStr for PolicyDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        from_hex(text).map(Self).ok_or(NotADigest)
    }
}

impl Serialize for PolicyDigest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PolicyDigest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(catalogue: &str, policies: &[(&str, &str)]) -> PolicySource {
        let policies = policies.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        PolicySource { catalogue: catalogue.to_owned(), policies: policies.collect() }
    }

    #[test]
    fn versions_that_differ_anywhere_have_different_digests() {
        let versions = [
            source("", &[]),
            source("a", &[]),
            source("", &[("a", "")]),
            source("", &[("", "a")]),
            source("a", &[("b", "c")]),
            source("a", &[("bc", "")]),
            source("a", &[("", "bc")]),
            source("ab", &[("c", "")]),
            source("a", &[("b", "c"), ("d", "")]),
        ];
        let mut digests: Vec<_> = versions.iter().map(PolicySource::digest).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), versions.len());
    }

    #[test]
    fn a_digest_is_read_as_it_is_written_and_no_other_way() {
        let digest = source("a", &[]).digest();
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(
            serde_json::from_str::<PolicyDigest>(&serde_json::to_string(&digest).unwrap()).unwrap(),
            digest
        );
        for text in ["", "00", &digest.to_string().to_uppercase(), &format!("{digest}0")] {
            assert_eq!(text.parse::<PolicyDigest>(), Err(NotADigest), "{text}");
        }
    }

    #[test]
    fn the_digest_of_a_known_version_is_known() {
        let version = source("a", &[("b.cedar", "c")]);
        // printf 'obol-policy-version-v1\0\0\0\0\0\0\0\001a\0\0\0\0\0\0\0\007b.cedar\0\0\0\0\0\0\0\001c' | sha256sum
        assert_eq!(version.digest().to_string(), KNOWN);
    }

    const KNOWN: &str = "bd2354788a0330e3fa2dcb3a5c1dc38e322f1e2ad5a87594bf60581d9343be5f";
}
