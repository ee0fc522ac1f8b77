//! DELETE: markers, named versions, locks.

use super::*;
use crate::catalog::{Retention, RetentionMode};

const VISIBLE: &str = "SELECT name, kind, flags, size_bytes FROM dentry WHERE kind<>1 ORDER BY parent, name";
const HISTORY: &str = "SELECT name, kind, flags, size_bytes FROM version ORDER BY parent, name, seq DESC";
const USAGE: &str = "SELECT object_count, size_bytes, version_count, version_bytes FROM usage";

fn deleted(version: Option<VersionId>, delete_marker: bool) -> Deleted {
    Deleted { version, delete_marker }
}

#[test]
fn deleting_nothing_is_no_error() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    assert_eq!(world.delete(bucket, "no/such", None), deleted(None, false));
    assert_eq!(world.delete(bucket, "no/such", Some(VersionId::Null)), deleted(None, false));
    world.put(bucket, "k", 1);
    assert_eq!(world.delete(bucket, "k", None), deleted(None, false));
    assert_eq!((world.rows(VISIBLE).len(), world.rows(USAGE)), (0, vec!["0|0|0|0".into()]));
}

#[test]
fn a_marker_hides_a_key_and_its_directory() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Enabled);
    let first = world.put(bucket, "d/e/k", 1).version;
    let marker = world.delete(bucket, "d/e/k", None);
    assert!(marker.delete_marker);
    assert_eq!(world.rows("SELECT name FROM dentry"), [""; 0]);
    assert_eq!(world.rows(HISTORY), ["d/|1|0|-", "e/|1|0|-", "k|3|0|-", "k|0|0|1"]);
    assert_eq!(world.rows(USAGE), ["0|0|2|1"]);

    let second = world.put(bucket, "d/e/k", 2).version;
    assert_eq!(world.rows("SELECT name FROM dentry ORDER BY parent"), ["d/", "e/", "k"]);
    assert_eq!(world.delete(bucket, "d/e/k", Some(second)), deleted(Some(second), false));
    assert_eq!(world.rows("SELECT name FROM dentry"), [""; 0], "the marker is the newest again");

    assert_eq!(world.delete(bucket, "d/e/k", marker.version), deleted(marker.version, true));
    assert_eq!(world.rows(VISIBLE), ["k|0|0|1"], "the version before the marker is the newest");
    assert_eq!(world.rows("SELECT name FROM dentry ORDER BY parent"), ["d/", "e/", "k"]);
    world.delete(bucket, "d/e/k", Some(first));
    assert_eq!(world.rows("SELECT parent FROM dir"), ["0"]);
    assert_eq!((world.rows(HISTORY).len(), world.rows(USAGE)), (0, vec!["0|0|0|0".into()]));
}

#[test]
fn a_marker_on_nothing_makes_directories_that_nobody_sees() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Enabled);
    let marker = world.delete(bucket, "d/k", None).version;
    assert_eq!((world.rows(VISIBLE).len(), world.rows(HISTORY)), (0, vec!["d/|1|0|-".into(), "k|3|0|-".into()]));
    world.put(bucket, "d/other", 1);
    assert_eq!(world.rows(HISTORY), ["k|3|0|-"]);
    world.delete(bucket, "d/k", marker);
    assert_eq!((world.rows(VISIBLE).len(), world.rows(HISTORY).len()), (1, 0));
}

#[test]
fn a_suspended_bucket_has_one_null_version_or_marker() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Enabled);
    let numbered = world.put(bucket, "k", 1).version;
    world.send(Command::SetVersioning { bucket, versioning: Versioning::Suspended });
    world.put(bucket, "k", 2);
    assert_eq!(world.delete(bucket, "k", None), deleted(Some(VersionId::Null), true));
    assert_eq!(world.delete(bucket, "k", None), deleted(Some(VersionId::Null), true));
    assert_eq!(world.rows(HISTORY), ["k|3|1|-", "k|0|0|1"]);
    assert_eq!(world.rows(USAGE), ["0|0|2|1"]);
    world.put(bucket, "k", 3);
    assert_eq!((world.rows(VISIBLE), world.rows(HISTORY)), (vec!["k|0|1|3".into()], vec!["k|0|0|1".into()]));
    world.delete(bucket, "k", Some(VersionId::Null));
    assert_eq!((world.rows(VISIBLE), world.rows(HISTORY).len()), (vec!["k|0|0|1".into()], 0));
    assert_eq!(world.delete(bucket, "k", Some(numbered)), deleted(Some(numbered), false));
    assert_eq!(world.rows("SELECT COUNT(*) FROM dead"), ["3"]);
}

#[test]
fn each_key_has_an_outcome_of_its_own() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    world.put(bucket, "a", 5);
    world.put(bucket, "b", 6);
    let demanding = |key, size_bytes, seconds| DeleteKey {
        precondition: Precondition {
            if_match_size_bytes: size_bytes,
            if_match_modified_s: seconds,
            ..Precondition::default()
        },
        ..target(key, None)
    };
    let keys = vec![
        demanding("a", Some(6), None),
        demanding("b", Some(6), None),
        demanding("c", Some(6), None),
        demanding("a", None, Some(1)),
        target("", None),
    ];
    let failed = |name: &str| Err(Refusal::PreconditionFailed(name.into()));
    let Outcome::Deleted(outcomes) = world.send(Command::Delete { bucket, keys }) else { panic!() };
    assert_eq!(
        outcomes[..4],
        [
            failed("x-amz-if-match-size"),
            Ok(deleted(None, false)),
            Err(Refusal::NoSuchKey),
            failed("x-amz-if-match-last-modified-time"),
        ]
    );
    assert!(matches!(outcomes[4], Err(Refusal::OutOfBounds(_))));
    assert_eq!(world.rows(VISIBLE), ["a|0|1|5"]);
    let keys = vec![target("a", None); 251];
    assert!(matches!(world.refusal(Command::Delete { bucket, keys }), Refusal::OutOfBounds(_)));
}

#[test]
fn locks_hold_until_catalog_time_passes_them() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Enabled);
    let until = Timestamp(1000);
    let retained = |mode| Attrs { retention: Some(Retention { mode, until }), ..Attrs::default() };
    let put = |world: &mut World, with: Attrs| {
        let mut command = world.put_command(bucket, "k", Body::Empty, 0);
        if let Command::Put { attrs, .. } = &mut command {
            *attrs = with;
        }
        let Outcome::Written(written) = world.send(command) else { panic!() };
        written.version
    };
    let governed = put(&mut world, retained(RetentionMode::Governance));
    let complied = put(&mut world, retained(RetentionMode::Compliance));
    let held = put(&mut world, Attrs { hold: true, ..Attrs::default() });
    let delete = |world: &mut World, version, bypass_governance| {
        world.delete_with(bucket, DeleteKey { bypass_governance, ..target("k", Some(version)) })
    };
    for (version, bypass) in [(governed, false), (complied, false), (complied, true), (held, true)] {
        assert_eq!(delete(&mut world, version, bypass), Err(Refusal::Locked));
    }
    assert!(world.delete(bucket, "k", None).delete_marker, "a marker deletes nothing");
    assert!(delete(&mut world, governed, true).is_ok());
    world.send(Command::Tick { now: Timestamp(999) });
    assert_eq!(delete(&mut world, complied, false), Err(Refusal::Locked));
    world.send(Command::Tick { now: until });
    assert!(delete(&mut world, complied, false).is_ok());
    assert_eq!(delete(&mut world, held, false), Err(Refusal::Locked));
}
