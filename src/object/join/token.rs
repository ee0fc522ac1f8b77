//! Tokens: what lets a box join, for a while.
//!
//! A `record` of kind Token, by the first 16 bytes of the SHA-256 of its secret in hexadecimal: created i64 ns, expires
//! i64 ns, uses left u32 (`object::record`).

use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::catalog::RecordKind;
use crate::env::Timestamp;
use crate::object::access::Secret;
use crate::object::record::{decode, encode};
use crate::object::{self, Store};

use super::Error;

/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Bytes of its hash that name it.
const NAME_BYTES: usize = 16;
/// Digits of the name that people see.
const ID_LEN: usize = 8;
/// So far clocks of the boxes may be apart.
const CLOCK_SLACK_NS: i64 = 600 * 1_000_000_000;
const TTL_MIN: Duration = Duration::from_secs(60);
pub(super) const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
pub(super) const USES_MAX: u32 = 100;
/// Others may use it at the same time: so often it is tried again.
const TRY_COUNT: usize = 10;

/// A token, without its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenInfo {
    /// What people call it.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// Until when it is good.
    pub expires: Timestamp,
    /// How many boxes it still lets in.
    pub uses_left: u32,
}

/// A token as it was made. The secret is not told again.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What is known of it from now on.
    pub info: TokenInfo,
    /// Hexadecimal.
    pub secret: Secret,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Record {
    created: Timestamp,
    expires: Timestamp,
    uses_left: u32,
}

impl Record {
    fn info(self, name: &str) -> TokenInfo {
        let Record { created, expires, uses_left } = self;
        TokenInfo { id: name.chars().take(ID_LEN).collect(), created, expires, uses_left }
    }
}

impl Store {
    /// Makes a token that lets in `uses` boxes within `ttl`.
    ///
    /// # Errors
    /// `Ttl`, `Uses`, `Store`.
    pub async fn create_token(&self, ttl: Duration, uses: u32) -> Result<NewToken, Error> {
        if !(TTL_MIN..=TTL_MAX).contains(&ttl) {
            return Err(Error::Ttl);
        }
        if !(1..=USES_MAX).contains(&uses) {
            return Err(Error::Uses);
        }
        self.wait_for_level(|view| view.has_records(), "some process of the cluster knows no tokens yet").await?;
        self.forget_tokens().await?;
        let mut secret = [0; SECRET_BYTES];
        self.env.rng.fill(&mut secret);
        let secret = Secret::new(&hex(&secret));
        let created = self.now();
        let expires = Timestamp(created.0.saturating_add(i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX)));
        let record = Record { created, expires, uses_left: uses };
        let name = name_of(&secret);
        match self.set_record(RecordKind::Token, &name, None, Some(encode(&record))).await? {
            true => Ok(NewToken { info: record.info(&name), secret }),
            false => Err(Error::Store(object::Error::Overloaded)),
        }
    }

    /// The tokens that are good, the one that ends first before others.
    ///
    /// # Errors
    /// `Store`.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        let now = self.now();
        let all = self.token_records().await?.into_iter();
        let mut good: Vec<TokenInfo> =
            all.filter(|(_, _, record)| record.expires > now).map(|(name, _, record)| record.info(&name)).collect();
        good.sort_by_key(|token| token.expires);
        Ok(good)
    }

    /// Ends a token: the one whose id begins so.
    ///
    /// # Errors
    /// `NoSuchToken`, `Store`.
    pub async fn revoke_token(&self, id: &str) -> Result<(), Error> {
        let none = || Error::NoSuchToken(id.to_owned());
        for _ in 0..TRY_COUNT {
            let mut found =
                self.token_records().await?.into_iter().filter(|(name, ..)| !id.is_empty() && name.starts_with(id));
            let (Some((name, was, _)), None) = (found.next(), found.next()) else { return Err(none()) };
            if self.set_record(RecordKind::Token, &name, Some(was), None).await? {
                return Ok(());
            }
        }
        Err(Error::Store(object::Error::Overloaded))
    }

    /// Whether the token with `secret` would let somebody in.
    ///
    /// # Errors
    /// `Token`: it would not; `Store`.
    pub async fn check_token(&self, secret: &Secret) -> Result<(), Error> {
        self.good_token(&name_of(secret)).await.map(drop)
    }

    /// Takes one use of the token with `secret`.
    ///
    /// # Errors
    /// `Token`, `Store`.
    pub(super) async fn use_token(&self, secret: &Secret) -> Result<(), Error> {
        let name = name_of(secret);
        for _ in 0..TRY_COUNT {
            let (record, was) = self.good_token(&name).await?;
            let uses_left = record.uses_left - 1;
            let value = (uses_left > 0).then(|| encode(&Record { uses_left, ..record }));
            if self.set_record(RecordKind::Token, &name, Some(was), value).await? {
                return Ok(());
            }
        }
        Err(Error::Store(object::Error::Overloaded))
    }

    async fn good_token(&self, name: &str) -> Result<(Record, Bytes), Error> {
        let wanted = name.to_owned();
        let found = self.snapshot(move |view| Ok(view.record(RecordKind::Token, &wanted)?)).await?;
        let value = found.ok_or(Error::Token)?;
        let record: Record = decode("token", &value)?;
        let now = self.now();
        // A clock that went back makes no token good again.
        let is_of_later = record.created.0 > now.0.saturating_add(CLOCK_SLACK_NS);
        match record.expires > now && !is_of_later && record.uses_left > 0 {
            true => Ok((record, value)),
            false => Err(Error::Token),
        }
    }

    /// Tokens that have ended are of no use to anybody.
    async fn forget_tokens(&self) -> Result<(), Error> {
        let now = self.now();
        for (name, was, _) in self.token_records().await?.into_iter().filter(|(_, _, record)| record.expires <= now) {
            self.set_record(RecordKind::Token, &name, Some(was), None).await?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) async fn token_records_count(&self) -> usize {
        self.token_records().await.map_or(0, |records| records.len())
    }

    async fn token_records(&self) -> Result<Vec<(String, Bytes, Record)>, Error> {
        let records = self.snapshot(|view| Ok(view.records(RecordKind::Token)?)).await?;
        let records = records.into_iter().map(|(name, value)| Ok((name, value.clone(), decode("token", &value)?)));
        Ok(records.collect::<Result<_, object::Error>>()?)
    }
}

/// What the catalog calls the token with `secret`.
fn name_of(secret: &Secret) -> String {
    let hash = digest::digest(&digest::SHA256, secret.reveal().as_bytes());
    hex(hash.as_ref().get(..NAME_BYTES).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
