//! What is accepted is done: a field that nothing acts on is refused by its name, and so is what cannot be true. What an
//! earlier version took is still shown, listed and changed.
#![expect(clippy::unwrap_used, reason = "tests")]

mod examples;
mod rows;

use std::sync::Arc;

use serde_json::{Value, json};

use super::rig::{Person, Rig};
use crate::domain::record::{
    ArtifactKind, Deployment, Evaluation, EvaluationMethod, Model, Quota, Training,
};
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::id::DepartmentId;
use crate::store::Json;
use crate::store::rig::{Fresh, on_both, system};

struct Team {
    rig: Rig,
    home: DepartmentId,
    dev: Person,
    operator: Person,
}

async fn team(fresh: &Fresh) -> Team {
    let rig = Rig::start(&fresh.store).await;
    let home = rig.department("home").await;
    let dev = rig
        .person(home, "dev", Role::Developer, Secrecy::Internal)
        .await;
    let operator = rig
        .person(home, "operator", Role::Operator, Secrecy::Internal)
        .await;
    rig.post(&dev.key, "/models", json!({ "name": "m" }))
        .await
        .expect(201);
    Team {
        rig,
        home,
        dev,
        operator,
    }
}

impl Team {
    /// Who may make records of a collection.
    fn key(&self, collection: &str) -> &str {
        match collection {
            "/deployments" => &self.operator.key,
            "/quotas" => "sk-root",
            _ => &self.dev.key,
        }
    }

    /// The field that is refused, and why.
    async fn refused(&self, collection: &str, body: Value) -> (String, String) {
        let answered = self.rig.post(self.key(collection), collection, body).await;
        let problem = answered.expect(422);
        let error = &problem["errors"][0];
        let text = |name: &str| error[name].as_str().unwrap().to_owned();
        (text("field"), text("message"))
    }

    async fn artifact(&self, name: &str, path: &str, content: &[u8]) -> String {
        let artifacts = &self.rig.open.artifacts;
        let bytes = bytes::Bytes::copy_from_slice(content);
        let file = artifacts
            .put(path, futures_util::stream::iter([Ok(bytes)]))
            .await
            .unwrap();
        let new = crate::artifacts::NewArtifact {
            department: self.home,
            kind: ArtifactKind::Dataset,
            name: name.into(),
            source: None,
        };
        let made = artifacts.register(&system(), new, vec![file]).await;
        made.unwrap().id.to_string()
    }
}

fn evaluation(more: &Value) -> Value {
    let mut fields =
        json!({ "model": "m", "name": "e", "metrics": { "measure": [{ "kind": "json_fields" }] } });
    let more = more.as_object().unwrap().clone();
    fields.as_object_mut().unwrap().extend(more);
    fields
}

#[tokio::test]
async fn what_nothing_acts_on_is_refused_by_name() {
    on_both(async |fresh: Arc<Fresh>| {
        let team = team(&fresh).await;
        let deployment = |more: Value| {
            let mut fields = json!({ "endpoint": "d", "model": "m" });
            fields
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            fields
        };
        let cuda = json!({ "provider": "cuda", "devices": [0, 1] });
        for (collection, body, field) in [
            (
                "/deployments",
                deployment(json!({ "replicas": 2 })),
                "replicas",
            ),
            ("/deployments", deployment(json!({ "zone": "eu" })), "zone"),
            ("/deployments", deployment(json!({ "gpus": 1 })), "gpus"),
            (
                "/deployments",
                deployment(json!({ "gpus": 3, "engine_options": cuda })),
                "gpus",
            ),
            (
                "/deployments",
                deployment(json!({ "memory_bytes": 1024, "engine_options": { "memory": "1GiB" } })),
                "memory_bytes",
            ),
            (
                "/trainings",
                json!({ "model": "m", "name": "t", "resources": { "gpus": 1 } }),
                "resources",
            ),
            (
                "/evaluations",
                evaluation(&json!({ "method": "human" })),
                "method",
            ),
            (
                "/quotas",
                json!({ "department": "home", "storage_bytes": 1 }),
                "storage_bytes",
            ),
            (
                "/quotas",
                json!({ "department": "home", "cost_micros_per_month": 1 }),
                "cost_micros_per_month",
            ),
            (
                "/quotas",
                json!({ "department": "home" }),
                "requests_per_minute",
            ),
            ("/keys", json!({ "name": "k", "scopes": [] }), "scopes"),
        ] {
            let (found, why) = team.refused(collection, body).await;
            assert_eq!(found, field, "{why}");
            assert!(why.len() > 20, "{why}");
        }
        // What is computed on GPUs counts against quotas without a word.
        let made = team
            .rig
            .post(
                &team.operator.key,
                "/deployments",
                deployment(json!({ "engine_options": { "provider": "cuda", "devices": [0, 1] } })),
            )
            .await
            .expect(201);
        assert_eq!(made["gpus"], 2);
        let fewer = json!({ "engine_options": { "provider": "cpu" } });
        let changed = team
            .rig
            .patch(&team.operator.key, "/deployments/d", fewer)
            .await;
        assert_eq!(changed.expect(200)["gpus"], 0);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_true_is_refused_by_name() {
    on_both(async |fresh: Arc<Fresh>| {
        let team = team(&fresh).await;
        let model = |field: &str, word: &str| json!({ "name": "x", field: word });
        for (collection, body, field, said) in [
            ("/models", model("train_framework", "mxnet"), "train_framework", "pytorch"),
            ("/models", model("train_framework", "PyTorch"), "train_framework", "did you mean pytorch?"),
            ("/models", model("inference_framework", "onnx"), "inference_framework", "onnxruntime"),
            (
                "/evaluations",
                json!({ "model": "m", "name": "e" }),
                "metrics",
                "nothing would be measured",
            ),
            (
                "/evaluations",
                evaluation(&json!({ "thresholds": { "rules": [{ "metric": "json_fields", "min": 80 }] } })),
                "thresholds.rules[0].min",
                "80 % is 0.8",
            ),
            (
                "/evaluations",
                evaluation(&json!({ "thresholds": { "rules": [{ "metric": "json_fields", "min": 0.9, "max": 0.8 }] } })),
                "thresholds",
                "above its max",
            ),
            (
                "/evaluations",
                evaluation(&json!({
                    "metrics": { "ask": { "kind": "rank" }, "measure": [{ "kind": "mrr" }] },
                    "settings": { "prompts": ["p@v1"] },
                })),
                "settings.prompts",
                "as it is",
            ),
            (
                "/models/m/versions",
                json!({ "datasets": [{ "dataset": "x@v1", "use_of": "fun" }] }),
                "use_of",
                "train, tune, calibrate",
            ),
            (
                "/models/m/prompts",
                json!({ "name": "p", "template": "x", "sampling": { "model": "another" } }),
                "sampling.model",
                "set by the run itself",
            ),
            (
                "/imports",
                json!({ "from": "s3://b/x", "name": "x", "kind": "model", "unpack": true, "file_name": "y" }),
                "file_name",
                "unpack",
            ),
        ] {
            let (found, why) = team.refused(collection, body).await;
            assert_eq!(found, field, "{why}");
            assert!(why.contains(said), "{why}");
        }
        let training = json!({ "model": "m", "name": "t" });
        team.rig.post(&team.dev.key, "/trainings", training).await.expect(201);
        let run = team.rig.post(&team.dev.key, "/trainings/t/runs", json!({})).await.expect(201);
        let tell = |event: &str| format!("/training_runs/{}/{event}", run["id"].as_str().unwrap());
        let (field, _) = team.refused(&tell("start"), json!({ "error": "broke" })).await;
        assert_eq!(field, "error");
    })
    .await;
}

/// Rows as an earlier version would have written them.
async fn earlier(team: &Team) {
    let (store, actor) = (&team.rig.store, system());
    let model = Model {
        department: team.home,
        owner: None,
        name: "old".into(),
        description: String::new(),
        train_framework: "mxnet".into(),
        inference_framework: "mxnet model server".into(),
        code_url: None,
        dashboard_url: None,
    };
    let model = store.create(&actor, model).await.unwrap().id;
    let deployment = Deployment {
        department: team.home,
        owner: None,
        model,
        endpoint: "old".into(),
        clearance: Secrecy::Internal,
        cpu_millis: 1000,
        gpus: 4,
        memory_bytes: 1024,
        zone: Some("eu".into()),
        replicas: 3,
        engine_options: Json(json!({ "memory": "1GiB" })),
        strategy: Json(json!({})),
        gate_policy: Json(Vec::new()),
        open_to_all: false,
        adopted: false,
        live_version: None,
        live_digest: None,
        live_work_order: None,
    };
    store.create(&actor, deployment).await.unwrap();
    let training = Training {
        model,
        owner: None,
        name: "old".into(),
        base_version: None,
        recipe: String::new(),
        hyperparameters: Json(json!({})),
        resources: Json(json!({ "gpus": 8 })),
    };
    store.create(&actor, training).await.unwrap();
    let quota = Quota {
        department: Some(team.home),
        storage_bytes: Some(5),
        cost_micros_per_month: Some(6),
        ..Quota::default()
    };
    store.create(&actor, quota).await.unwrap();
    let rule = json!({ "rules": [{ "metric": "json_fields", "min": 80 }] });
    let measure = json!({ "measure": [{ "kind": "json_fields" }] });
    for (name, method, metrics, thresholds) in [
        ("share", EvaluationMethod::Automatic, measure, rule),
        ("bare", EvaluationMethod::Automatic, json!({}), json!({})),
        (
            "human",
            EvaluationMethod::Human,
            json!({}),
            json!({ "agreement": 0.8 }),
        ),
    ] {
        let evaluation = Evaluation {
            model,
            owner: None,
            name: name.into(),
            method,
            test_set: None,
            metrics: Json(metrics),
            thresholds: Json(thresholds),
            policy_digest: String::new(),
            settings: Json(json!({})),
        };
        store.create(&actor, evaluation).await.unwrap();
    }
}

#[tokio::test]
async fn what_an_earlier_version_took_is_shown_listed_and_changed() {
    on_both(async |fresh: Arc<Fresh>| {
        let team = team(&fresh).await;
        earlier(&team).await;
        let quotas = team.rig.get("sk-root", "/quotas").await.expect(200);
        let quota = format!("/quotas/{}", quotas["items"][0]["id"].as_str().unwrap());
        for (collection, item, change, kept) in [
            ("/models", "/models/old", json!({ "description": "x" }), "train_framework"),
            ("/deployments", "/deployments/old", json!({ "cpu_millis": 2000 }), "replicas"),
            ("/trainings", "/trainings/old", json!({ "recipe": "x" }), "resources"),
            ("/quotas", quota.as_str(), json!({ "tokens_per_month": 7 }), "storage_bytes"),
            ("/evaluations", "/evaluations/share", json!({ "settings": { "concurrency": 2 } }), "thresholds"),
            ("/evaluations", "/evaluations/bare", json!({ "name": "bare2" }), "metrics"),
            ("/evaluations", "/evaluations/human", json!({ "name": "human2" }), "method"),
        ] {
            let key = team.key(collection);
            let listed = team.rig.get(key, collection).await.expect(200);
            assert!(!listed["items"].as_array().unwrap().is_empty(), "{collection}");
            let before = team.rig.get(key, item).await.expect(200);
            let after = team.rig.patch(key, item, change).await.expect(200);
            assert_eq!(before[kept], after[kept], "{item}");
            assert!(!after[kept].is_null(), "{item}");
        }
        // Other than it was it is refused as a new one would be.
        for (item, change, field) in [
            ("/deployments/old", json!({ "replicas": 4 }), "replicas"),
            ("/deployments/old", json!({ "zone": "us" }), "zone"),
            ("/evaluations/share", json!({ "metrics": { "measure": [{ "kind": "json_fields" }], "leading": { "metric": "json_fields" } } }), "thresholds.rules[0].min"),
        ] {
            let collection = item.rsplit_once('/').unwrap().0;
            let changed = team.rig.patch(team.key(collection), item, change).await;
            assert_eq!(changed.expect(422)["errors"][0]["field"], field);
        }
        for (field, change) in [("replicas", json!(1)), ("zone", Value::Null), ("gpus", Value::Null)] {
            let change = json!({ field: change });
            team.rig.patch(&team.operator.key, "/deployments/old", change).await.expect(200);
        }
    })
    .await;
}
