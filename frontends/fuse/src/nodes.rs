//! Node ids, and which of them the kernel knows.
//!
//! A node id is the inode's number, so it means the same after a restart; only the mount's root must be 1 for the kernel. The
//! inode that really has the number 1 takes the root's instead, wherever it lies: the mapping is a bijection.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use predastore::ids::Ino;

const ROOT_NODE: u64 = 1;

/// Inode numbers as node ids; both directions are the same exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeIds {
    root: Ino,
}

impl NodeIds {
    pub(crate) fn new(root: Ino) -> Self {
        NodeIds { root }
    }

    /// The node id, and the number that programs see.
    pub(crate) fn node(self, ino: Ino) -> u64 {
        self.exchange(ino.0)
    }

    pub(crate) fn ino(self, node: u64) -> Ino {
        Ino(self.exchange(node))
    }

    fn exchange(self, id: u64) -> u64 {
        match id {
            ROOT_NODE => self.root.0,
            id if id == self.root.0 => ROOT_NODE,
            id => id,
        }
    }
}

/// How often the kernel was told of an inode and has not forgotten it yet. Starts empty after a restart: the kernel then
/// knows more than is counted here.
#[derive(Default, Debug)]
pub(crate) struct Known(Mutex<HashMap<Ino, u64>>);

impl Known {
    /// An answer names the inode. Count first, answer second: the kernel may forget it the moment after.
    pub(crate) fn told(&self, ino: Ino) {
        *self.lock().entry(ino).or_default() += 1;
    }

    /// Takes `count` tellings back. Returns whether the kernel knows the inode no more.
    pub(crate) fn forget(&self, ino: Ino, count: u64) -> bool {
        let mut known = self.lock();
        let left = known.get(&ino).map_or(0, |told| told.saturating_sub(count));
        match left {
            0 => known.remove(&ino),
            left => known.insert(ino, left),
        };
        left == 0
    }

    /// All that it knows, in no order.
    pub(crate) fn all(&self) -> Vec<Ino> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Ino, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_one_and_every_other_inode_is_itself() {
        let ids = NodeIds::new(Ino(77));
        assert_eq!((ids.node(Ino(77)), ids.ino(1)), (1, Ino(77)));
        assert_eq!((ids.node(Ino(1)), ids.ino(77)), (77, Ino(1)));
        for id in [0, 2, 76, 78, i64::MAX as u64] {
            assert_eq!((ids.node(Ino(id)), ids.ino(id)), (id, Ino(id)));
        }
    }

    #[test]
    fn a_root_that_is_one_changes_nothing() {
        let ids = NodeIds::new(Ino(1));
        assert_eq!((ids.node(Ino(1)), ids.ino(1), ids.node(Ino(2))), (1, Ino(1), 2));
    }

    #[test]
    fn an_inode_is_known_until_all_of_it_is_forgotten() {
        let known = Known::default();
        known.told(Ino(5));
        known.told(Ino(5));
        assert!(!known.forget(Ino(5), 1));
        assert_eq!(known.all(), [Ino(5)]);
        assert!(known.forget(Ino(5), 1));
        assert!(known.all().is_empty());
        assert!(known.forget(Ino(9), 3), "told by an earlier process");
    }
}
