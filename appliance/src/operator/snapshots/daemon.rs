//! The daemon's side: what is asked, done by the store.

use predastore::catalog::{ClonePhase, CloneState, Refusal};
use predastore::object::{Error, Prefix, Snapshot, Store};

use super::wire::{Asked, ROW_COUNT, Row, Rows};
use crate::mounts::options::Source;
use crate::operator::audit;

/// Does what is asked. `uid`: who asks.
///
/// # Errors
/// Why not, for people.
pub(crate) async fn answer(store: &Store, asked: Asked, uid: u32) -> Result<Rows, String> {
    let changes = asked.changes();
    let told = carry_out(store, asked).await;
    if let Some(changes) = changes {
        audit(uid, &changes, told.as_ref().err());
    }
    told
}

async fn carry_out(store: &Store, asked: Asked) -> Result<Rows, String> {
    match asked {
        Asked::Create { source, name } => {
            let made = store.create_snapshot(&prefix(&source), &name).await;
            made.map(|state| one(&source.bucket, &state)).map_err(|error| why(error, &source.to_string(), &name))
        }
        Asked::Clone { bucket, name, target } => {
            let made = store.clone_snapshot(&bucket, &name, &prefix(&target)).await;
            let (what, to) = (format!("the snapshot {bucket}/{name}"), target.to_string());
            made.map(|state| one(&target.bucket, &state)).map_err(|error| why(error, &what, &to))
        }
        Asked::Delete { bucket, name } => match store.delete_snapshot(&bucket, &name).await {
            Ok(()) => Ok(Rows { rows: Vec::new(), has_more: false }),
            Err(error) => Err(why(error, &format!("the snapshot {bucket}/{name}"), &name)),
        },
        Asked::List { bucket, skip } => {
            let all = store.snapshots(&bucket).await.map_err(|error| why(error, &bucket, &bucket))?;
            let rows: Vec<Row> =
                all.iter().skip(skip).take(ROW_COUNT).map(|found| row(&bucket, &found.state, &state(found))).collect();
            let has_more = all.len() > skip.saturating_add(rows.len());
            Ok(Rows { rows, has_more })
        }
    }
}

fn prefix(source: &Source) -> Prefix {
    let prefix = if source.prefix.is_empty() { Vec::new() } else { format!("{}/", source.prefix).into_bytes() };
    Prefix { bucket: source.bucket.clone(), prefix }
}

fn one(bucket: &str, state: &CloneState) -> Rows {
    Rows { rows: vec![row(bucket, state, "ready")], has_more: false }
}

fn row(bucket: &str, state: &CloneState, how: &str) -> Row {
    Row {
        name: state.label.clone(),
        source: format!("{}/{}", state.source_name, String::from_utf8_lossy(&state.prefix)),
        place: format!("{bucket}/{}", String::from_utf8_lossy(&state.to)),
        began_ns: state.began.0,
        object_count: state.object_count,
        size_bytes: state.size_bytes,
        state: how.to_owned(),
    }
}

fn state(found: &Snapshot) -> String {
    match found.state.phase {
        ClonePhase::Copying => "being copied".to_owned(),
        ClonePhase::Done if found.is_there => "ready".to_owned(),
        ClonePhase::Done => "gone: its prefix was removed or replaced".to_owned(),
        ClonePhase::Erasing if found.state.reason.is_empty() => "being removed".to_owned(),
        ClonePhase::Erasing => format!("being given up: {}", found.state.reason),
        ClonePhase::Failed => format!("failed: {}", found.state.reason),
    }
}

/// Why something is not done. `what`: what it is done with; `to`: what was to come of it.
fn why(error: Error, what: &str, to: &str) -> String {
    match error {
        Error::Refused(Refusal::NoSuchKey) => format!("{what}: there is nothing"),
        Error::Refused(Refusal::EntryExists) => format!("{to}: something has this name already, or is about to"),
        Error::Refused(Refusal::InvalidBucketState) => format!("{to}: in a bucket with object lock nothing is copied"),
        Error::Invalid(reason) => reason,
        other => format!("{what}: {other}"),
    }
}
