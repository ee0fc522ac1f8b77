//! What a box that joins and the box that lets it in say: one HTTPS request, `POST /join`, JSON both ways. Keys and
//! certificates are Base64 of DER, or PEM where they are kept so.
//!
//! Additions are new fields with a default; what cannot be told so is a new version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of this.
pub(super) const VERSION: u32 = 1;
/// Path of the request.
pub(super) const PATH: &str = "/join";
/// Longest request or answer.
pub(super) const MAX_BYTES: usize = 64 << 10;

/// Who wants to join.
#[derive(Serialize, Deserialize)]
pub(super) struct Asking {
    pub(super) version: u32,
    /// The token's.
    pub(super) secret: String,
    /// Where others are to reach it: "host:port".
    pub(super) address: String,
    /// What its machine calls itself.
    pub(super) host: String,
    /// Of its disk.
    pub(super) capacity_bytes: u64,
    /// The newest feature level that its program knows.
    pub(super) level: u32,
    /// Of its node's key, Ed25519.
    #[serde(with = "base64_text")]
    pub(super) node_key: Vec<u8>,
    /// Of its HTTPS endpoint's key, P-256.
    #[serde(with = "base64_text")]
    pub(super) server_key: Vec<u8>,
    /// What clients may call that endpoint.
    pub(super) names: Vec<String>,
    /// Only what would become of it is asked.
    #[serde(default)]
    pub(super) dry_run: bool,
}

/// What it is told.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// This would become of the cluster.
    Plan(String),
    /// It is let in.
    Welcome(Box<Welcome>),
    /// It is not, for this reason.
    Refused(String),
}

/// What makes a box a member.
#[derive(Serialize, Deserialize)]
pub(super) struct Welcome {
    /// What becomes of the cluster.
    pub(super) plan: String,
    /// Its number.
    pub(super) node: u64,
    /// What all members know: keys of chunks are derived from it.
    pub(super) secret: String,
    /// The authority's certificate, PEM.
    pub(super) authority: String,
    /// Its node's certificate.
    #[serde(with = "base64_text")]
    pub(super) certificate: Vec<u8>,
    /// Its HTTPS endpoint's, with what is to be known of it again: PEM.
    pub(super) server: String,
    /// Root's credentials.
    pub(super) root: Root,
    /// The other boxes, and where they are.
    pub(super) peers: BTreeMap<u64, String>,
}

/// Root's credentials.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Root {
    pub(super) access_key: String,
    pub(super) secret_key: String,
    pub(super) account_id: String,
}

/// Bytes as Base64.
pub(super) mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(|_| D::Error::custom("no Base64"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_later_program_may_say_more() {
        let text = r#"{"version":1,"secret":"s","address":"a:1","host":"h","capacity_bytes":7,"level":4,"node_key":"AQI=",
            "server_key":"","names":["n"],"colour":"blue"}"#;
        let asking: Asking = serde_json::from_str(text).unwrap();
        assert_eq!((asking.node_key.as_slice(), asking.dry_run), (&[1, 2][..], false));
        for wrong in ["", "{}", "[]", &text.replace("AQI=", "AQI"), &text.replace("7", "-7")] {
            assert!(serde_json::from_str::<Asking>(wrong).is_err(), "{wrong}");
        }
    }
}
