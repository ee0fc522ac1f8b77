//! A node's handle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, timeout_at};

use super::Error;
use super::admission::Admission;
use super::applier::{Applier, ApplyStats, Fatal};
use super::barrier::Barrier;
use super::core::Core;
use super::found::{Founding, found};
use super::hold::Holds;
use super::log_store::LogStore;
use super::members::{self, MembersError};
use super::message::{PeerStatus, WireLevels};
use super::network::Wire;
use super::open::{Opened, Options, Soundness, applied_id, check, open_files, raft_config, raise_vote, replica};
use super::propose::is_remembered;
use super::read::Unconfirmed;
use super::service::Desk;
use super::state_machine::StateMachine;
use super::types::{Command, Member, Membership};
use super::{encoding, learn, level, reach, trim};
use crate::catalog::{Envelope, Ledger, LedgerError, Outcome, Readers};
use crate::ids::{LogIndex, NodeId};
use crate::log::{self, Log};
use crate::transport::{Caller, Service};

/// A member of the cluster: its log, its catalog, and its part in Raft. Clones are the same node.
#[derive(Clone)]
pub struct Raft {
    inner: Arc<Inner>,
}

/// What a node is, whether it takes part in Raft or not.
pub(super) struct Inner {
    node: NodeId,
    founders: Vec<u64>,
    log: Log,
    applier: Applier,
    apply_thread: Mutex<Option<JoinHandle<()>>>,
    /// As the log's mark said at the start.
    had_peers: bool,
    /// Or why this node only serves reads, if these.
    active: Result<Active, &'static str>,
}

/// A part in Raft.
pub(super) struct Active {
    pub(super) core: Core,
    /// Rounds of whoever leads.
    barrier: Barrier,
    /// Rounds of this node as the leader, for others.
    pub(super) leading: Barrier,
}

const LOST: &str = "the log has lost acknowledged entries; run `s3d recover` to accept the loss";
const STRANGER: &str = "the cluster knows this node by a log that it has lost; remove it, empty it, and add it again";

/// What part a node has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It orders what is proposed.
    Leader,
    /// It votes, and follows a leader or waits for one.
    Follower,
    /// It votes, and asks to lead.
    Candidate,
    /// It follows without a vote; so does a node that waits to be added.
    Learner,
    /// It takes no part: it only serves reads, or has stopped.
    Apart,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Leader => "leader",
            State::Follower => "follower",
            State::Candidate => "candidate",
            State::Learner => "learner",
            State::Apart => "apart",
        })
    }
}

impl From<openraft::ServerState> for State {
    fn from(state: openraft::ServerState) -> State {
        match state {
            openraft::ServerState::Leader => State::Leader,
            openraft::ServerState::Follower => State::Follower,
            openraft::ServerState::Candidate => State::Candidate,
            openraft::ServerState::Learner => State::Learner,
            openraft::ServerState::Shutdown => State::Apart,
        }
    }
}

/// How a node stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Which node.
    pub node: NodeId,
    /// Whether it only serves reads, because its log has lost acknowledged entries.
    pub read_only: bool,
    /// What part it has.
    pub state: State,
    /// Raft's term.
    pub term: u64,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The last entry in the log.
    pub last_index: Option<u64>,
    /// The last entry known to be committed.
    pub committed_index: Option<u64>,
    /// The last entry applied to the catalog.
    pub applied_index: Option<u64>,
    /// The first entry that is still in the log.
    pub first_index: u64,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Every member and its address.
    pub members: BTreeMap<NodeId, String>,
    /// The catalog's feature level.
    pub feature_level: u32,
    /// Commands on their way, bytes.
    pub queued_bytes: u64,
    /// The log's counters.
    pub log: log::Stats,
    /// The catalog's.
    pub apply: ApplyStats,
}

impl Raft {
    /// Opens the node in `options.dir`; an empty directory becomes what `options.founding` says. Peers are reached
    /// through `caller`, and reach this node through [`Raft::service`]. Returns before there is a leader: proposals and
    /// barriers wait for one.
    ///
    /// # Errors
    /// What was found cannot be used: see [`Error`]. A log that has lost entries is no error: the node is read-only.
    pub async fn open(options: Options, caller: Arc<dyn Caller>) -> Result<Raft, Error> {
        let for_files = options.clone();
        let opened = tokio::task::spawn_blocking(move || open_files(&for_files));
        let opened = opened.await.map_err(std::io::Error::other)??;
        members::tell(&options.on_member, options.founding.addresses().map(|(node, address)| (node.0, address)));
        let Opened { catalog, log, recovery, soundness, scratch, timing } = opened;
        let (applier, apply_thread) = Applier::spawn(catalog, options.fatal.clone())?;
        let mut inner = Inner {
            node: options.node,
            founders: options.founding.nodes(),
            log,
            applier,
            apply_thread: Mutex::new(Some(apply_thread)),
            had_peers: encoding::decode_mark(&recovery.mark)?.has_peers,
            active: Err(LOST),
        };
        members::tell(&options.on_member, members::addresses(&inner.stored_membership()));
        if soundness != Soundness::Lost {
            let ground = Ground { recovery, soundness, scratch, timing };
            inner.active = activate(&options, &inner, ground, caller).await?;
        }
        Ok(Raft { inner: Arc::new(inner) })
    }

    /// What this node answers to its peers.
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::new(Desk::new(self.inner.clone()))
    }

    /// Makes `node`, which runs at `address` and waits for it, a voter: first it learns, and this returns once it has
    /// caught up and votes. Done before: nothing happens.
    ///
    /// # Errors
    /// See [`MembersError`]; it may be repeated after any of them.
    pub async fn add_db(&self, node: NodeId, address: &str) -> Result<(), MembersError> {
        let active = self.inner.active().map_err(|why| MembersError::Refused(why.into()))?;
        active.core.add_db(node.0, address).await
    }

    /// Takes `node` out of the cluster. Done before: nothing happens.
    ///
    /// # Errors
    /// See [`MembersError`]; it may be repeated after any of them. `Refused`: the voters that remain could not go on.
    pub async fn remove_db(&self, node: NodeId) -> Result<(), MembersError> {
        let active = self.inner.active().map_err(|why| MembersError::Refused(why.into()))?;
        active.core.remove_db(node.0).await
    }

    /// The members that this node has heard from lately, itself among them, while it leads; otherwise nobody.
    pub fn heard_from(&self) -> BTreeSet<NodeId> {
        let Ok(active) = &self.inner.active else { return BTreeSet::new() };
        match active.core.leader() == Some(active.core.node) {
            true => active.core.heard_from().into_iter().map(NodeId).collect(),
            false => BTreeSet::new(),
        }
    }

    /// How the node stands now.
    pub fn status(&self) -> Status {
        let inner = &*self.inner;
        let applied = inner.applier.applied();
        let mut status = Status {
            node: inner.node,
            read_only: inner.active.is_err(),
            state: State::Apart,
            term: applied.position.map_or(0, |position| position.term),
            leader: None,
            last_index: inner.log.next_index().checked_sub(1),
            committed_index: None,
            applied_index: applied.position.map(|position| position.index),
            first_index: inner.log.first_index(),
            voters: BTreeSet::new(),
            members: BTreeMap::new(),
            feature_level: inner.applier.levels().reached,
            queued_bytes: 0,
            log: inner.log.stats(),
            apply: inner.applier.stats(),
        };
        match &inner.active {
            Ok(active) => status.add_metrics(&active.core),
            Err(_) => status.add_members(&inner.stored_membership()),
        }
        status
    }

    /// Proposes bytes that pass for a command.
    #[cfg(test)]
    pub(super) async fn propose_raw(&self, command: Command) -> Result<Outcome, LedgerError> {
        self.inner.propose(command, false).await
    }

    /// Ends once this node's last handle is gone and its catalog is closed.
    #[cfg(test)]
    pub(super) fn take_apply_thread(&self) -> Option<JoinHandle<()>> {
        self.inner.apply_thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Stops. A leader hands over first, and waits for that a little; what is under way ends as `Unknown` or
    /// `Unavailable`; log and catalog are closed when this returns.
    pub async fn shutdown(&self) {
        if let Ok(active) = &self.inner.active {
            active.core.hand_over().await;
            // It fails only for a core that has stopped already.
            let _ = active.core.raft.shutdown().await;
        }
        self.inner.applier.close().await;
        let inner = self.inner.clone();
        let closing = tokio::task::spawn_blocking(move || inner.close());
        if let Err(error) = closing.await {
            tracing::error!("the node did not close: {error}");
        }
    }
}

/// What opening has found beside the files.
struct Ground {
    recovery: log::Recovery,
    soundness: Soundness,
    scratch: std::path::PathBuf,
    timing: super::open::Timing,
}

async fn activate(
    options: &Options,
    inner: &Inner,
    Ground { recovery, soundness, scratch, timing }: Ground,
    caller: Arc<dyn Caller>,
) -> Result<Result<Active, &'static str>, Error> {
    let refused = |error: &dyn std::fmt::Display| Error::Raft(error.to_string());
    let mut store =
        LogStore::open(options.node.0, inner.log.clone(), &recovery.mark, Some(inner.applier.clone())).await?;
    let applied = applied_id(&inner.applier.applied());
    check(&inner.log, store.reader(), applied).await?;
    raise_vote(&mut store, applied).await?;
    let member = Member { address: options.address.clone(), replica: replica(&mut store, options, soundness).await? };
    let machine = StateMachine::new(inner.applier.clone(), Some(store.durable()), scratch.clone());
    let config = Arc::new(raft_config(&timing).validate().map_err(|error| refused(&error))?);
    let node = options.node.0;
    let holds = Holds::default();
    let wire = Wire { caller: caller.clone(), node, scratch: scratch.clone(), holds: holds.clone() };
    let opened = openraft::Raft::new(node, config, wire, store, machine).await;
    let core = Core {
        raft: opened.map_err(|error| refused(&error))?,
        applier: inner.applier.clone(),
        admission: Admission::new(options.queue_len_bytes),
        caller,
        node,
        member,
        had_peers: inner.had_peers,
        timeout: options.timeout,
        silence: timing.election.end,
        scratch,
        holds,
        on_member: options.on_member.clone(),
        changing: Arc::default(),
        alone: Arc::new(AtomicBool::new(false)),
    };
    // Once the core answers anything, its metrics say what it has read.
    core.raft.is_initialized().await.map_err(|error| refused(&error))?;
    if core.is_stranger(options.founding.is_learner()) {
        // It fails only for a core that has stopped already.
        let _ = core.raft.shutdown().await;
        return Ok(Err(STRANGER));
    }
    start(core, options, inner).await.map(Ok).map_err(|error| refused(&error))
}

/// Ends the process when openraft's core has ended by itself, after an error or a panic: it would serve nothing any more
/// and not say so, while the next start recovers.
fn watch(core: &Core, fatal: Fatal) {
    let mut metrics = core.raft.metrics();
    tokio::spawn(async move {
        loop {
            let state = metrics.borrow_watched().running_state.clone();
            match state {
                Ok(()) => {}
                Err(openraft::errors::Fatal::Stopped) => return,
                Err(error) => return fatal(&format!("raft has ended: {error}")),
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    });
}

async fn start(
    core: Core,
    options: &Options,
    inner: &Inner,
) -> Result<Active, Box<dyn std::error::Error + Send + Sync>> {
    core.begin().await?;
    found(&core, options).await?;
    tokio::spawn(core.clone().tick());
    tokio::spawn(core.clone().tell_members());
    tokio::spawn(level::keep_raising(core.clone()));
    tokio::spawn(reach::keep_looking(core.clone()));
    tokio::spawn(trim::run(core.clone(), inner.log.clone(), options.limits()));
    watch(&core, options.fatal.clone());
    if let Founding::Learn(told) = &options.founding {
        tokio::spawn(learn::keep_place(core.clone(), told.keys().map(|voter| voter.0).collect()));
    }
    let (anywhere, here) = (core.clone(), core.clone());
    let barrier = Barrier::spawn(move || {
        let core = anywhere.clone();
        async move { core.confirmed().await }
    });
    let leading = Barrier::spawn(move || {
        let core = here.clone();
        async move {
            let confirmed = tokio::time::timeout(core.timeout, core.confirm_here()).await;
            confirmed.unwrap_or_else(|_| Err(Unconfirmed::Later("no quorum in time".into())))
        }
    });
    Ok(Active { core, barrier, leading })
}

impl Inner {
    pub(super) fn active(&self) -> Result<&Active, &'static str> {
        self.active.as_ref().map_err(|why| *why)
    }

    /// Waits for the threads. Blocking.
    fn close(&self) {
        let thread = self.apply_thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A thread that panicked has called the fatal hook.
        let _ = thread.map(JoinHandle::join);
        self.log.close();
    }

    /// Whether no other node votes, for all that is left of catalog and log. A catalog may be of before there were others,
    /// but then the log knows.
    fn is_alone(&self) -> bool {
        self.stored_membership().voter_ids().eq([self.node.0]) && !self.had_peers
    }

    fn stored_membership(&self) -> Membership {
        let stored = encoding::decode_membership(&self.applier.applied().membership).unwrap_or_default();
        stored.membership().clone()
    }

    /// What this node's program knows, and what its catalog has reached, for its peers.
    pub(super) fn levels(&self) -> WireLevels {
        let levels = self.applier.levels();
        (levels.known, levels.reached)
    }

    /// How this node stands, for its peers. A node that takes no part is as good as part of a cluster: it is no new one.
    pub(super) async fn peer_status(&self) -> PeerStatus {
        let mut status = PeerStatus {
            node: self.node.0,
            replica: 0,
            initialised: true,
            founders: self.founders.clone(),
            last_index: self.log.next_index().checked_sub(1),
            applied_index: self.applier.position().map(|position| position.index),
            ..PeerStatus::default()
        };
        let membership = match &self.active {
            Ok(Active { core, .. }) => {
                let metrics = core.metrics();
                (status.term, status.leader) = (metrics.current_term, metrics.current_leader);
                status.replica = core.member.replica;
                status.initialised = core.raft.is_initialized().await.unwrap_or(true);
                metrics.membership_config.membership().clone()
            }
            Err(_) => self.stored_membership(),
        };
        status.voters = membership.voter_ids().collect();
        let members = membership.nodes().map(|(id, member)| (*id, member.address.clone(), member.replica));
        status.members = members.collect();
        status
    }

    async fn propose(&self, command: Command, is_remembered: bool) -> Result<Outcome, LedgerError> {
        let active = self.active().map_err(|why| LedgerError::Unavailable(why.into()))?;
        active.core.propose(command, is_remembered).await
    }

    async fn barrier(&self) -> Result<LogIndex, LedgerError> {
        let active = match self.active() {
            Ok(active) => active,
            // Nobody else can have acknowledged anything that a sole voter has not.
            Err(_) if self.is_alone() => {
                return Ok(LogIndex(self.applier.position().map_or(0, |position| position.index)));
            }
            Err(why) => return Err(LedgerError::Unavailable(why.into())),
        };
        let core = &active.core;
        if let Some(index) = core.applied_alone() {
            return Ok(index);
        }
        let deadline = Instant::now() + core.timeout;
        let confirmed = match timeout_at(deadline, active.barrier.pass()).await {
            Ok(confirmed) => confirmed,
            Err(_) => Err(Unconfirmed::Later("no confirmation in time".into())),
        };
        let index = confirmed.map_err(|error| LedgerError::Unavailable(error.to_string()))?;
        core.applied_to(index, deadline).await
    }
}

impl Ledger for Raft {
    fn propose(&self, envelope: Envelope) -> BoxFuture<'_, Result<Outcome, LedgerError>> {
        self.inner.propose(Command(envelope.encode().into()), is_remembered(&envelope)).boxed()
    }

    fn barrier(&self) -> BoxFuture<'_, Result<LogIndex, LedgerError>> {
        self.inner.barrier().boxed()
    }

    fn readers(&self) -> &Readers {
        self.inner.applier.readers()
    }

    fn leads(&self) -> bool {
        self.inner.active.as_ref().is_ok_and(|active| active.core.leader() == Some(active.core.node))
    }
}

impl Status {
    /// Where the leader is; None: there is none, or it has no address.
    pub fn leader_address(&self) -> Option<&str> {
        self.leader
            .and_then(|leader| self.members.get(&leader))
            .map(String::as_str)
            .filter(|address| !address.is_empty())
    }

    fn add_metrics(&mut self, core: &Core) {
        self.queued_bytes = core.admission.taken_bytes();
        let metrics = core.raft.metrics();
        let metrics = metrics.borrow_watched();
        self.state = metrics.state.into();
        self.term = metrics.current_term;
        self.leader = metrics.current_leader.map(NodeId);
        self.committed_index = metrics.local_committed.map(|id| id.index);
        self.add_members(metrics.membership_config.membership());
    }

    fn add_members(&mut self, membership: &Membership) {
        self.voters = membership.voter_ids().map(NodeId).collect();
        self.members = membership.nodes().map(|(id, member)| (NodeId(*id), member.address.clone())).collect();
    }
}
