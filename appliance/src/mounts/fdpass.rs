//! Descriptors over a Unix socket (SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// As many as the kernel passes with one message (SCM_MAX_FD): with room for all, none is left behind unseen, open.
const MAX_COUNT: usize = 253;

/// Receives bytes into `buffer`, and the descriptors that came with them. No bytes: the other side has closed.
///
/// # Errors
/// As of recvmsg(2).
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut ancillary = cmsg_space!([RawFd; MAX_COUNT]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        // A socket with a time-out is interrupted when its process was stopped and goes on.
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut ancillary), flags) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just opened them for this process, and nothing else knows their numbers.
            descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    Ok((message.bytes, descriptors))
}

/// Sends some of `bytes`, at least one, with `descriptor`. Returns how many.
///
/// # Errors
/// As of sendmsg(2).
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    let raw = [descriptor.as_raw_fd()];
    let ancillary = [ControlMessage::ScmRights(&raw)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &ancillary, flags, None) {
            Err(Errno::EINTR) => {}
            sent => return Ok(sent?),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_arrives_with_the_first_bytes() {
        let (mut one, two) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let sent = send(one.as_fd(), b"hello", file.as_fd()).unwrap();
        one.write_all(b" again").unwrap();
        let mut buffer = [0; 5];
        let (len, mut got) = receive(two.as_fd(), &mut buffer).unwrap();
        assert_eq!((sent, len, &buffer, got.len()), (5, 5, b"hello", 1));
        File::from(got.pop().unwrap()).write_all(b"through the other one").unwrap();
        let mut text = String::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through the other one");
        drop(one);
        let mut rest = [0; 9];
        assert_eq!(receive(two.as_fd(), &mut rest).unwrap().0, 6);
        assert_eq!(receive(two.as_fd(), &mut rest).unwrap().0, 0);
    }
}
