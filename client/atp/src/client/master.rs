//! The dialect of the npm client: a master credential instead of a signature. Used only where a document offers nothing else, and
//! only with a credential that was named for that very host.

use http::Method as HttpMethod;
use obol_atp::discovery::MasterRoutes;
use obol_atp::{AtpEndpoint, Host};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Client, refused};
use crate::connect::{Answer, Outgoing};
use crate::entry::{Entry, Method};
use crate::error::AtpError;
use crate::secrets;
use crate::token::TokenRequest;

/// The life that is asked for, in seconds.
const TTL_SECS: u64 = 3_600;

impl Client {
    /// A new token; by rotation where one of the same scopes is to be replaced, so that its id stays.
    pub(super) async fn ask_by_master(
        &self,
        host: &Host,
        routes: &MasterRoutes,
        request: &TokenRequest,
        before: Option<&Entry>,
    ) -> Result<Entry, AtpError> {
        let is_same = |entry: &&Entry| {
            entry.method == Method::Master
                && entry.scopes_granted.iter().map(String::as_str).eq(request.scopes.iter())
        };
        let rotation = before.filter(is_same).and_then(|entry| routes.rotate.as_ref()?.of(&entry.token_id));
        if let Some(rotate) = rotation {
            let answer = self.send_master(host, HttpMethod::POST, &rotate, None).await?;
            if answer.status != 404 {
                return self.entry_of(host, Method::Master, &rotate, &answer);
            }
        }
        let scopes: Vec<&str> = request.scopes.iter().collect();
        let body = json!({
            "scopes": scopes,
            "ttl_seconds": TTL_SECS,
            "agent_id": self.agent_id_at(host)?.to_string(),
        });
        let answer = self.send_master(host, HttpMethod::POST, &routes.issue, Some(body.to_string())).await?;
        self.entry_of(host, Method::Master, &routes.issue, &answer)
    }

    /// Whether the provider says that a token is over.
    pub(super) async fn revoke_by_master(
        &self,
        host: &Host,
        routes: &MasterRoutes,
        id: &str,
    ) -> Result<bool, AtpError> {
        let Some(revoke) = routes.revoke.as_ref().and_then(|route| route.of(id)) else {
            return Err(AtpError::NotOffered);
        };
        let answer = self.send_master(host, HttpMethod::DELETE, &revoke, None).await?;
        match answer.status.as_u16() {
            200 | 204 | 404 | 410 => Ok(true),
            _ => Err(refused(&answer)),
        }
    }

    async fn send_master(
        &self,
        host: &Host,
        method: HttpMethod,
        to: &AtpEndpoint,
        body: Option<String>,
    ) -> Result<Answer, AtpError> {
        let master = self.master(host)?;
        let mut headers = vec![("authorization", format!("Bearer {}", *master))];
        if body.is_some() {
            headers.push(("content-type", "application/json".to_owned()));
        }
        let body = body.unwrap_or_default().into_bytes();
        self.send(to.host(), Outgoing { method, path: to.path(), headers, body }).await
    }

    /// Read afresh for each request.
    fn master(&self, host: &Host) -> Result<Zeroizing<String>, AtpError> {
        let Some(file) = self.0.options.masters.get(host) else {
            return Err(AtpError::NoSecret(format!(
                "{host} offers only tokens under a master credential, and none is named for it; see atp.masters"
            )));
        };
        let text = secrets::from_file(file)?;
        let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let plain = !text.trim_ascii().is_empty() && text.iter().all(printable);
        match String::from_utf8(text.to_vec()) {
            Ok(text) if plain => Ok(Zeroizing::new(text)),
            _ => Err(AtpError::NoSecret(format!(
                "{} must hold one master credential of printable ASCII",
                file.display()
            ))),
        }
    }
}
