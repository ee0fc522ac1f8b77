//! This gateway's session: how commands are proposed at most once, how ids are had, how reads are kept safe.
//!
//! Invariants
//! - A command is proposed under one (session, sequence) until its outcome is known or given up on; a retry
//!   repeats both. `acked` never passes a sequence whose outcome is still awaited.
//! - An id is used under the session that leased it, never under a later one.
//! - An id range is retired when each of its ids was committed or abandoned; one whose fate is unknown keeps its
//!   range, so the sweep does not take its bytes while this session lives.
//! - A read is registered before its snapshot is taken, under an index that the snapshot cannot be older than;
//!   the watermark never passes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::catalog::{Command, Envelope, Ledger, LedgerError, Outcome, Refusal};
use crate::env::Env;
use crate::ids::{Ino, LogIndex, SessionId};

use super::Error;

/// Ids leased at a time.
const LEASE_COUNT: u32 = 4096;
/// When fewer ids than this are left, the next range is leased ahead.
const LEASE_AHEAD_COUNT: u64 = 1024;
/// Ranges retired with one renewal.
const RETIRE_COUNT: usize = 1000;
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The session and its successors, should it be lost.
pub(super) struct Session {
    env: Env,
    ledger: Arc<dyn Ledger>,
    gateway: String,
    patience: Duration,
    live: Mutex<Arc<Live>>,
    opening: tokio::sync::Mutex<()>,
    reads: Mutex<Reads>,
}

/// One session in the catalog.
struct Live {
    id: SessionId,
    state: Mutex<LiveState>,
    leasing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct LiveState {
    last_seq: u64,
    awaited: BTreeSet<u64>,
    ranges: Vec<IdRange>,
    retired: Vec<(Ino, Ino)>,
}

#[derive(Debug)]
struct IdRange {
    start: u64,
    end: u64,
    next: u64,
    resolved_count: u64,
}

#[derive(Default)]
struct Reads {
    /// Every snapshot taken from now on is at least this new.
    seen: LogIndex,
    running: BTreeMap<LogIndex, usize>,
}

/// Why a command has no outcome.
#[derive(Debug)]
pub(super) enum Lost {
    /// It did not happen and will not.
    Never(String),
    /// The same, because too much else is on its way.
    Overloaded,
    /// It may have happened.
    Unknown(String),
}

impl From<Lost> for Error {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Never(why) | Lost::Unknown(why) => Error::Unavailable(why),
            Lost::Overloaded => Error::Overloaded,
        }
    }
}

impl Session {
    /// Opens a session; it ends every earlier one of the same gateway.
    ///
    /// # Errors
    /// `Unavailable`: the catalog gave no session within `patience`.
    pub(super) async fn open(
        env: Env,
        ledger: Arc<dyn Ledger>,
        gateway: String,
        patience: Duration,
    ) -> Result<Arc<Self>, Error> {
        let id = open_session(&env, &*ledger, &gateway, patience).await?;
        Ok(Self::under(id, env, ledger, gateway, patience))
    }

    /// No session, for who only reads.
    pub(super) fn none(env: Env, ledger: Arc<dyn Ledger>, gateway: String, patience: Duration) -> Arc<Self> {
        Self::under(SessionId(0), env, ledger, gateway, patience)
    }

    fn under(id: SessionId, env: Env, ledger: Arc<dyn Ledger>, gateway: String, patience: Duration) -> Arc<Self> {
        Arc::new(Session {
            env,
            ledger,
            gateway,
            patience,
            live: Mutex::new(Arc::new(Live::new(id))),
            opening: tokio::sync::Mutex::default(),
            reads: Mutex::default(),
        })
    }

    /// Proposes a command that names no leased id, under whatever session is there.
    pub(super) async fn propose(&self, command: Command) -> Result<Outcome, Lost> {
        let live = self.live();
        match self.propose_under(&live, command.clone()).await {
            Err(Lost::Never(_)) if !Arc::ptr_eq(&live, &self.live()) => self.propose_under(&self.live(), command).await,
            answer => answer,
        }
    }

    /// Proposes a command that names no leased id, under this session or not at all: `Refused(NoSession)`.
    pub(super) async fn propose_as(&self, session: SessionId, command: Command) -> Result<Outcome, Lost> {
        let live = self.live();
        if live.id != session {
            return Ok(Outcome::Refused(Refusal::NoSession));
        }
        match self.propose_under(&live, command).await {
            Err(Lost::Never(_)) if !Arc::ptr_eq(&live, &self.live()) => Ok(Outcome::Refused(Refusal::NoSession)),
            answer => answer,
        }
    }

    /// Proposes a command that may be applied twice without harm, and whose outcome nobody asks for again.
    pub(super) async fn propose_repeatable(&self, command: Command) -> Result<Outcome, Lost> {
        let live = self.live();
        self.send(&live, 0, live.acked(), command).await
    }

    /// Proposes a command that names `ids`, all of them leased to the session that lives now.
    pub(super) async fn propose_with(
        &self,
        ids: impl Iterator<Item = &FreshId>,
        command: Command,
    ) -> Result<Outcome, Lost> {
        let live = self.live();
        for id in ids {
            if !Arc::ptr_eq(&id.live, &live) {
                return Err(Lost::Never("the session that leased the ids has ended".into()));
            }
        }
        self.propose_under(&live, command).await
    }

    async fn propose_under(&self, live: &Arc<Live>, command: Command) -> Result<Outcome, Lost> {
        let ticket = Ticket::new(live.clone());
        self.send(live, ticket.seq, ticket.acked, command).await
    }

    /// Sends until there is an outcome.
    async fn send(&self, live: &Arc<Live>, seq: u64, acked: u64, command: Command) -> Result<Outcome, Lost> {
        let envelope = Envelope { session: live.id, seq, acked, now: self.env.clock.now(), command };
        let deadline = self.env.clock.monotonic() + self.patience;
        let mut pause = RETRY_MIN;
        let mut unknown = false;
        loop {
            let why = match self.ledger.propose(envelope.clone()).await {
                Ok(Outcome::Refused(Refusal::NoSession)) => {
                    self.reopen(live).await;
                    let why = "the session has ended".to_owned();
                    return Err(if unknown { Lost::Unknown(why) } else { Lost::Never(why) });
                }
                Ok(outcome) => return Ok(outcome),
                Err(LedgerError::Unavailable(why)) if !unknown => return Err(Lost::Never(why)),
                Err(LedgerError::Overloaded) if !unknown => return Err(Lost::Overloaded),
                Err(error) => error.to_string(),
            };
            unknown = true;
            if self.env.clock.monotonic() >= deadline {
                return Err(Lost::Unknown(why));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Opens another session in place of `lost`, once for all who notice.
    async fn reopen(&self, lost: &Arc<Live>) {
        let _one_at_a_time = self.opening.lock().await;
        if !Arc::ptr_eq(lost, &self.live()) {
            return;
        }
        match open_session(&self.env, &*self.ledger, &self.gateway, self.patience).await {
            Ok(id) => {
                tracing::warn!(lost = %lost.id, opened = %id, "the session was lost");
                *lock(&self.live) = Arc::new(Live::new(id));
            }
            Err(error) => tracing::error!(lost = %lost.id, %error, "the session was lost and no other could be had"),
        }
    }

    /// A fresh id; it is abandoned unless it is committed.
    ///
    /// # Errors
    /// `Unavailable`: no ids could be leased.
    pub(super) async fn fresh_id(self: &Arc<Self>) -> Result<FreshId, Error> {
        for _ in 0..3 {
            let live = self.live();
            if let Some((ino, left_count)) = live.take_id() {
                self.lease_ahead(&live, left_count);
                return Ok(FreshId { live, ino, unresolved: true });
            }
            self.lease(&live).await?;
        }
        Err(Error::Unavailable("no ids could be leased".into()))
    }

    /// As [`Session::fresh_id`], so many.
    ///
    /// # Errors
    /// `Unavailable`: no ids could be leased.
    pub(super) async fn fresh_ids(self: &Arc<Self>, count: usize) -> Result<Vec<FreshId>, Error> {
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            ids.push(self.fresh_id().await?);
        }
        Ok(ids)
    }

    /// Leases a range before the last one is used up.
    fn lease_ahead(self: &Arc<Self>, live: &Arc<Live>, left_count: u64) {
        if left_count == LEASE_AHEAD_COUNT {
            let (session, live) = (self.clone(), live.clone());
            tokio::spawn(async move {
                if let Err(error) = session.lease_range(&live).await {
                    tracing::warn!(?error, "no ids were leased ahead");
                }
            });
        }
    }

    /// Leases a range unless somebody else just did.
    async fn lease(&self, live: &Arc<Live>) -> Result<(), Error> {
        let _one_at_a_time = live.leasing.lock().await;
        if live.has_ids() {
            return Ok(());
        }
        match self.lease_range(live).await {
            // With another session there is another try.
            Err(Lost::Never(_)) if !Arc::ptr_eq(live, &self.live()) => Ok(()),
            answer => Ok(answer?),
        }
    }

    async fn lease_range(&self, live: &Arc<Live>) -> Result<(), Lost> {
        match self.propose_under(live, Command::LeaseIds { count: LEASE_COUNT }).await? {
            Outcome::Ids { start, end } => live.add_range(start, end),
            outcome => return Err(Lost::Never(format!("no ids were leased: {outcome:?}"))),
        }
        Ok(())
    }

    /// Registers a read; call before its snapshot is taken.
    pub(super) fn begin_read(self: &Arc<Self>) -> ReadGuard {
        let mut reads = lock(&self.reads);
        let at = reads.seen;
        *reads.running.entry(at).or_default() += 1;
        ReadGuard { session: self.clone(), at }
    }

    /// Tells the catalog that the session lives, how far its reads are, and which ids are settled.
    ///
    /// # Errors
    /// `Catalog`: it cannot be read. `Unavailable`.
    pub(super) async fn renew(&self) -> Result<(), Error> {
        let applied = self.ledger.readers().read(|view| view.applied_index()).await?;
        let watermark = lock(&self.reads).watermark(applied).0;
        let live = self.live();
        let retired = live.take_retired();
        let command = Command::RenewSession { watermark, retired: retired.clone() };
        let answer = self.send(&live, 0, live.acked(), command).await;
        if answer.is_err() {
            lock(&live.state).retired.extend(retired);
        }
        answer.map(|_| ()).map_err(Error::from)
    }

    /// Whether it is this one.
    pub(super) fn is(&self, session: SessionId) -> bool {
        self.live().id == session
    }

    /// Which session lives now.
    pub(super) fn id(&self) -> SessionId {
        self.live().id
    }

    fn live(&self) -> Arc<Live> {
        lock(&self.live).clone()
    }
}

async fn open_session(env: &Env, ledger: &dyn Ledger, gateway: &str, patience: Duration) -> Result<SessionId, Error> {
    let deadline = env.clock.monotonic() + patience;
    loop {
        let command = Command::OpenSession { gateway: gateway.to_owned() };
        let envelope = Envelope { session: SessionId(0), seq: 0, acked: 0, now: env.clock.now(), command };
        let why = match ledger.propose(envelope).await {
            Ok(Outcome::Session(id)) => return Ok(id),
            Ok(outcome) => return Err(Error::Unavailable(format!("no session was opened: {outcome:?}"))),
            Err(error) => error.to_string(),
        };
        if env.clock.monotonic() >= deadline {
            return Err(Error::Unavailable(why));
        }
        tokio::time::sleep(RETRY_MIN).await;
    }
}

impl Live {
    fn new(id: SessionId) -> Self {
        Live { id, state: Mutex::default(), leasing: tokio::sync::Mutex::default() }
    }

    fn acked(&self) -> u64 {
        lock(&self.state).acked()
    }

    fn take_id(&self) -> Option<(Ino, u64)> {
        lock(&self.state).take_id()
    }

    fn has_ids(&self) -> bool {
        lock(&self.state).ranges.iter().any(|range| range.next < range.end)
    }

    fn add_range(&self, start: Ino, end: Ino) {
        let range = IdRange { start: start.0, end: end.0, next: start.0, resolved_count: 0 };
        lock(&self.state).ranges.push(range);
    }

    fn take_retired(&self) -> Vec<(Ino, Ino)> {
        let mut state = lock(&self.state);
        let count = state.retired.len().min(RETIRE_COUNT);
        state.retired.drain(..count).collect()
    }
}

impl LiveState {
    /// Every outcome up to here was received.
    fn acked(&self) -> u64 {
        self.awaited.first().map_or(self.last_seq, |first| first - 1)
    }

    /// The next id, and how many are left.
    fn take_id(&mut self) -> Option<(Ino, u64)> {
        let range = self.ranges.iter_mut().find(|range| range.next < range.end)?;
        let ino = Ino(range.next);
        range.next += 1;
        Some((ino, self.ranges.iter().map(|range| range.end - range.next).sum()))
    }

    /// Notes that the fate of `ino` is known; retires its range if it was the last.
    fn resolve(&mut self, ino: Ino) {
        let Some(index) = self.ranges.iter().position(|range| (range.start..range.end).contains(&ino.0)) else {
            return;
        };
        let range = &mut self.ranges[index];
        range.resolved_count += 1;
        if range.resolved_count == range.end - range.start {
            let range = self.ranges.swap_remove(index);
            self.retired.push((Ino(range.start), Ino(range.end)));
        }
    }
}

/// A sequence number in use.
struct Ticket {
    live: Arc<Live>,
    seq: u64,
    acked: u64,
}

impl Ticket {
    fn new(live: Arc<Live>) -> Self {
        let mut state = lock(&live.state);
        state.last_seq += 1;
        let seq = state.last_seq;
        state.awaited.insert(seq);
        let acked = state.acked();
        drop(state);
        Ticket { live, seq, acked }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.live.state).awaited.remove(&self.seq);
    }
}

/// A leased id in use. Dropped: it was committed, or nothing that names it was ever proposed or will be.
pub(super) struct FreshId {
    live: Arc<Live>,
    ino: Ino,
    unresolved: bool,
}

impl FreshId {
    pub(super) fn ino(&self) -> Ino {
        self.ino
    }

    /// The session that leased it.
    pub(super) fn session(&self) -> SessionId {
        self.live.id
    }

    /// Leaves the id leased: a command that names it may yet be applied.
    pub(super) fn leave(&mut self) {
        self.unresolved = false;
    }

    /// The fate of every command that names it is known.
    pub(super) fn settle(&mut self) {
        self.unresolved = true;
    }
}

impl Drop for FreshId {
    fn drop(&mut self) {
        if self.unresolved {
            lock(&self.live.state).resolve(self.ino);
        }
    }
}

impl Reads {
    /// The oldest index that a running or later read may have as its snapshot. `applied`: a snapshot's, taken just
    /// before.
    fn watermark(&mut self, applied: LogIndex) -> LogIndex {
        self.seen = self.seen.max(applied);
        self.running.keys().next().map_or(self.seen, |oldest| self.seen.min(*oldest))
    }

    fn end(&mut self, at: LogIndex) {
        if let Some(count) = self.running.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(&at);
            }
        }
    }
}

/// A running read: what it may reach is not reclaimed.
pub(super) struct ReadGuard {
    session: Arc<Session>,
    at: LogIndex,
}

impl ReadGuard {
    /// Notes the index of the snapshot that was taken.
    pub(super) fn taken(&mut self, applied: LogIndex) {
        let mut reads = lock(&self.session.reads);
        reads.end(self.at);
        *reads.running.entry(applied).or_default() += 1;
        self.at = applied;
    }
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        lock(&self.session.reads).end(self.at);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn acked_stops_below_what_is_awaited() {
        let live = Arc::new(Live::new(SessionId(1)));
        let tickets: Vec<Ticket> = (0..3).map(|_| Ticket::new(live.clone())).collect();
        assert_eq!(
            tickets.iter().map(|ticket| (ticket.seq, ticket.acked)).collect::<Vec<_>>(),
            [(1, 0), (2, 0), (3, 0)]
        );
        let mut tickets = tickets.into_iter();
        drop(tickets.nth(1));
        assert_eq!(live.acked(), 2); // 1 and 2 are dropped by `nth`, 3 is awaited
        drop(tickets);
        assert_eq!(live.acked(), 3);
    }

    #[test]
    fn a_range_is_retired_with_its_last_id() {
        let live = Live::new(SessionId(1));
        live.add_range(Ino(10), Ino(13));
        let ids: Vec<Ino> = std::iter::from_fn(|| live.take_id()).map(|(ino, _)| ino).collect();
        assert_eq!(ids, [Ino(10), Ino(11), Ino(12)]);
        for ino in [11, 10] {
            lock(&live.state).resolve(Ino(ino));
            assert_eq!(live.take_retired(), []);
        }
        lock(&live.state).resolve(Ino(12));
        assert_eq!(live.take_retired(), [(Ino(10), Ino(13))]);
    }

    #[test]
    fn the_watermark_stays_at_the_oldest_read() {
        let mut reads = Reads::default();
        assert_eq!(reads.watermark(LogIndex(5)), LogIndex(5));
        *reads.running.entry(LogIndex(5)).or_default() += 2;
        assert_eq!(reads.watermark(LogIndex(9)), LogIndex(5));
        reads.end(LogIndex(5));
        assert_eq!(reads.watermark(LogIndex(9)), LogIndex(5));
        reads.end(LogIndex(5));
        assert_eq!(reads.watermark(LogIndex(8)), LogIndex(9));
    }
}
