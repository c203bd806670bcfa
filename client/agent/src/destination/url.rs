//! URLs, read strictly from their text, so that no two readers take one for different places. The rules are numbered in
//! `tests/vectors/sdk/README.md`.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use http::Uri;

use crate::error::{Code, Error};

const MAX_CHARACTERS: usize = 8_192;
const MAX_HOST_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;
/// What stands in a path or a query as it is, beside letters and digits.
const PLAIN: &[u8] = b"!$%&'()*+,-./:;=?@_~";

/// Where something is served: scheme, host and port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    is_tls: bool,
    /// In lower case; an IPv6 address in brackets.
    host: String,
    port: u16,
}

impl Origin {
    const fn usual_port(is_tls: bool) -> u16 {
        if is_tls { 443 } else { 80 }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == Self::usual_port(self.is_tls) { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// A URL in the one form that is compared and sent. It is `https`, or `http` on loopback.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Url {
    pub(super) origin: Origin,
    /// Begins with `/`.
    pub(super) path: String,
    /// Empty, or begins with `?`.
    pub(super) query: String,
}

impl Url {
    /// Reads a URL.
    pub(crate) fn read(text: &str) -> Result<Self, Error> {
        if text.chars().count() > MAX_CHARACTERS {
            return Err(wrong("is longer than 8192 characters"));
        }
        if text.chars().any(|sign| sign.is_control() || sign == '\\') {
            return Err(wrong("holds a control character or a backslash"));
        }
        let text = text.split('#').next().unwrap_or_default();
        let (is_tls, rest) = scheme(text).ok_or_else(|| {
            wrong("must begin with https:// and a host, or with http:// and a host on loopback")
        })?;
        let (front, query) = match rest.find('?') {
            Some(place) => rest.split_at(place),
            None => (rest, ""),
        };
        let (authority, path) = match front.find('/') {
            Some(place) => front.split_at(place),
            None => (front, "/"),
        };
        let origin = origin(authority, is_tls).ok_or_else(|| {
            wrong("needs a plain host and maybe a port: no user, no dot at its end, other scripts as xn--")
        })?;
        if !is_tls && !is_loopback(&origin.host) {
            return Err(wrong("must begin with https://; http is for loopback only"));
        }
        Ok(Self { origin, path: read_path(path)?, query: escaped(query) })
    }

    /// The path's segments. The last is empty where the path ends with a slash.
    pub(super) fn segments(&self) -> Vec<&str> {
        self.path.split('/').skip(1).collect()
    }

    /// As it is sent.
    pub(crate) fn uri(&self) -> Result<Uri, Error> {
        self.to_string().parse().map_err(|_| wrong("cannot be sent"))
    }

    /// What `Location` leads to from here, as text that has yet to be read. `None` where there is no telling.
    pub(crate) fn resolved(&self, location: &str) -> Option<String> {
        let is_plain = location.bytes().all(|byte| byte.is_ascii_graphic());
        if location.is_empty() || !is_plain || location.contains('\\') {
            return None;
        }
        let Self { origin, path, .. } = self;
        let scheme = if origin.is_tls { "https" } else { "http" };
        let folder = path.rfind('/').and_then(|place| path.get(..=place)).unwrap_or("/");
        Some(match location.as_bytes() {
            _ if has_scheme(location) => location.to_owned(),
            [b'/', b'/', ..] => format!("{scheme}:{location}"),
            [b'/', ..] => format!("{origin}{location}"),
            [b'?', ..] => format!("{origin}{path}{location}"),
            [b'#', ..] => self.to_string(),
            _ => format!("{origin}{folder}{location}"),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.origin, self.path, self.query)
    }
}

fn wrong(what: &str) -> Error {
    Error::new(Code::InvalidArgument, format!("the URL {what}; no token is sent there"))
}

fn scheme(text: &str) -> Option<(bool, &str)> {
    let behind = |scheme: &str| {
        let (front, rest) = text.split_at_checked(scheme.len())?;
        front.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    behind("https://").map(|rest| (true, rest)).or_else(|| behind("http://").map(|rest| (false, rest)))
}

fn has_scheme(location: &str) -> bool {
    let Some((scheme, _)) = location.split_once(':') else { return false };
    scheme.starts_with(|sign: char| sign.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
}

fn origin(authority: &str, is_tls: bool) -> Option<Origin> {
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at_checked(end)?;
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => Origin::usual_port(is_tls),
        Some(digits) if !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok()?
        }
        _ => return None,
    };
    Some(Origin { is_tls, host: read_host(&host.to_ascii_lowercase())?, port })
}

fn read_host(host: &str) -> Option<String> {
    if let Some(inside) = host.strip_prefix('[') {
        let inside = inside.strip_suffix(']')?;
        let address: Ipv6Addr = inside.parse().ok()?;
        // Some write one that stands for an IPv4 address so, and others so.
        let is_plain = !inside.contains('.') && address.to_ipv4_mapped().is_none();
        return is_plain.then(|| format!("[{address}]"));
    }
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if host.len() > MAX_HOST_BYTES || !host.split('.').all(is_label) {
        return None;
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    (!is_number || host.parse::<Ipv4Addr>().is_ok()).then(|| host.to_owned())
}

/// A name that is this machine whatever a resolver says, or an address of its own.
pub(crate) fn is_loopback(host: &str) -> bool {
    matches!(host, "localhost" | "[::1]" | "::1")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

fn read_path(text: &str) -> Result<String, Error> {
    let path = unescaped(&escaped(text))?;
    if !is_utf8(&path) {
        return Err(wrong("has a path that is not UTF-8 once it is decoded"));
    }
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(wrong("has an empty segment in its path"));
        }
        let front = segment.split([';', ':']).next().and_then(|front| front.split("%3A").next());
        if matches!(front.and_then(|front| front.split("%3B").next()), Some("." | "..")) {
            return Err(wrong("has a segment . or .. in its path, or one that could be read as such"));
        }
    }
    Ok(path)
}

/// Whether a path is text once its `%XX` are decoded.
fn is_utf8(path: &str) -> bool {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or_default();
        bytes.extend(u8::from_str_radix(digits, 16));
        bytes.extend_from_slice(rest.as_bytes());
    }
    core::str::from_utf8(&bytes).is_ok()
}

/// Each `%XX` in its only form.
fn unescaped(path: &str) -> Result<String, Error> {
    let mut parts = path.split('%');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part
            .split_at_checked(2)
            .filter(|(digits, _)| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .ok_or_else(|| wrong("has a % in its path without two hex digits behind it"))?;
        let byte = u8::from_str_radix(digits, 16).unwrap_or_default();
        if matches!(byte, b'/' | b'\\' | b'%') || byte.is_ascii_control() {
            return Err(wrong(
                "holds an encoded slash, backslash, percent sign or control character in its path",
            ));
        }
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            whole.push(char::from(byte));
        } else {
            whole.push('%');
            whole.push_str(&digits.to_ascii_uppercase());
        }
        whole.push_str(rest);
    }
    Ok(whole)
}

/// Writes what may not stand in a path or a query as `%XX`.
fn escaped(text: &str) -> String {
    let mut whole = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || PLAIN.contains(&byte) {
            whole.push(char::from(byte));
        } else {
            let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0').to_ascii_uppercase();
            whole.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_resolved_and_nothing_more() {
        let from = Url::read("https://api.example/v1/x?q").unwrap();
        for (location, to) in [
            ("y?z", Some("https://api.example/v1/y?z")),
            ("/y", Some("https://api.example/y")),
            ("?z", Some("https://api.example/v1/x?z")),
            ("#z", Some("https://api.example/v1/x?q")),
            ("//evil.test/y", Some("https://evil.test/y")),
            ("http://evil.test/", Some("http://evil.test/")),
            ("javascript:1", Some("javascript:1")),
            ("", None),
            ("/a b", None),
            ("/\\evil.test", None),
            ("/a\r\nb", None),
        ] {
            assert_eq!(from.resolved(location).as_deref(), to, "{location:?}");
        }
    }
}
