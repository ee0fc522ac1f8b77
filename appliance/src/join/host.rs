//! The side that lets boxes in: `POST /join` on the TCP port whose number others dial over UDP. Who asks shows the token's
//! secret; nothing else is asked of a stranger, and nothing told to one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Router, body::Bytes};
use predastore::catalog::FEATURE_LEVEL;
use predastore::ids::NodeId;
use predastore::node::{Members, steward};
use predastore::object;
use predastore::object::access::Secret;
use predastore::object::join::{self, Newcomer};
use predastore::transport::{Peer, Role};
use time::OffsetDateTime;

use super::member::Member;
use super::message::{Answer, Asking, MAX_BYTES, PATH, Root, VERSION, Welcome};
use crate::config::Account;
use crate::identity::Identity;
use crate::operator::human;

/// Buckets that are looked at in one go, for what they hold.
const PAGE_COUNT: usize = 100;

/// A box that lets others in.
pub(crate) struct Host {
    identity: Identity,
    member: Member,
    root: Account,
    /// Once it serves.
    open: OnceLock<(object::Store, Arc<Members>)>,
}

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("this is not how a box asks to join: is it of another version?")]
    Malformed,
    #[error("this box does not serve yet: try again")]
    NotOpen,
    #[error("the cluster has reached feature level {reached}, and the box's program knows {known}: upgrade it first")]
    Level { reached: u32, known: u32 },
    #[error("this box does not vote, and cannot let anybody in: take a token from one of {0}")]
    NoKey(String),
    #[error(transparent)]
    Token(#[from] join::Error),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Error {
    fn code(&self) -> StatusCode {
        match self {
            Error::Malformed => StatusCode::BAD_REQUEST,
            Error::NotOpen | Error::NoKey(_) | Error::Token(join::Error::Store(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Level { .. } => StatusCode::CONFLICT,
            Error::Token(_) => StatusCode::FORBIDDEN,
            Error::Other(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Host {
    /// `root`: whom all boxes are to know.
    pub(crate) fn new(identity: Identity, member: Member, root: Account) -> Arc<Host> {
        Arc::new(Host { identity, member, root, open: OnceLock::new() })
    }

    /// It serves from now on.
    pub(crate) fn open(&self, store: object::Store, members: Arc<Members>) {
        // There is one store.
        let _ = self.open.set((store, members));
    }

    async fn answer(&self, body: &[u8]) -> Result<Answer, Error> {
        let asking: Asking = serde_json::from_slice(body).map_err(|_| Error::Malformed)?;
        if asking.version != VERSION {
            return Err(Error::Malformed);
        }
        let (store, members) = self.open.get().ok_or(Error::NotOpen)?;
        let secret = Secret::new(&asking.secret);
        store.check_token(&secret).await?;
        let status = members.statuses().next().ok_or(Error::NotOpen)?;
        let (reached, known) = (status.feature_level, asking.level);
        if reached > known {
            return Err(Error::Level { reached, known });
        }
        let newcomer = Newcomer {
            address: asking.address.clone(),
            host: asking.host.clone(),
            capacity_bytes: asking.capacity_bytes,
        };
        let plan = plan(store, status.members.len(), &newcomer).await?;
        if asking.dry_run {
            return Ok(Answer::Plan(plan));
        }
        if !self.identity.may_sign() {
            let voters = status.voters.iter().filter_map(|voter| status.members.get(voter).map(String::as_str));
            return Err(Error::NoKey(voters.collect::<Vec<_>>().join(", ")));
        }
        let node = store.let_in(&secret, &newcomer).await?;
        let welcome = self.welcome(&asking, plan, node, &status.members)?;
        tracing::info!(target: "audit", %node, host = newcomer.host, address = newcomer.address, "a box is let in");
        Ok(Answer::Welcome(Box::new(welcome)))
    }

    fn welcome(
        &self,
        asking: &Asking,
        plan: String,
        node: NodeId,
        members: &BTreeMap<NodeId, String>,
    ) -> anyhow::Result<Welcome> {
        let now = OffsetDateTime::now_utc();
        let peers = [Peer { role: Role::Db, id: node }, Peer { role: Role::Shard, id: node }];
        let mut others: BTreeMap<u64, String> = members.iter().map(|(id, at)| (id.0, at.clone())).collect();
        // A sole voter need not know where it is.
        others.insert(self.member.node, self.member.address.clone());
        Ok(Welcome {
            plan,
            node: node.0,
            secret: self.member.secret_text().to_owned(),
            authority: self.identity.authority_pem()?,
            certificate: self.identity.vouch(&asking.node_key, &peers, now)?,
            server: self.identity.sign_server(&asking.server_key, &asking.names.iter().cloned().collect(), now)?,
            root: Root {
                access_key: self.root.access_key.clone(),
                secret_key: self.root.secret.reveal().to_owned(),
                account_id: self.root.account_id.clone(),
            },
            peers: others,
        })
    }
}

/// What becomes of the cluster, for people.
async fn plan(store: &object::Store, db_count: usize, newcomer: &Newcomer) -> Result<String, Error> {
    let store_error = |error: object::Error| Error::Token(error.into());
    let map = store.map().await.map_err(store_error)?.ok_or(Error::NotOpen)?;
    let next = store.next_node().await.map_err(store_error)?;
    let plan = steward::plan(&map, db_count, next, newcomer).map_err(anyhow::Error::from)?;
    let stored_bytes = stored_bytes(store).await.map_err(store_error)?;
    let (now, then) = plan.layouts;
    let mut text = String::new();
    // Writing into a string has no way to fail.
    let _ = writeln!(text, "box {next} ({} at {}) joins; boxes: {}", newcomer.host, newcomer.address, plan.box_count);
    let _ = match &plan.cost {
        None => writeln!(text, "chunks   {then} instead of {now}: all {} are written again", human(stored_bytes)),
        Some(cost) => writeln!(
            text,
            "chunks   {then} as before: {:.1}% of all shards move, of {} stored",
            100.0 * cost.moved_fraction(),
            human(stored_bytes)
        ),
    };
    let _ = match then.parity_count() {
        1 => writeln!(text, "         one box may be lost without losing a byte"),
        count => writeln!(text, "         {count} boxes may be lost without losing a byte"),
    };
    let voters = plan.voter_count;
    let _ = match voters {
        1 => writeln!(text, "voters   1: with a third box they become 3, and then one may fail"),
        3 => writeln!(text, "voters   3: one may fail, and the others go on"),
        _ => writeln!(text, "voters   {voters}: {} may fail, and the others go on", (voters - 1) / 2),
    };
    Ok(text)
}

/// Of all buckets, all versions.
async fn stored_bytes(store: &object::Store) -> Result<u64, object::Error> {
    let (mut total_bytes, mut after) = (0_u64, None::<String>);
    loop {
        let buckets = store.buckets(after.as_deref(), PAGE_COUNT).await?;
        for bucket in &buckets {
            let usage = store.usage(&bucket.name).await?;
            total_bytes = total_bytes.saturating_add(usage.version_bytes.max(usage.size_bytes));
        }
        match buckets.last() {
            Some(last) if buckets.len() == PAGE_COUNT => after = Some(last.name.clone()),
            _ => return Ok(total_bytes),
        }
    }
}

/// What it answers.
pub(crate) fn router(host: Arc<Host>) -> Router {
    Router::new().route(PATH, post(join)).layer(DefaultBodyLimit::max(MAX_BYTES)).with_state(host)
}

async fn join(State(host): State<Arc<Host>>, body: Bytes) -> Response {
    let (code, answer) = match host.answer(&body).await {
        Ok(answer) => (StatusCode::OK, answer),
        Err(error) => {
            tracing::warn!(target: "audit", "a box is not let in: {error}");
            (error.code(), Answer::Refused(error.to_string()))
        }
    };
    let text = serde_json::to_string(&answer).unwrap_or_default();
    (code, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The newest level that this program knows.
pub(super) const LEVEL: u32 = FEATURE_LEVEL;
