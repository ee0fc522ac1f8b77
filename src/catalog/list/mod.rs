//! Listings: pages of keys, versions and uploads, in byte order of keys.
//!
//! Invariants
//! - Pages put one after another are the whole listing, each entry once.
//! - A page that is cut short has an entry, so that following `next` comes to an end.

#[cfg(test)]
pub(super) mod tests;
mod walk;

use super::query::{read_upload, signed};
use super::*;
use crate::env::Timestamp;
use crate::ids::{BucketId, Ino, Seq};
use rusqlite::params;
use walk::{NEWEST, Row, Source, Walker};

/// Which keys to list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListQuery {
    /// Only keys that begin so.
    pub prefix: Vec<u8>,
    /// Keys that share all up to its next occurrence after the prefix are one entry; empty: none.
    pub delimiter: Vec<u8>,
    /// Only keys and common prefixes above it, and none that it lies in.
    pub after: Vec<u8>,
    /// At most this many entries.
    pub limit: usize,
}

/// One entry of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListEntry {
    /// A key.
    Object {
        /// Its bytes.
        key: Vec<u8>,
        /// Length in bytes.
        size_bytes: u64,
        /// When it was written.
        modified: Timestamp,
        /// Entity tag.
        etag: ETag,
        /// Storage class as sent; empty: STANDARD.
        storage_class: String,
    },
    /// A common prefix.
    Prefix(Vec<u8>),
}

/// A page of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListPage {
    /// In byte order.
    pub entries: Vec<ListEntry>,
    /// Present where there may be more: `after` of the next page. The last entry, or where the scan budget ended.
    pub next: Option<Vec<u8>>,
}

/// Which versions to list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VersionQuery {
    /// As in [`ListQuery`].
    pub prefix: Vec<u8>,
    /// As in [`ListQuery`].
    pub delimiter: Vec<u8>,
    /// As in [`ListQuery`]; with `after_seq`, versions of this very key older than it come first.
    pub after: Vec<u8>,
    /// The version of `after` that was returned last.
    pub after_seq: Option<Seq>,
    /// At most this many entries.
    pub limit: usize,
}

/// A page of versions. A version's `attrs` are left empty, but for the storage class.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VersionPage {
    /// Keys ascending, the newest version first; and common prefixes.
    pub entries: Vec<(Vec<u8>, Option<Version>)>,
    /// Present where there may be more: `after` and `after_seq` of the next page.
    pub next: Option<(Vec<u8>, Option<Seq>)>,
}

/// A page of uploads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UploadPage {
    /// By key, then by id.
    pub uploads: Vec<Upload>,
    /// Common prefixes, ascending.
    pub prefixes: Vec<Vec<u8>>,
    /// Present where there is more: key marker and upload id marker of the next page.
    pub next: Option<(Vec<u8>, Option<Ino>)>,
}

/// The part of a query that says which keys are one entry.
pub(super) struct Groups<'q> {
    pub(super) prefix: &'q [u8],
    pub(super) delimiter: &'q [u8],
}

impl Groups<'_> {
    /// The common prefix that `key`, which begins with the prefix, is grouped under.
    pub(super) fn group<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        if self.delimiter.is_empty() {
            return None;
        }
        let rest = key.get(self.prefix.len()..)?;
        let found = rest.windows(self.delimiter.len()).position(|window| window == self.delimiter)?;
        Some(&key[..self.prefix.len() + found + self.delimiter.len()])
    }

    /// The first key that may be listed after `after`; none: no key may.
    fn start(&self, after: &[u8]) -> Option<Vec<u8>> {
        if after.starts_with(self.prefix)
            && let Some(group) = self.group(after)
        {
            return above(group);
        }
        let next = [after, &[0]].concat();
        Some(next.max(self.prefix.to_vec()))
    }
}

/// The first key above all that begin with `prefix`; none: there is no such key.
fn above(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut key = prefix[..=last].to_vec();
    key[last] += 1;
    Some(key)
}

/// Goes on behind the group that the row yielded last is in. False: nothing can follow.
fn leave(walker: &mut Walker<'_>, row: &Row, group: &[u8]) -> Result<bool, Error> {
    if row.is_directory() && walker.path() == group {
        return Ok(true);
    }
    match above(group) {
        Some(key) => walker.seek(&key, NEWEST).map(|()| true),
        None => Ok(false),
    }
}

impl View<'_> {
    /// A page of the current versions.
    pub fn list(&self, bucket: BucketId, query: &ListQuery) -> Result<ListPage, Error> {
        let groups = Groups { prefix: &query.prefix, delimiter: &query.delimiter };
        let mut page = ListPage::default();
        let Some(start) = groups.start(&query.after).filter(|_| query.limit > 0) else { return Ok(page) };
        let mut walker = Walker::new(self, Source::Visible, bucket.root());
        walker.seek(&start, NEWEST)?;
        while let Some(row) = walker.next()?
            && walker.path().starts_with(&query.prefix)
        {
            let group = groups.group(walker.path()).map(<[u8]>::to_vec);
            if row.is_directory() && group.is_none() {
                walker.descend(row.entry.ino);
                continue;
            }
            if page.entries.len() == query.limit || walker.is_spent() && !page.entries.is_empty() {
                page.next = page.entries.last().map(|entry| entry.name().to_vec());
                return Ok(page);
            }
            match group {
                None => page.entries.push(self.object(walker.path(), &row)?),
                Some(group) => {
                    page.entries.push(ListEntry::Prefix(group.clone()));
                    if !leave(&mut walker, &row, &group)? {
                        return Ok(page);
                    }
                }
            }
        }
        Ok(page)
    }

    fn object(&self, key: &[u8], row: &Row) -> Result<ListEntry, Error> {
        let shown = self.shown(&row.entry, None)?;
        Ok(ListEntry::Object {
            key: key.to_vec(),
            size_bytes: shown.size_bytes,
            modified: shown.modified,
            etag: shown.etag,
            storage_class: self.storage_class(&row.entry)?,
        })
    }

    /// A page of all versions and delete markers.
    pub fn list_versions(&self, bucket: BucketId, query: &VersionQuery) -> Result<VersionPage, Error> {
        let groups = Groups { prefix: &query.prefix, delimiter: &query.delimiter };
        let mut page = VersionPage::default();
        let Some(start) = groups.start(&query.after).filter(|_| query.limit > 0) else { return Ok(page) };
        let mut walker = Walker::new(self, Source::Versions, bucket.root());
        // The key whose newest version the walk has passed.
        let mut passed = None;
        match query.after_seq {
            // Only where the listing would go on right behind the key `after` does it have versions left to list.
            Some(seq) if start.strip_suffix(&[0]) == Some(&query.after) => {
                walker.seek(&query.after, signed(seq.0))?;
                passed =
                    self.newest(bucket, &query.after)?.filter(|newest| *newest >= seq).map(|_| query.after.clone());
            }
            _ => walker.seek(&start, NEWEST)?,
        }
        while let Some(row) = walker.next()?
            && walker.path().starts_with(&query.prefix)
        {
            let group = groups.group(walker.path()).map(<[u8]>::to_vec);
            if row.is_directory() && group.is_none() {
                walker.descend(row.entry.ino);
                continue;
            }
            if page.entries.len() == query.limit || walker.is_spent() && !page.entries.is_empty() {
                page.next = page.entries.last().map(|(key, version)| (key.clone(), version.as_ref().map(|v| v.seq)));
                return Ok(page);
            }
            match group {
                None => {
                    let is_latest = passed.as_deref() != Some(walker.path());
                    let mut version = self.bare_version(&row.entry, is_latest, None)?;
                    version.attrs.storage_class = self.storage_class(&row.entry)?;
                    page.entries.push((walker.path().to_vec(), Some(version)));
                    passed = Some(walker.path().to_vec());
                }
                Some(group) => {
                    page.entries.push((group.clone(), None));
                    if !leave(&mut walker, &row, &group)? {
                        return Ok(page);
                    }
                }
            }
        }
        Ok(page)
    }

    /// A page of uploads in progress; `after_id`: uploads of key `query.after` with larger ids come first.
    /// `query.limit` bounds uploads and common prefixes together.
    pub fn list_uploads(
        &self,
        bucket: BucketId,
        query: &ListQuery,
        after_id: Option<Ino>,
    ) -> Result<UploadPage, Error> {
        let groups = Groups { prefix: &query.prefix, delimiter: &query.delimiter };
        let mut page = UploadPage::default();
        let Some(start) = groups.start(&query.after).filter(|_| query.limit > 0) else { return Ok(page) };
        // Uploads come from behind (key, id); -1 is before every id.
        let mut position = match after_id {
            Some(id) if start.strip_suffix(&[0]) == Some(&query.after) => (query.after.clone(), signed(id.0)),
            _ => (start, -1),
        };
        let mut last = None;
        while let Some(upload) = self.upload_behind(bucket, &position)?
            && upload.key.starts_with(&query.prefix)
        {
            if page.uploads.len() + page.prefixes.len() == query.limit {
                page.next = last;
                return Ok(page);
            }
            match groups.group(&upload.key) {
                None => {
                    last = Some((upload.key.clone(), Some(upload.id)));
                    position = (upload.key.clone(), signed(upload.id.0));
                    page.uploads.push(upload);
                }
                Some(group) => {
                    last = Some((group.to_vec(), None));
                    page.prefixes.push(group.to_vec());
                    let Some(next) = above(group) else { return Ok(page) };
                    position = (next, -1);
                }
            }
        }
        Ok(page)
    }

    fn upload_behind(&self, bucket: BucketId, (key, id): &(Vec<u8>, i64)) -> Result<Option<Upload>, Error> {
        let sql = "SELECT key,id,created_ns,attrs FROM upload WHERE bucket=?1 AND (key,id)>(?2,?3)
            ORDER BY key,id LIMIT 1";
        self.one(sql, params![signed(bucket.0), key, id], read_upload)
    }
}

impl ListEntry {
    /// The key, or the common prefix.
    pub fn name(&self) -> &[u8] {
        match self {
            ListEntry::Object { key, .. } => key,
            ListEntry::Prefix(prefix) => prefix,
        }
    }
}
