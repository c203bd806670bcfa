//! What a request is addressed to, read in one way only.
//!
//! A path that some server might read otherwise than it is compared here is refused: with dot segments, with slashes or plain
//! letters written as `%XX`, with empty segments. So is a query that can be taken apart in two ways.

use http::Uri;
use serde_json::{Map, Value};

/// The longest path and query, in bytes.
const MAX_BYTES: usize = 8_192;
/// The most parameters of a query.
const MAX_PARAMETERS: usize = 256;
/// What stands in a path or a query as it is, beside letters and digits.
const PLAIN: &[u8] = b"!$%&'()*+,-./:;=?@_~";

/// A path and a query.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// As they came; begins with `/`.
    path: String,
    query: Option<String>,
    /// Decoded. The last is empty where the path ends with a slash.
    segments: Vec<String>,
    /// Decoded names and values, in order.
    parameters: Vec<(String, String)>,
}

impl Target {
    /// Reads it, or says what is wrong with it.
    pub(crate) fn read(uri: &Uri) -> Result<Self, &'static str> {
        let (path, query) = (uri.path(), uri.query());
        if path.len() + query.map_or(0, str::len) > MAX_BYTES {
            return Err("path and query are longer than 8192 bytes");
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || PLAIN.contains(&byte);
        if !path.bytes().chain(query.unwrap_or_default().bytes()).all(is_plain) {
            return Err(
                "path and query hold letters, digits and !$%&'()*+,-./:;=?@_~; write the rest as %XX",
            );
        }
        let rest = path.strip_prefix('/').ok_or("the path begins with a slash")?;
        let segments = rest.split('/').map(decoded).collect::<Result<Vec<_>, _>>()?;
        let inner = segments.len().saturating_sub(1);
        if segments.iter().take(inner).any(String::is_empty) {
            return Err("the path has an empty segment");
        }
        let parameters = query.map(parameters).transpose()?.unwrap_or_default();
        Ok(Self { path: path.to_owned(), query: query.map(str::to_owned), segments, parameters })
    }

    /// The first segment, and what follows it as a target of its own.
    pub(crate) fn behind_first(mut self) -> Option<(String, Self)> {
        let rest = self.path.get(1..)?.find('/').and_then(|place| self.path.get(place + 1..))?;
        self.path = rest.to_owned();
        let first = self.segments.remove(0);
        Some((first, self))
    }

    pub(crate) fn segments(&self) -> &[String] {
        &self.segments
    }

    /// Names of the query's parameters.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|(name, _)| name.as_str())
    }

    /// The query's parameters as a JSON object; what is there several times is a list.
    pub(crate) fn parameters(&self) -> Map<String, Value> {
        let mut map = Map::new();
        for (name, value) in &self.parameters {
            let value = Value::String(value.clone());
            match map.get_mut(name) {
                None => drop(map.insert(name.clone(), value)),
                Some(Value::Array(several)) => several.push(value),
                Some(one) => *one = Value::Array(vec![one.take(), value]),
            }
        }
        map
    }

    /// Path and query as they came, with one more parameter in place of any of its name.
    pub(crate) fn sent(&self, more: Option<(&str, &str)>) -> String {
        let Some((name, value)) = more else {
            return match &self.query {
                None => self.path.clone(),
                Some(query) => format!("{}?{query}", self.path),
            };
        };
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (known, value) in self.parameters.iter().filter(|(known, _)| !known.eq_ignore_ascii_case(name)) {
            query.append_pair(known, value);
        }
        query.append_pair(name, value);
        format!("{}?{}", self.path, query.finish())
    }
}

/// One segment. What could be read as another one is refused.
fn decoded(segment: &str) -> Result<String, &'static str> {
    let text = unescaped(segment)?;
    if text.contains(['/', '\\', '%']) {
        return Err("the path has a slash, a backslash or a percent sign in a segment");
    }
    // Some servers take what follows a semicolon for a parameter, and the rest for the segment.
    if matches!(text.split(';').next(), Some("." | "..")) {
        return Err("the path has a segment . or .., or one that could be read as such");
    }
    Ok(text)
}

/// Decodes `%XX`, where nothing is written so that need not be.
fn unescaped(text: &str) -> Result<String, &'static str> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or("a % is followed by two hex digits")?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let byte = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex);
        let byte = byte.ok_or("a % is followed by two hex digits")?;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            return Err("letters, digits and -._~ are not written as %XX");
        }
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 once it is decoded")?;
    if text.chars().any(char::is_control) {
        return Err("there is a control character in it");
    }
    Ok(text)
}

fn parameters(query: &str) -> Result<Vec<(String, String)>, &'static str> {
    if query.contains(';') {
        return Err("some servers take a semicolon in a query for a separator; write it as %3B");
    }
    let mut parameters = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name.contains('\u{fffd}') || value.contains('\u{fffd}') {
            return Err("the query is not UTF-8 once it is decoded");
        }
        if parameters.len() == MAX_PARAMETERS {
            return Err("the query has more than 256 parameters");
        }
        parameters.push((name.into_owned(), value.into_owned()));
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Target, &'static str> {
        Target::read(&text.parse().unwrap())
    }

    #[test]
    fn a_path_is_read_in_one_way_and_sent_as_it_came() {
        let target = read("/github/repos/a%20b/c:d?q=x+y&q=z&n=1").unwrap();
        assert_eq!(target.parameters(), *json!({"q": ["x y", "z"], "n": "1"}).as_object().unwrap());
        let (first, rest) = target.behind_first().unwrap();
        assert_eq!(
            (first.as_str(), rest.segments()),
            ("github", &["repos", "a b", "c:d"].map(str::to_owned)[..])
        );
        assert_eq!(rest.sent(None), "/repos/a%20b/c:d?q=x+y&q=z&n=1");
        assert_eq!(rest.sent(Some(("Q", "k&k"))), "/repos/a%20b/c:d?n=1&Q=k%26k");
        assert!(read("/github").unwrap().behind_first().is_none());
        assert_eq!(read("/a/").unwrap().behind_first().unwrap().1.sent(None), "/");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for path in [
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/a/%2e%2E/b",
            "/a/..;x/b",
            "/a/..%3Bx/b",
            "/a//b",
            "//a",
            "/a%2Fb",
            "/a%2fb",
            "/a%5Cb",
            "/a%00b",
            "/a%0D%0Ab",
            "/a%7Fb",
            "/%61",
            "/a%252Fb",
            "/a%zz",
            "/a%2",
            "/a%+2b",
            "/a%FF",
            "/a|b",
            "/a{b}",
            "/a\u{e9}",
            "/a?b=c;d=e",
            "/a?b=%FF",
        ] {
            let target = path.parse::<Uri>().map_err(|_| "not even a URI").and_then(|uri| Target::read(&uri));
            assert!(target.is_err(), "{path}");
        }
        assert!(read(&format!("/{}", "a".repeat(MAX_BYTES))).is_err());
        assert!(read(&format!("/?{}", "a&".repeat(MAX_PARAMETERS + 1))).is_err());
    }
}
