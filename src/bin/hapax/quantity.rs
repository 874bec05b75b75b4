//! Flag values with a unit: spans of time, sizes, and the delimiter.

use hapax::Mode;
use jiff::{Span, SpanRelativeTo};
use std::time::Duration;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// The byte between two fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delimiter(pub(crate) u8);

/// Reads a span such as `10m`, `1h30m`, `500ms` or `2d`; a day has 24 hours.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let advice = "give a number and a unit, such as 500ms, 30s, 10m, 1h30m or 2d";
    let span: Span = text.parse().map_err(|_| advice.to_owned())?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| "months and years differ in length: give days or weeks".to_owned())?;
    Duration::try_from(duration).map_err(|_| "a span cannot be negative".to_owned())
}

/// Reads a size such as `64M` or `2G`; the units are powers of 1,024.
pub(crate) fn size(text: &str) -> Result<Size, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("give a whole number and K, M, G or T, such as 500M or 2G".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "give a whole number, such as 500M or 2G")?;
    number.checked_mul(1 << shift).map(Size).ok_or_else(|| "more than memory can be".to_owned())
}

/// Reads what is kept of a key: `verified`, `fingerprint` or `filter=RATE`.
pub(crate) fn mode(text: &str) -> Result<Mode, String> {
    match text.split_once('=') {
        None if text == "verified" => Ok(Mode::verified()),
        None if text == "fingerprint" => Ok(Mode::fingerprint()),
        Some(("filter", rate)) => filter(rate),
        None if text == "filter" => Err("give the filter a rate, such as filter=1e-4".to_owned()),
        _ => Err("give verified, fingerprint or filter=RATE, such as filter=1e-4".to_owned()),
    }
}

fn filter(rate: &str) -> Result<Mode, String> {
    let advice = "give a rate from 1e-9 to 0.5, such as filter=1e-4";
    let rate: f64 = rate.parse().map_err(|_| advice.to_owned())?;
    if (1e-9..=0.5).contains(&rate) { Ok(Mode::filter(rate)) } else { Err(advice.to_owned()) }
}

/// Reads the byte between two fields; `\t` is a tab.
pub(crate) fn delimiter(text: &str) -> Result<Delimiter, String> {
    match text.as_bytes() {
        br"\t" => Ok(Delimiter(b'\t')),
        [b'"' | b'\r' | b'\n'] => {
            Err("quotes and line ends have another meaning in csv".to_owned())
        }
        [byte] => Ok(Delimiter(*byte)),
        _ => Err(r"give one byte, or \t for a tab".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_names_and_filters_a_rate() {
        assert_eq!(mode("verified"), Ok(Mode::verified()));
        assert_eq!(mode("filter=1e-4"), Ok(Mode::filter(1e-4)));
        for bad in ["filter", "filter=", "filter=0", "filter=NaN", "filter=1", "filter=x", "exact"]
        {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_add_their_units() {
        assert_eq!(span("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(span("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(span("2d"), Ok(Duration::from_secs(2 * 86_400)));
        for wrong in ["", "10", "1mo", "-3s", "m"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("12"), Ok(Size(12)));
        assert_eq!(size("2K"), Ok(Size(2_048)));
        assert_eq!(size("3MiB"), Ok(Size(3 << 20)));
        assert_eq!(size("2g"), Ok(Size(2 << 30)));
        for wrong in ["", "G", "1.5G", "-1", "1X", "99999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_delimiter_is_one_byte() {
        assert_eq!(delimiter(r"\t"), Ok(Delimiter(b'\t')));
        assert_eq!(delimiter(";"), Ok(Delimiter(b';')));
        for wrong in ["", "ab", "\"", "\n", "é"] {
            assert!(delimiter(wrong).is_err(), "{wrong}");
        }
    }
}
