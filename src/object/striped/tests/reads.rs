//! Reading, whatever is damaged or away.

use super::*;

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
    striper.loads().tell(shards[0].0, 180);
    cluster.asked.lock().unwrap().clear();
    striper.read(CHUNK, &place, 0..MIB).await.unwrap();
    assert!(cluster.asked.lock().unwrap().contains_key(&shards[0].0), "it has a little to do");
    striper.loads().tell(shards[0].0, 900);
    cluster.asked.lock().unwrap().clear();
    assert_eq!(striper.read(CHUNK, &place, 0..MIB).await.unwrap().bytes, bytes);
    let asked: Vec<NodeId> = cluster.asked.lock().unwrap().keys().copied().collect();
    assert!(!asked.contains(&shards[0].0), "one that says how busy it is was asked: {asked:?}");
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

/// What turns a read away says nothing of writes: neither that they are taken again, nor that they are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_is_turned_away_is_read_elsewhere_and_changes_nothing_for_writes() {
    let (cluster, mut random) = (Cluster::new(3), Random::seeded());
    let held = Timing { hold_min: Duration::from_secs(3600), ..patient() };
    let (striper, bytes) = (cluster.striper(2, 1, held), random.bytes(MIB));
    let place = write(&striper, Ino(1), &bytes).await.unwrap().place;
    let (node, _) = layout(&place).2[0];
    for takes_shards in [true, false] {
        if !takes_shards {
            cluster.set(&[node.0], Fault::Busy);
            assert!(write(&striper, Ino(2), &bytes).await.unwrap().short);
        }
        cluster.set(&[node.0], Fault::BusyReads);
        cluster.asked.lock().unwrap().clear();
        assert!(read(&striper, Ino(1), &place).await.unwrap() == (bytes.clone(), false), "it is not damaged");
        assert!(cluster.asked.lock().unwrap().contains_key(&node), "nobody was turned away");
        assert!(striper.is_up(node));
        assert_eq!(striper.takes_shards(node), takes_shards);
    }
}
