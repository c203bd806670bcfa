//! Signed tokens of others (JWS, RFC 7515, in their compact form), and ours for others.
//!
//! A token's header names a key and says what kind of token it is; it chooses nothing. The algorithm is the key's: a header
//! that names another is refused, and so are `none`, every MAC, and any member that is critical. Keys come from a set that
//! was fetched from where the settings say. `jku`, `jwk`, `x5u` and `x5c` lead nowhere.
//!
//! Tokens of the Agent Token Protocol are read by `obol-atp` instead: those are our own, byte for byte, and need none of
//! this.
//!
//! It must not know: what a token says, who may say it, where keys come from.

mod key;
mod ring;
mod sign;

use core::fmt;

use obol_secret::json::{self, Bounds};
use obol_secret::text::from_base64url;
use serde::Deserialize;
use serde_json::Value;

pub(crate) use self::key::{Algorithm, KeySet};
#[cfg(test)]
pub(crate) use self::ring::{AFTER_SECS, AHEAD_SECS, LIFE_SECS};
pub(crate) use self::ring::{KeyRing, KeyUse};
#[cfg(test)]
pub(crate) use self::sign::SigningKeys;

/// The longest token that is looked at, in bytes.
pub(crate) const MAX_TOKEN_BYTES: usize = 64 << 10;
/// The longest name of a key, in bytes.
const MAX_KID_BYTES: usize = 256;
/// What a header and claims may be made of.
const BOUNDS: Bounds = Bounds { values: 2_000, depth: 16 };

/// A header, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
    b64: Option<Value>,
}

/// A token that nobody has checked.
#[derive(Debug)]
pub(crate) struct Unchecked<'t> {
    header: Header,
    signed: &'t [u8],
    claims: Vec<u8>,
    signature: Vec<u8>,
}

/// Why a token is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NotTaken {
    /// It is not a token of this form.
    Malformed(&'static str),
    /// No key of the set has this name.
    UnknownKey,
    /// The key does not sign as the header says.
    Algorithm,
    /// The signature is not that key's.
    Signature,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(why) => why,
            Self::UnknownKey => "no key of its issuer has the name in its header",
            Self::Algorithm => "its header names another algorithm than its key's, or one that is not taken",
            Self::Signature => "its signature is not that of the key it names",
        })
    }
}

impl core::error::Error for NotTaken {}

impl<'t> Unchecked<'t> {
    /// Takes a token apart. `typ` is what its header must say, with or without `application/`.
    pub(crate) fn read(token: &'t [u8], typ: &str) -> Result<Self, NotTaken> {
        Self::read_one_of(token, &[typ]).map(|(read, _)| read)
    }

    /// Takes a token apart that is of one of these types, by `typ` in its header; the empty one is that of a token without it. Of
    /// which type it is comes with it.
    pub(crate) fn read_one_of<'w>(token: &'t [u8], types: &[&'w str]) -> Result<(Self, &'w str), NotTaken> {
        const NOT_COMPACT: NotTaken =
            NotTaken::Malformed("it is not a compact JWS: three parts of base64url");
        if token.len() > MAX_TOKEN_BYTES {
            return Err(NotTaken::Malformed("it is too long"));
        }
        let mut parts = token.rsplitn(2, |byte| *byte == b'.');
        let (signature, signed) = (parts.next().ok_or(NOT_COMPACT)?, parts.next().ok_or(NOT_COMPACT)?);
        let mut parts = signed.splitn(2, |byte| *byte == b'.');
        let (header, claims) = (parts.next().ok_or(NOT_COMPACT)?, parts.next().ok_or(NOT_COMPACT)?);
        let decoded = |part: &[u8]| from_base64url(part, MAX_TOKEN_BYTES).map_err(|_| NOT_COMPACT);
        let header: Header = json::parse_within(&decoded(header)?, BOUNDS)
            .map_err(|_| NotTaken::Malformed("its header is not one of a signed token"))?;
        if header.crit.is_some() || header.b64.is_some() {
            return Err(NotTaken::Malformed("its header has a critical member that is not known"));
        }
        let said = header.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
        let said = said.strip_prefix("application/").unwrap_or(&said);
        let typ = *types
            .iter()
            .find(|typ| **typ == said)
            .ok_or(NotTaken::Malformed("its header does not say `typ` of such a token"))?;
        if header.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(NotTaken::Malformed("the name of its key is too long"));
        }
        Ok((Self { header, signed, claims: decoded(claims)?, signature: decoded(signature)? }, typ))
    }

    /// What it says, which anybody may have written.
    pub(crate) fn claims<'c, T: Deserialize<'c>>(&'c self) -> Result<T, NotTaken> {
        json::parse_within(&self.claims, BOUNDS)
            .map_err(|_| NotTaken::Malformed("its claims are not those of such a token"))
    }

    /// Checks that a key of the set signed it.
    pub(crate) fn check(&self, keys: &KeySet) -> Result<(), NotTaken> {
        let algorithm = Algorithm::named(&self.header.alg).ok_or(NotTaken::Algorithm)?;
        let key = keys.find(self.header.kid.as_deref(), algorithm).ok_or(NotTaken::UnknownKey)?;
        if key.algorithm() != algorithm {
            return Err(NotTaken::Algorithm);
        }
        match key.verifies(self.signed, &self.signature) {
            true => Ok(()),
            false => Err(NotTaken::Signature),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_secret::text::to_base64url;
    use serde_json::json;

    const TYP: &str = "secevent+jwt";

    fn token(header: &Value, claims: &Value, keys: &SigningKeys) -> String {
        keys.sign_with_header(header, claims)
    }

    fn keys() -> SigningKeys {
        SigningKeys::generate_es256().unwrap()
    }

    fn check(token: &str, keys: &SigningKeys) -> Result<(), NotTaken> {
        let set = KeySet::read(keys.key_set().to_string().as_bytes()).unwrap();
        Unchecked::read(token.as_bytes(), TYP)?.check(&set)
    }

    #[test]
    fn a_token_is_taken_with_its_key_and_with_no_other() {
        let keys = keys();
        let claims = json!({"iss": "https://a"});
        let signed = keys.sign(Algorithm::Es256, TYP, &claims).unwrap();
        assert_eq!(check(&signed, &keys), Ok(()));
        let read = Unchecked::read(signed.as_bytes(), TYP).unwrap();
        assert_eq!(read.claims::<Value>().unwrap(), claims);
        let others = SigningKeys::generate_es256().unwrap();
        assert_eq!(check(&signed, &others), Err(NotTaken::UnknownKey));
        let body = signed.rfind('.').unwrap();
        let swapped =
            format!("{}{}", &signed[..body], &others.sign(Algorithm::Es256, TYP, &claims).unwrap()[body..]);
        assert_eq!(check(&swapped, &keys), Err(NotTaken::Signature));
    }

    #[test]
    fn a_header_chooses_nothing() {
        let keys = keys();
        let kid = keys.key_set()["keys"][0]["kid"].clone();
        let claims = json!({"iss": "https://a"});
        let good = json!({"alg": "ES256", "typ": "secevent+jwt", "kid": kid});
        assert_eq!(check(&token(&good, &claims, &keys), &keys), Ok(()));
        let with = |member: &str, value: Value| {
            let mut header = good.clone();
            header[member] = value;
            check(&token(&header, &claims, &keys), &keys)
        };
        for alg in ["none", "None", "HS256", "RS256", "ES384", "EdDSA", ""] {
            assert!(with("alg", json!(alg)).is_err(), "{alg}");
        }
        assert!(with("crit", json!(["exp"])).is_err() && with("crit", json!([])).is_err());
        assert!(with("b64", json!(false)).is_err());
        assert!(with("typ", json!("JWT")).is_err() && with("typ", json!("application/at+jwt")).is_err());
        assert_eq!(with("typ", json!("application/SECEVENT+JWT")), Ok(()));
        // The attacker's own key, in every place where a header could bring one.
        let evil = SigningKeys::generate_es256().unwrap();
        for (member, value) in [
            ("jwk", evil.key_set()["keys"][0].clone()),
            ("jku", json!("https://evil.example/jwks")),
            ("x5u", json!("https://evil.example/chain")),
            ("x5c", json!(["AAAA"])),
        ] {
            let mut header = good.clone();
            header[member] = value;
            assert_eq!(check(&token(&header, &claims, &evil), &keys), Err(NotTaken::Signature), "{member}");
        }
    }

    #[test]
    fn what_is_not_a_compact_token_is_refused() {
        let good = keys().sign(Algorithm::Es256, TYP, &json!({})).unwrap();
        let header = to_base64url(br#"{"alg":"ES256","alg":"none","typ":"secevent+jwt"}"#);
        for bad in
            ["", ".", "..", "a.b", "a.b.c.d", &good[1..], &format!("{good}="), &format!("{header}.e30.AA")]
        {
            assert!(Unchecked::read(bad.as_bytes(), TYP).is_err(), "{bad}");
        }
        assert!(Unchecked::read("a".repeat(MAX_TOKEN_BYTES + 1).as_bytes(), TYP).is_err());
    }
}
