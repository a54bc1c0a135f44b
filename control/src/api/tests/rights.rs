//! Each role against each route, from the OpenAPI document: a route without a right cannot be registered, and one
//! whose right is not what the table says fails here.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::json;

use super::rig::Rig;
use crate::api::openapi;
use crate::domain::record::Scope;
use crate::domain::roles::{Role, Verb};
use crate::domain::secrecy::Secrecy;
use crate::store::rig::{Fresh, on_both};

/// Method, path and right of every route.
fn operations() -> Vec<(String, String, Verb)> {
    let document = openapi();
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, methods)| {
        methods
            .as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| {
                let verb = operation["x-verb"].as_str().unwrap().parse().unwrap();
                (method.to_uppercase(), path.clone(), verb)
            })
    });
    all.collect()
}

/// A path to something that is not there: who may not is refused before that is looked up.
fn filled(path: &str) -> String {
    let segments = path
        .trim_start_matches("/api/v1")
        .split('/')
        .map(|segment| {
            if segment.starts_with('{') {
                "nothing"
            } else {
                segment
            }
        });
    segments.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn each_role_is_tried_against_each_route() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let routes = operations();
        assert!(routes.len() > 80, "{} routes", routes.len());
        for &role in Role::ALL {
            let person = rig.person(home, role.word(), role, Secrecy::Internal).await;
            for (method, path, verb) in &routes {
                // A field that no body has: who may is told so, or that there is no such record.
                let body = (method != "GET").then(|| json!({ "no_such_field": 1 }));
                let answered = rig
                    .send(&person.key, method, &filled(path), body, &[])
                    .await;
                let refused = answered.status == 403;
                assert_eq!(
                    refused,
                    !role.may(*verb),
                    "{role}: {method} {path} ({verb}): {}",
                    answered.body
                );
                assert!(
                    !answered.status.is_server_error(),
                    "{method} {path}: {}",
                    answered.body
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_goes_no_further_than_its_scopes() {
    let fresh = Fresh::sqlite().await;
    let rig = Rig::start(&fresh.store).await;
    let home = rig.department("home").await;
    let admin = rig.person(home, "boss", Role::Admin, Secrecy::Secret).await;
    for (scopes, reads, writes) in [
        (&[Scope::Inference][..], false, false),
        (&[Scope::Read][..], true, false),
        (&[Scope::Write][..], false, true),
        (&[][..], false, false),
    ] {
        let key = rig.key(admin.id, scopes).await;
        for (method, path, _) in operations() {
            let body = (method != "GET").then(|| json!({ "no_such_field": 1 }));
            let answered = rig.send(&key, &method, &filled(&path), body, &[]).await;
            let allowed = if method == "GET" { reads } else { writes };
            assert_eq!(
                answered.status != 403,
                allowed,
                "{scopes:?}: {method} {path}: {}",
                answered.body
            );
        }
    }
}

#[tokio::test]
async fn a_department_is_closed_to_others() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let (home, other) = (rig.department("home").await, rig.department("other").await);
        let dev = rig
            .person(home, "dev", Role::Developer, Secrecy::Internal)
            .await;
        let stranger = rig
            .person(other, "stranger", Role::Developer, Secrecy::Internal)
            .await;
        let operator = rig
            .person(home, "operator", Role::Operator, Secrecy::Internal)
            .await;
        rig.post(&dev.key, "/models", json!({ "name": "m" }))
            .await
            .expect(201);
        rig.post(&dev.key, "/models/m/versions", json!({}))
            .await
            .expect(201);
        rig.post(&dev.key, "/trainings", json!({ "model": "m", "name": "t" }))
            .await
            .expect(201);
        rig.post(
            &dev.key,
            "/evaluations",
            json!({ "model": "m", "name": "e", "metrics": { "measure": [{ "kind": "token_f1" }] } }),
        )
        .await
        .expect(201);
        rig.post(
            &operator.key,
            "/deployments",
            json!({ "endpoint": "d", "model": "m" }),
        )
        .await
        .expect(201);

        for path in [
            "/models/m",
            "/models/m/view",
            "/models/m/versions/1",
            "/trainings/t",
            "/evaluations/e",
            "/deployments/d",
            "/principals/dev",
            "/departments/home",
        ] {
            rig.get(&stranger.key, path).await.expect(404);
            rig.get(&dev.key, path).await.expect(200);
            rig.get("sk-root", path).await.expect(200);
        }
        for list in ["/models", "/trainings", "/evaluations", "/deployments"] {
            let seen = rig.get(&stranger.key, list).await.expect(200);
            assert_eq!(seen["items"], json!([]), "{list}");
            let seen = rig.get(&dev.key, list).await.expect(200);
            assert_eq!(seen["items"].as_array().unwrap().len(), 1, "{list}");
        }
        rig.patch(&stranger.key, "/models/m", json!({ "description": "mine" }))
            .await
            .expect(404);
        // Neither can anything be put there.
        let refused = rig
            .post(
                &stranger.key,
                "/models",
                json!({ "name": "x", "department": "home" }),
            )
            .await;
        refused.expect(422);
        let refused = rig
            .post(
                &stranger.key,
                "/evaluations",
                json!({ "name": "x", "model": "m", "metrics": { "measure": [{ "kind": "token_f1" }] } }),
            )
            .await
            .expect(422);
        assert_eq!(refused["errors"][0]["field"], "model");
        // Only one's own department's use and log are seen.
        let log = rig.get(&operator.key, "/audit").await.expect(200);
        assert!(
            log["items"]
                .as_array()
                .unwrap()
                .iter()
                .all(|it| it["actor"] != stranger.id.to_string())
        );
        assert!(!log["items"].as_array().unwrap().is_empty());
    })
    .await;
}

#[test]
fn the_document_describes_every_route_in_full() {
    let document = openapi();
    assert_eq!(document["openapi"], "3.1.0");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(
            schemas.contains_key(name),
            "{name} is referred to and not there"
        );
    }
    let mut ids = std::collections::HashSet::new();
    for (method, path, _) in operations() {
        let operation = &document["paths"][&path][method.to_lowercase()];
        assert!(
            ids.insert(operation["operationId"].to_string()),
            "{method} {path}"
        );
        assert!(!operation["summary"].as_str().unwrap().is_empty());
        if method == "PATCH" {
            assert!(operation["requestBody"].is_object(), "{path}");
        }
    }
    assert!(
        !text.contains("\"hash\""),
        "a key's hash is nobody's business"
    );
}

#[test]
fn the_document_says_what_is_always_answered() {
    let document = openapi();
    let schemas = &document["components"]["schemas"];
    let problem = &schemas["Problem"]["properties"];
    for field in ["type", "title", "status", "detail", "errors"] {
        assert!(problem[field].is_object(), "{field}: {problem}");
    }
    let required = |name: &str| -> Vec<&str> {
        let fields = schemas[name]["required"].as_array().unwrap();
        fields.iter().map(|it| it.as_str().unwrap()).collect()
    };
    let model = required("ModelRecord");
    for field in ["id", "version", "owner", "code_url", "dashboard_url"] {
        assert!(model.contains(&field), "{field}: {model:?}");
    }
    // What is only there for some is not.
    assert!(!model.contains(&"deleted_at") && !required("Problem").contains(&"legal_events"));
    // What may be left out may be left out still.
    assert_eq!(required("ModelFields"), ["name"]);
    let changed = &document["paths"]["/api/v1/deployments/{id}"]["patch"];
    let schema = &changed["requestBody"]["content"]["application/json"]["schema"];
    assert!(schema["properties"]["cpu_millis"]["default"].is_null());
    assert!(schema["required"].is_null());
}
