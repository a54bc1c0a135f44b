//! A real pipeline, small: its environment is made by a real `venv` and `pip`, from a lock without packages.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::*;
use crate::artifacts::{ArtifactSettings, Artifacts, Digest};
use crate::domain::record;
use crate::domain::roles::Role;
use crate::domain::task::TaskState;
use crate::id::{ArtifactId, Id as _};
use crate::store::Stored;
use crate::store::rig::{Fresh, Somebody, somebody, system};
use crate::tasks::executor::{Limits, LocalExecutor};
use crate::tasks::{EventKind, Kinds, NewTask, Queue, QueueSettings, Worker, WorkerSettings};

const MAIN: &str = r#"
import json, os, pathlib, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
output = pathlib.Path(options["--output"])
params = json.loads(pathlib.Path(options["--params"]).read_text())
events = os.fdopen(int(os.environ["SLUICE_EVENTS_FD"]), "w")
def send(**event):
    print(json.dumps(event), file=events, flush=True)
print("in a virtual environment:", sys.prefix != sys.base_prefix)
send(event="step", name="export", index=1, of=2)
send(event="progress", fraction=0.5, message="half of the first")
send(event="metric", name="loss", value=1.5, step=1)
send(event="warning", message="careful")
print("not an event", file=events, flush=True)
match params["play"]:
    case "succeed":
        (output / "model").mkdir()
        (output / "model" / "weights").write_text("w")
        (output / "result.json").write_text(json.dumps({"twice": params["n"] * 2, "folder": "model"}))
    case "wander":
        (output / "result.json").write_text(json.dumps({"folder": "../../../.."}))
    case "link":
        (output / "model").mkdir()
        (output / "model" / "weights").symlink_to("/etc/hostname")
        (output / "result.json").write_text(json.dumps({"folder": "model"}))
    case "fail":
        (output / "error.json").write_text(json.dumps({"code": "parity_failed", "message": "0.3 > 0.01", "details": {"max": 0.3}}))
        sys.exit(1)
    case "crash":
        raise RuntimeError("on purpose")
    case "forget":
        pass
    case "eat":
        hoard = bytearray(b"x") * 300_000_000
        time.sleep(1000)
    case "sleep":
        time.sleep(1000)
"#;

fn write_pipeline(root: &Path, folder: &str, toml: &str) -> PathBuf {
    let folder = root.join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("pipeline.toml"), toml).unwrap();
    std::fs::write(folder.join("main.py"), MAIN).unwrap();
    std::fs::write(
        folder.join("requirements.lock.txt"),
        "# nothing is needed\n",
    )
    .unwrap();
    folder
}

const TOML: &str = "name = \"tiny\"\nsummary = \"For a test.\"\npython = \">=3.11\"\n";

#[test]
fn pipelines_are_found_where_they_lie() {
    let root = tempfile::tempdir().unwrap();
    let folder = write_pipeline(root.path(), "convert/tiny", TOML);
    write_pipeline(root.path(), "other", &TOML.replace("tiny", "other"));
    std::fs::create_dir(root.path().join("not-one")).unwrap();
    let found = discover(root.path()).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["other", "tiny"]);
    let tiny = &found["tiny"];
    assert_eq!(
        (&tiny.folder, tiny.python),
        (
            &folder,
            Version {
                major: 3,
                minor: 11
            }
        )
    );
    write_pipeline(root.path(), "again", TOML);
    assert!(matches!(
        discover(root.path()),
        Err(PipelineError::SameName { .. })
    ));
}

#[test]
fn what_is_wrong_with_a_pipeline_is_named() {
    let root = tempfile::tempdir().unwrap();
    for (toml, named) in [
        ("summary = \"s\"", "name"),
        ("name = \"../up\"\nsummary = \"s\"", "name"),
        (
            "name = \"n\"\nsummary = \"s\"\nentry = \"../main.py\"",
            "entry",
        ),
        (
            "name = \"n\"\nsummary = \"s\"\nrequirements = \"none.txt\"",
            "requirements",
        ),
        ("name = \"n\"\nsummary = \"s\"\npython = \"3.11\"", "python"),
        ("name = \"n\"\nsummary = \"s\"\npyton = \">=3.11\"", "pyton"),
    ] {
        let folder = write_pipeline(root.path(), "p", toml);
        let message = Pipeline::read(&folder).unwrap_err().to_string();
        assert!(
            message.contains(named) && message.contains("pipeline.toml"),
            "{message}"
        );
    }
}

#[test]
fn environments_are_named_as_the_scripts_name_them() {
    // printf 'a\n' | sha256sum | cut -c1-16
    assert_eq!(python::digest16(b"a\n"), "87428fc522803d31");
}

struct Bench {
    fresh: Fresh,
    queue: Queue,
    worker: Worker,
    folder: tempfile::TempDir,
    artifacts: Artifacts,
    who: Somebody,
}

async fn bench(limits: Limits) -> Bench {
    let fresh = Fresh::sqlite().await;
    let folder = tempfile::tempdir().unwrap();
    write_pipeline(folder.path(), "pipelines/tiny", TOML);
    let pipelines = Pipelines::new(
        &folder.path().join("pipelines"),
        folder.path().join("venv"),
        limits,
    )
    .unwrap();
    let settings = ArtifactSettings::default();
    let artifacts = Artifacts::open(fresh.store.clone(), settings, folder.path()).unwrap();
    let convert = Convert {
        pipelines,
        artifacts: artifacts.clone(),
    };
    let who = somebody(&fresh.store, Role::Developer).await;
    let queue = Queue::new(fresh.store.clone(), QueueSettings::default());
    let settings = WorkerSettings {
        heartbeat: Duration::from_millis(50),
        report: Duration::from_millis(20),
        ..WorkerSettings::new(folder.path().join("scratch"))
    };
    let worker = Worker::start(
        queue.clone(),
        Kinds::new().with(convert),
        Arc::new(LocalExecutor),
        settings,
    );
    Bench {
        fresh,
        queue,
        worker,
        folder,
        artifacts,
        who,
    }
}

impl Bench {
    async fn convert(&self, params: Json) -> Stored<record::Task> {
        self.run(json!({"pipeline": "tiny", "name": "out", "params": params}))
            .await
    }

    async fn run(&self, params: Json) -> Stored<record::Task> {
        let mut new = NewTask::new("convert", params);
        new.department = Some(self.who.department);
        new.max_attempts = 1;
        let id = self.queue.enqueue(&system(), new).await.unwrap().id;
        let mut watch = self.queue.watch(id, 0);
        while !watch.next().await.unwrap().is_empty() {}
        self.fresh.store.get(id).await.unwrap()
    }
}

fn code(task: &Stored<record::Task>) -> &str {
    task.error.as_ref().unwrap().0["code"].as_str().unwrap()
}

#[tokio::test]
async fn a_pipeline_runs_in_its_own_environment_and_is_heard() {
    let bench = bench(Limits {
        memory: Some(150_000_000),
        ..Limits::default()
    })
    .await;
    // Two at once: one makes the environment, the other waits for it.
    let (first, second) = tokio::join!(
        bench.convert(json!({"play": "succeed", "n": 21})),
        bench.convert(json!({"play": "succeed", "n": 4})),
    );
    for (task, twice) in [(&first, 42), (&second, 8)] {
        assert_eq!(task.state, TaskState::Succeeded, "{:?}", task.error);
        let output = &task.result.as_ref().unwrap().0;
        assert_eq!(output["result"]["twice"], twice);
        let kept = output["artifact"].as_str().unwrap().parse().unwrap();
        let files = bench.artifacts.files(kept).await.unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(
            (files[0].path.as_str(), files[0].digest),
            ("weights", Digest::of(b"w"))
        );
    }
    let events = bench.queue.events(first.id, 0, 1000).await.unwrap();
    let bodies = |kind| {
        events
            .iter()
            .filter(|it| it.kind == kind)
            .map(|it| it.body.clone())
            .collect::<Vec<_>>()
    };
    assert!(bodies(EventKind::Step).contains(&json!({"name": "export", "index": 1, "of": 2})));
    assert_eq!(
        bodies(EventKind::Metric),
        [json!({"name": "loss", "value": 1.5, "step": 1})]
    );
    assert_eq!(bodies(EventKind::Warning), [json!({"message": "careful"})]);
    // Half of the first of two steps.
    assert!(
        bodies(EventKind::Progress)
            .iter()
            .any(|it| it["fraction"] == 0.25)
    );
    let log: String = bodies(EventKind::Log)
        .iter()
        .map(|it| it["text"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        log.contains("in a virtual environment: True\n") && log.contains("not an event\n"),
        "{log}"
    );

    let failed = bench.convert(json!({"play": "fail"})).await;
    assert_eq!(
        failed.error.as_ref().unwrap().0["details"],
        json!({"max": 0.3})
    );
    assert_eq!(
        (failed.state, code(&failed)),
        (TaskState::Failed, "parity_failed")
    );
    assert_eq!(
        code(&bench.convert(json!({"play": "crash"})).await),
        "crashed"
    );
    assert_eq!(
        code(&bench.convert(json!({"play": "forget"})).await),
        "no_result"
    );
    assert_eq!(
        code(&bench.convert(json!({"play": "eat"})).await),
        "out_of_memory"
    );
    for (play, code) in [("wander", "no_result"), ("link", "forbidden")] {
        let task = bench.convert(json!({ "play": play })).await;
        assert_eq!(self::code(&task), code, "{:?}", task.error);
    }
    let venvs = std::fs::read_dir(bench.folder.path().join("venv"))
        .unwrap()
        .flatten();
    assert_eq!(
        venvs
            .filter(|it| it.path().join(".complete").exists())
            .count(),
        1
    );
    bench.worker.drain().await;
}

#[tokio::test]
async fn a_pipeline_that_is_not_there_is_named_with_those_that_are() {
    let bench = bench(Limits::default()).await;
    let task = bench
        .run(json!({"pipeline": "none", "name": "out", "params": {}}))
        .await;
    let message = task.error.as_ref().unwrap().0["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("none") && message.contains("tiny"),
        "{message}"
    );
    bench.worker.drain().await;
}

#[test]
fn content_is_named_and_places_are_refused() {
    let id = ArtifactId::new();
    let params = json!({
        "source": format!("artifact:{id}/a/b"),
        "list": [{ "x": format!("artifact:{id}") }],
        "entry": "package.module:factory",
        "name": "a..b/c",
        "n": 1,
    });
    let found = named(&params).unwrap();
    let names = found
        .iter()
        .map(|(field, name)| (field.as_str(), name.path.as_deref()));
    assert_eq!(
        names.collect::<Vec<_>>(),
        [("params.source", Some("a/b")), ("params.list[0].x", None)]
    );
    for text in [
        "/etc/passwd",
        "~/.ssh",
        "../secret",
        "a/../../b",
        "a\\..\\b",
        "\\\\host\\share",
        "file:///etc/passwd",
        "https://example.com/x",
        "..",
        "artifact:",
        "artifact:mdl_1",
        "artifact:x/y",
    ] {
        let bad = named(&json!({ "deep": [text] })).unwrap_err();
        assert_eq!(bad.field, "params.deep[0]", "{text}");
    }
    for path in ["../x", "/x", "", "a//b", "a/./b"] {
        let text = format!("artifact:{id}/{path}");
        assert!(named(&json!({ "source": text })).is_err(), "{path}");
    }
}

#[test]
fn parameters_are_held_against_what_the_pipeline_says() {
    let schema = json!({ "properties": {
        "source": { "type": "string", "x-content": "folder", "description": "the checkpoint" },
        "precision": { "enum": ["fp32", "int8"], "default": "fp32" },
        "block_size": { "type": "integer", "minimum": 16, "maximum": 256 },
        "limit": { "type": "number" },
        "allow_pickle": { "type": "boolean" },
        "inputs": {},
    }, "required": ["source"] });
    let id = ArtifactId::new();
    let fine = json!({ "source": format!("artifact:{id}"), "precision": "int8", "block_size": 32, "limit": 0.5,
        "allow_pickle": true, "inputs": [1], });
    assert_eq!(check_params(&schema, &fine), []);
    let bad = json!({ "source": null, "precison": "int8", "precision": "int3", "block_size": 8, "limit": "x",
        "allow_pickle": 1, "inputs": null });
    let found: Vec<String> = check_params(&schema, &bad)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [
            "params.precison: is not known; did you mean precision?",
            "params.precision: should be one of fp32, int8",
            "params.block_size: should be a whole number from 16 to 256",
            "params.limit: should be a number",
            "params.allow_pickle: should be true or false",
            "params.source: is missing: the checkpoint",
        ]
    );
    let elsewhere = json!({ "source": "checkpoint" });
    let found = check_params(&schema, &elsewhere);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(trusting(&fine), Some("allow_pickle"));
    assert_eq!(
        trusting(&json!({ "allow_pickle": false, "trust_remote_code": null })),
        None
    );
}
