//! Signatures in the Authorization header, and what they cover.

use crate::forger::{DENIED, Forged, Forger, Generator, MISMATCH};

const HEX: &[u8] = b"0123456789abcdef";

pub(crate) const GENERATORS: &[Generator] = &[
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
];

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
