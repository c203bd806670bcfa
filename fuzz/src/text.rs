//! Base64url and hex once more, bit by bit.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The bytes a text stands for, or `None` where it is not base64url without padding in its only form.
pub fn from_base64url(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    // What has been read and is not a whole byte yet: so many bits, at the low end.
    let (mut bits, mut count) = (0_u32, 0);
    for character in text {
        bits = bits << 6 | value(*character)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    // Six bits left over are a character too many; bits that are set in what is left belong to nothing.
    (count < 6 && bits == 0).then_some(bytes)
}

fn value(character: u8) -> Option<u32> {
    let (first, offset) = match character {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'-' => (b'-', 62),
        b'_' => (b'_', 63),
        _ => return None,
    };
    Some(u32::from(character - first) + offset)
}

/// The only text for these bytes.
pub fn to_base64url(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len() * 2);
    for three in bytes.chunks(3) {
        let number =
            three.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)) << (8 * (3 - three.len()));
        text.extend((0..=three.len()).map(|letter| ALPHABET[number >> (18 - 6 * letter) & 63]));
    }
    text
}

/// The bytes that lower-case hex digits stand for.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> =
        text.chars().map(|digit| digit.to_digit(16).filter(|_| !digit.is_ascii_uppercase())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_reads_the_examples_of_rfc_4648() {
        for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")] {
            assert_eq!(to_base64url(bytes.as_bytes()), text.as_bytes());
            assert_eq!(from_base64url(text.as_bytes()).as_deref(), Some(bytes.as_bytes()));
        }
        for text in ["Zh", "Z", "Zg==", "Zm9+", "Zm9/", "Zm 9", "Zm9v\n"] {
            assert_eq!(from_base64url(text.as_bytes()), None, "{text}");
        }
    }
}
