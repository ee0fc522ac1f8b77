//! `predastore status`: one screen about the daemon on this machine, from its admin endpoint.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::statvfs::statvfs;
use serde_json::Value;

use super::{Health, human, troubles};
use crate::admin::WAITING;
use crate::config::Config;

/// Whoever serves answers this at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// More is no answer of ours.
const ANSWER_MAX_BYTES: u64 = 4 << 20;

/// What to print, and how it stands.
///
/// # Errors
/// The admin endpoint is off.
pub(crate) fn run(config: &Config) -> Result<(String, Health)> {
    let Some(admin) = config.admin else {
        bail!("the admin endpoint is off (`admin.port` 0): nothing can be asked");
    };
    match ask(admin, "/status") {
        Ok(status) => Ok(render(&status, config)),
        Err(error) => Ok((format!("DOWN: the daemon does not answer at {admin}: {error:#}\n"), Health::Down)),
    }
}

/// What the admin endpoint says.
pub(super) fn ask(admin: SocketAddr, path: &str) -> Result<Value> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX_BYTES).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(serde_json::from_str(body)?),
        code => bail!("it answers {}", code.unwrap_or("nothing")),
    }
}

fn render(status: &Value, config: &Config) -> (String, Health) {
    let word = |name: &str| status[name].as_str().unwrap_or("?").to_owned();
    let figure = |group: &str, name: &str| status[group][name].as_u64().unwrap_or(0);
    let store = |name: &str| figure("store", name);
    let mut troubles = troubles(store);
    let is_waiting = status["state"] == WAITING;
    match is_waiting {
        true => troubles.push("it opens its store, or waits until enough of its cluster are up and reached".to_owned()),
        false if status["state"] != "serving" => troubles.insert(0, "it is about to end".to_owned()),
        false => {}
    }
    let health = match (is_waiting, troubles.is_empty()) {
        (true, _) => Health::Down,
        (false, true) => Health::Well,
        (false, false) => Health::Ailing,
    };
    let uptime = status["uptime_s"].as_u64().unwrap_or(0);
    let mut text = String::new();
    // Writing into a string has no way to fail.
    let _ = writeln!(
        text,
        "Predastore {} at {}: {}, for {}",
        word("version"),
        word("endpoint"),
        word("state"),
        span(uptime)
    );
    let _ = writeln!(text, "  data     {}{}", word("data_dir"), room(config));
    let which = status["box"].as_u64().map(|node| format!(", box {node}: see `predastore cluster status`"));
    let _ = writeln!(text, "  backend  {}, region {}{}", word("backend"), word("region"), which.unwrap_or_default());
    let _ = writeln!(
        text,
        "  catalog  {} entries applied, term {}{}",
        store("raft_applied_index"),
        store("raft_term"),
        if store("raft_leads") == 1 { ", this process leads" } else { "" }
    );
    let _ = writeln!(
        text,
        "  process  {} resident, {} descriptors",
        human(figure("process", "process_resident_bytes")),
        figure("process", "process_open_descriptors")
    );
    if let Some(loads) = status["load_percent"].as_object() {
        let each = loads.iter().map(|(node, percent)| format!("box {node} {percent} %"));
        let _ = writeln!(text, "  load     {}", each.collect::<Vec<_>>().join(", "));
    }
    match troubles.is_empty() {
        true => text.push_str("  all is well\n"),
        false => troubles.iter().for_each(|trouble| {
            let _ = writeln!(text, "  ! {trouble}");
        }),
    }
    (text, health)
}

fn room(config: &Config) -> String {
    match statvfs(&config.storage.data_dir) {
        Ok(disk) => {
            let (free, all) = (disk.blocks_available() * disk.fragment_size(), disk.blocks() * disk.fragment_size());
            format!(", {} free of {}", human(free), human(all))
        }
        Err(_) => String::new(),
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_said_and_counts() {
        let config = Config::load(&[], &[]).unwrap();
        let well = json!({"version": "1", "endpoint": "https://x", "state": "serving", "uptime_s": 3700, "store": {"raft_applied_index": 7}});
        let (text, health) = render(&well, &config);
        assert!(text.contains("1 h 1 min") && text.contains("7 entries") && text.contains("all is well"), "{text}");
        assert_eq!(health, Health::Well);
        let (text, _) = render(&json!({"state": "serving", "backend": "distributed", "box": 2}), &config);
        assert!(text.contains("distributed, region ?, box 2:"), "{text}");
        for (name, value) in [("read_only", 1), ("pressure", 2), ("chunks_lost", 3), ("chunks_below_target", 4)] {
            let ill = json!({"state": "serving", "store": {name: value}});
            let (text, health) = render(&ill, &config);
            assert!(health == Health::Ailing && text.contains("  ! "), "{text}");
        }
        assert_eq!(render(&json!({"state": "draining"}), &config).1, Health::Ailing);
        let (text, health) = render(&json!({"state": "waiting", "endpoint": "https://x"}), &config);
        assert!(health == Health::Down && text.contains("waits until enough"), "{text}");
    }

    #[test]
    fn a_daemon_that_is_not_there_is_down() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(ask(address, "/status").is_err());
    }
}
