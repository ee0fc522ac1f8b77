//! Tells the kernel what changed behind its back.
//!
//! A notification may wait inside the kernel for a request that is being answered (the kernel locks the directory, the page).
//! So one thread sends them, which holds no lock meanwhile and on which no request waits. Events queue up for it; if too many
//! do, they become one: everything.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use predastore::ids::Ino;
use tokio::sync::oneshot;

/// Events that wait at most.
const QUEUE_MAX: usize = 1 << 16;

/// Something changed that this mount's kernel did not do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// An inode's bytes or attributes.
    Inode(Ino),
    /// A name: it came, went, or names another inode.
    Entry {
        /// The directory.
        parent: Ino,
        /// The name in it.
        name: Vec<u8>,
    },
    /// Anything: what happened was not heard.
    Everything,
}

/// How the kernel is told. What it does not know it ignores.
pub(crate) trait Notify {
    /// Pages and attributes of the inode are stale.
    fn inode(&self, ino: Ino);
    /// The name is stale.
    fn entry(&self, parent: Ino, name: &[u8]);
    /// Every name is stale; where the kernel cannot be told so, names age by their TTL.
    fn entries(&self);
}

/// Events on their way.
#[derive(Default, Debug)]
pub(crate) struct Invalidations {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default, Debug)]
struct Queue {
    /// With their numbers, from 1.
    events: VecDeque<(u64, Event)>,
    last: u64,
    /// All up to this one are told.
    told: u64,
    /// Who waits until one of this number is told.
    waiting: Vec<(u64, oneshot::Sender<()>)>,
    closed: bool,
}

impl Invalidations {
    /// Returns at once.
    pub(crate) fn push(&self, event: Event) {
        let mut queue = self.lock();
        if queue.closed || queue.events.back().is_some_and(|(_, last)| *last == event) {
            return;
        }
        queue.last += 1;
        let number = queue.last;
        if queue.events.len() >= QUEUE_MAX || event == Event::Everything {
            queue.events.clear();
            queue.events.push_back((number, Event::Everything));
        } else {
            queue.events.push_back((number, event));
        }
        self.changed.notify_one();
    }

    /// Waits until the kernel was told of all that was pushed before, or never will be.
    pub(crate) async fn told(&self) {
        let told = {
            let mut queue = self.lock();
            if queue.closed || queue.told == queue.last {
                return;
            }
            let (teller, told) = oneshot::channel();
            let last = queue.last;
            queue.waiting.push((last, teller));
            told
        };
        // It is dropped where the thread ends.
        let _ = told.await;
    }

    /// Whether no event is taken any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The thread ends, and no event is taken any more.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.events.clear();
        queue.waiting.clear();
        self.changed.notify_one();
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().events.is_empty()
    }

    /// Sends what comes until closed. `known`: the inodes that the kernel knows.
    pub(crate) fn run(&self, notify: &impl Notify, known: impl Fn() -> Vec<Ino>) {
        while let Some((number, event)) = self.next() {
            match event {
                Event::Inode(ino) => notify.inode(ino),
                Event::Entry { parent, name } => notify.entry(parent, &name),
                Event::Everything => {
                    notify.entries();
                    known().into_iter().for_each(|ino| notify.inode(ino));
                }
            }
            self.has_told(number);
        }
    }

    fn has_told(&self, number: u64) {
        let mut queue = self.lock();
        queue.told = number;
        for (_, waiter) in queue.waiting.extract_if(.., |(until, _)| *until <= number) {
            // Who does not wait any more has dropped the other end.
            let _ = waiter.send(());
        }
    }

    fn next(&self) -> Option<(u64, Event)> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(event) = queue.events.pop_front() {
                return Some(event);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, mpsc};

    use super::*;

    struct Told(mpsc::Sender<String>);

    impl Notify for Told {
        fn inode(&self, ino: Ino) {
            self.0.send(format!("inode {ino}")).unwrap();
        }

        fn entry(&self, parent: Ino, name: &[u8]) {
            self.0.send(format!("entry {} in {parent}", String::from_utf8_lossy(name))).unwrap();
        }

        fn entries(&self) {
            self.0.send("entries".to_owned()).unwrap();
        }
    }

    #[test]
    fn events_are_told_in_order_until_closed() {
        let invalidations = Arc::new(Invalidations::default());
        let (sender, told) = mpsc::channel();
        let thread = std::thread::spawn({
            let invalidations = invalidations.clone();
            move || invalidations.run(&Told(sender), || vec![Ino(8), Ino(9)])
        });
        invalidations.push(Event::Inode(Ino(5)));
        assert_eq!(told.recv().unwrap(), "inode 5");
        invalidations.push(Event::Entry { parent: Ino(1), name: b"a".to_vec() });
        assert_eq!(told.recv().unwrap(), "entry a in 1");
        invalidations.push(Event::Everything);
        assert_eq!([(); 3].map(|()| told.recv().unwrap()), ["entries", "inode 8", "inode 9"]);
        invalidations.close();
        thread.join().unwrap();
        invalidations.push(Event::Everything);
        assert!(told.recv().is_err());
    }

    /// A kernel that takes its time.
    struct Slow(Arc<std::sync::atomic::AtomicU64>);

    impl Notify for Slow {
        fn inode(&self, _: Ino) {
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }

        fn entry(&self, _: Ino, _: &[u8]) {}

        fn entries(&self) {}
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_all_before_was_told() {
        let (invalidations, count) = (Arc::new(Invalidations::default()), Arc::default());
        invalidations.told().await;
        for ino in 1..=5 {
            invalidations.push(Event::Inode(Ino(ino)));
        }
        let thread = std::thread::spawn({
            let (invalidations, slow) = (invalidations.clone(), Slow(Arc::clone(&count)));
            move || invalidations.run(&slow, || vec![Ino(8), Ino(9)])
        });
        invalidations.told().await;
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 5);
        invalidations.push(Event::Inode(Ino(6)));
        invalidations.push(Event::Everything);
        invalidations.told().await;
        assert!(count.load(std::sync::atomic::Ordering::SeqCst) >= 7);
        invalidations.push(Event::Inode(Ino(7)));
        invalidations.close();
        invalidations.told().await;
        thread.join().unwrap();
    }

    #[test]
    fn too_many_events_become_one() {
        let invalidations = Invalidations::default();
        for ino in 0..=QUEUE_MAX as u64 {
            invalidations.push(Event::Inode(Ino(ino)));
        }
        assert_eq!(invalidations.lock().events, [(QUEUE_MAX as u64 + 1, Event::Everything)]);
        invalidations.push(Event::Everything);
        assert_eq!(invalidations.lock().events.len(), 1);
    }
}
