//! Imports and conversions over HTTP, done by a worker as `sluice serve` has one.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::rig::{Person, Rig};
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::store::rig::{Fresh, on_both};
use crate::tasks::Worker;
use crate::work::{WorkSettings, kinds, start};

/// A pipeline whose output is its source, and whose parity is what it is told.
const MAIN: &str = r#"
import json, pathlib, shutil, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
output = pathlib.Path(options["--output"])
params = json.loads(pathlib.Path(options["--params"]).read_text())
parity = {"passed": params["error"] <= 0.1, "measures": {"error": {"value": params["error"], "most": 0.1}}}
if params.get("sleep"):
    time.sleep(1000)
if not parity["passed"]:
    failure = {"code": "parity_failed", "message": "error is above 0.1", "details": {"parity": parity}}
    (output / "error.json").write_text(json.dumps(failure))
    sys.exit(1)
shutil.copytree(params["source"], output / "model")
(output / "result.json").write_text(json.dumps({"folder": "model", "opset": 21, "parity": parity}))
"#;

const PARAMETERS: &str = r#"{"type": "object", "properties": {
    "source": {"type": "string", "x-content": "folder", "description": "the checkpoint"},
    "precision": {"enum": ["fp32", "int8"], "default": "int8"},
    "error": {"type": "number"}, "sleep": {"type": "boolean"}, "texts": {"type": "string", "x-content": "path"},
    "trust_remote_code": {"type": "boolean"}
}, "required": ["source"]}"#;

struct Works {
    rig: Rig,
    worker: Worker,
    dev: Person,
    admin: Person,
}

async fn works(fresh: &Fresh) -> Works {
    let rig = Rig::start(&fresh.store).await;
    let pipeline = rig.folder().join("pipelines/convert/copy");
    std::fs::create_dir_all(&pipeline).unwrap();
    std::fs::create_dir_all(rig.folder().join("import")).unwrap();
    let toml = "name = \"copy\"\nsummary = \"For a test.\"\nframework = \"pytorch\"\n";
    for (name, text) in [
        ("pipeline.toml", toml),
        ("main.py", MAIN),
        ("requirements.lock.txt", "# nothing\n"),
        ("parameters.json", PARAMETERS),
    ] {
        std::fs::write(pipeline.join(name), text).unwrap();
    }
    let settings = WorkSettings {
        slots: 2,
        conversions: None,
        memory: None,
        pipelines: rig.folder().join("pipelines"),
        environments: rig.folder().join("venv"),
        data: rig.folder().to_owned(),
        drain: std::time::Duration::ZERO,
    };
    let worker = start(&rig.open, kinds(&rig.open, &settings).unwrap(), &settings);
    let home = rig.department("home").await;
    let dev = rig
        .person(home, "dev", Role::Developer, Secrecy::Internal)
        .await;
    let admin = rig.person(home, "boss", Role::Admin, Secrecy::Secret).await;
    Works {
        rig,
        worker,
        dev,
        admin,
    }
}

impl Works {
    fn write(&self, path: &str, bytes: &[u8]) -> String {
        let path = self.rig.folder().join("import").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The task at its end.
    async fn ended(&self, id: &str) -> Value {
        let mut watch = self.rig.open.queue.watch(id.parse().unwrap(), 0);
        while !watch.next().await.unwrap().is_empty() {}
        self.rig
            .get(&self.admin.key, &format!("/tasks/{id}"))
            .await
            .expect(200)
    }

    async fn import(&self, body: Value) -> Value {
        let task = self
            .rig
            .post(&self.dev.key, "/imports", body)
            .await
            .expect(201);
        self.ended(task["id"].as_str().unwrap()).await
    }

    async fn checkpoint(&self) -> String {
        let place = self.write("checkpoint/model.safetensors", b"weights");
        let from = Path::new(&place)
            .parent()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let task = self
            .import(json!({ "from": from, "name": "checkpoint", "kind": "checkpoint" }))
            .await;
        assert_eq!(task["state"], "succeeded", "{task}");
        task["result"]["artifact"].as_str().unwrap().to_owned()
    }

    async fn convert(&self, who: &Person, body: Value) -> super::rig::Answered {
        self.rig.post(&who.key, "/models/m/conversions", body).await
    }

    /// The run at its end.
    async fn run(&self, body: Value) -> Value {
        let run = self.convert(&self.dev, body).await.expect(201);
        assert_eq!(run["status"], "queued");
        self.ended(run["task"].as_str().unwrap()).await;
        let path = format!("/conversions/{}", run["id"].as_str().unwrap());
        self.rig.get(&self.dev.key, &path).await.expect(200)
    }
}

#[tokio::test]
async fn a_conversion_leaves_its_evidence_in_the_run() {
    on_both(async |fresh: Arc<Fresh>| {
        let works = works(&fresh).await;
        let (rig, dev) = (&works.rig, &works.dev);
        rig.post(&dev.key, "/models", json!({ "name": "m" })).await.expect(201);
        let source = works.checkpoint().await;

        let body = json!({ "pipeline": "copy", "source": source, "params": { "error": 0.01 } });
        let run = works.run(body).await;
        assert_eq!((&run["status"], &run["parity_passed"]), (&json!("succeeded"), &json!(true)), "{run}");
        assert_eq!((&run["number_format"], &run["opset"]), (&json!("int8"), &json!(21)));
        assert_eq!((&run["exporter"], &run["source_framework"]), (&json!("copy"), &json!("pytorch")));
        assert_eq!(run["params"]["source"], format!("artifact:{source}"));
        assert_eq!(run["parity"]["measures"]["error"]["value"], 0.01);
        assert!(run["started_at"].is_string() && run["finished_at"].is_string());
        let output = run["output_artifact"].as_str().unwrap();
        let made = rig.get(&dev.key, &format!("/artifacts/{output}")).await.expect(200);
        assert_eq!((&made["kind"], &made["digest"]), (&json!("model"), &run["output_digest"]));
        for artifact in [output, &source] {
            let held = rig.get(&dev.key, &format!("/artifacts/{artifact}/references")).await.expect(200);
            assert!(held["items"].to_string().contains(run["id"].as_str().unwrap()), "{held}");
        }

        // A version of it needs no more than its name.
        let of_run = json!({ "conversion_run": run["id"] });
        rig.post(&dev.key, "/models/m/versions", of_run).await.expect(201);
        let version = rig.post(&dev.key, "/models/m/versions/1/register", json!({})).await;
        assert_eq!(version.expect(200)["digest"], run["output_digest"]);
        rig.post(&dev.key, "/models/m/versions", json!({})).await.expect(201);
        let without = rig.post(&dev.key, "/models/m/versions/2/register", json!({})).await;
        assert_eq!(without.expect(422)["errors"][0]["field"], "artifact");

        // Numbers that are too bad stay where they can be read.
        let body = json!({ "pipeline": "copy", "source": source, "params": { "error": 0.3 } });
        let run = works.run(body).await;
        assert_eq!((&run["status"], &run["parity_passed"]), (&json!("failed"), &json!(false)), "{run}");
        assert_eq!(run["parity"]["measures"]["error"]["value"], 0.3);
        assert_eq!(run["error"], "error is above 0.1 (parity_failed)");
        assert_eq!(run["output_artifact"], Value::Null);

        // One that is cancelled while it runs.
        let body = json!({ "pipeline": "copy", "source": source, "params": { "error": 0.0, "sleep": true } });
        let run = works.convert(dev, body).await.expect(201);
        let path = format!("/conversions/{}", run["id"].as_str().unwrap());
        while rig.get(&dev.key, &path).await.expect(200)["status"] != "running" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let task = run["task"].as_str().unwrap();
        rig.post(&dev.key, &format!("/tasks/{task}/cancel"), json!({})).await.expect(200);
        assert_eq!(works.ended(task).await["state"], "cancelled");
        assert_eq!(rig.get(&dev.key, &path).await.expect(200)["status"], "cancelled");
        let runs = rig.get(&dev.key, "/conversions?model=m&status=succeeded").await.expect(200);
        assert_eq!(runs["items"].as_array().unwrap().len(), 1);
        works.worker.drain().await;
    })
    .await;
}

#[tokio::test]
async fn a_conversion_reads_only_what_its_caller_may() {
    on_both(async |fresh: Arc<Fresh>| {
        let works = works(&fresh).await;
        let (rig, dev) = (&works.rig, &works.dev);
        rig.post(&dev.key, "/models", json!({ "name": "m" }))
            .await
            .expect(201);
        let source = works.checkpoint().await;
        let other = rig.department("other").await;
        let stranger = rig
            .person(other, "stranger", Role::Developer, Secrecy::Internal)
            .await;
        rig.post(&stranger.key, "/models", json!({ "name": "theirs" }))
            .await
            .expect(201);
        let body = json!({ "pipeline": "copy", "source": source });
        works.convert(&stranger, body.clone()).await.expect(404);
        let refused = rig
            .post(&stranger.key, "/models/theirs/conversions", body)
            .await
            .expect(422);
        assert_eq!(refused["errors"][0]["field"], "source");

        for (field, source, params) in [
            ("source", "/etc".to_owned(), json!({})),
            ("source", format!("artifact:{source}/../x"), json!({})),
            ("source", format!("artifact:{source}/nothing"), json!({})),
            (
                "params.texts",
                source.clone(),
                json!({ "texts": "/etc/passwd" }),
            ),
            (
                "params.texts",
                source.clone(),
                json!({ "texts": "../../data/sluice.db" }),
            ),
            (
                "params.texts",
                source.clone(),
                json!({ "texts": "file:///etc/passwd" }),
            ),
            ("params.texts", source.clone(), json!({ "texts": "output" })),
            ("params.source", source.clone(), json!({ "source": "x" })),
            (
                "params.precision",
                source.clone(),
                json!({ "precision": "int3" }),
            ),
            ("params.eror", source.clone(), json!({ "eror": 0.1 })),
        ] {
            let body = json!({ "pipeline": "copy", "source": source, "params": params });
            let refused = works.convert(dev, body.clone()).await.expect(422);
            assert_eq!(refused["errors"][0]["field"], field, "{body}");
        }
        let unknown = json!({ "pipeline": "none", "source": source });
        let unknown = works.convert(dev, unknown).await.expect(422);
        assert!(
            unknown["detail"].as_str().unwrap().contains("copy"),
            "{unknown}"
        );
        // To run a checkpoint's own code on the server takes an administrator.
        let code = json!({ "pipeline": "copy", "source": source,
            "params": { "error": 0.0, "trust_remote_code": true } });
        works.convert(dev, code.clone()).await.expect(403);
        let run = works.convert(&works.admin, code).await.expect(201);
        assert_eq!(
            works.ended(run["task"].as_str().unwrap()).await["state"],
            "succeeded"
        );
        let pipelines = rig.get(&dev.key, "/pipelines").await.expect(200);
        assert_eq!(pipelines["items"][0]["name"], "copy");
        assert_eq!(
            pipelines["items"][0]["parameters"]["required"],
            json!(["source"])
        );
        works.worker.drain().await;
    })
    .await;
}

fn zip_of_zeros(bytes: usize) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("zeros", zip::write::SimpleFileOptions::default())
        .unwrap();
    zip.write_all(&vec![0; bytes]).unwrap();
    zip.finish().unwrap().into_inner()
}

fn tar_with(path: &str, link: Option<&str>) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_mode(0o644);
    match link {
        Some(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_link_name(target).unwrap();
        }
        None => header.set_entry_type(tar::EntryType::Regular),
    }
    header.set_size(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

#[tokio::test]
async fn imports_are_tasks_and_refuse_what_would_do_harm() {
    on_both(async |fresh: Arc<Fresh>| {
        let works = works(&fresh).await;
        let (rig, dev) = (&works.rig, &works.dev);
        let good = works.write("good.zip", &zip_of_zeros(1000));
        let task = works
            .import(json!({ "from": good, "name": "z", "kind": "model", "unpack": true }))
            .await;
        assert_eq!(
            (&task["state"], &task["result"]["bytes"]),
            (&json!("succeeded"), &json!(1000)),
            "{task}"
        );
        let outside = rig.folder().join("secret");
        std::fs::write(&outside, b"secret").unwrap();
        let outside = outside.to_str().unwrap().to_owned();
        std::fs::create_dir_all(rig.folder().join("import/linked")).unwrap();
        std::os::unix::fs::symlink(&outside, rig.folder().join("import/linked/x")).unwrap();
        let linked = rig
            .folder()
            .join("import/linked")
            .to_str()
            .unwrap()
            .to_owned();
        for (from, code) in [
            (
                works.write("bomb.zip", &zip_of_zeros(65 << 20)),
                "too_large",
            ),
            (
                works.write("up.tar", &tar_with("../up", None)),
                "bad_content",
            ),
            (
                works.write("absolute.tar", &tar_with("/etc/x", None)),
                "bad_content",
            ),
            (
                works.write("link.tar", &tar_with("x", Some("/etc/passwd"))),
                "bad_content",
            ),
            (linked, "forbidden"),
            (outside, "forbidden"),
            ("/etc/hostname".to_owned(), "forbidden"),
            ("http://127.0.0.1:9/x".to_owned(), "forbidden"),
            ("http://169.254.169.254/latest".to_owned(), "forbidden"),
            ("s3://anybody/x".to_owned(), "forbidden"),
        ] {
            let body = json!({ "from": from, "name": "bad", "kind": "model", "unpack": true });
            let task = works.import(body).await;
            assert_eq!(
                (&task["state"], &task["error"]["code"]),
                (&json!("failed"), &json!(code)),
                "{from}: {task}"
            );
        }
        for (field, body) in [
            (
                "from",
                json!({ "from": "relative", "name": "x", "kind": "model" }),
            ),
            (
                "from",
                json!({ "from": "https://me:secret@example.com/x", "name": "x", "kind": "model" }),
            ),
            (
                "name",
                json!({ "from": "/x", "name": "a/b", "kind": "model" }),
            ),
            (
                "file_name",
                json!({ "from": "/x", "name": "x", "kind": "model", "file_name": "../x" }),
            ),
            (
                "kind",
                json!({ "from": "/x", "name": "x", "kind": "thing" }),
            ),
        ] {
            let refused = rig.post(&dev.key, "/imports", body).await.expect(422);
            assert_eq!(refused["errors"][0]["field"], field);
        }
        // A signature in a URL is for the worker alone.
        let signed =
            json!({ "from": "http://127.0.0.1:9/x?signature=hush", "name": "x", "kind": "model" });
        let task = rig.post(&dev.key, "/imports", signed).await;
        assert!(!task.text().contains("hush"), "{}", task.text());
        let audit = rig.get("sk-root", "/audit").await;
        assert!(!audit.text().contains("hush"), "{}", audit.text());
        rig.post(&dev.key, "/gc", json!({})).await.expect(403);
        let gc = rig
            .post(&works.admin.key, "/gc", json!({}))
            .await
            .expect(201);
        assert_eq!(
            works.ended(gc["id"].as_str().unwrap()).await["state"],
            "succeeded"
        );
        works.worker.drain().await;
    })
    .await;
}
