//! IAM policies for S3: read from AWS's JSON, and asked whether they allow a request. Pure: text and values in, a decision out.
//!
//! - [`Policy`]: a policy that was read whole (`document.rs`, over `json.rs`); [`Kind`] says where it hangs.
//! - [`Policies`], [`Request`], [`Context`], [`Decision`]: the question and the answer (`decide.rs`).
//! - `condition.rs`: the operators of `Condition`; `value.rs`: the numbers, dates, networks and bytes that they compare.
//! - `public.rs`: what a bucket's policy opens to everybody.
//! - `glob.rs`: wildcards, policy variables, ARNs. `principal.rs`: who asks, and who is named.
//! - [`canned`]: the policies that the operator's command line hands out.
//!
//! Invariants
//! - What no statement allows is not granted, and an explicit denial wins over every permission, in any order.
//! - A document is understood whole or refused with the place: no operator, element or value is skipped in silence.
//! - What a client says (a variable's value, a context value) is text. It never becomes a wildcard, a variable or an ARN's
//!   separator.
//! - Matching never takes more than the product of two lengths.
//! - Where AWS's rules leave a choice, a permission covers less and a denial covers more.

pub mod canned;
mod condition;
mod decide;
mod document;
mod glob;
mod json;
mod principal;
mod public;
mod value;

#[cfg(test)]
mod model;

pub use decide::{Context, Decision, Policies, Request};
pub use document::{Kind, Policy};
pub use principal::Principal;

/// The longest policy, in bytes; AWS's limit for a bucket's policy.
pub const MAX_BYTES: usize = 20_480;
/// The most statements in a policy.
pub const STATEMENTS_MAX: usize = 256;
/// The most entries of any other list or map in a policy.
pub const VALUES_MAX: usize = 1_024;
/// The most variables in one string of a policy.
pub const VARIABLES_MAX: usize = 16;

/// Why a text is no policy. A path is like `Statement[1].Condition.IpAddress.aws:SourceIp[0]`.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Longer than [`MAX_BYTES`].
    #[error("the policy has {0} bytes; the limit is {MAX_BYTES}")]
    TooLong(usize),
    /// Not JSON, nested too deep, or a key that stands twice; with line and column.
    #[error("the policy is not JSON: {0}")]
    Json(String),
    /// A JSON value of the wrong type.
    #[error("{path}: expected {expected}")]
    Type {
        /// Where.
        path: String,
        /// What should be there.
        expected: &'static str,
    },
    /// Something required is not there.
    #[error("{path}: missing")]
    Missing {
        /// What.
        path: String,
    },
    /// An element, operator or kind of principal that has no meaning here.
    #[error("{path}: unknown")]
    Unknown {
        /// Which.
        path: String,
    },
    /// An element that this kind of policy does not have, or that excludes another one.
    #[error("{path}: not allowed {reason}")]
    Misplaced {
        /// Which.
        path: String,
        /// Next to what, or where.
        reason: &'static str,
    },
    /// A value that does not mean what it has to.
    #[error("{path}: {value:?} is not {expected}")]
    Value {
        /// Where.
        path: String,
        /// What stands there.
        value: String,
        /// What should.
        expected: &'static str,
    },
    /// Too many entries, or none.
    #[error("{path}: {count} entries; from 1 to {limit} are allowed")]
    Count {
        /// Where.
        path: String,
        /// How many there are.
        count: usize,
        /// How many may be.
        limit: usize,
    },
}
