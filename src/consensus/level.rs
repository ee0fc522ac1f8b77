//! Raises the catalog's feature level (see [`crate::catalog::FEATURE_LEVEL`]): the leader, where its program knows more than
//! the catalog has, asks all members what they know, and proposes what all of them do.
//!
//! Invariants
//! - A member that does not answer, or does not know the question, holds the level back: voter or learner, alive or not.
//! - Who was asked is who is there when the level is raised. After that no voter is added whose program knows less than the
//!   catalog has, and no such learner asks for a place. A member that comes back with an older program stops by itself.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::future::{select, try_join_all};
use tokio::time::Instant;

use super::core::Core;
use super::members::MembersError;
use super::message::{Method, WireLevels, status};
use super::network::{AskError, ask};
use super::propose::Tried;
use super::types::{Command, Member};
use crate::catalog::{self, Envelope, Levels, Outcome};
use crate::env::Timestamp;
use crate::ids::SessionId;
use crate::transport::Caller;

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_secs(2);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What `node` knows, and has.
pub(super) async fn levels_of(caller: &dyn Caller, node: u64) -> Result<Levels, AskError> {
    let (known, reached): WireLevels = ask(caller, node, (Method::Levels, &()), ASK_TIMEOUT).await?;
    Ok(Levels { known, reached })
}

/// Raises the level, if need be and whenever this node leads, until the catalog has what this program knows, or the core
/// stops.
pub(super) async fn keep_raising(core: Core) {
    select(pin!(core.raise_to_known()), pin!(core.stops())).await;
}

impl Core {
    async fn raise_to_known(&self) {
        // It fails only for a core that has stopped. Who is alone leads at once.
        let _ = self.raft.wait(None).metrics(|metrics| metrics.current_leader.is_some(), "a leader").await;
        let mut last_told = String::new();
        loop {
            let Levels { known, reached } = self.applier.levels();
            if reached >= known {
                return;
            }
            if self.leader() == Some(self.node)
                && let Err(why) = self.raise_level().await
                && why != last_told
            {
                tracing::info!("the feature level stays at {reached}, and this s3d knows {known}: {why}");
                last_told = why;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Raises the level to what all members know, if that is more than it is.
    async fn raise_level(&self) -> Result<(), String> {
        let members = self.members();
        let asked = members.keys().map(|node| self.known_by(*node));
        let known = try_join_all(asked).await?;
        let Some((to, least)) = known.into_iter().min() else { return Err("there are no members".into()) };
        if to <= self.applier.levels().reached {
            return Err(format!("db {least} knows {to}"));
        }
        let _turn = self.changing.lock().await;
        if self.members() != members {
            return Err("the members have changed".into());
        }
        self.propose_level(to).await
    }

    fn members(&self) -> BTreeMap<u64, Member> {
        let metrics = self.metrics();
        metrics.membership_config.membership().nodes().map(|(node, member)| (*node, member.clone())).collect()
    }

    /// What a member knows; and who it is.
    async fn known_by(&self, node: u64) -> Result<(u32, u64), String> {
        if node == self.node {
            return Ok((self.applier.levels().known, node));
        }
        let levels =
            levels_of(&*self.caller, node).await.map_err(|error| format!("db {node} does not say: {error}"))?;
        Ok((levels.known, node))
    }

    async fn propose_level(&self, to: u32) -> Result<(), String> {
        let command = catalog::Command::RaiseLevel { to };
        let envelope = Envelope { session: SessionId(0), seq: 0, acked: 0, now: Timestamp::default(), command };
        let deadline = Instant::now() + self.timeout;
        match self.try_here(Command(envelope.encode().into()), false, deadline).await {
            Tried::Done(Outcome::Done) => {
                tracing::info!("the feature level is {to} now: an s3d that does not know it does not start any more");
                Ok(())
            }
            other => Err(format!("it was not raised: {other:?}")),
        }
    }

    /// Whether `node`, which is to become a member, knows the catalog's level.
    ///
    /// # Errors
    /// `Refused`: it does not. `Unavailable`: it did not answer.
    pub(super) async fn knows_level(&self, node: u64) -> Result<(), MembersError> {
        let reached = self.applier.levels().reached;
        let known = match levels_of(&*self.caller, node).await {
            Ok(levels) => levels.known,
            // It is of before there were levels.
            Err(AskError::Status(status::REFUSED, _)) => 0,
            Err(error) => return Err(MembersError::Unavailable(format!("db {node}: {error}"))),
        };
        match known >= reached {
            true => Ok(()),
            false => Err(MembersError::Refused(format!(
                "the cluster is at feature level {reached}, and db {node} knows levels up to {known}: it needs a newer s3d"
            ))),
        }
    }
}
