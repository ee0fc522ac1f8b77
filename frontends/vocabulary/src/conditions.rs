//! Conditional requests, as pure functions of header values and the object's state.
//!
//! Reads follow S3's precedence: a satisfied If-Match silences If-Unmodified-Since, an If-None-Match silences
//! If-Modified-Since. Writes carry at most one condition, which the catalog decides atomically.

use crate::attrs::etag;
use crate::dates::parse_http_date;
use crate::error::{ErrorCode, S3Error};
use predastore::catalog::Precondition;

/// The four headers of a conditional read, or their `x-amz-copy-source-if-…` twins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadConditions<'a> {
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// `If-Modified-Since`; ignored when malformed.
    pub if_modified_since: Option<&'a str>,
    /// `If-Unmodified-Since`; ignored when malformed.
    pub if_unmodified_since: Option<&'a str>,
}

/// What a conditional read comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Serve it.
    Proceed,
    /// 304 without a body.
    NotModified,
    /// 412 `PreconditionFailed`.
    PreconditionFailed,
}

impl ReadConditions<'_> {
    /// Evaluates the headers against an object. `etag`: without quotes. `modified_ms`: since the Unix epoch; HTTP
    /// dates have whole seconds, so the fraction is dropped.
    pub fn evaluate(&self, etag: &str, modified_ms: i64) -> Outcome {
        let modified_s = modified_ms.div_euclid(1000);
        let changed_since = |header: Option<&str>| header.and_then(parse_http_date).map(|since_s| modified_s > since_s);

        let holds = match self.if_match {
            Some(list) => any_tag(list, |tag| tag.matches_strongly(etag)),
            None => changed_since(self.if_unmodified_since) != Some(true),
        };
        if !holds {
            return Outcome::PreconditionFailed;
        }
        let fresh = match self.if_none_match {
            Some(list) => any_tag(list, |tag| tag.matches_weakly(etag)),
            None => changed_since(self.if_modified_since) == Some(false),
        };
        if fresh { Outcome::NotModified } else { Outcome::Proceed }
    }
}

impl ReadConditions<'_> {
    /// The header that decided an outcome other than to proceed.
    pub fn decided_by(&self, outcome: Outcome) -> &'static str {
        match outcome {
            Outcome::NotModified if self.if_none_match.is_some() => "If-None-Match",
            Outcome::NotModified => "If-Modified-Since",
            _ if self.if_match.is_some() => "If-Match",
            _ => "If-Unmodified-Since",
        }
    }
}

/// The condition of a write, for the catalog to decide in the write's own command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteCondition {
    /// No condition.
    Always,
    /// `If-None-Match: *`: nothing visible is there.
    Absent,
    /// `If-Match: *`: something visible is there.
    Present,
    /// `If-Match: "etag"`; without quotes.
    Matches(String),
}

impl WriteCondition {
    /// Reads the conditions of PUT, CompleteMultipartUpload or DELETE.
    ///
    /// # Errors
    /// `NotImplemented`, as S3 answers, for both headers at once, a list, a weak tag or an If-None-Match other than `*`.
    pub fn parse(if_match: Option<&str>, if_none_match: Option<&str>) -> Result<WriteCondition, S3Error> {
        match (if_match.map(str::trim), if_none_match.map(str::trim)) {
            (None, None) => Ok(WriteCondition::Always),
            (None, Some("*")) => Ok(WriteCondition::Absent),
            (Some("*"), None) => Ok(WriteCondition::Present),
            (Some(tag), None) => single_tag(tag).map(WriteCondition::Matches),
            _ => Err(ErrorCode::NotImplemented.into()),
        }
    }
}

impl From<WriteCondition> for Precondition {
    fn from(condition: WriteCondition) -> Self {
        match condition {
            WriteCondition::Always => Precondition::default(),
            WriteCondition::Absent => Precondition { if_none_match: Some(vec![None]), ..Default::default() },
            WriteCondition::Present => Precondition { if_match: Some(vec![None]), ..Default::default() },
            WriteCondition::Matches(tag) => {
                Precondition { if_match: Some(vec![Some(etag(&tag))]), ..Default::default() }
            }
        }
    }
}

fn single_tag(text: &str) -> Result<String, S3Error> {
    let mut tags = tags(text);
    match (tags.next(), tags.next()) {
        (Some(Tag::Exact { weak: false, value }), None) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(ErrorCode::NotImplemented.into()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag<'a> {
    Any,
    Exact { weak: bool, value: &'a str },
}

impl Tag<'_> {
    /// RFC 9110: If-Match compares strongly, so a weak tag never matches.
    fn matches_strongly(self, etag: &str) -> bool {
        match self {
            Tag::Any => true,
            Tag::Exact { weak, value } => !weak && value == etag,
        }
    }

    fn matches_weakly(self, etag: &str) -> bool {
        match self {
            Tag::Any => true,
            Tag::Exact { value, .. } => value == etag,
        }
    }
}

fn any_tag(list: &str, matches: impl Fn(Tag<'_>) -> bool) -> bool {
    tags(list).any(matches)
}

/// S3's ETags hold no comma, so a comma always separates. Clients often leave the quotes away.
fn tags(list: &str) -> impl Iterator<Item = Tag<'_>> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty()).map(tag)
}

fn tag(item: &str) -> Tag<'_> {
    if item == "*" {
        return Tag::Any;
    }
    let (weak, quoted) = match item.strip_prefix("W/") {
        Some(rest) => (true, rest),
        None => (false, item),
    };
    Tag::Exact { weak, value: unquote_etag(quoted) }
}

/// An ETag without the quotes around it, if it has both.
pub fn unquote_etag(etag: &str) -> &str {
    etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(etag)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use Outcome::*;

    const ETAG: &str = "9b2cf535f27731c974343645a3985328";
    const MODIFIED_MS: i64 = 784_111_777_900;
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn evaluate(conditions: ReadConditions<'_>) -> Outcome {
        conditions.evaluate(ETAG, MODIFIED_MS)
    }

    fn if_match(list: &str) -> Outcome {
        evaluate(ReadConditions { if_match: Some(list), ..Default::default() })
    }

    fn if_none_match(list: &str) -> Outcome {
        evaluate(ReadConditions { if_none_match: Some(list), ..Default::default() })
    }

    #[test]
    fn etags_match_quoted_bare_in_lists_and_by_star() {
        let quoted = format!("\"{ETAG}\"");
        for list in [ETAG.to_owned(), quoted.clone(), "*".into(), format!("\"x\", {quoted}"), format!("x,{ETAG} ,y")] {
            assert_eq!(if_match(&list), Proceed, "{list}");
            assert_eq!(if_none_match(&list), NotModified, "{list}");
        }
        for list in ["\"x\"", "x", "", ",", "\"", &format!("\"{ETAG}")] {
            assert_eq!(if_match(list), PreconditionFailed, "{list}");
            assert_eq!(if_none_match(list), Proceed, "{list}");
        }
    }

    #[test]
    fn weak_tags_match_only_for_if_none_match() {
        let weak = format!("W/\"{ETAG}\"");
        assert_eq!(if_match(&weak), PreconditionFailed);
        assert_eq!(if_none_match(&weak), NotModified);
    }

    #[test]
    fn dates_compare_whole_seconds_and_malformed_ones_are_ignored() {
        let modified = |date| evaluate(ReadConditions { if_modified_since: Some(date), ..Default::default() });
        let unmodified = |date| evaluate(ReadConditions { if_unmodified_since: Some(date), ..Default::default() });
        assert_eq!([BEFORE, SAME, AFTER, "soon"].map(modified), [Proceed, NotModified, NotModified, Proceed]);
        assert_eq!([BEFORE, SAME, AFTER, "soon"].map(unmodified), [PreconditionFailed, Proceed, Proceed, Proceed]);
    }

    #[test]
    fn s3_precedence() {
        let with = |if_match, if_none_match, if_modified_since, if_unmodified_since| {
            evaluate(ReadConditions { if_match, if_none_match, if_modified_since, if_unmodified_since })
        };
        // If-Match true and If-Unmodified-Since false: 200.
        assert_eq!(with(Some(ETAG), None, None, Some(BEFORE)), Proceed);
        // If-None-Match false and If-Modified-Since true: 304.
        assert_eq!(with(None, Some(ETAG), Some(BEFORE), None), NotModified);
        // If-None-Match true and If-Modified-Since false: 200.
        assert_eq!(with(None, Some("x"), Some(AFTER), None), Proceed);
        // A failed If-Match wins over all.
        assert_eq!(with(Some("x"), Some(ETAG), None, Some(AFTER)), PreconditionFailed);
    }

    #[test]
    fn the_header_that_decided_is_known() {
        let all = ReadConditions {
            if_match: Some("x"),
            if_none_match: Some(ETAG),
            if_modified_since: Some(AFTER),
            if_unmodified_since: Some(BEFORE),
        };
        let by_tags = [PreconditionFailed, NotModified].map(|outcome| all.decided_by(outcome));
        let times = ReadConditions { if_match: None, if_none_match: None, ..all };
        let by_times = [PreconditionFailed, NotModified].map(|outcome| times.decided_by(outcome));
        assert_eq!(by_tags, ["If-Match", "If-None-Match"]);
        assert_eq!(by_times, ["If-Unmodified-Since", "If-Modified-Since"]);
    }

    #[test]
    fn write_conditions() {
        let parse = WriteCondition::parse;
        assert_eq!(parse(None, None), Ok(WriteCondition::Always));
        assert_eq!(parse(None, Some("*")), Ok(WriteCondition::Absent));
        assert_eq!(parse(Some("*"), None), Ok(WriteCondition::Present));
        assert_eq!(parse(Some("\"abc\""), None), Ok(WriteCondition::Matches("abc".into())));
        assert_eq!(parse(Some("abc-2"), None), Ok(WriteCondition::Matches("abc-2".into())));
        for (if_match, if_none_match) in [
            (None, Some("\"abc\"")),
            (Some("a"), Some("*")),
            (Some("a, b"), None),
            (Some("W/\"a\""), None),
            (Some(""), None),
        ] {
            let refused = parse(if_match, if_none_match).unwrap_err();
            assert_eq!(refused.code, ErrorCode::NotImplemented);
        }
    }
}
