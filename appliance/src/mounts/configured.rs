//! `[[mount]]`: mounts that the daemon makes itself, if it may.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tokio::runtime::Handle;

use super::holder;
use super::kernel;
use super::mounting;
use super::options::{Options, Source};
use super::protocol::Mount;
use super::running::{Mounts, apart};

/// One to make when the daemon serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    /// What.
    pub(crate) source: Source,
    /// Where; absolute.
    pub(crate) path: PathBuf,
    /// How.
    pub(crate) options: Options,
}

/// Mounts them, one after the other; what cannot be mounted is told to the log.
/// `control`: where the next process will be found.
pub(crate) async fn mount_all(wanted: Vec<Wanted>, mounts: Mounts, control: PathBuf) {
    if !wanted.is_empty() && !kernel::can_mount() {
        tracing::error!("nothing of [[mount]] is mounted: that takes CAP_SYS_ADMIN, or the program fusermount3");
        return;
    }
    for wanted in wanted {
        let (source, path) = (wanted.source.to_string(), wanted.path.clone());
        let (mounts, runtime, control) = (mounts.clone(), Handle::current(), control.clone());
        let made = apart(move || {
            let serve = |mount: Mount, device: OwnedFd| {
                let copy = device.try_clone().map_err(|error| error.to_string())?;
                let served = runtime.block_on(mounts.serve(mount.clone(), device, None));
                let handshake = served.map_err(|error| error.to_string())?;
                holder::start(&control, &mount, handshake, copy).map_err(|error| error.to_string())
            };
            mounting::mount(&wanted.source, &wanted.path, &wanted.options, serve)
        });
        match made.await {
            Ok(Ok(())) => {}
            // It outlived the process before this one, and its holder was quicker.
            Ok(Err(mounting::Error::Taken { path, source_name })) if source_name == source => {
                tracing::info!(source, path = %path.display(), "[[mount]]: mounted already");
            }
            Ok(Err(error)) => tracing::error!(source, path = %path.display(), %error, "[[mount]]: not mounted"),
            Err(_) => tracing::error!(source, path = %path.display(), "[[mount]]: not mounted: its thread ended"),
        }
    }
}
