//! Who a process is to its peers, and how it proves it: mutual TLS 1.3 under an authority that all of the cluster derive
//! from one secret, or that vouched for each node when it joined ([`Papers`]).
//!
//! ```text
//! secret --HKDF-SHA256--> the authority's Ed25519 key, the same on every node
//!                     \-> further keys by label: Secret::derive
//! leaf: a key pair of the process's own, made at its start and never stored; signed by the authority. Its subject
//!       alternative names are what the process is: predastore://db/1, predastore://shard/1, predastore://gateway/2
//! ```
//!
//! Invariants
//! - Whoever has the secret is a member of the cluster, as any node it likes to be: one domain of trust. Where nodes join,
//!   the secret makes nobody a member: the authority's key does, and a node is what its papers name.
//! - The end of a certificate is honoured, but ours have none (9999-12-31, RFC 5280 section 4.1.2.5) and begin in 1970:
//!   a clock that is wrong by hours or by decades does not part a node from its peers.
//! - No session is resumed and no early data is taken: each connection proves both sides anew.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{hkdf, signature::Ed25519KeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SignatureAlgorithm, SigningKey,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme, version::TLS13};
use time::OffsetDateTime;
use time::macros::datetime;

use super::{Peer, Role};
use crate::env::Clock;
use crate::ids::NodeId;

/// The protocol both sides must speak.
pub const ALPN: &[u8] = b"predastore/1";
/// Shortest secret, bytes.
pub const SECRET_MIN_BYTES: usize = 32;
/// Fewest different bytes of a secret: 32 random hexadecimal digits have less only once in millions.
const SECRET_MIN_DISTINCT: usize = 8;

const ED25519_PUBLIC_KEY_BYTES: usize = 32;

const SALT: &[u8] = b"predastore cluster secret 1";
const NOT_BEFORE: OffsetDateTime = datetime!(1970-01-01 0:00 UTC);
const NOT_AFTER: OffsetDateTime = datetime!(9999-12-31 23:59:59 UTC);

/// A secret that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecretError {
    /// Too short.
    #[error("the cluster secret has {0} bytes; it needs at least {SECRET_MIN_BYTES}, as of `openssl rand -hex 32`")]
    Short(usize),
    /// Long enough, but always the same.
    #[error("the cluster secret has only {0} different bytes: it is not random")]
    Monotonous(usize),
}

/// A certificate could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Made.
    #[error("a certificate was not made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Used.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Verified.
    #[error("TLS: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The provider has no cipher that QUIC needs.
    #[error("TLS: {0}")]
    Cipher(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// What all nodes of a cluster know and nobody else does.
#[derive(Clone)]
pub struct Secret {
    prk: hkdf::Prk,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// The secret that a file holds. White space around a text does not count.
    ///
    /// # Errors
    /// It is too short, or plainly not random.
    pub fn new(content: &[u8]) -> Result<Secret, SecretError> {
        let text = content.trim_ascii();
        let is_text = text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        let secret = if is_text { text } else { content };
        if secret.len() < SECRET_MIN_BYTES {
            return Err(SecretError::Short(secret.len()));
        }
        let distinct = secret.iter().collect::<BTreeSet<_>>().len();
        if distinct < SECRET_MIN_DISTINCT {
            return Err(SecretError::Monotonous(distinct));
        }
        Ok(Secret { prk: hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(secret) })
    }

    /// A key of its own for each `label`, the same on every node.
    pub fn derive(&self, label: &str) -> [u8; 32] {
        self.expand(&[b"key ", label.as_bytes()])
    }

    fn expand(&self, info: &[&[u8]]) -> [u8; 32] {
        let mut key = [0; 32];
        let filled = self.prk.expand(info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut key));
        assert!(filled.is_ok(), "HKDF gives up to 255 times what is asked for");
        key
    }
}

/// Signs what the nodes of a cluster are.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn of(secret: &Secret) -> Result<Authority, IdentityError> {
        let key = Ed25519KeyPair::from_seed_unchecked(&secret.expand(&[b"authority ed25519"]));
        let pkcs8 = key.ok().and_then(|key| key.to_pkcs8v1().ok()).ok_or(rcgen::Error::KeyGenerationUnavailable)?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8.as_ref()), &PKCS_ED25519)?;
        let mut params = params("Predastore cluster", (NOT_BEFORE, NOT_AFTER));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Authority { issuer: Issuer::new(params, key), certificate })
    }

    /// A leaf for whoever is `peers`, and its key.
    fn sign(&self, peers: &[Peer], life: (OffsetDateTime, OffsetDateTime)) -> Result<Leaf, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = node_params(peers, life)?.signed_by(&key, &self.issuer)?.der().clone();
        Ok(Leaf { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()) })
    }
}

/// Of a leaf for whoever is `peers`.
fn node_params(peers: &[Peer], life: (OffsetDateTime, OffsetDateTime)) -> Result<CertificateParams, IdentityError> {
    let mut params = params("Predastore node", life);
    let names = peers.iter().map(|peer| uri(*peer).try_into().map(SanType::URI));
    params.subject_alt_names = names.collect::<Result<_, _>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn params(name: &str, (not_before, not_after): (OffsetDateTime, OffsetDateTime)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (not_before, not_after);
    params
}

struct Leaf {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

/// What a node of a cluster without a common authority's key was given when it joined, DER: its certificate, the key that
/// belongs to it, and the certificate of the authority that vouches for all nodes.
#[derive(Clone)]
pub struct Papers {
    /// The authority's certificate.
    pub authority: Vec<u8>,
    /// The node's.
    pub certificate: Vec<u8>,
    /// The node's key, PKCS #8.
    pub key: Vec<u8>,
}

impl fmt::Debug for Papers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Papers(..)")
    }
}

/// A key pair for a node that is to join: the key, PKCS #8, and its public half.
///
/// # Errors
/// There is no randomness.
pub fn fresh_node_key() -> Result<(Vec<u8>, Vec<u8>), IdentityError> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    Ok((key.serialize_der(), key.public_key_raw().to_vec()))
}

/// The public half of a key pair that somebody else has.
pub struct PublicKey<'a> {
    /// Raw.
    pub bytes: &'a [u8],
    /// Of what kind.
    pub algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for PublicKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// A certificate, DER, for the node that is `peers` and has the other half of `public_key` ([`fresh_node_key`]), by an
/// authority whose certificates are as good for HTTPS: those name no nodes.
///
/// # Errors
/// `public_key` is none.
pub fn vouch(
    issuer: &Issuer<'_, impl SigningKey>,
    public_key: &[u8],
    peers: &[Peer],
) -> Result<CertificateDer<'static>, IdentityError> {
    if public_key.len() != ED25519_PUBLIC_KEY_BYTES {
        return Err(rcgen::Error::KeyGenerationUnavailable.into());
    }
    let params = node_params(peers, (NOT_BEFORE, NOT_AFTER))?;
    let key = PublicKey { bytes: public_key, algorithm: &PKCS_ED25519 };
    Ok(params.signed_by(&key, issuer)?.der().clone())
}

/// Who this process is, with its proof.
pub struct Identity {
    peers: Arc<[Peer]>,
    authority: CertificateDer<'static>,
    leaf: Leaf,
    reset_key: [u8; 32],
    clock: Arc<dyn Clock>,
}

impl Identity {
    /// The identity of a process that is `peers`, with a key pair of its own.
    ///
    /// # Errors
    /// The key pair or its certificate cannot be made.
    pub fn mint(secret: &Secret, peers: &[Peer], clock: Arc<dyn Clock>) -> Result<Identity, IdentityError> {
        Identity::mint_for(secret, peers, clock, (NOT_BEFORE, NOT_AFTER))
    }

    pub(super) fn mint_for(
        secret: &Secret,
        peers: &[Peer],
        clock: Arc<dyn Clock>,
        life: (OffsetDateTime, OffsetDateTime),
    ) -> Result<Identity, IdentityError> {
        let authority = Authority::of(secret)?;
        let leaf = authority.sign(peers, life)?;
        let reset_key = reset_key(secret, peers);
        Ok(Identity { peers: peers.into(), authority: authority.certificate, leaf, reset_key, clock })
    }

    /// The identity that `papers` prove: its process is the nodes that the certificate names.
    pub fn given(papers: &Papers, secret: &Secret, clock: Arc<dyn Clock>) -> Identity {
        let certificate = CertificateDer::from(papers.certificate.clone());
        let peers = named_peers(&certificate);
        let reset_key = reset_key(secret, &peers);
        let leaf = Leaf { certificate, key: PrivatePkcs8KeyDer::from(papers.key.clone()) };
        let authority = CertificateDer::from(papers.authority.clone());
        Identity { peers: peers.into(), authority, leaf, reset_key, clock }
    }

    /// The same proof of a process that calls and serves nothing: it reaches the nodes that it is named for, too.
    pub fn calling_only(self) -> Identity {
        Identity { peers: Arc::default(), ..self }
    }

    /// What this process is.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    pub(super) fn shared_peers(&self) -> Arc<[Peer]> {
        Arc::clone(&self.peers)
    }

    /// Signs the packets by which a process that was started again tells its peers that their connections are gone.
    pub(super) fn reset_key(&self) -> [u8; 32] {
        self.reset_key
    }

    /// TLS of the accepting side.
    pub(super) fn server_config(&self) -> Result<ServerConfig, IdentityError> {
        let provider = provider();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), Arc::clone(&provider)).build()?;
        let mut config = ServerConfig::builder_with_details(provider, self.time())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.leaf.certificate.clone()], self.key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// TLS of the dialling side. Whether the server is the node that was meant is [`proven_peers`]'s to tell.
    pub(super) fn client_config(&self) -> Result<ClientConfig, IdentityError> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(Members { roots: self.roots()?, algorithms });
        let mut config = ClientConfig::builder_with_details(provider, self.time())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(vec![self.leaf.certificate.clone()], self.key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, IdentityError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone())?;
        Ok(roots)
    }

    fn time(&self) -> Arc<dyn TimeProvider> {
        Arc::new(Time(Arc::clone(&self.clock)))
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        self.leaf.key.clone_key().into()
    }
}

/// Of these nodes alone: were it the cluster's, one node's packets sent on to another would end its connections.
fn reset_key(secret: &Secret, peers: &[Peer]) -> [u8; 32] {
    let names: Vec<String> = peers.iter().map(|peer| uri(*peer)).collect();
    secret.expand(&[b"stateless reset ", names.join(" ").as_bytes()])
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

struct Time(Arc<dyn Clock>);

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().seconds()).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Takes any member of the cluster for a server, whatever it is called.
#[derive(Debug)]
struct Members {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Members {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What the other side of an established connection has proven to be.
pub(super) fn proven_peers(connection: &quinn::Connection) -> Vec<Peer> {
    let identity = connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'_>>>().ok());
    identity.and_then(|chain| chain.first().map(named_peers)).unwrap_or_default()
}

/// The nodes that a certificate names. Names that are not of ours are not looked at: a later version may have more.
fn named_peers(certificate: &CertificateDer<'_>) -> Vec<Peer> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    certificate.valid_uri_names().filter_map(peer_of_uri).collect()
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Db => "db",
        Role::Shard => "shard",
        Role::Gateway => "gateway",
    }
}

fn uri(peer: Peer) -> String {
    format!("predastore://{}/{}", role_name(peer.role), peer.id)
}

fn peer_of_uri(text: &str) -> Option<Peer> {
    let (role, id) = text.strip_prefix("predastore://")?.split_once('/')?;
    let role = [Role::Db, Role::Shard, Role::Gateway].into_iter().find(|known| role_name(*known) == role)?;
    let peer = Peer { role, id: NodeId(id.parse().ok()?) };
    (uri(peer) == text).then_some(peer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::env::Env;

    const TEXT: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn peer(role: Role, id: u64) -> Peer {
        Peer { role, id: NodeId(id) }
    }

    #[test]
    fn a_secret_must_be_long_and_not_monotonous() {
        assert_eq!(Secret::new(b"").unwrap_err(), SecretError::Short(0));
        assert_eq!(Secret::new(&TEXT[1..]).unwrap_err(), SecretError::Short(31));
        assert_eq!(Secret::new(&[b" ", &TEXT[1..], b"\n"].concat()).unwrap_err(), SecretError::Short(31));
        assert_eq!(Secret::new(&[b'x'; 64]).unwrap_err(), SecretError::Monotonous(1));
        assert_eq!(Secret::new(&[0; 64]).unwrap_err(), SecretError::Monotonous(1));
        assert_eq!(format!("{:?}", Secret::new(TEXT).unwrap()), "Secret(..)");
        // Binary content may end like a line.
        let binary: Vec<u8> = (0..31).map(|n| n * 8).chain([b'\n']).collect();
        assert!(Secret::new(&binary).is_ok());
    }

    #[test]
    fn keys_are_what_they_were_and_each_its_own() {
        let secret = Secret::new(TEXT).unwrap();
        let hex = |key: [u8; 32]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(secret.derive("test")), "4b62c6baae2f53d51503d7ecd102fd8596d602e28083a0d4e3edddb4b77dc05f");
        assert_eq!(secret.derive("test"), Secret::new(&[TEXT, b"\r\n"].concat()).unwrap().derive("test"));
        assert_ne!(secret.derive("test"), secret.derive("other"));
        assert_ne!(secret.derive("test"), Secret::new(&[TEXT, b"!"].concat()).unwrap().derive("test"));
    }

    #[test]
    fn all_nodes_derive_the_same_authority_and_each_has_its_own_leaf() {
        let secret = Secret::new(TEXT).unwrap();
        let mint = |id| Identity::mint(&secret, &[peer(Role::Db, id)], Env::system().clock).unwrap();
        let (one, two) = (mint(1), mint(2));
        assert_eq!(one.authority, two.authority);
        assert_ne!(one.leaf.certificate, mint(1).leaf.certificate);
        assert_ne!(one.reset_key, two.reset_key);
        assert_eq!(one.reset_key, mint(1).reset_key);
    }

    #[test]
    fn a_certificate_names_all_that_its_process_is() {
        let peers = [peer(Role::Db, 1), peer(Role::Shard, 0), peer(Role::Gateway, u64::MAX)];
        let identity = Identity::mint(&Secret::new(TEXT).unwrap(), &peers, Env::system().clock).unwrap();
        assert_eq!(named_peers(&identity.leaf.certificate), peers);
        assert_eq!(named_peers(&CertificateDer::from(&b"no certificate"[..])), []);
    }

    #[test]
    fn papers_prove_what_their_authority_vouched_for() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = params("Predastore authority", (NOT_BEFORE, NOT_AFTER));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority = params.self_signed(&key).unwrap().der().to_vec();
        let issuer = Issuer::new(params, key);
        let peers = [peer(Role::Db, 2), peer(Role::Shard, 2)];
        let (own_key, public) = fresh_node_key().unwrap();
        let certificate = vouch(&issuer, &public, &peers).unwrap().to_vec();
        assert!(vouch(&issuer, &public[1..], &peers).is_err());
        let papers = Papers { authority, certificate, key: own_key };
        let identity = Identity::given(&papers, &Secret::new(TEXT).unwrap(), Env::system().clock);
        assert_eq!(identity.peers(), peers);
        identity.server_config().unwrap();
        identity.client_config().unwrap();
    }

    #[test]
    fn a_name_has_one_spelling() {
        assert_eq!(peer_of_uri("predastore://shard/12"), Some(peer(Role::Shard, 12)));
        for text in
            ["predastore://shard/012", "predastore://shard/+1", "predastore://king/1", "db/1", "predastore://db"]
        {
            assert_eq!(peer_of_uri(text), None, "{text}");
        }
    }
}
