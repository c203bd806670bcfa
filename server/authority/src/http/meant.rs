//! Whom a request to a loopback address was meant for: this machine, or the name that the service has for others, under which a proxy
//! in front passes it on. A web page whose own name leads to this machine (DNS rebinding) asks for something else.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use http::header::{HOST, ORIGIN};
use obol_probe::host::names_loopback;

use super::code::ProblemCode;
use super::counters::Counters;
use super::problem::Problem;

/// Routes that answer no request that was meant for somebody else.
pub(super) fn for_us(routes: axum::Router, origin: &str, counters: Arc<Counters>) -> axum::Router {
    let origin: Arc<str> = origin.into();
    routes.layer(from_fn(move |request: Request, next: Next| {
        let (origin, counters) = (Arc::clone(&origin), Arc::clone(&counters));
        async move {
            if is_for_us(&request, &origin) {
                return next.run(request).await;
            }
            let why = "not meant for this machine: Host and Origin name another";
            let problem = Problem::new(ProblemCode::ForeignHost, why);
            counters.answered(problem.code());
            Response::into_response(problem.into_response())
        }
    }))
}

/// Pages look at `Origin` themselves, and answer in their own way.
fn is_for_us(request: &Request, origin: &str) -> bool {
    let text = |value: &'_ http::HeaderValue| value.to_str().ok().map(str::to_owned);
    let headers = request.headers();
    let asked = request.uri().authority().map(|authority| Some(authority.as_str().to_owned()));
    let mut hosts = headers.get_all(HOST).iter().map(text).chain(asked);
    let names_us = |host: &str| names_loopback(host) || is_ours(host, origin);
    if !hosts.all(|host| host.is_some_and(|host| names_us(&host))) {
        return false;
    }
    let path = request.uri().path();
    let is_page = !path.starts_with("/v1/") && !path.starts_with("/.well-known/");
    let is_own =
        |from: String| from == origin || from.split_once("://").is_some_and(|(_, host)| names_us(host));
    is_page || headers.get_all(ORIGIN).iter().map(text).all(|from| from.is_some_and(is_own))
}

/// Whether this is the host of the service's origin, with the port that its scheme has or without.
fn is_ours(host: &str, origin: &str) -> bool {
    let Some((scheme, own)) = origin.split_once("://") else { return false };
    let port = if scheme == "https" { ":443" } else { ":80" };
    let plain = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    plain(host) == plain(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = http::Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        is_for_us(&request.body(axum::body::Body::empty()).unwrap(), "https://as.example")
    }

    #[test]
    fn only_this_machine_and_the_services_own_name_are_meant() {
        for host in ["localhost", "127.0.0.1:8720", "[::1]:1", "as.example", "AS.example:443"] {
            assert!(asked("/v1/handshake", &[("host", host)]), "{host}");
            let origin = format!("https://{host}");
            assert!(asked("/v1/handshake", &[("host", host), ("origin", &origin)]), "{host}");
            assert!(
                asked("/console", &[("host", host), ("origin", "https://evil.example")]),
                "a page's own to say"
            );
            assert!(!asked("/v1/handshake", &[("host", host), ("origin", "https://evil.example")]), "{host}");
            assert!(!asked("/v1/handshake", &[("host", host), ("origin", "null")]), "{host}");
            assert!(!asked("/console", &[("host", host), ("host", "evil.example")]), "{host}");
        }
        for host in
            ["evil.example", "as.example.evil.example", "as.example:8443", "", "10.0.0.1", "xas.example"]
        {
            assert!(!asked("/console", &[("host", host)]), "{host}");
        }
        assert!(asked("/v1/handshake", &[]), "HTTP/1.0");
        assert!(!asked("http://evil.example/v1/handshake", &[]));
    }
}
