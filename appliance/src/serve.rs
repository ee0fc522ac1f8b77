//! The daemon: opens the store, serves it, and closes it again on SIGTERM or SIGINT.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use predastore::ids::NodeId;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Shown, Window};
use crate::config::{Account, Config, Tls};
use crate::credentials::endpoint;
use crate::db_status;
use crate::identity::Identity;
use crate::join::daemon::Joining;
use crate::join::host::{self, Host};
use crate::join::{keep, settle};
use crate::mounts::configured;
use crate::mounts::control::ControlSocket;
use crate::mounts::running::Mounts;
use crate::nats::{self, Bus};
use crate::store::{Frontend, Process, Store, authority};
use crate::systemd::{self, Inherited};
use crate::tls::{Certificate, own_addresses, server_config};

/// How often it is asked whether the machine has other addresses, which the certificate is to name.
const ADDRESS_CHECK: Duration = Duration::from_secs(60);
/// How often the server certificate's age is looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(24 * 3600);

/// Why it has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// A signal.
    Stopped,
    /// It is something else now, and is to be started again.
    Again,
}

/// Runs until a signal ends it, or until it is to start again; the store is closed when this returns.
///
/// # Errors
/// Whatever kept it from starting, or made it stop.
pub(crate) async fn run(config: Config, inherited: &mut Inherited) -> Result<Ended> {
    let signals = Signals::listen()?;
    for line in &config.obsolete {
        tracing::warn!("{line}");
    }
    // What can be wrong outside of the store is found before one is made.
    let listeners = Listeners::bind(&config, inherited).await?;
    Certificate::check_files(&config.server)?;
    let bus = Bus::of(&config)?;
    // Of all that is kept the store first, because it locks the directory.
    systemd::starting("opening the store");
    settle::settle(&config)?;
    let process = Process::start(&config).await?;
    let served = serve(&config, &process, listeners, bus, signals).await;
    process.shutdown().await;
    tracing::info!("stopped");
    served
}

/// Where requests come; who connects before the store is open waits for it.
struct Listeners {
    /// None in a process of a cluster that is no gateway.
    s3: Option<TcpListener>,
    admin: Option<TcpListener>,
    /// Of the db nodes of a cluster, by id.
    dbs: BTreeMap<NodeId, TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config, inherited: &mut Inherited) -> Result<Self> {
        let admin = match config.admin {
            Some(address) => bind_admin(address, config.admin_may_be_taken).await?,
            None => None,
        };
        let s3 = match config.gateway() {
            Some(address) => match inherited.on(address)? {
                Some(socket) => Some(socket),
                None => Some(bind(address, "the S3 endpoint").await?),
            },
            None => None,
        };
        if let Some(socket) = &s3 {
            inherited.keep(socket)?;
        }
        let mut dbs = BTreeMap::new();
        for db in config.cluster.iter().flat_map(|cluster| &cluster.role.dbs) {
            dbs.insert(db.id, bind(db.listen, &format!("the status of db node {}", db.id)).await?);
        }
        Ok(Listeners { s3, admin, dbs })
    }
}

async fn serve(
    config: &Config,
    process: &Process,
    listeners: Listeners,
    bus: Option<Bus>,
    mut signals: Signals,
) -> Result<Ended> {
    let identity = Identity::of(config);
    let accounts = accounts(config, &identity)?;
    let (stop, again) = (CancellationToken::new(), CancellationToken::new());
    let certificates = Certificates::load(config, &identity, !listeners.dbs.is_empty())?;
    let tls = certificates.s3.clone().map(server_config).transpose()?;
    let host = config.cluster.as_ref().and_then(|cluster| cluster.member.clone()).zip(accounts.first().cloned());
    let host = host.map(|(member, root)| Host::new(identity.clone(), member, root));
    let peers_tls = certificates.of_dbs().map(server_config).transpose()?;
    serve_db_status(process, listeners.dbs, peers_tls.as_ref(), host.as_ref(), &stop);
    let port = listeners.s3.as_ref().map(TcpListener::local_addr).transpose()?.map_or(0, |address| address.port());
    let window = Window::new(facts(config, port));
    if let Some(listener) = listeners.admin {
        tokio::spawn(admin::serve(listener, window.clone()));
    }
    // What a member of a cluster can do alone it does by now; for the rest it waits until enough others do.
    let waiting = config.cluster.is_some().then(|| tokio::spawn(systemd::wait_for_others()));
    let opened = opened(config, process, &mut signals).await;
    if let Some(waiting) = &waiting {
        waiting.abort();
    }
    let Some(store) = opened? else { return Ok(Ended::Stopped) };
    if let (Some(host), Some(store), Some(members)) = (&host, &store, process.members()) {
        host.open(store.objects().clone(), members);
    }

    let mut metrics = Registry::default();
    let directory = bus.as_ref().and_then(Bus::directory);
    let authority = store.as_ref().map(|store| authority(config, store, &accounts, directory)).transpose()?;
    let known = store.as_ref().zip(authority);
    let frontend =
        known.as_ref().map(|(store, authority)| Frontend::new(config, store, authority.clone(), &mut metrics));
    let root = accounts.first().map(|root| root.access_key.clone()).unwrap_or_default();
    let nats = known.and_then(|(store, authority)| {
        let served = nats::Served { store: store.objects().clone(), authority, root, port };
        nats::start(config, bus, served, &mut metrics, stop.clone())
    });
    let shown = Shown::new(facts(config, port), process.figures(store.as_ref()), process.loads(), metrics);
    window.open(shown.clone());
    let tls = tls.filter(|_| config.server.tls != Tls::Off);
    let mut frontend = match (frontend, listeners.s3) {
        (Some(frontend), Some(listener)) => tokio::spawn(frontend.serve(listener, tls, stop.clone())),
        _ => tokio::spawn(until(stop.clone())),
    };
    for bucket in config.buckets.iter().filter(|bucket| bucket.public) {
        tracing::info!(bucket = bucket.name, "anybody may read this bucket: the configuration says public");
    }
    let endpoint = config.gateway().map(|_| endpoint(config, port));
    let objects = store.as_ref().map(|store| store.objects().clone());
    let joining = objects.map(|objects| Arc::new(Joining::new(config, process, objects, again.clone())));
    let served = store.clone().zip(joining.clone());
    let mounts = served.map(|(store, joining)| serve_mounts(config, store, joining, &stop)).transpose()?;
    let members = process.members();
    let keeping = async {
        match &members {
            Some(members) => keep::keep(config, &identity, members, || certificates.reload(config, &identity)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(keeping);
    systemd::ready(endpoint.as_deref());
    let telling = tokio::spawn(systemd::keep_telling(store, shown.clone()));
    tracing::info!(endpoint, data_dir = %config.storage.data_dir.display(), "serving");
    let ended = loop {
        tokio::select! {
            reason = signals.next() => match reason {
                Reason::Stop(name) => {
                    tracing::info!(signal = name, "draining");
                    break None;
                }
                Reason::Reload => systemd::while_reloading(|| certificates.reload(config, &identity)),
            },
            ended = &mut frontend => break Some(ended),
            () = again.cancelled() => break None,
            () = &mut keeping => {}
        }
    };
    telling.abort();
    let ending = if again.is_cancelled() { Ended::Again } else { Ended::Stopped };
    match ending {
        Ended::Stopped => systemd::stopping(),
        Ended::Again => drop(tokio::spawn(systemd::starting_again())),
    }
    shown.drain();
    stop.cancel();
    let requests = frontend.abort_handle();
    let unmounted = async {
        if let Some(mounts) = &mounts {
            mounts.end().await;
        }
    };
    let s3 = async {
        match ended {
            Some(ended) => ended,
            None => frontend.await,
        }
    };
    let answered = async {
        if let Some(nats) = nats {
            nats.end().await;
        }
    };
    let drained = drained(async { tokio::join!(s3, unmounted, answered).0 }, &mut signals).await;
    requests.abort();
    drained?.context("the S3 endpoint")??;
    if let Some(joining) = &joining
        && let Err(error) = joining.become_member().await
    {
        tracing::error!("this box has not joined, and is what it was: {error:#}");
    }
    Ok(ending)
}

/// Those that are served, read again now and then.
struct Certificates {
    /// Of the S3 endpoint; none: plain HTTP.
    s3: Option<Arc<Certificate>>,
    /// The store's own, of the status of db nodes where boxes join.
    own: Option<Arc<Certificate>>,
}

impl Certificates {
    fn load(config: &Config, identity: &Identity, has_dbs: bool) -> Result<Self> {
        let is_joined = config.cluster.as_ref().is_some_and(|cluster| cluster.member.is_some());
        let s3 = match config.server.tls {
            Tls::Off if !has_dbs || is_joined => None,
            Tls::Off | Tls::Own | Tls::Files { .. } => Some(Arc::new(Certificate::load(config, identity)?)),
        };
        let own = (has_dbs && is_joined).then(|| Certificate::own(config, identity)).transpose()?;
        Ok(Certificates { s3, own: own.map(Arc::new) })
    }

    /// That of the status of db nodes.
    fn of_dbs(&self) -> Option<Arc<Certificate>> {
        self.own.clone().or_else(|| self.s3.clone())
    }

    fn reload(&self, config: &Config, identity: &Identity) {
        let own = self.own.iter().map(|certificate| certificate.reload_own(config, identity));
        let outcomes = self.s3.iter().map(|certificate| certificate.reload(config, identity)).chain(own);
        for outcome in outcomes {
            match outcome {
                Ok(()) => tracing::debug!("certificate read again"),
                Err(error) => tracing::error!(error = format!("{error:#}"), "the old certificate stays"),
            }
        }
    }
}

/// Serves mounts: those that come by the control socket, and the configured ones.
fn serve_mounts(config: &Config, store: Store, joining: Arc<Joining>, stop: &CancellationToken) -> Result<Mounts> {
    let mounts = Mounts::new(store, config.storage.data_dir.join("staging"));
    match ControlSocket::bind(&config.control)? {
        Some(socket) => drop(tokio::spawn(socket.serve(mounts.clone(), joining, stop.clone()))),
        None => {
            let socket = config.control.socket.display();
            tracing::warn!(%socket, "no control socket: another process has it; control.socket sets another");
        }
    }
    tokio::spawn(configured::mount_all(config.mounts.clone(), mounts.clone(), config.control.socket.clone()));
    Ok(mounts)
}

/// The store, seeded; none in a process that keeps no catalog. None instead of all that: a signal came first.
async fn opened(config: &Config, process: &Process, signals: &mut Signals) -> Result<Option<Option<Store>>> {
    let open = async {
        let store = process.store().await?;
        if let Some(store) = &store {
            store.seed(config).await?;
        }
        Ok(store)
    };
    tokio::pin!(open);
    loop {
        tokio::select! {
            opened = &mut open => return opened.map(Some),
            reason = signals.next() => if let Reason::Stop(name) = reason {
                tracing::info!(signal = name, "stopped before it served");
                return Ok(None);
            }
        }
    }
}

fn serve_db_status(
    process: &Process,
    mut listeners: BTreeMap<NodeId, TcpListener>,
    tls: Option<&ServerConfig>,
    host: Option<&Arc<Host>>,
    stop: &CancellationToken,
) {
    for (id, source) in process.db_statuses() {
        if let (Some(listener), Some(tls)) = (listeners.remove(&id), tls) {
            let more = host.map(|host| host::router(host.clone())).unwrap_or_default();
            tokio::spawn(db_status::serve(listener, tls.clone(), source, more, stop.clone()));
        }
    }
}

/// The frontend of a process that has none.
async fn until(stop: CancellationToken) -> Result<()> {
    stop.cancelled().await;
    Ok(())
}

/// Waits for the end of requests and mounts, or a second signal from someone in a hurry.
async fn drained<T>(work: impl Future<Output = T>, signals: &mut Signals) -> Result<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            ended = &mut work => return Ok(ended),
            reason = signals.next() => if let Reason::Stop(name) = reason {
                bail!("a second {name} came while requests were still running");
            }
        }
    }
}

fn accounts(config: &Config, identity: &Identity) -> Result<Vec<Account>> {
    let root = match &config.root {
        Some(root) => root.clone(),
        None => identity.ensure_credentials()?,
    };
    Ok([root].into_iter().chain(config.accounts.iter().cloned()).collect())
}

/// None: the address is taken, and may be.
async fn bind_admin(address: SocketAddr, may_be_taken: bool) -> Result<Option<TcpListener>> {
    match bind(address, "the admin endpoint (admin.port 0 turns it off)").await {
        Err(error) if may_be_taken && is_taken(&error) => {
            tracing::warn!(%address, "no admin endpoint: another process has its address; admin.port sets another");
            Ok(None)
        }
        bound => bound.map(Some),
    }
}

fn is_taken(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

async fn bind(address: SocketAddr, what: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for {what}"))
}

fn facts(config: &Config, port: u16) -> Map<String, Value> {
    let facts = [
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("endpoint", json!(endpoint(config, port))),
        ("region", json!(config.region)),
        ("backend", json!(if config.cluster.is_some() { "distributed" } else { "file" })),
        ("data_dir", json!(config.storage.data_dir)),
        ("box", json!(config.cluster.as_ref().and_then(|cluster| cluster.member.as_ref()).map(|member| member.node))),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What the process is asked to do.
enum Reason {
    Stop(&'static str),
    Reload,
}

struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
    daily: tokio::time::Interval,
    minutely: tokio::time::Interval,
    addresses: BTreeSet<IpAddr>,
}

impl Signals {
    fn listen() -> Result<Self> {
        let first = |after| tokio::time::Instant::now() + after;
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            daily: tokio::time::interval_at(first(CERTIFICATE_CHECK), CERTIFICATE_CHECK),
            minutely: tokio::time::interval_at(first(ADDRESS_CHECK), ADDRESS_CHECK),
            addresses: own_addresses(),
        })
    }

    async fn next(&mut self) -> Reason {
        loop {
            tokio::select! {
                _ = self.term.recv() => return Reason::Stop("SIGTERM"),
                _ = self.interrupt.recv() => return Reason::Stop("SIGINT"),
                _ = self.hangup.recv() => return Reason::Reload,
                _ = self.daily.tick() => return Reason::Reload,
                _ = self.minutely.tick() => {
                    let addresses = own_addresses();
                    if addresses != self.addresses {
                        self.addresses = addresses;
                        return Reason::Reload;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn only_an_admin_address_that_nobody_asked_for_may_be_taken() {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = other.local_addr().unwrap();
        assert!(bind_admin(taken, true).await.unwrap().is_none());
        assert!(bind_admin(taken, false).await.is_err());
        // TEST-NET-1, of no host: another mistake.
        assert!(bind_admin(([192, 0, 2, 1], 1).into(), true).await.is_err());
    }
}
