//! Presigned URLs: expired, changed, incomplete.

use predastore_tests::http::Request;

use crate::forger::{DENIED, Forged, Forger, Generator, MISMATCH};

pub(crate) const GENERATORS: &[Generator] = &[
    presigned_expired,
    presigned_not_yet,
    presigned_expires_badly,
    presigned_changed,
    presigned_lacking,
    presigned_with_unsigned_header,
    signed_twice,
];

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
