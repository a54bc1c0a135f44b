//! Who lacks clearance or grant learns nothing of a secret dataset, by no way.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};

use super::rig::{Person, Rig};
use crate::domain::Verdict;
use crate::domain::record::{Evaluation, EvaluationRun, ModelVersion};
use crate::domain::roles::Role;
use crate::domain::run::RunStatus;
use crate::domain::secrecy::Secrecy;
use crate::store::rig::{Fresh, on_both, system};
use crate::store::{EvaluationSample, Json};
use crate::time::Timestamp;

const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000001";

/// A secret dataset behind a training, a version and an evaluation with a run.
struct Secret {
    dataset: String,
    version: String,
    run: String,
    training_run: String,
    artifacts: Vec<String>,
}

async fn secret_lineage(rig: &Rig, owner: &Person) -> Secret {
    let key = &owner.key;
    let dataset = rig
        .post(
            key,
            "/datasets",
            json!({ "name": "payroll", "secrecy": "secret" }),
        )
        .await
        .expect(201);
    let version = rig
        .post(
            key,
            "/datasets/payroll/versions",
            json!({ "digest": DIGEST, "row_count": 8_642_097_531_i64 }),
        )
        .await
        .expect(201);
    rig.post(key, "/models", json!({ "name": "m" }))
        .await
        .expect(201);
    let training = json!({ "model": "m", "name": "t", "datasets": ["payroll@v1"] });
    rig.post(key, "/trainings", training).await.expect(201);
    let training_run = rig
        .post(
            key,
            "/trainings/t/runs",
            json!({ "inputs": { "payroll": DIGEST } }),
        )
        .await
        .expect(201);
    let model_version = json!({ "training_run": training_run["id"], "datasets": [{ "dataset": "payroll@v1", "use_of": "tune" }] });
    let model_version = rig
        .post(key, "/models/m/versions", model_version)
        .await
        .expect(201);
    let evaluation = rig
        .post(
            key,
            "/evaluations",
            json!({ "model": "m", "name": "e", "test_set": "payroll@v1", "metrics": { "measure": [{ "kind": "token_f1" }] } }),
        )
        .await
        .expect(201);
    let run = evaluation_run(rig, &evaluation, &model_version).await;
    Secret {
        dataset: text(&dataset["id"]),
        version: text(&version["id"]),
        run,
        training_run: text(&training_run["id"]),
        artifacts: vec!["payroll".into(), DIGEST.into(), "8642097531".into()],
    }
}

async fn evaluation_run(rig: &Rig, evaluation: &Value, version: &Value) -> String {
    let record: EvaluationRun = EvaluationRun {
        evaluation: text(&evaluation["id"]).parse().unwrap(),
        model_version: text(&version["id"]).parse().unwrap(),
        task: None,
        author: None,
        status: RunStatus::Succeeded,
        artifact_digest: "sha256:weights".into(),
        test_set: text(&evaluation["test_set"]).parse().unwrap(),
        policy_digest: text(&evaluation["policy_digest"]),
        baseline_version: None,
        plan: Json(json!({})),
        samples: 1,
        scores: Json(json!({})),
        verdict: Some(Verdict::Passed),
        report: Json(json!({})),
        withdrawn_at: None,
        error: None,
        started_at: None,
        finished_at: None,
    };
    let mut tx = rig.store.begin().await.unwrap();
    tx.get::<Evaluation>(record.evaluation).await.unwrap();
    tx.get::<ModelVersion>(record.model_version).await.unwrap();
    let run = tx.create(&system(), record).await.unwrap();
    let sample = EvaluationSample {
        run: run.id,
        prompt_version: String::new(),
        ordinal: 0,
        item: "payroll-1".into(),
        input: Json(json!("payroll of 8642097531")),
        expected: None,
        output: None,
        scores: Json(json!({})),
        score: None,
        passed: true,
        error: None,
        latency_us: 0,
        first_token_us: None,
        input_tokens: 0,
        output_tokens: 0,
        tags: Json(Vec::new()),
        detail: None,
        at: Timestamp::now(),
    };
    tx.add_samples(&[sample]).await.unwrap();
    tx.commit().await.unwrap();
    run.id.to_string()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Everything that can be read where the secret might show.
fn places(secret: &Secret) -> Vec<String> {
    vec![
        "/datasets".into(),
        format!("/datasets/{}", secret.dataset),
        "/datasets/payroll".into(),
        "/datasets/payroll/versions".into(),
        format!("/datasets/{}/versions/1", secret.dataset),
        "/models/m/view".into(),
        "/models/m/versions/1".into(),
        "/trainings".into(),
        "/trainings/t/datasets".into(),
        "/trainings/t/runs".into(),
        format!("/training_runs/{}", secret.training_run),
        "/evaluations".into(),
        "/evaluations/e".into(),
        "/evaluation_runs".into(),
        format!("/evaluation_runs/{}", secret.run),
        format!("/evaluation_runs/{}/samples", secret.run),
        "/audit?limit=500".into(),
        format!("/audit?object={}", secret.dataset),
        format!("/audit?object={}", secret.run),
        "/grants".into(),
        "/artifacts".into(),
    ]
}

/// Where somebody finds its content, its name or itself.
async fn shows(rig: &Rig, who: &Person, secret: &Secret) -> Vec<String> {
    telling(rig, who, secret, &[&secret.dataset]).await
}

async fn telling(rig: &Rig, who: &Person, secret: &Secret, ids: &[&String]) -> Vec<String> {
    let mut showing = Vec::new();
    for path in places(secret) {
        let answered = rig.get(&who.key, &path).await;
        if answered.status != 200 {
            continue;
        }
        let text = answered.text();
        if ids
            .iter()
            .copied()
            .chain(&secret.artifacts)
            .any(|word| text.contains(word.as_str()))
        {
            showing.push(path);
        }
    }
    showing
}

#[tokio::test]
async fn a_secret_dataset_shows_nowhere_without_clearance_and_grant() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let owner = rig
            .person(home, "owner", Role::Admin, Secrecy::Secret)
            .await;
        let secret = secret_lineage(&rig, &owner).await;
        let cleared = rig
            .person(home, "cleared", Role::Developer, Secrecy::Secret)
            .await;
        let granted = rig
            .person(home, "granted", Role::Admin, Secrecy::Internal)
            .await;
        let approver = rig
            .person(home, "approver", Role::Approver, Secrecy::Confidential)
            .await;
        let both = rig
            .person(home, "both", Role::Developer, Secrecy::Secret)
            .await;

        let all = [&secret.dataset, &secret.version, &secret.run];
        assert!(
            telling(&rig, &owner, &secret, &all).await.len() >= 14,
            "the search finds what there is"
        );
        for person in ["granted", "both"] {
            let grant = json!({ "dataset": "payroll", "principal": person, "access": "read" });
            rig.post(&owner.key, "/grants", grant).await.expect(201);
        }
        // Neither clearance nor a grant nor the role of an admin is enough alone. That there is a run, and what it says of
        // the model, is seen by all who see the model; whoever has the clearance is told on its page what to ask for.
        let run = format!("/evaluation_runs/{}", secret.run);
        for (who, told) in [
            (&cleared, vec![run.clone()]),
            (&granted, vec![]),
            (&approver, vec![]),
        ] {
            assert_eq!(shows(&rig, who, &secret).await, told);
            let seen = rig.get(&who.key, &run).await.expect(200);
            assert_eq!(seen["verdict"], "passed");
            assert!(
                seen["samples_hidden"]
                    .as_str()
                    .unwrap()
                    .starts_with("hidden: ")
            );
            let samples = rig.get(&who.key, &format!("{run}/samples")).await;
            samples.expect(403);
            rig.get(&who.key, &format!("{run}/diff")).await.expect(403);
        }
        assert!(telling(&rig, &both, &secret, &all).await.len() >= 12);
    })
    .await;
}

#[tokio::test]
async fn what_may_not_be_seen_may_not_be_used() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let owner = rig
            .person(home, "owner", Role::Admin, Secrecy::Secret)
            .await;
        let secret = secret_lineage(&rig, &owner).await;
        let dev = rig
            .person(home, "dev", Role::Developer, Secrecy::Secret)
            .await;
        let uses = |name: &str| {
            [
                (
                    "/evaluations",
                    json!({ "model": "m", "name": "e2", "test_set": name, "metrics": { "measure": [{ "kind": "token_f1" }] } }),
                ),
                (
                    "/trainings",
                    json!({ "model": "m", "name": "t2", "datasets": [name] }),
                ),
                (
                    "/models/m/versions",
                    json!({ "datasets": [{ "dataset": name }] }),
                ),
                ("/models/m/versions/1/datasets", json!({ "dataset": name })),
            ]
        };
        // As if it were not there, in the same words as for what is not.
        for (path, body) in uses(&secret.version) {
            let refused = rig.post(&dev.key, path, body).await.expect(422);
            assert!(
                refused["detail"]
                    .as_str()
                    .unwrap()
                    .contains("there is no dataset version"),
                "{refused}"
            );
        }
        let grant = json!({ "dataset": "payroll", "principal": "dev", "access": "read" });
        let grant = rig.post(&owner.key, "/grants", grant).await.expect(201);
        // To see is not to use.
        for (path, body) in uses(&secret.version).into_iter().skip(1) {
            rig.post(&dev.key, path, body).await.expect(403);
        }
        let path = format!("/grants/{}", grant["id"].as_str().unwrap());
        rig.patch(&owner.key, &path, json!({ "access": "use" }))
            .await
            .expect(200);
        for (path, body) in uses("payroll@v1").into_iter().skip(1) {
            let done = rig.post(&dev.key, path, body).await;
            assert!(done.status.is_success(), "{path}: {}", done.body);
        }
        // Nobody makes data more secret than they are cleared for.
        let low = rig
            .person(home, "low", Role::Developer, Secrecy::Internal)
            .await;
        rig.post(
            &low.key,
            "/datasets",
            json!({ "name": "x", "secrecy": "secret" }),
        )
        .await
        .expect(422);
    })
    .await;
}
