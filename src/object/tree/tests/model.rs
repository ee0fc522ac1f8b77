//! Random operations of two mounts and of S3 against a plain model: keys with bytes, and directories that were made.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::*;
use crate::catalog::{ListQuery, Versioning};
use crate::object::Config;
use crate::object::tests::{delete_key, pattern, put_of, target};

/// A small generator; its seed is printed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound
    }

    fn name(&mut self) -> &'static str {
        ["a", "b", "c", "a-b", "a0"][self.below(5)]
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        (0..depth).map(|_| self.name()).collect::<Vec<_>>().join("/")
    }

    fn len(&mut self) -> usize {
        [0, 1, 100, 8192, 8193, 20_000, 65_536, 150_000][self.below(8)]
    }
}

type Content = Rc<RefCell<Vec<u8>>>;

/// What should be.
#[derive(Default)]
struct Model {
    keys: BTreeMap<String, Content>,
    /// Directories with a marker, with their `/`.
    explicit: BTreeSet<String>,
    is_versioned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Nothing,
    File,
    Directory,
}

impl Model {
    fn is_directory(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        path.is_empty()
            || self.explicit.contains(&prefix)
            || self.keys.keys().chain(&self.explicit).any(|key| key.starts_with(&prefix))
    }

    fn find(&self, path: &str) -> Found {
        if self.is_directory(path) {
            Found::Directory
        } else if self.keys.contains_key(path) {
            Found::File
        } else {
            Found::Nothing
        }
    }

    /// What a walk to `path` finds: through directories only.
    fn walk(&self, path: &str) -> Result<Found, &'static str> {
        let parts: Vec<&str> = path.split('/').collect();
        for depth in 1..parts.len() {
            match self.find(&parts[..depth].join("/")) {
                Found::Directory => {}
                Found::File => return Err("NotDirectory"),
                Found::Nothing => return Err("NoEntry"),
            }
        }
        Ok(self.find(path))
    }

    fn make_explicit(&mut self, directory: &str) {
        if !directory.is_empty() {
            self.explicit.insert(format!("{directory}/"));
        }
    }

    fn is_empty(&self, directory: &str) -> bool {
        let prefix = format!("{directory}/");
        !self.keys.keys().any(|key| key.starts_with(&prefix))
            && !self.explicit.iter().any(|key| key.starts_with(&prefix) && *key != prefix)
    }

    /// Entries of a directory.
    fn entries(&self, directory: &str) -> BTreeMap<String, Found> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let mut entries = BTreeMap::new();
        for key in self.keys.keys().chain(&self.explicit) {
            let Some(rest) = key.strip_prefix(&prefix).filter(|rest| !rest.is_empty()) else { continue };
            match rest.split_once('/') {
                Some((name, _)) => drop(entries.insert(name.to_owned(), Found::Directory)),
                None => drop(entries.entry(rest.to_owned()).or_insert(Found::File)),
            }
        }
        entries
    }

    fn rename(&mut self, from: &str, to: &str) {
        match self.find(from) {
            Found::File => {
                let content = self.keys.remove(from).unwrap();
                self.keys.insert(to.to_owned(), content);
            }
            _ => {
                self.explicit.remove(&format!("{to}/"));
                let prefix = format!("{from}/");
                let moved = |key: &String| format!("{to}/{}", key.strip_prefix(&prefix).unwrap());
                let keys: Vec<String> = self.keys.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
                for key in keys {
                    let content = self.keys.remove(&key).unwrap();
                    self.keys.insert(moved(&key), content);
                }
                let explicit: Vec<String> =
                    self.explicit.iter().filter(|key| key.starts_with(&prefix)).cloned().collect();
                for key in explicit {
                    self.explicit.remove(&key);
                    self.explicit.insert(moved(&key));
                }
            }
        }
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The name of a refusal.
fn told<T>(result: Result<T, Error>) -> Result<(), String> {
    match result {
        Ok(_) => Ok(()),
        Err(Error::Refused(refusal)) => Err(format!("{refusal:?}")),
        Err(other) => panic!("{other}"),
    }
}

struct Run {
    bed: Bed,
    trees: [Tree; 2],
    model: Model,
    dice: Dice,
    salt: u64,
}

impl Run {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.salt += 1;
        pattern(len, self.salt)
    }

    /// The directory of a path in the tree, if the model says that it can be reached.
    async fn parent(&self, tree: &Tree, path: &str) -> Result<Ino, String> {
        let (directory, _) = split(path);
        match tree.walk(directory).await {
            Ok(stat) if stat.kind == FileKind::Directory => Ok(stat.ino),
            Ok(_) => Err("NotDirectory".into()),
            Err(error) => told::<()>(Err(error)).map(|()| Ino(0)),
        }
    }

    async fn step(&mut self) -> String {
        let tree = self.trees[self.dice.below(2)].clone();
        let path = self.dice.path();
        let (directory, name) = (split(&path).0.to_owned(), split(&path).1.to_owned());
        let reached = self.model.walk(&path).map_err(str::to_owned);
        let choice = self.dice.below(12);
        let (what, expected, found): (String, Result<(), String>, Result<(), String>) = match choice {
            0 => {
                let found = match self.parent(&tree, &path).await {
                    Ok(parent) => told(tree.make(parent, name.as_bytes(), super::directory()).await),
                    Err(error) => Err(error),
                };
                let expected = match reached {
                    Ok(Found::Nothing) => {
                        self.model.make_explicit(&directory);
                        self.model.make_explicit(&path);
                        Ok(())
                    }
                    Ok(_) => Err("EntryExists".into()),
                    Err(error) => Err(error),
                };
                (format!("mkdir {path}"), expected, found)
            }
            1 | 2 => {
                let len = self.dice.len();
                let bytes = self.bytes(len);
                let found = match self.parent(&tree, &path).await {
                    Ok(_) if reached == Ok(Found::Directory) => Err("IsDirectory".into()),
                    Ok(parent) => told(tree.save(parent, &name, &bytes).await),
                    Err(error) => Err(error),
                };
                let expected = match reached {
                    Ok(Found::Directory) => Err("IsDirectory".into()),
                    Ok(Found::File) => {
                        *self.model.keys[&path].borrow_mut() = bytes;
                        Ok(())
                    }
                    Ok(Found::Nothing) => {
                        self.model.make_explicit(&directory);
                        self.model.keys.insert(path.clone(), Rc::new(RefCell::new(bytes)));
                        Ok(())
                    }
                    Err(error) => Err(error),
                };
                (format!("save {path} of {len}"), expected, found)
            }
            3 | 4 => {
                let (at, len) = (self.dice.len(), self.dice.len().max(1));
                let patch = self.bytes(len);
                let stat = tree.walk(&path).await;
                let found = match stat {
                    Ok(stat) if stat.kind == FileKind::File => {
                        tree.write(stat.ino, at as u64, patch.clone().into()).await.unwrap();
                        told(tree.flush(stat.ino).await)
                    }
                    Ok(_) => Err("IsDirectory".into()),
                    Err(error) => told::<()>(Err(error)),
                };
                let expected = match reached {
                    Ok(Found::File) => {
                        let mut bytes = self.model.keys[&path].borrow_mut();
                        let end = bytes.len().max(at + len);
                        bytes.resize(end, 0);
                        bytes[at..at + len].copy_from_slice(&patch);
                        Ok(())
                    }
                    Ok(Found::Directory) => Err("IsDirectory".into()),
                    Ok(Found::Nothing) => Err("NoEntry".into()),
                    Err(error) => Err(error),
                };
                (format!("write {path} {at}+{len}"), expected, found)
            }
            5 => {
                let size = self.dice.len();
                let found = match tree.walk(&path).await {
                    Ok(stat) => told(
                        tree.set_stat(stat.ino, SetStat { size_bytes: Some(size as u64), ..SetStat::default() }).await,
                    ),
                    Err(error) => told::<()>(Err(error)),
                };
                let expected = match reached {
                    Ok(Found::File) => {
                        self.model.keys[&path].borrow_mut().resize(size, 0);
                        Ok(())
                    }
                    Ok(Found::Directory) => Err("IsDirectory".into()),
                    Ok(Found::Nothing) => Err("NoEntry".into()),
                    Err(error) => Err(error),
                };
                (format!("truncate {path} to {size}"), expected, found)
            }
            6 => {
                let found = match self.parent(&tree, &path).await {
                    Ok(parent) => told(tree.unlink(parent, name.as_bytes()).await),
                    Err(error) => Err(error),
                };
                let expected = match reached {
                    Ok(Found::File) => {
                        self.model.make_explicit(&directory);
                        self.model.keys.remove(&path);
                        Ok(())
                    }
                    Ok(Found::Directory) => Err("IsDirectory".into()),
                    Ok(Found::Nothing) => Err("NoEntry".into()),
                    Err(error) => Err(error),
                };
                (format!("unlink {path}"), expected, found)
            }
            7 => {
                let found = match self.parent(&tree, &path).await {
                    Ok(parent) => told(tree.remove_directory(parent, name.as_bytes()).await),
                    Err(error) => Err(error),
                };
                let expected = match reached {
                    Ok(Found::Directory) if !self.model.is_empty(&path) => Err("DirectoryNotEmpty".into()),
                    Ok(Found::Directory) => {
                        self.model.make_explicit(&directory);
                        self.model.explicit.remove(&format!("{path}/"));
                        Ok(())
                    }
                    Ok(Found::File) => Err("NotDirectory".into()),
                    Ok(Found::Nothing) => Err("NoEntry".into()),
                    Err(error) => Err(error),
                };
                (format!("rmdir {path}"), expected, found)
            }
            8 => {
                let to = self.dice.path();
                let found = match (self.parent(&tree, &path).await, self.parent(&tree, &to).await) {
                    (Ok(from), Ok(parent)) => {
                        let to = (parent, split(&to).1.as_bytes());
                        told(tree.rename((from, name.as_bytes()), to, RenameMode::Replace).await)
                    }
                    (Err(error), _) | (_, Err(error)) => Err(error),
                };
                let expected = self.rename(&path, &to);
                (format!("rename {path} to {to}"), expected, found)
            }
            9 => {
                let to = self.dice.path();
                let source = tree.walk(&path).await;
                let found = match (source, self.parent(&tree, &to).await) {
                    (Ok(stat), Ok(parent)) => told(tree.link(stat.ino, parent, split(&to).1.as_bytes()).await),
                    (Err(error), _) => told::<()>(Err(error)),
                    (_, Err(error)) => Err(error),
                };
                let expected = match (reached, self.model.walk(&to)) {
                    (Err(error), _) => Err(error),
                    (Ok(Found::Nothing), _) => Err("NoEntry".into()),
                    (_, Err(error)) => Err(error.into()),
                    (Ok(Found::Directory), _) => Err("NotPermitted".into()),
                    _ if self.model.is_versioned => Err("NotPermitted".into()),
                    (Ok(Found::File), Ok(Found::Nothing)) => {
                        self.model.make_explicit(split(&to).0);
                        let content = self.model.keys[&path].clone();
                        self.model.keys.insert(to.clone(), content);
                        Ok(())
                    }
                    (Ok(Found::File), Ok(_)) => Err("EntryExists".into()),
                };
                (format!("link {path} to {to}"), expected, found)
            }
            10 => {
                let len = self.dice.len();
                let bytes = self.bytes(len);
                self.bed.put(&path, &bytes).await;
                self.model.keys.insert(path.clone(), Rc::new(RefCell::new(bytes)));
                (format!("PUT {path} of {len}"), Ok(()), Ok(()))
            }
            _ if self.dice.below(2) == 0 => {
                self.bed.store.delete("b", vec![delete_key(&path)]).await.unwrap();
                self.model.keys.remove(&path);
                (format!("DELETE {path}"), Ok(()), Ok(()))
            }
            _ => {
                let to = self.dice.path();
                if let Some(content) = self.model.keys.get(&path) {
                    let bytes = content.borrow().clone();
                    let version = self.bed.store.head(&target(&path)).await.unwrap().version;
                    self.bed.store.copy(&version, put_of(&to), Vec::new()).await.unwrap();
                    self.model.keys.insert(to.clone(), Rc::new(RefCell::new(bytes)));
                }
                (format!("COPY {path} to {to}"), Ok(()), Ok(()))
            }
        };
        assert_eq!(found, expected, "{what}");
        what
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), String> {
        let source = self.model.walk(from)?;
        let target = self.model.walk(to);
        if target == Err("NotDirectory") || target == Err("NoEntry") {
            target?;
        }
        let target = target.unwrap();
        match (source, target) {
            (Found::Nothing, _) => return Err("NoEntry".into()),
            (Found::Directory, _) if self.model.is_versioned => return Err("CrossDevice".into()),
            (Found::Directory, _) if to.starts_with(&format!("{from}/")) => return Err("Cycle".into()),
            _ if from == to => return Ok(()),
            (Found::Directory, Found::File) => return Err("NotDirectory".into()),
            (Found::File, Found::Directory) => return Err("IsDirectory".into()),
            (Found::Directory, Found::Directory) if !self.model.is_empty(to) => {
                return Err("DirectoryNotEmpty".into());
            }
            (Found::File, Found::File) if Rc::ptr_eq(&self.model.keys[from], &self.model.keys[to]) => return Ok(()),
            _ => {}
        }
        self.model.make_explicit(split(from).0);
        self.model.make_explicit(split(to).0);
        self.model.rename(from, to);
        Ok(())
    }

    /// Compares everything that can be seen with the model.
    async fn compare(&mut self) {
        let tree = self.trees[self.dice.below(2)].clone();
        let mut left = vec![(String::new(), tree.root())];
        while let Some((path, ino)) = left.pop() {
            let mut found = BTreeMap::new();
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = tree.list(ino, after.as_deref(), 2).await.unwrap();
                let Some(last) = page.last() else { break };
                after = Some(last.key());
                for entry in page {
                    let name = String::from_utf8(entry.name.clone()).unwrap();
                    let kind = if entry.stat.kind == FileKind::Directory { Found::Directory } else { Found::File };
                    assert!(found.insert(name.clone(), kind).is_none(), "{name} twice in {path}");
                    let full = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                    assert_eq!(tree.stat(entry.stat.ino).await.unwrap(), entry.stat, "{full}");
                    match kind {
                        Found::Directory => left.push((full, entry.stat.ino)),
                        _ => self.compare_file(&tree, &full, entry.stat).await,
                    }
                }
            }
            assert_eq!(found, self.model.entries(&path), "entries of {path:?}");
        }
        let (_, page) = self.bed.store.list("b", ListQuery { limit: 1000, ..ListQuery::default() }).await.unwrap();
        let keys: Vec<String> =
            page.entries.iter().map(|entry| String::from_utf8(entry.name().to_vec()).unwrap()).collect();
        let expected: BTreeSet<String> = self.model.keys.keys().chain(&self.model.explicit).cloned().collect();
        assert_eq!(keys, expected.into_iter().collect::<Vec<_>>(), "keys");
        for (key, content) in &self.model.keys {
            let content = content.borrow().clone();
            assert!(self.bed.get(key, 0..content.len() as u64).await.unwrap() == content, "bytes of {key} by S3");
        }
    }

    async fn compare_file(&self, tree: &Tree, path: &str, stat: Stat) {
        let content = &self.model.keys[path];
        let names = self.model.keys.values().filter(|other| Rc::ptr_eq(other, content)).count();
        assert_eq!((stat.size_bytes, stat.nlink as usize), (content.borrow().len() as u64, names), "{path}");
        assert!(tree.bytes(stat.ino).await.unwrap() == *content.borrow(), "bytes of {path}");
    }
}

async fn run(seed: u64, steps: usize, versioning: Versioning) {
    println!("seed {seed} {versioning:?}");
    let bed = bed().await;
    if versioning != Versioning::Never {
        bed.store.set_versioning("b", Versioning::Enabled).await.unwrap();
    }
    if versioning == Versioning::Suspended {
        bed.store.set_versioning("b", versioning).await.unwrap();
    }
    let config = Config { gateway: "other".into(), ..Config::default() };
    let other = bed.restarted(config).await;
    let trees = [tree_of(&bed, &bed.store, "one").await, tree_of(&bed, &other, "two").await];
    let model = Model { is_versioned: versioning != Versioning::Never, ..Model::default() };
    let mut run = Run { bed, trees, model, dice: Dice(seed.wrapping_mul(2).wrapping_add(1)), salt: 0 };
    let mut history = Vec::new();
    for step in 0..steps {
        let what = run.step().await;
        history.push(what);
        if step % 7 == 0 {
            run.bed.store.drain().await.unwrap();
        }
        let result = run.bed.ledger.readers.read(|view| Ok(view.contradictions(3))).await.unwrap();
        assert_eq!(result, Vec::<String>::new(), "after {:?}", &history[history.len().saturating_sub(12)..]);
        if step % 4 == 0 {
            run.compare().await;
        }
    }
    run.compare().await;
}

fn seed() -> u64 {
    let given = std::env::var("PREDASTORE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_and_s3_are_what_a_plain_model_says() {
    run(seed(), 300, Versioning::Never).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_over_versions_is_what_a_plain_model_says() {
    run(seed(), 150, Versioning::Enabled).await;
    run(seed() / 3, 150, Versioning::Suspended).await;
}
