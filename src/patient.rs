//! Threads that may block: what would be handed to another thread because it blocks for a moment is done by them on the spot.
//! Each hand-over costs two wake-ups, which is more than most of what is asked of a file system takes.
//!
//! A frontend that has threads of its own begins its work with [`begin`]; who would block asks [`may_block`].

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

thread_local! {
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread may block for a short while: for a query, for a write to the page cache.
pub fn may_block() -> bool {
    MAY_BLOCK.get()
}

/// Work that is a future.
pub type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Does as much of `work` as can be done now, on this thread, which may block. Gives the work back if it waits for something:
/// it goes on wherever it is polled next.
pub fn begin<T>(mut work: Work<T>) -> Result<T, Work<T>> {
    let _back = Back(MAY_BLOCK.replace(true));
    // Whoever goes on with it polls it first of all, and is woken then.
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Ok(outcome),
        Poll::Pending => Err(work),
    }
}

/// Says what was said before, even if the work panics.
struct Back(bool);

impl Drop for Back {
    fn drop(&mut self) {
        MAY_BLOCK.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_not_wait_is_done_on_the_spot() {
        assert!(!may_block());
        assert_eq!(begin(Box::pin(async { may_block() })).ok(), Some(true));
        assert!(!may_block());
    }

    #[tokio::test]
    async fn what_waits_goes_on_elsewhere() {
        let (finish, finished) = tokio::sync::oneshot::channel::<u32>();
        let work = async move {
            let begun = may_block();
            (begun, finished.await.unwrap_or_default(), may_block())
        };
        let Err(rest) = begin(Box::pin(work)) else { panic!("it had nothing to wait for") };
        let rest = tokio::spawn(rest);
        let _ = finish.send(7);
        assert_eq!(rest.await.ok(), Some((true, 7, false)));
    }
}
