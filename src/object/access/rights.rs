//! The decision: what somebody may do, by its own policies, and by the rules of the buckets that it names.
//!
//! Sources: "Policy evaluation logic" in AWS's IAM User Guide; "How Amazon S3 authorizes a request" in the S3 User Guide.
//!
//! Invariants
//! - This is the only place where it is decided, for every frontend. What is not granted is denied.
//! - A bucket that was not asked for is a bucket in which nobody may do anything.
//! - Within an account, its policies or the bucket's may allow it; across accounts both must. Who crosses accounts
//!   is at home in every one. Denial wins, but the owner's own key can always see, replace and remove a bucket's policy.

use std::sync::Arc;

use crate::catalog;
use crate::ids::BucketId;
use crate::policy::{self, Decision, Policy, Principal};

use super::rules::BucketRules;
use super::{Caller, Deed};

/// What nobody can take from the owner.
const OWNERS: [&str; 3] = ["s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"];

/// What somebody may do, as of when it was asked for.
#[derive(Clone, Debug)]
pub struct Rights {
    pub(super) caller: Option<Arc<Caller>>,
    pub(super) buckets: Vec<Bucket>,
}

/// A bucket that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) name: String,
    /// None: there is no such bucket.
    pub(super) rules: Option<Arc<BucketRules>>,
    /// The configuration opens its objects to everybody.
    pub(super) is_open: bool,
}

impl Rights {
    /// Whether it may be done.
    pub fn may(&self, deed: &Deed<'_>) -> bool {
        if deed.bucket.is_empty() {
            return self.of_caller(deed).is_allowed();
        }
        let Some(named) = self.buckets.iter().find(|named| named.name == deed.bucket) else { return false };
        match &named.rules {
            None => self.of_caller(deed).or(self.of_open(named, deed)).is_allowed(),
            Some(rules) => self.may_in(named, rules, deed),
        }
    }

    fn may_in(&self, named: &Bucket, rules: &BucketRules, deed: &Deed<'_>) -> bool {
        let is_home = self.is_home(rules);
        let by_bucket = match self.of_bucket(rules, deed) {
            Decision::Allowed if !is_home && rules.is_restricted() => Decision::NotGranted,
            decision => decision,
        };
        let by_caller = self.of_caller(deed);
        if is_home && self.is_account() && OWNERS.contains(&deed.action) {
            return by_caller.is_allowed();
        }
        match (&self.caller, by_caller, by_bucket) {
            (_, Decision::Denied, _) | (_, _, Decision::Denied) => false,
            (None, _, by_bucket) => by_bucket.or(self.of_open(named, deed)).is_allowed(),
            (Some(_), by_caller, by_bucket) if is_home => by_caller.or(by_bucket).is_allowed(),
            (Some(_), by_caller, by_bucket) => {
                // What everybody may without a key, nobody needs a policy of his own for.
                by_caller.is_allowed() && by_bucket.is_allowed() || self.of_open(named, deed).is_allowed()
            }
        }
    }

    /// Whether a bucket is of the account of who asks.
    pub fn owns(&self, bucket: &str) -> bool {
        let named = self.buckets.iter().find(|named| named.name == bucket);
        named.and_then(|named| named.rules.as_ref()).is_some_and(|rules| self.is_home(rules))
    }

    /// Whether there is no such bucket, as the leader says too. Never of who says nothing of himself: nobody is asked for him.
    pub fn lacks(&self, bucket: &str) -> bool {
        let named = self.buckets.iter().find(|named| named.name == bucket);
        self.caller.is_some() && named.is_some_and(|named| named.rules.is_none())
    }

    /// The account that a bucket is of, as it was when it was asked for: what is allowed is allowed in that one's bucket.
    pub fn owner(&self, bucket: &str) -> Option<String> {
        let named = self.buckets.iter().find(|named| named.name == bucket)?;
        named.rules.as_ref().map(|rules| rules.owner.clone())
    }

    /// Which bucket it is.
    pub fn id(&self, bucket: &str) -> Option<BucketId> {
        let named = self.buckets.iter().find(|named| named.name == bucket)?;
        named.rules.as_ref().map(|rules| rules.id)
    }

    /// Whether some policy of who asks, or of a bucket that was asked for, denies anything.
    pub fn deny_something(&self) -> bool {
        let own = self.caller.as_ref().and_then(|caller| caller.policies.as_ref());
        let of_bucket = |named: &Bucket| named.rules.as_ref()?.policy.as_ref().map(Policy::has_denial);
        own.into_iter().flat_map(|policies| &policies.0).any(|policy| policy.has_denial())
            || self.buckets.iter().filter_map(of_bucket).any(|has| has)
    }

    /// The region of a bucket.
    pub fn region(&self, bucket: &str) -> Option<&str> {
        let named = self.buckets.iter().find(|named| named.name == bucket)?;
        named.rules.as_ref().map(|rules| rules.region.as_str())
    }

    /// Whether who asks pays for what he does in a bucket.
    pub fn pays(&self, bucket: &str) -> bool {
        let named = self.buckets.iter().find(|named| named.name == bucket);
        let rules = named.and_then(|named| named.rules.as_ref());
        rules.is_some_and(|rules| rules.requester_pays && !self.is_home(rules))
    }

    /// Whether a bucket is shown to who asks, in a list of all.
    pub fn sees(&self, bucket: &catalog::Bucket) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.crosses_accounts || caller.account_id == bucket.owner)
    }

    /// Whether the policy of some bucket that was asked for, or of who asks, asks for a condition key, in lower case, that
    /// begins so.
    pub fn ask_for(&self, prefix: &str) -> bool {
        let own = self.caller.as_ref().and_then(|caller| caller.policies.as_ref());
        let own = own.into_iter().flat_map(|policies| &policies.0).any(|policy| policy.asks_for(prefix));
        let of_bucket = |named: &Bucket| named.rules.as_ref()?.policy.as_ref().map(|policy| policy.asks_for(prefix));
        own || self.buckets.iter().filter_map(of_bucket).any(|asks| asks)
    }

    fn is_home(&self, rules: &BucketRules) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.crosses_accounts || caller.account_id == rules.owner)
    }

    /// Whether it is an account itself that asks, not one of its users or roles.
    fn is_account(&self) -> bool {
        let is_plain = |caller: &Caller| caller.policies.is_none() && caller.user.is_none() && caller.role.is_none();
        self.caller.as_ref().is_some_and(|caller| is_plain(caller))
    }

    fn of_caller(&self, deed: &Deed<'_>) -> Decision {
        self.caller.as_ref().map_or(Decision::NotGranted, |caller| caller.decide(deed))
    }

    fn of_bucket(&self, rules: &BucketRules, deed: &Deed<'_>) -> Decision {
        let Some(policy) = &rules.policy else { return Decision::NotGranted };
        let principal = self.caller.as_ref().map_or(Principal::Anonymous, |caller| caller.principal());
        let Deed { action, bucket, key, context } = *deed;
        let request = policy::Request { action, bucket, key, principal, context };
        policy.decide(&request)
    }

    fn of_open(&self, named: &Bucket, deed: &Deed<'_>) -> Decision {
        match named.is_open && deed.action == "s3:GetObject" {
            true => Decision::Allowed,
            false => Decision::NotGranted,
        }
    }
}
