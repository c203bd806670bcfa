//! Why the server at the other end is not fit to keep marks or sessions.

use core::fmt;

use redis::Value;

/// The longest text of an error that is passed on, in characters.
const MAX_ERROR_CHARS: usize = 200;

/// Why the server at the other end is not fit for the marks.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unfit {
    /// It does not answer, answers with an error, or with something that makes no sense.
    Unreachable(String),
    /// It is older than 6.2.
    Version(String),
    /// It is part of a cluster.
    Cluster,
    /// It is a replica.
    NotMaster(String),
    /// It is still reading its file.
    Loading,
    /// It may evict marks.
    Eviction(String),
    /// It does not say whether it may evict marks.
    EvictionUnknown,
    /// It does not say who it is (`INFO`).
    Silent(&'static str),
    /// Its clock and this machine's are too far apart, in seconds.
    Clock(u64),
    /// Its clock leapt, so marks may have been taken out before their time.
    Leapt,
    /// What it holds was held before: somebody put it back.
    PlayedBack,
    /// Somebody shares the set with another clock skew, in seconds.
    Skew(String),
    /// The record is of another format.
    Format(String),
    /// Fewer replicas than asked for have the marks.
    Replicas(i64),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "it cannot be used: {why}"),
            Self::Version(found) => write!(f, "it is version {found}; 6.2 or later is needed"),
            Self::Cluster => f.write_str("it is part of a cluster; use one master, with replicas if you like"),
            Self::NotMaster(role) => write!(f, "its role is {role}; name the master"),
            Self::Loading => f.write_str("it is still loading its data"),
            Self::Eviction(policy) => write!(
                f,
                "its maxmemory-policy is {policy}, which drops spent marks when memory runs short; run CONFIG SET \
                 maxmemory-policy noeviction and put it into its configuration"
            ),
            Self::EvictionUnknown => f.write_str(
                "it does not say what its maxmemory-policy is; make sure that it is noeviction and then say so \
                 (assume_noeviction)",
            ),
            Self::Silent(what) => {
                write!(f, "INFO does not give {what}; the user needs the right to call INFO, also in scripts")
            }
            Self::Clock(seconds) => write!(
                f,
                "its clock and this machine's are {seconds} s apart; let both follow a time service"
            ),
            Self::Leapt => f.write_str("its clock leapt; tokens issued so far will be refused"),
            Self::PlayedBack => f.write_str(
                "somebody has put back what it held before, or changed it; every session is over. Find out who can write to it",
            ),
            Self::Skew(theirs) => write!(
                f,
                "another server shares this namespace with a clock skew of {theirs} s; use one figure on all of them"
            ),
            Self::Format(found) => write!(f, "its marks have format {found}, which this build does not read"),
            Self::Replicas(found) => write!(f, "only {found} of its replicas have the marks in time"),
        }
    }
}

impl core::error::Error for Unfit {}

/// By the `maxmemory-policy` that the server names; empty where it names none.
pub(crate) fn unfit_policy(policy: &str) -> Unfit {
    if policy.is_empty() { Unfit::EvictionUnknown } else { Unfit::Eviction(shortened(policy)) }
}

/// A reply that none of our commands gives.
pub(crate) fn nonsense(value: Option<&Value>) -> Unfit {
    match value {
        Some(Value::ServerError(error)) => {
            Unfit::Unreachable(shortened(&format!("{} {}", error.code(), error.details().unwrap_or(""))))
        }
        _ => Unfit::Unreachable("its reply makes no sense".to_owned()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn unreachable(error: redis::RedisError) -> Unfit {
    Unfit::Unreachable(shortened(&error.to_string()))
}

/// What a server says, fit to be repeated.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(MAX_ERROR_CHARS).collect()
}
