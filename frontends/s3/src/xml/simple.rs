//! Configurations of a bucket that are one word, and those of which there are none.

use super::Writer;
use super::reader::{Element, malformed};
use crate::error::S3Error;

/// Reads a RequestPaymentConfiguration: whether who asks pays.
///
/// # Errors
/// `MalformedXML`.
pub fn request_payment(body: &[u8]) -> Result<bool, S3Error> {
    let root = Element::parse(body)?.called("RequestPaymentConfiguration")?.only(&["Payer"])?;
    match root.required("Payer")?.trim() {
        "Requester" => Ok(true),
        "BucketOwner" => Ok(false),
        _ => Err(malformed()),
    }
}

/// GetBucketRequestPayment.
pub fn write_request_payment(requester_pays: bool) -> String {
    let payer = if requester_pays { "Requester" } else { "BucketOwner" };
    Writer::document("RequestPaymentConfiguration", |xml| xml.text("Payer", payer))
}

/// Reads an AccelerateConfiguration: its state.
///
/// # Errors
/// `MalformedXML`.
pub fn accelerate(body: &[u8]) -> Result<&'static str, S3Error> {
    let root = Element::parse(body)?.called("AccelerateConfiguration")?.only(&["Status"])?;
    match root.required("Status")?.trim() {
        "Enabled" => Ok("Enabled"),
        "Suspended" => Ok("Suspended"),
        _ => Err(malformed()),
    }
}

/// GetBucketAccelerateConfiguration; none: it was never set.
pub fn write_accelerate(status: Option<&str>) -> String {
    Writer::document("AccelerateConfiguration", |xml| xml.optional("Status", status))
}

/// GetBucketLogging of a bucket that is not logged.
pub fn no_logging() -> String {
    Writer::document("BucketLoggingStatus", |_| {})
}

/// A list of configurations of which there are none; `name` is what S3 calls the list.
pub fn no_configurations(name: &str) -> String {
    Writer::document(name, |xml| xml.value("IsTruncated", false))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for requester_pays in [true, false] {
            assert_eq!(request_payment(write_request_payment(requester_pays).as_bytes()).unwrap(), requester_pays);
        }
        for status in ["Enabled", "Suspended"] {
            assert_eq!(accelerate(write_accelerate(Some(status)).as_bytes()).unwrap(), status);
        }
        assert!(
            request_payment(b"<RequestPaymentConfiguration><Payer>Me</Payer></RequestPaymentConfiguration>").is_err()
        );
        assert!(accelerate(b"<AccelerateConfiguration/>").is_err());
    }
}
