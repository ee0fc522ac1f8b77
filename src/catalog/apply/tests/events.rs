//! Events: who hears all of them knows at each moment which keys there are.
//!
//! The writers are those of the clones' test: both protocols, versions, sessions that end, prefixes that are copied.
//! `PREDASTORE_TEST_CASES` says how many cases, `PREDASTORE_TEST_SEED` which comes first.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::clones::{Case, tree_of, world};
use super::*;
use crate::catalog::event::EVENT_COUNT_MAX;
use crate::catalog::{Event, FileOperation, Happening, NewInode, Posix, Setting};
use crate::ids::{SEQS_PER_COMMAND, Seq};

const CASES: u64 = 60;
const STEPS: usize = 250;

impl World {
    fn tell(&mut self, bucket: BucketId) {
        let value = Some(Bytes::from_static(b"rules"));
        let set = Command::SetBucket { bucket, setting: Setting::Notification, value };
        assert_eq!(self.send(set), Outcome::Done);
    }

    /// Makes a file that S3 sees once it is written.
    fn make_hidden(&mut self, session: SessionId, bucket: BucketId, name: &str) {
        let lease = self.envelope(session, 0, Command::LeaseIds { count: 1 });
        let Outcome::Ids { start: ino, .. } = self.apply(lease) else { panic!("no id") };
        let at = Timestamp(0);
        let posix = Posix { mode: 0o100_644, uid: 1, gid: 1, rdev: 0, mtime: at, ctime: at, atime: at };
        let new = NewInode { ino, posix, target: Bytes::new(), is_hidden: true };
        let make = FileOperation::Make { parent: bucket.root(), name: Bytes::copy_from_slice(name.as_bytes()), new };
        self.ask(session, bucket, make);
    }

    fn events(&self, after: Seq) -> Vec<(Seq, BucketId, Event)> {
        self.catalog.view().events(after, usize::MAX >> 1).unwrap()
    }
}

/// Who hears events, of one bucket.
#[derive(Default)]
struct Listener {
    keys: BTreeSet<Vec<u8>>,
    /// What was in directories that are being renamed.
    moving: BTreeMap<Ino, Vec<Vec<u8>>>,
}

impl Listener {
    /// `found`: the keys that there are, of which a copied prefix is read.
    fn hear(&mut self, event: &Event, found: &BTreeSet<Vec<u8>>) {
        let key = event.key.clone();
        match &event.what {
            Happening::Put | Happening::Copied | Happening::Completed => drop(self.keys.insert(key)),
            // Of a version that is not the newest: another one may show itself.
            Happening::Deleted if event.version.is_some() && found.contains(&key) => {}
            Happening::Deleted | Happening::Marked => drop(self.keys.remove(&key)),
            Happening::Left { directory } => {
                let left = self.keys.iter().filter_map(|at| Some(at.strip_prefix(&key[..])?.to_vec())).collect();
                self.keys.retain(|at| !at.starts_with(&key));
                self.moving.insert(*directory, left);
            }
            Happening::Came { directory } => {
                let came = self.moving.remove(directory).expect("it left before");
                self.keys.extend(came.into_iter().map(|below| [&key[..], &below].concat()));
            }
            Happening::CopiedPrefix => {
                self.keys.extend(found.iter().filter(|at| at.starts_with(&key)).cloned());
            }
            Happening::DeletedPrefix => self.keys.retain(|at| !at.starts_with(&key)),
        }
    }
}

fn keys_of(world: &World, bucket: BucketId) -> BTreeSet<Vec<u8>> {
    tree_of(world, bucket, b"").into_keys().filter(|key| !key.ends_with(b" (directory)")).collect()
}

fn run(seed: u64) -> usize {
    let mut case = Case::new(seed);
    for bucket in case.buckets {
        case.world.tell(bucket);
    }
    let mut listeners = case.buckets.map(|bucket| (bucket, Listener::default()));
    let (mut after, mut event_count) = (Seq(0), 0);
    for step in 0..STEPS {
        case.step();
        for (bucket, listener) in &mut listeners {
            let found = keys_of(&case.world, *bucket);
            let events = case.world.events(after);
            for (_, _, event) in events.iter().filter(|(_, at, _)| at == bucket) {
                listener.hear(event, &found);
                event_count += 1;
            }
            let shown = |keys: &BTreeSet<Vec<u8>>| -> Vec<String> {
                keys.iter().map(|key| key.escape_ascii().to_string()).collect()
            };
            let told: Vec<_> = events.iter().map(|(_, _, event)| event).collect();
            assert_eq!(shown(&listener.keys), shown(&found), "step {step}, told: {told:#?}");
        }
        after = case.world.events(after).last().map_or(after, |(seq, ..)| *seq);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut again = open(&dir);
    for batch in case.world.log.chunks(37) {
        again.apply(batch).unwrap();
    }
    assert_eq!(dump(&again), dump(&case.world.catalog));
    event_count
}

#[test]
fn who_hears_all_knows_what_there_is() {
    let number = |name: &str, or: u64| std::env::var(name).ok().map_or(or, |text| text.parse().unwrap());
    let (cases, first) = (number("PREDASTORE_TEST_CASES", CASES), number("PREDASTORE_TEST_SEED", 1));
    let mut event_count = 0;
    for seed in first..first + cases {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(count) => event_count += count,
            Err(_) => panic!("PREDASTORE_TEST_SEED={seed} PREDASTORE_TEST_CASES=1 fails"),
        }
    }
    assert!(event_count as u64 > 50 * cases, "{event_count} events in {cases} cases");
}

#[test]
fn only_buckets_that_tell_are_heard_and_not_before_all_know_how() {
    let mut old = World::new();
    let bucket = old.bucket("b", Versioning::Never);
    old.tell(bucket);
    old.put(bucket, "a", 5);
    assert_eq!(old.events(Seq(0)), []);
    assert!(matches!(old.refusal(Command::ClaimEvents { from: SessionId(0) }), Refusal::OutOfBounds(_)));

    let mut world = world();
    let (told, quiet) = (world.bucket("b", Versioning::Enabled), world.bucket("q", Versioning::Never));
    world.put(told, "before", 5);
    world.tell(told);
    let written = world.put(told, "a", 5);
    world.put(quiet, "a", 5);
    world.delete(told, "a", None);
    let events = world.events(Seq(0));
    let [(first, bucket, came), (_, _, marked)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((*bucket, &came.what, came.key.as_slice()), (told, &Happening::Put, &b"a"[..]));
    assert_eq!((came.version, came.size_bytes, came.etag), (Some(written.version), 5, Some(etag(5))));
    assert_eq!((&marked.what, marked.etag), (&Happening::Marked, None));
    assert_ne!(marked.version, came.version);
    assert_eq!(world.events(*first).len(), 1);
    let unset = Command::SetBucket { bucket: told, setting: Setting::Notification, value: None };
    assert_eq!(world.send(unset), Outcome::Done);
    world.put(told, "after", 5);
    assert_eq!(world.events(Seq(0)).len(), 2);
}

#[test]
fn one_session_delivers_and_another_takes_over() {
    let mut world = world();
    let bucket = world.bucket("b", Versioning::Never);
    world.tell(bucket);
    for number in 0..5 {
        world.put(bucket, &format!("{number}"), 5);
    }
    let events = world.events(Seq(0));
    let delivered = |through: usize| Command::EventsDelivered { through: events[through].0 };
    assert_eq!(world.refusal(delivered(0)), Refusal::RecordChanged);
    let other = world.open_session("other");
    let claim = |from: SessionId| Command::ClaimEvents { from };
    let speak = |world: &mut World, session, command| world.apply(world.envelope(session, 0, command));
    assert_eq!(speak(&mut world, other, claim(SessionId(0))), Outcome::Done);
    assert_eq!(world.refusal(claim(SessionId(0))), Refusal::RecordChanged);
    assert_eq!(world.refusal(claim(other)), Refusal::RecordChanged);
    assert_eq!(speak(&mut world, other, delivered(1)), Outcome::Done);
    assert_eq!(world.events(Seq(0)), events[2..]);
    let expire = Command::ExpireSession { session: other, renewals: 0 };
    world.apply(world.envelope(SessionId(0), 0, expire));
    assert_eq!(world.catalog.view().event_deliverer().unwrap(), (other, false));
    assert_eq!(world.send(claim(other)), Outcome::Done);
    assert_eq!(world.catalog.view().event_deliverer().unwrap(), (world.session, true));
    assert_eq!(world.send(delivered(4)), Outcome::Done);
    assert_eq!(world.events(Seq(0)), []);
}

#[test]
fn what_does_not_fit_is_counted() {
    let mut world = world();
    let bucket = world.bucket("b", Versioning::Never);
    world.tell(bucket);
    world.put(bucket, "a", 5);
    // As many as may wait; the writer counts them when it has not yet.
    let fill = format!(
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<{}) INSERT INTO outbox
            SELECT -i, bucket, event FROM n, (SELECT bucket, event FROM outbox LIMIT 1)",
        EVENT_COUNT_MAX - 1
    );
    world.catalog.store.connection().execute_batch(&fill).unwrap();
    world.catalog = reopened(world.catalog, &world.dir);
    world.put(bucket, "b", 5);
    world.put(bucket, "c", 5);
    assert_eq!(world.catalog.view().lost_event_count().unwrap(), 2);
    assert_eq!(world.send(Command::ClaimEvents { from: SessionId(0) }), Outcome::Done);
    let delivered = Command::EventsDelivered { through: Seq(0) };
    assert_eq!(world.send(delivered), Outcome::Done);
    world.put(bucket, "d", 5);
    assert_eq!(world.catalog.view().lost_event_count().unwrap(), 2);
    assert_eq!(world.events(Seq(0)).len(), 2);
}

#[test]
fn a_session_may_end_with_more_files_than_a_command_can_number() {
    let mut world = world();
    let bucket = world.bucket("b", Versioning::Never);
    world.tell(bucket);
    let session = world.open_session("other");
    world.ask(session, bucket, FileOperation::Mount);
    let extra_count = 20;
    for number in 0..SEQS_PER_COMMAND + extra_count {
        world.make_hidden(session, bucket, &number.to_string());
    }
    assert_eq!(world.events(Seq(0)), []);
    world.apply(world.envelope(SessionId(0), 0, Command::ExpireSession { session, renewals: 0 }));
    world.put(bucket, "behind", 5);
    assert_eq!(world.events(Seq(0)).len() as u64, SEQS_PER_COMMAND + 1);
    assert_eq!(world.catalog.view().lost_event_count().unwrap(), extra_count);
}

#[test]
fn an_unmount_tells_of_its_own_bucket_only() {
    let mut world = world();
    let (kept, gone) = (world.bucket("kept", Versioning::Never), world.bucket("gone", Versioning::Never));
    let session = world.session;
    for bucket in [kept, gone] {
        world.tell(bucket);
        world.ask(session, bucket, FileOperation::Mount);
        world.make_hidden(session, bucket, "file");
    }
    world.ask(session, gone, FileOperation::Unmount { is_last: true });
    let told: Vec<BucketId> = world.events(Seq(0)).into_iter().map(|(_, bucket, _)| bucket).collect();
    assert_eq!(told, [gone]);
}

fn reopened(catalog: Catalog, dir: &TempDir) -> Catalog {
    catalog.close().unwrap();
    open(dir)
}
