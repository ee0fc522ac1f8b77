//! AWS Signature Version 4 from the client's side, in steps, so that each can be forged.
//! Source: "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API reference.

use aws_lc_rs::{digest, hmac};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::http::Request;

/// The payload hash of requests that do not sign their body.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// The payload hash of a body in signed chunks.
pub const SIGNED_CHUNKS: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
/// The payload hash of a body in signed chunks with a signed trailer.
pub const SIGNED_CHUNKS_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
/// The payload hash of a body in unsigned chunks with a trailer.
pub const UNSIGNED_CHUNKS_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

/// Who signs, for where, and at what time.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Access key id.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: String,
    /// Region of the credential scope.
    pub region: String,
    /// Service of the credential scope; `s3`.
    pub service: String,
    /// Seconds added to the clock.
    pub skew_secs: i64,
    /// Names of `x-amz-*` headers to leave out of the signature, lower case.
    pub unsigned: Vec<String>,
}

/// What the chunks of a signed body chain on.
#[derive(Clone, Debug)]
pub struct ChunkSigner {
    key: Vec<u8>,
    timestamp: String,
    scope: String,
    previous: String,
}

impl Signer {
    /// A signer for S3 with the clock's own time.
    pub fn new(access_key: &str, secret_key: &str, region: &str) -> Signer {
        Signer {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            region: region.into(),
            service: "s3".into(),
            skew_secs: 0,
            unsigned: Vec::new(),
        }
    }

    /// Signs the body's SHA-256 and every header the request has; adds `x-amz-date`, `x-amz-content-sha256` and
    /// `Authorization`. Needs the Host header to be there.
    pub fn sign(&self, request: &mut Request) -> ChunkSigner {
        let hash = hex(digest::digest(&digest::SHA256, &request.body).as_ref());
        self.sign_as(request, &hash)
    }

    /// As [`Signer::sign`], with any payload hash.
    pub fn sign_as(&self, request: &mut Request, payload_hash: &str) -> ChunkSigner {
        let timestamp = self.timestamp();
        request.set("x-amz-date", &timestamp);
        request.set("x-amz-content-sha256", payload_hash);
        let scope = self.scope(&timestamp);
        let (names, canonical) = self.canonical(request, payload_hash);
        let signature = self.signature(&timestamp, &canonical);
        let credential = format!("{}/{scope}", self.access_key);
        request.set(
            "Authorization",
            format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"),
        );
        ChunkSigner { key: self.key(&timestamp), timestamp, scope, previous: signature }
    }

    /// Turns `request` into a presigned one, valid for `expires_secs` (any text, so that it can be wrong). Its headers
    /// are signed; the query of `target` is kept.
    pub fn presign(&self, request: &mut Request, expires_secs: &str) {
        let timestamp = self.timestamp();
        let credential = encode(&format!("{}/{}", self.access_key, self.scope(&timestamp)), true);
        let names = encode(&self.signed_names(request).join(";"), true);
        let separator = if request.target.contains('?') { '&' } else { '?' };
        request.target.push_str(&format!(
            "{separator}X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={timestamp}\
             &X-Amz-Expires={expires_secs}&X-Amz-SignedHeaders={names}"
        ));
        let (_, canonical) = self.canonical(request, UNSIGNED_PAYLOAD);
        let signature = self.signature(&timestamp, &canonical);
        request.target.push_str(&format!("&X-Amz-Signature={signature}"));
    }

    fn timestamp(&self) -> String {
        let now = OffsetDateTime::now_utc() + time::Duration::seconds(self.skew_secs);
        let format = format_description!("[year][month][day]T[hour][minute][second]Z");
        now.format(format).unwrap_or_default()
    }

    fn scope(&self, timestamp: &str) -> String {
        format!("{}/{}/{}/aws4_request", &timestamp[..8], self.region, self.service)
    }

    fn signed_names(&self, request: &Request) -> Vec<String> {
        let mut names: Vec<String> = request.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.retain(|name| name != "authorization" && !self.unsigned.contains(name));
        names.sort();
        names.dedup();
        names
    }

    fn canonical(&self, request: &Request, payload_hash: &str) -> (String, String) {
        let names = self.signed_names(request);
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let mut pairs: Vec<(&str, &str)> = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
        pairs.sort();
        let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut text = format!("{}\n{path}\n{}\n", request.method, pairs.join("&"));
        for name in &names {
            let matching = request.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
            // Runs of spaces count as one, as AWS's own signers have it.
            let values: Vec<String> =
                matching.map(|(_, value)| value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).collect();
            text.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        let names = names.join(";");
        text.push_str(&format!("\n{names}\n{payload_hash}"));
        (names, text)
    }

    fn key(&self, timestamp: &str) -> Vec<u8> {
        let start = format!("AWS4{}", self.secret_key).into_bytes();
        let parts = [&timestamp[..8], &self.region, &self.service, "aws4_request"];
        parts.iter().fold(start, |key, part| hmac_sha256(&key, part.as_bytes()))
    }

    fn signature(&self, timestamp: &str, canonical: &str) -> String {
        let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("AWS4-HMAC-SHA256\n{timestamp}\n{}\n{hash}", self.scope(timestamp));
        hex(&hmac_sha256(&self.key(timestamp), to_sign.as_bytes()))
    }
}

impl ChunkSigner {
    /// One chunk of an `aws-chunked` body, framed and signed; an empty one ends the body (a trailer may follow).
    pub fn chunk(&mut self, data: &[u8]) -> Vec<u8> {
        let empty = hex(digest::digest(&digest::SHA256, b"").as_ref());
        let hash = hex(digest::digest(&digest::SHA256, data).as_ref());
        self.advance("AWS4-HMAC-SHA256-PAYLOAD", &format!("{empty}\n{hash}"));
        let mut frame = format!("{:x};chunk-signature={}\r\n", data.len(), self.previous).into_bytes();
        frame.extend_from_slice(data);
        if !data.is_empty() {
            frame.extend_from_slice(b"\r\n");
        }
        frame
    }

    /// The signed trailer `name: value`, after the empty chunk.
    pub fn trailer(&mut self, name: &str, value: &str) -> Vec<u8> {
        let hash = hex(digest::digest(&digest::SHA256, format!("{name}:{value}\n").as_bytes()).as_ref());
        self.advance("AWS4-HMAC-SHA256-TRAILER", &hash);
        format!("{name}:{value}\r\nx-amz-trailer-signature:{}\r\n\r\n", self.previous).into_bytes()
    }

    /// Breaks the chain: what comes next has a wrong signature.
    pub fn forge(&mut self) {
        self.previous = "0".repeat(64);
    }

    fn advance(&mut self, algorithm: &str, rest: &str) {
        let text = format!("{algorithm}\n{}\n{}\n{}\n{rest}", self.timestamp, self.scope, self.previous);
        self.previous = hex(&hmac_sha256(&self.key, text.as_bytes()));
    }
}

/// Percent-encodes `text` as SigV4 wants it; `/` too where `slash` is set.
pub fn encode(text: &str, slash: bool) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte) || (*byte == b'/' && !slash);
    let one = |byte: u8| if plain(&byte) { (byte as char).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// Undoes percent-encoding; `+` is a space, as in what `encoding-type=url` answers.
pub fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = tail.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    #[test]
    fn what_is_encoded_decodes() {
        let text = "a b+c/%2F\u{e4}\n\0";
        assert_eq!(decode(&encode(text, true)), text);
        assert_eq!(decode("a+b%zz%2"), "a b%zz%2");
    }

    /// "GET Object" of the S3 API reference, section "Examples: Signature Calculations".
    #[test]
    fn the_published_example() {
        let signer = Signer::new("AKIAIOSFODNN7EXAMPLE", SECRET, "us-east-1");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let request = Request::new("GET", "/test.txt", "")
            .header("Host", "examplebucket.s3.amazonaws.com")
            .header("Range", "bytes=0-9")
            .header("x-amz-content-sha256", empty)
            .header("x-amz-date", "20130524T000000Z");
        let (names, canonical) = signer.canonical(&request, empty);
        assert_eq!(names, "host;range;x-amz-content-sha256;x-amz-date");
        let signature = signer.signature("20130524T000000Z", &canonical);
        assert_eq!(signature, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    }
}
