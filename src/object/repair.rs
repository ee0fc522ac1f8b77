//! Repair: chunks below target are made whole again, by the leader.
//!
//! Invariants
//! - New shards are durable before the catalog names them, and it names them only if the chunk still lies where it was
//!   read (compare-and-set). The old shards go by reclaim: slow reads keep them.
//! - A chunk is found whole only by asking every node that should have a shard of it; where nothing else was wrong with a
//!   chunk that somebody reported, every frame of it is read.
//! - Who has fewest shards to spare comes first.
//! - One chunk at a time: repair holds a bounded amount of memory, outside of the requests' budget.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::catalog::{Command, Due, Layout, NewChunk, Outcome, Place, Refusal, Repair};
use crate::cluster::repair::{Chunk, Found, Plan, plan, spare_count};
use crate::erasure::Scheme;
use crate::ids::{Ino, NodeId, ShardId};
use crate::units::CHUNK_BYTES;

use super::bucket::{done, unexpected};
use super::progress::Upkeep;
use super::session::{FreshId, Lost};
use super::sink::{remove_unnamed, shards_of};
use super::striped::{READ_MAX_BYTES, Striped, Striper};
use super::{Error, Store};

/// Chunks of one query.
const PAGE_COUNT: usize = 100;
/// The longest rest between two chunks.
const REST_MAX: Duration = Duration::from_secs(5);
/// Chunks that are remembered as damaged until the catalog is told; more will be found again.
const SUSPECT_COUNT_MAX: usize = 4096;

/// Chunks that somebody saw damage in.
#[derive(Default)]
pub(super) struct Suspects(Mutex<BTreeSet<Ino>>);

impl Suspects {
    pub(super) fn note(&self, chunk: Ino) {
        let mut chunks = self.lock();
        if chunks.len() < SUSPECT_COUNT_MAX {
            chunks.insert(chunk);
        }
    }

    fn take(&self) -> Vec<Ino> {
        std::mem::take(&mut *self.lock()).into_iter().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<Ino>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Since when nodes have not answered, as this process sees it.
#[derive(Default)]
pub(super) struct Absences(HashMap<NodeId, Duration>);

impl Absences {
    /// Notes who is down now; those who have been for `limit`.
    fn away(&mut self, striper: &Striper, now: Duration, limit: Duration) -> HashSet<NodeId> {
        let down: HashSet<NodeId> =
            striper.health().into_iter().filter(|node| !node.is_up).map(|node| node.node).collect();
        self.0.retain(|node, _| down.contains(node));
        down.iter().for_each(|node| {
            self.0.entry(*node).or_insert(now);
        });
        self.0.iter().filter(|(_, since)| now.saturating_sub(**since) >= limit).map(|(node, _)| *node).collect()
    }
}

/// What a round of repair did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RepairReport {
    /// Chunks that are whole now.
    pub whole_count: u64,
    /// Chunks that cannot be repaired now: nodes are missing.
    pub waiting_count: u64,
    /// Chunks of which fewer shards are left than it takes to read them.
    pub lost_count: u64,
    /// Chunks whose repair failed, to be tried again.
    pub failed_count: u64,
}

/// What came of one chunk.
pub(super) enum Repaired {
    Whole,
    Waits,
    Lost,
    /// It was deleted, or lies elsewhere by now.
    Changed,
}

impl Store {
    /// How far the upkeep of the cluster is, as this process knows it.
    pub fn upkeep(&self) -> Upkeep {
        self.progress.upkeep(self.env.clock.monotonic())
    }

    /// Counts what is below target, for the figures.
    ///
    /// # Errors
    /// `Catalog`.
    pub(super) async fn count_below_target(&self) -> Result<(), Error> {
        let count = self.ledger.readers().read(|view| view.repair_count()).await?;
        self.progress.below_target(count);
        Ok(())
    }

    /// Tells the catalog of chunks that this process saw damage in.
    ///
    /// # Errors
    /// `Unavailable`; they are told later.
    pub(super) async fn report_suspects(&self) -> Result<(), Error> {
        let chunks = self.suspects.take();
        if chunks.is_empty() {
            return Ok(());
        }
        let told = self.session.propose_repeatable(Command::MarkRepair { chunks: chunks.clone(), damaged: true }).await;
        if told.is_err() {
            chunks.into_iter().for_each(|chunk| self.suspects.note(chunk));
        }
        done(told?)
    }

    /// Shard nodes that have not answered for so long that their shards are made anew elsewhere.
    pub(super) fn away(&self) -> HashSet<NodeId> {
        let Some(striper) = self.chunks.striper() else { return HashSet::new() };
        let mut absences = self.absences.lock().unwrap_or_else(PoisonError::into_inner);
        absences.away(striper, self.env.clock.monotonic(), self.config.repair_grace)
    }

    /// Repairs what can be repaired of all that is below target, once.
    ///
    /// # Errors
    /// `Catalog`, `Unavailable`: the catalog.
    pub(super) async fn repair(&self) -> Result<RepairReport, Error> {
        let mut report = RepairReport::default();
        let Some(striper) = self.chunks.striper() else { return Ok(report) };
        let (mut spare_counts, mut after) = (BTreeSet::new(), None);
        while let Some(page) = self.next_due(&mut after).await? {
            spare_counts.extend(page.iter().map(|(_, place, known)| spare_count_of(striper, place, known)));
        }
        for spare_count in spare_counts {
            if !self.repair_all_with(striper, spare_count, &mut report).await? {
                return Ok(report);
            }
        }
        self.progress.lost(report.lost_count);
        Ok(report)
    }

    /// Chunks that are to be repaired, with ids above `after`, which becomes the last of them; none: there are no more.
    async fn next_due(&self, after: &mut Option<Ino>) -> Result<Option<Vec<(Ino, Place, Repair)>>, Error> {
        let from = *after;
        let page = self.ledger.readers().read(move |view| view.repairs(from, PAGE_COUNT)).await?;
        *after = page.last().map(|(chunk, ..)| *chunk).or(from);
        Ok(Some(page).filter(|page| !page.is_empty()))
    }

    /// Repairs what can be repaired of the chunks that have so many shards to spare. False: this process leads no more.
    async fn repair_all_with(
        &self,
        striper: &Striper,
        spare_count: usize,
        report: &mut RepairReport,
    ) -> Result<bool, Error> {
        let (mut after, mut unreached) = (None, HashSet::new());
        while let Some(page) = self.next_due(&mut after).await? {
            let away = self.away();
            for (chunk, place, known) in page {
                if spare_count_of(striper, &place, &known) != spare_count {
                    continue;
                }
                if !self.ledger.leads() {
                    return Ok(false);
                }
                let file_on = file_on(&place);
                if file_on.is_some_and(|node| unreached.contains(&node)) {
                    report.waiting_count += 1;
                    continue;
                }
                let began = self.env.clock.monotonic();
                match self.repair_one(striper, (chunk, &place), known.is_suspect, &away).await {
                    Ok(Repaired::Whole) => {
                        self.progress.repaired(self.env.clock.monotonic());
                        report.whole_count += 1;
                    }
                    Ok(Repaired::Waits) => report.waiting_count += 1,
                    Ok(Repaired::Lost) => {
                        tracing::error!(%chunk, "too few shards of a chunk are left: it cannot be read");
                        report.lost_count += 1;
                    }
                    Ok(Repaired::Changed) => {}
                    Err(error) => {
                        tracing::info!(%chunk, %error, "a chunk was not repaired; it is tried again");
                        report.failed_count += 1;
                        // Each of its files would cost a deadline.
                        unreached.extend(file_on.filter(|_| matches!(error, Error::Unavailable(_))));
                    }
                }
                self.rest_since(began).await;
            }
        }
        Ok(true)
    }

    /// While requests are under way here, what nobody waits for takes half of the time.
    pub(super) async fn rest_since(&self, began: Duration) {
        if self.budget.taken_bytes() > 0 {
            tokio::time::sleep(self.env.clock.monotonic().saturating_sub(began).min(REST_MAX)).await;
        }
    }

    /// `is_suspect`: damage was seen in it.
    pub(super) async fn repair_one(
        &self,
        striper: &Striper,
        (chunk, place): (Ino, &Place),
        is_suspect: bool,
        away: &HashSet<NodeId>,
    ) -> Result<Repaired, Error> {
        let Layout::Rs { data_count, parity_count, .. } = &place.layout else {
            return match place.len_bytes {
                0..=CHUNK_BYTES => self.rewrite(striper, chunk, place).await,
                _ => self.split(striper, chunk, place).await,
            };
        };
        let scheme = Scheme::new(*data_count, *parity_count).map_err(|error| Error::Corrupt(error.to_string()))?;
        let map = striper.map();
        let mut found = striper.look(chunk, place, away).await?;
        let decide = |found: &[(NodeId, Found)]| {
            plan(&Chunk { id: chunk, scheme, shards: found }, map.scheme, &map.ring, |node| striper.takes_shards(node))
        };
        let mut decided = decide(&found);
        if is_suspect && decided != Plan::Lost {
            striper.verify(chunk, place, &mut found).await?;
            decided = decide(&found);
            if decided == Plan::Lost {
                // Each of too many shards has a bad frame: stripe by stripe there may still be enough.
                return match self.rewrite(striper, chunk, place).await {
                    Err(Error::Corrupt(_)) => self.lost(chunk, place).await,
                    rewritten => rewritten,
                };
            }
        }
        match decided {
            // Nobody has read it, unless it was suspect when it was looked up; it may have become so since.
            Plan::Whole => self.swap((chunk, place), place.clone(), (Due::No, is_suspect), Vec::new()).await,
            Plan::Rebuild(homes) => self.rebuild(striper, (chunk, place), found, (&homes, is_suspect)).await,
            Plan::Rewrite => self.rewrite(striper, chunk, place).await,
            // Verified, and whole but for its layout.
            Plan::Wait if is_suspect && found.iter().all(|(_, found)| *found == Found::There) => {
                self.swap((chunk, place), place.clone(), (Due::Yes, true), Vec::new()).await
            }
            Plan::Wait => Ok(Repaired::Waits),
            Plan::Lost => self.lost(chunk, place).await,
        }
    }

    /// What to say of a chunk of which too little was found where its row said. It may be long since that was read, and
    /// what was deleted or moved has no shards there by right.
    async fn lost(&self, chunk: Ino, place: &Place) -> Result<Repaired, Error> {
        let before = Ino(chunk.0.saturating_sub(1));
        let now = self.snapshot(move |view| Ok(view.places(Some(before), 1)?)).await?;
        let is_still_there = now.first().is_some_and(|(id, now)| *id == chunk && now.layout == place.layout);
        Ok(if is_still_there { Repaired::Lost } else { Repaired::Changed })
    }

    /// `is_verified`: what was found to be there was read.
    async fn rebuild(
        &self,
        striper: &Striper,
        (chunk, place): (Ino, &Place),
        mut found: Vec<(NodeId, Found)>,
        (homes, is_verified): (&[(usize, NodeId)], bool),
    ) -> Result<Repaired, Error> {
        let (to, ids) = self.make_shards(striper, (chunk, place), &mut found, homes).await?;
        let is_there =
            |index: usize| found[index].1 == Found::There || to.layout.shards()[index] != place.layout.shards()[index];
        let is_whole = (0..found.len()).all(is_there);
        let short = !is_whole || !is_scheme(place, striper.map().scheme);
        self.swap((chunk, place), to, (due(short), is_verified && is_whole), ids).await
    }

    /// Makes shards of a chunk anew under fresh ids. The place that names them, which is not the chunk's yet. If damage
    /// is found in others on the way, the chunk is marked.
    pub(super) async fn make_shards(
        &self,
        striper: &Striper,
        (chunk, place): (Ino, &Place),
        found: &mut [(NodeId, Found)],
        homes: &[(usize, NodeId)],
    ) -> Result<(Place, Vec<FreshId>), Error> {
        let ids = self.session.fresh_ids(homes.len()).await?;
        let named = |((index, node), id): (&(usize, NodeId), &FreshId)| (*index, *node, ShardId(id.ino().0));
        let homes: Vec<_> = homes.iter().zip(&ids).map(named).collect();
        let lost_count = |found: &[(NodeId, Found)]| found.iter().filter(|(_, found)| *found == Found::Lost).count();
        let lost_before_count = lost_count(found);
        let made = striper.rebuild(chunk, place, found, &homes).await;
        if lost_count(found) > lost_before_count {
            self.mark(vec![chunk], true).await?;
        }
        Ok((made?, ids))
    }

    /// Reads a chunk and writes it again as it should be.
    async fn rewrite(&self, striper: &Striper, chunk: Ino, place: &Place) -> Result<Repaired, Error> {
        let ids = self.session.fresh_ids(striper.id_count()).await?;
        let Striped { place: mut to, short } =
            self.encode(striper, (chunk, place), 0..place.len_bytes, (chunk, &ids)).await?;
        to.live_bytes = place.live_bytes;
        self.swap((chunk, place), to, (due(short), true), ids).await
    }

    /// Writes a range of a chunk as shards of `to`, under these ids.
    async fn encode(
        &self,
        striper: &Striper,
        (chunk, place): (Ino, &Place),
        Range { mut start, end }: Range<u64>,
        (to, ids): (Ino, &[FreshId]),
    ) -> Result<Striped, Error> {
        let mut writer = striper.begin(to, ids.iter().map(|id| ShardId(id.ino().0)).collect());
        while start < end {
            let next = end.min(start + READ_MAX_BYTES);
            let bytes = self.read_of(chunk, place, start..next).await?;
            writer.push(&[bytes]).await?;
            start = next;
        }
        Ok(writer.finish().await?)
    }

    /// Writes a file that is longer than a chunk of shards may be as several of these.
    async fn split(&self, striper: &Striper, chunk: Ino, place: &Place) -> Result<Repaired, Error> {
        let (mut ids, mut pieces, mut is_short) = (Vec::new(), Vec::<NewChunk>::new(), false);
        for start in (0..place.len_bytes).step_by(CHUNK_BYTES as usize) {
            let piece = start..place.len_bytes.min(start + CHUNK_BYTES);
            match self.write_piece(striper, (chunk, place), piece).await {
                Ok((piece, its_ids)) => {
                    is_short |= piece.short;
                    pieces.push(piece);
                    ids.extend(its_ids);
                }
                Err(error) => {
                    self.remove_unnamed(&shards_of_all(&pieces)).await;
                    return Err(error);
                }
            }
        }
        let added = shards_of_all(&pieces);
        let command = Command::Split { chunk, from: place.clone(), pieces };
        let is_named = self.name_shards(command, &added, ids).await?;
        Ok(if is_named && !is_short { Repaired::Whole } else { Repaired::Waits })
    }

    async fn write_piece(
        &self,
        striper: &Striper,
        from: (Ino, &Place),
        range: Range<u64>,
    ) -> Result<(NewChunk, Vec<FreshId>), Error> {
        let mut ids = self.session.fresh_ids(1 + striper.id_count()).await?;
        let shards = ids.split_off(1);
        let id = ids[0].ino();
        let Striped { place, short } = self.encode(striper, from, range, (id, &shards)).await?;
        ids.extend(shards);
        Ok((NewChunk { id, place, short }, ids))
    }

    /// Names new shards instead of old ones, unless the chunk lies elsewhere by now.
    pub(super) async fn swap(
        &self,
        (chunk, from): (Ino, &Place),
        to: Place,
        (due, verified): (Due, bool),
        ids: Vec<FreshId>,
    ) -> Result<Repaired, Error> {
        let added: Vec<_> =
            to.layout.shards().iter().copied().filter(|new| !from.layout.shards().contains(new)).collect();
        let command = Command::Swap { chunk, from: from.clone(), to, due, verified };
        let is_named = self.name_shards(command, &added, ids).await?;
        Ok(if is_named && due != Due::Yes { Repaired::Whole } else { Repaired::Waits })
    }

    /// Proposes the command that names new shards under these ids. False: the chunk lies elsewhere by now, and they are gone.
    async fn name_shards(
        &self,
        command: Command,
        added: &[(NodeId, ShardId)],
        mut ids: Vec<FreshId>,
    ) -> Result<bool, Error> {
        match self.session.propose_with(ids.iter(), command).await {
            Ok(Outcome::Done) => Ok(true),
            Ok(Outcome::Refused(Refusal::PlaceChanged(_))) => {
                self.remove_unnamed(added).await;
                Ok(false)
            }
            Ok(Outcome::Refused(refusal)) => {
                self.remove_unnamed(added).await;
                Err(refusal.into())
            }
            Ok(outcome) => Err(unexpected(&outcome)),
            Err(lost) => {
                match lost {
                    // It may yet be named.
                    Lost::Unknown(_) => ids.iter_mut().for_each(FreshId::leave),
                    Lost::Never(_) | Lost::Overloaded => self.remove_unnamed(added).await,
                }
                Err(lost.into())
            }
        }
    }

    async fn remove_unnamed(&self, shards: &[(NodeId, ShardId)]) {
        if let Some(striper) = self.chunks.striper() {
            remove_unnamed(striper, shards).await;
        }
    }
}

/// The node that has a chunk in a file.
fn file_on(place: &Place) -> Option<NodeId> {
    match place.layout {
        Layout::Plain { node } => Some(node),
        Layout::Rs { .. } => None,
    }
}

/// How many shards a chunk may lose and still be read, as far as that is known here.
fn spare_count_of(striper: &Striper, place: &Place, known: &Repair) -> usize {
    // A file has lost nothing: it comes last.
    let Layout::Rs { data_count, shards, .. } = &place.layout else { return usize::MAX };
    let is_there = |(index, (node, shard)): (usize, &(NodeId, ShardId))| {
        let is_missing = known.missing.iter().any(|missing| usize::from(*missing) == index);
        *shard != ShardId(0) && !is_missing && striper.is_up(*node)
    };
    spare_count(usize::from(*data_count), shards.iter().enumerate().map(is_there))
}

/// The shards of all of these.
fn shards_of_all(chunks: &[NewChunk]) -> Vec<(NodeId, ShardId)> {
    chunks.iter().flat_map(|chunk| shards_of(&chunk.place)).collect()
}

/// What a swap says of a chunk that is, or is not, short of what is wanted.
fn due(is_short: bool) -> Due {
    if is_short { Due::Yes } else { Due::No }
}

/// Whether a chunk has the layout that is wanted.
fn is_scheme(place: &Place, wanted: Scheme) -> bool {
    let Layout::Rs { data_count, parity_count, .. } = &place.layout else { return false };
    Scheme::new(*data_count, *parity_count) == Ok(wanted)
}
