//! A small blocking HTTP/1.1 client that sends exactly what it is told, also what no client would send.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use md5::{Digest, Md5};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::netns::Namespace;

/// How long a read or write may take before the test is failed.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Where a server listens, and whom to trust.
#[derive(Clone)]
pub struct Endpoint {
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// The client side of TLS; none: plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
    /// The host whose 127.0.0.1 that is; none: this one.
    pub namespace: Option<Namespace>,
    /// How long a read or a write may take.
    pub timeout: Duration,
}

impl Endpoint {
    /// Plain HTTP on `port`.
    pub fn plain(port: u16) -> Endpoint {
        Endpoint { port, tls: None, namespace: None, timeout: TIMEOUT }
    }

    /// TLS on `port`, trusting only the certificates of the PEM file `ca`.
    ///
    /// # Errors
    /// When the file cannot be read or holds no certificate.
    pub fn tls(port: u16, ca: &Path) -> Result<Endpoint> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).with_context(|| format!("no CA in {}", ca.display()))? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Endpoint { tls: Some(Arc::new(config)), ..Endpoint::plain(port) })
    }

    /// The same port of the loopback interface of `namespace`, if there is one.
    #[must_use]
    pub fn inside(self, namespace: Option<&Namespace>) -> Endpoint {
        Endpoint { namespace: namespace.cloned(), ..self }
    }

    /// Gives up a read or a write after `timeout`.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Endpoint {
        Endpoint { timeout, ..self }
    }

    /// What belongs into the Host header.
    pub fn authority(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// `https://localhost:port` or `http://…`.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.authority())
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When nobody listens or the TLS handshake fails.
    pub fn connect(&self) -> Result<Connection> {
        let tcp = self.connect_tcp().context("cannot connect")?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(self.timeout))?;
        tcp.set_write_timeout(Some(self.timeout))?;
        let control = tcp.try_clone()?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(config) => {
                let client = ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?;
                let mut stream = StreamOwned::new(client, tcp);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock).context("no TLS handshake")?;
                }
                Box::new(stream)
            }
        };
        Ok(Connection { stream, control, received: Vec::new() })
    }

    /// Opens a connection and sends the head of `request`, which must say `Expect: 100-continue`. Comes back once its body is
    /// asked for: the head has been decided upon.
    ///
    /// # Errors
    /// When the connection breaks, or the request is answered without its body.
    pub fn begin(&self, request: &Request) -> Result<Connection> {
        let mut connection = self.connect()?;
        connection.write(&request.head())?;
        let interim = connection.response_head()?;
        if interim.status != 100 {
            bail!("{} before the body", interim.status);
        }
        Ok(connection)
    }

    /// Opens a TCP connection.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect_tcp(&self) -> Result<TcpStream> {
        let connect = || TcpStream::connect(("127.0.0.1", self.port));
        Ok(match &self.namespace {
            None => connect()?,
            Some(namespace) => namespace.run(connect)??,
        })
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A request, sent as it stands: nothing is added but what the fields say.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method, any token.
    pub method: String,
    /// The request target as it goes on the wire: encoded path, then `?query`.
    pub target: String,
    /// Header fields in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A request with a body and no header yet.
    pub fn new(method: &str, target: &str, body: impl Into<Vec<u8>>) -> Request {
        Request { method: method.into(), target: target.into(), headers: Vec::new(), body: body.into() }
    }

    /// With the MD5 of its body, which S3 wants of some.
    pub fn with_md5(self) -> Request {
        let digest = base64::engine::general_purpose::STANDARD.encode(Md5::digest(&self.body));
        self.header("Content-MD5", digest)
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Replaces (or adds) a header field.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.into(), value.into()));
    }

    /// The first field of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The head as it goes on the wire; a Content-Length is added where there is a body and no framing.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let framed = self.get("content-length").is_some() || self.get("transfer-encoding").is_some();
        if !framed && (!self.body.is_empty() || matches!(self.method.as_str(), "PUT" | "POST")) {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// A response, read whole.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields in order.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

impl Response {
    /// The first field of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The S3 error code of the body, or nothing.
    pub fn code(&self) -> String {
        crate::s3::element(&self.text(), "Code").unwrap_or_default()
    }

    /// Fails unless the status is `status`.
    ///
    /// # Errors
    /// With status, headers and body.
    pub fn expect(self, status: u16) -> Result<Response> {
        if self.status != status {
            bail!("expected {status}, got {} {:?}\n{}", self.status, self.headers, self.text());
        }
        Ok(self)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// One connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    control: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    /// Sends `request` and reads its response. `Expect: 100-continue` is not waited for; interim responses are skipped.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is not HTTP.
    pub fn call(&mut self, request: &Request) -> Result<Response> {
        let mut bytes = request.head();
        bytes.extend_from_slice(&request.body);
        let sent = self.write(&bytes);
        // A server may refuse before it has read everything: its answer counts more than the broken pipe.
        self.response(&request.method).map_err(|error| sent.err().map_or(error, |sent| sent.context("while sending")))
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)?;
        Ok(self.stream.flush()?)
    }

    /// Sets the time-out of reads.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn set_read_timeout(&mut self, timeout: Duration) -> Result<()> {
        Ok(self.control.set_read_timeout(Some(timeout))?)
    }

    /// Says that nothing more will be sent; reading goes on.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn finish_sending(&mut self) -> Result<()> {
        Ok(self.control.shutdown(std::net::Shutdown::Write)?)
    }

    /// Reads one final response to a request with `method`.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is not HTTP.
    pub fn response(&mut self, method: &str) -> Result<Response> {
        loop {
            let mut response = self.response_head()?;
            if (100..200).contains(&response.status) {
                continue;
            }
            if method != "HEAD" && !matches!(response.status, 204 | 304) {
                response.body = self.body_of(&response)?;
            }
            return Ok(response);
        }
    }

    /// Reads one response head, interim ones (1xx) included.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is not HTTP.
    pub fn response_head(&mut self) -> Result<Response> {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().context("no response")?;
        };
        let head: Vec<u8> = self.received.drain(..end).collect();
        parse_head(&String::from_utf8_lossy(&head))
    }

    /// Whether the other side closes within the read time-out; what it sends before is dropped.
    pub fn is_closed_by_peer(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match read_some(&mut self.stream, &mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        }
    }

    fn body_of(&mut self, response: &Response) -> Result<Vec<u8>> {
        if response.get("transfer-encoding").is_some() {
            return self.chunked();
        }
        match response.get("content-length") {
            Some(length) => self.take(length.parse().context("a Content-Length that is no number")?),
            None => self.rest(),
        }
    }

    fn chunked(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let len = usize::from_str_radix(line.split(';').next().unwrap_or(&line).trim(), 16)?;
            body.extend(self.take(len)?);
            self.line()?;
            if len == 0 {
                return Ok(body);
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(at) = self.received.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill()?;
        }
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        self.received.reserve(len.saturating_sub(self.received.len()));
        while self.received.len() < len {
            self.fill().with_context(|| format!("the body ends at {} of {len} bytes", self.received.len()))?;
        }
        let rest = self.received.split_off(len);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    fn rest(&mut self) -> Result<Vec<u8>> {
        while self.fill().is_ok() {}
        Ok(std::mem::take(&mut self.received))
    }

    fn fill(&mut self) -> Result<()> {
        let mut buffer = [0; 64 << 10];
        let count = read_some(&mut self.stream, &mut buffer)?;
        if count == 0 {
            bail!("the connection was closed");
        }
        self.received.extend_from_slice(&buffer[..count]);
        Ok(())
    }
}

/// Reads what is there. A socket with a time-out is interrupted when its process was stopped and goes on, whatever the signals.
fn read_some(stream: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

fn parse_head(head: &str) -> Result<Response> {
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("no status in {status_line:?}"))?;
    let fields = lines.filter_map(|line| line.split_once(':'));
    let headers = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    Ok(Response { status, headers, body: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answer(bytes: &'static [u8], method: &str) -> Result<Response> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let server = std::thread::spawn(move || -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            let _ = stream.read(&mut [0; 4096])?;
            Ok(stream.write_all(bytes)?)
        });
        let response = Endpoint::plain(port).connect()?.call(&Request::new(method, "/", ""));
        server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
        response
    }

    #[test]
    fn bodies_are_unframed() -> Result<()> {
        let chunked = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(answer(chunked, "GET")?.body, b"abcde");
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabXX", "GET")?.body, b"ab");
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD")?.get("content-length"), Some("9"));
        assert!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "GET").is_err());
        Ok(())
    }
}
