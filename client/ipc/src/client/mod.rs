//! Blocking clients for all sockets.
//!
//! A client holds one connection and has one request on it at a time. When the daemon has restarted, the next call
//! connects again by itself, and waits some seconds for a daemon that is still starting. What it never does is send a
//! request twice of which a byte was written: a `dequeueToken` whose answer is lost may have taken a token out of the
//! queue, and asking again would take another.

mod agent;
mod as_control;
mod auth;
mod auth_control;
mod caller;
mod control;
mod error;
mod pages;
mod rs_control;

pub use self::agent::Client;
#[cfg(any(feature = "tokio", test))]
pub(crate) use self::agent::{dequeue_params, status_params_for};
pub use self::as_control::AsControlClient;
pub use self::auth::AuthClient;
pub use self::auth_control::AuthControlClient;
pub use self::caller::{BlockingClient, Way};
pub use self::control::ControlClient;
pub use self::error::CallError;
#[cfg(feature = "tokio")]
pub(crate) use self::pages::Pages;
pub use self::rs_control::RsControlClient;

/// Takes the reply of one method out of the protocol's replies.
macro_rules! expect_reply {
    ($reply:expr, $protocol:ident :: $method:ident) => {
        match $reply {
            $protocol::$method(result) => Ok(result),
            _ => Err($crate::client::CallError::mismatched(stringify!($method))),
        }
    };
}
pub(crate) use expect_reply;
