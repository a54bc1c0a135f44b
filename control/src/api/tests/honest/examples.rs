//! What the document gives as examples is taken.

use serde_json::{Value, json};

use super::team;
use crate::store::rig::Fresh;

/// Where records are made, with the fields whose examples are sent and what is sent beside them.
type Kind = (&'static str, &'static [&'static str], Value);

fn kinds() -> Vec<Kind> {
    vec![
        (
            "/models",
            &[
                "name",
                "description",
                "train_framework",
                "inference_framework",
                "code_url",
                "dashboard_url",
            ],
            json!({}),
        ),
        (
            "/datasets",
            &["name", "description", "source", "modality"],
            json!({}),
        ),
        (
            "/evaluations",
            &["name", "method", "metrics", "thresholds", "required"],
            json!({ "model": "m" }),
        ),
        (
            "/deployments",
            &[
                "endpoint",
                "cpu_millis",
                "memory_bytes",
                "replicas",
                "engine_options",
                "strategy",
                "gate_policy",
                "open_to_all",
            ],
            json!({ "model": "m" }),
        ),
        (
            "/trainings",
            &["name", "recipe", "hyperparameters"],
            json!({ "model": "m" }),
        ),
        (
            "/quotas",
            &[
                "requests_per_minute",
                "tokens_per_minute",
                "requests_per_month",
                "tokens_per_month",
                "cpu_millis",
                "gpus",
                "memory_bytes",
            ],
            json!({ "department": "home" }),
        ),
        (
            "/keys",
            &[
                "name",
                "scopes",
                "expires_at",
                "models",
                "requests_per_minute",
                "tokens_per_month",
            ],
            json!({}),
        ),
    ]
}

#[tokio::test]
async fn the_examples_of_the_document_are_taken() {
    let fresh = Fresh::sqlite().await;
    let team = team(&fresh).await;
    let document = crate::api::openapi();
    let example = |path: &str, field: &str| {
        let operation = &document["paths"][format!("/api/v1{path}")]["post"];
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        document["components"]["schemas"][name]["properties"][field]["examples"][0].clone()
    };
    let filled = |path: &str, fields: &[&str], more: Value| {
        let mut body = more;
        for field in fields {
            body[*field] = example(path, field);
        }
        body
    };
    for (path, fields, more) in kinds() {
        let answered = team
            .rig
            .post(team.key(path), path, filled(path, fields, more))
            .await;
        answered.expect(201);
    }
    let body = filled(
        "/models/{id}/prompts",
        &["name", "template", "sampling", "note"],
        json!({}),
    );
    team.rig
        .post(&team.dev.key, "/models/m/prompts", body)
        .await
        .expect(201);
    let body = filled(
        "/datasets/{id}/versions",
        &[
            "digest",
            "row_count",
            "bytes",
            "schema",
            "statistics",
            "note",
        ],
        json!({}),
    );
    team.rig
        .post(&team.dev.key, "/datasets/tickets/versions", body)
        .await
        .expect(201);
}
