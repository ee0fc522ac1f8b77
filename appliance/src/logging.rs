//! Structured lines on stderr.
//!
//! Invariant: no secret is ever logged. Types that hold one have no `Display`, and a `Debug` that hides it; request
//! headers and query strings, which hold signatures, are never fields of an event.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{Config, Log};

/// Starts logging. `log` was judged by [`Config::load`]; called once.
pub(crate) fn start(log: &Log) {
    let filter = EnvFilter::builder().parse_lossy(&log.directives);
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if log.json {
        lines.json().flatten_event(true).init();
    } else {
        lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
}

/// Says once what the configuration asks for and will not get.
pub(crate) fn warn_of_unserved(config: &Config) {
    for bucket in config.buckets.iter().filter(|bucket| bucket.public) {
        tracing::warn!(bucket = bucket.name, "anonymous reads are not available yet: the bucket is served private");
    }
}
