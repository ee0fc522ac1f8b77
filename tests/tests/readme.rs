//! What README.md and `make run` tell people to paste works as pasted, on a fresh box.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use predastore_tests::clients::venv_program;
use predastore_tests::s3d::{Config, S3d, binary, free_port, root};
use predastore_tests::shell::run;

fn document(name: &str) -> Result<String> {
    std::fs::read_to_string(root().join(name)).with_context(|| format!("no {name}"))
}

/// The first shell block of README.md after the line that has `words`.
fn block_after(words: &str) -> Result<String> {
    let readme = document("README.md")?;
    let (_, rest) = readme.split_once(words).with_context(|| format!("README.md does not say {words:?}"))?;
    let (_, rest) = rest.split_once("```sh\n").context("no shell block after it")?;
    let (block, _) = rest.split_once("```").context("a shell block without end")?;
    Ok(block.to_owned())
}

/// The lines that `make run` prints for another shell, as make would print them.
fn printed_by_make_run() -> Result<String> {
    let makefile = document("Makefile")?;
    let recipe = makefile.lines().skip_while(|line| !line.starts_with("run:")).skip(1);
    let printed = recipe
        .take_while(|line| line.starts_with('\t'))
        .filter_map(|line| line.trim().strip_prefix("@echo '  ")?.strip_suffix('\''));
    let lines: Vec<String> = printed.map(|line| line.replace("$$", "$").replace("$(DATA)", "data")).collect();
    Ok(lines.join("\n"))
}

/// Runs `session` in an empty directory that looks like the repository after `make build`, beside a box that keeps its data in
/// `./data` as `make run` has it. What it printed.
fn paste(session: &str) -> Result<String> {
    let here = tempfile::tempdir()?;
    std::fs::create_dir(here.path().join("bin"))?;
    std::os::unix::fs::symlink(binary(), here.path().join("bin/s3d"))?;
    std::fs::copy(root().join("README.md"), here.path().join("README.md"))?;
    let s3d = S3d::start(Config::default().in_dir(&here.path().join("data")))?;
    let outcome = run(&mut shell(here.path(), s3d.port, session)?);
    outcome.with_context(|| format!("pasted:\n{session}\n{}", s3d.log_tail()))
}

/// A shell without any AWS settings of the user's own. Its one concession to tests: the box is not on the port it has by
/// default, which may be taken.
fn shell(dir: &Path, port: u16, session: &str) -> Result<Command> {
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", session]).current_dir(dir).env("HOME", dir);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_") || name.starts_with("PREDASTORE_")) {
        bash.env_remove(name);
    }
    let aws = venv_program("aws");
    let programs = aws.parent().context("aws has no directory")?;
    let path = format!("{}:{}", programs.display(), std::env::var("PATH")?);
    bash.env("PATH", path).env("AWS_EC2_METADATA_DISABLED", "true").env("PREDASTORE_SERVER_PORT", port.to_string());
    Ok(bash)
}

#[test]
fn the_session_of_the_readme() -> Result<()> {
    let session = block_after("While `make run` is running")?;
    ensure!(session.matches("\naws ").count() >= 4, "that is no session of the AWS CLI:\n{session}");
    let printed = paste(&session)?;
    ensure!(printed.contains("make_bucket: photos"), "{printed}");
    ensure!(printed.lines().any(|line| line.ends_with(" 6 hello.txt")), "`aws s3 ls` does not list it: {printed}");
    ensure!(printed.ends_with("hello\n"), "the object does not come back: {printed}");
    Ok(())
}

/// The session with free ports instead of those that it names, and an end of what it starts.
fn on_free_ports(session: &str) -> Result<String> {
    let mut session = session.replace("844$box", "${S3[box]}").replace("944$box", "${ADMIN[box]}");
    let (mut s3, mut admin) = (String::from("0"), String::from("0"));
    for index in 1..=3 {
        let port = free_port()?;
        write!(s3, " {port}")?;
        write!(admin, " {}", free_port()?)?;
        session = session.replace(&format!("844{index}"), &port.to_string());
        for prefix in ["666", "999"] {
            session = session.replace(&format!("{prefix}{index}"), &free_port()?.to_string());
        }
    }
    Ok(format!("S3=({s3}) ADMIN=({admin})\ntrap 'kill -9 $(jobs -p) || true' EXIT\n{session}"))
}

#[test]
fn the_three_boxes_of_the_readme() -> Result<()> {
    let session = block_after("## Three boxes")?;
    let here = tempfile::tempdir()?;
    std::fs::create_dir(here.path().join("bin"))?;
    std::os::unix::fs::symlink(binary(), here.path().join("bin/s3d"))?;
    std::fs::copy(root().join("README.md"), here.path().join("README.md"))?;
    let printed = run(&mut shell(here.path(), 8443, &on_free_ports(&session)?)?);
    let logs = || (1..=3).map(|index| std::fs::read_to_string(here.path().join(format!("boxes/{index}.log"))));
    let printed = printed.with_context(|| format!("pasted:\n{session}\n{:?}", logs().collect::<Vec<_>>()))?;
    let copy = std::fs::read(here.path().join("copy")).context("no copy came back")?;
    ensure!(copy == std::fs::read(here.path().join("README.md"))?, "another README.md came back");
    let listed = |name: &str| printed.lines().filter(|line| line.ends_with(name)).count();
    ensure!(listed(" README.md") == 2 && listed(" written-without-it") == 1, "{printed}");
    Ok(())
}

#[test]
fn the_session_that_make_run_prints() -> Result<()> {
    let session = printed_by_make_run()?;
    ensure!(session.matches("\naws ").count() >= 3, "that is no session of the AWS CLI:\n{session}");
    let printed = paste(&session)?;
    ensure!(printed.lines().any(|line| line.ends_with(" README.md")), "`aws s3 ls` does not list it: {printed}");
    Ok(())
}

#[test]
fn every_make_target_of_the_readme_is_there() -> Result<()> {
    let (readme, makefile) = (document("README.md")?, document("Makefile")?);
    let named: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("make ")?.split(' ').next()).collect();
    ensure!(named.contains(&"run") && named.contains(&"test"), "README.md names only {named:?}");
    for target in named {
        let rule = makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
        ensure!(rule, "README.md says `make {target}`, and the Makefile has no such target");
    }
    Ok(())
}
