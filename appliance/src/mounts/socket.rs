//! The control socket's place, and the command's side of it.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::fdpass;
use super::protocol::{self, HEAD_BYTES, Reply, Request};

/// Longer than anything the daemon waits for before it answers.
const REPLY_PATIENCE: Duration = Duration::from_secs(90);
const SEND_PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries to reach a daemon that starts.
const PAUSE: Duration = Duration::from_millis(100);
/// Of the address of a Unix socket, with the zero at its end.
const ADDRESS_MAX_BYTES: usize = 108;

/// Why the daemon cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody is there, or nobody may ask.
    #[error("{}: {}", .path.display(), why_not(.error))]
    Connect {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// In the middle of it.
    #[error("the daemon does not answer: {}", broken(.0))]
    Talk(#[from] io::Error),
    /// What it says is not understood.
    #[error(transparent)]
    Protocol(#[from] protocol::Error),
}

fn why_not(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            "no daemon serves here (-data-dir, -config or -control say where one does)".to_owned()
        }
        ErrorKind::PermissionDenied => "only root and the daemon's user may".to_owned(),
        _ => error.to_string(),
    }
}

fn broken(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "it has ended".to_owned(),
        ErrorKind::WouldBlock => "not in time".to_owned(),
        _ => error.to_string(),
    }
}

/// A connection to the daemon, for one request.
pub(crate) struct Client {
    stream: UnixStream,
    patience: Option<Duration>,
}

impl Client {
    /// Connects to the socket at `path`; for `patience` a daemon may be just starting.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub(crate) fn connect(path: &Path, patience: Duration) -> Result<Self, Error> {
        let end = Instant::now() + patience;
        loop {
            match Address::of(path).and_then(|address| UnixStream::connect(&address.path)) {
                Ok(stream) => return Ok(Client { stream, patience: Some(REPLY_PATIENCE) }),
                Err(error) if may_come(&error) && Instant::now() < end => thread::sleep(PAUSE),
                Err(error) => return Err(Error::Connect { path: path.to_owned(), error }),
            }
        }
    }

    /// For whom an answer is no use later than that.
    pub(crate) fn within(self, patience: Duration) -> Self {
        Client { patience: Some(patience), ..self }
    }

    /// For who has nothing else to do.
    pub(crate) fn for_ever(self) -> Self {
        Client { patience: None, ..self }
    }

    /// Asks, with a descriptor if one belongs to the request, and waits for the answer.
    ///
    /// # Errors
    /// There was none that could be understood.
    pub(crate) fn ask(self, request: &Request, descriptor: Option<BorrowedFd<'_>>) -> Result<Reply, Error> {
        let Client { mut stream, patience } = self;
        stream.set_write_timeout(Some(SEND_PATIENCE))?;
        stream.set_read_timeout(patience)?;
        let frame = protocol::encode(request)?;
        let sent = match descriptor {
            Some(descriptor) => fdpass::send(stream.as_fd(), &frame, descriptor)?,
            None => 0,
        };
        // Who is refused finds the connection closed before all is said, and the reason in what it was sent.
        let said = stream.write_all(frame.get(sent..).unwrap_or_default());
        match receive(&mut stream) {
            Err(Error::Talk(_)) if said.is_err() => Err(said.err().map_or(ErrorKind::BrokenPipe.into(), |e| e).into()),
            reply => reply,
        }
    }
}

fn receive(stream: &mut UnixStream) -> Result<Reply, Error> {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; protocol::body_len(&head)?];
    stream.read_exact(&mut body)?;
    Ok(protocol::decode(&body)?)
}

/// Whether a daemon that starts could mend it.
fn may_come(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

/// A socket's path that is short enough for an address: of a long one, by a descriptor of its directory.
pub(crate) struct Address {
    /// What to bind or connect to.
    pub(crate) path: PathBuf,
    _directory: Option<File>,
}

impl Address {
    /// Of the socket at `path`.
    ///
    /// # Errors
    /// Its directory cannot be opened.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() < ADDRESS_MAX_BYTES {
            return Ok(Address { path: path.to_owned(), _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let directory = File::open(parent)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        Ok(Address { path, _directory: Some(directory) })
    }
}
