//! S3's operations over NATS: where the servers are, who we are to them, and who may ask for what.

use std::path::PathBuf;

use predastore::object::access::Secret;
use predastore::units::MIB;
use predastore_nats::connect::{Login, Settings};
use predastore_nats::events::{self, Delivery};
use predastore_nats::subject::{Operation, is_plain};

use super::values::Switch;
use super::{Error, conflict, document};

const MEMORY_BUDGET_MIN_BYTES: u64 = 8 * MIB;

/// The NATS frontend.
#[derive(Debug)]
pub(crate) struct Nats {
    pub(crate) settings: Settings,
    pub(crate) prefix: String,
    pub(crate) operations: Vec<Operation>,
    pub(crate) trust: Trust,
    /// What presigned URLs begin with; none: this host by its name.
    pub(crate) endpoint: Option<String>,
    pub(crate) memory_budget_bytes: u64,
    /// None: nobody is told of what happens in buckets.
    pub(crate) events: Option<events::Settings>,
    /// None: no access keys are taken from the bus.
    pub(crate) iam: Option<Iam>,
}

/// Access keys on the bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Iam {
    pub(crate) key_file: PathBuf,
    /// What the buckets' names begin with.
    pub(crate) buckets: String,
}

/// Who may ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trust {
    /// Whoever signs an envelope.
    Envelope,
    /// Whoever may publish, as the holder of this access key; none: root's.
    Connection(Option<String>),
}

/// None: it is off.
pub(super) fn judge(nats: document::Nats) -> Result<Option<Nats>, Error> {
    let login = login(&nats)?;
    if nats.url.is_empty() {
        if nats.events != "off" {
            return conflict("`nats.events` is set without `nats.url`");
        }
        if nats.iam.0 {
            return conflict("`nats.iam` is on without `nats.url`");
        }
        return match (login, nats.trusted) {
            (Login::Nobody, Switch(false)) => Ok(None),
            (_, Switch(true)) => conflict("`nats.trusted` is on without `nats.url`"),
            (_, Switch(false)) => conflict("there is a login to NATS without `nats.url`"),
        };
    }
    if !nats.prefix.is_empty() && !is_plain(&nats.prefix) {
        return conflict(format!("`nats.prefix` is `{}`, which is no subject of plain words", nats.prefix));
    }
    if nats.memory_budget.0 < MEMORY_BUDGET_MIN_BYTES {
        return conflict("`nats.memory_budget` is less than 8MiB");
    }
    Ok(Some(Nats {
        settings: Settings { urls: nats.url, login, ca_file: nats.ca_file },
        prefix: nats.prefix.clone(),
        operations: operations(&nats.operations)?,
        trust: match (nats.trusted, nats.account) {
            (Switch(true), account) => Trust::Connection(account),
            (Switch(false), None) => Trust::Envelope,
            (Switch(false), Some(_)) => return conflict("`nats.account` is set, but `nats.trusted` is off"),
        },
        endpoint: nats.endpoint.map(endpoint).transpose()?,
        events: events(&nats.prefix, &nats.events, &nats.events_subject)?,
        iam: iam(nats.iam, nats.iam_key_file, nats.iam_buckets)?,
        memory_budget_bytes: nats.memory_budget.0,
    }))
}

fn login(nats: &document::Nats) -> Result<Login, Error> {
    let of_password = match (&nats.user, &nats.password) {
        (Some(user), Some(password)) => Some(Login::Password(user.clone(), Secret::new(password.reveal()))),
        (None, None) => None,
        (Some(_), None) => return conflict("`nats.user` is set without `nats.password`"),
        (None, Some(_)) => return conflict("`nats.password` is set without `nats.user`"),
    };
    let others = [
        nats.token.as_ref().map(|token| Login::Token(Secret::new(token.reveal()))),
        nats.nkey_file.clone().map(Login::Nkey),
        nats.creds_file.clone().map(Login::Creds),
    ];
    let mut logins = of_password.into_iter().chain(others.into_iter().flatten());
    match (logins.next(), logins.next()) {
        (None, _) => Ok(Login::Nobody),
        (Some(login), None) => Ok(login),
        (Some(_), Some(_)) => {
            conflict("there is more than one login to NATS: user and password, a token, an nkey, or credentials")
        }
    }
}

fn iam(is_on: Switch, key_file: PathBuf, buckets: String) -> Result<Option<Iam>, Error> {
    // The name of a bucket is a part of subjects.
    let is_name =
        !buckets.is_empty() && buckets.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    match is_on {
        Switch(false) => Ok(None),
        Switch(true) if !is_name => {
            conflict(format!("`nats.iam_buckets` is `{buckets}`, with which no bucket's name begins"))
        }
        Switch(true) => Ok(Some(Iam { key_file, buckets })),
    }
}

fn operations(names: &[String]) -> Result<Vec<Operation>, Error> {
    if names.is_empty() {
        return Ok(Operation::ALL.to_vec());
    }
    let parsed = |name: &String| name.parse().map_err(|error| Error::Conflict(format!("`nats.operations`: {error}")));
    names.iter().map(parsed).collect()
}

fn events(prefix: &str, delivery: &str, subject: &str) -> Result<Option<events::Settings>, Error> {
    let delivery = match delivery {
        "off" => return Ok(None),
        "core" => Delivery::Core,
        "jetstream" => Delivery::JetStream,
        other => return conflict(format!("`nats.events` is `{other}`; it is `off`, `core` or `jetstream`")),
    };
    if !is_plain(subject) {
        return conflict(format!("`nats.events_subject` is `{subject}`, which is no subject of plain words"));
    }
    let subject = if prefix.is_empty() { subject.to_owned() } else { format!("{prefix}.{subject}") };
    Ok(Some(events::Settings { delivery, subject }))
}

/// `https://host:port`: nothing that a path would be put behind wrongly.
fn endpoint(url: String) -> Result<String, Error> {
    let rest = url.strip_prefix("https://").or(url.strip_prefix("http://")).unwrap_or_default();
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', '@']) || host.contains(char::is_whitespace) {
        return conflict(format!("`nats.endpoint` is `{url}`; write it as https://host:port"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Config, Secret as Hidden};
    use super::*;

    fn judged(settings: &[(&str, &str)]) -> Result<Option<Nats>, String> {
        let env: Vec<_> = settings
            .iter()
            .map(|(key, value)| (format!("PREDASTORE_NATS_{}", key.to_uppercase()), (*value).to_owned()))
            .collect();
        Config::load(&[], &env).map(|config| config.nats).map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_off_unless_there_is_a_server() {
        assert!(judged(&[]).unwrap().is_none());
        let nats = judged(&[("url", "nats://a:4222,tls://b")]).unwrap().unwrap();
        assert_eq!(nats.settings.urls, ["nats://a:4222", "tls://b"]);
        assert_eq!((nats.operations.len(), &nats.trust), (Operation::ALL.len(), &Trust::Envelope));
    }

    #[test]
    fn what_is_set_is_used() {
        let nats = judged(&[
            ("url", "nats://a"),
            ("user", "edge"),
            ("password", "hunter22"),
            ("prefix", "site.one"),
            ("operations", "getobject, HeadObject"),
            ("trusted", "on"),
            ("account", "AKIAEXAMPLE"),
            ("events", "jetstream"),
            ("endpoint", "https://s3.example.com:8443/"),
        ]);
        let nats = nats.unwrap().unwrap();
        assert_eq!(nats.operations, [Operation::GetObject, Operation::HeadObject]);
        assert_eq!(nats.trust, Trust::Connection(Some("AKIAEXAMPLE".to_owned())));
        assert_eq!(nats.endpoint.as_deref(), Some("https://s3.example.com:8443"));
        let events = nats.events.as_ref().map(|events| (events.delivery, events.subject.as_str()));
        assert_eq!(events, Some((Delivery::JetStream, "site.one.s3.events")));
        assert!(!format!("{nats:?} {:?}", Hidden::new("x")).contains("hunter22"));
    }

    #[test]
    fn what_cannot_work_is_an_error_that_says_what() {
        let url = ("url", "nats://a");
        for (settings, said) in [
            (vec![("user", "a"), ("password", "b")], "without `nats.url`"),
            (vec![("trusted", "on")], "without `nats.url`"),
            (vec![url, ("user", "a")], "without `nats.password`"),
            (vec![url, ("password", "a")], "without `nats.user`"),
            (vec![url, ("nkey_file", "a"), ("creds_file", "b")], "more than one login"),
            (vec![url, ("prefix", "a.>")], "plain words"),
            (vec![url, ("operations", "PutBucketAcl")], "no operation `PutBucketAcl`"),
            (vec![url, ("account", "AKIA")], "`nats.trusted` is off"),
            (vec![url, ("endpoint", "s3.example.com")], "https://host:port"),
            (vec![url, ("endpoint", "https://s3.example.com/x")], "https://host:port"),
            (vec![url, ("memory_budget", "1MiB")], "8MiB"),
            (vec![url, ("trusted", "perhaps")], "neither on nor off"),
            (vec![("iam", "on")], "without `nats.url`"),
            (vec![url, ("iam", "on"), ("iam_buckets", "a.b")], "no bucket's name begins"),
            (vec![url, ("token", "a"), ("creds_file", "b")], "more than one login"),
            (vec![url, ("events", "perhaps")], "`off`, `core` or `jetstream`"),
            (vec![url, ("events", "core"), ("events_subject", "a.*")], "plain words"),
            (vec![("events", "core")], "without `nats.url`"),
            (vec![url, ("urls", "a")], "unknown key"),
        ] {
            let error = judged(&settings).err().unwrap_or_default();
            assert!(error.contains(said), "{settings:?}: {error}");
        }
    }
}
