//! Instants as ISO 8601 text in UTC, to the second. No clock is read here.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::binary::{Binary, BinaryError, Input, Output};
use crate::frame::EncodeError;
use crate::names::{Text, ValueError, deserialize_text};

/// 9999-12-31T23:59:59Z, the last second that four digits of a year can express, in Unix seconds.
const LAST_SECOND: u64 = 253_402_300_799;
const SECONDS_PER_DAY: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01 in the proleptic Gregorian calendar.
const DAYS_TO_EPOCH: u64 = 719_468;
/// Days in 400 Gregorian years, after which the calendar repeats.
const DAYS_PER_ERA: u64 = 146_097;

/// A point in time in whole seconds, from 1970 to 9999. As text: ISO 8601, `2026-04-21T09:30:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcTime(u64);

impl UtcTime {
    /// The instant this many seconds after 1970-01-01T00:00:00Z. What lies beyond the year 9999 becomes its last second.
    pub const fn from_unix_seconds(seconds: u64) -> Self {
        Self(if seconds > LAST_SECOND { LAST_SECOND } else { seconds })
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub const fn unix_seconds(self) -> u64 {
        self.0
    }
}

/// Year, month and day of a day counted from 1970-01-01. (Hinnant, "chrono-compatible low-level date algorithms")
const fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + DAYS_TO_EPOCH;
    let (era, day_of_era) = (shifted / DAYS_PER_ERA, shifted % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + (month <= 2) as u64;
    (year, month, day)
}

/// The day counted from 1970-01-01, for a date from 1970 on.
const fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = year - (month <= 2) as u64;
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - DAYS_TO_EPOCH
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0 / SECONDS_PER_DAY);
        let second_of_day = self.0 % SECONDS_PER_DAY;
        let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Reads exactly the form this type writes.
fn parse(text: &str) -> Option<UtcTime> {
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let in_range = year >= 1970
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    let days = days_from_civil(year, month, day);
    let time = UtcTime(days * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second);
    // Writing it back settles the separators and the length of the month at once.
    (time.to_string() == text).then_some(time)
}

impl Text for UtcTime {
    const NAME: &'static str = "time";
    const RULE: &'static str = "ISO 8601 in UTC, like 2026-04-21T09:30:00Z";

    fn check(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl FromStr for UtcTime {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        parse(text).ok_or(ValueError::new(Self::NAME, Self::RULE))
    }
}

impl Serialize for UtcTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UtcTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer)
    }
}

impl Binary for UtcTime {
    fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
        self.unix_seconds().put(output)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
        u64::take(input).map(Self::from_unix_seconds)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_instants_are_written_as_the_calendar_says() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_776_763_800, "2026-04-21T09:30:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST_SECOND, "9999-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(UtcTime::from_unix_seconds(seconds).to_string(), text);
        }
    }

    #[test]
    fn text_that_names_no_utc_second_is_refused() {
        for text in [
            "",
            "2026-04-21",
            "2026-04-21T09:30:00",
            "2026-04-21T09:30:00+00:00",
            "2026-04-21 09:30:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-04-21T24:00:00Z",
            "2026-04-21T09:30:60Z",
            "1969-12-31T23:59:59Z",
            "+026-04-21T09:30:00Z",
            "2026-04-21T09:30:00Z ",
            "\u{e9}026-04-21T09:30:00Z",
        ] {
            assert!(text.parse::<UtcTime>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_second_reads_back_as_itself(seconds in 0..=LAST_SECOND) {
            let time = UtcTime::from_unix_seconds(seconds);
            prop_assert_eq!(time.to_string().parse::<UtcTime>().unwrap(), time);
        }
    }
}
