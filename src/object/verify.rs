//! The scrub of a box: reads every chunk file again, so that what a disk has lost is known before somebody needs it.
//!
//! Invariants
//! - A box has one copy of everything: nothing is mended here, moved or removed. What is damaged is told by name, and counted
//!   until a pass finds it whole or gone.
//! - A file that goes while it is read is no damage: the catalog is asked before anything is told.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::catalog::{Layout, View};
use crate::ids::Ino;

use super::{Error, Store, blocking};

/// For each second of reading it rests so many: the disk is there for others.
const REST_FACTOR: u32 = 4;
/// The longest rest after one file.
const REST_MAX: Duration = Duration::from_secs(30);

/// What a pass found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Files that were read whole.
    pub chunk_count: u64,
    /// Their bytes.
    pub byte_count: u64,
    /// Chunks whose files are damaged, or not there.
    pub damaged: BTreeSet<Ino>,
}

impl Store {
    /// Verifies every chunk that lies in a file here. It begins somewhere and comes round to there, so that a box which is
    /// restarted often has all of them read in the end.
    ///
    /// # Errors
    /// `Catalog`, `Unavailable`: the catalog.
    pub async fn verify_files(&self) -> Result<VerifyReport, Error> {
        let random = self.env.random_u64();
        let first = self.snapshot(move |view| Ok(view.some_id(random)?)).await?;
        let mut report = VerifyReport::default();
        self.verify_between(Some(first), None, &mut report).await?;
        self.verify_between(None, Some(first), &mut report).await?;
        self.progress.scrubbed();
        self.progress.lost(report.damaged.len() as u64);
        Ok(report)
    }

    /// Those behind `after`, up to `last`.
    async fn verify_between(
        &self,
        mut after: Option<Ino>,
        last: Option<Ino>,
        report: &mut VerifyReport,
    ) -> Result<(), Error> {
        while let Some(page) = self.next_places(&mut after).await? {
            for (chunk, place) in page {
                if last.is_some_and(|last| chunk > last) {
                    return Ok(());
                }
                if matches!(place.layout, Layout::Plain { .. }) {
                    self.verify_file(chunk, report).await?;
                }
            }
        }
        Ok(())
    }

    async fn verify_file(&self, chunk: Ino, report: &mut VerifyReport) -> Result<(), Error> {
        let Some(files) = self.chunks.files().cloned() else { return Ok(()) };
        let begun = self.env.clock.monotonic();
        match blocking(move || files.verify(chunk)).await? {
            Ok(len_bytes) => {
                report.chunk_count += 1;
                report.byte_count += len_bytes;
            }
            Err(error) if self.is_named(chunk).await? => {
                tracing::error!(%chunk, %error, "a chunk cannot be read whole: what is stored in it is damaged");
                report.damaged.insert(chunk);
                self.progress.lost(report.damaged.len() as u64);
            }
            Err(_) => {}
        }
        let took = self.env.clock.monotonic().saturating_sub(begun);
        tokio::time::sleep((took * REST_FACTOR).min(REST_MAX)).await;
        Ok(())
    }

    async fn is_named(&self, chunk: Ino) -> Result<bool, Error> {
        let before = chunk.0.checked_sub(1).map(Ino);
        let next = self.snapshot(move |view: &View<'_>| Ok(view.places(before, 1)?)).await?;
        Ok(next.first().is_some_and(|(next, _)| *next == chunk))
    }
}
