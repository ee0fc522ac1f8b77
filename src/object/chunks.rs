//! Where chunks are: in files of this node, or striped over shard nodes. A chunk's place says which; layouts mix.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::catalog::{Layout, Reclaimable};
use crate::file::remote::RemoteFiles;
use crate::file::{self, Files, Space, WRITE_BYTES};
use crate::ids::{Ino, NodeId, ShardId};
use crate::units::SEGMENT_BYTES;

use super::budget::Permit;
use super::digest::Digests;
use super::session::{FreshId, Session};
use super::sink::{PlainSink, Sink, StripedSink, shards_of};
use super::striped::{self, ClusterKeys, Striper};
use super::{Error, blocking};

/// What keeps a store's chunks.
#[derive(Clone)]
pub struct Chunks {
    files: Option<(NodeId, Files)>,
    /// Files of other nodes.
    remote: Option<RemoteFiles>,
    striper: Option<Striper>,
    /// Where room is needed besides that for chunks.
    dir: Option<PathBuf>,
}

impl Chunks {
    /// Files of this node, for all chunks.
    pub fn in_files(node: NodeId, files: Files) -> Chunks {
        Chunks { files: Some((node, files)), remote: None, striper: None, dir: None }
    }

    /// Shards on the nodes of a cluster. `files`: what this process keeps of its time as a box; `remote`: what others do.
    /// `dir`: where this process keeps its catalog.
    pub(crate) fn striped(
        striper: Striper,
        files: Option<(NodeId, Files)>,
        remote: RemoteFiles,
        dir: PathBuf,
    ) -> Chunks {
        Chunks { files, remote: Some(remote), striper: Some(striper), dir: Some(dir) }
    }

    /// What secrets are sealed under; none on a box.
    pub(super) fn cluster_keys(&self) -> Option<&ClusterKeys> {
        self.striper.as_ref().map(|striper| striper.cluster_keys())
    }

    /// Where the batches of a new body go.
    pub(super) fn sink(
        &self,
        session: &Arc<Session>,
        digests: Digests,
        announced_bytes: Option<u64>,
        id: FreshId,
        permit: Permit,
    ) -> Result<Sink, Error> {
        match (&self.striper, &self.files) {
            (Some(striper), _) => {
                let to = (striper.clone(), session.clone());
                Ok(Sink::Striped(Box::new(StripedSink::new(to, digests, announced_bytes, id, permit))))
            }
            (None, Some(files)) => {
                Ok(Sink::Plain(Box::new(PlainSink::new(files.clone(), digests, announced_bytes, id, permit))))
            }
            (None, None) => Err(Error::Unavailable("nothing keeps chunks here".into())),
        }
    }

    /// What writing a body holds in memory, besides what came in.
    pub(super) fn write_cost_bytes(&self, len_bytes: Option<u64>) -> u64 {
        match &self.striper {
            Some(striper) => striped::write_cost_bytes(striper.map().scheme, len_bytes),
            None => WRITE_BYTES as u64,
        }
    }

    /// What reading a run of a chunk holds in memory, besides what was handed out.
    pub(super) fn read_cost_bytes(&self, len_bytes: u64) -> u64 {
        match &self.striper {
            Some(striper) => striped::read_cost_bytes(striper.map().scheme, len_bytes),
            None => len_bytes + SEGMENT_BYTES,
        }
    }

    /// The files, if they are those of `node`.
    pub(super) fn files_of(&self, node: NodeId) -> Option<&Files> {
        self.files.as_ref().filter(|(own, _)| *own == node).map(|(_, files)| files)
    }

    /// Reads up to [`crate::file::remote::READ_MAX_BYTES`] of a file of another node.
    pub(super) async fn read_remote(&self, node: NodeId, chunk: Ino, range: Range<u64>) -> Result<Bytes, Error> {
        Ok(self.reach(node)?.read(node, chunk, range).await?)
    }

    fn reach(&self, node: NodeId) -> Result<&RemoteFiles, Error> {
        self.remote.as_ref().ok_or_else(|| Error::Unavailable(format!("the file is on node {node}")))
    }

    /// Files of this node, if there are any.
    pub(super) fn files(&self) -> Option<&Files> {
        self.files.as_ref().map(|(_, files)| files)
    }

    /// Shards, if there are any.
    pub(super) fn striper(&self) -> Option<&Striper> {
        self.striper.as_ref()
    }

    /// How full the disk is; none where that is not this process's to know.
    pub(super) fn space(&self) -> Option<Result<Space, file::Error>> {
        match (self.files(), &self.dir) {
            (Some(files), _) => Some(files.space()),
            (None, Some(dir)) => Some(Space::of(dir).map_err(file::Error::from)),
            (None, None) => None,
        }
    }

    /// Removes the bytes of dead chunks. Returns the rows of those that are gone.
    pub(super) async fn remove(&self, batch: Vec<Reclaimable>) -> Result<Vec<u64>, Error> {
        let (plain, striped): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|dead| matches!(dead.place.layout, Layout::Plain { .. }));
        let mut rows = self.remove_shards(&striped).await;
        let mut nodes: BTreeMap<NodeId, Vec<Reclaimable>> = BTreeMap::new();
        for dead in plain {
            if let Layout::Plain { node } = dead.place.layout {
                nodes.entry(node).or_default().push(dead);
            }
        }
        for (node, batch) in nodes {
            match self.files_of(node).cloned() {
                Some(files) => rows.extend(blocking(move || remove_files(&files, &batch)).await?),
                None => rows.extend(self.remove_remote(node, &batch).await),
            }
        }
        Ok(rows)
    }

    async fn remove_remote(&self, node: NodeId, batch: &[Reclaimable]) -> Vec<u64> {
        let chunks: Vec<Ino> = batch.iter().map(|dead| dead.chunk).collect();
        let removed = async { Ok::<_, Error>(self.reach(node)?.remove(node, &chunks).await?) };
        match removed.await {
            Ok(()) => batch.iter().map(|dead| dead.row).collect(),
            Err(error) => {
                tracing::info!(%node, %error, "dead files of a node were not removed; it is tried again");
                Vec::new()
            }
        }
    }

    async fn remove_shards(&self, batch: &[Reclaimable]) -> Vec<u64> {
        let Some(striper) = &self.striper else { return Vec::new() };
        // What has a shard on a node that is down waits for it: deleting the others again and again would only fill logs.
        let nodes = striper.nodes();
        let is_reached = |(node, _): (NodeId, ShardId)| striper.is_up(node) || !nodes.contains(&node);
        let batch: Vec<_> = batch.iter().filter(|dead| shards_of(&dead.place).all(is_reached)).collect();
        // Nodes that the cluster has given up have nothing to give back.
        let is_member = |(node, _): &(NodeId, ShardId)| nodes.contains(node);
        let shards: Vec<_> = batch.iter().flat_map(|dead| shards_of(&dead.place)).filter(is_member).collect();
        let gone: std::collections::HashSet<_> = striper.remove(&shards).await.into_iter().collect();
        let is_gone = |shard: (NodeId, ShardId)| gone.contains(&shard) || !nodes.contains(&shard.0);
        batch.iter().filter(|dead| shards_of(&dead.place).all(is_gone)).map(|dead| dead.row).collect()
    }
}

fn remove_files(files: &Files, batch: &[Reclaimable]) -> Vec<u64> {
    let is_gone = |dead: &&Reclaimable| {
        let removed = files.remove(dead.chunk);
        removed
            .inspect_err(|error| tracing::error!(chunk = %dead.chunk, %error, "a dead chunk was not removed"))
            .is_ok()
    };
    batch.iter().filter(is_gone).map(|dead| dead.row).collect()
}
