//! What changed a moment ago, and so maybe while a request was being answered.
//!
//! An answer may tell what was so before a change, and reach the kernel after the notification of it: then the kernel would
//! believe the answer for as long as it believes anything. So whoever has answered looks here, and notifies once more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::invalidate::Event;

/// Longer than an answer takes from its snapshot to the kernel, short of a store that is away: then all ages by its TTL.
const MOMENT: Duration = Duration::from_secs(5);
/// Changes that are remembered; of more than that everything counts as changed.
const COUNT_MAX: usize = 1 << 14;

/// The changes of the last moment.
#[derive(Default, Debug)]
pub(crate) struct Lately(Mutex<Seen>);

#[derive(Default, Debug)]
struct Seen {
    events: HashMap<Event, Instant>,
    everything: Option<Instant>,
}

impl Lately {
    pub(crate) fn note(&self, event: &Event) {
        let now = Instant::now();
        let mut seen = self.lock();
        if seen.events.len() >= COUNT_MAX {
            seen.events.retain(|_, at| is_lately(*at, now));
        }
        if seen.events.len() >= COUNT_MAX || *event == Event::Everything {
            seen.events.clear();
            seen.everything = Some(now);
        } else {
            seen.events.insert(event.clone(), now);
        }
    }

    /// Whether it happened at `since` or later.
    pub(crate) fn has(&self, event: &Event, since: Instant) -> bool {
        let seen = self.lock();
        let at = seen.events.get(event).copied().max(seen.everything);
        at.is_some_and(|at| at >= since)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_lately(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < MOMENT
}

#[cfg(test)]
mod tests {
    use predastore::ids::Ino;

    use super::*;

    #[test]
    fn what_changed_is_known_for_a_moment() {
        let (lately, before) = (Lately::default(), Instant::now());
        let name = Event::Entry { parent: Ino(1), name: b"a".to_vec() };
        lately.note(&Event::Inode(Ino(5)));
        lately.note(&name);
        assert!(lately.has(&Event::Inode(Ino(5)), before) && lately.has(&name, before));
        assert!(!lately.has(&Event::Inode(Ino(6)), before));
        let between = Instant::now() + Duration::from_nanos(1);
        lately.note(&Event::Everything);
        assert!(lately.has(&Event::Inode(Ino(6)), before));
        assert!(!lately.has(&Event::Inode(Ino(5)), between + MOMENT));
    }

    #[test]
    fn of_too_much_everything_has_changed() {
        let (lately, before) = (Lately::default(), Instant::now());
        for ino in 0..=COUNT_MAX as u64 {
            lately.note(&Event::Inode(Ino(ino)));
        }
        assert!(lately.lock().events.len() <= COUNT_MAX);
        assert!(lately.has(&Event::Inode(Ino(u64::MAX)), before));
    }
}
