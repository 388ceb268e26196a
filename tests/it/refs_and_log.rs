//! Branches, tags, ref expressions, and what finding the newest state costs.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use quarr_tests::watched::{Damage, Request, Watched};
use storage::{
    CommitId, CommitOptions, Error, RefKind, RefName, Repository, Scope, Store, Transaction,
};

fn name(text: &str) -> RefName {
    text.parse().unwrap()
}

fn store(watched: &Watched) -> Store {
    Store::from_objects(Arc::new(watched.clone()), "test")
}

async fn repository() -> (Watched, Repository) {
    let watched = Watched::new(Arc::new(InMemory::new()));
    let repository = Repository::create(store(&watched), "test").await.unwrap();
    (watched, repository)
}

/// A commit that changes nothing.
async fn commit(repository: &Repository, branch: &str) -> CommitId {
    let transaction = Transaction::begin(repository, &name(branch)).await.unwrap();
    transaction.commit(CommitOptions::default()).await.unwrap()
}

async fn resolve(repository: &Repository, expression: &str) -> Result<CommitId, Error> {
    let resolved = repository.resolve(&expression.parse()?).await?;
    Ok(resolved.commit)
}

#[tokio::test]
async fn expressions_name_commits() {
    let (_, repository) = repository().await;
    let first = resolve(&repository, "main").await.unwrap();
    let second = commit(&repository, "main").await;
    let log = repository.log(None, 2).await.unwrap();
    let at_second = log[1].time.to_rfc3339();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let third = commit(&repository, "main").await;
    let tag = name("v1");
    repository
        .create_ref(RefKind::Tag, &tag, second, "test")
        .await
        .unwrap();

    for (expression, expected) in [
        ("main".to_owned(), third),
        ("main~1".into(), second),
        ("main~2".into(), first),
        ("v1".into(), second),
        ("v1~1".into(), first),
        (format!("main@{at_second}"), second),
        (format!("main@{at_second}~1"), first),
        (third.to_string(), third),
        (third.to_string()[..8].to_owned(), third),
        (format!("{}~2", &third.to_string()[..20]), first),
    ] {
        let found = resolve(&repository, &expression).await.unwrap();
        assert_eq!(found, expected, "{expression}");
    }
    let nothing = "ab".repeat(32);
    let missing = [
        "mian",
        "main~3",
        &nothing,
        "abababab",
        "main@2000-01-01T00:00:00Z",
    ];
    for expression in missing {
        let error = resolve(&repository, expression).await.unwrap_err();
        assert!(
            matches!(error, Error::NotFound { .. }),
            "{expression} {error:?}"
        );
    }
}

#[tokio::test]
async fn branches_and_tags_share_names_and_tags_stay() {
    use RefKind::{Branch, Tag};
    let (_, repository) = repository().await;
    let head = resolve(&repository, "main").await.unwrap();
    let create = async |kind, text: &str| {
        let name = name(text);
        repository.create_ref(kind, &name, head, "test").await
    };
    create(Branch, "dev").await.unwrap();
    create(Tag, "v1").await.unwrap();
    for (kind, taken) in [(Tag, "dev"), (Branch, "v1"), (Branch, "main")] {
        let error = create(kind, taken).await.unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
    }
    let nothing: CommitId = "ab".repeat(32).parse().unwrap();
    let error = repository
        .create_ref(Branch, &name("x"), nothing, "test")
        .await;
    assert!(matches!(error, Err(Error::NotFound { .. })), "{error:?}");

    commit(&repository, "dev").await;
    assert_eq!(resolve(&repository, "v1").await.unwrap(), head);
    let on_a_tag = Transaction::begin(&repository, &name("v1")).await;
    assert!(on_a_tag.is_err());
    let waiting = Transaction::begin(&repository, &name("dev")).await.unwrap();
    let delete = async |kind, text: &str| repository.delete_ref(kind, &name(text), "test").await;
    delete(Branch, "dev").await.unwrap();
    for (kind, gone) in [(Branch, "dev"), (Branch, "v1"), (Tag, "main")] {
        let error = delete(kind, gone).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    }
    let error = waiting.commit(CommitOptions::default()).await;
    assert!(matches!(error, Err(Error::NotFound { .. })), "{error:?}");
}

#[tokio::test]
async fn a_branch_whose_commit_is_gone_is_data_loss() {
    let (watched, repository) = repository().await;
    let head = commit(&repository, "main").await;
    let key = storage::object_key(&head.0);
    watched.set_damage(Some((&key, Damage::Remove)));
    let repository = Repository::open(store(&watched)).await.unwrap();
    let found = resolve(&repository, "main").await.unwrap();
    let error = repository.snapshot(found).await.unwrap_err();
    let is_loss = matches!(&error, Error::Missing { key: gone } if *gone == key);
    assert!(is_loss, "{error:?}");
}

#[tokio::test]
async fn creators_at_the_same_time_make_one_repository() {
    for _ in 0..20 {
        let watched = Watched::new(Arc::new(InMemory::new()));
        let create = || Repository::create(store(&watched), "test");
        let (a, b) = tokio::join!(create(), create());
        let ids: Vec<_> = [a, b].into_iter().flatten().map(|made| made.id()).collect();
        assert!(!ids.is_empty() && ids.iter().all(|id| *id == ids[0]));
        let again = create().await;
        assert!(
            matches!(again, Err(Error::AlreadyExists { .. })),
            "{again:?}"
        );
        let repository = Repository::open(store(&watched)).await.unwrap();
        assert_eq!(repository.log(None, 10).await.unwrap().len(), 1);
    }
}

/// Requests a process makes to open the newest state, with nothing cached.
async fn requests_to_open(watched: &Watched) -> usize {
    watched.take_requests();
    let repository = Repository::open(store(watched)).await.unwrap();
    repository.head().await.unwrap();
    watched.take_requests().len()
}

/// Checks that opening and committing cost the same at these lengths of the log, each as far after
/// a checkpoint.
async fn check_costs(lengths: &[u64]) {
    let (watched, repository) = repository().await;
    let mut costs = Vec::new();
    for &length in lengths {
        assert_eq!(length % 128, 2);
        while repository.head().await.unwrap().next_sequence() < length {
            commit(&repository, "main").await;
        }
        let opened = requests_to_open(&watched).await;
        watched.take_requests();
        commit(&repository, "main").await;
        costs.push((opened, watched.take_requests().len()));
    }
    println!("requests to open and to commit at {lengths:?}: {costs:?}");
    assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
    assert!(costs[0].0 <= 24 && costs[0].1 <= 5, "{costs:?}");
}

#[tokio::test]
async fn the_cost_of_a_commit_and_of_opening_does_not_grow_with_history() {
    check_costs(&[130, 386, 1282]).await;
}

#[tokio::test]
#[ignore = "long"]
async fn nor_with_a_hundred_thousand_commits() {
    check_costs(&[130, 100_098]).await;
}

#[tokio::test]
async fn the_state_without_hint_and_checkpoints_is_the_same() {
    let (watched, repository) = repository().await;
    for _ in 0..300 {
        commit(&repository, "main").await;
    }
    let state = repository.head().await.unwrap();
    for gone in ["log/_hint.json", "checkpoints/00000000000000000256.json"] {
        watched.set_damage(Some((gone, Damage::Remove)));
        let repository = Repository::open(store(&watched)).await.unwrap();
        assert_eq!(repository.head().await.unwrap(), state, "without {gone}");
    }
}

#[tokio::test]
async fn the_next_writer_restores_a_missing_checkpoint() {
    let (watched, repository) = repository().await;
    for _ in 0..140 {
        commit(&repository, "main").await;
    }
    let key = "checkpoints/00000000000000000128.json";
    let objects = repository.store().clone();
    let written = objects.get(key).await.unwrap();
    assert!(written.is_some());
    objects.delete(vec![key.into()]).await.unwrap();
    let repository = Repository::open(store(&watched)).await.unwrap();
    repository.head().await.unwrap();
    assert_eq!(
        objects.get(key).await.unwrap(),
        None,
        "reading writes nothing"
    );
    commit(&repository, "main").await;
    assert_eq!(objects.get(key).await.unwrap(), written);
    let verified = repository.verify(&Scope::Everything).await.unwrap();
    assert_eq!(verified.damage, []);
}

#[tokio::test]
async fn asking_for_the_head_when_nothing_is_new_costs_one_request() {
    let (watched, repository) = repository().await;
    repository.head().await.unwrap();
    watched.take_requests();
    repository.head().await.unwrap();
    let requests = watched.take_requests();
    let is_one = matches!(requests.as_slice(), [Request::GetAbsent(_)]);
    assert!(is_one, "{requests:?}");
}

#[tokio::test]
async fn a_repository_that_was_deleted_takes_no_more_commits() {
    let (watched, repository) = repository().await;
    for _ in 0..3 {
        commit(&repository, "main").await;
    }
    let other = Repository::open(store(&watched)).await.unwrap();
    other.delete().await.unwrap();
    let write = async || {
        let transaction = Transaction::begin(&repository, &name("main")).await?;
        transaction.commit(CommitOptions::default()).await
    };
    let refused = write().await;
    assert!(
        matches!(refused, Err(Error::NotFound { .. })),
        "{refused:?}"
    );
    assert_eq!(store(&watched).list("log").await.unwrap(), []);

    // Nor does another one in its place, be its log as long or not.
    for length in [1, 4] {
        let made = Repository::create(store(&watched), "test").await.unwrap();
        while made.head().await.unwrap().next_sequence() < length {
            commit(&made, "main").await;
        }
        let refused = write().await;
        assert!(refused.is_err(), "{refused:?}");
        let deleted = repository
            .delete_ref(RefKind::Branch, &name("main"), "test")
            .await;
        assert!(deleted.is_err(), "{deleted:?}");
        let verified = made.verify(&Scope::Everything).await.unwrap();
        assert_eq!(verified.damage, []);
        made.delete().await.unwrap();
    }
}

#[tokio::test]
async fn a_repository_is_not_made_on_top_of_the_log_of_another() {
    let (watched, repository) = repository().await;
    commit(&repository, "main").await;
    store(&watched)
        .delete(vec!["repo.json".into()])
        .await
        .unwrap();
    let made = Repository::create(store(&watched), "test").await;
    assert!(matches!(made, Err(Error::Invalid { .. })), "{made:?}");
}
