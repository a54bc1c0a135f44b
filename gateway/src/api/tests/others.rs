use insta::assert_json_snapshot;
use serde_json::json;

use super::rig::Rig;

#[tokio::test]
async fn models_are_listed_with_extras() {
    let rig = Rig::saying("Hello").await;
    assert_json_snapshot!("models", rig.get("/v1/models").await.json());
    assert_eq!(rig.get("/v1/models/fake").await.json()["id"], "fake");
    let missing = rig.get("/v1/models/org%2Fother").await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.error()["code"], "model_not_found");
}

#[tokio::test]
async fn text_goes_to_tokens_and_back() {
    let rig = Rig::saying("Hello").await;
    let text = "Vé🙂";
    for prefix in ["", "/v1"] {
        let body = json!({"model": "fake", "prompt": text, "return_token_strs": true});
        let tokens = rig.post(&format!("{prefix}/tokenize"), &body).await.json();
        assert_eq!(tokens["count"], text.len());
        assert_eq!(tokens["max_model_len"], 512);
        assert_eq!(tokens["token_strs"][0], "V");
        let body = json!({"model": "fake", "tokens": tokens["tokens"]});
        let back = rig
            .post(&format!("{prefix}/detokenize"), &body)
            .await
            .json();
        assert_eq!(back["prompt"], text);
    }
    for (path, body, param) in [
        ("/tokenize", json!({"model": "fake"}), "prompt"),
        ("/tokenize", json!({"model": "fake", "prompt": 1}), "prompt"),
        ("/detokenize", json!({"model": "fake"}), "tokens"),
        (
            "/detokenize",
            json!({"model": "fake", "tokens": [9999]}),
            "tokens[0]",
        ),
        (
            "/detokenize",
            json!({"model": "fake", "tokens": "x"}),
            "tokens",
        ),
    ] {
        let answer = rig.post(path, &body).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.error()["param"], param);
    }
}

#[tokio::test]
async fn health_tells_why_not() {
    let rig = Rig::saying("Hello").await;
    assert_eq!(rig.get("/health/live").await.status, 200);
    assert_eq!(
        rig.get("/health/ready").await.json(),
        json!({"status": "ready"})
    );
    rig.gateway.set_ready(false);
    let answer = rig.get("/health/ready").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reasons"].as_array().unwrap().len(), 1);
    rig.gateway.set_ready(true);
    rig.model.generator.abort();
    while rig.model.generator.healthy() {
        tokio::task::yield_now().await;
    }
    let answer = rig.get("/health").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json()["reasons"],
        json!(["the model `fake` has failed and is not being restarted"])
    );
    assert_eq!(rig.get("/health/live").await.status, 200);
}

#[tokio::test]
async fn the_version_is_told() {
    let rig = Rig::saying("Hello").await;
    assert_eq!(
        rig.get("/version").await.json()["version"],
        env!("CARGO_PKG_VERSION")
    );
}
