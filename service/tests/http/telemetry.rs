//! What a service tells about itself: metrics, status, ids and times in answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use array::DataType;
use quarr_tests::arrays::SampleArray;
use query::{Engine, Settings};
use service::http::router;
use service::state::{Limits, State};
use storage::{CommitOptions, Repository, Store, Transaction};

use crate::support::{MAIN, Service};

/// Names of metrics and their types.
fn families(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            (name.to_owned(), kind.to_owned())
        })
        .collect()
}

#[tokio::test]
async fn every_metric_is_in_the_documents_and_no_other() {
    let service = Service::new().await;
    service.get(&format!("{MAIN}/data/g/f")).await;
    let text = service.get("/metrics").await;
    let served = families(text.text());
    let document = include_str!("../../../docs/operations.md");
    let rows = document.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let name = cells.next()?.trim_matches('`').to_owned();
        let (kind, labels) = (cells.next()?.to_owned(), cells.next()?.to_owned());
        let is_metric = name.starts_with("quarr_") || name.starts_with("process_");
        is_metric.then_some((name, (kind, labels)))
    });
    let documented: BTreeMap<String, (String, String)> = rows.collect();
    let kinds = documented
        .iter()
        .map(|(name, (kind, _))| (name.clone(), kind.clone()));
    assert_eq!(kinds.collect::<BTreeMap<_, _>>(), served);
    // The labels as well, where there are samples.
    for line in text.text().lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| {
                name.strip_suffix(end)
                    .filter(|name| served.contains_key(*name))
            })
            .unwrap_or(name);
        let used: BTreeSet<&str> = labels
            .trim_end_matches('}')
            .split(',')
            .filter_map(|label| Some(label.split_once('=')?.0))
            .filter(|label| *label != "le")
            .collect();
        let told: BTreeSet<&str> = documented[family].1.split(['`', ',', ' ']).collect();
        let told: BTreeSet<&str> = told.into_iter().filter(|label| !label.is_empty()).collect();
        assert_eq!(used, told, "{family}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_the_template_of_their_route() {
    let service = Service::new().await;
    service.get(&format!("{MAIN}/data/g/f")).await;
    service.get(&format!("{MAIN}/data/g/none")).await;
    service.get("/no/such/path-of-a-client").await;
    let text = service.get("/metrics").await;
    let text = text.text();
    let route = "/v1/repos/{repository}/refs/{reference}/data/{*path}";
    for (route, status) in [(route, "2xx"), (route, "4xx"), ("none", "4xx")] {
        let labels = format!("route=\"{route}\",method=\"GET\",status=\"{status}\"");
        let line = format!("quarr_http_request_duration_seconds_count{{{labels}}} 1");
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("path-of-a-client"));
    assert!(
        text.contains("\nquarr_http_requests_in_flight 1\n"),
        "the one for metrics"
    );
    let sent = text
        .lines()
        .find_map(|line| line.strip_prefix("quarr_http_sent_bytes_total "));
    assert!(sent.unwrap().parse::<u64>().unwrap() > 96);
}

#[tokio::test]
async fn requests_to_the_store_are_counted() {
    let service = Service::new().await;
    let answer = service.get(&format!("{MAIN}/data/big?slice=0:4000")).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 4000));
    let status = service.json("/v1/status").await;
    let operations = status["store_operations"].as_array().unwrap();
    // An object that is wanted whole needs no range.
    let read = |of: &&serde_json::Value| of["operation"] == "get" || of["operation"] == "get_range";
    let read: Vec<_> = operations.iter().filter(read).collect();
    let bytes: u64 = read.iter().map(|of| of["bytes"].as_u64().unwrap()).sum();
    assert!(bytes >= 4000, "{operations:?}");
    for of in read {
        let is_asked = of["requests"].as_u64().unwrap() > 0;
        assert_eq!(is_asked, of["mean_ms"].as_f64().is_some(), "{of}");
        assert_eq!(of["errors"], 0, "{of}");
    }
    assert_eq!(status["phase"], "serving");
    assert_eq!(status["requests"]["running"], 1);
    assert_eq!(status["requests"]["oldest"][0]["route"], "/v1/status");
}

#[tokio::test]
async fn answers_and_problems_name_the_trace() {
    let service = Service::new().await;
    let above = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let headers = [("traceparent", above), ("x-request-id", "mine-7")];
    let answer = service.ask("GET", "/v1/repos/none", &headers, "").await;
    assert_eq!(
        answer.json()["trace_id"],
        "0af7651916cd43dd8448eb211c80319c"
    );
    assert_eq!(answer.header("x-request-id"), "mine-7");
    assert!(
        answer
            .header("traceparent")
            .starts_with("00-0af7651916cd43dd8448eb211c80319c-")
    );
    let one = service.get("/v1/repos/none").await;
    let other = service.get("/v1/repos/none").await;
    let ids = [&one, &other].map(|answer| answer.json()["trace_id"].as_str().unwrap().to_owned());
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[0], one.header("x-request-id"));
}

#[tokio::test]
async fn data_comes_with_the_times_it_took() {
    let service = Service::new().await;
    let answer = service.get(&format!("{MAIN}/data/g/f?f=json")).await;
    let timing = answer.header("server-timing");
    let parts: Vec<&str> = timing
        .split(", ")
        .map(|part| part.split(';').next().unwrap())
        .collect();
    assert_eq!(parts, ["plan", "fetch", "decode", "encode", "total"]);
    for part in timing.split(", ") {
        let duration = part.split_once(";dur=").unwrap().1;
        assert!(duration.parse::<f64>().unwrap() >= 0.0, "{timing}");
    }
    assert_eq!(service.get("/v1/repos").await.header("server-timing"), "");
}

#[tokio::test]
async fn a_node_reads_what_another_has_acknowledged() {
    // Two services over one store, as two machines have them.
    let objects = Arc::new(object_store::memory::InMemory::new());
    let node = || {
        let store = Store::from_objects(objects.clone(), "test");
        let engine = Engine::new(Settings {
            threads: 1,
            ..Settings::default()
        })
        .unwrap();
        State::new(store, engine, Limits::default())
    };
    let (one, other) = (node(), node());
    let repository = Repository::create(one.store().under("demo"), "test")
        .await
        .unwrap();
    let sample = SampleArray::sharded("x", DataType::UInt8, [&[4], &[4], &[2]], |i| vec![i as u8]);
    let sample = sample.unwrap();
    let branch = "main".parse().unwrap();
    let (ask_one, ask_other) = (Service::of(router(one)), Service::of(router(other)));
    let transaction = Transaction::begin(&repository, &branch).await.unwrap();
    sample.store(&transaction).await.unwrap();
    let options = CommitOptions {
        author: "ada".into(),
        ..CommitOptions::default()
    };
    transaction.commit(options).await.unwrap();
    let octets = [
        ("content-type", "application/octet-stream"),
        ("content-length", "1"),
    ];
    let cell = format!("{MAIN}/data/x?slice=0:1");
    // Each knows the branch as it was before, and could answer with that.
    for round in 1..30_u8 {
        let (writes, reads) = match round % 2 {
            0 => (&ask_one, &ask_other),
            _ => (&ask_other, &ask_one),
        };
        let value = char::from(round).to_string();
        let answer = writes.ask("PUT", &cell, &octets, &value).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let commit = writes.json(MAIN).await["commit"].clone();
        assert_eq!(reads.get(&cell).await.body.as_ref(), [round]);
        assert_eq!(reads.json(MAIN).await["commit"], commit);
    }
}
