//! Where a request goes: an address with https, or with http on this machine itself.

use core::fmt;
use core::net::IpAddr;

use http::Uri;

/// The longest address, in bytes.
const MAX_BYTES: usize = 2_048;

/// An address.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Target {
    text: String,
    is_tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

/// Why an address is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TargetError {
    /// It is not an address of this form.
    Malformed,
    /// It is http to another machine.
    Plain,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => {
                "an address has the form https://host/path, in at most 2048 bytes, without user and fragment"
            }
            Self::Plain => "http:// is for this machine alone (127.0.0.1, [::1] or localhost); use https://",
        })
    }
}

impl core::error::Error for TargetError {}

impl Target {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// [`TargetError`].
    pub(crate) fn parse(text: &str) -> Result<Self, TargetError> {
        if text.len() > MAX_BYTES || text.contains(['#', '@', '\\']) || !text.is_ascii() {
            return Err(TargetError::Malformed);
        }
        let uri: Uri = text.parse().map_err(|_| TargetError::Malformed)?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(TargetError::Malformed),
        };
        let authority = uri.authority().ok_or(TargetError::Malformed)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(TargetError::Malformed);
        }
        if !is_tls && !is_this_machine(&host) {
            return Err(TargetError::Plain);
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            text: text.to_owned(),
            is_tls,
            host,
            port,
            authority: authority.as_str().to_owned(),
            path: path.to_owned(),
        })
    }

    /// The address with another path, which begins with a slash.
    pub(crate) fn at(&self, path: &str) -> Self {
        let scheme = if self.is_tls { "https" } else { "http" };
        let text = format!("{scheme}://{}{path}", self.authority);
        Self { text, path: path.to_owned(), ..self.clone() }
    }

    /// As it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Its host: a name or an address without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Whether both have one scheme, host and port.
    pub(crate) fn has_origin_of(&self, other: &Self) -> bool {
        (self.is_tls, &self.host, self.port) == (other.is_tls, &other.host, other.port)
    }

    /// Whether it is on this machine, as far as its text says.
    pub(crate) fn is_here(&self) -> bool {
        is_this_machine(&self.host)
    }
}

/// Whether a name or an address stands for this machine.
pub(crate) fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_or_here() {
        let target = Target::parse("https://IdP.example/a?b=c").unwrap();
        assert_eq!((target.host(), target.port(), target.path()), ("idp.example", 443, "/a?b=c"));
        let here = Target::parse("http://[::1]:8080").unwrap();
        assert_eq!((here.host(), here.port(), here.path()), ("::1", 8080, "/"));
        assert!(here.at("/x").as_str().ends_with("://[::1]:8080/x"));
        for bad in ["http://idp.example/", "http://127.0.0.1.evil.example/", "http://10.0.0.1/"] {
            assert_eq!(Target::parse(bad), Err(TargetError::Plain), "{bad}");
        }
        for bad in
            ["", "idp.example", "ftp://a/", "https://", "https://u@a/", "https://a/#b", "https://a b/", "/x"]
        {
            assert_eq!(Target::parse(bad), Err(TargetError::Malformed), "{bad}");
        }
        let longest = format!("https://a/{}", "x".repeat(MAX_BYTES));
        assert_eq!(Target::parse(&longest), Err(TargetError::Malformed));
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |text| Target::parse(text).unwrap();
        assert!(of("https://a/x").has_origin_of(&of("https://a:443/y")));
        for other in ["https://a:444/", "https://b/", "https://a.b/"] {
            assert!(!of("https://a/").has_origin_of(&of(other)), "{other}");
        }
    }
}
