//! What a service without CUDA devices says of them: `explain`, the status, the metrics.

use serde_json::{Value, json};

use crate::support::{MAIN, Service};

async fn compute(service: &Service, query: &str) -> Value {
    let plan = service.json(&format!("{MAIN}/explain/g/f?{query}")).await;
    plan["compute"].clone()
}

#[tokio::test]
async fn a_plan_says_who_makes_a_reduction_and_why() {
    let service = Service::new().await;
    let off = json!({"on": "cpu", "reason": "devices are switched off"});
    let all = json!({"on": "statistics", "reason": "statistics tell all of it"});
    for (query, wanted) in [
        ("reduce=mean&over=0", &off),
        ("reduce=median", &off),
        ("reduce=mean", &all),
        ("reduce=mean,max&slice=...", &all),
    ] {
        assert_eq!(&compute(&service, query).await, wanted, "{query}");
    }
    // A box within chunks is read, as far as statistics do not reach.
    let part = compute(&service, "reduce=mean&slice=1:4,1:5").await;
    assert_eq!(part["on"], "cpu");
    assert!(
        part["reason"].as_str().unwrap().starts_with("one value"),
        "{part}"
    );
    let nothing = compute(&service, "reduce=sum&over=1&slice=0:0").await;
    assert_eq!(nothing, json!({"on": "cpu", "reason": "no chunk is read"}));
    // What is only read is not computed.
    assert_eq!(compute(&service, "slice=0").await, Value::Null);
}

#[tokio::test]
async fn the_status_says_that_devices_are_not_used() {
    let service = Service::new().await;
    let status = service.json("/v1/status").await;
    assert_eq!(status["gpu"], json!({"use": "never", "devices": []}));
}
