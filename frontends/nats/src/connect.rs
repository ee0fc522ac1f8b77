//! The settings of a connection to NATS, judged before anything is served; and how it is made and kept.
//!
//! Invariants
//! - What is wrong with the settings is found at the start. That no server answers is nothing wrong: it is tried for ever.
//! - Nothing secret is in an error or in the log; a URL with a password in it is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::metrics::Metrics;
use predastore::object::access::Secret;

/// Messages of one subscription that wait to be looked at, which takes no time; what comes beyond that is dropped.
const UNREAD_MAX: usize = 256;
/// Answers on their way to the connection; at the start the subscriptions, which are fewer.
const UNSENT_MAX: usize = 32;
/// What the connection is called on the server.
const CLIENT_NAME: &str = "predastore";

/// Where the servers are, and who we are to them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `nats://host:port`, `tls://host:port`, or `host:port`.
    pub urls: Vec<String>,
    /// How to log in.
    pub login: Login,
    /// Authorities that may vouch for a server; demands TLS.
    pub ca_file: Option<PathBuf>,
}

/// How to log in.
#[derive(Clone, Debug)]
pub enum Login {
    /// Not at all.
    Nobody,
    /// By a token.
    Token(Secret),
    /// By user and password.
    Password(String, Secret),
    /// By the key whose seed is in this file.
    Nkey(PathBuf),
    /// By JWT and seed in this file, as `nsc` writes it.
    Creds(PathBuf),
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no URL.
    #[error("there is no URL of a NATS server")]
    NoUrl,
    /// It is no URL of a NATS server.
    #[error("`{0}` is no URL of a NATS server: write it as nats://host:4222 or tls://host:4222")]
    Url(String),
    /// It holds user and password, which would be shown.
    #[error("a URL of a NATS server holds a user name: set user and password beside it")]
    UserInUrl,
    /// A file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// No seed of a user's key.
    #[error("{0}: it holds no seed of a user's nkey (SU…)")]
    Seed(PathBuf),
    /// No credentials.
    #[error("{0}: it holds no NATS credentials (a JWT and a seed, as nsc writes them)")]
    Creds(PathBuf),
    /// No certificates.
    #[error("{0}: it holds no certificates in PEM")]
    Certificates(PathBuf),
    /// The client gave up.
    #[error("the NATS client: {0}")]
    Client(String),
}

/// Settings that can work, as far as can be told without a server.
pub struct Connector {
    servers: Vec<ServerAddr>,
    options: ConnectOptions,
}

impl Connector {
    /// Judges `settings`, and reads the files that they name.
    ///
    /// # Errors
    /// What is wrong.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let servers = settings.urls.iter().map(|url| server(url)).collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() {
            return Err(Error::NoUrl);
        }
        let mut options = match &settings.login {
            Login::Nobody => ConnectOptions::new(),
            Login::Token(token) => ConnectOptions::with_token(token.reveal().to_owned()),
            Login::Password(user, password) => {
                ConnectOptions::with_user_and_password(user.clone(), password.reveal().to_owned())
            }
            Login::Nkey(path) => ConnectOptions::with_nkey(seed(path)?),
            Login::Creds(path) => {
                ConnectOptions::with_credentials(&read(path)?).map_err(|_| Error::Creds(path.clone()))?
            }
        };
        if let Some(path) = &settings.ca_file {
            check_certificates(path)?;
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        let options = options
            .name(CLIENT_NAME)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .subscription_capacity(UNREAD_MAX)
            .client_capacity(UNSENT_MAX)
            .connection_timeout(Duration::from_secs(10))
            .ping_interval(Duration::from_secs(20));
        Ok(Connector { servers, options })
    }

    /// Begins to connect, and stays connected for ever; nobody need answer yet.
    ///
    /// # Errors
    /// `Client`.
    pub(crate) async fn connect(self, metrics: Metrics) -> Result<Client, Error> {
        let watch = Arc::new(Watch { metrics, complained: AtomicBool::new(false) });
        let options = self.options.event_callback(move |event| {
            let watch = watch.clone();
            async move { watch.saw(&event) }
        });
        options.connect(self.servers).await.map_err(|error| Error::Client(error.to_string()))
    }
}

/// Tells what becomes of the connection: each change once, however often it is tried meanwhile.
struct Watch {
    metrics: Metrics,
    complained: AtomicBool,
}

impl Watch {
    fn saw(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.complained.store(false, Ordering::Relaxed);
                self.metrics.connected(true);
                tracing::info!("connected to NATS");
            }
            Event::Disconnected => {
                self.metrics.connected(false);
                tracing::warn!("the connection to NATS is lost; it is made again");
            }
            Event::SlowConsumer(_) => {
                self.metrics.lost();
                tracing::warn!("messages from NATS were dropped: too many at once");
            }
            Event::ServerError(error) => {
                self.metrics.told_error();
                self.complain(&error.to_string());
            }
            Event::ClientError(error) => self.complain(&error.to_string()),
            Event::LameDuckMode => tracing::info!("the NATS server is about to shut down"),
            Event::Draining | Event::Closed => self.metrics.connected(false),
        }
    }

    fn complain(&self, error: &str) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            tracing::warn!(error, "NATS; it is tried again, and this is not said again until it has worked");
        }
    }
}

fn server(url: &str) -> Result<ServerAddr, Error> {
    if url.contains('@') {
        return Err(Error::UserInUrl);
    }
    let wrong = || Error::Url(url.to_owned());
    let server: ServerAddr = url.parse().map_err(|_| wrong())?;
    let known = ["nats", "tls"].contains(&server.scheme()) && !server.host().is_empty();
    if known { Ok(server) } else { Err(wrong()) }
}

fn seed(path: &Path) -> Result<String, Error> {
    let text = read(path)?;
    let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU")).unwrap_or_default();
    match nkeys::KeyPair::from_seed(seed) {
        Ok(_) => Ok(seed.to_owned()),
        Err(_) => Err(Error::Seed(path.to_owned())),
    }
}

fn check_certificates(path: &Path) -> Result<(), Error> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(()),
        Ok(_) | Err(_) => Err(Error::Certificates(path.to_owned())),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| Error::Read { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn judged(url: &str, login: Login, ca_file: Option<PathBuf>) -> Option<String> {
        let settings = Settings { urls: vec![url.to_owned()], login, ca_file };
        Connector::new(&settings).err().map(|error| error.to_string())
    }

    #[test]
    fn urls_are_judged() {
        for url in ["nats://localhost:4222", "tls://nats.example.com", "10.0.0.7:4222", "nats.example.com"] {
            assert_eq!(judged(url, Login::Nobody, None), None, "{url}");
        }
        for url in ["", "nats://", "http://localhost", "nats://localhost:99999", "a b"] {
            assert!(judged(url, Login::Nobody, None).unwrap().contains("no URL"), "{url}");
        }
        let shown = judged("nats://me:hunter2@localhost", Login::Nobody, None).unwrap();
        assert!(!shown.contains("hunter2"), "{shown}");
        let none = Settings { urls: Vec::new(), login: Login::Nobody, ca_file: None };
        assert!(matches!(Connector::new(&none), Err(Error::NoUrl)));
    }

    #[test]
    fn files_are_judged() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let user = nkeys::KeyPair::new_user().seed().unwrap();
        let account = nkeys::KeyPair::new_account().seed().unwrap();
        let url = "nats://localhost";
        assert_eq!(judged(url, Login::Nkey(file("good", &format!("{user}\n"))), None), None);
        for (name, text) in [("other", account.as_str()), ("short", &user[..20]), ("empty", "")] {
            let error = judged(url, Login::Nkey(file(name, text)), None).unwrap();
            assert!(error.contains("no seed") && !error.contains(&user[..20]), "{error}");
        }
        assert!(judged(url, Login::Creds(file("creds", &user)), None).unwrap().contains("no NATS credentials"));
        let missing = dir.path().join("missing");
        assert!(judged(url, Login::Creds(missing.clone()), None).unwrap().contains("missing"));
        assert!(judged(url, Login::Nobody, Some(missing)).unwrap().contains("missing"));
        assert!(judged(url, Login::Nobody, Some(file("ca", "hello"))).unwrap().contains("no certificates"));
    }
}
