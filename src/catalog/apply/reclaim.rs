//! Giving back what is no longer used: the drain of the dead list, and the chunks whose bytes may go.
//!
//! Invariants
//! - The dead list is drained oldest first. A node is torn down in steps; what is left of its rows is what is left to
//!   do, and its row in `dead` goes with the last of them.
//! - A chunk's row goes in the transaction that makes its row in `reclaim`; so does a place that it is swapped away from.
//!   So what holds a chunk's bytes is named by the chunk's row or by one row of `reclaim`.

use rusqlite::params;

use crate::catalog::{Error, Outcome};
use crate::ids::{Ino, SEQS_PER_COMMAND};

use super::node::{Form, Node, Use};
use super::{Decision, Step, bound, sql, unsql};

/// Rows that remain are counted up to here.
const REMAINING_MAX: u32 = 1000;

struct Dead {
    seq: i64,
    id: Ino,
    lost: Use,
}

impl Step<'_> {
    pub(super) fn drain(&mut self, row_count: u32) -> Decision<Outcome> {
        bound((1..=SEQS_PER_COMMAND).contains(&row_count.into()), "1 to 4,096 rows a drain")?;
        self.reap_orphans()?;
        let mut budget = u64::from(row_count);
        while budget > 0
            && let Some(dead) = self.oldest_dead()?
        {
            budget = budget.saturating_sub(self.bury(&dead, budget)?);
        }
        let query = "SELECT COUNT(*) FROM (SELECT 1 FROM dead LIMIT ?)";
        let remaining = self.find(query, [REMAINING_MAX], |row| row.get(0))?;
        Ok(Outcome::Drained { remaining: remaining.unwrap_or(0) })
    }

    fn oldest_dead(&self) -> Result<Option<Dead>, Error> {
        self.find("SELECT seq, id, named FROM dead ORDER BY seq LIMIT 1", [], |row| {
            let lost = match row.get(2)? {
                0 => Use::Body,
                1 => Use::Name,
                _ => Use::Rows,
            };
            Ok(Dead { seq: row.get(0)?, id: Ino(unsql(row.get(1)?)), lost })
        })
    }

    /// Takes a use from a node, and tears it down if that was the last. Returns about how many rows it touched:
    /// at least 1, at most some more than `budget`.
    fn bury(&mut self, dead: &Dead, budget: u64) -> Result<u64, Error> {
        let gone = || Error::Inconsistent(format!("node {} is on the dead list and missing", dead.id));
        let mut node = self.node(dead.id)?.ok_or_else(gone)?;
        let is_half_torn = node.refs == 0;
        if !is_half_torn {
            node.lower(dead.lost);
        }
        let torn = match node.refs {
            0 => self.tear_rows(&node, budget)?,
            _ if dead.lost == Use::Rows => self.tear_rows(&node, budget)?,
            _ => 0,
        };
        let is_done = torn < budget;
        match (node.refs, is_done) {
            (0, true) => self.delete_node(&node)?,
            _ if dead.lost == Use::Rows => {}
            _ => {
                self.save_counts(&node)?;
                self.part_with_bytes(&node)?;
            }
        }
        if is_done && dead.lost == Use::Rows && node.refs > 0 {
            self.run("UPDATE node SET form=?2 WHERE id=?1", [sql(node.id.0), Form::Empty as i64])?;
        }
        if is_done {
            self.run("DELETE FROM dead WHERE seq=?", [dead.seq])?;
        }
        Ok(torn + 1)
    }

    fn save_counts(&self, node: &Node) -> Result<(), Error> {
        let update = "UPDATE node SET nlink=?2, refs=?3 WHERE id=?1";
        self.run(update, [sql(node.id.0), sql(node.nlink), sql(node.refs)])?;
        Ok(())
    }

    /// Deletes at most `budget` of the rows that hang on a node, but its own. Fewer than `budget`: none is left.
    fn tear_rows(&mut self, node: &Node, budget: u64) -> Result<u64, Error> {
        match node.form {
            Form::Empty | Form::Chunk => Ok(0),
            Form::Inline => {
                self.run("DELETE FROM inline WHERE ino=?", [sql(node.id.0)])?;
                Ok(0)
            }
            Form::Extents | Form::Multipart => {
                // A part never lacks its extents: it goes first.
                let part_count = self.tear_parts(node.id, budget)?;
                Ok(part_count + self.tear_extents(node.id, budget - part_count)?)
            }
        }
    }

    fn tear_extents(&mut self, ino: Ino, budget: u64) -> Result<u64, Error> {
        let query = "SELECT off, chunk FROM extent WHERE ino=? ORDER BY off LIMIT ?";
        let rows: Vec<(i64, i64)> = self.all(query, [sql(ino.0), sql(budget)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if let Some((last, _)) = rows.last() {
            self.run("DELETE FROM extent WHERE ino=? AND off<=?", [sql(ino.0), *last])?;
        }
        for (_, chunk) in &rows {
            self.lose(Ino(unsql(*chunk)), Use::Body)?;
        }
        Ok(rows.len() as u64)
    }

    fn tear_parts(&self, upload: Ino, budget: u64) -> Result<u64, Error> {
        let delete = "DELETE FROM part WHERE upload=?1 AND num IN
            (SELECT num FROM part WHERE upload=?1 ORDER BY num LIMIT ?2)";
        Ok(self.run(delete, [sql(upload.0), sql(budget)])? as u64)
    }

    /// Deletes a node that nothing hangs on: its chunk may go, and whose body it shared loses a use.
    fn delete_node(&mut self, node: &Node) -> Result<(), Error> {
        if let Some(owner) = node.owner {
            self.lose(owner, Use::Body)?;
        }
        if node.has_place {
            self.insert_reclaim(node.id, None)?;
            self.delete_repair(node.id)?;
        }
        self.run("DELETE FROM node WHERE id=?", [sql(node.id.0)])?;
        Ok(())
    }

    /// Notes that a chunk's bytes die now: those at `place`, or wherever the chunk is.
    pub(super) fn insert_reclaim(&mut self, chunk: Ino, place: Option<&[u8]>) -> Result<(), Error> {
        let seq = self.state.take_reclaim();
        let insert = "INSERT INTO reclaim(seq, chunk, died, place)
            SELECT ?2, id, ?3, COALESCE(?4, place) FROM node WHERE id=?1";
        self.run(insert, params![sql(chunk.0), sql(seq), sql(self.index.0), place])?;
        Ok(())
    }

    pub(super) fn reclaimed(&mut self, rows: &[u64]) -> Decision<Outcome> {
        bound(rows.len() as u64 <= SEQS_PER_COMMAND, "at most 4,096 rows a command")?;
        for row in rows {
            self.run("DELETE FROM reclaim WHERE seq=?", [sql(*row)])?;
        }
        Ok(Outcome::Done)
    }
}

impl Node {
    fn lower(&mut self, lost: Use) {
        let names_left = match lost {
            Use::Name => {
                self.nlink = self.nlink.saturating_sub(1);
                self.nlink
            }
            Use::Body => 0,
            Use::Rows => return,
        };
        if names_left == 0 {
            self.refs = self.refs.saturating_sub(1);
        }
    }
}
