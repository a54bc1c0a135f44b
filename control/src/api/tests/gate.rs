//! Required evaluations: nobody relaxes what his own version has to pass, and evidence is seen by who decides on it.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};

use super::rig::{Person, Rig};
use super::versions::{at_least, evaluated, model_with_test_set};
use crate::domain::Verdict;
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::store::rig::{Fresh, on_both};

const DIGEST: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000cc";

struct Team {
    rig: Rig,
    dev: Person,
    other: Person,
    approver: Person,
    /// The evaluation `e` of model `m`, at least 0.8.
    evaluation: Value,
}

impl Team {
    async fn new(fresh: &Fresh) -> Self {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let person = async |name: &str, role| rig.person(home, name, role, Secrecy::Internal).await;
        let dev = person("dev", Role::Developer).await;
        let other = person("other", Role::Developer).await;
        let approver = person("approver", Role::Approver).await;
        let evaluation = model_with_test_set(&rig, &dev).await;
        Self {
            dev,
            other,
            approver,
            evaluation,
            rig,
        }
    }

    /// A version of the developer's, registered.
    async fn version(&self) -> (String, Value) {
        let made = self
            .rig
            .post(&self.dev.key, "/models/m/versions", json!({}))
            .await
            .expect(201);
        let path = format!("/models/m/versions/v{}", made["number"]);
        let digest = json!({ "digest": DIGEST });
        let register = format!("{path}/register");
        let version = self.rig.post(&self.dev.key, &register, digest).await;
        (path, version.expect(200))
    }

    async fn another_evaluation(&self, name: &str, least: f64) -> Value {
        let fields = json!({
            "model": "m", "name": name, "test_set": "tickets@v1",
            "metrics": { "measure": [{ "kind": "token_f1" }] }, "thresholds": at_least(least),
        });
        let made = self.rig.post(&self.dev.key, "/evaluations", fields).await;
        made.expect(201)
    }

    async fn act(&self, who: &Person, path: &str, body: Value, status: u16) -> Value {
        self.rig.post(&who.key, path, body).await.expect(status)
    }

    async fn audited(&self, verb: &str) -> Vec<Value> {
        let path = format!("/audit?verb={verb}");
        let log = self.rig.get("sk-root", &path).await.expect(200);
        log["items"].as_array().unwrap().clone()
    }
}

/// The developer's version failed; by an easier evaluation, lower thresholds or none at all it does not get through.
#[tokio::test]
async fn what_failed_is_not_approved_by_an_easier_evaluation() {
    on_both(async |fresh: Arc<Fresh>| {
        let team = Team::new(&fresh).await;
        let (rig, dev, approver) = (&team.rig, &team.dev, &team.approver);
        let (v, version) = team.version().await;
        evaluated(rig, &team.evaluation, &version, Verdict::Failed).await;
        let easy = team.another_evaluation("easy", 0.0).await;
        evaluated(rig, &easy, &version, Verdict::Passed).await;
        team.act(dev, &format!("{v}/request_approval"), json!({}), 200)
            .await;
        let approve = format!("{v}/approve");
        let closed = team.act(approver, &approve, json!({}), 409).await;
        assert_eq!(closed["errors"][0]["field"], "verdict");
        let said = closed["errors"][0]["message"].as_str().unwrap();
        assert!(said.contains(" of e ended with verdict failed"), "{said}");

        for change in [
            json!({ "thresholds": at_least(0.0) }),
            json!({ "thresholds": {} }),
            json!({ "required": false }),
            json!({ "settings": { "prompts": ["easy@v1"] } }),
            json!({ "settings": { "engine_options": { "slots": 2 } } }),
        ] {
            let refused = rig.patch(&dev.key, "/evaluations/e", change).await;
            let refused = refused.expect(403);
            assert!(
                refused["detail"]
                    .as_str()
                    .unwrap()
                    .contains("somebody else")
            );
        }
        let unrequire = json!({ "evaluation": "e", "reason": "it is too hard" });
        team.act(dev, "/models/m/unrequire", unrequire.clone(), 403)
            .await;
        let put_away = rig
            .send(&dev.key, "DELETE", "/evaluations/e", None, &[])
            .await;
        put_away.expect(409);
        // What changes nothing of it is his own business.
        let slower = json!({ "settings": { "concurrency": 1 } });
        rig.patch(&dev.key, "/evaluations/e", slower)
            .await
            .expect(200);
        team.act(approver, &approve, json!({}), 409).await;

        // Somebody else may, and the log says so.
        team.act(approver, "/models/m/unrequire", unrequire, 200)
            .await;
        let log = team.audited("unrequire_evaluation").await;
        assert_eq!(log[0]["actor_name"], "approver");
        assert_eq!(log[0]["reason"], "it is too hard");
        assert_eq!(log[0]["after"]["before"]["thresholds"], at_least(0.8));
        team.act(approver, &approve, json!({}), 200).await;
        let required = rig.get(&dev.key, "/models/m/requirements").await;
        assert_eq!(required.expect(200)["items"][0]["name"], "easy");
    })
    .await;
}

/// Whoever lowers first and makes the version then has won nothing.
#[tokio::test]
async fn what_its_author_lowered_before_does_not_count_for_a_version() {
    on_both(async |fresh: Arc<Fresh>| {
        let team = Team::new(&fresh).await;
        let (rig, dev) = (&team.rig, &team.dev);
        let lower = json!({ "thresholds": at_least(0.0) });
        let lowered = rig
            .patch(&dev.key, "/evaluations/e", lower)
            .await
            .expect(200);
        let (v, version) = team.version().await;
        evaluated(rig, &lowered, &version, Verdict::Passed).await;
        team.act(dev, &format!("{v}/request_approval"), json!({}), 200)
            .await;
        let approve = format!("{v}/approve");
        let closed = team.act(&team.approver, &approve, json!({}), 409).await;
        let said = closed["errors"][0]["message"].as_str().unwrap();
        assert!(said.starts_with("dev, who made this version"), "{said}");
        // A colleague's other change confirms nothing; saying so does.
        let settings = json!({ "settings": { "concurrency": 2 } });
        rig.patch(&team.other.key, "/evaluations/e", settings)
            .await
            .expect(200);
        team.act(&team.approver, &approve, json!({}), 409).await;
        let confirm = json!({ "evaluation": "e", "reason": "it was too strict" });
        team.act(&team.other, "/models/m/require", confirm, 200)
            .await;
        team.act(&team.approver, &approve, json!({}), 200).await;
    })
    .await;
}

#[tokio::test]
async fn a_deployment_asks_for_more_than_its_model() {
    on_both(async |fresh: Arc<Fresh>| {
        let team = Team::new(&fresh).await;
        let rig = &team.rig;
        let deployment = json!({ "endpoint": "d", "model": "m", "department": "home" });
        rig.post("sk-root", "/deployments", deployment)
            .await
            .expect(201);
        let optional = json!({
            "model": "m", "name": "safety", "test_set": "tickets@v1", "required": false,
            "metrics": { "measure": [{ "kind": "token_f1" }] }, "thresholds": at_least(0.5),
        });
        let safety = rig.post(&team.dev.key, "/evaluations", optional).await;
        let safety = safety.expect(201);
        let (v, version) = team.version().await;
        evaluated(rig, &team.evaluation, &version, Verdict::Passed).await;
        team.act(&team.dev, &format!("{v}/request_approval"), json!({}), 200)
            .await;
        let ask = json!({ "evaluation": "safety", "reason": "it is for children" });
        rig.post("sk-root", "/deployments/d/require", ask.clone())
            .await
            .expect(200);
        let approve = format!("{v}/approve");
        let for_d = json!({ "deployment": "d" });
        let closed = team.act(&team.approver, &approve, for_d.clone(), 409).await;
        assert_eq!(closed["errors"][0]["field"], "evidence");
        team.act(&team.dev, "/deployments/d/unrequire", ask, 403)
            .await;
        // Passed by both lists.
        let mut tx = rig.store.begin().await.unwrap();
        let id = version["id"].as_str().unwrap().parse().unwrap();
        use crate::domain::model_version::ModelVersionEvent::Invalidate;
        tx.transition::<crate::domain::record::ModelVersion>(
            &crate::store::rig::system(),
            id,
            None,
            Invalidate,
            |_| {},
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        evaluated(rig, &safety, &version, Verdict::Passed).await;
        team.act(&team.dev, &format!("{v}/request_approval"), json!({}), 200)
            .await;
        team.act(&team.approver, &approve, for_d, 200).await;
    })
    .await;
}

#[tokio::test]
async fn where_nothing_is_required_the_gate_says_so_unless_the_department_lets_it_pass() {
    on_both(async |fresh: Arc<Fresh>| {
        let team = Team::new(&fresh).await;
        let (rig, dev, approver) = (&team.rig, &team.dev, &team.approver);
        rig.post(&dev.key, "/models", json!({ "name": "bare" }))
            .await
            .expect(201);
        let v = "/models/bare/versions/v1";
        rig.post(&dev.key, "/models/bare/versions", json!({}))
            .await
            .expect(201);
        team.act(
            dev,
            &format!("{v}/register"),
            json!({ "digest": DIGEST }),
            200,
        )
        .await;
        let ask = format!("{v}/request_approval");
        let closed = team.act(dev, &ask, json!({}), 409).await;
        assert_eq!(closed["errors"][0]["field"], "required_evaluations");

        let policy = "/departments/home/gate_policy";
        let allow = json!({ "allows": ["no_required_evaluations"], "reason": "a pilot" });
        team.act(dev, policy, allow.clone(), 403).await;
        let nameless = json!({ "allows": ["everything"], "reason": "a pilot" });
        team.act(approver, policy, nameless, 422).await;
        team.act(approver, policy, allow, 200).await;
        assert_eq!(
            team.audited("set_gate_policy").await[0]["reason"],
            "a pilot"
        );
        team.act(dev, &ask, json!({}), 200).await;
        team.act(approver, &format!("{v}/approve"), json!({}), 200)
            .await;
        let passed = &team.audited("override_gate").await[0]["after"]["overridden"][0];
        assert!(
            passed
                .as_str()
                .unwrap()
                .starts_with("no evaluation is required")
        );
        // Where something is required, it does not help.
        let (v, version) = team.version().await;
        evaluated(rig, &team.evaluation, &version, Verdict::Failed).await;
        team.act(dev, &format!("{v}/request_approval"), json!({}), 409)
            .await;
    })
    .await;
}

/// Evidence that does not hold any more is shown where the model's owner looks; the version stays what it is.
#[tokio::test]
async fn approved_versions_are_marked_when_their_evidence_is_outdated() {
    on_both(async |fresh: Arc<Fresh>| {
        let team = Team::new(&fresh).await;
        let (rig, dev) = (&team.rig, &team.dev);
        let (v, version) = team.version().await;
        evaluated(rig, &team.evaluation, &version, Verdict::Passed).await;
        for (who, verb) in [(dev, "request_approval"), (&team.approver, "approve")] {
            team.act(who, &format!("{v}/{verb}"), json!({}), 200).await;
        }
        let outdated = async || {
            let view = rig.get(&dev.key, "/models/m/view").await.expect(200);
            view["versions"][0].clone()
        };
        assert_eq!(outdated().await["evidence_outdated"], false);
        // Nothing of his is under way: the author may ask for more.
        let raise = json!({ "thresholds": at_least(0.9) });
        rig.patch(&dev.key, "/evaluations/e", raise)
            .await
            .expect(200);
        let now = outdated().await;
        assert_eq!(now["evidence_outdated"], true);
        assert_eq!(now["version"]["state"], "approved");
        assert!(
            now["evidence_missing"][0]
                .as_str()
                .unwrap()
                .contains("run it again")
        );
        // Archived and taken back it is approved again, and the gate asks all the same.
        team.act(dev, &format!("{v}/archive"), json!({}), 200).await;
        let back = team
            .act(dev, &format!("{v}/unarchive"), json!({}), 200)
            .await;
        assert_eq!(back["state"], "approved");
        let gate = rig.get(&dev.key, &format!("{v}/gate")).await.expect(200);
        assert_eq!(
            (&gate["open"], &gate["evidence_outdated"]),
            (&json!(false), &json!(true))
        );
    })
    .await;
}

/// An approver without a grant on the test set sees what he decides on, and what he does not see.
#[tokio::test]
async fn the_approver_sees_the_verdict_and_withdraws_it() {
    on_both(async |fresh: Arc<Fresh>| {
        let team = Team::new(&fresh).await;
        let (rig, dev, approver) = (&team.rig, &team.dev, &team.approver);
        let (v, version) = team.version().await;
        evaluated(rig, &team.evaluation, &version, Verdict::Passed).await;
        let runs = rig.get(&approver.key, "/evaluation_runs").await.expect(200);
        let run = format!(
            "/evaluation_runs/{}",
            runs["items"][0]["id"].as_str().unwrap()
        );
        let seen = rig.get(&approver.key, &run).await.expect(200);
        assert_eq!(
            (&seen["verdict"], &seen["scores"]["f1"]),
            (&json!("passed"), &json!(0.9))
        );
        let hidden = seen["samples_hidden"].as_str().unwrap();
        assert!(
            hidden.starts_with("hidden: no grant on tickets; dev"),
            "{hidden}"
        );
        let samples = rig.get(&approver.key, &format!("{run}/samples")).await;
        assert_eq!(samples.expect(403)["type"], "urn:sluice:problem:hidden");
        let view = rig.get(&approver.key, "/models/m/view").await.expect(200);
        assert_eq!(view["versions"][0]["evaluations"][0]["verdict"], "passed");

        // The owner grants, nobody else without the right does.
        let grant = json!({ "dataset": "tickets", "principal": "approver", "access": "read" });
        team.act(&team.other, "/grants", grant.clone(), 422).await;
        let made = team.act(dev, "/grants", grant, 201).await;
        assert_eq!(
            rig.get(&dev.key, "/grants").await.expect(200)["items"][0]["id"],
            made["id"]
        );
        rig.get(&approver.key, &format!("{run}/samples"))
            .await
            .expect(200);
        let path = format!("/grants/{}", made["id"].as_str().unwrap());
        let foreign = rig.send(&team.other.key, "DELETE", &path, None, &[]).await;
        foreign.expect(404);
        rig.send(&dev.key, "DELETE", &path, None, &[])
            .await
            .expect(204);

        let withdraw = format!("{run}/withdraw");
        let why = json!({ "reason": "it was trained on the test set" });
        team.act(dev, &withdraw, why.clone(), 403).await;
        team.act(approver, &withdraw, why, 200).await;
        let now = rig.get(&dev.key, &v).await.expect(200);
        assert_eq!(now["state"], "registered");
    })
    .await;
}
