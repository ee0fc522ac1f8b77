//! Hosts on one network that can be cut off from each other: network namespaces around a bridge.
//!
//! The namespaces have no names: they end with the descriptors held here and the processes in them, so that nothing is left
//! behind by a test that fails, or is killed.
//!
//! Invariant: packets are dropped where they arrive. Dropped where they leave, the sender would be told.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use crate::knobs::Need;
use crate::s3d::PATIENCE;
use crate::shell::{command, run};

/// What [`Network::new`] needs.
pub const NEEDS: [Need; 3] = [Need::Root, Need::Program("ip"), Need::Program("nft")];

/// A network namespace; clones are the same one.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<File>);

impl Namespace {
    fn new() -> Result<Namespace> {
        let made = std::thread::spawn(|| -> io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let file = made.join().map_err(|_| anyhow!("the thread panicked"))?.context("no network namespace")?;
        let namespace = Namespace(Arc::new(file));
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs `job` inside, on a thread of its own. Sockets opened there stay there.
    ///
    /// # Errors
    /// When it cannot be entered.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| setns(&*self.0, CloneFlags::CLONE_NEWNET).map(|()| job()));
            Ok(inside.join().map_err(|_| anyhow!("the thread panicked"))??)
        })
    }

    /// Makes `command` start inside.
    pub fn enter(&self, command: &mut Command) {
        let namespace = self.clone();
        // SAFETY: setns is one system call on a descriptor that is open until then; it touches no memory of ours.
        unsafe {
            command.pre_exec(move || Ok(setns(&*namespace.0, CloneFlags::CLONE_NEWNET)?));
        }
    }

    /// Runs a program inside, to its end; its standard output.
    fn call(&self, words: &[&str]) -> Result<String> {
        let mut command = command(words);
        self.enter(&mut command);
        run(&mut command)
    }

    fn ip(&self, arguments: &str) -> Result<()> {
        let words: Vec<&str> = ["ip"].into_iter().chain(arguments.split(' ')).collect();
        self.call(&words).map(drop)
    }

    /// What `ip` takes for a name.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// A host: a namespace with a loopback interface and one address on the bridge.
#[derive(Debug)]
pub struct Host {
    /// Where its processes run.
    pub namespace: Namespace,
    /// Its address.
    pub address: Ipv4Addr,
}

/// Hosts that all reach each other until something is cut.
#[derive(Debug)]
pub struct Network {
    /// By index.
    pub hosts: Vec<Host>,
    bridge: Namespace,
}

impl Network {
    /// `count` hosts, at most 200, once they reach each other.
    ///
    /// # Errors
    /// Where [`NEEDS`] are not met.
    pub fn new(count: usize) -> Result<Network> {
        let bridge = Namespace::new()?;
        bridge.ip("link add bridge type bridge")?;
        bridge.ip("link set bridge up")?;
        let hosts = (0..count).map(|index| attach(&bridge, index)).collect::<Result<_>>()?;
        let network = Network { hosts, bridge };
        let deadline = Instant::now() + PATIENCE;
        for (from, to) in network.pairs() {
            while !network.reaches(from, to)? {
                ensure!(Instant::now() < deadline, "host {from} does not reach host {to}");
            }
        }
        Ok(network)
    }

    /// Whether a datagram from one host comes to the other within 300 ms.
    ///
    /// # Errors
    /// When there is no socket.
    pub fn reaches(&self, from: usize, to: usize) -> Result<bool> {
        let (from, to) = (&self.hosts[from], &self.hosts[to]);
        let receiver = to.namespace.run(|| UdpSocket::bind((to.address, 0)))??;
        let sender = from.namespace.run(|| UdpSocket::bind((from.address, 0)))??;
        receiver.set_read_timeout(Some(Duration::from_millis(300)))?;
        // An unplugged host may say so.
        let _ = sender.send_to(b"?", receiver.local_addr()?);
        Ok(receiver.recv(&mut [0; 8]).is_ok())
    }

    /// Drops `percent` of what comes from host `from` at host `to`, whatever the other way does.
    ///
    /// # Errors
    /// When nft fails.
    pub fn drop_some(&self, from: usize, to: usize, percent: u8) -> Result<()> {
        let source = self.hosts[from].address;
        let host = &self.hosts[to].namespace;
        host.call(&["nft", "add table inet faults"])?;
        host.call(&["nft", "add chain inet faults input { type filter hook input priority 0; }"])?;
        let some = if percent < 100 { format!("numgen random mod 100 < {percent}") } else { String::new() };
        let rule = format!("ip saddr {source} {some} counter drop");
        host.call(&["nft", &format!("add rule inet faults input {rule}")]).map(drop)
    }

    /// Drops all that comes from host `from` at host `to`.
    ///
    /// # Errors
    /// When nft fails.
    pub fn cut(&self, from: usize, to: usize) -> Result<()> {
        self.drop_some(from, to, 100)
    }

    /// All that host `index` sends is dropped where it arrives; it hears the others.
    ///
    /// # Errors
    /// When nft fails.
    pub fn mute(&self, index: usize) -> Result<()> {
        self.others(index).try_for_each(|other| self.cut(index, other))
    }

    /// All that is sent to host `index` is dropped there; the others hear it.
    ///
    /// # Errors
    /// When nft fails.
    pub fn deafen(&self, index: usize) -> Result<()> {
        self.others(index).try_for_each(|other| self.cut(other, index))
    }

    /// Host `index` neither hears the others nor is heard.
    ///
    /// # Errors
    /// When nft fails.
    pub fn isolate(&self, index: usize) -> Result<()> {
        self.mute(index)?;
        self.deafen(index)
    }

    /// Two hosts do not hear each other; the others hear both.
    ///
    /// # Errors
    /// When nft fails.
    pub fn sever(&self, one: usize, other: usize) -> Result<()> {
        self.cut(one, other)?;
        self.cut(other, one)
    }

    /// Everybody loses `percent` of what comes from anybody.
    ///
    /// # Errors
    /// When nft fails.
    pub fn lose(&self, percent: u8) -> Result<()> {
        self.pairs().into_iter().try_for_each(|(from, to)| self.drop_some(from, to, percent))
    }

    /// Pulls the cable of host `index`.
    ///
    /// # Errors
    /// When ip fails.
    pub fn unplug(&self, index: usize) -> Result<()> {
        self.bridge.ip(&format!("link set host{index} down"))
    }

    /// Puts everything right again. How many packets were dropped since the last time.
    ///
    /// # Errors
    /// When nft or ip fails.
    pub fn heal(&self) -> Result<u64> {
        let mut dropped = 0;
        for (index, host) in self.hosts.iter().enumerate() {
            dropped += packets(&host.namespace.call(&["nft", "list ruleset"])?);
            host.namespace.call(&["nft", "flush ruleset"])?;
            self.bridge.ip(&format!("link set host{index} up"))?;
        }
        Ok(dropped)
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        (0..self.hosts.len()).flat_map(|to| self.others(to).map(move |from| (from, to))).collect()
    }

    fn others(&self, index: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.hosts.len()).filter(move |other| *other != index)
    }
}

fn attach(bridge: &Namespace, index: usize) -> Result<Host> {
    let namespace = Namespace::new()?;
    let address = Ipv4Addr::new(10, 77, 0, u8::try_from(index + 1)?);
    bridge.ip(&format!("link add host{index} type veth peer name eth0 netns {}", namespace.path()))?;
    bridge.ip(&format!("link set host{index} master bridge up"))?;
    namespace.ip(&format!("address add {address}/24 dev eth0"))?;
    namespace.ip("link set eth0 up")?;
    Ok(Host { namespace, address })
}

/// The sum of `counter packets N` in a listing of rules.
fn packets(rules: &str) -> u64 {
    let counts = rules.split("counter packets ").skip(1);
    counts.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::can_run;

    #[test]
    fn what_is_cut_is_cut_until_it_is_healed() -> Result<()> {
        if !can_run("what_is_cut_is_cut_until_it_is_healed", &NEEDS) {
            return Ok(());
        }
        let network = Network::new(3)?;
        let seen = || -> Result<Vec<(usize, usize)>> {
            let mut pairs = Vec::new();
            for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
                pairs.extend(network.reaches(from, to)?.then_some((from, to)));
            }
            Ok(pairs)
        };
        let all = vec![(0, 1), (1, 0), (1, 2), (2, 1)];
        assert_eq!(seen()?, all);
        network.mute(0)?;
        assert_eq!(seen()?, [(1, 0), (1, 2), (2, 1)]);
        assert_eq!(network.heal()?, 1);
        network.deafen(0)?;
        assert_eq!(seen()?, [(0, 1), (1, 2), (2, 1)]);
        network.mute(0)?;
        assert_eq!(seen()?, [(1, 2), (2, 1)]);
        assert!(network.heal()? > 0);
        network.unplug(0)?;
        assert_eq!(seen()?, [(1, 2), (2, 1)]);
        network.heal()?;
        let healed = (0..50).any(|_| seen().is_ok_and(|seen| seen == all));
        assert!(healed);
        network.lose(50)?;
        let came = (0..30).filter(|_| network.reaches(0, 1).unwrap_or_default()).count();
        assert!((3..28).contains(&came), "{came} of 30");
        Ok(())
    }
}
