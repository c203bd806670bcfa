//! The same for programs without a runtime: one thread of its own does the work, and callers wait.

use core::fmt;

use bytes::Bytes;
use http::{Request, Response};
use obol_ipc::approvals::ApprovalResult;
use obol_ipc::auth::{OpenSession, RegistrationResult};
use obol_ipc::message::{SessionInfoResult, TokenStatusResult};
use tokio::runtime::{Builder, Runtime};

use crate::approval_request::ApprovalRequest;
use crate::body::Body;
use crate::error::{Code, Error};
use crate::options::{AgentBuilder, CallOptions, Registration};
use crate::token::Token;

/// The longest answer, in bytes: a blocking answer is there as a whole.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;

/// An agent whose calls block. Can be shared by threads.
pub struct Agent {
    runtime: Runtime,
    agent: crate::Agent,
}

impl Agent {
    /// Connects to the sidecar of this machine, with the usual settings.
    ///
    /// # Errors
    ///
    /// As for [`crate::Agent::connect`].
    pub fn connect() -> Result<Self, Error> {
        Self::from_builder(AgentBuilder::default())
    }

    /// The same with other settings.
    ///
    /// # Errors
    ///
    /// As for [`AgentBuilder::connect`].
    pub fn from_builder(builder: AgentBuilder) -> Result<Self, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("obol-agent")
            .enable_all()
            .build()
            .map_err(|error| Error::new(Code::Unavailable, format!("no thread can be started: {error}")))?;
        let agent = runtime.block_on(builder.connect())?;
        Ok(Self { runtime, agent })
    }

    /// As [`crate::Agent::register`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn register(&self, wishes: Registration) -> Result<RegistrationResult, Error> {
        self.runtime.block_on(self.agent.register(wishes))
    }

    /// As [`crate::Agent::authenticate`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn authenticate(&self) -> Result<OpenSession, Error> {
        self.runtime.block_on(self.agent.authenticate())
    }

    /// As [`crate::Agent::ensure_authenticated`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn ensure_authenticated(&self) -> Result<OpenSession, Error> {
        self.runtime.block_on(self.agent.ensure_authenticated())
    }

    /// As [`crate::Agent::fetch`]; the answer comes as a whole.
    ///
    /// # Errors
    ///
    /// As there, and [`Code::InvalidArgument`] for an answer of more than [`MAX_ANSWER_BYTES`].
    pub fn fetch<B: Into<Body>>(&self, request: Request<B>) -> Result<Response<Bytes>, Error> {
        let options = request.extensions().get::<CallOptions>().cloned().unwrap_or_default();
        self.fetch_with(request, &options)
    }

    /// The same, with options.
    ///
    /// # Errors
    ///
    /// As for [`fetch`](Self::fetch).
    pub fn fetch_with<B: Into<Body>>(
        &self,
        request: Request<B>,
        options: &CallOptions,
    ) -> Result<Response<Bytes>, Error> {
        self.runtime.block_on(async {
            let (parts, body) = self.agent.fetch_with(request, options).await?.into_parts();
            Ok(Response::from_parts(parts, body.collect_up_to(MAX_ANSWER_BYTES).await?))
        })
    }

    /// As [`crate::Agent::sign`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn sign<B>(&self, request: &mut Request<B>) -> Result<(), Error> {
        self.runtime.block_on(self.agent.sign(request))
    }

    /// As [`crate::Agent::dequeue_token`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn dequeue_token(&self, tool: &str) -> Result<Token, Error> {
        self.runtime.block_on(self.agent.dequeue_token(tool))
    }

    /// As [`crate::Agent::request_approval`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn request_approval(&self, request: &ApprovalRequest) -> Result<ApprovalResult, Error> {
        self.runtime.block_on(self.agent.request_approval(request))
    }

    /// As [`crate::Agent::token_status`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn token_status(&self, tool: Option<&str>) -> Result<TokenStatusResult, Error> {
        self.runtime.block_on(self.agent.token_status(tool))
    }

    /// As [`crate::Agent::session_info`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn session_info(&self) -> Result<SessionInfoResult, Error> {
        self.runtime.block_on(self.agent.session_info())
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.agent.fmt(f)
    }
}
