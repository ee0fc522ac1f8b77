//! The `Range` header. S3 serves a single byte range; anything else, malformed or multiple, is as if absent.

use std::ops::Range;

/// One syntactically valid byte range, not yet compared with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=first-last`; both inclusive, `first <= last`.
    Closed {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte; may lie past the end.
        last: u64,
    },
    /// `bytes=first-`: to the end.
    From {
        /// Offset of the first byte.
        first: u64,
    },
    /// `bytes=-len`: the last bytes.
    Suffix {
        /// How many bytes; may exceed the object.
        len_bytes: u64,
    },
}

/// The range selects no byte of the object: 416, with `Content-Range: bytes */len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsatisfiable {
    /// The object's length.
    pub len_bytes: u64,
}

impl ByteRange {
    /// Reads a `Range` header. `None`: serve the whole object.
    pub fn parse(header: &str) -> Option<ByteRange> {
        let (unit, spec) = header.trim().split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = spec.trim().split_once('-')?;
        match (first, last) {
            ("", suffix) => Some(ByteRange::Suffix { len_bytes: offset(suffix)? }),
            (first, "") => Some(ByteRange::From { first: offset(first)? }),
            (first, last) => closed(offset(first)?, offset(last)?),
        }
    }

    /// Reads `x-amz-copy-source-range`: only `bytes=first-last`. `None`: S3 answers `InvalidArgument`.
    pub fn parse_copy_source(header: &str) -> Option<ByteRange> {
        Self::parse(header).filter(|range| matches!(range, ByteRange::Closed { .. }))
    }

    /// The half-open range of an object of `len_bytes` that this selects; never empty.
    ///
    /// # Errors
    /// `Unsatisfiable` when it selects no byte, so always for an empty object.
    pub fn resolve(self, len_bytes: u64) -> Result<Range<u64>, Unsatisfiable> {
        let range = match self {
            ByteRange::Closed { first, last } => first..last.saturating_add(1).min(len_bytes),
            ByteRange::From { first } => first..len_bytes,
            ByteRange::Suffix { len_bytes: suffix } => len_bytes.saturating_sub(suffix)..len_bytes,
        };
        if range.is_empty() { Err(Unsatisfiable { len_bytes }) } else { Ok(range) }
    }
}

fn closed(first: u64, last: u64) -> Option<ByteRange> {
    (first <= last).then_some(ByteRange::Closed { first, last })
}

/// Digits only. An offset past `u64` is past every object, so it saturates.
fn offset(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn served(header: &str, len_bytes: u64) -> Option<Result<Range<u64>, Unsatisfiable>> {
        ByteRange::parse(header).map(|range| range.resolve(len_bytes))
    }

    #[test]
    fn single_ranges() {
        assert_eq!(served("bytes=0-9", 100), Some(Ok(0..10)));
        assert_eq!(served("bytes=90-1000", 100), Some(Ok(90..100)));
        assert_eq!(served("bytes=5-", 100), Some(Ok(5..100)));
        assert_eq!(served("bytes=-5", 100), Some(Ok(95..100)));
        assert_eq!(served("bytes=-500", 100), Some(Ok(0..100)));
        assert_eq!(served("Bytes=0-0", 1), Some(Ok(0..1)));
        assert_eq!(served("bytes=0-99999999999999999999999", 3), Some(Ok(0..3)));
    }

    #[test]
    fn past_the_end_is_unsatisfiable() {
        for header in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(served(header, 100), Some(Err(Unsatisfiable { len_bytes: 100 })), "{header}");
        }
        for header in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            assert_eq!(served(header, 0), Some(Err(Unsatisfiable { len_bytes: 0 })), "{header}");
        }
    }

    #[test]
    fn malformed_and_multiple_ranges_are_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=1-2-3",
            "0-1",
            "bytes=0 - 1",
        ] {
            assert_eq!(ByteRange::parse(header), None, "{header}");
        }
    }

    #[test]
    fn a_copy_source_range_has_both_ends() {
        assert_eq!(ByteRange::parse_copy_source("bytes=1-2"), Some(ByteRange::Closed { first: 1, last: 2 }));
        for header in ["bytes=1-", "bytes=-1", "1-2"] {
            assert_eq!(ByteRange::parse_copy_source(header), None);
        }
    }

    proptest! {
        /// The model: the offsets of the object that the header names, one by one.
        #[test]
        fn agrees_with_a_byte_by_byte_model(first in 0u64..40, last in 0u64..40, len in 0u64..30, form in 0..3) {
            let (header, selected): (_, Vec<u64>) = match form {
                0 => (format!("bytes={first}-{last}"), (0..len).filter(|i| (first..=last).contains(i)).collect()),
                1 => (format!("bytes={first}-"), (0..len).filter(|i| *i >= first).collect()),
                _ => (format!("bytes=-{last}"), (0..len).filter(|i| i + last >= len).collect()),
            };
            match served(&header, len) {
                None => prop_assert!(form == 0 && first > last),
                Some(Ok(range)) => prop_assert_eq!(range.collect::<Vec<_>>(), selected),
                Some(Err(_)) => prop_assert!(selected.is_empty()),
            }
        }
    }
}
