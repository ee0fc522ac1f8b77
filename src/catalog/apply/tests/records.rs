//! Access keys and records.

use super::*;
use crate::catalog::{FEATURE_LEVEL, RECORD_MAX_BYTES, RecordKind};

#[test]
fn credentials_come_and_go() {
    let mut world = World::new();
    let set = |value: Option<&str>| Command::SetCredential {
        access_key: "key".into(),
        value: value.map(|account| (account.to_owned(), Bytes::from_static(b"secret"))),
    };
    let changes = world.catalog.readers().changes().clone();
    for (value, stored) in [(Some("a"), vec!["key|a|secret"]), (Some("b"), vec!["key|b|secret"]), (None, vec![])] {
        let before = changes.access();
        assert_eq!(world.send(set(value)), Outcome::Done);
        assert_eq!(world.rows("SELECT * FROM credential"), stored);
        assert_eq!(changes.access(), before + 1);
    }
}

fn set(kind: RecordKind, was: Option<&'static str>, value: Option<&'static str>) -> Command {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    Command::SetRecord { kind, name: "name".into(), was: was.map(bytes), value: value.map(bytes) }
}

#[test]
fn a_record_is_changed_by_who_has_seen_it() {
    let mut world = World::new();
    assert!(matches!(world.refusal(set(RecordKind::User, None, Some("a"))), Refusal::OutOfBounds(_)));
    assert_eq!(world.catalog.view().records(RecordKind::User).unwrap(), []);
    world.send(Command::RaiseLevel { to: FEATURE_LEVEL });
    let changes = world.catalog.readers().changes().clone();
    for kind in [RecordKind::User, RecordKind::Token, RecordKind::Node] {
        let before = changes.access();
        assert_eq!(world.send(set(kind, None, Some("a"))), Outcome::Done);
        assert_eq!(changes.access() > before, kind == RecordKind::User);
        for was in [None, Some("b")] {
            for value in [None, Some("c")] {
                assert_eq!(world.refusal(set(kind, was, value)), Refusal::RecordChanged);
            }
        }
        let stored = || Some(Bytes::from_static(b"a"));
        assert_eq!(world.catalog.view().record(kind, "name").unwrap(), stored());
        assert_eq!(world.send(set(kind, Some("a"), Some("b"))), Outcome::Done);
        assert_eq!(world.catalog.view().records(kind).unwrap(), [("name".to_owned(), Bytes::from_static(b"b"))]);
        assert_eq!(world.send(set(kind, Some("b"), None)), Outcome::Done);
        assert_eq!(world.catalog.view().record(kind, "name").unwrap(), None);
        assert_eq!(world.send(set(kind, None, None)), Outcome::Done);
    }
}

#[test]
fn what_is_too_long_is_no_record() {
    let mut world = World::new();
    world.send(Command::RaiseLevel { to: FEATURE_LEVEL });
    let record = |name: usize, len: usize| Command::SetRecord {
        kind: RecordKind::User,
        name: "n".repeat(name),
        was: None,
        value: Some(vec![0; len].into()),
    };
    for (name, len) in [(0, 1), (129, 1), (1, RECORD_MAX_BYTES + 1)] {
        assert!(matches!(world.refusal(record(name, len)), Refusal::OutOfBounds(_)), "{name} {len}");
    }
    assert_eq!(world.send(record(128, RECORD_MAX_BYTES)), Outcome::Done);
}
