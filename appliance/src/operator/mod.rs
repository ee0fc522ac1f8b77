//! What an operator asks of this machine: how the daemon is, what is wrong with the machine under it, who may do what;
//! buckets and snapshots.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::mounts::{Client, Reply, Request};

pub(crate) mod buckets;
pub(crate) mod doctor;
pub(crate) mod snapshots;
pub(crate) mod status;
pub(crate) mod users;

/// How it stands, as exit codes tell it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Health {
    /// Nothing to do.
    Well = 0,
    /// It serves, and somebody should look.
    Ailing = 1,
    /// It does not serve.
    Down = 2,
}

impl Health {
    /// Exit code.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

/// What is wrong with a store, as its figures tell, for people.
pub(crate) fn troubles(figure: impl Fn(&str) -> u64) -> Vec<String> {
    let (below, lost) = (figure("chunks_below_target"), figure("chunks_lost"));
    let found = [
        (figure("read_only") > 0, "reads only: the log has lost acknowledged writes; see `s3d recover`".to_owned()),
        (figure("pressure") == 1, "the disk is nearly full".to_owned()),
        (figure("pressure") >= 2, "the disk is full: new bytes are refused, deleting works".to_owned()),
        (below > 0, format!("{below} chunks lack shards; repair is at it")),
        (lost > 0, format!("{lost} chunks cannot be read whole; the log names them")),
    ];
    found.into_iter().filter(|(is_so, _)| *is_so).map(|(_, what)| what).collect()
}

/// A line of the log for what an operator had the daemon change. `uid`: who asked; `error`: why it was not done.
pub(crate) fn audit(uid: u32, asked: &str, error: Option<&impl std::fmt::Display>) {
    match error {
        None => tracing::info!(target: "audit", uid, asked, "done"),
        Some(error) => tracing::warn!(target: "audit", uid, asked, %error, "not done"),
    }
}

/// Has the daemon verify all that is stored.
///
/// # Errors
/// It does not answer, or refuses.
pub(crate) fn scrub(control: &Path) -> Result<String> {
    match Client::connect(control, Duration::ZERO)?.ask(&Request::Scrub {}, None)? {
        Reply::Done {} => Ok("it has begun; what it finds is in the log and in `predastore status`\n".to_owned()),
        Reply::Refused(why) => bail!("{why}"),
        told => Err(strange(&told)),
    }
}

/// The daemon, of another version perhaps, answers something else than was asked.
pub(crate) fn strange(told: &impl std::fmt::Debug) -> anyhow::Error {
    anyhow::anyhow!("the daemon answers what was not asked: {told:?}")
}

/// A day for people, from Unix seconds.
fn day(seconds: i64) -> String {
    predastore_s3::dates::iso_8601_ms(seconds.saturating_mul(1000)).chars().take(10).collect()
}

/// A moment for people, from Unix seconds.
pub(crate) fn second(seconds: i64) -> String {
    let text = predastore_s3::dates::iso_8601_ms(seconds.saturating_mul(1000));
    text.chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect::<String>() + " UTC"
}

/// Bytes for people.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_the_unit_that_fits() {
        assert_eq!(second(0), "1970-01-01 00:00:00 UTC");
        assert_eq!([human(0), human(1023), human(1536), human(5 << 40)], ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]);
    }
}
