//! Beyond one's own clearance or department, and names that the configuration serves.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::json;
use sluice_gateway::config::DeploymentConfig;
use sluice_gateway::router::{RouteTable, load};

use super::rig::Rig;
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::store::rig::{Fresh, on_both};

#[tokio::test]
async fn nobody_gives_or_touches_more_than_his_clearance() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let person =
            async |name: &str, role, clearance| rig.person(home, name, role, clearance).await;
        let dev = person("dev", Role::Developer, Secrecy::Internal).await;
        let operator = person("operator", Role::Operator, Secrecy::Internal).await;
        let approver = person("approver", Role::Approver, Secrecy::Internal).await;
        let cleared = person("cleared", Role::Operator, Secrecy::Secret).await;
        let admin = person("admin", Role::Admin, Secrecy::Internal).await;
        rig.post(&dev.key, "/models", json!({"name": "m"}))
            .await
            .expect(201);
        let d = json!({"endpoint": "d", "model": "m"});
        rig.post(&operator.key, "/deployments", d).await.expect(201);

        // Not raised, and not made, beyond one's own.
        let secret = json!({"clearance": "secret"});
        rig.patch(&operator.key, "/deployments/d", secret.clone())
            .await
            .expect(403);
        let s = json!({"endpoint": "s", "model": "m", "clearance": "secret"});
        rig.post(&operator.key, "/deployments", s).await.expect(403);
        rig.patch(&cleared.key, "/deployments/d", secret)
            .await
            .expect(200);
        // And once it is, not touched: neither lowered, nor granted, nor operated.
        for body in [json!({"clearance": "public"}), json!({"open_to_all": true})] {
            rig.patch(&operator.key, "/deployments/d", body)
                .await
                .expect(403);
        }
        let grant = json!({"deployment": "d", "principal": "dev", "access": "use"});
        rig.post(&approver.key, "/grants", grant).await.expect(403);
        let order = json!({"deployment": "d", "version": "v1"});
        rig.post(&dev.key, "/work_orders", order).await.expect(403);
        for verb in ["rollback", "stop"] {
            let path = format!("/deployments/d/{verb}");
            rig.post(&operator.key, &path, json!({"reason": "x"}))
                .await
                .expect(403);
        }
        // It is still seen.
        rig.get(&operator.key, "/deployments/d").await.expect(200);

        // People and their keys.
        let eve = json!({"name": "eve", "role": "viewer", "clearance": "secret"});
        rig.post(&admin.key, "/principals", eve).await.expect(403);
        let raised = json!({"clearance": "secret"});
        rig.patch(&admin.key, "/principals/admin", raised.clone())
            .await
            .expect(403);
        rig.patch(&admin.key, "/principals/cleared", json!({"role": "viewer"}))
            .await
            .expect(403);
        rig.send(&admin.key, "DELETE", "/principals/cleared", None, &[])
            .await
            .expect(403);
        let theirs = json!({"name": "k", "principal": "cleared"});
        rig.post(&admin.key, "/keys", theirs).await.expect(403);
        rig.patch("sk-root", "/principals/dev", raised)
            .await
            .expect(200);
    })
    .await;
}

#[tokio::test]
async fn deployments_are_granted_to_others_by_those_who_answer_for_them() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let (home, other) = (rig.department("home").await, rig.department("other").await);
        let person = async |department, name: &str, role| {
            rig.person(department, name, role, Secrecy::Internal).await
        };
        let dev = person(home, "dev", Role::Developer).await;
        let operator = person(home, "operator", Role::Operator).await;
        let approver = person(home, "approver", Role::Approver).await;
        let stranger = person(other, "stranger", Role::Operator).await;
        rig.post(&dev.key, "/models", json!({"name": "m"})).await.expect(201);
        let d = json!({"endpoint": "d", "model": "m"});
        rig.post(&operator.key, "/deployments", d).await.expect(201);
        let to = |whom: &str, access: &str| json!({"deployment": "d", "department": whom, "access": access});
        rig.post(&operator.key, "/grants", to("other", "use")).await.expect(201);
        let person = json!({"deployment": "d", "principal": "stranger", "access": "use"});
        let granted = rig.post(&approver.key, "/grants", person).await.expect(201);
        rig.post(&operator.key, "/grants", to("other", "edit")).await.expect(422);
        rig.post(&operator.key, "/grants", to("nowhere", "use")).await.expect(422);
        rig.post(&dev.key, "/grants", to("other", "use")).await.expect(403);
        rig.post(&stranger.key, "/grants", to("other", "use")).await.expect(422);
        let path = format!("/grants/{}", granted["id"].as_str().unwrap());
        rig.send(&stranger.key, "DELETE", &path, None, &[]).await.expect(404);
        rig.send(&dev.key, "DELETE", &path, None, &[]).await.expect(404);
        rig.send(&operator.key, "DELETE", &path, None, &[]).await.expect(204);
        let audience = &fresh.store.deployment_audiences().await.unwrap()[0];
        assert_eq!(audience.departments, ["other"]);
        assert!(audience.people.is_empty());

        // The owner of a model gives access to it, and another developer does not.
        let second = rig.person(home, "second", Role::Developer, Secrecy::Internal).await;
        let model = json!({"model": "m", "department": "home", "access": "use"});
        rig.post(&second.key, "/grants", model.clone()).await.expect(403);
        rig.post(&dev.key, "/grants", model).await.expect(201);
    })
    .await;
}

#[tokio::test]
async fn a_name_of_the_configuration_takes_an_administrator() {
    let fresh = Fresh::sqlite().await;
    let rig = Rig::start(&fresh.store).await;
    let home = rig.department("home").await;
    let dev = rig
        .person(home, "dev", Role::Developer, Secrecy::Internal)
        .await;
    let operator = rig
        .person(home, "operator", Role::Operator, Secrecy::Internal)
        .await;
    rig.post(&dev.key, "/models", json!({"name": "m"}))
        .await
        .expect(201);
    let config = DeploymentConfig::of_upstream("served", "http://127.0.0.1:9/v1");
    let served = load::deployment(rig.gateway(), &config).await.unwrap();
    rig.gateway()
        .publish(RouteTable::new(vec![served]).unwrap());

    let body = json!({"endpoint": "served", "model": "m", "department": "home"});
    rig.post(&operator.key, "/deployments", body.clone())
        .await
        .expect(403);
    let own = json!({"endpoint": "own", "model": "m"});
    rig.post(&operator.key, "/deployments", own)
        .await
        .expect(201);
    let renamed = json!({"endpoint": "served"});
    rig.patch(&operator.key, "/deployments/own", renamed)
        .await
        .expect(403);
    let adopted = json!({"adopted": true});
    rig.patch(&operator.key, "/deployments/own", adopted)
        .await
        .expect(403);
    let made = rig.post("sk-root", "/deployments", body).await.expect(201);
    assert_eq!(made["adopted"], true);
    // Whoever operates it afterwards does not undo that.
    let cores = json!({"cpu_millis": 2000});
    let changed = rig
        .patch(&operator.key, "/deployments/served", cores)
        .await
        .expect(200);
    assert_eq!(changed["adopted"], true);
}

#[tokio::test]
async fn an_annotator_sees_what_was_granted_by_name() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let dev = rig
            .person(home, "dev", Role::Developer, Secrecy::Internal)
            .await;
        let ann = rig
            .person(home, "ann", Role::Annotator, Secrecy::Internal)
            .await;
        for name in ["shared", "hers", "other"] {
            rig.post(&dev.key, "/datasets", json!({"name": name}))
                .await
                .expect(201);
        }
        let shared = json!({"dataset": "shared", "department": "home", "access": "read"});
        rig.post(&dev.key, "/grants", shared).await.expect(201);
        let hers = json!({"dataset": "hers", "principal": "ann", "access": "read"});
        rig.post(&dev.key, "/grants", hers).await.expect(201);
        let seen = rig.get(&ann.key, "/datasets").await.expect(200);
        assert_eq!(seen["items"].as_array().unwrap().len(), 1);
        rig.get(&ann.key, "/datasets/hers").await.expect(200);
        rig.get(&ann.key, "/datasets/shared").await.expect(404);
        for path in [
            "/models",
            "/deployments",
            "/evaluations",
            "/tasks",
            "/artifacts",
            "/grants",
        ] {
            rig.get(&ann.key, path).await.expect(403);
        }
        let me = rig.get(&ann.key, "/me").await.expect(200);
        assert_eq!(
            me["may"],
            json!(["view_granted", "manage_own_keys", "annotate"])
        );
    })
    .await;
}
