//! What is otherwise where this program was installed by a package: its data, the configuration file where packages have
//! theirs; and what systemd gives a service: credentials, and a journal. File and credentials count as variables that nobody set.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use nix::sys::stat::fstat;

use super::settings::{CONFIG_KEY, SETTINGS, Setting};

/// Where the configuration file is, if nobody says; the first that is there.
const FILES: [&str; 3] =
    ["/etc/predastore/predastore.toml", "/etc/predastore/predastore.yaml", "/etc/predastore/predastore.yml"];
/// Where a package puts this program, and where the data of such a one is.
const PROGRAM: &str = "/usr/bin/s3d";
pub(super) const DATA_DIR: &str = "/var/lib/predastore";
/// Where systemd puts credentials of a service.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// `env` with the configuration file, and with the credentials: a file named as a setting (`auth.secret_key`) has its value,
/// or is the file that it wants (`server.tls.key_file`).
pub(crate) fn with_installed(env: Vec<(String, String)>) -> Vec<(String, String)> {
    let credentials = env.iter().find(|(name, _)| name == CREDENTIALS).map(|(_, dir)| dir.clone());
    let file = FILES.iter().filter(|_| is_installed()).find(|file| Path::new(file).exists());
    with(env, file.copied(), credentials.as_deref().map(Path::new))
}

fn is_installed() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| std::env::current_exe().is_ok_and(|program| program == Path::new(PROGRAM)))
}

/// The default of a setting here.
pub(super) fn default_of(setting: &Setting) -> &'static str {
    match setting.key {
        "storage.data_dir" if is_installed() => DATA_DIR,
        "log.format" if logs_to_journal() => "journal",
        _ => setting.default,
    }
}

/// Whether systemd has connected stderr with its journal.
fn logs_to_journal() -> bool {
    let said = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    fstat(std::io::stderr()).is_ok_and(|stderr| said == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

fn with(mut env: Vec<(String, String)>, file: Option<&str>, credentials: Option<&Path>) -> Vec<(String, String)> {
    let is_said = |env: &[(String, String)], setting: &Setting| {
        let says = |name: &str| env.iter().any(|(said, value)| said == name && !value.is_empty());
        says(&setting.env()) || setting.short_env.is_some_and(says)
    };
    for setting in SETTINGS.iter().filter(|setting| !is_said(&env, setting)).collect::<Vec<_>>() {
        let value = match (setting.key, file, credentials) {
            (CONFIG_KEY, Some(file), _) => Some(file.to_owned()),
            (key, _, Some(dir)) => credential(&dir.join(key), key),
            _ => None,
        };
        env.extend(value.map(|value| (setting.env(), value)));
    }
    env
}

fn credential(path: &Path, key: &str) -> Option<String> {
    if key.ends_with("_file") {
        return path.exists().then(|| path.display().to_string());
    }
    // Written with an editor, it ends with a line's end.
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_installed_counts_unless_somebody_says_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("auth.secret_key"), "secret word\n").unwrap();
        fs::write(dir.path().join("server.tls.key_file"), "PEM").unwrap();
        fs::write(dir.path().join("server.port"), "1").unwrap();
        let env = vec![("PORT".to_owned(), "2".to_owned())];
        let found = with(env, Some("/etc/file.toml"), Some(dir.path()));
        let of = |name: &str| found.iter().find(|(said, _)| said == name).map(|(_, value)| value.as_str());
        assert_eq!(of("PREDASTORE_CONFIG"), Some("/etc/file.toml"));
        assert_eq!(of("PREDASTORE_AUTH_SECRET_KEY"), Some("secret word"));
        assert_eq!(of("PREDASTORE_SERVER_TLS_KEY_FILE"), dir.path().join("server.tls.key_file").to_str());
        assert_eq!((of("PREDASTORE_SERVER_PORT"), of("PREDASTORE_AUTH_ACCESS_KEY")), (None, None));
        let said = vec![("CONFIG".to_owned(), "own.toml".to_owned())];
        assert_eq!(with(said.clone(), Some("/etc/file.toml"), None), said);
    }
}
