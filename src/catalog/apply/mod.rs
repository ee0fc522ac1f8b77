//! The writer: log entries become transactions.
//!
//! Invariants
//! - One batch is one transaction; the applied position, the membership and the state row commit with it.
//! - A command's methods read first and write last: once one of them has written, it no longer refuses.
//! - The [`Cache`] holds copies of rows only, so it changes no outcome; a failed batch ends the catalog, cache and all.

mod bucket;
mod chunk;
mod clone;
mod event;
mod file;
mod level;
mod map;
mod node;
mod object;
mod reclaim;
mod record;
mod session;
mod state;
#[cfg(test)]
pub(super) mod tests;
mod tree;
mod upload;

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Params, Row, TransactionBehavior};

use crate::env::Timestamp;
use crate::ids::{Ino, LogIndex, Seq, SessionId};

use super::changes::{Changed, Notice};
use super::store::{Options, Prepared, Readers, Store};
use super::{Applied, Command, Entry, Envelope, Error, Levels, Outcome, Position, Refusal};
use state::{Cache, State};

/// The one writer.
pub struct Catalog {
    pub(super) store: Store,
    state: State,
    applied: Applied,
    cache: Cache,
    failed: bool,
}

impl Catalog {
    /// Opens the state that `CURRENT` names in `dir`, or makes a new one of `options.incarnation`.
    ///
    /// # Errors
    /// `SqliteTooOld`, `Format`, `Level`; `Inconsistent`: more than one state and no `CURRENT`; `Sqlite`, `Io`: the disk.
    pub fn open(dir: &Path, options: Options) -> Result<Catalog, Error> {
        let store = Store::open(dir, options)?;
        let (state, applied) = State::load(store.connection())?;
        Ok(Catalog { store, state, applied, cache: Cache::default(), failed: false })
    }

    /// How far it has applied.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// The feature level of this program, and its own.
    pub fn levels(&self) -> Levels {
        Levels { known: self.store.known_level(), reached: self.state.level }
    }

    /// Applies a batch in one transaction. An outcome for each entry (`Done` for blank and membership).
    ///
    /// `batch`: positions ascend, all above the applied one.
    ///
    /// # Errors
    /// All are final: nothing of the batch is applied, and every later call fails. `Level`: a newer program is needed.
    pub fn apply(&mut self, batch: &[(Position, Entry)]) -> Result<Vec<Outcome>, Error> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.check_usable()?;
        self.failed = true;
        let outcomes = self.apply_batch(batch)?;
        self.store.after_commit()?;
        self.failed = false;
        Ok(outcomes)
    }

    fn check_usable(&self) -> Result<(), Error> {
        match self.failed {
            false => Ok(()),
            true => Err(Error::Inconsistent("an earlier error was final".into())),
        }
    }

    fn apply_batch(&mut self, batch: &[(Position, Entry)]) -> Result<Vec<Outcome>, Error> {
        let known_level = self.store.known_level();
        let teller = self.store.readers().changes().clone();
        let mut changes = teller.are_heard().then(Vec::new);
        let mut access_changed = false;
        let transaction = self.store.connection_mut().transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut membership = None;
        let mut last = self.applied.position;
        for (position, entry) in batch {
            if last.is_some_and(|last| position.index <= last.index) {
                return Err(Error::Inconsistent(format!("entry {} comes after {last:?}", position.index)));
            }
            last = Some(*position);
            outcomes.push(match entry {
                Entry::Blank => Outcome::Done,
                Entry::Membership(bytes) => {
                    membership = Some(bytes);
                    Outcome::Done
                }
                Entry::Command(envelope) => {
                    let mut step = Step {
                        transaction: &transaction,
                        state: &mut self.state,
                        cache: &mut self.cache,
                        known_level,
                        index: LogIndex(position.index),
                        version_count: 0,
                        session: envelope.session,
                        now: envelope.now,
                        mount: 0,
                        changes: changes.as_mut(),
                        access_changed: &mut access_changed,
                    };
                    step.apply(envelope)?
                }
            });
        }
        self.cache.save_usage(&transaction)?;
        self.state.save(&transaction, last, membership.map(Vec::as_slice))?;
        transaction.commit()?;
        teller.tell(changes.unwrap_or_default());
        if access_changed {
            teller.tell_access();
        }
        self.applied.position = last;
        if let Some(membership) = membership {
            self.applied.membership.clone_from(membership);
        }
        Ok(outcomes)
    }

    /// Handles for queries; cheap to clone.
    pub fn readers(&self) -> Readers {
        self.store.readers()
    }

    /// What stands after the last batch, on the writer's own connection.
    #[cfg(test)]
    pub(super) fn view(&self) -> super::View<'_> {
        super::View::new(self.store.connection())
    }

    /// Replaces the whole state by the snapshot in `file` (made by [`Readers::snapshot`]); readers see it at once.
    /// `file` stays.
    ///
    /// # Errors
    /// `Inconsistent`, `Format`, `Level`: not a whole snapshot, or of a later format or level; the old state stays in force.
    /// `Sqlite`, `Io`: the disk; final.
    pub fn install(&mut self, file: &Path) -> Result<(), Error> {
        let prepared = self.prepare(file)?;
        self.switch(prepared)
    }

    /// Copies the snapshot in `file` beside the current state, and verifies it; `file` stays. What was prepared before is
    /// gone. It needs as much room as the snapshot.
    ///
    /// # Errors
    /// As of [`Catalog::install`]; after any of them the old state goes on, and nothing is left of the new one.
    pub fn prepare(&self, file: &Path) -> Result<Prepared, Error> {
        self.check_usable()?;
        self.store.prepare(file)
    }

    /// Gives back the room of what is not to be installed after all.
    ///
    /// # Errors
    /// `Io`: the disk.
    pub fn discard(&self, _prepared: Prepared) -> Result<(), Error> {
        self.store.remove_leftovers()
    }

    /// Replaces the whole state by the one that was prepared last.
    ///
    /// # Errors
    /// `Sqlite`, `Io`: the disk; final.
    pub fn switch(&mut self, prepared: Prepared) -> Result<(), Error> {
        self.check_usable()?;
        self.failed = true;
        self.store.switch(prepared)?;
        (self.state, self.applied) = State::load(self.store.connection())?;
        self.store.readers().changes().tell(vec![Notice::ALL]);
        self.store.readers().changes().tell_access();
        self.cache = Cache::default();
        self.failed = false;
        Ok(())
    }

    /// Ends the threads of the catalog and leaves all that was applied in the database alone, without a WAL. Queries
    /// are answered with `Closed` from now on. A catalog that has failed is left as it is.
    ///
    /// # Errors
    /// `Sqlite`: the disk. The next opening goes on from the WAL.
    pub fn close(self) -> Result<(), Error> {
        if self.failed { Ok(()) } else { self.store.close() }
    }

    /// Makes everything applied so far survive a power cut (sync and checkpoint): the log before it may go.
    ///
    /// # Errors
    /// `Sqlite`, `Io`: the disk; final.
    pub fn sync(&mut self) -> Result<Option<Position>, Error> {
        self.check_usable()?;
        self.failed = true;
        self.store.sync()?;
        self.failed = false;
        Ok(self.applied.position)
    }
}

/// How far the state behind `connection` has applied.
pub(super) fn read_applied(connection: &Connection) -> Result<Applied, Error> {
    Ok(State::load(connection)?.1)
}

/// Why a command's method ends early: the command is refused, or the catalog has failed.
enum Stop {
    Refused(Refusal),
    Failed(Error),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

type Decision<T> = Result<T, Stop>;

/// Splits what ends a command early into what is an answer and what is a failure.
fn settle<T>(decision: Decision<T>) -> Result<Result<T, Refusal>, Error> {
    match decision {
        Ok(value) => Ok(Ok(value)),
        Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// One command being applied.
struct Step<'a> {
    transaction: &'a Connection,
    state: &'a mut State,
    cache: &'a mut Cache,
    /// Of this program: decides only whether the process goes on.
    known_level: u32,
    index: LogIndex,
    version_count: u64,
    session: SessionId,
    now: Timestamp,
    /// Which mount the command is for; 0: none. Decides nothing but who is told.
    mount: u64,
    /// None: nobody listens.
    changes: Option<&'a mut Vec<Notice>>,
    /// Whether who may do what is another thing than before the batch.
    access_changed: &'a mut bool,
}

impl Step<'_> {
    fn apply(&mut self, envelope: &Envelope) -> Result<Outcome, Error> {
        if !self.may_speak(envelope)? {
            return Ok(Outcome::Refused(Refusal::NoSession));
        }
        if let Some(first) = self.first_answer(envelope)? {
            return Ok(first);
        }
        let decision = self.decide(&envelope.command);
        let outcome = settle(decision)?.unwrap_or_else(Outcome::Refused);
        self.remember(envelope, &outcome)?;
        Ok(outcome)
    }

    fn decide(&mut self, command: &Command) -> Decision<Outcome> {
        match command {
            Command::OpenSession { gateway } => self.open_session(gateway),
            Command::RenewSession { watermark, retired } => self.renew_session(*watermark, retired),
            Command::ExpireSession { session, renewals } => self.expire_session(*session, *renewals),
            Command::LeaseIds { count } => self.lease_ids(*count),
            Command::Tick { now } => self.tick(*now),
            Command::CreateBucket { id, name, owner, region, lock } => {
                self.create_bucket(*id, name, owner, region, *lock)
            }
            Command::DeleteBucket { bucket } => self.delete_bucket(*bucket),
            Command::SetVersioning { bucket, versioning } => self.set_versioning(*bucket, *versioning),
            Command::SetBucket { bucket, setting, value } => self.set_bucket(*bucket, *setting, value.as_deref()),
            Command::Put { bucket, key, ino, size_bytes, etag, attrs, body, precondition } => {
                let put = object::Put { key, ino: *ino, size_bytes: *size_bytes, etag: *etag, attrs, body };
                self.put(*bucket, &put, precondition)
            }
            Command::Delete { bucket, keys } => self.delete(*bucket, keys),
            Command::Change { bucket, key, version, change } => self.change(*bucket, key, *version, change),
            Command::CreateUpload { bucket, key, id, attrs } => self.create_upload(*bucket, key, *id, attrs),
            Command::PutPart { bucket, key, upload, number, size_bytes, etag, checksums, body } => {
                let upload = upload::Name { bucket: *bucket, key, id: *upload };
                let part = upload::NewPart { number: *number, size_bytes: *size_bytes, etag: *etag, checksums, body };
                self.put_part(&upload, &part)
            }
            Command::CompleteUpload { bucket, key, upload, parts, etag, checksums, precondition } => {
                let upload = upload::Name { bucket: *bucket, key, id: *upload };
                self.complete_upload(&upload, parts, *etag, checksums, precondition)
            }
            Command::AbortUpload { bucket, key, upload } => {
                self.abort_upload(&upload::Name { bucket: *bucket, key, id: *upload })
            }
            Command::Drain { row_count } => self.drain(*row_count),
            Command::Reclaimed { rows } => self.reclaimed(rows),
            Command::ForgetCompleted { before, row_count } => self.forget_completed(*before, *row_count),
            Command::SetCredential { access_key, value } => self.set_credential(access_key, value.as_ref()),
            Command::SetMap { from_epoch, map } => self.set_map(*from_epoch, map),
            Command::Swap { chunk, from, to, due, verified } => self.swap(*chunk, (from, to), *due, *verified),
            Command::Split { chunk, from, pieces } => self.split(*chunk, from, pieces),
            Command::MarkRepair { chunks, damaged } => self.mark_repair(chunks, *damaged),
            Command::RaiseLevel { to } => self.raise_level(*to),
            Command::File { bucket, origin, operation } => self.file(*bucket, origin, operation),
            Command::SetRecord { kind, name, was, value } => {
                self.set_record(*kind, name, was.as_deref(), value.as_deref())
            }
            Command::Clone(operation) => self.clone(operation),
            Command::ClaimEvents { from } => self.claim_events(*from),
            Command::EventsDelivered { through } => self.events_delivered(*through),
        }
    }

    /// A fresh id, for what `apply` itself makes.
    fn take_id(&mut self) -> Ino {
        self.state.take_ids(1).0
    }

    /// The next version's place in the order of versions.
    fn take_seq(&mut self) -> Seq {
        let seq = Seq::new(self.index, self.version_count);
        self.version_count += 1;
        seq
    }

    /// Tells who listens that an inode is not what it was.
    fn tell_inode(&mut self, ino: Ino) {
        if let Some(changes) = &mut self.changes {
            changes.push(Notice::Changed { mount: self.mount, what: Changed::Inode(ino) });
        }
    }

    /// Tells who listens that a name in a directory is not what it was.
    fn tell_name(&mut self, parent: Ino, name: &[u8]) {
        if let Some(changes) = &mut self.changes {
            let name = name.strip_suffix(b"/").unwrap_or(name).to_vec();
            changes.push(Notice::Changed { mount: self.mount, what: Changed::Name { parent, name } });
        }
    }

    fn run(&self, sql: &str, params: impl Params) -> Result<usize, Error> {
        Ok(self.transaction.prepare_cached(sql)?.execute(params)?)
    }

    fn find<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        Ok(self.transaction.prepare_cached(sql)?.query_row(params, read).optional()?)
    }

    fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = self.transaction.prepare_cached(sql)?;
        let rows = statement.query_map(params, read)?;
        Ok(rows.collect::<rusqlite::Result<Vec<T>>>()?)
    }

    fn exists(&self, sql: &str, params: impl Params) -> Result<bool, Error> {
        Ok(self.transaction.prepare_cached(sql)?.exists(params)?)
    }
}

/// Ids, sequences and sizes fit SQLite's signed integers: 63 bits.
const fn sql(value: u64) -> i64 {
    value as i64
}

/// The inverse of [`sql`].
const fn unsql(value: i64) -> u64 {
    value as u64
}

/// Refuses what its proposer should have kept in bounds.
fn bound(holds: bool, what: &str) -> Result<(), Refusal> {
    match holds {
        true => Ok(()),
        false => Err(Refusal::OutOfBounds(what.to_owned())),
    }
}
