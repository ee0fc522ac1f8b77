//! What the kernel may keep of a file's pages, what an open file's handle says, and what this process remembers for a moment.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use predastore::ids::Ino;

/// Inodes that either table holds; a full one starts again from nothing, which costs requests and nothing else.
const INODES_MAX: usize = 1 << 16;

/// Bits of a handle that tell one open from another.
const TAG_BITS: u32 = 12;

/// Handles of open files. A request finds all it needs in its handle, whatever process has given that: one has the revision
/// that its open saw, and a number that opens shortly before and after do not have, nor, most likely, those of the process
/// before. What is kept here tells only which opens this process has answered.
#[derive(Debug)]
pub(crate) struct Handles {
    next: AtomicU64,
    open: Mutex<HashMap<(Ino, u64), u32>>,
}

impl Default for Handles {
    /// Begins anywhere.
    fn default() -> Self {
        Handles { next: AtomicU64::new(RandomState::new().hash_one(())), open: Mutex::default() }
    }
}

impl Handles {
    /// Of a file or directory that is opened.
    pub(crate) fn next(&self, ino: Ino, revision: u64) -> u64 {
        let tag = self.next.fetch_add(1, Ordering::Relaxed) & ((1 << TAG_BITS) - 1);
        let handle = revision << TAG_BITS | tag;
        *self.lock().entry((ino, handle)).or_default() += 1;
        handle
    }

    /// An open has ended. Whether this process had answered it.
    pub(crate) fn ended(&self, ino: Ino, handle: u64) -> bool {
        let mut open = self.lock();
        let Some(count) = open.get_mut(&(ino, handle)) else { return false };
        *count -= 1;
        if *count == 0 {
            open.remove(&(ino, handle));
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Ino, u64), u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revision that the open saw. Of one that is too large for that (2^40 entries of the log), something else, which is
    /// no file's: its pages are not kept.
    fn revision(handle: u64) -> u64 {
        handle >> TAG_BITS
    }
}

/// Which revision of each file the kernel's pages hold at least.
///
/// An open that does not say "keep" makes the kernel drop the inode's pages, waiting for READs under way, before the opener
/// goes on. So from then on its pages are of the revision that the open saw, or later. But when that has happened is not
/// told: another open that comes in between must not keep pages that are about to go. What tells it is a request on a handle
/// of that open, so handles carry the revision that their open saw: see [`Handles`].
#[derive(Default, Debug)]
pub(crate) struct Pages(Mutex<HashMap<Ino, Kept>>);

#[derive(Clone, Copy, Debug)]
struct Kept {
    revision: u64,
    dropped_older: bool,
}

impl Pages {
    /// A file of this revision is opened. Returns whether the kernel may keep its pages.
    pub(crate) fn opened(&self, ino: Ino, revision: u64) -> bool {
        let mut inodes = self.lock();
        if let Some(kept) = inodes.get(&ino).filter(|kept| kept.revision == revision) {
            return kept.dropped_older;
        }
        bounded(&mut inodes).insert(ino, Kept { revision, dropped_older: false });
        false
    }

    /// The file was made by this request: there are no pages of it.
    pub(crate) fn made(&self, ino: Ino, revision: u64) {
        bounded(&mut self.lock()).insert(ino, Kept { revision, dropped_older: true });
    }

    /// A request came on a handle.
    pub(crate) fn used(&self, ino: Ino, handle: u64) {
        let revision = Handles::revision(handle);
        if let Some(kept) = self.lock().get_mut(&ino).filter(|kept| kept.revision == revision) {
            kept.dropped_older = true;
        }
    }

    /// The kernel has forgotten the inode, pages and all.
    pub(crate) fn forgotten(&self, ino: Ino) {
        self.lock().remove(&ino);
    }

    /// Nothing may be kept.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ino, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Values that may be believed for a moment: as long as the kernel believes attributes.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    ttl: Duration,
    values: Mutex<HashMap<Ino, (V, Instant)>>,
}

impl<V: Clone> Recent<V> {
    pub(crate) fn new(ttl: Duration) -> Self {
        Recent { ttl, values: Mutex::default() }
    }

    pub(crate) fn get(&self, ino: Ino) -> Option<V> {
        let values = self.lock();
        values.get(&ino).filter(|(_, since)| since.elapsed() < self.ttl).map(|(value, _)| value.clone())
    }

    /// `asked`: when the question was put whose answer this is.
    pub(crate) fn put(&self, ino: Ino, value: V, asked: Instant) {
        bounded(&mut self.lock()).insert(ino, (value, asked));
    }

    pub(crate) fn remove(&self, ino: Ino) {
        self.lock().remove(&ino);
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ino, (V, Instant)>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounded<V>(inodes: &mut HashMap<Ino, V>) -> &mut HashMap<Ino, V> {
    if inodes.len() >= INODES_MAX {
        inodes.clear();
    }
    inodes
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Ino = Ino(5);

    #[test]
    fn pages_are_kept_once_the_first_opener_is_known_to_have_dropped_older_ones() {
        let (pages, handles) = (Pages::default(), Handles::default());
        let (one, two) = (handles.next(FILE, 1), handles.next(FILE, 2));
        assert!(!pages.opened(FILE, 1));
        assert!(!pages.opened(FILE, 1), "the first opener may not have got its answer yet");
        pages.used(FILE, one);
        assert!(pages.opened(FILE, 1));
        assert!(!pages.opened(FILE, 2));
        pages.used(FILE, one);
        assert!(!pages.opened(FILE, 2), "a handle of the older revision proves nothing");
        pages.used(FILE, two);
        assert!(pages.opened(FILE, 2));
        assert!(!pages.opened(FILE, 1), "an open that saw less is as strange as one that saw more");
    }

    #[test]
    fn opens_one_after_another_have_handles_of_their_own() {
        let handles = Handles::default();
        let seen: std::collections::HashSet<u64> = (0..1 << TAG_BITS).map(|_| handles.next(FILE, 7)).collect();
        assert_eq!(seen.len(), 1 << TAG_BITS);
        assert!(seen.iter().all(|handle| Handles::revision(*handle) == 7));
        assert_eq!(Handles::revision(handles.next(FILE, (1 << 52) - 1)), (1 << 52) - 1);
    }

    #[test]
    fn an_open_ends_once_and_where_it_began() {
        let (before, handles) = (Handles::default(), Handles::default());
        let old = before.next(FILE, 1);
        let new = handles.next(FILE, 2);
        assert!(!handles.ended(FILE, old) && !handles.ended(Ino(FILE.0 + 1), new));
        assert!(handles.ended(FILE, new));
        assert!(!handles.ended(FILE, new));
        let all: Vec<_> = (0..3 << TAG_BITS).map(|_| handles.next(FILE, 3)).collect();
        assert!(all.iter().all(|handle| handles.ended(FILE, *handle)), "however many there are");
        assert!(all.iter().all(|handle| !handles.ended(FILE, *handle)));
    }

    #[test]
    fn a_new_file_has_no_older_pages() {
        let pages = Pages::default();
        pages.made(FILE, 1);
        assert!(pages.opened(FILE, 1));
        pages.forgotten(FILE);
        assert!(!pages.opened(FILE, 1));
    }

    #[test]
    fn what_is_remembered_grows_old() {
        let recent = Recent::new(Duration::from_secs(60));
        recent.put(FILE, 7, Instant::now());
        assert_eq!((recent.get(FILE), recent.get(Ino(6))), (Some(7), None));
        recent.remove(FILE);
        assert_eq!(recent.get(FILE), None);
        let brief = Recent::new(Duration::ZERO);
        brief.put(FILE, 7, Instant::now());
        assert_eq!(brief.get(FILE), None);
    }

    #[test]
    fn no_table_grows_without_bound() {
        let recent = Recent::new(Duration::from_secs(60));
        for ino in 0..=INODES_MAX as u64 {
            recent.put(Ino(ino), (), Instant::now());
        }
        assert_eq!(recent.lock().len(), 1);
    }
}
