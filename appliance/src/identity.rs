//! Who this store is: a certificate authority, a server certificate it signed, and root credentials.
//!
//! All of it is made at the first start and kept in `<data_dir>/keys/`, readable by the owner alone:
//!
//! ```text
//! ca.pem            the authority's certificate: what clients trust (10 years)
//! ca.key            its key
//! server.pem        notes for us, the server's certificate, the authority's, the server's key (1 year)
//! credentials.json  {"version": 1, "access_key": …, "secret_key": …, "account_id": …}
//! ```
//!
//! A process of a cluster derives its authority and credentials instead (`derived.rs`) and keeps one file only, which
//! several processes may share:
//!
//! ```text
//! cluster-ca.pem    notes for us, the authority's certificate: what clients trust
//! ```
//!
//! A box of a cluster that others joined by tokens (`join`) keeps the files of the one box. Their authority is that of the
//! first box; `ca.key` is there on voters alone, and the others have theirs sign for them.
//!
//! Invariants: each file appears whole and at once; one that is there is never made anew, but for `server.pem`, which
//! is renewed when it nears its end or lacks a name, and `cluster-ca.pem`, which is replaced for another secret. `ca.key`
//! is durable before `ca.pem` appears, so an authority that a client may trust can always sign.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::digest;
use predastore::env::Env;
use predastore::node::control::Authority;
use predastore::object::access::fresh_key;
use predastore::transport::identity::{PublicKey, Secret as ClusterSecret};
use predastore::transport::{self, Peer};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use crate::config::{Account, Config, ROOT_ACCOUNT_ID, Secret};
use crate::{derived, durable};

const CA_LIFE: Duration = Duration::days(3650);
const SERVER_LIFE: Duration = Duration::days(365);
const RENEW_BEFORE: Duration = Duration::days(30);
/// The same for every process of a cluster at any time. It has no end (RFC 5280, 4.1.2.5), for nobody could renew it.
const CLUSTER_CA_LIFE: (OffsetDateTime, OffsetDateTime) =
    (datetime!(2000-01-01 0:00 UTC), datetime!(9999-12-31 23:59:59 UTC));
const FILE_MODE: u32 = 0o600;
const CREDENTIALS_VERSION: u32 = 1;
/// Uncompressed.
const P256_PUBLIC_KEY_BYTES: usize = 65;

/// The directory of a store's identity.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    dir: PathBuf,
    /// What all else is derived from; none: the box's own files.
    cluster: Option<ClusterSecret>,
    /// Whether the authority may be another box's.
    joined: bool,
}

/// A server certificate as it is served.
pub(crate) struct ServerCertificate {
    /// The certificate, then the authority's; then the key.
    pub(crate) pem: String,
    /// Whether it was made just now.
    pub(crate) renewed: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredCredentials {
    version: u32,
    access_key: String,
    secret_key: String,
    account_id: String,
}

impl Identity {
    /// That of the process of `config`; nothing is read or made yet.
    pub(crate) fn of(config: &Config) -> Self {
        let data_dir = &config.storage.data_dir;
        match &config.cluster {
            None => Identity::of_box(data_dir),
            Some(cluster) if cluster.member.is_some() => Identity::of_member(data_dir),
            Some(cluster) => Identity::of_cluster(data_dir, cluster.secret.clone()),
        }
    }

    /// That of a box of a cluster that boxes join.
    pub(crate) fn of_member(data_dir: &Path) -> Self {
        Identity { joined: true, ..Identity::of_box(data_dir) }
    }

    /// That of the one box with that `data_dir`.
    pub(crate) fn of_box(data_dir: &Path) -> Self {
        Identity { dir: data_dir.join("keys"), cluster: None, joined: false }
    }

    /// That of a process of the cluster with `secret`.
    pub(crate) fn of_cluster(data_dir: &Path, secret: ClusterSecret) -> Self {
        Identity { cluster: Some(secret), ..Identity::of_box(data_dir) }
    }

    /// The authority's certificate, which clients must trust.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.join(if self.cluster.is_some() { "cluster-ca.pem" } else { "ca.pem" })
    }

    /// The root credentials, if they were made already.
    ///
    /// # Errors
    /// The file cannot be read or is not ours.
    pub(crate) fn credentials(&self) -> Result<Option<Account>> {
        let path = self.dir.join("credentials.json");
        let Some(text) = read_optional(&path)? else { return Ok(None) };
        let stored: StoredCredentials =
            serde_json::from_str(&text).map_err(|error| anyhow!("{}: line {}", path.display(), error.line()))?;
        if stored.version != CREDENTIALS_VERSION {
            bail!("{}: version {} is unknown to this program", path.display(), stored.version);
        }
        Ok(Some(Account {
            access_key: stored.access_key,
            secret: Secret::new(stored.secret_key),
            account_id: stored.account_id,
            policy: None,
        }))
    }

    /// The root credentials, made if they are not there.
    pub(crate) fn ensure_credentials(&self) -> Result<Account> {
        if let Some(account) = self.credentials()? {
            return Ok(account);
        }
        let (access_key, secret) = fresh_key(&*Env::system().rng);
        self.write_credentials(&access_key, secret.reveal(), ROOT_ACCOUNT_ID)?;
        self.credentials()?.context("credentials that were just written are gone")
    }

    fn write_credentials(&self, access_key: &str, secret_key: &str, account_id: &str) -> Result<()> {
        let stored = StoredCredentials {
            version: CREDENTIALS_VERSION,
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            account_id: account_id.to_owned(),
        };
        self.write("credentials.json", &(serde_json::to_string_pretty(&stored)? + "\n"))
    }

    /// A server certificate valid for `names` for at least [`RENEW_BEFORE`] from `now`, made or renewed if need be.
    ///
    /// `names`: host names and IP addresses. Names of the old certificate are not kept. In a cluster it is made anew
    /// each time, and kept in memory alone: processes may share the directory.
    pub(crate) fn ensure_server_certificate(
        &self,
        names: &BTreeSet<String>,
        now: OffsetDateTime,
    ) -> Result<ServerCertificate> {
        if let Some(secret) = &self.cluster {
            let (ca_key, ca_pem) = self.derive_ca(secret)?;
            let pem = sign_server(&ca_key, &ca_pem, names, now)?;
            return Ok(ServerCertificate { pem, renewed: true });
        }
        let (kept, is_good) = self.kept_server_certificate(names, now)?;
        if let Some(pem) = kept.filter(|_| is_good || !self.may_sign()) {
            return Ok(ServerCertificate { pem, renewed: false });
        }
        let (ca_key, ca_pem) = self.ensure_ca(now)?;
        let pem = sign_server(&ca_key, &ca_pem, names, now)?;
        self.write("server.pem", &pem)?;
        Ok(ServerCertificate { pem, renewed: true })
    }

    /// Whether certificates can be signed here: where the authority is another box's only with its key.
    pub(crate) fn may_sign(&self) -> bool {
        !self.joined || self.dir.join("ca.key").exists()
    }

    /// Whether a certificate for `names` must be had from a box that may sign.
    pub(crate) fn lacks_server_certificate(&self, names: &BTreeSet<String>, now: OffsetDateTime) -> bool {
        !self.may_sign() && !self.kept_server_certificate(names, now).is_ok_and(|(_, is_good)| is_good)
    }

    /// `server.pem`, and whether it is good for `names` for a while.
    fn kept_server_certificate(&self, names: &BTreeSet<String>, now: OffsetDateTime) -> Result<(Option<String>, bool)> {
        let kept = read_optional(&self.dir.join("server.pem"))?;
        let notes = kept.as_deref().and_then(Notes::read);
        let is_good = notes.is_some_and(|notes| notes.expires - now > RENEW_BEFORE && names.is_subset(&notes.names));
        Ok((kept, is_good))
    }

    /// Has HTTPS served with what another box signed: `chain` as [`Identity::sign_server`] makes it, `key` PEM.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn take_server_certificate(&self, chain: &str, key: &str) -> Result<()> {
        self.write("server.pem", &[chain, key].concat())
    }

    /// Has the authority's key here from now on.
    ///
    /// # Errors
    /// It is another one's; the disk.
    pub(crate) fn take_authority_key(&self, key: &str) -> Result<()> {
        let pair = KeyPair::from_pem(key).context("the authority's key")?;
        // The certificate has the key's public half as it is.
        let authority = self.authority()?;
        if !authority.windows(P256_PUBLIC_KEY_BYTES).any(|run| run == pair.public_key_raw()) {
            bail!("the key that came is not that of this cluster's authority");
        }
        self.write("ca.key", key)
    }

    /// Puts in place what a box was given that joined. Its own authority goes. `root`: access key, secret key, account.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn install(&self, authority: &str, server: &str, root: (&str, &str, &str)) -> Result<()> {
        match fs::remove_file(self.dir.join("ca.key")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{}", self.dir.display()));
            }
            _ => {}
        }
        self.write("ca.pem", authority)?;
        self.write("server.pem", server)?;
        let (access_key, secret_key, account_id) = root;
        self.write_credentials(access_key, secret_key, account_id)
    }

    /// The authority's certificate, DER; it is made if there is none yet.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn authority(&self) -> Result<Vec<u8>> {
        Ok(CertificateDer::from_pem_slice(self.authority_pem()?.as_bytes())?.to_vec())
    }

    /// The same, PEM.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn authority_pem(&self) -> Result<String> {
        match read_optional(&self.ca_file())? {
            Some(pem) => Ok(pem),
            None => self.ensure_ca(OffsetDateTime::now_utc()).map(|(_, pem)| pem),
        }
    }

    /// A certificate, DER, for the node that is `peers` and has the other half of `public_key`.
    ///
    /// # Errors
    /// This box cannot sign; the key is none.
    pub(crate) fn vouch(&self, public_key: &[u8], peers: &[Peer], now: OffsetDateTime) -> Result<Vec<u8>> {
        let (ca_key, _) = self.signing(now)?;
        let ca = ca_params(&ca_key, validity(now, CA_LIFE));
        let issuer = Issuer::from_params(&ca, &ca_key);
        Ok(transport::identity::vouch(&issuer, public_key, peers)?.to_vec())
    }

    /// A chain, PEM with our notes, for an HTTPS endpoint of these names that has the other half of `public_key`.
    ///
    /// # Errors
    /// This box cannot sign; a name or the key is none.
    pub(crate) fn sign_server(
        &self,
        public_key: &[u8],
        names: &BTreeSet<String>,
        now: OffsetDateTime,
    ) -> Result<String> {
        if public_key.len() != P256_PUBLIC_KEY_BYTES {
            bail!("this is no key of an endpoint");
        }
        let (ca_key, ca_pem) = self.signing(now)?;
        let key = PublicKey { bytes: public_key, algorithm: &PKCS_ECDSA_P256_SHA256 };
        signed_for(&key, &ca_key, &ca_pem, names, now)
    }

    fn signing(&self, now: OffsetDateTime) -> Result<(KeyPair, String)> {
        if !self.may_sign() {
            bail!("this box does not have the authority's key: it does not vote yet");
        }
        self.ensure_ca(now)
    }

    /// When the server certificate ends that this store keeps; none: it keeps none.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn server_certificate_ends(&self) -> Result<Option<OffsetDateTime>> {
        let pem = read_optional(&self.dir.join("server.pem"))?;
        Ok(pem.and_then(|pem| Notes::read(&pem)).map(|notes| notes.expires))
    }

    /// Key and certificate of the authority.
    fn ensure_ca(&self, now: OffsetDateTime) -> Result<(KeyPair, String)> {
        if let Some(pem) = read_optional(&self.ca_file())? {
            let path = self.dir.join("ca.key");
            let key = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
            let key = KeyPair::from_pem(&key).with_context(|| format!("{}", path.display()))?;
            return Ok((key, pem));
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let pem = ca_params(&key, validity(now, CA_LIFE)).self_signed(&key)?.pem();
        self.write("ca.key", &key.serialize_pem())?;
        self.write("ca.pem", &pem)?;
        Ok((key, pem))
    }

    /// Key and certificate of the cluster's authority; the certificate also for clients to find.
    fn derive_ca(&self, secret: &ClusterSecret) -> Result<(KeyPair, String)> {
        let key = derived::authority_key(secret)?;
        durable::private_dir(&self.dir).with_context(|| format!("{}", self.dir.display()))?;
        // Another process of the cluster may be here, too. The lock ends with its file.
        let directory = File::open(&self.dir)?;
        directory.lock().with_context(|| format!("{}", self.dir.display()))?;
        let note = format!("Key: {}\n", key_tag(&key, digest::SHA256_OUTPUT_LEN));
        // Signatures differ from one time to the next, so the file is left alone where it is of the same key.
        if let Some(text) = read_optional(&self.ca_file())?
            && let Some(pem) = text.strip_prefix(&note)
        {
            return Ok((key, pem.to_owned()));
        }
        let pem = ca_params(&key, CLUSTER_CA_LIFE).self_signed(&key)?.pem();
        self.write("cluster-ca.pem", &(note + &pem))?;
        Ok((key, pem))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.dir.join(name);
        durable::private_dir(&self.dir)
            .and_then(|()| durable::write(&path, text.as_bytes(), FILE_MODE))
            .with_context(|| format!("{}", path.display()))
    }
}

/// What we must know of `server.pem` again, as lines before its first PEM block, where PEM allows for text.
struct Notes {
    expires: OffsetDateTime,
    names: BTreeSet<String>,
}

impl Notes {
    fn read(pem: &str) -> Option<Self> {
        let field = |name: &str| pem.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let expires = OffsetDateTime::parse(field("Expires:")?, &Rfc3339).ok()?;
        let names = field("Names:")?.split(' ').map(str::to_owned).collect();
        Some(Notes { expires, names })
    }

    fn write(&self) -> Result<String> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        Ok(format!("Expires: {}\nNames: {}\n", self.expires.format(&Rfc3339)?, names.join(" ")))
    }
}

/// The authority's name has a part of its key's hash, so that two stores' authorities can be told apart, and so that
/// the key alone is enough to sign again.
fn ca_params(key: &KeyPair, life: (OffsetDateTime, OffsetDateTime)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&format!("Predastore authority {}", key_tag(key, 4)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = life;
    params
}

/// The first bytes of the hash of its public part, in hexadecimal.
fn key_tag(key: &KeyPair, byte_count: usize) -> String {
    let hash = digest::digest(&digest::SHA256, key.public_key_raw());
    hash.as_ref().iter().take(byte_count).map(|byte| format!("{byte:02x}")).collect()
}

fn sign_server(ca_key: &KeyPair, ca_pem: &str, names: &BTreeSet<String>, now: OffsetDateTime) -> Result<String> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(signed_for(&key, ca_key, ca_pem, names, now)? + &key.serialize_pem())
}

/// Notes for us, a certificate for whoever has `key`, the authority's.
fn signed_for(
    key: &impl PublicKeyData,
    ca_key: &KeyPair,
    ca_pem: &str,
    names: &BTreeSet<String>,
    now: OffsetDateTime,
) -> Result<String> {
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    params.distinguished_name = name("Predastore");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = validity(now, SERVER_LIFE);
    // Only the issuer's name is taken of it: its life is of no matter here.
    let ca = ca_params(ca_key, validity(now, CA_LIFE));
    let certificate = params.signed_by(key, &Issuer::from_params(&ca, ca_key))?;
    let notes = Notes { expires: params.not_after, names: names.clone() }.write()?;
    Ok([notes, certificate.pem(), ca_pem.to_owned()].concat())
}

/// A key pair for an HTTPS endpoint that another box signs for: PEM, and its public half.
///
/// # Errors
/// There is no randomness.
pub(crate) fn fresh_server_key() -> Result<(String, Vec<u8>)> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok((key.serialize_pem(), key.public_key_raw().to_vec()))
}

impl Authority for Identity {
    fn key(&self) -> Option<String> {
        read_optional(&self.dir.join("ca.key")).ok().flatten()
    }

    fn sign_server(&self, public_key: &[u8], names: &[String]) -> Option<String> {
        let names = names.iter().cloned().collect();
        let signed = Identity::sign_server(self, public_key, &names, OffsetDateTime::now_utc());
        signed.inspect_err(|error| tracing::warn!("no certificate was signed for another box: {error:#}")).ok()
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// From a day ago, for clients whose clocks lag. A box without a battery may wake in 1970: its authority would be
/// long dead once the clock is set, so the end counts from no earlier than this program's own time.
fn validity(now: OffsetDateTime, life: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let whole = now.replace_nanosecond(0).unwrap_or(now);
    (whole - Duration::DAY, whole.max(datetime!(2026-01-01 0:00 UTC)) + life)
}

/// The names that clients may call this host: localhost, its host name, its addresses, and `more`.
pub(crate) fn host_names(more: &[String]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).filter(|n| !n.is_empty()));
    names.extend(addresses().iter().map(IpAddr::to_string));
    names.extend(more.iter().flat_map(|domain| [domain.clone(), format!("*.{domain}")]));
    names
}

/// Addresses of this host's interfaces that another host could dial.
fn addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
    };
    let dialable = |ip: &IpAddr| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    interfaces.filter_map(address).filter(dialable).collect()
}

fn read_optional(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    const NOW: OffsetDateTime = datetime!(2026-06-01 12:00 UTC);

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn files(identity: &Identity) -> BTreeMap<String, String> {
        let entries = fs::read_dir(&identity.dir).unwrap().map(Result::unwrap);
        entries.map(|e| (e.file_name().into_string().unwrap(), fs::read_to_string(e.path()).unwrap())).collect()
    }

    #[test]
    fn a_second_start_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::of_box(dir.path());
        assert!(identity.credentials().unwrap().is_none());
        let start = || {
            let account = identity.ensure_credentials().unwrap();
            let certificate = identity.ensure_server_certificate(&names(&["localhost", "127.0.0.1"]), NOW).unwrap();
            (account.access_key, account.secret, certificate.pem)
        };
        let first = start();
        let before = files(&identity);
        assert_eq!(before.keys().collect::<Vec<_>>(), ["ca.key", "ca.pem", "credentials.json", "server.pem"]);
        assert!(first == start(), "another identity");
        assert!(before == files(&identity), "files changed");
    }

    #[test]
    fn only_the_owner_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::of_box(dir.path());
        identity.ensure_credentials().unwrap();
        identity.ensure_server_certificate(&names(&["localhost"]), NOW).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&identity.dir), 0o700);
        for name in files(&identity).keys() {
            assert_eq!(mode(&identity.dir.join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn credentials_look_like_those_of_aws_and_differ() {
        let make = || {
            let dir = tempfile::tempdir().unwrap();
            Identity::of_box(dir.path()).ensure_credentials().unwrap()
        };
        let (one, two) = (make(), make());
        assert_eq!((one.access_key.len(), one.secret.reveal().len()), (20, 40));
        assert!(one.access_key.starts_with("AKIA"));
        assert!(one.access_key != two.access_key && one.secret != two.secret);
    }

    #[test]
    fn the_certificate_is_renewed_near_its_end_and_for_new_names_by_the_same_authority() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::of_box(dir.path());
        let ensure = |list: &[&str], days: i64| {
            identity.ensure_server_certificate(&names(list), NOW + Duration::days(days)).unwrap().renewed
        };
        assert!(ensure(&["localhost"], 0));
        let ca = fs::read_to_string(identity.ca_file()).unwrap();
        assert!(!ensure(&["localhost"], 334));
        assert!(ensure(&["localhost"], 335));
        assert!(ensure(&["localhost", "box"], 335));
        assert!(!ensure(&["box"], 335));
        assert_eq!(ca, fs::read_to_string(identity.ca_file()).unwrap());
    }

    #[test]
    fn a_half_made_authority_is_made_again_and_a_broken_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::of_box(dir.path());
        identity.write("ca.key", "left by a crash before ca.pem").unwrap();
        identity.ensure_server_certificate(&names(&["localhost"]), NOW).unwrap();
        fs::write(identity.dir.join("ca.key"), "damaged").unwrap();
        fs::remove_file(identity.dir.join("server.pem")).unwrap();
        assert!(identity.ensure_server_certificate(&names(&["localhost"]), NOW).is_err());
        fs::write(identity.dir.join("credentials.json"), r#"{"version": 2}"#).unwrap();
        assert!(identity.ensure_credentials().is_err(), "damaged credentials must not be replaced");
    }

    #[test]
    fn processes_of_a_cluster_share_a_directory_and_leave_alone_what_a_box_had() {
        let dir = tempfile::tempdir().unwrap();
        let ensure = |identity: Identity| identity.ensure_server_certificate(&names(&["localhost"]), NOW).map(|_| ());
        let cluster = |secret: &[u8; 32]| Identity::of_cluster(dir.path(), ClusterSecret::new(secret).unwrap());
        let (one, other) = (b"0123456789abcdef0123456789abcdef", b"123456789abcdef0123456789abcdef0");
        ensure(Identity::of_box(dir.path())).unwrap();
        let before = files(&Identity::of_box(dir.path()));
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..8).map(|_| scope.spawn(|| ensure(cluster(one)))).collect();
            running.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        });
        let with = |before: &BTreeMap<String, String>| {
            let mut now = files(&Identity::of_box(dir.path()));
            let authority = now.remove("cluster-ca.pem").unwrap();
            assert!(now == *before, "{:?}", now.keys());
            authority
        };
        let authority = with(&before);
        ensure(cluster(one)).unwrap();
        assert!(with(&before) == authority, "the file of the same key is left alone");
        ensure(cluster(other)).unwrap();
        assert!(with(&before) != authority, "another secret is another authority");
    }

    #[test]
    fn an_authority_made_in_1970_lives_on_when_the_clock_is_set() {
        let (_, end) = validity(OffsetDateTime::UNIX_EPOCH, CA_LIFE);
        assert!(end > NOW);
    }
}
