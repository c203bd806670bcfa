//! The resource server's side over HTTP: single-use tokens in front of an API.
//!
//! # What lives here
//!
//! - [`Gate`]: verifies and spends one token; everything else here is built on it. Without the feature `http` it is
//!   all there is, for servers of other protocols.
//! - `TbacLayer`: a `tower` layer in front of a route. It lets a request through only with a token for what the
//!   route does, and leaves a [`SpentToken`] for the handler to take. If the JSON body is the call's arguments,
//!   it also checks proofs of possession, opens sealed requests and seals their responses.
//! - `Receipts`: a layer below that one. A call that its caller named is carried out once, however often it is sent.
//! - `provision`, with the feature of that name: gets sessions from an Authentication Service that it follows.
//! - `service`: the same as a service, for APIs in other languages and for reverse proxies.
//!
//! # What it promises
//!
//! - A request reaches the handler only after its token was spent, and every token lets through at most one request.
//! - A refusal gives its reason in stable names ([`obol_verify::Code`]) and nothing else; the exact reason is in the log.
//!   No token and no key is ever logged or sent back.
//! - With an audit log ([`Gate::audited`]) every accepted token is in it, and a flood of forged tokens does not fill
//!   the disk.
//! - A handler that asks for a [`SpentToken`] on a route without the layer answers 500, never 200.
//! - A stranger causes no expensive work: a token is checked before a body is parsed, and, if the token comes in a header,
//!   before the body is read at all.
//! - Everything that arrives is bounded: headers, bodies, connections, concurrent requests, and the time each may take.
//!
//! # What it must not know about
//!
//! Which tools exist and what they do; how tokens are made.

#[cfg(feature = "http")]
mod arguments;
mod audit;
#[cfg(feature = "http")]
mod bodies;
mod call;
#[cfg(feature = "http")]
mod credentials;
pub mod fold;
mod gate;
#[cfg(feature = "http")]
mod layer;
mod metrics;
#[cfg(feature = "provision")]
pub mod provision;
#[cfg(feature = "http")]
mod receipts;
#[cfg(feature = "http")]
mod refusal;
#[cfg(feature = "http")]
mod request_id;
mod sealed;
#[cfg(feature = "http")]
mod sealing;
#[cfg(feature = "http")]
pub mod service;
mod spent_token;
pub mod template;

pub use call::ToolCall;
pub use gate::{Gate, OpenedToken};
#[cfg(feature = "http")]
pub use layer::{TbacLayer, TbacService};
#[cfg(feature = "http")]
pub use receipts::{ReceiptLayer, ReceiptService, Receipts};
#[cfg(feature = "http")]
pub use refusal::{ServiceProblem, http_status, malformed, unavailable};
pub use sealed::{EncField, MAX_SEALED_BYTES, PopField, PopProof, SealedMessage};
#[cfg(feature = "http")]
pub use sealing::{SEALED_CONTENT_TYPE, SEALED_TYPE_HEADER};
pub use spent_token::{ResponseSealError, SpentToken};
