//! Sessions: who may speak, what was answered before, which ids are leased.
//!
//! Invariants
//! - A command (session, seq) is applied at most once: its outcome is a row until `acked` passes it, and what
//!   `acked` has passed is refused.
//! - A lease row's ids belong to one session. Ids of buckets and uploads leave their lease at once; any other id
//!   is in use from when it has a node.

use rusqlite::params;

use crate::catalog::level::{FILES_LEVEL, LOCKS_LEVEL};
use crate::catalog::{Command, Envelope, Error, Outcome, Refusal};
use crate::env::Timestamp;
use crate::ids::{Ino, SEQS_PER_COMMAND, SessionId};

use super::state::{Lease, Stream};
use super::{Decision, Step, bound, sql, unsql};

/// The most ids that one command leases.
const LEASE_COUNT_MAX: u32 = 65_536;
/// How far `acked` may run ahead of what was forgotten.
const FORGET_EVERY: u64 = 256;

impl Step<'_> {
    /// Whether the envelope's session lives, or is not needed.
    pub(super) fn may_speak(&mut self, envelope: &Envelope) -> Result<bool, Error> {
        if envelope.session != SessionId(0) {
            return Ok(self.stream(envelope.session)?.is_some());
        }
        Ok(matches!(
            envelope.command,
            Command::OpenSession { .. }
                | Command::ExpireSession { .. }
                | Command::Tick { .. }
                | Command::SetMap { .. }
                | Command::RaiseLevel { .. }
        ))
    }

    fn stream(&mut self, session: SessionId) -> Result<Option<Stream>, Error> {
        if let Some(stream) = self.cache.streams.get(&session.0) {
            return Ok(Some(*stream));
        }
        let query =
            "SELECT acked, (SELECT COALESCE(MAX(seq), 0) FROM outcome WHERE session=id) FROM session WHERE id=?";
        let found = self.find(query, [sql(session.0)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let stream =
            found.map(|(acked, highest)| Stream { acked: unsql(acked), highest: unsql(highest).max(unsql(acked)) });
        if let Some(stream) = stream {
            self.cache.streams.insert(session.0, stream);
        }
        Ok(stream)
    }

    /// The answer to a command that was applied before.
    pub(super) fn first_answer(&mut self, envelope: &Envelope) -> Result<Option<Outcome>, Error> {
        let Some(stream) = self.cache.streams.get(&envelope.session.0) else { return Ok(None) };
        if envelope.seq == 0 || envelope.seq > stream.highest {
            return Ok(None);
        }
        if envelope.seq <= stream.acked {
            return Ok(Some(Outcome::Refused(Refusal::OutOfBounds("its outcome was acknowledged".into()))));
        }
        let query = "SELECT value FROM outcome WHERE session=? AND seq=?";
        let found = self.find(query, [sql(envelope.session.0), sql(envelope.seq)], |row| row.get::<_, Vec<u8>>(0))?;
        found.map(|value| Outcome::decode(&value)).transpose()
    }

    /// Keeps the outcome for a retry, and now and then forgets what was acknowledged.
    pub(super) fn remember(&mut self, envelope: &Envelope, outcome: &Outcome) -> Result<(), Error> {
        let Some(stream) = self.cache.streams.get_mut(&envelope.session.0) else { return Ok(()) };
        stream.highest = stream.highest.max(envelope.seq);
        let due = if matches!(envelope.command, Command::RenewSession { .. }) { 1 } else { FORGET_EVERY };
        let forget = envelope.acked.saturating_sub(stream.acked) >= due;
        if envelope.seq > 0 {
            let insert = "INSERT INTO outcome(session, seq, value) VALUES(?, ?, ?)";
            self.run(insert, params![sql(envelope.session.0), sql(envelope.seq), outcome.encode()])?;
        }
        if forget { self.forget_outcomes(envelope.session, envelope.acked) } else { Ok(()) }
    }

    fn forget_outcomes(&mut self, session: SessionId, acked: u64) -> Result<(), Error> {
        self.run("DELETE FROM outcome WHERE session=? AND seq<=?", [sql(session.0), sql(acked)])?;
        self.run("UPDATE session SET acked=?2 WHERE id=?1", [sql(session.0), sql(acked)])?;
        if let Some(stream) = self.cache.streams.get_mut(&session.0) {
            stream.acked = acked;
            stream.highest = stream.highest.max(acked);
        }
        Ok(())
    }

    pub(super) fn open_session(&mut self, gateway: &str) -> Decision<Outcome> {
        bound(!gateway.is_empty() && gateway.len() <= 255, "a gateway's name has 1 to 255 bytes")?;
        let id = SessionId(self.take_id().0);
        for former in self.all("SELECT id FROM session WHERE gateway=?", [gateway], |row| row.get(0))? {
            let former = SessionId(unsql(former));
            self.inherit_open(former, id)?;
            self.end_session(former)?;
        }
        let insert = "INSERT INTO session(id, gateway, renewals, watermark, acked) VALUES(?, ?, 0, ?, 0)";
        self.run(insert, params![sql(id.0), gateway, sql(self.index.0)])?;
        Ok(Outcome::Session(id))
    }

    pub(super) fn renew_session(&mut self, watermark: u64, retired: &[(Ino, Ino)]) -> Decision<Outcome> {
        bound(retired.len() as u64 <= SEQS_PER_COMMAND, "too many retired ranges")?;
        let update = "UPDATE session SET renewals=renewals+1, watermark=MAX(watermark, ?2) WHERE id=?1";
        self.run(update, [sql(self.session.0), sql(watermark)])?;
        for (start, end) in retired {
            self.retire_ids(*start, *end)?;
        }
        Ok(Outcome::Done)
    }

    pub(super) fn expire_session(&mut self, session: SessionId, renewals: u64) -> Decision<Outcome> {
        let query = "SELECT renewals FROM session WHERE id=?";
        let found = self.find(query, [sql(session.0)], |row| row.get(0))?.ok_or(Refusal::NoSession)?;
        if unsql(found) != renewals {
            return Err(Refusal::PreconditionFailed("renewals".into()).into());
        }
        self.end_session(session)?;
        Ok(Outcome::Done)
    }

    /// Mounts outlive the process that serves them: what it had open is its successor's, until that says what is not open
    /// any more.
    fn inherit_open(&mut self, former: SessionId, heir: SessionId) -> Result<(), Error> {
        if self.state.level >= FILES_LEVEL {
            let tables = ["opened", "mounted", "lock"];
            let count = if self.state.level >= LOCKS_LEVEL { 3 } else { 2 };
            for table in &tables[..count] {
                let update = format!("UPDATE OR REPLACE {table} SET session=?2 WHERE session=?1");
                self.run(&update, [sql(former.0), sql(heir.0)])?;
            }
        }
        Ok(())
    }

    fn end_session(&mut self, session: SessionId) -> Result<(), Error> {
        self.preserve_unpublished(session)?;
        self.tell_unpublished(session)?;
        self.drop_locks_of_session(session)?;
        for table in ["lease", "outcome", "opened", "hold"] {
            self.run(&format!("DELETE FROM {table} WHERE session=?"), [sql(session.0)])?;
        }
        if self.state.level >= FILES_LEVEL {
            self.run("DELETE FROM mounted WHERE session=?", [sql(session.0)])?;
            self.cache.mounted = None;
        }
        self.run("DELETE FROM session WHERE id=?", [sql(session.0)])?;
        self.cache.streams.remove(&session.0);
        self.cache.lease = None;
        Ok(())
    }

    pub(super) fn tick(&mut self, now: Timestamp) -> Decision<Outcome> {
        self.state.time = self.state.time.max(now);
        Ok(Outcome::Done)
    }

    pub(super) fn lease_ids(&mut self, count: u32) -> Decision<Outcome> {
        bound((1..=LEASE_COUNT_MAX).contains(&count), "1 to 65,536 ids a lease")?;
        let (start, end) = self.state.take_ids(count.into());
        self.insert_lease(start, end, self.session)?;
        Ok(Outcome::Ids { start, end })
    }

    fn insert_lease(&self, start: Ino, end: Ino, session: SessionId) -> Result<(), Error> {
        let insert = "INSERT INTO lease(start, end, session) VALUES(?, ?, ?)";
        self.run(insert, [sql(start.0), sql(end.0), sql(session.0)])?;
        Ok(())
    }

    /// Refuses an id that the session does not lease. Whether a node has it already is for the caller.
    pub(super) fn check_leased(&mut self, id: Ino) -> Decision<()> {
        let covers = |lease: &Lease| lease.start <= id && id < lease.end;
        if !self.cache.lease.as_ref().is_some_and(covers) {
            let query = "SELECT start, end, session FROM lease WHERE start<=? ORDER BY start DESC LIMIT 1";
            self.cache.lease = self.find(query, [sql(id.0)], |row| {
                Ok(Lease {
                    start: Ino(unsql(row.get(0)?)),
                    end: Ino(unsql(row.get(1)?)),
                    session: SessionId(unsql(row.get(2)?)),
                })
            })?;
        }
        match self.cache.lease {
            Some(lease) if covers(&lease) && lease.session == self.session => Ok(()),
            _ => Err(Refusal::NotLeased(id).into()),
        }
    }

    /// Takes `start..end` out of the session's leases, splitting rows at the ends.
    pub(super) fn retire_ids(&mut self, start: Ino, end: Ino) -> Result<(), Error> {
        let query = "SELECT start, end FROM lease WHERE session=?1 AND start<?3 AND end>?2
            AND start>=(SELECT COALESCE(MAX(start), 0) FROM lease WHERE start<=?2)";
        let params = [sql(self.session.0), sql(start.0), sql(end.0)];
        let rows = self.all(query, params, |row| Ok((Ino(unsql(row.get(0)?)), Ino(unsql(row.get(1)?)))))?;
        for (row_start, row_end) in rows {
            self.run("DELETE FROM lease WHERE start=?", [sql(row_start.0)])?;
            if row_start < start {
                self.insert_lease(row_start, start, self.session)?;
            }
            if end < row_end {
                self.insert_lease(end, row_end, self.session)?;
            }
        }
        self.cache.lease = None;
        Ok(())
    }
}
