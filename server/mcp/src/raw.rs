//! Objects whose members stay as they were written.
//!
//! What stands between a client and a server changes a member or two of a message. The others are not its business: numbers
//! keep their digits, members their order. So an object is read as names and texts, and only what is looked into is read on.

use core::fmt;
use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The most members of an object that is read so: the ones that matter here have a handful.
const MAX_MEMBERS: usize = 1_024;

/// An object of JSON: names, and the texts of what they stand for.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct RawObject<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> RawObject<'a> {
    /// Reads an object and nothing behind it. `None` for everything else, where a name stands twice in it, and where it has
    /// more members than anything that is meant here.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The text of a member.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| &**value)
    }

    /// A member that is an object.
    pub(crate) fn object(&self, name: &str) -> Option<RawObject<'_>> {
        RawObject::read(self.get(name)?)
    }

    /// A member that is a text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }

    /// Puts a member in place of the one of that name, or behind all others.
    pub(crate) fn set(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        let value = value.into();
        match self.0.iter_mut().find(|(own, _)| own == name) {
            Some((_, place)) => *place = value,
            None => self.0.push((Cow::Borrowed(name), value)),
        }
    }

    /// Takes a member out.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let place = self.0.iter().position(|(own, _)| own == name)?;
        Some(self.0.remove(place).1)
    }

    /// The names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The object as a text, without blanks between its members.
    pub(crate) fn write(&self) -> String {
        let length: usize = self.0.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let mut text = String::with_capacity(length + 2);
        text.push('{');
        for (at, (name, value)) in self.0.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            text.push_str(&quoted(name));
            text.push(':');
            text.push_str(value);
        }
        text.push('}');
        text
    }
}

/// A text as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The texts of a list's elements.
pub(crate) fn elements(text: &str) -> Option<Vec<&str>> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = RawObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
                let mut object = RawObject::default();
                while let Some((Name(name), value)) = from.next_entry::<Name<'de>, &'de RawValue>()? {
                    if object.0.len() == MAX_MEMBERS || object.get(&name).is_some() {
                        return Err(A::Error::custom("too many members, or a repeated name"));
                    }
                    object.0.push((name, Cow::Borrowed(value.get())));
                }
                Ok(object)
            }
        }

        from.deserialize_map(Members)
    }
}

/// A name, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_looked_into_stays_as_it_is() {
        let text = r#"{ "b" : 1.0e400 , "a":{"x": 9007199254740993 ,"y":"\u00e9"},"\u0063":[ ] }"#;
        let mut object = RawObject::read(text).unwrap();
        assert_eq!((object.get("b"), object.get("c")), (Some("1.0e400"), Some("[ ]")));
        assert_eq!(object.object("a").unwrap().get("x"), Some("9007199254740993"));
        object.set("d", "true");
        object.set("b", "2");
        assert_eq!(object.remove("c").as_deref(), Some("[ ]"));
        assert_eq!(object.write(), r#"{"b":2,"a":{"x": 9007199254740993 ,"y":"\u00e9"},"d":true}"#);
        assert_eq!(object.names().collect::<Vec<_>>(), ["b", "a", "d"]);
    }

    #[test]
    fn only_whole_objects_are_read() {
        for text in
            ["", "[]", "1", "null", r#"{"a":1"#, r#"{"a":1}x"#, r#"{"a":1,"\u0061":2}"#, r#"{"\ud800":1}"#]
        {
            assert_eq!(RawObject::read(text), None, "{text}");
        }
        assert!(RawObject::read(" {} ").unwrap().is_empty());
        assert_eq!(elements("[1, {\"a\" :2},[]]"), Some(vec!["1", "{\"a\" :2}", "[]"]));
        assert_eq!(elements("{}"), None);
    }

    #[test]
    fn names_and_texts_are_written_as_json() {
        let mut object = RawObject::default();
        object.set("a\"b\n", quoted("c\\d"));
        assert_eq!(object.write(), r#"{"a\"b\n":"c\\d"}"#);
        assert_eq!(object.text("a\"b\n").as_deref(), Some("c\\d"));
    }
}
