#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::rig::{Fresh, on_both, system};
use super::*;
use crate::domain::record::Department;
use crate::store::Listing;

async fn make(store: &Store, name: &str) -> Result<(), StoreError> {
    let department = Department {
        name: name.into(),
        description: String::new(),
    };
    store.create(&system(), department).await.map(drop)
}

async fn names(store: &Store) -> Vec<String> {
    let listing = Listing::<Department>::new().oldest_first();
    let found = store.list(&listing).await.unwrap();
    found.items.into_iter().map(|it| it.record.name).collect()
}

#[tokio::test]
async fn parts_are_committed_together() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let whole = store.whole().await.unwrap();
        make(&whole, "a").await.unwrap();
        make(&whole, "b").await.unwrap();
        assert_eq!(names(&whole).await, ["a", "b"]);
        assert_eq!(names(store).await, Vec::<String>::new());
        let late = whole.clone();
        store.commit_whole(whole).await.unwrap();
        assert_eq!(names(store).await, ["a", "b"]);
        assert!(make(&late, "c").await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_part_that_fails_leaves_the_others() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let whole = store.whole().await.unwrap();
        make(&whole, "a").await.unwrap();
        // PostgreSQL takes nothing more in a transaction after an error, unless that is undone.
        let taken = make(&whole, "a").await;
        assert!(
            matches!(taken, Err(StoreError::Conflict { .. })),
            "{taken:?}"
        );
        let mut given_up = whole.begin().await.unwrap();
        let department = Department {
            name: "given up".into(),
            description: String::new(),
        };
        given_up.create(&system(), department).await.unwrap();
        drop(given_up);
        make(&whole, "b").await.unwrap();
        store.commit_whole(whole).await.unwrap();
        assert_eq!(names(store).await, ["a", "b"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_undone_or_dropped_leaves_no_trace() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let whole = store.whole().await.unwrap();
        make(&whole, "a").await.unwrap();
        store.undo_whole(whole).await.unwrap();
        let whole = store.whole().await.unwrap();
        make(&whole, "b").await.unwrap();
        drop(whole);
        make(store, "c").await.unwrap();
        assert_eq!(names(store).await, ["c"]);
    })
    .await;
}
