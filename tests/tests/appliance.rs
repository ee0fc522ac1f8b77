//! The package on machines under systemd: installed, upgraded, killed, switched off, removed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use predastore_tests::clients::venv_program;
use predastore_tests::knobs::say;
use predastore_tests::lab::{self, Lab, Node};
use predastore_tests::random::body;
use predastore_tests::s3d::root;
use predastore_tests::shell::run_within;

/// What `systemd-analyze security` may say at most.
const EXPOSURE_MAX: f64 = 1.5;
const INSTALL: &str = "dpkg -i /root/predastore.deb";

fn box_with_package(test: &str, suite: &str) -> Result<Option<(tempfile::TempDir, Lab, Node)>> {
    if !lab::can_boot(test) {
        return Ok(None);
    }
    let dir = tempfile::tempdir()?;
    let package = lab::package("0.1.0", dir.path())?;
    let lab = Lab::new(suite)?;
    let node = lab.boot("one", 11)?;
    node.put("/root/predastore.deb", &fs::read(&package)?)?;
    Ok(Some((dir, lab, node)))
}

/// Calls the AWS CLI on the lab's network, with the box's credentials and authority.
struct Client<'a> {
    lab: &'a Lab,
    node: &'a Node,
    dir: tempfile::TempDir,
}

impl<'a> Client<'a> {
    fn new(lab: &'a Lab, node: &'a Node) -> Result<Client<'a>> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("ca.pem"), node.get("/var/lib/predastore/keys/ca.pem")?)?;
        Ok(Client { lab, node, dir })
    }

    fn aws(&self, args: &[&str]) -> Result<String> {
        let credentials = self.node.sh("predastore credentials --env")?;
        let endpoint = format!("https://{}:8443", self.node.address);
        let mut call = self.lab.outside(&[&venv_program("aws").display().to_string(), "--endpoint-url", &endpoint]);
        for line in credentials.lines() {
            let said = line.strip_prefix("export ").and_then(|said| said.split_once('='));
            if let Some((name, value)) = said {
                call.env(name, value.trim_matches(['"', '\'']));
            }
        }
        call.env("AWS_CA_BUNDLE", self.dir.path().join("ca.pem")).args(args);
        run_within(Duration::from_secs(60), &mut call)
    }
}

/// `systemctl show` of the service.
fn shown(node: &Node, property: &str) -> Result<String> {
    node.sh(&format!("systemctl show -P {property} s3d.service"))
}

fn serves(node: &Node) -> Result<()> {
    node.wait("systemctl is-active s3d.service && predastore status")
}

#[test]
fn a_box_is_installed_and_lives_through_what_befalls_it() -> Result<()> {
    let test = "a_box_is_installed_and_lives_through_what_befalls_it";
    let Some((dir, lab, mut node)) = box_with_package(test, "bookworm")? else { return Ok(()) };
    // Without a network beyond the lab: nothing waits for one.
    let said = node.sh(INSTALL)?;
    ensure!(said.contains("predastore status") && !said.contains("SECRET"), "the installation says:\n{said}");
    ensure!(node.sh("systemctl is-active s3d.service")? == "active", "it does not run after its installation");
    ensure!(node.sh("systemctl is-enabled s3d.service s3d.socket")? == "enabled\nenabled", "not enabled");
    ensure!(shown(&node, "StatusText")?.contains("8443"), "the status is {}", shown(&node, "StatusText")?);
    ensure!(node.sh("ps -o user= -C s3d")?.starts_with("predast"), "it runs as another user");
    let (code, status) = node.code("predastore status")?;
    ensure!(code == 0 && status.contains("all is well"), "{code}: {status}");
    let (code, findings) = node.code("predastore doctor")?;
    ensure!(code < 2 && findings.contains("ok    port"), "{code}: {findings}");

    let client = Client::new(&lab, &node)?;
    client.aws(&["s3", "mb", "s3://first"])?;
    let file = dir.path().join("file");
    fs::write(&file, body(1, 3 << 20))?;
    client.aws(&["s3", "cp", &file.display().to_string(), "s3://first/file"])?;
    let is_whole = || -> Result<()> {
        let back = dir.path().join("back");
        client.aws(&["s3", "cp", "s3://first/file", &back.display().to_string()])?;
        ensure!(fs::read(&back)? == body(1, 3 << 20), "the object differs");
        Ok(())
    };
    is_whole()?;

    security(&node)?;
    killed_and_frozen(&node)?;
    is_whole()?;
    mounted(&lab, &node)?;
    upgraded(dir.path(), &node)?;
    on_another_port(&node)?;
    is_whole()?;
    rebooted_under_load(&mut node)?;
    node.power_off()?;
    node.power_on()?;
    let client = Client::new(&lab, &node)?;
    serves(&node)?;
    client.aws(&["s3", "ls", "s3://first/file"])?;
    removed(&node)?;
    drop(node);
    Ok(())
}

#[test]
fn debian_13_is_as_good() -> Result<()> {
    let Some((dir, lab, node)) = box_with_package("debian_13_is_as_good", "trixie")? else { return Ok(()) };
    node.sh(INSTALL)?;
    serves(&node)?;
    let client = Client::new(&lab, &node)?;
    client.aws(&["s3", "mb", "s3://first"])?;
    let file = dir.path().join("file");
    fs::write(&file, body(1, 100_000))?;
    client.aws(&["s3", "cp", &file.display().to_string(), "s3://first/file"])?;
    node.sh("mkdir -p /mnt/first && predastore mount first /mnt/first && cat /mnt/first/file > /dev/null && umount /mnt/first")?;
    Ok(())
}

/// A block of docs/GUIDE.md: where it is typed, and what.
struct Block {
    place: String,
    script: String,
}

fn guide() -> Result<Vec<Block>> {
    let text = fs::read_to_string(root().join("docs/GUIDE.md"))?;
    let blocks = text.split("\n```sh ").skip(1).map(|block| -> Result<Block> {
        let (place, rest) = block.split_once('\n').context("a block without a place")?;
        let (script, _) = rest.split_once("```").context("a block without an end")?;
        Ok(Block { place: place.to_owned(), script: script.to_owned() })
    });
    blocks.collect()
}

/// The boxes of the guide, and the line that it says to join with.
struct Reader<'a> {
    boxes: Vec<Node>,
    /// The last box is a new one.
    has_new: bool,
    token: String,
    left: std::vec::IntoIter<Block>,
    install: &'a dyn Fn(u8) -> Result<Node>,
}

impl Reader<'_> {
    /// Types blocks as long as they are for these places.
    fn go_on(&mut self, places: &[&str]) -> Result<()> {
        while let Some(block) = self.left.as_slice().first().filter(|block| places.contains(&block.place.as_str())) {
            let (place, script) = (block.place.clone(), block.script.replace("TOKEN", &self.token));
            self.left.next();
            if place == "new" && !self.has_new {
                self.boxes.push((self.install)(4)?);
                self.has_new = true;
            }
            let all = 0..self.boxes.len();
            let typed_at: Vec<usize> = match place.as_str() {
                "first" => vec![0],
                "others" => all.skip(1).collect(),
                "survivor" => vec![1],
                "new" => all.rev().take(1).collect(),
                "each" => all.collect(),
                other => bail!("nobody knows where `{other}` is"),
            };
            for index in typed_at {
                let said = self.boxes[index].sh(&format!("cd /root && set -e\n{script}"));
                let said =
                    said.with_context(|| format!("the guide says, on {}:\n{script}", self.boxes[index].address))?;
                let token = said.split_whitespace().find(|word| word.starts_with("pd1."));
                token.inspect(|token| (*token).clone_into(&mut self.token));
            }
        }
        Ok(())
    }
}

/// docs/GUIDE.md from its first line to its last: installed, one token, two joins; a box that is lost is replaced, all are
/// upgraded, and what was deleted comes back. Objects of one are read on the others, whichever is off or cut off.
#[test]
fn three_boxes_are_a_cluster_as_the_guide_has_it() -> Result<()> {
    if !lab::can_boot("three_boxes_are_a_cluster_as_the_guide_has_it") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let packages = ["0.1.0", "0.1.1"].map(|version| fs::read(lab::package(version, dir.path())?).context("a package"));
    let [package, next] = packages;
    let (package, next) = (package?, next?);
    let lab = Lab::new("bookworm")?;
    let boot = |number: u8| -> Result<Node> {
        let node = lab.boot(&format!("box{number}"), 20 + number)?;
        node.put("/root/predastore_0.1.0_amd64.deb", &package)?;
        // A box that is gone counts as lost soon: a test does not wait for ten minutes.
        node.put("/etc/predastore/predastore.toml", b"[storage]\nrepair_grace = \"5s\"\n")?;
        Ok(node)
    };
    let boxes = (1..=3).map(boot).collect::<Result<Vec<_>>>()?;
    let left = guide()?.into_iter();
    let mut reader = Reader { boxes, has_new: false, token: String::new(), left, install: &boot };
    reader.go_on(&["first", "others"])?;
    ensure!(reader.token.starts_with("pd1.10.77.0.21:6660."), "{}", reader.token);
    for node in &reader.boxes {
        ensure!(shown(node, "NRestarts")? == "0", "{} was started again by systemd", node.address);
        serves(node)?;
    }

    let client = |node: &Node, args: &[&str]| Client::new(&lab, node)?.aws(args);
    let file = dir.path().join("file");
    fs::write(&file, body(1, 3 << 20))?;
    let (file, back) = (file.display().to_string(), dir.path().join("back"));
    let is_whole = |node: &Node, key: &str| -> Result<()> {
        client(node, &["s3", "cp", &format!("s3://shared/{key}"), &back.display().to_string()])?;
        ensure!(fs::read(&back)? == body(1, 3 << 20), "{key} differs on {}", node.address);
        Ok(())
    };
    let is_healthy = |node: &Node| node.wait("predastore cluster status");
    let nodes = &mut reader.boxes;
    client(&nodes[0], &["s3", "cp", &file, "s3://shared/first"])?;
    nodes.iter().try_for_each(|node| is_whole(node, "first"))?;
    nodes[0].link(false)?;
    nodes[1].wait("predastore cluster status || [ $? = 1 ]")?;
    client(&nodes[1], &["s3", "cp", &file, "s3://shared/without-the-first"])?;
    is_whole(&nodes[2], "without-the-first")?;
    nodes[0].link(true)?;
    is_healthy(&nodes[0])?;
    is_whole(&nodes[0], "without-the-first")?;
    nodes[0].power_off()?;
    client(&nodes[1], &["s3", "cp", &file, "s3://shared/off"])?;
    nodes[0].power_on()?;
    is_healthy(&nodes[0])?;
    is_whole(&nodes[0], "off")?;
    ensure!(nodes[0].sh("cat /mnt/shared/note")? == "written on one box", "the mount did not come back with the box");

    // The third one is lost for good.
    drop(nodes.pop());
    reader.go_on(&["survivor", "new"])?;
    for node in &reader.boxes {
        node.sh("rm /root/predastore_*.deb")?;
        node.put("/root/predastore_0.1.1_amd64.deb", &next)?;
    }
    reader.go_on(&["each", "first"])?;
    ensure!(reader.left.as_slice().is_empty(), "the guide goes on: {}", reader.left.as_slice()[0].script);
    for node in &reader.boxes {
        ensure!(node.sh("dpkg-query -W -f '${Version}' predastore")? == "0.1.1", "{} is not upgraded", node.address);
        ["first", "without-the-first", "off"].iter().try_for_each(|key| is_whole(node, key))?;
    }
    Ok(())
}

/// The sandbox holds what it should, and nothing in the journal is a secret.
fn security(node: &Node) -> Result<()> {
    let said = node.sh("systemd-analyze security --no-pager s3d.service | tail -n 1")?;
    let exposure: f64 = said.split_whitespace().find_map(|word| word.parse().ok()).context("an exposure")?;
    say(&format!("systemd-analyze security: {exposure}"));
    ensure!(exposure <= EXPOSURE_MAX, "the exposure is {exposure}");
    let secret = node.sh("predastore credentials | awk '/secret/ { print $NF }'")?;
    ensure!(secret.len() >= 20, "no secret to look for");
    ensure!(!node.sh("journalctl --no-pager -o verbose")?.contains(&secret), "the secret is in the journal");
    ensure!(
        !node.sh("ls -l /var/lib/predastore | grep -v total | grep -c '^.......rwx' || true")?.starts_with('1'),
        "open to all"
    );
    let timers = node.code("systemctl is-enabled predastore-doctor.timer predastore-scrub.timer")?.1;
    ensure!(timers.trim() == "enabled\ndisabled", "the timers are {timers}");
    node.sh("systemctl start predastore-scrub.service && journalctl --no-pager -u predastore-scrub | grep -q 'it has begun'")?;
    let fields = node.sh("journalctl --no-pager -o json -u s3d | grep -c PREDASTORE_ENDPOINT")?;
    ensure!(fields != "0", "the journal has no fields");
    Ok(())
}

/// SIGKILL, and a process that is frozen, which only the watchdog finds. Who connects meanwhile waits.
fn killed_and_frozen(node: &Node) -> Result<()> {
    node.sh("mkdir -p /etc/systemd/system/s3d.service.d && printf '[Service]\\nWatchdogSec=3\\n' > /etc/systemd/system/s3d.service.d/soon.conf && systemctl daemon-reload && systemctl restart s3d")?;
    serves(node)?;
    let first = shown(node, "MainPID")?;
    node.sh("systemctl kill -s KILL s3d.service")?;
    let code = node.sh("curl -sk --max-time 30 -o /dev/null -w '%{http_code}' https://localhost:8443/")?;
    ensure!(code == "403", "a request while it starts again: {code}");
    serves(node)?;
    let second = shown(node, "MainPID")?;
    node.sh("systemctl kill -s STOP s3d.service")?;
    node.wait(&format!("pid=$(systemctl show -P MainPID s3d.service); [ $pid != 0 ] && [ $pid != {second} ]"))?;
    serves(node)?;
    ensure!(first != second, "it was not killed");
    ensure!(node.sh("journalctl --no-pager -u s3d | grep -c -i watchdog")? != "0", "it was not the watchdog");
    node.sh("rm -r /etc/systemd/system/s3d.service.d && systemctl daemon-reload && systemctl restart s3d")?;
    // Nobody is refused while it is restarted.
    let script = "(for _ in 1 2 3 4 5; do systemctl restart s3d; done) & n=0; while kill -0 $! 2>/dev/null; do
        curl -sk --max-time 60 -o /dev/null https://localhost:8443/ || { echo refused after $n; exit 1; }; n=$((n + 1)); done; echo $n";
    let count: u64 = node.sh(script)?.parse()?;
    // A request may wait for all of a restart, and there are five.
    ensure!(count > 1, "only {count} requests");
    serves(node)
}

/// A mount by hand goes on through a restart; one of fstab comes by itself, also after the machine was switched off.
fn mounted(lab: &Lab, node: &Node) -> Result<()> {
    node.sh(
        "mkdir -p /mnt/first && predastore mount first /mnt/first && cmp -n 3145728 /mnt/first/file /mnt/first/file",
    )?;
    node.sh("exec 3>/mnt/first/open; echo before >&3; systemctl restart s3d; echo after >&3; exec 3>&-
         printf 'before\\nafter\\n' | cmp - /mnt/first/open")?;
    node.sh("journalctl --no-pager -u s3d PREDASTORE_BUCKET=first | grep -q mounted")?;
    node.sh("systemctl kill -s KILL s3d; ls /mnt/first | grep -q file; umount /mnt/first")?;
    Client::new(lab, node)?.aws(&["s3", "ls", "s3://first/open"])?;
    node.sh(
        "mkdir -p /srv/first; echo 'first /srv/first predastore _netdev,nofail,x-systemd.automount 0 0' >> /etc/fstab
         systemctl daemon-reload; systemctl start srv-first.automount; cat /srv/first/open; systemctl restart s3d; cat /srv/first/open",
    )?;
    Ok(())
}

/// A configuration that was edited stays, and so does what was switched off; a file that is open goes on.
fn upgraded(dir: &Path, node: &Node) -> Result<()> {
    let next = lab::package("0.1.1", dir)?;
    node.put("/root/next.deb", &fs::read(&next)?)?;
    node.sh("mkdir -p /etc/predastore; echo 'region = \"eu-central-1\"' > /etc/predastore/predastore.toml")?;
    node.sh("exec 3>/srv/first/upgraded; echo before >&3; dpkg -i /root/next.deb; echo after >&3; exec 3>&-; printf 'before\\nafter\\n' | cmp - /srv/first/upgraded")?;
    serves(node)?;
    ensure!(node.sh("predastore status")?.contains("eu-central-1"), "the configuration is not heeded");
    node.sh("systemctl disable --now s3d.service s3d.socket; dpkg -i /root/next.deb")?;
    let enabled = node.code("systemctl is-enabled s3d.service; systemctl is-active s3d.service")?.1;
    ensure!(enabled.contains("disabled") && enabled.contains("inactive"), "an upgrade starts it: {enabled}");
    node.sh("systemctl enable --now s3d.socket s3d.service")?;
    serves(node)
}

/// As docs/OPERATIONS.md says it.
fn on_another_port(node: &Node) -> Result<()> {
    node.sh("mkdir -p /etc/systemd/system/s3d.socket.d
         printf '[Socket]\\nListenStream=\\nListenStream=9443\\n' > /etc/systemd/system/s3d.socket.d/override.conf
         printf '[server]\\nport = 9443\\n' >> /etc/predastore/predastore.toml
         systemctl daemon-reload; systemctl stop s3d.service; systemctl restart s3d.socket; systemctl start s3d.service")?;
    serves(node)?;
    let endpoint = node.sh("predastore credentials --env | grep ENDPOINT")?;
    ensure!(endpoint.contains(":9443"), "the endpoint is {endpoint}");
    node.sh("curl -sk https://localhost:9443/ | grep -q AccessDenied")?;
    ensure!(node.code("curl -sk https://localhost:8443/")?.0 == 7, "the former port is open");
    node.sh("rm -r /etc/systemd/system/s3d.socket.d; sed -i '/^.server.$/,$d' /etc/predastore/predastore.toml
         systemctl daemon-reload; systemctl stop s3d.service; systemctl restart s3d.socket; systemctl start s3d.service")?;
    serves(node)
}

/// Programs write to a mount of fstab until they are ended. What a write or a close has accepted is there afterwards, without
/// a sync: the mount goes before the service.
fn rebooted_under_load(node: &mut Node) -> Result<()> {
    let after = node.sh("systemctl show -P After srv-first.mount")?;
    ensure!(after.split(' ').any(|unit| unit == "s3d.service"), "the mount comes after {after}");
    let load = "exec 3> /srv/first/held
i=0
while :; do
    echo $i >&3 && echo $i > /srv/first/load-$i && echo $i >> /root/acknowledged
    i=$((i + 1))
done
";
    node.put("/root/load", load.as_bytes())?;
    node.sh("systemd-run --unit=load --property=RequiresMountsFor=/srv/first sh /root/load")?;
    node.wait("[ $(wc -l < /root/acknowledged) -ge 100 ]")?;
    node.shut_down()?;
    node.power_on()?;
    serves(node)?;
    let lost = node.sh("last=$(tail -n 1 /root/acknowledged)
         for i in $(seq 0 $last); do [ \"$(cat /srv/first/load-$i)\" = $i ] || echo load-$i; done
         seq 0 $last > /root/expected; head -n $((last + 1)) /srv/first/held | cmp - /root/expected")?;
    ensure!(lost.is_empty(), "lost: {lost}");
    say(&format!("rebooted after {} files", node.sh("wc -l < /root/acknowledged")?));
    Ok(())
}

/// Removed and installed again it is what it was; purged, its objects are left and nothing else.
fn removed(node: &Node) -> Result<()> {
    let before = node.sh("predastore credentials")?;
    node.sh("umount -l /srv/first; sed -i /predastore/d /etc/fstab; systemctl daemon-reload")?;
    node.sh("dpkg -r predastore")?;
    ensure!(node.code("command -v s3d || systemctl is-active s3d.service")?.0 != 0, "it is still there");
    node.sh(INSTALL)?;
    serves(node)?;
    ensure!(node.sh("predastore credentials")? == before, "another identity after a removal");
    let said = node.sh("dpkg -P predastore 2>&1")?;
    ensure!(said.contains("Objects are kept in /var/lib/predastore"), "the purge says:\n{said}");
    let left = node.sh("find / -xdev \\( -name '*predastore*' -o -name '*s3d*' \\) -not -path '/proc/*' -not -path '/root/*' -not -path '/var/lib/predastore' -not -path '/var/log/journal/*'")?;
    ensure!(left.is_empty(), "a purge leaves:\n{left}");
    ensure!(node.sh("ls /var/lib/predastore/chunks | wc -l")? != "0", "the objects are gone");
    ensure!(node.code("test -e /var/lib/predastore/keys")?.0 != 0, "the keys are left");
    Ok(())
}
