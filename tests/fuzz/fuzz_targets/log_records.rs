//! Log records: a file written as the format says is read back exactly, and damage only ever shortens it.
//!
//! The input is a script: a line with log id, sequence, batch, first and next, then a line for each step.
//!
//! ```text
//! r TEXT      a record            t INDEX   truncate   p INDEX   purge   z INDEX   reset   m TEXT   a mark
//! R LEN       a long record       e KIND INDEX TEXT    any entry, right or wrong
//! .           ends the batch
//! x OFFSET    afterwards, flips a bit (the lowest three bits of OFFSET say which)
//! c LEN       afterwards, cuts the file off
//! ```
//!
//! The writer is one of its own, from the description in `src/log/format.rs` alone.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use predastore::log::format::{Decoded, Stop};
use predastore::log::{MARK_MAX_LEN, decode_records};

const BLOCK_LEN: usize = 4096;
const RECORD: u32 = 1;

/// CRC32C of each byte alone.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut state, mut bit) = (byte as u32, 0);
        while bit < 8 {
            state = (state >> 1) ^ (0x82f6_3b78 & (state & 1).wrapping_neg());
            bit += 1;
        }
        table[byte] = state;
        byte += 1;
    }
    table
};

/// CRC32C from the state `seed`.
fn crc32c(seed: u32, parts: &[&[u8]]) -> u32 {
    let step = |state: u32, byte: &u8| (state >> 8) ^ TABLE[(state as u8 ^ byte) as usize];
    !parts.iter().copied().flatten().fold(seed, step)
}

fn words(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// What a log holds between two batches.
#[derive(Clone)]
struct State {
    batch: u64,
    first: u64,
    next: u64,
    chain: u32,
    records: Vec<(u64, Range<usize>)>,
}

struct Writer {
    log_id: u64,
    sequence: u64,
    file: Vec<u8>,
    /// After the batches that are whole.
    state: State,
    /// After the entries of the batch that is being written; none: one of them is not allowed.
    pending: Option<State>,
    body: Vec<u8>,
    entry_count: u32,
    /// The chain over all entries of the batch, right or wrong.
    chain: u32,
    /// Headers and bodies of the whole batches.
    batches: Vec<Range<usize>>,
    end: Option<Stop>,
}

impl Writer {
    fn new(script: &str) -> Writer {
        let mut numbers = script.lines().next().unwrap_or_default().split(' ').map(number);
        let mut take = || numbers.next().unwrap_or_default();
        let (log_id, sequence, batch, first, next) = (take(), take(), take(), take(), take());
        let chain = crc32c(!0, &[&log_id.to_le_bytes()]);
        let state = State { batch, first, next, chain, records: Vec::new() };
        let fields = [words(&[log_id, sequence, batch, first, next]), chain.to_le_bytes().to_vec()].concat();
        let mut block = vec![0; BLOCK_LEN];
        block[..12].copy_from_slice(b"PREDALOG\x01\0\0\0");
        block[16..16 + fields.len()].copy_from_slice(&fields);
        let crc = crc32c(!0, &[&block[16..192]]);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        Writer {
            log_id,
            sequence,
            file: block,
            pending: Some(state.clone()),
            state,
            body: Vec::new(),
            entry_count: 0,
            chain,
            batches: Vec::new(),
            end: None,
        }
    }

    fn step(&mut self, line: &str) {
        let (step, rest) = line.split_once(' ').unwrap_or((line, ""));
        let next = self.pending.as_ref().map_or(0, |state| state.next);
        match step {
            "r" => self.entry(RECORD, next, rest.as_bytes()),
            "R" => self.entry(RECORD, next, &vec![b'R'; number(rest) as usize % 9000]),
            "t" => self.entry(2, number(rest), b""),
            "p" => self.entry(3, number(rest), b""),
            "z" => self.entry(4, number(rest), b""),
            "m" => self.entry(5, next, rest.as_bytes()),
            "e" => {
                let mut fields = rest.splitn(3, ' ');
                let mut field = || fields.next().unwrap_or_default();
                let (kind, index, text) = (number(field()), number(field()), field());
                self.entry(kind as u32, index, text.as_bytes());
            }
            "." => self.end_batch(),
            _ => {}
        }
    }

    fn entry(&mut self, kind: u32, index: u64, payload: &[u8]) {
        let head = [kind.to_le_bytes(), (payload.len() as u32).to_le_bytes()].concat();
        let head = [head, index.to_le_bytes().to_vec()].concat();
        self.chain = crc32c(self.chain, &[&head, payload]);
        self.body.extend(self.chain.to_le_bytes());
        self.body.extend(head);
        let start = self.file.len() + 48 + self.body.len();
        self.body.extend(payload);
        self.entry_count += 1;
        self.pending = self.pending.take().and_then(|state| applied(state, kind, index, start..start + payload.len()));
    }

    fn end_batch(&mut self) {
        let start = self.file.len();
        self.file.extend(batch_header(self.log_id, self.sequence, &self.state, &self.body, self.entry_count));
        self.file.append(&mut self.body);
        let end = self.file.len();
        self.file.resize(end.next_multiple_of(BLOCK_LEN), 0);
        match self.pending.take() {
            Some(state) if self.state.batch < u64::MAX => {
                let batch = self.state.batch + 1;
                self.state = State { batch, chain: self.chain, ..state };
                self.pending = Some(self.state.clone());
                self.batches.push(start..end);
            }
            Some(_) => self.end = Some(Stop::Broken),
            None => {
                let len_bytes = (self.file.len() - start) as u64;
                self.end = Some(Stop::Torn { len_bytes });
            }
        }
        self.entry_count = 0;
    }

    /// The file, a batch of its former life after its end, and what must be read from it.
    fn finish(mut self) -> (Vec<u8>, Vec<Range<usize>>, Decoded) {
        let end_offset = self.batches.last().map_or(BLOCK_LEN, |batch| batch.end.next_multiple_of(BLOCK_LEN));
        let former = self.sequence.wrapping_sub(1);
        self.file.extend(batch_header(self.log_id, former, &self.state, b"", 0));
        let expected = Decoded { records: self.state.records, end_offset, stop: self.end.unwrap_or(Stop::End) };
        (self.file, self.batches, expected)
    }
}

fn batch_header(log_id: u64, sequence: u64, before: &State, body: &[u8], entry_count: u32) -> Vec<u8> {
    let mut rest = words(&[sequence, before.batch]);
    rest.extend((body.len() as u32).to_le_bytes());
    rest.extend(entry_count.to_le_bytes());
    rest.extend(before.next.to_le_bytes());
    rest.extend(before.chain.to_le_bytes());
    rest.extend([0; 4]);
    let crc = crc32c(!0, &[&log_id.to_le_bytes(), &rest]);
    [b"PdB1".to_vec(), crc.to_le_bytes().to_vec(), rest].concat()
}

/// The state after an entry; none: the entry is not allowed there.
fn applied(mut state: State, kind: u32, index: u64, payload: Range<usize>) -> Option<State> {
    let in_range = state.first <= index && index <= state.next;
    match kind {
        RECORD if index == state.next && index < u64::MAX => {
            state.records.push((index, payload));
            state.next += 1;
        }
        2 if in_range => state.next = index,
        3 if in_range => state.first = index,
        4 => (state.first, state.next) = (index, index),
        5 if payload.len() <= MARK_MAX_LEN => {}
        _ => return None,
    }
    Some(state)
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

fn flipped(file: &[u8], batches: &[Range<usize>], at: usize, expected: &Decoded) {
    let (offset, mut damaged) = ((at >> 3) % file.len(), file.to_vec());
    damaged[offset] ^= 1 << (at & 7);
    match decode_records(&damaged) {
        Err(_) => assert!(offset < BLOCK_LEN, "the header is whole"),
        Ok(decoded) => {
            assert!(expected.records.starts_with(&decoded.records));
            let batch = batches.iter().find(|batch| batch.contains(&offset));
            assert!(batch.is_none_or(|batch| decoded.end_offset <= batch.start), "a flipped bit was read over");
        }
    }
}

fn cut(file: &[u8], len: usize, expected: &Decoded) {
    let len = len % (file.len() + 1);
    match decode_records(&file[..len]) {
        Err(_) => assert!(len < BLOCK_LEN, "the header is whole"),
        Ok(decoded) => {
            assert!(expected.records.starts_with(&decoded.records));
            assert!(decoded.records.iter().all(|(_, payload)| payload.end <= len));
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let _ = decode_records(input);
    let script = String::from_utf8_lossy(input);
    let mut writer = Writer::new(&script);
    for line in script.lines().skip(1) {
        if writer.end.is_none() {
            writer.step(line);
        }
    }
    let (file, batches, expected) = writer.finish();
    assert_eq!(decode_records(&file).as_ref(), Ok(&expected));
    for (damage, at) in script.lines().filter_map(|line| line.split_once(' ')) {
        match damage {
            "x" => flipped(&file, &batches, number(at) as usize, &expected),
            "c" => cut(&file, number(at) as usize, &expected),
            _ => {}
        }
    }
});
