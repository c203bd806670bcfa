//! How the service shows at a transmitter who it is: a bearer token from settings, or one by OAuth client credentials, which is
//! fetched ahead of need and kept renewed.

use core::fmt;

use http::{HeaderMap, HeaderValue, StatusCode};
use obol_probe::oauth::{MAX_ANSWER_BYTES, OauthClient, TokenEndpoint};
use obol_secret::wipe::{Wiped, WipedText};
use tokio::sync::watch;

use super::settings::{ClientSettings, PollSettings};
use crate::outbound::{Outbound, Target};

/// See the module's header.
pub(super) struct Login {
    client: Option<(OauthClient, Target)>,
    /// What stands in `Authorization`; nothing until there is a token.
    header: watch::Sender<Option<HeaderValue>>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// The header of a bearer token.
fn bearer(token: &str) -> Result<HeaderValue, String> {
    let text = WipedText::new(format!("Bearer {token}"));
    let mut value = HeaderValue::from_str(&text).map_err(|_| "the token cannot be sent".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

impl Login {
    /// `None` where nothing is shown.
    pub(super) fn new(place: &PollSettings) -> Option<Self> {
        if let Some(ClientSettings { token_url, id, scope, secret }) = &place.client {
            let client = OauthClient::new(id, scope.as_deref(), secret.as_bytes());
            return Some(Self {
                client: Some((client, token_url.clone())),
                header: watch::Sender::new(None),
            });
        }
        let header = bearer(place.token.as_ref()?).ok();
        Some(Self { client: None, header: watch::Sender::new(header) })
    }

    /// Keeps its token renewed, until it is dropped.
    pub(super) async fn keep(&self, issuer: &str, outbound: &Outbound) {
        if let Some((client, token_url)) = &self.client {
            client.keep(issuer, &Kept { login: self, token_url, outbound }).await;
        }
    }

    /// What stands in `Authorization`, once there is something.
    pub(super) async fn header(&self) -> HeaderValue {
        let mut header = self.header.subscribe();
        let found = header.wait_for(Option::is_some).await.ok().and_then(|header| header.clone());
        match found {
            Some(header) => header,
            // The sender lives as long as this does.
            None => core::future::pending().await,
        }
    }

    /// That this was not taken. Another token is fetched, unless that has been done.
    pub(super) fn was_refused(&self, used: &HeaderValue) {
        if let (Some((client, _)), true) = (&self.client, self.header.borrow().as_ref() == Some(used)) {
            client.ask();
        }
    }
}

/// Where its tokens come from.
struct Kept<'a> {
    login: &'a Login,
    token_url: &'a Target,
    outbound: &'a Outbound,
}

impl TokenEndpoint for Kept<'_> {
    async fn post(&self, headers: HeaderMap, form: Vec<u8>) -> Result<(StatusCode, Wiped), String> {
        let answer = self.outbound.post(self.token_url, headers, form).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.body.len() <= MAX_ANSWER_BYTES {
            true => Ok((answer.status, Wiped::new(answer.body.to_vec()))),
            false => Err("its answer is too long".to_owned()),
        }
    }

    fn put(&self, token: Option<&WipedText>) -> Result<(), String> {
        let header = token.map(|token| bearer(token)).transpose()?;
        self.login.header.send_replace(header);
        Ok(())
    }
}
