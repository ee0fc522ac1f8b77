//! SigV4 for requests whose path and query are canonical as written: the benchmark chooses its keys so.
//!
//! The key of the day and the text of the second are kept, so that a signature costs two hashes.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::config::Secret;

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// What stands in for the hash of a body that is not signed.
pub(super) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Who signs.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) access_key: String,
    pub(super) secret: Secret,
    pub(super) region: String,
}

/// Signs the requests of one connection.
pub(super) struct Signer {
    credentials: Credentials,
    second: i64,
    /// `20130524T000000Z`.
    date: String,
    key: Key,
    canonical: String,
}

impl Signer {
    pub(super) fn new(credentials: Credentials) -> Self {
        let key = Key::new(HMAC_SHA256, &[]);
        Signer { credentials, second: i64::MIN, date: String::new(), key, canonical: String::new() }
    }

    /// Appends the signature's headers, each with its CRLF, to `head`.
    ///
    /// `payload`: hex SHA-256 of the body, or [`UNSIGNED`].
    pub(super) fn append(&mut self, head: &mut String, now: OffsetDateTime, request: Signed<'_>) {
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
        let hash = hex(digest(&SHA256, text.as_bytes()).as_ref());
        let day = &self.date[..8];
        let region = &self.credentials.region;
        let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{day}/{region}/s3/aws4_request\n{hash}", self.date);
        let signature = hex(sign(&self.key, to_sign.as_bytes()).as_ref());
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
        // Years of four digits always have this form.
        self.date = now.format(DATE).unwrap_or_default();
        let mut key = format!("AWS4{}", self.credentials.secret.reveal()).into_bytes();
        for part in [&self.date[..8], &self.credentials.region, "s3", "aws4_request"] {
            key = sign(&Key::new(HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
        }
        self.key = Key::new(HMAC_SHA256, &key);
    }
}

/// The parts of a request that are signed.
#[derive(Clone, Copy)]
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) payload: &'a str,
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
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
