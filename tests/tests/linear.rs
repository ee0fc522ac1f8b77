//! What clients of different gateways see of the same few keys fits into one order, whatever becomes of the boxes and of the
//! network between them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use predastore_tests::cluster::{Cluster, Shape};
use predastore_tests::fault::{Fault, Victim, endure};
use predastore_tests::knobs::{can_run, number, say};
use predastore_tests::linear::Gateway;
use predastore_tests::netns::{NEEDS, Network};
use predastore_tests::random::Rng;
use predastore_tests::s3d::Config;

const BOXES: u64 = 3;
/// Writes of each gateway before a fault.
const BETWEEN: u64 = 500;
/// Fewer in a round prove little.
const ROUND_MIN: u64 = 1_000;

#[test]
fn three_boxes_are_linearizable() -> Result<()> {
    let mut rng = Rng::for_test("three_boxes_are_linearizable");
    let pause = Duration::from_secs(number("PREDASTORE_TEST_PAUSE_SECONDS", 4));
    let mut faults = vec![(Fault::Kill, Victim::Leader), (Fault::Pause(pause), Victim::Leader)];
    let network = can_run("partitions", &NEEDS).then(|| Network::new(BOXES as usize)).transpose()?;
    if network.is_some() {
        faults.extend([(Fault::Isolate, Victim::Leader), (Fault::Deafen, Victim::Follower)]);
    }
    let mut cluster = start(network.as_ref())?;
    let goal = number("PREDASTORE_TEST_LINEAR_OPERATIONS", 5_000);
    let (began, mut checked, mut round) = (Instant::now(), 0, 0);
    while checked < goal {
        let gateways = cluster.processes.iter().map(Gateway::of).collect::<Result<_>>()?;
        let bucket = format!("linear-{round}");
        let count = endure(&bucket, &mut cluster, network.as_ref(), gateways, &mut rng, (&faults, BETWEEN));
        let count = count.with_context(|| format!("round {round}"))?;
        ensure!(count >= ROUND_MIN, "{count} operations are too few");
        checked += count;
        say(&format!("linear: {checked} operations checked in {:.1?}", began.elapsed()));
        round += 1;
        // The long form goes on with whatever comes.
        faults = (0..4).map(|_| any_fault(&mut rng, pause, network.is_some())).collect();
    }
    Ok(())
}

fn any_fault(rng: &mut Rng, pause: Duration, is_networked: bool) -> (Fault, Victim) {
    let of_a_box = [Fault::Kill, Fault::Pause(pause), Fault::SlowDisk];
    let of_the_network = [Fault::Isolate, Fault::Mute, Fault::Deafen, Fault::Sever, Fault::Unplug, Fault::Lose(30)];
    let is_of_a_box = !is_networked || rng.below(2) == 0;
    let fault = if is_of_a_box { *rng.choose(&of_a_box) } else { *rng.choose(&of_the_network) };
    (fault, *rng.choose(&[Victim::Leader, Victim::Follower]))
}

fn start(network: Option<&Network>) -> Result<Cluster> {
    let (shape, config) = (Shape::boxes(BOXES, BOXES, (2, 1)), Config::default().plain());
    network.map_or_else(|| Cluster::start(&shape, &config), |network| Cluster::start_on(network, &shape, &config))
}
