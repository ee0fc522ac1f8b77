//! The feature level: see [`crate::catalog::level`].

use crate::catalog::level::{CLONES_LEVEL, FILES_LEVEL, LOCKS_LEVEL, RECORDS_LEVEL};
use crate::catalog::{Error, Levels, Outcome};

use super::{Decision, Step, bound};

/// What levels add to the tables.
const SCHEMAS: [(u32, &str); 4] = [
    (FILES_LEVEL, include_str!("../schema_files.sql")),
    (LOCKS_LEVEL, include_str!("../schema_locks.sql")),
    (RECORDS_LEVEL, include_str!("../schema_records.sql")),
    (CLONES_LEVEL, include_str!("../schema_clones.sql")),
];

impl Step<'_> {
    pub(super) fn raise_level(&mut self, to: u32) -> Decision<Outcome> {
        bound(to > 0, "feature levels begin at 1")?;
        Levels { known: self.known_level, reached: to }.check()?;
        for (level, schema) in SCHEMAS {
            if self.state.level < level && to >= level {
                self.transaction.execute_batch(schema).map_err(Error::from)?;
            }
        }
        self.state.level = self.state.level.max(to);
        Ok(Outcome::Done)
    }
}
