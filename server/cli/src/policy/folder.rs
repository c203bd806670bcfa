//! Reading a folder of policies.
//!
//! What might be a policy and would not be read is an error: a `forbid` in it would be missing.

use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::path::Path;

use obol_policy::cases::{Cases, Format};
use obol_policy::limits::{MAX_CASES_BYTES, MAX_CATALOGUE_BYTES, MAX_POLICIES_BYTES, MAX_POLICY_FILES};
use obol_policy::{PolicySource, PolicyVersion};
use obol_secret::file::read_public;

use crate::exit::{Failure, Outcome};
use crate::settings::args::policy::CasesArgs;

/// The catalogue of a folder.
pub(crate) const CATALOGUE: &str = "catalogue.toml";
/// The cases of a folder, where no others are named.
pub(super) const CASES: &str = "cases.toml";
/// How the names of policies end.
const POLICY_END: &str = ".cedar";

/// Loads the version in a folder.
pub(crate) fn version(folder: &Path) -> Outcome<PolicyVersion> {
    let source = PolicySource {
        catalogue: text(&folder.join(CATALOGUE), MAX_CATALOGUE_BYTES)?,
        policies: policies(folder)?,
    };
    PolicyVersion::load(source).map_err(|error| {
        let told = format_args!("the policies in {} are not valid:", folder.display());
        Failure::usage(told).with_details(error.to_string().lines())
    })
}

fn policies(folder: &Path) -> Outcome<BTreeMap<String, String>> {
    let wrong = |why: &dyn core::fmt::Display| Failure::usage(format_args!("{}: {why}", folder.display()));
    let mut policies = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(|error| wrong(&error))? {
        let entry = entry.map_err(|error| wrong(&error))?;
        let Some(name) = policy_name(&entry)? else { continue };
        if policies.len() >= MAX_POLICY_FILES {
            return Err(wrong(&format_args!("more than {MAX_POLICY_FILES} files of policies")));
        }
        policies.insert(name, text(&entry.path(), MAX_POLICIES_BYTES)?);
    }
    Ok(policies)
}

/// The name of a file of policies. What is hidden is not looked at.
fn policy_name(entry: &DirEntry) -> Outcome<Option<String>> {
    let path = entry.path();
    let shown = path.display();
    let name = entry.file_name();
    let Some(name) = name.to_str() else {
        return Err(Failure::usage(format_args!("{shown}: the name is not UTF-8")));
    };
    if name.starts_with('.') {
        return Ok(None);
    }
    if std::fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Failure::usage(format_args!(
            "{shown} is a folder, and policies in it would not be read; move it elsewhere"
        )));
    }
    let is_policy = name.ends_with(POLICY_END);
    if !is_policy && name.to_ascii_lowercase().ends_with(POLICY_END) {
        return Err(Failure::usage(format_args!(
            "{shown} would not be read; its name must end with {POLICY_END}"
        )));
    }
    Ok(is_policy.then(|| name.to_owned()))
}

/// The cases that were named, or those of the folder.
pub(super) fn cases(args: &CasesArgs, folder: &Path) -> Outcome<Cases> {
    let path = args.cases.clone().unwrap_or_else(|| folder.join(CASES));
    let format = match path.extension().and_then(|end| end.to_str()) {
        Some("toml") => Format::Toml,
        Some("json") => Format::Json,
        _ => {
            return Err(Failure::usage(format_args!(
                "{}: cases are in a .toml or .json file",
                path.display()
            )));
        }
    };
    let text = text(&path, MAX_CASES_BYTES)?;
    Cases::read(&text, format).map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))
}

fn text(path: &Path, limit: usize) -> Outcome<String> {
    let bytes = read_public(path, limit).map_err(Failure::usage)?;
    String::from_utf8(bytes.to_vec())
        .map_err(|_| Failure::usage(format_args!("{}: not UTF-8", path.display())))
}
