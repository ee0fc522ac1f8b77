//! The control socket against a real store, with all that can be asked without a mount of the kernel's.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::command;
use super::control::ControlSocket;
use super::kernel::Way;
use super::mountinfo;
use super::options::Served;
use super::protocol::{self, HEAD_BYTES, Mount, Reply, Request};
use super::running::Mounts;
use super::socket::Client;
use crate::config::settings::setting;
use crate::config::{Config, Control};
use crate::join::daemon::Joining;
use crate::store::Process;

fn control(socket: PathBuf) -> Control {
    Control { socket, users: Vec::new() }
}

/// A store whose control socket is served while `ask` runs on a thread of its own.
fn with_daemon(ask: impl FnOnce(&Path) + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let flags = [(setting("storage.data_dir").unwrap(), dir.path().join("data").display().to_string())];
    let config = Config::load(&flags, &[]).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let process = Process::start(&config).await.unwrap();
        let store = process.store().await.unwrap().unwrap();
        let joining = Joining::new(&config, &process, store.objects().clone(), CancellationToken::new());
        let mounts = Mounts::new(store, dir.path().join("staging"));
        let stop = CancellationToken::new();
        let socket = ControlSocket::bind(&config.control).unwrap().unwrap();
        let served = tokio::spawn(socket.serve(mounts.clone(), Arc::new(joining), stop.clone()));
        let path = config.control.socket.clone();
        tokio::task::spawn_blocking(move || ask(&path)).await.unwrap();
        stop.cancel();
        served.await.unwrap();
        mounts.end().await;
        process.shutdown().await;
    });
}

fn ask(path: &Path, request: &Request, descriptor: Option<&File>) -> Reply {
    let client = Client::connect(path, Duration::ZERO).unwrap();
    client.ask(request, descriptor.map(AsFd::as_fd)).unwrap()
}

/// What is said to raw bytes; none: the connection was closed.
fn said_to(path: &Path, bytes: &[u8]) -> Option<Reply> {
    let mut stream = UnixStream::connect(path).unwrap();
    // Refused before it is all said: the daemon may have closed already.
    let _ = stream.write_all(bytes);
    stream.shutdown(std::net::Shutdown::Write).ok();
    let mut head = [0; HEAD_BYTES];
    match stream.read_exact(&mut head) {
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
        read => read.unwrap(),
    }
    let mut body = vec![0; protocol::body_len(&head).unwrap()];
    stream.read_exact(&mut body).unwrap();
    Some(protocol::decode(&body).unwrap())
}

fn mount(path: &str) -> Request {
    let source = "photos".parse().unwrap();
    Request::Mount(Mount { source, path: path.to_owned(), id: 5, connection: 57, options: Served::default() })
}

#[test]
fn what_is_no_request_is_refused_and_the_daemon_goes_on() {
    with_daemon(|path| {
        let mut seed = 11_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as u8
        };
        let good = protocol::encode(&mount("/mnt")).unwrap();
        let mut all = vec![Vec::new(), b"GET / HTTP/1.1\r\n\r\n".to_vec(), good[..20].to_vec(), vec![0xff; 100_000]];
        all.extend((0..200).map(|len| (0..len).map(|_| random()).collect::<Vec<u8>>()));
        all.extend((0..200).map(|at| {
            let mut frame = good.clone();
            let at = at % frame.len();
            frame[at] = random();
            frame
        }));
        for bytes in all {
            let reply = said_to(path, &bytes);
            assert!(matches!(reply, None | Some(Reply::Refused(_))), "{bytes:?}: {reply:?}");
        }
        assert_eq!(ask(path, &Request::Mounts {}, None), Reply::Mounts(Vec::new()));
    });
}

#[test]
fn only_a_descriptor_of_the_device_is_mounted() {
    with_daemon(|path| {
        let refused = |reply: Reply| match reply {
            Reply::Refused(reason) => reason,
            other => panic!("{other:?}"),
        };
        assert!(refused(ask(path, &mount("/mnt"), None)).contains("no descriptor"));
        let null = File::open("/dev/null").unwrap();
        assert!(refused(ask(path, &mount("/mnt"), Some(&null))).contains("/dev/fuse"));
        assert!(refused(ask(path, &mount("mnt"), Some(&null))).contains("absolute"));
        assert_eq!(ask(path, &Request::Mounts {}, Some(&null)), Reply::Mounts(Vec::new()));
    });
}

#[test]
fn a_mount_that_nobody_knows_has_ended() {
    with_daemon(|path| {
        for force in [false, true] {
            assert_eq!(ask(path, &Request::Unmount { connection: 57, force }, None), Reply::Done {});
        }
        assert_eq!(command::mounts(path).unwrap(), "");
    });
}

/// Its holder is not to take that for the mount's end: it may have come to the next daemon.
#[test]
fn a_mount_that_is_not_served_here_is_not_watched() {
    with_daemon(|path| {
        assert!(matches!(ask(path, &Request::Watch { connection: 57 }, None), Reply::Refused(_)));
    });
}

#[tokio::test]
async fn a_socket_file_that_was_left_is_replaced_and_a_living_process_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let control = control(dir.path().join("control.sock"));
    drop(UnixListener::bind(&control.socket).unwrap());
    let socket = ControlSocket::bind(&control).unwrap().unwrap();
    assert_eq!(fs::metadata(&control.socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(ControlSocket::bind(&control).unwrap().is_none());
    drop(socket);
    assert!(!control.socket.exists());
    fs::write(&control.socket, "a file of somebody's").unwrap();
    assert!(ControlSocket::bind(&control).is_err());
    assert!(control.socket.exists());
}

#[tokio::test]
async fn a_long_path_has_a_socket_too() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("d".repeat(200));
    fs::create_dir(&long).unwrap();
    let control = control(long.join("control.sock"));
    let socket = ControlSocket::bind(&control).unwrap().unwrap();
    assert!(Client::connect(&control.socket, Duration::ZERO).is_ok());
    drop(socket);
    let error = Client::connect(&control.socket, Duration::from_millis(150)).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("no daemon"), "{error}");
}

#[test]
fn what_is_not_ours_is_not_unmounted() {
    let dir = tempfile::tempdir().unwrap();
    let error = command::unmount(dir.path(), Way::Force, None).unwrap_err();
    assert!(error.to_string().contains("not mounted"), "{error}");
    let root = mountinfo::at(Path::new("/")).unwrap().unwrap();
    let error = command::unmount(Path::new("/"), Way::Force, None).unwrap_err();
    assert!(error.to_string().contains(&root.fstype), "{error}");
}
