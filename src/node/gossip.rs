//! Where the boxes of a cluster are, who lives and how busy each is, told from box to box: SWIM, by the crate foca, in calls of
//! the transport.
//!
//! What the catalog says of addresses needs a leader, and a leader needs addresses. This needs neither: a box that knows one
//! address of one that lives announces itself there, and all hear of it. So all may have moved at once.
//!
//! Invariants
//! - Who is at an address is known by its certificate. What is heard of addresses is only where to look.
//! - What is heard of a box wins over what the catalog tells, as long as it lives; of its claims the latest wins.
//! - Of what a box says of its load the latest counts, and only for the order in which boxes are asked.
//! - Nothing else is decided by it: who is a member, who votes and who is down others know better.
//!
//! ```text
//! call 5<<8|0 to a db node: no header; body: a packet of foca's, postcard, at most 1,400 bytes    reply: nothing
//! at its end, each behind its length (u16 BE): load: postcard: node, claim, number since then, percent
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foca::{
    AccumulatingRuntime, BroadcastHandler, Codec, Foca, Header, Identity, Invalidates, OwnedNotification,
    PostcardCodec, Timer,
};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::data_dir;
use super::members::db_peer;
use crate::cluster::load::{self, Loads};
use crate::env::Env;
use crate::ids::NodeId;
use crate::transport::{AddressBook, Body, Call, Caller, Class, Peer, Reply, Role, Service, Transport};

/// The service's number.
pub(super) const SERVICE: u8 = 5;
const PACKET: u16 = (SERVICE as u16) << 8;
const PACKET_MAX_BYTES: u64 = 1400;
/// In the db node's directory: the latest claim.
const CLAIM_FILE: &str = "claim";
/// More often a box does not renew its claim between two starts.
const RENEWALS_MAX: u64 = 1 << 16;
/// The longest name of a host, and a port.
const ADDRESS_MAX_BYTES: usize = 260;
/// Packets that wait to be looked at; it is in the nature of the thing that some are lost.
const WAITING_MAX: usize = 64;
/// How long one packet may take.
const SEND_TIME: Duration = Duration::from_secs(2);
/// How long somebody at an address may take to prove who he is.
const LOOK_TIME: Duration = Duration::from_secs(6);
/// Between two looks whether somebody is at an address where nobody is known to be: of who knows nobody, and of others.
const LOOK_ALONE: Duration = Duration::from_secs(2);
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Between two times that a box says how busy it is.
const LOAD_INTERVAL: Duration = Duration::from_secs(10);
/// Of more boxes nobody keeps what they said.
const LOADS_MAX_COUNT: usize = 1024;
/// Of which size foca takes clusters to be.
const CLUSTER_SIZE: NonZeroU32 = NonZeroU32::new(16).unwrap();

/// A box, as it says itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Spot {
    node: u64,
    /// Grows with each claim: milliseconds of its start, or more than ever.
    claim: u64,
    /// "host:port".
    #[serde(deserialize_with = "short_address")]
    address: String,
}

impl Identity for Spot {
    type Addr = u64;

    fn renew(&self) -> Option<Self> {
        Some(Spot { claim: self.claim + 1, ..self.clone() })
    }

    fn addr(&self) -> u64 {
        self.node
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.claim > other.claim
    }
}

/// How busy a box is, as it says itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Load {
    node: u64,
    /// Of which start, and which it is since then: the latest counts.
    claim: u64,
    number: u64,
    percent: u16,
}

impl Load {
    fn is_later_than(&self, other: &Load) -> bool {
        (self.claim, self.number) > (other.claim, other.number)
    }
}

impl Invalidates for Load {
    fn invalidates(&self, other: &Self) -> bool {
        self.node == other.node && !other.is_later_than(self)
    }
}

/// What is passed on of loads.
struct Hearsay {
    latest: BTreeMap<u64, Load>,
    loads: Arc<Loads>,
}

impl BroadcastHandler<Spot> for Hearsay {
    type Key = Load;
    type Error = postcard::Error;

    fn receive_item(&mut self, data: &[u8], _sender: Option<&Spot>) -> Result<Option<Load>, postcard::Error> {
        let said: Load = postcard::from_bytes(data)?;
        let is_new = match self.latest.get(&said.node) {
            Some(known) => said.is_later_than(known),
            None => self.latest.len() < LOADS_MAX_COUNT,
        };
        if !is_new {
            return Ok(None);
        }
        self.latest.insert(said.node, said);
        self.loads.tell(NodeId(said.node), said.percent);
        tracing::trace!(?said, "gossip: a box says how busy it is");
        Ok(Some(said))
    }
}

/// What comes from others.
struct Inbox(mpsc::Sender<Bytes>);

impl Service for Inbox {
    fn serve<'a>(&'a self, from: &'a [Peer], call: Call) -> BoxFuture<'a, Reply> {
        async move {
            if call.body.len_bytes <= PACKET_MAX_BYTES
                && let Ok(packet) = call.body.collect().await
                && is_from(from, &packet)
            {
                // Who has no time for it hears it again.
                let _ = self.0.try_send(packet);
            }
            Reply { status: 0, header: Bytes::new(), body: Body::empty() }
        }
        .boxed()
    }
}

/// The claim of a start: the time, but beyond all claims of the starts before. A decimal number in a file.
fn next_claim(dir: &Path, now_ms: u64) -> io::Result<u64> {
    let file = dir.join(CLAIM_FILE);
    let former = match fs::read_to_string(&file) {
        Ok(text) => Some(text.trim().parse::<u64>().map_err(io::Error::other)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let claim = former.map_or(now_ms, |former| now_ms.max(former.saturating_add(RENEWALS_MAX)));
    data_dir::replace_file(dir, CLAIM_FILE, claim.to_string().as_bytes())?;
    Ok(claim)
}

/// Whether a packet is of who says so.
fn is_from(peers: &[Peer], packet: &[u8]) -> bool {
    let header: Result<Header<Spot>, _> = PostcardCodec.decode_header(packet);
    header.is_ok_and(|header| peers.contains(&db_peer(NodeId(header.src.node))))
}

/// An address of one's own that is longer keeps a box from telling anything else.
fn short_address<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let address = String::deserialize(from)?;
    match address.len() <= ADDRESS_MAX_BYTES {
        true => Ok(address),
        false => Err(D::Error::custom("an address is too long")),
    }
}

/// A box among others.
pub(super) struct Gossip {
    /// This one's db node, and where it is.
    pub(super) own: (NodeId, String),
    /// Of the db node: its claim is kept there.
    pub(super) dir: PathBuf,
    /// Where others were, as far as that is known; and addresses at which some other may be.
    pub(super) seeds: Vec<(Option<NodeId>, String)>,
    pub(super) transport: Arc<Transport>,
    pub(super) book: Arc<AddressBook>,
    /// What is said of loads is noted there.
    pub(super) loads: Arc<Loads>,
}

type Swim = Foca<Spot, PostcardCodec, SmallRng, Hearsay>;
type Later = FuturesUnordered<BoxFuture<'static, Timer<Spot>>>;
type Looks = FuturesUnordered<BoxFuture<'static, (Vec<Peer>, String)>>;

impl Gossip {
    /// Tells and hears, until it is dropped.
    pub(super) async fn run(self, env: Env) {
        let (sender, mut packets) = mpsc::channel(WAITING_MAX);
        self.transport.serve(db_peer(self.own.0), SERVICE, Arc::new(Inbox(sender)));
        let claim = self.claim(u64::try_from(env.clock.now().0 / 1_000_000).unwrap_or(0)).await;
        let own = Spot { node: self.own.0.0, claim, address: self.own.1.clone() };
        let rng = SmallRng::seed_from_u64(env.random_u64());
        let hearsay = Hearsay { latest: BTreeMap::new(), loads: self.loads.clone() };
        let mut swim: Swim = Foca::with_custom_broadcast(own, config(), rng, PostcardCodec, hearsay);
        let mut runtime = AccumulatingRuntime::new();
        let mut later = Later::new();
        let mut looks = Looks::new();
        let mut look = Instant::now();
        let (mut say, mut number) = (tokio::time::interval(LOAD_INTERVAL), 0);
        loop {
            let done = tokio::select! {
                Some(packet) = packets.recv() => swim.handle_data(&packet, &mut runtime),
                Some(timer) = later.next() => swim.handle_timer(timer, &mut runtime),
                Some((peers, address)) = looks.next() => self.announce(&peers, address, &mut swim, &mut runtime),
                _ = say.tick() => {
                    number += 1;
                    self.say_load(claim, number, &mut swim)
                }
                // Who is slow to answer holds nobody else up.
                () = tokio::time::sleep_until(look), if looks.is_empty() => {
                    looks.extend(self.strange(&swim).into_iter().map(|address| self.look(address)));
                    look = Instant::now() + if swim.num_members() == 0 { LOOK_ALONE } else { LOOK_INTERVAL };
                    Ok(())
                }
            };
            if let Err(error) = done {
                // Of another version, or late: told where somebody looks for it.
                tracing::debug!(%error, "gossip");
            }
            self.settle(&mut runtime, &mut later);
        }
    }

    /// Where it cannot be kept, a clock that goes back has this box taken for an older one.
    async fn claim(&self, now_ms: u64) -> u64 {
        let dir = self.dir.clone();
        let kept = tokio::task::spawn_blocking(move || next_claim(&dir, now_ms)).await;
        kept.map_err(io::Error::other).flatten().unwrap_or_else(|error| {
            tracing::warn!(%error, "gossip: the claim of this start is not kept");
            now_ms
        })
    }

    /// Says how busy this box is, with the packets that go out anyway.
    fn say_load(&self, claim: u64, number: u64, swim: &mut Swim) -> Result<(), foca::Error> {
        let Some(percent) = load::own_percent() else { return Ok(()) };
        let said = postcard::to_stdvec(&Load { node: self.own.0.0, claim, number, percent });
        match said {
            Ok(said) => swim.add_broadcast(&said).map(|_| ()),
            Err(error) => Err(foca::Error::CustomBroadcast(Box::new(error))),
        }
    }

    /// Addresses at which somebody may be who is not known yet.
    fn strange(&self, swim: &Swim) -> Vec<String> {
        let is_known = |(node, address): &(Option<NodeId>, String)| {
            let is_it = |spot: &Spot| spot.address == *address || node.is_some_and(|node| node.0 == spot.node);
            swim.iter_members().any(|member| is_it(member.id()))
        };
        let strange = self.seeds.iter().filter(|seed| seed.1 != self.own.1 && !is_known(seed));
        strange.map(|(_, address)| address.clone()).collect()
    }

    /// Who is at an address.
    fn look(&self, address: String) -> BoxFuture<'static, (Vec<Peer>, String)> {
        let transport = self.transport.clone();
        async move {
            let found = tokio::time::timeout(LOOK_TIME, transport.who_is_at(&address)).await;
            (found.ok().and_then(Result::ok).unwrap_or_default(), address)
        }
        .boxed()
    }

    /// Announces this box to one that is new to it.
    fn announce(
        &self,
        peers: &[Peer],
        address: String,
        swim: &mut Swim,
        runtime: &mut AccumulatingRuntime<Spot>,
    ) -> Result<(), foca::Error> {
        let is_known = |peer: &Peer| swim.iter_members().any(|member| member.id().node == peer.id.0);
        let db = peers.iter().find(|peer| peer.role == Role::Db && peer.id != self.own.0);
        let Some(db) = db.filter(|db| !is_known(db)) else { return Ok(()) };
        self.heard(db.id, &address);
        swim.announce(Spot { node: db.id.0, claim: 0, address }, runtime)
    }

    /// Does what foca has asked for.
    fn settle(&self, runtime: &mut AccumulatingRuntime<Spot>, later: &mut Later) {
        while let Some(notification) = runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(spot) | OwnedNotification::Rename(_, spot) => {
                    tracing::info!(node = spot.node, address = spot.address, "a box is there, as others say");
                    self.heard(NodeId(spot.node), &spot.address);
                }
                OwnedNotification::MemberDown(spot) => {
                    self.loads.forget(NodeId(spot.node));
                    for peer in peers_of(NodeId(spot.node)) {
                        self.book.forget(peer);
                    }
                }
                OwnedNotification::Active
                | OwnedNotification::Idle
                | OwnedNotification::Defunct
                | OwnedNotification::Rejoin(_) => {}
            }
        }
        while let Some((to, packet)) = runtime.to_send() {
            // Who was taken for down, and speaks, is told so where it speaks from.
            self.heard(NodeId(to.node), &to.address);
            tokio::spawn(send(self.transport.clone(), NodeId(to.node), packet));
        }
        while let Some((after, timer)) = runtime.to_schedule() {
            later.push(tokio::time::sleep(after).map(move |()| timer).boxed());
        }
    }

    fn heard(&self, node: NodeId, address: &str) {
        for peer in peers_of(node).into_iter().filter(|_| node != self.own.0) {
            self.book.hear(peer, address);
        }
    }
}

/// What a box is that joined: a db node and a shard node, at one address.
fn peers_of(node: NodeId) -> [Peer; 2] {
    [db_peer(node), Peer { role: Role::Shard, id: node }]
}

async fn send(transport: Arc<Transport>, to: NodeId, packet: Bytes) {
    let call = Call { method: PACKET, header: Bytes::new(), body: packet.into() };
    // Who does not hear it is found out by foca.
    let _ = transport.call(db_peer(to), Class::Urgent, call, SEND_TIME).await;
}

/// Quiet: an idle cluster of a few boxes sends each other some packets a second.
fn config() -> foca::Config {
    let mut config = foca::Config::new_lan(CLUSTER_SIZE);
    config.periodic_gossip = None;
    config.probe_rtt = Duration::from_millis(900);
    config.probe_period = Duration::from_secs(2);
    config
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_packet_counts_that_is_of_who_says_so() {
        let spot = |node, address: &str| Spot { node, claim: 7, address: address.to_owned() };
        let packet = |address: &str| {
            let header = Header {
                src: spot(3, address),
                src_incarnation: 0,
                dst: spot(1, "box:1"),
                message: foca::Message::Announce,
            };
            let mut packet = Vec::new();
            PostcardCodec.encode_header(&header, &mut packet).map(|()| packet).unwrap_or_default()
        };
        let peers = |id| [Peer { role: Role::Shard, id: NodeId(3) }, db_peer(NodeId(id))];
        let good = packet("box:3");
        assert!(is_from(&peers(3), &good) && !is_from(&peers(2), &good) && !is_from(&peers(3), &good[..2]));
        assert!(is_from(&peers(3), &packet(&"b".repeat(260))) && !is_from(&peers(3), &packet(&"b".repeat(261))));
    }

    #[test]
    fn a_claim_grows_whatever_the_clock_says() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(next_claim(dir.path(), 1_000_000).unwrap(), 1_000_000);
        assert_eq!(next_claim(dir.path(), 2_000_000).unwrap(), 2_000_000);
        assert_eq!(next_claim(dir.path(), 5).unwrap(), 2_000_000 + RENEWALS_MAX);
        std::fs::write(dir.path().join(CLAIM_FILE), "x").unwrap();
        assert!(next_claim(dir.path(), 9).is_err());
    }

    #[test]
    fn of_what_is_said_of_a_load_the_latest_counts_and_is_passed_on_once() {
        let loads = Arc::new(Loads::default());
        let mut hearsay = Hearsay { latest: BTreeMap::new(), loads: loads.clone() };
        let mut hear = |claim, number, percent| {
            let said = postcard::to_stdvec(&Load { node: 3, claim, number, percent }).unwrap();
            hearsay.receive_item(&said, None).unwrap().is_some()
        };
        assert!(hear(7, 2, 50) && !hear(7, 2, 50) && !hear(7, 1, 90) && !hear(6, 9, 90));
        assert_eq!(loads.percent(NodeId(3)), Some(50));
        assert!(hear(8, 1, 20));
        assert_eq!(loads.percent(NodeId(3)), Some(20));
        assert!(hearsay.receive_item(&[0xff; 3], None).is_err());
        let (early, late) =
            (Load { node: 3, claim: 7, number: 1, percent: 0 }, Load { node: 3, claim: 7, number: 2, percent: 0 });
        assert!(late.invalidates(&early) && !early.invalidates(&late) && !late.invalidates(&Load { node: 4, ..early }));
    }

    #[test]
    fn the_latest_claim_wins() {
        let spot = |claim| Spot { node: 1, claim, address: format!("box:{claim}") };
        assert!(spot(2).win_addr_conflict(&spot(1)) && !spot(1).win_addr_conflict(&spot(2)));
        let renewed = spot(1).renew();
        assert!(renewed.is_some_and(|renewed| renewed.win_addr_conflict(&spot(1)) && renewed.addr() == 1));
    }
}
