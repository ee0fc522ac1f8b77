//! What operators ask a cluster, and how it is changed: a service of every process that keeps a catalog, and its client.
//!
//! | method | question | answer |
//! |---|---|---|
//! | overview | | [`Overview`] |
//! | set-map | [`SetMap`] | |
//! | add-db | id, address | |
//! | remove-db | id | |
//! | chunks-on | node | how many |
//! | authority-key | | what [`Authority::key`] says; to voters only |
//! | sign-server | public key, names | what [`Authority::sign_server`] says |
//!
//! One version byte, then postcard. A reply's status is 0, or 1: its header is then the reason, as text.
//!
//! Invariant: members of the cluster, and whoever has its secret, may ask and change; nobody else gets this far (transport).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::members::{Cluster, db_peer, is_replica};
use crate::catalog::{Ledger, Map};
use crate::consensus::{Raft, State};
use crate::env::Env;
use crate::ids::NodeId;
use crate::object::{Store, Upkeep};
use crate::shard::{ClientError, ShardClient, wire::NodeStatus};
use crate::transport::{self, AddressBook, Body, Call, CallError, Caller, Class, Limits, Peer, Reply, Role};
use crate::transport::{Service, StartError, Transport, header};

/// The service's number.
pub(super) const SERVICE: u8 = 3;
const VERSION: u8 = 1;
const REFUSED: u16 = 1;
/// How long who is asked may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// A db node that is added has to catch up before.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(35 * 60);
const FAREWELL: Duration = Duration::from_millis(500);

/// Ordinals are on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Method {
    Overview = 1,
    SetMap = 2,
    AddDb = 3,
    RemoveDb = 4,
    ChunksOn = 5,
    AuthorityKey = 6,
    SignServer = 7,
}

impl Method {
    const ALL: [Method; 7] = [
        Method::Overview,
        Method::SetMap,
        Method::AddDb,
        Method::RemoveDb,
        Method::ChunksOn,
        Method::AuthorityKey,
        Method::SignServer,
    ];

    fn number(self) -> u16 {
        u16::from(SERVICE) << 8 | self as u16
    }

    fn of(number: u16) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.number() == number)
    }
}

/// How a db node stands, and what it knows of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Overview {
    /// Which.
    pub node: NodeId,
    /// What part it has: "leader", "follower", …
    pub state: String,
    /// Raft's term.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The last entry applied to its catalog; 0: none.
    pub applied_index: u64,
    /// Whether its log has lost acknowledged writes.
    pub is_read_only: bool,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Every member and its address: voters, and gateways that keep a catalog to read.
    pub members: BTreeMap<NodeId, String>,
    /// The map, as its catalog has it; perhaps an old one.
    pub map: Option<Map>,
    /// Its catalog's feature level.
    pub feature_level: u32,
    /// The upkeep; only the leader's counts. None: it does not serve yet.
    pub upkeep: Option<Upkeep>,
}

impl Overview {
    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        self.leader == Some(self.node)
    }
}

/// What vouches for the boxes of a cluster that others join: the holder of its authority's key, which voters are.
pub trait Authority: Send + Sync {
    /// The key; none: this box does not have it.
    fn key(&self) -> Option<String>;

    /// A certificate chain, PEM, for an HTTPS endpoint of these names that has the other half of `public_key` (P-256, raw);
    /// none: this box has no key to sign it with.
    fn sign_server(&self, public_key: &[u8], names: &[String]) -> Option<String>;
}

/// A new map.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct SetMap {
    from_epoch: u64,
    map: Map,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Nobody was reached, or nobody answered.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It does not do it.
    #[error("{0}")]
    Refused(String),
    /// Not what belongs there: another version, most likely.
    #[error("{0} answers something else than was asked; is it of another version?")]
    Foreign(Peer),
}

fn encode(value: &impl Serialize) -> Bytes {
    header::encode(VERSION, value)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    header::decode(VERSION, bytes)
}

/// Answers for one db node.
pub(super) struct Control {
    raft: Raft,
    /// Once there is one.
    store: Arc<OnceLock<Store>>,
    /// Where boxes join.
    authority: Option<Arc<dyn Authority>>,
}

impl Service for Control {
    fn serve<'a>(&'a self, from: &'a [Peer], call: Call) -> BoxFuture<'a, Reply> {
        async move {
            let answered = match from.iter().any(|peer| peer.role != Role::Shard) {
                true => self.answer(from, call).await,
                false => Err("only for other roles".to_owned()),
            };
            let (status, header) = match answered {
                Ok(header) => (0, header),
                Err(why) => (REFUSED, why.into()),
            };
            Reply { status, header, body: Body::empty() }
        }
        .boxed()
    }
}

impl Control {
    pub(super) fn new(raft: Raft, store: Arc<OnceLock<Store>>, authority: Option<Arc<dyn Authority>>) -> Control {
        Control { raft, store, authority }
    }

    async fn answer(&self, from: &[Peer], call: Call) -> Result<Bytes, String> {
        let malformed = || "not a question".to_owned();
        match Method::of(call.method).ok_or_else(malformed)? {
            Method::Overview => Ok(encode(&self.overview().await?)),
            Method::SetMap => {
                let SetMap { from_epoch, map } = decode(&call.header).ok_or_else(malformed)?;
                let done = self.store()?.set_map(from_epoch, map).await;
                done.map(|()| Bytes::new()).map_err(|error| error.to_string())
            }
            Method::AddDb => {
                let (node, address): (NodeId, String) = decode(&call.header).ok_or_else(malformed)?;
                let done = self.raft.add_db(node, &address).await;
                done.map(|()| Bytes::new()).map_err(|error| error.to_string())
            }
            Method::RemoveDb => {
                let node = decode(&call.header).ok_or_else(malformed)?;
                let store = self.store()?;
                self.raft.remove_db(node).await.map_err(|error| error.to_string())?;
                store.note_removed(node).await.map_err(|error| error.to_string())?;
                Ok(Bytes::new())
            }
            Method::ChunksOn => {
                let node = decode(&call.header).ok_or_else(malformed)?;
                let count = self.store()?.chunk_count_on(node).await;
                count.map(|count| encode(&count)).map_err(|error| error.to_string())
            }
            Method::AuthorityKey => {
                let voters = self.raft.status().voters;
                let is_voter = from.iter().any(|peer| peer.role == Role::Db && voters.contains(&peer.id));
                let authority = self.authority.as_ref().filter(|_| is_voter).ok_or("only voters have this key")?;
                authority.key().map(|key| encode(&key)).ok_or_else(|| "this box does not have it".to_owned())
            }
            Method::SignServer => {
                let (public_key, names): (Vec<u8>, Vec<String>) = decode(&call.header).ok_or_else(malformed)?;
                let signed = self.authority.as_ref().and_then(|authority| authority.sign_server(&public_key, &names));
                signed.map(|chain| encode(&chain)).ok_or_else(|| "this box has no key to sign with".to_owned())
            }
        }
    }

    fn store(&self) -> Result<&Store, String> {
        self.store.get().ok_or_else(|| "it does not serve yet".to_owned())
    }

    async fn overview(&self) -> Result<Overview, String> {
        let status = self.raft.status();
        let map = self.raft.readers().read(|view| view.map()).await.map_err(|error| error.to_string())?;
        Ok(Overview {
            node: status.node,
            state: status.state.to_string(),
            term: status.term,
            leader: status.leader.filter(|_| status.state != State::Apart),
            applied_index: status.applied_index.unwrap_or_default(),
            is_read_only: status.read_only,
            voters: status.voters.into_iter().collect(),
            members: status.members,
            map,
            feature_level: status.feature_level,
            upkeep: self.store.get().map(Store::upkeep),
        })
    }
}

/// An operator's way into a cluster, from any machine that has its configuration and its secret.
pub struct Console {
    transport: Arc<Transport>,
    shards: ShardClient,
    book: Arc<AddressBook>,
    dbs: Vec<NodeId>,
}

impl Console {
    /// Calls nobody yet. Must be made in a tokio runtime.
    ///
    /// # Errors
    /// There is no socket, or no certificate.
    pub fn new(cluster: &Cluster, env: &Env) -> Result<Console, StartError> {
        // Any id does: nobody calls it back.
        let itself = Peer { role: Role::Gateway, id: NodeId(env.random_u64() >> 1) };
        let identity = cluster.identity(&[itself], env)?.calling_only();
        let book = Arc::new(cluster.addresses());
        let started = transport::Config {
            identity,
            listen: Vec::new(),
            book: book.clone(),
            limits: Limits::default(),
            env: env.clone(),
        };
        let transport = Arc::new(Transport::start(started)?);
        let shards = ShardClient::new(transport.clone());
        Ok(Console { transport, shards, book, dbs: cluster.dbs.iter().map(|db| db.id).collect() })
    }

    /// What each db node says, in the order of the configuration; then members that it does not name, gateways' replicas
    /// left out.
    pub async fn overviews(&self) -> Vec<(NodeId, Result<Overview, Error>)> {
        let mut answers = self.ask_all(&self.dbs).await;
        let known =
            answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).max_by_key(|known| known.applied_index);
        let others: Vec<_> = known.map(|known| known.members.clone()).unwrap_or_default().into_iter().collect();
        let others = others.into_iter().filter(|(node, _)| !self.dbs.contains(node) && !is_replica(*node));
        let others: Vec<NodeId> = others
            .map(|(node, address)| {
                self.book.set(db_peer(node), address);
                node
            })
            .collect();
        answers.extend(self.ask_all(&others).await);
        answers
    }

    async fn ask_all(&self, dbs: &[NodeId]) -> Vec<(NodeId, Result<Overview, Error>)> {
        let ask = async |db: &NodeId| (*db, self.ask(*db, Method::Overview, &(), ASK_TIMEOUT).await);
        futures::future::join_all(dbs.iter().map(ask)).await
    }

    /// How a shard node of the map stands.
    ///
    /// # Errors
    /// It is not reached, or does not answer.
    pub async fn shard_node(&self, node: NodeId, dial: &str) -> Result<NodeStatus, ClientError> {
        let peer = Peer { role: Role::Shard, id: node };
        if self.book.get(peer).is_none() {
            self.book.set(peer, dial);
        }
        self.shards.status(node, ASK_TIMEOUT).await
    }

    /// Replaces the map, if it is still of `from_epoch`. `by`: a db node that serves.
    ///
    /// # Errors
    /// It was changed meanwhile; see [`Error`] for the rest.
    pub async fn set_map(&self, by: NodeId, from_epoch: u64, map: Map) -> Result<(), Error> {
        self.tell(by, Method::SetMap, &SetMap { from_epoch, map }).await
    }

    /// Makes `node` a db node that votes, once it has caught up. It must run, and be dialled at `address`.
    ///
    /// # Errors
    /// See [`Error`]; it may be repeated.
    pub async fn add_db(&self, by: NodeId, node: NodeId, address: &str) -> Result<(), Error> {
        self.tell(by, Method::AddDb, &(node, address)).await
    }

    /// Takes a db node out of the cluster.
    ///
    /// # Errors
    /// See [`Error`]; it may be repeated.
    pub async fn remove_db(&self, by: NodeId, node: NodeId) -> Result<(), Error> {
        self.tell(by, Method::RemoveDb, &node).await
    }

    /// How many chunks have a shard on `node`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn chunk_count_on(&self, by: NodeId, node: NodeId) -> Result<u64, Error> {
        self.ask(by, Method::ChunksOn, &node, CHANGE_TIMEOUT).await
    }

    /// Says goodbye.
    pub async fn close(&self) {
        self.transport.close(FAREWELL).await;
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        db: NodeId,
        method: Method,
        question: &impl Serialize,
        deadline: Duration,
    ) -> Result<T, Error> {
        answered(db, &call(&self.transport, db, method, question, deadline).await?)
    }

    async fn tell(&self, db: NodeId, method: Method, question: &impl Serialize) -> Result<(), Error> {
        call(&self.transport, db, method, question, CHANGE_TIMEOUT).await.map(drop)
    }
}

async fn call(
    transport: &Transport,
    db: NodeId,
    method: Method,
    question: &impl Serialize,
    deadline: Duration,
) -> Result<Bytes, Error> {
    let call = Call { method: method.number(), header: encode(question), body: Body::empty() };
    let reply = transport.call(db_peer(db), Class::Urgent, call, deadline).await?;
    match reply.status {
        0 => Ok(reply.header),
        REFUSED => Err(Error::Refused(String::from_utf8_lossy(&reply.header).into_owned())),
        _ => Err(Error::Foreign(db_peer(db))),
    }
}

fn answered<T: DeserializeOwned>(db: NodeId, header: &[u8]) -> Result<T, Error> {
    decode(header).ok_or(Error::Foreign(db_peer(db)))
}

/// The authority's key, from the voter `db`; only a voter is told.
///
/// # Errors
/// See [`Error`].
pub(super) async fn authority_key(transport: &Transport, db: NodeId) -> Result<String, Error> {
    answered(db, &call(transport, db, Method::AuthorityKey, &(), ASK_TIMEOUT).await?)
}

/// A certificate for an endpoint of this box, from the voter `db`: see [`Authority::sign_server`].
///
/// # Errors
/// See [`Error`].
pub(super) async fn sign_server(
    transport: &Transport,
    db: NodeId,
    public_key: &[u8],
    names: &[String],
) -> Result<String, Error> {
    answered(db, &call(transport, db, Method::SignServer, &(public_key, names), ASK_TIMEOUT).await?)
}
