//! One receipt as it is kept: a version, what state it is in, until when it matters, the call, and what belongs to the state.

use core::fmt;
use std::sync::Arc;

use super::{CallDigest, MAX_ANSWER_BYTES};

const VERSION: u8 = 1;

/// One receipt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The call.
    pub call: CallDigest,
    /// Until when it is kept, in Unix seconds.
    pub ends: u64,
    /// How far it came.
    pub state: State,
}

/// How far a call came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// It runs, in the process of this random name, until this time (Unix seconds) at most.
    Running {
        /// The process.
        life: [u8; 16],
        /// Until when.
        until: u64,
    },
    /// It was carried out, with this answer.
    Done(Arc<[u8]>),
    /// It was carried out, and its answer is not kept.
    NotKept,
    /// Nobody knows.
    Unknown,
}

/// A row that this build did not write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowError;

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a receipt has another form")
    }
}

impl core::error::Error for RowError {}

impl Row {
    /// The bytes of its answer.
    pub(crate) fn answer_bytes(&self) -> usize {
        if let State::Done(answer) = &self.state { answer.len() } else { 0 }
    }

    /// As it is kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        let number = match self.state {
            State::Running { .. } => 0,
            State::Done(_) => 1,
            State::NotKept => 2,
            State::Unknown => 3,
        };
        let mut bytes = vec![VERSION, number];
        bytes.extend(self.ends.to_be_bytes());
        bytes.extend(self.call.0);
        match &self.state {
            State::Running { life, until } => {
                bytes.extend(life);
                bytes.extend(until.to_be_bytes());
            }
            State::Done(answer) => bytes.extend(&**answer),
            State::NotKept | State::Unknown => {}
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    ///
    /// [`RowError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RowError> {
        let (head, rest) = bytes.split_first_chunk::<2>().ok_or(RowError)?;
        let (ends, rest) = rest.split_first_chunk::<8>().ok_or(RowError)?;
        let (call, rest) = rest.split_first_chunk::<32>().ok_or(RowError)?;
        let state = match (*head, rest) {
            ([VERSION, 0], rest) => {
                let (life, until) = rest.split_first_chunk::<16>().ok_or(RowError)?;
                let until = until.try_into().map_err(|_| RowError)?;
                State::Running { life: *life, until: u64::from_be_bytes(until) }
            }
            ([VERSION, 1], answer) if answer.len() <= MAX_ANSWER_BYTES => State::Done(answer.into()),
            ([VERSION, 2], []) => State::NotKept,
            ([VERSION, 3], []) => State::Unknown,
            _ => return Err(RowError),
        };
        Ok(Self { call: CallDigest(*call), ends: u64::from_be_bytes(*ends), state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_as_it_was_written_and_nothing_else_is() {
        let call = CallDigest::new(&[b"call"]);
        for state in [
            State::Running { life: [7; 16], until: 60 },
            State::Done(Arc::from(&b"answer"[..])),
            State::Done(Arc::from(&b""[..])),
            State::NotKept,
            State::Unknown,
        ] {
            let row = Row { call, ends: 5, state };
            let bytes = row.to_bytes();
            assert_eq!(Row::from_bytes(&bytes), Ok(row.clone()));
            if !matches!(row.state, State::Done(_)) {
                assert_eq!(Row::from_bytes(&[&bytes[..], &[0]].concat()), Err(RowError), "{row:?}");
                assert_eq!(Row::from_bytes(&bytes[..bytes.len() - 1]), Err(RowError), "{row:?}");
            }
        }
        for wrong in [&[][..], &[1, 4], &[2; 42], &[1; 41]] {
            assert_eq!(Row::from_bytes(wrong), Err(RowError));
        }
    }
}
