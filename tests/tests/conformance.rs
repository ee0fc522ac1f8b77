//! What S3 clients rely on, by AWS's public documentation, area by area, as several accounts: the cases of `conformance/`,
//! on one box and on a cluster of three processes. `PREDASTORE_TEST_AREAS`: some areas only, as `policy public_access`.

use anyhow::Result;
use predastore_tests::clients::Clients;
use predastore_tests::cluster::{Cluster, Shape};
use predastore_tests::knobs::{WithLogs, say};
use predastore_tests::s3d::{Config, S3d, setting};
use predastore_tests::shell::run;

/// Accounts beside root's: name, id, access key, secret key.
const ACCOUNTS: [[&str; 4]; 3] = [
    ["main", "111111111111", "MAINACCOUNT000000001", "the secret of the main account"],
    ["alt", "222222222222", "ALTACCOUNT0000000001", "the secret of the other account"],
    ["tenant", "333333333333", "TENANTACCOUNT0000001", "the secret of the third account"],
];

fn config() -> Config {
    let entry = |[_, id, key, secret]: [&str; 4]| {
        format!("[[auth]]\naccess_key_id = \"{key}\"\nsecret_access_key = \"{secret}\"\naccount_id = \"{id}\"\n\n")
    };
    Config { toml: Some(ACCOUNTS.map(entry).concat()), ..Config::default() }.set(setting::REGION, "us-east-1")
}

fn conforms(test: &str, gateway: &S3d) -> Result<()> {
    let clients = Clients::new(gateway)?;
    let mut python = clients.python_command("../conformance/run.py")?;
    for [name, id, key, secret] in ACCOUNTS {
        python.env(format!("ACCOUNT_{}", name.to_uppercase()), format!("{id}:{key}:{secret}"));
    }
    python.args(std::env::var("PREDASTORE_TEST_AREAS").unwrap_or_default().split_whitespace());
    say(&format!("{test}:\n{}", run(&mut python)?));
    Ok(())
}

#[test]
fn one_box_conforms() -> Result<()> {
    let s3d = S3d::start(config())?;
    conforms("one_box_conforms", &s3d).with_logs(|| s3d.log_tail())
}

#[test]
fn three_processes_conform() -> Result<()> {
    let cluster = Cluster::start(&Shape::boxes(3, 3, (2, 1)), &config())?;
    conforms("three_processes_conform", &cluster.processes[1]).with_logs(|| cluster.log_tails())
}
