//! Errors must not repeat keys.

/// The length, in hex digits, of every key in a session document.
const KEY_DIGITS: usize = 64;

/// Runs of exactly 64 hex digits between quotes: the keys in a document, wherever they stand.
fn is_key(text: &str) -> bool {
    text.len() == KEY_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Fails when a message repeats a key of the document it is about, or half of one. What stands in the document outside of
/// its keys as well, in a name for instance, is not a secret.
pub fn assert_kept(document: &[u8], message: &str) {
    let document = String::from_utf8_lossy(document);
    let (keys, open): (Vec<&str>, Vec<&str>) = document.split('"').partition(|text| is_key(text));
    for key in keys {
        let (half, other) = key.split_at(KEY_DIGITS / 2);
        for half in [half, other] {
            let is_secret = !open.iter().any(|text| text.contains(half));
            assert!(!is_secret || !message.contains(half), "an error repeats a key: {message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdeffedcba9876543210fedcba9876543210";

    #[test]
    fn what_stands_in_the_open_may_be_repeated() {
        let half = &KEY[..KEY_DIGITS / 2];
        assert_kept(format!("{{\"key\":\"{KEY}\",\"org\":\"a {half}\"}}").as_bytes(), &format!("a {half}"));
    }

    #[test]
    #[should_panic(expected = "repeats a key")]
    fn half_a_key_is_noticed() {
        let half = &KEY[KEY_DIGITS / 2..];
        assert_kept(format!("{{\"key\":\"{KEY}\"}}").as_bytes(), &format!("a {half}"));
    }
}
