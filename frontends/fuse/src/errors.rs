//! The core's errors as errno, in one table.

use nix::errno::Errno;
use predastore::catalog::Refusal;
use predastore::ids::Ino;
use predastore::object::Error;
use tracing::{error, warn};

/// What a request that failed with `error` is answered.
pub fn errno(error: &Error) -> Errno {
    match error {
        Error::Refused(refusal) => of_refusal(refusal),
        Error::Deleted { .. } | Error::DeleteMarker { .. } => Errno::ENOENT,
        Error::TooLarge { .. } => Errno::EFBIG,
        Error::InvalidRange { .. } | Error::Invalid(_) => Errno::EINVAL,
        Error::Full => Errno::ENOSPC,
        // Asked again until the deadline before this is answered.
        Error::Overloaded => Errno::EIO,
        Error::Unavailable(_) | Error::Corrupt(_) | Error::Io(_) | Error::Catalog(_) | Error::Directory(_) => {
            Errno::EIO
        }
        // Of bodies that a client sends; no request of the kernel has one.
        Error::Source | Error::BadDigest { .. } | Error::WrongLength { .. } => Errno::EIO,
    }
}

fn of_refusal(refusal: &Refusal) -> Errno {
    match refusal {
        Refusal::NoEntry | Refusal::NoSuchBucket | Refusal::NoSuchKey | Refusal::NoSuchVersion => Errno::ENOENT,
        Refusal::EntryExists | Refusal::XattrExists | Refusal::BucketExists { .. } => Errno::EEXIST,
        Refusal::NotDirectory => Errno::ENOTDIR,
        Refusal::IsDirectory => Errno::EISDIR,
        Refusal::DirectoryNotEmpty | Refusal::BucketNotEmpty => Errno::ENOTEMPTY,
        Refusal::CrossDevice => Errno::EXDEV,
        Refusal::NotPermitted | Refusal::Locked => Errno::EPERM,
        Refusal::TooManyLinks => Errno::EMLINK,
        Refusal::NameTooLong => Errno::ENAMETOOLONG,
        Refusal::InvalidName => Errno::EILSEQ,
        Refusal::Stale | Refusal::SourceGone | Refusal::IsDeleteMarker => Errno::ESTALE,
        Refusal::Cycle => Errno::EINVAL,
        Refusal::FileTooLarge => Errno::EFBIG,
        Refusal::NoXattr => Errno::ENODATA,
        Refusal::XattrTooLarge => Errno::ENOSPC,
        Refusal::NoSuchOffset => Errno::ENXIO,
        Refusal::LockHeld => Errno::EAGAIN,
        Refusal::TooManyLocks => Errno::ENOLCK,
        Refusal::ReadOnly | Refusal::InvalidBucketState => Errno::EROFS,
        // What the core keeps to itself: tried again there, or a fault of ours.
        Refusal::NoSession
        | Refusal::NotLeased(_)
        | Refusal::MapChanged { .. }
        | Refusal::PlaceChanged(_)
        | Refusal::RevisionChanged(_)
        | Refusal::TooManyRows
        | Refusal::TooManyClones
        | Refusal::PreconditionFailed(_)
        | Refusal::OutOfBounds(_)
        | Refusal::NoSuchUpload
        | Refusal::InvalidPart { .. }
        | Refusal::InvalidPartOrder
        | Refusal::PartTooSmall { .. }
        | Refusal::RecordChanged => Errno::EIO,
    }
}

/// [`errno`], and a line in the log where it is one that nobody expects: the only place that logs them.
pub(crate) fn answered(operation: &'static str, ino: Ino, error: &Error) -> Errno {
    let errno = errno(error);
    match error {
        Error::Unavailable(_) | Error::Overloaded => warn!(operation, %ino, %error, "a file operation failed"),
        _ if errno == Errno::EIO => error!(operation, %ino, %error, "a file operation failed"),
        _ => {}
    }
    errno
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_what_programs_expect() {
        let expected = [
            (Refusal::NoEntry, Errno::ENOENT),
            (Refusal::EntryExists, Errno::EEXIST),
            (Refusal::NotDirectory, Errno::ENOTDIR),
            (Refusal::IsDirectory, Errno::EISDIR),
            (Refusal::DirectoryNotEmpty, Errno::ENOTEMPTY),
            (Refusal::CrossDevice, Errno::EXDEV),
            (Refusal::NotPermitted, Errno::EPERM),
            (Refusal::TooManyLinks, Errno::EMLINK),
            (Refusal::NameTooLong, Errno::ENAMETOOLONG),
            (Refusal::InvalidName, Errno::EILSEQ),
            (Refusal::Stale, Errno::ESTALE),
            (Refusal::Cycle, Errno::EINVAL),
            (Refusal::FileTooLarge, Errno::EFBIG),
            (Refusal::NoXattr, Errno::ENODATA),
            (Refusal::XattrExists, Errno::EEXIST),
            (Refusal::XattrTooLarge, Errno::ENOSPC),
            (Refusal::NoSuchOffset, Errno::ENXIO),
            (Refusal::ReadOnly, Errno::EROFS),
            (Refusal::LockHeld, Errno::EAGAIN),
            (Refusal::TooManyLocks, Errno::ENOLCK),
            (Refusal::NoSession, Errno::EIO),
        ];
        for (refusal, errno) in expected {
            assert_eq!(super::errno(&Error::Refused(refusal.clone())), errno, "{refusal:?}");
        }
    }

    #[test]
    fn a_full_store_and_a_broken_one_are_told_apart() {
        assert_eq!(errno(&Error::Full), Errno::ENOSPC);
        assert_eq!(errno(&Error::TooLarge { limit_bytes: 1 }), Errno::EFBIG);
        let broken = [
            Error::Unavailable(String::new()),
            Error::Corrupt(String::new()),
            Error::Io(std::io::Error::other("")),
            Error::Catalog(predastore::catalog::Error::Closed),
            Error::Overloaded,
        ];
        assert!(broken.iter().all(|error| errno(error) == Errno::EIO));
    }
}
