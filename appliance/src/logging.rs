//! Structured lines on stderr.
//!
//! Invariant: no secret is ever logged. Types that hold one have no `Display`, and a `Debug` that hides it; request
//! headers and query strings, which hold signatures, are never fields of an event.

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt;

use crate::config::Log;

/// Starts logging. `log` was judged by the configuration; called once.
pub(crate) fn start(log: &Log) {
    let filter = EnvFilter::builder().parse_lossy(directives(&log.directives));
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if log.json {
        lines.json().flatten_event(true).init();
    } else {
        lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
}

/// A level alone is meant for this program: Raft tells its inner life at `info`, and only who names it wants that.
fn directives(asked: &str) -> String {
    match asked.parse::<LevelFilter>() {
        Ok(level) if level > LevelFilter::WARN => format!("{asked},openraft=warn"),
        _ => asked.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raft_is_quiet_unless_it_is_named() {
        let cases = [("info", "info,openraft=warn"), ("trace", "trace,openraft=warn"), ("error", "error")];
        for (asked, used) in cases.into_iter().chain([("info,openraft=debug", "info,openraft=debug")]) {
            assert_eq!(directives(asked), used);
        }
    }
}
