//! The configuration: flag over environment over file over default, judged once, before anything is touched.
//!
//! Invariants: a [`Config`] can work as far as can be told without the disk, of which only the cluster's secret is
//! read, or the file that makes a box a member; an unknown key is an error; no error and no `Debug` shows a secret.

pub(crate) mod cluster;
mod document;
pub(crate) mod installed;
mod layers;
pub(crate) mod nats;
pub(crate) mod settings;
mod values;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use predastore::units::{BLOCK_BYTES, MIB};
use tracing_subscriber::EnvFilter;

use crate::derived;
use crate::mounts::configured::Wanted;
use crate::mounts::options::{Daemon, Options, Source, user_id};
use cluster::{Asked, Cluster};
use document::Document;
pub(crate) use document::{BucketSeed, Grant};
use layers::{Given, is_given, obsolete};
use nats::Nats;
use settings::Setting;
pub(crate) use values::{Secret, Size, Span};

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Read {
        path: String,
        #[source]
        error: std::io::Error,
    },
    /// The file is no YAML or TOML.
    #[error("{path}: {what}")]
    Syntax { path: String, what: String },
    /// No setting has this name.
    #[error("{source_name}: unknown key `{key}`{}", suggestion(.nearest))]
    Unknown { source_name: String, key: String, nearest: Option<String> },
    /// A value is wrong in itself.
    #[error("{source_name}: `{key}` {what}")]
    Value { source_name: String, key: String, what: String },
    /// Values that do not go together.
    #[error("{0}")]
    Conflict(String),
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

impl From<figment::Error> for Error {
    /// The first of the errors: mended one by one, each is clear.
    fn from(error: figment::Error) -> Self {
        let source_name = error.metadata.as_ref().map(|m| m.name.to_string()).unwrap_or_else(|| "the file".to_owned());
        let key = key_of(&error.path);
        let what = match &error.kind {
            figment::error::Kind::Message(message) => message.clone(),
            figment::error::Kind::MissingField(field) => format!("lacks `{field}`"),
            // A kind would quote the value, and the value may be a secret.
            figment::error::Kind::InvalidType(_, expected) => format!("must be {expected}"),
            figment::error::Kind::InvalidValue(_, expected) => format!("must be {expected}"),
            other => other.to_string(),
        };
        Error::Value { source_name, key, what }
    }
}

/// `["accounts", "0", "policy"]` as the user wrote it: `auth[0].policy`.
fn key_of(path: &[String]) -> String {
    let mut key = String::new();
    for (depth, part) in path.iter().enumerate() {
        match (depth, part.as_str(), part.parse::<usize>()) {
            (0, "accounts", _) => key.push_str("auth"),
            (0, part, _) => key.push_str(part),
            (_, _, Ok(index)) => key.push_str(&format!("[{index}]")),
            (_, part, _) => key.push_str(&format!(".{part}")),
        }
    }
    key
}

/// How the process is to run.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) region: String,
    pub(crate) server: Server,
    pub(crate) storage: Storage,
    /// Root credentials, where the configuration or the cluster's secret and not the first start made them.
    pub(crate) root: Option<Account>,
    pub(crate) accounts: Vec<Account>,
    pub(crate) buckets: Vec<BucketSeed>,
    /// Admin endpoint; none: off.
    pub(crate) admin: Option<SocketAddr>,
    /// Whether to go on without it where its address is taken: by another process of the cluster, if nobody set a port.
    pub(crate) admin_may_be_taken: bool,
    pub(crate) control: Control,
    /// What the daemon mounts itself.
    pub(crate) mounts: Vec<Wanted>,
    pub(crate) log: Log,
    /// There for the distributed backend only.
    pub(crate) cluster: Option<Cluster>,
    /// None: S3's operations are not served over NATS.
    pub(crate) nats: Option<Nats>,
    /// What the file says and no longer means anything: lines for the log.
    pub(crate) obsolete: Vec<String>,
}

/// The S3 endpoint.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) domains: Vec<String>,
    pub(crate) tls: Tls,
    pub(crate) header_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) drain_timeout: Duration,
}

/// Where the certificate comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Plain HTTP.
    Off,
    /// The store's own authority signs one.
    Own,
    /// Files of the operator's.
    Files { cert: PathBuf, key: PathBuf },
}

/// The store.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) data_dir: PathBuf,
    pub(crate) memory_budget_bytes: u64,
    pub(crate) log_cache_bytes: u64,
    pub(crate) catalog_cache_bytes: u64,
    pub(crate) inline_max_bytes: u64,
    pub(crate) sweep_grace: Duration,
    pub(crate) repair_grace: Duration,
    /// How long a gateway's session may stand still.
    pub(crate) session_expiry: Duration,
    pub(crate) sweep_interval: Duration,
    pub(crate) scrub_interval: Duration,
    pub(crate) clean_interval: Duration,
    /// None: the store decides by the size of the disk.
    pub(crate) low_water_bytes: Option<u64>,
}

/// Who may sign requests.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) access_key: String,
    pub(crate) secret: Secret,
    pub(crate) account_id: String,
    /// None: everything is allowed.
    pub(crate) policy: Option<Vec<Grant>>,
}

/// The control socket.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) socket: PathBuf,
    /// Who may use it beside root and the daemon's own user.
    pub(crate) users: Vec<u32>,
}

/// The log.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) directives: String,
    pub(crate) format: LogFormat,
}

/// Where its lines go, and how they look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogFormat {
    /// For people, on stderr.
    Text,
    /// One object a line, on stderr.
    Json,
    /// To systemd's journal, with fields.
    Journal,
}

impl LogFormat {
    fn named(name: &str) -> Option<LogFormat> {
        match name {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            "journal" => Some(LogFormat::Journal),
            _ => None,
        }
    }
}

/// The account id of root, and of entries that name none.
pub(crate) const ROOT_ACCOUNT_ID: &str = "000000000000";

const MEMORY_BUDGET_MIN_BYTES: u64 = 16 * MIB;

/// A gateway renews its session several times a lifetime, at least once a second.
const SESSION_EXPIRY_MIN: Duration = Duration::from_secs(4);

impl Config {
    /// Reads and judges the configuration that flags, environment and the file they name make together.
    pub(crate) fn load(flags: &[(&'static Setting, String)], env: &[(String, String)]) -> Result<Self, Error> {
        let figment = Given { flags, env }.merged()?;
        let document = figment.extract::<Document>()?;
        let said = Said {
            port: is_given(&figment, "server.port"),
            admin: is_given(&figment, "admin.port"),
            obsolete: obsolete(&figment),
        };
        Config::judge(document, said)
    }

    /// Where this process serves S3, if it does.
    pub(crate) fn gateway(&self) -> Option<SocketAddr> {
        self.cluster.as_ref().map_or(Some(self.server.address), |cluster| cluster.role.gateway)
    }

    fn judge(document: Document, said: Said) -> Result<Self, Error> {
        check_version(&document.version)?;
        let backend = backend(&document)?;
        let admin = match document.admin.port {
            0 => None,
            port => Some(resolve("admin.host", &document.admin.host, port)?),
        };
        let server = server(document.server)?;
        let is_listed = !document.nodes.is_empty() || !document.db.is_empty();
        let joined = match backend {
            Backend::Distributed if is_listed => None,
            Backend::File | Backend::Distributed => Cluster::joined(&document.storage.data_dir, server.address)?,
        };
        let seeds = seeds(&document.cluster.seeds, is_listed && matches!(backend, Backend::Distributed))?;
        let joined = joined.map(|cluster| Cluster { seeds, ..cluster });
        let cluster = match backend {
            _ if joined.is_some() => joined,
            Backend::File => None,
            Backend::Distributed => Some(Cluster::judge(Asked {
                cluster: document.cluster,
                rs: document.rs,
                db: document.db,
                nodes: document.nodes,
                gateway: server.address,
                port_given: said.port,
                admin,
            })?),
        };
        let is_gateway = cluster.as_ref().is_none_or(|cluster| cluster.role.gateway.is_some());
        let configured = cluster.as_ref().filter(|cluster| cluster.member.is_none());
        let derived = || configured.map(|cluster| derived::root(&cluster.secret));
        let config = Config {
            root: root(document.auth)?.or_else(derived),
            server,
            accounts: document.accounts.into_iter().map(account).collect::<Result<_, _>>()?,
            region: document.region,
            buckets: document.buckets,
            admin,
            admin_may_be_taken: cluster.is_some() && !said.admin,
            control: control(document.control, &document.storage.data_dir)?,
            mounts: mounts(document.mount)?,
            nats: nats::judge(document.nats)?.filter(|_| is_gateway),
            obsolete: said.obsolete,
            cluster,
            storage: storage(document.storage)?,
            log: log(document.log)?,
        };
        check_unique(&config)?;
        check_buckets(&config.buckets)?;
        Ok(config)
    }
}

fn conflict<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Error::Conflict(what.into()))
}

fn check_version(version: &str) -> Result<(), Error> {
    match version {
        "1" | "1.0" => Ok(()),
        other => conflict(format!("`version` is {other}, and this program knows 1.0 only")),
    }
}

/// What the layers say, beside values.
struct Said {
    /// Whether any but the defaults says the S3 endpoint's port.
    port: bool,
    /// Likewise the admin endpoint's.
    admin: bool,
    obsolete: Vec<String>,
}

enum Backend {
    File,
    Distributed,
}

fn backend(document: &Document) -> Result<Backend, Error> {
    let cluster = &document.cluster;
    match document.storage.backend.as_str() {
        "file" if cluster.node.is_some() || cluster.db_node.is_some() || cluster.db_only.is_some() => conflict(
            "-node, -db and -db-node (NODE, DB_ONLY, DB_NODE) belong to the distributed backend; this is `file`",
        ),
        "file" => Ok(Backend::File),
        "distributed" => Ok(Backend::Distributed),
        other => conflict(format!("`storage.backend` is `{other}`; it can be `file` or `distributed`")),
    }
}

fn log(log: document::Log) -> Result<Log, Error> {
    let Some(format) = LogFormat::named(&log.format) else {
        return conflict(format!("`log.format` is `{}`; it can be `text`, `json` or `journal`", log.format));
    };
    // A word that is no level would be taken for a module's name and silence everything.
    let word = !log.level.contains(['=', ',']);
    if word && log.level.parse::<tracing_subscriber::filter::LevelFilter>().is_err() {
        return conflict(format!("`log.level` is `{}`; it can be error, warn, info, debug or trace", log.level));
    }
    match EnvFilter::builder().parse(&log.level) {
        Ok(_) => Ok(Log { directives: log.level, format }),
        Err(error) => conflict(format!("`log.level`: {error}")),
    }
}

/// Where boxes that joined look for others.
fn seeds(seeds: &[String], is_listed: bool) -> Result<Vec<String>, Error> {
    if is_listed && !seeds.is_empty() {
        return conflict("`cluster.seeds` is for boxes that joined: this cluster's file says where its nodes are");
    }
    let is_address = |seed: &&String| {
        seed.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    match seeds.iter().find(|seed| !is_address(seed)) {
        Some(seed) => conflict(format!("`cluster.seeds`: `{seed}` is not written as host:port")),
        None => Ok(seeds.to_vec()),
    }
}

fn resolve(key: &str, host: &str, port: u16) -> Result<SocketAddr, Error> {
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let mut addresses = (host, port).to_socket_addrs().into_iter().flatten();
    match addresses.next() {
        Some(address) => Ok(address),
        None => conflict(format!("`{key}`: no address is known for `{host}`")),
    }
}

fn server(server: document::Server) -> Result<Server, Error> {
    if let Some(wrong) = server.domains.iter().find(|domain| !is_domain(domain)) {
        return conflict(format!("`server.domains`: `{wrong}` is no host name"));
    }
    Ok(Server {
        address: resolve("server.host", &server.host, server.port)?,
        domains: server.domains.iter().map(|domain| domain.to_lowercase()).collect(),
        tls: tls(server.tls)?,
        header_timeout: positive("server.header_timeout", server.header_timeout.0)?,
        body_timeout: positive("server.body_timeout", server.body_timeout.0)?,
        drain_timeout: server.drain_timeout.0,
    })
}

fn positive(key: &str, time: Duration) -> Result<Duration, Error> {
    if time.is_zero() { conflict(format!("`{key}` is zero; nothing could ever be in time")) } else { Ok(time) }
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn tls(tls: document::Tls) -> Result<Tls, Error> {
    match (tls.enabled.0, tls.cert_file, tls.key_file) {
        (false, _, _) => Ok(Tls::Off),
        (true, None, None) => Ok(Tls::Own),
        (true, Some(cert), Some(key)) => Ok(Tls::Files { cert, key }),
        (true, Some(_), None) => conflict("`server.tls.cert_file` is set without `server.tls.key_file`"),
        (true, None, Some(_)) => conflict("`server.tls.key_file` is set without `server.tls.cert_file`"),
    }
}

fn storage(storage: document::Storage) -> Result<Storage, Error> {
    if storage.data_dir.as_os_str().is_empty() {
        return conflict("`storage.data_dir` is empty");
    }
    if storage.memory_budget.0 < MEMORY_BUDGET_MIN_BYTES {
        return conflict(format!("`storage.memory_budget` is below {}", Size(MEMORY_BUDGET_MIN_BYTES)));
    }
    if storage.inline_size.0 > BLOCK_BYTES {
        return conflict(format!("`storage.inline_size` is above {}", Size(BLOCK_BYTES)));
    }
    if storage.session_expiry.0 < SESSION_EXPIRY_MIN {
        return conflict(format!("`storage.session_expiry` is below {} s", SESSION_EXPIRY_MIN.as_secs()));
    }
    Ok(Storage {
        data_dir: storage.data_dir,
        memory_budget_bytes: storage.memory_budget.0,
        log_cache_bytes: storage.log_cache.0,
        catalog_cache_bytes: storage.catalog_cache.0,
        inline_max_bytes: storage.inline_size.0,
        sweep_grace: storage.sweep_grace.0,
        repair_grace: storage.repair_grace.0,
        sweep_interval: positive("storage.sweep_interval", storage.sweep_interval.0)?,
        scrub_interval: positive("storage.scrub_interval", storage.scrub_interval.0)?,
        clean_interval: positive("storage.clean_interval", storage.clean_interval.0)?,
        session_expiry: storage.session_expiry.0,
        low_water_bytes: storage.low_water.map(|size| size.0),
    })
}

/// Where a daemon with this configuration has its control socket; nothing else of the configuration is judged, for who
/// speaks to a daemon need not be able to run it.
///
/// # Errors
/// The file cannot be read or is wrong.
pub(crate) fn control_socket(flags: &[(&'static Setting, String)], env: &[(String, String)]) -> Result<PathBuf, Error> {
    let figment = Given { flags, env }.merged()?;
    let data_dir = figment.extract_inner::<PathBuf>("storage.data_dir")?;
    match figment.contains("control.socket") {
        true => Ok(figment.extract_inner("control.socket")?),
        false => Ok(default_socket(&data_dir)),
    }
}

/// Where its daemon has its socket: systemd makes the directory.
const INSTALLED_SOCKET: &str = "/run/predastore/control.sock";

fn default_socket(data_dir: &Path) -> PathBuf {
    if data_dir == Path::new(installed::DATA_DIR) {
        return INSTALLED_SOCKET.into();
    }
    data_dir.join("control.sock")
}

fn control(control: document::Control, data_dir: &Path) -> Result<Control, Error> {
    let id = |name: &String| {
        user_id(name).ok_or_else(|| Error::Conflict(format!("`control.users`: there is no user `{name}`")))
    };
    Ok(Control {
        socket: control.socket.unwrap_or_else(|| default_socket(data_dir)),
        users: control.users.iter().map(id).collect::<Result<_, _>>()?,
    })
}

fn mounts(seeds: Vec<document::MountSeed>) -> Result<Vec<Wanted>, Error> {
    let mut mounts: Vec<Wanted> = Vec::new();
    for (index, seed) in seeds.into_iter().enumerate() {
        let wrong = |what: String| Error::Conflict(format!("`mount[{index}]`: {what}"));
        if predastore_s3::names::check_bucket_name(&seed.bucket).is_err() {
            return Err(wrong(format!("`{}` is no bucket name", seed.bucket)));
        }
        if !seed.path.is_absolute() {
            return Err(wrong(format!("`path` is `{}`, which is no absolute path", seed.path.display())));
        }
        if mounts.iter().any(|earlier| earlier.path == seed.path) {
            return Err(wrong(format!("`{}` is there twice", seed.path.display())));
        }
        let words = seed.options.iter().map(String::as_str);
        let options = Options::parse(words, false).map_err(|error| wrong(error.to_string()))?;
        if options.daemon != Daemon::default() {
            return Err(wrong("config=, data-dir= and control= are for fstab: this daemon serves it".to_owned()));
        }
        let source = format!("{}/{}", seed.bucket, seed.prefix);
        let source = source.parse::<Source>().map_err(|error| wrong(error.to_string()))?;
        mounts.push(Wanted { source, path: seed.path, options });
    }
    Ok(mounts)
}

fn root(root: document::Root) -> Result<Option<Account>, Error> {
    let (access_key, secret) = match (root.access_key, root.secret_key) {
        (None, None) => return Ok(None),
        (Some(access_key), Some(secret)) => (access_key, secret),
        (Some(_), None) => return conflict("`auth.access_key` is set without `auth.secret_key`"),
        (None, Some(_)) => return conflict("`auth.secret_key` is set without `auth.access_key`"),
    };
    check_keys("auth", &access_key, &secret)?;
    Ok(Some(Account { access_key, secret, account_id: ROOT_ACCOUNT_ID.to_owned(), policy: None }))
}

fn account(account: document::Account) -> Result<Account, Error> {
    check_keys("[[auth]]", &account.access_key_id, &account.secret_access_key)?;
    Ok(Account {
        access_key: account.access_key_id,
        secret: account.secret_access_key,
        account_id: account.account_id.unwrap_or_else(|| ROOT_ACCOUNT_ID.to_owned()),
        policy: account.policy,
    })
}

/// The lengths that AWS's own API allows for access keys, and a floor for secrets.
fn check_keys(section: &str, access_key: &str, secret: &Secret) -> Result<(), Error> {
    let plain = access_key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !plain || !(3..=128).contains(&access_key.len()) {
        return conflict(format!("`{section}`: an access key is 3 to 128 letters, digits, `-`, `_` or `.`"));
    }
    if secret.reveal().len() < 8 {
        return conflict(format!("`{section}`: the secret of `{access_key}` is shorter than 8 characters"));
    }
    Ok(())
}

fn check_unique(config: &Config) -> Result<(), Error> {
    let mut keys: Vec<&str> = config.accounts.iter().chain(&config.root).map(|a| a.access_key.as_str()).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => conflict(format!("the access key `{}` is there twice", pair[0])),
        None => Ok(()),
    }
}

/// A bucket with a name that no request can say could never be removed again.
fn check_buckets(buckets: &[BucketSeed]) -> Result<(), Error> {
    for (index, bucket) in buckets.iter().enumerate() {
        if predastore_s3::names::check_bucket_name(&bucket.name).is_err() {
            return conflict(format!("`buckets[{index}].name`: `{}` is no bucket name", bucket.name));
        }
        if buckets[..index].iter().any(|earlier| earlier.name == bucket.name) {
            return conflict(format!("`buckets[{index}].name`: `{}` is there twice", bucket.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
