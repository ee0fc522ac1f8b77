//! What was written to each key of a versioned bucket, and which versions a store may therefore list.
//!
//! Every attempt makes one version: a body, or a delete marker. An acknowledged one is there, under the id it was
//! acknowledged with, until somebody deletes that very version; one of unknown outcome may be there, once. A listing has the
//! newest first: never a version above one that was begun only after it had been acknowledged.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::history::{Attempt, Body};
use crate::random::Rng;

/// One version as a quiet store shows it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Its bytes; none: a delete marker.
    pub bytes: Option<Vec<u8>>,
}

/// The history of one versioned bucket. Shared by the writers.
#[derive(Default)]
pub struct Versions(Mutex<State>);

#[derive(Default)]
struct State {
    now: u64,
    keys: BTreeMap<String, Vec<Version>>,
}

#[derive(Clone, Debug)]
struct Version {
    started: u64,
    /// When, and as which version; none: unknown.
    acknowledged: Option<(u64, String)>,
    body: Option<Body>,
    removal: Removal,
}

/// Whether somebody deletes this very version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    Never,
    Asked,
    Acknowledged,
}

impl Versions {
    /// Records that somebody starts to write `body` to `key`; `None` deletes.
    pub fn begin(&self, key: &str, body: Option<Body>) -> Attempt {
        let mut state = self.lock();
        let started = state.tick();
        let version = Version { started, acknowledged: None, body, removal: Removal::Never };
        state.keys.entry(key.to_owned()).or_default().push(version);
        Attempt { key: key.to_owned(), started }
    }

    /// Records that the attempt was acknowledged as version `id`.
    pub fn acknowledge(&self, attempt: &Attempt, id: &str) {
        let mut state = self.lock();
        let now = state.tick();
        for version in state.of(&attempt.key).iter_mut().filter(|version| version.started == attempt.started) {
            version.acknowledged = Some((now, id.to_owned()));
        }
    }

    /// One of the versions of `key` that are known to be there, if there is one; whoever asks is about to delete it.
    pub fn begin_removal(&self, key: &str, rng: &mut Rng) -> Option<String> {
        let there = self.surplus(key, 0);
        let id = (!there.is_empty()).then(|| rng.choose(&there).clone())?;
        self.set_removal(key, &id, Removal::Asked);
        Some(id)
    }

    /// Records that the deletion of the version `id` was acknowledged.
    pub fn acknowledge_removal(&self, key: &str, id: &str) {
        self.set_removal(key, id, Removal::Acknowledged);
    }

    fn set_removal(&self, key: &str, id: &str, removal: Removal) {
        for version in self.lock().of(key).iter_mut().filter(|version| version.id() == Some(id)) {
            version.removal = removal;
        }
    }

    /// Every key that was ever written to.
    pub fn keys(&self) -> Vec<String> {
        self.lock().keys.keys().cloned().collect()
    }

    /// The ids of the versions of `key` that are known to be there, all but the `kept` youngest.
    pub fn surplus(&self, key: &str, kept: usize) -> Vec<String> {
        let mut ids: Vec<String> =
            self.lock().of(key).iter().filter_map(Version::id_if_there).map(str::to_owned).collect();
        ids.truncate(ids.len().saturating_sub(kept));
        ids
    }

    /// Checks that `found` (all that a quiet store lists for `key`, the newest first) is allowed, and makes it the only state
    /// of the key: what was unknown is now settled.
    ///
    /// # Errors
    /// With the version that is lost, half there, back, in the wrong place, or that nobody wrote.
    pub fn settle(&self, key: &str, found: &[Found]) -> Result<()> {
        let mut state = self.lock();
        let now = state.tick();
        let mut left = std::mem::take(state.of(key));
        let mut settled: Vec<Version> = Vec::new();
        // From the oldest: an unknown attempt is taken for the oldest of those that it may be.
        for found in found.iter().rev() {
            let mut version = take_match(&mut left, found).with_context(|| format!("in {key}"))?;
            ensure!(version.removal != Removal::Acknowledged, "{key}: the deleted version {} is back", found.id);
            // Nothing is under way any more: what has not removed it will not.
            version.removal = Removal::Never;
            settled.push(version);
        }
        for (index, version) in settled.iter().enumerate() {
            let misplaced = settled[index + 1..].iter().find(|newer| newer.precedes(version));
            ensure!(misplaced.is_none(), "{key} lists {misplaced:?} as newer than {version:?}");
        }
        for (version, found) in settled.iter_mut().zip(found.iter().rev()) {
            version.acknowledged.get_or_insert((now, found.id.clone()));
        }
        let lost = left.iter().find(|version| version.id_if_there().is_some());
        ensure!(lost.is_none(), "{key} has lost {lost:?}, and holds {settled:?}");
        *state.of(key) = settled;
        Ok(())
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

    fn of(&mut self, key: &str) -> &mut Vec<Version> {
        self.keys.entry(key.to_owned()).or_default()
    }
}

impl Version {
    fn id(&self) -> Option<&str> {
        self.acknowledged.as_ref().map(|(_, id)| id.as_str())
    }

    /// Its id, if it was acknowledged and nobody deletes it.
    fn id_if_there(&self) -> Option<&str> {
        self.id().filter(|_| self.removal == Removal::Never)
    }

    /// Whether it was acknowledged before `other` was begun.
    fn precedes(&self, other: &Version) -> bool {
        self.acknowledged.as_ref().is_some_and(|(at, _)| *at < other.started)
    }

    fn wrote(&self, bytes: Option<&[u8]>) -> bool {
        match (&self.body, bytes) {
            (None, None) => true,
            (Some(body), Some(bytes)) => body.is(bytes),
            _ => false,
        }
    }
}

/// Takes the version that `found` is out of `versions`: the one of its id, else the oldest unknown one of its content.
fn take_match(versions: &mut Vec<Version>, found: &Found) -> Result<Version> {
    let bytes = found.bytes.as_deref();
    let index = match versions.iter().position(|version| version.id() == Some(&found.id)) {
        Some(index) => index,
        None => {
            let unknown = |version: &Version| version.acknowledged.is_none() && version.wrote(bytes);
            let index = versions.iter().position(unknown);
            index.with_context(|| format!("version {}: nobody wrote {}", found.id, crate::history::shown(bytes)))?
        }
    };
    let version = versions.remove(index);
    if !version.wrote(bytes) {
        bail!("{version:?} holds {}", crate::history::shown(bytes));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    fn body(id: u64) -> Option<Body> {
        Some(Body { id, len_bytes: 20 })
    }

    fn found(id: &str, body_id: u64) -> Found {
        Found { id: id.into(), bytes: Some(random::body(body_id, 20)) }
    }

    fn marker(id: &str) -> Found {
        Found { id: id.into(), bytes: None }
    }

    /// A key with the versions a (body 1) and b (a marker), and an unknown attempt at body 2.
    fn history() -> Versions {
        let versions = Versions::default();
        for (id, body) in [("a", body(1)), ("b", None)] {
            let attempt = versions.begin("k", body);
            versions.acknowledge(&attempt, id);
        }
        versions.begin("k", body(2));
        versions
    }

    #[test]
    fn what_is_unknown_may_be_there_or_not() -> Result<()> {
        history().settle("k", &[marker("b"), found("a", 1)])?;
        let versions = history();
        versions.settle("k", &[found("c", 2), marker("b"), found("a", 1)])?;
        assert!(versions.settle("k", &[marker("b"), found("a", 1)]).is_err(), "it was settled");
        Ok(())
    }

    #[test]
    fn what_was_acknowledged_is_there_whole_and_in_its_place() {
        for wrong in [
            vec![marker("b")],
            vec![found("a", 1)],
            vec![found("a", 1), marker("b")],
            vec![marker("b"), found("c", 2), found("a", 1)],
            vec![marker("b"), marker("a")],
            vec![marker("b"), found("a", 2)],
            vec![marker("c"), marker("b"), found("a", 1)],
            vec![found("d", 2), found("c", 2), marker("b"), found("a", 1)],
            vec![found("c", 3), marker("b"), found("a", 1)],
        ] {
            assert!(history().settle("k", &wrong).is_err(), "{wrong:?}");
        }
        let half = Found { bytes: Some(random::body(1, 20)[..10].to_vec()), ..found("a", 1) };
        assert!(history().settle("k", &[marker("b"), half]).is_err());
    }

    #[test]
    fn concurrent_versions_are_listed_in_any_order() -> Result<()> {
        for order in [["a", "b"], ["b", "a"]] {
            let versions = Versions::default();
            let (first, second) = (versions.begin("k", body(1)), versions.begin("k", body(1)));
            versions.acknowledge(&first, "a");
            versions.acknowledge(&second, "b");
            versions.settle("k", &order.map(|id| found(id, 1)))?;
        }
        Ok(())
    }

    #[test]
    fn unknown_markers_are_taken_for_the_oldest_they_may_be() -> Result<()> {
        let versions = Versions::default();
        versions.begin("k", None);
        let attempt = versions.begin("k", body(1));
        versions.acknowledge(&attempt, "a");
        versions.begin("k", None);
        versions.settle("k", &[marker("z"), found("a", 1), marker("y")])
    }

    #[test]
    fn a_deleted_version_does_not_come_back() -> Result<()> {
        let mut rng = Rng::new(1);
        let versions = Versions::default();
        let attempt = versions.begin("k", body(1));
        versions.acknowledge(&attempt, "a");
        assert_eq!(versions.begin_removal("k", &mut rng).as_deref(), Some("a"));
        assert_eq!(versions.begin_removal("k", &mut rng), None);
        // Nobody knows yet: it may be there still.
        versions.settle("k", &[found("a", 1)])?;
        assert_eq!(versions.surplus("k", 0), ["a"]);
        versions.begin_removal("k", &mut rng);
        versions.acknowledge_removal("k", "a");
        assert!(versions.settle("k", &[found("a", 1)]).is_err());
        Ok(())
    }
}
