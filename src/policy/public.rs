//! What a bucket's policy is before anybody asks: whom it opens the bucket to, and whether it is about that bucket at all.
//!
//! Source: "Blocking public access to your Amazon S3 storage", section "The meaning of public", in AWS's S3 User Guide.

use super::condition::Condition;
use super::document::{Effect, Policy, Scope, Statement};
use super::glob::Arn;
use super::principal::Named;

/// Keys whose fixed values tell who asks; `aws:sourceip` counts too, where its networks are narrow.
const NARROWING: [&str; 11] = [
    "aws:principalorgid",
    "aws:principalorgpaths",
    "aws:sourcearn",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:sourceowner",
    "aws:sourceaccount",
    "aws:userid",
    "s3:dataaccesspointarn",
    "s3:dataaccesspointaccount",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
];

impl Policy {
    /// Whether it allows something to everybody: all who are not told apart by a fixed value.
    pub fn is_public(&self) -> bool {
        self.statements.iter().any(Statement::is_public)
    }

    /// Whether it denies anything.
    pub fn has_denial(&self) -> bool {
        self.statements.iter().any(|statement| statement.effect == Effect::Deny)
    }

    /// The first resource that is neither `bucket` nor anything in it: where it stands, as `Statement[1]`. None: there is none.
    pub fn resource_elsewhere(&self, bucket: &str) -> Option<String> {
        let is_elsewhere = |statement: &Statement| match &statement.resources {
            Scope::Only(arns) | Scope::Except(arns) => arns.iter().any(|arn| !arn.may_be_in(bucket)),
        };
        let at = self.statements.iter().position(is_elsewhere)?;
        Some(format!("Statement[{at}]"))
    }

    /// Whether some condition or variable asks for a key, in lower case, that begins so.
    pub fn asks_for(&self, prefix: &str) -> bool {
        self.statements.iter().any(|statement| {
            let (Scope::Only(arns) | Scope::Except(arns)) = &statement.resources;
            arns.iter().any(|arn| arn.asks_for(prefix)) || statement.conditions.iter().any(|one| one.asks_for(prefix))
        })
    }
}

impl Statement {
    fn is_public(&self) -> bool {
        let names_everybody = match &self.principals {
            Some(Scope::Only(named)) => named.contains(&Named::Everybody),
            Some(Scope::Except(_)) => true,
            None => false,
        };
        self.effect == Effect::Allow && names_everybody && !self.conditions.iter().any(narrows)
    }
}

fn narrows(condition: &Condition) -> bool {
    NARROWING.iter().any(|key| condition.has_fixed_values(key)) || condition.has_narrow_networks("aws:sourceip")
}

impl Arn {
    /// Whether a bucket, or something in it, may match: whatever variables are.
    fn may_be_in(&self, bucket: &str) -> bool {
        self.may_begin(&format!("arn:aws:s3:::{bucket}/")) || self.may_be(&format!("arn:aws:s3:::{bucket}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Kind;
    use super::*;

    fn policy(statement: &str) -> Policy {
        let json = format!(r#"{{"Version": "2012-10-17", "Statement": [{statement}]}}"#);
        Policy::parse(json.as_bytes(), Kind::Resource).unwrap()
    }

    #[test]
    fn public_is_what_anybody_may() {
        let with = |effect: &str, principal: &str, condition: &str| {
            policy(&format!(
                r#"{{"Effect": "{effect}", {principal}, "Action": "s3:GetObject", "Resource": "*", "Condition": {{{condition}}}}}"#
            ))
        };
        let everybody = r#""Principal": {"AWS": "*"}"#;
        for (effect, principal, condition, public) in [
            ("Allow", r#""Principal": "*""#, "", true),
            ("Allow", everybody, "", true),
            ("Deny", everybody, "", false),
            ("Allow", r#""Principal": {"AWS": "123456789012"}"#, "", false),
            ("Allow", r#""NotPrincipal": {"AWS": "123456789012"}"#, "", true),
            ("Allow", everybody, r#""StringEquals": {"aws:SourceVpc": "vpc-1"}"#, false),
            ("Allow", everybody, r#""StringLike": {"aws:SourceVpc": "vpc-*"}"#, true),
            ("Allow", everybody, r#""StringNotEquals": {"aws:SourceVpc": "vpc-1"}"#, true),
            ("Allow", everybody, r#""StringEqualsIfExists": {"aws:SourceVpc": "vpc-1"}"#, true),
            ("Allow", everybody, r#""ForAllValues:StringEquals": {"aws:SourceVpc": "vpc-1"}"#, true),
            ("Allow", everybody, r#""StringEquals": {"aws:SourceVpc": "${aws:username}"}"#, true),
            ("Allow", everybody, r#""StringEquals": {"aws:Referer": "x"}"#, true),
            ("Allow", everybody, r#""IpAddress": {"aws:SourceIp": "10.0.0.0/8"}"#, false),
            ("Allow", everybody, r#""IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "0.0.0.0/1"]}"#, true),
            ("Allow", everybody, r#""IpAddress": {"aws:SourceIp": "2001:db8::/32"}"#, false),
            ("Allow", everybody, r#""NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}"#, true),
        ] {
            assert_eq!(with(effect, principal, condition).is_public(), public, "{effect} {principal} {condition}");
        }
    }

    #[test]
    fn a_policy_is_about_its_bucket() {
        let of = |resource: &str| {
            policy(&format!(r#"{{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": ["{resource}"]}}"#))
        };
        for (resource, inside) in [
            ("arn:aws:s3:::box", true),
            ("arn:aws:s3:::box/*", true),
            ("arn:aws:s3:::box/a/${aws:username}/*", true),
            ("arn:aws:s3:::b*", true),
            ("arn:aws:s3:::*/a", true),
            ("*", true),
            ("arn:aws:s3:::boxes", false),
            ("arn:aws:s3:::bo", false),
            ("arn:aws:s3:::other/*", false),
            ("arn:aws:s3:::b?", false),
            ("arn:aws:sqs:::box", false),
            ("arn:aws:s3:eu::box", false),
        ] {
            let found = of(resource).resource_elsewhere("box");
            assert_eq!(found, (!inside).then(|| "Statement[0]".to_owned()), "{resource}");
        }
    }

    #[test]
    fn keys_that_are_asked_for() {
        let asks = policy(
            r#"{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::b/${s3:prefix}",
            "Condition": {"StringEquals": {"s3:ExistingObjectTag/team": "${aws:PrincipalTag/team}"}}}"#,
        );
        for (prefix, expected) in
            [("s3:existingobjecttag/", true), ("s3:prefix", true), ("aws:principaltag/", true), ("aws:sourceip", false)]
        {
            assert_eq!(asks.asks_for(prefix), expected, "{prefix}");
        }
    }
}
