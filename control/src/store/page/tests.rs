#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::rig::{Fresh, on_both, system};
use super::super::tests::department;
use super::*;
use crate::domain::record::{Department, Model};

async fn walk(store: &Store, listing: &Listing<Department>) -> Vec<String> {
    let mut names = Vec::new();
    let mut cursor = None;
    loop {
        let page = store.list(&listing.clone().after(cursor)).await.unwrap();
        assert!(page.items.len() <= 7);
        names.extend(page.items.iter().map(|it| it.name.clone()));
        cursor = page.next;
        if cursor.is_none() {
            return names;
        }
    }
}

#[tokio::test]
async fn pages_neither_repeat_nor_skip_while_rows_come_and_go() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let mut made = Vec::new();
        for n in 0..30 {
            made.push(
                store
                    .create(&system(), department(&format!("d{n:02}")))
                    .await
                    .unwrap(),
            );
        }
        let listing = Listing::<Department>::new().limit(7);
        let forwards = walk(store, &listing.clone().oldest_first()).await;
        assert_eq!(
            forwards,
            made.iter().map(|it| it.name.clone()).collect::<Vec<_>>()
        );
        let backwards = walk(store, &listing).await;
        assert!(backwards.iter().eq(forwards.iter().rev()));

        let first = store.list(&listing).await.unwrap();
        store.create(&system(), department("new")).await.unwrap();
        // One of the page that was read goes, the very one that the cursor names; and one that is to come.
        store
            .delete::<Department>(&system(), first.items[6].id, None)
            .await
            .unwrap();
        store
            .delete::<Department>(&system(), made[20].id, None)
            .await
            .unwrap();
        let second = store
            .list(&listing.clone().after(first.next))
            .await
            .unwrap();
        let names: Vec<&str> = second.items.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["d22", "d21", "d19", "d18", "d17", "d16", "d15"]);
    })
    .await;
}

#[tokio::test]
async fn a_cursor_belongs_to_its_kind_and_order() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        for n in 0..3 {
            store
                .create(&system(), department(&format!("{n}")))
                .await
                .unwrap();
        }
        let next = store
            .list(&Listing::<Department>::new().limit(1))
            .await
            .unwrap()
            .next;
        assert!(next.is_some());
        let refused =
            |error| matches!(error, Err(StoreError::Invalid { field, .. }) if field == "cursor");
        let turned = Listing::<Department>::new()
            .oldest_first()
            .after(next.clone());
        assert!(refused(store.list(&turned).await.map(|_| ())));
        assert!(refused(
            store
                .list(&Listing::<Model>::new().after(next))
                .await
                .map(|_| ())
        ));
        for forged in ["", "AAAA", "not base64!", "LScgT1IgMT0x"] {
            let listing = Listing::<Department>::new().after(Some(forged.into()));
            assert!(refused(store.list(&listing).await.map(|_| ())), "{forged}");
        }
    })
    .await;
}

#[tokio::test]
async fn conditions_all_have_to_hold() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let mut instants = Vec::new();
        for name in ["Alpha", "beta", "alphabet"] {
            instants.push(
                store
                    .create(&system(), department(name))
                    .await
                    .unwrap()
                    .created_at,
            );
        }
        let count =
            async |listing: Listing<Department>| store.list(&listing).await.unwrap().items.len();
        let all = Listing::<Department>::new;
        assert_eq!(count(all().contains("name", "ALPHA")).await, 2);
        assert_eq!(
            count(all().is_one_of("name", &["beta".to_owned(), "Alpha".to_owned()])).await,
            2
        );
        assert_eq!(count(all().is_one_of::<String>("name", &[])).await, 0);
        assert_eq!(count(all().is_null("deleted_at")).await, 3);
        assert_eq!(count(all().at_least("created_at", &instants[1])).await, 2);
        assert_eq!(
            count(
                all()
                    .below("created_at", &instants[1])
                    .contains("name", "alpha")
            )
            .await,
            1
        );
        assert_eq!(count(all().is_if("name", None::<&String>)).await, 3);
    })
    .await;
}

#[tokio::test]
async fn a_page_has_a_size() {
    let fresh = Fresh::sqlite().await;
    for limit in [0, MAX_LIMIT + 1] {
        let refused = fresh
            .store
            .list(&Listing::<Department>::new().limit(limit))
            .await
            .unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("limit: is {limit}, should be 1 to 500")
        );
    }
}
