//! The complete check of a stopped store: every record of the log, every row of the catalog, every byte of every
//! chunk and of every body that lies in the catalog.
//!
//! It opens log and catalog as a start would, so entries that were not applied yet are; it changes nothing else.

use std::path::Path;
use std::sync::Arc;

use crate::catalog::{Bucket, Ledger, LedgerError, Lookup, Manifest, Place, VersionQuery, View};
use crate::consensus::{self, Alone, Raft};
use crate::file::{self, FAN_OUT, Files};
use crate::ids::{BucketId, Ino, LogIndex, VersionId};
use crate::log::{self, Health, Log};
use crate::node::{self, DataDir, Fatal};
use crate::object;
use crate::units::{BLOCK_BYTES, MIB};

/// Rows that one query of the check looks at.
const PAGE_COUNT: usize = 1000;
/// Contradictions and names that are told.
const TOLD_COUNT: usize = 100;
const NAMES_TOLD_COUNT: usize = 10;

/// Why a check could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory.
    #[error(transparent)]
    Node(#[from] node::Error),
    /// Log and catalog do not open.
    #[error(transparent)]
    Consensus(#[from] consensus::Error),
    /// The catalog cannot be read.
    #[error(transparent)]
    Catalog(#[from] crate::catalog::Error),
    /// The catalog did not come up.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Chunk files cannot be listed.
    #[error(transparent)]
    File(#[from] file::Error),
    /// A thread ended early.
    #[error("the check was interrupted: {0}")]
    Interrupted(String),
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The log does not open, or one of its records is damaged.
    Log(String),
    /// The log has lost acknowledged entries: the store only serves reads until `s3d recover`.
    LogLostEntries,
    /// Rows of the catalog contradict each other.
    Catalog(String),
    /// A chunk is missing or damaged.
    Chunk {
        /// Which.
        chunk: Ino,
        /// How.
        what: String,
        /// Some of the objects in it: bucket, key, version.
        objects: Vec<(String, Vec<u8>, VersionId)>,
    },
    /// The body of an object that lies in the catalog is damaged.
    Inline {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: Vec<u8>,
        /// Which version.
        version: VersionId,
    },
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Finding::Log(what) => write!(f, "log: {what}"),
            Finding::LogLostEntries => write!(f, "log: acknowledged entries are lost"),
            Finding::Catalog(what) => write!(f, "catalog: {what}"),
            Finding::Chunk { chunk, what, objects } => {
                write!(f, "chunk {chunk}: {what}")?;
                objects.iter().try_for_each(|(bucket, key, version)| {
                    write!(f, "\n  in {bucket}/{} version {version}", key.escape_ascii())
                })
            }
            Finding::Inline { bucket, key, version } => {
                write!(f, "{bucket}/{} version {version}: its bytes in the catalog are damaged", key.escape_ascii())
            }
        }
    }
}

/// What a check saw.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Records of the log that were read.
    pub log_record_count: u64,
    /// Chunks that were read and verified, damaged ones too.
    pub chunk_count: u64,
    /// Their bytes.
    pub chunk_bytes: u64,
    /// Versions in all buckets, delete markers too.
    pub version_count: u64,
    /// Bodies in the catalog that were verified.
    pub inline_count: u64,
    /// Chunks that died and whose files were not removed yet: no error.
    pub reclaimable_count: u64,
    /// Chunk files that nothing names, left by a crash; the sweep removes them: no error.
    pub orphan_count: u64,
    /// Chunks in quarantine: no error.
    pub quarantined_count: u64,
    /// Files among the chunks that this store did not make: no error.
    pub foreign_count: u64,
    /// What is wrong; empty: the store is sound.
    pub findings: Vec<Finding>,
}

/// Checks the store in `data_dir` completely. `progress` is told how many chunks were verified.
///
/// # Errors
/// The check could not be carried out; damage that was found is no error but a [`Finding`].
pub async fn check(data_dir: &Path, progress: impl Fn(u64) + Send + Sync) -> Result<Report, Error> {
    let data_dir = data_dir.to_owned();
    let (directory, files) = run(move || open(&data_dir)).await??;
    let mut report = Report::default();
    let log_dir = directory.log();
    let (log_record_count, finding) = run(move || check_log(log_dir)).await?;
    report.log_record_count = log_record_count;
    report.findings.extend(finding);
    let raft = Raft::open(directory.consensus(fatal()), Alone).await?;
    if raft.status().read_only {
        report.findings.push(Finding::LogLostEntries);
    }
    let checked = check_stored(&raft, &files, &mut report, progress).await;
    raft.shutdown().await;
    checked.map(|()| report)
}

fn open(data_dir: &Path) -> Result<(DataDir, Files), Error> {
    let directory = DataDir::open_existing(data_dir)?;
    let fatal = fatal();
    let files = Files::open(directory.chunks(), Arc::new(move |error| fatal(&error.to_string())))?;
    Ok((directory, files))
}

fn fatal() -> Fatal {
    node::Config::new("").fatal
}

async fn run<R: Send + 'static>(job: impl FnOnce() -> R + Send + 'static) -> Result<R, Error> {
    tokio::task::spawn_blocking(job).await.map_err(|error| Error::Interrupted(error.to_string()))
}

/// Reads every record of the log; each is verified against its checksum and the one before.
fn check_log(dir: std::path::PathBuf) -> (u64, Option<Finding>) {
    let mut record_count = 0;
    let finding = read_log(dir, &mut record_count).err().map(|error| Finding::Log(error.to_string()));
    (record_count, finding)
}

fn read_log(dir: std::path::PathBuf, record_count: &mut u64) -> Result<(), log::Error> {
    let (log, recovery) = Log::open(log::Options::new(dir))?;
    let mut next = recovery.first_index;
    while next < recovery.next_index {
        let records = log.read(next..recovery.next_index, MIB as usize)?;
        let Some((last, _)) = records.last() else { break };
        next = last + 1;
        *record_count += records.len() as u64;
    }
    if recovery.state != Health::Whole {
        tracing::warn!(state = ?recovery.state, "the log is not whole");
    }
    log.close();
    Ok(())
}

async fn check_stored(raft: &Raft, files: &Files, report: &mut Report, progress: impl Fn(u64)) -> Result<(), Error> {
    raft.barrier().await?;
    let contradictions = raft.readers().read(|view| view.contradictions(TOLD_COUNT)).await?;
    report.findings.extend(contradictions.into_iter().map(Finding::Catalog));
    let named = check_chunks(raft, files, report, progress).await?;
    check_versions(raft, report).await?;
    count_files(raft, files, report, &named).await
}

/// Verifies every chunk that the catalog names. Returns them, ascending.
async fn check_chunks(
    raft: &Raft,
    files: &Files,
    report: &mut Report,
    progress: impl Fn(u64),
) -> Result<Vec<Ino>, Error> {
    let mut named = Vec::new();
    loop {
        let after = named.last().copied().unwrap_or_default();
        let page = raft.readers().read(move |view| view.chunks(after, PAGE_COUNT)).await?;
        if page.is_empty() {
            return Ok(named);
        }
        named.extend(page.iter().map(|(chunk, _)| *chunk));
        for (chunk, place) in page {
            let files = files.clone();
            report.chunk_count += 1;
            report.chunk_bytes += place.len_bytes;
            if let Err(what) = run(move || check_chunk(&files, chunk, &place)).await? {
                let objects = raft.readers().read(move |view| view.names_of(chunk, NAMES_TOLD_COUNT)).await?;
                report.findings.push(Finding::Chunk { chunk, what, objects });
            }
            progress(report.chunk_count);
        }
    }
}

fn check_chunk(files: &Files, chunk: Ino, place: &Place) -> Result<(), String> {
    match files.verify(chunk) {
        Ok(len_bytes) if len_bytes == place.len_bytes => Ok(()),
        Ok(len_bytes) => Err(format!("{len_bytes} bytes long, not {}", place.len_bytes)),
        Err(error) => Err(error.to_string()),
    }
}

/// Walks every version of every bucket, and verifies the bodies that lie in the catalog.
async fn check_versions(raft: &Raft, report: &mut Report) -> Result<(), Error> {
    let mut after: Option<String> = None;
    loop {
        let from = after.clone();
        let buckets = raft.readers().read(move |view| view.buckets(from.as_deref(), PAGE_COUNT)).await?;
        let Some(last) = buckets.last() else { return Ok(()) };
        after = Some(last.name.clone());
        for bucket in buckets {
            check_bucket(raft, bucket, report).await?;
        }
    }
}

async fn check_bucket(raft: &Raft, bucket: Bucket, report: &mut Report) -> Result<(), Error> {
    let mut query = VersionQuery { limit: PAGE_COUNT, ..VersionQuery::default() };
    loop {
        let (id, asked) = (bucket.id, query.clone());
        let page = raft.readers().read(move |view| check_page(view, id, &asked)).await?;
        report.version_count += page.version_count;
        report.inline_count += page.inline_count;
        let damaged = |(key, version)| Finding::Inline { bucket: bucket.name.clone(), key, version };
        report.findings.extend(page.damaged.into_iter().map(damaged));
        let Some((key, seq)) = page.next else { return Ok(()) };
        (query.after, query.after_seq) = (key, seq);
    }
}

#[derive(Default)]
struct CheckedPage {
    version_count: u64,
    inline_count: u64,
    damaged: Vec<(Vec<u8>, VersionId)>,
    next: Option<(Vec<u8>, Option<crate::ids::Seq>)>,
}

fn check_page(view: &View<'_>, bucket: BucketId, query: &VersionQuery) -> Result<CheckedPage, crate::catalog::Error> {
    let page = view.list_versions(bucket, query)?;
    let mut checked = CheckedPage { next: page.next, ..CheckedPage::default() };
    for (key, listed) in page.entries {
        let Some(listed) = listed else { continue };
        checked.version_count += 1;
        if listed.is_delete_marker || listed.size_bytes > BLOCK_BYTES {
            continue;
        }
        let Lookup::Found(version) = view.lookup(bucket, &key, Some(listed.id))? else { continue };
        if let Manifest::Inline(bytes) = view.manifest(version.ino, 0..version.size_bytes)? {
            checked.inline_count += 1;
            if !object::is_body_of(&bytes, &version) {
                checked.damaged.push((key, listed.id));
            }
        }
    }
    Ok(checked)
}

/// Counts the files that are no named chunk's.
async fn count_files(raft: &Raft, files: &Files, report: &mut Report, named: &[Ino]) -> Result<(), Error> {
    let all = |view: &View<'_>| view.reclaimable(LogIndex(u64::MAX), usize::MAX >> 1);
    let mut dead: Vec<Ino> = raft.readers().read(all).await?.into_iter().map(|row| row.chunk).collect();
    dead.sort_unstable();
    report.reclaimable_count = dead.len() as u64;
    for index in 0..FAN_OUT {
        let files = files.clone();
        let listing = run(move || files.list(index)).await??;
        report.foreign_count += listing.foreign.len() as u64;
        let is_known = |chunk: &Ino| named.binary_search(chunk).is_ok() || dead.binary_search(chunk).is_ok();
        report.orphan_count += listing.chunks.iter().filter(|listed| !is_known(&listed.chunk)).count() as u64;
    }
    let files = files.clone();
    report.quarantined_count = run(move || files.quarantined()).await??.chunks.len() as u64;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;

    use crate::catalog::{Attrs, Checksum, Precondition};
    use crate::env::Env;
    use crate::node::{Config, Node};
    use crate::object::{Incoming, Put, Source};

    struct Once(Option<Bytes>);

    impl Source for Once {
        async fn next(&mut self) -> Result<Option<Bytes>, ()> {
            Ok(self.0.take())
        }
        fn promised(&self) -> Vec<Checksum> {
            Vec::new()
        }
    }

    async fn put(node: &Node, key: &str, body: Vec<u8>) {
        let precondition = Precondition::default();
        let put = Put { bucket: "bucket".into(), key: key.into(), attrs: Attrs::default(), precondition };
        node.store.put(put, Incoming::default(), &mut Once(Some(body.into()))).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_check_counts_everything_and_names_what_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        assert!(matches!(check(&data, |_| ()).await, Err(Error::Node(node::Error::NoStore { .. }))));
        let node = Node::open(Env::system(), Config::new(&data)).await.unwrap();
        node.store.create_bucket("bucket", "owner", "here", false).await.unwrap();
        put(&node, "small", b"inline body that is found by its bytes".to_vec()).await;
        put(&node, "large one", vec![7; 100_000]).await;
        put(&node, "another", vec![8; 10_000]).await;
        assert!(matches!(check(&data, |_| ()).await, Err(Error::Node(node::Error::Locked { .. }))));
        node.shutdown().await;

        let report = check(&data, |_| ()).await.unwrap();
        assert_eq!(report.findings, []);
        assert!(report.log_record_count > 4);
        let counts = (report.chunk_count, report.chunk_bytes, report.version_count, report.inline_count);
        assert_eq!(counts, (2, 110_000, 3, 1));
        assert_eq!((report.orphan_count, report.quarantined_count, report.foreign_count), (0, 0, 0));

        let files = Files::open(data.join("chunks"), Arc::new(|_| ())).unwrap();
        let mut orphan = files.create(Ino::new(1, 4000), None).unwrap();
        orphan.write(b"nobody's").unwrap();
        orphan.finish().unwrap();
        let chunk = (0..FAN_OUT)
            .flat_map(|index| files.list(index).unwrap().chunks)
            .find(|listed| listed.file_bytes > 100_000)
            .unwrap()
            .chunk;
        let path = data.join(format!("chunks/{:02x}/{:016x}", (chunk.0 >> 12) % 256, chunk.0));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[99_999] ^= 1;
        std::fs::write(&path, bytes).unwrap();

        let report = check(&data, |_| ()).await.unwrap();
        assert_eq!(report.orphan_count, 1);
        let [finding @ Finding::Chunk { chunk: found, objects, .. }] = report.findings.as_slice() else {
            panic!("{report:?}");
        };
        assert_eq!((*found, objects.len()), (chunk, 1));
        assert!(finding.to_string().contains("bucket/large one version null"), "{finding}");
    }
}
