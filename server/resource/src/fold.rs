//! Names that some readers of JSON take for one: those that do not tell upper from lower case.

/// Whether two names are the same to such a reader. Two letters beyond ASCII fold to letters within it.
pub fn same_but_for_case(one: &str, other: &str) -> bool {
    let folded = |name: &str| -> String {
        let plain = |sign: char| match sign {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            sign => sign,
        };
        name.chars().map(plain).flat_map(char::to_lowercase).collect()
    };
    folded(one) == folded(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_alone_does_not_tell_names_apart() {
        for (one, other) in [
            ("name", "NAME"),
            ("arguments", "argument\u{17f}"),
            ("task", "TAS\u{212a}"),
            ("\u{e9}", "\u{c9}"),
        ] {
            assert!(same_but_for_case(one, other), "{one} {other}");
        }
        assert!(!same_but_for_case("name", "names"));
    }
}
