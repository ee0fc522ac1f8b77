//! `s3d cluster`: what an operator sees of a cluster, and how it is changed.
//!
//! - `status`: what was asked of all nodes, judged; `show`: as text or JSON; `change`: other nodes, with a dry run first.
//!
//! It speaks to the nodes as one of them: it needs the cluster's configuration and its secret, and no running process on
//! this machine.

mod change;
mod show;
mod status;
#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use predastore::env::Env;
use predastore::ids::NodeId;
use predastore::node::control::{Console, Overview};
use predastore::node::members;

use tokio::time::Instant;

use crate::cli::Flags;
use crate::config::Config;
use crate::store::core_cluster;

/// How long a db node may take to start that is to be added.
const START_PATIENCE: Duration = Duration::from_secs(30);
const START_PAUSE: Duration = Duration::from_millis(500);

/// What may be asked.
#[derive(Subcommand)]
pub(crate) enum ClusterCommand {
    /// Who is up, who leads, how full, what is to be repaired; exit code 0: healthy, 1: degraded, 2: unavailable
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Flags,
    },
    /// The map: which nodes take shards, and their shares
    Ring {
        #[command(flatten)]
        settings: Flags,
    },
    /// Have a shard node of the configuration take shards; one that is being drained stays after all
    AddNode {
        /// Its id, as the configuration has it
        id: u64,
        #[command(flatten)]
        form: ChangeForm,
    },
    /// Have a shard node give away all it has
    Drain {
        /// Its id
        id: u64,
        #[command(flatten)]
        form: ChangeForm,
    },
    /// Have a shard node, dead or alive, replaced by another one
    Replace {
        /// Who goes
        old: u64,
        /// Who comes, as the configuration has it
        new: u64,
        #[command(flatten)]
        form: ChangeForm,
    },
    /// Forget a shard node that was drained
    RemoveNode {
        /// Its id
        id: u64,
        #[command(flatten)]
        form: ChangeForm,
    },
    /// Have a db node of the configuration vote; it must run, with an empty directory if it is new
    AddDb {
        /// Its id, as the configuration has it
        id: u64,
        #[command(flatten)]
        settings: Flags,
    },
    /// Make the store of a box, which is stopped, db node 1 of the cluster: its objects stay, and are written as shards once
    /// it runs. There is no way back. On the box itself
    Adopt {
        #[command(flatten)]
        form: ChangeForm,
    },
    /// Take a db node out of the cluster: before it goes for good, or because it has lost its disk
    RemoveDb {
        /// Its id
        id: u64,
        #[command(flatten)]
        settings: Flags,
    },
}

/// How a change of the map is made.
#[derive(clap::Args)]
pub(crate) struct ChangeForm {
    /// Make the change; without it, only its cost is shown
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    settings: Flags,
}

impl ClusterCommand {
    /// The settings that came with the command.
    pub(crate) fn take_settings(&mut self) -> Flags {
        std::mem::take(match self {
            ClusterCommand::Status { settings, .. }
            | ClusterCommand::Ring { settings }
            | ClusterCommand::AddDb { settings, .. }
            | ClusterCommand::RemoveDb { settings, .. } => settings,
            ClusterCommand::AddNode { form, .. }
            | ClusterCommand::Drain { form, .. }
            | ClusterCommand::Replace { form, .. }
            | ClusterCommand::RemoveNode { form, .. }
            | ClusterCommand::Adopt { form } => &mut form.settings,
        })
    }
}

/// A way into the cluster, and what its configuration says.
struct Operator {
    console: Console,
    configured: members::Cluster,
}

/// Runs a command; what it prints, and its exit code.
///
/// # Errors
/// The configuration has no cluster; nobody answers; it is refused.
pub(crate) async fn run(config: &Config, command: ClusterCommand) -> Result<(String, ExitCode)> {
    let configured = core_cluster(
        config.cluster.as_ref().context("this box is part of no cluster, or its member file is for root alone")?,
    );
    if let ClusterCommand::Adopt { form } = command {
        return Ok((adopt(&configured, form.yes)?, ExitCode::SUCCESS));
    }
    let console = Console::new(&configured, &Env::system())?;
    let operator = Operator { console, configured };
    let done = operator.carry_out(command).await;
    operator.console.close().await;
    done
}

/// The only one that works on this machine's files.
fn adopt(configured: &members::Cluster, yes: bool) -> Result<String> {
    let dir = members::adopt(configured, yes)?;
    let dir = dir.display();
    Ok(match yes {
        true => {
            format!("{dir} is db node 1 of the cluster now: start it, then add the others with `s3d cluster add-db`\n")
        }
        false => format!("{dir} would become db node 1 of the cluster for good; with --yes it does\n"),
    })
}

impl Operator {
    async fn carry_out(&self, command: ClusterCommand) -> Result<(String, ExitCode)> {
        let text = match command {
            ClusterCommand::Status { json, .. } => {
                let status = self.look().await;
                let text = if json { show::json(&status) } else { show::text(&status) };
                return Ok((text, status.health().exit_code()));
            }
            ClusterCommand::Ring { .. } => show::ring(&self.look().await)?,
            ClusterCommand::AddNode { id, form } => self.add_node(NodeId(id), form.yes).await?,
            ClusterCommand::Drain { id, form } => self.drain(NodeId(id), form.yes).await?,
            ClusterCommand::Replace { old, new, form } => self.replace(NodeId(old), NodeId(new), form.yes).await?,
            ClusterCommand::RemoveNode { id, form } => self.remove_node(NodeId(id), form.yes).await?,
            ClusterCommand::Adopt { .. } => bail!("a box is adopted where it is, and asks nobody"),
            ClusterCommand::AddDb { id, .. } => self.add_db(NodeId(id)).await?,
            ClusterCommand::RemoveDb { id, .. } => self.remove_db(NodeId(id)).await?,
        };
        Ok((text, ExitCode::SUCCESS))
    }

    /// The db node that leads, and what it says.
    async fn leader(&self) -> Result<Overview> {
        let overviews = self.console.overviews().await;
        let why: Vec<String> =
            (overviews.iter()).filter_map(|(_, answer)| answer.as_ref().err()).map(ToString::to_string).collect();
        let leader = overviews.into_iter().filter_map(|(_, answer)| answer.ok()).find(Overview::is_leader);
        leader.with_context(|| format!("no db node leads. {}", why.join("; ")))
    }

    async fn add_db(&self, db: NodeId) -> Result<String> {
        let known = self.configured.dbs.iter().find(|known| known.id == db);
        let address = &known.with_context(|| format!("[[db]] has no id {db}"))?.dial;
        self.until_up(db).await?;
        let leader = self.leader().await?;
        self.console.add_db(leader.node, db, address).await?;
        Ok(format!("db {db} at {address} votes\n"))
    }

    /// A db node that was started a moment ago is waited for.
    async fn until_up(&self, db: NodeId) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let overviews = self.console.overviews().await;
            match overviews.into_iter().find(|(node, _)| *node == db).map(|(_, answer)| answer) {
                Some(Ok(_)) => return Ok(()),
                Some(Err(error)) if Instant::now() > deadline => return Err(error.into()),
                None if Instant::now() > deadline => bail!("db {db} does not answer"),
                _ => tokio::time::sleep(START_PAUSE).await,
            }
        }
    }

    async fn remove_db(&self, db: NodeId) -> Result<String> {
        let leader = self.leader().await?;
        ensure!(leader.members.contains_key(&db), "db {db} is no member");
        self.console.remove_db(leader.node, db).await?;
        Ok(format!("db {db} is no member any more; take it out of [[db]] everywhere\n"))
    }
}
