//! Snapshots on their way: written to a file by the sender, streamed, and verified by the receiver before Raft hears of
//! them.
//!
//! Invariants
//! - What is received is installed only if it came whole, its digest is right, this program knows its format, and it was
//!   copied into its place: a catalog that cannot be installed would end the process. Until then its sender is told.
//! - What a snapshot covers is read from the snapshot itself.
//! - A few pieces are in memory at a time, on either side. A file in scratch goes with the value that stands for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::applier::Applier;
use super::state_machine::{Snapshot, meta_of};
use super::types::{SnapshotMeta, Vote};
use crate::catalog;
use crate::transport::{Body, BodyStream};

const PIECE_BYTES: usize = 256 << 10;

/// A file that is removed when this is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(dir: &Path, what: &str) -> Scratch {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Scratch(dir.join(format!("{what}-{}", COUNT.fetch_add(1, Ordering::Relaxed))))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, file = %self.0.display(), "a snapshot file stays until the next start");
            }
            _ => {}
        }
    }
}

/// A snapshot to be sent.
pub(super) struct Outgoing {
    file: Scratch,
    meta: SnapshotMeta,
    len_bytes: u64,
}

impl Outgoing {
    /// Writes `snapshot` for the node `to`.
    pub(super) async fn write(snapshot: Snapshot, scratch: &Path, to: u64) -> io::Result<Outgoing> {
        let file = Scratch::new(scratch, &format!("for-{to}"));
        let write = move || {
            let meta = snapshot.write_to(file.path())?;
            let len_bytes = std::fs::metadata(file.path())?.len();
            Ok(Outgoing { file, meta, len_bytes })
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Whether it covers nothing that came after `leader`: this node may have begun to follow another one.
    pub(super) fn is_of(&self, leader: &Vote) -> bool {
        covers_no_later(&self.meta, leader)
    }

    /// Its bytes; the file goes with them.
    pub(super) async fn stream(self) -> io::Result<BodyStream> {
        let file = tokio::fs::File::open(self.file.path()).await?;
        let pieces = stream::try_unfold((file, self.file), |(mut file, scratch)| async move {
            let mut piece = vec![0; PIECE_BYTES];
            let len = file.read(&mut piece).await?;
            piece.truncate(len);
            Ok((len > 0).then_some((Bytes::from(piece), (file, scratch))))
        });
        Ok(Box::pin(pieces))
    }
}

fn covers_no_later(meta: &SnapshotMeta, leader: &Vote) -> bool {
    meta.last_log_id.is_none_or(|last| last.leader_id <= leader.leader_id)
}

/// A snapshot that came whole.
pub(super) struct Incoming {
    pub(super) file: Arc<Scratch>,
    pub(super) meta: SnapshotMeta,
}

impl Incoming {
    /// Receives what `leader` sends, and prepares it.
    ///
    /// # Errors
    /// It broke off, is damaged, of an unknown format, or not `leader`'s to send; or the disk, which may be full.
    pub(super) async fn receive(body: Body, scratch: &Path, applier: &Applier, leader: &Vote) -> io::Result<Incoming> {
        let file = Scratch::new(scratch, "received");
        write_body(body, file.path()).await?;
        let verify = move || {
            let applied = catalog::verify_snapshot(file.path()).map_err(io::Error::other)?;
            Ok::<_, io::Error>(Incoming { meta: meta_of(&applied)?, file: Arc::new(file) })
        };
        let incoming = tokio::task::spawn_blocking(verify).await.map_err(io::Error::other)??;
        if incoming.meta.last_log_id.is_none() || !covers_no_later(&incoming.meta, leader) {
            return Err(io::Error::other("the snapshot is not of its sender's term"));
        }
        applier.prepare(incoming.file.clone()).await?;
        Ok(incoming)
    }
}

async fn write_body(mut body: Body, path: &Path) -> io::Result<()> {
    let mut file = tokio::fs::File::create(path).await?;
    let mut len_bytes = 0;
    while let Some(piece) = body.stream.next().await {
        let piece = piece?;
        len_bytes += piece.len() as u64;
        file.write_all(&piece).await?;
    }
    file.flush().await?;
    match len_bytes == body.len_bytes {
        true => Ok(()),
        false => Err(io::Error::other(format!("{len_bytes} of {} bytes of a snapshot came", body.len_bytes))),
    }
}
