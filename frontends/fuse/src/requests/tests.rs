#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use nix::libc;
use predastore::catalog::FileKind;

use super::*;
use crate::model::Model;
use crate::signals::Waiter;

fn call_within(limit: Duration, uid: u32) -> Call {
    Call { operation: "test", uid, gid: 7, deadline: Deadline::after(limit, false) }
}

fn call() -> Call {
    call_within(Duration::from_secs(60), 1000)
}

fn requests() -> (Model, Requests<Model>) {
    let model = Model::new();
    (model.clone(), Requests::new(model, MountOptions::default(), Arc::default()))
}

async fn file(requests: &Requests<Model>, name: &str) -> Stat {
    let root = requests.tree.root();
    requests.make_node(&call(), root, name.as_bytes(), 0o100_644, 0).await.unwrap()
}

#[tokio::test]
async fn what_is_shown_as_owner_and_mode_is_kept_when_something_is_set() {
    let defaults = crate::Defaults { uid: Some(1000), gid: Some(100), umask: Some(0o027) };
    let options = MountOptions { defaults, ..MountOptions::default() };
    let model = Model::new();
    let ino = model.add_object(model.root(), b"put");
    let requests = Requests::new(model, options, Default::default());
    let stat = requests.stat(&call(), ino).await.unwrap();
    assert_eq!((stat.uid, stat.gid, stat.mode), (1000, 100, 0o640));
    let set = SetStat { mode: Some(0o600), ..SetStat::default() };
    let stat = requests.set_stat(&call(), ino, set).await.unwrap();
    assert_eq!((stat.uid, stat.gid, stat.mode), (1000, 100, 0o600));
}

#[tokio::test]
async fn new_inodes_are_the_callers_or_their_directorys_groups() {
    let (model, requests) = requests();
    let root = model.root();
    let plain = requests.make_directory(&call(), root, b"plain", 0o755).await.unwrap();
    assert_eq!((plain.uid, plain.gid, plain.mode), (1000, 7, 0o755));

    let set = SetStat { mode: Some(0o2_775), gid: Some(50), ..SetStat::default() };
    requests.set_stat(&call(), plain.ino, set).await.unwrap();
    let below = requests.make_directory(&call(), plain.ino, b"below", 0o700).await.unwrap();
    let link = requests.make_symlink(&call(), plain.ino, b"link", b"target".to_vec()).await.unwrap();
    let made = requests.create(&call(), below.ino, b"file", 0o640, 0).await.unwrap().stat;
    assert_eq!((below.gid, below.mode), (50, 0o2_700));
    assert_eq!((link.gid, link.kind), (50, FileKind::Symlink));
    assert_eq!((made.gid, made.mode), (50, 0o640));
}

#[tokio::test]
async fn a_directory_that_was_just_seen_is_not_asked_for_again() {
    let (model, requests) = requests();
    for name in ["a", "b", "c"] {
        file(&requests, name).await;
    }
    assert_eq!(model.calls("stat"), 1);
    requests.changed(Event::Inode(model.root()));
    file(&requests, "d").await;
    assert_eq!(model.calls("stat"), 2);
}

#[tokio::test]
async fn nodes_of_every_kind_are_made() {
    let (model, requests) = requests();
    let make = async |name: &str, mode, rdev| {
        requests.make_node(&call(), model.root(), name.as_bytes(), mode, rdev).await.map(|stat| (stat.kind, stat.rdev))
    };
    assert_eq!(make("fifo", 0o010_600, 0).await, Ok((FileKind::Fifo, 0)));
    assert_eq!(make("socket", 0o140_600, 0).await, Ok((FileKind::Socket, 0)));
    assert_eq!(make("char", 0o020_600, 0x103).await, Ok((FileKind::CharDevice, 0x103)));
    assert_eq!(make("block", 0o060_600, 0x801).await, Ok((FileKind::BlockDevice, 0x801)));
    assert_eq!(make("directory", 0o040_600, 0).await, Err(Errno::EINVAL));
    assert_eq!(make("fifo", 0o010_600, 0).await, Err(Errno::EEXIST));
}

#[tokio::test]
async fn appends_go_to_the_end_and_the_kernel_hears_where_that_was_not_where_it_thought() {
    let (model, requests) = requests();
    let ino = file(&requests, "log").await.ino;
    let write = |offset, flags, is_from_mapping| {
        let written = Written { offset, data: Bytes::from_static(b"ab"), flags, is_from_mapping };
        let requests = &requests;
        async move { requests.write(&call(), ino, written).await.unwrap() }
    };
    write(0, libc::O_APPEND, false).await;
    assert!(requests.invalidations.is_empty());
    model.replace(ino, b"longer");
    write(2, libc::O_APPEND, false).await;
    assert!(!requests.invalidations.is_empty());
    write(0, libc::O_APPEND, true).await;
    write(3, 0, false).await;
    assert_eq!(requests.read(&call(), (ino, 0), (0, 100), true).await.unwrap(), &b"abnabrab"[..]);
    assert_eq!((model.calls("append"), model.calls("write")), (2, 2));
}

#[tokio::test]
async fn pages_are_kept_while_the_revision_is_the_one_they_were_read_at() {
    let (model, requests) = requests();
    let ino = file(&requests, "file").await.ino;
    let open = async || requests.open(&call(), ino, libc::O_RDONLY).await.unwrap();
    let first = open().await;
    assert!(!first.keeps_pages);
    requests.read(&call(), (ino, first.handle), (0, 1), true).await.unwrap();
    assert!(open().await.keeps_pages);
    model.replace(ino, b"other");
    assert!(!open().await.keeps_pages);
}

#[tokio::test]
async fn creating_what_is_there_sends_the_kernel_back_to_look() {
    let (model, requests) = requests();
    file(&requests, "file").await;
    let create = async |flags| requests.create(&call(), model.root(), b"file", 0o644, flags).await.map(drop);
    assert_eq!(create(libc::O_CREAT).await, Err(Errno::ESTALE));
    assert_eq!(create(libc::O_CREAT | libc::O_EXCL).await, Err(Errno::EEXIST));
}

#[tokio::test]
async fn an_open_that_comes_too_late_is_released() {
    let (model, requests) = requests();
    let ino = file(&requests, "file").await.ino;
    model.slow("open", Duration::from_millis(30));
    let late = call_within(Duration::from_millis(1), 0);
    assert_eq!(requests.open(&late, ino, 0).await.map(drop), Err(Errno::EIO));
    assert_eq!(model.opens(ino), 0);
    requests.open(&call(), ino, 0).await.unwrap();
    assert_eq!(model.opens(ino), 1);
}

#[tokio::test]
async fn renames_know_their_flags() {
    let (model, requests) = requests();
    let root = model.root();
    file(&requests, "a").await;
    file(&requests, "b").await;
    let rename = async |flags| requests.rename(&call(), (root, b"a"), (root, b"b"), flags).await;
    assert_eq!(rename(libc::RENAME_NOREPLACE).await, Err(Errno::EEXIST));
    assert_eq!(rename(libc::RENAME_WHITEOUT).await, Err(Errno::EINVAL));
    assert_eq!(rename(libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE).await, Err(Errno::EINVAL));
    assert_eq!(rename(libc::RENAME_EXCHANGE).await, Ok(()));
    assert_eq!(rename(0).await, Ok(()));
    assert!(!model.has(root, b"a"));
}

#[tokio::test]
async fn xattrs_are_of_three_kinds_and_trusted_ones_for_root() {
    let (_, requests) = requests();
    let ino = file(&requests, "file").await.ino;
    let set =
        async |name: &str, flags| requests.set_xattr(&call(), ino, name.as_bytes(), b"value", Replacing(flags)).await;
    assert_eq!(set("system.posix_acl_access", 0).await, Err(Errno::EOPNOTSUPP));
    assert_eq!(set("other", 0).await, Err(Errno::EOPNOTSUPP));
    assert_eq!(set("user.a", libc::XATTR_REPLACE).await, Err(Errno::ENODATA));
    assert_eq!(set("user.a", libc::XATTR_CREATE).await, Ok(()));
    assert_eq!(set("user.a", libc::XATTR_CREATE).await, Err(Errno::EEXIST));
    assert_eq!(set("trusted.b", 0).await, Ok(()));
    assert_eq!(requests.xattr(&call(), ino, b"user.a").await, Ok(b"value".to_vec()));
    assert_eq!(requests.xattr(&call(), ino, b"user.none").await, Err(Errno::ENODATA));
    assert_eq!(requests.xattr(&call(), ino, b"system.posix_acl_access").await, Err(Errno::EOPNOTSUPP));
    let root = call_within(Duration::from_secs(60), 0);
    assert_eq!(requests.xattr_names(&root, ino).await, Ok(b"trusted.b\0user.a\0".to_vec()));
    assert_eq!(requests.xattr_names(&call(), ino).await, Ok(b"user.a\0".to_vec()));
    assert_eq!(requests.remove_xattr(&call(), ino, b"user.a").await, Ok(()));
    assert_eq!(requests.remove_xattr(&call(), ino, b"user.a").await, Err(Errno::ENODATA));
}

#[tokio::test]
async fn that_a_file_has_no_capabilities_is_remembered_until_it_has() {
    const CAPABILITY: &[u8] = b"security.capability";
    let (model, requests) = requests();
    let ino = file(&requests, "file").await.ino;
    for _ in 0..3 {
        assert_eq!(requests.xattr(&call(), ino, CAPABILITY).await, Err(Errno::ENODATA));
    }
    assert_eq!((model.calls("xattr"), model.calls("xattrs")), (0, 1));
    requests.set_xattr(&call(), ino, CAPABILITY, b"caps", Replacing(0)).await.unwrap();
    assert_eq!(requests.xattr(&call(), ino, CAPABILITY).await, Ok(b"caps".to_vec()));
}

#[tokio::test]
async fn nothing_changes_where_nothing_may() {
    let (model, requests) = requests();
    let (root, ino) = (model.root(), file(&requests, "file").await.ino);
    model.set_read_only();
    let written = Written { offset: 0, data: Bytes::new(), flags: 0, is_from_mapping: false };
    let outcomes = [
        requests.make_directory(&call(), root, b"d", 0o755).await.map(drop),
        requests.create(&call(), root, b"f", 0o644, 0).await.map(drop),
        requests.open(&call(), ino, libc::O_RDWR).await.map(drop),
        requests.open(&call(), ino, libc::O_TRUNC).await.map(drop),
        requests.set_stat(&call(), ino, SetStat::default()).await.map(drop),
        requests.write(&call(), ino, written).await,
        requests.unlink(&call(), root, b"file").await,
        requests.remove_directory(&call(), root, b"file").await,
        requests.rename(&call(), (root, b"file"), (root, b"other"), 0).await,
        requests.link(&call(), ino, root, b"other").await.map(drop),
        requests.allocate(&call(), ino, 0, 1, 0).await,
        requests.copy_range(&call(), (ino, 0), (ino, 1), 1, 0).await.map(drop),
        requests.set_xattr(&call(), ino, b"user.a", b"", Replacing(0)).await,
        requests.remove_xattr(&call(), ino, b"user.a").await,
    ];
    assert!(outcomes.iter().all(|outcome| *outcome == Err(Errno::EROFS)), "{outcomes:?}");
    requests.open(&call(), ino, libc::O_RDONLY).await.unwrap();
}

#[tokio::test]
async fn fallocate_and_lseek_refuse_what_they_do_not_know() {
    let (_, requests) = requests();
    let ino = file(&requests, "file").await.ino;
    let allocate = async |offset, len, mode| requests.allocate(&call(), ino, offset, len, mode).await;
    assert_eq!(allocate(0, 10, 0).await, Ok(()));
    assert_eq!(allocate(0, 20, libc::FALLOC_FL_KEEP_SIZE).await, Ok(()));
    assert_eq!(allocate(0, 10, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE).await, Ok(()));
    assert_eq!(allocate(0, 10, libc::FALLOC_FL_PUNCH_HOLE).await, Err(Errno::EOPNOTSUPP));
    assert_eq!(allocate(0, 10, libc::FALLOC_FL_COLLAPSE_RANGE).await, Err(Errno::EOPNOTSUPP));
    assert_eq!(allocate(i64::MAX as u64, 1, 0).await, Err(Errno::EFBIG));
    assert_eq!(allocate(u64::MAX, 1, 0).await, Err(Errno::EFBIG));

    let seek = async |offset, whence| requests.seek(&call(), ino, offset, whence).await;
    assert_eq!(seek(3, libc::SEEK_HOLE).await, Ok(10));
    assert_eq!(seek(3, libc::SEEK_DATA).await, Ok(3));
    assert_eq!(seek(10, libc::SEEK_DATA).await, Err(Errno::ENXIO));
    assert_eq!(seek(-1, libc::SEEK_DATA).await, Err(Errno::ENXIO));
    assert_eq!(seek(0, libc::SEEK_SET).await, Err(Errno::EINVAL));
}

fn asked(owner: u64, kind: i32, first: u64, last: u64) -> Asked {
    Asked { owner, first, last, handle: 0, kind, pid: 1 }
}

#[tokio::test]
async fn locks_are_half_open_behind_and_closed_before() {
    let (_, requests) = requests();
    let ino = file(&requests, "f").await.ino;
    let end = i64::MAX as u64;
    requests.lock(&call(), ino, asked(1, libc::F_WRLCK, 10, end), None).await.unwrap();
    let refused = requests.lock(&call(), ino, asked(2, libc::F_RDLCK, 0, 10), None).await;
    assert_eq!(refused, Err(Errno::EAGAIN));
    requests.lock(&call(), ino, asked(2, libc::F_RDLCK, 0, 9), None).await.unwrap();
    let way = requests.lock_in_the_way(&call(), ino, asked(3, libc::F_WRLCK, 5, end)).await.unwrap().unwrap();
    assert!(way.first == 10 && way.last == end || way.first == 0 && way.last == 9, "{way:?}");
    requests.lock(&call(), ino, asked(1, libc::F_UNLCK, 0, end), None).await.unwrap();
    requests.close(&call(), ino, 0, 2).await.unwrap();
    assert_eq!(requests.lock_in_the_way(&call(), ino, asked(3, libc::F_WRLCK, 0, end)).await, Ok(None));
    for wrong in [asked(1, 77, 0, 1), asked(1, libc::F_RDLCK, 5, 4)] {
        assert_eq!(requests.lock(&call(), ino, wrong, None).await, Err(Errno::EINVAL), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_lock_is_not_had_before_the_kernel_was_told_of_all_changes() {
    struct Deaf;
    impl crate::invalidate::Notify for Deaf {
        fn inode(&self, _: Ino) {}
        fn entry(&self, _: Ino, _: &[u8]) {}
        fn entries(&self) {}
    }
    let (_, requests) = requests();
    let ino = file(&requests, "f").await.ino;
    requests.changed(Event::Inode(ino));
    let (waiter, lock) = (Waiter::new(std::process::id()), asked(1, libc::F_WRLCK, 0, 1));
    let call = call();
    let mut locked = std::pin::pin!(requests.lock(&call, ino, lock, Some(waiter)));
    assert!(tokio::time::timeout(Duration::from_millis(30), &mut locked).await.is_err());
    let invalidations = requests.invalidations.clone();
    let thread = std::thread::spawn(move || invalidations.run(&Deaf, Vec::new));
    locked.await.unwrap();
    requests.invalidations.close();
    thread.join().unwrap();
}

#[tokio::test]
async fn who_waits_for_a_lock_is_called_away() {
    let (_, requests) = requests();
    let ino = file(&requests, "f").await.ino;
    requests.lock(&call(), ino, asked(1, libc::F_WRLCK, 0, 1), None).await.unwrap();
    // A thread that is gone.
    let waited = requests.lock(&call(), ino, asked(2, libc::F_WRLCK, 0, 1), Some(Waiter::new(u32::MAX))).await;
    assert_eq!(waited, Err(Errno::EINTR));
    // A mount that has ended.
    requests.invalidations.close();
    let waited = requests.lock(&call(), ino, asked(2, libc::F_WRLCK, 0, 1), Some(Waiter::new(0))).await;
    assert_eq!(waited, Err(Errno::EINTR));
}
