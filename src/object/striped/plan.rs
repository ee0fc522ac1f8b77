//! Which frames to ask for, so that the wanted segments come out. Pure.
//!
//! Each stripe is a row with a cell for each shard. A row is ready when all its wanted frames are there, or any k; a data
//! shard without a frame in a narrow stripe counts as there. What is missing is asked for in the cheaper of two ways:
//! the wanted frames themselves, or as many others as make k.
//!
//! Invariants
//! - A frame is asked for once, unless [`Grid::forgive`] says that those whose nodes gave no answer may be asked again.
//! - What is late is not counted on, and still taken when it comes.
//! - That too few frames are left is said only once every other shard of the row was asked.

use std::ops::Range;

use bytes::Bytes;

use crate::erasure::{Cover, Geometry, Scheme};

/// What decoding costs, in the unit of the shards' costs.
const DECODE_COST: u64 = 1;

/// One frame of one stripe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Cell {
    /// Nobody asked for it.
    Unasked,
    /// It may come any moment.
    Asked,
    /// It was asked for, and is slow.
    Late,
    /// As it came.
    Here(Bytes),
    /// There is none in this stripe; it counts as zeros.
    Empty,
    /// It is gone, or damaged.
    Lost,
    /// Its node gave no answer.
    Unreached,
}

/// One stripe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    /// Its index in the chunk.
    pub(super) stripe: u32,
    /// What is wanted of it: ascending by shard index.
    pub(super) covers: Vec<Cover>,
    /// By shard index.
    pub(super) cells: Vec<Cell>,
}

/// The stripes of a range.
#[derive(Debug)]
pub(super) struct Grid {
    scheme: Scheme,
    pub(super) rows: Vec<Row>,
    /// What a frame of each shard costs.
    costs: Vec<u64>,
}

/// Frames of one shard to ask for: of these stripes, none of which was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ask {
    pub(super) shard_index: usize,
    pub(super) stripes: Range<u32>,
}

/// A stripe of which too few frames are left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shortfall {
    pub(super) stripe: u32,
    /// Whether nodes that may have some gave no answer.
    pub(super) is_unreached: bool,
}

impl Grid {
    /// The stripes that `range` touches. `costs`: of a frame, by shard index; none where there is no shard.
    pub(super) fn new(geometry: &Geometry, range: Range<u64>, costs: &[Option<u64>]) -> Grid {
        let mut rows: Vec<Row> = Vec::new();
        for cover in geometry.cover(range) {
            match rows.last_mut() {
                Some(row) if row.stripe == cover.segment.stripe => row.covers.push(cover),
                _ => rows.push(Row { stripe: cover.segment.stripe, covers: vec![cover], cells: Vec::new() }),
            }
        }
        for row in &mut rows {
            let stripe = geometry.stripe(row.stripe);
            let has_frame = |index| stripe.as_ref().is_some_and(|stripe| stripe.has_frame(index));
            let cell = |(index, cost): (usize, &Option<u64>)| match cost {
                _ if !has_frame(index) => Cell::Empty,
                Some(_) => Cell::Unasked,
                None => Cell::Lost,
            };
            row.cells = costs.iter().enumerate().map(cell).collect();
        }
        Grid { scheme: geometry.scheme(), rows, costs: costs.iter().map(|cost| cost.unwrap_or_default()).collect() }
    }

    /// What to ask for now; it counts as asked for.
    ///
    /// # Errors
    /// The first stripe that cannot be had.
    pub(super) fn plan(&mut self) -> Result<Vec<Ask>, Shortfall> {
        let mut asks: Vec<Ask> = Vec::new();
        for row in &mut self.rows {
            for shard_index in row.missing(self.scheme, &self.costs)? {
                row.cells[shard_index] = Cell::Asked;
                let next = row.stripe;
                match asks.iter_mut().find(|ask| ask.shard_index == shard_index && ask.stripes.end == next) {
                    Some(ask) => ask.stripes.end += 1,
                    None => asks.push(Ask { shard_index, stripes: next..next + 1 }),
                }
            }
        }
        Ok(asks)
    }

    /// Whether all that is wanted can be made.
    pub(super) fn is_ready(&self) -> bool {
        self.rows.iter().all(|row| row.is_ready(self.scheme))
    }

    /// The rows of an ask.
    pub(super) fn rows_of(&mut self, stripes: &Range<u32>) -> impl Iterator<Item = &mut Row> {
        self.rows.iter_mut().filter(move |row| stripes.contains(&row.stripe))
    }

    /// What was asked for is slow.
    pub(super) fn late(&mut self, ask: &Ask) {
        for row in self.rows_of(&ask.stripes) {
            if row.cells[ask.shard_index] == Cell::Asked {
                row.cells[ask.shard_index] = Cell::Late;
            }
        }
    }

    /// Frames came, in the order of the stripes.
    pub(super) fn came(&mut self, ask: &Ask, frames: impl Iterator<Item = Bytes>) {
        for (row, frame) in self.rows_of(&ask.stripes).zip(frames) {
            row.cells[ask.shard_index] = Cell::Here(frame);
        }
    }

    /// What of a shard has not come will not: for `cell` says why.
    pub(super) fn fail(&mut self, shard_index: usize, cell: &Cell) {
        for row in &mut self.rows {
            if matches!(row.cells[shard_index], Cell::Unasked | Cell::Asked | Cell::Late) {
                row.cells[shard_index] = cell.clone();
            }
        }
    }

    /// Shards whose nodes gave no answer may be asked for again. `may`: by shard index.
    pub(super) fn forgive(&mut self, may: &[bool]) {
        let cells = self.rows.iter_mut().flat_map(|row| row.cells.iter_mut().zip(may));
        let forgiven = cells.filter(|(cell, may)| **may && **cell == Cell::Unreached);
        forgiven.for_each(|(cell, _)| *cell = Cell::Unasked);
    }
}

impl Row {
    fn wanted(&self) -> impl Iterator<Item = usize> {
        self.covers.iter().map(|cover| cover.segment.shard_index)
    }

    fn count(&self, counts: impl Fn(&Cell) -> bool) -> usize {
        self.cells.iter().filter(|cell| counts(cell)).count()
    }

    fn is_ready(&self, scheme: Scheme) -> bool {
        let is_here = |cell: &Cell| matches!(cell, Cell::Here(_) | Cell::Empty);
        self.wanted().all(|index| is_here(&self.cells[index])) || self.count(is_here) >= scheme.data_count()
    }

    /// What has to be asked for, beyond what is here and on its way.
    fn missing(&self, scheme: Scheme, costs: &[u64]) -> Result<Vec<usize>, Shortfall> {
        let comes = |cell: &Cell| matches!(cell, Cell::Here(_) | Cell::Empty | Cell::Asked);
        let lacking = scheme.data_count().saturating_sub(self.count(comes));
        let direct: Vec<usize> = self.wanted().filter(|index| !comes(&self.cells[*index])).collect();
        if direct.is_empty() || lacking == 0 {
            return Ok(Vec::new());
        }
        let is_unasked = |index: &usize| self.cells[*index] == Cell::Unasked;
        let mut unasked: Vec<usize> = (0..self.cells.len()).filter(is_unasked).collect();
        unasked.sort_by_key(|index| costs[*index]);
        let cost = |shards: &[usize]| shards.iter().map(|index| costs[*index]).sum::<u64>();
        let direct = direct.iter().all(is_unasked).then_some(direct);
        let decode = unasked.get(..lacking).map(<[usize]>::to_vec);
        match (direct, decode) {
            (Some(direct), Some(decode)) if cost(&decode) + DECODE_COST < cost(&direct) => Ok(decode),
            (Some(direct), _) => Ok(direct),
            (None, Some(decode)) => Ok(decode),
            (None, None) => self.last_resort(scheme, unasked),
        }
    }

    /// Everything that is left, if what is late may make it enough.
    fn last_resort(&self, scheme: Scheme, unasked: Vec<usize>) -> Result<Vec<usize>, Shortfall> {
        let may_come = |cell: &Cell| !matches!(cell, Cell::Lost | Cell::Unreached);
        let is_possible =
            self.count(may_come) >= scheme.data_count() || self.wanted().all(|index| may_come(&self.cells[index]));
        let is_unreached = self.cells.contains(&Cell::Unreached);
        if is_possible { Ok(unasked) } else { Err(Shortfall { stripe: self.stripe, is_unreached }) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::units::SEGMENT_BYTES;
    use proptest::prelude::*;

    const SEGMENT: u64 = SEGMENT_BYTES;

    fn grid(k: u8, m: u8, len: u64, range: Range<u64>, costs: &[Option<u64>]) -> Grid {
        Grid::new(&Geometry::new(Scheme::new(k, m).unwrap(), len).unwrap(), range, costs)
    }

    fn ask(shard_index: usize, stripes: Range<u32>) -> Ask {
        Ask { shard_index, stripes }
    }

    fn frame() -> Bytes {
        Bytes::from_static(b"frame")
    }

    #[test]
    fn where_all_are_alike_the_wanted_segments_are_asked_for_and_no_others() {
        let mut whole = grid(3, 2, 9 * SEGMENT, 0..9 * SEGMENT, &[Some(4); 5]);
        assert_eq!(whole.plan().unwrap(), [ask(0, 0..3), ask(1, 0..3), ask(2, 0..3)]);
        assert_eq!(whole.plan().unwrap(), []);
        let mut part = grid(3, 2, 9 * SEGMENT, 2 * SEGMENT + 5..4 * SEGMENT, &[Some(4); 5]);
        assert_eq!(part.plan().unwrap(), [ask(2, 0..1), ask(0, 1..2)]);
        assert!(!part.is_ready());
        part.came(&ask(2, 0..1), [frame()].into_iter());
        part.came(&ask(0, 1..2), [frame()].into_iter());
        assert!(part.is_ready());
    }

    #[test]
    fn a_parity_shard_at_hand_beats_a_data_shard_far_away_where_all_of_a_stripe_is_wanted() {
        let costs = [Some(4), Some(4), Some(1)];
        assert_eq!(grid(2, 1, 4 * SEGMENT, 0..4 * SEGMENT, &costs).plan().unwrap(), [ask(2, 0..2), ask(0, 0..2)]);
        assert_eq!(grid(2, 1, 4 * SEGMENT, 0..SEGMENT, &costs).plan().unwrap(), [ask(0, 0..1)]);
    }

    #[test]
    fn what_is_missing_slow_or_lost_is_made_from_others() {
        let mut grid = grid(3, 2, 3 * SEGMENT, SEGMENT..2 * SEGMENT, &[Some(4), None, Some(4), Some(4), Some(1)]);
        assert_eq!(grid.plan().unwrap(), [ask(4, 0..1), ask(0, 0..1), ask(2, 0..1)]);
        grid.late(&ask(0, 0..1));
        assert_eq!(grid.plan().unwrap(), [ask(3, 0..1)]);
        grid.fail(3, &Cell::Unreached);
        assert_eq!(grid.plan().unwrap(), [], "the late one may come");
        grid.fail(0, &Cell::Lost);
        assert_eq!(grid.plan(), Err(Shortfall { stripe: 0, is_unreached: true }));
        grid.forgive(&[true, true, true, false, true]);
        assert_eq!(grid.plan(), Err(Shortfall { stripe: 0, is_unreached: true }));
        grid.forgive(&[true; 5]);
        assert_eq!(grid.plan().unwrap(), [ask(3, 0..1)]);
        grid.fail(3, &Cell::Lost);
        assert_eq!(grid.plan(), Err(Shortfall { stripe: 0, is_unreached: false }));
    }

    #[test]
    fn a_narrow_stripe_needs_fewer() {
        let mut grid = grid(3, 2, 100, 0..100, &[None, Some(4), Some(4), Some(4), Some(4)]);
        assert_eq!(grid.plan().unwrap(), [ask(3, 0..1)], "two of three data shards are empty");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Whatever fails and is slow, in any order: what can be had is had, and what cannot is said, once all was tried.
        #[test]
        fn it_ends_with_what_is_wanted_or_without_a_stone_unturned(
            (k, m) in (1u8..=5, 0u8..=3),
            len in 1..20 * SEGMENT,
            range in (0..20 * SEGMENT, 1..6 * SEGMENT),
            costs in prop::collection::vec(prop::option::weighted(0.9, 1u64..20), 8),
            fates in prop::collection::vec(0u8..10, 60),
        ) {
            let start = range.0 % len;
            let geometry = Geometry::new(Scheme::new(k, m).unwrap(), len).unwrap();
            let costs = &costs[..usize::from(k + m)];
            let mut grid = Grid::new(&geometry, start..start + range.1, costs);
            // Each with whether it is late already.
            let (mut fates, mut open) = (fates.into_iter().cycle(), Vec::new());
            let outcome = loop {
                match grid.plan() {
                    Ok(asks) => open.extend(asks.into_iter().map(|ask| (ask, false))),
                    Err(shortfall) => break Err(shortfall),
                }
                if grid.is_ready() {
                    break Ok(());
                }
                prop_assert!(!open.is_empty(), "nothing is waited for, and it goes on");
                let fate = fates.next().unwrap();
                let (ask, is_late) = open.remove(usize::from(fate) % open.len());
                match fate {
                    0 => grid.fail(ask.shard_index, &Cell::Lost),
                    1 => grid.fail(ask.shard_index, &Cell::Unreached),
                    2 | 3 if !is_late => {
                        grid.late(&ask);
                        open.push((ask, true));
                    }
                    _ => grid.came(&ask, ask.stripes.clone().map(|_| frame())),
                }
            };
            for row in &grid.rows {
                let here = row.count(|cell| matches!(cell, Cell::Here(_) | Cell::Empty));
                let has_all = row.wanted().all(|index| matches!(row.cells[index], Cell::Here(_)));
                match outcome {
                    Ok(()) => prop_assert!(has_all || here >= usize::from(k)),
                    Err(shortfall) if shortfall.stripe == row.stripe => {
                        let lost = row.count(|cell| matches!(cell, Cell::Lost | Cell::Unreached));
                        prop_assert!(lost > usize::from(m) && !has_all);
                    }
                    Err(_) => {}
                }
            }
        }
    }
}
