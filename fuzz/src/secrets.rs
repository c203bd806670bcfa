//! Errors must not repeat keys.

/// The length, in hex digits, of every key in a session document.
const KEY_DIGITS: usize = 64;

/// The keys in a document, wherever they stand: runs of exactly 64 hex digits between quotes.
fn keys(document: &str) -> impl Iterator<Item = &str> {
    document
        .split('"')
        .filter(|text| text.len() == KEY_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Fails when a message repeats a key of the document it is about, or half of one.
pub fn assert_kept(document: &[u8], message: &str) {
    let document = String::from_utf8_lossy(document);
    for key in keys(&document) {
        let (half, other) = key.split_at(KEY_DIGITS / 2);
        assert!(!message.contains(half) && !message.contains(other), "an error repeats a key: {message}");
    }
}
