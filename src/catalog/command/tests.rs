//! Golden encodings: a change of any byte here is a change of the disk format and of the log.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use super::*;
use crate::catalog::types::{
    ChecksumAlgorithm, ChecksumKind, Encryption, Header, InodeAttrs, Layout, Linked, MapNode, MapState, Posix, Repair,
    Retention, RetentionMode,
};
use crate::catalog::{ClonePhase, CloneState, Event, Happening, RenameMode};
use crate::ids::{NodeId, Seq, ShardId};

/// Names and encodings, one a line; made anew by `UPDATE_GOLDEN=1`, for variants that are appended.
const GOLDEN: &str = include_str!("../golden/encodings.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn etag(byte: u8, part_count: u32) -> ETag {
    ETag { md5: [byte; 16], part_count }
}

fn checksum(algorithm: ChecksumAlgorithm, kind: ChecksumKind) -> Checksum {
    Checksum { algorithm, kind, value: vec![1, 2, 3, 4] }
}

fn plain() -> Place {
    Place { layout: Layout::Plain { node: NodeId(3) }, len_bytes: 1 << 25, live_bytes: 1 << 24 }
}

fn striped() -> Place {
    let shards = vec![(NodeId(1), ShardId(u64::MAX)), (NodeId(2), ShardId(300))];
    let layout = Layout::Rs { data_count: 1, parity_count: 1, epoch: 9, shards, key_id: 7, wrapped_key: vec![0xAB; 4] };
    Place { layout, len_bytes: 5, live_bytes: 5 }
}

fn new_chunks() -> Vec<NewChunk> {
    let chunk = |id, place, short| NewChunk { id: Ino(id), place, short };
    vec![chunk(400, striped(), true), chunk(401, plain(), false)]
}

fn repair() -> Repair {
    Repair { missing: vec![0, 200], is_suspect: true }
}

fn map() -> Map {
    let node = |id, state| MapNode {
        node: NodeId(id),
        weight: 256,
        host: "host".into(),
        zone: "zone".into(),
        state,
        dial: "host:9991".into(),
    };
    let nodes = vec![node(0, MapState::Active), node(300, MapState::Draining)];
    Map { epoch: 301, data_count: 3, parity_count: 2, nodes }
}

fn full_attrs() -> Attrs {
    let time = Timestamp(-1);
    let text = |name: &str| name.to_owned();
    Attrs {
        posix: Some(Posix { mode: 0o100_644, uid: 1000, gid: 1001, rdev: 5, mtime: time, ctime: time, atime: time }),
        linked: Some(Linked { size_bytes: 77, modified: Timestamp(1), etag: etag(1, 0) }),
        owner: text("owner"),
        headers: vec![(Header::ContentType, text("text/plain")), (Header::WebsiteRedirect, text("/"))],
        metadata: vec![(text("name"), text("value"))],
        xattrs: vec![(b"user.x".to_vec(), vec![0, 255])],
        tags: vec![(text("tag"), text("value"))],
        checksums: vec![
            checksum(ChecksumAlgorithm::Crc32, ChecksumKind::FullObject),
            checksum(ChecksumAlgorithm::Crc32c, ChecksumKind::Composite),
            checksum(ChecksumAlgorithm::Crc64Nvme, ChecksumKind::FullObject),
            checksum(ChecksumAlgorithm::Sha1, ChecksumKind::Composite),
            checksum(ChecksumAlgorithm::Sha256, ChecksumKind::Composite),
        ],
        upload_checksum: Some((ChecksumAlgorithm::Sha256, ChecksumKind::Composite)),
        retention: Some(Retention { mode: RetentionMode::Compliance, until: Timestamp(2) }),
        hold: true,
        storage_class: text("GLACIER"),
        encryption: Encryption::Kms { key: text("key") },
        symlink: Some(b"target".to_vec()),
        acl: Some(vec![1]),
    }
}

fn precondition() -> Precondition {
    Precondition {
        if_match: Some(vec![None, Some(etag(2, 3))]),
        if_none_match: Some(vec![Some(etag(4, 0))]),
        if_match_size_bytes: Some(300),
        if_match_modified_s: Some(-300),
    }
}

fn put(body: Body) -> Command {
    Command::Put {
        bucket: BucketId(300),
        key: Bytes::from_static(b"key"),
        ino: Ino::new(1, 400),
        size_bytes: 500,
        etag: etag(5, 0),
        attrs: Attrs::default(),
        body,
        precondition: precondition(),
    }
}

fn put_part(body: PartBody) -> Command {
    Command::PutPart {
        bucket: BucketId(300),
        key: Bytes::from_static(b"key"),
        upload: Ino(9),
        number: 10_000,
        size_bytes: 500,
        etag: etag(5, 0),
        checksums: vec![checksum(ChecksumAlgorithm::Crc32c, ChecksumKind::FullObject)],
        body,
    }
}

/// Every variant, by ordinal; a body or a change where a variant has several.
fn commands() -> Vec<(&'static str, Command)> {
    let (bucket, key) = (BucketId(300), Bytes::from_static(b"key"));
    let change = |change| Command::Change { bucket, key: key.clone(), version: Some(VersionId::Null), change };
    let delete = DeleteKey {
        key: key.clone(),
        version: Some(VersionId::Seq(Seq(4096))),
        precondition: precondition(),
        bypass_governance: true,
    };
    vec![
        ("OpenSession", Command::OpenSession { gateway: "gateway".into() }),
        ("RenewSession", Command::RenewSession { watermark: 300, retired: vec![(Ino(1), Ino(2))] }),
        ("ExpireSession", Command::ExpireSession { session: SessionId(5), renewals: 6 }),
        ("LeaseIds", Command::LeaseIds { count: 1000 }),
        ("Tick", Command::Tick { now: Timestamp(1_700_000_000_000_000_000) }),
        (
            "CreateBucket",
            Command::CreateBucket {
                id: bucket,
                name: "name".into(),
                owner: "owner".into(),
                region: "region".into(),
                lock: true,
            },
        ),
        ("DeleteBucket", Command::DeleteBucket { bucket }),
        ("SetVersioning", Command::SetVersioning { bucket, versioning: Versioning::Suspended }),
        ("SetBucket", Command::SetBucket { bucket, setting: Setting::Quota, value: Some(key.clone()) }),
        ("Put-Empty", put(Body::Empty)),
        ("Put-Inline", put(Body::Inline(Bytes::from_static(b"bytes")))),
        ("Put-Chunk", put(Body::Chunk(plain()))),
        ("Put-Share", put(Body::Share(Ino(8)))),
        ("Delete", Command::Delete { bucket, keys: vec![delete] }),
        ("Change-Tags", change(Change::Tags(vec![("tag".into(), "value".into())]))),
        ("Change-Acl", change(Change::Acl(Some(vec![1])))),
        ("CreateUpload", Command::CreateUpload { bucket, key: key.clone(), id: Ino(9), attrs: Attrs::default() }),
        ("PutPart-Empty", put_part(PartBody::Empty)),
        ("PutPart-Chunk", put_part(PartBody::Chunk { chunk: Ino(10), place: striped() })),
        ("PutPart-Share", put_part(PartBody::Share(vec![(Ino(10), 0, 300)]))),
        (
            "CompleteUpload",
            Command::CompleteUpload {
                bucket,
                key: key.clone(),
                upload: Ino(9),
                parts: vec![CompletePart { number: 1, etag: etag(6, 0) }],
                etag: etag(7, 1),
                checksums: vec![checksum(ChecksumAlgorithm::Sha256, ChecksumKind::Composite)],
                precondition: Precondition::default(),
            },
        ),
        ("AbortUpload", Command::AbortUpload { bucket, key: key.clone(), upload: Ino(9) }),
        ("Drain", Command::Drain { row_count: 4096 }),
        ("Reclaimed", Command::Reclaimed { rows: vec![1, 300] }),
        ("ForgetCompleted", Command::ForgetCompleted { before: Timestamp(5), row_count: 6 }),
        ("SetCredential", Command::SetCredential { access_key: "access".into(), value: Some(("account".into(), key)) }),
        ("Put-Chunks", put(Body::Chunks(new_chunks()))),
        ("PutPart-Chunks", put_part(PartBody::Chunks(new_chunks()))),
        ("SetMap", Command::SetMap { from_epoch: 300, map: map() }),
        ("Swap", Command::Swap { chunk: Ino(300), from: plain(), to: striped(), due: Due::Yes, verified: true }),
        ("MarkRepair", Command::MarkRepair { chunks: vec![Ino(1), Ino(300)], damaged: true }),
        ("Split", Command::Split { chunk: Ino(300), from: plain(), pieces: new_chunks() }),
        ("RaiseLevel", Command::RaiseLevel { to: 300 }),
        ("Put-ShareRevision", put(Body::ShareRevision { ino: Ino(300), revision: 4097 })),
    ]
    .into_iter()
    .chain(files())
    .chain(records())
    .chain(clones())
    .chain([
        ("ClaimEvents", Command::ClaimEvents { from: SessionId(300) }),
        ("EventsDelivered", Command::EventsDelivered { through: Seq(1 << 40) }),
    ])
    .collect()
}

fn posix() -> Posix {
    let (mtime, ctime, atime) = (Timestamp(1), Timestamp(2), Timestamp(3));
    Posix { mode: 0o100_644, uid: 1000, gid: 1001, rdev: 259, mtime, ctime, atime }
}

fn write(content: Content) -> Write {
    Write {
        ino: Ino(300),
        hint: Some((Ino(7), Bytes::from_static(b"seen"))),
        base: Some(4097),
        content,
        chunks: new_chunks(),
        size_bytes: Some(70_000),
        etag: etag(0xEE, 2),
        modified: Timestamp(-5),
        kills_privileges: true,
        publishes: true,
    }
}

fn records() -> Vec<(&'static str, Command)> {
    let set = |kind, was: Option<&'static [u8]>, value: Option<&'static [u8]>| Command::SetRecord {
        kind,
        name: "name".into(),
        was: was.map(Bytes::from_static),
        value: value.map(Bytes::from_static),
    };
    vec![
        ("SetRecord-User", set(RecordKind::User, None, Some(b"is"))),
        ("SetRecord-Token", set(RecordKind::Token, Some(b"was"), None)),
        ("SetRecord-Node", set(RecordKind::Node, None, Some(b"is"))),
    ]
}

fn files() -> Vec<(&'static str, Command)> {
    let (ino, parent, name) = (Ino(300), Ino(7), Bytes::from_static(b"name"));
    let hint = Some((Ino(8), Bytes::from_static(b"seen")));
    let new = NewInode { ino, posix: posix(), target: Bytes::from_static(b"target"), is_hidden: true };
    let set = SetAttrs {
        mode: Some(0o4755),
        uid: Some(1),
        gid: None,
        atime: Some(Timestamp(9)),
        mtime: None,
        kills_privileges: true,
    };
    let pieces = vec![
        Piece { start_bytes: 0, len_bytes: 300, source: Source::Hole },
        Piece { start_bytes: 300, len_bytes: 5, source: Source::Chunk { chunk: Ino(400), start_bytes: 70_000 } },
    ];
    let (from, to) = ((parent, name.clone()), (Ino(8), name.clone()));
    let origin = Origin { mount: 300, request: 8, answered: vec![2, 1 << 40] };
    let file = |operation| Command::File { bucket: BucketId(9), origin: origin.clone(), operation };
    let (held, released) = (vec![ino], vec![Ino(1), Ino(2)]);
    let lock = Lock { owner: 1 << 63, start_bytes: 3, end_bytes: 300, is_exclusive: true, opened: 70_000, pid: 300 };
    vec![
        ("File-Make", file(FileOperation::Make { parent, name: name.clone(), new })),
        ("File-Link", file(FileOperation::Link { ino, hint: hint.clone(), parent, name: name.clone() })),
        ("File-Unlink", file(FileOperation::Unlink { parent, name: name.clone() })),
        ("File-RemoveDirectory", file(FileOperation::RemoveDirectory { parent, name: name.clone() })),
        ("File-Rename", file(FileOperation::Rename { from, to, mode: RenameMode::Exchange })),
        ("File-SetAttrs", file(FileOperation::SetAttrs { ino, hint: None, set })),
        (
            "File-SetXattr",
            file(FileOperation::SetXattr { ino, hint, name: name.clone(), value: Some(name), expected: Some(false) }),
        ),
        ("File-Write-Inline", file(FileOperation::Write(write(Content::Inline(Bytes::from_static(b"bytes")))))),
        ("File-Write-Pieces", file(FileOperation::Write(write(Content::Pieces(pieces))))),
        ("File-Write-Same", file(FileOperation::Write(write(Content::Same)))),
        ("File-WriteAndSet", file(FileOperation::WriteAndSet { write: write(Content::Same), set })),
        ("File-Accessed", file(FileOperation::Accessed(vec![(ino, Timestamp(1)), (Ino(8), Timestamp(-1))]))),
        ("File-Mount", file(FileOperation::Mount)),
        ("File-Unmount", file(FileOperation::Unmount { is_last: true })),
        ("File-Hold", file(FileOperation::Hold { seen: 300, inos: held })),
        ("File-Release", file(FileOperation::Release { inos: released })),
        ("File-Compact", file(FileOperation::Compact(write(Content::Pieces(Vec::new()))))),
        ("File-Lock", file(FileOperation::Lock { ino, lock })),
        ("File-Unlock", file(FileOperation::Unlock { ino, owner: u64::MAX, start_bytes: 0, end_bytes: LOCK_END })),
    ]
}

fn clones() -> Vec<(&'static str, Command)> {
    let clone = Ino(300);
    let (prefix, to) = (Bytes::from_static(b"a/"), Bytes::from_static(b".snapshots/before/"));
    let (source, target) = (BucketId(9), BucketId(300));
    let begin = CloneOperation::Begin { source, prefix, target, to, label: "before".into() };
    vec![
        ("Clone-Begin", Command::Clone(begin)),
        ("Clone-Advance", Command::Clone(CloneOperation::Advance { clone, entry_count: 1000 })),
        ("Clone-Remove", Command::Clone(CloneOperation::Remove { clone })),
        ("Clone-Forget", Command::Clone(CloneOperation::Forget { clone })),
    ]
}

fn clone_state() -> CloneState {
    CloneState {
        source: BucketId(9),
        source_name: "bucket".into(),
        prefix: b"a/".to_vec(),
        target: BucketId(300),
        to: b".snapshots/before/".to_vec(),
        label: "before".into(),
        root: Ino(400),
        began: Timestamp(-3),
        ended: Some(Timestamp(70_000)),
        phase: ClonePhase::Erasing,
        reason: "why".into(),
        object_count: 300,
        size_bytes: 1 << 40,
    }
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::NoSession,
        Refusal::NotLeased(Ino(300)),
        Refusal::NoSuchBucket,
        Refusal::BucketExists { owner: "owner".into() },
        Refusal::BucketNotEmpty,
        Refusal::InvalidBucketState,
        Refusal::NoSuchKey,
        Refusal::NoSuchVersion,
        Refusal::IsDeleteMarker,
        Refusal::PreconditionFailed("If-Match".into()),
        Refusal::SourceGone,
        Refusal::NoSuchUpload,
        Refusal::InvalidPart { number: 3 },
        Refusal::InvalidPartOrder,
        Refusal::PartTooSmall { number: 3, size_bytes: 300 },
        Refusal::Locked,
        Refusal::OutOfBounds("what".into()),
        Refusal::MapChanged { epoch: 300 },
        Refusal::PlaceChanged(Ino(300)),
        Refusal::NoEntry,
        Refusal::EntryExists,
        Refusal::NotDirectory,
        Refusal::IsDirectory,
        Refusal::DirectoryNotEmpty,
        Refusal::CrossDevice,
        Refusal::NotPermitted,
        Refusal::TooManyLinks,
        Refusal::NameTooLong,
        Refusal::InvalidName,
        Refusal::Stale,
        Refusal::Cycle,
        Refusal::FileTooLarge,
        Refusal::NoXattr,
        Refusal::XattrExists,
        Refusal::XattrTooLarge,
        Refusal::NoSuchOffset,
        Refusal::ReadOnly,
        Refusal::TooManyRows,
        Refusal::RevisionChanged(Ino(300)),
        Refusal::LockHeld,
        Refusal::TooManyLocks,
        Refusal::RecordChanged,
        Refusal::TooManyClones,
    ]
}

fn outcomes() -> Vec<Outcome> {
    let deleted = Deleted { version: Some(VersionId::Null), delete_marker: true };
    let mut outcomes = vec![
        Outcome::Done,
        Outcome::Session(SessionId(300)),
        Outcome::Ids { start: Ino(1), end: Ino(300) },
        Outcome::Written(written()),
        Outcome::Deleted(vec![Ok(deleted), Err(Refusal::NoSuchKey)]),
        Outcome::Drained { remaining: 1000 },
        Outcome::Changed { version: VersionId::Seq(Seq(4097)) },
        Outcome::Cloning { clone: Ino(300), is_over: true },
    ];
    outcomes.extend(refusals().into_iter().map(Outcome::Refused));
    outcomes
}

fn written() -> Written {
    Written {
        version: VersionId::Seq(Seq(4096)),
        ever_versioned: true,
        modified: Timestamp(1_700_000_000_000_000_000),
        etag: etag(8, 2),
    }
}

fn envelope(command: Command) -> Envelope {
    Envelope { session: SessionId(1), seq: 2, acked: 1, now: Timestamp(3), command }
}

fn inode() -> InodeAttrs {
    InodeAttrs { attrs: full_attrs(), home: Some((Ino(300), b"name".to_vec())), revision: 4097, is_draft: true }
}

fn events() -> Vec<Event> {
    let event = |what| Event {
        what,
        time: Timestamp(1_700_000_000_000_000_000),
        key: b"key".to_vec(),
        version: Some(VersionId::Seq(Seq(4096))),
        size_bytes: 500,
        etag: Some(etag(5, 2)),
    };
    let bare = |what| Event { version: None, size_bytes: 0, etag: None, ..event(what) };
    vec![
        event(Happening::Put),
        event(Happening::Copied),
        event(Happening::Completed),
        bare(Happening::Deleted),
        bare(Happening::Marked),
        bare(Happening::Left { directory: Ino(300) }),
        bare(Happening::Came { directory: Ino(300) }),
        bare(Happening::CopiedPrefix),
        bare(Happening::DeletedPrefix),
    ]
}

fn encodings() -> String {
    let mut text = String::new();
    for (name, command) in commands() {
        writeln!(text, "command {name} {}", hex(&envelope(command).encode())).unwrap();
    }
    for outcome in outcomes() {
        let debug = format!("{outcome:?}");
        let name: String = debug.chars().filter(|c| !c.is_whitespace()).take(40).collect();
        writeln!(text, "outcome {name} {}", hex(&outcome.encode())).unwrap();
    }
    for (name, attrs) in [("empty", Attrs::default()), ("full", full_attrs())] {
        writeln!(text, "attrs {name} {}", hex(&attrs.encode())).unwrap();
    }
    for (name, place) in [("plain", plain()), ("rs", striped())] {
        writeln!(text, "place {name} {}", hex(&place.encode())).unwrap();
    }
    writeln!(text, "checksums five {}", hex(&Checksum::encode_all(&full_attrs().checksums))).unwrap();
    writeln!(text, "written one {}", hex(&written().encode())).unwrap();
    writeln!(text, "map two {}", hex(&map().encode())).unwrap();
    writeln!(text, "repair one {}", hex(&repair().encode())).unwrap();
    writeln!(text, "inode full {}", hex(&inode().encode())).unwrap();
    writeln!(text, "clone one {}", hex(&clone_state().encode())).unwrap();
    for event in events() {
        let debug = format!("{:?}", event.what);
        let name: String = debug.chars().take_while(|c| c.is_alphabetic()).collect();
        writeln!(text, "event {name} {}", hex(&event.encode())).unwrap();
    }
    text
}

#[test]
fn encodings_are_golden() {
    let encodings = encodings();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/catalog/golden/encodings.txt");
        std::fs::write(file, &encodings).unwrap();
    }
    assert_eq!(encodings.lines().count(), GOLDEN.lines().count());
    for (now, then) in encodings.lines().zip(GOLDEN.lines()) {
        assert_eq!(now, then);
    }
}

#[test]
fn golden_bytes_decode_to_what_they_were() {
    let bytes = |line: &str| -> Vec<u8> {
        let digits = line.rsplit(' ').next().unwrap().as_bytes();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    };
    let of = |kind: &str| -> Vec<Vec<u8>> { GOLDEN.lines().filter(|line| line.starts_with(kind)).map(bytes).collect() };
    let decoded: Vec<Envelope> = of("command").iter().map(|bytes| Envelope::decode(bytes).unwrap()).collect();
    assert_eq!(decoded, commands().into_iter().map(|(_, command)| envelope(command)).collect::<Vec<_>>());
    let decoded: Vec<Outcome> = of("outcome").iter().map(|bytes| Outcome::decode(bytes).unwrap()).collect();
    assert_eq!(decoded, outcomes());
    let decoded: Vec<Attrs> = of("attrs").iter().map(|bytes| Attrs::decode(bytes).unwrap()).collect();
    assert_eq!(decoded, [Attrs::default(), full_attrs()]);
    let decoded: Vec<Place> = of("place").iter().map(|bytes| Place::decode(bytes).unwrap()).collect();
    assert_eq!(decoded, [plain(), striped()]);
    assert_eq!(Checksum::decode_all(&of("checksums")[0]).unwrap(), full_attrs().checksums);
    assert_eq!(Written::decode(&of("written")[0]).unwrap(), written());
    assert_eq!(Map::decode(&of("map")[0]).unwrap(), map());
    assert_eq!(Repair::decode(&of("repair")[0]).unwrap(), repair());
    assert_eq!(InodeAttrs::decode(&of("inode")[0]).unwrap(), inode());
    assert_eq!(CloneState::decode(&of("clone")[0]).unwrap(), clone_state());
    assert_eq!(Attrs::decode(&of("inode")[0]).unwrap(), full_attrs());
    assert_eq!(InodeAttrs::decode(&of("attrs")[1]).unwrap().attrs, full_attrs());
    let decoded: Vec<Event> = of("event").iter().map(|bytes| Event::decode(bytes).unwrap()).collect();
    assert_eq!(decoded, events());
    // Version 1.
    assert_eq!(Repair::decode(&[1, 2, 0, 200, 1]).unwrap(), Repair { is_suspect: false, ..repair() });
}

#[test]
fn what_is_no_encoding_is_refused() {
    let whole = envelope(put(Body::Chunk(plain()))).encode();
    assert!(Envelope::decode(&[]).is_err());
    assert!(Envelope::decode(&[2]).is_err());
    for len in 0..whole.len() {
        assert!(Envelope::decode(&whole[..len]).is_err(), "{len} bytes");
    }
}
