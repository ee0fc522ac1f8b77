//! The three ways S3 writes a time: RFC 1123 in headers, ISO 8601 with milliseconds in XML, and the basic
//! ISO form of `x-amz-date`.
//!
//! Times are counts since the Unix epoch, in seconds (`_s`) or milliseconds (`_ms`). What does not fit in the years
//! 0 to 9999 is clamped when written, since the four-digit year is part of each form.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

type Form = &'static [BorrowedFormatItem<'static>];

const RFC_1123: Form =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
const RFC_850: Form =
    format_description!("[weekday repr:long], [day]-[month repr:short]-[year] [hour]:[minute]:[second] GMT");
const ASCTIME: Form =
    format_description!("[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]");
const ISO_ANY: Form =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second][optional [.[subsecond digits:1+]]]Z");
const AMZ: Form = format_description!("[year][month][day]T[hour][minute][second]Z");

const YEAR_0_MS: i64 = -62_167_219_200_000;
const YEAR_9999_MS: i64 = 253_402_300_799_999;

fn at(unix_ms: i64) -> OffsetDateTime {
    let clamped_ms = unix_ms.clamp(YEAR_0_MS, YEAR_9999_MS);
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(clamped_ms) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn write(form: Form, unix_ms: i64) -> String {
    // Formatting fails only for components a value lacks; a full date and time lacks none.
    at(unix_ms).format(form).unwrap_or_default()
}

fn read(form: Form, text: &str) -> Option<OffsetDateTime> {
    let read = PrimitiveDateTime::parse(text, form).ok()?.assume_utc();
    // The parser takes a sign before the year; none of the forms has one.
    (read.year() >= 0 && !text.contains('+')).then_some(read)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, for `Last-Modified` and `Date`.
pub fn http_date(unix_ms: i64) -> String {
    write(RFC_1123, unix_ms)
}

/// `1994-11-06T08:49:37.000Z`, for XML. By hand: a listing has a thousand of them.
pub fn iso_8601_ms(unix_ms: i64) -> String {
    let at = at(unix_ms);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut put = |place: std::ops::Range<usize>, mut value: u32| {
        for digit in text[place].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0..4, at.year().unsigned_abs());
    put(5..7, u8::from(at.month()).into());
    put(8..10, at.day().into());
    put(11..13, at.hour().into());
    put(14..16, at.minute().into());
    put(17..19, at.second().into());
    put(20..23, at.millisecond().into());
    String::from_utf8_lossy(&text).into_owned()
}

/// `19941106T084937Z`, for `x-amz-date` and strings to sign.
pub fn amz_date(unix_s: i64) -> String {
    write(AMZ, unix_s.saturating_mul(1000))
}

/// Reads an HTTP date in any of the three forms that RFC 9110 has (5.6.7). Returns seconds; `None` when malformed, which HTTP
/// treats as an absent header.
pub fn parse_http_date(text: &str) -> Option<i64> {
    let text = text.trim();
    let read = read(RFC_1123, text).or_else(|| read(ASCTIME, text)).or_else(|| read(RFC_850, &with_century(text)?))?;
    Some(read.unix_timestamp())
}

/// The date of RFC 850 with a year of four digits: 70 to 99 are of the last century.
fn with_century(text: &str) -> Option<String> {
    let at = text.rfind('-')? + 1;
    let year: u32 = text.get(at..at + 2)?.parse().ok()?;
    let century = if year < 70 { "20" } else { "19" };
    Some(format!("{}{century}{}", &text[..at], &text[at..]))
}

/// Reads `yyyymmddThhmmssZ`, and nothing else. Returns seconds.
pub fn parse_amz_date(text: &str) -> Option<i64> {
    if text.len() != 16 || !text.is_ascii() {
        return None;
    }
    Some(read(AMZ, text)?.unix_timestamp())
}

/// Reads `2011-02-03T04:05:06Z` with or without a fraction, as found in XML bodies. Returns milliseconds.
pub fn parse_iso_8601_ms(text: &str) -> Option<i64> {
    let nanos = read(ISO_ANY, text.trim())?.unix_timestamp_nanos();
    i64::try_from(nanos.div_euclid(1_000_000)).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE_S: i64 = 784_111_777;

    #[test]
    fn the_rfc_example_in_every_form() {
        assert_eq!(http_date(EXAMPLE_S * 1000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(iso_8601_ms(EXAMPLE_S * 1000 + 5), "1994-11-06T08:49:37.005Z");
        assert_eq!(amz_date(EXAMPLE_S), "19941106T084937Z");
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(EXAMPLE_S));
        assert_eq!(parse_http_date("Sun Nov  6 08:49:37 1994"), Some(EXAMPLE_S));
        assert_eq!(parse_amz_date("19941106T084937Z"), Some(EXAMPLE_S));
        assert_eq!(parse_iso_8601_ms("1994-11-06T08:49:37Z"), Some(EXAMPLE_S * 1000));
    }

    #[test]
    fn malformed_dates_are_none() {
        for text in [
            "",
            "yesterday",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov -1994 08:49:37 GMT",
            "Sun, 06 Nov +1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
        assert_eq!(parse_iso_8601_ms("-1994-11-06T08:49:37Z"), None);
        for text in
            ["", "19941106T084937", "19941306T084937Z", "1994-11-06T08:49:37Z", "19941106T084937ZZ", "1994110éT08493"]
        {
            assert_eq!(parse_amz_date(text), None, "{text}");
        }
    }

    #[test]
    fn the_ends_of_time_are_clamped() {
        assert_eq!(iso_8601_ms(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(amz_date(i64::MIN), "00000101T000000Z");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(unix_ms in YEAR_0_MS..=YEAR_9999_MS) {
            prop_assert_eq!(parse_http_date(&http_date(unix_ms)), Some(unix_ms.div_euclid(1000)));
            prop_assert_eq!(parse_iso_8601_ms(&iso_8601_ms(unix_ms)), Some(unix_ms));
            prop_assert_eq!(parse_amz_date(&amz_date(unix_ms.div_euclid(1000))), Some(unix_ms.div_euclid(1000)));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (parse_http_date(&text), parse_amz_date(&text), parse_iso_8601_ms(&text));
        }
    }
}
