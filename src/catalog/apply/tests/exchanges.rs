//! Two names that change places.

use super::*;
use crate::catalog::{FEATURE_LEVEL, FileOperation, Origin, RenameMode};

#[test]
fn a_file_does_not_come_where_a_directory_hides_an_object() {
    let mut world = World::new();
    assert_eq!(world.send(Command::RaiseLevel { to: FEATURE_LEVEL }), Outcome::Done);
    let bucket = world.bucket("b", Versioning::Never);
    for key in ["a", "a/k", "f", "d/k"] {
        world.put(bucket, key, 5);
    }
    let exchange = |world: &mut World, one: &'static [u8], other: &'static [u8]| {
        let at = |name| (bucket.root(), Bytes::from_static(name));
        let operation = FileOperation::Rename { from: at(one), to: at(other), mode: RenameMode::Exchange };
        world.send(Command::File { bucket, origin: Origin::default(), operation })
    };
    assert_eq!(exchange(&mut world, b"a", b"f"), Outcome::Refused(Refusal::EntryExists));
    assert_eq!(exchange(&mut world, b"f", b"a"), Outcome::Refused(Refusal::EntryExists));
    assert_eq!(exchange(&mut world, b"d", b"f"), Outcome::Done);
    assert_eq!(exchange(&mut world, b"a", b"f"), Outcome::Done, "both are directories by now");
    assert!(world.catalog.view().contradictions(5).is_empty());
}
