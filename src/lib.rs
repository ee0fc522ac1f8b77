//! Predastore's object core.

pub mod log;
