//! Where values come from: defaults, a file, the environment, flags; each later one over the ones before.
//!
//! A layer remembers its source by name, so that an error can say where the wrong value stands. No error here
//! quotes a value: it may be a secret.

use std::path::Path;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde_saphyr::DuplicateKeyPolicy;

use super::settings::{CONFIG_KEY, ENV_PREFIX, LISTS, OBSOLETE, POLICY_FIELDS, SETTINGS, Setting, is_section, setting};
use super::{Error, installed};

const DEFAULTS: &str = "the defaults";

/// Whether any layer but the defaults says `key`.
pub(crate) fn is_given(figment: &Figment, key: &str) -> bool {
    figment.find_metadata(key).is_some_and(|metadata| metadata.name != DEFAULTS)
}

/// What is said and means nothing any more: a line for each such field.
pub(crate) fn obsolete(figment: &Figment) -> Vec<String> {
    let is_said = |list: &str, field: &str| match figment.find_value(list) {
        Ok(Value::Array(_, items)) => items.iter().any(|item| item.as_dict().is_some_and(|d| d.contains_key(field))),
        _ => false,
    };
    let said = OBSOLETE.iter().filter(|(list, field, _)| is_said(list, field));
    said.map(|(list, field, why)| format!("`{field}` of [[{list}]] has no meaning any more: {why}")).collect()
}

/// Values from one source.
struct Layer {
    source: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

impl Layer {
    /// A layer of a single value.
    fn single(source: String, key: &str, value: &str) -> Self {
        let wrap = |inner: Value, section: &str| Value::from(Dict::from([(section.to_owned(), inner)]));
        let value = key.rsplit('.').fold(Value::from(value), wrap);
        Layer { source, values: value.into_dict().unwrap_or_default() }
    }
}

/// What the command line and the environment say, and what may be wrong with it.
pub(crate) struct Given<'a> {
    /// Flags, in order; a later one wins.
    pub(crate) flags: &'a [(&'static Setting, String)],
    /// The environment. Empty variables count as absent.
    pub(crate) env: &'a [(String, String)],
}

impl Given<'_> {
    /// The configuration file's path: by flag, else by environment.
    pub(crate) fn config_path(&self) -> Option<String> {
        let flag = self.flags.iter().rev().find(|(setting, _)| setting.key == CONFIG_KEY).map(|(_, path)| path.clone());
        flag.or_else(|| {
            self.env_layers().into_iter().rev().find(|(s, ..)| s.key == CONFIG_KEY).map(|(_, _, path)| path)
        })
    }

    /// (setting, variable, value): short names first, so that the full ones win.
    fn env_layers(&self) -> Vec<(&'static Setting, String, String)> {
        let find = |name: &str| self.env.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.clone());
        let short = SETTINGS.iter().filter_map(|s| s.short_env.map(|name| (s, name.to_owned())));
        let full = SETTINGS.iter().map(|s| (s, s.env()));
        short.chain(full).filter_map(|(s, name)| find(&name).map(|value| (s, name, value))).collect()
    }

    /// Refuses a variable with our prefix that is no setting.
    fn check_env(&self) -> Result<(), Error> {
        for (name, value) in self.env.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)) {
            if !SETTINGS.iter().any(|s| s.env() == *name) && !is_foreign(name, value) {
                let nearest = nearest(name, SETTINGS.iter().map(Setting::env));
                return Err(Error::Unknown { source_name: "the environment".to_owned(), key: name.clone(), nearest });
            }
        }
        Ok(())
    }

    /// All layers merged, the file's included.
    pub(crate) fn merged(&self) -> Result<Figment, Error> {
        self.check_env()?;
        let mut figment = Figment::new();
        for setting in SETTINGS.iter().filter(|s| !s.default.is_empty()) {
            figment = figment.merge(Layer::single(DEFAULTS.to_owned(), setting.key, installed::default_of(setting)));
        }
        if let Some(path) = self.config_path() {
            figment = figment.merge(file_layer(Path::new(&path))?);
        }
        for (setting, name, value) in self.env_layers() {
            figment = figment.merge(Layer::single(format!("environment variable {name}"), setting.key, &value));
        }
        for (setting, value) in self.flags {
            let source = format!("flag -{}", setting.flag.unwrap_or_default());
            figment = figment.merge(Layer::single(source, setting.key, value));
        }
        Ok(figment)
    }
}

/// Whether a variable with our prefix is someone else's: container platforms describe a service of our name with
/// `PREDASTORE_SERVICE_HOST`, `PREDASTORE_PORT=tcp://…`, `PREDASTORE_PORT_8443_TCP_ADDR`; our tests have knobs.
fn is_foreign(name: &str, value: &str) -> bool {
    let service = ["_SERVICE_HOST", "_SERVICE_PORT", "_TCP", "_UDP"].iter().any(|part| name.contains(part));
    service || value.contains("://") || name.starts_with("PREDASTORE_TEST_")
}

fn file_layer(path: &Path) -> Result<Layer, Error> {
    let source = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| Error::Read { path: source.clone(), error })?;
    let syntax = |what: String| Error::Syntax { path: source.clone(), what };
    let values = match path.extension().and_then(|e| e.to_str()) {
        Some("yaml" | "yml") => yaml(&text).map_err(syntax)?,
        Some("toml") => Toml::from_str::<Option<Dict>>(&text).map_err(|e| syntax(toml_error(&e)))?,
        _ => return Err(syntax("its name must end in .yaml, .yml or .toml".to_owned())),
    };
    let mut values = values.unwrap_or_default();
    check_section(&source, "", &values)?;
    if matches!(values.get("auth"), Some(Value::Array(..)))
        && let Some(list) = values.remove("auth")
    {
        values.insert("accounts".to_owned(), list);
    }
    Ok(Layer { source, values })
}

/// What stands twice is an error; and none shows the line that it is about, with a secret perhaps.
fn yaml(text: &str) -> Result<Option<Dict>, String> {
    let options = serde_saphyr::options! { with_snippet: false, duplicate_keys: DuplicateKeyPolicy::Error };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), location } => {
            format!("`{key}` is there twice, at last in line {}", location.line())
        }
        other => other.to_string(),
    })
}

/// Message and line; the whole of the parser's error would quote the line, with a secret perhaps.
fn toml_error(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let position = text.lines().next().unwrap_or_default();
    let message = text.lines().last().unwrap_or_default();
    format!("{position}: {message}")
}

/// Refuses what no setting is called, at every depth.
fn check_section(source: &str, prefix: &str, values: &Dict) -> Result<(), Error> {
    for (name, value) in values {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let fields = LISTS.iter().find(|(list, _)| *list == key).map(|(_, fields)| *fields);
        match (value, fields) {
            (Value::Array(_, items), Some(fields)) => check_list(source, &key, items, fields)?,
            (Value::Dict(_, inner), _) if is_section(&key) => check_section(source, &key, inner)?,
            _ if is_section(&key) || fields.is_some() => return Err(shape(source, &key)),
            _ if setting(&key).is_some() && key != CONFIG_KEY => {}
            _ => return Err(unknown(source, &key, known_keys())),
        }
    }
    Ok(())
}

fn check_list(source: &str, key: &str, items: &[Value], fields: &[&str]) -> Result<(), Error> {
    for (index, item) in items.iter().enumerate() {
        let item_key = format!("{key}[{index}]");
        let entry = item.as_dict().ok_or_else(|| shape(source, &item_key))?;
        for (field, value) in entry {
            if !fields.contains(&field.as_str()) {
                return Err(unknown(source, &format!("{item_key}.{field}"), within(&item_key, fields)));
            }
            if let ("policy", Value::Array(_, grants)) = (field.as_str(), value) {
                check_list(source, &format!("{item_key}.policy"), grants, POLICY_FIELDS)?;
            }
        }
    }
    Ok(())
}

fn shape(source: &str, key: &str) -> Error {
    let what = "is a section of settings or a list of them, not a value".to_owned();
    Error::Value { source_name: source.to_owned(), key: key.to_owned(), what }
}

fn unknown(source: &str, key: &str, known: impl Iterator<Item = String>) -> Error {
    Error::Unknown { source_name: source.to_owned(), key: key.to_owned(), nearest: nearest(key, known) }
}

fn known_keys() -> impl Iterator<Item = String> {
    let lists = LISTS.iter().map(|(list, _)| (*list).to_owned());
    let sections = SETTINGS.iter().filter_map(|s| s.key.rsplit_once('.')).map(|(section, _)| section.to_owned());
    SETTINGS.iter().filter(|s| s.key != CONFIG_KEY).map(|s| s.key.to_owned()).chain(sections).chain(lists)
}

fn within(prefix: &str, fields: &[&str]) -> impl Iterator<Item = String> {
    fields.iter().map(move |field| format!("{prefix}.{field}"))
}

/// The known name most like `key`, if any is like it at all. One that ends alike (`port` for `server.port`) counts.
fn nearest(key: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let score = |name: &String| {
        let last = name.rsplit('.').next().unwrap_or_default();
        strsim::jaro_winkler(key, name).max(strsim::jaro_winkler(key, last))
    };
    let best = known.map(|name| (score(&name), name)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.8).then_some(best.1)
}
