//! The NATS frontend, wired: the keys it asks about, the URLs that are signed for it, the cluster it tells of.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use predastore::object;
use predastore::object::access::{Authority, Directory};
use predastore_nats::connect::Connector;
use predastore_nats::iam::{Iam, read_key};
use predastore_nats::metrics::Metrics;
use predastore_nats::presign::{self, Presign};
use predastore_nats::serve::{self, DbNode, Frontend};
use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::nats::{Nats, Trust};
use crate::config::{Config, Secret};
use crate::credentials::endpoint;
use crate::sign::{Credentials, ToPresign, presigned_url};

/// Running, until the process stops.
pub(crate) struct Running(JoinHandle<()>);

impl Running {
    /// Waits for the last answer.
    pub(crate) async fn end(self) {
        // It ends early only when it panicked, which was told.
        self.0.await.ok();
    }
}

/// What the settings name outside of the store.
pub(crate) struct Bus {
    connector: Connector,
    iam: Option<Iam>,
}

impl Bus {
    /// None: it is off.
    ///
    /// # Errors
    /// A URL; a file.
    pub(crate) fn of(config: &Config) -> Result<Option<Bus>> {
        let Some(nats) = &config.nats else { return Ok(None) };
        let connector = Connector::new(&nats.settings).context("nats")?;
        let key = nats.iam.as_ref().map(|iam| read_key(&iam.key_file)).transpose().context("nats.iam_key_file")?;
        Ok(Some(Bus { connector, iam: key.map(Iam::new) }))
    }

    /// The access keys on it, if they count here.
    pub(crate) fn directory(&self) -> Option<Arc<dyn Directory>> {
        self.iam.clone().map(|iam| Arc::new(iam) as Arc<dyn Directory>)
    }
}

/// What is served.
pub(crate) struct Served {
    pub(crate) store: object::Store,
    pub(crate) authority: Arc<Authority>,
    /// The root's access key.
    pub(crate) root: String,
    /// Of the S3 endpoint.
    pub(crate) port: u16,
}

/// Serves over NATS until `stop`. None: it is off.
pub(crate) fn start(
    config: &Config,
    bus: Option<Bus>,
    served: Served,
    registry: &mut Registry,
    stop: CancellationToken,
) -> Option<Running> {
    let (nats, Bus { connector, iam }) = config.nats.as_ref().zip(bus)?;
    let metrics = Metrics::default();
    metrics.register(registry);
    let settings = serve::Config {
        prefix: nats.prefix.clone(),
        operations: nats.operations.clone(),
        trust: match &nats.trust {
            Trust::Envelope => serve::Trust::Envelope,
            Trust::Connection(account) => serve::Trust::Connection(account.clone().unwrap_or(served.root)),
        },
        memory_bytes: nats.memory_budget_bytes,
        region: config.region.clone(),
        backend: if config.cluster.is_some() { "distributed" } else { "file" },
        db_nodes: db_nodes(config),
        events: nats.events.clone(),
        iam: iam.zip(nats.iam.as_ref().map(|iam| iam.buckets.clone())),
        drain: Duration::max(config.server.drain_timeout, Duration::from_secs(1)),
    };
    let presign = presign(url_of(config, nats, served.port), config.region.clone());
    let frontend = Frontend::new(served.store, served.authority, presign, settings, metrics);
    Some(Running(tokio::spawn(async move {
        if let Err(error) = frontend.serve(connector, stop.cancelled()).await {
            tracing::error!(%error, "NATS is not served any more");
        }
    })))
}

fn db_nodes(config: &Config) -> Vec<DbNode> {
    let dbs = config.cluster.iter().flat_map(|cluster| &cluster.dbs);
    dbs.map(|db| DbNode { id: db.id.0, dial: db.dial.clone() }).collect()
}

/// What presigned URLs begin with. Whoever uses one is on another machine as a rule: there this one is no `localhost`.
fn url_of(config: &Config, nats: &Nats, port: u16) -> String {
    let here = || {
        let name =
            nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).filter(|name| !name.is_empty());
        let url = endpoint(config, port);
        match name {
            Some(name) if config.server.address.ip().is_unspecified() => url.replacen("localhost", &name, 1),
            Some(_) | None => url,
        }
    };
    // A host is signed as clients write it.
    nats.endpoint.clone().unwrap_or_else(here).to_ascii_lowercase()
}

fn presign(endpoint: String, region: String) -> Presign {
    Arc::new(move |request: &presign::ToPresign<'_>| {
        let credentials = Credentials {
            access_key: request.access_key_id.to_owned(),
            secret: Secret::new(request.secret.reveal()),
            region: region.clone(),
        };
        let now = OffsetDateTime::from_unix_timestamp(request.now_s).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let to_presign = ToPresign {
            method: request.method,
            endpoint: &endpoint,
            path: &format!("/{}/{}", request.bucket, request.key),
            query: request.query,
            headers: request.headers,
            life_s: request.life_s,
        };
        presigned_url(&credentials, now, &to_presign)
    })
}
