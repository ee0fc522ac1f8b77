//! How wide to write, on the nodes there are.

use super::Error;
use crate::erasure::Scheme;

/// The layout to write where `target` is wanted and `live_count` nodes live: the target where there are enough, else a
/// narrower one that keeps as much of m as the nodes allow, at least 1. A target without parity stays without.
///
/// | target | on | is written as |
/// |---|---|---|
/// | `rs(2,1)` | 2 nodes | `rs(1,1)` |
/// | `rs(3,2)` | 4, 3, 2 nodes | `rs(2,2)`, `rs(1,2)`, `rs(1,1)` |
/// | `rs(3,0)` | 2 nodes | `rs(2,0)` |
///
/// # Errors
/// [`Error::TooFewNodes`]: not even two, where there is to be redundancy; none, where there is not.
pub fn width(target: Scheme, live_count: usize) -> Result<Scheme, Error> {
    let too_few = Error::TooFewNodes { target, live_count };
    if live_count >= target.shard_count() {
        return Ok(target);
    }
    let Some(most_parity) = live_count.checked_sub(1) else { return Err(too_few) };
    let parity_count = target.parity_count().min(most_parity);
    if parity_count == 0 && target.parity_count() > 0 {
        return Err(too_few);
    }
    // Both are less than the target's.
    Scheme::new((live_count - parity_count) as u8, parity_count as u8).map_err(|_| too_few)
}

/// How many shards of a layout must be durable before a write is acknowledged, when no node is left to replace the
/// others: one more than it takes to read, so that one may be lost; all, where there is no parity.
pub const fn commit_count(scheme: Scheme) -> usize {
    if scheme.parity_count() == 0 { scheme.data_count() } else { scheme.data_count() + 1 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rs(k: u8, m: u8) -> Scheme {
        Scheme::new(k, m).unwrap()
    }

    #[test]
    fn narrower_layouts_keep_what_parity_they_can() {
        let table = [
            (rs(2, 1), 3, rs(2, 1)),
            (rs(2, 1), 9, rs(2, 1)),
            (rs(2, 1), 2, rs(1, 1)),
            (rs(3, 2), 5, rs(3, 2)),
            (rs(3, 2), 4, rs(2, 2)),
            (rs(3, 2), 3, rs(1, 2)),
            (rs(3, 2), 2, rs(1, 1)),
            (rs(1, 0), 1, rs(1, 0)),
            (rs(3, 0), 2, rs(2, 0)),
            (rs(1, 2), 2, rs(1, 1)),
        ];
        for (target, live_count, written) in table {
            assert_eq!(width(target, live_count), Ok(written), "{target} on {live_count}");
        }
        for (target, live_count) in [(rs(2, 1), 1), (rs(3, 2), 0), (rs(1, 1), 1), (rs(1, 0), 0)] {
            assert_eq!(width(target, live_count), Err(Error::TooFewNodes { target, live_count }));
        }
    }

    #[test]
    fn every_width_fits_its_nodes_and_keeps_redundancy() {
        for (k, m) in (1..=16u8).flat_map(|k| (0..=16 - k).map(move |m| (k, m))) {
            for live_count in 0..20 {
                let Ok(written) = width(rs(k, m), live_count) else {
                    assert!(live_count < 1 + usize::from(m > 0), "rs({k},{m}) on {live_count}");
                    continue;
                };
                assert_eq!(written.shard_count(), live_count.min(usize::from(k + m)), "every node is used");
                assert!(written.data_count() <= usize::from(k) && written.parity_count() <= usize::from(m));
                assert_eq!(written.parity_count() > 0, m > 0);
                let kept_all = written.parity_count() == usize::from(m);
                assert!(kept_all || written.data_count() == 1, "parity goes last");
                assert!((written.data_count() + usize::from(m > 0)..=live_count).contains(&commit_count(written)));
            }
        }
    }
}
