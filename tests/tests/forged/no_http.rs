//! Bytes that are no HTTP: the server refuses or hangs up, and goes on serving.

use anyhow::{Result, ensure};
use predastore_tests::random::Rng;
use predastore_tests::s3d::{Config, S3d};

#[test]
fn what_is_no_http_is_refused() -> Result<()> {
    let mut rng = Rng::for_test("what_is_no_http");
    let s3d = S3d::start(Config::default().plain())?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket("safe")?;
    let mut texts: Vec<Vec<u8>> = [
        "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        "GET /\r\n\r\n",
        "\r\n\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "G\0T / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        "GET / HTTP/1.1\r\nHost x\r\n\r\n",
        "PUT /safe/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "PUT /safe/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "PUT /safe/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        "PUT /safe/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET http://elsewhere/safe/a HTTP/1.1\r\nHost: x\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    texts.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    texts.extend((0..100).map(|_| {
        let mut noise = vec![0; 1 + rng.below(300) as usize];
        rng.fill(&mut noise);
        noise.extend(b"\r\n\r\n");
        noise
    }));
    for text in texts {
        let mut connection = s3d.endpoint()?.connect()?;
        let _ = connection.write(&text);
        let _ = connection.finish_sending();
        if let Ok(answer) = connection.response("GET") {
            ensure!(
                (400..506).contains(&answer.status) && answer.status != 500,
                "{}: {}",
                answer.status,
                text.escape_ascii()
            );
        }
    }
    ensure!(s3.list("safe")?.is_empty(), "something was stored");
    Ok(())
}
