//! Buckets.

use super::*;
use crate::catalog::Setting;

fn create(id: Ino, name: &str, lock: bool) -> Command {
    let (owner, region) = ("owner".into(), "region".into());
    Command::CreateBucket { id: BucketId(id.0), name: name.into(), owner, region, lock }
}

#[test]
fn a_name_is_taken_once() {
    let mut world = World::new();
    world.bucket("b", Versioning::Never);
    let id = world.id();
    assert_eq!(world.refusal(create(id, "b", false)), Refusal::BucketExists { owner: "owner".into() });
    assert_eq!(world.send(create(id, "c", false)), Outcome::Done);
    assert_eq!(world.refusal(create(id, "d", false)), Refusal::NotLeased(id));
}

#[test]
fn only_an_empty_bucket_goes() {
    let mut world = World::new();
    let empty = world.dump_without_log().len();
    let bucket = world.bucket("b", Versioning::Never);
    let delete = Command::DeleteBucket { bucket };
    world.send(Command::SetBucket { bucket, setting: Setting::Cors, value: Some(Bytes::from_static(b"x")) });

    world.put(bucket, "d/k", 1);
    assert_eq!(world.refusal(delete.clone()), Refusal::BucketNotEmpty);
    world.delete(bucket, "d/k", None);

    let upload = world.upload(bucket, "u");
    assert_eq!(world.refusal(delete.clone()), Refusal::BucketNotEmpty);
    world.send(upload.abort());

    world.send(Command::SetVersioning { bucket, versioning: Versioning::Enabled });
    let marker = world.delete(bucket, "e/k", None);
    assert_eq!(world.refusal(delete.clone()), Refusal::BucketNotEmpty);
    world.delete(bucket, "e/k", marker.version);

    assert_eq!(world.send(delete.clone()), Outcome::Done);
    assert_eq!(world.refusal(delete), Refusal::NoSuchBucket);
    world.drain();
    let rows = world.dump_without_log();
    let leases_and_reclaims = |row: &&String| row.starts_with("lease:") || row.starts_with("reclaim:");
    assert_eq!(rows.len() - rows.iter().filter(leases_and_reclaims).count(), empty - 1);
}

#[test]
fn versioning_never_goes_back_to_never_and_locks_hold_it() {
    let mut world = World::new();
    let (bucket, locked) = (world.bucket("b", Versioning::Never), BucketId(world.id().0));
    assert_eq!(world.send(create(locked.root(), "locked", true)), Outcome::Done);
    for (bucket, versioning) in [(bucket, Versioning::Never), (locked, Versioning::Suspended)] {
        assert_eq!(world.refusal(Command::SetVersioning { bucket, versioning }), Refusal::InvalidBucketState);
    }
    let rows = "SELECT name, versioning, ever_versioned, lock FROM bucket ORDER BY id";
    assert_eq!(world.rows(rows), ["b|0|0|0", "locked|1|1|1"]);
    world.send(Command::SetVersioning { bucket, versioning: Versioning::Suspended });
    assert_eq!(world.rows(rows), ["b|2|1|0", "locked|1|1|1"]);
}

#[test]
fn settings_are_replaced_and_removed() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let rows = "SELECT kind, value FROM bucket_setting";
    for (value, stored) in [(Some("x"), vec!["2|x"]), (Some("y"), vec!["2|y"]), (None, vec![])] {
        let value = value.map(|text| Bytes::from_static(text.as_bytes()));
        assert_eq!(world.send(Command::SetBucket { bucket, setting: Setting::Cors, value }), Outcome::Done);
        assert_eq!(world.rows(rows), stored);
    }
    let nowhere = BucketId(12345);
    let command = Command::SetBucket { bucket: nowhere, setting: Setting::Cors, value: None };
    assert_eq!(world.refusal(command), Refusal::NoSuchBucket);
}
