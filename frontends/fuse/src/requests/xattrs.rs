//! Extended attributes. `user.`, `trusted.` and `security.` are kept, but for labels of SELinux; `system.`, which means ACLs,
//! is not there.
//!
//! The kernel has checked who may touch which; all that is left to us is that only root is shown names of `trusted.`.

use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use predastore::ids::Ino;
use predastore::object::tree::XattrMode;

use super::{Call, Requests};
use crate::namespace::Namespace;
use crate::patience::Repeat;

const KEPT: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
const TRUSTED: &[u8] = b"trusted.";

/// The kernel asks for it before each write, to know whether it must go.
const CAPABILITY: &[u8] = b"security.capability";

/// `ls -l` asks for it of each file, unless it hears that there are none here.
const LABEL: &[u8] = b"security.selinux";

/// `flags` of `setxattr(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Replacing(pub(crate) i32);

impl<T: Namespace> Requests<T> {
    /// An attribute's value.
    pub(crate) async fn xattr(&self, call: &Call, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Errno> {
        kept(name)?;
        if self.plain_files.get(ino).is_some() {
            return Err(Errno::ENODATA);
        }
        if name == CAPABILITY {
            let asked = Instant::now();
            let names = self.ask(call, ino, Repeat::Safe, || self.tree.xattrs(ino)).await?;
            if names.is_empty() {
                self.plain_files.put(ino, (), asked);
                return Err(Errno::ENODATA);
            }
        }
        let value = self.ask(call, ino, Repeat::Safe, || self.tree.xattr(ino, name)).await?;
        value.ok_or(Errno::ENODATA)
    }

    /// All names, each with a NUL behind it.
    pub(crate) async fn xattr_names(&self, call: &Call, ino: Ino) -> Result<Vec<u8>, Errno> {
        let names = self.ask(call, ino, Repeat::Safe, || self.tree.xattrs(ino)).await?;
        let is_shown = |name: &Vec<u8>| call.uid == 0 || !name.starts_with(TRUSTED);
        Ok(names.into_iter().filter(is_shown).flat_map(|name| name.into_iter().chain([0])).collect())
    }

    /// Sets an attribute.
    pub(crate) async fn set_xattr(
        &self,
        call: &Call,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        replacing: Replacing,
    ) -> Result<(), Errno> {
        kept(name)?;
        self.may_change()?;
        self.adopt(call, ino).await?;
        let mode = match replacing.0 {
            0 => XattrMode::Any,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return Err(Errno::EINVAL),
        };
        let outcome = self.ask(call, ino, Repeat::Known, || self.tree.set_xattr(ino, name, value, mode)).await;
        self.plain_files.remove(ino);
        outcome
    }

    /// Removes an attribute.
    pub(crate) async fn remove_xattr(&self, call: &Call, ino: Ino, name: &[u8]) -> Result<(), Errno> {
        kept(name)?;
        self.may_change()?;
        self.ask(call, ino, Repeat::Known, || self.tree.remove_xattr(ino, name)).await
    }
}

fn kept(name: &[u8]) -> Result<(), Errno> {
    let is_kept = KEPT.iter().any(|prefix| name.starts_with(prefix)) && name != LABEL;
    if is_kept { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}
