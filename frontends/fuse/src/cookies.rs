//! Where in a directory a listing is.
//!
//! A cookie says "go on behind this entry". It is `FIRST + hash(name)`, under 2^63, so that it means the same after a
//! restart, when a walk through the directory finds the name again. The names of recent pages are remembered: that saves the
//! walk, and finds the place although the name may have been removed since, as `rm -r` does with every page.
//!
//! Two names of one hash in what is remembered get neighbouring cookies, so a listing under way neither loses nor repeats
//! either. After a restart they are not told apart, nor is a cookie found that was moved aside; with 62 bits that takes a
//! billion names in one directory to be worth a thought.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use predastore::ids::Ino;

/// "Go on behind `.`".
pub(crate) const DOT: u64 = 1;
/// "Go on behind `..`", that is at the first name.
pub(crate) const DOT_DOT: u64 = 2;

const FIRST: u64 = 3;
const HASHES: u64 = 1 << 62;

/// Names remembered of one directory: several pages of several listings.
const DIRECTORY_NAMES: usize = 8192;

/// Names remembered of all directories together: some 16 MiB at worst.
const ALL_NAMES: usize = 65_536;

/// Entries of the first page of a directory, where nothing tells how many will fit.
const FIRST_PAGE: usize = 64;
const SMALLEST_PAGE: usize = 8;
/// Entries of any page.
pub(crate) const LARGEST_PAGE: usize = 1024;

/// The cookies of all directories that are being listed.
pub(crate) struct Cookies {
    hash: fn(&[u8]) -> u64,
    directories: Mutex<Directories>,
}

#[derive(Default)]
struct Directories {
    by_ino: HashMap<Ino, Directory>,
    by_age: BTreeMap<u64, Ino>,
    name_count: usize,
    uses: u64,
}

#[derive(Default)]
struct Directory {
    names: HashMap<u64, (Box<[u8]>, u64)>,
    /// Cookies as they were given, each with its turn; a cookie that was given again later has a younger one too.
    given: VecDeque<(u64, u64)>,
    turns: u64,
    used: u64,
    page: usize,
}

impl Default for Cookies {
    fn default() -> Self {
        Cookies { hash, directories: Mutex::default() }
    }
}

impl Cookies {
    /// The cookies behind `names`, entries of one page.
    pub(crate) fn of<'a>(&self, directory: Ino, names: impl Iterator<Item = &'a [u8]>) -> Vec<u64> {
        let mut all = self.lock();
        let (cookies, added) = all.used(directory, |one| {
            let before = one.names.len();
            let cookies = names.map(|name| one.give(self.plain(name), name)).collect();
            (cookies, one.names.len() as isize - before as isize)
        });
        all.name_count = all.name_count.saturating_add_signed(added);
        all.trim(directory);
        cookies
    }

    /// The name that `cookie` was given for, if that is remembered.
    pub(crate) fn name(&self, directory: Ino, cookie: u64) -> Option<Box<[u8]>> {
        self.lock().by_ino.get(&directory)?.names.get(&cookie).map(|(name, _)| name.clone())
    }

    /// Whether `cookie` is the one that `name` has by itself.
    pub(crate) fn is_of(&self, cookie: u64, name: &[u8]) -> bool {
        self.plain(name) == cookie
    }

    /// How many entries to list: about as many as fitted last time.
    pub(crate) fn page(&self, directory: Ino) -> usize {
        self.lock().by_ino.get(&directory).map_or(FIRST_PAGE, |one| one.page.max(SMALLEST_PAGE))
    }

    /// `fitted` entries of `listed` found room in an answer.
    pub(crate) fn fitted(&self, directory: Ino, fitted: usize, listed: usize) {
        let next = if fitted < listed { fitted + 1 } else { listed * 2 };
        let next = next.clamp(SMALLEST_PAGE, LARGEST_PAGE);
        if let Some(one) = self.lock().by_ino.get_mut(&directory) {
            one.page = next;
        }
    }

    fn plain(&self, name: &[u8]) -> u64 {
        FIRST + (self.hash)(name) % HASHES
    }

    fn lock(&self) -> MutexGuard<'_, Directories> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directories {
    fn used<R>(&mut self, ino: Ino, with: impl FnOnce(&mut Directory) -> R) -> R {
        self.uses += 1;
        let directory =
            self.by_ino.entry(ino).or_insert_with(|| Directory { page: FIRST_PAGE, ..Directory::default() });
        self.by_age.remove(&directory.used);
        self.by_age.insert(self.uses, ino);
        directory.used = self.uses;
        with(directory)
    }

    /// Lets go of the directories that were listed longest ago, never of `current`.
    fn trim(&mut self, current: Ino) {
        while self.name_count + self.by_ino.len() > ALL_NAMES {
            let Some((age, ino)) = self.by_age.pop_first() else { return };
            if ino == current {
                self.by_age.insert(age, ino);
                return;
            }
            let gone = self.by_ino.remove(&ino);
            self.name_count -= gone.map_or(0, |directory| directory.names.len());
        }
    }
}

impl Directory {
    /// The cookie of `name`: the plain one, or the next that no other remembered name has.
    fn give(&mut self, plain: u64, name: &[u8]) -> u64 {
        let free = |cookie: &u64| self.names.get(cookie).is_none_or(|(taken, _)| **taken == *name);
        let cookie = (plain..).find(free).unwrap_or(plain);
        self.turns += 1;
        self.names.insert(cookie, (name.into(), self.turns));
        self.given.push_back((cookie, self.turns));
        while self.names.len() > DIRECTORY_NAMES || self.given.len() > 2 * DIRECTORY_NAMES {
            self.forget_oldest();
        }
        cookie
    }

    fn forget_oldest(&mut self) {
        let Some((cookie, turn)) = self.given.pop_front() else { return };
        if self.names.get(&cookie).is_some_and(|(_, latest)| *latest == turn) {
            self.names.remove(&cookie);
        }
    }
}

/// FNV-1a, then the finaliser of SplitMix64. Cookies outlive the process, so this may never change.
fn hash(name: &[u8]) -> u64 {
    let fnv = name
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let x = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const DIRECTORY: Ino = Ino(5);

    /// Cookies of a hash with four values.
    pub(crate) fn colliding() -> Cookies {
        Cookies { hash: |name| hash(name) % 4, ..Cookies::default() }
    }

    fn one(cookies: &Cookies, directory: Ino, name: &str) -> u64 {
        cookies.of(directory, [name.as_bytes()].into_iter())[0]
    }

    #[test]
    fn cookies_are_golden() {
        let cookies = Cookies::default();
        assert_eq!(one(&cookies, DIRECTORY, "a"), 198_367_012_849_983_739);
        assert_eq!(one(&cookies, DIRECTORY, "photo-0001.jpg"), 1_839_026_487_964_232_499);
    }

    #[test]
    fn names_of_one_hash_have_cookies_of_their_own_and_keep_them() {
        let cookies = colliding();
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let given = names.map(|name| one(&cookies, DIRECTORY, name));
        let distinct = std::collections::HashSet::from(given);
        assert_eq!(distinct.len(), names.len());
        assert_eq!(names.map(|name| one(&cookies, DIRECTORY, name)), given);
        for (name, cookie) in names.iter().zip(given) {
            assert_eq!(cookies.name(DIRECTORY, cookie).as_deref(), Some(name.as_bytes()));
        }
        assert_eq!(cookies.name(Ino(6), given[0]), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_latest() {
        let cookies = Cookies::default();
        let names: Vec<_> = (0..3 * DIRECTORY_NAMES).map(|i| i.to_string()).collect();
        let given = cookies.of(DIRECTORY, names.iter().map(|name| name.as_bytes()));
        let remembered = |cookie| cookies.name(DIRECTORY, cookie).is_some();
        assert!(given[2 * DIRECTORY_NAMES..].iter().all(|cookie| remembered(*cookie)));
        assert!(!given[..2 * DIRECTORY_NAMES].iter().any(|cookie| remembered(*cookie)));
        for _ in 0..3 * DIRECTORY_NAMES {
            one(&cookies, DIRECTORY, "again");
        }
        assert!(cookies.lock().by_ino[&DIRECTORY].given.len() <= 2 * DIRECTORY_NAMES);
    }

    #[test]
    fn of_many_directories_those_listed_last_are_remembered() {
        let cookies = Cookies::default();
        let count = ALL_NAMES as u64;
        for ino in 0..count {
            one(&cookies, Ino(ino), "a");
        }
        let all = cookies.lock();
        let names: usize = all.by_ino.values().map(|directory| directory.names.len()).sum();
        assert_eq!(all.name_count, names);
        assert!(names + all.by_ino.len() <= ALL_NAMES && names > ALL_NAMES / 3);
        assert!(all.by_ino.contains_key(&Ino(count - 1)) && !all.by_ino.contains_key(&Ino(0)));
    }

    #[test]
    fn pages_learn_how_much_fits() {
        let cookies = Cookies::default();
        one(&cookies, DIRECTORY, "a");
        assert_eq!(cookies.page(DIRECTORY), FIRST_PAGE);
        cookies.fitted(DIRECTORY, 64, 64);
        assert_eq!(cookies.page(DIRECTORY), 128);
        cookies.fitted(DIRECTORY, 25, 128);
        assert_eq!(cookies.page(DIRECTORY), 26);
    }
}
