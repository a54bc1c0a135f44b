#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::Listing;
use super::super::rig::{Fresh, count, on_both, order};
use super::*;
use crate::release::agreement::compare;
use crate::release::agreement::tests::{answer, pair};
use crate::release::sample::record;

fn kept(release: WorkOrderId, candidate: &str, draw: i64) -> ReleasePair {
    let pair = pair(answer("Sesame seeds."), answer(candidate));
    record(release, &pair, &compare(&pair).unwrap(), draw)
}

#[tokio::test]
async fn a_release_keeps_so_many_pairs_and_none_of_them_is_in_the_audit_log() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let (release, other) = (order(store, "a").await, order(store, "b").await);
        let add = async |release, pairs| {
            let mut tx = store.begin().await.unwrap();
            let left = tx.add_release_pairs(release, pairs, 4).await.unwrap();
            tx.commit().await.unwrap();
            left
        };
        let agreeing = (0..6).map(|draw| kept(release, "Sesame seeds.", draw)).collect();
        assert_eq!(add(release, agreeing).await, 4);
        assert_eq!(add(other, vec![kept(other, "Sesame seeds.", 0)]).await, 1);
        // Two of them go for those that disagree, and of these the last.
        let disagreeing = [9, 8, 7].map(|draw| kept(release, "No.", draw)).into();
        assert_eq!(add(release, disagreeing).await, 4);
        let mut tx = store.begin().await.unwrap();
        assert_eq!(tx.add_release_pairs(release, Vec::new(), 200).await.unwrap(), 4);
        drop(tx);

        let of = |agrees: bool| Listing::<ReleasePair>::new().is("work_order", &release).is("agrees", &agrees);
        for (agrees, draws) in [(true, [0, 1]), (false, [7, 8])] {
            let page = store.list(&of(agrees)).await.unwrap();
            let mut found: Vec<i64> = page.items.iter().map(|pair| pair.draw).collect();
            found.sort_unstable();
            assert_eq!(found, draws);
            let expected = kept(release, if agrees { "Sesame seeds." } else { "No." }, page.items[0].draw);
            assert_eq!(page.items[0].record, expected);
        }
        let leaked = "SELECT COUNT(*) AS n FROM audit_events WHERE after_json LIKE '%Sesame%' OR before_json LIKE '%Sesame%'";
        assert_eq!(count(store, leaked).await, 0);

        assert_eq!(store.forget_release_pairs(Timestamp::now()).await.unwrap(), 5);
        assert!(store.list(&of(true)).await.unwrap().items.is_empty());
    })
    .await;
}

#[tokio::test]
async fn pairs_of_no_release_are_refused() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let nobody = WorkOrderId::new();
        let mut tx = fresh.store.begin().await.unwrap();
        let refused = tx
            .add_release_pairs(nobody, vec![kept(nobody, "x", 1)], 4)
            .await;
        assert!(matches!(refused, Err(StoreError::Reference)), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn the_keeper_writes_what_chance_keeps_and_no_more() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let release = order(store, "a").await;
        let (keeper, writer) = crate::release::sample::PairKeeper::new(6, std::time::Duration::MAX);
        let mut shadow = pair(answer("Sesame seeds."), answer("No."));
        shadow.ended = std::time::SystemTime::now();
        let agreement = compare(&shadow).unwrap();
        for _ in 0..50 {
            keeper.offer(release, &shadow, &agreement);
        }
        drop(keeper);
        writer.run(store, std::future::pending()).await;
        let page = store.list(&Listing::<ReleasePair>::new()).await.unwrap();
        assert_eq!(page.items.len(), 6);
        assert!(
            page.items
                .iter()
                .all(|pair| pair.work_order == release && !pair.agrees)
        );
    })
    .await;
}
