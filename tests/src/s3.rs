//! The S3 calls that the suites make themselves: signed, over one kept-alive connection, one thread each.

use anyhow::{Context, Result, bail};

use crate::http::{Connection, Endpoint, Request, Response};
use crate::sigv4::{Signer, encode};

/// A client with its own connection.
pub struct S3 {
    /// Where to.
    pub endpoint: Endpoint,
    /// As whom.
    pub signer: Signer,
    connection: Option<Connection>,
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

impl S3 {
    /// A client; connects when first used.
    pub fn new(endpoint: Endpoint, signer: Signer) -> S3 {
        S3 { endpoint, signer, connection: None }
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
        if let Some(mut connection) = self.connection.take()
            && let Ok(response) = connection.call(request)
        {
            return Ok(self.keep(connection, response));
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
        let mut rows = Vec::new();
        let mut query = String::from("list-type=2");
        loop {
            let page = self.call(self.request("GET", bucket, "", &query, ""))?.expect(200)?.text();
            for row in elements(&page, "Contents") {
                rows.push(Listed {
                    key: element(&row, "Key").context("a row without Key")?,
                    size: element(&row, "Size").context("a row without Size")?.parse()?,
                    etag: element(&row, "ETag").unwrap_or_default().trim_matches('"').to_owned(),
                });
            }
            match element(&page, "NextContinuationToken") {
                Some(token) => query = format!("continuation-token={}&list-type=2", encode(&token, true)),
                None => return Ok(rows),
            }
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

/// The text of the first `<name>` of an XML document, unescaped. Good for what S3 answers, no parser.
pub fn element(xml: &str, name: &str) -> Option<String> {
    elements(xml, name).into_iter().next()
}

/// The contents of every `<name>`, unescaped where they hold no further element.
pub fn elements(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let inner = xml.split(&open).skip(1).filter_map(|rest| rest.split_once(&close)).map(|(inner, _)| inner);
    inner.map(|inner| if inner.contains('<') { inner.to_owned() } else { unescape(inner) }).collect()
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
}
