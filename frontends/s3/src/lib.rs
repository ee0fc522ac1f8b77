//! The S3 frontend of Predastore: HTTP, XML and SigV4 on one side, `predastore::object` on the other.
//!
//! From a connection to the store:
//!
//! * [`server`] connections: TLS, limits, deadlines, draining
//! * [`app`] one request from its head to its answer; the only way in
//! * `context` what the conditions of policies are about
//! * [`body`] a request's body as a verified source of bytes
//! * `operations` what each operation does
//! * [`respond`] answers; [`metrics`] what is counted
//!
//! What other frontends say in the same words is in [`predastore_vocabulary`]: errors, names, conditions, ranges, dates. The
//! modules below are pure too: values in, values out, no I/O, no clock.
//!
//! * [`acl`] canned and granted ACLs, owner-only
//! * [`auth`] who sent a request, proven by SigV4, and what its body must hash to; the aws-chunked decoder
//! * [`checksum`] the checksums S3 knows, their headers, Content-MD5
//! * [`cors`] which pages may use a bucket from within a browser
//! * [`hoisted`] headers that a presigner moved into the query
//! * [`listing`] the parameters of the list operations
//! * [`metadata`] what headers say of an object
//! * [`names`] where a request keeps the names of its bucket and its key
//! * [`query`] the query string, decoded once
//! * [`route`] which operation a request asks for, and under which IAM action
//! * [`xml`] reading request bodies and writing responses

pub use predastore_vocabulary::{conditions, dates, error, failure, notification, range};

pub mod acl;
pub mod app;
pub mod auth;
pub mod body;
pub mod checksum;
mod context;
pub mod cors;
pub mod hoisted;
pub mod listing;
pub mod metadata;
pub mod metrics;
pub mod names;
mod operations;
pub mod query;
pub mod respond;
pub mod route;
pub mod server;
pub mod xml;
