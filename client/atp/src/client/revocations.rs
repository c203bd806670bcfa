//! Tokens that were given back here and whose providers could not be told yet. They lie in sealed files, whatever the keychain is,
//! until the provider has answered or the token has ended.

use std::collections::VecDeque;

use obol_atp::Host;

use super::{Client, now_ms};
use crate::entry::{Entry, Method};
use crate::error::AtpError;

/// The account of a host's tombstones, before its name.
const TOMBSTONES: &str = "__atp_revoke__:";
/// The most tombstones of one host; what ends first makes room.
const MAX_TOMBSTONES: usize = 64;
/// The most that are sent in one go: each counts at the provider like a request for a token.
const MAX_AT_ONCE: usize = 5;

impl Client {
    /// Leaves a tombstone. The caller holds the host's lock.
    pub(super) fn bequeath(&self, host: &Host, entry: Entry) -> Result<(), AtpError> {
        let mut left = self.tombstones(host)?;
        left.push(entry);
        left.sort_by_key(|entry| core::cmp::Reverse(entry.expires_at));
        if left.len() > MAX_TOMBSTONES {
            tracing::warn!(%host, "so many tokens could not be revoked that the one that ends first is left to end");
            left.truncate(MAX_TOMBSTONES);
        }
        self.set_tombstones(host, &left)
    }

    /// Revokes what could not be revoked before, so many in one go; whether nothing is left. The caller holds the host's lock.
    pub(crate) async fn bury(&self, host: &Host) -> Result<bool, AtpError> {
        let before = self.tombstones(host)?;
        if before.is_empty() {
            return Ok(true);
        }
        let mut round = Round::of(before, now_ms());
        while let Some(entry) = round.next() {
            let answer = self.send_revocation(host, &entry).await;
            round.answered(entry, answer);
        }
        let left = round.left();
        self.set_tombstones(host, &left)?;
        Ok(left.is_empty())
    }

    pub(super) async fn send_revocation(&self, host: &Host, entry: &Entry) -> Result<bool, AtpError> {
        let found = self.discover(host).await?;
        match entry.method {
            Method::Signed => {
                let endpoints = found.signed.ok_or(AtpError::NotOffered)?;
                self.revoke_signed(host, &endpoints, &entry.access_token).await
            }
            Method::Master => {
                let routes = found.master.ok_or(AtpError::NotOffered)?;
                self.revoke_by_master(host, &routes, &entry.token_id).await
            }
        }
    }

    fn tombstones(&self, host: &Host) -> Result<Vec<Entry>, AtpError> {
        let account = format!("{TOMBSTONES}{host}");
        let Some(bytes) = self.0.keychain.files().get(&account)? else { return Ok(Vec::new()) };
        serde_json::from_slice(&bytes)
            .map_err(|_| AtpError::Keychain(format!("the list of tokens of {host} to be revoked is damaged")))
    }

    fn set_tombstones(&self, host: &Host, left: &[Entry]) -> Result<(), AtpError> {
        let account = format!("{TOMBSTONES}{host}");
        // First where they are, then that there are some: what is listed and not there does no harm.
        if left.is_empty() {
            self.0.keychain.files().delete(&account)?;
        } else {
            let bytes = serde_json::to_vec(left).map_err(|error| AtpError::System(error.to_string()))?;
            self.0.keychain.files().set(&account, &zeroize::Zeroizing::new(bytes))?;
        }
        self.0.state.change_hosts(|hosts| {
            if left.is_empty() {
                hosts.revocations.remove(&host.to_string());
            } else {
                hosts.revocations.insert(host.to_string());
            }
        })
    }
}

/// One go at what is to be revoked: so many, as long as the provider answers. What it refuses comes last the next time, and holds none
/// of the others up; what has ended by itself is nobody's any more.
struct Round {
    waiting: VecDeque<Entry>,
    unanswered: Vec<Entry>,
    refused: Vec<Entry>,
    sent: usize,
}

impl Round {
    fn of(before: Vec<Entry>, now: u64) -> Self {
        let waiting = before.into_iter().filter(|entry| now <= entry.expires_at).collect();
        Self { waiting, unanswered: Vec::new(), refused: Vec::new(), sent: 0 }
    }

    fn next(&mut self) -> Option<Entry> {
        if self.sent == MAX_AT_ONCE || !self.unanswered.is_empty() {
            return None;
        }
        self.sent += 1;
        self.waiting.pop_front()
    }

    /// Whether it was revoked, or why nobody knows.
    fn answered(&mut self, entry: Entry, answer: Result<bool, AtpError>) {
        match answer {
            Ok(true) => {}
            Ok(false) => self.refused.push(entry),
            Err(error @ AtpError::Refused { .. }) if !error.is_passing() => self.refused.push(entry),
            Err(_) => self.unanswered.push(entry),
        }
    }

    fn left(self) -> Vec<Entry> {
        self.unanswered.into_iter().chain(self.waiting).chain(self.refused).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens that end at 10.
    fn entries(count: u64) -> Vec<Entry> {
        let entry = |number| Entry { expires_at: 10, ..crate::entry::tests::entry(number, 1_000) };
        (0..count).map(entry).collect()
    }

    fn names(entries: &[Entry]) -> Vec<String> {
        entries.iter().map(|entry| entry.access_token.to_string()).collect()
    }

    /// What is left after a go at this time, and how many were sent.
    fn gone(
        before: Vec<Entry>,
        now: u64,
        answer: impl Fn(&str) -> Result<bool, AtpError>,
    ) -> (Vec<Entry>, usize) {
        let (mut round, mut sent) = (Round::of(before, now), 0);
        while let Some(entry) = round.next() {
            sent += 1;
            let said = answer(&entry.access_token);
            round.answered(entry, said);
        }
        (round.left(), sent)
    }

    #[test]
    fn a_revocation_that_is_refused_holds_no_other_up() {
        let forbidden = || AtpError::Refused { status: 403, code: "forbidden".to_owned(), retry_after: None };
        for refuses in [|| Ok(false), || Err(())] {
            let all = names(&entries(7));
            let answer = |name: &str| match name == all[0] {
                true => refuses().map_err(|()| forbidden()),
                false => Ok(true),
            };
            let (left, sent) = gone(entries(7), 5, answer);
            assert_eq!(names(&left), [&all[5..], &all[..1]].concat(), "the refused one comes last");
            assert_eq!(sent, MAX_AT_ONCE, "so many in one go");
            let (left, _) = gone(left, 5, answer);
            assert_eq!(names(&left), all[..1]);
            assert!(gone(left, 11, answer).0.is_empty(), "it has ended by itself");
        }
    }

    #[test]
    fn nothing_more_is_sent_to_a_provider_that_cannot_answer() {
        let (left, sent) = gone(entries(3), 5, |_| Err(AtpError::Unavailable("away".to_owned())));
        assert_eq!((names(&left), sent), (names(&entries(3)), 1), "in the order in which they were");
    }
}
