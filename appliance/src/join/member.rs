//! The file that makes a box part of a cluster: `<data_dir>/member.json`, its owner's alone.
//!
//! ```text
//! {"version": 1, "node": …, "address": "host:port", "secret": …, "authority": Base64 of DER, "certificate": …, "key": …,
//!  "peers": {"1": "host:port", …}, "fresh": what is still to be put in place, if anything}
//! ```
//!
//! `secret` is what all members know; `certificate` and `key` are this box's, by `authority`; `peers` is where others were
//! when it was written last: the catalog knows better.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use predastore::transport::identity::{Papers, Secret as ClusterSecret};
use serde::{Deserialize, Serialize};

use super::message::{Root, base64_text};
use crate::durable;

const NAME: &str = "member.json";
const VERSION: u32 = 1;
const FILE_MODE: u32 = 0o600;

/// What makes this box a member.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    version: u32,
    /// Its number.
    pub(crate) node: u64,
    /// Where others reach it, when it was written: "host:port".
    pub(crate) address: String,
    /// What all members know, as text.
    secret: String,
    #[serde(with = "base64_text")]
    authority: Vec<u8>,
    #[serde(with = "base64_text")]
    certificate: Vec<u8>,
    #[serde(with = "base64_text")]
    key: Vec<u8>,
    /// The other boxes.
    pub(crate) peers: BTreeMap<u64, String>,
    /// What is still to be put in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fresh: Option<Fresh>,
}

/// What a box that has just become a member brings.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Fresh {
    /// The first box: its store becomes the cluster's.
    Founds {},
    /// Another one: its empty store goes.
    Joins {
        /// Which it was.
        discards: String,
        /// The authority's certificate, PEM.
        authority: String,
        /// Its HTTPS endpoint's certificate and key, PEM.
        server: String,
        /// Root's credentials.
        root: Root,
    },
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Member({} at {}, ..)", self.node, self.address)
    }
}

impl Member {
    /// `secret`: text.
    pub(super) fn new(node: u64, address: String, secret: String, papers: Papers) -> Self {
        let Papers { authority, certificate, key } = papers;
        let (peers, fresh) = (BTreeMap::new(), None);
        Member { version: VERSION, node, address, secret, authority, certificate, key, peers, fresh }
    }

    /// That of the box with that data directory; none: it is part of no cluster. Who may not look is told so.
    ///
    /// # Errors
    /// It cannot be read, or is not ours.
    pub(crate) fn read(data_dir: &Path) -> Result<Option<Self>> {
        let path = path(data_dir);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
        };
        // The parser's message would quote what it stumbles over, which may be a key.
        let member: Member = serde_json::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: no member file, line {}", path.display(), error.line()))?;
        ensure!(member.version == VERSION, "{}: version {} is unknown to this program", path.display(), member.version);
        Ok(Some(member))
    }

    /// Writes it.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn write(&self, data_dir: &Path) -> Result<()> {
        let path = path(data_dir);
        let text = serde_json::to_string_pretty(self)? + "\n";
        durable::write(&path, text.as_bytes(), FILE_MODE).with_context(|| format!("{}", path.display()))
    }

    /// What all members know.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn secret(&self) -> Result<ClusterSecret> {
        ClusterSecret::new(self.secret.as_bytes()).context("the member file's secret")
    }

    /// The same, to hand on.
    pub(super) fn secret_text(&self) -> &str {
        &self.secret
    }

    /// The proof of who this box is.
    pub(crate) fn papers(&self) -> Papers {
        Papers { authority: self.authority.clone(), certificate: self.certificate.clone(), key: self.key.clone() }
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    pub(in crate::join) fn member() -> Member {
        let papers = Papers { authority: vec![1], certificate: vec![2, 3], key: vec![255] };
        Member::new(2, "10.0.0.2:6660".into(), "0123456789abcdef0123456789abcdef".into(), papers)
    }

    #[test]
    fn a_member_is_read_as_it_was_written_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Member::read(dir.path()).unwrap().is_none());
        let mut member = member();
        member.peers.insert(1, "10.0.0.1:6660".into());
        member.fresh = Some(Fresh::Founds {});
        member.write(dir.path()).unwrap();
        let file = dir.path().join("member.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Member::read(dir.path()).unwrap().unwrap();
        assert_eq!((read.node, &read.address, &read.peers), (2, &member.address, &member.peers));
        assert_eq!(read.papers().key, [255]);
        assert!(matches!(read.fresh, Some(Fresh::Founds {})));
        read.secret().unwrap();
        assert_eq!(format!("{read:?}"), "Member(2 at 10.0.0.2:6660, ..)");

        let text = fs::read_to_string(&file).unwrap();
        for (wrong, what) in [
            (text.replace("\"version\": 1", "\"version\": 2"), "version 2"),
            (text.replace("\"node\": 2", "\"node\": \"2\""), "no member file"),
            (text.replace("\"key\": \"/w==\"", "\"key\": \"hush\", \"more\": 1"), "no member file"),
            (String::new(), "no member file"),
        ] {
            fs::write(&file, wrong).unwrap();
            let error = format!("{:#}", Member::read(dir.path()).unwrap_err());
            assert!(error.contains(what) && !error.contains("hush"), "{error}");
        }
    }
}
