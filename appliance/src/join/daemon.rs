//! What the daemon answers about tokens and joining. Becoming a member ends in its starting again, as another one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use predastore::catalog::ListQuery;
use predastore::env::Env;
use predastore::ids::NodeId;
use predastore::node::Members;
use predastore::object;
use predastore::object::join::TokenInfo;
use predastore::transport::identity::{Papers, fresh_node_key};
use predastore::transport::{Peer, Role};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::PORT;
use super::guest::{Guest, Joined};
use super::member::{Fresh, Member};
use super::token::Token;
use crate::config::Config;
use crate::config::cluster::check_free;
use crate::identity::{Identity, host_names};
use crate::operator::audit;
use crate::store::Process;
use crate::tls::own_addresses;

/// Number of the box that a cluster begins with.
const FIRST: u64 = 1;
/// Random bytes of what all members know.
const SECRET_BYTES: usize = 32;
/// Buckets that are looked at, at a time.
const PAGE_COUNT: usize = 100;

/// What is asked of the daemon. A token is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Ask {
    /// Make a token. A box that is alone becomes the first of a cluster, and is to be asked again.
    CreateToken {
        ttl_s: u64,
        uses: u32,
        /// Where others reach this box, if not at its first address.
        address: Option<String>,
    },
    ListTokens {},
    RevokeToken {
        id: String,
    },
    /// Join the cluster that a token names.
    Join {
        token: String,
        /// Where others are to reach this box.
        address: Option<String>,
        dry_run: bool,
    },
    /// What this box is to its cluster.
    Standing {},
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ask::CreateToken { .. } => "CreateToken(..)",
            Ask::ListTokens {} => "ListTokens",
            Ask::RevokeToken { .. } => "RevokeToken(..)",
            Ask::Join { .. } => "Join(..)",
            Ask::Standing {} => "Standing",
        })
    }
}

/// What it says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Told {
    Token(Made),
    Tokens(Vec<Row>),
    Done {},
    /// It starts again, as a member.
    Restarts {},
    /// What would become of the cluster, or does.
    Plan {
        text: String,
    },
    Standing(Standing),
}

/// A new token, told this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Made {
    pub(super) text: String,
    pub(super) row: Row,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Made({:?}, ..)", self.row)
    }
}

/// A token, without its secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(super) id: String,
    pub(super) expires_s: i64,
    pub(super) uses_left: u32,
}

impl From<TokenInfo> for Row {
    fn from(token: TokenInfo) -> Self {
        Row { id: token.id, expires_s: token.expires.seconds(), uses_left: token.uses_left }
    }
}

/// What a box is to its cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Standing {
    /// Its number; none: it is alone.
    pub(super) node: Option<u64>,
    /// Whether it takes shards.
    pub(super) is_placed: bool,
    /// How chunks are laid out.
    pub(super) layout: String,
    /// Who votes.
    pub(super) voters: Vec<u64>,
}

/// The daemon's side of all this.
pub(crate) struct Joining {
    store: object::Store,
    data_dir: PathBuf,
    identity: Identity,
    /// What clients may call this box.
    domains: Vec<String>,
    member: Option<Member>,
    /// Whether the configuration makes it part of a cluster.
    is_configured: bool,
    box_store: Option<u128>,
    process_members: Option<Arc<Members>>,
    /// What the box was let in as, until nobody is served any more.
    let_in: Mutex<Option<Box<Member>>>,
    /// Has the daemon start again.
    again: CancellationToken,
}

impl Joining {
    /// `again`: cancelled, the daemon starts again.
    pub(crate) fn new(config: &Config, process: &Process, store: object::Store, again: CancellationToken) -> Self {
        let member = config.cluster.as_ref().and_then(|cluster| cluster.member.clone());
        Joining {
            store,
            data_dir: config.storage.data_dir.clone(),
            identity: Identity::of(config),
            domains: config.server.domains.clone(),
            is_configured: config.cluster.is_some() && member.is_none(),
            member,
            box_store: process.box_store(),
            process_members: process.members(),
            let_in: Mutex::default(),
            again,
        }
    }

    /// `uid`: who asks.
    ///
    /// # Errors
    /// Why it is not done.
    pub(crate) async fn answer(&self, ask: Ask, uid: u32) -> Result<Told> {
        let asked = match &ask {
            Ask::ListTokens {} | Ask::Standing {} | Ask::Join { dry_run: true, .. } => None,
            Ask::CreateToken { ttl_s, uses, .. } => Some(format!("token create for {ttl_s} s, {uses} uses")),
            Ask::RevokeToken { id } => Some(format!("token revoke {id}")),
            Ask::Join { .. } => Some("join".to_owned()),
        };
        let outcome = self.carry_out(ask).await;
        if let Some(asked) = asked {
            let made = if let Ok(Told::Token(made)) = &outcome { format!(": {}", made.row.id) } else { String::new() };
            audit(uid, &(asked + &made), outcome.as_ref().err());
        }
        outcome
    }

    async fn carry_out(&self, ask: Ask) -> Result<Told> {
        match ask {
            Ask::CreateToken { ttl_s, uses, address } => self.create_token(ttl_s, uses, address).await,
            Ask::ListTokens {} => Ok(Told::Tokens(self.store.tokens().await?.into_iter().map(Row::from).collect())),
            Ask::RevokeToken { id } => {
                self.store.revoke_token(&id).await?;
                Ok(Told::Done {})
            }
            Ask::Join { token, address, dry_run } => self.join(&token.parse()?, address, dry_run).await,
            Ask::Standing {} => self.standing().await.map(Told::Standing),
        }
    }

    async fn create_token(&self, ttl_s: u64, uses: u32, address: Option<String>) -> Result<Told> {
        ensure!(!self.is_configured, "the configuration says who is in this cluster: add a box there");
        let Some(member) = &self.member else {
            self.found(address)?;
            return Ok(Told::Restarts {});
        };
        ensure!(
            self.identity.may_sign(),
            "this box does not vote yet, and cannot let anybody in: make the token on one that does"
        );
        let address = address.map_or_else(|| self.address_now(member), with_port);
        let token = self.store.create_token(Duration::from_secs(ttl_s), uses).await?;
        let mut authority_sha256 = [0; 32];
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.identity.authority()?);
        authority_sha256.copy_from_slice(hash.as_ref());
        let text = Token { address, authority_sha256, secret: token.secret }.to_string();
        Ok(Told::Token(Made { text, row: token.info.into() }))
    }

    /// Where the members know this box to be.
    fn address_now(&self, member: &Member) -> String {
        let status = self.process_members.as_ref().and_then(|members| members.statuses().next());
        let known = status.and_then(|status| status.members.get(&NodeId(member.node)).cloned());
        known.filter(|address| !address.is_empty()).unwrap_or_else(|| member.address.clone())
    }

    /// Makes this box the first of a cluster: its authority vouches for all others from now on.
    fn found(&self, address: Option<String>) -> Result<()> {
        let first = own_addresses().into_iter().next().unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let address = address.map_or_else(|| std::net::SocketAddr::new(first, PORT).to_string(), with_port);
        check_free(&address)?;
        let mut secret = [0; SECRET_BYTES];
        Env::system().rng.fill(&mut secret);
        let (key, public) = fresh_node_key()?;
        let id = NodeId(FIRST);
        let peers = [Peer { role: Role::Db, id }, Peer { role: Role::Shard, id }];
        let certificate = self.identity.vouch(&public, &peers, OffsetDateTime::now_utc())?;
        let papers = Papers { authority: self.identity.authority()?, certificate, key };
        let mut member = Member::new(FIRST, address, crate::sign::hex(&secret), papers);
        member.fresh = Some(Fresh::Founds {});
        member.write(&self.data_dir)?;
        tracing::warn!(address = member.address, "this box becomes the first of a cluster, and starts again");
        self.again.cancel();
        Ok(())
    }

    async fn join(&self, token: &Token, address: Option<String>, dry_run: bool) -> Result<Told> {
        if let Some(member) = &self.member {
            bail!("this box is box {} of a cluster already", member.node);
        }
        ensure!(!self.is_configured, "the configuration makes this box part of a cluster already");
        self.is_empty().await?;
        let discards = self.box_store.context("this box has no store")?;
        let names = host_names(&self.domains);
        let guest = Guest { data_dir: &self.data_dir, address: address.map(with_port), names, discards };
        match guest.ask(token, dry_run).await? {
            Joined::Plan(text) => Ok(Told::Plan { text }),
            Joined::Member(text, member) => {
                tracing::warn!(node = member.node, "this box joins a cluster, and starts again");
                *self.let_in.lock().unwrap_or_else(PoisonError::into_inner) = Some(member);
                self.again.cancel();
                Ok(Told::Plan { text })
            }
        }
    }

    /// The box becomes what it was let in as, if anything: to be called once nobody is served any more, for what was stored
    /// since it was looked at last would be lost with its store.
    ///
    /// # Errors
    /// Something was stored: it stays what it is. The disk.
    pub(crate) async fn become_member(&self) -> Result<()> {
        let member = self.let_in.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(member) = member else { return Ok(()) };
        self.is_empty().await?;
        member.write(&self.data_dir)
    }

    /// Nothing that somebody may want back.
    async fn is_empty(&self) -> Result<()> {
        let users = self.store.users().await?;
        ensure!(users.is_empty(), "this box has users: what it has would be lost by joining");
        let mut after: Option<String> = None;
        loop {
            let buckets = self.store.buckets(after.as_deref(), PAGE_COUNT).await?;
            for bucket in &buckets {
                let usage = self.store.usage(&bucket.name).await?;
                let any = ListQuery { limit: 1, ..ListQuery::default() };
                let uploads = self.store.list_uploads(&bucket.name, any, None).await?.uploads;
                ensure!(
                    usage.object_count == 0 && usage.version_count == 0 && uploads.is_empty(),
                    "bucket {} has objects, or uploads: what this box has would be lost by joining. Copy it elsewhere and remove \
                     it first, or have the others join this box",
                    bucket.name
                );
            }
            match buckets.last() {
                Some(last) if buckets.len() == PAGE_COUNT => after = Some(last.name.clone()),
                _ => return Ok(()),
            }
        }
    }

    async fn standing(&self) -> Result<Standing> {
        let Some(member) = &self.member else {
            return Ok(Standing { node: None, is_placed: false, layout: String::new(), voters: Vec::new() });
        };
        let map = self.store.map().await?;
        let layout = map.as_ref().map(|map| format!("rs({},{})", map.data_count, map.parity_count));
        let status = self.process_members.as_ref().and_then(|members| members.statuses().next());
        Ok(Standing {
            node: Some(member.node),
            is_placed: map.is_some_and(|map| map.nodes.iter().any(|node| node.node.0 == member.node)),
            layout: layout.unwrap_or_default(),
            voters: status.map(|status| status.voters.iter().map(|voter| voter.0).collect()).unwrap_or_default(),
        })
    }
}

/// "host" or "host:port".
fn with_port(address: String) -> String {
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')));
    match (has_port, address.contains(':') && !address.starts_with('[')) {
        (true, _) => address,
        (false, true) => format!("[{address}]:{PORT}"),
        (false, false) => format!("{address}:{PORT}"),
    }
}

/// Members and where they are, as the file keeps them.
pub(super) fn peers_of(members: &BTreeMap<NodeId, String>, own: u64) -> BTreeMap<u64, String> {
    let others = members.iter().filter(|(id, address)| id.0 != own && !address.is_empty());
    others.map(|(id, address)| (id.0, address.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_added_where_there_is_none() {
        for (given, address) in [
            ("10.0.0.1", "10.0.0.1:6660"),
            ("10.0.0.1:7", "10.0.0.1:7"),
            ("box", "box:6660"),
            ("box:7", "box:7"),
            ("fd00::1", "[fd00::1]:6660"),
            ("[fd00::1]", "[fd00::1]:6660"),
            ("[fd00::1]:7", "[fd00::1]:7"),
        ] {
            assert_eq!(with_port(given.to_owned()), address);
        }
    }
}
