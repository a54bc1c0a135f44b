//! Keys: what one makes reaches no further than itself, and ends with it.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_gateway::access::{Clearance, Reach, Rights};
use sluice_gateway::auth::{KeyEntry, keys};

use super::rig::Rig;
use crate::domain::record::Scope;
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::store::rig::{Fresh, on_both};
use crate::time::Timestamp;

fn secret(made: &Value) -> String {
    made["secret"].as_str().unwrap().to_owned()
}

fn id(made: &Value) -> String {
    made["key"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_makes_none_that_reaches_further_or_lasts_longer() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let ada = rig.person(home, "ada", Role::Viewer, Secrecy::Internal).await;
        let end = Timestamp::now().after(Duration::from_secs(3600));
        let limited = json!({
            "name": "limited", "scopes": ["read", "write", "inference"], "expires_at": end, "models": ["a", "b"],
        });
        let made = rig.post(&ada.key, "/keys", limited).await.expect(201);
        let key = secret(&made);
        let later = end.after(Duration::from_secs(1));
        for (body, field) in [
            (json!({"name": "k", "expires_at": later}), "expires_at"),
            (json!({"name": "k", "models": ["a", "c"]}), "models"),
        ] {
            let refused = rig.post(&key, "/keys", body).await.expect(422);
            assert_eq!(refused["errors"][0]["field"], field);
        }
        // What is left open is as the key that asks has it.
        let child = rig.post(&key, "/keys", json!({"name": "child"})).await.expect(201);
        assert_eq!(child["key"]["expires_at"], made["key"]["expires_at"]);
        assert_eq!(child["key"]["models"], json!(["a", "b"]));
        assert_eq!(child["key"]["made_by"], made["key"]["id"]);
        // The person's other key is not his to take over by a rotation.
        let wide = rig.post(&ada.key, "/keys", json!({"name": "wide"})).await.expect(201);
        rig.post(&key, &format!("/keys/{}/rotate", id(&wide)), json!({}))
            .await
            .expect(422);
    })
    .await;
}

#[tokio::test]
async fn what_a_key_made_ends_with_it_and_what_it_made_for_others_is_shown() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let boss = rig.person(home, "boss", Role::Admin, Secrecy::Secret).await;
        rig.person(home, "ada", Role::Viewer, Secrecy::Internal)
            .await;
        let first = rig
            .post(&boss.key, "/keys", json!({"name": "first"}))
            .await
            .expect(201);
        let second = rig
            .post(&secret(&first), "/keys", json!({"name": "second"}))
            .await
            .expect(201);
        let third = rig
            .post(&secret(&second), "/keys", json!({"name": "third"}))
            .await
            .expect(201);
        let hers = rig
            .post(
                &secret(&second),
                "/keys",
                json!({"name": "hers", "principal": "ada"}),
            )
            .await
            .expect(201);
        let counts = async |made: &Value| rig.get(&secret(made), "/me").await.status == 200;
        assert!(counts(&third).await && counts(&hers).await);
        rig.send(
            &boss.key,
            "DELETE",
            &format!("/keys/{}", id(&first)),
            None,
            &[],
        )
        .await
        .expect(204);
        assert!(!counts(&second).await && !counts(&third).await);
        let in_force = rig.store.keys_in_force(Timestamp::now()).await.unwrap();
        let published = |made: &Value| in_force.iter().any(|it| it.key.id.to_string() == id(made));
        assert!(!published(&second) && !published(&third) && published(&hers));
        // Somebody else's stays, and says whose work it is.
        assert!(counts(&hers).await);
        let path = format!("/keys?principal=*&made_by={}", id(&second));
        let shown = rig.get(&boss.key, &path).await.expect(200);
        let names: Vec<_> = shown["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["name"].clone())
            .collect();
        assert_eq!(names, ["hers", "third"]);
    })
    .await;
}

#[tokio::test]
async fn a_rotation_overlaps_and_keeps_what_the_key_made() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let ada = rig
            .person(home, "ada", Role::Viewer, Secrecy::Internal)
            .await;
        let body = json!({"name": "ci", "models": ["a"], "tokens_per_month": 1000});
        let old = rig.post(&ada.key, "/keys", body).await.expect(201);
        let child = rig
            .post(&secret(&old), "/keys", json!({"name": "child"}))
            .await
            .expect(201);
        let next = rig
            .post(
                &ada.key,
                "/keys/ci/rotate",
                json!({"overlap_seconds": 3600}),
            )
            .await
            .expect(201);
        for field in ["name", "models", "tokens_per_month", "scopes"] {
            assert_eq!(next["key"][field], old["key"][field], "{field}");
        }
        assert_eq!(next["key"]["line"], old["key"]["id"]);
        for made in [&old, &next, &child] {
            rig.get(&secret(made), "/me").await.expect(200);
        }
        // At once, without an overlap; what the line made counts on.
        let last = rig
            .post(&ada.key, &format!("/keys/{}/rotate", id(&next)), json!({}))
            .await
            .expect(201);
        rig.get(&secret(&next), "/me").await.expect(401);
        rig.get(&secret(&last), "/me").await.expect(200);
        rig.send(
            &ada.key,
            "DELETE",
            &format!("/keys/{}", id(&old)),
            None,
            &[],
        )
        .await
        .expect(204);
        rig.get(&secret(&child), "/me").await.expect(200);
        rig.send(
            &ada.key,
            "DELETE",
            &format!("/keys/{}", id(&last)),
            None,
            &[],
        )
        .await
        .expect(204);
        rig.get(&secret(&child), "/me").await.expect(401);
    })
    .await;
}

/// Keys of the file as they stand in it at one time.
fn file(entries: &[(&str, &str, &str)]) -> Vec<KeyEntry> {
    let text: Vec<_> = entries
        .iter()
        .map(|(name, secret, _)| format!("{name}:{secret}"))
        .collect();
    let mut made = keys::from_environment(&text.join(",")).unwrap();
    for (entry, (_, _, role)) in made.iter_mut().zip(entries) {
        entry.role = Some(Arc::from(*role));
        entry.rights = match *role {
            "admin" => Rights::unlimited(),
            _ => Rights {
                reach: Reach::Department,
                clearance: Clearance::Internal,
                ..Rights::default()
            },
        };
    }
    made
}

#[tokio::test]
async fn a_key_of_the_file_is_who_it_is_by_the_key_and_may_what_the_file_says_now() {
    let fresh = Fresh::sqlite().await;
    let rig = Rig::with_keys(&fresh.store, file(&[("eve", "sk-eve", "admin")])).await;
    let home = rig.department("home").await;
    let boss = rig.person(home, "boss", Role::Admin, Secrecy::Secret).await;
    let made = rig
        .post("sk-eve", "/keys", json!({"name": "k"}))
        .await
        .expect(201);
    let may = async |key: &str, name: &str| {
        let asked = rig.post(key, "/departments", json!({"name": name})).await;
        asked.status == 201
    };
    assert!(may(&secret(&made), "one").await);

    // Demoted; and one that is called as an administrator is.
    rig.replace_file_keys(file(&[
        ("eve", "sk-eve", "viewer"),
        ("boss", "sk-boss", "viewer"),
    ]));
    assert!(!may("sk-eve", "two").await && !may(&secret(&made), "three").await);
    let again = rig
        .post("sk-eve", "/keys", json!({"name": "l"}))
        .await
        .expect(201);
    assert!(!may(&secret(&again), "four").await);
    let me = rig.get("sk-boss", "/me").await.expect(200);
    assert_ne!(me["principal"]["id"], boss.id.to_string());
    let theirs = rig
        .post("sk-boss", "/keys", json!({"name": "m"}))
        .await
        .expect(201);
    assert!(!may(&secret(&theirs), "five").await && may(&boss.key, "six").await);

    // Withdrawn: what it made goes with it.
    rig.get(&secret(&made), "/me").await.expect(200);
    rig.replace_file_keys(file(&[("boss", "sk-boss", "viewer")]));
    rig.get(&secret(&made), "/me").await.expect(401);
    rig.get("sk-eve", "/me").await.expect(401);
}

#[tokio::test]
async fn the_last_use_of_a_key_is_kept() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let ada = rig
            .person(home, "ada", Role::Viewer, Secrecy::Internal)
            .await;
        let key = rig.key(ada.id, &[Scope::Read]).await;
        rig.get(&key, "/me").await.expect(200);
        for _ in 0..200 {
            let keys = rig.get(&ada.key, "/keys").await.expect(200);
            let used = keys["items"].as_array().unwrap().iter();
            if used.filter(|it| !it["last_used_at"].is_null()).count() == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no use was noted");
    })
    .await;
}
