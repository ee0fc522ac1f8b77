//! Memory: an idle box is small, a busy one stays within its budget, and one that was busy is small again.
//! `PREDASTORE_TEST_PUT_MIB`: size of each of the 64 concurrent PUTs (64; the soak takes 1024).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use predastore_tests::knobs::{WithLogs, number, say};
use predastore_tests::random::body;
use predastore_tests::s3d::{Config, S3d, setting};
use predastore_tests::sigv4::UNSIGNED_PAYLOAD;

const MIB: u64 = 1 << 20;
const IDLE_BYTES: u64 = 64 * MIB;
const BUDGET_MIB: u64 = 128;

#[test]
fn an_idle_box_is_small() -> Result<()> {
    let s3d = S3d::start(Config::default())?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket("idle")?;
    for index in 0..200 {
        s3.put("idle", &format!("{index}"), body(index, 1000))?.expect(200)?;
    }
    let rss_bytes = s3d.rss_bytes()?;
    say(&format!("idle: {} MiB resident", rss_bytes / MIB));
    ensure!(rss_bytes < IDLE_BYTES, "{} MiB resident when idle", rss_bytes / MIB);
    Ok(())
}

#[test]
fn a_box_that_was_busy_is_small_again() -> Result<()> {
    let s3d = S3d::start(Config::default())?;
    s3d.s3()?.create_bucket("large")?;
    let busy = |client: u64| -> Result<()> {
        let mut s3 = s3d.s3()?;
        for index in 0..1_500 {
            let key = format!("{client}/{index}");
            s3.put("large", &key, body(index, 4096))?.expect(200)?;
            s3.get("large", &key)?.expect(200)?;
        }
        put_large(&s3d, client, 64)
    };
    std::thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..8).map(|client| scope.spawn(move || busy(client))).collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })
    .with_logs(|| s3d.log_tail())?;
    let busy_mib = s3d.rss_bytes()? / MIB;
    let started = Instant::now();
    while s3d.rss_bytes()? >= IDLE_BYTES && started.elapsed() < Duration::from_secs(90) {
        std::thread::sleep(Duration::from_millis(500));
    }
    let rss_bytes = s3d.rss_bytes()?;
    say(&format!("busy: {busy_mib} MiB resident; {} s later: {} MiB", started.elapsed().as_secs(), rss_bytes / MIB));
    ensure!(rss_bytes < IDLE_BYTES, "{} MiB resident long after the load", rss_bytes / MIB);
    Ok(())
}

/// Streams one PUT of `len_mib`, the same MiB over and over.
fn put_large(s3d: &S3d, index: u64, len_mib: u64) -> Result<()> {
    let s3 = s3d.s3()?;
    let length = (len_mib * MIB).to_string();
    let mut request = s3.request("PUT", "large", &format!("{index}"), "", "").header("Content-Length", length);
    s3.signer.sign_as(&mut request, UNSIGNED_PAYLOAD);
    let mut connection = s3.endpoint.connect()?;
    connection.write(&request.head())?;
    let block = body(index, MIB as usize);
    for _ in 0..len_mib {
        connection.write(&block)?;
    }
    connection.response("PUT")?.expect(200).map(drop)
}

#[test]
fn large_puts_stay_within_the_budget() -> Result<()> {
    let len_mib = number("PREDASTORE_TEST_PUT_MIB", 64);
    let s3d = S3d::start(Config::default().set(setting::MEMORY_BUDGET, format!("{BUDGET_MIB}MiB")))?;
    s3d.s3()?.create_bucket("large")?;
    let (done, peak_bytes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak_bytes.fetch_max(s3d.rss_bytes().unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let s3d = &s3d;
        let puts: Vec<_> = (0..64).map(|index| scope.spawn(move || put_large(s3d, index, len_mib))).collect();
        let outcomes: Vec<_> = puts.into_iter().map(|put| put.join()).collect();
        done.store(true, Ordering::Relaxed);
        outcomes.into_iter().try_for_each(|outcome| outcome.map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })
    .with_logs(|| s3d.log_tail())?;
    let peak_mib = peak_bytes.load(Ordering::Relaxed) / MIB;
    say(&format!("64 PUTs of {len_mib} MiB: {peak_mib} MiB resident at most, budget {BUDGET_MIB} MiB"));
    ensure!(peak_mib <= BUDGET_MIB + IDLE_BYTES / MIB, "{peak_mib} MiB resident with a budget of {BUDGET_MIB} MiB");
    ensure!(s3d.s3()?.list("large")?.iter().all(|row| row.size == len_mib * MIB), "an object has another size");
    Ok(())
}
