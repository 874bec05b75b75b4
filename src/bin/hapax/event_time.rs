//! Times as text to times as the engine counts them.

use hapax::Timestamp;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::TimeZone;

/// From this number up, a number without a stated unit counts milliseconds:
/// as seconds it would lie after the year 5138, as milliseconds it is 1973.
const FIRST_MILLIS: i128 = 100_000_000_000;

/// How the time field is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum TimeFormat {
    /// RFC 3339, or a number whose size tells seconds from milliseconds.
    #[default]
    Guess,
    Rfc3339,
    Seconds,
    Millis,
    /// A strftime pattern; UTC unless it reads an offset.
    Pattern(String),
}

impl TimeFormat {
    /// Reads the flag's value, and refuses a pattern that no time could match.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "rfc3339" => Ok(Self::Rfc3339),
            "seconds" => Ok(Self::Seconds),
            "millis" => Ok(Self::Millis),
            pattern if pattern.contains('%') => {
                try_pattern(pattern).map(|()| Self::Pattern(pattern.to_owned()))
            }
            _ => Err("give rfc3339, seconds, millis, or a pattern such as %Y-%m-%d".to_owned()),
        }
    }

    /// Reads one time; `None` if `text` is not written this way.
    pub(crate) fn read(&self, text: &[u8]) -> Option<Timestamp> {
        match self {
            Self::Guess => guess(text),
            Self::Rfc3339 => rfc3339(text),
            Self::Seconds => Decimal::parse(text)?.seconds(),
            Self::Millis => Decimal::parse(text)?.millis(),
            Self::Pattern(pattern) => by_pattern(pattern, text),
        }
    }

    /// What [`read`](Self::read) wants to see, for people.
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Guess => "expected RFC 3339 or epoch seconds or milliseconds".to_owned(),
            Self::Rfc3339 => "expected RFC 3339".to_owned(),
            Self::Seconds => "expected epoch seconds".to_owned(),
            Self::Millis => "expected epoch milliseconds".to_owned(),
            Self::Pattern(pattern) => format!("expected the pattern {pattern}"),
        }
    }
}

/// Writes a time by `pattern` and reads it back.
fn try_pattern(pattern: &str) -> Result<(), String> {
    let sample = jiff::Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    let text = strtime::format(pattern, &sample).map_err(|error| error.to_string())?;
    match BrokenDownTime::parse(pattern, &text).map(|time| resolve(&time)) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("the pattern tells no date: add %Y, %m and %d, or %s".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn by_pattern(pattern: &str, text: &[u8]) -> Option<Timestamp> {
    resolve(&BrokenDownTime::parse(pattern, text).ok()?)
}

fn resolve(time: &BrokenDownTime) -> Option<Timestamp> {
    let instant = match time.to_timestamp() {
        Ok(instant) => instant,
        Err(_) => time.to_datetime().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp(),
    };
    Some(Timestamp::from_micros(instant.as_microsecond()))
}

fn rfc3339(text: &[u8]) -> Option<Timestamp> {
    let instant: jiff::Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(Timestamp::from_micros(instant.as_microsecond()))
}

fn guess(text: &[u8]) -> Option<Timestamp> {
    match Decimal::parse(text) {
        Some(number) if number.whole.abs() >= FIRST_MILLIS => number.millis(),
        Some(number) => number.seconds(),
        None => rfc3339(text),
    }
}

/// A decimal number, exact to the microsecond: a binary fraction would move
/// times across the edges of buckets.
struct Decimal {
    whole: i128,
    /// Millionths, with the sign of the number; further digits are cut.
    millionths: i128,
}

impl Decimal {
    /// Reads `-12`, `12.5`, but not `1e9`. No more than 18 whole digits.
    fn parse(text: &[u8]) -> Option<Self> {
        let (sign, digits) = match text {
            [b'-', rest @ ..] => (-1, rest),
            rest => (1, rest.strip_prefix(b"+").unwrap_or(rest)),
        };
        let point = digits.iter().position(|byte| *byte == b'.');
        let (whole, fraction) = match point {
            Some(at) if at + 1 < digits.len() => (&digits[..at], &digits[at + 1..]),
            Some(_) => return None,
            None => (digits, &[][..]),
        };
        if whole.is_empty() || whole.len() > 18 || !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let six_places = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(6);
        Some(Self {
            whole: sign * number(whole.iter().copied())?,
            millionths: sign * number(six_places)?,
        })
    }

    fn seconds(&self) -> Option<Timestamp> {
        timestamp(self.whole * 1_000_000 + self.millionths)
    }

    fn millis(&self) -> Option<Timestamp> {
        timestamp(self.whole * 1_000 + self.millionths / 1_000)
    }
}

fn number(digits: impl Iterator<Item = u8>) -> Option<i128> {
    let mut number = 0;
    for digit in digits {
        number = number * 10 + i128::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    Some(number)
}

fn timestamp(micros: i128) -> Option<Timestamp> {
    i64::try_from(micros).ok().map(Timestamp::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(format: &TimeFormat, text: &str) -> Option<i64> {
        format.read(text.as_bytes()).map(Timestamp::as_micros)
    }

    #[test]
    fn guesses_the_unit_by_size() {
        let guess = TimeFormat::Guess;
        assert_eq!(micros(&guess, "1700000000"), Some(1_700_000_000_000_000));
        assert_eq!(micros(&guess, "1700000000123"), Some(1_700_000_000_123_000));
        assert_eq!(micros(&guess, "1700000000.000001999"), Some(1_700_000_000_000_001));
        assert_eq!(micros(&guess, "-0.5"), Some(-500_000));
        assert_eq!(micros(&guess, "99999999999"), Some(99_999_999_999_000_000));
        assert_eq!(micros(&guess, "100000000000"), Some(100_000_000_000_000));
        assert_eq!(micros(&guess, "2023-11-14T22:13:20.5Z"), Some(1_700_000_000_500_000));
        assert_eq!(micros(&guess, "2023-11-14T23:13:20+01:00"), Some(1_700_000_000_000_000));
        for wrong in
            ["", "-", ".5", "5.", "1e9", "1_0", "today", "2023-11-14", "9999999999999999999"]
        {
            assert_eq!(micros(&guess, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_named_format_reads_only_itself() {
        assert_eq!(micros(&TimeFormat::Millis, "1500"), Some(1_500_000));
        assert_eq!(micros(&TimeFormat::Seconds, "1700000000123"), Some(1_700_000_000_123_000_000));
        assert_eq!(micros(&TimeFormat::Rfc3339, "1700000000"), None);
        assert_eq!(micros(&TimeFormat::Seconds, "2023-11-14T22:13:20Z"), None);
    }

    #[test]
    fn patterns_are_utc_unless_they_read_an_offset() {
        let apache = TimeFormat::parse("[%d/%b/%Y:%H:%M:%S").unwrap();
        assert_eq!(micros(&apache, "[17/May/2015:10:05:03"), Some(1_431_857_103_000_000));
        assert_eq!(micros(&apache, "[17/May/2015:10:05:03 +0000]"), None);
        let offset = TimeFormat::parse("%Y-%m-%d %H:%M:%S%z").unwrap();
        assert_eq!(micros(&offset, "1970-01-01 01:00:01+0100"), Some(1_000_000));
        assert_eq!(micros(&TimeFormat::parse("%s").unwrap(), "12"), Some(12_000_000));
        assert_eq!(
            micros(&TimeFormat::parse("%Y-%m-%d").unwrap(), "1970-01-02"),
            Some(86_400_000_000)
        );
    }

    #[test]
    fn patterns_that_tell_no_time_are_refused() {
        for wrong in ["%H:%M", "%J-%Y", "iso", "%"] {
            assert!(TimeFormat::parse(wrong).is_err(), "{wrong}");
        }
    }
}
