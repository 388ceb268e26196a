//! What every store promises to repositories: objects are created once, whoever races, and what is
//! there is read, listed and deleted.

use bytes::Bytes;
use futures::future::join_all;
use storage::{Error, Probe, Put, Store};

/// Of `writers` that create the same object at the same time, one is told that it did, and it is
/// its bytes that stay. The writers of a round start together, through clients of their own.
pub(crate) async fn one_writer_wins(stores: &[Store], writers: usize, rounds: usize) {
    for round in 0..rounds {
        let key = format!("races/{round}");
        let value = |writer: usize| Bytes::from(format!("round {round}, writer {writer}"));
        let puts = (0..writers).map(|writer| {
            let (store, key, value) = (
                stores[writer % stores.len()].clone(),
                key.clone(),
                value(writer),
            );
            tokio::spawn(async move { store.put_if_absent(&key, value).await })
        });
        let puts = join_all(puts).await;
        let won: Vec<usize> = puts
            .into_iter()
            .enumerate()
            .filter(|(_, put)| *put.as_ref().unwrap().as_ref().unwrap() == Put::Created)
            .map(|(writer, _)| writer)
            .collect();
        assert_eq!(won.len(), 1, "round {round} was won by {won:?}");
        let found = stores[0].get(&key).await.unwrap().unwrap();
        assert_eq!(found, value(won[0]), "round {round}");
        let late = stores[0].put_if_absent(&key, value(writers)).await.unwrap();
        assert_eq!(late, Put::AlreadyThere, "round {round}");
        assert_eq!(stores[0].get(&key).await.unwrap().unwrap(), found);
    }
}

/// Whole objects, ranges, lists and deletions.
pub(crate) async fn objects_come_and_go(store: &Store) {
    let store = store.under("objects");
    let bytes: Bytes = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    for key in ["a/1", "a/2", "b/c/3"] {
        store.put_immutable(key, bytes.clone()).await.unwrap();
        // Again is no error, with other bytes it is one.
        store.put_immutable(key, bytes.clone()).await.unwrap();
        let other = store.put_immutable(key, bytes.slice(1..)).await;
        assert!(matches!(other, Err(Error::Corrupt { .. })), "{other:?}");
    }
    assert_eq!(store.get("a/1").await.unwrap().unwrap(), bytes);
    assert_eq!(store.get("a/3").await.unwrap(), None);
    for range in [0..1, 17..4096, 399_999..400_000] {
        let found = store.get_range("a/1", range.clone()).await.unwrap();
        assert_eq!(found, bytes[range.start as usize..range.end as usize]);
    }
    let past = store.get_range("a/1", 399_999..400_001).await;
    assert!(matches!(past, Err(Error::Corrupt { .. })), "{past:?}");
    let missing = store.get_range("a/3", 0..1).await;
    assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");

    let mut listed = store.list("").await.unwrap();
    listed.sort();
    let all = ["a/1", "a/2", "b/c/3"].map(|key| (key.to_owned(), 400_000));
    assert_eq!(listed, all);
    assert_eq!(store.list("a").await.unwrap().len(), 2);
    let mut folders = store.folders().await.unwrap();
    folders.sort();
    assert_eq!(folders, ["a", "b"]);

    store.overwrite("a/2", Bytes::from("new")).await.unwrap();
    assert_eq!(store.get("a/2").await.unwrap().unwrap(), "new");
    // What is gone already is no error.
    let gone = ["a/1", "a/2", "a/3", "b/c/3"].map(str::to_owned).to_vec();
    store.delete(gone).await.unwrap();
    assert_eq!(store.list("").await.unwrap(), []);
}

/// Probes find the store sound, at the same time too, and leave nothing behind.
pub(crate) async fn probes_find_it_sound(store: &Store) {
    let store = store.under("probes");
    let probes = join_all((0..3).map(|_| store.probe())).await;
    for probe in probes {
        assert_eq!(probe.unwrap(), Probe::Sound { left: None });
    }
    assert_eq!(store.list("").await.unwrap(), []);
    let only_read = store.clone().read_only();
    let put = only_read.put_if_absent("a", Bytes::from("a")).await;
    assert!(matches!(put, Err(Error::ReadOnly)), "{put:?}");
    let deleted = only_read.delete(vec!["a".into()]).await;
    assert!(matches!(deleted, Err(Error::ReadOnly)), "{deleted:?}");
}
