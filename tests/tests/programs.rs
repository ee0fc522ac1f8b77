//! Programs that people run, in a mounted bucket: what they do there is what they do on a local disk.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use predastore_tests::attributes::{keeps_acls, make_all_kinds, same_attributes};
use predastore_tests::knobs::{Need, number, say};
use predastore_tests::mount::on_box;
use predastore_tests::random::{Rng, body};
use predastore_tests::shell::{command, run, run_within};

/// How long one program may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs a script of bash that ends with the first command that fails, in `dir`.
fn bash(dir: &Path, script: &str) -> Result<String> {
    let mut bash = command(&["bash", "-euo", "pipefail", "-c", script]);
    run_within(PATIENCE, bash.current_dir(dir)).with_context(|| script.to_owned())
}

/// git without any settings of the user's own.
fn git(dir: &Path, words: &[&str]) -> Result<String> {
    let mut git = command(&["git", "-c", "user.name=A Tester", "-c", "user.email=tester@example.com"]);
    git.args(["-c", "init.defaultBranch=main", "-c", "core.fsync=all", "-c", "safe.directory=*"]).args(words);
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null").current_dir(dir);
    run_within(PATIENCE, &mut git)
}

/// A repository of some hundred files with a history.
fn make_repository(dir: &Path, files: u64) -> Result<()> {
    let mut rng = Rng::new(files);
    fs::create_dir_all(dir)?;
    git(dir, &["init", "-q"])?;
    for commit in 0..12 {
        for index in (0..files).filter(|index| commit == 0 || index % 12 == commit) {
            let file = dir.join(format!("dir{}/sub{}/file{index}", index % 9, index % 4));
            fs::create_dir_all(file.parent().context("a parent")?)?;
            let lines = (0..20 + rng.below(80)).map(|line| format!("{line} {}\n", rng.next_u64()));
            fs::write(file, lines.collect::<String>())?;
        }
        git(dir, &["add", "-A"])?;
        git(dir, &["commit", "-q", "-m", &format!("commit {commit}")])?;
    }
    git(dir, &["tag", "-a", "-m", "a tag", "v1"])?;
    Ok(())
}

#[test]
fn git_works() -> Result<()> {
    on_box("git", &[Need::Program("git")], |dir| {
        let origin = tempfile::tempdir()?;
        make_repository(origin.path(), number("PREDASTORE_TEST_TREE", 300))?;
        let url = format!("file://{}", origin.path().display());
        git(dir, &["clone", "-q", &url, "clone"])?;
        let clone = dir.join("clone");
        ensure!(git(&clone, &["status", "--porcelain"])?.is_empty(), "a fresh clone has changes");
        fs::write(clone.join("new"), "new\n")?;
        fs::rename(clone.join("dir1"), clone.join("moved"))?;
        git(&clone, &["add", "-A"])?;
        git(&clone, &["commit", "-q", "-m", "in the mount"])?;
        git(&clone, &["checkout", "-q", "-b", "side", "HEAD~3"])?;
        fs::write(clone.join("side"), "side\n")?;
        git(&clone, &["add", "-A"])?;
        git(&clone, &["commit", "-q", "-m", "on a branch"])?;
        git(&clone, &["checkout", "-q", "main"])?;
        git(&clone, &["merge", "-q", "-m", "merged", "side"])?;
        git(&clone, &["stash", "list"])?;
        git(&clone, &["gc", "-q", "--prune=now"])?;
        git(&clone, &["fsck", "--full", "--strict"])?;
        ensure!(git(&clone, &["status", "--porcelain"])?.is_empty(), "changes after gc");
        git(&clone, &["push", "-q", "origin", "HEAD:refs/heads/from-the-mount"])?;
        git(origin.path(), &["fsck", "--full", "--strict"])?;
        // And one that never left the mount.
        make_repository(&dir.join("made here"), 60)?;
        git(dir, &["clone", "-q", "made here", "cloned by links"])?;
        git(&dir.join("cloned by links"), &["fsck", "--full", "--strict"])?;
        Ok(())
    })
}

/// Carries a tree with everything from a local disk into the mount, and back, by `there` and `back` (scripts with `$FROM` and
/// `$TO`); nothing may differ.
fn carry(name: &str, needs: &[Need], script: &str) -> Result<()> {
    let needs = [needs, &[Need::Root, Need::Program("getfattr"), Need::Program("setfacl")]].concat();
    on_box(name, &needs, |dir| {
        let local = tempfile::tempdir()?;
        let (source, inside, back) = (local.path().join("source"), dir.join("inside"), local.path().join("back"));
        let acls = keeps_acls(dir)? && keeps_acls(local.path())?;
        if !acls {
            say(&format!("{name}: without ACLs, which are not kept in {}", dir.display()));
        }
        fs::create_dir(&source)?;
        make_all_kinds(&source, acls)?;
        for (from, to) in [(&source, &inside), (&inside, &back)] {
            fs::create_dir(to)?;
            let mut bash = command(&["bash", "-euo", "pipefail", "-c", script]);
            run_within(PATIENCE, bash.env("FROM", from).env("TO", to))?;
            same_attributes(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
        }
        same_attributes(&source, &back)
    })
}

#[test]
fn tar_carries_everything() -> Result<()> {
    carry("tar", &[], "tar -C \"$FROM\" --xattrs --acls -cf - . | tar -C \"$TO\" --xattrs --acls -xpf -")
}

#[test]
fn rsync_carries_everything() -> Result<()> {
    let twice = "rsync -aHAX \"$FROM/\" \"$TO/\"; changes=$(rsync -aHAXi \"$FROM/\" \"$TO/\"); [ -z \"$changes\" ] || \
                 { echo \"a second run found work: $changes\"; exit 1; }";
    carry("rsync", &[Need::Program("rsync")], twice)
}

#[test]
fn cp_carries_everything() -> Result<()> {
    carry("cp", &[], "cp -a \"$FROM/.\" \"$TO\"")
}

/// Several processes write to one database with a write-ahead log, which they share by a mapped file and locks, while others check
/// it.
#[test]
fn sqlite_under_several_writers() -> Result<()> {
    on_box("sqlite", &[Need::Program("sqlite3")], |dir| {
        let database = dir.join("test.db");
        let transactions = number("PREDASTORE_TEST_SQLITE_TRANSACTIONS", 50);
        let make = "PRAGMA journal_mode = wal; CREATE TABLE t (id INTEGER PRIMARY KEY, writer, number, bytes BLOB);\
                    CREATE INDEX i ON t (writer, number);";
        run(command(&["sqlite3"]).arg(&database).arg(make))?;
        let write = |writer: u64| {
            let insert = |number| {
                format!(
                    "BEGIN IMMEDIATE; INSERT INTO t VALUES (NULL, {writer}, {number}, randomblob({}));\
                     UPDATE t SET bytes = randomblob(500) WHERE writer = {writer} AND number = {number} / 2; COMMIT;\n",
                    100 + number * 37 % 9000
                )
            };
            let statements: String = (0..transactions).map(insert).collect();
            sqlite(&database, &format!("PRAGMA synchronous = full;\n{statements}"))
        };
        let check = || {
            for _ in 0..8 {
                let checked = sqlite(&database, "PRAGMA integrity_check;")?;
                ensure!(checked.trim() == "ok", "beside the writers: {checked}");
            }
            Ok(String::new())
        };
        std::thread::scope(|scope| {
            let writers = (0..4).map(|writer| scope.spawn(move || write(writer))).collect::<Vec<_>>();
            let checker = scope.spawn(check);
            let all = writers.into_iter().chain([checker]);
            all.map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a panic"))?.map(drop))
                .collect::<Result<Vec<_>>>()
        })?;
        let checked = sqlite(&database, "PRAGMA integrity_check; SELECT count(*), count(DISTINCT id) FROM t;")?;
        ensure!(checked.trim() == format!("ok\n{0}|{0}", 4 * transactions), "{checked}");
        let truncated = sqlite(&database, "PRAGMA wal_checkpoint(TRUNCATE); VACUUM; PRAGMA integrity_check;")?;
        ensure!(truncated.lines().next_back() == Some("ok"), "{truncated}");
        Ok(())
    })
}

/// Runs statements in a process of their own that stops at the first error; they are in a file on a local disk.
fn sqlite(database: &Path, statements: &str) -> Result<String> {
    let script = tempfile::NamedTempFile::new()?;
    fs::write(script.path(), statements)?;
    // The log says which call failed, and why: "disk I/O error" alone does not.
    let mut sqlite = command(&["sqlite3", "-bail", "-cmd", ".log stderr", "-cmd", ".timeout 120000"]);
    run_within(PATIENCE, sqlite.arg(database).arg(format!(".read {}", script.path().display())))
}

#[test]
fn editors_save() -> Result<()> {
    on_box("editors", &[Need::Program("vi"), Need::Program("sed")], |dir| {
        let file = dir.join("text");
        fs::write(&file, "one\ntwo\n")?;
        bash(dir, "chmod 640 text; sed -i 's/one/three/' text")?;
        ensure!(fs::read_to_string(&file)? == "three\ntwo\n");
        // Silent mode reads its commands from standard input. It would skip the backup of what is in /tmp.
        bash(dir, "printf '%%s/two/four/\\nset backup backupskip=\\nwrite\\nquit\\n' | vi -u NONE -e -s text")?;
        ensure!(fs::read_to_string(&file)? == "three\nfour\n", "vi saved {:?}", fs::read_to_string(&file)?);
        ensure!(fs::read_to_string(dir.join("text~"))? == "three\ntwo\n", "vi's backup differs");
        ensure!(bash(dir, "stat -c %a text")?.trim() == "640", "the mode changed");
        let left = bash(dir, "ls -A")?;
        ensure!(left == "text\ntext~\n", "they left {left}");
        Ok(())
    })
}

/// Who holds a lock keeps another process out, and its end lets it in.
#[test]
fn locks_exclude() -> Result<()> {
    on_box("locks", &[Need::Program("flock")], |dir| {
        let script = r#"
            flock -n lock -c 'if flock -n lock -c true; then echo "two hold it"; exit 1; fi'
            flock -s lock -c 'flock -s -n lock -c true'
            flock -s lock -c 'if flock -x -n lock -c true; then echo "one writes while another reads"; exit 1; fi'
            flock lock -c 'echo locked >>order; sleep 0.3; echo released >>order' &
            until [ -s order ]; do sleep 0.01; done
            flock lock -c 'echo then >>order'
            wait
            [ "$(tr '\n' ' ' <order)" = "locked released then " ] || { cat order; exit 1; }
            sleep 60 9>lock & flock -n lock true
            kill $!
        "#;
        bash(dir, script)?;
        // Ranges of bytes, as databases use them, and a counter that several processes raise under a lock.
        let python = r#"
import fcntl, os, subprocess, sys, struct
def child(code): return subprocess.run([sys.executable, "-c", "import fcntl,sys\nf=open('ranges','r+b')\n"+code]).returncode
with open("ranges", "w+b") as f:
    f.write(bytes(100)); f.flush()
    fcntl.lockf(f, fcntl.LOCK_EX, 10, 20)
    assert child("try: fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 5, 25); sys.exit(1)\nexcept OSError: pass") == 0, "inside a locked range"
    assert child("fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 20, 0); fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 5, 30)") == 0, "outside of it"
    fcntl.lockf(f, fcntl.LOCK_UN, 10, 20)
    assert child("fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB)") == 0, "after it was released"
raiser = """
import fcntl, os
for _ in range(50):
    with open('counter', 'r+') as f:
        fcntl.lockf(f, fcntl.LOCK_EX)
        n = int(f.read() or 0); f.seek(0); f.write(str(n + 1)); f.flush()
"""
open("counter", "w").close()
for process in [subprocess.Popen([sys.executable, "-c", raiser]) for _ in range(4)]:
    assert process.wait() == 0
assert open("counter").read() == "200", open("counter").read()
"#;
        run_within(PATIENCE, command(&["python3", "-c", python]).current_dir(dir)).map(drop)
    })
}

#[test]
fn directories_move_and_are_found() -> Result<()> {
    on_box("directories", &[], |dir| {
        let script = r#"
            for i in $(seq 1 20); do mkdir -p "a/d$i/e"; for j in 1 2 3; do echo "$i $j" >"a/d$i/e/f$j"; done; done
            find a -type f | sort >/dev/null
            [ "$(find a -type f | wc -l)" = 60 ]
            [ "$(find a -name 'f2' -newermt 2000-01-01 -size -2 | wc -l)" = 20 ]
            mv a b; [ ! -e a ]; [ "$(find b -type f | wc -l)" = 60 ]; [ "$(cat b/d7/e/f3)" = "7 3" ]
            mkdir c; mv b/d1 b/d2 c/; [ "$(ls c | tr '\n' ' ')" = "d1 d2 " ]; [ "$(ls b | wc -l)" = 18 ]
            if mv c c/d1/inside 2>/dev/null; then echo "a directory moved into itself"; exit 1; fi
            mv b/d3/e/f1 b/d4/e/f2; [ "$(cat b/d4/e/f2)" = "3 1" ]; [ ! -e b/d3/e/f1 ]
            if rmdir b 2>/dev/null; then echo "rmdir removed files"; exit 1; fi
            cp -a b d; diff -r b d
            cd d; mkdir gone; cd gone; rmdir ../gone; [ -z "$(ls -A)" ]; cd ../..
            rm -r b c d; [ -z "$(ls -A)" ]
        "#;
        bash(dir, script).map(drop)
    })
}

/// A process that watches a directory is told what others on the same machine change in it.
#[test]
fn changes_are_told_to_who_watches() -> Result<()> {
    on_box("inotify", &[Need::Program("inotifywait")], |dir| {
        let script = r#"
            log=$(mktemp); mkdir w
            inotifywait -q -m -e create,modify,close_write,moved_to,delete --format '%e %f' w >"$log" 2>&1 & watcher=$!
            until echo x >w/ready && [ -s "$log" ]; do sleep 0.05; done
            echo y >w/file; mv w/file w/moved; rm w/moved
            for _ in $(seq 1 100); do grep -q 'DELETE moved' "$log" && break; sleep 0.05; done
            kill $watcher; wait $watcher || true
            for event in 'CREATE file' 'MODIFY file' 'CLOSE_WRITE,CLOSE file' 'MOVED_TO moved' 'DELETE moved'; do
                grep -q "$event" "$log" || { echo "no $event:"; cat "$log"; exit 1; }
            done
            rm "$log"
        "#;
        bash(dir, script).map(drop)
    })
}

/// A tiny crate without dependencies, built, changed and built again in the mount.
#[test]
fn cargo_builds() -> Result<()> {
    on_box("cargo", &[Need::Program("cargo"), Need::Program("cc")], |dir| {
        let (package, target) = (dir.join("tiny"), dir.join("tiny/target"));
        fs::create_dir_all(package.join("src"))?;
        fs::write(package.join("Cargo.toml"), "[package]\nname = \"tiny\"\nedition = \"2021\"\n[workspace]\n")?;
        for text in ["first", "second"] {
            fs::write(package.join("src/text.rs"), format!("pub const TEXT: &str = {text:?};\n"))?;
            fs::write(package.join("src/main.rs"), "mod text;\nfn main() { println!(\"{}\", text::TEXT); }\n")?;
            let mut cargo = command(&["cargo", "build", "--quiet", "--offline"]);
            for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_") && name != "CARGO_HOME") {
                cargo.env_remove(name);
            }
            run_within(PATIENCE, cargo.env("CARGO_TARGET_DIR", &target).current_dir(&package))?;
            let said = run(&mut Command::new(target.join("debug/tiny")))?;
            ensure!(said.trim() == text, "{said}");
        }
        Ok(())
    })
}

/// What is mapped, and what is read and written, are the same bytes.
#[test]
fn a_mapped_file_is_the_file() -> Result<()> {
    on_box("mmap", &[Need::Program("python3")], |dir| {
        fs::write(dir.join("mapped"), body(1, 100_000))?;
        let python = r#"
import mmap, os
f = os.open("mapped", os.O_RDWR)
before = os.pread(f, 100000, 0)
m = mmap.mmap(f, 100000)
assert m[:] == before
m[5000:5010] = b"0123456789"
assert os.pread(f, 10, 5000) == b"0123456789", "a write to the map is not read"
os.pwrite(f, b"abc", 70000)
assert m[70000:70003] == b"abc", "a write is not in the map"
m.flush(); os.fsync(f)
private = mmap.mmap(f, 100000, flags=mmap.MAP_PRIVATE)
private[0:3] = b"xyz"
assert os.pread(f, 3, 0) == before[:3], "a private map was written through"
"#;
        run_within(PATIENCE, command(&["python3", "-c", python]).current_dir(dir))?;
        let mut expected = body(1, 100_000);
        expected[5000..5010].copy_from_slice(b"0123456789");
        expected[70000..70003].copy_from_slice(b"abc");
        ensure!(fs::read(dir.join("mapped"))? == expected, "other bytes after the map was closed");
        Ok(())
    })
}
