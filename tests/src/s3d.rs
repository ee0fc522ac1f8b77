//! One `s3d` process. Everything the suites know of its command line, settings and data directory is in this file.
//!
//! Invariant: the process does not outlive this value, nor (PDEATHSIG) the test's thread.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::http::{Endpoint, Request, Response};
use crate::netns::Namespace;
use crate::s3::S3;
use crate::shell;
use crate::sigv4::Signer;

/// How long a start, a stop or an exit may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Settings of `s3d`, by the environment variable that sets each.
pub mod setting {
    /// Loopback port of `/health`, `/status`, `/metrics`.
    pub const ADMIN_PORT: &str = "PREDASTORE_ADMIN_PORT";
    /// Most bytes of bodies held in memory at once: `16MiB` and more.
    pub const MEMORY_BUDGET: &str = "PREDASTORE_STORAGE_MEMORY_BUDGET";
    /// Age below which a chunk that nothing names is left alone by the sweep: `1s`.
    pub const SWEEP_GRACE: &str = "PREDASTORE_STORAGE_SWEEP_GRACE";
    /// Rest between two passes of the scrub over a shard node: `1s`.
    pub const SCRUB_INTERVAL: &str = "PREDASTORE_STORAGE_SCRUB_INTERVAL";
    /// How long a little that is dead on a shard node may wait until its space is given back: `1s`.
    pub const CLEAN_INTERVAL: &str = "PREDASTORE_STORAGE_CLEAN_INTERVAL";
    /// How long a shard node may be away before its shards are made anew: `1s`.
    pub const REPAIR_GRACE: &str = "PREDASTORE_STORAGE_REPAIR_GRACE";
    /// How long a gateway that is not heard of keeps its locks: `8s`.
    pub const SESSION_EXPIRY: &str = "PREDASTORE_STORAGE_SESSION_EXPIRY";
    /// Time between sweeps: `1s`.
    pub const SWEEP_INTERVAL: &str = "PREDASTORE_STORAGE_SWEEP_INTERVAL";
    /// Time for a request's head: `2s`.
    pub const HEADER_TIMEOUT: &str = "PREDASTORE_SERVER_HEADER_TIMEOUT";
    /// Longest silence in the middle of a request or a response: `2s`.
    pub const BODY_TIMEOUT: &str = "PREDASTORE_SERVER_BODY_TIMEOUT";
    /// NATS servers: `nats://127.0.0.1:4222`.
    pub const NATS_URL: &str = "PREDASTORE_NATS_URL";
    /// What presigned URLs begin with: `http://127.0.0.1:8443`.
    pub const NATS_ENDPOINT: &str = "PREDASTORE_NATS_ENDPOINT";
    /// Where boxes that joined look for others.
    pub const SEEDS: &str = "PREDASTORE_CLUSTER_SEEDS";
    /// Whether access keys on the bus count.
    pub const NATS_IAM: &str = "PREDASTORE_NATS_IAM";
    /// Key that their secrets are sealed under.
    pub const NATS_IAM_KEY_FILE: &str = "PREDASTORE_NATS_IAM_KEY_FILE";
    /// Whether events are published, and how.
    pub const NATS_EVENTS: &str = "PREDASTORE_NATS_EVENTS";
    /// Host names whose sub-domains are buckets.
    pub const DOMAINS: &str = "PREDASTORE_SERVER_DOMAINS";
    /// The region of the store.
    pub const REGION: &str = "PREDASTORE_REGION";
    /// The feature level that a debug build is passed off as having: `2`.
    pub const FEATURE_LEVEL: &str = "PREDASTORE_TEST_FEATURE_LEVEL";
}

/// How to start a process.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Environment variables: names from [`setting`].
    pub settings: BTreeMap<String, String>,
    /// Serve plain HTTP.
    pub plain_http: bool,
    /// Contents of a configuration file, TOML.
    pub toml: Option<String>,
    /// More of its command line.
    pub args: Vec<String>,
    /// An existing directory to keep the data in; none: a temporary one.
    pub data_dir: Option<PathBuf>,
    /// Faults to inject; none: run without strace.
    pub inject: Option<Inject>,
    /// The network it runs in; none: this process's.
    pub namespace: Option<Namespace>,
}

/// A fault that strace injects into system calls. Its counters (`when=N`) count calls of each thread.
#[derive(Clone, Debug)]
pub struct Inject {
    /// Names of system calls, comma-separated.
    pub syscalls: &'static str,
    /// What happens to them, as in strace(1): `signal=SIGKILL:when=3`, `error=EIO:when=2+`.
    pub effect: String,
}

/// The system calls that make things durable.
pub const SYNCS: &str = "fsync,fdatasync,sync_file_range";

impl Config {
    /// Sets a setting.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToString) -> Config {
        self.settings.insert(name.into(), value.to_string());
        self
    }

    /// Keeps the data in `dir`.
    #[must_use]
    pub fn in_dir(mut self, dir: &Path) -> Config {
        self.data_dir = Some(dir.into());
        self
    }

    /// Serves plain HTTP.
    #[must_use]
    pub fn plain(mut self) -> Config {
        self.plain_http = true;
        self
    }
}

/// Root credentials, as the process tells them.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Access key id.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: String,
    /// Region.
    pub region: String,
    /// The authority that signed the server's certificate.
    pub ca: Option<PathBuf>,
}

/// What `s3d check` said.
#[derive(Debug)]
pub struct Check {
    /// Whether it exited with 0.
    pub clean: bool,
    /// Its outputs.
    pub report: String,
}

/// What a release build has of its own file in memory, about (`RssFile` of an idle box, 2026-11-29).
const PROGRAM_BYTES: u64 = 18 << 20;

/// A running (or stopped) `s3d` and its data directory.
pub struct S3d {
    /// As configured; a change counts from the next start.
    pub config: Config,
    /// Where the data is.
    pub data_dir: PathBuf,
    /// S3 port.
    pub port: u16,
    /// Admin port.
    pub admin_port: u16,
    credentials: Option<Credentials>,
    child: Option<Child>,
    /// The next one, made and not started.
    standing_by: Option<Child>,
    log: PathBuf,
    scratch: tempfile::TempDir,
}

impl S3d {
    /// Starts a process and waits until it serves.
    ///
    /// # Errors
    /// When it exits or does not serve in time; the message has the end of its log.
    pub fn start(config: Config) -> Result<S3d> {
        let mut s3d = S3d::stopped(config)?;
        s3d.restart()?;
        Ok(s3d)
    }

    /// Prepares a process without starting it.
    ///
    /// # Errors
    /// When there is no temporary directory.
    pub fn stopped(config: Config) -> Result<S3d> {
        let scratch = tempfile::tempdir()?;
        let data_dir = config.data_dir.clone().unwrap_or_else(|| scratch.path().join("data"));
        let (port, admin_port) = (free_port()?, free_port()?);
        let log = scratch.path().join("log");
        Ok(S3d { config, data_dir, port, admin_port, credentials: None, child: None, standing_by: None, log, scratch })
    }

    /// Starts the process again on the same directory and ports and waits until it serves.
    ///
    /// # Errors
    /// As [`S3d::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_until_serving()
    }

    /// Starts the process and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("it runs already");
        }
        self.write_config()?;
        let child = match self.standing_by.take() {
            Some(mut child) => {
                child.stdin.take().context("it stands by without an input")?.write_all(b"go\n")?;
                child
            }
            None => self.start_process(self.command(Command::new(binary())), Stdio::null())?,
        };
        self.child = Some(child);
        Ok(())
    }

    /// Makes the next process, which waits until it is spawned. A process that is made while a mount has nobody who serves
    /// it waits for that: it is a copy of this one, files open in the mount and all, and closes them first.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn stand_by(&mut self) -> Result<()> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read -r word && exec \"$@\"", "sh"]).arg(binary());
        self.standing_by = Some(self.start_process(self.command(shell), Stdio::piped())?);
        Ok(())
    }

    fn start_process(&self, mut command: Command, input: Stdio) -> Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        command.stdin(input).stdout(log.try_clone()?).stderr(log);
        die_with_this_thread(&mut command);
        command.spawn().with_context(|| format!("cannot run {command:?}"))
    }

    /// `program` is ours, or what becomes it.
    fn command(&self, program: Command) -> Command {
        let mut command = match &self.config.inject {
            None => program,
            Some(inject) => {
                let mut command = strace(inject);
                command.arg(program.get_program()).args(program.get_args());
                command
            }
        };
        command.arg("-data-dir").arg(&self.data_dir).args(["-port", &self.port.to_string()]);
        if self.config.plain_http {
            command.args(["--tls", "off"]);
        }
        if self.config.toml.is_some() {
            command.arg("-config").arg(self.config_file());
        }
        command.args(&self.config.args);
        self.environment(&mut command);
        if let Some(namespace) = &self.config.namespace {
            namespace.enter(&mut command);
        }
        command
    }

    /// Leaves a file alone that is right: a process may be reading it.
    fn write_config(&self) -> Result<()> {
        match &self.config.toml {
            Some(toml) if std::fs::read_to_string(self.config_file()).ok().as_ref() != Some(toml) => {
                Ok(std::fs::write(self.config_file(), toml)?)
            }
            _ => Ok(()),
        }
    }

    fn config_file(&self) -> PathBuf {
        self.scratch.path().join("config.toml")
    }

    fn environment(&self, command: &mut Command) {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PREDASTORE_")) {
            command.env_remove(name);
        }
        command.env(setting::ADMIN_PORT, self.admin_port.to_string()).env("NO_COLOR", "1").envs(&self.config.settings);
    }

    /// Waits until the process serves S3.
    ///
    /// # Errors
    /// When it exits first, or takes longer than [`PATIENCE`].
    pub fn wait_until_serving(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_healthy() {
            if let Some(status) = self.try_exit()? {
                bail!("s3d ended with {status} before it served\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("s3d does not serve after {PATIENCE:?}\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.credentials.is_none() {
            self.credentials = Some(self.read_credentials()?);
        }
        Ok(())
    }

    fn is_healthy(&self) -> bool {
        self.admin("/health").is_ok_and(|answer| answer.status == 200)
            && self.inside(Endpoint::plain(self.port)).connect_tcp().is_ok()
    }

    fn inside(&self, endpoint: Endpoint) -> Endpoint {
        endpoint.inside(self.config.namespace.as_ref())
    }

    /// GETs a path of the admin port.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn admin(&self, path: &str) -> Result<Response> {
        let request = Request::new("GET", path, "").header("Host", format!("127.0.0.1:{}", self.admin_port));
        let request = request.header("Connection", "close");
        self.inside(Endpoint::plain(self.admin_port)).connect()?.call(&request)
    }

    /// `/status`, parsed.
    ///
    /// # Errors
    /// Unless it answers 200 with JSON.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.admin("/status")?.expect(200)?.body)?)
    }

    fn read_credentials(&self) -> Result<Credentials> {
        let text = self.subcommand(&["credentials", "--env"])?;
        let variables: BTreeMap<&str, &str> = text.lines().filter_map(export_line).collect();
        let find = |name: &str| variables.get(name).map(|value| (*value).to_owned());
        let need = |name: &str| find(name).with_context(|| format!("no {name} in `s3d credentials --env`"));
        let region = find("AWS_REGION").or_else(|| find("AWS_DEFAULT_REGION")).unwrap_or_else(|| "us-east-1".into());
        Ok(Credentials {
            access_key: need("AWS_ACCESS_KEY_ID")?,
            secret_key: need("AWS_SECRET_ACCESS_KEY")?,
            region,
            ca: find("AWS_CA_BUNDLE").map(PathBuf::from),
        })
    }

    /// Runs `s3d` with `words` and its own configuration; what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn subcommand(&self, words: &[&str]) -> Result<String> {
        shell::run(&mut self.subcommand_of(words))
    }

    /// The same, not started yet.
    pub fn subcommand_of(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(words).arg("-data-dir").arg(&self.data_dir);
        if self.config.toml.is_some() {
            command.arg("-config").arg(self.config_file());
        }
        command.args(&self.config.args);
        self.environment(&mut command);
        command
    }

    /// Runs `s3d cluster` with its configuration, whether it runs or not: exit code, and all that was printed.
    ///
    /// # Errors
    /// When it cannot be run, or ends by a signal.
    pub fn cluster(&self, words: &[&str]) -> Result<(i32, String)> {
        self.write_config()?;
        let mut command = Command::new(binary());
        command.arg("cluster").args(words).arg("-config").arg(self.config_file());
        self.environment(&mut command);
        let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
        let text = [output.stdout, output.stderr].concat();
        let code = output.status.code().with_context(|| format!("{command:?} ended with {}", output.status))?;
        Ok((code, String::from_utf8_lossy(&text).into_owned()))
    }

    /// `s3d snapshot` with `words`, of this process, not started yet.
    pub fn snapshot_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("snapshot").args(words).arg("-data-dir").arg(&self.data_dir);
        self.environment(&mut command);
        command
    }

    /// Runs `s3d snapshot` with `words`; what it prints.
    ///
    /// # Errors
    /// When it fails, with what it says; or takes longer than [`PATIENCE`].
    pub fn snapshot(&self, words: &[&str]) -> Result<String> {
        shell::run_within(PATIENCE, &mut self.snapshot_command(words))
    }

    /// Mounts `bucket`, or `bucket/prefix`, on `dir` with comma-separated `options`; serves when it returns.
    ///
    /// # Errors
    /// When it fails, or takes longer than [`PATIENCE`].
    pub fn mount(&self, bucket: &str, dir: &Path, options: &str) -> Result<()> {
        let mut command = Command::new(binary());
        command.args(["mount", bucket]).arg(dir).args(["-o", options]).arg("-data-dir").arg(&self.data_dir);
        self.environment(&mut command);
        shell::run_within(PATIENCE, &mut command).with_context(|| self.log_tail()).map(drop)
    }

    /// Asks for the root credentials again: a box that joins a cluster gets others.
    ///
    /// # Errors
    /// When it does not tell them.
    pub fn learn_credentials(&mut self) -> Result<()> {
        self.credentials = Some(self.read_credentials()?);
        Ok(())
    }

    /// The root credentials; known once it has served.
    ///
    /// # Panics
    /// Before the first start.
    #[allow(clippy::expect_used)]
    pub fn credentials(&self) -> &Credentials {
        self.credentials.as_ref().expect("a started s3d")
    }

    /// Where it serves.
    ///
    /// # Errors
    /// When its CA cannot be read.
    pub fn endpoint(&self) -> Result<Endpoint> {
        if self.config.plain_http {
            return Ok(self.inside(Endpoint::plain(self.port)));
        }
        let endpoint = Endpoint::tls(self.port, self.credentials().ca.as_deref().context("no AWS_CA_BUNDLE")?)?;
        Ok(self.inside(endpoint))
    }

    /// A signer with the root credentials.
    pub fn signer(&self) -> Signer {
        let credentials = self.credentials();
        Signer::new(&credentials.access_key, &credentials.secret_key, &credentials.region)
    }

    /// An S3 client with the root credentials.
    ///
    /// # Errors
    /// As [`S3d::endpoint`].
    pub fn s3(&self) -> Result<S3> {
        Ok(S3::new(self.endpoint()?, self.signer()))
    }

    /// Process id of `s3d` itself, also under strace.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("s3d does not run")?.id())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid()? as i32), signal)?)
    }

    /// SIGKILL, and waits for the end. Nothing to do where it has ended.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not run, or does not end with 0 within [`PATIENCE`].
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.wait_exit(PATIENCE)?;
        if !status.success() {
            bail!("s3d ended with {status} after SIGTERM\n{}", self.log_tail());
        }
        Ok(())
    }

    /// Whether the process has ended, and how.
    ///
    /// # Errors
    /// When it was not running at all.
    pub fn try_exit(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.as_mut().context("s3d does not run")?.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// When it has not after `patience`.
    pub fn wait_exit(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.try_exit()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("s3d still runs after {patience:?}\n{}", self.log_tail())
    }

    /// Files below the data directory that hold keys or credentials.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn secret_files(&self) -> Result<Vec<PathBuf>> {
        let keys = shell::files_under(&self.data_dir.join("keys"))?.into_iter().map(|(file, _)| file);
        Ok(keys
            .filter(|file| !matches!(file.file_name().and_then(|name| name.to_str()), Some("ca.pem" | "server.pem")))
            .collect())
    }

    /// `s3d check` on the stopped store.
    ///
    /// # Errors
    /// When it cannot be run, or ends with anything but 0 or 1.
    pub fn check(&self) -> Result<Check> {
        let mut command = Command::new(binary());
        command.arg("check").arg("-data-dir").arg(&self.data_dir);
        self.environment(&mut command);
        let output = shell::output(&mut command)?;
        let report = shell::both_streams(&output);
        match output.status.code() {
            Some(code @ (0 | 1)) => Ok(Check { clean: code == 0, report }),
            _ => bail!("s3d check: {}\n{report}", output.status),
        }
    }

    /// Fails unless `s3d check` finds the stopped store clean.
    ///
    /// # Errors
    /// With its report.
    pub fn expect_clean(&self) -> Result<()> {
        let check = self.check()?;
        if !check.clean {
            bail!("s3d check: {}", check.report);
        }
        Ok(())
    }

    /// The files that hold chunks, with their lengths in bytes: everything stored outside the catalog and the log.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn chunk_files(&self) -> Result<Vec<(PathBuf, u64)>> {
        let chunks = self.data_dir.join("chunks");
        if !chunks.is_dir() {
            bail!("no {} among {:?}", chunks.display(), shell::files_under(&self.data_dir)?);
        }
        shell::files_under(&chunks)
    }

    /// Every blob of at least `min_bytes` in the stopped catalog, whatever its table is called.
    ///
    /// # Errors
    /// When there is no catalog, or it cannot be opened.
    pub fn catalog_blobs(&self, min_bytes: usize) -> Result<Vec<Vec<u8>>> {
        // A copy: SQLite would move the write-ahead log into the database.
        let copy = tempfile::tempdir()?;
        let mut blobs = Vec::new();
        for (file, _) in shell::files_under(&self.data_dir.join("catalog"))? {
            let name = file.file_name().unwrap_or_default();
            std::fs::copy(&file, copy.path().join(name))?;
        }
        for (database, _) in shell::files_under(copy.path())? {
            if database.extension().is_some_and(|extension| extension == "db") {
                blobs.extend(blobs_of(&database, min_bytes)?);
            }
        }
        Ok(blobs)
    }

    /// Resident memory in bytes. Of the program's own file it counts no more than a release build has of it: that of a
    /// development build is nearly twice as large, and says nothing of what it allocates.
    ///
    /// # Errors
    /// When it does not run.
    pub fn rss_bytes(&self) -> Result<u64> {
        let pid = self.pid()?;
        let program = std::fs::read_link(format!("/proc/{pid}/exe"))?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
        let (mut is_program, mut program_bytes, mut other_bytes) = (false, 0, 0);
        for line in maps.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words[..] {
                ["Rss:", kib, "kB"] if is_program => program_bytes += kib.parse::<u64>()? << 10,
                ["Rss:", kib, "kB"] => other_bytes += kib.parse::<u64>()? << 10,
                [range, _, _, _, _, ..] if range.contains('-') => {
                    is_program = words.get(5).is_some_and(|path| Path::new(path) == program);
                }
                _ => {}
            }
        }
        Ok(other_bytes + program_bytes.min(PROGRAM_BYTES))
    }

    /// The end of what it has logged, over all its starts.
    pub fn log_tail(&self) -> String {
        let log = self.log_text();
        let lines: Vec<&str> = log.lines().collect();
        format!("--- log of s3d\n{}\n---", lines[lines.len().saturating_sub(40)..].join("\n"))
    }

    /// Everything it has logged.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for S3d {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            crate::knobs::say(&self.log_tail());
        }
    }
}

/// `s3d umount DIR`, with `--force` if so told.
///
/// # Errors
/// When it fails, or takes longer than [`PATIENCE`].
pub fn unmount(dir: &Path, force: bool) -> Result<()> {
    let mut command = Command::new(binary());
    command.arg("umount").args(force.then_some("--force")).arg(dir);
    shell::run_within(PATIENCE, &mut command).map(drop)
}

/// The `s3d` to test: `S3D_BIN`, else `bin/s3d`, else what cargo built last.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    if let Ok(path) = std::env::var("S3D_BIN") {
        return path.into();
    }
    let target = target_dir();
    let places = [root().join("bin/s3d"), target.join("release/s3d"), target.join("debug/s3d")];
    match places.iter().find(|place| place.is_file()) {
        Some(place) => place.clone(),
        None => panic!("no s3d in {places:?}: run `make build`, or set S3D_BIN"),
    }
}

/// The root of the working tree.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    let given = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    // target/debug/deps/suite-0123
    let running = || std::env::current_exe().ok().and_then(|exe| exe.ancestors().nth(3).map(Path::to_path_buf));
    given.or_else(running).unwrap_or_else(|| root().join("target"))
}

/// -D: the tracer is the grandchild, so that our child is s3d itself.
fn strace(inject: &Inject) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    if !inject.effect.contains("signal=") {
        // All but the named calls run at full speed; strace 6.1 injects no signals under it.
        command.arg("--seccomp-bpf");
    }
    command.args(["-e", &format!("trace={}", inject.syscalls)]);
    command.args(["-e", &format!("inject={}:{}", inject.syscalls, inject.effect)]);
    command
}

fn blobs_of(database: &Path, min_bytes: usize) -> Result<Vec<Vec<u8>>> {
    let connection = rusqlite::Connection::open(database)?;
    let mut tables = connection.prepare("SELECT name FROM sqlite_master WHERE type = 'table'")?;
    let tables: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut blobs = Vec::new();
    for table in tables {
        let mut statement = connection.prepare(&format!("SELECT * FROM \"{table}\""))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                if let rusqlite::types::ValueRef::Blob(blob) = row.get_ref(column)?
                    && blob.len() >= min_bytes
                {
                    blobs.push(blob.to_vec());
                }
            }
        }
    }
    Ok(blobs)
}

fn export_line(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim().strip_prefix("export ")?.split_once('=')?;
    Some((name, value.trim_matches(['"', '\''])))
}

/// A port below the range from which the kernel takes ports for outgoing connections, so that none takes it meanwhile.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..10_000 {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let port = 12_000 + offset as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port")
}

pub(crate) fn die_with_this_thread(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: prctl is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
}
