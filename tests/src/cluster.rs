//! A cluster of real `s3d` processes on this machine, with one `cluster.toml`.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Network;
use crate::s3d::{Config, PATIENCE, S3d, free_port};

/// How long it may take until nothing is below target.
const HEALTHY_PATIENCE: Duration = Duration::from_secs(180);

/// The roles of one process.
#[derive(Clone, Copy, Debug)]
pub struct Roles {
    /// Its db node's id.
    pub db: Option<u64>,
    /// Its shard node's id.
    pub node: Option<u64>,
}

/// How many nodes there are, in which processes.
#[derive(Clone, Debug)]
pub struct Shape {
    /// k.
    pub data: u8,
    /// m.
    pub parity: u8,
    /// One entry a process.
    pub processes: Vec<Roles>,
}

impl Recounts {
    /// Before the first.
    pub fn none() -> Recounts {
        Recounts { leader: (usize::MAX, 0), count: 0 }
    }
}

impl Shape {
    /// `count` processes, each with a shard node; the first `db_count` with a db node too.
    pub fn boxes(count: u64, db_count: u64, (data, parity): (u8, u8)) -> Shape {
        let roles = |index| Roles { db: (index < db_count).then_some(index + 1), node: Some(index) };
        Shape { data, parity, processes: (0..count).map(roles).collect() }
    }

    /// Every node in a process of its own: db nodes first.
    pub fn apart(db_count: u64, node_count: u64, (data, parity): (u8, u8)) -> Shape {
        let dbs = (1..=db_count).map(|id| Roles { db: Some(id), node: None });
        let nodes = (0..node_count).map(|id| Roles { db: None, node: Some(id) });
        Shape { data, parity, processes: dbs.chain(nodes).collect() }
    }

    /// What makes each process what it is.
    fn commands(&self) -> Vec<Vec<String>> {
        self.processes.iter().map(|roles| arguments(*roles)).collect()
    }
}

/// The processes; every one is a gateway.
pub struct Cluster {
    /// In the order of the shape.
    pub processes: Vec<S3d>,
    /// Where each node's directory is, `db-ID`, `node-ID`, unless the processes were given homes.
    pub dir: tempfile::TempDir,
}

/// What a leader has recounted: see [`Cluster::wait_healthy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recounts {
    /// The leading process, by its place in the cluster and its process id.
    leader: (usize, u32),
    count: u64,
}

impl Cluster {
    /// Starts all processes and waits until each serves.
    ///
    /// # Errors
    /// When one exits or does not serve in time.
    pub fn start(shape: &Shape, config: &Config) -> Result<Cluster> {
        Cluster::start_in(shape, config, &[])
    }

    /// Like [`Cluster::start`], with all that process `i` keeps in `homes[i]`.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_in(shape: &Shape, config: &Config, homes: &[PathBuf]) -> Result<Cluster> {
        Cluster::start_with(shape, shape.commands(), config, homes, None)
    }

    /// As [`Cluster::start`], each process on the host of `network` with its index.
    ///
    /// # Errors
    /// As there, and when the network has too few hosts.
    pub fn start_on(network: &Network, shape: &Shape, config: &Config) -> Result<Cluster> {
        ensure!(network.hosts.len() >= shape.processes.len(), "a process without a host");
        Cluster::start_with(shape, shape.commands(), config, &[], Some(network))
    }

    /// Starts all nodes of a shape in one process.
    ///
    /// # Errors
    /// When it exits or does not serve in time.
    pub fn start_as_one(shape: &Shape, config: &Config) -> Result<Cluster> {
        Cluster::start_with(shape, vec![distributed()], config, &[], None)
    }

    /// As [`Cluster::start`], but nothing runs yet.
    ///
    /// # Errors
    /// The disk.
    pub fn stopped(shape: &Shape, config: &Config) -> Result<Cluster> {
        Cluster::stopped_with(shape, shape.commands(), config, &[], None)
    }

    fn start_with(
        shape: &Shape,
        commands: Vec<Vec<String>>,
        config: &Config,
        homes: &[PathBuf],
        network: Option<&Network>,
    ) -> Result<Cluster> {
        let mut cluster = Cluster::stopped_with(shape, commands, config, homes, network)?;
        cluster.restart_all()?;
        Ok(cluster)
    }

    fn stopped_with(
        shape: &Shape,
        commands: Vec<Vec<String>>,
        config: &Config,
        homes: &[PathBuf],
        network: Option<&Network>,
    ) -> Result<Cluster> {
        let dir = tempfile::tempdir()?;
        let secret = dir.path().join("cluster.secret");
        std::fs::write(&secret, "3f9c4e1a7b2d8860514fae93c7d0b6e2")?;
        restrict(&secret)?;
        let home = |index: usize| homes.get(index).map_or(dir.path(), PathBuf::as_path);
        let host = |index: usize| network.map_or(Ipv4Addr::LOCALHOST, |network| network.hosts[index].address);
        let toml = toml(shape, &secret, |index| (home(index), host(index)))?;
        let start = |(index, args): (usize, Vec<String>)| {
            let mut config = config.clone();
            config.toml = Some(format!("{toml}\n{}", config.toml.unwrap_or_default()));
            config.data_dir = Some(home(index).join(format!("process-{index}")));
            config.args = args;
            config.namespace = network.map(|network| network.hosts[index].namespace.clone());
            S3d::stopped(config)
        };
        let processes = commands.into_iter().enumerate().map(start).collect::<Result<Vec<_>>>()?;
        Ok(Cluster { processes, dir })
    }

    /// Writes one more process into `cluster.toml`, and spawns it without waiting until it serves. The others know nothing
    /// of that until they are started again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn grow(&mut self, roles: Roles) -> Result<()> {
        let mut config = self.processes.last().context("an empty cluster")?.config.clone();
        let toml = config.toml.get_or_insert_default();
        if let Some(id) = roles.db {
            toml.push_str(&node((self.dir.path(), Ipv4Addr::LOCALHOST), ("db", "db"), id)?);
        }
        if let Some(id) = roles.node {
            toml.push_str(&node((self.dir.path(), Ipv4Addr::LOCALHOST), ("nodes", "node"), id)?);
        }
        let toml = config.toml.clone();
        config.args = arguments(roles);
        config.data_dir = Some(self.dir.path().join(format!("process-{}", self.processes.len())));
        let mut process = S3d::stopped(config)?;
        process.spawn()?;
        self.processes.push(process);
        // From its next start on, everybody has it.
        self.processes.iter_mut().for_each(|process| process.config.toml = toml.clone());
        Ok(())
    }

    /// The feature level, as `s3d cluster status` has it.
    ///
    /// # Errors
    /// When nobody tells.
    pub fn feature_level(&self) -> Result<u64> {
        let operator = self.processes.last().context("an empty cluster")?;
        let (_, text) = operator.cluster(&["status", "--json"])?;
        let status: serde_json::Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        status["feature_level"].as_u64().with_context(|| format!("no feature level in {text}"))
    }

    /// Asks `s3d cluster status --json` until `is_so`.
    ///
    /// # Errors
    /// Unless it is so within `patience`; with the last status as text.
    pub fn wait_status(&self, patience: Duration, is_so: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
        let operator = self.processes.last().context("an empty cluster")?;
        let deadline = Instant::now() + patience;
        loop {
            let (_, text) = operator.cluster(&["status", "--json"])?;
            if serde_json::from_str(&text).is_ok_and(|status| is_so(&status)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("after {patience:?}:\n{}\n{}", operator.cluster(&["status"])?.1, self.log_tails());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Starts every process that does not run, and waits until all serve.
    ///
    /// # Errors
    /// When one exits or does not serve in time.
    pub fn restart_all(&mut self) -> Result<()> {
        let mut stopped: Vec<_> = self.processes.iter_mut().filter(|process| process.pid().is_err()).collect();
        stopped.iter_mut().try_for_each(|process| process.spawn())?;
        stopped.iter_mut().try_for_each(|process| process.wait_until_serving())
    }

    /// SIGKILL to all of them, at about the same time.
    pub fn kill_all(&mut self) {
        for process in &self.processes {
            let _ = process.signal(nix::sys::signal::Signal::SIGKILL);
        }
        self.processes.iter_mut().for_each(S3d::kill);
    }

    /// SIGKILL to some, one after another.
    pub fn kill(&mut self, indexes: &[usize]) {
        indexes.iter().for_each(|index| self.processes[*index].kill());
    }

    /// All processes but these, by their places.
    pub fn others(&self, dead: &[usize]) -> Vec<usize> {
        (0..self.processes.len()).filter(|index| !dead.contains(index)).collect()
    }

    /// The processes at these places.
    pub fn at(&self, indexes: &[usize]) -> Vec<&S3d> {
        indexes.iter().map(|index| &self.processes[*index]).collect()
    }

    /// What the leader has recounted so far.
    ///
    /// # Errors
    /// When nobody leads.
    pub fn recounts(&self) -> Result<Recounts> {
        Ok(self.repair_state()?.0)
    }

    /// What the leader has recounted, and how many chunks are below target.
    fn repair_state(&self) -> Result<(Recounts, u64)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let index = self.leader()?;
            let (leader, process) = ((index, self.processes[index].pid()?), &self.processes[index]);
            let figure = |name: &str| process.status().ok().and_then(|status| status["store"][name].as_u64());
            // It may lead no more.
            match (figure("raft_leads"), figure("recounts"), figure("chunks_below_target")) {
                (Some(1), Some(count), Some(below)) => return Ok((Recounts { leader, count }, below)),
                _ => ensure!(Instant::now() < deadline, "the leader {leader:?} does not say how repair is"),
            }
        }
    }

    /// Waits until the leader knows of nothing below target.
    ///
    /// # Errors
    /// When it does for more than three minutes.
    pub fn wait_whole(&self) -> Result<()> {
        let deadline = Instant::now() + HEALTHY_PATIENCE;
        loop {
            let (_, below) = self.repair_state()?;
            if below == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{below} chunks are below target\n{}", self.log_tails());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a recount that ended after `before` was asked has left nothing below target.
    ///
    /// # Errors
    /// When something is below target, or not recounted, for more than three minutes.
    pub fn wait_healthy(&self, before: Recounts) -> Result<()> {
        let deadline = Instant::now() + HEALTHY_PATIENCE;
        loop {
            let (now, below) = self.repair_state()?;
            let first = if now.leader == before.leader { before.count } else { 0 };
            if now.count > first && below == 0 {
                return Ok(());
            }
            let late = || format!("{below} chunks are below target, {now:?} after {before:?}\n{}", self.log_tails());
            ensure!(Instant::now() < deadline, late());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The process that says now that it leads.
    pub fn leads_now(&self) -> Option<usize> {
        let leads = |process: &S3d| process.status().ok().and_then(|status| status["store"]["raft_leads"].as_u64());
        self.processes.iter().position(|process| leads(process) == Some(1))
    }

    /// The process that leads.
    ///
    /// # Errors
    /// When none says that it leads within the harness's patience.
    pub fn leader(&self) -> Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(index) = self.leads_now() {
                return Ok(index);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("nobody leads after {PATIENCE:?}")
    }

    /// Ends all of them with SIGTERM.
    ///
    /// # Errors
    /// When one does not end with 0.
    pub fn stop_all(&mut self) -> Result<()> {
        for process in &self.processes {
            process.signal(nix::sys::signal::Signal::SIGTERM)?;
        }
        for (index, process) in self.processes.iter_mut().enumerate() {
            let status = process.wait_exit(PATIENCE)?;
            ensure!(status.success(), "process {index} ended with {status}\n{}", process.log_tail());
        }
        Ok(())
    }

    /// The last warnings, errors and refused requests of each process: a load buries them.
    pub fn troubles(&self) -> String {
        let trouble = |line: &&str| ["WARN", "ERROR", " status=5"].iter().any(|word| line.contains(word));
        let of = |(index, process): (usize, &S3d)| {
            let log = process.log_text();
            let lines: Vec<&str> = log.lines().filter(trouble).collect();
            format!("--- troubles of process {index}\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
        };
        self.processes.iter().enumerate().map(of).collect::<Vec<_>>().join("\n")
    }

    /// The ends of all logs.
    pub fn log_tails(&self) -> String {
        self.processes.iter().map(S3d::log_tail).collect::<Vec<_>>().join("\n")
    }
}

fn distributed() -> Vec<String> {
    vec!["-backend".to_owned(), "distributed".to_owned()]
}

fn arguments(roles: Roles) -> Vec<String> {
    let mut args = distributed();
    if let Some(node) = roles.node {
        args.extend(["-node".to_owned(), node.to_string()]);
    } else {
        args.push("-db".to_owned());
    }
    if let Some(db) = roles.db {
        args.extend(["-db-node".to_owned(), db.to_string()]);
    }
    args
}

/// `place`: of each process, where its nodes' directories are, and its host.
fn toml<'a>(shape: &Shape, secret: &Path, place: impl Fn(usize) -> (&'a Path, Ipv4Addr)) -> Result<String> {
    let mut text = format!(
        "version = \"1.0\"\nregion = \"eu-central-1\"\n[cluster]\nsecret_file = \"{}\"\n[rs]\ndata = {}\nparity = {}\n",
        secret.display(),
        shape.data,
        shape.parity
    );
    for (index, roles) in shape.processes.iter().enumerate() {
        for (list, name, id) in [("db", "db", roles.db), ("nodes", "node", roles.node)] {
            if let Some(id) = id {
                text.write_str(&node(place(index), (list, name), id)?)?;
            }
        }
    }
    Ok(text)
}

fn node((dir, host): (&Path, Ipv4Addr), (list, name): (&str, &str), id: u64) -> Result<String> {
    let (port, path) = (free_port()?, dir.join(format!("{name}-{id}")));
    Ok(format!("[[{list}]]\nid = {id}\nhost = \"{host}\"\nport = {port}\npath = \"{}\"\n", path.display()))
}

fn restrict(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).context("chmod")
}
