//! Where a request of a program goes: the first segment of its path names the API.
//!
//! `/api.example.com/v1/x` is `https://api.example.com/v1/x`; `/name/x` is what was said for that name. Whether a token may go
//! there is the session's to say, not this module's.

use core::fmt;

use http::uri::PathAndQuery;

/// The most names.
const MAX_NAMES: usize = 64;
/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// The longest name of a host, in bytes, with its port.
const MAX_HOST_BYTES: usize = 260;

/// The APIs that have a name.
#[derive(Clone, Default, Debug)]
pub struct Targets(Vec<(String, String)>);

/// Why something is no name for an API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrongTarget(String);

impl fmt::Display for WrongTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for WrongTarget {}

impl Targets {
    /// Of lines `NAME=URL`.
    ///
    /// # Errors
    ///
    /// [`WrongTarget`] says which, and what it has to be.
    pub fn read(lines: &[String]) -> Result<Self, WrongTarget> {
        if lines.len() > MAX_NAMES {
            return Err(WrongTarget(format!("at most {MAX_NAMES} APIs have a name")));
        }
        let mut all: Vec<(String, String)> = Vec::new();
        for line in lines {
            let wrong = |why: &str| WrongTarget(format!("{line:?}: {why}"));
            let (name, url) = line.split_once('=').ok_or_else(|| wrong("say NAME=URL"))?;
            if !is_name(name) {
                return Err(wrong("a name is of small letters, digits and hyphens"));
            }
            if all.iter().any(|(known, _)| known == name) {
                return Err(wrong("the name is given twice"));
            }
            let url = url.strip_suffix('/').unwrap_or(url);
            let parsed = obol_agent::read_url(url).map_err(|error| wrong(error.message()))?;
            if parsed.query().is_some() {
                return Err(wrong("the URL has no query"));
            }
            all.push((name.to_owned(), url.to_owned()));
        }
        Ok(Self(all))
    }

    /// The URL that a request for this is sent to; or what it has to be.
    pub(crate) fn url(&self, asked: &PathAndQuery) -> Result<String, &'static str> {
        const HOW: &str = "a path begins with the API's host, such as /api.example.com/v1/…, or with a name that the proxy was started with";
        let path = asked.path().strip_prefix('/').ok_or(HOW)?;
        let (first, rest) = match path.find('/') {
            Some(end) => path.split_at(end),
            None => (path, ""),
        };
        let base = match self.0.iter().find(|(name, _)| name == first) {
            Some((_, url)) => url.clone(),
            None if is_host(first) => format!("https://{first}"),
            None => return Err(HOW),
        };
        let query = asked.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(format!("{base}{rest}{query}"))
    }
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(plain)
}

/// A host with a dot in it, perhaps with a port. What else is wrong with it is found by who reads the URL.
fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
    text.len() <= MAX_HOST_BYTES && text.contains('.') && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(lines: &[&str]) -> Result<Targets, WrongTarget> {
        let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
        Targets::read(&lines)
    }

    #[test]
    fn the_first_segment_names_the_api() {
        let targets = targets(&["saas=http://127.0.0.1:9000", "ai=https://api.example/v1/"]).unwrap();
        for (asked, url) in [
            ("/saas/search/a?q=x", Some("http://127.0.0.1:9000/search/a?q=x")),
            ("/saas", Some("http://127.0.0.1:9000")),
            ("/ai/chat?", Some("https://api.example/v1/chat?")),
            ("/api.github.com/repos", Some("https://api.github.com/repos")),
            ("/api.github.com:8443/repos", Some("https://api.github.com:8443/repos")),
            ("/other/search", None),
            ("/", None),
            ("/user@api.github.com/x", None),
            ("/api.github.com%2fx/y", None),
            ("/../saas/x", Some("https://../saas/x")),
        ] {
            let asked: PathAndQuery = asked.parse().unwrap();
            let found = targets.url(&asked).ok();
            assert_eq!(found.as_deref(), url, "{asked}");
        }
        assert!(obol_agent::read_url("https://../saas/x").is_err(), "which is no URL");
    }

    #[test]
    fn a_name_is_said_once_and_leads_to_a_url() {
        for wrong in [&["saas"][..], &["Saas=https://a.example"], &["a=b"], &["a=https://x.example?q=1"]] {
            assert!(targets(wrong).is_err(), "{wrong:?}");
        }
        assert!(targets(&["a=https://a.example", "a=https://b.example"]).is_err());
        assert!(targets(&["a=http://a.example"]).is_err(), "a token would cross the network in the clear");
    }
}
