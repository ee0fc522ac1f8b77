//! Access control lists as of a bucket whose owner is enforced: the owner has full control, and nothing else can be said.

use crate::app::Request;
use crate::error::{ErrorCode, S3Error};
use crate::xml;

const OWNER_ONLY: [&str; 3] = ["private", "bucket-owner-full-control", "bucket-owner-read"];
/// The others that S3 knows.
const FOR_OTHERS: [&str; 5] =
    ["public-read", "public-read-write", "authenticated-read", "aws-exec-read", "log-delivery-write"];

/// Canned and granted ACLs of any request.
///
/// # Errors
/// `AccessControlListNotSupported` for whatever is not owner-only; `InvalidArgument`: no canned ACL of S3's.
pub fn check_headers(request: &Request) -> Result<(), S3Error> {
    let grants = request.head.headers.keys().any(|name| name.as_str().starts_with("x-amz-grant-"));
    let canned = request.header("x-amz-acl")?;
    match canned {
        _ if grants => Err(ErrorCode::AccessControlListNotSupported.into()),
        None => Ok(()),
        Some(canned) if OWNER_ONLY.contains(&canned) => Ok(()),
        Some(canned) if FOR_OTHERS.contains(&canned) => Err(ErrorCode::AccessControlListNotSupported.into()),
        Some(canned) => Err(S3Error::invalid_argument("Unknown canned ACL", "x-amz-acl", canned)),
    }
}

/// The body, or the headers, of a PUT ?acl.
///
/// # Errors
/// `AccessControlListNotSupported`; `MalformedACLError`; `MissingSecurityHeader` where nothing is said.
pub fn check(request: &Request, document: &[u8], owner: &str) -> Result<(), S3Error> {
    check_headers(request)?;
    let in_headers = request.head.headers.contains_key("x-amz-acl");
    match (document.is_empty(), in_headers) {
        (true, true) => Ok(()),
        (true, false) => Err(ErrorCode::MissingSecurityHeader.into()),
        (false, true) => Err(ErrorCode::UnexpectedContent.into()),
        (false, false) if xml::request::access_control_policy(document)?.is_owner_only(owner) => Ok(()),
        (false, false) => Err(ErrorCode::AccessControlListNotSupported.into()),
    }
}
