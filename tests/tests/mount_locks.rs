//! Locks between mounts of one bucket through two gateways: by `flock(2)` and `fcntl(2)`, held, waited for, and left behind.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use predastore_tests::cluster::{Cluster, Shape};
use predastore_tests::knobs::Need;
use predastore_tests::mount::{BUCKET, Mount, Server, can_mount, config, enter_private_namespace, mountpoint};
use predastore_tests::s3d::{PATIENCE, S3d, setting};
use predastore_tests::shell::{command, output_within, run_within, wait_within};
use tempfile::TempDir;

const NEEDS: [Need; 2] = [Need::Program("flock"), Need::Program("python3")];

/// Two mounts of one bucket, through two boxes of three.
struct Two {
    server: Server,
    mounts: Vec<Mount>,
    dirs: Vec<TempDir>,
}

impl Two {
    fn start(test: &str) -> Result<Option<Two>> {
        if !can_mount(test, &NEEDS) {
            return Ok(None);
        }
        enter_private_namespace()?;
        let config = config().set(setting::SESSION_EXPIRY, "8s");
        let cluster = Cluster::start(&Shape::boxes(3, 3, (2, 1)), &config)?;
        let server = Server::Cluster(cluster);
        server.gateways()[0].s3()?.create_bucket(BUCKET)?;
        let dirs = vec![mountpoint()?, mountpoint()?];
        let mount = |index: usize| Mount::new(server.gateways()[index], BUCKET, dirs[index].path());
        let mounts = vec![mount(0)?, mount(1)?];
        std::fs::write(dirs[0].path().join("file"), "0")?;
        Ok(Some(Two { server, mounts, dirs }))
    }

    fn file(&self, index: usize) -> PathBuf {
        self.dirs[index].path().join("file")
    }

    /// Whether `flock` gets the file through a mount without waiting.
    fn gets(&self, index: usize, how: &str) -> Result<bool> {
        let mut flock = command(&["flock", "-n", how]);
        let output = output_within(PATIENCE, flock.arg(self.file(index)).arg("true"))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(stderr.is_empty() && matches!(output.status.code(), Some(0 | 1)), "{}: {stderr}", output.status);
        Ok(output.status.success())
    }

    fn finish(self) -> Result<()> {
        self.mounts.into_iter().try_for_each(Mount::unmount)?;
        self.server.finish()
    }

    fn first(&mut self) -> &mut S3d {
        self.server.first()
    }
}

/// A process that has a lock until its standard input ends.
struct Holder {
    child: Child,
    /// It says here that it has it.
    _said: TempDir,
}

impl Holder {
    /// `how`: of flock. Returns when it has the lock.
    fn of(file: &Path, how: &str) -> Result<Holder> {
        let said = tempfile::tempdir()?;
        let locked = said.path().join("locked");
        let mut flock = command(&["flock", how]);
        flock.arg(file).args(["sh", "-c", "echo >\"$0\" && exec cat"]).arg(&locked);
        let child = flock.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let holder = Holder { child, _said: said };
        until("the lock is had", || locked.exists())?;
        Ok(holder)
    }

    fn let_go(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = wait_within(PATIENCE, &mut self.child)?.context("flock goes on")?;
        ensure!(status.success(), "flock: {status}");
        Ok(())
    }

    /// flock and what it runs have the file open both: `cat` ends with its input.
    fn kill(&mut self) -> Result<()> {
        drop(self.child.stdin.take());
        Ok(self.child.kill()?)
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        ensure!(Instant::now() < deadline, "it does not come to it that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// One that waits for the lock, and then says so in a file.
fn waiting(file: &Path, said: &Path) -> Result<Child> {
    let mut flock = command(&["flock", "-x"]);
    flock.arg(file).args(["sh", "-c", "echo >\"$0\""]).arg(said).stdin(Stdio::null());
    Ok(flock.spawn()?)
}

#[test]
fn locks_exclude_between_mounts() -> Result<()> {
    let Some(two) = Two::start("locks_exclude_between_mounts")? else { return Ok(()) };
    let held = Holder::of(&two.file(0), "-x")?;
    ensure!(!two.gets(1, "-x")? && !two.gets(1, "-s")? && !two.gets(0, "-s")?, "two have it");
    held.let_go()?;
    ensure!(two.gets(1, "-x")?, "nobody gets what nobody has");
    let held = Holder::of(&two.file(1), "-s")?;
    ensure!(two.gets(0, "-s")? && !two.gets(0, "-x")?, "what is shared is not");
    held.let_go()?;
    let python = r#"
import fcntl, os, struct, subprocess, sys
def there(code):
    code = "import fcntl,struct,sys\nf=open(%r,'r+b')\n" % sys.argv[2] + code
    return subprocess.run([sys.executable, "-c", code]).returncode
def query(f, start, len):
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, start, len, 0)
    return struct.unpack("hhqqi4x", fcntl.fcntl(f, fcntl.F_GETLK, asked))
with open(sys.argv[1], "r+b") as f:
    fcntl.lockf(f, fcntl.LOCK_EX, 10, 20)
    assert there("try: fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 5, 25); sys.exit(1)\nexcept BlockingIOError: pass") == 0, "inside of a locked range"
    assert there("fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 20, 0)") == 0, "outside of it"
    assert there("""
kind, _, start, len, pid = struct.unpack('hhqqi4x', fcntl.fcntl(f, fcntl.F_GETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0)))
assert (kind, start, len) == (fcntl.F_WRLCK, 20, 10), (kind, start, len, pid)
""") == 0, "who asks is told"
    fcntl.lockf(f, fcntl.LOCK_SH, 10, 20)
    assert there("fcntl.lockf(f, fcntl.LOCK_SH|fcntl.LOCK_NB, 10, 20)") == 0, "it is shared now"
    assert query(f, 0, 0)[0] == fcntl.F_UNLCK, "nothing is in one's own way"
    # A close of the file, by whatever descriptor of the process, lets all go.
    open(sys.argv[1]).close()
    assert there("fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB)") == 0, "after a close"
    fcntl.lockf(f, fcntl.LOCK_EX)
assert there("fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB)") == 0, "after the last close"
"#;
    run_within(PATIENCE, command(&["python3", "-c", python]).arg(two.file(0)).arg(two.file(1)))?;
    two.finish()
}

#[test]
fn who_waits_gets_the_lock_or_is_interrupted() -> Result<()> {
    let Some(two) = Two::start("who_waits_gets_the_lock")? else { return Ok(()) };
    let said = tempfile::tempdir()?;
    let held = Holder::of(&two.file(0), "-x")?;
    // It waits by SIGALRM.
    let mut alarmed = command(&["flock", "-w", "1", "-E", "77"]);
    let output = output_within(PATIENCE, alarmed.arg(two.file(1)).arg("true"))?;
    ensure!(output.status.code() == Some(77), "flock -w: {}", output.status);
    for signal in ["TERM", "KILL"] {
        let mut timed = command(&["timeout", "-s", signal, "1", "flock"]);
        let output = output_within(PATIENCE, timed.arg(two.file(1)).arg("true"))?;
        ensure!(matches!(output.status.code(), Some(124 | 137) | None), "SIG{signal}: {}", output.status);
    }
    let names = ["a", "b", "c"].map(|name| said.path().join(name));
    let mut children = names.iter().map(|name| waiting(&two.file(1), name)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(names.iter().all(|name| !name.exists()), "who waits has it");
    held.let_go()?;
    for child in &mut children {
        let status = wait_within(PATIENCE, child)?.context("who waits goes on waiting")?;
        ensure!(status.success(), "flock: {status}");
    }
    ensure!(names.iter().all(|name| name.exists()), "not all had it");
    // A process that is killed lets go.
    let mut held = Holder::of(&two.file(0), "-x")?;
    let mut child = waiting(&two.file(1), &said.path().join("d"))?;
    held.kill()?;
    wait_within(PATIENCE, &mut child)?.context("who waits for a dead one goes on waiting")?;
    two.finish()
}

/// Processes at both mounts raise one number under the lock: none reads an old one.
#[test]
fn a_number_under_a_lock_is_raised_every_time() -> Result<()> {
    let Some(two) = Two::start("a_number_under_a_lock")? else { return Ok(()) };
    let python = r#"
import fcntl, os, sys
path, count, lock = sys.argv[1], int(sys.argv[2]), getattr(fcntl, sys.argv[3])
fd = os.open(path, os.O_RDWR)
for nth in range(count):
    lock(fd, fcntl.LOCK_EX)
    length = os.lseek(fd, 0, os.SEEK_END)
    number = int(os.pread(fd, 30, length - 21 if length > 21 else 0) or 0)
    # It grows too: of a file that others lengthen the length is to be seen.
    os.pwrite(fd, b"%020d\n" % (number + 1), length)
    if nth % 3: lock(fd, fcntl.LOCK_UN)
    else:
        os.close(fd)
        fd = os.open(path, os.O_RDWR)
"#;
    for kind in ["flock", "lockf"] {
        std::fs::write(two.file(0), format!("{:020}\n", 0))?;
        let start = |index: usize| {
            let mut python3 = command(&["python3", "-c", python]);
            python3.arg(two.file(index)).args(["25", kind]).stdin(Stdio::null());
            Ok(python3.spawn()?)
        };
        let children = [0, 1, 0, 1].into_iter().map(start).collect::<Result<Vec<_>>>()?;
        for mut child in children {
            let status = wait_within(PATIENCE, &mut child)?.context("a raiser does not end")?;
            ensure!(status.success(), "{kind}: {status}");
        }
        for index in [0, 1] {
            let text = std::fs::read_to_string(two.file(index))?;
            let numbers: Vec<u64> = text.lines().map(str::parse).collect::<Result<_, _>>()?;
            ensure!(numbers == (0..=100).collect::<Vec<_>>(), "{kind}, mount {index}: {numbers:?}");
        }
    }
    two.finish()
}

/// The gateway of who has it is killed, and comes back: it has it still. Then the gateway is killed for good.
#[test]
fn a_lock_outlives_its_daemon_and_not_its_gateway() -> Result<()> {
    let Some(mut two) = Two::start("a_lock_outlives_its_daemon")? else { return Ok(()) };
    let said = tempfile::tempdir()?;
    let file = two.file(1);
    let held = Holder::of(&two.file(0), "-x")?;
    two.first().kill();
    ensure!(!two.gets(1, "-x")?, "a daemon's end frees what a program has locked");
    two.first().restart()?;
    ensure!(!two.gets(0, "-s")? && !two.gets(1, "-x")?, "the next daemon does not know of it");
    let mut child = waiting(&file, &said.path().join("let go"))?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(!said.path().join("let go").exists(), "two have it");
    held.let_go()?;
    wait_within(PATIENCE, &mut child)?.context("who waits goes on waiting")?;

    let mut held = Holder::of(&two.file(0), "-x")?;
    two.first().kill();
    let killed = Instant::now();
    let mut child = waiting(&file, &said.path().join("expired"))?;
    wait_within(PATIENCE, &mut child)?.context("a dead gateway's lock does not expire")?;
    ensure!(killed.elapsed() > Duration::from_secs(4), "it expired at once");
    held.kill()?;
    let Two { server, mounts, dirs } = two;
    let mut mounts = mounts.into_iter();
    mounts.next().context("the first")?.unmount_by_force()?;
    mounts.next().context("the second")?.unmount()?;
    drop((server, dirs, held));
    Ok(())
}
