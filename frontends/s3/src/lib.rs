//! The S3 frontend of Predastore: HTTP, XML and SigV4 on one side, `predastore::object` on the other.
//!
//! The modules below are pure: values in, values out, no I/O, no clock.
//!
//! * [`dates`] the three forms of a time
//! * [`error`] every S3 error, in one table
//! * [`query`] the query string, decoded once

pub mod dates;
pub mod error;
pub mod query;
