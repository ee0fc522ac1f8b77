//! A load of boto3 clients with their default retries, beside what a test does: `clients/boto_load.py`.
//!
//! Invariant: the script does not outlive this value, nor the test's process: it ends when its standard input does.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::clients::Clients;
use crate::s3d::{PATIENCE, S3d};

/// How long boto3 may take to start, or for the calls that it is waited for: a call may be tried five times.
const BOTO_PATIENCE: Duration = Duration::from_secs(180);

/// A running load.
pub struct BotoLoad {
    child: Child,
    calls: Arc<AtomicU64>,
    /// Gives the last line.
    reader: Option<JoinHandle<Option<String>>>,
    errors: Option<JoinHandle<String>>,
    _clients: Clients,
}

/// What a load did that ended well.
#[derive(Clone, Copy, Debug, Default)]
pub struct BotoTally {
    /// Calls, all of which succeeded.
    pub calls: u64,
    /// How often boto3 tried one of them again.
    pub retries: u64,
    /// What the slowest took, milliseconds.
    pub slowest_ms: u64,
}

impl BotoLoad {
    /// Starts one client for each of `gateways`, with keys of its own under `prefix`.
    ///
    /// # Errors
    /// When Python cannot be run.
    pub fn start(bucket: &str, prefix: &str, gateways: &[&S3d]) -> Result<BotoLoad> {
        let clients = Clients::new(gateways.first().context("no gateway")?)?;
        let mut command = clients.python_command("boto_load.py")?;
        command.args([bucket, prefix]);
        for gateway in gateways {
            command.arg(gateway.endpoint()?.url());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        let calls = Arc::new(AtomicU64::new(0));
        let (stdout, mut stderr) = (child.stdout.take().context("no pipe")?, child.stderr.take().context("no pipe")?);
        let counted = calls.clone();
        let reader = std::thread::spawn(move || follow(BufReader::new(stdout), &counted));
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Ok(BotoLoad { child, calls, reader: Some(reader), errors: Some(errors), _clients: clients })
    }

    /// Waits until `count` more calls have succeeded.
    ///
    /// # Errors
    /// When a call failed, or it takes too long.
    pub fn wait_calls(&mut self, count: u64) -> Result<()> {
        let deadline = Instant::now() + BOTO_PATIENCE;
        let enough = self.calls.load(Ordering::Relaxed) + count;
        while self.calls.load(Ordering::Relaxed) < enough {
            if self.child.try_wait()?.is_some() {
                return self.outcome().map(drop);
            }
            ensure!(Instant::now() < deadline, "boto3 has not made {count} more calls after {BOTO_PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends the load: it reads all it has written once more.
    ///
    /// # Errors
    /// With what boto3 said, when any call has failed or read something else than was written.
    pub fn finish(mut self) -> Result<BotoTally> {
        self.outcome()
    }

    fn outcome(&mut self) -> Result<BotoTally> {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + PATIENCE + BOTO_PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "boto3 does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let last = self.reader.take().and_then(|reader| reader.join().ok()).flatten().unwrap_or_default();
        let errors = self.errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default();
        ensure!(status.success(), "boto3 with default retries: {status} {last}\n{errors}");
        let tally: Value = serde_json::from_str(&last).with_context(|| format!("{last:?} is no tally"))?;
        let number = |name: &str| tally[name].as_u64().with_context(|| format!("no {name} in {last}"));
        Ok(BotoTally { calls: number("calls")?, retries: number("retries")?, slowest_ms: number("slowest_ms")? })
    }
}

impl Drop for BotoLoad {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counts the calls; the last line.
fn follow(stdout: impl BufRead, calls: &AtomicU64) -> Option<String> {
    let mut last = None;
    for line in stdout.lines().map_while(Result::ok) {
        if let Some(count) = line.strip_prefix("calls ").and_then(|count| count.parse().ok()) {
            calls.store(count, Ordering::Relaxed);
        }
        last = Some(line);
    }
    last
}
