//! Why something was not done, in words that say what to do. The codes are for programs and never change.

use core::fmt;

use serde_json::{Map, Value, json};

/// Why a request of an agent, a resource server or an operator was refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refused {
    /// No agent has this key.
    NotRegistered,
    /// A human has yet to decide.
    PendingApproval,
    /// The approval has ended.
    ApprovalExpired,
    /// The agent may open no session until it is enabled.
    Suspended,
    /// The agent, or the key, has ended for good.
    Revoked,
    /// Policy grants nothing.
    NoGrants,
    /// The suite is too weak for the agent, or a resource server cannot read it.
    SuiteRequired {
        /// The suite to use.
        suite: u8,
        /// The resource servers that ask for it; none where the service does.
        because: Vec<String>,
    },
    /// The clocks differ by so many seconds.
    ClockSkew(u64),
    /// Too many registrations wait.
    TooManyPending,
    /// Policy does not let this human approve such an agent.
    ApprovalDenied,
    /// Whoever knows the human who answers for the agent said that they may not any more.
    OwnerDisabled,
    /// Another agent has this name.
    NameTaken,
    /// The human has approved too many agents within an hour.
    TooManyApprovals,
    /// The invitation is unknown, used up, or over.
    Invitation,
    /// The signed word of somebody else that stands in for a human is not taken.
    Assertion(String),
    /// That word has registered an agent before.
    AssertionUsed,
    /// The join code is unknown, used, or over.
    JoinCode,
    /// No copy of a resource server has this key.
    NotJoined,
    /// There is no registration with this code that waits.
    NoSuchCode,
    /// What was shown is not what the human was told, and may be wrong so many times more.
    WrongCode(u8),
    /// Policy offers the agent no such call with a human's yes.
    NotOffered(String),
    /// Policy does not let this human say yes to this call.
    CallDenied,
    /// The agent has asked for as many as it may within an hour.
    TooManyAsked,
    /// There is no request of this id that waits.
    NoSuchApproval,
    /// The registration is not the one that was shown.
    Changed,
    /// The policy is in force already.
    PolicyInForce,
    /// The policy takes away so many of so many grants, and nobody said that this is meant.
    PolicyTakesTooMuch {
        /// How many go.
        lost: usize,
        /// How many there are.
        held: usize,
    },
    /// No operator of another machine is let in by this key.
    NotLoggedIn,
    /// Nobody operates the service from elsewhere: its settings name no role that may.
    NoRemoteOperators,
    /// This human may not operate the service from elsewhere.
    MayNotLogIn,
    /// A human said no to this login.
    LoginDenied,
    /// Policy does not let this human do that: its verb, and what decided.
    MayNotOperate(String),
    /// There is no such agent, session, tool or resource server.
    Unknown(&'static str),
    /// A part of the request is not as it must be.
    Malformed(String),
    /// The proof for the SEK does not hold, or it is another one than the agent registered.
    SekProof,
    /// The key is in use already.
    KeyInUse,
    /// There are as many as there may be.
    Full(&'static str),
    /// It cannot be decided now.
    Unavailable(String),
}

/// Code and list of codes from one table: what is in one is in the other.
macro_rules! codes {
    ($($refused:pat => $code:literal;)+) => {
        /// Every code; some stand for several reasons.
        pub const CODES: &'static [&'static str] = &[$($code,)+];

        /// The stable code.
        pub fn code(&self) -> &'static str {
            match self { $($refused => $code,)+ }
        }
    };
}

impl Refused {
    codes! {
        Self::NotRegistered => "NOT_REGISTERED";
        Self::PendingApproval => "PENDING_APPROVAL";
        Self::ApprovalExpired => "APPROVAL_EXPIRED";
        Self::Suspended => "SUSPENDED";
        Self::Revoked => "REVOKED";
        Self::NoGrants => "NO_GRANTS";
        Self::SuiteRequired { .. } => "SUITE_REQUIRED";
        Self::ClockSkew(_) => "CLOCK_SKEW";
        Self::TooManyPending => "TOO_MANY_PENDING";
        Self::ApprovalDenied => "APPROVAL_DENIED";
        Self::OwnerDisabled => "OWNER_DISABLED";
        Self::NameTaken => "NAME_TAKEN";
        Self::TooManyApprovals => "TOO_MANY_APPROVALS";
        Self::Invitation => "INVITATION";
        Self::Assertion(_) => "ASSERTION";
        Self::AssertionUsed => "ASSERTION_USED";
        Self::JoinCode => "JOIN_CODE";
        Self::NotJoined => "NOT_JOINED";
        Self::WrongCode(_) => "WRONG_CODE";
        Self::NoSuchCode => "NO_SUCH_CODE";
        Self::NotOffered(_) => "NOT_OFFERED";
        Self::CallDenied => "APPROVAL_DENIED";
        Self::TooManyAsked => "TOO_MANY";
        Self::NoSuchApproval => "NO_SUCH_APPROVAL";
        Self::Changed => "CHANGED";
        Self::PolicyInForce => "POLICY_IN_FORCE";
        Self::PolicyTakesTooMuch { .. } => "POLICY_TAKES_TOO_MUCH";
        Self::NotLoggedIn => "NOT_LOGGED_IN";
        Self::NoRemoteOperators => "NO_REMOTE_OPERATORS";
        Self::MayNotLogIn => "MAY_NOT_LOG_IN";
        Self::LoginDenied => "LOGIN_DENIED";
        Self::MayNotOperate(_) => "MAY_NOT_OPERATE";
        Self::Unknown(_) => "UNKNOWN";
        Self::Malformed(_) => "MALFORMED";
        Self::SekProof => "SEK_PROOF";
        Self::KeyInUse => "KEY_IN_USE";
        Self::Full(_) => "FULL";
        Self::Unavailable(_) => "UNAVAILABLE";
    }

    /// The refusal as it goes to whoever asked.
    pub fn to_json(&self) -> Value {
        let mut error = Map::new();
        error.insert("code".to_owned(), json!(self.code()));
        error.insert("detail".to_owned(), json!(self.to_string()));
        match self {
            Self::SuiteRequired { suite, because } => {
                error.insert("suite".to_owned(), json!(suite));
                error.insert("because".to_owned(), json!(because));
            }
            Self::ClockSkew(secs) => drop(error.insert("skew_secs".to_owned(), json!(secs))),
            _ => {}
        }
        json!({ "error": error })
    }
}

impl Refused {
    /// What is said about a human's yes to calls.
    fn of_calls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered(what) => write!(
                f,
                "policy does not offer this agent such a call, even with a human's approval: {what}; see `obol policy explain`"
            ),
            Self::CallDenied => f.write_str("policy does not let you approve this agent's call"),
            Self::TooManyAsked => {
                f.write_str("this agent has asked for approvals as often as it may within an hour; wait")
            }
            Self::NoSuchApproval => f.write_str(
                "no request with this ID is waiting: it was decided, or its five minutes are over; the agent can ask again",
            ),
            _ => Ok(()),
        }
    }
}

impl Refused {
    /// What is said about leave that somebody was given before.
    fn of_leave(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invitation => {
                f.write_str(
                    "the invitation is unknown, used up or expired, or its author may not decide about this agent; ask for a new one",
                )
            }
            Self::Assertion(why) => write!(f, "the assertion is refused: {why}"),
            Self::AssertionUsed => f.write_str(
                "this assertion has already registered an agent, and it is good for only one; get a fresh one. If it was not you, somebody else has it",
            ),
            Self::JoinCode => {
                f.write_str("the join code is unknown, used or expired; make a new one with `obol rs invite`")
            }
            _ => Ok(()),
        }
    }
}

impl Refused {
    /// What is said to operators of other machines.
    fn of_logins(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoggedIn => f.write_str("you are not logged in here, or your login has ended; run `obol login`"),
            Self::NoRemoteOperators => f.write_str(
                "this service does not admit operators from other machines; name the roles that may in as.operator_roles, and set up an identity provider",
            ),
            Self::MayNotLogIn => f.write_str(
                "you may not operate this service from another machine: you have none of the roles that as.operator_roles names",
            ),
            Self::LoginDenied => f.write_str("a human denied this login"),
            Self::MayNotOperate(verb) => write!(f, "policy does not let you do this (operate, {verb})"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered => f.write_str("no agent is registered with this key; register first"),
            Self::PendingApproval => f.write_str("a human has not yet approved this agent"),
            Self::ApprovalExpired => {
                f.write_str("this agent's approval has expired; register again so that a human can renew it")
            }
            Self::Suspended => f.write_str("this agent is suspended; `obol agent enable` lets it in again"),
            Self::Revoked => {
                f.write_str("this key has ended for good; make a new key and register the agent again")
            }
            Self::NoGrants => f.write_str("policy grants this agent nothing; see `obol policy explain`"),
            Self::SuiteRequired { suite, because } if because.is_empty() => {
                write!(f, "a stronger suite is required; use suite {suite}")
            }
            Self::SuiteRequired { suite, because } => {
                write!(f, "use suite {suite}: {} can read no other", because.join(", "))
            }
            Self::ClockSkew(secs) => {
                write!(f, "the clocks of agent and service differ by {secs} s; set the wrong one")
            }
            Self::TooManyPending => {
                f.write_str("too many registrations from this address wait for a human; decide those first, or wait ten minutes")
            }
            Self::ApprovalDenied => {
                f.write_str("policy does not let you approve an agent of this class with these roles for so long")
            }
            Self::OwnerDisabled => f.write_str(
                "your account may no longer answer for agents; once that is settled, log in again",
            ),
            Self::NameTaken => f.write_str("another agent has this name; choose another"),
            Self::TooManyApprovals => f.write_str("too many agents were approved within an hour; wait"),
            Self::Invitation | Self::Assertion(_) | Self::AssertionUsed | Self::JoinCode => self.of_leave(f),
            Self::NotJoined => f.write_str(
                "no resource server has joined with this key, or it was removed; `obol rs invite` makes a code to join with",
            ),
            Self::NoSuchCode => f.write_str(
                "no registration with this code is waiting; codes are valid for ten minutes, so register again to get a new one",
            ),
            Self::WrongCode(0) => f.write_str(
                "this is not the return code, and it was the last try; the registration has ended, so register again",
            ),
            Self::WrongCode(left) => {
                write!(f, "this is not the return code that the page showed; {left} more tries are left")
            }
            Self::NotOffered(_) | Self::CallDenied | Self::TooManyAsked | Self::NoSuchApproval => self.of_calls(f),
            Self::NotLoggedIn
            | Self::NoRemoteOperators
            | Self::MayNotLogIn
            | Self::LoginDenied
            | Self::MayNotOperate(_) => self.of_logins(f),
            Self::Changed => f.write_str("the registration changed after it was shown; look at it again"),
            Self::PolicyInForce => f.write_str("this version of the policy is already in force"),
            Self::PolicyTakesTooMuch { lost, held } => write!(
                f,
                "this version takes away {lost} of the {held} grants that agents would get now; look at it with `obol policy \
                 activate --dry-run`, and add --yes if it is intended"
            ),
            Self::Unknown(what) => write!(f, "there is no such {what}"),
            Self::Malformed(what) => write!(f, "{what}"),
            Self::SekProof => f.write_str(
                "the proof for the SEK is not valid, or the SEK is not the registered one; register again",
            ),
            Self::KeyInUse => f.write_str("this key is already in use; make a new one"),
            Self::Full(what) => write!(f, "there is no room for another {what}"),
            Self::Unavailable(why) => write!(f, "the service cannot decide now: {why}; ask again"),
        }
    }
}

impl core::error::Error for Refused {}
