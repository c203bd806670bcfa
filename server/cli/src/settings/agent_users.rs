//! The setting `tqs.agent_users`: a list of users and groups, or one of them, or, in a variable, several between commas.

use core::fmt;

use obol_sidecar::{AgentUsers, AgentUsersError};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

/// Users by number or name, groups as `@name`. Nobody was looked up yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AgentUserNames(Vec<String>);

impl AgentUserNames {
    /// Looks them up, for a daemon of our own user.
    pub(crate) fn find(&self) -> Result<AgentUsers, AgentUsersError> {
        AgentUsers::named(&self.0, rustix::process::geteuid().as_raw())
    }
}

impl fmt::Display for AgentUserNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl<'de> Deserialize<'de> for AgentUserNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Names)
    }
}

struct Names;

/// One entry of the list.
struct Name(String);

impl<'de> Visitor<'de> for Names {
    type Value = AgentUserNames;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of users, by number or name, and groups, as \"@name\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<AgentUserNames, E> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        Ok(AgentUserNames(names.map(str::to_owned).collect()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<AgentUserNames, E> {
        Ok(AgentUserNames(vec![number.to_string()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AgentUserNames, A::Error> {
        let mut names = Vec::new();
        while let Some(Name(name)) = list.next_element()? {
            names.push(name);
        }
        Ok(AgentUserNames(names))
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a user, by number or name, or a group, as \"@name\"")]
        enum Entry {
            Number(u32),
            Text(String),
        }
        Ok(Self(match Entry::deserialize(deserializer)? {
            Entry::Number(number) => number.to_string(),
            Entry::Text(text) => text,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<String, String> {
        #[derive(Debug, Deserialize)]
        struct Section {
            users: AgentUserNames,
        }
        let read = toml::from_str::<Section>(&format!("users = {value}")).map_err(|error| error.to_string());
        read.map(|section| section.users.to_string())
    }

    #[test]
    fn a_list_one_entry_or_a_text_with_commas_names_users() {
        for (value, names) in [
            ("[1001, \"alice\", \"@agents\"]", "1001, alice, @agents"),
            ("1001", "1001"),
            ("\"alice\"", "alice"),
            ("\"alice, 1001,@agents\"", "alice, 1001, @agents"),
            ("[]", ""),
        ] {
            assert_eq!(read(value).unwrap(), names);
        }
        for value in ["[true]", "[-1]", "{}", "1.5", "[[1]]"] {
            let error = read(value).unwrap_err();
            assert!(error.contains("@name"), "{value}: {error}");
        }
    }
}
