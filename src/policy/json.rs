//! JSON as a policy needs it: a key that stands twice is an error, and every value knows its path.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{Error, VALUES_MAX};

/// Any JSON value. Numbers are kept as text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    /// A string, or a number or boolean without its quotation marks (`quoted` says which).
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

/// A value and where it stands. The document itself has the empty path.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) path: String,
    json: Json,
}

/// The entries of a map, taken out one by one.
pub(super) struct Fields {
    path: String,
    entries: Vec<(String, Node)>,
}

impl Node {
    /// # Errors
    /// `Json`.
    pub(super) fn parse(text: &[u8]) -> Result<Node, Error> {
        let json = serde_json::from_slice(text).map_err(|error| Error::Json(error.to_string()))?;
        Ok(Node { path: String::new(), json })
    }

    fn wrong(self, expected: &'static str) -> Error {
        let path = if self.path.is_empty() { "the policy".to_owned() } else { self.path };
        Error::Type { path, expected }
    }

    /// The entries of a map, which may be empty.
    pub(super) fn map(self) -> Result<Vec<(String, Node)>, Error> {
        let Json::Map(entries) = self.json else { return Err(self.wrong("an object")) };
        if entries.len() > VALUES_MAX {
            return Err(Error::Count { path: self.path, count: entries.len(), limit: VALUES_MAX });
        }
        let child = |(key, json): (String, Json)| {
            let path = join(&self.path, &key);
            (key, Node { path, json })
        };
        Ok(entries.into_iter().map(child).collect())
    }

    /// The same, to be taken by name.
    pub(super) fn fields(self) -> Result<Fields, Error> {
        let path = self.path.clone();
        Ok(Fields { path, entries: self.map()? })
    }

    /// The entries of a list of 1 to `limit`, or the value alone where there is no list.
    pub(super) fn one_or_many(self, limit: usize) -> Result<Vec<Node>, Error> {
        let Json::List(entries) = self.json else { return Ok(vec![self]) };
        let count = entries.len();
        if count == 0 || count > limit {
            return Err(Error::Count { path: self.path, count, limit });
        }
        let child = |(index, json)| Node { path: format!("{}[{index}]", self.path), json };
        Ok(entries.into_iter().enumerate().map(child).collect())
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.json, Json::Scalar { quoted: true, .. })
    }

    /// A string that means a `T`. `expected`: what it should have been, where `parse` gives none.
    pub(super) fn text<T>(self, expected: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Error> {
        if self.is_text() { self.scalar(expected, parse) } else { Err(self.wrong("a string")) }
    }

    /// The same of a string, number or boolean: quotation marks are optional around the last two.
    pub(super) fn scalar<T>(self, expected: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Error> {
        match &self.json {
            Json::Scalar { text, .. } => {
                parse(text).ok_or_else(|| Error::Value { path: self.path.clone(), value: text.clone(), expected })
            }
            Json::Null | Json::List(_) | Json::Map(_) => Err(self.wrong("a string, number or boolean")),
        }
    }
}

impl Fields {
    pub(super) fn take(&mut self, name: &str) -> Option<Node> {
        let index = self.entries.iter().position(|(key, _)| key == name)?;
        Some(self.entries.swap_remove(index).1)
    }

    pub(super) fn need(&mut self, name: &str) -> Result<Node, Error> {
        self.take(name).ok_or_else(|| Error::Missing { path: join(&self.path, name) })
    }

    /// One of two that exclude each other, and whether it is the second.
    pub(super) fn either(&mut self, name: &str, inverse: &str) -> Result<Option<(Node, bool)>, Error> {
        match (self.take(name), self.take(inverse)) {
            (Some(_), Some(node)) => Err(Error::Misplaced { path: node.path, reason: "next to its inverse" }),
            (Some(node), None) => Ok(Some((node, false))),
            (None, Some(node)) => Ok(Some((node, true))),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn need_either(&mut self, name: &str, inverse: &str) -> Result<(Node, bool), Error> {
        let found = self.either(name, inverse)?;
        found.ok_or_else(|| Error::Missing { path: join(&self.path, name) })
    }

    /// Everything was taken, or what is left has no meaning.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self.entries.into_iter().next() {
            None => Ok(()),
            Some((_, node)) => Err(Error::Unknown { path: node.path }),
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl JsonVisitor {
    fn bare<E>(value: impl ToString) -> Result<Json, E> {
        Ok(Json::Scalar { text: value.to_string(), quoted: false })
    }
}

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Self::bare(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Self::bare(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Self::bare(value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        // From 2^53 on, floating point skips integers: the policy would not say what its author wrote.
        if value.abs() >= 9_007_199_254_740_992.0 {
            return Err(E::custom("a number this large needs quotation marks"));
        }
        Self::bare(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Scalar { text: value.to_owned(), quoted: true })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Json::List(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries: Vec<(String, Json)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Json>()? {
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format_args!("the key {key:?} stands twice")));
            }
            entries.push((key, value));
        }
        Ok(Json::Map(entries))
    }
}
