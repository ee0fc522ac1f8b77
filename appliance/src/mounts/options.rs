//! What is mounted and how: `BUCKET[/PREFIX]` and the words behind `-o`, as mount(8) hands them to its helpers.
//!
//! Later words win. A word that nobody here knows is an error, unless it is one of mount(8)'s or systemd's own.

use std::fmt;
use std::str::FromStr;

use nix::mount::MsFlags;
use nix::unistd::{Group, User};
use serde::{Deserialize, Serialize};

/// What is wrong with what was asked for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No bucket.
    #[error("`{0}` names no bucket: write BUCKET or BUCKET/PREFIX")]
    Source(String),
    /// Nobody knows it.
    #[error("unknown mount option `{0}`")]
    Unknown(String),
    /// It has a value that it cannot have.
    #[error("mount option `{word}`: {what}")]
    Value { word: String, what: &'static str },
}

/// A bucket, or a directory in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    /// Bucket's name.
    pub(crate) bucket: String,
    /// Directory in it, without slashes at its ends; empty: the whole bucket.
    pub(crate) prefix: String,
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
        if bucket.is_empty() || text.contains('\0') {
            return Err(Error::Source(text.to_owned()));
        }
        Ok(Source { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix.as_str() {
            "" => f.write_str(&self.bucket),
            prefix => write!(f, "{}/{prefix}", self.bucket),
        }
    }
}

/// What the options say, for each who must know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// For the kernel: flags of mount(2).
    pub(crate) flags: MsFlags,
    /// For the kernel: whether others than who mounts may use it.
    pub(crate) allow_other: bool,
    /// For the daemon.
    pub(crate) served: Served,
    /// For the command: which daemon.
    pub(crate) daemon: Daemon,
}

/// What the daemon must know of a mount's options.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Served {
    /// Nothing may be changed.
    pub(crate) read_only: bool,
    /// Whose that is which nobody gave an owner.
    pub(crate) uid: Option<u32>,
    /// Likewise the group.
    pub(crate) gid: Option<u32>,
    /// Permission bits that those do not have which nobody gave any.
    pub(crate) umask: Option<u32>,
    /// Requests wait for a store that is away, as long as that takes.
    pub(crate) hard: bool,
    /// Locks by `flock(2)` are this mount's alone.
    #[serde(default)]
    pub(crate) local_flock: bool,
    /// Locks by `fcntl(2)` are this mount's alone.
    #[serde(default)]
    pub(crate) local_posix: bool,
    /// Times of access are not kept.
    #[serde(default)]
    pub(crate) no_atime: bool,
    /// Those of directories are not.
    #[serde(default)]
    pub(crate) no_diratime: bool,
}

impl Served {
    /// Which locks are this mount's alone, in NFS's words.
    fn keep_locks(&mut self, which: &str) -> Option<()> {
        (self.local_flock, self.local_posix) = match which {
            "none" => (false, false),
            "flock" => (true, false),
            "posix" => (false, true),
            "all" => (true, true),
            _ => return None,
        };
        Some(())
    }
}

/// Which daemon is meant, as the words `config=`, `data-dir=` and `control=` say.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Daemon {
    /// Its configuration file.
    pub(crate) config: Option<String>,
    /// Its data directory.
    pub(crate) data_dir: Option<String>,
    /// Its control socket.
    pub(crate) control: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            flags: MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            allow_other: false,
            served: Served::default(),
            daemon: Daemon::default(),
        }
    }
}

/// Words that set flags of mount(2), and those that clear them.
const FLAGS: &[(&str, &str, MsFlags)] = &[
    ("ro", "rw", MsFlags::MS_RDONLY),
    ("nosuid", "suid", MsFlags::MS_NOSUID),
    ("nodev", "dev", MsFlags::MS_NODEV),
    ("noexec", "exec", MsFlags::MS_NOEXEC),
    ("sync", "async", MsFlags::MS_SYNCHRONOUS),
    ("dirsync", "", MsFlags::MS_DIRSYNC),
    ("noatime", "atime", MsFlags::MS_NOATIME),
    ("nodiratime", "diratime", MsFlags::MS_NODIRATIME),
    ("relatime", "norelatime", MsFlags::MS_RELATIME),
    ("strictatime", "nostrictatime", MsFlags::MS_STRICTATIME),
];

/// Words that mean something to mount(8), fstab and systemd only, or say what is so anyway.
const IGNORED: &[&str] = &[
    "defaults",
    "_netdev",
    "nofail",
    "auto",
    "noauto",
    "nouser",
    "soft",
    "default_permissions",
    "noiversion",
    "nolazytime",
];

/// Words that imply others, as in mount(8): who mounts is nobody in particular.
const CAREFUL: &[(&str, MsFlags)] = &[
    ("user", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC)),
    ("users", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC)),
    ("owner", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV)),
    ("group", MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV)),
];

impl Options {
    /// Reads words with commas between; `lists` one after the other. `sloppy`: unknown ones are passed over, as mount(8)'s
    /// `-s` asks for.
    ///
    /// # Errors
    /// The first word that is unknown or has a wrong value.
    pub(crate) fn parse<'a>(lists: impl IntoIterator<Item = &'a str>, sloppy: bool) -> Result<Self, Error> {
        let mut options = Options::default();
        for word in lists.into_iter().flat_map(|list| list.split(',')).map(str::trim).filter(|word| !word.is_empty()) {
            match options.take(word) {
                Err(Error::Unknown(_)) if sloppy => {}
                taken => taken?,
            }
        }
        options.served.read_only = options.flags.contains(MsFlags::MS_RDONLY);
        options.served.no_atime = options.flags.contains(MsFlags::MS_NOATIME);
        options.served.no_diratime = options.flags.contains(MsFlags::MS_NODIRATIME);
        Ok(options)
    }

    fn take(&mut self, word: &str) -> Result<(), Error> {
        if let Some((set, _, flag)) = FLAGS.iter().find(|(set, clear, _)| word == *set || word == *clear) {
            self.flags.set(*flag, word == *set);
            self.one_atime(word);
            return Ok(());
        }
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        if let Some((_, flags)) = CAREFUL.iter().find(|(careful, _)| name == *careful) {
            self.flags.insert(*flags);
            return Ok(());
        }
        match (name, value) {
            ("allow_other", None) => self.allow_other = true,
            ("hard", None) => self.served.hard = true,
            ("uid", Some(value)) => self.served.uid = Some(user_id(value).ok_or_else(|| no_user(word))?),
            ("gid", Some(value)) => self.served.gid = Some(group_id(value).ok_or_else(|| no_group(word))?),
            ("umask", Some(value)) => self.served.umask = Some(mask(value).ok_or_else(|| no_mask(word))?),
            ("config", Some(value)) => self.daemon.config = Some(value.to_owned()),
            ("data-dir" | "data_dir", Some(value)) => self.daemon.data_dir = Some(value.to_owned()),
            ("control", Some(value)) => self.daemon.control = Some(value.to_owned()),
            ("local_lock", Some(value)) => self.served.keep_locks(value).ok_or_else(|| no_locks(word))?,
            ("comment", Some(_)) => {}
            ("soft", None) => self.served.hard = false,
            ("remount", _) => return Err(Error::Value { word: word.to_owned(), what: "unmount it and mount it anew" }),
            (name, _) if name.starts_with("x-") || name.starts_with("X-") => {}
            (name, None) if IGNORED.contains(&name) => {}
            _ => return Err(Error::Unknown(word.to_owned())),
        }
        Ok(())
    }

    /// The kernel takes one of these; the later word wins.
    fn one_atime(&mut self, word: &str) {
        let others = match word {
            "noatime" => MsFlags::MS_RELATIME | MsFlags::MS_STRICTATIME,
            "relatime" => MsFlags::MS_NOATIME | MsFlags::MS_STRICTATIME,
            "strictatime" => MsFlags::MS_NOATIME | MsFlags::MS_RELATIME,
            _ => MsFlags::empty(),
        };
        self.flags.remove(others);
    }
}

/// The words that set what `flags` has, for a program that takes words.
pub(crate) fn words(flags: MsFlags) -> impl Iterator<Item = &'static str> {
    FLAGS.iter().filter(move |(_, _, flag)| flags.contains(*flag)).map(|(set, ..)| *set)
}

/// A user's number, from that or the name.
pub(crate) fn user_id(text: &str) -> Option<u32> {
    number(text).or_else(|| Some(User::from_name(text).ok()??.uid.as_raw()))
}

fn group_id(text: &str) -> Option<u32> {
    number(text).or_else(|| Some(Group::from_name(text).ok()??.gid.as_raw()))
}

/// All ones means "none" to the kernel.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn mask(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    u32::from_str_radix(text, 8).ok().filter(|mask| digits && *mask <= 0o777)
}

fn no_user(word: &str) -> Error {
    Error::Value { word: word.to_owned(), what: "no such user" }
}

fn no_group(word: &str) -> Error {
    Error::Value { word: word.to_owned(), what: "no such group" }
}

fn no_locks(word: &str) -> Error {
    Error::Value { word: word.to_owned(), what: "none, flock, posix or all" }
}

fn no_mask(word: &str) -> Error {
    Error::Value { word: word.to_owned(), what: "a mask is an octal number up to 777" }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(list: &str) -> Options {
        Options::parse([list], false).unwrap()
    }

    #[test]
    fn a_source_is_a_bucket_and_perhaps_a_directory() {
        let source = |text: &str| text.parse::<Source>().map(|s| (s.bucket, s.prefix));
        assert_eq!(source("photos").unwrap(), ("photos".into(), "".into()));
        assert_eq!(source("photos/").unwrap(), ("photos".into(), "".into()));
        assert_eq!(source("photos/2024/june/").unwrap(), ("photos".into(), "2024/june".into()));
        assert!(source("").is_err() && source("/x").is_err() && source("a\0b").is_err());
        assert_eq!("photos/a/".parse::<Source>().unwrap().to_string(), "photos/a");
    }

    #[test]
    fn without_options_neither_suid_nor_devices_count() {
        let options = parsed("");
        assert_eq!(options, Options::default());
        assert_eq!(options.flags, MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
        assert_eq!(parsed("suid,dev").flags, MsFlags::empty());
    }

    #[test]
    fn later_words_win() {
        assert!(!parsed("ro,rw").served.read_only && parsed("rw,ro").served.read_only);
        let atime = MsFlags::MS_NOATIME | MsFlags::MS_RELATIME | MsFlags::MS_STRICTATIME;
        assert_eq!(parsed("noatime,relatime").flags & atime, MsFlags::MS_RELATIME);
        let kept = |words| (parsed(words).served.no_atime, parsed(words).served.no_diratime);
        assert_eq!(
            [kept("noatime"), kept("nodiratime"), kept("noatime,atime")],
            [(true, false), (false, true), (false, false)]
        );
        assert_eq!(parsed("relatime,noatime").flags & atime, MsFlags::MS_NOATIME);
        assert_eq!(parsed("noatime,strictatime").flags & atime, MsFlags::MS_STRICTATIME);
        assert!(parsed("hard").served.hard && !parsed("hard,soft").served.hard);
        let lists = Options::parse(["ro,uid=1", "uid=2"], false).unwrap();
        assert!(lists.served.read_only && lists.served.uid == Some(2));
    }

    #[test]
    fn words_of_mount_and_systemd_are_passed_over() {
        let fstab =
            "defaults,_netdev,nofail,noauto,x-systemd.automount,x-systemd.idle-timeout=60,X-mount.mkdir,comment=a";
        assert_eq!(parsed(fstab), Options::default());
    }

    #[test]
    fn a_mount_by_any_user_runs_no_programs() {
        assert!(parsed("user=alice").flags.contains(MsFlags::MS_NOEXEC));
        assert!(!parsed("user,exec").flags.contains(MsFlags::MS_NOEXEC));
        assert!(parsed("suid,owner").flags.contains(MsFlags::MS_NOSUID));
    }

    #[test]
    fn values_are_read_and_judged() {
        let served = parsed("uid=0,gid=root,umask=027,allow_other").served;
        assert_eq!((served.uid, served.gid, served.umask), (Some(0), Some(0), Some(0o27)));
        let local = |words| (parsed(words).served.local_flock, parsed(words).served.local_posix);
        assert_eq!(
            ["local_lock=flock", "local_lock=posix", "local_lock=all"].map(local),
            [(true, false), (false, true), (true, true)]
        );
        assert_eq!(["", "local_lock=all,local_lock=none"].map(local), [(false, false); 2]);
        for wrong in [
            "local_lock=",
            "local_lock=no",
            "uid=",
            "uid=4294967295",
            "uid=-1",
            "uid=no such",
            "umask=8",
            "umask=1000",
            "umask=",
            "umask=+7",
        ] {
            assert!(matches!(Options::parse([wrong], false), Err(Error::Value { .. })), "{wrong}");
        }
        for unknown in ["uid", "allow_others", "ro=1", "hard=yes", "config", "bind"] {
            assert_eq!(Options::parse([unknown], false), Err(Error::Unknown(unknown.into())));
            assert_eq!(Options::parse([unknown], true).unwrap(), Options::default());
        }
        assert!(Options::parse(["remount,ro"], true).is_err());
    }

    #[test]
    fn the_daemon_is_named() {
        let daemon = parsed("data-dir=/srv/a,config=/etc/b.toml,control=/run/c").daemon;
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(daemon, Daemon { config: text("/etc/b.toml"), data_dir: text("/srv/a"), control: text("/run/c") });
    }

    #[test]
    fn flags_are_said_in_words_again() {
        let said: Vec<_> = words(parsed("ro,noexec,noatime").flags).collect();
        assert_eq!(said, ["ro", "nosuid", "nodev", "noexec", "noatime"]);
    }
}
