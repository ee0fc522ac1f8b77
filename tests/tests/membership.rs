//! A cluster whose nodes come and go: `s3d cluster`, and what it does to the objects that are there.

#[path = "membership/adoption.rs"]
mod adoption;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use predastore_tests::cluster::{Cluster, Roles, Shape};
use predastore_tests::random::{Rng, body};
use predastore_tests::s3d::{Config, PATIENCE, setting};
use serde_json::Value;

const BUCKET: &str = "members";
/// For what moves all objects.
const LONG: Duration = Duration::from_secs(120);

/// Objects of some bytes to some MiB, put by one process.
fn fill(cluster: &Cluster, by: usize, prefix: &str, count: usize, rng: &mut Rng) -> Result<Vec<(String, Vec<u8>)>> {
    let mut s3 = cluster.processes[by].s3()?;
    let mut objects = Vec::new();
    for index in 0..count {
        let len = if index % 5 == 0 { 10 + rng.below(4000) } else { 10_000 + rng.below(3 << 20) };
        let object = (format!("{prefix}-{index}"), body(rng.next_u64(), len as usize));
        s3.put(BUCKET, &object.0, object.1.clone())?.expect(200).with_context(|| object.0.clone())?;
        objects.push(object);
    }
    Ok(objects)
}

fn verify(cluster: &Cluster, by: &[usize], objects: &[(String, Vec<u8>)]) -> Result<()> {
    for process in by {
        let mut s3 = cluster.processes[*process].s3()?;
        for (key, bytes) in objects {
            s3.expect_body(BUCKET, key, bytes).with_context(|| format!("{key} of process {process}"))?;
        }
    }
    Ok(())
}

fn is_healthy(status: &Value) -> bool {
    status["health"] == "healthy" && status["chunks"]["to_move"] == 0
}

fn node(status: &Value, id: u64) -> Option<&Value> {
    status["nodes"].as_array()?.iter().find(|node| node["id"] == id)
}

/// Runs `s3d cluster WORDS`, which must end with `code`.
fn operate(cluster: &Cluster, words: &[&str], code: i32) -> Result<String> {
    let operator = cluster.processes.last().context("no processes")?;
    let (ended, text) = operator.cluster(words)?;
    ensure!(ended == code, "{words:?} ended with {ended}, not {code}:\n{text}\n{}", cluster.log_tails());
    Ok(text)
}

#[test]
fn a_shard_node_comes_and_another_goes() -> Result<()> {
    let mut rng = Rng::for_test("a_shard_node_comes_and_another_goes");
    let mut cluster = Cluster::start(&Shape::boxes(3, 3, (2, 1)), &Config::default().plain())?;
    cluster.processes[0].s3()?.create_bucket(BUCKET)?;
    let mut objects = fill(&cluster, 0, "first", 20, &mut rng)?;
    cluster.wait_status(PATIENCE, is_healthy)?;
    let text = operate(&cluster, &["status"], 0)?;
    ensure!(text.starts_with("cluster  healthy\nlayout   rs(2,1), epoch 1\n"), "{text}");
    let refused = operate(&cluster, &["drain", "0"], 1)?;
    ensure!(refused.contains("rs(2,1) needs 3 nodes, and 2 would take shards"), "{refused}");

    // The running processes have never heard of it: the map tells them where it is.
    cluster.grow(Roles { db: None, node: Some(3) })?;
    cluster.processes[3].wait_until_serving()?;
    let price = operate(&cluster, &["add-node", "3"], 0)?;
    ensure!(price.contains("nothing was changed") && price.contains("of all shards move"), "{price}");
    ensure!(operate(&cluster, &["ring"], 0)?.starts_with("epoch 1,"), "a dry run changed something");
    operate(&cluster, &["add-node", "3", "--yes"], 0)?;
    let has_shards = |status: &Value| node(status, 3).is_some_and(|node| node["shards"].as_u64() > Some(0));
    cluster.wait_status(LONG, |status| is_healthy(status) && status["epoch"] == 2 && has_shards(status))?;
    verify(&cluster, &[0, 3], &objects)?;
    let ring = operate(&cluster, &["ring"], 0)?;
    ensure!(ring.lines().count() == 6 && ring.contains(" 25.0% "), "{ring}");

    operate(&cluster, &["drain", "0", "--yes"], 0)?;
    objects.extend(fill(&cluster, 1, "second", 5, &mut rng)?);
    let is_empty = |status: &Value| node(status, 0).is_some_and(|node| node["shards"] == 0);
    cluster.wait_status(LONG, |status| is_healthy(status) && is_empty(status))?;
    operate(&cluster, &["remove-node", "1", "--yes"], 1)?;
    operate(&cluster, &["remove-node", "0", "--yes"], 0)?;
    cluster.wait_status(PATIENCE, |status| node(status, 0).is_none())?;
    cluster.processes[0].kill();
    cluster.wait_status(PATIENCE, |status| status["health"] == "degraded")?;
    let text = operate(&cluster, &["status"], 1)?;
    ensure!(text.contains("- db 1 does not answer") && !text.contains("- node"), "{text}");
    verify(&cluster, &[1, 2, 3], &objects)?;
    cluster.processes[1].kill();
    let text = operate(&cluster, &["status"], 2)?;
    ensure!(text.contains("no db node leads") && text.contains("node 1 does not answer"), "{text}");
    Ok(())
}

#[test]
fn a_dead_shard_node_is_replaced() -> Result<()> {
    let mut rng = Rng::for_test("a_dead_shard_node_is_replaced");
    let config = Config::default().plain().set(setting::REPAIR_GRACE, "2s");
    // Processes 0 to 2: db nodes; 3 to 5: shard nodes 0 to 2.
    let mut cluster = Cluster::start(&Shape::apart(3, 3, (2, 1)), &config)?;
    cluster.processes[0].s3()?.create_bucket(BUCKET)?;
    let objects = fill(&cluster, 0, "kept", 15, &mut rng)?;
    cluster.wait_status(PATIENCE, is_healthy)?;
    cluster.processes[3].kill();
    cluster.wait_status(PATIENCE, |status| status["health"] == "degraded")?;
    cluster.grow(Roles { db: None, node: Some(7) })?;
    cluster.processes[6].wait_until_serving()?;
    operate(&cluster, &["replace", "0", "7"], 0)?;
    operate(&cluster, &["replace", "0", "7", "--yes"], 0)?;
    // It is degraded as long as the dead one is to be drained; what it had is made anew meanwhile.
    cluster.wait_status(LONG, |status| {
        status["chunks"]["below_target"] == 0 && status["chunks"]["counted"] == true && status["epoch"] == 2
    })?;
    let deadline = std::time::Instant::now() + LONG;
    while cluster.processes[6].cluster(&["remove-node", "0", "--yes"])?.0 != 0 {
        ensure!(std::time::Instant::now() < deadline, "{}", operate(&cluster, &["status"], 1)?);
        std::thread::sleep(Duration::from_millis(300));
    }
    cluster.wait_status(LONG, is_healthy)?;
    cluster.processes[4].kill();
    verify(&cluster, &[0, 6], &objects).context("with another dead")
}

#[test]
fn a_db_node_that_lost_its_disk_is_replaced_and_another_added() -> Result<()> {
    let mut rng = Rng::for_test("a_db_node_that_lost_its_disk_is_replaced_and_another_added");
    let mut cluster = Cluster::start(&Shape::boxes(3, 3, (2, 1)), &Config::default().plain())?;
    cluster.processes[0].s3()?.create_bucket(BUCKET)?;
    let mut objects = fill(&cluster, 0, "first", 10, &mut rng)?;
    cluster.processes[2].kill();
    std::fs::remove_dir_all(cluster.dir.path().join("db-3"))?;
    cluster.processes[2].spawn()?;
    cluster.wait_status(PATIENCE, |status| status["dbs"][2]["state"] == "learner")?;
    ensure!(operate(&cluster, &["status"], 1)?.contains("- db 3 has lost its log"), "status does not say it");
    let refused = operate(&cluster, &["add-db", "3"], 1)?;
    ensure!(refused.contains("lost its log"), "{refused}");
    operate(&cluster, &["remove-db", "3"], 0)?;
    operate(&cluster, &["add-db", "3"], 0)?;
    cluster.processes[2].wait_until_serving()?;
    cluster.wait_status(LONG, is_healthy)?;

    cluster.grow(Roles { db: Some(4), node: None })?;
    operate(&cluster, &["add-db", "4"], 0)?;
    cluster.processes[3].wait_until_serving()?;
    cluster.wait_status(LONG, is_healthy)?;
    operate(&cluster, &["remove-db", "1"], 0)?;
    // Two of the three that vote now: the one that lost its disk, and the new one. The box without its db node is gone.
    cluster.processes[0].kill();
    cluster.leader()?;
    objects.extend(fill(&cluster, 3, "second", 5, &mut rng)?);
    verify(&cluster, &[1, 2, 3], &objects)
}

/// `[rs]` of the configuration counts for new chunks at once, and for old ones as soon as they are written again.
#[test]
fn another_layout_is_adopted() -> Result<()> {
    let mut rng = Rng::for_test("another_layout_is_adopted");
    let mut cluster = Cluster::start(&Shape::apart(1, 5, (2, 1)), &Config::default().plain())?;
    cluster.processes[0].s3()?.create_bucket(BUCKET)?;
    let mut objects = fill(&cluster, 0, "old", 12, &mut rng)?;
    cluster.wait_status(PATIENCE, is_healthy)?;
    cluster.stop_all()?;
    for process in &mut cluster.processes {
        let toml = process.config.toml.take().unwrap_or_default();
        process.config.toml = Some(toml.replace("data = 2\nparity = 1\n", "data = 3\nparity = 2\n"));
    }
    cluster.restart_all()?;
    cluster.wait_status(PATIENCE, |status| status["rs"]["data"] == 3 && status["rs"]["parity"] == 2)?;
    objects.extend(fill(&cluster, 0, "new", 5, &mut rng)?);
    cluster.wait_status(LONG, is_healthy)?;
    (1..=2).for_each(|process| cluster.processes[process].kill());
    verify(&cluster, &[0, 5], &objects).context("with two of five dead")
}
