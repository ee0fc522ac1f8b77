//! ReadIndex rounds: callers that come while one runs share the next.
//!
//! A round that began after a call began sees all that was acknowledged before the call: so a caller never joins a
//! round that is under way.

use std::future::Future;

use tokio::sync::{mpsc, oneshot};

use super::read::Unconfirmed;

type Waiter = oneshot::Sender<Result<u64, Unconfirmed>>;

/// Asks for rounds; clones share them.
#[derive(Clone)]
pub(super) struct Barrier {
    waiters: mpsc::UnboundedSender<Waiter>,
}

impl Barrier {
    /// Runs rounds, each a call of `round`, until the last handle is gone.
    pub(super) fn spawn<F>(round: impl Fn() -> F + Send + 'static) -> Barrier
    where
        F: Future<Output = Result<u64, Unconfirmed>> + Send + 'static,
    {
        let (waiters, queue) = mpsc::unbounded_channel();
        tokio::spawn(run(round, queue));
        Barrier { waiters }
    }

    /// The index of a round that begins after the call.
    pub(super) async fn pass(&self) -> Result<u64, Unconfirmed> {
        let stopped = || Unconfirmed::Stopped("the node has stopped".into());
        let (tell, told) = oneshot::channel();
        self.waiters.send(tell).map_err(|_| stopped())?;
        told.await.map_err(|_| stopped())?
    }
}

async fn run<F>(round: impl Fn() -> F, mut queue: mpsc::UnboundedReceiver<Waiter>)
where
    F: Future<Output = Result<u64, Unconfirmed>>,
{
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, usize::MAX).await > 0 {
        let result = round().await;
        for waiter in waiting.drain(..) {
            // A caller may have given up.
            let _ = waiter.send(result.clone());
        }
    }
}
