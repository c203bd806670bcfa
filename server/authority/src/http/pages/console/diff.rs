//! What differs between two texts, line by line. It costs a bounded amount, whatever the texts are.

/// How many pairs of lines are compared at the most: beyond it all old lines go and all new ones come.
const MAX_CELLS: usize = 2_000_000;
/// Lines around a change that are shown.
const CONTEXT: usize = 3;
/// The most lines that are shown of one text.
const MAX_LINES: usize = 1_000;
/// The longest line that is shown, in characters.
const MAX_CHARS: usize = 400;

/// What became of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Kept,
    Gone,
    Came,
    /// Lines are left out here.
    Hidden,
}

/// A line of either text, or of both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Line {
    pub(super) fate: Fate,
    pub(super) text: String,
}

impl Line {
    fn of(fate: Fate, text: &str) -> Self {
        Self { fate, text: super::shown(text).chars().take(MAX_CHARS).collect() }
    }

    /// What stands before it, also for those who see no colours.
    pub(super) fn sign(&self) -> &'static str {
        match self.fate {
            Fate::Kept => " ",
            Fate::Gone => "-",
            Fate::Came => "+",
            Fate::Hidden => "…",
        }
    }

    /// As the stylesheet calls it.
    pub(super) fn class(&self) -> &'static str {
        match self.fate {
            Fate::Kept | Fate::Hidden => "same",
            Fate::Gone => "gone",
            Fate::Came => "came",
        }
    }
}

/// The lines around each change.
pub(super) fn lines(old: &str, new: &str) -> Vec<Line> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = |(one, other): &(&&str, &&str)| one == other;
    let before = old.iter().zip(&new).take_while(same).count();
    let (old_rest, new_rest) = (old.get(before..).unwrap_or_default(), new.get(before..).unwrap_or_default());
    let behind = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(same).count();
    let middle = |lines: &[&str]| lines.len().saturating_sub(behind);
    let (gone, came) = (
        old_rest.get(..middle(old_rest)).unwrap_or_default(),
        new_rest.get(..middle(new_rest)).unwrap_or_default(),
    );
    let kept = |lines: &[&str]| lines.iter().map(|line| (Fate::Kept, (*line).to_owned())).collect::<Vec<_>>();
    let mut all = kept(old.get(..before).unwrap_or_default());
    all.extend(edits(gone, came).into_iter().map(|(fate, line)| (fate, line.to_owned())));
    all.extend(kept(old_rest.get(middle(old_rest)..).unwrap_or_default()));
    around(&all)
}

/// Leaves out what is far from every change.
fn around(all: &[(Fate, String)]) -> Vec<Line> {
    let is_near = |place: usize| {
        let from = place.saturating_sub(CONTEXT);
        all.iter().skip(from).take(place - from + CONTEXT + 1).any(|(fate, _)| *fate != Fate::Kept)
    };
    let (mut shown, mut hidden) = (Vec::new(), 0_usize);
    let leave_out = |shown: &mut Vec<Line>, hidden: &mut usize| {
        if core::mem::take(hidden) > 0 {
            shown.push(Line::of(Fate::Hidden, ""));
        }
    };
    for (place, (fate, text)) in all.iter().enumerate() {
        if shown.len() >= MAX_LINES {
            shown.push(Line::of(Fate::Hidden, "there is more"));
            return shown;
        }
        if is_near(place) {
            leave_out(&mut shown, &mut hidden);
            shown.push(Line::of(*fate, text));
        } else {
            hidden += 1;
        }
    }
    if shown.is_empty() {
        return shown;
    }
    leave_out(&mut shown, &mut hidden);
    shown
}

/// The lines that both have, as many as can be in order, and between them those that went and came. Where there are too many to
/// look, all went and all came.
fn edits<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(Fate, &'a str)> {
    let width = new.len() + 1;
    if old.len().saturating_mul(width) > MAX_CELLS {
        let gone = old.iter().map(|line| (Fate::Gone, *line));
        return gone.chain(new.iter().map(|line| (Fate::Came, *line))).collect();
    }
    // How many lines the rests behind each pair of places have in common.
    let mut common = vec![0_u32; (old.len() + 1) * width];
    let of = |common: &[u32], at: usize, to: usize| common.get(at * width + to).copied().unwrap_or_default();
    for (at, one) in old.iter().enumerate().rev() {
        for (to, other) in new.iter().enumerate().rev() {
            let most = match one == other {
                true => of(&common, at + 1, to + 1) + 1,
                false => of(&common, at + 1, to).max(of(&common, at, to + 1)),
            };
            if let Some(cell) = common.get_mut(at * width + to) {
                *cell = most;
            }
        }
    }
    let (mut at, mut to, mut found) = (0, 0, Vec::new());
    loop {
        match (old.get(at), new.get(to)) {
            (Some(one), Some(other)) if one == other => {
                found.push((Fate::Kept, *one));
                (at, to) = (at + 1, to + 1);
            }
            (Some(one), other) if other.is_none() || of(&common, at + 1, to) >= of(&common, at, to + 1) => {
                found.push((Fate::Gone, *one));
                at += 1;
            }
            (_, Some(other)) => {
                found.push((Fate::Came, *other));
                to += 1;
            }
            (_, None) => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(old: &str, new: &str) -> String {
        lines(old, new).iter().map(|line| format!("{}{};", line.sign(), line.text)).collect()
    }

    #[test]
    fn what_differs_is_told_with_the_lines_around_it_and_nothing_else() {
        assert_eq!(told("a\nb\nc", "a\nb\nc"), "");
        assert_eq!(told("a\nb\nc", "a\nx\nc"), " a;-b;+x; c;");
        assert_eq!(told("", "a"), "+a;");
        assert_eq!(told("a\nb", ""), "-a;-b;");
        let long: Vec<String> = (0..20).map(|line| line.to_string()).collect();
        let changed = long.join("\n").replace("10", "ten");
        assert_eq!(told(&long.join("\n"), &changed), "…; 7; 8; 9;-10;+ten; 11; 12; 13;…;");
    }

    #[test]
    fn either_text_can_be_read_from_what_is_told() {
        let (old, new) = ("a\nb\nc\na\nb\nb\na", "c\nb\na\nb\na\nc");
        let told = edits(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
        let without =
            |fate| told.iter().filter(|(it, _)| *it != fate).map(|(_, line)| *line).collect::<Vec<_>>();
        assert_eq!(without(Fate::Came), old.lines().collect::<Vec<_>>());
        assert_eq!(without(Fate::Gone), new.lines().collect::<Vec<_>>());
        assert_eq!(told.iter().filter(|(fate, _)| *fate == Fate::Kept).count(), 4);
    }

    #[test]
    fn texts_without_end_cost_a_bounded_amount_and_hide_nothing_that_steers() {
        let many = |word: &str| (0..50_000).map(|line| format!("{word}{line}\n")).collect::<String>();
        let shown = lines(&many("a"), &many("b"));
        assert_eq!(shown.len(), MAX_LINES + 1);
        assert_eq!(shown.last().unwrap().fate, Fate::Hidden);
        let long = lines("", &format!("\u{202e}{}", "x".repeat(10_000)));
        let escaped = r"\u202e";
        let text = format!("{escaped}{}", "x".repeat(MAX_CHARS - escaped.len()));
        assert_eq!(
            long.first().unwrap().text,
            text,
            "what would turn the line round is seen and does nothing"
        );
    }
}
