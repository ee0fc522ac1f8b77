//! Contents of several chunks; chunks of shards: under which ids they come, where they go, when they are to be repaired.

use super::*;
use crate::catalog::{Due, Extent, Manifest, NEW_CHUNK_COUNT_MAX, NewChunk, Repair};
use crate::ids::{LogIndex, ShardId};
use crate::units::{CHUNK_BYTES, MIB};

const REPAIR: &str = "SELECT chunk, missing FROM repair ORDER BY chunk";
const RECLAIM: &str = "SELECT chunk FROM reclaim ORDER BY seq";

/// Shards of a chunk of `len_bytes`, by index, on nodes 1 and up; name 0: it is nowhere.
fn rs(data_count: u8, shards: &[u64], len_bytes: u64) -> Place {
    let parity_count = (shards.len() as u8).saturating_sub(data_count);
    let shards = (1..).map(NodeId).zip(shards.iter().map(|shard| ShardId(*shard))).collect();
    let layout = Layout::Rs { data_count, parity_count, epoch: 1, shards, key_id: 1, wrapped_key: vec![7; 8] };
    Place { layout, len_bytes, live_bytes: len_bytes }
}

fn chunk(id: Ino, place: Place) -> NewChunk {
    NewChunk { id, place, short: false }
}

fn swap(chunk: Ino, from: &Place, to: &Place, short: bool) -> Command {
    let due = if short { Due::Yes } else { Due::No };
    Command::Swap { chunk, from: from.clone(), to: to.clone(), due, verified: false }
}

impl World {
    /// A chunk of two shards, with fresh ids.
    fn new_chunk(&mut self, len_bytes: u64) -> NewChunk {
        let [id, left, right] = [(); 3].map(|()| self.id());
        chunk(id, rs(1, &[left.0, right.0], len_bytes))
    }

    fn put_chunks(&mut self, bucket: BucketId, key: &str, chunks: &[NewChunk]) -> Ino {
        let size_bytes = chunks.iter().map(|chunk| chunk.place.len_bytes).sum();
        self.put_body(bucket, key, Body::Chunks(chunks.to_vec()), size_bytes);
        Ino(self.next_id.0 - 1)
    }

    fn extents(&self, ino: Ino) -> Vec<Extent> {
        match self.catalog.view().manifest(ino, 0..u64::MAX).unwrap() {
            Manifest::Extents(extents) => extents,
            other => panic!("{other:?}"),
        }
    }

    fn check_sound(&self) {
        assert_eq!(self.catalog.view().contradictions(3), Vec::<String>::new());
    }

    /// The places in `reclaim`, in the order of their deaths.
    fn dying(&self) -> Vec<Place> {
        let rows = self.catalog.view().reclaimable(LogIndex(u64::MAX), 100).unwrap();
        rows.into_iter().map(|row| row.place).collect()
    }
}

/// What each extent of a content is: (start, chunk, start in the chunk, length).
fn runs(extents: &[Extent]) -> Vec<(u64, Ino, u64, u64)> {
    extents.iter().map(|at| (at.start_bytes, at.chunk, at.chunk_start_bytes, at.len_bytes)).collect()
}

/// A file of 100 bytes, an object that shares it, and a part that lies in the middle of it.
#[test]
fn who_uses_a_file_reads_what_it_was_split_into() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    world.put(bucket, "file", 100);
    let file = Ino(world.next_id.0 - 1);
    world.put_body(bucket, "copy", Body::Share(file), 100);
    let copy = Ino(world.next_id.0 - 1);
    let upload = world.upload(bucket, "parts");
    let command = world.part_command(&upload, 2, PartBody::Share(vec![(file, 30, 60)]), 60);
    assert_eq!(world.send(command), Outcome::Done);
    assert!(matches!(world.send(upload.complete(&[2])), Outcome::Written(_)));

    let [one, two, three] = [50, 30, 20].map(|len_bytes| world.new_chunk(len_bytes));
    let pieces = vec![one.clone(), two.clone(), three.clone()];
    let split = |from: Place, pieces: Vec<NewChunk>| Command::Split { chunk: file, from, pieces };
    let elsewhere = Place { layout: Layout::Plain { node: NodeId(9) }, ..place(100) };
    assert_eq!(world.refusal(split(elsewhere, pieces.clone())), Refusal::PlaceChanged(file));
    assert!(matches!(world.refusal(split(place(100), vec![one.clone(), two.clone()])), Refusal::OutOfBounds(_)));
    assert!(matches!(world.refusal(split(place(100), vec![chunk(one.id, place(100))])), Refusal::OutOfBounds(_)));
    let shards = one.place.clone();
    assert!(matches!(world.refusal(split(shards, pieces.clone())), Refusal::OutOfBounds(_)));
    assert_eq!(world.send(split(place(100), pieces.clone())), Outcome::Done);
    assert_eq!(world.refusal(split(place(100), pieces)), Refusal::PlaceChanged(file));

    let whole = [(0, one.id, 0, 50), (50, two.id, 0, 30), (80, three.id, 0, 20)];
    for ino in [file, copy] {
        assert_eq!(runs(&world.extents(ino)), whole);
    }
    let part = [(0, one.id, 30, 20), (20, two.id, 0, 30), (50, three.id, 0, 10)];
    assert_eq!(runs(&world.extents(upload.id)), part);
    let Manifest::Extents(middle) = world.catalog.view().manifest(upload.id, 25..30).unwrap() else { panic!() };
    assert_eq!(runs(&middle), [(20, two.id, 0, 30)]);
    assert_eq!(world.rows(RECLAIM), [file.to_string()]);
    assert_eq!(world.dying(), [place(100)]);
    world.check_sound();

    // The pieces go with the last who uses them.
    world.delete(bucket, "file", None);
    world.delete(bucket, "copy", None);
    world.drain();
    assert_eq!(runs(&world.extents(upload.id)), part);
    world.delete(bucket, "parts", None);
    world.drain();
    world.check_sound();
    assert_eq!(world.rows("SELECT count(*) FROM node"), ["0"]);
    assert_eq!(world.dying().len(), 4);
}

#[test]
fn a_content_of_chunks_has_an_extent_for_each() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let chunks = [10, 20, 30].map(|len_bytes| world.new_chunk(len_bytes));
    let ino = world.put_chunks(bucket, "k", &chunks);
    let (mut start_bytes, mut expected) = (0, Vec::new());
    for NewChunk { id, place, .. } in &chunks {
        let len_bytes = place.len_bytes;
        expected.push(Extent { start_bytes, chunk: *id, chunk_start_bytes: 0, len_bytes, place: place.clone() });
        start_bytes += len_bytes;
    }
    assert_eq!(world.extents(ino), expected);
    let Manifest::Extents(middle) = world.catalog.view().manifest(ino, 10..30).unwrap() else { panic!() };
    assert_eq!(middle, expected[1..2]);
    assert_eq!(world.rows("SELECT object_count, size_bytes FROM usage"), ["1|60"]);

    world.put_body(bucket, "copy", Body::Share(ino), 60);
    let copy = Ino(world.next_id.0 - 1);
    world.delete(bucket, "k", None);
    world.drain();
    assert_eq!(world.extents(copy), expected);
    world.check_sound();
    world.delete(bucket, "copy", None);
    world.drain();
    assert_eq!(world.rows("SELECT id FROM node UNION ALL SELECT ino FROM extent"), [""; 0]);
    assert_eq!(world.dying(), chunks.map(|chunk| chunk.place));
}

#[test]
fn an_only_chunk_may_be_the_node_itself() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let new = world.new_chunk(10);
    let mut command = world.put_command(bucket, "k", Body::Chunks(vec![new.clone()]), 10);
    if let Command::Put { ino, .. } = &mut command {
        *ino = new.id;
    }
    assert!(matches!(world.send(command), Outcome::Written(_)));
    assert_eq!(world.rows("SELECT id, form, refs FROM node"), [format!("{}|1|1", new.id)]);
    assert_eq!(world.rows("SELECT * FROM extent"), [""; 0]);
    let other = world.new_chunk(10);
    let ino = world.put_chunks(bucket, "other", std::slice::from_ref(&other));
    assert_eq!(world.extents(ino)[0].chunk, other.id);
    world.check_sound();
}

/// R: a command that names new ids carries its session, which lives and leases them.
#[test]
fn only_leased_ids_name_chunks_and_shards_and_each_once() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let used = world.new_chunk(10);
    world.put_chunks(bucket, "used", std::slice::from_ref(&used));
    let [a, b, c] = [(); 3].map(|()| world.id());
    let foreign = Ino(world.next_id.0 + 100_000);
    let upload = world.upload(bucket, "u");
    let not_leased = [
        (vec![chunk(foreign, rs(1, &[b.0, c.0], 10))], foreign),
        (vec![chunk(a, rs(1, &[b.0, foreign.0], 10))], foreign),
        (vec![chunk(a, place(5)), chunk(b, rs(1, &[foreign.0, 0], 5))], foreign),
        (vec![chunk(a, place(5)), chunk(used.id, place(5))], used.id),
        (vec![chunk(a, rs(1, &[u64::MAX], 10))], Ino(u64::MAX)),
    ];
    let twice = [
        vec![chunk(a, place(5)), chunk(a, place(5))],
        vec![chunk(a, rs(1, &[b.0, b.0], 10))],
        vec![chunk(a, rs(1, &[a.0, b.0], 10))],
        vec![chunk(a, rs(1, &[b.0], 5)), chunk(c, rs(1, &[b.0], 5))],
    ];
    for chunks in twice {
        let command = world.put_command(bucket, "k", Body::Chunks(chunks.clone()), 10);
        assert!(matches!(world.refusal(command), Refusal::OutOfBounds(_)));
        let command = world.part_command(&upload, 1, PartBody::Chunks(chunks), 10);
        assert!(matches!(world.refusal(command), Refusal::OutOfBounds(_)));
    }
    for (chunks, id) in not_leased {
        let command = world.put_command(bucket, "k", Body::Chunks(chunks.clone()), 10);
        assert_eq!(world.refusal(command), Refusal::NotLeased(id));
        let command = world.part_command(&upload, 1, PartBody::Chunks(chunks.clone()), 10);
        assert_eq!(world.refusal(command), Refusal::NotLeased(id));
    }
    for body in [Body::Chunk(rs(1, &[foreign.0], 10)), Body::Chunks(vec![chunk(foreign, place(10))])] {
        let command = world.put_command(bucket, "k", body, 10);
        assert_eq!(world.refusal(command), Refusal::NotLeased(foreign));
    }
    let mut holder = world.put_command(bucket, "k", Body::Chunks(vec![chunk(a, place(5)), chunk(b, place(5))]), 10);
    if let Command::Put { ino, .. } = &mut holder {
        *ino = a;
    }
    assert!(matches!(world.refusal(holder), Refusal::OutOfBounds(_)), "a node that is one of its chunks");

    let other = world.open_session("other");
    let command = world.put_command(bucket, "k", Body::Chunks(vec![chunk(a, rs(1, &[b.0, c.0], 10))]), 10);
    let Outcome::Ids { start, .. } = world.apply(world.envelope(other, 1, Command::LeaseIds { count: 9 })) else {
        panic!()
    };
    let mut stolen = command.clone();
    if let Command::Put { ino, .. } = &mut stolen {
        *ino = start;
    }
    let envelope = world.envelope(other, 2, stolen);
    assert_eq!(world.apply(envelope), Outcome::Refused(Refusal::NotLeased(a)), "another session's");
    assert!(matches!(world.send(command), Outcome::Written(_)));
    world.check_sound();
}

#[test]
fn places_that_nobody_could_read_are_refused() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let (a, b) = (world.id(), world.id());
    let upload = world.upload(bucket, "u");
    let mut too_few = rs(1, &[b.0], 10);
    if let Layout::Rs { parity_count, .. } = &mut too_few.layout {
        *parity_count = 1;
    }
    let places =
        [rs(1, &[0, 0], 10), rs(2, &[b.0, 0], 10), rs(0, &[b.0], 10), rs(1, &[], 10), rs(1, &[b.0], 0), too_few];
    for wrong in places {
        let size_bytes = wrong.len_bytes;
        for body in [Body::Chunk(wrong.clone()), Body::Chunks(vec![chunk(a, wrong.clone())])] {
            let command = world.put_command(bucket, "k", body, size_bytes);
            assert!(matches!(world.refusal(command), Refusal::OutOfBounds(_)), "{wrong:?}");
        }
        let command = world.part_command(&upload, 1, PartBody::Chunk { chunk: a, place: wrong }, size_bytes);
        assert!(matches!(world.refusal(command), Refusal::OutOfBounds(_)));
    }
    let long = Body::Chunks(vec![chunk(a, rs(1, &[b.0], CHUNK_BYTES + 1))]);
    let command = world.put_command(bucket, "k", long, CHUNK_BYTES + 1);
    assert!(matches!(world.refusal(command), Refusal::OutOfBounds(_)));
    let sum = Body::Chunks(vec![chunk(a, place(5)), chunk(b, place(5))]);
    let command = world.put_command(bucket, "k", sum, 9);
    assert!(matches!(world.refusal(command), Refusal::OutOfBounds(_)));
}

#[test]
fn a_command_names_a_bounded_number_of_chunks() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let mut chunks: Vec<NewChunk> = (0..NEW_CHUNK_COUNT_MAX).map(|_| world.new_chunk(1)).collect();
    let count = chunks.len() as u64;
    world.put_chunks(bucket, "k", &chunks);
    chunks.iter_mut().for_each(|new| *new = world.new_chunk(1));
    let one_more = world.new_chunk(1);
    for wrong in [[chunks.clone(), vec![one_more]].concat(), Vec::new()] {
        let size_bytes = wrong.len() as u64;
        let command = world.put_command(bucket, "k", Body::Chunks(wrong), size_bytes);
        assert!(matches!(world.refusal(command), Refusal::OutOfBounds(_)));
    }
    if let Layout::Rs { wrapped_key, .. } = &mut chunks[3].place.layout {
        *wrapped_key = vec![0; MIB as usize];
    }
    let command = world.put_command(bucket, "k", Body::Chunks(chunks), count);
    assert!(matches!(world.refusal(command), Refusal::OutOfBounds(_)));
}

#[test]
fn what_is_below_target_is_to_be_repaired_until_it_is_gone() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let [whole, mut short, mut lacking] = [(); 3].map(|()| world.new_chunk(10));
    short.short = true;
    let ids = [world.id(), world.id()];
    lacking.place = rs(2, &[ids[0].0, 0, ids[1].0, 0], 10);
    world.put_chunks(bucket, "k", &[lacking.clone(), whole.clone(), short.clone()]);
    let due = [format!("{}|\\x02\\x00\\x00", short.id), format!("{}|\\x02\\x02\\x01\\x03\\x00", lacking.id)];
    assert_eq!(world.rows(REPAIR), due);
    let repair = |missing: &[u8]| Repair { missing: missing.to_vec(), is_suspect: false };
    let expected = [(short.id, short.place.clone(), repair(&[])), (lacking.id, lacking.place.clone(), repair(&[1, 3]))];
    let view = world.catalog.view();
    assert_eq!(view.repairs(None, 10).unwrap(), expected);
    assert_eq!(view.repairs(None, 1).unwrap(), expected[..1]);
    assert_eq!(view.repairs(Some(short.id), 10).unwrap(), expected[1..]);
    assert_eq!(view.repair_count().unwrap(), 2);
    world.check_sound();

    let (upload, mut part) = (world.upload(bucket, "u"), world.new_chunk(10));
    part.short = true;
    let command = world.part_command(&upload, 1, PartBody::Chunks(vec![part.clone()]), 10);
    assert_eq!(world.send(command), Outcome::Done);
    assert_eq!(world.rows(REPAIR).len(), 3);
    world.send(upload.abort());
    world.delete(bucket, "k", None);
    assert_eq!(world.catalog.view().repair_count().unwrap(), 3, "there until the drain");
    world.drain();
    assert_eq!(world.rows(REPAIR), [""; 0]);
    world.check_sound();
}

#[test]
fn a_swap_changes_only_the_place_it_saw() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let NewChunk { id, place: first, .. } = world.new_chunk(10);
    world.put_chunks(bucket, "k", &[chunk(id, first.clone())]);
    let [a, b, c] = [(); 3].map(|()| world.id().0);
    let (repaired, moved) = (rs(1, &[a, b], 10), rs(1, &[c, a], 10));

    let mut other_epoch = first.clone();
    if let Layout::Rs { epoch, .. } = &mut other_epoch.layout {
        *epoch += 1;
    }
    for wrong in [&repaired, &other_epoch, &place(10)] {
        let command = swap(id, wrong, &moved, false);
        assert_eq!(world.refusal(command), Refusal::PlaceChanged(id));
    }
    // Of a repair and a mover that saw the same place, one comes second.
    let seen = Place { live_bytes: 3, ..first.clone() };
    let command = swap(id, &seen, &Place { live_bytes: 4, ..repaired.clone() }, false);
    assert_eq!(world.send(command), Outcome::Done);
    let command = swap(id, &seen, &rs(1, &[c], 10), false);
    assert_eq!(world.refusal(command), Refusal::PlaceChanged(id));
    assert_eq!(world.catalog.view().places(None, 10).unwrap(), [(id, repaired.clone())], "its own live bytes");

    let stranger = world.id();
    let command = swap(stranger, &first, &moved, false);
    assert_eq!(world.refusal(command), Refusal::PlaceChanged(stranger));
    world.delete(bucket, "k", None);
    world.drain();
    let d = world.id().0;
    let command = swap(id, &repaired, &rs(1, &[a, d], 10), false);
    assert_eq!(world.refusal(command), Refusal::PlaceChanged(id), "torn down");
}

#[test]
fn a_swap_reclaims_what_it_leaves_behind_and_nothing_else() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let ids: Vec<u64> = (0..9).map(|_| world.id().0).collect();
    let id = world.id();
    let steps = [
        (place(10), None),
        (rs(2, &[ids[0], ids[1], 0], 10), Some(place(10))),
        (rs(2, &[ids[0], ids[1], ids[2]], 10), None),
        (rs(2, &[ids[0], ids[3], ids[2]], 10), Some(rs(2, &[0, ids[1], 0], 10))),
        (rs(2, &[ids[0], ids[3], ids[2]], 10), None),
        (rs(2, &[ids[0], ids[3], ids[2], ids[4]], 10), None),
        (rs(1, &[ids[5], ids[6]], 10), Some(rs(2, &[ids[0], ids[3], ids[2], ids[4]], 10))),
    ];
    world.put_chunks(bucket, "k", &[chunk(id, steps[0].0.clone())]);
    let mut dying = Vec::new();
    for pair in steps.windows(2) {
        let [(from, _), (to, left)] = pair else { panic!() };
        let command = swap(id, from, to, false);
        assert_eq!(world.send(command), Outcome::Done);
        if let Some(left) = left {
            dying.push(left.clone());
            let died = world.log.last().unwrap().0.index.to_string();
            assert_eq!(world.rows("SELECT max(died) FROM reclaim"), [died], "slow reads keep it");
        }
        assert_eq!(world.dying(), dying);
        world.check_sound();
    }
    world.delete(bucket, "k", None);
    world.drain();
    dying.push(steps[6].0.clone());
    assert_eq!(world.dying(), dying);
    assert_eq!(world.rows(RECLAIM).len(), 4);
    let behind = world.catalog.view().reclaimable_after(2, LogIndex(u64::MAX), 1).unwrap();
    assert_eq!(behind.into_iter().map(|row| (row.row, row.place)).collect::<Vec<_>>(), [(3, dying[2].clone())]);
}

#[test]
fn a_swap_names_only_new_shards_that_are_leased() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let NewChunk { id, place: first, .. } = world.new_chunk(10);
    world.put_chunks(bucket, "k", &[chunk(id, first.clone())]);
    let shards: Vec<u64> = first.layout.shards().iter().map(|(_, shard)| shard.0).collect();
    let (fresh, foreign) = (world.id().0, world.next_id.0 + 100_000);
    let command = swap(id, &first, &rs(1, &[shards[0], foreign], 10), false);
    assert_eq!(world.refusal(command), Refusal::NotLeased(Ino(foreign)));
    for wrong in [
        rs(1, &[shards[1], shards[0]], 10), // each would be reclaimed where it was and named where it is not
        rs(1, &[fresh, fresh], 10),
        rs(1, &[id.0, fresh], 10),
        rs(1, &[0, 0], 10),
        rs(1, &[fresh, shards[1]], 11),
        place(10), // the reclaim of an earlier file of this chunk would take it
    ] {
        let command = swap(id, &first, &wrong, false);
        assert!(matches!(world.refusal(command), Refusal::OutOfBounds(_)), "{wrong:?}");
    }
    // What was named stays named though its lease has ended; what is new must be leased to this session.
    let retired = vec![(id, Ino(fresh))];
    world.send(Command::RenewSession { watermark: 0, retired });
    let other = world.open_session("other");
    let command = swap(id, &first, &rs(1, &[shards[0], fresh], 10), false);
    let envelope = world.envelope(other, 1, command.clone());
    assert_eq!(world.apply(envelope), Outcome::Refused(Refusal::NotLeased(Ino(fresh))));
    assert_eq!(world.send(command), Outcome::Done);
}

#[test]
fn marks_come_by_command_and_go_by_a_good_swap() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let [one, mut two] = [(); 2].map(|()| world.new_chunk(10));
    let shard = two.place.layout.shards()[0].1.0;
    two.place = rs(1, &[shard, 0], 10);
    let ino = world.put_chunks(bucket, "k", &[one.clone(), two.clone()]);
    let (dead, fresh) = (world.new_chunk(10), world.id());
    world.put_chunks(bucket, "dead", std::slice::from_ref(&dead));
    world.delete(bucket, "dead", None);
    world.drain();
    let chunks = vec![one.id, two.id, one.id, dead.id, ino, Ino(0), Ino(u64::MAX)];
    assert_eq!(world.send(Command::MarkRepair { chunks, damaged: false }), Outcome::Done);
    let (marked, lacking) = (format!("{}|\\x02\\x00\\x00", one.id), format!("{}|\\x02\\x01\\x01\\x00", two.id));
    assert_eq!(world.rows(REPAIR), [marked.clone(), lacking.clone()]);
    world.check_sound();

    let command = swap(one.id, &one.place, &one.place, true);
    world.send(command);
    assert_eq!(world.rows(REPAIR), [marked.clone(), lacking.clone()], "still short");
    let moved = |due, verified| {
        let place = || one.place.clone();
        Command::Swap { chunk: one.id, from: place(), to: place(), due, verified }
    };
    let mark = |damaged| Command::MarkRepair { chunks: vec![one.id], damaged };
    let unverified = [Due::AsBefore, Due::Yes, Due::No].map(|due| moved(due, false));
    for command in [mark(true), mark(false)].into_iter().chain(unverified) {
        assert_eq!(world.send(command), Outcome::Done);
    }
    let suspect = format!("{}|\\x02\\x00\\x01", one.id);
    assert_eq!(world.rows(REPAIR), [suspect, lacking.clone()], "nobody has verified it");
    world.send(moved(Due::Yes, true));
    assert_eq!(world.rows(REPAIR), [marked, lacking.clone()], "verified, and still short");
    let command = swap(one.id, &one.place, &one.place, false);
    world.send(command);
    assert_eq!(world.rows(REPAIR), std::slice::from_ref(&lacking), "looked at, and whole");
    let command = swap(two.id, &two.place, &two.place, false);
    world.send(command);
    assert_eq!(world.rows(REPAIR), [lacking], "a shard that is nowhere is missing, whatever is said");
    let command = swap(two.id, &two.place, &rs(1, &[shard, fresh.0], 10), false);
    world.send(command);
    assert_eq!(world.rows(REPAIR), [""; 0]);
    world.check_sound();
    let chunks = vec![one.id; 4097];
    assert!(matches!(world.refusal(Command::MarkRepair { chunks, damaged: true }), Refusal::OutOfBounds(_)));
}

#[test]
fn parts_of_chunks_are_completed_copied_and_torn_down() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let upload = world.upload(bucket, "k");
    let replaced = [3, 4].map(|len_bytes| world.new_chunk(len_bytes));
    let first = [PART_MIN_BYTES, 10].map(|len_bytes| world.new_chunk(len_bytes));
    let last = [20, 30].map(|len_bytes| world.new_chunk(len_bytes));
    for (number, chunks) in [(1, &replaced), (1, &first), (2, &last)] {
        let size_bytes = chunks.iter().map(|chunk| chunk.place.len_bytes).sum();
        let command = world.part_command(&upload, number, PartBody::Chunks(chunks.to_vec()), size_bytes);
        assert_eq!(world.send(command), Outcome::Done);
    }
    assert!(matches!(world.send(upload.complete(&[1, 2])), Outcome::Written(_)));
    let chunks = [first, last].concat();
    let found: Vec<(Ino, u64)> = world.extents(upload.id).iter().map(|at| (at.chunk, at.start_bytes)).collect();
    let starts = [0, PART_MIN_BYTES, PART_MIN_BYTES + 10, PART_MIN_BYTES + 30];
    assert_eq!(found, chunks.iter().map(|chunk| chunk.id).zip(starts).collect::<Vec<_>>());
    assert_eq!(world.catalog.view().object_part(upload.id, 1).unwrap(), Some((2, PART_MIN_BYTES + 10, 50)));

    // A range of it, across chunks, is a part of another.
    let copy = world.upload(bucket, "copy");
    let runs = vec![(chunks[1].id, 5, 5), (chunks[2].id, 0, 20), (chunks[3].id, 0, 7)];
    let command = world.part_command(&copy, 1, PartBody::Share(runs), 32);
    assert_eq!(world.send(command), Outcome::Done);
    assert!(matches!(world.send(copy.complete(&[1])), Outcome::Written(_)));
    world.delete(bucket, "k", None);
    world.drain();
    world.check_sound();
    let gone: Vec<String> = replaced.iter().chain(&chunks[..1]).map(|chunk| chunk.id.to_string()).collect();
    assert_eq!(world.rows(RECLAIM), gone);
    let found: Vec<Ino> = world.extents(copy.id).iter().map(|extent| extent.chunk).collect();
    assert_eq!(found, [chunks[1].id, chunks[2].id, chunks[3].id]);
    world.delete(bucket, "copy", None);
    world.drain();
    assert_eq!(world.rows(RECLAIM).len(), 6);
    assert_eq!(world.rows("SELECT id FROM node"), [""; 0]);
}

#[test]
fn a_shard_is_an_orphan_once_nothing_names_it() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let NewChunk { id, place: first, .. } = world.new_chunk(10);
    let shards: Vec<ShardId> = first.layout.shards().iter().map(|(_, shard)| *shard).collect();
    world.put_chunks(bucket, "k", &[chunk(id, first.clone())]);
    let abandoned = ShardId(world.id().0);
    let later = world.id();
    let orphans = |world: &World, node, shards: &[ShardId]| {
        let asked: Vec<(ShardId, Ino)> = shards.iter().map(|shard| (*shard, id)).collect();
        world.catalog.view().orphan_shards(NodeId(node), &asked).unwrap()
    };
    let all = [shards[1], abandoned, shards[0]];
    assert_eq!(orphans(&world, 1, &all), [], "leased");
    world.send(Command::RenewSession { watermark: 0, retired: vec![(id, later)] });
    assert_eq!(orphans(&world, 1, &all), [shards[1], abandoned], "the second is named on node 2");
    assert_eq!(orphans(&world, 2, &all), [shards[0], abandoned]);
    assert_eq!(world.catalog.view().orphan_shards(NodeId(1), &[(shards[0], later)]).unwrap(), [shards[0]]);

    let command = swap(id, &first, &rs(1, &[later.0, shards[1].0], 10), false);
    assert_eq!(world.send(command), Outcome::Done);
    assert_eq!(orphans(&world, 1, &shards), [shards[1]], "what was swapped away is to be reclaimed");
    world.delete(bucket, "k", None);
    world.drain();
    assert_eq!(orphans(&world, 2, &shards), [shards[0]]);
    world.send(Command::Reclaimed { rows: vec![1, 2] });
    assert_eq!(orphans(&world, 2, &shards), shards);
    let above = ShardId(world.next_id.0 + 100_000);
    let asked = [(abandoned, id), (above, id)];
    let answer = world.catalog.view().orphan_shards(NodeId(1), &asked);
    assert!(matches!(answer, Err(crate::catalog::Error::Inconsistent(_))), "{answer:?}");
}

#[test]
fn the_check_tells_shards_that_were_never_given_out() {
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let new = world.new_chunk(10);
    world.put_chunks(bucket, "k", std::slice::from_ref(&new));
    let view = world.catalog.view();
    for (shards, told) in
        [(vec![1 << 62, 1], "above every id"), (vec![1, 1], "is named twice"), (vec![0, 0], "too few")]
    {
        let damage = "UPDATE node SET place=?1 WHERE place IS NOT NULL";
        assert_eq!(view.connection.execute(damage, [rs(1, &shards, 10).encode()]).unwrap(), 1);
        let found = view.contradictions(3);
        assert!(found.iter().any(|text| text.contains(told)), "{told}: {found:#?}");
    }
}
