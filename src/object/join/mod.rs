//! How boxes join a cluster: tokens that let them, and the numbers that they get.
//!
//! - `token`: making, showing and ending tokens. `node`: boxes that joined.
//!
//! Invariants
//! - The catalog has the hash of a token's secret, never the secret: who reads it lets nobody in.
//! - A token is good for so many boxes until then, and for nobody later; each use is taken before a number is given.
//! - A number is given once, whatever becomes of the box that has it.

mod node;
#[cfg(test)]
mod tests;
mod token;

pub(crate) use node::removed;
pub use node::{JoinedNode, Newcomer};
pub use token::{NewToken, TokenInfo};

/// What goes wrong with tokens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such token, or none any more. Which of them a stranger is not told.
    #[error("the token is not known, has expired, was revoked, or has been used as often as it may be")]
    Token,
    /// It names none, or several.
    #[error("there is no token `{0}`; `token list` has them")]
    NoSuchToken(String),
    /// A token must end.
    #[error("a token lives from a minute to {} days", token::TTL_MAX.as_secs() / 86_400)]
    Ttl,
    /// A token is for somebody, and not for everybody.
    #[error("a token is for 1 to {} boxes", token::USES_MAX)]
    Uses,
    /// The catalog, or what stands in it.
    #[error(transparent)]
    Store(#[from] super::Error),
}
