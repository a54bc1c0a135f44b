#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::json;

use super::rig::{Rig, encoded};
use crate::api::openapi;
use crate::store::rig::{Fresh, on_both};

#[tokio::test]
async fn what_is_not_understood_is_refused_by_its_name() {
    let fresh = Fresh::sqlite().await;
    let rig = Rig::with(&fresh.store, true).await;
    for (body, field, words) in [
        (
            json!({ "name": "m", "descripton": "x" }),
            "descripton",
            "did you mean description?",
        ),
        (json!({ "description": "x" }), "name", "is missing"),
        (json!({ "name": 5 }), "name", "string"),
        (json!({ "name": "a/b" }), "name", "letters"),
        (json!({ "name": "" }), "name", "letters"),
        (
            json!({ "name": "mdl_00000000000000000000000000" }),
            "name",
            "id",
        ),
        (
            json!({ "name": "m", "owner": "nobody" }),
            "owner",
            "there is no principal nobody",
        ),
        (
            json!({ "name": "m", "code_url": "javascript:alert(1)" }),
            "code_url",
            "https://",
        ),
        (
            json!({ "name": "m", "description": "a\u{0}b" }),
            "description",
            "NUL",
        ),
        (
            json!({ "name": "m", "description": "x".repeat(70_000) }),
            "description",
            "at most",
        ),
    ] {
        let refused = rig.post("", "/models", body).await.expect(422);
        assert_eq!(refused["errors"][0]["field"], field, "{refused}");
        assert!(
            refused["errors"][0]["message"]
                .as_str()
                .unwrap()
                .contains(words),
            "{refused}"
        );
    }
    let grammar = rig
        .send(
            "",
            "POST",
            "/models",
            None,
            &[("content-type", "application/json")],
        )
        .await;
    assert_eq!(grammar.expect(422)["errors"][0]["field"], "name");
    let plain = rig
        .send(
            "",
            "POST",
            "/models",
            Some(json!({})),
            &[("content-type", "text/plain")],
        )
        .await;
    assert!(
        [400, 403, 415, 422].contains(&plain.status.as_u16()),
        "{}",
        plain.body
    );
    rig.post(
        "",
        "/models",
        json!({ "name": "m", "description": "x".repeat(2 << 20) }),
    )
    .await
    .expect(413);
    rig.get("", "/models/dst_00000000000000000000000000")
        .await
        .expect(404);
    rig.get("", "/nothing").await.expect(404);
    rig.send("", "PUT", "/models", Some(json!({})), &[])
        .await
        .expect(405);
    rig.send(
        "",
        "PATCH",
        "/models/m",
        Some(json!({})),
        &[("if-match", "x")],
    )
    .await
    .expect(400);
}

/// What is typed into filters, names and cursors by those who try.
const ATTACKS: &[&str] = &[
    "' OR '1'='1",
    "'; DROP TABLE models; --",
    "\" OR 1=1 --",
    "1) UNION SELECT hash FROM api_keys --",
    "%' OR name LIKE '%",
    "\\'; SELECT pg_sleep(9) --",
    "$1",
    "?",
    "null",
    "\u{0}",
    "ÿ\u{202e}",
];

#[tokio::test]
async fn sql_in_any_filter_or_path_is_only_text() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::with(&fresh.store, true).await;
        rig.post("", "/models", json!({ "name": "kept" }))
            .await
            .expect(201);
        let document = openapi();
        let mut tried = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            let Some(operation) = methods.get("get").filter(|_| !path.ends_with("/events")) else {
                continue;
            };
            let path = path.trim_start_matches("/api/v1");
            for attack in ATTACKS {
                let attack = encoded(attack);
                let queries = operation["parameters"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|it| it["in"] == "query");
                for parameter in queries {
                    let target = path.replace("{id}", "kept").replace("{version}", "1");
                    let url = format!("{target}?{}={attack}", parameter["name"].as_str().unwrap());
                    let answered = rig.get("", &url).await;
                    let empty = answered.body["items"]
                        .as_array()
                        .is_none_or(|it| it.iter().all(|it| it["id"].is_null()));
                    assert!(
                        answered.status.is_client_error() || empty,
                        "{url}: {}",
                        answered.body
                    );
                    assert!(
                        !answered.status.is_server_error(),
                        "{url}: {}",
                        answered.body
                    );
                    tried += 1;
                }
                if path.contains('{') {
                    let url = path.replace("{id}", &attack).replace("{version}", &attack);
                    let answered = rig.get("", &url).await;
                    assert!(
                        answered.status.is_client_error(),
                        "{url}: {} {}",
                        answered.status,
                        answered.body
                    );
                }
            }
        }
        assert!(tried > 500, "{tried}");
        assert_eq!(
            rig.get("", "/models").await.expect(200)["items"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    })
    .await;
}

#[tokio::test]
async fn a_limit_that_nothing_enforces_is_not_taken() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        rig.department("home").await;
        for field in ["storage_bytes", "cost_micros_per_month"] {
            let mut quota = json!({ "department": "home", "tokens_per_month": 5 });
            quota[field] = json!(1000);
            let refused = rig.post("sk-root", "/quotas", quota).await.expect(422);
            assert_eq!(refused["errors"][0]["field"], field);
        }
        let quota = json!({ "department": "home", "tokens_per_month": 5 });
        rig.post("sk-root", "/quotas", quota).await.expect(201);
    })
    .await;
}
