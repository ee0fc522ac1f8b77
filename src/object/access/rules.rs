//! What a bucket says of who may do what in it: its owner, its policy, and what it keeps from the public.
//!
//! ```text
//! setting PublicAccessBlock   0  u8  version: 1
//!                             1  u8  1 BlockPublicAcls, 2 IgnorePublicAcls, 4 BlockPublicPolicy, 8 RestrictPublicBuckets
//! setting Policy              the document, as it was sent
//! setting RequestPayment      `Requester`, or `BucketOwner`
//! ```

use crate::catalog::{Setting, View};
use crate::ids::BucketId;
use crate::object;
use crate::policy::{self, Policy};

/// What is kept of who pays, where who asks does; of anything else the owner pays.
pub const REQUESTER_PAYS: &[u8] = b"Requester";
/// The version of what is kept of a public access block.
const BLOCK_VERSION: u8 = 1;

/// What a bucket keeps from the public, whatever its policy and lists say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublicAccessBlock {
    /// No list that opens something to everybody is taken.
    pub block_public_acls: bool,
    /// Those that are there count for nothing.
    pub ignore_public_acls: bool,
    /// No policy that opens something to everybody is taken.
    pub block_public_policy: bool,
    /// Such a policy counts within the owner's account only.
    pub restrict_public_buckets: bool,
}

impl PublicAccessBlock {
    /// As it is kept.
    pub fn to_bytes(self) -> [u8; 2] {
        let switches =
            [self.block_public_acls, self.ignore_public_acls, self.block_public_policy, self.restrict_public_buckets];
        let bits = switches.iter().enumerate().map(|(bit, is_on)| u8::from(*is_on) << bit).sum();
        [BLOCK_VERSION, bits]
    }

    /// None: it was not written by [`PublicAccessBlock::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<PublicAccessBlock> {
        let [BLOCK_VERSION, bits @ 0..16] = *bytes else { return None };
        let is_on = |bit: u8| bits & 1 << bit != 0;
        Some(PublicAccessBlock {
            block_public_acls: is_on(0),
            ignore_public_acls: is_on(1),
            block_public_policy: is_on(2),
            restrict_public_buckets: is_on(3),
        })
    }
}

/// What a bucket says.
#[derive(Clone, Debug)]
pub struct BucketRules {
    /// Which one.
    pub id: BucketId,
    /// The account that owns it.
    pub owner: String,
    /// As it is said to be in.
    pub region: String,
    /// None: it has none.
    pub policy: Option<Policy>,
    /// What it keeps from the public.
    pub block: PublicAccessBlock,
    /// Who asks pays, unless he is of the owner's account.
    pub requester_pays: bool,
}

impl BucketRules {
    /// Whether its policy, being public, counts within the owner's account only.
    pub(super) fn is_restricted(&self) -> bool {
        self.block.restrict_public_buckets && self.policy.as_ref().is_some_and(Policy::is_public)
    }
}

/// None: there is no such bucket.
pub(super) fn find(view: &View<'_>, bucket: &str) -> Result<Option<BucketRules>, object::Error> {
    let Some(found) = view.bucket(bucket)? else { return Ok(None) };
    let policy = view.setting(found.id, Setting::Policy)?;
    let policy = policy.map(|document| Policy::parse(&document, policy::Kind::Resource)).transpose();
    let policy = policy.map_err(|error| object::Error::Corrupt(format!("the policy of bucket {bucket}: {error}")))?;
    let block = view.setting(found.id, Setting::PublicAccessBlock)?;
    let block = block.map(|kept| {
        let corrupt = || object::Error::Corrupt(format!("the public access block of bucket {bucket}"));
        PublicAccessBlock::from_bytes(&kept).ok_or_else(corrupt)
    });
    let block = block.transpose()?.unwrap_or_default();
    let requester_pays = view.setting(found.id, Setting::RequestPayment)?.as_deref() == Some(REQUESTER_PAYS);
    Ok(Some(BucketRules { id: found.id, owner: found.owner, region: found.region, policy, block, requester_pays }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_reads_back_and_nothing_else_is_one() {
        for bits in 0..16 {
            let block = PublicAccessBlock::from_bytes(&[1, bits]);
            assert_eq!(block.map(PublicAccessBlock::to_bytes), Some([1, bits]));
        }
        let golden =
            PublicAccessBlock { block_public_policy: true, restrict_public_buckets: true, ..Default::default() };
        assert_eq!(golden.to_bytes(), [1, 12]);
        for other in [&[][..], &[1], &[2, 0], &[1, 16], &[1, 0, 0]] {
            assert_eq!(PublicAccessBlock::from_bytes(other), None);
        }
    }
}
