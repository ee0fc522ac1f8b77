//! Copies of whole prefixes that move no data: snapshots, clones of them, and copies that a frontend is asked for.
//!
//! A snapshot of a bucket is an ordinary prefix of it, `.snapshots/NAME/`, with its name kept by the catalog. A command
//! begins a copy, and that is its moment; whoever leads has it copied, some entries a command, and published at the end. So
//! who waits for it may go, and so may this process.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;

use crate::catalog::{
    CLONE_STEP_MAX, CloneOperation, ClonePhase, CloneState, Command, NAME_MAX_BYTES, Outcome, Refusal,
};
use crate::env::Timestamp;
use crate::ids::Ino;

use super::bucket::unexpected;
use super::{Error, Store};

/// The prefix under which snapshots are.
pub const SNAPSHOTS: &str = ".snapshots/";

/// Who waits looks again after this, and after twice as long each time, up to the second.
const LOOK_MIN: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(200);
/// How long it is remembered how a copy ended that is no snapshot.
const KEEP: Duration = Duration::from_secs(3600);

/// A prefix of a bucket: it ends in `/`, or is empty and stands for all of the bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// Bucket's name.
    pub bucket: String,
    /// The prefix.
    pub prefix: Vec<u8>,
}

/// A snapshot of a bucket, or a copy into it that is under way, or ended lately.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// What the catalog knows of it.
    pub state: CloneState,
    /// Whether its prefix is still what was published.
    pub is_there: bool,
}

/// Refuses what can be no name of a snapshot: it is a component of keys and of paths.
fn check_name(name: &str) -> Result<(), Error> {
    let is_odd = matches!(name, "" | "." | "..") || name.chars().any(|c| c == '/' || c.is_control());
    match is_odd || name.len() > NAME_MAX_BYTES {
        true => Err(Error::Invalid("a snapshot's name has 1 to 255 bytes, no / and no control characters".to_owned())),
        false => Ok(()),
    }
}

fn prefix_of(name: &str) -> Vec<u8> {
    format!("{SNAPSHOTS}{name}/").into_bytes()
}

impl Store {
    /// Copies what is visible under a prefix as of now to another, which is not there yet; returns when that is published.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket | NoSuchKey)`: of the source nothing is there. `Refused(EntryExists)`: something is there
    /// under `to`, or will be. `Refused(InvalidBucketState)`: objects may be locked there. `Refused(TooManyClones)`.
    /// `Invalid`: why it came to nothing. `Unavailable`: the outcome is unknown; it may go on.
    pub async fn copy_prefix(&self, source: &Prefix, to: &Prefix) -> Result<CloneState, Error> {
        let clone = self.begin_clone(source, to, "").await?;
        let state = self.await_clone(clone).await?;
        self.ask_clone(CloneOperation::Forget { clone }).await?;
        published(state)
    }

    /// Takes a snapshot of what is visible under a prefix now, and returns when it is published.
    ///
    /// # Errors
    /// As [`Store::copy_prefix`]; `Refused(EntryExists)`: the bucket has a snapshot of this name.
    pub async fn create_snapshot(&self, source: &Prefix, name: &str) -> Result<CloneState, Error> {
        check_name(name)?;
        let to = Prefix { bucket: source.bucket.clone(), prefix: prefix_of(name) };
        let clone = self.begin_clone(source, &to, name).await?;
        published(self.await_clone(clone).await?)
    }

    /// Copies a snapshot to a prefix, there to be written.
    ///
    /// # Errors
    /// As [`Store::copy_prefix`]; `Refused(NoSuchKey)`: there is no such snapshot, or nothing is left of it.
    pub async fn clone_snapshot(&self, bucket: &str, name: &str, to: &Prefix) -> Result<CloneState, Error> {
        let (_, snapshot) = self.snapshot_named(bucket, name).await?;
        if !snapshot.is_there {
            return Err(Refusal::NoSuchKey.into());
        }
        let source = Prefix { bucket: bucket.to_owned(), prefix: snapshot.state.to };
        self.copy_prefix(&source, to).await
    }

    /// The snapshots of a bucket, and copies of prefixes into it that are under way or ended lately; oldest first.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket)`, `Unavailable`.
    pub async fn snapshots(&self, bucket: &str) -> Result<Vec<Snapshot>, Error> {
        Ok(self.clones_in(bucket).await?.into_iter().map(|(_, snapshot)| snapshot).collect())
    }

    /// Takes a snapshot away: it is gone when this returns, and its space comes back by and by. One that failed is
    /// forgotten.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket)`; `Refused(NoSuchKey)`: there is no such snapshot. `Unavailable`.
    pub async fn delete_snapshot(&self, bucket: &str, name: &str) -> Result<(), Error> {
        let (clone, _) = self.snapshot_named(bucket, name).await?;
        match self.ask_clone(CloneOperation::Remove { clone }).await {
            Err(Error::Refused(Refusal::NoEntry)) => Err(Refusal::NoSuchKey.into()),
            removed => {
                self.cloning.notify_one();
                removed.map(drop)
            }
        }
    }

    async fn snapshot_named(&self, bucket: &str, name: &str) -> Result<(Ino, Snapshot), Error> {
        let is_it = |state: &CloneState| state.label == name && !name.is_empty() && !is_being_removed(state);
        let all = self.clones_in(bucket).await?;
        all.into_iter().rev().find(|(_, found)| is_it(&found.state)).ok_or(Error::Refused(Refusal::NoSuchKey))
    }

    async fn clones_in(&self, bucket: &str) -> Result<Vec<(Ino, Snapshot)>, Error> {
        self.in_bucket(bucket, |view, bucket| {
            let all = view.clones()?.into_iter().filter(|(_, state)| state.target == bucket);
            let with_presence = |(clone, state): (Ino, CloneState)| {
                let is_there = state.phase == ClonePhase::Done && view.is_clone_there(&state)?;
                Ok((clone, Snapshot { state, is_there }))
            };
            all.map(with_presence).collect()
        })
        .await
    }

    async fn begin_clone(&self, source: &Prefix, to: &Prefix, label: &str) -> Result<Ino, Error> {
        self.room.admit(0)?;
        self.wait_for_level(|view| view.has_clones(), "some process of the cluster copies no prefixes yet").await?;
        let (from, target) = (self.bucket(&source.bucket).await?, self.bucket(&to.bucket).await?);
        let begin = CloneOperation::Begin {
            source: from.id,
            prefix: Bytes::copy_from_slice(&source.prefix),
            target: target.id,
            to: Bytes::copy_from_slice(&to.prefix),
            label: label.to_owned(),
        };
        match self.session.propose(Command::Clone(begin)).await? {
            Outcome::Cloning { clone, .. } => {
                self.cloning.notify_one();
                Ok(clone)
            }
            Outcome::Refused(refusal) => Err(refusal.into()),
            outcome => Err(unexpected(&outcome)),
        }
    }

    /// Waits until a copy is over.
    async fn await_clone(&self, clone: Ino) -> Result<CloneState, Error> {
        let mut pause = LOOK_MIN;
        loop {
            match self.snapshot(move |view| Ok(view.clone_state(clone)?)).await? {
                Some(state) if state.phase.is_under_way() => {}
                Some(state) => return Ok(state),
                None => return Err(Error::Invalid("the copy was taken away before it was whole".to_owned())),
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LOOK_MAX);
        }
    }

    async fn ask_clone(&self, operation: CloneOperation) -> Result<bool, Error> {
        answer(self.session.propose(Command::Clone(operation)).await?)
    }

    /// Has every copy that is under way go on until it is over, in turns.
    ///
    /// # Errors
    /// `Unavailable`, `Catalog`.
    pub(super) async fn advance_clones(&self) -> Result<(), Error> {
        loop {
            let all = self.ledger.readers().read(|view| view.clones()).await?;
            let mut left: HashSet<Ino> =
                all.into_iter().filter(|(_, state)| state.phase.is_under_way()).map(|(clone, _)| clone).collect();
            if left.is_empty() {
                return Ok(());
            }
            while !left.is_empty() && self.ledger.leads() {
                let mut turn: Vec<Ino> = left.iter().copied().collect();
                turn.sort_unstable();
                for clone in turn {
                    let advance = CloneOperation::Advance { clone, entry_count: CLONE_STEP_MAX };
                    match answer(self.session.propose_repeatable(Command::Clone(advance)).await?) {
                        Ok(true) | Err(Error::Refused(Refusal::NoEntry)) => drop(left.remove(&clone)),
                        Ok(false) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            if !self.ledger.leads() {
                return Ok(());
            }
            self.died.notify_one();
        }
    }

    /// Forgets how copies ended that are no snapshots, and for which nobody waits any more.
    ///
    /// # Errors
    /// `Unavailable`, `Catalog`.
    pub(super) async fn forget_clones(&self) -> Result<(), Error> {
        let before = Timestamp(self.now().0.saturating_sub(i64::try_from(KEEP.as_nanos()).unwrap_or(i64::MAX)));
        let is_old =
            move |state: &CloneState| state.label.is_empty() && state.ended.is_some_and(|ended| ended < before);
        for (clone, state) in self.ledger.readers().read(|view| view.clones()).await? {
            if is_old(&state) {
                self.ask_clone(CloneOperation::Forget { clone }).await?;
            }
        }
        Ok(())
    }
}

/// Whether it has nothing left but what is to be erased, and nobody is to hear of it.
fn is_being_removed(state: &CloneState) -> bool {
    state.phase == ClonePhase::Erasing && state.reason.is_empty()
}

/// Whether a copy is over.
fn answer(outcome: Outcome) -> Result<bool, Error> {
    match outcome {
        Outcome::Cloning { is_over, .. } => Ok(is_over),
        Outcome::Refused(refusal) => Err(refusal.into()),
        outcome => Err(unexpected(&outcome)),
    }
}

fn published(state: CloneState) -> Result<CloneState, Error> {
    match state.phase {
        ClonePhase::Failed => Err(Error::Invalid(format!("nothing was copied: {}", state.reason))),
        ClonePhase::Done | ClonePhase::Copying | ClonePhase::Erasing => Ok(state),
    }
}
