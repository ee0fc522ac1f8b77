//! Subprocesses: run to the end, fail with what they said.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Runs `command` to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started or does not exit with 0; the message has its command line and both outputs.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, both_streams(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` to its end, whatever its exit status.
///
/// # Errors
/// When it cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))
}

/// Like [`run`], but a command that takes longer than `patience` is killed, with all that it has started, and is an error.
///
/// # Errors
/// As [`run`]; and when it is killed.
pub fn run_within(patience: Duration, command: &mut Command) -> Result<String> {
    let output = output_within(patience, command)?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, both_streams(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Like [`output`], with the patience of [`run_within`].
///
/// # Errors
/// When it cannot be started, or is killed.
pub fn output_within(patience: Duration, command: &mut Command) -> Result<Output> {
    // Files, not pipes: a process that cannot be killed must not be waited for at the end of a pipe either.
    let dir = tempfile::tempdir()?;
    let (stdout, stderr) = (dir.path().join("stdout"), dir.path().join("stderr"));
    command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let ended = wait_within(patience, &mut child)?;
    if ended.is_none() {
        let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        wait_within(Duration::from_secs(5), &mut child)?;
    }
    let (stdout, stderr) = (std::fs::read(&stdout)?, std::fs::read(&stderr)?);
    let output = Output { status: ended.unwrap_or_default(), stdout, stderr };
    if ended.is_none() {
        bail!("{command:?} takes longer than {patience:?}\n{}", both_streams(&output));
    }
    Ok(output)
}

/// How a process has ended; none: it has not within `patience`.
///
/// # Errors
/// When it cannot be waited for.
pub fn wait_within(patience: Duration, child: &mut Child) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + patience;
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() > deadline {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Both outputs of a finished process, for messages.
pub fn both_streams(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Where `name` is in PATH (and in the places root's PATH sometimes lacks).
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())
}

/// Builds a command from words.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// Every regular file under `dir`, with its length in bytes.
///
/// # Errors
/// When a directory cannot be read; files that vanish meanwhile are left out.
pub fn files_under(dir: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let entry = entry?;
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => pending.push(entry.path()),
                Ok(meta) if meta.is_file() => files.push((entry.path(), meta.len())),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}
