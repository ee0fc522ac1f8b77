//! The canonical request: the one text that client and server both hash.

use http::HeaderMap;

use super::RequestHead;
use super::claim::{Claim, SIGNATURE_PARAMETER};
use super::key::{Digest, sha256};
use crate::error::{ErrorCode, S3Error};
use crate::query::{Query, uri_encode};

/// A canonical request. Bytes, because header values need not be UTF-8.
pub(super) struct Canonical(Vec<u8>);

impl Canonical {
    /// # Errors
    /// `SignatureDoesNotMatch`: a header is listed as signed that the request does not have.
    pub(super) fn of(request: &RequestHead<'_>, claim: &Claim) -> Result<Canonical, S3Error> {
        let mut text = Vec::with_capacity(512);
        for line in [request.method, request.raw_path, &canonical_query(request.query)] {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
        for name in &claim.signed_headers {
            push_header(&mut text, request.headers, name)?;
        }
        text.push(b'\n');
        text.extend_from_slice(claim.signed_headers.join(";").as_bytes());
        text.push(b'\n');
        text.extend_from_slice(claim.payload_hash.as_bytes());
        Ok(Canonical(text))
    }

    pub(super) fn hash(&self) -> Digest {
        sha256(&self.0)
    }

    /// As text, for the error body.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// Each name and value encoded anew, sorted; the signature itself left out.
pub(super) fn canonical_query(query: &Query) -> String {
    let signed = query.pairs().filter(|(name, _)| *name != SIGNATURE_PARAMETER);
    let mut pairs: Vec<_> = signed.map(|(name, value)| (uri_encode(name), uri_encode(value))).collect();
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

fn push_header(text: &mut Vec<u8>, headers: &HeaderMap, name: &str) -> Result<(), S3Error> {
    text.extend_from_slice(name.as_bytes());
    let mut separator = b':';
    for value in headers.get_all(name) {
        text.push(separator);
        push_trimmed(text, value.as_bytes());
        separator = b',';
    }
    if separator == b':' {
        let message = format!("The header {name} is listed in SignedHeaders and not in the request");
        return Err(S3Error::new(ErrorCode::SignatureDoesNotMatch, message));
    }
    text.push(b'\n');
    Ok(())
}

/// Without white space at the ends, and with runs of it inside as one space.
fn push_trimmed(text: &mut Vec<u8>, value: &[u8]) {
    let words = value.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    for (index, word) in words.enumerate() {
        if index > 0 {
            text.push(b' ');
        }
        text.extend_from_slice(word);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_query_is_sorted_by_encoded_name_and_then_value() {
        let query = |raw| canonical_query(&Query::parse(raw).unwrap());
        assert_eq!(query("b=2&a=1&A=0&a=0"), "A=0&a=0&a=1&b=2");
        assert_eq!(query("lifecycle"), "lifecycle=");
        assert_eq!(query("prefix=some+thing&k=%2b/~*"), "k=%2B%2F~%2A&prefix=some%20thing");
        assert_eq!(query("X-Amz-Signature=x&y=1"), "y=1");
        assert_eq!(query("a-b=1&a=2"), "a=2&a-b=1");
    }

    #[test]
    fn header_values_are_trimmed_joined_and_never_invented() {
        let mut headers = HeaderMap::new();
        headers.append("x-amz-a", "  one \t two  ".parse().unwrap());
        headers.append("x-amz-a", "three".parse().unwrap());
        headers.append("x-amz-empty", "".parse().unwrap());
        let mut text = Vec::new();
        push_header(&mut text, &headers, "x-amz-a").unwrap();
        push_header(&mut text, &headers, "x-amz-empty").unwrap();
        assert_eq!(text, b"x-amz-a:one two,three\nx-amz-empty:\n");
        assert!(push_header(&mut text, &headers, "x-amz-b").is_err());
    }

    proptest! {
        #[test]
        fn canonicalising_twice_changes_nothing(pairs in prop::collection::vec((any::<String>(), any::<String>()), 0..6)) {
            let raw: Vec<_> = pairs.iter().map(|(k, v)| format!("{}={}", uri_encode(k), uri_encode(v))).collect();
            let once = canonical_query(&Query::parse(&raw.join("&")).unwrap());
            prop_assert_eq!(&canonical_query(&Query::parse(&once).unwrap()), &once);
        }
    }
}
