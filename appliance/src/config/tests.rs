#![allow(clippy::unwrap_used)]

use super::settings::{SETTINGS, setting};
use super::*;

/// The settings of issue 3's example, old fields and all.
pub(super) const CLUSTER_TOML: &str = r#"
version = "1.0"
region = "ap-southeast-2"
[cluster]
secret_file = "/etc/predastore/cluster.secret"
[rs]
data = 3
parity = 2
[[db]]
id = 1
host = "127.0.0.1"
advertise_host = ""
port = 6660
raft_port = 6661
leader = true
path = "data/db/node-1/"
[[nodes]]
id = 1
host = "127.0.0.1"
port = 9991
path = "data/nodes/node-1/"
zone = "rack-a"
capacity = "2TB"
[[buckets]]
name = "datastore"
region = "ap-southeast-2"
public = false
type = "distributed"
encryption = ""
[[auth]]
access_key_id = "AKIAIOSFODNN7EXAMPLE"
secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
account_id = "123456789012"
policy = [{ bucket = "datastore", actions = ["s3:ListBucket", "s3:GetObject"] }]
"#;

pub(super) struct Case {
    dir: tempfile::TempDir,
    flags: Vec<(&'static Setting, String)>,
    env: Vec<(String, String)>,
}

impl Case {
    pub(super) fn new() -> Self {
        Case { dir: tempfile::tempdir().unwrap(), flags: Vec::new(), env: Vec::new() }
    }

    pub(super) fn file(mut self, name: &str, text: &str) -> Self {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        self.flags.push((setting("config").unwrap(), path.display().to_string()));
        self
    }

    pub(super) fn flag(mut self, key: &str, value: &str) -> Self {
        self.flags.push((setting(key).unwrap(), value.to_owned()));
        self
    }

    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn load(&self) -> Result<Config, Error> {
        Config::load(&self.flags, &self.env)
    }

    /// Of a file beside the configuration's.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn port(&self) -> u16 {
        self.load().unwrap().server.address.port()
    }

    pub(super) fn error(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

#[test]
fn mounts_are_judged_with_all_else() {
    let load = |text: &str| Case::new().file("c.toml", text).load();
    let config = load(
        "[[mount]]\nbucket = \"photos\"\nprefix = \"a/b/\"\npath = \"/mnt/a\"\noptions = \"ro,allow_other\"\n\
         [[mount]]\nbucket = \"photos\"\npath = \"/mnt/b\"\noptions = [\"uid=7\"]\n",
    );
    let mounts = config.unwrap().mounts;
    assert_eq!((mounts[0].source.to_string().as_str(), mounts[0].options.served.read_only), ("photos/a/b", true));
    assert_eq!((mounts[1].source.to_string().as_str(), mounts[1].options.served.uid), ("photos", Some(7)));
    for (text, expected) in [
        ("bucket = \"photos\"\npath = \"mnt\"", "no absolute path"),
        ("bucket = \"Photos\"\npath = \"/mnt\"", "no bucket name"),
        ("bucket = \"photos\"\npath = \"/mnt\"\noptions = \"what\"", "unknown mount option `what`"),
        ("bucket = \"photos\"\npath = \"/mnt\"\noptions = \"data-dir=/d\"", "for fstab"),
        ("bucket = \"photos\"\npath = \"/mnt\"\n[[mount]]\nbucket = \"p2s\"\npath = \"/mnt\"", "twice"),
        ("bucket = \"photos\"\npath = \"/mnt\"\nfstype = \"x\"", "unknown key `mount[0].fstype`"),
        ("path = \"/mnt\"", "bucket"),
    ] {
        let error = load(&format!("[[mount]]\n{text}\n")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_control_socket_is_found_without_judging_the_rest() {
    let socket = |case: Case| control_socket(&case.flags, &case.env).unwrap();
    assert_eq!(socket(Case::new()), Path::new("data/control.sock"));
    assert_eq!(socket(Case::new().flag("storage.data_dir", "/d")), Path::new("/d/control.sock"));
    assert_eq!(socket(Case::new().env("PREDASTORE_CONTROL_SOCKET", "/run/s")), Path::new("/run/s"));
    // A cluster's file whose secret nobody here may read.
    assert_eq!(socket(Case::new().file("c.toml", CLUSTER_TOML)), Path::new("data/control.sock"));
    let config = Case::new().env("PREDASTORE_CONTROL_USERS", "root,12").load().unwrap();
    assert_eq!((config.control.users, config.control.socket), (vec![0, 12], PathBuf::from("data/control.sock")));
    assert!(Case::new().env("PREDASTORE_CONTROL_USERS", "no such user").load().is_err());
}

#[test]
fn flag_over_full_variable_over_short_variable_over_file_over_default() {
    let case = Case::new();
    assert_eq!(case.port(), 8443);
    let case = case.file("c.yaml", "server: {port: 1001}");
    assert_eq!(case.port(), 1001);
    let case = case.env("PORT", "1002");
    assert_eq!(case.port(), 1002);
    let case = case.env("PREDASTORE_SERVER_PORT", "1003");
    assert_eq!(case.port(), 1003);
    let case = case.flag("server.port", "1004");
    assert_eq!(case.port(), 1004);
}

#[test]
fn every_setting_can_come_from_the_environment() {
    for setting in SETTINGS.iter().filter(|s| s.key != "config") {
        let value = if setting.default.is_empty() { "7" } else { setting.default };
        for name in setting.short_env.map(str::to_owned).into_iter().chain([setting.env()]) {
            let env = [(name.clone(), value.to_owned())];
            let figment = Given { flags: &[], env: &env }.merged().unwrap();
            let found = figment.find_value(setting.key).unwrap();
            assert_eq!(found.as_str(), Some(value), "{name}");
        }
    }
}

#[test]
fn the_file_is_found_by_flag_over_environment() {
    let one = Case::new().file("one.yaml", "region: one");
    let two = Case::new().file("two.toml", "region = 'two'");
    let env = [("CONFIG".to_owned(), two.flags[0].1.clone())];
    assert_eq!(Config::load(&[], &env).unwrap().region, "two");
    assert_eq!(Config::load(&one.flags, &env).unwrap().region, "one");
}

#[test]
fn empty_variables_count_as_absent() {
    assert_eq!(Case::new().env("PORT", "").env("PREDASTORE_SERVER_PORT", "").port(), 8443);
}

#[test]
fn yaml_of_one_box() {
    let text = "
server: {host: 127.0.0.1, port: 9000, domains: [s3.example.com], tls: {cert_file: /c.pem, key_file: /k.pem}}
storage: {backend: file, data_dir: /srv/data, low_water: 1GiB}
auth: {access_key: AKIAONE, secret_key: 'a long secret'}
";
    let config = Case::new().file("c.yml", text).load().unwrap();
    assert_eq!(config.server.address.to_string(), "127.0.0.1:9000");
    assert_eq!(config.server.domains, ["s3.example.com"]);
    assert_eq!(config.server.tls, Tls::Files { cert: "/c.pem".into(), key: "/k.pem".into() });
    assert_eq!(config.storage.data_dir, PathBuf::from("/srv/data"));
    assert_eq!(config.storage.low_water_bytes, Some(1 << 30));
    assert_eq!(config.root.unwrap().secret.reveal(), "a long secret");
}

#[test]
fn a_clusters_file_is_understood_by_one_box() {
    let config = Case::new().file("cluster.toml", CLUSTER_TOML).load().unwrap();
    assert_eq!(config.region, "ap-southeast-2");
    assert_eq!(config.accounts[0].account_id, "123456789012");
    assert_eq!(config.accounts[0].policy.as_ref().unwrap()[0].actions.len(), 2);
    assert_eq!(config.buckets[0].name, "datastore");
    assert!(config.cluster.is_none());
}

#[test]
fn a_root_key_from_the_environment_leaves_the_files_accounts() {
    let case = Case::new()
        .file("cluster.toml", CLUSTER_TOML)
        .env("PREDASTORE_AUTH_ACCESS_KEY", "ROOT")
        .env("PREDASTORE_AUTH_SECRET_KEY", "rootsecret");
    let config = case.load().unwrap();
    assert_eq!((config.accounts.len(), config.root.unwrap().access_key.as_str()), (1, "ROOT"));
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known_one() {
    let cases = [
        ("c.yaml", "server: {prot: 1}", "c.yaml: unknown key `server.prot`; did you mean `server.port`?"),
        ("c.yaml", "sever: {port: 1}", "unknown key `sever`; did you mean `server`?"),
        ("c.yaml", "server: {tls: {cert: x}}", "unknown key `server.tls.cert`; did you mean `server.tls.cert_file`?"),
        ("c.yaml", "zzz: 1", "unknown key `zzz`"),
        ("c.yaml", "config: other.yaml", "unknown key `config`"),
        (
            "c.toml",
            "[[auth]]\naccess_key = 'a'",
            "unknown key `auth[0].access_key`; did you mean `auth[0].access_key_id`?",
        ),
        ("c.toml", "[[nodes]]\nids = 1", "unknown key `nodes[0].ids`; did you mean `nodes[0].id`?"),
        ("c.toml", "[[auth]]\npolicy = [{bucket='b', action=[]}]", "unknown key `auth[0].policy[0].action`"),
    ];
    for (name, text, expected) in cases {
        let error = Case::new().file(name, text).error();
        assert!(error.contains(expected), "{error}\n  lacks\n{expected}");
    }
    let error = Case::new().env("PREDASTORE_SERVER_PROT", "1").error();
    assert!(error.ends_with("unknown key `PREDASTORE_SERVER_PROT`; did you mean `PREDASTORE_SERVER_PORT`?"), "{error}");
    assert!(Case::new().env("PREDASTORE_MEMORY", "1GiB").error().contains("unknown key `PREDASTORE_MEMORY`"));
    let platform = Case::new().env("PREDASTORE_SERVICE_HOST", "10.0.0.1").env("PREDASTORE_PORT", "tcp://10.0.0.1:8443");
    assert!(platform.load().is_ok(), "set by container platforms");
}

#[test]
fn wrong_values_are_named_with_their_source() {
    let error = Case::new().file("c.yaml", "server: {port: 70000}").error();
    assert!(error.contains("c.yaml: `server.port` `70000` is not valid"), "{error}");
    let error = Case::new().env("PORT", "http").error();
    assert!(error.starts_with("environment variable PORT: `server.port` `http`"), "{error}");
    let error = Case::new().flag("server.port", "-1").error();
    assert!(error.starts_with("flag -port: `server.port`"), "{error}");
    let error = Case::new().file("c.yaml", "storage: {memory_budget: lots}").error();
    assert!(error.contains("`storage.memory_budget` `lots` is no size"), "{error}");
    let error = Case::new().file("c.toml", "[[buckets]]\npublic = true").error();
    assert!(error.contains("`buckets[0]` lacks `name`"), "{error}");
    let error = Case::new().file("c.toml", "[[buckets]]\nname = 'BAD NAME'").error();
    assert!(error.contains("`buckets[0].name`: `BAD NAME` is no bucket name"), "{error}");
    let error = Case::new().file("c.toml", "[[buckets]]\nname = 'twice'\n[[buckets]]\nname = 'twice'").error();
    assert!(error.contains("`buckets[1].name`: `twice` is there twice"), "{error}");
    let error = Case::new().file("c.yaml", "server: {port: 1}\nserver: {port: 2}").error();
    assert!(error.contains("c.yaml: `server` is there twice"), "{error}");
    let error = Case::new().file("c.yaml", "buckets:\n- name: one\n  name: two").error();
    assert!(error.contains("`name` is there twice, at last in line 3"), "{error}");
    let error = Case::new().file("c.ini", "").error();
    assert!(error.contains("must end in .yaml, .yml or .toml"), "{error}");
    assert!(Case::new().flag("config", "/nowhere/c.yaml").error().starts_with("/nowhere/c.yaml: "));
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("server.tls.cert_file", "c")], "without `server.tls.key_file`"),
        (&[("server.tls.key_file", "k")], "without `server.tls.cert_file`"),
        (&[("auth.access_key", "AKIA")], "without `auth.secret_key`"),
        (&[("auth.access_key", "AKIA"), ("auth.secret_key", "short")], "shorter than 8"),
        (&[("cluster.node", "1")], "distributed backend"),
        (&[("storage.backend", "magnetic")], "`magnetic`"),
        (&[("storage.inline_size", "1MiB")], "above 8KiB"),
        (&[("storage.memory_budget", "1KiB")], "below 16MiB"),
        (&[("server.domains", "s3.example.com,no_host")], "`no_host` is no host name"),
        (&[("server.header_timeout", "0s")], "zero"),
        (&[("log.level", "loud")], "`log.level`"),
        (&[("log.format", "xml")], "`log.format`"),
        (&[("version", "2.0")], "`version` is 2.0"),
    ];
    for (settings, expected) in cases {
        let case = settings.iter().fold(Case::new(), |case, (key, value)| case.flag(key, value));
        let error = case.error();
        assert!(error.contains(expected), "{error}\n  lacks\n{expected}");
    }
}

#[test]
fn no_error_shows_a_secret() {
    let secret = "74839201748392017483";
    let files = [
        ("c.yaml", format!("auth: {{access_key: AKIA, secret_key: {secret}}}")),
        ("c.yaml", format!("auth: {secret}")),
        ("c.yaml", format!("auth: {{access_key: AKIA, secret_key: [{secret}]}}")),
        ("c.toml", format!("[[auth]]\naccess_key_id = 'AKIA'\nsecret_access_key = 7483920174839201748.3 # {secret}")),
        ("c.toml", format!("[[auth]]\nsecret_access_key = '{secret}\n")),
        ("c.toml", format!("auth = ['{secret}']")),
    ];
    for (name, text) in files {
        let error = Case::new().file(name, &text).load().map(|_| ()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("7483920174"), "{error}");
    }
}

#[test]
fn debug_of_a_configuration_shows_no_secret() {
    let config = Case::new().flag("auth.access_key", "AKIA").flag("auth.secret_key", "topsecret").load().unwrap();
    assert!(!format!("{config:?}").contains("topsecret"));
}

#[test]
fn the_manual_has_every_setting() {
    let manual = include_str!("../../../docs/OPERATIONS.md");
    let table = settings::markdown();
    assert!(manual.contains(&table), "docs/OPERATIONS.md must have this table:\n{table}");
}
