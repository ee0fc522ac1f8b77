//! A cluster of real `s3d` processes on this machine, with one `cluster.toml`.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Network;
use crate::s3d::{Config, PATIENCE, S3d, free_port};

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
    /// Where each node's directory is: `db-ID`, `node-ID`.
    pub dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts all processes and waits until each serves.
    ///
    /// # Errors
    /// When one exits or does not serve in time.
    pub fn start(shape: &Shape, config: &Config) -> Result<Cluster> {
        Cluster::start_with(shape, shape.commands(), config, None)
    }

    /// As [`Cluster::start`], each process on the host of `network` with its index.
    ///
    /// # Errors
    /// As there, and when the network has too few hosts.
    pub fn start_on(network: &Network, shape: &Shape, config: &Config) -> Result<Cluster> {
        ensure!(network.hosts.len() >= shape.processes.len(), "a process without a host");
        Cluster::start_with(shape, shape.commands(), config, Some(network))
    }

    /// Starts all nodes of a shape in one process.
    ///
    /// # Errors
    /// When it exits or does not serve in time.
    pub fn start_as_one(shape: &Shape, config: &Config) -> Result<Cluster> {
        Cluster::start_with(shape, vec![distributed()], config, None)
    }

    fn start_with(
        shape: &Shape,
        commands: Vec<Vec<String>>,
        config: &Config,
        network: Option<&Network>,
    ) -> Result<Cluster> {
        let dir = tempfile::tempdir()?;
        let secret = dir.path().join("cluster.secret");
        std::fs::write(&secret, "3f9c4e1a7b2d8860514fae93c7d0b6e2")?;
        restrict(&secret)?;
        let toml = toml(shape, dir.path(), network)?;
        let start = |(index, args): (usize, Vec<String>)| {
            let mut config = config.clone();
            config.toml = Some(toml.clone());
            config.data_dir = Some(dir.path().join(format!("process-{index}")));
            config.args = args;
            config.namespace = network.map(|network| network.hosts[index].namespace.clone());
            S3d::stopped(config)
        };
        let processes = commands.into_iter().enumerate().map(start).collect::<Result<Vec<_>>>()?;
        let mut cluster = Cluster { processes, dir };
        cluster.restart_all()?;
        Ok(cluster)
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

    /// The process that leads, as one of them believes.
    ///
    /// # Errors
    /// When none says that it leads within the harness's patience.
    pub fn leader(&self) -> Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for (index, process) in self.processes.iter().enumerate() {
                let leads = process.status().ok().and_then(|status| status.get("store")?.get("raft_leads")?.as_f64());
                if leads == Some(1.0) {
                    return Ok(index);
                }
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

fn toml(shape: &Shape, dir: &Path, network: Option<&Network>) -> Result<String> {
    let mut text = format!(
        "version = \"1.0\"\nregion = \"eu-central-1\"\n[cluster]\nsecret_file = \"{}\"\n[rs]\ndata = {}\nparity = {}\n",
        dir.join("cluster.secret").display(),
        shape.data,
        shape.parity
    );
    let mut node = |kind: &str, name: &str, id: u64, host: Ipv4Addr| -> Result<()> {
        let (port, path) = (free_port()?, dir.join(format!("{name}-{id}")));
        let path = path.display();
        Ok(write!(text, "[[{kind}]]\nid = {id}\nhost = \"{host}\"\nport = {port}\npath = \"{path}\"\n")?)
    };
    for (index, roles) in shape.processes.iter().enumerate() {
        let host = network.map_or(Ipv4Addr::LOCALHOST, |network| network.hosts[index].address);
        roles.db.map_or(Ok(()), |id| node("db", "db", id, host))?;
        roles.node.map_or(Ok(()), |id| node("nodes", "node", id, host))?;
    }
    Ok(text)
}

fn restrict(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).context("chmod")
}
