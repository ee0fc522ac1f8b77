//! Locks, against a model that knows of each byte who has it. `PREDASTORE_TEST_CASES` says how many cases,
//! `PREDASTORE_TEST_SEED` which comes first.

use std::collections::BTreeMap;
use std::ops::Range;

use super::*;
use crate::catalog::list::tests::Random;
use crate::catalog::{FEATURE_LEVEL, FileOperation, LOCK_END, Lock, Notice, Origin};

const CASES: u64 = 60;
const STEPS: usize = 60;
const BYTES: usize = 12;
const INODES: u64 = 2;

/// Who can lock: a mount, and an owner in it.
type Owner = (u64, u64);

/// Of each byte of an inode: whether an owner has it exclusively.
type Bytewise = BTreeMap<(u64, Owner), [Option<bool>; BYTES]>;

fn world() -> (World, BucketId, [SessionId; 2]) {
    let mut world = World::new();
    assert_eq!(world.send(Command::RaiseLevel { to: FEATURE_LEVEL }), Outcome::Done);
    let bucket = world.bucket("b", Versioning::Never);
    let sessions = [world.session, world.open_session("other")];
    (world, bucket, sessions)
}

impl World {
    fn file(&mut self, bucket: BucketId, (session, mount): (SessionId, u64), operation: FileOperation) -> Outcome {
        let origin = Origin { mount, ..Origin::default() };
        self.apply(self.envelope(session, 0, Command::File { bucket, origin, operation }))
    }
}

fn lock_of(owner: u64, range: Range<u64>, is_exclusive: bool) -> Lock {
    Lock { owner, start_bytes: range.start, end_bytes: range.end, is_exclusive, opened: 1 << 40, pid: 7 }
}

fn lock(ino: u64, owner: u64, range: Range<u64>, is_exclusive: bool) -> FileOperation {
    FileOperation::Lock { ino: Ino(ino), lock: lock_of(owner, range, is_exclusive) }
}

fn unlock(ino: u64, owner: u64, range: Range<u64>) -> FileOperation {
    FileOperation::Unlock { ino: Ino(ino), owner, start_bytes: range.start, end_bytes: range.end }
}

/// The last byte of the model stands for all that follow.
fn real(range: &Range<usize>) -> Range<u64> {
    range.start as u64..if range.end == BYTES { LOCK_END } else { range.end as u64 }
}

fn is_held(model: &Bytewise, ino: u64, by: Owner, range: &Range<usize>, is_exclusive: bool) -> bool {
    let others = model.iter().filter(|((of, owner), _)| *of == ino && *owner != by);
    others.flat_map(|(_, bytes)| &bytes[range.clone()]).flatten().any(|had| *had || is_exclusive)
}

/// What the rows of the table must be.
fn rows_of(model: &Bytewise) -> Vec<String> {
    let mut rows = Vec::new();
    for ((ino, (mount, owner)), bytes) in model {
        let mut at = 0;
        while at < BYTES {
            let end = (at..BYTES).find(|next| bytes[*next] != bytes[at]).unwrap_or(BYTES);
            if let Some(is_exclusive) = bytes[at] {
                let Range { start, end } = real(&(at..end));
                rows.push(format!("{ino}|{mount}|{}|{start}|{end}|{}", *owner as i64, u8::from(is_exclusive)));
            }
            at = end;
        }
    }
    rows.sort();
    rows
}

fn agree(seed: u64) {
    let mut random = Random(seed);
    let (mut world, bucket, mut sessions) = world();
    let mut model = Bytewise::new();
    for step in 0..STEPS {
        let (ino, mount) = (1 + random.next() % INODES, 1 + random.next() % 3);
        let gateway = usize::from(mount == 3);
        let (by, from) = ((mount, [5, u64::MAX][random.below(2)]), (sessions[gateway], mount));
        let start = random.below(BYTES);
        let range = start..start + 1 + random.below(BYTES - start);
        let said = format!("seed {seed}, step {step}: inode {ino}, {by:?}, {range:?}");
        match random.below(20) {
            0..9 => {
                let is_exclusive = random.below(2) == 0;
                let wanted = lock_of(by.1, real(&range), is_exclusive);
                let held = is_held(&model, ino, by, &range, is_exclusive);
                let way = world.catalog.view().lock_in_the_way(Ino(ino), mount, &wanted).unwrap();
                assert_eq!(way.is_some(), held, "{said}");
                let outcome = world.file(bucket, from, lock(ino, by.1, real(&range), is_exclusive));
                let expected = if held { Outcome::Refused(Refusal::LockHeld) } else { Outcome::Done };
                assert_eq!(outcome, expected, "{said}");
                if !held {
                    model.entry((ino, by)).or_insert([None; BYTES])[range].fill(Some(is_exclusive));
                }
            }
            9..17 => {
                assert_eq!(world.file(bucket, from, unlock(ino, by.1, real(&range))), Outcome::Done);
                model.entry((ino, by)).and_modify(|bytes| bytes[range].fill(None));
            }
            17 => {
                let end = FileOperation::Unmount { is_last: false };
                assert_eq!(world.file(bucket, from, end), Outcome::Done);
                model.retain(|(_, (of, _)), _| *of != mount);
            }
            18 => {
                // The next process of the same gateway has what this one had.
                let name = ["gateway", "other"][gateway];
                sessions[gateway] = world.open_session(name);
            }
            _ => {
                let expire = Command::ExpireSession { session: sessions[gateway], renewals: 0 };
                assert_eq!(world.apply(world.envelope(SessionId(0), 0, expire)), Outcome::Done);
                sessions[gateway] = world.open_session(["gateway", "other"][gateway]);
                model.retain(|(_, (of, _)), _| (*of == 3) != (gateway == 1));
            }
        }
        let mut rows = world.rows("SELECT ino, mount, owner, start, end, exclusive FROM lock");
        rows.sort();
        assert_eq!(rows, rows_of(&model), "{said}");
    }
    assert_eq!(world.catalog.view().contradictions(10), Vec::<String>::new(), "seed {seed}");
}

#[test]
fn locks_are_what_a_bytewise_model_says() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, count) = (number("PREDASTORE_TEST_SEED", 1), number("PREDASTORE_TEST_CASES", CASES));
    println!("PREDASTORE_TEST_SEED={first}");
    (first..first + count).for_each(agree);
}

#[test]
fn who_unlocks_or_ends_is_told_of_to_who_waits() {
    let (mut world, bucket, [session, _]) = world();
    let mut heard = world.catalog.readers().changes().listen();
    let mut told = |world: &mut World, operation| {
        assert_eq!(world.file(bucket, (session, 1), operation), Outcome::Done);
        let next = futures::FutureExt::now_or_never(heard.next());
        next.flatten().map(|batch| batch.notices.to_vec())
    };
    let freed = || Some(vec![Notice::Unlocked(Ino(9))]);
    assert_eq!(told(&mut world, lock(9, 5, 0..10, true)), None);
    assert_eq!(told(&mut world, unlock(9, 6, 0..LOCK_END)), None, "of another owner, who has nothing");
    assert_eq!(told(&mut world, lock(9, 5, 0..4, false)), freed(), "some of it is shared now");
    assert_eq!(told(&mut world, unlock(9, 5, 2..3)), freed());
    assert_eq!(told(&mut world, FileOperation::Unmount { is_last: false }), freed());
    assert_eq!(told(&mut world, lock(9, 5, 0..4, false)), None);
    let expire = Command::ExpireSession { session, renewals: 0 };
    world.apply(world.envelope(SessionId(0), 0, expire));
    let batch = futures::FutureExt::now_or_never(heard.next()).flatten().unwrap();
    assert_eq!(batch.notices[0], Notice::Unlocked(Ino(9)));
}

#[test]
fn locks_have_bounds() {
    let (mut world, bucket, [session, _]) = world();
    let mut send = |operation| world.file(bucket, (session, 1), operation);
    for range in [4..4, 0..LOCK_END + 1] {
        assert!(matches!(send(lock(9, 5, range.clone(), true)), Outcome::Refused(Refusal::OutOfBounds(_))));
        assert!(matches!(send(unlock(9, 5, range)), Outcome::Refused(Refusal::OutOfBounds(_))));
    }
    for nth in 0..1024 {
        assert_eq!(send(lock(9, 5, nth * 2..nth * 2 + 1, true)), Outcome::Done);
    }
    assert_eq!(send(lock(9, 5, 5000..5001, true)), Outcome::Refused(Refusal::TooManyLocks));
    assert_eq!(send(lock(9, 5, 0..5000, true)), Outcome::Done, "they become one");
    assert_eq!(world.rows("SELECT start, end FROM lock"), ["0|5000"]);
}
