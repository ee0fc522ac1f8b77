//! What is too large, or says so.

use predastore_tests::http::Request;
use predastore_tests::sigv4::UNSIGNED_PAYLOAD;

use crate::forger::{Forged, Forger, Generator};

pub(crate) const GENERATORS: &[Generator] = &[oversized, content_length_out_of_range];

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
