//! Frames to plaintext: verified, rebuilt where they are missing, opened. Blocking.

use bytes::Bytes;

use super::plan::{Cell, Row};
use crate::erasure::{Codec, Cover};
use crate::ids::Ino;
use crate::segment::{Frame, Opener, Place, Workspace, stripe};

/// Why frames do not give what is wanted.
#[derive(Debug)]
pub(super) enum Trouble {
    /// These are not what they should be: row and shard index.
    Bad(Vec<(usize, usize)>),
    /// Each is what it should be, and together they are not.
    Inconsistent(String),
}

/// Opens what is wanted of a chunk.
pub(super) struct Chunk {
    pub(super) chunk: Ino,
    pub(super) codec: Codec,
    pub(super) opener: Opener,
}

impl Chunk {
    /// What the rows, which are ready, want: in order, in one.
    pub(super) fn open(&self, workspace: &mut Workspace, rows: &[Row]) -> Result<Bytes, Trouble> {
        let covers = rows.iter().flat_map(|row| &row.covers);
        let mut plain = Vec::with_capacity(covers.map(|cover| cover.slice.len()).sum());
        let mut bad = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            match self.open_row(workspace, row, &mut plain) {
                Ok(()) => {}
                Err(Trouble::Bad(cells)) => bad.extend(cells.into_iter().map(|(_, shard_index)| (at, shard_index))),
                Err(trouble) => return Err(trouble),
            }
        }
        if bad.is_empty() { Ok(plain.into()) } else { Err(Trouble::Bad(bad)) }
    }

    fn open_row(&self, workspace: &mut Workspace, row: &Row, plain: &mut Vec<u8>) -> Result<(), Trouble> {
        let is_here = |cover: &Cover| matches!(row.cells[cover.segment.shard_index], Cell::Here(_));
        let needed = |index: &usize| match row.covers.iter().all(is_here) {
            true => row.covers.iter().any(|cover| cover.segment.shard_index == *index),
            false => true,
        };
        let frames: Vec<Option<Frame<'_>>> = self.verified(row, needed)?;
        let missing: Vec<usize> =
            row.covers.iter().map(|cover| cover.segment.shard_index).filter(|index| frames[*index].is_none()).collect();
        let rebuilt = self.rebuild(row, &frames, &missing)?;
        for cover in &row.covers {
            let index = cover.segment.shard_index;
            let made = missing.iter().position(|missing| *missing == index).map(|at| &rebuilt[at]);
            let opened = match (&frames[index], made) {
                (Some(frame), _) => self.open_frame(workspace, frame, cover, plain),
                // It was verified when it was made.
                (None, Some(made)) => Frame::verify(made, self.place(row, index))
                    .map_err(|error| error.to_string())
                    .and_then(|frame| self.open_frame(workspace, &frame, cover, plain)),
                (None, None) => Err("a frame that was neither here nor rebuilt".to_owned()),
            };
            match (opened, made) {
                (Ok(()), _) => {}
                (Err(_), None) => return Err(Trouble::Bad(vec![(0, index)])),
                (Err(what), Some(_)) => return Err(Trouble::Inconsistent(what)),
            }
        }
        Ok(())
    }

    fn place(&self, row: &Row, shard_index: usize) -> Place {
        // Of a layout, so less than 32.
        Place { chunk: self.chunk, stripe: row.stripe, shard_index: shard_index as u8 }
    }

    /// The frames that are here and needed, by shard index.
    fn verified<'a>(&self, row: &'a Row, needed: impl Fn(&usize) -> bool) -> Result<Vec<Option<Frame<'a>>>, Trouble> {
        let (mut frames, mut bad) = (vec![None; row.cells.len()], Vec::new());
        for (index, cell) in row.cells.iter().enumerate().filter(|(index, _)| needed(index)) {
            let Cell::Here(bytes) = cell else { continue };
            match Frame::verify(bytes, self.place(row, index)) {
                Ok(frame) => frames[index] = Some(frame),
                Err(_) => bad.push((0, index)),
            }
        }
        if bad.is_empty() { Ok(frames) } else { Err(Trouble::Bad(bad)) }
    }

    fn rebuild(&self, row: &Row, frames: &[Option<Frame<'_>>], missing: &[usize]) -> Result<Vec<Vec<u8>>, Trouble> {
        let is_empty = |index: usize| row.cells[index] == Cell::Empty;
        let present: Vec<bool> = (0..frames.len()).map(|index| frames[index].is_some() || is_empty(index)).collect();
        let inconsistent = |error: crate::segment::Error| Trouble::Inconsistent(error.to_string());
        let plan = self.codec.plan(&present, missing).map_err(|error| inconsistent(error.into()))?;
        stripe::rebuild(&self.codec, &plan, self.chunk, row.stripe, |index| frames[index]).map_err(inconsistent)
    }

    /// Appends what is wanted of a frame.
    fn open_frame(
        &self,
        workspace: &mut Workspace,
        frame: &Frame<'_>,
        cover: &Cover,
        plain: &mut Vec<u8>,
    ) -> Result<(), String> {
        let (start, len) = (plain.len(), cover.segment.len_bytes());
        if frame.header().plain_len_bytes as usize != len {
            return Err(format!("a segment of {} bytes where {len} were expected", frame.header().plain_len_bytes));
        }
        self.opener.open(workspace, frame, plain).map_err(|error| error.to_string())?;
        plain.truncate(start + cover.slice.end);
        plain.drain(start..start + cover.slice.start);
        Ok(())
    }
}
