//! The life of a cluster, as decisions: pure functions of what was seen. Who carries them out is in [`crate::object`].
//!
//! - [`map`]: the cluster's map after a change that is asked for, and what the change costs.
//! - [`repair`]: what is to be done about a chunk of which something is missing.
//! - [`moves`]: what is to be done about a chunk that lies elsewhere than it should.
//! - [`pace`]: how fast that goes.
//! - [`load`]: how busy boxes are.

pub mod load;
pub mod map;
pub mod moves;
pub mod pace;
pub mod repair;
