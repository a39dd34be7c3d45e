//! Durations as text: one way to write them, on the command line, in files and in levels.
//!
//! Not here: calendars and points in time (see `time`).

use std::time::Duration;

use crate::error::ParseError;
use crate::limits::DURATION_MAX;

/// Units by name and length in nanoseconds, the longest first.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const ALLOWED: &str = "a whole number and a unit (ns, us, ms, s, m, h, d), as in 200ms or 5m, \
                       or 0; at most 36500d, never negative";

/// Parses `200ms`, `5s`, `5m`, `2h`, `1d`, `0`.
///
/// # Errors
///
/// [`ParseError`] for anything else: no unit, another unit, a sign, a fraction, or more than
/// [`DURATION_MAX`].
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    let refused = || ParseError::new("duration", text, ALLOWED);
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (amount, unit) = text.split_at(digits);
    let amount: u64 = amount.parse().map_err(|_| refused())?;
    let (_, unit_nanos) = UNITS
        .into_iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(refused)?;
    amount
        .checked_mul(unit_nanos)
        .map(Duration::from_nanos)
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(refused)
}

/// The shortest exact text of a duration: in the longest unit that divides it.
///
/// [`parse_duration`] reads it back, for durations up to [`DURATION_MAX`].
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0".to_owned();
    }
    let (name, unit_nanos) = UNITS
        .into_iter()
        .find(|(_, unit_nanos)| nanos.is_multiple_of(u128::from(*unit_nanos)))
        .expect("one nanosecond divides every duration");
    format!("{}{name}", nanos / u128::from(unit_nanos))
}

/// Serializes a duration as its text.
pub(crate) mod as_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// Serializes an optional duration as its text.
pub(crate) mod as_optional_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => to.serialize_some(&super::format_duration(*duration)),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<String>::deserialize(from)?
            .map(|text| super::parse_duration(&text).map_err(D::Error::custom))
            .transpose()
    }
}
