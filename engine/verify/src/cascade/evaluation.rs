//! Step 13: does the scope allow this request, and was it allowed to be issued?
//!
//! The checks stand in the order of the reference implementation, so that a token with several faults is refused for
//! the same one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use obol_token::Scope;
use obol_token::delegation::check_attenuation;
use obol_token::pattern::{parameter_matches, resource_allows};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use crate::cascade::resource_form;
use crate::cascade::template::{Ceiling, Template};
use crate::denial::{Code, Denial, FailedCheck};
use crate::parts::Parts;
use crate::request::{Arguments, Request};
use crate::session::Session;
use crate::session::known_scope::KnownScope;

/// What the checks look at.
pub(crate) struct Subject<'a> {
    pub(crate) parts: &'a Parts,
    pub(crate) session: &'a Session,
    /// When the token was, in Unix seconds.
    pub(crate) issued_at: u64,
    pub(crate) scope: &'a Scope,
    /// The scope, with what is known of it.
    pub(crate) known: &'a KnownScope,
    pub(crate) request: &'a Request<'a>,
    /// The request's arguments, opened where they came sealed.
    pub(crate) arguments: Arguments<'a>,
    /// Whether a number among them was rounded when they were read.
    pub(crate) rounded: bool,
}

pub(crate) fn run(subject: &Subject<'_>) -> Result<(), Denial> {
    check_audience(subject)?;
    check_organisation(subject)?;
    check_tool(subject)?;
    let ceiling = find_ceiling(subject)?;
    check_grants(subject)?;
    check_actions_within(subject, ceiling.as_deref())?;
    check_requested_action(subject)?;
    check_requested_resource(subject)?;
    check_limits_within(subject, ceiling.as_deref())?;
    check_single_use(subject)?;
    check_channel_encryption(subject)?;
    check_arguments(subject)?;
    check_approval(subject)?;
    check_approval_age(subject)?;
    check_intent(subject)?;
    check_delegation_depth(subject)?;
    check_delegation(subject)
}

fn insufficient(detail: impl Into<Cow<'static, str>>) -> Denial {
    Denial::new(Code::InsufficientPrivilege, FailedCheck::TbacScopeEvaluation, detail)
}

fn check_audience(subject: &Subject<'_>) -> Result<(), Denial> {
    if subject.scope.aud == subject.parts.audience.as_str() {
        return Ok(());
    }
    let code = Code::AudMismatch;
    Err(Denial::new(
        code,
        FailedCheck::AudienceValidation,
        "the scope is for another audience than the token",
    ))
}

fn check_organisation(subject: &Subject<'_>) -> Result<(), Denial> {
    if subject.session.org_id_matches(&subject.scope.org_id) {
        return Ok(());
    }
    let code = Code::OrgIdMismatch;
    Err(Denial::new(code, FailedCheck::OrgIdValidation, "the scope is not of its session's organisation"))
}

fn check_tool(subject: &Subject<'_>) -> Result<(), Denial> {
    if subject.scope.tool == subject.request.tool {
        return Ok(());
    }
    Err(insufficient("the token is for another tool"))
}

fn find_ceiling(subject: &Subject<'_>) -> Result<Option<Arc<Ceiling>>, Denial> {
    let scope = subject.scope;
    match subject.parts.templates.template(&scope.agent_instance_id, &scope.tool) {
        Template::Any => Ok(None),
        Template::Granted if subject.session.has_grants() => Ok(None),
        Template::Granted => {
            Err(insufficient("the session says nothing of grants, and there is no policy template for it"))
        }
        Template::Ceiling(ceiling) => Ok(Some(ceiling)),
        Template::None => Err(insufficient("there is no policy template for this agent and tool")),
    }
}

/// Also where a template allows more: a policy that was decided elsewhere is not widened here.
fn check_grants(subject: &Subject<'_>) -> Result<(), Denial> {
    let Some(grants) = subject.session.grants() else { return Ok(()) };
    subject.known.check_granted(grants).map_err(|excess| insufficient(excess.to_string()))
}

fn check_actions_within(subject: &Subject<'_>, ceiling: Option<&Ceiling>) -> Result<(), Denial> {
    match ceiling.and_then(|ceiling| ceiling.excess_action(subject.scope)) {
        None => Ok(()),
        Some(_) => Err(insufficient("policy does not allow an action that the token names")),
    }
}

fn check_requested_action(subject: &Subject<'_>) -> Result<(), Denial> {
    let Some(requested) = subject.request.action else { return Ok(()) };
    if subject.scope.action.iter().any(|granted| granted == requested) {
        return Ok(());
    }
    Err(insufficient("the token does not allow the action"))
}

fn check_requested_resource(subject: &Subject<'_>) -> Result<(), Denial> {
    let Some(requested) = subject.request.resource else { return Ok(()) };
    resource_form::check(requested)
        .map_err(|problem| Denial::malformed_request(format!("the resource {problem}")))?;
    if resource_allows(&subject.scope.resource, requested) {
        return Ok(());
    }
    Err(insufficient("the token does not cover the resource"))
}

fn check_limits_within(subject: &Subject<'_>, ceiling: Option<&Ceiling>) -> Result<(), Denial> {
    match ceiling.and_then(|ceiling| ceiling.excess_field(subject.scope)) {
        None => Ok(()),
        Some(field) => Err(insufficient(format!("the token exceeds its policy template in {field}"))),
    }
}

fn check_single_use(subject: &Subject<'_>) -> Result<(), Denial> {
    let max_calls = subject.scope.constraints.as_ref().and_then(|constraints| constraints.max_calls);
    if max_calls.is_none_or(|calls| calls == 1) {
        return Ok(());
    }
    Err(insufficient("max_calls of a token must be 1"))
}

fn check_channel_encryption(subject: &Subject<'_>) -> Result<(), Denial> {
    let constraints = subject.scope.constraints.as_ref();
    let required = constraints.and_then(|constraints| constraints.require_channel_encryption);
    if required != Some(true) || matches!(subject.arguments, Arguments::Opened(_)) {
        return Ok(());
    }
    let code = Code::ChannelEncryptionRequired;
    Err(Denial::new(code, FailedCheck::ChannelEncryptionMissing, "the request came in the clear"))
}

fn check_arguments(subject: &Subject<'_>) -> Result<(), Denial> {
    let constraints = subject.scope.constraints.as_ref();
    let Some(allowed) = constraints.and_then(|constraints| constraints.allowed_parameters.as_ref()) else {
        return Ok(());
    };
    match subject.arguments {
        Arguments::Plain(arguments) | Arguments::Opened(arguments) => {
            arguments.map_or(Ok(()), |arguments| check_each_argument(allowed, arguments))
        }
        Arguments::Unseen | Arguments::Sealed { .. } => {
            Err(insufficient("the token limits arguments that this server cannot see"))
        }
    }
}

fn check_each_argument(
    allowed: &BTreeMap<String, String>,
    arguments: &Map<String, Value>,
) -> Result<(), Denial> {
    for (name, value) in arguments {
        match (allowed.get(name), value) {
            (Some(pattern), Value::String(text)) => check_argument(pattern, text)?,
            (Some(_), _) => return Err(insufficient("a limited argument is not a string")),
            (None, _) if name.starts_with("x-") => {}
            (None, _) => return Err(insufficient("an argument is not among the allowed ones")),
        }
    }
    Ok(())
}

fn check_argument(pattern: &str, argument: &str) -> Result<(), Denial> {
    if !parameter_matches(pattern.as_bytes(), argument.as_bytes()) {
        return Err(insufficient("an argument does not match its pattern"));
    }
    if !pattern.contains('/') {
        return Ok(());
    }
    // Its pattern takes it for a path, and so will the tool.
    resource_form::check(argument).map_err(|problem| insufficient(format!("an argument {problem}")))
}

fn check_approval(subject: &Subject<'_>) -> Result<(), Denial> {
    // The scope's own rules make sure that a digest is there at trust level 3, and nowhere else.
    let Some(approved) = &subject.scope.approval_digest else { return Ok(()) };
    let matches =
        subject.scope.compute_approval_digest().is_ok_and(|digest| bool::from(digest.ct_eq(approved)));
    if matches {
        return Ok(());
    }
    let code = Code::ApprovalDigestMismatch;
    Err(Denial::new(
        code,
        FailedCheck::CibaDigestValidation,
        "what was approved is not what the token allows",
    ))
}

/// −skew ≤ iat − human_confirmed_at ≤ max_approval_age.
fn check_approval_age(subject: &Subject<'_>) -> Result<(), Denial> {
    let (issued_at, confirmed_at) = (subject.issued_at, subject.scope.human_confirmed_at);
    let limits = subject.parts.limits;
    let fresh = confirmed_at <= issued_at.saturating_add(limits.clock_skew)
        && issued_at.saturating_sub(confirmed_at) <= limits.max_approval_age;
    if subject.scope.trust_level < 3 || fresh {
        return Ok(());
    }
    let code = Code::CibaApprovalExpired;
    Err(Denial::new(code, FailedCheck::CibaValidation, "the approval is too old, or lies in the future"))
}

fn check_intent(subject: &Subject<'_>) -> Result<(), Denial> {
    // The scope's own rules make sure that both are there, or neither.
    let (Some(intent), Some(hash)) = (&subject.scope.user_raw_intent, &subject.scope.intent_hash) else {
        return Ok(());
    };
    if obol_token::text::to_hex(&Sha256::digest(intent)) == *hash {
        return Ok(());
    }
    let code = Code::IntentIntegrityFailed;
    Err(Denial::new(code, FailedCheck::IntentHashCheck, "intent_hash is not the hash of user_raw_intent"))
}

fn check_delegation_depth(subject: &Subject<'_>) -> Result<(), Denial> {
    if subject.scope.delegation_depth <= subject.parts.limits.max_delegation_depth {
        return Ok(());
    }
    Err(insufficient("the token may be delegated further than this server allows"))
}

/// A delegated token counts only after its parent was spent here, and never allows more than it.
fn check_delegation(subject: &Subject<'_>) -> Result<(), Denial> {
    let Some(hash) = &subject.scope.parent_token_hash else { return Ok(()) };
    let parent = subject
        .parts
        .parents
        .find(hash, subject.parts.clock.now())
        .ok_or_else(|| insufficient("the token's parent was not spent here, or too long ago"))?;
    check_attenuation(subject.scope, &parent).map_err(|widening| insufficient(widening.to_string()))
}
