//! S3's operations over a real NATS server: every subject, who may ask, bodies too long for a message, logins, and a server
//! that goes and comes back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nkeys::KeyPair;
use predastore_tests::cluster::{Cluster, Shape};
use predastore_tests::http::{Endpoint, Request, Response};
use predastore_tests::knobs::can_run;
use predastore_tests::nats::{self, Client, HEADER, Login, SERVER, Sender, Server};
use predastore_tests::s3d::{Config, PATIENCE, S3d, setting};
use serde_json::{Value, json};

/// Settings of `s3d` by their variables.
type Settings<'a> = Vec<(&'a str, &'a str)>;

/// A box whose NATS frontend is served by a server.
struct Bus {
    server: Server,
    s3d: S3d,
    client: Client,
    root: Sender,
}

impl Bus {
    /// `settings`: more of `s3d`'s; `toml`: its file.
    fn start(settings: &[(&str, &str)], toml: Option<&str>) -> Result<Bus> {
        let server = Server::start("")?;
        let s3d = s3d_on(&server.url(), settings, toml)?;
        let client = Client::connect(server.port, Login::Nobody)?;
        let credentials = s3d.credentials();
        let root = Sender::new(&credentials.access_key, &credentials.secret_key);
        let mut bus = Bus { server, s3d, client, root };
        bus.wait_until_served()?;
        Ok(bus)
    }

    /// Until somebody answers; a client that lost its server connects again.
    fn wait_until_served(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.client.request("spinifex.storage.config", &[], b"{}");
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error.context(self.s3d.log_tail())),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
            if let Ok(client) = Client::connect(self.server.port, Login::Nobody) {
                self.client = client;
            }
        }
    }

    fn call(&mut self, subject: &str, input: Value) -> Result<Value> {
        self.client.call(&self.root, subject, &input)
    }

    /// As root, with the good answer that is expected.
    fn done(&mut self, subject: &str, input: Value) -> Result<Value> {
        let answer = self.call(subject, input)?;
        ensure!(answer.get("Error").is_none(), "{subject}: {answer}");
        Ok(answer)
    }

    /// What the error of an answer says.
    fn refused(&mut self, subject: &str, input: Value) -> Result<String> {
        let answer = self.call(subject, input)?;
        code(&answer)
    }

    /// Sends what a `Presigned` says, with the body.
    fn follow(&self, answer: &Value, body: &[u8]) -> Result<Response> {
        let presigned = &answer["Presigned"];
        let url = presigned["URL"].as_str().with_context(|| format!("no URL in {answer}"))?;
        let authority = format!("127.0.0.1:{}", self.s3d.port);
        let target =
            url.strip_prefix(&format!("http://{authority}")).with_context(|| format!("another place: {url}"))?;
        let method = presigned["Method"].as_str().unwrap_or_default();
        let mut request = Request::new(method, target, body).header("Host", authority);
        for (name, value) in presigned["Headers"].as_object().into_iter().flatten() {
            request.set(name, value.as_str().unwrap_or_default());
        }
        Endpoint::plain(self.s3d.port).connect()?.call(&request)
    }
}

fn s3d_on(url: &str, settings: &[(&str, &str)], toml: Option<&str>) -> Result<S3d> {
    let mut s3d = S3d::stopped(Config { toml: toml.map(str::to_owned), ..Config::default().plain() })?;
    let endpoint = format!("http://127.0.0.1:{}", s3d.port);
    s3d.config = s3d.config.clone().set(setting::NATS_URL, url).set(setting::NATS_ENDPOINT, endpoint);
    for (name, value) in settings {
        s3d.config = s3d.config.clone().set(name, value);
    }
    s3d.restart()?;
    Ok(s3d)
}

fn code(answer: &Value) -> Result<String> {
    let code = answer["Error"]["Code"].as_str().with_context(|| format!("no error: {answer}"))?;
    ensure!(answer["Error"]["Message"].is_string(), "no message: {answer}");
    Ok(code.to_owned())
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn body_of(answer: &Value) -> Result<Vec<u8>> {
    Ok(STANDARD.decode(answer["Body"].as_str().with_context(|| format!("no body: {answer}"))?)?)
}

/// Waits until a metric of the NATS frontend is what is expected.
fn wait_for_metric(s3d: &S3d, line: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = s3d.admin("/metrics")?.text();
        if metrics.lines().any(|one| one == line) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let ours: Vec<_> = metrics.lines().filter(|line| line.starts_with("predastore_nats")).collect();
            bail!("no {line} in {ours:#?}\n{}", s3d.log_tail());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_subject_is_served_in_both_spellings() -> Result<()> {
    if !can_run("every_subject_is_served_in_both_spellings", &[SERVER]) {
        return Ok(());
    }
    let mut bus = Bus::start(&[], None)?;
    let mut s3 = bus.s3d.s3()?;
    for (bucket, hive) in [("lower", false), ("hive", true)] {
        let subject = |name: &str| if hive { format!("s3.{name}") } else { format!("s3.{}", name.to_lowercase()) };
        ensure!(bus.done(&subject("CreateBucket"), json!({ "Bucket": bucket }))?["Location"] == format!("/{bucket}"));
        ensure!(bus.done(&subject("HeadBucket"), json!({ "Bucket": bucket }))?["BucketRegion"] == "us-east-1");
        let buckets = bus.done(&subject("ListBuckets"), json!({}))?;
        let names: Vec<_> =
            buckets["Buckets"].as_array().into_iter().flatten().map(|one| one["Name"].clone()).collect();
        ensure!(names.contains(&json!(bucket)), "{buckets}");

        let put = json!({ "Bucket": bucket, "Key": "a/b c", "Body": base64(b"hello, bus"), "ContentType": "text/plain",
            "Metadata": { "Color": "blue" } });
        let etag = bus.done(&subject("PutObject"), put)?["ETag"].clone();
        let by_s3 = s3.get(bucket, "a/b c")?.expect(200)?;
        ensure!(by_s3.body == b"hello, bus" && by_s3.get("content-type") == Some("text/plain"));
        ensure!(by_s3.get("x-amz-meta-color") == Some("blue") && by_s3.get("etag") == etag.as_str());

        let place = json!({ "Bucket": bucket, "Key": "a/b c" });
        let got = bus.done(&subject("GetObject"), place.clone())?;
        ensure!(body_of(&got)? == b"hello, bus" && got["ContentLength"] == 10 && got["ContentType"] == "text/plain");
        ensure!(got["ETag"] == etag && got["Metadata"] == json!({ "color": "blue" }), "{got}");
        ensure!(got["LastModified"].as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{got}");
        let head = bus.done(&subject("HeadObject"), place)?;
        ensure!(head["ContentLength"] == 10 && head["ETag"] == etag && head.get("Body").is_none(), "{head}");
        let range = json!({ "Bucket": bucket, "Key": "a/b c", "Range": "bytes=7-9" });
        let got = bus.done(&subject("GetObject"), range)?;
        ensure!(body_of(&got)? == b"bus" && got["ContentRange"] == "bytes 7-9/10", "{got}");

        let source = format!("{bucket}/a/b%20c");
        let copied =
            bus.done(&subject("CopyObject"), json!({ "Bucket": bucket, "Key": "copy", "CopySource": source }))?;
        ensure!(copied["CopyObjectResult"]["ETag"] == etag, "{copied}");
        s3.expect_body(bucket, "copy", b"hello, bus")?;

        let listed = bus.done(&subject("ListObjects"), json!({ "Bucket": bucket, "Delimiter": "/" }))?;
        ensure!(listed["CommonPrefixes"] == json!([{ "Prefix": "a/" }]) && listed["Contents"][0]["Key"] == "copy");
        ensure!(listed["IsTruncated"] == false && listed["KeyCount"] == 2, "{listed}");
        let first = bus.done(&subject("ListObjects"), json!({ "Bucket": bucket, "MaxKeys": 1 }))?;
        ensure!(first["IsTruncated"] == true && first["Contents"][0]["Key"] == "a/b c", "{first}");
        let next = json!({ "Bucket": bucket, "ContinuationToken": first["NextContinuationToken"] });
        let next = bus.done(&subject("ListObjects"), next)?;
        ensure!(next["IsTruncated"] == false && next["Contents"][0]["Key"] == "copy", "{next}");

        for key in ["a/b c", "copy", "never was"] {
            bus.done(&subject("DeleteObject"), json!({ "Bucket": bucket, "Key": key }))?;
        }
        ensure!(s3.list(bucket)?.is_empty());
        bus.done(&subject("DeleteBucket"), json!({ "Bucket": bucket }))?;
        ensure!(s3.head(bucket, "")?.status == 404);
    }
    let config = bus.done("spinifex.storage.config", json!({}))?;
    ensure!(config["encoding"] == json!({ "data_shards": 1, "parity_shards": 0 }) && config["buckets"] == json!([]));
    ensure!(config["db_nodes"] == json!([]) && config["shard_nodes"] == json!([]), "{config}");
    Ok(())
}

#[test]
fn errors_are_s3s() -> Result<()> {
    if !can_run("errors_are_s3s", &[SERVER]) {
        return Ok(());
    }
    let mut bus = Bus::start(&[], None)?;
    bus.done("s3.createbucket", json!({ "Bucket": "photos" }))?;
    let etag =
        bus.done("s3.putobject", json!({ "Bucket": "photos", "Key": "a", "Body": base64(b"one") }))?["ETag"].clone();
    let place = |more: Value| {
        let mut input = json!({ "Bucket": "photos", "Key": "a" });
        for (name, value) in more.as_object().into_iter().flatten() {
            input[name] = value.clone();
        }
        input
    };
    for (subject, input, expected) in [
        ("s3.getobject", json!({ "Bucket": "photos", "Key": "b" }), "NoSuchKey"),
        ("s3.getobject", json!({ "Bucket": "nothing", "Key": "b" }), "NoSuchBucket"),
        ("s3.getobject", json!({ "Bucket": "No", "Key": "b" }), "InvalidBucketName"),
        ("s3.getobject", json!({ "Bucket": "photos" }), "InvalidArgument"),
        ("s3.getobject", json!({ "Bucket": "photos", "Key": "k".repeat(1025) }), "KeyTooLongError"),
        ("s3.getobject", place(json!({ "Range": "bytes=9-" })), "InvalidRange"),
        ("s3.getobject", place(json!({ "IfMatch": "\"other\"" })), "PreconditionFailed"),
        ("s3.getobject", place(json!({ "IfNoneMatch": etag })), "NotModified"),
        ("s3.getobject", place(json!({ "SSECustomerKey": "x" })), "NotImplemented"),
        ("s3.putobject", place(json!({ "Body": base64(b"two"), "IfNoneMatch": "*" })), "PreconditionFailed"),
        ("s3.putobject", place(json!({ "Body": "***" })), "InvalidArgument"),
        ("s3.putobject", place(json!({ "Body": base64(b"two"), "ContentLength": 7 })), "IncompleteBody"),
        ("s3.putobject", place(json!({ "Body": base64(b"two"), "ContentMD5": base64(&[0; 16]) })), "BadDigest"),
        ("s3.putobject", place(json!({ "Body": base64(b"two"), "Presign": true })), "InvalidArgument"),
        ("s3.copyobject", place(json!({ "CopySource": "photos/a" })), "InvalidRequest"),
        ("s3.copyobject", place(json!({ "CopySource": "photos/b" })), "NoSuchKey"),
        ("s3.createbucket", json!({ "Bucket": "photos", "ObjectLockEnabledForBucket": true }), "NotImplemented"),
        ("s3.deletebucket", json!({ "Bucket": "photos" }), "BucketNotEmpty"),
        ("s3.headbucket", json!({ "Bucket": "nothing" }), "NoSuchBucket"),
        ("s3.listobjects", json!({ "Bucket": "photos", "ContinuationToken": "%" }), "InvalidArgument"),
        ("s3.listobjects", json!([]), "InvalidRequest"),
    ] {
        let refused = bus.refused(subject, input.clone())?;
        ensure!(refused == expected, "{subject} {input}: {refused}, not {expected}");
    }
    bus.s3d.s3()?.expect_body("photos", "a", b"one")
}

#[test]
fn nothing_is_done_without_an_envelope_that_holds() -> Result<()> {
    if !can_run("nothing_is_done_without_an_envelope_that_holds", &[SERVER]) {
        return Ok(());
    }
    let mut bus = Bus::start(&[], None)?;
    bus.done("s3.createbucket", json!({ "Bucket": "photos" }))?;
    let (subject, root) = ("s3.putobject", bus.root.clone());
    let payload = json!({ "Bucket": "photos", "Key": "forged", "Body": base64(b"x") }).to_string().into_bytes();
    let other = |change: &dyn Fn(&mut Sender)| {
        let mut sender = root.clone();
        change(&mut sender);
        sender
    };
    let wrong_secret = other(&|sender| sender.secret_key.push('x'));
    let unknown = other(&|sender| sender.access_key = "AKIAUNKNOWN".to_owned());
    let expired = other(&|sender| sender.life_s = -2);
    let too_long = other(&|sender| sender.life_s = 360);
    let client = &mut bus.client;
    for (what, sender, signed, expected) in [
        ("another secret", &wrong_secret, (subject, payload.as_slice(), ""), "SignatureDoesNotMatch"),
        ("an unknown key", &unknown, (subject, &payload, ""), "InvalidAccessKeyId"),
        ("an expired one", &expired, (subject, &payload, ""), "RequestTimeTooSkewed"),
        ("an expiry far ahead", &too_long, (subject, &payload, ""), "RequestTimeTooSkewed"),
        ("another subject", &root, ("s3.getobject", &payload, ""), "SignatureDoesNotMatch"),
        ("another body", &root, (subject, b"{}", ""), "SignatureDoesNotMatch"),
        ("another reply", &root, (subject, &payload, "_INBOX.elsewhere"), "SignatureDoesNotMatch"),
    ] {
        let reply = client.fresh_reply();
        let signed_reply = if signed.2.is_empty() { &reply } else { signed.2 };
        let envelope = sender.envelope(signed.0, signed.1, signed_reply);
        let answer = client.request_to(subject, &reply, &[(HEADER, &envelope)], &payload)?;
        ensure!(code(&answer)? == expected, "{what}: {answer}");
    }
    ensure!(code(&client.request(subject, &[], &payload)?)? == "AccessDenied", "without one");
    ensure!(
        code(&client.request(subject, &[(HEADER, "1;a;b;c;d")], &payload)?)? == "InvalidSecurity",
        "a malformed one"
    );
    let reply = client.fresh_reply();
    let envelope = root.envelope(subject, &payload, &reply);
    let twice = client.request_to(subject, &reply, &[(HEADER, &envelope), (HEADER, &envelope)], &payload)?;
    ensure!(code(&twice)? == "InvalidSecurity", "two of them: {twice}");
    ensure!(bus.s3d.s3()?.list("photos")?.is_empty(), "something was done");

    let first = bus.client.request_to(subject, &reply, &[(HEADER, &envelope)], &payload)?;
    ensure!(first.get("Error").is_none(), "{first}");
    let again = bus.client.request_to(subject, &reply, &[(HEADER, &envelope)], &payload)?;
    ensure!(code(&again)? == "AccessDenied" && again.to_string().contains("nonce"), "{again}");
    Ok(())
}

#[test]
fn an_account_does_what_its_policy_grants_and_nothing_else() -> Result<()> {
    if !can_run("an_account_does_what_its_policy_grants_and_nothing_else", &[SERVER]) {
        return Ok(());
    }
    let toml = "[[auth]]\naccess_key_id = \"LIMITEDACCOUNT000001\"\nsecret_access_key = \"a secret of a limited account\"\n\
                account_id = \"111111111111\"\npolicy = [{ bucket = \"readable\", actions = [\"s3:GetObject\"] }]\n";
    let mut bus = Bus::start(&[], Some(toml))?;
    for bucket in ["readable", "secret"] {
        bus.done("s3.createbucket", json!({ "Bucket": bucket }))?;
        bus.done("s3.putobject", json!({ "Bucket": bucket, "Key": "key", "Body": base64(b"x") }))?;
    }
    let limited = Sender::new("LIMITEDACCOUNT000001", "a secret of a limited account");
    let got = bus.client.call(&limited, "s3.getobject", &json!({ "Bucket": "readable", "Key": "key" }))?;
    ensure!(body_of(&got)? == b"x");
    for (subject, input) in [
        ("s3.getobject", json!({ "Bucket": "secret", "Key": "key" })),
        // That it is missing is told only to those who may list.
        ("s3.getobject", json!({ "Bucket": "readable", "Key": "missing" })),
        ("s3.getobject", json!({ "Bucket": "secret", "Key": "key", "Presign": true })),
        ("s3.putobject", json!({ "Bucket": "readable", "Key": "key", "Body": base64(b"y") })),
        ("s3.putobject", json!({ "Bucket": "readable", "Key": "key", "Presign": true })),
        ("s3.deleteobject", json!({ "Bucket": "readable", "Key": "key" })),
        ("s3.copyobject", json!({ "Bucket": "readable", "Key": "copy", "CopySource": "readable/key" })),
        ("s3.listobjects", json!({ "Bucket": "readable" })),
        ("s3.headbucket", json!({ "Bucket": "readable" })),
        ("s3.createbucket", json!({ "Bucket": "another" })),
        ("s3.deletebucket", json!({ "Bucket": "secret" })),
        ("s3.listbuckets", json!({})),
        ("spinifex.storage.config", json!({})),
    ] {
        let answer = bus.client.call(&limited, subject, &input)?;
        ensure!(code(&answer)? == "AccessDenied", "{subject} {input}: {answer}");
    }
    bus.s3d.s3()?.expect_body("readable", "key", b"x")
}

/// Another account, as over S3: what the bucket's policy allows, and what it denies by a tag of the object.
#[test]
fn a_buckets_policy_counts_as_over_s3() -> Result<()> {
    if !can_run("a_buckets_policy_counts_as_over_s3", &[SERVER]) {
        return Ok(());
    }
    let toml = "[[auth]]\naccess_key_id = \"OTHERACCOUNT00000001\"\nsecret_access_key = \"a secret of another account\"\n\
                account_id = \"222222222222\"\n";
    let mut bus = Bus::start(&[], Some(toml))?;
    bus.done("s3.createbucket", json!({ "Bucket": "shared" }))?;
    let mut s3 = bus.s3d.s3()?;
    for (key, tags) in [("key", "secret=no"), ("secret", "secret=yes")] {
        s3.call(s3.request("PUT", "shared", key, "", "x").header("x-amz-tagging", tags))?.expect(200)?;
    }
    let other = Sender::new("OTHERACCOUNT00000001", "a secret of another account");
    let tries = |bus: &mut Bus, expected: [&str; 5]| -> Result<()> {
        let asked = [
            ("s3.getobject", json!({ "Bucket": "shared", "Key": "key" })),
            ("s3.getobject", json!({ "Bucket": "shared", "Key": "secret" })),
            ("s3.headobject", json!({ "Bucket": "shared", "Key": "secret" })),
            ("s3.copyobject", json!({ "Bucket": "shared", "Key": "copy", "CopySource": "shared/secret" })),
            ("s3.putobject", json!({ "Bucket": "shared", "Key": "new", "Body": base64(b"y") })),
        ];
        for ((subject, input), expected) in asked.iter().zip(expected) {
            let answer = bus.client.call(&other, subject, input)?;
            let got = if answer.get("Error").is_some() { code(&answer)? } else { String::new() };
            ensure!(got == expected, "{subject} {input}: {answer}, not {expected}");
        }
        Ok(())
    };
    let denied = "AccessDenied";
    tries(&mut bus, [denied; 5])?;
    let policy = |condition: Value| {
        let statement = |effect: &str, condition: &Value| {
            json!({ "Effect": effect, "Principal": "*", "Action": ["s3:GetObject", "s3:PutObject"],
                    "Resource": "arn:aws:s3:::shared/*", "Condition": condition })
        };
        json!({ "Version": "2012-10-17", "Statement": [statement("Allow", &json!({})), statement("Deny", &condition)] })
    };
    let by_tag = policy(json!({ "StringEquals": { "s3:ExistingObjectTag/secret": "yes" } })).to_string();
    s3.call(s3.request("PUT", "shared", "", "policy", by_tag))?.expect(204)?;
    tries(&mut bus, ["", denied, denied, denied, ""])?;
    s3.call(s3.request(
        "PUT",
        "shared",
        "",
        "requestPayment",
        "<RequestPaymentConfiguration><Payer>Requester</Payer></RequestPaymentConfiguration>",
    ))?
    .expect(200)?;
    tries(&mut bus, [denied; 5])
}

/// A user of the catalog, as over S3: what no policy allows is refused, and a key that is stopped stops within a second.
#[test]
fn a_users_key_counts_and_stops_as_over_s3() -> Result<()> {
    if !can_run("a_users_key_counts_and_stops_as_over_s3", &[SERVER]) {
        return Ok(());
    }
    let mut bus = Bus::start(&[], None)?;
    for bucket in ["shared", "private"] {
        bus.done("s3.createbucket", json!({ "Bucket": bucket }))?;
        for key in ["logs/a", "other"] {
            bus.done("s3.putobject", json!({ "Bucket": bucket, "Key": key, "Body": base64(b"hello") }))?;
        }
    }
    let made = bus.s3d.subcommand(&["user", "add", "ann", "--read-only", "shared/logs", "--env"])?;
    let value = |name: &str| {
        let line = made.lines().find_map(|line| line.strip_prefix(&format!("export {name}='")));
        line.and_then(|rest| rest.strip_suffix('\'')).with_context(|| format!("no {name}"))
    };
    let (id, secret) = (value("AWS_ACCESS_KEY_ID")?, value("AWS_SECRET_ACCESS_KEY")?);
    let ann = Sender::new(id, secret);
    let get = |bus: &mut Bus, bucket: &str, key: &str| {
        let answer = bus.client.call(&ann, "s3.getobject", &json!({ "Bucket": bucket, "Key": key }))?;
        if answer.get("Error").is_some() { code(&answer) } else { Ok("got".to_owned()) }
    };
    for (bucket, key, outcome) in
        [("shared", "logs/a", "got"), ("shared", "other", "AccessDenied"), ("private", "logs/a", "AccessDenied")]
    {
        ensure!(get(&mut bus, bucket, key)? == outcome, "{bucket}/{key} is not {outcome}");
    }
    let put = json!({ "Bucket": "shared", "Key": "logs/b", "Body": base64(b"mine") });
    ensure!(code(&bus.client.call(&ann, "s3.putobject", &put)?)? == "AccessDenied", "it may write");
    for (word, outcome) in
        [("disable-key", "InvalidAccessKeyId"), ("enable-key", "got"), ("remove-key", "InvalidAccessKeyId")]
    {
        bus.s3d.subcommand(&["user", word, id])?;
        let said = Instant::now();
        while get(&mut bus, "shared", "logs/a")? != outcome {
            ensure!(said.elapsed() < Duration::from_secs(1), "{word} does not count after a second");
        }
    }
    ensure!(!bus.s3d.log_text().contains(secret), "a secret is in the log");
    Ok(())
}

#[test]
fn long_bodies_go_by_presigned_urls() -> Result<()> {
    if !can_run("long_bodies_go_by_presigned_urls", &[SERVER]) {
        return Ok(());
    }
    let mut bus = Bus::start(&[], None)?;
    bus.done("s3.createbucket", json!({ "Bucket": "photos" }))?;
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let key = "a b/ü+%41";
    let wish = json!({ "Bucket": "photos", "Key": key, "ContentType": "image/raw", "Metadata": { "camera": "é & co" },
        "IfNoneMatch": "*", "Presign": true });
    let url = bus.done("s3.putobject", wish)?;
    ensure!(url["Presigned"]["Method"] == "PUT", "{url}");
    bus.follow(&url, &body)?.expect(200)?;
    ensure!(bus.follow(&url, &body)?.code() == "PreconditionFailed", "what was asked for goes with the URL");
    let stored = bus.s3d.s3()?.get("photos", key)?.expect(200)?;
    ensure!(stored.body == body && stored.get("content-type") == Some("image/raw"));
    ensure!(stored.get("x-amz-meta-camera") == Some("=?UTF-8?B?w6kgJiBjbw==?="), "{:?}", stored.headers);

    let place = json!({ "Bucket": "photos", "Key": key });
    let got = bus.done("s3.getobject", place)?;
    ensure!(got.get("Body").is_none() && got["ContentLength"] == body.len() && got["ContentType"] == "image/raw");
    ensure!(bus.follow(&got, b"")?.expect(200)?.body == body);
    let part = json!({ "Bucket": "photos", "Key": key, "Range": "bytes=100-2000099" });
    let part = bus.done("s3.getobject", part)?;
    ensure!(bus.follow(&part, b"")?.expect(206)?.body == body[100..2_000_100]);

    // What fits comes in the answer, unless a URL is asked for.
    let short = json!({ "Bucket": "photos", "Key": key, "Range": "bytes=0-779999" });
    ensure!(body_of(&bus.done("s3.getobject", short)?)? == body[..780_000]);
    let asked = json!({ "Bucket": "photos", "Key": key, "Range": "bytes=0-9", "Presign": true });
    let asked = bus.done("s3.getobject", asked)?;
    ensure!(bus.follow(&asked, b"")?.expect(206)?.body == body[..10]);
    Ok(())
}

#[test]
fn memory_bounds_what_a_message_may_carry_whatever_the_server_allows() -> Result<()> {
    if !can_run("memory_bounds_what_a_message_may_carry", &[SERVER]) {
        return Ok(());
    }
    let server = Server::start("max_payload: 8MB")?;
    let s3d = s3d_on(&server.url(), &[("PREDASTORE_NATS_MEMORY_BUDGET", "8MiB")], None)?;
    let root = Sender::new(&s3d.credentials().access_key, &s3d.credentials().secret_key);
    let mut client = Client::connect(server.port, Login::Nobody)?;
    client.wait_until_served("s3.putobject")?;
    let (mut s3, long) = (s3d.s3()?, vec![7; 3_500_000]);
    s3.create_bucket("photos")?;
    let put = json!({ "Bucket": "photos", "Key": "long", "Body": base64(&long) });
    let refused = client.call(&root, "s3.putobject", &put)?;
    ensure!(code(&refused)? == "EntityTooLarge" && refused.to_string().contains("Presign"), "{refused}");
    let other = json!({ "Bucket": "photos", "Key": "k".repeat(70_000) });
    ensure!(code(&client.call(&root, "s3.getobject", &other)?)? == "MaxMessageLengthExceeded");
    s3.put("photos", "long", long)?.expect(200)?;
    let got = client.call(&root, "s3.getobject", &json!({ "Bucket": "photos", "Key": "long" }))?;
    ensure!(got.get("Body").is_none() && got["Presigned"]["Method"] == "GET", "{got}");
    let fits = json!({ "Bucket": "photos", "Key": "long", "Range": "bytes=0-2999999" });
    ensure!(body_of(&client.call(&root, "s3.getobject", &fits)?)? == vec![7; 3_000_000]);
    Ok(())
}

#[test]
fn versions_are_named_as_on_s3() -> Result<()> {
    if !can_run("versions_are_named_as_on_s3", &[SERVER]) {
        return Ok(());
    }
    let mut bus = Bus::start(&[], None)?;
    bus.done("s3.createbucket", json!({ "Bucket": "photos" }))?;
    bus.s3d.s3()?.enable_versioning("photos")?;
    let put = |body: &str| json!({ "Bucket": "photos", "Key": "a", "Body": base64(body.as_bytes()) });
    let first = bus.done("s3.putobject", put("one"))?["VersionId"].clone();
    let second = bus.done("s3.putobject", put("two"))?["VersionId"].clone();
    ensure!(first.is_string() && first != second);
    let of = |id: &Value| json!({ "Bucket": "photos", "Key": "a", "VersionId": id });
    let got = bus.done("s3.getobject", of(&first))?;
    ensure!(body_of(&got)? == b"one" && got["VersionId"] == first, "{got}");
    let source = format!("photos/a?versionId={}", first.as_str().unwrap_or_default());
    let copied = bus.done("s3.copyobject", json!({ "Bucket": "photos", "Key": "b", "CopySource": source }))?;
    ensure!(copied["CopySourceVersionId"] == first, "{copied}");
    bus.s3d.s3()?.expect_body("photos", "b", b"one")?;

    let marker = bus.done("s3.deleteobject", json!({ "Bucket": "photos", "Key": "a" }))?;
    ensure!(marker["DeleteMarker"] == true && marker["VersionId"].is_string(), "{marker}");
    ensure!(bus.refused("s3.getobject", json!({ "Bucket": "photos", "Key": "a" }))? == "NoSuchKey");
    ensure!(bus.refused("s3.getobject", of(&marker["VersionId"]))? == "MethodNotAllowed");
    ensure!(bus.refused("s3.getobject", of(&json!("nonsense")))? == "InvalidArgument");
    bus.done("s3.deleteobject", of(&marker["VersionId"]))?;
    ensure!(body_of(&bus.done("s3.getobject", json!({ "Bucket": "photos", "Key": "a" }))?)? == b"two");
    let of_url = json!({ "Bucket": "photos", "Key": "a", "VersionId": first, "Presign": true });
    let url = bus.done("s3.getobject", of_url)?;
    ensure!(bus.follow(&url, b"")?.expect(200)?.body == b"one", "{url}");
    bus.done("s3.deleteobject", of(&first))?;
    ensure!(bus.refused("s3.headobject", of(&first))? == "NoSuchVersion");
    Ok(())
}

#[test]
fn a_listing_that_does_not_fit_into_a_message_goes_on_in_the_next() -> Result<()> {
    if !can_run("a_listing_that_does_not_fit_into_a_message_goes_on_in_the_next", &[SERVER]) {
        return Ok(());
    }
    let server = Server::start("max_payload: 65536")?;
    let s3d = s3d_on(&server.url(), &[], None)?;
    let root = Sender::new(&s3d.credentials().access_key, &s3d.credentials().secret_key);
    let mut s3 = s3d.s3()?;
    s3.create_bucket("photos")?;
    let keys: Vec<String> = (0..60).map(|number| format!("{number:02}{}", "k".repeat(1000))).collect();
    for key in &keys {
        s3.put("photos", key, "x")?.expect(200)?;
    }
    wait_for_metric(&s3d, "predastore_nats_connected 1")?;
    let mut client = Client::connect(server.port, Login::Nobody)?;
    client.wait_until_served("s3.listobjects")?;
    let (mut listed, mut pages, mut token) = (Vec::new(), 0, Value::Null);
    loop {
        let page = client.call(&root, "s3.listobjects", &json!({ "Bucket": "photos", "ContinuationToken": token }))?;
        for entry in page["Contents"].as_array().with_context(|| format!("{page}"))? {
            listed.push(entry["Key"].as_str().unwrap_or_default().to_owned());
        }
        pages += 1;
        token = page["NextContinuationToken"].clone();
        if page["IsTruncated"] == false {
            break;
        }
    }
    ensure!(listed == keys && pages > 1, "{} keys in {pages} pages", listed.len());
    Ok(())
}

#[test]
fn it_logs_in_by_password_by_nkey_and_by_credentials_over_tls() -> Result<()> {
    if !can_run("it_logs_in_by_password_by_nkey_and_by_credentials_over_tls", &[SERVER]) {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let (ca, tls) = nats::certificates(dir.path())?;
    let ca = ca.display().to_string();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let key = KeyPair::new_user();
    std::fs::write(file("seed"), key.seed()?)?;
    // The test's own client speaks no TLS.
    let users = format!(
        "{tls}\nallow_non_tls: true\nauthorization {{ users: [ {{ user: s3d, password: \"of s3d\" }}, {{ nkey: {} }},\n\
         {{ user: test, password: \"of the test\" }} ] }}",
        key.public_key()
    );
    let (operator, user_jwt, user_key) = nats::operator()?;
    nats::creds_file(&dir.path().join("creds"), &user_jwt, &user_key)?;
    let tester = Login::Password("test", "of the test");
    let (seed, creds) = (file("seed"), file("creds"));
    let logins: [(&str, String, Settings<'_>, Login<'_>); 3] = [
        (
            "password",
            users.clone(),
            vec![("PREDASTORE_NATS_USER", "s3d"), ("PREDASTORE_NATS_PASSWORD", "of s3d")],
            tester,
        ),
        ("nkey", users, vec![("PREDASTORE_NATS_NKEY_FILE", &seed)], tester),
        (
            "credentials",
            format!("{tls}\nallow_non_tls: true\n{operator}"),
            vec![("PREDASTORE_NATS_CREDS_FILE", &creds)],
            Login::Jwt(&user_jwt, &user_key),
        ),
    ];
    for (what, config, mut settings, login) in logins {
        let server = Server::start(&config)?;
        settings.push(("PREDASTORE_NATS_CA_FILE", &ca));
        let s3d = s3d_on(&server.url().replace("nats://", "tls://"), &settings, None)?;
        wait_for_metric(&s3d, "predastore_nats_connected 1").with_context(|| format!("{what}\n{}", server.log()))?;
        let root = Sender::new(&s3d.credentials().access_key, &s3d.credentials().secret_key);
        let mut client = Client::connect(server.port, login).with_context(|| server.log())?;
        client.wait_until_served("s3.createbucket")?;
        let made = client.call(&root, "s3.createbucket", &json!({ "Bucket": "photos" }))?;
        ensure!(made["Location"] == "/photos", "{what}: {made}");
        ensure!(!s3d.log_text().contains("of s3d"), "a secret in the log");
    }
    Ok(())
}

#[test]
fn a_server_that_is_not_to_be_trusted_or_does_not_let_in_is_not_served_and_s3_goes_on() -> Result<()> {
    if !can_run("a_server_that_is_not_to_be_trusted_or_does_not_let_in", &[SERVER]) {
        return Ok(());
    }
    let (ours, others) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (_, tls) = nats::certificates(ours.path())?;
    let (other_ca, _) = nats::certificates(others.path())?;
    let other_ca = other_ca.display().to_string();
    let secured = Server::start(&tls)?;
    let closed = Server::start("authorization { user: a, password: b }")?;
    for (url, settings) in [
        (secured.url(), vec![("PREDASTORE_NATS_CA_FILE", other_ca.as_str())]),
        (closed.url(), vec![("PREDASTORE_NATS_USER", "a"), ("PREDASTORE_NATS_PASSWORD", "c")]),
        (closed.url(), vec![]),
    ] {
        let s3d = s3d_on(&url, &settings, None)?;
        let deadline = Instant::now() + PATIENCE;
        while !s3d.log_text().contains("NATS; it is tried again") {
            ensure!(Instant::now() < deadline, "nothing is said\n{}", s3d.log_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
        ensure!(s3d.admin("/metrics")?.text().contains("predastore_nats_connected 0"));
        s3d.s3()?.create_bucket("photos")?;
    }
    Ok(())
}

#[test]
fn a_server_may_come_late_and_go_and_come_back() -> Result<()> {
    if !can_run("a_server_may_come_late_and_go_and_come_back", &[SERVER]) {
        return Ok(());
    }
    let mut server = Server::stopped("")?;
    let s3d = s3d_on(&server.url(), &[], None)?;
    s3d.s3()?.create_bucket("photos")?;
    server.restart()?;
    wait_for_metric(&s3d, "predastore_nats_connected 1")?;
    let root = Sender::new(&s3d.credentials().access_key, &s3d.credentials().secret_key);
    let client = Client::connect(server.port, Login::Nobody)?;
    let mut bus = Bus { server, s3d, client, root };
    for round in 0..3 {
        bus.wait_until_served()?;
        for number in 0..20 {
            let key = format!("{round}-{number}");
            bus.done("s3.putobject", json!({ "Bucket": "photos", "Key": key, "Body": base64(key.as_bytes()) }))?;
        }
        // With requests under way.
        for number in 20..40 {
            let (key, reply) = (format!("{round}-{number}"), bus.client.fresh_reply());
            let input = json!({ "Bucket": "photos", "Key": key, "Body": base64(key.as_bytes()) }).to_string();
            let envelope = bus.root.envelope("s3.putobject", input.as_bytes(), &reply);
            bus.client.publish("s3.putobject", &reply, &[(HEADER, &envelope)], input.as_bytes())?;
        }
        bus.server.stop();
        wait_for_metric(&bus.s3d, "predastore_nats_connected 0")?;
        bus.server.restart()?;
    }
    bus.wait_until_served()?;
    let mut s3 = bus.s3d.s3()?;
    for listed in s3.list("photos")? {
        s3.expect_body("photos", &listed.key, listed.key.as_bytes())?;
    }
    for round in 0..3 {
        for number in 0..20 {
            let key = format!("{round}-{number}");
            let got = bus.done("s3.getobject", json!({ "Bucket": "photos", "Key": key }))?;
            ensure!(body_of(&got)? == key.as_bytes());
        }
    }
    // A server that is away is not waited for.
    bus.server.stop();
    wait_for_metric(&bus.s3d, "predastore_nats_connected 0")?;
    bus.s3d.stop()?;
    ensure!(!bus.s3d.log_text().contains("were still running"), "{}", bus.s3d.log_tail());
    bus.s3d.expect_clean()
}

#[test]
fn gateways_of_a_cluster_share_the_work_and_tell_what_it_is_made_of() -> Result<()> {
    if !can_run("gateways_of_a_cluster_share_the_work", &[SERVER]) {
        return Ok(());
    }
    let server = Server::start("")?;
    let config = Config::default().set(setting::NATS_URL, server.url());
    let mut cluster = Cluster::start(&Shape::boxes(3, 3, (2, 1)), &config)?;
    for process in &cluster.processes {
        wait_for_metric(process, "predastore_nats_connected 1")?;
    }
    let credentials = cluster.processes[0].credentials();
    let root = Sender::new(&credentials.access_key, &credentials.secret_key);
    let mut client = Client::connect(server.port, Login::Nobody)?;
    client.wait_until_served("s3.createbucket")?;
    client.call(&root, "s3.createbucket", &json!({ "Bucket": "photos" }))?;
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        let told = client.call(&root, "spinifex.storage.config", &json!({}))?;
        if told["shard_nodes"].as_array().is_some_and(|nodes| nodes.len() == 3) {
            break told;
        }
        ensure!(Instant::now() < deadline, "{told}");
        std::thread::sleep(Duration::from_millis(100));
    };
    ensure!(told["encoding"] == json!({ "data_shards": 2, "parity_shards": 1 }), "{told}");
    ensure!(
        told["buckets"] == json!([{ "name": "photos", "type": "distributed", "region": credentials.region }]),
        "{told}"
    );
    for (nodes, expected) in
        [(&told["db_nodes"], [Some(1), Some(2), Some(3)]), (&told["shard_nodes"], [Some(0), Some(1), Some(2)])]
    {
        let ids: Vec<_> = nodes.as_array().into_iter().flatten().map(|node| node["id"].as_u64()).collect();
        ensure!(ids == expected, "{told}");
        ensure!(nodes[0]["host"] == "127.0.0.1" && nodes[0]["port"].as_u64().is_some_and(|port| port > 0), "{told}");
    }
    let put = |client: &mut Client, number: usize| -> Result<()> {
        let body = vec![number as u8; 20_000];
        let input = json!({ "Bucket": "photos", "Key": format!("{number}"), "Body": base64(&body) });
        let answer = client.call(&root, "s3.putobject", &input)?;
        ensure!(answer["ETag"].is_string(), "{answer}\n{}", cluster.log_tails());
        let got = client.call(&root, "s3.getobject", &json!({ "Bucket": "photos", "Key": format!("{number}") }))?;
        ensure!(body_of(&got)? == body, "{number}");
        Ok(())
    };
    for number in 0..60 {
        put(&mut client, number)?;
    }
    let stored = |process: &S3d| -> Result<u64> {
        let wanted = "predastore_nats_requests_total{operation=\"PutObject\",code=\"OK\"} ";
        let metrics = process.admin("/metrics")?.text();
        let count = metrics.lines().find_map(|line| line.strip_prefix(wanted)).unwrap_or("0").trim();
        Ok(count.parse()?)
    };
    let counts = cluster.processes.iter().map(stored).collect::<Result<Vec<_>>>()?;
    ensure!(counts.iter().sum::<u64>() == 60 && counts.iter().all(|count| *count > 0), "{counts:?}");
    cluster.kill(&[2]);
    // The server sees the end of its connection.
    std::thread::sleep(Duration::from_millis(500));
    let mut s3 = cluster.processes[0].s3()?;
    for number in 60..70 {
        let input = json!({ "Bucket": "photos", "Key": format!("{number}"), "Body": base64(b"later") });
        let answer = client.call(&root, "s3.putobject", &input)?;
        ensure!(answer["ETag"].is_string(), "{answer}\n{}", cluster.log_tails());
        s3.expect_body("photos", &format!("{number}"), b"later")?;
    }
    Ok(())
}

#[test]
fn a_trusted_connection_acts_as_the_configured_account() -> Result<()> {
    if !can_run("a_trusted_connection_acts_as_the_configured_account", &[SERVER]) {
        return Ok(());
    }
    let toml = "[nats]\ntrusted = true\naccount = \"LIMITEDACCOUNT000001\"\nprefix = \"edge.one\"\n\
                operations = [\"GetObject\", \"PutObject\", \"ListBuckets\"]\n\
                [[auth]]\naccess_key_id = \"LIMITEDACCOUNT000001\"\nsecret_access_key = \"a secret of a limited account\"\n\
                policy = [{ bucket = \"mine\", actions = [\"s3:*\"] }]\n[[buckets]]\nname = \"mine\"\n[[buckets]]\nname = \"other\"\n";
    let server = Server::start("")?;
    let s3d = s3d_on(&server.url(), &[], Some(toml))?;
    wait_for_metric(&s3d, "predastore_nats_connected 1")?;
    let mut client = Client::connect(server.port, Login::Nobody)?;
    client.wait_until_served("edge.one.s3.getobject")?;
    let put = |bucket: &str| json!({ "Bucket": bucket, "Key": "k", "Body": base64(b"x") }).to_string().into_bytes();
    let done = client.request("edge.one.s3.putobject", &[], &put("mine"))?;
    ensure!(done["ETag"].is_string(), "{done}");
    s3d.s3()?.expect_body("mine", "k", b"x")?;
    ensure!(code(&client.request("edge.one.s3.PutObject", &[], &put("other"))?)? == "AccessDenied");
    ensure!(code(&client.request("edge.one.s3.listbuckets", &[], b"")?)? == "AccessDenied");
    for subject in ["s3.putobject", "edge.one.s3.deleteobject", "edge.one.spinifex.storage.config"] {
        let error = client.request(subject, &[], &put("mine")).err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(error.contains("nobody serves"), "{subject} is served: {error}");
    }
    ensure!(s3d.log_text().contains("whoever may publish"), "it is said at the start");
    Ok(())
}

#[test]
fn more_at_once_than_fits_is_told_to_slow_down_and_memory_stays_bounded() -> Result<()> {
    if !can_run("more_at_once_than_fits_is_told_to_slow_down", &[SERVER]) {
        return Ok(());
    }
    let mut bus = Bus::start(&[("PREDASTORE_NATS_MEMORY_BUDGET", "8MiB")], None)?;
    bus.done("s3.createbucket", json!({ "Bucket": "photos" }))?;
    let before = bus.s3d.rss_bytes()?;
    let body = base64(&vec![7; 600_000]);
    let mut writer = Client::connect(bus.server.port, Login::Nobody)?;
    const COUNT: usize = 200;
    for number in 0..COUNT {
        let (input, reply) =
            (json!({ "Bucket": "photos", "Key": format!("{number}"), "Body": body }).to_string(), writer.fresh_reply());
        let envelope = bus.root.envelope("s3.putobject", input.as_bytes(), &reply);
        writer.publish("s3.putobject", &reply, &[(HEADER, &envelope)], input.as_bytes())?;
    }
    let (mut done, mut slowed) = (0, 0);
    for _ in 0..COUNT {
        let answer: Value = serde_json::from_slice(&writer.receive()?.1.payload)?;
        match answer["Error"]["Code"].as_str() {
            None => done += 1,
            Some("SlowDown") => slowed += 1,
            Some(_) => bail!("{answer}"),
        }
    }
    ensure!(done > 0, "none of {COUNT} was done, {slowed} were told to slow down");
    ensure!(bus.s3d.s3()?.list("photos")?.len() == done);
    let grown = bus.s3d.rss_bytes()?.saturating_sub(before);
    ensure!(grown < 96 << 20, "{COUNT} bodies of 800 kB in base64 took {grown} bytes");
    bus.done("s3.headbucket", json!({ "Bucket": "photos" })).map(drop)
}

#[test]
fn what_cannot_work_ends_the_start() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let missing = dir.path().join("missing").display().to_string();
    for (name, value, said) in [
        ("PREDASTORE_NATS_URL", "http://127.0.0.1", "no URL of a NATS server"),
        ("PREDASTORE_NATS_URL", "nats://me:hunter2@127.0.0.1", "user name"),
        ("PREDASTORE_NATS_CREDS_FILE", missing.as_str(), "missing"),
        ("PREDASTORE_NATS_CA_FILE", missing.as_str(), "missing"),
        ("PREDASTORE_NATS_OPERATIONS", "Sing", "no operation `Sing`"),
        ("PREDASTORE_NATS_PASSWORD", "hunter2", "without `nats.user`"),
    ] {
        let config = Config::default().plain().set(setting::NATS_URL, "nats://127.0.0.1:4222").set(name, value);
        let mut s3d = S3d::stopped(config)?;
        s3d.spawn()?;
        let status = s3d.wait_exit(PATIENCE)?;
        let log = s3d.log_text();
        ensure!(!status.success() && log.contains(said) && !log.contains("hunter2"), "{name}={value}: {log}");
    }
    Ok(())
}
