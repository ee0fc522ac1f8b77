//! What the clients do: one operation each, on keys that both the writing and the reading side can name.
//!
//! ```text
//! g/<number>          what GET and HEAD read: made before, never changed
//! l/<number>          what LIST lists
//! p/<run>/<chance>    what PUT makes, at places spread by chance, and DELETE takes away
//! ```

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::body::{Body, mix};
use super::client::{Answer, Call, Connection, Payload, Target};
use super::histogram::Histogram;

/// Keys a page of LIST is asked for.
const PAGE_COUNT: u64 = 1000;
/// What RANGE reads of an object.
const RANGE_BYTES: u64 = 8 << 10;
/// The body of what LIST lists: it is not read.
const LISTED_BYTES: u64 = 8;

/// An operation to measure.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// New objects.
    Put,
    /// Whole objects, compared with what was written.
    Get,
    /// 8 KiB of them from places chosen by chance, compared too.
    Range,
    /// The same without bodies.
    Head,
    /// Pages of 1,000 keys from chosen-by-chance starts.
    List,
    /// What PUT made.
    Delete,
    /// 60% GET, 25% PUT, 10% HEAD, 5% DELETE.
    Mixed,
}

impl Op {
    pub(super) fn name(self) -> &'static str {
        match self {
            Op::Put => "PUT",
            Op::Get => "GET",
            Op::Range => "RANGE",
            Op::Head => "HEAD",
            Op::List => "LIST",
            Op::Delete => "DELETE",
            Op::Mixed => "mixed",
        }
    }
}

/// One endpoint under load: its bucket, and which objects are in it.
pub(super) struct Site {
    pub(super) target: Arc<Target>,
    pub(super) bucket: String,
    /// Part of the keys that this run writes.
    pub(super) run: u64,
    pub(super) size_bytes: u64,
    /// How many objects GET and HEAD choose from.
    pub(super) read_count: u64,
    /// How many objects LIST finds.
    pub(super) list_count: u64,
    /// How many PUT has begun.
    pub(super) put_count: AtomicU64,
    /// How many DELETE has begun.
    pub(super) delete_count: AtomicU64,
    /// Operations since the start, for the progress line.
    pub(super) done: AtomicU64,
}

impl Site {
    fn read_path(&self, index: u64) -> String {
        format!("/{}/g/{index:010}", self.bucket)
    }

    fn list_path(&self, index: u64) -> String {
        format!("/{}/l/{index:010}", self.bucket)
    }

    /// Of the object that PUT made as number `index`.
    pub(super) fn put_path(&self, index: u64) -> String {
        format!("/{}/p/{:x}/{:016x}", self.bucket, self.run, mix(index))
    }

    /// The keys of everything that this run can have made, without the bucket.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> + '_ {
        let read = (0..self.read_count).map(|index| self.read_path(index));
        let list = (0..self.list_count).map(|index| self.list_path(index));
        let put = (0..self.put_count.load(Relaxed)).map(|index| self.put_path(index));
        read.chain(list).chain(put).map(|path| path[self.bucket.len() + 2..].to_owned())
    }
}

/// What a round of one operation gave.
#[derive(Clone, Default)]
pub(super) struct Tally {
    pub(super) latency: Histogram,
    /// Bytes of bodies, either way.
    pub(super) body_bytes: u64,
    pub(super) error_count: u64,
    pub(super) first_error: Option<String>,
    pub(super) elapsed: Duration,
}

impl Tally {
    /// Adds what another client counted at the same time.
    fn beside(&mut self, other: Tally) {
        self.latency.merge(&other.latency);
        self.body_bytes += other.body_bytes;
        self.error_count += other.error_count;
        self.first_error = self.first_error.take().or(other.first_error);
        self.elapsed = self.elapsed.max(other.elapsed);
    }

    /// Adds what came after.
    pub(super) fn then(&mut self, other: Tally) {
        let elapsed = self.elapsed + other.elapsed;
        self.beside(other);
        self.elapsed = elapsed;
    }
}

/// What one client is to do next.
#[derive(Clone, Copy)]
enum Step {
    /// Write object `index` of those to be read.
    Prepare(u64),
    /// Write object `index` of those to be listed.
    PrepareList(u64),
    Put,
    Get,
    Range,
    Head,
    List,
    Delete,
}

/// Which steps a round takes, and until when.
#[derive(Clone)]
pub(super) enum Plan {
    /// `Op` until the time is over.
    For(Op, Duration),
    /// Write what GET and HEAD need, once.
    Prepare(Arc<AtomicU64>),
    /// Write what LIST needs, once.
    PrepareList(Arc<AtomicU64>),
}

impl Plan {
    /// The next step of a client that `chance` decides for; none: the plan is done.
    fn next(&self, site: &Site, started: Instant, chance: u64) -> Option<Step> {
        match self {
            Plan::Prepare(next) => Some(next.fetch_add(1, Relaxed)).filter(|i| *i < site.read_count).map(Step::Prepare),
            Plan::PrepareList(next) => {
                Some(next.fetch_add(1, Relaxed)).filter(|i| *i < site.list_count).map(Step::PrepareList)
            }
            Plan::For(_, time) if started.elapsed() >= *time => None,
            Plan::For(op, _) => Some(match (op, chance % 100) {
                (Op::Put, _) | (Op::Mixed, 60..85) => Step::Put,
                (Op::Get, _) | (Op::Mixed, 0..60) => Step::Get,
                (Op::Head, _) | (Op::Mixed, 85..95) => Step::Head,
                (Op::Range, _) => Step::Range,
                (Op::List, _) => Step::List,
                (Op::Delete | Op::Mixed, _) => Step::Delete,
            }),
        }
    }
}

/// Runs `plan` with `client_count` clients, each on a connection of its own, opened before the clock starts.
///
/// # Errors
/// The endpoint cannot be reached; errors of single requests are counted, not returned.
pub(super) async fn round(site: &Arc<Site>, plan: Plan, client_count: usize) -> Result<Tally> {
    let mut connections = Vec::new();
    for _ in 0..client_count {
        connections.push(Connection::open(site.target.clone()).await?);
    }
    let started = Instant::now();
    let clients = connections.into_iter().enumerate().map(|(index, connection)| {
        let client = Client { site: site.clone(), connection: Some(connection), chance: index as u64 ^ site.run };
        tokio::spawn(client.run(plan.clone(), started))
    });
    let clients: Vec<_> = clients.collect();
    let mut all = Tally::default();
    for client in clients {
        all.beside(client.await?);
    }
    Ok(all)
}

struct Client {
    site: Arc<Site>,
    connection: Option<Connection>,
    chance: u64,
}

impl Client {
    async fn run(mut self, plan: Plan, started: Instant) -> Tally {
        let mut tally = Tally::default();
        loop {
            self.chance = mix(self.chance);
            let Some(step) = plan.next(&self.site, started, self.chance >> 32) else { break };
            let begun = Instant::now();
            match self.step(step).await {
                Ok(Some(bytes)) => {
                    tally.latency.record(begun.elapsed());
                    tally.body_bytes += bytes;
                    self.site.done.fetch_add(1, Relaxed);
                }
                Ok(None) => break,
                Err(error) => {
                    tally.error_count += 1;
                    tally.first_error.get_or_insert_with(|| format!("{error:#}"));
                    self.connection = None;
                    // A server that is gone or refuses would be asked a million times a second.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        tally.elapsed = started.elapsed();
        tally
    }

    /// Bytes moved; none when there is nothing left to do.
    async fn step(&mut self, step: Step) -> Result<Option<u64>> {
        let site = self.site.clone();
        match step {
            Step::Prepare(index) => self.put(&site.read_path(index), site.size_bytes).await.map(Some),
            Step::PrepareList(index) => self.put(&site.list_path(index), LISTED_BYTES).await.map(Some),
            Step::Put => {
                let index = site.put_count.fetch_add(1, Relaxed);
                self.put(&site.put_path(index), site.size_bytes).await.map(Some)
            }
            Step::Get => self.get(&site.read_path(self.chance % site.read_count)).await.map(Some),
            Step::Range => self.range(&site.read_path(self.chance % site.read_count)).await.map(Some),
            Step::Head => self.head(&site.read_path(self.chance % site.read_count)).await.map(Some),
            Step::List => self.list(self.chance % site.list_count).await.map(Some),
            Step::Delete => {
                let index = site.delete_count.fetch_add(1, Relaxed);
                if index >= site.put_count.load(Relaxed) {
                    site.delete_count.fetch_sub(1, Relaxed);
                    return Ok(None);
                }
                self.delete(&site.put_path(index)).await.map(Some)
            }
        }
    }

    async fn call(&mut self, call: Call<'_>, sink: impl FnMut(&[u8])) -> Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.site.target.clone()).await?,
        };
        let answer = connection.call(call, sink).await?;
        self.connection = Some(connection).filter(|connection| !connection.closing);
        Ok(answer)
    }

    async fn put(&mut self, path: &str, len_bytes: u64) -> Result<u64> {
        let body = Payload::Noise(Body::of(path, len_bytes));
        self.expect(&[200], Call { method: "PUT", path, query: "", headers: "", body }).await?;
        Ok(len_bytes)
    }

    async fn delete(&mut self, path: &str) -> Result<u64> {
        self.expect(&[200, 204], Call { method: "DELETE", path, query: "", headers: "", body: Payload::None }).await?;
        Ok(0)
    }

    async fn head(&mut self, path: &str) -> Result<u64> {
        let call = Call { method: "HEAD", path, query: "", headers: "", body: Payload::None };
        let answer = self.expect(&[200], call).await?;
        match answer.content_length {
            Some(len) if len == self.site.size_bytes => Ok(0),
            other => bail!("HEAD {path} says {other:?} bytes instead of {}", self.site.size_bytes),
        }
    }

    async fn get(&mut self, path: &str) -> Result<u64> {
        self.read(path, 0..self.site.size_bytes, 200, "").await
    }

    /// [`RANGE_BYTES`] from a place chosen by chance.
    async fn range(&mut self, path: &str) -> Result<u64> {
        let len_bytes = RANGE_BYTES.min(self.site.size_bytes);
        let start = mix(self.chance) % (self.site.size_bytes - len_bytes + 1);
        let end = start + len_bytes;
        self.read(path, start..end, 206, &format!("Range: bytes={start}-{}\r\n", end - 1)).await
    }

    async fn read(&mut self, path: &str, range: Range<u64>, status: u16, headers: &str) -> Result<u64> {
        let body = Body::of(path, self.site.size_bytes);
        let (mut offset, mut same) = (range.start, true);
        let call = Call { method: "GET", path, query: "", headers, body: Payload::None };
        let answer = self
            .call(call, |run| {
                same = same && body.matches(offset, run);
                offset += run.len() as u64;
            })
            .await?;
        check_status(&[status], answer, "GET", path)?;
        if !same || offset != range.end {
            bail!("GET {path} gave bytes to {offset} that are not those of {range:?} as written");
        }
        Ok(offset - range.start)
    }

    /// A page that begins behind object `start`.
    async fn list(&mut self, start: u64) -> Result<u64> {
        let query = format!("list-type=2&max-keys={PAGE_COUNT}&prefix=l%2F&start-after=l%2F{start:010}");
        let path = format!("/{}", self.site.bucket);
        let mut page = Vec::new();
        let call = Call { method: "GET", path: &path, query: &query, headers: "", body: Payload::None };
        let answer = self.call(call, |run| page.extend_from_slice(run)).await?;
        check_status(&[200], answer, "LIST", &query)?;
        let found = memchr::memmem::find_iter(&page, b"<Key>").count() as u64;
        let expected = PAGE_COUNT.min(self.site.list_count - start - 1);
        if found != expected {
            bail!("LIST {query} gave {found} keys instead of {expected}");
        }
        Ok(page.len() as u64)
    }

    async fn expect(&mut self, statuses: &[u16], call: Call<'_>) -> Result<Answer> {
        let mut text = Vec::new();
        let answer = self.call(call, |run| text.extend_from_slice(&run[..run.len().min(300)])).await?;
        let what = String::from_utf8_lossy(&text);
        check_status(statuses, answer, call.method, &format!("{} {what}", call.path))?;
        Ok(answer)
    }
}

fn check_status(statuses: &[u16], answer: Answer, method: &str, what: &str) -> Result<()> {
    if statuses.contains(&answer.status) { Ok(()) } else { bail!("{method} answered {}: {what}", answer.status) }
}

/// One request on a connection of its own, for setting up and clearing away. Gives the status and the body's text.
pub(super) async fn once(connection: &mut Connection, call: Call<'_>) -> Result<(u16, String)> {
    let mut text = Vec::new();
    let answer = connection.call(call, |run| text.extend_from_slice(run)).await?;
    Ok((answer.status, String::from_utf8_lossy(&text).into_owned()))
}
