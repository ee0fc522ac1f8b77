//! Access keys that a control plane keeps in JetStream's key-value buckets, as Spinifex writes them, against a real server.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use predastore_tests::http::Response;
use predastore_tests::knobs::{can_run, say};
use predastore_tests::mount;
use predastore_tests::nats::{Client, Login, SERVER, Sender, Server, Stream, jetstream};
use predastore_tests::s3::S3;
use predastore_tests::s3d::{PATIENCE, S3d, setting};
use predastore_tests::sigv4::Signer;
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const MASTER: [u8; 32] = [0x5A; 32];
const ONE: &str = "000000000001";
const TWO: &str = "000000000002";
const BUCKETS: [&str; 6] = ["access-keys", "users", "roles", "policies", "groups", "session-credentials"];

/// A secret as Spinifex seals it.
fn sealed(secret: &str) -> Result<String> {
    let key = UnboundKey::new(&AES_256_GCM, &MASTER).map_err(|_| anyhow::anyhow!("no key"))?;
    let nonce = [secret.len() as u8; NONCE_LEN];
    let mut text = secret.as_bytes().to_vec();
    let sealing = LessSafeKey::new(key);
    let done = sealing.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text);
    done.map_err(|_| anyhow::anyhow!("not sealed"))?;
    Ok(STANDARD.encode([&nonce[..], &text].concat()))
}

fn allow(actions: &str, resource: &str) -> String {
    json!({ "Version": "2012-10-17",
        "Statement": [{ "Effect": "Allow", "Action": actions, "Resource": format!("arn:aws:s3:::{resource}") }] })
    .to_string()
}

/// A control plane: a server with the buckets, and a box that heeds them.
struct Plane {
    server: Server,
    client: Client,
    s3d: S3d,
    _dir: TempDir,
}

impl Plane {
    fn start() -> Result<Plane> {
        let dir = tempfile::tempdir()?;
        let key = dir.path().join("master.key");
        std::fs::write(&key, MASTER)?;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640))?;
        let server = Server::start(&jetstream(&dir.path().join("jetstream")))?;
        let client = Client::connect(server.port, Login::Nobody)?;
        let config = mount::config()
            .set(setting::NATS_URL, server.url())
            .set(setting::NATS_IAM, "on")
            .set(setting::NATS_IAM_KEY_FILE, key.display().to_string());
        let s3d = S3d::start(config)?;
        Ok(Plane { server, client, s3d, _dir: dir })
    }

    fn with_buckets() -> Result<Plane> {
        let plane = Plane::start()?;
        plane.make_buckets()?;
        Ok(plane)
    }

    fn make_buckets(&self) -> Result<()> {
        BUCKETS.iter().try_for_each(|bucket| Stream::create_bucket(&self.server, &format!("spinifex-iam-{bucket}")))
    }

    fn put(&mut self, bucket: &str, key: &str, value: &Value) -> Result<()> {
        self.client.put_key(&format!("spinifex-iam-{bucket}"), key, Some(value))
    }

    fn delete(&mut self, bucket: &str, key: &str) -> Result<()> {
        self.client.put_key(&format!("spinifex-iam-{bucket}"), key, None)
    }

    /// A user with one key, whose secret is the key's id in lower case.
    fn add_user(&mut self, account: &str, name: &str, user: &Value) -> Result<S3> {
        self.put("users", &format!("{account}.{name}"), user)?;
        let id = format!("AKIA{}", name.to_uppercase());
        let key = json!({ "access_key_id": id, "secret_access_key": sealed(&id.to_lowercase())?, "user_name": name,
            "account_id": account, "status": "Active", "created_at": "2026-01-01T00:00:00Z" });
        self.put("access-keys", &id, &key)?;
        self.s3(&id)
    }

    fn s3(&self, id: &str) -> Result<S3> {
        Ok(S3::new(self.s3d.endpoint()?, Signer::new(id, &id.to_lowercase(), "us-east-1")))
    }
}

/// Asks until the answer has this status: what was changed just now is seen soon, and how soon is told.
fn soon(mut ask: impl FnMut() -> Result<Response>, status: u16) -> Result<Response> {
    let begun = Instant::now();
    loop {
        let answer = ask()?;
        if answer.status == status {
            say(&format!("iam: {status} after {:?}", begun.elapsed()));
            return Ok(answer);
        }
        ensure!(begun.elapsed() < PATIENCE, "{} {}, and not {status}", answer.status, answer.text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_users_key_does_what_its_policies_say_in_its_account() -> Result<()> {
    if !can_run("a_users_key_does_what_its_policies_say", &[SERVER]) {
        return Ok(());
    }
    let mut plane = Plane::with_buckets()?;
    let policy = json!({ "policy_name": "all", "policy_document": allow("s3:*", "*") });
    plane.put("policies", &format!("{ONE}.all"), &policy)?;
    plane.put("policies", &format!("{TWO}.all"), &policy)?;
    let attached = |account: &str| json!({ "attached_policies": [format!("arn:aws:iam::{account}:policy/all")] });
    let mut ann = plane.add_user(ONE, "ann", &attached(ONE))?;
    let mut eve = plane.add_user(TWO, "eve", &attached(TWO))?;
    plane.put(
        "groups",
        &format!("{ONE}.readers"),
        &json!({ "inline_policies": { "r": allow("s3:GetObject", "anns/*") } }),
    )?;
    let mut bob = plane.add_user(ONE, "bob", &json!({ "groups": ["readers"], "attached_policies": null }))?;

    soon(|| ann.call(ann.request("PUT", "anns", "", "", "")), 200)?;
    ann.put("anns", "a", "one")?.expect(200)?;
    soon(|| bob.get("anns", "a"), 200)?;
    bob.put("anns", "b", "x")?.expect(403)?;
    // Another account has its own buckets and no others, whatever its policies say.
    soon(|| eve.call(eve.request("PUT", "eves", "", "", "")), 200)?;
    eve.get("anns", "a")?.expect(403)?;
    let copy = eve.request("PUT", "eves", "copy", "", "").header("x-amz-copy-source", "/anns/a");
    eve.call(copy)?.expect(403)?;
    let listed = eve.call(eve.request("GET", "", "", "", ""))?.expect(200)?.text();
    ensure!(listed.contains("<Name>eves</Name>") && !listed.contains("anns"), "{listed}");
    let taken = eve.call(eve.request("PUT", "anns", "", "", ""))?.expect(409)?.text();
    ensure!(taken.contains("BucketAlreadyExists"), "{taken}");
    // The keys of the configuration know no such bounds, and win.
    let mut root = plane.s3d.s3()?;
    root.get("anns", "a")?.expect(200)?;
    root.put("eves", "b", "x")?.expect(200)?;

    // What changes counts within a second.
    plane.put("groups", &format!("{ONE}.readers"), &json!({ "inline_policies": {} }))?;
    soon(|| bob.get("anns", "a"), 403)?;
    plane.delete("access-keys", "AKIAANN")?;
    let gone = soon(|| ann.get("anns", "a"), 403)?.text();
    ensure!(gone.contains("InvalidAccessKeyId"), "{gone}");
    let off =
        json!({ "secret_access_key": sealed("akiaeve")?, "user_name": "eve", "account_id": TWO, "status": "Inactive" });
    plane.put("access-keys", "AKIAEVE", &off)?;
    soon(|| eve.get("eves", "b"), 403)?;
    // A policy that makes no sense allows nothing.
    plane.put("groups", &format!("{ONE}.readers"), &json!({ "inline_policies": { "odd": "{" } }))?;
    let odd = soon(|| bob.get("anns", "a"), 500)?.text();
    ensure!(odd.contains("InternalError") && !odd.contains("odd"), "{odd}");
    Ok(())
}

#[test]
fn over_the_bus_a_users_key_does_the_same() -> Result<()> {
    if !can_run("over_the_bus_a_users_key_does_the_same", &[SERVER]) {
        return Ok(());
    }
    let mut plane = Plane::with_buckets()?;
    let all = |policy: &str| json!({ "inline_policies": { "all": policy } });
    let mut ann = plane.add_user(ONE, "ann", &all(&allow("s3:*", "*")))?;
    plane.add_user(TWO, "eve", &all(&allow("s3:*", "*")))?;
    soon(|| ann.call(ann.request("PUT", "anns", "", "", "")), 200)?;
    ann.put("anns", "a", "one")?.expect(200)?;
    plane.client.wait_until_served("s3.getobject")?;
    let mut ask = |id: &str, subject: &str, input: Value| {
        let sender = Sender::new(id, &id.to_lowercase());
        plane.client.call(&sender, subject, &input)
    };
    let of_ann = json!({ "Bucket": "anns", "Key": "a" });
    ensure!(ask("AKIAANN", "s3.getobject", of_ann.clone())?["ETag"].is_string());
    ensure!(ask("AKIAEVE", "s3.getobject", of_ann)?["Error"]["Code"] == "AccessDenied");
    ensure!(ask("AKIAEVE", "s3.createbucket", json!({ "Bucket": "eves" }))?["Location"].is_string());
    let copy = json!({ "Bucket": "eves", "Key": "c", "CopySource": "anns/a" });
    ensure!(ask("AKIAEVE", "s3.copyobject", copy)?["Error"]["Code"] == "AccessDenied");
    let listed = ask("AKIAEVE", "s3.listbuckets", json!({}))?;
    ensure!(listed["Buckets"].as_array().is_some_and(|all| all.len() == 1), "{listed}");
    Ok(())
}

#[test]
fn sessions_count_with_their_token_until_they_end() -> Result<()> {
    if !can_run("sessions_count_with_their_token_until_they_end", &[SERVER]) {
        return Ok(());
    }
    let mut plane = Plane::with_buckets()?;
    let all = json!({ "inline_policies": { "all": allow("s3:*", "*") } });
    let mut ann = plane.add_user(ONE, "ann", &all)?;
    plane.put(
        "roles",
        &format!("{ONE}.boot"),
        &json!({ "inline_policies": { "r": allow("s3:GetObject", "anns/*") } }),
    )?;
    soon(|| ann.call(ann.request("PUT", "anns", "", "", "")), 200)?;
    ann.put("anns", "a", "one")?.expect(200)?;

    let token_hmac = STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &MASTER), b"token").as_ref());
    let session = |id: &str, kind: &str, name: &str, life_s: i64| -> Result<Value> {
        let expires = OffsetDateTime::now_utc() + time::Duration::seconds(life_s);
        Ok(
            json!({ "access_key_id": id, "secret_encrypted": sealed(&id.to_lowercase())?, "session_token_hmac": token_hmac,
            "account_id": ONE, "principal_type": kind, "session_name": name,
            "underlying_role_arn": format!("arn:aws:iam::{ONE}:role/boot"), "expires_at": expires.format(&Rfc3339)? }),
        )
    };
    for (id, kind, name, life_s) in
        [("ASIAUSER", "user", "ann", 600), ("ASIAROLE", "assumed-role", "i-1", 600), ("ASIAPAST", "user", "ann", -1)]
    {
        let value = session(id, kind, name, life_s)?;
        plane.put("session-credentials", id, &value)?;
    }
    let ask = |id: &str, method: &str, token: Option<&str>| -> Result<Response> {
        let mut s3 = plane.s3(id)?;
        let mut request = s3.request(method, "anns", "a", "", "");
        if let Some(token) = token {
            request = request.header("x-amz-security-token", token);
        }
        s3.call(request)
    };
    let code = |response: Response| predastore_tests::s3::element(&response.text(), "Code").context("no code");
    soon(|| ask("ASIAPAST", "GET", Some("token")), 400)?;
    ask("ASIAUSER", "GET", Some("token"))?.expect(200)?;
    ask("ASIAUSER", "PUT", Some("token"))?.expect(200)?;
    ask("ASIAROLE", "GET", Some("token"))?.expect(200)?;
    ask("ASIAROLE", "PUT", Some("token"))?.expect(403)?;
    ensure!(code(ask("ASIAPAST", "GET", Some("token"))?)? == "ExpiredToken");
    ensure!(code(ask("ASIAUSER", "GET", Some("other"))?)? == "InvalidToken");
    ensure!(code(ask("ASIAUSER", "GET", None)?)? == "InvalidToken");
    let answer = {
        let sender = Sender::new("ASIAUSER", "asiauser");
        plane.client.wait_until_served("s3.getobject")?;
        plane.client.call(&sender, "s3.getobject", &json!({ "Bucket": "anns", "Key": "a" }))?
    };
    ensure!(answer["Error"]["Code"] == "InvalidToken", "{answer}");
    Ok(())
}

#[test]
fn a_server_that_is_away_is_an_error_and_no_denial() -> Result<()> {
    if !can_run("a_server_that_is_away_is_an_error_and_no_denial", &[SERVER]) {
        return Ok(());
    }
    let mut plane = Plane::start()?;
    let mut ann = plane.s3("AKIAANN")?;
    // The control plane has not made its buckets yet: nobody is known, and the keys of the configuration are.
    soon(|| ann.get("anns", "a"), 403)?;
    let mut root = plane.s3d.s3()?;
    root.create_bucket("roots")?;
    plane.make_buckets()?;
    let all = json!({ "inline_policies": { "all": allow("s3:*", "*") } });
    plane.add_user(ONE, "ann", &all)?;
    soon(|| ann.call(ann.request("PUT", "anns", "", "", "")), 200)?;
    plane.server.stop();
    let away = soon(|| ann.get("anns", "a"), 500)?.text();
    ensure!(away.contains("InternalError"), "{away}");
    plane.s3("AKIANOBODY")?.get("anns", "a")?.expect(500)?;
    root.put("roots", "a", "x")?.expect(200)?;
    plane.server.restart()?;
    soon(|| ann.get("anns", "a"), 404)?;
    Ok(())
}
