//! Sessions, answers that are repeated, leases.

use super::*;

#[test]
fn a_command_needs_a_live_session() {
    let mut world = World::new();
    for session in [SessionId(0), SessionId(77)] {
        let envelope = world.envelope(session, 1, Command::LeaseIds { count: 1 });
        assert_eq!(world.apply(envelope), Outcome::Refused(Refusal::NoSession));
    }
    assert_eq!(world.rows("SELECT COUNT(*) FROM outcome WHERE session IN (0, 77)"), ["0"]);
}

#[test]
fn a_repeated_command_gets_the_first_answer_and_is_not_applied_again() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Enabled);
    let command = world.put_command(bucket, "k", Body::Empty, 0);
    let envelope = world.envelope(world.session, 1000, command);
    let first = world.apply(envelope.clone());
    let before = world.dump_without_log();
    assert_eq!(world.apply(envelope.clone()), first);
    world.catalog = open(&world.dir);
    assert_eq!(world.apply(envelope), first, "after a restart");
    assert_eq!(world.dump_without_log(), before);
}

#[test]
fn acknowledged_answers_are_forgotten_and_their_commands_never_applied_again() {
    let mut world = World::new();
    let lease = |world: &World, seq, acked| Envelope {
        acked,
        ..world.envelope(world.session, seq, Command::LeaseIds { count: 1 })
    };
    for seq in 2..=10 {
        let envelope = lease(&world, seq, seq - 1);
        world.apply(envelope);
    }
    assert_eq!(world.rows("SELECT COUNT(*) FROM outcome"), ["10"], "few are not worth a write");
    let renew = Command::RenewSession { watermark: 5, retired: Vec::new() };
    let envelope = Envelope { acked: 8, ..world.envelope(world.session, 11, renew) };
    assert_eq!(world.apply(envelope), Outcome::Done);
    assert_eq!(world.rows("SELECT seq FROM outcome ORDER BY seq"), ["9", "10", "11"]);
    let envelope = lease(&world, 8, 0);
    assert!(matches!(world.apply(envelope), Outcome::Refused(Refusal::OutOfBounds(_))));
    assert_eq!(world.rows("SELECT renewals, watermark, acked FROM session"), ["1|5|8"]);
    let envelope = lease(&world, 300, 270);
    world.apply(envelope);
    assert_eq!(world.rows("SELECT seq FROM outcome ORDER BY seq"), ["300"], "many are forgotten on the way");
}

#[test]
fn a_gateway_that_opens_again_ends_its_former_session() {
    let mut world = World::new();
    let other = world.open_session("other");
    let again = world.open_session("gateway");
    let command = world.envelope(world.session, 0, Command::LeaseIds { count: 1 });
    assert_eq!(world.apply(command), Outcome::Refused(Refusal::NoSession));
    assert_eq!(world.rows("SELECT id FROM session ORDER BY id"), [other.to_string(), again.to_string()]);
    assert_eq!(world.rows("SELECT * FROM lease"), [""; 0]);
    assert_eq!(world.rows("SELECT * FROM outcome"), [""; 0]);
}

#[test]
fn a_session_expires_only_at_the_counter_its_judge_saw() {
    let mut world = World::new();
    world.send(Command::RenewSession { watermark: 1, retired: Vec::new() });
    let expire = |world: &World, renewals| {
        world.envelope(SessionId(0), 0, Command::ExpireSession { session: world.session, renewals })
    };
    let envelope = expire(&world, 0);
    assert!(matches!(world.apply(envelope), Outcome::Refused(Refusal::PreconditionFailed(_))));
    let envelope = expire(&world, 1);
    assert_eq!(world.apply(envelope.clone()), Outcome::Done);
    assert_eq!(world.apply(envelope), Outcome::Refused(Refusal::NoSession));
}

#[test]
fn only_leased_ids_that_nothing_has_name_new_things() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let named = |world: &mut World, ino| match world.put_command(bucket, "k", Body::Empty, 0) {
        Command::Put { bucket, key, size_bytes, etag, attrs, body, precondition, .. } => {
            Command::Put { bucket, key, ino, size_bytes, etag, attrs, body, precondition }
        }
        other => other,
    };
    let (used, upload, foreign) = (world.id(), world.create_upload(bucket, "u"), Ino(world.next_id.0 + 100_000));
    let command = named(&mut world, used);
    assert!(matches!(world.send(command), Outcome::Written(_)));
    for id in [used, upload, bucket.root(), foreign, Ino(0)] {
        let command = named(&mut world, id);
        assert_eq!(world.refusal(command), Refusal::NotLeased(id));
    }
    let other = world.open_session("other");
    let fresh = world.id();
    let command = named(&mut world, fresh);
    let envelope = world.envelope(other, 1, command);
    assert_eq!(world.apply(envelope), Outcome::Refused(Refusal::NotLeased(fresh)));
}

#[test]
fn retired_ids_split_leases() {
    let mut world = World::new();
    let Outcome::Ids { start, end } = world.send(Command::LeaseIds { count: 100 }) else { panic!() };
    let at = |offset: u64| Ino(start.0 + offset);
    let query = format!("SELECT start-{start}, end-{start} FROM lease WHERE start>={start}");
    for (retired, left) in [
        (vec![(at(10), at(20))], vec!["0|10", "20|100"]),
        (vec![(at(5), at(30)), (at(99), end)], vec!["0|5", "30|99"]),
        (vec![(at(0), end)], vec![]),
    ] {
        assert_eq!(world.send(Command::RenewSession { watermark: 0, retired }), Outcome::Done);
        assert_eq!(world.rows(&query), left);
    }
    assert!(matches!(world.refusal(Command::LeaseIds { count: 0 }), Refusal::OutOfBounds(_)));
}

#[test]
fn catalog_time_never_goes_back() {
    let mut world = World::new();
    for (now, then) in [(5, 5), (3, 5), (8, 8)] {
        world.send(Command::Tick { now: Timestamp(now) });
        assert_eq!(world.rows("SELECT time_ns FROM state"), [then.to_string()]);
    }
}
