//! Asks for tokens, keeps them, refreshes them ahead of their end, gives them back.

mod backoff;
mod documents;
mod flights;
mod master;
mod revocations;
mod signed;

use std::collections::HashMap;
use std::sync::Arc;

use obol_atp::discovery::Discovered;
use obol_atp::{AgentId, Host};
use obol_secret::json;
use obol_secret::text::to_base64url;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::connect::{Answer, Connector, Outgoing};
use crate::date::now_ms;
use crate::entry::{Entry, Method};
use crate::error::AtpError;
use crate::failures::why;
use crate::keychain::Keychain;
use crate::options::{AgentIdMode, Options};
use crate::refresh::Counters;
use crate::secrets;
use crate::state::{State, Watched};
use crate::token::{Revocation, Token, TokenRequest, TokenVerdict};
use backoff::BackOff;
use documents::Documents;
use flights::Flights;

#[derive(Deserialize)]
struct Refused {
    error: String,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

/// An agent. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Client(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) state: State,
    pub(crate) keychain: Keychain,
    connector: Connector,
    documents: Documents,
    /// How far each provider's clock is ahead of ours, in milliseconds.
    corrections: Mutex<HashMap<Host, i64>>,
    flights: Flights,
    pub(crate) back_off: BackOff,
    pub(crate) counters: Counters,
    /// Where it is not tried any more: why, and the end of the token that was kept then.
    pub(crate) ended: Mutex<HashMap<Host, (String, Option<u64>)>>,
    /// Rings when there is something new to be kept fresh.
    pub(crate) news: Notify,
}

impl Client {
    /// Opens the agent's folder.
    ///
    /// # Errors
    /// [`AtpError`] names the file that cannot be used.
    pub fn open(options: Options) -> Result<Self, AtpError> {
        let state = State::open(&options.folder)?;
        let keychain = Keychain::open(options.keychain, state.clone())?;
        let connector = Connector::new(options.ca_file.as_deref())?;
        Ok(Self(Arc::new(Inner {
            options,
            state,
            keychain,
            connector,
            documents: Documents::default(),
            corrections: Mutex::default(),
            flights: Flights::default(),
            back_off: BackOff::default(),
            counters: Counters::default(),
            ended: Mutex::default(),
            news: Notify::new(),
        })))
    }

    /// This agent's name, as most providers see it: computed once and kept.
    ///
    /// # Errors
    /// [`AtpError`] if it cannot be kept.
    pub fn agent_id(&self) -> Result<AgentId, AtpError> {
        self.0.state.agent_id()
    }

    /// This agent's name at one provider, by [`Options::agent_id_mode`].
    ///
    /// # Errors
    /// [`AtpError`] if it cannot be kept.
    pub fn agent_id_at(&self, host: &Host) -> Result<AgentId, AtpError> {
        match self.0.options.agent_id_mode {
            AgentIdMode::Machine => self.0.state.agent_id(),
            AgentIdMode::Keyed => self.0.state.keyed_agent_id(host),
        }
    }

    /// A new token, kept in the place of the one before, and from now on kept fresh by who refreshes.
    ///
    /// # Errors
    /// [`AtpError`] says why there is none.
    pub async fn request_token(&self, host: &Host, request: &TokenRequest) -> Result<Token, AtpError> {
        let _one_at_a_time = self.0.flights.enter(host).await;
        let _between_processes = self.lock(host).await?;
        let token = self.obtain(host, request, None).await?;
        self.watch(host, request)?;
        Ok(token)
    }

    /// The kept token, if it covers the scopes and need not be refreshed yet, else a new one. One request, however many tasks
    /// and processes ask at the same moment. Where the provider cannot answer, the kept one while it lives.
    ///
    /// # Errors
    /// [`AtpError`] says why there is none.
    pub async fn ensure_token(&self, host: &Host, request: &TokenRequest) -> Result<Token, AtpError> {
        let token = match self.fresh(host, request).await? {
            Some(token) => token,
            None => self.renew(host, request).await?,
        };
        self.watch(host, request)?;
        Ok(token)
    }

    /// The token of a host that is kept here, however long it still lives.
    ///
    /// # Errors
    /// [`AtpError`] if the keychain cannot be read.
    pub async fn kept_token(&self, host: &Host) -> Result<Option<Zeroizing<String>>, AtpError> {
        Ok(self.0.keychain.entry(&host.to_string()).await?.map(|entry| entry.access_token))
    }

    /// Keeps a host's secret in the keychain, so that it need not be in a file or a variable; says in which. The kernel's keyring
    /// forgets, so beside that secrets are in sealed files.
    ///
    /// # Errors
    /// [`AtpError`] if it is not taken, or not kept.
    pub async fn keep_secret(&self, host: &Host, secret: &[u8]) -> Result<&'static str, AtpError> {
        secrets::keep(host, secret, &self.0.keychain).await
    }

    /// Asks the issuer. No answer is an error, and never "invalid".
    ///
    /// # Errors
    /// [`AtpError::WrongIssuer`] if the token is not of this host; nothing is sent then.
    pub async fn verify_token(&self, token: &str, host: &Host) -> Result<TokenVerdict, AtpError> {
        let kept = self.0.keychain.entry(&host.to_string()).await?;
        let is_kept = kept.is_some_and(|entry| *entry.access_token == *token);
        if !is_kept && issuer(token).as_deref() != Some(host.origin().as_str()) {
            return Err(AtpError::WrongIssuer);
        }
        let endpoints = self.discover(host).await?.signed.ok_or(AtpError::NotOffered)?;
        let headers = vec![("authorization", format!("Bearer {token}"))];
        let outgoing =
            Outgoing { method: http::Method::POST, path: endpoints.verify.path(), headers, body: Vec::new() };
        let answer = self.send(endpoints.verify.host(), outgoing).await?;
        let verdict: Option<TokenVerdict> = json::parse(&answer.body).ok().filter(|_| answer.status == 200);
        match verdict {
            Some(verdict) if verdict.valid => Ok(verdict),
            Some(_) => Ok(TokenVerdict { valid: false, scopes: None, expires_at: None, agent_id: None }),
            None => Err(refused(&answer)),
        }
    }

    /// Gives the token back. The entry goes in any case; what does not get through is tried again before the next request, and
    /// meanwhile by who refreshes.
    ///
    /// # Errors
    /// [`AtpError`] only if the entry cannot be removed.
    pub async fn revoke_token(&self, host: &Host) -> Result<Revocation, AtpError> {
        let _between_processes = self.lock(host).await?;
        self.0.state.change_hosts(|hosts| drop(hosts.fresh.remove(&host.to_string())))?;
        self.0.ended.lock().remove(host);
        self.0.state.forget_failure(host);
        let entry = self.0.keychain.entry(&host.to_string()).await?;
        let had_token = entry.is_some();
        if let Some(entry) = entry {
            self.bequeath(host, entry)?;
            self.0.keychain.delete(&host.to_string()).await?;
        }
        let remote = self.bury(host).await?;
        self.0.news.notify_waiters();
        Ok(Revocation { had_token, remote })
    }

    /// The kept token if nothing has to be done.
    async fn fresh(&self, host: &Host, request: &TokenRequest) -> Result<Option<Token>, AtpError> {
        let entry = self.0.keychain.entry(&host.to_string()).await?;
        let fits = |entry: &Entry| entry.covers(&request.scopes) && now_ms() < entry.due_at();
        match entry.filter(fits) {
            Some(entry) => Ok(Some(entry.token(self.0.keychain.name().await?, now_ms()))),
            None => Ok(None),
        }
    }

    /// A new token, by one request of all who want it now. While the provider cannot answer, the kept one as long as it lives.
    pub(crate) async fn renew(&self, host: &Host, request: &TokenRequest) -> Result<Token, AtpError> {
        let flight = self.0.flights.enter(host).await;
        if let Some(token) = self.fresh(host, request).await? {
            return Ok(token);
        }
        let spare = self.0.keychain.entry(&host.to_string()).await?;
        let spare = spare.filter(|entry| entry.covers(&request.scopes) && entry.is_alive(now_ms()));
        if let (Some(spare), true) = (&spare, self.0.back_off.holds(host)) {
            return Ok(spare.token(self.0.keychain.name().await?, now_ms()));
        }
        if let Some(failed) = flight.failed_meanwhile(request) {
            return Err(AtpError::Shared(failed));
        }
        let _between_processes = self.lock(host).await?;
        if let Some(token) = self.fresh(host, request).await? {
            return Ok(token);
        }
        match self.obtain(host, request, spare.as_ref()).await {
            Err(error)
                if error.is_passing() && spare.as_ref().is_some_and(|kept| kept.is_alive(now_ms())) =>
            {
                tracing::warn!(%host, %error, "the token is not refreshed yet");
                let kept = spare.ok_or(AtpError::NotOffered)?;
                Ok(kept.token(self.0.keychain.name().await?, now_ms()))
            }
            Err(error) => Err(flight.fails(request, error)),
            token => token,
        }
    }

    /// Remembers what to keep fresh, also after a restart.
    fn watch(&self, host: &Host, request: &TokenRequest) -> Result<(), AtpError> {
        let watched = Watched {
            scopes: request.scopes.iter().map(str::to_owned).collect(),
            purpose: request.purpose.clone(),
        };
        self.0.state.change_hosts(|hosts| {
            hosts.fresh.insert(host.to_string(), watched.clone());
        })?;
        self.0.news.notify_waiters();
        Ok(())
    }

    pub(crate) async fn lock(&self, host: &Host) -> Result<std::fs::File, AtpError> {
        let (state, name) =
            (self.0.state.clone(), format!("host-{}", to_base64url(host.to_string().as_bytes())));
        let locked = tokio::task::spawn_blocking(move || state.lock(&name)).await;
        locked.map_err(|error| AtpError::System(error.to_string()))?
    }

    /// One request; counted, and remembered where it failed. `before`: the token that this one takes the place of.
    async fn obtain(
        &self,
        host: &Host,
        request: &TokenRequest,
        before: Option<&Entry>,
    ) -> Result<Token, AtpError> {
        let outcome = self.try_obtain(host, request, before).await;
        self.0.counters.count(outcome.as_ref().err());
        match &outcome {
            Ok(_) => {
                self.0.back_off.over(host);
                self.0.ended.lock().remove(host);
                self.0.state.forget_failure(host);
            }
            Err(error) => {
                if error.is_passing() {
                    self.0.back_off.failed(host, error.retry_after());
                }
                self.0.state.note_failure(host, &why(error), None);
            }
        }
        outcome
    }

    async fn try_obtain(
        &self,
        host: &Host,
        request: &TokenRequest,
        before: Option<&Entry>,
    ) -> Result<Token, AtpError> {
        self.bury(host).await?;
        // Never a stronger credential instead: a master is used only where nothing else is offered.
        let entry = match self.discover(host).await? {
            Discovered { signed: Some(endpoints), .. } => self.ask_signed(host, &endpoints, request).await?,
            Discovered { master: Some(routes), .. } => {
                self.ask_by_master(host, &routes, request, before).await?
            }
            Discovered { .. } => return Err(AtpError::NotOffered),
        };
        if !entry.scopes_granted.iter().all(|scope| request.scopes.contains(scope)) {
            if !matches!(self.send_revocation(host, &entry).await, Ok(true)) {
                self.bequeath(host, entry)?;
            }
            return Err(AtpError::WiderGrant);
        }
        self.0.keychain.set(&host.to_string(), &entry.to_bytes()?).await?;
        Ok(entry.token(self.0.keychain.name().await?, now_ms()))
    }

    /// Takes an answer apart; a document that led nowhere is fetched anew next time.
    fn entry_of(
        &self,
        host: &Host,
        method: Method,
        endpoint: &obol_atp::AtpEndpoint,
        answer: &Answer,
    ) -> Result<Entry, AtpError> {
        if matches!(answer.status.as_u16(), 404 | 410) {
            self.0.documents.forget(host);
        }
        if answer.status != 200 {
            return Err(refused(answer));
        }
        Entry::from_answer(method, endpoint, &answer.body, now_ms()).ok_or_else(|| {
            AtpError::Unavailable(format!("{host}: an answer without a token of the right form"))
        })
    }

    async fn send(&self, host: &Host, outgoing: Outgoing<'_>) -> Result<Answer, AtpError> {
        let may_be_private = self.0.options.allow_private.contains(host);
        self.0.connector.send(host, may_be_private, outgoing).await
    }
}

/// Who issued a token, as it says itself.
fn issuer(token: &str) -> Option<String> {
    let claims = token.split('.').nth(1)?;
    let claims = obol_secret::text::from_base64url(claims.as_bytes(), obol_atp::jwt::MAX_TOKEN_BYTES).ok()?;
    json::parse::<Issuer>(&claims).ok().map(|claims| claims.iss)
}

fn code(answer: &Answer) -> String {
    let named = json::parse::<Refused>(&answer.body).ok().map(|body| body.error);
    let plain = |code: &String| {
        (1..=40).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    named.filter(plain).unwrap_or_else(|| format!("status_{}", answer.status.as_u16()))
}

fn refused(answer: &Answer) -> AtpError {
    let retry_after = answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    if answer.status.is_server_error() && retry_after.is_none() {
        return AtpError::Unavailable(code(answer));
    }
    AtpError::Refused { status: answer.status.as_u16(), code: code(answer), retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_issuer_is_what_the_token_says() {
        let token = format!("x.{}.y", to_base64url(br#"{"iss":"https://a.example"}"#));
        assert_eq!(issuer(&token).as_deref(), Some("https://a.example"));
        assert_eq!(issuer("opaque"), None);
    }
}
