//! What a request's headers say of an object: the headers to give back, user metadata, tags, storage class.

use http::{HeaderMap, HeaderName};
use predastore::catalog::{Attrs, Header};
use predastore_vocabulary::attrs;

use crate::app::{Request, header_of};
use crate::error::{ErrorCode, S3Error};
use crate::xml;

const PREFIX: &str = "x-amz-meta-";
/// The longest target of a website's redirect.
const REDIRECT_MAX_BYTES: usize = 2048;

const KEPT: [(Header, &str); 7] = [
    (Header::ContentType, "content-type"),
    (Header::CacheControl, "cache-control"),
    (Header::ContentDisposition, "content-disposition"),
    (Header::ContentEncoding, "content-encoding"),
    (Header::ContentLanguage, "content-language"),
    (Header::Expires, "expires"),
    (Header::WebsiteRedirect, "x-amz-website-redirect-location"),
];

/// Everything that a PUT, a copy with new metadata or a new upload carries.
///
/// # Errors
/// `MetadataTooLarge`, `InvalidTag`, `InvalidStorageClass`.
pub fn attrs_of(request: &Request) -> Result<Attrs, S3Error> {
    let headers = &request.head.headers;
    let mut metadata = user_metadata(headers)?;
    // What s3fs says of a directory (`x/`) is between s3fs and its metadata.
    let posix = if request.key().ends_with('/') { None } else { attrs::take_posix(&mut metadata) };
    Ok(Attrs {
        owner: request.account_id().to_owned(),
        headers: kept_headers(headers)?,
        metadata,
        posix,
        tags: tags(headers)?,
        storage_class: storage_class(headers)?,
        ..Attrs::default()
    })
}

/// Encryption, in any request: saying yes and storing plain bytes would be a lie, and so would be taking a key for bytes that
/// are not encrypted.
///
/// # Errors
/// `NotImplemented`, with the header.
pub fn refuse_unkept(headers: &HeaderMap) -> Result<(), S3Error> {
    const UNKEPT: [&str; 2] = ["x-amz-server-side-encryption", "x-amz-copy-source-server-side-encryption"];
    let unkept = |name: &&HeaderName| UNKEPT.iter().any(|prefix| name.as_str().starts_with(prefix));
    match headers.keys().find(unkept) {
        None => Ok(()),
        Some(name) => Err(S3Error::from(ErrorCode::NotImplemented).with("Header", name.as_str())),
    }
}

fn kept_headers(headers: &HeaderMap) -> Result<Vec<(Header, String)>, S3Error> {
    let mut kept = Vec::new();
    for (header, name) in KEPT {
        let Some(value) = header_of(headers, name)? else { continue };
        let value = if header == Header::ContentEncoding { without_aws_chunked(value) } else { value.to_owned() };
        if header == Header::WebsiteRedirect {
            check_redirect(&value)?;
        }
        if !value.is_empty() {
            kept.push((header, value));
        }
    }
    Ok(kept)
}

/// # Errors
/// `InvalidRedirectLocation`: neither a key nor a URL. `MetadataTooLarge`.
fn check_redirect(to: &str) -> Result<(), S3Error> {
    if to.len() > REDIRECT_MAX_BYTES {
        return Err(ErrorCode::MetadataTooLarge.into());
    }
    match ["/", "http://", "https://"].iter().any(|start| to.starts_with(start)) {
        true => Ok(()),
        false => Err(ErrorCode::InvalidRedirectLocation.into()),
    }
}

/// `aws-chunked` is how the body travelled, not what it is.
fn without_aws_chunked(value: &str) -> String {
    if !value.contains("aws-chunked") {
        return value.to_owned();
    }
    let codings: Vec<_> =
        value.split(',').map(str::trim).filter(|coding| *coding != "aws-chunked" && !coding.is_empty()).collect();
    codings.join(", ")
}

fn user_metadata(headers: &HeaderMap) -> Result<Vec<(String, String)>, S3Error> {
    let mut metadata: Vec<(String, String)> = Vec::new();
    for name in headers.keys() {
        let Some(short) = name.as_str().strip_prefix(PREFIX) else { continue };
        let mut values = Vec::new();
        for value in headers.get_all(name) {
            let text = std::str::from_utf8(value.as_bytes())
                .map_err(|_| S3Error::invalid_argument("Metadata is not valid UTF-8", name.as_str(), ""))?;
            values.push(text);
        }
        metadata.push((short.to_owned(), values.join(",")));
    }
    attrs::user_metadata(metadata)
}

/// `x-amz-tagging`: tags as a query string.
pub fn tags(headers: &HeaderMap) -> Result<Vec<(String, String)>, S3Error> {
    let Some(text) = header_of(headers, "x-amz-tagging")? else { return Ok(Vec::new()) };
    Ok(xml::shown::pairs(xml::request::tagging_header(text)?))
}

fn storage_class(headers: &HeaderMap) -> Result<String, S3Error> {
    attrs::storage_class(header_of(headers, "x-amz-storage-class")?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn aws_chunked_is_not_an_encoding_of_the_object() {
        for (sent, kept) in
            [("aws-chunked", ""), ("aws-chunked,gzip", "gzip"), ("gzip, aws-chunked", "gzip"), ("gzip,br", "gzip,br")]
        {
            assert_eq!(without_aws_chunked(sent), kept);
        }
    }

    #[test]
    fn metadata_is_kept_to_the_byte_and_bounded() {
        let sent = headers(&[("x-amz-meta-b", "Grüße  two"), ("x-amz-meta-a", "1")]);
        assert_eq!(user_metadata(&sent).unwrap(), [("a".into(), "1".into()), ("b".into(), "Grüße  two".into())]);
        let large = "x".repeat(2048);
        assert_eq!(user_metadata(&headers(&[("x-amz-meta-c", &large)])).unwrap_err().code, ErrorCode::MetadataTooLarge);
    }

    #[test]
    fn what_would_not_be_kept_is_refused() {
        for name in [
            "x-amz-server-side-encryption",
            "x-amz-server-side-encryption-customer-key",
            "x-amz-copy-source-server-side-encryption-customer-key",
        ] {
            assert_eq!(refuse_unkept(&headers(&[(name, "x")])).unwrap_err().code, ErrorCode::NotImplemented);
        }
    }

    #[test]
    fn archive_classes_are_refused() {
        let class = |name| storage_class(&headers(&[("x-amz-storage-class", name)])).map_err(|error| error.code);
        assert_eq!(class("GLACIER_IR"), Ok("GLACIER_IR".to_owned()));
        for name in ["GLACIER", "DEEP_ARCHIVE", "standard"] {
            assert_eq!(class(name), Err(ErrorCode::InvalidStorageClass), "{name}");
        }
    }
}
