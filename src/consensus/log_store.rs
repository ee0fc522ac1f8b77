//! Raft's log on [`crate::log`]: entries are its records; vote and purged position are its mark.
//!
//! Invariants
//! - Votes, entries, truncations and purges reach the disk in the order of their calls: the log keeps it.
//! - Entries are readable when `append` returns; a vote is durable when `save_vote` returns.
//! - Nothing is purged before the catalog has it durably.
//! - The mark names the purged position before the log forgets the records: a crash in between is made good on opening.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use tokio::sync::{oneshot, watch};

use super::Error;
use super::applier::Applier;
use super::encoding::{Mark, decode_entry, decode_log_id, decode_mark, encode_entry, encode_mark};
use super::types::{self, Entry, LogId, Payload, TypeConfig, Vote};
use crate::log::{self, Log};

/// How much of the log is read at a time, payload bytes.
const READ_LIMIT_BYTES: usize = 1 << 20;

/// Writes the log. There is one.
pub(super) struct LogStore {
    /// Whose log it is.
    node: u64,
    reader: Reader,
    /// Changes when more is durable.
    advanced: Arc<watch::Sender<()>>,
    /// None where no catalog bounds what may be purged, as in openraft's own suite.
    catalog: Option<Applier>,
}

/// Reads the log; cheap to clone.
#[derive(Clone)]
pub(super) struct Reader {
    log: Log,
    mark: Arc<Mutex<Mark>>,
}

/// Tells how far the log is durable.
#[derive(Clone)]
pub(super) struct Durable {
    log: Log,
    advanced: watch::Receiver<()>,
}

impl LogStore {
    /// Takes over the open log of `node`, and finishes a purge that a crash has interrupted.
    ///
    /// # Errors
    /// `Undecodable`: the mark. `Inconsistent`: records are missing that the mark does not know as purged.
    pub(super) async fn open(node: u64, log: Log, mark: &[u8], catalog: Option<Applier>) -> Result<LogStore, Error> {
        let mark = decode_mark(mark)?;
        let first_index = log.first_index();
        let purged_to = mark.purged.map_or(0, |purged| purged.index + 1);
        if first_index > purged_to {
            return Err(Error::Inconsistent(format!("the log starts at {first_index}, but was purged to {purged_to}")));
        }
        if first_index < purged_to {
            forget_before(&log, purged_to).await?;
        }
        let reader = Reader { log, mark: Arc::new(Mutex::new(mark)) };
        Ok(LogStore { node, reader, advanced: Arc::new(watch::channel(()).0), catalog })
    }

    pub(super) fn durable(&self) -> Durable {
        Durable { log: self.reader.log.clone(), advanced: self.advanced.subscribe() }
    }

    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }

    async fn set_mark(&self, change: impl FnOnce(&mut Mark)) -> io::Result<()> {
        let mut mark = self.reader.mark();
        change(&mut mark);
        durably(|done| self.reader.log.set_mark(&encode_mark(&mark), done)).await?;
        *self.reader.mark.lock().unwrap_or_else(PoisonError::into_inner) = mark;
        Ok(())
    }

    /// Says which log this is, durably.
    pub(super) async fn set_replica(&mut self, replica: u64) -> io::Result<()> {
        self.set_mark(|mark| mark.replica = replica).await
    }

    /// Raises the vote to one that a catalog has seen.
    pub(super) async fn raise_vote(&mut self, vote: Vote) -> io::Result<()> {
        self.set_mark(|mark| mark.vote = Some(vote)).await
    }

    async fn set_has_peers(&mut self, has_peers: bool) -> io::Result<()> {
        match self.reader.mark().has_peers == has_peers {
            true => Ok(()),
            false => self.set_mark(|mark| mark.has_peers = has_peers).await,
        }
    }

    /// An empty log that was never purged starts wherever its first entry stands. That is 0, but for openraft's suite.
    async fn start_at(&self, index: u64) -> io::Result<()> {
        let log = &self.reader.log;
        let untouched = log.first_index() == log.next_index() && self.reader.mark().purged.is_none();
        if untouched && index != log.next_index() {
            durably(|done| log.reset(index, done)).await?;
        }
        Ok(())
    }
}

impl Durable {
    /// Returns when the entry at `index` is durable here.
    pub(super) async fn reaches(&mut self, index: u64) -> io::Result<()> {
        while self.log.durable_index() <= index {
            self.advanced.changed().await.map_err(|_| io::Error::other("the log has stopped"))?;
        }
        Ok(())
    }
}

impl Reader {
    pub(super) fn mark(&self) -> Mark {
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the record at `index` stands; None if the log does not hold it.
    pub(super) async fn log_id(&self, index: u64) -> io::Result<Option<LogId>> {
        let records = self.records(self.clamp(index..index.saturating_add(1)), 1).await?;
        let record = records.first();
        record.map(|(index, record)| decode_log_id(*index, record)).transpose().map_err(io::Error::other)
    }

    async fn last_log_id(&self) -> io::Result<Option<LogId>> {
        let last = match self.log.next_index().checked_sub(1) {
            Some(last) => self.log_id(last).await?,
            None => None,
        };
        Ok(last.or(self.mark().purged))
    }

    /// The part of `range` that the log holds.
    fn clamp(&self, range: impl RangeBounds<u64>) -> Range<u64> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let start = start.max(self.log.first_index());
        start..end.min(self.log.next_index()).max(start)
    }

    /// The first records of `range`, which the log holds: about `limit_bytes`, at least one.
    async fn records(&self, range: Range<u64>, limit_bytes: usize) -> io::Result<Vec<(u64, Bytes)>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(records) = self.log.read_cached(range.clone(), limit_bytes) {
            return Ok(records);
        }
        let log = self.log.clone();
        let read = tokio::task::spawn_blocking(move || log.read(range, limit_bytes));
        read.await.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    async fn entries(&self, range: Range<u64>, limit_bytes: usize) -> io::Result<Vec<Entry>> {
        let records = self.records(range, limit_bytes).await?;
        let entries = records.iter().map(|(index, record)| decode_entry(*index, record));
        entries.collect::<Result<_, _>>().map_err(io::Error::other)
    }
}

impl RaftLogReader<TypeConfig> for Reader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.entries(self.clamp(range), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.entries(self.clamp(start..end), READ_LIMIT_BYTES).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let reader = self.clone();
        let chunks = stream::try_unfold(self.clamp(range), move |left| {
            let reader = reader.clone();
            async move {
                let entries = reader.entries(left.clone(), READ_LIMIT_BYTES).await?;
                let next = left.start + entries.len() as u64;
                Ok::<_, io::Error>((!entries.is_empty()).then_some((entries, next..left.end)))
            }
        });
        chunks.map_ok(|entries| stream::iter(entries).map(Ok)).try_flatten().boxed()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.mark().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Reader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let last_log_id = self.reader.last_log_id().await?;
        Ok(LogState { last_purged_log_id: self.reader.mark().purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Reader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let is_others = vote.leader_id.node_id != self.node;
        self.set_mark(|mark| {
            mark.vote = Some(*vote);
            // A snapshot brings members that the log never names; whoever sends one leads.
            mark.has_peers |= is_others;
        })
        .await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut first_index, mut named_peers, mut has_peers) = (None, false, None);
        let node = self.node;
        let records = entries
            .into_iter()
            .inspect(|entry| {
                first_index = first_index.or(Some(entry.log_id.index));
                if let Payload::Membership(members) = &entry.payload {
                    has_peers = Some(types::has_peers(members, node));
                    named_peers |= has_peers == Some(true);
                }
            })
            .map(|entry| encode_entry(&entry))
            .collect();
        let first_index = first_index.unwrap_or(self.reader.log.next_index());
        self.start_at(first_index).await?;
        if named_peers {
            self.set_has_peers(true).await?;
        }
        let advanced = self.advanced.clone();
        let done = move |result: Result<(), log::Error>| {
            advanced.send_replace(());
            callback.io_completed(result.map_err(io::Error::other));
        };
        self.reader.log.append(first_index, records, done).map_err(io::Error::other)?;
        // The log keeps the order.
        if has_peers == Some(false) { self.set_has_peers(false).await } else { Ok(()) }
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        durably(|done| self.reader.log.truncate_after(last_log_id.map(|id| id.index), done)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        if let Some(catalog) = &self.catalog {
            catalog.sync_to(log_id.index).await?;
        }
        self.set_mark(|mark| mark.purged = Some(log_id)).await?;
        forget_before(&self.reader.log, log_id.index + 1).await
    }
}

async fn forget_before(log: &Log, index: u64) -> io::Result<()> {
    if index > log.next_index() {
        durably(|done| log.reset(index, done)).await
    } else {
        durably(|done| log.purge_before(index, done)).await
    }
}

type Done = Box<dyn FnOnce(Result<(), log::Error>) + Send>;

/// Starts a change of the log and waits until it is durable.
async fn durably(start: impl FnOnce(Done) -> Result<(), log::Error>) -> io::Result<()> {
    let (tell, told) = oneshot::channel();
    // Whoever waits may have gone away.
    start(Box::new(move |result| drop(tell.send(result)))).map_err(io::Error::other)?;
    told.await.map_err(io::Error::other)?.map_err(io::Error::other)
}
