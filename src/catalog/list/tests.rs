//! Listings of hand-made rows against sorted keys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

pub(in crate::catalog) use super::Groups;
use super::*;
use crate::catalog::query::kind;
use crate::catalog::store::keep_plans;

const BUCKET: BucketId = BucketId(1);
const TAG: [u8; 16] = [7; 16];

/// A bucket made by inserting rows, without commands.
struct Tree {
    connection: Connection,
    directories: BTreeMap<Vec<u8>, i64>,
    next: i64,
}

impl Tree {
    fn new() -> Tree {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("../schema.sql")).unwrap();
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        keep_plans(&connection).unwrap();
        Tree { connection, directories: BTreeMap::from([(Vec::new(), 1)]), next: 2 }
    }

    fn view(&self) -> View<'_> {
        View::new(&self.connection)
    }

    fn id(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn directory(&mut self, path: &[&[u8]], table: &str) -> i64 {
        let Some((name, above)) = path.split_last() else { return 1 };
        if let Some(ino) = self.directories.get(&path.concat()) {
            return *ino;
        }
        let parent = self.directory(above, table);
        let ino = self.id();
        let sql = format!("INSERT INTO {table}(parent,name,kind,ino,seq,flags) VALUES(?1,?2,?3,?4,0,0)");
        let mut statement = self.connection.prepare_cached(&sql).unwrap();
        statement.execute(params![parent, name, kind::DIRECTORY, ino]).unwrap();
        drop(statement);
        self.directories.insert(path.concat(), ino);
        ino
    }

    fn put(&mut self, key: &[u8]) {
        let (directories, name) = path::split(key);
        let parent = self.directory(&directories, "dentry");
        let ino = self.id();
        let sql = "INSERT INTO dentry VALUES(?1,?2,0,?3,?3,0,?4,5,?5)";
        let mut statement = self.connection.prepare_cached(sql).unwrap();
        statement.execute(params![parent, name, ino, key.len() as i64, TAG]).unwrap();
    }

    /// A version with sequence `seq` that is not visible.
    fn put_version(&mut self, key: &[u8], seq: u64, kind: i64) {
        let (directories, name) = path::split(key);
        let parent = self.directory(&directories, "version");
        let ino = self.id();
        let sql = "INSERT INTO version VALUES(?1,?2,?3,?4,?5,0,NULL,5,NULL,NULL)";
        self.connection.execute(sql, params![parent, name, signed(seq), kind, ino]).unwrap();
    }
}

/// SplitMix64: a seed makes a test.
pub(in crate::catalog) struct Random(pub(in crate::catalog) u64);

impl Random {
    pub(in crate::catalog) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(in crate::catalog) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(in crate::catalog) fn pick<'t, T: ?Sized>(&mut self, from: &[&'t T]) -> &'t T {
        from[self.below(from.len())]
    }

    /// Up to `len` symbols that trees trip over.
    pub(in crate::catalog) fn text(&mut self, len: usize) -> Vec<u8> {
        let symbols = ["a", "a", "b", "/", "/", "//", "-", "0", ".", "é", "\u{10ffff}", "\0", "a/"];
        (0..self.below(len + 1)).flat_map(|_| self.pick(&symbols).as_bytes()).copied().collect()
    }
}

/// What one page must be, from the sorted keys.
pub(in crate::catalog) fn expect(keys: &BTreeSet<Vec<u8>>, query: &ListQuery) -> (Vec<Vec<u8>>, bool) {
    let groups = Groups { prefix: &query.prefix, delimiter: &query.delimiter };
    let mut names: Vec<Vec<u8>> = Vec::new();
    for key in keys.iter().filter(|key| key.starts_with(&query.prefix)) {
        let group = groups.group(key);
        let name = group.unwrap_or(key);
        let is_behind = name > query.after.as_slice() && !(group.is_some() && query.after.starts_with(name));
        if is_behind && names.last().map(Vec::as_slice) != Some(name) {
            names.push(name.to_vec());
        }
    }
    let has_more = query.limit > 0 && names.len() > query.limit;
    names.truncate(query.limit);
    (names, has_more)
}

pub(in crate::catalog) fn random_query(random: &mut Random) -> ListQuery {
    let delimiters: [&[u8]; 9] = [b"", b"/", b"/", b"-", b"//", b"a", b"/a", "é".as_bytes(), &[0xff]];
    let after = if random.below(2) == 0 { random.text(4) } else { Vec::new() };
    let prefix = random.text(2);
    ListQuery { prefix, delimiter: random.pick(&delimiters).to_vec(), after, limit: random.below(12) }
}

#[test]
fn random_listings_are_those_of_sorted_keys() {
    let seed = std::env::var("PREDASTORE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_122);
    println!("PREDASTORE_TEST_SEED={seed}");
    let mut random = Random(seed);
    for _ in 0..60 {
        let mut tree = Tree::new();
        let mut keys: BTreeSet<Vec<u8>> = (0..random.below(120)).map(|_| random.text(7)).collect();
        keys.remove(&Vec::new());
        keys.iter().for_each(|key| tree.put(key));
        for _ in 0..100 {
            let query = random_query(&mut random);
            let page = tree.view().list(BUCKET, &query).unwrap();
            let names: Vec<Vec<u8>> = page.entries.iter().map(|entry| entry.name().to_vec()).collect();
            let (expected, has_more) = expect(&keys, &query);
            assert_eq!(names, expected, "{query:?} of {keys:?}");
            assert_eq!(page.next, names.last().filter(|_| has_more).cloned(), "{query:?} of {keys:?}");
        }
    }
}

#[test]
fn directories_come_between_their_neighbours_in_byte_order() {
    let mut tree = Tree::new();
    let keys: [&[u8]; 10] =
        [b"/a", b"a", b"a-b", b"a/", b"a//b", b"a/b", b"a0", "é".as_bytes(), &[b'k'; 1024], &[b'/'; 1024]];
    keys.iter().for_each(|key| tree.put(key));
    let page = tree.view().list(BUCKET, &ListQuery { limit: 100, ..Default::default() }).unwrap();
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    assert_eq!(page.entries.iter().map(ListEntry::name).collect::<Vec<_>>(), sorted);
}

#[test]
fn names_below_the_deepest_directory_keep_their_order() {
    let mut tree = Tree::new();
    let deep = "x/".repeat(path::DEPTH_MAX);
    let keys: BTreeSet<Vec<u8>> = ["a", "a/", "a/b", "a-b", "a0", "/", "//", "b/a/"]
        .iter()
        .map(|name| [&deep, *name].concat().into_bytes())
        .collect();
    keys.iter().for_each(|key| tree.put(key));
    let prefixes = [deep.clone(), format!("{deep}a"), format!("{deep}a/"), "x".into(), "x/x/".into()];
    for (prefix, delimiter) in prefixes.iter().flat_map(|prefix| [(prefix, ""), (prefix, "/"), (prefix, "a/")]) {
        for after in keys.iter().chain([&Vec::new()]) {
            let query = ListQuery {
                prefix: prefix.clone().into(),
                delimiter: delimiter.into(),
                after: after.clone(),
                limit: 3,
            };
            let page = tree.view().list(BUCKET, &query).unwrap();
            let names: Vec<Vec<u8>> = page.entries.iter().map(|entry| entry.name().to_vec()).collect();
            assert_eq!(names, expect(&keys, &query).0, "{query:?}");
        }
    }
}

#[test]
fn a_page_of_deep_keys_ends_early_and_goes_on() {
    let mut tree = Tree::new();
    let deep = "/".repeat(500);
    let count = 400;
    tree.connection.execute_batch("BEGIN").unwrap();
    (0..count).for_each(|number| tree.put(format!("{number:03}{deep}").as_bytes()));
    let mut query = ListQuery { limit: 1000, ..Default::default() };
    let mut pages = 0;
    let mut listed = Vec::new();
    loop {
        let page = tree.view().list(BUCKET, &query).unwrap();
        listed.extend(page.entries.iter().map(|entry| entry.name()[..3].to_vec()));
        pages += 1;
        let Some(next) = page.next else { break };
        query.after = next;
    }
    assert_eq!(listed, (0..count).map(|number| format!("{number:03}").into_bytes()).collect::<Vec<_>>());
    assert!(pages > 1, "{pages} pages");
}

#[test]
fn versions_come_newest_first_and_page_to_the_end() {
    let mut tree = Tree::new();
    let mut expected: Vec<(&[u8], u64, bool)> = Vec::new();
    tree.put(b"a/x");
    let visible = tree.next as u64;
    expected.push((b"a/x", visible, true));
    for seq in [2, 1] {
        tree.put_version(b"a/x", seq, kind::OBJECT);
        expected.push((b"a/x", seq, false));
    }
    for seq in (1..=1200).rev() {
        tree.put_version(b"gone/y", seq, if seq == 1200 { kind::MARKER } else { kind::OBJECT });
        expected.push((b"gone/y", seq, seq == 1200));
    }
    for limit in [1, 7, 1000, 5000] {
        let mut query = VersionQuery { limit, ..Default::default() };
        let mut listed = Vec::new();
        loop {
            let page = tree.view().list_versions(BUCKET, &query).unwrap();
            assert!(page.next.is_none() || page.entries.len() == limit);
            listed.extend(page.entries);
            let Some((after, after_seq)) = page.next else { break };
            (query.after, query.after_seq) = (after, after_seq);
        }
        let listed: Vec<_> = listed
            .iter()
            .map(|(key, version)| version.as_ref().map(|v| (key.as_slice(), v.seq.0, v.is_latest)).unwrap())
            .collect();
        assert_eq!(listed, expected, "limit {limit}");
    }
    let query = VersionQuery { delimiter: b"/".into(), limit: 10, ..Default::default() };
    let page = tree.view().list_versions(BUCKET, &query).unwrap();
    assert_eq!(page.entries, [(b"a/".to_vec(), None), (b"gone/".to_vec(), None)]);
}

#[test]
fn no_listing_sorts() {
    let tree = Tree::new();
    let uploads = "SELECT key FROM upload WHERE bucket=?1 AND (key,id)>(?2,?3) ORDER BY key,id LIMIT 1";
    for sql in [walk::VISIBLE, walk::VERSIONS, uploads] {
        let mut statement = tree.connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let count = statement.parameter_count();
        let params = rusqlite::params_from_iter((0..count).map(|_| 1));
        let plan: Vec<String> = statement.query_map(params, |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        assert!(plan.iter().all(|step| !step.contains("TEMP B-TREE") && !step.starts_with("SCAN")), "{plan:#?}");
    }
}

#[test]
fn uploads_page_by_key_and_id() {
    let tree = Tree::new();
    let attrs = Attrs::default().encode();
    let rows: [(&[u8], i64); 5] = [(b"a", 5), (b"a", 9), (b"b/c", 7), (b"b/d", 3), (b"c", 1)];
    for (key, id) in rows {
        tree.connection.execute("INSERT INTO upload VALUES(1,?1,?2,0,?3)", params![key, id, attrs]).unwrap();
    }
    let mut query = ListQuery { limit: 1, ..Default::default() };
    let (mut after_id, mut listed) = (None, Vec::new());
    loop {
        let page = tree.view().list_uploads(BUCKET, &query, after_id).unwrap();
        listed.extend(page.uploads.iter().map(|upload| (upload.key.clone(), signed(upload.id.0))));
        let Some((after, id)) = page.next else { break };
        (query.after, after_id) = (after, id);
    }
    assert_eq!(listed, rows.map(|(key, id)| (key.to_vec(), id)));
    query = ListQuery { delimiter: b"/".into(), limit: 3, ..Default::default() };
    let page = tree.view().list_uploads(BUCKET, &query, None).unwrap();
    assert_eq!((page.uploads.len(), page.prefixes), (2, vec![b"b/".to_vec()]));
    assert_eq!(page.next, Some((b"b/".to_vec(), None)));
    (query.after, query.limit) = (b"b/".to_vec(), 10);
    let page = tree.view().list_uploads(BUCKET, &query, None).unwrap();
    assert_eq!((page.uploads.len(), page.next), (1, None));
}

#[test]
#[ignore = "a measurement: run it alone, in release"]
fn speed_of_listings_and_lookups() {
    let mut tree = Tree::new();
    tree.connection.execute_batch("PRAGMA cache_size=-65536; BEGIN").unwrap();
    let mut random = Random(1);
    let mut numbers: Vec<usize> = (0..1_000_000).collect();
    for index in (1..numbers.len()).rev() {
        numbers.swap(index, random.below(index + 1));
    }
    numbers.iter().for_each(|number| tree.put(format!("key-{number:07}").as_bytes()));
    (0..10_000).for_each(|number| tree.put(format!("tree/{number:05}/leaf").as_bytes()));
    (0..1_000).for_each(|number| tree.put(format!("{}{number:04}", "d/".repeat(9)).as_bytes()));
    (0..1_000).for_each(|number| tree.put(format!("{}{number:04}", "q/".repeat(3)).as_bytes()));
    tree.connection
        .execute_batch("INSERT INTO node SELECT ino,1,1,0,0,NULL,NULL FROM dentry WHERE kind=0; COMMIT")
        .unwrap();

    let flat = |after: String, delimiter: &str, prefix: &str| ListQuery {
        prefix: prefix.into(),
        delimiter: delimiter.into(),
        after: after.into(),
        limit: 1000,
    };
    let view = tree.view();
    // What this thread had of a processor: the machine may be busy with other things.
    let cpu_us = || {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e3
    };
    let measure = |what: &str, count: usize, mut run: Box<dyn FnMut() + '_>| {
        run();
        let (start, start_cpu_us) = (std::time::Instant::now(), cpu_us());
        (0..count).for_each(|_| run());
        let (wall, cpu) = (start.elapsed().as_secs_f64() * 1e6, cpu_us() - start_cpu_us);
        println!("{what}: {:.1} us, {:.1} us of processor", wall / count as f64, cpu / count as f64);
    };
    let mut random = Random(2);
    let mut list = |what: &str, prefix: &str, delimiter: &str, flat_after: bool, len: usize| {
        measure(
            what,
            200,
            Box::new(|| {
                let after = if flat_after { format!("key-{:07}", random.below(900_000)) } else { String::new() };
                let page = view.list(BUCKET, &flat(after, delimiter, prefix)).unwrap();
                assert_eq!(page.entries.len(), len);
            }),
        );
    };
    list("LIST of 1,000 in a flat bucket of 1M", "", "", true, 1000);
    list("LIST of 1,000 in a flat bucket of 1M, delimiter /", "", "/", true, 1000);
    list("LIST of 1,000 of 10,000 sub-directories, delimiter /", "tree/", "/", false, 1000);
    list("LIST of 1,000 of 10,000 sub-directories, no delimiter", "tree/", "", false, 1000);
    list("LIST of 1,000 groups, delimiter 5", "tree/", "5", false, 1000);
    let mut random = Random(3);
    for (what, prefix, width) in [("1", "key-", 7), ("4", "q/q/q/", 4), ("10", "d/d/d/d/d/d/d/d/d/", 4)] {
        measure(
            &format!("look-up at depth {what}"),
            20_000,
            Box::new(|| {
                let number = random.below(if width == 7 { 1_000_000 } else { 1000 });
                let found = view.lookup(BUCKET, format!("{prefix}{number:0width$}").as_bytes(), None).unwrap();
                assert!(matches!(found, Lookup::Found(_)));
            }),
        );
    }
}
