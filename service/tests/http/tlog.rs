//! The transparency log over HTTP.

use service::keys::KeyDirectory;
use service::signing::Signing;
use storage::tlog::{Checkpoint, Receipt, TreeHash, VerifierKey};
use tempfile::TempDir;

use crate::support::{MAIN, Service};

const LOG: &str = "/v1/repos/demo/tlog";

/// A service that signs the log of `demo`, the log's key, and the directory it is in.
async fn signed() -> (Service, VerifierKey, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let keys = KeyDirectory::new(folder.path().to_owned());
    let service = Service::signed(Signing::new(keys.clone(), Vec::new(), 0)).await;
    let id = service.json("/v1/repos/demo").await["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let key = keys.create(id, "log.example/demo").unwrap().verifier();
    (service, key, folder)
}

async fn checkpoint(service: &Service, key: &VerifierKey) -> Checkpoint {
    let answer = service.get(&format!("{LOG}/checkpoint")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("cache-control"), "no-cache");
    let checkpoint: Checkpoint = answer.text().parse().unwrap();
    checkpoint.verify(std::slice::from_ref(key)).unwrap();
    checkpoint
}

#[tokio::test]
async fn a_receipt_signs_the_log_and_leads_to_its_checkpoint() {
    let (service, key, _folder) = signed().await;
    assert_eq!(
        service.json("/v1/repos/demo").await["log_keys"][0],
        key.to_string()
    );
    service
        .refused("GET", &format!("{LOG}/checkpoint"), 404)
        .await;
    let answer = service.get(&format!("{MAIN}/receipt")).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let receipt: Receipt = answer.text().parse().unwrap();
    let (hash, entry) = receipt.check_entry().unwrap();
    let head = checkpoint(&service, &key).await.head;
    assert_eq!(receipt.checkpoint.head, head);
    assert_eq!(entry.sequence, 1);
    // The same entry, as the log has it.
    let stored = service.get("/v1/repos/demo/log/1").await;
    assert_eq!(storage::tlog::entry_hash(1, &stored.body), Ok(hash));
    let by_number = service.get(&format!("{LOG}/receipts/1")).await;
    assert_eq!(by_number.body, answer.body);

    let tile = service.get(&format!("{LOG}/tile/0/000.p/2")).await;
    assert_eq!(tile.header("content-type"), "application/octet-stream");
    assert!(tile.header("cache-control").contains("immutable"));
    assert_eq!(tile.body.len(), 64);
    let bundle = service.get(&format!("{LOG}/tile/entries/000.p/2")).await;
    let records = "tile/entries/000.p/2"
        .parse::<storage::tlog::Tile>()
        .unwrap();
    let records = records.records(&bundle.body).unwrap();
    for (leaf, record) in tile.body.chunks(32).zip(&records) {
        assert_eq!(TreeHash::leaf(record).0, leaf);
    }
    assert!(String::from_utf8_lossy(&records[1]).ends_with(&format!("\n1\n{hash}\n")));
}

#[tokio::test]
async fn proofs_are_signed_where_there_is_a_key() {
    let (service, key, _folder) = signed().await;
    let proof = async || {
        let answer = service.get(&format!("{MAIN}/proof/g/f?slice=0,0")).await;
        storage::proof::check(&answer.body).unwrap()
    };
    let first = proof().await.checkpoint.unwrap();
    first.verify(std::slice::from_ref(&key)).unwrap();
    assert_eq!(first.head.size, 2);
    // A commit later, the proof is of the same entry still, and the log has moved on.
    service
        .ask("PUT", "/v1/repos/demo/tags/v1", &[], "{}")
        .await;
    let second = proof().await.checkpoint.unwrap();
    assert_eq!(second.head, first.head);
    service.get(&format!("{LOG}/receipts/2")).await;
    let third = proof().await.checkpoint.unwrap();
    assert_eq!(third.head.size, 3);
}

#[tokio::test]
async fn an_inner_chunk_is_proven_by_its_place() {
    let service = Service::new().await;
    let proof = async |query: &str| {
        let answer = service.get(&format!("{MAIN}/proof/g/f?{query}")).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        storage::proof::check(&answer.body).unwrap()
    };
    assert_eq!(proof("chunk=1,1").await, proof("slice=2:4,3:6").await);
    let refuse = async |query: &str, status| {
        let url = format!("{MAIN}/proof/g/f?{query}");
        service.refused("GET", &url, status).await["detail"].to_string()
    };
    assert!(refuse("chunk=2,0", 400).await.contains("2 × 2"));
    for bad in [
        "chunk=0",
        "chunk=0,0,0",
        "chunk=0,-1",
        "chunk=a,b",
        "chunk=0,18446744073709551615",
        "chunk=0,0&slice=0",
    ] {
        refuse(bad, 400).await;
    }
    refuse("reduce=max&slice=0", 400).await;
    refuse("reduce=median", 400).await;
    refuse("reduce=argmax", 400).await;
}

#[tokio::test]
async fn without_a_key_nothing_is_published() {
    let service = Service::new().await;
    let problem = service
        .refused("GET", &format!("{LOG}/checkpoint"), 404)
        .await;
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("quarr key create")
    );
    service
        .refused("GET", &format!("{LOG}/receipts/1"), 404)
        .await;
    service
        .refused("GET", &format!("{MAIN}/receipt"), 404)
        .await;
    let answer = service.get(&format!("{MAIN}/proof/g/f?slice=0,0")).await;
    let proven = storage::proof::check(&answer.body).unwrap();
    assert_eq!(proven.checkpoint, None);
}

#[tokio::test]
async fn what_is_no_part_of_the_log_is_refused() {
    let (service, ..) = signed().await;
    for path in [
        "tile/0/0",
        "tile/64/000",
        "tile/0/000.p/256",
        "x",
        "receipts/",
        "receipts/x",
        "tile/0/x000/000",
    ] {
        service.refused("GET", &format!("{LOG}/{path}"), 400).await;
    }
    for path in [
        "tile/0/000",
        "tile/0/000.p/77",
        "tile/entries/005",
        "receipts/9",
        "receipts/18446744073709551615",
    ] {
        service.refused("GET", &format!("{LOG}/{path}"), 404).await;
    }
    service.refused("GET", "/v1/repos/demo/log/99", 404).await;
    service.refused("GET", "/v1/repos/demo/log/x", 400).await;
    service
        .refused("GET", &format!("{MAIN}x/receipt"), 404)
        .await;
}

#[tokio::test]
async fn a_store_that_lost_entries_is_not_signed() {
    let (service, key, _folder) = signed().await;
    service
        .ask("PUT", "/v1/repos/demo/tags/v1", &[], "{}")
        .await;
    service.get(&format!("{LOG}/receipts/2")).await;
    assert_eq!(checkpoint(&service, &key).await.head.size, 3);
    // The newest entry and everything that was published of it is lost.
    service.lose("demo/log/00000000000000000002.json").await;
    service.lose("demo/tlog").await;
    let service = service.restarted();
    let problem = service
        .refused("GET", &format!("{MAIN}/receipt"), 500)
        .await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("not signed") && detail.contains("entries are gone"),
        "{detail}"
    );
}
