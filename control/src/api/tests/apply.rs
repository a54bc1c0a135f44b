#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};

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
        let planned = apply(&records, true).await;
        // The quota is of a department that is not there yet.
        planned.expect(422);
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
