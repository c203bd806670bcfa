//! Humans log in with an identity provider: OpenID Connect, the authorization code flow with PKCE.
//!
//! Discovery, keys, the exchange of the code and the verification of the ID token are `openidconnect`'s. Ours is what it leaves to its
//! caller:
//! - the callback's `iss` (RFC 9207), which it never sees, against the mix-up of two providers;
//! - `auth_time`, of which it takes any by default, also none;
//! - `azp`, which it does not look at;
//! - which algorithms may sign: none that a client's secret or nobody at all could make, whatever the provider announces;
//! - keys that the provider has replaced: a token under a key that is not known has them fetched again, now and then.
//!
//! The crate `rsa` that comes with it verifies here and holds no private key, so the timing of its private operations concerns nobody.
//!
//! It must not know: cookies, pages, what a human may do.

mod ciba;
mod claims;
mod file;
mod login;
mod provider;
mod providers;
mod settings;
mod web;

pub(crate) use self::ciba::{Question, Word};
pub use self::file::{FileProvider, ProvidersFile};
pub use self::login::{Callback, Known, Login, LoginError};
pub use self::provider::Provider;
pub use self::providers::Providers;
pub use self::settings::{ProviderError, ProviderSettings};
