//! The store over a real catalog, without Raft: each proposal is applied at once, in a transaction of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod races;
mod space;
mod upkeep;
mod uploads;
mod verify;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;

use super::*;
use crate::catalog::{
    Catalog, Checksum, ChecksumKind, CompletePart, DeleteKey, ETag, Entry, Envelope, ListQuery, Options, Outcome, Part,
    Position, Readers, Version, Versioning,
};
use crate::file::Files;
use crate::ids::{Ino, LogIndex, NodeId, SessionId};
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

/// What others do while an answer is lost.
type Meanwhile = Box<dyn FnOnce(&Direct) + Send>;

/// A ledger over a catalog alone.
pub(in crate::object) struct Direct {
    catalog: Mutex<Catalog>,
    /// All that was applied since it was opened.
    log: Mutex<Vec<(Position, Entry)>>,
    pub(in crate::object) readers: Readers,
    faults: Mutex<VecDeque<Fault>>,
    meanwhile: Mutex<Option<Meanwhile>>,
    proposal_count: AtomicUsize,
}

impl Direct {
    fn open(dir: &std::path::Path) -> Arc<Direct> {
        let catalog = Catalog::open(dir, Options::default()).unwrap();
        let readers = catalog.readers();
        Arc::new(Direct {
            catalog: Mutex::new(catalog),
            log: Mutex::default(),
            readers,
            faults: Mutex::default(),
            meanwhile: Mutex::default(),
            proposal_count: AtomicUsize::new(0),
        })
    }

    fn apply(&self, envelope: &Envelope) -> Outcome {
        self.proposal_count.fetch_add(1, Ordering::Relaxed);
        let mut catalog = self.catalog.lock().unwrap();
        let index = catalog.applied().position.map_or(1, |position| position.index + 1);
        // As it would come out of the log.
        let entry = Entry::Command(Envelope::decode(&envelope.encode()).unwrap());
        let entry = (Position { term: 1, leader: 1, index }, entry);
        let outcome = catalog.apply(std::slice::from_ref(&entry)).unwrap().remove(0);
        self.log.lock().unwrap().push(entry);
        outcome
    }

    fn fail_next(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// Loses the answer to the next proposal, and has `others` act before it is asked for again.
    fn lose_answer_while(&self, others: impl FnOnce(&Direct) + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some(Box::new(others));
        self.fail_next(&[Fault::LostAfter]);
    }

    /// Ends a session that was never renewed, as a leader does after a while.
    pub(in crate::object) fn expire(&self, session: SessionId) {
        let command = catalog::Command::ExpireSession { session, renewals: 0 };
        let envelope = Envelope { session: SessionId(0), seq: 0, acked: 0, now: Timestamp(0), command };
        assert_eq!(self.apply(&envelope), Outcome::Done);
    }
}

impl Direct {
    /// As a leader does once every member knows it.
    pub(in crate::object) fn raise_level(&self) {
        let command = catalog::Command::RaiseLevel { to: catalog::FEATURE_LEVEL };
        let envelope = Envelope { session: SessionId(0), seq: 0, acked: 0, now: Timestamp(0), command };
        assert_eq!(self.apply(&envelope), Outcome::Done);
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
                    let others = self.meanwhile.lock().unwrap().take();
                    others.into_iter().for_each(|others| others(self));
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
pub(in crate::object) struct Bed {
    pub(in crate::object) store: Store,
    pub(in crate::object) ledger: Arc<Direct>,
    files: Files,
    pub(in crate::object) dir: tempfile::TempDir,
}

impl Bed {
    pub(in crate::object) async fn new() -> Bed {
        Bed::with(Config::default()).await
    }

    pub(in crate::object) async fn with(config: Config) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Direct::open(&dir.path().join("catalog"));
        let files = Files::open(dir.path().join("chunks"), Arc::new(|error| panic!("{error}"))).unwrap();
        let store = Store::open(Env::system(), ledger.clone(), in_files(&files), config).await.unwrap();
        store.create_bucket("b", "owner", "here", false).await.unwrap();
        Bed { store, ledger, files, dir }
    }

    /// Another gateway process after this one died: the same catalog and files.
    pub(in crate::object) async fn restarted(&self, config: Config) -> Store {
        Store::open(Env::system(), self.ledger.clone(), in_files(&self.files), config).await.unwrap()
    }

    pub(in crate::object) async fn put(&self, key: &str, body: &[u8]) -> Stored {
        put(&self.store, key, body).await.unwrap()
    }

    pub(in crate::object) async fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, Error> {
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

    /// The catalog is sound.
    pub(in crate::object) async fn assert_sound_but_reclaim(&self) {
        let contradictions = self.ledger.readers.read(|view| Ok(view.contradictions(10))).await.unwrap();
        assert_eq!(contradictions, Vec::<String>::new());
    }

    /// The catalog is sound, every chunk is whole and named, and nothing is left over.
    pub(in crate::object) async fn assert_sound(&self) {
        self.assert_sound_but_reclaim().await;
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

pub(in crate::object) fn pattern(len: usize, salt: u64) -> Vec<u8> {
    (0..len as u64).map(|i| ((i + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

pub(in crate::object) fn target(key: &str) -> Target {
    Target { bucket: "b".into(), key: key.into(), version: None }
}

pub(in crate::object) fn put_of(key: &str) -> Put {
    Put {
        bucket: "b".into(),
        owner: None,
        key: key.into(),
        attrs: Attrs::default(),
        precondition: Precondition::default(),
    }
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

pub(in crate::object) fn delete_key(key: &str) -> DeleteKey {
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

/// A body that was received, and that no command names yet.
async fn received(store: &Store, body: &[u8]) -> put::Received {
    let permit = store.budget.take(1).await.unwrap();
    let mut source = runs(body, End::Whole);
    store.receive(&Incoming::default(), digest::Digests::new(&[]), 0, permit, &mut source).await.unwrap()
}

/// Names it `key`.
async fn name(store: &Store, key: &str, received: put::Received) -> Result<Stored, Error> {
    let put::Received { digested, bytes, fresh } = received;
    let etag = ETag { md5: digested.md5, part_count: 0 };
    store.name(put_of(key), fresh, bytes.into_body(), etag, digested.len_bytes, digested.checksums).await
}

/// Waits until `holds`, which something that is under way will bring about.
async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn what_is_put_for_one_account_does_not_end_up_with_another() {
    let bed = Bed::new().await;
    for (maker, remaker) in [("one", "two"), ("one", "one")] {
        bed.store.create_bucket("box", maker, "mars", false).await.unwrap();
        let received = received(&bed.store, b"bytes").await;
        bed.store.delete_bucket("box").await.unwrap();
        bed.store.create_bucket("box", remaker, "mars", false).await.unwrap();
        let put = Put { bucket: "box".into(), owner: Some("one".into()), ..put_of("key") };
        let etag = ETag { md5: received.digested.md5, part_count: 0 };
        let (body, len_bytes) = (received.bytes.into_body(), received.digested.len_bytes);
        let named = bed.store.name(put, received.fresh, body, etag, len_bytes, Vec::new()).await;
        match remaker {
            "one" => drop(named.unwrap()),
            _ => assert!(matches!(named, Err(Error::Refused(Refusal::NoSuchBucket))), "{named:?}"),
        }
        bed.store.delete("box", vec![delete_key("key")]).await.unwrap();
        bed.store.delete_bucket("box").await.unwrap();
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
    assert!(matches!(bed.store.head(&named).await, Err(Error::DeleteMarker { .. })));
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
