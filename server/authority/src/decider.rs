//! Who decides what a session grants. The service asks; it does not know how it is decided.

use core::fmt;

use obol_session::Grant;
use serde::Serialize;

use crate::directory::{Agent, Person};

/// When, and how strongly protected, a session would be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Unix seconds.
    pub now: u64,
    /// The suite's number.
    pub suite: u8,
}

/// What is granted.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Decided {
    /// The grants, minted ahead; none where nothing is granted.
    pub grants: Vec<Grant>,
    /// What takes a human's yes to each call, strongest first for each tool.
    pub per_call: Vec<PerCall>,
    /// The requests that are calls of the tools granted, where that is known.
    pub routes: Vec<Route>,
    /// What whoever runs the service should look at: rules that could not be evaluated, and so denied.
    pub alerts: Vec<String>,
    /// What would be otherwise if what is only looked at decided.
    pub otherwise: Vec<String>,
}

/// A way of using a tool that takes a human's yes to each call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PerCall {
    /// What policy knows it by.
    pub offer: String,
    /// What it grants, marked as what it is.
    pub grant: Grant,
}

/// Requests that are calls of a tool, as agents are told it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Route {
    /// The tool.
    pub tool: String,
    /// The resource server.
    pub aud: String,
    /// What they lie under; absent: the resource server's own URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The method; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path, as a pattern.
    pub path: String,
    /// The gateway that they are sent to instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
}

/// It could not be decided, so nothing is granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undecided(pub String);

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Undecided {}

/// Decides what an agent is granted.
pub trait Decider: Send + Sync + fmt::Debug {
    /// The grants of a session that this agent would open now, for which `owner` answers.
    ///
    /// # Errors
    ///
    /// [`Undecided`]; nothing is granted then.
    fn decide(&self, agent: &Agent, owner: &Person, moment: Moment) -> Result<Decided, Undecided>;

    /// Whether this human may approve an agent of this class, with these roles, by this flow, for so many days.
    ///
    /// # Errors
    ///
    /// [`Undecided`]; nothing is approved then.
    fn may_register(
        &self,
        human: &Person,
        class: &str,
        roles: &[String],
        flow: &str,
        days: u64,
    ) -> Result<bool, Undecided>;

    /// Whether this human may do this to the organisation, in the console: the verb of an operator. Nobody may, unless it is
    /// decided otherwise.
    ///
    /// # Errors
    ///
    /// [`Undecided`]; nothing is done then.
    fn may_operate(&self, _human: &Person, _verb: &str) -> Result<Verdict, Undecided> {
        Ok(Verdict { allowed: false, decided_by: Vec::new() })
    }

    /// Whether this human may see, and decide on, what belongs to this other organisation. Nobody may, unless it is decided
    /// otherwise.
    ///
    /// # Errors
    ///
    /// [`Undecided`]; nothing is shown or done then.
    fn may_reach(&self, _human: &Person, _organisation: &str) -> Result<bool, Undecided> {
        Ok(false)
    }

    /// Whether this human may say yes to one call that the agent makes under an offer. Nobody may, unless it is decided
    /// otherwise.
    ///
    /// # Errors
    ///
    /// [`Undecided`]; nothing is approved then.
    fn may_approve_call(
        &self,
        _human: &Person,
        _agent: &Agent,
        _owner: &Person,
        _offer: &PerCall,
        _now: u64,
    ) -> Result<bool, Undecided> {
        Ok(false)
    }
}

/// What policy says to somebody who asks to do something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Whether they may.
    pub allowed: bool,
    /// The policies that decided it.
    pub decided_by: Vec<String>,
}

/// Decides where no policy can: nothing is granted, and nobody approves anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NoPolicy(
    /// Why not, and what to do.
    pub String,
);

impl Decider for NoPolicy {
    fn decide(&self, _agent: &Agent, _owner: &Person, _moment: Moment) -> Result<Decided, Undecided> {
        Err(Undecided(self.0.clone()))
    }

    fn may_register(
        &self,
        _human: &Person,
        _class: &str,
        _roles: &[String],
        _flow: &str,
        _days: u64,
    ) -> Result<bool, Undecided> {
        Err(Undecided(self.0.clone()))
    }

    fn may_operate(&self, _human: &Person, _verb: &str) -> Result<Verdict, Undecided> {
        Err(Undecided(self.0.clone()))
    }

    fn may_approve_call(
        &self,
        _human: &Person,
        _agent: &Agent,
        _owner: &Person,
        _offer: &PerCall,
        _now: u64,
    ) -> Result<bool, Undecided> {
        Err(Undecided(self.0.clone()))
    }
}
