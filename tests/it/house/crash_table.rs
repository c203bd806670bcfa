//! The crash table in `docs/design.md`, and the table of files that belong together, name a test for each of their lines,
//! and each of these tests exists and is run.

use std::path::PathBuf;

use super::root;

/// The lines of the table under a heading, without its own head.
fn lines(heading: &str) -> Vec<String> {
    let document = std::fs::read_to_string(root().join("docs/design.md")).unwrap();
    let section = document.split(&format!("\n## {heading}\n")).nth(1).expect("docs/design.md has the table");
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    lines.map(str::to_owned).collect()
}

/// What stands in backquotes in the last column.
pub(crate) fn names(line: &str) -> Vec<&str> {
    let last = line.trim_end_matches('|').rsplit('|').next().unwrap();
    last.split('`').skip(1).step_by(2).collect()
}

/// Where the tests of a module can stand.
fn files(module: &str) -> Vec<PathBuf> {
    let path = module.replace("::", "/");
    let mut folders = vec![root().join("tests/it")];
    for floor in ["engine", "server", "client"] {
        for package in std::fs::read_dir(root().join(floor)).unwrap() {
            let package = package.unwrap().path();
            folders.extend(["src", "tests"].map(|folder| package.join(folder)));
        }
    }
    let endings = [".rs", "/mod.rs", "/tests.rs"];
    folders.iter().flat_map(|folder| endings.map(|ending| folder.join(format!("{path}{ending}")))).collect()
}

/// Whether the text has a test of that name that is not left out.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let begins =
        |line: &&str| line.strip_prefix("async ").unwrap_or(line).starts_with(&format!("fn {name}("));
    let found = lines.iter().position(begins);
    found.is_some_and(|place| {
        let above = lines[..place].iter().rev().take_while(|line| line.starts_with("#["));
        let attributes: Vec<_> = above.collect();
        let is_test =
            attributes.iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
        is_test && !attributes.iter().any(|line| line.starts_with("#[ignore"))
    })
}

pub(crate) fn exists(name: &str) -> bool {
    let Some((module, test)) = name.rsplit_once("::") else { return false };
    files(module).iter().any(|file| std::fs::read_to_string(file).is_ok_and(|text| has_test(&text, test)))
}

fn every_line_names_tests_that_exist(heading: &str, least: usize) {
    let lines = lines(heading);
    assert!(lines.len() >= least, "the table has shrunk to {} lines", lines.len());
    for line in &lines {
        let names = names(line);
        assert!(!names.is_empty(), "no test: {line}");
        for name in names {
            assert!(exists(name), "there is no test {name}: {line}");
        }
    }
}

#[test]
fn every_line_of_the_crash_table_names_tests_that_exist() {
    every_line_names_tests_that_exist("Crash table", 15);
}

#[test]
fn every_pair_of_files_that_belong_together_names_tests_that_exist() {
    every_line_names_tests_that_exist("Files that belong together", 8);
}

#[test]
fn a_test_that_is_missing_left_out_or_no_test_is_noticed() {
    assert!(has_test("    #[test]\n    fn a() {", "a"));
    assert!(has_test("#[tokio::test]\nasync fn a() {", "a"));
    assert!(!has_test("#[test]\nfn ab() {", "a"));
    assert!(!has_test("fn a() {", "a"));
    assert!(!has_test("#[test]\n#[ignore = \"slow\"]\nfn a() {", "a"));
    assert!(!exists("power_loss::random_crashes::nothing") && !exists("power_loss"));
}
