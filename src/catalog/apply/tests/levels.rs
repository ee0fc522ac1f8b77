//! The feature level.

use super::*;
use crate::catalog::{Error, FEATURE_LEVEL, Levels};

fn knowing(feature_level: u32) -> Options {
    Options { feature_level, ..options() }
}

/// With a catalog at its first level, and a program that knows two more.
fn world() -> World {
    let mut world = World::new();
    world.catalog = Catalog::open(world.dir.path(), knowing(FEATURE_LEVEL + 2)).unwrap();
    world
}

fn level(world: &World) -> u32 {
    let level = world.catalog.view().feature_level().unwrap();
    assert_eq!(world.catalog.levels().reached, level);
    level
}

#[test]
fn a_level_is_raised_and_never_lowered() {
    let mut world = world();
    assert_eq!(level(&world), 1);
    assert_eq!(world.catalog.levels(), Levels { known: FEATURE_LEVEL + 2, reached: 1 });
    let raised = FEATURE_LEVEL + 1;
    let without_session = world.envelope(SessionId(0), 0, Command::RaiseLevel { to: raised });
    assert_eq!(world.apply(without_session.clone()), Outcome::Done);
    assert_eq!(level(&world), raised);
    assert_eq!(world.apply(without_session), Outcome::Done);
    assert_eq!(world.send(Command::RaiseLevel { to: 1 }), Outcome::Done);
    assert!(matches!(world.refusal(Command::RaiseLevel { to: 0 }), Refusal::OutOfBounds(_)));
    assert_eq!(level(&world), raised);
    world.catalog = Catalog::open(world.dir.path(), knowing(raised)).unwrap();
    assert_eq!(level(&world), raised);
}

#[test]
fn who_does_not_know_a_level_stops_before_it() {
    let mut world = world();
    let known = FEATURE_LEVEL + 2;
    let before = world.dump_without_log();
    let envelope = world.envelope(SessionId(0), 0, Command::RaiseLevel { to: known + 1 });
    let at = Position { term: 1, leader: 1, index: 1_000 };
    let stopped = world.catalog.apply(&[(at, Entry::Command(envelope))]).unwrap_err();
    assert!(matches!(stopped, Error::Level { found, known } if found == known + 1), "{stopped:?}");
    assert!(stopped.to_string().ends_with("a newer s3d is needed"), "{stopped}");
    assert!(world.catalog.apply(&[(at, Entry::Blank)]).is_err(), "it goes on");
    world.catalog = Catalog::open(world.dir.path(), knowing(known)).unwrap();
    assert_eq!(world.dump_without_log(), before);
}
