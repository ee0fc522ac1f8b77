//! QUIC as this cluster speaks it: sockets, endpoints, and the settings of connections.
//!
//! Measured on loopback, large packets and windows are 3.2 to 3.5 times quinn's defaults. Packets grow no further than
//! 6500 bytes: quinn hands ten at once to the kernel, which takes 64 KiB.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::identity::{Identity, IdentityError};
use crate::units::MIB;

/// Largest packet to try, bytes.
const MTU_MAX_BYTES: u16 = 6500;
/// Packets are at first so large, and always get through, bytes.
const MTU_BYTES: u16 = 1200;
/// Bytes of one stream that may be under way or unread.
const STREAM_WINDOW_BYTES: u32 = 4 * MIB as u32;
/// Bytes of a connection that may be under way.
const SEND_WINDOW_BYTES: u64 = 16 * MIB;
/// Of the kernel, each way, bytes.
const SOCKET_BUFFER_BYTES: usize = 8 * MIB as usize;
/// A connection on which nothing was heard for so long is dead.
const IDLE_TIMEOUT_MS: u32 = 6_000;
/// An idle connection is asked so often whether it lives.
const KEEP_ALIVE: Duration = Duration::from_millis(1_500);
/// A guess before the first round trip: a lost first packet is sent again after three of them.
const INITIAL_RTT: Duration = Duration::from_millis(50);
/// Handshakes under way, and bytes kept for each, at once.
const HANDSHAKES_MAX: usize = 1024;
const HANDSHAKE_BUFFER_BYTES: u64 = 64 << 10;
/// Bytes of a connection's id.
const CONNECTION_ID_BYTES: usize = 8;

/// Settings of the connections of one process, and its TLS.
pub(super) struct Settings {
    pub(super) client: ClientConfig,
    pub(super) server: ServerConfig,
    reset_key: [u8; 32],
}

impl Settings {
    /// `streams_per_connection`: calls at once that a peer may have under way.
    pub(super) fn new(identity: &Identity, streams_per_connection: u32) -> Result<Settings, IdentityError> {
        let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(identity.client_config()?)?));
        client.transport_config(Arc::new(transport_config(0, streams_per_connection)));
        let crypto = Arc::new(QuicServerConfig::try_from(identity.server_config()?)?);
        let mut server = ServerConfig::with_crypto(crypto);
        server
            .transport_config(Arc::new(transport_config(streams_per_connection, streams_per_connection)))
            .migration(false)
            .max_incoming(HANDSHAKES_MAX)
            .incoming_buffer_size(HANDSHAKE_BUFFER_BYTES)
            .incoming_buffer_size_total(HANDSHAKE_BUFFER_BYTES * HANDSHAKES_MAX as u64);
        Ok(Settings { client, server, reset_key: identity.reset_key() })
    }

    /// An endpoint that listens on `address`. `only_v6`: another socket has the port in IPv4.
    pub(super) fn listen(&self, address: SocketAddr, only_v6: bool) -> io::Result<Endpoint> {
        self.endpoint(Some(self.server.clone()), address, only_v6)
    }

    fn endpoint(&self, server: Option<ServerConfig>, address: SocketAddr, only_v6: bool) -> io::Result<Endpoint> {
        let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.reset_key)));
        config.cid_generator(|| Box::new(RandomIds));
        config.max_udp_payload_size(MTU_MAX_BYTES).map_err(io::Error::other)?;
        Endpoint::new(config, server, bind(address, only_v6)?, Arc::new(TokioRuntime))
    }
}

/// Any id is taken for a connection's. quinn's own generator would know its own only, and so a process that was started
/// again would not tell its peers that the connections of its former life are gone.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        assert!(rand::fill(&mut id).is_ok(), "the operating system gave no randomness");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// `streams`: that the peer may open. `calls`: that either side may have under way.
///
/// The connection's window holds all the streams' windows: who does not read one reply keeps no other from coming. What
/// bounds memory is the number of calls, and their callers.
fn transport_config(streams: u32, calls: u32) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX_BYTES);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES.saturating_mul(calls).min(1 << 30)))
        .send_window(SEND_WINDOW_BYTES)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(MTU_BYTES)
        .mtu_discovery_config(Some(mtu));
    config
}

fn bind(address: SocketAddr, only_v6: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    enlarge_buffers(&socket);
    socket.bind(&SockAddr::from(address))?;
    Ok(socket.into())
}

/// As far as the kernel allows.
fn enlarge_buffers(socket: &Socket) {
    static TOLD: Once = Once::new();
    // Whether it worked is seen by asking.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    // Linux says twice what it gives.
    let received = socket.recv_buffer_size().unwrap_or(0) / 2;
    let sent = socket.send_buffer_size().unwrap_or(0) / 2;
    if received.min(sent) < SOCKET_BUFFER_BYTES {
        TOLD.call_once(|| {
            tracing::info!(
                "the kernel gives UDP sockets buffers of {received} and {sent} bytes, not {SOCKET_BUFFER_BYTES}; \
                 net.core.rmem_max and net.core.wmem_max allow for more"
            );
        });
    }
}

/// The sockets of a process: those it listens on, and others to dial from where they do not reach.
pub(super) struct Endpoints {
    settings: Settings,
    listening: Vec<Endpoint>,
    spare: Mutex<Vec<Endpoint>>,
}

impl Endpoints {
    /// Binds each of `addresses`; port 0 is any.
    pub(super) fn bind(settings: Settings, addresses: &[SocketAddr]) -> io::Result<Endpoints> {
        let in_v4 = |port| port != 0 && addresses.iter().any(|address| address.is_ipv4() && address.port() == port);
        let listen = |address: &SocketAddr| settings.listen(*address, in_v4(address.port()));
        let listening = addresses.iter().map(listen).collect::<io::Result<_>>()?;
        Ok(Endpoints { settings, listening, spare: Mutex::default() })
    }

    pub(super) fn listening(&self) -> &[Endpoint] {
        &self.listening
    }

    /// Begins to dial `address`, from a socket that we listen on if one reaches it.
    pub(super) fn dial(&self, address: SocketAddr) -> io::Result<quinn::Connecting> {
        let endpoint = match self.listening.iter().find(|endpoint| reaches(endpoint, address)) {
            Some(endpoint) => endpoint.clone(),
            None => self.spare(address)?,
        };
        // The name is not looked at: what counts is what the certificate proves.
        let dialled = endpoint.connect_with(self.settings.client.clone(), address, "predastore");
        dialled.map_err(io::Error::other)
    }

    fn spare(&self, address: SocketAddr) -> io::Result<Endpoint> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = spare.iter().find(|endpoint| reaches(endpoint, address)) {
            return Ok(endpoint.clone());
        }
        let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let endpoint = self.settings.endpoint(None, (any, 0).into(), true)?;
        spare.push(endpoint.clone());
        Ok(endpoint)
    }

    fn all(&self) -> Vec<Endpoint> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        self.listening.iter().chain(spare.iter()).cloned().collect()
    }

    /// Ends all connections now; says so to the peers.
    pub(super) fn close(&self) {
        for endpoint in self.all() {
            endpoint.close(VarInt::from_u32(0), b"the process ends");
        }
    }

    /// Ends when the peers have been told.
    pub(super) async fn closed(&self) {
        for endpoint in self.all() {
            endpoint.wait_idle().await;
        }
    }
}

/// Whether packets from the endpoint's socket get to `address`, as far as can be told from its own address.
fn reaches(endpoint: &Endpoint, address: SocketAddr) -> bool {
    let own = endpoint.local_addr().ok().map(|own| own.ip());
    own.is_some_and(|own| {
        own.is_ipv4() == address.is_ipv4() && (own.is_unspecified() || own.is_loopback() == address.ip().is_loopback())
    })
}
