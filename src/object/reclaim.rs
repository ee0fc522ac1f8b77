//! Giving space back: what died is drained from the catalog, then its files go.
//!
//! Invariant: a chunk's file is removed only when every live session's oldest read has a snapshot in which the chunk
//! is dead.

use crate::catalog::{Command, Outcome, Reclaimable, SessionState};
use crate::ids::LogIndex;

use super::bucket::{done, unexpected};
use super::{Error, Store};

/// Rows that one drain touches: a few milliseconds of the one writer.
const DRAIN_ROW_COUNT: u32 = 256;
/// Chunks that are removed between two commands.
const RECLAIM_BATCH_COUNT: usize = 500;

/// What died before this may go; none while no session says how far its reads are.
pub(super) fn horizon(sessions: &[SessionState]) -> Option<LogIndex> {
    // A snapshot at the very index of a death does not show the chunk any more.
    sessions.iter().map(|session| LogIndex(session.watermark.0 + 1)).min()
}

impl Store {
    /// Tears down what the dead list names, until it is empty.
    ///
    /// # Errors
    /// `Unavailable`, `Catalog`.
    pub async fn drain(&self) -> Result<(), Error> {
        if !self.ledger.readers().read(|view| view.has_dead()).await? {
            return Ok(());
        }
        loop {
            match self.session.propose_repeatable(Command::Drain { row_count: DRAIN_ROW_COUNT }).await? {
                Outcome::Drained { remaining: 0 } => return Ok(()),
                Outcome::Drained { .. } => tokio::task::yield_now().await,
                outcome => return Err(unexpected(&outcome)),
            }
        }
    }

    /// Removes the bytes of chunks that no read can reach any more. Returns how many.
    ///
    /// # Errors
    /// `Unavailable`, `Catalog`.
    pub async fn reclaim(&self) -> Result<usize, Error> {
        let (mut removed_count, mut last_row) = (0, 0);
        loop {
            let batch = self.reclaimable(last_row).await?;
            // What cannot be removed now, as its node is away, keeps nothing else from going.
            let Some(dead) = batch.last() else { return Ok(removed_count) };
            last_row = dead.row;
            let rows = self.chunks.remove(batch).await?;
            if rows.is_empty() {
                continue;
            }
            removed_count += rows.len();
            done(self.session.propose_repeatable(Command::Reclaimed { rows }).await?)?;
        }
    }

    async fn reclaimable(&self, after_row: u64) -> Result<Vec<Reclaimable>, Error> {
        let query = move |view: &crate::catalog::View<'_>| match horizon(&view.sessions()?) {
            Some(before) => view.reclaimable_after(after_row, before, RECLAIM_BATCH_COUNT),
            None => Ok(Vec::new()),
        };
        Ok(self.ledger.readers().read(query).await?)
    }

    /// Gives back all that can be given back now: renews the session, drains, reclaims. For tests, and for an
    /// operator who will not wait.
    ///
    /// # Errors
    /// `Unavailable`, `Catalog`.
    pub async fn settle(&self) -> Result<usize, Error> {
        self.drain().await?;
        self.session.renew().await?;
        self.reclaim().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;

    #[test]
    fn the_slowest_session_holds_the_horizon() {
        let session = |watermark| SessionState {
            id: SessionId(1),
            gateway: String::new(),
            renewals: 0,
            watermark: LogIndex(watermark),
        };
        assert_eq!(horizon(&[]), None);
        assert_eq!(horizon(&[session(9), session(4), session(7)]), Some(LogIndex(5)));
    }
}
