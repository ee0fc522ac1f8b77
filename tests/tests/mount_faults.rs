//! What befalls a mount: a full disk, a daemon that is dead or asleep, a cluster that is away. Errors come where they belong, and
//! nothing hangs.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use predastore_tests::disk::{FileSystem, LoopMount};
use predastore_tests::file_writer::close;
use predastore_tests::knobs::{Need, WithLogs, number, say};
use predastore_tests::mount::{BUCKET, Mount, Server, can_mount, config, mountpoint};
use predastore_tests::random::body;
use predastore_tests::s3d::PATIENCE;
use predastore_tests::shell::{command, run_within, wait_within};

const MIB: usize = 1 << 20;

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    close(file)
}

#[test]
fn a_full_disk_is_no_space() -> Result<()> {
    if !can_mount("a_full_disk_is_no_space", &[Need::LoopMount, Need::Program("mkfs.ext4")]) {
        return Ok(());
    }
    let disk = LoopMount::new(FileSystem::Ext4, 640)?;
    let server = Server::one_box_of(config().in_dir(&disk.path().join("data")))?;
    let dir = mountpoint()?;
    let mount = Mount::new(server.gateways()[0], BUCKET, dir.path())?;
    fill_and_empty(dir.path()).with_logs(|| server.log_tails())?;
    mount.unmount()?;
    server.finish()
}

fn fill_and_empty(dir: &Path) -> Result<()> {
    let name = |index: u64| dir.join(format!("file-{index:03}"));
    let fits = |index: &u64| write(&name(*index), &body(*index, 8 * MIB));
    let (mut count, mut refusal) = (0, None);
    while refusal.is_none() {
        match fits(&count) {
            Ok(()) => count += 1,
            Err(error) => refusal = Some(error),
        }
        ensure!(count < 100, "a disk without end");
    }
    let errno = refusal.and_then(|error| error.raw_os_error());
    ensure!(errno == Some(nix::libc::ENOSPC), "a full disk gives {errno:?}");
    ensure!(count >= 8, "only {count} files of 8 MiB fitted into 640 MiB");
    // What is there is read and removed; what was refused is not half there for S3, and may be removed.
    let _ = fs::remove_file(name(count));
    for index in 0..count {
        ensure!(fs::read(name(index))? == body(index, 8 * MIB), "file {index} differs on a full disk");
    }
    for index in (0..count).step_by(2) {
        fs::remove_file(name(index))?;
    }
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = write(&dir.join("again"), &body(999, 8 * MIB)) {
        ensure!(error.raw_os_error() == Some(nix::libc::ENOSPC) && Instant::now() < deadline, "still {error}");
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(fs::read(dir.join("again"))? == body(999, 8 * MIB), "what was written afterwards differs");
    for index in (1..count).step_by(2) {
        ensure!(fs::read(name(index))? == body(index, 8 * MIB), "file {index} differs afterwards");
    }
    Ok(())
}

/// With a daemon that is dead, and with one that sleeps while a process waits for its answer.
#[test]
fn unmounting_by_force_always_works() -> Result<()> {
    if !can_mount("unmounting_by_force_always_works", &[]) {
        return Ok(());
    }
    let mut server = Server::one_box()?;
    let dir = mountpoint()?;
    let mount = Mount::new(server.gateways()[0], BUCKET, dir.path())?;
    write(&dir.path().join("file"), b"text")?;
    // In a process of its own: whoever is forked from one with files open there waits for the daemon to close them.
    let mut user = command(&["sh", "-c", "exec 3>>\"$1\" && echo open && read -r word && echo more >&3", "sh"]);
    user.arg(dir.path().join("file")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut user = user.spawn()?;
    let mut said = [0; 5];
    user.stdout.as_mut().context("its output")?.read_exact(&mut said)?;
    server.first().kill();
    let mut waiting = command(&["cat"]);
    waiting.arg(dir.path().join("another")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut waiting = waiting.spawn()?;
    let started = Instant::now();
    mount.unmount_by_force()?;
    ensure!(started.elapsed() < PATIENCE, "it took {:?}", started.elapsed());
    let status = wait_within(Duration::from_secs(10), &mut waiting)?;
    ensure!(status.is_some_and(|status| !status.success()), "a process that waited goes on waiting: {status:?}");
    user.stdin.take().context("its input")?.write_all(b"go\n")?;
    let status = wait_within(Duration::from_secs(10), &mut user)?;
    ensure!(status.is_some_and(|status| !status.success()), "a write without a daemon succeeds: {status:?}");
    server.first().restart()?;
    let mount = Mount::new(server.gateways()[0], BUCKET, dir.path())?;
    ensure!(fs::read(dir.path().join("file"))? == b"text", "the file differs");
    mount.unmount()?;
    server.finish()
}

/// How many files one table of open files holds, at most `count`, with some more for others. Threads may have tables of their own.
fn per_table(count: u64) -> Result<u64> {
    const OTHERS: u64 = 1000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let most = hard.saturating_sub(OTHERS);
    ensure!(most > 0, "this process may have {hard} files open");
    Ok(count.min(most))
}

/// Files that one thread makes, and holds open.
struct Holder {
    dir: PathBuf,
    files: Range<u64>,
}

impl Holder {
    fn path(&self, index: u64) -> PathBuf {
        self.dir.join(format!("d{}/f{index}", index % 100))
    }

    /// Opens them; every tenth is removed, every seventh synced. Once somebody says `go`, reads and writes them, and closes them.
    fn hold(&self, opened: &Sender<bool>, go: &Receiver<()>) -> Result<()> {
        unshare(CloneFlags::CLONE_FILES)?;
        let open = |index| -> io::Result<File> {
            let mut file = File::options().read(true).write(true).create_new(true).open(self.path(index))?;
            file.write_all(&body(index, 100))?;
            Ok(file)
        };
        let files = self.files.clone().map(open).collect::<io::Result<Vec<_>>>()?;
        for (index, file) in self.files.clone().zip(&files) {
            if index.is_multiple_of(10) {
                fs::remove_file(self.path(index))?;
            }
            if index.is_multiple_of(7) {
                file.sync_all()?;
            }
        }
        opened.send(true)?;
        go.recv().context("the test has failed elsewhere")?;
        for (index, file) in self.files.clone().zip(&files) {
            let mut bytes = vec![0; 100];
            file.read_exact_at(&mut bytes, 0).with_context(|| format!("file {index} after a restart"))?;
            ensure!(bytes == body(index, 100), "file {index} differs after a restart");
            if index.is_multiple_of(3) {
                file.write_all_at(b"more", 100)?;
            }
        }
        files.into_iter().try_for_each(|file| Ok(close(file)?))
    }
}

/// Runs `meanwhile` while all files are open.
fn while_held(holders: &[Holder], meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    thread::scope(|scope| {
        let (told, opened) = mpsc::channel();
        let hold = |holder| {
            let ((go, wait), told) = (mpsc::channel(), told.clone());
            let held = move || {
                let held = Holder::hold(holder, &told, &wait);
                if held.is_err() {
                    // Whoever waits for all is not to wait for this one.
                    let _ = told.send(false);
                }
                held
            };
            (go, scope.spawn(held))
        };
        let (gos, threads): (Vec<_>, Vec<_>) = holders.iter().map(hold).unzip();
        let are_open = holders.iter().all(|_| opened.recv() == Ok(true));
        let outcome = if are_open { meanwhile() } else { Ok(()) };
        if are_open && outcome.is_ok() {
            gos.iter().try_for_each(|go| go.send(()))?;
        }
        drop(gos);
        let joined = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().map_err(|_| anyhow!("a thread panicked")).and_then(|held| held)
        };
        let held: Vec<_> = threads.into_iter().map(joined).collect();
        outcome?;
        held.into_iter().collect()
    })
}

/// It has them open, reads and writes them, whatever becomes of the daemon meanwhile; and what it removed goes when it is closed.
#[test]
fn a_client_holds_many_files_open() -> Result<()> {
    if !can_mount("a_client_holds_many_files_open", &[]) {
        return Ok(());
    }
    let count = number("PREDASTORE_TEST_OPEN_FILES", 3000);
    let step = per_table(count.div_ceil(2))?;
    let mut server = Server::one_box()?;
    let dir = mountpoint()?;
    let mount = Mount::new(server.gateways()[0], BUCKET, dir.path())?;
    (0..100).try_for_each(|index| fs::create_dir(dir.path().join(format!("d{index}"))))?;
    let of = |start: u64| Holder { dir: dir.path().to_owned(), files: start..count.min(start + step) };
    let holders: Vec<_> = (0..count).step_by(step as usize).map(of).collect();
    let began = Instant::now();
    while_held(&holders, || {
        let (opened, rss_bytes) = (began.elapsed(), server.first().rss_bytes()?);
        say(&format!("{count} files opened in {opened:.1?}, {} MiB resident", rss_bytes / MIB as u64));
        server.first().stand_by()?;
        server.first().kill();
        server.first().restart()
    })?;
    let listed = server.gateways()[0].s3()?.list(BUCKET)?;
    let expected = count - count.div_ceil(10);
    let files: Vec<_> = listed.iter().filter(|row| !row.key.ends_with('/')).collect();
    ensure!(files.len() as u64 == expected, "{} files of {expected}", files.len());
    for row in files {
        let index: u64 = row.key.split_once("/f").context("a key")?.1.parse()?;
        ensure!(row.size == if index.is_multiple_of(3) { 104 } else { 100 }, "{}: {} bytes", row.key, row.size);
    }
    mount.unmount()?;
    server.finish()
}

/// A daemon that does not answer and does not end is no reason to wait either.
#[test]
fn unmounting_by_force_works_while_the_daemon_sleeps() -> Result<()> {
    if !can_mount("unmounting_by_force_works_while_the_daemon_sleeps", &[]) {
        return Ok(());
    }
    let mut server = Server::one_box()?;
    let dir = mountpoint()?;
    let mount = Mount::new(server.gateways()[0], BUCKET, dir.path())?;
    write(&dir.path().join("file"), b"text")?;
    server.first().signal(Signal::SIGSTOP)?;
    let mut waiting = command(&["cat"]);
    waiting.arg(dir.path().join("another")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut waiting = waiting.spawn()?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(waiting.try_wait()?.is_none(), "somebody answers");
    let unmounted = mount.unmount_by_force();
    server.first().signal(Signal::SIGCONT)?;
    unmounted?;
    let status = wait_within(Duration::from_secs(10), &mut waiting)?;
    ensure!(status.is_some_and(|status| !status.success()), "a process that waited goes on waiting: {status:?}");
    // The daemon goes on, and mounts it again.
    let mount = Mount::new(server.gateways()[0], BUCKET, dir.path())?;
    ensure!(fs::read(dir.path().join("file"))? == b"text", "the file differs");
    mount.unmount()?;
    server.finish()
}

/// A shell in `dir` that runs `script` once its input ends. It is started before anything happens: starting a process waits for
/// the mount, in which this one has files open that the new one closes.
fn standing_by(dir: &Path, script: &str) -> Result<(Child, ChildStdin)> {
    let mut shell = command(&["sh", "-c"]);
    shell.arg(format!("cd \"$0\" && read go; {script}")).arg(dir);
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let go = shell.stdin.take().context("it has an input")?;
    Ok((shell, go))
}

/// With `hard`, who uses the mount waits for a daemon that is away; then all goes on, with no error.
#[test]
fn a_hard_mount_waits_for_its_daemon() -> Result<()> {
    if !can_mount("a_hard_mount_waits_for_its_daemon", &[]) {
        return Ok(());
    }
    let mut server = Server::one_box()?;
    let dir = mountpoint()?;
    let mount = Mount::with(server.gateways()[0], BUCKET, dir.path(), "hard")?;
    let open = File::create(dir.path().join("open"))?;
    open.write_all_at(b"before", 0)?;
    let script =
        "printf after | dd of=open seek=6 bs=1 conv=notrunc,fsync status=none && mkdir new && mv open new/moved";
    let (mut working, go) = standing_by(dir.path(), script)?;
    server.first().stand_by()?;
    server.first().kill();
    drop(go);
    std::thread::sleep(Duration::from_secs(4));
    ensure!(working.try_wait()?.is_none(), "somebody answers though the daemon is dead");
    server.first().restart()?;
    let status = wait_within(PATIENCE, &mut working)?;
    ensure!(status.is_some_and(|status| status.success()), "who waited was told an error: {status:?}");
    open.write_all_at(b"B", 0)?;
    close(open)?;
    ensure!(fs::read(dir.path().join("new/moved"))? == b"Beforeafter", "the file differs");
    server.gateways()[0].s3()?.expect_body(BUCKET, "new/moved", b"Beforeafter")?;
    mount.unmount()?;
    server.finish()
}

/// Two of three boxes die: who asks gets an answer or an error in time, nobody hangs; they come back, and so does the mount. On
/// a mount with `hard` who asks waits meanwhile, and what was asked is done once.
#[test]
fn a_cluster_that_is_away_is_an_error() -> Result<()> {
    if !can_mount("a_cluster_that_is_away", &[]) {
        return Ok(());
    }
    let mut server = Server::cluster()?;
    let dir = mountpoint()?;
    let mount = Mount::new(server.gateways()[0], BUCKET, dir.path())?;
    for index in 0..20 {
        write(&dir.path().join(format!("file-{index}")), &body(index, 100_000))?;
    }
    let hard_dir = mountpoint()?;
    let hard = Mount::with(server.gateways()[0], BUCKET, hard_dir.path(), "hard")?;
    let mut log = File::options().append(true).create(true).open(hard_dir.path().join("log"))?;
    log.write_all(b"first\n")?;
    log.sync_all()?;
    drop(log);
    let Server::Cluster(cluster) = &mut server else { unreachable!("a cluster was started") };
    let script = "mkdir made && echo text >made/file && ln made/file made/linked && mv made/file made/moved && \
                  echo second >>log && rm made/linked && setfattr -n user.a -v b made/moved && cat log";
    let (mut waiting, go) = standing_by(hard_dir.path(), script)?;
    cluster.kill(&[1, 2]);
    drop(go);
    let patience = Duration::from_secs(180);
    let mut new = command(&["sh", "-c", "echo text >new"]);
    ensure!(run_within(patience, new.current_dir(dir.path())).is_err(), "a write without a majority succeeds");
    let mut look = command(&["sh", "-c", "cd \"$0\" && ls -l; cat file-7 >/dev/null; true"]);
    run_within(patience, look.arg(dir.path()))?;
    ensure!(waiting.try_wait()?.is_none(), "a change was answered without a majority");
    cluster.restart_all()?;
    let status = wait_within(PATIENCE, &mut waiting)?;
    ensure!(status.is_some_and(|status| status.success()), "who waited was told an error: {status:?}");
    let mut said = String::new();
    waiting.stdout.take().context("it has an output")?.read_to_string(&mut said)?;
    ensure!(said == "first\nsecond\n", "{said:?} was appended");
    ensure!(fs::read(hard_dir.path().join("made/moved"))? == b"text\n", "the file differs");
    hard.unmount()?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = write(&dir.path().join("after"), b"text") {
        ensure!(Instant::now() < deadline, "still {error} after the others came back");
        std::thread::sleep(Duration::from_millis(200));
    }
    for index in 0..20 {
        let name = format!("file-{index}");
        ensure!(fs::read(dir.path().join(&name))? == body(index, 100_000), "{name} differs");
        server.gateways()[1].s3()?.expect_body(BUCKET, &name, &body(index, 100_000))?;
    }
    mount.unmount()?;
    server.finish()
}
