//! Where the server is, and what is asked of it.

use core::fmt;
use core::time::Duration;
use std::path::{Path, PathBuf};

use obol_secret::file::PrivateFile;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use zeroize::Zeroizing;

/// How far this machine's clock and the server's may be apart, in seconds, unless told otherwise. Part of every
/// fence, twice.
pub const MAX_CLOCK_DIFFERENCE_SECS: u64 = 5;
/// How long a reply may take unless told otherwise; also the most that connecting may take.
const REPLY_TIMEOUT: Duration = Duration::from_millis(500);
/// The longest password, in bytes.
pub const MAX_PASSWORD_BYTES: usize = 4096;
/// The longest namespace, in bytes. It is part of every key.
const MAX_NAMESPACE_BYTES: usize = 32;

/// Why a setting was not taken.
#[derive(Debug)]
#[non_exhaustive]
pub enum InvalidOption {
    /// The address is no URL of a kind that is understood.
    Url,
    /// The address contains a password.
    PasswordInUrl,
    /// The address asks for TLS, which is not built in.
    Tls,
    /// The namespace is empty, too long, or has other characters than letters, digits, `-`, `_` and `.`.
    Namespace,
    /// The password file cannot be read, or is open to others.
    PasswordFile(String),
}

impl fmt::Display for InvalidOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str(
                "not an address of Redis; write redis://host:port, redis://user@host:port/db or unix:///path/of/socket",
            ),
            Self::PasswordInUrl => f.write_str(
                "the address contains a password, which process lists and logs would show; put it into a file",
            ),
            Self::Tls => f.write_str(
                "TLS to Redis is not built in; use a Unix socket, a private network, or a TLS tunnel such as stunnel",
            ),
            Self::Namespace => write!(
                f,
                "a namespace is 1 to {MAX_NAMESPACE_BYTES} letters, digits, hyphens, underscores or full stops"
            ),
            Self::PasswordFile(why) => write!(f, "no password: {why}"),
        }
    }
}

impl core::error::Error for InvalidOption {}

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Server {
    /// At this name or address, by TCP.
    Tcp {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
    },
    /// At a Unix socket.
    Unix(PathBuf),
}

/// How to reach the server, and what to ask of it.
#[derive(Clone)]
pub struct RedisOptions {
    pub(crate) connection: ConnectionInfo,
    pub(crate) namespace: String,
    pub(crate) clock_skew: u64,
    pub(crate) max_clock_difference: u64,
    pub(crate) wait_replicas: u32,
    pub(crate) reply_timeout: Duration,
    pub(crate) first_start: bool,
    pub(crate) assume_noeviction: bool,
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("address", &self.address())
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl RedisOptions {
    /// The server at `url`: `redis://[user@]host[:port][/db]`, or `unix:///path[?db=n]`. All servers that verify for
    /// one audience use one `namespace`; no others use it.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`].
    pub fn new(url: &str, namespace: &str) -> Result<Self, InvalidOption> {
        let character = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if namespace.is_empty() || namespace.len() > MAX_NAMESPACE_BYTES || !namespace.bytes().all(character)
        {
            return Err(InvalidOption::Namespace);
        }
        if url.starts_with("rediss:") || url.starts_with("valkeys:") {
            return Err(InvalidOption::Tls);
        }
        // What the library says about an address might repeat it.
        let connection = url.into_connection_info().map_err(|_| InvalidOption::Url)?;
        if connection.redis_settings().password().is_some() {
            return Err(InvalidOption::PasswordInUrl);
        }
        let settings = connection.redis_settings().clone().set_skip_set_lib_name();
        Ok(Self {
            connection: connection.set_redis_settings(settings),
            namespace: namespace.to_owned(),
            clock_skew: obol_verify::DEFAULT_CLOCK_SKEW_SECS,
            max_clock_difference: MAX_CLOCK_DIFFERENCE_SECS,
            wait_replicas: 0,
            reply_timeout: REPLY_TIMEOUT,
            first_start: false,
            assume_noeviction: false,
        })
    }

    /// Reads the password from a file that only its owner may touch. A line end after it does not belong to it.
    ///
    /// # Errors
    ///
    /// [`InvalidOption::PasswordFile`].
    pub fn password_file(mut self, path: &Path) -> Result<Self, InvalidOption> {
        let password = read_password(path).map_err(InvalidOption::PasswordFile)?;
        let settings = self.connection.redis_settings().clone().set_password(password.as_str());
        self.connection = self.connection.set_redis_settings(settings);
        Ok(self)
    }

    /// The clock skew that the verifier allows, in seconds. The same on every server that shares the set.
    #[must_use]
    pub fn clock_skew(mut self, seconds: u64) -> Self {
        self.clock_skew = seconds;
        self
    }

    /// How far this machine's clock and the server's may be apart, in seconds; at least 1.
    #[must_use]
    pub fn max_clock_difference(mut self, seconds: u64) -> Self {
        self.max_clock_difference = seconds.max(1);
        self
    }

    /// Says "yes" only when this many replicas have a mark too (`WAIT`). With none, the master alone decides.
    #[must_use]
    pub fn wait_replicas(mut self, replicas: u32) -> Self {
        self.wait_replicas = replicas;
        self
    }

    /// How long a reply may take. Longer than what is allowed for readiness makes no sense.
    #[must_use]
    pub fn reply_timeout(mut self, timeout: Duration) -> Self {
        self.reply_timeout = timeout;
        self
    }

    /// Nothing was ever spent in this namespace, so no fence is needed if nothing is found in it. Counts once, for the
    /// first connection. Wrong where the server may have lost what it had.
    #[must_use]
    pub fn first_start(mut self) -> Self {
        self.first_start = true;
        self
    }

    /// The server does not say what its `maxmemory-policy` is, and somebody has made sure that it is `noeviction`. A
    /// server that does say is believed over this.
    #[must_use]
    pub fn assume_noeviction(mut self) -> Self {
        self.assume_noeviction = true;
        self
    }

    /// Where the server is, without user and password.
    pub fn address(&self) -> String {
        self.connection.addr().to_string()
    }

    /// Where the server is, for who has to let this process reach it.
    pub fn server(&self) -> Option<Server> {
        match self.connection.addr() {
            ConnectionAddr::Tcp(host, port) => Some(Server::Tcp { host: host.clone(), port: *port }),
            ConnectionAddr::Unix(path) => Some(Server::Unix(path.clone())),
            _ => None,
        }
    }

    pub(crate) fn key(&self, name: &str) -> String {
        format!("obol:{}:{name}", self.namespace)
    }
}

fn read_password(path: &Path) -> Result<Zeroizing<String>, String> {
    let bytes = PrivateFile::read(path, MAX_PASSWORD_BYTES + 2).map_err(|error| error.to_string())?;
    let text = core::str::from_utf8(&bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
        return Err(format!(
            "{} must hold one password of at most {MAX_PASSWORD_BYTES} bytes",
            path.display()
        ));
    }
    Ok(Zeroizing::new(password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str, namespace: &str) -> String {
        RedisOptions::new(url, namespace).unwrap_err().to_string()
    }

    #[test]
    fn addresses_are_taken_or_refused_with_words_that_repeat_no_password() {
        for url in ["redis://127.0.0.1:6379", "redis://user@host/3", "unix:///run/redis.sock", "valkey://h"] {
            assert!(RedisOptions::new(url, "rs").is_ok(), "{url}");
        }
        assert!(error("redis://user:hunter2@host", "rs").contains("put it into a file"));
        assert!(!error("redis://user:hunter2@host", "rs").contains("hunter2"));
        assert!(error("rediss://host", "rs").contains("TLS"));
        assert!(error("http://host", "rs").contains("not an address"));
        assert!(error("redis://:hunter2@:bad:", "rs").len() < 200);
    }

    #[test]
    fn a_namespace_is_short_and_plain() {
        for namespace in ["", "a:b", "a b", "{a}", &"a".repeat(33)] {
            assert!(error("redis://h", namespace).contains("namespace"), "{namespace}");
        }
    }

    #[test]
    fn a_password_comes_from_a_private_file_and_shows_nowhere() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "hunter2\n").unwrap();
        let options = || RedisOptions::new("redis://h", "rs").unwrap().password_file(&path);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(options().unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let taken = options().unwrap();
        assert_eq!(taken.connection.redis_settings().password(), Some("hunter2"));
        assert!(!format!("{taken:?}").contains("hunter2"));
    }
}
