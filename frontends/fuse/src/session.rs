//! Serves a device that is mounted already, until the mount ends.
//!
//! The threads that take requests are fuser's. They wait in `read(2)` on the device, which ends when the file system is
//! unmounted, also by force, or its connection aborted. A cloned mount namespace keeps a file system that was unmounted
//! alive, so nothing here waits for that on its own: [`Mounted::end`] makes the threads let go of the device.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use fuser::{Config, INodeNo, Notifier, Session, SessionACL};
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use predastore::ids::Ino;
use predastore::object::tree::{Knows, Tree};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::handshake::{Between, Handshake};
use crate::invalidate::{Event, Invalidations, Notify};
use crate::kernel::{Kernel, Shared};
use crate::namespace::Namespace;
use crate::nodes::{Known, NodeIds};
use crate::options::MountOptions;
use crate::requests::Requests;

/// What goes wrong with a session.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The kernel and this program did not come to terms, or the device is none.
    #[error("the handshake with the kernel: {0}")]
    Handshake(Arc<io::Error>),
    /// A descriptor or a thread could not be had.
    #[error("serving a mount: {0}")]
    Resources(Arc<io::Error>),
    /// The threads that take requests failed.
    #[error("the session: {0}")]
    Session(Arc<io::Error>),
}

/// A mount that is being served. Dropping it changes nothing: the mount is served on.
pub struct Mounted {
    ended: watch::Receiver<Option<Result<(), Error>>>,
    changed: Box<dyn Fn(Event) + Send + Sync>,
    /// Nothing that its threads wait for is worth waiting for any more.
    end: Box<dyn Fn() + Send + Sync>,
    invalidations: Arc<Invalidations>,
    device: Mutex<Option<Device>>,
}

/// The device, beside the session.
struct Device {
    /// The number under which fuser reads and writes it.
    number: RawFd,
    /// Holds that number.
    _held: Notifier,
}

/// Serves `tree` on `device`, a descriptor of /dev/fuse that mount(2) was done with, in blocking mode.
///
/// Returns when the kernel has been answered: the mount serves. Waits for nothing but the kernel's first request, which
/// mount(2) has sent. `runtime` runs the requests. `former`: the handshake of the process that served the mount before; then
/// that one must have ended, and the kernel sends again what it left unanswered.
///
/// # Errors
/// `Handshake`, `Resources`.
pub fn serve(
    device: OwnedFd,
    tree: Tree,
    options: MountOptions,
    runtime: Handle,
    former: Option<Handshake>,
) -> Result<(Mounted, Handshake), Error> {
    serve_over(device, tree, options, runtime, former)
}

/// [`serve`] over anything that is like a tree.
///
/// # Errors
/// As [`serve`].
pub fn serve_over<T: Namespace>(
    device: OwnedFd,
    tree: T,
    options: MountOptions,
    runtime: Handle,
    former: Option<Handshake>,
) -> Result<(Mounted, Handshake), Error> {
    let source = options.source.clone();
    let threads = options.threads.max(1);
    let invalidations = Arc::new(Invalidations::default());
    let shared = Arc::new(Shared {
        ids: NodeIds::new(tree.root()),
        known: Known::default(),
        requests: Requests::new(tree, options, invalidations.clone()),
        ending: watch::Sender::new(false),
    });

    let copy = device.try_clone().map(File::from).map_err(resources)?;
    let is_resumed = former.is_some();
    let (between, fusers) = Between::begin(&device, former).map_err(resources)?;
    let number = fusers.as_raw_fd();
    let kernel = Kernel::new(shared.clone(), runtime);
    let failed = |error| Error::Handshake(Arc::new(error));
    let session = Session::from_fd(kernel, fusers, SessionACL::All, config(threads)).map_err(failed)?;
    let handshake = between.end(device, number).map_err(failed)?;
    let notifier = session.notifier();
    let device = Device { number, _held: notifier.clone() };
    if is_resumed {
        notify(&copy, NOTIFY_RESEND, &[]).map_err(failed)?;
        // What happened meanwhile was not heard.
        invalidations.push(Event::Everything);
    }

    let told = ToldKernel { notifier, device: copy, ids: shared.ids };
    spawn("fuse-invalidate", {
        let (invalidations, shared) = (invalidations.clone(), shared.clone());
        move || invalidations.run(&told, || shared.known.all())
    })?;
    let (ending, ended) = watch::channel(None);
    spawn("fuse-session", {
        let invalidations = invalidations.clone();
        move || {
            let outcome = session.run();
            invalidations.close();
            info!(source, ?outcome, "a mount has ended");
            ending.send_replace(Some(as_an_end(outcome)));
        }
    })?;
    let end = Box::new({
        let shared = shared.clone();
        move || {
            shared.ending.send_replace(true);
        }
    });
    let changed = Box::new(move |event| shared.requests.changed(event));
    Ok((Mounted { ended, changed, end, invalidations, device: Mutex::new(Some(device)) }, handshake))
}

impl Mounted {
    /// Waits until the file system is unmounted, its connection aborted, or the session ended by [`Mounted::end`].
    ///
    /// # Errors
    /// `Session`.
    pub async fn unmounted(&self) -> Result<(), Error> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(Error::Session(Arc::new(io::Error::other("the session's thread is gone")))),
        }
    }

    /// Tells the kernel, soon, that something changed that it did not do itself. Returns at once.
    pub fn invalidate(&self, event: Event) {
        (self.changed)(event);
    }

    /// Lets go of the device and ends the session, whether or not the file system is mounted. Requests that were not
    /// answered stay with the kernel: if nobody else holds the device it aborts them, otherwise they wait for whoever does.
    ///
    /// # Errors
    /// `Resources`: the session may go on.
    pub async fn end(&self) -> Result<(), Error> {
        let device = self.device.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(device) = device.filter(|_| self.ended.borrow().is_none()) {
            (self.end)();
            device.let_go().map_err(resources)?;
            self.invalidations.close();
        }
        // It was cut off, so what it says of that is nothing new.
        let _ = self.unmounted().await;
        Ok(())
    }
}

/// The kernel says `ECONNABORTED`, not `ENODEV`, to a thread that had picked up a request when the last reference to the file
/// system went, and of a connection that was aborted: both are ends of the file system's, not failures of the session's.
fn as_an_end(outcome: io::Result<()>) -> Result<(), Error> {
    match outcome {
        Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
        outcome => outcome.map_err(|error| Error::Session(Arc::new(error))),
    }
}

fn config(threads: usize) -> Config {
    let mut config = Config::default();
    // Who may come in was said to mount(2).
    config.acl = SessionACL::All;
    config.n_threads = Some(threads);
    // Cloned descriptors would die with this process.
    config.clone_fd = false;
    config
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map(drop).map_err(resources)
}

fn resources(error: io::Error) -> Error {
    Error::Resources(Arc::new(error))
}

/// `FUSE_NOTIFY_INVAL_INODE` of `linux/fuse.h`.
const NOTIFY_INVAL_INODE: i32 = 2;
/// `FUSE_NOTIFY_RESEND`.
const NOTIFY_RESEND: i32 = 7;
/// `FUSE_NOTIFY_INC_EPOCH`.
const NOTIFY_INC_EPOCH: i32 = 8;

/// Asks a mount's kernel what it knows, without a session.
pub struct Probe(File);

impl Probe {
    /// Over a descriptor of the mount's device.
    ///
    /// # Errors
    /// There can be no second one.
    pub fn new(device: &OwnedFd) -> io::Result<Probe> {
        Ok(Probe(device.try_clone()?.into()))
    }
}

impl Knows for Probe {
    fn knows(&self, ino: Ino) -> bool {
        // An offset below zero: its attributes are asked for anew, its pages stay.
        let body = [ino.0.to_ne_bytes(), (-1_i64).to_ne_bytes(), 0_i64.to_ne_bytes()].concat();
        match notify(&self.0, NOTIFY_INVAL_INODE, &body) {
            Ok(()) => true,
            Err(error) => error.raw_os_error() != Some(libc::ENOENT),
        }
    }
}

impl Device {
    /// Puts /dev/null in the device's place, and wakes the threads that wait in the device, so that they find the end of a
    /// file there.
    fn let_go(self) -> io::Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        // SAFETY: `number` is open, for `_held` holds what owns it, and stays the property of that: it is given back below.
        let mut place = unsafe { OwnedFd::from_raw_fd(self.number) };
        let replaced = nix::unistd::dup3(&null, &mut place, OFlag::O_CLOEXEC);
        let _ = place.into_raw_fd();
        replaced?;
        interrupt_readers()
    }
}

/// Makes fuser's threads, those of other mounts too, come out of `read(2)` and read again. Nothing else of the kernel's does
/// that without a request: it would have to be a signal that is handled.
fn interrupt_readers() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing. Nobody else in this program has a use for SIGURG, which is ignored by default.
    unsafe { sigaction(WAKING, &action) }?;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        let is_reader = fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("fuser-"));
        let id = task.file_name().to_str().and_then(|id| id.parse::<libc::pid_t>().ok());
        if let Some(id) = id.filter(|_| is_reader) {
            // SAFETY: a plain system call; a thread that is gone meanwhile is an error of no interest.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, WAKING as libc::c_int) };
        }
    }
    Ok(())
}

const WAKING: Signal = Signal::SIGURG;

/// One notification: length, code, no request, then `body`.
fn notify(mut device: &File, code: i32, body: &[u8]) -> io::Result<()> {
    let len_bytes = (16 + body.len()) as u32;
    let header = [&len_bytes.to_ne_bytes()[..], &code.to_ne_bytes(), &0u64.to_ne_bytes()].concat();
    device.write_all(&[&header, body].concat())
}

/// Tells the kernel through the device.
struct ToldKernel {
    notifier: Notifier,
    device: File,
    ids: NodeIds,
}

impl ToldKernel {
    fn node(&self, ino: Ino) -> INodeNo {
        INodeNo(self.ids.node(ino))
    }
}

impl Notify for ToldKernel {
    fn inode(&self, ino: Ino) {
        if let Err(error) = self.notifier.inval_inode(self.node(ino), 0, 0) {
            warn!(%ino, %error, "the kernel was not told of a change");
        }
    }

    fn entry(&self, parent: Ino, name: &[u8]) {
        if let Err(error) = self.notifier.inval_entry(self.node(parent), OsStr::from_bytes(name)) {
            warn!(%parent, %error, "the kernel was not told of a changed name");
        }
    }

    fn entries(&self) {
        // Linux 6.16 and newer; before, names live for their TTL.
        let _ = notify(&self.device, NOTIFY_INC_EPOCH, &[]);
    }
}

#[cfg(test)]
mod tests;
