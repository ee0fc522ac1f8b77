//! The feature level: see [`crate::catalog::level`].

use crate::catalog::level::FILES_LEVEL;
use crate::catalog::{Levels, Outcome};

use super::{Decision, Step, bound};

/// What the level of files adds to the tables.
const FILES_SCHEMA: &str = include_str!("../schema_files.sql");

impl Step<'_> {
    pub(super) fn raise_level(&mut self, to: u32) -> Decision<Outcome> {
        bound(to > 0, "feature levels begin at 1")?;
        Levels { known: self.known_level, reached: to }.check()?;
        if self.state.level < FILES_LEVEL && to >= FILES_LEVEL {
            self.transaction.execute_batch(FILES_SCHEMA).map_err(crate::catalog::Error::from)?;
        }
        self.state.level = self.state.level.max(to);
        Ok(Outcome::Done)
    }
}
