//! Percent-encoding and the query string.
//!
//! Invariant: the query string is decoded once, here, and both the signature check and the operation use the
//! result, so what is obeyed is what was signed.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::S3Error;
pub use predastore_vocabulary::names::uri_decode;

/// RFC 3986 unreserved characters stay, as SigV4's UriEncode demands.
const NOT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const NOT_UNRESERVED_NOR_SLASH: &AsciiSet = &NOT_UNRESERVED.remove(b'/');

/// Encodes all but `A-Z a-z 0-9 - . _ ~`, in upper-case hex.
pub fn uri_encode(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, NOT_UNRESERVED).into()
}

/// As [`uri_encode`], but `/` stays: for paths, and for `encoding-type=url` in listings.
pub fn uri_encode_path(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, NOT_UNRESERVED_NOR_SLASH).into()
}

/// A decoded query string: pairs in the order they were sent. Names are case-sensitive, as S3's are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Decodes what stands after the `?`. A name without `=` has the empty value; `+` is a space.
    ///
    /// # Errors
    /// `InvalidURI`: bad escapes or not UTF-8.
    pub fn parse(raw: &str) -> Result<Query, S3Error> {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(decode_pair).collect::<Result<_, _>>()?;
        Ok(Query { pairs })
    }

    /// The value of the first pair called `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether there is a pair called `name`, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The pairs in the order sent.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Shows names only: a presigned query carries a credential.
impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.pairs.iter().map(|(name, _)| name)).finish()
    }
}

fn decode_pair(pair: &str) -> Result<(String, String), S3Error> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    Ok((form_decode(name)?, form_decode(value)?))
}

fn form_decode(text: &str) -> Result<String, S3Error> {
    uri_decode(&text.replace('+', " "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use proptest::prelude::*;

    #[test]
    fn pairs_decode_in_order() {
        let query = Query::parse("prefix=a%2Fb+c&acl&&max-keys=&prefix=second").unwrap();
        let pairs: Vec<_> = query.pairs().collect();
        assert_eq!(pairs, [("prefix", "a/b c"), ("acl", ""), ("max-keys", ""), ("prefix", "second")]);
        assert_eq!(query.get("prefix"), Some("a/b c"));
        assert!(query.has("acl") && !query.has("ACL"));
    }

    #[test]
    fn bad_escapes_and_bad_utf8_are_invalid_uris() {
        for raw in ["%", "%2", "%zz", "a=%ff", "%c3%28=1", "%+1=2"] {
            assert_eq!(Query::parse(raw).unwrap_err().code, ErrorCode::InvalidURI, "{raw}");
        }
    }

    #[test]
    fn encoding_keeps_unreserved_characters_only() {
        assert_eq!(uri_encode("aZ09-._~ /+*é"), "aZ09-._~%20%2F%2B%2A%C3%A9");
        assert_eq!(uri_encode_path("a/b c"), "a/b%20c");
    }

    #[test]
    fn debug_hides_values() {
        assert_eq!(format!("{:?}", Query::parse("X-Amz-Signature=feed").unwrap()), "[\"X-Amz-Signature\"]");
    }

    proptest! {
        #[test]
        fn encoding_round_trips(text in any::<String>()) {
            prop_assert_eq!(uri_decode(&uri_encode(&text)).unwrap(), text.clone());
            prop_assert_eq!(uri_decode(&uri_encode_path(&text)).unwrap(), text.clone());
            let query = Query::parse(&format!("k={}", uri_encode(&text))).unwrap();
            prop_assert_eq!(query.get("k"), Some(text.as_str()));
        }
    }
}
