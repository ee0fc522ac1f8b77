//! Buckets mounted as file systems, and the directories that the suites of a file system run in.
//!
//! Invariants: a mount is seen only in the mount namespace of the thread that made it, and of what that thread starts: it goes
//! with them, however they end. It is unmounted when the value is dropped, on a panic too. Nothing waits for a mount for ever:
//! its connection is aborted after `PREDASTORE_TEST_MOUNT_MINUTES`, and whoever waits gets an error.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::cluster::{Cluster, Shape};
use crate::knobs::{Need, WithLogs, can_run, number, say};
use crate::s3d::{self, Config, S3d, setting};
use crate::shell::{self, command, run};

/// The bucket that is mounted.
pub const BUCKET: &str = "mounted";

/// What a mount needs.
const NEEDS: [Need; 2] = [Need::Root, Need::Fuse];

/// Longer than a child takes from its fork to its exec, with a flush of each file that its parent has open.
const BUSY_PATIENCE: Duration = Duration::from_secs(15);

/// As the suites mount.
pub const OPTIONS: &str = "allow_other";

/// A mounted bucket.
pub struct Mount {
    dir: PathBuf,
    /// Its end ends the watchdog.
    _watchdog: Sender<()>,
}

impl Mount {
    /// Mounts `bucket` of a running `s3d` on `dir`, which exists.
    ///
    /// # Errors
    /// When there is no namespace to be had, or `s3d mount` fails.
    pub fn new(s3d: &S3d, bucket: &str, dir: &Path) -> Result<Mount> {
        Mount::with(s3d, bucket, dir, OPTIONS)
    }

    /// As [`Mount::new`], with options.
    ///
    /// # Errors
    /// As there.
    pub fn with(s3d: &S3d, bucket: &str, dir: &Path, options: &str) -> Result<Mount> {
        enter_private_namespace()?;
        s3d.mount(bucket, dir, options)?;
        // From here on it is unmounted whatever happens.
        let (watchdog, alarm) = channel();
        let mount = Mount { dir: dir.to_path_buf(), _watchdog: watchdog };
        let connection = mounted(dir)?.with_context(|| format!("{} is not mounted", dir.display()))?;
        std::thread::spawn(move || {
            if alarm.recv_timeout(limit()) == Err(RecvTimeoutError::Timeout) {
                say(&format!("*** a mount is aborted after {:?}: who uses it hangs, or the machine is slow", limit()));
                abort(connection);
            }
        });
        Ok(mount)
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Whether the kernel knows the mount.
    ///
    /// # Errors
    /// When the kernel does not tell its mounts.
    pub fn is_mounted(&self) -> Result<bool> {
        Ok(mounted(&self.dir)?.is_some())
    }

    /// Whether it answers a question that the kernel cannot answer for it, within half a minute.
    pub fn answers(&self) -> bool {
        let mut list = command(&["ls", "-A"]);
        shell::run_within(Duration::from_secs(30), list.arg(&self.dir)).is_ok()
    }

    /// Ends its connection: whoever waits for it, or asks it from now on, gets an error.
    ///
    /// # Errors
    /// When the kernel does not tell its mounts.
    pub fn abort(&self) -> Result<()> {
        mounted(&self.dir)?.into_iter().for_each(abort);
        Ok(())
    }

    /// Unmounts as a user does who has closed everything. What another thread of this process has forked may have yet to close
    /// what was open here: that is waited for.
    ///
    /// # Errors
    /// When it stays busy, or is not gone afterwards.
    pub fn unmount(self) -> Result<()> {
        let deadline = Instant::now() + BUSY_PATIENCE;
        while let Err(error) = s3d::unmount(&self.dir, false) {
            ensure!(error.to_string().contains("target is busy") && Instant::now() < deadline, error);
            std::thread::sleep(Duration::from_millis(100));
        }
        ensure!(!self.is_mounted()?, "s3d umount succeeds, and {} is still mounted", self.dir.display());
        Ok(())
    }

    /// Unmounts whatever uses it, and whatever state its daemon is in.
    ///
    /// # Errors
    /// When it is not gone afterwards.
    pub fn unmount_by_force(self) -> Result<()> {
        s3d::unmount(&self.dir, true)?;
        ensure!(!self.is_mounted()?, "s3d umount --force succeeds, and {} is still mounted", self.dir.display());
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let Ok(Some(connection)) = mounted(&self.dir) else { return };
        if s3d::unmount(&self.dir, true).is_err() || !matches!(mounted(&self.dir), Ok(None)) {
            say(&format!("*** {} is aborted: s3d umount --force left it", self.dir.display()));
            abort(connection);
            let _ = shell::output(command(&["umount", "-l"]).arg(&self.dir));
        }
    }
}

fn limit() -> Duration {
    Duration::from_secs(60 * number("PREDASTORE_TEST_MOUNT_MINUTES", 30))
}

/// Gives this thread, once, a mount namespace of its own. The processes and threads that it starts from now on share it.
///
/// # Errors
/// Unless root.
pub fn enter_private_namespace() -> Result<()> {
    thread_local! { static ENTERED: Cell<bool> = const { Cell::new(false) } }
    if ENTERED.get() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).context("no mount namespace of its own")?;
    run(&mut command(&["mount", "--make-rprivate", "/"]))?;
    if Path::new(CONNECTIONS).read_dir()?.next().is_none() {
        // Not mounted, or no connection yet: mounting it twice does no harm.
        run(&mut command(&["mount", "-t", "fusectl", "fusectl", CONNECTIONS]))?;
    }
    ENTERED.set(true);
    Ok(())
}

const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Ends a connection: every request that waits, and every later one, is answered with an error.
fn abort(connection: u64) {
    if let Err(error) = std::fs::write(format!("{CONNECTIONS}/{connection}/abort"), "1") {
        say(&format!("*** connection {connection} cannot be aborted: {error}"));
    }
}

/// The number of the FUSE connection that is mounted on `dir`; none: nothing is. Asks nobody but the kernel.
fn mounted(dir: &Path) -> Result<Option<u64>> {
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo")?;
    let dir = dir.to_str().context("a path that is not UTF-8")?;
    let words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    // The last: one mount may hide another.
    let device = words.filter(|words| words.get(4) == Some(&dir)).filter_map(|words| words.get(2).copied()).next_back();
    device.map(|device| device.split(':').nth(1).unwrap_or_default().parse().context("a device")).transpose()
}

/// Who serves the directory that a suite runs in.
pub enum Server {
    /// One box.
    Box(Box<S3d>),
    /// Three boxes, mounted through the first.
    Cluster(Cluster),
}

impl Server {
    /// One box with [`BUCKET`], empty.
    ///
    /// # Errors
    /// When it does not start.
    pub fn one_box() -> Result<Server> {
        Server::one_box_of(config())
    }

    /// As [`Server::one_box`], configured otherwise.
    ///
    /// # Errors
    /// When it does not start.
    pub fn one_box_of(config: Config) -> Result<Server> {
        enter_if_root()?;
        let server = Server::Box(Box::new(S3d::start(config)?));
        server.gateways()[0].s3()?.create_bucket(BUCKET)?;
        Ok(server)
    }

    /// Three boxes with RS(2,1) and [`BUCKET`], empty.
    ///
    /// # Errors
    /// When one does not start.
    pub fn cluster() -> Result<Server> {
        enter_if_root()?;
        let server = Server::Cluster(Cluster::start(&Shape::boxes(3, 3, (2, 1)), &config())?);
        server.gateways()[0].s3()?.create_bucket(BUCKET)?;
        Ok(server)
    }

    /// Its processes: each can mount, and serves S3.
    pub fn gateways(&self) -> Vec<&S3d> {
        match self {
            Server::Box(s3d) => vec![s3d],
            Server::Cluster(cluster) => cluster.processes.iter().collect(),
        }
    }

    /// The one that mounts, for who kills it.
    pub fn first(&mut self) -> &mut S3d {
        match self {
            Server::Box(s3d) => s3d,
            Server::Cluster(cluster) => &mut cluster.processes[0],
        }
    }

    /// What they logged last.
    pub fn log_tails(&self) -> String {
        self.gateways().into_iter().map(S3d::log_tail).collect::<Vec<_>>().join("\n")
    }

    /// Stops it; a box must be clean then.
    ///
    /// # Errors
    /// When it does not stop, or `s3d check` finds something.
    pub fn finish(self) -> Result<()> {
        match self {
            Server::Box(mut s3d) => {
                s3d.stop()?;
                s3d.expect_clean()
            }
            Server::Cluster(mut cluster) => cluster.stop_all(),
        }
    }
}

/// The daemon is where its mounts are.
fn enter_if_root() -> Result<()> {
    if Need::Root.is_met() { enter_private_namespace() } else { Ok(()) }
}

/// As the suites configure a box.
pub fn config() -> Config {
    Config::default().plain().set(setting::SWEEP_GRACE, "1s").set(setting::SWEEP_INTERVAL, "1s")
}

/// The other file system to run the suites in: `PREDASTORE_TEST_MOUNT_DIR`.
///
/// # Panics
/// When it is no mountpoint: pjdfstest makes it read-only for a while, whoever else uses it.
pub fn other_file_system() -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let dir = PathBuf::from(std::env::var_os("PREDASTORE_TEST_MOUNT_DIR")?);
    let device = |path: &Path| path.metadata().map(|meta| meta.dev()).ok();
    assert!(device(&dir) != device(&dir.join("..")), "PREDASTORE_TEST_MOUNT_DIR={} is no mountpoint", dir.display());
    Some(dir)
}

/// Whether a test that needs a mount of ours can run; `needs`: what it needs besides.
pub fn can_mount(test: &str, needs: &[Need]) -> bool {
    if other_file_system().is_some() {
        say(&format!("\n*** SKIPPED {test}: PREDASTORE_TEST_MOUNT_DIR is no mount of ours ***\n"));
        return false;
    }
    can_run(test, &[&NEEDS[..], needs].concat())
}

/// Runs `session` in a mounted bucket of a fresh box, which must unmount, stop and be clean then. With
/// `PREDASTORE_TEST_MOUNT_DIR`, in a fresh directory there.
///
/// # Errors
/// With the end of the server's log.
pub fn on_box(test: &str, needs: &[Need], session: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if let Some(dir) = other_file_system() {
        return if can_run(test, needs) { session(tempfile::tempdir_in(dir)?.path()) } else { Ok(()) };
    }
    if !can_mount(test, needs) {
        return Ok(());
    }
    on(Server::one_box()?, session)
}

/// The same in a mounted bucket of a fresh cluster of three.
///
/// # Errors
/// As [`on_box`].
pub fn on_cluster(test: &str, needs: &[Need], session: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if !can_mount(test, needs) {
        return Ok(());
    }
    on(Server::cluster()?, session)
}

fn on(server: Server, session: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mountpoint = mountpoint()?;
    let outcome = mounted_session(&server, mountpoint.path(), session);
    outcome.with_logs(|| server.log_tails())?;
    server.finish()
}

fn mounted_session(server: &Server, dir: &Path, session: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mount = Mount::new(server.gateways()[0], BUCKET, dir)?;
    session(mount.path())?;
    mount.unmount()
}

/// A fresh directory that every user may pass.
///
/// # Errors
/// When there is none to be had.
pub fn mountpoint() -> Result<TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}
