//! Queries on hand-made rows that no command makes yet.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::ids::NodeId;

fn catalog(rows: &str) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(include_str!("../schema.sql")).unwrap();
    connection.execute_batch(rows).unwrap();
    connection
}

fn place(len_bytes: u64) -> Place {
    Place { layout: Layout::Plain { node: NodeId(1) }, len_bytes, live_bytes: len_bytes }
}

/// What each extent is: (start, chunk, start in the chunk, length).
fn runs(manifest: Manifest) -> Vec<(u64, u64, u64, u64)> {
    let Manifest::Extents(extents) = manifest else { panic!("{manifest:?}") };
    let run = |extent: Extent| (extent.start_bytes, extent.chunk.0, extent.chunk_start_bytes, extent.len_bytes);
    extents.into_iter().map(run).collect()
}

#[test]
fn a_file_of_extents_has_gaps_and_may_be_longer_than_any_part() {
    let far = 3 << PART_SHIFT;
    let connection = catalog(&format!(
        "INSERT INTO node VALUES(5,1,1,0,2,NULL,NULL);
        INSERT INTO extent VALUES(5,0,9,100,10),(5,10,9,0,10),(5,50,9,10,10),(5,{far},9,20,10);"
    ));
    let sql = "INSERT INTO node VALUES(9,0,4,0,1,NULL,?1)";
    connection.execute(sql, [place(200).encode()]).unwrap();
    let view = View::new(&connection);
    let all = [(0, 9, 100, 10), (10, 9, 0, 10), (50, 9, 10, 10), (far, 9, 20, 10)];
    let cases = [
        (0..u64::MAX, &all[..]),
        (9..10, &all[..1]),
        (10..11, &all[1..2]),
        (9..11, &all[..2]),
        (20..50, &[]),
        (25..51, &all[2..3]),
        (far + 9..far + 10, &all[3..]),
        (far + 10..u64::MAX, &[]),
        (5..5, &[]),
    ];
    for (range, expected) in cases {
        assert_eq!(runs(view.manifest(Ino(5), range.clone()).unwrap()), expected, "{range:?}");
    }
}

#[test]
fn what_rows_lack_is_an_error_and_no_guess() {
    let connection = catalog(
        "INSERT INTO node VALUES(5,1,1,0,2,NULL,NULL),(6,1,1,77,1,NULL,NULL),(7,1,1,0,9,NULL,NULL),
            (8,1,1,0,3,NULL,NULL),(10,1,1,0,1,NULL,NULL);
        INSERT INTO extent VALUES(5,0,99,0,10);",
    );
    let view = View::new(&connection);
    for ino in [5, 6, 7, 8, 10, 11] {
        let manifest = view.manifest(Ino(ino), 0..10);
        assert!(matches!(manifest, Err(Error::Inconsistent(_))), "{ino}: {manifest:?}");
    }
}

#[test]
fn an_orphan_is_what_no_row_and_no_live_lease_names() {
    let state = |next: u64| format!("INSERT INTO state VALUES(1,1,0,2,{next},1,1,0,0,0,0,x'')");
    let id = |counter: u64| Ino::new(2, counter);
    let connection = catalog(&state(100));
    connection
        .execute_batch(&format!(
            "INSERT INTO session VALUES(1,'g',0,0,0);
            INSERT INTO lease VALUES({},{},1),({},{},4);
            INSERT INTO node VALUES({},0,1,0,1,NULL,NULL);
            INSERT INTO reclaim VALUES(1,{},5,x'');",
            id(10),
            id(20),
            id(30),
            id(40),
            id(50),
            id(51)
        ))
        .unwrap();
    let view = View::new(&connection);
    let asked: Vec<Ino> = [9, 10, 19, 20, 30, 50, 51, 52].map(id).to_vec();
    let orphans: Vec<Ino> = [9, 20, 30, 52].map(id).to_vec();
    assert_eq!(view.orphans(&asked).unwrap(), orphans);
    assert_eq!(view.orphans(&[Ino::new(1, 1 << 40)]).unwrap(), [Ino::new(1, 1 << 40)], "an older incarnation");
    for above in [id(100), Ino::new(3, 1)] {
        assert!(matches!(view.orphans(&[id(9), above]), Err(Error::Inconsistent(_))));
    }
}

#[test]
fn a_chunk_is_told_by_the_names_of_what_uses_it() {
    let connection = catalog(
        "INSERT INTO bucket VALUES(1,CAST('photos' AS BLOB),'o','r',0,0,0,0);
        INSERT INTO dir VALUES(1,0,x'',NULL),(2,1,CAST('d/' AS BLOB),NULL);
        INSERT INTO dentry VALUES(1,CAST('d/' AS BLOB),1,2,0,0,NULL,NULL,NULL),
            (2,CAST('whole' AS BLOB),0,5,9,1,1,0,zeroblob(16)),
            (2,CAST('copy' AS BLOB),0,6,10,0,1,0,zeroblob(16)),
            (1,CAST('other' AS BLOB),0,8,12,0,1,0,zeroblob(16));
        INSERT INTO version VALUES(2,CAST('parts' AS BLOB),11,0,7,0,1,0,zeroblob(16),NULL);
        INSERT INTO node VALUES(5,1,3,0,1,NULL,NULL),(6,1,1,5,1,NULL,NULL),(7,1,1,0,4,NULL,NULL),
            (8,1,1,0,0,NULL,NULL);
        INSERT INTO extent VALUES(7,1<<40,5,0,1);",
    );
    let names = View::new(&connection).names_of(Ino(5), 10).unwrap();
    let expected =
        [("d/copy", VersionId::Seq(Seq(10))), ("d/parts", VersionId::Seq(Seq(11))), ("d/whole", VersionId::Null)];
    assert_eq!(names, expected.map(|(key, version)| ("photos".to_owned(), key.as_bytes().to_vec(), version)));
    assert_eq!(View::new(&connection).names_of(Ino(5), 1).unwrap().len(), 1);
}
