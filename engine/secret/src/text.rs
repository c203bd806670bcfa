//! Text forms: what may reach a log or a terminal, base64url for tokens, lower-case hex for fixed-size values in JSON. What is read is read strictly: each
//! value has one text.

use core::fmt;
use core::fmt::Write as _;
use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// Format characters (Cf of Unicode 16) and the two separators of lines and paragraphs, as ranges. Control characters
/// (Cc) are told by `char` itself.
const INVISIBLE: [(u32, u32); 22] = [
    (0xad, 0xad),
    (0x600, 0x605),
    (0x61c, 0x61c),
    (0x6dd, 0x6dd),
    (0x70f, 0x70f),
    (0x890, 0x891),
    (0x8e2, 0x8e2),
    (0x180e, 0x180e),
    (0x200b, 0x200f),
    (0x2028, 0x202e),
    (0x2060, 0x2064),
    (0x2066, 0x206f),
    (0xfeff, 0xfeff),
    (0xfff9, 0xfffb),
    (0x110bd, 0x110bd),
    (0x110cd, 0x110cd),
    (0x13430, 0x1343f),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0xe0001, 0xe0001),
    (0xe0020, 0xe007f),
    (0x2065, 0x2065),
];

/// Whether a character may stand in a log or on a terminal as it is. Not one that steers a terminal, turns the direction
/// of text, begins a line, or does not show.
pub fn is_plain(character: char) -> bool {
    let code = u32::from(character);
    !character.is_control() && !INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&code))
}

/// Text that may reach a log or a terminal: every character that is not [plain](is_plain) is written as JSON writes it,
/// `\u009b`, so that this can be done to a line of JSON as well. The one rule for all such text.
pub fn plain(text: &str) -> Cow<'_, str> {
    plain_but(text, |_| false)
}

/// The same, but for some characters that the line is made of: its end, for instance.
pub fn plain_but(text: &str, kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    // Nearly all text is ASCII without control characters.
    if text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) || text.chars().all(|c| is_plain(c) || kept(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_plain(character) || kept(character) {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _into_memory = write!(out, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(out)
}

/// The text is not base64url without padding, or it is too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotBase64Url;

impl fmt::Display for NotBase64Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected base64url without padding, white space or stray bits, and not too long")
    }
}

impl core::error::Error for NotBase64Url {}

/// For writing, with the processor's widest instructions; what comes from elsewhere is read without them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
static WRITER: std::sync::LazyLock<base64::engine::Simd> =
    std::sync::LazyLock::new(|| base64::engine::Simd::url_safe(base64::engine::general_purpose::NO_PAD));
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static WRITER: base64::engine::GeneralPurpose = URL_SAFE_NO_PAD;

/// Writes bytes as base64url without padding, the form in which a token travels.
pub fn to_base64url(bytes: &[u8]) -> String {
    WRITER.encode(bytes)
}

/// How many letters so many bytes have as base64url without padding; `None` where that cannot be counted.
pub fn base64url_len(bytes: usize) -> Option<usize> {
    base64::encoded_len(bytes, false)
}

/// As [`to_base64url`], into memory that is there; gives back how many letters there are, `None` where they do not fit.
pub fn write_base64url(bytes: &[u8], into: &mut [u8]) -> Option<usize> {
    WRITER.encode_slice(bytes, into).ok()
}

/// Reads base64url of at most `max_text` letters. Refuses `+`, `/`, `=`, white space, stray trailing bits, and anything
/// longer before it allocates.
///
/// # Errors
///
/// [`NotBase64Url`], which does not repeat the text.
pub fn from_base64url(text: &[u8], max_text: usize) -> Result<Vec<u8>, NotBase64Url> {
    if text.len() > max_text {
        return Err(NotBase64Url);
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| NotBase64Url)
}

/// Writes bytes as lower-case hex.
pub fn to_hex(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    push_hex(bytes, &mut out);
    // Digits are text.
    String::from_utf8(out).unwrap_or_default()
}

/// As [`to_hex`], behind what is there. All digits in step, and none looked up in a table.
pub fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len() * 2, 0);
    let (pairs, _none) = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(bytes) {
        *pair =
            [byte >> 4, byte & 15].map(|nibble| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble });
    }
}

/// Reads exactly `N` bytes of lower-case hex; anything else is `None`.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = Zeroizing::new([0_u8; N]);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    // All digits in step; whether one was none is asked at the end.
    let mut wrong = 0;
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        let ((high, not_high), (low, not_low)) = (nibble(*high), nibble(*low));
        *byte = high << 4 | low;
        wrong |= not_high | not_low;
    }
    (wrong == 0).then_some(*out)
}

/// Reads any even number of lower-case hex digits.
pub fn bytes_from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let read = |[high, low]: &[u8; 2]| {
        let ((high, not_high), (low, not_low)) = (nibble(*high), nibble(*low));
        (not_high | not_low == 0).then_some(high << 4 | low)
    };
    pairs.iter().map(read).collect()
}

/// What a digit stands for, and whether it is none: then the second is not 0.
fn nibble(digit: u8) -> (u8, u8) {
    let (number, letter) = (digit.wrapping_sub(b'0'), digit.wrapping_sub(b'a'));
    let value = if number < 10 { number } else { letter.wrapping_add(10) & 15 };
    (value, u8::from(number >= 10) & u8::from(letter >= 6))
}

/// `serde` adapters for fixed-size byte strings written as lower-case hex.
pub mod hex_array {
    use serde::{Deserializer, Serializer, de};

    /// Writes the bytes as lower-case hex.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::to_hex(bytes))
    }

    /// Reads exactly `2 * N` lower-case hex digits.
    ///
    /// # Errors
    ///
    /// If it is not a text of that many digits. The error repeats nothing of it.
    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(from: D) -> Result<[u8; N], D::Error> {
        struct Hex<const N: usize>;
        impl<const N: usize> de::Visitor<'_> for Hex<N> {
            type Value = [u8; N];
            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{} lower-case hex digits", 2 * N)
            }
            // The offending text is not repeated: it may be a key with a typing error.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<[u8; N], E> {
                super::from_hex(text)
                    .ok_or_else(|| E::custom(format_args!("expected {} lower-case hex digits", 2 * N)))
            }
        }
        from.deserialize_str(Hex::<N>)
    }
}

/// As [`hex_array`], for optional values.
pub mod hex_option {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Hex<const N: usize>(#[serde(with = "super::hex_array")] [u8; N]);

    /// Writes the bytes, if any, as lower-case hex.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer, const N: usize>(
        bytes: &Option<[u8; N]>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => to.serialize_some(&super::to_hex(bytes)),
            None => to.serialize_none(),
        }
    }

    /// Reads `null` or exactly `2 * N` lower-case hex digits.
    ///
    /// # Errors
    ///
    /// If it is neither `null` nor a text of that many digits. The error repeats nothing of it.
    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<Option<[u8; N]>, D::Error> {
        Ok(Option::<Hex<N>>::deserialize(from)?.map(|hex| hex.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 64;

    #[test]
    fn nothing_that_steers_turns_or_hides_is_plain() {
        for code in
            (0..0x20).chain(0x7f..0xa0).chain(0x2028..0x202f).chain([0xad, 0x200b, 0x2066, 0xfeff, 0xe0041])
        {
            let character = char::from_u32(code).unwrap();
            assert!(!is_plain(character), "{code:x}");
            let escaped = plain(&format!("a{character}b")).into_owned();
            assert!(escaped.starts_with("a\\u") && escaped.chars().all(is_plain), "{escaped}");
        }
        for text in ["https://api.example/caf\u{e9}?a=1", "\u{65e5}\u{672c} \u{1f600}", "", "\\ \"x\""] {
            assert!(matches!(plain(text), Cow::Borrowed(same) if same == text));
        }
        assert_eq!(plain("\u{9b}31m\u{e0041}"), "\\u009b31m\\udb40\\udc41");
        assert_eq!(plain_but("a\nb\r\n", |c| c == '\n'), "a\nb\\u000d\n");
    }

    #[test]
    fn only_canonical_base64url_is_read() {
        assert_eq!(from_base64url(b"AAEC", MAX), Ok(vec![0, 1, 2]));
        assert_eq!(from_base64url(b"-_8", MAX), Ok(vec![0xFB, 0xFF]));
        for bad in ["+/8", "AAE=", "AA==", "AA\n", " AAEC", "AAEC ", "AB", "A", "AAEC=", "ÄAEC"] {
            assert_eq!(from_base64url(bad.as_bytes(), MAX), Err(NotBase64Url), "{bad:?}");
        }
    }

    #[test]
    fn text_over_the_limit_is_refused_before_decoding() {
        assert!(from_base64url(&[b'A'; MAX], MAX).is_ok());
        assert_eq!(from_base64url(&[b'A'; MAX + 1], MAX), Err(NotBase64Url));
    }

    #[test]
    fn what_is_written_into_memory_is_what_is_written_as_text() {
        for length in 0..100 {
            let bytes = vec![0xA7; length];
            let mut memory = vec![0; base64url_len(length).unwrap()];
            assert_eq!(write_base64url(&bytes, &mut memory), Some(memory.len()));
            assert_eq!(memory, to_base64url(&bytes).into_bytes());
        }
        assert_eq!(write_base64url(b"four", &mut [0; 5]), None);
    }

    #[test]
    fn hex_is_lower_case_and_exact() {
        assert_eq!(from_hex("00ff"), Some([0x00, 0xFF]));
        for bad in ["00FF", "00f", "00fff", "0g", "", "00ff00"] {
            assert_eq!(from_hex::<2>(bad), None, "{bad:?}");
        }
        assert_eq!(to_hex(&[0x00, 0x0A, 0xFF]), "000aff");
        assert_eq!((to_hex(&[]), from_hex("")), (String::new(), Some([])));
    }

    #[test]
    fn each_byte_has_the_two_digits_that_are_read_back_and_no_others_are() {
        for byte in 0..=u8::MAX {
            let text = to_hex(&[byte, !byte]);
            assert_eq!(text, format!("{byte:02x}{:02x}", !byte));
            assert_eq!(
                (from_hex(&text), bytes_from_hex(&text)),
                (Some([byte, !byte]), Some(vec![byte, !byte]))
            );
            let mut behind = b"x".to_vec();
            push_hex(&[byte], &mut behind);
            assert_eq!(behind, format!("x{byte:02x}").into_bytes());
        }
        let is_digit = |character: char| matches!(character, '0'..='9' | 'a'..='f');
        for character in (0..0x80_u8).map(char::from) {
            for text in [format!("{character}0"), format!("0{character}")] {
                let value = is_digit(character).then(|| u8::from_str_radix(&text, 16).unwrap());
                assert_eq!(from_hex(&text), value.map(|value| [value]), "{text:?}");
                assert_eq!(bytes_from_hex(&text), value.map(|value| vec![value]), "{text:?}");
            }
        }
        assert_eq!((from_hex::<1>("é"), bytes_from_hex("é")), (None, None), "two bytes, one letter");
    }
}
