//! Who and what is let through.

use serde_json::json;

use super::super::*;
use super::rig::*;
use crate::domain::Verdict;
use crate::domain::gate::{Missing, Requirement};
use crate::domain::model_version::{ModelVersionEvent, ModelVersionState};
use crate::domain::record::{
    Dataset, Deployment, EvaluationRun, ModelVersion, Quota, StepStatus, WorkOrder,
};
use crate::domain::secrecy::Secrecy;
use crate::domain::work_order::{WorkOrderEvent, WorkOrderState};
use crate::quota::Quotas;
use crate::store::rig::{Fresh, on_both};
use crate::store::{AuditFilter, Json, StoreError};
use crate::time::Timestamp;

/// Other servers' model: an order for it needs nothing to be loaded.
pub(super) fn elsewhere() -> serde_json::Value {
    json!({"upstream": "http://127.0.0.1:9/v1"})
}

#[tokio::test]
async fn only_what_passed_goes_live_and_only_by_who_may() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let rig = Rig::new(store).await;
        let people = people(store).await;
        let product = product(store, &people).await;
        let at = deployment(store, &people, &product, "helpdesk", elsewhere()).await;
        let good = version(store, &people, &product, "sha256:aa", Verdict::Passed).await;
        let bad = version(store, &people, &product, "sha256:bb", Verdict::Failed).await;
        let new = |candidate| NewWorkOrder::new(at.id, candidate, "a test");
        let (calls, approver) = (&rig.deployments, &people.approver);

        let stranger = super::rig::people(store).await;
        let refused = calls.order(&stranger.developer, new(good)).await;
        assert!(
            matches!(refused, Err(DeployError::Forbidden(_))),
            "{refused:?}"
        );
        let draft = store.get::<ModelVersion>(good).await.unwrap().record;
        let mut tx = store.begin().await.unwrap();
        let draft = ModelVersion {
            state: ModelVersionState::Draft,
            ..draft
        };
        let draft = tx
            .add_model_version(&approver.actor, draft)
            .await
            .unwrap()
            .id;
        tx.commit().await.unwrap();
        let refused = calls.order(&people.developer, new(draft)).await;
        assert!(
            matches!(
                refused,
                Err(DeployError::NotApproved(ModelVersionState::Draft))
            ),
            "{refused:?}"
        );

        // It failed its evaluation, and the deployment lets nothing be overridden.
        let order = calls.order(&people.developer, new(bad)).await.unwrap();
        let busy = calls.order(&people.developer, new(good)).await;
        assert!(matches!(busy, Err(DeployError::Busy(_))));
        let refused = calls.approve(approver, order.id, None, None).await;
        let Err(DeployError::Gate(missing)) = &refused else {
            panic!("{refused:?}")
        };
        assert!(
            matches!(missing[..], [Missing::NotPassed { .. }]),
            "{missing:?}"
        );
        let why = Some("the pilot needs it".to_owned());
        let refused = calls.approve(approver, order.id, None, why.clone()).await;
        let Err(DeployError::Gate(missing)) = &refused else {
            panic!("{refused:?}")
        };
        assert!(
            missing.contains(&Missing::NotRelaxable(Requirement::Verdict)),
            "{missing:?}"
        );
        for caller in [&people.developer, &people.operator] {
            let refused = calls.approve(caller, order.id, None, None).await;
            assert!(
                matches!(refused, Err(DeployError::Forbidden(_))),
                "{refused:?}"
            );
        }
        let rejected = calls.reject(approver, order.id, None, "it misreads tickets");
        let rejected = rejected.await.unwrap();
        assert_eq!(rejected.state, WorkOrderState::Rejected);
        let because = rejected.ended_because.clone().unwrap();
        assert!(because.ends_with(": it misreads tickets"), "{because}");
        assert_eq!(rig.state(good).await, ModelVersionState::Approved);
    })
    .await;
}

/// A policy that names it lets an approver override it, with a reason, in the audit log.
#[tokio::test]
async fn an_override_takes_a_policy_and_a_reason_and_is_in_the_audit_log() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let rig = Rig::new(store).await;
        let people = people(store).await;
        let product = product(store, &people).await;
        let at = deployment(store, &people, &product, "helpdesk", elsewhere()).await;
        let bad = version(store, &people, &product, "sha256:bb", Verdict::Failed).await;
        let (calls, approver) = (&rig.deployments, &people.approver);
        let why = Some("the pilot needs it".to_owned());
        let relax = |it: &mut Deployment| it.gate_policy = Json(vec![Requirement::Verdict]);
        store
            .update::<Deployment>(&people.operator.actor, at.id, None, relax)
            .await
            .unwrap();
        let order = rig.order(&people, &at, bad).await;
        let approved = calls
            .approve(approver, order.id, None, why.clone())
            .await
            .unwrap();
        assert_eq!(
            (approved.state, &approved.override_reason),
            (WorkOrderState::Approved, &why)
        );
        let filter = AuditFilter {
            verb: Some("override_gate".into()),
            object: Some(order.id.to_string()),
            ..AuditFilter::default()
        };
        let events = store.audit_events(&filter, 10).await.unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(
            (events[0].actor, &events[0].reason),
            (approver.actor.principal, &why)
        );
        let aborted = calls
            .abort(&people.operator, order.id, None, "second thoughts")
            .await;
        assert_eq!(aborted.unwrap().state, WorkOrderState::Aborted);
        rig.driver.round().await.unwrap();
        assert_eq!(rig.chat("helpdesk", None).await.0, 404);
    })
    .await;
}

#[tokio::test]
async fn evidence_that_is_withdrawn_after_the_approval_stops_the_promotion() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let rig = Rig::new(store).await;
        let people = people(store).await;
        let product = product(store, &people).await;
        let at = deployment(store, &people, &product, "helpdesk", elsewhere()).await;
        let good = version(store, &people, &product, "sha256:aa", Verdict::Passed).await;
        let order = rig.order(&people, &at, good).await;
        rig.approve(&people, order.id).await;
        let run = store
            .get::<ModelVersion>(good)
            .await
            .unwrap()
            .evidence
            .unwrap();
        let withdraw = |it: &mut EvaluationRun| it.withdrawn_at = Some(Timestamp::now());
        store
            .update::<EvaluationRun>(&people.approver.actor, run, None, withdraw)
            .await
            .unwrap();
        rig.driver.round().await.unwrap();
        let order = store.get::<WorkOrder>(order.id).await.unwrap();
        assert_eq!(order.state, WorkOrderState::RolledBack);
        let why = order.ended_because.clone().unwrap();
        assert!(why.contains("was withdrawn"), "{why}");
        assert_eq!(rig.state(good).await, ModelVersionState::Approved);
        assert_eq!(
            store.get::<Deployment>(at.id).await.unwrap().live_version,
            None
        );
        assert_eq!(rig.replicas.count(), 0);

        // And so does a version that was taken back to the start.
        let other = version(store, &people, &product, "sha256:cc", Verdict::Passed).await;
        let order = rig.order(&people, &at, other).await;
        let event = ModelVersionEvent::Invalidate;
        store
            .transition::<ModelVersion>(&people.approver.actor, other, None, event, |_| ())
            .await
            .unwrap();
        let refused = rig
            .deployments
            .approve(&people.approver, order.id, None, None)
            .await;
        assert!(
            matches!(refused, Err(DeployError::NotApproved(_))),
            "{refused:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn the_author_and_data_too_secret_are_refused_whatever_the_policy() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let rig = Rig::new(store).await;
        let people = people(store).await;
        let product = product(store, &people).await;
        let at = deployment(store, &people, &product, "helpdesk", elsewhere()).await;
        let good = version(store, &people, &product, "sha256:aa", Verdict::Passed).await;
        let mut tx = store.begin().await.unwrap();
        tx.link_dataset(good, product.test_set, "train")
            .await
            .unwrap();
        let set = tx.get::<crate::domain::record::DatasetVersion>(product.test_set);
        let dataset = set.await.unwrap().dataset;
        tx.update::<Dataset>(&people.operator.actor, dataset, None, |it| {
            it.secrecy = Secrecy::Secret
        })
        .await
        .unwrap();
        tx.commit().await.unwrap();
        let order = rig.order(&people, &at, good).await;
        let mut author = people.developer.clone();
        author.role = Role::Approver;
        let why = Some("in a hurry".to_owned());
        let refused = rig.deployments.approve(&author, order.id, None, why).await;
        let Err(DeployError::Gate(missing)) = &refused else {
            panic!("{refused:?}")
        };
        assert!(missing.contains(&Missing::ApproverIsAuthor), "{missing:?}");
        let secret = |it: &Missing| matches!(it, Missing::Secrecy { .. });
        assert!(missing.iter().any(secret), "{missing:?}");
    })
    .await;
}

#[tokio::test]
async fn quotas_count_what_is_live_and_what_was_approved() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let rig = Rig::new(store).await;
        let people = people(store).await;
        let product = product(store, &people).await;
        let good = version(store, &people, &product, "sha256:aa", Verdict::Passed).await;
        let quotas = Quotas::new(store.clone(), std::sync::Arc::clone(&rig.wake));
        let limits = Quota {
            department: Some(people.department),
            cpu_millis: Some(2500),
            ..Quota::default()
        };
        let refused = quotas.set(&people.developer, None, limits.clone()).await;
        assert!(matches!(refused, Err(DeployError::Forbidden(_))));
        let set = quotas
            .set(&people.operator, None, limits.clone())
            .await
            .unwrap();
        let again = quotas
            .set(&people.operator, Some(set.version), limits)
            .await
            .unwrap();
        assert_eq!(again.version, set.version, "nothing changed");

        let mut orders = Vec::new();
        for name in ["a", "b", "c"] {
            let at = deployment(store, &people, &product, name, elsewhere()).await;
            orders.push(rig.order(&people, &at, good).await);
        }
        rig.approve(&people, orders[0].id).await;
        rig.driver.round().await.unwrap();
        rig.approve(&people, orders[1].id).await;
        let refused = rig
            .deployments
            .approve(&people.approver, orders[2].id, None, None)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            refused.ends_with("cpu_millis 2000 in use + 1000 asked = 3000 > 2500"),
            "{refused}"
        );
        // The live one may change: it does not stand beside itself.
        let live = store.get::<Deployment>(orders[0].deployment).await.unwrap();
        let order = rig.order(&people, &live, good).await;
        rig.approve(&people, order.id).await;
    })
    .await;
}

#[tokio::test]
async fn an_order_that_is_aborted_while_it_is_prepared_leaves_nothing() {
    let fresh = Fresh::sqlite().await;
    let store = &fresh.store;
    let rig = Rig::new(store).await;
    let people = people(store).await;
    let product = product(store, &people).await;
    let at = deployment(store, &people, &product, "helpdesk", small()).await;
    let v1 = passed(store, &people, &product, "v1").await;
    let order = rig.order(&people, &at, v1).await;
    rig.approve(&people, order.id).await;
    let abort = async {
        // As soon as there is a step.
        while store.work_order_steps(order.id).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let reason = "not this one";
        let aborted = rig
            .deployments
            .abort(&people.operator, order.id, None, reason);
        aborted.await.unwrap();
    };
    let (round, ()) = tokio::join!(rig.driver.round(), abort);
    round.unwrap();
    let order = store.get::<WorkOrder>(order.id).await.unwrap();
    assert_eq!(order.state, WorkOrderState::Aborted);
    rig.until_held(0).await;
    assert_eq!(rig.chat("helpdesk", None).await.0, 404);
    let steps = store.work_order_steps(order.id).await.unwrap();
    assert!(
        steps.iter().all(|it| it.status != StepStatus::Running),
        "{steps:?}"
    );
    let legal = WorkOrderEvent::Abort;
    let again = store
        .transition::<WorkOrder>(&people.operator.actor, order.id, None, legal, |_| ())
        .await;
    assert!(matches!(again, Err(StoreError::IllegalTransition(_))));
}

#[test]
fn settings_are_refused_by_the_name_of_the_field() {
    let mut settings = Settings {
        endpoint: "helpdesk".into(),
        clearance: Secrecy::Internal,
        cpu_millis: 1500,
        gpus: 0,
        memory_bytes: 1 << 30,
        zone: None,
        replicas: 1,
        engine_options: json!({"slots": 4}),
        strategy: json!({}),
        gate_policy: vec![Requirement::Verdict],
    };
    settings.check().unwrap();
    let config = settings
        .config("helpdesk", std::path::Path::new("x"), "v1")
        .unwrap();
    assert_eq!(
        (config.threads, config.memory, config.slots),
        (Some(2), Some(1 << 30), Some(4))
    );
    type Spoil<'a> = &'a dyn Fn(&mut Settings);
    let refusals: [(Spoil<'_>, &str); 7] = [
        (&|it| it.replicas = 0, "replicas: is 0, should be 1 or more"),
        (
            &|it| it.endpoint = "a@b".into(),
            "endpoint: must not hold @",
        ),
        (
            &|it| it.endpoint = String::new(),
            "endpoint: must have 1 to 256",
        ),
        (
            &|it| it.gate_policy = vec![Requirement::Secrecy],
            "gate_policy: \"secrecy\" holds",
        ),
        (
            &|it| it.engine_options = json!({"slot": 4}),
            "engine_options: unknown field `slot`",
        ),
        (
            &|it| it.engine_options = json!({"slots": 0}),
            "engine_options.slots: must be at least 1",
        ),
        (
            &|it| it.engine_options = json!({"path": "/etc"}),
            "engine_options: `path` is set by",
        ),
    ];
    for (spoil, message) in refusals {
        let mut spoiled = settings.clone();
        spoil(&mut spoiled);
        let refused = spoiled.check().unwrap_err().to_string();
        assert!(refused.starts_with(message), "{refused}");
    }
    settings.engine_options = elsewhere();
    assert!(settings.is_remote());
    settings.check().unwrap();
}
