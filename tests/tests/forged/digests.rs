//! Digests and checksums of something else.

use crate::forger::{Forged, Forger, Generator};

pub(crate) const GENERATORS: &[Generator] = &[md5_mismatch, checksum_mismatch, checksum_contradiction];

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
