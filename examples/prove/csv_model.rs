//! The naive reading of an access log: records of space-delimited fields with
//! quotes, and Apache's time of day.
//!
//! Written from RFC 4180 and not from the command line: a field that begins
//! with a quote runs to the next lone quote, over line ends if need be, and two
//! quotes in it stand for one.

use crate::Failure;

/// One record: its bytes with its line end, and its fields without quotes.
pub(crate) struct Record<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) fields: Vec<Vec<u8>>,
}

/// Splits `input` into records. A line end is `\n` or `\r\n`.
pub(crate) fn records(input: &[u8]) -> Vec<Record<'_>> {
    let mut records = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let (length, fields) = first_record(rest);
        let (raw, after) = rest.split_at(length);
        records.push(Record { raw, fields });
        rest = after;
    }
    records
}

/// The length of the first record with its line end, and its fields.
fn first_record(input: &[u8]) -> (usize, Vec<Vec<u8>>) {
    let mut fields = vec![Vec::new()];
    let mut quoted = false;
    let mut at_start = true;
    let mut index = 0;
    while let Some(&byte) = input.get(index) {
        let field = fields.last_mut().expect("never empty");
        index += 1;
        match byte {
            b'"' if quoted && input.get(index) == Some(&b'"') => {
                field.push(b'"');
                index += 1;
            }
            b'"' if quoted => quoted = false,
            b'"' if at_start => quoted = true,
            b' ' if !quoted => {
                fields.push(Vec::new());
                at_start = true;
                continue;
            }
            b'\n' if !quoted => {
                if field.last() == Some(&b'\r') {
                    field.pop();
                }
                break;
            }
            _ => field.push(byte),
        }
        at_start = false;
    }
    (index, fields)
}

/// Seconds since the epoch of `[17/May/2015:10:05:03`, taken as UTC.
pub(crate) fn apache_secs(field: &[u8]) -> Result<i64, Failure> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = std::str::from_utf8(field)?;
    let parts: Vec<_> = text.trim_start_matches('[').split(['/', ':']).collect();
    let [day, month, year, hour, minute, second] = parts[..] else {
        return Err(format!("not a time of an access log: {text}").into());
    };
    let month = MONTHS.iter().position(|name| *name == month);
    let month = month.ok_or_else(|| format!("not a month of an access log: {text}"))?;
    let days = days_before_year(year.parse()?)
        + days_before_month(year.parse()?, month)
        + day.parse::<i64>()?
        - 1;
    Ok(((days * 24 + hour.parse::<i64>()?) * 60 + minute.parse::<i64>()?) * 60
        + second.parse::<i64>()?)
}

fn days_before_year(year: i64) -> i64 {
    (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum()
}

fn days_before_month(year: i64, month: usize) -> i64 {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][..month].iter().sum()
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(input: &[u8]) -> Vec<Vec<Vec<u8>>> {
        records(input).into_iter().map(|record| record.fields).collect()
    }

    #[test]
    fn quoted_fields_hold_spaces_quotes_and_line_ends() {
        let input = b"a \"b c\" \"d\"\"e\"\nf \"g\nh\" i\r\nj";
        assert_eq!(
            fields(input),
            [
                vec![b"a".to_vec(), b"b c".to_vec(), b"d\"e".to_vec()],
                vec![b"f".to_vec(), b"g\nh".to_vec(), b"i".to_vec()],
                vec![b"j".to_vec()],
            ]
        );
        let raw: Vec<u8> = records(input).iter().flat_map(|record| record.raw.to_vec()).collect();
        assert_eq!(raw, input);
    }

    #[test]
    fn a_quote_inside_a_bare_field_is_a_byte() {
        assert_eq!(fields(b"a\"b c\n"), [[b"a\"b".to_vec(), b"c".to_vec()]]);
    }

    #[test]
    fn times_count_from_the_epoch() {
        assert_eq!(apache_secs(b"[01/Jan/1970:00:00:00").unwrap(), 0);
        assert_eq!(apache_secs(b"[17/May/2015:10:05:03").unwrap(), 1_431_857_103);
        assert_eq!(apache_secs(b"[29/Feb/2024:23:59:59").unwrap(), 1_709_251_199);
        assert!(apache_secs(b"-").is_err());
    }
}
