//! The dialect of the npm client: issue, rotate, revoke and list under a master credential, which is good for nothing else.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use obol_atp::jwt::Credential;
use obol_atp::master::{IssueBody, ListEntry, is_token_id};
use obol_atp::{AtpErrorCode, ScopeSet};
use obol_audit::Event;

use crate::audit::About;
use crate::denied::{Denied, json};
use crate::issue::answer;
use crate::keys::KeyPolicy;
use crate::provider::{Grant, Provider};
use crate::request;
use crate::secrets::{Master, SecretBook};
use crate::store::{Kept, Record, Row, Tokens};

/// The shortest life of a token: with 300 s or less the npm client rotates on every call.
const MIN_TTL_SECS: u64 = 600;
/// A rotation so soon after another gives the same token once more: the client has no single flight, and its last writer wins.
const REPEAT_SECS: u64 = 10;

/// What came of a rotation.
enum Rotated {
    New(Record),
    Again(Record),
}

impl Provider {
    fn master<'b>(
        &self,
        book: &'b SecretBook,
        headers: &HeaderMap,
        about: &mut About,
    ) -> Result<&'b Master, Denied> {
        let credential = request::master(headers).unwrap_or_default();
        self.must_be_fresh()?;
        let master = book.master(credential.as_bytes(), &self.store.kept().owners).ok_or_else(|| {
            Denied::new(AtpErrorCode::InvalidMaster, "no master credential of this provider")
        })?;
        about.proof = Some("master");
        about.purpose = Some(master.name.clone());
        Ok(master)
    }

    pub(crate) async fn master_issue(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        about: &mut About,
    ) -> Result<Response, Denied> {
        let book = self.book();
        let master = self.master(&book, headers, about)?;
        request::is_json(headers)?;
        let asked = IssueBody::parse(body)?;
        let scopes = if asked.scopes.is_empty() { master.defaults.clone() } else { asked.scopes };
        if !scopes.is_within(&master.ceiling) || !scopes.is_within(&self.scopes) {
            return Err(Denied::new(AtpErrorCode::InvalidScope, "a scope is not on offer to this master"));
        }
        let place = self.auditor.reserve()?;
        let ttl = asked.ttl_seconds.unwrap_or(self.ttl).clamp(MIN_TTL_SECS.min(self.max_ttl), self.max_ttl);
        let id = Self::new_id()?;
        let issued = self.time.now();
        let grant = Grant {
            id: &id,
            generation: 0,
            agent: &asked.label,
            scopes: &scopes,
            issued,
            ttl,
            cred: Some(Credential::Master),
        };
        let claims = self.claims(&grant);
        let (token, kid) = {
            let kept = self.store.kept();
            let key = kept.keys.current(self.key_policy, issued).ok_or_else(Denied::unavailable)?;
            (key.mint(&claims), key.kid().to_owned())
        };
        let record = Record {
            id: id.clone(),
            master: master.name.to_string(),
            label: asked.label.to_string(),
            scopes: claims.scopes.clone(),
            ttl,
            generation: 0,
            issued,
            ends: claims.exp,
            kid,
        };
        let max_tokens = master.max_tokens;
        let kept = self.store.change(move |kept| add(&kept.tokens, &record, max_tokens, issued)).await;
        if kept != Ok(true) {
            return Err(Denied::unavailable());
        }
        note(about, &claims);
        place.done(Event::TokenIssue, about);
        Ok(answer(&token, &grant))
    }

    pub(crate) async fn master_rotate(
        &self,
        headers: &HeaderMap,
        id: &str,
        about: &mut About,
    ) -> Result<Response, Denied> {
        let book = self.book();
        let master = self.master(&book, headers, about)?;
        let place = self.auditor.reserve()?;
        let now = self.time.now();
        let rotation = Rotation { master: master.name.clone(), id: id.into(), policy: self.key_policy, now };
        let rotated = self.store.change(move |kept| rotation.draft(kept)).await;
        let rotated = rotated.map_err(|_| Denied::unavailable())?;
        let rotated =
            rotated.ok_or_else(|| Denied::new(AtpErrorCode::NotFound, "no such token of this master"))?;
        let (Rotated::New(record) | Rotated::Again(record)) = &rotated;
        let scopes =
            ScopeSet::from_texts(record.scopes.iter().map(String::as_str)).ok_or_else(Denied::unavailable)?;
        let grant = Grant {
            id,
            generation: record.generation,
            agent: &record.label,
            scopes: &scopes,
            issued: record.issued,
            ttl: record.ttl,
            cred: Some(Credential::Master),
        };
        let claims = self.claims(&grant);
        let token = {
            let kept = self.store.kept();
            kept.keys.named(&record.kid).ok_or_else(Denied::unavailable)?.mint(&claims)
        };
        if let Rotated::New(_) = rotated {
            note(about, &claims);
            place.done(Event::TokenRotate, about);
        }
        Ok(answer(&token, &grant))
    }

    /// Always 204: on 404 the npm client would keep a dead token. Acts only on what is this master's.
    pub(crate) async fn master_revoke(
        &self,
        headers: &HeaderMap,
        id: &str,
        about: &mut About,
    ) -> Result<Response, Denied> {
        let book = self.book();
        let master = self.master(&book, headers, about)?;
        let place = self.auditor.reserve()?;
        let ends = self
            .store
            .kept()
            .tokens
            .get(id)
            .filter(|record| record.master == *master.name)
            .map(|record| record.ends);
        if let Some(ends) = ends {
            self.end_id(id, ends).await?;
            (about.jti, about.expires_at) = (Some(id.into()), Some(ends));
            place.done(Event::TokenRevoke, about);
        }
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    pub(crate) fn master_list(&self, headers: &HeaderMap, about: &mut About) -> Result<Response, Denied> {
        let book = self.book();
        let master = self.master(&book, headers, about)?;
        let kept = self.store.kept();
        let found = kept.tokens.of(&master.name, None, self.time.now());
        let sets: Vec<_> = found
            .iter()
            .map(|record| ScopeSet::from_texts(record.scopes.iter().map(String::as_str)).unwrap_or_default())
            .collect();
        let list: Vec<_> = found
            .iter()
            .zip(&sets)
            .map(|(record, scopes)| ListEntry {
                id: &record.id,
                scopes,
                expires_at: record.ends.saturating_mul(1_000),
                agent_id: &record.label,
            })
            .collect();
        Ok(json(StatusCode::OK, &list))
    }
}

fn note(about: &mut About, claims: &obol_atp::jwt::Claims) {
    about.agent = Some(claims.agent_id.as_str().into());
    about.scopes = Some(claims.scope.as_str().into());
    (about.jti, about.expires_at) = (Some(claims.jti.as_str().into()), Some(claims.exp));
}

/// Adds a token; the oldest of the same master and label make room.
fn add(tokens: &Tokens, record: &Record, max_tokens: usize, now: u64) -> (bool, Vec<Row>) {
    if !tokens.has_room() {
        return (false, Vec::new());
    }
    let live = tokens.of(&record.master, Some(&record.label), now);
    let too_many = (live.len() + 1).saturating_sub(max_tokens);
    let evicted = live.iter().take(too_many).filter_map(|old| tokens.revocation(&old.id, old.ends));
    (true, evicted.chain([Row::Token(record.clone())]).collect())
}

/// A rotation that was asked for.
struct Rotation {
    master: Box<str>,
    id: Box<str>,
    policy: KeyPolicy,
    now: u64,
}

impl Rotation {
    fn draft(&self, kept: &Kept) -> (Option<Rotated>, Vec<Row>) {
        let now = self.now;
        let found = kept
            .tokens
            .get(&self.id)
            .filter(|record| is_token_id(&self.id) && record.master == *self.master && now < record.ends);
        let key = kept.keys.current(self.policy, now);
        let (Some(record), Some(key)) = (found, key) else { return (None, Vec::new()) };
        if record.generation > 0 && now < record.issued.saturating_add(REPEAT_SECS) {
            return (Some(Rotated::Again(record.clone())), Vec::new());
        }
        let mut next = record.clone();
        next.generation = record.generation.saturating_add(1);
        (next.issued, next.ends, next.kid) = (now, now.saturating_add(record.ttl), key.kid().to_owned());
        (Some(Rotated::New(next.clone())), vec![Row::Token(next)])
    }
}
