//! URLs signed in the name of who asks: how that is done is the appliance's to know.

use std::sync::Arc;

use predastore::object::access::Secret;

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
