//! Signals to threads that wait for an answer.
//!
//! The kernel tells by INTERRUPT that somebody who waits was sent a signal; the crate fuser answers that it does not do
//! that, for the whole connection. So who would be left waiting is looked after here.

use tokio::task::spawn_blocking;

/// How often a signal to a process of several threads is seen before it is taken to be for the one that waits: another
/// thread would have taken it by then.
const SIGHT_COUNT: u32 = 3;

/// A thread that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    thread: u32,
    sight_count: u32,
}

/// What a thread is to do first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pending {
    Nothing,
    /// A signal to the process, which has other threads.
    Perhaps,
    /// A signal to the thread; or there is none any more.
    Certainly,
}

impl Waiter {
    /// `thread`: as the kernel names it; 0: it is in no namespace of ours.
    pub(crate) fn new(thread: u32) -> Waiter {
        Waiter { thread, sight_count: 0 }
    }

    /// Whether it has a signal to handle, or is gone.
    pub(crate) async fn is_called_away(&mut self) -> bool {
        let thread = self.thread;
        if thread == 0 {
            return false;
        }
        let pending = spawn_blocking(move || match std::fs::read_to_string(format!("/proc/{thread}/status")) {
            Ok(status) => pending(&status),
            Err(_) => Pending::Certainly,
        });
        match pending.await.unwrap_or(Pending::Nothing) {
            Pending::Nothing => self.sight_count = 0,
            Pending::Perhaps => self.sight_count += 1,
            Pending::Certainly => return true,
        }
        self.sight_count >= SIGHT_COUNT
    }
}

/// What `/proc/THREAD/status` tells.
fn pending(status: &str) -> Pending {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let mask = |name| field(name).and_then(|value| u64::from_str_radix(value, 16).ok()).unwrap_or(0);
    let open = !(mask("SigBlk") | mask("SigIgn"));
    let is_alone = field("Threads").is_none_or(|count| count == "1");
    match (mask("SigPnd") & open != 0, mask("ShdPnd") & open != 0) {
        (true, _) => Pending::Certainly,
        (false, true) if is_alone => Pending::Certainly,
        (false, true) => Pending::Perhaps,
        (false, false) => Pending::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(threads: u32, own: u64, shared: u64, blocked: u64, ignored: u64) -> String {
        format!(
            "Name:\tflock\nThreads:\t{threads}\nSigQ:\t1/95\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n\
             SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t0000000000000000\n"
        )
    }

    #[test]
    fn what_is_blocked_or_ignored_calls_nobody() {
        assert_eq!(pending(&status(1, 0, 0, 0, 0)), Pending::Nothing);
        assert_eq!(pending(&status(1, 0x100, 0, 0, 0)), Pending::Certainly);
        assert_eq!(pending(&status(1, 0, 0x2000, 0, 0)), Pending::Certainly);
        assert_eq!(pending(&status(1, 0, 0x2000, 0x2000, 0)), Pending::Nothing);
        assert_eq!(pending(&status(1, 0, 0x2000, 0, 0x2000)), Pending::Nothing);
        assert_eq!(pending(&status(4, 0, 0x2000, 0, 0)), Pending::Perhaps);
        assert_eq!(pending(&status(4, 0x100, 0x2000, 0, 0)), Pending::Certainly);
    }

    #[tokio::test]
    async fn a_thread_that_is_gone_waits_for_nothing() {
        assert!(Waiter::new(u32::MAX).is_called_away().await);
        assert!(!Waiter::new(0).is_called_away().await);
        assert!(!Waiter::new(std::process::id()).is_called_away().await);
    }
}
