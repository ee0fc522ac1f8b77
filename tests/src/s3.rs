//! The S3 calls that the suites make themselves: signed, over one kept-alive connection, one thread each.

use anyhow::{Context, Result, bail};

use crate::http::{Connection, Endpoint, Request, Response};
use crate::sigv4::{Signer, decode, encode};

/// A client with its own connection.
pub struct S3 {
    /// Where to.
    pub endpoint: Endpoint,
    /// As whom.
    pub signer: Signer,
    connection: Option<Connection>,
    resends: bool,
}

/// One row of a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// ETag without quotes.
    pub etag: String,
}

/// One row of a listing of versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedVersion {
    /// Key.
    pub key: String,
    /// Version id.
    pub id: String,
    /// Whether a GET of the key gives this one.
    pub is_latest: bool,
    /// Size in bytes and ETag without quotes; none: a delete marker.
    pub object: Option<(u64, String)>,
}

impl S3 {
    /// A client; connects when first used.
    pub fn new(endpoint: Endpoint, signer: Signer) -> S3 {
        S3 { endpoint, signer, connection: None, resends: true }
    }

    /// A client that is connected already and sends each request once: sent again, one could take effect twice.
    ///
    /// # Errors
    /// When it cannot connect.
    pub fn connected_once(endpoint: Endpoint, signer: Signer) -> Result<S3> {
        let mut s3 = S3::once(endpoint, signer);
        s3.connect()?;
        Ok(s3)
    }

    /// A client that sends each request once, and connects when first used.
    pub fn once(endpoint: Endpoint, signer: Signer) -> S3 {
        S3 { endpoint, signer, connection: None, resends: false }
    }

    /// Connects, if it is not connected: a request that follows is sent, or breaks on the way.
    ///
    /// # Errors
    /// When it cannot connect.
    pub fn connect(&mut self) -> Result<()> {
        if self.connection.is_none() {
            self.connection = Some(self.endpoint.connect()?);
        }
        Ok(())
    }

    /// A request for `/bucket/key`, unsigned, with its Host; `query` without `?`.
    pub fn request(&self, method: &str, bucket: &str, key: &str, query: &str, body: impl Into<Vec<u8>>) -> Request {
        let mut target = format!("/{}", encode(bucket, true));
        if !key.is_empty() {
            target.push_str(&format!("/{}", encode(key, false)));
        }
        if !query.is_empty() {
            target.push_str(&format!("?{query}"));
        }
        Request::new(method, &target, body).header("Host", self.endpoint.authority())
    }

    /// Signs and sends.
    ///
    /// # Errors
    /// When the connection breaks; any status is a success here.
    pub fn call(&mut self, mut request: Request) -> Result<Response> {
        self.signer.sign(&mut request);
        self.send(&request)
    }

    /// Signs all but the body and sends: what a client over TLS does with large bodies.
    ///
    /// # Errors
    /// As [`S3::call`].
    pub fn call_unsigned_payload(&mut self, mut request: Request) -> Result<Response> {
        self.signer.sign_as(&mut request, crate::sigv4::UNSIGNED_PAYLOAD);
        self.send(&request)
    }

    /// Sends as it stands. A kept-alive connection that turns out to be closed is replaced once.
    ///
    /// # Errors
    /// As [`S3::call`].
    pub fn send(&mut self, request: &Request) -> Result<Response> {
        if let Some(mut connection) = self.connection.take() {
            match connection.call(request) {
                Ok(response) => return Ok(self.keep(connection, response)),
                Err(error) if !self.resends => return Err(error),
                Err(_) => {}
            }
        }
        let mut connection = self.endpoint.connect()?;
        let response = connection.call(request)?;
        Ok(self.keep(connection, response))
    }

    fn keep(&mut self, connection: Connection, response: Response) -> Response {
        let closes = response.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !closes && response.status < 400 {
            self.connection = Some(connection);
        }
        response
    }

    /// CreateBucket.
    ///
    /// # Errors
    /// Unless it answers 200.
    pub fn create_bucket(&mut self, bucket: &str) -> Result<()> {
        self.call(self.request("PUT", bucket, "", "", ""))?.expect(200).map(drop)
    }

    /// PutBucketVersioning.
    ///
    /// # Errors
    /// Unless it answers 200.
    pub fn enable_versioning(&mut self, bucket: &str) -> Result<()> {
        let enabled = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        self.call(self.request("PUT", bucket, "", "versioning", enabled))?.expect(200).map(drop)
    }

    /// PutObject; any status.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn put(&mut self, bucket: &str, key: &str, body: impl Into<Vec<u8>>) -> Result<Response> {
        self.call_unsigned_payload(self.request("PUT", bucket, key, "", body))
    }

    /// GetObject; any status.
    ///
    /// # Errors
    /// When the connection breaks, or the body ends early.
    pub fn get(&mut self, bucket: &str, key: &str) -> Result<Response> {
        self.call(self.request("GET", bucket, key, "", ""))
    }

    /// GetObject of one version; any status.
    ///
    /// # Errors
    /// As [`S3::get`].
    pub fn get_version(&mut self, bucket: &str, key: &str, id: &str) -> Result<Response> {
        self.call(self.request("GET", bucket, key, &format!("versionId={}", encode(id, true)), ""))
    }

    /// HeadObject; any status.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn head(&mut self, bucket: &str, key: &str) -> Result<Response> {
        self.call(self.request("HEAD", bucket, key, "", ""))
    }

    /// DeleteObject; any status.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn delete(&mut self, bucket: &str, key: &str) -> Result<Response> {
        self.call(self.request("DELETE", bucket, key, "", ""))
    }

    /// DeleteObject of one version; any status.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn delete_version(&mut self, bucket: &str, key: &str, id: &str) -> Result<Response> {
        self.call(self.request("DELETE", bucket, key, &format!("versionId={}", encode(id, true)), ""))
    }

    /// PutObject in parts of the given bodies (CreateMultipartUpload, UploadPart, CompleteMultipartUpload). The answer
    /// of the first call that does not succeed, else of the last.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn put_multipart(&mut self, bucket: &str, key: &str, parts: Vec<Vec<u8>>) -> Result<Response> {
        let created = self.call(self.request("POST", bucket, key, "uploads", ""))?;
        if created.status != 200 {
            return Ok(created);
        }
        let upload = element(&created.text(), "UploadId").context("no UploadId")?;
        let mut list = String::from("<CompleteMultipartUpload>");
        for (index, part) in parts.into_iter().enumerate() {
            let query = format!("partNumber={}&uploadId={}", index + 1, encode(&upload, true));
            let answer = self.call_unsigned_payload(self.request("PUT", bucket, key, &query, part))?;
            if answer.status != 200 {
                return Ok(answer);
            }
            let etag = answer.get("etag").context("a part without ETag")?;
            list.push_str(&format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>", index + 1));
        }
        list.push_str("</CompleteMultipartUpload>");
        let complete = format!("uploadId={}", encode(&upload, true));
        self.call(self.request("POST", bucket, key, &complete, list))
    }

    /// Every key of a bucket, by ListObjectsV2, all pages.
    ///
    /// # Errors
    /// When a page does not answer 200.
    pub fn list(&mut self, bucket: &str) -> Result<Vec<Listed>> {
        self.list_prefix(bucket, "")
    }

    /// Every key of a bucket that begins with `prefix`, as [`S3::list`].
    ///
    /// # Errors
    /// When a page does not answer 200.
    pub fn list_prefix(&mut self, bucket: &str, prefix: &str) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let prefix = encode(prefix, true);
        // Control characters cannot stand in XML 1.0: keys are asked for encoded.
        let mut query = format!("encoding-type=url&list-type=2&prefix={prefix}");
        loop {
            let page = self.call(self.request("GET", bucket, "", &query, ""))?.expect(200)?.text();
            listed.extend(listed_in(&page)?);
            let Some(token) = element(&page, "NextContinuationToken") else { return Ok(listed) };
            let token = encode(&token, true);
            query = format!("continuation-token={token}&encoding-type=url&list-type=2&prefix={prefix}");
        }
    }

    /// Every version of a bucket, by ListObjectVersions, all pages: by key, the newest first.
    ///
    /// # Errors
    /// When a page does not answer 200.
    pub fn list_versions(&mut self, bucket: &str) -> Result<Vec<ListedVersion>> {
        let mut listed = Vec::new();
        let mut query = String::from("encoding-type=url&versions");
        loop {
            let page = self.call(self.request("GET", bucket, "", &query, ""))?.expect(200)?.text();
            for (kind, row) in rows(&page, &["Version", "DeleteMarker"]) {
                listed.push(ListedVersion {
                    key: decoded(&row, "Key")?,
                    id: element(&row, "VersionId").context("a row without VersionId")?,
                    is_latest: element(&row, "IsLatest").context("a row without IsLatest")? == "true",
                    object: if kind == "Version" { Some(size_and_etag(&row)?) } else { None },
                });
            }
            if element(&page, "NextKeyMarker").is_none() {
                return Ok(listed);
            }
            let (key, id) =
                (decoded(&page, "NextKeyMarker")?, element(&page, "NextVersionIdMarker").unwrap_or_default());
            let (key, id) = (encode(&key, true), encode(&id, true));
            query = format!("encoding-type=url&key-marker={key}&version-id-marker={id}&versions");
        }
    }

    /// Aborts every upload in progress of a bucket.
    ///
    /// # Errors
    /// When a call does not answer as it should.
    pub fn abort_uploads(&mut self, bucket: &str) -> Result<usize> {
        let mut count = 0;
        loop {
            let page = self.call(self.request("GET", bucket, "", "uploads", ""))?.expect(200)?.text();
            let uploads = elements(&page, "Upload");
            if uploads.is_empty() {
                return Ok(count);
            }
            for upload in &uploads {
                let key = element(upload, "Key").context("an upload without Key")?;
                let id = element(upload, "UploadId").context("an upload without UploadId")?;
                let query = format!("uploadId={}", encode(&id, true));
                self.call(self.request("DELETE", bucket, &key, &query, ""))?.expect(204)?;
            }
            count += uploads.len();
        }
    }

    /// Fails unless `/bucket/key` has exactly `body`.
    ///
    /// # Errors
    /// With what differs.
    pub fn expect_body(&mut self, bucket: &str, key: &str, body: &[u8]) -> Result<()> {
        let got = self.get(bucket, key)?.expect(200)?;
        if got.body != body {
            bail!("{bucket}/{key}: {} bytes differ from the {} written", got.body.len(), body.len());
        }
        Ok(())
    }
}

/// The keys of one page of a listing that was asked for with `encoding-type=url`.
///
/// # Errors
/// When a row lacks something.
pub fn listed_in(page: &str) -> Result<Vec<Listed>> {
    let listed = |row: &String| {
        let (size, etag) = size_and_etag(row)?;
        Ok(Listed { key: decoded(row, "Key")?, size, etag })
    };
    elements(page, "Contents").iter().map(listed).collect()
}

/// The text of the first `<name>` of an XML document, unescaped. Good for what S3 answers, no parser.
pub fn element(xml: &str, name: &str) -> Option<String> {
    elements(xml, name).into_iter().next()
}

/// The contents of every `<name>`, unescaped where they hold no further element.
pub fn elements(xml: &str, name: &str) -> Vec<String> {
    let inner = rows(xml, &[name]).into_iter().map(|(_, inner)| inner);
    inner.map(|inner| if inner.contains('<') { inner } else { unescape(&inner) }).collect()
}

/// The contents of every element called one of `names`, with its name, in the order of the document.
fn rows<'a>(xml: &str, names: &[&'a str]) -> Vec<(&'a str, String)> {
    let mut found = Vec::new();
    for name in names {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        for (at, _) in xml.match_indices(&open) {
            let inner = xml[at + open.len()..].split_once(&close);
            found.extend(inner.map(|(inner, _)| (at, *name, inner.to_owned())));
        }
    }
    found.sort();
    found.into_iter().map(|(_, name, inner)| (name, inner)).collect()
}

fn decoded(xml: &str, name: &str) -> Result<String> {
    Ok(decode(&element(xml, name).with_context(|| format!("a row without {name}"))?))
}

fn size_and_etag(row: &str) -> Result<(u64, String)> {
    let size = element(row, "Size").context("a row without Size")?.parse()?;
    Ok((size, element(row, "ETag").unwrap_or_default().trim_matches('"').to_owned()))
}

fn unescape(text: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&apos;", "'"), ("&#39;", "'")];
    entities.iter().fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain)).replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found() {
        let xml = "<R><C><Key>a&amp;b</Key></C><C><Key>&quot;c&quot;</Key></C></R>";
        let keys: Vec<_> = elements(xml, "C").iter().filter_map(|row| element(row, "Key")).collect();
        assert_eq!(keys, ["a&b", "\"c\""]);
    }

    #[test]
    fn rows_keep_the_order_of_the_document() {
        let xml = "<Version><Key>a</Key></Version><DeleteMarker>x</DeleteMarker><Version>y</Version><VersionId/>";
        let found = rows(xml, &["Version", "DeleteMarker"]);
        let kinds: Vec<_> = found.iter().map(|(name, _)| *name).collect();
        assert_eq!(kinds, ["Version", "DeleteMarker", "Version"]);
    }
}
