//! Shards that are made anew.

use super::*;

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
