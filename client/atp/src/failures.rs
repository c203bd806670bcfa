//! The last failure with each host, kept in the agent's folder, so that another process, or this one started again, can say how it
//! stands. It is told of and never acted on: what a process waits for, and whether it tries again, it remembers itself.

use std::collections::BTreeMap;

use obol_atp::Host;
use obol_secret::file::PrivateFile;
use serde::{Deserialize, Serialize};

use crate::date::now_ms;
use crate::error::AtpError;
use crate::state::State;

const FAILURES: &str = "failures.json";
const MAX_FILE_BYTES: usize = 1 << 20;
/// The longest reason that is kept, in bytes.
const MAX_WHY_BYTES: usize = 200;

/// Failures in a row with one host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failure {
    pub(crate) count: u32,
    /// Why, the last time: the provider's code, or what is wrong here.
    pub(crate) why: String,
    /// When, in Unix milliseconds.
    pub(crate) at: u64,
    /// Whether it is not tried any more, as long as the kept token is the one that ends then.
    pub(crate) ended: bool,
    pub(crate) token_ends: Option<u64>,
}

/// A reason as it is told: no message of an error holds a secret or a token.
pub(crate) fn why(error: &AtpError) -> String {
    let mut text = match error.cause() {
        AtpError::Refused { code, .. } => code.clone(),
        other => other.to_string(),
    };
    let end = (0..=MAX_WHY_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

impl State {
    /// By host. What cannot be read is none: it is for telling only.
    pub(crate) fn failures(&self) -> BTreeMap<String, Failure> {
        let text = PrivateFile::read(self.path(FAILURES), MAX_FILE_BYTES).ok();
        text.and_then(|text| obol_secret::json::parse(&text).ok()).unwrap_or_default()
    }

    /// One more failure, of a host that is kept fresh or has tokens to be revoked. `ended`: it is not tried any more, and when the
    /// kept token ends.
    pub(crate) fn note_failure(&self, host: &Host, why: &str, ended: Option<Option<u64>>) {
        // Of as many hosts as are looked after, and nothing is written for any other.
        if !self.hosts().is_ok_and(|hosts| hosts.has(&host.to_string())) {
            return;
        }
        self.change_failures(|failures| {
            let count = failures.get(&host.to_string()).map_or(0, |before| before.count);
            // An end is of a failure that was noted already.
            let count = if ended.is_some() { count.max(1) } else { count.saturating_add(1) };
            let (ended, token_ends) = (ended.is_some(), ended.flatten());
            let failure = Failure { count, why: why.to_owned(), at: now_ms(), ended, token_ends };
            failures.insert(host.to_string(), failure);
        });
    }

    /// It is well again.
    pub(crate) fn forget_failure(&self, host: &Host) {
        if self.failures().contains_key(&host.to_string()) {
            self.change_failures(|failures| drop(failures.remove(&host.to_string())));
        }
    }

    /// What cannot be kept is not told, and stops nothing.
    fn change_failures(&self, change: impl FnOnce(&mut BTreeMap<String, Failure>)) {
        let written = || {
            let _between_processes = self.lock(FAILURES)?;
            let mut failures = self.failures();
            change(&mut failures);
            let hosts = self.hosts()?;
            failures.retain(|host, _| hosts.has(host));
            let text = serde_json::to_vec(&failures).map_err(|error| AtpError::System(error.to_string()))?;
            self.replace(FAILURES, &text)
        };
        if let Err(error) = written() {
            tracing::warn!(%error, "a failure could not be kept for `obol atp status`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_bounded_whatever_it_says() {
        assert_eq!(
            why(&AtpError::Unavailable("no route".to_owned())),
            "the provider cannot be reached: no route"
        );
        let long = why(&AtpError::System("é".repeat(1_000)));
        assert!((MAX_WHY_BYTES - 1..=MAX_WHY_BYTES).contains(&long.len()), "{}", long.len());
    }

    #[test]
    fn failures_are_kept_of_hosts_that_are_looked_after_until_it_is_well_again() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state")).unwrap();
        let [known, unknown]: [Host; 2] = ["a.example", "b.example"].map(|host| host.parse().unwrap());
        state
            .change_hosts(|hosts| {
                hosts.revocations.insert(known.to_string());
            })
            .unwrap();
        for host in [&known, &unknown, &known] {
            state.note_failure(host, "unavailable", None);
        }
        let failures = state.failures();
        assert_eq!(failures.keys().collect::<Vec<_>>(), ["a.example"], "nothing of any other host");
        assert_eq!(failures["a.example"].count, 2);
        std::fs::write(state.path(FAILURES), "{").unwrap();
        assert!(state.failures().is_empty(), "what is damaged tells nothing, and stops nothing");
        state.note_failure(&known, "invalid_signature", Some(Some(7)));
        let failure = state.failures().remove("a.example").unwrap();
        assert_eq!((failure.count, failure.ended, failure.token_ends), (1, true, Some(7)));
        state.forget_failure(&known);
        assert!(state.failures().is_empty());
    }
}
