//! The control socket, the daemon's side: who may ask, and what is answered.
//!
//! Invariants: one process has the socket, by a lock beside it, so a socket file that is found belongs to nobody; a peer
//! that may not ask is not read from; what a peer sends, or does not send, costs at most one frame of memory and a
//! descriptor, for a while.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::fdpass;
use super::protocol::{self, HEAD_BYTES, Reply, Request};
use super::running::Mounts;
use super::socket::Address;
use crate::config::Control;
use crate::join::daemon::Joining;
use crate::operator::{audit, buckets, snapshots, users};

/// How long a peer may take to say what it wants, and to hear the answer.
const PEER_PATIENCE: Duration = Duration::from_secs(10);
/// After a failed accept: whatever is short may be there again.
const PAUSE: Duration = Duration::from_millis(100);
/// Peers at a time; more wait.
const PEER_COUNT: usize = 32;
/// A request has one at most.
const DESCRIPTOR_COUNT: usize = 1;

/// The bound socket; its file goes with it.
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Who may ask beside root and this process's user.
    users: Vec<u32>,
    _lock: Flock<File>,
}

/// What is wrong with a request that came, or did not.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Protocol(#[from] protocol::Error),
    #[error("more than one descriptor came with the request")]
    Descriptors,
    #[error("nothing was asked")]
    Silent,
    #[error("the request did not come within {} s", PEER_PATIENCE.as_secs())]
    Late,
}

impl ControlSocket {
    /// Binds the socket. None: another process has it, as those of a cluster may that share a directory.
    ///
    /// # Errors
    /// Its directory; something else than a socket has its name.
    pub(crate) fn bind(control: &Control) -> Result<Option<Self>> {
        let path = &control.socket;
        bind(path, &control.users).with_context(|| format!("the control socket {}", path.display()))
    }

    /// Answers until `stop`.
    pub(crate) async fn serve(self, mounts: Mounts, joining: Arc<Joining>, stop: CancellationToken) {
        let peers = Arc::new(Semaphore::new(PEER_COUNT));
        loop {
            let Ok(permit) = peers.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the control socket accepts nobody");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let uid = self.welcome(&stream);
            let (mounts, joining) = (mounts.clone(), joining.clone());
            tokio::spawn(async move {
                attend(stream, uid, (&mounts, &joining), permit).await;
            });
        }
    }

    /// Who asks; none: somebody who may not.
    fn welcome(&self, stream: &UnixStream) -> Option<u32> {
        let uid = stream.peer_cred().ok()?.uid();
        (is_own(uid) || self.users.contains(&uid)).then_some(uid)
    }
}

/// Root, or this process's user.
fn is_own(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn bind(path: &Path, users: &[u32]) -> Result<Option<ControlSocket>> {
    // Who keeps nothing there itself, a shard node for one, may be the first to come.
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&lock_path)?;
    let Ok(lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else { return Ok(None) };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => bail!("something else has this name"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let listener = UnixListener::bind(Address::of(path)?.path)?;
    // Connecting takes the right to write. Of those who may connect, the peer's credentials decide.
    let mode = if users.is_empty() { 0o600 } else { 0o666 };
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(Some(ControlSocket { listener, path: path.to_owned(), users: users.to_vec(), _lock: lock }))
}

/// One peer, from its request to the answer.
async fn attend(
    mut stream: UnixStream,
    uid: Option<u32>,
    (mounts, joining): (&Mounts, &Joining),
    permit: OwnedSemaphorePermit,
) {
    let reply = match uid {
        None => Reply::Refused("only root, the daemon's user and those in `control.users` may ask".to_owned()),
        Some(uid) => match timeout(PEER_PATIENCE, receive(&stream)).await.unwrap_or(Err(Error::Late)) {
            Ok((Request::Watch { connection }, _)) => {
                // There are no more of these than mounts.
                drop(permit);
                match mounts.watched(connection, closed(&stream)).await {
                    true => Reply::Done {},
                    // A holder that took this process for the one before hands the mount over then.
                    false => Reply::Refused("this daemon does not serve that mount".to_owned()),
                }
            }
            Ok((request, descriptor)) => answer(request, descriptor, (mounts, joining), uid).await,
            Err(Error::Silent) => return,
            Err(error) => Reply::Refused(error.to_string()),
        },
    };
    if let Reply::Refused(reason) = &reply {
        tracing::warn!(reason, "a request at the control socket is refused");
    }
    let too_long = |_| protocol::encode(&Reply::Refused("the answer is too long".to_owned())).unwrap_or_default();
    let frame = protocol::encode(&reply).unwrap_or_else(too_long);
    // Who has gone does not want to hear it.
    let _ = timeout(PEER_PATIENCE, stream.write_all(&frame)).await;
}

/// Returns when the other side is gone.
async fn closed(stream: &UnixStream) {
    loop {
        // What it says besides is not asked for.
        match stream.try_read(&mut [0; 64]) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stream.readable().await.is_err() {
                    return;
                }
            }
            Ok(0) | Err(_) => return,
        }
    }
}

/// `uid`: who asks.
async fn answer(
    request: Request,
    descriptor: Option<OwnedFd>,
    (mounts, joining): (&Mounts, &Joining),
    uid: u32,
) -> Reply {
    let answered = match (request, descriptor) {
        (Request::Mount(mount), Some(device)) => mounts.serve(mount, device, None).await.map(Reply::Served),
        (Request::Resume { mount, handshake }, Some(device)) => {
            mounts.serve(mount, device, Some(handshake)).await.map(Reply::Served)
        }
        (Request::Watch { .. }, _) => Ok(Reply::Done {}),
        (Request::Mount(_) | Request::Resume { .. }, None) => {
            return Reply::Refused("no descriptor came with the request".to_owned());
        }
        (Request::Unmount { connection, force }, _) => {
            let ended = mounts.unmount(connection, force).await;
            Ok(if ended { Reply::Done {} } else { Reply::Busy {} })
        }
        (Request::Mounts {}, _) => Ok(Reply::Mounts(mounts.list())),
        // Who may mount is not therefore one who may make keys.
        (Request::Users(_) | Request::Buckets(_) | Request::Cluster(_) | Request::Scrub {}, _) if !is_own(uid) => {
            return Reply::Refused("only root and the daemon's user may ask for this".to_owned());
        }
        (Request::Users(ask), _) => {
            let told = users::answer(mounts.store().objects(), ask, uid).await;
            return told.map_or_else(|error| Reply::Refused(error.to_string()), Reply::Users);
        }
        (Request::Buckets(ask), _) => {
            return buckets::answer(mounts.store().objects(), ask, uid)
                .await
                .map_or_else(Reply::Refused, Reply::Buckets);
        }
        (Request::Cluster(ask), _) => {
            let told = joining.answer(ask, uid).await;
            return told.map_or_else(|error| Reply::Refused(format!("{error:#}")), Reply::Cluster);
        }
        (Request::Scrub {}, _) => {
            let begun = mounts.store().objects().scrub_soon();
            audit(uid, "scrub", begun.as_ref().err());
            return begun.map_or_else(|error| Reply::Refused(error.to_string()), |()| Reply::Done {});
        }
        (Request::Snapshot(asked), _) => {
            let told = snapshots::answer(mounts.store().objects(), asked, uid).await;
            return told.map_or_else(Reply::Refused, Reply::Snapshots);
        }
    };
    answered.unwrap_or_else(|error| Reply::Refused(error.to_string()))
}

async fn receive(stream: &UnixStream) -> Result<(Request, Option<OwnedFd>), Error> {
    let mut descriptors = Vec::new();
    let mut head = [0; HEAD_BYTES];
    // Who finds out that it has nothing to ask after all goes away.
    match fill(stream, &mut head[..1], &mut descriptors).await {
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Error::Silent),
        filled => filled?,
    }
    fill(stream, &mut head[1..], &mut descriptors).await?;
    let mut body = vec![0; protocol::body_len(&head)?];
    fill(stream, &mut body, &mut descriptors).await?;
    Ok((protocol::decode(&body)?, descriptors.pop()))
}

async fn fill(stream: &UnixStream, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Result<(), Error> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || fdpass::receive(stream.as_fd(), rest)) {
            Ok((0, _)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok((len, came)) => {
                filled += len;
                descriptors.extend(came);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if descriptors.len() > DESCRIPTOR_COUNT {
            return Err(Error::Descriptors);
        }
    }
    Ok(())
}
