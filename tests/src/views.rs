//! One bucket through several mounts and several gateways, each step compared with a model of it ([`crate::namespace`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use md5::{Digest, Md5};

use crate::http::Response;
use crate::namespace::{Etag, Namespace, is_below, join, parent};
use crate::random::{Rng, body};
use crate::s3::S3;
use crate::sigv4::{encode, hex};

/// How long a mount may keep to what it saw before another changed it.
const COHERENCE: Duration = Duration::from_secs(3);

/// Of so many steps one compares every byte.
const WHOLE: u64 = 10;

const DIRECTORY_NAMES: [&str; 4] = ["a", "a-", "b", "d ü"];
const FILE_NAMES: [&str; 5] = ["f", "f-", "a.f", "g h", "z%2F"];

/// Most levels of directories.
const DEPTH: usize = 3;

/// The views and the model.
pub struct Views {
    mounts: Vec<PathBuf>,
    gateways: Vec<S3>,
    bucket: String,
    model: Namespace,
    rng: Rng,
    steps: u64,
    /// The last steps, the youngest last.
    log: Vec<String>,
    /// How often a mount had to be waited for, and the longest.
    waits: (u64, Duration),
}

/// What a step was: who did it, and which files it changed.
struct Step {
    said: String,
    /// The mount that did it; none: a gateway.
    mount: Option<usize>,
    touched: Vec<String>,
}

impl Views {
    /// Views of an empty bucket. Without gateways the mounts may be of any file system.
    pub fn new(mounts: Vec<PathBuf>, gateways: Vec<S3>, bucket: &str, rng: Rng) -> Views {
        let (model, log, waits) = (Namespace::default(), Vec::new(), (0, Duration::ZERO));
        Views { mounts, gateways, bucket: bucket.to_owned(), model, rng, steps: 0, log, waits }
    }

    /// Does random steps, each by a random mount or gateway, and compares what all of them see after each. What was waited for.
    ///
    /// # Errors
    /// With the last steps, and what differs.
    pub fn run(&mut self, steps: u64) -> Result<String> {
        for _ in 0..steps {
            let outcome = self.one_step();
            let done = self.log.len().saturating_sub(15);
            outcome.with_context(|| format!("step {}; the last were\n{}", self.steps, self.log[done..].join("\n")))?;
        }
        self.compare(&Step { said: String::new(), mount: None, touched: self.all_files() })?;
        let (count, longest) = self.waits;
        Ok(format!("{} steps; a mount was behind another view {count} times, {longest:?} at most", self.steps))
    }

    fn all_files(&self) -> Vec<String> {
        self.model.files().map(|(path, _)| path.clone()).collect()
    }

    fn one_step(&mut self) -> Result<()> {
        self.steps += 1;
        let by_s3 = self.mounts.is_empty() || (!self.gateways.is_empty() && self.rng.below(5) < 2);
        let mut step = if by_s3 { self.s3_step()? } else { self.posix_step()? };
        self.log.push(format!("{}: {}", self.steps, step.said));
        if self.steps.is_multiple_of(WHOLE) {
            step.touched = self.all_files();
        }
        self.compare(&step)
    }

    fn some_file(&mut self) -> Option<String> {
        let files = self.all_files();
        if files.is_empty() { None } else { Some(self.rng.choose(&files).clone()) }
    }

    fn some_directory(&mut self) -> String {
        let all: Vec<String> = self.model.directories().cloned().collect();
        self.rng.choose(&all).clone()
    }

    /// A path for a file in a directory that exists, taken or not.
    fn file_path(&mut self) -> String {
        let directory = self.some_directory();
        join(&directory, self.rng.choose::<&str>(&FILE_NAMES))
    }

    /// A path for a directory in one that exists.
    fn directory_path(&mut self) -> String {
        let all: Vec<String> = self.model.directories().filter(|path| depth(path) < DEPTH).cloned().collect();
        let directory = self.rng.choose(&all).clone();
        join(&directory, self.rng.choose::<&str>(&DIRECTORY_NAMES))
    }

    /// A path whose directories need not exist.
    fn key(&mut self) -> String {
        let mut directory = String::new();
        for _ in 0..self.rng.below(DEPTH as u64 + 1) {
            directory = join(&directory, self.rng.choose::<&str>(&DIRECTORY_NAMES));
        }
        join(&directory, self.rng.choose::<&str>(&FILE_NAMES))
    }

    fn some_bytes(&mut self) -> Vec<u8> {
        let len = match self.rng.below(10) {
            0 => 0,
            1..6 => self.rng.below(2000),
            6..9 => self.rng.below(40_000),
            _ => self.rng.below(400_000),
        };
        body(self.rng.next_u64(), len as usize)
    }

    fn posix_step(&mut self) -> Result<Step> {
        let mount = self.rng.below(self.mounts.len() as u64) as usize;
        let root = self.mounts[mount].clone();
        let (said, touched) = match self.rng.below(12) {
            0 | 1 => self.write_file(&root)?,
            2 | 3 => self.change_file(&root)?,
            4 => self.rename_file(&root)?,
            5 => self.rename_directory(&root)?,
            6 => self.unlink(&root)?,
            7 | 8 => self.make_directory(&root)?,
            9 => self.remove_directory(&root)?,
            10 => self.link(&root)?,
            _ => self.chmod(&root)?,
        };
        Ok(Step { said: format!("mount {mount}: {said}"), mount: Some(mount), touched })
    }

    fn write_file(&mut self, root: &Path) -> Result<(String, Vec<String>)> {
        let (path, bytes) = (self.file_path(), self.some_bytes());
        let said = format!("write {} bytes to {path:?}", bytes.len());
        let mut file = fs::File::create(root.join(&path)).context(said.clone())?;
        // In pieces, front to back.
        bytes.chunks(100_000).try_for_each(|piece| file.write_all(piece)).context(said.clone())?;
        drop(file);
        self.model.write(&path, bytes);
        Ok((said, vec![path]))
    }

    /// Writes somewhere into a file, appends to it, or changes its length.
    fn change_file(&mut self, root: &Path) -> Result<(String, Vec<String>)> {
        let Some(path) = self.some_file() else { return self.write_file(root) };
        let (bytes, what) = (self.some_bytes(), self.rng.below(3));
        let former = self.model.file(&path).context("a file")?.bytes.clone();
        let before = self.etag(&path)?;
        let at = self.rng.below(former.len() as u64 + 1000);
        let said = format!("change {what} of {path:?}, {} bytes, with {} at {at}", former.len(), bytes.len());
        let mut new = former.clone();
        let open = |options: &mut OpenOptions| options.open(root.join(&path)).context(said.clone());
        match what {
            0 => {
                let file = open(OpenOptions::new().write(true))?;
                file.write_all_at(&bytes, at).context(said.clone())?;
                overlay(&mut new, &bytes, at as usize);
            }
            1 => {
                open(OpenOptions::new().append(true))?.write_all(&bytes).context(said.clone())?;
                new.extend_from_slice(&bytes);
            }
            _ => {
                open(OpenOptions::new().write(true))?.set_len(at).context(said.clone())?;
                new.resize(at as usize, 0);
            }
        }
        let changed = new != former;
        let inode = self.model.file_mut(&path).context("a file")?;
        inode.bytes = new;
        inode.etag = match before {
            Some(before) if changed => Etag::Not(before),
            _ => Etag::Any,
        };
        Ok((said, vec![path]))
    }

    /// The ETag that S3 shows now.
    fn etag(&mut self, path: &str) -> Result<Option<String>> {
        let bucket = self.bucket.clone();
        let Some(gateway) = self.gateways.first_mut() else { return Ok(None) };
        Ok(Some(etag_of(&gateway.head(&bucket, path)?.expect(200)?)?))
    }

    fn rename_file(&mut self, root: &Path) -> Result<(String, Vec<String>)> {
        let Some(from) = self.some_file() else { return self.write_file(root) };
        let to = self.file_path();
        let said = format!("rename file {from:?} to {to:?}");
        fs::rename(root.join(&from), root.join(&to)).context(said.clone())?;
        self.model.rename_file(&from, &to);
        Ok((said, vec![to]))
    }

    fn rename_directory(&mut self, root: &Path) -> Result<(String, Vec<String>)> {
        let (from, to) = (self.some_directory(), self.directory_path());
        let deepest = self.model.directories().filter(|path| is_below(path, &from)).map(|path| depth(path)).max();
        let deep = deepest.unwrap_or(depth(&from)) - depth(&from) + depth(&to) > DEPTH;
        if from.is_empty() || from == to || deep {
            return self.make_directory(root);
        }
        let said = format!("rename directory {from:?} to {to:?}");
        let outcome = fs::rename(root.join(&from), root.join(&to));
        if is_below(&to, &from) {
            expect_errno(outcome, &[nix::libc::EINVAL]).context(said.clone())?;
            return Ok((said, Vec::new()));
        }
        if self.model.is_directory(&to) && !self.model.is_empty(&to) {
            expect_errno(outcome, &[nix::libc::ENOTEMPTY, nix::libc::EEXIST]).context(said.clone())?;
            return Ok((said, Vec::new()));
        }
        outcome.context(said.clone())?;
        self.model.rename_directory(&from, &to);
        let moved = self.all_files().into_iter().filter(|path| is_below(path, &to)).collect();
        Ok((said, moved))
    }

    fn unlink(&mut self, root: &Path) -> Result<(String, Vec<String>)> {
        let Some(path) = self.some_file() else { return self.write_file(root) };
        let said = format!("unlink {path:?}");
        fs::remove_file(root.join(&path)).context(said.clone())?;
        self.model.unlink(&path);
        Ok((said, Vec::new()))
    }

    fn make_directory(&mut self, root: &Path) -> Result<(String, Vec<String>)> {
        let path = self.directory_path();
        let said = format!("mkdir {path:?}");
        let outcome = fs::create_dir(root.join(&path));
        if self.model.is_directory(&path) {
            expect_errno(outcome, &[nix::libc::EEXIST]).context(said.clone())?;
        } else {
            outcome.context(said.clone())?;
            self.model.make_directory(&path);
        }
        Ok((said, Vec::new()))
    }

    fn remove_directory(&mut self, root: &Path) -> Result<(String, Vec<String>)> {
        let path = self.some_directory();
        if path.is_empty() {
            return self.make_directory(root);
        }
        let said = format!("rmdir {path:?}");
        let outcome = fs::remove_dir(root.join(&path));
        if self.model.is_empty(&path) {
            outcome.context(said.clone())?;
            self.model.remove_directory(&path);
        } else {
            expect_errno(outcome, &[nix::libc::ENOTEMPTY, nix::libc::EEXIST]).context(said.clone())?;
        }
        Ok((said, Vec::new()))
    }

    fn link(&mut self, root: &Path) -> Result<(String, Vec<String>)> {
        let Some(path) = self.some_file() else { return self.write_file(root) };
        let new = self.file_path();
        let said = format!("link {path:?} as {new:?}");
        let outcome = fs::hard_link(root.join(&path), root.join(&new));
        if self.model.file(&new).is_some() {
            expect_errno(outcome, &[nix::libc::EEXIST]).context(said.clone())?;
        } else {
            outcome.context(said.clone())?;
            self.model.link(&path, &new);
        }
        Ok((said, vec![path, new]))
    }

    fn chmod(&mut self, root: &Path) -> Result<(String, Vec<String>)> {
        let Some(path) = self.some_file() else { return self.write_file(root) };
        let mode = *self.rng.choose(&[0o644, 0o600, 0o755, 0o664]);
        let said = format!("chmod {mode:o} {path:?}");
        fs::set_permissions(root.join(&path), Permissions::from_mode(mode)).context(said.clone())?;
        self.model.file_mut(&path).context("a file")?.mode = mode;
        Ok((said, vec![path]))
    }

    fn s3_step(&mut self) -> Result<Step> {
        let index = self.rng.below(self.gateways.len() as u64) as usize;
        let (said, touched) = match self.rng.below(10) {
            0..3 => self.put(index)?,
            3 => self.put_on_condition(index)?,
            4 => self.put_in_parts(index)?,
            5 | 6 => self.delete(index)?,
            7 => self.put_marker(index)?,
            8 => self.delete_marker(index)?,
            _ => self.copy(index)?,
        };
        Ok(Step { said: format!("gateway {index}: {said}"), mount: None, touched })
    }

    fn put(&mut self, index: usize) -> Result<(String, Vec<String>)> {
        let (key, bytes) = (self.key(), self.some_bytes());
        let said = format!("PUT {} bytes to {key:?}", bytes.len());
        self.gateways[index].put(&self.bucket, &key, bytes.clone())?.expect(200).context(said.clone())?;
        self.model.put(&key, bytes, Etag::Md5);
        Ok((said, vec![key]))
    }

    /// If-None-Match: * where there may be an object, and If-Match with its ETag or another.
    fn put_on_condition(&mut self, index: usize) -> Result<(String, Vec<String>)> {
        let (key, bytes) = (self.key(), self.some_bytes());
        let exists = self.model.file(&key).is_some();
        let (name, value, holds) = match (exists, self.rng.below(3)) {
            (_, 0) | (false, _) => ("If-None-Match", "*".to_owned(), !exists),
            (true, 1) => ("If-Match", format!("\"{}\"", self.etag(&key)?.context("no gateway")?), true),
            (true, _) => ("If-Match", format!("\"{}\"", "0".repeat(32)), false),
        };
        let said = format!("PUT {} bytes to {key:?} {name}: {value}", bytes.len());
        let gateway = &mut self.gateways[index];
        let request = gateway.request("PUT", &self.bucket, &key, "", bytes.clone()).header(name, value);
        gateway.call(request)?.expect(if holds { 200 } else { 412 }).context(said.clone())?;
        if holds {
            self.model.put(&key, bytes, Etag::Md5);
        }
        Ok((said, vec![key]))
    }

    fn put_in_parts(&mut self, index: usize) -> Result<(String, Vec<String>)> {
        let (key, bytes) = (self.key(), [self.some_bytes(), vec![1]].concat());
        let said = format!("PUT {} bytes to {key:?} as one part", bytes.len());
        let answer = self.gateways[index].put_multipart(&self.bucket, &key, vec![bytes.clone()])?;
        answer.expect(200).context(said.clone())?;
        self.model.put(&key, bytes, Etag::Any);
        Ok((said, vec![key]))
    }

    fn delete(&mut self, index: usize) -> Result<(String, Vec<String>)> {
        let key = self.some_file().unwrap_or_else(|| "f".to_owned());
        let said = format!("DELETE {key:?}");
        self.gateways[index].delete(&self.bucket, &key)?.expect(204).context(said.clone())?;
        self.model.delete(&key);
        Ok((said, Vec::new()))
    }

    fn put_marker(&mut self, index: usize) -> Result<(String, Vec<String>)> {
        let key = self.key();
        let directory = parent(&key);
        if directory.is_empty() {
            return self.put(index);
        }
        let said = format!("PUT {directory:?}/");
        self.gateways[index].put(&self.bucket, &format!("{directory}/"), "")?.expect(200).context(said.clone())?;
        self.model.put_marker(directory);
        Ok((said, Vec::new()))
    }

    fn delete_marker(&mut self, index: usize) -> Result<(String, Vec<String>)> {
        let directory = self.some_directory();
        if directory.is_empty() {
            return self.put(index);
        }
        let said = format!("DELETE {directory:?}/");
        self.gateways[index].delete(&self.bucket, &format!("{directory}/"))?.expect(204).context(said.clone())?;
        self.model.delete_marker(&directory);
        Ok((said, Vec::new()))
    }

    fn copy(&mut self, index: usize) -> Result<(String, Vec<String>)> {
        let Some(from) = self.some_file() else { return self.put(index) };
        let to = self.key();
        let source = self.model.file(&from).context("a file")?;
        // Whether the mode is the source's or that of what is replaced is no matter of this test.
        if from == to || source.mode != self.model.file(&to).map_or(0o644, |inode| inode.mode) {
            return self.put(index);
        }
        let bytes = source.bytes.clone();
        let said = format!("copy {from:?} to {to:?}");
        let source = format!("/{}/{}", self.bucket, encode(&from, false));
        let gateway = &mut self.gateways[index];
        let request = gateway.request("PUT", &self.bucket, &to, "", "").header("x-amz-copy-source", source);
        gateway.call(request)?.expect(200).context(said.clone())?;
        self.model.put(&to, bytes, Etag::Any);
        Ok((said, vec![to]))
    }

    /// Who did the step sees it at once, and so does S3; other mounts soon.
    fn compare(&mut self, step: &Step) -> Result<()> {
        for index in 0..self.gateways.len() {
            self.compare_s3(index, &step.touched).with_context(|| format!("gateway {index}"))?;
        }
        for index in 0..self.mounts.len() {
            let (started, mut waited) = (Instant::now(), false);
            while let Err(error) = self.compare_posix(index, &step.touched) {
                let late = step.mount == Some(index) || started.elapsed() > COHERENCE;
                if late {
                    return Err(error.context(format!("mount {index} after {:?}", started.elapsed())));
                }
                waited = true;
                std::thread::sleep(Duration::from_millis(5));
            }
            self.waits.0 += u64::from(waited);
            self.waits.1 = if waited { self.waits.1.max(started.elapsed()) } else { self.waits.1 };
        }
        Ok(())
    }

    fn compare_s3(&mut self, index: usize, touched: &[String]) -> Result<()> {
        let listed = self.gateways[index].list(&self.bucket)?;
        let keys: Vec<&String> = listed.iter().map(|row| &row.key).collect();
        let expected = self.model.keys();
        ensure!(keys.iter().copied().eq(&expected), "the listing has\n{keys:?}, the model\n{expected:?}");
        for row in &listed {
            let len = self.model.file(&row.key).map_or(0, |inode| inode.bytes.len());
            ensure!(row.size == len as u64, "{:?} is listed with {} bytes, the model has {len}", row.key, row.size);
        }
        let etags: BTreeMap<&String, &String> = listed.iter().map(|row| (&row.key, &row.etag)).collect();
        for path in touched {
            let Some(inode) = self.model.file(path) else { continue };
            let got = self.gateways[index].get(&self.bucket, path)?.expect(200)?;
            ensure!(got.body == inode.bytes, "{path:?} has other bytes: {}", difference(&got.body, &inode.bytes));
            let etag = etag_of(&got)?;
            ensure!(etags.get(path) == Some(&&etag), "{path:?} is listed with {:?}, and has {etag}", etags.get(path));
            let right = match &inode.etag {
                Etag::Md5 => etag == hex(&Md5::digest(&inode.bytes)),
                Etag::Not(former) => etag != *former,
                Etag::Any => true,
            };
            ensure!(right, "{path:?} has the ETag {etag}, and should have {:?}", inode.etag);
        }
        Ok(())
    }

    fn compare_posix(&self, index: usize, touched: &[String]) -> Result<()> {
        let root = &self.mounts[index];
        let (mut files, mut directories) = (BTreeSet::new(), BTreeSet::from([String::new()]));
        let mut pending = vec![String::new()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(root.join(&directory)).with_context(|| format!("{directory:?}"))? {
                let entry = entry?;
                let path = join(&directory, entry.file_name().to_str().context("a name that nobody made")?);
                let fresh = match entry.file_type()?.is_dir() {
                    true => {
                        directories.insert(path.clone()) && {
                            pending.push(path.clone());
                            true
                        }
                    }
                    false => files.insert(path.clone()),
                };
                ensure!(fresh, "{path:?} is there twice");
            }
        }
        ensure!(
            files.iter().eq(self.model.files().map(|(path, _)| path)),
            "the files are {files:?}, in the model {:?}",
            self.all_files()
        );
        let expected: BTreeSet<String> = self.model.directories().cloned().collect();
        ensure!(directories == expected, "the directories are {directories:?}, in the model {expected:?}");
        for (path, inode) in self.model.files() {
            let meta = fs::symlink_metadata(root.join(path)).with_context(|| format!("{path:?}"))?;
            let found = (meta.len(), meta.mode() & 0o7777, meta.nlink());
            let expected = (inode.bytes.len() as u64, inode.mode, self.model.links(path) as u64);
            ensure!(found == expected, "{path:?}: size, mode and links {found:?}, in the model {expected:?}");
        }
        for path in touched {
            let Some(inode) = self.model.file(path) else { continue };
            let bytes = fs::read(root.join(path)).with_context(|| format!("{path:?}"))?;
            ensure!(bytes == inode.bytes, "{path:?} has other bytes: {}", difference(&bytes, &inode.bytes));
        }
        Ok(())
    }
}

fn depth(path: &str) -> usize {
    if path.is_empty() { 0 } else { path.split('/').count() }
}

/// Writes `bytes` over `content` from `at` on, zeros where there was nothing.
fn overlay(content: &mut Vec<u8>, bytes: &[u8], at: usize) {
    if !bytes.is_empty() {
        content.resize(content.len().max(at + bytes.len()), 0);
        content[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Where two contents differ, for messages.
pub fn difference(found: &[u8], expected: &[u8]) -> String {
    let at = found.iter().zip(expected).position(|(left, right)| left != right);
    let last = found.iter().zip(expected).rposition(|(left, right)| left != right);
    format!("{} for {} bytes; of both, those from {at:?} to {last:?} differ", found.len(), expected.len())
}

fn etag_of(answer: &Response) -> Result<String> {
    Ok(answer.get("etag").context("no ETag")?.trim_matches('"').to_owned())
}

fn expect_errno<T>(outcome: std::io::Result<T>, wanted: &[i32]) -> Result<()> {
    match outcome {
        Ok(_) => bail!("it succeeded, and should fail with {wanted:?}"),
        Err(error) if error.raw_os_error().is_some_and(|errno| wanted.contains(&errno)) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("not one of {wanted:?}")),
    }
}
