//! XML in and out.
//!
//! Invariants: a body is bounded in bytes, depth and elements before it is looked at; a DOCTYPE or an entity other
//! than XML's own five is refused, so nothing expands.

pub mod access;
pub mod cors;
pub mod lock;
pub mod notification;
mod reader;
pub mod request;
pub mod response;
pub mod shown;
pub mod simple;
mod writer;

pub use writer::Writer;

/// The namespace of every S3 body.
pub const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// The longest body read as XML: a CompleteMultipartUpload of 10,000 parts with checksums takes some 3 MiB.
pub const BODY_MAX_BYTES: usize = 4 << 20;
