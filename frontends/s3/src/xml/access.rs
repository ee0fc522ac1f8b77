//! Who may do what in a bucket, as XML: public access blocks, ownership controls, whether a policy is public.

use predastore::object::access::PublicAccessBlock;

use super::Writer;
use super::reader::{Element, malformed};
use crate::error::S3Error;

/// Who owns what others put into a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The bucket's owner, and lists count for nothing.
    BucketOwnerEnforced,
    /// The bucket's owner, where the list that comes along says so.
    BucketOwnerPreferred,
    /// Who put it.
    ObjectWriter,
}

impl Ownership {
    const ALL: [Ownership; 3] =
        [Ownership::BucketOwnerEnforced, Ownership::BucketOwnerPreferred, Ownership::ObjectWriter];

    /// As S3 calls it.
    pub fn name(self) -> &'static str {
        match self {
            Ownership::BucketOwnerEnforced => "BucketOwnerEnforced",
            Ownership::BucketOwnerPreferred => "BucketOwnerPreferred",
            Ownership::ObjectWriter => "ObjectWriter",
        }
    }

    /// None: S3 knows none of that name.
    pub fn parse(name: &str) -> Option<Ownership> {
        Ownership::ALL.into_iter().find(|ownership| ownership.name() == name)
    }
}

/// Reads an OwnershipControls: one rule.
///
/// # Errors
/// `MalformedXML`.
pub fn ownership_controls(body: &[u8]) -> Result<Ownership, S3Error> {
    let root = Element::parse(body)?.called("OwnershipControls")?.only(&["Rule"])?;
    let rule = root.child("Rule")?.ok_or_else(malformed)?;
    Ownership::parse(rule.required("ObjectOwnership")?.trim()).ok_or_else(malformed)
}

/// GetBucketOwnershipControls.
pub fn write_ownership(ownership: Ownership) -> String {
    Writer::document("OwnershipControls", |xml| {
        xml.element("Rule", |xml| xml.text("ObjectOwnership", ownership.name()));
    })
}

const BLOCK_ELEMENTS: [&str; 4] = ["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"];

/// Reads a PublicAccessBlockConfiguration; what it does not name is off.
///
/// # Errors
/// `MalformedXML`.
pub fn public_access_block(body: &[u8]) -> Result<PublicAccessBlock, S3Error> {
    let root = Element::parse(body)?.called("PublicAccessBlockConfiguration")?.only(&BLOCK_ELEMENTS)?;
    let is_on = |name: &str| match root.child_text(name)?.map(str::trim) {
        None => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(malformed()),
    };
    let [block_public_acls, ignore_public_acls, block_public_policy, restrict_public_buckets] =
        BLOCK_ELEMENTS.map(is_on);
    Ok(PublicAccessBlock {
        block_public_acls: block_public_acls?,
        ignore_public_acls: ignore_public_acls?,
        block_public_policy: block_public_policy?,
        restrict_public_buckets: restrict_public_buckets?,
    })
}

/// GetPublicAccessBlock.
pub fn write_block(block: PublicAccessBlock) -> String {
    let switches =
        [block.block_public_acls, block.ignore_public_acls, block.block_public_policy, block.restrict_public_buckets];
    Writer::document("PublicAccessBlockConfiguration", |xml| {
        BLOCK_ELEMENTS.iter().zip(switches).for_each(|(name, is_on)| xml.value(name, is_on));
    })
}

/// GetBucketPolicyStatus.
pub fn policy_status(is_public: bool) -> String {
    Writer::document("PolicyStatus", |xml| xml.value("IsPublic", is_public))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_block_reads_back() {
        for bits in 0..16 {
            let block = PublicAccessBlock::from_bytes(&[1, bits]).unwrap();
            assert_eq!(public_access_block(write_block(block).as_bytes()).unwrap(), block);
        }
        let some = b"<PublicAccessBlockConfiguration><BlockPublicPolicy>TRUE</BlockPublicPolicy></PublicAccessBlockConfiguration>";
        let block = public_access_block(some).unwrap();
        assert_eq!(block, PublicAccessBlock { block_public_policy: true, ..Default::default() });
        for bad in [
            "<PublicAccessBlockConfiguration><BlockPublicPolicy>1</BlockPublicPolicy></PublicAccessBlockConfiguration>",
            "<PublicAccessBlockConfiguration><Other>true</Other></PublicAccessBlockConfiguration>",
            "<Other/>",
        ] {
            assert!(public_access_block(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_ownership_reads_back() {
        for ownership in Ownership::ALL {
            assert_eq!(ownership_controls(write_ownership(ownership).as_bytes()).unwrap(), ownership);
        }
        for bad in [
            "<OwnershipControls/>",
            "<OwnershipControls><Rule><ObjectOwnership>Nobody</ObjectOwnership></Rule></OwnershipControls>",
            "<OwnershipControls><Rule/><Rule/></OwnershipControls>",
        ] {
            assert!(ownership_controls(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
