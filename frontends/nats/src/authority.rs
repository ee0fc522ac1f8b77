//! Who asks, and what they may do; and URLs signed in their name. Both are the appliance's to know.

use std::fmt;
use std::sync::Arc;

use predastore::object;

/// A secret access key, or whatever else must not be shown: no `Display`, and a `Debug` that hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: &str) -> Self {
        Secret(text.into())
    }

    /// The text itself. Whoever calls this answers for where it goes.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Knows the access keys.
pub trait Authority: Send + Sync + 'static {
    /// Who has this access key; none: nobody.
    ///
    /// # Errors
    /// It cannot be told now.
    fn caller(&self, access_key_id: &str) -> impl Future<Output = Result<Option<Caller>, object::Error>> + Send;
}

/// Whether something may be done.
pub type May = Arc<dyn Fn(&Action<'_>) -> bool + Send + Sync>;

/// An access key's holder.
#[derive(Clone)]
pub struct Caller {
    /// The account that it acts for.
    pub account_id: String,
    /// The secret half of the key.
    pub secret: Secret,
    /// What it may do.
    pub may: May,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("account_id", &self.account_id).finish_non_exhaustive()
    }
}

/// What somebody wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Action<'a> {
    /// `s3:GetObject` and so on.
    pub action: &'static str,
    /// The bucket; empty: the service.
    pub bucket: &'a str,
    /// The key; empty: none.
    pub key: &'a str,
}

/// A request to the S3 endpoint that somebody else is to send.
#[derive(Clone, Copy, Debug)]
pub struct ToPresign<'a> {
    /// The key that signs.
    pub access_key_id: &'a str,
    /// Its secret.
    pub secret: &'a Secret,
    /// `GET` or `PUT`.
    pub method: &'static str,
    /// Its bucket.
    pub bucket: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Further parameters of its query, neither encoded nor in order.
    pub query: &'a [(String, String)],
    /// Headers that must be sent with it, names in lower case, in order.
    pub headers: &'a [(String, String)],
    /// When it is signed, Unix seconds.
    pub now_s: i64,
    /// How long it may be sent, seconds.
    pub life_s: u32,
}

/// Signs a request to the S3 endpoint: the whole URL.
pub type Presign = Arc<dyn Fn(&ToPresign<'_>) -> String + Send + Sync>;
