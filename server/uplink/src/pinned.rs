//! Which service is spoken to, and the key that it must have: `https://as.example#<64 hex digits>`.

use core::fmt;
use core::net::IpAddr;

use obol_handshake::{AuthorityKey, MAX_ORIGIN_BYTES};
use obol_secret::text::{from_hex, to_hex};

/// A service and its static key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pinned {
    origin: String,
    key: AuthorityKey,
}

/// The text does not name a service with its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PinnedError(&'static str);

impl fmt::Display for PinnedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for PinnedError {}

impl Pinned {
    /// Reads `ORIGIN#KEY`, as `obol as` prints it.
    ///
    /// # Errors
    ///
    /// [`PinnedError`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, PinnedError> {
        let (origin, key) = text.split_once('#').ok_or(PinnedError(
            "the service's key is missing: write https://as.example#KEY, as `obol as` prints it at its start",
        ))?;
        let key = from_hex(key).map(AuthorityKey).ok_or(PinnedError(
            "behind # must be the service's key, 64 lower-case hex digits, as `obol as` prints it at its start",
        ))?;
        if origin.len() > MAX_ORIGIN_BYTES {
            return Err(PinnedError("the service's address is too long"));
        }
        let found = Self { origin: origin.to_owned(), key };
        let (host, _) = found.host_and_port().ok_or(PinnedError(
            "the service's address must be https://, a host, and perhaps a port, with nothing behind it",
        ))?;
        let loopback =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !found.is_tls() && !loopback {
            return Err(PinnedError("a service on another machine is spoken to by https alone"));
        }
        Ok(found)
    }

    /// The service's name, byte for byte as it is in the transcript.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The key that it must have.
    pub fn key(&self) -> &AuthorityKey {
        &self.key
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.origin.starts_with("https://")
    }

    /// Where to connect to. Brackets around an IPv6 address are left out.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        let (rest, usual) = match self.origin.strip_prefix("https://") {
            Some(rest) => (rest, 443),
            None => (self.origin.strip_prefix("http://")?, 80),
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (rest, usual),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_host = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':'));
        is_host.then_some((host, port))
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.origin, to_hex(&self.key.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_with_its_key_and_read_as_it_is_written() {
        let key = "ab".repeat(32);
        for (origin, host, port) in [
            ("https://as.example", "as.example", 443),
            ("https://as.example:8443", "as.example", 8443),
            ("http://127.0.0.1:8720", "127.0.0.1", 8720),
            ("http://localhost:1", "localhost", 1),
            ("https://[::1]:8720", "::1", 8720),
            ("https://[2001:db8::1]", "2001:db8::1", 443),
        ] {
            let text = format!("{origin}#{key}");
            let pinned = Pinned::parse(&text).unwrap();
            assert_eq!((pinned.origin(), pinned.host_and_port()), (origin, Some((host, port))));
            assert_eq!(pinned.to_string(), text);
        }
        for bad in [
            "https://as.example".to_owned(),
            "https://as.example#abcd".to_owned(),
            format!("https://as.example#{}", key.to_uppercase()),
            format!("as.example#{key}"),
            format!("https://#{key}"),
            format!("https://as.example/path#{key}"),
            format!("https://user@as.example#{key}"),
            format!("https://as.example:99999#{key}"),
            format!("http://as.example#{key}"),
            format!("http://127.0.0.1.evil.example#{key}"),
        ] {
            assert!(Pinned::parse(&bad).is_err(), "{bad}");
        }
    }
}
