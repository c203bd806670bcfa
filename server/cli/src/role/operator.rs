//! The operator of an Authentication Service on this machine, as the demo and `obol dev` play it.

use obol_client::AsControlClient;
use obol_ipc::Endpoint;
use obol_ipc::approvals::DecideApprovalParams;
use obol_ipc::as_control::{
    ApproveParams, AsStatusResult, DisableParams, DisableResult, DisableScope, InviteServerParams,
    RegistrationParams, RegistrationResult,
};
use obol_ipc::names::{Audience, Label, Reason};

use crate::exit::{Failure, Outcome};
use crate::peer::options;

/// Who speaks on the service's control socket.
#[derive(Debug)]
pub(crate) struct Operator(Endpoint);

impl Operator {
    pub(crate) fn at(control: Endpoint) -> Self {
        Self(control)
    }

    /// Whether somebody answers there.
    pub(crate) fn is_heard(&self) -> bool {
        self.connect().is_ok()
    }

    fn connect(&self) -> Outcome<AsControlClient> {
        Ok(AsControlClient::connect(self.0.clone(), options()?)?)
    }

    pub(crate) fn status(&self) -> Outcome<AsStatusResult> {
        Ok(self.connect()?.status()?)
    }

    /// Whether a copy of this resource server has joined.
    pub(crate) fn has_copy(&self, audience: &str) -> Outcome<bool> {
        let servers = self.connect()?.servers()?;
        Ok(servers.copies.iter().any(|copy| copy.audience == audience))
    }

    /// A code with which one copy of a resource server joins.
    pub(crate) fn invite_server(&self, audience: &str) -> Outcome<String> {
        let audience = Audience::new(audience).map_err(Failure::other)?;
        let made =
            self.connect()?.invite_server(InviteServerParams { audience, suites: (1..=4).collect() })?;
        Ok(made.ticket.expose().to_owned())
    }

    /// What a human sees who types a code.
    pub(crate) fn review(&self, code: &str) -> Outcome<RegistrationResult> {
        let params = RegistrationParams { code: label(code)?, roles: None, lifetime_seconds: None };
        Ok(self.connect()?.registration(params)?)
    }

    /// The human's yes to what was seen.
    pub(crate) fn approve(&self, code: &str, seen: &RegistrationResult) -> Outcome {
        let roles = seen.roles.iter().map(|role| label(role)).collect::<Outcome<_>>()?;
        let registration_id = label(&seen.registration.registration_id)?;
        let params = ApproveParams { code: label(code)?, registration_id, roles, lifetime_seconds: None };
        self.connect()?.approve(params)?;
        Ok(())
    }

    /// The human's yes to calls that an agent asks for.
    pub(crate) fn approve_call(&self, approval_id: &str) -> Outcome {
        let decision = DecideApprovalParams { approval_id: label(approval_id)?, approve: true };
        self.connect()?.decide_approval(decision)?;
        Ok(())
    }

    /// Ends an agent: nothing is granted any more, its sessions end, and whoever follows hears of it.
    pub(crate) fn disable(&self, agent: &str) -> Outcome<DisableResult> {
        let scope = DisableScope::Agent(label(agent)?);
        let reason = Reason::new("demo: the agent was hijacked").map_err(Failure::other)?;
        Ok(self.connect()?.disable(DisableParams { scope, reason })?)
    }
}

fn label(text: &str) -> Outcome<Label> {
    Label::new(text).map_err(Failure::other)
}
