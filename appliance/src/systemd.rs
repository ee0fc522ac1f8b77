//! What systemd and the daemon say to each other: sockets that were opened for it, that it serves, what it does, and that it
//! lives. Where there is no systemd all of this does nothing.
//!
//! Invariants
//! - `READY=1` is said once requests are answered, not before; by a member of a cluster once its nodes do: what waits for it
//!   (an installation, say) must not wait for other machines.
//! - The watchdog is fed only while the runtime runs tasks and the catalog of this process answers. A cluster without a
//!   quorum is no reason to be killed: it would come back no better.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::time::{interval, timeout};

use crate::admin::Shown;
use crate::store::Store;

/// Of the watchdog's time, how often the daemon looks at itself.
const LOOKS: u32 = 4;
/// How often it tells what it does.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Sockets that were opened for this process, in the order of the socket unit, and the one that the S3 endpoint has: it is
/// kept when the daemon starts again within its process, so that nobody is refused meanwhile.
#[derive(Default)]
pub(crate) struct Inherited {
    passed: Vec<StdListener>,
    kept: Option<StdListener>,
}

impl Inherited {
    /// Takes them, once, before anything else opens files.
    ///
    /// # Errors
    /// What came is no listening TCP socket.
    pub(crate) fn take() -> Result<Self> {
        let mut from_env = ListenFd::from_env();
        let mut passed = Vec::new();
        for index in 0..from_env.len() {
            passed.extend(from_env.take_tcp_listener(index).context("a socket that systemd passed")?);
        }
        Ok(Inherited { passed, kept: None })
    }

    /// Has the S3 endpoint's socket outlive this start of the daemon.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(crate) fn keep(&mut self, socket: &TcpListener) -> Result<()> {
        self.kept = Some(StdListener::from(socket.as_fd().try_clone_to_owned()?));
        Ok(())
    }

    /// The one on the port of `address`. Others are left alone: the socket unit names another port than the configuration.
    ///
    /// # Errors
    /// It cannot be used.
    pub(crate) fn on(&mut self, address: SocketAddr) -> Result<Option<TcpListener>> {
        if let Some(kept) = self.kept.take() {
            return Ok(Some(TcpListener::from_std(kept)?));
        }
        let is_wanted = |socket: &StdListener| socket.local_addr().is_ok_and(|bound| bound.port() == address.port());
        let Some(index) = self.passed.iter().position(is_wanted) else {
            for bound in self.passed.iter().filter_map(|socket| socket.local_addr().ok()) {
                tracing::warn!(%bound, configured = %address, "systemd listens on another port than `server.port` says");
            }
            return Ok(None);
        };
        let socket = self.passed.swap_remove(index);
        socket.set_nonblocking(true)?;
        Ok(Some(TcpListener::from_std(socket)?))
    }
}

/// Requests are answered from now on.
pub(crate) fn ready(endpoint: Option<&str>) {
    let status = endpoint.map_or_else(|| "serving".to_owned(), |endpoint| format!("serving {endpoint}"));
    say(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The nodes of this member of a cluster run; it is ready, and waits for a quorum. Feeds the watchdog until dropped.
pub(crate) async fn wait_for_others() {
    let status = NotifyState::Status("waiting for a quorum of the cluster");
    say(&[NotifyState::Ready, status]);
    let mut looks = interval(pace());
    loop {
        looks.tick().await;
        say(&[NotifyState::Watchdog]);
    }
}

/// How often the watchdog is fed.
fn pace() -> Duration {
    sd_notify::watchdog_enabled().map_or(STATUS_INTERVAL, |within| (within / LOOKS).min(STATUS_INTERVAL))
}

/// What is done before that.
pub(crate) fn starting(what: &str) {
    say(&[NotifyState::Status(what)]);
}

/// The configuration's files are read again, by `f`.
pub(crate) fn while_reloading(f: impl FnOnce()) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        say(&[NotifyState::Reloading, now]);
    }
    f();
    say(&[NotifyState::Ready]);
}

/// The daemon starts again, within its process. Feeds the watchdog until dropped.
pub(crate) async fn starting_again() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        say(&[NotifyState::Reloading, now, NotifyState::Status("starting again, as a member of a cluster")]);
    }
    let mut looks = interval(pace());
    loop {
        looks.tick().await;
        say(&[NotifyState::Watchdog]);
    }
}

/// No new requests are taken.
pub(crate) fn stopping() {
    say(&[NotifyState::Stopping, NotifyState::Status("ending: what runs may finish")]);
}

fn say(state: &[NotifyState<'_>]) {
    // Who does not listen does not miss it.
    let _ = sd_notify::notify(state);
}

/// Feeds the watchdog, if there is one, and tells what the daemon does, for as long as it lives.
pub(crate) async fn keep_telling(store: Option<Store>, shown: Arc<Shown>) {
    let pace = pace();
    let mut looks = interval(pace);
    loop {
        looks.tick().await;
        match alive(store.as_ref(), pace).await {
            Ok(()) => say(&[NotifyState::Watchdog, NotifyState::Status(&shown.line())]),
            Err(error) => {
                tracing::error!(%error, "the daemon does not answer itself");
                say(&[NotifyState::Status(&format!("does not answer itself: {error}"))]);
            }
        }
    }
}

/// Whether a task is run and the catalog answers, within `patience`.
async fn alive(store: Option<&Store>, patience: Duration) -> Result<()> {
    let store = store.cloned();
    let look = tokio::spawn(async move {
        match store {
            Some(store) => store.answers().await,
            None => Ok(()),
        }
    });
    timeout(patience, look).await.context("the catalog does not answer in time")??
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_socket_is_taken_for_its_port_only() {
        let sockets: Vec<_> = (0..2).map(|_| StdListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        let mut inherited = Inherited { passed: sockets, kept: None };
        let of = |port| SocketAddr::from(([0, 0, 0, 0], port));
        assert!(inherited.on(of(1)).unwrap().is_none());
        let taken = inherited.on(of(ports[1])).unwrap().unwrap();
        assert_eq!(taken.local_addr().unwrap().port(), ports[1]);
        assert!(inherited.on(of(ports[1])).unwrap().is_none());
        inherited.keep(&taken).unwrap();
        drop(taken);
        let again = inherited.on(of(0)).unwrap().unwrap();
        assert_eq!(again.local_addr().unwrap().port(), ports[1], "it stays when the daemon starts again");
    }
}
