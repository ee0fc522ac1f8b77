//! TLS for the S3 endpoint: the certificate, and its exchange while running.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result, anyhow};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use crate::config::{Config, Server, Tls};
use crate::identity::{Identity, host_names};

/// The certificate that new connections get.
#[derive(Debug)]
pub(crate) struct Certificate {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Certificate {
    /// Reads the certificate that `config` names, or has `identity` make one.
    pub(crate) fn load(config: &Config, identity: &Identity) -> Result<Self> {
        Ok(Certificate { current: RwLock::new(Arc::new(read(config, identity)?)) })
    }

    /// The store's own, whatever `config` names: by it boxes that join know who answers.
    pub(crate) fn own(config: &Config, identity: &Identity) -> Result<Self> {
        Ok(Certificate { current: RwLock::new(Arc::new(read_own(config, identity)?)) })
    }

    /// Finds out whether the files that `server` names, if it does, can be used.
    pub(crate) fn check_files(server: &Server) -> Result<()> {
        match &server.tls {
            Tls::Files { cert, key } => read_files(cert, key).map(drop),
            Tls::Own | Tls::Off => Ok(()),
        }
    }

    /// Reads it again, for new connections. After an error the old one stays.
    pub(crate) fn reload(&self, config: &Config, identity: &Identity) -> Result<()> {
        self.replace(read(config, identity)?);
        Ok(())
    }

    /// The same, of [`Certificate::own`].
    pub(crate) fn reload_own(&self, config: &Config, identity: &Identity) -> Result<()> {
        self.replace(read_own(config, identity)?);
        Ok(())
    }

    fn replace(&self, fresh: CertifiedKey) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
    }
}

fn read(config: &Config, identity: &Identity) -> Result<CertifiedKey> {
    let server = &config.server;
    match &server.tls {
        Tls::Files { cert, key } => read_files(cert, key),
        Tls::Own | Tls::Off => read_own(config, identity),
    }
}

fn read_own(config: &Config, identity: &Identity) -> Result<CertifiedKey> {
    let names = endpoint_names(config);
    let certificate = identity.ensure_server_certificate(&names, OffsetDateTime::now_utc())?;
    if certificate.renewed {
        tracing::info!(names = names.len(), "made a server certificate");
    }
    certified(&certificate.pem, &certificate.pem).context("the store's own certificate")
}

/// What clients may call this host's endpoints.
pub(crate) fn endpoint_names(config: &Config) -> BTreeSet<String> {
    let server = &config.server;
    let mut names = host_names(&server.domains);
    match server.address.ip() {
        ip if ip.is_unspecified() => names.extend(own_addresses().iter().map(IpAddr::to_string)),
        ip => drop(names.insert(ip.to_string())),
    }
    names.extend(config.cluster.iter().flat_map(|cluster| cluster.role.host_names.iter().cloned()));
    names
}

/// The addresses by which others may reach this machine.
pub(crate) fn own_addresses() -> BTreeSet<IpAddr> {
    let address = |storage: SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    };
    let is_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    };
    let interfaces = getifaddrs().into_iter().flatten().filter_map(|interface| address(interface.address?));
    interfaces.filter(|ip| !is_local(ip)).collect()
}

fn read_files(cert: &Path, key: &Path) -> Result<CertifiedKey> {
    let read = |setting, path: &Path| {
        fs::read_to_string(path).with_context(|| format!("server.tls.{setting}: {}", path.display()))
    };
    certified(&read("cert_file", cert)?, &read("key_file", key)?)
        .with_context(|| format!("certificate {} with key {}", cert.display(), key.display()))
}

/// A chain and its key from PEM, found to belong together.
fn certified(chain: &str, key: &str) -> Result<CertifiedKey> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>()?;
    if chain.is_empty() {
        return Err(anyhow!("no certificate in the file"));
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| anyhow!("the key: {error}"))?;
    Ok(CertifiedKey::from_der(chain, key, &default_provider())?)
}

/// HTTP/1.1 over TLS 1.2 or 1.3, sessions resumed by tickets.
pub(crate) fn server_config(certificate: Arc<Certificate>) -> Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::settings::setting;
    use predastore::transport::identity::Secret;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    fn config(flags: &[(&str, &str)]) -> Config {
        let flags: Vec<_> = flags.iter().map(|(key, value)| (setting(key).unwrap(), (*value).to_owned())).collect();
        Config::load(&flags, &[]).unwrap()
    }

    /// A handshake in memory with a client that trusts the store's authority alone.
    fn handshake(config: ServerConfig, ca_file: &Path, host: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca_file).unwrap()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(config))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn clients_that_trust_the_authority_reach_every_name_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::of_box(dir.path());
        let config = config(&[("server.host", "10.1.2.3"), ("server.domains", "s3.example.com")]);
        let certificate = Arc::new(Certificate::load(&config, &identity).unwrap());
        let shake = |host: &str| handshake(server_config(certificate.clone()).unwrap(), &identity.ca_file(), host);
        for host in ["localhost", "127.0.0.1", "::1", "10.1.2.3", "s3.example.com", "bucket.s3.example.com"] {
            shake(host).unwrap();
        }
        assert!(shake("elsewhere.example.com").is_err());
        certificate.reload(&config, &identity).unwrap();
        shake("localhost").unwrap();
    }

    #[test]
    fn clients_that_trust_one_process_of_a_cluster_trust_all_and_no_other_cluster() {
        let identities = [b'0', b'0', b'1'].map(|first| {
            let secret = [&[first], &b"123456789abcdef0123456789abcdef"[..]].concat();
            let dir = tempfile::tempdir().unwrap();
            let identity = Identity::of_cluster(dir.path(), Secret::new(&secret).unwrap());
            (Arc::new(Certificate::load(&config(&[]), &identity).unwrap()), identity.ca_file(), dir)
        });
        let shake = |server: usize, client: usize| {
            handshake(server_config(identities[server].0.clone()).unwrap(), &identities[client].1, "localhost")
        };
        for (server, client) in [(0, 0), (0, 1), (1, 0), (2, 2)] {
            shake(server, client).unwrap();
        }
        assert!(shake(2, 0).is_err() && shake(0, 2).is_err());
    }

    #[test]
    fn a_key_that_is_not_the_certificates_is_refused() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let paths = dirs.each_ref().map(|dir| {
            Certificate::load(&config(&[]), &Identity::of_box(dir.path())).unwrap();
            dir.path().join("keys/server.pem").display().to_string()
        });
        let load = |cert: &str, key: &str| {
            let config = config(&[("server.tls.cert_file", cert), ("server.tls.key_file", key)]);
            Certificate::load(&config, &Identity::of_box(dirs[0].path())).map(|_| ())
        };
        load(&paths[0], &paths[0]).unwrap();
        assert!(load(&paths[0], &paths[1]).is_err());
        let missing = load("/nowhere/c.pem", &paths[0]).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/c.pem"));
    }
}
