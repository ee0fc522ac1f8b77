//! The cluster's map, from the catalog to whoever places chunks.

use std::time::Duration;

use crate::catalog::{self, Command, MapNode, MapState, Outcome, Refusal};
use crate::erasure::Scheme;
use crate::placement::{Member, Ring, State};

use super::bucket::unexpected;
use super::striped::Map;
use super::{Error, Store};

/// Between two looks at the catalog.
const PAUSE: Duration = Duration::from_secs(1);

/// As the placement of chunks needs it.
///
/// # Errors
/// `Invalid`: there is no such layout or ring.
pub(crate) fn placed(map: &catalog::Map) -> Result<Map, Error> {
    let member = |node: &MapNode| Member {
        node: node.node,
        weight: node.weight,
        zone: node.zone.clone(),
        host: node.host.clone(),
        state: match node.state {
            MapState::Active => State::Active,
            MapState::Draining => State::Draining,
        },
    };
    let ring = Ring::new(map.epoch, map.nodes.iter().map(member).collect());
    let scheme = Scheme::new(map.data_count, map.parity_count);
    Ok(Map {
        scheme: scheme.map_err(|error| Error::Invalid(error.to_string()))?,
        ring: ring.map_err(|error| Error::Invalid(error.to_string()))?,
    })
}

impl Store {
    /// Keeps the striper at the catalog's map, for ever. Where the catalog has none, whoever leads gives it the one that the
    /// cluster was configured with.
    pub(super) async fn follow_map(self, first: catalog::Map) {
        let mut epoch = None;
        loop {
            match self.ledger.readers().read(|view| view.map()).await {
                Ok(Some(map)) if epoch != Some(map.epoch) => {
                    self.adopt(&map);
                    epoch = Some(map.epoch);
                }
                Ok(Some(_)) => {}
                Ok(None) if self.ledger.leads() => {
                    if let Err(error) = self.set_map(0, first.clone()).await {
                        tracing::warn!(%error, "the cluster's first map was not set; it is tried again");
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the cluster's map cannot be read"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn adopt(&self, map: &catalog::Map) {
        let Some(striper) = self.chunks.striper() else { return };
        match placed(map) {
            Ok(placed) => {
                tracing::info!(epoch = map.epoch, scheme = %placed.scheme, nodes = map.nodes.len(), "the cluster's map");
                striper.set_map(placed);
            }
            Err(error) => tracing::error!(epoch = map.epoch, %error, "the cluster's map makes no sense"),
        }
    }

    /// Replaces the cluster's map, if it is still of `from_epoch`.
    ///
    /// # Errors
    /// `Refused`: it is of another epoch. `Unavailable`.
    pub async fn set_map(&self, from_epoch: u64, map: catalog::Map) -> Result<(), Error> {
        match self.session.propose(Command::SetMap { from_epoch, map }).await? {
            Outcome::Done => Ok(()),
            // Somebody else was first.
            Outcome::Refused(Refusal::MapChanged { .. }) if from_epoch == 0 => Ok(()),
            Outcome::Refused(refusal) => Err(refusal.into()),
            outcome => Err(unexpected(&outcome)),
        }
    }
}
