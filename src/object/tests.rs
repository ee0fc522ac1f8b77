//! The store over a real catalog, without Raft: each proposal is applied at once, in a transaction of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;

use super::*;
use crate::catalog::{
    Catalog, Checksum, ChecksumKind, CompletePart, DeleteKey, ETag, Entry, Envelope, ListQuery, Options, Outcome, Part,
    Position, Readers, Version, Versioning,
};
use crate::file::Files;
use crate::ids::NodeId;
use crate::ids::{Ino, LogIndex};
use crate::units::{MIB, PART_MIN_BYTES};

/// What a proposal meets on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is lost before it is applied.
    LostBefore,
    /// It is applied, and the answer is lost.
    LostAfter,
    /// It is refused for good.
    Unavailable,
}

/// A ledger over a catalog alone.
struct Direct {
    catalog: Mutex<Catalog>,
    readers: Readers,
    faults: Mutex<VecDeque<Fault>>,
    proposal_count: AtomicUsize,
}

impl Direct {
    fn open(dir: &std::path::Path) -> Arc<Direct> {
        let catalog = Catalog::open(dir, Options::default()).unwrap();
        let readers = catalog.readers();
        let faults = Mutex::default();
        Arc::new(Direct { catalog: Mutex::new(catalog), readers, faults, proposal_count: AtomicUsize::new(0) })
    }

    fn apply(&self, envelope: &Envelope) -> Outcome {
        self.proposal_count.fetch_add(1, Ordering::Relaxed);
        let mut catalog = self.catalog.lock().unwrap();
        let index = catalog.applied().position.map_or(1, |position| position.index + 1);
        // As it would come out of the log.
        let entry = Entry::Command(Envelope::decode(&envelope.encode()).unwrap());
        catalog.apply(&[(Position { term: 1, leader: 1, index }, entry)]).unwrap().remove(0)
    }

    fn fail_next(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults);
    }
}

impl Ledger for Direct {
    fn propose(&self, envelope: Envelope) -> BoxFuture<'_, Result<Outcome, LedgerError>> {
        Box::pin(async move {
            let fault = self.faults.lock().unwrap().pop_front();
            match fault {
                None => Ok(self.apply(&envelope)),
                Some(Fault::LostBefore) => Err(LedgerError::Unknown("lost".into())),
                Some(Fault::LostAfter) => {
                    self.apply(&envelope);
                    Err(LedgerError::Unknown("lost".into()))
                }
                Some(Fault::Unavailable) => Err(LedgerError::Unavailable("no leader".into())),
            }
        })
    }

    fn barrier(&self) -> BoxFuture<'_, Result<LogIndex, LedgerError>> {
        let index = self.catalog.lock().unwrap().applied().position.map_or(0, |position| position.index);
        Box::pin(async move { Ok(LogIndex(index)) })
    }

    fn readers(&self) -> &Readers {
        &self.readers
    }

    fn leads(&self) -> bool {
        true
    }
}

fn in_files(files: &Files) -> Chunks {
    Chunks::in_files(NodeId(1), files.clone())
}

/// A store in a directory of its own.
struct Bed {
    store: Store,
    ledger: Arc<Direct>,
    files: Files,
    dir: tempfile::TempDir,
}

impl Bed {
    async fn new() -> Bed {
        Bed::with(Config::default()).await
    }

    async fn with(config: Config) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Direct::open(&dir.path().join("catalog"));
        let files = Files::open(dir.path().join("chunks"), Arc::new(|error| panic!("{error}"))).unwrap();
        let store = Store::open(Env::system(), ledger.clone(), in_files(&files), config).await.unwrap();
        store.create_bucket("b", "owner", "here", false).await.unwrap();
        Bed { store, ledger, files, dir }
    }

    /// Another gateway process after this one died: the same catalog and files.
    async fn restarted(&self, config: Config) -> Store {
        Store::open(Env::system(), self.ledger.clone(), in_files(&self.files), config).await.unwrap()
    }

    async fn put(&self, key: &str, body: &[u8]) -> Stored {
        put(&self.store, key, body).await.unwrap()
    }

    async fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, Error> {
        collect(self.store.get(&target(key)).await?.read(range)).await
    }

    /// Names of all chunk files.
    fn chunks(&self) -> Vec<Ino> {
        let listings = (0..file::FAN_OUT).map(|index| self.files.list(index).unwrap());
        listings.flat_map(|listing| listing.chunks).map(|listed| listed.chunk).collect()
    }

    fn path_of(&self, chunk: Ino) -> std::path::PathBuf {
        let name = format!("{:016x}", chunk.0);
        let directories = std::fs::read_dir(self.dir.path().join("chunks")).unwrap();
        let mut paths = directories.map(|entry| entry.unwrap().path().join(&name));
        paths.find(|path| path.exists()).unwrap()
    }

    /// The catalog is sound, every chunk is whole and named, and nothing is left over.
    async fn assert_sound(&self) {
        let contradictions = self.ledger.readers.read(|view| Ok(view.contradictions(10))).await.unwrap();
        assert_eq!(contradictions, Vec::<String>::new());
        assert_eq!(self.files.temporary_count().unwrap(), 0);
        assert_eq!(self.store.budget_taken_bytes(), 0);
        let mut named: Vec<Ino> = self
            .ledger
            .readers
            .read(|view| view.chunks(Ino(0), 10_000))
            .await
            .unwrap()
            .into_iter()
            .map(|(chunk, _)| chunk)
            .collect();
        let mut stored = self.chunks();
        named.sort();
        stored.sort();
        assert_eq!(named, stored);
        stored.into_iter().for_each(|chunk| _ = self.files.verify(chunk).unwrap());
    }
}

use std::ops::Range;

/// A body in runs, and how it ends.
struct Runs {
    runs: VecDeque<Bytes>,
    end: End,
    promised: Vec<Checksum>,
}

enum End {
    Whole,
    Fails,
    Stalls,
}

impl Source for Runs {
    async fn next(&mut self) -> Result<Option<Bytes>, ()> {
        match (self.runs.pop_front(), &self.end) {
            (Some(run), _) => Ok(Some(run)),
            (None, End::Whole) => Ok(None),
            (None, End::Fails) => Err(()),
            (None, End::Stalls) => std::future::pending().await,
        }
    }

    fn promised(&self) -> Vec<Checksum> {
        self.promised.clone()
    }
}

fn runs(body: &[u8], end: End) -> Runs {
    Runs { runs: body.chunks(50_000).map(Bytes::copy_from_slice).collect(), end, promised: Vec::new() }
}

fn pattern(len: usize, salt: u64) -> Vec<u8> {
    (0..len as u64).map(|i| ((i + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn target(key: &str) -> Target {
    Target { bucket: "b".into(), key: key.into(), version: None }
}

fn put_of(key: &str) -> Put {
    Put { bucket: "b".into(), key: key.into(), attrs: Attrs::default(), precondition: Precondition::default() }
}

async fn put(store: &Store, key: &str, body: &[u8]) -> Result<Stored, Error> {
    let incoming = Incoming { len_bytes: Some(body.len() as u64), ..Incoming::default() };
    store.put(put_of(key), incoming, &mut runs(body, End::Whole)).await
}

async fn collect(mut reader: Reader) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(run) = reader.next().await {
        bytes.extend_from_slice(&run?);
    }
    Ok(bytes)
}

fn delete_key(key: &str) -> DeleteKey {
    DeleteKey {
        key: Bytes::copy_from_slice(key.as_bytes()),
        version: None,
        precondition: Precondition::default(),
        bypass_governance: false,
    }
}

fn digest(body: &[u8], algorithms: &[ChecksumAlgorithm]) -> digest::Digested {
    let mut digests = digest::Digests::new(algorithms);
    digests.update(body);
    digests.finish()
}

/// Waits until `holds`, which something that is under way will bring about.
async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_length_come_back_whole_and_in_ranges() {
    let bed = Bed::new().await;
    for len in [0, 1, 8191, 8192, 8193, 65_536, 65_537, 262_144, 262_145, 1_300_000] {
        let (key, body) = (format!("dir/{len}"), pattern(len, 3));
        let stored = bed.put(&key, &body).await;
        let expected = digest(&body, &[ChecksumAlgorithm::Crc64Nvme]);
        assert_eq!(stored.written.etag, ETag { md5: expected.md5, part_count: 0 });
        assert_eq!((stored.size_bytes, &stored.checksums), (len as u64, &expected.checksums));
        let version = bed.store.head(&target(&key)).await.unwrap().version;
        assert_eq!((version.size_bytes, &version.attrs.checksums), (len as u64, &expected.checksums));
        for range in [0..len, len / 3..len / 2, len.saturating_sub(1)..len, len..len] {
            let got = bed.get(&key, range.start as u64..range.end as u64).await.unwrap();
            assert!(got == body[range.clone()], "{len}: {range:?}");
        }
        assert!(matches!(bed.get(&key, 0..len as u64 + 1).await, Err(Error::InvalidRange { .. })));
    }
    assert_eq!(bed.chunks().len(), 6);
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_unannounced_length_is_stored() {
    let bed = Bed::new().await;
    for len in [0, 100, 700_000] {
        let body = pattern(len, 1);
        let stored = bed.store.put(put_of("k"), Incoming::default(), &mut runs(&body, End::Whole)).await.unwrap();
        assert_eq!(stored.size_bytes, len as u64);
        assert!(bed.get("k", 0..len as u64).await.unwrap() == body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_are_checked_before_anything_is_stored() {
    let bed = Bed::new().await;
    for len in [100, 300_000] {
        let body = pattern(len, 1);
        let algorithms = vec![ChecksumAlgorithm::Sha256, ChecksumAlgorithm::Crc32];
        let right = digest(&body, &algorithms);
        let incoming = Incoming { len_bytes: Some(len as u64), algorithms, md5: Some(right.md5) };
        let mut source = runs(&body, End::Whole);
        source.promised = right.checksums.clone();
        let stored = bed.store.put(put_of("good"), incoming.clone(), &mut source).await.unwrap();
        assert_eq!(stored.checksums, right.checksums);

        let mut source = runs(&body, End::Whole);
        source.promised = right.checksums.clone();
        source.promised[0].value[5] ^= 1;
        let answer = bed.store.put(put_of("bad"), incoming.clone(), &mut source).await;
        assert!(matches!(answer, Err(Error::BadDigest { what: "SHA256" })));
        let lies = Incoming { md5: Some([0; 16]), ..incoming.clone() };
        let answer = bed.store.put(put_of("bad"), lies, &mut runs(&body, End::Whole)).await;
        assert!(matches!(answer, Err(Error::BadDigest { what: "Content-MD5" })));
        for announced in [len - 1, len + 1] {
            let lies = Incoming { len_bytes: Some(announced as u64), ..incoming.clone() };
            let answer = bed.store.put(put_of("bad"), lies, &mut runs(&body, End::Whole)).await;
            assert!(matches!(answer, Err(Error::WrongLength { .. })));
        }
        assert!(matches!(bed.store.head(&target("bad")).await, Err(Error::Refused(Refusal::NoSuchKey))));
    }
    bed.store.settle().await.unwrap();
    assert_eq!(bed.chunks().len(), 1);
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_or_a_client_that_goes_leaves_nothing() {
    let bed = Bed::new().await;
    let body = pattern(900_000, 1);
    for _ in 0..3 {
        let answer = bed.store.put(put_of("k"), Incoming::default(), &mut runs(&body, End::Fails)).await;
        assert!(matches!(answer, Err(Error::Source)));
    }
    bed.assert_sound().await;

    let store = bed.store.clone();
    let body = body.clone();
    let client =
        tokio::spawn(async move { store.put(put_of("k"), Incoming::default(), &mut runs(&body, End::Stalls)).await });
    let files = bed.files.clone();
    until(|| files.temporary_count().unwrap() == 1).await;
    assert!(bed.store.budget_taken_bytes() > 0);
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    until(|| files.temporary_count().unwrap() == 0 && bed.store.budget_taken_bytes() == 0).await;
    bed.assert_sound().await;
    assert_eq!(bed.chunks(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_removes_the_chunk_at_once() {
    let bed = Bed::new().await;
    bed.put("k", b"first").await;
    let mut refused = put_of("k");
    refused.precondition.if_none_match = Some(vec![None]);
    let answer = bed.store.put(refused, Incoming::default(), &mut runs(&pattern(20_000, 1), End::Whole)).await;
    assert!(matches!(answer, Err(Error::Refused(Refusal::PreconditionFailed(_)))));
    assert_eq!(bed.chunks(), []);
    assert_eq!(bed.get("k", 0..5).await.unwrap(), b"first");
    let mut nowhere = put_of("k");
    nowhere.bucket = "none".into();
    let answer = bed.store.put(nowhere, Incoming::default(), &mut runs(b"x", End::Whole)).await;
    assert!(matches!(answer, Err(Error::Refused(Refusal::NoSuchBucket))));
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_again_and_a_command_is_applied_once() {
    let bed = Bed::new().await;
    bed.store.set_versioning("b", Versioning::Enabled).await.unwrap();
    let body = pattern(20_000, 1);
    for fault in [Fault::LostBefore, Fault::LostAfter] {
        bed.ledger.fail_next(&[fault, fault]);
        bed.put("k", &body).await;
    }
    let query = crate::catalog::VersionQuery { limit: 10, ..Default::default() };
    assert_eq!(bed.store.list_versions("b", query).await.unwrap().entries.len(), 2);
    bed.ledger.fail_next(&[Fault::Unavailable]);
    assert!(matches!(put(&bed.store, "other", &body).await, Err(Error::Unavailable(_))));
    assert_eq!(bed.chunks().len(), 2);
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_is_left_to_the_sweep() {
    let config = Config { propose_patience: Duration::ZERO, ..Config::default() };
    let bed = Bed::with(config.clone()).await;
    let body = pattern(20_000, 1);
    bed.put("kept", &body).await;
    bed.ledger.fail_next(&[Fault::LostBefore]);
    assert!(matches!(put(&bed.store, "lost", &body).await, Err(Error::Unavailable(_))));
    bed.ledger.fail_next(&[Fault::LostAfter]);
    assert!(matches!(put(&bed.store, "made", &body).await, Err(Error::Unavailable(_))));
    assert_eq!(bed.chunks().len(), 3);
    // While the session lives its ids are leased: nothing is an orphan.
    let report = bed.store.sweep_older_than(Duration::ZERO).await.unwrap();
    assert_eq!((report.chunk_count, report.quarantined_count), (3, 0));
    // Another session of this gateway ends the first: now only what was never applied is one.
    let again = bed.restarted(config).await;
    assert!(again.sweep_older_than(Duration::from_secs(3600)).await.unwrap().quarantined_count == 0);
    let report = again.sweep_older_than(Duration::ZERO).await.unwrap();
    assert_eq!((report.chunk_count, report.quarantined_count, report.removed_count), (3, 1, 0));
    let report = again.sweep_older_than(Duration::ZERO).await.unwrap();
    assert_eq!((report.chunk_count, report.quarantined_count, report.removed_count), (2, 0, 1));
    for key in ["kept", "made"] {
        assert!(bed.get(key, 0..20_000).await.unwrap() == body);
    }
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_is_replaced() {
    let bed = Bed::new().await;
    let other = bed.restarted(Config::default()).await; // ends the first one's session
    let body = pattern(20_000, 1);
    assert!(matches!(put(&bed.store, "k", &body).await, Err(Error::Unavailable(_))));
    assert_eq!(bed.chunks(), []);
    bed.put("k", &body).await; // under a new session, which in turn ended the other's
    put(&other, "k2", &body).await.unwrap(); // it had leased no ids yet: nothing was lost with its session
    assert_eq!(bed.store.delete("b", vec![delete_key("k2")]).await.unwrap().len(), 1);
    bed.store.settle().await.unwrap();
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_gives_space_back_but_not_from_under_a_slow_reader() {
    let bed = Bed::new().await;
    let body = pattern(3_000_000, 1);
    bed.put("k", &body).await;
    let mut slow = bed.store.get(&target("k")).await.unwrap().read(0..body.len() as u64);
    let first = slow.next().await.unwrap().unwrap();
    bed.store.delete("b", vec![delete_key("k")]).await.unwrap();
    for _ in 0..3 {
        assert_eq!(bed.store.settle().await.unwrap(), 0);
    }
    assert_eq!(bed.chunks().len(), 1);
    let rest = collect(slow).await.unwrap();
    assert!([&first[..], &rest].concat() == body);
    assert_eq!(bed.store.settle().await.unwrap(), 1);
    assert_eq!(bed.chunks(), []);
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_an_error_and_never_wrong_bytes() {
    let bed = Bed::new().await;
    let body = pattern(200_000, 1);
    bed.put("k", &body).await;
    let path = bed.path_of(bed.chunks()[0]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[70_000] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(bed.get("k", 0..200_000).await, Err(Error::Corrupt(_))));
    assert!(matches!(bed.get("k", 70_001..70_002).await, Err(Error::Corrupt(_))));
    assert!(bed.get("k", 0..65_536).await.unwrap() == body[..65_536]);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(bed.get("k", 0..1).await, Err(Error::Corrupt(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_and_asked_for_once() {
    let config = Config { budget_bytes: 4 * MIB, budget_patience: Duration::ZERO, ..Config::default() };
    let bed = Bed::with(config).await;
    struct Zeros(u64);
    impl Source for Zeros {
        async fn next(&mut self) -> Result<Option<Bytes>, ()> {
            static RUN: [u8; 65_536] = [0; 65_536];
            self.0 = self.0.saturating_sub(1);
            Ok((self.0 > 0).then(|| Bytes::from_static(&RUN)))
        }
        fn promised(&self) -> Vec<Checksum> {
            Vec::new()
        }
    }
    let stored = bed.store.put(put_of("zeros"), Incoming::default(), &mut Zeros(513)).await.unwrap();
    assert_eq!(stored.size_bytes, 32 * MIB);
    let mut readers = Vec::new();
    let refusal = loop {
        let mut reader = bed.store.get(&target("zeros")).await.unwrap().read(0..32 * MIB);
        match reader.next().await.unwrap() {
            Ok(_) => readers.push(reader),
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, Error::Overloaded));
    assert!((2..=4).contains(&readers.len()), "{}", readers.len());
    drop(readers);
    assert_eq!(bed.store.budget_taken_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_new_bytes_and_lets_go_of_old_ones() {
    let config = Config { low_water_bytes: Some(u64::MAX / 4), ..Config::default() };
    let bed = Bed::with(config).await;
    assert_eq!(bed.store.pressure(), Pressure::Full);
    assert!(matches!(put(&bed.store, "k", b"small").await, Err(Error::Full)));
    assert!(matches!(put(&bed.store, "k", &pattern(20_000, 1)).await, Err(Error::Full)));
    assert_eq!(bed.store.delete("b", vec![delete_key("k")]).await.unwrap().len(), 1);
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_shares_the_bytes_and_outlives_its_source() {
    let bed = Bed::new().await;
    for len in [0, 100, 300_000] {
        let body = pattern(len, 1);
        bed.put("source", &body).await;
        let chunk_count = bed.chunks().len();
        let source = bed.store.head(&target("source")).await.unwrap().version;
        let stored = bed.store.copy(&source, put_of("copy"), Vec::new()).await.unwrap();
        assert_eq!((stored.written.etag, stored.checksums), (source.etag, source.attrs.checksums.clone()));
        let algorithms = vec![ChecksumAlgorithm::Sha1];
        let stored = bed.store.copy(&source, put_of("copy"), algorithms.clone()).await.unwrap();
        assert_eq!(stored.checksums, digest(&body, &algorithms).checksums);
        assert_eq!(bed.chunks().len(), chunk_count);
        bed.store.delete("b", vec![delete_key("source")]).await.unwrap();
        bed.store.settle().await.unwrap();
        assert!(bed.get("copy", 0..len as u64).await.unwrap() == body);
        if len > 0 {
            bed.store.delete("b", vec![delete_key("copy")]).await.unwrap();
            bed.store.settle().await.unwrap();
            let answer = bed.store.copy(&source, put_of("late"), Vec::new()).await;
            assert!(matches!(answer, Err(Error::Refused(Refusal::SourceGone))), "{answer:?}");
        }
    }
    bed.store.settle().await.unwrap();
    bed.assert_sound().await;
}

async fn put_part(store: &Store, upload: Ino, number: u32, body: &[u8]) -> Part {
    let incoming = Incoming { len_bytes: Some(body.len() as u64), ..Incoming::default() };
    store.put_part("b", b"k", upload, number, incoming, &mut runs(body, End::Whole)).await.unwrap()
}

fn listed(parts: &[Part]) -> Vec<(CompletePart, Vec<Checksum>)> {
    let one = |part: &Part| (CompletePart { number: part.number, etag: part.etag }, part.checksums.clone());
    parts.iter().map(one).collect()
}

async fn complete(store: &Store, upload: Ino, parts: &[Part], promised: Option<Checksum>) -> Result<Completed, Error> {
    store.complete_upload("b", b"k", upload, listed(parts), promised, None, Precondition::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_becomes_an_object_without_moving_data() {
    let bed = Bed::new().await;
    let upload = bed.store.create_upload("b", b"k", Attrs::default()).await.unwrap();
    let bodies = [pattern(PART_MIN_BYTES as usize, 1), pattern(PART_MIN_BYTES as usize + 77, 2), pattern(5, 3)];
    put_part(&bed.store, upload, 2, b"replaced").await;
    let mut parts = Vec::new();
    for (number, body) in (1..).zip(&bodies) {
        parts.push(put_part(&bed.store, upload, number, body).await);
    }
    let (_, stored_parts) = bed.store.parts("b", b"k", upload, 1, 10).await.unwrap();
    assert_eq!(stored_parts.iter().map(|part| part.number).collect::<Vec<_>>(), [2, 3]);

    let whole = bodies.concat();
    let right = digest(&whole, &[ChecksumAlgorithm::Crc64Nvme]).checksums.remove(0);
    let wrong = Checksum { value: vec![0; 8], ..right.clone() };
    assert!(matches!(complete(&bed.store, upload, &parts, Some(wrong)).await, Err(Error::BadDigest { .. })));
    let reversed: Vec<Part> = parts.iter().rev().cloned().collect();
    let answer = complete(&bed.store, upload, &reversed, None).await;
    assert!(matches!(answer, Err(Error::Refused(Refusal::InvalidPartOrder))));
    let stored = complete(&bed.store, upload, &parts, Some(right.clone())).await.unwrap();
    assert_eq!(stored.written.etag.part_count, 3);
    assert_eq!(stored.figures, Some((whole.len() as u64, vec![right])));

    let again = complete(&bed.store, upload, &parts, None).await.unwrap();
    assert_eq!(again, stored);
    let answer = complete(&bed.store, upload, &parts[..1], None).await;
    assert!(matches!(answer, Err(Error::Refused(_))), "{answer:?}");

    assert!(bed.get("k", 0..whole.len() as u64).await.unwrap() == whole);
    let middle = PART_MIN_BYTES - 10..2 * PART_MIN_BYTES + 80;
    assert!(bed.get("k", middle.clone()).await.unwrap() == whole[middle.start as usize..middle.end as usize]);
    let version = bed.store.head(&target("k")).await.unwrap().version;
    let second = bed.store.part_range(&version, 2).await.unwrap();
    assert_eq!(second, PART_MIN_BYTES..2 * PART_MIN_BYTES + 77);
    assert!(matches!(bed.store.part_range(&version, 4).await, Err(Error::InvalidRange { .. })));
    assert_eq!(bed.store.object_parts(&version, 0, 10).await.unwrap().len(), 3);
    bed.store.settle().await.unwrap();
    assert_eq!(bed.chunks().len(), 3);
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_complete_whose_version_is_gone_gives_no_figures() {
    let bed = Bed::new().await;
    let upload = bed.store.create_upload("b", b"k", Attrs::default()).await.unwrap();
    let parts = [put_part(&bed.store, upload, 1, b"body").await];
    let first = complete(&bed.store, upload, &parts, None).await.unwrap();
    bed.put("k", b"another").await; // in place of it
    let again = complete(&bed.store, upload, &parts, None).await.unwrap();
    assert_eq!(again, Completed { figures: None, ..first.clone() });
    bed.store.delete("b", vec![delete_key("k")]).await.unwrap();
    assert_eq!(complete(&bed.store, upload, &parts, None).await.unwrap(), again);
    assert!(first.figures.is_some_and(|(size_bytes, _)| size_bytes == 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_unlisted_parts_than_one_command_drops_are_dropped_all_the_same() {
    let bed = Bed::new().await;
    let upload = bed.store.create_upload("b", b"k", Attrs::default()).await.unwrap();
    for number in 1..=4_200 {
        put_part(&bed.store, upload, number, b"").await;
    }
    let last = put_part(&bed.store, upload, 5_000, b"the only one").await;
    let before = bed.ledger.proposal_count.load(Ordering::Relaxed);
    let stored = complete(&bed.store, upload, &[last], None).await.unwrap();
    assert_eq!(bed.ledger.proposal_count.load(Ordering::Relaxed) - before, 2);
    assert_eq!(stored.figures.map(|(size_bytes, _)| size_bytes), Some(12));
    assert_eq!(bed.get("k", 0..12).await.unwrap(), b"the only one");
    assert_eq!(bed.store.object_parts(&version(&bed, "k").await, 0, 10).await.unwrap().len(), 1);
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn composite_checksums_are_those_of_the_parts() {
    let bed = Bed::new().await;
    let kind = (ChecksumAlgorithm::Sha256, ChecksumKind::Composite);
    let attrs = Attrs { upload_checksum: Some(kind), ..Attrs::default() };
    let upload = bed.store.create_upload("b", b"k", attrs).await.unwrap();
    let parts = [put_part(&bed.store, upload, 1, b"only").await];
    let expected = digest(&digest(b"only", &[kind.0]).checksums[0].value, &[kind.0]).checksums[0].value.clone();
    let stored = complete(&bed.store, upload, &parts, None).await.unwrap();
    let expected = Checksum { algorithm: kind.0, kind: kind.1, value: expected };
    assert_eq!(stored.figures, Some((4, vec![expected])));
    for (algorithm, kind) in
        [(ChecksumAlgorithm::Sha1, ChecksumKind::FullObject), (ChecksumAlgorithm::Crc64Nvme, ChecksumKind::Composite)]
    {
        let attrs = Attrs { upload_checksum: Some((algorithm, kind)), ..Attrs::default() };
        assert!(matches!(bed.store.create_upload("b", b"k", attrs).await, Err(Error::Invalid(_))));
    }
}

async fn version(bed: &Bed, key: &str) -> Version {
    bed.store.head(&target(key)).await.unwrap().version
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_copied_by_sharing_runs_of_chunks() {
    let bed = Bed::new().await;
    let large = pattern(6_000_000, 1);
    bed.put("large", &large).await;
    bed.put("tiny", b"tiny body").await;
    let chunk_count = bed.chunks().len();
    let upload = bed.store.create_upload("b", b"k", Attrs::default()).await.unwrap();
    let source = version(&bed, "large").await;
    let range = 100_000..5_400_001;
    let ranged = bed.store.copy_part("b", b"k", upload, 1, &source, Some(range.clone())).await.unwrap();
    let whole = bed.store.copy_part("b", b"k", upload, 2, &source, None).await.unwrap();
    assert_eq!(bed.chunks().len(), chunk_count);
    let tiny = bed.store.copy_part("b", b"k", upload, 3, &version(&bed, "tiny").await, Some(5..9)).await.unwrap();
    assert_eq!(bed.chunks().len(), chunk_count + 1);
    let expected = [&large[range.start as usize..range.end as usize], &large, b"body"].concat();
    assert_eq!(ranged.etag.md5, digest(&large[range.start as usize..range.end as usize], &[]).md5);
    let promised = digest(&expected, &[ChecksumAlgorithm::Crc64Nvme]).checksums.remove(0);
    complete(&bed.store, upload, &[ranged, whole, tiny], Some(promised)).await.unwrap();
    bed.store.delete("b", vec![delete_key("large"), delete_key("tiny")]).await.unwrap();
    bed.store.settle().await.unwrap();
    assert!(bed.get("k", 0..expected.len() as u64).await.unwrap() == expected);
    // A part of a part: runs of several chunks.
    let upload = bed.store.create_upload("b", b"k", Attrs::default()).await.unwrap();
    let source = version(&bed, "k").await;
    let range = 5_300_000..11_300_003;
    let part = bed.store.copy_part("b", b"k", upload, 7, &source, Some(range.clone())).await.unwrap();
    complete(&bed.store, upload, &[part], None).await.unwrap();
    assert!(bed.get("k", 0..6_000_003).await.unwrap() == expected[range.start as usize..range.end as usize]);
    bed.store.settle().await.unwrap();
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_upload_gives_its_parts_back() {
    let bed = Bed::new().await;
    let upload = bed.store.create_upload("b", b"k", Attrs::default()).await.unwrap();
    put_part(&bed.store, upload, 1, &pattern(20_000, 1)).await;
    let page = bed.store.list_uploads("b", ListQuery { limit: 10, ..Default::default() }, None).await.unwrap();
    assert_eq!(page.uploads.len(), 1);
    bed.store.abort_upload("b", b"k", upload).await.unwrap();
    let answer = bed.store.abort_upload("b", b"k", upload).await;
    assert!(matches!(answer, Err(Error::Refused(Refusal::NoSuchUpload))));
    bed.store.settle().await.unwrap();
    assert_eq!(bed.chunks(), []);
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_delete_markers_are_told_apart() {
    let bed = Bed::new().await;
    bed.store.set_versioning("b", Versioning::Enabled).await.unwrap();
    let first = bed.put("k", b"one").await.written.version;
    bed.put("k", &pattern(20_000, 1)).await;
    let deleted = bed.store.delete("b", vec![delete_key("k")]).await.unwrap().remove(0).unwrap();
    assert!(deleted.delete_marker);
    let marker = deleted.version.unwrap();
    assert!(matches!(bed.store.head(&target("k")).await, Err(Error::Deleted { marker: found }) if found == marker));
    let old = Target { version: Some(first), ..target("k") };
    assert_eq!(collect(bed.store.get(&old).await.unwrap().read(0..3)).await.unwrap(), b"one");
    let named = Target { version: Some(marker), ..target("k") };
    assert!(matches!(bed.store.head(&named).await, Err(Error::Refused(Refusal::IsDeleteMarker))));
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_are_deleted_in_batches() {
    let bed = Bed::new().await;
    for index in 0..300 {
        bed.put(&format!("k{index}"), b"x").await;
    }
    let keys: Vec<DeleteKey> = (0..1000).map(|index| delete_key(&format!("k{index}"))).collect();
    let before = bed.ledger.proposal_count.load(Ordering::Relaxed);
    let answers = bed.store.delete("b", keys).await.unwrap();
    assert!(answers.len() == 1000 && answers.iter().all(Result::is_ok));
    assert_eq!(bed.ledger.proposal_count.load(Ordering::Relaxed) - before, 4);
    bed.store.delete_bucket("b").await.unwrap();
    assert!(matches!(put(&bed.store, "k", b"x").await, Err(Error::Refused(Refusal::NoSuchBucket))));
    bed.store.settle().await.unwrap();
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_goes_with_its_uploads_but_not_with_an_object() {
    let bed = Bed::new().await;
    for index in 0..1001 {
        bed.store.create_upload("b", format!("k{index}").as_bytes(), Attrs::default()).await.unwrap();
    }
    bed.put("object", b"x").await;
    let refused = bed.store.delete_bucket("b").await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::BucketNotEmpty))), "{refused:?}");
    let page = ListQuery { limit: 1, ..ListQuery::default() };
    assert_eq!(bed.store.list_uploads("b", page, None).await.unwrap().uploads.len(), 1);
    bed.store.delete("b", vec![delete_key("object")]).await.unwrap();
    bed.store.delete_bucket("b").await.unwrap();
    bed.store.settle().await.unwrap();
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_made_anew_elsewhere_is_found_by_its_name() {
    let bed = Bed::new().await;
    let other = bed.restarted(Config { gateway: "other".into(), ..Config::default() }).await;
    bed.put("k", b"x").await;
    other.delete("b", vec![delete_key("k")]).await.unwrap();
    other.delete_bucket("b").await.unwrap();
    other.create_bucket("b", "owner", "here", false).await.unwrap();
    bed.put("k", b"again").await; // the remembered id is stale
    assert_eq!(bed.get("k", 0..5).await.unwrap(), b"again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_beside_writers_takes_nothing_of_theirs() {
    let bed = Bed::new().await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = bed.store.clone();
            tokio::spawn(async move {
                for index in 0..25 {
                    put(&store, &format!("{writer}/{index}"), &pattern(20_000, index)).await.unwrap();
                }
            })
        })
        .collect();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let report = bed.store.sweep_older_than(Duration::ZERO).await.unwrap();
        assert_eq!(report.quarantined_count, 0);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    bed.store.settle().await.unwrap();
    assert_eq!(bed.chunks().len(), 100);
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_above_the_high_water_mark_stop_the_sweep() {
    let bed = Bed::new().await;
    let mut writer = bed.files.create(Ino::new(1, 1 << 40), None).unwrap();
    writer.write(b"from a later state of the store").unwrap();
    writer.finish().unwrap();
    let answer = bed.store.sweep_older_than(Duration::ZERO).await;
    assert!(matches!(answer, Err(Error::Catalog(catalog::Error::Inconsistent(_)))), "{answer:?}");
    assert_eq!(bed.chunks().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_drain_and_reclaim_by_themselves_and_end_when_told() {
    let config = Config { renew_interval: Duration::from_millis(5), ..Config::default() };
    let bed = Bed::with(config).await;
    let workers = Workers::start(&bed.store);
    bed.put("k", &pattern(20_000, 1)).await;
    bed.store.delete("b", vec![delete_key("k")]).await.unwrap();
    until(|| bed.chunks().is_empty()).await;
    workers.stop().await;
    bed.assert_sound().await;
}

/// A store that is killed again and again does its work all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_ended_process_left_is_given_back_soon_after_the_start() {
    let never = Duration::from_secs(3600);
    let soon = Duration::from_millis(5);
    let config = Config { propose_patience: Duration::ZERO, renew_interval: never, ..Config::default() };
    let config = Config { first_sweep_pause: soon, sweep_interval: never, sweep_grace: Duration::ZERO, ..config };
    let bed = Bed::with(config.clone()).await;
    let body = pattern(20_000, 1);
    bed.put("kept", &body).await;
    bed.put("dead", &body).await;
    bed.store.delete("b", vec![delete_key("dead")]).await.unwrap();
    bed.store.drain().await.unwrap();
    bed.ledger.fail_next(&[Fault::LostBefore]);
    assert!(matches!(put(&bed.store, "lost", &body).await, Err(Error::Unavailable(_))));
    assert_eq!(bed.chunks().len(), 3);

    let again = bed.restarted(config).await;
    let workers = Workers::start(&again);
    until(|| bed.chunks().len() == 1).await;
    workers.stop().await;
    let quarantined: Vec<Ino> = bed.files.quarantined().unwrap().chunks.iter().map(|listed| listed.chunk).collect();
    assert_eq!(quarantined.len(), 1, "the orphan is in quarantine first, whenever it is found");
    bed.assert_sound().await;
}

/// A process that stops drops the task that waits for a command's fate; the command may stand in the log.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_may_name_is_left_when_its_task_ends_early() {
    let bed = Bed::new().await;
    let received = async || {
        let permit = bed.store.budget.take(1).await.unwrap();
        let mut source = runs(&[7; 100_000], End::Whole);
        bed.store.receive(&Incoming::default(), &[], 0, permit, &mut source).await.unwrap()
    };
    drop(received().await);
    assert_eq!(bed.chunks(), [], "nothing named it, or will");
    let mut proposed = received().await;
    proposed.fresh.propose();
    let chunk = proposed.fresh.ino();
    drop(proposed);
    assert_eq!(bed.chunks(), [chunk]);
    let mut refused = received().await;
    refused.fresh.propose();
    refused.fresh.discard().await;
    assert_eq!(bed.chunks(), [chunk], "what was refused for sure is gone");
}
