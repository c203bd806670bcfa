//! The tokens of a provider: made from our own bytes, and read only with a key whose header they carry byte for byte.
//!
//! A header never chooses how a token is checked. Each key has one algorithm and one encoded header; a token whose first
//! segment is not that of a live key is refused before anything in it is decoded. So `none`, another algorithm, an unknown
//! `kid`, `crit`, `jku` and every other member lead nowhere, and no list of refused headers has to be kept. What is left of
//! a JWT library is one MAC and the reading of claims, so none is used.

use core::fmt;

use ed25519_dalek::{Signer as _, SigningKey, Verifier as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use obol_secret::text::{from_base64url, to_base64url};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 7 << 10;
/// The longest name of a key, in bytes.
const MAX_KID_BYTES: usize = 64;

/// How a key signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC-SHA256: only who issues can verify.
    #[serde(rename = "HS256")]
    Hs256,
    /// Ed25519: others verify with the public half.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    /// The name in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Whether the agent proved a secret of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Credential {
    /// A secret that several agents have.
    Shared,
    /// A master credential; the agent id is an unproven label.
    Master,
}

/// How often a token may be used, where that is limited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Once.
    Once,
}

/// What a token says, in this order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The origin of the endpoint that issued it.
    pub iss: String,
    /// The same: it is for that origin's API.
    pub aud: String,
    /// Whom it was issued to.
    pub sub: String,
    /// The same.
    pub agent_id: String,
    /// The scopes, separated by spaces.
    pub scope: String,
    /// The scopes, sorted.
    pub scopes: Vec<String>,
    /// Issued at, in Unix seconds.
    pub iat: u64,
    /// Ends at, in Unix seconds.
    pub exp: u64,
    /// The token's id; `.1`, `.2` behind it over rotations.
    pub jti: String,
    /// Where the agent proved no secret of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cred: Option<Credential>,
    /// Where it may be used once.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<Use>,
}

impl Claims {
    /// The token's id, and how often it was rotated.
    pub fn id_and_generation(&self) -> Option<(&str, u32)> {
        match self.jti.split_once('.') {
            None => Some((&self.jti, 0)),
            Some((id, generation)) if !generation.starts_with(['0', '+']) => {
                generation.parse().ok().map(|generation| (id, generation))
            }
            Some(_) => None,
        }
    }
}

/// The `jti` of a token after so many rotations.
pub fn jti(id: &str, generation: u32) -> String {
    if generation == 0 { id.to_owned() } else { format!("{id}.{generation}") }
}

/// A key that tokens are made with.
pub struct JwtKey {
    kid: Box<str>,
    /// The encoded header, and a dot.
    first_segment: Box<str>,
    bytes: Zeroizing<[u8; 32]>,
    signer: Signer,
}

enum Signer {
    Hmac(Hmac<Sha256>),
    Ed25519(Box<SigningKey>),
}

/// The name is not one for a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAKeyName;

impl fmt::Display for NotAKeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key's name has 1 to 64 characters of A-Z a-z 0-9 . _ -")
    }
}

impl core::error::Error for NotAKeyName {}

impl JwtKey {
    /// A key from 32 random bytes.
    ///
    /// # Errors
    /// [`NotAKeyName`] if `kid` could not stand in a header as it is.
    pub fn new(kid: &str, algorithm: Algorithm, bytes: [u8; 32]) -> Result<Self, NotAKeyName> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=MAX_KID_BYTES).contains(&kid.len()) || !kid.bytes().all(plain) {
            return Err(NotAKeyName);
        }
        let header = format!(r#"{{"alg":"{}","typ":"at+jwt","kid":"{kid}"}}"#, algorithm.as_str());
        let first_segment = format!("{}.", to_base64url(header.as_bytes())).into();
        let signer = match algorithm {
            Algorithm::Hs256 => Signer::Hmac(
                Hmac::new_from_slice(&bytes)
                    .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length")),
            ),
            Algorithm::EdDsa => Signer::Ed25519(Box::new(SigningKey::from_bytes(&bytes))),
        };
        Ok(Self { kid: kid.into(), first_segment, bytes: Zeroizing::new(bytes), signer })
    }

    /// Its name.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self.signer {
            Signer::Hmac(_) => Algorithm::Hs256,
            Signer::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// Its 32 bytes, to be sealed.
    pub fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Whether these are its bytes: an agent that had them could make tokens.
    pub fn is_same(&self, secret: &[u8]) -> bool {
        self.bytes.as_slice().ct_eq(secret).into()
    }

    /// The public half as the `x` of a JWK; `None` for keys that have none.
    fn public_x(&self) -> Option<String> {
        match &self.signer {
            Signer::Hmac(_) => None,
            Signer::Ed25519(key) => Some(to_base64url(key.verifying_key().as_bytes())),
        }
    }

    /// Makes a token.
    pub fn mint(&self, claims: &Claims) -> String {
        let mut token = String::with_capacity(768);
        token.push_str(&self.first_segment);
        // Text and numbers into memory: neither can fail.
        token.push_str(&to_base64url(&serde_json::to_vec(claims).unwrap_or_default()));
        let signature = self.sign(token.as_bytes());
        token.push('.');
        token.push_str(&to_base64url(&signature));
        token
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.signer {
            Signer::Hmac(keyed) => {
                let mut mac = keyed.clone();
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
            Signer::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.signer {
            Signer::Hmac(keyed) => {
                let mut mac = keyed.clone();
                mac.update(message);
                mac.verify_slice(signature).is_ok()
            }
            Signer::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verifying_key().verify(message, &signature).is_ok()),
        }
    }

    /// Reads a token that carries this key's header. `None`, whatever is wrong.
    fn open(&self, token: &str, origin: &str, now: u64) -> Option<Claims> {
        let (message, signature) = token.rsplit_once('.')?;
        let claims = message.strip_prefix(&*self.first_segment)?;
        let signature = from_base64url(signature.as_bytes(), MAX_TOKEN_BYTES).ok()?;
        if !self.verifies(message.as_bytes(), &signature) {
            return None;
        }
        let claims = from_base64url(claims.as_bytes(), MAX_TOKEN_BYTES).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        let sound =
            claims.iss == origin && claims.aud == origin && claims.sub == claims.agent_id && now < claims.exp;
        sound.then_some(claims)
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

/// Finds the live key whose header a token carries, byte for byte; `None` if there is none. This is all that a token's
/// header is used for.
pub fn key_of<'k>(keys: &'k [JwtKey], token: &str) -> Option<&'k JwtKey> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    keys.iter().find(|key| token.starts_with(&*key.first_segment))
}

/// Reads a token that one of the live keys made for `origin` and that has not ended at `now` (Unix seconds). `None`,
/// whatever is wrong.
pub fn read(keys: &[JwtKey], token: &str, origin: &str, now: u64) -> Option<Claims> {
    key_of(keys, token)?.open(token, origin, now)
}

/// The public keys, as a JWK set.
pub fn key_set<'k>(keys: impl IntoIterator<Item = &'k JwtKey>) -> serde_json::Value {
    let public = keys.into_iter().filter_map(|key| {
        let x = key.public_x()?;
        Some(serde_json::json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.kid(), "x": x}))
    });
    serde_json::json!({ "keys": public.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "https://api.example.com";
    const NOW: u64 = 1_767_225_700;

    fn claims() -> Claims {
        Claims {
            iss: ORIGIN.into(),
            aud: ORIGIN.into(),
            sub: "agent".into(),
            agent_id: "agent".into(),
            scope: "read".into(),
            scopes: vec!["read".into()],
            iat: NOW - 100,
            exp: NOW + 100,
            jti: "tok_0".into(),
            cred: None,
            usage: None,
        }
    }

    fn keys() -> Vec<JwtKey> {
        vec![
            JwtKey::new("one", Algorithm::Hs256, [1; 32]).unwrap(),
            JwtKey::new("two", Algorithm::EdDsa, [2; 32]).unwrap(),
        ]
    }

    #[test]
    fn a_token_is_read_with_the_key_that_made_it_until_it_ends() {
        let keys = keys();
        for key in &keys {
            let token = key.mint(&claims());
            assert_eq!(read(&keys, &token, ORIGIN, NOW), Some(claims()));
            assert_eq!(read(&keys, &token, ORIGIN, NOW + 99), Some(claims()));
            assert_eq!(read(&keys, &token, ORIGIN, NOW + 100), None, "no leeway");
            assert_eq!(read(&keys, &token, "https://other.example.com", NOW), None);
        }
    }

    #[test]
    fn a_token_with_one_character_changed_is_refused() {
        let keys = keys();
        for key in &keys {
            let token = key.mint(&claims());
            for place in 0..token.len() {
                let mut bytes = token.clone().into_bytes();
                bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
                let changed = String::from_utf8(bytes).unwrap();
                assert!(changed == token || read(&keys, &changed, ORIGIN, NOW).is_none(), "{place}");
            }
        }
    }

    #[test]
    fn keys_that_are_gone_open_nothing() {
        let token = keys()[0].mint(&claims());
        assert_eq!(read(&keys()[1..], &token, ORIGIN, NOW), None);
        assert_eq!(read(&[], &token, ORIGIN, NOW), None);
    }

    #[test]
    fn rotations_are_counted_in_the_name() {
        assert_eq!(jti("tok_a", 0), "tok_a");
        let read = |jti: &str| {
            Claims { jti: jti.into(), ..claims() }.id_and_generation().map(|(id, n)| (id.to_owned(), n))
        };
        assert_eq!(read(&jti("tok_a", 12)), Some(("tok_a".into(), 12)));
        assert_eq!(read("tok_a"), Some(("tok_a".into(), 0)));
        for bad in ["tok_a.0", "tok_a.01", "tok_a.+1", "tok_a.x", "tok_a.1.2"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_key_set_shows_public_halves_only() {
        let text = key_set(&keys()).to_string();
        assert!(text.contains("\"two\"") && !text.contains("\"one\"") && !text.contains("\"d\""), "{text}");
    }

    #[test]
    fn a_key_name_that_could_change_the_header_is_refused() {
        for bad in ["", "a\"b", "a b", "\u{e9}", &"x".repeat(65)] {
            assert!(JwtKey::new(bad, Algorithm::Hs256, [0; 32]).is_err(), "{bad:?}");
        }
    }
}
