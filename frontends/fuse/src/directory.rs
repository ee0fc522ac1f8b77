//! A page of a listing.
//!
//! A listing goes on behind the entry that its cookie names. If the cookie is not remembered (this process is younger than
//! the listing, or the listing was away for long), the directory is walked until a name has that cookie. If none has, the
//! entry was removed meanwhile and where it was cannot be told from a hash: the listing starts again, so that nothing is left
//! out, and what it had given already may come twice. `rm -r` needs just that.

use predastore::catalog::{FileKind, Stat, TreeEntry};
use predastore::ids::Ino;
use predastore::object::Error;

use crate::cookies::{Cookies, DOT, DOT_DOT, LARGEST_PAGE};
use crate::namespace::Namespace;

/// An entry as a listing gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) cookie: u64,
    pub(crate) ino: Ino,
    pub(crate) kind: FileKind,
    /// None: `.` and `..`.
    pub(crate) stat: Option<Stat>,
}

/// Entries behind `cookie`, 0 for the start; none: that was all. More than fit into an answer may come.
///
/// # Errors
/// Those of `list` and `parent`.
pub(crate) async fn page<T: Namespace>(
    tree: &T,
    cookies: &Cookies,
    directory: Ino,
    cookie: u64,
) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    if cookie < DOT {
        entries.push(dots(b".", DOT, directory));
    }
    if cookie < DOT_DOT {
        entries.push(dots(b"..", DOT_DOT, tree.parent(directory).await?));
    }
    let after = place(tree, cookies, directory, cookie).await?;
    let listed = tree.list(directory, after.as_deref(), cookies.page(directory)).await?;
    let given = cookies.of(directory, listed.iter().map(|entry| entry.name.as_slice()));
    entries.extend(listed.into_iter().zip(given).map(|(entry, cookie)| named(entry, cookie)));
    Ok(entries)
}

fn dots(name: &[u8], cookie: u64, ino: Ino) -> Entry {
    Entry { name: name.to_vec(), cookie, ino, kind: FileKind::Directory, stat: None }
}

fn named(TreeEntry { name, stat }: TreeEntry, cookie: u64) -> Entry {
    Entry { name, cookie, ino: stat.ino, kind: stat.kind, stat: Some(stat) }
}

/// The name that `cookie` stands behind; none: the start.
async fn place<T: Namespace>(
    tree: &T,
    cookies: &Cookies,
    directory: Ino,
    cookie: u64,
) -> Result<Option<Box<[u8]>>, Error> {
    if cookie <= DOT_DOT {
        return Ok(None);
    }
    match cookies.name(directory, cookie) {
        Some(name) => Ok(Some(name)),
        None => walk(tree, cookies, directory, cookie).await,
    }
}

async fn walk<T: Namespace>(
    tree: &T,
    cookies: &Cookies,
    directory: Ino,
    cookie: u64,
) -> Result<Option<Box<[u8]>>, Error> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let mut page = tree.list(directory, after.as_deref(), LARGEST_PAGE).await?;
        if let Some(found) = page.iter().position(|entry| cookies.is_of(cookie, &entry.name)) {
            return Ok(Some(page.swap_remove(found).name.into()));
        }
        let Some(last) = page.pop() else { return Ok(None) };
        after = Some(last.name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::cookies::tests::colliding;
    use crate::model::Model;

    /// What happens between two pages of a listing.
    #[derive(Clone, Debug)]
    enum Step {
        /// The kernel takes so many entries of a page, or all.
        Take(usize),
        /// So many of the entries that were given last are removed, as `rm -r` does.
        RemoveGiven(usize),
        /// This one is removed, wherever it is.
        Remove(u8),
        Add(u8),
        /// Another listing of the same directory reads its first page.
        Other,
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (1usize..40).prop_map(Step::Take),
            2 => (1usize..20).prop_map(Step::RemoveGiven),
            1 => any::<u8>().prop_map(Step::Remove),
            1 => any::<u8>().prop_map(Step::Add),
            1 => Just(Step::Other),
        ]
    }

    fn name(number: u8) -> Vec<u8> {
        format!("name-{number}").into_bytes()
    }

    /// A directory, a listing of it, and what the listing has to give.
    struct Listing {
        model: Model,
        cookies: Cookies,
        fresh: fn() -> Cookies,
        cookie: u64,
        given: Vec<Vec<u8>>,
        /// Names that were there all the time.
        constant: BTreeSet<Vec<u8>>,
        done: bool,
    }

    impl Listing {
        fn new(fresh: fn() -> Cookies, names: &BTreeSet<u8>) -> Self {
            let model = Model::new();
            let constant: BTreeSet<_> = names.iter().map(|number| name(*number)).collect();
            for name in &constant {
                model.add_file(model.root(), name);
            }
            Listing { model, cookies: fresh(), fresh, cookie: 0, given: Vec::new(), constant, done: false }
        }

        async fn step(&mut self, step: &Step) {
            match step {
                Step::Take(count) => self.take(*count).await,
                Step::RemoveGiven(count) => {
                    let last: Vec<_> = self.given.iter().rev().take(*count).cloned().collect();
                    last.iter().for_each(|name| self.remove(name));
                }
                Step::Remove(number) => self.remove(&name(*number)),
                Step::Add(number) => self.model.add_file(self.model.root(), &name(*number)),
                Step::Other => drop(page(&self.model, &self.cookies, self.model.root(), 0).await.unwrap()),
                Step::Restart => self.cookies = (self.fresh)(),
            }
        }

        fn remove(&mut self, name: &[u8]) {
            self.model.remove(self.model.root(), name);
            self.constant.remove(name);
        }

        async fn take(&mut self, count: usize) {
            let root = self.model.root();
            let page = page(&self.model, &self.cookies, root, self.cookie).await.unwrap();
            self.done = page.is_empty();
            let (taken, listed) = (count.min(page.len()), page.len());
            self.cookies.fitted(root, taken, listed);
            for entry in page.into_iter().take(taken) {
                assert!((1..1 << 63).contains(&entry.cookie));
                self.cookie = entry.cookie;
                self.given.push(entry.name);
            }
        }

        async fn finish(&mut self) {
            while !self.done {
                self.take(7).await;
            }
        }

        fn times_given(&self) -> BTreeMap<&[u8], usize> {
            let mut times = BTreeMap::new();
            self.given.iter().for_each(|name| *times.entry(name.as_slice()).or_default() += 1);
            times
        }
    }

    fn run<F: Future<Output = ()>>(future: F) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
    }

    proptest! {
        #[test]
        fn a_listing_gives_each_constant_name_once_even_where_hashes_collide(
            names in prop::collection::btree_set(any::<u8>(), 0..200),
            steps in prop::collection::vec(step(), 0..40),
        ) {
            for fresh in [Cookies::default as fn() -> Cookies, colliding] {
                run(async {
                    let mut listing = Listing::new(fresh, &names);
                    for step in &steps {
                        listing.step(step).await;
                    }
                    listing.finish().await;
                    let times = listing.times_given();
                    assert!(times.values().all(|times| *times == 1), "something came twice: {times:?}");
                    assert!(listing.constant.iter().all(|name| times.contains_key(name.as_slice())));
                    assert_eq!(listing.given.first().map(Vec::as_slice), Some(b".".as_slice()));
                });
            }
        }

        #[test]
        fn a_restart_loses_nothing_and_repeats_only_where_the_last_name_given_is_gone(
            names in prop::collection::btree_set(any::<u8>(), 0..200),
            steps in prop::collection::vec(prop_oneof![4 => step(), 1 => Just(Step::Restart)], 0..40),
        ) {
            run(async {
                let mut listing = Listing::new(Cookies::default, &names);
                let mut may_repeat = false;
                for step in &steps {
                    listing.step(step).await;
                    let last = listing.given.last().cloned().unwrap_or_default();
                    may_repeat |= !listing.model.has(listing.model.root(), &last);
                }
                listing.finish().await;
                let times = listing.times_given();
                assert!(listing.constant.iter().all(|name| times.contains_key(name.as_slice())));
                assert!(may_repeat || times.values().all(|times| *times == 1), "{times:?}");
            });
        }
    }

    #[test]
    fn the_dots_come_first_and_can_be_gone_behind() {
        run(async {
            let (model, cookies) = (Model::new(), Cookies::default());
            let below = model.add_directory(model.root(), b"below");
            model.add_file(below, b"file");
            let names = |entries: Vec<Entry>| -> Vec<_> {
                entries.into_iter().map(|entry| (String::from_utf8(entry.name).unwrap(), entry.ino)).collect()
            };
            let all = names(page(&model, &cookies, below, 0).await.unwrap());
            assert_eq!(all[..2], [(".".to_owned(), below), ("..".to_owned(), model.root())]);
            assert_eq!(all.len(), 3);
            assert_eq!(names(page(&model, &cookies, below, DOT).await.unwrap()), all[1..]);
            assert_eq!(names(page(&model, &cookies, below, DOT_DOT).await.unwrap()), all[2..]);
            let root = names(page(&model, &cookies, model.root(), DOT).await.unwrap());
            assert_eq!(root[0], ("..".to_owned(), model.root()));
        });
    }
}
