//! One yes for several calls: what is asked for, and what is said with it.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use obol_ipc::approvals::{ApprovalResult, RequestApprovalParams, WantedCall};
use obol_ipc::names::{Audience, ToolName};

use crate::approval::{OnPrompt, WAIT};
use crate::error::{Code, Error};

/// A call that a human is asked about; what is not said is as the grant has it.
///
/// ```
/// # use obol_agent::{ApprovalRequest, ApprovedCall};
/// let pay = ApprovedCall::new("pay").resource("accounts/7").arguments(r#"{"cents": 1200}"#).count(2);
/// let request = ApprovalRequest::new([pay]).purpose("invoices 7 and 8");
/// ```
#[derive(Clone, Debug)]
pub struct ApprovedCall {
    tool: String,
    audience: Option<String>,
    actions: Vec<String>,
    resource: Option<String>,
    constraints: Option<String>,
    arguments: Option<String>,
    count: Option<u64>,
}

impl ApprovedCall {
    /// A call of this tool, once.
    pub fn new(tool: impl Into<String>) -> Self {
        Self {
            tool: tool.into(),
            audience: None,
            actions: Vec::new(),
            resource: None,
            constraints: None,
            arguments: None,
            count: None,
        }
    }

    /// The resource server, if the tool is granted for several.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// What the call does, if less than the grant allows. May be said several times.
    #[must_use]
    pub fn action(mut self, action: impl Into<String>) -> Self {
        self.actions.push(action.into());
        self
    }

    /// With what, if less than the grant allows.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Limits beyond those of the grant, as a JSON object.
    #[must_use]
    pub fn constraints(mut self, constraints: impl Into<String>) -> Self {
        self.constraints = Some(constraints.into());
        self
    }

    /// The arguments, as a JSON object: the human sees them, and a call with others is refused.
    #[must_use]
    pub fn arguments(mut self, arguments: impl Into<String>) -> Self {
        self.arguments = Some(arguments.into());
        self
    }

    /// How often it may be made.
    #[must_use]
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    fn wanted(&self) -> Result<WantedCall, Error> {
        let wrong = |error: &dyn fmt::Display| Error::new(Code::InvalidArgument, error.to_string());
        let audience = self.audience.as_deref().map(Audience::new).transpose();
        Ok(WantedCall {
            tool: ToolName::new(self.tool.as_str()).map_err(|error| wrong(&error))?,
            audience: audience.map_err(|error| wrong(&error))?,
            actions: self.actions.clone(),
            resource: self.resource.clone(),
            constraints: self.constraints.clone(),
            arguments: self.arguments.clone(),
            count: self.count,
        })
    }
}

/// A request for one yes to several calls.
#[derive(Clone)]
pub struct ApprovalRequest {
    calls: Vec<ApprovedCall>,
    purpose: Option<String>,
    lifetime: Option<Duration>,
    count: Option<u64>,
    timeout: Duration,
    on_prompt: Option<OnPrompt>,
}

impl ApprovalRequest {
    /// For these calls: 16 at most, 32 with each as often as it says.
    pub fn new(calls: impl IntoIterator<Item = ApprovedCall>) -> Self {
        let calls = calls.into_iter().collect();
        Self { calls, purpose: None, lifetime: None, count: None, timeout: WAIT, on_prompt: None }
    }

    /// Why the calls are made: the human reads it, as the agent's word.
    #[must_use]
    pub fn purpose(mut self, purpose: impl Into<String>) -> Self {
        self.purpose = Some(purpose.into());
        self
    }

    /// For how long after the yes the calls may be made; five minutes if not said, which is the longest.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// How often each call may be made that does not say so itself; once if not said.
    #[must_use]
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// How long to wait for the human; six minutes if not said.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Shows a human what waits for them, once. Otherwise it is written to standard error.
    #[must_use]
    pub fn on_prompt(mut self, show: impl Fn(&ApprovalResult) + Send + Sync + 'static) -> Self {
        self.on_prompt = Some(Arc::new(show));
        self
    }

    /// How long to wait, and who shows what waits.
    pub(crate) fn said(&self) -> (Duration, Option<&OnPrompt>) {
        (self.timeout, self.on_prompt.as_ref())
    }

    /// As the authenticator is asked.
    pub(crate) fn params(&self) -> Result<RequestApprovalParams, Error> {
        let mut calls = self.calls.iter().map(ApprovedCall::wanted).collect::<Result<Vec<_>, _>>()?;
        calls.iter_mut().for_each(|call| call.count = call.count.or(self.count));
        let lifetime_seconds = self.lifetime.map(|lifetime| lifetime.as_secs());
        Ok(RequestApprovalParams { calls, purpose: self.purpose.clone(), lifetime_seconds })
    }
}

impl fmt::Debug for ApprovalRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApprovalRequest")
            .field("calls", &self.calls)
            .field("purpose", &self.purpose)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}
