//! What the environment decides: how long the suites run, what they may skip.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, anyhow};

/// The number in the environment variable `name`, or `default`.
///
/// # Panics
/// When it is set to something that is no number: a soak run must not silently fall back to the short form.
pub fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

/// Whether `name` is set to `1` or `true`.
pub fn flag(name: &str) -> bool {
    matches!(std::env::var(name).as_deref(), Ok("1" | "true"))
}

/// Writes a line to the real standard error: unlike `eprintln!`, the test runner does not swallow it.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// An error with the logs of those that were asked below it: whoever reads only its first lines reads what went wrong.
pub trait WithLogs<T> {
    /// Adds `logs` to an error.
    ///
    /// # Errors
    /// Those of `self`.
    fn with_logs(self, logs: impl FnOnce() -> String) -> Result<T>;
}

impl<T> WithLogs<T> for Result<T> {
    fn with_logs(self, logs: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| anyhow!("{error:#}\n{}", logs()))
    }
}

/// What a suite may lack on a developer's machine, and never in CI.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// Effective user 0.
    Root,
    /// Loop devices that can be mounted; implies root.
    LoopMount,
    /// `/dev/fuse`.
    Fuse,
    /// A program in PATH.
    Program(&'static str),
    /// A program that `tests/install-deps.sh` has cargo install.
    Tool(&'static str),
}

/// Where `tests/install-deps.sh` puts what it has cargo install.
pub fn tool(name: &str) -> PathBuf {
    let tools = std::env::var_os("PREDASTORE_TEST_TOOLS");
    let tools = tools.map_or_else(|| crate::s3d::target_dir().join("test-tools"), PathBuf::from);
    tools.join("bin").join(name)
}

/// Whether all `needs` are met. If not, says so loudly; with `CI=true` it panics instead: CI never passes by skipping.
pub fn can_run(test: &str, needs: &[Need]) -> bool {
    let missing: Vec<&Need> = needs.iter().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(!flag("CI"), "{test} cannot run in CI: missing {missing:?}");
    say(&format!("\n*** SKIPPED {test}: missing {missing:?} ***\n"));
    false
}

impl Need {
    /// Whether it is there.
    pub fn is_met(&self) -> bool {
        match self {
            Need::Root => nix::unistd::geteuid().is_root(),
            Need::LoopMount => nix::unistd::geteuid().is_root() && std::path::Path::new("/dev/loop-control").exists(),
            Need::Fuse => std::path::Path::new("/dev/fuse").exists(),
            Need::Program(name) => crate::shell::find_program(name).is_some(),
            Need::Tool(name) => tool(name).is_file(),
        }
    }
}
