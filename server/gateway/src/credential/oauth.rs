//! A credential that is a token of OAuth client credentials: fetched where its API says, and put on as a bearer token.

use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use obol_probe::oauth::{MAX_ANSWER_BYTES, OauthClient, TokenEndpoint};
use obol_secret::wipe::{Wiped, WipedText};

use super::Credential;
use crate::upstream::Upstream;

/// What it takes to fetch a token.
pub(crate) struct Renewal {
    token_url: Uri,
    client: OauthClient,
}

impl Renewal {
    pub(crate) fn new(token_url: Uri, client_id: &str, scope: Option<&str>, secret: &[u8]) -> Self {
        Self { token_url, client: OauthClient::new(client_id, scope, secret) }
    }

    /// Fetches one before its time.
    pub(crate) fn ask(&self) {
        self.client.ask();
    }

    pub(super) fn replace(&self, secret: &[u8]) {
        self.client.replace(secret);
    }

    /// Keeps the credential renewed, for ever.
    pub(crate) async fn keep(&self, api: &str, credential: &Credential, upstream: &Upstream) {
        self.client.keep(api, &Kept { token_url: &self.token_url, credential, upstream }).await;
    }
}

/// A credential, and where its tokens come from.
struct Kept<'a> {
    token_url: &'a Uri,
    credential: &'a Credential,
    upstream: &'a Upstream,
}

impl TokenEndpoint for Kept<'_> {
    async fn post(&self, headers: HeaderMap, form: Vec<u8>) -> Result<(StatusCode, Wiped), String> {
        let mut request = Request::new(form.into());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.token_url.clone();
        *request.headers_mut() = headers;
        let response = self.upstream.send_to(request).await.map_err(|unanswered| unanswered.to_string())?;
        let status = response.status();
        if matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED) {
            // It may be for the secret.
            self.credential.refused.notify_one();
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|_| "its answer broke off, or is too long".to_owned())?;
        Ok((status, Wiped::new(body.to_bytes().to_vec())))
    }

    fn put(&self, token: Option<&WipedText>) -> Result<(), String> {
        self.credential.put(token.map(|token| token.as_bytes())).map_err(|unfit| unfit.to_string())
    }
}
