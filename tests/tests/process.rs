//! The process itself: its lock, its signals, its identity, its admin endpoint.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use predastore_tests::http::{Endpoint, Request};
use predastore_tests::random::body;
use predastore_tests::s3d::{Config, PATIENCE, S3d, root, setting};
use predastore_tests::sigv4::UNSIGNED_PAYLOAD;

const MIB: usize = 1 << 20;

#[test]
fn a_data_directory_has_one_process() -> Result<()> {
    let first = S3d::start(Config::default().plain())?;
    first.s3()?.create_bucket("locked")?;
    let mut second = S3d::stopped(Config::default().plain().in_dir(&first.data_dir))?;
    second.spawn()?;
    let status = second.wait_exit(PATIENCE)?;
    ensure!(!status.success(), "a second process ended with {status}");
    ensure!(second.log_text().contains("in use"), "{}", second.log_tail());
    ensure!(!first.check()?.clean, "s3d check takes a store that is in use for clean");
    first.s3()?.put("locked", "key", "x")?.expect(200).map(drop)
}

#[test]
fn sigterm_drains() -> Result<()> {
    let mut s3d = S3d::start(Config::default())?;
    let s3 = s3d.s3()?;
    s3d.s3()?.create_bucket("drained")?;
    let bytes = body(1, 2 * MIB);
    let mut request = s3.request("PUT", "drained", "key", "", "").header("Content-Length", bytes.len().to_string());
    s3.signer.sign_as(&mut request, UNSIGNED_PAYLOAD);
    let mut connection = s3.endpoint.connect()?;
    connection.write(&request.head())?;
    connection.write(&bytes[..MIB])?;
    s3d.signal(Signal::SIGTERM)?;
    let deadline = Instant::now() + PATIENCE;
    while s3d.admin("/health").is_ok_and(|answer| answer.status == 200) {
        ensure!(Instant::now() < deadline, "it does not say that it drains");
    }
    ensure!(s3d.try_exit()?.is_none(), "it ended in the middle of a request\n{}", s3d.log_tail());
    connection.write(&bytes[MIB..])?;
    connection.response("PUT")?.expect(200)?;
    drop(connection);
    ensure!(s3d.wait_exit(PATIENCE)?.success(), "{}", s3d.log_tail());
    s3d.restart()?;
    s3d.s3()?.expect_body("drained", "key", &bytes)
}

/// Sent, but not yet read (or even accepted) when the signal comes: the client cannot know, so it is answered.
#[test]
fn requests_that_cross_with_sigterm_are_answered() -> Result<()> {
    for config in [Config::default().plain(), Config::default()] {
        let is_plain = config.plain_http;
        let mut s3d = S3d::start(config)?;
        let s3 = s3d.s3()?;
        s3d.s3()?.create_bucket("crossing")?;
        let request = |key: &str| {
            let mut request = s3.request("PUT", "crossing", key, "", "x");
            s3.signer.sign_as(&mut request, UNSIGNED_PAYLOAD);
            request
        };
        let mut connections = vec![("open", s3.endpoint.connect()?)];
        s3d.signal(Signal::SIGSTOP)?;
        if is_plain {
            connections.push(("queued", s3.endpoint.connect()?));
        }
        for (key, connection) in &mut connections {
            let request = request(key);
            connection.write(&[request.head(), request.body].concat())?;
        }
        s3d.signal(Signal::SIGTERM)?;
        s3d.signal(Signal::SIGCONT)?;
        for (key, connection) in &mut connections {
            connection.response("PUT").with_context(|| format!("{key}, plain: {is_plain}"))?.expect(200)?;
        }
        ensure!(s3d.wait_exit(PATIENCE)?.success(), "{}", s3d.log_tail());
    }
    Ok(())
}

#[test]
fn identity_survives_a_restart_and_is_private() -> Result<()> {
    let mut s3d = S3d::start(Config::default())?;
    let (before, ca) = (s3d.credentials().clone(), s3d.credentials().ca.clone());
    let ca_text = ca.as_ref().map(std::fs::read).transpose()?;
    let files = s3d.secret_files()?;
    ensure!(files.len() >= 2, "secrets in {files:?}");
    for file in &files {
        let mode = std::fs::metadata(file)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{} has mode {mode:o}", file.display());
    }
    s3d.stop()?;
    let mut again = S3d::start(Config::default().in_dir(&s3d.data_dir))?;
    ensure!(again.credentials().secret_key == before.secret_key && again.credentials().access_key == before.access_key);
    ensure!(ca.as_ref().map(std::fs::read).transpose()? == ca_text, "the authority has changed");
    again.s3()?.create_bucket("again")?;
    again.stop()?;
    let other = S3d::start(Config::default())?;
    ensure!(other.credentials().secret_key != before.secret_key, "two stores have one secret");
    Ok(())
}

#[test]
fn what_is_stored_is_private() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let s3d = S3d::start(Config::default().in_dir(&scratch.path().join("data")))?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket("private")?;
    s3.put("private", "small", "x")?.expect(200)?;
    s3.put("private", "large", body(2, MIB))?.expect(200)?;
    let mut left = vec![s3d.data_dir.clone()];
    while let Some(path) = left.pop() {
        let metadata = std::fs::symlink_metadata(&path)?;
        let mode = metadata.permissions().mode() & 0o777;
        ensure!(mode & 0o077 == 0, "{} has mode {mode:o}", path.display());
        if metadata.is_dir() {
            let below: Vec<_> = std::fs::read_dir(&path)?.collect::<std::io::Result<_>>()?;
            left.extend(below.iter().map(std::fs::DirEntry::path));
        }
    }
    Ok(())
}

#[test]
fn a_wrong_certificate_is_found_before_a_store_is_made() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let data = scratch.path().join("data");
    let toml = "[server.tls]\ncert_file = \"/nowhere/cert.pem\"\nkey_file = \"/nowhere/key.pem\"\n";
    let mut s3d = S3d::stopped(Config { toml: Some(toml.into()), ..Config::default() }.in_dir(&data))?;
    s3d.spawn()?;
    ensure!(!s3d.wait_exit(PATIENCE)?.success());
    ensure!(s3d.log_text().contains("server.tls.cert_file: /nowhere/cert.pem"), "{}", s3d.log_tail());
    ensure!(!data.exists(), "it made a data directory first");
    Ok(())
}

#[test]
fn plain_http_is_told_to_use_https() -> Result<()> {
    let s3d = S3d::start(Config::default())?;
    let answer =
        Endpoint::plain(s3d.port).connect()?.call(&Request::new("GET", "/", "").header("Host", "localhost"))?;
    ensure!(answer.status == 400 && answer.text().contains("HTTPS"), "{} {}", answer.status, answer.text());
    Ok(())
}

#[test]
fn an_unknown_setting_is_refused_by_name() -> Result<()> {
    let mut s3d = S3d::stopped(Config::default().set("PREDASTORE_SERVER_PROT", "1"))?;
    s3d.spawn()?;
    ensure!(!s3d.wait_exit(PATIENCE)?.success());
    ensure!(s3d.log_text().to_lowercase().contains("server_prot"), "{}", s3d.log_tail());
    let mut s3d = S3d::stopped(Config { toml: Some("[server]\nprot = 1\n".into()), ..Config::default() })?;
    s3d.spawn()?;
    ensure!(!s3d.wait_exit(PATIENCE)?.success());
    ensure!(s3d.log_text().contains("server.prot"), "{}", s3d.log_tail());
    Ok(())
}

#[test]
fn the_admin_endpoint_tells_what_happens() -> Result<()> {
    // Nobody is there, and it is told all the same that nobody is.
    let s3d = S3d::start(Config::default().set(setting::NATS_URL, "nats://127.0.0.1:1"))?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket("counted")?;
    for index in 0..7 {
        s3.put("counted", &format!("{index}"), "x")?.expect(200)?;
    }
    let metrics = s3d.admin("/metrics")?.expect(200)?.text();
    let counted = metrics.lines().any(|line| line.contains("\"PutObject\"") && line.trim_end().ends_with(" 7"));
    ensure!(counted, "seven PUTs are not in the metrics:\n{metrics}");
    ensure!(metrics.contains("_bucket{"), "no histogram in the metrics");
    // What the alerts and the dashboard of the package ask for is there.
    for file in ["packaging/prometheus/predastore.rules.yml", "packaging/grafana/predastore.json"] {
        let text = std::fs::read_to_string(root().join(file))?;
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let asked: BTreeSet<&str> = words.filter(|word| word.starts_with("predastore_")).collect();
        ensure!(asked.len() > 5, "{file} asks for nothing");
        for name in asked {
            let has = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
            ensure!(metrics.lines().any(has), "{file} asks for {name}, which nobody tells");
        }
    }
    let status = s3d.status()?;
    ensure!(status["state"] == "serving", "{status}");
    for text in [metrics, status.to_string()] {
        ensure!(!text.contains(&s3d.credentials().secret_key), "the secret key is shown");
    }
    // The S3 port knows nothing of it.
    let answer = s3.send(&Request::new("GET", "/metrics", "").header("Host", s3.endpoint.authority()))?;
    ensure!(answer.status == 403, "GET /metrics on the S3 port: {}", answer.status);
    Ok(())
}

/// Damage is found when somebody asks, and not only in the course of the day.
#[test]
fn what_is_stored_is_verified_for_the_asking() -> Result<()> {
    let s3d = S3d::start(Config::default().set(setting::SWEEP_INTERVAL, "1s"))?;
    let figure = |name: &str| -> Result<u64> {
        let metrics = s3d.admin("/metrics")?.expect(200)?.text();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no {name}"))?.trim().parse::<f64>()? as u64)
    };
    let until = |name: &str, value: u64| -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while figure(name)? < value {
            ensure!(Instant::now() < deadline, "{name} stays at {}\n{}", figure(name)?, s3d.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    let mut s3 = s3d.s3()?;
    s3.create_bucket("kept")?;
    s3.put("kept", "key", vec![7; 1 << 20])?.expect(200)?;
    // The pass that every start begins with is over; the next one is due in a day.
    until("predastore_scrub_passes", 1)?;
    let files = s3d.chunk_files()?;
    let (path, _) = files.iter().find(|(_, len_bytes)| *len_bytes > 1 << 19).context("no chunk")?;
    let mut bytes = std::fs::read(path)?;
    bytes[70_000] ^= 1;
    std::fs::write(path, bytes)?;
    let said = s3d.subcommand(&["scrub"])?;
    ensure!(said.contains("it has begun"), "{said}");
    until("predastore_chunks_lost", 1)
}
