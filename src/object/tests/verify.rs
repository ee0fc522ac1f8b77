//! The scrub of a box.

use std::fs;
use std::os::unix::fs::FileExt;

use super::*;

fn flip(path: &std::path::Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[tokio::test]
async fn what_is_damaged_is_found_and_counted_until_it_is_gone() {
    let bed = Bed::new().await;
    for index in 0..5_u64 {
        bed.put(&format!("k{index}"), &pattern(100_000 + index as usize, index)).await;
    }
    bed.put("inline", b"small").await;
    let report = bed.store.verify_files().await.unwrap();
    assert_eq!((report.chunk_count, report.byte_count), (5, 500_010));
    assert!(report.damaged.is_empty());
    let mut chunks = bed.chunks();
    chunks.sort();
    flip(&bed.path_of(chunks[1]), 70_000);
    fs::rename(bed.path_of(chunks[3]), bed.dir.path().join("away")).unwrap();
    // Wherever it begins.
    for _ in 0..4 {
        let report = bed.store.verify_files().await.unwrap();
        assert_eq!(report.damaged, [chunks[1], chunks[3]].into());
        assert_eq!(report.chunk_count, 3);
        assert_eq!(bed.store.upkeep().lost_count, 2);
    }
    flip(&bed.path_of(chunks[1]), 70_000);
    let damaged = bed.store.verify_files().await.unwrap().damaged;
    assert_eq!(damaged, [chunks[3]].into());
    for index in 0..5 {
        let deleted = bed.store.delete("b", vec![delete_key(&format!("k{index}"))]).await.unwrap();
        assert!(deleted[0].is_ok());
    }
    bed.store.drain().await.unwrap();
    assert!(bed.store.verify_files().await.unwrap().damaged.is_empty());
    assert_eq!(bed.store.upkeep().lost_count, 0);
    assert!(bed.store.upkeep().scrub_pass_count >= 7);
}
