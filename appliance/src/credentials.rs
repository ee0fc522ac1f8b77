//! `s3d credentials`: the root credentials, for people, shells and the AWS command line.

use std::fmt::Write as _;
use std::path::absolute;

use anyhow::{Result, bail};

use crate::cli::Form;
use crate::config::{Account, Config, Tls};
use crate::identity::Identity;

/// What to print.
///
/// # Errors
/// There are no credentials yet, or they cannot be read.
pub(crate) fn print(config: &Config, form: Form) -> Result<String> {
    let identity = Identity::of(config);
    let account = match &config.root {
        Some(account) => account.clone(),
        None => match identity.credentials()? {
            Some(account) => account,
            None => bail!(
                "no credentials in {} yet: the first start of s3d makes them (or is -data-dir another?)",
                config.storage.data_dir.display()
            ),
        },
    };
    print_account(config, form, &account)
}

/// What to print of any account's key.
///
/// # Errors
/// The certificate authority's file has no place.
pub(crate) fn print_account(config: &Config, form: Form, account: &Account) -> Result<String> {
    let ca_file = match config.server.tls {
        Tls::Own => Some(absolute(Identity::of(config).ca_file())?.display().to_string()),
        Tls::Off | Tls::Files { .. } => None,
    };
    let endpoint = config.gateway().map(|address| endpoint(config, address.port()));
    Ok(render(form, account, &config.region, endpoint.as_deref(), ca_file.as_deref()))
}

/// The URL at which clients on this host find the store, which listens on `port`.
pub(crate) fn endpoint(config: &Config, port: u16) -> String {
    let scheme = if config.server.tls == Tls::Off { "http" } else { "https" };
    let ip = config.server.address.ip();
    let host = match (ip.is_unspecified() || ip.is_loopback(), ip) {
        (true, _) => "localhost".to_owned(),
        (false, std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
        (false, ip) => ip.to_string(),
    };
    format!("{scheme}://{host}:{port}")
}

/// `endpoint`: none where the process serves no S3.
fn render(form: Form, account: &Account, region: &str, endpoint: Option<&str>, ca_file: Option<&str>) -> String {
    let (access_key, secret) = (account.access_key.as_str(), account.secret.reveal());
    let mut rows = match form {
        Form::Plain => vec![("access key", access_key), ("secret key", secret), ("region", region)],
        Form::Env => vec![
            ("AWS_ACCESS_KEY_ID", access_key),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_REGION", region),
            ("AWS_DEFAULT_REGION", region),
        ],
        Form::Aws => vec![("aws_access_key_id", access_key), ("aws_secret_access_key", secret), ("region", region)],
    };
    let (endpoint_name, ca_name) = match form {
        Form::Plain => ("endpoint", "certificate authority"),
        Form::Env => ("AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"),
        Form::Aws => ("endpoint_url", "ca_bundle"),
    };
    rows.extend(endpoint.map(|url| (endpoint_name, url)));
    rows.extend(ca_file.map(|path| (ca_name, path)));
    let mut text = if form == Form::Aws { "[predastore]\n".to_owned() } else { String::new() };
    for (name, value) in rows {
        // Writing to a string cannot fail.
        let _ = match form {
            Form::Plain => writeln!(text, "{name:<22} {value}"),
            Form::Env => writeln!(text, "export {name}={}", quoted(value)),
            Form::Aws => writeln!(text, "{name} = {value}"),
        };
    }
    text
}

/// `value` in single quotes, safe in any POSIX shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::settings::setting;

    fn config(dir: &std::path::Path, flags: &[(&str, &str)]) -> Config {
        let mut flags: Vec<_> = flags.iter().map(|(key, value)| (setting(key).unwrap(), (*value).to_owned())).collect();
        flags.push((setting("storage.data_dir").unwrap(), dir.display().to_string()));
        Config::load(&flags, &[]).unwrap()
    }

    #[test]
    fn before_the_first_start_there_are_none_and_none_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let error = print(&config(dir.path(), &[]), Form::Plain).unwrap_err().to_string();
        assert!(error.contains("first start"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_shell_reads_back_what_env_prints() {
        let dir = tempfile::tempdir().unwrap();
        let flags = [("auth.access_key", "AKIA"), ("auth.secret_key", "it's $HOME \"q\" \\ `x`"), ("server.port", "9")];
        let lines = print(&config(dir.path(), &flags), Form::Env).unwrap();
        let script =
            format!("{lines}printf '%s|%s|%s' \"$AWS_SECRET_ACCESS_KEY\" \"$AWS_ENDPOINT_URL\" \"$AWS_CA_BUNDLE\"");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let ca_file = dir.path().join("keys/ca.pem");
        let expected = format!("it's $HOME \"q\" \\ `x`|https://localhost:9|{}", ca_file.display());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }

    #[test]
    fn the_generated_ones_are_printed_as_a_profile() {
        let dir = tempfile::tempdir().unwrap();
        let account = Identity::of_box(dir.path()).ensure_credentials().unwrap();
        let text = print(&config(dir.path(), &[("server.tls.enabled", "off")]), Form::Aws).unwrap();
        let expected = format!(
            "[predastore]\naws_access_key_id = {}\naws_secret_access_key = {}\nregion = us-east-1\nendpoint_url = http://localhost:8443\n",
            account.access_key,
            account.secret.reveal()
        );
        assert_eq!(text, expected);
    }
}
