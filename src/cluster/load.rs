//! How busy boxes are, as each says of itself: a hint whom to ask, and for whoever looks.
//!
//! Invariant: what is old counts for nothing. Nothing is decided by it but in what order nodes are asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use nix::sys::sysinfo::sysinfo;

use crate::ids::NodeId;

/// How long what was said counts.
const FRESH: Duration = Duration::from_secs(60);

/// What others said last.
#[derive(Default)]
pub struct Loads(Mutex<BTreeMap<NodeId, Told>>);

struct Told {
    percent: u16,
    at: Instant,
}

impl Loads {
    /// A box has said so, just now.
    pub fn tell(&self, node: NodeId, percent: u16) {
        self.with(|told| told.insert(node, Told { percent, at: Instant::now() }));
    }

    /// It is none any more.
    pub fn forget(&self, node: NodeId) {
        self.with(|told| told.remove(&node));
    }

    /// Tasks that ran or waited, for a processor or a disk, over the last minute: of 100 each processor had one. None: it has
    /// not said so lately.
    pub fn percent(&self, node: NodeId) -> Option<u16> {
        self.with(|told| told.get(&node).filter(|told| told.at.elapsed() < FRESH).map(|told| told.percent))
    }

    /// Of all that have said so lately.
    pub fn all(&self) -> Vec<(NodeId, u16)> {
        self.with(|told| {
            told.iter()
                .filter(|(_, told)| told.at.elapsed() < FRESH)
                .map(|(node, told)| (*node, told.percent))
                .collect()
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<NodeId, Told>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The load of this box, in percent. None: the system does not tell. A system call, since a sandboxed service has no /proc.
pub fn own_percent() -> Option<u16> {
    let processors = available_parallelism().ok()?.get();
    let (last_minute, _, _) = sysinfo().ok()?.load_average();
    Some((last_minute * 100.0 / processors as f64).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_counts_until_it_is_forgotten() {
        let loads = Loads::default();
        loads.tell(NodeId(2), 40);
        loads.tell(NodeId(1), 250);
        loads.tell(NodeId(2), 7);
        assert_eq!(loads.all(), [(NodeId(1), 250), (NodeId(2), 7)]);
        loads.forget(NodeId(1));
        assert_eq!((loads.percent(NodeId(1)), loads.percent(NodeId(2))), (None, Some(7)));
    }

    #[test]
    fn the_system_tells_the_load() {
        assert!(own_percent().is_some());
    }
}
