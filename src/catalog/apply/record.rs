//! Access keys, and records: what others keep in the catalog that it does not look into.

use bytes::Bytes;
use rusqlite::params;

use crate::catalog::command::RECORD_MAX_BYTES;
use crate::catalog::level::RECORDS_LEVEL;
use crate::catalog::{Outcome, RecordKind, Refusal};

use super::{Decision, Step, bound};

/// Of an access key, and of a record's name.
const NAME_MAX_BYTES: usize = 128;

impl Step<'_> {
    pub(super) fn set_credential(&mut self, access_key: &str, value: Option<&(String, Bytes)>) -> Decision<Outcome> {
        bound(!access_key.is_empty() && access_key.len() <= 128, "an access key has 1 to 128 bytes")?;
        match value {
            Some((account, attrs)) => {
                let replace = "INSERT OR REPLACE INTO credential(access_key, account, attrs) VALUES(?, ?, ?)";
                self.run(replace, params![access_key, account, &attrs[..]])?
            }
            None => self.run("DELETE FROM credential WHERE access_key=?", [access_key])?,
        };
        *self.access_changed = true;
        Ok(Outcome::Done)
    }

    pub(super) fn set_record(
        &mut self,
        kind: RecordKind,
        name: &str,
        was: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Decision<Outcome> {
        bound(self.state.level >= RECORDS_LEVEL, "there are no records at this feature level")?;
        bound(!name.is_empty() && name.len() <= NAME_MAX_BYTES, "a record's name has 1 to 128 bytes")?;
        bound(value.is_none_or(|value| value.len() <= RECORD_MAX_BYTES), "a record has 256 KiB at most")?;
        let query = "SELECT value FROM record WHERE kind=? AND name=?";
        let found: Option<Vec<u8>> = self.find(query, params![kind.number(), name], |row| row.get(0))?;
        if found.as_deref() != was {
            return Err(Refusal::RecordChanged.into());
        }
        match value {
            Some(value) => {
                let replace = "INSERT OR REPLACE INTO record(kind, name, value) VALUES(?, ?, ?)";
                self.run(replace, params![kind.number(), name, value])?
            }
            None => self.run("DELETE FROM record WHERE kind=? AND name=?", params![kind.number(), name])?,
        };
        *self.access_changed |= kind == RecordKind::User;
        Ok(Outcome::Done)
    }
}
