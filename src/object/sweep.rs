//! The sweep: finds chunk files that nothing accounts for, left by a crash between bytes and command.
//!
//! Invariants
//! - The files are listed first, the catalog is read afterwards and linearizably: what is named when it is looked at
//!   is never taken for an orphan, and what a live session leases is not one either.
//! - An orphan younger than the grace is left alone; an older one goes to quarantine, and only after another grace
//!   away, if still nothing names it.
//! - An error anywhere in a scan means that nothing is moved or deleted.

use std::time::Duration;

use crate::env::Timestamp;
use crate::file::{FAN_OUT, Files, Listed, Listing};
use crate::ids::Ino;

use super::{Error, Store, blocking};

/// Chunks that one query asks for.
const QUERY_COUNT: usize = 1000;

/// What a sweep saw and did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SweepReport {
    /// Chunk files seen.
    pub chunk_count: u64,
    /// Chunks moved to quarantine.
    pub quarantined_count: u64,
    /// Chunks removed from quarantine.
    pub removed_count: u64,
    /// Chunks in quarantine that the catalog names: they were put there wrongly, and stay.
    pub named_in_quarantine_count: u64,
    /// Files that are no chunk's; they stay.
    pub foreign_count: u64,
}

/// Chunks of a listing that are old enough.
fn aged(listing: &Listing, now: Timestamp, grace: Duration) -> Vec<Ino> {
    let grace_ns = i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX);
    let is_old = |listed: &&Listed| now.0.saturating_sub(listed.changed.0) >= grace_ns;
    listing.chunks.iter().filter(is_old).map(|listed| listed.chunk).collect()
}

impl Store {
    /// Sweeps once, with the configured grace.
    ///
    /// # Errors
    /// `Catalog(Inconsistent)`: there are ids that the catalog never gave out; it may be older than the files.
    /// `Io`, `Unavailable`. Nothing was deleted then.
    pub async fn sweep(&self) -> Result<SweepReport, Error> {
        self.sweep_older_than(self.config.sweep_grace).await
    }

    /// Sweeps once: orphans older than `grace` go to quarantine, and those there for longer than it go away.
    ///
    /// # Errors
    /// As [`Store::sweep`].
    pub async fn sweep_older_than(&self, grace: Duration) -> Result<SweepReport, Error> {
        let mut report = SweepReport::default();
        let Some(files) = self.chunks.files().cloned() else { return Ok(report) };
        let expired = self.expired_quarantine(grace, &mut report).await?;
        let mut orphans = Vec::new();
        for index in 0..FAN_OUT {
            let listing = self.listing(move |files| files.list(index)).await?;
            report.chunk_count += listing.chunks.len() as u64;
            report.foreign_count += listing.foreign.len() as u64;
            orphans.extend(self.orphans(aged(&listing, self.now(), grace)).await?);
        }
        (report.quarantined_count, report.removed_count) =
            blocking(move || dispose(&files, &orphans, &expired)).await??;
        Ok(report)
    }

    /// Chunks that were in quarantine long enough and that still nothing names.
    async fn expired_quarantine(&self, grace: Duration, report: &mut SweepReport) -> Result<Vec<Ino>, Error> {
        let listing = self.listing(Files::quarantined).await?;
        let old = aged(&listing, self.now(), grace);
        let old_count = old.len();
        let orphans = self.orphans(old).await?;
        report.named_in_quarantine_count = (old_count - orphans.len()) as u64;
        if report.named_in_quarantine_count > 0 {
            tracing::error!(count = report.named_in_quarantine_count, "the catalog names chunks in quarantine");
        }
        Ok(orphans)
    }

    async fn listing(
        &self,
        list: impl FnOnce(&Files) -> Result<Listing, crate::file::Error> + Send + 'static,
    ) -> Result<Listing, Error> {
        let Some(files) = self.chunks.files().cloned() else { return Ok(Listing::default()) };
        Ok(blocking(move || list(&files)).await??)
    }

    /// Those of `chunks`, listed before, that nothing accounts for now.
    async fn orphans(&self, chunks: Vec<Ino>) -> Result<Vec<Ino>, Error> {
        let mut orphans = Vec::new();
        for chunks in chunks.chunks(QUERY_COUNT) {
            let chunks = chunks.to_vec();
            orphans.extend(self.snapshot(move |view| Ok(view.orphans(&chunks)?)).await?);
        }
        Ok(orphans)
    }
}

/// Removes what expired in quarantine, then moves orphans there. Returns how many were moved, and removed.
fn dispose(files: &Files, orphans: &[Ino], expired: &[Ino]) -> Result<(u64, u64), crate::file::Error> {
    for chunk in expired {
        tracing::info!(%chunk, "removed from quarantine");
        files.remove_quarantined(*chunk)?;
    }
    let mut moved_count = 0;
    for chunk in orphans {
        match files.quarantine(*chunk) {
            Ok(()) => moved_count += 1,
            Err(crate::file::Error::NotFound(_)) => continue, // its writer removed it meanwhile
            Err(error) => return Err(error),
        }
        tracing::info!(%chunk, "nothing names this chunk: moved to quarantine");
    }
    Ok((moved_count, expired.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_older_than_the_grace_is_looked_at() {
        let listed =
            |chunk, changed_s| Listed { chunk: Ino(chunk), changed: Timestamp::from_seconds(changed_s), file_bytes: 0 };
        let listing = Listing { chunks: vec![listed(1, 10), listed(2, 90), listed(3, 200)], foreign: vec![] };
        let now = Timestamp::from_seconds(100);
        assert_eq!(aged(&listing, now, Duration::from_secs(20)), [Ino(1)]);
        assert_eq!(aged(&listing, now, Duration::from_secs(10)), [Ino(1), Ino(2)]);
        assert_eq!(aged(&listing, now, Duration::ZERO), [Ino(1), Ino(2)]); // 3 is from the future
    }
}
