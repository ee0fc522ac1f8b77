//! What the writer costs.

use std::time::Instant;

use super::*;

const KEY_COUNT: u64 = 100_000;
const BATCH_LEN: usize = 512;

/// Applies what `command` makes of 0 to `KEY_COUNT`, and prints what one costs.
fn measure(world: &mut World, what: &str, mut command: impl FnMut(&mut World, u64) -> Command) {
    let first = world.log.last().map_or(1, |(position, _)| position.index + 1);
    let mut entries = Vec::new();
    for number in 0..KEY_COUNT {
        let command = command(world, number);
        world.seq += 1;
        let acked = world.seq.saturating_sub(64);
        let envelope = Envelope { acked, ..world.envelope(world.session, world.seq, command) };
        entries.push((Position { term: 1, leader: 1, index: first + number }, Entry::Command(envelope)));
    }
    let start = Instant::now();
    for batch in entries.chunks(BATCH_LEN) {
        let outcomes = world.catalog.apply(batch).unwrap();
        assert!(outcomes.iter().all(|outcome| !matches!(outcome, Outcome::Refused(_))));
    }
    let cost_us = start.elapsed().as_secs_f64() * 1e6 / KEY_COUNT as f64;
    println!("{what}: {cost_us:.1} us");
    world.log.extend(entries.pop());
}

/// Random names, 16 hexadecimal digits.
fn scattered(number: u64) -> String {
    format!("{:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

#[test]
#[ignore = "a measurement: run it in release, alone"]
fn speed_of_apply() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let lease = |world: &mut World| {
        for _ in 0..8 {
            world.send(Command::LeaseIds { count: 65_536 });
        }
    };
    lease(&mut world);
    let Outcome::Ids { start, .. } = world.send(Command::LeaseIds { count: 65_536 }) else { panic!() };
    assert!(start.0 > world.next_id.0);
    let put = |world: &mut World, number: u64| world.put_command(bucket, &scattered(number), Body::Chunk(place(9)), 9);
    let in_order =
        |world: &mut World, number: u64| world.put_command(bucket, &format!("d/{number:09}"), Body::Chunk(place(9)), 9);
    let delete = |_: &mut World, number: u64| Command::Delete { bucket, keys: vec![target(&scattered(number), None)] };
    measure(&mut world, "PUT, sequential names", in_order);
    measure(&mut world, "PUT, random names", put);
    measure(&mut world, "overwrite", put);
    measure(&mut world, "delete", delete);
    let start = Instant::now();
    let before: u64 = world.rows("SELECT COUNT(*) FROM dead")[0].parse().unwrap();
    world.drain();
    println!("drain: {:.1} us a node", start.elapsed().as_secs_f64() * 1e6 / before as f64);
}
