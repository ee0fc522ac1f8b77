//! Where a node is: what it binds, what others dial, where its files are.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf, absolute};

use predastore::ids::NodeId;

use super::super::document::Member;
use super::super::{Error, conflict, is_domain, resolve};

/// A host, in the one spelling that compares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Host {
    Ip(IpAddr),
    /// In lower case.
    Name(String),
}

impl Host {
    /// None: it is neither an address nor a name. `localhost` is 127.0.0.1.
    fn parse(text: &str) -> Option<Host> {
        let text = text.trim().to_lowercase();
        if text == "localhost" {
            return Some(Host::Ip(Ipv4Addr::LOCALHOST.into()));
        }
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&text);
        if let Ok(ip) = inner.parse::<IpAddr>() {
            return Some(Host::Ip(ip.to_canonical()));
        }
        // 10.0.0.256 would pass for a name. The names of containers may have an underscore.
        let numeric = text.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
        (!numeric && is_domain(&text.replace('_', "x"))).then_some(Host::Name(text))
    }

    fn is_unspecified(&self) -> bool {
        matches!(self, Host::Ip(ip) if ip.is_unspecified())
    }

    fn is_loopback(&self) -> bool {
        matches!(self, Host::Ip(ip) if ip.is_loopback())
    }

    /// Whether some other host could reach it by this.
    fn can_be_dialled(&self) -> bool {
        match self {
            Host::Name(_) => true,
            Host::Ip(IpAddr::V4(ip)) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            Host::Ip(IpAddr::V6(ip)) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local(),
        }
    }

    /// Whether a socket bound to the one would be in the way of one bound to the other, on one machine and port.
    fn overlaps(&self, other: &Host) -> bool {
        self == other || self.is_unspecified() || other.is_unspecified()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(ip) => ip.fmt(f),
            Host::Name(name) => name.fmt(f),
        }
    }
}

/// A node's place, judged by itself.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// What errors call it: `db 1`, `node 2`.
    pub(super) name: String,
    pub(super) id: NodeId,
    host: Host,
    port: u16,
    advertised: Host,
    /// As it is written: from the working directory on.
    pub(super) path: PathBuf,
    /// In the one spelling that compares.
    whole_path: PathBuf,
    /// Whether this process is it.
    pub(super) own: bool,
}

impl Place {
    /// `kind`: `db` or `node`.
    pub(super) fn new(kind: &str, member: &Member) -> Result<Place, Error> {
        let name = format!("{kind} {}", member.id);
        let host = |key: &str, text: &str| {
            let wrong =
                || Error::Conflict(format!("{name}: `{key}` is `{text}`, neither an address nor a host's name"));
            Host::parse(text).ok_or_else(wrong)
        };
        let bound = host("host", &member.host)?;
        let (key, advertised) = match member.advertise_host.as_str() {
            "" => ("host", bound.clone()),
            text => ("advertise_host", host("advertise_host", text)?),
        };
        if !advertised.can_be_dialled() {
            return conflict(format!(
                "{name}: nobody can dial `{key}` {advertised}: `advertise_host` must say where the others find it"
            ));
        }
        if member.port == 0 {
            return conflict(format!("{name}: nobody can dial port 0: `port` must be a fixed one"));
        }
        if member.path.as_os_str().is_empty() {
            return conflict(format!("{name}: `path` is empty"));
        }
        let (id, path, whole_path) = (NodeId(member.id), member.path.clone(), lexical(&member.path));
        Ok(Place { name, id, host: bound, port: member.port, advertised, path, whole_path, own: false })
    }

    /// What peers dial: "host:port".
    pub(super) fn dial(&self) -> String {
        match &self.advertised {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).to_string(),
            Host::Name(name) => format!("{name}:{}", self.port),
        }
    }

    /// What it binds. A name is looked up now.
    pub(super) fn listen(&self) -> Result<SocketAddr, Error> {
        resolve(&format!("{}: host", self.name), &self.host.to_string(), self.port)
    }

    /// What others call its host.
    pub(super) fn advertised_host(&self) -> String {
        self.advertised.to_string()
    }

    /// Its machine, as far as the file tells.
    pub(super) fn machine(&self) -> String {
        if self.advertised.is_loopback() { "localhost".to_owned() } else { self.advertised.to_string() }
    }

    fn shares_machine(&self, other: &Place) -> bool {
        self.own && other.own || self.machine() == other.machine()
    }
}

/// Refuses places of which not all can be there at once.
pub(super) fn check_together(places: &[&Place]) -> Result<(), Error> {
    for (index, one) in places.iter().enumerate() {
        for other in &places[..index] {
            check_pair(other, one)?;
        }
    }
    let loopback = places.iter().find(|place| place.advertised.is_loopback());
    let elsewhere = places.iter().find(|place| !place.advertised.is_loopback());
    match (loopback, elsewhere) {
        (Some(one), Some(other)) => conflict(format!(
            "{} is dialled at {}, which only its own host can, and {} is at {}: `advertise_host` must say where the \
             others find it",
            one.name,
            one.dial(),
            other.name,
            other.dial()
        )),
        _ => Ok(()),
    }
}

fn check_pair(one: &Place, other: &Place) -> Result<(), Error> {
    let together = one.shares_machine(other);
    if together && one.whole_path == other.whole_path {
        return conflict(format!("{} and {} are both kept in {}", one.name, other.name, one.path.display()));
    }
    let bound = together && one.host.overlaps(&other.host);
    if one.port == other.port && (bound || one.advertised == other.advertised) {
        return conflict(format!("{} and {} are both at {}", one.name, other.name, other.dial()));
    }
    Ok(())
}

/// Refuses an endpoint of this process, called `name`, where a node of its machine listens already.
pub(super) fn check_endpoint(name: &str, address: SocketAddr, places: &[&Place]) -> Result<(), Error> {
    let host = Host::Ip(address.ip().to_canonical());
    let here = |place: &Place| places.iter().any(|own| own.own && own.shares_machine(place));
    let taken = |place: &&&Place| place.port == address.port() && place.host.overlaps(&host) && here(place);
    match places.iter().find(taken) {
        Some(place) => conflict(format!("{} listens on port {} already, which `{name}` names", place.name, place.port)),
        None => Ok(()),
    }
}

/// Absolute, from the working directory on, with no `.` or `..` in it; no link is followed.
fn lexical(path: &Path) -> PathBuf {
    let whole = absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut lexical = PathBuf::new();
    for component in whole.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                lexical.pop();
            }
            other => lexical.push(other),
        }
    }
    lexical
}
