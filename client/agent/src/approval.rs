//! What may be said of a human's yes to a call: what for, how long to wait, and who is shown what waits.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use obol_ipc::approvals::{ApprovalResult, RequestApprovalParams, WantedCall};

/// How long to wait for a human, unless told otherwise: longer than somebody may decide.
pub(crate) const WAIT: Duration = Duration::from_secs(6 * 60);
/// Shows a human what waits for them.
pub(crate) type OnPrompt = Arc<dyn Fn(&ApprovalResult) + Send + Sync>;

/// How a human is asked for a yes, where a call takes one: what for, and for how long.
///
/// ```
/// # use obol_agent::{Approval, CallOptions};
/// let options = CallOptions::new().approval(Approval::wait().purpose("invoice 7").resource("accounts/7"));
/// ```
#[derive(Clone)]
pub struct Approval {
    call: Narrowed,
    purpose: Option<String>,
    pub(crate) shows_arguments: bool,
    pub(crate) always: bool,
    timeout: Duration,
    on_prompt: Option<OnPrompt>,
}

/// What a call takes of its grant; what is not said is as the grant has it.
#[derive(Clone, Default, Debug)]
struct Narrowed {
    actions: Vec<String>,
    resource: Option<String>,
    constraints: Option<String>,
}

impl Approval {
    /// Asks where no token is to be had without, and waits six minutes at most.
    pub fn wait() -> Self {
        Self {
            call: Narrowed::default(),
            purpose: None,
            shows_arguments: true,
            always: false,
            timeout: WAIT,
            on_prompt: None,
        }
    }

    /// Why the call is made: the human reads it, as the agent's word.
    #[must_use]
    pub fn purpose(mut self, purpose: impl Into<String>) -> Self {
        self.purpose = Some(purpose.into());
        self
    }

    /// What the call does, if less than the grant allows. May be said several times.
    #[must_use]
    pub fn action(mut self, action: impl Into<String>) -> Self {
        self.call.actions.push(action.into());
        self
    }

    /// With what, if less than the grant allows.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.call.resource = Some(resource.into());
        self
    }

    /// Limits beyond those of the grant, as a JSON object.
    #[must_use]
    pub fn constraints(mut self, constraints: impl Into<String>) -> Self {
        self.call.constraints = Some(constraints.into());
        self
    }

    /// Whether the human sees the call's arguments, where its body is a JSON object; yes, if not said. A call with others is then
    /// refused, and so is every one at a server that does not see bodies.
    #[must_use]
    pub fn show_arguments(mut self, shows: bool) -> Self {
        self.shows_arguments = shows;
        self
    }

    /// Asks also where a token is to be had without: for what such tokens do not allow.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.always = true;
        self
    }

    /// How long to wait for the human. The call's own time begins after it.
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

    /// The request for one call.
    pub(crate) fn request(&self, call: WantedCall) -> RequestApprovalParams {
        let Narrowed { actions, resource, constraints } = self.call.clone();
        let call = WantedCall { actions, resource, constraints, ..call };
        RequestApprovalParams { calls: vec![call], purpose: self.purpose.clone(), lifetime_seconds: None }
    }
}

/// Shows what waits.
pub(crate) fn show(on_prompt: Option<&OnPrompt>, asked: &ApprovalResult, what: &str) {
    match on_prompt {
        Some(show) => show(asked),
        None => prompt_on_stderr(asked, what),
    }
}

impl fmt::Debug for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approval")
            .field("call", &self.call)
            .field("purpose", &self.purpose)
            .field("always", &self.always)
            .finish_non_exhaustive()
    }
}

fn prompt_on_stderr(asked: &ApprovalResult, what: &str) {
    use std::io::Write as _;
    let text = format!(
        "A human must approve {what} before {}. Where the service runs:\n\n  obol approve {}\n\n",
        asked.expires_at, asked.approval_id
    );
    // Nobody may be there to read it.
    let _unseen = std::io::stderr().write_all(text.as_bytes());
}
