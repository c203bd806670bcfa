//! What an operator sets, with defaults that are right for most.

use core::fmt;
use core::ops::RangeInclusive;
use std::collections::BTreeMap;

use obol_handshake::MAX_ORIGIN_BYTES;
use obol_session::Suite;

use crate::directory::{ASKED_SECS, ClonePolicy};

/// A session's life if not said, and at most, in seconds.
const DEFAULT_SESSION_SECS: u64 = 900;
/// The longest life of a session, in seconds.
const MAX_SESSION_SECS: u64 = 3_600;
/// How long an approval lasts if not said, in seconds: 30 days.
const DEFAULT_APPROVAL_SECS: u64 = 30 * 86_400;
/// How long an approval may last, in seconds: a year.
pub(crate) const MAX_APPROVAL_SECS: u64 = 366 * 86_400;
/// How often one agent may ask for a human's yes to calls within an hour, if not said.
const DEFAULT_CALL_APPROVALS_PER_HOUR: usize = 10;
/// How often that may be at most.
const MAX_CALL_APPROVALS_PER_HOUR: usize = 1_000;
/// How long a request for a human's yes may wait at least, in seconds.
const MIN_CALL_WAIT_SECS: u64 = 5;
/// How far the clocks of agent and service may be apart, in seconds.
pub(crate) const MAX_SKEW_SECS: u64 = 30;
/// How long who hears nothing goes on if not said, in seconds.
const DEFAULT_LEASE_SECS: u64 = 300;
/// How long that may be, in seconds.
pub(crate) const LEASE_SECS_ALLOWED: RangeInclusive<u64> = 30..=900;
/// How long an operator's login from elsewhere lasts if not said, in seconds.
const DEFAULT_LOGIN_SECS: u64 = 3_600;
/// How long that may be, in seconds.
const LOGIN_SECS_ALLOWED: RangeInclusive<u64> = 60..=43_200;
/// The most that `node` can be: 10 bits of a session's number.
const MAX_NODE: u16 = 1_023;

/// The settings of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    pub(crate) origin: String,
    pub(crate) org_id: String,
    pub(crate) suites: Vec<Suite>,
    pub(crate) min_suite: Suite,
    pub(crate) session_secs: u64,
    pub(crate) approval_secs: u64,
    pub(crate) call_approvals_per_hour: usize,
    pub(crate) call_wait_secs: u64,
    pub(crate) lease_secs: u64,
    pub(crate) clones: ClonePolicy,
    pub(crate) node: u16,
    pub(crate) has_pages: bool,
    pub(crate) operator_roles: Vec<String>,
    pub(crate) login_secs: u64,
    /// Whose the humans of an issuer are, by the issuer.
    pub(crate) organisations: BTreeMap<String, String>,
}

/// A setting that cannot be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingsError(String);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for SettingsError {}

fn wrong<T>(why: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError(why.into()))
}

impl Settings {
    /// For a service that clients know as `origin`, such as `https://as.example`, and an organisation.
    ///
    /// # Errors
    ///
    /// Where either cannot be.
    pub fn new(origin: &str, org_id: &str) -> Result<Self, SettingsError> {
        if !is_origin(origin) {
            return wrong(format!(
                "the origin must be https:// or http://, a host, and a port if it is not the usual one, without anything behind \
                 it, in {MAX_ORIGIN_BYTES} bytes; such as https://as.example"
            ));
        }
        if org_id.is_empty() || org_id.len() > 256 || org_id.contains(char::is_control) {
            return wrong("the organisation's name must have 1 to 256 bytes without control characters");
        }
        Ok(Self {
            origin: origin.to_owned(),
            org_id: org_id.to_owned(),
            suites: Suite::ALL.to_vec(),
            min_suite: Suite::Tbac,
            session_secs: DEFAULT_SESSION_SECS,
            approval_secs: DEFAULT_APPROVAL_SECS,
            call_approvals_per_hour: DEFAULT_CALL_APPROVALS_PER_HOUR,
            call_wait_secs: ASKED_SECS,
            lease_secs: DEFAULT_LEASE_SECS,
            clones: ClonePolicy::default(),
            node: 0,
            has_pages: false,
            operator_roles: Vec::new(),
            login_secs: DEFAULT_LOGIN_SECS,
            organisations: BTreeMap::new(),
        })
    }

    /// The suites that are spoken; all of them if not said.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn suites(mut self, suites: &[Suite]) -> Result<Self, SettingsError> {
        if suites.is_empty() {
            return wrong("at least one suite must be spoken");
        }
        self.suites = suites.to_vec();
        Ok(self)
    }

    /// The weakest suite that any agent may use; suite 1 if not said.
    #[must_use]
    pub fn min_suite(mut self, suite: Suite) -> Self {
        self.min_suite = suite;
        self
    }

    /// A session's life, in seconds.
    ///
    /// # Errors
    ///
    /// Where it is 0 or more than an hour.
    pub fn session_secs(mut self, secs: u64) -> Result<Self, SettingsError> {
        if secs == 0 || secs > MAX_SESSION_SECS {
            return wrong(format!("a session lasts 1 to {MAX_SESSION_SECS} seconds"));
        }
        self.session_secs = secs;
        Ok(self)
    }

    /// How long an approval lasts, in seconds.
    ///
    /// # Errors
    ///
    /// Where it is 0 or more than 366 days.
    pub fn approval_secs(mut self, secs: u64) -> Result<Self, SettingsError> {
        if secs == 0 || secs > MAX_APPROVAL_SECS {
            return wrong(format!("an approval lasts 1 to {MAX_APPROVAL_SECS} seconds"));
        }
        self.approval_secs = secs;
        Ok(self)
    }

    /// How often one agent may ask for a human's yes to calls, within an hour.
    ///
    /// # Errors
    ///
    /// Where it is 0 or more than 1,000.
    pub fn call_approvals_per_hour(mut self, count: usize) -> Result<Self, SettingsError> {
        if count == 0 || count > MAX_CALL_APPROVALS_PER_HOUR {
            return wrong(format!("an agent asks 1 to {MAX_CALL_APPROVALS_PER_HOUR} times an hour"));
        }
        self.call_approvals_per_hour = count;
        Ok(self)
    }

    /// How long a request for a human's yes waits, in seconds.
    ///
    /// # Errors
    ///
    /// Where it is less than 5 or more than 300.
    pub fn call_wait_secs(mut self, secs: u64) -> Result<Self, SettingsError> {
        if !(MIN_CALL_WAIT_SECS..=ASKED_SECS).contains(&secs) {
            return wrong(format!(
                "a request for a human's yes waits {MIN_CALL_WAIT_SECS} to {ASKED_SECS} seconds"
            ));
        }
        self.call_wait_secs = secs;
        Ok(self)
    }

    /// How long resource servers and sidecars go on that hear nothing, in seconds.
    ///
    /// # Errors
    ///
    /// Where it is not 30 to 900.
    pub fn lease_secs(mut self, secs: u64) -> Result<Self, SettingsError> {
        let (least, most) = (LEASE_SECS_ALLOWED.start(), LEASE_SECS_ALLOWED.end());
        if !LEASE_SECS_ALLOWED.contains(&secs) {
            return wrong(format!("a lease lasts {least} to {most} seconds"));
        }
        self.lease_secs = secs;
        Ok(self)
    }

    /// What happens to an agent whose key seems to have a copy.
    #[must_use]
    pub fn clones(mut self, clones: ClonePolicy) -> Self {
        self.clones = clones;
        self
    }

    /// Tells services apart that give out numbers of sessions at the same time.
    ///
    /// # Errors
    ///
    /// Where it is more than 1,023.
    pub fn node(mut self, node: u16) -> Result<Self, SettingsError> {
        if node > MAX_NODE {
            return wrong(format!("a node's number is at most {MAX_NODE}"));
        }
        self.node = node;
        Ok(self)
    }

    /// Humans decide in a browser, on the service's own pages.
    #[must_use]
    pub fn with_pages(mut self) -> Self {
        self.has_pages = true;
        self
    }

    /// The roles of which one is needed to operate the service from elsewhere; if none is said, nobody does.
    #[must_use]
    pub fn operator_roles(mut self, roles: Vec<String>) -> Self {
        self.operator_roles = roles;
        self
    }

    /// The humans whom this issuer knows are of this organisation. Once there is another than the service's own, those of an issuer that is
    /// not named are of none: name the service's own as well.
    ///
    /// # Errors
    ///
    /// Where it cannot be an organisation's name, or reads as an issuer's.
    pub fn organisation(mut self, issuer: &str, name: &str) -> Result<Self, SettingsError> {
        if name.is_empty() || name.len() > 256 || name.contains(char::is_control) || name.contains("://") {
            return wrong(
                "an organisation's name has 1 to 256 bytes without control characters, and is no address",
            );
        }
        self.organisations.insert(issuer.to_owned(), name.to_owned());
        Ok(self)
    }

    /// How long an operator's login from elsewhere lasts, in seconds.
    ///
    /// # Errors
    ///
    /// Where it is not 60 to 43,200.
    pub fn login_secs(mut self, secs: u64) -> Result<Self, SettingsError> {
        let (least, most) = (LOGIN_SECS_ALLOWED.start(), LOGIN_SECS_ALLOWED.end());
        if !LOGIN_SECS_ALLOWED.contains(&secs) {
            return wrong(format!("an operator's login lasts {least} to {most} seconds"));
        }
        self.login_secs = secs;
        Ok(self)
    }

    /// A session's life, in seconds.
    pub fn session_life_secs(&self) -> u64 {
        self.session_secs
    }

    /// How long an approval lasts if not said, in seconds.
    pub fn approval_life_secs(&self) -> u64 {
        self.approval_secs
    }

    /// The service's own organisation.
    pub fn own_organisation(&self) -> &str {
        &self.org_id
    }

    /// What clients know the service as.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

/// Scheme, host and perhaps a port: nothing that two clients could write in two ways.
fn is_origin(origin: &str) -> bool {
    let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let host = |rest: &str| {
        !rest.is_empty()
            && rest
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b':' | b'[' | b']'))
    };
    origin.len() <= MAX_ORIGIN_BYTES && rest.is_some_and(host)
}

/// How much a suite protects, for comparing: suites of one strength differ in speed alone.
pub(crate) fn strength(suite: Suite) -> u8 {
    match suite {
        Suite::Tbac => 0,
        Suite::AesGcm | Suite::ChaCha20Poly1305 => 1,
        Suite::HybridAesGcm => 2,
    }
}

/// Suites as a client tries them if nothing else is said.
pub(crate) const PREFERENCE: [Suite; 4] =
    [Suite::HybridAesGcm, Suite::AesGcm, Suite::ChaCha20Poly1305, Suite::Tbac];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_form() {
        for good in ["https://as.example", "http://127.0.0.1:8720", "https://[::1]:8720"] {
            assert!(Settings::new(good, "org").is_ok(), "{good}");
        }
        for bad in [
            "",
            "https://",
            "as.example",
            "https://as.example/",
            "https://AS.example",
            "ftp://x",
            "https://a b",
        ] {
            assert!(Settings::new(bad, "org").is_err(), "{bad}");
        }
        assert!(Settings::new("https://a", "").is_err() && Settings::new("https://a", "a\nb").is_err());
    }

    #[test]
    fn bounds_are_refused_with_the_bound() {
        let settings = || Settings::new("https://a", "org").unwrap();
        assert!(settings().session_secs(3_601).unwrap_err().to_string().contains("3600"));
        assert!(settings().approval_secs(0).is_err() && settings().node(1_024).is_err());
        assert!(settings().suites(&[]).is_err());
    }

    #[test]
    fn preference_goes_down_in_strength() {
        let strengths: Vec<_> = PREFERENCE.into_iter().map(strength).collect();
        assert!(strengths.is_sorted_by(|one, next| one >= next), "{strengths:?}");
    }
}
