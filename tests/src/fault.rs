//! Faults of one box of a cluster that last while something else happens, and are put right after it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::cluster::Cluster;
use crate::knobs::{WithLogs, say};
use crate::linear::{Gateway, Load};
use crate::netns::Network;
use crate::random::Rng;
use crate::s3d::{PATIENCE, S3d, SYNCS};

/// Writes that each who can serve acknowledges during a fault.
const DURING: u64 = 8;
/// Clients work no longer between two faults.
const BETWEEN_MAX: Duration = Duration::from_secs(10);
/// How long a fault of the network or of a disk lasts at least: longer than it takes to elect another leader.
const HOLD: Duration = Duration::from_secs(4);

/// What happens to a box, or to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; it is started again afterwards.
    Kill,
    /// SIGSTOP for as long at least.
    Pause(Duration),
    /// It neither hears the others nor is heard.
    Isolate,
    /// It is not heard.
    Mute,
    /// It does not hear.
    Deafen,
    /// It and the leader, or it and the next box where it leads, do not hear each other; a third hears both.
    Sever,
    /// Its cable is pulled.
    Unplug,
    /// Everybody loses so many percent.
    Lose(u8),
    /// Each of its syncs takes 200 ms longer.
    SlowDisk,
}

/// Whom a fault befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The box that leads.
    Leader,
    /// One of the others, by chance.
    Follower,
    /// That one.
    Box(usize),
}

/// Lets faults befall the boxes of `cluster` one after another while clients of all `gateways` (one a box) work on a new
/// bucket, each of which acknowledges `between` writes before the next fault (fewer on a slow machine); then checks what they
/// saw. How many operations were checked.
///
/// # Errors
/// When those who are to serve do not in time, a fault did not take place, or what was seen cannot be.
pub fn endure(
    bucket: &str,
    cluster: &mut Cluster,
    network: Option<&Network>,
    gateways: Vec<Gateway>,
    rng: &mut Rng,
    (faults, between): (&[(Fault, Victim)], u64),
) -> Result<u64> {
    let load = Load::new(bucket, gateways)?;
    let all: Vec<usize> = (0..cluster.processes.len()).collect();
    let mut chance = Rng::new(rng.next_u64());
    let ran = load.run(rng, || {
        faults.iter().try_for_each(|(fault, victim)| {
            load.wait_written(&all, 1).context("before a fault")?;
            load.let_work(between, BETWEEN_MAX)?;
            let victim = victim.of(cluster, &mut chance)?;
            strike(&load, cluster, network, (*fault, victim))
        })
    });
    let began = Instant::now();
    // What was seen tells more than that something then did not come in time.
    let checked = load.check().with_logs(|| cluster.log_tails())?;
    ran.with_logs(|| cluster.log_tails())?;
    let (mut answered, mut unknown) = (0, 0);
    for (kind, tally) in load.kinds() {
        say(&format!("  {kind}: {} answered, {} unknown", tally.answered, tally.unknown));
        (answered, unknown) = (answered + tally.answered, unknown + tally.unknown);
    }
    say(&format!(
        "  {answered} operations answered, {unknown} unknown; {checked} checked in {:.1?}, reads by listings included",
        began.elapsed()
    ));
    Ok(checked)
}

impl Victim {
    fn of(self, cluster: &Cluster, chance: &mut Rng) -> Result<usize> {
        Ok(match self {
            Victim::Box(index) => index,
            Victim::Leader => cluster.leader()?,
            Victim::Follower => {
                let leader = cluster.leader()?;
                let others: Vec<_> = (0..cluster.processes.len()).filter(|index| *index != leader).collect();
                *chance.choose(&others)
            }
        })
    }
}

/// Lets `fault` befall box `victim`, and waits until those who can serve have acknowledged writes during it; puts it right,
/// and waits until all do. Says how long each took.
fn strike(
    load: &Load,
    cluster: &mut Cluster,
    network: Option<&Network>,
    (fault, victim): (Fault, usize),
) -> Result<()> {
    let all: Vec<usize> = (0..cluster.processes.len()).collect();
    let is_box_down = !matches!(fault, Fault::Lose(_) | Fault::SlowDisk);
    let serving: Vec<usize> = all.iter().copied().filter(|index| !is_box_down || *index != victim).collect();
    let struck = fault.during(cluster, network, victim, || load.wait_written(&serving, DURING));
    let during = struck.with_context(|| format!("during {fault:?} of box {victim}"))?;
    let after = load.wait_written(&all, 1).with_context(|| format!("after {fault:?} of box {victim}"))?;
    say(&format!("  {fault:?} of box {victim}: {DURING} writes elsewhere in {during:.1?}, healed after {after:.1?}"));
    Ok(())
}

impl Fault {
    /// Runs `job` during the fault of box `victim`.
    ///
    /// # Errors
    /// Those of `job`; and when the fault did not take place, or needs a network and there is none.
    pub fn during<T>(
        self,
        cluster: &mut Cluster,
        network: Option<&Network>,
        victim: usize,
        job: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let count = cluster.processes.len();
        let other = if self == Fault::Sever { cluster.leader()? } else { victim };
        let other = if other == victim { (victim + 1) % count } else { other };
        let s3d = &mut cluster.processes[victim];
        let network = || network.context("a fault of the network without one");
        match self {
            Fault::Kill => killed(s3d, job),
            Fault::Pause(time) => paused(s3d, time, job),
            Fault::SlowDisk => slowed(s3d, job),
            Fault::Isolate => dropping(network()?, |network| network.isolate(victim), job),
            Fault::Mute => dropping(network()?, |network| network.mute(victim), job),
            Fault::Deafen => dropping(network()?, |network| network.deafen(victim), job),
            Fault::Sever => dropping(network()?, |network| network.sever(victim, other), job),
            Fault::Lose(percent) => dropping(network()?, |network| network.lose(percent), job),
            Fault::Unplug => unplugged(network()?, victim, job),
        }
    }
}

fn killed<T>(s3d: &mut S3d, job: impl FnOnce() -> Result<T>) -> Result<T> {
    s3d.kill();
    let done = job()?;
    s3d.restart()?;
    Ok(done)
}

fn paused<T>(s3d: &S3d, time: Duration, job: impl FnOnce() -> Result<T>) -> Result<T> {
    s3d.signal(Signal::SIGSTOP)?;
    let done = at_least(time, job);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", s3d.pid()?))?;
    s3d.signal(Signal::SIGCONT)?;
    ensure!(stat.rsplit(')').next().is_some_and(|rest| rest.trim().starts_with('T')), "it was not stopped: {stat}");
    done
}

fn at_least<T>(time: Duration, job: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let done = job();
    std::thread::sleep(time.saturating_sub(began.elapsed()));
    done
}

fn dropping<T>(
    network: &Network,
    begin: impl FnOnce(&Network) -> Result<()>,
    job: impl FnOnce() -> Result<T>,
) -> Result<T> {
    begin(network)?;
    let done = at_least(HOLD, job);
    ensure!(network.heal()? > 0, "no packet was dropped");
    done
}

fn unplugged<T>(network: &Network, victim: usize, job: impl FnOnce() -> Result<T>) -> Result<T> {
    network.unplug(victim)?;
    let done = at_least(HOLD, job);
    network.heal()?;
    done
}

fn slowed<T>(s3d: &S3d, job: impl FnOnce() -> Result<T>) -> Result<T> {
    let record = tempfile::NamedTempFile::new()?;
    let tracer = Tracer::attach(s3d.pid()?, record.path())?;
    let done = at_least(HOLD, job);
    drop(tracer);
    let delayed = std::fs::read_to_string(record.path())?.matches("(DELAYED)").count();
    ensure!(delayed > 0, "no sync was delayed");
    done
}

/// strace on a running process; detached when dropped.
struct Tracer(Child);

impl Tracer {
    /// What it traces goes to `record`.
    fn attach(pid: u32, record: &Path) -> Result<Tracer> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", &format!("trace={SYNCS}"), "-o"]).arg(record);
        strace.args(["-e", &format!("inject={SYNCS}:delay_enter=200ms"), "-p", &pid.to_string()]);
        strace.stdin(Stdio::null()).process_group(0);
        let tracer = Tracer(strace.spawn().context("no strace")?);
        let deadline = Instant::now() + PATIENCE;
        let is_traced = || -> Result<bool> {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            Ok(!status.contains("TracerPid:\t0\n"))
        };
        while !is_traced()? {
            ensure!(Instant::now() < deadline, "strace does not attach");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(tracer)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It lets go of what it traces; killed, it would, too.
        let _ = nix::sys::signal::kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
