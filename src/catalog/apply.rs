//! stub
use super::*;
use std::path::Path;

/// The one writer.
pub struct Catalog {}

impl Catalog {
    /// Opens the state that `CURRENT` names in `dir`, or makes a new one of `incarnation`.
    pub fn open(_dir: &Path, _options: Options) -> Result<Catalog, Error> {
        todo!()
    }
    /// How far it has applied.
    pub fn applied(&self) -> &Applied {
        todo!()
    }
    /// Applies a batch in one transaction. An outcome for each entry (`Done` for blank and membership).
    pub fn apply(&mut self, _batch: &[(Position, Entry)]) -> Result<Vec<Outcome>, Error> {
        todo!()
    }
    /// Handles for queries; cheap to clone.
    pub fn readers(&self) -> Readers {
        todo!()
    }
    /// Replaces the whole state by the snapshot in `file` (made by [`Readers::snapshot`]); readers see it at once.
    pub fn install(&mut self, _file: &Path) -> Result<(), Error> {
        todo!()
    }
    /// Makes everything applied so far survive a power cut (checkpoint and sync): the log before it may go.
    pub fn sync(&mut self) -> Result<Option<Position>, Error> {
        todo!()
    }
}
