//! A network within the process: calls are delayed, dropped and cut, one way or both, as a seed and a test say.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::{BoxFuture, pending};
use futures::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::ids::NodeId;
use crate::transport::{Body, Call, CallError, Caller, Class, Peer, Reply, Role, Service};

/// Heartbeats are shorter, and entries longer.
const SMALL_BYTES: usize = 64;

pub(super) fn db(node: u64) -> Peer {
    Peer { role: Role::Db, id: NodeId(node) }
}

/// The network. Nodes take seats in it.
pub(super) struct Net {
    state: Mutex<State>,
}

struct State {
    random: u64,
    seats: BTreeMap<u64, Seat>,
    cuts: BTreeSet<(u64, u64)>,
    delay_us: Range<u64>,
    drop_percent: u64,
    /// How long calls of a method to a node take in addition.
    slow: BTreeMap<(u64, u16), Duration>,
    /// Bodies that break off after their first piece, still.
    break_bodies: u64,
    calls: BTreeMap<u16, u64>,
}

#[derive(Clone)]
struct Seat {
    service: Arc<dyn Service>,
    runtime: Handle,
}

impl State {
    /// splitmix64
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// How long a message takes; None: it is lost.
    fn passage(&mut self, from: u64, to: u64) -> Option<Duration> {
        let (dice, delay) = (self.random() % 100, self.random());
        let delay_us = self.delay_us.start + delay % (self.delay_us.end - self.delay_us.start);
        let is_lost = self.cuts.contains(&(from, to)) || dice < self.drop_percent;
        (!is_lost).then(|| Duration::from_micros(delay_us))
    }
}

impl Net {
    /// The seed is printed, and taken from SIM_SEED if that is set.
    pub(super) fn new() -> Arc<Net> {
        let given = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| crate::env::Env::system().random_u64());
        eprintln!("seed {seed}");
        let state = State {
            random: seed,
            seats: BTreeMap::new(),
            cuts: BTreeSet::new(),
            delay_us: 50..500,
            drop_percent: 0,
            slow: BTreeMap::new(),
            break_bodies: 0,
            calls: BTreeMap::new(),
        };
        Arc::new(Net { state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn caller(self: &Arc<Net>, from: u64) -> Arc<dyn Caller> {
        Arc::new(SimCaller { net: self.clone(), from })
    }

    pub(super) fn seat(&self, node: u64, service: Arc<dyn Service>, runtime: Handle) {
        self.state().seats.insert(node, Seat { service, runtime });
    }

    pub(super) fn unseat(&self, node: u64) {
        self.state().seats.remove(&node);
    }

    /// Nothing passes from `from` to `to` any more.
    pub(super) fn cut(&self, from: u64, to: u64) {
        self.state().cuts.insert((from, to));
    }

    /// Nothing passes between `node` and the others.
    pub(super) fn isolate(&self, node: u64, others: impl IntoIterator<Item = u64>) {
        for other in others {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    pub(super) fn heal(&self) {
        self.state().cuts.clear();
    }

    pub(super) fn disturb(&self, delay_us: Range<u64>, drop_percent: u64) {
        let mut state = self.state();
        (state.delay_us, state.drop_percent) = (delay_us, drop_percent);
    }

    /// Calls of `method` to `node` take so much longer; heartbeats do not.
    pub(super) fn slow(&self, node: u64, method: u16, delay: Duration) {
        self.state().slow.insert((node, method), delay);
    }

    /// The next `count` bodies break off.
    pub(super) fn break_bodies(&self, count: u64) {
        self.state().break_bodies = count;
    }

    /// How many calls of the method were made.
    pub(super) fn calls(&self, method: u16) -> u64 {
        self.state().calls.get(&method).copied().unwrap_or(0)
    }

    async fn deliver(&self, from: u64, to: Peer, mut call: Call) -> Result<Reply, CallError> {
        let there = {
            let mut state = self.state();
            *state.calls.entry(call.method).or_default() += 1;
            if call.body.len_bytes > 0 && state.break_bodies > 0 {
                state.break_bodies -= 1;
                call.body = broken(call.body);
            }
            let is_small = call.header.len() < SMALL_BYTES && call.body.len_bytes == 0;
            let extra = state.slow.get(&(to.id.0, call.method)).filter(|_| !is_small).copied().unwrap_or_default();
            state.passage(from, to.id.0).map(|passage| passage + extra)
        };
        pass(there).await;
        let seat = self.state().seats.get(&to.id.0).cloned();
        let Some(Seat { service, runtime }) = seat else { return Err(CallError::Never(to, "nobody is there".into())) };
        let serving = runtime.spawn(async move { service.serve(&[db(from)], call).await });
        let reply = AbortOnDrop(serving).await.ok_or_else(|| CallError::Unknown(to, "it went away".into()))?;
        let back = self.state().passage(to.id.0, from);
        pass(back).await;
        Ok(reply)
    }
}

fn broken(body: Body) -> Body {
    let error = std::io::Error::other("the network broke");
    let stream = body.stream.take(1).chain(futures::stream::iter([Err(error)]));
    Body { len_bytes: body.len_bytes, stream: Box::pin(stream) }
}

async fn pass(passage: Option<Duration>) {
    match passage {
        Some(delay) => tokio::time::sleep(delay).await,
        None => pending().await,
    }
}

/// What is served ends with whoever asked.
struct AbortOnDrop(JoinHandle<Reply>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Future for AbortOnDrop {
    type Output = Option<Reply>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Reply>> {
        self.0.poll_unpin(cx).map(Result::ok)
    }
}

struct SimCaller {
    net: Arc<Net>,
    from: u64,
}

impl Caller for SimCaller {
    fn call(&self, to: Peer, _: Class, call: Call, deadline: Duration) -> BoxFuture<'_, Result<Reply, CallError>> {
        async move {
            match tokio::time::timeout(deadline, self.net.deliver(self.from, to, call)).await {
                Ok(result) => result,
                Err(_) => Err(CallError::Unknown(to, "no answer in time".into())),
            }
        }
        .boxed()
    }
}
