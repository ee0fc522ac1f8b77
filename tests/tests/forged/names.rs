//! Names of buckets and keys: paths that climb, escapes that do not decode.

use predastore_tests::http::Request;

use crate::forger::{Forged, Forger, Generator};

pub(crate) const GENERATORS: &[Generator] =
    &[path_out_of_the_bucket, key_that_climbs, escapes, copy_source, bucket_name];

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
    ];
    let source = *forger.rng.choose(&sources);
    let mut request = forger.s3.request("PUT", "attacked", "copied", "", "");
    request.set("x-amz-copy-source", source);
    Forged { what: "a copy source that is none", request: forger.signed(request), refusals: &[(400, ""), (404, "")] }
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
