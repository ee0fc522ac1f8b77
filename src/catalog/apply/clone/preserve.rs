//! Copying before changing: what keeps a clone as of the moment at which it began, whoever writes meanwhile.
//!
//! A clone lists directories that it has come to (`cloning`), by inode, each with the name from which on its entries are
//! still to be copied. A writer settles a name before it changes it: if it is still to be copied, it is copied now and
//! noted (`settled`), and the walk passes it over.
//!
//! Invariants
//! - A directory that is not in the list is part of what was there exactly if the way up from it leads to one that is,
//!   by a name that is still to be copied: for whoever changes a name lists its directory, and all between, first.
//! - So what is still to be copied is as it was. Directories may move meanwhile: they are known by their inodes.
//! - Bytes and attributes that change in place count as a change of the name; of files of several names, whose names
//!   nobody knows, what they were is kept by inode.
//! - While nothing is cloned, all this is a look at a copy in memory.

use rusqlite::params;

use crate::catalog::level::CLONES_LEVEL;
use crate::catalog::types::InodeAttrs;
use crate::catalog::{ClonePhase, Error};
use crate::ids::{Ino, SessionId};

use super::super::node::Form;
use super::super::state::Clones;
use super::super::{Step, sql, unsql};
use super::Job;
use super::copy::Reached;

impl Step<'_> {
    /// What is known of clones, read if need be.
    fn clones(&mut self) -> Result<&Clones, Error> {
        if self.cache.clones.is_none() {
            let mut clones = Clones::default();
            if self.state.level >= CLONES_LEVEL {
                for (id, state) in self.all_clones()? {
                    match state.phase {
                        ClonePhase::Copying => clones.copying.push(id),
                        ClonePhase::Erasing => clones.is_erasing = true,
                        ClonePhase::Done | ClonePhase::Failed => {}
                    }
                }
            }
            self.cache.clones = Some(clones);
        }
        Ok(self.cache.clones.get_or_insert_default())
    }

    /// The clones that are being copied.
    pub(super) fn copying(&mut self) -> Result<Vec<Ino>, Error> {
        Ok(self.clones()?.copying.clone())
    }

    /// Before a name in a directory changes, or what it names.
    pub(in crate::catalog::apply) fn preserve(&mut self, parent: Ino, name: &[u8]) -> Result<(), Error> {
        for clone in self.copying()? {
            if let Some(at) = self.reach(clone, parent)? {
                self.settle_name(clone, &at, name)?;
            }
        }
        Ok(())
    }

    /// Before the attributes of a directory change.
    pub(in crate::catalog::apply) fn preserve_directory(&mut self, ino: Ino) -> Result<(), Error> {
        for clone in self.copying()? {
            self.reach(clone, ino)?;
        }
        Ok(())
    }

    /// Before a file of several names changes in place.
    pub(in crate::catalog::apply) fn preserve_linked(&mut self, ino: Ino, own: &InodeAttrs) -> Result<(), Error> {
        for clone in self.copying()? {
            let is_due = self.exists("SELECT 1 FROM cloning WHERE clone=? LIMIT 1", [sql(clone.0)])?;
            if is_due && !self.exists("SELECT 1 FROM kept WHERE clone=? AND ino=?", [sql(clone.0), sql(ino.0)])? {
                let (body, form) = self.shown_body(ino)?;
                let insert = "INSERT INTO kept(clone, ino, body, form, attrs) VALUES(?, ?, ?, ?, ?)";
                let owner = body.map_or(0, |body| sql(body.0));
                self.run(insert, params![sql(clone.0), sql(ino.0), owner, form as i64, own.encode()])?;
                body.map_or(Ok(()), |body| self.add_use(body))?;
            }
        }
        Ok(())
    }

    /// Before files that a session has not published show themselves, as it ends.
    pub(in crate::catalog::apply) fn preserve_unpublished(&mut self, session: SessionId) -> Result<(), Error> {
        if self.copying()?.is_empty() {
            return Ok(());
        }
        let query = "SELECT ino FROM opened WHERE session=? AND published=0 ORDER BY ino";
        let unpublished = self.all(query, [sql(session.0)], |row| Ok(Ino(unsql(row.get(0)?))))?;
        unpublished.into_iter().try_for_each(|ino| self.preserve_hidden(ino))
    }

    /// Before a file that may not be published shows itself.
    pub(in crate::catalog::apply) fn preserve_hidden(&mut self, ino: Ino) -> Result<(), Error> {
        if !self.copying()?.is_empty()
            && self.node(ino)?.is_some_and(|node| node.nlink > 0)
            && let Some((parent, name)) = self.inode_attrs(ino)?.home
        {
            self.preserve(parent, &name)?;
        }
        Ok(())
    }

    /// Whether a directory lies in what is being erased.
    pub(in crate::catalog::apply) fn is_detached(&mut self, mut ino: Ino) -> Result<bool, Error> {
        if !self.clones()?.is_erasing {
            return Ok(false);
        }
        let query = "SELECT parent, name=x'' FROM dir WHERE ino=? AND parent<>0";
        while let Some((parent, is_nameless)) =
            self.find(query, [sql(ino.0)], |row| Ok((Ino(unsql(row.get(0)?)), row.get::<_, bool>(1)?)))?
        {
            if is_nameless {
                return Ok(true);
            }
            ino = parent;
        }
        Ok(false)
    }

    /// The node whose bytes a node shows, and how they are kept; none: it has no bytes.
    pub(super) fn shown_body(&self, ino: Ino) -> Result<(Option<Ino>, Form), Error> {
        let missing = |ino: Ino| Error::Inconsistent(format!("node {ino} is named or shown, and missing"));
        let mut node = self.node(ino)?.ok_or_else(|| missing(ino))?;
        if let Some(owner) = node.owner {
            node = self.node(owner)?.ok_or_else(|| missing(owner))?;
        }
        Ok(((node.form != Form::Empty).then_some(node.id), node.form))
    }

    /// A directory in a clone's list, put there if it was part of what is copied and is not there yet.
    fn reach(&mut self, clone: Ino, directory: Ino) -> Result<Option<Reached>, Error> {
        let (mut at, mut below) = (directory, Vec::new());
        let mut found = loop {
            if let Some(found) = self.reached(clone, at)? {
                break found;
            }
            let query = "SELECT parent, name FROM dir WHERE ino=? AND parent<>0";
            let above =
                self.find(query, [sql(at.0)], |row| Ok((Ino(unsql(row.get(0)?)), row.get::<_, Vec<u8>>(1)?)))?;
            let Some((parent, name)) = above else { return Ok(None) };
            below.push((at, name));
            at = parent;
        };
        while let Some((child, name)) = below.pop() {
            self.settle_name(clone, &found, &name)?;
            match self.reached(clone, child)? {
                Some(next) => found = next,
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    fn reached(&self, clone: Ino, source: Ino) -> Result<Option<Reached>, Error> {
        let query = "SELECT source, target, next, depth, key_bytes FROM cloning WHERE clone=? AND source=?";
        self.find(query, [sql(clone.0), sql(source.0)], Reached::read)
    }

    /// Copies what a name stands for, unless that was decided before.
    fn settle_name(&mut self, clone: Ino, at: &Reached, name: &[u8]) -> Result<(), Error> {
        if name < at.next.as_slice() || self.is_settled(clone, at.source, name)? {
            return Ok(());
        }
        let insert = "INSERT INTO settled(clone, source, name) VALUES(?, ?, ?)";
        self.run(insert, params![sql(clone.0), sql(at.source.0), name])?;
        let Some(found) = self.source_entry(at.source, name)? else { return Ok(()) };
        let missing = || Error::Inconsistent(format!("clone {clone} is being copied and has no row"));
        let mut job: Job = self.job(clone)?.ok_or_else(missing)?;
        self.copy_entry(&mut job, at, &found)?;
        self.save_job(&job)
    }

    pub(super) fn is_settled(&self, clone: Ino, source: Ino, name: &[u8]) -> Result<bool, Error> {
        let query = "SELECT 1 FROM settled WHERE clone=? AND source=? AND name=?";
        self.exists(query, params![sql(clone.0), sql(source.0), name])
    }
}
