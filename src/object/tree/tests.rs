//! Trees over a real catalog, without Raft.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod files;
mod locks;
mod model;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::*;
use crate::object::tests::Bed;

/// A store with a bucket "b" whose tree may be mounted.
async fn bed() -> Bed {
    let bed = Bed::new().await;
    bed.ledger.raise_level();
    bed
}

async fn tree_of(bed: &Bed, store: &Store, name: &str) -> Tree {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 20);
    let staging = bed.dir.path().join(name);
    let mounting = Mounting { id: NEXT.fetch_add(1, Ordering::Relaxed), staging: &staging, kernel: None };
    store.tree("b", b"", mounting).await.unwrap()
}

/// A kernel that knows these.
#[derive(Default)]
struct Kernel(Mutex<HashSet<Ino>>);

impl Knows for Kernel {
    fn knows(&self, ino: Ino) -> bool {
        lock(&self.0).contains(&ino)
    }
}

impl Kernel {
    fn knowing(inos: &[Ino]) -> Arc<Kernel> {
        Arc::new(Kernel(Mutex::new(inos.iter().copied().collect())))
    }

    fn forget(&self, ino: Ino) {
        lock(&self.0).remove(&ino);
    }
}

/// The tree of mount 77, of its first process or a later one.
async fn outliving_tree(bed: &Bed, store: &Store, kernel: Option<Arc<Kernel>>) -> Tree {
    let staging = bed.dir.path().join("staging");
    let kernel = kernel.map(|kernel| kernel as Arc<dyn Knows>);
    store.tree("b", b"", Mounting { id: 77, staging: &staging, kernel }).await.unwrap()
}

/// Leaves a tree as a process does that is killed.
fn kill(tree: Tree) {
    lock(&tree.0.keepers).abort_all();
    std::mem::forget(tree);
}

fn file() -> NewNode {
    NewNode { mode: 0o644, uid: 1, gid: 2, kind: NewKind::File }
}

fn directory() -> NewNode {
    NewNode { mode: 0o755, uid: 1, gid: 2, kind: NewKind::Directory }
}

impl Tree {
    /// The inode that a path stands for.
    async fn walk(&self, path: &str) -> Result<Stat, Error> {
        let mut stat = self.stat(self.root()).await?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if stat.kind != FileKind::Directory {
                return Err(Refusal::NotDirectory.into());
            }
            stat = self.lookup(stat.ino, name.as_bytes()).await?;
        }
        Ok(stat)
    }

    /// All bytes of a file.
    async fn bytes(&self, ino: Ino) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        loop {
            let run = self.read(ino, bytes.len() as u64, 100_000).await?;
            if run.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&run);
        }
    }

    /// Writes a file as a program does: made or truncated, written, closed.
    async fn save(&self, parent: Ino, name: &str, bytes: &[u8]) -> Result<Stat, Error> {
        let ino = match self.lookup(parent, name.as_bytes()).await {
            Ok(stat) => self.open(stat.ino, true).await?.ino,
            Err(_) => self.make_open(parent, name.as_bytes(), file()).await?.ino,
        };
        for (index, run) in bytes.chunks(70_000).enumerate() {
            self.write(ino, index as u64 * 70_000, Bytes::copy_from_slice(run)).await?;
        }
        self.flush(ino).await?;
        self.release(ino).await?;
        self.stat(ino).await
    }
}
