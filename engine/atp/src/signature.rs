//! Secrets, and signatures over any JSON object: HMAC-SHA256 over its RFC 8785 form.

use core::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use obol_secret::text::{from_hex, to_hex};
use serde_json::{Map, Number, Value};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// A secret shorter than this is refused, in bytes: it can be guessed from one signed request.
pub const MIN_SECRET_BYTES: usize = 16;
/// A secret shorter than this is warned of, in bytes.
const SHORT_SECRET_BYTES: usize = 32;
/// The longest secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 1024;
/// The member that a signature stands in, and does not cover.
pub(crate) const SIGNATURE: &str = "signature";

/// A shared secret: the key is the UTF-8 bytes of its text, as they are.
pub struct Secret {
    text: Zeroizing<Vec<u8>>,
    /// With the key worked in, which is half the work of a short message.
    keyed: Hmac<Sha256>,
}

/// Why a text is not taken as a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnfitSecret {
    /// Shorter than [`MIN_SECRET_BYTES`].
    TooShort,
    /// Longer than [`MAX_SECRET_BYTES`].
    TooLong,
}

impl fmt::Display for UnfitSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => write!(
                f,
                "the secret has fewer than {MIN_SECRET_BYTES} bytes and could be guessed; make one with `obol atp secret new`"
            ),
            Self::TooLong => write!(f, "the secret has more than {MAX_SECRET_BYTES} bytes"),
        }
    }
}

impl core::error::Error for UnfitSecret {}

impl Secret {
    /// Takes the text as the key: no trimming, no decoding.
    ///
    /// # Errors
    /// [`UnfitSecret`] if it is too short or too long.
    pub fn new(text: &[u8]) -> Result<Self, UnfitSecret> {
        match text.len() {
            ..MIN_SECRET_BYTES => Err(UnfitSecret::TooShort),
            MIN_SECRET_BYTES..=MAX_SECRET_BYTES => Ok(Self::of_any_length(text)),
            _ => Err(UnfitSecret::TooLong),
        }
    }

    /// For what is checked, not relied on: known answers, other people's secrets.
    pub fn of_any_length(text: &[u8]) -> Self {
        let keyed =
            Hmac::new_from_slice(text).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        Self { text: Zeroizing::new(text.to_vec()), keyed }
    }

    /// Whether it is short enough to warn of.
    pub fn is_short(&self) -> bool {
        self.text.len() < SHORT_SECRET_BYTES
    }

    /// The key's bytes.
    pub fn expose(&self) -> &[u8] {
        &self.text
    }

    /// Whether two secrets are the same, in constant time for one length.
    pub fn is_same(&self, other: &[u8]) -> bool {
        self.text.as_slice().ct_eq(other).into()
    }

    /// Signs bytes that are in canonical form.
    pub fn sign(&self, canonical: &[u8]) -> Signature {
        let mut mac = self.keyed.clone();
        mac.update(canonical);
        Signature(mac.finalize().into_bytes().into())
    }

    /// Whether the signature is this secret's, in constant time.
    pub fn signed(&self, canonical: &[u8], signature: &Signature) -> bool {
        let mut mac = self.keyed.clone();
        mac.update(canonical);
        mac.verify_slice(&signature.0).is_ok()
    }
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        Self::of_any_length(&self.text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// A signature: 32 bytes, as text exactly 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature([u8; 32]);

impl Signature {
    /// Reads 64 lower-case hex digits; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

/// Why an object has no canonical form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoCanonicalForm {
    /// It holds an integer that no double holds, which readers would round differently.
    Number,
    /// It could not be written.
    Unwritable,
}

impl fmt::Display for NoCanonicalForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "the object holds an integer that no double holds; write it as text",
            Self::Unwritable => "the object cannot be written in canonical form",
        })
    }
}

impl core::error::Error for NoCanonicalForm {}

/// The RFC 8785 form of an object without its top-level `signature`.
///
/// # Errors
/// [`NoCanonicalForm`] if a number in it has none.
pub fn canonical(body: &Map<String, Value>) -> Result<Vec<u8>, NoCanonicalForm> {
    if !body.values().all(has_exact_numbers) {
        return Err(NoCanonicalForm::Number);
    }
    let mut unsigned = body.clone();
    unsigned.remove(SIGNATURE);
    serde_json_canonicalizer::to_vec(&unsigned).map_err(|_| NoCanonicalForm::Unwritable)
}

fn has_exact_numbers(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.iter().all(has_exact_numbers),
        Value::Object(members) => members.values().all(has_exact_numbers),
        Value::Number(number) => is_exact(number),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// Whether an integer survives the way through a double.
fn is_exact(number: &Number) -> bool {
    // A double holds every integer whose digits between the first and the last one bit are at most 53.
    let fits = |magnitude: u64| {
        magnitude == 0 || 64 - magnitude.leading_zeros() - magnitude.trailing_zeros() <= f64::MANTISSA_DIGITS
    };
    match (number.as_u64(), number.as_i64()) {
        (Some(positive), _) => fits(positive),
        (None, Some(negative)) => fits(negative.unsigned_abs()),
        (None, None) => true,
    }
}

/// Signs any JSON object with a key of any length; a top-level `signature` is left out.
///
/// # Errors
/// [`NoCanonicalForm`] if the object holds an integer that no double holds.
pub fn sign_atp_body(body: &Map<String, Value>, secret: &[u8]) -> Result<String, NoCanonicalForm> {
    Ok(Secret::of_any_length(secret).sign(&canonical(body)?).to_string())
}

/// Whether `signature` is the secret's over this object, in constant time. What is malformed is not.
pub fn verify_atp_signature(body: &Map<String, Value>, signature: &str, secret: &[u8]) -> bool {
    let (Some(signature), Ok(canonical)) = (Signature::parse(signature), canonical(body)) else {
        return false;
    };
    Secret::of_any_length(secret).signed(&canonical, &signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_secret_that_could_be_guessed_is_refused() {
        assert_eq!(Secret::new(&[b'a'; 15]).unwrap_err(), UnfitSecret::TooShort);
        assert!(Secret::new(&[b'a'; 16]).unwrap().is_short());
        assert!(!Secret::new(&[b'a'; 32]).unwrap().is_short());
        assert_eq!(Secret::new(&[b'a'; 1025]).unwrap_err(), UnfitSecret::TooLong);
        assert_eq!(format!("{:?}", Secret::of_any_length(b"hush hush hush!!")), "Secret([redacted])");
    }

    #[test]
    fn a_malformed_signature_is_not_an_error_but_wrong() {
        let body = object(&json!({"a": 1}));
        let good = sign_atp_body(&body, b"k").unwrap();
        assert!(verify_atp_signature(&body, &good, b"k"));
        let (short, long) = (good.get(1..).unwrap(), format!("{good}0"));
        for bad in ["", short, &long, &good.to_uppercase(), "zz"] {
            assert!(!verify_atp_signature(&body, bad, b"k"), "{bad}");
        }
        assert!(!verify_atp_signature(&body, &good, b"K"));
    }

    #[test]
    fn integers_that_no_double_holds_have_no_signature() {
        for good in [
            json!(0),
            json!(9_007_199_254_740_992_u64),
            json!(-1),
            json!(u64::MAX - 2047),
            json!(1e300),
            json!(i64::MIN),
        ] {
            assert!(sign_atp_body(&object(&json!({"n": [good]})), b"k").is_ok(), "{good}");
        }
        for bad in [json!(9_007_199_254_740_993_u64), json!(u64::MAX), json!(-9_007_199_254_740_993_i64)] {
            assert_eq!(sign_atp_body(&object(&json!({"n": {"m": bad}})), b"k"), Err(NoCanonicalForm::Number));
        }
    }
}
