//! `s3d`: the Predastore daemon and its command line.
//!
//! - `cli`: flags and commands; `config`: every setting, judged before anything is touched.
//! - `serve`: the daemon's life; `store`: the one place where it meets the core and the S3 frontend.
//! - `identity`, `tls`, `durable`: certificates and root credentials; `derived`: those of a cluster; `credentials`:
//!   printing them.
//! - `admin`, `logging`: what an operator sees; `db_status`: what a db node of a cluster answers over HTTPS.
//! - `systemd`: sockets, readiness and the watchdog. `documents`: man pages and completions.
//! - `mounts`: buckets as file systems.
//! - `snapshots`: `snapshot`, copies of prefixes.
//! - `operator`: `status` and `doctor`, for whoever runs this machine.
//! - `memory`: how much the process keeps.
//! - `join`: boxes that join a cluster by a token.
//! - `cluster`: an operator's commands for a cluster; `bench`: measures any S3 endpoint.

mod admin;
mod bench;
mod cli;
mod cluster;
mod config;
mod credentials;
mod db_status;
mod derived;
mod documents;
mod durable;
mod identity;
mod join;
mod logging;
mod memory;
mod mounts;
mod nats;
mod operator;
mod serve;
mod sign;
mod store;
mod systemd;
mod tls;

use std::future::Future;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::stat::{Mode, umask};

use cli::{Action, Cli, Flags, MountWish};
use config::Config;
use mounts::command::Failure;
use mounts::options::Options;
use mounts::{command, helper, holder, probe};
use operator::snapshots;
use serve::Ended;

/// Exit code when the command line or the configuration is wrong; as clap's.
const EXIT_USAGE: u8 = 2;
/// How long `s3d mount` waits for a daemon that was started just before.
const START_PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    // What is stored is read by clients with a key, and by nobody on this machine but the daemon's user.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    if let Some(code) = other_name() {
        return code;
    }
    match Cli::from_process() {
        Action::Serve(flags) => with_config(Flags(flags.0.clone()), |config| {
            let _lines = logging::start(&config.log);
            Ok(serve(config, || Ok(Config::load(&flags.0, &environment())?)))
        }),
        Action::Credentials(form, flags) => with_config(flags, |config| {
            print(&credentials::print(&config, form)?)?;
            Ok(ExitCode::SUCCESS)
        }),
        Action::Status(flags) => with_config(flags, |config| {
            let (text, health) = operator::status::run(&config)?;
            print(&text)?;
            Ok(ExitCode::from(health.code()))
        }),
        Action::Doctor(flags) => with_config(flags, |config| {
            let (text, health) = operator::doctor::run(&config);
            print(&text)?;
            Ok(ExitCode::from(health.code()))
        }),
        Action::Check(flags) => with_config(flags, |config| {
            let _lines = logging::start(&config.log);
            check(&config)
        }),
        Action::Recover(flags) => with_config(flags, |config| {
            let _lines = logging::start(&config.log);
            print(&format!("{}\n", block_on(store::recover(&config))?))?;
            Ok(ExitCode::SUCCESS)
        }),
        Action::Bucket(command, flags) => with_config(flags, |config| {
            print(&operator::buckets::run(&config, command)?)?;
            Ok(ExitCode::SUCCESS)
        }),
        Action::User(command, flags) => with_config(flags, |config| {
            print(&operator::users::run(&config, command)?)?;
            Ok(ExitCode::SUCCESS)
        }),
        Action::Token(command, flags) => with_config(flags, |config| {
            print(&join::command::token(&config.control.socket, command)?)?;
            Ok(ExitCode::SUCCESS)
        }),
        Action::Join(form, flags) => with_config(flags, |config| {
            join::command::join(&config.control.socket, form, print)?;
            Ok(ExitCode::SUCCESS)
        }),
        Action::Cluster(command, flags) => with_config(flags, |config| {
            let (text, code) = block_on(cluster::run(&config, command))?;
            print(&text)?;
            Ok(code)
        }),
        Action::Mount(wish, flags) => mount(&wish, flags),
        Action::Umount(dir, way, flags) => with_control(flags, |control| command::unmount(&dir, way, Some(control))),
        Action::Mounts(flags) => with_control(flags, |control| {
            // A reader that went away is no error.
            let _ = print(&command::mounts(control)?);
            Ok(())
        }),
        Action::Scrub(flags) => over_control(flags, operator::scrub),
        Action::Snapshot(command, flags) => over_control(flags, |control| snapshots::run(control, command)),
        Action::HoldMount(what) => holder::run(&what),
        Action::Documents(dir) => exit(documents::write(&dir).map(|()| ExitCode::SUCCESS)),
        Action::Bench(args) => exit(bench::run(*args).map(|()| ExitCode::SUCCESS)),
    }
}

/// What this program does where it is called by another name.
fn other_name() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    let name = PathBuf::from(args.next()?);
    match name.file_name()?.to_str()? {
        probe::NAME => Some(probe::answer(args)),
        name => {
            let args: Vec<_> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
            helper::called_as(name, &args, &environment())
        }
    }
}

fn mount(wish: &MountWish, flags: Flags) -> ExitCode {
    let options = match Options::parse(wish.options.iter().map(String::as_str), false) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("s3d: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let flags = flags.then(helper::flags(&options.daemon));
    with_control(flags, |control| command::mount(&wish.source, &wish.dir, &options, control, START_PATIENCE))
}

/// Runs a command that speaks to a daemon.
fn with_control(flags: Flags, run: impl FnOnce(&Path) -> Result<(), Failure>) -> ExitCode {
    match config::control_socket(&flags.0, &environment()) {
        Ok(control) => command::exit("s3d", run(&control)),
        Err(error) => {
            eprintln!("s3d: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Runs a command that speaks to a daemon, and prints what comes of it.
fn over_control(flags: Flags, run: impl FnOnce(&Path) -> Result<String>) -> ExitCode {
    match config::control_socket(&flags.0, &environment()) {
        Ok(control) => exit(run(&control).and_then(|text| print(&text)).map(|()| ExitCode::SUCCESS)),
        Err(error) => {
            eprintln!("s3d: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// The environment, with what the machine it runs on says besides.
fn environment() -> Vec<(String, String)> {
    let own = std::env::vars_os();
    let own = own.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    config::installed::with_installed(own)
}

fn with_config(flags: Flags, run: impl FnOnce(Config) -> Result<ExitCode>) -> ExitCode {
    match Config::load(&flags.0, &environment()) {
        Ok(config) => exit(run(config)),
        Err(error) => {
            eprintln!("s3d: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn exit(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("s3d: {error:#}");
        ExitCode::FAILURE
    })
}

/// Logs its end, too: whoever reads the log as JSON is to find the reason there. `reload`: the configuration, when the
/// daemon is to start again.
fn serve(config: Config, reload: impl Fn() -> Result<Config>) -> ExitCode {
    let served = systemd::Inherited::take().and_then(|mut inherited| {
        let mut config = config;
        loop {
            match block_on(serve::run(config, &mut inherited))? {
                Ended::Stopped => return Ok(()),
                Ended::Again => config = reload()?,
            }
        }
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if tracing::enabled!(tracing::Level::ERROR) => {
            tracing::error!(error = format!("{error:#}"), "s3d ends");
            ExitCode::FAILURE
        }
        Err(error) => exit(Err(error)),
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Runtime::new().context("no threads for the runtime")?.block_on(work)
}

fn check(config: &Config) -> Result<ExitCode> {
    let findings = block_on(store::check(config))?;
    for line in &findings.damage {
        print(&format!("{line}\n"))?;
    }
    print(&format!("{}\n", findings.summary))?;
    Ok(if findings.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// To stdout; a reader that went away is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
