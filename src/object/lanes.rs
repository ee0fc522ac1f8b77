//! MD5 of several bodies at once: one stream of MD5 is bound by its own chain of additions, eight in the lanes of a
//! vector cost hardly more than one.
//!
//! Invariants
//! - Whoever comes with bytes leaves with their digest's state, computed by itself or by another who was at work.
//! - While nobody waits, a stream is computed where it is: lanes are filled from waiters, never waited for.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use md5_many::{Md5Many, Md5State};

/// Streams computed at once. Vectors of AVX2 have as many lanes; where there are fewer, the crate takes turns.
const LANE_COUNT: usize = 8;
/// Bytes of an MD5 block.
const BLOCK_BYTES: usize = 64;
/// Shorter runs than this are not worth filling lanes with, in bytes.
const LANE_RUN_MIN_BYTES: usize = 1024;

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let core_count = std::thread::available_parallelism().map_or(1, usize::from);
    Bench::new(core_count.div_ceil(2))
});

/// An MD5 that is being computed.
#[derive(Clone)]
pub(super) struct Md5 {
    state: Md5State,
    len_bytes: u64,
}

impl std::fmt::Debug for Md5 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MD5 of {} bytes", self.len_bytes)
    }
}

impl PartialEq for Md5 {
    fn eq(&self, other: &Self) -> bool {
        (self.len_bytes, self.finish()) == (other.len_bytes, other.finish())
    }
}

impl Eq for Md5 {}

impl Md5 {
    pub(super) fn new() -> Self {
        Md5 { state: Md5State::new(), len_bytes: 0 }
    }

    /// Adds bytes, here and now.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.len_bytes += bytes.len() as u64;
    }

    /// Adds runs of bytes, together with other streams that do so now. Blocks.
    pub(super) fn update_among_others(&mut self, runs: &[Bytes]) {
        *self = BENCH.compute(self.clone(), runs.to_vec());
    }

    pub(super) fn finish(&self) -> [u8; 16] {
        self.state.finalize()
    }

    /// Bytes up to the next block.
    fn unaligned_bytes(&self) -> usize {
        (BLOCK_BYTES - (self.len_bytes % BLOCK_BYTES as u64) as usize) % BLOCK_BYTES
    }
}

/// Where streams meet.
struct Bench {
    turns: Mutex<Turns>,
    changed: Condvar,
}

struct Turns {
    waiting: Vec<(Job, SyncSender<Md5>)>,
    free: usize,
}

impl Bench {
    fn new(turn_count: usize) -> Self {
        Bench { turns: Mutex::new(Turns { waiting: Vec::new(), free: turn_count }), changed: Condvar::new() }
    }

    /// The state of `md5` after `runs`.
    fn compute(&self, md5: Md5, runs: Vec<Bytes>) -> Md5 {
        let (reply, answer) = sync_channel(1);
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.waiting.push((Job { md5, runs, at: (0, 0) }, reply));
        loop {
            if let Some(done) = taken(&answer) {
                return done;
            }
            if turns.free == 0 || turns.waiting.is_empty() {
                turns = self.changed.wait(turns).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            turns.free -= 1;
            let count = turns.waiting.len().min(LANE_COUNT);
            let (mut jobs, replies): (Vec<Job>, Vec<_>) = turns.waiting.drain(..count).unzip();
            drop(turns);
            run(&mut jobs);
            for (job, reply) in jobs.into_iter().zip(replies) {
                // Each has its own answer, and waits for it.
                let _ = reply.send(job.md5);
            }
            turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.free += 1;
            self.changed.notify_all();
        }
    }
}

fn taken(answer: &Receiver<Md5>) -> Option<Md5> {
    answer.try_recv().ok()
}

/// A stream and what is to be added to it.
struct Job {
    md5: Md5,
    runs: Vec<Bytes>,
    /// What was added: whole runs, and bytes of the next.
    at: (usize, usize),
}

impl Job {
    /// What is next, in one piece; empty: nothing is left.
    fn next(&self) -> &[u8] {
        self.runs.get(self.at.0).map_or(&[], |run| &run[self.at.1..])
    }

    fn is_done(&mut self) -> bool {
        while self.runs.get(self.at.0).is_some_and(|run| run.len() == self.at.1) {
            self.at = (self.at.0 + 1, 0);
        }
        self.at.0 == self.runs.len()
    }

    /// Adds the next `len_bytes` of the piece at hand.
    fn step(&mut self, len_bytes: usize) {
        let (run, start) = self.at;
        self.md5.update(&self.runs[run][start..start + len_bytes]);
        self.at.1 += len_bytes;
    }

    /// Adds what is left up to the next block.
    fn align(&mut self) {
        self.step(self.md5.unaligned_bytes().min(self.next().len()));
    }

    fn complete(&mut self) {
        while !self.is_done() {
            self.step(self.next().len());
        }
    }
}

/// Computes all jobs, in lanes as long as there are several.
fn run(jobs: &mut [Job]) {
    loop {
        let mut left: Vec<&mut Job> = jobs.iter_mut().filter_map(|job| (!job.is_done()).then_some(job)).collect();
        match left.as_mut_slice() {
            [] => return,
            [last] => return last.complete(),
            left => run_lanes(left),
        }
    }
}

/// Takes each job at hand forward, or at least one of them.
fn run_lanes(jobs: &mut [&mut Job]) {
    jobs.iter_mut().for_each(|job| job.align());
    let Some(shortest) = jobs.iter_mut().min_by_key(|job| job.next().len()) else { return };
    let len_bytes = shortest.next().len() / BLOCK_BYTES * BLOCK_BYTES;
    if len_bytes < LANE_RUN_MIN_BYTES {
        return shortest.step(shortest.next().len());
    }
    // All lanes are filled, the idle ones with copies of the first: the crate is slow at any count between.
    let lane = |index: usize| if index < jobs.len() { index } else { 0 };
    let mut states: [Md5State; LANE_COUNT] = std::array::from_fn(|index| jobs[lane(index)].md5.state);
    let inputs: [&[u8]; LANE_COUNT] = std::array::from_fn(|index| &jobs[lane(index)].next()[..len_bytes]);
    Md5Many::new().update_many(&mut states, &inputs);
    for (job, state) in jobs.iter_mut().zip(states) {
        job.md5 = Md5 { state, len_bytes: job.md5.len_bytes + len_bytes as u64 };
        job.at.1 += len_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use md5::Digest;
    use proptest::prelude::*;

    fn bytes(seed: usize, len: usize) -> Bytes {
        (0..len).map(|index| (((index + seed) * 31) >> 3) as u8).collect()
    }

    /// Lengths of runs about blocks, lanes' least run, and nothing.
    fn lengths() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(prop_oneof![0..3usize, 60..70usize, 1000..1100usize, 1..9000usize], 0..6)
    }

    fn expected(runs: &[Bytes]) -> [u8; 16] {
        md5::Md5::digest(runs.concat()).into()
    }

    proptest! {
        #[test]
        fn lanes_agree_with_the_other_implementation(streams in prop::collection::vec(lengths(), 1..=LANE_COUNT)) {
            let runs = |(seed, lens): (usize, &Vec<usize>)| lens.iter().map(|len| bytes(seed, *len)).collect::<Vec<_>>();
            let streams: Vec<Vec<Bytes>> = streams.iter().enumerate().map(runs).collect();
            let mut jobs: Vec<Job> =
                streams.iter().map(|runs| Job { md5: Md5::new(), runs: runs.clone(), at: (0, 0) }).collect();
            run(&mut jobs);
            for (job, runs) in jobs.iter().zip(&streams) {
                prop_assert_eq!(job.md5.finish(), expected(runs));
            }
        }
    }

    #[test]
    fn everyone_leaves_with_the_own_digest() {
        let bench = Bench::new(1);
        std::thread::scope(|scope| {
            for stream in 0..3 * LANE_COUNT {
                let bench = &bench;
                scope.spawn(move || {
                    let batches: Vec<Vec<Bytes>> =
                        (0..20).map(|batch| vec![bytes(stream, 5000 + batch * 77), bytes(batch, 3000)]).collect();
                    let add = |md5, runs: &Vec<Bytes>| bench.compute(md5, runs.clone());
                    assert_eq!(batches.iter().fold(Md5::new(), add).finish(), expected(&batches.concat()));
                });
            }
        });
    }
}
