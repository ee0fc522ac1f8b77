//! The cluster's map, from the catalog to whoever places chunks; and back, when it is changed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{self, Command, Outcome, Refusal};
use crate::cluster::map::{self, Change, changed};
use crate::erasure::Scheme;
use crate::ids::{NodeId, ShardId};

use super::bucket::unexpected;
use super::striped::Map;
use super::{Error, Store};

/// Between two looks at the catalog.
const PAUSE: Duration = Duration::from_secs(1);

/// Hears of a map.
#[derive(Clone)]
pub struct OnMap(pub Arc<dyn Fn(&catalog::Map) + Send + Sync>);

impl Default for OnMap {
    fn default() -> Self {
        OnMap(Arc::new(|_| {}))
    }
}

impl fmt::Debug for OnMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnMap(..)")
    }
}

impl From<map::Error> for Error {
    fn from(error: map::Error) -> Self {
        Error::Invalid(error.to_string())
    }
}

/// As the placement of chunks needs it.
///
/// # Errors
/// `Invalid`: there is no such layout or ring.
pub(crate) fn placed(map: &catalog::Map) -> Result<Map, Error> {
    Ok(Map { scheme: map::scheme(map)?, ring: map::ring(map)? })
}

impl Store {
    /// Keeps the striper at the catalog's map, for ever. `configured`: with what this process was configured. Where the
    /// catalog has no map, whoever leads gives it this one; where chunks are laid out otherwise, this process has it
    /// changed, once: who was started last is right.
    pub(super) async fn follow_map(self, configured: catalog::Map) {
        let (mut epoch, mut is_settled) = (None, false);
        loop {
            match self.ledger.readers().read(|view| view.map()).await {
                Ok(Some(map)) => {
                    if epoch.replace(map.epoch) != Some(map.epoch) {
                        self.adopt(&map);
                    }
                    is_settled = is_settled || !self.config.lays_out || self.lay_out(&map, &configured).await;
                }
                Ok(None) if self.ledger.leads() => {
                    if let Err(error) = self.set_map(0, configured.clone()).await {
                        tracing::warn!(%error, "the cluster's first map was not set; it is tried again");
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the cluster's map cannot be read"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Places by the catalog's map from the first chunk on, if there is one.
    ///
    /// # Errors
    /// `Catalog`.
    pub(super) async fn begin_with_map(&self) -> Result<(), Error> {
        if self.chunks.striper().is_some()
            && let Some(map) = self.ledger.readers().read(|view| view.map()).await?
        {
            self.adopt(&map);
        }
        Ok(())
    }

    fn adopt(&self, map: &catalog::Map) {
        let Some(striper) = self.chunks.striper() else { return };
        (self.config.on_map.0)(map);
        match placed(map) {
            Ok(placed) => {
                tracing::info!(epoch = map.epoch, scheme = %placed.scheme, nodes = map.nodes.len(), "the cluster's map");
                striper.set_map(placed);
            }
            Err(error) => tracing::error!(epoch = map.epoch, %error, "the cluster's map makes no sense"),
        }
    }

    /// Has chunks laid out as this process is configured. Whether that is so now.
    async fn lay_out(&self, map: &catalog::Map, configured: &catalog::Map) -> bool {
        let (Ok(now), Ok(wanted)) = (map::scheme(map), map::scheme(configured)) else { return true };
        if now == wanted {
            return true;
        }
        match self.change_layout(map, wanted).await {
            Ok(()) => tracing::warn!(%now, %wanted, "chunks are laid out otherwise from now on, as configured"),
            Err(error) => tracing::debug!(%now, %wanted, %error, "chunks are not laid out as configured"),
        }
        false
    }

    async fn change_layout(&self, map: &catalog::Map, wanted: Scheme) -> Result<(), Error> {
        self.set_map(map.epoch, changed(map, &Change::Layout(wanted))?).await
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

    /// The cluster's map; none: a box, or a cluster that has none yet.
    ///
    /// # Errors
    /// `Unavailable`, `Catalog`.
    pub async fn map(&self) -> Result<Option<catalog::Map>, Error> {
        self.snapshot(|view| Ok(view.map()?)).await
    }

    /// How many chunks have a shard on `node`, as the catalog says.
    ///
    /// # Errors
    /// `Unavailable`, `Catalog`.
    pub async fn chunk_count_on(&self, node: NodeId) -> Result<u64, Error> {
        let is_there = move |(at, shard): &(NodeId, ShardId)| *at == node && *shard != ShardId(0);
        let (mut count, mut after) = (0, None);
        self.ledger.barrier().await?;
        while let Some(page) = self.next_places(&mut after).await? {
            count += page.iter().filter(|(_, place)| place.layout.shards().iter().any(is_there)).count() as u64;
        }
        Ok(count)
    }
}
