//! The tree as a trait, so that this frontend runs over a model in tests.
//!
//! The contract of each call is that of the method of the same name of [`Tree`].

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use predastore::catalog::{RenameMode, Stat, TreeEntry};
use predastore::ids::Ino;
use predastore::object::Error;
use predastore::object::tree::{Allocate, Lock, NewNode, Seek, SetStat, Tree, TreeSpace, WriteRoom, XattrMode};

macro_rules! namespace {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        /// What this frontend asks of the core.
        #[allow(missing_docs)]
        pub trait Namespace: Clone + Send + Sync + 'static {
            fn root(&self) -> Ino;
            fn read_only(&self) -> bool;
            fn answered(&self, request: u64);
            fn accessed(&self, ino: Ino);
            $(fn $name(&self, $($arg: $type),*) -> impl Future<Output = Result<$out, Error>> + Send;)*
        }

        impl Namespace for Tree {
            fn root(&self) -> Ino {
                Tree::root(self)
            }

            fn read_only(&self) -> bool {
                Tree::read_only(self)
            }

            fn answered(&self, request: u64) {
                Tree::answered(self, request);
            }

            fn accessed(&self, ino: Ino) {
                Tree::accessed(self, ino);
            }

            $(async fn $name(&self, $($arg: $type),*) -> Result<$out, Error> {
                Tree::$name(self, $($arg),*).await
            })*
        }
    };
}

namespace! {
    fn lookup(parent: Ino, name: &[u8]) -> Stat;
    fn stat(ino: Ino) -> Stat;
    fn set_stat(ino: Ino, set: SetStat) -> Stat;
    fn make(parent: Ino, name: &[u8], new: NewNode) -> Stat;
    fn make_open(parent: Ino, name: &[u8], new: NewNode) -> Stat;
    fn link(ino: Ino, parent: Ino, name: &[u8]) -> Stat;
    fn unlink(parent: Ino, name: &[u8]) -> ();
    fn remove_directory(parent: Ino, name: &[u8]) -> ();
    fn rename(from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> ();
    fn read_link(ino: Ino) -> Vec<u8>;
    fn list(directory: Ino, after: Option<&[u8]>, limit: usize) -> Vec<TreeEntry>;
    fn parent(directory: Ino) -> Ino;
    fn open(ino: Ino, truncate: bool) -> Stat;
    fn release(ino: Ino) -> ();
    fn release_former(ino: Ino) -> ();
    fn read(ino: Ino, offset: u64, len: u64) -> Bytes;
    fn hold_write(len_bytes: u64) -> WriteRoom;
    fn write(ino: Ino, offset: u64, data: Bytes) -> ();
    fn append(ino: Ino, data: Bytes) -> u64;
    fn flush(ino: Ino) -> ();
    fn allocate(ino: Ino, range: Range<u64>, mode: Allocate) -> ();
    fn seek(ino: Ino, offset: u64, what: Seek) -> u64;
    fn copy_range(from: (Ino, u64), to: (Ino, u64), len: u64) -> u64;
    fn xattr(ino: Ino, name: &[u8]) -> Option<Vec<u8>>;
    fn xattrs(ino: Ino) -> Vec<Vec<u8>>;
    fn set_xattr(ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> ();
    fn remove_xattr(ino: Ino, name: &[u8]) -> ();
    fn space() -> TreeSpace;
    fn lock(ino: Ino, wanted: Lock, patience: Duration) -> ();
    fn unlock(ino: Ino, owner: u64, range: Range<u64>, opened: Option<u64>) -> ();
    fn lock_in_the_way(ino: Ino, wanted: Lock) -> Option<Lock>;
    fn caught_up() -> ();
}
