//! What comes late: commands that were made before things changed.

use super::*;
use crate::catalog::Lookup;

/// `command`, a put, with another id.
fn with_ino(command: Command, id: Ino) -> Command {
    let Command::Put { bucket, key, size_bytes, etag, attrs, body, precondition, .. } = command else { panic!() };
    Command::Put { bucket, key, ino: id, size_bytes, etag, attrs, body, precondition }
}

/// R: a command needs a session that lives, and new ids need to be leased to it.
#[test]
fn who_slept_past_its_session_changes_nothing() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    world.put(bucket, "kept", 1);
    // About to be proposed when the gateway falls asleep.
    let (id, delete) = (world.id(), Command::Delete { bucket, keys: vec![target("kept", None)] });
    let put = with_ino(world.put_command(bucket, "k", Body::Chunk(place(20)), 20), id);
    let sleeper = world.session;
    let expire = world.envelope(SessionId(0), 0, Command::ExpireSession { session: sleeper, renewals: 0 });
    assert_eq!(world.apply(expire), Outcome::Done);
    let successor = world.open_session("gateway");

    let before = world.dump_without_log();
    for (session, seq, command, refusal) in [
        (sleeper, 1000, put.clone(), Refusal::NoSession),
        (sleeper, 1001, delete, Refusal::NoSession),
        // It learns of its new session, and still has ids of the former.
        (successor, 1, put, Refusal::NotLeased(id)),
    ] {
        let envelope = world.envelope(session, seq, command);
        assert_eq!(world.apply(envelope), Outcome::Refused(refusal));
    }
    assert_eq!(world.dump_without_log(), before);
}

/// R: (session, sequence) with its outcome is a row: a command is applied at most once.
#[test]
fn a_retry_undoes_nothing_that_others_did_since() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    world.put(bucket, "k", 1);
    let other = world.open_session("other");
    let lease = world.envelope(other, 1, Command::LeaseIds { count: 10 });
    let Outcome::Ids { start, .. } = world.apply(lease) else { panic!() };
    let put = world.put_command(bucket, "k", Body::Chunk(place(2)), 2);
    let delete = Command::Delete { bucket, keys: vec![target("k", None)] };
    for (nth, command) in (0..).zip([put, delete]) {
        let mine = world.envelope(world.session, 1000 + nth, command);
        let first = world.apply(mine.clone());
        // The answer is lost on its way, and meanwhile:
        let tag = 70 + nth;
        let theirs = world.put_command(bucket, "k", Body::Chunk(place(tag)), tag);
        let theirs = world.envelope(other, 2 + nth, with_ino(theirs, Ino(start.0 + nth)));
        assert!(matches!(world.apply(theirs), Outcome::Written(_)));
        assert_eq!(world.apply(mine), first);
        let Lookup::Found(version) = world.catalog.view().lookup(bucket, b"k", None).unwrap() else {
            panic!("what others wrote is gone")
        };
        assert_eq!(version.etag, etag(tag as u8), "what others wrote is still there");
    }
}
