//! The life of a cluster, as decisions: pure functions of what was seen. Who carries them out is in [`crate::object`].
//!
//! - [`repair`]: what is to be done about a chunk of which something is missing.

pub mod repair;
