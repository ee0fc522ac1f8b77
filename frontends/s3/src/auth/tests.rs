//! AWS's published examples, and every way a request can be refused.
#![allow(clippy::unwrap_used)]

use super::chunked::tests::decode;
use super::key::{hex, parse_hex, sha256};
use super::*;
use std::sync::Arc;

use crate::dates::parse_amz_date;
use aws_lc_rs::hmac;

const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SCOPE: &str = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";

fn secrets(access_key_id: &str) -> Option<Secret> {
    (access_key_id == KEY_ID).then(|| Secret::new(SECRET))
}

fn verifier() -> Verifier {
    Verifier::new(vec!["us-east-1".into()])
}

fn noon_s() -> i64 {
    parse_amz_date("20130524T000000Z").unwrap()
}

/// A request to change and to send.
#[derive(Clone)]
struct Sent {
    method: &'static str,
    path: String,
    query: String,
    headers: HeaderMap,
    now_s: i64,
}

impl Sent {
    fn new(method: &'static str, path: &str, query: &str) -> Sent {
        let mut sent =
            Sent { method, path: path.into(), query: query.into(), headers: HeaderMap::new(), now_s: noon_s() };
        sent.set("host", "examplebucket.s3.amazonaws.com");
        sent
    }

    fn set(&mut self, name: &str, value: &str) {
        self.headers.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }

    fn with(mut self, name: &str, value: &str) -> Sent {
        self.set(name, value);
        self
    }

    fn without(mut self, name: &str) -> Sent {
        self.headers.remove(name);
        self
    }

    /// Adds the headers every signed request has, and the given signature.
    fn signed(self, signed_headers: &str, payload_hash: &str, signature: &str) -> Sent {
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={SCOPE},SignedHeaders={signed_headers},Signature={signature}");
        self.with("x-amz-date", "20130524T000000Z")
            .with("x-amz-content-sha256", payload_hash)
            .with("authorization", &authorization)
    }

    /// Signs as a client would, by the string that the refusal shows.
    fn resigned(self) -> Sent {
        let refusal = self.send_to(&verifier()).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::SignatureDoesNotMatch, "{refusal}");
        let to_sign = &refusal.fields.iter().find(|(name, _)| *name == "StringToSign").unwrap().1;
        let scope: Vec<&str> = to_sign.lines().nth(2).unwrap().split('/').collect();
        let key = super::key::SigningKey::derive(&Secret::new(SECRET), scope[0], scope[1], scope[2]);
        let signature = hex(&key.sign(to_sign.as_bytes()));
        let replace = |text: &str, marker: &str| {
            let begin = text.find(marker).unwrap() + marker.len();
            format!("{}{signature}{}", &text[..begin], &text[begin + 64..])
        };
        match self.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned()) {
            Some(text) => self.with("authorization", &replace(&text, "Signature=")),
            None => Sent { query: replace(&self.query, "X-Amz-Signature="), ..self },
        }
    }

    fn send_to(&self, verifier: &Verifier) -> Result<Authenticated, S3Error> {
        self.send_knowing(verifier, secrets)
    }

    fn send_knowing(
        &self,
        verifier: &Verifier,
        secrets: impl Fn(&str) -> Option<Secret>,
    ) -> Result<Authenticated, S3Error> {
        let query = Query::parse(&self.query)?;
        let head = RequestHead { method: self.method, raw_path: &self.path, query: &query, headers: &self.headers };
        match verifier.claim(&head, self.now_s)? {
            None => anonymous(&head),
            Some(claim) => verifier.verify(&head, &claim, secrets(claim.access_key_id()).as_ref()),
        }
    }

    fn code(&self) -> ErrorCode {
        self.send_to(&verifier()).unwrap_err().code
    }
}

fn proven(sent: &Sent) -> Payload {
    let authenticated = sent.send_to(&verifier()).unwrap();
    let how = if sent.headers.contains_key("authorization") { SignedBy::Header } else { SignedBy::Presigned };
    assert_eq!(authenticated.identity, Identity::Signed { access_key_id: KEY_ID.into(), how });
    authenticated.payload
}

fn get_object() -> Sent {
    Sent::new("GET", "/test.txt", "").with("range", "bytes=0-9").signed(
        "host;range;x-amz-content-sha256;x-amz-date",
        EMPTY,
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    )
}

fn presigned() -> Sent {
    let scope = SCOPE.replace('/', "%2F");
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={scope}&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    );
    Sent::new("GET", "/test.txt", &query)
}

#[test]
fn aws_example_get_object() {
    assert!(matches!(proven(&get_object()), Payload::Sha256(hash) if hash == sha256(b"")));
}

#[test]
fn aws_example_put_object() {
    let sent = Sent::new("PUT", "/test%24file.text", "")
        .with("date", "Fri, 24 May 2013 00:00:00 GMT")
        .with("x-amz-storage-class", "REDUCED_REDUNDANCY")
        .signed(
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        );
    assert!(matches!(proven(&sent), Payload::Sha256(hash) if hash == sha256(b"Welcome to Amazon S3.")));
}

/// S3 signs the decoded path encoded anew, whichever way it was sent.
#[test]
fn a_path_may_be_sent_in_another_encoding_than_signed() {
    for path in ["/%74est.txt", "/test%2Etxt", "/test%2etxt"] {
        proven(&Sent { path: path.into(), ..get_object() });
        proven(&Sent { path: path.into(), ..presigned() });
    }
    for path in ["/Test.txt", "/test%252Etxt", "/test.txt/", "/test.txt%00", "//test.txt"] {
        assert_eq!(Sent { path: path.into(), ..get_object() }.code(), ErrorCode::SignatureDoesNotMatch, "{path}");
    }
    // A client that signs what it sends is believed too.
    proven(&Sent { path: "/a(b)%7E".into(), ..get_object() }.resigned());
}

#[test]
fn aws_example_get_bucket_lifecycle() {
    proven(&Sent::new("GET", "/", "lifecycle").signed(
        "host;x-amz-content-sha256;x-amz-date",
        EMPTY,
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ));
}

#[test]
fn aws_example_list_objects() {
    proven(&Sent::new("GET", "/", "max-keys=2&prefix=J").signed(
        "host;x-amz-content-sha256;x-amz-date",
        EMPTY,
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ));
}

#[test]
fn aws_example_presigned_url() {
    assert!(matches!(proven(&presigned()), Payload::Unsigned));
}

fn chunked_put(mode: &str) -> Sent {
    let mut sent = Sent::new("PUT", "/examplebucket/chunkObject.txt", "")
        .with("host", "s3.amazonaws.com")
        .with("x-amz-storage-class", "REDUCED_REDUNDANCY")
        .with("content-encoding", "aws-chunked")
        .with("x-amz-decoded-content-length", "66560");
    let trailing = mode.ends_with("TRAILER");
    if trailing {
        sent.set("x-amz-trailer", "x-amz-checksum-crc32c");
    } else {
        sent.set("content-length", "66824");
    }
    let (headers, signature) = if trailing {
        (
            "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer",
            "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
        )
    } else {
        (
            "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class",
            "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
        )
    };
    sent.signed(headers, mode, signature)
}

fn chunked_body(signatures: [&str; 3], end: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (signature, len) in signatures.into_iter().zip([65536, 1024]) {
        body.extend_from_slice(format!("{len:x};chunk-signature={signature}\r\n").as_bytes());
        body.resize(body.len() + len, b'a');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("0;chunk-signature={}\r\n{end}", signatures[2]).as_bytes());
    body
}

const CHUNKS: [&str; 3] = [
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
];
const TRAILED_CHUNKS: [&str; 3] = [
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
];
const TRAILER: &str = "x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n";

fn body_spec(sent: &Sent) -> ChunkedBody {
    let Payload::Chunked(spec) = proven(sent) else { unreachable!("a chunked payload") };
    spec
}

#[test]
fn aws_example_chunked_upload() {
    let spec = body_spec(&chunked_put("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"));
    let body = chunked_body(CHUNKS, "\r\n");
    assert_eq!(body.len(), 66824, "the example's Content-Length");
    assert_eq!(decode(spec.clone(), &body, &[1, 3, 70, 9000, 66000]), Ok((vec![b'a'; 66560], vec![])));

    for damaged_at in [10, 100, 65700, 66000, 66780] {
        let mut damaged = body.clone();
        damaged[damaged_at] ^= 1;
        assert!(decode(spec.clone(), &damaged, &[]).is_err(), "byte {damaged_at}");
    }
    let swapped = chunked_body([CHUNKS[1], CHUNKS[0], CHUNKS[2]], "\r\n");
    assert_eq!(decode(spec, &swapped, &[]), Err(ErrorCode::SignatureDoesNotMatch));
}

#[test]
fn aws_example_chunked_upload_with_a_trailer() {
    let spec = body_spec(&chunked_put("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"));
    let body = chunked_body(TRAILED_CHUNKS, TRAILER);
    let trailers = vec![("x-amz-checksum-crc32c".to_owned(), "sOO8/Q==".to_owned())];
    assert_eq!(decode(spec.clone(), &body, &[66600, 66800]), Ok((vec![b'a'; 66560], trailers)));

    let changed = chunked_body(TRAILED_CHUNKS, &TRAILER.replace("sOO8", "sOO9"));
    assert_eq!(decode(spec.clone(), &changed, &[]), Err(ErrorCode::SignatureDoesNotMatch));
    let unsigned = chunked_body(TRAILED_CHUNKS, "x-amz-checksum-crc32c:sOO8/Q==\r\n\r\n");
    assert_eq!(decode(spec, &unsigned, &[]), Err(ErrorCode::MalformedTrailerError));
}

#[test]
fn every_signed_part_of_the_head_counts() {
    let good = get_object();
    for changed in [
        Sent { method: "PUT", ..good.clone() },
        Sent { path: "/Test.txt".into(), ..good.clone() },
        Sent { path: "/./test.txt".into(), ..good.clone() },
        Sent { query: "acl".into(), ..good.clone() },
        good.clone().with("range", "bytes=0-8"),
        good.clone().with("host", "other.s3.amazonaws.com"),
        good.clone().with("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        good.clone().without("range"),
    ] {
        assert_eq!(
            changed.code(),
            ErrorCode::SignatureDoesNotMatch,
            "{} {}?{}",
            changed.method,
            changed.path,
            changed.query
        );
    }
}

#[test]
fn unsigned_amz_headers_are_refused() {
    for name in ["x-amz-acl", "x-amz-copy-source", "x-amz-meta-a"] {
        let refusal = get_object().with(name, "v").send_to(&verifier()).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::AccessDenied);
        assert_eq!(refusal.fields, [("HeadersNotSigned", name.to_owned())]);
        assert_eq!(Sent { ..presigned() }.with(name, "v").code(), ErrorCode::AccessDenied);
    }
    let no_host = get_object().signed("range;x-amz-content-sha256;x-amz-date", EMPTY, &"0".repeat(64));
    assert_eq!(no_host.code(), ErrorCode::AccessDenied);
    proven(&get_object().with("content-md5", "unsigned").with("x-amzn-trace-id", "proxy"));
}

#[test]
fn time_is_checked_both_ways() {
    let at = |sent: Sent, seconds: i64| Sent { now_s: noon_s() + seconds, ..sent };
    for seconds in [-900, 0, 900] {
        proven(&at(get_object(), seconds));
    }
    for seconds in [-901, 901] {
        assert_eq!(at(get_object(), seconds).code(), ErrorCode::RequestTimeTooSkewed);
    }
    for seconds in [-900, 0, 86_399] {
        proven(&at(presigned(), seconds));
    }
    let message = |seconds| at(presigned(), seconds).send_to(&verifier()).unwrap_err().message;
    assert_eq!([message(-901), message(86_400)], ["Request is not yet valid", "Request has expired"]);
}

#[test]
fn scopes_must_be_ours() {
    for (from, to) in
        [("us-east-1", "eu-west-1"), ("/s3/", "/iam/"), ("aws4_request", "aws5"), ("20130524/", "20130525/")]
    {
        let text = get_object().headers["authorization"].to_str().unwrap().replace(from, to);
        assert_eq!(get_object().with("authorization", &text).code(), ErrorCode::AuthorizationHeaderMalformed, "{to}");
        let query = presigned().query.replace(&from.replace('/', "%2F"), &to.replace('/', "%2F"));
        assert_eq!(Sent { query, ..presigned() }.code(), ErrorCode::AuthorizationQueryParametersError, "{to}");
    }
    let anywhere = Verifier::new(vec![]);
    let text = get_object().headers["authorization"].to_str().unwrap().replace("us-east-1", "mars");
    assert_eq!(
        get_object().with("authorization", &text).send_to(&anywhere).unwrap_err().code,
        ErrorCode::SignatureDoesNotMatch
    );
}

#[test]
fn unknown_keys_and_tokens() {
    let text = get_object().headers["authorization"].to_str().unwrap().replace(KEY_ID, "AKIANOBODY");
    assert_eq!(get_object().with("authorization", &text).code(), ErrorCode::InvalidAccessKeyId);
    let token = get_object().with("x-amz-security-token", "t").signed(
        "host;range;x-amz-content-sha256;x-amz-date;x-amz-security-token",
        EMPTY,
        &"0".repeat(64),
    );
    let key = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, b"k"));
    let of = |text: &[u8]| Session::new(Timestamp(9), key.clone(), hmac::sign(&key, text).as_ref().to_vec());
    let checked = |sent: &Sent, session: Option<Session>, now_ns| {
        let query = Query::parse(&sent.query).unwrap();
        let head = RequestHead { method: sent.method, raw_path: &sent.path, query: &query, headers: &sent.headers };
        check_session(&head, session.as_ref(), Timestamp(now_ns)).map_err(|error| error.code)
    };
    assert_eq!(checked(&get_object(), None, 0), Ok(()));
    assert_eq!(checked(&token, None, 0), Err(ErrorCode::InvalidToken));
    assert_eq!(checked(&token, Some(of(b"t")), 8), Ok(()));
    assert_eq!(checked(&token, Some(of(b"t")), 9), Err(ErrorCode::ExpiredToken));
    assert_eq!(checked(&token, Some(of(b"u")), 8), Err(ErrorCode::InvalidToken));
    assert_eq!(checked(&get_object(), Some(of(b"t")), 8), Err(ErrorCode::InvalidToken));
    let in_query = Sent::new("GET", "/test.txt", "X-Amz-Security-Token=t");
    assert_eq!(checked(&in_query, Some(of(b"t")), 8), Ok(()));
    assert_eq!(checked(&in_query, None, 0), Err(ErrorCode::InvalidToken));
    let mut odd = get_object();
    odd.headers.insert("x-amz-security-token", http::HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(checked(&odd, None, 0), Err(ErrorCode::InvalidToken));
}

#[test]
fn malformed_authorization_headers() {
    let fields = format!(
        "Credential={SCOPE}, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    );
    proven(&get_object().with("authorization", &format!("AWS4-HMAC-SHA256 {fields}")));
    for text in [
        "AWS4-HMAC-SHA256".to_owned(),
        "AWS4-HMAC-SHA256 nonsense".into(),
        format!("AWS4-HMAC-SHA256 {fields}, Extra=1"),
        format!("AWS4-HMAC-SHA256 {fields}, Signature=00"),
        format!("AWS4-HMAC-SHA256 {}", fields.replace("Signature=f0", "Signature=F0")),
        format!("AWS4-HMAC-SHA256 {}", fields.replace("host;", "Host;")),
        format!("AWS4-HMAC-SHA256 {}", fields.replace("/s3/aws4_request", "")),
        format!("AWS4-HMAC-SHA256 {}", fields.replace(KEY_ID, "")),
    ] {
        assert_eq!(get_object().with("authorization", &text).code(), ErrorCode::AuthorizationHeaderMalformed, "{text}");
    }
    for text in ["AWS AKID:c2ln", "Basic dXNlcg==", "", "AWS4-ECDSA-P256-SHA256 Credential=a"] {
        assert_eq!(get_object().with("authorization", text).code(), ErrorCode::InvalidRequest, "{text}");
    }
    assert_eq!(get_object().without("x-amz-content-sha256").code(), ErrorCode::InvalidRequest);
    assert_eq!(get_object().without("x-amz-date").code(), ErrorCode::AccessDenied);
    let both = Sent { headers: get_object().headers, ..presigned() };
    assert_eq!(both.code(), ErrorCode::InvalidArgument);
    let mut twice = get_object();
    twice.headers.append("authorization", "AWS4-HMAC-SHA256 x".parse().unwrap());
    assert_eq!(twice.code(), ErrorCode::InvalidArgument);
}

#[test]
fn malformed_presigned_queries() {
    let with = |from: &str, to: &str| Sent { query: presigned().query.replace(from, to), ..presigned() };
    for (from, to) in [
        ("X-Amz-Expires=86400&", ""),
        ("Expires=86400", "Expires=604801"),
        ("Expires=86400", "Expires=-1"),
        ("Expires=86400", "Expires=soon"),
        ("Expires=86400", "Expires=1&X-Amz-Expires=86400"),
        ("T000000Z", "T00"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=Host"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders="),
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-MD5"),
        ("%2Fs3%2Faws4_request", ""),
    ] {
        assert_eq!(with(from, to).code(), ErrorCode::AuthorizationQueryParametersError, "{to}");
    }
    assert_eq!(with("aeeed9", "AEEED9").code(), ErrorCode::SignatureDoesNotMatch);
    assert_eq!(with("aeeed9", "beeed9").code(), ErrorCode::SignatureDoesNotMatch);
    assert_eq!(with("X-Amz-Expires=86400", "X-Amz-Expires=86401").code(), ErrorCode::SignatureDoesNotMatch);
    let v2 = Sent { query: "AWSAccessKeyId=a&Expires=1&Signature=s".into(), ..presigned() };
    assert_eq!(v2.code(), ErrorCode::InvalidRequest);
}

#[test]
fn a_week_is_the_longest_presigned_life() {
    let sent = Sent { query: presigned().query.replace("86400", "604800"), ..presigned() }.resigned();
    proven(&Sent { now_s: noon_s() + 604_799, ..sent.clone() });
    assert_eq!(Sent { now_s: noon_s() + 604_800, ..sent }.code(), ErrorCode::AccessDenied);
}

#[test]
fn payload_modes() {
    let mode = |mode: &str| {
        let headers = "host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length";
        let sent =
            Sent::new("PUT", "/k", "").with("x-amz-decoded-content-length", "5").signed(headers, mode, &"0".repeat(64));
        sent.resigned().send_to(&verifier()).map(|authenticated| authenticated.payload)
    };
    assert!(matches!(mode("UNSIGNED-PAYLOAD"), Ok(Payload::Unsigned)));
    assert!(matches!(mode(EMPTY), Ok(Payload::Sha256(_))));
    assert!(
        matches!(mode("STREAMING-UNSIGNED-PAYLOAD-TRAILER"), Ok(Payload::Chunked(body)) if body.signing.is_none() && body.len_bytes == 5)
    );
    assert!(
        matches!(mode("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), Ok(Payload::Chunked(body)) if body.signing.is_some() && body.trailers.is_none())
    );
    for unknown in
        ["STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD", "", "E3B0", "unsigned-payload"]
    {
        assert_eq!(mode(unknown).unwrap_err().code, ErrorCode::InvalidArgument, "{unknown}");
    }
    let no_length = chunked_put("STREAMING-AWS4-HMAC-SHA256-PAYLOAD").without("x-amz-decoded-content-length").signed(
        "host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        &"0".repeat(64),
    );
    assert_eq!(no_length.resigned().code(), ErrorCode::MissingContentLength);
}

#[test]
fn an_unsigned_trailer_mode_still_needs_the_heads_signature() {
    let headers = "host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length";
    let sent = Sent::new("PUT", "/k", "").with("x-amz-decoded-content-length", "5");
    assert_eq!(
        sent.signed(headers, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", &"0".repeat(64)).code(),
        ErrorCode::SignatureDoesNotMatch
    );
}

#[test]
fn anonymous_requests_claim_nothing() {
    let payload = |mode: Option<&str>| {
        let mut sent = Sent::new("PUT", "/k", "prefix=x").with("x-amz-decoded-content-length", "5");
        if let Some(mode) = mode {
            sent.set("x-amz-content-sha256", mode);
        }
        let authenticated = sent.send_to(&verifier()).map_err(|error| error.code)?;
        assert_eq!(authenticated.identity, Identity::Anonymous);
        Ok(authenticated.payload)
    };
    assert!(matches!(payload(None), Ok(Payload::Unsigned)));
    assert!(
        matches!(payload(Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER")), Ok(Payload::Chunked(body)) if body.signing.is_none())
    );
    assert!(matches!(payload(Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")), Err(ErrorCode::InvalidArgument)));
}

#[test]
fn a_changed_secret_is_not_served_from_the_cache() {
    let verifier = verifier();
    let with = |secret: Option<&str>| {
        get_object().send_knowing(&verifier, |_| secret.map(Secret::new)).map(drop).map_err(|refusal| refusal.code)
    };
    assert_eq!([with(Some(SECRET)), with(Some(SECRET))], [Ok(()), Ok(())]);
    assert_eq!(with(Some("another")), Err(ErrorCode::SignatureDoesNotMatch));
    assert_eq!(with(None), Err(ErrorCode::InvalidAccessKeyId));
}

#[test]
fn no_secret_is_shown() {
    let authenticated = chunked_put("STREAMING-AWS4-HMAC-SHA256-PAYLOAD").send_to(&verifier()).unwrap();
    let shown = format!("{authenticated:?} {:?}", Secret::new(SECRET));
    assert!(!shown.contains(SECRET) && !shown.contains("4f232c43"), "{shown}");
    assert!(parse_hex(&[b'0'; 64]).is_some());
}
