//! The service's own keys for what it signs for others: RSA of 2,048 bits, as the CAEP interoperability profile wants it, and
//! P-256. Their private halves are kept sealed in the directory. ring signs; it makes no RSA keys, which `rsa` does, once.

use core::fmt;

use obol_secret::text::{from_base64url, to_base64url};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use rsa::pkcs8::EncodePrivateKey as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json as object};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Algorithm;

const RSA_BITS: usize = 2_048;
/// The longest private key as text.
const MAX_TEXT_BYTES: usize = 8 << 10;

/// Why there is no key, or nothing was signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NoSignature(pub(super) &'static str);

impl fmt::Display for NoSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot sign: {}", self.0)
    }
}

impl core::error::Error for NoSignature {}

/// Both keys as they are kept: PKCS#8, base64url.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    rs256: Option<String>,
    es256: String,
    /// From when on they sign, in Unix seconds.
    #[serde(default)]
    pub(super) signs_from: u64,
}

/// Keys that sign.
pub(crate) struct SigningKeys {
    rsa: Option<(RsaKeyPair, Value, String)>,
    p256: (EcdsaKeyPair, Value, String),
    random: SystemRandom,
}

impl SigningKeys {
    /// Makes both keys; as they are to be kept. It takes a moment.
    pub(super) fn make(signs_from: u64) -> Result<Kept, NoSignature> {
        let no = |_| NoSignature("no RSA key could be made");
        let key = rsa::PrivateKey::new(&mut getrandom::SysRng, RSA_BITS).map_err(no)?;
        let document = key.to_pkcs8_der().map_err(|_| NoSignature("no RSA key could be made"))?;
        Ok(Kept { rs256: Some(to_base64url(document.as_bytes())), es256: make_p256()?, signs_from })
    }

    /// Reads keys as they are kept.
    pub(super) fn read(kept: &Kept) -> Result<Self, NoSignature> {
        const WRONG: NoSignature = NoSignature("the kept keys have another form");
        let bytes = |text: &str| from_base64url(text.as_bytes(), MAX_TEXT_BYTES).map(Zeroizing::new);
        let random = SystemRandom::new();
        let p256 = {
            let document = bytes(&kept.es256).map_err(|_| WRONG)?;
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &document, &random);
            let key = key.map_err(|_| WRONG)?;
            let (x, y) =
                key.public_key().as_ref().get(1..).unwrap_or_default().split_at_checked(32).ok_or(WRONG)?;
            let (x, y) = (to_base64url(x), to_base64url(y));
            let kid = thumbprint(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#));
            let public = object!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": x, "y": y});
            (key, public, kid)
        };
        let rsa = match &kept.rs256 {
            None => None,
            Some(text) => {
                let key = RsaKeyPair::from_pkcs8(&bytes(text).map_err(|_| WRONG)?).map_err(|_| WRONG)?;
                let public: RsaPublicKeyComponents<Vec<u8>> = key.public().into();
                let (n, e) = (to_base64url(&public.n), to_base64url(&public.e));
                let kid = thumbprint(&format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#));
                let public =
                    object!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": n, "e": e});
                Some((key, public, kid))
            }
        };
        Ok(Self { rsa, p256, random })
    }

    /// The public halves, as JWKs.
    pub(super) fn public(&self) -> impl Iterator<Item = &Value> {
        let rsa = self.rsa.iter().map(|(_, public, _)| public);
        rsa.chain([&self.p256.1])
    }

    /// Name and algorithm of each.
    pub(crate) fn names(&self) -> Vec<(String, String)> {
        let rsa = self.rsa.iter().map(|(_, _, kid)| (kid.clone(), "RS256".to_owned()));
        rsa.chain([(self.p256.2.clone(), "ES256".to_owned())]).collect()
    }

    /// Signs claims as a token of this type.
    pub(crate) fn sign(
        &self,
        algorithm: Algorithm,
        typ: &str,
        claims: &Value,
    ) -> Result<String, NoSignature> {
        let (name, kid) = match (algorithm, &self.rsa) {
            (Algorithm::Rs256, Some((_, _, kid))) => ("RS256", kid),
            (Algorithm::Es256, _) => ("ES256", &self.p256.2),
            _ => return Err(NoSignature("there is no key of this algorithm")),
        };
        let header = object!({"alg": name, "typ": typ, "kid": kid}).to_string();
        let mut token =
            format!("{}.{}", to_base64url(header.as_bytes()), to_base64url(claims.to_string().as_bytes()));
        let signature = self.signature(algorithm, token.as_bytes())?;
        token.push('.');
        token.push_str(&to_base64url(&signature));
        Ok(token)
    }

    fn signature(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, NoSignature> {
        const NO_RANDOMNESS: NoSignature = NoSignature("the system gives no random numbers");
        match (algorithm, &self.rsa) {
            (Algorithm::Rs256, Some((key, _, _))) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature)
                    .map_err(|_| NO_RANDOMNESS)?;
                Ok(signature)
            }
            _ => self
                .p256
                .0
                .sign(&self.random, message)
                .map(|made| made.as_ref().to_vec())
                .map_err(|_| NO_RANDOMNESS),
        }
    }
}

fn make_p256() -> Result<String, NoSignature> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let document = document.map_err(|_| NoSignature("the system gives no random numbers"))?;
    Ok(to_base64url(document.as_ref()))
}

/// RFC 7638: the name that a key has by what it is.
fn thumbprint(canonical: &str) -> String {
    to_base64url(&Sha256::digest(canonical.as_bytes()))
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKeys([redacted])")
    }
}

#[cfg(test)]
impl SigningKeys {
    /// Without RSA, of which a key takes long to make.
    pub(crate) fn generate_es256() -> Result<Self, NoSignature> {
        Self::read(&Kept { rs256: None, es256: make_p256()?, signs_from: 0 })
    }

    /// The public halves, as a JWK set.
    pub(crate) fn key_set(&self) -> Value {
        object!({ "keys": self.public().collect::<Vec<_>>() })
    }

    /// With a header as it is given, whatever it says, signed with P-256.
    pub(crate) fn sign_with_header(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| to_base64url(value.to_string().as_bytes());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.signature(Algorithm::Es256, message.as_bytes()).unwrap();
        format!("{message}.{}", to_base64url(&signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jws::{KeySet, Unchecked};

    #[test]
    fn both_keys_sign_are_kept_and_show_their_public_halves_alone() {
        let kept = SigningKeys::make(7).unwrap();
        let keys = SigningKeys::read(&kept).unwrap();
        let shown = keys.key_set();
        let set = KeySet::read(shown.to_string().as_bytes()).unwrap();
        assert_eq!(set.len(), 2);
        for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
            let token = keys.sign(algorithm, "secevent+jwt", &object!({"jti": "1"})).unwrap();
            let read = Unchecked::read(token.as_bytes(), "secevent+jwt").unwrap();
            assert_eq!(read.check(&set), Ok(()), "{algorithm:?}");
        }
        assert!(keys.sign(Algorithm::EdDsa, "secevent+jwt", &object!({})).is_err());
        for key in shown["keys"].as_array().unwrap() {
            assert!(key.get("d").is_none() && key.get("p").is_none(), "{key}");
        }
        assert_eq!(SigningKeys::read(&kept).unwrap().key_set(), shown);
    }
}
