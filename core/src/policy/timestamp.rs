//! Points in time as policies see them: RFC 3339 in UTC with whole seconds, always 20 characters,
//! so that texts compare as times do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::civil::civil;

/// A point in time, such as `2026-11-23T12:00:00Z`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("format" = "date-time"))]
pub struct Timestamp(String);

/// A text is no point in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a time of the form `2026-11-23T12:00:00Z`")]
pub struct TimestampError {
    /// The text.
    pub text: String,
}

const SECONDS_OF_DAY: u64 = 86_400;
/// The last second of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

impl Timestamp {
    /// The time so many seconds after 1970 began; beyond the year 9999 it is its last second.
    pub fn from_unix_seconds(seconds: u64) -> Self {
        let seconds = seconds.min(SECONDS_MAX);
        let (days, rest) = (seconds / SECONDS_OF_DAY, seconds % SECONDS_OF_DAY);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        Self(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn days_of_month(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;

    fn try_from(text: String) -> Result<Self, TimestampError> {
        let shape = b"0000-00-00T00:00:00Z";
        let fits = text.len() == shape.len()
            && text.bytes().zip(shape).all(|(byte, want)| match want {
                b'0' => byte.is_ascii_digit(),
                other => byte == *other,
            });
        let number = |range| text.get(range).and_then(|part: &str| part.parse::<u32>().ok());
        let valid = || {
            let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
            let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
            let date = (1..=days_of_month(year, month)).contains(&day);
            (date && hour < 24 && minute < 60 && second < 60).then_some(())
        };
        match fits && valid().is_some() {
            true => Ok(Self(text)),
            false => Err(TimestampError { text }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        let check = |seconds: u64, text: &str| {
            assert_eq!(Timestamp::from_unix_seconds(seconds).as_str(), text);
            assert!(Timestamp::try_from(text.to_owned()).is_ok(), "{text}");
        };
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_795_435_200, "2026-11-23T12:00:00Z");
        check(4_107_542_399, "2100-02-28T23:59:59Z");
        check(u64::MAX, "9999-12-31T23:59:59Z");
    }

    #[test]
    fn other_texts_are_no_times() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T12:00:00",
            "2026-11-23T12:00:00+01:00",
            "2026-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23t12:00:00z",
            "２026-11-23T12:00:0Z",
        ] {
            assert!(Timestamp::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
