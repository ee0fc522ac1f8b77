//! Who may do what: keys of the configuration, and users whose keys and policies are kept in the catalog.
//!
//! - `record`: users and keys as the catalog has them. `users`: listing and changing them. `authority`: who somebody is that
//!   asks, for the frontends. `rules`: what a bucket says of it. `rights`: the decision. `tagged`: tags that conditions ask for. `directory`: keys that somebody else
//!   keeps. `secret`: secrets, which are never shown.
//!
//! Invariants
//! - What no policy allows is denied; what one denies is denied whatever others allow.
//! - A key of the catalog counts while it is active and its user is there: the one it was made for, not a later one of that
//!   name. A key of the configuration wins over one of a directory, and that over one of the catalog.
//! - A change counts at a gateway from when that has applied it: what is remembered of a key is forgotten then. Of a key that
//!   is not known, the leader is asked first whether this gateway is behind.
//! - In a cluster the catalog has secrets sealed under the cluster's key, which only gateways have. On a box they are as they
//!   are, like all else that lies in its data directory.

mod authority;
mod directory;
mod record;
mod rights;
mod rules;
mod secret;
mod tagged;
#[cfg(test)]
mod tests;
mod users;

pub use authority::{Authority, Caller, Deed};
pub use directory::{Directory, Invalid, Session, Unknown};
pub use record::Named;
pub use rights::Rights;
pub use rules::{BucketRules, PublicAccessBlock, REQUESTER_PAYS};
pub use secret::{Secret, fresh_key, key_of};
pub use tagged::Tagged;
pub use users::{KeyInfo, NewKey, UserInfo};

use crate::policy;

/// Bytes of a user's name at most, as in IAM.
const USER_NAME_MAX_BYTES: usize = 64;
/// Policies that a user may have.
pub const POLICY_COUNT_MAX: usize = 10;
/// Keys that a user may have: two are enough to replace one by the other; more for programs that share a user.
pub const KEY_COUNT_MAX: usize = 10;

/// What goes wrong with users and keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that name.
    #[error("there is no user `{0}`")]
    NoSuchUser(String),
    /// There is one.
    #[error("there is a user `{0}` already")]
    UserExists(String),
    /// The catalog has none.
    #[error("there is no access key `{0}` among those of users")]
    NoSuchKey(String),
    /// The user has none of that name.
    #[error("user `{user}` has no policy `{policy}`")]
    NoSuchPolicy {
        /// Whose.
        user: String,
        /// Which.
        policy: String,
    },
    /// It cannot be one.
    #[error("`{0}` is no name for a user or a policy: 1 to 64 letters, digits and any of +=,.@_-")]
    Name(String),
    /// It cannot be one.
    #[error("an account is 12 digits, and `{0}` is not")]
    Account(String),
    /// It is none.
    #[error("policy `{name}`: {error}")]
    Policy {
        /// Which.
        name: String,
        /// What is wrong with it.
        error: policy::Error,
    },
    /// More than fit.
    #[error("a user has at most {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// The catalog, or what stands in it.
    #[error(transparent)]
    Store(#[from] super::Error),
}

impl From<crate::catalog::Error> for Error {
    fn from(error: crate::catalog::Error) -> Self {
        Error::Store(error.into())
    }
}

/// # Errors
/// `Name`.
fn check_name(name: &str) -> Result<(), Error> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte));
    if is_plain && (1..=USER_NAME_MAX_BYTES).contains(&name.len()) { Ok(()) } else { Err(Error::Name(name.to_owned())) }
}
