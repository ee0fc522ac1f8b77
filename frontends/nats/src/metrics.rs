//! What the frontend counts: requests and latencies by operation, bytes in and out, the connection.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use predastore::object::Backlog;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    operation: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

/// The counters; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<Request, Counter>,
    latency: Family<Operation, Histogram, fn() -> Histogram>,
    received: Counter<u64, AtomicU64>,
    sent: Counter<u64, AtomicU64>,
    running: Gauge,
    unanswered: Counter,
    without_reply: Counter,
    lost: Counter,
    connected: Gauge,
    connections: Counter<u64, AtomicU64>,
    server_errors: Counter<u64, AtomicU64>,
    events: Counter<u64, AtomicU64>,
    events_waited: Gauge,
    events_lost: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        // 100 us to about 100 s.
        let buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0001, 2.0, 20));
        Metrics {
            requests: Family::default(),
            latency: Family::new_with_constructor(buckets),
            received: Counter::default(),
            sent: Counter::default(),
            running: Gauge::default(),
            unanswered: Counter::default(),
            without_reply: Counter::default(),
            lost: Counter::default(),
            connected: Gauge::default(),
            connections: Counter::default(),
            server_errors: Counter::default(),
            events: Counter::default(),
            events_waited: Gauge::default(),
            events_lost: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Adds the counters to `registry`, under `predastore_nats_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("predastore_nats");
        registry.register("requests", "Requests answered, by S3's error code or OK", self.requests.clone());
        registry.register("request_duration_seconds", "From a message's arrival to its answer", self.latency.clone());
        registry.register("received_bytes", "Bytes of messages", self.received.clone());
        registry.register("sent_bytes", "Bytes of answers", self.sent.clone());
        registry.register("running_requests", "Requests in work or waiting", self.running.clone());
        registry.register("unanswered", "Answers that could not be sent", self.unanswered.clone());
        registry.register(
            "without_reply",
            "Messages that asked for no answer and were ignored",
            self.without_reply.clone(),
        );
        registry.register(
            "lost_messages",
            "Bursts of messages that were dropped unread: too many at once",
            self.lost.clone(),
        );
        registry.register("connected", "1: connected to a server", self.connected.clone());
        registry.register("connections", "Connections made to a server since the start", self.connections.clone());
        registry.register("server_errors", "Errors that a server told", self.server_errors.clone());
        registry.register("events", "Events sent, again where it was not known that they arrived", self.events.clone());
        registry.register(
            "events_waited_seconds",
            "How long the first event that waits has waited; on the gateway that publishes them",
            self.events_waited.clone(),
        );
        registry.register(
            "events_lost",
            "Events of the store that were not kept, because as many waited as may",
            self.events_lost.clone(),
        );
    }

    pub(crate) fn begin(&self) {
        self.running.inc();
    }

    /// A request was answered. `code`: `OK`, or the error's.
    pub(crate) fn end(&self, operation: &'static str, code: &'static str, took: Duration, bytes: (usize, usize)) {
        self.running.dec();
        self.requests.get_or_create(&Request { operation, code }).inc();
        self.latency.get_or_create(&Operation { operation }).observe(took.as_secs_f64());
        self.received.inc_by(bytes.0 as u64);
        self.sent.inc_by(bytes.1 as u64);
    }

    pub(crate) fn unanswered(&self) {
        self.unanswered.inc();
    }

    pub(crate) fn without_reply(&self) {
        self.without_reply.inc();
    }

    pub(crate) fn lost(&self) {
        self.lost.inc();
    }

    pub(crate) fn told_error(&self) {
        self.server_errors.inc();
    }

    pub(crate) fn server_errors(&self) -> u64 {
        self.server_errors.get()
    }

    pub(crate) fn told(&self) {
        self.events.inc();
    }

    pub(crate) fn backlog(&self, backlog: Backlog) {
        self.events_waited.set(backlog.waited.map_or(0, |waited| i64::try_from(waited.as_secs()).unwrap_or(i64::MAX)));
        self.events_lost.set(i64::try_from(backlog.lost_count).unwrap_or(i64::MAX));
    }

    pub(crate) fn connected(&self, is_connected: bool) {
        self.connected.set(i64::from(is_connected));
        if is_connected {
            self.connections.inc();
        }
    }
}
