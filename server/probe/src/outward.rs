//! Connections to servers of others, for what goes on from here: kept alive, encrypted or to this machine, and each request sent once.
//!
//! No proxy is used, no redirect followed and nothing repeated: a token was spent for one request.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use hyper::body::Body;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connector for plain and encrypted connections.
pub type Connector = HttpsConnector<HttpConnector>;

/// What a client keeps and reads at the most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long a connection is kept for its next request. Less than most servers keep theirs, so that few requests meet one that is
    /// about to close.
    pub idle_timeout: Duration,
    /// The most connections that are kept.
    pub max_idle: usize,
    /// The longest head of an answer, in bytes.
    pub max_head_bytes: usize,
}

/// Why no answer came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unanswered {
    /// Not a byte of the request went out.
    NotSent(String),
    /// Some of it went out, or all: it may have been heard.
    Sent(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) | Self::Sent(why) => f.write_str(why),
        }
    }
}

impl From<ClientError> for Unanswered {
    /// hyper calls a request cancelled only while none of it was written.
    fn from(error: ClientError) -> Self {
        let cause = core::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<hyper::Error>());
        let was_not_sent = error.is_connect() || cause.is_some_and(hyper::Error::is_canceled);
        // The innermost reason; what is around it says less. None of them knows the request.
        let mut innermost: &dyn core::error::Error = &error;
        while let Some(inner) = innermost.source() {
            innermost = inner;
        }
        let why = innermost.to_string();
        if was_not_sent { Self::NotSent(why) } else { Self::Sent(why) }
    }
}

/// TLS that trusts these authorities.
///
/// # Errors
///
/// What the library says of its own defaults, in words.
pub fn tls(roots: RootCertStore) -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(crate::tls::provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Plain connections, below TLS where there is some.
pub fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp
}

/// A client that sends each request once.
pub fn client<B>(connector: Connector, bounds: Bounds) -> Client<Connector, B>
where
    B: Body + Send,
    B::Data: Send,
{
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(bounds.idle_timeout)
        .pool_max_idle_per_host(bounds.max_idle)
        .http1_max_buf_size(bounds.max_head_bytes)
        .retry_canceled_requests(false)
        .build(connector)
}
