//! Structured lines on stderr, or in the journal.
//!
//! Invariants
//! - No request waits for whoever reads stderr: lines below WARN go through a queue and a thread. Were the reader to
//!   fall that far behind, lines would be dropped. Warnings and errors are written at once: they may be the last.
//! - No secret is ever logged. Types that hold one have no `Display`, and a `Debug` that hides it; request
//!   headers and query strings, which hold signatures, are never fields of an event.

use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::MakeWriterExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Lines that wait for the thread; more are dropped.
const QUEUE_LINES: usize = 16 << 10;

/// Starts logging. `log` was judged by the configuration; called once. What is queued is written when the guard goes.
pub(crate) fn start(log: &Log) -> WorkerGuard {
    let filter = EnvFilter::builder().parse_lossy(directives(&log.directives));
    let queue = NonBlockingBuilder::default().buffered_lines_limit(QUEUE_LINES).thread_name("log-lines");
    let (queue, guard) = queue.finish(std::io::stderr());
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr.with_max_level(Level::WARN).or_else(queue));
    match log.format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Journal if to_journal(log) => {}
        LogFormat::Journal | LogFormat::Text => {
            lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
        }
    }
    guard
}

/// Sends events to the journal, fields as `PREDASTORE_BUCKET=`. False: there is none.
fn to_journal(log: &Log) -> bool {
    let Ok(journal) = tracing_journald::layer() else { return false };
    let filter = EnvFilter::builder().parse_lossy(directives(&log.directives));
    tracing_subscriber::registry().with(filter).with(journal.with_field_prefix(Some("PREDASTORE".to_owned()))).init();
    true
}

/// Libraries that are heard only if they fail.
const QUIET: &str = "openraft=error,async_nats=error";

/// A level alone is meant for this program: Raft tells its inner life, and warns of what is no trouble (each start
/// of a sole voter, say), the NATS client tells each attempt to connect; only who names them wants that.
fn directives(asked: &str) -> String {
    match asked.parse::<LevelFilter>() {
        Ok(level) if level > LevelFilter::ERROR => format!("{asked},{QUIET}"),
        _ => asked.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_they_are_named() {
        let quiet = |level: &str| format!("{level},{QUIET}");
        let named = "info,openraft=debug";
        let cases = [("info", quiet("info")), ("trace", quiet("trace")), ("error", "error".to_owned())];
        for (asked, used) in cases.into_iter().chain([(named, named.to_owned())]) {
            assert_eq!(directives(asked), used);
        }
    }
}
