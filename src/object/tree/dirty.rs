//! Which bytes of a file were written and not committed, and where in the staging file they are.
//!
//! Invariant: runs do not overlap; each byte is where it was written last.

use std::collections::BTreeMap;
use std::ops::Range;

/// Runs of bytes that were written, by their offset in the file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Dirty {
    /// Offset in the file -> (offset in the staging file, length).
    runs: BTreeMap<u64, (u64, u64)>,
}

/// A run of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Written {
    /// Where in the file.
    pub(super) start: u64,
    /// How many bytes.
    pub(super) len: u64,
    /// Where in the staging file.
    pub(super) staged: u64,
}

impl Written {
    pub(super) fn end(&self) -> u64 {
        self.start + self.len
    }
}

impl Dirty {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many bytes they are.
    pub(super) fn len_bytes(&self) -> u64 {
        self.runs.values().map(|(_, len)| len).sum()
    }

    /// The end of the last run.
    pub(super) fn end(&self) -> u64 {
        self.runs.last_key_value().map_or(0, |(start, (_, len))| start + len)
    }

    /// Notes that `range` of the file was written, and is at `staged`.
    pub(super) fn insert(&mut self, range: Range<u64>, staged: u64) {
        if range.is_empty() {
            return;
        }
        self.remove(range.clone());
        let len = range.end - range.start;
        // What goes on where the run before ends, here and there, is one run with it.
        if let Some((start, (at, before))) = self.runs.range_mut(..range.start).next_back()
            && *start + *before == range.start
            && *at + *before == staged
        {
            *before += len;
            return;
        }
        self.runs.insert(range.start, (staged, len));
    }

    /// Forgets what was written to `range`.
    pub(super) fn remove(&mut self, range: Range<u64>) {
        for run in self.overlapping(range.clone()) {
            self.runs.remove(&run.start);
            if run.start < range.start {
                self.runs.insert(run.start, (run.staged, range.start - run.start));
            }
            if run.end() > range.end {
                let skipped = range.end - run.start;
                self.runs.insert(range.end, (run.staged + skipped, run.end() - range.end));
            }
        }
    }

    /// The runs that overlap `range`, whole.
    fn overlapping(&self, range: Range<u64>) -> Vec<Written> {
        let before = self.runs.range(..range.start).next_back();
        let runs = before.into_iter().chain(self.runs.range(range.start..range.end.max(range.start)));
        let runs = runs.map(|(start, (staged, len))| Written { start: *start, len: *len, staged: *staged });
        runs.filter(|run| run.end() > range.start && run.start < range.end).collect()
    }

    /// The parts of runs that lie in `range`, ascending.
    pub(super) fn within(&self, range: Range<u64>) -> Vec<Written> {
        let clip = |run: Written| {
            let (start, end) = (run.start.max(range.start), run.end().min(range.end));
            Written { start, len: end - start, staged: run.staged + (start - run.start) }
        };
        self.overlapping(range.clone()).into_iter().map(clip).collect()
    }

    /// All runs, ascending.
    pub(super) fn all(&self) -> Vec<Written> {
        self.within(0..u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const FILE_BYTES: usize = 200;

    proptest! {
        /// Against a file whose every byte says where it was staged.
        #[test]
        fn runs_are_the_bytes_written_last(writes in proptest::collection::vec((0u64..150, 0u64..50, prop::bool::ANY), 0..40)) {
            let (mut dirty, mut model) = (Dirty::default(), vec![None; FILE_BYTES]);
            let mut staged = 0;
            for (start, len, is_removed) in writes {
                let range = start..start + len;
                match is_removed {
                    true => dirty.remove(range.clone()),
                    false => dirty.insert(range.clone(), staged),
                }
                for (index, byte) in model[range.start as usize..range.end as usize].iter_mut().enumerate() {
                    *byte = (!is_removed).then_some(staged + index as u64);
                }
                staged += len;
                let mut found = vec![None; FILE_BYTES];
                for run in dirty.all() {
                    for index in 0..run.len {
                        let byte = &mut found[(run.start + index) as usize];
                        prop_assert!(byte.is_none(), "runs overlap");
                        *byte = Some(run.staged + index);
                    }
                }
                prop_assert_eq!(&found, &model);
                prop_assert_eq!(dirty.len_bytes(), model.iter().flatten().count() as u64);
                let end = model.iter().rposition(Option::is_some).map_or(0, |last| last as u64 + 1);
                prop_assert_eq!(dirty.end(), end);
                let within: u64 = dirty.within(30..90).iter().map(|run| run.len).sum();
                prop_assert_eq!(within, model[30..90].iter().flatten().count() as u64);
            }
        }
    }

    #[test]
    fn what_is_written_front_to_back_is_one_run() {
        let mut dirty = Dirty::default();
        for piece in 0..1000 {
            dirty.insert(piece * 10..piece * 10 + 10, piece * 10);
        }
        assert_eq!(dirty.all(), [Written { start: 0, len: 10_000, staged: 0 }]);
    }
}
