//! Delivery over real sockets from real databases, and by processes that are killed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;

use super::logged::Logged;
use super::receiver::Receiver;
use super::*;
use crate::domain::record::ReleaseDecision;
use crate::store::rig::{
    Fresh, count, on_both, order, process_is_ready, process_store, start_process_with, system,
};
use crate::store::{Json, Store, Stored};
use crate::tasks::Backoff;

const URL: &str = "SLUICE_TEST_HOOK";

fn settings() -> CourierSettings {
    CourierSettings {
        poll: Duration::from_millis(20),
        lease: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        backoff: Backoff {
            base: Duration::from_millis(20),
            max: Duration::from_millis(200),
        },
        ..CourierSettings::default()
    }
}

fn courier(store: &Store, hook: Webhook, settings: CourierSettings) -> Courier {
    Courier::new(store.clone(), vec![hook], settings).unwrap()
}

fn decision(release: WorkOrderId, action: Value, state: &Release) -> ReleaseDecision {
    ReleaseDecision {
        work_order: release,
        at: Timestamp::now(),
        actor: "system: test".into(),
        kind: DecisionKind::Action,
        action: Some(Json(action)),
        reason: None,
        state: Json(serde_json::to_value(state).unwrap()),
        evidence: None,
    }
}

pub(super) fn row(release: WorkOrderId, action: Value, state: &Release) -> Stored<ReleaseDecision> {
    let now = Timestamp::now();
    Stored {
        id: ReleaseDecisionId::new(),
        version: 1,
        created_at: now,
        updated_at: now,
        deleted_at: None,
        record: decision(release, action, state),
    }
}

/// Begins step `step`, as the controller would write it.
async fn decide(
    store: &Store,
    release: WorkOrderId,
    id: ReleaseDecisionId,
    action: &Action,
) -> String {
    let now = Timestamp::now();
    let state = Release::new(now).after(action, now);
    let decision = decision(release, serde_json::to_value(action).unwrap(), &state);
    let mut tx = store.begin().await.unwrap();
    tx.create_as(&system(), id, decision).await.unwrap();
    tx.commit().await.unwrap();
    id.to_string()
}

fn enter(step: usize) -> Action {
    Action::Enter {
        step,
        share: Share::percent(5.0),
        shadow: Share::NONE,
    }
}

async fn enters(store: &Store, release: WorkOrderId, step: usize) -> String {
    decide(store, release, ReleaseDecisionId::new(), &enter(step)).await
}

/// Runs a courier until `test` is over.
async fn while_it_runs(courier: &Courier, test: impl Future<Output = ()>) {
    let wake = Notify::new();
    tokio::select! {
        () = courier.run(&wake, std::future::pending()) => panic!("it ended"),
        () = test => {}
    }
}

async fn until(mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .unwrap();
}

async fn is_known(store: &Store) {
    until(async || count(store, "SELECT COUNT(*) AS n FROM webhooks").await == 1).await;
}

async fn sent(store: &Store, number: i64) {
    let sql = "SELECT COUNT(*) AS n FROM webhook_deliveries";
    until(async || count(store, sql).await == number).await;
}

#[tokio::test]
async fn events_come_signed_in_order_and_again_after_a_failure() {
    let logged = Logged::default();
    let _guard = tracing::subscriber::set_default(logged.clone());
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let release = order(store, "helpdesk").await;
        let receiver = Arc::new(Receiver::start());
        let before = enters(store, release, 0).await;
        let courier = courier(store, webhook(&receiver.url, &[]), settings());
        while_it_runs(&courier, async {
            is_known(store).await;
            // No, a redirect, nothing in time, yes.
            receiver.answers(&[500, 302, 0, 200]);
            let (late, first) = (ReleaseDecisionId::new(), ReleaseDecisionId::new());
            let first = decide(store, release, first, &enter(1)).await;
            let second = enters(store, release, 2).await;
            for _ in 0..4 {
                let post = receiver.next().await;
                assert!(post.is_signed_with(KEY));
                assert_eq!(post.id(), first, "the next one waits");
                assert_eq!(post.path, "/hooks/sesame?token=sesame");
                assert_eq!(post.headers["content-type"], "application/json");
                let event = post.json();
                assert_eq!(event["type"], "release.step");
                assert_eq!(event["data"]["release"], release.to_string());
                assert_eq!(event["data"]["endpoint"], "helpdesk");
                let revision = event["data"]["candidate"].as_str().unwrap();
                assert!(
                    release
                        .to_string()
                        .ends_with(revision.strip_prefix("v1-").unwrap()),
                    "{event}"
                );
            }
            let post = receiver.next().await;
            assert!(post.is_signed_with(KEY) && !post.is_signed_with(b"some other key of others"));
            assert_eq!(post.id(), second);
            assert_ne!(post.id(), before, "from before it was known");
            // A transaction that commits late brings an id that is older than what was sent.
            let late = decide(store, release, late, &enter(3)).await;
            assert_eq!(receiver.next().await.id(), late);
            sent(store, 3).await;
        })
        .await;
        assert_eq!(receiver.rest(), 0, "what was taken is not sent again");
    })
    .await;
    let text = logged.text();
    for answer in [
        "answered 500",
        "answered 302",
        "operation timed out",
        "http://127.0.0.1:",
    ] {
        assert!(text.contains(answer), "{answer} is not logged");
    }
    let key = secret();
    for private in [&key, &key[6..], "sesame"] {
        let line = text
            .lines()
            .find(|line| line.contains(private) && line.contains("sluice"));
        assert_eq!(line, None, "{private} is logged");
    }
    assert!(!text.contains(&key[6..]), "by no library either");
}

#[tokio::test]
async fn a_hook_gets_what_it_asked_for_and_one_that_is_gone_nothing() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let release = order(store, "helpdesk").await;
        let receiver = Arc::new(Receiver::start());
        let hook = || webhook(&receiver.url, &["release.aborted", "release.started"]);
        let first = courier(store, hook(), settings());
        while_it_runs(&first, async {
            is_known(store).await;
            enters(store, release, 1).await;
            let aborted = decide(store, release, ReleaseDecisionId::new(), &Action::Abort).await;
            assert_eq!(receiver.next().await.id(), aborted);
            sent(store, 2).await;
            receiver.answers(&[410]);
            let started = enters(store, release, 0).await;
            assert_eq!(receiver.next().await.id(), started);
            let disabled = "SELECT COUNT(*) AS n FROM webhooks WHERE disabled_at IS NOT NULL";
            until(async || count(store, disabled).await == 1).await;
            assert_eq!(first.round(&hook()).await.unwrap(), Duration::from_secs(60));
        })
        .await;
        assert_eq!(receiver.rest(), 0);
        // A process that starts tries once more.
        while_it_runs(&courier(store, hook(), settings()), async {
            assert_eq!(receiver.next().await.json()["type"], "release.started");
            sent(store, 3).await;
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn what_is_too_old_is_given_up_and_the_next_is_sent() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let release = order(store, "helpdesk").await;
        let receiver = Arc::new(Receiver::start());
        let settings = CourierSettings {
            give_up: Duration::from_millis(300),
            ..settings()
        };
        while_it_runs(
            &courier(store, webhook(&receiver.url, &[]), settings),
            async {
                is_known(store).await;
                receiver.answers(&[503; 1000]);
                let old = enters(store, release, 0).await;
                assert_eq!(receiver.next().await.id(), old);
                // Given up.
                sent(store, 1).await;
                receiver.rest();
                receiver.forget_answers();
                let new = enters(store, release, 1).await;
                until(async || receiver.next().await.id() == new).await;
            },
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn of_many_processes_one_sends() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let release = order(store, "helpdesk").await;
        let receiver = Arc::new(Receiver::start());
        let couriers = [store.clone(), fresh.again().await, fresh.again().await]
            .map(|store| courier(&store, webhook(&receiver.url, &[]), settings()));
        let wake = Notify::new();
        let all = futures_util::future::join_all(
            couriers
                .iter()
                .map(|it| it.run(&wake, std::future::pending())),
        );
        let test = async {
            is_known(store).await;
            let mut expected = Vec::new();
            for step in 0..20 {
                expected.push(enters(store, release, step).await);
            }
            let mut found = Vec::new();
            for _ in 0..20 {
                found.push(receiver.next().await.id().to_owned());
            }
            assert_eq!(found, expected);
            sent(store, 20).await;
            assert_eq!(receiver.rest(), 0, "each once");
        };
        tokio::select! {
            _ = all => panic!("they ended"),
            () = test => {}
        }
    })
    .await;
}

/// Killed after the post has arrived and before it is written that it has.
#[tokio::test]
async fn what_a_killed_process_had_posted_is_posted_again() {
    on_both(async |fresh: Arc<Fresh>| {
        let store = &fresh.store;
        let release = order(store, "helpdesk").await;
        let receiver = Arc::new(Receiver::start());
        let mut tx = store.begin().await.unwrap();
        tx.know_webhook(&webhook(&receiver.url, &[]).id)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        receiver.answers(&[0]);
        let first = enters(store, release, 0).await;
        let second = enters(store, release, 1).await;
        let mut child = start_process_with(
            "release::webhook::tests::deliver::process_that_sends",
            &fresh.url,
            &[(URL, &receiver.url)],
        );
        assert_eq!(receiver.next().await.id(), first);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            count(store, "SELECT COUNT(*) AS n FROM webhook_deliveries").await,
            0
        );
        while_it_runs(
            &courier(store, webhook(&receiver.url, &[]), settings()),
            async {
                assert_eq!(receiver.next().await.id(), first, "at least once");
                assert_eq!(receiver.next().await.id(), second);
                sent(store, 2).await;
            },
        )
        .await;
    })
    .await;
}

#[tokio::test]
#[ignore = "a process for other tests"]
async fn process_that_sends() {
    let Some(store) = process_store().await else {
        return;
    };
    let hook = webhook(&std::env::var(URL).unwrap(), &[]);
    let settings = CourierSettings {
        timeout: Duration::from_secs(100),
        ..settings()
    };
    process_is_ready();
    courier(&store, hook, settings)
        .run(&Notify::new(), std::future::pending())
        .await;
}

#[test]
fn a_decision_is_one_line_in_the_log() {
    let logged = Logged::default();
    let now = Timestamp::now();
    let release = WorkOrderId::new();
    let why = Why::Breach("error, at most 0.01: 9 of 100".into());
    let actions = [
        enter(0),
        Action::Wait { until: None },
        Action::RollBack { why },
    ];
    tracing::subscriber::with_default(logged.clone(), || {
        let mut state = Release::new(now);
        for action in &actions {
            state = state.after(action, now);
            log(
                release,
                "helpdesk",
                DecisionKind::Action,
                Some(action),
                &state,
                "analysis",
            );
        }
    });
    let text = logged.text();
    let lines: Vec<&str> = text.trim().lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let started = format!(
        "message=release release={release} endpoint=\"helpdesk\" action=\"release.started\""
    );
    assert!(
        lines[0].starts_with("INFO") && lines[0].contains(&started),
        "{text}"
    );
    assert!(lines[0].contains("weight=5.0"), "{text}");
    assert!(
        lines[1].starts_with("WARN") && lines[1].contains("9 of 100"),
        "{text}"
    );
}
