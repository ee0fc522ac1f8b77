//! What forges a request, and what a forged request is.

use predastore_tests::http::Request;
use predastore_tests::random::{Rng, body};
use predastore_tests::s3::S3;

pub(crate) const MISMATCH: &[(u16, &str)] = &[(403, "SignatureDoesNotMatch")];
pub(crate) const DENIED: &[(u16, &str)] = &[(403, "AccessDenied")];

/// A request that must be refused, and how.
pub(crate) struct Forged {
    pub(crate) what: &'static str,
    pub(crate) request: Request,
    /// Acceptable answers: (status, code); an empty code stands for any. Status 0: the connection may just be closed.
    pub(crate) refusals: &'static [(u16, &'static str)],
}

pub(crate) struct Forger {
    pub(crate) s3: S3,
    pub(crate) rng: Rng,
}

/// Makes one request of a kind.
pub(crate) type Generator = fn(&mut Forger) -> Forged;

impl Forger {
    pub(crate) fn signed(&self, mut request: Request) -> Request {
        self.s3.signer.sign(&mut request);
        request
    }

    /// A request that would succeed if it were signed as it should be, and would change something where it can.
    pub(crate) fn honest(&mut self) -> Request {
        let key = format!("forged-{}", self.rng.below(1000));
        let delete = "<Delete><Object><Key>present</Key></Object></Delete>";
        match self.rng.below(7) {
            0 => self.s3.request("GET", "attacked", "present", "", ""),
            1 => self.s3.request("DELETE", "attacked", "present", "", ""),
            2 => self.s3.request("GET", "attacked", "", "list-type=2", ""),
            3 => self.s3.request("POST", "attacked", "", "delete", delete),
            4 => self.s3.request("POST", "attacked", &key, "uploads", ""),
            _ => self.s3.request("PUT", "attacked", &key, "", body(1, 200)),
        }
    }

    pub(crate) fn honest_put(&mut self) -> Request {
        let (key, len) = (format!("forged-{}", self.rng.below(1000)), 1 + self.rng.below(2000));
        self.s3.request("PUT", "attacked", &key, "", body(2, len as usize))
    }

    pub(crate) fn noise(&mut self, len: u64) -> String {
        let len = 1 + self.rng.below(len) as usize;
        self.rng.text(b"abcXYZ019 /=,;&%$!?<>\"'\\#-_.~", len)
    }
}
