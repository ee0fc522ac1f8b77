//! A snapshot file: a whole database and its digest.
//!
//! ```text
//! 0            len          len + 8    len + 16     len + 48
//! | database   | "PDSNAP01" | len      | SHA-256    |
//! | SQLite     | magic      | u64 LE   | of the database
//! ```

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use rusqlite::Connection;

use super::{Error, between_steps};

const MAGIC: &[u8; 8] = b"PDSNAP01";
const TRAILER_BYTES: u64 = 8 + 8 + 32;
const COPY_BYTES: usize = 256 << 10;

/// Writes what `connection` sees at this moment to `file`, synced.
pub(super) fn write(connection: &Connection, file: &Path) -> Result<(), Error> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let path = file.to_str().ok_or_else(|| Error::Inconsistent("a snapshot's path is no text".into()))?;
    connection.execute("VACUUM INTO ?", [path])?;
    seal(file)
}

/// Appends the trailer.
fn seal(file: &Path) -> Result<(), Error> {
    let mut file = File::options().read(true).append(true).open(file)?;
    let len_bytes = file.metadata()?.len();
    let digest = copy(&mut BufReader::new(&file), &mut std::io::sink(), len_bytes)?;
    file.write_all(MAGIC)?;
    file.write_all(&len_bytes.to_le_bytes())?;
    file.write_all(&digest)?;
    Ok(file.sync_all()?)
}

/// Copies the database out of the snapshot in `file`, and verifies it.
pub(super) fn receive(file: &Path, database: &Path) -> Result<(), Error> {
    let mut writer = BufWriter::new(File::create(database)?);
    between_steps();
    read(file, &mut writer)?;
    Ok(writer.flush()?)
}

/// Verifies the snapshot in `file`.
pub(super) fn verify(file: &Path) -> Result<(), Error> {
    read(file, &mut std::io::sink())
}

/// Reads the database out of the snapshot in `file`: what was written to `writer` is right if this succeeds.
fn read(file: &Path, writer: &mut impl Write) -> Result<(), Error> {
    let damaged = |what: &str| Error::Inconsistent(format!("the snapshot {what}"));
    let mut file = File::open(file)?;
    let file_len_bytes = file.metadata()?.len();
    let len_bytes = file_len_bytes.checked_sub(TRAILER_BYTES).ok_or_else(|| damaged("is too short"))?;
    let mut trailer = [0; TRAILER_BYTES as usize];
    file.seek(SeekFrom::Start(len_bytes))?;
    file.read_exact(&mut trailer)?;
    let (head, digest) = trailer.split_at(16);
    if head != [&MAGIC[..], &len_bytes.to_le_bytes()].concat() {
        return Err(damaged("has no trailer"));
    }
    file.rewind()?;
    match copy(&mut BufReader::new(file), writer, len_bytes)? == digest {
        true => Ok(()),
        false => Err(damaged("is damaged")),
    }
}

/// Copies `len_bytes`. Returns their SHA-256.
fn copy(from: &mut impl Read, to: &mut impl Write, len_bytes: u64) -> Result<Vec<u8>, Error> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; COPY_BYTES];
    let mut left_bytes = len_bytes;
    while left_bytes > 0 {
        let len = usize::try_from(left_bytes).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        from.read_exact(&mut buffer[..len])?;
        context.update(&buffer[..len]);
        to.write_all(&buffer[..len])?;
        left_bytes -= len as u64;
    }
    Ok(context.finish().as_ref().to_vec())
}
