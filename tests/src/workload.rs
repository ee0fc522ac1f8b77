//! Writers with unique bodies, to be interrupted; and the check of what a store holds after.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use md5::{Digest, Md5};

use crate::history::{Body, History};
use crate::http::Response;
use crate::random::Rng;
use crate::s3::{Listed, S3};
use crate::s3d::S3d;
use crate::sigv4::hex;

/// The least that S3 lets a part have that is not the last.
pub const PART_MIN_BYTES: usize = 5 << 20;

const WRITERS: u64 = 4;
const OWN_KEYS: u64 = 10;
const SHARED_KEYS: u64 = 6;

/// Writers on one bucket, over any number of lives of a store.
pub struct Workload {
    bucket: String,
    history: History,
    next_body: AtomicU64,
}

/// What one run did.
#[derive(Debug, Default)]
pub struct Tally {
    /// Attempts that were acknowledged.
    pub acknowledged: AtomicU64,
    /// Attempts whose outcome is unknown.
    pub unknown: AtomicU64,
}

struct Writer<'a> {
    workload: &'a Workload,
    tally: &'a Tally,
    s3: S3,
    rng: Rng,
    index: u64,
    /// What its own keys hold, where it knows: nobody else writes to them.
    known: BTreeMap<String, Body>,
}

impl Workload {
    /// A new bucket and an empty history. `rng` makes the bodies differ between tests.
    ///
    /// # Errors
    /// When the bucket cannot be made.
    pub fn new(s3d: &S3d, rng: &mut Rng) -> Result<Workload> {
        let bucket = String::from("durable");
        s3d.s3()?.create_bucket(&bucket)?;
        Ok(Workload { bucket, history: History::default(), next_body: AtomicU64::new(rng.next_u64()) })
    }

    /// Runs the writers until `interrupt` has returned; a writer ends earlier when its connection breaks.
    ///
    /// # Errors
    /// When `interrupt` fails, or a writer got an answer that no interruption explains (a 4xx).
    pub fn run(&self, s3d: &mut S3d, rng: &mut Rng, interrupt: impl FnOnce(&mut S3d) -> Result<()>) -> Result<Tally> {
        let (tally, stop) = (Tally::default(), AtomicBool::new(false));
        let mut writers = Vec::new();
        for index in 0..WRITERS {
            let rng = Rng::new(rng.next_u64());
            writers.push(Writer { workload: self, tally: &tally, s3: s3d.s3()?, rng, index, known: BTreeMap::new() });
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = writers.into_iter().map(|writer| scope.spawn(|| writer.run(&stop))).collect();
            let interrupted = interrupt(s3d);
            stop.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
            }
            interrupted
        })?;
        Ok(tally)
    }

    /// Reads every key of a quiet store: each must hold what its history allows, its ETag must be that of the bytes, and
    /// the listing must show exactly these keys. Uploads in progress are aborted.
    ///
    /// # Errors
    /// With the first key that is wrong.
    pub fn verify(&self, s3: &mut S3) -> Result<usize> {
        s3.abort_uploads(&self.bucket)?;
        let mut expected = Vec::new();
        for key in self.history.keys() {
            let answer = s3.get(&self.bucket, &key)?;
            let found = match answer.status {
                200 => Some(answer.body.as_slice()),
                404 => None,
                _ => bail!("{key}: {} {}", answer.status, answer.text()),
            };
            if let Some(body) = self.history.settle(&key, found)? {
                expected.push(Listed { key, size: body.len_bytes as u64, etag: checked_etag(&answer)? });
            }
        }
        let listed = s3.list(&self.bucket)?;
        if listed != expected {
            bail!("the listing differs:\nlisted   {listed:?}\nexpected {expected:?}");
        }
        Ok(expected.len())
    }

    /// Deletes every key, then waits until no chunk is left on disk.
    ///
    /// # Errors
    /// When chunks are left after two minutes.
    pub fn expect_no_leak(&self, s3d: &S3d) -> Result<()> {
        let mut s3 = s3d.s3()?;
        s3.abort_uploads(&self.bucket)?;
        for key in self.history.keys() {
            let attempt = self.history.begin(&key, None);
            s3.delete(&self.bucket, &key)?.expect(204)?;
            self.history.acknowledge(&attempt);
        }
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

/// The ETag of an answer without quotes; where it is an MD5, it must be that of the body.
fn checked_etag(answer: &Response) -> Result<String> {
    let etag = answer.get("etag").context("no ETag")?.trim_matches('"').to_owned();
    let md5 = hex(&Md5::digest(&answer.body));
    if !etag.contains('-') && etag != md5 {
        bail!("ETag {etag}, and the bytes have MD5 {md5}");
    }
    Ok(etag)
}

impl Writer<'_> {
    fn run(mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            if !self.step()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One operation. False: the connection broke.
    fn step(&mut self) -> Result<bool> {
        match self.rng.below(100) {
            0..70 => self.put(),
            70..75 => self.multipart(),
            75..83 => self.copy(),
            _ => self.delete(),
        }
    }

    fn put(&mut self) -> Result<bool> {
        let len_bytes = match self.rng.below(100) {
            0..10 => self.rng.below(3),
            10..45 => self.rng.below(8 << 10),
            45..70 => (8 << 10) - 2 + self.rng.below(4),
            70..97 => self.rng.below(200 << 10),
            _ => (6 << 20) + self.rng.below(1 << 10),
        };
        let (key, body) = (self.any_key(), self.new_body(len_bytes as usize));
        let bucket = &self.workload.bucket;
        self.attempt(&key, Some(&body), |s3| s3.put(bucket, &key, body.bytes()))
    }

    fn multipart(&mut self) -> Result<bool> {
        let len_bytes = PART_MIN_BYTES + self.rng.below(1 << 20) as usize;
        let (key, body) = (self.any_key(), self.new_body(len_bytes));
        let bytes = body.bytes();
        let parts = vec![bytes[..PART_MIN_BYTES].to_vec(), bytes[PART_MIN_BYTES..].to_vec()];
        let bucket = &self.workload.bucket;
        self.attempt(&key, Some(&body), |s3| s3.put_multipart(bucket, &key, parts))
    }

    fn copy(&mut self) -> Result<bool> {
        let choices: Vec<_> = self.known.iter().map(|(key, body)| (key.clone(), body.clone())).collect();
        if choices.is_empty() {
            return Ok(true);
        }
        let (source, body) = self.rng.choose(&choices).clone();
        let key = self.own_key();
        if source == key {
            return Ok(true);
        }
        let bucket = &self.workload.bucket;
        self.attempt(&key, Some(&body), |s3| {
            let request =
                s3.request("PUT", bucket, &key, "", "").header("x-amz-copy-source", format!("{bucket}/{source}"));
            s3.call(request)
        })
    }

    fn delete(&mut self) -> Result<bool> {
        let key = self.any_key();
        let bucket = &self.workload.bucket;
        self.attempt(&key, None, |s3| s3.delete(bucket, &key))
    }

    /// Makes an attempt and records what became of it.
    fn attempt(
        &mut self,
        key: &str,
        body: Option<&Body>,
        call: impl FnOnce(&mut S3) -> Result<Response>,
    ) -> Result<bool> {
        let attempt = self.workload.history.begin(key, body.cloned());
        self.known.remove(key);
        let answer = call(&mut self.s3);
        match &answer {
            Ok(answer) if (200..300).contains(&answer.status) && !answer.text_is_error() => {
                self.workload.history.acknowledge(&attempt);
                self.tally.acknowledged.fetch_add(1, Ordering::Relaxed);
                if let Some(body) = body.filter(|_| key.starts_with("own/")) {
                    self.known.insert(key.to_owned(), body.clone());
                }
            }
            Ok(answer) if answer.status < 500 => bail!("{key}: {} {}", answer.status, answer.text()),
            _ => {
                self.tally.unknown.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(answer.is_ok())
    }

    fn new_body(&mut self, len_bytes: usize) -> Body {
        Body { id: self.workload.next_body.fetch_add(1, Ordering::Relaxed), len_bytes }
    }

    fn own_key(&mut self) -> String {
        format!("own/{}/{:02}", self.index, self.rng.below(OWN_KEYS))
    }

    fn any_key(&mut self) -> String {
        match self.rng.below(4) {
            0 => format!("shared {:02}", self.rng.below(SHARED_KEYS)),
            _ => self.own_key(),
        }
    }
}

impl Response {
    /// Whether a 200 carries an error all the same, as CopyObject and CompleteMultipartUpload may.
    fn text_is_error(&self) -> bool {
        self.body.len() < 4096 && self.text().contains("<Error>")
    }
}
