//! Who asks, and whom a resource policy names.
//!
//! Sources: "AWS JSON policy elements: Principal" and "AWS JSON policy elements: NotPrincipal" in AWS's IAM User Guide.

use super::json::Node;
use super::{Error, VALUES_MAX};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal<'a> {
    /// Anybody: a request without a signature.
    Anonymous,
    /// An account's own credentials.
    Account(&'a str),
    /// A user of an account.
    User {
        /// Account id.
        account: &'a str,
        /// User name.
        name: &'a str,
    },
    /// Somebody who acts for a while in a role of an account.
    Role {
        /// Account id.
        account: &'a str,
        /// The role's name.
        name: &'a str,
    },
}

impl Principal<'_> {
    /// What `aws:PrincipalAccount`, `aws:PrincipalArn`, `aws:PrincipalType` and `aws:username` are for it; keys in lower
    /// case. Outer none: not a key of the principal. Inner none: the principal has no such value.
    pub(super) fn value(&self, key: &str) -> Option<Option<String>> {
        let (account, name, role) = match *self {
            Principal::Anonymous => (None, None, None),
            Principal::Account(account) => (Some(account), None, None),
            Principal::User { account, name } => (Some(account), Some(name), None),
            // A session's name is its own choice, so it is nobody's user name.
            Principal::Role { account, name } => (Some(account), None, Some(name)),
        };
        match key {
            "aws:principalaccount" => Some(account.map(str::to_owned)),
            "aws:username" => Some(name.map(str::to_owned)),
            "aws:principaltype" => Some(Some(self.kind().to_owned())),
            "aws:principalarn" => Some(account.map(|account| match (name, role) {
                (None, None) => format!("arn:aws:iam::{account}:root"),
                (Some(name), _) => format!("arn:aws:iam::{account}:user/{name}"),
                (None, Some(role)) => format!("arn:aws:iam::{account}:role/{role}"),
            })),
            _ => None,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Principal::Anonymous => "Anonymous",
            Principal::Account(_) => "Account",
            Principal::User { .. } => "User",
            Principal::Role { .. } => "AssumedRole",
        }
    }
}

/// One entry of `Principal` or `NotPrincipal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Everybody,
    Account(String),
    User {
        account: String,
        name: String,
    },
    Role {
        account: String,
        name: String,
    },
    /// A service or a federated identity: there are none here, so nobody is one.
    Nobody,
}

impl Named {
    /// The value of `Principal` or `NotPrincipal`: `*`, or a map of kinds.
    ///
    /// # Errors
    /// `Type`, `Value`, `Count`. `Unknown`: a kind of principal that cannot be told here (`CanonicalUser`).
    pub(super) fn parse_all(node: Node) -> Result<Vec<Named>, Error> {
        if node.is_text() {
            let everybody = |text: &str| (text == "*").then(|| vec![Named::Everybody]);
            return node.text("`*` or an object such as `{\"AWS\": …}`", everybody);
        }
        let (path, mut named) = (node.path.clone(), Vec::new());
        for (kind, ids) in node.map()? {
            let parse: fn(&str) -> Option<Named> = match kind.as_str() {
                "AWS" => Named::parse,
                "Service" | "Federated" => |_| Some(Named::Nobody),
                _ => return Err(Error::Unknown { path: ids.path }),
            };
            for id in ids.one_or_many(VALUES_MAX)? {
                named.push(id.text("`*`, an account id, or the ARN of an account, user or role", parse)?);
            }
        }
        if named.is_empty() { Err(Error::Count { path, count: 0, limit: VALUES_MAX }) } else { Ok(named) }
    }

    /// A wildcard stands for everybody or not at all, as on AWS.
    fn parse(id: &str) -> Option<Named> {
        if id == "*" {
            return Some(Named::Everybody);
        }
        if id.is_empty() || id.contains(['*', '?', '$']) {
            return None;
        }
        let Some(arn) = id.strip_prefix("arn:aws:iam::") else {
            return (!id.contains([':', '/'])).then(|| Named::Account(id.to_owned()));
        };
        let (account, rest) = arn.split_once(':').filter(|(account, _)| !account.is_empty())?;
        let account = account.to_owned();
        match rest.split_once('/') {
            None => (rest == "root").then_some(Named::Account(account)),
            Some((_, "")) => None,
            Some(("user", name)) => Some(Named::User { account, name: name.to_owned() }),
            Some(("role", name)) => Some(Named::Role { account, name: name.to_owned() }),
            Some(_) => None,
        }
    }

    /// Whether it names `principal`. `with_users`: an account stands for its users too.
    pub(super) fn covers(&self, principal: &Principal<'_>, with_users: bool) -> bool {
        match (self, *principal) {
            (Named::Everybody, _) => true,
            (Named::Account(named), Principal::Account(account)) => named == account,
            (Named::Account(named), Principal::User { account, .. } | Principal::Role { account, .. }) => {
                with_users && named == account
            }
            (Named::User { account: of, name: named }, Principal::User { account, name })
            | (Named::Role { account: of, name: named }, Principal::Role { account, name }) => {
                of == account && named == name
            }
            (Named::User { .. }, Principal::Account(_) | Principal::Role { .. })
            | (Named::Role { .. }, Principal::Account(_) | Principal::User { .. })
            | (Named::Account(_) | Named::User { .. } | Named::Role { .. }, Principal::Anonymous)
            | (Named::Nobody, _) => false,
        }
    }
}
