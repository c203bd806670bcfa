//! Signed words of others that stand in for a human when an agent registers: tokens of workloads (Kubernetes, GitHub Actions, or
//! whoever else issues JWTs), and grants of an identity provider for a human's agent (ID-JAG).
//!
//! | part | what it is |
//! |---|---|
//! | [`AttestorSettings`] | who is taken at their word, of which agents, from a file |
//! | `assertion` | what such a word says, checked as RFC 7523 asks; no I/O |
//! | [`Attestors`] | those who are taken at their word while the service runs, and their keys |
//!
//! A word comes inside the third message of a registration, so nobody on the way reads it, and the key that it registers is proven
//! with it. It registers one agent: the directory spends its `jti` together with what it brings about.
//!
//! Nobody is taken at their word of more than a rule says: the values of claims, exactly; the agent's class and name; the roles it
//! gets and who answers for it. Policy is asked as well, as if that human had said yes (`context.flow == "attested"`).
//!
//! It must not know: handshakes, the directory's tables.

mod assertion;
mod live;
mod settings;

pub use self::live::{AttestorStatus, Attestors};
pub use self::settings::{AttestorSettings, AttestorSettingsError};
