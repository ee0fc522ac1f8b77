//! Multipart uploads.

use super::*;

async fn put_part(store: &Store, upload: Ino, number: u32, body: &[u8]) -> Part {
    let incoming = Incoming { len_bytes: Some(body.len() as u64), ..Incoming::default() };
    store.put_part("b", b"k", upload, number, incoming, &mut runs(body, End::Whole)).await.unwrap()
}

fn listed(parts: &[Part]) -> Vec<(CompletePart, Vec<Checksum>)> {
    let one = |part: &Part| (CompletePart { number: part.number, etag: part.etag }, part.checksums.clone());
    parts.iter().map(one).collect()
}

async fn complete(store: &Store, upload: Ino, parts: &[Part], promised: Option<Checksum>) -> Result<Completed, Error> {
    let kind = promised.as_ref().map(|promised| promised.kind);
    let promised = Promised { checksum: promised, kind, size_bytes: None };
    store.complete_upload("b", b"k", upload, listed(parts), promised, Precondition::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_becomes_an_object_without_moving_data() {
    let bed = Bed::new().await;
    let upload = bed.store.create_upload("b", b"k", Attrs::default()).await.unwrap();
    let bodies = [pattern(PART_MIN_BYTES as usize, 1), pattern(PART_MIN_BYTES as usize + 77, 2), pattern(5, 3)];
    put_part(&bed.store, upload, 2, b"replaced").await;
    let mut parts = Vec::new();
    for (number, body) in (1..).zip(&bodies) {
        parts.push(put_part(&bed.store, upload, number, body).await);
    }
    let (_, stored_parts) = bed.store.parts("b", b"k", upload, 1, 10).await.unwrap();
    assert_eq!(stored_parts.iter().map(|part| part.number).collect::<Vec<_>>(), [2, 3]);

    let whole = bodies.concat();
    let right = digest(&whole, &[ChecksumAlgorithm::Crc64Nvme]).checksums.remove(0);
    let wrong = Checksum { value: vec![0; 8], ..right.clone() };
    assert!(matches!(complete(&bed.store, upload, &parts, Some(wrong)).await, Err(Error::BadDigest { .. })));
    let reversed: Vec<Part> = parts.iter().rev().cloned().collect();
    let answer = complete(&bed.store, upload, &reversed, None).await;
    assert!(matches!(answer, Err(Error::Refused(Refusal::InvalidPartOrder))));
    let stored = complete(&bed.store, upload, &parts, Some(right.clone())).await.unwrap();
    assert_eq!(stored.written.etag.part_count, 3);
    assert_eq!(stored.figures, Some((whole.len() as u64, vec![right])));

    let again = complete(&bed.store, upload, &parts, None).await.unwrap();
    assert_eq!(again, stored);
    let answer = complete(&bed.store, upload, &parts[..1], None).await;
    assert!(matches!(answer, Err(Error::Refused(_))), "{answer:?}");

    assert!(bed.get("k", 0..whole.len() as u64).await.unwrap() == whole);
    let middle = PART_MIN_BYTES - 10..2 * PART_MIN_BYTES + 80;
    assert!(bed.get("k", middle.clone()).await.unwrap() == whole[middle.start as usize..middle.end as usize]);
    let version = bed.store.head(&target("k")).await.unwrap().version;
    let second = bed.store.part_range(&version, 2).await.unwrap();
    assert_eq!(second, PART_MIN_BYTES..2 * PART_MIN_BYTES + 77);
    assert!(matches!(bed.store.part_range(&version, 4).await, Err(Error::InvalidRange { .. })));
    assert_eq!(bed.store.object_parts(&version, 0, 10).await.unwrap().len(), 3);
    bed.store.settle().await.unwrap();
    assert_eq!(bed.chunks().len(), 3);
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_complete_whose_version_is_gone_gives_no_figures() {
    let bed = Bed::new().await;
    let upload = bed.store.create_upload("b", b"k", Attrs::default()).await.unwrap();
    let parts = [put_part(&bed.store, upload, 1, b"body").await];
    let first = complete(&bed.store, upload, &parts, None).await.unwrap();
    bed.put("k", b"another").await; // in place of it
    let again = complete(&bed.store, upload, &parts, None).await.unwrap();
    assert_eq!(again, Completed { figures: None, ..first.clone() });
    bed.store.delete("b", vec![delete_key("k")]).await.unwrap();
    assert_eq!(complete(&bed.store, upload, &parts, None).await.unwrap(), again);
    assert!(first.figures.is_some_and(|(size_bytes, _)| size_bytes == 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_unlisted_parts_than_one_command_drops_are_dropped_all_the_same() {
    let bed = Bed::new().await;
    let upload = bed.store.create_upload("b", b"k", Attrs::default()).await.unwrap();
    for number in 1..=4_200 {
        put_part(&bed.store, upload, number, b"").await;
    }
    let last = put_part(&bed.store, upload, 5_000, b"the only one").await;
    let before = bed.ledger.proposal_count.load(Ordering::Relaxed);
    let stored = complete(&bed.store, upload, &[last], None).await.unwrap();
    assert_eq!(bed.ledger.proposal_count.load(Ordering::Relaxed) - before, 2);
    assert_eq!(stored.figures.map(|(size_bytes, _)| size_bytes), Some(12));
    assert_eq!(bed.get("k", 0..12).await.unwrap(), b"the only one");
    assert_eq!(bed.store.object_parts(&version(&bed, "k").await, 0, 10).await.unwrap().len(), 1);
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn composite_checksums_are_those_of_the_parts() {
    let bed = Bed::new().await;
    let kind = (ChecksumAlgorithm::Sha256, ChecksumKind::Composite);
    let attrs = Attrs { upload_checksum: Some(kind), ..Attrs::default() };
    let upload = bed.store.create_upload("b", b"k", attrs).await.unwrap();
    let parts = [put_part(&bed.store, upload, 1, b"only").await];
    let expected = digest(&digest(b"only", &[kind.0]).checksums[0].value, &[kind.0]).checksums[0].value.clone();
    let stored = complete(&bed.store, upload, &parts, None).await.unwrap();
    let expected = Checksum { algorithm: kind.0, kind: kind.1, value: expected };
    assert_eq!(stored.figures, Some((4, vec![expected])));
    for (algorithm, kind) in
        [(ChecksumAlgorithm::Sha1, ChecksumKind::FullObject), (ChecksumAlgorithm::Crc64Nvme, ChecksumKind::Composite)]
    {
        let attrs = Attrs { upload_checksum: Some((algorithm, kind)), ..Attrs::default() };
        assert!(matches!(bed.store.create_upload("b", b"k", attrs).await, Err(Error::Invalid(_))));
    }
}

async fn version(bed: &Bed, key: &str) -> Version {
    bed.store.head(&target(key)).await.unwrap().version
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_copied_by_sharing_runs_of_chunks() {
    let bed = Bed::new().await;
    let large = pattern(6_000_000, 1);
    bed.put("large", &large).await;
    bed.put("tiny", b"tiny body").await;
    let chunk_count = bed.chunks().len();
    let upload = bed.store.create_upload("b", b"k", Attrs::default()).await.unwrap();
    let source = version(&bed, "large").await;
    let range = 100_000..5_400_001;
    let ranged = bed.store.copy_part("b", b"k", upload, 1, &source, Some(range.clone())).await.unwrap();
    let whole = bed.store.copy_part("b", b"k", upload, 2, &source, None).await.unwrap();
    assert_eq!(bed.chunks().len(), chunk_count);
    let tiny = bed.store.copy_part("b", b"k", upload, 3, &version(&bed, "tiny").await, Some(5..9)).await.unwrap();
    assert_eq!(bed.chunks().len(), chunk_count + 1);
    let expected = [&large[range.start as usize..range.end as usize], &large, b"body"].concat();
    assert_eq!(ranged.etag.md5, digest(&large[range.start as usize..range.end as usize], &[]).md5);
    let promised = digest(&expected, &[ChecksumAlgorithm::Crc64Nvme]).checksums.remove(0);
    complete(&bed.store, upload, &[ranged, whole, tiny], Some(promised)).await.unwrap();
    bed.store.delete("b", vec![delete_key("large"), delete_key("tiny")]).await.unwrap();
    bed.store.settle().await.unwrap();
    assert!(bed.get("k", 0..expected.len() as u64).await.unwrap() == expected);
    // A part of a part: runs of several chunks.
    let upload = bed.store.create_upload("b", b"k", Attrs::default()).await.unwrap();
    let source = version(&bed, "k").await;
    let range = 5_300_000..11_300_003;
    let part = bed.store.copy_part("b", b"k", upload, 7, &source, Some(range.clone())).await.unwrap();
    complete(&bed.store, upload, &[part], None).await.unwrap();
    assert!(bed.get("k", 0..6_000_003).await.unwrap() == expected[range.start as usize..range.end as usize]);
    bed.store.settle().await.unwrap();
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_upload_gives_its_parts_back() {
    let bed = Bed::new().await;
    let upload = bed.store.create_upload("b", b"k", Attrs::default()).await.unwrap();
    put_part(&bed.store, upload, 1, &pattern(20_000, 1)).await;
    let page = bed.store.list_uploads("b", ListQuery { limit: 10, ..Default::default() }, None).await.unwrap();
    assert_eq!(page.uploads.len(), 1);
    bed.store.abort_upload("b", b"k", upload).await.unwrap();
    let answer = bed.store.abort_upload("b", b"k", upload).await;
    assert!(matches!(answer, Err(Error::Refused(Refusal::NoSuchUpload))));
    bed.store.settle().await.unwrap();
    assert_eq!(bed.chunks(), []);
    bed.assert_sound().await;
}
