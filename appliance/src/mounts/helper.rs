//! `mount.predastore` and `umount.predastore`: this program as mount(8) and umount(8) call it.
//!
//! ```text
//! mount.predastore BUCKET[/PREFIX] DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]
//! umount.predastore DIR [-flnrv] [-N NAMESPACE] [-t TYPE]
//! ```

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::command::{self, EXIT_USAGE};
use super::kernel::Way;
use super::options::{Daemon, Options, Source};
use crate::cli::Flags;
use crate::config::{self, control_socket};

/// A boot starts daemon and mounts at once.
const DAEMON_PATIENCE: Duration = Duration::from_secs(30);

const MOUNT_NAMES: &[&str] = &["mount.predastore", "mount.fuse.predastore"];
const UMOUNT_NAMES: &[&str] = &["umount.predastore", "umount.fuse.predastore"];

/// What was asked for on the command line.
#[derive(Default, PartialEq, Eq, Debug)]
struct Asked {
    words: Vec<String>,
    options: Vec<String>,
    letters: String,
}

/// What is to be mounted.
struct Wanted {
    source: Source,
    dir: PathBuf,
    options: Options,
    control: PathBuf,
}

/// Why nothing was tried.
#[derive(Debug, thiserror::Error)]
enum Usage {
    #[error("{0}")]
    Line(String),
    #[error(transparent)]
    Options(#[from] super::options::Error),
    #[error(transparent)]
    Config(#[from] config::Error),
}

/// Does what the program is called for, if `name` is one of a helper.
pub(crate) fn called_as(name: &str, args: &[String], env: &[(String, String)]) -> Option<ExitCode> {
    let code = match name {
        name if MOUNT_NAMES.contains(&name) => mount(name, args, env),
        name if UMOUNT_NAMES.contains(&name) => umount(name, args),
        _ => return None,
    };
    Some(code)
}

fn mount(name: &str, args: &[String], env: &[(String, String)]) -> ExitCode {
    let asked = match asked(args) {
        Ok(asked) => asked,
        Err(usage) => return wrong(name, &usage),
    };
    let Wanted { source, dir, options, control } = match wanted(&asked, env) {
        Ok(wanted) => wanted,
        Err(usage) => return wrong(name, &usage),
    };
    if asked.letters.contains('f') {
        return ExitCode::SUCCESS;
    }
    let result = command::mount(&source, &dir, &options, &control, DAEMON_PATIENCE);
    if asked.letters.contains('v') && result.is_ok() {
        println!("{name}: {source} mounted on {}", dir.display());
    }
    command::exit(name, result)
}

fn umount(name: &str, args: &[String]) -> ExitCode {
    let asked = match asked(args) {
        Ok(asked) => asked,
        Err(usage) => return wrong(name, &usage),
    };
    let [dir] = asked.words.as_slice() else {
        return wrong(name, &Usage::Line(format!("{name} DIR [-flnrv]")));
    };
    let way = match (asked.letters.contains('f'), asked.letters.contains('l')) {
        (true, _) => Way::Force,
        (false, true) => Way::Lazy,
        (false, false) => Way::Plain,
    };
    command::exit(name, command::unmount(Path::new(dir), way, None))
}

fn wrong(name: &str, usage: &Usage) -> ExitCode {
    eprintln!("{name}: {usage}");
    ExitCode::from(EXIT_USAGE)
}

/// Words, and flags of one letter, which may be run together; `-o`, `-t` and `-N` have a value.
fn asked(args: &[String]) -> Result<Asked, Usage> {
    let mut asked = Asked::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let letters = match arg.strip_prefix('-') {
            Some(letters) if !letters.is_empty() => letters,
            _ => {
                asked.words.push(arg.clone());
                continue;
            }
        };
        for (at, letter) in letters.char_indices() {
            if !"otN".contains(letter) {
                asked.letters.push(letter);
                continue;
            }
            let rest = letters.get(at + 1..).filter(|rest| !rest.is_empty()).map(str::to_owned);
            let value = rest.or_else(|| args.next().cloned());
            let value = value.ok_or_else(|| Usage::Line(format!("-{letter} lacks its value")))?;
            if letter == 'o' {
                asked.options.push(value);
            }
            break;
        }
    }
    match asked.letters.chars().find(|letter| !"sfnvlrwi".contains(*letter)) {
        Some(unknown) => Err(Usage::Line(format!("unknown flag -{unknown}"))),
        None => Ok(asked),
    }
}

fn wanted(asked: &Asked, env: &[(String, String)]) -> Result<Wanted, Usage> {
    let [source, dir] = asked.words.as_slice() else {
        return Err(Usage::Line("BUCKET[/PREFIX] DIR [-sfnv] [-o OPTIONS]".to_owned()));
    };
    let sloppy = asked.letters.contains('s');
    let read_only = asked.letters.contains('r').then_some("ro");
    let lists = asked.options.iter().map(String::as_str).chain(read_only);
    let options = Options::parse(lists, sloppy)?;
    let control = control_socket(&flags(&options.daemon).0, env)?;
    Ok(Wanted { source: source.parse()?, dir: dir.into(), options, control })
}

/// The settings that say which daemon is meant.
pub(crate) fn flags(daemon: &Daemon) -> Flags {
    let said = [
        (config::settings::CONFIG_KEY, &daemon.config),
        ("storage.data_dir", &daemon.data_dir),
        ("control.socket", &daemon.control),
    ];
    let flag = |(key, value): (&str, &Option<String>)| Some((config::settings::setting(key)?, value.clone()?));
    Flags(said.into_iter().filter_map(flag).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    fn asked_of(words: &[&str]) -> Result<Asked, Usage> {
        asked(&strings(words))
    }

    #[test]
    fn the_command_lines_of_mount_are_understood() {
        let line = ["photos/a", "/mnt", "-o", "rw,_netdev", "-n", "-sv", "-t", "predastore", "-oro", "-N", "/ns"];
        let asked = asked_of(&line).unwrap();
        assert_eq!(asked.words, ["photos/a", "/mnt"]);
        assert_eq!((asked.options.join("|").as_str(), asked.letters.as_str()), ("rw,_netdev|ro", "nsv"));
        assert!(asked_of(&["a", "/b", "-o"]).is_err());
        assert!(asked_of(&["a", "/b", "-x"]).is_err());
    }

    #[test]
    fn the_options_name_the_daemon() {
        let wanted_of = |words: &[&str]| wanted(&asked_of(words).unwrap(), &[]);
        let wanted = wanted_of(&["photos/a/", "/mnt", "-o", "ro,nofail,data-dir=/srv/s"]).unwrap();
        assert_eq!(wanted.control, Path::new("/srv/s/control.sock"));
        assert_eq!((wanted.source.to_string().as_str(), wanted.options.served.read_only), ("photos/a", true));
        let control = wanted_of(&["photos", "/mnt", "-o", "data-dir=/srv/s,control=/run/c"]).unwrap().control;
        assert_eq!(control, Path::new("/run/c"));
        assert!(matches!(wanted_of(&["photos", "/mnt", "-o", "what"]), Err(Usage::Options(_))));
        assert!(wanted_of(&["photos", "/mnt", "-s", "-o", "what"]).is_ok());
        assert!(matches!(wanted_of(&["photos"]), Err(Usage::Line(_))));
        assert!(matches!(wanted_of(&["/photos", "/mnt"]), Err(Usage::Options(_))));
    }

    #[test]
    fn other_names_are_no_helpers() {
        assert!(called_as("s3d", &[], &[]).is_none());
    }
}
