//! The admin endpoint: `/health`, `/status`, `/metrics`. No authentication: it belongs on a loopback address.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::operator::troubles;

/// One figure at one moment: of the process, the catalog, the log, the disk.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Figure {
    /// Name, snake case, unit last: `catalog_wal_bytes`.
    pub(crate) name: &'static str,
    /// One line of what it is.
    pub(crate) help: &'static str,
    /// Its value.
    pub(crate) value: f64,
}

/// Gives figures whenever asked; must not block.
pub(crate) type Figures = Arc<dyn Fn() -> Vec<Figure> + Send + Sync>;

/// Gives the load of each box, in percent, by its number; must not block.
pub(crate) type Loads = Arc<dyn Fn() -> Vec<(u64, u16)> + Send + Sync>;

/// What the admin endpoint shows.
pub(crate) struct Shown {
    /// Fixed facts: version, endpoint, region, backend.
    facts: Map<String, Value>,
    started: Instant,
    draining: AtomicBool,
    figures: Figures,
    loads: Loads,
    metrics: Registry,
}

impl Shown {
    /// `facts`: a JSON object. `figures` and `loads` appear in both `/status` and `/metrics`; `metrics` only in the latter.
    pub(crate) fn new(facts: Map<String, Value>, figures: Figures, loads: Loads, mut metrics: Registry) -> Arc<Self> {
        metrics.register_collector(Box::new(Gauges(figures.clone())));
        metrics.register_collector(Box::new(Gauges(Arc::new(process_figures))));
        metrics.register_collector(Box::new(BoxLoads(loads.clone())));
        Arc::new(Shown { facts, started: Instant::now(), draining: AtomicBool::new(false), figures, loads, metrics })
    }

    /// From now on `/health` says that no more work should come.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn state(&self) -> &'static str {
        if self.draining.load(Ordering::Relaxed) { "draining" } else { "serving" }
    }

    /// What it does, in one line: for systemd.
    pub(crate) fn line(&self) -> String {
        let figures = (self.figures)();
        let figure = |name: &str| figures.iter().find(|figure| figure.name == name).map_or(0.0, |figure| figure.value);
        let endpoint = self.facts.get("endpoint").and_then(Value::as_str).unwrap_or_default();
        let mut line = format!("{} {endpoint}, {} entries applied", self.state(), figure("raft_applied_index"));
        for trouble in troubles(|name| figure(name) as u64) {
            line.push_str("; ");
            line.push_str(&trouble);
        }
        line
    }

    fn status(&self) -> Value {
        let mut status = self.facts.clone();
        status.insert("state".to_owned(), json!(self.state()));
        status.insert("uptime_s".to_owned(), json!(self.started.elapsed().as_secs()));
        status.insert("process".to_owned(), object(process_figures()));
        status.insert("store".to_owned(), object((self.figures)()));
        let loads = (self.loads)();
        if !loads.is_empty() {
            let loads = loads.into_iter().map(|(node, percent)| (node.to_string(), json!(percent)));
            status.insert("load_percent".to_owned(), Value::Object(loads.collect()));
        }
        Value::Object(status)
    }
}

/// The load of each box as a gauge, labelled with its number.
struct BoxLoads(Loads);

impl fmt::Debug for BoxLoads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxLoads")
    }
}

impl Collector for BoxLoads {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let loads = (self.0)();
        if loads.is_empty() {
            return Ok(());
        }
        let help = "Tasks that ran or waited over the last minute, for 100 processors of a box, as it says";
        let mut family = encoder.encode_descriptor("predastore_box_load_percent", help, None, MetricType::Gauge)?;
        for (node, percent) in loads {
            let label = [("box", node.to_string())];
            ConstGauge::new(f64::from(percent)).encode(family.encode_family(&label)?)?;
        }
        Ok(())
    }
}

/// What a daemon does that opens its store, and in a cluster waits for enough others.
pub(crate) const WAITING: &str = "waiting";

/// The admin endpoint from the start of the process on: until there is something to show it says that, and the facts.
pub(crate) struct Window {
    facts: Map<String, Value>,
    started: Instant,
    shown: OnceLock<Arc<Shown>>,
}

impl Window {
    /// `facts`: a JSON object.
    pub(crate) fn new(facts: Map<String, Value>) -> Arc<Self> {
        Arc::new(Window { facts, started: Instant::now(), shown: OnceLock::new() })
    }

    /// Shows this from now on.
    pub(crate) fn open(&self, shown: Arc<Shown>) {
        // It is opened once.
        let _ = self.shown.set(shown);
    }

    fn state(&self) -> &'static str {
        self.shown.get().map_or(WAITING, |shown| shown.state())
    }

    fn status(&self) -> Value {
        if let Some(shown) = self.shown.get() {
            return shown.status();
        }
        let mut status = self.facts.clone();
        status.insert("state".to_owned(), json!(WAITING));
        status.insert("uptime_s".to_owned(), json!(self.started.elapsed().as_secs()));
        Value::Object(status)
    }
}

/// Serves for ever; there is nothing that the end of the process could cut off and that would be missed.
///
/// # Errors
/// The listener failed.
pub(crate) async fn serve(listener: TcpListener, window: Arc<Window>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/health", get(health))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(window);
    axum::serve(listener, router).await
}

async fn health(State(window): State<Arc<Window>>) -> Response {
    let code = if window.state() == "serving" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    typed(code, "application/json", json!({ "status": window.state() }).to_string())
}

async fn status(State(window): State<Arc<Window>>) -> Response {
    typed(StatusCode::OK, "application/json", window.status().to_string())
}

async fn metrics(State(window): State<Arc<Window>>) -> Response {
    let Some(shown) = window.shown.get() else {
        return typed(StatusCode::SERVICE_UNAVAILABLE, "text/plain", WAITING.to_owned());
    };
    let mut text = String::new();
    match encode(&mut text, &shown.metrics) {
        Ok(()) => typed(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text),
        Err(error) => typed(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
    }
}

fn typed(code: StatusCode, content_type: &'static str, body: String) -> Response {
    (code, [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
}

fn object(figures: Vec<Figure>) -> Value {
    // Counts and bytes are whole; 4096.0 would read oddly.
    let number = |value: f64| if value.fract() == 0.0 { json!(value as i64) } else { json!(value) };
    Value::Object(figures.iter().map(|figure| (figure.name.to_owned(), number(figure.value))).collect())
}

/// Figures as Prometheus gauges, `predastore_<name>`, read at each scrape.
struct Gauges(Figures);

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Figure { name, help, value } in (self.0)() {
            let name = format!("predastore_{name}");
            let gauge = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(gauge)?;
        }
        Ok(())
    }
}

/// Memory and descriptors of this process, from procfs; what cannot be read is left out.
fn process_figures() -> Vec<Figure> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    let figures = [
        ("process_resident_bytes", "Memory in use", kib("VmRSS:").map(|kib| kib * 1024.0)),
        ("process_resident_peak_bytes", "Most memory ever in use", kib("VmHWM:").map(|kib| kib * 1024.0)),
        ("process_threads", "Threads", kib("Threads:")),
        ("process_open_descriptors", "Open file descriptors", descriptors),
    ];
    figures.into_iter().filter_map(|(name, help, value)| Some(Figure { name, help, value: value? })).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_status_and_metrics_tell_the_same_story() {
        let mut registry = Registry::default();
        let puts = Counter::<u64>::default();
        registry.register("puts", "PUTs", puts.clone());
        puts.inc_by(3);
        let figures: Figures = Arc::new(|| vec![Figure { name: "log_bytes", help: "Log", value: 4096.0 }]);
        let facts = Map::from_iter([("region".to_owned(), json!("mars"))]);
        let window = Window::new(facts.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, window.clone()));
        for (path, code, text) in [("/health", 503, WAITING), ("/status", 200, "mars"), ("/metrics", 503, WAITING)] {
            let answer = get(address, path).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {code}")) && answer.contains(text), "{path}: {answer}");
        }
        let loads: Loads = Arc::new(|| vec![(1, 5), (2, 250)]);
        let shown = Shown::new(facts, figures, loads, registry);
        window.open(shown.clone());

        assert!(get(address, "/health").await.starts_with("HTTP/1.1 200 OK"));
        let answer = get(address, "/status").await;
        let status: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&status["region"], &status["store"]["log_bytes"]), (&json!("mars"), &json!(4096)));
        assert_eq!(status["load_percent"], json!({"1": 5, "2": 250}));
        assert!(status["process"]["process_resident_bytes"].as_u64().unwrap() > 0);
        let metrics = get(address, "/metrics").await;
        for line in [
            "puts_total 3",
            "predastore_log_bytes 4096.0",
            "# TYPE predastore_process_threads gauge",
            "predastore_box_load_percent{box=\"2\"} 250",
            "# EOF",
        ] {
            assert!(metrics.contains(line), "{metrics}\nlacks {line}");
        }
        assert!(get(address, "/elsewhere").await.starts_with("HTTP/1.1 404"));

        shown.drain();
        let health = get(address, "/health").await;
        assert!(health.starts_with("HTTP/1.1 503") && health.contains("draining"), "{health}");
    }
}
