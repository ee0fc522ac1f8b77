//! Keeping the mirror what the server has.
//!
//! A key-value bucket is a stream, `KV_<bucket>`, of one message a key. What is published to it is heard as it comes, which
//! only says that it is time to look; what there is to know is asked of the stream, message by message from where the mirror
//! is. So nothing is missed by who hears too little, and the mirror is known to be right when the stream says that it has no
//! more. Source: "KV Design" (ADR-8) and "JetStream wire API", NATS.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Info, RawMessageErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{ReadyChunks, SelectAll};

use super::Iam;
use super::mirror::{Kept, MIRROR_MAX_BYTES, Mirror};

/// After a hint it is looked at once, and again after this, for the stream may not have it yet; then less and less often.
const LOOK_MIN: Duration = Duration::from_millis(50);
/// What is heard in this time is looked for at once.
const GATHER: Duration = Duration::from_millis(20);
/// How often it is looked without a hint.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// How long one question may take.
const SERVER_PATIENCE: Duration = Duration::from_secs(3);
/// Hints that are taken at once.
const HINT_COUNT: usize = 256;
/// A bucket that changes all the time is taken as it is after so many rounds.
const ROUND_COUNT: usize = 20;

type Hints = ReadyChunks<SelectAll<Subscriber>>;

/// How far the mirror of a bucket is.
struct Seen {
    /// When the stream was made: another one has nothing in common with it.
    created: String,
    last: u64,
    /// Keys, those that were deleted among them.
    keys: HashSet<String>,
}

/// A message as a change: none: the key is gone.
type Change = (String, Option<Bytes>);

/// Returns when it is time to look; not at all where nothing can be heard.
async fn hint(hints: &mut Hints) {
    if hints.next().await.is_none() {
        std::future::pending().await
    }
}

/// Keeps a directory up.
pub(crate) struct Watcher {
    iam: Iam,
    client: Client,
    context: jetstream::Context,
    prefix: String,
}

impl Watcher {
    /// `prefix`: of the buckets' names.
    pub(crate) fn new(iam: Iam, client: Client, prefix: String) -> Watcher {
        let context = jetstream::ContextBuilder::new().timeout(SERVER_PATIENCE).build(client.clone());
        Watcher { iam, client, context, prefix }
    }

    /// Watches for ever. To be dropped where it stands.
    pub(crate) async fn run(self) {
        let mut hints = self.listen().await;
        let mut seen = HashMap::new();
        let (mut pause, mut is_told) = (LOOK_MIN, false);
        loop {
            let begun = Instant::now();
            let looked = self.look(&mut seen).await;
            if let Err(why) = &looked
                && !is_told
            {
                tracing::warn!(why, "access keys on the bus cannot be read; it is tried again");
            } else if looked.is_ok() && is_told {
                tracing::info!("access keys on the bus are read again");
            }
            is_told = looked.is_err();
            // A server that was away may be back with less than it had, and have got as far again since.
            if looked.is_err() {
                seen.clear();
            }
            self.iam.with(|shared| match looked {
                Ok(()) => shared.verified = Some(begun),
                Err(why) => shared.why = why,
            });
            pause = match tokio::time::timeout(pause, hint(&mut hints)).await {
                Ok(()) => {
                    tokio::time::sleep(GATHER).await;
                    LOOK_MIN
                }
                Err(_) => (pause * 2).min(LOOK_MAX),
            };
        }
    }

    fn bucket(&self, kept: Kept) -> String {
        format!("{}-{}", self.prefix, kept.name())
    }

    /// Hints where the server lets them be heard; without any it is looked now and then.
    async fn listen(&self) -> Hints {
        let mut all = SelectAll::new();
        for kept in Kept::ALL {
            if let Ok(subscriber) = self.client.subscribe(format!("$KV.{}.>", self.bucket(kept))).await {
                all.push(subscriber);
            }
        }
        all.ready_chunks(HINT_COUNT)
    }

    /// Returns when the mirror is what the server has.
    async fn look(&self, seen: &mut HashMap<&'static str, Seen>) -> Result<(), String> {
        for kept in Kept::ALL {
            let former = seen.remove(kept.name());
            if let Some(now) = self.look_at(kept, former).await? {
                seen.insert(kept.name(), now);
            }
        }
        Ok(())
    }

    /// None: there is no such bucket.
    async fn look_at(&self, kept: Kept, former: Option<Seen>) -> Result<Option<Seen>, String> {
        let Some((stream, info)) = self.stream(kept).await? else {
            self.keep(|mirror| mirror.load(kept, HashMap::new()))?;
            return Ok(None);
        };
        let created = info.created.to_string();
        if let Some(mut seen) = former.filter(|seen| seen.created == created && seen.last <= info.state.last_sequence) {
            for (key, value) in self.changes(kept, &stream, &mut seen, info.state.last_sequence).await? {
                self.keep(|mirror| mirror.change(kept, key, value))?;
            }
            // What was purged or has aged left no message.
            if seen.keys.len() as u64 == info.state.subjects_count {
                return Ok(Some(seen));
            }
        }
        self.reload(kept, stream, info).await.map(Some)
    }

    /// Reads all of a bucket, and what is changed meanwhile.
    async fn reload(&self, kept: Kept, stream: Stream, info: Info) -> Result<Seen, String> {
        let created = info.created.to_string();
        let mut seen = Seen { created, last: info.state.first_sequence.saturating_sub(1), keys: HashSet::new() };
        let (mut entries, mut end) = (HashMap::new(), info.state.last_sequence);
        for _ in 0..ROUND_COUNT {
            for (key, value) in self.changes(kept, &stream, &mut seen, end).await? {
                match value {
                    Some(value) => entries.insert(key, value),
                    None => entries.remove(&key),
                };
            }
            match self.stream(kept).await? {
                Some((_, info)) if info.state.last_sequence > end => end = info.state.last_sequence,
                Some(_) | None => break,
            }
        }
        self.keep(|mirror| mirror.load(kept, entries))?;
        Ok(seen)
    }

    /// Changes the mirror. Where that does not fit it lacks something, and tells nothing of anybody from there on.
    fn keep(&self, change: impl FnOnce(&mut Mirror) -> bool) -> Result<(), String> {
        let fits = self.iam.with(|shared| {
            let fits = change(&mut shared.mirror);
            shared.verified = shared.verified.filter(|_| fits);
            fits
        });
        if fits { Ok(()) } else { Err(self.too_large()) }
    }

    fn too_large(&self) -> String {
        format!("the buckets {}-* hold more than fits", self.prefix)
    }

    async fn stream(&self, kept: Kept) -> Result<Option<(Stream, Info)>, String> {
        match self.context.get_stream(format!("KV_{}", self.bucket(kept))).await {
            Ok(stream) => {
                let info = stream.cached_info().clone();
                Ok(Some((stream, info)))
            }
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(format!("bucket {}: {error}", self.bucket(kept))),
            },
        }
    }

    /// Messages behind those that were seen, up to `end`.
    async fn changes(&self, kept: Kept, stream: &Stream, seen: &mut Seen, end: u64) -> Result<Vec<Change>, String> {
        let bucket = self.bucket(kept);
        let subjects = format!("$KV.{bucket}.");
        let (mut changes, mut len_bytes) = (Vec::new(), 0);
        while seen.last < end {
            let asked = stream.get_first_raw_message_by_subject(">", seen.last + 1);
            let message = match tokio::time::timeout(SERVER_PATIENCE, asked).await {
                Ok(Ok(message)) => message,
                // The rest was overwritten since: newer messages tell of it.
                Ok(Err(error)) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                    seen.last = end;
                    break;
                }
                Ok(Err(error)) => return Err(format!("bucket {bucket}: {error}")),
                Err(_) => return Err(format!("bucket {bucket}: the server does not answer")),
            };
            seen.last = message.sequence;
            let Some(key) = message.subject.strip_prefix(&subjects) else { continue };
            let is_gone = message.headers.get("KV-Operation").is_some_and(|value| value.as_str() != "PUT")
                || message.headers.get("Nats-Marker-Reason").is_some();
            len_bytes += key.len() + message.payload.len();
            if len_bytes > MIRROR_MAX_BYTES {
                return Err(self.too_large());
            }
            seen.keys.insert(key.to_owned());
            changes.push((key.to_owned(), (!is_gone).then_some(message.payload)));
        }
        Ok(changes)
    }
}
