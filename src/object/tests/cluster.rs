//! The store over shard nodes in this process: what happens to shards at the same time.

use std::collections::{BTreeSet, HashSet};

use futures::future::{join_all, ready};
use tokio::sync::watch;

use super::super::repair::Repaired;
use super::super::session::FreshId;
use super::super::striped::tests::{Cluster, Fault, cleaned_up};
use super::*;
use crate::catalog::{Due, Place};
use crate::cluster::repair::Found;
use crate::file::remote::RemoteFiles;
use crate::ids::ShardId;
use crate::shard::ServiceLimits;

/// A catalog and shard nodes.
pub(super) struct Rig {
    pub(super) cluster: Arc<Cluster>,
    pub(super) ledger: Arc<Direct>,
    dir: tempfile::TempDir,
}

impl Rig {
    pub(super) fn new(node_count: u64, limits: ServiceLimits) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Direct::open(&dir.path().join("catalog"));
        Rig { cluster: Cluster::within(node_count, limits), ledger, dir }
    }

    /// A gateway that writes `rs(2,1)`, with the bucket `b` there.
    pub(super) async fn gateway(&self, config: Config) -> Store {
        let store = self.gateway_at(self.ledger.clone(), self.cluster.patient_striper(2, 1), config).await;
        let _ = store.create_bucket("b", "owner", "here", false).await;
        store
    }

    async fn gateway_at(&self, ledger: Arc<dyn Ledger>, striper: Striper, config: Config) -> Store {
        Store::open(Env::system(), ledger, self.chunks(striper), config).await.unwrap()
    }

    pub(super) fn chunks(&self, striper: Striper) -> Chunks {
        Chunks::striped(striper, None, RemoteFiles::new(self.cluster.clone()), self.dir.path().to_owned())
    }

    /// Every chunk, and where it is.
    pub(super) async fn places(&self) -> Vec<(Ino, Place)> {
        self.ledger.readers.read(|view| view.places(None, 1000)).await.unwrap()
    }

    /// Every shard that a chunk names.
    pub(super) async fn named(&self) -> BTreeSet<(NodeId, ShardId)> {
        let places = self.places().await;
        let shards = places.iter().flat_map(|(_, place)| place.layout.shards().to_vec());
        shards.filter(|(_, shard)| *shard != ShardId(0)).collect()
    }
}

pub(super) async fn read(store: &Store, key: &str) -> Result<Vec<u8>, Error> {
    let object = store.get(&target(key)).await?;
    let size_bytes = object.version.size_bytes;
    collect(object.read(0..size_bytes)).await
}

/// Where a chunk is to lie once shard `index` is made anew on `node`, as repair and mover do it.
async fn remade(store: &Store, at: (Ino, &Place), index: usize, node: NodeId) -> (Place, Vec<FreshId>) {
    let striper = store.chunks.striper().unwrap();
    let mut found = striper.look(at.0, at.1, &HashSet::new()).await.unwrap();
    store.make_shards(striper, at, &mut found, &[(index, node)]).await.unwrap()
}

/// R: a place changes by compare-and-set, and who comes second removes its own shards, by their ids; what a swap leaves
/// behind goes by reclaim, so a slow read keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_repair_and_mover_at_one_chunk_one_comes_second_and_harms_nothing() {
    for mover_first in [false, true] {
        let rig = Rig::new(5, ServiceLimits::default());
        let store = rig.gateway(Config::default()).await;
        let body = pattern(3_000_000, 1);
        put(&store, "k", &body).await.unwrap();
        let (chunk, seen) = rig.places().await.remove(0);
        let shards = seen.layout.shards().to_vec();
        let striper = store.chunks.striper().unwrap();
        striper.remove(&shards[..1]).await;
        let is_free = |node: &NodeId| shards.iter().all(|(used, _)| used != node);
        let spare = striper.nodes().into_iter().find(is_free).unwrap();
        let mut slow = store.get(&target("k")).await.unwrap().read(0..body.len() as u64);
        let first_run = slow.next().await.unwrap().unwrap();

        // Both have looked at the same place: the first shard is lost, and the second is to lie elsewhere.
        let (repaired, repair_ids) = remade(&store, (chunk, &seen), 0, shards[0].0).await;
        let (moved, move_ids) = remade(&store, (chunk, &seen), 1, spare).await;
        let repair = (repaired, (Due::No, false), repair_ids);
        let r#move = (moved, (Due::AsBefore, false), move_ids);
        let (first, second) = if mover_first { (r#move, repair) } else { (repair, r#move) };
        let won = first.0.layout.clone();
        let swapped = store.swap((chunk, &seen), first.0, first.1, first.2).await.unwrap();
        assert!(matches!(swapped, Repaired::Whole));
        let refused = store.swap((chunk, &seen), second.0, second.1, second.2).await.unwrap();
        assert!(matches!(refused, Repaired::Waits), "it saw another place");
        assert_eq!(rig.places().await[0].1.layout, won);

        assert_eq!(store.settle().await.unwrap(), 0, "somebody reads at the place before");
        assert!([&first_run[..], &collect(slow).await.unwrap()].concat() == body);
        assert!(read(&store, "k").await.unwrap() == body);
        assert_eq!(store.settle().await.unwrap(), 1);
        store.recount(&HashSet::new()).await.unwrap();
        assert_eq!(store.repair().await.unwrap().whole_count, u64::from(mover_first), "what is lost still");
        store.settle().await.unwrap();
        let place = rig.places().await.remove(0).1;
        let found = striper.look(chunk, &place, &HashSet::new()).await.unwrap();
        assert!(found.iter().all(|(_, found)| *found == Found::There), "{found:?}");
        assert_eq!(rig.cluster.stored(), rig.named().await);
        assert!(read(&store, "k").await.unwrap() == body);
    }
}

/// R: every attempt at a shard has an id of its own, and whatever reads, deletes or sweeps names that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_comes_late_lies_beside_its_alternate_and_is_nobodys() {
    let rig = Rig::new(4, ServiceLimits::default());
    rig.gateway(Config::default()).await;
    let striper = rig.cluster.quick_striper(2, 1);
    let store = rig.gateway_at(rig.ledger.clone(), striper.clone(), Config::default()).await;
    let body = pattern(90_000, 1);
    rig.cluster.set(&[0], Fault::Late);
    let mut keys = Vec::new();
    while rig.cluster.late_count() == 0 {
        keys.push(format!("k{}", keys.len()));
        put(&store, &keys[keys.len() - 1], &body).await.unwrap();
    }
    rig.cluster.heal();
    cleaned_up(&striper).await;
    // The alternate is named, and what was given up is deleted. Now it comes.
    rig.cluster.release_late().await;
    let named = rig.named().await;
    let late: Vec<_> = rig.cluster.stored().difference(&named).copied().collect();
    assert!(late.iter().any(|(node, _)| *node == NodeId(0)), "{late:?}");
    assert!(late.iter().all(|(_, late)| named.iter().all(|(_, named)| named != late)), "one id for two attempts");
    let all_there = async || {
        for key in &keys {
            assert!(read(&store, key).await.unwrap() == body);
        }
    };
    all_there().await;
    assert_eq!(store.sweep_shards(Duration::ZERO).await.unwrap(), (0, 0), "its id is leased");
    // Another session ends the first.
    let next = rig.gateway(Config::default()).await;
    let count = late.len() as u64;
    assert_eq!(next.sweep_shards(Duration::ZERO).await.unwrap(), (count, count));
    assert_eq!(rig.cluster.stored(), named);
    all_there().await;
}

/// R: what a live session leases is no stray.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_of_shard_nodes_leaves_what_is_written_and_not_named_yet() {
    let rig = Rig::new(3, ServiceLimits::default());
    let store = rig.gateway(Config::default()).await;
    let body = pattern(100_000, 1);
    let fresh = received(&store, &body).await;
    let other = rig.gateway(Config { gateway: "other".into(), ..Config::default() }).await;
    assert_eq!(other.sweep_shards(Duration::ZERO).await.unwrap(), (0, 0));
    name(&store, "k", fresh).await.unwrap();
    assert_eq!(other.sweep_shards(Duration::ZERO).await.unwrap(), (0, 0));
    assert!(read(&store, "k").await.unwrap() == body);
}

/// A ledger whose own catalog follows another's, and only as far as somebody waits for.
struct Lagging {
    leader: Arc<Direct>,
    own: Mutex<Catalog>,
    readers: Readers,
}

impl Lagging {
    fn behind(leader: Arc<Direct>, dir: &std::path::Path) -> Arc<Lagging> {
        let own = Catalog::open(dir, Options::default()).unwrap();
        Arc::new(Lagging { leader, readers: own.readers(), own: Mutex::new(own) })
    }

    fn catch_up(&self) -> LogIndex {
        let (mut own, log) = (self.own.lock().unwrap(), self.leader.log.lock().unwrap());
        let applied = own.applied().position.map_or(0, |position| position.index);
        let missing: Vec<_> = log.iter().filter(|(position, _)| position.index > applied).cloned().collect();
        own.apply(&missing).unwrap();
        LogIndex(own.applied().position.map_or(0, |position| position.index))
    }
}

impl Ledger for Lagging {
    fn propose(&self, envelope: Envelope) -> BoxFuture<'_, Result<Outcome, LedgerError>> {
        self.leader.propose(envelope)
    }

    fn barrier(&self) -> BoxFuture<'_, Result<LogIndex, LedgerError>> {
        Box::pin(ready(Ok(self.catch_up())))
    }

    fn readers(&self) -> &Readers {
        &self.readers
    }

    fn leads(&self) -> bool {
        true
    }
}

/// R: list the node first, then read the catalog linearizably; ids that the catalog never gave out stop the sweep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_by_a_follower_that_lags_takes_nothing() {
    let rig = Rig::new(3, ServiceLimits::default());
    let store = rig.gateway(Config::default()).await;
    let lagging = Lagging::behind(rig.ledger.clone(), &rig.dir.path().join("follower"));
    let config = Config { gateway: "other".into(), ..Config::default() };
    let follower = rig.gateway_at(lagging.clone(), rig.cluster.patient_striper(2, 1), config).await;
    let body = pattern(100_000, 1);
    put(&store, "k", &body).await.unwrap();
    // Its catalog knows neither the key, nor the lease, nor the session.
    let page: Vec<_> = rig.named().await.into_iter().map(|(_, shard)| (shard, Ino(0))).collect();
    let stale = lagging.readers.read(move |view| view.orphan_shards(NodeId(0), &page)).await;
    assert!(matches!(stale, Err(catalog::Error::Inconsistent(_))), "{stale:?}");
    assert_eq!(follower.sweep_shards(Duration::ZERO).await.unwrap(), (0, 0));
    assert!(read(&store, "k").await.unwrap() == body);
}

/// A source that gives most of what it has, and the rest once it is told to.
struct Gated {
    runs: VecDeque<Bytes>,
    held_count: usize,
    gate: watch::Receiver<bool>,
}

impl Source for Gated {
    async fn next(&mut self) -> Result<Option<Bytes>, ()> {
        if self.runs.len() == self.held_count {
            self.gate.wait_for(|is_open| *is_open).await.unwrap();
        }
        Ok(self.runs.pop_front())
    }

    fn promised(&self) -> Vec<Checksum> {
        Vec::new()
    }
}

/// R: permits are taken once, at the entrance, for the whole chain; shard nodes and repair have their own. So nobody who
/// holds some waits for more, within a node or across.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permits_exhausted_on_every_gateway_at_once_stop_nothing_that_has_begun() {
    const LEN: u64 = 3 * MIB;
    // Less than the frames of one batch: whoever kept a permit between two calls would keep all of them.
    let limits = ServiceLimits { write_bytes: MIB / 4, read_bytes: MIB / 4, ..ServiceLimits::default() };
    let rig = Rig::new(5, limits);
    let before = rig.gateway(Config { gateway: "before".into(), ..Config::default() }).await;
    let kept = pattern(100_000, 1);
    for key in ["kept", "dead"] {
        put(&before, key, &kept).await.unwrap();
    }
    let budget_bytes = before.receive_cost_bytes(Some(LEN));
    let mut gateways = Vec::new();
    for gateway in ["a", "b", "c"] {
        let config =
            Config { gateway: gateway.into(), budget_bytes, budget_patience: Duration::ZERO, ..Config::default() };
        gateways.push(rig.gateway(config).await);
    }
    let (open, gate) = watch::channel(false);
    let body = pattern(LEN as usize, 2);
    let puts: Vec<_> = gateways
        .iter()
        .map(|store| {
            let runs: VecDeque<_> = body.chunks(MIB as usize / 4).map(Bytes::copy_from_slice).collect();
            let (store, mut source) = (store.clone(), Gated { runs, held_count: 2, gate: gate.clone() });
            let incoming = Incoming { len_bytes: Some(LEN), ..Incoming::default() };
            let key = store.config.gateway.clone();
            tokio::spawn(async move { store.put(put_of(&key), incoming, &mut source).await })
        })
        .collect();
    let begun_before = rig.named().await.len();
    until(|| rig.cluster.begun_count() == begun_before + 3 * gateways.len()).await;
    for store in &gateways {
        let write_part = store.budget.take_for_write(u64::MAX).await;
        assert!(store.budget_taken_bytes() >= budget_bytes);
        assert!(matches!(put(store, "small", b"small").await, Err(Error::Overloaded)));
        assert!(matches!(read(store, "kept").await, Err(Error::Overloaded)));
        // What keeps the cluster going, and what gives room back, goes on.
        let (_, place) = rig.places().await.remove(0);
        let striper = store.chunks.striper().unwrap();
        assert_eq!(striper.remove(&place.layout.shards()[..1]).await.len(), 1);
        store.recount(&HashSet::new()).await.unwrap();
        assert_eq!(store.repair().await.unwrap().whole_count, 1);
        store.session.renew().await.unwrap();
        store.sweep_shards(Duration::ZERO).await.unwrap();
        store.delete("b", vec![delete_key("dead")]).await.unwrap();
        store.drain().await.unwrap();
        drop(write_part);
    }
    open.send(true).unwrap();
    for put in join_all(puts).await {
        put.unwrap().unwrap();
    }
    for store in &gateways {
        assert_eq!(store.budget_taken_bytes(), 0);
        assert!(read(store, &store.config.gateway).await.unwrap() == body);
        assert!(read(store, "kept").await.unwrap() == kept);
        store.session.renew().await.unwrap();
    }
    before.settle().await.unwrap();
    assert_eq!(rig.cluster.stored(), rig.named().await);
}
