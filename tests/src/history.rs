//! What was written to each key of an unversioned bucket, and what a store may therefore hold.
//!
//! An operation is an attempt to make a key hold a body (or nothing). It starts, and perhaps it is acknowledged. A key may
//! hold what an attempt wrote unless a later one, started after the first was acknowledged (or known to be settled), has been
//! acknowledged itself: that is all that durability and atomicity promise, and it needs no order among concurrent writers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};

use crate::random;

/// What a write puts: the bytes are [`random::body`] of the id, cut into parts of the given lengths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Unique over the whole history.
    pub id: u64,
    /// Length in bytes.
    pub len_bytes: usize,
}

impl Body {
    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        random::body(self.id, self.len_bytes)
    }

    /// Whether `bytes` are exactly these.
    pub fn is(&self, bytes: &[u8]) -> bool {
        self.len_bytes == bytes.len() && self.bytes() == bytes
    }
}

/// Names one attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub(crate) key: String,
    pub(crate) started: u64,
}

#[derive(Clone, Debug)]
struct Operation {
    started: u64,
    /// When it was acknowledged; none: unknown, it may take effect at any later time.
    acknowledged: Option<u64>,
    body: Option<Body>,
}

/// The history of one unversioned bucket. Shared by the writers.
#[derive(Default)]
pub struct History(Mutex<State>);

#[derive(Default)]
struct State {
    now: u64,
    keys: BTreeMap<String, Vec<Operation>>,
}

impl History {
    /// Records that somebody starts to make `key` hold what `body` names; `None` deletes.
    pub fn begin(&self, key: &str, body: Option<Body>) -> Attempt {
        let mut state = self.lock();
        let started = state.tick();
        // A key starts with nothing in it, as if deleted and acknowledged before everything.
        let nothing = || vec![Operation { started: 0, acknowledged: Some(0), body: None }];
        let operations = state.keys.entry(key.to_owned()).or_insert_with(nothing);
        operations.push(Operation { started, acknowledged: None, body });
        Attempt { key: key.to_owned(), started }
    }

    /// Records that the attempt was acknowledged, and forgets what can no longer be seen because of it.
    pub fn acknowledge(&self, attempt: &Attempt) {
        let mut state = self.lock();
        let now = state.tick();
        let Some(operations) = state.keys.get_mut(&attempt.key) else { return };
        for operation in operations.iter_mut().filter(|operation| operation.started == attempt.started) {
            operation.acknowledged = Some(now);
        }
        operations.retain(|operation| operation.acknowledged.is_none_or(|at| at >= attempt.started));
    }

    /// Every key that was ever written to.
    pub fn keys(&self) -> Vec<String> {
        self.lock().keys.keys().cloned().collect()
    }

    /// Checks that `found` (the bytes a quiet store gives for `key`) is allowed, and makes it the only state of the key:
    /// what was unknown is now settled. Returns the body it was.
    ///
    /// # Errors
    /// When no attempt that may be visible wrote it.
    pub fn settle(&self, key: &str, found: Option<&[u8]>) -> Result<Option<Body>> {
        let mut state = self.lock();
        let now = state.tick();
        let Some(operations) = state.keys.get_mut(key) else {
            bail!("{key} was never written, and holds {}", shown(found))
        };
        let Some(seen) =
            operations.iter().find(|operation| operation.wrote(found)).map(|operation| operation.body.clone())
        else {
            bail!("{key} holds {}, and may hold only {operations:?}", shown(found));
        };
        *operations = vec![Operation { started: now, acknowledged: Some(now), body: seen.clone() }];
        Ok(seen)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }
}

impl Operation {
    fn wrote(&self, found: Option<&[u8]>) -> bool {
        match (&self.body, found) {
            (None, None) => true,
            (Some(body), Some(bytes)) => body.is(bytes),
            _ => false,
        }
    }
}

/// What was found, for messages.
pub(crate) fn shown(found: Option<&[u8]>) -> String {
    match found {
        None => "nothing".into(),
        Some(bytes) => format!("{} bytes, {:02x?}…", bytes.len(), &bytes[..bytes.len().min(16)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(id: u64) -> Option<Body> {
        Some(Body { id, len_bytes: 20 })
    }

    fn allows(history: &History, id: u64) -> bool {
        let state = history.lock();
        let bytes = random::body(id, 20);
        state.keys["k"].iter().any(|operation| operation.wrote(Some(&bytes)))
    }

    #[test]
    fn an_acknowledged_write_hides_what_was_acknowledged_before_it_started() {
        let history = History::default();
        let first = history.begin("k", body(1));
        history.acknowledge(&first);
        let second = history.begin("k", body(2));
        assert!(allows(&history, 1) && allows(&history, 2));
        history.acknowledge(&second);
        assert!(!allows(&history, 1) && allows(&history, 2));
        assert!(history.settle("k", None).is_err());
    }

    #[test]
    fn concurrent_writes_are_all_allowed() {
        let history = History::default();
        let (first, second) = (history.begin("k", body(1)), history.begin("k", body(2)));
        history.acknowledge(&second);
        history.acknowledge(&first);
        assert!(allows(&history, 1) && allows(&history, 2));
    }

    #[test]
    fn what_is_found_settles_the_unknown() -> Result<()> {
        let history = History::default();
        history.begin("k", body(1));
        assert_eq!(history.settle("k", None)?, None);
        assert!(history.settle("k", Some(&random::body(1, 20))).is_err());
        Ok(())
    }

    #[test]
    fn half_a_body_is_never_allowed() {
        let history = History::default();
        let attempt = history.begin("k", body(1));
        history.acknowledge(&attempt);
        assert!(history.settle("k", Some(&random::body(1, 20)[..10])).is_err());
        let mut flipped = random::body(1, 20);
        flipped[7] ^= 1;
        assert!(history.settle("k", Some(&flipped)).is_err());
    }
}
