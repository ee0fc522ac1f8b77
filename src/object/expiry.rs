//! Ending the sessions of gateways that died: by the leader, which has watched them stand still for long enough.
//!
//! Invariant: a session is ended only at the renewal counter that was seen all the time, measured by the monotonic clock
//! of one leader: `apply` compares, so a renewal that comes between keeps it alive.

use std::collections::HashMap;
use std::time::Duration;

use crate::catalog::{Command, Envelope, SessionState};
use crate::ids::SessionId;

use super::{Error, Store};

/// Since when each session has stood still.
#[derive(Default)]
pub(super) struct Watch(HashMap<SessionId, (u64, Duration)>);

impl Watch {
    /// Those of `sessions` that have stood still for `limit` at `now`, with the counter they stand at.
    fn expired(&mut self, sessions: &[SessionState], now: Duration, limit: Duration) -> Vec<(SessionId, u64)> {
        self.0.retain(|id, _| sessions.iter().any(|session| session.id == *id));
        let mut expired = Vec::new();
        for SessionState { id, renewals, .. } in sessions {
            let seen = self.0.entry(*id).or_insert((*renewals, now));
            if seen.0 != *renewals {
                *seen = (*renewals, now);
            }
            if now.saturating_sub(seen.1) >= limit {
                expired.push((*id, seen.0));
            }
        }
        expired
    }
}

impl Store {
    /// Ends the sessions that `watch` has seen stand still for too long.
    ///
    /// # Errors
    /// `Unavailable`, `Catalog`.
    pub(super) async fn expire_sessions(&self, watch: &mut Watch) -> Result<(), Error> {
        let sessions = self.ledger.readers().read(|view| view.sessions()).await?;
        let now = self.env.clock.monotonic();
        for (session, renewals) in watch.expired(&sessions, now, self.config.session_expiry) {
            // Its own stands still only while its own commands do not get through.
            if self.session.is(session) {
                continue;
            }
            tracing::warn!(%session, "a gateway's session has stood still: ended");
            let command = Command::ExpireSession { session, renewals };
            // Not under this gateway's session: "no session" is said of the other one, which has ended already.
            let envelope = Envelope { session: SessionId(0), seq: 0, acked: 0, now: self.env.clock.now(), command };
            self.ledger.propose(envelope).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LogIndex;

    #[test]
    fn only_what_stands_still_all_the_time_expires() {
        let session =
            |id, renewals| SessionState { id: SessionId(id), gateway: String::new(), renewals, watermark: LogIndex(0) };
        let (mut watch, limit, at) = (Watch::default(), Duration::from_secs(10), Duration::from_secs);
        assert_eq!(watch.expired(&[session(1, 5), session(2, 0)], at(100), limit), []);
        assert_eq!(watch.expired(&[session(1, 6), session(2, 0)], at(109), limit), []);
        assert_eq!(watch.expired(&[session(1, 6), session(2, 0)], at(110), limit), [(SessionId(2), 0)]);
        assert_eq!(watch.expired(&[session(1, 6)], at(118), limit), []);
        assert_eq!(watch.expired(&[session(1, 6), session(2, 0)], at(119), limit), [(SessionId(1), 6)]);
    }
}
