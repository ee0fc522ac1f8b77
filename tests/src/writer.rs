//! One writer: random operations on both buckets of a workload, each recorded before it is sent, and again when it is
//! acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};

use crate::history::Body;
use crate::http::Response;
use crate::random::Rng;
use crate::s3::{S3, listed_in};
use crate::sigv4::encode;
use crate::workload::{Bucket, Tally, Workload};

/// The least that S3 lets a part have that is not the last.
const PART_MIN_BYTES: usize = 5 << 20;

const SHARED_KEYS: u64 = 6;

pub(crate) struct Writer<'a> {
    workload: &'a Workload,
    tally: &'a Tally,
    s3: S3,
    rng: Rng,
    index: u64,
    /// What its own keys hold, where it knows: nobody else writes to them.
    known: BTreeMap<Place, Body>,
}

/// A key of one of the buckets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    bucket: Bucket,
    key: String,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(workload: &'a Workload, tally: &'a Tally, s3: S3, rng: Rng, index: u64) -> Writer<'a> {
        Writer { workload, tally, s3, rng, index, known: BTreeMap::new() }
    }

    /// Makes one operation at least, and goes on until `stop` is set or the connection breaks.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> Result<()> {
        while self.step()? && !stop.load(Ordering::Relaxed) {}
        Ok(())
    }

    /// One operation. False: the connection broke.
    fn step(&mut self) -> Result<bool> {
        match self.rng.below(100) {
            0..50 => self.put(),
            50..60 => self.put_on_condition(),
            60..65 => self.multipart(),
            65..73 => self.copy(),
            73..78 => self.read(),
            78..80 => self.list(),
            80..84 => self.remove_version(),
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
        let (place, body) = (self.any_place(), self.new_body(len_bytes as usize));
        self.attempt(&place, Some(&body), |s3| s3.put(place.bucket.name(), &place.key, body.bytes()))
    }

    /// Creates or replaces one of its own keys, or is refused: which of these is known where its state is, for nobody else
    /// writes to it.
    fn put_on_condition(&mut self) -> Result<bool> {
        let place = self.own_place();
        let (bucket, key) = (place.bucket.name(), place.key.clone());
        let body = self.new_body(100 + self.index as usize);
        if !self.known.contains_key(&place) {
            let create = |s3: &mut S3| put_if(s3, bucket, &key, &body, "If-None-Match", "*");
            return self.attempt(&place, Some(&body), create);
        }
        let refused = put_if(&mut self.s3, bucket, &key, &body, "If-None-Match", "*");
        if let Ok(answer) = &refused {
            let right = answer.status >= 500 || answer.status == 412;
            ensure!(right, "{place:?} was created again: {} {}", answer.status, answer.text());
        }
        let Ok(head) = self.s3.head(bucket, &key) else { return Ok(false) };
        if refused.is_err() || head.status >= 500 {
            return Ok(refused.is_ok());
        }
        let etag = head.expect(200)?.get("etag").context("no ETag")?.to_owned();
        self.attempt(&place, Some(&body), |s3| put_if(s3, bucket, &key, &body, "If-Match", &etag))
    }

    /// Lists its own keys of one bucket: what it knows must be there, in the right size.
    fn list(&mut self) -> Result<bool> {
        let Place { bucket, .. } = self.own_place();
        let prefix = format!("own/{}/", self.index);
        let query = format!("encoding-type=url&list-type=2&prefix={}", encode(&prefix, true));
        let answer = self.s3.call(self.s3.request("GET", bucket.name(), "", &query, ""));
        if let Some(answer) = answer.as_ref().ok().filter(|answer| answer.status < 500) {
            ensure!(answer.status == 200, "a listing: {} {}", answer.status, answer.text());
            let listed: BTreeMap<_, _> =
                listed_in(&answer.text())?.into_iter().map(|row| (row.key, row.size)).collect();
            for (place, body) in self.known.iter().filter(|(place, _)| place.bucket == bucket) {
                let size = listed.get(&place.key).copied();
                ensure!(size == Some(body.len_bytes as u64), "{place:?} is listed with {size:?}, and holds {body:?}");
            }
        }
        Ok(answer.is_ok())
    }

    fn multipart(&mut self) -> Result<bool> {
        let len_bytes = PART_MIN_BYTES + self.rng.below(1 << 20) as usize;
        let (place, body) = (self.any_place(), self.new_body(len_bytes));
        let bytes = body.bytes();
        let parts = vec![bytes[..PART_MIN_BYTES].to_vec(), bytes[PART_MIN_BYTES..].to_vec()];
        self.attempt(&place, Some(&body), |s3| s3.put_multipart(place.bucket.name(), &place.key, parts))
    }

    fn copy(&mut self) -> Result<bool> {
        let Some((source, body)) = self.any_known() else { return Ok(true) };
        let place = self.own_place();
        if source == place {
            return Ok(true);
        }
        let source = format!("{}/{}", source.bucket.name(), source.key);
        self.attempt(&place, Some(&body), |s3| {
            let request = s3.request("PUT", place.bucket.name(), &place.key, "", "");
            s3.call(request.header("x-amz-copy-source", source))
        })
    }

    fn delete(&mut self) -> Result<bool> {
        let place = self.any_place();
        self.attempt(&place, None, |s3| s3.delete(place.bucket.name(), &place.key))
    }

    /// Deletes one version for good, perhaps the newest.
    fn remove_version(&mut self) -> Result<bool> {
        let place = self.any_place();
        let versions = &self.workload.versions;
        if place.bucket == Bucket::Plain {
            return Ok(true);
        }
        let Some(id) = versions.begin_removal(&place.key, &mut self.rng) else { return Ok(true) };
        self.known.remove(&place);
        let answer = self.s3.delete_version(place.bucket.name(), &place.key, &id);
        if self.is_acknowledged(&place, &answer, true)? {
            versions.acknowledge_removal(&place.key, &id);
        }
        Ok(answer.is_ok())
    }

    /// Reads what nobody else writes: it must be there while others write, too.
    fn read(&mut self) -> Result<bool> {
        let Some((place, body)) = self.any_known() else { return Ok(true) };
        let answer = self.s3.get(place.bucket.name(), &place.key);
        if let Ok(answer) = &answer {
            let right = answer.status >= 500 || (answer.status == 200 && body.is(&answer.body));
            ensure!(right, "{place:?} holds {} bytes, not {body:?}: {}", answer.body.len(), answer.status);
        }
        Ok(answer.is_ok())
    }

    /// Makes an attempt and records what became of it.
    fn attempt(
        &mut self,
        place: &Place,
        body: Option<&Body>,
        call: impl FnOnce(&mut S3) -> Result<Response>,
    ) -> Result<bool> {
        let attempt = self.workload.begin(place.bucket, &place.key, body.cloned());
        let was_known = self.known.remove(place).is_some();
        let answer = call(&mut self.s3);
        if self.is_acknowledged(place, &answer, was_known)? {
            let answer = answer.as_ref().ok().context("acknowledged without an answer")?;
            self.workload.acknowledge(place.bucket, &attempt, answer)?;
            if let Some(body) = body.filter(|_| place.key.starts_with("own/")) {
                self.known.insert(place.clone(), body.clone());
            }
        }
        Ok(answer.is_ok())
    }

    /// Counts an answer. An answer that no interruption explains fails the test. `was_known`: what the key held was known, so
    /// no condition that holds for that may be refused.
    fn is_acknowledged(&self, place: &Place, answer: &Result<Response>, was_known: bool) -> Result<bool> {
        let acknowledged = match answer {
            Ok(answer) if (200..300).contains(&answer.status) => !answer.text_is_error(),
            Ok(answer) if answer.status == 412 && !was_known => return Ok(false),
            Ok(answer) if answer.status < 500 => bail!("{place:?}: {} {}", answer.status, answer.text()),
            _ => false,
        };
        let count = if acknowledged { &self.tally.acknowledged } else { &self.tally.unknown };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(acknowledged)
    }

    fn new_body(&mut self, len_bytes: usize) -> Body {
        Body { id: self.workload.next_body.fetch_add(1, Ordering::Relaxed), len_bytes }
    }

    fn any_known(&mut self) -> Option<(Place, Body)> {
        let known: Vec<_> = self.known.iter().map(|(place, body)| (place.clone(), body.clone())).collect();
        (!known.is_empty()).then(|| self.rng.choose(&known).clone())
    }

    fn own_place(&mut self) -> Place {
        // Few keys of many versions, and many keys.
        let (bucket, keys) = *self.rng.choose(&[(Bucket::Plain, 10), (Bucket::Plain, 10), (Bucket::Versioned, 3)]);
        Place { bucket, key: format!("own/{}/{:02}", self.index, self.rng.below(keys)) }
    }

    fn any_place(&mut self) -> Place {
        let own = self.own_place();
        match self.rng.below(4) {
            0 => Place { key: format!("shared {:02}", self.rng.below(SHARED_KEYS)), ..own },
            _ => own,
        }
    }
}

/// PutObject under a condition.
fn put_if(s3: &mut S3, bucket: &str, key: &str, body: &Body, name: &str, value: &str) -> Result<Response> {
    let request = s3.request("PUT", bucket, key, "", body.bytes()).header(name, value);
    s3.call_unsigned_payload(request)
}

impl Response {
    /// Whether a 200 carries an error all the same, as CopyObject and CompleteMultipartUpload may.
    fn text_is_error(&self) -> bool {
        self.body.len() < 4096 && self.text().contains("<Error>")
    }
}
