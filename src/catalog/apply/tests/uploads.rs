//! Multipart uploads and the drain.

use super::*;

const MIN: u64 = PART_MIN_BYTES;

#[test]
fn a_completed_upload_is_an_object_and_answers_again() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let upload = world.upload(bucket, "d/k");
    world.put_part(&upload, 2, 10);
    let dropped = world.put_part(&upload, 5, 3);
    let replaced = world.put_part(&upload, 1, MIN);
    let first = world.put_part(&upload, 1, MIN);

    let Outcome::Written(written) = world.send(upload.complete(&[1, 2])) else { panic!() };
    assert_eq!(world.rows("SELECT name, size_bytes FROM dentry WHERE kind=0"), [format!("k|{}", MIN + 10)]);
    assert_eq!(world.rows("SELECT num FROM part"), ["1", "2"]);
    assert_eq!(world.rows("SELECT off>>40, chunk FROM extent")[0], format!("1|{first}"));
    assert_eq!(world.rows("SELECT id FROM dead"), [replaced.to_string(), dropped.to_string()]);

    assert_eq!(world.send(upload.complete(&[1, 2])), Outcome::Written(written));
    assert_eq!(world.refusal(upload.complete(&[2])), Refusal::NoSuchUpload, "another list of parts");
    assert_eq!(world.refusal(upload.abort()), Refusal::NoSuchUpload);

    let forget = |before| Command::ForgetCompleted { before: Timestamp(before), row_count: 10 };
    world.send(forget(0));
    assert!(matches!(world.send(upload.complete(&[1, 2])), Outcome::Written(_)));
    world.send(forget(i64::MAX));
    assert_eq!(world.refusal(upload.complete(&[1, 2])), Refusal::NoSuchUpload);
}

#[test]
fn a_list_of_parts_must_be_right() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let upload = world.upload(bucket, "k");
    world.put_part(&upload, 1, MIN);
    world.put_part(&upload, 2, MIN - 1);
    world.put_part(&upload, 3, 1);
    for parts in [&[][..], &[2, 1], &[1, 1]] {
        assert_eq!(world.refusal(upload.complete(parts)), Refusal::InvalidPartOrder);
    }
    assert_eq!(world.refusal(upload.complete(&[1, 4])), Refusal::InvalidPart { number: 4 });
    assert_eq!(world.refusal(upload.complete(&[1, 2, 3])), Refusal::PartTooSmall { number: 2, size_bytes: MIN - 1 });
    let mut wrong_tag = upload.complete(&[1]);
    if let Command::CompleteUpload { parts, .. } = &mut wrong_tag {
        parts[0].etag = etag(99);
    }
    assert_eq!(world.refusal(wrong_tag), Refusal::InvalidPart { number: 1 });
    let elsewhere = Upload { key: Bytes::from_static(b"other"), ..upload };
    assert_eq!(world.refusal(elsewhere.complete(&[1])), Refusal::NoSuchUpload);
    let upload = Upload { key: Bytes::from_static(b"k"), ..elsewhere };
    let mut demanding = upload.complete(&[1]);
    if let Command::CompleteUpload { precondition, .. } = &mut demanding {
        precondition.if_match = Some(vec![None]);
    }
    assert_eq!(world.refusal(demanding), Refusal::NoSuchKey);
    assert!(matches!(world.send(upload.complete(&[1, 2])), Outcome::Written(_)));
}

#[test]
fn parts_share_chunks() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    world.put(bucket, "source", 100);
    let chunk = Ino(world.next_id.0 - 1);
    let upload = world.upload(bucket, "k");
    let share = |runs: &[(u64, u64)]| PartBody::Share(runs.iter().map(|(start, len)| (chunk, *start, *len)).collect());
    for (runs, size_bytes) in [(&[(50, 51)][..], 51), (&[(0, 10)], 11), (&[(0, 0)], 0), (&[], 0)] {
        let command = world.part_command(&upload, 1, share(runs), size_bytes);
        assert!(matches!(world.refusal(command), Refusal::OutOfBounds(_)));
    }
    let command = world.part_command(&upload, 1, share(&[(10, 20), (0, 100)]), 120);
    assert_eq!(world.send(command.clone()), Outcome::Done);
    assert_eq!(world.send(command), Outcome::Done, "the same part again");
    let uses = format!("SELECT nlink, refs FROM node WHERE id={chunk}");
    assert_eq!(world.rows(&uses), ["1|5"]);
    assert_eq!(world.rows("SELECT off-(1<<40), chunk_off, len_bytes FROM extent"), ["0|10|20", "20|0|100"]);
    world.delete(bucket, "source", None);
    world.drain();
    assert_eq!(world.rows(&uses), ["0|2"]);
    world.send(upload.complete(&[1]));
    world.delete(bucket, "k", None);
    world.drain();
    assert_eq!(world.rows("SELECT id FROM node"), [""; 0]);
    assert_eq!(world.rows("SELECT chunk FROM reclaim"), [chunk.to_string()]);
    let gone = world.upload(bucket, "k");
    let command = world.part_command(&gone, 1, share(&[(0, 1)]), 1);
    assert_eq!(world.refusal(command), Refusal::SourceGone);
}

#[test]
fn a_large_node_is_torn_down_in_steps() {
    for row_count in [1, 2, 3, 7] {
        let mut world = World::new();
        let bucket = world.bucket("b", Versioning::Never);
        let upload = world.upload(bucket, "k");
        for number in 1..=9 {
            world.put_part(&upload, number, 1);
        }
        let empty_part = world.part_command(&upload, 10, PartBody::Empty, 0);
        world.send(empty_part);
        world.send(upload.abort());
        assert_eq!(world.refusal(upload.abort()), Refusal::NoSuchUpload);
        let mut steps = 0;
        while world.send(Command::Drain { row_count }) != (Outcome::Drained { remaining: 0 }) {
            steps += 1;
            let share = world.put_command(bucket, "copy", Body::Share(upload.id), 9);
            assert_eq!(world.refusal(share), Refusal::SourceGone, "half torn");
        }
        assert!(steps >= 20 / row_count, "{steps} steps of {row_count}");
        for table in ["node", "extent", "part", "dead"] {
            assert_eq!(world.rows(&format!("SELECT COUNT(*) FROM {table}")), ["0"], "{table}");
        }
        assert_eq!(world.rows("SELECT COUNT(*) FROM reclaim"), ["9"]);
    }
}

#[test]
fn what_is_no_part_is_refused() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let upload = world.upload(bucket, "k");
    for (number, body, size_bytes) in [
        (0, PartBody::Empty, 0),
        (10_001, PartBody::Empty, 0),
        (1, PartBody::Empty, 1),
        (1, PartBody::Chunk { chunk: Ino(world.next_id.0), place: place(2) }, 1),
    ] {
        let command = world.part_command(&upload, number, body, size_bytes);
        assert!(matches!(world.refusal(command), Refusal::OutOfBounds(_)));
    }
    let used = world.put_part(&upload, 1, 1);
    let again = world.part_command(&upload, 2, PartBody::Chunk { chunk: used, place: place(1) }, 1);
    assert_eq!(world.refusal(again), Refusal::NotLeased(used));
    assert!(matches!(world.refusal(Command::Drain { row_count: 0 }), Refusal::OutOfBounds(_)));
}
