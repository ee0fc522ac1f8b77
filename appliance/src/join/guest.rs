//! The side that joins: asks the box that a token names, and believes it only if it is of the token's authority.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::digest;
use predastore::transport::identity::{Papers, fresh_node_key};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::PORT;
use super::host::LEVEL;
use super::member::{Fresh, Member};
use super::message::{Answer, Asking, MAX_BYTES, PATH, VERSION};
use super::token::Token;
use crate::config::cluster::{capacity_bytes, check_free, host_name};
use crate::identity::fresh_server_key;

/// The whole exchange takes no longer.
const PATIENCE: Duration = Duration::from_secs(30);
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// What this box says of itself.
pub(super) struct Guest<'a> {
    pub(super) data_dir: &'a Path,
    /// Where others are to reach it, "host:port"; none: at the address from which it dials, at [`PORT`].
    pub(super) address: Option<String>,
    /// What clients may call it.
    pub(super) names: BTreeSet<String>,
    /// Its empty store, which goes.
    pub(super) discards: u128,
}

/// What came of asking.
pub(super) enum Joined {
    /// Only the plan was asked for.
    Plan(String),
    /// The plan, and what makes the box a member.
    Member(String, Box<Member>),
}

impl Guest<'_> {
    /// Asks the box that `token` names.
    ///
    /// # Errors
    /// It is not reached; it is not of the token's authority; it does not let this box in.
    pub(super) async fn ask(&self, token: &Token, dry_run: bool) -> Result<Joined> {
        let (node_key, node_public) = fresh_node_key()?;
        let (server_key, server_public) = fresh_server_key()?;
        let (stream, local) = connect(token).await.with_context(|| format!("the box at {}", token.address))?;
        let address = self.address.clone().unwrap_or_else(|| SocketAddr::new(local.ip(), PORT).to_string());
        check_free(&address)?;
        let asking = Asking {
            version: VERSION,
            secret: token.secret.reveal().to_owned(),
            address: address.clone(),
            host: host_name(),
            capacity_bytes: capacity_bytes(self.data_dir),
            level: LEVEL,
            node_key: node_public,
            server_key: server_public,
            names: self.names.iter().cloned().collect(),
            dry_run,
        };
        let asking = serde_json::to_string(&asking)?;
        let answer =
            timeout(PATIENCE, exchange(stream, &token.address, &asking)).await.context("it does not answer in time")?;
        let welcome = match answer.with_context(|| format!("the box at {}", token.address))? {
            Answer::Plan(plan) => return Ok(Joined::Plan(plan)),
            Answer::Refused(why) => bail!("{} says: {why}", token.address),
            Answer::Welcome(welcome) => *welcome,
        };
        let authority = CertificateDer::from_pem_slice(welcome.authority.as_bytes())
            .map_err(|error| anyhow!("its authority: {error}"))?;
        if sha256(&authority) != token.authority_sha256 {
            bail!("{} names another authority than the token", token.address);
        }
        let papers = Papers { authority: authority.to_vec(), certificate: welcome.certificate, key: node_key };
        let mut member = Member::new(welcome.node, address, welcome.secret, papers);
        member.secret()?;
        member.peers = welcome.peers;
        member.fresh = Some(Fresh::Joins {
            discards: format!("{:032x}", self.discards),
            authority: welcome.authority,
            server: welcome.server + &server_key,
            root: welcome.root,
        });
        Ok(Joined::Member(welcome.plan, Box::new(member)))
    }
}

async fn connect(token: &Token) -> Result<(TlsStream<TcpStream>, SocketAddr)> {
    let provider = Arc::new(default_provider());
    let verifier = Arc::new(OfAuthority { sha256: token.authority_sha256, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let stream = timeout(CONNECT_PATIENCE, TcpStream::connect(&token.address)).await.context("is not reached")??;
    let local = stream.local_addr()?;
    // Who it is its authority says, not its name.
    let name = ServerName::try_from("predastore").map_err(|error| anyhow!("{error}"))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = timeout(CONNECT_PATIENCE, connecting).await.context("does not answer")?;
    Ok((stream.map_err(|error| anyhow!("is not believed: {error}"))?, local))
}

async fn exchange(mut stream: TlsStream<TcpStream>, host: &str, body: &str) -> Result<Answer> {
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    // A server that closes without a goodbye has said all the same what it had to say: its length tells.
    let read = (&mut stream).take(2 * MAX_BYTES as u64).read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer);
    let Some((_, body)) = text.split_once("\r\n\r\n") else {
        read?;
        bail!("no HTTP answer: is it a Predastore box?");
    };
    serde_json::from_str(body).map_err(|_| anyhow!("its answer is not understood: is it of another version?"))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Believes a server whose certificate was signed by the one authority whose hash is known, and that sends that along.
#[derive(Debug)]
struct OfAuthority {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OfAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates.iter().find(|certificate| sha256(certificate) == self.sha256);
        let authority = authority.ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verified = |at| verify_server_cert_signed_by_trust_anchor(&certificate, &roots, &[], at, algorithms);
        match verified(now) {
            // The clock of a box that was just installed may be wrong by decades: the hash is what counts.
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                verified(not_before)?;
            }
            settled => settled?,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
