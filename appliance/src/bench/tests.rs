#![allow(clippy::unwrap_used)]

//! The whole benchmark against a small S3 of our own, in memory, that can be told to lie.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use clap::Parser;

use super::*;

#[derive(Default)]
struct Fake {
    objects: Mutex<BTreeMap<String, Bytes>>,
    /// Give back a wrong last byte.
    flips: bool,
    /// Leave a key out of each page.
    forgets: bool,
}

impl Fake {
    fn answer(&self, method: &Method, path: &str, query: &str, body: Bytes) -> Response {
        let mut objects = self.objects.lock().unwrap();
        let key = path.trim_start_matches('/').split_once('/').map(|(_, key)| key.to_owned());
        match (method.as_str(), key) {
            ("PUT", Some(key)) => {
                objects.insert(key, body);
                StatusCode::OK.into_response()
            }
            ("GET" | "HEAD", Some(key)) => match objects.get(&key) {
                Some(body) if self.flips => {
                    let mut wrong = body.to_vec();
                    *wrong.last_mut().unwrap() ^= 1;
                    wrong.into_response()
                }
                Some(body) => body.clone().into_response(),
                None => StatusCode::NOT_FOUND.into_response(),
            },
            ("DELETE", Some(key)) => {
                objects.remove(&key);
                StatusCode::NO_CONTENT.into_response()
            }
            ("GET", None) => page(&objects, query, if self.forgets { 999 } else { 1000 }).into_response(),
            ("POST", None) => {
                let text = String::from_utf8(body.to_vec()).unwrap();
                for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split_once('<')) {
                    objects.remove(key.0);
                }
                "<DeleteResult/>".into_response()
            }
            ("PUT" | "DELETE", None) => StatusCode::OK.into_response(),
            other => panic!("{other:?}"),
        }
    }
}

fn page(objects: &BTreeMap<String, Bytes>, query: &str, limit: usize) -> String {
    let after = query.split_once("start-after=").unwrap().1.replace("%2F", "/");
    let listed = objects.keys().filter(|key| key.starts_with("l/") && **key > after).take(limit);
    listed.map(|key| format!("<Contents><Key>{key}</Key></Contents>")).collect()
}

async fn handle(State(fake): State<Arc<Fake>>, request: Request) -> Response {
    let signed = request.headers().get("authorization").is_some_and(|h| h.to_str().unwrap().contains("AKIATEST/"));
    assert!(signed, "an unsigned request");
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let answer = fake.answer(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default(), body);
    match parts.headers.get("range") {
        Some(range) => part(answer, range.to_str().unwrap()).await,
        None => answer,
    }
}

async fn part(whole: Response, range: &str) -> Response {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let bytes = to_bytes(whole.into_body(), usize::MAX).await.unwrap();
    let bytes = bytes.slice(first.parse().unwrap()..last.parse::<usize>().unwrap() + 1);
    (StatusCode::PARTIAL_CONTENT, bytes).into_response()
}

async fn start(fake: Fake) -> (String, Arc<Fake>) {
    let fake = Arc::new(fake);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(handle).with_state(fake.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, fake)
}

#[derive(Parser)]
#[command(args_override_self = true)]
struct Command {
    #[command(flatten)]
    bench: BenchArgs,
}

fn args(url: &str, more: &str) -> BenchArgs {
    let line = format!(
        "bench --endpoint {url} --access-key AKIATEST --secret-key secret --duration 20ms --objects 40 --size 100000 \
         --concurrency 4 {more}"
    );
    Command::try_parse_from(line.split_whitespace()).unwrap().bench
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_is_measured_and_everything_cleared_away() {
    let (url, fake) = start(Fake::default()).await;
    for more in ["", "--signed-payload --rounds 2", "--ops mixed,range,list"] {
        let args = args(&url, more);
        let sites = sites(&args).unwrap();
        let rows = prepare_and_measure(&args, &sites).await.unwrap();
        assert_eq!(rows.len(), args.ops.len());
        for row in &rows {
            let tally = &row.tallies[0];
            assert!(tally.latency.count() > 0 && tally.error_count == 0, "{}: {:?}", row.op.name(), tally.first_error);
        }
        assert!(!fake.objects.lock().unwrap().is_empty());
        clear(&sites[0]).await.unwrap();
        assert!(fake.objects.lock().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_endpoints_take_turns_and_the_second_run_finds_its_objects() {
    let ((one, first), (two, second)) = (start(Fake::default()).await, start(Fake::default()).await);
    let sizes = || [&first, &second].map(|fake| fake.objects.lock().unwrap().len());
    measure(&args(&one, &format!("--vs {two} --ops get,list --keep"))).await.unwrap();
    assert_eq!(sizes(), [80, 80]);
    measure(&args(&one, &format!("--vs {two} --ops get,list --prepared --json"))).await.unwrap();
    assert_eq!(sizes(), [0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_are_noticed() {
    let (url, _) = start(Fake { flips: true, ..Fake::default() }).await;
    let error = measure(&args(&url, "--ops get")).await.unwrap_err().to_string();
    assert!(error.contains("not those of 0..100000 as written"), "{error}");
    let (url, _) = start(Fake { forgets: true, ..Fake::default() }).await;
    let error = measure(&args(&url, "--ops list --objects 1500 --size 10")).await.unwrap_err().to_string();
    assert!(error.contains("gave 999 keys"), "{error}");
    let error = measure(&args(&url, "--ops delete")).await.unwrap_err().to_string();
    assert!(error.contains("name one of them first"), "{error}");
}
