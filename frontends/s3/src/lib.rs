//! The S3 frontend of Predastore: HTTP, XML and SigV4 on one side, `predastore::object` on the other.
//!
//! The modules below are pure: values in, values out, no I/O, no clock.
//!
//! * [`auth`] who sent a request, proven by SigV4, and what its body must hash to; the aws-chunked decoder
//! * [`checksum`] the checksums S3 knows, their headers, Content-MD5
//! * [`conditions`] If-Match and its kin
//! * [`dates`] the three forms of a time
//! * [`error`] every S3 error, in one table
//! * [`listing`] the parameters of the list operations
//! * [`names`] bucket names, keys, and where a request keeps them
//! * [`query`] the query string, decoded once
//! * [`range`] the Range header
//! * [`route`] which operation a request asks for, and under which IAM action
//! * [`xml`] reading request bodies and writing responses

pub mod auth;
pub mod checksum;
pub mod conditions;
pub mod dates;
pub mod error;
pub mod listing;
pub mod names;
pub mod query;
pub mod range;
pub mod route;
pub mod xml;
