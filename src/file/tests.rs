#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::units::SEGMENT_BYTES;

const CHUNK: Ino = Ino::new(1, 0x1234);

fn no_fatal() -> Fatal {
    Arc::new(|error| unreachable!("no sync fails here: {error}"))
}

fn open(dir: &tempfile::TempDir) -> Files {
    Files::open(dir.path().join("chunks"), no_fatal()).unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn store(files: &Files, chunk: Ino, data: &[u8]) {
    let mut writer = files.create(chunk, Some(data.len() as u64)).unwrap();
    data.chunks(10_007).for_each(|run| writer.write(run).unwrap());
    assert_eq!(writer.finish().unwrap(), data.len() as u64);
}

#[test]
fn what_is_written_is_read_at_every_boundary() {
    let dir = tempfile::tempdir().unwrap();
    let files = open(&dir);
    let segment = SEGMENT_BYTES as usize;
    for (i, len) in [0, 1, segment - 1, segment, segment + 1, WRITE_BYTES, 3 * WRITE_BYTES + 5].into_iter().enumerate()
    {
        let (chunk, data) = (Ino::new(1, i as u64), pattern(len));
        store(&files, chunk, &data);
        assert_eq!(files.verify(chunk).unwrap(), len as u64);
        for (start, end) in [(0, len), (len / 2, len), (len / 3, len / 2), (len.saturating_sub(1), len)] {
            assert_eq!(files.read(chunk, start as u64..end as u64).unwrap(), data[start..end], "{len}: {start}..{end}");
        }
        assert!(matches!(files.read(chunk, 0..len as u64 + 1), Err(Error::Corrupt { .. })));
    }
}

#[test]
fn golden_file() {
    let dir = tempfile::tempdir().unwrap();
    let files = open(&dir);
    store(&files, CHUNK, b"123456789");
    let bytes = fs::read(dir.path().join("chunks/01/0001000000001234")).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "313233343536373839",
            "839206e3", // the CRC-32C of "123456789", little-endian
            "50444348554e4b00",
            "0100",
            "1000",
            "00000000",
            "3412000000000100",
            "0900000000000000",
            "d959a055",
            "1d5ce853"
        )
    );
}

#[test]
fn every_flipped_bit_and_every_cut_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let files = open(&dir);
    let data = pattern(300);
    store(&files, CHUNK, &data);
    let path = files.path(CHUNK);
    let whole = fs::read(&path).unwrap();
    for index in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[index] ^= 1 << (index % 8);
        fs::write(&path, &damaged).unwrap();
        assert!(matches!(files.verify(CHUNK), Err(Error::Corrupt { .. })), "byte {index}");
        match files.read(CHUNK, 0..300) {
            Ok(bytes) => assert_eq!(bytes, data, "byte {index}: wrong bytes were served"),
            Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "byte {index}: {error}"),
        }
        fs::write(&path, &whole[..index]).unwrap();
        assert!(matches!(files.verify(CHUNK), Err(Error::Corrupt { .. })), "cut at {index}");
    }
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert!(matches!(files.verify(CHUNK), Err(Error::Corrupt { .. })));
    fs::write(&path, &whole).unwrap();
    assert_eq!(files.verify(CHUNK).unwrap(), 300);
}

#[test]
fn a_chunk_under_anothers_name_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let files = open(&dir);
    store(&files, CHUNK, b"bytes");
    fs::rename(files.path(CHUNK), files.path(Ino(CHUNK.0 + 1))).unwrap();
    assert!(matches!(files.read(Ino(CHUNK.0 + 1), 0..1), Err(Error::Corrupt { .. })));
    assert!(matches!(files.read(CHUNK, 0..1), Err(Error::NotFound(CHUNK))));
}

#[test]
fn an_unfinished_chunk_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let files = open(&dir);
    let mut writer = files.create(CHUNK, None).unwrap();
    writer.write(&pattern(WRITE_BYTES + 1)).unwrap();
    assert_eq!(files.temporary_count().unwrap(), 1);
    drop(writer);
    assert_eq!(files.temporary_count().unwrap(), 0);
    std::mem::forget(files.create(CHUNK, None).unwrap()); // a process that died
    assert_eq!(files.temporary_count().unwrap(), 1);
    assert_eq!(open(&dir).temporary_count().unwrap(), 0);
}

#[test]
fn a_removed_chunk_stays_readable_for_who_has_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let files = open(&dir);
    store(&files, CHUNK, b"still here");
    let chunk = files.chunk(CHUNK).unwrap();
    files.remove(CHUNK).unwrap();
    files.remove(CHUNK).unwrap();
    assert_eq!(chunk.read(0..chunk.len_bytes()).unwrap(), b"still here"[..]);
}

#[test]
fn listings_name_chunks_and_quarantine_hides_them() {
    let dir = tempfile::tempdir().unwrap();
    let files = open(&dir);
    store(&files, CHUNK, b"1");
    fs::write(dir.path().join("chunks/01/notes.txt"), b"").unwrap();
    let index = fan_out_index(CHUNK);
    let listing = files.list(index).unwrap();
    assert_eq!(listing.chunks.iter().map(|listed| listed.chunk).collect::<Vec<_>>(), [CHUNK]);
    assert_eq!(listing.foreign, ["notes.txt"]);
    files.quarantine(CHUNK).unwrap();
    assert!(matches!(files.quarantine(CHUNK), Err(Error::NotFound(CHUNK))));
    assert_eq!(files.list(index).unwrap().chunks, []);
    assert_eq!(files.quarantined().unwrap().chunks.len(), 1);
    files.remove_quarantined(CHUNK).unwrap();
    assert_eq!(files.quarantined().unwrap(), Listing::default());
}

#[test]
fn a_failed_sync_is_final_and_leaves_no_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let fatal: Fatal = {
        let told = told.clone();
        Arc::new(move |_| _ = told.fetch_add(1, Ordering::Relaxed))
    };
    let fails = |_: &File| Err(io::Error::from_raw_os_error(nix::libc::EIO));
    let files = Files::open_with(dir.path().join("chunks"), fatal, fails).unwrap();
    let mut writer = files.create(CHUNK, None).unwrap();
    writer.write(b"lost").unwrap();
    assert!(matches!(writer.finish(), Err(Error::Io(_))));
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert_eq!(files.temporary_count().unwrap(), 0);
    assert!(matches!(files.chunk(CHUNK), Err(Error::NotFound(_))));
}

#[test]
fn a_shared_sync_serves_all_who_came_before_it_began() {
    static SYNCS: AtomicUsize = AtomicUsize::new(0);
    let dir = tempfile::tempdir().unwrap();
    let group = GroupSync::open(dir.path()).unwrap();
    let sync = |file: &File| {
        SYNCS.fetch_add(1, Ordering::Relaxed);
        file.sync_all()
    };
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| (0..50).for_each(|_| group.sync(sync).unwrap()));
        }
    });
    let syncs = SYNCS.load(Ordering::Relaxed);
    assert!((50..=800).contains(&syncs), "{syncs}");
}
