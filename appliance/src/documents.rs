//! Man pages and completions for shells, from the definitions that `--help` is made of. For the package.
//!
//! `DIR/man/s3d.1`, one more page a command, `DIR/man/predastore.toml.5`; `DIR/bash|zsh|fish/`: completions. Each under
//! both names of the program.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::config::settings::{LISTS, SETTINGS, Setting};

/// The names of this program: the daemon's, and the operator's.
const NAMES: [&str; 2] = ["s3d", "predastore"];

/// Writes them all.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write(dir: &Path) -> Result<()> {
    let man = dir.join("man");
    fs::create_dir_all(&man).with_context(|| man.display().to_string())?;
    for name in NAMES {
        pages(&man, &[name], Cli::command())?;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let into = dir.join(shell.to_string());
            fs::create_dir_all(&into)?;
            clap_complete::generate_to(shell, &mut Cli::command(), name, &into)?;
        }
    }
    let page = fs::File::create(man.join("predastore.toml.5"))?;
    settings_page(page)
}

/// The page of a command, and those of its own commands. `words`: as it is called.
fn pages(dir: &Path, words: &[&str], command: Command) -> Result<()> {
    let name = words.join("-");
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
        pages(dir, &[words, &[inner.get_name()]].concat(), inner.clone())?;
    }
    let page = fs::File::create(dir.join(format!("{name}.1"))).with_context(|| name.clone())?;
    // The library wants names that live as long as the program; this one ends soon.
    let title: &'static str = Box::leak(name.into_boxed_str());
    Man::new(
        command.name(title).bin_name(words.join(" ")).version(env!("CARGO_PKG_VERSION")).disable_help_subcommand(true),
    )
    .source("Predastore")
    .manual("Predastore")
    .date("")
    .render(&mut &page)?;
    Ok(())
}

/// The configuration file: every setting, with its variable and flag.
fn settings_page(mut page: impl Write) -> Result<()> {
    writeln!(page, ".TH predastore.toml 5 \"\" Predastore Predastore")?;
    writeln!(page, ".SH NAME\npredastore.toml, predastore.yaml \\- configuration of the Predastore store")?;
    writeln!(page, ".SH SYNOPSIS\n/etc/predastore/predastore.toml")?;
    writeln!(page, ".SH DESCRIPTION")?;
    writeln!(
        page,
        "Every setting has a default: without this file a box serves. TOML, or YAML in predastore.yaml. A variable of the\n\
         environment wins over the file, and a flag over both. Below systemd a credential that has a setting's name\n\
         (LoadCredential=auth.secret_key:FILE) gives its value."
    )?;
    writeln!(page, ".SH SETTINGS")?;
    for setting in SETTINGS.iter().filter(|setting| setting.key != crate::config::settings::CONFIG_KEY) {
        writeln!(page, ".TP\n\\fB{}\\fR", escaped(setting.key))?;
        writeln!(page, "{}", escaped(setting.about))?;
        writeln!(page, ".br\n{}", escaped(&told(setting)))?;
    }
    writeln!(page, ".SH LISTS\nTables that stand in the file only, any number of each.")?;
    for (list, fields) in LISTS {
        writeln!(page, ".TP\n\\fB[[{}]]\\fR\n{}", escaped(list), escaped(&fields.join(", ")))?;
    }
    writeln!(page, ".SH SEE ALSO\ns3d(1), predastore(1), mount.predastore(8)")?;
    Ok(())
}

fn told(setting: &Setting) -> String {
    let default = if setting.default.is_empty() { String::new() } else { format!("Default {}. ", setting.default) };
    let flag = setting.flag.map(|flag| format!(", flag -{flag}")).unwrap_or_default();
    format!("{default}Variable {}{flag}.", setting.env())
}

/// As roff has it.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('`', "");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_command_and_setting_has_its_page() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        for page in ["s3d.1", "predastore.1", "s3d-mount.1", "predastore-cluster-status.1", "s3d-credentials.1"] {
            assert!(read(&format!("man/{page}")).contains(".TH"), "{page}");
        }
        let spoken = |page: &str, words: &str| assert!(read(page).contains(&escaped(words)), "{page} lacks `{words}`");
        spoken("man/s3d-mount.1", "s3d mount");
        spoken("man/predastore-cluster-add-db.1", "predastore cluster add-db");
        assert!(!dir.path().join("man/s3d-hold-mount.1").exists());
        let settings = read("man/predastore.toml.5");
        assert!(SETTINGS.iter().skip(1).all(|setting| settings.contains(&escaped(setting.key))));
        for file in ["bash/s3d.bash", "bash/predastore.bash", "zsh/_s3d", "fish/predastore.fish"] {
            assert!(read(file).contains("mount"), "{file}");
        }
    }
}
