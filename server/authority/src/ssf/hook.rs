//! How a webhook is signed: as the Standard Webhooks have it, so that libraries of the receiver's language check it.
//! HMAC-SHA-256 over `id.timestamp.body`, under a secret that both have.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;

/// What a secret in the libraries' form begins with.
const PREFIX: &str = "whsec_";

/// The secret that both have.
pub(in crate::ssf) struct HookKey(hmac::Key);

impl HookKey {
    /// Reads it as settings have it.
    pub(in crate::ssf) fn read(text: &str) -> Option<Self> {
        let key = match text.strip_prefix(PREFIX) {
            Some(encoded) => {
                STANDARD.decode(encoded).ok().filter(|bytes| (24..=64).contains(&bytes.len()))?
            }
            None => Some(text.as_bytes().to_vec()).filter(|bytes| (32..=128).contains(&bytes.len()))?,
        };
        Some(Self(hmac::Key::new(hmac::HMAC_SHA256, &zeroize::Zeroizing::new(key))))
    }

    /// The headers of a request with this body. Sent again it has the same name, and the time of its own sending.
    pub(in crate::ssf) fn headers(&self, name: &str, at: u64, body: &[u8]) -> HeaderMap {
        let signed = [format!("{name}.{at}.").as_bytes(), body].concat();
        let signature = format!("v1,{}", STANDARD.encode(hmac::sign(&self.0, &signed)));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (header, value) in [
            (HeaderName::from_static("webhook-id"), name.to_owned()),
            (HeaderName::from_static("webhook-timestamp"), at.to_string()),
            (HeaderName::from_static("webhook-signature"), signature),
        ] {
            // Names and base64 are ASCII.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(header, value);
            }
        }
        headers
    }
}

impl fmt::Debug for HookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_example_of_the_standard_holds() {
        let key = HookKey::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let headers = key.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused() {
        for bad in ["", "short", "whsec_", "whsec_AAAA", "whsec_no base64 at all, however long it may be"] {
            assert!(HookKey::read(bad).is_none(), "{bad}");
        }
        assert!(HookKey::read(&"x".repeat(32)).is_some());
        assert_eq!(format!("{:?}", HookKey::read(&"x".repeat(32)).unwrap()), "HookKey([redacted])");
    }
}
