//! The values that conditions compare: numbers, dates, bytes, networks. All exact; no floating point.

use std::net::{IpAddr, Ipv6Addr};

/// Units in one: numbers and seconds are counted in billionths.
const SCALE: i128 = 1_000_000_000;

/// An integer or a decimal with up to 20 digits before the point and 9 behind it, in billionths.
pub(super) fn number(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let fits = (1..=20).contains(&whole.len()) && (1..=9).contains(&fraction.len());
    if !fits || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let units = whole.parse::<i128>().ok()? * SCALE + format!("{fraction:0<9}").parse::<i128>().ok()?;
    Some(if negative { -units } else { units })
}

/// Nanoseconds since 1970: seconds as a number, or ISO 8601 as in the W3C's note "Date and Time Formats" (`2026-11-30`,
/// `2026-11-30T02:07Z`, `2026-11-30T02:07:00.5+01:00`). Four digits are a year.
pub(super) fn date(text: &str) -> Option<i128> {
    if text.len() != 4
        && let Some(seconds) = number(text)
    {
        return Some(seconds);
    }
    match text.split_once('T') {
        None => Some(i128::from(days(text)?) * 86_400 * SCALE),
        Some((day, time)) if day.len() == 10 => Some(i128::from(days(day)?) * 86_400 * SCALE + time_of_day(time)?),
        Some(_) => None,
    }
}

/// Days since 1970 of `YYYY`, `YYYY-MM` or `YYYY-MM-DD`.
fn days(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let year = digits(parts.next()?, 4, 0..=9999)?;
    let month = parts.next().map_or(Some(1), |month| digits(month, 2, 1..=12))?;
    let day = parts.next().map_or(Some(1), |day| digits(day, 2, 1..=month_len(year, month)))?;
    if parts.next().is_some() {
        return None;
    }
    // Counted in years that begin in March, so that a leap day is the last one.
    let shifted = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = shifted.div_euclid(4) - shifted.div_euclid(100) + shifted.div_euclid(400);
    Some(shifted * 365 + leap_days + day_of_year - 719_468)
}

fn month_len(year: i64, month: i64) -> i64 {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Nanoseconds since midnight in UTC of `hh:mm[:ss[.fraction]]` with its zone, `Z` or `+hh:mm`.
fn time_of_day(text: &str) -> Option<i128> {
    let (clock, zone_minutes) = match text.strip_suffix('Z') {
        Some(clock) => (clock, 0),
        None => zone(text)?,
    };
    let mut parts = clock.splitn(3, ':');
    let hours = digits(parts.next()?, 2, 0..=23)?;
    let minutes = digits(parts.next()?, 2, 0..=59)?;
    let seconds = match parts.next() {
        None => 0,
        Some(text) => {
            digits(text.split('.').next()?, 2, 0..=60)?;
            number(text)?
        }
    };
    Some(i128::from((hours * 60 + minutes - zone_minutes) * 60) * SCALE + seconds)
}

fn zone(text: &str) -> Option<(&str, i64)> {
    let at = text.rfind(['+', '-'])?;
    let (hours, minutes) = text[at + 1..].split_once(':')?;
    let offset = digits(hours, 2, 0..=23)? * 60 + digits(minutes, 2, 0..=59)?;
    Some((&text[..at], if text[at..].starts_with('-') { -offset } else { offset }))
}

fn digits(text: &str, len: usize, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let value = text.parse().ok().filter(|_| text.len() == len && is_digits(text))?;
    range.contains(&value).then_some(value)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Standard base64 with its padding.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding_len = text.len() - digits.len();
    if !text.len().is_multiple_of(4) || padding_len > 2 {
        return None;
    }
    let (mut bytes, mut bits, mut bit_count) = (Vec::new(), 0u32, 0);
    for digit in digits.bytes() {
        bits = (bits << 6) | u32::from(sextet(digit)?);
        bit_count += 6;
        if bit_count >= 8 {
            bit_count -= 8;
            bytes.push((bits >> bit_count) as u8);
            bits &= (1 << bit_count) - 1;
        }
    }
    // Bits that belong to no byte have to be zero, or two texts would stand for the same bytes.
    (bits == 0).then_some(bytes)
}

fn sextet(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// Addresses that share their first bits. IPv4 inside IPv6 (`::ffff:0:0/96`) is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    prefix_len: u32,
}

impl Network {
    /// `address` or `address/bits`; an address alone is a network of one.
    pub(super) fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = match bits {
            None => width,
            Some(bits) => bits.parse().ok().filter(|len| *len <= width && is_digits(bits))?,
        };
        Some(Network { address, prefix_len }.canonical())
    }

    fn canonical(self) -> Network {
        match self.address.to_canonical() {
            IpAddr::V4(inner) if self.address.is_ipv6() && self.prefix_len >= 96 => {
                Network { address: IpAddr::V4(inner), prefix_len: self.prefix_len - 96 }
            }
            _ => self,
        }
    }

    pub(super) fn is_narrow(&self) -> bool {
        self.prefix_len >= if self.address.is_ipv4() { 8 } else { 32 }
    }

    pub(super) fn contains(&self, address: &str) -> bool {
        let Ok(address) = address.parse::<IpAddr>() else { return false };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                same_prefix(network.to_bits().into(), address.to_bits().into(), 32 - self.prefix_len)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                same_prefix(network.to_bits(), Ipv6Addr::to_bits(address), 128 - self.prefix_len)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn same_prefix(one: u128, other: u128, rest_len: u32) -> bool {
    (one ^ other).checked_shr(rest_len).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-1.5", Some(-1_500_000_000)),
            ("18446744073709551615", Some(18_446_744_073_709_551_615 * SCALE)),
            ("1.000000001", Some(SCALE + 1)),
            ("", None),
            ("-", None),
            ("1.", None),
            (".5", None),
            ("+1", None),
            ("1e3", None),
            ("1.0000000001", None),
            ("100000000000000000000000", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }

    #[test]
    fn dates() {
        for (text, seconds) in [
            ("1970", Some(0)),
            ("1970-01-02", Some(86_400)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2026-11-30T02:07Z", Some(1_796_004_420)),
            ("2026-11-30T03:07:00+01:00", Some(1_796_004_420)),
            ("2026-11-29T21:07:00-05:00", Some(1_796_004_420)),
            ("1796004420", Some(1_796_004_420)),
            ("1969-12-31T23:59:59Z", Some(-1)),
            ("2026-02-29", None),
            ("2026-13", None),
            ("2026-11-30T02:07", None),
            ("2026-11T02:07Z", None),
            ("2026-11-30T24:00Z", None),
            ("2026-11-30-01", None),
            ("yesterday", None),
        ] {
            assert_eq!(date(text), seconds.map(|seconds: i128| seconds * SCALE), "{text}");
        }
        assert_eq!(date("1970-01-01T00:00:00.25Z"), Some(SCALE / 4));
    }

    #[test]
    fn bytes() {
        for (text, expected) in [
            ("", Some(&b""[..])),
            ("QmluYXJ5VmFsdWVJbkJhc2U2NA==", Some(b"BinaryValueInBase64")),
            ("Zm9v", Some(b"foo")),
            ("Zm8=", Some(b"fo")),
            ("Zm9=", None),
            ("Zg", None),
            ("Z===", None),
            ("Zm9 ", None),
        ] {
            assert_eq!(base64(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn networks() {
        for (network, address, expected) in [
            ("203.0.113.0/24", "203.0.113.255", true),
            ("203.0.113.77/24", "203.0.113.1", true),
            ("203.0.113.0/24", "203.0.114.0", false),
            ("203.0.113.7", "203.0.113.8", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "1.2.3.4", false),
            ("::/0", "2001:db8::1", true),
            ("2001:DB8:1234:5678::/64", "2001:db8:1234:5678:9::", true),
            ("203.0.113.0/24", "::ffff:203.0.113.9", true),
            ("::ffff:203.0.113.0/120", "203.0.113.9", true),
            ("203.0.113.0/24", "not an address", false),
        ] {
            assert_eq!(Network::parse(network).map(|it| it.contains(address)), Some(expected), "{network} {address}");
        }
        for malformed in ["", "1.2.3", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/+8", "1.2.3.*"] {
            assert_eq!(Network::parse(malformed), None, "{malformed}");
        }
    }
}
