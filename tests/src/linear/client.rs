//! One client: random operations on the keys in use, each recorded with what its answer says.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use md5::{Digest, Md5};

use super::load::Load;
use super::operation::{Guard, Operation, Value};
use super::recorder::{KEYS, Recorder, version_of};
use super::replay::Listing;
use crate::history::Body;
use crate::http::{Request, Response};
use crate::random::Rng;
use crate::s3::{Listed, S3};
use crate::s3d::PATIENCE;
use crate::sigv4::hex;

pub(super) struct Client<'a> {
    load: &'a Load,
    index: usize,
    /// Its own first, then others that it turns to when its own did not answer.
    gateways: Vec<S3>,
    rng: Rng,
    /// What it last saw of each key: what an If-Match asks for.
    seen: BTreeMap<String, Body>,
}

/// A PUT or a DELETE.
#[derive(Clone, Debug)]
struct Write {
    kind: &'static str,
    key: String,
    /// What it demands: none but `Any` and `Is`.
    guard: Guard,
    /// None: delete.
    body: Option<Body>,
}

impl<'a> Client<'a> {
    pub(super) fn new(load: &'a Load, index: usize, gateways: Vec<S3>, rng: Rng) -> Client<'a> {
        Client { load, index, gateways, rng, seen: BTreeMap::new() }
    }

    /// One operation, and perhaps its repetition.
    ///
    /// # Errors
    /// When an answer is nothing that the server may say at any time.
    pub(super) fn step(&mut self) -> Result<()> {
        let generation = self.load.recorder.generation();
        self.seen.retain(|key, _| key.starts_with(&generation));
        let key = Recorder::key(&generation, self.rng.below(KEYS));
        match self.rng.below(100) {
            0..40 => self.get(&key).map(drop),
            40..45 => {
                let keys: Vec<_> = (0..KEYS).map(|slot| Recorder::key(&generation, slot)).collect();
                self.list(&generation, &keys).map(drop)
            }
            45..55 => self.write(Write { kind: "DELETE", key, guard: Guard::Any, body: None }),
            55..75 => self.put("PUT", key, Guard::Any),
            75..85 => self.put("PUT If-None-Match", key, Guard::Is(None)),
            _ => match self.seen.get(&key).map(|body| body.id) {
                Some(id) => self.put("PUT If-Match", key, Guard::Is(Some(id))),
                None => self.get(&key).map(drop),
            },
        }
    }

    /// Lists all keys that were ever used, and reads each.
    ///
    /// # Errors
    /// As [`Client::step`], and when there is no answer for long.
    pub(super) fn read_everything(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (versioned, other): (Vec<_>, Vec<_>) =
            self.load.recorder.keys().into_iter().partition(|key| Recorder::is_versioned(key));
        for keys in [versioned, other] {
            while !self.list("", &keys)? {
                ensure!(Instant::now() < deadline, "no listing after {PATIENCE:?}");
            }
        }
        for key in self.load.recorder.keys() {
            while !self.get(&key)? {
                ensure!(Instant::now() < deadline, "no answer to a GET of {key} after {PATIENCE:?}");
            }
        }
        Ok(())
    }

    fn put(&mut self, kind: &'static str, key: String, guard: Guard) -> Result<()> {
        // In the catalog, or in shards.
        let len_bytes = match self.rng.below(100) {
            0..80 => 8 + self.rng.below(1000),
            _ => (8 << 10) + self.rng.below(40 << 10),
        };
        let body = Body { id: self.load.next_id.fetch_add(1, Ordering::Relaxed), len_bytes: len_bytes as usize };
        self.load.recorder.expect_etag(&etag_of(&body.bytes()), &body);
        self.write(Write { kind, key, guard, body: Some(body) })
    }

    /// Writes through its own gateway. Without an answer it may try again, through any: that is an operation of its own.
    fn write(&mut self, write: Write) -> Result<()> {
        let mut turn = 0;
        while !self.attempt(&write, turn)? {
            std::thread::sleep(Duration::from_millis(20 + self.rng.below(100)));
            if self.rng.below(2) == 0 {
                break;
            }
            turn = self.rng.below(self.gateways.len() as u64) as usize;
        }
        Ok(())
    }

    /// Whether there was an answer.
    fn attempt(&mut self, write: &Write, turn: usize) -> Result<bool> {
        let s3 = &mut self.gateways[turn];
        // What was not sent did not happen.
        if s3.connect().is_err() {
            return Ok(false);
        }
        let request = self.request(write)?;
        let called = self.load.recorder.now();
        let answer = self.gateways[turn].call_unsigned_payload(request);
        let returned = Some(self.load.recorder.now());
        let effect = Some(write.body.as_ref().map(|body| body.id));
        let version = answer.as_ref().map_or(Ok(None), version_in)?;
        let operation = Operation { client: self.index, called, returned, guard: write.guard, effect, version };
        let refused = |guard| Operation { guard, effect: None, ..operation };
        let operation = match (answer.as_ref().map(|answer| answer.status), write.guard) {
            (Ok(200 | 204), _) => operation,
            (Ok(412), Guard::Is(None)) => refused(Guard::Something),
            (Ok(412), Guard::Is(Some(id))) => refused(Guard::SomethingBut(id)),
            (Ok(404), Guard::Is(Some(_))) => refused(Guard::Is(None)),
            (Ok(500..), _) | (Err(_), _) => Operation { returned: None, version: None, ..operation },
            _ => bail!("{write:?}: {answer:?}"),
        };
        self.note(write, &operation, turn);
        Ok(operation.returned.is_some())
    }

    fn request(&self, write: &Write) -> Result<Request> {
        let (method, bytes) = write.body.as_ref().map_or(("DELETE", Vec::new()), |body| ("PUT", body.bytes()));
        let request = self.gateways[0].request(method, self.load.bucket_of(&write.key), &write.key, "", bytes);
        Ok(match write.guard {
            Guard::Any => request,
            Guard::Is(None) => request.header("If-None-Match", "*"),
            Guard::Is(Some(id)) => {
                let body = self.seen.get(&write.key).filter(|body| body.id == id).context("an ETag never seen")?;
                request.header("If-Match", format!("\"{}\"", etag_of(&body.bytes())))
            }
            Guard::Something | Guard::SomethingBut(_) => bail!("{write:?} is no condition of S3"),
        })
    }

    fn note(&mut self, write: &Write, operation: &Operation, turn: usize) {
        let is_answered = operation.returned.is_some();
        self.load.recorder.record(&write.key, *operation);
        self.load.recorder.count(write.kind, is_answered);
        if is_answered && operation.effect.is_some() {
            self.load.acknowledged(self.index + turn);
            self.saw(&write.key, write.body.clone());
        }
    }

    fn saw(&mut self, key: &str, body: Option<Body>) {
        // An ETag of some time ago is worth asking for, too.
        if self.rng.below(4) > 0 {
            body.and_then(|body| self.seen.insert(key.to_owned(), body));
        }
    }

    /// Whether there was an answer.
    fn get(&mut self, key: &str) -> Result<bool> {
        let called = self.load.recorder.now();
        let answer = self.gateways[0].get(self.load.bucket_of(key), key);
        let body = match &answer {
            Ok(answer) if answer.status == 200 => Some(self.identified(answer).with_context(|| key.to_owned())?),
            Ok(answer) if answer.status == 404 => None,
            Ok(answer) if answer.status < 500 => bail!("GET {key}: {} {}", answer.status, answer.text()),
            _ => return Ok(self.no_answer("GET")),
        };
        let version = answer.as_ref().map_or(Ok(None), version_in)?;
        self.read(key, called, body.as_ref().map(|body| body.id), version);
        self.load.recorder.count("GET", true);
        self.saw(key, body);
        Ok(true)
    }

    /// The body that an answer carries, if it is one that was ever sent, bit for bit.
    fn identified(&self, answer: &Response) -> Result<Body> {
        let etag = answer.get("etag").context("no ETag")?.trim_matches('"');
        let body = self.load.recorder.body_of(etag)?;
        ensure!(body.is(&answer.body), "{} bytes under the ETag of {body:?}", answer.body.len());
        Ok(body)
    }

    /// Lists `keys`, all of one bucket and all of it that may begin with `prefix`. Whether there was an answer.
    fn list(&mut self, prefix: &str, keys: &[String]) -> Result<bool> {
        let Some(first) = keys.first() else { return Ok(true) };
        let called = self.load.recorder.now();
        let Ok(listed) = self.gateways[0].list_prefix(self.load.bucket_of(first), prefix) else {
            return Ok(self.no_answer("LIST"));
        };
        let returned = self.load.recorder.now();
        let listed: BTreeMap<&str, &Listed> = listed.iter().map(|row| (row.key.as_str(), row)).collect();
        let mut rows = Vec::new();
        for key in keys {
            let value = listed.get(key.as_str()).map(|row| self.identified_row(row)).transpose()?;
            self.read(key, called, value, None);
            rows.push((key.clone(), value));
        }
        if Recorder::is_versioned(first) {
            self.load.recorder.record_listing(Listing { client: self.index, called, returned, rows });
        }
        self.load.recorder.count("LIST", true);
        Ok(true)
    }

    fn identified_row(&self, row: &Listed) -> Result<u64> {
        let body = self.load.recorder.body_of(&row.etag)?;
        ensure!(body.len_bytes as u64 == row.size, "{row:?} has the ETag of {body:?}");
        Ok(body.id)
    }

    fn read(&self, key: &str, called: u64, value: Value, version: Option<u64>) {
        let returned = Some(self.load.recorder.now());
        let read = Operation { client: self.index, called, returned, guard: Guard::Is(value), effect: None, version };
        self.load.recorder.record(key, read);
    }

    fn no_answer(&self, kind: &'static str) -> bool {
        self.load.recorder.count(kind, false);
        std::thread::sleep(Duration::from_millis(20));
        false
    }
}

/// The version that an answer names.
fn version_in(answer: &Response) -> Result<Option<u64>> {
    answer.get("x-amz-version-id").map(version_of).transpose()
}

fn etag_of(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}
