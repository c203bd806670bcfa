//! What a receiver may do with its streams (SSF 1.0, section 8): make, read, change and remove them, pause them, ask for a
//! token that shows that they work, and fetch what waits (RFC 8936). A receiver sees its own streams alone.

use core::fmt;
use std::collections::BTreeMap;

use obol_secret::json;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::outlets::Outlets;
use super::said::{self, SESSION_ESTABLISHED, SESSION_REVOKED, full};
use crate::authority::{Authority, Now};
use crate::directory::{EventStream, Unavailable};
use crate::outbound::Target;
use crate::ssf::effect::SET_TYPE;
use crate::ssf::outlet_settings::ReceiverSettings;
use crate::ssf::trial::fresh_name;

const PUSH: &str = "urn:ietf:rfc:8935";
const POLL: &str = "urn:ietf:rfc:8936";
/// The most streams of one receiver.
const MAX_STREAMS: usize = 4;
/// The longest text of a receiver's, in bytes.
const MAX_TEXT_BYTES: usize = 1_024;
/// The most tokens of one answer.
const MAX_FETCHED: usize = 100;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
    /// What the service says of itself.
    Configuration,
    /// The keys that its tokens are signed with.
    Keys,
    /// A stream is made.
    Create,
    /// One is read, or all.
    Read,
    /// One is changed.
    Update,
    /// One is removed.
    Remove,
    /// How one stands.
    Status,
    /// One is paused, stopped, or goes on.
    SetStatus,
    /// A token is sent that shows that one works.
    Verify,
    /// What waits is fetched.
    Fetch,
}

/// Why a receiver's request is not carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum StreamError {
    /// Its bearer token is nobody's.
    Unauthorized,
    /// It has no such stream.
    NotFound,
    /// It has as many as it may.
    Conflict,
    /// The request is not as it must be.
    Malformed(String),
    /// It cannot be done now.
    Unavailable(String),
}

impl From<Unavailable> for StreamError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unauthorized => "the bearer token is missing, or is not a receiver's",
            Self::NotFound => "there is no such stream of this receiver",
            Self::Conflict => "this receiver has as many streams as it may",
            Self::Malformed(why) | Self::Unavailable(why) => why,
        })
    }
}

type Told<T> = Result<T, StreamError>;

fn malformed<T>(why: impl Into<String>) -> Told<T> {
    Err(StreamError::Malformed(why.into()))
}

/// What a receiver asks for. What only the service says is passed over.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    stream_id: Option<String>,
    delivery: Option<Delivery>,
    events_requested: Option<Vec<String>>,
    description: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Delivery {
    method: String,
    endpoint_url: Option<String>,
    authorization_header: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Status {
    stream_id: String,
    status: String,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Verify {
    stream_id: String,
    state: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Fetch {
    #[serde(default, rename = "maxEvents")]
    max: Option<usize>,
    #[serde(default)]
    ack: Vec<String>,
    #[serde(default, rename = "setErrs")]
    wrong: Map<String, Value>,
    #[serde(default, rename = "returnImmediately")]
    at_once: bool,
}

/// What to ask again and again for a receiver that waits (RFC 8936, section 2.4): only one that asked for tokens, did not ask for
/// an answer at once, and got none. What it said of others it has said.
pub(crate) fn asked_while_waiting(body: &[u8], answer: &Value) -> Option<Vec<u8>> {
    let asked: Fetch = json::parse(body).ok()?;
    let most = asked.max.unwrap_or(MAX_FETCHED);
    let found_none = answer.get("sets").and_then(Value::as_object).is_some_and(Map::is_empty);
    let waits = found_none && most > 0 && !asked.at_once;
    waits.then(|| json!({ "maxEvents": most }).to_string().into_bytes())
}

/// What the service says of itself to receivers.
fn configuration(origin: &str) -> Value {
    json!({
        "spec_version": "1_0",
        "issuer": origin,
        "jwks_uri": format!("{origin}/.well-known/jwks.json"),
        "delivery_methods_supported": [PUSH, POLL],
        "configuration_endpoint": format!("{origin}/ssf/streams"),
        "status_endpoint": format!("{origin}/ssf/status"),
        "verification_endpoint": format!("{origin}/ssf/verify"),
        "authorization_schemes": [{ "spec_urn": "urn:ietf:rfc:6750" }],
        "default_subjects": "ALL",
    })
}

/// One receiver and what it may reach.
pub(in crate::ssf) struct Desk<'a> {
    pub(in crate::ssf) outlets: &'a Outlets,
    pub(in crate::ssf) authority: &'a Authority,
}

impl Desk<'_> {
    /// Does what is asked for: with a bearer token, about the stream of this name.
    pub(in crate::ssf) fn act(
        &self,
        verb: Verb,
        (token, id): (Option<&str>, Option<&str>),
        body: &[u8],
        now: Now,
    ) -> Told<Value> {
        if self.outlets.settings().receivers.is_empty() {
            return Err(StreamError::NotFound);
        }
        match verb {
            Verb::Configuration => Ok(configuration(self.origin())),
            Verb::Keys => {
                let keys = self.authority.signing_keys(now);
                keys.map(|keys| keys.key_set(now.secs()))
                    .map_err(|error| StreamError::Unavailable(error.to_string()))
            }
            Verb::Create => self.create(token, body),
            Verb::Read => self.read(token, id),
            Verb::Update => self.update(token, body),
            Verb::Remove => self.remove(token, id).map(|()| Value::Null),
            Verb::Status => self.status(token, id),
            Verb::SetStatus => self.set_status(token, body),
            Verb::Verify => self.verify(token, body).map(|()| Value::Null),
            Verb::Fetch => self.fetch(token, id.unwrap_or_default(), body, now),
        }
    }

    fn receiver(&self, token: Option<&str>) -> Told<&ReceiverSettings> {
        token.and_then(|token| self.outlets.settings().receiver(token)).ok_or(StreamError::Unauthorized)
    }

    fn own(&self, receiver: &ReceiverSettings) -> Told<Vec<EventStream>> {
        let mut streams = self.authority.directory().event_streams()?;
        streams.retain(|stream| stream.receiver == receiver.name);
        Ok(streams)
    }

    fn one(&self, receiver: &ReceiverSettings, id: &str) -> Told<EventStream> {
        self.own(receiver)?.into_iter().find(|stream| stream.id == id).ok_or(StreamError::NotFound)
    }

    fn keep(&self, stream: EventStream) -> Told<()> {
        self.authority.directory().put_event_stream(stream)?;
        self.outlets.changed();
        Ok(())
    }

    /// Makes a stream.
    fn create(&self, token: Option<&str>, body: &[u8]) -> Told<Value> {
        let receiver = self.receiver(token)?;
        let asked: Asked = read(body)?;
        if self.own(receiver)?.len() >= MAX_STREAMS {
            return Err(StreamError::Conflict);
        }
        let id = format!("str_{}", fresh_name());
        let mut stream = EventStream {
            id,
            receiver: receiver.name.clone(),
            events: vec![SESSION_REVOKED.to_owned()],
            push: None,
            authorization: None,
            description: String::new(),
            status: "enabled".to_owned(),
            reason: None,
            // What happened before is not told.
            cursor: self.authority.directory().last_event()?,
        };
        change(&mut stream, asked, receiver)?;
        let shown = self.shown(&stream);
        self.keep(stream)?;
        Ok(shown)
    }

    /// One stream, or all.
    fn read(&self, token: Option<&str>, id: Option<&str>) -> Told<Value> {
        let receiver = self.receiver(token)?;
        match id {
            Some(id) => self.one(receiver, id).map(|stream| self.shown(&stream)),
            None => Ok(self.own(receiver)?.iter().map(|stream| self.shown(stream)).collect()),
        }
    }

    /// Changes what the request names.
    fn update(&self, token: Option<&str>, body: &[u8]) -> Told<Value> {
        let receiver = self.receiver(token)?;
        let asked: Asked = read(body)?;
        let id = asked
            .stream_id
            .clone()
            .ok_or_else(|| StreamError::Malformed("stream_id is missing".to_owned()))?;
        let mut stream = self.one(receiver, &id)?;
        change(&mut stream, asked, receiver)?;
        let shown = self.shown(&stream);
        self.keep(stream)?;
        Ok(shown)
    }

    /// Removes a stream.
    fn remove(&self, token: Option<&str>, id: Option<&str>) -> Told<()> {
        let stream = self.one(self.receiver(token)?, id.unwrap_or_default())?;
        self.authority.directory().remove_event_stream(&stream.id)?;
        self.outlets.changed();
        Ok(())
    }

    /// How a stream stands.
    fn status(&self, token: Option<&str>, id: Option<&str>) -> Told<Value> {
        let stream = self.one(self.receiver(token)?, id.unwrap_or_default())?;
        Ok(json!({ "stream_id": stream.id, "status": stream.status, "reason": stream.reason }))
    }

    /// Pauses a stream, stops it, or lets it go on.
    fn set_status(&self, token: Option<&str>, body: &[u8]) -> Told<Value> {
        let receiver = self.receiver(token)?;
        let asked: Status = read(body)?;
        let mut stream = self.one(receiver, &asked.stream_id)?;
        if !["enabled", "paused", "disabled"].contains(&asked.status.as_str()) {
            return malformed("status is enabled, paused or disabled");
        }
        // What happens while it is disabled is not kept for it.
        if stream.status == "disabled" && asked.status != "disabled" {
            stream.cursor = self.authority.directory().last_event()?;
        }
        stream.status = asked.status;
        stream.reason = asked.reason.map(short).transpose()?;
        let shown = json!({ "stream_id": stream.id, "status": stream.status, "reason": stream.reason });
        self.keep(stream)?;
        Ok(shown)
    }

    /// Has a token sent that shows that the stream works.
    fn verify(&self, token: Option<&str>, body: &[u8]) -> Told<()> {
        let receiver = self.receiver(token)?;
        let asked: Verify = read(body)?;
        let stream = self.one(receiver, &asked.stream_id)?;
        let state = asked.state.map(short).transpose()?.unwrap_or_default();
        self.outlets.verify(&stream.id, state);
        Ok(())
    }

    /// Takes what the receiver says of the last tokens, and gives the next.
    fn fetch(&self, token: Option<&str>, id: &str, body: &[u8], now: Now) -> Told<Value> {
        let receiver = self.receiver(token)?;
        let stream = self.one(receiver, id)?;
        if stream.push.is_some() {
            return malformed("this stream is pushed");
        }
        let asked: Fetch = read(body)?;
        for (name, why) in &asked.wrong {
            tracing::warn!(receiver = receiver.name, name, %why, "a receiver could not take a security event");
        }
        let heard = asked.ack.into_iter().chain(asked.wrong.into_iter().map(|(name, _)| name));
        let cursor = self.outlets.acknowledge(&stream, heard, self.authority.directory())?;
        let directory = self.authority.directory();
        let most = asked.max.unwrap_or(MAX_FETCHED).min(MAX_FETCHED);
        let (waiting, more) =
            self.outlets.waiting(&EventStream { cursor, ..stream.clone() }, directory, most)?;
        let mut sets = BTreeMap::new();
        for said in waiting {
            let jti = format!("{}.{}", stream.id, said.seq);
            let claims = said.claims(self.origin(), &receiver.name, &jti, now.secs());
            sets.insert(jti, self.sign(receiver, &claims, now)?);
        }
        if let Some((jti, state)) = self.outlets.verification_for(&stream.id).filter(|_| most > 0) {
            let claims =
                said::verification(self.origin(), &receiver.name, &stream.id, &state, &jti, now.secs());
            sets.insert(jti, self.sign(receiver, &claims, now)?);
        }
        Ok(json!({ "sets": sets, "moreAvailable": more }))
    }

    fn sign(&self, receiver: &ReceiverSettings, claims: &Value, now: Now) -> Told<String> {
        let keys =
            self.authority.signing_keys(now).map_err(|error| StreamError::Unavailable(error.to_string()))?;
        keys.sign(receiver.algorithm, SET_TYPE, claims, now.secs())
            .map_err(|error| StreamError::Unavailable(error.to_string()))
    }

    fn origin(&self) -> &str {
        self.authority.settings().origin()
    }

    fn shown(&self, stream: &EventStream) -> Value {
        let origin = self.origin();
        let events: Vec<_> = stream.events.iter().map(|event| full(event)).collect();
        let delivery = match &stream.push {
            Some(url) => json!({ "method": PUSH, "endpoint_url": url }),
            None => json!({ "method": POLL, "endpoint_url": format!("{origin}/ssf/poll/{}", stream.id) }),
        };
        json!({
            "stream_id": stream.id, "iss": origin, "aud": stream.receiver, "delivery": delivery,
            "events_supported": [full(SESSION_REVOKED), full(SESSION_ESTABLISHED)],
            "events_requested": events, "events_delivered": events, "description": stream.description,
        })
    }
}

fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Told<T> {
    json::parse(body).map_err(|error| StreamError::Malformed(error.to_string()))
}

fn short(text: String) -> Told<String> {
    match text.len() <= MAX_TEXT_BYTES && !text.contains(char::is_control) {
        true => Ok(text),
        false => malformed(format!("a text has at most {MAX_TEXT_BYTES} bytes without control characters")),
    }
}

fn change(stream: &mut EventStream, asked: Asked, receiver: &ReceiverSettings) -> Told<()> {
    if let Some(delivery) = asked.delivery {
        match (delivery.method.as_str(), delivery.endpoint_url) {
            (PUSH, Some(url)) => {
                let target =
                    Target::parse(&url).map_err(|error| StreamError::Malformed(error.to_string()))?;
                // Only where the operator said: a receiver must not make the service send to others.
                if !receiver.may_push_to(&target) {
                    return malformed(
                        "endpoint_url is not at an origin that the operator allows this receiver",
                    );
                }
                stream.push = Some(url);
            }
            (PUSH, None) => return malformed("endpoint_url is missing"),
            (POLL, _) => stream.push = None,
            _ => return malformed("delivery.method is urn:ietf:rfc:8935 or urn:ietf:rfc:8936"),
        }
        let header = delivery.authorization_header.map(short).transpose()?;
        if header.as_ref().is_some_and(|header| http::HeaderValue::from_str(header).is_err()) {
            return malformed("authorization_header cannot stand in a header");
        }
        stream.authorization = header;
    }
    if let Some(requested) = asked.events_requested {
        let known = [SESSION_REVOKED, SESSION_ESTABLISHED];
        let wanted = |kind: &&str| requested.contains(&full(kind));
        stream.events = known.into_iter().filter(|kind| wanted(kind)).map(str::to_owned).collect();
    }
    if let Some(description) = asked.description {
        stream.description = short(description)?;
    }
    Ok(())
}
