//! `predastore token` and `predastore join`.

use std::fmt::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use super::daemon::{Ask, Row, Standing, Told};
use crate::cli::Flags;
use crate::config::Span;
use crate::mounts::command::{Failure, ask_within};
use crate::mounts::protocol::{Reply, Request};
use crate::operator::{second, strange};

/// A daemon that starts again as a member opens its store, and waits for the others.
const RESTART_PATIENCE: Duration = Duration::from_secs(120);
/// What it did before ends in that time: requests are let end.
const END_PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(300);

/// What may be asked about tokens.
#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, and print the line that another box joins with. The first one makes this box the first of a cluster: its
    /// store stays as it is, and its daemon starts again, for a second. There is no way back
    Create {
        /// How long it is good
        #[arg(long, default_value = "1h")]
        ttl: Span,
        /// For how many boxes it is good
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// Where other boxes reach this one [default: its first address, port 6660]
        #[arg(long, value_name = "HOST[:PORT]")]
        address: Option<String>,
        #[command(flatten)]
        settings: Flags,
    },
    /// The tokens that are still good
    List {
        #[command(flatten)]
        settings: Flags,
    },
    /// End a token
    Revoke {
        /// Its id, as `list` tells it
        id: String,
        #[command(flatten)]
        settings: Flags,
    },
}

impl TokenCommand {
    /// The settings that came with the command.
    pub(crate) fn take_settings(&mut self) -> Flags {
        std::mem::take(match self {
            TokenCommand::Create { settings, .. }
            | TokenCommand::List { settings }
            | TokenCommand::Revoke { settings, .. } => settings,
        })
    }
}

/// How a box joins.
#[derive(Args)]
pub(crate) struct JoinForm {
    /// As `predastore token create` printed it on a box of the cluster
    token: String,
    /// Only show what would become of the cluster
    #[arg(long)]
    dry_run: bool,
    /// Where the other boxes reach this one [default: the address that it dials them from, port 6660]
    #[arg(long, value_name = "HOST[:PORT]")]
    address: Option<String>,
}

/// What to print.
///
/// # Errors
/// The daemon refuses, or cannot be asked.
pub(crate) fn token(socket: &Path, command: TokenCommand) -> Result<String> {
    match command {
        TokenCommand::Create { ttl, uses, address, settings: _ } => create(socket, ttl, uses, address.as_deref()),
        TokenCommand::List { settings: _ } => match told(socket, Ask::ListTokens {}, Duration::ZERO)? {
            Told::Tokens(rows) => Ok(listed(&rows)),
            other => Err(strange(&other)),
        },
        TokenCommand::Revoke { id, settings: _ } => match told(socket, Ask::RevokeToken { id }, Duration::ZERO)? {
            Told::Done {} => Ok(String::new()),
            other => Err(strange(&other)),
        },
    }
}

fn create(socket: &Path, ttl: Span, uses: u32, address: Option<&str>) -> Result<String> {
    let ask = || Ask::CreateToken { ttl_s: ttl.0.as_secs(), uses, address: address.map(str::to_owned) };
    let (deadline, mut patience) = (Instant::now() + RESTART_PATIENCE, Duration::ZERO);
    loop {
        match told(socket, ask(), patience) {
            Ok(Told::Token(made)) => {
                let Row { uses_left, expires_s, id } = made.row;
                let boxes = if uses_left == 1 { "one box".to_owned() } else { format!("{uses_left} boxes") };
                return Ok(format!(
                    "predastore join {}\n\nThis line, on another box, has it join. Good for {boxes} until {}; its id is {id}.\n",
                    made.text,
                    second(expires_s)
                ));
            }
            Ok(Told::Restarts {}) => eprintln!("this box becomes the first of a cluster, and its daemon starts again"),
            Ok(other) => return Err(strange(&other)),
            // It is ending just now, or not there yet.
            Err(error) if !patience.is_zero() && is_away(&error) && Instant::now() < deadline => {}
            Err(error) => return Err(error),
        }
        patience = RESTART_PATIENCE;
        thread::sleep(PAUSE);
    }
}

fn listed(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no token is good; `predastore token create` makes one\n".to_owned();
    }
    let mut text = format!("{:<10} {:<22} {}\n", "id", "good until", "boxes left");
    for row in rows {
        // Writing into a string has no way to fail.
        let _ = writeln!(text, "{:<10} {:<22} {}", row.id, second(row.expires_s), row.uses_left);
    }
    text
}

/// Joins, or shows what that would do; says what came of it as it comes.
///
/// # Errors
/// The daemon refuses, or cannot be asked; the cluster does not let this box in.
pub(crate) fn join(socket: &Path, form: JoinForm, mut say: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let JoinForm { token, dry_run, address } = form;
    match told(socket, Ask::Join { token, address, dry_run }, Duration::ZERO)? {
        Told::Plan { text } => say(&text)?,
        other => return Err(strange(&other)),
    }
    if dry_run {
        return say("nothing was changed; without --dry-run it is\n");
    }
    say("joining: the daemon starts again, as a member\n")?;
    let (ending, deadline) = (Instant::now() + END_PATIENCE, Instant::now() + RESTART_PATIENCE);
    loop {
        match told(socket, Ask::Standing {}, RESTART_PATIENCE) {
            Ok(Told::Standing(Standing { node: Some(node), is_placed: true, layout, voters })) => {
                let votes = if voters.contains(&node) { " and votes" } else { "" };
                return say(&format!("box {node} takes shards{votes}; new chunks are laid out as {layout}\n"));
            }
            Ok(Told::Standing(Standing { node: None, .. })) if Instant::now() > ending => {
                bail!("it has not joined after all: its log tells why; try again")
            }
            Ok(Told::Standing(_)) => {}
            Ok(other) => return Err(strange(&other)),
            Err(error) if is_away(&error) => {}
            Err(error) => return Err(error),
        }
        if Instant::now() > deadline {
            bail!(
                "it has joined, and has not got its place yet: can the others reach it? UDP and TCP port 6660 must be \
                 open on all boxes. `predastore status` and the log tell more"
            );
        }
        thread::sleep(PAUSE);
    }
}

/// Whether the daemon was just not there.
fn is_away(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<Failure>(), Some(Failure::Socket(_)))
}

fn told(socket: &Path, wanted: Ask, patience: Duration) -> Result<Told> {
    match ask_within(socket, &Request::Cluster(wanted), patience)? {
        Reply::Cluster(told) => Ok(told),
        other => Err(strange(&other)),
    }
}
