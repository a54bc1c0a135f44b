#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};

use super::rig::{Person, Rig};
use crate::domain::Verdict;
use crate::domain::model_version::ModelVersionEvent;
use crate::domain::record::{EvaluationRun, ModelVersion};
use crate::domain::roles::Role;
use crate::domain::run::RunStatus;
use crate::domain::secrecy::Secrecy;
use crate::store::Json;
use crate::store::rig::{Fresh, on_both, system};

const DIGEST: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000aa";

pub(super) async fn model_with_test_set(rig: &Rig, dev: &Person) -> Value {
    rig.post(&dev.key, "/models", json!({ "name": "m" }))
        .await
        .expect(201);
    rig.post(&dev.key, "/datasets", json!({ "name": "tickets" }))
        .await
        .expect(201);
    rig.post(
        &dev.key,
        "/datasets/tickets/versions",
        json!({ "digest": DIGEST }),
    )
    .await
    .expect(201);
    rig.post(
        &dev.key,
        "/evaluations",
        json!({
            "model": "m", "name": "e", "test_set": "tickets@v1",
            "metrics": { "measure": [{ "kind": "token_f1" }] }, "thresholds": at_least(0.8),
        }),
    )
    .await
    .expect(201)
}

pub(super) fn at_least(min: f64) -> Value {
    json!({ "rules": [{ "metric": "token_f1", "min": min }] })
}

/// What an evaluation task writes.
pub(super) async fn evaluated(rig: &Rig, evaluation: &Value, version: &Value, verdict: Verdict) {
    let id = version["id"].as_str().unwrap().parse().unwrap();
    let mut tx = rig.store.begin().await.unwrap();
    let evaluate = ModelVersionEvent::Evaluate;
    tx.transition::<ModelVersion>(&system(), id, None, evaluate, |_| {})
        .await
        .unwrap();
    let run = EvaluationRun {
        evaluation: evaluation["id"].as_str().unwrap().parse().unwrap(),
        model_version: id,
        task: None,
        author: None,
        status: RunStatus::Succeeded,
        artifact_digest: version["digest"].as_str().unwrap().into(),
        test_set: evaluation["test_set"].as_str().unwrap().parse().unwrap(),
        policy_digest: evaluation["policy_digest"].as_str().unwrap().into(),
        baseline_version: None,
        plan: Json(json!({})),
        samples: 0,
        scores: Json(json!({ "f1": 0.9 })),
        verdict: Some(verdict),
        report: Json(json!({})),
        withdrawn_at: None,
        error: None,
        started_at: None,
        finished_at: None,
    };
    tx.create(&system(), run).await.unwrap();
    let event = match verdict {
        Verdict::Passed => ModelVersionEvent::EvaluationPass,
        _ => ModelVersionEvent::EvaluationFail,
    };
    tx.transition::<ModelVersion>(&system(), id, None, event, |_| {})
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_version_goes_from_draft_to_approved_through_the_gate() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let dev = rig
            .person(home, "dev", Role::Developer, Secrecy::Internal)
            .await;
        let approver = rig
            .person(home, "approver", Role::Approver, Secrecy::Internal)
            .await;
        let evaluation = model_with_test_set(&rig, &dev).await;
        rig.post(&dev.key, "/models/m/versions", json!({}))
            .await
            .expect(201);
        let v = "/models/m/versions/v1";
        let illegal = rig
            .post(&dev.key, &format!("{v}/request_approval"), json!({}))
            .await
            .expect(409);
        assert_eq!(illegal["legal_events"], json!(["register"]));
        let version = rig
            .post(
                &dev.key,
                &format!("{v}/register"),
                json!({ "digest": DIGEST }),
            )
            .await
            .expect(200);
        assert_eq!(version["state"], "registered");
        evaluated(&rig, &evaluation, &version, Verdict::Passed).await;
        rig.post(&dev.key, &format!("{v}/request_approval"), json!({}))
            .await
            .expect(200);

        // What was passed by other thresholds is not passed any more, and its author does not lower them.
        let thresholds = json!({ "thresholds": at_least(0.95) });
        let raised = rig
            .patch(&dev.key, "/evaluations/e", thresholds)
            .await
            .expect(200);
        let now = rig.get(&dev.key, v).await.expect(200);
        assert_eq!(now["state"], "registered");
        rig.post(&approver.key, &format!("{v}/approve"), json!({}))
            .await
            .expect(409);
        let gate = rig.get(&dev.key, &format!("{v}/gate")).await.expect(200);
        assert_eq!(gate["missing"][0]["field"], "thresholds");
        let back = json!({ "thresholds": at_least(0.8) });
        rig.patch(&dev.key, "/evaluations/e", back)
            .await
            .expect(403);
        evaluated(&rig, &raised, &version, Verdict::Passed).await;
        rig.post(&dev.key, &format!("{v}/request_approval"), json!({}))
            .await
            .expect(200);
        let approved = rig
            .post(&approver.key, &format!("{v}/approve"), json!({}))
            .await
            .expect(200);
        assert_eq!(
            (&approved["state"], &approved["approver"]),
            (&json!("approved"), &json!(approver.id.to_string()))
        );
        let view = rig.get(&dev.key, "/models/m/view").await.expect(200);
        assert_eq!(view["versions"][0]["evaluations"][0]["verdict"], "passed");
    })
    .await;
}

#[tokio::test]
async fn a_failed_version_is_let_through_by_a_named_override_only() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let dev = rig
            .person(home, "dev", Role::Developer, Secrecy::Internal)
            .await;
        let boss = rig
            .person(home, "boss", Role::Admin, Secrecy::Internal)
            .await;
        let evaluation = model_with_test_set(&rig, &dev).await;
        rig.post(&dev.key, "/models/m/versions", json!({}))
            .await
            .expect(201);
        let v = "/models/m/versions/1";
        let version = rig
            .post(
                &dev.key,
                &format!("{v}/register"),
                json!({ "digest": DIGEST }),
            )
            .await
            .expect(200);
        evaluated(&rig, &evaluation, &version, Verdict::Failed).await;
        let deployment = json!({ "endpoint": "d", "model": "m", "gate_policy": ["verdict"] });
        rig.post(&boss.key, "/deployments", deployment)
            .await
            .expect(201);
        rig.post(
            &dev.key,
            &format!("{v}/request_override"),
            json!({ "reason": " " }),
        )
        .await
        .expect(422);
        rig.post(
            &dev.key,
            &format!("{v}/request_override"),
            json!({ "reason": "urgent" }),
        )
        .await
        .expect(200);
        let approve = format!("{v}/approve");
        let closed = rig.post(&boss.key, &approve, json!({})).await.expect(409);
        assert_eq!(closed["errors"][0]["field"], "verdict");
        // Without a deployment there is no policy that allows it.
        let override_alone = json!({ "override_reason": "the old one is worse" });
        rig.post(&boss.key, &approve, override_alone)
            .await
            .expect(409);
        let full = json!({ "deployment": "d", "override_reason": "the old one is worse" });
        rig.post(&boss.key, &approve, full).await.expect(200);
        let log = rig
            .get(&boss.key, "/audit?verb=override_gate")
            .await
            .expect(200);
        assert_eq!(log["items"][0]["reason"], "the old one is worse");
        assert!(
            log["items"][0]["after"]["overridden"][0]
                .as_str()
                .unwrap()
                .contains("failed")
        );
        // What protects data cannot be named as relaxable.
        let never = json!({ "endpoint": "d2", "model": "m", "gate_policy": ["secrecy"] });
        rig.post(&boss.key, "/deployments", never).await.expect(422);
    })
    .await;
}
