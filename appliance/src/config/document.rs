//! The configuration as it is written: what the merged layers are read into, before it is judged.

use serde::Deserialize;
use std::path::PathBuf;

use super::values::{Secret, Size, Span, Switch, list, optional, scalar};

#[derive(Deserialize)]
pub(crate) struct Document {
    #[serde(deserialize_with = "scalar")]
    pub(crate) version: String,
    #[serde(deserialize_with = "scalar")]
    pub(crate) region: String,
    pub(crate) server: Server,
    pub(crate) storage: Storage,
    #[serde(default)]
    pub(crate) auth: Root,
    /// `[[auth]]`, under a name of its own so that a root key from elsewhere does not replace the list.
    #[serde(default)]
    pub(crate) accounts: Vec<Account>,
    #[serde(default)]
    pub(crate) buckets: Vec<BucketSeed>,
    pub(crate) admin: Admin,
    pub(crate) log: Log,
    #[serde(default)]
    pub(crate) control: Control,
    #[serde(default)]
    pub(crate) mount: Vec<MountSeed>,
    #[serde(default)]
    pub(crate) cluster: Cluster,
    #[serde(default)]
    pub(crate) rs: Rs,
    pub(crate) nats: Nats,
    #[serde(default)]
    pub(crate) db: Vec<Member>,
    #[serde(default)]
    pub(crate) nodes: Vec<Member>,
}

#[derive(Deserialize)]
pub(crate) struct Server {
    #[serde(deserialize_with = "scalar")]
    pub(crate) host: String,
    #[serde(deserialize_with = "scalar")]
    pub(crate) port: u16,
    #[serde(default, deserialize_with = "list")]
    pub(crate) domains: Vec<String>,
    pub(crate) tls: Tls,
    #[serde(deserialize_with = "scalar")]
    pub(crate) header_timeout: Span,
    #[serde(deserialize_with = "scalar")]
    pub(crate) body_timeout: Span,
    #[serde(deserialize_with = "scalar")]
    pub(crate) drain_timeout: Span,
}

#[derive(Deserialize)]
pub(crate) struct Tls {
    #[serde(deserialize_with = "scalar")]
    pub(crate) enabled: Switch,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) cert_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Deserialize)]
pub(crate) struct Storage {
    #[serde(deserialize_with = "scalar")]
    pub(crate) backend: String,
    #[serde(deserialize_with = "scalar")]
    pub(crate) data_dir: PathBuf,
    #[serde(deserialize_with = "scalar")]
    pub(crate) memory_budget: Size,
    #[serde(deserialize_with = "scalar")]
    pub(crate) log_cache: Size,
    #[serde(deserialize_with = "scalar")]
    pub(crate) catalog_cache: Size,
    #[serde(deserialize_with = "scalar")]
    pub(crate) inline_size: Size,
    #[serde(deserialize_with = "scalar")]
    pub(crate) sweep_grace: Span,
    #[serde(deserialize_with = "scalar")]
    pub(crate) repair_grace: Span,
    #[serde(deserialize_with = "scalar")]
    pub(crate) sweep_interval: Span,
    #[serde(deserialize_with = "scalar")]
    pub(crate) scrub_interval: Span,
    #[serde(deserialize_with = "scalar")]
    pub(crate) clean_interval: Span,
    #[serde(deserialize_with = "scalar")]
    pub(crate) session_expiry: Span,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) low_water: Option<Size>,
}

#[derive(Deserialize, Default)]
pub(crate) struct Root {
    #[serde(default, deserialize_with = "optional")]
    pub(crate) access_key: Option<String>,
    pub(crate) secret_key: Option<Secret>,
}

#[derive(Deserialize)]
pub(crate) struct Account {
    #[serde(deserialize_with = "scalar")]
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) account_id: Option<String>,
    pub(crate) policy: Option<Vec<Grant>>,
}

/// Actions allowed on a bucket; both may hold `*`.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Grant {
    /// Bucket's name, or a pattern with `*`.
    pub(crate) bucket: String,
    /// IAM actions, as `s3:GetObject`.
    pub(crate) actions: Vec<String>,
}

/// A bucket to make at start where it is missing.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct BucketSeed {
    /// Name.
    pub(crate) name: String,
    /// Region; the store's where not said.
    pub(crate) region: Option<String>,
    /// Whether anyone may read it.
    #[serde(default)]
    pub(crate) public: bool,
}

/// A mount to make at start.
#[derive(Deserialize)]
pub(crate) struct MountSeed {
    #[serde(deserialize_with = "scalar")]
    pub(crate) bucket: String,
    #[serde(default, deserialize_with = "scalar")]
    pub(crate) prefix: String,
    #[serde(deserialize_with = "scalar")]
    pub(crate) path: PathBuf,
    #[serde(default, deserialize_with = "list")]
    pub(crate) options: Vec<String>,
}

#[derive(Deserialize, Default)]
pub(crate) struct Control {
    #[serde(default, deserialize_with = "optional")]
    pub(crate) socket: Option<PathBuf>,
    #[serde(default, deserialize_with = "list")]
    pub(crate) users: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct Admin {
    #[serde(deserialize_with = "scalar")]
    pub(crate) host: String,
    #[serde(deserialize_with = "scalar")]
    pub(crate) port: u16,
}

#[derive(Deserialize)]
pub(crate) struct Log {
    #[serde(deserialize_with = "scalar")]
    pub(crate) level: String,
    #[serde(deserialize_with = "scalar")]
    pub(crate) format: String,
}

#[derive(Deserialize, Default)]
pub(crate) struct Cluster {
    #[serde(default, deserialize_with = "optional")]
    pub(crate) secret_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) node: Option<u64>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) db_only: Option<Switch>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) db_node: Option<u64>,
    #[serde(default, deserialize_with = "list")]
    pub(crate) seeds: Vec<String>,
}

#[derive(Deserialize, Default)]
pub(crate) struct Rs {
    #[serde(default, deserialize_with = "optional")]
    pub(crate) data: Option<u8>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) parity: Option<u8>,
}

#[derive(Deserialize)]
pub(crate) struct Nats {
    #[serde(default, deserialize_with = "list")]
    pub(crate) url: Vec<String>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) nkey_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) creds_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) ca_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "scalar")]
    pub(crate) prefix: String,
    #[serde(default, deserialize_with = "list")]
    pub(crate) operations: Vec<String>,
    #[serde(deserialize_with = "scalar")]
    pub(crate) trusted: Switch,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) account: Option<String>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) endpoint: Option<String>,
    #[serde(deserialize_with = "scalar")]
    pub(crate) memory_budget: Size,
    #[serde(deserialize_with = "scalar")]
    pub(crate) events: String,
    #[serde(deserialize_with = "scalar")]
    pub(crate) events_subject: String,
    pub(crate) token: Option<Secret>,
    #[serde(deserialize_with = "scalar")]
    pub(crate) iam: Switch,
    #[serde(deserialize_with = "scalar")]
    pub(crate) iam_key_file: PathBuf,
    #[serde(deserialize_with = "scalar")]
    pub(crate) iam_buckets: String,
}

/// An entry of `[[db]]` or `[[nodes]]`; only the latter have zone and capacity.
#[derive(Deserialize)]
pub(crate) struct Member {
    #[serde(deserialize_with = "scalar")]
    pub(crate) id: u64,
    #[serde(deserialize_with = "scalar")]
    pub(crate) host: String,
    #[serde(default, deserialize_with = "scalar")]
    pub(crate) advertise_host: String,
    #[serde(deserialize_with = "scalar")]
    pub(crate) port: u16,
    #[serde(deserialize_with = "scalar")]
    pub(crate) path: PathBuf,
    #[serde(default, deserialize_with = "scalar")]
    pub(crate) zone: String,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) capacity: Option<Size>,
}
