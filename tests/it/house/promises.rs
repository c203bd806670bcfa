//! `docs/promises.md` names, for each promise of README, `docs/threats.md` and `docs/operations.md`, the tests that
//! attack it; these tests exist, and no promise was left out.

use std::collections::BTreeSet;

use super::crash_table::{exists, names};
use super::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// What is under a heading, up to the next one of its rank or above.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let rank = heading.split(' ').next().unwrap();
    let text = document.split(&format!("\n{heading}\n")).nth(1).unwrap_or_else(|| panic!("no {heading}"));
    let ends = |line: &str| line.starts_with('#') && line.split(' ').next().unwrap().len() <= rank.len();
    let end = text.split_inclusive('\n').take_while(|line| !ends(line)).map(str::len).sum();
    &text[..end]
}

/// The lines of the tables in a text, without their heads.
fn rows(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let is_head = |place: usize| lines.get(place + 1).is_some_and(|next| next.starts_with("|---"));
    let rows =
        lines.iter().enumerate().filter(|(_, line)| line.starts_with('|') && !line.starts_with("|---"));
    rows.filter(|(place, _)| !is_head(*place)).map(|(_, line)| *line).collect()
}

fn first_cell(row: &str) -> &str {
    row.trim_start_matches('|').split('|').next().unwrap().trim()
}

fn first_cells(text: &str) -> BTreeSet<&str> {
    rows(text).into_iter().map(first_cell).collect()
}

#[test]
fn every_promise_names_tests_that_exist() {
    let document = read("docs/promises.md");
    let rows = rows(&document);
    assert!(rows.len() >= 50, "the tables have shrunk to {} lines", rows.len());
    for row in rows {
        let names = names(row);
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            assert!(exists(name), "there is no test {name}: {row}");
        }
    }
}

#[test]
fn every_promise_of_the_readme_is_listed() {
    let (readme, document) = (read("README.md"), read("docs/promises.md"));
    let listed = first_cells(section(&document, "## README"));
    let promised = section(&readme, "## Promises");
    let numbers = promised.lines().filter_map(|line| line.split_once(". ")).map(|(number, _)| number);
    let numbers: Vec<&str> = numbers.filter(|number| number.parse::<u8>().is_ok()).collect();
    assert!(numbers.len() >= 8, "README promises only {numbers:?}");
    for number in numbers {
        assert!(listed.iter().any(|cell| cell.starts_with(&format!("{number}. "))), "promise {number}");
    }
}

#[test]
fn every_attacker_and_every_part_of_the_threats_is_listed() {
    let (threats, document) = (read("docs/threats.md"), read("docs/promises.md"));
    let listed = first_cells(section(&document, "## Threats"));
    for attacker in first_cells(section(&threats, "## Who attacks")) {
        assert!(listed.contains(attacker), "threats.md: {attacker}");
    }
    let checks = section(&threats, "## What each part checks");
    let parts = checks.lines().filter_map(|line| line.strip_prefix("- **")?.split_once("**"));
    for (part, _) in parts {
        let part = part.trim_end_matches(':');
        assert!(listed.contains(part), "threats.md, what each part checks: {part}");
    }
}

#[test]
fn every_part_of_the_operations_page_is_listed() {
    let (operations, document) = (read("docs/operations.md"), read("docs/promises.md"));
    let listed = first_cells(section(&document, "## Operations"));
    let headings =
        operations.lines().filter_map(|line| line.strip_prefix("## ").or(line.strip_prefix("### ")));
    for heading in headings {
        assert!(listed.iter().any(|cell| cell.starts_with(heading)), "operations.md: {heading}");
    }
}

#[test]
fn a_row_without_its_test_or_a_promise_without_its_row_is_noticed() {
    let text = "# T\n## A\n| promise | tests |\n|---|---|\n| 1. x | `m::t` |\n### B\n| y | |\n## C\n| z | `m::u` |\n";
    assert_eq!(rows(section(text, "## A")), ["| 1. x | `m::t` |", "| y | |"]);
    assert_eq!(first_cells(section(text, "## A")), BTreeSet::from(["1. x", "y"]));
    assert!(names("| y | |").is_empty());
    assert!(!exists("m::t"));
}

/// Names of tests in a page: a path in backquotes whose last part is a sentence.
fn tests_named_in(page: &str) -> BTreeSet<&str> {
    let quoted = page.split('`').skip(1).step_by(2);
    let is_path = |text: &&str| {
        text.split("::").all(|part| {
            part.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit()) && !part.is_empty()
        })
    };
    let is_sentence =
        |text: &&str| text.rsplit_once("::").is_some_and(|(_, name)| name.matches('_').count() >= 3);
    quoted.filter(is_path).filter(is_sentence).collect()
}

#[test]
fn a_test_that_any_page_names_exists() {
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let page = std::fs::read_to_string(&path).unwrap();
            for name in tests_named_in(&page) {
                assert!(exists(name), "{}: there is no test {name}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 150, "the pages name only {seen} tests");
    assert_eq!(tests_named_in("`a::no_such_test_at_all` and `std::fs::read`").len(), 1);
    assert!(!exists("a::no_such_test_at_all"));
}
