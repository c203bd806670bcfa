//! The agent's SDK: a session, and requests that each carry one single-use token.
//!
//! ```no_run
//! # async fn run() -> Result<(), obol_agent::Error> {
//! let agent = obol_agent::Agent::connect().await?;
//! let request = http::Request::get("https://api.example/v1/query?q=rain").body(()).unwrap();
//! let answer = agent.fetch(request).await?;
//! println!("{}", answer.status());
//! # Ok(())
//! # }
//! ```
//!
//! # What lives here
//!
//! - [`Agent`]: `register`, `authenticate`, `ensure_authenticated`, `fetch`, `sign`, `dequeue_token`, `token_status`,
//!   `session_info`, `request_approval`; [`blocking::Agent`] for programs without a runtime; [`AgentLayer`] for `tower` clients.
//!
//! # What it promises
//!
//! `docs/agent.md` has the full rules.
//!
//! - No token leaves for an origin that the session does not name, and none is sent twice.
//! - A request that was sent and not answered is not sent again, unless that changes nothing at the server, or the
//!   server makes sure of that. The caller is told ([`Code::OutcomeUnknown`]).
//! - A call that needs a human's approval is asked for once, drawn once and sent once; without permission to ask, it is
//!   refused.
//! - Every call ends. Callers that need a session at the same time get the same one.
//! - No error, log or printed type contains any part of a token.
//!
//! # What it must not know about
//!
//! Session keys, identities, databases, policies.

mod agent;
mod approval;
mod approval_request;
mod arguments;
mod asking;
mod authenticator;
pub mod blocking;
mod body;
mod destination;
mod error;
mod fetch;
mod layer;
mod options;
mod sealed;
mod token;
mod transport;

/// Where requests may go, as a session names it or as it is said by hand.
pub use obol_ipc::auth::Route;

pub use self::agent::Agent;
pub use self::approval::Approval;
pub use self::approval_request::{ApprovalRequest, ApprovedCall};
pub use self::arguments::Channel;
pub use self::body::{Body, ResponseBody};
pub use self::destination::read_url;
pub use self::error::{Code, Error};
pub use self::layer::{AgentLayer, AgentService};
pub use self::options::{AgentBuilder, CallOptions, Redirect, Registration};
pub use self::token::{Token, arguments_hash};
/// What the sockets answer.
pub use obol_client::protocol;
