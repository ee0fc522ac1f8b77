//! Events of buckets on a real NATS server: what is told of which change, and that nothing is missing whoever is killed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use predastore_tests::cluster::{Cluster, Shape};
use predastore_tests::knobs::{Need, WithLogs, can_run, number, say};
use predastore_tests::mount::{self, Mount, mountpoint};
use predastore_tests::nats::{Client, Login, SERVER, Server, Stream, jetstream};
use predastore_tests::random::Rng;
use predastore_tests::s3::{S3, element};
use predastore_tests::s3d::{Config, PATIENCE, S3d, setting};
use serde_json::Value;

const BUCKET: &str = "told";
const ALL: &str = "<Event>s3:ObjectCreated:*</Event><Event>s3:ObjectRemoved:*</Event>";

fn config(server: &Server, delivery: &str) -> Config {
    mount::config().set(setting::NATS_URL, server.url()).set(setting::NATS_EVENTS, delivery)
}

/// A NotificationConfiguration of one rule.
fn rules(inside: &str) -> String {
    format!(
        "<NotificationConfiguration><QueueConfiguration><Id>mine</Id><Queue>arn:predastore:nats:::events</Queue>{inside}\
         </QueueConfiguration></NotificationConfiguration>"
    )
}

fn tell(s3: &mut S3, bucket: &str, inside: &str) -> Result<()> {
    let request = s3.request("PUT", bucket, "", "notification", rules(inside));
    s3.call(request)?.expect(200)?;
    let request = s3.request("GET", bucket, "", "notification", "");
    let kept = s3.call(request)?.expect(200)?.text();
    ensure!(element(&kept, "Id").as_deref() == Some("mine"), "{kept}");
    Ok(())
}

/// What one message tells.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Told {
    name: String,
    key: String,
    etag: Option<String>,
    version: Option<String>,
    sequencer: String,
}

fn told(payload: &[u8]) -> Result<Told> {
    let message: Value = serde_json::from_slice(payload)?;
    let record = &message["Records"][0];
    let object = &record["s3"]["object"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    ensure!(record["s3"]["bucket"]["name"] == BUCKET && record["eventSource"] == "aws:s3", "{message}");
    ensure!(record["s3"]["configurationId"] == "mine" && record["eventTime"].is_string(), "{message}");
    Ok(Told {
        name: text(&record["eventName"]).context("no name")?,
        key: text(&object["key"]).context("no key")?,
        etag: text(&object["eTag"]),
        version: text(&object["versionId"]),
        sequencer: text(&object["sequencer"]).context("no sequencer")?,
    })
}

/// Events as they come.
struct Listener(Client);

impl Listener {
    fn new(server: &Server) -> Result<Listener> {
        let mut client = Client::connect(server.port, Login::Nobody)?;
        client.subscribe("s3.events.>")?;
        Ok(Listener(client))
    }

    fn next(&mut self) -> Result<Told> {
        let (subject, message) = self.0.receive()?;
        ensure!(subject == format!("s3.events.{BUCKET}"), "{subject}");
        told(&message.payload)
    }

    /// The next events are these: names and keys, in this order.
    fn expect(&mut self, expected: &[(&str, &str)]) -> Result<Vec<Told>> {
        let mut all = Vec::new();
        for (name, key) in expected {
            let told = self.next().with_context(|| format!("no {name} of {key}"))?;
            ensure!((told.name.as_str(), told.key.as_str()) == (*name, *key), "{told:?}, and not {name} of {key}");
            all.push(told);
        }
        Ok(all)
    }

    /// The next events are these, whatever their order.
    fn expect_all(&mut self, expected: &[(&str, &str)]) -> Result<()> {
        let mut missing: HashSet<(String, String)> =
            expected.iter().map(|(name, key)| ((*name).to_owned(), (*key).to_owned())).collect();
        while !missing.is_empty() {
            let told = self.next().with_context(|| format!("{missing:?} are missing"))?;
            ensure!(missing.remove(&(told.name.clone(), told.key.clone())), "{told:?} is told, not one of {missing:?}");
        }
        Ok(())
    }
}

#[test]
fn each_change_is_told_in_s3s_words() -> Result<()> {
    if !can_run("each_change_is_told_in_s3s_words", &[SERVER]) {
        return Ok(());
    }
    let server = Server::start("")?;
    let s3d = S3d::start(config(&server, "core"))?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket(BUCKET)?;
    s3.put(BUCKET, "before", "x")?.expect(200)?;
    let mut listener = Listener::new(&server)?;
    tell(&mut s3, BUCKET, ALL)?;

    let etag = s3.put(BUCKET, "a b/é", "one")?.expect(200)?.get("etag").unwrap_or_default().replace('"', "");
    let copy = s3.request("PUT", BUCKET, "copy", "", "").header("x-amz-copy-source", format!("/{BUCKET}/before"));
    s3.call(copy)?.expect(200)?;
    s3.put_multipart(BUCKET, "parts", vec![vec![1; 5 << 20], vec![2; 10]])?.expect(200)?;
    s3.delete(BUCKET, "copy")?.expect(204)?;
    s3.delete(BUCKET, "never was")?.expect(204)?;
    s3.enable_versioning(BUCKET)?;
    let version = s3.put(BUCKET, "v", "one")?.expect(200)?.get("x-amz-version-id").unwrap_or_default().to_owned();
    let marker = s3.delete(BUCKET, "v")?.expect(204)?.get("x-amz-version-id").unwrap_or_default().to_owned();
    s3.delete_version(BUCKET, "v", &version)?.expect(204)?;
    let all = listener.expect(&[
        ("ObjectCreated:Put", "a+b/%C3%A9"),
        ("ObjectCreated:Copy", "copy"),
        ("ObjectCreated:CompleteMultipartUpload", "parts"),
        ("ObjectRemoved:Delete", "copy"),
        ("ObjectCreated:Put", "v"),
        ("ObjectRemoved:DeleteMarkerCreated", "v"),
        ("ObjectRemoved:Delete", "v"),
    ])?;
    ensure!(all[0].etag.as_deref() == Some(&etag), "{all:#?}, and the tag is {etag}");
    ensure!(all[2].etag.as_deref().is_some_and(|etag| etag.ends_with("-2")), "{all:#?}");
    let versions: Vec<_> = all[4..].iter().map(|told| told.version.clone()).collect();
    ensure!(versions == [Some(version.clone()), Some(marker), Some(version)], "{all:#?}");
    ensure!(all.is_sorted_by(|one, next| one.sequencer < next.sequencer), "{all:#?}");

    // Others are not told of: by what rules want, and by who wants nothing any more.
    let filter = "<Event>s3:ObjectRemoved:*</Event><Filter><S3Key><FilterRule><Name>prefix</Name><Value>p/</Value>\
                  </FilterRule></S3Key></Filter>";
    tell(&mut s3, BUCKET, filter)?;
    s3.put(BUCKET, "p/1", "one")?.expect(200)?;
    s3.delete(BUCKET, "q")?.expect(204)?;
    s3.delete(BUCKET, "p/1")?.expect(204)?;
    listener.expect(&[("ObjectRemoved:DeleteMarkerCreated", "p/1")])?;
    let none = s3.request("PUT", BUCKET, "", "notification", "<NotificationConfiguration/>");
    s3.call(none)?.expect(200)?;
    s3.delete(BUCKET, "p/2")?.expect(204)?;
    tell(&mut s3, BUCKET, ALL)?;
    s3.put(BUCKET, "last", "x")?.expect(200)?;
    listener.expect(&[("ObjectCreated:Put", "last")])?;
    Ok(())
}

#[test]
fn a_gateway_that_publishes_nothing_takes_no_rules() -> Result<()> {
    let s3d = S3d::start(mount::config())?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket(BUCKET)?;
    let request = s3.request("PUT", BUCKET, "", "notification", rules(ALL));
    let refused = s3.call(request)?.expect(400)?.text();
    ensure!(refused.contains("InvalidArgument") && refused.contains("nats.events"), "{refused}");
    let request = s3.request("GET", BUCKET, "", "notification", "");
    let kept = s3.call(request)?.expect(200)?.text();
    ensure!(kept.contains("NotificationConfiguration") && !kept.contains("<Id>"), "{kept}");
    Ok(())
}

/// What a mount does is told too: a renamed directory key by key, also those that have left it since.
#[test]
fn what_a_mount_does_is_told() -> Result<()> {
    if !mount::can_mount("what_a_mount_does_is_told", &[SERVER, Need::Root]) {
        return Ok(());
    }
    mount::enter_private_namespace()?;
    let mut server = Server::start("")?;
    let s3d = S3d::start(config(&server, "core"))?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket(BUCKET)?;
    tell(&mut s3, BUCKET, ALL)?;
    let mut listener = Listener::new(&server)?;
    let dir = mountpoint()?;
    let mounted = Mount::new(&s3d, BUCKET, dir.path())?;
    let path = mounted.path().to_owned();

    fs::write(path.join("file"), "one")?;
    fs::rename(path.join("file"), path.join("renamed"))?;
    fs::hard_link(path.join("renamed"), path.join("linked"))?;
    fs::remove_file(path.join("renamed"))?;
    listener.expect(&[
        ("ObjectCreated:Put", "file"),
        ("ObjectRemoved:Delete", "file"),
        ("ObjectCreated:Copy", "renamed"),
        ("ObjectCreated:Copy", "linked"),
        ("ObjectRemoved:Delete", "renamed"),
    ])?;
    // Under the name that is left of two, whichever the first was.
    fs::OpenOptions::new().append(true).open(path.join("linked"))?.write_all(b"two")?;
    listener.expect(&[("ObjectCreated:Put", "linked")])?;
    fs::create_dir(path.join("d"))?;
    fs::create_dir(path.join("d/sub"))?;
    for name in ["d/1", "d/2", "d/sub/3"] {
        fs::write(path.join(name), "x")?;
    }
    let made = ["d/", "d/sub/", "d/1", "d/2", "d/sub/3"].map(|key| ("ObjectCreated:Put", key));
    listener.expect(&made)?;

    // Nobody hears it for a while, and what was renamed changes meanwhile.
    server.stop();
    fs::rename(path.join("d"), path.join("e"))?;
    fs::remove_file(path.join("e/1"))?;
    fs::rename(path.join("e/sub"), path.join("away"))?;
    fs::remove_file(path.join("away/3"))?;
    server.restart()?;
    let mut listener = Listener::new(&server)?;
    fs::write(path.join("end"), "x")?;
    let mut keys: HashSet<String> = made.iter().map(|(_, key)| (*key).to_owned()).collect();
    loop {
        let told = listener.next()?;
        match told.name.as_str() {
            "ObjectRemoved:Delete" => drop(keys.remove(&told.key)),
            _ if told.key == "end" => break,
            _ => drop(keys.insert(told.key)),
        }
    }
    let found: HashSet<String> = s3.list(BUCKET)?.into_iter().map(|listed| listed.key).collect();
    let expected: HashSet<String> = ["away/", "e/", "e/2"].map(str::to_owned).into();
    ensure!(keys == expected, "told of: {keys:?}");
    ensure!(expected.is_subset(&found) && found.len() == expected.len() + 2, "{found:?}");

    fs::remove_dir(path.join("away"))?;
    listener.expect_all(&[("ObjectRemoved:Delete", "away/")])?;
    mounted.unmount()?;
    Ok(())
}

/// What one writer was answered, by key: the tag of each object in its order; none: it was deleted.
type Acknowledged = BTreeMap<String, Vec<Option<String>>>;

/// Writes and deletes keys of its own until `stop`, whoever is killed.
fn write(mut s3: S3, writer: u64, mut rng: Rng, stop: &AtomicBool) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("{writer}/{}", rng.below(6));
        count += 1;
        let change = match rng.below(4) {
            0 => s3.delete(BUCKET, &key).and_then(|response| response.expect(204)).map(|_| None),
            _ => s3
                .put(BUCKET, &key, format!("{key} {count} {}", "x".repeat(rng.below(20_000) as usize)))
                .and_then(|response| response.expect(200))
                .map(|response| response.get("etag").map(|etag| etag.replace('"', ""))),
        };
        match change {
            Ok(change) => acknowledged.entry(key).or_default().push(change),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    acknowledged
}

/// Waits until the stream ends with the event of `key`, and returns all that it has.
fn all_told(stream: &mut Stream, key: &str) -> Result<Vec<Told>> {
    let deadline = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    loop {
        while (all.len() as u64) < stream.count()? {
            let (_, payload) = stream.message(all.len() as u64 + 1)?;
            all.push(told(&payload)?);
        }
        if all.iter().any(|told| told.key == key) {
            return Ok(all);
        }
        ensure!(Instant::now() < deadline, "{key} is not told; {} others are", all.len());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Nothing that was acknowledged is missing, each key's events come in their order, and the last of them says what there is.
fn check(s3: &mut S3, all: &[Told], acknowledged: &[Acknowledged]) -> Result<()> {
    let mut by_key: HashMap<&str, Vec<&Told>> = HashMap::new();
    let mut seen = HashSet::new();
    for told in all {
        if seen.insert((&told.key, &told.sequencer)) {
            by_key.entry(&told.key).or_default().push(told);
        }
    }
    for (key, told) in &by_key {
        ensure!(told.is_sorted_by(|one, next| one.sequencer < next.sequencer), "{key} is told out of order: {told:#?}");
    }
    for (key, changes) in acknowledged.iter().flatten() {
        let told = by_key.get(key.as_str()).map(Vec::as_slice).unwrap_or_default();
        let mut rest = told.iter();
        for change in changes {
            let is_it = |told: &&&Told| match change {
                Some(etag) => told.etag.as_deref() == Some(etag),
                None => told.name == "ObjectRemoved:Delete",
            };
            // Deleting what is not there is no event.
            ensure!(rest.find(is_it).is_some() || change.is_none(), "{key}: {change:?} is missing among {told:#?}");
            if change.is_none() {
                rest = told.iter();
            }
        }
    }
    let found: BTreeMap<String, String> = s3.list(BUCKET)?.into_iter().map(|one| (one.key, one.etag)).collect();
    let last = |told: &Vec<&Told>| told.last().and_then(|told| told.etag.clone());
    let known: BTreeMap<String, String> =
        by_key.iter().filter_map(|(key, told)| Some(((*key).to_owned(), last(told)?))).collect();
    ensure!(known == found, "told of {known:#?}, and there are {found:#?}");
    Ok(())
}

#[test]
fn no_event_is_missing_whoever_is_killed() -> Result<()> {
    if !can_run("no_event_is_missing_whoever_is_killed", &[SERVER]) {
        return Ok(());
    }
    let mut rng = Rng::for_test("no_event_is_missing_whoever_is_killed");
    let store = tempfile::tempdir()?;
    let mut server = Server::start(&jetstream(store.path()))?;
    let mut stream = Stream::create(&server, "EVENTS", &["s3.events.>"])?;
    let mut s3d = S3d::start(config(&server, "jetstream"))?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket(BUCKET)?;
    tell(&mut s3, BUCKET, ALL)?;
    let kills = number("PREDASTORE_TEST_EVENT_KILLS", 8);
    let stop = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| -> Result<Vec<Acknowledged>> {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (s3, rng) = (S3::once(s3d.endpoint()?, s3d.signer()), Rng::new(rng.next_u64()));
                let stop = &stop;
                Ok(scope.spawn(move || write(s3, writer, rng, stop)))
            })
            .collect::<Result<_>>()?;
        let killed = (|| -> Result<()> {
            for kill in 0..kills {
                std::thread::sleep(Duration::from_millis(200 + rng.below(600)));
                if kill % 4 == 3 {
                    server.stop();
                    std::thread::sleep(Duration::from_millis(rng.below(500)));
                    server.restart()?;
                } else {
                    s3d.kill();
                    s3d.restart()?;
                }
            }
            Ok(())
        })();
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        let all = writers.into_iter().map(|writer| writer.join().map_err(|_| anyhow::anyhow!("a writer panicked")));
        let all = all.collect::<Result<Vec<_>>>();
        killed?;
        all
    })?;
    let mut s3 = s3d.s3()?;
    s3.put(BUCKET, "last", "x")?.expect(200)?;
    stream.reconnect(&server)?;
    let all = all_told(&mut stream, "last").with_context(|| s3d.log_tail())?;
    check(&mut s3, &all, &acknowledged)?;
    let changes: usize = acknowledged.iter().flat_map(BTreeMap::values).map(Vec::len).sum();
    say(&format!("events: {kills} kills, {changes} changes acknowledged, {} events in the stream", all.len()));
    ensure!(changes > 50, "only {changes} changes were acknowledged: it tests little");
    s3d.stop()?;
    s3d.expect_clean()
}

/// In a cluster one publishes, and another goes on when it is gone; without a stream events wait.
#[test]
fn another_publishes_when_who_did_is_gone() -> Result<()> {
    if !can_run("another_publishes_when_who_did_is_gone", &[SERVER]) {
        return Ok(());
    }
    let store = tempfile::tempdir()?;
    let server = Server::start(&jetstream(store.path()))?;
    let config = config(&server, "jetstream").set(setting::SESSION_EXPIRY, "5s");
    let mut cluster = Cluster::start(&Shape::boxes(3, 3, (2, 1)), &config)?;
    let mut s3 = cluster.processes[0].s3()?;
    s3.create_bucket(BUCKET)?;
    tell(&mut s3, BUCKET, ALL)?;
    let acknowledged = Mutex::new(Acknowledged::new());
    let put = |s3: &mut S3, number: usize| -> Result<()> {
        let (key, body) = (format!("{number}"), format!("body {number}"));
        let etag = s3.put(BUCKET, &key, body)?.expect(200)?.get("etag").unwrap_or_default().replace('"', "");
        acknowledged.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.entry(key).or_default().push(Some(etag));
        Ok(())
    };
    for number in 0..10 {
        put(&mut s3, number)?;
    }
    // No stream was there to store them.
    let mut stream = Stream::create(&server, "EVENTS", &["s3.events.>"])?;
    all_told(&mut stream, "9").with_logs(|| cluster.log_tails())?;
    let publishes = |process: &S3d| -> Result<bool> {
        let metrics = process.admin("/metrics")?.text();
        let sent = metrics.lines().find_map(|line| line.strip_prefix("predastore_nats_events_total "));
        Ok(sent.is_some_and(|count| count.trim() != "0"))
    };
    let publishing = cluster.processes.iter().map(publishes).collect::<Result<Vec<_>>>()?;
    ensure!(publishing.iter().filter(|publishes| **publishes).count() == 1, "{publishing:?}");
    let publisher = publishing.iter().position(|publishes| *publishes).context("nobody publishes")?;
    let other = (publisher + 1) % 3;
    cluster.kill(&[publisher]);
    let mut s3 = cluster.processes[other].s3()?;
    for number in 10..20 {
        put(&mut s3, number)?;
    }
    s3.put(BUCKET, "last", "x")?.expect(200)?;
    let all = all_told(&mut stream, "last").with_logs(|| cluster.log_tails())?;
    let acknowledged = acknowledged.into_inner().map_err(|_| anyhow::anyhow!("poisoned"))?;
    check(&mut s3, &all, &[acknowledged])
}
