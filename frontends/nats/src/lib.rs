//! The NATS frontend of Predastore: S3's operations as request and reply, `predastore::object` on the other side.
//!
//! From a message to its answer:
//!
//! * [`connect`] the settings of a connection, judged before anything is served, and how it is made
//! * [`serve`] subscriptions, and each message from its arrival to its answer; the only way in
//! * [`events`] what happens in buckets, published
//! * [`iam`] access keys that a control plane keeps on the bus
//! * [`limits`] how many requests at once, and how much memory they hold
//! * [`presign`] URLs that are signed in the name of who asks, as the appliance does it
//! * `operations` what each operation does
//! * [`metrics`] what is counted
//!
//! The modules below are pure: values in, values out, no I/O, no clock.
//!
//! * [`envelope`] the header that proves who sent a message; [`nonces`] those that were used
//! * [`subject`] operations and the subjects they are asked by
//! * [`answer`] answers and errors on the wire
//! * `input` the requests' JSON; `shown` objects and times in the answers'

pub mod answer;
pub mod connect;
pub mod envelope;
pub mod events;
pub mod iam;
mod input;
pub mod limits;
pub mod metrics;
pub mod nonces;
mod operations;
pub mod presign;
pub mod serve;
mod shown;
pub mod subject;
