//! The operators of `Condition`: one [`Condition`] an operator and key.
//!
//! Semantics, after "IAM JSON policy elements: Condition operators", "Conditions with multiple context keys or values",
//! "Set operators for multivalued context keys" and "IAM policy elements: Variables and tags" in AWS's IAM User Guide:
//! - Several values in the policy: any may match. A negated operator is the opposite of its plain one: none may.
//! - A key that the request lacks matches nothing: false, and true for a negated operator or with `IfExists`.
//! - A variable without a value is equal to nothing and like nothing.
//! - `ForAllValues:` every value of the request passes; true without any. `ForAnyValue:` one passes; false without any,
//!   even with `IfExists`. Empty strings do not count as values for these two.
//! - Without a set operator, a key with several values matches if one of them does.

use std::cmp::Ordering;

use super::decide::Request;
use super::glob::{Arn, Case, Syntax, Template};
use super::json::Node;
use super::value::{self, Network};
use super::{Error, VALUES_MAX};

/// An operator on one key, with the policy's values.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    /// In lower case.
    key: String,
    set: Option<Set>,
    if_exists: bool,
    negated: bool,
    test: Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    All,
    Any,
}

/// The values of the policy, ready to be compared; any may match.
#[derive(Clone, Debug)]
enum Test {
    Text(Case, Vec<Template>),
    Arn(Vec<Arn>),
    Ordered(Scale, Order, Vec<i128>),
    Bool(Vec<bool>),
    Binary(Vec<Vec<u8>>),
    Address(Vec<Network>),
    Null(Vec<bool>),
}

/// What an operator compares; [`Test`] without its values.
#[derive(Clone, Copy, Debug)]
enum Family {
    Text { case: Case, wildcards: bool },
    Arn,
    Ordered(Scale, Order),
    Bool,
    Binary,
    Address,
    Null,
}

#[derive(Clone, Copy, Debug)]
enum Scale {
    Number,
    Date,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    /// A whole `Condition` element: operators, keys, values. `variables`: the policy's version has them.
    ///
    /// # Errors
    /// `Type`, `Count`, `Value`. `Unknown`: the operator.
    pub(super) fn parse_all(node: Node, variables: bool) -> Result<Vec<Condition>, Error> {
        let mut conditions = Vec::new();
        for (operator, keys) in node.map()? {
            let unknown = Error::Unknown { path: keys.path.clone() };
            let operator = Operator::parse(&operator).ok_or(unknown)?;
            for (key, values) in keys.map()? {
                conditions.push(operator.with(&key, values, variables)?);
            }
        }
        Ok(conditions)
    }

    /// Whether it is about `key`, and true only where that has one of some values without wildcards and variables.
    pub(super) fn has_fixed_values(&self, key: &str) -> bool {
        let is_fixed = match &self.test {
            Test::Text(_, patterns) => patterns.iter().all(Template::is_fixed),
            Test::Arn(patterns) => patterns.iter().all(Arn::is_fixed),
            Test::Ordered(_, Order::Equal, _) | Test::Binary(_) => true,
            Test::Ordered(..) | Test::Bool(_) | Test::Address(_) | Test::Null(_) => false,
        };
        self.narrows_to(key) && is_fixed
    }

    /// Whether it is about `key`, and true only for addresses in networks that are no continent: 8 bits and more, or 32 of IPv6.
    pub(super) fn has_narrow_networks(&self, key: &str) -> bool {
        let is_narrow = match &self.test {
            Test::Address(networks) => networks.iter().all(Network::is_narrow),
            _ => false,
        };
        self.narrows_to(key) && is_narrow
    }

    fn narrows_to(&self, key: &str) -> bool {
        self.key == key && !self.negated && !self.if_exists && self.set != Some(Set::All)
    }

    /// Whether it or a variable in it asks for a key that begins so.
    pub(super) fn asks_for(&self, prefix: &str) -> bool {
        let in_values = match &self.test {
            Test::Text(_, patterns) => patterns.iter().any(|pattern| pattern.asks_for(prefix)),
            Test::Arn(patterns) => patterns.iter().any(|pattern| pattern.asks_for(prefix)),
            Test::Ordered(..) | Test::Bool(_) | Test::Binary(_) | Test::Address(_) | Test::Null(_) => false,
        };
        self.key.starts_with(prefix) || in_values
    }

    pub(super) fn holds(&self, request: &Request<'_>) -> bool {
        let values = request.values(&self.key).filter(|values| !values.is_empty());
        if let Test::Null(expected) = &self.test {
            return expected.contains(&values.is_none());
        }
        let passes = |value: &str| self.negated != self.test.matches(value, request);
        let mut present = values.iter().flatten().filter(|value| !value.is_empty());
        match (self.set, &values) {
            (Some(Set::All), _) => present.all(|value| passes(value)),
            (Some(Set::Any), _) => present.any(|value| passes(value)),
            (None, None) => self.negated || self.if_exists,
            (None, Some(values)) => self.negated != values.iter().any(|value| self.test.matches(value, request)),
        }
    }
}

/// The name of an operator, taken apart.
#[derive(Clone, Copy)]
struct Operator {
    set: Option<Set>,
    if_exists: bool,
    negated: bool,
    family: Family,
}

impl Operator {
    fn parse(name: &str) -> Option<Operator> {
        let (set, name) = match name.split_once(':') {
            None => (None, name),
            Some(("ForAllValues", name)) => (Some(Set::All), name),
            Some(("ForAnyValue", name)) => (Some(Set::Any), name),
            Some(_) => return None,
        };
        let (if_exists, name) = match name.strip_suffix("IfExists") {
            None => (false, name),
            Some(name) => (true, name),
        };
        let (negated, family) = family(name)?;
        let plain = set.is_none() && !if_exists;
        (plain || !matches!(family, Family::Null)).then_some(Operator { set, if_exists, negated, family })
    }

    fn with(self, key: &str, values: Node, variables: bool) -> Result<Condition, Error> {
        let test = self.family.test(values, variables)?;
        let Operator { set, if_exists, negated, family: _ } = self;
        Ok(Condition { key: key.to_lowercase(), set, if_exists, negated, test })
    }
}

/// Whether it is negated, and what it compares.
fn family(name: &str) -> Option<(bool, Family)> {
    let text = |case, wildcards| Family::Text { case, wildcards };
    Some(match name {
        "StringEquals" => (false, text(Case::Differs, false)),
        "StringNotEquals" => (true, text(Case::Differs, false)),
        "StringEqualsIgnoreCase" => (false, text(Case::Ignored, false)),
        "StringNotEqualsIgnoreCase" => (true, text(Case::Ignored, false)),
        "StringLike" => (false, text(Case::Differs, true)),
        "StringNotLike" => (true, text(Case::Differs, true)),
        "ArnEquals" | "ArnLike" => (false, Family::Arn),
        "ArnNotEquals" | "ArnNotLike" => (true, Family::Arn),
        "Bool" => (false, Family::Bool),
        "BinaryEquals" => (false, Family::Binary),
        "IpAddress" => (false, Family::Address),
        "NotIpAddress" => (true, Family::Address),
        "Null" => (false, Family::Null),
        _ => match (name.strip_prefix("Numeric"), name.strip_prefix("Date")) {
            (Some(order), _) => ordered(Scale::Number, order)?,
            (_, Some(order)) => ordered(Scale::Date, order)?,
            (None, None) => return None,
        },
    })
}

fn ordered(scale: Scale, order: &str) -> Option<(bool, Family)> {
    let (negated, order) = match order {
        "Equals" => (false, Order::Equal),
        "NotEquals" => (true, Order::Equal),
        "LessThan" => (false, Order::Less),
        "LessThanEquals" => (false, Order::LessOrEqual),
        "GreaterThan" => (false, Order::Greater),
        "GreaterThanEquals" => (false, Order::GreaterOrEqual),
        _ => return None,
    };
    Some((negated, Family::Ordered(scale, order)))
}

impl Family {
    fn test(self, values: Node, variables: bool) -> Result<Test, Error> {
        Ok(match self {
            Family::Text { case, wildcards } => {
                let parse = |text: &str| Template::parse(text, Syntax { variables, wildcards });
                Test::Text(case, each(values, "text whose variables are like `${aws:username}`", parse)?)
            }
            Family::Arn => Test::Arn(each(values, Arn::EXPECTED, |text| Arn::parse(text, variables))?),
            Family::Ordered(scale, order) => {
                Test::Ordered(scale, order, each(values, scale.expected(), |text| scale.parse(text))?)
            }
            Family::Bool => Test::Bool(each(values, "true or false", boolean)?),
            Family::Binary => Test::Binary(each(values, "base64", value::base64)?),
            Family::Address => Test::Address(each(values, "an IP address or network", Network::parse)?),
            Family::Null => Test::Null(each(values, "true or false", boolean)?),
        })
    }
}

fn each<T>(values: Node, expected: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Error> {
    values.one_or_many(VALUES_MAX)?.into_iter().map(|value| value.scalar(expected, &parse)).collect()
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

impl Test {
    /// Whether one of the policy's values matches; the request's value may be anything at all.
    fn matches(&self, value: &str, request: &Request<'_>) -> bool {
        let lookup = &|key: &str| request.variable(key);
        match self {
            Test::Text(case, patterns) => {
                patterns.iter().any(|pattern| pattern.matches(value, *case, lookup) == Some(true))
            }
            Test::Arn(patterns) => patterns.iter().any(|pattern| pattern.matches(value, lookup) == Some(true)),
            Test::Ordered(scale, order, bounds) => {
                let number = scale.parse(value);
                number.is_some_and(|number| bounds.iter().any(|bound| order.accepts(number.cmp(bound))))
            }
            Test::Bool(expected) => boolean(value).is_some_and(|value| expected.contains(&value)),
            Test::Binary(expected) => expected.iter().any(|bytes| bytes == value.as_bytes()),
            Test::Address(networks) => networks.iter().any(|network| network.contains(value)),
            Test::Null(_) => false,
        }
    }
}

impl Scale {
    fn parse(self, text: &str) -> Option<i128> {
        match self {
            Scale::Number => value::number(text),
            Scale::Date => value::date(text),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Scale::Number => "a number",
            Scale::Date => "a date as in ISO 8601, or seconds since 1970",
        }
    }
}

impl Order {
    fn accepts(self, ordering: Ordering) -> bool {
        match self {
            Order::Equal => ordering.is_eq(),
            Order::Less => ordering.is_lt(),
            Order::LessOrEqual => ordering.is_le(),
            Order::Greater => ordering.is_gt(),
            Order::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::super::Principal;
    use super::*;

    /// Whether `condition` holds where `k` has `values`.
    fn holds(condition: &str, values: &[&str]) -> bool {
        let context: BTreeMap<_, _> = [("k".to_owned(), values.iter().map(|value| value.to_string()).collect())].into();
        let principal = Principal::User { account: "1", name: "ann*" };
        let request = Request { action: "s3:GetObject", bucket: "b", key: "", principal, context: &context };
        let conditions = Condition::parse_all(Node::parse(condition.as_bytes()).unwrap(), true).unwrap();
        conditions.iter().all(|condition| condition.holds(&request))
    }

    fn one(operator: &str, expected: &str, value: &str) -> bool {
        holds(&format!("{{{operator:?}: {{\"K\": {expected:?}}}}}"), &[value])
    }

    #[test]
    fn every_operator_and_its_negation() {
        for (plain, negated, expected, value, matches) in [
            ("StringEquals", "StringNotEquals", "a*", "a*", true),
            ("StringEquals", "StringNotEquals", "a*", "ab", false),
            ("StringEquals", "StringNotEquals", "a", "A", false),
            ("StringEquals", "StringNotEquals", "${aws:username}", "ann*", true),
            ("StringEquals", "StringNotEquals", "${none}", "", false),
            ("StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "É", "é", true),
            ("StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "a?", "AB", false),
            ("StringLike", "StringNotLike", "a?*", "abc", true),
            ("StringLike", "StringNotLike", "${aws:username}", "anna", false),
            ("NumericEquals", "NumericNotEquals", "1.50", "1.5", true),
            ("NumericEquals", "NumericNotEquals", "1", "one", false),
            ("DateEquals", "DateNotEquals", "2026-11-30", "1795996800", true),
            ("DateEquals", "DateNotEquals", "2026-11-30", "2026-11-30T00:00:01Z", false),
            ("IpAddress", "NotIpAddress", "10.0.0.0/8", "10.9.8.7", true),
            ("IpAddress", "NotIpAddress", "10.0.0.0/8", "11.9.8.7", false),
            ("ArnEquals", "ArnNotEquals", "arn:aws:iam::1:user/*", "arn:aws:iam::1:user/x", true),
            ("ArnLike", "ArnNotLike", "arn:aws:iam::1:*", "arn:aws:iam::2:user/x", false),
        ] {
            assert_eq!(one(plain, expected, value), matches, "{plain} {expected} {value}");
            assert_eq!(one(negated, expected, value), !matches, "{negated} {expected} {value}");
        }
    }

    #[test]
    fn operators_without_a_negation() {
        for (operator, expected, value, matches) in [
            ("NumericLessThan", "10", "9.9", true),
            ("NumericLessThan", "10", "10", false),
            ("NumericLessThanEquals", "10", "10", true),
            ("NumericGreaterThan", "10", "10", false),
            ("NumericGreaterThanEquals", "10", "10", true),
            ("NumericGreaterThan", "-1", "x", false),
            ("DateLessThan", "2026-11-30T02:00:00Z", "2026-11-30T02:59:59+01:00", true),
            ("DateGreaterThan", "2026-11-30T02:00:00Z", "2026-11-30T02:59:59+01:00", false),
            ("DateLessThanEquals", "0", "1970-01-01", true),
            ("DateGreaterThanEquals", "1", "1970-01-01", false),
            ("Bool", "true", "True", true),
            ("Bool", "false", "true", false),
            ("Bool", "false", "perhaps", false),
            ("BinaryEquals", "Zm9v", "foo", true),
            ("BinaryEquals", "Zm9v", "Zm9v", false),
            ("Null", "false", "x", true),
            ("Null", "true", "x", false),
        ] {
            assert_eq!(one(operator, expected, value), matches, "{operator} {expected} {value}");
        }
    }

    #[test]
    fn missing_keys() {
        for (operator, expected, holds_without) in [
            ("StringEquals", "x", false),
            ("StringNotEquals", "x", true),
            ("StringLike", "*", false),
            ("NotIpAddress", "1.1.1.1", true),
            ("Bool", "false", false),
            ("NumericLessThan", "5", false),
            ("NumericLessThanIfExists", "5", true),
            ("StringNotEqualsIfExists", "x", true),
            ("ForAllValues:StringEquals", "x", true),
            ("ForAllValues:StringNotEquals", "x", true),
            ("ForAnyValue:StringEquals", "x", false),
            ("ForAnyValue:StringNotEquals", "x", false),
            ("ForAnyValue:StringLikeIfExists", "x", false),
            ("Null", "true", true),
            ("Null", "false", false),
        ] {
            let condition = format!("{{{operator:?}: {{\"other\": {expected:?}}}}}");
            assert_eq!(holds(&condition, &["x"]), holds_without, "{condition}");
            let condition = format!("{{{operator:?}: {{\"k\": {expected:?}}}}}");
            assert_eq!(holds(&condition, &[]), holds_without, "{condition}, empty");
        }
        assert!(!holds(r#"{"NumericLessThanIfExists": {"k": 5}}"#, &["6"]));
    }

    #[test]
    fn many_values() {
        for (operator, values, expected) in [
            ("StringEquals", &["b"][..], true),
            ("StringEquals", &["c"], false),
            ("StringEquals", &["c", "b"], true),
            ("StringNotEquals", &["b"], false),
            ("StringNotEquals", &["c"], true),
            ("StringNotEquals", &["c", "b"], false),
            ("ForAllValues:StringEquals", &["a", "b"], true),
            ("ForAllValues:StringEquals", &["a", "c"], false),
            ("ForAllValues:StringNotEquals", &["c", "a"], false),
            ("ForAllValues:StringEquals", &[""], true),
            ("ForAnyValue:StringEquals", &["c", "b"], true),
            ("ForAnyValue:StringEquals", &["c", "d"], false),
            ("ForAnyValue:StringNotEquals", &["a", "c"], true),
            ("ForAnyValue:StringNotEquals", &["a", "b"], false),
            ("ForAnyValue:StringNotEquals", &[""], false),
        ] {
            assert_eq!(
                holds(&format!("{{{operator:?}: {{\"k\": [\"a\", \"b\"]}}}}"), values),
                expected,
                "{operator} {values:?}"
            );
        }
    }

    #[test]
    fn operators_and_keys_all_have_to_hold() {
        let both = r#"{"StringLike": {"k": "a*"}, "StringNotLike": {"K": "ab*"}}"#;
        assert!(holds(both, &["ac"]));
        assert!(!holds(both, &["abc"]));
        assert!(!holds(r#"{"StringLike": {"k": "a*", "other": "*"}}"#, &["a"]));
        assert!(holds("{}", &[]));
        assert!(holds(r#"{"Bool": {"k": true}, "StringLike": {"k": "t*"}}"#, &["true"]));
    }
}
