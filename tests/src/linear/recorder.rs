//! What clients saw, by key; and which keys they are to use.
//!
//! Invariant: an operation is recorded with a call no later than its first byte was sent and a return no earlier than its
//! last byte came.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::check::{Wrong, check};
use super::operation::Operation;
use super::replay::{Listing, Logged, replay};
use crate::history::Body;
use crate::knobs::say;
use crate::s3::ListedVersion;

/// Keys that are in use at once: few, so that clients meet.
pub(super) const KEYS: u64 = 6;
/// Operations on all keys, and lost ones among them, after which new keys are used: the search grows with both.
const GENERATION_OPERATIONS: u64 = 150 * KEYS;
const GENERATION_LOST: u64 = 4 * KEYS;

/// How many operations of one kind there were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// With an answer.
    pub answered: u64,
    /// Without one, or with one that says nothing.
    pub unknown: u64,
}

pub(super) struct Recorder {
    origin: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    generation: u64,
    in_generation: u64,
    lost_in_generation: u64,
    keys: BTreeMap<String, Vec<Operation>>,
    listings: Vec<Listing>,
    /// What the versioned bucket says at the end; none: it was not asked.
    log: Option<Vec<Logged>>,
    bodies: BTreeMap<String, Body>,
    kinds: BTreeMap<&'static str, Tally>,
}

impl Recorder {
    pub(super) fn new() -> Recorder {
        Recorder { origin: Instant::now(), state: Mutex::default() }
    }

    /// Nanoseconds since this recorder was made.
    pub(super) fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// The prefix of the keys to use now.
    pub(super) fn generation(&self) -> String {
        format!("{:06}/", self.lock().generation)
    }

    /// The key number `slot` of a generation.
    pub(super) fn key(generation: &str, slot: u64) -> String {
        format!("{generation}{slot}")
    }

    /// Whether a key belongs into the versioned bucket: those of every other generation do.
    pub(super) fn is_versioned(key: &str) -> bool {
        key.split('/')
            .next()
            .and_then(|generation| generation.parse::<u64>().ok())
            .is_some_and(|number| number % 2 == 1)
    }

    /// Counts an operation of a kind.
    pub(super) fn count(&self, kind: &'static str, is_answered: bool) {
        let mut state = self.lock();
        let tally = state.kinds.entry(kind).or_default();
        let count = if is_answered { &mut tally.answered } else { &mut tally.unknown };
        *count += 1;
    }

    /// Records an operation on a key, and moves to the next generation when this one is full.
    pub(super) fn record(&self, key: &str, operation: Operation) {
        let mut state = self.lock();
        state.keys.entry(key.to_owned()).or_default().push(operation);
        state.in_generation += 1;
        state.lost_in_generation += u64::from(operation.returned.is_none());
        if state.in_generation >= GENERATION_OPERATIONS || state.lost_in_generation >= GENERATION_LOST {
            state.generation += 1;
            (state.in_generation, state.lost_in_generation) = (0, 0);
        }
    }

    /// Records a listing of the versioned bucket, besides the reads that it is.
    pub(super) fn record_listing(&self, listing: Listing) {
        self.lock().listings.push(listing);
    }

    /// Notes what the versioned bucket says was written, after everything else.
    ///
    /// # Errors
    /// When it names a body that nobody sent, or a version in a form of its own.
    pub(super) fn note_log(&self, versions: &[ListedVersion]) -> Result<()> {
        let entry = |row: &ListedVersion| -> Result<Logged> {
            let body = row.object.as_ref().map(|(_, etag)| self.body_of(etag)).transpose()?;
            Ok(Logged { key: row.key.clone(), version: version_of(&row.id)?, value: body.map(|body| body.id) })
        };
        let log = versions.iter().map(entry).collect::<Result<_>>()?;
        self.lock().log = Some(log);
        Ok(())
    }

    /// Notes under which ETag a body would be seen, before it is sent for the first time.
    pub(super) fn expect_etag(&self, etag: &str, body: &Body) {
        self.lock().bodies.insert(etag.to_owned(), body.clone());
    }

    /// The body that has that ETag.
    ///
    /// # Errors
    /// When nobody ever sent one.
    pub(super) fn body_of(&self, etag: &str) -> Result<Body> {
        self.lock().bodies.get(etag).cloned().with_context(|| format!("nobody wrote what has the ETag {etag}"))
    }

    /// Every key that was used.
    pub(super) fn keys(&self) -> Vec<String> {
        self.lock().keys.keys().cloned().collect()
    }

    /// How many operations there were, by kind.
    pub(super) fn kinds(&self) -> BTreeMap<&'static str, Tally> {
        self.lock().kinds.clone()
    }

    /// Checks every key, and those of the versioned bucket together if it was asked. How many operations that were, reads by
    /// listings included.
    ///
    /// # Errors
    /// With the first key that no order explains.
    pub(super) fn check(&self) -> Result<u64> {
        let (mut count, state) = (0, self.lock());
        for (key, operations) in &state.keys {
            count += operations.len() as u64;
            match check(operations) {
                Ok(()) => {}
                Err(Wrong::Impossible(why)) => bail!("{key} is not linearizable: {why}"),
                Err(Wrong::TooHard(why)) => bail!("{key} cannot be decided: {why}"),
            }
        }
        if let Some(log) = &state.log {
            let versioned = state.keys.iter().filter(|(key, _)| Recorder::is_versioned(key));
            let keys: Vec<_> = versioned.map(|(key, operations)| (key.as_str(), operations.as_slice())).collect();
            let placed = replay(&keys, &state.listings, log)?;
            say(&format!("  {placed} operations and listings replayed in the order of the log, {} writes", log.len()));
        }
        Ok(count)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number that a version id is, in hexadecimal.
pub(super) fn version_of(id: &str) -> Result<u64> {
    u64::from_str_radix(id, 16).with_context(|| format!("version {id:?}"))
}
