//! `s3d bench`: drives any S3 endpoint, or two by turns, and says how fast they were.
//!
//! - `client`, `tls`: a small S3 client; `body`: what it writes and recognises.
//! - `work`: the operations; `histogram`, `report`: the figures.

mod body;
mod client;
mod histogram;
mod report;
mod tls;
mod work;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use md5::{Digest, Md5};
use serde_json::json;

use crate::config::{Secret, Size, Span};
use crate::sign::Credentials;
use client::{Call, Connection, Payload, Target};
use report::Row;
use work::{Op, Plan, Site, Tally, once, round};

/// The most bytes that are written for GET and HEAD to read.
const READ_SET_BYTES: u64 = 1 << 30;
/// Keys in one DeleteObjects.
const DELETE_BATCH: usize = 1000;
/// Turns an operation is cut into when two endpoints are compared.
const COMPARED_ROUNDS: u32 = 5;

/// How to measure.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Endpoint to measure: http://host:port or https://host:port
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL")]
    endpoint: String,
    /// A second endpoint, measured by turns with the first
    #[arg(long, value_name = "URL")]
    vs: Option<String>,
    /// Operations, in order
    #[arg(long, value_enum, value_delimiter = ',', default_value = "put,get,head,list,delete")]
    ops: Vec<Op>,
    /// Length of an object
    #[arg(long, default_value = "4KiB")]
    size: Size,
    /// Clients, each with one connection and one request at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// Time for each operation and endpoint
    #[arg(long, default_value = "10s")]
    duration: Span,
    /// Turns each duration is cut into [default: 1; 5 with --vs]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Objects to prepare for LIST, and at most for GET and HEAD
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    objects: u64,
    /// Bucket, made if it is missing
    #[arg(long, default_value = "s3d-bench")]
    bucket: String,
    /// Leave the objects there
    #[arg(long)]
    keep: bool,
    /// Prepare nothing: an earlier run with the same --size and --objects did, with --keep
    #[arg(long)]
    prepared: bool,
    /// Access key
    #[arg(long, env = "AWS_ACCESS_KEY_ID", hide_env_values = true)]
    access_key: String,
    /// Secret key; better given by the environment, where `ps` does not show it
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_key: SecretArg,
    /// Access key for the second endpoint, where it differs
    #[arg(long, env = "VS_ACCESS_KEY_ID", hide_env_values = true, requires = "vs_secret_key")]
    vs_access_key: Option<String>,
    /// Secret key for the second endpoint
    #[arg(long, env = "VS_SECRET_ACCESS_KEY", hide_env_values = true, requires = "vs_access_key")]
    vs_secret_key: Option<SecretArg>,
    /// Region to sign for
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1")]
    region: String,
    /// Certificate authority to trust, PEM
    #[arg(long, env = "AWS_CA_BUNDLE", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long)]
    insecure: bool,
    /// Hash bodies into the signature, as clients do over plain HTTP
    #[arg(long)]
    signed_payload: bool,
    /// Threads [default: one per processor]
    #[arg(long)]
    threads: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A secret as an argument; clap needs `FromStr`, and nothing may show it.
#[derive(Clone, Debug)]
struct SecretArg(Secret);

impl std::str::FromStr for SecretArg {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(SecretArg(Secret::new(text)))
    }
}

/// Measures and prints.
///
/// # Errors
/// An endpoint cannot be used at all, or any request failed: figures with errors in them are no figures.
pub(crate) fn run(args: BenchArgs) -> Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        runtime.worker_threads(threads.max(1));
    }
    runtime.enable_all().build()?.block_on(measure(&args))
}

async fn measure(args: &BenchArgs) -> Result<()> {
    let sites = sites(args)?;
    for site in &sites {
        make_bucket(site).await?;
    }
    let measured = prepare_and_measure(args, &sites).await;
    if let Ok(rows) = &measured {
        print(args, &sites, rows)?;
    }
    if !args.keep {
        for site in &sites {
            // What was measured holds, whatever becomes of its leavings.
            if let Err(error) = clear(site).await {
                eprintln!("s3d: {} was not cleared: {error:#}", site.target.url);
            }
        }
    }
    let rows = measured?;
    match rows.iter().flat_map(|row| &row.tallies).find_map(|tally| tally.first_error.as_ref()) {
        Some(error) => bail!("requests failed; the first: {error}"),
        None => Ok(()),
    }
}

fn sites(args: &BenchArgs) -> Result<Vec<Arc<Site>>> {
    let credentials = |access_key: &str, secret: &SecretArg| Credentials {
        access_key: access_key.to_owned(),
        secret: secret.0.clone(),
        region: args.region.clone(),
    };
    let first = credentials(&args.access_key, &args.secret_key);
    let second = match (&args.vs_access_key, &args.vs_secret_key) {
        (Some(access_key), Some(secret)) => credentials(access_key, secret),
        _ => first.clone(),
    };
    let endpoints = [Some((&args.endpoint, first)), args.vs.as_ref().map(|url| (url, second))];
    endpoints.into_iter().flatten().map(|(url, credentials)| site(args, url, credentials).map(Arc::new)).collect()
}

fn site(args: &BenchArgs, url: &str, credentials: Credentials) -> Result<Site> {
    if url.starts_with("https:") && args.ca.is_none() && !args.insecure {
        bail!("{url}: whom to trust? --ca FILE (or AWS_CA_BUNDLE), or --insecure");
    }
    let tls = tls::client(args.ca.as_deref(), args.insecure)?;
    let reads = args.ops.iter().any(|op| matches!(op, Op::Get | Op::Range | Op::Head | Op::Mixed));
    let read_count = args.objects.min((READ_SET_BYTES / args.size.0.max(1)).max(16));
    Ok(Site {
        target: Arc::new(Target::new(url, credentials, tls, args.signed_payload)?),
        bucket: args.bucket.clone(),
        run: std::time::UNIX_EPOCH.elapsed()?.as_secs(),
        size_bytes: args.size.0,
        read_count: if reads { read_count } else { 0 },
        list_count: if args.ops.contains(&Op::List) { args.objects } else { 0 },
        put_count: AtomicU64::new(0),
        delete_count: AtomicU64::new(0),
        done: AtomicU64::new(0),
    })
}

async fn prepare_and_measure(args: &BenchArgs, sites: &[Arc<Site>]) -> Result<Vec<Row>> {
    for site in sites.iter().filter(|_| !args.prepared) {
        let plans = [Plan::Prepare(Arc::default()), Plan::PrepareList(Arc::default())];
        for (plan, count) in plans.into_iter().zip([site.read_count, site.list_count]) {
            let until = Until::Count(count);
            let tally = with_progress(site, "prepare", until, round(site, plan, clients(args))).await?;
            if let Some(error) = tally.first_error {
                bail!("preparing {}: {error}", site.target.url);
            }
        }
    }
    let mut rows = Vec::new();
    for op in &args.ops {
        if *op == Op::Delete && sites.iter().any(|site| site.put_count.load(Relaxed) == 0) {
            bail!("DELETE takes away what PUT or mixed made: name one of them first in --ops");
        }
        rows.push(Row { op: *op, tallies: by_turns(args, sites, *op).await? });
    }
    Ok(rows)
}

/// `op` on every endpoint, by turns, so that neither has the machine's better minutes.
async fn by_turns(args: &BenchArgs, sites: &[Arc<Site>], op: Op) -> Result<Vec<Tally>> {
    let rounds = args.rounds.unwrap_or(if args.vs.is_some() { COMPARED_ROUNDS } else { 1 });
    let time = args.duration.0 / rounds;
    let mut sums = vec![Tally::default(); sites.len()];
    for _ in 0..rounds {
        for (site, sum) in sites.iter().zip(&mut sums) {
            let work = round(site, Plan::For(op, time), clients(args));
            sum.then(with_progress(site, op.name(), Until::Time(time), work).await?);
        }
    }
    Ok(sums)
}

fn clients(args: &BenchArgs) -> usize {
    usize::from(args.concurrency)
}

fn print(args: &BenchArgs, sites: &[Arc<Site>], rows: &[Row]) -> Result<()> {
    let endpoints: Vec<&str> = sites.iter().map(|site| site.target.url.as_str()).collect();
    let setting = json!({
        "size_bytes": args.size.0,
        "concurrency": args.concurrency,
        "duration_s": args.duration.0.as_secs_f64(),
        "objects": args.objects,
        "signed_payload": args.signed_payload,
    });
    let text = if args.json {
        serde_json::to_string_pretty(&report::json(&endpoints, rows, setting))? + "\n"
    } else {
        let head = format!("{} objects, {} clients\n", args.size, args.concurrency);
        head + &report::table(&endpoints, rows)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

async fn make_bucket(site: &Site) -> Result<()> {
    let mut connection = Connection::open(site.target.clone()).await?;
    let path = format!("/{}", site.bucket);
    let call = Call { method: "PUT", path: &path, query: "", headers: "", body: Payload::Text("") };
    match once(&mut connection, call).await? {
        (200, _) => Ok(()),
        (409, text) if text.contains("BucketAlreadyOwnedByYou") => Ok(()),
        (status, text) => bail!("{}: making bucket {} answered {status}: {text}", site.target.url, site.bucket),
    }
}

/// Deletes what this run made, and the bucket if nothing else is in it.
async fn clear(site: &Arc<Site>) -> Result<()> {
    let mut connection = Connection::open(site.target.clone()).await?;
    let keys: Vec<String> = site.keys().collect();
    let mut line = Line::new();
    for (index, batch) in keys.chunks(DELETE_BATCH).enumerate() {
        line.show(&format!("clear   {} {}/{}", site.target.url, index * DELETE_BATCH, keys.len()));
        delete_batch(&mut connection, site, batch).await?;
    }
    let path = format!("/{}", site.bucket);
    let call = Call { method: "DELETE", path: &path, query: "", headers: "", body: Payload::None };
    match once(&mut connection, call).await? {
        (200 | 204, _) => Ok(()),
        // Both endpoints may be the same store.
        (404, text) if text.contains("NoSuchBucket") => Ok(()),
        (409, text) if text.contains("BucketNotEmpty") => Ok(()),
        (status, text) => bail!("deleting bucket {} answered {status}: {text}", site.bucket),
    }
}

async fn delete_batch(connection: &mut Connection, site: &Site, keys: &[String]) -> Result<()> {
    let objects: String = keys.iter().map(|key| format!("<Object><Key>{key}</Key></Object>")).collect();
    let body = format!("<Delete><Quiet>true</Quiet>{objects}</Delete>");
    let headers = format!("content-md5: {}\r\n", STANDARD.encode(Md5::digest(&body)));
    let path = format!("/{}", site.bucket);
    let call = Call { method: "POST", path: &path, query: "delete=", headers: &headers, body: Payload::Text(&body) };
    match once(connection, call).await? {
        (200, text) if !text.contains("<Error>") => Ok(()),
        (404, text) if text.contains("NoSuchBucket") => Ok(()),
        (status, text) => bail!("deleting objects answered {status}: {text}"),
    }
}

/// When a piece of work ends.
#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    Count(u64),
}

/// Runs `work` and draws how far it is.
async fn with_progress(
    site: &Arc<Site>,
    name: &str,
    until: Until,
    work: impl Future<Output = Result<Tally>>,
) -> Result<Tally> {
    let (started, before) = (Instant::now(), site.done.load(Relaxed));
    let mut line = Line::new();
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    tokio::pin!(work);
    loop {
        tokio::select! {
            tally = &mut work => return tally,
            _ = tick.tick() => {
                let done = site.done.load(Relaxed) - before;
                let share = match until {
                    Until::Time(time) => started.elapsed().as_secs_f64() / time.as_secs_f64(),
                    Until::Count(count) => done as f64 / count.max(1) as f64,
                };
                let rate = done as f64 / started.elapsed().as_secs_f64().max(1e-3);
                line.show(&format!("{name:<7} {} {} {rate:.0}/s", site.target.url, bar(share)));
            }
        }
    }
}

fn bar(share: f64) -> String {
    const WIDTH: usize = 30;
    let full = ((share * WIDTH as f64) as usize).min(WIDTH);
    format!("[{}{}]", "#".repeat(full), ".".repeat(WIDTH - full))
}

/// A line on stderr that is drawn over and over, and wiped at the end; nothing where nobody looks.
struct Line {
    shown: bool,
}

impl Line {
    fn new() -> Self {
        Line { shown: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, text: &str) {
        if self.shown {
            eprint!("\r\x1b[K{text}");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.show("");
    }
}

#[cfg(test)]
mod tests;
