//! The house rules that no compiler and no lint checks, over every Rust file of the tree. Each check finds a planted fault.
//!
//! What a rule still forgives stands in a list beside it, with its reason. A list may only shrink: an exception that is
//! not needed any more fails like a broken rule.

mod arrows;
mod calls;
mod circles;
mod imports;
mod json;
mod places;
mod public;
mod source;
mod words;

use std::collections::BTreeMap;

use source::Source;

/// Lines from `fn` to the closing brace.
const LONGEST_FUNCTION: usize = 70;
/// Lines.
const LONGEST_FILE: usize = 600;

/// Constants whose name is given from outside.
const FOREIGN_NAMES: [(&str, &str); 1] =
    [("TIME_WINDOW_SEC", "a field of the token format is called so in its specification")];

/// Import circles that stay: the package, its members in order, and why.
const CIRCLES: &[(&str, &[&str], &str)] = &[
    (
        "client/atp",
        &["client", "refresh"],
        "a client refreshes in the background, and that asks as the client",
    ),
    (
        "engine/policy",
        &["ask", "cases", "catalogue", "findings", "rules", "version"],
        "a version is what its parts make together; each reports findings about the others",
    ),
    (
        "engine/verify",
        &["cascade", "parts", "token", "verifier"],
        "the states of a token, and the steps between them",
    ),
    (
        "server/atp",
        &["builder", "keys", "provider", "request", "require", "router", "secrets", "store"],
        "what a provider keeps and what it answers are not told apart yet",
    ),
    ("server/atp", &["store::rows", "store::tokens"], "a token is kept as rows, and rows are read as tokens"),
    (
        "server/authority",
        &["directory::rules::ending", "directory::rules::sessions"],
        "opening a session ends the oldest, ending one looks at those that are open",
    ),
];

/// Longer than a page for now. Each is one list of cases or one loop whose steps belong together.
const LONG_FUNCTIONS: &[&str] = &[
    "server/authority/src/directory/redb/tests.rs: `a_file_answers_as_memory_does`",
    "tests/it/verify/cascade.rs: `faults_are_found_in_the_order_of_the_cascade`",
    "tests/it/handshake/second.rs: `handshake`",
];

/// The findings that no list excuses, and the excuses that nothing needs.
fn against(found: Vec<String>, excused: &[&str]) -> Vec<String> {
    let names = |finding: &String, excuse: &str| finding.starts_with(excuse);
    let new = found.iter().filter(|finding| !excused.iter().any(|excuse| names(finding, excuse))).cloned();
    let stale = excused.iter().filter(|excuse| !found.iter().any(|finding| names(finding, excuse)));
    new.chain(stale.map(|excuse| format!("not needed any more: {excuse}"))).collect()
}

fn findings(check: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    let sources = source::all();
    assert!(sources.len() > 300, "the tree has {} files", sources.len());
    sources.iter().flat_map(check).collect()
}

fn planted(text: &str) -> Source {
    Source::parse("engine/planted/src/planted.rs", text.to_owned())
}

fn header(source: &Source) -> Vec<String> {
    let opens = source.text.trim_start().starts_with("//!");
    if opens { vec![] } else { vec![format!("{}: does not open with `//!`", source.path)] }
}

fn long_file(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= LONGEST_FILE { vec![] } else { vec![format!("{}: {lines} lines", source.path)] }
}

fn long_functions(source: &Source) -> Vec<String> {
    let long = source.functions().into_iter().filter(|function| function.lines > LONGEST_FUNCTION);
    long.map(|function| format!("{}: `{}` has {} lines", source.path, function.name, function.lines))
        .collect()
}

/// A constant says its unit by its name, always with the same ending.
fn units(source: &Source) -> Vec<String> {
    let wrong = |constant: &source::Constant| {
        let name = constant.name.as_str();
        if name.ends_with("_SEC") && !name.ends_with("_PER_SEC") {
            return !FOREIGN_NAMES.iter().any(|(foreign, _)| *foreign == name);
        }
        let documentation = constant.documentation.to_lowercase();
        // A rate, and what is measured in another unit, only mention it.
        let says = |unit: &str| {
            let rest = documentation.split_once(unit).map(|(_, rest)| rest);
            rest.is_some_and(|rest| !rest.starts_with(" a second")) && !name.ends_with("_MS")
        };
        constant.is_number
            && ((says("in seconds") && !name.ends_with("_SECS"))
                || (says("in bytes") && !name.ends_with("_BYTES")))
    };
    let wrong = source.constants().into_iter().filter(wrong);
    wrong.map(|constant| format!("{}: `{}` does not end in its unit", source.path, constant.name)).collect()
}

/// One word where a secret is not shown.
fn redactions(source: &Source) -> Vec<String> {
    let other = |text: &String| {
        let text = text.to_lowercase();
        text.contains("redacted") && text.replace("[redacted]", "").contains("redacted")
    };
    let strings = source.strings().into_iter().filter(other);
    strings.map(|text| format!("{}: {text:?} is not `[redacted]`", source.path)).collect()
}

/// `foo/mod.rs`, never `foo.rs` beside `foo/`.
fn self_named(source: &Source) -> Vec<String> {
    let beside = source.path.strip_suffix(".rs").map(|stem| source::root().join(stem));
    let is_module = source.path.contains("/src/") || source.path.starts_with("tests/it/");
    let named = is_module && beside.is_some_and(|folder| folder.is_dir());
    if named { vec![format!("{}: stands beside the folder of its name", source.path)] } else { vec![] }
}

#[test]
fn nothing_is_public_under_two_names() {
    assert_eq!(findings(public::twice), Vec::<String>::new());
    for fault in [
        "pub mod a;\npub use a::A;\n",
        "pub mod a;\npub use {a::A, b::B};\n",
        "pub mod a;\npub use self::a::A;\n",
        "pub mod a;\npub use self::{a::{A as C}, b::B};\n",
        "pub mod a;\npub use a::*;\n",
        "pub mod a;\npub use self::a as c;\n",
        "pub mod c { pub mod a; pub use self::a::A; }\n",
        "mod a;\npub use a::A;\npub use {self::a::A as B};\n",
    ] {
        assert_eq!(public::twice(&planted(fault)).len(), 1, "{fault}");
    }
    let root = |text: &str| Source::parse("engine/planted/src/lib.rs", text.to_owned());
    assert_eq!(public::twice(&root("pub mod a;\npub use crate::a::A;\n")).len(), 1);
    for sound in [
        "mod a;\npub use a::A;\n",
        "mod a;\npub use {self::a::A, a::B};\n",
        "pub mod a;\nuse {self::a::A, a::B};\n",
        "pub mod a;\npub(crate) use self::a::A;\n",
        "pub mod a;\npub use {b::B, self::b::a::A};\n",
        "pub mod a;\npub use crate::a::A;\n",
    ] {
        assert_eq!(public::twice(&planted(sound)), Vec::<String>::new(), "{sound}");
    }
}

#[test]
fn every_file_opens_with_what_it_is() {
    assert_eq!(findings(header), Vec::<String>::new());
    assert_eq!(header(&planted("use std::fs;\n//! Late.\n")).len(), 1);
}

#[test]
fn no_file_is_longer_than_one_can_read_at_once() {
    assert_eq!(findings(long_file), Vec::<String>::new());
    assert_eq!(long_file(&planted(&"//! Long.\n".repeat(LONGEST_FILE + 1))).len(), 1);
}

#[test]
fn no_function_is_longer_than_a_page() {
    assert_eq!(against(findings(long_functions), LONG_FUNCTIONS), Vec::<String>::new());
    let body = "    let _x = 1;\n".repeat(LONGEST_FUNCTION - 2);
    assert_eq!(long_functions(&planted(&format!("fn page() {{\n{body}}}\n"))), Vec::<String>::new());
    let long = format!("mod inner {{ impl X {{ fn page() {{\n{body}\n}} }} }}\n");
    assert_eq!(long_functions(&planted(&long)).len(), 1);
}

#[test]
fn imports_stand_in_three_blocks() {
    assert_eq!(findings(imports::out_of_order), Vec::<String>::new());
    let sound = "mod b;\n\nuse core::fmt;\nuse std::io;\n\nuse a::A;\n\nuse b::B;\nuse crate::c;\n\n#[cfg(x)]\nuse std::fs;\n";
    assert_eq!(imports::out_of_order(&planted(sound)), Vec::<String>::new());
    for fault in [
        "use a::A;\nuse std::io;\n",
        "use std::io;\nuse a::A;\n",
        "use crate::c;\n\nuse a::A;\n",
        "use a::A;\n\nuse b::B;\n",
    ] {
        assert_eq!(imports::out_of_order(&planted(fault)).len(), 1, "{fault}");
    }
}

#[test]
fn a_number_with_a_unit_says_it_in_its_name() {
    assert_eq!(findings(units), Vec::<String>::new());
    let faults = "/// A wait, in seconds.\nconst WAIT: u64 = 1;\n/// Room, in bytes.\nconst ROOM: usize = 1;\nconst LIFE_SEC: u64 = 1;";
    assert_eq!(units(&planted(faults)).len(), 3);
    let sound = "/// A wait, in seconds.\nconst WAIT_SECS: u64 = 1;\n/// Marks.\nconst MARKS: u64 = 1;";
    assert_eq!(units(&planted(sound)), Vec::<String>::new());
}

#[test]
fn what_is_hidden_is_hidden_under_one_word() {
    // This file names the other words.
    let elsewhere =
        |source: &Source| if source.path.ends_with("tidy/mod.rs") { vec![] } else { redactions(source) };
    assert_eq!(findings(elsewhere), Vec::<String>::new());
    assert_eq!(redactions(&planted("fn f() { g(\"Key(<redacted>)\"); }")).len(), 1);
    assert_eq!(redactions(&planted("fn f() { g(\"Key([redacted])\"); }")), Vec::<String>::new());
}

#[test]
fn a_module_with_parts_lives_in_its_folder() {
    assert_eq!(findings(self_named), Vec::<String>::new());
    let planted = Source::parse("tests/it/house/tidy.rs", "//! Beside its folder.\n".to_owned());
    assert_eq!(self_named(&planted).len(), 1);
}

#[test]
fn modules_import_in_circles_only_where_a_reason_is_written() {
    let mut found = BTreeMap::new();
    for package in source::packages() {
        for circle in circles::of(&source::modules(&package)) {
            let _none = found.insert((package.clone(), circle), ());
        }
    }
    let found: Vec<String> =
        found.into_keys().map(|(package, circle)| format!("{package}: {}", circle.join(" ↔ "))).collect();
    let allowed: Vec<String> =
        CIRCLES.iter().map(|(package, members, _)| format!("{package}: {}", members.join(" ↔ "))).collect();
    assert_eq!(found, allowed);
    assert!(CIRCLES.iter().all(|(_, _, reason)| reason.len() > 20), "each with its reason");
}

#[test]
fn a_circle_through_a_third_module_and_through_a_reexport_is_noticed() {
    let modules = [
        ("", "pub use a::A; mod a; mod b; mod c;"),
        ("a", "use crate::b::B;\npub struct A;"),
        ("b", "use super::c;\npub struct B;"),
        ("c", "use crate::A;\n#[cfg(test)] mod tests { use crate::b::B; }"),
    ];
    assert_eq!(circles::of(&circles::parse(&modules)), [["a", "b", "c"]]);
    let straight =
        [("", "mod a; mod b;"), ("a", "use crate::b::B;"), ("b", "#[cfg(test)] mod tests { use crate::a; }")];
    assert_eq!(circles::of(&circles::parse(&straight)), Vec::<Vec<String>>::new());
}

#[test]
fn a_crate_knows_only_what_the_map_lets_it_reach() {
    let map = std::fs::read_to_string(source::root().join("docs/map.md")).unwrap();
    let drawing = arrows::Drawing::read(&map);
    let mut wrong = Vec::new();
    for package in source::packages().into_iter().filter(|package| arrows::is_drawn(package)) {
        let reach = drawing.reach(&package).unwrap_or_else(|| panic!("docs/map.md does not draw {package}"));
        for dependency in arrows::dependencies(&package) {
            if !reach.contains(&dependency) {
                wrong.push(format!("{package} → {dependency}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn an_arrow_that_is_not_drawn_is_noticed() {
    let drawing = arrows::Drawing::read(
        "    server/  top     the top → low\n    engine/  low     lower   → base\n             base    lowest\n",
    );
    let reach = drawing.reach("server/top").unwrap();
    assert!(reach.contains("engine/low") && reach.contains("engine/base"));
    assert!(drawing.reach("engine/base").unwrap().is_empty());
    assert!(drawing.reach("engine/other").is_none());
}
