//! Random policies and requests against a reference model: the rules as AWS's pages put them, read off the JSON each time,
//! by brute force and without the engine's own code.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::{Decision, Kind, Policies, Policy, Principal, Request};

/// A request as the model sees it: strings only.
#[derive(Clone, Debug)]
struct Asked {
    action: &'static str,
    bucket: &'static str,
    key: &'static str,
    /// Account and user; an empty one is none.
    who: (&'static str, &'static str),
    context: BTreeMap<String, Vec<String>>,
}

impl Asked {
    fn values(&self, key: &str) -> Vec<String> {
        let (account, user) = self.who;
        let some = |text: &str| if text.is_empty() { vec![] } else { vec![text.to_owned()] };
        match key.to_lowercase().as_str() {
            "aws:username" => some(user),
            "aws:principalaccount" => some(account),
            key => self.context.get(key).cloned().unwrap_or_default(),
        }
    }

    fn decide(&self, policy: &Value) -> Decision {
        let variables = policy.get("Version") == Some(&json!("2012-10-17"));
        let applying: Vec<_> =
            many(&policy["Statement"]).into_iter().filter(|it| self.applies(it, variables)).collect();
        if applying.iter().any(|statement| statement["Effect"] == "Deny") {
            Decision::Denied
        } else if applying.is_empty() {
            Decision::NotGranted
        } else {
            Decision::Allowed
        }
    }

    fn applies(&self, statement: &Value, variables: bool) -> bool {
        let allows = statement["Effect"] == "Allow";
        let action =
            |pattern: &str| like(&expand(&pattern.to_lowercase(), true, None).unwrap(), &self.action.to_lowercase());
        let resource = |pattern: &str| self.arn_like(pattern, &self.arn(), variables);
        let actions = match statement.get("Action") {
            Some(patterns) => texts(patterns).iter().any(|it| action(it)),
            None => !texts(&statement["NotAction"]).iter().any(|it| action(it)),
        };
        let resources = match statement.get("Resource") {
            Some(patterns) => texts(patterns).iter().any(|it| resource(it) == Some(true)),
            None => texts(&statement["NotResource"]).iter().all(|it| match resource(it) {
                Some(matches) => !matches,
                None => !allows,
            }),
        };
        let principals = match (statement.get("Principal"), statement.get("NotPrincipal")) {
            (Some(named), _) => self.is_named(named, true),
            (None, Some(named)) => !self.is_named(named, allows),
            (None, None) => true,
        };
        let conditions = statement.get("Condition").is_none_or(|it| {
            it.as_object().unwrap().iter().all(|(operator, keys)| {
                keys.as_object()
                    .unwrap()
                    .iter()
                    .all(|(key, values)| self.holds(operator, key, &texts(values), variables))
            })
        });
        actions && resources && principals && conditions
    }

    fn arn(&self) -> String {
        ["arn:aws:s3:::", self.bucket, if self.key.is_empty() { "" } else { "/" }, self.key].concat()
    }

    fn is_named(&self, named: &Value, with_users: bool) -> bool {
        let (account, user) = self.who;
        let is = |id: &String| match id.as_str() {
            "*" => true,
            "1" | "arn:aws:iam::1:root" => account == "1" && (with_users || user.is_empty()),
            "arn:aws:iam::1:user/a" => self.who == ("1", "a"),
            other => panic!("{other} is not in the model"),
        };
        named == "*" || named.get("AWS").is_some_and(|ids| texts(ids).iter().any(is))
    }

    fn holds(&self, operator: &str, key: &str, expected: &[String], variables: bool) -> bool {
        let values = self.values(key);
        if operator == "Null" {
            return expected.iter().any(|it| it == if values.is_empty() { "true" } else { "false" });
        }
        let (set, operator) = operator.split_once(':').unwrap_or(("", operator));
        let plain = operator.trim_end_matches("IfExists");
        let negated = plain.contains("Not");
        let base = plain.replace("Not", "");
        let one = |value: &String| expected.iter().any(|it| self.compare(&base, value, it, variables));
        let counted: Vec<_> = values.iter().filter(|value| !value.is_empty()).collect();
        match set {
            "ForAllValues" if negated => counted.into_iter().all(|value| !one(value)),
            "ForAllValues" => counted.into_iter().all(one),
            "ForAnyValue" if negated => counted.into_iter().any(|value| !one(value)),
            "ForAnyValue" => counted.into_iter().any(one),
            _ if values.is_empty() => negated || plain != operator,
            _ if negated => values.iter().all(|value| !one(value)),
            _ => values.iter().any(one),
        }
    }

    fn compare(&self, base: &str, value: &str, expected: &str, variables: bool) -> bool {
        let by = |number: fn(&str) -> Option<f64>, test: &dyn Fn(f64, f64) -> bool| match (
            number(value),
            number(expected),
        ) {
            (Some(value), Some(expected)) => test(value, expected),
            _ => false,
        };
        let text = |wild: bool, text: &str| expand(text, wild, variables.then_some(self));
        match base {
            "StringEquals" => text(false, expected).is_some_and(|it| like(&it, value)),
            "StringEqualsIgnoreCase" => text(false, expected).is_some_and(|it| like(&lower(it), &value.to_lowercase())),
            "StringLike" => text(true, expected).is_some_and(|it| like(&it, value)),
            "ArnEquals" | "ArnLike" => self.arn_like(expected, value, variables) == Some(true),
            "Bool" => value.to_lowercase() == expected,
            "BinaryEquals" => value == BASE64.iter().find(|(text, _)| *text == expected).unwrap().1,
            "IpAddress" => in_network(value, expected),
            "NumericEquals" => by(number, &|a, b| a == b),
            "NumericLessThan" => by(number, &|a, b| a < b),
            "NumericLessThanEquals" => by(number, &|a, b| a <= b),
            "NumericGreaterThan" => by(number, &|a, b| a > b),
            "NumericGreaterThanEquals" => by(number, &|a, b| a >= b),
            "DateEquals" => by(date, &|a, b| a == b),
            "DateLessThan" => by(date, &|a, b| a < b),
            "DateLessThanEquals" => by(date, &|a, b| a <= b),
            "DateGreaterThan" => by(date, &|a, b| a > b),
            "DateGreaterThanEquals" => by(date, &|a, b| a >= b),
            other => panic!("{other} is not in the model"),
        }
    }

    fn arn_like(&self, pattern: &str, arn: &str, variables: bool) -> Option<bool> {
        if pattern == "*" {
            return Some(true);
        }
        let (patterns, parts): (Vec<_>, Vec<_>) = (pattern.splitn(6, ':').collect(), arn.splitn(6, ':').collect());
        let expanded: Option<Vec<_>> = patterns.iter().map(|it| expand(it, true, variables.then_some(self))).collect();
        Some(parts.len() == 6 && expanded?.iter().zip(parts).all(|(pattern, part)| like(pattern, part)))
    }
}

/// A character and whether it is a wildcard.
type Symbols = Vec<(char, bool)>;

/// A pattern with its variables replaced, where there are any; none if one has no value.
fn expand(text: &str, wild: bool, variables: Option<&Asked>) -> Option<Symbols> {
    let plain = |text: &str| text.chars().map(|it| (it, wild && "*?".contains(it))).collect::<Symbols>();
    let Some(asked) = variables else { return Some(plain(text)) };
    let Some((before, rest)) = text.split_once("${") else { return Some(plain(text)) };
    let (inside, after) = rest.split_once('}').unwrap();
    let (key, default) = inside.split_once(", ").unwrap_or((inside, ""));
    let value = match (key, asked.values(key).as_slice()) {
        ("*" | "?" | "$", _) => key.to_owned(),
        (_, [value]) => value.clone(),
        (_, _) if !default.is_empty() => default.replace('\'', ""),
        (_, _) => return None,
    };
    let filled = value.chars().map(|it| (it, false)).collect();
    Some([plain(before), filled, expand(after, wild, variables)?].concat())
}

fn lower(symbols: Symbols) -> Symbols {
    symbols.into_iter().map(|(it, wild)| (it.to_lowercase().next().unwrap(), wild)).collect()
}

fn like(pattern: &[(char, bool)], text: &str) -> bool {
    let after_first = |text: &str| text.chars().skip(1).collect::<String>();
    match pattern.split_first() {
        None => text.is_empty(),
        Some((('*', true), rest)) => like(rest, text) || (!text.is_empty() && like(pattern, &after_first(text))),
        Some((('?', true), rest)) => !text.is_empty() && like(rest, &after_first(text)),
        Some(((it, _), rest)) => text.starts_with(*it) && like(rest, &after_first(text)),
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

fn date(text: &str) -> Option<f64> {
    match text {
        "1970-01-01" | "1970" => Some(0.0),
        "1970-01-02" | "1970-01-02T01:00+01:00" => Some(86_400.0),
        _ => number(text),
    }
}

fn in_network(address: &str, network: &str) -> bool {
    let bits = |text: &str| {
        let parts: Option<Vec<u8>> = text.split('.').map(|part| part.parse().ok()).collect();
        let parts = parts.filter(|parts| parts.len() == 4)?;
        Some(parts.iter().map(|part| format!("{part:08b}")).collect::<String>())
    };
    let (base, len) = network.split_once('/').unwrap_or((network, "32"));
    bits(address).is_some_and(|address| address.starts_with(&bits(base).unwrap()[..len.parse().unwrap()]))
}

/// A list, or the one value.
fn many(value: &Value) -> Vec<&Value> {
    value.as_array().map_or(vec![value], |list| list.iter().collect())
}

fn texts(value: &Value) -> Vec<String> {
    many(value).into_iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

const BASE64: [(&str, &str); 3] = [("YQ==", "a"), ("YWI=", "ab"), ("", "")];
const VALUES: &[&str] = &[
    "",
    "a",
    "A",
    "b",
    "ab",
    "a*",
    "*",
    "é",
    "É",
    "$",
    "0",
    "1",
    "1.5",
    "-1",
    "86400",
    "1970-01-01",
    "1970-01-02",
    "true",
    "False",
    "10.0.0.1",
    "10.0.0.2",
    "10.0.1.1",
    "arn:aws:iam::1:user/a",
    "arn:aws:s3:::a/b",
    "arn:aws:s3::a:b:ab",
];
const PIECES: &[&str] = &[
    "a",
    "b",
    "A",
    "é",
    "/",
    "*",
    "?",
    "*",
    "${aws:username}",
    "${AWS:principalaccount}",
    "${k}",
    "${m, 'a*'}",
    "${*}",
    "${?}",
    "${$}",
    "$",
];
const OPERATORS: &[(&str, &[&str])] = &[
    ("StringEquals", PIECES),
    ("StringNotEquals", PIECES),
    ("StringEqualsIgnoreCase", PIECES),
    ("StringNotEqualsIgnoreCase", PIECES),
    ("StringLike", PIECES),
    ("StringNotLike", PIECES),
    ("NumericEquals", NUMBERS),
    ("NumericNotEquals", NUMBERS),
    ("NumericLessThan", NUMBERS),
    ("NumericLessThanEquals", NUMBERS),
    ("NumericGreaterThan", NUMBERS),
    ("NumericGreaterThanEquals", NUMBERS),
    ("DateEquals", DATES),
    ("DateNotEquals", DATES),
    ("DateLessThan", DATES),
    ("DateLessThanEquals", DATES),
    ("DateGreaterThan", DATES),
    ("DateGreaterThanEquals", DATES),
    ("Bool", &["true", "false"]),
    ("BinaryEquals", &["YQ==", "YWI=", ""]),
    ("IpAddress", NETWORKS),
    ("NotIpAddress", NETWORKS),
    ("ArnEquals", ARNS),
    ("ArnLike", ARNS),
    ("ArnNotEquals", ARNS),
    ("ArnNotLike", ARNS),
    ("Null", &["true", "false"]),
];
const NUMBERS: &[&str] = &["0", "1", "1.50", "-1", "86400"];
const DATES: &[&str] = &["0", "1", "86400", "1970", "1970-01-02", "1970-01-02T01:00+01:00"];
const NETWORKS: &[&str] = &["10.0.0.1", "10.0.0.0/31", "10.0.0.3/30", "10.0.0.0/8", "0.0.0.0/0"];
const ARNS: &[&str] = &[
    "*",
    "arn:aws:iam::1:user/${aws:username}",
    "arn:aws:s3:::*",
    "arn:*:*:*:*:?/*",
    "arn:aws:s3::*:ab",
    "arn:aws:s3:*:b:*",
];
const ACTIONS: &[&str] =
    &["*", "s3:*", "s3:Get*", "S3:GETOBJECT", "s3:Put?bject", "s3:*Object", "iam:*", "s3:ListBucket"];

fn pattern() -> impl Strategy<Value = String> {
    prop::collection::vec(select(PIECES), 0..5).prop_map(|pieces| pieces.concat())
}

/// One value or a list.
fn one_or_many(one: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = Value> {
    prop_oneof![one.clone().prop_map(|one| json!(one)), prop::collection::vec(one, 1..4).prop_map(|many| json!(many))]
}

fn resource() -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        1 => Just("*".to_owned()),
        4 => prop::collection::vec(select(PIECES), 0..5).prop_map(|pieces| format!("arn:aws:s3:::{}", pieces.concat())),
        1 => select(ARNS).prop_map(str::to_owned),
    ]
}

fn condition() -> impl Strategy<Value = Value> {
    let operator = (select(OPERATORS), select(vec!["", "", "ForAllValues:", "ForAnyValue:"]), any::<bool>());
    operator.prop_flat_map(|((operator, pool), set, if_exists)| {
        let name = match operator {
            "Null" => operator.to_owned(),
            _ => format!("{set}{operator}{}", if if_exists { "IfExists" } else { "" }),
        };
        let value = match pool == PIECES {
            true => pattern().boxed(),
            false => select(pool).prop_map(str::to_owned).boxed(),
        };
        let keys = select(vec!["k", "K", "m", "none", "AWS:username"]);
        (keys, one_or_many(value.prop_map(|it| it).boxed()))
            .prop_map(move |(key, values)| json!({&name: {key: values}}))
    })
}

fn principal() -> impl Strategy<Value = Value> {
    select(vec![
        json!("*"),
        json!({"AWS": "*"}),
        json!({"AWS": "1"}),
        json!({"AWS": ["arn:aws:iam::1:user/a"]}),
        json!({"AWS": ["arn:aws:iam::1:user/a", "arn:aws:iam::1:root"]}),
        json!({"Service": "x"}),
    ])
}

fn statement(kind: Kind) -> impl Strategy<Value = Value> {
    let actions = one_or_many(select(ACTIONS).prop_map(str::to_owned));
    let inverse = || prop::bool::weighted(0.25);
    let parts = (select(vec!["Allow", "Allow", "Deny"]), actions, one_or_many(resource()), principal());
    (parts, (inverse(), inverse(), inverse()), prop::option::of(condition())).prop_map(
        move |((effect, actions, resources, principal), (not_action, not_resource, not_principal), condition)| {
            let mut statement = json!({"Effect": effect});
            statement[if not_action { "NotAction" } else { "Action" }] = actions;
            statement[if not_resource { "NotResource" } else { "Resource" }] = resources;
            if kind == Kind::Resource {
                statement[if not_principal { "NotPrincipal" } else { "Principal" }] = principal;
            }
            if let Some(condition) = condition {
                statement["Condition"] = condition;
            }
            statement
        },
    )
}

fn policy() -> impl Strategy<Value = (Kind, Value)> {
    let versions = vec![Some("2012-10-17"), Some("2012-10-17"), Some("2008-10-17"), None];
    (select(vec![Kind::Identity, Kind::Resource]), select(versions)).prop_flat_map(|(kind, version)| {
        prop::collection::vec(statement(kind), 1..4).prop_map(move |statements| {
            let mut policy = json!({"Statement": statements});
            if let Some(version) = version {
                policy["Version"] = json!(version);
            }
            (kind, policy)
        })
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let values = || prop::collection::vec(select(VALUES).prop_map(str::to_owned), 0..3);
    (
        select(vec!["s3:GetObject", "s3:PutObject", "s3:ListBucket"]),
        select(vec!["", "a", "b", "ab"]),
        select(vec!["", "a", "b", "a/b", "a*", "é", "$/b", "1/a"]),
        select(vec![("", ""), ("1", ""), ("1", "a"), ("1", "b*"), ("2", "a")]),
        (values(), values()),
    )
        .prop_map(|(action, bucket, key, who, (k, m))| {
            let context = [("k".to_owned(), k), ("m".to_owned(), m)].into();
            Asked { action, bucket, key, who, context }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_engine_decides_as_the_model((kind, json) in policy(), questions in prop::collection::vec(asked(), 1..8)) {
        let policies: Policies = [Policy::parse(json.to_string().as_bytes(), kind).unwrap()].into_iter().collect();
        for asked in questions {
            let principal = match asked.who {
                ("", _) => Principal::Anonymous,
                (account, "") => Principal::Account(account),
                (account, name) => Principal::User { account, name },
            };
            let Asked { action, bucket, key, ref context, .. } = asked;
            let decision = policies.decide(&Request { action, bucket, key, principal, context });
            prop_assert_eq!(decision, asked.decide(&json), "{:?}", asked);
        }
    }

    #[test]
    fn damaged_documents_are_read_or_refused((kind, json) in policy(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = json.to_string().into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        if let Err(error) = Policy::parse(&text, kind) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
