//! Whole clusters in one process: real shard nodes, behind a caller that does to their calls what networks and disks do.

#![allow(clippy::unwrap_used, clippy::expect_used)]

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
use crate::shard::{Options, ShardService, Shards};
use crate::transport::{Body, Call, CallError, Class, Peer, Reply, Service};
use crate::units::{BLOCK_BYTES, CHUNK_BYTES, MIB, SEGMENT_BYTES};

const PUT: u16 = 0x0201;
const APPEND: u16 = 0x0202;
const FINISH: u16 = 0x0203;
const READ: u16 = 0x0205;
const CHUNK: Ino = Ino(0x77);

/// What happens to the calls to a node.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    None,
    /// It is not reached.
    Refuse,
    /// It gives no answer, to anything.
    Hang,
    /// It gives no answer to what writes.
    HangWrites,
    /// Its answers come late.
    Delay(Duration),
    /// Its disk is full.
    Full,
    /// It takes no more.
    Busy,
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

struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
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
        let node = |id| {
            let dir = TempDir::new().unwrap();
            let (shards, _) = Shards::open(&Options { file_len_bytes: 16 << 20, ..Options::new(dir.path()) }).unwrap();
            let service = ShardService::new(shards.clone(), dir.path(), 0, 1);
            (NodeId(id), Node { shards, service, fault: Mutex::new(Fault::None), _dir: dir })
        };
        let nodes = (0..node_count).map(node).collect();
        let (begun, asked, is_id_reused) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Arc::new(Cluster { nodes, begun, asked, is_id_reused })
    }

    fn set(&self, nodes: &[u64], fault: Fault) {
        nodes.iter().for_each(|node| *self.nodes[&NodeId(*node)].fault.lock().unwrap() = fault);
    }

    fn heal(&self) {
        self.nodes.values().for_each(|node| *node.fault.lock().unwrap() = Fault::None);
    }

    fn map(&self, k: u8, m: u8) -> Map {
        let member = |node: &NodeId| Member {
            node: *node,
            weight: 64,
            zone: String::new(),
            host: node.to_string(),
            state: State::Active,
        };
        let members = self.nodes.keys().map(member).collect();
        Map { scheme: Scheme::new(k, m).unwrap(), ring: Ring::new(5, members).unwrap() }
    }

    /// A gateway that knows nothing yet.
    fn striper(self: &Arc<Cluster>, k: u8, m: u8, timing: Timing) -> Striper {
        Striper::with_timing(self.clone(), HashSet::new(), self.map(k, m), keys(), Env::system(), timing)
    }

    fn shards(&self) -> usize {
        self.nodes.values().map(|node| node.shards.list(None, 1000).unwrap().len()).sum()
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
            Fault::Delay(time) => tokio::time::sleep(time).await,
            Fault::Full if writes => {
                return Ok(Reply { status: 4, header: "no room".into(), body: Body::empty() });
            }
            Fault::Busy if writes => {
                return Ok(Reply { status: 7, header: "it is ending".into(), body: Body::empty() });
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_length_reads_back_with_any_m_nodes_dead() {
    let (cluster, mut random) = (Cluster::new(6), Random::seeded());
    for (k, m) in [(1, 0), (1, 1), (2, 1), (1, 2), (3, 2), (4, 2)] {
        for len in lengths(u64::from(k), &mut random) {
            let striper = cluster.striper(k, m, patient());
            let (chunk, bytes) = (Ino(random.next() >> 1), random.bytes(len));
            let Striped { place, short } = write(&striper, chunk, &bytes).await.unwrap();
            assert!(!short && place.len_bytes == len && place.live_bytes == len);
            let (_, _, shards) = layout(&place);
            let nodes: BTreeSet<NodeId> = shards.iter().map(|(node, _)| *node).collect();
            assert_eq!(nodes.len(), usize::from(k + m), "each on a node of its own");
            let (all, damaged) = read(&striper, chunk, &place).await.unwrap();
            assert!(all == bytes && !damaged, "rs({k},{m}) of {len}");
            let dead = random.choose(u64::from(k + m), usize::from(m));
            let dead: Vec<u64> = dead.into_iter().map(|index| shards[index as usize].0.0).collect();
            cluster.set(&dead, Fault::Refuse);
            // One that knows, and one that does not.
            for striper in [&striper, &cluster.striper(k, m, patient())] {
                for _ in 0..4 {
                    let range = random.range(len);
                    let read = striper.read(chunk, &place, range.clone()).await.unwrap();
                    assert!(
                        read.bytes == bytes[range.start as usize..range.end as usize],
                        "rs({k},{m}) of {len}: {range:?}"
                    );
                    assert!(!read.damaged);
                }
            }
            cluster.heal();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_chunk_and_no_longer_one() {
    let (cluster, mut random) = (Cluster::new(5), Random::seeded());
    let striper = cluster.striper(3, 2, patient());
    for len in [CHUNK_BYTES - 1, CHUNK_BYTES] {
        let bytes = random.bytes(len);
        let place = write(&striper, CHUNK, &bytes).await.unwrap().place;
        let (_, _, shards) = layout(&place);
        cluster.set(&[shards[0].0.0, shards[3].0.0], Fault::Refuse);
        assert!(read(&striper, CHUNK, &place).await.unwrap() == (bytes, false));
        cluster.heal();
        until("all nodes are back", || striper.health().iter().all(|node| node.is_up)).await;
    }
    let mut writer = striper.begin(CHUNK, ids(&striper));
    let too_long = [Bytes::from(vec![0; CHUNK_BYTES as usize]), Bytes::from_static(b"!")];
    assert!(matches!(writer.push(&too_long).await, Err(Error::TooLong)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_asks_for_the_segments_it_needs_and_prefers_nodes_at_hand() {
    let (cluster, mut random) = (Cluster::new(3), Random::seeded());
    let (striper, bytes) = (cluster.striper(2, 1, patient()), random.bytes(MIB));
    let place = write(&striper, CHUNK, &bytes).await.unwrap().place;
    let (_, _, shards) = layout(&place);
    let geometry = Geometry::new(Scheme::new(2, 1).unwrap(), MIB).unwrap();
    for _ in 0..30 {
        cluster.asked.lock().unwrap().clear();
        let range = random.range(MIB);
        striper.read(CHUNK, &place, range.clone()).await.unwrap();
        let mut covered: BTreeMap<NodeId, u32> = BTreeMap::new();
        geometry.cover(range).for_each(|cover| *covered.entry(shards[cover.segment.shard_index].0).or_default() += 1);
        assert_eq!(*cluster.asked.lock().unwrap(), covered);
    }
    let local = HashSet::from([shards[2].0]);
    let near = Striper::with_timing(cluster.clone(), local, cluster.map(2, 1), keys(), Env::system(), patient());
    cluster.asked.lock().unwrap().clear();
    assert_eq!(near.read(CHUNK, &place, 0..MIB / 2).await.unwrap().bytes, bytes[..MIB as usize / 2]);
    assert_eq!(cluster.asked.lock().unwrap()[&shards[2].0], 4, "the parity shard is at hand");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_two_of_five_nodes_may_hang_at_a_read() {
    let (cluster, mut random) = (Cluster::new(5), Random::seeded());
    let bytes = random.bytes(MIB / 2);
    let place = write(&cluster.striper(3, 2, patient()), CHUNK, &bytes).await.unwrap().place;
    let pairs = (0..5).flat_map(|a| (0..a).map(move |b| (a, b, Fault::Hang)));
    for (a, b, fault) in pairs.chain([(0, 1, Fault::Delay(Duration::from_secs(5)))]) {
        let striper = cluster.striper(3, 2, quick());
        cluster.set(&[a, b], fault);
        assert!(read(&striper, CHUNK, &place).await.unwrap() == (bytes.clone(), false), "nodes {a} and {b}: {fault:?}");
        cluster.heal();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nodes_dead_narrower_layouts_are_written() {
    let (cluster, mut random) = (Cluster::new(5), Random::seeded());
    for (k, m) in [(3, 2), (2, 1), (1, 1), (2, 0), (1, 0), (4, 1)] {
        let target = Scheme::new(k, m).unwrap();
        for (dead, len) in (0..5).flat_map(|dead| [(dead, 50_000), (dead, 3 * MIB)]) {
            let (striper, bytes) =
                (cluster.striper(k, m, Timing { patience: Duration::ZERO, ..patient() }), random.bytes(len));
            let dead: Vec<u64> = random.choose(5, dead);
            cluster.set(&dead, Fault::Refuse);
            let written = write(&striper, CHUNK, &bytes).await;
            match width(target, 5 - dead.len()) {
                Ok(scheme) => {
                    let Striped { place, short } = written.unwrap();
                    let (data_count, parity_count, shards) = layout(&place);
                    if missing(&place) == 0 {
                        let wide = (data_count, parity_count);
                        // The first attempt may have gone to nodes that live.
                        assert!(wide == (scheme.data_count(), scheme.parity_count()), "{target}: {wide:?}");
                        assert_eq!(short, scheme != target);
                    } else {
                        assert!(short);
                    }
                    let there = shards.iter().filter(|(_, shard)| *shard != ShardId(0));
                    let there: Vec<u64> = there.map(|(node, _)| node.0).collect();
                    assert!(there.iter().all(|node| !dead.contains(node)));
                    assert!(there.len() >= data_count + usize::from(m > 0), "{target}: one may be lost");
                    assert!(read(&striper, CHUNK, &place).await.unwrap() == (bytes, false));
                }
                Err(_) => assert!(
                    matches!(written, Err(Error::TooFewNodes { .. } | Error::Unavailable(_))),
                    "{target} with {dead:?} dead: {written:?}"
                ),
            }
            cluster.heal();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_die_at_any_call_of_a_write() {
    let mut random = Random::seeded();
    // With a node to spare, with none, and where none may be lost.
    for (node_count, k, m) in [(6, 3, 2), (5, 3, 2), (3, 2, 1)] {
        let cluster = Cluster::new(node_count);
        let mut failed = 0;
        for (len, calls) in [(BATCH_BYTES, 1), (2 * BATCH_BYTES + 70_000, 4)] {
            let bytes = random.bytes(len);
            for call in 0..=calls {
                for node in 0..3 {
                    let striper = cluster.striper(k, m, patient());
                    cluster.set(&[node], Fault::RefuseAfter(call));
                    let written = write(&striper, CHUNK, &bytes).await;
                    cluster.set(&[node], Fault::Refuse);
                    match written {
                        Ok(Striped { place, short }) => {
                            let there = read(&striper, CHUNK, &place).await.unwrap();
                            assert!(there == (bytes.clone(), false), "rs({k},{m}), node {node} died at call {call}");
                            assert!(missing(&place) <= 1 && (missing(&place) == 0 || short));
                            assert!(short || node_count == 6 || call == calls);
                        }
                        Err(error) => {
                            assert!(matches!(error, Error::Unavailable(_)), "{error}");
                            assert!((k, m) == (2, 1) && call > 0 && call < calls, "rs({k},{m}) at call {call}");
                            failed += 1;
                        }
                    }
                    cluster.heal();
                }
            }
        }
        assert_eq!(failed > 0, (k, m) == (2, 1), "a long chunk fails only where no shard may be missing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_slow_is_written_elsewhere_or_done_without() {
    let mut random = Random::seeded();
    for (fault, len) in [(Fault::HangWrites, 90_000), (Fault::HangWrites, 3 * MIB), (Fault::Hang, 90_000)] {
        let bytes = random.bytes(len);
        // None to spare: four of five are enough.
        let cluster = Cluster::new(5);
        let striper = cluster.striper(3, 2, quick());
        cluster.set(&[2], fault);
        let Striped { place, short } = write(&striper, CHUNK, &bytes).await.unwrap();
        assert!(short);
        let (data_count, parity_count, shards) = layout(&place);
        assert!(shards.iter().all(|(node, shard)| *node != NodeId(2) || *shard == ShardId(0)));
        assert!(data_count + parity_count - missing(&place) > data_count, "one may be lost");
        assert!(read(&striper, CHUNK, &place).await.unwrap().0 == bytes);
        // Two to spare: no matter who is slow, it is replaced.
        let cluster = Cluster::new(7);
        let striper = cluster.striper(3, 2, quick());
        cluster.set(&[1, 2], fault);
        let Striped { place, .. } = write(&striper, CHUNK, &bytes).await.unwrap();
        assert!(layout(&place).2.iter().all(|(node, shard)| node.0 != 1 && node.0 != 2 || *shard == ShardId(0)));
        assert!(read(&striper, CHUNK, &place).await.unwrap().0 == bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_shard_may_be_missing_a_node_that_hangs_is_found_out_and_left_out() {
    let (cluster, mut random) = (Cluster::new(3), Random::seeded());
    let (striper, bytes) = (cluster.striper(2, 1, quick()), random.bytes(400_000));
    cluster.set(&[1], Fault::Hang);
    let Striped { place, short } = write(&striper, CHUNK, &bytes).await.unwrap();
    assert!(short && matches!(layout(&place), (1, 1, _)));
    assert!(read(&striper, CHUNK, &place).await.unwrap().0 == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_counts_as_none() {
    let (cluster, mut random) = (Cluster::new(6), Random::seeded());
    for len in [70_000, 3 * MIB] {
        let (striper, bytes) = (cluster.striper(3, 2, patient()), random.bytes(len));
        cluster.set(&[0], Fault::LoseAnswers);
        let Striped { place, .. } = write(&striper, CHUNK, &bytes).await.unwrap();
        assert!(layout(&place).2.iter().all(|(node, shard)| *node != NodeId(0) || *shard == ShardId(0)));
        cluster.heal();
        assert!(read(&striper, CHUNK, &place).await.unwrap() == (bytes, false));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_flips_end_as_the_right_bytes_or_an_error() {
    let (cluster, mut random) = (Cluster::new(5), Random::seeded());
    let (striper, bytes) = (cluster.striper(3, 2, patient()), random.bytes(400_000));
    let place = write(&striper, CHUNK, &bytes).await.unwrap().place;
    let (mut right, mut refused) = (0, 0);
    for _ in 0..1000 {
        let wrong_count = random.below(5) as usize;
        for node in random.choose(5, wrong_count) {
            cluster.set(&[node], Fault::Flip(random.next()));
        }
        cluster.asked.lock().unwrap().clear();
        let range = random.range(bytes.len() as u64);
        let outcome = striper.read(CHUNK, &place, range.clone()).await;
        let is_wrong = |node: &NodeId| *cluster.nodes[node].fault.lock().unwrap() != Fault::None;
        let any_wrong = cluster.asked.lock().unwrap().keys().any(is_wrong);
        match outcome {
            Ok(read) => {
                assert!(read.bytes == bytes[range.start as usize..range.end as usize], "wrong bytes");
                // A frame that was not needed in the end may not have been looked at.
                assert!(any_wrong || !read.damaged);
                right += 1;
            }
            Err(error) => {
                assert!(matches!(error, Error::Corrupt { .. }) && wrong_count > 2, "{error}");
                refused += 1;
            }
        }
        cluster.heal();
    }
    assert!(right > 500 && refused > 10, "{right} and {refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_reported() {
    let (cluster, mut random) = (Cluster::new(3), Random::seeded());
    let (striper, bytes) = (cluster.striper(2, 1, patient()), random.bytes(300_000));
    let place = write(&striper, CHUNK, &bytes).await.unwrap().place;
    let (_, _, shards) = layout(&place);
    cluster.set(&[shards[0].0.0], Fault::Flip(77));
    assert!(read(&striper, CHUNK, &place).await.unwrap() == (bytes.clone(), true), "a frame is damaged");
    cluster.heal();
    assert_eq!(striper.remove(&shards[1..2]).await, shards[1..2]);
    assert!(read(&striper, CHUNK, &place).await.unwrap() == (bytes, true), "a shard is gone");
    striper.remove(&shards[2..]).await;
    let beyond = read(&striper, CHUNK, &place).await;
    assert!(matches!(beyond, Err(Error::Corrupt { .. })), "{beyond:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_m_it_is_not_available_and_soon_after_it_is() {
    let (cluster, mut random) = (Cluster::new(3), Random::seeded());
    let timing = Timing { patience: Duration::from_millis(500), ..quick() };
    let (striper, bytes) = (cluster.striper(2, 1, timing), random.bytes(300_000));
    let place = write(&cluster.striper(2, 1, patient()), CHUNK, &bytes).await.unwrap().place;
    for fault in [Fault::Refuse, Fault::Hang] {
        cluster.set(&[0, 1], fault);
        let outcome = read(&striper, CHUNK, &place).await;
        assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
        let written = write(&striper, CHUNK, &bytes).await;
        assert!(matches!(written, Err(Error::TooFewNodes { .. })), "{written:?}");
        cluster.heal();
        until("all nodes are back", || striper.health().iter().all(|node| node.is_up)).await;
        assert!(read(&striper, CHUNK, &place).await.unwrap().0 == bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_nodes_get_nothing() {
    let (cluster, mut random) = (Cluster::new(6), Random::seeded());
    let (striper, bytes) =
        (cluster.striper(3, 2, Timing { full_pause: Duration::from_secs(3600), ..patient() }), random.bytes(70_000));
    cluster.set(&[4], Fault::Full);
    let mut used = BTreeSet::new();
    for chunk in 0..20 {
        let Striped { place, short } = write(&striper, Ino(chunk), &bytes).await.unwrap();
        assert!(!short);
        used.extend(layout(&place).2.iter().map(|(node, _)| node.0));
    }
    assert_eq!(used, BTreeSet::from([0, 1, 2, 3, 5]));
    assert!(striper.health().iter().all(|node| node.is_up && node.is_full == (node.node == NodeId(4))));
    cluster.set(&[0, 1, 2, 3, 4, 5], Fault::Full);
    let impatient = cluster.striper(3, 2, Timing { patience: Duration::ZERO, ..patient() });
    let refused = write(&impatient, CHUNK, &bytes).await;
    assert!(matches!(refused, Err(Error::Full)), "{refused:?}");
}

/// A node that is ending: what is written meanwhile is written as if it were gone, and what it has can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_nodes_are_passed_over_and_read() {
    let (cluster, mut random) = (Cluster::new(3), Random::seeded());
    let (striper, bytes) = (cluster.striper(2, 1, patient()), random.bytes(3 * MIB));
    let before = write(&striper, Ino(1), &bytes).await.unwrap().place;
    cluster.set(&[1], Fault::Busy);
    let Striped { place, short } = write(&striper, Ino(2), &bytes).await.unwrap();
    assert!(short && layout(&place).0 == 1 && layout(&place).2.iter().all(|(node, _)| node.0 != 1), "{place:?}");
    assert!(striper.is_up(NodeId(1)) && !striper.takes_shards(NodeId(1)));
    assert!(read(&striper, Ino(1), &before).await.unwrap() == (bytes.clone(), false));
    cluster.set(&[0, 1, 2], Fault::Busy);
    let impatient = cluster.striper(2, 1, Timing { patience: Duration::ZERO, ..patient() });
    let refused = write(&impatient, CHUNK, &bytes).await;
    assert!(matches!(&refused, Err(Error::Unavailable(why)) if why.contains("busy")), "{refused:?}");
    cluster.set(&[0, 1, 2], Fault::None);
    until("they take shards again", || (0..3).all(|node| striper.takes_shards(NodeId(node)))).await;
    assert!(!write(&striper, Ino(3), &bytes).await.unwrap().short);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_leaves_nothing() {
    let (cluster, mut random) = (Cluster::new(5), Random::seeded());
    let (striper, bytes) = (cluster.striper(3, 2, patient()), random.bytes(4 * MIB));
    let begin = async |len: usize| {
        let mut writer = striper.begin(CHUNK, ids(&striper));
        writer.push(&[bytes.slice(..len)]).await.unwrap();
        writer
    };
    begin(3 << 20).await.abandon().await;
    drop(begin(3 << 20).await);
    until("nothing goes on any more", || Arc::strong_count(&striper.0) == 1).await;
    // Dropped while it ends: it may end all the same, for nobody.
    for wait_ms in [0, 1, 2, 5, 10, 20, 40] {
        for len in [100_000, 3 << 20] {
            let writer = begin(len).await;
            if let Ok(ended) = tokio::time::timeout(Duration::from_millis(wait_ms), writer.finish()).await {
                striper.remove(layout(&ended.unwrap().place).2).await;
            }
            // Whoever writes or cleans up in the background holds the striper.
            until("nothing goes on any more", || Arc::strong_count(&striper.0) == 1).await;
            assert_eq!(cluster.shards(), 0, "after {wait_ms} ms of {len} bytes");
        }
    }
    // One that could not be written.
    cluster.set(&[0, 1, 2], Fault::RefuseAfter(2));
    let failed = write(&cluster.striper(3, 2, Timing { patience: Duration::ZERO, ..patient() }), CHUNK, &bytes).await;
    assert!(failed.is_err());
    cluster.heal();
    let place = write(&striper, CHUNK, &bytes).await.unwrap().place;
    until("only one chunk's shards are left", || cluster.shards() == 5).await;
    let (_, _, shards) = layout(&place);
    let mut gone = striper.remove(shards).await;
    gone.sort();
    let mut all = shards.to_vec();
    all.sort();
    assert_eq!(gone, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_map_may_change_at_any_time() {
    let (cluster, mut random) = (Cluster::new(6), Random::seeded());
    let map = |k, m, nodes: Range<usize>| {
        let Map { scheme, ring } = cluster.map(k, m);
        Map { scheme, ring: Ring::new(nodes.len() as u64, ring.members()[nodes].to_vec()).unwrap() }
    };
    let striper = Striper::new(cluster.clone(), HashSet::new(), map(3, 2, 0..6), keys(), Env::system());
    let bytes = random.bytes(2 * MIB);
    let mut begun = striper.begin(CHUNK, ids(&striper));
    begun.push(std::slice::from_ref(&bytes)).await.unwrap();
    striper.set_map(map(2, 1, 0..3));
    let old = begun.finish().await.unwrap().place;
    assert!(matches!(&old.layout, Layout::Rs { data_count: 3, parity_count: 2, epoch: 6, .. }));
    let new = write(&striper, Ino(5), &bytes).await.unwrap().place;
    assert!(matches!(&new.layout, Layout::Rs { data_count: 2 | 1, parity_count: 1, epoch: 3, .. }));
    assert!(layout(&new).2.iter().all(|(node, _)| node.0 < 3));
    assert!(read(&striper, CHUNK, &old).await.unwrap().0 == bytes);
    assert!(read(&striper, Ino(5), &new).await.unwrap().0 == bytes);
    assert!(striper.health().len() >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_was_answered_is_gone() {
    let (cluster, mut random) = (Cluster::new(3), Random::seeded());
    let striper = cluster.striper(2, 1, patient());
    let place = write(&striper, CHUNK, &random.bytes(50_000)).await.unwrap().place;
    let (_, _, shards) = layout(&place);
    cluster.set(&[1], Fault::Refuse);
    let with_none = [shards, &[(NodeId(1), ShardId(0))]].concat();
    let gone = striper.remove(&with_none).await;
    let expected: Vec<_> =
        with_none.iter().copied().filter(|(node, id)| *node != NodeId(1) || *id == ShardId(0)).collect();
    assert_eq!(gone, expected);
    assert_eq!(cluster.shards(), 1);
}

/// Changes k, shards, key id, wrapped key.
type Change = dyn Fn(&mut u8, &mut Vec<(NodeId, ShardId)>, &mut u32, &mut Vec<u8>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_catalog_says_is_not_trusted() {
    let (cluster, mut random) = (Cluster::new(3), Random::seeded());
    let (striper, bytes) = (cluster.striper(2, 1, patient()), random.bytes(50_000));
    let place = write(&striper, CHUNK, &bytes).await.unwrap().place;
    let read = async |place: &Place, chunk| striper.read(chunk, place, 0..100).await;
    let changed = |change: &Change| {
        let mut place = place.clone();
        if let Layout::Rs { data_count, shards, key_id, wrapped_key, .. } = &mut place.layout {
            change(data_count, shards, key_id, wrapped_key);
        }
        place
    };
    assert!(matches!(read(&changed(&|_, _, key, _| *key = 9), CHUNK).await, Err(Error::NoKey { key_id: 9 })));
    for place in [
        changed(&|_, _, key, _| *key = 2),
        changed(&|_, _, _, wrapped| wrapped[20] ^= 1),
        changed(&|data_count, _, _, _| *data_count = 0),
        changed(&|_, shards, _, _| shards.truncate(2)),
        Place { len_bytes: CHUNK_BYTES + 1, ..place.clone() },
        Place { layout: Layout::Plain { node: NodeId(1) }, ..place.clone() },
        // Shards of each other's index.
        changed(&|_, shards, _, _| shards.reverse()),
    ] {
        let outcome = read(&place, CHUNK).await;
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}");
    }
    assert!(matches!(read(&place, Ino(1)).await, Err(Error::Corrupt { .. })), "another chunk's key");
    let short = Place { len_bytes: 49_999, ..place.clone() };
    let end = striper.read(CHUNK, &short, 49_000..49_999).await;
    assert!(matches!(end, Err(Error::Corrupt { .. })), "a frame of another length: {end:?}");
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

/// Where the frames of a shard of `place` lie, as its node gives them.
async fn frames_of(striper: &Striper, (node, shard): (NodeId, ShardId), count: u32) -> (Bytes, Vec<u32>) {
    striper.client.read(node, shard, 0..count, Duration::from_secs(60)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_shards_come_back_byte_for_byte_on_other_nodes() {
    let (cluster, mut random) = (Cluster::new(6), Random::seeded());
    for (k, m) in [(1_u8, 1_u8), (2, 1), (3, 2)] {
        for len in [1, 70_000, MIB + 1, random.below(3 * MIB) + 1] {
            let striper = cluster.striper(k, m, patient());
            let (chunk, bytes) = (Ino(random.next() >> 1), random.bytes(len));
            let place = write(&striper, chunk, &bytes).await.unwrap().place;
            let shards = layout(&place).2.to_vec();
            let geometry = Geometry::new(Scheme::new(k, m).unwrap(), len).unwrap();
            let lost = random.choose(shards.len() as u64, usize::from(m));
            let mut before = Vec::new();
            for index in &lost {
                let index = *index as usize;
                before.push(frames_of(&striper, shards[index], geometry.frame_count(index)).await);
                assert_eq!(striper.remove(&shards[index..=index]).await.len(), 1);
            }
            let mut found = striper.look(chunk, &place, &HashSet::new()).await.unwrap();
            for (index, (_, found)) in found.iter().enumerate() {
                let expected = if lost.contains(&(index as u64)) { Found::Lost } else { Found::There };
                assert_eq!(*found, expected, "shard {index} of rs({k},{m})");
            }
            let used: BTreeSet<NodeId> = shards.iter().map(|(node, _)| *node).collect();
            let free =
                cluster.nodes.keys().filter(|node| !used.contains(node)).chain(shards.iter().map(|(node, _)| node));
            let homes: Vec<_> = lost
                .iter()
                .zip(free)
                .zip(ids(&striper))
                .map(|((index, node), id)| (*index as usize, *node, id))
                .collect();
            let made = striper.rebuild(chunk, &place, &mut found, &homes).await.unwrap();
            for ((index, node, id), before) in homes.iter().zip(before) {
                assert_eq!(layout(&made).2[*index], (*node, *id));
                assert!(frames_of(&striper, (*node, *id), geometry.frame_count(*index)).await == before);
            }
            assert!(read(&striper, chunk, &made).await.unwrap().0 == bytes);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_by_verifying_and_is_no_source_of_a_rebuild() {
    let (cluster, mut random) = (Cluster::new(5), Random::seeded());
    let striper = cluster.striper(3, 2, patient());
    let bytes = random.bytes(MIB);
    let place = write(&striper, CHUNK, &bytes).await.unwrap().place;
    let shards = layout(&place).2.to_vec();
    let bad = random.below(5) as usize;
    cluster.set(&[shards[bad].0.0], Fault::Flip(random.next()));
    let mut found = striper.look(CHUNK, &place, &HashSet::new()).await.unwrap();
    assert!(found.iter().all(|(_, found)| *found == Found::There), "nobody has read it yet");
    striper.verify(CHUNK, &place, &mut found).await.unwrap();
    for (index, (_, found)) in found.iter().enumerate() {
        assert_eq!(*found == Found::Lost, index == bad, "shard {index}");
    }
    // Another is lost; the bad one is not known to be bad.
    let lost = (bad + 1) % 5;
    striper.remove(&shards[lost..=lost]).await;
    let mut found = striper.look(CHUNK, &place, &HashSet::new()).await.unwrap();
    let homes = [(lost, shards[lost].0, ids(&striper)[0])];
    let made = striper.rebuild(CHUNK, &place, &mut found, &homes).await.unwrap();
    // Three of four are asked, in order.
    let is_asked = (0..5).filter(|index| *index != lost).position(|index| index == bad) != Some(3);
    assert_eq!(found[bad].1 == Found::Lost, is_asked, "who rebuilds learns that it is bad");
    assert!(read(&striper, CHUNK, &made).await.unwrap().0 == bytes);
    // Two more: too few good ones are left.
    let more = [(bad + 2) % 5, (bad + 3) % 5];
    for index in more {
        striper.remove(&shards[index..=index]).await;
    }
    let mut left = striper.look(CHUNK, &place, &HashSet::new()).await.unwrap();
    let refused = striper.rebuild(CHUNK, &place, &mut left, &[(lost, shards[lost].0, ids(&striper)[1])]).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_there_is_copied_and_from_the_others_if_it_turns_out_bad() {
    let (cluster, mut random) = (Cluster::new(6), Random::seeded());
    let striper = cluster.striper(3, 2, patient());
    let bytes = random.bytes(MIB + 77);
    let place = write(&striper, CHUNK, &bytes).await.unwrap().place;
    let shards = layout(&place).2.to_vec();
    let moved = random.below(5) as usize;
    let spare = *cluster.nodes.keys().find(|node| shards.iter().all(|(used, _)| used != *node)).unwrap();
    let fresh = ids(&striper);
    let mut found = striper.look(CHUNK, &place, &HashSet::new()).await.unwrap();
    // Nobody but its own node has to answer.
    let others: Vec<u64> = shards.iter().map(|(node, _)| node.0).filter(|node| *node != shards[moved].0.0).collect();
    cluster.set(&others, Fault::Refuse);
    let made = striper.rebuild(CHUNK, &place, &mut found, &[(moved, spare, fresh[0])]).await.unwrap();
    cluster.set(&others, Fault::None);
    let geometry = Geometry::new(Scheme::new(3, 2).unwrap(), bytes.len() as u64).unwrap();
    let count = geometry.frame_count(moved);
    let before = frames_of(&striper, shards[moved], count).await;
    assert!(frames_of(&striper, layout(&made).2[moved], count).await == before);
    // Its own bytes are bad: it is made of the others, and known to be bad.
    cluster.set(&[shards[moved].0.0], Fault::Flip(random.next()));
    let made = striper.rebuild(CHUNK, &place, &mut found, &[(moved, spare, fresh[1])]).await.unwrap();
    assert_eq!(found[moved].1, Found::Lost);
    assert!(frames_of(&striper, layout(&made).2[moved], count).await == before);
}
