#![allow(clippy::unwrap_used, clippy::expect_used)]
//! Tests of a node on real directories, and what they share.

mod alone;
mod bench;
mod catching_up;
mod cluster;
mod crash;
mod full;
mod learning;
mod levels;
mod node;
mod restart;
mod service;
mod several;
mod sim;
mod suite;

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{Alone, Error, Options, Raft};
use crate::catalog::{
    Attrs, Body, Command, ETag, Envelope, Ledger, Lookup, Outcome, Precondition, Version, Versioning,
};
use crate::env::Timestamp;
use crate::ids::{BucketId, Ino, NodeId, SessionId};

/// Small files, so that tests see several; an error panics the thread it happens on, which a test then notices.
pub(super) fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir, NodeId(1));
    options.log_file_len_bytes = 1 << 20;
    options.fatal = Arc::new(|message| panic!("{message}"));
    options
}

pub(super) async fn open(dir: &Path) -> Raft {
    Raft::open(options(dir), Arc::new(Alone)).await.unwrap()
}

pub(super) async fn open_error(dir: &Path) -> Error {
    match Raft::open(options(dir), Arc::new(Alone)).await {
        Ok(_) => panic!("the node opened"),
        Err(error) => error,
    }
}

/// Waits until this process has nothing open in `dir`: threads close their files after the node has shut down.
pub(super) async fn closed(dir: &Path) {
    let is_open = || {
        let mut descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        descriptors.any(|descriptor| std::fs::read_link(descriptor.path()).is_ok_and(|file| file.starts_with(dir)))
    };
    while is_open() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// Copies a directory tree.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A gateway with a session, a versioned bucket and leased ids.
pub(super) struct Gateway {
    pub(super) session: SessionId,
    pub(super) bucket: BucketId,
    ids: std::ops::Range<u64>,
    next_seq: u64,
}

pub(super) fn envelope(session: SessionId, seq: u64, command: Command) -> Envelope {
    Envelope { session, seq, acked: 0, now: Timestamp(1_000_000 + seq as i64), command }
}

impl Gateway {
    /// Opens a session and makes the bucket `name`. Ids are leased for `put_count` puts.
    pub(super) async fn new(raft: &Raft, name: &str, put_count: u32) -> Gateway {
        let open = envelope(SessionId(0), 0, Command::OpenSession { gateway: name.into() });
        let Outcome::Session(session) = raft.propose(open).await.unwrap() else { panic!("no session") };
        let mut gateway = Gateway { session, bucket: BucketId(0), ids: 0..0, next_seq: 1 };
        let lease = gateway.envelope(Command::LeaseIds { count: put_count + 1 });
        let Outcome::Ids { start, end } = raft.propose(lease).await.unwrap() else { panic!("no ids") };
        gateway.ids = start.0..end.0;
        gateway.bucket = BucketId(gateway.ids.next().unwrap());
        let (id, owner, region) = (gateway.bucket, "account".into(), "here".into());
        let create = gateway.envelope(Command::CreateBucket { id, name: name.into(), owner, region, lock: false });
        assert_eq!(raft.propose(create).await.unwrap(), Outcome::Done);
        let version = gateway.envelope(Command::SetVersioning { bucket: id, versioning: Versioning::Enabled });
        assert_eq!(raft.propose(version).await.unwrap(), Outcome::Done);
        gateway
    }

    pub(super) fn envelope(&mut self, command: Command) -> Envelope {
        let seq = self.next_seq;
        self.next_seq += 1;
        envelope(self.session, seq, command)
    }

    /// The next put, of an empty object.
    pub(super) fn put(&mut self, key: &str) -> Envelope {
        let ino = self.ids.next().unwrap();
        self.envelope(put(self.bucket, key, Ino(ino)))
    }
}

pub(super) fn put(bucket: BucketId, key: &str, ino: Ino) -> Command {
    Command::Put {
        bucket,
        key: Bytes::copy_from_slice(key.as_bytes()),
        ino,
        size_bytes: 0,
        etag: ETag { md5: [7; 16], part_count: 0 },
        attrs: Attrs::default(),
        body: Body::Empty,
        precondition: Precondition::default(),
    }
}

/// Puts `keys`, one after the other.
pub(super) async fn put_all(raft: &Raft, gateway: &mut Gateway, keys: &[String]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for key in keys {
        outcomes.push(raft.propose(gateway.put(key)).await.unwrap());
    }
    outcomes
}

pub(super) fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n:05}")).collect()
}

/// The current version of `key`, read linearizably.
pub(super) async fn current(raft: &Raft, bucket: BucketId, key: &str) -> Option<Version> {
    raft.barrier().await.unwrap();
    let key = key.to_owned();
    let lookup = raft.readers().read(move |view| view.lookup(bucket, key.as_bytes(), None)).await.unwrap();
    match lookup {
        Lookup::Found(version) => Some(version),
        Lookup::Missing | Lookup::Deleted(_) => None,
    }
}

/// How many keys, and how many versions beside the current ones, the bucket has.
pub(super) async fn counts(raft: &Raft, bucket: BucketId) -> (u64, u64) {
    raft.barrier().await.unwrap();
    let usage = raft.readers().read(move |view| view.usage(bucket)).await.unwrap();
    (usage.object_count, usage.version_count)
}

/// Notes fatal errors.
#[derive(Clone, Default)]
pub(super) struct Fatals(Arc<Mutex<Vec<String>>>);

impl Fatals {
    pub(super) fn hook(&self) -> super::Fatal {
        let noted = self.0.clone();
        Arc::new(move |message| noted.lock().unwrap().push(message.to_owned()))
    }

    pub(super) fn noted(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
