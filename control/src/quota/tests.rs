#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Instant;

use sluice_gateway::limits::quota::QuotaLimits;

use super::*;
use crate::deploy::tests::rig::people;
use crate::id::{Id as _, UsageId};
use crate::store::rig::{Fresh, on_both};
use crate::store::{Amounts, UsageEntry};

#[test]
fn a_month_ends_where_the_next_begins() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    for (now, end) in [
        ("2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z"),
        ("2028-02-29T12:00:00Z", "2028-03-01T00:00:00Z"),
        ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
    ] {
        let end = u64::try_from(at(end).as_micros() / 1_000_000).unwrap();
        assert_eq!(month_end(at(now)), end, "{now}");
    }
}

#[tokio::test]
async fn a_months_counts_begin_with_the_ledger() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let people = people(store).await;
        let entry = |at: Timestamp, department: String| UsageEntry {
            id: UsageId::new(),
            at,
            department,
            principal: String::new(),
            api_key: String::new(),
            deployment: String::new(),
            model_version: String::new(),
            request: String::new(),
            status: 200,
            amounts: Amounts {
                requests: 2,
                input_tokens: 30,
                output_tokens: 4,
                ..Amounts::default()
            },
        };
        let now = Timestamp::now();
        let last_month = now.start_of_month().before(Duration::from_secs(1));
        let mine = people.department.to_string();
        let entries = [
            entry(now, mine.clone()),
            entry(now, mine.clone()),
            entry(last_month, mine),
            entry(now, "dep_other".into()),
        ];
        let mut tx = store.begin().await.unwrap();
        tx.record_usage(&entries).await.unwrap();
        tx.commit().await.unwrap();
        let limits = QuotaLimits {
            month_requests: Some(100),
            ..QuotaLimits::default()
        };
        let counter = Arc::new(Counter::new("q", limits, Instant::now()));
        let quota = Quota {
            department: Some(people.department),
            ..Quota::default()
        };
        begin_month([&counter].into_iter());
        read_books(store, [(&quota, &counter)].into_iter())
            .await
            .unwrap();
        assert_eq!(counter.used(), (4, 68));
    })
    .await;
}
