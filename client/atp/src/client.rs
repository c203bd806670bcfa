//! Asks for tokens, keeps them, refreshes them ahead of their end, gives them back.

use http::Method;
use obol_atp::discovery::{Discovered, SignedEndpoints, WELL_KNOWN};
use obol_atp::{AgentId, Endpoint, Host, RevokeBody, Scope, ScopeSet, Secret, TokenBody, purpose};
use obol_secret::text::to_base64url;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

use crate::connect::{Answer, Connector, Outgoing};
use crate::error::AtpError;
use crate::keychain::{Entry, Keychain};
use crate::options::Options;
use crate::secrets;
use crate::state::State;

/// Bounds of the time that a document is good for, and what holds where it says nothing, in seconds.
const DOCUMENT_LIFE_SECS: core::ops::RangeInclusive<u64> = 60..=3_600;
const USUAL_DOCUMENT_LIFE_SECS: u64 = 300;
/// The most that a token is refreshed ahead of its end, in milliseconds; of short ones a fifth of their life.
const MAX_LEAD_MS: u64 = 300_000;
/// How wrong this machine's clock may be to be corrected by a provider's, in milliseconds.
const MAX_CORRECTION_MS: i64 = 15 * 60_000;
/// Entries of tokens that could not be revoked yet.
const TOMBSTONE: &str = "__atp_revoke__:";

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRequest {
    scopes: ScopeSet,
    purpose: Option<String>,
}

impl TokenRequest {
    /// For these scopes.
    ///
    /// # Errors
    /// [`AtpError::Argument`] if there are none, or one is not a scope.
    pub fn new<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Result<Self, AtpError> {
        let wrong = AtpError::Argument(
            "ask for 1 to 32 scopes, each of 1 to 64 characters of A-Z a-z 0-9 . _ : / * -",
        );
        let scopes: Result<Vec<Scope>, _> = scopes.into_iter().map(Scope::new).collect();
        match scopes {
            Ok(scopes) if (1..=obol_atp::scope::MAX_SCOPES).contains(&scopes.len()) => {
                Ok(Self { scopes: scopes.into_iter().collect(), purpose: None })
            }
            _ => Err(wrong),
        }
    }

    /// Says what it is for.
    ///
    /// # Errors
    /// [`AtpError::Argument`] if it is too long, or holds control or format characters.
    pub fn purpose(mut self, text: &str) -> Result<Self, AtpError> {
        if !purpose::is_valid(text) {
            return Err(AtpError::Argument(
                "a purpose has at most 256 bytes and no control or format characters",
            ));
        }
        self.purpose = Some(text.to_owned());
        Ok(self)
    }
}

/// A token.
#[derive(Clone)]
pub struct Token {
    /// The token itself.
    pub access_token: Zeroizing<String>,
    /// Seconds that are left.
    pub expires_in: u64,
    /// Unix milliseconds, by this machine's clock.
    pub expires_at: u64,
    /// Sorted.
    pub scopes_granted: Vec<String>,
    /// This agent.
    pub agent_id: String,
    /// The token's id.
    pub id: String,
    /// Where it is kept.
    pub stored_in: &'static str,
}

impl core::fmt::Debug for Token {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What an issuer says about a token.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, serde::Serialize)]
pub struct Verdict {
    /// Whether it is valid.
    pub valid: bool,
    /// Its scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// Its end, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Whom it was issued to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
}

/// What came of a revocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revocation {
    /// Whether there was a token.
    pub had_token: bool,
    /// Whether the provider knows. If not, it is told before the next request.
    pub remote: bool,
}

#[derive(Deserialize)]
struct Issued {
    token: Zeroizing<String>,
    expires_in: u64,
    scopes_granted: Vec<String>,
    #[serde(default)]
    agent_id: String,
    #[serde(default)]
    id: String,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

#[derive(Deserialize)]
struct Revoked {
    revoked: bool,
}

/// An agent. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Options,
    state: State,
    keychain: Keychain,
    connector: Connector,
    documents: Mutex<HashMap<Host, (SignedEndpoints, Instant)>>,
    /// How far each provider's clock is ahead of ours, in milliseconds.
    corrections: Mutex<HashMap<Host, i64>>,
    flights: Mutex<HashMap<Host, Arc<tokio::sync::Mutex<()>>>>,
}

impl Client {
    /// Opens the agent's folder.
    ///
    /// # Errors
    /// [`AtpError`] names the file that cannot be used.
    pub fn open(options: Options) -> Result<Self, AtpError> {
        let state = State::open(&options.folder)?;
        let keychain = Keychain::open(state.clone())?;
        let connector = Connector::new(options.ca_file.as_deref())?;
        let (documents, corrections, flights) = Default::default();
        Ok(Self(Arc::new(Inner { options, state, keychain, connector, documents, corrections, flights })))
    }

    /// This agent's name: computed once and kept.
    ///
    /// # Errors
    /// [`AtpError`] if it cannot be kept.
    pub fn agent_id(&self) -> Result<AgentId, AtpError> {
        self.0.state.agent_id()
    }

    /// A new token, kept in the place of the one before.
    ///
    /// # Errors
    /// [`AtpError`] says why there is none.
    pub async fn request_token(&self, host: &Host, request: &TokenRequest) -> Result<Token, AtpError> {
        let _one_at_a_time = self.flight(host).await;
        let _between_processes = self.lock(host).await?;
        self.obtain(host, request).await
    }

    /// The kept token, if it covers the scopes and need not be refreshed yet, else a new one. One request, however many tasks
    /// and processes ask at the same moment.
    ///
    /// # Errors
    /// [`AtpError`] says why there is none.
    pub async fn ensure_token(&self, host: &Host, request: &TokenRequest) -> Result<Token, AtpError> {
        if let Some(token) = self.kept(host, request)? {
            return Ok(token);
        }
        let _one_at_a_time = self.flight(host).await;
        if let Some(token) = self.kept(host, request)? {
            return Ok(token);
        }
        let _between_processes = self.lock(host).await?;
        match self.kept(host, request)? {
            Some(token) => Ok(token),
            None => self.obtain(host, request).await,
        }
    }

    /// The token of a host that is kept here, however long it still lives.
    ///
    /// # Errors
    /// [`AtpError`] if the keychain cannot be read.
    pub fn kept_token(&self, host: &Host) -> Result<Option<Zeroizing<String>>, AtpError> {
        Ok(self.0.keychain.get(&host.to_string())?.map(|entry| entry.access_token))
    }

    /// Asks the issuer. No answer is an error, and never "invalid".
    ///
    /// # Errors
    /// [`AtpError::WrongIssuer`] if the token is not of this host; nothing is sent then.
    pub async fn verify_token(&self, token: &str, host: &Host) -> Result<Verdict, AtpError> {
        let is_kept =
            self.0.keychain.get(&host.to_string())?.is_some_and(|entry| *entry.access_token == *token);
        if !is_kept && issuer(token).as_deref() != Some(host.origin().as_str()) {
            return Err(AtpError::WrongIssuer);
        }
        let endpoints = self.discover(host).await?;
        let headers = vec![("authorization", format!("Bearer {token}"))];
        let outgoing =
            Outgoing { method: Method::POST, path: endpoints.verify.path(), headers, body: Vec::new() };
        let answer = self.send(endpoints.verify.host(), outgoing).await?;
        let verdict: Option<Verdict> =
            serde_json::from_slice(&answer.body).ok().filter(|_| answer.status == 200);
        match verdict {
            Some(verdict) if verdict.valid => Ok(verdict),
            Some(_) => Ok(Verdict { valid: false, scopes: None, expires_at: None, agent_id: None }),
            None => Err(refused(&answer)),
        }
    }

    /// Gives the token back. The entry goes in any case; what does not get through is tried again before the next request.
    ///
    /// # Errors
    /// [`AtpError`] only if the entry cannot be removed.
    pub async fn revoke_token(&self, host: &Host) -> Result<Revocation, AtpError> {
        let _between_processes = self.lock(host).await?;
        let Some(entry) = self.0.keychain.get(&host.to_string())? else {
            return Ok(Revocation { had_token: false, remote: self.bury(host).await? });
        };
        self.0.keychain.set(&format!("{TOMBSTONE}{host}"), &entry)?;
        self.0.keychain.delete(&host.to_string())?;
        Ok(Revocation { had_token: true, remote: self.bury(host).await? })
    }

    async fn flight(&self, host: &Host) -> tokio::sync::OwnedMutexGuard<()> {
        let flight = {
            let mut flights = self.0.flights.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(flights.entry(host.clone()).or_default())
        };
        flight.lock_owned().await
    }

    async fn lock(&self, host: &Host) -> Result<std::fs::File, AtpError> {
        let (state, name) =
            (self.0.state.clone(), format!("host-{}", to_base64url(host.to_string().as_bytes())));
        let locked = tokio::task::spawn_blocking(move || state.lock(&name)).await;
        locked.map_err(|error| AtpError::System(error.to_string()))?
    }

    fn kept(&self, host: &Host, request: &TokenRequest) -> Result<Option<Token>, AtpError> {
        let Some(entry) = self.0.keychain.get(&host.to_string())? else { return Ok(None) };
        let covers =
            request.scopes.iter().all(|scope| entry.scopes_granted.iter().any(|granted| granted == scope));
        let is_due = now_ms() >= due(&entry)?;
        Ok((covers && !is_due).then(|| token(&entry)))
    }

    async fn obtain(&self, host: &Host, request: &TokenRequest) -> Result<Token, AtpError> {
        self.bury(host).await?;
        let endpoints = self.discover(host).await?;
        let sign = |secret: &Secret, stamp: Stamp| {
            let body = TokenBody {
                agent_id: stamp.agent,
                aud: Some(endpoints.token.as_str().into()),
                nonce: Some(stamp.nonce.into()),
                purpose: request.purpose.as_deref().map(Into::into),
                scopes: request.scopes.iter().map(Into::into).collect(),
                timestamp: stamp.timestamp,
            };
            body.signed_with(secret)
        };
        let answer = self.signed(host, &endpoints.token, sign).await?;
        if matches!(answer.status.as_u16(), 404 | 410) {
            self.0.documents.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
        }
        if answer.status != 200 {
            return Err(refused(&answer));
        }
        let entry = entry(&endpoints.token, &answer.body).ok_or_else(|| {
            AtpError::Unavailable(format!("{host}: an answer without a token of the right form"))
        })?;
        if !entry.scopes_granted.iter().all(|scope| request.scopes.contains(scope)) {
            let _best_effort = self.send_revocation(host, &entry.access_token).await;
            return Err(AtpError::WiderGrant);
        }
        self.0.keychain.set(&host.to_string(), &entry)?;
        Ok(token(&entry))
    }

    /// Signs and sends; once more with the clock corrected, or with a secret that was changed meanwhile.
    async fn signed(
        &self,
        host: &Host,
        to: &Endpoint,
        sign: impl Fn(&Secret, Stamp) -> Vec<u8>,
    ) -> Result<Answer, AtpError> {
        let mut secret = self.secret(host)?;
        let mut answer = self.send_signed(to, sign(&secret, self.stamp(host)?)).await?;
        if answer.status == 401 {
            let repeat = match code(&answer).as_str() {
                "stale_timestamp" => self.correct_clock(host, &answer),
                "invalid_signature" => {
                    let newer = self.secret(host)?;
                    let changed = !newer.is_same(secret.reveal());
                    secret = newer;
                    changed
                }
                _ => false,
            };
            if repeat {
                answer = self.send_signed(to, sign(&secret, self.stamp(host)?)).await?;
            }
        }
        Ok(answer)
    }

    async fn send_signed(&self, to: &Endpoint, body: Vec<u8>) -> Result<Answer, AtpError> {
        let headers = vec![("content-type", "application/json".to_owned())];
        self.send(to.host(), Outgoing { method: Method::POST, path: to.path(), headers, body }).await
    }

    fn stamp(&self, host: &Host) -> Result<Stamp, AtpError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| AtpError::System(error.to_string()))?;
        let correction =
            *self.0.corrections.lock().unwrap_or_else(PoisonError::into_inner).get(host).unwrap_or(&0);
        let timestamp = now_ms().saturating_add_signed(correction);
        Ok(Stamp { agent: self.agent_id()?, nonce: to_base64url(&random), timestamp })
    }

    fn correct_clock(&self, host: &Host, answer: &Answer) -> bool {
        let date = answer.headers.get("date").and_then(|date| http_date_ms(date.to_str().ok()?));
        let difference = date.map(|date| date.wrapping_sub(now_ms()).cast_signed());
        match difference.filter(|difference| difference.abs() <= MAX_CORRECTION_MS) {
            Some(difference) => {
                self.0
                    .corrections
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(host.clone(), difference);
                true
            }
            None => false,
        }
    }

    fn secret(&self, host: &Host) -> Result<Secret, AtpError> {
        let Options { secret_file, hosts, .. } = &self.0.options;
        secrets::find(host, secret_file.as_deref().map(Path::new), hosts, &self.0.state)
    }

    async fn discover(&self, host: &Host) -> Result<SignedEndpoints, AtpError> {
        let kept = self.0.documents.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned();
        if let Some((found, _)) = kept.filter(|(_, until)| Instant::now() < *until) {
            return Ok(found);
        }
        let outgoing =
            Outgoing { method: Method::GET, path: WELL_KNOWN, headers: Vec::new(), body: Vec::new() };
        let answer = self.send(host, outgoing).await?;
        if answer.status != 200 {
            return Err(AtpError::NotOffered);
        }
        let found = Discovered::read(&answer.body, host, &self.0.options.endpoints)?;
        let found = found.signed.ok_or(AtpError::NotOffered)?;
        let until = Instant::now() + document_life(&answer);
        self.0
            .documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(host.clone(), (found.clone(), until));
        Ok(found)
    }

    async fn send(&self, host: &Host, outgoing: Outgoing<'_>) -> Result<Answer, AtpError> {
        let may_be_private = self.0.options.allow_private.contains(host);
        self.0.connector.send(host, may_be_private, outgoing).await
    }

    async fn send_revocation(&self, host: &Host, token: &str) -> Result<bool, AtpError> {
        let endpoints = self.discover(host).await?;
        let sign = |secret: &Secret, stamp: Stamp| {
            let body = RevokeBody {
                agent_id: stamp.agent,
                aud: Some(endpoints.token.as_str().into()),
                nonce: Some(stamp.nonce.into()),
                timestamp: stamp.timestamp,
                token: token.into(),
            };
            body.signed_with(secret)
        };
        let answer = self.signed(host, &endpoints.revoke, sign).await?;
        Ok(answer.status == 200
            && serde_json::from_slice::<Revoked>(&answer.body).is_ok_and(|body| body.revoked))
    }

    /// Revokes what could not be revoked before; whether nothing is left.
    async fn bury(&self, host: &Host) -> Result<bool, AtpError> {
        let account = format!("{TOMBSTONE}{host}");
        let Some(entry) = self.0.keychain.get(&account)? else { return Ok(true) };
        let gone = entry.expires_at < now_ms()
            || self.send_revocation(host, &entry.access_token).await.unwrap_or(false);
        if gone {
            self.0.keychain.delete(&account)?;
        }
        Ok(gone)
    }
}

/// What makes one signed body differ from every other.
struct Stamp {
    agent: AgentId,
    nonce: String,
    timestamp: u64,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// When a token is refreshed: a fifth of its life ahead of its end, at most five minutes, and up to a tenth of that earlier or
/// later at random, so that agents that began together do not come together.
fn due(entry: &Entry) -> Result<u64, AtpError> {
    let lead = MAX_LEAD_MS.min(entry.expires_at.saturating_sub(entry.obtained_at) / 5);
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| AtpError::System(error.to_string()))?;
    let spread = lead / 5 * u64::from(u32::from_le_bytes(random)) / u64::from(u32::MAX);
    Ok(entry.expires_at.saturating_sub(lead - lead / 10 + spread))
}

fn token(entry: &Entry) -> Token {
    Token {
        access_token: entry.access_token.clone(),
        expires_in: entry.expires_at.saturating_sub(now_ms()).div_ceil(1_000),
        expires_at: entry.expires_at,
        scopes_granted: entry.scopes_granted.clone(),
        agent_id: entry.agent_id.clone(),
        id: entry.token_id.clone(),
        stored_in: "file",
    }
}

fn entry(endpoint: &Endpoint, body: &[u8]) -> Option<Entry> {
    let issued: Issued = serde_json::from_slice(body).ok()?;
    let granted = ScopeSet::from_texts(issued.scopes_granted.iter().map(String::as_str))?;
    let fits = !issued.token.is_empty()
        && issued.token.bytes().all(|byte| byte.is_ascii_graphic())
        && issued.expires_in > 0;
    let now = now_ms();
    fits.then(|| Entry {
        method: "agent_token".to_owned(),
        access_token: issued.token,
        expires_at: now.saturating_add(issued.expires_in.saturating_mul(1_000)),
        scopes_granted: granted.iter().map(str::to_owned).collect(),
        agent_id: issued.agent_id,
        token_id: issued.id,
        endpoint: endpoint.to_string(),
        obtained_at: now,
    })
}

/// Who issued a token, as it says itself.
fn issuer(token: &str) -> Option<String> {
    let claims = token.split('.').nth(1)?;
    let claims = obol_secret::text::from_base64url(claims.as_bytes(), obol_atp::jwt::MAX_TOKEN_BYTES).ok()?;
    serde_json::from_slice::<Issuer>(&claims).ok().map(|claims| claims.iss)
}

fn code(answer: &Answer) -> String {
    let named = serde_json::from_slice::<Refused>(&answer.body).ok().map(|body| body.error);
    let plain = |code: &String| {
        (1..=40).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    named.filter(plain).unwrap_or_else(|| format!("status_{}", answer.status.as_u16()))
}

fn refused(answer: &Answer) -> AtpError {
    if answer.status.is_server_error() {
        return AtpError::Unavailable(code(answer));
    }
    let retry_after = answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    AtpError::Refused { status: answer.status.as_u16(), code: code(answer), retry_after }
}

fn document_life(answer: &Answer) -> Duration {
    let control =
        answer.headers.get("cache-control").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seconds = control.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse().ok());
    let (least, most) = (*DOCUMENT_LIFE_SECS.start(), *DOCUMENT_LIFE_SECS.end());
    Duration::from_secs(seconds.unwrap_or(USUAL_DOCUMENT_LIFE_SECS).clamp(least, most))
}

/// An HTTP date (`Sun, 06 Nov 1994 08:49:37 GMT`) in Unix milliseconds.
fn http_date_ms(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.strip_suffix(" GMT")?.split(' ');
    let day: i64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = i64::try_from(MONTHS.iter().position(|known| *known == month)?).ok()? + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut time = words.next()?.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    // Days since 1970 in the Gregorian calendar, with years that begin in March.
    let years = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (years.div_euclid(400), years.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    u64::try_from((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_dates_are_read() {
        assert_eq!(http_date_ms("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777_000));
        assert_eq!(http_date_ms("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date_ms("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199_000));
        for wrong in ["", "x", "Sun, 06 Nov 1994 08:49 GMT", "Sun, 06 Xyz 1994 08:49:37 GMT"] {
            assert_eq!(http_date_ms(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_is_due_a_fifth_of_its_life_or_five_minutes_ahead_and_not_all_at_once() {
        let entry = |ttl_ms: u64| Entry {
            method: String::new(),
            access_token: Zeroizing::new(String::new()),
            expires_at: 10_000_000 + ttl_ms,
            scopes_granted: Vec::new(),
            agent_id: String::new(),
            token_id: String::new(),
            endpoint: String::new(),
            obtained_at: 10_000_000,
        };
        for (ttl, lead) in [(3_600_000, 300_000), (100_000, 20_000)] {
            let all: Vec<u64> = (0..200).map(|_| entry(ttl).expires_at - due(&entry(ttl)).unwrap()).collect();
            assert!(all.iter().all(|early| (lead * 9 / 10..=lead * 11 / 10).contains(early)), "{all:?}");
            assert!(all.iter().max().unwrap() - all.iter().min().unwrap() > lead / 10);
        }
    }

    #[test]
    fn the_issuer_is_what_the_token_says() {
        let token = format!("x.{}.y", to_base64url(br#"{"iss":"https://a.example"}"#));
        assert_eq!(issuer(&token).as_deref(), Some("https://a.example"));
        assert_eq!(issuer("opaque"), None);
    }
}
