//! Who may do what: an account with a policy, and anybody, get what they were granted and nothing else.

use anyhow::{Context, Result, ensure};
use predastore_tests::http::{Request, Response};
use predastore_tests::s3::{S3, element};
use predastore_tests::s3d::{Config, S3d};
use predastore_tests::sigv4::Signer;

const ACCESS_KEY: &str = "LIMITEDACCOUNT000001";
const SECRET_KEY: &str = "a secret of a limited account";
const COPY_SOURCE: &str = "x-amz-copy-source";

/// Root's buckets `mine`, `readable`, `unlisted`, `secret` and `public`, each with the object `key`; and an account that may do
/// everything in `mine`, read `readable`, and read `unlisted` without listing it.
fn box_with_accounts() -> Result<(S3d, S3, S3)> {
    let toml = format!(
        "[[auth]]\naccess_key_id = \"{ACCESS_KEY}\"\nsecret_access_key = \"{SECRET_KEY}\"\naccount_id = \"111111111111\"\n\
         policy = [\n  {{ bucket = \"mine\", actions = [\"s3:*\"] }},\n  \
         {{ bucket = \"readable\", actions = [\"s3:GetObject\", \"s3:ListBucket\"] }},\n  \
         {{ bucket = \"unlisted\", actions = [\"s3:GetObject\"] }},\n]\n\n\
         [[buckets]]\nname = \"public\"\npublic = true\n"
    );
    let s3d = S3d::start(Config { toml: Some(toml), ..Config::default().plain() })?;
    let mut root = s3d.s3()?;
    for bucket in ["mine", "readable", "secret", "unlisted"] {
        root.create_bucket(bucket)?;
    }
    for bucket in ["mine", "readable", "secret", "public"] {
        root.put(bucket, "key", format!("of {bucket}"))?.expect(200)?;
    }
    let limited = S3::new(s3d.endpoint()?, Signer::new(ACCESS_KEY, SECRET_KEY, &s3d.credentials().region));
    Ok((s3d, root, limited))
}

fn denied(what: &str, answer: Result<Response>) -> Result<()> {
    let answer = answer?;
    let code = answer.code();
    ensure!(
        answer.status == 403 && (code == "AccessDenied" || answer.body.is_empty()),
        "{what}: {} {code}",
        answer.status
    );
    Ok(())
}

#[test]
fn an_account_does_what_its_policy_grants() -> Result<()> {
    let (_s3d, _root, mut limited) = box_with_accounts()?;
    limited.expect_body("mine", "key", b"of mine")?;
    limited.expect_body("readable", "key", b"of readable")?;
    limited.put("mine", "new", "x")?.expect(200)?;
    ensure!(limited.list("mine")?.len() == 2 && limited.list("readable")?.len() == 1);
    let copy = limited.request("PUT", "mine", "copy", "", "").header("x-amz-copy-source", "readable/key");
    limited.call(copy)?.expect(200)?;
    limited.expect_body("mine", "copy", b"of readable")?;
    limited.put_multipart("mine", "parts", vec![b"x".to_vec()])?.expect(200)?;
    limited.delete("mine", "new")?.expect(204).map(drop)
}

#[test]
fn an_account_does_nothing_else() -> Result<()> {
    let (_s3d, mut root, mut limited) = box_with_accounts()?;
    let delete = "<Delete><Object><Key>key</Key></Object></Delete>";
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    let versioning = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    let mut requests = vec![
        ("PUT", "readable", "new", "", "x"),
        ("DELETE", "readable", "key", "", ""),
        ("PUT", "readable", "key", "tagging", tags),
        ("PUT", "readable", "", "tagging", tags),
        ("PUT", "readable", "", "versioning", versioning),
        ("POST", "readable", "key", "uploads", ""),
        ("DELETE", "readable", "", "", ""),
        ("PUT", "another-bucket", "", "", ""),
        ("DELETE", "mine-not", "", "", ""),
    ];
    for query in ["", "acl", "tagging", "versions", "uploads", "versioning", "location", "policy", "list-type=2"] {
        requests.push(("GET", "secret", "", query, ""));
    }
    // A missing key looks like one that is there.
    for key in ["key", "missing"] {
        requests.extend([
            ("GET", "secret", key, "", ""),
            ("HEAD", "secret", key, "", ""),
            ("PUT", "secret", key, "", "x"),
        ]);
        requests.extend([
            ("DELETE", "secret", key, "", ""),
            ("GET", "secret", key, "tagging", ""),
            ("GET", "secret", key, "attributes", ""),
        ]);
    }
    for (method, bucket, key, query, body) in requests {
        let request = limited.request(method, bucket, key, query, body).header("x-amz-object-attributes", "ETag");
        denied(&format!("{method} {bucket}/{key}?{query}"), limited.call(request))?;
    }
    let service = Request::new("GET", "/", "").header("Host", limited.endpoint.authority());
    denied("ListBuckets", limited.call(service))?;
    // Each key is answered by itself.
    for bucket in ["readable", "secret"] {
        let answer =
            limited.call(limited.request("POST", bucket, "", "delete", delete).with_md5())?.expect(200)?.text();
        ensure!(answer.contains("<Code>AccessDenied</Code>") && !answer.contains("<Deleted>"), "{answer}");
    }
    let mut presigned = limited.request("GET", "secret", "key", "", "");
    limited.signer.presign(&mut presigned, "600");
    denied("a presigned GET", limited.send(&presigned))?;

    root.expect_body("readable", "key", b"of readable")?;
    root.expect_body("secret", "key", b"of secret")?;
    ensure!(root.list("secret")?.len() == 1 && root.list("readable")?.len() == 1, "something was written");
    Ok(())
}

/// Who may not list a bucket does not learn what is missing from it.
#[test]
fn a_missing_key_is_told_to_those_who_may_list() -> Result<()> {
    let (s3d, mut root, mut limited) = box_with_accounts()?;
    root.put("unlisted", "key", "x")?.expect(200)?;
    let mut anybody = S3::new(s3d.endpoint()?, limited.signer.clone());
    for method in ["GET", "HEAD"] {
        for (bucket, key, status) in
            [("unlisted", "key", 200), ("unlisted", "missing", 403), ("readable", "missing", 404)]
        {
            let answer = limited.call(limited.request(method, bucket, key, "", ""))?;
            answer.expect(status).with_context(|| format!("{method} {bucket}/{key}"))?;
        }
        let missing = anybody.request(method, "public", "missing", "", "");
        denied("a missing public object", anybody.send(&missing))?;
    }
    let copy = |limited: &S3, source: &str| limited.request("PUT", "mine", "copy", "", "").header(COPY_SOURCE, source);
    denied("a copy of what is missing", limited.call(copy(&limited, "unlisted/missing")))?;
    limited.call(copy(&limited, "readable/missing"))?.expect(404)?;
    root.get("unlisted", "missing")?.expect(404).map(drop)
}

/// A client that says whose bucket it expects is refused where it is another's.
#[test]
fn the_expected_owner_of_a_bucket() -> Result<()> {
    let (_s3d, mut root, _limited) = box_with_accounts()?;
    let acl = root.call(root.request("GET", "mine", "", "acl", ""))?.expect(200)?.text();
    let owner = element(&acl, "ID").context("no owner")?;
    let expecting = |root: &S3, method: &str, key: &str, header: &str, owner: &str| {
        root.request(method, "mine", key, "", "").header(header, owner)
    };
    let bucket_owner = "x-amz-expected-bucket-owner";
    for (method, key) in
        [("GET", "key"), ("HEAD", "key"), ("PUT", "key"), ("DELETE", "key"), ("GET", ""), ("DELETE", "")]
    {
        denied(method, root.call(expecting(&root, method, key, bucket_owner, "999999999999")))?;
    }
    root.call(expecting(&root, "GET", "key", bucket_owner, &owner))?.expect(200)?;
    let missing = root.request("GET", "missing", "key", "", "").header(bucket_owner, &owner);
    root.call(missing)?.expect(404)?;
    let source_owner = "x-amz-source-expected-bucket-owner";
    let copy =
        |root: &S3, owner: &str| expecting(root, "PUT", "copy", source_owner, owner).header(COPY_SOURCE, "secret/key");
    denied("a copy", root.call(copy(&root, "999999999999")))?;
    root.call(copy(&root, &owner))?.expect(200)?;
    root.expect_body("mine", "key", b"of mine")
}

#[test]
fn copies_need_the_right_to_read_their_source() -> Result<()> {
    let (_s3d, mut root, mut limited) = box_with_accounts()?;
    for source in ["secret/key", "/secret/key", "secret%2Fkey", "secret/missing", "secret/key?versionId=null"] {
        let copy = limited.request("PUT", "mine", "stolen", "", "").header("x-amz-copy-source", source);
        denied(&format!("CopyObject of {source}"), limited.call(copy))?;
    }
    let created = limited.call(limited.request("POST", "mine", "stolen", "uploads", ""))?.expect(200)?;
    let upload = element(&created.text(), "UploadId").context("no UploadId")?;
    let query = format!("partNumber=1&uploadId={upload}");
    let part = limited.request("PUT", "mine", "stolen", &query, "").header("x-amz-copy-source", "secret/key");
    denied("UploadPartCopy", limited.call(part))?;
    root.get("mine", "stolen")?.expect(404)?;

    // An upload belongs to its bucket: naming it under another one finds nothing.
    let created = root.call(root.request("POST", "secret", "upload", "uploads", ""))?.expect(200)?;
    let upload = element(&created.text(), "UploadId").context("no UploadId")?;
    for (method, query) in [
        ("PUT", format!("partNumber=1&uploadId={upload}")),
        ("GET", format!("uploadId={upload}")),
        ("DELETE", format!("uploadId={upload}")),
    ] {
        for key in ["upload", "key"] {
            limited.call(limited.request(method, "mine", key, &query, ""))?.expect(404)?;
        }
    }
    root.call(root.request("GET", "secret", "upload", &format!("uploadId={upload}"), ""))?.expect(200).map(drop)
}

#[test]
fn anybody_reads_public_objects_and_no_more() -> Result<()> {
    let (s3d, mut root, limited) = box_with_accounts()?;
    let mut anybody = S3::new(s3d.endpoint()?, limited.signer.clone());
    let read = anybody.request("GET", "public", "key", "", "");
    ensure!(anybody.send(&read)?.expect(200)?.body == b"of public");
    let requests = [
        ("GET", "secret", "key", ""),
        ("GET", "public", "", "list-type=2"),
        ("PUT", "public", "new", ""),
        ("DELETE", "public", "key", ""),
        ("GET", "public", "key", "tagging"),
        ("GET", "public", "key", "acl"),
        ("POST", "public", "key", "uploads"),
        ("PUT", "anybodys", "", ""),
    ];
    for (method, bucket, key, query) in requests {
        // Headers that proxies set grant nothing.
        let request = anybody.request(method, bucket, key, query, "").header("X-Forwarded-For", "127.0.0.1");
        denied(&format!("{method} {bucket}/{key}?{query}"), anybody.send(&request))?;
    }
    let copy = anybody.request("PUT", "public", "copy", "", "").header("x-amz-copy-source", "public/key");
    denied("a copy", anybody.send(&copy))?;
    root.expect_body("public", "key", b"of public")?;
    for secret in [SECRET_KEY, &s3d.credentials().secret_key] {
        ensure!(!s3d.log_text().contains(secret), "a secret key is in the log");
    }
    Ok(())
}

/// Who begins to set something in his bucket, and ends when that is another's, has set nothing.
#[test]
fn a_body_that_takes_long_is_not_for_anothers_bucket() -> Result<()> {
    let accounts = [("ONEACCOUNT0000000001", "111111111111"), ("TWOACCOUNT0000000001", "222222222222")];
    let entry = |(key, id): (&str, &str)| {
        format!(
            "[[auth]]\naccess_key_id = \"{key}\"\nsecret_access_key = \"the secret of {key}\"\naccount_id = \"{id}\"\n\n"
        )
    };
    let s3d = S3d::start(Config { toml: Some(accounts.map(entry).concat()), ..Config::default().plain() })?;
    let client = |(key, _): (&str, &str)| -> Result<S3> {
        let signer = Signer::new(key, &format!("the secret of {key}"), &s3d.credentials().region);
        Ok(S3::new(s3d.endpoint()?, signer))
    };
    let [mut one, mut two] = [client(accounts[0])?, client(accounts[1])?];
    let policy = "{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Principal\":\"*\",\"Action\":\"s3:*\",\
                  \"Resource\":[\"arn:aws:s3:::mine\",\"arn:aws:s3:::mine/*\"]}]}";
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    let delete = "<Delete><Object><Key>key</Key></Object></Delete>";
    let delete_md5 = "VUxjCEXWiErKatrg6+J0xA==";
    for (method, query, body) in [("PUT", "policy", policy), ("PUT", "tagging", tags), ("POST", "delete", delete)] {
        one.create_bucket("mine")?;
        let mut request = one.request(method, "mine", "", query, body).header("Expect", "100-continue");
        if query == "delete" {
            request = request.header("Content-MD5", delete_md5);
        }
        one.signer.sign(&mut request);
        let mut connection = one.endpoint.begin(&request)?;
        one.call(one.request("DELETE", "mine", "", "", ""))?.expect(204)?;
        two.create_bucket("mine")?;
        two.put("mine", "key", "of two")?.expect(200)?;
        connection.write(&request.body)?;
        let answer = connection.response(method)?;
        ensure!(answer.status == 404 && answer.code() == "NoSuchBucket", "{query}: {}", answer.text());
        two.expect_body("mine", "key", b"of two")?;
        for (query, code) in [("policy", "NoSuchBucketPolicy"), ("tagging", "NoSuchTagSet")] {
            let answer = two.call(two.request("GET", "mine", "", query, ""))?.expect(404)?;
            ensure!(answer.code() == code, "{query}: {}", answer.text());
        }
        two.delete("mine", "key")?.expect(204)?;
        two.call(two.request("DELETE", "mine", "", "", ""))?.expect(204)?;
    }
    Ok(())
}
