//! The command line. Flags of settings are made from [`SETTINGS`], so each is named once in this program.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};

use crate::bench::BenchArgs;
use crate::cluster::ClusterCommand;
use crate::config::settings::{SETTINGS, Setting};
use crate::join::command::{JoinForm, TokenCommand};
use crate::mounts::kernel::Way;
use crate::mounts::options::Source;
use crate::operator::buckets::BucketCommand;
use crate::operator::snapshots::SnapshotCommand;
use crate::operator::users::UserCommand;

const AFTER_HELP: &str = "\
Flags may be written with one dash or two. Every setting can also stand in a file (-config) or in the environment
(PREDASTORE_SECTION_KEY); a flag wins over the environment, the environment over the file. docs/OPERATIONS.md has them
all. The root credentials are made at the first start, or derived from a cluster's secret; `s3d credentials` prints
them.";

/// The Predastore object store and file system. Without a command it serves.
#[derive(Parser)]
#[command(name = "s3d", version, args_override_self = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Commands>,
    #[command(flatten)]
    settings: Flags,
}

#[derive(Subcommand)]
enum Commands {
    /// Print the root credentials, also while the daemon runs
    Credentials {
        #[command(flatten)]
        form: CredentialsForm,
        #[command(flatten)]
        settings: Flags,
    },
    /// Print how the daemon on this machine is; exit code 0: well, 1: somebody should look, 2: it does not serve
    Status {
        #[command(flatten)]
        settings: Flags,
    },
    /// Look for what will hurt the store on this machine, each finding with its remedy; exit code as `status`
    Doctor {
        #[command(flatten)]
        settings: Flags,
    },
    /// Verify a stopped store completely; exit code 0: clean, 1: damaged or not to be read
    Check {
        #[command(flatten)]
        settings: Flags,
    },
    /// Let a stopped store whose log lost acknowledged writes take writes again, without them
    Recover {
        #[command(flatten)]
        settings: Flags,
    },
    /// Mount a bucket, or a directory in it, as a file system; exit code 32: not mounted
    Mount {
        /// BUCKET, or BUCKET/PREFIX
        source: Source,
        /// Where: an existing directory
        dir: PathBuf,
        #[command(flatten)]
        form: MountForm,
        #[command(flatten)]
        settings: Flags,
    },
    /// Unmount it; exit code 32: it is mounted still
    Umount {
        /// Where it is mounted
        dir: PathBuf,
        /// At once, also if it does not answer; who uses it gets errors
        #[arg(long, short)]
        force: bool,
        /// At once; who uses it may go on
        #[arg(long, short)]
        lazy: bool,
        #[command(flatten)]
        settings: Flags,
    },
    /// Print what a daemon has mounted
    Mounts {
        #[command(flatten)]
        settings: Flags,
    },
    /// Have all that is stored read and verified from now on, in a cluster by the box that leads
    Scrub {
        #[command(flatten)]
        settings: Flags,
    },
    /// Copy prefixes as they are at one moment, moving no data
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Keep a mount while its daemon is away
    #[command(hide = true)]
    HoldMount {
        /// As the program itself says it
        what: String,
    },
    /// Write man pages and completions for shells into a directory
    #[command(hide = true)]
    Documents {
        /// Where; made if need be
        dir: PathBuf,
    },
    /// Buckets: what they hold; make, remove, versioning
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// Users with access keys of their own, and what they may do
    #[command(subcommand)]
    User(UserCommand),
    /// Tokens, by which other boxes join this one
    #[command(subcommand)]
    Token(TokenCommand),
    /// Join the cluster that a token names. The daemon on this machine runs and has stored nothing yet; it starts again, as a
    /// member
    Join {
        #[command(flatten)]
        form: JoinForm,
        #[command(flatten)]
        settings: Flags,
    },
    /// See a cluster, and change which nodes it has
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Measure any S3 endpoint, or two against each other
    Bench(Box<BenchArgs>),
}

#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct CredentialsForm {
    /// As lines for a shell: eval "$(s3d credentials --env)"
    #[arg(long)]
    env: bool,
    /// As a profile for ~/.aws/credentials
    #[arg(long)]
    aws: bool,
}

impl CredentialsForm {
    /// Which was asked for.
    pub(crate) fn form(&self) -> Form {
        match (self.env, self.aws) {
            (true, _) => Form::Env,
            (_, true) => Form::Aws,
            _ => Form::Plain,
        }
    }
}

#[derive(Args)]
struct MountForm {
    /// As in mount(8), with commas between: ro, rw, allow_other, uid=, gid=, umask=, hard, local_lock=, suid, dev, noexec, noatime, ...
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
}

/// How `s3d credentials` prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// For people.
    Plain,
    /// `export` lines.
    Env,
    /// `~/.aws/credentials`.
    Aws,
}

/// What to do.
pub(crate) enum Action {
    /// Run the daemon.
    Serve(Flags),
    /// Print the root credentials.
    Credentials(Form, Flags),
    /// Print how the daemon is.
    Status(Flags),
    /// Look at the machine.
    Doctor(Flags),
    /// Verify a stopped store.
    Check(Flags),
    /// Accept that acknowledged writes are lost.
    Recover(Flags),
    /// Mount a bucket.
    Mount(MountWish, Flags),
    /// Unmount it.
    Umount(PathBuf, Way, Flags),
    /// Print what is mounted.
    Mounts(Flags),
    /// Have all that is stored verified.
    Scrub(Flags),
    /// Take, show, copy or remove snapshots.
    Snapshot(SnapshotCommand, Flags),
    /// Keep a mount while its daemon is away.
    HoldMount(String),
    /// Write man pages and completions.
    Documents(PathBuf),
    /// See or change buckets.
    Bucket(BucketCommand, Flags),
    /// See or change users.
    User(UserCommand, Flags),
    /// Make, show or end tokens.
    Token(TokenCommand, Flags),
    /// Join a cluster.
    Join(JoinForm, Flags),
    /// See or change a cluster.
    Cluster(ClusterCommand, Flags),
    /// Measure an endpoint.
    Bench(Box<BenchArgs>),
}

/// What to mount, where and how.
pub(crate) struct MountWish {
    /// What.
    pub(crate) source: Source,
    /// Where.
    pub(crate) dir: PathBuf,
    /// How; not judged yet.
    pub(crate) options: Vec<String>,
}

/// Settings given as flags, in order.
#[derive(Default)]
pub(crate) struct Flags(pub(crate) Vec<(&'static Setting, String)>);

impl Flags {
    /// The backend of a cluster: whoever asks for one need not say so.
    fn distributed() -> Flags {
        let backend = SETTINGS.iter().find(|setting| setting.key == "storage.backend");
        Flags(backend.map(|setting| (setting, "distributed".to_owned())).into_iter().collect())
    }

    /// These, then `later` ones, which win.
    pub(crate) fn then(mut self, later: Flags) -> Flags {
        self.0.extend(later.0);
        self
    }
}

impl Cli {
    /// Reads the process's arguments; prints help or an error and exits where that is what they ask for.
    pub(crate) fn from_process() -> Action {
        Cli::parse_from(normalise(std::env::args_os())).action()
    }

    fn action(self) -> Action {
        match self.command {
            None => Action::Serve(self.settings),
            Some(Commands::Credentials { form, settings }) => {
                Action::Credentials(form.form(), self.settings.then(settings))
            }
            Some(Commands::Status { settings }) => Action::Status(self.settings.then(settings)),
            Some(Commands::Doctor { settings }) => Action::Doctor(self.settings.then(settings)),
            Some(Commands::Check { settings }) => Action::Check(self.settings.then(settings)),
            Some(Commands::Recover { settings }) => Action::Recover(self.settings.then(settings)),
            Some(Commands::Mount { source, dir, form, settings }) => {
                Action::Mount(MountWish { source, dir, options: form.options }, self.settings.then(settings))
            }
            Some(Commands::Umount { dir, force, lazy, settings }) => {
                let way = match (force, lazy) {
                    (true, _) => Way::Force,
                    (false, true) => Way::Lazy,
                    (false, false) => Way::Plain,
                };
                Action::Umount(dir, way, self.settings.then(settings))
            }
            Some(Commands::Mounts { settings }) => Action::Mounts(self.settings.then(settings)),
            Some(Commands::Scrub { settings }) => Action::Scrub(self.settings.then(settings)),
            Some(Commands::Snapshot(mut command)) => {
                let settings = command.take_settings();
                Action::Snapshot(command, self.settings.then(settings))
            }
            Some(Commands::HoldMount { what }) => Action::HoldMount(what),
            Some(Commands::Documents { dir }) => Action::Documents(dir),
            Some(Commands::Bucket(mut command)) => {
                let settings = command.take_settings();
                Action::Bucket(command, self.settings.then(settings))
            }
            Some(Commands::User(mut command)) => {
                let settings = command.take_settings();
                Action::User(command, self.settings.then(settings))
            }
            Some(Commands::Token(mut command)) => {
                let settings = command.take_settings();
                Action::Token(command, self.settings.then(settings))
            }
            Some(Commands::Join { form, settings }) => Action::Join(form, self.settings.then(settings)),
            Some(Commands::Cluster(mut command)) => {
                let settings = command.take_settings();
                Action::Cluster(command, Flags::distributed().then(self.settings).then(settings))
            }
            Some(Commands::Bench(bench)) => Action::Bench(bench),
        }
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let flags = SETTINGS.iter().filter_map(|setting| setting.flag.map(|flag| (setting, flag)));
        flags.fold(command, |command, (setting, flag)| command.arg(arg(setting, flag)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args(command)
    }
}

fn arg(setting: &Setting, flag: &'static str) -> Arg {
    let help = match setting.default {
        "" => setting.about.to_owned(),
        default => format!("{} [default: {default}]", setting.about),
    };
    let arg = Arg::new(flag).long(flag).help(help).action(ArgAction::Append).help_heading("Settings");
    match setting.value_name {
        "" => arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("true|false"),
        name => arg.value_name(name),
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Flags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS {
            let Some(flag) = setting.flag else { continue };
            let values = matches.get_many::<String>(flag).into_iter().flatten();
            self.0.extend(values.map(|value| (setting, value.clone())));
        }
        Ok(())
    }
}

/// Gives long flags that came with one dash their second, once, before clap sees them: there are no flags of one
/// letter that could be run together. What stands behind `--` stays as it is.
fn normalise(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut verbatim = false;
    let second_dash = |arg: OsString| {
        verbatim |= arg == "--";
        if verbatim || !arg.to_str().is_some_and(is_long_with_one_dash) {
            return arg;
        }
        let mut long = OsString::from("-");
        long.push(arg);
        long
    };
    args.map(second_dash).collect()
}

fn is_long_with_one_dash(arg: &str) -> bool {
    let name = arg.strip_prefix('-').unwrap_or_default().as_bytes();
    name.len() > 1 && name[..2].iter().all(u8::is_ascii_alphabetic)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    fn normal(args: &[&str]) -> Vec<String> {
        normalise(args.iter().map(OsString::from)).into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    fn flags(args: &[&str]) -> Vec<(&'static str, String)> {
        let cli = Cli::try_parse_from(normal(args)).unwrap();
        let flags = match cli.action() {
            Action::Serve(flags)
            | Action::Check(flags)
            | Action::Status(flags)
            | Action::Doctor(flags)
            | Action::Recover(flags)
            | Action::Credentials(_, flags)
            | Action::Mount(_, flags)
            | Action::Umount(_, _, flags)
            | Action::Mounts(flags)
            | Action::Scrub(flags)
            | Action::Bucket(_, flags)
            | Action::User(_, flags)
            | Action::Snapshot(_, flags)
            | Action::Token(_, flags)
            | Action::Join(_, flags)
            | Action::Cluster(_, flags) => flags,
            Action::HoldMount(_) | Action::Documents(_) | Action::Bench(_) => Flags::default(),
        };
        let mut pairs: Vec<_> = flags.0.into_iter().map(|(setting, value)| (setting.key, value)).collect();
        pairs.sort();
        pairs
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn one_dash_becomes_two_for_long_flags_only() {
        assert_eq!(normal(&["s3d", "-config", "x", "-port=1"]), ["s3d", "--config", "x", "--port=1"]);
        assert_eq!(normal(&["s3d", "--port", "1", "-h", "-V"]), ["s3d", "--port", "1", "-h", "-V"]);
        assert_eq!(normal(&["s3d", "-db-node", "-1", "-", "-x=y"]), ["s3d", "--db-node", "-1", "-", "-x=y"]);
        assert_eq!(normal(&["s3d", "--", "-port"]), ["s3d", "--", "-port"]);
    }

    #[test]
    fn a_flag_written_wrongly_is_named_with_the_right_one() {
        let error = Cli::try_parse_from(normal(&["s3d", "-prot", "1"])).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("'--prot'") && error.contains("'--port'"), "{error}");
    }

    #[test]
    fn every_flag_of_the_issue_is_there_with_one_dash_or_two() {
        let names = [
            ("config", "config"),
            ("backend", "storage.backend"),
            ("node", "cluster.node"),
            ("db-node", "cluster.db_node"),
            ("port", "server.port"),
            ("tls-cert", "server.tls.cert_file"),
            ("tls-key", "server.tls.key_file"),
            ("tls", "server.tls.enabled"),
            ("data-dir", "storage.data_dir"),
            ("log-level", "log.level"),
        ];
        for (flag, key) in names {
            let expected = vec![(key, "7".to_owned())];
            assert_eq!(flags(&["s3d", &format!("-{flag}"), "7"]), expected);
            assert_eq!(flags(&["s3d", &format!("--{flag}"), "7"]), expected);
            assert_eq!(flags(&["s3d", &format!("-{flag}=7")]), expected);
        }
    }

    #[test]
    fn db_is_a_switch_and_takes_no_word_after_it() {
        let expected = vec![("cluster.db_node", "1".to_owned()), ("cluster.db_only", "true".to_owned())];
        assert_eq!(flags(&["s3d", "-db", "-db-node", "1"]), expected);
    }

    #[test]
    fn settings_may_stand_before_or_behind_the_command() {
        assert_eq!(flags(&["s3d", "-data-dir", "a", "check"]), [("storage.data_dir", "a".to_owned())]);
        assert_eq!(flags(&["s3d", "check", "-data-dir", "a"]), [("storage.data_dir", "a".to_owned())]);
    }

    #[test]
    fn a_mount_is_asked_for_as_with_mount() {
        let args = ["s3d", "mount", "photos/a", "/mnt", "-o", "ro", "-data-dir", "d", "-o", "allow_other,uid=7"];
        let Action::Mount(wish, flags) = Cli::try_parse_from(normal(&args)).unwrap().action() else { panic!() };
        assert_eq!((wish.source.to_string().as_str(), wish.dir.to_str()), ("photos/a", Some("/mnt")));
        assert_eq!((wish.options.join("|").as_str(), flags.0.len()), ("ro|allow_other,uid=7", 1));
        let ways = [("--force", Way::Force), ("-f", Way::Force), ("-lazy", Way::Lazy), ("-l", Way::Lazy)];
        for (flag, expected) in ways {
            let cli = Cli::try_parse_from(normal(&["s3d", "umount", flag, "/mnt"])).unwrap();
            assert!(matches!(cli.action(), Action::Umount(_, way, _) if way == expected), "{flag}");
        }
        assert!(Cli::try_parse_from(normal(&["s3d", "mount", "/photos", "/mnt"])).is_err());
    }

    #[test]
    fn a_snapshot_is_asked_for_by_bucket_and_prefix() {
        let args = ["s3d", "snapshot", "create", "vol/a/", "before", "-data-dir", "d"];
        let Action::Snapshot(SnapshotCommand::Create { source, name, .. }, flags) =
            Cli::try_parse_from(normal(&args)).unwrap().action()
        else {
            panic!()
        };
        assert_eq!((source.to_string().as_str(), name.as_str(), flags.0.len()), ("vol/a", "before", 1));
        for args in [&["create", "vol/a"][..], &["clone", "vol", "vol/b"], &["delete", "vol/a/b"]] {
            assert!(Cli::try_parse_from(normal(&[&["s3d", "snapshot"], args].concat())).is_err(), "{args:?}");
        }
    }

    #[test]
    fn a_later_flag_wins() {
        let cli = Cli::try_parse_from(normal(&["s3d", "-port", "1", "-port", "2"])).unwrap();
        let Action::Serve(flags) = cli.action() else { panic!("no command was given") };
        let config = crate::config::Config::load(&flags.0, &[]).unwrap();
        assert_eq!(config.server.address.port(), 2);
    }
}
