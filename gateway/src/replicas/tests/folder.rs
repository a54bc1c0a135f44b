//! Real models of real folders, on the CPU (`make models` fetches ONNX Runtime).

use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;
use crate::config::DeploymentConfig;
use crate::router::{RouteTable, Target, load};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

async fn served(bench: &Bench, folder: &Path) -> Replicas {
    let config = DeploymentConfig::of_folder("m", folder);
    let deployment = load::deployment(&bench.gateway, &config).await.unwrap();
    let Target::Local(replicas) = &deployment.target else {
        panic!("a folder is loaded here");
    };
    let replicas = replicas.clone();
    bench
        .gateway
        .publish(RouteTable::new(vec![deployment]).unwrap());
    replicas
}

/// Its executor ends, as it does when its device is reset under it.
async fn end(replicas: &Replicas) {
    let replica = &replicas.all()[0];
    replica.model().abort();
    until("it is lost", || {
        replica.state() != State::Serving || replica.restarts(Cause::Executor) > 0
    })
    .await;
}

async fn back(replicas: &Replicas) {
    let replica = &replicas.all()[0];
    until("it is back", || replica.restarts(Cause::Executor) == 1).await;
}

#[tokio::test]
async fn a_language_model_is_loaded_again_and_says_the_same() {
    let bench = Bench::start().await;
    let folder = tempfile::tempdir().unwrap();
    copy(&root().join("examples/helpdesk/models/v1"), folder.path());
    let replicas = served(&bench, folder.path()).await;
    let body = json!({"model": "m", "prompt": "Hello", "max_tokens": 8, "temperature": 0});
    let said = |answer: &rig::Answer| answer.json()["choices"].clone();
    let before = bench.post("/v1/completions", &body).await;
    assert_eq!(before.status, 200, "{}", before.text);
    end(&replicas).await;
    back(&replicas).await;
    let after = bench.post("/v1/completions", &body).await;
    assert_eq!(said(&after), said(&before));

    // What lies there now was not what was released.
    std::fs::write(folder.path().join("added.txt"), "x").unwrap();
    let config = folder.path().join("genai_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n")).unwrap();
    end(&replicas).await;
    until("it is refused", || replicas.all()[0].failed_restarts() > 0).await;
    assert_eq!(bench.post("/v1/completions", &body).await.status, 503);
}

#[tokio::test]
async fn an_encoder_is_loaded_again_and_says_the_same() {
    let bench = Bench::start().await;
    let replicas = served(&bench, &root().join("engine/tests/fixtures/tiny-encoder")).await;
    let body = json!({"model": "m", "input": "alpha beta"});
    let before = bench.post("/v1/embeddings", &body).await;
    assert_eq!(before.status, 200, "{}", before.text);
    end(&replicas).await;
    back(&replicas).await;
    let after = bench.post("/v1/embeddings", &body).await;
    assert_eq!(after.json()["data"], before.json()["data"]);
}

/// Whether this process has a thread of that name.
fn has_thread(name: &str) -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names = threads.filter_map(|it| std::fs::read_to_string(it.ok()?.path().join("comm")).ok());
    names.into_iter().any(|it| it.trim_end() == name)
}

#[tokio::test]
async fn a_load_that_nobody_waits_for_any_more_ends() {
    let bench = Bench::start().await;
    let folder = tempfile::tempdir().unwrap();
    let endless = root().join("engine/tests/fixtures/tensor/endless.onnx");
    std::fs::copy(endless, folder.path().join("model.onnx")).unwrap();
    let config = DeploymentConfig::of_folder("endless", folder.path());
    let loading = load::deployment(&bench.gateway, &config);
    let patience = std::time::Duration::from_millis(500);
    let loaded = tokio::time::timeout(patience, loading).await;
    assert!(loaded.is_err(), "it is warmed up for ever");
    until("its thread ends", || !has_thread("sluice endless")).await;
}
