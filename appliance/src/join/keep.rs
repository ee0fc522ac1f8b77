//! What a member brings up to date while it runs: where the others are, for its next start; the authority's key once it
//! votes; and, as long as it does not, its HTTPS certificate.

use std::time::Duration;

use anyhow::Result;
use predastore::ids::NodeId;
use predastore::node::Members;
use time::OffsetDateTime;

use super::daemon::peers_of;
use super::member::Member;
use crate::config::Config;
use crate::identity::{Identity, fresh_server_key};
use crate::tls::endpoint_names;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);

/// Looks, for ever. `renewed`: the HTTPS certificate is another one.
pub(crate) async fn keep(config: &Config, identity: &Identity, members: &Members, renewed: impl Fn()) {
    let Some(mut member) = config.cluster.as_ref().and_then(|cluster| cluster.member.clone()) else {
        return std::future::pending().await;
    };
    member.fresh = None;
    let mut last_told = String::new();
    loop {
        let all = [
            note(write_peers(config, &mut member, members)),
            note(take_key(identity, members, member.node).await),
            note(renew(config, identity, members, &renewed).await),
        ];
        let told = all.concat();
        if !told.is_empty() && told != last_told {
            tracing::warn!("{told}; it is tried again");
        }
        last_told = told;
        tokio::time::sleep(PAUSE).await;
    }
}

fn note(outcome: Result<()>) -> String {
    outcome.err().map(|error| format!("{error:#}")).unwrap_or_default()
}

fn write_peers(config: &Config, member: &mut Member, members: &Members) -> Result<()> {
    let Some(status) = members.statuses().next() else { return Ok(()) };
    let peers = peers_of(&status.members, member.node);
    if peers.is_empty() || peers == member.peers {
        return Ok(());
    }
    let mut next = member.clone();
    next.peers = peers;
    next.write(&config.storage.data_dir)?;
    *member = next;
    Ok(())
}

async fn take_key(identity: &Identity, members: &Members, node: u64) -> Result<()> {
    let votes = members.statuses().any(|status| status.voters.contains(&NodeId(node)));
    if !votes || identity.may_sign() {
        return Ok(());
    }
    let key = members.authority_key().await?;
    identity.take_authority_key(&key)?;
    tracing::info!("this box votes, and may let others in");
    Ok(())
}

async fn renew(config: &Config, identity: &Identity, members: &Members, renewed: &impl Fn()) -> Result<()> {
    let names = endpoint_names(config);
    if !identity.lacks_server_certificate(&names, OffsetDateTime::now_utc()) {
        return Ok(());
    }
    let (key, public) = fresh_server_key()?;
    let chain = members.sign_server(&public, &names.into_iter().collect::<Vec<_>>()).await?;
    identity.take_server_certificate(&chain, &key)?;
    tracing::info!("another box has signed a new server certificate");
    renewed();
    Ok(())
}
