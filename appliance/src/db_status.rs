//! What a db node answers over HTTPS, on the TCP port whose number its peers dial over UDP: `/health`, `/status`. No
//! authentication: there is nothing in it but how Raft stands. Where boxes join, that is asked here, too (`join::host`).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use predastore_s3::server::{self, Limits};
use rustls::ServerConfig;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Small answers to few clients; a browser left open must not keep a shutdown waiting.
const LIMITS: Limits = Limits {
    handshake: Duration::from_secs(10),
    headers: Duration::from_secs(30),
    stall: Duration::from_secs(10),
    drain: Duration::from_secs(1),
    connection_count: 64,
};

/// What a db node is to Raft.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RaftState {
    /// It leads.
    Leader,
    /// It votes, and knows of a leader or waits for one.
    Follower,
    /// It asks to be elected.
    Candidate,
    /// It has no vote.
    Learner,
}

/// How a db node stands at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DbStatus {
    pub(crate) node_id: u64,
    pub(crate) state: RaftState,
    /// Who leads, as far as it knows.
    pub(crate) leader: Option<u64>,
    /// Where that one is dialled: "host:port".
    pub(crate) leader_addr: Option<String>,
    pub(crate) term: u64,
    /// The last entry known to be committed; 0: none.
    pub(crate) commit_index: u64,
    /// The last entry applied to the catalog; 0: none.
    pub(crate) applied_index: u64,
    /// Whether it takes part: it is not being stopped, and its log has lost nothing.
    pub(crate) serving: bool,
}

impl DbStatus {
    fn is_healthy(&self) -> bool {
        self.serving && self.leader.is_some()
    }

    /// These names and no others: programs that watch a cluster read them.
    fn json(&self) -> Value {
        json!({
            "node_id": self.node_id,
            "state": self.state,
            "leader": self.leader,
            "leader_addr": self.leader_addr,
            "term": self.term,
            "commit_index": self.commit_index,
            "applied_index": self.applied_index,
            "is_leader": self.state == RaftState::Leader,
        })
    }
}

/// Says how the db node stands, whenever asked; must not block.
pub(crate) type StatusSource = Arc<dyn Fn() -> DbStatus + Send + Sync>;

/// Serves `listener` until `stop`. `tls`: of [`crate::tls::server_config`]; `more`: what else is answered there.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: ServerConfig,
    source: StatusSource,
    more: Router,
    stop: CancellationToken,
) {
    let router = Router::new().route("/health", get(health)).route("/status", get(status)).with_state(source);
    let router = router.merge(more);
    server::serve(listener, Some(Arc::new(tls)), router, LIMITS, stop.cancelled()).await;
}

async fn health(State(source): State<StatusSource>) -> Response {
    let (code, word) = match source().is_healthy() {
        true => (StatusCode::OK, "healthy"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    answer(code, &json!({ "status": word }))
}

async fn status(State(source): State<StatusSource>) -> Response {
    answer(StatusCode::OK, &source().json())
}

fn answer(code: StatusCode, body: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;
    use crate::identity::Identity;
    use crate::tls::{Certificate, server_config};
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, RootCertStore};
    use std::net::SocketAddr;
    use std::path::Path;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;

    fn follower() -> DbStatus {
        DbStatus {
            node_id: 2,
            state: RaftState::Follower,
            leader: Some(1),
            leader_addr: Some("10.0.0.1:6660".to_owned()),
            term: 7,
            commit_index: 41,
            applied_index: 40,
            serving: true,
        }
    }

    /// Status code and body of `GET path`, by a client that trusts `ca_file` alone.
    async fn get(address: SocketAddr, ca_file: &Path, path: &str) -> (u16, Value) {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca_file).unwrap()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(address.ip().to_string()).unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: db\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
    }

    #[tokio::test]
    async fn health_and_status_are_answered_over_tls() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::of_box(dir.path());
        let certificate = Certificate::load(&Config::load(&[], &[]).unwrap(), &identity).unwrap();
        let tls = server_config(Arc::new(certificate)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let now = Arc::new(Mutex::new(follower()));
        let shown = Arc::clone(&now);
        let source: StatusSource = Arc::new(move || shown.lock().unwrap().clone());
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, tls, source, Router::new(), stop.clone()));
        let ask = async |path: &str| get(address, &identity.ca_file(), path).await;

        let expected = json!({
            "node_id": 2, "state": "follower", "leader": 1, "leader_addr": "10.0.0.1:6660", "term": 7,
            "commit_index": 41, "applied_index": 40, "is_leader": false,
        });
        assert_eq!(ask("/status").await, (200, expected));
        assert_eq!(ask("/health").await, (200, json!({ "status": "healthy" })));
        assert_eq!(ask("/elsewhere").await.0, 404);

        *now.lock().unwrap() = DbStatus { leader: None, leader_addr: None, state: RaftState::Candidate, ..follower() };
        assert_eq!(ask("/health").await, (503, json!({ "status": "unavailable" })));
        let (code, status) = ask("/status").await;
        assert_eq!((code, &status["leader"], &status["leader_addr"]), (200, &Value::Null, &Value::Null));

        *now.lock().unwrap() = DbStatus { serving: false, ..follower() };
        assert_eq!(ask("/health").await.0, 503);
        stop.cancel();
        served.await.unwrap();
    }

    #[test]
    fn states_have_the_names_that_others_read() {
        let states = [RaftState::Leader, RaftState::Follower, RaftState::Candidate, RaftState::Learner];
        let names = states.map(|state| DbStatus { state, ..follower() }.json()["state"].clone());
        assert_eq!(names, ["leader", "follower", "candidate", "learner"]);
        assert_eq!(DbStatus { state: RaftState::Leader, ..follower() }.json()["is_leader"], true);
    }
}
