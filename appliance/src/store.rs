//! The one place where this program meets the core and the S3 frontend.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::{Figure, Figures};
use crate::config::{Account, BucketSeed, Config};

/// A running store: the core's node.
pub(crate) struct Store {}

/// The S3 endpoint over a store.
pub(crate) struct Frontend {}

/// What `s3d check` found.
pub(crate) struct Findings {
    /// One line each; empty: clean.
    pub(crate) damage: Vec<String>,
    /// What was looked at, in one line.
    pub(crate) summary: String,
}

impl Store {
    /// Opens the store in the configured directory and locks it.
    ///
    /// # Errors
    /// Another process holds the lock; the disk; damage.
    pub(crate) async fn open(_config: &Config) -> Result<Self> {
        bail!("this build has no object core yet")
    }

    /// Makes the buckets that are missing.
    pub(crate) async fn seed(&self, _buckets: &[BucketSeed], _config: &Config) -> Result<()> {
        Ok(())
    }

    /// Figures of catalog, log and disk.
    pub(crate) fn figures(&self) -> Figures {
        Arc::new(Vec::<Figure>::new)
    }

    /// Closes it; whatever was acknowledged is durable already.
    pub(crate) async fn shutdown(self) -> Result<()> {
        Ok(())
    }
}

impl Frontend {
    /// `accounts`: who may sign requests, root first. Its metrics go to `metrics`.
    pub(crate) fn new(_config: &Config, _store: &Store, _accounts: Vec<Account>, _metrics: &mut Registry) -> Self {
        Frontend {}
    }

    /// Serves `listener` until `stop`, then lets running requests end for at most `drain`.
    pub(crate) async fn serve(
        self,
        _listener: TcpListener,
        _tls: Option<ServerConfig>,
        stop: CancellationToken,
        _drain: Duration,
    ) -> Result<()> {
        stop.cancelled().await;
        Ok(())
    }
}

/// Verifies the stopped store of `config` completely.
///
/// # Errors
/// It cannot be read at all, or is in use.
pub(crate) async fn check(_config: &Config) -> Result<Findings> {
    bail!("this build has no object core yet")
}
