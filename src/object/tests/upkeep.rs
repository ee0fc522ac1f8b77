//! What keeps a cluster whole: in which order it repairs, when it rests, and what it sees although nobody reads it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;

use super::super::recount::ScrubCursors;
use super::super::repair::Repaired;
use super::super::striped::tests::Fault as NodeFault;
use super::cluster::{Rig, read};
use super::*;
use crate::catalog::{Command, Due, Place};
use crate::env::{Clock, Timestamp};
use crate::shard::ServiceLimits;

/// A clock that stands still unless it is told to go on, but for what each look at it takes.
#[derive(Default)]
struct Hands {
    passed_ms: AtomicU64,
    look_ms: u64,
}

impl Hands {
    fn pass(&self, time: Duration) {
        self.passed_ms.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000 + self.monotonic().as_secs() as i64)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.passed_ms.fetch_add(self.look_ms, Ordering::Relaxed))
    }
}

impl Rig {
    /// A gateway that goes by `clock`.
    async fn gateway_by(&self, clock: &Arc<Hands>, striper: Striper, config: Config) -> Store {
        let env = Env { clock: clock.clone(), ..Env::system() };
        let store = Store::open(env, self.ledger.clone(), self.chunks(striper), config).await.unwrap();
        let _ = store.create_bucket("b", "owner", "here", false).await;
        store
    }

    /// The chunks whose places were written anew, or found whole, in that order.
    fn swapped(&self) -> Vec<Ino> {
        let log = self.ledger.log.lock().unwrap();
        let swapped = log.iter().filter_map(|(_, entry)| match entry {
            Entry::Command(Envelope { command: Command::Swap { chunk, .. }, .. }) => Some(*chunk),
            _ => None,
        });
        swapped.collect()
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Env::system().rng.fill(&mut bytes);
    bytes
}

/// Who has fewest shards to spare is repaired first, whatever came first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_lose_least_is_repaired_first() {
    const COUNT: u64 = 24;
    let rig = Rig::new(8, ServiceLimits::default());
    let config = Config { repair_grace: Duration::ZERO, ..Config::default() };
    let store = rig.gateway_by(&Arc::default(), rig.cluster.patient_striper(3, 2), config).await;
    for index in 0..COUNT {
        put(&store, &format!("k{index}"), &pattern(20_000, index)).await.unwrap();
    }
    let dead = [NodeId(0), NodeId(1)];
    rig.cluster.set(&dead.map(|node| node.0), NodeFault::Refuse);
    store.chunks.striper().unwrap().probe().await;
    let lost_count = |place: &Place| place.layout.shards().iter().filter(|(node, _)| dead.contains(node)).count();
    let lost_counts: HashMap<Ino, usize> =
        rig.places().await.iter().map(|(chunk, place)| (*chunk, lost_count(place))).collect();
    let chunks: Vec<Ino> = lost_counts.keys().copied().collect();
    assert!((0..=2).all(|count| lost_counts.values().any(|lost| *lost == count)), "{lost_counts:?}");
    // Also who has lost nothing is to be looked at.
    store.mark(chunks, false).await.unwrap();
    assert_eq!(store.repair().await.unwrap().whole_count, COUNT);
    let swapped = rig.swapped();
    let order: Vec<usize> = swapped.iter().map(|chunk| lost_counts[chunk]).collect();
    assert!(order.is_sorted_by(|a, b| a >= b), "{order:?}");
    assert!(!swapped.is_sorted(), "the order of their ids is another");
    for index in 0..COUNT {
        assert!(read(&store, &format!("k{index}")).await.unwrap() == pattern(20_000, index));
    }
}

/// While requests are under way, repair rests after each chunk as long as that took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repair_rests_while_requests_are_under_way() {
    const COUNT: u64 = 4;
    const LOOK: Duration = Duration::from_millis(100);
    let rig = Rig::new(3, ServiceLimits::default());
    let clock = Arc::new(Hands { look_ms: LOOK.as_millis() as u64, ..Hands::default() });
    let store = rig.gateway_by(&clock, rig.cluster.patient_striper(2, 1), Config::default()).await;
    let body = pattern(3_000_000, 1);
    for index in 0..COUNT {
        put(&store, &format!("k{index}"), &body).await.unwrap();
    }
    let chunks: Vec<Ino> = rig.places().await.into_iter().map(|(chunk, _)| chunk).collect();
    let mut slow = store.get(&target("k0")).await.unwrap().read(0..body.len() as u64);
    let first_run = slow.next().await.unwrap().unwrap();
    store.mark(chunks, false).await.unwrap();
    let began = std::time::Instant::now();
    assert_eq!(store.repair().await.unwrap().whole_count, COUNT);
    // By this clock each chunk took two looks at least, and no sleep ends before its time.
    assert!(began.elapsed() >= LOOK * COUNT as u32, "{:?}", began.elapsed());
    assert!([&first_run[..], &collect(slow).await.unwrap()].concat() == body);
}

/// The scrub goes on where the leader before has left it, and rests where that one had come to the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scrub_goes_on_under_the_next_leader() {
    let rig = Rig::new(2, ServiceLimits::default());
    let clock = Arc::<Hands>::default();
    let leader = async |gateway: &str| {
        let config = Config { gateway: gateway.into(), ..Config::default() };
        (rig.gateway_by(&clock, rig.cluster.patient_striper(1, 1), config).await, ScrubCursors::default())
    };
    let (first, mut cursors) = leader("first").await;
    // One call of the scrub reads two of these from each node.
    for key in ["a", "b", "c", "d", "e"] {
        put(&first, key, &noise(4 * MIB as usize)).await.unwrap();
    }
    // Listing puts them into the index, by which the scrub goes.
    assert_eq!(rig.cluster.stored().len(), 10);
    for _ in 0..2 {
        first.scrub_a_little(&mut cursors).await.unwrap();
        clock.pass(Duration::from_secs(60));
    }
    assert_eq!(first.upkeep().scrub_pass_count, 0, "it is in the midst");
    let (second, mut cursors) = leader("second").await;
    second.scrub_a_little(&mut cursors).await.unwrap();
    assert_eq!(second.upkeep().scrub_pass_count, 2, "one shard was left of each node");
    let (third, mut cursors) = leader("third").await;
    for _ in 0..3 {
        third.scrub_a_little(&mut cursors).await.unwrap();
    }
    assert_eq!(third.upkeep().scrub_pass_count, 0, "the pass of before is of today");
    clock.pass(Config::default().scrub_interval);
    let mut counts = Vec::new();
    for _ in 0..3 {
        third.scrub_a_little(&mut cursors).await.unwrap();
        counts.push(third.upkeep().scrub_pass_count);
    }
    assert_eq!(counts, [0, 0, 2], "from the beginning");
}

/// What was written under the map of before, and is named once a node has left, is missed: by the recount, and by the mover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_named_late_on_a_node_that_has_left_is_made_whole_elsewhere() {
    for by_mover in [false, true] {
        let rig = Rig::new(5, ServiceLimits::default());
        let store = rig.gateway(Config::default()).await;
        let body = pattern(100_000, 1);
        let late = received(&store, &body).await;
        let (gone, _) = *rig.cluster.stored().first().unwrap();
        store.chunks.striper().unwrap().set_map(rig.cluster.map_without(2, 1, Some(gone)));
        rig.cluster.set(&[gone.0], NodeFault::Refuse);
        name(&store, "k", late).await.unwrap();
        let is_there = async || rig.named().await.iter().any(|(node, _)| *node == gone);
        assert!(is_there().await);
        match by_mover {
            true => assert_eq!(store.rebalance().await.unwrap().waiting_count, 1),
            false => assert_eq!(store.recount(&HashSet::new()).await.unwrap(), (1, true)),
        }
        assert_eq!(store.repair().await.unwrap().whole_count, 1);
        assert!(!is_there().await);
        assert_eq!(store.settle().await.unwrap(), 1, "what was there is given up with its node");
        assert!(read(&store, "k").await.unwrap() == body);
    }
}

/// What was deleted, or was moved, after repair had read where it was has no shards there, and is not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_or_moved_under_repair_is_not_taken_for_lost() {
    let rig = Rig::new(3, ServiceLimits::default());
    let store = rig.gateway(Config::default()).await;
    let striper = store.chunks.striper().unwrap();
    for key in ["lost", "deleted", "moved"] {
        put(&store, key, &pattern(100_000, 1)).await.unwrap();
    }
    let places = rig.places().await;
    let [lost, deleted, moved] = [0, 1, 2].map(|index| (places[index].0, &places[index].1));
    store.delete("b", vec![delete_key("deleted")]).await.unwrap();
    let mut found = striper.look(moved.0, moved.1, &HashSet::new()).await.unwrap();
    let homes: Vec<_> = moved.1.layout.shards().iter().enumerate().map(|(index, (node, _))| (index, *node)).collect();
    let (to, ids) = store.make_shards(striper, moved, &mut found, &homes).await.unwrap();
    store.swap(moved, to, (Due::No, false), ids).await.unwrap();
    assert_eq!(store.settle().await.unwrap(), 2);
    for stale in [deleted, moved] {
        let repaired = store.repair_one(striper, stale, false, &HashSet::new()).await.unwrap();
        assert!(matches!(repaired, Repaired::Changed));
    }
    striper.remove(&lost.1.layout.shards()[..2]).await;
    let repaired = store.repair_one(striper, lost, false, &HashSet::new()).await.unwrap();
    assert!(matches!(repaired, Repaired::Lost));
    assert!(read(&store, "moved").await.unwrap() == pattern(100_000, 1));
}
