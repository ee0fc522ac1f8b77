//! How long to wait for what.

use std::time::Duration;

use super::health::Kind;

/// How long to wait for a call before it counts as slow: twice the node's recent p95, within bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hedge {
    pub(super) min: Duration,
    /// Where no p95 is known.
    pub(super) unknown: Duration,
    pub(super) max: Duration,
}

/// All waiting times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Deadline of every call that moves or deletes shards.
    pub(super) call: Duration,
    /// Deadline of a question for a node's status.
    pub(super) probe_deadline: Duration,
    /// Between two such questions.
    pub(super) probe_pause: Duration,
    /// Between two such questions to a node that is full.
    pub(super) full_pause: Duration,
    /// How long a node is left alone that did not answer; doubled while that repeats itself.
    pub(super) hold_min: Duration,
    /// At most so long.
    pub(super) hold_max: Duration,
    /// How long too few nodes are put up with before that is an error.
    pub(super) patience: Duration,
    /// So much of a node's p95 makes it as much dearer to read from as it costs to read a frame at hand.
    pub(super) slow_cost_per: Duration,
    pub(super) read: Hedge,
    pub(super) push: Hedge,
    pub(super) store: Hedge,
}

impl Timing {
    pub(super) fn hedge(&self, kind: Kind) -> Hedge {
        match kind {
            Kind::Read => self.read,
            Kind::Push => self.push,
            Kind::Store => self.store,
        }
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            call: ms(15_000),
            probe_deadline: ms(1000),
            probe_pause: ms(300),
            full_pause: ms(2000),
            hold_min: ms(250),
            hold_max: ms(30_000),
            patience: ms(3000),
            slow_cost_per: ms(8),
            read: Hedge { min: ms(20), unknown: ms(200), max: ms(1000) },
            // A shard given up in the middle costs a repair: not for a hiccup.
            push: Hedge { min: ms(500), unknown: ms(1000), max: ms(2000) },
            store: Hedge { min: ms(100), unknown: ms(1000), max: ms(2000) },
        }
    }
}
