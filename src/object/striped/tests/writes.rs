//! Writing, whatever fails meanwhile.

use super::*;

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
    let held = Timing { hold_min: Duration::from_secs(3600), ..patient() };
    let (striper, bytes) = (cluster.striper(2, 1, held), random.bytes(3 * MIB));
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
    until("they take shards again", || (0..3).all(|node| impatient.takes_shards(NodeId(node)))).await;
    assert!(!write(&impatient, Ino(3), &bytes).await.unwrap().short);
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
