//! Whole clusters in one process: real shard nodes, behind a caller that does to their calls what networks and disks do.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod reads;
mod rebuilds;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use tempfile::TempDir;

use super::timing::Hedge;
use super::write::BATCH_BYTES;
use super::*;
use crate::catalog::{Layout, Place};
use crate::cluster::repair::Found;
use crate::erasure::Geometry;
use crate::placement::{Member, State, width};
use crate::shard::{Options, ServiceLimits, ShardService, Shards};
use crate::transport::{Body, Call, CallError, Class, Peer, Reply, Service};
use crate::units::{BLOCK_BYTES, CHUNK_BYTES, MIB, SEGMENT_BYTES};

const PUT: u16 = 0x0201;
const APPEND: u16 = 0x0202;
const FINISH: u16 = 0x0203;
const READ: u16 = 0x0205;
const CHUNK: Ino = Ino(0x77);

/// What happens to the calls to a node.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(in crate::object) enum Fault {
    None,
    /// It is not reached.
    Refuse,
    /// It gives no answer, to anything.
    Hang,
    /// It gives no answer to what writes.
    HangWrites,
    /// The same; and it is done later, when nobody waits any more.
    Late,
    /// Its answers come late.
    Delay(Duration),
    /// Its disk is full.
    Full,
    /// It takes no more.
    Busy,
    /// It gives no frames now.
    BusyReads,
    /// It does what it is asked for; the answer is lost.
    LoseAnswers,
    /// One bit of each answer's body is wrong.
    Flip(u64),
    /// It answers so many calls that write, and is not reached from then on.
    RefuseAfter(u32),
}

struct Node {
    shards: Shards,
    service: ShardService,
    fault: Mutex<Fault>,
    _dir: TempDir,
}

pub(in crate::object) struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    /// Calls that are on their way still.
    late: Mutex<Vec<(NodeId, Call)>>,
    /// Every shard that was ever begun.
    begun: Mutex<BTreeSet<ShardId>>,
    /// Frames that were asked for: node and how many.
    asked: Mutex<BTreeMap<NodeId, u32>>,
    is_id_reused: AtomicBool,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn seeded() -> Random {
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        println!("seed {seed}");
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Bytes of which some compress.
    fn bytes(&mut self, len: u64) -> Bytes {
        let (mask, len) = ([u64::MAX, 0x0707_0707_0707_0707, 0][self.below(3) as usize], len as usize);
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&(self.next() & mask).to_le_bytes());
        }
        bytes.truncate(len);
        bytes.into()
    }

    /// `count` of the numbers below `bound`.
    fn choose(&mut self, bound: u64, count: usize) -> Vec<u64> {
        let mut all: Vec<u64> = (0..bound).collect();
        (0..count).map(|_| all.swap_remove(self.below(all.len() as u64) as usize)).collect()
    }

    fn range(&mut self, len: u64) -> Range<u64> {
        let start = self.below(len + 1);
        let most = [1, 100, SEGMENT_BYTES + 1, MIB / 2][self.below(4) as usize];
        start..len.min(start + self.below(most + 1))
    }
}

impl Cluster {
    fn new(node_count: u64) -> Arc<Cluster> {
        Cluster::within(node_count, ServiceLimits::default())
    }

    pub(in crate::object) fn within(node_count: u64, limits: ServiceLimits) -> Arc<Cluster> {
        let node = |id| {
            let dir = TempDir::new().unwrap();
            let (shards, _) = Shards::open(&Options { file_len_bytes: 16 << 20, ..Options::new(dir.path()) }).unwrap();
            let service = ShardService::with_limits(shards.clone(), dir.path(), (0, 1), limits);
            (NodeId(id), Node { shards, service, fault: Mutex::new(Fault::None), _dir: dir })
        };
        let nodes = (0..node_count).map(node).collect();
        let (begun, asked, is_id_reused) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Arc::new(Cluster { nodes, late: Mutex::default(), begun, asked, is_id_reused })
    }

    pub(in crate::object) fn set(&self, nodes: &[u64], fault: Fault) {
        nodes.iter().for_each(|node| *self.nodes[&NodeId(*node)].fault.lock().unwrap() = fault);
    }

    pub(in crate::object) fn heal(&self) {
        self.nodes.values().for_each(|node| *node.fault.lock().unwrap() = Fault::None);
    }

    fn map(&self, k: u8, m: u8) -> Map {
        self.map_without(k, m, None)
    }

    /// The map without a node that has left.
    pub(in crate::object) fn map_without(&self, k: u8, m: u8, gone: Option<NodeId>) -> Map {
        let member = |node: &NodeId| Member {
            node: *node,
            weight: 64,
            zone: String::new(),
            host: node.to_string(),
            state: State::Active,
        };
        let members = self.nodes.keys().filter(|node| Some(**node) != gone).map(member).collect();
        Map { scheme: Scheme::new(k, m).unwrap(), ring: Ring::new(5, members).unwrap() }
    }

    /// A gateway that knows nothing yet.
    fn striper(self: &Arc<Cluster>, k: u8, m: u8, timing: Timing) -> Striper {
        Striper::with_timing(self.clone(), HashSet::new(), self.map(k, m), keys(), Env::system(), timing)
    }

    /// One that takes nothing for slow.
    pub(in crate::object) fn patient_striper(self: &Arc<Cluster>, k: u8, m: u8) -> Striper {
        self.striper(k, m, patient())
    }

    /// One that waits for nobody long.
    pub(in crate::object) fn quick_striper(self: &Arc<Cluster>, k: u8, m: u8) -> Striper {
        self.striper(k, m, quick())
    }

    fn shards(&self) -> usize {
        self.stored().len()
    }

    /// Every shard that a node has.
    pub(in crate::object) fn stored(&self) -> BTreeSet<(NodeId, ShardId)> {
        let on = |(id, node): (&NodeId, &Node)| {
            let listed = node.shards.list(None, 1000).unwrap();
            listed.into_iter().map(|row| (*id, row.shard)).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(on).collect()
    }

    /// How many shards were ever begun.
    pub(in crate::object) fn begun_count(&self) -> usize {
        self.begun.lock().unwrap().len()
    }

    pub(in crate::object) fn late_count(&self) -> usize {
        self.late.lock().unwrap().len()
    }

    /// Lets what is on its way arrive.
    pub(in crate::object) async fn release_late(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        for (node, call) in late {
            self.nodes[&node].service.serve(&[], call).await;
        }
    }

    fn note(&self, node: NodeId, call: &Call) {
        let begun = match call.method {
            PUT => Some(postcard::take_from_bytes::<ShardId>(&call.header[1..]).unwrap().0),
            APPEND => {
                let ((number, shard), _) = postcard::take_from_bytes::<(u32, ShardId)>(&call.header[1..]).unwrap();
                (number == 0).then_some(shard)
            }
            READ => {
                let ((_, start, end), _) = postcard::take_from_bytes::<(ShardId, u32, u32)>(&call.header[1..]).unwrap();
                *self.asked.lock().unwrap().entry(node).or_default() += end - start;
                None
            }
            _ => None,
        };
        if begun.is_some_and(|shard| shard == ShardId(0) || !self.begun.lock().unwrap().insert(shard)) {
            self.is_id_reused.store(true, Ordering::Relaxed);
        }
    }

    async fn answer(&self, to: Peer, call: Call) -> Result<Reply, CallError> {
        let node = &self.nodes[&to.id];
        self.note(to.id, &call);
        let writes = matches!(call.method, PUT | APPEND | FINISH);
        let fault = {
            let mut fault = node.fault.lock().unwrap();
            if let (true, Fault::RefuseAfter(count)) = (writes, *fault) {
                *fault = count.checked_sub(1).map_or(Fault::Refuse, Fault::RefuseAfter);
            }
            *fault
        };
        match fault {
            Fault::Refuse => return Err(CallError::Never(to, "refused".to_owned())),
            Fault::Hang => std::future::pending().await,
            Fault::HangWrites if writes => std::future::pending().await,
            Fault::Late if writes => {
                self.late.lock().unwrap().push((to.id, call));
                return std::future::pending().await;
            }
            Fault::Delay(time) => tokio::time::sleep(time).await,
            Fault::Full if writes => {
                return Ok(Reply { status: 4, header: "no room".into(), body: Body::empty() });
            }
            Fault::Busy if writes => {
                return Ok(Reply { status: 7, header: "it is ending".into(), body: Body::empty() });
            }
            Fault::BusyReads if call.method == READ => {
                return Ok(Reply { status: 7, header: "too many read".into(), body: Body::empty() });
            }
            _ => {}
        }
        let mut reply = node.service.serve(&[], call).await;
        match fault {
            Fault::LoseAnswers => Err(CallError::Unknown(to, "lost".to_owned())),
            Fault::Flip(at) if reply.body.len_bytes > 0 => {
                let mut bytes = BytesMut::new();
                while let Some(piece) = reply.body.stream.next().await {
                    bytes.extend_from_slice(&piece.unwrap());
                }
                let bit = at % (bytes.len() as u64 * 8);
                bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                Ok(Reply { body: bytes.freeze().into(), ..reply })
            }
            _ => Ok(reply),
        }
    }
}

impl Caller for Cluster {
    fn call(&self, to: Peer, _: Class, call: Call, deadline: Duration) -> BoxFuture<'_, Result<Reply, CallError>> {
        async move {
            let answered = tokio::time::timeout(deadline, self.answer(to, call)).await;
            answered.unwrap_or_else(|_| Err(CallError::Unknown(to, "the deadline has passed".to_owned())))
        }
        .boxed()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A log may still be writing when the last answer has come: it ends before its directory does.
        self.nodes.values().for_each(|node| node.shards.close());
        if !std::thread::panicking() {
            assert!(!self.is_id_reused.load(Ordering::Relaxed), "a shard id was used twice");
        }
    }
}

fn keys() -> ClusterKeys {
    ClusterKeys::new(ClusterKey::new(3, &[7; 32]), vec![ClusterKey::new(2, &[6; 32])])
}

/// For machines that are busy: nothing is ever slow.
fn patient() -> Timing {
    let hour = Duration::from_secs(3600);
    let never = Hedge { min: hour, unknown: hour, max: hour };
    let minute = Duration::from_secs(60);
    let timing = Timing { read: never, push: never, store: never, ..Timing::default() };
    Timing { call: minute, probe_deadline: minute, slow_cost_per: hour, ..timing }
}

/// For tests that wait for what does not come.
fn quick() -> Timing {
    let ms = Duration::from_millis;
    let soon = Hedge { min: ms(150), unknown: ms(150), max: ms(150) };
    Timing {
        probe_deadline: ms(2000),
        probe_pause: ms(50),
        full_pause: ms(50),
        hold_min: ms(50),
        patience: ms(20_000),
        read: soon,
        push: soon,
        store: soon,
        ..Timing::default()
    }
}

/// Returns once nothing is being deleted any more that was given up.
pub(in crate::object) async fn cleaned_up(striper: &Striper) {
    until("nothing is cleaned up any more", || striper.clean_ups.available_permits() == CLEAN_UPS_MAX).await;
}

fn ids(striper: &Striper) -> Vec<ShardId> {
    (0..striper.id_count()).map(|_| ShardId(striper.env.random_u64() >> 1 | 1)).collect()
}

async fn write(striper: &Striper, chunk: Ino, bytes: &Bytes) -> Result<Striped, Error> {
    let mut writer = striper.begin(chunk, ids(striper));
    for run in bytes.chunks(300_000) {
        writer.push(&[bytes.slice_ref(run)]).await?;
    }
    writer.finish().await
}

async fn read(striper: &Striper, chunk: Ino, place: &Place) -> Result<(Bytes, bool), Error> {
    let (mut bytes, mut damaged) = (BytesMut::new(), false);
    while (bytes.len() as u64) < place.len_bytes {
        let start = bytes.len() as u64;
        let read = striper.read(chunk, place, start..place.len_bytes.min(start + READ_MAX_BYTES)).await?;
        bytes.extend_from_slice(&read.bytes);
        damaged |= read.damaged;
    }
    Ok((bytes.freeze(), damaged))
}

fn layout(place: &Place) -> (usize, usize, &[(NodeId, ShardId)]) {
    let Layout::Rs { data_count, parity_count, shards, .. } = &place.layout else { panic!("not striped") };
    (usize::from(*data_count), usize::from(*parity_count), shards)
}

/// Shards that are not there.
fn missing(place: &Place) -> usize {
    layout(place).2.iter().filter(|(_, shard)| *shard == ShardId(0)).count()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not in half a minute: {what}");
}

/// Lengths just around the edges of blocks, segments, stripes, batches.
fn lengths(k: u64, random: &mut Random) -> Vec<u64> {
    let stripe = k * SEGMENT_BYTES;
    let edges =
        [0, k * BLOCK_BYTES, SEGMENT_BYTES, stripe, 3 * stripe, BATCH_BYTES, BATCH_BYTES + stripe, 2 * BATCH_BYTES];
    let around = |edge: u64| [edge.saturating_sub(1), edge, edge + 1];
    let some = [random.below(30_000), random.below(MIB), random.below(5 * MIB)];
    edges.into_iter().flat_map(around).chain(some).collect()
}

#[test]
fn costs_are_what_is_held() {
    let mut random = Random::seeded();
    let env = Env::system();
    for (k, m) in [(1, 0), (2, 1), (3, 2), (8, 3)] {
        let target = Scheme::new(k, m).unwrap();
        for len in lengths(u64::from(k), &mut random) {
            let longest = len.min(BATCH_BYTES);
            for scheme in (1..=target.shard_count()).filter_map(|live| width(target, live).ok()) {
                let (mut encoder, _) = encode::Encoder::new(CHUNK, Codec::new(scheme), &*env.rng);
                let mut plain = encode::Runs::default();
                plain.push(random.bytes(longest));
                let frames = encoder.encode(&mut crate::segment::Workspace::new(), &mut plain, true);
                let frames_bytes: usize = frames.iter().flatten().map(Bytes::len).sum();
                let held = longest + frames_bytes as u64;
                assert!(held <= write_cost_bytes(target, Some(len)), "{target} as {scheme}, {len} bytes");
                assert!(write_cost_bytes(target, Some(len)) <= write_cost_bytes(target, None));
            }
            let range = random.range(len);
            let costs = vec![Some(1); target.shard_count()];
            let grid = plan::Grid::new(&Geometry::new(target, len).unwrap(), range.clone(), &costs);
            let frames_bytes = grid.rows.len() * target.shard_count() * crate::segment::format::FRAME_MAX_BYTES;
            let held = range.end - range.start + frames_bytes as u64;
            assert!(held <= read_cost_bytes(target, range.end - range.start));
        }
    }
}
