//! Connections to other processes: one for each address and class, made when first needed, and again when lost.
//!
//! ```text
//! Idle --call--> Dialing --proven and greeted--> Up --lost, and a call--> Dialing
//!                   \-----failed--> Down --a call after the pause--> Dialing
//! ```
//!
//! Invariants
//! - A dial belongs to nobody: all who wait share it, and it goes on when they go.
//! - While a link is down calls fail at once, with what the last dial met; the pause between dials grows up to
//!   [`PAUSE_MAX`].
//! - A link is up only once the other side has answered a greeting: TLS alone lets a client believe in a connection that
//!   the server is about to refuse.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::select_ok;
use quinn::Connection;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::counters::{Counter, Counters, LinkStats};
use super::frame::{Frame, Message};
use super::identity::proven_peers;
use super::message::{Broken, Receiver, Sender};
use super::quic::Endpoints;
use super::{Body, Call, CallError, Class, Peer, Reply};
use crate::env::Env;

/// One dial takes no longer, names looked up and all.
const DIAL_TIME: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried, at once.
const ADDRESSES_MAX: usize = 4;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Where the nodes are: "host:port" of each, its name resolved at every dial.
#[derive(Default, Debug)]
pub struct AddressBook {
    pages: RwLock<Pages>,
}

/// What the configuration or the catalog tell, and what was heard since, which wins.
#[derive(Default, Debug)]
struct Pages {
    told: BTreeMap<Peer, String>,
    heard: BTreeMap<Peer, String>,
}

impl AddressBook {
    /// `peer` is at `address`: "host:port", unless it was heard to be elsewhere.
    pub fn set(&self, peer: Peer, address: impl Into<String>) {
        self.write().told.insert(peer, address.into());
    }

    /// `peer` is at `address`, whatever is told.
    pub fn hear(&self, peer: Peer, address: impl Into<String>) {
        self.write().heard.insert(peer, address.into());
    }

    /// `peer` is where it is told to be.
    pub fn forget(&self, peer: Peer) {
        self.write().heard.remove(&peer);
    }

    /// `peer` is nowhere.
    pub fn remove(&self, peer: Peer) {
        let mut pages = self.write();
        pages.told.remove(&peer);
        pages.heard.remove(&peer);
    }

    /// Where `peer` is.
    pub fn get(&self, peer: Peer) -> Option<String> {
        let pages = self.read();
        pages.heard.get(&peer).or_else(|| pages.told.get(&peer)).cloned()
    }

    fn has(&self, address: &str) -> bool {
        let pages = self.read();
        pages.heard.values().chain(pages.told.values()).any(|known| known == address)
    }

    fn read(&self) -> RwLockReadGuard<'_, Pages> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.pages.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromIterator<(Peer, String)> for AddressBook {
    fn from_iter<I: IntoIterator<Item = (Peer, String)>>(addresses: I) -> Self {
        let told = addresses.into_iter().collect();
        AddressBook { pages: RwLock::new(Pages { told, heard: BTreeMap::new() }) }
    }
}

/// All links of a process.
pub(super) struct Peers {
    book: Arc<AddressBook>,
    endpoints: Arc<Endpoints>,
    counters: Arc<Counters>,
    env: Env,
    links: Mutex<HashMap<(String, Class), Arc<Link>>>,
    next_id: AtomicU32,
}

impl Peers {
    pub(super) fn new(book: Arc<AddressBook>, endpoints: Arc<Endpoints>, counters: Arc<Counters>, env: Env) -> Peers {
        Peers { book, endpoints, counters, env, links: Mutex::default(), next_id: AtomicU32::new(0) }
    }

    /// Calls a service of another process.
    pub(super) async fn call(&self, to: Peer, class: Class, call: Call, deadline: Instant) -> Result<Reply, CallError> {
        let never = |reason: String| CallError::Never(to, reason);
        let link = self.link(to, class).ok_or_else(|| never("the address book does not have it".to_owned()))?;
        let opened = timeout_at(deadline, link.open(to, self)).await;
        let opened = opened.map_err(|_| never("no connection before the deadline".to_owned()))?;
        let (sender, receiver) = opened.map_err(never)?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let unknown = |reason: String| CallError::Unknown(to, reason);
        let answered = timeout_at(deadline, exchange(to, class, call, id, deadline, sender, receiver)).await;
        match answered {
            Ok(Ok(Answer::Reply(reply))) => Ok(reply),
            Ok(Ok(Answer::Refusal(reason))) => Err(never(reason)),
            Ok(Err(broken)) => Err(unknown(broken.to_string())),
            Err(_) => Err(unknown("the deadline has passed".to_owned())),
        }
    }

    fn link(&self, to: Peer, class: Class) -> Option<Arc<Link>> {
        Some(self.link_to(self.book.get(to)?, class))
    }

    fn link_to(&self, address: String, class: Class) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&(address.clone(), class)) {
            return Arc::clone(link);
        }
        links.retain(|(address, _), _| self.book.has(address));
        let link = Arc::new(Link::new(address.clone()));
        links.insert((address, class), Arc::clone(&link));
        link
    }

    /// Who proves to be at an address.
    pub(super) async fn at(&self, address: &str) -> Result<Vec<Peer>, String> {
        let up = self.link_to(address.to_owned(), Class::Urgent).up(self).await?;
        Ok(up.peers.clone())
    }

    pub(super) fn stats(&self) -> Vec<LinkStats> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().map(|((_, class), link)| link.stats(*class)).collect()
    }
}

/// A way to one process.
struct Link {
    address: String,
    state: watch::Sender<State>,
    connects: Counter,
    failures: Counter,
}

enum State {
    Idle,
    Dialing { failed_before: u32 },
    Up(Arc<Up>),
    Down { reason: String, until: Instant, failed: u32 },
}

struct Up {
    connection: Connection,
    peers: Vec<Peer>,
}

/// What a call has to do next.
enum Step {
    Use(Arc<Up>),
    Fail(String),
    Wait,
}

impl Link {
    fn new(address: String) -> Link {
        let (state, _) = watch::channel(State::Idle);
        Link { address, state, connects: Counter::default(), failures: Counter::default() }
    }

    /// A stream to `to`, of which nothing is sent yet.
    async fn open(self: &Arc<Self>, to: Peer, peers: &Peers) -> Result<(Sender, Receiver), String> {
        loop {
            let up = self.up(peers).await?;
            if !up.peers.contains(&to) {
                return Err(format!("{} is not that node: it has proven to be {:?}", self.address, up.peers));
            }
            // No stream is opened only on a connection that is lost: then the next one.
            if let Ok((send, receive)) = up.connection.open_bi().await {
                let counters = &peers.counters;
                return Ok((Sender::new(send, Arc::clone(counters)), Receiver::new(receive, Arc::clone(counters))));
            }
        }
    }

    async fn up(self: &Arc<Self>, peers: &Peers) -> Result<Arc<Up>, String> {
        let mut changes = self.state.subscribe();
        loop {
            match self.step(peers) {
                Step::Use(up) => return Ok(up),
                Step::Fail(reason) => return Err(reason),
                // Its sender is ours: it does not end before us.
                Step::Wait => _ = changes.changed().await,
            }
        }
    }

    fn step(self: &Arc<Self>, peers: &Peers) -> Step {
        let mut step = Step::Wait;
        self.state.send_if_modified(|state| {
            let failed_before = match state {
                State::Dialing { .. } => return false,
                State::Up(up) if up.connection.close_reason().is_none() => {
                    step = Step::Use(Arc::clone(up));
                    return false;
                }
                State::Down { reason, until, .. } if Instant::now() < *until => {
                    step = Step::Fail(reason.clone());
                    return false;
                }
                State::Down { failed, .. } => *failed,
                State::Up(_) | State::Idle => 0,
            };
            *state = State::Dialing { failed_before };
            let dial =
                Arc::clone(self).dial(Arc::clone(&peers.endpoints), Arc::clone(&peers.counters), peers.env.clone());
            tokio::spawn(dial);
            true
        });
        step
    }

    async fn dial(self: Arc<Self>, endpoints: Arc<Endpoints>, counters: Arc<Counters>, env: Env) {
        let dialled = timeout(DIAL_TIME, dial_any(&self.address, &endpoints, &counters)).await;
        let dialled = dialled.unwrap_or_else(|_| Err(format!("{}: no answer", self.address)));
        let next = match dialled {
            Ok(up) => {
                self.connects.add(1);
                tracing::info!("connected to {} as {:?}", self.address, up.peers);
                State::Up(Arc::new(up))
            }
            Err(reason) => {
                self.failures.add(1);
                self.down(reason, &env)
            }
        };
        // Only a dial ends the state of dialling, and there is one at a time.
        self.state.send_replace(next);
    }

    fn down(&self, reason: String, env: &Env) -> State {
        let failed_before = match &*self.state.borrow() {
            State::Dialing { failed_before } => *failed_before,
            _ => 0,
        };
        if failed_before == 0 {
            tracing::warn!("not connected: {reason}");
        }
        let until = Instant::now() + pause(failed_before, env.random_u64());
        State::Down { reason, until, failed: failed_before.saturating_add(1) }
    }

    fn stats(&self, class: Class) -> LinkStats {
        let up = match &*self.state.borrow() {
            State::Up(up) if up.connection.close_reason().is_none() => Some(Arc::clone(up)),
            _ => None,
        };
        let path = up.as_ref().map(|up| up.connection.stats().path);
        LinkStats {
            address: self.address.clone(),
            class,
            peers: up.map(|up| up.peers.clone()).unwrap_or_default(),
            rtt: path.map(|path| path.rtt),
            mtu_bytes: path.map_or(0, |path| path.current_mtu),
            sent_packets: path.map_or(0, |path| path.sent_packets),
            lost_packets: path.map_or(0, |path| path.lost_packets),
            connects: self.connects.get(),
            failures: self.failures.get(),
        }
    }
}

/// How long to leave a peer alone that did not answer `failed_before` times before: doubled each time, less up to a half.
fn pause(failed_before: u32, random: u64) -> Duration {
    let whole = PAUSE_MIN.saturating_mul(1 << failed_before.min(16)).min(PAUSE_MAX);
    whole.mul_f64(1.0 - (random % 512) as f64 / 1024.0)
}

/// Dials all addresses of a name; the first that answers it is.
async fn dial_any(address: &str, endpoints: &Endpoints, counters: &Arc<Counters>) -> Result<Up, String> {
    let resolved = tokio::net::lookup_host(address).await.map_err(|error| format!("{address}: {error}"))?;
    let dials = resolved.take(ADDRESSES_MAX).map(|resolved| dial_one(address, resolved, endpoints, counters).boxed());
    let dials: Vec<_> = dials.collect();
    if dials.is_empty() {
        return Err(format!("{address}: the name has no address"));
    }
    select_ok(dials).await.map(|(up, _)| up)
}

async fn dial_one(
    address: &str,
    resolved: SocketAddr,
    endpoints: &Endpoints,
    counters: &Arc<Counters>,
) -> Result<Up, String> {
    let failed = |error: &dyn std::error::Error| format!("{address} ({resolved}): {error}");
    let connection = endpoints.dial(resolved).map_err(|error| failed(&error))?.await.map_err(|error| failed(&error))?;
    greet(&connection, counters).await.map_err(|error| failed(&error))?;
    Ok(Up { peers: proven_peers(&connection), connection })
}

async fn greet(connection: &Connection, counters: &Arc<Counters>) -> Result<(), Broken> {
    let (send, receive) = connection.open_bi().await.map_err(quinn::WriteError::from)?;
    let (mut sender, mut receiver) =
        (Sender::new(send, Arc::clone(counters)), Receiver::new(receive, Arc::clone(counters)));
    sender.send(Message::Hello, 0, Bytes::new(), Body::empty()).await?;
    match receiver.frame().await? {
        Frame { message: Message::Hello, .. } => Ok(()),
        _ => Err(Broken::Unasked),
    }
}

enum Answer {
    Reply(Reply),
    Refusal(String),
}

/// Sends a call and takes its answer, both at once: a service may answer before it has the whole body.
async fn exchange(
    to: Peer,
    class: Class,
    call: Call,
    id: u32,
    deadline: Instant,
    mut sender: Sender,
    mut receiver: Receiver,
) -> Result<Answer, Broken> {
    let left = deadline.saturating_duration_since(Instant::now());
    let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
    let message = Message::Call { to, class, method: call.method, deadline_ms };
    let mut sending = async move { sender.send(message, id, call.header, call.body).await }.boxed();
    let mut is_sent = false;
    let frame = {
        let answer = receiver.frame();
        tokio::pin!(answer);
        loop {
            tokio::select! {
                biased;
                sent = &mut sending, if !is_sent => match sent {
                    // Stopped: the service has no need of the rest. The answer tells why.
                    Ok(()) | Err(Broken::Write(quinn::WriteError::Stopped(_))) => is_sent = true,
                    Err(error) => return Err(error),
                },
                frame = &mut answer => break frame?,
            }
        }
    };
    let status = match frame.message {
        Message::Reply { status } if frame.id == id => status,
        Message::Refusal(refusal) if frame.id == id => return Ok(Answer::Refusal(refusal.to_string())),
        _ => return Err(Broken::Unasked),
    };
    // A reply may be made from what is still being sent.
    let rest = (!is_sent && frame.body_len_bytes > 0).then(|| Sending(tokio::spawn(sending).abort_handle()));
    let (header, body) = receiver.content(&frame, deadline, rest).await?;
    Ok(Answer::Reply(Reply { status, header, body }))
}

/// The rest of a call's body on its way; dropped, it is no longer.
struct Sending(AbortHandle);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_end() {
        let longest: Vec<u128> = [0, 1, 4, 5, 16, u32::MAX].map(|failed| pause(failed, 0).as_millis()).into();
        assert_eq!(longest, [50, 100, 800, 1000, 1000, 1000]);
        assert!(pause(0, 511) > PAUSE_MIN / 2);
    }
}
