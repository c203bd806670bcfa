//! Hosts and endpoints. The grammar is a small part of that of URLs, so that no two readers can take one text for two
//! places: no user part, no address, no query, no fragment, no escapes, no dot segments.

use core::fmt;
use core::str::FromStr;

/// The longest endpoint, in bytes.
pub(crate) const MAX_ENDPOINT_BYTES: usize = 512;
/// The longest host name, in bytes.
const MAX_NAME_BYTES: usize = 253;
/// The longest part between two dots of a name, in bytes.
const MAX_LABEL_BYTES: usize = 63;
const HTTPS_PORT: u16 = 443;

/// A host name with an optional port, in lower case: `api.example.com`, `localhost:8443`. Never an address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Host {
    name: Box<str>,
    port: Option<u16>,
}

/// The text is not a host, or not an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Malformed {}

impl Host {
    /// The name without the port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(HTTPS_PORT)
    }

    /// `https://` and the host, as in a token's `iss`.
    pub fn origin(&self) -> String {
        format!("https://{self}")
    }

    /// Whether an endpoint at `other` may serve this host: the same name or one below it, at this host's port or 443.
    pub fn covers(&self, other: &Self) -> bool {
        let below =
            other.name.strip_suffix(&*self.name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        below && (other.port() == self.port() || other.port() == HTTPS_PORT)
    }
}

impl FromStr for Host {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (name, port) = match text.split_once(':') {
            None => (text, None),
            Some((name, port)) => (name, Some(read_port(port)?)),
        };
        let name = name.to_ascii_lowercase();
        if !is_name(&name) {
            return Err(Malformed(
                "a host is a DNS name, such as api.example.com or localhost:8443, and no address",
            ));
        }
        Ok(Self { name: name.into(), port: port.filter(|port| *port != HTTPS_PORT) })
    }
}

fn read_port(text: &str) -> Result<u16, Malformed> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = if digits && !text.starts_with('0') { text.parse().ok() } else { None };
    port.ok_or(Malformed("a port is a number from 1 to 65535, without leading zeros"))
}

/// A DNS name whose last part is not a number: those that end in one are addresses to some readers (`127.1`, `0x7f.1`).
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_a_number = |name: &str| {
        let last = name.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x");
        last.bytes().all(|byte| byte.is_ascii_digit())
            || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    name.len() <= MAX_NAME_BYTES && name.split('.').all(is_label) && !last_is_a_number(name)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => f.write_str(&self.name),
            Some(port) => write!(f, "{}:{port}", self.name),
        }
    }
}

/// An absolute URL of the protocol: scheme, host and path. As text it is exactly what was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AtpEndpoint {
    text: Box<str>,
    authority_start: usize,
    path_start: usize,
    host: Host,
}

const SECURE: &str = "https://";
const PLAIN: &str = "http://";

impl AtpEndpoint {
    /// Reads a provider's own endpoint: like the others, or `http://localhost:PORT/…` for a provider without TLS on this
    /// machine.
    ///
    /// # Errors
    /// [`Malformed`] says what an endpoint looks like.
    pub fn for_provider(text: &str) -> Result<Self, Malformed> {
        match text.strip_prefix(PLAIN) {
            Some(rest) if rest.starts_with("localhost:") || rest.starts_with("localhost/") => {
                Self::read(text, PLAIN)
            }
            _ => Self::read(text, SECURE),
        }
    }

    fn read(text: &str, scheme: &'static str) -> Result<Self, Malformed> {
        const FORM: Malformed = Malformed(
            "an endpoint is https://, a host name and a path of plain characters, without query or fragment",
        );
        let rest = text.strip_prefix(scheme).filter(|_| text.len() <= MAX_ENDPOINT_BYTES).ok_or(FORM)?;
        let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).ok_or(FORM)?;
        let host: Host = authority.parse()?;
        // What was read is what is compared: no second spelling of a host.
        let spelled = authority == host.to_string();
        let plain_port = scheme == PLAIN && authority == format!("{}:443", host.name());
        if !(spelled || plain_port) || !is_path(path) {
            return Err(FORM);
        }
        let path_start = text.len() - path.len();
        Ok(Self { text: text.into(), authority_start: scheme.len(), path_start, host })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Scheme, host and port: a token's `iss` and `aud`.
    pub fn origin(&self) -> &str {
        self.text.get(..self.path_start).unwrap_or_default()
    }

    /// The path, which begins with `/`.
    pub fn path(&self) -> &str {
        self.text.get(self.path_start..).unwrap_or_default()
    }

    /// Host and port as written.
    pub fn authority(&self) -> &str {
        self.text.get(self.authority_start..self.path_start).unwrap_or_default()
    }

    /// Whether it is reached over TLS.
    fn is_secure(&self) -> bool {
        self.text.starts_with(SECURE)
    }

    /// The endpoint with `suffix` behind it, such as `/verify`.
    ///
    /// # Errors
    /// [`Malformed`] if the result is not an endpoint.
    pub fn join(&self, suffix: &str) -> Result<Self, Malformed> {
        let scheme = if self.is_secure() { SECURE } else { PLAIN };
        Self::read(&format!("{}{suffix}", self.text), scheme)
    }
}

/// Segments of unreserved characters and a few more, none of them empty, `.` or `..`.
fn is_path(path: &str) -> bool {
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte))
    };
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_segment))
}

impl FromStr for AtpEndpoint {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::read(text, SECURE)
    }
}

impl fmt::Display for AtpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_and_never_an_address() {
        for (text, written) in [
            ("api.example.com", "api.example.com"),
            ("API.Example.com:8443", "api.example.com:8443"),
            ("localhost:443", "localhost"),
            ("a-1.b2", "a-1.b2"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), written);
        }
        let long = format!("{}.com", "a".repeat(64));
        for bad in [
            "",
            ".",
            "a..b",
            "a.",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0x7f000001",
            "a.0x1",
            "[::1]",
            "::1",
            "user@a.com",
            "a.com:0",
            "a.com:65536",
            "a.com:08",
            "a.com:",
            "a.com:8:9",
            "a_b.com",
            "-a.com",
            "a-.com",
            "a.com/x",
            "a.com#",
            "bücher.de",
            "a.com ",
            &long,
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_endpoint_has_one_spelling() {
        let endpoint: AtpEndpoint = "https://api.example.com/v1/agent-tokens".parse().unwrap();
        assert_eq!((endpoint.origin(), endpoint.path()), ("https://api.example.com", "/v1/agent-tokens"));
        assert_eq!(
            endpoint.join("/verify").unwrap().as_str(),
            "https://api.example.com/v1/agent-tokens/verify"
        );
        for bad in [
            "http://api.example.com/x",
            "https://API.example.com/x",
            "https://api.example.com:443/x",
            "https://api.example.com",
            "https://api.example.com/",
            "https://u@api.example.com/x",
            "https://api.example.com/x?y",
            "https://api.example.com/x#y",
            "https://api.example.com/%2e%2e/x",
            "https://api.example.com/../x",
            "https://api.example.com//x",
            "https://api.example.com\\x",
            "https://169.254.169.254/x",
            "https://[::ffff:127.0.0.1]/x",
            "HTTPS://api.example.com/x",
            "https://api.example.com/x y",
            "https:///x",
            "https://api.example.com/x/",
            "//api.example.com/x",
        ] {
            assert!(bad.parse::<AtpEndpoint>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_a_provider_on_this_machine_goes_without_tls() {
        let endpoint = AtpEndpoint::for_provider("http://localhost:8710/v1/agent-tokens").unwrap();
        assert_eq!((endpoint.origin(), endpoint.is_secure()), ("http://localhost:8710", false));
        assert!(AtpEndpoint::for_provider("http://localhost.evil.com/x").is_err());
        assert!(AtpEndpoint::for_provider("http://example.com/x").is_err());
        assert!("http://localhost:8710/x".parse::<AtpEndpoint>().is_err());
    }

    #[test]
    fn a_host_covers_itself_and_what_is_below_it() {
        let covers = |host: &str, other: &str| host.parse::<Host>().unwrap().covers(&other.parse().unwrap());
        assert!(covers("example.com", "example.com") && covers("example.com", "api.example.com"));
        assert!(covers("example.com:8443", "example.com:8443") && covers("example.com:8443", "example.com"));
        for other in ["evilexample.com", "com", "example.com.evil.org", "example.com:22", "other.com"] {
            assert!(!covers("example.com", other), "{other}");
        }
    }
}
