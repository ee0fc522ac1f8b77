//! Request headers that a presigner moved into the query, as those of the SDKs for JavaScript and Ruby do: a URL carries
//! no headers. S3 obeys them there, so ignoring one would store another thing than its signer said.
//!
//! Invariants
//! - Only the query of a presigned URL is read so: it is signed as a whole, or the request is refused.
//! - A header that was sent wins over the query.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::auth;
use crate::checksum::{ChecksumAlgorithm, Spelling as _};
use crate::error::S3Error;
use crate::query::Query;

/// What the signature says of itself.
const OF_SIGNATURE: [&str; 8] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
    "x-amz-signature",
    "x-amz-security-token",
    "x-amz-content-sha256",
];
/// What a presigner says of a body that it did not have. S3 ignores it: the SDK for JavaScript puts the CRC32 of no bytes
/// into every presigned PutObject.
const OF_BODY: [&str; 3] = ["x-amz-sdk-checksum-algorithm", "x-amz-trailer", "x-amz-decoded-content-length"];

/// The headers that a request is to be obeyed by: as sent, with those of a presigned query.
///
/// # Errors
/// `InvalidArgument`: what stands in the query could not be a header.
pub fn headers<'a>(sent: &'a HeaderMap, query: &Query) -> Result<Cow<'a, HeaderMap>, S3Error> {
    let mut headers = Cow::Borrowed(sent);
    if !auth::is_presigned(query) {
        return Ok(headers);
    }
    for (name, value) in query.pairs() {
        let Some(lower) = hoistable(name) else { continue };
        let refuse = || S3Error::invalid_argument("The parameter cannot be a header", name, value);
        let header = HeaderName::try_from(lower).map_err(|_| refuse())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| refuse())?;
        if !headers.contains_key(&header) {
            headers.to_mut().insert(header, value);
        }
    }
    Ok(headers)
}

/// The header that a parameter stands for.
fn hoistable(parameter: &str) -> Option<String> {
    let name = parameter.to_ascii_lowercase();
    let of_body = OF_BODY.contains(&name.as_str()) || ChecksumAlgorithm::from_header(&name).is_some();
    (name.starts_with("x-amz-") && !OF_SIGNATURE.contains(&name.as_str()) && !of_body).then_some(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn obeyed(sent: &[(&'static str, &'static str)], query: &str) -> Vec<(String, String)> {
        let sent = sent.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
        let headers = headers(&sent, &Query::parse(query).unwrap()).unwrap().into_owned();
        let text = |value: &HeaderValue| String::from_utf8(value.as_bytes().to_vec()).unwrap();
        let mut pairs: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        pairs.sort();
        pairs
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_presigned_query_carries_headers() {
        let query = "X-Amz-Signature=f&X-Amz-Date=d&x-amz-meta-A=%C3%A4&X-Amz-Acl=private&prefix=p";
        assert_eq!(obeyed(&[], query), pairs(&[("x-amz-acl", "private"), ("x-amz-meta-a", "ä")]));
        assert_eq!(obeyed(&[], "x-amz-acl=private&X-Amz-Algorithm=a"), []);
    }

    #[test]
    fn a_header_that_was_sent_wins() {
        let query = "X-Amz-Signature=f&x-amz-meta-a=query&x-amz-meta-b=1&x-amz-meta-b=2";
        let expected = pairs(&[("x-amz-meta-a", "sent"), ("x-amz-meta-b", "1")]);
        assert_eq!(obeyed(&[("x-amz-meta-a", "sent")], query), expected);
    }

    #[test]
    fn checksums_of_a_body_that_was_not_there_are_ignored() {
        let query = "X-Amz-Signature=f&x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32&\
                     x-amz-checksum-mode=ENABLED";
        assert_eq!(obeyed(&[], query), pairs(&[("x-amz-checksum-mode", "ENABLED")]));
    }

    #[test]
    fn what_cannot_be_a_header_is_refused() {
        for query in ["X-Amz-Signature=f&x-amz-meta-a=%0A", "X-Amz-Signature=f&x-amz-meta-%20=1"] {
            assert!(headers(&HeaderMap::new(), &Query::parse(query).unwrap()).is_err(), "{query}");
        }
    }
}
