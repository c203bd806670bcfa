//! The token in `Authorization: TBAC <token>`, and the proof of possession in `TBAC-PoP`.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use obol_verify::Denial;

use crate::sealed::PopProof;

const SCHEME: &[u8] = b"TBAC";
/// An Ed25519 signature over the arguments, in base64url without padding.
pub(crate) const PROOF: HeaderName = HeaderName::from_static("tbac-pop");

/// The proof, where there is one.
pub(crate) fn proof(headers: &HeaderMap) -> Result<Option<PopProof>, Denial> {
    let mut values = headers.get_all(PROOF).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Denial::malformed_request("more than one TBAC-PoP header"));
    }
    PopProof::from_text(value.as_bytes()).map(Some)
}

/// The token's text. Exactly one `Authorization` header is accepted: of two, a proxy and this server might each
/// believe another.
pub(crate) fn token(headers: &HeaderMap) -> Result<&[u8], Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or_else(Denial::token_absent)?.as_bytes();
    if values.next().is_some() {
        return Err(Denial::malformed_request("more than one Authorization header"));
    }
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, token) = value.split_at_checked(end).unwrap_or((value, &[]));
    if scheme.eq_ignore_ascii_case(SCHEME) {
        Ok(token.trim_ascii_start())
    } else {
        Err(Denial::token_absent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(values: &[&'static str]) -> Result<String, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        token(&headers)
            .map(|token| String::from_utf8(token.to_vec()).unwrap())
            .map_err(|denial| denial.code.as_str())
    }

    #[test]
    fn the_scheme_is_case_insensitive_and_the_token_is_what_follows() {
        for value in ["TBAC abc", "tbac abc", "Tbac  abc"] {
            assert_eq!(read(&[value]).as_deref(), Ok("abc"));
        }
        assert_eq!(read(&["TBAC a b"]).as_deref(), Ok("a b"));
        assert_eq!(read(&["TBAC"]).as_deref(), Ok(""));
    }

    #[test]
    fn other_schemes_and_no_header_are_no_token() {
        for values in [&[][..], &["Bearer abc"], &["TBACabc"], &[""], &["Basic TBAC"]] {
            assert_eq!(read(values), Err("TBAC_REQUIRED"));
        }
    }

    #[test]
    fn two_headers_are_one_too_many() {
        assert_eq!(read(&["TBAC abc", "TBAC abc"]), Err("MALFORMED_REQUEST"));
        assert_eq!(read(&["Bearer abc", "TBAC abc"]), Err("MALFORMED_REQUEST"));
    }
}
