//! More than a thousand forged, malformed and oversized requests: each gets the right 4xx and changes nothing.
//! They are made by generators from a printed seed; `PREDASTORE_TEST_FORGED` sets how many of each kind.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use predastore_tests::http::{Request, Response};
use predastore_tests::knobs::{number, say};
use predastore_tests::random::Rng;
use predastore_tests::s3::{Listed, S3};
use predastore_tests::s3d::{Config, S3d};
use predastore_tests::shell::files_under;

mod chunks;
mod digests;
mod forger;
mod meaning;
mod names;
mod no_http;
mod presigned;
mod signatures;
mod sizes;
mod xml;

use forger::{Forged, Forger, Generator};

/// Every kind, by subject.
const GENERATORS: &[&[Generator]] = &[
    signatures::GENERATORS,
    presigned::GENERATORS,
    chunks::GENERATORS,
    digests::GENERATORS,
    sizes::GENERATORS,
    xml::GENERATORS,
    names::GENERATORS,
    meaning::GENERATORS,
];

fn is_right(answer: &Result<Response>, forged: &Forged) -> bool {
    let Ok(answer) = answer else { return forged.refusals.iter().any(|(status, _)| *status == 0) };
    // What HEAD says has no body, and what hyper refuses has none of ours.
    let code = answer.code();
    let has_body = forged.request.method != "HEAD";
    forged
        .refusals
        .iter()
        .any(|(status, wanted)| answer.status == *status && (wanted.is_empty() || !has_body || code == *wanted))
}

fn everything(s3: &mut S3) -> Result<(Vec<Listed>, Vec<Listed>, String)> {
    let uploads = s3.call(s3.request("GET", "attacked", "", "uploads", ""))?.expect(200)?;
    let buckets = s3.call(Request::new("GET", "/", "").header("Host", s3.endpoint.authority()))?.expect(200)?;
    let rest = format!("{:?}{}", predastore_tests::s3::elements(&uploads.text(), "Upload"), buckets.text());
    Ok((s3.list("safe")?, s3.list("attacked")?, rest))
}

/// The files beside the data directory: no path may lead there.
fn outside(s3d: &S3d) -> Result<Vec<PathBuf>> {
    let parent = s3d.data_dir.parent().context("the data directory is the root")?;
    let files = files_under(parent)?.into_iter().map(|(file, _)| file);
    Ok(files.filter(|file| !file.starts_with(&s3d.data_dir)).collect())
}

#[test]
fn forged_requests_are_refused_and_change_nothing() -> Result<()> {
    let rng = Rng::for_test("forged_requests");
    let s3d = S3d::start(Config::default().plain())?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket("safe")?;
    s3.create_bucket("attacked")?;
    s3.put("safe", "secret", "a secret")?.expect(200)?;
    s3.put("attacked", "present", "a present")?.expect(200)?;
    let (mut before, files_before) = (everything(&mut s3)?, outside(&s3d)?);

    let mut forger = Forger { s3: s3d.s3()?, rng };
    let (each, mut count, mut wrong) = (number("PREDASTORE_TEST_FORGED", 24), 0, Vec::new());
    for generate in GENERATORS.concat() {
        for _ in 0..each {
            let forged = generate(&mut forger);
            let answer = s3d.endpoint()?.connect()?.call(&forged.request);
            count += 1;
            if !is_right(&answer, &forged) {
                wrong.push(complaint(&forged, &answer));
            }
        }
        let after = everything(&mut s3).context("after forged requests")?;
        if after != before {
            wrong.push(format!("{}: changed {before:?}\ninto {after:?}", generate(&mut forger).what));
            s3.put("attacked", "present", "a present")?.expect(200)?;
            before = everything(&mut s3)?;
        }
    }
    s3.expect_body("attacked", "present", b"a present")?;
    s3.expect_body("safe", "secret", b"a secret")?;
    ensure!(outside(&s3d)? == files_before, "files outside of the data directory: {:?}", outside(&s3d)?);
    say(&format!("{count} forged, malformed and oversized requests, {} answered wrongly", wrong.len()));
    ensure!(count >= 1000 || each < 24, "only {count} requests");
    wrong.sort();
    wrong.dedup();
    ensure!(wrong.is_empty(), "answered wrongly:\n{}", wrong.join("\n"));
    ensure!(!s3d.log_text().contains(&s3d.credentials().secret_key), "the secret key is in the log");
    Ok(())
}

fn complaint(forged: &Forged, answer: &Result<Response>) -> String {
    let answer = match answer {
        Ok(answer) => format!("{} {}", answer.status, answer.code()),
        Err(error) => format!("{error:#}"),
    };
    let target: String = forged.request.target.chars().take(80).collect();
    let body = String::from_utf8_lossy(&forged.request.body[..forged.request.body.len().min(60)]).into_owned();
    format!("{}: {} {target}: {answer}, not {:?} {body:?}", forged.what, forged.request.method, forged.refusals)
}
