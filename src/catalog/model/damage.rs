//! The complete check finds what it says it finds.

use crate::catalog::list::tests::Random;
use crate::catalog::model::sequences::World;

/// A change that no command makes, and part of what the check must say of it.
const DAMAGES: &[(&str, &str)] = &[
    ("DELETE FROM node WHERE id IN (SELECT ino FROM dentry WHERE kind=0)", "has a node"),
    ("DELETE FROM node WHERE id IN (SELECT chunk FROM extent)", "lies in a chunk"),
    ("UPDATE node SET refs=refs+1 WHERE id=(SELECT max(id) FROM node)", "a node counts"),
    ("UPDATE node SET nlink=nlink+1 WHERE id=(SELECT max(ino) FROM dentry WHERE kind=0)", "a node counts"),
    ("DELETE FROM dead WHERE seq=(SELECT min(seq) FROM dead)", "a node counts"),
    ("UPDATE dead SET id=3", "what was lost has a node"),
    ("UPDATE node SET body=id WHERE body<>0", "a body that a node shows"),
    ("UPDATE node SET form=0 WHERE form=1 AND body=0", "a node's form"),
    ("DELETE FROM inline", "a node's form"),
    ("INSERT INTO inline VALUES(3,x'00')", "inline bytes"),
    ("UPDATE extent SET len_bytes=len_bytes+1", "the extents of a part"),
    ("UPDATE extent SET chunk_off=1<<30", "reaches to"),
    ("UPDATE OR IGNORE extent SET off=off+1, len_bytes=1<<39", "do not overlap"),
    ("DELETE FROM part", "without a row"),
    ("UPDATE OR IGNORE part SET num=num+20000", "a part belongs"),
    ("UPDATE OR IGNORE part SET checksums=x'ff'", "undecodable checksums"),
    ("UPDATE OR IGNORE part SET size_bytes=size_bytes+1", "as long as the part"),
    ("DELETE FROM dir WHERE parent<>0", "every directory of a name"),
    ("DELETE FROM dentry WHERE kind=1", "a directory has one entry"),
    ("UPDATE OR IGNORE dentry SET ino=ino+1 WHERE kind=1", "a directory's entry is the directory's"),
    ("UPDATE OR IGNORE dentry SET name=CAST('a/b/' AS BLOB) WHERE kind=1", "its only slash"),
    ("DELETE FROM dentry WHERE kind=0", "a visible directory holds"),
    ("DELETE FROM version WHERE kind<>1", "a directory of versions holds"),
    ("UPDATE OR IGNORE dentry SET kind=7 WHERE kind=0", "an entry has a kind"),
    ("UPDATE OR IGNORE dentry SET seq=1 WHERE kind=0", "newer than every other"),
    ("DELETE FROM version WHERE kind=3", "the newest version is a delete marker"),
    ("UPDATE version SET ino=3 WHERE kind=3", "a delete marker names no node"),
    ("UPDATE version SET flags=1 WHERE kind<>1", "at most one null version"),
    ("UPDATE OR IGNORE dentry SET etag=x'00' WHERE kind=0", "a length and a tag"),
    ("UPDATE OR IGNORE dentry SET size_bytes=size_bytes+1 WHERE kind=0", "its usage says"),
    ("UPDATE usage SET version_count=version_count+1", "its usage says"),
    ("DELETE FROM usage", "a bucket has its usage"),
    ("UPDATE bucket SET ever_versioned=0", "was never versioned"),
    ("DELETE FROM bucket", "is in no bucket"),
    ("UPDATE node SET attrs=x'0105' WHERE attrs IS NOT NULL", "undecodable attributes"),
    ("UPDATE node SET place=x'' WHERE place IS NOT NULL", "undecodable place"),
    ("UPDATE outcome SET value=x'02'", "undecodable outcome"),
    ("UPDATE completed SET outcome=x'02'", "undecodable"),
    ("UPDATE upload SET bucket=3", "an upload is in a bucket"),
    ("INSERT INTO reclaim SELECT 1000000,id,0,place FROM node WHERE place IS NOT NULL LIMIT 1", "is named twice"),
    ("INSERT INTO reclaim SELECT 1000000,chunk,0,place FROM reclaim LIMIT 1", "is named twice"),
    ("UPDATE node SET place=(SELECT place FROM node WHERE length(place)>20 LIMIT 1) WHERE length(place)>20", "Shard("),
    ("DELETE FROM repair", "its row in repair says None"),
    ("UPDATE OR IGNORE repair SET chunk=3", "what is to be repaired is a chunk"),
    ("UPDATE repair SET missing=x''", "undecodable repair"),
    ("UPDATE repair SET missing=x'010109'", "its row in repair says Some([9])"),
    ("UPDATE extent SET len_bytes=len_bytes+1 WHERE ino IN (SELECT id FROM node WHERE form=2)", "an object of chunks"),
    ("UPDATE map SET value=x''", "undecodable map"),
    ("UPDATE map SET epoch=epoch+1", "the map of epoch"),
    ("INSERT INTO map SELECT epoch+1,value FROM map", "at most one map"),
    ("UPDATE OR IGNORE reclaim SET died=-seq", "order of their deaths"),
    ("DELETE FROM session", "of a live session"),
    ("UPDATE lease SET end=start", "a lease is a range"),
    ("UPDATE state SET next_id=1", "no id is above"),
    ("UPDATE state SET next_dead=0, next_reclaim=0", "no row is above its counter"),
    ("DELETE FROM state", "one row of state"),
];

fn changes_something(world: &World, damage: &str) -> bool {
    let connection = world.catalog.view().connection;
    connection.execute_batch("SAVEPOINT damage").unwrap();
    let changed = connection.execute(damage, []).unwrap();
    connection.execute_batch("ROLLBACK TO damage; RELEASE damage").unwrap();
    changed > 0
}

#[test]
fn every_kind_of_damage_is_found() {
    let mut world = World::new();
    let mut random = Random(11);
    world.begin(&mut random);
    let mut is_rich = false;
    for step in 0..5000 {
        world.step(&mut Random(random.next()));
        // Once there is something of everything to damage.
        is_rich = step >= 400 && DAMAGES.iter().all(|(damage, _)| changes_something(&world, damage));
        if is_rich {
            break;
        }
    }
    assert!(is_rich, "in 5,000 steps there never was something of everything");
    let view = world.catalog.view();
    assert_eq!(view.contradictions(3), Vec::<String>::new());
    for (damage, expected) in DAMAGES {
        view.connection.execute_batch("SAVEPOINT damage").unwrap();
        let changed = view.connection.execute(damage, []).unwrap();
        assert!(changed > 0, "{damage} changes nothing");
        let found = view.contradictions(3);
        assert!(found.iter().any(|text| text.contains(expected)), "{damage}: {found:#?}");
        view.connection.execute_batch("ROLLBACK TO damage; RELEASE damage").unwrap();
    }
}
