//! The rules of HTTP that S3 clones get wrong, seen on the wire.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use predastore_tests::http::{Request, Response};
use predastore_tests::random::body;
use predastore_tests::s3::{S3, element};
use predastore_tests::s3d::{Config, S3d, setting};
use predastore_tests::sigv4::{SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER, UNSIGNED_CHUNKS_TRAILER, UNSIGNED_PAYLOAD};
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

const MIB: usize = 1 << 20;

/// A box with one bucket, `http`.
fn bucket() -> Result<(S3d, S3)> {
    bucket_with(Config::default().plain())
}

fn bucket_with(config: Config) -> Result<(S3d, S3)> {
    let s3d = S3d::start(config)?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket("http")?;
    Ok((s3d, s3))
}

fn signed(s3: &S3, mut request: Request) -> Request {
    s3.signer.sign(&mut request);
    request
}

fn get_with(s3: &mut S3, key: &str, header: &str, value: &str) -> Result<Response> {
    s3.call(s3.request("GET", "http", key, "", "").header(header, value))
}

#[test]
fn answers_without_a_body_have_none() -> Result<()> {
    let (s3d, mut s3) = bucket()?;
    let etag = s3.put("http", "key", "twelve bytes")?.expect(200)?.get("etag").context("no ETag")?.to_owned();
    ensure!(etag.starts_with('"') && etag.ends_with('"') && etag.len() == 34, "ETag {etag}");
    // On one connection: a body where none belongs would be taken for the next answer.
    let mut connection = s3d.endpoint()?.connect()?;
    let not_modified = signed(&s3, s3.request("GET", "http", "key", "", "").header("If-None-Match", &etag));
    let requests = [
        (signed(&s3, s3.request("HEAD", "http", "key", "", "")), 200, Some("12")),
        (signed(&s3, s3.request("HEAD", "http", "missing", "", "")), 404, None),
        (not_modified, 304, None),
        (signed(&s3, s3.request("DELETE", "http", "missing", "", "")), 204, None),
        (signed(&s3, s3.request("HEAD", "http", "", "", "")), 200, None),
        (signed(&s3, s3.request("GET", "http", "key", "", "")), 200, Some("12")),
    ];
    for (request, status, length) in requests {
        let answer = connection.call(&request)?.expect(status)?;
        ensure!(answer.get("x-amz-request-id").is_some_and(|id| !id.is_empty()), "no request id: {answer:?}");
        if length.is_some() {
            ensure!(answer.get("content-length") == length, "{:?}", answer.headers);
        }
        if status == 304 {
            ensure!(answer.get("etag") == Some(&etag), "a 304 without its ETag: {:?}", answer.headers);
        }
    }
    Ok(())
}

#[test]
fn errors_name_request_and_resource() -> Result<()> {
    let (_s3d, mut s3) = bucket()?;
    let cases = [("http", "no/such key", "NoSuchKey"), ("no-such-bucket", "key", "NoSuchBucket")];
    for (bucket, key, code) in cases {
        let answer = s3.get(bucket, key)?.expect(404)?;
        let text = answer.text();
        ensure!(answer.code() == code, "{text}");
        ensure!(answer.get("content-type") == Some("application/xml"), "{:?}", answer.headers);
        ensure!(
            element(&text, "RequestId").as_deref() == answer.get("x-amz-request-id"),
            "{text} {:?}",
            answer.headers
        );
        let resource = element(&text, "Resource").context("no Resource")?;
        ensure!(resource.starts_with(&format!("/{bucket}/no")) || resource == format!("/{bucket}/{key}"), "{resource}");
    }
    let ids: std::collections::BTreeSet<_> = (0..20)
        .map(|_| s3.head("http", "x").map(|answer| answer.get("x-amz-request-id").map(str::to_owned)))
        .collect::<Result<_>>()?;
    ensure!(ids.len() == 20, "request ids repeat: {ids:?}");
    Ok(())
}

#[test]
fn dates_are_rfc_1123_in_headers_and_iso_8601_in_xml() -> Result<()> {
    let (_s3d, mut s3) = bucket()?;
    s3.put("http", "dated", "x")?.expect(200)?;
    let rfc_1123 =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    let head = s3.head("http", "dated")?.expect(200)?;
    let modified = head.get("last-modified").context("no Last-Modified")?.to_owned();
    let from_header = PrimitiveDateTime::parse(&modified, rfc_1123).context(modified.clone())?.assume_utc();
    let iso = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let page = s3.call(s3.request("GET", "http", "", "list-type=2", ""))?.expect(200)?.text();
    let listed = element(&page, "LastModified").context("no LastModified")?;
    let from_xml = PrimitiveDateTime::parse(&listed, iso).context(listed)?.assume_utc();
    ensure!((from_xml - from_header).whole_seconds() == 0, "{from_xml} and {from_header}");
    ensure!((OffsetDateTime::now_utc() - from_xml).whole_seconds().abs() < 600, "{from_xml} is not now");
    // The client's own date, given back, is not older than the object.
    get_with(&mut s3, "dated", "If-Modified-Since", &modified)?.expect(304)?;
    get_with(&mut s3, "dated", "If-Unmodified-Since", &modified)?.expect(200)?;
    get_with(&mut s3, "dated", "If-Unmodified-Since", "Sat, 01 Jan 2000 00:00:00 GMT")?.expect(412)?;
    get_with(&mut s3, "dated", "If-Modified-Since", "no date")?.expect(200)?;
    Ok(())
}

#[test]
fn ranges() -> Result<()> {
    let (_s3d, mut s3) = bucket()?;
    for len in [10, 9000, 200_000] {
        let bytes = body(1, len);
        s3.put("http", "ranged", bytes.clone())?.expect(200)?;
        let last = len - 1;
        let right = [
            (format!("bytes=0-{last}"), 0..len),
            ("bytes=0-0".into(), 0..1),
            ("bytes=3-".into(), 3..len),
            ("bytes=-4".into(), len - 4..len),
            (format!("bytes=-{}", len + 100), 0..len),
            (format!("bytes=5-{}", len + 100), 5..len),
            (format!("bytes={last}-"), last..len),
            (format!("bytes={}-{}", len / 2, len / 2 + 2), len / 2..len / 2 + 3),
        ];
        for (header, range) in right {
            let answer = get_with(&mut s3, "ranged", "Range", &header)?.expect(206).context(header.clone())?;
            ensure!(answer.body == bytes[range.clone()], "{header} gave other bytes");
            let wanted = format!("bytes {}-{}/{len}", range.start, range.end - 1);
            ensure!(answer.get("content-range") == Some(&wanted), "{header}: {:?}", answer.headers);
        }
        for ignored in ["bytes=a-b", "bytes=5-2", "items=0-1", "bytes=0-1,3-4", "bytes", "bytes=--5", "bytes=-"] {
            let answer = get_with(&mut s3, "ranged", "Range", ignored)?.expect(200).context(ignored)?;
            ensure!(answer.body == bytes && answer.get("content-range").is_none(), "{ignored} was not ignored");
        }
        for beyond in [format!("bytes={len}-"), format!("bytes={}-{}", len + 5, len + 9), "bytes=-0".into()] {
            let answer = get_with(&mut s3, "ranged", "Range", &beyond)?.expect(416).context(beyond)?;
            ensure!(answer.code() == "InvalidRange", "{}", answer.text());
        }
        let head = s3.call(s3.request("HEAD", "http", "ranged", "", "").header("Range", "bytes=0-4"))?.expect(206)?;
        ensure!(head.get("content-length") == Some("5"), "{:?}", head.headers);
    }
    s3.put("http", "empty", "")?.expect(200)?;
    get_with(&mut s3, "empty", "Range", "bytes=0-")?.expect(416)?;
    s3.get("http", "empty")?.expect(200)?;
    Ok(())
}

#[test]
fn expect_100_continue() -> Result<()> {
    let (s3d, s3) = bucket()?;
    let bytes = body(2, 100_000);
    let request = s3.request("PUT", "http", "continued", "", bytes.clone()).header("Expect", "100-continue");
    let good = signed(&s3, request.clone());
    let mut connection = s3d.endpoint()?.begin(&good)?;
    connection.write(&good.body)?;
    connection.response("PUT")?.expect(200)?;
    s3d.s3()?.expect_body("http", "continued", &bytes)?;

    // A final answer without a 100 before it must close: botocore misreads what comes after it on the connection.
    let empty = signed(&s3, s3.request("PUT", "http", "empty", "", "").header("Expect", "100-continue"));
    let mut connection = s3d.endpoint()?.connect()?;
    connection.write(&empty.head())?;
    let answer = connection.response_head()?;
    ensure!(answer.status == 100 || answer.get("connection") == Some("close"), "{answer:?}");

    let mut forged = s3.request("PUT", "http", "refused", "", bytes).header("Expect", "100-continue");
    let mut signer = s3.signer.clone();
    signer.secret_key.push('x');
    signer.sign(&mut forged);
    let mut connection = s3d.endpoint()?.connect()?;
    connection.write(&forged.head())?;
    let refusal = connection.response_head()?;
    ensure!(refusal.status == 403, "{} for a forged request, before its body", refusal.status);
    Ok(())
}

#[test]
fn response_overrides() -> Result<()> {
    let (_s3d, mut s3) = bucket()?;
    s3.put("http", "key", "x")?.expect(200)?;
    let overrides = [
        ("response-cache-control", "no-cache", "cache-control"),
        ("response-content-disposition", "attachment; filename=\"a b.txt\"", "content-disposition"),
        ("response-content-encoding", "gzip", "content-encoding"),
        ("response-content-language", "de", "content-language"),
        ("response-content-type", "text/x-test", "content-type"),
        ("response-expires", "Thu, 01 Dec 1994 16:00:00 GMT", "expires"),
    ];
    let query: Vec<String> = overrides
        .iter()
        .map(|(name, value, _)| format!("{name}={}", predastore_tests::sigv4::encode(value, true)))
        .collect();
    let answer = s3.call(s3.request("GET", "http", "key", &query.join("&"), ""))?.expect(200)?;
    for (_, value, header) in overrides {
        ensure!(answer.get(header) == Some(value), "{header}: {:?}", answer.headers);
    }
    Ok(())
}

#[test]
fn headers_are_kept_to_the_byte() -> Result<()> {
    let (_s3d, mut s3) = bucket()?;
    let headers = [
        ("Content-Type", "text/plain; charset=\"utf-8\";  x=Y"),
        ("Cache-Control", "max-age=60,   public"),
        ("Content-Disposition", "inline; filename=\"a,b;c.txt\""),
        ("Content-Language", "de, en"),
        ("Expires", "Thu, 01 Dec 1994 16:00:00 GMT"),
        ("Content-Encoding", "gzip"),
        ("x-amz-meta-plain", "Value With  Two Spaces"),
        ("x-amz-meta-quoted", "=?UTF-8?B?w6Q=?="),
        ("x-amz-meta-json", "{\"a\": [1, 2], \"b\": \"c\"}"),
        ("x-amz-website-redirect-location", "/elsewhere"),
    ];
    let request = s3.request("PUT", "http", "headers", "", "x");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(name, *value));
    s3.call(request)?.expect(200)?;
    for method in ["GET", "HEAD"] {
        let answer = s3.call(s3.request(method, "http", "headers", "", ""))?.expect(200)?;
        for (name, value) in headers {
            ensure!(answer.get(name) == Some(value), "{method} {name}: {:?}", answer.headers);
        }
    }
    s3.call(s3.request("PUT", "http", "bare", "", "x"))?.expect(200)?;
    let bare = s3.head("http", "bare")?.expect(200)?;
    ensure!(bare.get("content-type") == Some("binary/octet-stream"), "{:?}", bare.headers);
    ensure!(bare.get("content-encoding").is_none() && bare.get("cache-control").is_none(), "{:?}", bare.headers);
    Ok(())
}

/// As S3 does: listings and attributes name every class, GET and HEAD all but STANDARD.
#[test]
fn a_storage_class_is_shown_as_it_was_sent() -> Result<()> {
    let (_s3d, mut s3) = bucket()?;
    let versioned = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    s3.call(s3.request("PUT", "http", "", "versioning", versioned))?.expect(200)?;
    for (key, class) in [("cold", "GLACIER_IR"), ("cold", "STANDARD_IA"), ("plain", "STANDARD")] {
        s3.call(s3.request("PUT", "http", key, "", "x").header("x-amz-storage-class", class))?.expect(200)?;
    }
    ensure!(s3.head("http", "cold")?.get("x-amz-storage-class") == Some("STANDARD_IA"));
    ensure!(s3.get("http", "plain")?.get("x-amz-storage-class").is_none());
    let classes = |s3: &mut S3, query: &str| -> Result<Vec<String>> {
        let page = s3.call(s3.request("GET", "http", "", query, ""))?.expect(200)?.text();
        Ok(page.split("<StorageClass>").skip(1).filter_map(|rest| Some(rest.split_once('<')?.0.to_owned())).collect())
    };
    for query in ["", "list-type=2"] {
        ensure!(classes(&mut s3, query)? == ["STANDARD_IA", "STANDARD"], "{query}");
    }
    ensure!(classes(&mut s3, "versions")? == ["STANDARD_IA", "GLACIER_IR", "STANDARD"]);
    let request = s3.request("GET", "http", "cold", "attributes", "").header("x-amz-object-attributes", "StorageClass");
    let attributes = s3.call(request)?.expect(200)?.text();
    ensure!(attributes.contains("<StorageClass>STANDARD_IA</StorageClass>"), "{attributes}");
    Ok(())
}

#[test]
fn buckets_with_and_without_a_slash_are_alike() -> Result<()> {
    let (s3d, mut s3) = bucket()?;
    s3.put("http", "key", "x")?.expect(200)?;
    let host = s3d.endpoint()?.authority();
    let call = |s3: &mut S3, method: &str, target: &str| {
        s3.call(Request::new(method, target, "").header("Host", host.clone()))
    };
    let pages: Vec<String> = ["/http?list-type=2", "/http/?list-type=2"]
        .iter()
        .map(|target| call(&mut s3, "GET", target).map(|page| page.text()))
        .collect::<Result<_>>()?;
    ensure!(pages[0].contains("<Key>key</Key>"), "{}", pages[0]);
    ensure!(pages[0] == pages[1], "{pages:?}");
    call(&mut s3, "PUT", "/other/")?.expect(200)?;
    call(&mut s3, "HEAD", "/other")?.expect(200)?;
    call(&mut s3, "DELETE", "/other/")?.expect(204)?;
    call(&mut s3, "HEAD", "/other/")?.expect(404)?;
    Ok(())
}

#[test]
fn virtual_host_style() -> Result<()> {
    let (s3d, mut s3) = bucket_with(Config::default().plain().set(setting::DOMAINS, "s3.example.test"))?;
    s3.put("http", "dir/key", "x")?.expect(200)?;
    let host = format!("http.s3.example.test:{}", s3d.port);
    let got = s3.call(Request::new("GET", "/dir/key", "").header("Host", &host))?.expect(200)?;
    ensure!(got.body == b"x");
    let page = s3.call(Request::new("GET", "/?list-type=2", "").header("Host", &host))?.expect(200)?;
    ensure!(page.text().contains("<Key>dir/key</Key>"), "{}", page.text());
    let created = s3.call(Request::new("POST", "/parts?uploads", "").header("Host", &host))?.expect(200)?;
    let upload = element(&created.text(), "UploadId").context("no UploadId")?;
    let part = Request::new("PUT", &format!("/parts?partNumber=1&uploadId={upload}"), "x").header("Host", &host);
    let etag = s3.call(part)?.expect(200)?.get("etag").context("no ETag")?.to_owned();
    let list = format!("<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>");
    let list = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
    let complete = Request::new("POST", &format!("/parts?uploadId={upload}"), list).header("Host", &host);
    let done = s3.call(complete)?.expect(200)?.text();
    ensure!(element(&done, "Location") == Some(format!("http://{host}/parts")), "the bucket is named twice: {done}");
    s3.call(Request::new("PUT", "/http/nested", "y").header("Host", &host))?.expect(200)?;
    s3.expect_body("http", "http/nested", b"y")
}

#[test]
fn a_bucket_goes_with_its_uploads() -> Result<()> {
    let (_s3d, mut s3) = bucket()?;
    let created = s3.call(s3.request("POST", "http", "unfinished", "uploads", ""))?.expect(200)?;
    let upload = element(&created.text(), "UploadId").context("no UploadId")?;
    s3.call(s3.request("PUT", "http", "unfinished", &format!("partNumber=1&uploadId={upload}"), "part"))?
        .expect(200)?;
    s3.put("http", "object", "x")?.expect(200)?;
    let refusal = s3.call(s3.request("DELETE", "http", "", "", ""))?.expect(409)?;
    ensure!(refusal.code() == "BucketNotEmpty", "{}", refusal.text());
    s3.call(s3.request("GET", "http", "unfinished", &format!("uploadId={upload}"), ""))?.expect(200)?;
    s3.delete("http", "object")?.expect(204)?;
    s3.call(s3.request("DELETE", "http", "", "", ""))?.expect(204)?;
    s3.call(s3.request("HEAD", "http", "", "", ""))?.expect(404).map(drop)
}

/// What an error body says beyond its code, and what a refusal's headers say.
#[test]
fn refusals_name_what_they_are_about() -> Result<()> {
    let (s3d, mut s3) = bucket()?;
    let etag = s3.put("http", "key", "x")?.expect(200)?.get("etag").context("no ETag")?.to_owned();
    let cases = [
        ("PUT", "missing", "key", "", ("x-amz-meta-a", "b"), 404, "<BucketName>missing</BucketName>"),
        ("GET", "missing", "", "tagging", ("x-amz-meta-a", "b"), 404, "<BucketName>missing</BucketName>"),
        ("PUT", "http", "absent", "", ("If-Match", "*"), 404, "<Key>absent</Key>"),
        ("GET", "http", "key", "", ("If-Match", "\"x\""), 412, "<Condition>If-Match</Condition>"),
        ("PUT", "http", "copy", "", ("x-amz-copy-source-if-none-match", &etag), 412, "x-amz-copy-source-If-None-Match"),
        ("PUT", "http", "key", "", ("x-amz-acl", "nonsense"), 400, "<Code>InvalidArgument</Code>"),
        ("PATCH", "http", "key", "", ("x-amz-meta-a", "b"), 405, "<ResourceType>OBJECT</ResourceType>"),
        ("PUT", "owned", "", "", ("x-amz-object-ownership", "ObjectWriter"), 501, "<Code>NotImplemented</Code>"),
        ("PUT", "owned", "", "", ("x-amz-object-ownership", "Nobody"), 400, "<Code>InvalidArgument</Code>"),
    ];
    for (method, bucket, key, query, (name, value), status, said) in cases {
        let mut request = s3.request(method, bucket, key, query, "").header(name, value);
        if name.starts_with("x-amz-copy-source") {
            request.set("x-amz-copy-source", "http/key");
        }
        let answer = s3.call(request)?.expect(status).with_context(|| format!("{method} {key} {name}: {value}"))?;
        ensure!(answer.text().contains(said), "{name}: {value}: {}", answer.text());
        ensure!(element(&answer.text(), "HostId").as_deref() == answer.get("x-amz-id-2"), "{}", answer.text());
        ensure!(
            status != 405 || answer.get("allow") == Some("DELETE, GET, HEAD, OPTIONS, PUT"),
            "{:?}",
            answer.headers
        );
    }
    let region =
        "<CreateBucketConfiguration><LocationConstraint>no region</LocationConstraint></CreateBucketConfiguration>";
    let refusal = s3.call(s3.request("PUT", "regional", "", "", region))?.expect(400)?;
    ensure!(refusal.code() == "InvalidLocationConstraint", "{}", refusal.text());
    let delete = "<Delete><Object><Key>key</Key></Object></Delete>";
    let refusal = s3.call(s3.request("POST", "http", "", "delete", delete))?.expect(400)?;
    ensure!(refusal.code() == "InvalidRequest", "DeleteObjects without a checksum: {}", refusal.text());
    let deleted = s3.call(s3.request("DELETE", "http", "key", "versionId=000000000000007b", ""))?;
    let deleted = deleted.expect(204)?;
    ensure!(deleted.get("x-amz-version-id") == Some("000000000000007b"), "{:?}", deleted.headers);
    s3.expect_body("http", "key", b"x")?;

    // A preflight is answered the same to everybody; a request of HTTP/1.1 has a Host.
    for path in ["/http", "/http/key"] {
        let preflight = Request::new("OPTIONS", path, "").header("Host", s3.endpoint.authority());
        ensure!(s3d.endpoint()?.connect()?.call(&preflight)?.expect(400)?.code() == "BadRequest", "it has no Origin");
    }
    let mut connection = s3d.endpoint()?.connect()?;
    connection.write(b"GET /http/key HTTP/1.1\r\n\r\n")?;
    connection.response("GET")?.expect(400).map(drop)
}

#[test]
fn ones_own_bucket_again() -> Result<()> {
    let (s3d, mut s3) = bucket()?;
    let again = s3.call(s3.request("PUT", "http", "", "", ""))?;
    let status = if s3d.credentials().region == "us-east-1" { 200 } else { 409 };
    again.expect(status)?;
    let elsewhere =
        "<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>";
    s3.call(s3.request("PUT", "european", "", "", elsewhere))?.expect(200)?;
    for document in [elsewhere, ""] {
        let refusal = s3.call(s3.request("PUT", "european", "", "", document))?.expect(409)?;
        ensure!(refusal.code() == "BucketAlreadyOwnedByYou", "{}", refusal.text());
    }
    let listed =
        s3.call(Request::new("GET", "/?prefix=eur", "").header("Host", s3.endpoint.authority()))?.expect(200)?;
    ensure!(element(&listed.text(), "BucketRegion").as_deref() == Some("eu-west-1"), "{}", listed.text());
    Ok(())
}

fn begin_upload(s3: &mut S3, key: &str, headers: &[(&str, &str)]) -> Result<String> {
    let request = s3.request("POST", "http", key, "uploads", "");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(name, *value));
    element(&s3.call(request)?.expect(200)?.text(), "UploadId").context("no UploadId")
}

/// UploadPart; its answer.
fn put_part(s3: &mut S3, key: &str, upload: &str, number: u32, bytes: Vec<u8>) -> Result<Response> {
    let query = format!("partNumber={number}&uploadId={upload}");
    s3.call(s3.request("PUT", "http", key, &query, bytes))?.expect(200)
}

fn complete(s3: &mut S3, key: &str, upload: &str, parts: &str) -> Result<Response> {
    let list = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    s3.call(s3.request("POST", "http", key, &format!("uploadId={upload}"), list))
}

fn checksums_of(answer: &Response) -> Vec<String> {
    let names = answer.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
    names.filter(|name| name.starts_with("x-amz-checksum-") && name != "x-amz-checksum-type").collect()
}

#[test]
fn parts_and_their_checksums() -> Result<()> {
    let (_s3d, mut s3) = bucket()?;
    let bodies = [body(1, 5 * MIB), body(2, 100)];
    let upload = begin_upload(&mut s3, "parts", &[("x-amz-checksum-algorithm", "CRC32C")])?;
    let (mut with, mut without) = (String::new(), String::new());
    for (number, bytes) in (1..).zip(&bodies) {
        let answer = put_part(&mut s3, "parts", &upload, number, bytes.clone())?;
        ensure!(answer.get("x-amz-checksum-crc32c") == Some(&crc32c(bytes)), "{:?}", answer.headers);
        let etag = answer.get("etag").context("no ETag")?;
        let part = format!("<PartNumber>{number}</PartNumber><ETag>{etag}</ETag>");
        with.push_str(&format!("<Part>{part}<ChecksumCRC32C>{}</ChecksumCRC32C></Part>", crc32c(bytes)));
        without.push_str(&format!("<Part>{part}</Part>"));
    }
    let refusal = complete(&mut s3, "parts", &upload, &without)?.expect(400)?;
    ensure!(refusal.code() == "InvalidRequest", "{}", refusal.text());
    ensure!(refusal.text().contains("crc32c checksum") && refusal.text().contains("part 1 "), "{}", refusal.text());
    let done = complete(&mut s3, "parts", &upload, &with)?.expect(200)?;
    let url = format!("http://{}/http/parts", s3.endpoint.authority());
    ensure!(element(&done.text(), "Location") == Some(url), "{}", done.text());

    // A part's own checksum, and the number of parts only where one was asked for.
    for (number, bytes) in (1..).zip(&bodies) {
        let read = s3.request("GET", "http", "parts", &format!("partNumber={number}"), "");
        let part = s3.call(read.header("x-amz-checksum-mode", "ENABLED"))?.expect(206)?;
        ensure!(part.body == *bytes && part.get("x-amz-mp-parts-count") == Some("2"), "{:?}", part.headers);
        ensure!(part.get("x-amz-checksum-crc32c") == Some(&crc32c(bytes)), "{:?}", part.headers);
    }
    ensure!(s3.head("http", "parts")?.expect(200)?.get("x-amz-mp-parts-count").is_none(), "parts of a whole");

    // An object in one piece is its own first part.
    let put = s3.request("PUT", "http", "whole", "", "x").header("x-amz-checksum-crc32c", crc32c(b"x"));
    s3.call(put)?.expect(200)?;
    let head = s3.request("HEAD", "http", "whole", "partNumber=1", "").header("x-amz-checksum-mode", "ENABLED");
    let head = s3.call(head)?.expect(206)?;
    ensure!(head.get("x-amz-checksum-crc32c") == Some(&crc32c(b"x")), "{:?}", head.headers);
    ensure!(head.get("x-amz-mp-parts-count").is_none(), "{:?}", head.headers);

    // Where nothing was announced, a part answers the checksum it came with, or S3's own choice.
    let upload = begin_upload(&mut s3, "unannounced", &[])?;
    let query = format!("partNumber=1&uploadId={upload}");
    let part = s3.request("PUT", "http", "unannounced", &query, "x").header("x-amz-checksum-crc32c", crc32c(b"x"));
    ensure!(checksums_of(&s3.call(part)?.expect(200)?) == ["x-amz-checksum-crc32c"]);
    let part = put_part(&mut s3, "unannounced", &upload, 2, b"x".to_vec())?;
    ensure!(checksums_of(&part) == ["x-amz-checksum-crc64nvme"], "{:?}", part.headers);
    Ok(())
}

#[test]
fn what_cannot_be_done_is_not_said_to_be() -> Result<()> {
    let (_s3d, mut s3) = bucket()?;
    s3.put("http", "key", "x")?.expect(200)?;
    let upload = begin_upload(&mut s3, "upload", &[])?;
    let part = format!("partNumber=1&uploadId={upload}");
    let customer = ("x-amz-server-side-encryption-customer-algorithm", "AES256");
    let of_source = ("x-amz-copy-source-server-side-encryption-customer-algorithm", "AES256");
    let cases = [
        ("GET", "key", "", customer, 501, ""),
        ("HEAD", "key", "", customer, 501, ""),
        ("PUT", "upload", part.as_str(), customer, 501, ""),
        ("PUT", "key", "", of_source, 501, ""),
        ("PUT", "key", "", ("x-amz-storage-class", "GLACIER"), 400, "InvalidStorageClass"),
        ("POST", "key", "uploads", ("x-amz-storage-class", "DEEP_ARCHIVE"), 400, "InvalidStorageClass"),
        ("PUT", "key", "versionId=null", ("x-amz-copy-source", "http/key"), 400, "InvalidArgument"),
        ("PUT", "key", "versionId=null", ("x-amz-meta-a", "b"), 400, "InvalidArgument"),
        ("POST", "key", "uploads&versionId=null", ("x-amz-meta-a", "b"), 400, "InvalidArgument"),
    ];
    for (method, key, query, (name, value), status, code) in cases {
        let answer = s3.call(s3.request(method, "http", key, query, "").header(name, value))?;
        let answer = answer.expect(status).with_context(|| format!("{method} {key}?{query} {name}: {value}"))?;
        ensure!(code.is_empty() || answer.code() == code, "{name}: {value}: {}", answer.text());
    }
    s3.expect_body("http", "key", b"x")
}

#[test]
fn unset_sub_resources_have_their_own_404() -> Result<()> {
    let (_s3d, mut s3) = bucket()?;
    let codes = [
        ("tagging", "NoSuchTagSet"),
        ("lifecycle", "NoSuchLifecycleConfiguration"),
        ("policy", "NoSuchBucketPolicy"),
        ("cors", "NoSuchCORSConfiguration"),
        ("encryption", "ServerSideEncryptionConfigurationNotFoundError"),
        ("object-lock", "ObjectLockConfigurationNotFoundError"),
    ];
    for (query, code) in codes {
        let answer = s3.call(s3.request("GET", "http", "", query, ""))?.expect(404).context(query)?;
        ensure!(answer.code() == code, "{query}: {}", answer.text());
    }
    s3.call(s3.request("GET", "missing", "", "tagging", ""))?.expect(404)?;
    Ok(())
}

#[test]
fn a_put_needs_a_length() -> Result<()> {
    let (s3d, s3) = bucket()?;
    let head = |request: Request, framing: &str| -> Result<Vec<u8>> {
        let mut request = request;
        s3.signer.sign_as(&mut request, UNSIGNED_PAYLOAD);
        let text = String::from_utf8(request.head())?;
        Ok(text.replace("Content-Length: 0\r\n", framing).into_bytes())
    };
    let send = |bytes: &[u8]| -> Result<Response> {
        let mut connection = s3d.endpoint()?.connect()?;
        connection.write(bytes)?;
        connection.response("PUT")
    };
    let object = s3.request("PUT", "http", "lengthless", "", "");
    let answer = send(&head(object.clone(), "")?)?.expect(411)?;
    ensure!(answer.code() == "MissingContentLength", "{}", answer.text());
    let mut chunked = head(object, "Transfer-Encoding: chunked\r\n")?;
    chunked.extend(b"3\r\nabc\r\n0\r\n\r\n");
    let answer = send(&chunked)?.expect(411)?;
    ensure!(answer.code() == "MissingContentLength", "{}", answer.text());
    send(&head(s3.request("PUT", "created", "", "", ""), "")?)?.expect(200).context("CreateBucket without a length")?;
    send(&head(s3.request("POST", "http", "key", "uploads", ""), "")?)?.expect(200).context("CreateMultipartUpload")?;
    send(&head(s3.request("PUT", "http", "empty", "", ""), "Content-Length: 0\r\n")?)?.expect(200)?;
    s3d.s3()?.head("http", "lengthless")?.expect(404).map(drop)
}

fn crc32c(data: &[u8]) -> String {
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data) as u32;
    base64::engine::general_purpose::STANDARD.encode(sum.to_be_bytes())
}

fn chunked_put(s3: &S3, key: &str, len: usize, payload_hash: &str) -> Request {
    let mut request = s3.request("PUT", "http", key, "", "").header("Content-Encoding", "aws-chunked,gzip");
    request.set("x-amz-decoded-content-length", len.to_string());
    if payload_hash != SIGNED_CHUNKS {
        request.set("x-amz-trailer", "x-amz-checksum-crc32c");
    }
    request
}

#[test]
fn aws_chunked_bodies_in_chunks_of_any_size() -> Result<()> {
    let (_s3d, mut s3) = bucket()?;
    let cases = [
        (0, 1),
        (1, 1),
        (10, 3),
        (8192, 8192),
        (8193, 8192),
        (100_000, 1000),
        (300_000, 65_536),
        (3 * MIB, 3 * MIB),
        (2 * MIB + 7, 262_144),
    ];
    for (len, chunk) in cases {
        for hash in [SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER, UNSIGNED_CHUNKS_TRAILER] {
            let bytes = body(len as u64, len);
            let key = format!("chunked-{len}-{chunk}-{hash}");
            let mut request = chunked_put(&s3, &key, len, hash);
            let mut signer = s3.signer.sign_as(&mut request, hash);
            let framed = &mut request.body;
            for piece in bytes.chunks(chunk).chain([&[][..]]) {
                if hash == UNSIGNED_CHUNKS_TRAILER {
                    framed.extend(format!("{:x}\r\n", piece.len()).bytes());
                    framed.extend(piece);
                    framed.extend(if piece.is_empty() { &b""[..] } else { b"\r\n" });
                } else {
                    framed.extend(signer.chunk(piece));
                }
            }
            match hash {
                SIGNED_CHUNKS => framed.extend(b"\r\n"),
                SIGNED_CHUNKS_TRAILER => framed.extend(signer.trailer("x-amz-checksum-crc32c", &crc32c(&bytes))),
                _ => framed.extend(format!("x-amz-checksum-crc32c:{}\r\n\r\n", crc32c(&bytes)).bytes()),
            }
            s3.send(&request)?.expect(200).with_context(|| key.clone())?;
            let got = get_with(&mut s3, &key, "x-amz-checksum-mode", "ENABLED")?.expect(200)?;
            ensure!(got.body == bytes, "{key} differs");
            ensure!(got.get("content-encoding") == Some("gzip"), "{key}: {:?}", got.headers);
            if hash != SIGNED_CHUNKS {
                ensure!(got.get("x-amz-checksum-crc32c") == Some(&crc32c(&bytes)), "{key}: {:?}", got.headers);
            }
        }
    }
    Ok(())
}

#[test]
fn presigned_requests_need_no_headers() -> Result<()> {
    let (s3d, s3) = bucket()?;
    let mut connection = s3d.endpoint()?.connect()?;
    for expires in ["1", "604800"] {
        let mut put = s3.request("PUT", "http", "pre signed/ä", "", "presigned");
        s3.signer.presign(&mut put, expires);
        // "1" may have expired when it arrives on a slow machine.
        let status = connection.call(&put)?.status;
        ensure!(status == 200 || (expires == "1" && status == 403), "{status}");
    }
    let mut get = s3.request("GET", "http", "pre signed/ä", "response-content-type=text%2Fx", "");
    s3.signer.presign(&mut get, "600");
    let answer = s3d.endpoint()?.connect()?.call(&get)?.expect(200)?;
    ensure!(answer.body == b"presigned" && answer.get("content-type") == Some("text/x"), "{answer:?}");
    Ok(())
}

/// Presigners move `x-amz-*` headers into the query: they are obeyed there, or refused, as headers are.
#[test]
fn presigned_queries_carry_headers() -> Result<()> {
    let (s3d, mut s3) = bucket()?;
    s3.put("http", "source", "of a copy")?.expect(200)?;
    let presigned = |query: &str, body: &str| -> Result<Response> {
        let mut put = s3.request("PUT", "http", "key", query, body);
        s3.signer.presign(&mut put, "600");
        s3d.endpoint()?.connect()?.call(&put)
    };
    // The checksum is that of no bytes, which the SDK for JavaScript signs before it knows the body.
    presigned("x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-meta-colour=green&x-amz-sdk-checksum-algorithm=CRC32", "x")?
        .expect(200)?;
    let head = s3d.s3()?.head("http", "key")?.expect(200)?;
    ensure!(head.get("x-amz-meta-colour") == Some("green"), "{:?}", head.headers);
    for (query, status, code) in [
        ("x-amz-acl=public-read", 400, "AccessControlListNotSupported"),
        ("x-amz-server-side-encryption=AES256", 501, "NotImplemented"),
        ("x-amz-object-lock-legal-hold=ON", 400, "InvalidRequest"),
    ] {
        let refusal = presigned(query, "refused")?.expect(status).context(query)?;
        ensure!(refusal.code() == code, "{query}: {}", refusal.text());
    }
    s3d.s3()?.expect_body("http", "key", b"x")?;
    presigned("x-amz-copy-source=http%2Fsource", "")?.expect(200)?;
    s3d.s3()?.expect_body("http", "key", b"of a copy")
}

/// What keys hold is opaque: nothing is normalised, nothing leaves the bucket.
#[test]
fn awkward_keys_are_kept_as_they_are() -> Result<()> {
    let (_s3d, mut s3) = bucket()?;
    s3.create_bucket("neighbour")?;
    s3.put("neighbour", "key", "mine")?.expect(200)?;
    let long = "k".repeat(1024);
    let slashes = "/".repeat(1024);
    let mut keys = vec![
        "../neighbour/key",
        "..",
        ".",
        "./a",
        "a/..",
        "a/../b",
        "a//b",
        "/a",
        "//",
        "a/",
        "a",
        "a-b",
        "a0",
        "%2e%2e/x",
        "%00",
        " ",
        " a ",
        "a b",
        "a+b",
        "ä",
        "a\u{301}",
        "🦀/🦀",
        "a?b=c&d",
        "#fragment",
        "a%20b",
        "back\\slash",
        "quote\"'",
        "<xml>&amp;",
        "a\tb",
        "a\nb",
        "a\rb",
        "\u{1}",
        "\u{7f}",
        "\u{feff}x",
        "\u{fffd}",
        "a:b*c|d",
        "~!@$^(){}[]=;,",
        long.as_str(),
        slashes.as_str(),
    ];
    for key in &keys {
        s3.put("http", key, format!("holds {key}"))?.expect(200).with_context(|| format!("PUT {key:?}"))?;
    }
    keys.sort();
    for key in &keys {
        s3.expect_body("http", key, format!("holds {key}").as_bytes()).with_context(|| format!("GET {key:?}"))?;
    }
    let listed: Vec<String> = s3.list("http")?.into_iter().map(|row| row.key).collect();
    ensure!(listed == keys, "listed {listed:?}\nexpected {keys:?}");
    for key in &keys {
        s3.delete("http", key)?.expect(204).with_context(|| format!("DELETE {key:?}"))?;
    }
    ensure!(s3.list("http")?.is_empty(), "something is left");
    s3.expect_body("neighbour", "key", b"mine")
}

/// A key cannot end its line in the log and begin another.
#[test]
fn log_lines_cannot_be_forged() -> Result<()> {
    let (mut s3d, mut s3) = bucket()?;
    s3.put("http", "a\nINFO s3: request key=forged\u{1b}[31m status=200", "x")?.expect(200)?;
    s3d.stop()?;
    let log = s3d.log_text();
    ensure!(log.contains("key=forged"), "the key is not in the log: {}", s3d.log_tail());
    ensure!(!log.contains("\u{1b}[31m"), "a raw escape in the log: {log:?}");
    ensure!(!log.lines().any(|line| line.starts_with("INFO s3:")), "a forged line: {log}");
    Ok(())
}
