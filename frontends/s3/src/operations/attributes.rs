//! GetObjectAttributes.

use axum::response::Response;
use predastore::catalog::Version;
use predastore::object::Found;

use super::object::find;
use super::target_of;
use crate::app::{App, Request};
use crate::dates::http_date;
use crate::error::S3Error;
use crate::listing::{ListParts, PAGE_MAX_COUNT};
use crate::respond::milliseconds;
use crate::xml::response::{self, AttributeParts, Attributes};
use crate::xml::shown;
use crate::{failure, respond};

const KNOWN: [&str; 5] = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];

/// GET ?attributes.
pub(super) async fn get(app: &App, request: &Request) -> Result<Response, S3Error> {
    let wanted = wanted(request)?;
    let target = target_of(request)?;
    let Found { bucket, version } = find(app, request, &target).await?;
    let has = |name: &str| wanted.contains(&name);
    let part_count = version.etag.part_count;
    let attributes = Attributes {
        etag: has("ETag").then(|| version.etag.to_string()),
        checksum: has("Checksum").then(|| shown::object_checksum(&version.attrs.checksums, part_count)).flatten(),
        parts: if has("ObjectParts") && part_count > 0 { Some(parts(app, request, &version).await?) } else { None },
        storage_class: has("StorageClass").then(|| shown::storage_class(&version.attrs.storage_class).to_owned()),
        size_bytes: has("ObjectSize").then_some(version.size_bytes),
    };
    let mut response = respond::xml(response::object_attributes(&attributes));
    respond::put(response.headers_mut(), "last-modified", &http_date(milliseconds(version.modified)));
    if bucket.ever_versioned {
        respond::put(response.headers_mut(), "x-amz-version-id", &version.id.to_string());
    }
    Ok(response)
}

fn wanted(request: &Request) -> Result<Vec<&str>, S3Error> {
    let name = "x-amz-object-attributes";
    let mut wanted = Vec::new();
    for value in request.head.headers.get_all(name) {
        let text =
            value.to_str().map_err(|_| S3Error::invalid_argument("Invalid attribute name specified.", name, ""))?;
        wanted.extend(text.split(',').map(str::trim).filter(|attribute| !attribute.is_empty()));
    }
    match wanted.iter().find(|attribute| !KNOWN.contains(attribute)) {
        Some(unknown) => Err(S3Error::invalid_argument("Invalid attribute name specified.", name, *unknown)),
        None if wanted.is_empty() => Err(S3Error::invalid_argument(
            "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty",
            name,
            "",
        )),
        None => Ok(wanted),
    }
}

async fn parts(app: &App, request: &Request, version: &Version) -> Result<AttributeParts, S3Error> {
    let list = ListParts {
        part_number_marker: number(request, "x-amz-part-number-marker")?.unwrap_or(0),
        max_count: number(request, "x-amz-max-parts")?.unwrap_or(PAGE_MAX_COUNT).min(PAGE_MAX_COUNT),
        url_encoded: false,
    };
    let limit = list.max_count as usize;
    let mut found = app.store.object_parts(version, list.part_number_marker, limit + 1).await.map_err(failure::of)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let algorithm = version.attrs.upload_checksum.map(|(algorithm, _)| algorithm);
    Ok(AttributeParts {
        total_count: version.etag.part_count,
        next: found.last().filter(|_| more).map(|part| part.number),
        // S3 lists parts only of uploads that announced a checksum.
        parts: found.iter().filter(|_| algorithm.is_some()).map(|part| shown::part(part, algorithm)).collect(),
        list,
    })
}

fn number(request: &Request, name: &'static str) -> Result<Option<u32>, S3Error> {
    let Some(text) = request.header(name)? else { return Ok(None) };
    let parsed = text.trim().parse().ok().filter(|number: &u32| *number <= i32::MAX as u32);
    parsed.map(Some).ok_or_else(|| S3Error::invalid_argument("Not an integer in range", name, text))
}
