//! Events of buckets, for who delivers them: in the order of the log, at least once each.
//!
//! One session of the cluster delivers. What it has not said to be delivered is delivered again, by itself or by whoever
//! comes after it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::catalog::{self, Bucket, Command, ETag, Event, Happening, ListEntry, ListQuery, Refusal, Setting, View};
use crate::ids::{BucketId, Ino, Seq};

use super::bucket::done;
use super::{Error, Store};

/// Keys of a page, where a directory is told key by key.
const PAGE_COUNT: usize = 250;
/// Events of a page, where what happened later is looked at.
const LATER_COUNT: usize = 1000;

/// An event that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its place.
    pub seq: Seq,
    /// Where it happened, with the bucket's `Setting::Notification`; none: nobody is to be told any more.
    pub bucket: Option<(Bucket, Bytes)>,
    /// What happened.
    pub event: Event,
}

impl Store {
    /// Refuses to have buckets tell what happens in them before all of the cluster know how to.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn expect_events(&self) -> Result<(), Error> {
        self.wait_for_level(|view| view.has_events(), "some process of the cluster knows no events yet").await
    }

    /// Whether this process is the one that delivers events: it takes that over if whoever did has ended.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn delivers_events(&self) -> Result<bool, Error> {
        let query = |view: &View<'_>| Ok(if view.has_events()? { Some(view.event_deliverer()?) } else { None });
        let Some((from, is_alive)) = self.snapshot(query).await? else { return Ok(false) };
        if is_alive {
            return Ok(self.session.is(from));
        }
        let outcome = self.session.propose(Command::ClaimEvents { from }).await?;
        won(done(outcome))
    }

    /// Events after `after`, at most `limit`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn waiting_events(&self, after: Seq, limit: usize) -> Result<Vec<Waiting>, Error> {
        self.snapshot(move |view| {
            let mut buckets: Vec<(BucketId, Option<(Bucket, Bytes)>)> = Vec::new();
            let mut waiting = Vec::new();
            for (seq, id, event) in view.events(after, limit)? {
                if !buckets.iter().any(|(known, _)| *known == id) {
                    let setting = view.setting(id, Setting::Notification)?;
                    buckets.push((id, view.bucket_by_id(id)?.zip(setting)));
                }
                let bucket = buckets.iter().find(|(known, _)| *known == id).and_then(|(_, bucket)| bucket.clone());
                waiting.push(Waiting { seq, bucket, event });
            }
            Ok(waiting)
        })
        .await
    }

    /// Forgets events up to `through`. False: somebody else delivers by now.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn events_delivered(&self, through: Seq) -> Result<bool, Error> {
        won(done(self.session.propose_repeatable(Command::EventsDelivered { through }).await?))
    }

    /// Events that were not kept because too many waited; and since when the first waits.
    ///
    /// # Errors
    /// `Catalog`.
    pub async fn event_backlog(&self) -> Result<Backlog, Error> {
        let query = |view: &View<'_>| {
            let first = view.events(Seq(0), 1)?;
            Ok((first.first().map(|(_, _, event)| event.time), view.lost_event_count()?))
        };
        let (first, lost_count) = self.ledger.readers().read(query).await?;
        let waited = first.map(|first| self.now().0.saturating_sub(first.0).max(0).unsigned_abs());
        Ok(Backlog { waited: waited.map(Duration::from_nanos), lost_count })
    }

    /// Returns when something may have happened, after `patience` at the latest.
    pub async fn something_happens(&self, heard: &mut catalog::Heard, patience: Duration) {
        let _ = tokio::time::timeout(patience, heard.next()).await;
    }

    /// Hears of what happens from now on.
    pub fn hear(&self) -> catalog::Heard {
        self.ledger.readers().changes().listen()
    }
}

/// How far delivery is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backlog {
    /// How long the first event that waits has waited; none: none does.
    pub waited: Option<Duration>,
    /// Events that were not kept because too many waited.
    pub lost_count: u64,
}

fn won(outcome: Result<(), Error>) -> Result<bool, Error> {
    match outcome {
        Ok(()) => Ok(true),
        Err(Error::Refused(Refusal::RecordChanged)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A directory that was renamed, told key by key: either what was under its former name is gone, or what is in it has come.
///
/// It is told as of now, which is later than it happened. A key that came to the directory since is told to have come
/// twice; one that left it since is found in the events that wait behind, and told to have gone from where it was before.
pub struct Renamed {
    bucket: Bucket,
    event: Event,
    listings: VecDeque<Listing>,
    /// Prefixes under which there may be what was under the former name, each with what stood in its place.
    aliases: Vec<(Vec<u8>, Vec<u8>)>,
    /// Directories that left their name, and get another: what is below them under the first path has the second as origin.
    leaving: Vec<(Ino, Vec<u8>, Vec<u8>)>,
    /// The last of the later events that was looked at; none: no more are.
    looked: Option<Seq>,
}

/// A directory whose keys are to be told, whatever its name is by now.
struct Listing {
    directory: Ino,
    /// What stands, or stood, for its key.
    prefix: Vec<u8>,
    /// What was told last, below the directory.
    after: Vec<u8>,
}

impl Renamed {
    /// None: the event is of no renamed directory.
    pub fn of(seq: Seq, bucket: &Bucket, event: &Event) -> Option<Renamed> {
        let (directory, looked) = match event.what {
            Happening::Left { directory } => (directory, Some(seq)),
            Happening::Came { directory } => (directory, None),
            _ => return None,
        };
        let (bucket, event, prefix) = (bucket.clone(), event.clone(), event.key.clone());
        let leaving = vec![(directory, Vec::new(), prefix.clone())];
        let listings = VecDeque::from([Listing { directory, prefix, after: Vec::new() }]);
        Some(Renamed { bucket, event, listings, aliases: Vec::new(), leaving, looked })
    }

    /// Some more events, each of one key; perhaps none. None: that was all.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn next(&mut self, store: &Store) -> Result<Option<Vec<Event>>, Error> {
        if let Some(listing) = self.listings.front_mut() {
            let (page, is_last) = listing.page(store, &self.bucket).await?;
            let events = page.into_iter().map(|(key, size_bytes, etag)| match self.event.what {
                Happening::Came { .. } => {
                    Event { what: Happening::Copied, key, size_bytes, etag: Some(etag), ..self.event }
                }
                _ => gone(&self.event, key),
            });
            let events = events.collect();
            if is_last {
                self.listings.pop_front();
            }
            return Ok(Some(events));
        }
        let Some(after) = self.looked else { return Ok(None) };
        let id = self.bucket.id;
        let later = store.snapshot(move |view| Ok(view.events(after, LATER_COUNT)?)).await?;
        self.looked = later.last().map(|(seq, ..)| *seq);
        let later = later.iter().filter(|(_, bucket, _)| *bucket == id);
        Ok(Some(later.flat_map(|(_, _, event)| self.gone_since(event)).collect()))
    }

    /// What a later event tells of keys that were under the former name.
    fn gone_since(&mut self, later: &Event) -> Vec<Event> {
        match &later.what {
            Happening::Left { directory } => {
                for (alias, origin) in &self.aliases {
                    if let Some(below) = later.key.strip_prefix(&alias[..]) {
                        let prefix = [&origin[..], below].concat();
                        self.leaving.push((*directory, Vec::new(), prefix.clone()));
                        self.listings.push_back(Listing { directory: *directory, prefix, after: Vec::new() });
                    } else if let Some(below) = alias.strip_prefix(&later.key[..]) {
                        self.leaving.push((*directory, below.to_vec(), origin.clone()));
                    }
                }
                Vec::new()
            }
            Happening::Came { directory } => {
                let came = self.leaving.iter().filter(|(left, ..)| left == directory);
                let aliases = came.map(|(_, below, origin)| ([&later.key[..], below].concat(), origin.clone()));
                self.aliases.extend(aliases);
                Vec::new()
            }
            Happening::Put
            | Happening::Copied
            | Happening::Completed
            | Happening::Deleted
            | Happening::Marked
            | Happening::CopiedPrefix
            | Happening::DeletedPrefix => {
                let below = |(alias, origin): &(Vec<u8>, Vec<u8>)| {
                    Some([&origin[..], later.key.strip_prefix(&alias[..])?].concat())
                };
                self.aliases.iter().filter_map(below).map(|key| gone(&self.event, key)).collect()
            }
        }
    }
}

impl Listing {
    /// Keys in the directory, under its prefix, with lengths and tags; and whether they are the last.
    async fn page(&mut self, store: &Store, bucket: &Bucket) -> Result<(Vec<(Vec<u8>, u64, ETag)>, bool), Error> {
        let (directory, id, after) = (self.directory, bucket.id, self.after.clone());
        let found = store.snapshot(move |view| {
            let Some(key) = view.directory_key(directory)? else { return Ok(None) };
            let after = if after.is_empty() { Vec::new() } else { [&key[..], &after].concat() };
            let query = ListQuery { prefix: key.clone(), after, limit: PAGE_COUNT, ..ListQuery::default() };
            Ok(Some((view.list(id, &query)?, key.len())))
        });
        let Some((page, key_len)) = found.await? else { return Ok((Vec::new(), true)) };
        let below = |key: &[u8]| key.get(key_len..).unwrap_or_default().to_vec();
        let is_last = page.next.is_none();
        self.after = page.next.map(|next| below(&next)).unwrap_or_default();
        let told = |entry: ListEntry| match entry {
            ListEntry::Object { key, size_bytes, etag, .. } => {
                Some(([&self.prefix[..], &below(&key)].concat(), size_bytes, etag))
            }
            ListEntry::Prefix(_) => None,
        };
        Ok((page.entries.into_iter().filter_map(told).collect(), is_last))
    }
}

fn gone(renamed: &Event, key: Vec<u8>) -> Event {
    Event { what: Happening::Deleted, time: renamed.time, key, version: None, size_bytes: 0, etag: None }
}
