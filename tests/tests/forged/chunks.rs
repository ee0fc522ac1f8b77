//! Bodies in aws-chunked framing: forged, reordered, cut off, misframed.

use predastore_tests::http::Request;
use predastore_tests::random::{Rng, body};
use predastore_tests::sigv4::{SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER, UNSIGNED_CHUNKS_TRAILER};

use crate::forger::{Forged, Forger, Generator, MISMATCH};

pub(crate) const GENERATORS: &[Generator] = &[
    chunk_forged,
    trailer_forged,
    chunk_changed,
    chunks_in_other_order,
    chunks_cut,
    chunk_framing,
    unsigned_chunks,
    unsigned_chunks_with_forged_signature,
];

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
