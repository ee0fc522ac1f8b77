//! What the frontend counts: requests and latencies by operation, bytes in and out.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    operation: &'static str,
    status: u16,
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
    cut: Counter<u64, AtomicU64>,
    running: Arc<Gauge>,
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
            cut: Counter::default(),
            running: Arc::default(),
        }
    }
}

impl Metrics {
    /// Adds the counters to `registry`, under `predastore_s3_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("predastore_s3");
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register(
            "request_duration_seconds",
            "From a request's head to its answer's head, or for a GET its last byte",
            self.latency.clone(),
        );
        registry.register("received_bytes", "Body bytes received", self.received.clone());
        registry.register("sent_bytes", "Body bytes sent", self.sent.clone());
        registry.register("cut_responses", "Answers that ended too early because the store failed", self.cut.clone());
        registry.register("running_requests", "Requests in work", (*self.running).clone());
    }

    /// A request begins.
    pub fn begin(&self) {
        self.running.inc();
    }

    /// The body of an answer failed after its head was sent.
    pub fn cut_short(&self) {
        self.cut.inc();
    }

    /// A request has ended.
    pub fn end(&self, operation: &'static str, status: u16, took: Duration, received_bytes: u64, sent_bytes: u64) {
        self.running.dec();
        self.requests.get_or_create(&Request { operation, status }).inc();
        self.latency.get_or_create(&Operation { operation }).observe(took.as_secs_f64());
        self.received.inc_by(received_bytes);
        self.sent.inc_by(sent_bytes);
    }
}
