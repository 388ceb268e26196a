//! What is refused, and how: always as problem details, never with a crash.

use quarr_tests::watched::Damage;
use serde_json::json;

use crate::support::{HOSTILE, MAIN, Service};

#[tokio::test]
async fn requests_that_are_wrong_name_the_parameter() {
    let service = Service::new().await;
    for (below, parameter) in [
        ("data/g/f?slice=a", "slice"),
        ("data/g/f?slice=0,0,0", "slice"),
        ("data/g/f?slice=[1", "slice"),
        ("data/g/f?slice=::0", "slice"),
        ("data/g/f?slice=99999999999999999999", "slice"),
        ("data/g/f?slice=-5", "slice"),
        ("data/g/f?slice=[true]", "slice"),
        ("data/g/f?strict=yes", "strict"),
        ("data/g/f?decode=zip", "decode"),
        ("data/g/f?f=xml", "f"),
        ("data/g/f?slcie=0", "slcie"),
        ("data/g/f?slice=0&slice=1", "slice"),
        ("data/g", "path"),
        ("reduce/g/f", "reduce"),
        ("reduce/g/f?reduce=total", "reduce"),
        ("reduce/g/f?reduce=sum&over=z", "over"),
        ("reduce/g/f?reduce=sum&over=2", "over"),
        ("reduce/g/f?reduce=sum&over=-9223372036854775808", "over"),
        ("reduce/g/f?reduce=sum&over=x,0", "over"),
        ("reduce/g/f?reduce=sum&dtype=float32", "dtype"),
        ("reduce/g/f?reduce=std&ddof=-1", "ddof"),
        ("reduce/g/f?reduce=sum&min_count=x", "min_count"),
    ] {
        let problem = service
            .refused("GET", &format!("{MAIN}/{below}"), 400)
            .await;
        assert_eq!(problem["parameter"], parameter, "{below}: {problem}");
    }
    let problem = service
        .refused("GET", &format!("{MAIN}/data/g/f?slcie=0"), 400)
        .await;
    assert_eq!(problem["suggestions"][0], "slice");
}

#[tokio::test]
async fn names_that_do_not_exist_bring_those_that_look_alike() {
    let service = Service::new().await;
    for (url, suggestion) in [
        ("/v1/repos/dmeo", "demo"),
        ("/v1/repos/dmeo/refs/main/zarr/zarr.json", "demo"),
        ("/v1/repos/demo/refs/mian", "main"),
        ("/v1/repos/demo/refs/main/nodes/g/ff", "/g/f"),
        ("/v1/repos/demo/refs/main/data/pakced", "/packed"),
    ] {
        let problem = service.refused("GET", url, 404).await;
        assert_eq!(problem["suggestions"][0], suggestion, "{problem}");
    }
    for url in [
        "/v2",
        "/v1/repos/demo/refs/main~1000",
        "/v1/repos/demo/refs/main@1999-01-01T00:00:00Z",
        "/v1/repos/demo/refs/00000000",
        &format!("/v1/repos/demo/refs/{}", "ab".repeat(32)),
    ] {
        service.refused("GET", url, 404).await;
    }
}

#[tokio::test]
async fn malformed_names_and_paths_are_refused() {
    let service = Service::new().await;
    for url in [
        "/v1/repos/UPPER",
        "/v1/repos/demo/refs/main~x",
        "/v1/repos/demo/refs/main@noon",
        "/v1/repos/demo/refs/a%20b",
        "/v1/repos/demo/refs/main/data/g%2Ff",
        "/v1/repos/demo/refs/main/data/g/%2e%2e/packed",
        "/v1/repos/demo/refs/main/zarr/../zarr.json",
        "/v1/repos/demo/refs/main/zarr/./zarr.json",
        "/v1/repos/demo/refs/main/zarr/g%00/zarr.json",
        "/v1/repos/demo/refs/main/data/%ff",
    ] {
        service.refused("GET", url, 400).await;
    }
    // Decoded once: this names "g%2Ff", which does not exist.
    service
        .refused("GET", "/v1/repos/demo/refs/main/data/g%252Ff", 404)
        .await;
}

#[tokio::test]
async fn methods_bodies_and_formats_that_do_not_fit_are_refused() {
    let service = Service::new().await;
    service.refused("POST", "/v1/repos", 405).await;
    service
        .refused("PUT", &format!("{MAIN}/reduce/g/f"), 405)
        .await;
    let answer = service
        .ask("DELETE", "/v1/repos/demo/branches", &[], "")
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("allow")),
        (405, "GET,HEAD")
    );

    for (body, status) in [
        ("{", 400),
        ("{\"form\":\"main\"}", 400),
        ("{\"from\":\"x\"}", 404),
    ] {
        let answer = service
            .ask("PUT", "/v1/repos/demo/branches/b", &[], body)
            .await;
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let large = "x".repeat(3 << 20);
    let answer = service
        .ask("PUT", "/v1/repos/demo/branches/b", &[], &large)
        .await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.header("content-type"), "application/problem+json");

    let url = format!("{MAIN}/data/g/f");
    assert_eq!(
        service
            .ask("GET", &url, &[("accept", "image/tiff")], "")
            .await
            .status,
        406
    );
    // Strings have no fixed size.
    service
        .refused("GET", &format!("{MAIN}/data/names?f=npy"), 406)
        .await;
    let problem = service
        .refused("GET", &format!("{MAIN}/reduce/names?reduce=sum"), 422)
        .await;
    assert!(
        problem["detail"].as_str().unwrap().contains("sum"),
        "{problem}"
    );
    service
        .refused(
            "GET",
            &format!("{MAIN}/reduce/g/f?reduce=max&slice=0:0"),
            422,
        )
        .await;
}

#[tokio::test]
async fn hostile_shapes_cost_nothing() {
    let service = Service::new().await;
    for (path, shape) in HOSTILE {
        for below in [
            format!("data/{path}"),
            format!("data/{path}?f=json"),
            format!("data/{path}?slice=::3"),
            format!("reduce/{path}?reduce=sum"),
            format!("reduce/{path}?reduce=max&over=0"),
            format!("reduce/{path}?reduce=count&over="),
        ] {
            service
                .refused("GET", &format!("{MAIN}/{below}"), 413)
                .await;
        }
        let node = service.json(&format!("{MAIN}/nodes/{path}")).await;
        assert_eq!(
            (&node["stored_chunks"], &node["shape"]),
            (&json!(0), &json!(shape))
        );
        assert_eq!(
            service.get(&format!("{MAIN}/zarr/{path}/")).await.status,
            200
        );
    }
    let few = format!("{MAIN}/data/hostile/long?f=json&slice=::288230376151711744");
    assert_eq!(service.json(&few).await["values"], json!([0, 0, 0, 0]));
    let last = format!("{MAIN}/data/hostile/long?f=json&slice=-1");
    assert_eq!(service.json(&last).await["values"], 0);
}

#[tokio::test]
async fn damage_is_a_500_that_names_the_object() {
    let service = Service::new().await;
    let url = format!("{MAIN}/data/big?slice=:3000");
    service.objects.take_requests();
    assert_eq!(service.get(&url).await.status, 200);
    let shards: Vec<String> = service
        .objects
        .take_requests()
        .into_iter()
        .filter_map(|request| match request {
            quarr_tests::watched::Request::Get(key, _) if key.contains("shards/") => Some(key),
            _ => None,
        })
        .collect();
    for (key, damage) in shards.iter().flat_map(|key| {
        [Damage::Flip(0, 1), Damage::Remove, Damage::Truncate(3)].map(|damage| (key, damage))
    }) {
        service.objects.set_damage(Some((key, damage.clone())));
        let fresh = service.restarted();
        for below in ["data/big?slice=:3000", "reduce/big?reduce=median"] {
            let problem = fresh.refused("GET", &format!("{MAIN}/{below}"), 500).await;
            let object = key.rsplit("shards/").next().unwrap();
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(object), "{damage:?}: {detail}");
        }
    }
    assert!(!shards.is_empty());
}
