//! Products and nearest neighbours: answers, caching, refusals.

use serde_json::{Value, json};

use crate::support::{Answer, HOSTILE, MAIN, Service};

async fn nearest(service: &Service, below: &str, body: &Value) -> Answer {
    let url = format!("{MAIN}/nearest/{below}");
    service.ask("POST", &url, &[], &body.to_string()).await
}

#[tokio::test]
async fn products_have_names_coordinates_and_tags() {
    let service = Service::new().await;
    let url = format!("{MAIN}/product/g/f?with=f&slice=1:3,:4&with_slice=:,:2");
    let answer = service.json(&format!("{url}&f=json")).await;
    // Rows 1 and 2 of four, columns 0 and 1 of six; the fifth value is NaN and not among them.
    let cell = |row: u64, column: u64| -> f64 {
        (0..4)
            .map(|i| ((row * 6 + i) * (i * 6 + column)) as f64)
            .sum()
    };
    let wanted = json!([[cell(1, 0), cell(1, 1)], [cell(2, 0), cell(2, 1)]]);
    assert_eq!(answer["values"], wanted);
    assert_eq!(answer["dimensions"], json!(["x", "y"]));
    assert_eq!(answer["data_type"], "float32");
    let raw = service.get(&url).await;
    assert_eq!(raw.header("tensor"), "dtype=\"<f4\", shape=(2 2)");
    // Squares fit every way.
    let square = format!("{MAIN}/product/g/f?with=f&slice=:,:4&with_slice=:,:4");
    let tag = service.get(&square).await.header("etag").to_owned();
    for (other, status) in [
        ("&expected_shape=4,4", 304),
        ("&axis=0", 200),
        ("&axis=1", 200),
        ("&decode=raw", 200),
        ("&f=npy", 200),
    ] {
        let url = format!("{square}{other}");
        let known = [("if-none-match", tag.as_str())];
        let answer = service.ask("GET", &url, &known, "").await;
        assert_eq!(answer.status, status, "{other}");
    }
    for other in [
        "g/f?with=f&slice=:,:4&with_slice=:,1:5",
        "g/f?with=f&slice=:,1:5&with_slice=:,:4",
    ] {
        let url = format!("{MAIN}/product/{other}");
        let answer = service.get(&url).await;
        assert_eq!(answer.status, 200);
        assert_ne!(answer.header("etag"), tag, "{other}");
    }
    // Both dimensions are y: a format that needs names has no name twice.
    let url = format!("{MAIN}/product/g/f?with=f&slice=:3,:4&axis=y&with_slice=:2,:4&f=json");
    assert_eq!(service.json(&url).await["dimensions"], json!(["x", null]));
}

#[tokio::test]
async fn products_that_are_wrong_name_the_parameter() {
    let service = Service::new().await;
    for (below, parameter) in [
        ("g/f", "with"),
        ("g/f?with=none", "with"),
        ("g/f?with=g", "with"),
        ("g/f?with=../f", "path"),
        ("g/f?with=f", "with"),
        ("g/f?with=f&axis=2", "axis"),
        ("g/f?with=f&axis=-9223372036854775808", "axis"),
        ("g/f?with=f&axis=z", "axis"),
        ("g/f?with=f&slice=0,0", "axis"),
        ("g/f?with=f&with_slice=a", "with_slice"),
        ("g/f?with=f&with_slice=9", "with_slice"),
        ("g/f?with=f&with_slice=::0", "with_slice"),
        ("g/f?with=f&slice=a", "slice"),
        ("g/f?with=f&sel.z=1", "sel.z"),
        ("g/f?with=f&decode=zip", "decode"),
        ("g/f?with=f&f=xml", "f"),
        ("g/f?with=f&over=x", "over"),
    ] {
        let url = format!("{MAIN}/product/{below}");
        let problem = service.refused("GET", &url, 400).await;
        assert_eq!(problem["parameter"], parameter, "{below}: {problem}");
    }
    for (below, status) in [
        ("g/f?with=/names&slice=0,:3", 422),
        ("names?with=names", 422),
        ("none?with=f", 404),
        ("g/f?with=f&slice=:,:4&expected_shape=4,4", 412),
    ] {
        let url = format!("{MAIN}/product/{below}");
        service.refused("GET", &url, status).await;
    }
    service
        .refused("POST", &format!("{MAIN}/product/g/f"), 405)
        .await;
}

#[tokio::test]
async fn products_that_are_too_large_are_refused_before_they_are_read() {
    let service = Service::new().await;
    service.objects.take_requests();
    // 100 by 100 bytes, of 4096.
    let outer = "big?with=big&slice=:100,None&with_slice=None,:100";
    let mut refused = vec![outer.to_owned()];
    for (path, shape) in HOSTILE {
        let slice = if shape.len() == 1 { "None,:" } else { ":" };
        refused.push(format!("{path}?with=/{path}&slice={slice}"));
        refused.push(format!("g/f?with=/{path}&slice=0,:"));
        refused.push(format!("{path}?with=/g/f&axis=0"));
    }
    for below in refused {
        let problem = service
            .refused("GET", &format!("{MAIN}/product/{below}"), 413)
            .await;
        assert!(problem["limit"].is_u64(), "{below}: {problem}");
    }
    let few = format!(
        "{MAIN}/product/hostile/long?with=long&f=json&slice=::288230376151711744&with_slice=:4"
    );
    assert_eq!(service.json(&few).await["values"], 0);
}

#[tokio::test]
async fn neighbours_come_in_formats_that_hold_two_variables() {
    let service = Service::new().await;
    let body =
        json!({"vectors": [[6, 7, 8, 9, 10, 11], [0, 0, 0, 0, 0, 1]], "k": 4, "metric": "l2"});
    for (below, accept) in [("g/f", ""), ("g/f", "*/*"), ("g/f?f=json", "text/csv")] {
        let url = format!("{MAIN}/nearest/{below}");
        let accept = [("accept", accept)];
        let answer = service.ask("POST", &url, &accept, &body.to_string()).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        assert_eq!(answer.header("cache-control"), "no-store");
        let found = &answer.json()["variables"];
        assert_eq!(
            found["indices"]["dimensions"],
            json!(["query", "neighbour"])
        );
        // Row 0 holds NaN.
        assert_eq!(
            found["indices"]["values"],
            json!([[1, 2, 3, -1], [1, 2, 3, -1]])
        );
        assert_eq!(found["scores"]["data_type"], "float64");
        assert_eq!(found["scores"]["values"][0][3], "NaN");
        assert_eq!(found["scores"]["values"][0][0], 0.0);
    }
    for f in ["arrow", "csv", "netcdf"] {
        let answer = nearest(&service, &format!("g/f?f={f}"), &body).await;
        assert_eq!(answer.status, 200, "{f}");
    }
    for f in ["octet-stream", "npy", "png"] {
        let answer = nearest(&service, &format!("g/f?f={f}"), &body).await;
        assert_eq!(answer.status, 406, "{f}");
    }
}

#[tokio::test]
async fn searches_that_are_wrong_name_the_parameter() {
    let service = Service::new().await;
    let row = [1, 2, 3, 4, 5, 6];
    let good = json!({"vectors": [row], "k": 1});
    for (below, body, parameter) in [
        ("g/f", json!({"vectors": [[1, 2]], "k": 1}), "vectors"),
        ("g/f", json!({"vectors": [row, [1]], "k": 1}), "vectors"),
        ("g/f", json!({"vectors": [], "k": 1}), "vectors"),
        ("g/f", json!({"vectors": [[]], "k": 1}), "vectors"),
        ("g/f", json!({"vectors": [row], "k": 0}), "k"),
        ("g/f", json!({"vectors": [row], "k": -1}), "body"),
        ("g/f", json!({"vectors": [row]}), "body"),
        ("g/f", json!({"vectors": [["a"]], "k": 1}), "body"),
        ("g/f", json!({"vectors": [[null]], "k": 1}), "body"),
        (
            "g/f",
            json!({"vectors": [row], "k": 1, "metric": "l1"}),
            "metric",
        ),
        ("g/f", json!({"vectors": [row], "k": 1, "kk": 1}), "body"),
        ("g/f", json!([row]), "body"),
        ("g/f?slice=0", good.clone(), "slice"),
        ("g/f?slice=None,0", good.clone(), "slice"),
        ("g/f?slice=:,0:x", good.clone(), "slice"),
        ("g/f?k=1", good.clone(), "k"),
        ("big", good.clone(), "slice"),
    ] {
        let answer = nearest(&service, below, &body).await;
        assert_eq!(answer.status, 400, "{below} {body}: {:?}", answer.body);
        assert_eq!(answer.json()["parameter"], parameter, "{below} {body}");
    }
    for (below, body, status) in [
        ("none", good.clone(), 404),
        ("names?slice=:,None", good.clone(), 400),
        ("g/f", json!({"vectors": [row], "k": 1_u64 << 40}), 413),
        ("g/f", json!({"vectors": [row], "k": u64::MAX}), 413),
        ("g/f", json!({"vectors": vec![row; 200], "k": 100}), 413),
    ] {
        let answer = nearest(&service, below, &body).await;
        assert_eq!(answer.status, status, "{below}: {:?}", answer.body);
    }
    for (path, _) in HOSTILE {
        let answer = nearest(&service, &format!("{path}?slice=..."), &good).await;
        assert!([400, 413].contains(&answer.status.as_u16()), "{path}");
    }
    let url = format!("{MAIN}/nearest/g/f");
    for (kind, body, status) in [
        ("text/plain", good.to_string(), 415),
        ("application/json", "{".into(), 400),
        ("application/json", String::new(), 400),
        (
            "application/json",
            format!(
                "{{\"vectors\": [[1e999]], \"k\": 1, \"x\": \"{}\"}}",
                "x".repeat(3 << 20)
            ),
            413,
        ),
        (
            "application/json",
            "{\"vectors\": [[1e999]], \"k\": 1}".into(),
            400,
        ),
    ] {
        let answer = service
            .ask("POST", &url, &[("content-type", kind)], &body)
            .await;
        assert_eq!(answer.status, status, "{kind}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn damage_in_either_factor_is_a_500() {
    use quarr_tests::watched::{Damage, Request};

    let service = Service::new().await;
    let products = [
        "big?with=/sparse&slice=:8",
        "sparse?with=/big&with_slice=:8",
    ];
    service.objects.take_requests();
    service
        .json(&format!("{MAIN}/product/{}&f=json", products[0]))
        .await;
    let shards = service.objects.take_requests().into_iter();
    let mut shards = shards.filter_map(|request| match request {
        Request::Get(key, _) if key.contains("shards/") => Some(key),
        _ => None,
    });
    let key = shards.next().unwrap();
    service.objects.set_damage(Some((&key, Damage::Flip(0, 1))));
    for below in products {
        let fresh = service.restarted();
        let problem = fresh
            .refused("GET", &format!("{MAIN}/product/{below}"), 500)
            .await;
        assert_eq!(problem["type"], "/problems/damaged");
    }
}
