//! The complete check of a stopped store: every record of the log, every row of the catalog, every byte of every
//! chunk and of every body that lies in the catalog.
//!
//! It opens log and catalog as a start would, so entries that were not applied yet are; it changes nothing else.
//!
//! Invariant: damage in one place hides none in another. What cannot be checked is told, and the check goes on.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::{self, Ledger, Manifest, Place, Version, VersionRow, View};
use crate::consensus::{self, Alone, Raft};
use crate::file::{self, FAN_OUT, Files};
use crate::ids::{Ino, VersionId};
use crate::log::{self, Health, Log};
use crate::node::{self, DataDir, Fatal};
use crate::object;
use crate::units::MIB;

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
    Catalog(#[from] catalog::Error),
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
    /// The rows of an object are damaged, or its body that lies in the catalog.
    Version {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: Vec<u8>,
        /// Which version.
        version: VersionId,
        /// How.
        what: String,
    },
    /// A part of the store could not be checked to its end.
    Unfinished {
        /// Which.
        part: &'static str,
        /// Why.
        why: String,
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
            Finding::Version { bucket, key, version, what } => {
                write!(f, "{bucket}/{} version {version}: {what}", key.escape_ascii())
            }
            Finding::Unfinished { part, why } => write!(f, "{part}: not checked to the end: {why}"),
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

impl Report {
    /// Takes note of a part that ended early.
    fn finished<T>(&mut self, part: &'static str, result: Result<T, impl std::fmt::Display>) -> Option<T> {
        result.map_err(|error| self.findings.push(Finding::Unfinished { part, why: error.to_string() })).ok()
    }
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
    let broken = Broken::default();
    match Raft::open(directory.consensus(broken.hook()), Arc::new(Alone)).await {
        Ok(raft) => {
            check_stored(&raft, &files, &mut report, progress).await;
            raft.shutdown().await;
        }
        Err(error) if report.findings.is_empty() => return Err(error.into()),
        Err(error) => _ = report.finished("catalog and chunks", Err::<(), _>(error)),
    }
    report.findings.extend(broken.told().map(Finding::Catalog));
    Ok(report)
}

/// What would end a daemon. Here it is told, and what still can be read is.
#[derive(Clone, Default)]
struct Broken(Arc<Mutex<Option<String>>>);

impl Broken {
    fn hook(&self) -> Fatal {
        let broken = self.clone();
        Arc::new(move |why| {
            broken.lock().get_or_insert_with(|| why.to_owned());
        })
    }

    fn told(&self) -> Option<String> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(data_dir: &Path) -> Result<(DataDir, Files), Error> {
    let directory = DataDir::open_existing(data_dir)?;
    let fatal = node::Config::new("").fatal;
    let files = Files::open(directory.chunks(), Arc::new(move |error| fatal(&error.to_string())))?;
    Ok((directory, files))
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

async fn check_stored(raft: &Raft, files: &Files, report: &mut Report, progress: impl Fn(u64)) {
    if raft.status().read_only {
        report.findings.push(Finding::LogLostEntries);
    }
    report.finished("the last entries of the log", raft.barrier().await);
    let contradictions = raft.readers().read(|view| Ok(view.contradictions(TOLD_COUNT))).await;
    let contradictions = report.finished("the catalog", contradictions).unwrap_or_default();
    report.findings.extend(contradictions.into_iter().map(Finding::Catalog));
    let mut named = Vec::new();
    let chunks = check_chunks(raft, files, report, &mut named, progress).await;
    let versions = check_versions(raft, report).await;
    report.finished("versions", versions);
    // Without all the names, files would be counted that only seem to have none.
    if report.finished("chunks", chunks).is_some() {
        let counted = count_files(raft, files, report, &named).await;
        report.finished("files of chunks", counted);
    }
}

/// Verifies every chunk that the catalog names; they come to be in `named`, ascending.
async fn check_chunks(
    raft: &Raft,
    files: &Files,
    report: &mut Report,
    named: &mut Vec<Ino>,
    progress: impl Fn(u64),
) -> Result<(), Error> {
    loop {
        let after = named.last().copied().unwrap_or_default();
        let page = raft.readers().read(move |view| view.chunks(after, PAGE_COUNT)).await?;
        if page.is_empty() {
            return Ok(());
        }
        named.extend(page.iter().map(|(chunk, _)| *chunk));
        for (chunk, place) in page {
            let files = files.clone();
            report.chunk_count += 1;
            report.chunk_bytes += place.as_ref().map_or(0, |place| place.len_bytes);
            if let Err(what) = run(move || check_chunk(&files, chunk, place)).await? {
                let objects = raft.readers().read(move |view| view.names_of(chunk, NAMES_TOLD_COUNT)).await;
                let objects = report.finished("names of a chunk", objects).unwrap_or_default();
                report.findings.push(Finding::Chunk { chunk, what, objects });
            }
            progress(report.chunk_count);
        }
    }
}

fn check_chunk(files: &Files, chunk: Ino, place: Result<Place, catalog::Error>) -> Result<(), String> {
    let place = place.map_err(|error| error.to_string())?;
    match files.verify(chunk) {
        Ok(len_bytes) if len_bytes == place.len_bytes => Ok(()),
        Ok(len_bytes) => Err(format!("{len_bytes} bytes long, not {}", place.len_bytes)),
        Err(error) => Err(error.to_string()),
    }
}

/// What a walk over all versions saw.
#[derive(Default)]
struct Seen {
    version_count: u64,
    inline_count: u64,
    damaged: Vec<Finding>,
}

/// Looks at every version in every bucket, and verifies the bodies that lie in the catalog.
async fn check_versions(raft: &Raft, report: &mut Report) -> Result<(), Error> {
    let walk = |view: &View<'_>| {
        let mut seen = Seen::default();
        let end = view.each_version(|row| seen.version(view, row));
        Ok((seen, end))
    };
    let (seen, end) = raft.readers().read(walk).await?;
    report.version_count = seen.version_count;
    report.inline_count = seen.inline_count;
    report.findings.extend(seen.damaged);
    Ok(end?)
}

impl Seen {
    fn version(&mut self, view: &View<'_>, row: &VersionRow) {
        self.version_count += 1;
        let damage = match &row.found {
            Ok((version, manifest)) => self.damage(version, manifest).map(str::to_owned),
            Err(error) => Some(error.to_string()),
        };
        if let Some(what) = damage {
            let (bucket, key) = view.name_of(row);
            self.damaged.push(Finding::Version { bucket, key, version: row.id, what });
        }
    }

    fn damage(&mut self, version: &Version, manifest: &Manifest) -> Option<&'static str> {
        match manifest {
            Manifest::Inline(bytes) => {
                self.inline_count += 1;
                (!object::is_body_of(bytes, version)).then_some("its bytes in the catalog are damaged")
            }
            Manifest::Empty => (version.size_bytes > 0).then_some("the catalog does not know its bytes"),
            Manifest::Extents(_) => None, // their chunks are verified one by one
        }
    }
}

/// Counts the files that are no named chunk's.
async fn count_files(raft: &Raft, files: &Files, report: &mut Report, named: &[Ino]) -> Result<(), Error> {
    let dead = raft.readers().read(|view| view.dead_chunks()).await?;
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
    use crate::env::Env;
    use crate::node::tests::put;
    use crate::node::{Config, Node};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_check_counts_everything_and_names_what_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        assert!(matches!(check(&data, |_| ()).await, Err(Error::Node(node::Error::NoStore { .. }))));
        let node = Node::open(Env::system(), Config::new(&data)).await.unwrap();
        node.store.create_bucket("bucket", "owner", "here", false).await.unwrap();
        put(&node.store, "small", b"inline body that is found by its bytes".to_vec()).await;
        put(&node.store, "large one", vec![7; 100_000]).await;
        put(&node.store, "another", vec![8; 10_000]).await;
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

    /// Each of these once ended the check before it had named anything.
    #[tokio::test(flavor = "multi_thread")]
    async fn damaged_rows_are_named_and_hide_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let node = Node::open(Env::system(), Config::new(&data)).await.unwrap();
        node.store.create_bucket("bucket", "owner", "here", false).await.unwrap();
        for key in ["body", "tag", "attrs", "node", "sound"] {
            put(&node.store, &format!("dir/{key}"), b"inline body".to_vec()).await;
        }
        put(&node.store, "dir/place", vec![7; 100_000]).await;
        node.shutdown().await;

        let catalog = rusqlite::Connection::open(data.join("catalog/state-1/fsm.db")).unwrap();
        let node_of = |key| format!("(SELECT ino FROM dentry WHERE name=CAST('{key}' AS BLOB))");
        for damage in [
            format!("DELETE FROM inline WHERE ino={}", node_of("body")),
            "UPDATE dentry SET etag=x'00' WHERE name=CAST('tag' AS BLOB)".to_owned(),
            format!("UPDATE node SET attrs=x'ff' WHERE id={}", node_of("attrs")),
            format!("DELETE FROM node WHERE id={}", node_of("node")),
            format!("UPDATE node SET place=x'ff' WHERE id={}", node_of("place")),
        ] {
            assert_eq!(catalog.execute(&damage, []).unwrap(), 1, "{damage}");
        }
        drop(catalog);

        let report = check(&data, |_| ()).await.unwrap();
        let told: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        for key in ["body", "tag", "attrs", "node", "place"] {
            let name = format!("bucket/dir/{key} version null: ");
            assert!(told.iter().any(|line| line.starts_with(&name)), "{key} is not named: {told:#?}");
        }
        assert!(!told.iter().any(|line| line.contains("dir/sound")), "{told:#?}");
        assert!(told.iter().any(|line| line.contains("has no inline bytes")), "{told:#?}");
        assert_eq!((report.version_count, report.chunk_count, report.inline_count), (6, 1, 1));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_does_not_open_is_told_with_what_was_found_before() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let node = Node::open(Env::system(), Config::new(&data)).await.unwrap();
        node.store.create_bucket("bucket", "owner", "here", false).await.unwrap();
        node.shutdown().await;
        let log = std::fs::read_dir(data.join("log")).unwrap().map(|entry| entry.unwrap().path());
        let file = log.into_iter().find(|path| path.extension().is_some_and(|end| end == "log")).unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[4096 + 60] ^= 1; // in the first batch: later ones prove that it was synced
        std::fs::write(&file, bytes).unwrap();
        let report = check(&data, |_| ()).await.unwrap();
        assert!(matches!(report.findings.as_slice(), [Finding::Log(_), Finding::Unfinished { .. }]), "{report:?}");
    }
}
