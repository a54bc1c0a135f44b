#![expect(clippy::unwrap_used, reason = "tests")]

mod outage;

use std::sync::Arc;

use sluice_gateway::config::Config;

use super::*;
use crate::deploy::tests::rig::*;
use crate::deploy::{Caller, tests::Rig};
use crate::domain::record::{Quota, Scope};
use crate::quota::Quotas;
use crate::sandbox::in_process::InProcess;
use crate::store::Actor;
use crate::store::rig::{Fresh, on_both};

fn with_keys() -> Config {
    let mut config = Config::default();
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        keys.path(),
        format!("[[key]]\nname = \"ops\"\nsha256 = \"{}\"\n", "0".repeat(64)),
    )
    .unwrap();
    config.auth.required = true;
    // Read once, when the gateway is made.
    config.auth.keys_file = Some(keys.into_temp_path().keep().unwrap());
    config
}

async fn key(store: &crate::store::Store, caller: &Caller, scopes: Vec<Scope>) -> String {
    let principal = caller.actor.principal.unwrap();
    let actor = Actor::system("test");
    let issued = store.issue_key(&actor, principal, "laptop", scopes, None);
    issued.await.unwrap().secret
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_published_is_served_after_a_restart_without_a_database() {
    let fresh = Fresh::sqlite().await;
    let store = &fresh.store;
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::with(store, u64::MAX, with_keys(), folder).await;
    let people = people(store).await;
    let product = product(store, &people).await;
    let at = deployment(store, &people, &product, "helpdesk", small()).await;
    let v1 = passed(store, &people, &product, "v1").await;
    rig.deploy(&people, &at, v1).await;
    let secret = key(store, &people.developer, vec![Scope::Inference]).await;
    rig.publisher.tick().await;
    let (status, revision) = rig.chat("helpdesk", Some(&secret)).await;
    assert_eq!(status, 200);
    let file = rig.data.path().join("control/publish.json");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(&secret));
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // The next process finds nobody to ask: neither database nor artifact store.
    let next = Rig::with(store, u64::MAX, with_keys(), tempfile::tempdir().unwrap()).await;
    let replicas = crate::deploy::Replicas::new(
        Arc::clone(&next.gateway),
        Arc::new(Folders::default()),
        u64::MAX,
    );
    let file = SnapshotFile::in_folder(rig.data.path().join("control"));
    let publisher = Publisher::new(
        Arc::clone(&next.gateway),
        replicas,
        Arc::new(InProcess(Arc::clone(&next.gateway))),
        file,
    );
    publisher.restore().await;
    publisher.tick().await;
    assert_eq!(
        next.chat("helpdesk", Some(&secret)).await,
        (status, revision)
    );
    assert_eq!(next.chat("helpdesk", Some("sk-wrong")).await.0, 401);

    // And when the database is there, it is followed.
    store
        .delete::<crate::domain::record::ApiKey>(
            &Actor::system("test"),
            store
                .keys_in_force(crate::time::Timestamp::now())
                .await
                .unwrap()[0]
                .key
                .id,
            None,
        )
        .await
        .unwrap();
    publisher.follow(store.clone());
    publisher.tick().await;
    assert_eq!(next.chat("helpdesk", Some(&secret)).await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_live_and_not_served_is_not_unknown() {
    let fresh = Fresh::sqlite().await;
    let store = &fresh.store;
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::with(store, u64::MAX, with_keys(), folder).await;
    let people = people(store).await;
    let product = product(store, &people).await;
    let at = deployment(store, &people, &product, "helpdesk", small()).await;
    let v1 = passed(store, &people, &product, "v1").await;
    rig.deploy(&people, &at, v1).await;
    let secret = key(store, &people.developer, vec![Scope::Inference]).await;
    rig.publisher.tick().await;
    assert_eq!(rig.chat("helpdesk", Some(&secret)).await.0, 200);

    // The next process on this machine, killed and started: what it will serve is known before it is loaded.
    let next = Rig::with(store, u64::MAX, with_keys(), tempfile::tempdir().unwrap()).await;
    let starting = |file: SnapshotFile| {
        let nowhere = Arc::new(Folders::default());
        let replicas = crate::deploy::Replicas::new(Arc::clone(&next.gateway), nowhere, u64::MAX);
        let hosts = Arc::new(InProcess(Arc::clone(&next.gateway)));
        Publisher::new(Arc::clone(&next.gateway), replicas, hosts, file)
    };
    starting(SnapshotFile::in_folder(rig.data.path().join("control"))).expect_kept();
    for (model, status) in [("helpdesk", 503), ("unknown", 404)] {
        let (found, _, answer) = next.ask(model, Some(&secret)).await;
        assert_eq!(found, status, "{model}: {:?}", answer.body());
        let later = answer.headers().contains_key("retry-after");
        assert_eq!(later, status == 503);
    }

    // On another machine nothing is known before the records were read, and so no name is unknown.
    let elsewhere = tempfile::tempdir().unwrap();
    let publisher = starting(SnapshotFile::in_folder(elsewhere.path().join("control")));
    next.gateway
        .expect(sluice_gateway::router::Source::Control, Vec::new());
    publisher.expect_kept();
    assert_eq!(next.chat("unknown", Some(&secret)).await.0, 503);
    // The bytes are not there: that is said, of this model, until they are.
    publisher.follow(store.clone());
    publisher.tick().await;
    let absent = next.gateway.absent();
    assert_eq!(absent.len(), 1, "{absent:?}");
    assert_eq!(&*absent[0].name, "helpdesk");
    assert!(matches!(
        absent[0].why,
        sluice_gateway::absent::Absence::Failed(_)
    ));
    assert_eq!(next.chat("helpdesk", Some(&secret)).await.0, 503);
    assert_eq!(next.chat("unknown", Some(&secret)).await.0, 404);
}

#[tokio::test]
async fn keys_follow_the_records_and_share_quotas() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let rig = Rig::with(store, u64::MAX, with_keys(), tempfile::tempdir().unwrap()).await;
        let people = people(store).await;
        let quotas = Quotas::new(store.clone(), Arc::clone(&rig.wake));
        let limits = Quota {
            department: Some(people.department),
            requests_per_month: Some(3),
            ..Quota::default()
        };
        quotas
            .set(&people.operator, None, limits.clone())
            .await
            .unwrap();
        let first = key(store, &people.developer, vec![Scope::Inference]).await;
        let second = key(store, &people.approver, vec![Scope::Inference]).await;
        let reader = key(store, &people.operator, vec![Scope::Read]).await;
        rig.publisher.tick().await;
        // There is no such model, which is counted all the same.
        for key in [&first, &second, &first] {
            assert_eq!(rig.chat("nothing", Some(key)).await.0, 404);
        }
        let (status, _, answer) = rig.ask("nothing", Some(&second)).await;
        assert_eq!(status, 429);
        let text = std::str::from_utf8(answer.body()).unwrap();
        assert!(
            text.contains("3 requests per month of the quota of department helpdesk"),
            "{text}"
        );
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert!(header("retry-after").parse::<u64>().unwrap() > 0);
        assert_eq!(header("x-ratelimit-limit-requests"), "3");
        assert_eq!(header("x-ratelimit-remaining-requests"), "0");

        // An edit is no amnesty: what was used stays used.
        let more = Quota {
            requests_per_month: Some(4),
            ..limits
        };
        quotas.set(&people.operator, None, more).await.unwrap();
        rig.publisher.tick().await;
        assert_eq!(rig.chat("nothing", Some(&reader)).await.0, 404);
        assert_eq!(rig.chat("nothing", Some(&first)).await.0, 429);
    })
    .await;
}
