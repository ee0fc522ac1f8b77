//! Clients that write and read few keys through several gateways, until they are told to stop; then the check.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::client::Client;
use super::recorder::{Recorder, Tally};
use crate::http::Endpoint;
use crate::random::Rng;
use crate::s3::S3;
use crate::s3d::{PATIENCE, S3d};
use crate::sigv4::Signer;

/// Clients of each gateway.
const CLIENTS: usize = 5;

/// Where clients send to, also while nobody is there.
#[derive(Clone)]
pub struct Gateway {
    endpoint: Endpoint,
    signer: Signer,
}

impl Gateway {
    /// The gateway of a process that has served before.
    ///
    /// # Errors
    /// As [`S3d::endpoint`].
    pub fn of(s3d: &S3d) -> Result<Gateway> {
        Ok(Gateway { endpoint: s3d.endpoint()?, signer: s3d.signer() })
    }

    /// As it is, for a process whose clock is so much ahead.
    #[must_use]
    pub fn with_clock_ahead(mut self, seconds: i64) -> Gateway {
        self.signer.skew_secs = seconds;
        self
    }

    /// A client that gives up after `timeout`, and sends everything once.
    pub(super) fn client(&self, timeout: Duration) -> S3 {
        S3::once(self.endpoint.clone().with_timeout(timeout), self.signer.clone())
    }
}

/// The clients' work on two buckets, of which one is versioned.
pub struct Load {
    bucket: String,
    versioned: String,
    pub(super) recorder: Recorder,
    /// Ids of bodies.
    pub(super) next_id: AtomicU64,
    gateways: Vec<Gateway>,
    /// Writes that each gateway has acknowledged.
    written: Vec<AtomicU64>,
    /// Set when a client found something that cannot be.
    failed: AtomicBool,
}

impl Load {
    /// Clients' work on a new bucket of that name, and on a versioned one beside it.
    ///
    /// # Errors
    /// When the buckets cannot be made.
    pub fn new(bucket: &str, gateways: Vec<Gateway>) -> Result<Load> {
        let first = gateways.first().context("no gateway")?;
        let versioned = format!("{bucket}-versions");
        let mut s3 = first.client(PATIENCE);
        s3.create_bucket(bucket)?;
        s3.create_bucket(&versioned)?;
        s3.enable_versioning(&versioned)?;
        let written = gateways.iter().map(|_| AtomicU64::new(0)).collect();
        let failed = AtomicBool::new(false);
        let (recorder, next_id) = (Recorder::new(), AtomicU64::new(1));
        Ok(Load { bucket: bucket.to_owned(), versioned, recorder, next_id, gateways, written, failed })
    }

    /// Runs clients of all gateways until `meanwhile` has returned. Then waits until every gateway serves, and reads every
    /// key through each. How long that wait took.
    ///
    /// # Errors
    /// When `meanwhile` fails, a client got an answer that nothing explains, or a gateway does not serve.
    pub fn run(&self, rng: &mut Rng, meanwhile: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let stop = AtomicBool::new(false);
        let clients = (0..self.gateways.len() * CLIENTS).map(|index| self.client(index, rng)).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            let threads: Vec<_> = clients.into_iter().map(|client| scope.spawn(|| self.drive(client, &stop))).collect();
            let outcome = meanwhile();
            stop.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().map_err(|_| anyhow!("a client panicked"))??;
            }
            outcome
        })?;
        let began = Instant::now();
        (0..self.gateways.len()).try_for_each(|gateway| self.wait_serving(gateway))?;
        let waited = began.elapsed();
        (0..self.gateways.len()).try_for_each(|gateway| self.client(gateway, rng).read_everything())?;
        self.read_log()?;
        Ok(waited)
    }

    /// Where a key is, or the keys of a generation.
    pub(super) fn bucket_of(&self, key: &str) -> &str {
        if Recorder::is_versioned(key) { &self.versioned } else { &self.bucket }
    }

    /// Asks the versioned bucket what was written.
    fn read_log(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut s3 = self.gateways[0].client(PATIENCE);
        let versions = loop {
            match s3.list_versions(&self.versioned) {
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
                Ok(versions) => break versions,
            }
        };
        self.recorder.note_log(&versions)
    }

    fn client(&self, index: usize, rng: &mut Rng) -> Client<'_> {
        // Some give up soon and leave more open; some see what a slow answer says.
        let timeout = Duration::from_secs(2 + rng.below(5));
        let mut gateways: Vec<_> = self.gateways.iter().map(|gateway| gateway.client(timeout)).collect();
        gateways.rotate_left(index % self.gateways.len());
        Client::new(self, index, gateways, Rng::new(rng.next_u64()))
    }

    fn drive(&self, mut client: Client, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) && !self.failed.load(Ordering::Relaxed) {
            let stepped = client.step();
            if stepped.is_err() {
                self.failed.store(true, Ordering::Relaxed);
                return stepped;
            }
        }
        Ok(())
    }

    pub(super) fn acknowledged(&self, gateway: usize) {
        self.written[gateway % self.gateways.len()].fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until each of `gateways` has acknowledged `count` writes more. How long that took.
    ///
    /// # Errors
    /// When none of those that have not acknowledges anything for as long as the harness's patience, or a client failed.
    pub fn wait_written(&self, gateways: &[usize], count: u64) -> Result<Duration> {
        let began = Instant::now();
        let goals = self.goals(gateways, count);
        let (mut left, mut progress) = (u64::MAX, began);
        while let missing @ 1.. = self.missing(&goals)? {
            if missing < left {
                (left, progress) = (missing, Instant::now());
            }
            ensure!(
                progress.elapsed() < PATIENCE,
                "{missing} writes are missing of {count} through each of {gateways:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(began.elapsed())
    }

    /// Lets clients work until each gateway has acknowledged `count` writes more, but no longer than `at_most`.
    ///
    /// # Errors
    /// When a client failed.
    pub fn let_work(&self, count: u64, at_most: Duration) -> Result<()> {
        let began = Instant::now();
        let goals = self.goals(&(0..self.gateways.len()).collect::<Vec<_>>(), count);
        while began.elapsed() < at_most && self.missing(&goals)? > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Gateways, and how many writes each shall have acknowledged.
    fn goals(&self, gateways: &[usize], count: u64) -> Vec<(usize, u64)> {
        gateways.iter().map(|gateway| (*gateway, self.written[*gateway].load(Ordering::Relaxed) + count)).collect()
    }

    /// How many writes are missing.
    fn missing(&self, goals: &[(usize, u64)]) -> Result<u64> {
        ensure!(!self.failed.load(Ordering::Relaxed), "a client failed");
        let of_one =
            |(gateway, goal): &(usize, u64)| goal.saturating_sub(self.written[*gateway].load(Ordering::Relaxed));
        Ok(goals.iter().map(of_one).sum())
    }

    fn wait_serving(&self, gateway: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut s3 = self.gateways[gateway].client(Duration::from_secs(5));
        loop {
            let answer = s3.put(&self.bucket, "probe", "served");
            match answer {
                Ok(answer) if answer.status == 200 => return Ok(()),
                _ => ensure!(
                    Instant::now() < deadline,
                    "gateway {gateway} does not serve after {PATIENCE:?}: {answer:?}"
                ),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Checks all that was seen. How many operations that were.
    ///
    /// # Errors
    /// With the first key that no order explains.
    pub fn check(&self) -> Result<u64> {
        self.recorder.check()
    }

    /// How many operations there were, by kind.
    pub fn kinds(&self) -> BTreeMap<&'static str, Tally> {
        self.recorder.kinds()
    }
}
