//! Two hundred clients at once: all connected over TLS before the first one writes; each writes, copies, reads and deletes
//! beside the others. `PREDASTORE_TEST_CROWD_SECONDS`: for how long (3).

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use predastore_tests::knobs::{number, say};
use predastore_tests::random::Rng;
use predastore_tests::s3d::{Config, S3d};
use predastore_tests::workload::Workload;

const CLIENTS: u64 = 200;

#[test]
fn two_hundred_clients_at_once() -> Result<()> {
    let mut rng = Rng::for_test("two_hundred_clients");
    let pause = Duration::from_secs(number("PREDASTORE_TEST_CROWD_SECONDS", 3));
    let mut s3d = S3d::start(Config::default())?;
    let workload = Workload::new(&s3d, &mut rng)?.with_writers(CLIENTS);
    let tally = workload.run(&mut s3d, &mut rng, |_, _| {
        std::thread::sleep(pause);
        Ok(())
    })?;
    ensure!(tally.connected == CLIENTS, "only {} clients could connect", tally.connected);
    let (acknowledged, unknown) = (tally.acknowledged.load(Ordering::Relaxed), tally.unknown.load(Ordering::Relaxed));
    ensure!(unknown == 0 && acknowledged > 0, "nobody interrupted them, and {unknown} operations failed: {tally:?}");
    let count = workload.verify(&mut s3d.s3()?)?;
    say(&format!(
        "{CLIENTS} clients at once: {acknowledged} operations, {count} objects and versions as they should be"
    ));
    s3d.stop()?;
    s3d.expect_clean()
}
