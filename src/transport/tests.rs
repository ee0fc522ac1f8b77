//! Transports on loopback, and peers that do not keep to the rules.
#![allow(clippy::unwrap_used)]

use std::future::pending;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, join_all};
use futures::{StreamExt, stream};
use proptest::test_runner::{RngAlgorithm, TestRng};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::frame::{Frame, Message, Refusal};
use super::identity::{ALPN, Identity, Secret};
use super::quic::{Endpoints, Settings};
use super::*;
use crate::env::{Clock, Env, Timestamp};

/// Long enough for whatever comes at all; no test waits for it.
const LONG: Duration = Duration::from_secs(60);

const DB: Peer = Peer { role: Role::Db, id: NodeId(1) };
const SHARD: Peer = Peer { role: Role::Shard, id: NodeId(7) };
const GATEWAY: Peer = Peer { role: Role::Gateway, id: NodeId(3) };

const SERVICE: u8 = 9;
/// Sends header and body back.
const ECHO: u16 = 0x0900;
/// Sends as many bytes as its header says, as long as they are taken.
const MAKE: u16 = 0x0901;
/// Never answers.
const HANG: u16 = 0x0902;
/// Takes the body and says how long it was, or that it broke.
const TAKE: u16 = 0x0903;
/// Says who called.
const WHO: u16 = 0x0904;
/// Answers without a look at the body.
const IGNORE: u16 = 0x0905;
/// Announces ten bytes and sends none.
const STALL: u16 = 0x0906;
/// Announces ten bytes and sends nine.
const CHEAT: u16 = 0x0907;
/// Answers when it is let go.
const SLOW: u16 = 0x0908;

const PIECE_BYTES: usize = 64 << 10;

#[derive(Default)]
struct Lab {
    begun: AtomicU64,
    dropped: AtomicU64,
    taken: AtomicU64,
    made_bytes: Arc<AtomicU64>,
    changed: Notify,
    let_go: Notify,
}

impl Lab {
    fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    async fn reaches(&self, counter: &AtomicU64, count: u64) {
        let reached = async {
            loop {
                let changed = self.changed.notified();
                if counter.load(Ordering::SeqCst) >= count {
                    return;
                }
                // A count may have changed just before we asked to be told.
                let _ = timeout(Duration::from_millis(20), changed).await;
            }
        };
        timeout(LONG, reached).await.unwrap();
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }
}

struct Guard<'a>(&'a Lab);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.count(&self.0.dropped);
    }
}

fn reply(header: impl Into<Bytes>, body: Body) -> Reply {
    Reply { status: 0, header: header.into(), body }
}

fn ten(pieces: Vec<Bytes>, and: BodyStream) -> Reply {
    let pieces = stream::iter(pieces.into_iter().map(Ok));
    reply(Bytes::new(), Body { len_bytes: 10, stream: Box::pin(pieces.chain(and)) })
}

impl Service for Lab {
    fn serve<'a>(&'a self, from: &'a [Peer], call: Call) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            self.count(&self.begun);
            match call.method {
                ECHO => reply(call.header, call.body),
                MAKE => {
                    let len_bytes = u64::from_le_bytes(call.header[..].try_into().unwrap());
                    reply(Bytes::new(), zeros(len_bytes, Arc::clone(&self.made_bytes)))
                }
                HANG => {
                    let _guard = Guard(self);
                    pending().await
                }
                TAKE => match length(call.body).await {
                    Ok(len_bytes) => {
                        self.count(&self.taken);
                        reply(len_bytes.to_le_bytes().to_vec(), Body::empty())
                    }
                    Err(_) => Reply { status: 1, header: Bytes::new(), body: Body::empty() },
                },
                WHO => reply(format!("{from:?}"), Body::empty()),
                IGNORE => reply(&b"never mind"[..], Body::empty()),
                STALL => ten(vec![], stream::pending().boxed()),
                CHEAT => ten(vec![Bytes::from_static(b"ninebytes")], stream::empty().boxed()),
                SLOW => {
                    self.let_go.notified().await;
                    reply(&b"at last"[..], Body::empty())
                }
                method => panic!("method {method}"),
            }
        })
    }
}

/// Zeros, made as they are asked for and counted.
fn zeros(len_bytes: u64, made: Arc<AtomicU64>) -> Body {
    static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];
    let stream = stream::unfold(len_bytes, move |left| {
        let piece = left.min(PIECE_BYTES as u64);
        made.fetch_add(piece, Ordering::SeqCst);
        let next = (piece > 0).then(|| (Ok(Bytes::from_static(&ZEROS[..piece as usize])), left - piece));
        async move { next }
    });
    Body { len_bytes, stream: Box::pin(stream) }
}

async fn length(mut body: Body) -> io::Result<u64> {
    let mut len_bytes = 0;
    while let Some(piece) = body.stream.next().await {
        len_bytes += piece?.len() as u64;
    }
    Ok(len_bytes)
}

async fn bytes(mut body: Body) -> io::Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = body.stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes.freeze())
}

fn secret(which: u8) -> Secret {
    Secret::new(format!("0123456789abcdef0123456789abcdef{which}").as_bytes()).unwrap()
}

fn identity(which: u8, peers: &[Peer]) -> Identity {
    Identity::mint(&secret(which), peers, Env::system().clock).unwrap()
}

fn config(identity: Identity, listen: &[&str], book: &[(Peer, SocketAddr)]) -> Config {
    Config {
        identity,
        listen: listen.iter().map(|address| address.parse().unwrap()).collect(),
        book: Arc::new(book.iter().map(|(peer, address)| (*peer, address.to_string())).collect()),
        limits: Limits::default(),
        env: Env::system(),
    }
}

/// A server that is a db and a shard node, and what it serves.
struct Served {
    transport: Transport,
    lab: Arc<Lab>,
    address: SocketAddr,
}

fn serve(config: Config) -> Served {
    let peers = config.identity.peers().to_vec();
    let transport = Transport::start(config).unwrap();
    let lab = Arc::new(Lab::default());
    peers.iter().for_each(|peer| transport.serve(*peer, SERVICE, Arc::clone(&lab) as Arc<dyn Service>));
    let address = transport.addresses()[0];
    Served { transport, lab, address }
}

fn server() -> Served {
    serve(config(identity(1, &[DB, SHARD]), &["127.0.0.1:0"], &[]))
}

fn client_of(address: SocketAddr) -> Transport {
    Transport::start(config(identity(1, &[GATEWAY]), &[], &[(DB, address), (SHARD, address)])).unwrap()
}

fn pair() -> (Served, Transport) {
    let server = server();
    let client = client_of(server.address);
    (server, client)
}

fn call(method: u16, header: impl Into<Bytes>, body: impl Into<Body>) -> Call {
    Call { method, header: header.into(), body: body.into() }
}

fn bare(method: u16) -> Call {
    call(method, Bytes::new(), Bytes::new())
}

async fn ask(client: &Transport, to: Peer, call: Call) -> Result<Reply, CallError> {
    client.call(to, Class::Bulk, call, LONG).await
}

async fn echoes(client: &Transport, text: &str) {
    let reply = ask(client, DB, call(ECHO, text.to_owned(), Bytes::copy_from_slice(text.as_bytes()))).await.unwrap();
    assert_eq!((reply.status, &reply.header[..]), (0, text.as_bytes()));
    assert_eq!(bytes(reply.body).await.unwrap(), text);
}

fn never(outcome: Result<Reply, CallError>, why: &str) {
    match outcome {
        Err(CallError::Never(_, reason)) => assert!(reason.contains(why), "{reason:?} does not say {why:?}"),
        Err(error) => panic!("{error}"),
        Ok(reply) => panic!("an answer: {:?}", reply.header),
    }
}

fn unknown(outcome: Result<Reply, CallError>) {
    assert!(matches!(outcome, Err(CallError::Unknown(..))), "{:?}", outcome.map(|reply| reply.header));
}

/// Random numbers, whose seed is told.
fn random() -> impl FnMut(usize) -> Vec<u8> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).unwrap();
    println!("seed {seed:?}");
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    move |len| {
        let mut bytes = vec![0; len];
        proptest::prelude::Rng::fill_bytes(&mut rng, &mut bytes);
        bytes
    }
}

fn below(random: &mut impl FnMut(usize) -> Vec<u8>, bound: usize) -> usize {
    u32::from_le_bytes(random(4).try_into().unwrap()) as usize % bound
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_comes_back_with_header_and_body() {
    let (server, client) = pair();
    echoes(&client, "").await;
    echoes(&client, "some text").await;
    for class in [Class::Urgent, Class::Bulk] {
        let who = client.call(SHARD, class, bare(WHO), LONG).await.unwrap();
        assert_eq!(who.header, format!("{:?}", [GATEWAY]));
    }
    let stats = client.stats();
    assert_eq!((stats.calls, stats.never, stats.unknown, stats.local_calls), (4, 0, 0, 0));
    assert_eq!(stats.links.len(), 2);
    for link in stats.links {
        assert_eq!((link.connects, link.failures, &link.peers[..]), (1, 0, &[DB, SHARD][..]));
        assert!(link.rtt.is_some_and(|rtt| rtt < LONG) && link.mtu_bytes >= 1200);
    }
    assert_eq!(server.transport.stats().served, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_header_passes_and_a_longer_one_does_not() {
    let (server, client) = pair();
    let mut random = random();
    let header = Bytes::from(random(HEADER_MAX_BYTES));
    let reply = ask(&client, DB, call(ECHO, header.clone(), Bytes::new())).await.unwrap();
    assert!(reply.header == header, "another header");
    let longer = vec![0; HEADER_MAX_BYTES + 1];
    never(ask(&client, DB, call(ECHO, longer, Bytes::new())).await, "header");
    assert_eq!(server.lab.begun(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_are_streamed_with_few_bytes_in_flight() {
    let (_server, client) = pair();
    let (len_bytes, made) = (64 << 20, Arc::new(AtomicU64::new(0)));
    let body = zeros(len_bytes, Arc::clone(&made));
    let mut reply = ask(&client, DB, call(ECHO, Bytes::new(), body)).await.unwrap();
    let (mut read, mut most) = (0, 0);
    while let Some(piece) = reply.body.stream.next().await {
        read += piece.unwrap().len() as u64;
        most = most.max(made.load(Ordering::SeqCst) - read);
    }
    println!("{} KiB in flight at most", most >> 10);
    assert_eq!(read, len_bytes);
    // Twice a stream's window, and what each side may have sent and not heard of.
    assert!(most <= (2 * (4 + 16)) << 20, "{most} bytes in flight");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_stops_its_sender_and_nobody_else() {
    let (server, client) = pair();
    let huge = 1u64 << 40;
    let mut unread = Vec::new();
    for _ in 0..40 {
        unread.push(ask(&client, DB, call(MAKE, huge.to_le_bytes().to_vec(), Bytes::new())).await.unwrap());
    }
    let made = || server.lab.made_bytes.load(Ordering::SeqCst);
    let mut before = 0;
    while made() != before || before == 0 {
        before = made();
        sleep(Duration::from_millis(500)).await;
    }
    println!("{} MiB made for 40 who do not read", made() >> 20);
    assert!(made() <= 40 * (6 << 20), "{} bytes for nobody", made());
    for _ in 0..20 {
        echoes(&client, "meanwhile").await;
    }
    let reply = ask(&client, DB, call(MAKE, (8u64 << 20).to_le_bytes().to_vec(), Bytes::new())).await.unwrap();
    assert_eq!(length(reply.body).await.unwrap(), 8 << 20);
    // Who reads again gets more.
    let mut first = unread.swap_remove(0).body.stream;
    let mut read = 0;
    while read < 16 << 20 {
        read += first.next().await.unwrap().unwrap().len();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_each_get_their_own_answer() {
    let (server, client) = pair();
    let mut random = random();
    let bodies: Vec<Bytes> = (0..1000)
        .map(|_| {
            let len = below(&mut random, 50_000);
            Bytes::from(random(len))
        })
        .collect();
    let calls = bodies.iter().map(|body| async {
        let header = body.slice(..body.len().min(100));
        let reply = ask(&client, SHARD, call(ECHO, header.clone(), body.clone())).await.unwrap();
        assert_eq!(reply.header, header);
        assert!(bytes(reply.body).await.unwrap() == *body, "another body");
    });
    join_all(calls).await;
    assert_eq!(server.lab.begun(), 1000);
    assert_eq!(client.stats().links.iter().map(|link| link.connects).sum::<u64>(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_ends_caller_and_handler() {
    let (server, client) = pair();
    echoes(&client, "connected").await;
    unknown(client.call(DB, Class::Bulk, bare(HANG), Duration::from_millis(300)).await);
    server.lab.reaches(&server.lab.dropped, 1).await;
    let reply = client.call(DB, Class::Bulk, bare(STALL), Duration::from_millis(300)).await.unwrap();
    assert_eq!(reply.body.len_bytes, 10);
    assert_eq!(bytes(reply.body).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    echoes(&client, "alive").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_holds_for_a_handler_whose_caller_does_not_say_goodbye() {
    let server = server();
    let raw = raw(&identity(1, &[GATEWAY]), server.address).await.unwrap();
    let (mut send, _receive) = raw.open_bi().await.unwrap();
    let message = Message::Call { to: DB, class: Class::Bulk, method: HANG, deadline_ms: 200 };
    send.write_all(&Frame::bare(message, 1).encode().unwrap()).await.unwrap();
    send.finish().unwrap();
    server.lab.reaches(&server.lab.dropped, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_takes_the_handler_along() {
    let (server, client) = pair();
    let endless = || zeros(1 << 40, Arc::default());
    for (n, body) in [Body::empty(), Body::from(Bytes::from_static(b"a body")), endless()].into_iter().enumerate() {
        tokio::select! {
            _ = ask(&client, DB, call(HANG, Bytes::new(), body)) => panic!("an answer"),
            () = server.lab.reaches(&server.lab.begun, n as u64 + 1) => {}
        }
        server.lab.reaches(&server.lab.dropped, n as u64 + 1).await;
    }
    // A body that nobody reads to its end stops being made.
    let made = &server.lab.made_bytes;
    drop(ask(&client, DB, call(MAKE, (1u64 << 40).to_le_bytes().to_vec(), Bytes::new())).await.unwrap());
    let mut before = u64::MAX;
    while made.load(Ordering::SeqCst) != before {
        before = made.load(Ordering::SeqCst);
        sleep(Duration::from_millis(100)).await;
    }
    echoes(&client, "alive").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_need_not_take_the_body() {
    let (_server, client) = pair();
    let made = Arc::new(AtomicU64::new(0));
    let reply = ask(&client, DB, call(IGNORE, Bytes::new(), zeros(1 << 40, Arc::clone(&made)))).await.unwrap();
    assert_eq!(reply.header, "never mind");
    assert_eq!(Arc::strong_count(&made), 1, "the body is still being made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_a_body_is_not_taken_for_the_whole() {
    let (server, client) = pair();
    let reply = ask(&client, DB, bare(CHEAT)).await;
    // The reply may have come before its body turned out to be short.
    if let Ok(reply) = reply {
        assert!(bytes(reply.body).await.is_err());
    }
    let broken = stream::iter([Ok(Bytes::from_static(b"half")), Err(io::Error::other("the disk"))]);
    let body = Body { len_bytes: 8, stream: Box::pin(broken) };
    unknown(ask(&client, DB, call(TAKE, Bytes::new(), body)).await);
    let long = stream::iter([Ok(Bytes::from_static(b"more than said"))]);
    let body = Body { len_bytes: 8, stream: Box::pin(long) };
    unknown(ask(&client, DB, call(TAKE, Bytes::new(), body)).await);
    echoes(&client, "alive").await;
    let taken = ask(&client, DB, call(TAKE, Bytes::new(), Bytes::from_static(b"whole"))).await.unwrap();
    assert_eq!(taken.header[..], 5u64.to_le_bytes());
    // The caller's reset drops the handler, or breaks the body that it reads: whichever comes first.
    assert_eq!(server.lab.taken.load(Ordering::SeqCst), 1, "a part was taken for the whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_is_refused_before_it_is_begun() {
    let mut config = config(identity(1, &[DB, SHARD]), &["127.0.0.1:0"], &[]);
    config.limits.bulk_calls = 1;
    let server = serve(config);
    let client = client_of(server.address);
    never(ask(&client, DB, bare(0x0a00)).await, "no such service");
    tokio::select! {
        _ = ask(&client, DB, bare(HANG)) => panic!("an answer"),
        () = async {
            server.lab.reaches(&server.lab.begun, 1).await;
            never(ask(&client, DB, call(ECHO, Bytes::new(), zeros(1 << 40, Arc::default()))).await, "busy");
            assert!(client.call(DB, Class::Urgent, bare(WHO), LONG).await.is_ok(), "urgent calls have room of their own");
        } => {}
    }
    assert_eq!(server.transport.stats().refused, 2);
    // The room is free again once the caller is gone.
    server.lab.reaches(&server.lab.dropped, 1).await;
    while let Err(CallError::Never(..)) = ask(&client, DB, bare(WHO)).await {}
    never(ask(&client, Peer { role: Role::Shard, id: NodeId(8) }, bare(WHO)).await, "address book");
    never(ask(&client, Peer { role: Role::Shard, id: NodeId(u64::MAX) }, bare(WHO)).await, "node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_not_the_one_meant_is_told_nothing() {
    let server = server();
    let meant = [Peer { role: Role::Db, id: NodeId(2) }, Peer { role: Role::Gateway, id: NodeId(1) }];
    let book = meant.map(|peer| (peer, server.address));
    let client = Transport::start(config(identity(1, &[GATEWAY]), &[], &book)).unwrap();
    for peer in meant {
        never(ask(&client, peer, bare(WHO)).await, "not that node");
    }
    assert_eq!(server.lab.begun(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_may_change() {
    let (one, two) = (server(), server());
    let book = Arc::new(AddressBook::default());
    let mut config = config(identity(1, &[GATEWAY]), &["127.0.0.1:0"], &[]);
    config.book = Arc::clone(&book);
    let client = Transport::start(config).unwrap();
    never(ask(&client, DB, bare(WHO)).await, "address book");
    for server in [&one, &two] {
        book.set(DB, format!("localhost:{}", server.address.port()));
        echoes(&client, "here").await;
        assert_eq!(server.lab.begun(), 1);
    }
    assert_eq!(client.stats().links.len(), 1, "nobody is at the first address");
    book.remove(DB);
    never(ask(&client, DB, bare(WHO)).await, "address book");
    book.set(DB, "no-such-host.invalid:1");
    never(ask(&client, DB, bare(WHO)).await, "no-such-host.invalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_answer_costs_no_more_than_the_deadline() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = client_of(silent.local_addr().unwrap());
    let calls = (0..50).map(|_| client.call(DB, Class::Bulk, bare(WHO), Duration::from_millis(300)));
    for outcome in join_all(calls).await {
        never(outcome, "deadline");
    }
    // The dial goes on without them; when it has failed, calls do not wait at all.
    while client.stats().links[0].failures == 0 {
        sleep(Duration::from_millis(50)).await;
    }
    never(ask(&client, DB, bare(WHO)).await, "127.0.0.1");
}

fn life(address: &str) -> (Runtime, Served) {
    let runtime = runtime();
    let server = runtime.block_on(async { serve(config(identity(1, &[DB, SHARD]), &[address], &[])) });
    (runtime, server)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Its tasks end where they are: nobody says goodbye.
fn kill((runtime, server): (Runtime, Served)) {
    runtime.shutdown_timeout(Duration::from_secs(10));
    drop(server);
}

#[test]
fn a_dead_server_is_noticed_long_before_the_deadline() {
    let (runtime, server) = (runtime(), life("127.0.0.1:0"));
    let (address, lab) = (server.1.address, Arc::clone(&server.1.lab));
    let client = runtime.block_on(async { Arc::new(client_of(address)) });
    let caller = Arc::clone(&client);
    let waits = runtime.spawn(async move { caller.call(DB, Class::Bulk, bare(HANG), 100 * LONG).await.map(drop) });
    runtime.block_on(lab.reaches(&lab.begun, 1));
    kill(server);
    // As if its machine were gone: nothing comes back.
    let _silent = UdpSocket::bind(address).unwrap();
    let begun = Instant::now();
    let outcome = runtime.block_on(async { timeout(LONG, waits).await.unwrap().unwrap() });
    println!("noticed after {:?}", begun.elapsed());
    assert!(matches!(outcome, Err(CallError::Unknown(..))));
    runtime.block_on(async { drop(client) });
}

#[test]
fn a_killed_server_is_reached_again_when_it_is_back() {
    let (runtime, mut server) = (runtime(), life("127.0.0.1:0"));
    let address = server.1.address;
    let client = runtime.block_on(async { client_of(address) });
    for round in 0..3 {
        runtime.block_on(echoes(&client, "before"));
        kill(server);
        server = life(&address.to_string());
        let begun = Instant::now();
        runtime.block_on(async {
            while client.call(DB, Class::Bulk, bare(WHO), Duration::from_millis(200)).await.is_err() {
                assert!(begun.elapsed() < LONG, "round {round}: never reached again");
            }
        });
        println!("round {round}: reached again after {:?}", begun.elapsed());
    }
    assert_eq!(client.stats().links[0].connects, 4);
    kill(server);
    runtime.block_on(async { drop(client) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_answers_what_it_has_begun() {
    let (server, client) = pair();
    let (slow, (), ()) = tokio::join!(
        ask(&client, DB, bare(SLOW)),
        async {
            server.lab.reaches(&server.lab.begun, 1).await;
            server.transport.close(LONG).await;
        },
        async {
            server.lab.reaches(&server.lab.begun, 1).await;
            let refused = loop {
                match ask(&client, DB, bare(IGNORE)).await {
                    Ok(_) => continue,
                    outcome => break outcome,
                }
            };
            server.lab.let_go.notify_one();
            never(refused, "ending");
        }
    );
    assert_eq!(slow.unwrap().header, "at last");
    assert!(ask(&client, DB, bare(WHO)).await.is_err());
    assert_eq!(Arc::strong_count(&server.lab), 1, "the services are not forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_services_are_called_directly() {
    let Served { transport, lab, .. } = server();
    let body = Bytes::from(vec![7; 100]);
    let mut back = ask(&transport, DB, call(ECHO, &b"header"[..], body.clone())).await.unwrap();
    assert_eq!(back.header, "header");
    let piece = back.body.stream.next().await.unwrap().unwrap();
    assert_eq!((piece.as_ptr(), piece.len()), (body.as_ptr(), body.len()), "the very bytes");
    assert_eq!(ask(&transport, SHARD, bare(WHO)).await.unwrap().header, format!("{:?}", [DB, SHARD]));
    never(ask(&transport, DB, bare(0x0a00)).await, "no such service");
    never(ask(&transport, DB, call(ECHO, vec![0; HEADER_MAX_BYTES + 1], Bytes::new())).await, "header");
    unknown(transport.call(DB, Class::Urgent, bare(HANG), Duration::from_millis(50)).await);
    assert_eq!(lab.dropped.load(Ordering::SeqCst), 1);
    let stalled = transport.call(DB, Class::Urgent, bare(STALL), Duration::from_millis(50)).await.unwrap();
    assert_eq!(bytes(stalled.body).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    let stats = transport.stats();
    assert_eq!((stats.calls, stats.local_calls, stats.sent_bytes), (0, 5, 0));
    transport.close(LONG).await;
    never(ask(&transport, DB, bare(WHO)).await, "ending");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_panics_costs_its_own_call() {
    let (_server, client) = pair();
    unknown(ask(&client, DB, bare(0x09ff)).await);
    echoes(&client, "alive").await;
}

/// Two nodes, each of which serves and dials from one socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_call_each_other() {
    let other = Peer { role: Role::Db, id: NodeId(2) };
    let books = [(); 2].map(|()| Arc::new(AddressBook::default()));
    let [one, two] = [(DB, &books[0]), (other, &books[1])].map(|(peer, book)| {
        serve(Config { book: Arc::clone(book), ..config(identity(1, &[peer]), &["127.0.0.1:0"], &[]) })
    });
    books[0].set(other, two.address.to_string());
    books[1].set(DB, one.address.to_string());
    let ask_all = async |from: &Served, to: Peer, name: Peer| {
        let calls = join_all((0..100).map(|_| ask(&from.transport, to, bare(WHO)))).await;
        assert!(calls.into_iter().all(|reply| reply.unwrap().header == format!("{:?}", [name])));
    };
    tokio::join!(ask_all(&one, other, DB), ask_all(&two, DB, other));
}

// Who is let in.

struct At(OffsetDateTime);

impl Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(self.0.unix_timestamp())
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

fn identity_at(now: OffsetDateTime, peers: &[Peer]) -> Identity {
    Identity::mint(&secret(1), peers, Arc::new(At(now))).unwrap()
}

fn identity_until(end: OffsetDateTime, peers: &[Peer]) -> Identity {
    Identity::mint_for(&secret(1), peers, Env::system().clock, (datetime!(2001-01-01 0:00 UTC), end)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_clock_parts_nobody() {
    for now in [datetime!(1970-01-01 0:00 UTC), datetime!(2024-02-29 0:00 UTC), datetime!(2199-01-01 0:00 UTC)] {
        let server = serve(config(identity_at(now, &[DB]), &["127.0.0.1:0"], &[]));
        echoes(&client_of(server.address), "from today").await;
        let here = self::server();
        let client = Transport::start(config(identity_at(now, &[GATEWAY]), &[], &[(DB, here.address)])).unwrap();
        echoes(&client, "to today").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_neither_served_nor_believed() {
    let server = server();
    let of_client = |identity| Transport::start(config(identity, &[], &[(DB, server.address)])).unwrap();
    never(ask(&of_client(identity(2, &[GATEWAY])), DB, bare(WHO)).await, "certificate");
    let expired = identity_until(datetime!(2020-01-01 0:00 UTC), &[GATEWAY]);
    never(ask(&of_client(expired), DB, bare(WHO)).await, "xpired");
    let (certificate, key) = foreign_leaf();
    for proof in [None, Some((certificate, key))] {
        let error = raw_with(trusting(proof), server.address).await.unwrap_err();
        assert!(error.to_string().contains("handshake") || error.to_string().contains("certificate"), "{error}");
    }
    assert_eq!(server.lab.begun(), 0);
    assert!(server.transport.stats().rejected >= 3);
    assert_eq!(server.transport.stats().received_bytes, 0);
    echoes(&client_of(server.address), "a member").await;

    let expired = identity_until(datetime!(2020-01-01 0:00 UTC), &[DB]);
    for identity in [expired, identity(2, &[DB])] {
        let stranger = serve(config(identity, &["127.0.0.1:0"], &[]));
        let client = client_of(stranger.address);
        never(ask(&client, DB, call(ECHO, &b"secrets"[..], Bytes::new())).await, "certificate");
        assert_eq!(stranger.lab.begun(), 0);
        assert_eq!(client.stats().sent_bytes, 0);
    }
}

/// Of an authority that is as ours in all but its key.
fn foreign_leaf() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut ca = rcgen::CertificateParams::default();
    ca.distinguished_name = rcgen::DistinguishedName::new();
    ca.distinguished_name.push(rcgen::DnType::CommonName, "Predastore cluster");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::Issuer::new(ca, rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut leaf = rcgen::CertificateParams::default();
    leaf.subject_alt_names = vec![rcgen::SanType::URI("predastore://gateway/3".try_into().unwrap())];
    let certificate = leaf.signed_by(&key, &issuer).unwrap().der().clone();
    (certificate, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

/// Believes any server.
#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        unreachable!()
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ED25519]
    }
}

fn trusting(proof: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>) -> rustls::ClientConfig {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match proof {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// A connection whose streams are ours to fill, once the other side has accepted it.
async fn raw_with(tls: rustls::ClientConfig, address: SocketAddr) -> Result<quinn::Connection, quinn::ConnectionError> {
    let mut settings = Settings::new(&identity(1, &[GATEWAY]), 16).unwrap();
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    settings.client = quinn::ClientConfig::new(Arc::new(crypto));
    accepted(Endpoints::bind(settings, &[]).unwrap().dial(address).unwrap().await?).await
}

async fn raw(identity: &Identity, address: SocketAddr) -> Result<quinn::Connection, quinn::ConnectionError> {
    let settings = Settings::new(identity, 16).unwrap();
    accepted(Endpoints::bind(settings, &[]).unwrap().dial(address).unwrap().await?).await
}

async fn accepted(connection: quinn::Connection) -> Result<quinn::Connection, quinn::ConnectionError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let hello = Frame::bare(Message::Hello, 5).encode().unwrap();
    let _ = send.write_all(&hello).await;
    let _ = send.finish();
    match receive.read_to_end(1000).await {
        Ok(answer) => assert_eq!(answer, hello),
        Err(_) => return Err(connection.closed().await),
    }
    Ok(connection)
}

// Peers that are let in and do not keep to the rules, and noise.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_on_a_stream_harms_only_itself() {
    let (server, client) = pair();
    let connection = raw(&identity(1, &[GATEWAY]), server.address).await.unwrap();
    let mut random = random();
    let good = |method, header_len_bytes, body_len_bytes| {
        let message = Message::Call { to: DB, class: Class::Bulk, method, deadline_ms: 10_000 };
        Frame { message, id: 7, header_len_bytes, body_len_bytes }.encode().unwrap().to_vec()
    };
    for round in 0..400 {
        let (mut send, receive) = connection.open_bi().await.unwrap();
        let bytes = match round % 8 {
            0 => {
                let len = below(&mut random, 300);
                random(len)
            }
            1 => {
                // Nearly right, but for a call that the test's own service would panic at.
                let mut bytes = good(WHO, 0, 0);
                let at = [0, 1, 4, 5, 6, 7, 8, 9, 24, 25, 26, 31][below(&mut random, 12)];
                bytes[at] ^= 1 << below(&mut random, 8);
                bytes
            }
            2 => good(TAKE, HEADER_MAX_BYTES as u32, u64::MAX),
            3 => [good(TAKE, 5, 1 << 60), random(10)].concat(),
            4 => [good(TAKE, 0, 5), random(6)].concat(),
            5 => [good(WHO, 0, 0), random(1)].concat(),
            6 => Frame::bare(Message::Refusal(Refusal::Busy), 1).encode().unwrap().to_vec(),
            _ => good(ECHO, 0, 0)[..31].to_vec(),
        };
        let _ = send.write_all(&bytes).await;
        match below(&mut random, 3) {
            0 => drop(send.finish()),
            1 => drop(send.reset(77u32.into())),
            _ => {}
        }
        drop((send, receive));
        if round % 40 == 0 {
            echoes(&client, "meanwhile").await;
        }
    }
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&good(ECHO, 0, 0)).await.unwrap();
    send.finish().unwrap();
    let answer = receive.read_to_end(1000).await.unwrap();
    assert_eq!(answer, Frame::bare(Message::Reply { status: 0 }, 7).encode().unwrap());
    echoes(&client, "after all").await;
    println!("{} streams were malformed", server.transport.stats().malformed);
    assert!(server.transport.stats().malformed > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_for_another_node_is_refused() {
    let server = server();
    let connection = raw(&identity(1, &[GATEWAY]), server.address).await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let message = Message::Call { to: GATEWAY, class: Class::Bulk, method: WHO, deadline_ms: 10_000 };
    send.write_all(&Frame::bare(message, 4).encode().unwrap()).await.unwrap();
    send.finish().unwrap();
    let refusal = Frame::bare(Message::Refusal(Refusal::NotHere), 4).encode().unwrap();
    assert_eq!(receive.read_to_end(1000).await.unwrap(), refusal);
    assert_eq!(server.lab.begun(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_on_the_socket_is_ignored() {
    let (server, client) = pair();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = random();
    for round in 0..3000 {
        let len = below(&mut random, 1500);
        let mut noise = random(len);
        // Every other begins like a first packet of QUIC version 1.
        if round % 2 == 0 && noise.len() > 5 {
            noise[0] |= 0xc0;
            noise[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        socket.send_to(&noise, server.address).unwrap();
        if round % 300 == 0 {
            echoes(&client, "meanwhile").await;
        }
    }
    echoes(&client, "after all").await;
    echoes(&client_of(server.address), "and anew").await;
}

// Figures.

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn throughput() {
    for is_default in [true, false] {
        let settings = |identity: &Identity| {
            let mut settings = Settings::new(identity, 256).unwrap();
            if is_default {
                settings.client.transport_config(Arc::default());
                settings.server.transport_config(Arc::default());
            }
            settings
        };
        let config = config(identity(1, &[DB]), &["127.0.0.1:0"], &[]);
        let transport = Transport::start_with(settings(&config.identity), config).unwrap();
        transport.serve(DB, SERVICE, Arc::new(Lab::default()));
        let config = self::config(identity(1, &[GATEWAY]), &[], &[(DB, transport.addresses()[0])]);
        let client = Transport::start_with(settings(&config.identity), config).unwrap();
        echoes(&client, "warm").await;
        let gigabyte = 1_000_000_000u64;
        let down = async |streams: u64| {
            let body = (gigabyte / streams).to_le_bytes().to_vec();
            let calls = (0..streams).map(|_| async {
                let reply = ask(&client, DB, call(MAKE, body.clone(), Bytes::new())).await.unwrap();
                length(reply.body).await.unwrap();
            });
            join_all(calls).await;
        };
        let up = async || {
            ask(&client, DB, call(TAKE, Bytes::new(), zeros(gigabyte, Arc::default()))).await.unwrap();
        };
        down(1).await;
        let what = if is_default { "quinn's defaults" } else { "ours" };
        for (way, streams) in [("down", 1), ("down", 8), ("up", 1)] {
            let (begun, cpu) = (Instant::now(), cpu_seconds());
            match way {
                "down" => down(streams).await,
                _ => up().await,
            }
            let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            println!("{what}, {way}, streams {streams}: {:.2} GB/s, {cpu:.2} CPU s/GB both ends", 1.0 / elapsed);
        }
        for at_once in [1, 64] {
            let (begun, cpu, count) = (Instant::now(), cpu_seconds(), 20_000);
            let worker = |_| async {
                for _ in 0..count / at_once {
                    ask(&client, DB, call(ECHO, &b"0123456789abcdef"[..], Bytes::new())).await.unwrap();
                }
            };
            join_all((0..at_once).map(worker)).await;
            let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            println!(
                "{what}, small calls, {at_once} at once: {:.0}/s, {:.0} us CPU each",
                f64::from(count) / elapsed,
                cpu * 1e6 / f64::from(count)
            );
        }
        println!("{:?}", client.stats().links[0]);
    }
}
