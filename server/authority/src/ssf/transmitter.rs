//! One who is listened to: what was said of it, its keys, and what came of its tokens.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::login::Login;
use super::refusal::Refusal;
use super::settings::TransmitterSettings;
use crate::directory::TakenSet;
use crate::issuer_keys::Keys;

/// One who is listened to.
#[derive(Debug)]
pub(super) struct Transmitter {
    pub(super) settings: TransmitterSettings,
    pub(super) keys: Arc<Keys>,
    pub(super) counts: Arc<Counts>,
    /// What is shown where its tokens are fetched.
    pub(super) login: Option<Login>,
}

/// What came of the tokens of one issuer.
#[derive(Debug, Default)]
pub(super) struct Counts {
    taken: AtomicU64,
    again: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    heard_at: AtomicU64,
}

/// How it stands with one who is listened to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransmitterStatus {
    /// Its name.
    pub issuer: String,
    /// How many keys of its are known.
    pub keys: usize,
    /// When they were fetched last, in Unix seconds.
    pub keys_fetched_at: Option<u64>,
    /// Why they could not be fetched since.
    pub error: Option<String>,
    /// Tokens that were carried out.
    pub taken: u64,
    /// Tokens that had been carried out before.
    pub again: u64,
    /// Tokens about nobody who has agents here.
    pub unknown: u64,
    /// Tokens that were refused.
    pub refused: u64,
    /// When a token of its was taken last, in Unix seconds.
    pub heard_at: Option<u64>,
}

impl Transmitter {
    pub(super) fn status(&self) -> TransmitterStatus {
        let (keys_fetched_at, error) = self.keys.standing();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        TransmitterStatus {
            issuer: self.settings.issuer.clone(),
            keys: self.keys.current().len(),
            keys_fetched_at,
            error,
            taken: count(&counts.taken),
            again: count(&counts.again),
            unknown: count(&counts.unknown),
            refused: count(&counts.refused),
            heard_at: Some(count(&counts.heard_at)).filter(|at| *at > 0),
        }
    }
}

impl Counts {
    pub(super) fn note(&self, taken: &Result<TakenSet, Refusal>, now: u64) {
        let counter = match taken {
            Ok(TakenSet::Done(_)) => &self.taken,
            Ok(TakenSet::Again) => &self.again,
            Ok(TakenSet::Unknown) => &self.unknown,
            Err(_) => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if taken.is_ok() {
            self.heard_at.store(now, Ordering::Relaxed);
        }
    }
}
