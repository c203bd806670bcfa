//! The server that is reached over HTTP: its address, and connections that are kept. Each request is sent once; no proxy is used
//! and no redirect followed.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

/// How long connecting may take.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long the head of an answer may take: a tool may work for a while before it says anything.
const ANSWER_WAIT: Duration = Duration::from_secs(600);
/// How long a connection is kept for its next request: less than the 5 s after which most servers of Node and Python close it.
const KEPT: Duration = Duration::from_secs(4);
/// The most connections that are kept.
const MAX_KEPT: usize = 64;
/// The longest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unanswered {
    /// Not a byte of the request went out.
    NotSent(String),
    /// Some of it did, or all: it may have been heard.
    Sent(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "the server cannot be reached: {why}"),
            Self::Sent(why) => {
                write!(f, "the server did not answer, and what it was asked may have happened: {why}")
            }
        }
    }
}

/// The endpoint of one server.
pub struct Remote {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.url)
    }
}

impl Remote {
    /// At this URL. Reads the system's certificate authorities if it is one of `https`. Without TLS it has to be on this machine, unless
    /// `plain`.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL, in words.
    pub fn new(url: &str, plain: bool) -> Result<Self, String> {
        let wrong = |why: &str| format!("{url} is no address of an MCP server: {why}");
        let url: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let authority = url.authority().ok_or_else(|| wrong("it has to begin with http:// or https://"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it must not hold a login"));
        }
        let is_https = match url.scheme().map(Scheme::as_str) {
            Some("https") => true,
            Some("http") if plain || is_loopback(authority.host()) => false,
            Some("http") => {
                return Err(wrong(
                    "other machines are reached without TLS only with --plain, and tokens cross the network in the clear then",
                ));
            }
            _ => return Err(wrong("it has to begin with http:// or https://")),
        };
        let mut roots = RootCertStore::empty();
        if is_https {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(obol_probe::tls::provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_WAIT));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(KEPT)
            .pool_max_idle_per_host(MAX_KEPT)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .retry_canceled_requests(false)
            .build(connector.wrap_connector(tcp));
        Ok(Self { url, client })
    }

    /// The path of the endpoint.
    pub fn path(&self) -> &str {
        self.url.path()
    }

    /// The host, which may be a name, and the port.
    pub fn host_and_port(&self) -> (&str, u16) {
        let usual = if self.url.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        (self.url.host().unwrap_or_default(), self.url.port_u16().unwrap_or(usual))
    }

    /// Sends a request, once, and gives the head of its answer.
    ///
    /// # Errors
    ///
    /// [`Unanswered`] says whether anything of it went out.
    pub async fn send(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Unanswered> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers;
        match timeout(ANSWER_WAIT, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|error| unanswered(&error)),
            Err(_) => Err(Unanswered::Sent(format!("not within {} s", ANSWER_WAIT.as_secs()))),
        }
    }
}

/// hyper calls a request cancelled only while none of it was written.
fn unanswered(error: &ClientError) -> Unanswered {
    let cause = core::error::Error::source(error).and_then(|cause| cause.downcast_ref::<hyper::Error>());
    let was_not_sent = error.is_connect() || cause.is_some_and(hyper::Error::is_canceled);
    // The innermost reason; what is around it says less.
    let mut innermost: &dyn core::error::Error = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    let why = innermost.to_string();
    if was_not_sent { Unanswered::NotSent(why) } else { Unanswered::Sent(why) }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_only_this_machine_is_reached() {
        for url in ["http://127.0.0.1:9000/mcp", "http://localhost/mcp", "http://[::1]:9/mcp?a=b"] {
            assert!(Remote::new(url, false).is_ok(), "{url}");
        }
        for url in ["http://tools.example/mcp", "http://10.0.0.1/mcp", "http://localhost.evil.example/"] {
            assert!(Remote::new(url, false).unwrap_err().contains("--plain"), "{url}");
            assert!(Remote::new(url, true).is_ok(), "{url}");
        }
        for url in
            ["", "/mcp", "ftp://localhost/", "http://me:secret@localhost/", "localhost:90", "http:///x"]
        {
            assert!(Remote::new(url, true).is_err(), "{url}");
        }
        assert_eq!(Remote::new("https://a.example/mcp", false).unwrap().host_and_port(), ("a.example", 443));
    }
}
