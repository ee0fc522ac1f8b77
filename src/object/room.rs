//! Room on the disk: new bytes are refused early enough that deletes, the log and the catalog still have some.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::env::Env;
use crate::file::Space;
use crate::units::MIB;

use super::Error;
use super::chunks::Chunks;

/// How long one look at the file system serves.
const FRESH: Duration = Duration::from_millis(100);
const LOW_WATER_MIN_BYTES: u64 = 64 * MIB;

/// How full the store is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Pressure {
    /// Room enough.
    None,
    /// Nearly full: writes still succeed.
    NearFull,
    /// New bytes are refused.
    Full,
}

/// The disk under the chunks.
pub(super) struct Room {
    env: Env,
    chunks: Chunks,
    low_water_bytes: Option<u64>,
    looked: Mutex<Option<Look>>,
}

/// A look at the file system, and what was let in since.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Duration,
    space: Space,
    admitted_bytes: u64,
}

impl Room {
    pub(super) fn new(env: Env, chunks: Chunks, low_water_bytes: Option<u64>) -> Self {
        Room { env, chunks, low_water_bytes, looked: Mutex::new(None) }
    }

    pub(super) fn pressure(&self) -> Pressure {
        self.after(0)
    }

    /// Lets `len_bytes` of new bytes in.
    ///
    /// # Errors
    /// `Full`.
    pub(super) fn admit(&self, len_bytes: u64) -> Result<(), Error> {
        match self.after(len_bytes) {
            Pressure::Full => Err(Error::Full),
            Pressure::None | Pressure::NearFull => Ok(()),
        }
    }

    /// How full it will be after `len_bytes` more, which are counted unless that is too full.
    fn after(&self, len_bytes: u64) -> Pressure {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.env.clock.monotonic();
        let fresh = looked.filter(|look| now.saturating_sub(look.at) < FRESH);
        let Some(mut look) = fresh.or_else(|| self.look(now)) else {
            return Pressure::None; // the file system gives no figures: the write will tell
        };
        let left = look.space.available_bytes.saturating_sub(look.admitted_bytes).saturating_sub(len_bytes);
        let pressure = pressure(look.space.total_bytes, left, self.low_water_bytes);
        if pressure != Pressure::Full {
            look.admitted_bytes += len_bytes;
        }
        *looked = Some(look);
        pressure
    }

    fn look(&self, at: Duration) -> Option<Look> {
        let space = self.chunks.space()?.inspect_err(|error| tracing::warn!(%error, "no figures of the disk")).ok()?;
        Some(Look { at, space, admitted_bytes: 0 })
    }
}

/// Full below the low-water mark; nearly full below twice that or 5%.
fn pressure(total_bytes: u64, left_bytes: u64, low_water_bytes: Option<u64>) -> Pressure {
    let low = low_water_bytes.unwrap_or((total_bytes / 100).max(LOW_WATER_MIN_BYTES));
    let near = low.saturating_mul(2).max(total_bytes / 20);
    match left_bytes {
        left if left < low => Pressure::Full,
        left if left < near => Pressure::NearFull,
        _ => Pressure::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::GIB;

    #[test]
    fn marks_hold_on_small_and_large_disks() {
        let cases = [
            (320 * MIB, 200 * MIB, Pressure::None),
            (320 * MIB, 127 * MIB, Pressure::NearFull),
            (320 * MIB, 63 * MIB, Pressure::Full),
            (1000 * GIB, 51 * GIB, Pressure::None),
            (1000 * GIB, 49 * GIB, Pressure::NearFull),
            (1000 * GIB, 9 * GIB, Pressure::Full),
        ];
        for (total, left, expected) in cases {
            assert_eq!(pressure(total, left, None), expected, "{left} of {total}");
        }
        assert_eq!(pressure(GIB, 0, Some(0)), Pressure::NearFull);
    }
}
