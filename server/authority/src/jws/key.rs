//! Public keys of others (JWK, RFC 7517): RSA of 2,048 to 8,192 bits, P-256 and Ed25519. Each has one algorithm. What is of
//! another kind, weaker or malformed in a set is passed over, as RFC 7517 says.

use obol_secret::json;
use obol_secret::text::from_base64url;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// The most keys of a set.
const MAX_KEYS: usize = 100;
/// The longest part of a key as text: 8,192 bits.
const MAX_PART_TEXT: usize = 1_400;
const MIN_RSA_BYTES: usize = 256;

/// How a key signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// By its name in a header. `Ed25519` is RFC 9864's name of the same.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

#[derive(Debug)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// A key that verifies.
#[derive(Debug)]
pub(crate) struct PublicKey {
    kid: Option<String>,
    public: Public,
}

impl PublicKey {
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self.public {
            Public::Rsa { .. } => Algorithm::Rs256,
            Public::P256(_) => Algorithm::Es256,
            Public::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.public {
            Public::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Public::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Public::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature),
        }
        .is_ok()
    }
}

/// One key as it is published.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

impl Jwk {
    fn public(self) -> Option<PublicKey> {
        let signs = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let part = |text: &Option<String>| from_base64url(text.as_ref()?.as_bytes(), MAX_PART_TEXT).ok();
        let exact = |text: &Option<String>| part(text).filter(|bytes| bytes.len() == 32);
        let public = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let n = part(&self.n)?;
                let significant = n.iter().skip_while(|byte| **byte == 0).count();
                // ring refuses what is too short as well; here it is not even listed.
                (significant >= MIN_RSA_BYTES).then_some(())?;
                Public::Rsa { n, e: part(&self.e)? }
            }
            ("EC", Some("P-256")) => {
                Public::P256([&[4], exact(&self.x)?.as_slice(), exact(&self.y)?.as_slice()].concat())
            }
            ("OKP", Some("Ed25519")) => Public::Ed25519(exact(&self.x)?),
            _ => return None,
        };
        let key = PublicKey { kid: self.kid, public };
        let fits = self.alg.as_deref().is_none_or(|alg| Algorithm::named(alg) == Some(key.algorithm()));
        (signs && fits).then_some(key)
    }
}

/// The keys of one issuer.
#[derive(Debug, Default)]
pub(crate) struct KeySet(Vec<PublicKey>);

impl KeySet {
    /// Reads a set as it is published. Keys of kinds that are not taken are left out.
    pub(crate) fn read(document: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document = json::parse(document).map_err(|error| error.to_string())?;
        if document.keys.len() > MAX_KEYS {
            return Err(format!("a set has at most {MAX_KEYS} keys"));
        }
        let read = |key: Value| json::read_part::<Jwk>(key)?.public();
        Ok(Self(document.keys.into_iter().filter_map(read).collect()))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The key of this name; without a name, the one of this algorithm if there is one alone.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&PublicKey> {
        if let Some(kid) = kid {
            // Two keys of different kinds may share a name.
            let mut named = self.0.iter().filter(|key| key.kid.as_deref() == Some(kid));
            let first = named.next()?;
            return Some(
                core::iter::once(first)
                    .chain(named)
                    .find(|key| key.algorithm() == algorithm)
                    .unwrap_or(first),
            );
        }
        let mut of_kind = self.0.iter().filter(|key| key.algorithm() == algorithm);
        match (of_kind.next(), of_kind.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_secret::text::to_base64url;
    use serde_json::json;

    #[expect(clippy::needless_pass_by_value, reason = "json! makes a value where it is used")]
    fn count(key: Value) -> usize {
        KeySet::read(json!({ "keys": [key] }).to_string().as_bytes()).unwrap().len()
    }

    #[test]
    fn weak_and_foreign_keys_are_not_listed() {
        let text = |bytes: usize| to_base64url(&vec![0xC1; bytes]);
        let rsa = |bytes: usize| json!({"kty": "RSA", "n": text(bytes), "e": "AQAB"});
        assert_eq!((count(rsa(256)), count(rsa(255)), count(rsa(128))), (1, 0, 0));
        let padded = to_base64url(&[vec![0; 128], vec![0xC1; 128]].concat());
        assert_eq!(count(json!({"kty": "RSA", "n": padded, "e": "AQAB"})), 0, "zeros make it no longer");
        let ec = json!({"kty": "EC", "crv": "P-256", "x": text(32), "y": text(32)});
        assert_eq!(count(ec.clone()), 1);
        for (member, value) in [
            ("crv", json!("P-384")),
            ("use", json!("enc")),
            ("alg", json!("ES384")),
            ("alg", json!("RS256")),
            ("key_ops", json!(["sign"])),
            ("x", json!(text(31))),
        ] {
            let mut other = ec.clone();
            other[member] = value;
            assert_eq!(count(other), 0, "{member}");
        }
        // The public key as a secret: no MAC is taken with it.
        assert_eq!(count(json!({"kty": "oct", "k": text(32), "alg": "HS256"})), 0);
    }

    #[test]
    fn what_is_not_a_set_is_refused_and_a_broken_key_costs_the_others_nothing() {
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": to_base64url(&[1; 32])});
        let set = json!({"keys": [{"kty": 1}, ed, "no key"]});
        assert_eq!(KeySet::read(set.to_string().as_bytes()).unwrap().len(), 1);
        for bad in ["", "[]", "{}", r#"{"keys": {}}"#] {
            assert!(KeySet::read(bad.as_bytes()).is_err(), "{bad}");
        }
        let many = json!({ "keys": vec![json!({}); MAX_KEYS + 1] });
        assert!(KeySet::read(many.to_string().as_bytes()).is_err());
    }
}
