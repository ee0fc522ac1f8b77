//! Feature levels: how the programs of a cluster agree on what they may write.
//!
//! A level stands for the commands, for what `apply` does with them, and for the tables that a program knows. The catalog
//! has one, its row `state.feature_level`: all that stands in the log and in the tables is known at that level. It is raised
//! by [`super::Command::RaiseLevel`], which the leader proposes once every member has said that it knows a higher one
//! (`consensus/level.rs`). So processes may be replaced one after another, and back, until the last one is.
//!
//! Invariants
//! - A catalog's level is never lowered. A program that knows less neither opens, installs nor goes on with it.
//! - The level is a part of the state: `apply` may look at it, and decides alike everywhere.

use super::Error;

/// The feature level of this program.
///
/// Whoever appends a command or gives it a new meaning, or changes the tables in a way that earlier programs do not stand,
/// raises it by one, and
/// - proposes what is new only where [`super::View::feature_level`] has reached that level;
/// - has `apply` do what is new only where the state's level has (as of the entry: not where it will have);
/// - changes the tables where `apply` raises the level, not when a catalog is opened.
///
/// A release knows all levels before its own.
pub const FEATURE_LEVEL: u32 = 6;

/// The level from which there are files: [`super::Command::File`], its tables, and its rows.
pub(super) const FILES_LEVEL: u32 = 2;

/// The level from which files may be locked and compacted, and so a file system be mounted: the table `lock` as it is now.
pub(super) const LOCKS_LEVEL: u32 = 3;

/// The level from which there are records: [`super::Command::SetRecord`] and its table.
pub(super) const RECORDS_LEVEL: u32 = 4;

/// The level from which prefixes may be cloned: [`super::Command::Clone`], and its tables.
pub(super) const CLONES_LEVEL: u32 = 4;

/// The level from which buckets may tell what happens in them: [`super::Command::ClaimEvents`],
/// [`super::Command::EventsDelivered`], and rows of `outbox`.
pub(super) const EVENTS_LEVEL: u32 = 5;

/// The level from which versions may be locked: [`super::Change::Retention`] and [`super::Change::Hold`], what a bucket says
/// of new versions, that a bucket may begin to lock; and the settings from [`super::Setting::RequestPayment`] on.
pub(super) const LOCKING_LEVEL: u32 = 6;

/// The level of a catalog that was made just now, whoever made it: members that start with different programs make the
/// same one. It never changes. (Catalogs of earlier development builds have 0.)
pub(super) const FIRST_LEVEL: u32 = 1;

/// The levels of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Levels {
    /// What its program knows.
    pub known: u32,
    /// What its catalog has.
    pub reached: u32,
}

impl Levels {
    /// Refuses what this program does not know.
    ///
    /// # Errors
    /// `Level`
    pub(super) fn check(self) -> Result<(), Error> {
        match self.reached <= self.known {
            true => Ok(()),
            false => Err(Error::Level { found: self.reached, known: self.known }),
        }
    }
}
