#![expect(clippy::unwrap_used, reason = "tests")]

mod journal;
mod kill;

use std::sync::Arc;

use super::*;
use crate::deploy::tests::rig::*;
use crate::domain::record::{ApiKey, Scope};
use crate::store::rig::{Fresh, on_both};
use crate::store::{Actor, Store, UsageFilter, UsageGroup};

async fn requests(store: &Store) -> i64 {
    let sums = store.usage(&UsageFilter::default(), None).await.unwrap();
    sums[0].amounts.requests
}

/// The observer hands a request on when its answer has left; it looks every 20 ms.
async fn until_tallied(ledger: &Ledger, store: &Store, count: i64) {
    while requests(store).await < count {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        ledger.flush();
        ledger.send(store).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_become_lines_with_whose_and_of_what() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let folder = tempfile::tempdir().unwrap();
        let mut config = sluice_gateway::config::Config::default();
        config.auth.required = true;
        let keys = folder.path().join("keys.toml");
        let hash = "0".repeat(64);
        std::fs::write(
            &keys,
            format!("[[key]]\nname = \"ops\"\nsha256 = \"{hash}\"\n"),
        )
        .unwrap();
        config.auth.keys_file = Some(keys);
        let rig = Rig::with(store, u64::MAX, config, tempfile::tempdir().unwrap()).await;
        let people = people(store).await;
        let product = product(store, &people).await;
        let at = deployment(store, &people, &product, "helpdesk", small()).await;
        let v1 = passed(store, &people, &product, "v1").await;
        rig.deploy(&people, &at, v1).await;
        let principal = people.developer.actor.principal.unwrap();
        let scopes = vec![Scope::Inference];
        let key = store
            .issue_key(&Actor::system("test"), principal, "laptop", scopes, None)
            .await
            .unwrap();
        let idle = store
            .issue_key(
                &Actor::system("test"),
                principal,
                "tablet",
                vec![Scope::Inference],
                None,
            )
            .await
            .unwrap();
        rig.publisher.tick().await;
        let settings = LedgerSettings::default();
        let ledger = Ledger::open(folder.path().join("usage"), settings).unwrap();
        rig.gateway.observer().tell(ledger.tally());
        for _ in 0..3 {
            assert_eq!(rig.chat("helpdesk", Some(&key.secret)).await.0, 200);
        }
        assert_eq!(rig.chat("nothing", Some(&key.secret)).await.0, 404);
        // Shown, and nothing used: it is seen all the same.
        assert_eq!(rig.chat("nothing", Some(&idle.secret)).await.0, 404);
        until_tallied(&ledger, store, 3).await;
        for id in [key.key.id, idle.key.id] {
            while store
                .get::<ApiKey>(id)
                .await
                .unwrap()
                .last_used_at
                .is_none()
            {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                ledger.send(store).await.unwrap();
            }
        }
        let page = store
            .usage_entries(&UsageFilter::default(), None, 10)
            .await
            .unwrap();
        let first = &page.items[0];
        assert_eq!(first.department, people.department.to_string());
        assert_eq!(first.principal, principal.to_string());
        assert_eq!(first.api_key, key.key.id.to_string());
        assert_eq!(first.deployment, at.id.to_string());
        assert_eq!(first.model_version, v1.to_string());
        assert_eq!(first.status, 200);
        assert!(first.amounts.cpu_us > 0 && first.amounts.latency_us >= first.amounts.cpu_us);
        let by = store
            .usage(&UsageFilter::default(), Some(UsageGroup::ModelVersion))
            .await
            .unwrap();
        assert_eq!(by.len(), 1);
        assert_eq!(
            by[0].amounts.requests, 3,
            "nobody's request is nobody's use"
        );
        assert_eq!(by[0].amounts.output_tokens, 12);
    })
    .await;
}

#[tokio::test]
async fn a_full_tally_counts_what_it_drops() {
    let ledger = Ledger::open(
        tempfile::tempdir().unwrap().keep(),
        LedgerSettings {
            max_waiting: 0,
            ..LedgerSettings::default()
        },
    )
    .unwrap();
    assert_eq!(ledger.state().dropped, 0);
    let fresh = Fresh::sqlite().await;
    let rig = Rig::new(&fresh.store).await;
    let people = people(&fresh.store).await;
    let product = product(&fresh.store, &people).await;
    let elsewhere = serde_json::json!({"upstream": "http://127.0.0.1:9/v1"});
    let at = deployment(&fresh.store, &people, &product, "remote", elsewhere).await;
    let verdict = crate::domain::Verdict::Passed;
    let id = version(&fresh.store, &people, &product, "sha256:aa", verdict).await;
    rig.deploy(&people, &at, id).await;
    rig.gateway.observer().tell(ledger.tally());
    assert_eq!(rig.chat("remote", None).await.0, 502);
    while ledger.state().dropped == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        ledger.flush();
    }
    assert_eq!(ledger.state().waiting_bytes, 0);
}
