//! The checksums S3 knows and how requests carry them. Values on the wire are base64 of big-endian bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

use crate::error::{ErrorCode, S3Error};

pub use predastore::catalog::{Checksum, ChecksumAlgorithm, ChecksumKind as ChecksumType};

use ChecksumAlgorithm::*;

/// How an algorithm is spelled.
pub trait Spelling: Sized {
    /// All of them.
    const ALL: [Self; 5];
    /// `CRC32`, as in `x-amz-checksum-algorithm`.
    fn name(self) -> &'static str;
    /// `x-amz-checksum-crc32`, lower-case.
    fn header(self) -> &'static str;
    /// `ChecksumCRC32`, the element in XML bodies.
    fn element(self) -> &'static str;
    /// Length of a value.
    fn len_bytes(self) -> usize;
    /// Whether the checksum of a whole can be had from those of its parts.
    fn combines(self) -> bool;
    /// Reads a name, in any case.
    fn from_name(name: &str) -> Option<Self>;
    /// Reads a header's name, in any case.
    fn from_header(header: &str) -> Option<Self>;
}

impl Spelling for ChecksumAlgorithm {
    const ALL: [ChecksumAlgorithm; 5] = [Crc32, Crc32c, Crc64Nvme, Sha1, Sha256];

    fn name(self) -> &'static str {
        match self {
            Crc32 => "CRC32",
            Crc32c => "CRC32C",
            Crc64Nvme => "CRC64NVME",
            Sha1 => "SHA1",
            Sha256 => "SHA256",
        }
    }

    fn header(self) -> &'static str {
        match self {
            Crc32 => "x-amz-checksum-crc32",
            Crc32c => "x-amz-checksum-crc32c",
            Crc64Nvme => "x-amz-checksum-crc64nvme",
            Sha1 => "x-amz-checksum-sha1",
            Sha256 => "x-amz-checksum-sha256",
        }
    }

    fn element(self) -> &'static str {
        match self {
            Crc32 => "ChecksumCRC32",
            Crc32c => "ChecksumCRC32C",
            Crc64Nvme => "ChecksumCRC64NVME",
            Sha1 => "ChecksumSHA1",
            Sha256 => "ChecksumSHA256",
        }
    }

    fn len_bytes(self) -> usize {
        match self {
            Crc32 | Crc32c => 4,
            Crc64Nvme => 8,
            Sha1 => 20,
            Sha256 => 32,
        }
    }

    fn combines(self) -> bool {
        matches!(self, Crc32 | Crc32c | Crc64Nvme)
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    fn from_header(header: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.header().eq_ignore_ascii_case(header))
    }
}

/// How a checksum's value is written: base64.
pub trait Base64: Sized {
    /// `None` unless `bytes` has the algorithm's length.
    fn new(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Option<Self>;
    /// Reads base64. `None` when it is not, or has the wrong length.
    fn parse(algorithm: ChecksumAlgorithm, base64: &str) -> Option<Self>;
    /// The value as it stands in headers and XML.
    fn to_base64(&self) -> String;
}

impl Base64 for Checksum {
    fn new(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Option<Checksum> {
        let fits = bytes.len() == algorithm.len_bytes();
        fits.then(|| Checksum { algorithm, kind: ChecksumType::FullObject, value: bytes.to_vec() })
    }

    fn parse(algorithm: ChecksumAlgorithm, base64: &str) -> Option<Checksum> {
        Checksum::new(algorithm, &STANDARD.decode(base64).ok()?)
    }

    fn to_base64(&self) -> String {
        STANDARD.encode(&self.value)
    }
}

/// Which algorithms a kind suits, and how it is spelled.
pub trait Kind: Sized {
    /// `COMPOSITE` or `FULL_OBJECT`.
    fn name(self) -> &'static str;
    /// What an upload gets when it does not say.
    fn default_for(algorithm: ChecksumAlgorithm) -> Self;
    /// Reads `x-amz-checksum-type`; absent is `None`.
    ///
    /// # Errors
    /// `InvalidRequest`: an unknown type, or one that the algorithm cannot have.
    fn from_headers(headers: &HeaderMap, algorithm: Option<ChecksumAlgorithm>) -> Result<Option<Self>, S3Error>;
    /// Reads `x-amz-checksum-type` of what has its algorithm already.
    ///
    /// # Errors
    /// `InvalidRequest`: an unknown type.
    fn said(headers: &HeaderMap) -> Result<Option<Self>, S3Error>;
}

impl Kind for ChecksumType {
    fn name(self) -> &'static str {
        match self {
            ChecksumType::Composite => "COMPOSITE",
            ChecksumType::FullObject => "FULL_OBJECT",
        }
    }

    fn default_for(algorithm: ChecksumAlgorithm) -> ChecksumType {
        if algorithm == Crc64Nvme { ChecksumType::FullObject } else { ChecksumType::Composite }
    }

    fn from_headers(
        headers: &HeaderMap,
        algorithm: Option<ChecksumAlgorithm>,
    ) -> Result<Option<ChecksumType>, S3Error> {
        let Some(kind) = ChecksumType::said(headers)? else { return Ok(None) };
        match algorithm {
            None => {
                Err(refuse("The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."))
            }
            Some(algorithm) if !suits(kind, algorithm) => Err(refuse(format!(
                "The {} checksum type cannot be used with the {} checksum algorithm.",
                kind.name(),
                algorithm.name().to_lowercase()
            ))),
            Some(_) => Ok(Some(kind)),
        }
    }

    fn said(headers: &HeaderMap) -> Result<Option<ChecksumType>, S3Error> {
        let Some(text) = header(headers, "x-amz-checksum-type")? else { return Ok(None) };
        let both = [ChecksumType::Composite, ChecksumType::FullObject];
        let found = both.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(text));
        found.map(Some).ok_or_else(|| invalid_value("x-amz-checksum-type"))
    }
}

fn suits(kind: ChecksumType, algorithm: ChecksumAlgorithm) -> bool {
    match kind {
        ChecksumType::Composite => algorithm != Crc64Nvme,
        ChecksumType::FullObject => algorithm.combines(),
    }
}

/// What a new upload announces of its parts' checksums; the kind is the algorithm's own where it is not said.
///
/// # Errors
/// `InvalidRequest`: an unknown algorithm or kind, or two that do not go together.
pub fn of_upload(headers: &HeaderMap) -> Result<Option<(ChecksumAlgorithm, ChecksumType)>, S3Error> {
    let algorithm = algorithm_header(headers, "x-amz-checksum-algorithm")?;
    let kind = ChecksumType::from_headers(headers, algorithm)?;
    Ok(algorithm.map(|algorithm| (algorithm, kind.unwrap_or(ChecksumType::default_for(algorithm)))))
}

/// Compares a small body with what its sender promised.
///
/// # Errors
/// `BadDigest`.
pub fn verify(body: &[u8], md5: Option<[u8; 16]>, promised: Option<&Checksum>) -> Result<(), S3Error> {
    predastore::object::verify(body, md5, promised.map(std::slice::from_ref).unwrap_or_default())
        .map_err(crate::failure::of)
}

/// The checksum a request promises for its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// None.
    Nothing,
    /// In a header, so known before the body.
    Value(Checksum),
    /// In a trailer, so known after it.
    Trailer(ChecksumAlgorithm),
}

impl Expected {
    /// Which checksum to compute over the body, if any.
    pub fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        match self {
            Expected::Nothing => None,
            Expected::Value(value) => Some(value.algorithm),
            Expected::Trailer(algorithm) => Some(*algorithm),
        }
    }

    /// Reads `x-amz-checksum-*`, `x-amz-trailer` and `x-amz-sdk-checksum-algorithm` of a request with a body.
    ///
    /// # Errors
    /// `InvalidRequest`: more than one checksum, a value of the wrong length or not base64, an algorithm that
    /// contradicts the checksum or stands alone, a trailer that is no checksum.
    pub fn from_headers(headers: &HeaderMap) -> Result<Expected, S3Error> {
        let expected = match (header_checksum(headers)?, trailer_algorithm(headers)?) {
            (Some(_), Some(_)) => return Err(refuse(MULTIPLE)),
            (Some(value), None) => Expected::Value(value),
            (None, Some(algorithm)) => Expected::Trailer(algorithm),
            (None, None) => Expected::Nothing,
        };
        check_sdk_algorithm(headers, &expected)?;
        Ok(expected)
    }

    /// Takes the trailers' value once the body has ended. `trailers`: lower-case names.
    ///
    /// # Errors
    /// `MalformedTrailerError`: the promised trailer is missing; `InvalidRequest`: its value is malformed.
    pub fn resolve(self, trailers: &[(String, String)]) -> Result<Option<Checksum>, S3Error> {
        match self {
            Expected::Nothing => Ok(None),
            Expected::Value(value) => Ok(Some(value)),
            Expected::Trailer(algorithm) => {
                let found = trailers.iter().find(|(name, _)| name == algorithm.header());
                let (_, text) = found.ok_or(ErrorCode::MalformedTrailerError)?;
                Ok(Some(parse_value(algorithm, text)?))
            }
        }
    }
}

const MULTIPLE: &str = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.";
const NOT_VALUES: [&str; 3] = ["x-amz-checksum-algorithm", "x-amz-checksum-type", "x-amz-checksum-mode"];

fn header_checksum(headers: &HeaderMap) -> Result<Option<Checksum>, S3Error> {
    let mut found = None;
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("x-amz-checksum-") || NOT_VALUES.contains(&name) {
            continue;
        }
        let algorithm =
            ChecksumAlgorithm::from_header(name).ok_or_else(|| refuse(format!("Unknown checksum header {name}.")))?;
        let text = value.to_str().map_err(|_| invalid_value(name))?;
        if found.replace(parse_value(algorithm, text)?).is_some() {
            return Err(refuse(MULTIPLE));
        }
    }
    Ok(found)
}

fn parse_value(algorithm: ChecksumAlgorithm, text: &str) -> Result<Checksum, S3Error> {
    Checksum::parse(algorithm, text.trim()).ok_or_else(|| invalid_value(algorithm.header()))
}

fn trailer_algorithm(headers: &HeaderMap) -> Result<Option<ChecksumAlgorithm>, S3Error> {
    let Some(text) = header(headers, "x-amz-trailer")? else {
        return Ok(None);
    };
    let mut names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    match (names.next(), names.next()) {
        (None, _) => Ok(None),
        (Some(name), None) => {
            let unknown = || refuse("The value specified in the x-amz-trailer header is not supported");
            ChecksumAlgorithm::from_header(name).map(Some).ok_or_else(unknown)
        }
        (Some(_), Some(_)) => Err(refuse(MULTIPLE)),
    }
}

fn check_sdk_algorithm(headers: &HeaderMap, expected: &Expected) -> Result<(), S3Error> {
    let Some(named) = algorithm_header(headers, "x-amz-sdk-checksum-algorithm")? else {
        return Ok(());
    };
    match expected.algorithm() {
        Some(actual) if actual == named => Ok(()),
        Some(_) => Err(invalid_value("x-amz-sdk-checksum-algorithm")),
        None => Err(refuse(
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.",
        )),
    }
}

/// Reads a header that names an algorithm: `x-amz-checksum-algorithm` or `x-amz-sdk-checksum-algorithm`.
///
/// # Errors
/// `InvalidRequest`: an unknown algorithm.
pub fn algorithm_header(headers: &HeaderMap, name: &'static str) -> Result<Option<ChecksumAlgorithm>, S3Error> {
    let Some(text) = header(headers, name)? else {
        return Ok(None);
    };
    let unsupported = || {
        refuse(
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
        )
    };
    ChecksumAlgorithm::from_name(text).map(Some).ok_or_else(unsupported)
}

/// Reads `Content-MD5`.
///
/// # Errors
/// `InvalidDigest`: not base64 of 16 bytes.
pub fn content_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>, S3Error> {
    let Some(value) = headers.get("content-md5") else {
        return Ok(None);
    };
    let bytes = STANDARD.decode(value.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(Some).ok_or_else(|| ErrorCode::InvalidDigest.into())
}

fn header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, S3Error> {
    headers.get(name).map(|value| value.to_str().map(str::trim)).transpose().map_err(|_| invalid_value(name))
}

fn refuse(message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::new(ErrorCode::InvalidRequest, message)
}

fn invalid_value(name: &str) -> S3Error {
    refuse(format!("Value for {name} header is invalid."))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    fn expected(pairs: &[(&'static str, &str)]) -> Result<Expected, ErrorCode> {
        Expected::from_headers(&headers(pairs)).map_err(|error| error.code)
    }

    #[test]
    fn names_round_trip() {
        for algorithm in ChecksumAlgorithm::ALL {
            assert_eq!(ChecksumAlgorithm::from_name(&algorithm.name().to_lowercase()), Some(algorithm));
            assert_eq!(ChecksumAlgorithm::from_header(&algorithm.header().to_uppercase()), Some(algorithm));
            let value = Checksum::new(algorithm, &vec![7; algorithm.len_bytes()]).unwrap();
            assert_eq!(Checksum::parse(algorithm, &value.to_base64()), Some(value));
            assert_eq!(Checksum::new(algorithm, &vec![7; algorithm.len_bytes() + 1]), None);
            assert!(algorithm.element().ends_with(algorithm.name()));
        }
    }

    #[test]
    fn a_header_or_a_trailer() {
        let value = Checksum::parse(Crc32c, "sOO8/Q==").unwrap();
        assert_eq!(expected(&[]), Ok(Expected::Nothing));
        assert_eq!(expected(&[("x-amz-checksum-crc32c", "sOO8/Q==")]), Ok(Expected::Value(value)));
        assert_eq!(expected(&[("x-amz-trailer", "X-Amz-Checksum-Crc32c")]), Ok(Expected::Trailer(Crc32c)));
        assert_eq!(
            expected(&[("x-amz-trailer", "x-amz-checksum-sha1"), ("x-amz-sdk-checksum-algorithm", "SHA1")]),
            Ok(Expected::Trailer(Sha1))
        );
        assert_eq!(
            expected(&[
                ("x-amz-checksum-mode", "ENABLED"),
                ("x-amz-checksum-algorithm", "SHA1"),
                ("x-amz-checksum-type", "COMPOSITE")
            ]),
            Ok(Expected::Nothing)
        );
    }

    #[test]
    fn contradictions_are_invalid_requests() {
        let crc = ("x-amz-checksum-crc32", "AAAAAA==");
        for pairs in [
            &[crc, ("x-amz-checksum-crc32c", "AAAAAA==")][..],
            &[crc, crc],
            &[crc, ("x-amz-trailer", "x-amz-checksum-crc32")],
            &[crc, ("x-amz-sdk-checksum-algorithm", "SHA1")],
            &[("x-amz-sdk-checksum-algorithm", "SHA1")],
            &[("x-amz-sdk-checksum-algorithm", "MD5")],
            &[("x-amz-checksum-crc32", "AAAAAAAA")],
            &[("x-amz-checksum-crc32", "not base64")],
            &[("x-amz-checksum-md5", "AAAAAA==")],
            &[("x-amz-trailer", "x-amz-meta-late")],
            &[("x-amz-trailer", "x-amz-checksum-crc32, x-amz-checksum-sha1")],
        ] {
            assert_eq!(expected(pairs), Err(ErrorCode::InvalidRequest), "{pairs:?}");
        }
    }

    #[test]
    fn a_promised_trailer_must_come() {
        let trailers = [("x-amz-checksum-crc32c".to_owned(), "sOO8/Q==".to_owned())];
        let value = Checksum::parse(Crc32c, "sOO8/Q==");
        assert_eq!(Expected::Trailer(Crc32c).resolve(&trailers).unwrap(), value);
        assert_eq!(Expected::Trailer(Sha1).resolve(&trailers).unwrap_err().code, ErrorCode::MalformedTrailerError);
        assert_eq!(Expected::Nothing.resolve(&trailers).unwrap(), None);
    }

    #[test]
    fn types_suit_their_algorithms() {
        let read = |text: &str, algorithm| {
            ChecksumType::from_headers(&headers(&[("x-amz-checksum-type", text)]), algorithm).map_err(|e| e.code)
        };
        assert_eq!(read("FULL_OBJECT", Some(Crc32)), Ok(Some(ChecksumType::FullObject)));
        assert_eq!(read("COMPOSITE", Some(Sha256)), Ok(Some(ChecksumType::Composite)));
        for (text, algorithm) in
            [("FULL_OBJECT", Some(Sha1)), ("COMPOSITE", Some(Crc64Nvme)), ("HALF", Some(Crc32)), ("COMPOSITE", None)]
        {
            assert_eq!(read(text, algorithm), Err(ErrorCode::InvalidRequest), "{text} {algorithm:?}");
        }
        assert_eq!(ChecksumType::from_headers(&HeaderMap::new(), None).unwrap(), None);
        assert_eq!(ChecksumType::default_for(Crc64Nvme), ChecksumType::FullObject);
        assert_eq!(ChecksumType::default_for(Crc32), ChecksumType::Composite);
    }

    #[test]
    fn content_md5_is_16_bytes() {
        let md5 = |text: &str| content_md5(&headers(&[("content-md5", text)])).map_err(|error| error.code);
        assert_eq!(md5("AAAAAAAAAAAAAAAAAAAAAA=="), Ok(Some([0; 16])));
        for text in ["", "AAAA", "YWJj", "AAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(md5(text), Err(ErrorCode::InvalidDigest), "{text}");
        }
        assert_eq!(content_md5(&HeaderMap::new()).unwrap(), None);
    }
}
