//! The forms of values: sizes, times, switches, lists; each read from text, since flags and environment have only that.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use figment::value::Value;
use serde::de::{Deserialize, Deserializer, Error as _};

/// A value that must never be shown: it has no `Display`, and its `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself. Whoever calls this answers for where it goes.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// An error names no value, unlike those that serde makes.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = <Value as Deserialize>::deserialize(deserializer)?;
        value.into_string().map(Secret).ok_or_else(|| D::Error::custom("must be text; put it in quotes"))
    }
}

/// A number of bytes: `65536`, `64KiB`, `1.5GB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Size(pub(crate) u64);

const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "is no size: write it as 512KiB, 64MiB or 2GB".to_owned();
        scaled(text, SIZE_UNITS).map(Size).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.iter().find(|(_, shift)| self.0 != 0 && self.0.is_multiple_of(1 << shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A length of time: `500ms`, `30s`, `5m`, `24h`, `7d`. A number without a unit is refused: which would it be?
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Span(pub(crate) Duration);

const SPAN_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "is no time: write it as 500ms, 30s, 5m, 24h or 7d".to_owned();
        scaled(text, SPAN_UNITS).map(|ms| Span(Duration::from_millis(ms))).ok_or_else(wrong)
    }
}

/// `text` as a decimal number and one of `units`, in the smallest of them.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    if !number.contains('.') {
        return number.parse::<u64>().ok()?.checked_mul(*factor);
    }
    let exact = number.parse::<f64>().ok()? * *factor as f64;
    (exact < u64::MAX as f64).then_some(exact as u64)
}

/// `on` or `off`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Switch(pub(crate) bool);

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Ok(Switch(true)),
            "off" | "false" | "no" | "0" => Ok(Switch(false)),
            _ => Err("is neither on nor off".to_owned()),
        }
    }
}

/// Reads any scalar through its text, so that `port: 8443`, `port: "8443"` and `PORT=8443` are one.
pub(crate) fn scalar<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let text = text_of(&<Value as Deserialize>::deserialize(deserializer)?)
        .ok_or_else(|| D::Error::custom("must be a single value"))?;
    text.parse().map_err(|error| D::Error::custom(format!("`{text}` {}", reason(&error))))
}

/// As [`scalar`], of something that may be absent.
pub(crate) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    scalar(deserializer).map(Some)
}

/// A list, or its items in one text with commas between.
pub(crate) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    match <Value as Deserialize>::deserialize(deserializer)? {
        Value::Array(_, items) => items
            .iter()
            .map(|item| text_of(item).ok_or_else(|| D::Error::custom("must be a list of single values")))
            .collect(),
        value => {
            let text = text_of(&value).ok_or_else(|| D::Error::custom("must be a list"))?;
            Ok(text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
        }
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Bool(_, switch) => Some(switch.to_string()),
        Value::Num(_, number) => number
            .to_u128()
            .map(|n| n.to_string())
            .or_else(|| number.to_i128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string())),
        _ => None,
    }
}

/// Our own errors read on from the value; the standard library's do not.
fn reason(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    if text.starts_with("is ") { text } else { format!("is not valid: {text}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_and_times_are_read_with_their_units() {
        let size = |text: &str| text.parse::<Size>().map(|size| size.0);
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("4KiB"), Ok(4096));
        assert_eq!(size("4 k"), Ok(4096));
        assert_eq!(size("1.5GB"), Ok(1_500_000_000));
        for wrong in ["", "KiB", "4 bananas", "-1", "99999999999999999999", "17179869184GiB", "1.2.3"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        let span = |text: &str| text.parse::<Span>().map(|span| span.0);
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(span("7d"), Ok(Duration::from_secs(604_800)));
        assert!(span("30").is_err(), "a time without a unit");
    }

    #[test]
    fn sizes_are_shown_as_they_are_written() {
        for text in ["4KiB", "64MiB", "3GiB", "1000B", "0B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }
}
