//! Attributes that a new file was given before it was closed: they are committed with its bytes, in one command.
//!
//! Invariants
//! - What was set last counts; what is written later dates the file anew.

use crate::catalog::{Posix, SetAttrs, Stat};
use crate::env::Timestamp;

/// Attributes that are not committed yet.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Pending {
    pub(super) set: SetAttrs,
    /// When they were set.
    at: Option<Timestamp>,
}

impl Pending {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.at.is_none()
    }

    /// Sets more of them.
    pub(super) fn add(&mut self, later: &SetAttrs, now: Timestamp) {
        let former = self.set;
        self.set = SetAttrs {
            mode: later.mode.or(former.mode),
            uid: later.uid.or(former.uid),
            gid: later.gid.or(former.gid),
            atime: later.atime.or(former.atime),
            mtime: later.mtime.or(former.mtime),
            // Of a mode that is set later nothing was taken.
            kills_privileges: later.kills_privileges || former.kills_privileges && later.mode.is_none(),
        };
        self.at = Some(now);
    }

    /// The content was changed since.
    pub(super) fn written(&mut self) {
        self.set.mtime = None;
    }

    /// What an inode shows with them.
    pub(super) fn over(&self, stat: Stat) -> Stat {
        let Some(at) = self.at else { return stat };
        let Stat { mode, uid, gid, rdev, mtime, ctime, atime, .. } = stat;
        let shown = self.set.over(Posix { mode, uid, gid, rdev, mtime, ctime, atime }, ctime.max(at));
        Stat {
            mode: shown.mode,
            uid: shown.uid,
            gid: shown.gid,
            atime: shown.atime,
            mtime: shown.mtime,
            ctime: shown.ctime,
            ..stat
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_set() -> impl Strategy<Value = SetAttrs> {
        let time = || prop::option::of((0i64..9).prop_map(Timestamp));
        let owner = || prop::option::of(0u32..3);
        (prop::option::of(0u32..0o10_000), owner(), owner(), time(), time(), any::<bool>()).prop_map(
            |(mode, uid, gid, atime, mtime, kills_privileges)| SetAttrs {
                mode,
                uid,
                gid,
                atime,
                mtime,
                kills_privileges,
            },
        )
    }

    proptest! {
        /// What is set step by step is what is set at once, as the catalog sets it.
        #[test]
        fn many_are_as_one(first in 0u32..0o10_000, sets in proptest::collection::vec(any_set(), 1..6)) {
            let time = Timestamp(-1);
            let mut model = Posix { mode: first, uid: 7, gid: 8, rdev: 0, mtime: time, ctime: time, atime: time };
            let (former, mut pending) = (model, Pending::default());
            for set in &sets {
                model = set.over(model, Timestamp(100));
                pending.add(set, Timestamp(100));
            }
            prop_assert_eq!(pending.set.over(former, Timestamp(100)), model);
        }
    }
}
