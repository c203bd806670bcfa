//! Operators of other machines: what each request of theirs is called in policies, and its answer; and who is let in.

use obol_authority::directory::Human;
use obol_authority::{LiveLogin, Now, Of, Operator, Refused};
use obol_ipc::as_control::{
    ActivateMode, AsControlProtocol, AsControlReply, AsControlRequest, DenyTarget, DisableScope, EnableScope,
    EndLoginResult, LoginStatus, LoginsResult,
};
use obol_ipc::codec::{Codec, RejectedRequest, Request, RequestId};
use obol_ipc::names::Label;
use obol_ipc::refusal::Refusal;

use super::shown::{ANSWER_BYTES, short, time};
use super::{Control, Outcome, found, refusal};

impl Operator for Control {
    fn operate(&self, request: &[u8], by: &Human, may: &dyn Fn(&str, Of) -> Result<(), Refused>) -> Vec<u8> {
        let (id, outcome) = match Codec::Json.decode_request::<AsControlProtocol>(request) {
            Ok(Request { id, call }) => {
                let allowed = may(verb(&call), of(&call)).map_err(refusal);
                (Some(id), allowed.and_then(|()| self.act(call, by)))
            }
            Err(RejectedRequest { id, refusal }) => (id, Err(refusal)),
        };
        written(id.as_ref(), &outcome)
    }
}

fn written(id: Option<&RequestId>, outcome: &Outcome<AsControlReply>) -> Vec<u8> {
    let too_long = Refusal::reply_too_long();
    let write = |outcome| Codec::Json.encode_response::<AsControlProtocol>(id, outcome);
    let frame = write(outcome.as_ref()).or_else(|_| write(Err(&too_long)));
    // A refusal always fits.
    frame.map_or_else(|_| b"null".to_vec(), |frame| frame.body().to_vec())
}

/// What policies call a request, as `context.verb` of the action `operate`.
fn verb(call: &AsControlRequest) -> &'static str {
    match call {
        AsControlRequest::Registrations(_)
        | AsControlRequest::Registration(_)
        | AsControlRequest::Agents(_)
        | AsControlRequest::Agent(_)
        | AsControlRequest::PolicyVersions(_)
        | AsControlRequest::Status(_)
        | AsControlRequest::Health(_)
        | AsControlRequest::Confirmations(_)
        | AsControlRequest::Servers(_)
        | AsControlRequest::Events(_)
        | AsControlRequest::Approvals(_)
        | AsControlRequest::Approval(_)
        | AsControlRequest::Logins(_) => "console.view",
        AsControlRequest::Approve(_) | AsControlRequest::Deny(_) => "agent.approve",
        AsControlRequest::Disable(params) => match params.scope {
            DisableScope::AgentForGood(_) => "agent.remove",
            DisableScope::Agent(_) | DisableScope::Session(_) | DisableScope::Tool(_) => "agent.disable",
        },
        AsControlRequest::Enable(_) => "agent.enable",
        AsControlRequest::Invite(_) => "agent.invite",
        AsControlRequest::InviteServer(_) => "server.invite",
        AsControlRequest::RemoveCopy(_) => "server.remove",
        AsControlRequest::PolicyPart(_) => "policy.weigh",
        AsControlRequest::Activate(params) => match params.mode {
            ActivateMode::Force => "policy.activate",
            ActivateMode::Observe | ActivateMode::StopObserving => "policy.observe",
            ActivateMode::Weigh => "policy.weigh",
        },
        AsControlRequest::TestEvent(_) => "events.test",
        AsControlRequest::DecideApproval(_) => "call.approve",
        AsControlRequest::EndLogin(_) => "login.end",
    }
}

/// Whose it is what a request is about. What is not of agents that somebody answers for is the service's own: also a registration that
/// is named by no code, since nobody answers for it yet.
fn of(call: &AsControlRequest) -> Of {
    match call {
        AsControlRequest::Registration(_)
        | AsControlRequest::Approve(_)
        | AsControlRequest::Agents(_)
        | AsControlRequest::Agent(_)
        | AsControlRequest::Invite(_)
        | AsControlRequest::Approvals(_)
        | AsControlRequest::Approval(_)
        | AsControlRequest::DecideApproval(_)
        | AsControlRequest::Logins(_)
        | AsControlRequest::EndLogin(_)
        | AsControlRequest::Confirmations(_)
        | AsControlRequest::Health(_) => Of::Agents,
        AsControlRequest::Deny(params) => match params.target {
            DenyTarget::Code(_) => Of::Agents,
            DenyTarget::Registration(_) => Of::Service,
        },
        AsControlRequest::Disable(params) => match params.scope {
            DisableScope::Agent(_) | DisableScope::AgentForGood(_) | DisableScope::Session(_) => Of::Agents,
            DisableScope::Tool(_) => Of::Service,
        },
        AsControlRequest::Enable(params) => match params.scope {
            EnableScope::Agent(_) => Of::Agents,
            EnableScope::Tool(_) => Of::Service,
        },
        AsControlRequest::Registrations(_)
        | AsControlRequest::InviteServer(_)
        | AsControlRequest::PolicyPart(_)
        | AsControlRequest::Activate(_)
        | AsControlRequest::PolicyVersions(_)
        | AsControlRequest::Status(_)
        | AsControlRequest::Servers(_)
        | AsControlRequest::RemoveCopy(_)
        | AsControlRequest::Events(_)
        | AsControlRequest::TestEvent(_) => Of::Service,
    }
}

impl Control {
    pub(super) fn logins(&self, by: &Human, now: Now) -> Outcome<LoginsResult> {
        let logins = found(self.authority.logins(by, now))?;
        let (logins, more) = short(logins.into_iter().map(shown), ANSWER_BYTES);
        Ok(LoginsResult { logins, more })
    }

    pub(super) fn end_login(&self, named: &Label, by: &Human, now: Now) -> Outcome<EndLoginResult> {
        let ended = found(self.authority.end_logins(named.as_str(), by, now))?;
        Ok(EndLoginResult { ended: ended as u64 })
    }
}

fn shown(live: LiveLogin) -> LoginStatus {
    LoginStatus {
        login_id: live.id.to_string(),
        human: live.human.to_string(),
        host: live.said.host,
        user: live.said.user,
        source: live.source,
        since: time(live.since),
        until: time(live.until),
    }
}
