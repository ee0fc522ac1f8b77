//! Request bodies.
//!
//! Unknown elements are `MalformedXML`, save where S3 lets them pass (a Delete's objects, an ACL's grants).

use std::collections::HashSet;

use super::reader::{Element, malformed};
use crate::checksum::{Base64 as _, Checksum, ChecksumAlgorithm, Spelling as _};
use crate::conditions::unquote_etag;
use crate::dates::{parse_http_date, parse_iso_8601_ms};
use crate::error::{ErrorCode, S3Error};
use crate::query::Query;

/// Part numbers go from 1 to this.
pub const PART_MAX_NUMBER: u32 = 10_000;
/// The most keys of one DeleteObjects.
pub const DELETE_MAX_COUNT: usize = 1000;

/// One part of a CompleteMultipartUpload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedPart {
    /// 1 to 10,000.
    pub part_number: u32,
    /// Without quotes.
    pub etag: String,
    /// What the client believes the part's checksums to be.
    pub checksums: Vec<Checksum>,
}

/// Reads a CompleteMultipartUpload: 1 to 10,000 parts in ascending order.
///
/// # Errors
/// `MalformedXML`; `InvalidPartOrder`; `InvalidArgument`: a part number out of bounds; `InvalidRequest`: a malformed checksum.
pub fn complete_multipart_upload(body: &[u8]) -> Result<Vec<CompletedPart>, S3Error> {
    let root = Element::parse(body)?.called("CompleteMultipartUpload")?.only(&["Part"])?;
    let parts = root.all("Part").map(completed_part).collect::<Result<Vec<_>, _>>()?;
    if parts.is_empty() || parts.len() > PART_MAX_NUMBER as usize {
        return Err(malformed());
    }
    if !parts.is_sorted_by(|one, next| one.part_number < next.part_number) {
        return Err(ErrorCode::InvalidPartOrder.into());
    }
    Ok(parts)
}

fn completed_part(part: &Element<'_>) -> Result<CompletedPart, S3Error> {
    let number = part.required("PartNumber")?.trim();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return Err(malformed());
    }
    let part_number = part_number(number)?;
    let etag = unquote_etag(part.required("ETag")?.trim()).to_owned();
    let mut checksums = Vec::new();
    for algorithm in ChecksumAlgorithm::ALL {
        if let Some(text) = part.child_text(algorithm.element())? {
            checksums.push(Checksum::parse(algorithm, text.trim()).ok_or_else(|| invalid_checksum(algorithm))?);
        }
    }
    Ok(CompletedPart { part_number, etag, checksums })
}

fn invalid_checksum(algorithm: ChecksumAlgorithm) -> S3Error {
    S3Error::new(ErrorCode::InvalidRequest, format!("Value for {} is invalid.", algorithm.element()))
}

/// Reads a part number, of a body or of the query.
///
/// # Errors
/// `InvalidArgument` unless 1 to 10,000.
pub fn part_number(text: &str) -> Result<u32, S3Error> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && (1..=PART_MAX_NUMBER).contains(number));
    number.ok_or_else(|| {
        let message = "Part number must be an integer between 1 and 10000, inclusive";
        S3Error::invalid_argument(message, "partNumber", text)
    })
}

/// A DeleteObjects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// Only errors are answered.
    pub quiet: bool,
    /// 1 to 1,000, in the order given.
    pub objects: Vec<ObjectToDelete>,
}

/// One object of a DeleteObjects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectToDelete {
    /// Never empty; may be longer than a key can be.
    pub key: String,
    /// As sent.
    pub version_id: Option<String>,
    /// Delete only if it has this ETag; without quotes, or `*`.
    pub etag: Option<String>,
    /// Delete only if it was modified then, to the second.
    pub last_modified_ms: Option<i64>,
    /// Delete only if it has this size.
    pub size_bytes: Option<u64>,
}

/// Reads a DeleteObjects.
///
/// # Errors
/// `MalformedXML`: also for no key, or more than 1,000.
pub fn delete(body: &[u8]) -> Result<Delete, S3Error> {
    let root = Element::parse(body)?.called("Delete")?.only(&["Object", "Quiet"])?;
    let quiet = root.child_text("Quiet")?.map(boolean).transpose()?.unwrap_or(false);
    let objects = root.all("Object").take(DELETE_MAX_COUNT + 1).map(object_to_delete).collect::<Result<Vec<_>, _>>()?;
    if objects.is_empty() || objects.len() > DELETE_MAX_COUNT {
        return Err(malformed());
    }
    Ok(Delete { quiet, objects })
}

fn object_to_delete(object: &Element<'_>) -> Result<ObjectToDelete, S3Error> {
    let key = object.required("Key")?.to_owned();
    if key.is_empty() {
        return Err(malformed());
    }
    let version_id = object.child_text("VersionId")?.filter(|id| !id.is_empty()).map(str::to_owned);
    let last_modified = object.child_text("LastModifiedTime")?.map(|text| {
        parse_iso_8601_ms(text).or_else(|| parse_http_date(text).map(|seconds| seconds * 1000)).ok_or_else(malformed)
    });
    let size = object.child_text("Size")?.map(|text| text.trim().parse().map_err(|_| malformed()));
    Ok(ObjectToDelete {
        key,
        version_id,
        etag: object.child_text("ETag")?.map(|text| unquote_etag(text.trim()).to_owned()),
        last_modified_ms: last_modified.transpose()?,
        size_bytes: size.transpose()?,
    })
}

fn boolean(text: &str) -> Result<bool, S3Error> {
    match text.trim() {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" | "" => Ok(false),
        _ => Err(malformed()),
    }
}

/// Reads a CreateBucketConfiguration: the region it names. An empty body names none.
///
/// # Errors
/// `MalformedXML`; `InvalidLocationConstraint`: no region's name; `NotImplemented`: directory buckets, and tags at creation.
pub fn create_bucket_configuration(body: &[u8]) -> Result<Option<String>, S3Error> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let root = Element::parse(body)?.called("CreateBucketConfiguration")?.only(&[
        "LocationConstraint",
        "Location",
        "Bucket",
        "Tags",
    ])?;
    if root.children.iter().any(|child| child.name != "LocationConstraint") {
        return Err(ErrorCode::NotImplemented.into());
    }
    match root.child_text("LocationConstraint")?.map(str::trim).filter(|region| !region.is_empty()) {
        Some(region) if !is_region_name(region) => {
            Err(S3Error::from(ErrorCode::InvalidLocationConstraint).with("LocationConstraint", region))
        }
        region => Ok(region.map(str::to_owned)),
    }
}

/// Any name may be a region's here, but for what could be none anywhere.
fn is_region_name(text: &str) -> bool {
    text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A bucket's versioning, once it was ever set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersioningStatus {
    /// `Enabled`.
    Enabled,
    /// `Suspended`.
    Suspended,
}

impl VersioningStatus {
    /// As it stands in XML.
    pub fn name(self) -> &'static str {
        match self {
            VersioningStatus::Enabled => "Enabled",
            VersioningStatus::Suspended => "Suspended",
        }
    }
}

/// Reads a VersioningConfiguration.
///
/// # Errors
/// `MalformedXML`; `IllegalVersioningConfigurationException`: no status; `NotImplemented`: MFA delete.
pub fn versioning_configuration(body: &[u8]) -> Result<VersioningStatus, S3Error> {
    let root = Element::parse(body)?.called("VersioningConfiguration")?.only(&["Status", "MfaDelete"])?;
    match root.child_text("MfaDelete")?.map(str::trim) {
        None | Some("Disabled") => {}
        Some("Enabled") => return Err(ErrorCode::NotImplemented.into()),
        Some(_) => return Err(malformed()),
    }
    match root.child_text("Status")?.map(str::trim) {
        Some("Enabled") => Ok(VersioningStatus::Enabled),
        Some("Suspended") => Ok(VersioningStatus::Suspended),
        Some(_) => Err(malformed()),
        None => Err(S3Error::new(
            ErrorCode::IllegalVersioningConfigurationException,
            "The Versioning element must be specified",
        )),
    }
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// 1 to 128 characters.
    pub key: String,
    /// 0 to 256 characters.
    pub value: String,
}

/// What is tagged; it decides how many tags there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tagged {
    /// At most 10.
    Object,
    /// At most 50.
    Bucket,
}

const TAG_KEY_MAX_CHARS: usize = 128;
const TAG_VALUE_MAX_CHARS: usize = 256;

/// Reads a Tagging.
///
/// # Errors
/// `MalformedXML`; `BadRequest`: too many; `InvalidTag`: lengths, characters, duplicates, the prefix `aws:`.
pub fn tagging(body: &[u8], tagged: Tagged) -> Result<Vec<Tag>, S3Error> {
    let root = Element::parse(body)?.called("Tagging")?.only(&["TagSet"])?;
    let set = root.child("TagSet")?.ok_or_else(malformed)?;
    let is_tag = |child: &Element<'_>| {
        child.name == "Tag" && child.children.iter().all(|part| ["Key", "Value"].contains(&part.name))
    };
    if !set.children.iter().all(is_tag) {
        return Err(malformed());
    }
    let tag =
        |tag: &Element<'_>| Ok(Tag { key: tag.required("Key")?.to_owned(), value: tag.required("Value")?.to_owned() });
    let tags = set.all("Tag").map(tag).collect::<Result<Vec<_>, S3Error>>()?;
    check_tags(tags, tagged)
}

/// Reads the `x-amz-tagging` header of an object: tags as a query string.
///
/// # Errors
/// As [`tagging`]; `InvalidArgument`: not a query string, or a name that stands twice.
pub fn tagging_header(text: &str) -> Result<Vec<Tag>, S3Error> {
    let not_a_query = || {
        let message = "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.";
        S3Error::invalid_argument(message, "x-amz-tagging", text)
    };
    let query = Query::parse(text).map_err(|_| not_a_query())?;
    let tags: Vec<Tag> =
        query.pairs().map(|(key, value)| Tag { key: key.to_owned(), value: value.to_owned() }).collect();
    let mut keys = HashSet::new();
    if !tags.iter().all(|tag| keys.insert(&tag.key)) {
        return Err(not_a_query());
    }
    check_tags(tags, Tagged::Object)
}

fn check_tags(tags: Vec<Tag>, tagged: Tagged) -> Result<Vec<Tag>, S3Error> {
    let (max_count, too_many) = match tagged {
        Tagged::Object => (10, "Object tags cannot be greater than 10"),
        Tagged::Bucket => (50, "Bucket tag count cannot be greater than 50"),
    };
    if tags.len() > max_count {
        return Err(S3Error::new(ErrorCode::BadRequest, too_many));
    }
    let mut keys = HashSet::new();
    for tag in &tags {
        check_tag(tag)?;
        if !keys.insert(tag.key.as_str()) {
            let message = "Cannot provide multiple Tags with the same key";
            return Err(S3Error::new(ErrorCode::InvalidTag, message).with("TagKey", tag.key.as_str()));
        }
    }
    Ok(tags)
}

fn check_tag(tag: &Tag) -> Result<(), S3Error> {
    let invalid = |message| Err(S3Error::new(ErrorCode::InvalidTag, message).with("TagKey", tag.key.as_str()));
    if tag.key.is_empty() || !is_tag_text(&tag.key, TAG_KEY_MAX_CHARS) {
        return invalid("The TagKey you have provided is invalid");
    }
    if !is_tag_text(&tag.value, TAG_VALUE_MAX_CHARS) {
        return invalid("The TagValue you have provided is invalid");
    }
    if tag.key.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:")) {
        return invalid("System tags cannot be added/updated by requester");
    }
    Ok(())
}

/// Letters, digits and spaces of any script, and `_.:/=+-@`.
fn is_tag_text(text: &str, max_chars: usize) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || (c.is_whitespace() && !c.is_control()) || "_.:/=+-@".contains(c);
    text.chars().count() <= max_chars && text.chars().all(allowed)
}

/// An AccessControlPolicy, as far as an owner-only store needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessControlPolicy {
    /// The owner's canonical user id.
    pub owner_id: String,
    /// The grants, in order.
    pub grants: Vec<Grant>,
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The grantee's canonical user id; `None` for a group or an e-mail address.
    pub grantee_id: Option<String>,
    /// `FULL_CONTROL`, `READ`, …
    pub permission: String,
}

impl AccessControlPolicy {
    /// Whether it says no more than that the owner may do everything.
    pub fn is_owner_only(&self, owner_id: &str) -> bool {
        let is_owner =
            |grant: &Grant| grant.grantee_id.as_deref() == Some(owner_id) && grant.permission == "FULL_CONTROL";
        self.owner_id == owner_id && !self.grants.is_empty() && self.grants.iter().all(is_owner)
    }
}

/// Reads an AccessControlPolicy.
///
/// # Errors
/// `MalformedACLError`.
pub fn access_control_policy(body: &[u8]) -> Result<AccessControlPolicy, S3Error> {
    read_policy(body).map_err(|error| match error.code {
        ErrorCode::MalformedXML => ErrorCode::MalformedACLError.into(),
        _ => error,
    })
}

fn read_policy(body: &[u8]) -> Result<AccessControlPolicy, S3Error> {
    let root = Element::parse(body)?.called("AccessControlPolicy")?.only(&["Owner", "AccessControlList"])?;
    let owner = root.child("Owner")?.ok_or_else(malformed)?;
    let list = root.child("AccessControlList")?.ok_or_else(malformed)?;
    if list.children.iter().any(|child| child.name != "Grant") {
        return Err(malformed());
    }
    let grants = list.all("Grant").map(grant).collect::<Result<_, _>>()?;
    Ok(AccessControlPolicy { owner_id: owner.required("ID")?.to_owned(), grants })
}

fn grant(grant: &Element<'_>) -> Result<Grant, S3Error> {
    let permission = grant.required("Permission")?.trim().to_owned();
    if !["FULL_CONTROL", "READ", "WRITE", "READ_ACP", "WRITE_ACP"].contains(&permission.as_str()) {
        return Err(malformed());
    }
    let grantee = grant.child("Grantee")?.ok_or_else(malformed)?;
    let grantee_id = grantee.child_text("ID")?.map(str::to_owned);
    if grantee_id.is_none() && grantee.child("URI")?.is_none() && grantee.child("EmailAddress")?.is_none() {
        return Err(malformed());
    }
    Ok(Grant { grantee_id, permission })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
