//! The distributed backend: who the nodes are, where they are, and which of them this process is.
//!
//! Invariants: processes that read one file agree on all of this but the [`Role`]; an id is there once among the db
//! nodes and once among the shard nodes; as far as the file tells, no two nodes share a directory or an address, and
//! each can be dialled by all others.

mod joined;
mod place;
mod secret;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use predastore::erasure::Scheme;
use predastore::ids::NodeId;
use predastore::transport::identity::Secret;

use super::document::{self, Rs};
use super::{Error, conflict};
use crate::join::member::Member;
pub(crate) use joined::{capacity_bytes, check_free, host_name};
use place::{Place, check_endpoint, check_together};

/// Id of the db node that a file without `[[db]]` has all the same.
const EMBEDDED_DB_ID: u64 = 1;
/// Its port, on the host of the shard node with the lowest id.
const EMBEDDED_DB_PORT: u16 = 6660;
/// Its directory, in that node's.
const EMBEDDED_DB_DIR: &str = "db";

/// A cluster, as one of its processes sees it.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// What all processes know, and nobody else does.
    pub(crate) secret: Secret,
    /// How new chunks are cut; there are at least as many shard nodes as it has shards.
    pub(crate) scheme: Scheme,
    /// Every db node, by id; at least one.
    pub(crate) dbs: Vec<DbNode>,
    /// Every shard node, by id; at least one.
    pub(crate) nodes: Vec<ShardNode>,
    /// What this process is.
    pub(crate) role: Role,
    /// What made this box part of it, if it joined or others join it; none: the configuration did.
    pub(crate) member: Option<Member>,
    /// Where a box that joined looks for others, besides where they were: "host:port".
    pub(crate) seeds: Vec<String>,
}

/// A db node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DbNode {
    pub(crate) id: NodeId,
    /// "host:port", for QUIC over UDP and HTTPS over TCP.
    pub(crate) dial: String,
}

/// A shard node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ShardNode {
    pub(crate) id: NodeId,
    /// "host:port", for QUIC over UDP.
    pub(crate) dial: String,
    /// The same for nodes that are dialled at the same host, or all on this one.
    pub(crate) machine: String,
    /// What fails together for reasons outside; empty: not said.
    pub(crate) zone: String,
    /// None: its disk's.
    pub(crate) capacity_bytes: Option<u64>,
}

/// What a process is; a node or a gateway at least.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Role {
    /// Db nodes that it is, by id.
    pub(crate) dbs: Vec<Own>,
    /// Shard nodes that it is, by id.
    pub(crate) nodes: Vec<Own>,
    /// Where it serves S3, if it does.
    pub(crate) gateway: Option<SocketAddr>,
    /// What others call this host, beside what it knows itself: for certificates.
    pub(crate) host_names: BTreeSet<String>,
}

/// A node that this process is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Own {
    pub(crate) id: NodeId,
    /// UDP for peers; a db node also TCP.
    pub(crate) listen: SocketAddr,
    /// Its directory; a relative one begins in the working directory.
    pub(crate) path: PathBuf,
}

/// What the layers say of the cluster.
pub(super) struct Asked {
    pub(super) cluster: document::Cluster,
    pub(super) rs: Rs,
    pub(super) db: Vec<document::Member>,
    pub(super) nodes: Vec<document::Member>,
    /// Where a gateway of this process would serve S3.
    pub(super) gateway: SocketAddr,
    /// Whether any layer but the defaults says the gateway's port.
    pub(super) port_given: bool,
    pub(super) admin: Option<SocketAddr>,
}

impl Cluster {
    pub(super) fn judge(mut asked: Asked) -> Result<Cluster, Error> {
        let Some(lowest) = asked.nodes.iter().min_by_key(|node| node.id) else {
            return conflict(
                "there are no [[nodes]], and this box has joined no cluster: the distributed backend needs at least one shard node",
            );
        };
        let lowest_id = NodeId(lowest.id);
        let embedded = asked.db.is_empty();
        if embedded {
            asked.db.push(embedded_db(lowest));
        }
        asked.nodes.sort_by_key(|node| node.id);
        let scheme = scheme(&asked.rs, asked.nodes.len())?;
        let mut dbs = places("db", &asked.db)?;
        let mut nodes = places("node", &asked.nodes)?;
        let home = embedded.then_some(lowest_id);
        pick(&asked.cluster, &mut dbs, &mut nodes, home)?;
        let development = asked.cluster.is_silent();
        let gateway = (development || asked.port_given).then_some(asked.gateway);
        check(&dbs, &nodes, gateway, asked.admin)?;
        Ok(Cluster {
            secret: secret::read(asked.cluster.secret_file.as_deref())?,
            scheme,
            role: role(&dbs, &nodes, gateway)?,
            member: None,
            seeds: Vec::new(),
            dbs: dbs.iter().map(|place| DbNode { id: place.id, dial: place.dial() }).collect(),
            nodes: nodes.iter().zip(&asked.nodes).map(shard_node).collect::<Result<_, _>>()?,
        })
    }
}

impl document::Cluster {
    /// Whether nothing says which part of the cluster this process is: then it is all of it.
    fn is_silent(&self) -> bool {
        self.node.is_none() && self.db_node.is_none() && !self.is_db_only()
    }

    fn is_db_only(&self) -> bool {
        self.db_only.is_some_and(|only| only.0)
    }
}

fn embedded_db(home: &document::Member) -> document::Member {
    document::Member {
        id: EMBEDDED_DB_ID,
        host: home.host.clone(),
        advertise_host: home.advertise_host.clone(),
        port: EMBEDDED_DB_PORT,
        path: home.path.join(EMBEDDED_DB_DIR),
        zone: String::new(),
        capacity: None,
    }
}

fn scheme(rs: &Rs, node_count: usize) -> Result<Scheme, Error> {
    let (Some(data), Some(parity)) = (rs.data, rs.parity) else {
        return conflict("`rs.data` and `rs.parity` are needed: how many shards a chunk is cut into");
    };
    let scheme = Scheme::new(data, parity).map_err(|error| Error::Conflict(format!("[rs]: {error}")))?;
    let shard_count = scheme.data_count() + scheme.parity_count();
    if shard_count > node_count {
        return conflict(format!(
            "[rs]: {data} data and {parity} parity shards need {shard_count} nodes, and [[nodes]] are {node_count}"
        ));
    }
    Ok(scheme)
}

/// By id.
fn places(kind: &str, members: &[document::Member]) -> Result<Vec<Place>, Error> {
    let mut places = members.iter().map(|member| Place::new(kind, member)).collect::<Result<Vec<_>, _>>()?;
    places.sort_by_key(|place| place.id);
    match places.windows(2).find(|pair| pair[0].id == pair[1].id) {
        Some(pair) => conflict(format!("{} is there twice", pair[0].name)),
        None => Ok(places),
    }
}

/// Marks the nodes that this process is. `home`: the shard node in whose process the embedded db node runs, if it does.
fn pick(asked: &document::Cluster, dbs: &mut [Place], nodes: &mut [Place], home: Option<NodeId>) -> Result<(), Error> {
    if asked.is_silent() {
        dbs.iter_mut().chain(nodes).for_each(|place| place.own = true);
        return Ok(());
    }
    if asked.is_db_only() && asked.node.is_some() {
        return conflict("-db runs a db node alone, so it does not go with -node");
    }
    if let Some(id) = asked.node {
        own("-node", "[[nodes]]", nodes, NodeId(id))?;
    }
    match (asked.db_node.map(NodeId), home) {
        (Some(id), None) => own("-db-node", "[[db]]", dbs, id),
        (None, None) if asked.is_db_only() => the_only_one(dbs),
        (None, None) => Ok(()),
        (asked_id, Some(home)) => embedded(asked, dbs, asked_id, home),
    }
}

fn own(flag: &str, list: &str, places: &mut [Place], id: NodeId) -> Result<(), Error> {
    let ids: Vec<String> = places.iter().map(|place| place.id.to_string()).collect();
    match places.iter_mut().find(|place| place.id == id) {
        Some(place) => place.own = true,
        None => return conflict(format!("{flag} {id}: {list} has no such id, but {}", ids.join(", "))),
    }
    Ok(())
}

fn the_only_one(dbs: &mut [Place]) -> Result<(), Error> {
    match dbs {
        [only] => only.own = true,
        _ => return conflict("-db needs -db-node: there are several [[db]]"),
    }
    Ok(())
}

/// The embedded db node runs beside the shard node `home`, and nowhere else.
fn embedded(asked: &document::Cluster, dbs: &mut [Place], asked_id: Option<NodeId>, home: NodeId) -> Result<(), Error> {
    if asked.node.map(NodeId) == Some(home) {
        return own("-db-node", "the embedded db node", dbs, asked_id.unwrap_or(NodeId(EMBEDDED_DB_ID)));
    }
    if asked_id.is_some() || asked.is_db_only() {
        return conflict(format!(
            "there are no [[db]]: the one db node there is then runs in the process of node {home}, and nowhere else"
        ));
    }
    Ok(())
}

fn check(dbs: &[Place], nodes: &[Place], gateway: Option<SocketAddr>, admin: Option<SocketAddr>) -> Result<(), Error> {
    let places: Vec<&Place> = dbs.iter().chain(nodes).collect();
    check_together(&places)?;
    for (name, address) in [("server.port", gateway), ("admin.port", admin)] {
        if let Some(address) = address {
            check_endpoint(name, address, &places)?;
        }
    }
    Ok(())
}

fn role(dbs: &[Place], nodes: &[Place], gateway: Option<SocketAddr>) -> Result<Role, Error> {
    let host_names = dbs.iter().chain(nodes).filter(|place| place.own).map(Place::advertised_host).collect();
    Ok(Role { dbs: owned(dbs)?, nodes: owned(nodes)?, gateway, host_names })
}

fn owned(places: &[Place]) -> Result<Vec<Own>, Error> {
    let own = |place: &Place| Ok(Own { id: place.id, listen: place.listen()?, path: place.path.clone() });
    places.iter().filter(|place| place.own).map(own).collect()
}

fn shard_node((place, member): (&Place, &document::Member)) -> Result<ShardNode, Error> {
    if member.capacity.is_some_and(|capacity| capacity.0 == 0) {
        return conflict(format!("{}: with a `capacity` of 0 it holds nothing", place.name));
    }
    Ok(ShardNode {
        id: place.id,
        dial: place.dial(),
        machine: place.machine(),
        zone: member.zone.clone(),
        capacity_bytes: member.capacity.map(|capacity| capacity.0),
    })
}
