//! Ten thousand keys, listed with every page size that there is. `PREDASTORE_TEST_PAGE_SIZES`: how many of the 1000.

use std::collections::BTreeSet;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use predastore_tests::knobs::{number, say};
use predastore_tests::random::Rng;
use predastore_tests::s3::{S3, element, elements};
use predastore_tests::s3d::{Config, S3d};
use predastore_tests::sigv4::{decode, encode};

const BUCKET: &str = "listed";
const KEYS: usize = 10_000;
const THREADS: u64 = 4;

/// Directories, files beside them whose names sort around the slash, and a flat crowd: in order.
fn keys() -> Vec<String> {
    let mut rng = Rng::new(1);
    let mut keys: BTreeSet<String> = (0..900).map(|index| format!("flat-{index:04}")).collect();
    for directory in 0..40 {
        keys.extend(["", "/", "-x"].map(|end| format!("dir{directory:02}{end}")));
    }
    while keys.len() < KEYS {
        keys.insert(format!("dir{:02}/sub {}/ä{:05}", rng.below(40), rng.below(10), keys.len()));
    }
    keys.into_iter().collect()
}

/// What a listing with the delimiter `/` shows of `keys`: its keys and common prefixes, in order.
fn grouped(keys: &[String]) -> Vec<String> {
    let names: BTreeSet<String> = keys
        .iter()
        .map(|key| key.split_once('/').map_or(key.clone(), |(directory, _)| format!("{directory}/")))
        .collect();
    names.into_iter().collect()
}

/// How a page names where the next one starts.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// ListObjectsV2: by a token.
    Token,
    /// ListObjects: by its last key.
    Marker,
}

/// Every name of a listing, page by page; `arguments` of the query without `max-keys`.
fn listed(s3: &mut S3, form: Form, arguments: &str, page_size: u64) -> Result<Vec<String>> {
    let (mut names, mut next) = (Vec::new(), String::new());
    loop {
        let query = format!("encoding-type=url&max-keys={page_size}&{arguments}{next}");
        let page = s3.call(s3.request("GET", BUCKET, "", &query, ""))?.expect(200)?.text();
        let mut found: Vec<String> = elements(&page, "Contents").iter().filter_map(|row| element(row, "Key")).collect();
        found.extend(elements(&page, "CommonPrefixes").iter().filter_map(|row| element(row, "Prefix")));
        let mut found: Vec<String> = found.iter().map(|name| decode(name)).collect();
        found.sort();
        ensure!(found.len() as u64 <= page_size, "a page of {} names", found.len());
        names.append(&mut found);
        if element(&page, "IsTruncated").as_deref() != Some("true") {
            return Ok(names);
        }
        next = match form {
            Form::Token => {
                let token = element(&page, "NextContinuationToken").context("a truncated page without a token")?;
                format!("&continuation-token={}", encode(&token, true))
            }
            Form::Marker => format!("&marker={}", encode(names.last().context("an empty page, truncated")?, true)),
        };
    }
}

fn check_size(s3: &mut S3, keys: &[String], groups: &[String], page_size: u64) -> Result<()> {
    let cases = [
        (Form::Token, "list-type=2", keys),
        (Form::Token, "delimiter=%2F&list-type=2", groups),
        (Form::Marker, "prefix=dir1", part_of(keys, "dir1")),
    ];
    for (form, arguments, expected) in cases {
        let names = listed(s3, form, arguments, page_size)?;
        let differs = names.iter().zip(expected).find(|(name, expected)| name != expected);
        let same = differs.is_none() && names.len() == expected.len();
        ensure!(same, "{form:?} {arguments}: {} names, not {}, first {differs:?}", names.len(), expected.len());
    }
    Ok(())
}

/// The run of sorted `keys` that begin with `prefix`.
fn part_of<'a>(keys: &'a [String], prefix: &str) -> &'a [String] {
    let start = keys.partition_point(|key| key.as_str() < prefix);
    &keys[start..start + keys[start..].iter().take_while(|key| key.starts_with(prefix)).count()]
}

/// The largest two page sizes and more at random, or all. Small ones take many requests: they come with all.
fn page_sizes() -> Vec<u64> {
    let mut rng = Rng::for_test("every_page_size");
    let count = number("PREDASTORE_TEST_PAGE_SIZES", 30);
    match count {
        1000.. => (1..=1000).collect(),
        _ => [1000, 999].into_iter().chain((2..count).map(|_| 20 + rng.below(979))).collect(),
    }
}

/// Runs `work` on each of `items`, on several threads with a client each.
fn parallel<T: Send>(s3d: &S3d, items: Vec<T>, work: impl Fn(&mut S3, T) -> Result<()> + Sync) -> Result<()> {
    let items = Mutex::new(items);
    let next = || items.lock().ok().and_then(|mut items| items.pop());
    std::thread::scope(|scope| {
        let run = || -> Result<()> {
            let mut s3 = s3d.s3()?;
            while let Some(item) = next() {
                work(&mut s3, item)?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })
}

#[test]
fn ten_thousand_keys_with_every_page_size() -> Result<()> {
    let s3d = S3d::start(Config::default())?;
    s3d.s3()?.create_bucket(BUCKET)?;
    let keys = keys();
    let groups = grouped(&keys);
    parallel(&s3d, keys.clone(), |s3, key| s3.put(BUCKET, &key, "")?.expect(200).map(drop))?;
    let sizes = page_sizes();
    say(&format!("{} keys, {} names by directory, {} page sizes", keys.len(), groups.len(), sizes.len()));
    parallel(&s3d, sizes, |s3, page_size| {
        check_size(s3, &keys, &groups, page_size).with_context(|| format!("page size {page_size}"))
    })
}
