//! `predastore user`: users, their policies and their access keys. They are in the catalog, so what is changed here counts at
//! every gateway.
//!
//! The command asks the daemon on this machine over its control socket: [`Ask`], [`Told`].

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use predastore::object;
use predastore::object::access::{self, Named, NewKey, UserInfo};
use predastore::policy::canned;
use serde::{Deserialize, Serialize};

use super::{audit, day, strange};
use crate::cli::{CredentialsForm, Flags};
use crate::config::{Account, Config, ROOT_ACCOUNT_ID, Secret};
use crate::credentials;
use crate::mounts::command::ask;
use crate::mounts::protocol::{Reply, Request};

/// A policy's name has as many bytes at most.
const POLICY_NAME_MAX_BYTES: usize = 64;
/// Users that one answer has: it fits into a message with them.
const PAGE_COUNT: usize = 50;

/// What may be asked.
#[derive(Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user with an access key, and print the key: the secret is not told again
    Add {
        /// Letters, digits and +=,.@_-
        name: String,
        #[command(flatten)]
        grants: Grants,
        /// What the user acts for, and owns buckets as: 12 digits [default: that of the root credentials]
        #[arg(long)]
        account: Option<String>,
        #[command(flatten)]
        form: CredentialsForm,
        #[command(flatten)]
        settings: Flags,
    },
    /// All users, with their policies and access keys
    List {
        #[command(flatten)]
        settings: Flags,
    },
    /// A user, with the text of all policies
    Show {
        /// Who
        name: String,
        #[command(flatten)]
        settings: Flags,
    },
    /// Remove a user; all keys of it stop at once
    Remove {
        /// Who
        name: String,
        #[command(flatten)]
        settings: Flags,
    },
    /// Give a user policies, in place of those of the same names
    Grant {
        /// To whom
        name: String,
        #[command(flatten)]
        grants: Grants,
        #[command(flatten)]
        settings: Flags,
    },
    /// Take a policy from a user
    Revoke {
        /// From whom
        name: String,
        /// Its name, as `list` tells it
        policy: String,
        #[command(flatten)]
        settings: Flags,
    },
    /// Make one more access key for a user, and print it: the secret is not told again
    AddKey {
        /// For whom
        name: String,
        #[command(flatten)]
        form: CredentialsForm,
        #[command(flatten)]
        settings: Flags,
    },
    /// Remove an access key; it stops at once
    RemoveKey {
        /// Its id
        id: String,
        #[command(flatten)]
        settings: Flags,
    },
    /// Stop an access key, until `enable-key`
    DisableKey {
        /// Its id
        id: String,
        #[command(flatten)]
        settings: Flags,
    },
    /// Have an access key count again
    EnableKey {
        /// Its id
        id: String,
        #[command(flatten)]
        settings: Flags,
    },
}

/// What somebody may do.
#[derive(Args)]
pub(crate) struct Grants {
    /// Read and list BUCKET, or what begins with PREFIX in it
    #[arg(long, value_name = "BUCKET[/PREFIX]")]
    read_only: Vec<String>,
    /// Read, list, write and delete there
    #[arg(long, value_name = "BUCKET[/PREFIX]")]
    read_write: Vec<String>,
    /// Everything
    #[arg(long)]
    full: bool,
    /// What a policy says: a file in IAM's JSON; the file's name without its ending is the policy's
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
}

impl UserCommand {
    /// The settings that came with the command.
    pub(crate) fn take_settings(&mut self) -> Flags {
        std::mem::take(match self {
            UserCommand::Add { settings, .. }
            | UserCommand::List { settings }
            | UserCommand::Show { settings, .. }
            | UserCommand::Remove { settings, .. }
            | UserCommand::Grant { settings, .. }
            | UserCommand::Revoke { settings, .. }
            | UserCommand::AddKey { settings, .. }
            | UserCommand::RemoveKey { settings, .. }
            | UserCommand::DisableKey { settings, .. }
            | UserCommand::EnableKey { settings, .. } => settings,
        })
    }
}

impl Grants {
    fn policies(&self) -> Result<Vec<Policy>> {
        let mut policies = Vec::new();
        if self.full {
            policies.push(Policy { name: "full".to_owned(), document: canned::full() });
        }
        for (kind, places, document) in [
            ("read-only", &self.read_only, canned::read_only as fn(&str, &str) -> String),
            ("read-write", &self.read_write, canned::read_write),
        ] {
            for place in places {
                let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
                ensure!(!bucket.is_empty(), "`{place}` names no bucket");
                policies.push(Policy { name: policy_name(kind, place), document: document(bucket, prefix) });
            }
        }
        for file in &self.policy {
            let document = fs::read_to_string(file).with_context(|| format!("the policy {}", file.display()))?;
            let name = file.file_stem().and_then(|name| name.to_str()).context("a policy's file needs a name")?;
            policies.push(Policy { name: name.to_owned(), document });
        }
        Ok(policies)
    }
}

/// `read-only.photos.2026`: what a policy's name may not hold is a dot.
fn policy_name(kind: &str, place: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "+=,@_-".contains(c) { c } else { '.' };
    let place: String = place.trim_end_matches('/').chars().map(plain).collect();
    let mut name = format!("{kind}.{place}");
    name.truncate(POLICY_NAME_MAX_BYTES);
    name
}

/// What is asked of the daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Ask {
    /// So many of the first ones are known. Policies come without their texts.
    List {
        skip: usize,
    },
    Show {
        name: String,
    },
    Add {
        name: String,
        account_id: String,
        policies: Vec<Policy>,
    },
    Remove {
        name: String,
    },
    SetPolicy {
        name: String,
        policy: Policy,
    },
    RemovePolicy {
        name: String,
        policy: String,
    },
    AddKey {
        name: String,
    },
    RemoveKey {
        id: String,
    },
    SetKeyActive {
        id: String,
        is_active: bool,
    },
}

/// What it says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Told {
    Users { users: Vec<User>, has_more: bool },
    User(User),
    Key(Key),
    Done {},
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    name: String,
    document: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    name: String,
    account_id: String,
    created_s: i64,
    policies: Vec<Policy>,
    keys: Vec<KeyState>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyState {
    id: String,
    created_s: i64,
    is_active: bool,
}

/// A new key; the secret is never shown but to whoever asked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    id: String,
    secret: String,
    account_id: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({}, ..)", self.id)
    }
}

/// The daemon's side. `uid`: who asks.
///
/// # Errors
/// What the catalog says.
pub(crate) async fn answer(store: &object::Store, ask: Ask, uid: u32) -> Result<Told, access::Error> {
    let asked = (!matches!(ask, Ask::List { .. } | Ask::Show { .. })).then(|| format!("{:?}", Audited(&ask)));
    let outcome = carry_out(store, ask).await;
    if let Some(asked) = asked {
        let key = if let Ok(Told::Key(key)) = &outcome { format!(": {}", key.id) } else { String::new() };
        audit(uid, &(asked + &key), outcome.as_ref().err());
    }
    outcome
}

/// A request as the log has it: policies by name.
struct Audited<'a>(&'a Ask);

impl std::fmt::Debug for Audited<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Ask::List { .. } => f.write_str("user list"),
            Ask::Show { name } => write!(f, "user show {name}"),
            Ask::Add { name, account_id, policies } => {
                let policies: Vec<_> = policies.iter().map(|policy| &policy.name).collect();
                write!(f, "user add {name} account {account_id} policies {policies:?}")
            }
            Ask::Remove { name } => write!(f, "user remove {name}"),
            Ask::SetPolicy { name, policy } => write!(f, "user grant {name} {}", policy.name),
            Ask::RemovePolicy { name, policy } => write!(f, "user revoke {name} {policy}"),
            Ask::AddKey { name } => write!(f, "user add-key {name}"),
            Ask::RemoveKey { id } => write!(f, "user remove-key {id}"),
            Ask::SetKeyActive { id, is_active: true } => write!(f, "user enable-key {id}"),
            Ask::SetKeyActive { id, is_active: false } => write!(f, "user disable-key {id}"),
        }
    }
}

async fn carry_out(store: &object::Store, ask: Ask) -> Result<Told, access::Error> {
    let named = |policy: Policy| Named { name: policy.name, document: policy.document };
    match ask {
        Ask::List { skip } => {
            let mut rest = store.users().await?.into_iter().skip(skip);
            let users = rest.by_ref().take(PAGE_COUNT).map(|user| User::from(user).without_texts()).collect();
            Ok(Told::Users { users, has_more: rest.next().is_some() })
        }
        Ask::Show { name } => store.user(&name).await.map(|user| Told::User(user.into())),
        Ask::Add { name, account_id, policies } => {
            store.add_user(&name, &account_id, policies.into_iter().map(named).collect()).await?;
            let key = store.add_user_key(&name).await?;
            Ok(Told::Key(Key::new(key, account_id)))
        }
        Ask::Remove { name } => store.remove_user(&name).await.map(done),
        Ask::SetPolicy { name, policy } => store.set_user_policy(&name, named(policy)).await.map(done),
        Ask::RemovePolicy { name, policy } => store.remove_user_policy(&name, &policy).await.map(done),
        Ask::AddKey { name } => {
            let key = store.add_user_key(&name).await?;
            Ok(Told::Key(Key::new(key, store.user(&name).await?.account_id)))
        }
        Ask::RemoveKey { id } => store.remove_user_key(&id).await.map(done),
        Ask::SetKeyActive { id, is_active } => store.set_user_key_active(&id, is_active).await.map(done),
    }
}

fn done((): ()) -> Told {
    Told::Done {}
}

impl Key {
    fn new(key: NewKey, account_id: String) -> Key {
        Key { id: key.id, secret: key.secret.reveal().to_owned(), account_id }
    }
}

impl From<UserInfo> for User {
    fn from(user: UserInfo) -> User {
        let UserInfo { name, account_id, created, policies, keys } = user;
        let policies = policies.into_iter().map(|Named { name, document }| Policy { name, document }).collect();
        let state =
            |key: access::KeyInfo| KeyState { id: key.id, created_s: key.created.seconds(), is_active: key.is_active };
        let keys = keys.into_iter().map(state).collect();
        User { name, account_id, created_s: created.seconds(), policies, keys }
    }
}

impl User {
    fn without_texts(mut self) -> User {
        self.policies.iter_mut().for_each(|policy| policy.document.clear());
        self
    }
}

/// The command's side: what to print.
///
/// # Errors
/// The daemon refuses, or cannot be asked.
pub(crate) fn run(config: &Config, command: UserCommand) -> Result<String> {
    let socket = &config.control.socket;
    match command {
        UserCommand::Add { name, grants, account, form, settings: _ } => {
            let account_id = account.unwrap_or_else(|| ROOT_ACCOUNT_ID.to_owned());
            let key = key(socket, Ask::Add { name, account_id, policies: grants.policies()? })?;
            print_key(config, key, &form)
        }
        UserCommand::AddKey { name, form, settings: _ } => print_key(config, key(socket, Ask::AddKey { name })?, &form),
        UserCommand::List { settings: _ } => Ok(listed(&users(socket)?)),
        UserCommand::Show { name, settings: _ } => {
            let user = match told(socket, Ask::Show { name })? {
                Told::User(user) => user,
                other => return Err(strange(&other)),
            };
            Ok(user.policies.iter().fold(listed(std::slice::from_ref(&user)), |text, policy| {
                text + &format!("\npolicy {}\n{}\n", policy.name, policy.document.trim_end())
            }))
        }
        UserCommand::Grant { name, grants, settings: _ } => {
            let policies = grants.policies()?;
            ensure!(!policies.is_empty(), "nothing is granted: --read-only, --read-write, --full and --policy do");
            for policy in policies {
                change(socket, Ask::SetPolicy { name: name.clone(), policy })?;
            }
            Ok(String::new())
        }
        UserCommand::Remove { name, settings: _ } => change(socket, Ask::Remove { name }),
        UserCommand::Revoke { name, policy, settings: _ } => change(socket, Ask::RemovePolicy { name, policy }),
        UserCommand::RemoveKey { id, settings: _ } => change(socket, Ask::RemoveKey { id }),
        UserCommand::DisableKey { id, settings: _ } => change(socket, Ask::SetKeyActive { id, is_active: false }),
        UserCommand::EnableKey { id, settings: _ } => change(socket, Ask::SetKeyActive { id, is_active: true }),
    }
}

fn told(socket: &Path, wanted: Ask) -> Result<Told> {
    match ask(socket, &Request::Users(wanted))? {
        Reply::Users(told) => Ok(told),
        other => Err(strange(&other)),
    }
}

fn users(socket: &Path) -> Result<Vec<User>> {
    let mut all = Vec::new();
    loop {
        match told(socket, Ask::List { skip: all.len() })? {
            Told::Users { users, has_more: false } => return Ok([all, users].concat()),
            Told::Users { users, has_more: true } => all.extend(users),
            other => return Err(strange(&other)),
        }
    }
}

fn key(socket: &Path, wanted: Ask) -> Result<Key> {
    match told(socket, wanted)? {
        Told::Key(key) => Ok(key),
        other => Err(strange(&other)),
    }
}

fn change(socket: &Path, wanted: Ask) -> Result<String> {
    match told(socket, wanted)? {
        Told::Done {} => Ok(String::new()),
        other => Err(strange(&other)),
    }
}

fn print_key(config: &Config, key: Key, form: &CredentialsForm) -> Result<String> {
    let Key { id: access_key, secret, account_id } = key;
    let account = Account { access_key, secret: Secret::new(secret), account_id, policy: None };
    credentials::print_account(config, form.form(), &account)
}

fn listed(users: &[User]) -> String {
    let mut text = String::new();
    for user in users {
        let policies: Vec<_> = user.policies.iter().map(|policy| policy.name.as_str()).collect();
        let policies = if policies.is_empty() { "none: may do nothing".to_owned() } else { policies.join(" ") };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}  account {}  since {}", user.name, user.account_id, day(user.created_s));
        let _ = writeln!(text, "  policies  {policies}");
        for key in &user.keys {
            let state = if key.is_active { "" } else { "  disabled" };
            let _ = writeln!(text, "  key       {}  since {}{state}", key.id, day(key.created_s));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_named_after_what_they_are_for() {
        assert_eq!(policy_name("read-only", "photos"), "read-only.photos");
        assert_eq!(
            policy_name("read-write", "photos/2026/ä b/"),
            "read-write.photos.2026.ä b".replace(['ä', ' '], ".")
        );
        assert_eq!(policy_name("read-only", &"x".repeat(100)).len(), POLICY_NAME_MAX_BYTES);
    }

    #[test]
    fn the_log_has_no_secret_and_no_document() {
        let policy = Policy { name: "p".into(), document: "{secret}".into() };
        let add = Ask::Add { name: "ann".into(), account_id: "1".into(), policies: vec![policy.clone()] };
        assert_eq!(format!("{:?}", Audited(&add)), "user add ann account 1 policies [\"p\"]");
        let grant = Ask::SetPolicy { name: "ann".into(), policy };
        assert_eq!(format!("{:?}", Audited(&grant)), "user grant ann p");
        let key = Key { id: "AK".into(), secret: "hush".into(), account_id: "1".into() };
        assert_eq!(format!("{:?}", Told::Key(key)), "Key(Key(AK, ..))");
    }

    #[test]
    fn a_user_is_told_with_keys_and_policies() {
        let keys = vec![KeyState { id: "AK".into(), created_s: 86_400, is_active: false }];
        let policies = vec![Policy { name: "p".into(), document: String::new() }];
        let user = User { name: "ann".into(), account_id: "000000000000".into(), created_s: 0, policies, keys };
        let expected =
            "ann  account 000000000000  since 1970-01-01\n  policies  p\n  key       AK  since 1970-01-02  disabled\n";
        assert_eq!(listed(&[user]), expected);
    }
}
