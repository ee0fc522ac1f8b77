//! What operators ask of a daemon. `predastore user`: keys with policies, kept in the catalog: they count, change and stop at every
//! gateway at once. `predastore bucket`.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::libc;
use predastore_tests::cluster::{Cluster, Shape};
use predastore_tests::knobs::{Need, can_run};
use predastore_tests::s3::S3;
use predastore_tests::s3d::{Config, S3d};
use predastore_tests::sigv4::Signer;

const BUCKET: &str = "shared";
const KEYS: [&str; 3] = ["logs/a", "logs/b", "other"];

/// An access key as the command prints it.
struct Key {
    id: String,
    secret: String,
}

fn user(s3d: &S3d, words: &[&str]) -> Result<String> {
    s3d.subcommand(&[&["user"], words].concat())
}

/// Of `user add` and `user add-key`.
fn new_key(s3d: &S3d, words: &[&str]) -> Result<Key> {
    let text = user(s3d, &[words, &["--env"]].concat())?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("export {name}='")));
        line.and_then(|rest| rest.strip_suffix('\'')).map(str::to_owned).with_context(|| format!("no {name} in {text}"))
    };
    Ok(Key { id: value("AWS_ACCESS_KEY_ID")?, secret: value("AWS_SECRET_ACCESS_KEY")? })
}

fn s3_with(s3d: &S3d, key: &Key) -> Result<S3> {
    Ok(S3::new(s3d.endpoint()?, Signer::new(&key.id, &key.secret, &s3d.credentials().region)))
}

fn fill(s3d: &S3d) -> Result<()> {
    let mut root = s3d.s3()?;
    for bucket in [BUCKET, "private"] {
        root.create_bucket(bucket)?;
        for key in KEYS {
            root.put(bucket, key, format!("of {key}"))?.expect(200)?;
        }
    }
    Ok(())
}

/// What a GET of an object is answered with.
fn outcome(s3: &mut S3, bucket: &str, key: &str) -> Result<String> {
    let answer = s3.get(bucket, key)?;
    Ok(if answer.status == 200 { "200".to_owned() } else { answer.code() })
}

fn expect(s3: &mut S3, expected: &[(&str, &str, &str)]) -> Result<()> {
    for (bucket, key, expected) in expected {
        let found = outcome(s3, bucket, key)?;
        ensure!(found == *expected, "GET {bucket}/{key}: {found}, expected {expected}");
    }
    Ok(())
}

/// Reads `logs/` and does nothing else.
fn expect_reader_of_logs(s3: &mut S3) -> Result<()> {
    const DENIED: &str = "AccessDenied";
    expect(s3, &[(BUCKET, "logs/a", "200"), (BUCKET, "other", DENIED), ("private", "logs/a", DENIED)])?;
    ensure!(s3.list_prefix(BUCKET, "logs/")?.len() == 2, "the listing of logs/ differs");
    let requests = [
        ("GET", BUCKET, "", "list-type=2"),
        ("GET", BUCKET, "", "list-type=2&prefix=oth"),
        ("GET", BUCKET, "", "acl"),
        ("PUT", BUCKET, "logs/a", ""),
        ("PUT", BUCKET, "logs/new", ""),
        ("DELETE", BUCKET, "logs/a", ""),
        ("POST", BUCKET, "logs/new", "uploads"),
        ("PUT", BUCKET, "logs/a", "tagging"),
        ("PUT", "another", "", ""),
        ("DELETE", BUCKET, "", ""),
    ];
    for (method, bucket, key, query) in requests {
        let answer = s3.call(s3.request(method, bucket, key, query, ""))?;
        ensure!(answer.status == 403 && answer.code() == DENIED, "{method} {bucket}/{key}?{query}: {}", answer.status);
    }
    Ok(())
}

/// Until all gateways say so of a GET of `logs/a`, for at most a second.
fn within_a_second(clients: &mut [S3], expected: &str) -> Result<()> {
    let begun = Instant::now();
    for s3 in clients {
        loop {
            let found = outcome(s3, BUCKET, "logs/a")?;
            if found == expected {
                break;
            }
            ensure!(begun.elapsed() < Duration::from_secs(1), "still {found} after a second, expected {expected}");
        }
    }
    Ok(())
}

#[test]
fn a_key_reads_its_prefix_and_is_refused_everywhere_else() -> Result<()> {
    let s3d = S3d::start(Config::default())?;
    fill(&s3d)?;
    let key = new_key(&s3d, &["add", "ann", "--read-only", "shared/logs/"])?;
    let mut ann = s3_with(&s3d, &key)?;
    expect_reader_of_logs(&mut ann)?;
    let delete = "<Delete><Object><Key>logs/a</Key></Object><Object><Key>other</Key></Object></Delete>";
    let delete = |ann: &S3| ann.request("POST", BUCKET, "", "delete", delete).with_md5();
    let answer = ann.call(delete(&ann))?.expect(200)?.text();
    ensure!(answer.matches("<Code>AccessDenied</Code>").count() == 2, "{answer}");

    user(&s3d, &["grant", "ann", "--read-write", "shared/logs/"])?;
    let answer = ann.call(delete(&ann))?.expect(200)?.text();
    ensure!(answer.contains("<Deleted><Key>logs/a</Key>") && answer.contains("AccessDenied"), "{answer}");
    ann.put(BUCKET, "logs/a", "new")?.expect(200)?;
    let mut copy = ann.request("PUT", BUCKET, "logs/copy", "", "");
    copy.set("x-amz-copy-source", "shared/other");
    ensure!(ann.call(copy)?.status == 403, "a copy of what may not be read");
    user(&s3d, &["revoke", "ann", "read-write.shared.logs"])?;
    expect_reader_of_logs(&mut ann)?;
    s3d.s3()?.expect_body(BUCKET, "logs/a", b"new")?;

    // Two keys, one after the other.
    let second = new_key(&s3d, &["add-key", "ann"])?;
    user(&s3d, &["disable-key", &key.id])?;
    expect(&mut ann, &[(BUCKET, "logs/a", "InvalidAccessKeyId")])?;
    expect_reader_of_logs(&mut s3_with(&s3d, &second)?)?;
    user(&s3d, &["enable-key", &key.id])?;
    expect_reader_of_logs(&mut ann)?;
    user(&s3d, &["remove-key", &key.id])?;
    expect(&mut ann, &[(BUCKET, "logs/a", "InvalidAccessKeyId")])?;
    let shown = user(&s3d, &["show", "ann"])?;
    ensure!(shown.contains(&second.id) && !shown.contains(&key.id) && shown.contains("s3:GetObject"), "{shown}");
    ensure!(!shown.contains(&second.secret), "a secret is told again");
    user(&s3d, &["remove", "ann"])?;
    expect(&mut s3_with(&s3d, &second)?, &[(BUCKET, "logs/a", "InvalidAccessKeyId")])?;
    ensure!(user(&s3d, &["list"])?.is_empty());
    Ok(())
}

/// A policy of one's own, with a condition and a denial; what cannot be is told, and nothing is changed by it.
#[test]
fn a_policy_in_a_file_says_what_its_user_may_do() -> Result<()> {
    let mut s3d = S3d::start(Config::default())?;
    fill(&s3d)?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("team.json");
    let policy = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::shared", "arn:aws:s3:::shared/*"],
         "Condition": {"IpAddress": {"aws:SourceIp": ["127.0.0.0/8", "::1/128"]}}},
        {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::shared/other"}]}"#;
    fs::write(&file, policy)?;
    let key = new_key(&s3d, &["add", "bob", "--policy", file.to_str().context("a path in UTF-8")?])?;
    let mut bob = s3_with(&s3d, &key)?;
    expect(
        &mut bob,
        &[(BUCKET, "logs/a", "200"), (BUCKET, "other", "AccessDenied"), ("private", "other", "AccessDenied")],
    )?;
    bob.put(BUCKET, "other", "by bob")?.expect(200)?;
    // Which would copy what is denied, too.
    let mut prefix = bob.request("PUT", BUCKET, "all/", "", "").header("x-amz-copy-source", "shared/logs/");
    prefix.set("x-predastore-copy-prefix", "true");
    ensure!(bob.call(prefix)?.code() == "AccessDenied", "a whole prefix is copied");
    // From an address that is not his.
    fs::write(&file, policy.replace("127.0.0.0/8", "192.0.2.0/24").replace("::1/128", "2001:db8::/32"))?;
    user(&s3d, &["grant", "bob", "--policy", file.to_str().context("a path in UTF-8")?])?;
    expect(&mut bob, &[(BUCKET, "logs/a", "AccessDenied")])?;
    fs::write(&file, policy.replace("IpAddress", "IpAdress"))?;
    for words in [
        &["grant", "bob", "--policy", file.to_str().context("a path in UTF-8")?][..],
        &["grant", "nobody", "--full"],
        &["grant", "bob"],
        &["add", "bob", "--full"],
        &["add", "b b", "--full"],
        &["remove-key", "AKIAUNKNOWN"],
        &["revoke", "bob", "unknown"],
    ] {
        match user(&s3d, words) {
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(said.contains("IpAdress") || !words.contains(&"--policy"), "{said}");
            }
            Ok(said) => bail!("{words:?} succeeded: {said}"),
        }
    }
    expect(&mut bob, &[(BUCKET, "logs/a", "AccessDenied")])?;
    user(&s3d, &["grant", "bob", "--full"])?;
    // Denied is denied.
    expect(&mut bob, &[(BUCKET, "logs/a", "200"), (BUCKET, "other", "AccessDenied"), ("private", "other", "200")])?;
    s3d.kill();
    s3d.restart()?;
    let mut bob = s3_with(&s3d, &key)?;
    expect(&mut bob, &[(BUCKET, "logs/a", "200"), (BUCKET, "other", "AccessDenied")])?;

    // Who did what.
    let log = s3d.log_text();
    ensure!(
        log.contains("user add bob account 000000000000 policies") && log.contains("audit"),
        "no line of the change"
    );
    ensure!(log.contains("user=\"bob\"") && log.contains(&key.id), "no line of a request");
    ensure!(!log.contains(&key.secret), "a secret is in the log");
    Ok(())
}

#[test]
fn keys_count_and_stop_at_every_gateway_at_once() -> Result<()> {
    let mut cluster = Cluster::start(&Shape::boxes(3, 3, (2, 1)), &Config::default())?;
    fill(&cluster.processes[0])?;
    let key = new_key(&cluster.processes[0], &["add", "ann", "--read-only", "shared/logs/"])?;
    let mut clients = cluster.processes.iter().map(|s3d| s3_with(s3d, &key)).collect::<Result<Vec<_>>>()?;
    // The first request at a gateway that may be behind is answered as the cluster is.
    for s3 in &mut clients {
        expect_reader_of_logs(s3)?;
    }
    for round in 0..5 {
        let at = |nth: usize| &cluster.processes[(round + nth) % 3];
        user(at(0), &["disable-key", &key.id])?;
        within_a_second(&mut clients, "InvalidAccessKeyId")?;
        user(at(1), &["enable-key", &key.id])?;
        within_a_second(&mut clients, "200")?;
        user(at(2), &["revoke", "ann", "read-only.shared.logs"])?;
        within_a_second(&mut clients, "AccessDenied")?;
        user(at(0), &["grant", "ann", "--read-only", "shared/logs/"])?;
        within_a_second(&mut clients, "200")?;
    }
    // A member that was away knows what happened meanwhile once it serves.
    cluster.kill(&[2]);
    user(&cluster.processes[0], &["remove", "ann"])?;
    cluster.restart_all()?;
    clients[2] = s3_with(&cluster.processes[2], &key)?;
    within_a_second(&mut clients, "InvalidAccessKeyId")?;

    // In a cluster the catalog has no secret as it is.
    let second = new_key(&cluster.processes[1], &["add", "bob", "--full"])?;
    expect(&mut s3_with(&cluster.processes[2], &second)?, &[("private", "other", "200")])?;
    cluster.kill_all();
    for s3d in &cluster.processes {
        for file in s3d.secret_files()? {
            let bytes = fs::read(&file)?;
            let found = bytes.windows(second.secret.len()).any(|window| window == second.secret.as_bytes());
            ensure!(!found, "the secret is in {}", file.display());
        }
    }
    cluster.restart_all()?;
    expect(&mut s3_with(&cluster.processes[0], &second)?, &[("private", "other", "200")])?;
    cluster.stop_all()
}

#[test]
fn a_key_that_goes_while_a_body_comes_changes_nothing() -> Result<()> {
    let s3d = S3d::start(Config::default())?;
    fill(&s3d)?;
    let key = new_key(&s3d, &["add", "ann", "--full"])?;
    let mut s3 = s3_with(&s3d, &key)?;
    let tags =
        |value: &str| format!("<Tagging><TagSet><Tag><Key>a</Key><Value>{value}</Value></Tag></TagSet></Tagging>");
    let begun = |s3: &mut S3, value: &str| -> Result<_> {
        let mut request = s3.request("PUT", BUCKET, "", "tagging", tags(value)).header("Expect", "100-continue");
        s3.signer.sign(&mut request);
        Ok((s3.endpoint.begin(&request)?, request.body))
    };
    let (mut connection, body) = begun(&mut s3, "before")?;
    connection.write(&body)?;
    connection.response("PUT")?.expect(204)?;

    let (mut connection, body) = begun(&mut s3, "after")?;
    user(&s3d, &["remove", "ann"])?;
    connection.write(&body)?;
    let answer = connection.response("PUT")?.expect(403)?;
    ensure!(answer.code() == "InvalidAccessKeyId", "{}", answer.text());
    let mut root = s3d.s3()?;
    let kept = root.call(root.request("GET", BUCKET, "", "tagging", ""))?.expect(200)?.text();
    ensure!(kept.contains("before"), "{kept}");
    Ok(())
}

#[test]
fn buckets_are_seen_and_made_without_a_client() -> Result<()> {
    let s3d = S3d::start(Config::default())?;
    let bucket = |words: &[&str]| s3d.subcommand(&[&["bucket"], words].concat());
    ensure!(bucket(&["list"])?.is_empty(), "there are buckets");
    bucket(&["create", "photos"])?;
    let mut root = s3d.s3()?;
    root.put("photos", "key", vec![7; 3000])?.expect(200)?;
    bucket(&["versioning", "photos", "on"])?;
    root.put("photos", "key", vec![8; 5000])?.expect(200)?;
    let listed = bucket(&["list"])?;
    let line = listed.lines().find(|line| line.starts_with("photos ")).with_context(|| listed.clone())?;
    let words: Vec<_> = line.split_whitespace().collect();
    ensure!(words[1..4] == ["1", "4.9", "KiB"] && line.ends_with("enabled, 1 older of 2.9 KiB"), "{line}");
    for (words, why) in [
        (&["create", "photos"][..], "exists"),
        (&["create", "Photos"], "Photos"),
        (&["remove", "photos"], "not empty"),
        (&["remove", "nothing"], "no such bucket"),
        (&["versioning", "nothing", "on"], "no such bucket"),
    ] {
        match bucket(words) {
            Ok(said) => bail!("{words:?} succeeded: {said}"),
            Err(error) => ensure!(format!("{error:#}").contains(why), "{words:?}: {error:#}"),
        }
    }
    bucket(&["create", "empty"])?;
    bucket(&["remove", "empty"])?;
    ensure!(root.get("empty", "key")?.code() == "NoSuchBucket");
    let log = s3d.log_text();
    ensure!(log.contains("asked=\"bucket create photos\"") && log.contains("not done"), "no lines of who did what");
    Ok(())
}

/// What a user of the machine is answered at a control socket.
fn asked_as(uid: u32, socket: &Path, request: &'static str) -> Result<String> {
    let socket = socket.to_owned();
    let asking = thread::spawn(move || -> Result<String> {
        // SAFETY: a plain system call, which changes who this thread alone is; it ends soon.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
        ensure!(changed == 0, "{}", std::io::Error::last_os_error());
        let mut stream = UnixStream::connect(&socket)?;
        let len_bytes = (request.len() as u32).to_le_bytes();
        let frame = [b"PDCT", &1_u32.to_le_bytes()[..], &len_bytes, request.as_bytes()].concat();
        // Who is not welcome is answered unread: the other side may have closed before all is said, and then what was
        // said is still there.
        let said = stream.write_all(&frame);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        if answer.is_empty() {
            said?;
        }
        Ok(String::from_utf8_lossy(answer.get(12..).unwrap_or_default()).into_owned())
    });
    asking.join().map_err(|_| anyhow!("the thread panicked"))?
}

/// Who may mount is not therefore one who may make keys.
#[test]
fn who_may_only_mount_makes_no_users() -> Result<()> {
    if !can_run("who_may_only_mount_makes_no_users", &[Need::Root]) {
        return Ok(());
    }
    const MOUNTER: u32 = 65_534;
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let socket = directory.path().join("control.sock");
    let config = Config::default().set("PREDASTORE_CONTROL_USERS", MOUNTER);
    let s3d = S3d::start(config.set("PREDASTORE_CONTROL_SOCKET", socket.display()))?;
    let (list, mounts) = (r#"{"users":{"list":{"skip":0}}}"#, r#"{"mounts":{}}"#);
    ensure!(asked_as(MOUNTER, &socket, mounts)? == r#"{"mounts":[]}"#, "it may not mount");
    for request in [
        list,
        r#"{"users":{"add_key":{"name":"ann"}}}"#,
        r#"{"buckets":{"list":{"after":null}}}"#,
        r#"{"buckets":{"remove":{"name":"b"}}}"#,
    ] {
        let answer = asked_as(MOUNTER, &socket, request)?;
        ensure!(answer.contains("refused") && answer.contains("only root"), "{request}: {answer}");
    }
    ensure!(asked_as(0, &socket, list)?.starts_with(r#"{"users":{"users":"#), "root may not");
    ensure!(asked_as(MOUNTER + 1, &socket, mounts)?.contains("refused"), "anybody may ask");
    drop(s3d);
    Ok(())
}
