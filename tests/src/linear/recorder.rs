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
use crate::history::Body;

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

    /// Checks every key. How many operations that were, reads by listings included.
    ///
    /// # Errors
    /// With the first key that no order explains.
    pub(super) fn check(&self) -> Result<u64> {
        let mut count = 0;
        for (key, operations) in &self.lock().keys {
            count += operations.len() as u64;
            match check(operations) {
                Ok(()) => {}
                Err(Wrong::Impossible(why)) => bail!("{key} is not linearizable: {why}"),
                Err(Wrong::TooHard(why)) => bail!("{key} cannot be decided: {why}"),
            }
        }
        Ok(count)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
