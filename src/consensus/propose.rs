//! Proposals: to this node if it leads, otherwise to whoever does, until the outcome is known or time is up.
//!
//! Invariants
//! - What was refused before any log had it may be proposed again by anyone: its fate is that of the next try.
//! - Once a try's fate is unknown, only a command whose outcome `apply` remembers is tried again, so that it is applied
//!   at most once and answered with its first outcome. Any other is answered with `Unknown`.
//! - After an unknown try nothing but an outcome is definite: that the session has ended since says nothing about it.
//! - A forwarded command is proposed where it arrives or not at all: it is never forwarded twice. It is meant for the log
//!   of the leader, and not for what may have taken the place of that.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use openraft::errors::ClientWriteError;
use tokio::time::{Instant, timeout_at};

use super::admission::Proposed;
use super::core::Core;
use super::message::{Method, Proposal, encode, status};
use super::network::{AskError, ask_raw};
use super::types::Command;
use crate::catalog::{Envelope, LedgerError, Outcome, Refusal};
use crate::ids::SessionId;
use crate::transport::CallError;

/// A longer command is refused: a log record and a transaction have bounds.
pub(super) const COMMAND_MAX_LEN: usize = 4 << 20;
/// Between two tries while there is no leader: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How long another node has for a command that may be tried again.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Whether `apply` knows the command again: it keeps outcomes of sessions only, under their sequences.
pub(super) fn is_remembered(envelope: &Envelope) -> bool {
    envelope.session != SessionId(0) && envelope.seq != 0
}

/// What came of one try.
#[derive(Debug)]
pub(super) enum Tried {
    /// It was applied.
    Done(Outcome),
    /// No log has it: nobody leads here, or not any more.
    NotLed,
    /// No log has it, and trying again is no use.
    Never(LedgerError),
    /// It may be applied, or may still be.
    Unknown(String),
}

impl Core {
    /// Commits `command`. `is_remembered`: whether `apply` knows it again.
    pub(super) async fn propose(&self, command: Command, is_remembered: bool) -> Result<Outcome, LedgerError> {
        if command.0.len() > COMMAND_MAX_LEN {
            return Err(LedgerError::Unavailable(format!("a command of {} bytes is too long", command.0.len())));
        }
        let deadline = Instant::now() + self.timeout;
        let (mut pause, mut unknown) = (PAUSE_MIN, None);
        loop {
            match (self.try_propose(&command, is_remembered, deadline).await, unknown.take()) {
                (Tried::Done(Outcome::Refused(Refusal::NoSession)), Some(why)) => {
                    return Err(LedgerError::Unknown(why));
                }
                (Tried::Done(outcome), _) => return Ok(outcome),
                (Tried::Never(error), None) => return Err(error),
                (Tried::Never(_), Some(why)) => return Err(LedgerError::Unknown(why)),
                (Tried::Unknown(why), _) if !is_remembered => return Err(LedgerError::Unknown(why)),
                (Tried::Unknown(why), _) => unknown = Some(why),
                (Tried::NotLed, before) => unknown = before,
            }
            if Instant::now() + pause >= deadline {
                let nobody = || LedgerError::Unavailable("there is no leader".into());
                return Err(unknown.map_or_else(nobody, LedgerError::Unknown));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn try_propose(&self, command: &Command, is_remembered: bool, deadline: Instant) -> Tried {
        match self.leader() {
            Some(leader) if leader != self.node => self.try_there(leader, command, is_remembered, deadline).await,
            _ => self.try_here(command.clone(), is_remembered, deadline).await,
        }
    }

    /// Proposes to this node. What may be tried again is waited for only while this node leads: whoever leads after it
    /// knows sooner.
    pub(super) async fn try_here(&self, command: Command, is_remembered: bool, deadline: Instant) -> Tried {
        let room = match self.admission.admit(&command) {
            Ok(room) => room,
            Err(error) => return Tried::Never(error),
        };
        let (proposed, response) = Proposed::new(room);
        if let Err(error) = self.raft.client_write_ff(command, Some(proposed)).await {
            return Tried::Never(LedgerError::Unavailable(error.to_string()));
        }
        let answer = async {
            match response.await {
                Err(_) => Tried::Unknown("the node stopped".into()),
                Ok(Ok(response)) => Tried::Done(response.data),
                // openraft says this only of what it has not appended.
                Ok(Err(ClientWriteError::ForwardToLeader(_))) => Tried::NotLed,
                Ok(Err(error)) => Tried::Unknown(error.to_string()),
            }
        };
        let patient = async {
            // Alone, there is nobody to lead after this node.
            match is_remembered && !self.alone.load(Ordering::SeqCst) {
                false => answer.await,
                true => match select(pin!(answer), pin!(self.another_leads())).await {
                    Either::Left((tried, _)) => tried,
                    Either::Right(_) => Tried::Unknown("this node no longer leads".into()),
                },
            }
        };
        timeout_at(deadline, patient).await.unwrap_or_else(|_| Tried::Unknown("no answer in time".into()))
    }

    /// Proposes to the node `leader`, for as long as it is taken to lead, or until the deadline if there is one try only.
    async fn try_there(&self, leader: u64, command: &Command, is_remembered: bool, deadline: Instant) -> Tried {
        let _room = match self.admission.admit(command) {
            Ok(room) => room,
            Err(error) => return Tried::Never(error),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = if is_remembered { left.min(PATIENCE) } else { left };
        let Some(question) = self.addressed(leader, Proposal { command: command.0.clone() }) else {
            return Tried::NotLed;
        };
        let header = encode(&question);
        let asking = pin!(ask_raw(&*self.caller, leader, Method::Propose, header, patience));
        if !is_remembered {
            return tried(asking.await);
        }
        match select(asking, pin!(self.leader_changes(leader))).await {
            Either::Left((answer, _)) => tried(answer),
            Either::Right(_) => Tried::Unknown(format!("node {leader} no longer leads")),
        }
    }
}

/// What the leader's answer says.
fn tried(answer: Result<Bytes, AskError>) -> Tried {
    match answer {
        Ok(outcome) => Outcome::decode(&outcome).map_or_else(|error| Tried::Unknown(error.to_string()), Tried::Done),
        Err(AskError::Status(status::NOT_LEADER, _) | AskError::Call(CallError::Never(..))) => Tried::NotLed,
        Err(AskError::Status(status::OVERLOADED, _)) => Tried::Never(LedgerError::Overloaded),
        Err(AskError::Status(status::UNKNOWN, why)) => Tried::Unknown(why),
        Err(AskError::Status(status::REFUSED, why)) => Tried::Never(LedgerError::Unavailable(why)),
        // Stopped or stopping, or another log than the leader's: it says that it did nothing, and another may lead soon.
        Err(AskError::Status(..)) => Tried::NotLed,
        Err(error) => Tried::Unknown(error.to_string()),
    }
}
