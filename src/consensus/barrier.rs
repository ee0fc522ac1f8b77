//! Linearizable reads: callers that come while one ReadIndex round runs share the next.
//!
//! A round that began after a call began sees all that was acknowledged before the call: so a caller never joins a
//! round that is under way.

use tokio::sync::{mpsc, oneshot};

use super::raft::Core;
use crate::catalog::LedgerError;
use crate::ids::LogIndex;

type Waiter = oneshot::Sender<Result<LogIndex, String>>;

/// Asks for rounds; clones share them.
#[derive(Clone)]
pub(super) struct Barrier {
    waiters: mpsc::UnboundedSender<Waiter>,
}

impl Barrier {
    /// Runs rounds until the last handle is gone.
    pub(super) fn spawn(core: Core) -> Barrier {
        let (waiters, queue) = mpsc::unbounded_channel();
        tokio::spawn(run(core, queue));
        Barrier { waiters }
    }

    /// Returns when this node has applied everything acknowledged before the call; how far it has.
    pub(super) async fn pass(&self) -> Result<LogIndex, LedgerError> {
        let closed = |()| LedgerError::Unavailable("the node has stopped".into());
        let (tell, told) = oneshot::channel();
        self.waiters.send(tell).map_err(|_| closed(()))?;
        told.await.map_err(|_| closed(()))?.map_err(LedgerError::Unavailable)
    }
}

async fn run(core: Core, mut queue: mpsc::UnboundedReceiver<Waiter>) {
    let mut round = Vec::new();
    while queue.recv_many(&mut round, usize::MAX).await > 0 {
        let result = core.read_index().await.map_err(|error| error.to_string());
        for waiter in round.drain(..) {
            // A caller may have given up.
            let _ = waiter.send(result.clone());
        }
    }
}
