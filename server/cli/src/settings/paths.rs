//! Files and folders, as a setting names them.

use std::path::PathBuf;

use serde::Deserialize;

/// One path, or a list of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "OneOrMore")]
pub(crate) struct Paths(Vec<PathBuf>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a path, or a list of paths")]
enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

impl TryFrom<OneOrMore> for Paths {
    type Error = &'static str;

    fn try_from(named: OneOrMore) -> Result<Self, &'static str> {
        let paths = match named {
            OneOrMore::One(path) => vec![path],
            OneOrMore::More(paths) => paths,
        };
        if paths.iter().any(|path| path.as_os_str().is_empty()) {
            return Err("a path in the list is empty");
        }
        Ok(Self(paths))
    }
}

/// What is meant: what flags name, or else what the setting names.
pub(crate) fn named(flags: &[PathBuf], setting: Option<&Paths>) -> Vec<PathBuf> {
    match setting {
        Some(Paths(paths)) if flags.is_empty() => paths.clone(),
        _ => flags.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_or_a_list_and_never_empty() {
        #[derive(Debug, Deserialize)]
        struct Section {
            sessions: Paths,
        }
        let read = |value: &str| toml::from_str::<Section>(&format!("sessions = {value}"));
        assert_eq!(read("\"/a\"").unwrap().sessions, Paths(vec!["/a".into()]));
        assert_eq!(read("[\"/a\", \"/b\"]").unwrap().sessions, Paths(vec!["/a".into(), "/b".into()]));
        assert!(read("[\"/a\", \"\"]").unwrap_err().to_string().contains("empty"));
        assert!(read("7").unwrap_err().to_string().contains("a path, or a list of paths"));
        let setting = Paths(vec!["/a".into()]);
        assert_eq!(
            named(&["/f".into()], Some(&setting)),
            [PathBuf::from("/f")],
            "flags go before the setting"
        );
        assert_eq!(named(&[], Some(&setting)), [PathBuf::from("/a")]);
    }
}
