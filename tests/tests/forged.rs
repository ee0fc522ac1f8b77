//! More than a thousand forged, malformed and oversized requests: each gets the right 4xx and changes nothing.
//! They are made by generators from a printed seed; `PREDASTORE_TEST_FORGED` sets how many of each kind.

use anyhow::{Context, Result, ensure};
use predastore_tests::http::{Request, Response};
use predastore_tests::knobs::{number, say};
use predastore_tests::random::{Rng, body};
use predastore_tests::s3::{Listed, S3};
use predastore_tests::s3d::{Config, S3d};
use predastore_tests::sigv4::{
    SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER, UNSIGNED_CHUNKS_TRAILER, UNSIGNED_PAYLOAD, encode,
};

const HEX: &[u8] = b"0123456789abcdef";

/// A request that must be refused, and how.
struct Forged {
    what: &'static str,
    request: Request,
    /// Acceptable answers: (status, code); an empty code stands for any. Status 0: the connection may just be closed.
    refusals: &'static [(u16, &'static str)],
}

struct Forger {
    s3: S3,
    rng: Rng,
}

type Generator = fn(&mut Forger) -> Forged;

impl Forger {
    fn signed(&self, mut request: Request) -> Request {
        self.s3.signer.sign(&mut request);
        request
    }

    /// A request that would succeed if it were signed as it should be, and would change something where it can.
    fn honest(&mut self) -> Request {
        let key = format!("forged-{}", self.rng.below(1000));
        let delete = "<Delete><Object><Key>present</Key></Object></Delete>";
        match self.rng.below(7) {
            0 => self.s3.request("GET", "attacked", "present", "", ""),
            1 => self.s3.request("DELETE", "attacked", "present", "", ""),
            2 => self.s3.request("GET", "attacked", "", "list-type=2", ""),
            3 => self.s3.request("POST", "attacked", "", "delete", delete),
            4 => self.s3.request("POST", "attacked", &key, "uploads", ""),
            _ => self.s3.request("PUT", "attacked", &key, "", body(1, 200)),
        }
    }

    fn honest_put(&mut self) -> Request {
        let (key, len) = (format!("forged-{}", self.rng.below(1000)), 1 + self.rng.below(2000));
        self.s3.request("PUT", "attacked", &key, "", body(2, len as usize))
    }

    fn noise(&mut self, len: u64) -> String {
        let len = 1 + self.rng.below(len) as usize;
        self.rng.text(b"abcXYZ019 /=,;&%$!?<>\"'\\#-_.~", len)
    }
}

const MISMATCH: &[(u16, &str)] = &[(403, "SignatureDoesNotMatch")];
const DENIED: &[(u16, &str)] = &[(403, "AccessDenied")];

// --- signatures in the header

fn signature_of_noise(forger: &mut Forger) -> Forged {
    let request = forger.honest();
    let mut request = forger.signed(request);
    let header = request.get("authorization").unwrap_or_default().to_owned();
    let at = header.len() - 1 - forger.rng.below(64) as usize;
    let other = HEX.iter().map(|digit| *digit as char).find(|digit| !header[at..].starts_with(*digit)).unwrap_or('0');
    request.set("Authorization", format!("{}{other}{}", &header[..at], &header[at + 1..]));
    Forged { what: "one digit of the signature is another", request, refusals: MISMATCH }
}

fn other_secret(forger: &mut Forger) -> Forged {
    let mut request = forger.honest();
    let mut signer = forger.s3.signer.clone();
    signer.secret_key = forger.rng.text(HEX, 40);
    signer.sign(&mut request);
    Forged { what: "signed with another secret", request, refusals: MISMATCH }
}

fn unknown_key(forger: &mut Forger) -> Forged {
    let mut request = forger.honest();
    let mut signer = forger.s3.signer.clone();
    signer.access_key = forger.rng.text(b"ABCDEFGHIJ0123456789", 20);
    signer.sign(&mut request);
    Forged { what: "unknown access key", request, refusals: &[(403, "InvalidAccessKeyId")] }
}

fn changed_after_signing(forger: &mut Forger) -> Forged {
    let request = forger.honest();
    let mut request = forger.signed(request);
    match forger.rng.below(4) {
        0 => request.target = request.target.replacen("/attacked", "/safe", 1),
        1 => {
            request.target = format!("{}{}x-id=1", request.target, if request.target.contains('?') { '&' } else { '?' })
        }
        2 => request.method = if request.method == "DELETE" { "GET".into() } else { "DELETE".into() },
        _ => request.set("x-amz-date", "20260101T000000Z"),
    }
    let refusals = &[
        (403, "SignatureDoesNotMatch"),
        (403, "RequestTimeTooSkewed"),
        (400, "AuthorizationHeaderMalformed"),
        // DELETE with `?uploads` is no operation at all.
        (405, "MethodNotAllowed"),
    ];
    Forged { what: "changed after signing", request, refusals }
}

fn unsigned_amz_header(forger: &mut Forger) -> Forged {
    let request = forger.honest_put();
    let headers = [
        ("x-amz-acl", "public-read"),
        ("x-amz-copy-source", "safe/secret"),
        ("x-amz-meta-more", "meat"),
        ("x-amz-tagging", "a=b"),
        ("x-amz-storage-class", "GLACIER"),
        ("X-Amz-Website-Redirect-Location", "/elsewhere"),
    ];
    let (name, value) = *forger.rng.choose(&headers);
    let request = forger.signed(request).header(name, value);
    Forged { what: "an x-amz header that is not signed", request, refusals: DENIED }
}

fn skewed(forger: &mut Forger) -> Forged {
    let mut request = forger.honest();
    let mut signer = forger.s3.signer.clone();
    let seconds = 16 * 60 + forger.rng.below(86_400 * 30) as i64;
    signer.skew_secs = if forger.rng.below(2) == 0 { seconds } else { -seconds };
    signer.sign(&mut request);
    Forged { what: "a clock that is off", request, refusals: &[(403, "RequestTimeTooSkewed")] }
}

fn anonymous(forger: &mut Forger) -> Forged {
    Forged { what: "no signature at all", request: forger.honest(), refusals: DENIED }
}

fn other_service(forger: &mut Forger) -> Forged {
    // Another region is no refusal: the store answers for whatever region its clients believe it is in.
    let mut request = forger.honest();
    let mut signer = forger.s3.signer.clone();
    signer.service = forger.rng.choose(&["iam", "sts", "s3express", "S3"]).to_string();
    signer.sign(&mut request);
    let refusals = &[(400, "AuthorizationHeaderMalformed"), (403, "SignatureDoesNotMatch")];
    Forged { what: "scope of another service", request, refusals }
}

fn noise_as_authorization(forger: &mut Forger) -> Forged {
    let request = forger.honest();
    let mut request = forger.signed(request);
    let header = request.get("authorization").unwrap_or_default().to_owned();
    let noise = forger.noise(60);
    let value = match forger.rng.below(8) {
        0 => noise,
        1 => format!("AWS4-HMAC-SHA256 {noise}"),
        2 => format!("AWS {}:{noise}", forger.s3.signer.access_key),
        3 => "Basic YTpi".into(),
        4 => header.replace("SignedHeaders=", "SignedHeaders=;"),
        5 => header.replace("Signature=", "Signature=zz"),
        6 => header.replace("/aws4_request", "/aws5_request"),
        _ => header.split(", Signature").next().unwrap_or_default().to_owned(),
    };
    request.set("Authorization", value);
    let refusals = &[
        (400, "AuthorizationHeaderMalformed"),
        (400, "InvalidArgument"),
        (400, "InvalidRequest"),
        (403, "AccessDenied"),
        (403, "SignatureDoesNotMatch"),
        (400, "MissingSecurityHeader"),
        (400, ""),
    ];
    Forged { what: "an Authorization header that is none", request, refusals }
}

fn other_body(forger: &mut Forger) -> Forged {
    let request = forger.honest_put();
    let mut request = forger.signed(request);
    let at = forger.rng.below(request.body.len() as u64) as usize;
    request.body[at] ^= 1;
    Forged { what: "another body than signed", request, refusals: &[(400, "XAmzContentSHA256Mismatch")] }
}

fn header_left_out(forger: &mut Forger) -> Forged {
    let request = forger.honest();
    let mut request = forger.signed(request);
    let name = *forger.rng.choose(&["x-amz-date", "x-amz-content-sha256"]);
    request.headers.retain(|(known, _)| known != name);
    let refusals = &[(403, ""), (400, "")];
    Forged { what: "a required header is missing", request, refusals }
}

fn noise_as_payload_hash(forger: &mut Forger) -> Forged {
    let mut request = forger.honest_put();
    let hash = forger.rng.text(b"abcdefXYZ-", 30);
    forger.s3.signer.sign_as(&mut request, &hash);
    Forged { what: "a payload hash that is none", request, refusals: &[(400, "")] }
}

// --- presigned

fn presigned_with(forger: &mut Forger, expires: &str, skew_secs: i64) -> Request {
    let mut request = forger.s3.request("GET", "attacked", "present", "", "");
    let mut signer = forger.s3.signer.clone();
    signer.skew_secs = skew_secs;
    signer.presign(&mut request, expires);
    request
}

fn presigned_expired(forger: &mut Forger) -> Forged {
    let expires = 1 + forger.rng.below(3600);
    let age = expires + 60 + forger.rng.below(86_400);
    let request = presigned_with(forger, &expires.to_string(), -(age as i64));
    Forged { what: "presigned, expired", request, refusals: DENIED }
}

fn presigned_not_yet(forger: &mut Forger) -> Forged {
    let early = 16 * 60 + forger.rng.below(86_400);
    let request = presigned_with(forger, "600", early as i64);
    Forged {
        what: "presigned in the future",
        request,
        refusals: &[(403, "AccessDenied"), (403, "RequestTimeTooSkewed")],
    }
}

fn presigned_expires_badly(forger: &mut Forger) -> Forged {
    let texts = ["604801", "99999999999999999999999", "-1", "-600", "x", "", "1e3", "0x10", "600.5"];
    let expires = *forger.rng.choose(&texts);
    let request = presigned_with(forger, expires, 0);
    let refusals = &[(400, "AuthorizationQueryParametersError")];
    Forged { what: "presigned with an expiry that is none", request, refusals }
}

fn presigned_changed(forger: &mut Forger) -> Forged {
    let mut request = presigned_with(forger, "600", 0);
    match forger.rng.below(4) {
        0 => request.target = request.target.replace("/present", "/presenx"),
        1 => request.target = request.target.replace("X-Amz-Expires=600", "X-Amz-Expires=6000"),
        2 => request.method = "DELETE".into(),
        _ => request.target.push_str("&versionId=null"),
    }
    Forged { what: "presigned, then changed", request, refusals: MISMATCH }
}

fn presigned_lacking(forger: &mut Forger) -> Forged {
    let mut request = presigned_with(forger, "600", 0);
    let names = ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"];
    let name = format!("X-Amz-{}=", forger.rng.choose(&names));
    let (path, query) = request.target.split_once('?').unwrap_or_default();
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with(&name)).collect();
    request.target = format!("{path}?{}", kept.join("&"));
    let refusals = &[(400, "AuthorizationQueryParametersError"), (403, "AccessDenied")];
    Forged { what: "presigned without a parameter", request, refusals }
}

fn presigned_with_unsigned_header(forger: &mut Forger) -> Forged {
    let mut request = forger.s3.request("PUT", "attacked", "presigned", "", "abc");
    forger.s3.signer.presign(&mut request, "600");
    let request = request.header("x-amz-copy-source", "safe/secret");
    Forged { what: "presigned, with an x-amz header that is not signed", request, refusals: DENIED }
}

fn signed_twice(forger: &mut Forger) -> Forged {
    let mut request = presigned_with(forger, "600", 0);
    forger.s3.signer.sign(&mut request);
    Forged { what: "signed in header and query", request, refusals: &[(400, "InvalidArgument"), (400, ""), (403, "")] }
}

// --- aws-chunked

/// A PUT in signed chunks; `spoil` gets the frames (data, data, end[, trailer]).
fn chunked(
    forger: &mut Forger,
    trailer: bool,
    spoil: impl Fn(&mut Rng, &mut Vec<Vec<u8>>),
    forge_at: Option<usize>,
) -> Request {
    let data = body(3, 70_000);
    let mut request = forger.honest_put();
    request.body.clear();
    request.set("Content-Encoding", "aws-chunked");
    request.set("x-amz-decoded-content-length", data.len().to_string());
    if trailer {
        request.set("x-amz-trailer", "x-amz-checksum-crc32c");
    }
    let hash = if trailer { SIGNED_CHUNKS_TRAILER } else { SIGNED_CHUNKS };
    let mut signer = forger.s3.signer.sign_as(&mut request, hash);
    let mut frames = Vec::new();
    for (index, piece) in [&data[..65_536], &data[65_536..], &[]].into_iter().enumerate() {
        if forge_at == Some(index) {
            signer.forge();
        }
        frames.push(signer.chunk(piece));
    }
    if forge_at == Some(3) {
        signer.forge();
    }
    match trailer {
        true => frames.push(signer.trailer("x-amz-checksum-crc32c", &crc32c_base64(&data))),
        false => frames.push(b"\r\n".to_vec()),
    }
    spoil(&mut forger.rng, &mut frames);
    request.body = frames.concat();
    request
}

fn crc32c_base64(data: &[u8]) -> String {
    use base64::Engine;
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data) as u32;
    base64::engine::general_purpose::STANDARD.encode(sum.to_be_bytes())
}

fn chunk_forged(forger: &mut Forger) -> Forged {
    let at = forger.rng.below(3) as usize;
    let trailer = forger.rng.below(2) == 0;
    let request = chunked(forger, trailer, |_, _| {}, Some(at));
    Forged { what: "a chunk with a forged signature", request, refusals: MISMATCH }
}

fn trailer_forged(forger: &mut Forger) -> Forged {
    let request = chunked(forger, true, |_, _| {}, Some(3));
    Forged { what: "a trailer with a forged signature", request, refusals: MISMATCH }
}

fn chunk_changed(forger: &mut Forger) -> Forged {
    let spoil = |rng: &mut Rng, frames: &mut Vec<Vec<u8>>| {
        let at = 100 + rng.below(60_000) as usize;
        frames[0][at] ^= 1 << rng.below(8);
    };
    let request = chunked(forger, false, spoil, None);
    Forged { what: "a byte of a signed chunk changed", request, refusals: MISMATCH }
}

fn chunks_in_other_order(forger: &mut Forger) -> Forged {
    let request = chunked(forger, false, |_, frames| frames.swap(0, 1), None);
    Forged { what: "signed chunks in another order", request, refusals: MISMATCH }
}

fn chunks_cut(forger: &mut Forger) -> Forged {
    let spoil = |rng: &mut Rng, frames: &mut Vec<Vec<u8>>| match rng.below(3) {
        0 => frames.truncate(2),
        1 => frames.truncate(1),
        _ => {
            frames.truncate(2);
            let len = frames[1].len();
            frames[1].truncate(len - 1 - rng.below(len as u64 - 1) as usize);
        }
    };
    let request = chunked(forger, false, spoil, None);
    Forged { what: "a chunked body without its end", request, refusals: &[(400, "IncompleteBody"), (400, "")] }
}

fn chunk_framing(forger: &mut Forger) -> Forged {
    let spoil = |rng: &mut Rng, frames: &mut Vec<Vec<u8>>| {
        let heads: [&[u8]; 9] = [
            b"zz;chunk-signature=00\r\n",
            b"-1;chunk-signature=00\r\n",
            b"\r\n",
            b";chunk-signature=\r\n",
            b"ffffffffffffffff;\r\n",
            b"1ffffffffffffffff;chunk-signature=00\r\n",
            b"10000\n",
            b"10 000;chunk-signature=00\r\n",
            b"0x10;chunk-signature=00\r\n",
        ];
        match rng.below(10) {
            9 => frames[0] = vec![b'0'; 100_000],
            at => drop(frames[0].splice(..0, heads[at as usize].iter().copied())),
        }
    };
    let request = chunked(forger, false, spoil, None);
    Forged { what: "chunk framing that is none", request, refusals: &[(400, ""), (403, "SignatureDoesNotMatch")] }
}

fn unsigned_chunks(forger: &mut Forger) -> Forged {
    let mut request = forger.honest_put();
    let data = std::mem::take(&mut request.body);
    request.set("Content-Encoding", "aws-chunked");
    request.set("x-amz-trailer", "x-amz-checksum-crc32c");
    let wrong_length = forger.rng.below(3) == 0;
    let decoded = if wrong_length { data.len() + 1 } else { data.len() };
    request.set("x-amz-decoded-content-length", decoded.to_string());
    forger.s3.signer.sign_as(&mut request, UNSIGNED_CHUNKS_TRAILER);
    let sum = if wrong_length { crc32c_base64(&data) } else { crc32c_base64(b"another body") };
    let mut framed = format!("{:x}\r\n", data.len()).into_bytes();
    framed.extend(&data);
    framed.extend(format!("\r\n0\r\nx-amz-checksum-crc32c:{sum}\r\n\r\n").bytes());
    request.body = framed;
    let refusals = &[(400, "BadDigest"), (400, "IncompleteBody"), (400, "InvalidRequest")];
    Forged { what: "unsigned chunks whose length or trailer is wrong", request, refusals }
}

fn unsigned_chunks_with_forged_signature(forger: &mut Forger) -> Forged {
    let mut forged = unsigned_chunks(forger);
    let header = forged.request.get("authorization").unwrap_or_default().to_owned();
    let (start, _) = header.split_once("Signature=").unwrap_or_default();
    forged.request.set("Authorization", format!("{start}Signature={}", "0".repeat(64)));
    Forged { what: "unsigned trailer under a forged signature (CVE-2026-40344)", refusals: MISMATCH, ..forged }
}

// --- digests

fn md5_mismatch(forger: &mut Forger) -> Forged {
    let request = forger.honest_put();
    let (value, refusals): (&str, &'static [(u16, &'static str)]) = match forger.rng.below(4) {
        0 => ("AAAAAAAAAAAAAAAAAAAAAA==", &[(400, "BadDigest")]),
        1 => ("not base64!", &[(400, "InvalidDigest")]),
        2 => ("AAAA", &[(400, "InvalidDigest")]),
        _ => ("", &[(400, "InvalidDigest")]),
    };
    let request = forger.signed(request.header("Content-MD5", value));
    Forged { what: "Content-MD5 of something else", request, refusals }
}

fn checksum_mismatch(forger: &mut Forger) -> Forged {
    let request = forger.honest_put();
    let sums = [
        ("x-amz-checksum-crc32", "AAAAAA=="),
        ("x-amz-checksum-crc32c", "AAAAAA=="),
        ("x-amz-checksum-crc64nvme", "AAAAAAAAAAA="),
        ("x-amz-checksum-sha1", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ("x-amz-checksum-sha256", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    ];
    let (name, value) = *forger.rng.choose(&sums);
    let wrong_shape = forger.rng.below(3) == 0;
    let request = forger.signed(request.header(name, if wrong_shape { "AAAA" } else { value }));
    let refusals: &[(u16, &str)] =
        if wrong_shape { &[(400, "InvalidRequest"), (400, "")] } else { &[(400, "BadDigest")] };
    Forged { what: "a checksum of something else", request, refusals }
}

fn checksum_contradiction(forger: &mut Forger) -> Forged {
    let mut request = forger.honest_put();
    match forger.rng.below(2) {
        0 => {
            request.set("x-amz-checksum-crc32", "AAAAAA==");
            request.set("x-amz-checksum-sha1", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        }
        _ => request.set("x-amz-sdk-checksum-algorithm", "CRC13"),
    }
    let request = forger.signed(request);
    Forged { what: "two checksums, or one nobody knows", request, refusals: &[(400, "InvalidRequest"), (400, "")] }
}

// --- too large

fn oversized(forger: &mut Forger) -> Forged {
    let more = forger.rng.below(5000) as usize;
    let request = forger.honest_put();
    let (request, refusals): (Request, &'static [(u16, &'static str)]) = match forger.rng.below(6) {
        0 => (request.header("x-amz-meta-large", "m".repeat(2049 + more)), &[(400, "MetadataTooLarge")]),
        1 => (request.header("x-amz-meta-huge", "m".repeat(100_000 + more)), &[(400, ""), (431, ""), (0, "")]),
        2 => (
            (0..1000).fold(request, |request, i| request.header(&format!("x-amz-meta-{i}"), "v")),
            &[(400, ""), (431, ""), (0, "")],
        ),
        3 => (
            forger.s3.request("PUT", "attacked", &"k".repeat(1025 + more), "", "x"),
            &[(400, "KeyTooLongError"), (414, "")],
        ),
        4 => (
            forger.s3.request("GET", "attacked", &"u".repeat(200_000 + more), "", ""),
            &[(400, ""), (414, ""), (431, ""), (0, "")],
        ),
        _ => {
            let tags: Vec<String> = (0..11).map(|i| format!("t{i}=v")).collect();
            (request.header("x-amz-tagging", tags.join("&")), &[(400, "BadRequest"), (400, "InvalidTag")])
        }
    };
    Forged { what: "too large", request: forger.signed(request), refusals }
}

fn content_length_out_of_range(forger: &mut Forger) -> Forged {
    let mut request = forger.honest_put();
    let length = *forger.rng.choose(&["5368709121", "99999999999999", "-1", "abc", "18446744073709551616"]);
    request.body.clear();
    let request = request.header("Content-Length", length);
    let mut signed = request.clone();
    forger.s3.signer.sign_as(&mut signed, UNSIGNED_PAYLOAD);
    Forged { what: "a Content-Length out of range", request: signed, refusals: &[(400, ""), (413, ""), (0, "")] }
}

// --- XML

fn malformed_xml(forger: &mut Forger) -> Forged {
    let noise = forger.noise(300);
    let documents = [
        noise.clone(),
        String::new(),
        "<".into(),
        "<Delete>".into(),
        format!("<Delete><Object><Key>a</Key></Object>{noise}"),
        "<Delete><Object></Object></Delete>".into(),
        "<Delete></Delete>".into(),
        "<Other><Object><Key>present</Key></Object></Other>".into(),
        format!("<!DOCTYPE d [<!ENTITY a \"{}\">]><Delete><Object><Key>&a;</Key></Object></Delete>", "x".repeat(1000)),
        "<!DOCTYPE d [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><Delete><Object><Key>&a;</Key></Object></Delete>"
            .into(),
        "<Delete><Object><Key>&unknown;</Key></Object></Delete>".into(),
        "<a>".repeat(20_000),
        format!("<Delete>{}</Delete>", "<Object><Key>present</Key></Object>".repeat(1001)),
    ];
    let document = forger.rng.choose(&documents).clone();
    let request = forger.s3.request("POST", "attacked", "", "delete", document);
    let refusals = &[(400, "MalformedXML"), (400, "MissingRequestBodyError"), (400, "MaxMessageLengthExceeded")];
    Forged { what: "DeleteObjects that is none", request: forger.signed(with_md5(request)), refusals }
}

fn with_md5(request: Request) -> Request {
    use base64::Engine;
    use md5::{Digest, Md5};
    let digest = base64::engine::general_purpose::STANDARD.encode(Md5::digest(&request.body));
    request.header("Content-MD5", digest)
}

fn malformed_settings(forger: &mut Forger) -> Forged {
    let noise = forger.noise(100);
    let documents = [
        noise,
        "<a/>".into(),
        "<Tagging><TagSet><Tag></Tag></TagSet>".into(),
        "<VersioningConfiguration>".into(),
        "\u{0}".into(),
    ];
    let document = forger.rng.choose(&documents).clone();
    let (key, query) = *forger.rng.choose(&[("", "tagging"), ("present", "tagging"), ("", "versioning")]);
    let request = forger.s3.request("PUT", "attacked", key, query, document);
    let refusals = &[(400, "MalformedXML"), (400, "IllegalVersioningConfigurationException"), (400, "InvalidTag")];
    Forged { what: "a setting that is none", request: forger.signed(with_md5(request)), refusals }
}

fn xml_without_end(forger: &mut Forger) -> Forged {
    let len = (3 << 20) + forger.rng.below(1 << 20) as usize;
    let request = forger.s3.request("POST", "attacked", "", "delete", format!("<Delete>{}", " ".repeat(len)));
    let refusals =
        &[(400, "MalformedXML"), (400, "MaxMessageLengthExceeded"), (413, ""), (400, "EntityTooLarge"), (0, "")];
    Forged { what: "XML of megabytes", request: forger.signed(with_md5(request)), refusals }
}

fn complete_of_nothing(forger: &mut Forger) -> Forged {
    let noise = encode(&forger.noise(40), true);
    let part =
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag></Part></CompleteMultipartUpload>";
    let request = match forger.rng.below(4) {
        0 => forger.s3.request("POST", "attacked", "present", &format!("uploadId={noise}"), part),
        1 => forger.s3.request("PUT", "attacked", "present", &format!("partNumber=1&uploadId={noise}"), "part"),
        2 => forger.s3.request("DELETE", "attacked", "present", &format!("uploadId={noise}"), ""),
        _ => forger.s3.request("GET", "attacked", "present", &format!("uploadId={noise}"), ""),
    };
    Forged { what: "an upload that is none", request: forger.signed(request), refusals: &[(404, "NoSuchUpload")] }
}

// --- names and parameters

fn path_out_of_the_bucket(forger: &mut Forger) -> Forged {
    let targets = [
        "/../safe/secret",
        "/%2e%2e/safe/secret",
        "/..%2fsafe/secret",
        "/./safe/secret",
        "/attacked%2f..%2fsafe/secret",
        "/attacked%00/present",
        "/safe%00/../secret",
        "/%00",
        "//safe/secret",
        "/.",
        "/..",
        "/%2e",
        "/attacked\\..\\safe/secret",
        "/at%2ftacked/x",
        "/ATTACKED/present",
        "/attacked%20/present",
        "/-attacked/x",
        "/a/x",
        "/%ff%fe/x",
        "/127.0.0.1/x",
    ];
    let target = *forger.rng.choose(&targets);
    let method = *forger.rng.choose(&["GET", "PUT", "DELETE", "HEAD"]);
    let body = if method == "PUT" { "x" } else { "" };
    let request = Request::new(method, target, body).header("Host", forger.s3.endpoint.authority());
    let refusals = &[(400, ""), (404, "NoSuchBucket"), (403, "SignatureDoesNotMatch"), (405, "")];
    Forged { what: "a path out of the bucket", request: forger.signed(request), refusals }
}

fn key_that_climbs(forger: &mut Forger) -> Forged {
    let keys = [
        "../safe/secret",
        "..%2fsafe%2fsecret",
        "%2e%2e/%2e%2e/etc/passwd",
        "../../../../../../etc/passwd",
        "present/../../safe/secret",
        "./present",
        "present%00",
        "%00",
        "..",
        "%2e",
        "//present",
        "present/",
        "/present",
        "%c0%ae%c0%ae/x",
        "..%5c..%5csafe",
    ];
    let key = *forger.rng.choose(&keys);
    let method = *forger.rng.choose(&["GET", "HEAD"]);
    let request = Request::new(method, &format!("/attacked/{key}"), "").header("Host", forger.s3.endpoint.authority());
    let refusals = &[(404, "NoSuchKey"), (400, "")];
    Forged { what: "a key that climbs", request: forger.signed(request), refusals }
}

fn escapes(forger: &mut Forger) -> Forged {
    let key = *forger.rng.choose(&["%", "%2", "%zz", "a%ffb", "%c3%28", "%ed%a0%80", "%f8%a1%a1%a1%a1", "ok%"]);
    let method = *forger.rng.choose(&["GET", "PUT", "DELETE"]);
    let request = Request::new(method, &format!("/attacked/{key}"), "").header("Host", forger.s3.endpoint.authority());
    let refusals = &[(400, ""), (403, "SignatureDoesNotMatch")];
    Forged { what: "a path that cannot be decoded", request: forger.signed(request), refusals }
}

fn copy_source(forger: &mut Forger) -> Forged {
    let sources = [
        "",
        "/",
        "safe",
        "safe/",
        "/safe",
        "../safe/secret",
        "..%2fsafe%2fsecret",
        "safe%00/secret",
        "missing-bucket/x",
        "safe/missing",
        "safe/../safe/secret",
        "safe/secret?versionId=nonsense",
        "%zz/x",
        "SAFE/secret",
        "safe/secret?versionId=",
    ];
    let mut sources = sources.to_vec();
    // An empty version id may be taken for none: that copy is legal.
    sources.pop();
    let source = *forger.rng.choose(&sources);
    let mut request = forger.s3.request("PUT", "attacked", "copied", "", "");
    request.set("x-amz-copy-source", source);
    Forged { what: "a copy source that is none", request: forger.signed(request), refusals: &[(400, ""), (404, "")] }
}

fn parameters(forger: &mut Forger) -> Forged {
    let cases: [(&str, &str, &str); 21] = [
        ("GET", "", "list-type=2&max-keys=abc"),
        ("GET", "", "list-type=2&max-keys=-1"),
        ("GET", "", "max-keys=99999999999999999999"),
        ("GET", "", "encoding-type=rot13&list-type=2"),
        ("GET", "", "continuation-token=%21%21&list-type=2"),
        ("GET", "", "continuation-token=&list-type=2"),
        ("GET", "", "max-keys=x&versions"),
        ("GET", "", "max-uploads=-2&uploads"),
        ("GET", "", "version-id-marker=x&versions"),
        ("GET", "present", "versionId=nonsense"),
        ("GET", "present", "versionId="),
        ("DELETE", "present", "versionId=nonsense"),
        ("GET", "present", "partNumber=0"),
        ("GET", "present", "partNumber=10001"),
        ("GET", "present", "partNumber=x"),
        ("PUT", "present", "partNumber=0&uploadId=x"),
        ("PUT", "present", "partNumber=10001&uploadId=x"),
        ("PUT", "present", "partNumber=-1&uploadId=x"),
        ("PUT", "present", "partNumber=a&uploadId=x"),
        ("GET", "", "list-type=3"),
        ("GET", "", "encoding-type=&list-type=2"),
    ];
    let (method, key, query) = *forger.rng.choose(&cases[..19]);
    let request = forger.s3.request(method, "attacked", key, query, "");
    let refusals = &[
        (400, "InvalidArgument"),
        (400, ""),
        (404, "NoSuchUpload"),
        (404, "NoSuchVersion"),
        (416, "InvalidPartNumber"),
    ];
    Forged { what: "a parameter out of range", request: forger.signed(request), refusals }
}

fn bucket_name(forger: &mut Forger) -> Forged {
    let names = [
        "ab",
        "A-Bucket",
        "a_b_c",
        "-abc",
        "abc-",
        "a..b",
        "192.168.1.1",
        "xn--abc",
        "abc-s3alias",
        "a b c",
        "ünïcode",
    ];
    let long = "a".repeat(64);
    let name = if forger.rng.below(8) == 0 { long.as_str() } else { *forger.rng.choose(&names) };
    let request = forger.s3.request("PUT", name, "", "", "");
    Forged {
        what: "a bucket name that is none",
        request: forger.signed(request),
        refusals: &[(400, "InvalidBucketName")],
    }
}

fn attributes(forger: &mut Forger) -> Forged {
    let headers = [
        ("x-amz-tagging", "a=b&a=c"),
        ("x-amz-storage-class", "NONSENSE"),
        ("x-amz-acl", "nonsense"),
        ("x-amz-server-side-encryption", "rot13"),
        // Not done, so it must not be said to be done.
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-object-lock-legal-hold", "ON"),
        ("x-amz-object-lock-mode", "NONSENSE"),
        ("x-amz-tagging", "=v"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES255"),
    ];
    let (name, value) = *forger.rng.choose(&headers);
    let request = forger.honest_put().header(name, value);
    Forged {
        what: "an attribute that is none",
        request: forger.signed(request),
        refusals: &[(400, ""), (501, "NotImplemented")],
    }
}

fn wrong_conditions(forger: &mut Forger) -> Forged {
    let mut request = forger.s3.request("PUT", "attacked", "present", "", "new");
    let refusals: &[(u16, &str)] = match forger.rng.below(3) {
        0 => {
            request.set("If-None-Match", "*");
            &[(412, "PreconditionFailed")]
        }
        1 => {
            request.set("If-Match", "\"00000000000000000000000000000000\"");
            &[(412, "PreconditionFailed")]
        }
        _ => {
            request = forger.s3.request("PUT", "attacked", "absent", "", "new").header("If-Match", "\"0\"");
            &[(404, "NoSuchKey")]
        }
    };
    Forged { what: "a condition that does not hold", request: forger.signed(request), refusals }
}

fn wrong_method(forger: &mut Forger) -> Forged {
    let method = *forger.rng.choose(&["PATCH", "TRACE", "CONNECT", "LINK", "FROB", "PROPFIND", "POST"]);
    let key = if method == "POST" { "present" } else { *forger.rng.choose(&["", "present"]) };
    let request = forger.s3.request(method, "attacked", key, "", "");
    let refusals = &[(405, ""), (501, "NotImplemented"), (400, ""), (403, "AccessDenied"), (412, "")];
    Forged { what: "a method without meaning", request: forger.signed(request), refusals }
}

fn not_implemented(forger: &mut Forger) -> Forged {
    let cases = [
        ("PUT", "", "replication"),
        ("PUT", "", "website"),
        ("PUT", "", "accelerate"),
        ("PUT", "", "requestPayment"),
        ("PUT", "", "logging"),
        ("PUT", "", "inventory&id=1"),
        ("PUT", "", "analytics&id=1"),
        ("PUT", "", "metrics&id=1"),
        ("PUT", "", "intelligent-tiering&id=1"),
        ("POST", "present", "select&select-type=2"),
        ("POST", "present", "restore"),
        ("GET", "present", "torrent"),
    ];
    let (method, key, query) = *forger.rng.choose(&cases);
    let request = forger.s3.request(method, "attacked", key, query, "<x/>");
    let refusals = &[(501, "NotImplemented"), (400, "MalformedXML"), (405, "MethodNotAllowed")];
    Forged { what: "an operation that is not there", request: forger.signed(request), refusals }
}

const GENERATORS: &[Generator] = &[
    signature_of_noise,
    other_secret,
    unknown_key,
    changed_after_signing,
    unsigned_amz_header,
    skewed,
    anonymous,
    other_service,
    noise_as_authorization,
    other_body,
    header_left_out,
    noise_as_payload_hash,
    presigned_expired,
    presigned_not_yet,
    presigned_expires_badly,
    presigned_changed,
    presigned_lacking,
    presigned_with_unsigned_header,
    signed_twice,
    chunk_forged,
    trailer_forged,
    chunk_changed,
    chunks_in_other_order,
    chunks_cut,
    chunk_framing,
    unsigned_chunks,
    unsigned_chunks_with_forged_signature,
    md5_mismatch,
    checksum_mismatch,
    checksum_contradiction,
    oversized,
    content_length_out_of_range,
    malformed_xml,
    malformed_settings,
    xml_without_end,
    complete_of_nothing,
    path_out_of_the_bucket,
    key_that_climbs,
    escapes,
    copy_source,
    parameters,
    bucket_name,
    attributes,
    wrong_conditions,
    wrong_method,
    not_implemented,
];

fn is_right(answer: &Result<Response>, forged: &Forged) -> bool {
    let Ok(answer) = answer else { return forged.refusals.iter().any(|(status, _)| *status == 0) };
    // What HEAD says has no body, and what hyper refuses has none of ours.
    let code = answer.code();
    let has_body = forged.request.method != "HEAD";
    forged
        .refusals
        .iter()
        .any(|(status, wanted)| answer.status == *status && (wanted.is_empty() || !has_body || code == *wanted))
}

fn everything(s3: &mut S3) -> Result<(Vec<Listed>, Vec<Listed>, String)> {
    let uploads = s3.call(s3.request("GET", "attacked", "", "uploads", ""))?.expect(200)?;
    let buckets = s3.call(Request::new("GET", "/", "").header("Host", s3.endpoint.authority()))?.expect(200)?;
    let rest = format!("{:?}{}", predastore_tests::s3::elements(&uploads.text(), "Upload"), buckets.text());
    Ok((s3.list("safe")?, s3.list("attacked")?, rest))
}

#[test]
fn forged_requests_are_refused_and_change_nothing() -> Result<()> {
    let rng = Rng::for_test("forged_requests");
    let s3d = S3d::start(Config::default().plain())?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket("safe")?;
    s3.create_bucket("attacked")?;
    s3.put("safe", "secret", "a secret")?.expect(200)?;
    s3.put("attacked", "present", "a present")?.expect(200)?;
    let mut before = everything(&mut s3)?;

    let mut forger = Forger { s3: s3d.s3()?, rng };
    let (each, mut count, mut wrong) = (number("PREDASTORE_TEST_FORGED", 24), 0, Vec::new());
    for generate in GENERATORS {
        for _ in 0..each {
            let forged = generate(&mut forger);
            let answer = s3d.endpoint()?.connect()?.call(&forged.request);
            count += 1;
            if !is_right(&answer, &forged) {
                wrong.push(complaint(&forged, &answer));
            }
        }
        let after = everything(&mut s3).context("after forged requests")?;
        if after != before {
            wrong.push(format!("{}: changed {before:?}\ninto {after:?}", generate(&mut forger).what));
            s3.put("attacked", "present", "a present")?.expect(200)?;
            before = everything(&mut s3)?;
        }
    }
    s3.expect_body("attacked", "present", b"a present")?;
    s3.expect_body("safe", "secret", b"a secret")?;
    say(&format!("{count} forged, malformed and oversized requests, {} answered wrongly", wrong.len()));
    ensure!(count >= 1000 || each < 24, "only {count} requests");
    wrong.sort();
    wrong.dedup();
    ensure!(wrong.is_empty(), "answered wrongly:\n{}", wrong.join("\n"));
    ensure!(!s3d.log_text().contains(&s3d.credentials().secret_key), "the secret key is in the log");
    Ok(())
}

fn complaint(forged: &Forged, answer: &Result<Response>) -> String {
    let answer = match answer {
        Ok(answer) => format!("{} {}", answer.status, answer.code()),
        Err(error) => format!("{error:#}"),
    };
    let target: String = forged.request.target.chars().take(80).collect();
    let body = String::from_utf8_lossy(&forged.request.body[..forged.request.body.len().min(60)]).into_owned();
    format!("{}: {} {target}: {answer}, not {:?} {body:?}", forged.what, forged.request.method, forged.refusals)
}

/// Bytes that are no HTTP: the server refuses or hangs up, and goes on serving.
#[test]
fn what_is_no_http_is_refused() -> Result<()> {
    let mut rng = Rng::for_test("what_is_no_http");
    let s3d = S3d::start(Config::default().plain())?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket("safe")?;
    let mut texts: Vec<Vec<u8>> = [
        "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        "GET /\r\n\r\n",
        "\r\n\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "G\0T / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        "GET / HTTP/1.1\r\nHost x\r\n\r\n",
        "PUT /safe/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "PUT /safe/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "PUT /safe/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        "PUT /safe/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET http://elsewhere/safe/a HTTP/1.1\r\nHost: x\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    texts.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    texts.extend((0..100).map(|_| {
        let mut noise = vec![0; 1 + rng.below(300) as usize];
        rng.fill(&mut noise);
        noise.extend(b"\r\n\r\n");
        noise
    }));
    for text in texts {
        let mut connection = s3d.endpoint()?.connect()?;
        let _ = connection.write(&text);
        let _ = connection.finish_sending();
        if let Ok(answer) = connection.response("GET") {
            ensure!(
                (400..506).contains(&answer.status) && answer.status != 500,
                "{}: {}",
                answer.status,
                text.escape_ascii()
            );
        }
    }
    ensure!(s3.list("safe")?.is_empty(), "something was stored");
    Ok(())
}
