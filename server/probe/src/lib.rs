//! What every server does the same way, however different what it serves.
//!
//! | module | what it is for |
//! |---|---|
//! | [`contract`] | words that every server uses of itself: its addresses, why one is not to be had, how it ended |
//! | [`metrics`] | numbers that every server shows |
//! | [`problem`] | where the errors of all servers are explained |
//! | [`rate`] | how much somebody may ask for in a second |
//! | `hop` | what of a message's headers belongs to one connection |
//! | [`host`] | whether a request on a loopback address was meant for this machine |
//! | `stop` | the word to stop, for a service, its handles and its connections |
//! | `accept` | the loop of every server: how many connections at a time, what when the system gives none, and how they end |
//! | `http` | one HTTP connection, bounded, which ends in good order |
//! | `http2` | the same of HTTP/2, with the feature of that name |
//! | `patience` | a connection that does not wait for ever for a peer that stops reading |
//! | `tunnel` | a WebSocket, once both sides agreed on it |
//! | `health` | `/livez`, `/readyz` and `/metrics` |
//! | `landing` | a port of loopback that a browser brings a human's yes to |
//! | `notify` | what a service manager hears of a server |
//! | `front` | a port for strangers, with TLS or on loopback alone, and one for those who watch it; with the feature `tls` |
//! | `oauth` | a token by client credentials, kept renewed, with the feature of that name |
//! | `outward` | connections to servers of others, with the feature of that name |
//! | `tls` | the cryptography of TLS, with the feature of that name |
//!
//! What serves comes with the feature `serve`.
//!
//! # The contract
//!
//! Every server is `Options → Service → Handle`:
//!
//! ```text
//! let service = Options::new(required)     // plain values; each bound has a default, a unit, a setter
//!     .max_connections(4_096)
//!     .bind(dependencies).await?;          // takes sockets and files, serves nothing yet
//! let handle = service.handle();           // Clone: stop(), reload(settings), addresses(), health()
//! service.run(shutdown).await;             // ready, serve, drain, stopped
//! ```
//!
//! `run` ends when `shutdown` resolves or a handle says stop. It then accepts nothing, gives what is under way a named
//! time, cuts off what is left, says how much that was, and returns. `stop` does not wait: who wants to wait awaits `run`. Dropping a handle does
//! nothing, and neither does keeping one: what was served is freed with the service. An address that is not to be had is a
//! [`BindError`](contract::BindError) of `bind`, which names it. Whoever builds the server builds `Options` and never sets anything on a `Service`.
//!
//! # What it must not know about
//!
//! Nothing else of Obol: no token, no session, no socket of ours.

#[cfg(feature = "serve")]
pub mod accept;
pub mod contract;
#[cfg(feature = "tls")]
pub mod front;
#[cfg(feature = "serve")]
pub mod health;
#[cfg(feature = "serve")]
pub mod hop;
pub mod host;
#[cfg(feature = "serve")]
pub mod http;
#[cfg(feature = "http2")]
pub mod http2;
#[cfg(feature = "serve")]
pub mod landing;
pub mod metrics;
#[cfg(feature = "serve")]
pub mod notify;
#[cfg(feature = "oauth")]
pub mod oauth;
#[cfg(feature = "outward")]
pub mod outward;
#[cfg(feature = "serve")]
pub mod patience;
pub mod problem;
pub mod rate;
#[cfg(feature = "serve")]
pub mod stop;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "serve")]
pub mod tunnel;
