//! The server that is reached over HTTP: its address, and connections that are kept. Each request is sent once; no proxy is used
//! and no redirect followed.

use core::fmt;
use core::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use obol_probe::host::names_loopback;
use obol_probe::outward::{Bounds, Connector, Unanswered, client, tcp, tls};
use obol_probe::tls::system_roots;
use rustls::RootCertStore;
use tokio::time::timeout;

/// How long the head of an answer may take: a tool may work for a while before it says anything.
const ANSWER_WAIT: Duration = Duration::from_secs(600);
const BOUNDS: Bounds = Bounds {
    // Most servers of Node and Python close a connection after five seconds.
    idle_timeout: Duration::from_secs(4),
    max_idle: 64,
    max_head_bytes: 64 << 10,
};

/// The endpoint of one server.
pub struct Remote {
    url: Uri,
    client: Client<Connector, Full<Bytes>>,
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
    /// What is wrong with the URL, in words, or that the system trusts nobody who could say that it is the server.
    pub fn new(url: &str, plain: bool) -> Result<Self, String> {
        let wrong = |why: &str| format!("{url} is no address of an MCP server: {why}");
        let url: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let authority = url.authority().ok_or_else(|| wrong("it has to begin with http:// or https://"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it must not hold a login"));
        }
        let is_https = match url.scheme().map(Scheme::as_str) {
            Some("https") => true,
            Some("http") if plain || names_loopback(authority.host()) => false,
            Some("http") => {
                return Err(wrong(
                    "other machines are reached without TLS only with --plain, and tokens cross the network in the clear then",
                ));
            }
            _ => return Err(wrong("it has to begin with http:// or https://")),
        };
        let roots = if is_https { system_roots()? } else { RootCertStore::empty() };
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls(roots)?).https_or_http().enable_http1();
        let client = client(connector.wrap_connector(tcp()), BOUNDS);
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
            Ok(answer) => answer.map_err(Unanswered::from),
            Err(_) => Err(Unanswered::Sent(format!("not within {} s", ANSWER_WAIT.as_secs()))),
        }
    }
}

/// Why there is no answer, for whoever asked.
pub(crate) fn told(unanswered: &Unanswered) -> String {
    match unanswered {
        Unanswered::NotSent(why) => format!("the server cannot be reached: {why}"),
        Unanswered::Sent(why) => {
            format!("the server did not answer, and what it was asked may have happened: {why}")
        }
    }
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
