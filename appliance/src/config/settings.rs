//! Every setting, once: its key in the file, its flag, its short environment name, its default and what it does.
//!
//! The command line, the environment, the check for unknown keys and the table in `docs/OPERATIONS.md` are made from
//! [`SETTINGS`]; a new setting is a row here and a field in [`super::document`].

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Key in the file, sections joined by dots; empty for the path of the file itself.
    pub(crate) key: &'static str,
    /// Flag, without dashes.
    pub(crate) flag: Option<&'static str>,
    /// Environment variable beside the one derived from `key`.
    pub(crate) short_env: Option<&'static str>,
    /// Text of the default; empty: none.
    pub(crate) default: &'static str,
    /// What a flag's value is called in `--help`; empty: the flag is a switch.
    pub(crate) value_name: &'static str,
    /// One line for `--help` and the manual.
    pub(crate) about: &'static str,
}

impl Setting {
    /// Its variable in the environment: `server.port` is `PREDASTORE_SERVER_PORT`.
    pub(crate) fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.replace('.', "_").to_uppercase())
    }

    const fn new(key: &'static str, default: &'static str, about: &'static str) -> Self {
        Setting { key, flag: None, short_env: None, default, value_name: "VALUE", about }
    }

    const fn flag(mut self, flag: &'static str, value_name: &'static str) -> Self {
        self.flag = Some(flag);
        self.value_name = value_name;
        self
    }

    const fn short_env(mut self, name: &'static str) -> Self {
        self.short_env = Some(name);
        self
    }
}

/// What the names of our environment variables begin with.
pub(crate) const ENV_PREFIX: &str = "PREDASTORE_";

/// The key of the configuration file's path: known to flags and environment, not to the file.
pub(crate) const CONFIG_KEY: &str = "config";

/// Every setting with a single value, in the order of the manual.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new(CONFIG_KEY, "", "Configuration file, .yaml or .toml; unset: of an installed box /etc/predastore/predastore.toml or .yaml, if there is one").flag("config", "FILE").short_env("CONFIG"),
    Setting::new("version", "1.0", "Version of the configuration's form"),
    Setting::new("region", "us-east-1", "Region the store says it is in, and that signatures name"),
    Setting::new("server.host", "0.0.0.0", "Address the S3 endpoint listens on").flag("host", "ADDRESS"),
    Setting::new(
        "server.port",
        "8443",
        "Port of the S3 endpoint; 0: any free one. A process of a cluster that runs chosen nodes serves S3 only if this is set",
    )
        .flag("port", "PORT")
        .short_env("PORT"),
    Setting::new("server.domains", "", "Host names whose sub-domains are buckets (virtual-host style), by commas"),
    Setting::new("server.tls.enabled", "on", "`off` serves plain HTTP").flag("tls", "on|off"),
    Setting::new("server.tls.cert_file", "", "Certificate chain, PEM; without one the store's own authority signs one")
        .flag("tls-cert", "FILE"),
    Setting::new("server.tls.key_file", "", "Private key of that certificate, PEM").flag("tls-key", "FILE"),
    Setting::new(
        "server.header_timeout",
        "60s",
        "From a connection's start, or the end of an answer, to the end of the next request's head",
    ),
    Setting::new("server.body_timeout", "30s", "Longest silence in the middle of a request or a response"),
    Setting::new("server.drain_timeout", "30s", "At shutdown, how long running requests may go on"),
    Setting::new("storage.backend", "file", "`file`: one box, plain files; `distributed`: several boxes")
        .flag("backend", "NAME")
        .short_env("BACKEND"),
    Setting::new("storage.data_dir", "data", "Directory that holds everything stored (of an installed box /var/lib/predastore); of a cluster's process only certificates").flag("data-dir", "DIR"),
    Setting::new("storage.memory_budget", "256MiB", "Most bytes of bodies held in memory at once"),
    Setting::new("storage.log_cache", "8MiB", "Memory for the newest log records; given back while nothing is written"),
    Setting::new("storage.catalog_cache", "8MiB", "Memory for pages of the catalog, shared evenly by its connections"),
    Setting::new("storage.inline_size", "8KiB", "Objects up to this size live in the catalog; 8KiB at most"),
    Setting::new(
        "storage.sweep_grace",
        "1h",
        "Age at which a file that nothing names goes to quarantine, and time it stays there",
    ),
    Setting::new(
        "storage.sweep_interval",
        "1h",
        "Time between sweeps for files that nothing names; the first is ten seconds after the start",
    ),
    Setting::new(
        "storage.repair_grace",
        "10m",
        "Distributed: how long a shard node may be away before its shards are made anew on others",
    ),
    Setting::new(
        "storage.scrub_interval",
        "24h",
        "Rest between two passes over all that a box or a shard node has, which find silent damage",
    ),
    Setting::new(
        "storage.clean_interval",
        "1m",
        "Distributed: how long a little that is dead on a shard node may wait until its space is given back",
    ),
    Setting::new(
        "storage.session_expiry",
        "60s",
        "Distributed: how long a gateway that is not heard of keeps its locks and what it has open; 4s at least",
    ),
    Setting::new(
        "storage.low_water",
        "",
        "With less free disk than this, new bytes are refused (507); unset: 64MiB, or 1% of the disk if that is more",
    ),
    Setting::new("auth.access_key", "", "Access key of the root account; without one the first start makes it, or the cluster's secret gives it"),
    Setting::new("auth.secret_key", "", "Secret key of the root account"),
    Setting::new("admin.host", "127.0.0.1", "Address of the admin endpoint; it has no authentication")
        .flag("admin-host", "ADDRESS"),
    Setting::new("admin.port", "8444", "Port of the admin endpoint; 0: off").flag("admin-port", "PORT"),
    Setting::new("control.socket", "", "Socket by which `s3d mount` reaches the daemon; unset: /run/predastore/control.sock of an installed box, else `control.sock` in the data directory")
        .flag("control", "FILE"),
    Setting::new("control.users", "", "Users, by name or number, who may use it beside root and the daemon's own; they have all buckets then"),
    Setting::new("log.level", "info", "error, warn, info, debug, trace, or directives as `info,predastore=debug`")
        .flag("log-level", "LEVEL"),
    Setting::new("log.format", "text", "`text` or `json`, one line an event, or `journal`: to systemd's journal, with fields, as a service of systemd's does unless told otherwise").flag("log-format", "FORMAT"),
    Setting::new("cluster.secret_file", "", "Distributed: file with the secret that all nodes share; nobody else may read it"),
    Setting::new("cluster.seeds", "", "Boxes that joined: addresses, host:port by commas, at which to look for others; one that lives is enough"),
    Setting::new("cluster.node", "", "Distributed: run this shard node; without any of these three, all nodes").flag("node", "ID").short_env("NODE"),
    Setting::new("cluster.db_only", "", "Distributed: run a db node and no shard node").flag("db", "").short_env("DB_ONLY"),
    Setting::new("cluster.db_node", "", "Distributed: run this db node")
        .flag("db-node", "ID")
        .short_env("DB_NODE"),
    Setting::new("rs.data", "", "Distributed: data shards of a chunk"),
    Setting::new("rs.parity", "", "Distributed: parity shards of a chunk"),
    Setting::new("nats.url", "", "NATS servers, by commas: nats://host:4222 or tls://host:4222; unset: S3's operations are not served over NATS"),
    Setting::new("nats.user", "", "User by whom to log in to NATS"),
    Setting::new("nats.password", "", "That user's password"),
    Setting::new("nats.token", "", "Token by which to log in to NATS instead"),
    Setting::new("nats.nkey_file", "", "File with the seed of an nkey by which to log in to NATS instead"),
    Setting::new("nats.creds_file", "", "File with a JWT and a seed by which to log in to NATS instead, as nsc writes it"),
    Setting::new("nats.ca_file", "", "Authorities that may vouch for a NATS server, PEM; demands TLS. Unset: those of the system"),
    Setting::new("nats.prefix", "", "Stands before every subject, with a dot"),
    Setting::new("nats.operations", "", "Operations served over NATS, by commas, as `GetObject,HeadObject`; unset: all"),
    Setting::new("nats.trusted", "off", "`on`: requests need no envelope; whoever may publish to the subjects acts as `nats.account`"),
    Setting::new("nats.account", "", "Access key that requests act by where `nats.trusted` is on; unset: root's"),
    Setting::new("nats.endpoint", "", "S3 endpoint that presigned URLs name, as https://s3.example.com:8443; unset: this host by its name"),
    Setting::new("nats.memory_budget", "32MiB", "Most bytes of messages and answers held in memory at once; 8MiB at least"),
    Setting::new("nats.events", "off", "What happens in buckets is published: `jetstream`: until a stream has stored it; `core`: until the server has it; `off`"),
    Setting::new("nats.iam", "off", "`on`: access keys, users and policies that Spinifex keeps in JetStream count here too"),
    Setting::new("nats.iam_key_file", "/etc/spinifex/master.key", "Key that their secrets are sealed under"),
    Setting::new("nats.iam_buckets", "spinifex-iam", "What the names of their buckets begin with"),
    Setting::new("nats.events_subject", "s3.events", "Subject of events, behind `nats.prefix`; the bucket's name comes behind it"),
];

/// Lists of tables that only a file can hold: the key, and the fields of an entry.
pub(crate) const LISTS: &[(&str, &[&str])] = &[
    ("auth", &["access_key_id", "secret_access_key", "account_id", "policy"]),
    ("buckets", &["name", "region", "public", "type", "encryption"]),
    ("mount", &["bucket", "prefix", "path", "options"]),
    (
        "db",
        &["id", "host", "advertise_host", "port", "path", "raft_port", "leader", "access_key_id", "secret_access_key"],
    ),
    ("nodes", &["id", "host", "advertise_host", "port", "path", "zone", "capacity"]),
];

/// Fields of lists that are accepted from older files and mean nothing any more: list, field, and why.
pub(crate) const OBSOLETE: &[(&str, &str, &str)] = &[
    ("db", "raft_port", "Raft is served on the db node's `port`"),
    ("db", "leader", "the db nodes elect their leader"),
    ("db", "access_key_id", "db nodes know each other by the cluster's secret"),
    ("db", "secret_access_key", "db nodes know each other by the cluster's secret"),
    ("buckets", "type", "`storage.backend` says where objects are kept, for all buckets"),
    ("buckets", "encryption", "`storage.backend` says what is encrypted, for all buckets"),
];

/// The fields of an entry of `[[auth]] policy`.
pub(crate) const POLICY_FIELDS: &[&str] = &["bucket", "actions"];

/// The setting with `key`.
pub(crate) fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// Whether `key` is a section: a proper prefix of some setting's key.
pub(crate) fn is_section(key: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// The manual's table of settings.
#[cfg(test)]
pub(crate) fn markdown() -> String {
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    let row = |s: &Setting| {
        let env = s.short_env.map(|name| format!("`{}`, `{name}`", s.env())).unwrap_or_else(|| code(&s.env()));
        let flag = s.flag.map(|flag| format!("`-{flag}`")).unwrap_or_default();
        let key = if s.key == CONFIG_KEY { String::new() } else { code(s.key) };
        format!("| {key} | {env} | {flag} | {} | {} |\n", code(s.default), s.about.replace('|', "\\|"))
    };
    let head = "| key | environment | flag | default | what it does |\n|---|---|---|---|---|\n";
    SETTINGS.iter().map(row).fold(head.to_owned(), |table, row| table + &row)
}
