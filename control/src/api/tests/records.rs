#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};

use super::rig::Rig;
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::store::rig::{Fresh, on_both};

#[tokio::test]
async fn a_record_is_made_read_changed_and_put_away() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let dev = rig
            .person(home, "dev", Role::Developer, Secrecy::Internal)
            .await;

        let made = rig
            .post(
                &dev.key,
                "/models",
                json!({ "name": "helpdesk", "description": "IT" }),
            )
            .await;
        assert_eq!(made.headers["etag"], "\"1\"");
        let place = made.headers["location"].to_str().unwrap().to_owned();
        let made = made.expect(201);
        assert_eq!(
            place,
            format!("/api/v1/models/{}", made["id"].as_str().unwrap())
        );
        assert_eq!(made["owner"], dev.id.to_string());
        assert_eq!(made["department"], home.to_string());

        // By id and by name.
        for path in [
            format!("/models/{}", made["id"].as_str().unwrap()),
            "/models/helpdesk".into(),
        ] {
            assert_eq!(rig.get(&dev.key, &path).await.expect(200), made);
        }
        // A change names its fields only; null clears one.
        let changed = rig
            .patch(
                &dev.key,
                "/models/helpdesk",
                json!({ "code_url": "https://example.com/x" }),
            )
            .await
            .expect(200);
        assert_eq!(
            (&changed["version"], &changed["description"]),
            (&json!(2), &json!("IT"))
        );
        let cleared = rig
            .patch(&dev.key, "/models/helpdesk", json!({ "code_url": null }))
            .await
            .expect(200);
        assert_eq!(cleared["code_url"], Value::Null);
        // Against an old version it is refused.
        let stale = rig
            .send(
                &dev.key,
                "PATCH",
                "/models/helpdesk",
                Some(json!({ "description": "x" })),
                &[("if-match", "\"1\"")],
            )
            .await;
        assert_eq!(stale.headers["content-type"], "application/problem+json");
        assert_eq!(stale.expect(409)["type"], "urn:sluice:problem:stale");
        // A name is taken once.
        let taken = rig
            .post(&dev.key, "/models", json!({ "name": "helpdesk" }))
            .await
            .expect(409);
        assert_eq!(taken["errors"][0]["field"], "name");

        rig.send(
            &dev.key,
            "DELETE",
            "/models/helpdesk",
            None,
            &[("if-match", "\"3\"")],
        )
        .await
        .expect(204);
        let gone = rig.get(&dev.key, "/models/helpdesk").await.expect(404);
        assert!(gone["detail"].as_str().unwrap().contains("helpdesk"));
    })
    .await;
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        for number in 0..5 {
            let body = json!({ "name": format!("m{number}"), "description": format!("Number {number} of FIVE") });
            rig.post("sk-root", "/models", body).await.expect(201);
        }
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = rig.get("sk-root", &format!("/models?limit=2&oldest_first=true{cursor}")).await.expect(200);
            seen.extend(page["items"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, ["m0", "m1", "m2", "m3", "m4"]);
        let found = rig.get("sk-root", "/models?description=number%203%20of%20five").await.expect(200);
        assert_eq!(found["items"].as_array().unwrap().len(), 1);
        let refused = rig.get("sk-root", "/models?nme=m1").await.expect(400);
        assert!(refused["detail"].as_str().unwrap().contains("did you mean name?"), "{refused}");
        rig.get("sk-root", "/models?limit=0").await.expect(422);
        rig.get("sk-root", "/models?limit=many").await.expect(400);
        rig.get("sk-root", "/models?cursor=nonsense").await.expect(422);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_write_is_done_once() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let write = async |body: Value| {
            rig.send(
                "sk-root",
                "POST",
                "/models",
                Some(body),
                &[("idempotency-key", "k1")],
            )
            .await
        };
        let first = write(json!({ "name": "a" })).await;
        let again = write(json!({ "name": "a" })).await;
        assert_eq!(first.headers.get("location"), again.headers.get("location"));
        assert_eq!(again.headers["etag"], "\"1\"");
        assert_eq!(first.expect(201), again.expect(201));
        write(json!({ "name": "b" })).await.expect(422);
        let all = rig.get("sk-root", "/models").await.expect(200);
        assert_eq!(all["items"].as_array().unwrap().len(), 1);

        // A refusal did nothing: the key may be used again.
        let wrong = rig
            .send(
                "sk-root",
                "POST",
                "/models",
                Some(json!({ "name": "a" })),
                &[("idempotency-key", "k2")],
            )
            .await;
        wrong.expect(409);
        let right = rig
            .send(
                "sk-root",
                "POST",
                "/models",
                Some(json!({ "name": "c" })),
                &[("idempotency-key", "k2")],
            )
            .await;
        right.expect(201);
    })
    .await;
}

#[tokio::test]
async fn a_keys_secret_is_in_one_answer_only() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let dev = rig
            .person(home, "dev", Role::Developer, Secrecy::Internal)
            .await;
        let make = async || {
            let body = json!({ "name": "laptop", "scopes": ["read"] });
            rig.send(
                &dev.key,
                "POST",
                "/keys",
                Some(body),
                &[("idempotency-key", "k")],
            )
            .await
            .expect(201)
        };
        let made = make().await;
        let secret = made["secret"].as_str().unwrap();
        let again = make().await;
        assert_eq!(
            (&again["key"]["id"], &again["secret"]),
            (&made["key"]["id"], &Value::Null)
        );
        for path in [
            "/keys",
            &format!("/keys/{}", made["key"]["id"].as_str().unwrap()),
        ] {
            let shown = rig.get(&dev.key, path).await;
            assert!(
                !shown.text().contains(secret) && !shown.text().contains("hash"),
                "{}",
                shown.text()
            );
        }
        // It reads and does not write, nor makes keys that do.
        rig.get(secret, "/models").await.expect(200);
        rig.post(secret, "/models", json!({ "name": "x" }))
            .await
            .expect(403);
        // Withdrawn, it is nothing at once.
        let path = format!("/keys/{}", made["key"]["id"].as_str().unwrap());
        rig.send(&dev.key, "DELETE", &path, None, &[])
            .await
            .expect(204);
        rig.get(secret, "/models").await.expect(401);
    })
    .await;
}

#[tokio::test]
async fn who_asks_is_found_out() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        rig.get("", "/me").await.expect(401);
        rig.get("sk-unknown", "/me").await.expect(401);
        let refused = rig.get("sk-plain", "/me").await.expect(403);
        assert!(
            refused["detail"].as_str().unwrap().contains("role ="),
            "{refused}"
        );
        let me = rig.get("sk-root", "/me").await.expect(200);
        assert_eq!(
            (&me["role"], &me["principal"]["name"]),
            (&json!("admin"), &json!("root"))
        );
        // Without authentication everyone is the local administrator.
        let open = Rig::with(&fresh.store, true).await;
        let me = open.get("", "/me").await.expect(200);
        assert_eq!(me["principal"]["name"], "local");
    })
    .await;
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let fresh = Fresh::sqlite().await;
    let rig = Rig::with(&fresh.store, true).await;
    let body = Some(json!({ "name": "m" }));
    rig.send(
        "",
        "POST",
        "/models",
        body.clone(),
        &[("sec-fetch-site", "cross-site")],
    )
    .await
    .expect(403);
    rig.send(
        "",
        "POST",
        "/models",
        body,
        &[("sec-fetch-site", "same-origin")],
    )
    .await
    .expect(201);
}

#[tokio::test]
async fn every_change_is_in_the_audit_log() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        rig.post("sk-root", "/models", json!({ "name": "m" }))
            .await
            .expect(201);
        rig.patch("sk-root", "/models/m", json!({ "description": "new" }))
            .await
            .expect(200);
        let log = rig
            .get("sk-root", "/audit?object_kind=model")
            .await
            .expect(200);
        let events = log["items"].as_array().unwrap();
        let verbs: Vec<&str> = events
            .iter()
            .map(|it| it["verb"].as_str().unwrap())
            .collect();
        assert_eq!(verbs, ["update", "create"]);
        assert_eq!(events[0]["actor_name"], "root");
        assert_eq!(events[0]["after"]["description"], "new");
        assert!(
            events[0]["request"].as_str().unwrap().starts_with("req"),
            "{}",
            events[0]
        );
        let page = rig.get("sk-root", "/audit?limit=1").await.expect(200);
        let next = format!(
            "/audit?limit=1&cursor={}",
            page["next_cursor"].as_str().unwrap()
        );
        assert_ne!(
            rig.get("sk-root", &next).await.expect(200)["items"],
            page["items"]
        );
    })
    .await;
}

#[tokio::test]
async fn a_watch_tells_what_happened_and_ends() {
    use crate::domain::record::Task;
    use crate::domain::task::TaskState;
    use crate::store::Json;
    use crate::time::Timestamp;
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let task = Task {
            kind: "noop".into(),
            state: TaskState::Queued,
            params: Json(json!({})),
            department: None,
            principal: None,
            parent: None,
            subject_kind: None,
            subject_id: None,
            result: None,
            error: None,
            priority: 0,
            run_at: Timestamp::now(),
            expires_at: None,
            attempt: 0,
            max_attempts: 1,
            worker: None,
            lease_until: None,
            fencing_token: 0,
            heartbeat_at: None,
            timeout_us: None,
            deadline_at: None,
            progress_fraction: None,
            progress_message: None,
            cancel_requested: false,
            idempotency_key: None,
            started_at: None,
            finished_at: None,
        };
        let task = fresh
            .store
            .create(&crate::store::rig::system(), task)
            .await
            .unwrap();
        let path = format!("/tasks/{}", task.id);
        let events = format!("{path}/events");
        let (watched, cancelled) = tokio::join!(rig.get("sk-root", &events), async {
            tokio::task::yield_now().await;
            rig.post("sk-root", &format!("{path}/cancel"), json!({}))
                .await
        });
        assert_eq!(cancelled.expect(200)["state"], "cancelled");
        assert_eq!(watched.headers["content-type"], "text/event-stream");
        let told = watched.body.as_str().unwrap();
        assert!(
            told.contains("event: task\n") && told.contains("\"state\":\"cancelled\""),
            "{told}"
        );
        let again = rig
            .post("sk-root", &format!("{path}/cancel"), json!({}))
            .await
            .expect(409);
        assert_eq!(again["legal_events"], json!([]));
        // A long log is read to its end without a pause between its pages.
        if fresh.store.dialect() == crate::store::Dialect::Sqlite {
            let mut tx = fresh.store.begin().await.unwrap();
            let sql = format!(
                "INSERT INTO task_events (task, sequence, attempt, at, kind, body) \
                 WITH RECURSIVE n(i) AS (SELECT 1001 UNION ALL SELECT i + 1 FROM n WHERE i < 11000) \
                 SELECT '{}', i, 0, 0, 'log', '{{}}' FROM n",
                task.id
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .execute(tx.connection())
                .await
                .unwrap();
            tx.commit().await.unwrap();
            // With one, it would take ten seconds at least.
            let read = rig.get("sk-root", &events);
            let read = tokio::time::timeout(std::time::Duration::from_secs(8), read).await;
            let told = read.unwrap().body;
            assert!(told.as_str().unwrap().matches("event: log\n").count() == 10_000);
        }
    })
    .await;
}
