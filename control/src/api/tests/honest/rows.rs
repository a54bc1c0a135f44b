//! Rows are counted, and what is said of content is held against it.

use serde_json::json;

use super::{Team, evaluation, team};
use crate::store::rig::Fresh;

const VERSIONS: &str = "/datasets/d/versions";

/// A dataset, and an artifact of 60 rows with its bytes.
async fn counted(team: &Team) -> (String, usize) {
    team.rig
        .post(&team.dev.key, "/datasets", json!({ "name": "d" }))
        .await
        .expect(201);
    let lines: String = (0..60)
        .map(|n| format!("{{\"text\": \"{n}\"}}\n"))
        .collect();
    let artifact = team.artifact("rows", "rows.jsonl", lines.as_bytes()).await;
    (artifact, lines.len())
}

#[tokio::test]
async fn rows_are_counted_and_not_believed() {
    let fresh = Fresh::sqlite().await;
    let team = team(&fresh).await;
    let (artifact, _) = counted(&team).await;
    for (more, field, said) in [
        (json!({ "row_count": 9999 }), "row_count", "has 60 rows"),
        (json!({ "row_count": -1 }), "row_count", "0 or more"),
        (json!({ "bytes": 5 }), "bytes", "leave it out"),
        (json!({ "bytes": -5 }), "bytes", "0 or more"),
        (
            json!({ "statistics": { "rows": 61 } }),
            "statistics.rows",
            "has 60",
        ),
        (
            json!({ "schema": { "columns": ["text"] } }),
            "schema",
            "JSON Schema of one row",
        ),
        (
            json!({ "schema": { "required": ["frage"] } }),
            "schema",
            "row 1 has not",
        ),
        (
            json!({ "schema": { "properties": { "text": { "type": "number" } } } }),
            "schema",
            "row 1 has string",
        ),
        (
            json!({ "digest": "sha256:00000000000000000000000000000000000000000000000000000000000000aa" }),
            "digest",
            "not the artifact's",
        ),
    ] {
        let mut body = json!({ "artifact": artifact });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let (found, why) = team.refused(VERSIONS, body).await;
        assert_eq!(found, field, "{why}");
        assert!(why.contains(said), "{why}");
    }
}

#[tokio::test]
async fn what_is_counted_need_not_be_said() {
    let fresh = Fresh::sqlite().await;
    let team = team(&fresh).await;
    let (artifact, bytes) = counted(&team).await;
    for said in [json!({}), json!({ "row_count": 60, "bytes": bytes })] {
        let mut body = json!({ "artifact": artifact, "schema": { "properties": { "text": { "type": "string" } } } });
        body.as_object_mut()
            .unwrap()
            .extend(said.as_object().unwrap().clone());
        let made = team
            .rig
            .post(&team.dev.key, VERSIONS, body)
            .await
            .expect(201);
        assert_eq!(
            (&made["row_count"], &made["bytes"]),
            (&json!(60), &json!(bytes))
        );
    }
    // Named by its digest it is the same content.
    let digest = team
        .rig
        .get(&team.dev.key, &format!("/artifacts/{artifact}"))
        .await
        .expect(200)["digest"]
        .clone();
    let (found, _) = team
        .refused(VERSIONS, json!({ "digest": digest, "row_count": 61 }))
        .await;
    assert_eq!(found, "row_count");
    // A test set with fewer rows than a verdict takes gives none.
    let thresholds =
        json!({ "rules": [{ "metric": "json_fields", "min": 0.8 }], "min_samples": 61 });
    let (found, why) = team
        .refused(
            "/evaluations",
            evaluation(&json!({ "test_set": "d@v1", "thresholds": thresholds })),
        )
        .await;
    assert_eq!(
        (found.as_str(), why.contains("60 rows")),
        ("thresholds.min_samples", true)
    );
    // What lies elsewhere is as it is said, if it can be.
    let elsewhere = "sha256:00000000000000000000000000000000000000000000000000000000000000ab";
    let (found, _) = team
        .refused(
            VERSIONS,
            json!({ "digest": elsewhere, "row_count": 100, "bytes": 60 }),
        )
        .await;
    assert_eq!(found, "row_count");
    let other = json!({ "digest": elsewhere, "row_count": 100 });
    let made = team
        .rig
        .post(&team.dev.key, VERSIONS, other)
        .await
        .expect(201);
    assert_eq!(made["row_count"], 100);
}
