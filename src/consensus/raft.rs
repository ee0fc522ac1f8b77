//! A node's handle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use tokio::time::{Instant, timeout_at};

use super::Error;
use super::admission::{Admission, Proposed};
use super::applier::{Applier, ApplyStats};
use super::barrier::Barrier;
use super::log_store::LogStore;
use super::network::Network;
use super::open::{Opened, Options, applied_id, check, open_files, raft_config, raise_vote};
use super::state_machine::StateMachine;
use super::types::{Command, Membership, TypeConfig};
use super::{encoding, trim};
use crate::catalog::{Envelope, Ledger, LedgerError, Outcome, Readers};
use crate::ids::{LogIndex, NodeId};
use crate::log::{self, Log};

/// A longer command is refused: a log record and a transaction have bounds.
const COMMAND_MAX_LEN: usize = 4 << 20;
/// Between two tries while there is no leader.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A member of the cluster: its log, its catalog, and its part in Raft. Clones are the same node.
#[derive(Clone)]
pub struct Raft {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    log: Log,
    applier: Applier,
    apply_thread: Mutex<Option<JoinHandle<()>>>,
    /// None on a node that only serves reads.
    active: Option<Active>,
}

struct Active {
    core: Core,
    barrier: Barrier,
}

/// openraft's handle, what is behind it, and how long it may take.
#[derive(Clone)]
pub(super) struct Core {
    pub(super) raft: openraft::Raft<TypeConfig, StateMachine>,
    applier: Applier,
    admission: Admission,
    pub(super) timeout: Duration,
}

/// How a node stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Which node.
    pub node: NodeId,
    /// Whether it only serves reads, because its log has lost acknowledged entries.
    pub read_only: bool,
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
    /// Commands on their way, bytes.
    pub queued_bytes: u64,
    /// The log's counters.
    pub log: log::Stats,
    /// The catalog's.
    pub apply: ApplyStats,
}

impl Raft {
    /// Opens the node in `options.dir`; an empty directory becomes a cluster of one voter if `options.bootstrap`.
    /// Returns before there is a leader: proposals and barriers wait for one.
    ///
    /// # Errors
    /// What was found cannot be used: see [`Error`]. A log that has lost entries is no error: the node is read-only.
    pub async fn open(options: Options, network: impl Network) -> Result<Raft, Error> {
        let for_files = options.clone();
        let opened = tokio::task::spawn_blocking(move || open_files(&for_files));
        let Opened { catalog, log, recovery, writable, scratch } = opened.await.map_err(std::io::Error::other)??;
        let (applier, apply_thread) = Applier::spawn(catalog, options.fatal.clone())?;
        let mut inner = Inner {
            node: options.node,
            log: log.clone(),
            applier: applier.clone(),
            apply_thread: Mutex::new(Some(apply_thread)),
            active: None,
        };
        if writable {
            let store = LogStore::open(log, &recovery.mark, Some(applier.clone())).await?;
            let machine = StateMachine::new(applier, Some(store.durable()), scratch);
            inner.active = Some(activate(&options, &inner, store, machine, network).await?);
        }
        Ok(Raft { inner: Arc::new(inner) })
    }

    /// How the node stands now.
    pub fn status(&self) -> Status {
        let inner = &*self.inner;
        let applied = inner.applier.applied();
        let mut status = Status {
            node: inner.node,
            read_only: inner.active.is_none(),
            term: applied.position.map_or(0, |position| position.term),
            leader: None,
            last_index: inner.log.next_index().checked_sub(1),
            committed_index: None,
            applied_index: applied.position.map(|position| position.index),
            first_index: inner.log.first_index(),
            voters: BTreeSet::new(),
            members: BTreeMap::new(),
            queued_bytes: 0,
            log: inner.log.stats(),
            apply: inner.applier.stats(),
        };
        match &inner.active {
            Some(active) => status.add_metrics(&active.core),
            None => {
                let stored = encoding::decode_membership(&applied.membership).unwrap_or_default();
                status.add_members(stored.membership());
            }
        }
        status
    }

    /// Proposes bytes that pass for a command.
    #[cfg(test)]
    pub(super) async fn propose_raw(&self, command: Command) -> Result<Outcome, LedgerError> {
        self.inner.propose(command).await
    }

    /// Stops: what is under way ends as `Unknown` or `Unavailable`; log and catalog are closed when this returns.
    pub async fn shutdown(&self) {
        if let Some(active) = &self.inner.active {
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

async fn activate(
    options: &Options,
    inner: &Inner,
    mut store: LogStore,
    machine: StateMachine,
    network: impl Network,
) -> Result<Active, Error> {
    let refused = |error: &dyn std::fmt::Display| Error::Raft(error.to_string());
    let applied = applied_id(&inner.applier.applied());
    check(&inner.log, store.reader(), applied).await?;
    raise_vote(&mut store, applied).await?;
    let config = Arc::new(raft_config().validate().map_err(|error| refused(&error))?);
    let opened = openraft::Raft::new(options.node.0, config, network, store, machine).await;
    let raft = opened.map_err(|error| refused(&error))?;
    let admission = Admission::new(options.queue_len_bytes);
    let core = Core { raft, applier: inner.applier.clone(), admission, timeout: options.timeout };
    core.begin(options).await.map_err(|error| refused(&error))?;
    tokio::spawn(trim::run(core.clone(), inner.log.clone(), options.limits()));
    Ok(Active { barrier: Barrier::spawn(core.clone()), core })
}

impl Inner {
    /// Waits for the threads. Blocking.
    fn close(&self) {
        let thread = self.apply_thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A thread that panicked has called the fatal hook.
        let _ = thread.map(JoinHandle::join);
        self.log.close();
    }

    async fn propose(&self, command: Command) -> Result<Outcome, LedgerError> {
        match &self.active {
            Some(active) => active.core.propose(command).await,
            None => Err(LedgerError::Unavailable(
                "the log has lost acknowledged entries; run `s3d recover` to accept the loss".into(),
            )),
        }
    }

    async fn barrier(&self) -> Result<LogIndex, LedgerError> {
        match &self.active {
            Some(active) => match active.core.applied_alone() {
                Some(index) => Ok(index),
                None => active.barrier.pass().await,
            },
            None => Ok(LogIndex(self.applier.applied().position.map_or(0, |position| position.index))),
        }
    }
}

impl Ledger for Raft {
    fn propose(&self, envelope: Envelope) -> BoxFuture<'_, Result<Outcome, LedgerError>> {
        self.inner.propose(Command(envelope.encode().into())).boxed()
    }

    fn barrier(&self) -> BoxFuture<'_, Result<LogIndex, LedgerError>> {
        self.inner.barrier().boxed()
    }

    fn readers(&self) -> &Readers {
        self.inner.applier.readers()
    }
}

impl Core {
    /// Founds a cluster where there is none and that is wanted; a sole voter elects itself at once, without ticks.
    async fn begin(&self, options: &Options) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if options.bootstrap && !self.raft.is_initialized().await? {
            let founder = BTreeMap::from([(options.node.0, options.member.clone())]);
            return Ok(self.raft.initialize(founder).await?);
        }
        if self.raft.voter_ids().eq([options.node.0]) {
            self.raft.trigger().elect(false).await?;
        } else {
            self.raft.runtime_config().tick(true);
        }
        Ok(())
    }

    async fn propose(&self, command: Command) -> Result<Outcome, LedgerError> {
        if command.0.len() > COMMAND_MAX_LEN {
            return Err(LedgerError::Unavailable(format!("a command of {} bytes is too long", command.0.len())));
        }
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.try_propose(command.clone(), deadline).await? {
                Ok(outcome) => return Ok(outcome),
                Err(forward) => await_leader(forward, deadline).await?,
            }
        }
    }

    /// One try; the inner error says that it was refused before the log.
    async fn try_propose(
        &self,
        command: Command,
        deadline: Instant,
    ) -> Result<Result<Outcome, ForwardToLeader<TypeConfig>>, LedgerError> {
        let unknown = |error: &dyn std::fmt::Display| LedgerError::Unknown(error.to_string());
        let (proposed, response) = Proposed::new(self.admission.admit(&command)?);
        let sent = self.raft.client_write_ff(command, Some(proposed)).await;
        sent.map_err(|error| LedgerError::Unavailable(error.to_string()))?;
        let answered = timeout_at(deadline, response).await.map_err(|_| unknown(&"no answer in time"))?;
        match answered.map_err(|_| unknown(&"the node stopped"))? {
            Ok(response) => Ok(Ok(response.data)),
            Err(ClientWriteError::ForwardToLeader(forward)) => Ok(Err(forward)),
            Err(error) => Err(unknown(&error)),
        }
    }

    /// How far this node has applied, where that is certain to be all that was acknowledged, without a round.
    ///
    /// As the only voter and leader, nobody else can acknowledge, and it does so itself after applying. What earlier
    /// terms acknowledged is applied once an entry of this term is.
    fn applied_alone(&self) -> Option<LogIndex> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leads = metrics.state.is_leader() && metrics.membership_config.membership().voter_ids().eq([metrics.id]);
        let applied = self.applier.position()?;
        (leads && applied.term == metrics.current_term).then_some(LogIndex(applied.index))
    }

    /// A ReadIndex round: how far this node has applied once it may serve linearizable reads.
    pub(super) async fn read_index(&self) -> Result<LogIndex, LedgerError> {
        let deadline = Instant::now() + self.timeout;
        let index = self.confirmed_index(deadline).await?;
        let applied = timeout_at(deadline, self.applier.reaches(index)).await.map_err(|_| too_slow())?;
        applied.map(LogIndex).map_err(|error| LedgerError::Unavailable(error.to_string()))
    }

    /// The last entry that may have been acknowledged anywhere, once a quorum confirms this node's lead.
    async fn confirmed_index(&self, deadline: Instant) -> Result<u64, LedgerError> {
        loop {
            let round = timeout_at(deadline, self.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
            match round.map_err(|_| too_slow())? {
                Ok(read_log_id) => return Ok(read_log_id.index()),
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                    await_leader(forward, deadline).await?;
                }
                Err(error) => return Err(LedgerError::Unavailable(error.to_string())),
            }
        }
    }
}

fn too_slow() -> LedgerError {
    LedgerError::Unavailable("no confirmation in time".into())
}

/// Pauses while there is no leader yet.
///
/// # Errors
/// `Unavailable`: another node leads, or none does in time.
async fn await_leader(forward: ForwardToLeader<TypeConfig>, deadline: Instant) -> Result<(), LedgerError> {
    match forward.leader_id {
        Some(leader) => Err(LedgerError::Unavailable(format!("node {leader} leads"))),
        None if Instant::now() >= deadline => Err(LedgerError::Unavailable("there is no leader".into())),
        None => {
            tokio::time::sleep(RETRY_PAUSE).await;
            Ok(())
        }
    }
}

impl Status {
    fn add_metrics(&mut self, core: &Core) {
        self.queued_bytes = core.admission.taken_bytes();
        let metrics = core.raft.metrics();
        let metrics = metrics.borrow_watched();
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
