//! Keeps a mount while its daemon is away: a small process beside each mount, with a descriptor of its device, that hands the
//! mount to the next daemon behind the same control socket. What programs ask of the mount meanwhile waits in the kernel.
//!
//! `s3d` starts it as `s3d hold-mount WHAT` with the device for its standard input; it ends with the mount.
//!
//! Invariant: who waits for the mount does not wait for ever: if no daemon takes it in time it is ended (not with `-o hard`).

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::kernel::{self, Way};
use super::mountinfo;
use super::protocol::{Handshake, Mount, Reply, Request};
use super::socket::Client;

/// The command that is not in the help.
pub(crate) const COMMAND: &str = "hold-mount";
/// How long a daemon may be away.
const RETURN_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it is back.
const PAUSE: Duration = Duration::from_millis(50);
/// This program, even if its file was replaced since.
const SELF: &str = "/proc/self/exe";

/// What is held.
#[derive(Serialize, Deserialize)]
struct Held {
    control: PathBuf,
    mount: Mount,
    handshake: Handshake,
}

/// Starts the process that holds a mount, which is served by the daemon behind `control`; unless the kernel is too old for a
/// mount to go on with another daemon.
///
/// # Errors
/// There can be no other process.
pub(crate) fn start(control: &Path, mount: &Mount, handshake: Handshake, device: OwnedFd) -> io::Result<()> {
    if !(predastore_fuse::Handshake { request: handshake.request.clone(), reply: Vec::new() }).can_go_on() {
        return Ok(());
    }
    let held = Held { control: std::path::absolute(control)?, mount: mount.clone(), handshake };
    let held = serde_json::to_string(&held)?;
    let mut holder = Command::new(SELF);
    holder.args([COMMAND, &held]).current_dir("/");
    holder.stdin(Stdio::from(device)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = holder.spawn()?;
    // Whoever starts it and lives on must not keep what is left of it.
    thread::spawn(move || child.wait());
    Ok(())
}

/// Holds a mount until it has ended.
pub(crate) fn run(what: &str) -> ExitCode {
    let Ok(held) = serde_json::from_str::<Held>(what) else { return ExitCode::FAILURE };
    // Neither a terminal that is closed nor a key for another ends it.
    let _ = nix::unistd::setsid();
    let device = io::stdin();
    while !has_ended(device.as_fd()) {
        if watch(&held) || !hand_over(&held, device.as_fd()) {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// Waits with the daemon for the mount's end. False: the daemon ended first.
fn watch(held: &Held) -> bool {
    let request = Request::Watch { connection: held.mount.connection };
    let reply = Client::connect(&held.control, Duration::ZERO).and_then(|client| client.for_ever().ask(&request, None));
    matches!(reply, Ok(Reply::Done {}))
}

/// Gives the mount to the next daemon. False: there is nothing to be held any more.
fn hand_over(held: &Held, device: BorrowedFd<'_>) -> bool {
    let lost = Instant::now();
    let request = Request::Resume { mount: held.mount.clone(), handshake: held.handshake.clone() };
    loop {
        if has_ended(device) {
            return false;
        }
        let reply =
            Client::connect(&held.control, Duration::ZERO).and_then(|client| client.ask(&request, Some(device)));
        if matches!(reply, Ok(Reply::Served(_))) {
            return true;
        }
        if lost.elapsed() >= RETURN_PATIENCE && !held.mount.options.hard {
            give_up(held.mount.connection);
            return false;
        }
        thread::sleep(PAUSE);
    }
}

/// Whether the kernel has let go of the connection.
fn has_ended(device: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(device, PollFlags::empty())];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(_) => polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)),
        Err(_) => false,
    }
}

/// With this process goes the last descriptor: who waits gets an error, and the mount point is free.
fn give_up(connection: u32) {
    let _ = fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1");
    if let Ok(Some(entry)) = mountinfo::of(connection) {
        let _ = kernel::detach(&entry, Way::Lazy);
    }
}
