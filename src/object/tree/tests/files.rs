//! Single files: what was written, who sees it when, what remains.

use std::time::Duration;

use super::*;
use crate::catalog::ListQuery;
use crate::object::Target;
use crate::object::tests::{pattern, target};
use crate::units::BLOCK_BYTES;

fn md5_of(bytes: &[u8]) -> [u8; 16] {
    use md5::{Digest, Md5};
    Md5::digest(bytes).into()
}

async fn keys(bed: &Bed) -> Vec<String> {
    let query = ListQuery { limit: 1000, ..ListQuery::default() };
    let (_, page) = bed.store.list("b", query).await.unwrap();
    page.entries.iter().map(|entry| String::from_utf8(entry.name().to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn a_file_is_an_object_once_it_is_closed() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    for (index, len) in [0, 1, 5000, 8192, 8193, 70_000, 300_000].into_iter().enumerate() {
        let name = format!("f{index}");
        let bytes = pattern(len, len as u64);
        let stat = tree.make_open(tree.root(), name.as_bytes(), file()).await.unwrap();
        assert!(!keys(&bed).await.contains(&name));
        tree.write(stat.ino, 0, bytes.clone().into()).await.unwrap();
        assert!(!keys(&bed).await.contains(&name));
        assert_eq!(tree.stat(stat.ino).await.unwrap().size_bytes, len as u64);
        assert_eq!(tree.bytes(stat.ino).await.unwrap(), bytes);
        tree.flush(stat.ino).await.unwrap();
        assert!(keys(&bed).await.contains(&name));
        tree.release(stat.ino).await.unwrap();

        let head = bed.store.head(&target(&name)).await.unwrap().version;
        assert_eq!((head.etag.md5, head.etag.part_count), (md5_of(&bytes), 0), "{len}");
        assert_eq!(bed.get(&name, 0..len as u64).await.unwrap(), bytes);
        assert_eq!(tree.bytes(stat.ino).await.unwrap(), bytes);
    }
    bed.assert_sound().await;
}

/// A program's child that ends closes what its parent writes: the file is flushed in the middle of it.
#[tokio::test]
async fn what_is_written_front_to_back_has_its_md5_however_often_it_is_flushed() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let pieces = [100, 8000, 92, 1, 70_000, 400_000, 400_000, 400_000, 3, 2_000_000, 900_000];
    for flushed in [vec![], vec![0], vec![1, 2], vec![4, 6], vec![5, 9], (0..pieces.len()).collect()] {
        let name = format!("{flushed:?}");
        let bytes = pattern(pieces.iter().sum(), 3);
        let ino = tree.make_open(tree.root(), name.as_bytes(), file()).await.unwrap().ino;
        let mut at = 0;
        for (index, len) in pieces.into_iter().enumerate() {
            tree.write(ino, at as u64, bytes[at..at + len].to_vec().into()).await.unwrap();
            at += len;
            if flushed.contains(&index) {
                tree.flush(ino).await.unwrap();
            }
        }
        tree.release(ino).await.unwrap();
        let head = bed.store.head(&target(&name)).await.unwrap().version;
        assert_eq!((head.etag.md5, head.etag.part_count), (md5_of(&bytes), 0), "{name}");
        assert_eq!(bed.get(&name, 0..at as u64).await.unwrap(), bytes);
    }
    bed.assert_sound().await;
}

/// Whoever goes on from bytes that another has changed meanwhile does not claim an MD5 of them.
#[tokio::test]
async fn an_md5_is_not_claimed_of_what_another_changed() {
    let bed = bed().await;
    let (tree, other) = (tree_of(&bed, &bed.store, "staging").await, tree_of(&bed, &bed.store, "other").await);
    let ino = tree.make_open(tree.root(), b"f", file()).await.unwrap().ino;
    let bytes = pattern(3_000_000, 4);
    tree.write(ino, 0, bytes[..1_200_000].to_vec().into()).await.unwrap();
    tree.flush(ino).await.unwrap();
    tree.write(ino, 1_200_000, bytes[1_200_000..1_300_000].to_vec().into()).await.unwrap();
    tree.write(ino, 1_300_000, bytes[1_300_000..2_500_000].to_vec().into()).await.unwrap();
    other.write(ino, 5, Bytes::from_static(b"other")).await.unwrap();
    other.flush(ino).await.unwrap();
    tree.write(ino, 2_500_000, bytes[2_500_000..].to_vec().into()).await.unwrap();
    tree.flush(ino).await.unwrap();
    let mut expected = bytes;
    expected[5..10].copy_from_slice(b"other");
    assert_eq!(bed.get("f", 0..3_000_000).await.unwrap(), expected);
    let etag = bed.store.head(&target("f")).await.unwrap().version.etag;
    assert_ne!(etag.part_count, 0, "nobody has seen all of these bytes");
    tree.release(ino).await.unwrap();
    bed.assert_sound().await;
}

#[tokio::test]
async fn writes_in_the_middle_change_only_what_they_write() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    for len in [100, BLOCK_BYTES as usize, 50_000, 200_000] {
        let mut bytes = pattern(len, 1);
        bed.put("o", &bytes).await;
        bed.store
            .copy(
                &bed.store.head(&target("o")).await.unwrap().version,
                crate::object::tests::put_of("copy"),
                Vec::new(),
            )
            .await
            .unwrap();
        let ino = tree.walk("o").await.unwrap().ino;
        for (at, patch) in [(len / 2, 30), (0, 10), (len - 5, 100), (len + 5000, 7)] {
            let patch = pattern(patch, at as u64);
            tree.write(ino, at as u64, patch.clone().into()).await.unwrap();
            tree.flush(ino).await.unwrap();
            bytes.resize(bytes.len().max(at + patch.len()), 0);
            bytes[at..at + patch.len()].copy_from_slice(&patch);
            assert_eq!(tree.bytes(ino).await.unwrap(), bytes, "{len} {at}");
            assert_eq!(bed.get("o", 0..bytes.len() as u64).await.unwrap(), bytes);
            assert_eq!(bed.get("copy", 0..len as u64).await.unwrap(), pattern(len, 1));
        }
        bed.assert_sound().await;
        bed.store.drain().await.unwrap();
        bed.assert_sound_but_reclaim().await;
    }
}

#[tokio::test]
async fn what_lost_its_name_is_read_while_it_is_open() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let bytes = pattern(50_000, 3);
    for how in 0..4 {
        let ino = tree.save(tree.root(), "f", &bytes).await.unwrap().ino;
        tree.open(ino, false).await.unwrap();
        match how {
            0 => tree.unlink(tree.root(), b"f").await.unwrap(),
            1 => drop(bed.put("f", b"other").await),
            2 => {
                tree.save(tree.root(), "g", b"over").await.unwrap();
                tree.rename((tree.root(), b"g"), (tree.root(), b"f"), RenameMode::Replace).await.unwrap();
            }
            _ => drop(bed.store.delete("b", vec![crate::object::tests::delete_key("f")]).await.unwrap()),
        }
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        bed.store.drain().await.unwrap();
        assert_eq!(tree.bytes(ino).await.unwrap(), bytes, "{how}");
        assert_eq!(tree.stat(ino).await.unwrap().nlink, 0);
        tree.write(ino, 10, Bytes::from_static(b"still")).await.unwrap();
        tree.flush(ino).await.unwrap();
        assert_eq!(&tree.bytes(ino).await.unwrap()[10..15], b"still");
        tree.release(ino).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        bed.store.drain().await.unwrap();
        assert!(matches!(tree.stat(ino).await, Err(Error::Refused(Refusal::Stale))), "{how}");
        _ = tree.unlink(tree.root(), b"f").await;
    }
}

#[tokio::test]
async fn what_was_written_survives_the_process() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let bytes = pattern(100_000, 5);
    tree.save(tree.root(), "old", &bytes).await.unwrap();
    let old = tree.walk("old").await.unwrap().ino;
    let new = tree.make_open(tree.root(), b"new", file()).await.unwrap().ino;
    tree.write(new, 0, bytes.clone().into()).await.unwrap();
    tree.write(old, 100, Bytes::from_static(b"changed")).await.unwrap();
    drop(tree);

    let store = bed.restarted(crate::object::Config::default()).await;
    let tree = tree_of(&bed, &store, "staging").await;
    assert_eq!(tree.bytes(new).await.unwrap(), bytes);
    assert_eq!(&tree.bytes(old).await.unwrap()[100..107], b"changed");
    let version =
        store.head(&Target { bucket: "b".into(), key: b"new".to_vec(), version: None }).await.unwrap().version;
    assert_eq!(version.etag.md5, md5_of(&bytes));
}

/// A power cut may bring back staging files as they were long before.
#[tokio::test]
async fn after_a_reboot_staged_bytes_count_only_over_what_they_were_written_over() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let [new, old] = [b"new", b"old"].map(|name| (name, pattern(30_000, name[0].into())));
    let mut inos = Vec::new();
    for (name, bytes) in [&new, &old] {
        let ino = tree.save(tree.root(), std::str::from_utf8(*name).unwrap(), bytes).await.unwrap().ino;
        tree.write(ino, 10, Bytes::from_static(b"staged")).await.unwrap();
        inos.push(ino);
    }
    kill(tree);
    let staging = bed.dir.path().join("staging");
    for entry in std::fs::read_dir(&staging).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[24..40].fill(0);
        std::fs::write(&path, bytes).unwrap();
    }
    let store = bed.restarted(crate::object::Config::default()).await;
    let other = tree_of(&bed, &store, "other").await;
    other.write(inos[1], 12, Bytes::from_static(b"later")).await.unwrap();
    other.flush(inos[1]).await.unwrap();
    let tree = tree_of(&bed, &store, "staging").await;
    assert_eq!(&tree.bytes(inos[0]).await.unwrap()[10..16], b"staged");
    let found = tree.bytes(inos[1]).await.unwrap();
    assert_eq!((&found[10..12], &found[12..17]), (&old.1[10..12], &b"later"[..]));
    assert!(tree.0.staging.left().unwrap().is_empty());
}

#[tokio::test]
async fn setting_the_time_of_what_is_being_written_changes_no_tag() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    for len in [1, 4095, 70_000] {
        let (name, bytes) = (format!("f{len}"), pattern(len, 1));
        let ino = tree.make_open(tree.root(), name.as_bytes(), file()).await.unwrap().ino;
        tree.write(ino, 0, bytes.clone().into()).await.unwrap();
        let at = Timestamp::from_seconds(77);
        let set = SetStat { mtime: Some(SetTime::At(at)), ..SetStat::default() };
        assert_eq!(tree.set_stat(ino, set).await.unwrap().mtime, at);
        tree.flush(ino).await.unwrap();
        tree.release(ino).await.unwrap();
        assert_eq!(tree.stat(ino).await.unwrap().mtime, at);
        let version = bed.store.head(&target(&name)).await.unwrap().version;
        assert_eq!((version.etag.md5, version.size_bytes), (md5_of(&bytes), len as u64));
    }
}

#[tokio::test]
async fn in_a_versioned_bucket_a_close_makes_one_version() {
    let bed = bed().await;
    bed.store.set_versioning("b", crate::catalog::Versioning::Enabled).await.unwrap();
    let tree = tree_of(&bed, &bed.store, "staging").await;
    for bytes in [&b"one"[..], b"two and more", b"three"] {
        tree.save(tree.root(), "f", bytes).await.unwrap();
    }
    let query = crate::catalog::VersionQuery { limit: 100, ..Default::default() };
    let page = bed.store.list_versions("b", query).await.unwrap();
    let sizes: Vec<u64> = page.entries.iter().map(|(_, version)| version.as_ref().unwrap().size_bytes).collect();
    assert_eq!(sizes, [5, 12, 3]);
    bed.assert_sound_but_reclaim().await;
}

#[tokio::test]
async fn a_bucket_that_is_mounted_no_more_keeps_nothing_for_anybody() {
    let bed = bed().await;
    let (one, two) = (tree_of(&bed, &bed.store, "one").await, tree_of(&bed, &bed.store, "two").await);
    drop((one, two));
    let id = bed.store.bucket("b").await.unwrap().id;
    let after = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        bed.put("o", b"bytes").await;
        bed.store.delete("b", vec![crate::object::tests::delete_key("o")]).await.unwrap();
        bed.store.drain().await.unwrap();
        let orphans = bed.ledger.readers.read(move |view| view.orphaned(id, crate::ids::LogIndex(0))).await.unwrap();
        if orphans.is_empty() {
            return;
        }
        assert!(std::time::Instant::now() < after, "{orphans:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_hidden_file_is_seen_once_its_mount_is_gone() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    tree.make_open(tree.root(), b"empty", file()).await.unwrap();
    assert_eq!(keys(&bed).await, Vec::<String>::new());
    drop(tree);
    while keys(&bed).await != ["empty"] {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_killed_process_had_open_is_let_go_if_its_mount_does_not_come_back() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    tree.make_open(tree.root(), b"empty", file()).await.unwrap();
    let ino = tree.save(tree.root(), "lost", &pattern(50_000, 1)).await.unwrap().ino;
    tree.open(ino, false).await.unwrap();
    tree.unlink(tree.root(), b"lost").await.unwrap();
    kill(tree);
    let store = bed.restarted(crate::object::Config::default()).await;
    assert_eq!(keys(&bed).await, Vec::<String>::new());
    assert!(!store.snapshot(|view| Ok(view.has_reapable()?)).await.unwrap());
    settle_inheritance(store.clone(), Duration::ZERO).await;
    assert_eq!(keys(&bed).await, ["empty"]);
    assert!(store.snapshot(|view| Ok(view.has_reapable()?)).await.unwrap());
}

/// Two mounts read such a file just when it is let go: the one that closes it last does it.
#[tokio::test]
async fn what_others_read_meanwhile_is_let_go_after_the_last_close() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let ino = tree.make_open(tree.root(), b"new", file()).await.unwrap().ino;
    kill(tree);
    let store = bed.restarted(crate::object::Config::default()).await;
    let (one, two) = (tree_of(&bed, &store, "one").await, tree_of(&bed, &store, "two").await);
    one.open(ino, false).await.unwrap();
    settle_inheritance(store.clone(), Duration::ZERO).await;
    two.open(ino, false).await.unwrap();
    one.release(ino).await.unwrap();
    assert_eq!(keys(&bed).await, Vec::<String>::new());
    two.release(ino).await.unwrap();
    assert_eq!(keys(&bed).await, ["new"]);
}

/// A file that was open when the process ended: the kernel closes it later, and the next process never counted that open.
#[tokio::test]
async fn the_end_of_an_open_of_the_process_before_ends_no_other() {
    let bed = bed().await;
    let tree = outliving_tree(&bed, &bed.store, None).await;
    let ino = tree.save(tree.root(), "shared", b"before").await.unwrap().ino;
    tree.open(ino, false).await.unwrap();
    kill(tree);
    let store = bed.restarted(crate::object::Config::default()).await;
    let tree = outliving_tree(&bed, &store, Some(Kernel::knowing(&[ino]))).await;
    tree.open(ino, false).await.unwrap();
    tree.release_former(ino).await.unwrap();
    assert!(tree.0.files.is_open(ino));
    tree.write(ino, 0, Bytes::from_static(b"behind")).await.unwrap();
    tree.open(ino, false).await.unwrap();
    tree.0.files.close(ino);
    tree.0.files.forget(ino);
    assert_eq!(tree.bytes(ino).await.unwrap(), b"behind");
    // Even of a file that is counted as closed nothing is forgotten that is not committed.
    tree.0.files.close(ino);
    tree.0.files.forget(ino);
    assert_eq!(tree.bytes(ino).await.unwrap(), b"behind");
    tree.settle_left_behind().await;
    assert!(tree.0.files.all().is_empty());
    assert_eq!(bed.get("shared", 0..6).await.unwrap(), b"behind");
}

#[tokio::test]
async fn a_mount_goes_on_with_the_next_process() {
    let bed = bed().await;
    let tree = outliving_tree(&bed, &bed.store, None).await;
    let bytes = pattern(50_000, 1);
    let lost = tree.save(tree.root(), "lost", &bytes).await.unwrap().ino;
    tree.open(lost, false).await.unwrap();
    tree.unlink(tree.root(), b"lost").await.unwrap();
    let new = tree.make_open(tree.root(), b"new", file()).await.unwrap().ino;
    tree.write(new, 0, bytes[..30_000].to_vec().into()).await.unwrap();
    let closed = tree.make_open(tree.root(), b"closed", file()).await.unwrap().ino;
    tree.write(closed, 0, Bytes::from_static(b"closed")).await.unwrap();
    kill(tree);

    let store = bed.restarted(crate::object::Config::default()).await;
    let kernel = Kernel::knowing(&[lost, new]);
    let tree = outliving_tree(&bed, &store, Some(kernel.clone())).await;
    // Of the one that the kernel does not know nobody will close anything any more.
    tree.settle_inherited().await;
    assert_eq!(keys(&bed).await, ["closed"]);
    assert_eq!(tree.bytes(lost).await.unwrap(), bytes);
    assert_eq!(tree.bytes(new).await.unwrap(), bytes[..30_000]);
    tree.write(new, 30_000, bytes[30_000..].to_vec().into()).await.unwrap();
    tree.flush(new).await.unwrap();
    tree.release(new).await.unwrap();
    assert_eq!(keys(&bed).await, ["closed", "new"]);
    assert_eq!(bed.get("new", 0..50_000).await.unwrap(), bytes);
    // Two may have had it open: the first close lets nothing go.
    tree.release(lost).await.unwrap();
    tree.settle_inherited().await;
    assert!(!store.snapshot(|view| Ok(view.has_reapable()?)).await.unwrap());
    assert_eq!(tree.bytes(lost).await.unwrap(), bytes);
    kernel.forget(lost);
    kernel.forget(new);
    tree.settle_inherited().await;
    assert!(tree.0.files.all().is_empty());
    let seen = store.snapshot(|view| view.applied_index().map_err(Error::from)).await.unwrap();
    tree.propose(FileOperation::Hold { seen: seen.0, inos: Vec::new() }).await.unwrap();
    assert!(store.snapshot(|view| Ok(view.has_reapable()?)).await.unwrap());
}

fn asked(number: u64) -> Request {
    Request { number, is_again: false }
}

fn asked_again(number: u64) -> Request {
    Request { number, is_again: true }
}

#[tokio::test]
async fn what_was_done_for_a_request_is_not_done_again_by_the_next_process() {
    let bed = bed().await;
    let tree = outliving_tree(&bed, &bed.store, None).await;
    let root = tree.root();
    let made = for_request(asked(2), tree.make(root, b"made", file())).await.unwrap();
    for_request(asked(4), tree.make(root, b"gone", file())).await.unwrap();
    for_request(asked(6), tree.unlink(root, b"gone")).await.unwrap();
    for_request(asked(8), tree.make(root, b"a", directory())).await.unwrap();
    for_request(asked(10), tree.rename((root, b"a"), (root, b"b"), RenameMode::NoReplace)).await.unwrap();
    for_request(asked(12), tree.set_xattr(made.ino, b"user.x", b"1", XattrMode::Create)).await.unwrap();
    for_request(asked(14), tree.link(made.ino, root, b"second")).await.unwrap();
    assert!(matches!(for_request(asked(16), tree.unlink(root, b"none")).await, Err(Error::Refused(Refusal::NoEntry))));
    assert_eq!(for_request(asked(24), tree.append(made.ino, Bytes::from_static(b"once"))).await.unwrap(), 0);
    tree.answered(4);
    kill(tree);

    let store = bed.restarted(crate::object::Config::default()).await;
    let tree = outliving_tree(&bed, &store, Some(Kernel::knowing(&[]))).await;
    assert_eq!(for_request(asked_again(2), tree.make(root, b"made", file())).await.unwrap().ino, made.ino);
    for_request(asked_again(6), tree.unlink(root, b"gone")).await.unwrap();
    for_request(asked_again(10), tree.rename((root, b"a"), (root, b"b"), RenameMode::NoReplace)).await.unwrap();
    for_request(asked_again(12), tree.set_xattr(made.ino, b"user.x", b"1", XattrMode::Create)).await.unwrap();
    assert_eq!(for_request(asked_again(14), tree.link(made.ino, root, b"second")).await.unwrap().nlink, 2);
    assert_eq!(for_request(asked_again(24), tree.append(made.ino, Bytes::from_static(b"once"))).await.unwrap(), 0);
    assert_eq!(for_request(asked_again(26), tree.append(made.ino, Bytes::from_static(b", twice"))).await.unwrap(), 4);
    assert_eq!(tree.bytes(made.ino).await.unwrap(), b"once, twice");
    // Neither of another mount, nor of another request, nor of one that was refused.
    assert!(matches!(
        for_request(asked_again(18), tree.unlink(root, b"gone")).await,
        Err(Error::Refused(Refusal::NoEntry))
    ));
    let other = tree_of(&bed, &store, "other").await;
    assert!(matches!(
        for_request(asked_again(6), other.unlink(root, b"gone")).await,
        Err(Error::Refused(Refusal::NoEntry))
    ));
    for_request(asked_again(20), tree.make(root, b"none", file())).await.unwrap();
    for_request(asked_again(16), tree.unlink(root, b"none")).await.unwrap();
    // What was answered is forgotten, and what is left goes with the mount.
    for request in [2, 6, 10, 12, 14, 16, 20] {
        tree.answered(request);
    }
    for_request(asked_again(22), tree.make(root, b"last", file())).await.unwrap();
    let answered_count = || store.snapshot(|view| Ok(view.answered_count()?));
    // The last, one that the first process was not told, and one that it may have passed on with what its keeper said.
    assert!((2..=3).contains(&answered_count().await.unwrap()));
    drop(tree);
    while answered_count().await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_mount_hears_what_others_change_and_not_its_own() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let other = tree_of(&bed, &bed.store, "other").await;
    let mut watch = tree.watch();
    let own = tree.save(tree.root(), "own", b"own").await.unwrap();
    bed.put("put", b"bytes").await;
    let heard = |changed: Option<Changed>| changed.unwrap();
    assert_eq!(heard(watch.next().await), Changed::Name { parent: tree.root(), name: b"put".to_vec() });
    other.save(tree.root(), "own", b"other bytes").await.unwrap();
    assert_eq!(heard(watch.next().await), Changed::Inode(own.ino));
    other.make(tree.root(), b"dir", directory()).await.unwrap();
    loop {
        match heard(watch.next().await) {
            Changed::Inode(_) => {}
            changed => break assert_eq!(changed, Changed::Name { parent: tree.root(), name: b"dir".to_vec() }),
        }
    }
}

#[tokio::test]
async fn holes_are_found_and_read_as_zeros() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let ino = tree.save(tree.root(), "f", &pattern(20_000, 1)).await.unwrap().ino;
    tree.set_stat(ino, SetStat { size_bytes: Some(1 << 40), ..SetStat::default() }).await.unwrap();
    assert_eq!(tree.seek(ino, 0, Seek::Hole).await.unwrap(), 20_000);
    assert!(matches!(tree.seek(ino, 20_000, Seek::Data).await, Err(Error::Refused(Refusal::NoSuchOffset))));
    tree.write(ino, 1 << 39, Bytes::from_static(b"far")).await.unwrap();
    assert_eq!(tree.seek(ino, 30_000, Seek::Data).await.unwrap(), 1 << 39);
    tree.allocate(ino, 5000..15_000, Allocate::PunchHole).await.unwrap();
    assert_eq!(tree.seek(ino, 0, Seek::Hole).await.unwrap(), 5000);
    assert_eq!(tree.seek(ino, 6000, Seek::Data).await.unwrap(), 15_000);
    assert_eq!(&tree.read(ino, 4999, 10_002).await.unwrap()[1..10_001], &[0; 10_000]);
    let stat = tree.stat(ino).await.unwrap();
    assert_eq!((stat.size_bytes, stat.stored_bytes), (1 << 40, 10_003));
    bed.assert_sound_but_reclaim().await;
}

#[tokio::test]
async fn two_trees_of_two_gateways_are_one() {
    let bed = bed().await;
    let one = tree_of(&bed, &bed.store, "one").await;
    let config = crate::object::Config { gateway: "other".into(), ..crate::object::Config::default() };
    let other = bed.restarted(config).await;
    let two = tree_of(&bed, &other, "two").await;
    let dir = one.make(one.root(), b"d", directory()).await.unwrap().ino;
    let ino = one.save(dir, "f", &pattern(50_000, 1)).await.unwrap().ino;
    assert_eq!(two.walk("d/f").await.unwrap().ino, ino);
    assert_eq!(two.bytes(ino).await.unwrap(), pattern(50_000, 1));
    assert!(matches!(two.make(dir, b"f", file()).await, Err(Error::Refused(Refusal::EntryExists))));
    // Both change other bytes of it.
    one.write(ino, 0, Bytes::from_static(b"one")).await.unwrap();
    two.write(ino, 40_000, Bytes::from_static(b"two")).await.unwrap();
    one.flush(ino).await.unwrap();
    two.flush(ino).await.unwrap();
    let bytes = one.bytes(ino).await.unwrap();
    assert_eq!((&bytes[..3], &bytes[40_000..40_003]), (&b"one"[..], &b"two"[..]));
    // What one has open the other does not take away.
    two.open(ino, false).await.unwrap();
    one.unlink(dir, b"f").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1300)).await;
    bed.store.drain().await.unwrap();
    assert_eq!(two.bytes(ino).await.unwrap(), bytes);
}

#[tokio::test]
async fn what_only_reads_is_answered_by_the_thread_that_asks_if_it_may_block() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let ino = tree.make_open(tree.root(), b"f", file()).await.unwrap().ino;
    let asked = tree.clone();
    let work = async move {
        asked.stat(ino).await.unwrap();
        asked.lookup(asked.root(), b"f").await.unwrap();
        asked.list(asked.root(), None, 10).await.unwrap();
        asked.write(ino, 0, Bytes::from_static(b"bytes")).await.unwrap();
        asked.read(ino, 0, 10).await.unwrap()
    };
    let Ok(read) = crate::patient::begin(Box::pin(work)) else { panic!("it waited for another thread") };
    assert_eq!(&read[..], b"bytes");
}

/// What a program rewrites is for S3 the old file until it is closed, and one version where there are versions.
#[tokio::test]
async fn a_file_that_is_rewritten_is_changed_once() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let other = tree_of(&bed, &bed.store, "other").await;
    let cut = |len| SetStat { size_bytes: Some(len), is_open: true, ..SetStat::default() };
    let mut number = 0;
    for old_len in [10, 8192, 50_000, 3_000_000] {
        for (kept, at, len) in
            [(0, 0, 5), (0, 0, 70_000), (0, 0, 4_000_000), (0, 90_000, 10), (7, 7, 100), (9, 40_000, 9)]
        {
            number += 1;
            let (name, old, new) = (format!("f{number}"), pattern(old_len, 1), pattern(len, number));
            let said = format!("{old_len} bytes, cut to {kept}, {len} written at {at}");
            let ino = tree.save(tree.root(), &name, &old).await.unwrap().ino;
            tree.open(ino, false).await.unwrap();
            assert_eq!(tree.set_stat(ino, cut(kept)).await.unwrap().size_bytes, kept);
            assert_eq!(bed.get(&name, 0..old_len as u64).await.unwrap(), old, "{said}");
            assert_eq!(other.stat(ino).await.unwrap().size_bytes, old_len as u64);
            for (start, run) in new.chunks(400_000).enumerate() {
                tree.write(ino, at + start as u64 * 400_000, Bytes::copy_from_slice(run)).await.unwrap();
            }
            let mut expected = old[..kept as usize].to_vec();
            expected.resize(at as usize, 0);
            expected.extend_from_slice(&new);
            assert_eq!(tree.bytes(ino).await.unwrap(), expected, "{said}");
            tree.release(ino).await.unwrap();
            assert_eq!(tree.stat(ino).await.unwrap().size_bytes, expected.len() as u64);
            assert_eq!(bed.get(&name, 0..expected.len() as u64).await.unwrap(), expected, "{said}");
            if (kept, at) == (0, 0) {
                let etag = bed.store.head(&target(&name)).await.unwrap().version.etag;
                assert_eq!((etag.md5, etag.part_count), (md5_of(&expected), 0), "{said}");
            }
        }
    }
    bed.assert_sound().await;
}

/// In more places than one command names.
#[tokio::test]
async fn a_file_that_is_rewritten_in_many_places_has_nothing_of_its_former_end() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let ino = tree.save(tree.root(), "f", &pattern(9_000_000, 1)).await.unwrap().ino;
    tree.open(ino, false).await.unwrap();
    let cut = SetStat { size_bytes: Some(7), is_open: true, ..SetStat::default() };
    tree.set_stat(ino, cut).await.unwrap();
    let mut expected = pattern(9_000_000, 1)[..7].to_vec();
    for nth in 1..=1100_usize {
        let patch = pattern(20, nth as u64);
        expected.resize(nth * 5000, 0);
        expected.extend_from_slice(&patch);
        tree.write(ino, nth as u64 * 5000, patch.into()).await.unwrap();
    }
    let cut = SetStat { size_bytes: Some(7_000_000), is_open: true, ..SetStat::default() };
    tree.set_stat(ino, cut).await.unwrap();
    expected.resize(7_000_000, 0);
    assert_eq!(tree.bytes(ino).await.unwrap(), expected);
    tree.release(ino).await.unwrap();
    assert_eq!(bed.get("f", 0..7_000_000).await.unwrap(), expected);
    assert_ne!(bed.store.head(&target("f")).await.unwrap().version.etag.part_count, 0);
    bed.assert_sound_but_reclaim().await;
}

/// Cut, and longer again, and not written: also by the next process.
#[tokio::test]
async fn a_file_that_was_cut_survives_the_process() {
    let bed = bed().await;
    let tree = outliving_tree(&bed, &bed.store, None).await;
    let cut = |len| SetStat { size_bytes: Some(len), is_open: true, ..SetStat::default() };
    let mut inos = Vec::new();
    for name in ["closed", "open"] {
        let ino = tree.save(tree.root(), name, &pattern(50_000, 1)).await.unwrap().ino;
        tree.open(ino, false).await.unwrap();
        tree.set_stat(ino, cut(10)).await.unwrap();
        tree.set_stat(ino, cut(60_000)).await.unwrap();
        inos.push(ino);
    }
    kill(tree);
    let store = bed.restarted(crate::object::Config::default()).await;
    let tree = outliving_tree(&bed, &store, Some(Kernel::knowing(&[inos[1]]))).await;
    let mut expected = pattern(50_000, 1)[..10].to_vec();
    expected.resize(60_000, 0);
    assert_eq!(tree.bytes(inos[1]).await.unwrap(), expected);
    assert_eq!(bed.get("open", 0..50_000).await.unwrap(), pattern(50_000, 1));
    tree.settle_inherited().await;
    assert_eq!(bed.get("closed", 0..60_000).await.unwrap(), expected);
    tree.flush(inos[1]).await.unwrap();
    assert_eq!(bed.get("open", 0..60_000).await.unwrap(), expected);
}

/// What `tar` and `cp -p` do to a file before they close it is one command with its bytes.
#[tokio::test]
async fn attributes_of_a_new_file_come_with_its_bytes() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let other = tree_of(&bed, &bed.store, "other").await;
    let time = crate::env::Timestamp::from_seconds(1234);
    for (number, len) in [0, 100, 50_000, 3_000_000].into_iter().enumerate() {
        let (name, bytes) = (format!("f{number}"), pattern(len, 1));
        let ino = tree.make_open(tree.root(), name.as_bytes(), file()).await.unwrap().ino;
        tree.set_stat(ino, SetStat { mtime: Some(SetTime::At(time)), ..SetStat::default() }).await.unwrap();
        for (index, run) in bytes.chunks(400_000).enumerate() {
            tree.write(ino, index as u64 * 400_000, Bytes::copy_from_slice(run)).await.unwrap();
        }
        let dated = tree.stat(ino).await.unwrap();
        assert_eq!(dated.mtime == time, len == 0, "what is written later dates it");
        let set = SetStat { mtime: Some(SetTime::At(time)), atime: Some(SetTime::At(time)), ..SetStat::default() };
        tree.set_stat(ino, set).await.unwrap();
        tree.set_stat(ino, SetStat { uid: Some(10), gid: Some(20), ..SetStat::default() }).await.unwrap();
        let shown = tree.set_stat(ino, SetStat { mode: Some(0o4711), ..SetStat::default() }).await.unwrap();
        let seen = |stat: &Stat| (stat.mode, stat.uid, stat.gid, stat.atime, stat.mtime, stat.size_bytes);
        let expected = (0o4711, 10, 20, time, time, len as u64);
        assert_eq!(seen(&shown), expected);
        assert!(shown.ctime >= dated.ctime);
        let before = other.stat(ino).await.unwrap();
        assert_eq!((before.mode, before.uid, before.size_bytes), (0o644, 1, 0), "nobody else sees them yet");
        tree.flush(ino).await.unwrap();
        assert_eq!(seen(&other.stat(ino).await.unwrap()), expected);
        assert_eq!(bed.get(&name, 0..len as u64).await.unwrap(), bytes);
        // From now on S3 sees it, and so its attributes.
        tree.set_stat(ino, SetStat { mode: Some(0o600), ..SetStat::default() }).await.unwrap();
        assert_eq!(other.stat(ino).await.unwrap().mode, 0o600);
        tree.release(ino).await.unwrap();
        assert_eq!(seen(&other.stat(ino).await.unwrap()), (0o600, 10, 20, time, time, len as u64));
    }
    bed.assert_sound().await;
}

#[tokio::test]
async fn attributes_of_a_new_file_survive_the_process() {
    let bed = bed().await;
    let tree = outliving_tree(&bed, &bed.store, None).await;
    let ino = tree.make_open(tree.root(), b"f", file()).await.unwrap().ino;
    tree.set_stat(ino, SetStat { mode: Some(0o600), uid: Some(10), ..SetStat::default() }).await.unwrap();
    kill(tree);
    let store = bed.restarted(crate::object::Config::default()).await;
    let tree = outliving_tree(&bed, &store, Some(Kernel::knowing(&[ino]))).await;
    assert_eq!((tree.stat(ino).await.unwrap().mode, tree.committed(ino).await.unwrap().mode), (0o600, 0o644));
    tree.flush(ino).await.unwrap();
    let stat = tree.committed(ino).await.unwrap();
    assert_eq!((stat.mode, stat.uid, stat.size_bytes), (0o600, 10, 0));
    assert_eq!(bed.get("f", 0..0).await.unwrap(), b"");
}

/// Two logs in one: who commits later comes behind, and both see it so.
#[tokio::test]
async fn what_two_mounts_append_is_all_there() {
    let bed = bed().await;
    let trees = [tree_of(&bed, &bed.store, "staging").await, tree_of(&bed, &bed.store, "other").await];
    for len in [3, 3_000, 700_000] {
        let name = format!("f{len}");
        let ino = trees[0].save(trees[0].root(), &name, b"").await.unwrap().ino;
        let mut expected = Vec::new();
        for tree in &trees {
            tree.open(ino, false).await.unwrap();
        }
        for round in 0..4_u64 {
            let lines = [pattern(len, 2 * round), pattern(len, 2 * round + 1)];
            for (tree, line) in trees.iter().zip(&lines) {
                let (half, rest) = line.split_at(len / 2);
                assert_eq!(tree.append(ino, Bytes::copy_from_slice(half)).await.unwrap(), expected.len() as u64);
                tree.append(ino, Bytes::copy_from_slice(rest)).await.unwrap();
            }
            for (tree, line) in trees.iter().zip(&lines) {
                tree.flush(ino).await.unwrap();
                expected.extend_from_slice(line);
            }
            // Of what is not committed too, where it will be.
            trees[1].append(ino, Bytes::from_static(b"more")).await.unwrap();
            trees[0].append(ino, Bytes::from_static(b"between")).await.unwrap();
            trees[0].flush(ino).await.unwrap();
            expected.extend_from_slice(b"betweenmore");
            assert_eq!(trees[1].bytes(ino).await.unwrap(), expected);
            assert_eq!(trees[1].stat(ino).await.unwrap().size_bytes, expected.len() as u64);
            // Written over, it is where it was seen.
            trees[1].write(ino, expected.len() as u64 - 4, Bytes::from_static(b"M")).await.unwrap();
            let at = expected.len() - 4;
            expected[at] = b'M';
            trees[1].flush(ino).await.unwrap();
        }
        assert_eq!(bed.get(&name, 0..expected.len() as u64).await.unwrap(), expected);
        for tree in &trees {
            tree.release(ino).await.unwrap();
        }
    }
    bed.assert_sound().await;
}

/// One reads while both append and commit: what is read is the file as it was once, without the end of one commit missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_is_read_beside_appends_is_whole() {
    const LINE: &[u8] = b"0123456789abcde\n";
    let bed = bed().await;
    let trees = [tree_of(&bed, &bed.store, "staging").await, tree_of(&bed, &bed.store, "other").await];
    let ino = trees[0].save(trees[0].root(), "log", b"").await.unwrap().ino;
    let writers = trees.clone().map(|tree| {
        tokio::spawn(async move {
            tree.open(ino, false).await.unwrap();
            for _ in 0..60 {
                tree.append(ino, Bytes::from_static(LINE)).await.unwrap();
                tree.append(ino, Bytes::from_static(LINE)).await.unwrap();
                tokio::task::yield_now().await;
                tree.flush(ino).await.unwrap();
            }
        })
    });
    let mut seen = 0;
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let bytes = trees[0].bytes(ino).await.unwrap();
        assert!(bytes.chunks(LINE.len()).all(|line| line == LINE), "a line is cut or filled with zeros");
        assert!(bytes.len() >= seen, "{} bytes after {seen}", bytes.len());
        seen = bytes.len();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(trees[0].bytes(ino).await.unwrap().len(), 240 * LINE.len());
    for tree in &trees {
        tree.release(ino).await.unwrap();
    }
    bed.assert_sound().await;
}

/// A process that is killed after a commit, before it has cut off what was staged.
#[tokio::test]
async fn what_was_appended_is_not_there_twice() {
    for len in [5_usize, 50_000] {
        let bed = bed().await;
        let tree = outliving_tree(&bed, &bed.store, None).await;
        let ino = tree.save(tree.root(), "f", b"first").await.unwrap().ino;
        tree.open(ino, false).await.unwrap();
        let line = pattern(len, 1);
        for (number, half) in line.chunks(len.div_ceil(2)).enumerate() {
            for_request(asked(2 + 2 * number as u64), tree.append(ino, Bytes::copy_from_slice(half))).await.unwrap();
        }
        let staging = bed.dir.path().join("staging");
        let staged: Vec<_> = std::fs::read_dir(&staging).unwrap().map(|entry| entry.unwrap().path()).collect();
        let kept: Vec<_> = staged.iter().map(|path| std::fs::read(path).unwrap()).collect();
        tree.flush(ino).await.unwrap();
        kill(tree);
        staged.iter().zip(&kept).for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
        let store = bed.restarted(crate::object::Config::default()).await;
        let tree = outliving_tree(&bed, &store, Some(Kernel::knowing(&[ino]))).await;
        let mut expected = [&b"first"[..], &line].concat();
        assert_eq!(tree.bytes(ino).await.unwrap(), expected);
        for_request(asked(20), tree.append(ino, Bytes::from_static(b"last"))).await.unwrap();
        tree.flush(ino).await.unwrap();
        expected.extend_from_slice(b"last");
        assert_eq!(bed.get("f", 0..expected.len() as u64).await.unwrap(), expected);

        // Of a mount that has ended meanwhile.
        kill(tree);
        std::fs::write(&staged[0], &kept[0]).unwrap();
        let store = bed.restarted(crate::object::Config::default()).await;
        drop(outliving_tree(&bed, &store, None).await);
        assert_eq!(bed.store.head(&target("f")).await.unwrap().version.size_bytes, expected.len() as u64);
    }
}

/// As `relatime` has it; and what S3 wrote stays as it was.
#[tokio::test]
async fn times_of_access_are_told_for_many_at_once() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let root = tree.root();
    let made = tree.save(root, "f", b"bytes").await.unwrap();
    let unread = tree.save(root, "unread", b"bytes").await.unwrap();
    let directory = tree.make(root, b"d", directory()).await.unwrap();
    bed.put("s3", b"bytes").await;
    let s3 = tree.lookup(root, b"s3").await.unwrap();
    for ino in [made.ino, directory.ino, s3.ino, Ino(1 << 40)] {
        tree.accessed(ino);
    }
    let shown = tree.stat(made.ino).await.unwrap();
    assert!(shown.atime > made.atime && shown.ctime == made.ctime && shown.revision == made.revision);
    assert_eq!(tree.committed(made.ino).await.unwrap().atime, made.atime, "not told yet");
    tree.tell_accesses().await.unwrap();
    assert_eq!(tree.committed(made.ino).await.unwrap(), shown);
    assert!(tree.committed(directory.ino).await.unwrap().atime > directory.atime);
    assert_eq!(tree.stat(unread.ino).await.unwrap(), unread);
    assert_eq!(tree.stat(s3.ino).await.unwrap(), s3, "S3's own are left alone");

    // It is later than the last change by now: only one of a day ago would be followed by another.
    tree.accessed(made.ino);
    assert_eq!(tree.stat(made.ino).await.unwrap(), shown);
    let aged = SetStat { atime: Some(SetTime::At(crate::env::Timestamp::from_seconds(1_000))), ..SetStat::default() };
    tree.set_stat(unread.ino, aged).await.unwrap();
    tree.accessed(unread.ino);
    tree.tell_accesses().await.unwrap();
    assert!(tree.committed(unread.ino).await.unwrap().atime >= unread.atime);
    assert_eq!(tree.committed(made.ino).await.unwrap(), shown);
    bed.assert_sound().await;
}

/// By a process that was killed after a commit, before it had cut off what was staged.
#[tokio::test]
async fn attributes_that_were_committed_are_not_set_again() {
    let bed = bed().await;
    let tree = outliving_tree(&bed, &bed.store, None).await;
    let ino = tree.make_open(tree.root(), b"f", file()).await.unwrap().ino;
    tree.set_stat(ino, SetStat { mode: Some(0o640), ..SetStat::default() }).await.unwrap();
    let staged = std::fs::read_dir(bed.dir.path().join("staging")).unwrap().next().unwrap().unwrap().path();
    let kept = std::fs::read(&staged).unwrap();
    tree.flush(ino).await.unwrap();
    assert_eq!(tree.committed(ino).await.unwrap().mode, 0o640);
    tree.set_stat(ino, SetStat { mode: Some(0o600), ..SetStat::default() }).await.unwrap();
    kill(tree);
    std::fs::write(&staged, &kept).unwrap();
    let store = bed.restarted(crate::object::Config::default()).await;
    let tree = outliving_tree(&bed, &store, Some(Kernel::knowing(&[ino]))).await;
    tree.flush(ino).await.unwrap();
    assert_eq!(tree.committed(ino).await.unwrap().mode, 0o600);
}

/// How many extents a file has.
async fn extent_count(tree: &Tree, ino: Ino) -> usize {
    match tree.manifest(ino, 0..u64::MAX).await.unwrap() {
        crate::catalog::Manifest::Extents(extents) => extents.len(),
        _ => 0,
    }
}

#[tokio::test]
async fn what_was_written_in_many_places_is_stored_anew_as_one() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let mut bytes = pattern(600_000, 1);
    let ino = tree.save(tree.root(), "f", &bytes).await.unwrap().ino;
    tree.open(ino, false).await.unwrap();
    for nth in 0..300_usize {
        let at = nth * 1999;
        let patch = pattern(500, nth as u64 + 2);
        bytes[at..at + 500].copy_from_slice(&patch);
        tree.write(ino, at as u64, patch.into()).await.unwrap();
        if nth % 50 == 49 {
            tree.flush(ino).await.unwrap();
        }
    }
    // A hole, and what comes behind it in few pieces.
    tree.write(ino, 900_000, Bytes::from(pattern(20_000, 9))).await.unwrap();
    tree.flush(ino).await.unwrap();
    bytes.resize(900_000, 0);
    bytes.extend(pattern(20_000, 9));
    let before = (tree.stat(ino).await.unwrap(), bed.store.head(&target("f")).await.unwrap().version);
    bed.store.copy(&before.1, crate::object::tests::put_of("copy"), Vec::new()).await.unwrap();
    assert!(extent_count(&tree, ino).await > 500);

    assert_eq!(tree.compact(ino, || true).await.unwrap(), 1);
    assert_eq!(extent_count(&tree, ino).await, 2);
    let after = (tree.stat(ino).await.unwrap(), bed.store.head(&target("f")).await.unwrap().version);
    assert_eq!((after.0, after.1.etag, after.1.modified), (before.0, before.1.etag, before.1.modified));
    assert_eq!(tree.bytes(ino).await.unwrap(), bytes);
    assert_eq!(bed.get("copy", 0..920_000).await.unwrap(), bytes);
    assert_eq!(tree.compact(ino, || true).await.unwrap(), 0, "there is nothing more to do");
    tree.release(ino).await.unwrap();
    bed.store.drain().await.unwrap();
    bed.assert_sound_but_reclaim().await;
    let chunks = bed.store.snapshot(|view| Ok(view.chunks(Ino(0), 100)?)).await.unwrap();
    assert_eq!(chunks.len(), 2, "what was written over is kept");
}

#[tokio::test]
async fn a_file_that_is_written_meanwhile_is_not_compacted() {
    let bed = bed().await;
    let tree = tree_of(&bed, &bed.store, "staging").await;
    let mut bytes = pattern(100_000, 1);
    let ino = tree.save(tree.root(), "f", &bytes).await.unwrap().ino;
    tree.open(ino, false).await.unwrap();
    for at in (0..100_000).step_by(1000) {
        tree.write(ino, at as u64, Bytes::from_static(b"patch")).await.unwrap();
        bytes[at..at + 5].copy_from_slice(b"patch");
    }
    tree.flush(ino).await.unwrap();
    let before = tree.committed(ino).await.unwrap();
    tree.write(ino, 50_500, Bytes::from_static(b"meanwhile")).await.unwrap();
    bytes[50_500..50_509].copy_from_slice(b"meanwhile");
    tree.flush(ino).await.unwrap();
    let refused = tree.store_anew(&before, 0..100_000).await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::RevisionChanged(_)))), "{refused:?}");
    assert_eq!(tree.bytes(ino).await.unwrap(), bytes);
    // By itself, once it is quiet.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while extent_count(&tree, ino).await > 1 {
        assert!(std::time::Instant::now() < deadline, "it is not compacted");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!(tree.bytes(ino).await.unwrap(), bytes);
    tree.release(ino).await.unwrap();
    bed.assert_sound_but_reclaim().await;
}

/// Retention is S3's: through a file system nothing of such a bucket is changed, and its files can be locked.
#[tokio::test]
async fn a_bucket_with_object_lock_is_read_only() {
    let bed = bed().await;
    bed.store.create_bucket("locked", "owner", "here", true).await.unwrap();
    let staging = bed.dir.path().join("locked-staging");
    let tree = bed.store.tree("locked", b"", Mounting { id: 9, staging: &staging, kernel: None }).await.unwrap();
    assert!(tree.read_only());
    let root = tree.root();
    fn is_refused<T>(outcome: Result<T, Error>) -> bool {
        matches!(outcome, Err(Error::Refused(Refusal::ReadOnly)))
    }
    assert!(is_refused(tree.make(root, b"f", file()).await));
    assert!(is_refused(tree.make(root, b"d", directory()).await));
    assert!(is_refused(tree.unlink(root, b"f").await));
    assert!(is_refused(tree.rename((root, b"f"), (root, b"g"), RenameMode::Replace).await));
    assert!(is_refused(tree.write(Ino(5), 0, Bytes::from_static(b"text")).await));
    let all = Lock { owner: 1, start_bytes: 0, end_bytes: LOCK_END, is_exclusive: true, opened: 1, pid: 1 };
    tree.lock(root, all, std::time::Duration::ZERO).await.unwrap();
}
