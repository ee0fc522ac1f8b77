//! Machines under systemd, on a network of their own: Debian roots in systemd-nspawn, each with a kernel's view of cgroups and
//! network that it takes for a machine's. `tests/lab/node.sh` boots one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::knobs::{Need, can_run, flag, say};
use crate::s3d::{binary, root, target_dir};
use crate::shell::{command, output_within, run, run_within};

/// What a lab needs.
const NEEDS: [Need; 7] = [
    Need::Root,
    Need::Fuse,
    Need::Program("systemd-nspawn"),
    Need::Program("mmdebstrap"),
    Need::Program("dpkg-buildpackage"),
    Need::Program("dh"),
    Need::Program("ip"),
];

/// What one command in a machine may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Packages of a root beside Debian's least.
const PACKAGES: &str =
    "systemd,systemd-sysv,dbus,udev,libpam-systemd,iproute2,fuse3,procps,curl,init-system-helpers,ca-certificates";

/// Whether machines can be booted here. If not, says so loudly; with `CI=true` it panics instead.
pub fn can_boot(test: &str) -> bool {
    if !can_run(test, &NEEDS) {
        return false;
    }
    let probe = "cgroup=$(awk '$3 == \"cgroup2\" { print $2; exit }' /proc/mounts)/pd-probe-$$
        mkdir \"$cgroup\" && rmdir \"$cgroup\" && unshare -m true && ip netns add pd-probe-$$ && ip netns del pd-probe-$$";
    let Err(error) = run(&mut command(&["bash", "-c", probe])) else { return true };
    assert!(!flag("CI"), "{test} cannot run in CI: {error:#}");
    say(&format!("\n*** SKIPPED {test}: no machines can be booted here: {error:#} ***\n"));
    false
}

/// A network, and the machines on it.
pub struct Lab {
    name: String,
    root: PathBuf,
    scratch: tempfile::TempDir,
}

/// A machine that runs.
pub struct Node {
    lab: String,
    name: String,
    root: PathBuf,
    work: PathBuf,
    /// Its address in the lab.
    pub address: String,
    /// Its first process.
    pid: String,
}

impl Lab {
    /// A network without machines yet. `suite`: Debian's name of a release. Makes its root if it is not cached.
    ///
    /// # Errors
    /// There is no root, and none can be made.
    pub fn new(suite: &str) -> Result<Lab> {
        let root = root_of(suite)?;
        // Names of interfaces are short.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pd{}{}", std::process::id() % 10_000, char::from(b'a' + (number % 26) as u8));
        Ok(Lab { name, root, scratch: tempfile::tempdir()? })
    }

    /// Boots a machine; `number` becomes the end of its address.
    ///
    /// # Errors
    /// It does not come up.
    pub fn boot(&self, name: &str, number: u8) -> Result<Node> {
        let mut node = Node {
            lab: self.name.clone(),
            name: name.to_owned(),
            root: self.root.clone(),
            work: self.scratch.path().join(name),
            address: format!("10.77.0.{number}"),
            pid: String::new(),
        };
        node.start()?;
        Ok(node)
    }

    /// Makes `command` start on the lab's network, outside of all machines.
    pub fn outside(&self, program: &[&str]) -> Command {
        let mut args = vec!["ip", "netns", "exec", &self.name];
        args.extend(program);
        command(&args)
    }
}

/// Builds a package of the `s3d` that is tested, as `make deb` does of a release build. `version`: that it says.
///
/// # Errors
/// It cannot be built.
pub fn package(version: &str, into: &Path) -> Result<PathBuf> {
    let tree = into.join(format!("predastore-{version}"));
    fs::create_dir_all(&tree)?;
    let root = root();
    for part in ["debian", "packaging", "docs", "README.md"] {
        run(command(&["cp", "-r"]).arg(root.join(part)).arg(&tree))?;
    }
    let changelog = fs::read_to_string(tree.join("debian/changelog"))?;
    let (first, rest) = changelog.split_once('\n').context("a changelog")?;
    let (_, behind) = first.split_once(')').context("a version")?;
    fs::write(tree.join("debian/changelog"), format!("predastore ({version}){behind}\n{rest}"))?;
    let mut build = command(&["dpkg-buildpackage", "-us", "-uc", "-b", "-d", "-Ppkg.predastore.rustup"]);
    build.current_dir(&tree).env("PREDASTORE_BINARY", binary()).env("DEB_BUILD_OPTIONS", "noautodbgsym");
    run_within(Duration::from_secs(600), &mut build)?;
    let built = fs::read_dir(into)?.flatten().map(|entry| entry.path());
    let is_it = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with(&format!("predastore_{version}_")) && name.ends_with(".deb")
    };
    built.into_iter().find(is_it).context("no package was built")
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = run(&mut command(&["ip", "netns", "del", &self.name]));
    }
}

/// The cached root of a release.
fn root_of(suite: &str) -> Result<PathBuf> {
    // Tests of one suite want the same one at once.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let root = target_dir().join("lab").join(suite);
    if root.join("etc/os-release").exists() {
        return Ok(root);
    }
    let making = root.with_extension(format!("{}.new", std::process::id()));
    fs::create_dir_all(root.parent().context("a directory above")?)?;
    let include = format!("--include={PACKAGES}");
    let making_text = making.display().to_string();
    run_within(
        Duration::from_secs(900),
        &mut command(&["mmdebstrap", "--quiet", "--variant=minbase", &include, suite, &making_text]),
    )?;
    match fs::rename(&making, &root) {
        Err(_) if root.exists() => fs::remove_dir_all(&making)?,
        renamed => renamed?,
    }
    Ok(root)
}

impl Node {
    fn start(&mut self) -> Result<()> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/node.sh");
        let (script, root, work) = (script.display(), self.root.display(), self.work.display());
        let mut boot = command(&["bash", "-c", &format!("{script} {} {root} {work} {}", self.name, self.address)]);
        boot.env("LAB", &self.lab);
        let printed = run_within(PATIENCE, &mut boot)?;
        self.pid = printed.trim().to_owned();
        ensure!(!self.pid.is_empty(), "no first process");
        Ok(())
    }

    fn script(&self, script: &str) -> Command {
        let mut inside =
            command(&["nsenter", "-t", &self.pid, "-a", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        inside.args(["HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", script]);
        inside
    }

    /// Runs a shell script in the machine, as root; what it prints.
    ///
    /// # Errors
    /// It fails, or takes too long.
    pub fn sh(&self, script: &str) -> Result<String> {
        run_within(PATIENCE, &mut self.script(script)).map(|text| text.trim().to_owned())
    }

    /// Its exit code, and what it prints on both streams.
    ///
    /// # Errors
    /// It takes too long.
    pub fn code(&self, script: &str) -> Result<(i32, String)> {
        let output = output_within(PATIENCE, &mut self.script(&format!("exec 2>&1; {script}")))?;
        Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Waits until a script succeeds.
    ///
    /// # Errors
    /// It does not in a minute; with what it printed last.
    pub fn wait(&self, script: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (code, said) = self.code(script)?;
            match code {
                0 => return Ok(()),
                _ if Instant::now() > deadline => bail!("`{script}` in {}: {code}\n{said}", self.name),
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Puts a file into it.
    ///
    /// # Errors
    /// The disk.
    pub fn put(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let into = self.work.join("root").join(path.trim_start_matches('/'));
        fs::create_dir_all(into.parent().context("a directory above")?)?;
        Ok(fs::write(into, bytes)?)
    }

    /// A file of it.
    ///
    /// # Errors
    /// The disk.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        let from = self.work.join("root").join(path.trim_start_matches('/'));
        fs::read(&from).with_context(|| from.display().to_string())
    }

    /// Switches it off: no process of it hears of that.
    ///
    /// # Errors
    /// It does not end.
    pub fn power_off(&self) -> Result<()> {
        let cgroup = format!("$(awk '$3 == \"cgroup2\" {{ print $2; exit }}' /proc/mounts)/{}-{}", self.lab, self.name);
        let script = format!(
            "for _ in $(seq 100); do
                 find {cgroup} -name cgroup.procs -exec cat {{}} + | xargs -r kill -9 2>/dev/null
                 [ -z \"$(find {cgroup} -name cgroup.procs -exec cat {{}} +)\" ] && exit 0
                 sleep 0.1
             done; exit 1"
        );
        run_within(PATIENCE, &mut command(&["bash", "-c", &script])).map(drop)
    }

    /// Shuts it down, as its operator would.
    ///
    /// # Errors
    /// It does not end in a minute: it waits for something that will not come.
    pub fn shut_down(&self) -> Result<()> {
        self.sh("systemctl poweroff --no-block")?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while Path::new("/proc").join(&self.pid).exists() {
            if Instant::now() > deadline {
                bail!(
                    "{} does not shut down: {}",
                    self.name,
                    self.sh("systemctl list-jobs; ps -ef").unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Switches it on again.
    ///
    /// # Errors
    /// It does not come up.
    pub fn power_on(&mut self) -> Result<()> {
        self.start()
    }

    /// Pulls its cable, or plugs it in again.
    ///
    /// # Errors
    /// There is none.
    pub fn link(&self, is_up: bool) -> Result<()> {
        let end = format!("to-{}", self.name);
        let state = if is_up { "up" } else { "down" };
        run(&mut command(&["ip", "-n", &self.lab, "link", "set", &end, state])).map(drop)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.power_off();
        let (work, namespace) = (self.work.join("root"), format!("{}-{}", self.lab, self.name));
        let _ = run(&mut command(&["umount", "-l", &work.display().to_string()]));
        let _ = run(&mut command(&["ip", "netns", "del", &namespace]));
        let clear = format!(
            "find $(awk '$3 == \"cgroup2\" {{ print $2; exit }}' /proc/mounts)/{namespace} -depth -type d -exec rmdir {{}} \\;"
        );
        let _ = run(&mut command(&["bash", "-c", &clear]));
    }
}
