//! Whether what was seen of a versioned bucket is explained by one order that is known: that of the log, which version ids
//! tell. It is a check of all keys together, without a search.
//!
//! Every operation has one place in the order. A write has its version's; a read any place at which the store holds what it
//! saw, all keys of a listing at once. What returned before another was called stands before it. Going by the time of the
//! call, each read gets the earliest place that it may have: so it is in nobody's way, and what then does not fit, cannot.
//!
//! A version that no answer told must be a lost write, of which each accounts for one at most.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use anyhow::{Context, Result, bail, ensure};

use super::operation::{Operation, Value};

/// A write as the bucket has it: a version or a delete marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// What was written.
    pub key: String,
    /// Its version id: ascends as the log does.
    pub version: u64,
    /// None: a delete marker.
    pub value: Value,
}

/// A listing of one page, which is of one moment, and what it said of every key that it could show.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Who asked; for messages.
    pub client: usize,
    /// When it was called, as of an operation.
    pub called: u64,
    /// When its answer came.
    pub returned: u64,
    /// By key.
    pub rows: Vec<(String, Value)>,
}

/// The values of each key by version, ascending.
#[derive(Default)]
struct History<'a>(BTreeMap<&'a str, Vec<(u64, Value)>>);

/// Something that has a place in the order.
struct Step<'a> {
    called: u64,
    /// None: the answer was lost.
    returned: Option<u64>,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Write { key: &'a str, version: u64, operation: &'a Operation },
    Read { key: &'a str, operation: &'a Operation },
    List(&'a Listing),
}

/// Checks what was seen of keys against what the bucket says was written. How many operations have their place.
///
/// # Errors
/// With the first that has none.
pub fn replay(keys: &[(&str, &[Operation])], listings: &[Listing], log: &[Logged]) -> Result<u64> {
    let history = History::new(log)?;
    let mut steps = Vec::new();
    for (key, operations) in keys {
        steps.extend(steps_of(key, operations, history.of(key)).with_context(|| format!("{key} in the log's order"))?);
    }
    let unknown = history.0.keys().find(|key| keys.iter().all(|(known, _)| known != *key));
    ensure!(unknown.is_none(), "nobody wrote {unknown:?}");
    steps.extend(listings.iter().map(|listing| Step {
        called: listing.called,
        returned: Some(listing.returned),
        kind: Kind::List(listing),
    }));
    steps.sort_by_key(|step| step.called);
    let (mut floor, mut under_way) = (0, BinaryHeap::new());
    for step in &steps {
        while let Some(Reverse((returned, place))) = under_way.peek().copied()
            && returned < step.called
        {
            under_way.pop();
            floor = floor.max(place);
        }
        let place = history.place(&step.kind, floor).with_context(|| format!("after version {floor:016x} was seen"))?;
        under_way.extend(step.returned.map(|returned| Reverse((returned, place))));
    }
    Ok(steps.len() as u64)
}

/// The operations on one key, each write with its version; lost ones that came to nothing are left out.
fn steps_of<'a>(key: &'a str, operations: &'a [Operation], history: &[(u64, Value)]) -> Result<Vec<Step<'a>>> {
    let mut unclaimed: BTreeSet<(u64, Value)> = history.iter().copied().collect();
    let mut steps = Vec::new();
    let step = |operation: &'a Operation, kind| Step { called: operation.called, returned: operation.returned, kind };
    let (known, mut lost): (Vec<&Operation>, Vec<&Operation>) =
        operations.iter().partition(|operation| operation.returned.is_some());
    for operation in known {
        let Some(value) = operation.effect else {
            steps.push(step(operation, Kind::Read { key, operation }));
            continue;
        };
        let version = operation.version.with_context(|| format!("no version in the answer to {operation:?}"))?;
        ensure!(unclaimed.remove(&(version, value)), "the bucket has no such version, or two claim it: {operation:?}");
        steps.push(step(operation, Kind::Write { key, version, operation }));
    }
    // Those of one effect are as good as each other but for when they were called.
    lost.sort_by_key(|operation| operation.called);
    for (version, value) in unclaimed {
        let Some(at) = lost.iter().position(|operation| operation.effect == Some(value)) else {
            bail!("nobody wrote version {version:016x}, {value:?}");
        };
        let operation = lost.remove(at);
        steps.push(step(operation, Kind::Write { key, version, operation }));
    }
    Ok(steps)
}

impl<'a> History<'a> {
    fn new(log: &'a [Logged]) -> Result<History<'a>> {
        let mut history = History::default();
        for Logged { key, version, value } in log {
            history.0.entry(key).or_default().push((*version, *value));
        }
        let mut all = BTreeSet::new();
        for versions in history.0.values_mut() {
            versions.sort_unstable();
            let repeated = versions.iter().find(|(version, _)| !all.insert(*version));
            ensure!(repeated.is_none(), "two writes have the version {repeated:x?}");
        }
        Ok(history)
    }

    fn of(&self, key: &str) -> &[(u64, Value)] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// What a key held once `version` was written, and the version that had made it so: 0 for none.
    fn at(&self, key: &str, version: u64) -> (u64, Value) {
        let versions = self.of(key);
        let count = versions.partition_point(|(written, _)| *written <= version);
        count.checked_sub(1).map_or((0, None), |last| versions[last])
    }

    /// The first version of a key after `version`.
    fn next(&self, key: &str, version: u64) -> Option<u64> {
        let versions = self.of(key);
        versions.get(versions.partition_point(|(written, _)| *written <= version)).map(|(written, _)| *written)
    }

    /// The earliest place that is not before `floor`.
    fn place(&self, kind: &Kind, floor: u64) -> Result<u64> {
        match kind {
            Kind::Write { key, version, operation } => {
                let (_, before) = self.at(key, version.saturating_sub(1));
                ensure!(
                    operation.guard.allows(before),
                    "{key} held {before:?} before version {version:016x}: {operation:?}"
                );
                ensure!(
                    *version > floor,
                    "{key}: version {version:016x} was written before it was asked for: {operation:?}"
                );
                Ok(*version)
            }
            Kind::Read { key, operation } => {
                let sees = |(written, value): (u64, Value)| {
                    operation.guard.allows(value) && operation.version.is_none_or(|version| version == written)
                };
                let place = self.earliest(floor, &[key], |place| sees(self.at(key, place)));
                place.with_context(|| format!("{key} never was like this any more: {operation:?}"))
            }
            Kind::List(listing) => {
                let keys: Vec<&str> = listing.rows.iter().map(|(key, _)| key.as_str()).collect();
                let is_so = |place| listing.rows.iter().all(|(key, value)| self.at(key, place).1 == *value);
                let place = self.earliest(floor, &keys, is_so);
                place.with_context(|| format!("never all at once any more: {listing:?}"))
            }
        }
    }

    /// The first place from `floor` on at which `is_so`; it may become so with writes to `keys` alone.
    fn earliest(&self, floor: u64, keys: &[&str], is_so: impl Fn(u64) -> bool) -> Option<u64> {
        let mut place = floor;
        while !is_so(place) {
            place = keys.iter().filter_map(|key| self.next(key, place)).min()?;
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::operation::Guard;
    use super::*;
    use crate::random::Rng;

    fn operation(called: u64, returned: impl Into<Option<u64>>, guard: Guard, effect: Option<Value>) -> Operation {
        Operation { client: 0, called, returned: returned.into(), guard, effect, version: None }
    }

    fn put(called: u64, returned: u64, version: u64, id: u64) -> Operation {
        Operation { version: Some(version), ..operation(called, returned, Guard::Any, Some(Some(id))) }
    }

    fn lost(called: u64, value: Value) -> Operation {
        operation(called, None, Guard::Any, Some(value))
    }

    fn get(called: u64, returned: u64, value: Value) -> Operation {
        operation(called, returned, Guard::Is(value), None)
    }

    fn logged(key: &str, version: u64, value: impl Into<Value>) -> Logged {
        Logged { key: key.to_owned(), version, value: value.into() }
    }

    fn listing(called: u64, returned: u64, rows: &[(&str, Value)]) -> Listing {
        let rows = rows.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        Listing { client: 0, called, returned, rows }
    }

    /// Whether what was seen of `a` and `b` is accepted.
    fn accepted(a: &[Operation], b: &[Operation], listings: &[Listing], log: &[Logged]) -> bool {
        replay(&[("a", a), ("b", b)], listings, log).is_ok()
    }

    #[test]
    fn writes_stand_where_the_log_has_them() {
        let log = [logged("a", 10, 1), logged("a", 20, 2)];
        assert!(accepted(&[put(0, 9, 10, 1), put(1, 8, 20, 2), get(10, 11, Some(2))], &[], &[], &log));
        assert!(!accepted(&[put(0, 9, 10, 1), put(1, 8, 20, 2), get(10, 11, Some(1))], &[], &[], &log), "a stale read");
        assert!(!accepted(&[put(4, 5, 10, 1), put(0, 1, 20, 2)], &[], &[], &log), "not in the order of time");
        assert!(!accepted(&[put(0, 1, 10, 1), put(2, 3, 30, 2)], &[], &[], &log), "a version that is not there");
        assert!(!accepted(&[put(0, 1, 10, 1)], &[], &[], &log), "one that nobody wrote");
        assert!(!accepted(&[put(0, 1, 10, 1), put(0, 1, 10, 1), put(2, 3, 20, 2)], &[], &[], &log), "claimed twice");
        assert!(!accepted(&[], &[], &[], &[logged("c", 10, 1)]), "a key that nobody wrote");
        let twice = [logged("a", 10, 1), logged("b", 10, 2)];
        assert!(!accepted(&[put(0, 1, 10, 1)], &[put(0, 1, 10, 2)], &[], &twice), "one place for two");
        let unnamed = Operation { version: None, ..put(0, 1, 10, 1) };
        assert!(!accepted(&[unnamed], &[], &[], &log[..1]), "an answer without a version");
    }

    #[test]
    fn reads_do_not_see_what_comes_later() {
        let log = [logged("a", 10, 1), logged("a", 20, None), logged("a", 30, 1)];
        let writes = [put(0, 1, 10, 1), Operation { effect: Some(None), ..put(2, 3, 20, 0) }, put(6, 7, 30, 1)];
        let with = |read: Operation| [writes.as_slice(), &[read]].concat();
        assert!(accepted(&with(get(4, 5, None)), &[], &[], &log));
        assert!(!accepted(&with(get(4, 5, Some(1))), &[], &[], &log), "of the same value, later or earlier");
        assert!(accepted(&with(get(4, 6, Some(1))), &[], &[], &log));
        let named = |read: Operation, version| with(Operation { version: Some(version), ..read });
        assert!(!accepted(&named(get(4, 6, Some(1)), 10), &[], &[], &log), "it says that it saw the first one");
        assert!(accepted(&named(get(4, 6, Some(1)), 30), &[], &[], &log));
        assert!(!accepted(&named(get(2, 3, None), 10), &[], &[], &log), "a version of another value");
    }

    #[test]
    fn a_lost_write_is_there_once_or_not_at_all() {
        let log = [logged("a", 10, 1), logged("a", 20, 2)];
        assert!(accepted(&[lost(0, Some(1)), put(2, 3, 20, 2)], &[], &[], &log));
        assert!(accepted(&[lost(0, Some(1)), put(2, 3, 20, 2), lost(0, Some(3))], &[], &[], &log));
        assert!(accepted(
            &[put(0, 1, 10, 1), lost(0, Some(2)), get(8, 9, Some(1)), get(8, 9, Some(2))],
            &[],
            &[],
            &log
        ));
        assert!(!accepted(&[put(2, 3, 20, 2), lost(4, Some(1))], &[], &[], &log), "before it was asked for");
        let again = [logged("a", 10, 1), logged("a", 20, 1)];
        assert!(accepted(&[lost(0, Some(1)), lost(0, Some(1))], &[], &[], &again));
        assert!(!accepted(&[lost(0, Some(1))], &[], &[], &again), "twice");
    }

    #[test]
    fn conditions_hold_in_the_order_of_the_log() {
        let log = [logged("a", 10, 1), logged("a", 20, 2)];
        let guarded = |guard, write: Operation| Operation { guard, ..write };
        let (first, second) = (put(0, 9, 10, 1), put(0, 9, 20, 2));
        let both = |one, other| [guarded(one, first), guarded(other, second)];
        assert!(accepted(&both(Guard::Is(None), Guard::Is(Some(1))), &[], &[], &log));
        assert!(!accepted(&both(Guard::Is(None), Guard::Is(None)), &[], &[], &log), "two creators");
        assert!(!accepted(&both(Guard::Is(Some(2)), Guard::Any), &[], &[], &log), "a lost update");
        let lost_one = Operation { returned: None, version: None, ..guarded(Guard::Is(None), second) };
        assert!(!accepted(&[first, lost_one], &[], &[], &log), "lost, and it could not succeed");
        let exists = |called, returned| operation(called, returned, Guard::Something, None);
        assert!(accepted(&[first, second, exists(0, 9)], &[], &[], &log));
        assert!(!accepted(&[put(4, 9, 10, 1), second, exists(0, 3)], &[], &[], &log), "412 before there was anything");
    }

    #[test]
    fn keys_are_of_one_order() {
        let log = [logged("a", 10, 1), logged("b", 20, 2)];
        let (a, b) = (put(0, 9, 10, 1), put(0, 9, 20, 2));
        assert!(accepted(&[a, get(3, 4, None)], &[b, get(1, 2, None)], &[], &log));
        assert!(!accepted(&[a, get(3, 4, None)], &[b, get(1, 2, Some(2))], &[], &log), "the second without the first");
        let list = |a, b| [listing(1, 2, &[("a", a), ("b", b)])];
        for (rows, is_fine) in
            [((None, None), true), ((Some(1), None), true), ((Some(1), Some(2)), true), ((None, Some(2)), false)]
        {
            assert_eq!(accepted(&[a], &[b], &list(rows.0, rows.1), &log), is_fine, "{rows:?}");
        }
        assert!(
            !accepted(&[put(0, 1, 10, 1)], &[b], &[listing(2, 3, &[("a", None), ("b", None)])], &log),
            "a stale one"
        );
    }

    /// What clients see of a store that applies one operation after another, each at a moment between call and return.
    fn run(rng: &mut Rng, count: u64) -> ([Vec<Operation>; 2], Vec<Listing>, Vec<Logged>) {
        let (mut values, mut versions, mut log) = ([None, None], [None, None], Vec::new());
        let (mut keys, mut listings) = ([Vec::new(), Vec::new()], Vec::new());
        for moment in 1..=count {
            let (called, returned) = (100 * moment - rng.below(300).min(100 * moment), 100 * moment + rng.below(300));
            let key = rng.below(2) as usize;
            match rng.below(5) {
                0 | 1 => {
                    let value = (rng.below(4) > 0).then_some(moment);
                    let is_lost = rng.below(5) == 0;
                    (values[key], versions[key]) = (value, Some(moment));
                    log.push(logged(["a", "b"][key], moment, value));
                    let known =
                        Operation { version: Some(moment), ..operation(called, returned, Guard::Any, Some(value)) };
                    keys[key].push(if is_lost { Operation { returned: None, version: None, ..known } } else { known });
                }
                2 => keys[key].push(lost(called, Some(1_000_000 + moment))),
                3 => listings.push(listing(called, returned, &[("a", values[0]), ("b", values[1])])),
                _ => {
                    let version = versions[key].filter(|_| rng.below(2) == 0);
                    keys[key].push(Operation { version, ..get(called, returned, values[key]) });
                }
            }
        }
        (keys, listings, log)
    }

    #[test]
    fn what_a_store_says_is_accepted_and_no_lie() -> Result<()> {
        let mut rng = Rng::for_test("what_a_store_says_is_accepted_and_no_lie");
        let (mut stale, mut refused) = (0, 0);
        for _ in 0..2_000 {
            let ([mut a, b], listings, log) = run(&mut rng, 60);
            replay(&[("a", &a), ("b", &b)], &listings, &log)?;
            // A read that goes back to before a write that had returned.
            let answered = |write: &Operation| write.effect.and(write.version).zip(write.returned);
            let Some((version, returned)) = a.iter().find_map(answered) else { continue };
            let before = log.iter().rfind(|entry| entry.key == "a" && entry.version < version);
            let value = before.and_then(|entry| entry.value);
            if log.iter().all(|entry| entry.key != "a" || entry.version < version || entry.value != value) {
                a.push(get(returned + 1, returned + 2, value));
                stale += 1;
                refused += u64::from(!accepted(&a, &b, &listings, &log));
            }
        }
        assert!(stale > 200 && refused == stale, "{refused} of {stale}");
        Ok(())
    }
}
