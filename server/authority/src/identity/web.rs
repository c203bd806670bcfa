//! The library's way to the network: our own, which follows no redirect and speaks in clear with this machine alone.

use core::fmt;
use core::future::Future;
use core::pin::Pin;

use http::{Method, Response};
use openidconnect::{HttpRequest, HttpResponse};

use crate::outbound::{Outbound, Target};

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct WebError(String);

impl fmt::Display for WebError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for WebError {}

/// What sends the library's requests.
pub(super) fn sending(
    outbound: &Outbound,
) -> impl Fn(HttpRequest) -> Pin<Box<dyn Future<Output = Result<HttpResponse, WebError>> + Send>> + use<> {
    let outbound = outbound.clone();
    move |request| {
        let outbound = outbound.clone();
        Box::pin(async move { send(&outbound, request).await })
    }
}

async fn send(outbound: &Outbound, request: HttpRequest) -> Result<HttpResponse, WebError> {
    let (parts, body) = request.into_parts();
    let uri = parts.uri.to_string();
    let target = Target::parse(&uri).map_err(|error| WebError(format!("{uri}: {error}")))?;
    let sent = match parts.method {
        Method::POST => outbound.post(&target, parts.headers, body).await,
        _ => outbound.get(&target).await,
    };
    let answer = sent.map_err(|error| WebError(format!("{}: {error}", target.authority())))?;
    let mut response = Response::new(answer.body.to_vec());
    *response.status_mut() = answer.status;
    Ok(response)
}
