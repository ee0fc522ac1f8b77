//! The one place where what goes wrong in the core becomes an S3 error. No catch-all arm.

use predastore::catalog::Refusal;
use predastore::object::Error;

use crate::error::{ErrorCode, S3Error};

/// Maps an error of the core. `Source` never comes here: the body knows its own reason.
pub fn of(error: Error) -> S3Error {
    match error {
        Error::Refused(refusal) => of_refusal(refusal),
        Error::Deleted { .. } => ErrorCode::NoSuchKey.into(),
        Error::DeleteMarker { .. } => ErrorCode::MethodNotAllowed.into(),
        Error::Source => ErrorCode::IncompleteBody.into(),
        Error::BadDigest { what } => S3Error::new(
            ErrorCode::BadDigest,
            format!("The {what} you specified did not match the calculated checksum."),
        ),
        Error::WrongLength { announced, received } => S3Error::from(ErrorCode::IncompleteBody)
            .with("NumberBytesExpected", announced.to_string())
            .with("NumberBytesProvided", received.to_string()),
        Error::TooLarge { limit_bytes } => {
            S3Error::from(ErrorCode::EntityTooLarge).with("MaxSizeAllowed", limit_bytes.to_string())
        }
        Error::InvalidRange { size_bytes } => {
            S3Error::from(ErrorCode::InvalidRange).with("ActualObjectSize", size_bytes.to_string())
        }
        Error::Invalid(message) => S3Error::new(ErrorCode::InvalidRequest, message),
        Error::Full => ErrorCode::InsufficientStorage.into(),
        Error::Overloaded => ErrorCode::SlowDown.into(),
        Error::Unavailable(reason) => S3Error::from(ErrorCode::ServiceUnavailable).because(reason),
        Error::Corrupt(what) => {
            S3Error::new(ErrorCode::InternalError, "The stored bytes of this object are damaged.").because(what)
        }
        Error::Io(error) => S3Error::from(ErrorCode::InternalError).because(error),
        Error::Catalog(error) => S3Error::from(ErrorCode::InternalError).because(error),
        Error::Directory(unknown) => S3Error::from(ErrorCode::InternalError).because(unknown),
    }
}

/// Maps a refusal of the catalog.
pub fn of_refusal(refusal: Refusal) -> S3Error {
    match refusal {
        Refusal::NoSession
        | Refusal::NotLeased(_)
        | Refusal::MapChanged { .. }
        | Refusal::PlaceChanged(_)
        // What only file operations meet.
        | Refusal::NoEntry
        | Refusal::EntryExists
        | Refusal::NotDirectory
        | Refusal::IsDirectory
        | Refusal::DirectoryNotEmpty
        | Refusal::CrossDevice
        | Refusal::NotPermitted
        | Refusal::TooManyLinks
        | Refusal::NameTooLong
        | Refusal::InvalidName
        | Refusal::Stale
        | Refusal::Cycle
        | Refusal::FileTooLarge
        | Refusal::NoXattr
        | Refusal::XattrExists
        | Refusal::XattrTooLarge
        | Refusal::NoSuchOffset
        | Refusal::ReadOnly
        | Refusal::TooManyRows
        | Refusal::RevisionChanged(_)
        | Refusal::LockHeld
        | Refusal::TooManyLocks
        // What only operators meet.
        | Refusal::RecordChanged => {
            ErrorCode::ServiceUnavailable.into()
        }
        Refusal::NoSuchBucket => ErrorCode::NoSuchBucket.into(),
        Refusal::BucketExists { .. } => ErrorCode::BucketAlreadyExists.into(),
        Refusal::BucketNotEmpty => ErrorCode::BucketNotEmpty.into(),
        Refusal::InvalidBucketState => ErrorCode::InvalidBucketState.into(),
        Refusal::NoSuchKey => ErrorCode::NoSuchKey.into(),
        Refusal::NoSuchVersion => ErrorCode::NoSuchVersion.into(),
        Refusal::IsDeleteMarker => ErrorCode::MethodNotAllowed.into(),
        Refusal::PreconditionFailed(condition) => {
            S3Error::from(ErrorCode::PreconditionFailed).with("Condition", condition)
        }
        Refusal::SourceGone => ErrorCode::NoSuchKey.into(),
        Refusal::TooManyClones => ErrorCode::SlowDown.into(),
        Refusal::NoSuchUpload => ErrorCode::NoSuchUpload.into(),
        Refusal::InvalidPart { number } => S3Error::from(ErrorCode::InvalidPart).with("PartNumber", number.to_string()),
        Refusal::InvalidPartOrder => ErrorCode::InvalidPartOrder.into(),
        Refusal::PartTooSmall { number, size_bytes } => S3Error::from(ErrorCode::EntityTooSmall)
            .with("PartNumber", number.to_string())
            .with("ProposedSize", size_bytes.to_string())
            .with("MinSizeAllowed", predastore::units::PART_MIN_BYTES.to_string()),
        Refusal::Locked => {
            S3Error::new(ErrorCode::AccessDenied, "Access Denied because object protected by object lock.")
        }
        Refusal::OutOfBounds(what) => S3Error::new(ErrorCode::InvalidRequest, what),
    }
}
