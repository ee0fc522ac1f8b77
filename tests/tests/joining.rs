//! `predastore token` and `predastore join`: boxes that become a cluster, three commands in all; what may not join; what
//! becomes of a box that is killed while it joins, and of one that is lost.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use predastore_tests::history::Body;
use predastore_tests::random::Rng;
use predastore_tests::s3::S3;
use predastore_tests::s3d::{Config, S3d, free_port, setting};
use serde_json::Value;

const BUCKET: &str = "shared";
/// Shards are made, moved and counted in the background.
const PATIENCE: Duration = Duration::from_secs(120);

/// A box, and where others reach it.
struct Node {
    s3d: S3d,
    address: String,
}

impl Node {
    fn start() -> Result<Node> {
        // Absences count soon: a test does not wait for ten minutes.
        let config = Config::default().set(setting::REPAIR_GRACE, "2s");
        Ok(Node { s3d: S3d::start(config)?, address: format!("127.0.0.1:{}", free_port()?) })
    }

    fn token(&self, words: &[&str]) -> Result<String> {
        let text = self.s3d.subcommand(&[&["token", "create", "--address", &self.address], words].concat())?;
        let token = text.split_whitespace().find(|word| word.starts_with("pd1."));
        token.map(str::to_owned).with_context(|| format!("no token in {text}"))
    }

    fn join(&self, token: &str, words: &[&str]) -> Result<String> {
        let joined = self.s3d.subcommand(&[&["join", token, "--address", &self.address], words].concat());
        joined.with_context(|| self.s3d.log_tail())
    }

    /// Why it does not join.
    fn refused(&self, token: &str) -> Result<String> {
        match self.join(token, &[]) {
            Ok(text) => bail!("it joined: {text}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// By the credentials that it tells now.
    fn s3(&mut self) -> Result<S3> {
        self.s3d.learn_credentials()?;
        self.s3d.s3()
    }

    /// Has it be elsewhere when it is started again, as a box does that gets another address; others are not told.
    fn move_away(&mut self, seeds: &str) -> Result<()> {
        let path = self.s3d.data_dir.join("member.json");
        let mut member: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        self.address = format!("127.0.0.1:{}", free_port()?);
        member["address"] = self.address.clone().into();
        std::fs::write(&path, member.to_string())?;
        self.s3d.config = self.s3d.config.clone().set(setting::SEEDS, seeds);
        Ok(())
    }

    /// Exit code and text of `cluster status`, or of another command about the cluster.
    fn cluster(&self, words: &[&str]) -> Result<String> {
        self.s3d.subcommand(&[&["cluster"], words].concat())
    }

    fn until_healthy(&self) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.cluster(&["status"]) {
                Ok(text) => return Ok(text),
                Err(error) if Instant::now() > deadline => return Err(error.context(self.s3d.log_tail())),
                Err(_) => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }
}

/// Objects that live in the catalog, in one chunk, and in several.
fn fill(s3: &mut S3, prefix: &str, rng: &mut Rng) -> Result<Vec<(String, Vec<u8>)>> {
    let mut objects = Vec::new();
    for len_bytes in [0, 100, 70_000, 5 << 20, 40 << 20] {
        let (key, body) = (format!("{prefix}/{len_bytes}"), Body { id: rng.next_u64(), len_bytes }.bytes());
        s3.put(BUCKET, &key, body.clone())?.expect(200)?;
        objects.push((key, body));
    }
    Ok(objects)
}

fn expect(s3: &mut S3, objects: &[(String, Vec<u8>)]) -> Result<()> {
    objects.iter().try_for_each(|(key, body)| s3.expect_body(BUCKET, key, body))
}

fn has_lines(text: &str, lines: &[&str]) -> Result<()> {
    let missing: Vec<_> = lines.iter().filter(|line| !text.contains(**line)).collect();
    ensure!(missing.is_empty(), "{missing:?} is not in:\n{text}");
    Ok(())
}

#[test]
fn three_boxes_become_one_cluster_and_a_lost_one_is_replaced() -> Result<()> {
    let mut rng = Rng::for_test("three_boxes_become_one_cluster_and_a_lost_one_is_replaced");
    let mut first = Node::start()?;
    let mut s3 = first.s3()?;
    s3.create_bucket(BUCKET)?;
    let mut objects = fill(&mut s3, "alone", &mut rng)?;
    let token = first.token(&["--uses", "2"])?;
    expect(&mut first.s3()?, &objects).context("it is the first of a cluster now")?;

    let mut second = Node::start()?;
    let plan = second.join(&token, &["--dry-run"])?;
    has_lines(&plan, &["rs(1,1) instead of rs(1,0)", "written again", "nothing was changed"])?;
    has_lines(&first.s3d.subcommand(&["token", "list"])?, &[" 2\n"])?;
    has_lines(&second.join(&token, &[])?, &["rs(1,1) instead of rs(1,0)", "box 2 takes shards"])?;
    objects.extend(fill(&mut second.s3()?, "two", &mut rng)?);
    let mut third = Node::start()?;
    has_lines(&third.join(&token, &[])?, &["rs(2,1) instead of rs(1,1)", "voters   3", "box 3 takes shards"])?;
    let status = third.until_healthy()?;
    has_lines(&status, &["rs(2,1)", &first.address, &second.address, &third.address])?;
    ensure!(status.matches("follower").count() == 2 && !status.contains("learner"), "{status}");

    let fourth = Node::start()?;
    has_lines(&fourth.refused(&token)?, &["has been used as often as it may be"])?;
    for node in [&mut first, &mut second, &mut third] {
        expect(&mut node.s3()?, &objects)?;
    }
    objects.extend(fill(&mut third.s3()?, "three", &mut rng)?);
    expect(&mut first.s3()?, &objects)?;

    // The one that began it goes for good. The others go on, and let another one in.
    first.s3d.kill();
    objects.extend(fill(&mut second.s3()?, "without", &mut rng)?);
    expect(&mut third.s3()?, &objects)?;
    let token = second.token(&[])?;
    let mut fourth = fourth;
    has_lines(&fourth.join(&token, &[])?, &["rs(2,1) as before", "box 4 takes shards"])?;
    third.cluster(&["drain", "1", "--yes"])?;
    third.cluster(&["remove-db", "1"])?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = third.cluster(&["remove-node", "1", "--yes"]) {
        ensure!(Instant::now() < deadline, "{error:#}\n{}", third.s3d.log_tail());
        std::thread::sleep(Duration::from_millis(500));
    }
    let status = fourth.until_healthy()?;
    ensure!(status.matches("follower").count() == 2 && !status.contains(&first.address), "{status}");
    expect(&mut fourth.s3()?, &objects)?;

    // It comes back all the same, with all that it had: nobody listens to it.
    first.s3d.spawn()?;
    std::thread::sleep(Duration::from_secs(3));
    let status = fourth.cluster(&["status"])?;
    ensure!(!status.contains(&first.address), "{status}");
    ensure!(first.s3d.status()?["state"] == "waiting", "{}", first.s3d.status()?);
    ensure!(first.s3d.subcommand(&["status"]).is_err_and(|error| format!("{error:#}").contains("waits until enough")));
    Ok(())
}

#[test]
fn who_may_not_join() -> Result<()> {
    let mut first = Node::start()?;
    let token = first.token(&["--uses", "100"])?;
    let secret = token.rsplit('.').next().unwrap_or_default();

    let mut full = Node::start()?;
    let mut s3 = full.s3()?;
    s3.create_bucket("own")?;
    s3.put("own", "key", "mine")?.expect(200)?;
    has_lines(&full.refused(&token)?, &["bucket own has objects"])?;
    s3.expect_body("own", "key", b"mine")?;
    s3.delete("own", "key")?.expect(204)?;
    s3.call(s3.request("POST", "own", "key", "uploads=", ""))?.expect(200)?;
    has_lines(&full.refused(&token)?, &["or uploads"])?;
    ensure!(s3.abort_uploads("own")? == 1);
    full.s3d.subcommand(&["user", "add", "ann"])?;
    has_lines(&full.refused(&token)?, &["has users"])?;
    full.s3d.subcommand(&["user", "remove", "ann"])?;

    let taken = std::net::UdpSocket::bind(&full.address)?;
    has_lines(&full.refused(&token)?, &["--address"])?;
    drop(taken);

    let stranger = Node::start()?;
    let others = stranger.token(&[])?;
    // The address of the one, and the authority of the other.
    let parts: Vec<&str> = others.rsplitn(3, '.').collect();
    let mixed = format!("pd1.{}.{}.{secret}", first.address, parts[1]);
    has_lines(&full.refused(&mixed)?, &["is not believed"])?;
    has_lines(&full.refused(&token.replace("pd1", "pd2"))?, &["this is no token"])?;
    let guessed = token.replace(secret, &"0".repeat(64));
    has_lines(&full.refused(&guessed)?, &["the token is not known"])?;
    let nowhere = token.replace(&first.address, &format!("127.0.0.1:{}", free_port()?));
    has_lines(&full.refused(&nowhere)?, &["refused"])?;
    has_lines(&stranger.refused(&token)?, &["of a cluster already"])?;

    let listed = first.s3d.subcommand(&["token", "list"])?;
    let id = listed.lines().nth(1).and_then(|line| line.split(' ').next()).context("no id")?;
    first.s3d.subcommand(&["token", "revoke", id])?;
    has_lines(&full.refused(&token)?, &["was revoked"])?;
    for words in [&["--ttl", "1s"][..], &["--uses", "0"]] {
        ensure!(first.token(words).is_err(), "{words:?}");
    }
    let log = first.s3d.log_text();
    has_lines(&log, &["a box is not let in", "token revoke"])?;
    ensure!(!log.contains(secret), "a secret is in the log");

    // An empty box that was asked all this is as it was, and may join after all.
    let token = first.token(&["--ttl", "2m"])?;
    full.join(&token, &[])?;
    let mut s3 = first.s3()?;
    s3.create_bucket(BUCKET)?;
    s3.put(BUCKET, "key", "ours")?.expect(200)?;
    full.s3()?.expect_body(BUCKET, "key", b"ours")
}

/// Whatever comes first, the object or the cluster: what a box has acknowledged is there afterwards.
#[test]
fn what_is_stored_while_a_box_joins_is_not_lost() -> Result<()> {
    let mut rng = Rng::for_test("what_is_stored_while_a_box_joins_is_not_lost");
    let mut first = Node::start()?;
    first.s3()?;
    let token = first.token(&["--uses", "100"])?;
    let (mut joined, mut stayed, mut late) = (0, 0, 0);
    for _ in 0..6 {
        let mut joining = Node::start()?;
        let mut s3 = joining.s3()?;
        s3.create_bucket(BUCKET)?;
        let words = ["join", &token, "--address", &joining.address];
        let mut asking = joining.s3d.subcommand_of(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_micros(rng.below(60_000)));
        let mut acknowledged = Vec::new();
        let until = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < until {
            let key = format!("key-{}", acknowledged.len());
            if s3.put(BUCKET, &key, key.clone()).is_ok_and(|answer| answer.status == 200) {
                acknowledged.push(key);
            }
        }
        joining.s3d.wait_until_serving()?;
        let is_member = joining.s3d.data_dir.join("member.json").exists();
        ensure!(!is_member || acknowledged.is_empty(), "{} objects were lost by joining", acknowledged.len());
        joined += usize::from(is_member);
        stayed += usize::from(!is_member);
        let mut s3 = joining.s3()?;
        acknowledged.iter().try_for_each(|key| s3.expect_body(BUCKET, key, key.as_bytes()))?;
        // One that stayed what it is is not waited for.
        let _ = asking.kill();
        asking.wait()?;
        let is_late = joining.s3d.log_text().contains("has not joined, and is what it was");
        late += usize::from(is_late);
        if is_member {
            break;
        }
    }
    println!("{joined} joined, {stayed} stayed what they were, {late} of them after they had been let in");
    Ok(())
}

/// Wherever it is killed, it is what it was or a member, and a member goes on where it was.
#[test]
fn a_box_that_is_killed_while_it_joins_joins() -> Result<()> {
    let mut rng = Rng::for_test("a_box_that_is_killed_while_it_joins_joins");
    let mut first = Node::start()?;
    let mut s3 = first.s3()?;
    s3.create_bucket(BUCKET)?;
    let objects = fill(&mut s3, "before", &mut rng)?;
    let token = first.token(&["--uses", "100"])?;
    let mut joining = Node::start()?;
    let mut kill_count = 0;
    for round in 0..12 {
        let pause = Duration::from_millis(rng.below(60 + 40 * round));
        let words = ["join", &token, "--address", &joining.address];
        let mut asking = joining.s3d.subcommand_of(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(pause);
        joining.s3d.kill();
        kill_count += 1;
        joining.s3d.restart()?;
        // What it was told does not matter.
        let _ = asking.kill();
        asking.wait()?;
        if joining.s3d.data_dir.join("member.json").exists() {
            break;
        }
    }
    if !joining.s3d.data_dir.join("member.json").exists() {
        joining.join(&token, &[])?;
    }
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(rng.below(400)));
        joining.s3d.kill();
        joining.s3d.restart()?;
    }
    println!("killed {kill_count} times before it was a member");
    let status = first.until_healthy()?;
    ensure!(status.contains("rs(1,1)") && status.contains(&joining.address), "{status}");
    expect(&mut joining.s3()?, &objects)
}

/// All boxes get other addresses at once: one of them, told to the others, is enough.
#[test]
fn boxes_that_all_moved_find_each_other_by_one_address() -> Result<()> {
    let mut rng = Rng::for_test("boxes_that_all_moved_find_each_other_by_one_address");
    let mut nodes = [Node::start()?, Node::start()?, Node::start()?];
    nodes[0].s3()?.create_bucket(BUCKET)?;
    let token = nodes[0].token(&["--uses", "2"])?;
    nodes[1].join(&token, &[])?;
    nodes[2].join(&token, &[])?;
    nodes[2].until_healthy()?;
    let mut objects = fill(&mut nodes[1].s3()?, "before", &mut rng)?;
    for node in &mut nodes {
        node.s3d.stop()?;
    }
    let former: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    nodes[0].move_away("")?;
    let seed = nodes[0].address.clone();
    nodes[1].move_away(&seed)?;
    nodes[2].move_away(&seed)?;
    // The daemons wait for each other.
    nodes.iter_mut().try_for_each(|node| node.s3d.spawn())?;
    nodes.iter_mut().try_for_each(|node| node.s3d.wait_until_serving())?;
    expect(&mut nodes[2].s3()?, &objects)?;
    objects.extend(fill(&mut nodes[0].s3()?, "after", &mut rng)?);
    // And each learns how busy the others are.
    for node in &nodes {
        let told = || -> Result<usize> {
            let status: Value = serde_json::from_slice(&node.s3d.admin("/status")?.body)?;
            Ok(status["load_percent"].as_object().map_or(0, |loads| loads.len()))
        };
        let deadline = Instant::now() + PATIENCE;
        while told()? < 3 {
            ensure!(Instant::now() < deadline, "it knows of {} loads\n{}", told()?, node.s3d.log_tail());
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    // The catalog learns where they are: a start without the seed finds them.
    let deadline = Instant::now() + PATIENCE;
    let is_known = |text: &str, nodes: &[Node; 3]| {
        nodes.iter().all(|node| text.matches(&node.address).count() >= 2)
            && !former.iter().any(|old| text.contains(old))
    };
    loop {
        let text = nodes[1].until_healthy()?;
        if is_known(&text, &nodes) {
            break;
        }
        ensure!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(500));
    }
    for node in &mut nodes {
        node.s3d.kill();
        node.s3d.config = node.s3d.config.clone().set(setting::SEEDS, "");
    }
    nodes.iter_mut().try_for_each(|node| node.s3d.spawn())?;
    nodes.iter_mut().try_for_each(|node| node.s3d.wait_until_serving())?;
    expect(&mut nodes[1].s3()?, &objects)
}
