#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::rig::{Fresh, on_both};
use super::*;
use crate::id::Id as _;
use crate::store::Store;

fn entry(at: i64, department: &str, deployment: &str, status: i64, tokens: i64) -> UsageEntry {
    UsageEntry {
        id: UsageId::new(),
        at: Timestamp::from_micros(at),
        department: department.into(),
        principal: "usr_a".into(),
        api_key: String::new(),
        deployment: deployment.into(),
        model_version: String::new(),
        request: String::new(),
        status,
        amounts: Amounts {
            requests: 1,
            input_tokens: tokens,
            output_tokens: 1,
            ..Amounts::default()
        },
    }
}

async fn record(store: &Store, entries: &[UsageEntry]) {
    let mut tx = store.begin().await.unwrap();
    tx.record_usage(entries).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn sums_are_those_of_the_ledger_whatever_is_sent_again() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let entries: Vec<_> = (0..1200)
            .map(|n| {
                let (department, deployment) =
                    ([("dep_a", "dpl_x"), ("dep_b", "dpl_x"), ("dep_b", "dpl_y")])[n % 3];
                entry(
                    n as i64 * HOUR_US / 10,
                    department,
                    deployment,
                    if n % 4 == 0 { 503 } else { 200 },
                    n as i64,
                )
            })
            .collect();
        record(store, &entries[..700]).await;
        // A crash made it uncertain what had arrived: all of it comes again, and one of it twice.
        let again: Vec<_> = entries.iter().chain(&entries[1199..]).cloned().collect();
        record(store, &again).await;
        record(store, &[]).await;

        let tokens = |wanted: &dyn Fn(&UsageEntry) -> bool| -> i64 {
            entries
                .iter()
                .filter(|entry| wanted(entry))
                .map(|entry| entry.amounts.input_tokens)
                .sum()
        };
        let whole = store.usage(&UsageFilter::default(), None).await.unwrap();
        assert_eq!(whole.len(), 1);
        assert_eq!((whole[0].amounts.requests, whole[0].errors), (1200, 300));
        assert_eq!(whole[0].amounts.input_tokens, tokens(&|_| true));

        let by = store
            .usage(&UsageFilter::default(), Some(UsageGroup::Department))
            .await
            .unwrap();
        let lines: Vec<_> = by
            .iter()
            .map(|line| (line.group.as_str(), line.amounts.input_tokens))
            .collect();
        let expected =
            ["dep_a", "dep_b"].map(|name| (name, tokens(&|entry| entry.department == name)));
        assert_eq!(lines, expected);

        let days = store
            .usage(&UsageFilter::default(), Some(UsageGroup::Day))
            .await
            .unwrap();
        let starts: Vec<&str> = days.iter().map(|line| &line.group[..13]).collect();
        assert_eq!(
            starts,
            [
                "1970-01-01T00",
                "1970-01-02T00",
                "1970-01-03T00",
                "1970-01-04T00",
                "1970-01-05T00"
            ]
        );
        assert_eq!(days[0].amounts.requests, 240);
        assert_eq!(
            store
                .usage(&UsageFilter::default(), Some(UsageGroup::Hour))
                .await
                .unwrap()
                .len(),
            120
        );

        let part = UsageFilter {
            from: Some(Timestamp::from_micros(24 * HOUR_US)),
            until: Some(Timestamp::from_micros(72 * HOUR_US)),
            deployment: Some("dpl_y".into()),
            ..UsageFilter::default()
        };
        let sum = store.usage(&part, None).await.unwrap()[0]
            .amounts
            .input_tokens;
        assert_eq!(
            sum,
            tokens(&|entry| entry.deployment == "dpl_y"
                && (24..72).contains(&(entry.at.as_micros() / HOUR_US)))
        );
        let nothing = UsageFilter {
            department: Some("dep_none".into()),
            ..UsageFilter::default()
        };
        assert_eq!(
            store.usage(&nothing, None).await.unwrap()[0].amounts,
            Amounts::default()
        );
    })
    .await;
}

#[tokio::test]
async fn an_hour_of_a_department_says_what_the_hours_of_its_deployments_do() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let entries: Vec<_> = (0..300)
            .map(|n| {
                let (department, deployment) =
                    ([("dep_a", "dpl_x"), ("dep_b", "dpl_x"), ("dep_b", "dpl_y")])[n % 3];
                let status = if n % 4 == 0 { 503 } else { 200 };
                entry(
                    n as i64 * HOUR_US / 10,
                    department,
                    deployment,
                    status,
                    n as i64,
                )
            })
            .collect();
        record(store, &entries).await;
        for department in [None, Some("dep_b".to_owned())] {
            let all = UsageFilter {
                department: department.clone(),
                ..UsageFilter::default()
            };
            let mut told_apart = Vec::new();
            for deployment in ["dpl_x", "dpl_y"] {
                let one = UsageFilter {
                    deployment: Some(deployment.into()),
                    ..all.clone()
                };
                told_apart.extend(store.usage(&one, Some(UsageGroup::Hour)).await.unwrap());
            }
            let hours = store.usage(&all, Some(UsageGroup::Hour)).await.unwrap();
            assert_eq!(hours.len(), 30);
            for whole in hours {
                let parts = told_apart.iter().filter(|it| it.group == whole.group);
                let (amounts, errors) = parts
                    .fold((Amounts::default(), 0), |(amounts, errors), part| {
                        (amounts.plus(part.amounts), errors + part.errors)
                    });
                assert_eq!((whole.amounts, whole.errors), (amounts, errors));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_ledger_is_read_newest_first_page_by_page() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let entries: Vec<_> = (0..25)
            .map(|n| entry(n, "dep_a", "dpl_x", 200, n))
            .collect();
        record(store, &entries).await;
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = store
                .usage_entries(&UsageFilter::default(), after.as_deref(), 10)
                .await
                .unwrap();
            seen.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert!(seen.iter().eq(entries.iter().rev()));
        let refused = store
            .usage_entries(&UsageFilter::default(), Some("' OR 1=1"), 10)
            .await;
        assert!(matches!(refused, Err(StoreError::Invalid { .. })));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_the_same_hours_add_up() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let writers: Vec<_> = (0..6)
            .map(|writer| {
                let store = fresh.store.clone();
                tokio::spawn(async move {
                    for _ in 0..10 {
                        // Each in an order of its own: they must not wait for each other in a circle.
                        let mut hours: Vec<i64> = (0..5).collect();
                        hours.rotate_left(writer % 5);
                        let entries: Vec<_> = hours
                            .iter()
                            .map(|hour| entry(hour * HOUR_US, "dep_a", "dpl_x", 200, 1))
                            .collect();
                        record(&store, &entries).await;
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let sum = fresh
            .store
            .usage(&UsageFilter::default(), None)
            .await
            .unwrap();
        assert_eq!(sum[0].amounts.requests, 300);
    })
    .await;
}
