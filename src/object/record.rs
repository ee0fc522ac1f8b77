//! Records of the catalog: what users, tokens and boxes are kept in.
//!
//! ```text
//! 0  1  version, 1
//! 1  n  postcard: what the kind of record says
//! ```

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::catalog::{self, Command, RecordKind, Refusal};

use super::bucket::done;
use super::{Error, Store};

const VERSION: u8 = 1;

pub(super) fn encode(record: &impl Serialize) -> Bytes {
    let encoded = postcard::to_extend(record, vec![VERSION]);
    let Ok(bytes) = encoded else { unreachable!("a record fits memory") };
    bytes.into()
}

/// # Errors
/// `Catalog(Undecodable)`: of a later version, or damaged.
pub(super) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    let undecodable = || Error::Catalog(catalog::Error::Undecodable { what });
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| undecodable()),
        Some(_) | None => Err(undecodable()),
    }
}

impl Store {
    /// Makes, changes or removes a record. False: it is not what it was.
    ///
    /// # Errors
    /// What the catalog says.
    pub(super) async fn set_record(
        &self,
        kind: RecordKind,
        name: &str,
        was: Option<Bytes>,
        value: Option<Bytes>,
    ) -> Result<bool, Error> {
        let outcome = self.session.propose(Command::SetRecord { kind, name: name.to_owned(), was, value }).await?;
        match done(outcome) {
            Ok(()) => Ok(true),
            Err(Error::Refused(Refusal::RecordChanged)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
