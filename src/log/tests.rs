//! The log against a trivial model: random operations, a crash at every step, every byte flipped.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod witness_race;

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
        write!(f, "{}..{} of {lens:?}, mark {:?}", self.first, self.next, self.mark.get(..2))
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
                    let len = if rng.below(8) == 0 { rng.below(longest) } else { rng.below(200) };
                    Bytes::from(rng.bytes(len as usize))
                };
                Op::Append((0..count).map(record).collect())
            }
        }
    }

    fn truncation(&self, rng: &mut Rng) -> Option<u64> {
        let next = self.first + rng.below(self.next - self.first + 1);
        if rng.below(8) == 0 { None } else { next.checked_sub(1) }
    }
}

/// What the log holds, read through its public face.
fn contents(log: &Log, recovery: &Recovery) -> Result<Model, Error> {
    let (first, next) = (log.first_index(), log.next_index());
    let records = read_all(log, first..next)?;
    Ok(Model { first, next, records, mark: recovery.mark.clone() })
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
    Options { file_len_bytes: 16 << 10, spare_count: 1, cache_len_bytes: 2000, ..Options::new("simulated") }
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
                assert_eq!(acked.swap(number, Ordering::SeqCst), before, "acknowledged once, and in order");
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
            Op::Append(records) if !records.is_empty() => {
                records.iter().map(|record| Op::Append(vec![record.clone()])).collect()
            }
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
            if rng.below(8) == 0 && self.writer.rest().is_err() {
                return false;
            }
        }
        self.writer.step().is_ok()
    }

    /// Callers see every queued change at once.
    fn check_view(&self, rng: &mut Rng) {
        let model = &self.states[self.states.len() - 1];
        assert_eq!((self.log.first_index(), self.log.next_index()), (model.first, model.next));
        assert!(self.log.durable_index() <= model.next);
        if rng.below(4) == 0 {
            let from = model.first + rng.below(model.next - model.first + 1);
            let expected: Vec<_> = model.records.range(from..).map(|(at, bytes)| (*at, bytes.clone())).collect();
            assert_eq!(read_all(&self.log, from..model.next).unwrap().into_iter().collect::<Vec<_>>(), expected);
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
    assert_eq!((recovery.first_index, recovery.next_index), (found.first, found.next), "{what}");
    assert!(candidates.contains(&found), "{what}: found {found:?}, none of {candidates:?}");
    let acked = Arc::new(AtomicUsize::new(0));
    Ok(Life { log, writer: writer.unwrap(), states: vec![found], acked })
}

const LOSSES: [Loss; 5] = [Loss::Process, Loss::All, Loss::None, Loss::SomeSectors, Loss::SomeSectorsTorn];

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
        let loss = LOSSES[rng.below(5) as usize];
        disk = disk.after_crash(loss, &mut rng);
    }
    let mut last = reopen(&disk, &candidates, &format!("seed {seed}, crash at {crash_at}, end")).unwrap();
    assert!(last.live(&mut rng, 10));
    last.log.close();
    last.writer.finish();
    let end = last.states.split_off(last.states.len() - 1);
    reopen(&disk, &end, &format!("seed {seed}, crash at {crash_at}, closed")).unwrap();
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

/// A small log over several files, with every kind of entry; what it holds, and its disk.
fn small_log(closed: bool) -> (SimDisk, Model) {
    let disk = SimDisk::default();
    let mut life = reopen(&disk, &[Model::default()], "new").unwrap();
    let mut rng = Rng(7);
    let record = |len: usize, rng: &mut Rng| Bytes::from(rng.bytes(len));
    let ops = [
        Op::Append(vec![record(5000, &mut rng), record(100, &mut rng)]),
        Op::Mark(b"a vote".to_vec()),
        Op::Append(vec![record(3000, &mut rng), record(0, &mut rng)]),
        Op::Truncate(Some(2)),
        Op::Purge(1),
        Op::Append(vec![record(700, &mut rng)]),
        Op::Mark(b"another vote".to_vec()),
        Op::Append(vec![record(300, &mut rng), record(20, &mut rng)]),
    ];
    for op in &ops {
        life.submit(op).unwrap();
        life.writer.step().unwrap();
    }
    if closed {
        life.log.close();
        life.writer.finish();
    }
    (disk.copy(), life.states.pop().unwrap())
}

/// Names of the files whose bytes count.
fn kept_files(disk: &SimDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.ends_with(".log") || name == witness::NAME).collect()
}

fn open_sim(disk: &SimDisk, accept_loss: bool) -> Result<(Log, Recovery, Option<Writer>), Error> {
    Log::open_on(Arc::new(disk.clone()), &Options { accept_loss, ..options() })
}

#[test]
fn every_flipped_byte_is_harmless_or_noticed() {
    for closed in [true, false] {
        let (disk, model) = small_log(closed);
        let files = kept_files(&disk);
        assert!(files.len() > 2, "more than one log file: {files:?}");
        // A close changes the witness, and with it what the last file must prove by itself; nothing else.
        let begun = if closed { 0 } else { files.len() - 2 };
        for name in files.into_iter().skip(begun) {
            let flips = (0..disk.len_of(&name)).map(|at| (at, if closed { 1 << (at % 8) } else { 0xff }));
            let noticed = flips.filter(|(at, mask)| is_noticed(&disk, &model, &name, *at, *mask)).count();
            let expected = name != witness::NAME;
            assert_eq!(noticed > 0, expected, "{name}: {noticed} flips noticed; one slot of the witness is enough");
        }
    }
}

/// Whether opening notices a flip; if it does not, everything must be there.
fn is_noticed(disk: &SimDisk, model: &Model, name: &str, at: usize, mask: u8) -> bool {
    disk.flip(name, at, mask);
    let names = disk.names();
    let noticed = match recover(disk, &names) {
        Err(_) => true,
        Ok(found) if found.health != Health::Whole => true,
        Ok(found) => {
            assert_eq!((&found.mark, found.tip.next), (&model.mark, model.next), "{name} at {at}, mask {mask:02x}");
            let view = read_only_view(found, &options());
            let records = view.read(model.first..model.next, usize::MAX).unwrap();
            assert!(records.into_iter().eq(model.records.clone()), "{name} at {at}, mask {mask:02x}");
            false
        }
    };
    disk.flip(name, at, mask);
    noticed
}

#[test]
fn damage_under_an_open_log_is_noticed_when_read() {
    let (disk, model) = small_log(true);
    let (log, _, _writer) = open_sim(&disk, false).unwrap();
    for name in kept_files(&disk).iter().filter(|name| name.ends_with(".log")) {
        for at in (0..disk.len_of(name)).step_by(7) {
            disk.flip(name, at, 0x10);
            match read_all(&log, model.first..model.next) {
                Ok(records) => assert_eq!(records, model.records),
                Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
            }
            disk.flip(name, at, 0x10);
        }
    }
}

#[test]
fn damage_before_a_later_batch_is_a_hole() {
    let (disk, _) = small_log(true);
    disk.flip(&name_of(1), BLOCK_LEN + 100, 1);
    let error = open_sim(&disk, false).err().unwrap();
    let Error::Hole { file, offset, batch, proven_batch } = error else { panic!("{error}") };
    assert_eq!((file, offset, batch), (name_of(1), BLOCK_LEN as u64, 0));
    assert!(proven_batch > batch);
}

/// Where the last batch of the last file begins.
fn last_batch(disk: &SimDisk) -> (String, usize) {
    let (_, _, writer) = open_sim(&disk.copy(), false).unwrap();
    let writer = writer.unwrap();
    (name_of(writer.files.current().unwrap().sequence), writer.position - BLOCK_LEN)
}

/// The small log without its last batch, but with its mark.
fn what_is_left(model: &Model) -> Model {
    let mut left = model.clone();
    left.apply(&Op::Truncate(Some(model.next - 3)));
    left
}

#[test]
fn a_log_behind_its_witness_is_read_only_until_the_loss_is_accepted() {
    let (disk, model) = small_log(false);
    let (name, at) = last_batch(&disk);
    disk.flip(&name, at + 60, 0x80);
    for _ in 0..2 {
        let (log, recovery, writer) = open_sim(&disk, false).unwrap();
        assert_eq!(recovery.state, Health::BehindWitness { witnessed_next: model.next });
        assert_eq!((recovery.next_index, &recovery.mark), (model.next - 2, &model.mark));
        assert!(writer.is_none());
        let refused = log.append(recovery.next_index, vec![Bytes::new()], |_| ());
        assert!(matches!(refused, Err(Error::ReadOnly)));
        assert_eq!(contents(&log, &recovery).unwrap(), what_is_left(&model));
    }
    let (log, recovery, mut writer) = open_sim(&disk, true).unwrap();
    assert_eq!(recovery.state, Health::BehindWitness { witnessed_next: model.next });
    log.append(recovery.next_index, vec![Bytes::from_static(b"new")], |_| ()).unwrap();
    writer.as_mut().unwrap().step().unwrap();
    let (log, recovery, _) = open_sim(&disk.copy(), false).unwrap();
    assert_eq!((recovery.state, &recovery.mark), (Health::Whole, &model.mark));
    assert_eq!(log.read(model.next - 2..model.next - 1, 0).unwrap()[0].1, "new");
}

#[test]
fn a_crash_while_a_loss_is_accepted_leaves_the_mark() {
    let (disk, model) = small_log(false);
    let (name, at) = last_batch(&disk);
    disk.flip(&name, at + 60, 0x80);
    for crash_at in 0..20 {
        for loss in LOSSES {
            let mut rng = Rng(crash_at);
            let disk = disk.copy();
            disk.crash_after(crash_at);
            let _ = open_sim(&disk, true);
            let disk = disk.after_crash(loss, &mut rng);
            let (log, recovery, _) = open_sim(&disk, true).unwrap();
            assert_eq!(contents(&log, &recovery).unwrap(), what_is_left(&model), "{crash_at} {loss:?}");
            let (_, recovery, _) = open_sim(&disk, false).unwrap();
            assert_eq!((recovery.state, &recovery.mark), (Health::Whole, &model.mark), "{crash_at} {loss:?}");
        }
    }
}

#[test]
fn a_missing_file_or_witness_is_noticed() {
    let (disk, model) = small_log(true);
    for name in kept_files(&disk) {
        let disk = disk.copy();
        disk.remove(&name).unwrap();
        match open_sim(&disk, false) {
            Ok((_, recovery, _)) if name == witness::NAME => {
                assert_eq!((recovery.state, recovery.next_index), (Health::WitnessLost, model.next));
                assert_eq!(recovery.mark, model.mark);
                let (_, recovery, _) = open_sim(&disk, true).map(|_| open_sim(&disk, false).unwrap()).unwrap();
                assert_eq!((recovery.state, recovery.mark), (Health::Whole, model.mark.clone()));
            }
            Ok((_, recovery, _)) => assert_ne!(recovery.state, Health::Whole, "without {name}"),
            Err(error) => assert!(matches!(error, Error::MissingFile { .. } | Error::Hole { .. }), "{error}"),
        }
    }
    for name in kept_files(&disk).iter().filter(|name| name.ends_with(".log")) {
        disk.remove(name).unwrap();
    }
    let (_, recovery, _) = open_sim(&disk, false).unwrap();
    assert_eq!(recovery.state, Health::BehindWitness { witnessed_next: model.next });
    assert_eq!(recovery.mark, model.mark);
}

#[test]
fn a_file_of_another_log_is_refused() {
    let (disk, _) = small_log(true);
    let names = kept_files(&disk);
    let last = names.iter().filter_map(|name| files::sequence_of(name)).max().unwrap();
    let header = Stamp { log_id: 999, number: u64::from(last), tip: Tip::new(999) };
    disk.open(&name_of(last)).unwrap().write_at(0, &header.encode(&stamp::FILE)).unwrap();
    assert!(matches!(open_sim(&disk, false), Err(Error::Foreign { found: 999, .. })));
}

#[test]
fn a_failed_write_is_fatal_and_acknowledges_nothing() {
    let disk = SimDisk::default();
    let (log, _, writer) = open_sim(&disk, false).unwrap();
    log.start(writer.unwrap()).unwrap();
    disk.crash_after(1);
    let (sender, answers) = std::sync::mpsc::channel();
    log.append(0, vec![Bytes::from_static(b"lost")], move |result| sender.send(result).unwrap()).unwrap();
    assert!(matches!(answers.recv().unwrap(), Err(Error::Closed)));
    log.close();
    assert!(disk.fatal_reason().is_some());
    assert!(matches!(log.append(1, vec![Bytes::new()], |_| ()), Err(Error::Closed)));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (log, _, mut writer) = open_sim(&SimDisk::default(), false).unwrap();
    let append = |at, len| log.append(at, vec![Bytes::from(vec![1; len])], |_| ());
    assert!(matches!(append(1, 1), Err(Error::OutOfOrder { expected: 0, got: 1 })));
    let longest = (16 << 10) - BLOCK_LEN - BATCH_HEADER_LEN - ENTRY_HEADER_LEN;
    assert!(matches!(append(0, longest + 1), Err(Error::TooLong { .. })));
    append(0, longest).unwrap();
    writer.as_mut().unwrap().step().unwrap();
    assert_eq!(log.read(0..1, 0).unwrap()[0].1.len(), longest);
    assert!(matches!(log.read(0..2, 0), Err(Error::OutOfRange { first: 0, next: 1, .. })));
    assert!(matches!(log.purge_before(2, |_| ()), Err(Error::OutOfRange { .. })));
    log.purge_before(1, |_| ()).unwrap();
    assert!(matches!(log.read(0..1, 0), Err(Error::OutOfRange { first: 1, .. })));
    assert!(matches!(log.set_mark(&[0; MARK_MAX_LEN + 1], |_| ()), Err(Error::TooLong { .. })));
}

#[test]
fn purged_files_are_used_again() {
    let disk = SimDisk::default();
    let (log, _, writer) = open_sim(&disk, false).unwrap();
    let mut writer = writer.unwrap();
    for index in 0..50 {
        log.append(index, vec![Bytes::from(vec![index as u8; 5000])], |_| ()).unwrap();
        log.purge_before(index, |_| ()).unwrap();
        writer.step().unwrap();
    }
    let stats = log.stats();
    assert!(stats.files <= 2 && stats.spares <= 1, "{stats:?}");
    assert!(disk.names().len() <= 4, "{:?}", disk.names());
    assert_eq!(log.read(49..50, 0).unwrap()[0].1, vec![49; 5000]);
}

#[test]
fn whatever_the_bytes_decoding_does_not_panic() {
    let (disk, _) = small_log(true);
    let mut rng = Rng(1);
    let file = disk.open(&name_of(1)).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    let whole = decode_records(&bytes).unwrap();
    assert!(!whole.records.is_empty());
    for _ in 0..3000 {
        let mut damaged = bytes[..rng.below(bytes.len() as u64 + 1) as usize].to_vec();
        for _ in 0..rng.below(4).min(damaged.len() as u64) {
            let at = rng.below(damaged.len() as u64) as usize;
            damaged[at] = rng.next() as u8;
        }
        if let Ok(decoded) = decode_records(&damaged) {
            assert!(whole.records.starts_with(&decoded.records), "a whole prefix or nothing");
        }
    }
}

#[test]
fn a_spare_is_filled_in_slices_that_hold_nobody_up() {
    let disk = SimDisk::default();
    let file_len = 5 * spares::FILL_LEN as u64 / 2;
    let spares = Spares::adopt(Arc::new(disk.clone()), file_len, 1, true, &[]).unwrap();
    let name = spares.make().unwrap();
    assert_eq!((disk.len_of(&name) as u64, disk.unsynced_max()), (file_len, spares::FILL_LEN));
    let after = disk.after_crash(Loss::All, &mut Rng(1));
    assert_eq!(after.names(), Vec::<String>::new(), "its name is not durable yet, and need not be");
}

#[test]
fn a_quiet_log_keeps_nothing_in_memory_but_what_is_queued() {
    let mut life = reopen(&SimDisk::default(), &[Model::default()], "new").unwrap();
    let record = |byte| Op::Append(vec![Bytes::from(vec![byte; 100])]);
    life.submit(&record(1)).unwrap();
    life.writer.step().unwrap();
    life.submit(&record(2)).unwrap();
    assert_eq!(life.log.read_cached(0..2, usize::MAX).map(|records| records.len()), Some(2));
    life.writer.rest().unwrap();
    assert_eq!(life.log.read_cached(0..1, usize::MAX), None);
    assert_eq!(life.log.read_cached(1..2, usize::MAX).map(|records| records.len()), Some(1));
    assert_eq!(read_all(&life.log, 0..2).unwrap(), life.states[2].records);
}

/// Real files, real threads: many writers, then a second opening.
#[test]
fn many_writers_share_syncs_on_real_files() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        Options { file_len_bytes: 256 << 10, cache_len_bytes: 10_000, ..Options::new(dir.path().join("log")) };
    let (log, recovery) = Log::open(options.clone()).unwrap();
    assert_eq!((recovery.next_index, recovery.state), (0, Health::Whole));
    append_from_threads(&log, 8, 50, 3000);
    let written = read_all(&log, 0..400).unwrap();
    let stats = log.stats();
    assert_eq!((stats.records, stats.waiters, log.durable_index()), (400, 400, 400));
    assert!(stats.files > 4, "{stats:?}");
    let (sender, done) = std::sync::mpsc::channel();
    log.purge_before(200, move |result| sender.send(result).unwrap()).unwrap();
    done.recv().unwrap().unwrap();
    log.set_mark(b"mark", |_| ()).unwrap();
    drop(log);
    let (log, recovery) = Log::open(options).unwrap();
    assert_eq!((recovery.first_index, recovery.next_index, recovery.mark), (200, 400, b"mark".to_vec()));
    assert_eq!(read_all(&log, 200..400).unwrap(), written.into_iter().skip(200).collect());
}

/// Each of `thread_count` threads appends `count` records, waiting for each to be durable.
fn append_from_threads(log: &Log, thread_count: usize, count: usize, len: usize) {
    let turn = Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..thread_count {
            scope.spawn(|| {
                for _ in 0..count {
                    let (sender, done) = std::sync::mpsc::channel();
                    let turn = lock(&turn);
                    let payload = Bytes::from(vec![log.next_index() as u8; len]);
                    log.append(log.next_index(), vec![payload], move |result| sender.send(result).unwrap()).unwrap();
                    drop(turn);
                    done.recv().unwrap().unwrap();
                }
            });
        }
    });
}

/// The same random operations as on the simulated disk, on real files, the log dropped without a close now and then.
#[test]
fn random_operations_on_real_files() {
    for seed in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { dir: dir.path().to_path_buf(), ..options() };
        let mut rng = Rng(seed);
        let mut model = Model::default();
        for life in 0..4 {
            let disk = Arc::new(RealDisk::new(dir.path()));
            let (log, recovery, writer) = Log::open_on(disk, &options).unwrap();
            assert_eq!(recovery.state, Health::Whole, "seed {seed}, life {life}");
            assert_eq!(contents(&log, &recovery).unwrap(), model, "seed {seed}, life {life}");
            let (acked, states) = (Arc::default(), vec![model]);
            let mut life = Life { log, writer: writer.unwrap(), states, acked };
            assert!(life.live(&mut rng, 20));
            model = life.states.pop().unwrap();
        }
    }
}

/// Group commit on this machine's disk: `cargo test --release -p predastore --lib log::tests::throughput -- --ignored
/// --nocapture`, in the directory TMPDIR names.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    for (thread_count, count) in [(1, 4000), (16, 1500), (64, 800)] {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(Options::new(dir.path())).unwrap();
        let started = std::time::Instant::now();
        append_from_threads(&log, thread_count, count, 4096);
        let seconds = started.elapsed().as_secs_f64();
        let stats = log.stats();
        println!(
            "{thread_count} writers, 4 KiB: {:.0}/s; {:.1} waiters a sync; write and sync {:.0} us mean, {} us at most",
            stats.records as f64 / seconds,
            stats.waiters as f64 / stats.syncs as f64,
            stats.sync_us_sum as f64 / stats.syncs as f64,
            stats.sync_us_max,
        );
    }
}

/// One life of a log whose files are kept: appends of one or more records, until the disk crashes. What was acknowledged.
fn kept_life(disk: &SimDisk, from: u64, acked: &mut BTreeMap<u64, Bytes>, rng: &mut Rng) -> Result<(), Error> {
    let options = Options { kept_from: Some(from), spare_count: 0, ..options() };
    let (log, recovery, writer) = Log::open_on(Arc::new(disk.clone()), &options)?;
    let mut writer = writer.unwrap();
    for (index, record) in acked.range(from..) {
        let found = log.read(*index..index + 1, 1).unwrap_or_else(|error| panic!("record {index}: {error}"));
        assert_eq!(&found[0].1, record, "record {index}");
        assert_eq!(log.locate(*index..index + 1)[0].len_bytes as usize, record.len());
    }
    assert!(acked.last_key_value().is_none_or(|(last, _)| recovery.next_index > *last));
    for _ in 0..8 {
        let records: Vec<Bytes> =
            (0..1 + rng.below(3)).map(|_| rng.below(5000)).map(|len| vec![len as u8; len as usize].into()).collect();
        let first = log.next_index();
        let told = Arc::new(Mutex::new(false));
        let tell = told.clone();
        log.append(first, records.clone(), move |result| *lock(&tell) = result.is_ok())?;
        let crashed = rng.below(3) > 0 && writer.step().is_err();
        if *lock(&told) {
            acked.extend((first..).zip(records));
        }
        if crashed {
            break;
        }
    }
    Ok(())
}

#[test]
fn a_log_whose_files_are_kept_loses_nothing_acknowledged_whenever_the_machine_crashes() {
    for seed in 0..300 {
        let (mut rng, mut disk, mut acked, mut from) = (Rng(seed), SimDisk::default(), BTreeMap::new(), 0);
        for _ in 0..5 {
            disk.crash_after(rng.below(40));
            match kept_life(&disk, from, &mut acked, &mut rng) {
                Err(Error::Io { .. }) | Ok(()) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
            // The owner has indexed some of it meanwhile, at most what is acknowledged.
            from += rng.below(acked.last_key_value().map_or(0, |(last, _)| last + 1).saturating_sub(from) + 1);
            disk = disk.after_crash(LOSSES[rng.below(5) as usize], &mut rng);
        }
        kept_life(&disk, from, &mut acked, &mut rng).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn a_log_whose_files_are_kept_opens_whatever_byte_is_flipped() {
    let (disk, mut acked, mut rng) = (SimDisk::default(), BTreeMap::new(), Rng(5));
    kept_life(&disk, 0, &mut acked, &mut rng).unwrap();
    let disk = disk.copy();
    let options = Options { kept_from: Some(0), spare_count: 0, ..options() };
    for name in disk.names().into_iter().filter(|name| name.ends_with(".log")) {
        for at in (0..disk.len_of(&name)).step_by(5) {
            let copy = disk.copy();
            copy.flip(&name, at, 1 << (at % 8));
            let (log, recovery, _) = Log::open_on(Arc::new(copy), &options).unwrap();
            let is_there = |(index, record): (&u64, &Bytes)| match log.read(*index..index + 1, 1) {
                Ok(found) => {
                    assert_eq!(&found[0].1, record, "{name} at {at}: wrong bytes");
                    true
                }
                Err(_) => false,
            };
            let lost = acked.iter().filter(|entry| !is_there(*entry)).count() as u64;
            // A header of a batch hides at most its batch, one of a file the file.
            assert!(recovery.damaged_records >= lost.min(1), "{name} at {at}: {lost} lost, none noticed");
            assert!(recovery.next_index >= acked.len() as u64);
        }
    }
}

/// A log whose files are kept, on a disk with a reserve of two spares, made here in the place of their thread.
fn kept_sim(disk: &SimDisk, from: u64) -> (Log, Recovery, Writer) {
    let options = Options { kept_from: Some(from), spare_count: 2, ..options() };
    let (log, recovery, writer) = Log::open_on(Arc::new(disk.clone()), &options).unwrap();
    let writer = writer.unwrap();
    while writer.spares.ready_count() < 2 {
        let Ok(name) = writer.spares.make() else { break };
        writer.spares.put_back(name);
    }
    (log, recovery, writer)
}

type Answers = Arc<Mutex<Vec<(u64, Result<(), Error>)>>>;

fn append_and_step(log: &Log, writer: &mut Writer, records: &[Bytes], reserved: bool, answers: &Answers) {
    let (first, tell) = (log.next_index(), answers.clone());
    let done = move |result| lock(&tell).push((first, result));
    match reserved {
        true => log.append_reserved(first, records.to_vec(), done).unwrap(),
        false => log.append(first, records.to_vec(), done).unwrap(),
    }
    writer.step().unwrap();
}

#[test]
fn a_full_disk_fails_the_append_that_meets_it_and_keeps_a_reserve() {
    let (disk, answers) = (SimDisk::default(), Answers::default());
    let (log, _, mut writer) = kept_sim(&disk, 0);
    let mut model = BTreeMap::new();
    disk.limit(Some(0));
    let (large, small) = (Bytes::from(vec![7; 5000]), Bytes::from_static(b"gone"));
    // A file takes one of these; of the two spares one is kept back.
    for index in (0..12).step_by(2) {
        append_and_step(&log, &mut writer, &[large.clone(), large.clone()], false, &answers);
        let full = matches!(lock(&answers).pop().unwrap(), (at, Err(Error::Full)) if at == index);
        assert_eq!(full, index > 0, "the append of {index}");
        if !full {
            model.extend([(index, large.clone()), (index + 1, large.clone())]);
        }
    }
    for _ in 0..2 {
        let index = log.next_index();
        append_and_step(&log, &mut writer, std::slice::from_ref(&small), true, &answers);
        assert!(matches!(lock(&answers).pop().unwrap(), (at, Ok(())) if at == index));
        model.insert(index, small.clone());
        // What is left of the file is not for everybody.
        append_and_step(&log, &mut writer, std::slice::from_ref(&small), false, &answers);
        assert!(matches!(lock(&answers).pop().unwrap().1, Err(Error::Full)));
    }
    // The reserve too comes to an end, and even that is no reason to die.
    let mut refused = 0;
    for _ in 0..6 {
        let index = log.next_index();
        append_and_step(&log, &mut writer, std::slice::from_ref(&large), true, &answers);
        match lock(&answers).pop().unwrap().1 {
            Ok(()) => drop(model.insert(index, large.clone())),
            Err(error) => {
                assert!(matches!(error, Error::Full));
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && disk.fatal_reason().is_none());
    // With room again everybody is served again.
    disk.limit(None);
    let index = log.next_index();
    append_and_step(&log, &mut writer, std::slice::from_ref(&large), false, &answers);
    assert!(lock(&answers).pop().unwrap().1.is_ok());
    model.insert(index, large);
    drop((log, writer));

    let (log, recovery, _writer) = kept_sim(&disk, 0);
    assert_eq!((recovery.damaged_records, recovery.state, recovery.next_index), (0, Health::Whole, index + 1));
    for at in 0..=index {
        let found = log.read(at..at + 1, 1).ok().map(|found| found[0].1.clone());
        assert_eq!(found.as_ref(), model.get(&at), "record {at}");
    }
}

#[test]
fn a_spare_that_cannot_be_made_leaves_nothing_behind() {
    let disk = SimDisk::default();
    disk.limit(Some(20 << 10));
    let spares = Spares::adopt(Arc::new(disk.clone()), 16 << 10, 2, false, &[]).unwrap();
    assert!(spares.replenish());
    assert!(spares.make().is_err());
    assert_eq!(disk.names().len(), 1);
    assert!(spares.release().unwrap() && !spares.release().unwrap());
    assert_eq!(disk.names().len(), 0);
}

/// Some records in a log of several files; the disk as it was left, and what is on it.
fn kept_log() -> (SimDisk, Vec<Bytes>) {
    let (disk, answers) = (SimDisk::default(), Answers::default());
    let (log, _, mut writer) = kept_sim(&disk, 0);
    let records: Vec<Bytes> = (1..=6u8).map(|byte| vec![byte; 5000].into()).collect();
    for record in &records {
        append_and_step(&log, &mut writer, std::slice::from_ref(record), false, &answers);
    }
    writer.finish();
    assert!(disk.names().iter().filter(|name| name.ends_with(".log")).count() > 2);
    (disk.copy(), records)
}

#[test]
fn a_file_without_its_stamp_still_has_its_records() {
    let (disk, records) = kept_log();
    for lost in disk.names().into_iter().filter(|name| name.ends_with(".log")) {
        for without_witness in [false, true] {
            let disk = disk.copy();
            disk.flip(&lost, 70, 0xFF);
            if without_witness {
                disk.remove(witness::NAME).unwrap();
            }
            let mut seen = BTreeMap::new();
            let visit = |index, _: Location, payload: Option<&[u8]>| {
                seen.insert(index, Bytes::copy_from_slice(payload.unwrap()));
            };
            Log::survey(&disk, visit).unwrap();
            assert!(seen.into_values().eq(records.clone()), "{lost}");
            let (log, recovery, _writer) = kept_sim(&disk, 0);
            assert_eq!((recovery.damaged_records, recovery.next_index), (0, 6), "{lost}");
            let read = log.read(0..6, usize::MAX).unwrap();
            assert!(read.into_iter().map(|(_, record)| record).eq(records.clone()), "{lost}");
        }
    }
}

#[test]
fn what_the_disk_cannot_read_is_damaged_and_no_more() {
    let (disk, records) = kept_log();
    for name in disk.names() {
        for at in (0..disk.len_of(&name)).step_by(BLOCK_LEN) {
            let disk = disk.copy();
            disk.make_unreadable(&name, at..at + 1);
            let mut seen = 0;
            Log::survey(&disk, |_, _, payload| seen += usize::from(payload.is_some())).unwrap();
            let (log, recovery, _writer) = kept_sim(&disk, 0);
            let is_there = |index: &u64| match log.read(*index..index + 1, 1) {
                Ok(found) => {
                    assert_eq!(found[0].1, records[*index as usize]);
                    true
                }
                Err(_) => false,
            };
            let there = (0..6).filter(is_there).count();
            assert!(there >= 5 && seen >= 5, "{name} at {at}: {there} records are left, {seen} seen");
            assert_eq!(recovery.damaged_records > 0, there < 6, "{name} at {at}");
        }
    }
}
