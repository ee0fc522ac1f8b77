//! Subscriptions, and each message from its arrival to its answer: admit it, find out who sent it, authorize it, do it,
//! account for it.
//!
//! Invariants
//! - This is the only way in, and it denies by default: no operation runs before its sender is known, by an envelope or
//!   because the configuration trusts the connection.
//! - A message that asks for no answer does nothing.
//! - A nonce is used up before its request is carried out, and by nothing that was not verified.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::{Client, Message, Subject, Subscriber};
use futures::StreamExt;
use futures::stream::SelectAll;
use predastore::object::Store;
use predastore::object::access::{Authority, Caller, Tagged};
use predastore_vocabulary::error::{ErrorCode, S3Error};
use tokio_util::task::TaskTracker;

use crate::answer::{Answer, Refusal};
use crate::connect::{self, Connector};
use crate::envelope::{self, Envelope, Signed};
use crate::events::{self, Publisher};
use crate::iam::{Iam, Watcher};
use crate::limits::{Admitted, Limits};
use crate::metrics::Metrics;
use crate::nonces::Nonces;
use crate::operations::{self, Request, Service};
use crate::presign::Presign;
use crate::subject::{Operation, QUEUE_GROUP};

/// The longest message of an operation that carries no body.
const BODILESS_MAX_BYTES: usize = 64 << 10;
/// A message with a body is there as it came, as text and as bytes.
const COPIES: usize = 3;
/// How long an answer waits for the connection, which may be lost just now.
const SEND_PATIENCE: Duration = Duration::from_secs(10);
/// How long the server may take to be told that we go, and the last answers to reach it.
const SERVER_PATIENCE: Duration = Duration::from_secs(2);
/// How long a refusal holds up the messages behind it: they are too many already.
const REFUSE_PATIENCE: Duration = Duration::from_millis(100);

/// What the frontend is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Stands before every subject; empty: nothing does.
    pub prefix: String,
    /// What is served; nothing else is subscribed to.
    pub operations: Vec<Operation>,
    /// Who senders are.
    pub trust: Trust,
    /// Memory for messages and answers.
    pub memory_bytes: u64,
    /// The region of buckets that name none.
    pub region: String,
    /// `file` or `distributed`.
    pub backend: &'static str,
    /// Every db node of the cluster.
    pub db_nodes: Vec<DbNode>,
    /// Where events of buckets go; none: nowhere.
    pub events: Option<events::Settings>,
    /// A directory that is kept up, and the prefix of its buckets; none: there is none.
    pub iam: Option<(Iam, String)>,
    /// At shutdown, how long running requests may go on.
    pub drain: Duration,
}

/// How it is known who sent a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// By its envelope.
    Envelope,
    /// It need not be: whoever may publish acts as the holder of this access key.
    Connection(String),
}

/// A db node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DbNode {
    /// Which.
    pub id: u64,
    /// "host:port".
    pub dial: String,
}

/// The frontend: everything a message needs.
pub struct Frontend {
    service: Service,
    authority: Arc<Authority>,
    trust: Trust,
    nonces: Mutex<Nonces>,
    metrics: Metrics,
    subjects: HashMap<String, Operation>,
    events: Option<events::Settings>,
    iam: Option<(Iam, String)>,
    drain: Duration,
}

impl Frontend {
    /// Begins the frontend over `store`.
    pub fn new(store: Store, authority: Arc<Authority>, presign: Presign, config: Config, metrics: Metrics) -> Self {
        let Config { prefix, operations, trust, memory_bytes, region, backend, db_nodes, events, iam, drain } = config;
        let subjects =
            |operation: Operation| operation.subjects(&prefix).into_iter().map(move |name| (name, operation));
        Frontend {
            subjects: operations.into_iter().flat_map(subjects).collect(),
            service: Service { store, limits: Limits::new(memory_bytes), presign, region, backend, db_nodes },
            authority,
            trust,
            nonces: Mutex::default(),
            metrics,
            events,
            iam,
            drain,
        }
    }

    /// Serves until `stop`, then lets running requests end for a while.
    ///
    /// # Errors
    /// The client gave up, which it does not.
    pub async fn serve(self, connector: Connector, stop: impl Future<Output = ()>) -> Result<(), connect::Error> {
        if let Trust::Connection(access_key_id) = &self.trust {
            tracing::warn!(access_key_id, "nats.trusted: whoever may publish to these subjects acts as this account");
        }
        let client = connector.connect(self.metrics.clone()).await?;
        let mut messages = self.subscribe(&client).await?;
        let (publisher, watcher) = (self.publisher(&client), self.watcher(&client));
        tokio::pin!(publisher, watcher);
        let (frontend, tasks) = (Arc::new(self), TaskTracker::new());
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = &mut publisher => {}
                () = &mut watcher => {}
                message = messages.next() => match message {
                    Some(message) => frontend.admit(&client, message, &tasks).await,
                    None => return Err(connect::Error::Client("it has closed its subscriptions".to_owned())),
                },
            }
        }
        frontend.drain(&client, messages, &tasks).await;
        Ok(())
    }

    /// Publishes events, if they are published here; it does not end.
    fn publisher(&self, client: &Client) -> impl Future<Output = ()> + Send + use<> {
        let publisher = self.events.clone().map(|settings| {
            let (store, region) = (self.service.store.clone(), self.service.region.clone());
            Publisher::new(store, client.clone(), settings, region, self.metrics.clone())
        });
        async move {
            match publisher {
                Some(publisher) => publisher.run().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Keeps the directory up, if there is one; it does not end.
    fn watcher(&self, client: &Client) -> impl Future<Output = ()> + Send + use<> {
        let watcher = self.iam.clone().map(|(iam, prefix)| Watcher::new(iam, client.clone(), prefix));
        async move {
            match watcher {
                Some(watcher) => watcher.run().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Answers what was delivered; others of the queue group get the rest. A server that is away is not waited for.
    async fn drain(self: &Arc<Self>, client: &Client, mut messages: SelectAll<Subscriber>, tasks: &TaskTracker) {
        let is_connected = || client.connection_state() == State::Connected;
        let delivered = async {
            for subscription in messages.iter_mut() {
                subscription.unsubscribe().await.ok();
            }
            while let Some(message) = messages.next().await {
                self.admit(client, message, tasks).await;
            }
        };
        if is_connected() {
            tokio::time::timeout(SERVER_PATIENCE, delivered).await.ok();
        }
        tasks.close();
        if tokio::time::timeout(self.drain, tasks.wait()).await.is_err() {
            tracing::warn!("requests over NATS were still running");
        }
        if is_connected() {
            tokio::time::timeout(SERVER_PATIENCE, client.flush()).await.ok();
        }
    }

    async fn subscribe(&self, client: &Client) -> Result<SelectAll<Subscriber>, connect::Error> {
        let mut messages = SelectAll::new();
        for (subject, operation) in &self.subjects {
            let subscribed = match operation.is_shared() {
                true => client.queue_subscribe(subject.clone(), QUEUE_GROUP.to_owned()).await,
                false => client.subscribe(subject.clone()).await,
            };
            messages.push(subscribed.map_err(|error| connect::Error::Client(error.to_string()))?);
        }
        Ok(messages)
    }

    /// Takes what a message holds, and has it answered; or refuses it at once.
    async fn admit(self: &Arc<Self>, client: &Client, message: Message, tasks: &TaskTracker) {
        let Some(operation) = self.subjects.get(message.subject.as_str()).copied() else { return };
        let Some(reply) = message.reply.clone() else { return self.metrics.without_reply() };
        let begun = Instant::now();
        self.metrics.begin();
        match self.admitted(operation, message.payload.len()) {
            Ok(admitted) => {
                let (frontend, client) = (self.clone(), client.clone());
                tasks.spawn(async move {
                    frontend.handle(&client, operation, &message, &reply, begun).await;
                    drop(admitted);
                });
            }
            Err(refusal) => {
                let answer = Answer { bytes: refusal.to_json(), held: None };
                let done = Done::new(operation, begun, &message);
                self.send(client, &reply, answer, Some(&refusal), done, REFUSE_PATIENCE).await;
            }
        }
    }

    fn admitted(&self, operation: Operation, payload_bytes: usize) -> Result<Admitted, Refusal> {
        let limits = &self.service.limits;
        if operation != Operation::PutObject {
            return match payload_bytes {
                0..=BODILESS_MAX_BYTES => Ok(limits.admit(payload_bytes)?),
                _ => Err(ErrorCode::MaxMessageLengthExceeded.into()),
            };
        }
        let held_bytes = payload_bytes.saturating_mul(COPIES);
        match limits.could_admit(held_bytes) {
            true => Ok(limits.admit(held_bytes)?),
            false => {
                let message = "The body is too long for a message here: ask for a URL with `\"Presign\": true`.";
                Err(S3Error::new(ErrorCode::EntityTooLarge, message).into())
            }
        }
    }

    async fn handle(&self, client: &Client, operation: Operation, message: &Message, reply: &Subject, begun: Instant) {
        let mut done = Done::new(operation, begun, message);
        let answered = self.answer(client, message, reply, &mut done).await;
        let max_bytes = client.max_payload();
        let answered = answered.and_then(|answer| match answer.bytes.len() <= max_bytes {
            true => Ok(answer),
            false => Err(S3Error::new(ErrorCode::InternalError, "The answer is longer than the server allows.").into()),
        });
        let (answer, refusal) = match answered {
            Ok(answer) => (answer, None),
            Err(refusal) => (Answer { bytes: refusal.to_json(), held: None }, Some(refusal)),
        };
        self.send(client, reply, answer, refusal.as_ref(), done, SEND_PATIENCE).await;
    }

    async fn answer(
        &self,
        client: &Client,
        message: &Message,
        reply: &Subject,
        done: &mut Done,
    ) -> Result<Answer, Refusal> {
        let _turn = self.service.limits.turn().await?;
        let caller = self.sender(message, reply, done).await?;
        done.caller = Some(caller.clone());
        if caller.session.is_some() {
            // An envelope has no place for the token that such a key counts with.
            return Err(ErrorCode::InvalidToken.into());
        }
        let named = operations::Named::of(&message.payload);
        let buckets = named.buckets();
        let buckets: Vec<&str> = buckets.iter().map(String::as_str).collect();
        let rights = match done.operation {
            Operation::CreateBucket => {
                self.authority.rights_to_make(Some(caller.clone()), buckets.first().copied().unwrap_or_default())
            }
            _ => self.authority.rights(Some(caller.clone()), &buckets).await?,
        };
        if buckets.iter().any(|bucket| rights.pays(bucket)) {
            // A request has no place to say that its sender knows.
            return Err(ErrorCode::AccessDenied.into());
        }
        let tagged = Tagged::of(&self.service.store, &rights, named.decided_by_tags(done.operation)).await?;
        let request = Request {
            service: &self.service,
            operation: done.operation,
            caller: &caller,
            rights: &rights,
            tagged: &tagged,
            payload: &message.payload,
            answer_max_bytes: client.max_payload(),
            named: OnceLock::new(),
        };
        let answered = operations::carry_out(&request).await;
        (done.bucket, done.key) = request.named.into_inner().unwrap_or_default();
        answered
    }

    /// Who sent a message.
    async fn sender(&self, message: &Message, reply: &Subject, done: &mut Done) -> Result<Arc<Caller>, Refusal> {
        let envelope = match &self.trust {
            Trust::Connection(access_key_id) => {
                done.access_key_id.clone_from(access_key_id);
                let caller = self.authority.caller(access_key_id).await?.ok_or(ErrorCode::InvalidAccessKeyId)?;
                return Ok(caller);
            }
            Trust::Envelope => envelope_of(message)?,
        };
        let now_s = self.service.store.now().seconds();
        done.access_key_id.clone_from(&envelope.access_key_id);
        envelope.check_time(now_s)?;
        let caller = self.authority.caller(&envelope.access_key_id).await?.ok_or(ErrorCode::InvalidAccessKeyId)?;
        let signed = Signed { subject: &message.subject, payload: &message.payload, reply };
        envelope.verify(&caller.secret, &signed)?;
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner).use_up(&envelope, now_s)?;
        Ok(caller)
    }

    /// Sends an answer, writes the log line, and counts.
    async fn send(
        &self,
        client: &Client,
        reply: &Subject,
        answer: Answer,
        refusal: Option<&Refusal>,
        done: Done,
        patience: Duration,
    ) {
        let sent_bytes = answer.bytes.len();
        let sent = tokio::time::timeout(patience, client.publish(reply.clone(), answer.bytes.into())).await;
        if !matches!(sent, Ok(Ok(()))) {
            self.metrics.unanswered();
        }
        let Done { operation, begun, received_bytes, .. } = done;
        let (operation, code) = (operation.name(), refusal.map_or("OK", |refusal| refusal.code));
        // As strings, which are quoted and escaped: a key may hold line ends, and what looks like other fields.
        let (bucket, key, access_key) = (done.bucket.as_str(), done.key.as_str(), done.access_key_id.as_str());
        match refusal.and_then(|refusal| refusal.cause.as_deref()) {
            None => {}
            Some(cause) if code == ErrorCode::ServiceUnavailable.as_str() => {
                tracing::warn!(operation, bucket, key, cause, "the store is not available");
            }
            Some(cause) => tracing::error!(operation, bucket, key, cause, "the store failed"),
        }
        self.metrics.end(operation, code, begun.elapsed(), (received_bytes, sent_bytes));
        let took_us = begun.elapsed().as_micros() as u64;
        tracing::info!(
            target: "nats",
            operation,
            bucket,
            key,
            code,
            access_key,
            user = done.caller.as_ref().and_then(|caller| caller.user.as_deref()),
            account = done.caller.as_ref().map(|caller| caller.account_id.as_str()),
            received_bytes,
            sent_bytes,
            took_us,
            "request"
        );
    }
}

/// A request that has an answer.
struct Done {
    operation: Operation,
    begun: Instant,
    received_bytes: usize,
    /// Empty: nobody is known.
    access_key_id: String,
    /// Whose it is, proven.
    caller: Option<Arc<Caller>>,
    bucket: String,
    key: String,
}

impl Done {
    fn new(operation: Operation, begun: Instant, message: &Message) -> Self {
        let (access_key_id, caller, bucket, key) = Default::default();
        Done { operation, begun, received_bytes: message.payload.len(), access_key_id, caller, bucket, key }
    }
}

/// The one envelope of a message.
fn envelope_of(message: &Message) -> Result<Envelope, Refusal> {
    let mut values = message.headers.iter().flat_map(|headers| headers.get_all(envelope::HEADER));
    match (values.next(), values.next()) {
        (None, _) => {
            let message = "Access Denied: a request needs the header Predastore-Envelope.";
            Err(S3Error::new(ErrorCode::AccessDenied, message).into())
        }
        (Some(value), None) => Ok(value.as_str().parse()?),
        (Some(_), Some(_)) => Err(envelope::Error::Malformed.into()),
    }
}
