//! Connections: accept, TLS, limits and deadlines, draining. What a request means is `app.rs`.
//!
//! A connection costs little until it sends a request, and cannot keep what it holds: the handshake, each request's
//! headers, each wait for body bytes and each wait for a slow reader have deadlines.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// How long a client may take, and how many there may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// From a connection's start, or the end of a response, to the end of the next request's headers.
    pub headers: Duration,
    /// Without any byte of a body that is awaited, or any taken of a response.
    pub stall: Duration,
    /// For requests that run when the server is told to stop.
    pub drain: Duration,
    /// Connections at a time; more wait in the kernel's queue.
    pub connection_count: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            handshake: Duration::from_secs(10),
            headers: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            connection_count: 4096,
        }
    }
}

/// How long connections are still listened to after the server was told to stop: a request that crossed with that is answered.
const CROSSING: Duration = Duration::from_millis(200);

/// The largest request head: line and headers.
const HEAD_MAX_BYTES: usize = 128 << 10;
const HEADER_COUNT_MAX: usize = 256;

const USE_HTTPS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\
    content-length: 49\r\n\r\nThis port speaks HTTPS; the request was in HTTP.\n";

/// Serves `router` on `listener` until `stop` resolves, then lets running requests, and those already sent, end within
/// `limits.drain`.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: axum::Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let (draining, told_to_drain) = watch::channel(());
    let connection = Connection { acceptor: tls.map(TlsAcceptor::from), router, limits: limits.clone(), told_to_drain };
    let places = Arc::new(Semaphore::new(limits.connection_count));
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = accept(&listener, &places) => connection.start(accepted),
            () = &mut stop => break,
        }
    }
    // Closing the listener would reset what waits in its queue.
    while let Ok(accepted @ Some(_)) = timeout(Duration::ZERO, accept(&listener, &places)).await {
        connection.start(accepted);
    }
    drop((listener, connection));
    draining.send_replace(());
    if timeout(limits.drain, draining.closed()).await.is_err() {
        tracing::warn!(seconds = limits.drain.as_secs(), "requests still running after the drain time were cut");
    }
}

type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

/// The next connection that there is a place for; none after an error, which is logged.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<Accepted> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            // Out of descriptors, most likely: give running connections time to end.
            tracing::warn!(%error, "accept failed");
            sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

/// The address of the client, as a request extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What serving a connection needs.
#[derive(Clone)]
struct Connection {
    acceptor: Option<TlsAcceptor>,
    router: axum::Router,
    limits: Limits,
    /// Changes once, when the server stops; which then waits until all of these are gone.
    told_to_drain: watch::Receiver<()>,
}

impl Connection {
    fn start(&self, accepted: Option<Accepted>) {
        let Some((stream, peer, place)) = accepted else { return };
        let connection = self.clone();
        tokio::spawn(async move {
            connection.run(stream, peer).await;
            drop(place);
        });
    }

    async fn run(self, stream: TcpStream, peer: SocketAddr) {
        // Without it, small answers wait 40 ms for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        match self.acceptor.clone() {
            None => {
                let stream = StallGuard::new(stream, self.limits.stall);
                self.speak(stream, peer).await;
            }
            Some(acceptor) => match timeout(self.limits.handshake, self.shake_hands(acceptor, stream)).await {
                Ok(Ok(stream)) => self.speak(stream, peer).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
            },
        }
    }

    /// Whoever speaks plain HTTP where TLS is spoken is told so: to a client it would look like a broken server.
    async fn shake_hands(
        &self,
        acceptor: TlsAcceptor,
        mut stream: TcpStream,
    ) -> io::Result<tokio_rustls::server::TlsStream<StallGuard>> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_alphabetic() {
            stream.write_all(USE_HTTPS).await?;
            stream.shutdown().await?;
            return Err(io::Error::other("the client speaks plain HTTP"));
        }
        acceptor.accept(StallGuard::new(stream, self.limits.stall)).await
    }

    async fn speak<S>(mut self, stream: S, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.layer(axum::Extension(Peer(peer)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.headers)
            .max_buf_size(HEAD_MAX_BYTES)
            .max_headers(HEADER_COUNT_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        tokio::pin!(connection);
        let told_to_drain = async {
            // An error says the same: the server is gone.
            let _ = self.told_to_drain.changed().await;
            sleep(CROSSING).await;
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = told_to_drain => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }
}

/// A stream whose writes fail once the peer has taken nothing for `limit`: a reader that stalls frees what it holds.
struct StallGuard {
    stream: TcpStream,
    limit: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl StallGuard {
    fn new(stream: TcpStream, limit: Duration) -> Self {
        StallGuard { stream, limit, deadline: None }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.deadline = None;
            return polled;
        }
        let limit = self.limit;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for StallGuard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for StallGuard {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, polled)
    }
}
