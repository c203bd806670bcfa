//! The numbers that messages carry. A number that exists keeps its rule, whichever side and codec it came from.

use core::fmt;
use core::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};
use serde::{Serialize, Serializer};

use crate::binary::{Binary, BinaryError, Input, Output};
use crate::frame::EncodeError;
use crate::names::ValueError;

struct WholeNumberVisitor<T>(&'static str, fn(u64) -> Result<T, ValueError>);

impl<T> Visitor<'_> for WholeNumberVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        (self.1)(number).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let number =
            u64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
        self.visit_u64(number)
    }

    /// 5000.0 and 5e3 are 5000, as in any other reader of JSON.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        match whole(number) {
            Some(number) => self.visit_u64(number),
            None => Err(E::invalid_value(Unexpected::Float(number), &self)),
        }
    }
}

/// A whole number that was written as a fraction or with an exponent, and that every reader takes for the same one.
fn whole(number: f64) -> Option<u64> {
    /// Beyond this, neighbouring whole numbers are the same fraction: 2^53.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and within bounds")]
    (number.fract() == 0.0 && (0.0..=EXACT).contains(&number)).then_some(number as u64)
}

/// For fields that are whole numbers without a type of their own.
pub(crate) fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(WholeNumberVisitor("a whole number from 0 to 2^64-1", Ok))
}

/// The same, where there may be none.
pub(crate) fn optional_whole_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    struct Whole(u64);

    impl<'de> Deserialize<'de> for Whole {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            whole_number(deserializer).map(Self)
        }
    }

    Ok(Option::<Whole>::deserialize(deserializer)?.map(|Whole(number)| number))
}

/// Longest time a caller may ask to wait for a token, in milliseconds.
pub const MAX_WAIT_MS: u32 = 30_000;

/// How long a caller is willing to wait for a token: 0 to 30,000 milliseconds, 0 by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaitMs(u32);

impl WaitMs {
    /// Do not wait: an empty queue is an error at once.
    pub const NONE: Self = Self(0);

    const NAME: &'static str = "waitMs";
    const RULE: &'static str = "a whole number of milliseconds from 0 to 30000";

    /// Waits this many milliseconds.
    ///
    /// # Errors
    ///
    /// [`ValueError`] above [`MAX_WAIT_MS`].
    pub const fn new(milliseconds: u32) -> Result<Self, ValueError> {
        if milliseconds > MAX_WAIT_MS {
            return Err(ValueError::new(Self::NAME, Self::RULE));
        }
        Ok(Self(milliseconds))
    }

    /// The wait in milliseconds.
    pub const fn as_millis(self) -> u32 {
        self.0
    }

    /// The wait as a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }

    fn from_u64(milliseconds: u64) -> Result<Self, ValueError> {
        Self::new(u32::try_from(milliseconds).unwrap_or(u32::MAX))
    }
}

impl TryFrom<Duration> for WaitMs {
    type Error = ValueError;

    /// Rounds up to whole milliseconds, so that a short wait does not become none.
    fn try_from(wait: Duration) -> Result<Self, ValueError> {
        Self::new(u32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX))
    }
}

impl Serialize for WaitMs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for WaitMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTING: &str = "waitMs: a whole number of milliseconds from 0 to 30000";
        deserializer.deserialize_u64(WholeNumberVisitor(EXPECTING, Self::from_u64))
    }
}

/// The number of a negotiated algorithm suite, 1 to 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlgorithmSuite(u8);

impl AlgorithmSuite {
    /// The suite with this number.
    ///
    /// # Errors
    ///
    /// [`ValueError`] for a number that names no suite.
    pub const fn new(number: u8) -> Result<Self, ValueError> {
        if matches!(number, 1..=4) {
            Ok(Self(number))
        } else {
            Err(ValueError::new("algorithmSuite", "a suite number from 1 to 4"))
        }
    }

    /// The suite's number.
    pub const fn number(self) -> u8 {
        self.0
    }

    fn from_u64(number: u64) -> Result<Self, ValueError> {
        Self::new(u8::try_from(number).unwrap_or(u8::MAX))
    }
}

impl fmt::Display for AlgorithmSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for AlgorithmSuite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for AlgorithmSuite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTING: &str = "algorithmSuite: a suite number from 1 to 4";
        deserializer.deserialize_u64(WholeNumberVisitor(EXPECTING, Self::from_u64))
    }
}

impl Binary for WaitMs {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        self.as_millis().put(output)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        Ok(Self::new(u32::take(input)?)?)
    }
}

impl Binary for AlgorithmSuite {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        output.plain(&self.number())
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        Ok(Self::new(input.plain()?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_bounded_and_rounds_up() {
        assert_eq!(WaitMs::new(30_000).unwrap().as_duration(), Duration::from_secs(30));
        assert!(WaitMs::new(30_001).is_err());
        assert_eq!(WaitMs::try_from(Duration::from_nanos(1)).unwrap().as_millis(), 1);
        assert!(WaitMs::try_from(Duration::MAX).is_err());
        for whole in ["5000.0", "5e3", "50e+2", "5000"] {
            assert_eq!(serde_json::from_str::<WaitMs>(whole).unwrap().as_millis(), 5_000, "{whole}");
        }
        for not_whole in ["0.5", "-1.0", "1e300", "4999.9999"] {
            let error = serde_json::from_str::<WaitMs>(not_whole).unwrap_err().to_string();
            assert!(error.contains("waitMs"), "{error}");
        }
        assert!(serde_json::from_str::<WaitMs>("-1").unwrap_err().to_string().contains("waitMs"));
        assert!(serde_json::from_str::<WaitMs>("4294967296").unwrap_err().to_string().contains("waitMs"));
    }

    #[test]
    fn only_suites_one_to_four_exist() {
        for number in 1..=4 {
            assert_eq!(AlgorithmSuite::new(number).unwrap().number(), number);
        }
        assert!(AlgorithmSuite::new(0).is_err());
        assert!(AlgorithmSuite::new(5).is_err());
    }
}
