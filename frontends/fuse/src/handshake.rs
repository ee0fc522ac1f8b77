//! The kernel's first request and its answer. The kernel makes it once in a mount's life; fuser wants it from every process
//! that serves the mount. So it is recorded, and played to the processes that come later.
//!
//! fuser is given one end of a pair of sockets instead of the device; what passes through it is the handshake. Then the device
//! takes that end's place, under the same number.
//!
//! Invariant: what the kernel was promised in the first answer is what every later process would promise.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::thread::{self, JoinHandle};

use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

/// More than the kernel's first request has; it wants room for a WRITE in each read.
const REQUEST_ROOM_BYTES: usize = (1 << 20) + 4096;
/// More than an answer to it has.
const REPLY_ROOM_BYTES: usize = 4096;
/// Of a request, and of an answer: its number, which is another in each.
const NUMBER: std::ops::Range<usize> = 8..16;

/// Of a request's header.
const HEADER_BYTES: usize = 40;
/// `FUSE_INIT_EXT` of `linux/fuse.h`: there are more flags.
const INIT_EXT: u32 = 1 << 30;
/// `FUSE_HAS_RESEND`.
const HAS_RESEND: u64 = 1 << 39;

/// The first request and its answer, as they were on the device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// As the kernel sent it.
    pub request: Vec<u8>,
    /// As it was answered.
    pub reply: Vec<u8>,
}

impl Handshake {
    /// Whether the kernel sends again what a process left unanswered (`FUSE_HAS_RESEND`, Linux 6.9): otherwise a mount ends
    /// with its process.
    pub fn can_go_on(&self) -> bool {
        // The header, then major, minor, read-ahead, flags, more flags.
        let flags =
            |at: usize| self.request.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
        let (Some(flags), Some(more)) = (flags(HEADER_BYTES + 12), flags(HEADER_BYTES + 16)) else { return false };
        flags & INIT_EXT != 0 && more & (HAS_RESEND >> 32) as u32 != 0
    }
}

/// Between fuser and the device, until they have come to terms.
pub(crate) struct Between {
    relay: JoinHandle<io::Result<Handshake>>,
}

impl Between {
    /// Plays the handshake, the `former` one if there was one, over the descriptor that is returned.
    pub(crate) fn begin(device: &OwnedFd, former: Option<Handshake>) -> io::Result<(Between, OwnedFd)> {
        let (ours, fusers) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let (device, ours) = (File::from(device.try_clone()?), UnixDatagram::from(ours));
        let relay = thread::Builder::new().name("fuse-handshake".to_owned());
        let relay = relay.spawn(move || match former {
            Some(former) => replay(&ours, former),
            None => record(&device, &ours),
        })?;
        Ok((Between { relay }, fusers))
    }

    /// Once fuser is content: puts the device in the place `number` of the descriptor that it was given.
    pub(crate) fn end(self, device: OwnedFd, number: RawFd) -> io::Result<Handshake> {
        let handshake = self.relay.join().map_err(|_| io::Error::other("the thread of the handshake panicked"))??;
        // SAFETY: fuser holds `number` open, and keeps it: it is given back below.
        let mut place = unsafe { OwnedFd::from_raw_fd(number) };
        let replaced = nix::unistd::dup3(&device, &mut place, OFlag::O_CLOEXEC);
        let _ = place.into_raw_fd();
        replaced?;
        Ok(handshake)
    }
}

fn record(mut device: &File, fuser: &UnixDatagram) -> io::Result<Handshake> {
    let mut request = vec![0; REQUEST_ROOM_BYTES];
    let len = device.read(&mut request)?;
    request.truncate(len);
    let reply = ask(fuser, &request)?;
    device.write_all(&reply)?;
    Ok(Handshake { request, reply })
}

fn replay(fuser: &UnixDatagram, former: Handshake) -> io::Result<Handshake> {
    let reply = ask(fuser, &former.request)?;
    match without_number(&reply) == without_number(&former.reply) {
        true => Ok(former),
        false => Err(io::Error::other("this program would serve the mount otherwise than the one before it")),
    }
}

fn ask(fuser: &UnixDatagram, request: &[u8]) -> io::Result<Vec<u8>> {
    fuser.send(request)?;
    let mut reply = vec![0; REPLY_ROOM_BYTES];
    let len = fuser.recv(&mut reply)?;
    reply.truncate(len);
    match len {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(reply),
    }
}

fn without_number(reply: &[u8]) -> (&[u8], &[u8]) {
    (reply.get(..NUMBER.start).unwrap_or(reply), reply.get(NUMBER.end..).unwrap_or_default())
}
