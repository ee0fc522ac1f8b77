//! Multipart uploads: parts are extents of the future node from the start, so completing moves nothing.
//!
//! Invariants
//! - An upload's id has no node until it is completed or aborted; its parts and extents are keyed by it.
//! - Part `n`'s bytes are the extents from `n << 40` up to `(n + 1) << 40`.
//! - An upload has a row in `upload` while it runs, and one in `completed` for a while after.
//! - A completed upload has the parts that its list names and no others. What else there was is dropped before, by
//!   commands of [`DROP_ROW_COUNT`] rows; each drops nothing unless the upload could be completed then.

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use rusqlite::params;

use crate::catalog::event::Happening;
use crate::catalog::{
    Attrs, Checksum, CompletePart, ETag, Error, NewChunk, Outcome, PartBody, Precondition, Refusal, Written,
};
use crate::env::Timestamp;
use crate::ids::{BucketId, Ino, SEQS_PER_COMMAND};
use crate::units::{PART_COUNT_MAX, PART_MAX_BYTES, PART_MIN_BYTES, PART_RUN_COUNT_MAX};

use super::chunk::Accepted;
use super::node::{Form, NewNode, Use};
use super::object::{NewVersion, check_key};
use super::{Decision, Step, bound, sql, unsql};

/// Bits of an extent's offset below its part number.
const PART_SHIFT: u32 = 40;
/// Rows that one Complete drops of parts that it does not list.
const DROP_ROW_COUNT: u64 = SEQS_PER_COMMAND;
/// How many rows of `completed` one command looks at.
const FORGET_SCAN: u32 = 4096;

/// (chunk, start in it, length).
pub(super) type Run = (Ino, u64, u64);

/// What names an upload.
pub(super) struct Name<'a> {
    pub(super) bucket: BucketId,
    pub(super) key: &'a [u8],
    pub(super) id: Ino,
}

/// A part's arguments.
pub(super) struct NewPart<'a> {
    pub(super) number: u32,
    pub(super) size_bytes: u64,
    pub(super) etag: ETag,
    pub(super) checksums: &'a [Checksum],
    pub(super) body: &'a PartBody,
}

/// MD5 over number (u32 LE), length of the tag (1 byte) and tag of each part: tells one list of parts from another.
fn digest(parts: &[CompletePart]) -> Vec<u8> {
    let mut md5 = Md5::new();
    for part in parts {
        let etag = part.etag.to_bytes();
        md5.update(part.number.to_le_bytes());
        md5.update([etag.len() as u8]);
        md5.update(etag);
    }
    md5.finalize().to_vec()
}

/// Takes the listed parts out of `uploaded`. Returns their bytes.
fn check_parts(parts: &[CompletePart], uploaded: &mut BTreeMap<u32, (u64, ETag)>) -> Result<u64, Refusal> {
    let ascending = parts.windows(2).all(|pair| pair[0].number < pair[1].number);
    let Some(last) = parts.last().filter(|_| ascending) else { return Err(Refusal::InvalidPartOrder) };
    let mut sum_bytes = 0;
    for CompletePart { number, etag } in parts {
        let invalid = Refusal::InvalidPart { number: *number };
        let (size_bytes, stored) = uploaded.remove(number).ok_or_else(|| invalid.clone())?;
        if stored != *etag {
            return Err(invalid);
        }
        if size_bytes < PART_MIN_BYTES && *number != last.number {
            return Err(Refusal::PartTooSmall { number: *number, size_bytes });
        }
        sum_bytes += size_bytes;
    }
    Ok(sum_bytes)
}

impl Step<'_> {
    pub(super) fn create_upload(&mut self, bucket: BucketId, key: &[u8], id: Ino, attrs: &Attrs) -> Decision<Outcome> {
        check_key(key)?;
        self.bucket(bucket)?;
        self.check_fresh(id)?;
        self.retire_ids(id, Ino(id.0 + 1))?;
        let insert = "INSERT INTO upload(bucket, key, id, created_ns, attrs) VALUES(?, ?, ?, ?, ?)";
        self.run(insert, params![sql(bucket.0), key, sql(id.0), self.now.0, attrs.encode()])?;
        Ok(Outcome::Done)
    }

    fn upload_attrs(&self, upload: &Name<'_>) -> Result<Option<Attrs>, Error> {
        let query = "SELECT attrs FROM upload WHERE bucket=? AND key=? AND id=?";
        let params = params![sql(upload.bucket.0), upload.key, sql(upload.id.0)];
        let found = self.find(query, params, |row| row.get::<_, Vec<u8>>(0))?;
        found.map(|bytes| Attrs::decode(&bytes)).transpose()
    }

    fn delete_upload(&self, upload: &Name<'_>) -> Result<(), Error> {
        let delete = "DELETE FROM upload WHERE bucket=? AND key=? AND id=?";
        self.run(delete, params![sql(upload.bucket.0), upload.key, sql(upload.id.0)])?;
        Ok(())
    }

    pub(super) fn put_part(&mut self, upload: &Name<'_>, part: &NewPart<'_>) -> Decision<Outcome> {
        bound((1..=PART_COUNT_MAX).contains(&part.number), "a part's number is 1 to 10,000")?;
        bound(part.size_bytes <= PART_MAX_BYTES, "a part has at most 5 GiB")?;
        self.bucket(upload.bucket)?;
        self.upload_attrs(upload)?.ok_or(Refusal::NoSuchUpload)?;
        let runs = self.take_runs(part)?;
        self.drop_part(upload.id, part.number)?;
        self.insert_extents(upload.id, part.number, &runs)?;
        let insert = "INSERT INTO part(upload, num, size_bytes, mtime_ns, etag, checksums) VALUES(?, ?, ?, ?, ?, ?)";
        let columns = params![
            sql(upload.id.0),
            part.number,
            sql(part.size_bytes),
            self.now.0,
            part.etag.to_bytes(),
            Checksum::encode_all(part.checksums)
        ];
        self.run(insert, columns)?;
        Ok(Outcome::Done)
    }

    /// Takes a use of each chunk that the part names. The last that refuses.
    fn take_runs(&mut self, part: &NewPart<'_>) -> Decision<Vec<Run>> {
        match part.body {
            PartBody::Empty => {
                bound(part.size_bytes == 0, "an empty part has no bytes")?;
                Ok(Vec::new())
            }
            PartBody::Chunk { chunk, place } => {
                self.take_new(&[NewChunk { id: *chunk, place: place.clone(), short: false }], part.size_bytes)
            }
            PartBody::Chunks(chunks) => self.take_new(chunks, part.size_bytes),
            PartBody::Share(runs) => {
                self.check_runs(runs, part.size_bytes)?;
                for (chunk, _, _) in runs {
                    self.add_use(*chunk)?;
                }
                Ok(runs.clone())
            }
        }
    }

    /// Inserts new chunks, each with the one use that the extent to be has.
    pub(super) fn take_new(&mut self, chunks: &[NewChunk], size_bytes: u64) -> Decision<Vec<Run>> {
        let accepted = self.accept(chunks, size_bytes, None)?;
        accepted.iter().try_for_each(|chunk| self.insert_chunk(chunk))?;
        Ok(whole(&accepted))
    }

    fn check_runs(&self, runs: &[Run], size_bytes: u64) -> Decision<()> {
        bound((1..=PART_RUN_COUNT_MAX).contains(&runs.len()), "1 to 1,000 runs a part")?;
        let mut sum_bytes = 0u64;
        for (chunk, start, len_bytes) in runs {
            let place = self.place(*chunk)?.ok_or(Refusal::SourceGone)?;
            let end = start.checked_add(*len_bytes).filter(|end| *len_bytes > 0 && *end <= place.len_bytes);
            bound(end.is_some(), "a run lies within its chunk")?;
            sum_bytes = sum_bytes.saturating_add(*len_bytes);
        }
        Ok(bound(sum_bytes == size_bytes, "the runs have as many bytes as announced")?)
    }

    /// Inserts the extents of a part, or of a content that has no parts: then `number` is 0.
    pub(super) fn insert_extents(&self, holder: Ino, number: u32, runs: &[Run]) -> Result<(), Error> {
        let insert = "INSERT INTO extent(ino, off, chunk, chunk_off, len_bytes) VALUES(?, ?, ?, ?, ?)";
        let mut offset = u64::from(number) << PART_SHIFT;
        for (chunk, start, len_bytes) in runs {
            self.run(insert, [sql(holder.0), sql(offset), sql(chunk.0), sql(*start), sql(*len_bytes)])?;
            offset += len_bytes;
        }
        Ok(())
    }

    /// Removes a part, if it is there; its chunks lose a use each.
    fn drop_part(&mut self, upload: Ino, number: u32) -> Result<(), Error> {
        if self.run("DELETE FROM part WHERE upload=? AND num=?", params![sql(upload.0), number])? == 0 {
            return Ok(());
        }
        let range = extents_of(upload, number);
        let query = "SELECT chunk FROM extent WHERE ino=? AND off>=? AND off<? ORDER BY off";
        for chunk in self.all(query, range, |row| row.get(0))? {
            self.lose(Ino(unsql(chunk)), Use::Body)?;
        }
        self.run("DELETE FROM extent WHERE ino=? AND off>=? AND off<?", range)?;
        Ok(())
    }

    fn drop_parts(&mut self, upload: Ino, numbers: &[u32]) -> Result<(), Error> {
        numbers.iter().try_for_each(|number| self.drop_part(upload, *number))
    }

    /// How many of these parts are dropped, in order, until [`DROP_ROW_COUNT`] rows were touched.
    fn droppable_count(&self, upload: Ino, numbers: &[u32]) -> Result<usize, Error> {
        let query = "SELECT count(*) FROM extent WHERE ino=? AND off>=? AND off<?";
        let mut row_count = 0;
        for (index, number) in numbers.iter().enumerate() {
            if row_count >= DROP_ROW_COUNT {
                return Ok(index);
            }
            let extent_count = self.find(query, extents_of(upload, *number), |row| row.get(0))?;
            // Each extent goes, and its chunk comes on the dead list.
            row_count += 1 + 2 * unsql(extent_count.unwrap_or(0));
        }
        Ok(numbers.len())
    }

    pub(super) fn complete_upload(
        &mut self,
        upload: &Name<'_>,
        parts: &[CompletePart],
        etag: ETag,
        checksums: &[Checksum],
        precondition: &Precondition,
    ) -> Decision<Outcome> {
        let bucket = self.bucket(upload.bucket)?;
        let digest = digest(parts);
        let Some(mut attrs) = self.upload_attrs(upload)? else {
            return Ok(Outcome::Written(self.completed_before(upload, &digest)?));
        };
        let mut uploaded = self.uploaded_parts(upload.id)?;
        let size_bytes = check_parts(parts, &mut uploaded)?;
        let found = self.find_current(&bucket, upload.key, precondition)?;
        let unlisted: Vec<u32> = uploaded.into_keys().collect();

        let (now, later) = unlisted.split_at(self.droppable_count(upload.id, &unlisted)?);
        if !later.is_empty() {
            self.drop_parts(upload.id, now)?;
            return Ok(Outcome::Drained { remaining: later.len() as u32 });
        }
        attrs.checksums = checksums.to_vec();
        let attrs = self.retain(&bucket, self.inherit(&found, &attrs)?)?.into_owned();
        self.insert_fresh(&upload_node(upload.id, 1, Some(&attrs.encode())))?;
        self.drop_parts(upload.id, now)?;
        self.delete_upload(upload)?;
        let new = NewVersion { ino: upload.id, size_bytes, etag, attrs: &attrs };
        let written = self.publish(&bucket, upload.key, found, new, Happening::Completed)?;
        self.insert_completed(upload, &digest, &written)?;
        Ok(Outcome::Written(written))
    }

    fn uploaded_parts(&self, upload: Ino) -> Result<BTreeMap<u32, (u64, ETag)>, Error> {
        let query = "SELECT num, size_bytes, etag FROM part WHERE upload=? ORDER BY num";
        let rows = self.all(query, [sql(upload.0)], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?)))?;
        let decode = |(number, size_bytes, etag): (u32, i64, Vec<u8>)| {
            let etag = ETag::from_bytes(&etag).ok_or(Error::Undecodable { what: "part's tag" })?;
            Ok((number, (unsql(size_bytes), etag)))
        };
        rows.into_iter().map(decode).collect()
    }

    /// The first answer to a Complete that comes again, with the same list of parts.
    fn completed_before(&self, upload: &Name<'_>, digest: &[u8]) -> Decision<Written> {
        let query = "SELECT outcome FROM completed WHERE id=? AND bucket=? AND key=? AND digest=?";
        let params = params![sql(upload.id.0), sql(upload.bucket.0), upload.key, digest];
        let found = self.find(query, params, |row| row.get::<_, Vec<u8>>(0))?;
        Ok(Written::decode(&found.ok_or(Refusal::NoSuchUpload)?)?)
    }

    fn insert_completed(&self, upload: &Name<'_>, digest: &[u8], written: &Written) -> Result<(), Error> {
        let insert = "INSERT INTO completed(id, bucket, key, at_ns, digest, outcome) VALUES(?, ?, ?, ?, ?, ?)";
        let (id, bucket) = (sql(upload.id.0), sql(upload.bucket.0));
        self.run(insert, params![id, bucket, upload.key, self.now.0, digest, written.encode()])?;
        Ok(())
    }

    pub(super) fn abort_upload(&mut self, upload: &Name<'_>) -> Decision<Outcome> {
        self.bucket(upload.bucket)?;
        self.upload_attrs(upload)?.ok_or(Refusal::NoSuchUpload)?;
        self.insert_fresh(&upload_node(upload.id, 0, None))?;
        self.delete_upload(upload)?;
        self.lose(upload.id, Use::Body)?;
        Ok(Outcome::Done)
    }

    pub(super) fn forget_completed(&mut self, before: Timestamp, row_count: u32) -> Decision<Outcome> {
        let delete = "DELETE FROM completed WHERE id IN (SELECT id FROM
            (SELECT id, at_ns FROM completed ORDER BY id LIMIT ?3) WHERE at_ns<?1 ORDER BY id LIMIT ?2)";
        self.run(delete, params![before.0, row_count, FORGET_SCAN])?;
        Ok(Outcome::Done)
    }
}

/// The runs that are all of each chunk.
pub(super) fn whole(chunks: &[Accepted]) -> Vec<Run> {
    chunks.iter().map(|chunk| (chunk.id, 0, chunk.len_bytes)).collect()
}

/// Where the extents of a part are: (node, from, up to).
fn extents_of(upload: Ino, number: u32) -> [i64; 3] {
    [sql(upload.0), sql(u64::from(number) << PART_SHIFT), sql(u64::from(number + 1) << PART_SHIFT)]
}

/// The node that an upload becomes.
fn upload_node(id: Ino, nlink: u64, attrs: Option<&[u8]>) -> NewNode<'_> {
    NewNode { id, nlink, owner: None, form: Form::Multipart, attrs, place: None }
}
