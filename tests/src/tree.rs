//! Trees of files for clients to carry: thousands of them, and every name that is awkward.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::knobs::number;
use crate::random::{Rng, body};
use crate::shell::files_under;

/// Writes files of mixed sizes into nested directories: `PREDASTORE_TEST_TREE` of them or `count`, and as many as there are
/// awkward names.
///
/// # Errors
/// When a file cannot be written.
pub fn make_tree(dir: &Path, count: u64, names: Names) -> Result<()> {
    let mut rng = Rng::new(count);
    let directories = ["plain", "with space", "ünï", "a+b", "per%cent", "hash#", "quote'", "UPPER", "dots..dots"];
    for index in 0..number("PREDASTORE_TEST_TREE", count) {
        let mut path = dir.to_path_buf();
        for _ in 0..rng.below(4) {
            path.push(format!("{} d{}", rng.choose(&directories), rng.below(6)));
        }
        std::fs::create_dir_all(&path)?;
        let len = match rng.below(100) {
            0..5 => 0,
            5..80 => rng.below(3000),
            80..98 => rng.below(40_000),
            _ => rng.below(400_000),
        };
        std::fs::write(path.join(format!("file {index}")), body(index, len as usize))?;
    }
    for name in awkward_names(names) {
        let path = dir.join("awkward").join(&name);
        std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
        std::fs::write(path, &name)?;
    }
    Ok(())
}

/// Which names a client can carry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// All that a file may have.
    Any,
    /// None with control characters: XML 1.0 has no way to list them, and this client does not ask for encoded keys.
    Printable,
}

/// A file name for every character that one may have, at its start, inside and at its end; and names that are taken for
/// something else: escapes, entities, options, paths, wildcards.
fn awkward_names(names: Names) -> Vec<String> {
    let controls = (1..=0x1f).chain([0x7f]).filter(|_| names == Names::Any);
    let characters = (b' '..=b'~').filter(|byte| *byte != b'/').chain(controls).map(char::from);
    let mut all: Vec<String> = characters.map(|c| format!("{c}a{c}b{c}")).collect();
    let others = [
        "ünï",
        "u\u{308}",
        "日本語",
        "🦀",
        "\u{a0}",
        "\u{85}nel",
        "\u{2028}",
        "\u{202e}rtl",
        "\u{feff}bom",
        "\u{fffd}",
        "%2F",
        "%2e%2e",
        "%00",
        "a%20b",
        "&amp;",
        "&#10;",
        "<Key>",
        "]]>",
        "...",
        "..a",
        "~root",
        "-rf",
        "--delete",
        "*",
        "$(x)",
        "`x`",
        "C:\\x",
        "d/ /e",
        "d/+/e",
        "d/%2F/e",
        "d/.e/f",
    ];
    all.extend(others.iter().map(|name| name.to_string()));
    // The AWS CLI downloads to a name that is nine bytes longer.
    all.extend(["n".repeat(246), "ä".repeat(123)]);
    all
}

/// What is under `dir`: relative path to content.
///
/// # Errors
/// When a file cannot be read.
pub fn contents(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for (path, _) in files_under(dir)? {
        let name = path.strip_prefix(dir)?.to_string_lossy().into_owned();
        files.insert(name, std::fs::read(&path)?);
    }
    Ok(files)
}

/// Fails unless both directories have the same files with the same content.
///
/// # Errors
/// With the first file that differs.
pub fn same_tree(left: &Path, right: &Path) -> Result<()> {
    let (left, right) = (contents(left)?, contents(right)?);
    let names = |tree: &BTreeMap<String, Vec<u8>>| tree.keys().cloned().collect::<Vec<_>>();
    ensure!(names(&left) == names(&right), "{} files here, {} there", left.len(), right.len());
    for (name, content) in &left {
        ensure!(right[name] == *content, "{name} differs");
    }
    Ok(())
}
