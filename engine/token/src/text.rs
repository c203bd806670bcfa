//! A token's text. The forms themselves are those of [`obol_secret::text`].

pub use obol_secret::text::{
    NotBase64Url, bytes_from_hex, from_hex, hex_array, hex_option, to_base64url, to_hex,
};

use crate::envelope::{MAX_TOKEN_BYTES, MAX_TOKEN_TEXT};

/// Reads a token's text. Refuses `+`, `/`, `=`, white space, stray trailing bits, and anything longer than
/// [`MAX_TOKEN_TEXT`] characters before it allocates.
///
/// # Errors
///
/// [`NotBase64Url`].
pub fn from_base64url(text: &[u8]) -> Result<Vec<u8>, NotBase64Url> {
    let bytes = obol_secret::text::from_base64url(text, MAX_TOKEN_TEXT)?;
    if bytes.len() > MAX_TOKEN_BYTES { Err(NotBase64Url) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_at_most_as_long_as_a_token_can_be() {
        let longest = to_base64url(&[7; MAX_TOKEN_BYTES]);
        assert_eq!(from_base64url(longest.as_bytes()).unwrap().len(), MAX_TOKEN_BYTES);
        let longer = to_base64url(&[7; MAX_TOKEN_BYTES + 1]);
        assert_eq!(from_base64url(longer.as_bytes()), Err(NotBase64Url));
        assert_eq!(from_base64url(&vec![b'A'; MAX_TOKEN_TEXT + 1]), Err(NotBase64Url));
    }
}
