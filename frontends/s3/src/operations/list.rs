//! Listings of objects, versions and uploads.

use axum::response::Response;
use predastore::catalog::{ListEntry, ListPage, ListQuery, UploadPage, Version, VersionPage, VersionQuery};
use predastore::ids::{Seq, VersionId};

use super::{bucket, parse_version};
use crate::app::{App, Request};
use crate::error::S3Error;
use crate::listing::{Filter, ListObjects, ListObjectsV2, ListUploads, ListVersions};
use crate::respond::milliseconds;
use crate::xml::response::{self, Next, Object, Owner, Page};
use crate::xml::shown::{self, text};
use crate::{failure, respond};

/// ListObjects.
pub(super) async fn objects(app: &App, request: &Request) -> Result<Response, S3Error> {
    let asked = ListObjects::parse(&request.query)?;
    let (owner, page) = page(app, request, query(&asked.filter, &asked.marker)).await?;
    Ok(respond::xml(response::list_objects(request.bucket(), &asked, &objects_of(page, Some(&owner)))))
}

/// ListObjectsV2.
pub(super) async fn objects_v2(app: &App, request: &Request) -> Result<Response, S3Error> {
    let asked = ListObjectsV2::parse(&request.query)?;
    let continued = asked.continuation.as_ref().map(|continuation| continuation.after.as_str());
    let after = continued.or(asked.start_after.as_deref()).unwrap_or_default();
    let (owner, page) = page(app, request, query(&asked.filter, after)).await?;
    let page = objects_of(page, asked.fetch_owner.then_some(&owner));
    Ok(respond::xml(response::list_objects_v2(request.bucket(), &asked, &page)))
}

fn query(filter: &Filter, after: &str) -> ListQuery {
    ListQuery {
        prefix: filter.prefix.clone().into_bytes(),
        delimiter: filter.delimiter.clone().unwrap_or_default().into_bytes(),
        after: after.as_bytes().to_vec(),
        limit: filter.max_count as usize,
    }
}

/// The bucket's owner, and a page of it.
async fn page(app: &App, request: &Request, query: ListQuery) -> Result<(Owner, ListPage), S3Error> {
    let (bucket, page) = app.store.list(request.bucket(), query).await.map_err(failure::of)?;
    Ok((shown::owner(&bucket.owner), page))
}

fn objects_of(page: ListPage, owner: Option<&Owner>) -> Page<Object> {
    let next = page.next.map(|after| Next { after: text(&after), id: None });
    let (mut entries, mut common_prefixes) = (Vec::new(), Vec::new());
    for entry in page.entries {
        match entry {
            ListEntry::Prefix(prefix) => common_prefixes.push(text(&prefix)),
            ListEntry::Object { key, size_bytes, modified, etag, storage_class } => entries.push(Object {
                key: text(&key),
                modified_ms: milliseconds(modified),
                etag: etag.to_string(),
                size_bytes,
                storage_class: shown::storage_class(&storage_class).to_owned(),
                owner: owner.cloned(),
                checksum: None,
            }),
        }
    }
    Page { entries, common_prefixes, next }
}

/// ListObjectVersions.
pub(super) async fn versions(app: &App, request: &Request) -> Result<Response, S3Error> {
    let asked = ListVersions::parse(&request.query)?;
    let owner = shown::owner(&bucket::of(app, request).await?.owner);
    let base = query(&asked.filter, asked.key_marker.as_deref().unwrap_or_default());
    let query = VersionQuery {
        after_seq: after_seq(app, request, &asked).await?,
        prefix: base.prefix,
        delimiter: base.delimiter,
        after: base.after,
        limit: base.limit,
    };
    let page = app.store.list_versions(request.bucket(), query).await.map_err(failure::of)?;
    Ok(respond::xml(response::list_versions(request.bucket(), &asked, &versions_of(page, &owner))))
}

/// The place of the version marker: its own, or for `null` that of the key's null version.
async fn after_seq(app: &App, request: &Request, asked: &ListVersions) -> Result<Option<Seq>, S3Error> {
    let (Some(key), Some(marker)) = (&asked.key_marker, &asked.version_id_marker) else { return Ok(None) };
    match parse_version(marker)? {
        VersionId::Seq(seq) => Ok(Some(seq)),
        VersionId::Null => app.store.null_version_seq(request.bucket(), key.as_bytes()).await.map_err(failure::of),
    }
}

fn versions_of(page: VersionPage, owner: &Owner) -> Page<response::Version> {
    let last = page.entries.iter().rev().find_map(|(key, version)| version.as_ref().map(|version| (key, version.id)));
    let next = page.next.map(|(after, seq)| {
        let id = seq.map(|seq| match last {
            Some((key, VersionId::Null)) if *key == after => VersionId::Null.to_string(),
            _ => VersionId::Seq(seq).to_string(),
        });
        Next { after: text(&after), id }
    });
    let (mut entries, mut common_prefixes) = (Vec::new(), Vec::new());
    for (key, version) in page.entries {
        match version {
            None => common_prefixes.push(text(&key)),
            Some(version) => entries.push(version_of(&key, version, owner)),
        }
    }
    Page { entries, common_prefixes, next }
}

fn version_of(key: &[u8], version: Version, owner: &Owner) -> response::Version {
    response::Version {
        object: Object {
            key: text(key),
            modified_ms: milliseconds(version.modified),
            etag: version.etag.to_string(),
            size_bytes: version.size_bytes,
            storage_class: shown::storage_class(&version.attrs.storage_class).to_owned(),
            owner: Some(owner.clone()),
            checksum: None,
        },
        version_id: version.id.to_string(),
        is_latest: version.is_latest,
        is_delete_marker: version.is_delete_marker,
    }
}

/// ListMultipartUploads.
pub(super) async fn uploads(app: &App, request: &Request) -> Result<Response, S3Error> {
    let asked = ListUploads::parse(&request.query)?;
    let owner = bucket::of(app, request).await?.owner;
    let query = query(&asked.filter, asked.key_marker.as_deref().unwrap_or_default());
    // A marker that is none of ours is past no upload of its key, as an id that was never given.
    let after_id = asked.upload_id_marker.as_deref().and_then(shown::parse_upload_id);
    let page = app.store.list_uploads(request.bucket(), query, after_id).await.map_err(failure::of)?;
    Ok(respond::xml(response::list_uploads(request.bucket(), &asked, &uploads_of(page, &owner))))
}

fn uploads_of(page: UploadPage, owner: &str) -> Page<response::Upload> {
    Page {
        entries: page.uploads.iter().map(|upload| shown::upload(upload, owner)).collect(),
        common_prefixes: page.prefixes.iter().map(|prefix| text(prefix)).collect(),
        next: page.next.map(|(after, id)| Next { after: text(&after), id: id.map(shown::upload_id) }),
    }
}
