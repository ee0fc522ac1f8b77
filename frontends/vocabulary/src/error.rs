//! Every S3 error that a frontend answers, in one table: the code on the wire, the HTTP status, the default message.
//!
//! Invariant: a code is written nowhere else, so status and code cannot disagree.

use std::borrow::Cow;
use std::fmt;

macro_rules! error_codes {
    ($($code:ident $status:literal $message:literal)*) => {
        /// An S3 error code, as named by the S3 API reference.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum ErrorCode { $($code),* }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$code),*];

            /// The code as it stands in `<Code>`.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$code => stringify!($code)),* }
            }

            /// The HTTP status, 3xx to 5xx.
            pub fn status(self) -> u16 {
                match self { $(ErrorCode::$code => $status),* }
            }

            /// The message S3 gives when there is nothing more precise to say.
            pub fn default_message(self) -> &'static str {
                match self { $(ErrorCode::$code => $message),* }
            }
        }
    };
}

error_codes! {
    AccessControlListNotSupported 400 "The bucket does not allow ACLs."
    AccessDenied 403 "Access Denied"
    AccessForbidden 403 "CORSResponse: This CORS request is not allowed."
    AuthorizationHeaderMalformed 400 "The authorization header that you provided is not valid."
    AuthorizationQueryParametersError 400 "The authorization query parameters that you provided are not valid."
    BadDigest 400 "The Content-MD5 or checksum value that you specified did not match what the server received."
    BadRequest 400 "Bad Request"
    BucketAlreadyExists 409 "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again."
    BucketAlreadyOwnedByYou 409 "Your previous request to create the named bucket succeeded and you already own it."
    BucketNotEmpty 409 "The bucket you tried to delete is not empty."
    ConditionalRequestConflict 409 "The conditional request cannot succeed due to a conflicting operation against this resource."
    EntityTooLarge 400 "Your proposed upload exceeds the maximum allowed size."
    EntityTooSmall 400 "Your proposed upload is smaller than the minimum allowed size."
    ExpiredToken 400 "The provided token has expired."
    IllegalLocationConstraintException 400 "The specified location constraint is incompatible for the region specific endpoint this request was sent to."
    IllegalVersioningConfigurationException 400 "The versioning configuration specified in the request is invalid."
    IncompleteBody 400 "The request body terminated unexpectedly."
    InsufficientStorage 507 "The store does not have the space to satisfy the request."
    InternalError 500 "We encountered an internal error. Please try again."
    InvalidAccessKeyId 403 "The AWS Access Key Id you provided does not exist in our records."
    InvalidArgument 400 "Invalid Argument"
    InvalidBucketAclWithObjectOwnership 400 "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"
    InvalidBucketName 400 "The specified bucket is not valid."
    InvalidBucketOwnerAWSAccountID 400 "The value of the expected bucket owner parameter must be an AWS Account ID"
    InvalidBucketState 409 "The request is not valid for the current state of the bucket."
    InvalidDigest 400 "The Content-MD5 you specified is not valid."
    InvalidLocationConstraint 400 "The specified location constraint is not valid."
    InvalidObjectState 403 "The operation is not valid for the object's storage class."
    InvalidPart 400 "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."
    InvalidPartNumber 416 "The requested partnumber is not satisfiable"
    InvalidPartOrder 400 "The list of parts was not in ascending order. Parts must be ordered by part number."
    InvalidRange 416 "The requested range is not satisfiable"
    InvalidRedirectLocation 400 "The website redirect location must have a prefix of 'http://' or 'https://' or '/'."
    InvalidRequest 400 "Invalid Request"
    InvalidSecurity 403 "The provided security credentials are not valid."
    InvalidStorageClass 400 "The storage class you specified is not valid"
    InvalidTag 400 "The tag provided was not a valid tag. This error can occur if the tag did not pass input validation."
    InvalidToken 400 "The provided token is malformed or otherwise not valid."
    InvalidURI 400 "Couldn't parse the specified URI."
    KeyTooLongError 400 "Your key is too long"
    MalformedACLError 400 "The XML you provided was not well-formed or did not validate against our published schema"
    MalformedPOSTRequest 400 "The body of your POST request is not well-formed multipart/form-data."
    MalformedPolicy 400 "This policy contains invalid Json"
    MalformedTrailerError 400 "The request contained trailing data that was not well-formed or did not conform to our published schema."
    MalformedXML 400 "The XML you provided was not well-formed or did not validate against our published schema"
    MaxMessageLengthExceeded 400 "Your request was too big."
    MetadataTooLarge 400 "Your metadata headers exceed the maximum allowed metadata size"
    MethodNotAllowed 405 "The specified method is not allowed against this resource."
    MissingContentLength 411 "You must provide the Content-Length HTTP header."
    MissingRequestBodyError 400 "Request body is empty."
    MissingSecurityHeader 400 "Your request is missing a required header."
    NoSuchBucket 404 "The specified bucket does not exist"
    NoSuchBucketPolicy 404 "The bucket policy does not exist"
    NoSuchCORSConfiguration 404 "The CORS configuration does not exist"
    NoSuchConfiguration 404 "The specified configuration does not exist."
    NoSuchKey 404 "The specified key does not exist."
    NoSuchLifecycleConfiguration 404 "The lifecycle configuration does not exist"
    NoSuchObjectLockConfiguration 404 "The specified object does not have a ObjectLock configuration"
    NoSuchPublicAccessBlockConfiguration 404 "The public access block configuration was not found"
    NoSuchTagSet 404 "The TagSet does not exist"
    NoSuchUpload 404 "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    NoSuchVersion 404 "The specified version does not exist."
    NoSuchWebsiteConfiguration 404 "The specified bucket does not have a website configuration"
    NotImplemented 501 "A header you provided implies functionality that is not implemented"
    ObjectLockConfigurationNotFoundError 404 "Object Lock configuration does not exist for this bucket"
    OperationAborted 409 "A conflicting conditional operation is currently in progress against this resource. Try again."
    OwnershipControlsNotFoundError 404 "The bucket ownership controls were not found"
    PermanentRedirect 301 "The bucket you are attempting to access must be addressed using the specified endpoint."
    PreconditionFailed 412 "At least one of the pre-conditions you specified did not hold"
    ReplicationConfigurationNotFoundError 404 "The replication configuration was not found"
    RequestTimeTooSkewed 403 "The difference between the request time and the current time is too large."
    RequestTimeout 400 "Your socket connection to the server was not read from or written to within the timeout period."
    ServerSideEncryptionConfigurationNotFoundError 404 "The server side encryption configuration was not found"
    ServiceUnavailable 503 "Service is unable to handle request."
    SignatureDoesNotMatch 403 "The request signature we calculated does not match the signature you provided. Check your key and signing method."
    SlowDown 503 "Please reduce your request rate."
    TooManyBuckets 400 "You have attempted to create more buckets than allowed"
    UnexpectedContent 400 "This request contains unsupported content."
    UserKeyMustBeSpecified 400 "The bucket POST must contain the specified field name. If it is specified, check the order of the fields."
    XAmzContentSHA256Mismatch 400 "The provided 'x-amz-content-sha256' header does not match what was computed."
}

/// One refused request: a code, the message for this case, and the extra elements S3 puts in the error body.
///
/// `fields` may echo what the client sent (a canonical request); write them to the client, not to a log.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Error {
    /// The code; it decides the HTTP status.
    pub code: ErrorCode,
    /// What `<Message>` says.
    pub message: Cow<'static, str>,
    /// Further elements of the error body, in order.
    pub fields: Vec<(&'static str, String)>,
    /// Headers that go with the answer.
    pub headers: Vec<(&'static str, String)>,
    /// What failed in the store, for the log alone.
    pub cause: Option<String>,
}

impl S3Error {
    /// `code` with a message more precise than the default one.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        S3Error { code, message: message.into(), fields: Vec::new(), headers: Vec::new(), cause: None }
    }

    /// Adds the element `name` to the error body.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Adds the element `name` unless there is one.
    #[must_use]
    pub fn or_with(self, name: &'static str, value: &str) -> Self {
        let has = self.fields.iter().any(|(known, _)| *known == name);
        if has { self } else { self.with(name, value) }
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Says what failed in the store. Whoever answers logs it, with the request's id.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// `InvalidArgument` naming the argument, as S3 words it.
    pub fn invalid_argument(
        message: impl Into<Cow<'static, str>>,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        S3Error::new(ErrorCode::InvalidArgument, message).with("ArgumentName", name).with("ArgumentValue", value)
    }
}

impl From<ErrorCode> for S3Error {
    fn from(code: ErrorCode) -> Self {
        S3Error::new(code, code.default_message())
    }
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl fmt::Debug for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.fields.iter().map(|(name, _)| name).collect();
        write!(f, "S3Error({self}, fields {names:?})")
    }
}

impl std::error::Error for S3Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_an_error_or_a_redirect_and_every_message_is_said() {
        for code in ErrorCode::ALL {
            assert!((301..=507).contains(&code.status()), "{code:?}");
            assert!(!code.default_message().is_empty(), "{code:?}");
        }
    }

    #[test]
    fn codes_that_clients_switch_on_keep_their_status() {
        let expected = [
            (ErrorCode::NoSuchKey, "NoSuchKey", 404),
            (ErrorCode::BadDigest, "BadDigest", 400),
            (ErrorCode::PreconditionFailed, "PreconditionFailed", 412),
            (ErrorCode::SlowDown, "SlowDown", 503),
            (ErrorCode::KeyTooLongError, "KeyTooLongError", 400),
            (ErrorCode::InsufficientStorage, "InsufficientStorage", 507),
        ];
        for (code, name, status) in expected {
            assert_eq!((code.as_str(), code.status()), (name, status));
        }
    }

    #[test]
    fn debug_shows_field_names_but_no_values() {
        let error = S3Error::from(ErrorCode::AccessDenied).with("CanonicalRequest", "private");
        let shown = format!("{error:?}");
        assert!(shown.contains("CanonicalRequest") && !shown.contains("private"), "{shown}");
    }
}
