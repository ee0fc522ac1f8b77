//! Events: what happens to keys of buckets that tell of it, noted by the transaction that has it happen.
//!
//! Invariants
//! - Where a bucket tells, what happened is noted with it or not at all; the rows stand in the order of the log.
//! - The list is bounded: what happens while it is full is counted, and that is told.
//! - One session at a time delivers, and only it says what was delivered; another takes over when that has ended.

use rusqlite::params;

use crate::catalog::event::{EVENT_COUNT_MAX, Event, Happening};
use crate::catalog::level::EVENTS_LEVEL;
use crate::catalog::query::{EVENTS_DELIVERER, EVENTS_LOST};
use crate::catalog::{Error, Outcome, Refusal, Setting};
use crate::ids::{Ino, SEQS_PER_COMMAND, Seq, SessionId};

use super::tree::{Entry, Spot};
use super::{Decision, Step, bound, sql, unsql};

impl Step<'_> {
    /// Notes what happened to the key at `spot`: `entry` came or went.
    pub(super) fn tell_key(&mut self, what: Happening, spot: &Spot<'_>, entry: &Entry) -> Result<(), Error> {
        if entry.is_hidden || !self.tells(spot.root)? {
            return Ok(());
        }
        let key = self.key_of(spot.parent, spot.name)?;
        let came = !matches!(what, Happening::Deleted | Happening::Marked);
        let event = Event {
            what,
            time: self.now,
            key,
            version: (!entry.is_null).then(|| entry.version()),
            size_bytes: if came { entry.size_bytes } else { 0 },
            etag: entry.etag.filter(|_| came),
        };
        self.note_event(spot.root, &event)
    }

    /// Notes what happened to all that is under the name of a directory.
    pub(super) fn tell_prefix(
        &mut self,
        what: Happening,
        root: Ino,
        (parent, name): (Ino, &[u8]),
    ) -> Result<(), Error> {
        if !self.tells(root)? {
            return Ok(());
        }
        let key = self.key_of(parent, name)?;
        self.note_event(root, &Event { what, time: self.now, key, version: None, size_bytes: 0, etag: None })
    }

    /// Notes the files that `session` has made and not written, which show themselves as it ends.
    pub(super) fn tell_unpublished(&mut self, session: SessionId) -> Result<(), Error> {
        if !self.some_tell()? {
            return Ok(());
        }
        let query = "SELECT ino FROM opened WHERE session=? AND published=0 ORDER BY ino";
        let unpublished = self.all(query, [sql(session.0)], |row| Ok(Ino(unsql(row.get(0)?))))?;
        unpublished.into_iter().try_for_each(|ino| self.tell_shown(ino))
    }

    /// Notes a file that may not be published, and shows itself now.
    pub(super) fn tell_shown(&mut self, ino: Ino) -> Result<(), Error> {
        if !self.some_tell()? || !self.is_unpublished(ino)? || self.node(ino)?.is_none_or(|node| node.nlink == 0) {
            return Ok(());
        }
        let Some((parent, name)) = self.inode_attrs(ino)?.home else { return Ok(()) };
        let root = self.root_above(parent)?;
        let spot = Self::spot_in(root, parent, &name);
        match self.current(&spot)?.filter(|entry| entry.ino == ino && entry.is_hidden) {
            Some(entry) => self.tell_key(Happening::Put, &spot, &Entry { is_hidden: false, ..entry }),
            None => Ok(()),
        }
    }

    /// The key of a name in a directory.
    pub(super) fn key_of(&self, parent: Ino, name: &[u8]) -> Result<Vec<u8>, Error> {
        let query = "SELECT parent, name FROM dir WHERE ino=? AND parent<>0";
        let mut parts = vec![name.to_vec()];
        let mut at = parent;
        while let Some((above, name)) =
            self.find(query, [sql(at.0)], |row| Ok((Ino(unsql(row.get(0)?)), row.get::<_, Vec<u8>>(1)?)))?
        {
            parts.push(name);
            at = above;
        }
        parts.reverse();
        Ok(parts.concat())
    }

    /// Whether what happens in the bucket with this root is told.
    pub(super) fn tells(&mut self, root: Ino) -> Result<bool, Error> {
        Ok(self.some_tell()? && self.cache.telling.as_ref().is_some_and(|telling| telling.contains(&root.0)))
    }

    fn some_tell(&mut self) -> Result<bool, Error> {
        if self.state.level < EVENTS_LEVEL {
            return Ok(false);
        }
        if self.cache.telling.is_none() {
            let query = "SELECT bucket FROM bucket_setting WHERE kind=?";
            let all = self.all(query, [Setting::Notification as i64], |row| Ok(unsql(row.get(0)?)))?;
            self.cache.telling = Some(all.into_iter().collect());
        }
        Ok(self.cache.telling.as_ref().is_some_and(|telling| !telling.is_empty()))
    }

    fn note_event(&mut self, root: Ino, event: &Event) -> Result<(), Error> {
        let count = self.event_count()?;
        // A session that ends may have made more files than a command can number.
        if count >= EVENT_COUNT_MAX || self.version_count >= SEQS_PER_COMMAND {
            let raise = "INSERT INTO cursor(name, position) VALUES(?, 1)
                ON CONFLICT(name) DO UPDATE SET position=position+1";
            self.run(raise, [EVENTS_LOST])?;
            return Ok(());
        }
        let seq = self.take_seq();
        let insert = "INSERT INTO outbox(seq, bucket, event) VALUES(?, ?, ?)";
        self.run(insert, params![sql(seq.0), sql(root.0), event.encode()])?;
        self.cache.event_count = Some(count + 1);
        Ok(())
    }

    fn event_count(&mut self) -> Result<u64, Error> {
        if let Some(count) = self.cache.event_count {
            return Ok(count);
        }
        let count = unsql(self.find("SELECT count(*) FROM outbox", [], |row| row.get(0))?.unwrap_or(0));
        self.cache.event_count = Some(count);
        Ok(count)
    }

    fn deliverer(&self) -> Result<SessionId, Error> {
        let query = "SELECT position FROM cursor WHERE name=?";
        Ok(SessionId(unsql(self.find(query, [EVENTS_DELIVERER], |row| row.get(0))?.unwrap_or(0))))
    }

    pub(super) fn claim_events(&mut self, from: SessionId) -> Decision<Outcome> {
        bound(self.state.level >= EVENTS_LEVEL, "there are no events at this feature level")?;
        let deliverer = self.deliverer()?;
        let is_alive = self.exists("SELECT 1 FROM session WHERE id=?", [sql(deliverer.0)])?;
        if deliverer != from || is_alive && deliverer != self.session {
            return Err(Refusal::RecordChanged.into());
        }
        let replace = "INSERT OR REPLACE INTO cursor(name, position) VALUES(?, ?)";
        self.run(replace, params![EVENTS_DELIVERER, sql(self.session.0)])?;
        Ok(Outcome::Done)
    }

    pub(super) fn events_delivered(&mut self, through: Seq) -> Decision<Outcome> {
        bound(self.state.level >= EVENTS_LEVEL, "there are no events at this feature level")?;
        if self.deliverer()? != self.session {
            return Err(Refusal::RecordChanged.into());
        }
        let count = self.event_count()?;
        let delete = "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE seq<=? ORDER BY seq LIMIT ?)";
        let deleted = self.run(delete, params![sql(through.0), sql(SEQS_PER_COMMAND)])? as u64;
        self.cache.event_count = Some(count.saturating_sub(deleted));
        Ok(Outcome::Done)
    }
}
