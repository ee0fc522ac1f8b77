//! Proposals a second, printed: `cargo test --release -p predastore --lib consensus::tests::bench -- --ignored --nocapture`.

use std::time::Instant;

use super::*;

const PUTS: usize = 20_000;

async fn measure(client_count: usize, put_count: usize) {
    let dir = tempfile::tempdir_in(std::env::var("BENCH_DIR").unwrap_or("/var/tmp".into())).unwrap();
    let raft = Raft::open(Options::new(dir.path(), NodeId(1)), Arc::new(Alone)).await.unwrap();
    let mut gateway = Gateway::new(&raft, "bench", put_count as u32).await;
    let mut puts: Vec<_> = (0..put_count).map(|n| gateway.put(&scattered_key(n))).collect();
    let before = raft.status();
    let started = Instant::now();
    let per_client = put_count / client_count;
    let clients: Vec<_> = (0..client_count)
        .map(|_| {
            let (raft, puts) = (raft.clone(), puts.split_off(puts.len() - per_client));
            tokio::spawn(async move {
                for put in puts {
                    raft.propose(put).await.unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let seconds = started.elapsed().as_secs_f64();
    report(client_count, (per_client * client_count) as f64, seconds, &before, &raft.status());
    barriers(&raft, client_count).await;
    raft.shutdown().await;
}

/// Random names: what costs the catalog most.
fn scattered_key(n: usize) -> String {
    format!("{:016x}", (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn report(client_count: usize, puts: f64, seconds: f64, before: &super::super::Status, after: &super::super::Status) {
    let batches = (after.apply.batches - before.apply.batches) as f64;
    let apply_us = (after.apply.us_sum - before.apply.us_sum) as f64;
    let syncs = (after.log.syncs - before.log.syncs) as f64;
    let sync_us = (after.log.sync_us_sum - before.log.sync_us_sum) as f64;
    eprintln!(
        "{client_count:4} clients: {:8.0} puts/s | apply {:5.1} a batch, {:5.1} us each, busy {:3.0}% | fsync {:5.1} a batch, {:4.0} us, busy {:3.0}%",
        puts / seconds,
        puts / batches,
        apply_us / puts,
        apply_us / seconds / 1e4,
        puts / syncs,
        sync_us / syncs,
        sync_us / seconds / 1e4,
    );
}

async fn barriers(raft: &Raft, client_count: usize) {
    const ROUNDS: usize = 2_000;
    let started = Instant::now();
    let clients: Vec<_> = (0..client_count)
        .map(|_| {
            let raft = raft.clone();
            tokio::spawn(async move {
                for _ in 0..ROUNDS {
                    raft.barrier().await.unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("{client_count:4} clients: {:8.0} barriers/s", (client_count * ROUNDS) as f64 / seconds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn proposals_a_second() {
    let only = std::env::var("BENCH_CLIENTS").ok().and_then(|clients| clients.parse().ok());
    for client_count in [1, 16, 64, 128].into_iter().filter(|count| only.is_none_or(|only: usize| only == *count)) {
        measure(client_count, if client_count == 1 { PUTS / 4 } else { PUTS * 2 }).await;
    }
}
