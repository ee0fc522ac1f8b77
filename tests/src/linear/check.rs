//! Whether the operations on one key fit into an order: a search as of Wing and Gong, with the memory of Lowe.
//!
//! A step takes an operation that no other must precede (each that is left was called no later than any that is left
//! returned) and whose guard the key satisfies. The search goes deep first, and never twice to the same place.
//!
//! What keeps it short
//! - What has no effect and fits now is taken now, without a choice: in any order that begins like this one, it could stand
//!   here as well. So only writes branch.
//! - Lost operations are tried last, of equal ones only the first; and a place is left if it was reached before with no more
//!   of them spent, for then all that can follow could follow there.
//! - Values that no guard names are one value: nobody can tell them apart.

use std::collections::{HashMap, HashSet};

use super::operation::{Guard, Operation, Value};

/// More places than this are not searched: the history is too entangled to be decided.
const PLACES_MAX: usize = 2_000_000;
/// One bit each.
const LOST_MAX: usize = 64;

/// Stands for every value that no guard names.
const UNNAMED: u64 = u64::MAX;

/// Why a history was not accepted.
#[derive(Clone, Debug)]
pub enum Wrong {
    /// No order explains it: how far the best attempt came.
    Impossible(String),
    /// It could not be decided.
    TooHard(String),
}

/// Whether there is an order of `operations`, all on one key that holds nothing at first, in which each finds what its guard
/// demands, and which keeps real time: what returned before another was called stands before it.
///
/// # Errors
/// When there is none, or the search was given up.
pub fn check(operations: &[Operation]) -> Result<(), Wrong> {
    Search::new(operations)?.run()
}

struct Search {
    /// Answered, by the time of the call.
    known: Vec<Operation>,
    /// Unanswered writes, by the time of the call.
    lost: Vec<Operation>,
    /// For what was taken and what the key then holds: the sets of lost operations spent on the way.
    seen: HashMap<(Box<[u64]>, Value), Vec<u64>>,
    deepest: Place,
}

/// How far one attempt has come.
#[derive(Clone, Debug, Default)]
struct Place {
    /// A bit for each known operation that was taken.
    taken: Box<[u64]>,
    taken_count: usize,
    /// The first that was not.
    low: usize,
    /// A bit for each lost operation that was spent.
    spent: u64,
    value: Value,
}

impl Place {
    fn has(&self, index: usize) -> bool {
        self.taken[index / 64] >> (index % 64) & 1 == 1
    }

    fn take(&mut self, index: usize, operation: &Operation) {
        self.taken[index / 64] |= 1 << (index % 64);
        self.taken_count += 1;
        self.value = operation.effect.unwrap_or(self.value);
    }
}

impl Search {
    fn new(operations: &[Operation]) -> Result<Search, Wrong> {
        let mut sorted = without_unnamed(operations);
        sorted.sort_by_key(|operation| operation.called);
        let (known, lost): (Vec<_>, Vec<_>) = sorted.into_iter().partition(|operation| operation.returned.is_some());
        if lost.len() > LOST_MAX {
            return Err(Wrong::TooHard(format!("{} operations without an answer", lost.len())));
        }
        Ok(Search { known, lost, seen: HashMap::new(), deepest: Place::default() })
    }

    fn run(mut self) -> Result<(), Wrong> {
        let start = Place { taken: vec![0; self.known.len().div_ceil(64)].into(), ..Place::default() };
        let (mut stack, mut places) = (vec![start], 0);
        while let Some(mut place) = stack.pop() {
            let until = self.take_what_fits(&mut place);
            if place.taken_count == self.known.len() {
                return Ok(());
            }
            if !self.is_new(&place) {
                continue;
            }
            places += 1;
            if places > PLACES_MAX {
                return Err(Wrong::TooHard(format!("{} operations, {} lost", self.known.len(), self.lost.len())));
            }
            // The last pushed is searched first: answered writes, the earliest before the others.
            stack.extend(self.lost_steps(&place, until));
            stack.extend(self.known_steps(&place, until));
            if place.taken_count >= self.deepest.taken_count {
                self.deepest = place;
            }
        }
        Err(Wrong::Impossible(self.explain()))
    }

    /// Takes everything that may come next and has no effect. When the first that is left returned: nothing that was
    /// called later may be taken.
    fn take_what_fits(&self, place: &mut Place) -> u64 {
        loop {
            while place.low < self.known.len() && place.has(place.low) {
                place.low += 1;
            }
            let until = self.until(place);
            let before = place.taken_count;
            for index in self.open(place, until).collect::<Vec<_>>() {
                let operation = &self.known[index];
                if operation.effect.is_none() && operation.guard.allows(place.value) {
                    place.take(index, operation);
                }
            }
            if place.taken_count == before {
                return until;
            }
        }
    }

    /// The earliest return among what is left.
    fn until(&self, place: &Place) -> u64 {
        let mut until = u64::MAX;
        for (index, operation) in self.known.iter().enumerate().skip(place.low) {
            if operation.called > until {
                break;
            }
            if !place.has(index) {
                until = until.min(operation.returned.unwrap_or(u64::MAX));
            }
        }
        until
    }

    /// What is left and was called by `until`.
    fn open<'a>(&'a self, place: &'a Place, until: u64) -> impl DoubleEndedIterator<Item = usize> + 'a {
        let end = self.known.partition_point(|operation| operation.called <= until);
        (place.low..end).filter(|index| !place.has(*index))
    }

    /// Remembers a place. False if all that can follow was or will be searched from another.
    fn is_new(&mut self, place: &Place) -> bool {
        let spent = self.seen.entry((place.taken.clone(), place.value)).or_default();
        if spent.iter().any(|less| less & place.spent == *less) {
            return false;
        }
        spent.retain(|more| more & place.spent != place.spent);
        spent.push(place.spent);
        true
    }

    fn known_steps(&self, place: &Place, until: u64) -> Vec<Place> {
        let open = self.open(place, until).rev();
        let fitting = open.filter(|index| self.known[*index].guard.allows(place.value));
        let step = |index: usize| {
            let mut next = place.clone();
            next.take(index, &self.known[index]);
            next
        };
        fitting.map(step).collect()
    }

    fn lost_steps(&self, place: &Place, until: u64) -> Vec<Place> {
        let mut steps: Vec<Place> = Vec::new();
        let mut tried: Vec<&Operation> = Vec::new();
        for (index, operation) in self.lost.iter().enumerate().take_while(|(_, lost)| lost.called <= until) {
            let spent = place.spent >> index & 1 == 1;
            let equal = |other: &&Operation| (other.guard, other.effect) == (operation.guard, operation.effect);
            if spent || operation.keeps(place.value) || tried.iter().any(equal) {
                continue;
            }
            tried.push(operation);
            if operation.guard.allows(place.value) {
                let value = operation.effect.unwrap_or(place.value);
                steps.push(Place { spent: place.spent | 1 << index, value, ..place.clone() });
            }
        }
        steps
    }

    fn explain(&self) -> String {
        let place = &self.deepest;
        let until = self.until(place);
        let mut text = format!(
            "{} of {} operations fit; then the key holds {:?}, and none of these fits ({UNNAMED}: never seen):",
            place.taken_count,
            self.known.len(),
            place.value
        );
        let open = self.open(place, until).map(|index| &self.known[index]);
        open.for_each(|operation| text.push_str(&format!("\n  {operation:?}")));
        text.push_str("\nbefore them (by return):");
        let mut taken: Vec<_> = (0..self.known.len()).filter(|index| place.has(*index)).collect();
        taken.sort_by_key(|index| self.known[*index].returned);
        let last = taken.iter().rev().take(12).rev().map(|index| &self.known[*index]);
        last.for_each(|operation| text.push_str(&format!("\n  {operation:?}")));
        text.push_str("\nwithout an answer:");
        self.lost.iter().for_each(|operation| text.push_str(&format!("\n  {operation:?}")));
        text
    }
}

/// The operations, with one value for all that no guard names.
fn without_unnamed(operations: &[Operation]) -> Vec<Operation> {
    let named = operations.iter().filter_map(|operation| match operation.guard {
        Guard::Is(value) => value,
        Guard::SomethingBut(value) => Some(value),
        Guard::Any | Guard::Something => None,
    });
    let named: HashSet<u64> = named.collect();
    let told = |value: u64| if named.contains(&value) { value } else { UNNAMED };
    let renamed =
        |operation: &Operation| Operation { effect: operation.effect.map(|value| value.map(told)), ..*operation };
    operations.iter().map(renamed).collect()
}

#[cfg(test)]
mod tests {
    use super::super::operation::Guard;
    use super::*;
    use crate::random::Rng;

    fn operation(called: u64, returned: impl Into<Option<u64>>, guard: Guard, effect: Option<Value>) -> Operation {
        Operation { client: 0, called, returned: returned.into(), guard, effect, version: None }
    }

    fn put(called: u64, returned: impl Into<Option<u64>>, id: u64) -> Operation {
        operation(called, returned, Guard::Any, Some(Some(id)))
    }

    fn delete(called: u64, returned: impl Into<Option<u64>>) -> Operation {
        operation(called, returned, Guard::Any, Some(None))
    }

    fn get(called: u64, returned: u64, value: Value) -> Operation {
        operation(called, returned, Guard::Is(value), None)
    }

    fn accepted(operations: &[Operation]) -> bool {
        match check(operations) {
            Ok(()) => true,
            Err(Wrong::Impossible(_)) => false,
            Err(Wrong::TooHard(why)) => panic!("{why}"),
        }
    }

    #[test]
    fn a_read_sees_the_last_write() {
        assert!(accepted(&[]));
        assert!(accepted(&[put(0, 1, 7), get(2, 3, Some(7)), delete(4, 5), get(6, 7, None)]));
        assert!(!accepted(&[get(0, 1, Some(7))]), "a value from nowhere");
        assert!(!accepted(&[put(0, 1, 7), put(2, 3, 8), get(4, 5, Some(7))]), "a stale read");
        assert!(!accepted(&[put(0, 1, 7), get(2, 3, None)]), "a lost write");
        assert!(!accepted(&[put(0, 1, 7), delete(2, 3), get(4, 5, Some(7))]), "a deleted object is back");
        assert!(!accepted(&[get(0, 1, Some(7)), put(2, 3, 7)]), "a read from the future");
    }

    #[test]
    fn what_overlaps_may_stand_in_any_order() {
        assert!(accepted(&[put(0, 10, 7), put(1, 9, 8), get(11, 12, Some(7))]));
        assert!(accepted(&[put(0, 10, 7), put(1, 9, 8), get(11, 12, Some(8))]));
        assert!(accepted(&[put(0, 10, 7), get(2, 3, None), get(4, 5, Some(7))]));
        assert!(!accepted(&[put(0, 10, 7), get(2, 3, Some(7)), get(4, 5, None)]), "seen, then unseen");
        let both_ways = [put(0, 10, 7), put(1, 9, 8), get(11, 12, Some(7)), get(13, 14, Some(8))];
        assert!(!accepted(&both_ways), "one order for all");
    }

    #[test]
    fn a_lost_answer_is_open() {
        assert!(accepted(&[put(0, None, 7), get(1, 2, None), get(3, 4, None)]), "never");
        assert!(accepted(&[put(0, None, 7), get(1, 2, None), put(3, 4, 8), get(5, 6, Some(7))]), "late");
        assert!(!accepted(&[put(0, None, 7), get(1, 2, Some(7)), put(3, 4, 8), get(5, 6, Some(7))]), "twice");
        assert!(!accepted(&[get(0, 1, Some(7)), put(2, None, 7)]), "before its call");
        let retried = [put(0, None, 7), put(1, 2, 7), put(3, 4, 8), get(5, 6, Some(7))];
        assert!(accepted(&retried), "tried again, and then the first one late");
        assert!(accepted(&[put(0, 1, 7), delete(2, None), get(3, 4, Some(7)), get(5, 6, None)]));
        assert!(!accepted(&[put(0, 1, 7), delete(2, None), get(3, 4, None), get(5, 6, Some(7))]));
    }

    #[test]
    fn conditions_hold_when_they_are_said_to() {
        let create = |called, returned, id| operation(called, returned, Guard::Is(None), Some(Some(id)));
        let exists = |called, returned| operation(called, returned, Guard::Something, None);
        let replace = |called, returned, old, id| operation(called, returned, Guard::Is(Some(old)), Some(Some(id)));
        let differs = |called, returned, old| operation(called, returned, Guard::SomethingBut(old), None);
        assert!(accepted(&[create(0, Some(1), 7), exists(2, 3), replace(4, Some(5), 7, 8), differs(6, 7, 7)]));
        assert!(!accepted(&[exists(0, 1)]), "412 on a key that was never written");
        assert!(!accepted(&[put(0, 1, 7), create(2, Some(3), 8)]), "two creators");
        assert!(!accepted(&[create(0, Some(10), 7), create(1, Some(9), 8)]), "two creators at once");
        assert!(!accepted(&[put(0, 1, 7), differs(2, 3, 7)]), "412 that should have succeeded");
        assert!(!accepted(&[put(0, 1, 7), replace(2, Some(9), 7, 8), replace(3, Some(8), 7, 9)]), "a lost update");
        assert!(accepted(&[create(0, None, 7), exists(1, 2), get(3, 4, Some(7))]), "its first try went through");
        assert!(!accepted(&[put(0, 1, 6), create(2, None, 7), get(3, 4, Some(7))]), "lost, and it could not succeed");
    }

    #[test]
    fn many_lost_answers_are_decided() {
        let mut history: Vec<_> = (0..20).map(|id| put(0, None, 1000 + id)).collect();
        history.extend(
            (0..200).flat_map(|id| [put(10 * id + 1, 10 * id + 4, id), put(10 * id + 2, 10 * id + 5, 500 + id)]),
        );
        history.extend((0..200).map(|id| get(10 * id + 6, 10 * id + 7, Some(if id % 2 == 0 { id } else { 500 + id }))));
        assert!(accepted(&history));
        history.push(get(5000, 5001, Some(3)));
        assert!(!accepted(&history));
    }

    fn random_operation(rng: &mut Rng) -> Operation {
        let value = |rng: &mut Rng| [None, Some(1), Some(2)][rng.below(3) as usize];
        let called = rng.below(12);
        let returned = (rng.below(4) > 0).then(|| called + rng.below(8));
        let guards = [Guard::Any, Guard::Is(value(rng)), Guard::Something, Guard::SomethingBut(1 + rng.below(2))];
        let effect = (returned.is_none() || rng.below(2) == 0).then(|| value(rng));
        operation(called, returned, *rng.choose(&guards), effect)
    }

    /// Every order of every subset that has all the known ones.
    fn by_force(left: &[Operation], value: Value) -> bool {
        let may_be_next = |operation: &Operation| {
            let precedes = |other: &Operation| other.returned.is_some_and(|returned| returned < operation.called);
            operation.guard.allows(value) && !left.iter().any(precedes)
        };
        left.iter().all(|operation| operation.returned.is_none())
            || (0..left.len()).filter(|index| may_be_next(&left[*index])).any(|index| {
                let mut rest = left.to_vec();
                let taken = rest.remove(index);
                by_force(&rest, taken.effect.unwrap_or(value))
            })
    }

    #[test]
    fn it_agrees_with_brute_force() {
        let mut rng = Rng::for_test("it_agrees_with_brute_force");
        let mut counts = [0, 0];
        for _ in 0..20_000 {
            let history: Vec<_> = (0..1 + rng.below(6)).map(|_| random_operation(&mut rng)).collect();
            let expected = by_force(&history, None);
            assert_eq!(accepted(&history), expected, "{history:?}");
            counts[usize::from(expected)] += 1;
        }
        assert!(counts.iter().all(|count| *count > 1000), "{counts:?}");
    }
}
