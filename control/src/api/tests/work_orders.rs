#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};

use super::rig::{Person, Rig};
use super::versions::{evaluated, model_with_test_set};
use crate::domain::Verdict;
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::id::DepartmentId;
use crate::store::rig::{Fresh, on_both};

const DIGEST: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000bb";

fn problem(code: &str) -> String {
    format!("urn:sluice:problem:{code}")
}

struct People {
    home: DepartmentId,
    dev: Person,
    approver: Person,
    operator: Person,
}

async fn people(rig: &Rig) -> People {
    let home = rig.department("home").await;
    let person = async |name: &str, role| rig.person(home, name, role, Secrecy::Internal).await;
    People {
        home,
        dev: person("dev", Role::Developer).await,
        approver: person("approver", Role::Approver).await,
        operator: person("operator", Role::Operator).await,
    }
}

/// A version of `m`, approved for no deployment in particular.
async fn approved(rig: &Rig, people: &People, evaluation: &Value) -> Value {
    let made = rig
        .post(&people.dev.key, "/models/m/versions", json!({}))
        .await
        .expect(201);
    let v = format!("/models/m/versions/v{}", made["number"]);
    let digest = json!({ "digest": DIGEST });
    let version = rig
        .post(&people.dev.key, &format!("{v}/register"), digest)
        .await
        .expect(200);
    evaluated(rig, evaluation, &version, Verdict::Passed).await;
    for (key, verb) in [
        (&people.dev.key, "request_approval"),
        (&people.approver.key, "approve"),
    ] {
        rig.post(key, &format!("{v}/{verb}"), json!({}))
            .await
            .expect(200);
    }
    version
}

#[tokio::test]
async fn a_work_order_is_asked_for_approved_and_ended() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let people = people(&rig).await;
        let (dev, approver, operator) =
            (&people.dev.key, &people.approver.key, &people.operator.key);
        let evaluation = model_with_test_set(&rig, &people.dev).await;
        let deployment = json!({ "endpoint": "d", "model": "m", "cpu_millis": 2000 });
        rig.post(operator, "/deployments", deployment)
            .await
            .expect(201);
        let order = json!({ "deployment": "d", "version": "v1", "reason": "first" });

        // What is not there, or not approved.
        let missing = rig
            .post(dev, "/work_orders", order.clone())
            .await
            .expect(422);
        assert_eq!(missing["errors"][0]["field"], "version");
        rig.post(dev, "/models/m/versions", json!({}))
            .await
            .expect(201);
        let early = rig.post(dev, "/work_orders", order).await.expect(409);
        assert_eq!(early["type"], problem("not_approved"));

        approved(&rig, &people, &evaluation).await;
        let order = json!({ "deployment": "d", "version": "m@v2", "reason": "first" });
        let made = rig
            .post(dev, "/work_orders", order.clone())
            .await
            .expect(201);
        assert_eq!(made["state"], "pending");
        let at = format!("/work_orders/{}", made["id"].as_str().unwrap());
        rig.post(dev, "/work_orders", order.clone())
            .await
            .expect(409);

        // Who may.
        rig.post(dev, &format!("{at}/approve"), json!({}))
            .await
            .expect(403);
        rig.post(approver, &format!("{at}/abort"), json!({ "reason": "no" }))
            .await
            .expect(403);

        // A quota that it does not fit.
        let quota = json!({ "department": people.home.to_string(), "cpu_millis": 1000 });
        let quota = rig.post(operator, "/quotas", quota).await.expect(201);
        let full = rig
            .post(approver, &format!("{at}/approve"), json!({}))
            .await
            .expect(409);
        assert_eq!(
            (&full["type"], &full["errors"][0]["field"]),
            (&json!(problem("quota_exceeded")), &json!("cpu_millis"))
        );
        let more = json!({ "cpu_millis": 4000 });
        let quota = format!("/quotas/{}", quota["id"].as_str().unwrap());
        rig.patch(operator, &quota, more).await.expect(200);
        let order = rig
            .post(approver, &format!("{at}/approve"), json!({}))
            .await
            .expect(200);
        assert_eq!(
            (&order["state"], &order["approver"]),
            (&json!("approved"), &json!(people.approver.id.to_string()))
        );
        assert!(order["evidence"]["evaluation_run"].is_string());

        // It is not pending any more, and ends with a reason.
        let late = rig
            .post(approver, &format!("{at}/reject"), json!({ "reason": "no" }))
            .await
            .expect(409);
        assert_eq!(late["type"], problem("illegal_transition"));
        rig.post(operator, &format!("{at}/abort"), json!({ "reason": "" }))
            .await
            .expect(422);
        let over = rig
            .post(
                operator,
                &format!("{at}/abort"),
                json!({ "reason": "a mistake" }),
            )
            .await
            .expect(200);
        assert_eq!(
            (&over["state"], &over["ended_because"]),
            (&json!("aborted"), &json!("operator: a mistake"))
        );

        let reason = json!({ "reason": "it errs" });
        for verb in ["rollback", "stop"] {
            let path = format!("/deployments/d/{verb}");
            let nothing = rig.post(operator, &path, reason.clone()).await.expect(409);
            assert_eq!(nothing["type"], problem("nothing_live"));
        }
    })
    .await;
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_when_they_are_written() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let people = people(&rig).await;
        model_with_test_set(&rig, &people.dev).await;
        let refused = [
            (json!({ "slots": 0 }), "engine_options.slots"),
            (json!({ "slotz": 4 }), "engine_options"),
            (json!({ "path": "/etc" }), "engine_options"),
        ];
        for (options, field) in refused {
            let fields = json!({ "endpoint": "d", "model": "m", "engine_options": options });
            let problem = rig
                .post(&people.operator.key, "/deployments", fields)
                .await
                .expect(422);
            assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        }
    })
    .await;
}

#[tokio::test]
async fn without_authentication_one_person_can_do_all_of_it() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::with(&fresh.store, true).await;
        rig.post("", "/models", json!({ "name": "m" }))
            .await
            .expect(201);
        let version = rig
            .post("", "/models/m/versions", json!({}))
            .await
            .expect(201);
        // Nobody in particular: the gate cannot tell him from another.
        assert_eq!(version["author"], Value::Null);
    })
    .await;
}

#[tokio::test]
async fn a_document_orders_and_changes_nothing_again() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let people = people(&rig).await;
        let dev = &people.dev.key;
        let evaluation = model_with_test_set(&rig, &people.dev).await;
        let deployment = json!({ "endpoint": "d", "model": "m", "cpu_millis": 2000 });
        rig.post(&people.operator.key, "/deployments", deployment)
            .await
            .expect(201);
        approved(&rig, &people, &evaluation).await;
        let apply = async |version: &str, model: &str, dry_run: bool| {
            let records = json!([
                { "kind": "model", "name": model },
                { "kind": "work_order", "deployment": "d", "version": version, "reason": "as code" },
            ]);
            let body = json!({ "records": records, "dry_run": dry_run });
            rig.post(dev, "/apply", body).await
        };
        let orders = async || {
            let all = rig.get(dev, "/work_orders").await.expect(200);
            all["items"].as_array().unwrap().len()
        };
        let planned = apply("v1", "m2", true).await.expect(200);
        assert_eq!(planned["results"][1]["outcome"], "ordered");
        assert_eq!((orders().await, &planned["results"][1]["id"]), (0, &Value::Null));
        // One that cannot be ordered takes what was before it along.
        apply("v9", "m2", false).await.expect(422);
        rig.get(dev, "/models/m2").await.expect(404);
        let made = apply("v1", "m2", false).await.expect(200);
        let order = &made["results"][1];
        assert_eq!(
            (&order["outcome"], &order["after"]["state"]),
            (&json!("ordered"), &json!("pending"))
        );
        let again = apply("v1", "m2", false).await.expect(200);
        assert_eq!(again["results"][1]["outcome"], "unchanged");
        assert_eq!((orders().await, &again["results"][1]["id"]), (1, &order["id"]));
    })
    .await;
}
