//! A child process proposes numbered commands from several tasks and is killed at random; what it was told is kept.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};

use super::super::Raft;
use super::*;

const TASKS: usize = 6;
const PUTS_PER_TASK: usize = 200;
const DIR: &str = "PREDASTORE_CRASH_DIR";
const ROUND: &str = "PREDASTORE_CRASH_ROUND";

/// The child. Prints the session, then each put's sequence, inode, key and outcome once it is acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below, in a process of its own"]
async fn child() {
    let (Ok(dir), Ok(round)) = (std::env::var(DIR), std::env::var(ROUND)) else { return };
    let raft = open(Path::new(&dir)).await;
    let mut gateway = Gateway::new(&raft, &format!("bucket-{round}"), (TASKS * PUTS_PER_TASK) as u32).await;
    say(&format!("session {} {}", gateway.session, gateway.bucket));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let puts: Vec<_> =
                keys(&format!("t{task}"), PUTS_PER_TASK).into_iter().map(|key| (gateway.put(&key), key)).collect();
            tokio::spawn(put_and_say(raft.clone(), puts))
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    say("end");
}

async fn put_and_say(raft: Raft, puts: Vec<(Envelope, String)>) {
    for (envelope, key) in puts {
        let Command::Put { ino, .. } = &envelope.command else { return };
        let (seq, ino) = (envelope.seq, *ino);
        let outcome = raft.propose(envelope).await.unwrap();
        say(&format!("put {seq} {ino} {key} {outcome:?}"));
    }
}

/// One line in one write, so that a kill never leaves half a line that looks whole.
fn say(line: &str) {
    std::io::stdout().lock().write_all(format!("\n@{line}@\n").as_bytes()).unwrap();
}

fn start(dir: &Path, round: usize) -> Child {
    Process::new(std::env::current_exe().unwrap())
        .args(["consensus::tests::crash::child", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[derive(Debug)]
struct Acknowledged {
    session: SessionId,
    bucket: BucketId,
    puts: Vec<(u64, Ino, String, String)>,
}

/// Reads what the child says, and kills it after `kill_after` puts, or when it is done.
fn run_and_kill(mut child: Child, kill_after: usize) -> Option<Acknowledged> {
    let mut acknowledged: Option<Acknowledged> = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(line) = line.strip_prefix('@').and_then(|line| line.strip_suffix('@')) else { continue };
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        match (words.as_slice(), &mut acknowledged) {
            (["session", session, bucket], None) => {
                let (session, bucket) = (SessionId(session.parse().unwrap()), BucketId(bucket.parse().unwrap()));
                acknowledged = Some(Acknowledged { session, bucket, puts: Vec::new() });
            }
            (["put", seq, ino, key, outcome], Some(known)) => {
                let (seq, ino) = (seq.parse().unwrap(), Ino(ino.parse().unwrap()));
                known.puts.push((seq, ino, (*key).to_owned(), (*outcome).to_owned()));
                if known.puts.len() == kill_after {
                    child.kill().unwrap();
                }
            }
            (["end"], _) => child.kill().unwrap(),
            other => panic!("the child said {other:?}"),
        }
    }
    child.wait().unwrap();
    acknowledged
}

/// Each acknowledged put is the current version of its key, and a retry gets the same answer; no key has two versions.
async fn verify(raft: &Raft, acknowledged: &Acknowledged) {
    let Acknowledged { session, bucket, puts } = acknowledged;
    for (_, ino, key, _) in puts {
        let found = current(raft, *bucket, key).await;
        assert_eq!(found.map(|version| version.ino), Some(*ino), "{key}");
    }
    let (objects_before, versions_before) = counts(raft, *bucket).await;
    for (seq, ino, key, outcome) in puts {
        let again = raft.propose(envelope(*session, *seq, put(*bucket, key, *ino))).await.unwrap();
        assert_eq!(&format!("{again:?}"), outcome, "{key}");
    }
    assert_eq!(counts(raft, *bucket).await, (objects_before, versions_before));
    assert_eq!(versions_before, 0, "a put was applied twice");
    let unanswered = objects_before - puts.len() as u64;
    assert!(unanswered <= TASKS as u64, "{unanswered} puts that nobody was told of");
}

async fn kill_rounds(rounds: usize) {
    let seed = crate::env::Env::system().random_u64();
    eprintln!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut known = Vec::new();
    for round in 0..rounds {
        let kill_after = (seed.rotate_left(round as u32 * 7) % (TASKS * PUTS_PER_TASK) as u64) as usize;
        known.extend(run_and_kill(start(dir.path(), round), kill_after));
        let raft = open(dir.path()).await;
        verify(&raft, known.last().unwrap()).await;
        raft.shutdown().await;
    }
    let raft = open(dir.path()).await;
    for acknowledged in &known {
        verify(&raft, acknowledged).await;
    }
    raft.shutdown().await;
    let count: usize = known.iter().map(|acknowledged| acknowledged.puts.len()).sum();
    assert!(known.len() == rounds && count > 0);
    eprintln!("{rounds} kills, {count} acknowledged puts, all there once");
}

#[tokio::test]
async fn what_was_acknowledged_survives_kills() {
    kill_rounds(3).await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn what_was_acknowledged_survives_many_kills() {
    kill_rounds(60).await;
}
