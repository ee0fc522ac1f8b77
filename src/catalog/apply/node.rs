//! Nodes and the counting of their uses.
//!
//! Invariants
//! - `refs` counts the uses of a node's own bytes: 1 while it is named or open, 1 per node that shows them, 1 per extent
//!   in them, 1 of an upload that was given up. `nlink` counts names.
//! - `body` names the node whose own bytes a node shows instead of bytes of its own. One that a file system changed
//!   while others used its bytes shows another's, and keeps its own for as long as those do.
//! - A use is taken at once and given back late: losing one appends to `dead`, and only the drain lowers the counts.
//!   So a row's counts are what they should be plus its rows in `dead`.
//! - `refs` of 0 stands only in a node that is being torn down: nobody may take a use of it any more.

use rusqlite::params;

use crate::catalog::query::form;
use crate::catalog::types::InodeAttrs;
use crate::catalog::{Attrs, Error, Refusal};
use crate::ids::Ino;

use super::{Decision, Step, sql, unsql};

/// How a node's content is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Empty = form::EMPTY as isize,
    Chunk = form::CHUNK as isize,
    Extents = form::EXTENTS as isize,
    Inline = form::INLINE as isize,
    Multipart = form::MULTIPART as isize,
}

impl Form {
    fn from_sql(found: i64) -> Result<Form, Error> {
        Ok(match found {
            form::EMPTY => Form::Empty,
            form::CHUNK => Form::Chunk,
            form::EXTENTS => Form::Extents,
            form::INLINE => Form::Inline,
            form::MULTIPART => Form::Multipart,
            _ => return Err(Error::Undecodable { what: "node's form" }),
        })
    }
}

/// What a node loses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// A share of its body, an extent in it, or an upload.
    Body,
    /// A name.
    Name,
    /// Nothing more; but of its own bytes, which nobody uses, some rows are left.
    Rows,
}

/// A node's counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Node {
    pub(super) id: Ino,
    pub(super) nlink: u64,
    pub(super) refs: u64,
    /// The node whose body it shares.
    pub(super) owner: Option<Ino>,
    pub(super) form: Form,
    /// Whether it is a chunk itself.
    pub(super) has_place: bool,
}

/// A node to insert, with one use.
pub(super) struct NewNode<'a> {
    pub(super) id: Ino,
    pub(super) nlink: u64,
    pub(super) owner: Option<Ino>,
    pub(super) form: Form,
    pub(super) attrs: Option<&'a [u8]>,
    pub(super) place: Option<&'a [u8]>,
}

impl Step<'_> {
    pub(super) fn node(&self, id: Ino) -> Result<Option<Node>, Error> {
        let query = "SELECT nlink, refs, body, form, place IS NOT NULL FROM node WHERE id=?";
        let found =
            self.find(query, [sql(id.0)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?;
        let Some((nlink, refs, body, form, has_place)) = found else { return Ok(None) };
        let owner = (body != 0).then_some(Ino(unsql(body)));
        let form = Form::from_sql(form)?;
        Ok(Some(Node { id, nlink: unsql(nlink), refs: unsql(refs), owner, form, has_place }))
    }

    /// The node whose body `id` shows, if one may still take a use of it.
    pub(super) fn body_owner(&self, id: Ino) -> Decision<Node> {
        let mut node = self.node(id)?.ok_or(Refusal::SourceGone)?;
        if let Some(owner) = node.owner.filter(|_| node.refs > 0) {
            node = self.node(owner)?.ok_or(Refusal::SourceGone)?;
        }
        if node.refs == 0 { Err(Refusal::SourceGone.into()) } else { Ok(node) }
    }

    pub(super) fn add_use(&self, id: Ino) -> Result<(), Error> {
        self.run("UPDATE node SET refs=refs+1 WHERE id=?", [sql(id.0)])?;
        Ok(())
    }

    /// Notes that a node has lost a use.
    pub(super) fn lose(&mut self, id: Ino, lost: Use) -> Result<(), Error> {
        let seq = self.state.take_dead();
        self.run("INSERT INTO dead(seq, id, named) VALUES(?, ?, ?)", [sql(seq), sql(id.0), lost as i64])?;
        Ok(())
    }

    /// Refuses an id that is not leased to the session, or has a node.
    pub(super) fn check_fresh(&mut self, id: Ino) -> Decision<()> {
        self.check_leased(id)?;
        match self.exists("SELECT 1 FROM node WHERE id=?", [sql(id.0)])? {
            true => Err(Refusal::NotLeased(id).into()),
            false => Ok(()),
        }
    }

    /// Inserts a node with one use. A command's first write: it refuses an id that has a node.
    pub(super) fn insert_fresh(&self, node: &NewNode<'_>) -> Decision<()> {
        let insert =
            "INSERT OR IGNORE INTO node(id, nlink, refs, body, form, attrs, place) VALUES(?, ?, 1, ?, ?, ?, ?)";
        let body = node.owner.map_or(0, |owner| sql(owner.0));
        let inserted =
            self.run(insert, params![sql(node.id.0), sql(node.nlink), body, node.form as i64, node.attrs, node.place])?;
        if inserted == 0 { Err(Refusal::NotLeased(node.id).into()) } else { Ok(()) }
    }

    pub(super) fn attrs(&self, id: Ino) -> Result<Attrs, Error> {
        Ok(self.inode_attrs(id)?.attrs)
    }

    pub(super) fn inode_attrs(&self, id: Ino) -> Result<InodeAttrs, Error> {
        let found =
            self.find("SELECT attrs FROM node WHERE id=?", [sql(id.0)], |row| row.get::<_, Option<Vec<u8>>>(0))?;
        match found {
            Some(Some(bytes)) => InodeAttrs::decode(&bytes),
            Some(None) => Ok(InodeAttrs::default()),
            None => Err(Error::Inconsistent(format!("node {id} is named and missing"))),
        }
    }

    pub(super) fn set_attrs(&mut self, id: Ino, attrs: &InodeAttrs) -> Result<(), Error> {
        self.tell_inode(id);
        self.run("UPDATE node SET attrs=?2 WHERE id=?1", params![sql(id.0), attrs.encode()])?;
        Ok(())
    }
}
