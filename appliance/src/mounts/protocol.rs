//! What is said over the control socket: one request and one reply a connection, each a frame.
//!
//! ```text
//! magic    4 bytes  "PDCT"
//! version  u32 LE   of the form of what follows
//! length   u32 LE   of the body; at most 256 KiB
//! body     JSON     a Request or a Reply
//! ```
//!
//! A request to mount carries the descriptor of /dev/fuse as ancillary data (SCM_RIGHTS) of its first bytes.
//! A field that the other side does not know is an error there: a new one is a new version.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::options::{Served, Source};
use crate::join::daemon as join;
use crate::operator::snapshots::{Asked, Rows};
use crate::operator::{buckets, users};

/// The version this program speaks.
pub(crate) const VERSION: u32 = 1;
/// Of a frame's head.
pub(crate) const HEAD_BYTES: usize = 12;
/// Most bytes of a body.
pub(crate) const BODY_MAX_BYTES: usize = 256 << 10;

const MAGIC: [u8; 4] = *b"PDCT";

/// What is wrong with what came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Not of this protocol.
    #[error("this is not the protocol of the control socket")]
    Magic,
    /// Of another program.
    #[error("the other side speaks version {0} of the control socket's protocol, and this program version {VERSION}")]
    Version(u32),
    /// Longer than anything sensible.
    #[error("a message of {0} bytes is longer than any may be")]
    TooLong(usize),
    /// Nothing that is known.
    #[error("not understood: {0}")]
    Body(#[from] serde_json::Error),
}

/// What is asked of the daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Serve the mount whose descriptor comes along; answered once it is served.
    Mount(Mount),
    /// The same, of a mount that a process served before that has ended.
    Resume {
        /// The mount.
        mount: Mount,
        /// That of the first process.
        handshake: Handshake,
    },
    /// Answered when the mount has ended. Who asks keeps it while the daemon is away.
    Watch {
        /// Number of the FUSE connection.
        connection: u32,
    },
    /// See a mount off that was unmounted, or is to be: answered when all that was written through it is committed.
    Unmount {
        /// Number of the FUSE connection.
        connection: u32,
        /// End it now; otherwise it ends by itself, when nobody uses it any more.
        force: bool,
    },
    /// Tell what is mounted.
    Mounts {},
    /// About users and access keys.
    Users(users::Ask),
    /// About buckets.
    Buckets(buckets::Ask),
    /// Of snapshots: see there.
    Snapshot(Asked),
    /// About tokens, and joining a cluster.
    Cluster(join::Ask),
    /// Read and verify all that is stored.
    Scrub {},
}

/// A mount.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mount {
    /// What.
    pub(crate) source: Source,
    /// Where, as whoever mounted it sees it.
    pub(crate) path: String,
    /// A random number of its own: not 0, less than 2^63.
    pub(crate) id: u64,
    /// Number of the FUSE connection.
    pub(crate) connection: u32,
    /// How.
    pub(crate) options: Served,
}

/// The kernel's first request and its answer, which every process that serves the mount needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Handshake {
    /// As the kernel sent it.
    pub(crate) request: Vec<u8>,
    /// As it was answered.
    pub(crate) reply: Vec<u8>,
}

/// What the daemon says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Reply {
    /// The mount is served.
    Served(Handshake),
    /// It is as asked for.
    Done {},
    /// Not yet: the mount is still used, from another mount namespace or by open files.
    Busy {},
    /// What is mounted.
    Mounts(Vec<Mount>),
    /// About users and access keys.
    Users(users::Told),
    /// About buckets.
    Buckets(buckets::Told),
    /// What came of what was asked of snapshots.
    Snapshots(Rows),
    /// About tokens, and joining a cluster.
    Cluster(join::Told),
    /// It cannot be, for this reason.
    Refused(String),
}

/// A message as it is sent.
///
/// # Errors
/// [`Error::TooLong`].
pub(crate) fn encode(message: &impl Serialize) -> Result<Vec<u8>, Error> {
    let body = serde_json::to_vec(message)?;
    if body.len() > BODY_MAX_BYTES {
        return Err(Error::TooLong(body.len()));
    }
    let mut frame = Vec::with_capacity(HEAD_BYTES + body.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&VERSION.to_le_bytes());
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// How long the body behind this head is.
///
/// # Errors
/// It is no head of ours.
pub(crate) fn body_len(head: &[u8; HEAD_BYTES]) -> Result<usize, Error> {
    let [m0, m1, m2, m3, v0, v1, v2, v3, l0, l1, l2, l3] = *head;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(Error::Magic);
    }
    match u32::from_le_bytes([v0, v1, v2, v3]) {
        VERSION => {}
        other => return Err(Error::Version(other)),
    }
    match u32::from_le_bytes([l0, l1, l2, l3]) as usize {
        len if len > BODY_MAX_BYTES => Err(Error::TooLong(len)),
        len => Ok(len),
    }
}

/// What a body says.
///
/// # Errors
/// [`Error::Body`].
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    Ok(serde_json::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mount() -> Mount {
        let source = Source { bucket: "photos".into(), prefix: "2024/ü".into() };
        Mount { source, path: "/mnt/a b".into(), id: 1 << 60, connection: 57, options: Served::default() }
    }

    fn split(frame: &[u8]) -> Result<&[u8], Error> {
        let head = frame.first_chunk::<HEAD_BYTES>().unwrap();
        let len = body_len(head)?;
        Ok(&frame[HEAD_BYTES..][..len])
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let handshake = Handshake { request: vec![0, 255], reply: vec![7] };
        let resumed = Request::Resume { mount: mount(), handshake: handshake.clone() };
        let requests = [
            Request::Mount(mount()),
            resumed,
            Request::Watch { connection: 3 },
            Request::Unmount { connection: 3, force: true },
            Request::Mounts {},
            Request::Snapshot(Asked::Create { source: mount().source, name: "before".into() }),
            Request::Snapshot(Asked::List { bucket: "photos".into(), skip: 16 }),
        ];
        for request in requests {
            let frame = encode(&request).unwrap();
            assert_eq!(decode::<Request>(split(&frame).unwrap()).unwrap(), request);
        }
        for reply in [
            Reply::Served(handshake),
            Reply::Done {},
            Reply::Busy {},
            Reply::Mounts(vec![mount()]),
            Reply::Snapshots(Rows { rows: Vec::new(), has_more: true }),
            Reply::Refused("no".into()),
        ] {
            let frame = encode(&reply).unwrap();
            assert_eq!(decode::<Reply>(split(&frame).unwrap()).unwrap(), reply);
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let frame = encode(&Request::Mounts {}).unwrap();
        let with = |at: usize, byte: u8| {
            let mut frame = frame.clone();
            frame[at] = byte;
            split(&frame).map(<[u8]>::to_vec)
        };
        assert!(matches!(with(0, b'G'), Err(Error::Magic)));
        assert!(matches!(with(4, 2), Err(Error::Version(2))));
        assert!(matches!(with(11, 1), Err(Error::TooLong(_))));
        assert!(matches!(encode(&Reply::Refused("x".repeat(BODY_MAX_BYTES))), Err(Error::TooLong(_))));
    }

    #[test]
    fn a_body_with_anything_more_or_less_is_refused() {
        let no = [
            "",
            "{}",
            "null",
            "[]",
            r#""mounts""#,
            r#"{"mounts":{"more":1}}"#,
            r#"{"mounts":{}} x"#,
            r#"{"mounts":{},"unmount":{"connection":1,"force":true}}"#,
            r#"{"unmount":{"connection":-1,"force":true}}"#,
            r#"{"unmount":{"connection":1}}"#,
            r#"{"unmount":{"connection":4294967296,"force":true}}"#,
            r#"{"mount":{"source":{"bucket":"a","prefix":""},"path":"/","id":1,"connection":1}}"#,
        ];
        for body in no {
            assert!(decode::<Request>(body.as_bytes()).is_err(), "{body}");
        }
        let deep = "[".repeat(BODY_MAX_BYTES);
        assert!(decode::<Request>(deep.as_bytes()).is_err(), "depth is bounded");
    }

    /// Bytes of a good message, changed, cut and mixed at random: an error or a message, never a panic.
    #[test]
    fn garbage_is_an_error() {
        let mut seed = 7_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as usize
        };
        let good = encode(&Request::Mount(mount())).unwrap();
        for _ in 0..20_000 {
            let mut frame = good.clone();
            for _ in 0..1 + random() % 8 {
                let at = random() % frame.len();
                frame[at] = random() as u8;
            }
            frame.truncate(HEAD_BYTES + random() % (frame.len() - HEAD_BYTES));
            let Ok(len) = body_len(frame.first_chunk().unwrap()) else { continue };
            assert!(len <= BODY_MAX_BYTES);
            let body = &frame[HEAD_BYTES..];
            let _ = (decode::<Request>(body), decode::<Reply>(body));
        }
    }
}
