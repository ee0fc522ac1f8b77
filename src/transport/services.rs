//! The services of this process: found for peers that call, and called directly by whoever is in the process.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::time::{Instant, timeout_at};

use super::frame::{Refusal, check_header_len};
use super::message::until;
use super::{Call, CallError, Peer, Reply, Service};

/// Which service answers which calls.
pub(super) struct Services {
    /// What this process is.
    own: Arc<[Peer]>,
    /// `None`: no more.
    by_number: RwLock<Option<Table>>,
}

type Table = BTreeMap<(Peer, u8), Arc<dyn Service>>;

impl Services {
    pub(super) fn new(own: Arc<[Peer]>) -> Services {
        Services { own, by_number: RwLock::new(Some(Table::new())) }
    }

    /// Whether `peer` is (in) this process.
    pub(super) fn is_own(&self, peer: Peer) -> bool {
        self.own.contains(&peer)
    }

    /// Lets `service` answer calls to `peer` whose method begins with `number`.
    pub(super) fn insert(&self, peer: Peer, number: u8, service: Arc<dyn Service>) {
        assert!(self.is_own(peer), "{peer} is not in this process");
        let mut by_number = self.by_number.write().unwrap_or_else(PoisonError::into_inner);
        let Some(services) = by_number.as_mut() else { return };
        assert!(services.insert((peer, number), service).is_none(), "{peer} has service {number} already");
    }

    /// Forgets all services, which may well hold on to what holds us; there are no more from now on.
    pub(super) fn close(&self) {
        let services = self.by_number.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(services);
    }

    /// Who answers `method` of `to`.
    pub(super) fn find(&self, to: Peer, method: u16) -> Result<Arc<dyn Service>, Refusal> {
        if !self.is_own(to) {
            return Err(Refusal::NotHere);
        }
        let [number, _] = method.to_be_bytes();
        let by_number = self.by_number.read().unwrap_or_else(PoisonError::into_inner);
        let services = by_number.as_ref().ok_or(Refusal::Closing)?;
        services.get(&(to, number)).cloned().ok_or(Refusal::NoService)
    }

    /// Calls a service of this process.
    pub(super) async fn call(&self, to: Peer, call: Call, deadline: Instant) -> Result<Reply, CallError> {
        let service = self.find(to, call.method).map_err(|refusal| CallError::Never(to, refusal.to_string()))?;
        let served = timeout_at(deadline, service.serve(&self.own, call)).await;
        let mut reply = served.map_err(|_| CallError::Unknown(to, "the deadline has passed".to_owned()))?;
        check_header_len(reply.header.len() as u64).map_err(|error| CallError::Unknown(to, error.to_string()))?;
        if reply.body.len_bytes > 0 {
            reply.body.stream = until(deadline, reply.body.stream);
        }
        Ok(reply)
    }
}
