//! Both pattern languages once more, straight from their rules (TBAC r41, sections 3.2, 3.3 and 8.1): slow, and
//! obviously right. Nothing here is shared with `obol_token::pattern`.

use crate::control::planted;

/// What a parameter pattern is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    Byte(u8),
    /// `?`: one byte but `/`.
    One,
    /// `*`: any run without `/`.
    Run,
    /// `**`: any run.
    AnyRun,
}

fn pieces(pattern: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < pattern.len() {
        let next = pattern.get(at + 1).copied();
        let (piece, length) = match (pattern[at], next) {
            (b'*', Some(b'*')) => (Piece::AnyRun, 2),
            (b'*', _) => (Piece::Run, 1),
            (b'?', _) => (Piece::One, 1),
            (b'\\', Some(escaped)) => (Piece::Byte(escaped), 2),
            // An escape with nothing behind it stands for itself.
            (byte, _) => (Piece::Byte(byte), 1),
        };
        pieces.push(piece);
        at += length;
    }
    pieces
}

/// Whether `argument` matches a pattern of `allowed_parameters`: one table, filled from the back.
pub fn parameter_matches(pattern: &[u8], argument: &[u8]) -> bool {
    let pieces = pieces(pattern);
    let ends = argument.len();
    // below[a]: whether the pieces after the present one match argument[a..].
    let mut below = vec![false; ends + 1];
    below[ends] = true;
    for piece in pieces.iter().rev() {
        let mut here = vec![false; ends + 1];
        for from in (0..=ends).rev() {
            let first = argument.get(from).copied();
            let rest = |table: &[bool]| table.get(from + 1).copied().unwrap_or(false);
            here[from] = match piece {
                Piece::Byte(byte) => first == Some(*byte) && rest(&below),
                Piece::One => first.is_some_and(|byte| byte != b'/' || planted()) && rest(&below),
                Piece::Run => below[from] || first.is_some_and(|byte| byte != b'/') && rest(&here),
                Piece::AnyRun => below[from] || first.is_some() && rest(&here),
            };
        }
        below = here;
    }
    below[0]
}

/// What a resource pattern is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Segment {
    Literal(String),
    /// `*`: exactly one segment that is not empty.
    One,
    /// `**`: any number of segments.
    Many,
}

/// The pattern's segments. Only a whole segment is a wildcard, and `\*` is a star that is none.
pub fn segments(pattern: &str) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut rest = Some(pattern);
    while let Some(text) = rest {
        let (segment, after) = match text.find('/') {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        rest = after;
        segments.push(match segment {
            "*" => Segment::One,
            "**" => Segment::Many,
            literal => Segment::Literal(unescape(literal)),
        });
    }
    segments
}

fn unescape(segment: &str) -> String {
    let mut out = String::new();
    let mut characters = segment.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\\' && characters.peek() == Some(&'*') {
            continue;
        }
        out.push(character);
    }
    out
}

pub fn is_literal(segments: &[Segment]) -> bool {
    segments.iter().all(|segment| matches!(segment, Segment::Literal(_)))
}

/// The relation of section 8.1, by its two rules. Exponential: for short patterns only.
pub fn resource_is_within(child: &[Segment], parent: &[Segment]) -> bool {
    if is_literal(child) && is_literal(parent) {
        return child.len() >= parent.len()
            && child.iter().zip(parent).all(|(child, parent)| child == parent);
    }
    covered(child, parent)
}

fn covered(child: &[Segment], parent: &[Segment]) -> bool {
    let Some((first, parents)) = parent.split_first() else { return child.is_empty() };
    match first {
        Segment::Many => {
            covered(child, parents)
                || child.split_first().is_some_and(|(_, children)| covered(children, parent))
        }
        Segment::One => child.split_first().is_some_and(|(segment, children)| {
            let empty = Segment::Literal(String::new());
            ![Segment::Many, empty].contains(segment) && covered(children, parents)
        }),
        Segment::Literal(_) => child
            .split_first()
            .is_some_and(|(segment, children)| segment == first && covered(children, parents)),
    }
}

/// Whether a path, already split, is one of those that the pattern spells out.
pub fn resource_names(pattern: &[Segment], path: &[&str]) -> bool {
    let Some((first, patterns)) = pattern.split_first() else { return path.is_empty() };
    match first {
        Segment::Many => (0..=path.len()).any(|skipped| resource_names(patterns, &path[skipped..])),
        Segment::One => {
            path.split_first().is_some_and(|(name, rest)| !name.is_empty() && resource_names(patterns, rest))
        }
        Segment::Literal(text) => {
            path.split_first().is_some_and(|(name, rest)| name == text && resource_names(patterns, rest))
        }
    }
}

/// Every sequence over `alphabet` of at most `longest` members.
pub fn all_up_to<T: Copy>(alphabet: &[T], longest: usize) -> Vec<Vec<T>> {
    let mut all = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..longest {
        let until = all.len();
        for index in from..until {
            for member in alphabet {
                let mut longer = all[index].clone();
                longer.push(*member);
                all.push(longer);
            }
        }
        from = until;
    }
    all
}
