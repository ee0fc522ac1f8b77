//! Object lock as XML: what a bucket says, retention, legal hold.

use predastore::catalog::{LockRule, Period, Retention, RetentionMode};
use predastore::env::Timestamp;

use super::Writer;
use super::reader::{Element, malformed};
use crate::dates::parse_iso_8601_ms;
use crate::error::{ErrorCode, S3Error};

/// As S3 calls it.
pub fn mode_name(mode: RetentionMode) -> &'static str {
    match mode {
        RetentionMode::Governance => "GOVERNANCE",
        RetentionMode::Compliance => "COMPLIANCE",
    }
}

/// None: S3 knows none of that name.
pub fn parse_mode(name: &str) -> Option<RetentionMode> {
    [RetentionMode::Governance, RetentionMode::Compliance].into_iter().find(|mode| mode_name(*mode) == name)
}

/// A date that a client said; none: it is none.
pub fn parse_until(text: &str) -> Option<Timestamp> {
    parse_iso_8601_ms(text).map(|ms| Timestamp(ms.saturating_mul(1_000_000)))
}

/// Reads an ObjectLockConfiguration.
///
/// # Errors
/// `MalformedXML`; `InvalidArgument`: a period that is none.
pub fn object_lock_configuration(body: &[u8]) -> Result<LockRule, S3Error> {
    let root = Element::parse(body)?.called("ObjectLockConfiguration")?.only(&["ObjectLockEnabled", "Rule"])?;
    if root.required("ObjectLockEnabled")?.trim() != "Enabled" {
        return Err(malformed());
    }
    let Some(rule) = root.child("Rule")? else { return Ok(LockRule::default()) };
    let default = rule.child("DefaultRetention")?.filter(|_| rule.children.len() == 1).ok_or_else(malformed)?;
    if !default.children.iter().all(|child| ["Mode", "Days", "Years"].contains(&child.name)) {
        return Err(malformed());
    }
    let mode = parse_mode(default.required("Mode")?.trim()).ok_or_else(malformed)?;
    let count = |text: &str| -> Result<u32, S3Error> {
        let number: i64 = text.trim().parse().map_err(|_| malformed())?;
        u32::try_from(number).map_err(|_| not_a_period(text))
    };
    let (period, text) = match (default.child_text("Days")?, default.child_text("Years")?) {
        (Some(text), None) => (Period::Days(count(text)?), text),
        (None, Some(text)) => (Period::Years(count(text)?), text),
        (Some(_), Some(_)) | (None, None) => return Err(malformed()),
    };
    period.days().ok_or_else(|| not_a_period(text))?;
    Ok(LockRule { default: Some((mode, period)) })
}

fn not_a_period(text: &str) -> S3Error {
    let message = "Default retention period must be a positive integer value, and a hundred years at most.";
    S3Error::invalid_argument(message, "DefaultRetention", text)
}

/// GetObjectLockConfiguration.
pub fn write_configuration(rule: LockRule) -> String {
    Writer::document("ObjectLockConfiguration", |xml| {
        xml.text("ObjectLockEnabled", "Enabled");
        let Some((mode, period)) = rule.default else { return };
        xml.element("Rule", |xml| {
            xml.element("DefaultRetention", |xml| {
                xml.text("Mode", mode_name(mode));
                match period {
                    Period::Days(count) => xml.value("Days", count),
                    Period::Years(count) => xml.value("Years", count),
                }
            });
        });
    })
}

/// Reads a Retention; an empty one lifts it.
///
/// # Errors
/// `MalformedXML`.
pub fn retention(body: &[u8]) -> Result<Option<Retention>, S3Error> {
    let root = Element::parse(body)?.called("Retention")?.only(&["Mode", "RetainUntilDate"])?;
    match (root.child_text("Mode")?, root.child_text("RetainUntilDate")?) {
        (None, None) => Ok(None),
        (Some(mode), Some(until)) => {
            let mode = parse_mode(mode.trim()).ok_or_else(malformed)?;
            let until = parse_until(until.trim()).ok_or_else(malformed)?;
            Ok(Some(Retention { mode, until }))
        }
        (Some(_), None) | (None, Some(_)) => Err(malformed()),
    }
}

/// GetObjectRetention.
pub fn write_retention(retention: Retention) -> String {
    Writer::document("Retention", |xml| {
        xml.text("Mode", mode_name(retention.mode));
        xml.time("RetainUntilDate", crate::respond::milliseconds(retention.until));
    })
}

/// `ON` or `OFF`; none: neither.
pub fn parse_hold(text: &str) -> Option<bool> {
    match text {
        "ON" => Some(true),
        "OFF" => Some(false),
        _ => None,
    }
}

/// Reads a LegalHold.
///
/// # Errors
/// `MalformedXML`.
pub fn legal_hold(body: &[u8]) -> Result<bool, S3Error> {
    let root = Element::parse(body)?.called("LegalHold")?.only(&["Status"])?;
    parse_hold(root.required("Status")?.trim()).ok_or_else(malformed)
}

/// GetObjectLegalHold.
pub fn write_legal_hold(hold: bool) -> String {
    Writer::document("LegalHold", |xml| xml.text("Status", if hold { "ON" } else { "OFF" }))
}

/// A hundred years.
const UNTIL_MAX_S: i64 = 36_525 * 86_400;

/// A retention that is over already is none, and one that lasts for ever is a mistake.
///
/// # Errors
/// `InvalidArgument`.
pub fn check_future(retention: Option<Retention>, now: Timestamp) -> Result<(), S3Error> {
    let latest = now.0.saturating_add(Timestamp::from_seconds(UNTIL_MAX_S).0);
    if retention.is_some_and(|retention| retention.until.0 > latest) {
        return Err(S3Error::new(
            ErrorCode::InvalidArgument,
            "The retain until date is more than a hundred years ahead",
        ));
    }
    match retention.filter(|retention| retention.until <= now) {
        None => Ok(()),
        Some(_) => Err(S3Error::new(ErrorCode::InvalidArgument, "The retain until date must be in the future!")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn configurations_read_back() {
        for default in [
            None,
            Some((RetentionMode::Governance, Period::Days(1))),
            Some((RetentionMode::Compliance, Period::Years(100))),
        ] {
            let rule = LockRule { default };
            assert_eq!(object_lock_configuration(write_configuration(rule).as_bytes()).unwrap(), rule);
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        let with = |rule: &str| {
            let enabled = "<ObjectLockEnabled>Enabled</ObjectLockEnabled>";
            let body = format!("<ObjectLockConfiguration>{enabled}{rule}</ObjectLockConfiguration>");
            object_lock_configuration(body.as_bytes()).unwrap_err().code
        };
        let rule = |inside: &str| with(&format!("<Rule><DefaultRetention>{inside}</DefaultRetention></Rule>"));
        let mode = "<Mode>GOVERNANCE</Mode>";
        assert_eq!(with("<Rule/>"), ErrorCode::MalformedXML);
        for inside in [
            "<Days>1</Days>".to_owned(),
            mode.to_owned(),
            format!("{mode}<Days>1</Days><Years>1</Years>"),
            format!("{mode}<Days>one</Days>"),
            "<Mode>governance</Mode><Days>1</Days>".to_owned(),
        ] {
            assert_eq!(rule(&inside), ErrorCode::MalformedXML, "{inside}");
        }
        for period in ["<Days>0</Days>", "<Days>-1</Days>", "<Years>101</Years>", "<Days>36501</Days>"] {
            assert_eq!(rule(&format!("{mode}{period}")), ErrorCode::InvalidArgument, "{period}");
        }
        let off = b"<ObjectLockConfiguration><ObjectLockEnabled>Disabled</ObjectLockEnabled></ObjectLockConfiguration>";
        assert!(
            object_lock_configuration(off).is_err()
                && object_lock_configuration(b"<ObjectLockConfiguration/>").is_err()
        );
    }

    #[test]
    fn retentions_and_holds_read_back() {
        let one = Retention { mode: RetentionMode::Compliance, until: Timestamp(1_900_000_000_123_000_000) };
        assert_eq!(retention(write_retention(one).as_bytes()).unwrap(), Some(one));
        assert_eq!(retention(b"<Retention/>").unwrap(), None);
        assert!(retention(b"<Retention><Mode>GOVERNANCE</Mode></Retention>").is_err());
        for hold in [true, false] {
            assert_eq!(legal_hold(write_legal_hold(hold).as_bytes()).unwrap(), hold);
        }
        assert!(legal_hold(b"<LegalHold><Status>on</Status></LegalHold>").is_err());
    }
}
