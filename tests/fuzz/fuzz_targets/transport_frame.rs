//! The frame of a call or a reply: what decodes is what its encoding gives, and its limits hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use predastore::transport::HEADER_MAX_BYTES;
use predastore::transport::frame::{FRAME_BYTES, Frame};

fuzz_target!(|bytes: [u8; FRAME_BYTES]| {
    if let Ok(frame) = Frame::decode(&bytes) {
        assert_eq!(frame.encode(), Ok(bytes));
        assert!(frame.header_len_bytes as usize <= HEADER_MAX_BYTES);
    }
});
