//! What the writer costs.

use std::time::Instant;

use super::*;
use crate::catalog::{CLONE_STEP_MAX, CloneOperation, FEATURE_LEVEL};

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
    let (start, start_cpu_us) = (Instant::now(), cpu_us());
    for batch in entries.chunks(BATCH_LEN) {
        let outcomes = world.catalog.apply(batch).unwrap();
        assert!(outcomes.iter().all(|outcome| !matches!(outcome, Outcome::Refused(_))));
    }
    let cost_us = start.elapsed().as_secs_f64() * 1e6 / KEY_COUNT as f64;
    let cost_cpu_us = (cpu_us() - start_cpu_us) / KEY_COUNT as f64;
    println!("{what}: {cost_us:.1} us, {cost_cpu_us:.1} us of processor");
    world.log.extend(entries.pop());
}

/// Time that this thread had a processor: what counts on a machine that others use too.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e3
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
    let dead: f64 = world.rows("SELECT COUNT(*) FROM dead")[0].parse().unwrap();
    let (start, start_cpu_us) = (Instant::now(), cpu_us());
    world.drain();
    let cost_us = start.elapsed().as_secs_f64() * 1e6 / dead;
    println!("drain: {cost_us:.1} us a node, {:.1} us of processor", (cpu_us() - start_cpu_us) / dead);
}

#[test]
#[ignore = "a measurement: run it in release, alone"]
fn speed_of_clones() {
    const COUNT: u64 = 200_000;
    let mut world = World::new();
    assert_eq!(world.send(Command::RaiseLevel { to: FEATURE_LEVEL }), Outcome::Done);
    let bucket = world.bucket("b", Versioning::Never);
    for _ in 0..8 {
        world.send(Command::LeaseIds { count: 65_536 });
    }
    let put = |world: &mut World, number: u64| {
        world.put_command(bucket, &format!("d/{:03}/{number:09}", number / 1000), Body::Chunk(place(9)), 9)
    };
    for round in 0..COUNT / KEY_COUNT {
        measure(&mut world, "PUT, sequential names", |world, number| put(world, round * KEY_COUNT + number));
    }
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let (prefix, to, label) = (bytes("d/"), bytes("e/"), String::new());
    let begin = CloneOperation::Begin { source: bucket, prefix, target: bucket, to, label };
    let Outcome::Cloning { clone, .. } = world.send(Command::Clone(begin)) else { panic!() };
    let go_on = |world: &mut World, what: &str| {
        let (start, start_cpu_us, mut longest) = (Instant::now(), cpu_us(), std::time::Duration::ZERO);
        let mut command_count = 0;
        loop {
            let began = Instant::now();
            let advance = CloneOperation::Advance { clone, entry_count: CLONE_STEP_MAX };
            let outcome = world.send(Command::Clone(advance));
            world.log.drain(..world.log.len() - 1);
            (longest, command_count) = (longest.max(began.elapsed()), command_count + 1);
            match outcome {
                Outcome::Cloning { is_over: false, .. } => {}
                Outcome::Cloning { is_over: true, .. } => break,
                other => panic!("{other:?}"),
            }
        }
        let count = COUNT as f64;
        let cost_us = start.elapsed().as_secs_f64() * 1e6 / count;
        let cost_cpu_us = (cpu_us() - start_cpu_us) / count;
        println!(
            "{what}: {cost_us:.2} us, {cost_cpu_us:.2} us of processor; {command_count} commands, at most {longest:?}"
        );
    };
    go_on(&mut world, "a key cloned");
    world.send(Command::Clone(CloneOperation::Remove { clone }));
    go_on(&mut world, "a key erased");
    let (start, start_cpu_us) = (Instant::now(), cpu_us());
    world.drain();
    let cost_us = start.elapsed().as_secs_f64() * 1e6 / COUNT as f64;
    println!("drain: {cost_us:.2} us a key, {:.2} us of processor", (cpu_us() - start_cpu_us) / COUNT as f64);
}
