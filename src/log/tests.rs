//! The log against a trivial model: random operations, a crash at every step, every byte flipped.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::sim::{Loss, Rng, SimDisk};
use super::writer::Writer;
use super::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a log is, without any of its means.
#[derive(Clone, Default, PartialEq, Eq)]
struct Model {
    first: u64,
    next: u64,
    records: BTreeMap<u64, Bytes>,
    mark: Vec<u8>,
}

/// Short enough to read in a failure.
impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lens: Vec<usize> = self.records.values().map(Bytes::len).collect();
        write!(
            f,
            "{}..{} of {lens:?}, mark {:?}",
            self.first,
            self.next,
            self.mark.get(..2)
        )
    }
}

#[derive(Clone)]
enum Op {
    Append(Vec<Bytes>),
    Truncate(Option<u64>),
    Purge(u64),
    Reset(u64),
    Mark(Vec<u8>),
}

impl Model {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(records) => {
                for record in records {
                    self.records.insert(self.next, record.clone());
                    self.next += 1;
                }
            }
            Op::Truncate(last) => {
                self.next = last.map_or(self.first, |last| last + 1).min(self.next);
                self.records.retain(|index, _| *index < self.next);
            }
            Op::Purge(index) => {
                self.first = *index;
                self.records.retain(|at, _| at >= index);
            }
            Op::Reset(next) => {
                (self.first, self.next) = (*next, *next);
                self.records.clear();
            }
            Op::Mark(mark) => self.mark = mark.clone(),
        }
    }

    fn random_op(&self, rng: &mut Rng, longest: u64) -> Op {
        let held = self.next - self.first + 1;
        match rng.below(20) {
            0 | 1 if self.next > 0 => Op::Truncate(self.truncation(rng)),
            2..4 => Op::Purge(self.first + rng.below(held)),
            4 if rng.below(3) == 0 => Op::Reset(rng.below(1000)),
            5 | 6 => {
                let len = rng.below(65) as usize;
                Op::Mark(rng.bytes(len))
            }
            _ => {
                let count = rng.below(4);
                let record = |_| {
                    let len = if rng.below(8) == 0 {
                        rng.below(longest)
                    } else {
                        rng.below(200)
                    };
                    Bytes::from(rng.bytes(len as usize))
                };
                Op::Append((0..count).map(record).collect())
            }
        }
    }

    fn truncation(&self, rng: &mut Rng) -> Option<u64> {
        let next = self.first + rng.below(self.next - self.first + 1);
        if rng.below(8) == 0 {
            None
        } else {
            next.checked_sub(1)
        }
    }
}

/// What the log holds, read through its public face.
fn contents(log: &Log, recovery: &Recovery) -> Result<Model, Error> {
    let (first, next) = (log.first_index(), log.next_index());
    let records = read_all(log, first..next)?;
    Ok(Model {
        first,
        next,
        records,
        mark: recovery.mark.clone(),
    })
}

fn read_all(log: &Log, range: Range<u64>) -> Result<BTreeMap<u64, Bytes>, Error> {
    let mut records = BTreeMap::new();
    let mut at = range.start;
    while at < range.end {
        let some = log.read(at..range.end, 700)?;
        assert!(!some.is_empty(), "at least one record is read");
        at += some.len() as u64;
        records.extend(some);
    }
    Ok(records)
}

fn options() -> Options {
    Options {
        file_len_bytes: 16 << 10,
        spare_count: 1,
        cache_len_bytes: 2000,
        ..Options::new("simulated")
    }
}

/// One life of a log on a simulated disk, between two crashes; the test is the writer's thread.
struct Life {
    log: Log,
    writer: Writer,
    /// The model after each entry (an append of several records may be torn between them); the first is what was found.
    states: Vec<Model>,
    /// Which of the states is the last acknowledged.
    acked: Arc<AtomicUsize>,
}

impl Life {
    fn submit(&mut self, op: &Op) -> Result<(), Error> {
        let before = self.states.len() - 1;
        let first_index = self.states[before].next;
        self.note_states(op);
        let number = self.states.len() - 1;
        let acked = self.acked.clone();
        let done = move |result: Result<(), Error>| {
            if result.is_ok() {
                assert_eq!(
                    acked.swap(number, Ordering::SeqCst),
                    before,
                    "acknowledged once, and in order"
                );
            }
        };
        match op.clone() {
            Op::Append(records) => self.log.append(first_index, records, done),
            Op::Truncate(last) => self.log.truncate_after(last, done),
            Op::Purge(index) => self.log.purge_before(index, done),
            Op::Reset(next) => self.log.reset(next, done),
            Op::Mark(mark) => self.log.set_mark(&mark, done),
        }
    }

    fn note_states(&mut self, op: &Op) {
        let entries: Vec<Op> = match op {
            Op::Append(records) if !records.is_empty() => records
                .iter()
                .map(|record| Op::Append(vec![record.clone()]))
                .collect(),
            other => vec![other.clone()],
        };
        for entry in entries {
            let mut model = self.states[self.states.len() - 1].clone();
            model.apply(&entry);
            self.states.push(model);
        }
    }

    /// Random operations, with the writer at work now and then, until the disk crashes or there are enough.
    fn live(&mut self, rng: &mut Rng, op_count: usize) -> bool {
        for _ in 0..op_count {
            let op = self.states[self.states.len() - 1].random_op(rng, 9000);
            self.submit(&op).unwrap();
            self.check_view(rng);
            if rng.below(3) == 0 && self.writer.step().is_err() {
                return false;
            }
        }
        self.writer.step().is_ok()
    }

    /// Callers see every queued change at once.
    fn check_view(&self, rng: &mut Rng) {
        let model = &self.states[self.states.len() - 1];
        assert_eq!(
            (self.log.first_index(), self.log.next_index()),
            (model.first, model.next)
        );
        assert!(self.log.durable_index() <= model.next);
        if rng.below(4) == 0 {
            let from = model.first + rng.below(model.next - model.first + 1);
            let expected: Vec<_> = model
                .records
                .range(from..)
                .map(|(at, bytes)| (*at, bytes.clone()))
                .collect();
            assert_eq!(
                read_all(&self.log, from..model.next)
                    .unwrap()
                    .into_iter()
                    .collect::<Vec<_>>(),
                expected
            );
            if let Some(cached) = self.log.read_cached(from..model.next, usize::MAX) {
                assert_eq!(cached, expected);
            }
        }
    }
}

/// Opens after a crash: the log must be whole, and be the model after some operation not before the last acknowledged.
fn reopen(disk: &SimDisk, candidates: &[Model], what: &str) -> Result<Life, Error> {
    let (log, recovery, writer) = Log::open_on(Arc::new(disk.clone()), &options())?;
    assert_eq!(recovery.state, Health::Whole, "{what}");
    let found = contents(&log, &recovery).unwrap();
    assert_eq!(
        (recovery.first_index, recovery.next_index),
        (found.first, found.next),
        "{what}"
    );
    assert!(
        candidates.contains(&found),
        "{what}: found {found:?}, none of {candidates:?}"
    );
    let acked = Arc::new(AtomicUsize::new(0));
    Ok(Life {
        log,
        writer: writer.unwrap(),
        states: vec![found],
        acked,
    })
}

const LOSSES: [Loss; 4] = [
    Loss::All,
    Loss::None,
    Loss::SomeSectors,
    Loss::SomeSectorsTorn,
];

/// Three lives on one disk, each ended by a crash: the first after `crash_at` steps, the others after some.
/// Answers the steps of the first life, had it not crashed.
fn lives(seed: u64, crash_at: u64) -> u64 {
    let mut rng = Rng(seed);
    let mut disk = SimDisk::default();
    let mut candidates = vec![Model::default()];
    let mut first_life_steps = 0;
    for life in 0..3 {
        let what = format!("seed {seed}, crash at {crash_at}, life {life}");
        disk.crash_after(if life == 0 { crash_at } else { rng.below(60) });
        match reopen(&disk, &candidates, &what) {
            Ok(mut opened) => {
                opened.live(&mut rng, 15);
                let acked = opened.acked.load(Ordering::SeqCst);
                candidates = opened.states.split_off(acked);
            }
            Err(error) => assert!(matches!(error, Error::Io { .. }), "{what}: {error}"),
        }
        first_life_steps = first_life_steps.max(if life == 0 { disk.steps() } else { 0 });
        let loss = LOSSES[rng.below(4) as usize];
        disk = disk.after_crash(loss, &mut rng);
    }
    let mut last = reopen(
        &disk,
        &candidates,
        &format!("seed {seed}, crash at {crash_at}, end"),
    )
    .unwrap();
    assert!(last.live(&mut rng, 10));
    last.log.close();
    last.writer.finish();
    let end = last.states.split_off(last.states.len() - 1);
    reopen(
        &disk,
        &end,
        &format!("seed {seed}, crash at {crash_at}, closed"),
    )
    .unwrap();
    first_life_steps
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_machine_crashes() {
    for seed in 0..40 {
        let steps = lives(seed, u64::MAX / 2);
        for crash_at in 0..steps {
            lives(seed, crash_at);
        }
    }
}
