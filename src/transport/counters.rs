//! What the transport has done so far, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Class, Peer};

/// Counts, from the start of the process.
#[derive(Default, Debug)]
pub(super) struct Counters {
    /// Calls to other processes.
    pub(super) calls: Counter,
    /// Calls to this process's own services.
    pub(super) local_calls: Counter,
    /// Calls, of either kind, without a reply: not begun.
    pub(super) never: Counter,
    /// Calls, of either kind, without a reply: not known to be served.
    pub(super) unknown: Counter,
    /// Calls from other processes that were begun.
    pub(super) served: Counter,
    /// Calls from other processes that were refused.
    pub(super) refused: Counter,
    /// Streams of authenticated peers that were no calls.
    pub(super) malformed: Counter,
    /// Connections that were not let in: no member of the cluster, or too many.
    pub(super) rejected: Counter,
    /// Bytes of frames, headers and bodies.
    pub(super) sent_bytes: Counter,
    /// Bytes of frames, headers and bodies.
    pub(super) received_bytes: Counter,
}

/// One count.
#[derive(Default, Debug)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the transport has done since its start.
#[derive(Clone, Default, Debug)]
pub struct Stats {
    /// Calls to other processes.
    pub calls: u64,
    /// Calls to this process's own services.
    pub local_calls: u64,
    /// Calls, of either kind, that ended in [`CallError::Never`](super::CallError::Never).
    pub never: u64,
    /// Calls, of either kind, that ended in [`CallError::Unknown`](super::CallError::Unknown). A caller that went away is
    /// not among them.
    pub unknown: u64,
    /// Calls from other processes that a service was asked to serve.
    pub served: u64,
    /// Calls from other processes that were refused.
    pub refused: u64,
    /// Streams of authenticated peers that were no calls.
    pub malformed: u64,
    /// Connections that were not let in.
    pub rejected: u64,
    /// Bytes of frames, headers and bodies handed to the network.
    pub sent_bytes: u64,
    /// Bytes of frames, headers and bodies taken from it.
    pub received_bytes: u64,
    /// The connections that this process dials.
    pub links: Vec<LinkStats>,
}

/// One connection that this process keeps to another, or tries to.
#[derive(Clone, Debug)]
pub struct LinkStats {
    /// As in the address book.
    pub address: String,
    /// Of its calls.
    pub class: Class,
    /// What the other process has proven to be; empty while there is no connection.
    pub peers: Vec<Peer>,
    /// Round trip; `None` while there is no connection.
    pub rtt: Option<Duration>,
    /// Datagrams' largest payload, bytes; 0 while there is no connection.
    pub mtu_bytes: u16,
    /// Packets sent on the connection there is.
    pub sent_packets: u64,
    /// Those of them that were lost.
    pub lost_packets: u64,
    /// Connections made so far: all but the first are reconnections.
    pub connects: u64,
    /// Attempts that failed.
    pub failures: u64,
}

impl Counters {
    pub(super) fn stats(&self, links: Vec<LinkStats>) -> Stats {
        Stats {
            calls: self.calls.get(),
            local_calls: self.local_calls.get(),
            never: self.never.get(),
            unknown: self.unknown.get(),
            served: self.served.get(),
            refused: self.refused.get(),
            malformed: self.malformed.get(),
            rejected: self.rejected.get(),
            sent_bytes: self.sent_bytes.get(),
            received_bytes: self.received_bytes.get(),
            links,
        }
    }
}
