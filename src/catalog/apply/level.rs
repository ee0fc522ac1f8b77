//! The feature level: see [`crate::catalog::level`].

use crate::catalog::{Levels, Outcome};

use super::{Decision, Step, bound};

impl Step<'_> {
    pub(super) fn raise_level(&mut self, to: u32) -> Decision<Outcome> {
        bound(to > 0, "feature levels begin at 1")?;
        Levels { known: self.known_level, reached: to }.check()?;
        self.state.level = self.state.level.max(to);
        Ok(Outcome::Done)
    }
}
