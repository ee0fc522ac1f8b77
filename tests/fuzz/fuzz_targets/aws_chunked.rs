//! aws-chunked: how the input is split must not matter.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use predastore_s3::auth::ChunkedBody;
use predastore_s3::auth::chunked::{Decoder, Piece};
use predastore_s3::error::ErrorCode;

type Decoded = Result<(Vec<u8>, Vec<(String, String)>), ErrorCode>;

fn decode(len_bytes: u64, trailers: bool, pieces: impl Iterator<Item = Bytes>) -> Decoded {
    let trailers = trailers.then(|| vec!["x-amz-checksum-crc32".to_owned()]);
    let mut decoder = Decoder::new(ChunkedBody {
        len_bytes,
        signing: None,
        trailers,
    });
    let (mut data, mut end) = (Vec::new(), None);
    for piece in pieces {
        decoder.push(piece);
        while let Some(piece) = decoder.poll().map_err(|error| error.code)? {
            match piece {
                Piece::Data(bytes) => data.extend_from_slice(&bytes),
                Piece::End(found) => assert!(end.replace(found).is_none(), "one end"),
            }
        }
    }
    decoder.finish().map_err(|error| error.code)?;
    Ok((data, end.expect("a finished body has ended")))
}

fuzz_target!(|input: (u8, bool, u8, Vec<u8>)| {
    let (len_bytes, trailers, step, body) = input;
    let step = usize::from(step).max(1);
    let body = Bytes::from(body);
    let whole = decode(len_bytes.into(), trailers, std::iter::once(body.clone()));
    let split = body.chunks(step).map(Bytes::copy_from_slice);
    assert_eq!(whole, decode(len_bytes.into(), trailers, split));
    if let Ok((data, _)) = whole {
        assert_eq!(data.len(), usize::from(len_bytes));
    }
});
