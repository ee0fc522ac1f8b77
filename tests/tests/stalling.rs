//! Clients that stall, dawdle or die: they are cut off, and leave neither bytes nor memory behind. Over TLS, as boxes are
//! run.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use predastore_tests::http::Connection;
use predastore_tests::random::body;
use predastore_tests::s3::{S3, element, elements};
use predastore_tests::s3d::{Config, PATIENCE, S3d, setting};
use predastore_tests::sigv4::UNSIGNED_PAYLOAD;
use predastore_tests::workload::wait_until_no_chunk;

const MIB: usize = 1 << 20;
const BUCKET: &str = "stalling";

fn impatient() -> Config {
    Config::default()
        .set(setting::HEADER_TIMEOUT, "2s")
        .set(setting::BODY_TIMEOUT, "2s")
        .set(setting::MEMORY_BUDGET, "32MiB")
        .set(setting::SWEEP_GRACE, "1s")
        .set(setting::SWEEP_INTERVAL, "1s")
}

fn bucket_with(config: Config) -> Result<(S3d, S3)> {
    let s3d = S3d::start(config)?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket(BUCKET)?;
    Ok((s3d, s3))
}

fn expect_closed(connections: &mut [Connection]) -> Result<()> {
    for (index, connection) in connections.iter_mut().enumerate() {
        connection.set_read_timeout(PATIENCE)?;
        ensure!(connection.is_closed_by_peer(), "connection {index} is still open after {PATIENCE:?}");
    }
    Ok(())
}

// --- heads

/// Two hundred connections that say little or nothing are cut, and hinder nobody meanwhile.
fn slow_loris(config: Config) -> Result<()> {
    let (s3d, mut s3) = bucket_with(config)?;
    let mut connections: Vec<Connection> = (0..200).map(|_| s3d.endpoint()?.connect()).collect::<Result<_>>()?;
    for (index, connection) in connections.iter_mut().enumerate() {
        let start = ["", "G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: localhost\r\nx-slow: "][index % 4];
        connection.write(start.as_bytes())?;
    }
    s3.put(BUCKET, "meanwhile", "x")?.expect(200).context("others are not served meanwhile")?;
    expect_closed(&mut connections)?;
    s3.put(BUCKET, "after", "x")?.expect(200).map(drop)
}

#[test]
fn slow_loris_connections_are_cut() -> Result<()> {
    slow_loris(impatient().plain())
}

#[test]
fn slow_loris_connections_are_cut_over_tls() -> Result<()> {
    // Connecting two hundred times takes long enough on a small machine for the first to be cut meanwhile.
    slow_loris(impatient().set(setting::HEADER_TIMEOUT, "10s"))
}

#[test]
fn handshakes_without_end_are_cut() -> Result<()> {
    let (s3d, mut s3) = bucket_with(impatient())?;
    // Nothing; a record that says it is longer; the start of a ClientHello.
    let starts: [&[u8]; 3] = [b"", b"\x16\x03\x01\x02\x00", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"];
    let mut connections = Vec::new();
    for index in 0..200 {
        let mut tcp = TcpStream::connect(("127.0.0.1", s3d.port))?;
        tcp.write_all(starts[index % starts.len()])?;
        connections.push(tcp);
    }
    s3.put(BUCKET, "meanwhile", "x")?.expect(200).context("others are not served meanwhile")?;
    for (index, tcp) in connections.iter_mut().enumerate() {
        tcp.set_read_timeout(Some(PATIENCE))?;
        let read = tcp.read(&mut [0; 16]);
        let is_closed = read.is_ok_and(|count| count == 0);
        ensure!(is_closed, "handshake {index} is still open after {PATIENCE:?}");
    }
    s3.put(BUCKET, "after", "x")?.expect(200).map(drop)
}

#[test]
fn a_dripping_head_is_cut() -> Result<()> {
    let (s3d, _s3) = bucket_with(impatient())?;
    let mut connection = s3d.endpoint()?.connect()?;
    connection.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nx-slow: ")?;
    connection.set_read_timeout(Duration::from_millis(200))?;
    // A byte each fifth of a second: never idle, and never done.
    let deadline = Instant::now() + PATIENCE;
    while connection.write(b"a").is_ok() && !connection.is_closed_by_peer() {
        ensure!(Instant::now() < deadline, "a head may take more than {PATIENCE:?}");
    }
    Ok(())
}

// --- bodies

/// Sends a PUT's head and half of its body; `query` makes it an UploadPart.
fn half_a_put(s3: &S3, key: &str, query: &str) -> Result<Connection> {
    let mut request = s3.request("PUT", BUCKET, key, query, "").header("Content-Length", MIB.to_string());
    s3.signer.sign_as(&mut request, UNSIGNED_PAYLOAD);
    let mut connection = s3.endpoint.connect()?;
    connection.write(&request.head())?;
    connection.write(&body(7, MIB / 2))?;
    Ok(connection)
}

fn nothing_is_left(s3d: &S3d, s3: &mut S3) -> Result<()> {
    ensure!(s3.list(BUCKET)?.is_empty(), "an object that was never whole is listed");
    wait_until_no_chunk(s3d)?;
    // Whatever they held of the memory budget is free again: sixteen such bodies at once fit.
    std::thread::scope(|scope| {
        let puts: Vec<_> = (0..16)
            .map(|index| {
                scope.spawn(move || s3d.s3()?.put(BUCKET, &format!("{index}"), body(index, 4 * MIB))?.expect(200))
            })
            .collect();
        puts.into_iter().try_for_each(|put| put.join().map_err(|_| anyhow::anyhow!("a client panicked"))?.map(drop))
    })
}

#[test]
fn a_client_that_stalls_in_its_body_leaves_nothing() -> Result<()> {
    let (s3d, mut s3) = bucket_with(impatient())?;
    let mut stalled: Vec<Connection> =
        (0..16).map(|index| half_a_put(&s3, &format!("stalled-{index}"), "")).collect::<Result<_>>()?;
    expect_closed(&mut stalled)?;
    nothing_is_left(&s3d, &mut s3)
}

#[test]
fn a_client_that_dies_in_its_body_leaves_nothing() -> Result<()> {
    let (s3d, mut s3) = bucket_with(impatient())?;
    for round in 0..20 {
        let dying: Vec<Connection> =
            (0..8).map(|index| half_a_put(&s3, &format!("{round}-{index}"), "")).collect::<Result<_>>()?;
        drop(dying);
    }
    nothing_is_left(&s3d, &mut s3)
}

#[test]
fn a_client_that_dies_in_a_part_leaves_nothing() -> Result<()> {
    let (s3d, mut s3) = bucket_with(impatient())?;
    let created = s3.call(s3.request("POST", BUCKET, "parts", "uploads", ""))?.expect(200)?;
    let upload = element(&created.text(), "UploadId").context("no UploadId")?;
    for number in 1..=40 {
        drop(half_a_put(&s3, "parts", &format!("partNumber={number}&uploadId={upload}"))?);
    }
    wait_until_no_chunk(&s3d)?;
    let parts = s3.call(s3.request("GET", BUCKET, "parts", &format!("uploadId={upload}"), ""))?.expect(200)?.text();
    ensure!(elements(&parts, "Part").is_empty(), "a part that was never whole is listed: {parts}");
    nothing_is_left(&s3d, &mut s3)
}

#[test]
fn a_reader_that_stops_reading_costs_no_memory() -> Result<()> {
    let (s3d, mut s3) = bucket_with(impatient())?;
    let bytes = body(9, 24 * MIB);
    s3.put(BUCKET, "large", bytes.clone())?.expect(200)?;
    let before = s3d.rss_bytes()?;
    let mut request = s3.request("GET", BUCKET, "large", "", "");
    s3.signer.sign(&mut request);
    let mut readers = Vec::new();
    for _ in 0..40 {
        let mut connection = s3d.endpoint()?.connect()?;
        connection.write(&request.head())?;
        ensure!(connection.response_head()?.status == 200);
        readers.push(connection);
    }
    let grown = s3d.rss_bytes()?.saturating_sub(before);
    ensure!(grown < 96 * MIB as u64, "40 readers that do not read hold {} MiB", grown / MIB as u64);
    drop(readers);
    s3.expect_body(BUCKET, "large", &bytes)
}
