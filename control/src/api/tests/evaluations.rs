//! Defining evaluations, asking for runs, and looking at what they saw. What runs do is tested with the runner.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};

use super::rig::{Person, Rig, encoded};
use crate::domain::Verdict;
use crate::domain::model_version::ModelVersionEvent as Event;
use crate::domain::record::{Access, ArtifactKind, EvaluationRun, Grant, ModelVersion};
use crate::domain::roles::Role;
use crate::domain::run::RunEvent;
use crate::domain::secrecy::Secrecy;
use crate::id::{DepartmentId, EvaluationRunId};
use crate::store::rig::{Fresh, on_both, system};
use crate::store::{EvaluationSample, Json};
use crate::time::Timestamp;

const DIGEST: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000aa";

struct Desk {
    rig: Rig,
    dev: Person,
    approver: Person,
    home: DepartmentId,
}

/// A department with a model and a test set whose content is here.
async fn desk(fresh: &Fresh) -> Desk {
    let rig = Rig::start(&fresh.store).await;
    let home = rig.department("home").await;
    let dev = rig
        .person(home, "dev", Role::Developer, Secrecy::Internal)
        .await;
    let approver = rig
        .person(home, "approver", Role::Approver, Secrecy::Internal)
        .await;
    let desk = Desk {
        rig,
        dev,
        approver,
        home,
    };
    desk.post("/models", json!({ "name": "m" }), 201).await;
    let tickets = desk
        .post("/datasets", json!({ "name": "tickets" }), 201)
        .await;
    let content = desk.content().await;
    desk.post(
        "/datasets/tickets/versions",
        json!({ "artifact": content }),
        201,
    )
    .await;
    let grant = Grant {
        object_kind: "dataset".into(),
        object_id: tickets["id"].as_str().unwrap().into(),
        principal: Some(desk.approver.id),
        department: None,
        access: Access::Read,
    };
    fresh.store.grant(&system(), grant).await.unwrap();
    desk
}

impl Desk {
    async fn post(&self, path: &str, body: Value, status: u16) -> Value {
        self.rig
            .post(&self.dev.key, path, body)
            .await
            .expect(status)
    }

    async fn get(&self, path: &str) -> Value {
        self.rig.get(&self.dev.key, path).await.expect(200)
    }

    async fn content(&self) -> String {
        let artifacts = &self.rig.open.artifacts;
        let text =
            futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"{\"messages\": \"a\"}\n"))]);
        let file = artifacts.put("test.jsonl", text).await.unwrap();
        let new = crate::artifacts::NewArtifact {
            department: self.home,
            kind: ArtifactKind::Dataset,
            name: "tickets".into(),
            source: None,
        };
        let artifact = artifacts
            .register(&system(), new, vec![file])
            .await
            .unwrap();
        artifact.id.to_string()
    }

    async fn evaluation(&self) -> Value {
        let evaluation = json!({
            "model": "m", "name": "e", "test_set": "tickets@v1",
            "metrics": { "measure": [{ "kind": "exact_match" }] },
            "thresholds": { "rules": [{ "metric": "exact_match/none", "min": 0.5 }] },
        });
        self.post("/evaluations", evaluation, 201).await
    }

    async fn registered(&self) {
        self.post("/models/m/versions", json!({}), 201).await;
        let versions = self.get("/models/m/versions").await;
        let number = &versions["items"][0]["number"];
        let path = format!("/models/m/versions/v{number}/register");
        self.post(&path, json!({ "digest": DIGEST }), 200).await;
    }

    /// What the task would write: two samples, right or wrong, and the end.
    async fn ended(&self, run: &Value, right: [bool; 2]) {
        let id: EvaluationRunId = run["id"].as_str().unwrap().parse().unwrap();
        let sample = |ordinal: usize| EvaluationSample {
            run: id,
            prompt_version: String::new(),
            ordinal: ordinal as i64,
            item: format!("row-{ordinal}"),
            input: Json(json!({ "prompt": "what?" })),
            expected: Some(Json(json!({ "texts": ["a b"] }))),
            output: Some(Json(
                json!({ "text": if right[ordinal] { "a b" } else { "a 100% c" } }),
            )),
            scores: Json(json!({ "exact_match/none": f64::from(u8::from(right[ordinal])) })),
            score: Some(f64::from(u8::from(right[ordinal]))),
            passed: right[ordinal],
            error: None,
            latency_us: 1,
            first_token_us: None,
            input_tokens: 1,
            output_tokens: 1,
            tags: Json(vec!["t".into()]),
            detail: None,
            at: Timestamp::now(),
        };
        let mut tx = self.rig.store.begin().await.unwrap();
        tx.add_samples(&[sample(0), sample(1)]).await.unwrap();
        for event in [RunEvent::Start, RunEvent::Succeed] {
            tx.transition::<EvaluationRun>(&system(), id, None, event, |it| {
                it.verdict = Some(Verdict::Passed)
            })
            .await
            .unwrap();
        }
        let version = run["model_version"].as_str().unwrap().parse().unwrap();
        for event in [Event::Evaluate, Event::EvaluationPass] {
            tx.transition::<ModelVersion>(&system(), version, None, event, |it| {
                it.evidence = Some(id)
            })
            .await
            .unwrap();
        }
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn what_an_evaluation_could_never_do_is_refused_when_it_is_defined() {
    let fresh = Fresh::sqlite().await;
    let desk = desk(&fresh).await;
    for (fields, field, said) in [
        (
            json!({ "metrics": { "measure": [{ "kind": "exact" }] } }),
            "metrics.measure[0].kind",
            "exact_match",
        ),
        (
            json!({ "thresholds": { "rules": [] } }),
            "metrics",
            "is empty",
        ),
        (
            json!({ "settings": { "concurrency": 0 } }),
            "settings.concurrency",
            "1 to 256",
        ),
        (
            json!({ "metrics": { "measure": [{ "kind": "chrf" }] }, "thresholds": { "rules": [{ "metric": "f1", "min": 1 }] } }),
            "thresholds.rules",
            "there are chrf",
        ),
    ] {
        let mut evaluation = json!({ "model": "m", "name": "e", "test_set": "tickets@v1" });
        evaluation
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let refused = desk.post("/evaluations", evaluation, 422).await;
        assert!(
            refused["detail"].as_str().unwrap().contains(said),
            "{refused}"
        );
        let named = refused["errors"][0]["field"].as_str().unwrap();
        assert!(field.starts_with(named), "{refused}");
    }
    let prompt = json!({ "name": "p", "template": "Say {{ word" });
    let refused = desk.post("/models/m/prompts", prompt, 422).await;
    assert_eq!(refused["errors"][0]["field"], "template");
}

#[tokio::test]
async fn a_run_is_asked_for_with_all_that_it_will_do() {
    on_both(async |fresh: Arc<Fresh>| {
        let desk = desk(&fresh).await;
        let evaluation = desk.evaluation().await;
        desk.post("/models/m/versions", json!({}), 201).await;
        let draft = json!({ "model_version": "m@v1" });
        let refused = desk.post("/evaluations/e/runs", draft.clone(), 422).await;
        assert!(
            refused["detail"].as_str().unwrap().contains("is draft"),
            "{refused}"
        );
        desk.post(
            "/models/m/versions/v1/register",
            json!({ "digest": DIGEST }),
            200,
        )
        .await;
        desk.post(
            "/models/m/prompts",
            json!({ "name": "p", "template": "Say {{ word }}" }),
            201,
        )
        .await;

        let asked = json!({ "model_version": "m@v1", "prompt_versions": ["p@v1"], "priority": 5 });
        let run = desk.post("/evaluations/e/runs", asked, 201).await;
        assert_eq!(
            (&run["status"], &run["verdict"]),
            (&json!("queued"), &Value::Null)
        );
        assert_eq!(run["policy_digest"], evaluation["policy_digest"]);
        assert_eq!(run["artifact_digest"], DIGEST);
        assert_eq!(run["plan"]["prompt_versions"].as_array().unwrap().len(), 1);
        assert_eq!(run["plan"]["metrics"], evaluation["metrics"]);
        let task = desk
            .get(&format!("/tasks/{}", run["task"].as_str().unwrap()))
            .await;
        assert_eq!(
            (&task["kind"], &task["subject_id"], &task["priority"]),
            (&json!("evaluate"), &run["id"], &json!(5))
        );

        for (body, said) in [
            (
                json!({ "model_version": "m@v1", "prompt_versions": ["p@v9"] }),
                "name@v1 or by its id",
            ),
            (
                json!({ "model_version": "m@v1", "prompt_versions": ["p@v1", "p@1"] }),
                "twice",
            ),
            (
                json!({ "model_version": "m@v1", "baseline": "m@v7" }),
                "there is no model version m@v7",
            ),
            (
                json!({ "model_version": "m@v1", "priority": 5000 }),
                "-1000",
            ),
        ] {
            let refused = desk.post("/evaluations/e/runs", body, 422).await;
            assert!(
                refused["detail"].as_str().unwrap().contains(said),
                "{refused}"
            );
        }
        // Whoever only approves starts nothing.
        desk.rig
            .post(&desk.approver.key, "/evaluations/e/runs", draft)
            .await
            .expect(403);
        // A test set that is registered by its digest only cannot be asked.
        desk.post(
            "/datasets/tickets/versions",
            json!({ "digest": DIGEST }),
            201,
        )
        .await;
        desk.rig
            .patch(
                "sk-root",
                "/evaluations/e",
                json!({ "test_set": "tickets@v2" }),
            )
            .await
            .expect(200);
        let refused = desk
            .post(
                "/evaluations/e/runs",
                json!({ "model_version": "m@v1" }),
                422,
            )
            .await;
        assert_eq!(refused["errors"][0]["field"], "test_set");
    })
    .await;
}

#[tokio::test]
async fn samples_are_found_and_runs_are_told_apart() {
    on_both(async |fresh: Arc<Fresh>| {
        let desk = desk(&fresh).await;
        desk.evaluation().await;
        let mut runs = Vec::new();
        for (number, right) in [(1, [true, false]), (2, [false, false])] {
            desk.registered().await;
            let asked = json!({ "model_version": format!("m@v{number}") });
            let run = desk.post("/evaluations/e/runs", asked, 201).await;
            desk.ended(&run, right).await;
            runs.push(run["id"].as_str().unwrap().to_owned());
        }
        let samples = format!("/evaluation_runs/{}/samples", runs[0]);
        let count = async |query: String| {
            let page = desk.get(&format!("{samples}?{query}")).await;
            page["items"].as_array().unwrap().len()
        };
        for (query, found) in [
            ("passed=false", 1),
            ("error=true", 0),
            ("error=false", 2),
            ("tag=t", 2),
            ("tag=x", 0),
            ("score_at_least=0.5", 1),
            ("score_below=0.5", 1),
            ("contains=A%20100%25", 1),
            ("contains=_", 0),
            ("item=row-1", 1),
        ] {
            assert_eq!(count(query.to_owned()).await, found, "{query}");
        }
        assert_eq!(
            count(format!("contains={}", encoded("' OR 1=1 --"))).await,
            0
        );

        let diff = format!("/evaluation_runs/{}/diff?with={}", runs[1], runs[0]);
        let found = desk.get(&diff).await;
        assert_eq!(found["metric"], "exact_match/none");
        assert_eq!(
            (&found["worse"], &found["same"], &found["better"]),
            (&json!(1), &json!(1), &json!(0))
        );
        let worst = &found["items"][0];
        assert_eq!(
            (&worst["item"], &worst["change"], &worst["gain"]),
            (&json!("row-0"), &json!("worse"), &json!(-1.0))
        );
        assert_eq!(worst["before"]["output"]["text"], "a b");
        assert!(
            worst["text"]
                .as_array()
                .unwrap()
                .iter()
                .any(|piece| piece["side"] == "after")
        );
        let page = desk.get(&format!("{diff}&limit=1")).await;
        assert_eq!(
            (
                &page["next_cursor"],
                page["items"].as_array().unwrap().len()
            ),
            (&json!("1"), 1)
        );
        let same = desk
            .get(&format!("{diff}&change=same&limit=1&cursor=0"))
            .await;
        assert_eq!(
            (&same["items"][0]["item"], &same["next_cursor"]),
            (&json!("row-1"), &Value::Null)
        );
        for query in ["&metric=f1", "&change=odd", "&cursor=x", "&limit=0"] {
            desk.rig
                .get(&desk.dev.key, &format!("{diff}{query}"))
                .await
                .expect(422);
        }
    })
    .await;
}

#[tokio::test]
async fn withdrawn_evidence_sends_its_version_back() {
    on_both(async |fresh: Arc<Fresh>| {
        let desk = desk(&fresh).await;
        desk.evaluation().await;
        desk.registered().await;
        let run = desk
            .post(
                "/evaluations/e/runs",
                json!({ "model_version": "m@v1" }),
                201,
            )
            .await;
        let withdraw = format!("/evaluation_runs/{}/withdraw", run["id"].as_str().unwrap());
        let why = json!({ "reason": "the test set was trained on" });
        // One that has said nothing has nothing to take back.
        desk.rig
            .post(&desk.approver.key, &withdraw, why.clone())
            .await
            .expect(422);
        desk.ended(&run, [true, true]).await;
        assert_eq!(
            desk.get("/models/m/versions/v1").await["state"],
            "eval_passed"
        );
        let withdrawn = desk
            .rig
            .post(&desk.approver.key, &withdraw, why)
            .await
            .expect(200);
        assert!(withdrawn["withdrawn_at"].is_string());
        let version = desk.get("/models/m/versions/v1").await;
        assert_eq!(
            (&version["state"], &version["evidence"]),
            (&json!("registered"), &Value::Null)
        );
    })
    .await;
}
