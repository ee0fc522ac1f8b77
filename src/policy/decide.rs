//! The decision. Source: "Policy evaluation logic" in AWS's IAM User Guide.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::document::{Effect, Policy, Scope, Statement};
use super::glob::{Arn, Case, Template};
use super::principal::Principal;

/// What policies say of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it and none denies it.
    Allowed,
    /// A statement denies it.
    Denied,
    /// No statement is about it: it may not be done.
    NotGranted,
}

impl Decision {
    /// What two sets of policies say together, such as an identity's and a bucket's of the same account.
    #[must_use]
    pub fn or(self, other: Decision) -> Decision {
        match (self, other) {
            (Decision::Denied, _) | (_, Decision::Denied) => Decision::Denied,
            (Decision::Allowed, _) | (_, Decision::Allowed) => Decision::Allowed,
            (Decision::NotGranted, Decision::NotGranted) => Decision::NotGranted,
        }
    }

    /// Whether it may be done.
    pub fn is_allowed(self) -> bool {
        self == Decision::Allowed
    }
}

/// The values of condition keys of one request.
pub trait Context {
    /// The values of `key`, which is in lower case (`s3:prefix`, `aws:sourceip`). None or empty: the request has no such
    /// key. Asked only when a condition or variable names the key.
    fn values(&self, key: &str) -> Option<Vec<Cow<'_, str>>>;
}

/// No keys at all.
impl Context for () {
    fn values(&self, _key: &str) -> Option<Vec<Cow<'_, str>>> {
        None
    }
}

/// By key in lower case.
impl Context for BTreeMap<String, Vec<String>> {
    fn values(&self, key: &str) -> Option<Vec<Cow<'_, str>>> {
        self.get(key).map(|values| values.iter().map(|value| Cow::Borrowed(value.as_str())).collect())
    }
}

/// What is asked.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Like `s3:GetObject`; case does not matter.
    pub action: &'a str,
    /// Empty: the service itself.
    pub bucket: &'a str,
    /// Empty: the bucket itself.
    pub key: &'a str,
    /// Who asks.
    pub principal: Principal<'a>,
    /// Its condition keys, apart from those of `principal`.
    pub context: &'a dyn Context,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { action, bucket, key, principal, context: _ } = self;
        write!(f, "Request {{ {action} on {bucket:?} {key:?} by {principal:?} }}")
    }
}

impl Request<'_> {
    /// The values of a key in lower case. The principal answers for its own keys, whatever the context says.
    pub(super) fn values(&self, key: &str) -> Option<Vec<Cow<'_, str>>> {
        match self.principal.value(key) {
            Some(value) => value.map(|value| vec![Cow::Owned(value)]),
            None => self.context.values(key),
        }
    }

    /// The value of a policy variable: keys with several values cannot be one.
    pub(super) fn variable(&self, key: &str) -> Option<String> {
        let mut values = self.values(key)?;
        let value = values.pop()?;
        values.is_empty().then(|| value.into_owned())
    }
}

/// Policies that are asked together.
#[derive(Clone, Debug, Default)]
pub struct Policies(pub Vec<Arc<Policy>>);

impl Policies {
    /// Denial wins, then permission, whatever the order.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        let subject = Subject::new(request);
        self.0.iter().map(|policy| policy.decide_on(&subject)).fold(Decision::NotGranted, Decision::or)
    }
}

impl Policy {
    /// What it says by itself.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        self.decide_on(&Subject::new(request))
    }

    fn decide_on(&self, subject: &Subject<'_>) -> Decision {
        let decisions = self.statements.iter().map(|statement| statement.decide(subject));
        decisions.fold(Decision::NotGranted, Decision::or)
    }
}

impl FromIterator<Policy> for Policies {
    fn from_iter<T: IntoIterator<Item = Policy>>(policies: T) -> Self {
        Policies(policies.into_iter().map(Arc::new).collect())
    }
}

/// A request as statements compare it.
struct Subject<'a> {
    request: &'a Request<'a>,
    /// In lower case.
    action: String,
    /// An ARN.
    resource: String,
}

impl<'a> Subject<'a> {
    fn new(request: &'a Request<'a>) -> Self {
        let slash = if request.key.is_empty() { "" } else { "/" };
        let resource = format!("arn:aws:s3:::{}{slash}{}", request.bucket, request.key);
        Subject { request, action: request.action.to_ascii_lowercase(), resource }
    }
}

impl Statement {
    fn decide(&self, subject: &Subject<'_>) -> Decision {
        match (self.is_about(subject), self.effect) {
            (false, _) => Decision::NotGranted,
            (true, Effect::Allow) => Decision::Allowed,
            (true, Effect::Deny) => Decision::Denied,
        }
    }

    fn is_about(&self, subject: &Subject<'_>) -> bool {
        self.names_action(&subject.action)
            && self.names_resource(subject)
            && self.names_principal(&subject.request.principal)
            && self.conditions.iter().all(|condition| condition.holds(subject.request))
    }

    fn names_action(&self, action: &str) -> bool {
        let covers = |pattern: &Template| pattern.matches(action, Case::Differs, &|_| None) == Some(true);
        match &self.actions {
            Scope::Only(patterns) => patterns.iter().any(covers),
            Scope::Except(patterns) => !patterns.iter().any(covers),
        }
    }

    /// A variable without a value names nothing; under `NotResource` of a permission it excludes everything, lest who has
    /// no name be allowed what is kept from everyone named.
    fn names_resource(&self, subject: &Subject<'_>) -> bool {
        let lookup = &|key: &str| subject.request.variable(key);
        let matches = |arn: &Arn| arn.matches(&subject.resource, lookup);
        match &self.resources {
            Scope::Only(arns) => arns.iter().any(|arn| matches(arn) == Some(true)),
            Scope::Except(arns) => !arns.iter().any(|arn| matches(arn).unwrap_or(self.effect == Effect::Allow)),
        }
    }

    /// Under `Principal`, an account stands for its users. Under `NotPrincipal` of a denial it exempts itself alone, as AWS
    /// has it: users are exempt by name.
    fn names_principal(&self, principal: &Principal<'_>) -> bool {
        match &self.principals {
            None => true,
            Some(Scope::Only(named)) => named.iter().any(|named| named.covers(principal, true)),
            Some(Scope::Except(named)) => {
                let with_users = self.effect == Effect::Allow;
                !named.iter().any(|named| named.covers(principal, with_users))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Kind;
    use super::*;

    const ANN: Principal<'_> = Principal::User { account: "1", name: "ann" };
    const BOB: Principal<'_> = Principal::User { account: "1", name: "bob" };
    const ROOT: Principal<'_> = Principal::Account("1");
    const OTHER: Principal<'_> = Principal::User { account: "2", name: "ann" };

    fn request<'a>(action: &'a str, bucket: &'a str, key: &'a str, principal: Principal<'a>) -> Request<'a> {
        Request { action, bucket, key, principal, context: &() }
    }

    fn policies(version: &str, kind: Kind, statements: &[&str]) -> Policies {
        let text = format!(r#"{{"Version": "{version}", "Statement": [{}]}}"#, statements.join(", "));
        [Policy::parse(text.as_bytes(), kind).unwrap()].into_iter().collect()
    }

    #[test]
    fn denial_wins_in_any_order_and_across_policies() {
        let allow = r#"{"Effect": "Allow", "Action": "S3:get*", "Resource": "arn:aws:s3:::b/*"}"#;
        let deny = r#"{"Effect": "Deny", "NotAction": "s3:PutObject", "Resource": "arn:aws:s3:::b/secret*"}"#;
        let mut apart = policies("2012-10-17", Kind::Identity, &[deny]);
        apart.0.extend(policies("2012-10-17", Kind::Identity, &[allow]).0);
        for policies in [
            policies("2012-10-17", Kind::Identity, &[allow, deny]),
            policies("2012-10-17", Kind::Identity, &[deny, allow]),
            apart,
        ] {
            for (action, bucket, key, expected) in [
                ("s3:GetObject", "b", "x", Decision::Allowed),
                ("s3:GetObject", "b", "secret", Decision::Denied),
                ("s3:PutObject", "b", "secret", Decision::NotGranted),
                ("s3:GetObject", "b", "", Decision::NotGranted),
                ("s3:GetObject", "b2", "x", Decision::NotGranted),
                ("s3:PutObject", "b", "x", Decision::NotGranted),
                ("s3:ListAllMyBuckets", "", "", Decision::NotGranted),
            ] {
                assert_eq!(policies.decide(&request(action, bucket, key, ANN)), expected, "{action} {bucket} {key}");
            }
        }
        assert_eq!(Policies::default().decide(&request("s3:GetObject", "b", "x", ANN)), Decision::NotGranted);
    }

    #[test]
    fn variables_are_of_version_2012() {
        let home = r#"{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/${aws:username}/*"}"#;
        for (version, principal, key, allowed) in [
            ("2012-10-17", ANN, "ann/x", true),
            ("2012-10-17", BOB, "ann/x", false),
            ("2012-10-17", ROOT, "ann/x", false),
            ("2012-10-17", Principal::Anonymous, "/x", false),
            ("2012-10-17", Principal::User { account: "1", name: "*" }, "ann/x", false),
            ("2008-10-17", ANN, "ann/x", false),
            ("2008-10-17", ANN, "${aws:username}/x", true),
        ] {
            let decision =
                policies(version, Kind::Identity, &[home]).decide(&request("s3:GetObject", "b", key, principal));
            assert_eq!(decision.is_allowed(), allowed, "{version} {principal:?} {key}");
        }
    }

    #[test]
    fn a_nameless_principal_gets_nothing_from_an_exception() {
        let rest = r#""Action": "s3:*", "NotResource": "arn:aws:s3:::b/${aws:username}/*""#;
        let with = |effect| policies("2012-10-17", Kind::Identity, &[&format!(r#"{{"Effect": "{effect}", {rest}}}"#)]);
        let (allow, deny) = (with("Allow"), with("Deny"));
        let ask = |policies: &Policies, principal| policies.decide(&request("s3:GetObject", "b", "bob/x", principal));
        assert_eq!(ask(&allow, ANN), Decision::Allowed);
        assert_eq!(ask(&allow, BOB), Decision::NotGranted);
        assert_eq!(ask(&allow, ROOT), Decision::NotGranted);
        assert_eq!(ask(&deny, ROOT), Decision::Denied);
        assert_eq!(ask(&deny, BOB), Decision::NotGranted);
    }

    #[test]
    fn principals() {
        const NOBODY: &[Principal<'_>] = &[];
        let everybody = [ANN, BOB, ROOT, OTHER, Principal::Anonymous];
        for (effect, principal, named) in [
            ("Allow", r#""Principal": "*""#, &everybody[..]),
            ("Allow", r#""Principal": {"AWS": "*"}"#, &everybody),
            ("Allow", r#""Principal": {"AWS": "1"}"#, &[ANN, BOB, ROOT]),
            ("Deny", r#""Principal": {"AWS": "arn:aws:iam::1:root"}"#, &[ANN, BOB, ROOT]),
            ("Allow", r#""Principal": {"AWS": ["arn:aws:iam::1:user/ann"]}"#, &[ANN]),
            ("Allow", r#""Principal": {"Service": "x"}"#, NOBODY),
            ("Allow", r#""NotPrincipal": {"AWS": "1"}"#, &[OTHER, Principal::Anonymous]),
            ("Deny", r#""NotPrincipal": {"AWS": "1"}"#, &[ANN, BOB, OTHER, Principal::Anonymous]),
            (
                "Deny",
                r#""NotPrincipal": {"AWS": ["1", "arn:aws:iam::1:user/bob"]}"#,
                &[ANN, OTHER, Principal::Anonymous],
            ),
            ("Deny", r#""NotPrincipal": "*""#, NOBODY),
        ] {
            let statement = format!(r#"{{"Effect": "{effect}", {principal}, "Action": "*", "Resource": "*"}}"#);
            let policies = policies("2012-10-17", Kind::Resource, &[&statement]);
            for principal in everybody {
                let about = policies.decide(&request("s3:GetObject", "b", "x", principal)) != Decision::NotGranted;
                assert_eq!(about, named.contains(&principal), "{statement} {principal:?}");
            }
        }
    }

    #[test]
    fn the_principal_answers_for_its_own_keys() {
        let context: BTreeMap<_, _> = [("aws:username".to_owned(), vec!["bob".to_owned()])].into();
        let of_bob = r#"{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"StringEquals": {"aws:UserName": "bob"}}}"#;
        let policies = policies("2012-10-17", Kind::Identity, &[of_bob]);
        let ask =
            |principal| policies.decide(&Request { context: &context, ..request("s3:GetObject", "b", "", principal) });
        assert_eq!([ask(BOB), ask(ANN), ask(ROOT)], [Decision::Allowed, Decision::NotGranted, Decision::NotGranted]);
    }
}
