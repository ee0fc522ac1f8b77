//! A cluster as a box sees it that joined it, or that others join: of the member file beside its data. Who else is in it
//! the catalog says.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use anyhow::Context;
use nix::sys::statvfs::statvfs;
use predastore::erasure::Scheme;
use predastore::ids::NodeId;

use super::super::{Error, conflict};
use super::{Cluster, DbNode, Own, Role, ShardNode};
use crate::join::PORT;
use crate::join::member::Member;
use crate::tls::own_addresses;

/// The shard node's directory, in the box's.
const SHARD_DIR: &str = "shard-node";

impl Cluster {
    /// What the member file in `data_dir` says; none: there is none, or it is not for this user's eyes. `gateway`: where
    /// the box serves S3.
    ///
    /// # Errors
    /// It is damaged.
    pub(in crate::config) fn joined(data_dir: &Path, gateway: SocketAddr) -> Result<Option<Cluster>, Error> {
        let member = match Member::read(data_dir) {
            Ok(Some(member)) => member,
            Ok(None) => return Ok(None),
            Err(error) if is_denied(&error) => return Ok(None),
            Err(error) => return conflict(format!("{error:#}")),
        };
        of_member(member, data_dir, gateway).map(Some).or_else(|error| conflict(format!("{error:#}")))
    }
}

fn is_denied(error: &anyhow::Error) -> bool {
    let denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    error.downcast_ref::<std::io::Error>().is_some_and(denied)
}

fn of_member(member: Member, data_dir: &Path, gateway: SocketAddr) -> anyhow::Result<Cluster> {
    let id = NodeId(member.node);
    let dial = dial_now(&member.address, &own_addresses());
    let listen = listen(&dial);
    let own = |path| Own { id, listen, path };
    let others = member.peers.iter().filter(|(peer, _)| **peer != member.node);
    let mut dbs: Vec<_> = others.map(|(id, dial)| DbNode { id: NodeId(*id), dial: dial.clone() }).collect();
    dbs.push(DbNode { id, dial: dial.clone() });
    dbs.sort_by_key(|db| db.id);
    let (host, _) = parts(&dial);
    let node = ShardNode {
        id,
        dial: dial.clone(),
        machine: format!("{id}:{}", host_name()),
        zone: String::new(),
        capacity_bytes: Some(capacity_bytes(data_dir)),
    };
    Ok(Cluster {
        secret: member.secret()?,
        // Of a cluster of one box; the map of others says theirs.
        scheme: Scheme::new(1, 0)?,
        dbs,
        nodes: vec![node],
        role: Role {
            dbs: vec![own(data_dir.to_owned())],
            nodes: vec![own(data_dir.join(SHARD_DIR))],
            gateway: Some(gateway),
            host_names: BTreeSet::from([host.to_owned()]),
        },
        member: Some(member),
        seeds: Vec::new(),
    })
}

/// Of the disk.
pub(crate) fn capacity_bytes(data_dir: &Path) -> u64 {
    statvfs(data_dir).map_or(0, |disk| disk.blocks() * disk.fragment_size())
}

/// What this machine calls itself.
pub(crate) fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "box".to_owned())
}

/// Host, without brackets, and port of "host:port".
fn parts(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    (host.trim_matches(['[', ']']), port.parse().unwrap_or(PORT))
}

/// Where a box is dialled that once was at `address`: there, as long as it is a name, or an address that it still has;
/// otherwise at the first that it has.
fn dial_now(address: &str, own: &BTreeSet<IpAddr>) -> String {
    let (host, port) = parts(address);
    match host.parse::<IpAddr>() {
        Ok(ip) if !ip.is_loopback() && !own.contains(&ip) => {
            own.first().map_or_else(|| address.to_owned(), |first| SocketAddr::new(*first, port).to_string())
        }
        _ => address.to_owned(),
    }
}

/// Finds out whether a box that is dialled at `dial` could listen there: afterwards its daemon would not start.
///
/// # Errors
/// Somebody else does.
pub(crate) fn check_free(dial: &str) -> anyhow::Result<()> {
    let address = listen(dial);
    let taken =
        || format!("UDP and TCP {address}, where other boxes are to reach this one; --address HOST:PORT says another");
    UdpSocket::bind(address).with_context(taken)?;
    TcpListener::bind(address).with_context(taken)?;
    Ok(())
}

/// On all addresses of the kind that others dial; on a loopback address on that alone, for several boxes of one machine.
fn listen(dial: &str) -> SocketAddr {
    let (host, port) = parts(dial);
    let ip = match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => ip,
        Ok(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_box_is_where_it_was_or_where_it_is_now() {
        let own: BTreeSet<IpAddr> = ["10.0.0.7", "10.1.0.7"].map(|ip| ip.parse().unwrap()).into();
        for (then, now) in [
            ("10.1.0.7:6660", "10.1.0.7:6660"),
            ("10.9.9.9:7", "10.0.0.7:7"),
            ("[fd00::1]:7", "10.0.0.7:7"),
            ("127.0.0.1:7", "127.0.0.1:7"),
            ("box.example.com:7", "box.example.com:7"),
        ] {
            assert_eq!(dial_now(then, &own), now);
        }
        assert_eq!(dial_now("10.9.9.9:7", &BTreeSet::new()), "10.9.9.9:7");
    }

    #[test]
    fn a_port_that_is_taken_is_found_before_anything_is_changed() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = format!("{:#}", check_free(&address).unwrap_err());
        assert!(error.contains("--address") && error.contains("in use"), "{error}");
        drop(taken);
        check_free(&address).unwrap();
    }

    #[test]
    fn a_box_listens_where_others_may_dial_it() {
        for (dial, address) in [
            ("10.0.0.7:6660", "0.0.0.0:6660"),
            ("box:7", "0.0.0.0:7"),
            ("[fd00::1]:7", "[::]:7"),
            ("127.0.0.2:7", "127.0.0.2:7"),
        ] {
            assert_eq!(listen(dial).to_string(), address);
        }
    }
}
