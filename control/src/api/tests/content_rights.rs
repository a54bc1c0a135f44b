//! A grant gives what it says, a digest opens nothing, and secrecy follows the content.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};

use super::rig::{Person, Rig};
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::store::rig::{Fresh, on_both};

fn digest(number: u8) -> String {
    format!("sha256:{number:064x}")
}

struct Desk {
    rig: Rig,
    owner: Person,
    reader: Person,
    stranger: Person,
}

/// `hot` is secret and of `owner`; `reader` may do with it what `access` says.
async fn desk(fresh: &Fresh, access: &str) -> Desk {
    let rig = Rig::start(&fresh.store).await;
    let (home, away) = (rig.department("home").await, rig.department("away").await);
    let person =
        async |at, name: &str| rig.person(at, name, Role::Developer, Secrecy::Secret).await;
    let desk = Desk {
        owner: person(home, "owner").await,
        reader: person(home, "reader").await,
        stranger: person(away, "stranger").await,
        rig,
    };
    desk.dataset("hot", "secret").await;
    desk.data("hot", json!({ "digest": digest(1) }), 201).await;
    let grant = json!({ "dataset": "hot", "principal": "reader", "access": access });
    desk.rig
        .post(&desk.owner.key, "/grants", grant)
        .await
        .expect(201);
    desk
}

impl Desk {
    async fn dataset(&self, name: &str, secrecy: &str) -> Value {
        let fields = json!({ "name": name, "secrecy": secrecy });
        let made = self.rig.post(&self.owner.key, "/datasets", fields).await;
        made.expect(201)
    }

    async fn data(&self, name: &str, fields: Value, status: u16) -> Value {
        let path = format!("/datasets/{name}/versions");
        let made = self.rig.post(&self.owner.key, &path, fields).await;
        made.expect(status)
    }

    async fn secrecy(&self, name: &str) -> Value {
        let path = format!("/datasets/{name}");
        let found = self.rig.get(&self.owner.key, &path).await;
        found.expect(200)["secrecy"].clone()
    }
}

#[tokio::test]
async fn a_grant_reaches_as_far_as_it_says() {
    on_both(async |fresh: Arc<Fresh>| {
        for (access, edits) in [("read", false), ("use", false), ("edit", true)] {
            let fresh = Fresh::sqlite().await;
            let desk = desk(&fresh, access).await;
            let (rig, key) = (&desk.rig, &desk.reader.key);
            let status = async |fields| {
                rig.patch(key, "/datasets/hot", fields)
                    .await
                    .status
                    .as_u16()
            };
            for owned in [
                json!({ "secrecy": "public" }),
                json!({ "owner": "reader" }),
                json!({ "owner": null }),
            ] {
                assert_eq!(status(owned.clone()).await, 403, "{access}: {owned}");
            }
            let edited = status(json!({ "description": "mine" })).await;
            assert_eq!(edited, if edits { 200 } else { 403 }, "{access}");
            let added = rig
                .post(
                    key,
                    "/datasets/hot/versions",
                    json!({ "digest": digest(2) }),
                )
                .await;
            assert_eq!(
                added.status.as_u16(),
                if edits { 201 } else { 403 },
                "{access}"
            );
            let removed = rig.send(key, "DELETE", "/datasets/hot", None, &[]).await;
            removed.expect(403);
            let shared = json!({ "dataset": "hot", "principal": "stranger", "access": "read" });
            rig.post(key, "/grants", shared).await.expect(403);
        }
        let desk = desk(&fresh, "read").await;
        let (rig, key) = (&desk.rig, &desk.owner.key);
        let given = json!({ "description": "the owner's", "owner": "reader" });
        rig.patch(key, "/datasets/hot", given).await.expect(200);
        rig.send(&desk.reader.key, "DELETE", "/datasets/hot", None, &[])
            .await
            .expect(204);
    })
    .await;
}

/// A grant reaches across departments, and so does the right to edit that it gives.
#[tokio::test]
async fn a_grant_to_edit_counts_in_another_department_too() {
    let fresh = Fresh::sqlite().await;
    let desk = desk(&fresh, "read").await;
    let (rig, key) = (&desk.rig, &desk.stranger.key);
    let path = "/datasets/hot";
    let change = json!({ "description": "seen from away" });
    rig.patch(key, path, change.clone()).await.expect(404);
    let department = json!({ "dataset": "hot", "department": "away", "access": "edit" });
    rig.post("sk-root", "/grants", department).await.expect(201);
    rig.patch(key, path, change).await.expect(200);
    let lower = json!({ "secrecy": "public" });
    rig.patch(key, path, lower).await.expect(403);
}

#[tokio::test]
async fn secrecy_never_falls_by_derivation() {
    on_both(async |fresh: Arc<Fresh>| {
        let desk = desk(&fresh, "use").await;
        for (name, secrecy) in [
            ("open", "public"),
            ("middle", "secret"),
            ("late", "internal"),
        ] {
            desk.dataset(name, secrecy).await;
        }
        let refused = desk
            .data(
                "open",
                json!({ "digest": digest(3), "parent": "hot@v1" }),
                422,
            )
            .await;
        assert_eq!(refused["errors"][0]["field"], "parent");
        // By way of another, and by the content itself.
        desk.data(
            "middle",
            json!({ "digest": digest(4), "parent": "hot@v1" }),
            201,
        )
        .await;
        desk.data(
            "open",
            json!({ "digest": digest(5), "parent": "middle@v1" }),
            422,
        )
        .await;
        let refused = desk.data("open", json!({ "digest": digest(1) }), 422).await;
        assert_eq!(refused["errors"][0]["field"], "digest");
        // Nor may what was derived be lowered afterwards.
        let path = "/datasets/middle";
        let lower = json!({ "secrecy": "internal" });
        desk.rig
            .patch(&desk.owner.key, path, lower)
            .await
            .expect(422);
        // What becomes more secret takes with it what was made of it.
        desk.data("open", json!({ "digest": digest(6) }), 201).await;
        desk.data(
            "late",
            json!({ "digest": digest(7), "parent": "open@v1" }),
            201,
        )
        .await;
        let raise = json!({ "secrecy": "confidential" });
        desk.rig
            .patch(&desk.owner.key, "/datasets/open", raise)
            .await
            .expect(200);
        assert_eq!(desk.secrecy("late").await, "confidential");
    })
    .await;
}

/// The gate of a version that was trained on secret data, whatever its records leave out.
#[tokio::test]
async fn secrecy_follows_a_model_by_its_digest() {
    on_both(async |fresh: Arc<Fresh>| {
        let desk = desk(&fresh, "use").await;
        let (rig, key) = (&desk.rig, &desk.owner.key);
        rig.post(key, "/models", json!({ "name": "m" }))
            .await
            .expect(201);
        let trained = json!({ "datasets": [{ "dataset": "hot@v1" }] });
        for body in [trained, json!({})] {
            rig.post(key, "/models/m/versions", body).await.expect(201);
        }
        for v in ["v1", "v2"] {
            let register = format!("/models/m/versions/{v}/register");
            let named = json!({ "digest": digest(9) });
            rig.post(key, &register, named).await.expect(200);
        }
        let deployment =
            json!({ "endpoint": "d", "model": "m", "department": "home", "clearance": "internal" });
        rig.post("sk-root", "/deployments", deployment)
            .await
            .expect(201);
        // A version that was tuned from it.
        let training = json!({ "model": "m", "name": "tune", "base_version": "m@v2" });
        rig.post(key, "/trainings", training).await.expect(201);
        let run = rig.post(key, "/trainings/tune/runs", json!({})).await;
        let run = run.expect(201)["id"].clone();
        rig.post(key, "/models/m/versions", json!({ "training_run": run }))
            .await
            .expect(201);
        for v in ["v1", "v2", "v3"] {
            let gate = format!("/models/m/versions/{v}/gate?deployment=d");
            let gate = rig.get(key, &gate).await.expect(200);
            let missing = gate["missing"].as_array().unwrap();
            assert!(
                missing.iter().any(|it| it["field"] == "secrecy"),
                "{v}: {gate}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_digest_alone_gives_no_right_to_the_content() {
    on_both(async |fresh: Arc<Fresh>| {
        let desk = desk(&fresh, "read").await;
        let rig = &desk.rig;
        for (who, model) in [(&desk.owner, "theirs"), (&desk.stranger, "copy")] {
            rig.post(&who.key, "/models", json!({ "name": model }))
                .await
                .expect(201);
            rig.post(&who.key, &format!("/models/{model}/versions"), json!({}))
                .await
                .expect(201);
        }
        let weights = json!({ "digest": digest(9) });
        let register = "/models/theirs/versions/v1/register";
        rig.post(&desk.owner.key, register, weights.clone())
            .await
            .expect(200);
        let register = "/models/copy/versions/v1/register";
        for content in [weights, json!({ "digest": digest(1) })] {
            let refused = rig.post(&desk.stranger.key, register, content).await;
            refused.expect(403);
        }
        // Who may read the data does not make data of it.
        let mine = json!({ "name": "mine", "secrecy": "secret" });
        for (who, name) in [(&desk.reader, "first"), (&desk.stranger, "second")] {
            let name = json!({ "name": name, "secrecy": "secret" });
            let made = rig.post(&who.key, "/datasets", name).await.expect(201);
            let path = format!("/datasets/{}/versions", made["id"].as_str().unwrap());
            let named = json!({ "digest": digest(1) });
            rig.post(&who.key, &path, named).await.expect(403);
        }
        rig.post(&desk.owner.key, "/datasets", mine)
            .await
            .expect(201);
        desk.data("mine", json!({ "digest": digest(1) }), 201).await;
    })
    .await;
}
