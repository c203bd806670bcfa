//! The drawing in `docs/map.md` against what each package's manifest says.

use std::collections::{BTreeMap, BTreeSet};

use super::source::root;

/// Whether the drawing has to have a package: what is below `tests` may know everything.
pub(super) fn is_drawn(package: &str) -> bool {
    !package.starts_with("tests/")
}

/// Packages in the order of the drawing, each with those it points to.
pub(super) struct Drawing(Vec<(String, Vec<String>)>);

impl Drawing {
    /// Reads the first drawing: `    floor/  name  what it is  → others`. A name stands for the next package below that is
    /// called so; where two are meant, the floor stands before it. `→ all` is everything below.
    pub(super) fn read(page: &str) -> Self {
        let mut floor = "";
        let mut lines: Vec<(String, &str)> = Vec::new();
        for line in page
            .lines()
            .skip_while(|line| !line.starts_with("    "))
            .take_while(|line| line.starts_with("    "))
        {
            let mut words = line.split_whitespace();
            let mut name = words.next().unwrap_or_default();
            if let Some(new) = name.strip_suffix('/') {
                floor = new;
                name = words.next().unwrap_or_default();
            }
            let targets = line.split_once('→').map_or("", |(_, targets)| targets);
            lines.push((format!("{floor}/{name}"), targets));
        }
        let names: Vec<String> = lines.iter().map(|(name, _)| name.clone()).collect();
        let targets = |index: usize, text: &str| -> Vec<String> {
            let below = names.get(index + 1..).unwrap_or_default();
            if text.trim() == "all" {
                return below.to_vec();
            }
            let words = text
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty() && !word.starts_with("nothing"));
            let package = |word: &str| {
                let is = |name: &&String| {
                    *name == word || name.split_once('/').is_some_and(|(_, name)| name == word)
                };
                let found = below.iter().find(is);
                found
                    .cloned()
                    .unwrap_or_else(|| panic!("docs/map.md draws an arrow to `{word}`, which is not below"))
            };
            words.map(package).collect()
        };
        Self(
            lines
                .iter()
                .enumerate()
                .map(|(index, (name, text))| (name.clone(), targets(index, text)))
                .collect(),
        )
    }

    /// All that a package reaches along the arrows; `None` for one that is not drawn.
    pub(super) fn reach(&self, package: &str) -> Option<BTreeSet<String>> {
        let arrows: BTreeMap<&str, &Vec<String>> =
            self.0.iter().map(|(name, to)| (name.as_str(), to)).collect();
        let mut open: Vec<&String> = arrows.get(package)?.iter().collect();
        let mut reached = BTreeSet::new();
        while let Some(next) = open.pop() {
            if reached.insert(next.clone()) {
                open.extend(arrows[next.as_str()]);
            }
        }
        Some(reached)
    }
}

/// The packages of this tree that a package's manifest names outside its tests.
pub(super) fn dependencies(package: &str) -> BTreeSet<String> {
    let folders = folders();
    let manifest = manifest(package);
    let mut tables = vec![manifest.get("dependencies")];
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    tables.extend(targets.into_iter().flatten().map(|(_, target)| target.get("dependencies")));
    let names = tables.into_iter().flatten().filter_map(toml::Value::as_table).flat_map(|table| table.keys());
    names.filter_map(|name| folders.get(name).cloned()).collect()
}

fn manifest(folder: &str) -> toml::Value {
    let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    toml::Value::Table(text.parse().unwrap())
}

/// Where each package of the workspace is.
fn folders() -> BTreeMap<String, String> {
    let workspace = manifest("");
    let dependencies = workspace["workspace"]["dependencies"].as_table().unwrap().clone();
    let folder = |(name, value): (String, toml::Value)| Some((name, value.get("path")?.as_str()?.to_owned()));
    dependencies.into_iter().filter_map(folder).collect()
}
