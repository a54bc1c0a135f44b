#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::Digest as _;

use super::rig::Rig;
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::store::rig::{Fresh, on_both};

fn outcomes(answer: &Value) -> Vec<&str> {
    let results = answer["results"].as_array().unwrap();
    results
        .iter()
        .map(|it| it["outcome"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_document_is_applied_again_without_change() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let records = json!([
            { "kind": "department", "name": "it" },
            { "kind": "model", "name": "m", "department": "it", "description": "first" },
            { "kind": "deployment", "endpoint": "m", "model": "m", "department": "it" },
            { "kind": "quota", "department": "it", "tokens_per_minute": 1000 },
        ]);
        let apply = async |records: &Value, dry_run: bool| {
            rig.post(
                "sk-root",
                "/apply",
                json!({ "records": records, "dry_run": dry_run }),
            )
            .await
        };
        // Also of a department that is not there yet.
        let planned = apply(&records, true).await.expect(200);
        assert_eq!(outcomes(&planned), ["created"; 4]);
        assert_eq!(planned["results"][0]["id"], Value::Null);
        assert_eq!(planned["results"][3]["name"], "it");
        assert_eq!(
            rig.get("sk-root", "/models").await.expect(200)["items"],
            json!([])
        );
        let made = apply(&records, false).await.expect(200);
        assert_eq!(outcomes(&made), ["created"; 4]);
        let again = apply(&records, false).await.expect(200);
        assert_eq!(outcomes(&again), ["unchanged"; 4]);
        assert_eq!(
            rig.get("sk-root", "/models/m").await.expect(200)["version"],
            1
        );

        let mut other = records.clone();
        other[1]["description"] = json!("second");
        let planned = apply(&other, true).await.expect(200);
        assert_eq!(
            outcomes(&planned),
            ["unchanged", "updated", "unchanged", "unchanged"]
        );
        let change = &planned["results"][1];
        assert_eq!(
            (
                &change["before"]["description"],
                &change["after"]["description"]
            ),
            (&json!("first"), &json!("second"))
        );
        assert_eq!(
            rig.get("sk-root", "/models/m").await.expect(200)["version"],
            1,
            "a plan changes nothing"
        );
        apply(&other, false).await.expect(200);
        assert_eq!(
            rig.get("sk-root", "/models/m").await.expect(200)["description"],
            "second"
        );
    })
    .await;
}

#[tokio::test]
async fn a_wrong_record_is_named_and_rights_are_asked_by_kind() {
    let fresh = Fresh::sqlite().await;
    let rig = Rig::start(&fresh.store).await;
    let records = json!([{ "kind": "model", "name": "m" }, { "kind": "model", "name": "n", "desciption": "x" }]);
    let refused = rig
        .post("sk-root", "/apply", json!({ "records": records }))
        .await
        .expect(422);
    assert_eq!(refused["errors"][0]["field"], "records[1].desciption");
    let home = rig.department("home").await;
    let dev = rig
        .person(home, "dev", Role::Developer, Secrecy::Internal)
        .await;
    let people = json!([{ "kind": "department", "name": "x" }]);
    rig.post(&dev.key, "/apply", json!({ "records": people }))
        .await
        .expect(403);
    let models = json!([{ "kind": "model", "name": "mine" }]);
    rig.post(&dev.key, "/apply", json!({ "records": models }))
        .await
        .expect(200);
}

/// The names of a collection's records.
async fn names(rig: &Rig, path: &str) -> Vec<String> {
    let all = rig.get("sk-root", path).await.expect(200);
    let items = all["items"].as_array().unwrap().iter();
    items
        .map(|it| it["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_document_that_fails_leaves_nothing() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        for (last, status, field) in [
            (json!({ "kind": "model", "name": "a" }), 200, ""),
            (
                json!({ "kind": "model", "name": "not a name" }),
                422,
                "records[3].name",
            ),
            (
                json!({ "kind": "deployment", "endpoint": "e", "model": "none" }),
                422,
                "records[3].model",
            ),
            (
                json!({ "kind": "grant", "model": "a", "department": "none", "access": "use" }),
                422,
                "records[3].department",
            ),
            (
                json!({ "kind": "version", "model": "a", "number": 9 }),
                422,
                "records[3].number",
            ),
            (
                json!({ "kind": "version", "model": "a" }),
                422,
                "records[3].number",
            ),
            (
                json!({ "kind": "work_order", "deployment": "none", "version": "v1" }),
                422,
                "records[3].deployment",
            ),
            (
                json!({ "kind": "key", "name": "k", "sha256": "abc" }),
                422,
                "records[3].sha256",
            ),
        ] {
            let records = json!([
                { "kind": "department", "name": "fresh" },
                { "kind": "model", "name": "a", "department": "fresh" },
                { "kind": "key", "name": "made on the way" },
                last,
            ]);
            for dry_run in [true, false] {
                if status == 200 && !dry_run {
                    continue;
                }
                let body = json!({ "records": records, "dry_run": dry_run });
                let answer = rig.post("sk-root", "/apply", body).await.expect(status);
                if status != 200 {
                    assert_eq!(answer["errors"][0]["field"], field, "{answer}");
                    let detail = answer["detail"].as_str().unwrap();
                    assert!(detail.starts_with("records[3]: "), "{detail}");
                }
                for path in ["/models", "/keys"] {
                    assert_eq!(names(&rig, path).await, Vec::<String>::new());
                }
            }
        }
    })
    .await;
}

const CONTENT: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

#[tokio::test]
async fn grants_keys_and_versions_are_applied_and_found_again() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let hash = format!("{:x}", sha2::Sha256::digest(b"sk-mine"));
        let records = json!([
            { "kind": "department", "name": "it" },
            { "kind": "department", "name": "sales" },
            { "kind": "principal", "name": "robot", "department": "it", "role": "operator" },
            { "kind": "model", "name": "m", "department": "it" },
            { "kind": "dataset", "name": "d", "department": "it" },
            { "kind": "training", "name": "t", "model": "m" },
            { "kind": "version", "dataset": "d", "digest": OTHER, "row_count": 3 },
            { "kind": "version", "model": "m", "number": "v1", "note": "first", "digest": CONTENT },
            { "kind": "version", "model": "m", "number": 2 },
            { "kind": "deployment", "endpoint": "e", "model": "m", "department": "it" },
            { "kind": "grant", "deployment": "e", "department": "sales", "access": "use" },
            { "kind": "grant", "model": "m", "principal": "robot", "access": "read" },
            { "kind": "key", "name": "ci", "principal": "robot", "requests_per_minute": 5 },
            { "kind": "key", "name": "own", "principal": "robot", "sha256": hash },
        ]);
        let apply = async |records: &Value, dry_run: bool| {
            let body = json!({ "records": records, "dry_run": dry_run });
            rig.post("sk-root", "/apply", body).await
        };
        let planned = apply(&records, true).await.expect(200);
        assert_eq!(outcomes(&planned), ["created"; 14]);
        assert!(!planned.to_string().contains("secret"), "{planned}");
        let made = apply(&records, false).await.expect(200);
        assert_eq!(outcomes(&made), ["created"; 14]);
        let called = |index: usize| made["results"][index]["name"].as_str().unwrap();
        assert_eq!((called(6), called(7), called(8)), ("d@v1", "m@v1", "m@v2"));
        let version = rig
            .get("sk-root", "/models/m/versions/v1")
            .await
            .expect(200);
        assert_eq!(
            (&version["state"], &version["digest"]),
            (&json!("registered"), &json!(CONTENT))
        );
        // One key was made up and is shown; of the other only its holder knows more than the hash.
        let ci = made["results"][12]["secret"].as_str().unwrap();
        assert_eq!(made["results"][13].get("secret"), None);
        for key in [ci, "sk-mine"] {
            rig.get(key, "/models").await.expect(200);
        }
        let again = apply(&records, false).await.expect(200);
        assert_eq!(outcomes(&again), ["unchanged"; 14]);
        assert!(!again.to_string().contains("secret"), "{again}");

        let mut wider = records.clone();
        wider[11]["access"] = json!("edit");
        let changed = apply(&wider, false).await.expect(200);
        assert_eq!(outcomes(&changed)[11], "updated");
        assert_eq!(changed["results"][11]["before"]["access"], "read");
        let mut later = records.clone();
        later[8]["digest"] = json!(OTHER);
        let changed = apply(&later, false).await.expect(200);
        assert_eq!(outcomes(&changed)[8], "updated");

        // What does not change is not changed in silence.
        for (index, field, value) in [
            (12, "requests_per_minute", json!(6)),
            (13, "sha256", json!("0".repeat(64))),
            (7, "digest", json!(OTHER)),
            (7, "note", json!("another")),
            (6, "digest", json!(CONTENT)),
            (6, "row_count", json!(4)),
            (6, "note", json!("another")),
            (7, "datasets", json!([{ "dataset": "d@v1" }])),
        ] {
            let mut other = records.clone();
            other[index][field] = value;
            if index == 6 && field == "digest" {
                other[index]["number"] = json!(1);
            }
            let refused = apply(&other, false).await.expect(422);
            assert_eq!(
                refused["errors"][0]["field"],
                format!("records[{index}].{field}")
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_repeated_document_is_applied_once_and_tells_no_secret_again() {
    let fresh = Fresh::sqlite().await;
    let rig = Rig::start(&fresh.store).await;
    let send = async |dry_run: bool, key: &str| {
        let records =
            json!([{ "kind": "department", "name": "it" }, { "kind": "key", "name": "ci" }]);
        let body = json!({ "records": records, "dry_run": dry_run });
        let headers = [("idempotency-key", key)];
        rig.send("sk-root", "POST", "/apply", Some(body), &headers)
            .await
            .expect(200)
    };
    send(true, "dry").await;
    assert_eq!(names(&rig, "/keys").await, Vec::<String>::new());
    let first = send(false, "k").await;
    let again = send(false, "k").await;
    assert!(first["results"][1]["secret"].is_string());
    assert_eq!(again["results"][1].get("secret"), None);
    assert_eq!(again["results"][1]["id"], first["results"][1]["id"]);
    assert_eq!(names(&rig, "/keys").await, ["ci"]);
}
