//! `predastore doctor`: what about this machine will hurt the store, each finding with its remedy.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use nix::sys::utsname::uname;
use time::OffsetDateTime;

use super::{Health, human, status};
use crate::config::{Config, Tls};
use crate::identity::Identity;

/// As `sysctl.d/50-predastore.conf` sets them.
const SOCKET_BUFFER_BYTES: u64 = 7_500_000;
/// An idle box takes this besides its budget.
const BESIDES_BUDGET_BYTES: u64 = 64 << 20;
const OPEN_FILES_MIN: u64 = 65_536;
const CERTIFICATE_DAYS_MIN: i64 = 14;
/// Linux from which a mount outlives its daemon.
const KERNEL_MIN: (u32, u32) = (6, 9);
const PATIENCE: Duration = Duration::from_secs(2);

/// What was looked at.
struct Finding {
    what: &'static str,
    health: Health,
    found: String,
    remedy: &'static str,
}

/// What to print, and the worst of it.
pub(crate) fn run(config: &Config) -> (String, Health) {
    let findings = [
        daemon(config),
        port(config),
        disk(config),
        memory(config),
        open_files(),
        socket_buffers(config),
        clock(),
        certificate(config),
        kernel(),
        fuse(),
    ];
    let worst = findings.iter().map(|finding| finding.health).max().unwrap_or(Health::Well);
    (findings.iter().map(line).collect(), worst)
}

fn line(finding: &Finding) -> String {
    let Finding { what, health, found, remedy } = finding;
    match health {
        Health::Well => format!("ok    {what:<12} {found}\n"),
        Health::Ailing => format!("WARN  {what:<12} {found}\n      {:<12} -> {remedy}\n", ""),
        Health::Down => format!("BAD   {what:<12} {found}\n      {:<12} -> {remedy}\n", ""),
    }
}

fn finding(what: &'static str, health: Health, found: impl Into<String>, remedy: &'static str) -> Finding {
    Finding { what, health, found: found.into(), remedy }
}

fn unless(is_well: bool, otherwise: Health) -> Health {
    if is_well { Health::Well } else { otherwise }
}

fn daemon(config: &Config) -> Finding {
    let remedy = "systemctl status s3d; journalctl -u s3d -n 50";
    match status::run(config) {
        Ok((text, health)) => {
            let trouble = text.lines().find_map(|line| line.trim().strip_prefix("! "));
            let found = trouble.or_else(|| text.lines().next()).unwrap_or_default().to_owned();
            finding("daemon", health, found, remedy)
        }
        Err(error) => finding("daemon", Health::Ailing, error.to_string(), remedy),
    }
}

fn port(config: &Config) -> Finding {
    let Some(address) = config.gateway() else {
        return finding("port", Health::Well, "this process serves no S3", "");
    };
    let here = SocketAddr::new(
        if address.ip().is_unspecified() { [127, 0, 0, 1].into() } else { address.ip() },
        address.port(),
    );
    match TcpStream::connect_timeout(&here, PATIENCE) {
        Ok(_) => finding("port", Health::Well, format!("{here} takes connections"), ""),
        Err(error) => finding(
            "port",
            Health::Down,
            format!("{here}: {error}"),
            "is s3d.socket active, and `server.port` its port?",
        ),
    }
}

fn disk(config: &Config) -> Finding {
    let dir = &config.storage.data_dir;
    let remedy = "give the data directory room, or delete objects: that works on a full disk too";
    match statvfs(dir) {
        Ok(disk) => {
            let (free, all) = (disk.blocks_available() * disk.fragment_size(), disk.blocks() * disk.fragment_size());
            let low = config.storage.low_water_bytes.unwrap_or((all / 100).max(64 << 20));
            let health = match free {
                free if free < low => Health::Down,
                free if free < 4 * low => Health::Ailing,
                _ => Health::Well,
            };
            finding("disk", health, format!("{} free of {} at {}", human(free), human(all), dir.display()), remedy)
        }
        Err(error) => finding(
            "disk",
            Health::Down,
            format!("{}: {error}", dir.display()),
            "does the directory exist, and is it mounted?",
        ),
    }
}

fn memory(config: &Config) -> Finding {
    let wanted = config.storage.memory_budget_bytes + BESIDES_BUDGET_BYTES;
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    let total = total.map_or(0, |kib: u64| kib * 1024);
    finding(
        "memory",
        unless(total == 0 || total >= 2 * wanted, Health::Ailing),
        format!("{} in all; the daemon takes up to {}", human(total), human(wanted)),
        "a smaller `storage.memory_budget`",
    )
}

/// Of the daemon that runs, if it can be found.
fn open_files() -> Finding {
    let limit = fs::read_dir("/proc").ok().and_then(|entries| {
        entries.flatten().find_map(|entry| {
            let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
            let limits = fs::read_to_string(entry.path().join("limits")).ok().filter(|_| comm.trim() == "s3d")?;
            limits
                .lines()
                .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<u64>().ok())
        })
    });
    match limit {
        Some(limit) => finding(
            "open files",
            unless(limit >= OPEN_FILES_MIN, Health::Ailing),
            format!("the daemon may have {limit}"),
            "LimitNOFILE= in its unit",
        ),
        None => finding("open files", Health::Well, "not known: no daemon is seen", ""),
    }
}

fn socket_buffers(config: &Config) -> Finding {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?.trim().parse::<u64>().ok();
    let (Some(receive), Some(send)) = (read("rmem_max"), read("wmem_max")) else {
        return finding("buffers", Health::Well, "not to be seen in this container", "");
    };
    let is_well = receive.min(send) >= SOCKET_BUFFER_BYTES || config.cluster.is_none();
    finding(
        "buffers",
        unless(is_well, Health::Ailing),
        format!("sockets may have {} in, {} out", human(receive), human(send)),
        "sysctl -p /usr/lib/sysctl.d/50-predastore.conf",
    )
}

fn clock() -> Finding {
    let mut ask = Command::new("timedatectl");
    ask.args(["show", "-p", "NTPSynchronized", "--value"]).stdin(Stdio::null()).stderr(Stdio::null());
    let said = ask.output().ok().filter(|output| output.status.success());
    match said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).as_deref() {
        Some("yes") => finding("clock", Health::Well, "synchronised", ""),
        Some(_) => finding(
            "clock",
            Health::Ailing,
            "not synchronised: signatures of clients are refused when it is off by 15 minutes",
            "apt install systemd-timesyncd, or chrony",
        ),
        None => finding("clock", Health::Well, "not known: nobody here keeps it", ""),
    }
}

fn certificate(config: &Config) -> Finding {
    let remedy = "systemctl reload s3d renews it; journalctl -u s3d says why it did not";
    match &config.server.tls {
        Tls::Off => finding("certificate", Health::Ailing, "none: plain HTTP", "`server.tls.enabled = \"on\"`"),
        Tls::Files { cert, .. } => match Path::new(cert).exists() {
            true => finding("certificate", Health::Well, format!("the operator's, {}", cert.display()), ""),
            false => finding(
                "certificate",
                Health::Down,
                format!("{} is not there", cert.display()),
                "`server.tls.cert_file`",
            ),
        },
        Tls::Own => match Identity::of(config).server_certificate_ends() {
            Ok(Some(ends)) => {
                let days = (ends - OffsetDateTime::now_utc()).whole_days();
                let health = unless(days >= CERTIFICATE_DAYS_MIN, Health::Ailing).max(unless(days >= 0, Health::Down));
                finding("certificate", health, format!("the store's own, good for {days} days"), remedy)
            }
            Ok(None) => finding("certificate", Health::Well, "made at each start, or not yet", ""),
            Err(error) => finding("certificate", Health::Ailing, format!("{error:#}"), "run this as root"),
        },
    }
}

fn kernel() -> Finding {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    finding(
        "kernel",
        unless(version >= KERNEL_MIN, Health::Ailing),
        format!("Linux {release}"),
        "from 6.9 on mounts outlive a restart of the daemon; Debian 12 has one in backports",
    )
}

fn fuse() -> Finding {
    let is_there = Path::new("/dev/fuse").exists();
    let found = if is_there { "/dev/fuse is there" } else { "no /dev/fuse: buckets cannot be mounted" };
    finding("fuse", unless(is_there, Health::Ailing), found, "modprobe fuse")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_wrong_comes_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let env = |dir: &Path, port: &str| {
            let text = |text: &str| text.to_owned();
            vec![
                (text("PREDASTORE_STORAGE_DATA_DIR"), dir.display().to_string()),
                (text("PREDASTORE_ADMIN_PORT"), text(port)),
                (text("PREDASTORE_SERVER_PORT"), text("1")),
            ]
        };
        let config = Config::load(&[], &env(dir.path(), "1")).unwrap();
        let (text, worst) = run(&config);
        assert_eq!(worst, Health::Down);
        assert!(text.contains("BAD   daemon") && text.contains("-> systemctl status s3d"), "{text}");
        assert!(text.contains("BAD   port") && text.contains("certificate  made at each start"), "{text}");
        assert_eq!(disk(&config).health, Health::Well);
        let gone = Config::load(&[], &env(&dir.path().join("gone"), "1")).unwrap();
        assert_eq!(disk(&gone).health, Health::Down);
    }
}
