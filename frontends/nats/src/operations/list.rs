//! Listings. A page ends where it is as long as was asked for, or where the answer would not fit into a message.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use predastore::catalog::{ListEntry, ListQuery};
use predastore_vocabulary::names::KEY_MAX_BYTES;
use serde_json::{Map, Value, json};

use super::{Request, Told, fields};
use crate::answer::{Answer, Refusal};
use crate::input::{self, said};
use crate::limits::Held;
use crate::shown;

/// The most entries a page has, whatever is asked for.
const PAGE_MAX_COUNT: i64 = 1000;
/// The most that a page of entries takes, bytes.
const PAGE_MAX_BYTES: usize = 2 << 20;
/// What stands around the entries: names of fields, the bucket, prefix, delimiter, marks and tokens of up to a key each,
/// which JSON may write six times as long.
const FRAME_BYTES: usize = 1024 + 6 * 6 * KEY_MAX_BYTES;

/// The entries of an answer, as many as fit.
pub(super) struct Page {
    /// They.
    pub(super) shown: Vec<Value>,
    /// Whether one did not fit.
    pub(super) is_cut: bool,
    max_count: usize,
    room_bytes: usize,
    held: Held,
}

impl Page {
    /// Room for at most `max_count` entries. Holds memory for the answer.
    pub(super) async fn new(request: &Request<'_>, max_count: usize) -> Result<Page, Refusal> {
        let answer_bytes = request.answer_max_bytes.min(PAGE_MAX_BYTES);
        let held = request.service.limits.answer(answer_bytes).await?;
        let room_bytes = answer_bytes.saturating_sub(FRAME_BYTES);
        Ok(Page { shown: Vec::new(), is_cut: false, max_count, room_bytes, held })
    }

    /// Adds an entry; false: it does not fit. The first always does, or a listing would never end.
    pub(super) fn push(&mut self, entry: Value) -> bool {
        let len_bytes = entry.to_string().len() + 1;
        if self.shown.len() >= self.max_count || len_bytes > self.room_bytes && !self.shown.is_empty() {
            self.is_cut = true;
            return false;
        }
        self.room_bytes = self.room_bytes.saturating_sub(len_bytes);
        self.shown.push(entry);
        true
    }

    /// The whole answer.
    pub(super) fn answer(self, fields: &Map<String, Value>) -> Answer {
        Answer { held: Some(self.held), ..Answer::of(fields) }
    }
}

/// ListObjects in both its forms: those of version 1 page by `Marker`, those of version 2 by token.
pub(super) async fn objects(request: &Request<'_>) -> Result<Answer, Refusal> {
    let input: input::ListObjects = request.parse()?;
    let name = input::bucket(&input.bucket)?;
    let told = Told { request, listed: Some(&input), object: (name, "") };
    request.may_do_with(&told, request.operation.action(), name, "")?;
    let max_count = match input.max_keys {
        // What SDKs write where nobody set it.
        None | Some(0) => PAGE_MAX_COUNT,
        Some(count) if count > 0 => count.min(PAGE_MAX_COUNT),
        Some(other) => return Err(input::invalid("Not a count of keys", "MaxKeys", &other.to_string())),
    };
    let continued = said(&input.continuation_token).map(token).transpose()?;
    let after = continued.as_deref().or(said(&input.start_after)).or(said(&input.marker)).unwrap_or_default();
    let (prefix, delimiter) = (said(&input.prefix).unwrap_or_default(), said(&input.delimiter).unwrap_or_default());
    let mut page = Page::new(request, max_count as usize).await?;
    let query = ListQuery {
        prefix: prefix.as_bytes().to_vec(),
        delimiter: delimiter.as_bytes().to_vec(),
        after: after.as_bytes().to_vec(),
        limit: max_count as usize,
    };
    let (_, listed) = request.service.store.list(name, query).await?;
    let (mut next, mut is_prefix) = (listed.next, Vec::new());
    for (index, entry) in listed.entries.iter().enumerate() {
        let (value, prefix) = shown::entry(entry);
        if !page.push(value) {
            next = index.checked_sub(1).and_then(|last| listed.entries.get(last)).map(|last| name_of(last).to_vec());
            break;
        }
        is_prefix.push(prefix);
    }
    let next = next.map(|next| shown::text(&next));
    let key_count = page.shown.len();
    let (prefixes, contents): (Vec<_>, Vec<_>) =
        std::mem::take(&mut page.shown).into_iter().zip(is_prefix).partition(|(_, is_prefix)| *is_prefix);
    let values = |shown: Vec<(Value, bool)>| shown.into_iter().map(|(value, _)| value).collect::<Vec<_>>();
    let answer = fields([
        ("Name", json!(name)),
        ("Prefix", json!(prefix)),
        ("Delimiter", json!(said(&input.delimiter))),
        ("MaxKeys", json!(max_count)),
        ("KeyCount", json!(key_count)),
        ("Contents", Value::Array(values(contents))),
        ("CommonPrefixes", Value::Array(values(prefixes))),
        ("IsTruncated", json!(next.is_some())),
        ("Marker", json!(said(&input.marker))),
        ("NextMarker", json!(next)),
        ("StartAfter", json!(said(&input.start_after))),
        ("ContinuationToken", json!(said(&input.continuation_token))),
        ("NextContinuationToken", json!(next.as_deref().map(next_token))),
    ]);
    Ok(page.answer(&answer))
}

fn name_of(entry: &ListEntry) -> &[u8] {
    match entry {
        ListEntry::Object { key, .. } => key,
        ListEntry::Prefix(prefix) => prefix,
    }
}

/// The token that resumes a listing after `name`: listings resume by name, whatever happens between two pages.
pub(super) fn next_token(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(name)
}

/// The name that a token stands for.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn token(token: &str) -> Result<String, Refusal> {
    let name = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    name.filter(|name| (1..=KEY_MAX_BYTES).contains(&name.len()))
        .ok_or_else(|| input::invalid("The continuation token provided is incorrect", "ContinuationToken", token))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn tokens_round_trip_and_others_are_refused() {
        assert_eq!(token(&next_token("a/ü")).unwrap(), "a/ü");
        for wrong in ["", "%", "_w", &next_token(&"k".repeat(1025))] {
            assert_eq!(token(wrong).unwrap_err().code, "InvalidArgument", "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_page_ends_where_the_message_is_full() {
        let held = Limits::new(1 << 20).answer(1000).await.unwrap();
        let mut page = Page { shown: Vec::new(), is_cut: false, max_count: 100, room_bytes: 30, held };
        assert!(page.push(json!("x".repeat(100))), "the first always fits");
        assert!(!page.push(json!("y")) && page.is_cut);
        let held = Limits::new(1 << 20).answer(1000).await.unwrap();
        let mut page = Page { shown: Vec::new(), is_cut: false, max_count: 2, room_bytes: 30, held };
        assert!(page.push(json!("a")) && page.push(json!("b")) && !page.is_cut);
        assert!(!page.push(json!("c")) && page.is_cut && page.shown.len() == 2);
    }
}
