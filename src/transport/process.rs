//! The transport of one process: everything else put together.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::counters::{Counters, Stats};
use super::frame::check_call;
use super::identity::{Identity, IdentityError};
use super::listener::Server;
use super::peers::{AddressBook, Peers};
use super::quic::{Endpoints, Settings};
use super::services::Services;
use super::{Call, CallError, Caller, Class, Peer, Reply, Service};
use crate::env::Env;
use crate::ids::NodeId;

/// Deadlines further away are as far as this.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Peers are told that a connection ends, but not waited for any longer.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// How much of what at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls that one peer may have under way on one connection; more wait at the caller.
    pub streams_per_connection: u32,
    /// Calls of [`Class::Urgent`] being served, of all peers; more are refused.
    pub urgent_calls: u32,
    /// Calls of [`Class::Bulk`] being served, of all peers; more are refused.
    pub bulk_calls: u32,
    /// Connections that may be accepted on one address; more are refused.
    pub connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { streams_per_connection: 256, urgent_calls: 1024, bulk_calls: 1024, connections: 1024 }
    }
}

/// What a transport is started with.
pub struct Config {
    /// Who this process is.
    pub identity: Identity,
    /// UDP addresses to serve on; none: this process only calls. Port 0 is any.
    pub listen: Vec<SocketAddr>,
    /// Where the others are.
    pub book: Arc<AddressBook>,
    /// How much at once.
    pub limits: Limits,
    /// Time and randomness.
    pub env: Env,
}

/// The transport did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket.
    #[error("UDP {0:?}: {1}")]
    Bind(Vec<SocketAddr>, io::Error),
    /// A certificate.
    #[error("{0}")]
    Identity(#[from] IdentityError),
}

/// The transport of a process. Dropped, it ends at once: who is being served, and who waits, gets no answer.
pub struct Transport {
    services: Arc<Services>,
    server: Arc<Server>,
    peers: Peers,
    endpoints: Arc<Endpoints>,
    counters: Arc<Counters>,
    listeners: Mutex<JoinSet<()>>,
}

impl Transport {
    /// Binds the sockets and serves, at first nothing: see [`Transport::serve`]. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// An address cannot be bound; the certificate cannot be used.
    pub fn start(config: Config) -> Result<Transport, StartError> {
        let settings = Settings::new(&config.identity, config.limits.streams_per_connection)?;
        Transport::start_with(settings, config)
    }

    pub(super) fn start_with(settings: Settings, config: Config) -> Result<Transport, StartError> {
        let Config { identity, listen, book, limits, env } = config;
        let endpoints = Endpoints::bind(settings, &listen).map_err(|error| StartError::Bind(listen, error))?;
        let (endpoints, counters) = (Arc::new(endpoints), Arc::new(Counters::default()));
        let services = Arc::new(Services::new(identity.shared_peers()));
        let server = Arc::new(Server::new(Arc::clone(&services), Arc::clone(&counters), limits));
        let mut listeners = JoinSet::new();
        for endpoint in endpoints.listening() {
            listeners.spawn(Arc::clone(&server).listen(endpoint.clone()));
        }
        let peers = Peers::new(book, Arc::clone(&endpoints), Arc::clone(&counters), env);
        Ok(Transport { services, server, peers, endpoints, counters, listeners: Mutex::new(listeners) })
    }

    /// Lets `service` answer the calls to `peer`, a node of this process, whose method is `number` << 8 | any.
    /// Until then they are refused; they end as [`CallError::Never`].
    pub fn serve(&self, peer: Peer, number: u8, service: Arc<dyn Service>) {
        self.services.insert(peer, number, service);
    }

    /// The addresses that are served.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.endpoints.listening().iter().filter_map(|endpoint| endpoint.local_addr().ok()).collect()
    }

    /// Serves these nodes no more, though their certificates are good; others that were told of before, again.
    pub fn expel(&self, nodes: HashSet<NodeId>) {
        self.server.expel(nodes);
    }

    /// The nodes that prove to be at an address, "host:port".
    ///
    /// # Errors
    /// Why nobody does.
    pub async fn who_is_at(&self, address: &str) -> Result<Vec<Peer>, String> {
        self.peers.at(address).await
    }

    /// What was done so far.
    pub fn stats(&self) -> Stats {
        self.counters.stats(self.peers.stats())
    }

    /// Refuses calls from now on, waits up to `patience` until those being served are answered, and ends. This
    /// process's own calls are cut off then. The services are forgotten.
    pub async fn close(&self, patience: Duration) {
        if timeout(patience, self.server.drain()).await.is_err() {
            tracing::info!("calls were still being served after {patience:?}");
        }
        self.endpoints.close();
        // Peers that have died cannot say goodbye.
        let _ = timeout(FAREWELL_TIME, self.endpoints.closed()).await;
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.services.close();
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.endpoints.close();
    }
}

impl Caller for Transport {
    fn call(&self, to: Peer, class: Class, call: Call, deadline: Duration) -> BoxFuture<'_, Result<Reply, CallError>> {
        let deadline = Instant::now() + deadline.min(DEADLINE_MAX);
        Box::pin(async move {
            let outcome = match check_call(to, call.header.len() as u64) {
                Err(error) => Err(CallError::Never(to, error.to_string())),
                Ok(()) if self.services.is_own(to) => {
                    self.counters.local_calls.add(1);
                    self.services.call(to, call, deadline).await
                }
                Ok(()) => {
                    self.counters.calls.add(1);
                    self.peers.call(to, class, call, deadline).await
                }
            };
            match &outcome {
                Ok(_) => {}
                Err(CallError::Never(..)) => self.counters.never.add(1),
                Err(CallError::Unknown(..)) => self.counters.unknown.add(1),
            }
            outcome
        })
    }
}
