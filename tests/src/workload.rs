//! Writers with unique bodies, to be interrupted; and the check of what a store holds after.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use md5::{Digest, Md5};

use crate::history::{Attempt, Body, History};
use crate::http::Response;
use crate::random::Rng;
use crate::s3::{Listed, ListedVersion, S3};
use crate::s3d::{PATIENCE, S3d};
use crate::sigv4::hex;
use crate::versions::{Found, Versions};
use crate::writer::Writer;

/// Versions of one key that a verification leaves: the next has as much to read as this one.
const KEPT_VERSIONS: usize = 5;

/// The two buckets of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// What is overwritten or deleted is gone.
    Plain,
    /// It becomes a version.
    Versioned,
}

/// Writers on two buckets, over any number of lives of a store.
pub struct Workload {
    writers: u64,
    history: History,
    pub(crate) versions: Versions,
    pub(crate) next_body: AtomicU64,
}

/// What one run did.
#[derive(Debug, Default)]
pub struct Tally {
    /// Writers that were connected before the first one wrote.
    pub connected: u64,
    /// Attempts that were acknowledged.
    pub acknowledged: AtomicU64,
    /// Attempts whose outcome is unknown.
    pub unknown: AtomicU64,
}

impl Bucket {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Bucket::Plain => "durable",
            Bucket::Versioned => "versioned",
        }
    }
}

impl Tally {
    /// Waits until `count` attempts have been acknowledged.
    ///
    /// # Errors
    /// When they were not within [`PATIENCE`].
    pub fn wait_acknowledged(&self, count: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.acknowledged.load(Ordering::Relaxed) < count {
            ensure!(Instant::now() < deadline, "{self:?} after {PATIENCE:?}, and {count} were to be acknowledged");
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

impl Workload {
    /// Two new buckets, empty histories, four writers. `rng` makes the bodies differ between tests.
    ///
    /// # Errors
    /// When the buckets cannot be made.
    pub fn new(s3d: &S3d, rng: &mut Rng) -> Result<Workload> {
        let mut s3 = s3d.s3()?;
        s3.create_bucket(Bucket::Plain.name())?;
        s3.create_bucket(Bucket::Versioned.name())?;
        s3.enable_versioning(Bucket::Versioned.name())?;
        let next_body = AtomicU64::new(rng.next_u64());
        Ok(Workload { writers: 4, history: History::default(), versions: Versions::default(), next_body })
    }

    /// Sets the number of writers.
    #[must_use]
    pub fn with_writers(self, writers: u64) -> Workload {
        Workload { writers, ..self }
    }

    /// Runs the writers until `interrupt` has returned; a writer ends earlier when its connection breaks. All are connected
    /// before the first one writes.
    ///
    /// # Errors
    /// When `interrupt` fails, or a writer got an answer that no interruption explains (a 4xx, wrong bytes).
    pub fn run(
        &self,
        s3d: &mut S3d,
        rng: &mut Rng,
        interrupt: impl FnOnce(&mut S3d, &Tally) -> Result<()>,
    ) -> Result<Tally> {
        let clients = self.connect(&[s3d])?;
        self.drive(clients, rng, |tally| interrupt(s3d, tally))
    }

    /// The same with the clients of [`Workload::connect`], one a writer.
    ///
    /// # Errors
    /// As [`Workload::run`].
    pub fn drive(
        &self,
        clients: Vec<S3>,
        rng: &mut Rng,
        interrupt: impl FnOnce(&Tally) -> Result<()>,
    ) -> Result<Tally> {
        let tally = Tally { connected: clients.len() as u64, ..Tally::default() };
        let stop = AtomicBool::new(false);
        let writer = |(index, s3)| Writer::new(self, &tally, s3, Rng::new(rng.next_u64()), index);
        let writers: Vec<_> = (0..).zip(clients).map(writer).collect();
        std::thread::scope(|scope| {
            let threads: Vec<_> = writers.into_iter().map(|writer| scope.spawn(|| writer.run(&stop))).collect();
            let interrupted = interrupt(&tally);
            stop.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
            }
            interrupted
        })?;
        Ok(tally)
    }

    /// A client for each writer, by turns at `gateways`. Fewer where a process dies meanwhile: it may be about to.
    ///
    /// # Errors
    /// When a CA cannot be read.
    pub fn connect(&self, gateways: &[&S3d]) -> Result<Vec<S3>> {
        let endpoints = gateways.iter().map(|s3d| Ok((s3d.endpoint()?, s3d.signer()))).collect::<Result<Vec<_>>>()?;
        let by_turns = endpoints.into_iter().cycle().take(self.writers as usize);
        Ok(by_turns.map_while(|(endpoint, signer)| S3::connected_once(endpoint, signer).ok()).collect())
    }

    pub(crate) fn begin(&self, bucket: Bucket, key: &str, body: Option<Body>) -> Attempt {
        match bucket {
            Bucket::Plain => self.history.begin(key, body),
            Bucket::Versioned => self.versions.begin(key, body),
        }
    }

    pub(crate) fn acknowledge(&self, bucket: Bucket, attempt: &Attempt, answer: &Response) -> Result<()> {
        match bucket {
            Bucket::Plain => self.history.acknowledge(attempt),
            Bucket::Versioned => {
                let id = answer.get("x-amz-version-id").context("acknowledged without a version id")?;
                self.versions.acknowledge(attempt, id);
            }
        }
        Ok(())
    }

    /// Reads all that a quiet store holds: every key and every version must be what its history allows, every ETag that of
    /// the bytes, and the listings must show exactly these. Uploads in progress are aborted, old versions deleted. How
    /// many objects and versions there were.
    ///
    /// # Errors
    /// With the first that is wrong.
    pub fn verify(&self, s3: &mut S3) -> Result<usize> {
        s3.abort_uploads(Bucket::Plain.name())?;
        s3.abort_uploads(Bucket::Versioned.name())?;
        Ok(self.verify_plain(s3)? + self.verify_versions(s3)?)
    }

    fn verify_plain(&self, s3: &mut S3) -> Result<usize> {
        let bucket = Bucket::Plain.name();
        let mut expected = Vec::new();
        for key in self.history.keys() {
            let answer = current(s3, bucket, &key)?;
            let found = answer.as_ref().map(|answer| answer.body.as_slice());
            self.history.settle(&key, found)?;
            expected.extend(answer.map(|answer| as_listed(&key, &answer)).transpose()?);
        }
        expect_listed(s3, bucket, &expected)?;
        Ok(expected.len())
    }

    fn verify_versions(&self, s3: &mut S3) -> Result<usize> {
        let bucket = Bucket::Versioned.name();
        let listed = s3.list_versions(bucket)?;
        let keys = self.versions.keys();
        let strange = listed.iter().find(|row| !keys.contains(&row.key));
        ensure!(strange.is_none(), "nobody ever wrote to the key of {strange:?}");
        let mut expected = Vec::new();
        for key in &keys {
            let rows: Vec<_> = listed.iter().filter(|row| row.key == *key).collect();
            let found = rows.iter().map(|row| read_version(s3, bucket, row)).collect::<Result<Vec<_>>>()?;
            self.versions.settle(key, &found)?;
            let latest = rows.iter().position(|row| row.is_latest);
            ensure!(latest == (!rows.is_empty()).then_some(0), "{key}: the latest is not the newest: {rows:?}");
            let answer = current(s3, bucket, key)?;
            let shown = answer.as_ref().map(|answer| &answer.body);
            ensure!(
                shown == found.first().and_then(|found| found.bytes.as_ref()),
                "{key} shows another than its latest"
            );
            expected.extend(answer.map(|answer| as_listed(key, &answer)).transpose()?);
        }
        expect_listed(s3, bucket, &expected)?;
        for key in &keys {
            self.remove_versions(s3, key, KEPT_VERSIONS)?;
        }
        Ok(listed.len())
    }

    /// Deletes all but the `kept` youngest versions of a key.
    fn remove_versions(&self, s3: &mut S3, key: &str, kept: usize) -> Result<()> {
        for id in self.versions.surplus(key, kept) {
            s3.delete_version(Bucket::Versioned.name(), key, &id)?.expect(204)?;
            self.versions.acknowledge_removal(key, &id);
        }
        Ok(())
    }

    /// Deletes every key and every version of a verified store, then waits until no chunk is left on disk.
    ///
    /// # Errors
    /// When chunks are left after two minutes.
    pub fn expect_no_leak(&self, s3d: &S3d) -> Result<()> {
        let mut s3 = s3d.s3()?;
        self.verify(&mut s3)?;
        for key in self.history.keys() {
            let attempt = self.history.begin(&key, None);
            s3.delete(Bucket::Plain.name(), &key)?.expect(204)?;
            self.history.acknowledge(&attempt);
        }
        for key in self.versions.keys() {
            self.remove_versions(&mut s3, &key, 0)?;
        }
        ensure!(s3.list_versions(Bucket::Versioned.name())?.is_empty(), "versions are left");
        wait_until_no_chunk(s3d)
    }
}

/// Waits until the store keeps no chunk on disk.
///
/// # Errors
/// When chunks are left after two minutes.
pub fn wait_until_no_chunk(s3d: &S3d) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let files = s3d.chunk_files()?;
        if files.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} files are left that nothing names: {files:?}", files.len());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What a GET of the key gives; none: 404.
fn current(s3: &mut S3, bucket: &str, key: &str) -> Result<Option<Response>> {
    let answer = s3.get(bucket, key)?;
    match answer.status {
        200 => Ok(Some(answer)),
        404 => Ok(None),
        _ => bail!("{bucket}/{key}: {} {}", answer.status, answer.text()),
    }
}

/// Reads a version; the listing must have told its size and ETag.
fn read_version(s3: &mut S3, bucket: &str, row: &ListedVersion) -> Result<Found> {
    let Some((size, etag)) = &row.object else { return Ok(Found { id: row.id.clone(), bytes: None }) };
    let answer = s3.get_version(bucket, &row.key, &row.id)?.expect(200).with_context(|| format!("{row:?}"))?;
    let read = as_listed(&row.key, &answer)?;
    ensure!((read.size, &read.etag) == (*size, etag), "the listing says {row:?}, a GET {read:?}");
    Ok(Found { id: row.id.clone(), bytes: Some(answer.body) })
}

/// The row of a listing that belongs to what a GET answered. Where its ETag is an MD5, it must be that of the body.
fn as_listed(key: &str, answer: &Response) -> Result<Listed> {
    let etag = answer.get("etag").context("no ETag")?.trim_matches('"').to_owned();
    let md5 = hex(&Md5::digest(&answer.body));
    if !etag.contains('-') && etag != md5 {
        bail!("{key}: ETag {etag}, and the bytes have MD5 {md5}");
    }
    Ok(Listed { key: key.to_owned(), size: answer.body.len() as u64, etag })
}

fn expect_listed(s3: &mut S3, bucket: &str, expected: &[Listed]) -> Result<()> {
    let listed = s3.list(bucket)?;
    ensure!(listed == expected, "the listing of {bucket} differs:\nlisted   {listed:?}\nexpected {expected:?}");
    Ok(())
}
