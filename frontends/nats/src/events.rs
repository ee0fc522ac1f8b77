//! Events of buckets, published on the bus: in the order of the log, each at least once.
//!
//! Invariants
//! - What was published is forgotten only once the server has it: with JetStream by its acknowledgement of each message,
//!   without it because what was sent behind it on the same connection came back.
//! - One process of the cluster publishes; what it leaves is published by whoever takes over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::header::{HeaderMap, NATS_MESSAGE_ID};
use async_nats::jetstream::{self, context::PublishAckFuture};
use async_nats::{Client, Subscriber};
use aws_lc_rs::digest;
use bytes::Bytes;
use futures::StreamExt;
use predastore::catalog::{Bucket, Event, Happening, Heard};
use predastore::env::Timestamp;
use predastore::ids::Seq;
use predastore::object::{self, Renamed, Store, Waiting};
use predastore_vocabulary::notification::{EventName, Notification, message};

use crate::metrics::Metrics;

/// Events that are read at once.
const BATCH_COUNT: usize = 256;
/// Messages that are on their way at once.
const UNACKED_MAX: usize = 256;
/// Whoever does not publish looks again whether somebody does; who has nothing to publish, whether there is.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);
/// How long the server may take to have what it was sent.
const SERVER_PATIENCE: Duration = Duration::from_secs(10);
/// What happens in this time is looked at together, whatever buckets it is in.
const GATHER: Duration = Duration::from_millis(20);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How it is known that a message has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// The server has passed it to who listens just then.
    Core,
    /// A stream has stored it.
    JetStream,
}

/// Where events go.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How it is known that they have arrived.
    pub delivery: Delivery,
    /// The subject, without the bucket's name behind it.
    pub subject: String,
}

/// Why events could not be published just now. They wait.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the store: {0}")]
    Store(#[from] object::Error),
    #[error("the rules of bucket {0} are of a later version")]
    Rules(String),
    #[error("no stream has stored it: {0}")]
    NotStored(String),
    #[error("the NATS client: {0}")]
    Client(String),
    #[error("the connection was made anew meanwhile")]
    Reconnected,
    #[error("the server does not allow it")]
    Denied,
    #[error("the server is too slow, or away")]
    Late,
}

/// Publishes the events of a store.
pub(crate) struct Publisher {
    store: Store,
    client: Client,
    settings: Settings,
    region: String,
    metrics: Metrics,
}

impl Publisher {
    pub(crate) fn new(store: Store, client: Client, settings: Settings, region: String, metrics: Metrics) -> Self {
        Publisher { store, client, settings, region, metrics }
    }

    /// Publishes for ever. To be dropped where it stands.
    pub(crate) async fn run(self) {
        let mut heard = self.store.hear();
        let (mut pause, mut is_told) = (PAUSE_MIN, false);
        // Who delivered before may have been in the midst of it.
        let mut again = Some(self.store.now());
        loop {
            match self.publish_some(&mut heard, &mut again).await {
                Ok(()) => (pause, is_told) = (PAUSE_MIN, false),
                Err(error) => {
                    if !is_told {
                        tracing::warn!(%error, "events are not published; it is tried again");
                        is_told = true;
                    }
                    again = Some(self.store.now());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Publishes all that waits, and waits for more a while. `again`: since when what waits is tried once more.
    async fn publish_some(&self, heard: &mut Heard, again: &mut Option<Timestamp>) -> Result<(), Error> {
        if !self.store.delivers_events().await? {
            *again = Some(self.store.now());
            tokio::time::sleep(LOOK_INTERVAL).await;
            return Ok(());
        }
        self.metrics.backlog(self.store.event_backlog().await?);
        let waiting = self.store.waiting_events(Seq(0), BATCH_COUNT).await?;
        let Some(last) = waiting.last().map(|one| one.seq) else {
            self.store.something_happens(heard, LOOK_INTERVAL).await;
            tokio::time::sleep(GATHER).await;
            return Ok(());
        };
        let mut sending = self.begin(*again).await?;
        let mut through = last;
        for one in waiting {
            let (seq, is_many) = (one.seq, matches!(one.event.what, Happening::Left { .. } | Happening::Came { .. }));
            self.publish(&mut sending, one).await?;
            // A directory may have millions of keys: they are not told again for what comes behind them.
            if is_many {
                through = seq;
                break;
            }
        }
        sending.arrived().await?;
        self.store.events_delivered(through).await?;
        *again = None;
        Ok(())
    }

    async fn publish(&self, sending: &mut Sending, waiting: Waiting) -> Result<(), Error> {
        let Some((bucket, setting)) = waiting.bucket else { return Ok(()) };
        let rules = Notification::decode(&setting).ok_or_else(|| Error::Rules(bucket.name.clone()))?;
        match Renamed::of(waiting.seq, &bucket, &waiting.event) {
            None => self.publish_one(sending, &bucket, &rules, waiting.seq, &waiting.event).await,
            Some(mut renamed) => {
                while let Some(events) = renamed.next(&self.store).await? {
                    for event in events {
                        self.publish_one(sending, &bucket, &rules, waiting.seq, &event).await?;
                    }
                }
                Ok(())
            }
        }
    }

    async fn publish_one(
        &self,
        sending: &mut Sending,
        bucket: &Bucket,
        rules: &Notification,
        seq: Seq,
        event: &Event,
    ) -> Result<(), Error> {
        let Some(name) = EventName::of(&event.what) else { return Ok(()) };
        let Some(rule) = rules.rule_for(name, &event.key) else { return Ok(()) };
        let Some(message) = message(bucket, &self.region, rule, seq, event) else { return Ok(()) };
        let subject = format!("{}.{}", self.settings.subject, bucket.name);
        let id = message_id(bucket, name, seq, event, sending.again);
        sending.send(subject, id, message.to_string().into()).await?;
        self.metrics.told();
        Ok(())
    }

    async fn begin(&self, again: Option<Timestamp>) -> Result<Sending, Error> {
        let client = self.client.clone();
        let (connects, denied) = (connects(&client), self.metrics.server_errors());
        let way = match self.settings.delivery {
            Delivery::JetStream => {
                let context = jetstream::ContextBuilder::new().timeout(SERVER_PATIENCE).build(client.clone());
                Way::JetStream { context, acks: Vec::new() }
            }
            Delivery::Core => {
                let inbox = client.new_inbox();
                let back = client.subscribe(inbox.clone()).await.map_err(client_error)?;
                Way::Core { inbox, back }
            }
        };
        Ok(Sending { client, way, connects, denied, again, metrics: self.metrics.clone() })
    }
}

/// Names a message, so that a stream takes it once, however often the client sends it. Tried again it has another name: of what
/// was tried before, a part may be stored, and what comes again must come whole, or the last word on a key is not the last.
fn message_id(bucket: &Bucket, name: EventName, seq: Seq, event: &Event, again: Option<Timestamp>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&bucket.id.0.to_be_bytes());
    context.update(&bucket.created.0.to_be_bytes());
    context.update(&seq.0.to_be_bytes());
    context.update(name.name().as_bytes());
    context.update(&again.map_or([0; 8], |since| since.0.to_be_bytes()));
    context.update(&event.key);
    context.finish().as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

fn client_error(error: impl std::fmt::Display) -> Error {
    Error::Client(error.to_string())
}

/// Messages on their way.
struct Sending {
    client: Client,
    way: Way,
    /// Connections until it began, and errors of the server.
    connects: u64,
    denied: u64,
    /// Since when it is tried once more.
    again: Option<Timestamp>,
    metrics: Metrics,
}

/// How it is found out that messages have arrived.
enum Way {
    Core { inbox: String, back: Subscriber },
    JetStream { context: jetstream::Context, acks: Vec<PublishAckFuture> },
}

impl Sending {
    async fn send(&mut self, subject: String, id: String, payload: Bytes) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, id.as_str());
        match &mut self.way {
            Way::Core { .. } => {
                let sent = self.client.publish_with_headers(subject, headers, payload);
                within(sent).await?.map_err(client_error)
            }
            Way::JetStream { context, acks } => {
                let sent = context.publish_with_headers(subject, headers, payload);
                acks.push(within(sent).await?.map_err(client_error)?);
                match acks.len() {
                    UNACKED_MAX.. => stored(acks).await,
                    _ => Ok(()),
                }
            }
        }
    }

    /// Returns when all that was sent has arrived.
    async fn arrived(mut self) -> Result<(), Error> {
        match &mut self.way {
            Way::JetStream { acks, .. } => stored(acks).await,
            Way::Core { inbox, back } => {
                within(self.client.publish(inbox.clone(), Bytes::new())).await?.map_err(client_error)?;
                within(back.next()).await?.ok_or(Error::Late)?;
                back.unsubscribe().await.ok();
                // What the first connection lost, the second does not give back.
                match (connects(&self.client) == self.connects, self.metrics.server_errors() == self.denied) {
                    (true, true) => Ok(()),
                    (false, _) => Err(Error::Reconnected),
                    (true, false) => Err(Error::Denied),
                }
            }
        }
    }
}

async fn stored(acks: &mut Vec<PublishAckFuture>) -> Result<(), Error> {
    for ack in acks.drain(..) {
        ack.await.map_err(|error| Error::NotStored(error.to_string()))?;
    }
    Ok(())
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    tokio::time::timeout(SERVER_PATIENCE, work).await.map_err(|_| Error::Late)
}
