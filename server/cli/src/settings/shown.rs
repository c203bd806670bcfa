//! Values as people may read them: without a password that should not be there.

use toml::Value;

/// A value as people may read it.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => without_password(text),
        Value::Integer(number) => number.to_string(),
        Value::Boolean(yes) => yes.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Array(several) => several.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => format!("({})", other.type_str()),
    }
}

/// An address without the password that should not be in it.
pub(crate) fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (format!("{}@", user.split_once(':').map_or(user, |(user, _)| user)), rest),
        None => (String::new(), rest),
    };
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?…"));
    format!("{scheme}://{user}{rest}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (address, wanted) in [
            ("redis://obol:swordfish@host:6379", "redis://obol@host:6379"),
            ("redis://:sword@fish@host", "redis://@host"),
            ("redis://host/0?password=swordfish", "redis://host/0?…"),
            ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ] {
            assert_eq!(without_password(address), wanted);
        }
    }
}
