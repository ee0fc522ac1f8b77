//! One keep-alive HTTP/1.1 connection, written for little work a request: the client shares its processor with the
//! server it measures.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::body::Body;
use crate::sign::{Credentials, Signed, Signer, UNSIGNED};

const READ_BYTES: usize = 256 << 10;
const LINE_MAX_BYTES: usize = 64 << 10;
const HEADERS_MAX: usize = 64;

/// Where to, and as whom.
pub(super) struct Target {
    pub(super) url: String,
    /// Host name without port.
    pub(super) host: String,
    pub(super) port: u16,
    /// As it stands in the `Host` header.
    pub(super) authority: String,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) credentials: Credentials,
    /// Whether bodies are hashed into the signature.
    pub(super) sign_payload: bool,
}

impl Target {
    /// Reads `http[s]://host[:port]`.
    pub(super) fn new(url: &str, credentials: Credentials, tls: Arc<ClientConfig>, sign_payload: bool) -> Result<Self> {
        let url = url.trim_end_matches('/');
        let (tls, default_port, authority) = match url.split_once("://") {
            Some(("https", authority)) => (Some(tls), 443, authority),
            Some(("http", authority)) => (None, 80, authority),
            _ => bail!("{url}: an endpoint is written http://host:port or https://host:port"),
        };
        let authority: http::uri::Authority = authority.parse().with_context(|| url.to_owned())?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(default_port);
        let authority = authority.as_str().to_owned();
        Ok(Target { url: url.to_owned(), host, port, authority, tls, credentials, sign_payload })
    }
}

/// A request without its body.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) method: &'a str,
    /// Canonical as written.
    pub(super) path: &'a str,
    /// Canonical as written, without `?`.
    pub(super) query: &'a str,
    /// Further headers, each with its CRLF.
    pub(super) headers: &'a str,
    pub(super) body: Payload<'a>,
}

/// A request's body.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    None,
    Text(&'a str),
    Noise(Body),
}

impl Payload<'_> {
    fn len_bytes(&self) -> u64 {
        match self {
            Payload::None => 0,
            Payload::Text(text) => text.len() as u64,
            Payload::Noise(body) => body.len_bytes,
        }
    }

    fn piece(&self, offset: u64) -> &[u8] {
        match self {
            Payload::None => &[],
            Payload::Text(text) => text.as_bytes().get(offset as usize..).unwrap_or_default(),
            Payload::Noise(body) => body.piece(offset),
        }
    }

    fn sha256(&self) -> String {
        match self {
            Payload::None => sha256(b""),
            Payload::Text(text) => sha256(text.as_bytes()),
            Payload::Noise(body) => body.sha256(),
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    crate::sign::hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

/// What came back, but for the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// As announced; none when chunked.
    pub(super) content_length: Option<u64>,
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// An open connection. After an error it must be dropped.
pub(super) struct Connection {
    target: Arc<Target>,
    stream: Box<dyn Duplex>,
    signer: Signer,
    head: String,
    out: Vec<u8>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The server will close.
    pub(super) closing: bool,
}

impl Connection {
    pub(super) async fn open(target: Arc<Target>) -> Result<Self> {
        let context = || format!("cannot connect to {}", target.url);
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await.with_context(context)?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Duplex> = match &target.tls {
            None => Box::new(stream),
            Some(config) => {
                let name = ServerName::try_from(target.host.clone())?;
                Box::new(TlsConnector::from(config.clone()).connect(name, stream).await.with_context(context)?)
            }
        };
        Ok(Connection {
            signer: Signer::new(target.credentials.clone()),
            target,
            stream,
            head: String::new(),
            out: Vec::new(),
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            closing: false,
        })
    }

    /// Sends `call` and hands the answer's body to `sink`, run by run.
    ///
    /// # Errors
    /// The connection broke, or what came is no HTTP.
    pub(super) async fn call(&mut self, call: Call<'_>, mut sink: impl FnMut(&[u8])) -> Result<Answer> {
        self.write_request(&call).await.context("sending")?;
        let (answer, chunked) = loop {
            let (answer, chunked) = self.read_head().await?;
            if answer.status >= 200 {
                break (answer, chunked);
            }
        };
        let bodyless = call.method == "HEAD" || answer.status == 204 || answer.status == 304;
        match answer.content_length {
            _ if bodyless => {}
            _ if chunked => self.read_chunks(&mut sink).await?,
            Some(len_bytes) => self.read_run(len_bytes, &mut sink).await?,
            None => bail!("an answer without a length"),
        }
        Ok(answer)
    }

    async fn write_request(&mut self, call: &Call<'_>) -> io::Result<()> {
        self.write_head(call);
        let len_bytes = call.body.len_bytes();
        self.out.clear();
        self.out.extend_from_slice(self.head.as_bytes());
        // A small body leaves with the head: one system call, one TLS record.
        let mut offset = 0;
        let first = call.body.piece(0);
        if first.len() <= 64 << 10 {
            self.out.extend_from_slice(first);
            offset = first.len() as u64;
        }
        self.stream.write_all(&self.out).await?;
        while offset < len_bytes {
            let piece = call.body.piece(offset);
            self.stream.write_all(piece).await?;
            offset += piece.len() as u64;
        }
        self.stream.flush().await
    }

    fn write_head(&mut self, call: &Call<'_>) {
        let Call { method, path, query, headers, body } = *call;
        let host = self.target.authority.as_str();
        let mark = if query.is_empty() { "" } else { "?" };
        self.head.clear();
        for piece in [method, " ", path, mark, query, " HTTP/1.1\r\nhost: ", host, "\r\n", headers] {
            self.head.push_str(piece);
        }
        if !matches!(body, Payload::None) {
            // Writing to a string cannot fail.
            let _ = write!(self.head, "content-length: {}\r\n", body.len_bytes());
        }
        let hash;
        let payload = if self.target.sign_payload {
            hash = body.sha256();
            hash.as_str()
        } else {
            UNSIGNED
        };
        let signed = Signed { method, host, path, query, payload };
        self.signer.append(&mut self.head, OffsetDateTime::now_utc(), signed);
        self.head.push_str("\r\n");
    }

    /// Status, length and whether the body is chunked.
    async fn read_head(&mut self) -> Result<(Answer, bool)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut response = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(len) = response.parse(&self.buffer[self.start..self.end])? {
                let status = response.code.ok_or_else(|| anyhow!("an answer without a status"))?;
                let header = |name: &str| response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
                let is = |name: &str, value: &[u8]| header(name).is_some_and(|h| h.value.eq_ignore_ascii_case(value));
                let length = header("content-length").map(|h| std::str::from_utf8(h.value).map(str::parse));
                let content_length = length.transpose()?.transpose().context("content-length")?;
                let chunked = is("transfer-encoding", b"chunked");
                self.closing |= is("connection", b"close");
                self.start += len;
                return Ok((Answer { status, content_length }, chunked));
            }
            self.fill().await?;
        }
    }

    async fn read_run(&mut self, mut len_bytes: u64, sink: &mut impl FnMut(&[u8])) -> Result<()> {
        while len_bytes > 0 {
            if self.start == self.end {
                self.fill().await?;
            }
            let len = len_bytes.min((self.end - self.start) as u64);
            sink(&self.buffer[self.start..self.start + len as usize]);
            self.start += len as usize;
            len_bytes -= len;
        }
        Ok(())
    }

    async fn read_chunks(&mut self, sink: &mut impl FnMut(&[u8])) -> Result<()> {
        loop {
            let line = self.read_line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            match u64::from_str_radix(size, 16).context("a chunk's size")? {
                0 => break,
                len_bytes => self.read_run(len_bytes, sink).await?,
            }
            self.read_line().await?;
        }
        while !self.read_line().await?.is_empty() {}
        Ok(())
    }

    /// A line without its CRLF.
    async fn read_line(&mut self) -> Result<String> {
        loop {
            let buffered = &self.buffer[self.start..self.end];
            if let Some(len) = memchr::memchr(b'\n', buffered) {
                let line = String::from_utf8_lossy(&buffered[..len]).trim_end().to_owned();
                self.start += len + 1;
                return Ok(line);
            }
            if buffered.len() > LINE_MAX_BYTES {
                bail!("a line without an end");
            }
            self.fill().await?;
        }
    }

    /// Reads more behind what is buffered.
    async fn fill(&mut self) -> Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            bail!("a header longer than {READ_BYTES} bytes");
        }
        match self.stream.read(&mut self.buffer[self.end..]).await.context("receiving")? {
            0 => bail!("the server closed the connection"),
            len => self.end += len,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Secret;
    use tokio::net::TcpListener;

    fn credentials() -> Credentials {
        Credentials { access_key: "AKIA".to_owned(), secret: Secret::new("secret"), region: "r".to_owned() }
    }

    fn tls() -> Arc<ClientConfig> {
        super::super::tls::client(None, true).unwrap()
    }

    /// Answers each of `replies` to one request, cut into pieces of `cut` bytes, and returns what it was asked.
    async fn scripted(replies: Vec<&'static str>, cut: usize) -> (Connection, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut asked = Vec::new();
            for reply in replies {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                asked.push(String::from_utf8(request).unwrap());
                for piece in reply.as_bytes().chunks(cut) {
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            asked
        });
        let target = Target::new(&url, credentials(), tls(), false).unwrap();
        (Connection::open(Arc::new(target)).await.unwrap(), server)
    }

    #[tokio::test]
    async fn answers_of_every_framing_are_read_one_after_another() {
        let replies = vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\na;x=y\r\n0123456789\r\n0\r\nt: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        ];
        for cut in [1, 7, 4096] {
            let (mut connection, server) = scripted(replies.clone(), cut).await;
            let mut seen = Vec::new();
            for method in ["GET", "GET", "HEAD", "DELETE", "GET"] {
                let mut body = String::new();
                let call = Call { method, path: "/b/k", query: "a=1", headers: "", body: Payload::None };
                let answer =
                    connection.call(call, |run| body.push_str(std::str::from_utf8(run).unwrap())).await.unwrap();
                seen.push((answer.status, body));
            }
            let expected = [(200, "hello"), (200, "abc0123456789"), (200, ""), (204, ""), (503, "")];
            assert_eq!(seen, expected.map(|(status, body)| (status, body.to_owned())));
            assert!(connection.closing);
            let asked = server.await.unwrap();
            assert!(asked[0].starts_with("GET /b/k?a=1 HTTP/1.1\r\nhost: 127.0.0.1:"), "{}", asked[0]);
            assert!(asked[0].contains("authorization: AWS4-HMAC-SHA256 Credential=AKIA/"));
        }
    }

    #[tokio::test]
    async fn a_broken_answer_is_an_error() {
        for reply in [
            "SMTP ready\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200",
        ] {
            let (mut connection, server) = scripted(vec![reply], 4096).await;
            let call = Call { method: "GET", path: "/", query: "", headers: "", body: Payload::None };
            assert!(connection.call(call, |_| {}).await.is_err(), "{reply}");
            server.await.unwrap();
        }
    }

    #[test]
    fn endpoints_are_read() {
        let target = |url: &str| Target::new(url, credentials(), tls(), false);
        let (https, v6) = (target("https://localhost:8443/").unwrap(), target("http://[::1]:9000").unwrap());
        assert_eq!((https.host.as_str(), https.port, https.tls.is_some()), ("localhost", 8443, true));
        assert_eq!((v6.host.as_str(), v6.port, v6.authority.as_str()), ("::1", 9000, "[::1]:9000"));
        assert_eq!(target("http://box").unwrap().port, 80);
        assert!(target("localhost:8443").is_err() && target("ftp://x").is_err() && target("http://a b").is_err());
    }
}
