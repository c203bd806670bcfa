//! Where the sockets are.
//!
//! The agent's socket, first match wins: what the caller names, then `OBOL_ENDPOINT_SOCKET`, then
//! `$XDG_RUNTIME_DIR/obol/agent.sock`, then `/run/obol/agent.sock`. The operator's: what the caller names, then
//! `OBOL_CONTROL_SOCKET`, then `control.sock` beside the agent's. The authenticator's likewise: `OBOL_AUTH_SOCKET`, then
//! `auth.sock` beside the agent's. `/tmp` is never looked at unless named, because
//! anyone can put a socket there.
//!
//! `OBOL_ENDPOINT_USER` names the user a daemon is expected to run as, by number or by name, where that is neither the
//! client's own nor root. What a client makes of it is `obol-client`'s `connect`.
//!
//! The environment is passed in as a function, so that resolving an endpoint depends on its arguments alone:
//! `Endpoint::agent(None, |name| std::env::var_os(name))`.

use core::fmt;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::user::{UnknownUser, uid_of};

/// Names the agent's socket: `unix:///absolute/path`.
pub const AGENT_SOCKET_VARIABLE: &str = "OBOL_ENDPOINT_SOCKET";
/// Names the control socket: `unix:///absolute/path`.
pub const CONTROL_SOCKET_VARIABLE: &str = "OBOL_CONTROL_SOCKET";
/// Names the authenticator's socket: `unix:///absolute/path`.
pub const AUTH_SOCKET_VARIABLE: &str = "OBOL_AUTH_SOCKET";
/// Names the authenticator's control socket: `unix:///absolute/path`.
pub const AUTH_CONTROL_SOCKET_VARIABLE: &str = "OBOL_AUTH_CONTROL_SOCKET";
/// Names a resource server's control socket: `unix:///absolute/path`.
pub const RS_CONTROL_SOCKET_VARIABLE: &str = "OBOL_RS_CONTROL_SOCKET";
/// Names the Authentication Service's control socket: `unix:///absolute/path`.
pub const AS_CONTROL_SOCKET_VARIABLE: &str = "OBOL_AS_CONTROL_SOCKET";
/// Names the user the daemon runs as, by number or by name.
pub const DAEMON_USER_VARIABLE: &str = "OBOL_ENDPOINT_USER";
/// Longest path of a socket, in bytes: what `sun_path` holds on Linux, less the NUL that ends it.
const MAX_SOCKET_PATH_BYTES: usize = 107;

const RUNTIME_DIR_VARIABLE: &str = "XDG_RUNTIME_DIR";
const AGENT_SOCKET_IN_RUNTIME_DIR: &str = "obol/agent.sock";
const SYSTEM_AGENT_SOCKET: &str = "/run/obol/agent.sock";
const RS_CONTROL_SOCKET: OwnPlace = OwnPlace {
    variable: RS_CONTROL_SOCKET_VARIABLE,
    in_runtime_dir: "obol/rs-control.sock",
    systems: "/run/obol/rs-control.sock",
};
const AS_CONTROL_SOCKET: OwnPlace = OwnPlace {
    variable: AS_CONTROL_SOCKET_VARIABLE,
    in_runtime_dir: "obol/as-control.sock",
    systems: "/run/obol/as-control.sock",
};
const CONTROL_SOCKET_NAME: &str = "control.sock";
const AUTH_SOCKET_NAME: &str = "auth.sock";
const AUTH_CONTROL_SOCKET_NAME: &str = "auth-control.sock";
const SCHEME: &[u8] = b"unix://";

/// Where a control socket is that lies beside no agent's.
struct OwnPlace {
    variable: &'static str,
    in_runtime_dir: &'static str,
    systems: &'static str,
}

/// The path of a socket that can be bound or connected to, and the user who is expected to serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    path: PathBuf,
    user: Option<u32>,
}

impl Endpoint {
    /// A socket at this path.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] when the path is empty, holds a NUL byte or exceeds 107 bytes.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self, EndpointError> {
        let path = path.into();
        let bytes = path.as_os_str().as_bytes();
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(EndpointError::NotAPath { path });
        }
        if bytes.len() > MAX_SOCKET_PATH_BYTES {
            return Err(EndpointError::TooLong { path });
        }
        Ok(Self { path, user: None })
    }

    /// The same socket, served by this user.
    #[must_use]
    pub const fn of_user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }

    fn of_named_user(self, environment: impl Fn(&str) -> Option<OsString>) -> Result<Self, EndpointError> {
        let Some(user) = environment(DAEMON_USER_VARIABLE).filter(|user| !user.is_empty()) else {
            return Ok(self);
        };
        Ok(self.of_user(uid_of(&user.to_string_lossy()).map_err(EndpointError::UnknownUser)?))
    }

    /// The agent's socket, to bind or to connect to. `named` is a path or `unix:///absolute/path`; `environment`
    /// looks up a variable.
    ///
    /// Without anything named, a daemon binds, and a client connects to, the user's socket where there is a runtime
    /// directory. A client should use [`agent_to_connect`](Self::agent_to_connect), which also finds the system's.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] when what is named is not a usable path.
    pub fn agent(
        named: Option<&OsStr>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EndpointError> {
        Self::first_agent(named, &environment, |_| true)?.of_named_user(environment)
    }

    /// Like [`agent`](Self::agent), but where nothing is named and the user's socket does not exist, the system's is
    /// taken if that does.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] when what is named is not a usable path.
    pub fn agent_to_connect(
        named: Option<&OsStr>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EndpointError> {
        Self::first_agent(named, &environment, Path::exists)?.of_named_user(environment)
    }

    fn first_agent(
        named: Option<&OsStr>,
        environment: impl Fn(&str) -> Option<OsString>,
        exists: impl Fn(&Path) -> bool,
    ) -> Result<Self, EndpointError> {
        if let Some(endpoint) = Self::named(named, AGENT_SOCKET_VARIABLE, &environment) {
            return endpoint;
        }
        Self::usual((AGENT_SOCKET_IN_RUNTIME_DIR, SYSTEM_AGENT_SOCKET), environment, exists)
    }

    /// The user's socket in the runtime directory, or the system's, where those are their names.
    fn usual(
        (in_runtime_dir, systems): (&str, &str),
        environment: impl Fn(&str) -> Option<OsString>,
        exists: impl Fn(&Path) -> bool,
    ) -> Result<Self, EndpointError> {
        let users = environment(RUNTIME_DIR_VARIABLE)
            .map(PathBuf::from)
            // The base directory specification: a relative path is invalid and to be ignored.
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(in_runtime_dir));
        let systems = PathBuf::from(systems);
        match users {
            Some(users) if exists(&users) || !exists(&systems) => Self::at(users),
            _ => Self::at(systems),
        }
    }

    /// The control socket, to bind or to connect to; `agent` is the agent's socket it lies beside when nothing is
    /// named.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] when what is named is not a usable path.
    pub fn control(
        named: Option<&OsStr>,
        agent: &Self,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EndpointError> {
        Self::beside(agent, CONTROL_SOCKET_NAME, named, CONTROL_SOCKET_VARIABLE, environment)
    }

    /// The authenticator's socket, to bind or to connect to; `agent` is the agent's socket it lies beside when nothing is
    /// named.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] when what is named is not a usable path.
    pub fn auth(
        named: Option<&OsStr>,
        agent: &Self,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EndpointError> {
        Self::beside(agent, AUTH_SOCKET_NAME, named, AUTH_SOCKET_VARIABLE, environment)
    }

    /// The control socket of the authenticator, to bind or to connect to; `agent` is the agent's socket it lies beside when
    /// nothing is named.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] when what is named is not a usable path.
    pub fn auth_control(
        named: Option<&OsStr>,
        agent: &Self,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EndpointError> {
        Self::beside(agent, AUTH_CONTROL_SOCKET_NAME, named, AUTH_CONTROL_SOCKET_VARIABLE, environment)
    }

    fn beside(
        agent: &Self,
        name: &str,
        named: Option<&OsStr>,
        variable: &'static str,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EndpointError> {
        Self::named(named, variable, &environment)
            .unwrap_or_else(|| Self::at(agent.path.with_file_name(name)))?
            .of_named_user(environment)
    }

    /// A resource server's control socket, to bind: what is named, then `OBOL_RS_CONTROL_SOCKET`, then
    /// `$XDG_RUNTIME_DIR/obol/rs-control.sock`, then `/run/obol/rs-control.sock`.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] when what is named is not a usable path.
    pub fn rs_control(
        named: Option<&OsStr>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EndpointError> {
        RS_CONTROL_SOCKET.first(named, &environment, |_| true)
    }

    /// Like [`rs_control`](Self::rs_control), to connect to: where nothing is named and the user's socket does not exist,
    /// the system's is taken if that does.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] when what is named is not a usable path.
    pub fn rs_control_to_connect(
        named: Option<&OsStr>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EndpointError> {
        RS_CONTROL_SOCKET.first(named, &environment, Path::exists)?.of_named_user(environment)
    }

    /// The Authentication Service's control socket, to bind: what is named, then `OBOL_AS_CONTROL_SOCKET`, then
    /// `$XDG_RUNTIME_DIR/obol/as-control.sock`, then `/run/obol/as-control.sock`.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] when what is named is not a usable path.
    pub fn as_control(
        named: Option<&OsStr>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EndpointError> {
        AS_CONTROL_SOCKET.first(named, &environment, |_| true)
    }

    /// Like [`as_control`](Self::as_control), to connect to: where nothing is named and the user's socket does not exist,
    /// the system's is taken if that does.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] when what is named is not a usable path.
    pub fn as_control_to_connect(
        named: Option<&OsStr>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EndpointError> {
        AS_CONTROL_SOCKET.first(named, &environment, Path::exists)?.of_named_user(environment)
    }

    fn named(
        named: Option<&OsStr>,
        variable: &'static str,
        environment: &impl Fn(&str) -> Option<OsString>,
    ) -> Option<Result<Self, EndpointError>> {
        if let Some(named) = named {
            let is_url = named.as_bytes().starts_with(b"unix:");
            return Some(if is_url { Self::from_url(named, "the socket") } else { Self::at(named) });
        }
        // An empty variable counts as none, as everywhere in Unix.
        let url = environment(variable).filter(|url| !url.is_empty())?;
        Some(Self::from_url(&url, variable))
    }

    fn from_url(url: &OsStr, origin: &'static str) -> Result<Self, EndpointError> {
        match url.as_bytes().strip_prefix(SCHEME) {
            Some(path) if path.starts_with(b"/") => Self::at(OsString::from_vec(path.to_vec())),
            _ => Err(EndpointError::NotAUnixUrl { origin, url: url.to_owned() }),
        }
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The user who is expected to serve it, if one was named.
    pub const fn user(&self) -> Option<u32> {
        self.user
    }
}

impl OwnPlace {
    fn first(
        &self,
        named: Option<&OsStr>,
        environment: impl Fn(&str) -> Option<OsString>,
        exists: impl Fn(&Path) -> bool,
    ) -> Result<Endpoint, EndpointError> {
        Endpoint::named(named, self.variable, &environment)
            .unwrap_or_else(|| Endpoint::usual((self.in_runtime_dir, self.systems), environment, exists))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.path.display())
    }
}

/// A socket that is named in a way that cannot work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointError {
    /// Something else than `unix:///absolute/path`.
    NotAUnixUrl {
        /// The variable or argument it comes from.
        origin: &'static str,
        /// What it says.
        url: OsString,
    },
    /// An empty path, or one with a NUL byte.
    NotAPath {
        /// The path.
        path: PathBuf,
    },
    /// A path longer than 107 bytes.
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The variable names a daemon's user whom nobody knows.
    UnknownUser(UnknownUser),
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAUnixUrl { origin, url } => {
                write!(f, "{origin} must be given as unix:///absolute/path, not {url:?}")
            }
            Self::NotAPath { path } => write!(f, "{path:?} is not a path for a socket; name a file"),
            Self::TooLong { path } => write!(
                f,
                "the socket's path {path:?} has {} bytes and the system takes at most {MAX_SOCKET_PATH_BYTES}; \
                 choose a shorter directory",
                path.as_os_str().len()
            ),
            Self::UnknownUser(error) => write!(f, "{DAEMON_USER_VARIABLE}: {error}"),
        }
    }
}

impl core::error::Error for EndpointError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value))
    }

    fn agent(named: Option<&str>, variables: &[(&str, &str)]) -> Result<PathBuf, EndpointError> {
        Endpoint::agent(named.map(OsStr::new), environment(variables)).map(|endpoint| endpoint.path)
    }

    const BOTH: &[(&str, &str)] =
        &[("OBOL_ENDPOINT_SOCKET", "unix:///e/a.sock"), ("XDG_RUNTIME_DIR", "/run/user/7")];

    #[test]
    fn the_agents_socket_is_the_first_one_named() {
        assert_eq!(agent(Some("/f/a.sock"), BOTH).unwrap(), Path::new("/f/a.sock"));
        assert_eq!(agent(Some("unix:///f/a.sock"), BOTH).unwrap(), Path::new("/f/a.sock"));
        assert_eq!(agent(None, BOTH).unwrap(), Path::new("/e/a.sock"));
        assert_eq!(agent(None, &BOTH[1..]).unwrap(), Path::new("/run/user/7/obol/agent.sock"));
        assert_eq!(agent(None, &[]).unwrap(), Path::new("/run/obol/agent.sock"));
    }

    #[test]
    fn empty_and_relative_directories_do_not_count() {
        let variables = [("OBOL_ENDPOINT_SOCKET", ""), ("XDG_RUNTIME_DIR", "")];
        assert_eq!(agent(None, &variables).unwrap(), Path::new("/run/obol/agent.sock"));
        assert_eq!(agent(None, &[("XDG_RUNTIME_DIR", "tmp")]).unwrap(), Path::new("/run/obol/agent.sock"));
    }

    #[test]
    fn only_an_absolute_unix_url_is_taken_from_the_environment() {
        for url in
            ["/e/a.sock", "unix:/e/a.sock", "unix://e/a.sock", "http://127.0.0.1:80", "tcp://x", "unix://"]
        {
            let error = agent(None, &[("OBOL_ENDPOINT_SOCKET", url)]).unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains("OBOL_ENDPOINT_SOCKET") && message.contains("unix:///absolute/path"),
                "{message}"
            );
        }
        assert!(agent(Some("unix://relative"), &[]).is_err());
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused_with_its_length() {
        let longest = format!("/{}", "x".repeat(106));
        assert!(agent(Some(&longest), &[]).is_ok());
        let message = agent(Some(&format!("{longest}x")), &[]).unwrap_err().to_string();
        assert!(message.contains("108 bytes") && message.contains("107"), "{message}");
        assert!(agent(Some(""), &[]).is_err());
        assert!(agent(Some("/a\0b"), &[]).is_err());
        let runtime_dir = format!("/{}", "x".repeat(100));
        assert!(agent(None, &[("XDG_RUNTIME_DIR", &runtime_dir)]).is_err());
    }

    #[test]
    fn the_daemons_user_is_the_one_that_the_variable_names() {
        let user = |variables: &[(&str, &str)]| {
            let agent = Endpoint::agent(Some(OsStr::new("/d/a")), environment(variables))?;
            let control = Endpoint::control(None, &agent, environment(variables))?;
            assert_eq!(agent.user(), control.user());
            Ok::<_, EndpointError>(agent.user())
        };
        assert_eq!(user(&[]), Ok(None));
        assert_eq!(user(&[("OBOL_ENDPOINT_USER", "")]), Ok(None));
        assert_eq!(user(&[("OBOL_ENDPOINT_USER", "54321")]), Ok(Some(54_321)));
        assert_eq!(user(&[("OBOL_ENDPOINT_USER", "root")]), Ok(Some(0)));
        let message = user(&[("OBOL_ENDPOINT_USER", "no one")]).unwrap_err().to_string();
        assert!(message.contains("OBOL_ENDPOINT_USER") && message.contains("no one"), "{message}");
    }

    #[test]
    fn connecting_finds_the_systems_socket_where_the_user_has_none() {
        let variables = environment(&BOTH[1..]);
        let users = Path::new("/run/user/7/obol/agent.sock");
        let systems = Path::new("/run/obol/agent.sock");
        for (existing, expected) in
            [(vec![users, systems], users), (vec![users], users), (vec![systems], systems), (vec![], users)]
        {
            let endpoint = Endpoint::first_agent(None, &variables, |path| existing.contains(&path)).unwrap();
            assert_eq!(endpoint.path(), expected);
        }
    }

    #[test]
    fn a_resource_servers_control_socket_has_a_place_of_its_own() {
        let control = |named: Option<&str>, variables: &[(&str, &str)]| {
            Endpoint::rs_control(named.map(OsStr::new), environment(variables)).unwrap().path
        };
        assert_eq!(control(None, &[]), Path::new("/run/obol/rs-control.sock"));
        let runtime_dir = ("XDG_RUNTIME_DIR", "/run/user/7");
        let variables = &[runtime_dir];
        assert_eq!(control(None, variables), Path::new("/run/user/7/obol/rs-control.sock"));
        let variables = &[runtime_dir, ("OBOL_RS_CONTROL_SOCKET", "unix:///e/r.sock")];
        assert_eq!(control(None, variables), Path::new("/e/r.sock"));
        assert_eq!(control(Some("/f/r.sock"), variables), Path::new("/f/r.sock"));
    }

    #[test]
    fn the_authentication_services_control_socket_has_a_place_of_its_own() {
        let control = |named: Option<&str>, variables: &[(&str, &str)]| {
            Endpoint::as_control(named.map(OsStr::new), environment(variables)).unwrap().path
        };
        assert_eq!(control(None, &[]), Path::new("/run/obol/as-control.sock"));
        let runtime_dir = ("XDG_RUNTIME_DIR", "/run/user/7");
        assert_eq!(control(None, &[runtime_dir]), Path::new("/run/user/7/obol/as-control.sock"));
        let variables = &[runtime_dir, ("OBOL_AS_CONTROL_SOCKET", "unix:///e/a.sock")];
        assert_eq!(control(None, variables), Path::new("/e/a.sock"));
        assert_eq!(control(Some("/f/a.sock"), variables), Path::new("/f/a.sock"));
    }

    #[test]
    fn the_control_socket_lies_beside_the_agents_unless_named() {
        let beside = Endpoint::at("/d/agent.sock").unwrap();
        let control = |named: Option<&str>, variables| {
            Endpoint::control(named.map(OsStr::new), &beside, environment(variables)).unwrap().path
        };
        assert_eq!(control(None, &[]), Path::new("/d/control.sock"));
        let variables = &[("OBOL_CONTROL_SOCKET", "unix:///e/c.sock")];
        assert_eq!(control(None, variables), Path::new("/e/c.sock"));
        assert_eq!(control(Some("/f/c.sock"), variables), Path::new("/f/c.sock"));
    }
}
