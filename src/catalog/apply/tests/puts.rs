//! PUT: what it replaces, what it shares, what it refuses.

use super::*;
use crate::catalog::Change;

const VISIBLE: &str = "SELECT name, kind, flags, size_bytes FROM dentry ORDER BY parent, name";
const HISTORY: &str = "SELECT name, kind, flags, size_bytes FROM version ORDER BY parent, name, seq DESC";
const USAGE: &str = "SELECT object_count, size_bytes, version_count, version_bytes FROM usage";

#[test]
fn directories_come_with_the_first_key_and_go_with_the_last() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    world.put(bucket, "x/y/a", 3);
    world.put(bucket, "x/y/b", 4);
    world.put(bucket, "x/", 1);
    assert_eq!(world.rows(VISIBLE), ["x/|1|0|-", "|0|1|1", "y/|1|0|-", "a|0|1|3", "b|0|1|4"]);
    world.delete(bucket, "x/y/a", None);
    world.delete(bucket, "x/y/b", None);
    assert_eq!(world.rows(VISIBLE), ["x/|1|0|-", "|0|1|1"], "a key of the directory's name keeps it");
    world.delete(bucket, "x/", None);
    assert_eq!(world.rows(VISIBLE), [""; 0]);
    assert_eq!(world.rows("SELECT parent FROM dir"), ["0"]);
    assert_eq!(world.rows(USAGE), ["0|0|0|0"]);
}

#[test]
fn a_put_in_an_unversioned_bucket_replaces() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    world.put(bucket, "k", 3);
    let second = world.put(bucket, "k", 5);
    assert_eq!((second.version, second.ever_versioned), (VersionId::Null, false));
    assert_eq!(world.rows(VISIBLE), ["k|0|1|5"]);
    assert_eq!(world.rows(USAGE), ["1|5|0|0"]);
    world.drain();
    assert_eq!(world.rows("SELECT COUNT(*) FROM node"), ["1"]);
    assert_eq!(world.rows("SELECT COUNT(*) FROM reclaim"), ["1"]);
    assert_eq!(world.send(Command::Reclaimed { rows: vec![1] }), Outcome::Done);
    assert_eq!(world.rows("SELECT COUNT(*) FROM reclaim"), ["0"]);
}

#[test]
fn a_put_in_a_versioned_bucket_keeps_history() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    world.put(bucket, "k", 1);
    world.send(Command::SetVersioning { bucket, versioning: Versioning::Enabled });
    world.put(bucket, "k", 2);
    world.put(bucket, "k", 3);
    assert_eq!(world.rows(VISIBLE), ["k|0|0|3"]);
    assert_eq!(world.rows(HISTORY), ["k|0|0|2", "k|0|1|1"]);
    assert_eq!(world.rows(USAGE), ["1|3|2|3"]);
}

#[test]
fn a_put_in_a_suspended_bucket_replaces_the_null_version_wherever_it_is() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    world.put(bucket, "k", 1);
    world.send(Command::SetVersioning { bucket, versioning: Versioning::Enabled });
    world.put(bucket, "k", 2);
    world.send(Command::SetVersioning { bucket, versioning: Versioning::Suspended });
    world.put(bucket, "k", 3);
    assert_eq!((world.rows(VISIBLE), world.rows(HISTORY)), (vec!["k|0|1|3".into()], vec!["k|0|0|2".into()]));
    world.put(bucket, "k", 4);
    assert_eq!((world.rows(VISIBLE), world.rows(HISTORY)), (vec!["k|0|1|4".into()], vec!["k|0|0|2".into()]));
    assert_eq!(world.rows(USAGE), ["1|4|1|2"]);
    assert_eq!(world.rows("SELECT COUNT(*) FROM dead"), ["2"]);
}

#[test]
fn preconditions_are_decided_on_what_is_current() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Enabled);
    let put = |world: &mut World, if_match: Option<&[Option<u8>]>, if_none_match: Option<&[Option<u8>]>| {
        let tags = |tags: &[Option<u8>]| tags.iter().map(|tag| tag.map(etag)).collect();
        let demands = Precondition {
            if_match: if_match.map(tags),
            if_none_match: if_none_match.map(tags),
            ..Precondition::default()
        };
        let mut command = world.put_command(bucket, "k", Body::Chunk(place(7)), 7);
        if let Command::Put { precondition, .. } = &mut command {
            *precondition = demands;
        }
        command
    };
    let failed = |name: &str| Refusal::PreconditionFailed(name.into());

    let command = put(&mut world, Some(&[None]), None);
    assert_eq!(world.refusal(command), Refusal::NoSuchKey);
    let command = put(&mut world, None, Some(&[None]));
    assert!(matches!(world.send(command), Outcome::Written(_)));
    let command = put(&mut world, None, Some(&[None]));
    assert_eq!(world.refusal(command), failed("If-None-Match"));
    let command = put(&mut world, None, Some(&[Some(7)]));
    assert_eq!(world.refusal(command), failed("If-None-Match"));
    let command = put(&mut world, Some(&[Some(8)]), None);
    assert_eq!(world.refusal(command), failed("If-Match"));
    let command = put(&mut world, Some(&[Some(8), Some(7)]), Some(&[Some(8)]));
    assert!(matches!(world.send(command), Outcome::Written(_)));
    world.delete(bucket, "k", None);
    let command = put(&mut world, Some(&[Some(7)]), None);
    assert_eq!(world.refusal(command), Refusal::NoSuchKey, "a delete marker is nothing");
}

#[test]
fn a_shared_body_lives_as_long_as_someone_shares_it() {
    for body in [Body::Chunk(place(3)), Body::Inline(Bytes::from_static(b"abc"))] {
        let mut world = World::new();
        let bucket = world.bucket("b", Versioning::Never);
        world.put_body(bucket, "a", body, 3);
        let source = Ino(world.next_id.0 - 1);
        world.put_body(bucket, "b", Body::Share(source), 3);
        let shared = Ino(world.next_id.0 - 1);
        world.put_body(bucket, "c", Body::Share(shared), 3);
        let uses = format!("SELECT refs, nlink FROM node WHERE id={source}");
        assert_eq!(world.rows(&uses), ["3|1"], "a share of a share is one of the owner");
        world.delete(bucket, "a", None);
        world.delete(bucket, "b", None);
        world.drain();
        assert_eq!(world.rows(&uses), ["1|0"]);
        let command = world.put_command(bucket, "d", Body::Share(shared), 3);
        assert_eq!(world.refusal(command), Refusal::SourceGone);
        world.delete(bucket, "c", None);
        world.drain();
        assert_eq!(world.rows("SELECT id FROM node UNION ALL SELECT ino FROM inline"), [""; 0]);
    }
}

#[test]
fn a_name_that_was_lost_can_still_be_shared_until_the_drain() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    world.put(bucket, "a", 3);
    let source = Ino(world.next_id.0 - 1);
    world.delete(bucket, "a", None);
    world.put_body(bucket, "b", Body::Share(source), 3);
    world.drain();
    assert_eq!(world.rows(&format!("SELECT refs, nlink FROM node WHERE id={source}")), ["1|0"]);
    assert_eq!(world.rows("SELECT COUNT(*) FROM reclaim"), ["0"]);
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let long_key = "k".repeat(1025);
    for (key, body, size_bytes) in [
        ("", Body::Empty, 0),
        (&long_key[..], Body::Empty, 0),
        ("k", Body::Empty, 1),
        ("k", Body::Inline(Bytes::from_static(b"abc")), 4),
        ("k", Body::Inline(Bytes::from(vec![0; 8193])), 8193),
        ("k", Body::Chunk(place(3)), 4),
    ] {
        let command = world.put_command(bucket, key, body, size_bytes);
        assert!(matches!(world.refusal(command), Refusal::OutOfBounds(_)));
    }
}

#[test]
fn a_key_of_a_thousand_slashes_is_a_key() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let key = "/".repeat(1024);
    world.put(bucket, &key, 1);
    assert_eq!(world.rows("SELECT COUNT(*) FROM dir"), ["129"]);
    world.delete(bucket, &key, None);
    assert_eq!(world.rows("SELECT COUNT(*) FROM dir"), ["1"]);
}

#[test]
fn changes_touch_the_version_they_name() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Enabled);
    let old = world.put(bucket, "k", 1).version;
    world.put(bucket, "k", 2);
    let change = |version, key: &'static str| Command::Change {
        bucket,
        key: Bytes::from_static(key.as_bytes()),
        version,
        change: Change::Tags(vec![("a".into(), "b".into())]),
    };
    assert_eq!(world.send(change(Some(old), "k")), Outcome::Changed { version: old });
    let tagged = Attrs { tags: vec![("a".into(), "b".into())], ..Attrs::default() };
    let attrs = world.rows("SELECT attrs FROM node WHERE nlink=1 ORDER BY id");
    assert_eq!(
        attrs,
        [tagged.encode().escape_ascii().to_string(), Attrs::default().encode().escape_ascii().to_string()]
    );
    let marker = world.delete(bucket, "k", None).version;
    assert_eq!(world.refusal(change(None, "k")), Refusal::NoSuchKey);
    assert_eq!(world.refusal(change(marker, "k")), Refusal::IsDeleteMarker);
    assert_eq!(world.refusal(change(Some(VersionId::Null), "k")), Refusal::NoSuchVersion);
    assert_eq!(world.refusal(change(None, "no/such")), Refusal::NoSuchKey);
}
