//! Predastore's object core.
