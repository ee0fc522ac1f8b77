//! A policy document, read whole. Source: "Grammar of the IAM JSON policy language" in AWS's IAM User Guide.

use std::collections::HashSet;
use std::fmt;

use super::condition::Condition;
use super::glob::{Arn, Syntax, Template};
use super::json::{Fields, Node};
use super::principal::Named;
use super::{Error, MAX_BYTES, STATEMENTS_MAX, VALUES_MAX};

/// Where a policy hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On whoever asks: its statements have no `Principal`.
    Identity,
    /// On a bucket: its statements say whom they are about.
    Resource,
}

/// A policy that was understood whole.
#[derive(Clone)]
pub struct Policy {
    kind: Kind,
    pub(super) statements: Vec<Statement>,
}

/// Short: a policy may have 20 KB.
impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("kind", &self.kind).field("statement_count", &self.statements.len()).finish()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) effect: Effect,
    /// None: whoever the policy hangs on.
    pub(super) principals: Option<Scope<Named>>,
    pub(super) actions: Scope<Template>,
    pub(super) resources: Scope<Arn>,
    pub(super) conditions: Vec<Condition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// What an element lists, or all but what its `Not…` lists.
#[derive(Clone, Debug)]
pub(super) enum Scope<T> {
    Only(Vec<T>),
    Except(Vec<T>),
}

impl<T> Scope<T> {
    fn new(entries: Vec<T>, inverse: bool) -> Self {
        if inverse { Scope::Except(entries) } else { Scope::Only(entries) }
    }
}

impl Policy {
    /// Reads a policy in IAM's JSON.
    ///
    /// # Errors
    /// Every variant of [`Error`]: what is not understood, to the last value, is refused with its place.
    pub fn parse(json: &[u8], kind: Kind) -> Result<Policy, Error> {
        if json.len() > MAX_BYTES {
            return Err(Error::TooLong(json.len()));
        }
        let mut fields = Node::parse(json)?.fields()?;
        let variables = fields.take("Version").map_or(Ok(false), parse_version)?;
        fields.take("Id").map_or(Ok(()), |id| id.text("text", |_| Some(())))?;
        let statements = fields.need("Statement")?;
        fields.finish()?;

        let mut sids = HashSet::new();
        let mut parse = |node| parse_statement(node, kind, variables, &mut sids);
        let statements =
            statements.one_or_many(STATEMENTS_MAX)?.into_iter().map(&mut parse).collect::<Result<_, _>>()?;
        Ok(Policy { kind, statements })
    }

    /// Where it hangs.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

/// Whether the version has variables; a document without a version is of 2008.
fn parse_version(node: Node) -> Result<bool, Error> {
    node.text("2012-10-17 or 2008-10-17", |version| match version {
        "2012-10-17" => Some(true),
        "2008-10-17" => Some(false),
        _ => None,
    })
}

fn parse_statement(node: Node, kind: Kind, variables: bool, sids: &mut HashSet<String>) -> Result<Statement, Error> {
    let mut fields = node.fields()?;
    if let Some(sid) = fields.take("Sid") {
        sid.text("unique", |sid| (sid.is_empty() || sids.insert(sid.to_owned())).then_some(()))?;
    }
    let effect = parse_effect(fields.need("Effect")?)?;
    let principals = parse_principals(&mut fields, kind)?;
    let (actions, not_actions) = fields.need_either("Action", "NotAction")?;
    let (resources, not_resources) = fields.need_either("Resource", "NotResource")?;
    let conditions = fields.take("Condition");
    fields.finish()?;
    Ok(Statement {
        effect,
        principals,
        actions: Scope::new(each(actions, "`*` or like `s3:GetObject`", parse_action)?, not_actions),
        resources: Scope::new(each(resources, Arn::EXPECTED, |text| Arn::parse(text, variables))?, not_resources),
        conditions: conditions.map_or(Ok(Vec::new()), |node| Condition::parse_all(node, variables))?,
    })
}

fn parse_effect(node: Node) -> Result<Effect, Error> {
    node.text("Allow or Deny", |effect| match effect {
        "Allow" => Some(Effect::Allow),
        "Deny" => Some(Effect::Deny),
        _ => None,
    })
}

fn parse_principals(fields: &mut Fields, kind: Kind) -> Result<Option<Scope<Named>>, Error> {
    match kind {
        Kind::Resource => {
            let (node, inverse) = fields.need_either("Principal", "NotPrincipal")?;
            Ok(Some(Scope::new(Named::parse_all(node)?, inverse)))
        }
        Kind::Identity => match fields.either("Principal", "NotPrincipal")? {
            None => Ok(None),
            Some((node, _)) => Err(Error::Misplaced { path: node.path, reason: "in a policy of an identity" }),
        },
    }
}

/// `*` or `service:name`, with wildcards; in lower case, since actions ignore it.
fn parse_action(text: &str) -> Option<Template> {
    let named = text.split_once(':').is_some_and(|(service, name)| !service.is_empty() && !name.is_empty());
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":*?-_.".contains(&byte));
    let fits = plain && (text == "*" || (named && text.matches(':').count() == 1));
    let syntax = Syntax { variables: false, wildcards: true };
    Template::parse(&text.to_ascii_lowercase(), syntax).filter(|_| fits)
}

fn each<T>(node: Node, expected: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Error> {
    node.one_or_many(VALUES_MAX)?.into_iter().map(|entry| entry.text(expected, &parse)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn refusal(json: &str, kind: Kind) -> String {
        Policy::parse(json.as_bytes(), kind).unwrap_err().to_string()
    }

    /// A policy whose second statement has `rest` beside its effect.
    fn second(rest: &str) -> String {
        let first = r#"{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}"#;
        format!(r#"{{"Version": "2012-10-17", "Statement": [{first}, {{"Effect": "Deny"{rest}}}]}}"#)
    }

    #[test]
    fn documents_are_refused_with_the_place() {
        for (json, expected) in [
            ("[]", "the policy: expected an object"),
            ("{}", "Statement: missing"),
            (r#"{"Version": "2020-01-01"}"#, r#"Version: "2020-01-01" is not 2012-10-17 or 2008-10-17"#),
            (r#"{"Version": 2012}"#, "Version: expected a string"),
            (r#"{"Id": "", "Statement": [], "Other": 1}"#, "Other: unknown"),
            (r#"{"Statement": []}"#, "Statement: 0 entries; from 1 to 256 are allowed"),
            (r#"{"Statement": "x"}"#, "Statement: expected an object"),
            (r#"{"Statement": {"Effect": "allow"}}"#, r#"Statement.Effect: "allow" is not Allow or Deny"#),
            (r#"{"Id": "a", "Id": "b"}"#, "the policy is not JSON: the key \"Id\" stands twice at line 1 column 22"),
        ] {
            assert_eq!(refusal(json, Kind::Identity), expected, "{json}");
        }
        let large =
            second(r#", "Action": "*", "Resource": "*", "Condition": {"NumericEquals": {"k": 18446744073709551616}}"#);
        assert!(refusal(&large, Kind::Identity).contains("a number this large needs quotation marks"));
        let deep = "[".repeat(10_000);
        assert!(refusal(&deep, Kind::Identity).starts_with("the policy is not JSON: recursion limit"));
        assert_eq!(Policy::parse(&[b' '; MAX_BYTES + 1], Kind::Identity).unwrap_err(), Error::TooLong(MAX_BYTES + 1));
        assert!(Policy::parse(b"{\"Statement\": \"\xff\"}", Kind::Identity).is_err());
    }

    #[test]
    fn statements_are_refused_with_the_place() {
        const BOTH: &str = r#", "Action": "s3:*", "Resource": "*""#;
        for (rest, expected) in [
            ("", "Statement[1].Action: missing"),
            (r#", "Action": []"#, "Statement[1].Resource: missing"),
            (r#", "Action": [], "Resource": "*""#, "Statement[1].Action: 0 entries; from 1 to 1024 are allowed"),
            (r#", "Action": "s3:*", "NotAction": "x""#, "Statement[1].NotAction: not allowed next to its inverse"),
            (
                r#", "Action": ["s3:*", "s3"], "Resource": "*""#,
                r#"Statement[1].Action[1]: "s3" is not `*` or like `s3:GetObject`"#,
            ),
            (
                r#", "Action": "s3:*", "Resource": "b/*""#,
                r#"Statement[1].Resource: "b/*" is not `*` or an ARN such as `arn:aws:s3:::bucket/key*`"#,
            ),
            (
                r#", "Action": "s3:*", "Resource": "arn:aws:s3:::${""#,
                r#"Statement[1].Resource: "arn:aws:s3:::${" is not `*` or an ARN such as `arn:aws:s3:::bucket/key*`"#,
            ),
            (r#", "Action": "s3:*", "Resource": [["*"]]"#, "Statement[1].Resource[0]: expected a string"),
            (&format!(r#"{BOTH}, "Principal": "*""#), "Statement[1].Principal: not allowed in a policy of an identity"),
            (&format!(r#"{BOTH}, "condition": {{}}"#), "Statement[1].condition: unknown"),
            (&format!(r#"{BOTH}, "Condition": []"#), "Statement[1].Condition: expected an object"),
            (&format!(r#"{BOTH}, "Condition": {{"Likes": {{}}}}"#), "Statement[1].Condition.Likes: unknown"),
            (
                &format!(r#"{BOTH}, "Condition": {{"NullIfExists": {{}}}}"#),
                "Statement[1].Condition.NullIfExists: unknown",
            ),
            (
                &format!(r#"{BOTH}, "Condition": {{"ForNone:Bool": {{}}}}"#),
                "Statement[1].Condition.ForNone:Bool: unknown",
            ),
            (
                &format!(r#"{BOTH}, "Condition": {{"IpAddress": {{"aws:SourceIp": ["::1", "x"]}}}}"#),
                r#"Statement[1].Condition.IpAddress.aws:SourceIp[1]: "x" is not an IP address or network"#,
            ),
            (
                &format!(r#"{BOTH}, "Condition": {{"NumericLessThan": {{"s3:max-keys": 1.0000000001}}}}"#),
                r#"Statement[1].Condition.NumericLessThan.s3:max-keys: "1.0000000001" is not a number"#,
            ),
            (
                &format!(r#"{BOTH}, "Condition": {{"Bool": {{"k": null}}}}"#),
                "Statement[1].Condition.Bool.k: expected a string, number or boolean",
            ),
        ] {
            assert_eq!(refusal(&second(rest), Kind::Identity), expected, "{rest}");
        }
        let statement = format!(r#"{{"Sid": "x", "Effect": "Deny"{BOTH}}}"#);
        let twice = format!(r#"{{"Statement": [{statement}, {statement}]}}"#);
        assert_eq!(refusal(&twice, Kind::Identity), r#"Statement[1].Sid: "x" is not unique"#);
    }

    #[test]
    fn a_resource_policy_says_whom_it_is_about() {
        let of = |principal: &str| {
            let rest = format!(r#"{principal}, "Effect": "Allow", "Action": "s3:*", "Resource": "*""#);
            format!(r#"{{"Statement": {{{}}}}}"#, rest.trim_start_matches(", "))
        };
        for accepted in [
            r#""Principal": "*""#,
            r#""NotPrincipal": {"AWS": ["123456789012", "arn:aws:iam::1:root", "arn:aws:iam::1:user/a/b", "arn:aws:iam::1:role/x", "*"]}"#,
            r#""Principal": {"Service": "logging.s3.amazonaws.com", "Federated": ["x"]}"#,
        ] {
            Policy::parse(of(accepted).as_bytes(), Kind::Resource).unwrap();
            assert!(Policy::parse(of(accepted).as_bytes(), Kind::Identity).is_err());
        }
        const EXPECTED: &str = "`*`, an account id, or the ARN of an account, user or role";
        for (principal, expected) in [
            ("", "Statement.Principal: missing"),
            (r#""Principal": "1""#, r#"Statement.Principal: "1" is not `*` or an object such as `{"AWS": …}`"#),
            (r#""Principal": {}"#, "Statement.Principal: 0 entries; from 1 to 1024 are allowed"),
            (r#""Principal": {"CanonicalUser": "x"}"#, "Statement.Principal.CanonicalUser: unknown"),
            (
                r#""Principal": {"AWS": "arn:aws:iam::1:user/*"}"#,
                &format!(r#"Statement.Principal.AWS: "arn:aws:iam::1:user/*" is not {EXPECTED}"#),
            ),
            (
                r#""Principal": {"AWS": ["arn:aws:iam::1:group/x"]}"#,
                &format!(r#"Statement.Principal.AWS[0]: "arn:aws:iam::1:group/x" is not {EXPECTED}"#),
            ),
        ] {
            assert_eq!(refusal(&of(principal), Kind::Resource), expected, "{principal}");
        }
    }

    #[test]
    fn debug_is_short() {
        let policy = Policy::parse(second(r#", "Action": "*", "Resource": "*""#).as_bytes(), Kind::Identity).unwrap();
        assert_eq!(format!("{policy:?}"), "Policy { kind: Identity, statement_count: 2 }");
    }
}
