//! A human is asked for a yes at the authenticator, once, and waited for.

use core::time::Duration;

use obol_client::{AuthClient, CallError, Lost};
use obol_ipc::approvals::{ApprovalResult, ApprovalState, RequestApprovalParams};
use obol_ipc::names::Label;
use tokio::time::{Instant, sleep};

use crate::agent::{Agent, Inner, may_pass};
use crate::approval::{OnPrompt, show};
use crate::approval_request::ApprovalRequest;
use crate::authenticator::Pause;
use crate::error::{Code, Error};

/// How long the authenticator is to wait for news, each time it is asked.
const POLL: Duration = Duration::from_secs(5);
/// The pause before it is asked again.
const POLL_PAUSE: Duration = Duration::from_millis(100);

impl Agent {
    /// Asks a human for one yes to several calls, once, and waits. Each call is then drawn, as often as it says, by its entry in
    /// `calls` of the result: [`CallOptions::approval_id`](crate::CallOptions::approval_id).
    ///
    /// # Errors
    ///
    /// [`Code::ApprovalDenied`] is a no; [`Code::Expired`] nobody's word in the time that there was; [`Code::ApprovalPending`] nobody's
    /// word while this waited; [`Code::AuthorityUnreachable`] a service that does not answer; [`Code::PolicyDeny`] where policy does not
    /// offer one of them; [`Code::InvalidArgument`]; and those of the socket.
    pub async fn request_approval(&self, request: &ApprovalRequest) -> Result<ApprovalResult, Error> {
        let params = request.params()?;
        let calls = params.calls.len();
        let approved = self.0.asked(params, request.said(), self.0.deadline(None)).await?;
        if approved.calls.len() == calls { Ok(approved) } else { Err(nonsense()) }
    }
}

impl Inner {
    /// Asks a human for a yes, once, and waits; gives what it came to. `deadline` is for the asking alone.
    pub(crate) async fn asked(
        &self,
        wanted: RequestApprovalParams,
        (patience, on_prompt): (Duration, Option<&OnPrompt>),
        deadline: Instant,
    ) -> Result<ApprovalResult, Error> {
        let what = wanted.calls.iter().map(|call| call.tool.as_str()).collect::<Vec<_>>().join(", ");
        let asked = self.request_approval(wanted, deadline).await?;
        if asked.state == ApprovalState::Waiting {
            show(on_prompt, &asked, &what);
        }
        self.decided(asked, patience).await
    }

    /// Asks again only where nobody can have heard of it.
    async fn request_approval(
        &self,
        wanted: RequestApprovalParams,
        deadline: Instant,
    ) -> Result<ApprovalResult, Error> {
        let authenticator = self.authenticator()?;
        let mut pause = Pause::new();
        loop {
            let wanted = wanted.clone();
            let asking = move |client: &mut AuthClient| match client.request_approval(wanted) {
                Err(CallError::Unanswered(lost)) => Ok(Err(unanswered(&lost))),
                asked => asked.map(Ok),
            };
            let error = match authenticator.ask(deadline, asking).await {
                Ok(asked) => return asked,
                Err(error) => error,
            };
            let unheard = matches!(error.code(), Code::DaemonUnreachable | Code::Overloaded);
            if !unheard {
                return Err(error);
            }
            pause.after(error, deadline).await?;
        }
    }

    /// Waits for what becomes of it, at most so long.
    async fn decided(&self, mut asked: ApprovalResult, patience: Duration) -> Result<ApprovalResult, Error> {
        let until = self.deadline(Some(patience));
        let mut away = None;
        while asked.state == ApprovalState::Waiting {
            let left = until.saturating_duration_since(Instant::now());
            if left <= POLL_PAUSE {
                return Err(away.unwrap_or_else(|| undecided(&asked)));
            }
            sleep(POLL_PAUSE).await;
            match self.approval_status(&asked.approval_id, POLL.min(left), until).await {
                Ok(seen) => (asked, away) = (seen, None),
                Err(error) if may_pass(error.code()) => away = Some(error),
                // The time is over while it was being asked.
                Err(error) if error.code() == Code::Timeout => {}
                Err(error) if error.code() == Code::InvalidArgument => return Err(forgotten()),
                Err(error) => return Err(error),
            }
        }
        approved(asked)
    }

    async fn approval_status(
        &self,
        id: &str,
        wait: Duration,
        until: Instant,
    ) -> Result<ApprovalResult, Error> {
        let id = Label::new(id).map_err(|_| nonsense())?;
        let wait = wait.saturating_sub(POLL_PAUSE);
        self.authenticator()?.ask(until, move |client| client.approval_status(id, wait)).await
    }
}

/// What a yes is drawn by, of a request for one call.
pub(crate) fn only_call(approved: &ApprovalResult) -> Result<Label, Error> {
    match approved.calls.as_slice() {
        [call] => Label::new(call.as_str()).map_err(|_| nonsense()),
        _ => Err(nonsense()),
    }
}

fn approved(asked: ApprovalResult) -> Result<ApprovalResult, Error> {
    match asked.state {
        ApprovalState::Approved => Ok(asked),
        ApprovalState::Denied => Err(Error::new(
            Code::ApprovalDenied,
            "a human denied the call; nothing was sent. Ask them why before you ask again",
        )),
        ApprovalState::Expired => Err(Error::new(
            Code::Expired,
            "nobody approved the call in time, or the approval has expired; nothing was sent. Ask again",
        )),
        _ => Err(nonsense()),
    }
}

fn undecided(asked: &ApprovalResult) -> Error {
    let message = format!(
        "a human has not yet approved the call: obol approve {} where the service runs; nothing was sent. Wait longer, or ask again later",
        asked.approval_id
    );
    Error::new(Code::ApprovalPending, message)
}

fn forgotten() -> Error {
    let message = "the authenticator no longer knows the request: it was restarted, or the time is over; nothing was sent. Ask again";
    Error::new(Code::Expired, message)
}

fn unanswered(lost: &Lost) -> Error {
    if matches!(lost, Lost::Frame(_) | Lost::Answer(_)) {
        return nonsense();
    }
    let message = "the authenticator went away while it was asking a human; nothing was sent, and the request may still wait for them. Ask again";
    Error::new(Code::DaemonUnreachable, message)
}

fn nonsense() -> Error {
    Error::new(Code::ProtocolError, "the authenticator's answer cannot be understood; check its version")
}
