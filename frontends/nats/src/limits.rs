//! How many requests at once, and how much memory they hold.
//!
//! Invariants
//! - What a message holds is taken before it waits for anything, and at once or not at all: a bus that sends more than is
//!   answered is told `SlowDown`, and no queue grows.
//! - Memory for messages, then a turn, then memory for an answer, then the store's own budget: always in this order, so
//!   nobody waits for somebody who waits for him.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const UNIT_BYTES: usize = 1024;
/// Messages that are answered or wait for their turn.
const WAITING_MAX: usize = 2048;
/// Requests in work.
const RUNNING_MAX: usize = 64;
/// How long a message waits for its turn, and for memory for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The limits.
pub struct Limits {
    waiting: Arc<Semaphore>,
    messages: Arc<Semaphore>,
    running: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    half_bytes: usize,
    patience: Duration,
}

/// Too much at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many requests at once")]
pub struct Overloaded;

/// A message's share; given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    _waiting: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
}

/// A turn, or memory for an answer; given back when dropped.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "held, not looked at")] OwnedSemaphorePermit);

impl Limits {
    /// `memory_bytes`: for messages and answers together.
    pub fn new(memory_bytes: u64) -> Self {
        let half_bytes = usize::try_from(memory_bytes / 2).unwrap_or(usize::MAX).min(u32::MAX as usize);
        let half = || Arc::new(Semaphore::new(units(half_bytes) as usize));
        Limits {
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            messages: half(),
            running: Arc::new(Semaphore::new(RUNNING_MAX)),
            answers: half(),
            half_bytes,
            patience: PATIENCE,
        }
    }

    /// The longest answer that fits at all, bytes.
    pub fn answer_max_bytes(&self) -> usize {
        self.half_bytes
    }

    /// Whether a message that holds so much can ever be admitted.
    pub fn could_admit(&self, bytes: usize) -> bool {
        bytes <= self.half_bytes
    }

    /// Admits a message that holds `bytes`, if that can be done now.
    ///
    /// # Errors
    /// `Overloaded`.
    pub fn admit(&self, bytes: usize) -> Result<Admitted, Overloaded> {
        let waiting = self.waiting.clone().try_acquire_owned().map_err(|_| Overloaded)?;
        let memory = self.messages.clone().try_acquire_many_owned(units(bytes)).map_err(|_| Overloaded)?;
        Ok(Admitted { _waiting: waiting, _memory: memory })
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// `Overloaded`: it took too long.
    pub async fn turn(&self) -> Result<Held, Overloaded> {
        self.take(&self.running, 1).await
    }

    /// Waits for memory for an answer of `bytes`, at most [`Limits::answer_max_bytes`].
    ///
    /// # Errors
    /// `Overloaded`: it took too long.
    pub async fn answer(&self, bytes: usize) -> Result<Held, Overloaded> {
        self.take(&self.answers, units(bytes.min(self.half_bytes))).await
    }

    async fn take(&self, semaphore: &Arc<Semaphore>, count: u32) -> Result<Held, Overloaded> {
        match tokio::time::timeout(self.patience, semaphore.clone().acquire_many_owned(count)).await {
            Ok(Ok(permit)) => Ok(Held(permit)),
            Ok(Err(_)) | Err(_) => Err(Overloaded),
        }
    }
}

/// At least one, so that a flood of empty messages is bounded too.
fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES).max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn messages_and_answers_have_memory_of_their_own() {
        let limits = Limits::new(64 << 10);
        let first = limits.admit(20 << 10).unwrap();
        assert_eq!(limits.admit(20 << 10).unwrap_err(), Overloaded);
        let answer = limits.answer(limits.answer_max_bytes()).await.unwrap();
        drop(first);
        limits.admit(32 << 10).unwrap();
        drop(answer);
        limits.answer(1 << 30).await.unwrap();
        assert!(limits.could_admit(32 << 10) && !limits.could_admit((32 << 10) + 1));
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_so() {
        let limits = Limits { patience: Duration::from_millis(1), ..Limits::new(1 << 20) };
        let turns: Vec<_> = futures::future::join_all((0..RUNNING_MAX).map(|_| limits.turn())).await;
        assert!(turns.iter().all(Result::is_ok));
        assert_eq!(limits.turn().await.unwrap_err(), Overloaded);
    }

    #[test]
    fn empty_messages_are_counted() {
        let limits = Limits::new(1 << 30);
        let admitted: Vec<_> = (0..WAITING_MAX).map(|_| limits.admit(0).unwrap()).collect();
        assert_eq!(limits.admit(0).unwrap_err(), Overloaded);
        drop(admitted);
        limits.admit(0).unwrap();
    }
}
