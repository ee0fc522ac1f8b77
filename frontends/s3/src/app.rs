//! One request, from its head to its answer: name it, route it, authenticate it, authorize it, do it, account for it.
//!
//! Invariants
//! - This is the only way in, and it denies by default: no operation runs before `authenticate` and `authorize`.
//! - Every answer has a request id, and an error body names the same one.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Router};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use predastore::object::access::{Authority, Caller, Deed, Rights, Tagged};
use predastore::object::{Pressure, Store, Target as Object};

use crate::auth::{self, Authenticated, Identity, RequestHead, SignedBy, Verifier};
use crate::body::Upload;
use crate::context::{OfRequest, Touched};
use crate::error::{ErrorCode, S3Error};
use crate::metrics::Metrics;
use crate::names::{CopySource, Target};
use crate::query::Query;
use crate::route::{Level, Operation};
use crate::server::Peer;
use crate::{failure, hoisted, operations, respond};

/// What the frontend is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The region that buckets are in unless they say otherwise.
    pub region: String,
    /// Domains under which `bucket.domain` names a bucket; lower case.
    pub domains: Vec<String>,
    /// How long to wait for the next bytes of a body.
    pub stall: Duration,
    /// Clients come over TLS.
    pub tls: bool,
    /// What happens in buckets is published, if they say so.
    pub tells_events: bool,
}

/// The frontend: everything a request needs.
pub struct App {
    /// The store.
    pub store: Store,
    /// Settings.
    pub config: Config,
    authority: Arc<Authority>,
    verifier: Verifier,
    metrics: Metrics,
    request_id_base: u64,
    request_count: AtomicU64,
}

/// A request that may be carried out.
pub struct Request {
    /// Method, URI and headers.
    pub head: Parts,
    /// The decoded query.
    pub query: Query,
    /// Bucket and key.
    pub target: Target,
    /// Who asks, proven; none: anybody.
    pub caller: Option<Arc<Caller>>,
    /// What it asks for.
    pub operation: Operation,
    /// What he may do in the buckets that are named, as of the last look.
    rights: Mutex<Arc<Rights>>,
    /// Tags of the objects that are named, where policies ask for them.
    pub tagged: Tagged,
    /// Where the signature was; none: there is none.
    pub signed_by: Option<SignedBy>,
    /// From where.
    pub peer: Option<SocketAddr>,
}

impl Request {
    /// What the sender may do in the buckets that are named.
    pub fn rights(&self) -> Arc<Rights> {
        self.rights.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bucket's name; empty for the service.
    pub fn bucket(&self) -> &str {
        self.target.bucket.as_deref().unwrap_or_default()
    }

    /// The account that asks; empty for anybody.
    pub fn account_id(&self) -> &str {
        self.caller.as_ref().map_or("", |caller| caller.account_id.as_str())
    }

    /// The key; empty where there is none.
    pub fn key(&self) -> &str {
        self.target.key.as_deref().unwrap_or_default()
    }

    /// A header's value.
    ///
    /// # Errors
    /// `InvalidArgument`: not visible ASCII.
    pub fn header(&self, name: &str) -> Result<Option<&str>, S3Error> {
        header_of(&self.head.headers, name)
    }
}

/// As [`Request::header`].
pub fn header_of<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, S3Error> {
    let text = |value: &'a HeaderValue| {
        std::str::from_utf8(value.as_bytes())
            .map_err(|_| S3Error::invalid_argument("The header is not valid UTF-8", name.to_owned(), ""))
    };
    headers.get(name).map(text).transpose()
}

/// What the log line and the counters say of a request.
#[derive(Default)]
struct Account {
    operation: Option<Operation>,
    bucket: String,
    key: String,
    /// The key that signed, or is said to have.
    access_key_id: Option<String>,
    /// Whose it is, proven.
    caller: Option<Arc<Caller>>,
    received_bytes: u64,
    /// The connection ends with this answer.
    close: bool,
}

impl App {
    /// Begins the frontend. `authority`: who may do what.
    pub fn new(
        store: Store,
        config: Config,
        authority: Arc<Authority>,
        metrics: Metrics,
        request_id_base: u64,
    ) -> Self {
        let verifier = Verifier::new(Vec::new());
        App { store, config, authority, verifier, metrics, request_id_base, request_count: AtomicU64::new(0) }
    }

    /// The router that [`crate::server::serve`] serves: every path and method comes to one handler.
    pub fn router(self) -> Router {
        Router::new().fallback(handle).with_state(Arc::new(self))
    }

    fn request_id(&self) -> String {
        let count = self.request_count.fetch_add(1, Ordering::Relaxed);
        // Multiplying by an odd constant is a bijection: ids differ, and do not show how many there were.
        format!("{:016X}", self.request_id_base.wrapping_add(count.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    async fn answer(
        &self,
        (head, peer): (Parts, Option<SocketAddr>),
        body: Body,
        account: &mut Account,
    ) -> Result<Response, S3Error> {
        let mut body = Upload::new(body, &head.headers, self.config.stall);
        let answered = self.carry_out((head, peer), &mut body, account).await;
        account.received_bytes = body.received_bytes();
        account.close = body.continue_was_withheld();
        if answered.is_err() {
            // A client that is still sending would otherwise see a reset connection instead of the error.
            body.drain().await;
        }
        answered.map_err(|error| named(error, account))
    }

    async fn carry_out(
        &self,
        (mut head, peer): (Parts, Option<SocketAddr>),
        body: &mut Upload,
        account: &mut Account,
    ) -> Result<Response, S3Error> {
        let query = Query::parse(head.uri.query().unwrap_or_default())?;
        let host = head.uri.host().or(header_of(&head.headers, "host")?);
        if host.is_none() && head.version == Version::HTTP_11 {
            return Err(S3Error::new(ErrorCode::BadRequest, "An HTTP/1.1 request needs a Host header."));
        }
        let target = Target::parse(host, head.uri.path(), &self.config.domains)?;
        account.bucket.push_str(target.bucket.as_deref().unwrap_or_default());
        account.key.push_str(target.key.as_deref().unwrap_or_default());
        let headers = hoisted::headers(&head.headers, &query)?;
        let operation = Operation::of(&head.method, Level::from(&target), &query, &headers)?;
        account.operation = Some(operation);

        // The headers as they were sent are those that must be signed.
        let (caller, authenticated) = self.authenticate(&head, &query, account).await?;
        if let Cow::Owned(headers) = headers {
            head.headers = headers;
        }
        let signed_by = match authenticated.identity {
            Identity::Anonymous => None,
            Identity::Signed { how, .. } => Some(how),
        };
        account.caller.clone_from(&caller);
        let source = source_of(operation, &head.headers)?;
        let rights = self.rights(operation, caller.clone(), &target, source.as_ref()).await?;
        let objects = App::decided_by_tags(operation, &target, &query, source.as_ref());
        let tagged = Tagged::of(&self.store, &rights, objects).await.map_err(failure::of)?;
        let rights = Mutex::new(Arc::new(rights));
        let request = Request { head, query, target, caller, operation, rights, tagged, signed_by, peer };
        self.authorize(operation, &request, source.as_ref()).map_err(|error| {
            match request.rights().region(request.bucket()) {
                // Who looks where a bucket is, is told where, that he may go there.
                Some(region) if operation == Operation::HeadBucket => error.with_header("x-amz-bucket-region", region),
                _ => error,
            }
        })?;
        if operation != Operation::CreateBucket && request.rights().lacks(request.bucket()) {
            return Err(ErrorCode::NoSuchBucket.into());
        }
        let is_charged = self.charge(&request, source.as_ref())?;
        body.verify(authenticated.payload);
        let mut response = operations::carry_out(self, operation, &request, body).await?;
        if is_charged {
            response.headers_mut().insert("x-amz-request-charged", HeaderValue::from_static("requester"));
        }
        if request.head.method == Method::PUT && self.store.pressure() >= Pressure::NearFull {
            response.headers_mut().insert("x-predastore-pool-pressure", HeaderValue::from_static("nearfull"));
        }
        Ok(response)
    }

    async fn authenticate(
        &self,
        head: &Parts,
        query: &Query,
        account: &mut Account,
    ) -> Result<(Option<Arc<Caller>>, Authenticated), S3Error> {
        let request =
            RequestHead { method: head.method.as_str(), raw_path: head.uri.path(), query, headers: &head.headers };
        let Some(claim) = self.verifier.claim(&request, self.store.now().seconds())? else {
            return Ok((None, auth::anonymous(&request)?));
        };
        account.access_key_id = Some(claim.access_key_id().to_owned());
        let caller = self.authority.caller(claim.access_key_id()).await.map_err(failure::of)?;
        let secret = caller.as_ref().map(|caller| &caller.secret);
        let authenticated = self.verifier.verify(&request, &claim, secret)?;
        if let Some(caller) = &caller {
            auth::check_session(&request, caller.session.as_ref(), self.store.now())?;
        }
        Ok((caller, authenticated))
    }

    /// What the sender may do in the buckets that the request names.
    async fn rights(
        &self,
        operation: Operation,
        caller: Option<Arc<Caller>>,
        target: &Target,
        source: Option<&CopySource>,
    ) -> Result<Rights, S3Error> {
        let bucket = target.bucket.as_deref().unwrap_or_default();
        if operation == Operation::CreateBucket {
            return Ok(self.authority.rights_to_make(caller, bucket));
        }
        let source = source.map_or("", |source| source.bucket.as_str());
        self.authority.rights(caller, &[bucket, source]).await.map_err(failure::of)
    }

    /// The objects whose tags may decide: what is read, or whose description is read or changed.
    fn decided_by_tags(
        operation: Operation,
        target: &Target,
        query: &Query,
        source: Option<&CopySource>,
    ) -> Vec<Object> {
        // A version that is none is found out later.
        let object = |bucket: &str, key: &str, version: Option<&str>| Object {
            bucket: bucket.to_owned(),
            key: key.as_bytes().to_vec(),
            version: version.and_then(|version| version.parse().ok()),
        };
        let named = target.bucket.as_ref().zip(target.key.as_ref());
        let named = named.filter(|_| operation.is_about_object() || operation.is_conditional());
        let named = named.map(|(bucket, key)| object(bucket, key, query.get("versionId")));
        let source = source.map(|source| object(&source.bucket, &source.key, source.version_id.as_deref()));
        named.into_iter().chain(source).collect()
    }

    /// Denies by default: the operation's action on what it names, what its headers ask for besides, and reading the source of
    /// a copy.
    fn authorize(&self, operation: Operation, request: &Request, source: Option<&CopySource>) -> Result<(), S3Error> {
        if operation.is_preflight() {
            // A preflight carries no identity, and is answered the same to everybody, by the rules of the bucket.
            return Ok(());
        }
        let (bucket, key) = (request.bucket(), request.key());
        // Of many keys, each is decided by itself once they are known; nobody in particular is not asked for them.
        // So are tags that come in a body, where policies ask for those.
        let by_key = operation == Operation::DeleteObjects && request.caller.is_some();
        let by_tags = operation == Operation::PutObjectTagging && request.rights().ask_for("s3:requestobjecttag");
        if !by_key && !by_tags {
            self.require(request, operation.action(request.query.has("versionId")), bucket, key)?;
        }
        // A condition on what there is tells what there is.
        let asks = request.header("if-match")?.is_some_and(|tag| tag != "*") && operation.is_conditional();
        if operation == Operation::GetObjectAttributes || asks {
            self.require(request, Operation::GetObject.action(request.query.has("versionId")), bucket, key)?;
        }
        if request.head.headers.contains_key("x-amz-tagging") && operation.writes_object() {
            self.require(request, Operation::PutObjectTagging.action(false), bucket, key)?;
        }
        let Some(source) = source else { return Ok(()) };
        let read = Operation::GetObject.action(source.version_id.is_some());
        let version = source.version_id.as_deref();
        self.require_of(request, read, &Touched { bucket: &source.bucket, key: &source.key, version, tags: None })
    }

    /// Whether who asks is charged for it. He must say that he knows, in a header or in the query; and be somebody.
    fn charge(&self, request: &Request, source: Option<&CopySource>) -> Result<bool, S3Error> {
        if request.operation.is_preflight() {
            return Ok(false);
        }
        let buckets = [Some(request.bucket()), source.map(|source| source.bucket.as_str())];
        let is_charged = buckets.into_iter().flatten().any(|bucket| request.rights().pays(bucket));
        let payer = request.header("x-amz-request-payer")?.or(request.query.get("x-amz-request-payer"));
        let knows = request.caller.is_some() && payer.is_some_and(|payer| payer.eq_ignore_ascii_case("requester"));
        if is_charged && !knows { Err(ErrorCode::AccessDenied.into()) } else { Ok(is_charged) }
    }

    /// # Errors
    /// `AccessDenied` unless the request's sender, or anybody, may do `action` to `key` (empty: to the bucket) in `bucket`
    /// (empty: on the service).
    pub fn require(&self, request: &Request, action: &str, bucket: &str, key: &str) -> Result<(), S3Error> {
        let version = request.query.get("versionId");
        self.require_of(request, action, &Touched { bucket, key, version, tags: None })
    }

    /// As [`App::require`], of what is told apart from what the request names.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn require_of(&self, request: &Request, action: &str, touched: &Touched<'_>) -> Result<(), S3Error> {
        let Touched { bucket, key, .. } = *touched;
        let deed = Deed { action, bucket, key, context: &OfRequest { app: self, request, touched } };
        match request.rights().may(&deed) {
            true => Ok(()),
            false => Err(S3Error::new(ErrorCode::AccessDenied, "Access Denied")),
        }
    }

    /// Looks again what the sender may: the body of his request may have taken long.
    ///
    /// # Errors
    /// `NoSuchBucket`: the bucket is another one by now. `AccessDenied`: he may not any more. `InvalidAccessKeyId`: his key counts
    /// no more.
    pub async fn confirm(&self, request: &Request) -> Result<(), S3Error> {
        let operation = request.operation;
        if operation == Operation::CreateBucket {
            return Ok(());
        }
        let source = source_of(operation, &request.head.headers)?;
        let caller = match &request.caller {
            None => None,
            Some(caller) => {
                let again = self.authority.caller(&caller.access_key_id).await.map_err(failure::of)?;
                Some(again.ok_or(ErrorCode::InvalidAccessKeyId)?)
            }
        };
        let rights = self.rights(operation, caller, &request.target, source.as_ref()).await?;
        if rights.id(request.bucket()) != request.rights().id(request.bucket()) {
            return Err(ErrorCode::NoSuchBucket.into());
        }
        *request.rights.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rights);
        self.authorize(operation, request, source.as_ref())
    }
}

/// What a copy is of; none: it is none.
fn source_of(operation: Operation, headers: &HeaderMap) -> Result<Option<CopySource>, S3Error> {
    match header_of(headers, "x-amz-copy-source")? {
        Some(source) if matches!(operation, Operation::CopyObject | Operation::UploadPartCopy) => {
            CopySource::parse(source).map(Some)
        }
        _ => Ok(None),
    }
}

/// S3 says in the body what is missing; where nothing closer was said, it is what the request names.
fn named(error: S3Error, account: &Account) -> S3Error {
    match error.code {
        ErrorCode::NoSuchBucket => error.or_with("BucketName", &account.bucket),
        ErrorCode::NoSuchKey => error.or_with("Key", &account.key),
        _ => error,
    }
}

async fn handle(State(app): State<Arc<App>>, peer: Option<Extension<Peer>>, request: http::Request<Body>) -> Response {
    let begun = Instant::now();
    app.metrics.begin();
    let request_id = app.request_id();
    let (head, body) = request.into_parts();
    let method = head.method.clone();
    let resource = head.uri.path().to_owned();
    let origin = head.headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).map(str::to_owned);
    let mut account = Account::default();
    let peer = peer.map(|peer| peer.0.0);
    let answered = app.answer((head, peer), body, &mut account).await;
    let code = answered.as_ref().err().map(|error| error.code);
    let cause = answered.as_ref().err().and_then(|error| error.cause.clone());
    let mut response = answered.unwrap_or_else(|error| respond::error(&error, &resource, &request_id, &method));
    seal(&mut response, &request_id, &method);
    if let Some(origin) = origin.filter(|_| method != Method::OPTIONS) {
        let told = operations::cors::for_browser(&app, &account.bucket, &origin, method.as_str()).await;
        told.iter().for_each(|(name, value)| respond::put(response.headers_mut(), name, value));
    }
    if account.close {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }

    let done = Done {
        app,
        begun,
        method,
        status: response.status().as_u16(),
        code,
        request_id,
        peer,
        account,
        sent_bytes: 0,
        cut: false,
    };
    if let Some(cause) = cause {
        done.report(&cause);
    }
    respond::when_sent(response, done)
}

/// What every answer has.
fn seal(response: &mut Response, request_id: &str, method: &Method) {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert("x-amz-id-2", value.clone());
        response.headers_mut().insert("x-amz-request-id", value);
    }
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("Predastore"));
    let bodiless = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless || method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
}

/// Writes the log line and the counters of a request once its answer was sent, or given up.
pub struct Done {
    app: Arc<App>,
    begun: Instant,
    method: Method,
    status: u16,
    code: Option<ErrorCode>,
    request_id: String,
    peer: Option<SocketAddr>,
    account: Account,
    /// Body bytes handed to the connection.
    pub sent_bytes: u64,
    cut: bool,
}

impl Done {
    /// The body failed after the head, with its 200, was sent: the client sees a connection that ends too early.
    pub fn cut_short(&mut self, error: &dyn std::fmt::Display) {
        self.cut = true;
        self.code = Some(ErrorCode::InternalError);
        self.report(&error.to_string());
    }

    /// Logs a failure of the store: once, here, where it is known whom it met.
    fn report(&self, cause: &str) {
        let Account { bucket, key, .. } = &self.account;
        let request_id = &self.request_id;
        match self.code {
            Some(ErrorCode::ServiceUnavailable) => {
                tracing::warn!(request_id, bucket, key, cause, "the store is not available");
            }
            _ => tracing::error!(request_id, bucket, key, cause, cut = self.cut, "the store failed"),
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        let operation = self.account.operation.map_or("Unknown", Operation::name);
        self.app.metrics.end(operation, self.status, took, self.account.received_bytes, self.sent_bytes);
        if self.cut {
            self.app.metrics.cut_short();
        }
        tracing::info!(
            target: "s3",
            request_id = %self.request_id,
            method = %self.method,
            operation,
            // As strings, which are quoted and escaped: a key may hold line ends, and what looks like other fields.
            bucket = self.account.bucket,
            key = self.account.key,
            status = self.status,
            code = self.code.map_or("-", ErrorCode::as_str),
            cut = self.cut,
            access_key = self.account.access_key_id.as_deref().unwrap_or("-"),
            user = self.account.caller.as_ref().and_then(|caller| caller.user.as_deref()),
            account = self.account.caller.as_ref().map(|caller| caller.account_id.as_str()),
            peer = self.peer.map(tracing::field::display),
            received_bytes = self.account.received_bytes,
            sent_bytes = self.sent_bytes,
            took_us = took.as_micros() as u64,
            "request"
        );
    }
}
