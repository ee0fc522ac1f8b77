//! A network that is cut, deaf in one direction or lossy, boxes that sleep, disks that are slow, clocks that are wrong: whoever
//! can serve does, no acknowledged write is lost, no stale read is served, and all is well again afterwards.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use predastore_tests::cluster::{Cluster, Shape};
use predastore_tests::fault::{Fault, Victim, endure};
use predastore_tests::knobs::{Need, can_run, number, say};
use predastore_tests::linear::Gateway;
use predastore_tests::netns::{NEEDS, Network};
use predastore_tests::random::Rng;
use predastore_tests::s3d::{Config, S3d};

/// Writes of each gateway before a fault.
const BETWEEN: u64 = 60;

/// Lets `faults` befall a new cluster, as often as is asked for.
fn survive(test: &str, shape: &Shape, network: Option<&Network>, faults: &[(Fault, Victim)]) -> Result<()> {
    let mut rng = Rng::for_test(test);
    let config = Config::default().plain();
    let mut cluster = match network {
        None => Cluster::start(shape, &config)?,
        Some(network) => Cluster::start_on(network, shape, &config)?,
    };
    for round in 0..rounds() {
        let gateways = cluster.processes.iter().map(Gateway::of).collect::<Result<_>>()?;
        let bucket = format!("partitions-{round}");
        let checked = endure(&bucket, &mut cluster, network, gateways, &mut rng, (faults, BETWEEN));
        let checked = checked.with_context(|| format!("round {round}"))?;
        say(&format!("{test}: {checked} operations checked"));
    }
    Ok(())
}

fn rounds() -> u64 {
    number("PREDASTORE_TEST_PARTITIONS", 1)
}

fn on_a_network(test: &str, shape: &Shape, faults: &[(Fault, Victim)]) -> Result<()> {
    if !can_run(test, &NEEDS) {
        return Ok(());
    }
    survive(test, shape, Some(&Network::new(shape.processes.len())?), faults)
}

fn three() -> Shape {
    Shape::boxes(3, 3, (2, 1))
}

#[test]
fn a_leader_is_cut_off() -> Result<()> {
    let faults = [Fault::Isolate, Fault::Mute, Fault::Deafen, Fault::Sever, Fault::Unplug];
    let faults = faults.map(|fault| (fault, Victim::Leader));
    on_a_network("a_leader_is_cut_off", &three(), &faults)
}

#[test]
fn a_follower_is_cut_off_and_packets_are_lost() -> Result<()> {
    let faults = [Fault::Isolate, Fault::Mute, Fault::Deafen, Fault::Sever, Fault::Lose(30)];
    let faults = faults.map(|fault| (fault, Victim::Follower));
    on_a_network("a_follower_is_cut_off_and_packets_are_lost", &three(), &faults)
}

/// Box 3 is a gateway and a shard node, and has no db node.
#[test]
fn a_box_without_a_db_node_is_cut_off() -> Result<()> {
    let faults = [Fault::Isolate, Fault::Mute, Fault::Deafen].map(|fault| (fault, Victim::Box(3)));
    on_a_network("a_box_without_a_db_node_is_cut_off", &Shape::boxes(4, 3, (2, 1)), &faults)
}

/// In the long form only: five boxes, and a leader and a follower of them.
#[test]
fn one_of_five_is_cut_off() -> Result<()> {
    if rounds() == 1 {
        return Ok(());
    }
    let faults = [Fault::Isolate, Fault::Mute, Fault::Deafen, Fault::Unplug, Fault::Lose(30)];
    let of_both = faults.into_iter().flat_map(|fault| [(fault, Victim::Leader), (fault, Victim::Follower)]);
    on_a_network("one_of_five_is_cut_off", &Shape::boxes(5, 5, (3, 2)), &of_both.collect::<Vec<_>>())
}

#[test]
fn a_box_sleeps_and_disks_are_slow() -> Result<()> {
    if !can_run("a_box_sleeps_and_disks_are_slow", &[Need::Program("strace")]) {
        return Ok(());
    }
    let pause = Fault::Pause(Duration::from_secs(number("PREDASTORE_TEST_PAUSE_SECONDS", 4)));
    let faults = [
        (pause, Victim::Leader),
        (pause, Victim::Follower),
        (Fault::SlowDisk, Victim::Leader),
        (Fault::SlowDisk, Victim::Follower),
    ];
    survive("a_box_sleeps_and_disks_are_slow", &three(), None, &faults)
}

const HOUR: i64 = 3600;

/// One box is three hours ahead and another five behind, from a restart on.
#[test]
fn clocks_are_hours_apart() -> Result<()> {
    let test = "clocks_are_hours_apart";
    if !can_run(test, &[Need::Program("faketime")]) {
        return Ok(());
    }
    let mut rng = Rng::for_test(test);
    let mut cluster = Cluster::start(&three(), &Config::default().plain())?;
    let ahead = [3 * HOUR, -5 * HOUR, 0];
    for (s3d, seconds) in cluster.processes.iter_mut().zip(ahead) {
        s3d.stop()?;
        set_clock(s3d, seconds)?;
        s3d.restart()?;
        let now_here = s3d.s3()?.get("any", "key")?;
        ensure!((now_here.code() == "RequestTimeTooSkewed") == (seconds != 0), "its clock: {}", now_here.text());
    }
    let gateways = cluster.processes.iter().zip(ahead);
    let gateways: Vec<_> =
        gateways.map(|(s3d, seconds)| Ok(Gateway::of(s3d)?.with_clock_ahead(seconds))).collect::<Result<_>>()?;
    for round in 0..rounds() {
        let faults = [(Fault::Kill, Victim::Leader)];
        let checked =
            endure(&format!("clocks-{round}"), &mut cluster, None, gateways.clone(), &mut rng, (&faults, BETWEEN))?;
        say(&format!("{test}: {checked} operations checked"));
    }
    Ok(())
}

/// Makes the wall clock of a process, from its next start on, run `seconds` ahead; its monotonic clock stays right.
fn set_clock(s3d: &mut S3d, seconds: i64) -> Result<()> {
    let libraries = ["x86_64", "aarch64"].map(|cpu| format!("/usr/lib/{cpu}-linux-gnu/faketime/libfaketimeMT.so.1"));
    let library = libraries.into_iter().find(|path| Path::new(path).exists()).context("no libfaketime")?;
    let variables = [
        ("LD_PRELOAD", library),
        ("FAKETIME", format!("{seconds:+}s")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    s3d.config.settings.extend(variables.map(|(name, value)| (name.to_owned(), value)));
    Ok(())
}
