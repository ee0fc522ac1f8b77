//! Raft's state machine: hands entries in batches to the [`Applier`], and passes the catalog off as its snapshot.
//!
//! The catalog on disk is the state, so "building" a snapshot is syncing it; a file is written only when a peer needs one.
//!
//! `apply` hands batches over and does not wait, so that the next are gathered meanwhile. openraft then takes them for
//! applied a little early; what depends on it (barriers, snapshots, the purge of the log) asks the applier instead.
//!
//! Invariants
//! - An entry is applied only once the local log holds it durably: no node's catalog is ahead of its own log.
//! - A snapshot's meta is never past what the catalog has synced when it is built.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use super::applier::{Applier, Batch};
use super::encoding::decode_membership;
use super::log_store::Durable;
use super::transfer::Scratch;
use super::types::{LeaderId, LogId, Member, SnapshotMeta, StoredMembership, TypeConfig, log_id};
use crate::catalog::{Applied, Readers};

/// The state of a catalog, for a peer that needs all of it.
#[derive(Clone)]
pub(super) enum Snapshot {
    /// Still in the live catalog of this node.
    Live(Readers),
    /// In a file, as received; removed with the last who has it.
    File(Arc<Scratch>),
}

impl Snapshot {
    /// Writes a live snapshot to `file` (blocking; fsynced) and says what it covers, which may be more than what the
    /// snapshot was announced with: this is what the receiver must be told.
    ///
    /// # Errors
    /// The catalog's, or of a snapshot that is a file already.
    pub(super) fn write_to(&self, file: &Path) -> io::Result<SnapshotMeta> {
        match self {
            Snapshot::Live(readers) => meta_of(&readers.snapshot(file).map_err(io::Error::other)?),
            Snapshot::File(_) => Err(io::Error::other("the snapshot is in a file already")),
        }
    }
}

pub(super) fn meta_of(applied: &Applied) -> io::Result<SnapshotMeta> {
    Ok(SnapshotMeta { last_log_id: applied.position.map(log_id), last_membership: membership_of(applied)? })
}

fn membership_of(applied: &Applied) -> io::Result<StoredMembership> {
    decode_membership(&applied.membership).map_err(io::Error::other)
}

type RaftSnapshot = openraft::Snapshot<LeaderId, u64, Member, Snapshot>;

/// See the module.
pub(super) struct StateMachine {
    applier: Applier,
    /// None where entries come without a log, as in openraft's own suite.
    durable: Option<Durable>,
    /// Where snapshots are put that are not yet installed.
    scratch: PathBuf,
}

impl StateMachine {
    pub(super) fn new(applier: Applier, durable: Option<Durable>, scratch: PathBuf) -> StateMachine {
        StateMachine { applier, durable, scratch }
    }

    async fn hand_over(&mut self, batch: Batch) -> io::Result<()> {
        let Some(last_index) = batch.last_index() else { return Ok(()) };
        if let Some(durable) = &mut self.durable {
            durable.reaches(last_index).await?;
        }
        self.applier.apply(batch).await
    }

    /// A live snapshot becomes a file first: only openraft's suite installs one within a process.
    async fn file_of(&self, snapshot: Snapshot) -> io::Result<Arc<Scratch>> {
        if let Snapshot::File(file) = snapshot {
            return Ok(file);
        }
        let file = Arc::new(Scratch::new(&self.scratch, "live"));
        let target = file.clone();
        let write = tokio::task::spawn_blocking(move || snapshot.write_to(target.path()));
        write.await.map_err(io::Error::other)??;
        Ok(file)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.applier.flush().await?;
        Ok((applied.position.map(log_id), membership_of(&applied)?))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batch = Batch::default();
        while let Some(proposal) = entries.try_next().await? {
            batch.push(proposal);
            if batch.is_full() {
                self.hand_over(std::mem::take(&mut batch)).await?;
            }
        }
        self.hand_over(batch).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(self.applier.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Snapshot) -> Result<(), io::Error> {
        let file = self.file_of(snapshot).await?;
        self.applier.install(file).await?;
        let installed = meta_of(&self.applier.applied())?;
        if installed != *meta {
            return Err(io::Error::other(format!("the snapshot covers {installed}, not {meta}")));
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        let applied = self.applier.flush().await?;
        if applied.position.is_none() {
            return Ok(None);
        }
        let snapshot = Snapshot::Live(self.applier.readers().clone());
        Ok(Some(RaftSnapshot { meta: meta_of(&applied)?, snapshot }))
    }
}

/// "Builds" a snapshot: syncs the catalog.
pub(super) struct Builder(Applier);

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        let synced = self.0.sync().await?;
        Ok(RaftSnapshot { meta: meta_of(&synced)?, snapshot: Snapshot::Live(self.0.readers().clone()) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;
    use openraft::storage::{IOFlushed, RaftLogStorage};

    use super::super::log_store::LogStore;
    use super::super::types::{Entry, Payload};
    use super::*;
    use crate::catalog::{self, Catalog};
    use crate::log::{self, Log};

    fn entry() -> Entry {
        Entry { log_id: LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index: 0 }, payload: Payload::Blank }
    }

    /// R: else a power cut would leave the catalog ahead of the log with what only others can tell.
    #[tokio::test]
    async fn what_others_committed_is_applied_once_the_local_log_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog"), catalog::Options::default()).unwrap();
        let (applier, _thread) = Applier::spawn(catalog, Arc::new(|message| panic!("{message}"))).unwrap();
        let (log, recovery) = Log::open(log::Options::new(dir.path().join("log"))).unwrap();
        let mut store = LogStore::open(1, log, &recovery.mark, None).await.unwrap();
        let mut machine = StateMachine::new(applier.clone(), Some(store.durable()), dir.path().join("scratch"));
        let mut batch = Batch::default();
        batch.push((entry(), None));
        let mut applying = Box::pin(machine.hand_over(batch));
        assert!(applying.as_mut().now_or_never().is_none());
        assert_eq!(applier.flush().await.unwrap().position, None);
        store.append([entry()], IOFlushed::noop()).await.unwrap();
        applying.await.unwrap();
        assert_eq!(applier.flush().await.unwrap().position.unwrap().index, 0);
        applier.close().await;
    }
}
