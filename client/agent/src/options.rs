//! What may be said of an agent, and of one request.

use core::fmt;
use core::time::Duration;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use obol_client::ConnectOptions;
use obol_ipc::Endpoint;
use obol_ipc::auth::{RegistrationResult, Route};
use obol_ipc::names::{Audience, Label, PeerName, ToolName};

use crate::approval::Approval;
use crate::error::{Code, Error};

/// How long a call may take, unless told otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest idempotency key.
const MAX_KEY_BYTES: usize = 255;

/// Makes an [`Agent`](crate::Agent).
#[derive(Clone, Debug)]
pub struct AgentBuilder {
    socket: Option<OsString>,
    auth_socket: Option<OsString>,
    routes: Option<Vec<Route>>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) timeout: Duration,
    name: String,
}

impl Default for AgentBuilder {
    fn default() -> Self {
        Self {
            socket: None,
            auth_socket: None,
            routes: None,
            ca_file: None,
            timeout: TIMEOUT,
            name: concat!("obol-agent/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl AgentBuilder {
    /// The sidecar's socket, where it is not the usual one: a path, or `unix:///absolute/path`.
    #[must_use]
    pub fn socket(mut self, socket: impl AsRef<OsStr>) -> Self {
        self.socket = Some(socket.as_ref().to_owned());
        self
    }

    /// The authenticator's socket, where it is not beside the sidecar's.
    #[must_use]
    pub fn auth_socket(mut self, socket: impl AsRef<OsStr>) -> Self {
        self.auth_socket = Some(socket.as_ref().to_owned());
        self
    }

    /// Where requests may go, for a session made by hand. The authenticator is then not asked.
    #[must_use]
    pub fn routes(mut self, routes: impl Into<Vec<Route>>) -> Self {
        self.routes = Some(routes.into());
        self
    }

    /// Trusts the certificate authorities of this PEM file, and not the system's.
    #[must_use]
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// How long a call may take unless it says otherwise; 30 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Who is calling, for the daemons' logs: `name/version`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Both sockets and how to introduce oneself; no authenticator where routes are given.
    pub(crate) fn endpoints(&self) -> Result<(Endpoint, Option<Endpoint>, ConnectOptions), Error> {
        let wrong = |error: &dyn fmt::Display| Error::new(Code::InvalidArgument, error.to_string());
        let environment = |name: &str| std::env::var_os(name);
        let agent =
            Endpoint::agent_to_connect(self.socket.as_deref(), environment).map_err(|error| wrong(&error))?;
        let auth = match self.routes {
            Some(_) => None,
            None => Some(
                Endpoint::auth(self.auth_socket.as_deref(), &agent, environment)
                    .map_err(|error| wrong(&error))?,
            ),
        };
        let name = PeerName::new(self.name.as_str()).map_err(|error| wrong(&error))?;
        Ok((agent, auth, ConnectOptions::new(name)))
    }

    pub(crate) fn take_routes(&mut self) -> Option<Vec<Route>> {
        self.routes.take()
    }
}

/// What becomes of an answer that leads elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Redirect {
    /// GET and HEAD follow it within the audience, each time with a fresh token; everything else is refused.
    #[default]
    Follow,
    /// It is the answer.
    Manual,
    /// It is refused.
    Refuse,
}

/// What may be said of one request. It can also be put into the request's extensions.
#[derive(Clone, Default, Debug)]
pub struct CallOptions {
    tool: Option<String>,
    audience: Option<String>,
    pub(crate) timeout: Option<Duration>,
    idempotency_key: Option<String>,
    pub(crate) redirect: Redirect,
    pub(crate) once: bool,
    pub(crate) approval: Option<Approval>,
    approval_id: Option<String>,
}

impl CallOptions {
    /// Nothing said.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tool, where the URL does not say it.
    #[must_use]
    pub fn tool(mut self, tool: impl Into<String>) -> Self {
        self.tool = Some(tool.into());
        self
    }

    /// The resource server, where the URL is several ones'.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// How long everything may take, the wait for a session and a token included.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Names the call, so that a server with retry receipts carries it out once, however often it is sent: then a request is
    /// sent again whatever its method. 1 to 255 visible ASCII characters; a random one for each call.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// What becomes of an answer that leads elsewhere.
    #[must_use]
    pub fn redirect(mut self, redirect: Redirect) -> Self {
        self.redirect = redirect;
        self
    }

    /// Sends the request again only where nothing of it went out, or its server said that nothing was run: not a GET either, and
    /// not under an idempotency key. For whoever passes the requests of others on.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Where the call takes a human's yes, asks for one and waits. Without this such a call is [`Code::ApprovalRequired`].
    #[must_use]
    pub fn approval(mut self, approval: Approval) -> Self {
        self.approval = Some(approval);
        self
    }

    /// The approval ID of a call that a human has already approved. No human is asked then.
    #[must_use]
    pub fn approval_id(mut self, id: impl Into<String>) -> Self {
        self.approval_id = Some(id.into());
        self
    }

    pub(crate) fn approval_label(&self) -> Result<Option<Label>, Error> {
        self.approval_id.as_deref().map(Label::new).transpose().map_err(invalid)
    }

    pub(crate) fn tool_name(&self) -> Result<Option<ToolName>, Error> {
        self.tool.as_deref().map(ToolName::new).transpose().map_err(invalid)
    }

    pub(crate) fn audience_name(&self) -> Result<Option<Audience>, Error> {
        self.audience.as_deref().map(Audience::new).transpose().map_err(invalid)
    }

    pub(crate) fn key(&self) -> Result<Option<&str>, Error> {
        match self.idempotency_key.as_deref() {
            Some(key)
                if !(1..=MAX_KEY_BYTES).contains(&key.len())
                    || !key.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                let rule = "idempotencyKey: 1 to 255 visible ASCII characters";
                Err(Error::new(Code::InvalidArgument, rule))
            }
            key => Ok(key),
        }
    }
}

fn invalid(error: obol_ipc::names::ValueError) -> Error {
    Error::new(Code::InvalidArgument, error.to_string())
}

/// What an agent asks to be registered as. What the operator set need not be said, and cannot be said otherwise.
pub struct Registration {
    pub(crate) name: Option<String>,
    pub(crate) class: Option<String>,
    pub(crate) roles: Vec<String>,
    pub(crate) tools: Vec<String>,
    pub(crate) wait: Duration,
    pub(crate) on_prompt: OnPrompt,
}

/// Shows a human what to do.
pub(crate) type OnPrompt = Box<dyn Fn(&RegistrationResult) + Send + Sync>;

/// How long to wait for a human, unless told otherwise: longer than a code is good.
const WAIT: Duration = Duration::from_secs(15 * 60);

impl Default for Registration {
    fn default() -> Self {
        Self {
            name: None,
            class: None,
            roles: Vec::new(),
            tools: Vec::new(),
            wait: WAIT,
            on_prompt: Box::new(prompt_on_stderr),
        }
    }
}

impl Registration {
    /// As the operator set it.
    pub fn new() -> Self {
        Self::default()
    }

    /// What humans call the agent.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Its class.
    #[must_use]
    pub fn class(mut self, class: impl Into<String>) -> Self {
        self.class = Some(class.into());
        self
    }

    /// A role that it would like.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.roles.push(role.into());
        self
    }

    /// A tool that it would like to use.
    #[must_use]
    pub fn tool(mut self, tool: impl Into<String>) -> Self {
        self.tools.push(tool.into());
        self
    }

    /// How long to wait for the human; 15 minutes. Zero: not at all.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Shows a human what to do, once, where one has to approve. Otherwise it is written to standard error.
    #[must_use]
    pub fn on_prompt(mut self, show: impl Fn(&RegistrationResult) + Send + Sync + 'static) -> Self {
        self.on_prompt = Box::new(show);
        self
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("name", &self.name)
            .field("class", &self.class)
            .field("roles", &self.roles)
            .field("tools", &self.tools)
            .finish_non_exhaustive()
    }
}

fn prompt_on_stderr(seen: &RegistrationResult) {
    use std::io::Write as _;
    let code = seen.code.as_deref().unwrap_or("-");
    let how = match &seen.page {
        Some(page) => format!("In a browser on this machine:\n\n  {page}"),
        None => format!("Where the service runs:\n\n  obol approve {code}"),
    };
    let text = format!(
        "A human must approve this agent. {how}\n\nThey see the agent's key in words, which must be these:\n\n  {}\n\n",
        seen.words
    );
    // Nobody may be there to read it.
    let _unseen = std::io::stderr().write_all(text.as_bytes());
}
