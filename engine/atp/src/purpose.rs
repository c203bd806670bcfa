//! What a token is for, in the agent's words. It ends in logs, so it cannot hold what would change how a log looks.

/// The longest purpose, in bytes of UTF-8.
const MAX_PURPOSE_BYTES: usize = 256;

/// Code points of the category Cf (format), first and last of each range, as of Unicode 16: invisible, or they reorder
/// what stands around them.
const FORMAT: [(u32, u32); 21] = [
    (0x00AD, 0x00AD),
    (0x0600, 0x0605),
    (0x061C, 0x061C),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x180E, 0x180E),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x2064),
    (0x2066, 0x206F),
    (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFB),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0001, 0xE0001),
    (0xE0020, 0xE007F),
];

/// Whether a text may be a purpose: at most 256 bytes, no control or format character, no U+2028 or U+2029.
pub fn is_valid(text: &str) -> bool {
    text.len() <= MAX_PURPOSE_BYTES
        && (text.bytes().all(|byte| (0x20..0x7F).contains(&byte)) || text.chars().all(is_plain))
}

fn is_plain(character: char) -> bool {
    let code = u32::from(character);
    !character.is_control()
        && !matches!(code, 0x2028 | 0x2029)
        && !FORMAT.iter().any(|(first, last)| (*first..=*last).contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_change_how_a_log_looks_is_refused() {
        for good in ["", "Sync dashboard", "büro 😀 \"q\" \\ /", "\u{a0}"] {
            assert!(is_valid(good), "{good:?}");
        }
        for bad in
            ["a\nb", "\u{7f}", "\u{85}", "\u{202e}txt", "\u{200b}", "\u{feff}", "\u{2028}", "\u{e0041}"]
        {
            assert!(!is_valid(bad), "{bad:?}");
        }
        assert!(is_valid(&"é".repeat(128)) && !is_valid(&"é".repeat(129)));
    }
}
