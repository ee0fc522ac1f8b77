//! Which bytes of a file were written and not committed, where in the staging file they are, and what of the committed bytes
//! was cut off.
//!
//! Invariants
//! - Runs do not overlap; each byte is where it was written last.
//! - What was appended, and nothing else written, is at the end of the file wherever that comes to be: others may append too.
//!   So it must not be committed twice, as other writes may.
//! - Once a file was cut, its length is what was said then, or the end of what was written since if that is more.

use std::collections::BTreeMap;
use std::ops::Range;

/// Runs of bytes that were written, by their offset in the file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Dirty {
    /// Offset in the file -> (offset in the staging file, length).
    runs: BTreeMap<u64, (u64, u64)>,
    cut: Option<Cut>,
    /// If all were appended.
    appended: Option<Appended>,
}

/// What was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Appended {
    /// Where the first run is.
    at: u64,
    /// Whether it was elsewhere when it was staged.
    has_moved: bool,
    /// The first request that appended.
    request: u64,
    /// Whether a commit of it was begun, whose fate may be unknown.
    is_begun: bool,
}

/// The length of a file with what was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Length {
    /// At least this.
    AtLeast(u64),
    /// This.
    Exactly(u64),
    /// What it has, and so much more.
    More(u64),
}

impl Length {
    /// Of a file of which so much is committed.
    pub(super) fn over(self, committed_bytes: u64) -> u64 {
        match self {
            Length::AtLeast(end) => end.max(committed_bytes),
            Length::Exactly(len) => len,
            Length::More(len) => committed_bytes + len,
        }
    }
}

/// A file that was given another length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cut {
    /// Of the committed bytes no more than these count.
    kept: u64,
    /// The length.
    len: u64,
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
    /// Whether nothing is to be committed.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.cut.is_none()
    }

    /// Whether the file was given another length.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// Gives the file another length: bytes beyond it go, bytes up to it are zeros.
    pub(super) fn cut(&mut self, len: u64) {
        self.remove(len..u64::MAX);
        self.appended = None;
        let kept = self.cut.map_or(len, |cut| cut.kept.min(len));
        self.cut = Some(Cut { kept, len });
    }

    /// The length of the file, of which so much is committed.
    pub(super) fn size_over(&self, committed_bytes: u64) -> u64 {
        self.length().over(committed_bytes)
    }

    /// The length of the file.
    pub(super) fn length(&self) -> Length {
        match (self.cut, self.appended) {
            (Some(cut), _) => Length::Exactly(cut.len),
            (None, Some(_)) => Length::More(self.len_bytes()),
            (None, None) => Length::AtLeast(self.end()),
        }
    }

    /// The first request that appended, if all that was written was appended: what names it once for all.
    pub(super) fn appended(&self) -> Option<u64> {
        self.appended.map(|appended| appended.request)
    }

    /// A commit of what was appended is begun: it may be done although nobody hears so. Nothing else may be committed under
    /// the same name.
    pub(super) fn begin(&mut self) {
        if let Some(appended) = &mut self.appended {
            appended.is_begun = true;
        }
    }

    /// Whether what was appended must be committed before more is.
    pub(super) fn is_begun(&self) -> bool {
        self.appended.is_some_and(|appended| appended.is_begun)
    }

    /// Whether what was appended is not where the staging file has it.
    pub(super) fn has_moved(&self) -> bool {
        self.appended.is_some_and(|appended| appended.has_moved)
    }

    /// Notes that bytes were appended to a file of which so much is committed, and are at `staged`. Returns where in the file
    /// they are.
    pub(super) fn append(&mut self, committed_bytes: u64, len: u64, staged: u64, request: u64) -> u64 {
        self.follow(committed_bytes);
        let offset = self.size_over(committed_bytes);
        let first = Appended { at: offset, has_moved: false, request, is_begun: false };
        let appended = if self.is_empty() { Some(first) } else { self.appended };
        self.insert(offset..offset + len, staged);
        self.appended = appended;
        offset
    }

    /// The same of bytes that were appended at `offset`, found again in their order.
    pub(super) fn append_again(&mut self, offset: u64, len: u64, staged: u64, request: u64) {
        match self.appended {
            Some(Appended { at, .. }) => drop(self.append(at, len, staged, request)),
            None if self.is_empty() => drop(self.append(offset, len, staged, request)),
            None => self.insert(offset..offset.saturating_add(len), staged),
        }
    }

    /// Whether what was appended is where a file ends of which so much is committed.
    pub(super) fn is_at(&self, committed_bytes: u64) -> bool {
        self.appended.is_none_or(|appended| appended.at == committed_bytes)
    }

    /// Moves what was appended to where the file ends by now.
    pub(super) fn follow(&mut self, committed_bytes: u64) {
        let Some(appended) = self.appended.filter(|_| !self.is_at(committed_bytes)) else { return };
        let at = appended.at;
        let runs = std::mem::take(&mut self.runs).into_iter();
        self.runs = runs.map(|(start, run)| (start - at + committed_bytes, run)).collect();
        self.appended = Some(Appended { at: committed_bytes, has_moved: true, ..appended });
    }

    /// Keeps what was appended where it is.
    pub(super) fn stay(&mut self) {
        self.appended = None;
    }

    /// How many of the committed bytes count.
    pub(super) fn kept_of(&self, committed_bytes: u64) -> u64 {
        self.cut.map_or(committed_bytes, |cut| cut.kept.min(committed_bytes))
    }

    /// Committed bytes that were cut off and are within the file again, and not written over. Ascending.
    pub(super) fn holes_in(&self, committed_bytes: u64) -> Vec<Range<u64>> {
        let Some(Cut { kept, len }) = self.cut else { return Vec::new() };
        let (mut at, end) = (kept, committed_bytes.min(len));
        let mut holes = Vec::new();
        for run in self.overlapping(kept..end.max(kept)) {
            holes.push(at..run.start.clamp(at, end.max(at)));
            at = at.max(run.end());
        }
        holes.push(at..end.max(at));
        holes.retain(|hole| !hole.is_empty());
        holes
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
        self.appended = None;
        self.remove(range.clone());
        if let Some(cut) = &mut self.cut {
            cut.len = cut.len.max(range.end);
        }
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
    fn remove(&mut self, range: Range<u64>) {
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
        /// Against a file that is committed, written and cut byte by byte.
        #[test]
        fn a_file_that_was_cut_is_what_a_plain_one_is(
            committed in 0usize..80,
            steps in proptest::collection::vec((0usize..100, 1usize..30, prop::bool::ANY), 0..12),
        ) {
            // 1: committed; 2: written; 0: zero.
            let (mut dirty, mut model) = (Dirty::default(), vec![1_u8; committed]);
            let mut staged = 0;
            for (start, len, cuts) in steps {
                if cuts {
                    dirty.cut(start as u64);
                    model.resize(start, 0);
                } else {
                    dirty.insert(start as u64..(start + len) as u64, staged);
                    staged += len as u64;
                    model.resize(model.len().max(start + len), 0);
                    model[start..start + len].fill(2);
                }
                let mut found = vec![0; dirty.size_over(committed as u64) as usize];
                let kept = (dirty.kept_of(committed as u64) as usize).min(found.len());
                found[..kept].fill(1);
                for run in dirty.all() {
                    found[run.start as usize..run.end() as usize].fill(2);
                }
                prop_assert_eq!(&found, &model);
                // Over what is committed, holes and runs make the same.
                let mut stored = vec![1; committed.min(model.len())];
                stored.resize(model.len(), 0);
                for hole in dirty.holes_in(committed as u64) {
                    stored[hole.start as usize..hole.end as usize].fill(0);
                }
                for run in dirty.all() {
                    stored[run.start as usize..run.end() as usize].fill(2);
                }
                prop_assert_eq!(&stored, &model);
            }
        }
    }

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

    proptest! {
        /// Against a file to which others append, and which they cut.
        #[test]
        fn what_was_appended_is_at_the_end(committed in 0u64..50, steps in proptest::collection::vec((1u64..20, 0u64..90), 1..10)) {
            let (mut dirty, mut again, mut committed, mut appended) = (Dirty::default(), Dirty::default(), committed, 0);
            for (staged, (len, other)) in steps.into_iter().enumerate() {
                let staged = staged as u64 * 1000;
                let offset = dirty.append(committed, len, staged, staged + 1);
                again.append_again(offset, len, staged, staged + 1);
                prop_assert_eq!(offset, committed + appended);
                appended += len;
                committed = other;
                prop_assert_eq!(dirty.size_over(committed), committed + appended);
                again.follow(committed);
                dirty.follow(committed);
                prop_assert!(dirty.is_at(committed));
                prop_assert_eq!((dirty.all(), dirty.end()), (again.all(), committed + appended));
            }
            prop_assert_eq!(dirty.appended(), Some(1));
            dirty.insert(0..1, 0);
            prop_assert_eq!(dirty.appended(), None);
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
