//! Copying: the new object shares the source's content; no data moves.

use crate::catalog::{Body, Checksum, ChecksumAlgorithm, ChecksumKind, Version};

use super::put::or_default;
use super::{Error, Put, Store, Stored};

impl Store {
    /// Puts the content of `source` under another key, moving no data. Without `algorithms` the source's checksums
    /// are kept; one that is asked for and that `source` lacks is computed by reading it.
    ///
    /// # Errors
    /// `Refused(SourceGone | RevisionChanged)`: it was deleted or changed meanwhile; look it up and try again. Otherwise as [`Store::put`].
    pub async fn copy(&self, source: &Version, put: Put, algorithms: Vec<ChecksumAlgorithm>) -> Result<Stored, Error> {
        self.room.admit(0)?;
        self.expect_bucket(&put.bucket, put.owner.as_deref()).await?;
        let checksums = match algorithms.as_slice() {
            [] if !source.attrs.checksums.is_empty() => source.attrs.checksums.clone(),
            asked => self.checksums_of(source, &or_default(asked)).await?,
        };
        let body = match source.size_bytes {
            0 => Body::Empty,
            _ if source.revision == 0 => Body::Share(source.ino),
            _ => Body::ShareRevision { ino: source.ino, revision: source.revision },
        };
        self.name(put, self.fresh().await?, body, source.etag, source.size_bytes, checksums).await
    }

    /// Checksums of the whole of `source`, read only if one of them is not known.
    async fn checksums_of(&self, source: &Version, algorithms: &[ChecksumAlgorithm]) -> Result<Vec<Checksum>, Error> {
        if let Some(known) = algorithms.iter().map(|algorithm| known(source, *algorithm)).collect() {
            return Ok(known);
        }
        let reader = self.content(source).await?.read(0..source.size_bytes);
        Ok(reader.digest(algorithms).await?.checksums)
    }
}

/// The checksum of all bytes of `version`, where it was kept.
pub(super) fn known(version: &Version, algorithm: ChecksumAlgorithm) -> Option<Checksum> {
    let wanted = |checksum: &&Checksum| (checksum.algorithm, checksum.kind) == (algorithm, ChecksumKind::FullObject);
    version.attrs.checksums.iter().find(wanted).cloned()
}
