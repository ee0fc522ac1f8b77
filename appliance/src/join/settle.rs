//! What a box does at its start once, when it has become a member: its store becomes the cluster's, or goes, and the keys
//! that it was given come to their place. It may be broken off anywhere, and is done anew then.

use std::path::Path;

use anyhow::{Context, Result};
use predastore::node::{self, members};

use super::member::Fresh;
use crate::config::Config;
use crate::identity::Identity;
use crate::store::core_cluster;

/// Puts in place what is not yet. Nothing in a box that is no member.
///
/// # Errors
/// The disk; the directory is another node's.
pub(crate) fn settle(config: &Config) -> Result<()> {
    let data_dir = &config.storage.data_dir;
    let Some(cluster) = config.cluster.as_ref() else { return Ok(()) };
    let Some(mut member) = cluster.member.clone() else { return Ok(()) };
    let Some(fresh) = member.fresh.take() else { return Ok(()) };
    match fresh {
        Fresh::Founds {} => {
            members::adopt(&core_cluster(cluster), true)?;
            tracing::info!("the store of this box is the first of a cluster now");
        }
        Fresh::Joins { discards, authority, server, root } => {
            discard(data_dir, &discards)?;
            Identity::of_member(data_dir).install(
                &authority,
                &server,
                (&root.access_key, &root.secret_key, &root.account_id),
            )?;
            tracing::info!(node = member.node, "this box has joined a cluster");
        }
    }
    member.write(data_dir)
}

fn discard(data_dir: &Path, store: &str) -> Result<()> {
    let store = u128::from_str_radix(store, 16).context("the member file's store")?;
    Ok(node::discard(data_dir, store)?)
}
