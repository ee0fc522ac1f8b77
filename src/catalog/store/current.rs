//! Which state is the current one.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Error, between_steps, sync_dir};

const CURRENT: &str = "CURRENT";
const PREFIX: &str = "predastore catalog 1: state-";

pub(super) fn state_dir(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("state-{number}"))
}

pub(super) fn new_dir(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("new-{number}"))
}

/// The number of the current state; none: nothing was ever made here.
///
/// A state that was made, but not yet named by `CURRENT`, is the first one, and becomes current.
pub(super) fn find(dir: &Path) -> Result<Option<u64>, Error> {
    match std::fs::read_to_string(dir.join(CURRENT)) {
        Ok(text) => return parse(&text).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    match states(dir)?[..] {
        [] => Ok(None),
        [1] => write(dir, 1).map(|()| Some(1)),
        ref found => Err(Error::Inconsistent(format!("no file CURRENT beside the states {found:?}"))),
    }
}

fn parse(text: &str) -> Result<u64, Error> {
    let number = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix('\n'));
    number.and_then(|number| number.parse().ok()).ok_or(Error::Undecodable { what: "file CURRENT" })
}

/// Numbers of the states in `dir`, ascending.
fn states(dir: &Path) -> Result<Vec<u64>, Error> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("state-"));
        numbers.extend(number.and_then(|text| text.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Names state `number` the current one, durably.
pub(super) fn write(dir: &Path, number: u64) -> Result<(), Error> {
    let temporary = dir.join("CURRENT.new");
    let mut file = File::create(&temporary)?;
    between_steps();
    file.write_all(format!("{PREFIX}{number}\n").as_bytes())?;
    file.sync_all()?;
    between_steps();
    std::fs::rename(&temporary, dir.join(CURRENT))?;
    between_steps();
    sync_dir(dir)
}

/// Removes every state but `number`, and what was never finished.
pub(super) fn remove_leftovers(dir: &Path, number: u64) -> Result<(), Error> {
    let keep = format!("state-{number}");
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_state = name.starts_with("state-") || name.starts_with("new-");
        if is_state && name != keep && entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
            between_steps();
        }
    }
    Ok(())
}
