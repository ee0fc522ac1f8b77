//! Serves the calls of peers that have proven to be members of the cluster.
//!
//! Invariants
//! - A call is refused before its service knows of it, or not at all. Who was expelled is not served, from the next call on.
//! - What serves a call ends with its deadline, its caller, its connection or the process, whichever is first.
//! - A stream that makes no sense is reset; its connection and all other streams go on.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::counters::Counters;
use super::frame::{Frame, Message, Refusal};
use super::identity::proven_peers;
use super::message::{Broken, Receiver, Reset, Sender};
use super::services::Services;
use super::{Body, Call, Class, Limits, Peer, Service};
use crate::ids::NodeId;

/// Who dials must have proven by then to be a member.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// A stream that was opened must say so soon what it is.
const FRAME_TIME: Duration = Duration::from_secs(10);
/// Why a connection is closed.
const EXPELLED: u32 = 1;

/// What all connections share.
pub(super) struct Server {
    services: Arc<Services>,
    counters: Arc<Counters>,
    limits: Limits,
    urgent: Semaphore,
    bulk: Semaphore,
    is_closing: AtomicBool,
    /// Whose certificates are good and who are no members any more.
    expelled: RwLock<HashSet<NodeId>>,
}

impl Server {
    pub(super) fn new(services: Arc<Services>, counters: Arc<Counters>, limits: Limits) -> Server {
        let (urgent, bulk) = (permits(limits.urgent_calls), permits(limits.bulk_calls));
        let (is_closing, expelled) = (AtomicBool::new(false), RwLock::default());
        Server { services, counters, limits, urgent, bulk, is_closing, expelled }
    }

    /// Serves these no more, nor anybody whose certificate names one of them.
    pub(super) fn expel(&self, nodes: HashSet<NodeId>) {
        *self.expelled.write().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    fn is_expelled(&self, peers: &[Peer]) -> bool {
        let expelled = self.expelled.read().unwrap_or_else(PoisonError::into_inner);
        peers.iter().any(|peer| expelled.contains(&peer.id))
    }

    /// Serves whoever dials, until the endpoint is closed. Dropped, it drops all that is being served.
    pub(super) async fn listen(self: Arc<Self>, endpoint: Endpoint) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) if connections.len() < self.limits.connections as usize => {
                        connections.spawn(Arc::clone(&self).serve_connection(incoming));
                    }
                    Some(incoming) => {
                        self.counters.rejected.add(1);
                        incoming.refuse();
                    }
                    None => return,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn serve_connection(self: Arc<Self>, incoming: Incoming) {
        let address = incoming.remote_address();
        let reason = match timeout(HANDSHAKE_TIME, incoming.into_future()).await {
            Ok(Ok(connection)) => return self.serve_member(address, connection).await,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        self.counters.rejected.add(1);
        tracing::debug!("{address} was not let in: {reason}");
    }

    async fn serve_member(self: Arc<Self>, address: SocketAddr, connection: Connection) {
        let from: Arc<[Peer]> = proven_peers(&connection).into();
        tracing::debug!("{address} has connected as {from:?}");
        let reason = self.serve_streams(&connection, from).await;
        tracing::debug!("{address} has gone: {reason}");
    }

    async fn serve_streams(self: Arc<Self>, connection: &Connection, from: Arc<[Peer]>) -> quinn::ConnectionError {
        let mut calls = JoinSet::new();
        loop {
            tokio::select! {
                stream = connection.accept_bi() => match stream {
                    Ok(_) if self.is_expelled(&from) => {
                        self.counters.rejected.add(1);
                        connection.close(EXPELLED.into(), b"the cluster has removed this node");
                    }
                    Ok((send, receive)) => {
                        calls.spawn(Arc::clone(&self).serve_stream(Arc::clone(&from), send, receive));
                    }
                    Err(reason) => return reason,
                },
                Some(_) = calls.join_next() => {}
            }
        }
    }

    async fn serve_stream(self: Arc<Self>, from: Arc<[Peer]>, send: SendStream, receive: RecvStream) {
        let mut sender = Sender::new(send, Arc::clone(&self.counters));
        let mut receiver = Receiver::new(receive, Arc::clone(&self.counters));
        let Ok(frame) = timeout(FRAME_TIME, receiver.frame()).await else { return };
        let served = match frame {
            Ok(frame) => self.serve_frame(&from, frame, &mut sender, receiver).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            let is_malformed = error.is_malformed();
            self.counters.malformed.add(u64::from(is_malformed));
            sender.reset(if is_malformed { Reset::Malformed } else { Reset::Abandoned });
            tracing::debug!("a call of {from:?} was not served to its end: {error}");
        }
    }

    async fn serve_frame(
        &self,
        from: &[Peer],
        frame: Frame,
        sender: &mut Sender,
        receiver: Receiver,
    ) -> Result<(), Broken> {
        let Message::Call { to, class, method, deadline_ms } = frame.message else {
            return answer_hello(frame, sender).await;
        };
        let (service, _permit) = match self.admit(to, class, method) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.counters.refused.add(1);
                return send_bare(sender, Message::Refusal(refusal), frame.id).await;
            }
        };
        let deadline = Instant::now() + Duration::from_millis(deadline_ms.into());
        let gone = sender.gone();
        tokio::pin!(gone);
        let answer = async {
            let (header, body) = receiver.content(&frame, deadline, ()).await?;
            self.counters.served.add(1);
            let reply = service.serve(from, Call { method, header, body }).await;
            sender.send(Message::Reply { status: reply.status }, frame.id, reply.header, reply.body).await
        };
        let answered = tokio::select! {
            answered = timeout_at(deadline, answer) => answered,
            _ = &mut gone => return Ok(()),
        };
        match answered {
            // The permit is held until the answer has arrived: who waits for all permits has seen all answers off.
            Ok(Ok(())) => _ = timeout_at(deadline, gone).await,
            Ok(Err(error)) => return Err(error),
            Err(_) => sender.reset(Reset::Deadline),
        }
        Ok(())
    }

    /// The service for a call and the right to use it now.
    fn admit(&self, to: Peer, class: Class, method: u16) -> Result<(Arc<dyn Service>, SemaphorePermit<'_>), Refusal> {
        let permit = self.of_class(class).try_acquire();
        // Asked after the permit is taken, as it is set before all permits are.
        if self.is_closing.load(Ordering::SeqCst) {
            return Err(Refusal::Closing);
        }
        Ok((self.services.find(to, method)?, permit.map_err(|_| Refusal::Busy)?))
    }

    fn of_class(&self, class: Class) -> &Semaphore {
        match class {
            Class::Urgent => &self.urgent,
            Class::Bulk => &self.bulk,
        }
    }

    /// Refuses calls from now on, and waits until those under way are answered.
    pub(super) async fn drain(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        let all = [(&self.urgent, self.limits.urgent_calls), (&self.bulk, self.limits.bulk_calls)];
        for (semaphore, count) in all {
            // Nobody closes these.
            let _ = semaphore.acquire_many(count).await;
        }
    }
}

fn permits(count: u32) -> Semaphore {
    Semaphore::new(count as usize)
}

async fn answer_hello(frame: Frame, sender: &mut Sender) -> Result<(), Broken> {
    match frame.message {
        Message::Hello => send_bare(sender, Message::Hello, frame.id).await,
        _ => Err(Broken::Unasked),
    }
}

async fn send_bare(sender: &mut Sender, message: Message, id: u32) -> Result<(), Broken> {
    sender.send(message, id, bytes::Bytes::new(), Body::empty()).await
}
