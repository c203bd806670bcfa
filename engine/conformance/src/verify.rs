//! `{"op":"verify"}`

use std::sync::Arc;

use obol_secret::json::ReadArguments;
use obol_token::text::{bytes_from_hex, from_base64url};
use obol_token::{Audience, Scope};
use obol_verify::{
    Arguments, CascadeLimits, Ceiling, Clock, Denial, MemorySessionTable, Request, Session, SystemClock,
    Template, Unverified, Verifier, Window,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::{Answer, Invalid, PopKey, SessionFields, Stores, TimeOfLine, WindowFields};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifyLine {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    /// Whether this line has stores of its own.
    #[serde(default)]
    fresh: bool,
    #[serde(default)]
    token_b64url: Option<String>,
    #[serde(default)]
    token_hex: Option<String>,
    /// `null` or absent: the resource server has no session.
    #[serde(default)]
    session: Option<SessionFields>,
    rs: Server,
    /// Scopes that were spent here before.
    #[serde(default)]
    parents: Vec<Scope>,
}

/// The resource server as a line describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    aud: String,
    #[serde(default)]
    now: Option<u64>,
    #[serde(default)]
    policy_epoch: u64,
    #[serde(default)]
    max_ttl: Option<u64>,
    #[serde(default)]
    clock_skew: Option<u64>,
    request: RequestFields,
    /// Absent: any. `null`: none.
    #[serde(default, deserialize_with = "present")]
    template: Option<Option<Ceiling>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestFields {
    tool: String,
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    resource: Option<String>,
    #[serde(default)]
    arguments: Option<ReadArguments>,
    #[serde(default)]
    encrypted: bool,
    /// A proof of possession, in the form it has in MCP.
    #[serde(default)]
    pop: Option<Proof>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    alg: String,
    sig: String,
}

/// Tells a field that is `null` from one that is absent.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

pub(super) fn answer(line: VerifyLine, stores: &Stores) -> Result<Answer, Invalid> {
    let own;
    let stores = if line.fresh {
        own = Stores::new();
        &own
    } else {
        stores
    };
    for parent in &line.parents {
        let scope_tlv = parent.to_tlv().map_err(|error| format!("parents: {error}"))?;
        stores.parents.remember(parent, &scope_tlv, 0);
    }
    let token = token(line.token_b64url, line.token_hex)?;
    let proof = line.rs.request.pop.as_ref().map(proof).transpose()?;
    let verifier = verifier(&line.rs, line.session, stores)?;
    let outcome = token.and_then(|token| {
        token.verify(&verifier, &request(&line.rs.request, proof.as_deref()))?.spend().wait()
    });
    Ok(match outcome {
        Ok(spent) => Answer::Verified {
            ok: true,
            jti: spent.jti().to_string(),
            session_id: spent.session_id().as_u64().to_string(),
            scope: Box::new(spent.into_scope()),
        },
        Err(denial) => Answer::refused(&denial),
    })
}

/// The outer error is about the line, the inner one about the token.
fn token(text: Option<String>, hex: Option<String>) -> Result<Result<Unverified, Denial>, Invalid> {
    Ok(match (text, hex) {
        (Some(_), Some(_)) => return Err("token_b64url and token_hex exclude each other".to_owned()),
        (Some(text), None) => Unverified::from_text(text.as_bytes()),
        (None, Some(hex)) => match bytes_from_hex(&hex) {
            Some(bytes) => Unverified::from_bytes(bytes),
            None => return Err("token_hex: expected lower-case hex digits".to_owned()),
        },
        (None, None) => Err(Denial::token_absent()),
    })
}

fn proof(proof: &Proof) -> Result<Vec<u8>, Invalid> {
    if proof.alg != "Ed25519" {
        return Err("rs.request.pop.alg: expected `Ed25519`".to_owned());
    }
    from_base64url(proof.sig.as_bytes())
        .map_err(|_| "rs.request.pop.sig: expected base64url without padding".to_owned())
}

fn verifier(server: &Server, session: Option<SessionFields>, stores: &Stores) -> Result<Verifier, Invalid> {
    let audience = Audience::new(server.aud.as_str()).map_err(|error| format!("rs.aud: {error}"))?;
    let sessions = MemorySessionTable::with_max_sessions(1);
    if let Some(fields) = session {
        sessions.add(into_session(fields, audience.clone())?).map_err(|error| error.to_string())?;
    }
    let defaults = CascadeLimits::default();
    let limits = CascadeLimits {
        clock_skew: server.clock_skew.unwrap_or(defaults.clock_skew),
        max_ttl: server.max_ttl.unwrap_or(defaults.max_ttl),
        // The reference knows no limit but those of the scopes.
        max_delegation_depth: u64::MAX,
        ..defaults
    };
    let now = server.now.unwrap_or_else(|| SystemClock::new().now());
    let template = match &server.template {
        None => Template::Any,
        Some(None) => Template::None,
        Some(Some(ceiling)) => Template::Ceiling(Arc::new(ceiling.clone())),
    };
    Verifier::builder(audience, Arc::new(sessions), Arc::clone(&stores.spent))
        .parents(Arc::clone(&stores.parents))
        .templates(Arc::new(template))
        .clock(Arc::new(TimeOfLine(now)))
        .limits(limits)
        .policy_epoch(server.policy_epoch)
        .build()
        .map_err(|error| error.to_string())
}

fn into_session(fields: SessionFields, audience: Audience) -> Result<Session, Invalid> {
    let (material, fields) = fields.split()?;
    let mut session = Session::new(material, audience, fields.org_id);
    if let Some(window) = fields.window {
        session = session.with_window(window_of(&window)?);
    }
    if let Some(PopKey(public)) = fields.pop_pub {
        session = session.with_pop_key(&public).map_err(|error| format!("session.pop_pub: {error}"))?;
    }
    if fields.status.is_some_and(|status| status != "active") {
        session.revoke();
    }
    Ok(session)
}

fn window_of(window: &WindowFields) -> Result<Window, Invalid> {
    let end = match (window.duration, window.end) {
        (Some(duration), None) => window.start.saturating_add(duration),
        (None, Some(end)) => end,
        _ => return Err("session.window: expected either `duration` or `end`".to_owned()),
    };
    Ok(Window { start: window.start, end })
}

fn request<'a>(fields: &'a RequestFields, proof: Option<&'a [u8]>) -> Request<'a> {
    let arguments = fields.arguments.as_ref().map(|arguments| &arguments.map);
    Request {
        tool: &fields.tool,
        action: fields.action.as_deref(),
        resource: fields.resource.as_deref(),
        arguments: if fields.encrypted { Arguments::Opened(arguments) } else { Arguments::Plain(arguments) },
        rounded: fields.arguments.as_ref().is_some_and(|arguments| arguments.rounded),
        proof,
    }
}
