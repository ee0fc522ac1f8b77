//! Keeps the process as small as what it holds: bounds what the allocator keeps, and has it given back.
//!
//! glibc makes up to eight arenas a processor, keeps what is free in each of them, and returns by itself only what is
//! free at the end of one: a box that was busy once would stay large. Other allocators are left alone.

use std::time::Duration;

/// A box that falls idle is small again after about this long.
const INTERVAL: Duration = Duration::from_secs(20);

/// An arena for each processor. Call it while there is one thread.
pub(crate) fn bound_arenas() {
    let count = std::thread::available_parallelism().map_or(2, |count| count.get().max(2));
    glibc::bound_arenas(i32::try_from(count).unwrap_or(i32::MAX));
}

/// Gives back what is free, now and then, for ever.
pub(crate) async fn give_back() {
    loop {
        tokio::time::sleep(INTERVAL).await;
        // Each arena is locked while it is looked through: not on a thread that serves.
        let _ = tokio::task::spawn_blocking(glibc::trim).await;
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use nix::libc;

    pub(super) fn bound_arenas(count: i32) {
        // SAFETY: takes no pointers; no other thread allocates yet.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, count) };
    }

    pub(super) fn trim() {
        // SAFETY: takes no pointers, and is safe to call from any thread at any time.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod glibc {
    pub(super) fn bound_arenas(_: i32) {}

    pub(super) fn trim() {}
}
