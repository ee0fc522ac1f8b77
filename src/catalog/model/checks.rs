//! Every query against the model.

use std::collections::BTreeSet;

use super::*;
use crate::catalog::list::tests::{Groups, Random, expect, random_query};

/// The queries that cost little, and a few random listings.
pub(super) fn check_queries(view: &View<'_>, model: &Model, keys: &[Vec<u8>], random: &mut Random) {
    check_buckets(view, model);
    for (id, bucket) in &model.buckets {
        for key in keys {
            check_key(view, *id, key, bucket.keys.get(key).map_or(&[], Vec::as_slice), random);
        }
        check_contents(view, model, bucket, random);
        check_uploads(view, *id, bucket, random);
        for _ in 0..3 {
            check_list(view, *id, bucket, random);
            check_versions(view, *id, bucket, random);
            check_upload_list(view, *id, bucket, random);
        }
    }
    for (id, completed) in &model.completed {
        let found = view.completed(completed.bucket, &completed.key, *id).unwrap().map(|(_, written)| written);
        assert_eq!(found.as_ref(), Some(&completed.written));
    }
    assert_eq!(view.time().unwrap(), model.time);
    assert_eq!(view.map().unwrap(), model.map);
    assert_eq!(view.feature_level().unwrap(), model.level);
    check_chunks(view, model);
}

/// Where every chunk is, and which are to be repaired. What faded may be there or not.
fn check_chunks(view: &View<'_>, model: &Model) {
    type Page<'a> = &'a dyn Fn(Option<Ino>) -> Vec<(Ino, Place)>;
    let all = |page: Page<'_>| {
        let mut listed: Vec<(Ino, Place)> = Vec::new();
        loop {
            let page = page(listed.last().map(|(chunk, _)| *chunk));
            if page.is_empty() {
                return listed;
            }
            listed.extend(page);
        }
    };
    let places = all(&|after| view.places(after, 7).unwrap());
    let repairs = all(&|after| {
        let page = view.repairs(after, 2).unwrap();
        page.iter().for_each(|(chunk, place, repair)| {
            assert_eq!(repair.missing, place.layout.missing());
            assert_eq!(model.repairs.get(chunk), Some(&repair.is_suspect), "{chunk}");
        });
        page.into_iter().map(|(chunk, place, _)| (chunk, place)).collect()
    });
    assert_eq!(view.repair_count().unwrap(), repairs.len() as u64);
    let alive = model.chunks();
    for (listed, is_due) in [(places, None), (repairs, Some(&model.repairs))] {
        assert!(listed.is_sorted_by(|left, right| left.0 < right.0));
        for (chunk, place) in &listed {
            assert_eq!(Some(place), model.places.get(chunk));
            assert!(alive.contains(chunk) || model.fading_chunks.contains(chunk), "{chunk} is gone");
            assert!(is_due.is_none_or(|due| due.contains_key(chunk)), "{chunk} is not to be repaired");
        }
        let due = alive.iter().filter(|chunk| is_due.is_none_or(|due| due.contains_key(*chunk)));
        let found = listed.iter().map(|(chunk, _)| chunk).filter(|chunk| alive.contains(chunk));
        assert!(found.eq(due), "{listed:?}");
    }
}

fn check_buckets(view: &View<'_>, model: &Model) {
    let mut buckets: Vec<Bucket> = model.buckets.values().map(|bucket| bucket.bucket.clone()).collect();
    buckets.sort_by(|left, right| left.name.cmp(&right.name));
    let mut listed: Vec<Bucket> = Vec::new();
    loop {
        let page = view.buckets(listed.last().map(|bucket| bucket.name.as_str()), 2).unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    assert_eq!(listed, buckets);
    assert_eq!(view.bucket("none").unwrap(), None);
    for (id, bucket) in &model.buckets {
        assert_eq!(view.bucket(&bucket.bucket.name).unwrap().as_ref(), Some(&bucket.bucket));
        for setting in [Setting::Tagging, Setting::Quota] {
            assert_eq!(view.setting(*id, setting).unwrap(), bucket.settings.get(&setting).cloned());
        }
        let mut usage = Usage::default();
        for versions in bucket.keys.values() {
            for (index, version) in versions.iter().enumerate() {
                let is_object = index + 1 == versions.len() && !version.is_marker();
                usage.object_count += u64::from(is_object);
                usage.size_bytes += if is_object { version.size_bytes } else { 0 };
                usage.version_count += u64::from(!is_object);
                usage.version_bytes += if is_object { 0 } else { version.size_bytes };
            }
        }
        assert_eq!(view.usage(*id).unwrap(), usage);
    }
}

/// The version at `index` as the catalog shows it.
fn shown(versions: &[ModelVersion], index: usize) -> Version {
    let version = &versions[index];
    Version {
        ino: version.ino,
        seq: version.seq,
        id: version.id(),
        is_latest: index + 1 == versions.len(),
        is_delete_marker: version.is_marker(),
        size_bytes: version.size_bytes,
        modified: version.modified,
        etag: version.etag,
        attrs: version.attrs.clone(),
        revision: 0,
    }
}

fn check_key(view: &View<'_>, bucket: BucketId, key: &[u8], versions: &[ModelVersion], random: &mut Random) {
    let current = match versions.last() {
        None => Lookup::Missing,
        Some(newest) if newest.is_marker() => Lookup::Deleted(shown(versions, versions.len() - 1)),
        Some(_) => Lookup::Found(shown(versions, versions.len() - 1)),
    };
    assert_eq!(view.lookup(bucket, key, None).unwrap(), current, "{key:?}");
    let mut ids: Vec<VersionId> = versions.iter().map(ModelVersion::id).collect();
    if random.below(4) == 0 {
        // None of these names a version, but for the null one.
        ids.extend(versions.iter().filter(|version| version.is_null).map(|version| VersionId::Seq(version.seq)));
        ids.extend([VersionId::Null, VersionId::Seq(Seq(0)), VersionId::Seq(Seq(u64::MAX))]);
    }
    for id in ids {
        let at = versions.iter().position(|version| version.id() == id);
        let expected = at.map_or(Lookup::Missing, |at| Lookup::Found(shown(versions, at)));
        assert_eq!(view.lookup(bucket, key, Some(id)).unwrap(), expected, "{id} of {key:?}");
    }
}

/// A few contents: what a random range of each is made of, and its parts.
fn check_contents(view: &View<'_>, model: &Model, bucket: &ModelBucket, random: &mut Random) {
    let versions: Vec<&ModelVersion> = bucket.keys.values().flatten().filter(|version| !version.is_marker()).collect();
    if versions.is_empty() {
        return;
    }
    for _ in 0..3 {
        let version = versions[random.below(versions.len())];
        let end = version.size_bytes as usize + 2;
        let (left, right) = (random.below(end) as u64, random.below(end) as u64);
        let range = if random.below(4) == 0 { 0..u64::MAX } else { left.min(right)..left.max(right) };
        let content = &version.content.as_ref().unwrap().1;
        assert_eq!(view.manifest(version.ino, range.clone()).unwrap(), manifest(model, content, &range), "{range:?}");
        check_parts(view, version.ino, content);
    }
}

fn manifest(model: &Model, content: &Content, range: &std::ops::Range<u64>) -> Manifest {
    let runs: Vec<Run> = match content {
        Content::Empty => return Manifest::Empty,
        Content::Inline(bytes) => return Manifest::Inline(bytes.clone()),
        Content::Chunk(chunk) => vec![(*chunk, 0, model.places[chunk].len_bytes)],
        Content::Chunks(runs) => runs.clone(),
        Content::Parts(parts) => parts.values().flat_map(|part| part.runs.clone()).collect(),
    };
    let mut start_bytes = 0;
    let mut extents = Vec::new();
    for (chunk, chunk_start_bytes, len_bytes) in runs.into_iter().flat_map(|run| model.pieces_of(run)) {
        if !range.is_empty() && start_bytes < range.end && range.start < start_bytes + len_bytes {
            let place = model.places[&chunk].clone();
            extents.push(Extent { start_bytes, chunk, chunk_start_bytes, len_bytes, place });
        }
        start_bytes += len_bytes;
    }
    Manifest::Extents(extents)
}

fn shown_part((number, part): (&u32, &ModelPart)) -> Part {
    let ModelPart { size_bytes, modified, etag, checksums, .. } = part.clone();
    Part { number: *number, size_bytes, modified, etag, checksums }
}

fn check_parts(view: &View<'_>, ino: Ino, content: &Content) {
    let parts: Vec<Part> = match content {
        Content::Parts(parts) => parts.iter().map(shown_part).collect(),
        _ => Vec::new(),
    };
    let mut listed: Vec<Part> = Vec::new();
    loop {
        let page = view.object_parts(ino, listed.last().map_or(0, |part| part.number), 2).unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    assert_eq!(listed, parts);
    let mut start = 0;
    for (index, part) in parts.iter().enumerate() {
        let expected = Some((parts.len() as u32, start, part.size_bytes));
        assert_eq!(view.object_part(ino, index as u32).unwrap(), expected);
        start += part.size_bytes;
    }
    assert_eq!(view.object_part(ino, parts.len() as u32).unwrap(), None);
}

fn shown_upload((key, id): &(Vec<u8>, Ino), upload: &ModelUpload) -> Upload {
    Upload { id: *id, key: key.clone(), created: upload.created, attrs: upload.attrs.clone() }
}

fn check_uploads(view: &View<'_>, id: BucketId, bucket: &ModelBucket, random: &mut Random) {
    for (name, upload) in &bucket.uploads {
        assert_eq!(view.upload(id, &name.0, name.1).unwrap(), Some(shown_upload(name, upload)));
        assert_eq!(view.upload(id, b"other", name.1).unwrap(), None);
        let after = random.below(4) as u32;
        let parts: Vec<Part> = upload.parts.iter().filter(|(number, _)| **number > after).map(shown_part).collect();
        assert_eq!(view.parts(name.1, after, 100).unwrap(), parts);
    }
}

fn check_list(view: &View<'_>, id: BucketId, bucket: &ModelBucket, random: &mut Random) {
    let keys: BTreeSet<Vec<u8>> = bucket.keys.keys().filter(|key| bucket.current(key).is_some()).cloned().collect();
    let mut query = random_query(random);
    if random.below(3) == 0 && !keys.is_empty() {
        query.after.clone_from(keys.iter().nth(random.below(keys.len())).unwrap());
    }
    let page = view.list(id, &query).unwrap();
    let (expected, has_more) = expect(&keys, &query);
    assert_eq!(page.entries.iter().map(ListEntry::name).collect::<Vec<_>>(), expected, "{query:?} of {keys:?}");
    assert_eq!(page.next, page.entries.last().filter(|_| has_more).map(|entry| entry.name().to_vec()), "{query:?}");
    for entry in page.entries {
        if let ListEntry::Object { key, size_bytes, modified, etag, storage_class } = entry {
            let current = bucket.current(&key).unwrap();
            assert_eq!((size_bytes, modified, etag), (current.size_bytes, current.modified, current.etag));
            assert_eq!(storage_class, current.attrs.storage_class);
        }
    }
    query.limit = query.limit.max(1);
    let whole = expect(&keys, &ListQuery { limit: usize::MAX, ..query.clone() }).0;
    let mut listed = Vec::new();
    loop {
        let page = view.list(id, &query).unwrap();
        listed.extend(page.entries.iter().map(|entry| entry.name().to_vec()));
        let Some(next) = page.next else { break };
        query.after = next;
    }
    assert_eq!(listed, whole);
}

/// Entries of a listing by key and a second marker: (key or common prefix, the item), in order.
fn expect_items<'m, T>(
    items: impl Iterator<Item = (&'m Vec<u8>, bool, T)>,
    query: &ListQuery,
) -> Vec<(Vec<u8>, Option<T>)> {
    let groups = Groups { prefix: &query.prefix, delimiter: &query.delimiter };
    let mut entries: Vec<(Vec<u8>, Option<T>)> = Vec::new();
    for (key, is_behind_marker, item) in items.filter(|(key, ..)| key.starts_with(&query.prefix)) {
        match groups.group(key) {
            None if key > &query.after || key == &query.after && is_behind_marker => {
                entries.push((key.clone(), Some(item)));
            }
            Some(group)
                if group > query.after.as_slice()
                    && !query.after.starts_with(group)
                    && entries.last().is_none_or(|(name, _)| name != group) =>
            {
                entries.push((group.to_vec(), None));
            }
            _ => {}
        }
    }
    entries
}

fn check_versions(view: &View<'_>, id: BucketId, bucket: &ModelBucket, random: &mut Random) {
    let mut query = random_query(random);
    let mut after_seq = None;
    if random.below(2) == 0 && !bucket.keys.is_empty() {
        let (key, versions) = bucket.keys.iter().nth(random.below(bucket.keys.len())).unwrap();
        query.after.clone_from(key);
        after_seq = Some(Seq(versions[random.below(versions.len())].seq.0 + random.below(3) as u64 - 1));
    }
    let bare = |versions: &[ModelVersion], index| {
        let version = shown(versions, index);
        let storage_class = version.attrs.storage_class.clone();
        Version { attrs: Attrs { storage_class, ..Attrs::default() }, ..version }
    };
    let expected = |query: &ListQuery, after_seq: Option<Seq>| {
        let items = bucket.keys.iter().flat_map(|(key, versions)| {
            (0..versions.len()).rev().map(move |index| {
                let version = bare(versions, index);
                (key, after_seq.is_some_and(|seq| version.seq < seq), version)
            })
        });
        expect_items(items, query)
    };
    let ask = |query: &ListQuery, after_seq| {
        let ListQuery { prefix, delimiter, after, limit } = query.clone();
        view.list_versions(id, &VersionQuery { prefix, delimiter, after, after_seq, limit }).unwrap()
    };
    query.limit = query.limit.max(1);
    let whole = expected(&query, after_seq);
    let mut listed = Vec::new();
    loop {
        let page = ask(&query, after_seq);
        assert!(page.next.is_none() || page.entries.len() == query.limit);
        listed.extend(page.entries);
        let Some((after, seq)) = page.next else { break };
        assert!(listed.len() < whole.len(), "{query:?}: a next page where there is no more");
        (query.after, after_seq) = (after, seq);
    }
    assert_eq!(listed, whole, "{query:?}");
}

fn check_upload_list(view: &View<'_>, id: BucketId, bucket: &ModelBucket, random: &mut Random) {
    let mut query = random_query(random);
    let mut after_id = None;
    if random.below(2) == 0 && !bucket.uploads.is_empty() {
        let (key, upload) = bucket.uploads.keys().nth(random.below(bucket.uploads.len())).unwrap();
        query.after.clone_from(key);
        after_id = Some(*upload).filter(|_| random.below(2) == 0);
    }
    query.limit = query.limit.max(1);
    let items = bucket
        .uploads
        .iter()
        .map(|(name, upload)| (&name.0, after_id.is_some_and(|after| name.1 > after), shown_upload(name, upload)));
    let whole = expect_items(items, &query);
    let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
    loop {
        let page = view.list_uploads(id, &query, after_id).unwrap();
        assert!(page.next.is_none() || page.uploads.len() + page.prefixes.len() == query.limit);
        uploads.extend(page.uploads);
        prefixes.extend(page.prefixes);
        let Some((after, id)) = page.next else { break };
        assert!(uploads.len() + prefixes.len() < whole.len(), "{query:?}: a next page where there is no more");
        (query.after, after_id) = (after, id);
    }
    let expected_prefixes = whole.iter().filter(|entry| entry.1.is_none()).map(|entry| entry.0.clone());
    assert_eq!(prefixes, expected_prefixes.collect::<Vec<_>>());
    assert_eq!(uploads, whole.into_iter().filter_map(|entry| entry.1).collect::<Vec<_>>());
}
