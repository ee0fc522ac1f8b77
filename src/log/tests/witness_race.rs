//! The log and its witness, when a power cut finds one of them further than the other.

use super::*;

/// What the witness of a disk has seen.
fn witnessed(disk: &SimDisk) -> Tip {
    let FoundWitness::Valid { slot, .. } = recover::find_witness(disk, &disk.names()).unwrap() else { panic!() };
    slot.tip
}

/// A log of two batches; the witness has seen the first durably, and the second as far as nothing is lost.
fn two_batches() -> (SimDisk, Model) {
    let disk = SimDisk::default();
    let mut life = reopen(&disk, &[Model::default()], "new").unwrap();
    for record in ["first", "second"] {
        life.writer.rest().unwrap();
        life.submit(&Op::Append(vec![Bytes::from_static(record.as_bytes())])).unwrap();
        life.writer.step().unwrap();
    }
    (disk.clone(), life.states.pop().unwrap())
}

/// R: it is raised after the sync, so it may be behind: nothing is lost, and the log goes on.
#[test]
fn a_witness_behind_its_log_costs_nothing() {
    let (disk, model) = two_batches();
    let disk = disk.after_crash(Loss::All, &mut Rng(1));
    assert_eq!(witnessed(&disk).next, model.next - 1);
    let mut life = reopen(&disk, std::slice::from_ref(&model), "behind").unwrap();
    assert_eq!(contents_of(&life), model.records);
    life.submit(&Op::Truncate(Some(0))).unwrap();
    life.submit(&Op::Append(vec![Bytes::from_static(b"third")])).unwrap();
    life.writer.step().unwrap();
    let last = life.states.pop().unwrap();
    let disk = disk.after_crash(Loss::All, &mut Rng(1));
    reopen(&disk, &[last], "truncated").unwrap();
}

fn contents_of(life: &Life) -> BTreeMap<u64, Bytes> {
    read_all(&life.log, life.log.first_index()..life.log.next_index()).unwrap()
}

/// R: a log that ends before its witness has lost what was acknowledged, and does not vote.
#[test]
fn a_witness_ahead_of_its_log_stops_it() {
    let (disk, model) = two_batches();
    let whole = disk.copy();
    let (name, at) = last_batch(&whole);
    whole.flip(&name, at + 60, 0x80);
    assert_eq!(witnessed(&whole).next, model.next);
    let (log, recovery, writer) = open_sim(&whole, false).unwrap();
    assert_eq!(recovery.state, Health::BehindWitness { witnessed_next: model.next });
    assert_eq!((recovery.next_index, writer.is_none()), (model.next - 1, true));
    assert!(matches!(log.append(1, vec![Bytes::new()], |_| ()), Err(Error::ReadOnly)));
    assert!(matches!(log.set_mark(b"a vote", |_| ()), Err(Error::ReadOnly)));
}
