//! A reverse proxy in front of APIs that know nothing of Obol: the agent comes with a single-use token, and the API sees the real
//! credential, which no agent ever holds.
//!
//! # What lives here
//!
//! - [`Api`]: what the file of an API says: where it is, what its credential is put into, and which requests are calls of
//!   which tool.
//! - [`Gateway`]: looks a request up, has its token spent by the [`Gate`](obol_resource::Gate), and sends it on, once.
//! - [`rules`]: writes such a file from a document that describes the API.
//! - [`Options`] → [`Service`] → [`Handle`]: the same on a socket, as every server.
//!
//! # What it promises
//!
//! - What no route matches is refused, and nothing is spent for it.
//! - A token is spent, durably, before a byte goes to the API; and whatever happens then, the request is not sent again.
//! - A request that two readers could take for different ones is refused (`framing`, `target`): one in, one out.
//! - The credential is in no answer, no error and no log; what a caller sends of credentials does not reach the API.
//! - Sizes, waits and numbers are bounded.
//!
//! # What it must not know about
//!
//! Where secrets are kept, which tools there are, how tokens are made.

mod api;
mod blot;
mod credential;
mod framing;
mod gateway;
mod headers;
mod openapi;
mod recipe;
mod route;
mod serve;
mod target;
mod untrailed;
mod upstream;

pub use self::api::{Api, Source, is_name};
pub use self::credential::{MAX_SECRET_BYTES, Origin, UnfitCredential};
pub use self::gateway::{Behind, Gateway};
pub use self::openapi::{Actions, MAX_DOCUMENT_BYTES, RuleWishes, rules};
pub use self::recipe::{recipe, recipes};
pub use self::route::ApiRoute;
pub use self::serve::{Handle, Service};
pub use obol_probe::contract::BindError;
pub use obol_probe::front::Options;
