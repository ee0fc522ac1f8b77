//! Deadlines, and trying again.
//!
//! - A request is answered by its deadline whatever the store does; with `hard` it has none.
//! - What the store refused because it is overloaded did not happen: it is tried again until the deadline.
//! - What became of a change is unknown where the store went away under it: such a call is tried again only with `hard`, and
//!   only if doing it twice is doing it once, by itself or because the store knows what it did for a request.

use std::future::Future;
use std::time::Duration;

use predastore::object::Error;
use predastore::object::tree::once_more;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// When a request must have been answered; none: it waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

/// Whether a call may be made again after one whose outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repeat {
    /// Twice is once.
    Safe,
    /// The store does it once for each request of the kernel's.
    Known,
    /// A second one could find the work of the first.
    Once,
}

impl Deadline {
    /// `hard`: none at all.
    pub(crate) fn after(limit: Duration, hard: bool) -> Self {
        Deadline((!hard).then(|| Instant::now() + limit))
    }

    /// Whether the request has been answered without waiting for its outcome, or is about to be.
    pub(crate) fn has_passed(self) -> bool {
        self.0.is_some_and(|at| Instant::now() >= at)
    }

    /// Makes the call, again where that may help.
    ///
    /// # Errors
    /// Those of the last call.
    pub(crate) async fn persist<R, F>(self, repeat: Repeat, call: impl Fn() -> F) -> Result<R, Error>
    where
        F: Future<Output = Result<R, Error>>,
    {
        let (mut pause, mut is_again) = (FIRST_PAUSE, false);
        loop {
            let outcome = if is_again { once_more(call()).await } else { call().await };
            match outcome {
                Err(error) if self.again(&error, repeat, pause) => {
                    is_again |= matches!(error, Error::Unavailable(_));
                    tokio::time::sleep(pause).await;
                }
                outcome => return outcome,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn again(self, error: &Error, repeat: Repeat, pause: Duration) -> bool {
        match error {
            Error::Overloaded => self.0.is_none_or(|at| Instant::now() + pause < at),
            Error::Unavailable(_) => self.0.is_none() && repeat != Repeat::Once,
            _ => false,
        }
    }

    /// Waits for `work` until the deadline. None: it is not done yet; it was not stopped.
    pub(crate) async fn wait<F: Future + Unpin>(self, work: &mut F) -> Option<F::Output> {
        match self.0 {
            Some(at) => tokio::time::timeout_at(at, work).await.ok(),
            None => Some(work.await),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Fails so many times, then succeeds.
    async fn tries(deadline: Deadline, repeat: Repeat, failures: u32, error: fn() -> Error) -> (bool, u32) {
        let count = AtomicU32::new(0);
        let outcome = deadline.persist(repeat, || {
            let nth = count.fetch_add(1, Ordering::Relaxed);
            async move { if nth < failures { Err(error()) } else { Ok(()) } }
        });
        let succeeded = outcome.await.is_ok();
        (succeeded, count.into_inner())
    }

    fn overloaded() -> Error {
        Error::Overloaded
    }

    fn unavailable() -> Error {
        Error::Unavailable(String::new())
    }

    #[tokio::test]
    async fn overload_is_waited_out_until_the_deadline() {
        let minute = Deadline::after(Duration::from_secs(60), false);
        assert_eq!(tries(minute, Repeat::Once, 3, overloaded).await, (true, 4));
        let short = Deadline::after(Duration::from_millis(20), false);
        let (succeeded, count) = tries(short, Repeat::Once, u32::MAX, overloaded).await;
        assert!(!succeeded && (2..10).contains(&count), "{count}");
    }

    #[tokio::test]
    async fn only_a_hard_mount_waits_for_a_store_that_is_away_and_only_with_what_is_safe() {
        let soft = Deadline::after(Duration::from_secs(60), false);
        assert_eq!(tries(soft, Repeat::Safe, 1, unavailable).await, (false, 1));
        let hard = Deadline::after(Duration::ZERO, true);
        assert_eq!(tries(hard, Repeat::Safe, 2, unavailable).await, (true, 3));
        assert_eq!(tries(hard, Repeat::Known, 2, unavailable).await, (true, 3));
        assert_eq!(tries(hard, Repeat::Once, 1, unavailable).await, (false, 1));
    }

    #[tokio::test]
    async fn work_goes_on_after_the_deadline() {
        let (finish, finished) = tokio::sync::oneshot::channel();
        let mut work = Box::pin(finished);
        assert!(Deadline::after(Duration::from_millis(1), false).wait(&mut work).await.is_none());
        finish.send(7).unwrap();
        assert_eq!(work.await, Ok(7));
    }
}
