//! SigV4 from the client's side: of requests that the benchmark sends, and of URLs that others are to use.
//!
//! Paths and queries of the benchmark are canonical as written: it chooses its keys so. The key of the day and the text of
//! the second are kept, so that a signature costs two hashes.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use predastore_s3::query::{uri_encode, uri_encode_path};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::config::Secret;

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// What stands in for the hash of a body that is not signed.
pub(crate) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Who signs.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) access_key: String,
    pub(crate) secret: Secret,
    pub(crate) region: String,
}

/// Signs the requests of one connection.
pub(crate) struct Signer {
    credentials: Credentials,
    second: i64,
    /// `20130524T000000Z`.
    date: String,
    key: Key,
    canonical: String,
}

impl Signer {
    pub(crate) fn new(credentials: Credentials) -> Self {
        let key = Key::new(HMAC_SHA256, &[]);
        Signer { credentials, second: i64::MIN, date: String::new(), key, canonical: String::new() }
    }

    /// Appends the signature's headers, each with its CRLF, to `head`.
    ///
    /// `payload`: hex SHA-256 of the body, or [`UNSIGNED`].
    pub(crate) fn append(&mut self, head: &mut String, now: OffsetDateTime, request: Signed<'_>) {
        self.turn(now);
        let Signed { method, host, path, query, payload } = request;
        let text = &mut self.canonical;
        text.clear();
        for piece in [method, "\n", path, "\n", query, "\nhost:", host, "\nx-amz-content-sha256:", payload] {
            text.push_str(piece);
        }
        for piece in ["\nx-amz-date:", &self.date, "\n\nhost;x-amz-content-sha256;x-amz-date\n", payload] {
            text.push_str(piece);
        }
        let day = &self.date[..8];
        let region = &self.credentials.region;
        let signature = signature(&self.key, &self.date, region, text);
        for piece in ["x-amz-content-sha256: ", payload, "\r\nx-amz-date: ", &self.date] {
            head.push_str(piece);
        }
        for piece in ["\r\nauthorization: AWS4-HMAC-SHA256 Credential=", &self.credentials.access_key, "/", day, "/"] {
            head.push_str(piece);
        }
        head.push_str(region);
        head.push_str("/s3/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=");
        head.push_str(&signature);
        head.push_str("\r\n");
    }

    /// Turns date and key on to `now`.
    fn turn(&mut self, now: OffsetDateTime) {
        if now.unix_timestamp() == self.second {
            return;
        }
        self.second = now.unix_timestamp();
        self.date = date_of(now);
        self.key = key_of(&self.credentials, &self.date[..8]);
    }
}

/// Years of four digits always have this form.
fn date_of(now: OffsetDateTime) -> String {
    now.format(DATE).unwrap_or_default()
}

fn key_of(credentials: &Credentials, day: &str) -> Key {
    let mut key = format!("AWS4{}", credentials.secret.reveal()).into_bytes();
    for part in [day, &credentials.region, "s3", "aws4_request"] {
        key = sign(&Key::new(HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
    }
    Key::new(HMAC_SHA256, &key)
}

fn signature(key: &Key, date: &str, region: &str, canonical: &str) -> String {
    let hash = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{}/{region}/s3/aws4_request\n{hash}", &date[..8]);
    hex(sign(key, to_sign.as_bytes()).as_ref())
}

/// What clients send as Host: they leave out a port that goes without saying.
fn host_of(endpoint: &str) -> &str {
    match endpoint.split_once("://") {
        Some(("https", host)) => host.strip_suffix(":443").unwrap_or(host),
        Some((_, host)) => host.strip_suffix(":80").unwrap_or(host),
        None => endpoint,
    }
}

/// A request that somebody else is to send.
#[derive(Clone, Copy)]
pub(crate) struct ToPresign<'a> {
    pub(crate) method: &'a str,
    /// `https://host:port`, without a path.
    pub(crate) endpoint: &'a str,
    /// `/bucket/key`, not encoded.
    pub(crate) path: &'a str,
    /// Further parameters, not encoded.
    pub(crate) query: &'a [(String, String)],
    /// Further headers that are signed, names in lower case, each once.
    pub(crate) headers: &'a [(String, String)],
    pub(crate) life_s: u32,
}

/// The URL that its holder may use from `now` on, with the headers that it was signed with and any body.
pub(crate) fn presigned_url(credentials: &Credentials, now: OffsetDateTime, request: &ToPresign<'_>) -> String {
    let ToPresign { method, endpoint, path, query, headers, life_s } = *request;
    let (date, region) = (date_of(now), &credentials.region);
    let host = host_of(endpoint);
    let mut headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.trim())).collect();
    headers.push(("host", host));
    headers.sort_unstable();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let own = [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()),
        ("X-Amz-Credential", format!("{}/{}/{region}/s3/aws4_request", credentials.access_key, &date[..8])),
        ("X-Amz-Date", date.clone()),
        ("X-Amz-Expires", life_s.to_string()),
        ("X-Amz-SignedHeaders", names.clone()),
    ];
    let all = query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let all = all.chain(own.iter().map(|(name, value)| (*name, value.as_str())));
    let mut pairs: Vec<String> =
        all.map(|(name, value)| format!("{}={}", uri_encode(name), uri_encode(value))).collect();
    pairs.sort_unstable();
    let (path, query) = (uri_encode_path(path), pairs.join("&"));
    let mut text = format!("{method}\n{path}\n{query}\n");
    for (name, value) in &headers {
        text.push_str(&format!("{name}:{value}\n"));
    }
    text.push_str(&format!("\n{names}\n{UNSIGNED}"));
    let signature = signature(&key_of(credentials, &date[..8]), &date, region, &text);
    format!("{endpoint}{path}?{query}&X-Amz-Signature={signature}")
}

/// The parts of a request that are signed.
#[derive(Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) payload: &'a str,
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    /// AWS's published examples: Amazon S3 API Reference, "Signature Calculations for the Authorization Header".
    #[test]
    fn signatures_are_those_of_the_examples_of_aws() {
        let credentials = Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            region: "us-east-1".to_owned(),
        };
        let mut signer = Signer::new(credentials);
        let cases = [
            ("lifecycle=", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            ("max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ];
        for (query, signature) in cases {
            let payload = hex(digest(&SHA256, b"").as_ref());
            let (method, host, path) = ("GET", "examplebucket.s3.amazonaws.com", "/");
            let request = Signed { method, host, path, query, payload: &payload };
            let mut head = String::new();
            signer.append(&mut head, datetime!(2013-05-24 0:00 UTC), request);
            assert!(head.ends_with(&format!("Signature={signature}\r\n")), "{query}: {head}");
            assert!(head.contains("x-amz-date: 20130524T000000Z\r\n"));
        }
    }

    /// "Authenticating Requests: Using Query Parameters" of the same reference.
    #[test]
    fn a_presigned_url_is_that_of_the_example_of_aws() {
        let credentials = Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            region: "us-east-1".to_owned(),
        };
        let endpoint = "https://examplebucket.s3.amazonaws.com";
        let request = ToPresign { method: "GET", endpoint, path: "/test.txt", query: &[], headers: &[], life_s: 86400 };
        let url = presigned_url(&credentials, datetime!(2013-05-24 0:00 UTC), &request);
        assert_eq!(
            url,
            "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=\
             AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400\
             &X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    #[test]
    fn a_port_that_goes_without_saying_is_not_signed() {
        for (endpoint, host) in [
            ("https://s3:443", "s3"),
            ("https://s3:80", "s3:80"),
            ("http://s3:80", "s3"),
            ("http://[::1]:8443", "[::1]:8443"),
        ] {
            assert_eq!(host_of(endpoint), host);
        }
    }

    #[test]
    fn a_new_second_gets_a_new_date() {
        let credentials =
            Credentials { access_key: "AKIA".to_owned(), secret: Secret::new("secret"), region: "r".to_owned() };
        let mut signer = Signer::new(credentials);
        let mut head = |now| {
            let mut head = String::new();
            let request = Signed { method: "GET", host: "h", path: "/", query: "", payload: UNSIGNED };
            signer.append(&mut head, now, request);
            head
        };
        let first = head(datetime!(2026-01-01 23:59:59 UTC));
        assert_eq!(first, head(datetime!(2026-01-01 23:59:59.9 UTC)));
        let next = head(datetime!(2026-01-02 0:00 UTC));
        assert!(next.contains("/20260102/r/s3/") && first != next);
    }
}
