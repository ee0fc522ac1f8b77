//! Crashes, snapshots, installs: against real files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::cell::RefCell;
use std::path::Path;
use std::process::Command as Process;
use std::rc::Rc;

use tempfile::TempDir;

use super::*;
use crate::catalog::apply::tests::{World, dump, open, options};
use crate::catalog::{Catalog, Entry, LogIndex, Position, Versioning};

/// What a crash leaves: the files as they are, read by a process of its own (see the module's invariants).
fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    let status = Process::new("cp").arg("-r").arg(from.join(".")).arg(to.path()).status().unwrap();
    assert!(status.success());
    to
}

type Look = Box<dyn FnMut()>;

thread_local! {
    /// What is done between two steps, in this thread.
    static LOOK: RefCell<Option<Look>> = const { RefCell::new(None) };
}

pub(super) fn between_steps() {
    LOOK.with_borrow_mut(|look| look.iter_mut().for_each(|look| look()));
}

fn small_world() -> World {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Enabled);
    for number in 0..40 {
        world.put(bucket, &format!("d{}/k{}", number % 3, number % 7), number + 1);
        world.delete(bucket, &format!("d{}/k{}", number % 2, number % 5), None);
    }
    world
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn a_copy_at_any_commit_reopens_there_and_goes_on() {
    let world = small_world();
    let dir = tempfile::tempdir().unwrap();
    let mut catalog = open(&dir);
    for (applied, batch) in world.log.chunks(9).enumerate() {
        catalog.apply(batch).unwrap();
        if applied % 4 == 3 {
            assert_eq!(catalog.sync().unwrap(), catalog.applied().position);
        }
        let crashed = copy(dir.path());
        let mut reopened = open(&crashed);
        assert_eq!(reopened.applied(), catalog.applied());
        assert_eq!(dump(&reopened), dump(&catalog));
        let index = reopened.applied().position.unwrap().index;
        let rest: Vec<(Position, Entry)> = world.log.iter().filter(|(at, _)| at.index > index).cloned().collect();
        reopened.apply(&rest).unwrap();
        assert_eq!(dump(&reopened), dump(&world.catalog));
    }
}

#[test]
fn a_torn_wal_ends_at_a_commit() {
    let world = small_world();
    let dir = tempfile::tempdir().unwrap();
    let mut catalog = open(&dir);
    let mut states = vec![dump(&catalog)];
    for batch in world.log.chunks(30) {
        catalog.apply(batch).unwrap();
        states.push(dump(&catalog));
    }
    let wal = "state-1/fsm.db-wal";
    let len_bytes = std::fs::metadata(dir.path().join(wal)).unwrap().len();
    for step in 0..=20 {
        let crashed = copy(dir.path());
        let file = File::options().write(true).open(crashed.path().join(wal)).unwrap();
        file.set_len(len_bytes * step / 20).unwrap();
        std::fs::remove_file(crashed.path().join("state-1/fsm.db-shm")).unwrap();
        let reopened = open(&crashed);
        let at = states.iter().position(|state| *state == dump(&reopened)).expect("a state that was committed");
        let applied = reopened.applied().position.map_or(0, |position| position.index as usize);
        assert_eq!(applied, (at * 30).min(world.log.len()));
    }
}

#[test]
fn entries_come_once_and_in_order_and_an_error_is_final() {
    let world = small_world();
    let dir = tempfile::tempdir().unwrap();
    let mut catalog = open(&dir);
    assert_eq!(catalog.apply(&[]).unwrap(), []);
    assert_eq!(catalog.applied().position, None);
    catalog.apply(&world.log[..5]).unwrap();
    let before = dump(&catalog);
    assert!(matches!(catalog.apply(&world.log[4..8]), Err(Error::Inconsistent(_))));
    assert!(matches!(catalog.apply(&world.log[5..8]), Err(Error::Inconsistent(_))), "the first error was final");
    drop(catalog);
    assert_eq!(dump(&open(&dir)), before);
}

#[test]
fn membership_and_position_survive() {
    let dir = tempfile::tempdir().unwrap();
    let mut catalog = open(&dir);
    let at = |index| Position { term: 3, leader: 2, index };
    let entries = [(at(0), Entry::Membership(b"first".to_vec())), (at(1), Entry::Blank)];
    assert_eq!(catalog.apply(&entries).unwrap().len(), 2);
    for _ in 0..2 {
        assert_eq!(catalog.applied().position, Some(at(1)));
        assert_eq!(catalog.applied().membership, b"first");
        drop(catalog);
        catalog = open(&dir);
    }
    catalog.apply(&[(at(7), Entry::Membership(b"second".to_vec()))]).unwrap();
    assert_eq!(catalog.applied(), open_applied(&dir).as_ref().unwrap());
}

fn open_applied(dir: &TempDir) -> Option<crate::catalog::Applied> {
    let crashed = copy(dir.path());
    Some(open(&crashed).applied().clone())
}

#[test]
fn queries_see_all_that_was_applied_before_them() {
    let mut world = small_world();
    let readers = world.catalog.readers();
    let bucket = world.bucket("c", Versioning::Never);
    for _ in 0..50 {
        world.put(bucket, "k", 1);
        let index = world.log.last().unwrap().0.index;
        assert_eq!(block_on(readers.read(|view| view.applied_index())).unwrap(), LogIndex(index));
    }
    let panicking = block_on(readers.read(|_| -> Result<(), Error> { panic!("as a test asks") }));
    assert!(matches!(panicking, Err(Error::Closed)));
    assert!(block_on(readers.read(|view| view.applied_index())).is_ok(), "the thread lives on");
}

#[test]
fn a_snapshot_is_the_whole_state_and_replaces_another() {
    let source = small_world();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("snapshot");
    for _ in 0..2 {
        assert_eq!(source.catalog.readers().snapshot(&file).unwrap(), *source.catalog.applied());
    }

    let mut target = World::new();
    target.bucket("other", Versioning::Never);
    let readers = target.catalog.readers();
    target.catalog.install(&file).unwrap();
    assert_eq!(dump(&target.catalog), dump(&source.catalog));
    assert_eq!(target.catalog.applied(), source.catalog.applied());
    let index = LogIndex(source.catalog.applied().position.unwrap().index);
    assert_eq!(block_on(readers.read(|view| view.applied_index())).unwrap(), index, "readers see it at once");
    target.catalog.install(&file).unwrap();

    let World { dir, catalog, .. } = target;
    drop(catalog);
    assert_eq!(dump(&open(&dir)), dump(&source.catalog));
    let mut names: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["CURRENT", "state-3"]);
}

#[test]
fn a_damaged_snapshot_is_refused_and_changes_nothing() {
    let mut world = small_world();
    let before = dump(&world.catalog);
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("snapshot");
    world.catalog.readers().snapshot(&file).unwrap();
    let whole = std::fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let (half, last) = (whole.len() / 2, whole.len() - 1);
    for bytes in [Vec::new(), whole[..last].to_vec(), whole[1..].to_vec(), flipped(half), flipped(last)] {
        std::fs::write(&file, bytes).unwrap();
        assert!(matches!(world.catalog.install(&file), Err(Error::Inconsistent(_))));
        assert_eq!(dump(&world.catalog), before);
    }
    std::fs::write(&file, whole).unwrap();
    world.catalog.install(&file).unwrap();
    assert_eq!(dump(&world.catalog), before);
}

#[test]
fn an_install_cut_at_any_step_leaves_one_of_the_two_states() {
    let source = small_world();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("snapshot");
    source.catalog.readers().snapshot(&file).unwrap();
    let (new, old) = (dump(&source.catalog), dump(&World::new().catalog));

    // Half received.
    let world = World::new();
    std::fs::create_dir(current::new_dir(world.dir.path(), 2)).unwrap();
    std::fs::write(current::new_dir(world.dir.path(), 2).join(DATABASE), b"half").unwrap();
    assert_eq!(dump(&open(&copy(world.dir.path()))), old);

    // Received, not current; then the switch prepared; then made.
    let prepared = world.catalog.store.prepare(&file).unwrap();
    assert_eq!(dump(&open(&copy(world.dir.path()))), old);
    std::fs::write(world.dir.path().join("CURRENT.new"), b"predas").unwrap();
    assert_eq!(dump(&open(&copy(world.dir.path()))), old);
    current::write(world.dir.path(), prepared.number).unwrap();
    let crashed = copy(world.dir.path());
    assert_eq!(dump(&open(&crashed)), new);
    assert!(!current::state_dir(crashed.path(), 1).exists());
}

/// R: each installed state lies in a directory of its own, and a pointer is switched.
#[test]
fn an_install_killed_between_any_two_steps_leaves_one_of_the_two_states() {
    let (source, mut target) = (small_world(), World::new());
    // What stands in the WAL of the state before must not be replayed into what is installed.
    let bucket = target.bucket("other", Versioning::Never);
    for number in 0..20 {
        target.put(bucket, &format!("k{number}"), number + 1);
    }
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("snapshot");
    source.catalog.readers().snapshot(&file).unwrap();
    let World { dir, mut catalog, .. } = target;
    let (old, new) = (dump(&catalog), dump(&source.catalog));

    let crashes = Rc::new(RefCell::new(Vec::new()));
    let (noted, path) = (crashes.clone(), dir.path().to_owned());
    LOOK.set(Some(Box::new(move || noted.borrow_mut().push(copy(&path)))));
    catalog.install(&file).unwrap();
    LOOK.set(None);

    let is_new = |crashed: &TempDir| {
        let mut reopened = open(crashed);
        let found = dump(&reopened);
        assert!(found == old || found == new, "neither of the two");
        let next = reopened.applied().position.unwrap().index + 1;
        reopened.apply(&[(Position { term: 9, leader: 9, index: next }, Entry::Blank)]).unwrap();
        found == new
    };
    let crashes: Vec<bool> = crashes.borrow().iter().map(is_new).collect();
    assert!(crashes.len() >= 10 && !crashes[0] && crashes[crashes.len() - 1] && crashes.is_sorted(), "{crashes:?}");
}

#[test]
fn a_catalog_that_was_never_used_is_made_again_and_a_used_one_never_is() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(current::new_dir(dir.path(), 1)).unwrap();
    drop(open(&dir));
    std::fs::remove_file(dir.path().join("CURRENT")).unwrap();
    drop(open(&dir));
    assert_eq!(std::fs::read_to_string(dir.path().join("CURRENT")).unwrap(), "predastore catalog 1: state-1\n");
    std::fs::remove_file(dir.path().join("CURRENT")).unwrap();
    std::fs::create_dir(current::state_dir(dir.path(), 2)).unwrap();
    assert!(matches!(Catalog::open(dir.path(), options()), Err(Error::Inconsistent(_))));
    std::fs::write(dir.path().join("CURRENT"), "state-1").unwrap();
    assert!(matches!(Catalog::open(dir.path(), options()), Err(Error::Undecodable { .. })));
}

#[test]
fn a_state_without_the_tables_that_came_later_gets_them() {
    let world = small_world();
    let drop_tables = "DROP TABLE map";
    let database = |dir: &TempDir, number| current::state_dir(dir.path(), number).join(DATABASE);
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("snapshot");
    world.catalog.store.connection().execute_batch(drop_tables).unwrap();
    world.catalog.readers().snapshot(&file).unwrap();
    assert_eq!(verify_snapshot(&file).unwrap(), *world.catalog.applied());

    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    Connection::open(database(&dir, 1)).unwrap().execute_batch(drop_tables).unwrap();
    let mut catalog = open(&dir);
    assert_eq!(catalog.view().map().unwrap(), None, "opened");
    catalog.install(&file).unwrap();
    assert_eq!(catalog.view().map().unwrap(), None, "installed");
    assert_eq!(block_on(catalog.readers().read(|view| view.map())).unwrap(), None);
    assert_eq!(catalog.view().contradictions(3), Vec::<String>::new());
}

#[test]
fn a_later_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    let database = current::state_dir(dir.path(), 1).join(DATABASE);
    Connection::open(&database).unwrap().execute("UPDATE state SET format=2", []).unwrap();
    assert!(matches!(Catalog::open(dir.path(), options()), Err(Error::Format { found: 2, known: 1 })));
}

#[test]
fn a_later_feature_level_is_refused() {
    let knowing = |feature_level| Options { feature_level, ..options() };
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = files.path().join("snapshot");
    let mut later = Catalog::open(dir.path(), knowing(FEATURE_LEVEL + 1)).unwrap();
    let command = crate::catalog::Command::RaiseLevel { to: FEATURE_LEVEL + 1 };
    let envelope = World::new().envelope(crate::ids::SessionId(0), 0, command);
    later.apply(&[(Position { term: 1, leader: 1, index: 1 }, Entry::Command(envelope))]).unwrap();
    later.readers().snapshot(&file).unwrap();
    drop(later);
    let refused =
        |error| matches!(error, Err(Error::Level { found, known: FEATURE_LEVEL }) if found == FEATURE_LEVEL + 1);
    assert!(refused(Catalog::open(dir.path(), options()).map(drop)), "opened");
    assert!(Catalog::open(dir.path(), knowing(FEATURE_LEVEL + 2)).is_ok());

    let mut world = small_world();
    let before = dump(&world.catalog);
    assert!(refused(world.catalog.install(&file)), "installed");
    assert_eq!(dump(&world.catalog), before);
    assert_eq!(std::fs::read_dir(world.dir.path()).unwrap().count(), 2, "something is left of it");
    world.bucket("it goes on", Versioning::Never);
}

#[test]
fn checkpoints_keep_the_wal_short() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), options()).unwrap();
    store.connection().execute_batch("CREATE TABLE bulk(id INTEGER PRIMARY KEY, data BLOB)").unwrap();
    let reader = Connection::open(store.database()).unwrap();
    reader.execute_batch("BEGIN; SELECT COUNT(*) FROM bulk").unwrap();
    let fill = "INSERT INTO bulk(data) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<4096)
        SELECT zeroblob(4000) FROM n";
    for _ in 0..3 {
        store.connection().execute_batch(fill).unwrap();
        store.after_commit().unwrap();
    }
    store.sync().unwrap();
    assert!(checkpoint::wal_pages(store.connection()).unwrap().1 > 12_000, "a reader needs them");
    reader.execute_batch("COMMIT").unwrap();
    // The thread may be at it still, and only one checkpoint runs at a time.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while checkpoint::wal_pages(store.connection()).unwrap().1 > 0 {
        assert!(std::time::Instant::now() < deadline, "the WAL stays long");
        store.sync().unwrap();
    }
}

/// Writers that never rest, beside readers that do.
#[test]
fn a_wal_does_not_grow_for_ever_under_load() {
    const MIB: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), options()).unwrap();
    store.connection().execute_batch("CREATE TABLE bulk(id INTEGER PRIMARY KEY, data BLOB)").unwrap();
    let fill = "INSERT OR REPLACE INTO bulk(id, data) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500)
        SELECT i, randomblob(4000) FROM n";
    let reader = Connection::open(store.database()).unwrap();
    let wal = dir.path().join("state-1/fsm.db-wal");
    let mut longest = 0;
    for _ in 0..600 {
        store.connection().execute_batch(fill).unwrap();
        store.after_commit().unwrap();
        let _: i64 = reader.query_row("SELECT max(id) FROM bulk", [], |row| row.get(0)).unwrap();
        longest = longest.max(std::fs::metadata(&wal).unwrap().len());
    }
    // As far as a disk lags that takes less than is written.
    assert!(longest < 600 * MIB, "a WAL of {} MiB after 1200", longest / MIB);
}

#[test]
fn a_closed_catalog_has_no_wal_and_nothing_open() {
    let world = small_world();
    let dir = tempfile::tempdir().unwrap();
    let mut catalog = open(&dir);
    catalog.apply(&world.log).unwrap();
    let readers = catalog.readers();
    assert!(block_on(readers.read(|view| view.applied_index())).unwrap() > LogIndex(0));
    let wal = dir.path().join("state-1/fsm.db-wal");
    assert!(std::fs::metadata(&wal).unwrap().len() > 0);
    catalog.close().unwrap();
    assert_eq!(std::fs::metadata(&wal).unwrap().len(), 0);
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open_files: Vec<_> = descriptors.filter_map(|open| std::fs::read_link(open.path()).ok()).collect();
    assert!(!open_files.iter().any(|file| file.starts_with(dir.path())), "{open_files:?}");
    assert!(matches!(block_on(readers.read(|view| view.applied_index())), Err(Error::Closed)));
    std::fs::remove_file(wal).unwrap();
    assert_eq!(dump(&open(&dir)), dump(&world.catalog));
}
