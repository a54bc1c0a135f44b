//! The way back is open, and stays so; and what a strategy names is there.

use std::time::Duration;

use serde_json::json;

use super::super::held::Held;
use super::super::*;
use super::gate::elsewhere;
use super::rig::*;
use crate::domain::Verdict;
use crate::domain::model_version::{ModelVersionEvent, ModelVersionState};
use crate::domain::record::{Evaluation, EvaluationRun, ModelVersion, Quota, WorkOrder};
use crate::domain::work_order::WorkOrderState;
use crate::quota::Quotas;
use crate::store::rig::{Fresh, on_both};
use crate::time::Timestamp;

/// Evidence withdrawn, thresholds changed, the version sent back to the start, a quota used up: the way back is open.
#[tokio::test]
async fn taking_back_to_what_was_live_needs_no_new_evidence_and_no_quota() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let rig = Rig::new(store).await;
        let people = people(store).await;
        let product = product(store, &people).await;
        let at = deployment(store, &people, &product, "helpdesk", elsewhere()).await;
        let v1 = version(store, &people, &product, "sha256:aa", Verdict::Passed).await;
        let v2 = version(store, &people, &product, "sha256:bb", Verdict::Passed).await;
        rig.deploy(&people, &at, v1).await;
        rig.deploy(&people, &at, v2).await;
        let run = store.get::<ModelVersion>(v1).await.unwrap().evidence;
        let withdraw = |it: &mut EvaluationRun| it.withdrawn_at = Some(Timestamp::now());
        store
            .update::<EvaluationRun>(&people.approver.actor, run.unwrap(), None, withdraw)
            .await
            .unwrap();
        let raise = |it: &mut Evaluation| it.policy_digest = "sha256:qq".into();
        store
            .update::<Evaluation>(&people.approver.actor, product.evaluation, None, raise)
            .await
            .unwrap();
        let event = ModelVersionEvent::Invalidate;
        store
            .transition::<ModelVersion>(&people.approver.actor, v1, None, event, |_| ())
            .await
            .unwrap();
        let quotas = Quotas::new(store.clone(), std::sync::Arc::clone(&rig.wake));
        let none = Quota {
            department: Some(people.department),
            cpu_millis: Some(1),
            ..Quota::default()
        };
        quotas.set(&people.operator, None, none).await.unwrap();

        let reason = "it misreads tickets";
        let returned = rig
            .deployments
            .roll_back(&people.operator, at.id, reason, None, Duration::ZERO)
            .await
            .unwrap();
        let Returned::Ordered(order) = returned else {
            panic!("{returned:?}")
        };
        rig.driver.round().await.unwrap();
        let order = store.get::<WorkOrder>(order.id).await.unwrap();
        assert_eq!(order.state, WorkOrderState::Promoted, "{order:?}");
        assert_eq!(rig.state(v1).await, ModelVersionState::Live);
        assert_eq!(rig.state(v2).await, ModelVersionState::Approved);
        // It is no way around the gate: what was never live here is not returned to.
        let other = deployment(store, &people, &product, "other", elsewhere()).await;
        let refused = rig
            .deployments
            .bring_back(&people.operator.actor, other.id, &order.id.to_string())
            .await;
        assert!(
            matches!(refused, Err(DeployError::NothingEarlier)),
            "{refused:?}"
        );
        // And a new order for it is asked everything.
        let refused = rig.deployments.order(
            &people.developer,
            NewWorkOrder::new(other.id, v1, "elsewhere too"),
        );
        let order = refused.await.unwrap();
        let refused = rig
            .deployments
            .approve(&people.approver, order.id, None, None)
            .await;
        assert!(matches!(refused, Err(DeployError::Gate(_))), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn what_serves_is_about_to_or_is_the_way_back_is_held() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let rig = Rig::new(store).await;
        let people = people(store).await;
        let product = product(store, &people).await;
        let at = deployment(store, &people, &product, "helpdesk", elsewhere()).await;
        let mut versions = Vec::new();
        for digest in ["sha256:aa", "sha256:bb", "sha256:cc", "sha256:dd"] {
            versions.push(version(store, &people, &product, digest, Verdict::Passed).await);
        }
        for live in &versions[..3] {
            rig.deploy(&people, &at, *live).await;
        }
        let order = rig.order(&people, &at, versions[3]).await;
        let held = async |id| {
            let mut tx = store.begin().await.unwrap();
            let version = tx.get::<ModelVersion>(id).await.unwrap();
            super::super::held(store, &mut tx, &version).await.unwrap()
        };
        let name = || "helpdesk".to_owned();
        assert_eq!(held(versions[0]).await, []);
        assert_eq!(held(versions[1]).await, [Held::WayBack(name())]);
        assert_eq!(held(versions[2]).await, [Held::Live(name())]);
        assert_eq!(held(versions[3]).await, [Held::Candidate(name(), order.id)]);
        rig.deployments
            .reject(&people.approver, order.id, None, "not now")
            .await
            .unwrap();
        assert_eq!(held(versions[3]).await, []);
    })
    .await;
}

#[tokio::test]
async fn a_strategy_that_names_what_is_not_there_is_refused() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let rig = Rig::new(store).await;
        let people = people(store).await;
        let product = product(store, &people).await;
        let at = deployment(store, &people, &product, "helpdesk", elsewhere()).await;
        let good = version(store, &people, &product, "sha256:aa", Verdict::Passed).await;
        let order = async |strategy| {
            let new = NewWorkOrder {
                strategy: Some(strategy),
                ..NewWorkOrder::new(at.id, good, "a test")
            };
            rig.deployments.order(&people.developer, new).await
        };
        let named = |name: &str| json!({ "objectives": [{ "event": "error", "max_ratio": 0.1 }, { "evaluation": name, "min_delta": 0.0 }] });
        for (strategy, said) in [
            (
                named("nope"),
                "strategy.objectives[1].evaluation: the deployment's model has no evaluation nope",
            ),
            (json!({ "steps": [] }), "strategy.steps: are empty"),
        ] {
            let refused = order(strategy).await.unwrap_err().to_string();
            assert!(refused.starts_with(said), "{refused}");
        }
        order(named("quality")).await.unwrap();
    })
    .await;
}
