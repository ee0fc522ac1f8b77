//! A `nats-server` of our own, a client that speaks its protocol line by line, and the envelope that our frontend asks for.
//!
//! The client shares no code with the one of `s3d`. Source: "Client Protocol", docs.nats.io.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nkeys::KeyPair;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::knobs::Need;
use crate::s3d::{PATIENCE, die_with_this_thread, free_port};
use crate::sigv4::hex;

/// What the suite needs.
pub const SERVER: Need = Need::Program("nats-server");

/// A server that ends with this value.
pub struct Server {
    /// Its port on 127.0.0.1.
    pub port: u16,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Server {
    /// Starts one. `config`: what its file has beside port and log.
    ///
    /// # Errors
    /// When it does not listen in time; the message has its log.
    pub fn start(config: &str) -> Result<Server> {
        let mut server = Server::stopped(config)?;
        server.restart()?;
        Ok(server)
    }

    /// As [`Server::start`], without starting it.
    ///
    /// # Errors
    /// When there is no directory.
    pub fn stopped(config: &str) -> Result<Server> {
        let (port, dir) = (free_port()?, tempfile::tempdir()?);
        let all =
            format!("listen: \"127.0.0.1:{port}\"\nlog_file: \"{}\"\n{config}\n", dir.path().join("log").display());
        std::fs::write(dir.path().join("config"), all)?;
        Ok(Server { port, dir, child: None })
    }

    /// Starts it again, on the same port.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart(&mut self) -> Result<()> {
        let mut command = Command::new("nats-server");
        command
            .arg("-c")
            .arg(self.dir.path().join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        die_with_this_thread(&mut command);
        self.child = Some(command.spawn().context("cannot run nats-server")?);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            ensure!(Instant::now() < deadline, "nats-server does not listen\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            let _ = child.wait();
        }
    }

    /// `nats://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How a client logs in.
#[derive(Clone, Copy)]
pub enum Login<'a> {
    /// Not at all.
    Nobody,
    /// User and password.
    Password(&'a str, &'a str),
    /// A JWT, and the key that it names.
    Jwt(&'a str, &'a KeyPair),
}

/// A connection to a server.
pub struct Client {
    stream: BufReader<TcpStream>,
    inbox: String,
    count: u64,
}

/// A message that came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its headers, as they came.
    pub headers: String,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn connect(port: u16, login: Login<'_>) -> Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let inbox = format!("_INBOX.{:016x}", u64::from_le_bytes(random()));
        let mut client = Client { stream: BufReader::new(stream), inbox, count: 0 };
        let info: Value = serde_json::from_str(client.line()?.strip_prefix("INFO ").context("no INFO")?)?;
        let mut connect = json!({ "verbose": false, "pedantic": false, "headers": true, "no_responders": true, "protocol": 1,
            "lang": "test", "version": "0" });
        match login {
            Login::Nobody => {}
            Login::Password(user, password) => {
                connect["user"] = json!(user);
                connect["pass"] = json!(password);
            }
            Login::Jwt(jwt, key) => {
                connect["jwt"] = json!(jwt);
                let nonce = info["nonce"].as_str().unwrap_or_default();
                connect["sig"] = json!(URL_SAFE_NO_PAD.encode(key.sign(nonce.as_bytes())?));
            }
        }
        client.write(format!("CONNECT {connect}\r\nPING\r\nSUB {}.* 1\r\n", client.inbox).as_bytes())?;
        let pong = client.line()?;
        ensure!(pong == "PONG", "the NATS server says {pong}");
        Ok(client)
    }

    /// A reply subject of its own, fresh.
    pub fn fresh_reply(&mut self) -> String {
        self.count += 1;
        format!("{}.{}", self.inbox, self.count)
    }

    /// Publishes. `header`: name and value.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn publish(&mut self, subject: &str, reply: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<()> {
        let mut head = "NATS/1.0\r\n".to_owned();
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let total = head.len() + payload.len();
        let mut bytes = format!("HPUB {subject} {reply} {} {total}\r\n{head}", head.len()).into_bytes();
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(b"\r\n");
        self.write(&bytes)
    }

    /// Subscribes to more than answers; the server has it when this returns.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn subscribe(&mut self, subject: &str) -> Result<()> {
        self.write(format!("SUB {subject} 2\r\nPING\r\n").as_bytes())?;
        let pong = self.line()?;
        ensure!(pong == "PONG", "the NATS server says {pong}");
        Ok(())
    }

    /// The next message, and its subject.
    ///
    /// # Errors
    /// When none comes in time, or the server ends the connection.
    pub fn receive(&mut self) -> Result<(String, Received)> {
        loop {
            let line = self.line()?;
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (head_len, total) = match words[..] {
                ["MSG", _, _, total] | ["MSG", _, _, _, total] => (0, total.parse()?),
                ["HMSG", _, _, head, total] | ["HMSG", _, _, _, head, total] => (head.parse()?, total.parse()?),
                ["PING"] => {
                    self.write(b"PONG\r\n")?;
                    continue;
                }
                ["PONG"] | ["INFO", ..] => continue,
                _ => bail!("the NATS server says {line}"),
            };
            let (subject, total): (String, usize) = (words[1].to_owned(), total);
            let mut bytes = vec![0; total + 2];
            self.stream.read_exact(&mut bytes)?;
            bytes.truncate(total);
            let payload = bytes.split_off(head_len);
            return Ok((subject, Received { headers: String::from_utf8_lossy(&bytes).into_owned(), payload }));
        }
    }

    /// Publishes, and waits for the answer.
    ///
    /// # Errors
    /// When none comes, or nobody has subscribed.
    pub fn request(&mut self, subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<Value> {
        let reply = self.fresh_reply();
        self.request_to(subject, &reply, headers, payload)
    }

    /// As [`Client::request`], answered at `reply`, which is one of its own.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn request_to(
        &mut self,
        subject: &str,
        reply: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> Result<Value> {
        self.publish(subject, reply, headers, payload)?;
        loop {
            let (to, received) = self.receive()?;
            if to != reply {
                continue;
            }
            ensure!(!received.headers.starts_with("NATS/1.0 503"), "nobody serves {subject}");
            return serde_json::from_slice(&received.payload).context("an answer that is no JSON");
        }
    }

    /// Puts a key into a key-value bucket, or deletes it; none: deletes.
    ///
    /// # Errors
    /// When the server does not store that.
    pub fn put_key(&mut self, bucket: &str, key: &str, value: Option<&Value>) -> Result<()> {
        let deleted = [("KV-Operation", "DEL")];
        let headers = if value.is_none() { &deleted[..] } else { &[] };
        let payload = value.map(Value::to_string).unwrap_or_default();
        let answer = self.request(&format!("$KV.{bucket}.{key}"), headers, payload.as_bytes())?;
        ensure!(answer["seq"].is_u64(), "{answer}");
        Ok(())
    }

    /// Until somebody answers on `subject`, if only that nobody is known.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_until_served(&mut self, subject: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.request(subject, &[], b"{}") {
            if Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A signed request, and its answer.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn call(&mut self, as_whom: &Sender, subject: &str, input: &Value) -> Result<Value> {
        let (reply, payload) = (self.fresh_reply(), input.to_string().into_bytes());
        let envelope = as_whom.envelope(subject, &payload, &reply);
        self.request_to(subject, &reply, &[(HEADER, &envelope)], &payload)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).context("no line from the NATS server")?;
        ensure!(read > 0, "the NATS server closed the connection");
        Ok(line.trim_end().to_owned())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }
}

/// A stream of JetStream's, asked by its JSON API. Source: "JetStream wire API", docs.nats.io.
pub struct Stream {
    client: Client,
    name: &'static str,
}

impl Stream {
    /// Makes a stream that stores what is published on `subjects`, in a server whose file has [`jetstream`].
    ///
    /// # Errors
    /// When the server refuses.
    pub fn create(server: &Server, name: &'static str, subjects: &[&str]) -> Result<Stream> {
        let mut stream = Stream { client: Client::connect(server.port, Login::Nobody)?, name };
        let config = json!({ "name": name, "subjects": subjects, "storage": "file", "retention": "limits",
            "discard": "old", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "num_replicas": 1,
            "duplicate_window": 120_000_000_000_u64 });
        stream.ask("STREAM.CREATE", &config)?;
        Ok(stream)
    }

    /// Makes a key-value bucket. Source: "KV Design" (ADR-8), NATS.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn create_bucket(server: &Server, bucket: &str) -> Result<()> {
        let mut client = Client::connect(server.port, Login::Nobody)?;
        let name = format!("KV_{bucket}");
        let config = json!({ "name": name, "subjects": [format!("$KV.{bucket}.>")], "storage": "file", "discard": "new",
            "max_msgs_per_subject": 1, "allow_rollup_hdrs": true, "deny_delete": true, "allow_direct": true,
            "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "num_replicas": 1 });
        let subject = format!("$JS.API.STREAM.CREATE.{name}");
        let answer = client.request(&subject, &[], config.to_string().as_bytes())?;
        ensure!(answer.get("error").is_none(), "{answer}");
        Ok(())
    }

    /// Connects anew, to a server that was away.
    ///
    /// # Errors
    /// When it is still.
    pub fn reconnect(&mut self, server: &Server) -> Result<()> {
        self.client = Client::connect(server.port, Login::Nobody)?;
        Ok(())
    }

    /// How many messages there are.
    ///
    /// # Errors
    /// When the server does not tell.
    pub fn count(&mut self) -> Result<u64> {
        self.ask("STREAM.INFO", &json!({}))?["state"]["last_seq"].as_u64().context("no last_seq")
    }

    /// A message by its number from 1: subject and payload.
    ///
    /// # Errors
    /// When there is none.
    pub fn message(&mut self, number: u64) -> Result<(String, Vec<u8>)> {
        let answer = self.ask("STREAM.MSG.GET", &json!({ "seq": number }))?;
        let field = |name: &str| answer["message"][name].as_str().unwrap_or_default().to_owned();
        Ok((field("subject"), base64::engine::general_purpose::STANDARD.decode(field("data"))?))
    }

    fn ask(&mut self, what: &str, input: &Value) -> Result<Value> {
        let subject = format!("$JS.API.{what}.{}", self.name);
        let answer = self.client.request(&subject, &[], input.to_string().as_bytes())?;
        ensure!(answer.get("error").is_none(), "{what}: {answer}");
        Ok(answer)
    }
}

/// What the file of a server with JetStream has, whose streams are in `dir`.
pub fn jetstream(dir: &Path) -> String {
    format!("jetstream {{ store_dir: \"{}\" }}", dir.display())
}

/// The header of the envelope.
pub const HEADER: &str = "Predastore-Envelope";

/// Who signs envelopes, in steps that can be forged.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Access key id.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: String,
    /// Seconds from now to the expiry.
    pub life_s: i64,
}

impl Sender {
    /// Envelopes for a minute.
    pub fn new(access_key: &str, secret_key: &str) -> Sender {
        Sender { access_key: access_key.into(), secret_key: secret_key.into(), life_s: 60 }
    }

    /// The header's value for one message, under a fresh nonce.
    pub fn envelope(&self, subject: &str, payload: &[u8], reply: &str) -> String {
        let expires_s = OffsetDateTime::now_utc().unix_timestamp() + self.life_s;
        let (id, nonce) = (&self.access_key, hex(&random::<16>()));
        let payload = hex(digest::digest(&digest::SHA256, payload).as_ref());
        let text = format!("PREDASTORE-NATS-1\n{id}\n{subject}\n{payload}\n{reply}\n{expires_s}\n{nonce}\n");
        let key = hmac_sha256(format!("PREDASTORE{}", self.secret_key).as_bytes(), b"nats-envelope-1");
        format!("1;{id};{expires_s};{nonce};{}", hex(&hmac_sha256(&key, text.as_bytes())))
    }
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness a test would only meet its own nonce again, and fail.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes
}

/// A certificate authority of the test's, and a server certificate for 127.0.0.1 that it signed.
///
/// # Errors
/// When they cannot be written to `dir`.
pub fn certificates(dir: &Path) -> Result<(PathBuf, String)> {
    let ca_key = rcgen::KeyPair::generate()?;
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate()?;
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    let file = |name: &str, text: &str| -> Result<PathBuf> {
        let path = dir.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let (ca, certificate, key) =
        (file("ca.pem", &ca_pem)?, file("server.pem", &certificate)?, file("server.key", &key.serialize_pem())?);
    let config = format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}", certificate.display(), key.display());
    Ok((ca, config))
}

/// An operator with one account and one user, as `nsc` would make them: what the server's file says of them, the user's
/// JWT, and its key.
///
/// # Errors
/// When a key cannot sign.
pub fn operator() -> Result<(String, String, KeyPair)> {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let unlimited = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
        "leaf": -1 });
    let of_operator = jwt(&operator, &operator, &json!({ "type": "operator", "version": 2 }))?;
    let of_account = jwt(&operator, &account, &json!({ "type": "account", "version": 2, "limits": unlimited }))?;
    let of_user = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {} });
    let of_user = jwt(&account, &user, &of_user)?;
    let id = account.public_key();
    let config =
        format!("operator: \"{of_operator}\"\nresolver: MEMORY\nresolver_preload: {{ {id}: \"{of_account}\" }}");
    Ok((config, of_user, user))
}

/// What `issuer` says of `subject`. Source: "JWTs Privileges", docs.nats.io.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: &Value) -> Result<String> {
    let head = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let claims = json!({ "jti": hex(&random::<16>()), "iat": OffsetDateTime::now_utc().unix_timestamp(),
        "iss": issuer.public_key(), "sub": subject.public_key(), "name": "test", "nats": nats });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&head), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(text.as_bytes())?);
    Ok(format!("{text}.{signature}"))
}

/// A credentials file, as `nsc` writes it.
///
/// # Errors
/// When it cannot be written.
pub fn creds_file(path: &Path, jwt: &str, user: &KeyPair) -> Result<()> {
    let seed = user.seed()?;
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n\
         ------END USER NKEY SEED------\n"
    );
    Ok(std::fs::write(path, text)?)
}
