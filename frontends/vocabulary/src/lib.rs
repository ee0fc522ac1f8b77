//! S3's words, whatever carries them: what two frontends say and hear in the same way. Pure: values in, values out.
//!
//! - [`error`]: every S3 error, in one table; [`failure`]: the core's errors as S3's.
//! - [`names`]: what a bucket and a key may be called. [`attrs`]: what an object carries beside its bytes.
//! - [`notification`]: who is told of what happens in a bucket, and how.
//! - [`conditions`]: If-Match and its kin; [`range`]: byte ranges; [`dates`]: the three forms of a time.

pub mod attrs;
pub mod conditions;
pub mod dates;
pub mod error;
pub mod failure;
pub mod names;
pub mod notification;
pub mod range;
