//! Patterns: which resources a scope covers, and which arguments it allows.
//!
//! Two languages that look alike and are not (TBAC r41, sections 3.2, 3.3 and 8.1). Resource patterns work on
//! whole segments between `/`; parameter patterns work on bytes. Both are matched without backtracking.

/// One segment of a resource pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Segment {
    /// Exactly these bytes (`\*` stands for a star).
    Literal(String),
    /// `*`: exactly one segment, and not an empty one: some readers drop those.
    One,
    /// `**`: any number of segments, also none.
    Many,
}

impl Segment {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Literal(text) if text.is_empty())
    }
}

/// The most work one comparison of resources may cost: the product of their lengths in segments. Two patterns of
/// 1,024 segments each stay within it; a pair beyond it is not in the relation.
const MAX_RESOURCE_STEPS: usize = 1 << 20;

/// A resource pattern, split into segments. Nothing is normalised: `a//b` has an empty segment in the middle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResourcePattern {
    segments: Vec<Segment>,
}

impl ResourcePattern {
    /// Splits a pattern.
    pub fn parse(pattern: &str) -> Self {
        let segments = pattern
            .split('/')
            .map(|segment| match segment {
                "*" => Segment::One,
                "**" => Segment::Many,
                literal => Segment::Literal(literal.replace("\\*", "*")),
            })
            .collect();
        Self { segments }
    }

    /// Whether everything this pattern covers is covered by `parent` (section 8.1).
    ///
    /// Two literal patterns are in the relation when the parent is a whole-segment prefix of the child; otherwise
    /// segments are compared one by one, and `*` covers one segment, `**` any number. The relation is not
    /// transitive across the two rules, on purpose: compare child and parent directly, never through a third.
    pub fn is_within(&self, parent: &Self) -> bool {
        let literal = |pattern: &Self| pattern.segments.iter().all(|s| matches!(s, Segment::Literal(_)));
        if literal(self) && literal(parent) {
            return self.segments.starts_with(&parent.segments);
        }
        self.segments_within(parent)
    }

    /// Dynamic programming over segments: `covered[i]` tells whether the child's first `i` segments are covered
    /// by the parent's segments read so far. Time is the product of the two lengths in segments, which is bounded.
    fn segments_within(&self, parent: &Self) -> bool {
        if self.segments.len().saturating_mul(parent.segments.len()) > MAX_RESOURCE_STEPS {
            return false;
        }
        let mut covered = vec![false; self.segments.len() + 1];
        if let Some(empty) = covered.first_mut() {
            *empty = true;
        }
        for segment in &parent.segments {
            covered = if *segment == Segment::Many {
                covered
                    .iter()
                    .scan(false, |reached, now| {
                        *reached |= *now;
                        Some(*reached)
                    })
                    .collect()
            } else {
                let steps = covered.iter().zip(&self.segments).map(|(now, child)| {
                    *now && match segment {
                        Segment::One => *child != Segment::Many && !child.is_empty(),
                        literal => child == literal,
                    }
                });
                core::iter::once(false).chain(steps).collect()
            };
        }
        covered.last().copied().unwrap_or(false)
    }
}

/// Whether a scope's `resource` allows a request for `requested`.
///
/// A bare `*` as the whole of a token's resource means the whole tool, as does `**`; in every other place `*` is
/// one segment.
pub fn resource_allows(granted: &str, requested: &str) -> bool {
    granted == "*"
        || short_within(requested, granted)
            .unwrap_or_else(|| ResourcePattern::parse(requested).is_within(&ResourcePattern::parse(granted)))
}

/// [`ResourcePattern::is_within`] without allocation, for what is asked on every call: a child of up to 63 segments, and
/// no escaped stars on either side. `None` where that does not hold.
fn short_within(child: &str, parent: &str) -> Option<bool> {
    const MAX_SEGMENTS: usize = 63;
    let (child, parent) = (child.as_bytes(), parent.as_bytes());
    let segments = segments_of(child).count();
    if segments > MAX_SEGMENTS || child.contains(&b'\\') || parent.contains(&b'\\') {
        return None;
    }
    let is_wild = |segment: &[u8]| matches!(segment, b"*" | b"**");
    if !segments_of(child).any(is_wild) {
        // `**` at the end is whatever follows a whole segment, which a prefix means without it.
        let prefix = parent.strip_suffix(b"/**").unwrap_or(parent);
        if !segments_of(prefix).any(is_wild) {
            return Some(child.strip_prefix(prefix).is_some_and(|rest| matches!(rest, [] | [b'/', ..])));
        }
    }
    // Bit `i` of a set: the child's first `i` segments; of a mask: its segment `i`.
    let mask = |takes: &dyn Fn(&[u8]) -> bool| {
        let bits = segments_of(child).enumerate().filter(|(_, segment)| takes(segment));
        bits.fold(0_u64, |bits, (place, _)| bits | 1 << place)
    };
    let mut covered = 1_u64;
    for segment in segments_of(parent) {
        covered = match segment {
            // From the first position that is covered on, all are.
            b"**" => covered | covered.wrapping_neg(),
            b"*" => (covered & mask(&|child| child != b"**" && !child.is_empty())) << 1,
            literal => (covered & mask(&|child| child == literal)) << 1,
        };
    }
    Some(covered >> segments & 1 == 1)
}

/// What stands between the `/`, byte by byte: segments are short, and searching text is made for long ones.
fn segments_of(resource: &[u8]) -> impl Iterator<Item = &[u8]> {
    resource.split(|byte| *byte == b'/')
}

/// The most work one argument may cost: pattern words times argument bytes. An argument of a mebibyte against a
/// pattern of 1,024 bytes stays below it.
const MAX_PARAMETER_STEPS: usize = 1 << 24;

/// Whether an argument matches a pattern of `allowed_parameters`: `*` is any run without `/`, `**` any run, `?`
/// one byte but `/`, and `\` takes the next byte as it is.
///
/// Runs an automaton with one bit for each byte of the pattern, 64 at a time, so no pattern can make it
/// backtrack. An argument that would cost more than a fixed bound does not match.
pub fn parameter_matches(pattern: &[u8], argument: &[u8]) -> bool {
    let automaton = Automaton::new(pattern);
    if automaton.words().saturating_mul(argument.len()) > MAX_PARAMETER_STEPS {
        return false;
    }
    automaton.accepts(argument)
}

/// Whether everything `child` matches is matched by `parent`, as far as that is easy to prove: the two patterns are
/// the same, or the child has no wildcard and the parent matches what it spells out. Other pairs are refused, some
/// of them wrongly: to prove two general patterns a subset costs exponential time in the worst case.
pub fn parameter_is_within(child: &[u8], parent: &[u8]) -> bool {
    child == parent || spelled_out(child).is_some_and(|argument| parameter_matches(parent, &argument))
}

/// The one argument that a pattern without wildcards matches.
fn spelled_out(pattern: &[u8]) -> Option<Vec<u8>> {
    let mut argument = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, tail) = match (first, tail) {
            (b'*' | b'?', _) => return None,
            (b'\\', [escaped, tail @ ..]) => (*escaped, tail),
            (byte, tail) => (byte, tail),
        };
        argument.push(byte);
        rest = tail;
    }
    Some(argument)
}

/// What a pattern takes at one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Atom {
    Byte(u8),
    AnyButSlash,
}

/// Position `i` means that the first `i` atoms have been matched. A star is not an atom: it lets its position loop.
struct Automaton {
    atoms: Vec<Atom>,
    /// Positions that may stay where they are on any byte but `/`.
    loops: Vec<u64>,
    /// Positions that may stay where they are on any byte.
    loops_slash: Vec<u64>,
}

impl Automaton {
    fn new(pattern: &[u8]) -> Self {
        let words = pattern.len() / 64 + 1;
        let mut automaton = Self { atoms: Vec::new(), loops: vec![0; words], loops_slash: vec![0; words] };
        let mut rest = pattern;
        while let Some((&first, tail)) = rest.split_first() {
            rest = match (first, tail) {
                (b'*', [b'*', tail @ ..]) => {
                    set(&mut automaton.loops, automaton.atoms.len());
                    set(&mut automaton.loops_slash, automaton.atoms.len());
                    tail
                }
                (b'*', tail) => {
                    set(&mut automaton.loops, automaton.atoms.len());
                    tail
                }
                (b'\\', [escaped, tail @ ..]) => {
                    automaton.atoms.push(Atom::Byte(*escaped));
                    tail
                }
                (b'?', tail) => {
                    automaton.atoms.push(Atom::AnyButSlash);
                    tail
                }
                (byte, tail) => {
                    automaton.atoms.push(Atom::Byte(byte));
                    tail
                }
            };
        }
        automaton
    }

    fn words(&self) -> usize {
        self.loops.len()
    }

    fn accepts(&self, argument: &[u8]) -> bool {
        let mut steps = Steps::new(&self.atoms, self.words());
        let mut positions = vec![0_u64; self.words()];
        set(&mut positions, 0);
        for &byte in argument {
            let loops = if byte == b'/' { &self.loops_slash } else { &self.loops };
            let step = steps.on(byte);
            let mut carry = 0;
            for ((position, step), stay) in positions.iter_mut().zip(step).zip(loops) {
                let moved = *position & step;
                let next = moved << 1 | carry | *position & stay;
                carry = moved >> 63;
                *position = next;
            }
        }
        is_set(&positions, self.atoms.len())
    }
}

/// For each byte that occurs, the positions whose atom takes it; worked out the first time the byte is seen.
struct Steps<'a> {
    atoms: &'a [Atom],
    words: usize,
    known: [Option<Box<[u64]>>; 256],
}

impl<'a> Steps<'a> {
    fn new(atoms: &'a [Atom], words: usize) -> Self {
        Self { atoms, words, known: [const { None }; 256] }
    }

    fn on(&mut self, byte: u8) -> &[u64] {
        let Self { atoms, words, known } = self;
        known.get_mut(usize::from(byte)).map_or(&[], |slot| {
            slot.get_or_insert_with(|| {
                let mut bits = vec![0; *words];
                for (position, atom) in atoms.iter().enumerate() {
                    let takes = match atom {
                        Atom::Byte(own) => *own == byte,
                        Atom::AnyButSlash => byte != b'/',
                    };
                    if takes {
                        set(&mut bits, position);
                    }
                }
                bits.into()
            })
        })
    }
}

fn set(bits: &mut [u64], position: usize) {
    if let Some(word) = bits.get_mut(position / 64) {
        *word |= 1 << (position % 64);
    }
}

fn is_set(bits: &[u64], position: usize) -> bool {
    bits.get(position / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn within(child: &str, parent: &str) -> bool {
        ResourcePattern::parse(child).is_within(&ResourcePattern::parse(parent))
    }

    #[test]
    fn the_published_examples_hold() {
        for (child, parent) in [
            ("*", "*"),
            ("public/*", "public/*"),
            ("public/docs", "public/*"),
            ("public/docs/api", "public/**"),
            ("public/docs/api", "public/docs"),
            ("\\*name", "*"),
            ("*", "**"),
            ("a/b/c", "**"),
            ("a/b", "a/**/b"),
            ("a/x/y/b", "a/**/b"),
            ("a/**", "a/**"),
        ] {
            assert!(within(child, parent), "{child} is within {parent}");
        }
        for (child, parent) in [
            ("public/docs", "public/docs/api"),
            ("public/docs/api", "public/*"),
            ("public/docs", "public/do"),
            ("*", "public/*"),
            ("**", "*"),
            ("a/**", "a/*"),
            ("a/b", "*"),
            ("a//b", "a/b"),
            ("a//b", "a/*/b"),
            ("a/", "a/*"),
            ("", "*"),
            ("a/../b", "a/b"),
        ] {
            assert!(!within(child, parent), "{child} is not within {parent}");
        }
    }

    #[test]
    fn a_bare_star_as_a_whole_resource_means_the_tool() {
        assert!(resource_allows("*", "a/b"));
        assert!(resource_allows("**", "a/b"));
        assert!(!resource_allows("public/*", "*"));
    }

    #[test]
    fn the_short_way_steps_back_where_it_cannot_tell() {
        let segments = |count: usize| vec!["a"; count].join("/");
        assert_eq!(short_within(&segments(63), "**"), Some(true));
        assert_eq!(short_within(&segments(63), &segments(63)), Some(true));
        assert_eq!(short_within(&segments(64), "**"), None);
        assert!(resource_allows("**", &segments(64)));
        assert_eq!(short_within("\\*a", "*"), None);
        assert!(resource_allows("\\*a", "*a"));
        assert!(resource_allows("*/a", "b/a") && !resource_allows("*/a", "**/a"));
    }

    #[test]
    fn resources_over_the_step_bound_are_not_in_the_relation() {
        let segments = |count: usize| vec!["*"; count].join("/");
        assert!(within(&segments(1024), &segments(1024)));
        assert!(!within(&segments(1025), &segments(1024)));
    }

    fn matches(pattern: &str, argument: &str) -> bool {
        parameter_matches(pattern.as_bytes(), argument.as_bytes())
    }

    #[test]
    fn parameter_patterns_match_bytes() {
        for (pattern, argument) in [
            ("/reports/*", "/reports/q3.pdf"),
            ("/reports/**", "/reports/2025/q3.pdf"),
            ("a?c", "abc"),
            ("\\*", "*"),
            ("\\?", "?"),
            ("\\\\", "\\"),
            ("", ""),
            ("*", ""),
            ("**", "a/b"),
            ("*.pdf", "a.pdf.pdf"),
            ("??", "é"),
        ] {
            assert!(matches(pattern, argument), "{pattern} matches {argument}");
        }
        for (pattern, argument) in [
            ("/reports/*", "/reports/2025/q3.pdf"),
            ("a?c", "a/c"),
            ("a?c", "ac"),
            ("\\*", "x"),
            ("", "x"),
            ("*", "a/b"),
            ("?", "é"),
        ] {
            assert!(!matches(pattern, argument), "{pattern} does not match {argument}");
        }
    }

    #[test]
    fn a_parameter_pattern_is_within_another_only_where_that_is_proven() {
        for (child, parent) in
            [("a*", "a*"), ("abc", "a*"), ("a/b", "**"), ("\\*", "?"), ("x", "x"), ("\\a", "a")]
        {
            assert!(parameter_is_within(child.as_bytes(), parent.as_bytes()), "{child} is within {parent}");
        }
        for (child, parent) in [("**", "*"), ("a/b", "*"), ("?", "a"), ("ab*", "a*"), ("", "?"), ("b", "a")] {
            assert!(!parameter_is_within(child.as_bytes(), parent.as_bytes()), "{child}, {parent}");
        }
    }

    #[test]
    fn a_pattern_made_to_backtrack_is_matched_all_the_same() {
        let pattern = "*a".repeat(60) + "b";
        assert!(!matches(&pattern, &"a".repeat(100_000)));
        assert!(matches(&pattern, &("a".repeat(100_000) + "b")));
    }

    #[test]
    fn an_argument_over_the_step_bound_does_not_match() {
        let words = 1 << 8;
        let pattern = "**".to_owned() + &"?".repeat(64 * words - 64);
        assert!(matches(&pattern, &"a".repeat(64 * words)));
        assert!(!matches(&pattern, &"a".repeat(MAX_PARAMETER_STEPS / words + 1)));
    }

    /// Says the same by brute force.
    fn naive(pattern: &[u8], argument: &[u8]) -> bool {
        match pattern {
            [] => argument.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=argument.len()).any(|skip| naive(rest, &argument[skip..])),
            [b'*', rest @ ..] => {
                let run = argument.iter().position(|byte| *byte == b'/').unwrap_or(argument.len());
                (0..=run).any(|skip| naive(rest, &argument[skip..]))
            }
            [b'\\', escaped, rest @ ..] => argument.first() == Some(escaped) && naive(rest, &argument[1..]),
            [b'?', rest @ ..] => argument.first().is_some_and(|b| *b != b'/') && naive(rest, &argument[1..]),
            [byte, rest @ ..] => argument.first() == Some(byte) && naive(rest, &argument[1..]),
        }
    }

    proptest! {
        #[test]
        fn the_short_way_agrees_with_the_long_one(child in "(a|b|\\*|\\*\\*|/|//|ab|a\\*){0,8}", parent in "(a|b|\\*|\\*\\*|/|ab|a\\*){0,8}") {
            prop_assert_eq!(short_within(&child, &parent), Some(within(&child, &parent)), "{} in {}", child, parent);
        }

        #[test]
        fn the_automaton_agrees_with_brute_force(pattern in "[ab/*?\\\\]{0,9}", argument in "[ab/*?]{0,9}") {
            prop_assert_eq!(
                parameter_matches(pattern.as_bytes(), argument.as_bytes()),
                naive(pattern.as_bytes(), argument.as_bytes())
            );
        }
    }
}
