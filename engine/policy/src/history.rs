//! Which version was in force when. To go back to an older version is to activate it again, under a higher epoch: what was
//! minted in between stays refused.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_HISTORY, MAX_ID_BYTES};
use crate::source::PolicyDigest;
use crate::vocabulary::is_id;

/// An organisation's policy epoch: it only rises.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The first there is.
    pub const FIRST: Self = Self(1);

    /// The next one.
    ///
    /// # Errors
    ///
    /// [`EpochExhausted`] behind the last number there is.
    pub fn next(self) -> Result<Self, EpochExhausted> {
        self.0.checked_add(1).map(Self).ok_or(EpochExhausted)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// There is no higher epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochExhausted;

impl fmt::Display for EpochExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the policy epoch cannot rise any further")
    }
}

impl core::error::Error for EpochExhausted {}

/// How a version came into force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationKind {
    /// For the first time.
    Activate,
    /// Again, after another one.
    Rollback,
}

/// A version that came into force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activation {
    /// The epoch that began with it.
    pub epoch: Epoch,
    /// The version.
    pub version: PolicyDigest,
    /// When, in Unix seconds.
    pub at: u64,
    /// Who did it.
    pub by: String,
    /// How.
    pub kind: ActivationKind,
}

/// Why a version does not come into force, or a history is not one.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ActivationError {
    /// It is in force.
    InForce,
    /// The epochs are used up.
    Epoch(EpochExhausted),
    /// The epoch that is given as the current one is older than the last activation.
    StaleEpoch {
        /// The one given.
        given: Epoch,
        /// The last activation's.
        last: Epoch,
    },
    /// Whoever did it has no usable name.
    By,
    /// The history holds as much as it may.
    Full,
}

impl fmt::Display for ActivationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InForce => {
                f.write_str("this version is in force already; to raise the epoch alone, use bump")
            }
            Self::Epoch(error) => error.fmt(f),
            Self::StaleEpoch { given, last } => {
                write!(
                    f,
                    "the policy epoch {given} is older than the last activation's, {last}; it must only rise"
                )
            }
            Self::By => write!(
                f,
                "who activates it must have a name of 1 to {MAX_ID_BYTES} bytes without control characters"
            ),
            Self::Full => write!(f, "the history holds {MAX_HISTORY} activations, and no more"),
        }
    }
}

impl core::error::Error for ActivationError {}

/// All activations, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    rows: Vec<Activation>,
}

impl History {
    /// The history that these rows are, oldest first.
    ///
    /// # Errors
    ///
    /// [`ActivationError`] where they could not have come about.
    pub fn from_rows(rows: impl IntoIterator<Item = Activation>) -> Result<Self, ActivationError> {
        let mut history = Self::default();
        for row in rows {
            if let Some(last) = history.in_force().filter(|last| last.epoch >= row.epoch) {
                return Err(ActivationError::StaleEpoch { given: row.epoch, last: last.epoch });
            }
            history.push(row)?;
        }
        Ok(history)
    }

    /// The activations, oldest first.
    pub fn rows(&self) -> &[Activation] {
        &self.rows
    }

    /// The last one.
    pub fn in_force(&self) -> Option<&Activation> {
        self.rows.last()
    }

    /// Puts a version into force. `current` is the organisation's epoch, which other things raise too; the new one is the
    /// next. `at` in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`ActivationError`]; then nothing has changed.
    pub fn activate(
        &mut self,
        current: Epoch,
        version: PolicyDigest,
        at: u64,
        by: &str,
    ) -> Result<&Activation, ActivationError> {
        if let Some(last) = self.in_force() {
            if last.version == version {
                return Err(ActivationError::InForce);
            }
            if current < last.epoch {
                return Err(ActivationError::StaleEpoch { given: current, last: last.epoch });
            }
        }
        let known = self.rows.iter().any(|row| row.version == version);
        let kind = if known { ActivationKind::Rollback } else { ActivationKind::Activate };
        let epoch = current.next().map_err(ActivationError::Epoch)?;
        self.push(Activation { epoch, version, at, by: by.to_owned(), kind })
    }

    fn push(&mut self, row: Activation) -> Result<&Activation, ActivationError> {
        if !is_id(&row.by, MAX_ID_BYTES) {
            return Err(ActivationError::By);
        }
        if self.rows.len() >= MAX_HISTORY {
            return Err(ActivationError::Full);
        }
        self.rows.push(row);
        self.in_force().ok_or(ActivationError::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u8) -> PolicyDigest {
        PolicyDigest([number; 32])
    }

    #[test]
    fn going_back_to_an_older_version_raises_the_epoch() {
        let mut history = History::default();
        let first = history.activate(Epoch::FIRST, version(1), 10, "local:alice").unwrap().clone();
        let second = history.activate(first.epoch, version(2), 20, "local:alice").unwrap().clone();
        // Something else raised the epoch in between.
        let current = second.epoch.next().unwrap();
        let third = history.activate(current, version(1), 30, "local:bob").unwrap().clone();
        assert_eq!((first.kind, second.kind), (ActivationKind::Activate, ActivationKind::Activate));
        assert_eq!((third.kind, third.epoch), (ActivationKind::Rollback, Epoch(5)));
        assert_eq!(history.in_force(), Some(&third));
        assert_eq!(History::from_rows(history.rows().to_vec()), Ok(history));
    }

    #[test]
    fn an_epoch_never_falls_and_never_wraps() {
        let mut history = History::default();
        history.activate(Epoch(7), version(1), 0, "a").unwrap();
        let before = history.clone();
        let stale = ActivationError::StaleEpoch { given: Epoch(7), last: Epoch(8) };
        assert_eq!(history.activate(Epoch(7), version(2), 0, "a"), Err(stale));
        assert_eq!(
            history.activate(Epoch(u64::MAX), version(2), 0, "a"),
            Err(ActivationError::Epoch(EpochExhausted))
        );
        assert_eq!(history.activate(Epoch(8), version(1), 0, "a"), Err(ActivationError::InForce));
        assert_eq!(history.activate(Epoch(8), version(2), 0, "a\nb"), Err(ActivationError::By));
        assert_eq!(history, before);
        let row = before.rows()[0].clone();
        assert!(matches!(
            History::from_rows([row.clone(), row]),
            Err(ActivationError::StaleEpoch { given: Epoch(8), last: Epoch(8) })
        ));
    }

    #[test]
    fn a_history_is_bounded() {
        let mut history = History::default();
        for number in 0..MAX_HISTORY {
            let (current, version) = (Epoch(number as u64), version(u8::from(number % 2 == 1)));
            history.activate(current, version, 0, "a").unwrap();
        }
        assert_eq!(
            history.activate(Epoch(MAX_HISTORY as u64), version(9), 0, "a"),
            Err(ActivationError::Full)
        );
    }
}
