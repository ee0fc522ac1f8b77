//! A model behind the real kernel, in a mount namespace of the test's own thread. Needs root and /dev/fuse; without them
//! these tests say so and do nothing.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tokio::runtime::Runtime;

use super::*;
use crate::model::Model;

struct Fixture {
    directory: tempfile::TempDir,
    model: Model,
    mounted: Mounted,
    runtime: Runtime,
    /// As a holder keeps it.
    device: Option<OwnedFd>,
    handshake: Handshake,
    options: MountOptions,
}

const PRIVATE: MsFlags = MsFlags::MS_REC.union(MsFlags::MS_PRIVATE);
const NOTHING: Option<&str> = None;

fn fixture(options: MountOptions) -> Option<Fixture> {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    let own_namespace = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| mount(NOTHING, "/", NOTHING, PRIVATE, NOTHING));
    let (Ok(device), Ok(())) = (device, own_namespace) else {
        eprintln!("skipped: needs root and /dev/fuse");
        return None;
    };
    let directory = tempfile::tempdir().unwrap();
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other", device.as_raw_fd());
    mount(Some("model"), directory.path(), Some("fuse"), MsFlags::empty(), Some(data.as_str())).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let model = Model::new();
    let device = OwnedFd::from(device);
    let second = device.try_clone().unwrap();
    let served = serve_over(device, model.clone(), options.clone(), runtime.handle().clone(), None);
    let (mounted, handshake) = served.unwrap();
    Some(Fixture { directory, model, mounted, runtime, device: Some(second), handshake, options })
}

impl Fixture {
    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn unmount(self) {
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
        let unmounted = async { tokio::time::timeout(Duration::from_secs(20), self.mounted.unmounted()).await };
        self.runtime.block_on(unmounted).unwrap().unwrap();
    }
}

#[test]
fn a_reader_that_was_cut_off_has_seen_an_end() {
    assert!(as_an_end(Err(io::Error::from_raw_os_error(libc::ECONNABORTED))).is_ok());
    assert!(matches!(as_an_end(Err(io::Error::from_raw_os_error(libc::EIO))), Err(Error::Session(_))));
}

/// The kernel believes what it knows for an hour.
fn long_lived() -> MountOptions {
    let hour = Duration::from_secs(3600);
    MountOptions { attr_ttl: hour, entry_ttl: hour, ..MountOptions::default() }
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not become so");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn programs_find_a_file_system() {
    let Some(fixture) = fixture(MountOptions::default()) else { return };
    let at = |name: &str| fixture.path().join(name);

    fs::create_dir_all(at("a/b/c")).unwrap();
    let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i / 7) as u8).collect();
    fs::write(at("a/file"), &bytes).unwrap();
    assert!(fs::read(at("a/file")).unwrap() == bytes);
    fs::rename(at("a/file"), at("a/b/file")).unwrap();
    fs::hard_link(at("a/b/file"), at("linked")).unwrap();
    std::os::unix::fs::symlink("a/b/file", at("symlink")).unwrap();
    assert_eq!(fs::metadata(at("symlink")).unwrap().ino(), fs::metadata(at("linked")).unwrap().ino());
    assert_eq!(fs::metadata(at("linked")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(fixture.path()).unwrap().ino(), 1);

    let file = fs::OpenOptions::new().append(true).open(at("linked")).unwrap();
    file.set_len(3).unwrap();
    nix::unistd::write(&file, b"end").unwrap();
    assert_eq!(fs::metadata(at("linked")).unwrap().len(), 6);
    file.sync_all().unwrap();
    drop(file);

    assert_eq!(fs::remove_dir(at("a")).unwrap_err().raw_os_error(), Some(nix::libc::ENOTEMPTY));
    fs::remove_dir_all(at("a")).unwrap();
    assert_eq!(fs::read(at("linked")).unwrap().len(), 6);
    fixture.unmount();
}

#[test]
fn a_large_directory_is_listed_and_removed_whole() {
    let Some(fixture) = fixture(MountOptions::default()) else { return };
    let many = fixture.model.add_directory(fixture.model.root(), b"many");
    let names: BTreeSet<_> = (0..20_000).map(|i| format!("file-{i}")).collect();
    names.iter().for_each(|name| fixture.model.add_file(many, name.as_bytes()));
    let many = fixture.path().join("many");
    let listed: Vec<_> =
        fs::read_dir(&many).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(listed.len(), names.len());
    assert_eq!(BTreeSet::from_iter(listed), names);
    fs::remove_dir_all(many).unwrap();
    fixture.unmount();
}

#[test]
fn suid_and_sgid_follow_the_rules() {
    let Some(fixture) = fixture(MountOptions::default()) else { return };
    let at = |name: &str| fixture.path().join(name);
    let mode = |name: &str| fs::metadata(at(name)).unwrap().mode() & 0o7_777;
    let set_mode = |name: &str, mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();

    fs::create_dir(at("shared")).unwrap();
    std::os::unix::fs::chown(at("shared"), None, Some(50)).unwrap();
    set_mode("shared", 0o2_777);
    fs::create_dir(at("shared/below")).unwrap();
    fs::write(at("shared/file"), "x").unwrap();
    assert_eq!((mode("shared/below") & 0o2_000, fs::metadata(at("shared/file")).unwrap().gid()), (0o2_000, 50));

    set_mode("shared/file", 0o6_777);
    std::os::unix::fs::chown(at("shared/file"), Some(1000), Some(1000)).unwrap();
    assert_eq!(mode("shared/file"), 0o777, "a change of owner drops both");

    // Whoever may not set these bits drops them by writing; a thread of its own, since users belong to threads.
    let dropped_by = |act: fn(&Path)| {
        set_mode("shared/file", 0o6_777);
        let path = at("shared/file");
        std::thread::spawn(move || {
            // SAFETY: a plain system call, which changes this thread alone.
            assert_eq!(unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, 1000, 1000, 1000) }, 0);
            act(&path);
        })
        .join()
        .unwrap();
        mode("shared/file")
    };
    let write: fn(&Path) = |path| {
        assert_eq!(fs::OpenOptions::new().write(true).open(path).unwrap().write_at(b"y", 0).unwrap(), 1);
    };
    let truncate: fn(&Path) = |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
    let open_truncated: fn(&Path) = |path| drop(fs::File::create(path).unwrap());
    let read: fn(&Path) = |path| drop(fs::read(path).unwrap());
    assert_eq!([write, truncate, open_truncated, read].map(dropped_by), [0o777, 0o777, 0o777, 0o6_777]);
    fixture.unmount();
}

#[test]
fn times_before_1970_and_nanoseconds_are_kept() {
    let Some(fixture) = fixture(MountOptions::default()) else { return };
    let file = File::create(fixture.path().join("file")).unwrap();
    for (seconds, nanos) in [(-2, 800_000_000), (-1, 0), (0, 1), (4_294_967_296, 999_999_999)] {
        let time = if seconds < 0 {
            std::time::UNIX_EPOCH - Duration::from_secs(-seconds as u64) + Duration::from_nanos(nanos)
        } else {
            std::time::UNIX_EPOCH + Duration::new(seconds as u64, nanos as u32)
        };
        file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
        let metadata = fs::metadata(fixture.path().join("file")).unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (seconds, nanos as i64));
        assert_eq!((metadata.atime(), metadata.atime_nsec()), (seconds, nanos as i64));
    }
    drop(file);
    fixture.unmount();
}

#[test]
fn the_kernel_keeps_pages_of_what_has_not_changed() {
    let Some(fixture) = fixture(long_lived()) else { return };
    fixture.model.add_file(fixture.model.root(), b"file");
    let path = fixture.path().join("file");
    let ino = Ino(fs::metadata(&path).unwrap().ino());
    fixture.model.replace(ino, b"first");
    fixture.mounted.invalidate(Event::Inode(ino));
    wait_until(|| fs::metadata(&path).unwrap().len() == 5);
    for _ in 0..5 {
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }
    let reads = fixture.model.calls("read");
    assert!(reads <= 4, "{reads} reads");
    fixture.model.replace(ino, b"again");
    assert_eq!(fs::read(&path).unwrap(), b"again", "an open sees what was closed before it");
    fixture.unmount();
}

#[test]
fn the_kernel_hears_of_changes() {
    let Some(fixture) = fixture(long_lived()) else { return };
    let (model, root) = (&fixture.model, fixture.model.root());
    model.add_file(root, b"file");
    let path = fixture.path().join("file");
    let ino = Ino(fs::metadata(&path).unwrap().ino());
    let length = || fs::metadata(&path).map_or(99, |metadata| metadata.len());

    model.replace(ino, b"12345");
    assert_eq!(length(), 0, "it believes what it knows");
    fixture.mounted.invalidate(Event::Inode(ino));
    wait_until(|| length() == 5);

    model.remove(root, b"file");
    assert_eq!(length(), 5);
    fixture.mounted.invalidate(Event::Entry { parent: root, name: b"file".to_vec() });
    wait_until(|| !path.exists());

    model.add_file(root, b"file");
    assert_eq!(length(), 0);
    model.remove(root, b"file");
    model.add_file(root, b"file");
    let other = fs::metadata(&path).unwrap().ino();
    fixture.mounted.invalidate(Event::Everything);
    wait_until(|| fs::metadata(&path).unwrap().ino() != other);
    fixture.unmount();
}

#[test]
fn a_slow_request_blocks_nobody_and_ends_by_its_deadline() {
    let options = MountOptions { deadline: Duration::from_millis(300), ..MountOptions::default() };
    let Some(fixture) = fixture(options) else { return };
    fixture.model.slow("read_link", Duration::from_secs(2));
    std::os::unix::fs::symlink("target", fixture.path().join("link")).unwrap();
    let start = Instant::now();
    let link = fixture.path().join("link");
    let slow = std::thread::spawn(move || (fs::read_link(link), start.elapsed()));
    for i in 0..100 {
        fs::create_dir(fixture.path().join(format!("{i}"))).unwrap();
    }
    let (outcome, took) = slow.join().unwrap();
    assert_eq!(outcome.unwrap_err().raw_os_error(), Some(nix::libc::EIO));
    assert!(took >= Duration::from_millis(300) && took < Duration::from_millis(1500), "{took:?}");
    fixture.unmount();
}

#[test]
fn a_write_that_finds_no_memory_is_an_error_by_the_deadline() {
    let deadline = Duration::from_millis(300);
    let Some(fixture) = fixture(MountOptions { deadline, ..MountOptions::default() }) else { return };
    let file = File::create(fixture.path().join("file")).unwrap();
    fixture.model.slow("hold_write", Duration::from_secs(3600));
    let (begun, outcome) = (Instant::now(), file.write_at(b"x", 0));
    assert_eq!(outcome.unwrap_err().raw_os_error(), Some(nix::libc::EIO));
    assert!(begun.elapsed() >= deadline);
    fixture.model.slow("hold_write", Duration::ZERO);
    assert_eq!(file.write_at(b"x", 0).unwrap(), 1);
    drop(file);
    fixture.unmount();
}

#[test]
fn a_session_ends_though_a_write_waits_for_memory() {
    let Some(mut fixture) = fixture(MountOptions { hard: true, threads: 1, ..MountOptions::default() }) else { return };
    fixture.device = None;
    let file = File::create(fixture.path().join("file")).unwrap();
    fixture.model.slow("hold_write", Duration::from_secs(3600));
    std::thread::scope(|scope| {
        let written = scope.spawn(|| file.write_at(b"x", 0));
        wait_until(|| fixture.model.calls("hold_write") > 0);
        let end = async { tokio::time::timeout(Duration::from_secs(20), fixture.mounted.end()).await };
        fixture.runtime.block_on(end).unwrap().unwrap();
        assert!(written.join().unwrap().is_err());
    });
    drop(file);
    umount2(fixture.path(), MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn a_session_ends_though_the_file_system_is_mounted() {
    for threads in [1, 3] {
        let Some(mut fixture) = fixture(MountOptions { threads, ..MountOptions::default() }) else { return };
        fixture.device = None;
        fs::write(fixture.path().join("file"), "x").unwrap();
        let end = async { tokio::time::timeout(Duration::from_secs(20), fixture.mounted.end()).await };
        fixture.runtime.block_on(end).unwrap().unwrap();
        let error = fs::metadata(fixture.path().join("other")).unwrap_err().raw_os_error();
        assert!([nix::libc::ENOTCONN, nix::libc::ECONNABORTED].map(Some).contains(&error), "{error:?}");
        fixture.runtime.block_on(fixture.mounted.end()).unwrap();
        umount2(fixture.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_file_that_is_unlinked_while_open_is_read_on() {
    let Some(fixture) = fixture(MountOptions::default()) else { return };
    let path = fixture.path().join("file");
    fs::write(&path, "content").unwrap();
    let file = File::options().read(true).write(true).custom_flags(nix::libc::O_CLOEXEC).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let mut bytes = [0; 7];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"content");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    drop(file);
    fixture.unmount();
}

/// What the next process does, without the process.
#[test]
fn a_mount_goes_on_with_another_session() {
    let Some(mut fixture) = fixture(MountOptions::default()) else { return };
    assert!(fixture.handshake.can_go_on(), "these tests want Linux 6.9 or newer");
    let path = fixture.path().to_owned();
    fs::write(path.join("file"), "before").unwrap();
    let open = File::options().read(true).write(true).open(path.join("file")).unwrap();
    for round in 0..5 {
        fixture.runtime.block_on(fixture.mounted.end()).unwrap();
        let waiting = std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                fs::write(path.join(format!("new-{round}")), "made while nobody served").unwrap();
                open.write_all_at(b"BE", 0).unwrap();
                fs::read_to_string(path.join("file")).unwrap()
            });
            std::thread::sleep(Duration::from_millis(20));
            let device = fixture.device.as_ref().unwrap().try_clone().unwrap();
            let (model, options) = (fixture.model.clone(), fixture.options.clone());
            let former = Some(fixture.handshake.clone());
            let (mounted, handshake) =
                serve_over(device, model, options, fixture.runtime.handle().clone(), former).unwrap();
            assert_eq!(handshake, fixture.handshake);
            fixture.mounted = mounted;
            asked.join().unwrap()
        });
        assert_eq!(waiting, "BEfore");
    }
    let probe = Probe::new(fixture.device.as_ref().unwrap()).unwrap();
    assert!(probe.knows(Ino(open.metadata().unwrap().ino())));
    assert!(!probe.knows(Ino(1 << 40)));
    drop(open);
    fixture.unmount();
}

#[test]
fn a_mount_is_not_gone_on_with_by_who_would_serve_it_otherwise() {
    let Some(fixture) = fixture(MountOptions::default()) else { return };
    fixture.runtime.block_on(fixture.mounted.end()).unwrap();
    let device = fixture.device.as_ref().unwrap().try_clone().unwrap();
    let options = MountOptions { max_write_bytes: 65_536, ..fixture.options.clone() };
    let former = Some(fixture.handshake.clone());
    let refused = serve_over(device, fixture.model.clone(), options, fixture.runtime.handle().clone(), former);
    assert!(matches!(refused, Err(Error::Handshake(_))));
    umount2(fixture.path(), MntFlags::MNT_DETACH).unwrap();
}
