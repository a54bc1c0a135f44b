//! Two departments, people of each role and clearance, and one object of each kind, which belongs to the department `it` and
//! is confidential where its kind can be.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sluice_gateway::config::DeploymentConfig;
use sluice_gateway::router::{Served, Source, load};

use super::super::rig::{Answered, Person, Rig};
use super::super::versions::evaluated;
use super::Stand;
use crate::domain::Verdict;
use crate::domain::record::ConversionRun;
use crate::domain::roles::Role;
use crate::domain::run::RunStatus;
use crate::domain::secrecy::Secrecy;
use crate::publish::{Snapshot, key_entries, told};
use crate::store::rig::system;
use crate::store::{Json, Store};
use crate::tasks::NewTask;

pub(super) const DIGEST: &str =
    "sha256:00000000000000000000000000000000000000000000000000000000000000aa";
/// The deployment of the world, which is served by an upstream that is not there.
pub(super) const ENDPOINT: &str = "helpdesk-of-it";

pub(super) struct World {
    rig: Rig,
    keys: HashMap<(Role, Stand), String>,
    ids: HashMap<&'static str, String>,
}

impl World {
    pub(super) async fn new(store: &Store) -> Self {
        let rig = Rig::start(store).await;
        let (it, sales) = (rig.department("it").await, rig.department("sales").await);
        let mut people = HashMap::new();
        for &role in Role::ALL {
            for (stand, department, clearance) in [
                (Stand::Own, it, Secrecy::Confidential),
                (Stand::OwnBelow, it, Secrecy::Internal),
                (Stand::Other, sales, Secrecy::Confidential),
            ] {
                let name = format!("{role}-{stand:?}");
                let person = rig.person(department, &name, role, clearance).await;
                people.insert((role, stand), person);
            }
        }
        let ada = rig
            .person(it, "ada", Role::Viewer, Secrecy::Confidential)
            .await;
        let mut world = Self {
            rig,
            keys: people
                .iter()
                .map(|(who, it)| (*who, it.key.clone()))
                .collect(),
            ids: HashMap::new(),
        };
        world.ids.insert("principal", ada.id.to_string());
        world.ids.insert("department", it.to_string());
        let dev = people[&(Role::Developer, Stand::Own)].clone();
        let operator = people[&(Role::Operator, Stand::Own)].clone();
        world.catalogue(&dev).await;
        world.service(&dev, &operator).await;
        let task = NewTask {
            department: Some(it),
            ..NewTask::new("probe", json!({}))
        };
        let task = world.rig.open.queue.enqueue(&system(), task).await.unwrap();
        world.ids.insert("task", task.id.to_string());
        world.publish(store).await;
        world
    }

    async fn made(&mut self, kind: &'static str, key: &str, path: &str, body: Value) -> Value {
        let made = self.rig.post(key, path, body).await.expect(201);
        let id = made["id"].as_str().or(made["key"]["id"].as_str());
        self.ids.insert(kind, id.unwrap().to_owned());
        made
    }

    async fn catalogue(&mut self, dev: &Person) {
        let key = dev.key.as_str();
        let model = self
            .made("model", key, "/models", json!({"name": "m"}))
            .await;
        let tickets = json!({"name": "tickets", "secrecy": "confidential"});
        self.made("dataset", key, "/datasets", tickets).await;
        let all = json!({"dataset": "tickets", "department": "it", "access": "use"});
        self.made("dataset_grant", key, "/grants", all).await;
        self.made(
            "dataset_version",
            key,
            "/datasets/tickets/versions",
            json!({"digest": DIGEST}),
        )
        .await;
        let evaluation = json!({
            "model": "m", "name": "e", "test_set": "tickets@v1",
            "metrics": {"measure": [{"kind": "token_f1"}]},
            "thresholds": {"rules": [{"metric": "token_f1", "min": 0.8}]},
        });
        let evaluation = self
            .made("evaluation", key, "/evaluations", evaluation)
            .await;
        self.made("version", key, "/models/m/versions", json!({}))
            .await;
        let version = self
            .rig
            .post(
                key,
                "/models/m/versions/v1/register",
                json!({"digest": DIGEST}),
            )
            .await
            .expect(200);
        evaluated(&self.rig, &evaluation, &version, Verdict::Passed).await;
        let runs = self.rig.get(key, "/evaluation_runs").await.expect(200);
        let run = runs["items"][0]["id"].as_str().unwrap().to_owned();
        self.ids.insert("evaluation_run", run);
        self.made(
            "training",
            key,
            "/trainings",
            json!({"model": "m", "name": "t"}),
        )
        .await;
        self.made("training_run", key, "/trainings/t/runs", json!({}))
            .await;
        let prompt = json!({"name": "p", "template": "{{ text }}"});
        self.made("prompt", key, "/models/m/prompts", prompt).await;
        let conversion = ConversionRun {
            model: model["id"].as_str().unwrap().parse().unwrap(),
            task: None,
            author: None,
            status: RunStatus::Queued,
            source_artifact: None,
            source_framework: "pytorch".into(),
            exporter: "none".into(),
            opset: None,
            number_format: "fp32".into(),
            params: Json(json!({})),
            parity: None,
            parity_passed: None,
            output_artifact: None,
            output_digest: None,
            error: None,
            started_at: None,
            finished_at: None,
        };
        let conversion = self.rig.store.create(&system(), conversion).await.unwrap();
        self.ids.insert("conversion", conversion.id.to_string());
        let digest = crate::artifacts::Digest::of(b"x").to_string();
        for (kind, path) in [("artifact", "a"), ("upload", "b")] {
            let upload = json!({"path": path, "bytes": 1, "digest": digest});
            let upload = self.made("upload", key, "/uploads", upload).await;
            let id = upload["id"].as_str().unwrap().to_owned();
            if upload["state"] != "completed" {
                let part = format!("/uploads/{id}/parts/0");
                self.rig
                    .send_bytes(key, "PUT", &part, (&b"x"[..]).into(), &[])
                    .await;
                self.rig
                    .post(key, &format!("/uploads/{id}/complete"), json!({}))
                    .await
                    .expect(200);
            }
            if kind == "artifact" {
                let files = json!({"name": "a", "kind": "dataset", "files": [{"upload": id}]});
                self.made("artifact", key, "/artifacts", files).await;
            }
        }
    }

    async fn service(&mut self, dev: &Person, operator: &Person) {
        let approver = self.keys[&(Role::Approver, Stand::Own)].clone();
        for (key, event) in [(&dev.key, "request_approval"), (&approver, "approve")] {
            self.rig
                .post(key, &format!("/models/m/versions/v1/{event}"), json!({}))
                .await
                .expect(200);
        }
        let deployment = json!({"endpoint": ENDPOINT, "model": "m", "clearance": "confidential"});
        self.made("deployment", &operator.key, "/deployments", deployment)
            .await;
        let order = json!({"deployment": ENDPOINT, "version": "v1"});
        self.made("work_order", &dev.key, "/work_orders", order)
            .await;
        let quota = json!({"principal": "ada", "requests_per_month": 1000});
        self.made("quota", &operator.key, "/quotas", quota).await;
        let grant = json!({"deployment": ENDPOINT, "principal": "ada", "access": "use"});
        self.made("grant", &operator.key, "/grants", grant).await;
        let ada = json!({"name": "laptop", "principal": "ada"});
        self.made("key", "sk-root", "/keys", ada).await;
    }

    /// What the publisher would tell the gateway, with the deployment as if it were live.
    async fn publish(&self, store: &Store) {
        let gateway = self.rig.gateway();
        let snapshot = Snapshot::take(store, &Snapshot::default(), &|id| gateway.file_key(id))
            .await
            .unwrap();
        gateway.publish_keys(key_entries(&snapshot)).unwrap();
        let upstream = DeploymentConfig::of_upstream(ENDPOINT, "http://127.0.0.1:9/v1");
        let deployment = load::deployment(gateway, &upstream).await.unwrap();
        let served = Served {
            audience: Arc::new(told(&snapshot.audiences[0])),
            ..Served::from(deployment)
        };
        gateway.publish_from(Source::Control, vec![served]).unwrap();
        gateway.set_ready(true);
    }

    pub(super) fn key(&self, role: Role, stand: Stand) -> &str {
        &self.keys[&(role, stand)]
    }

    pub(super) fn id(&self, kind: &str) -> &str {
        &self.ids[kind]
    }

    pub(super) fn folder(&self) -> String {
        self.rig.folder().join("import").display().to_string()
    }

    pub(super) async fn send(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        if_match: &str,
    ) -> Answered {
        let headers = match method {
            "GET" => Vec::new(),
            _ => vec![("if-match", if_match)],
        };
        if path.ends_with("/events") {
            return self.rig.head(key, path).await;
        }
        self.rig.send_to(key, method, path, body, &headers).await
    }

    /// Whether it answers with records of which each caller has some and not others.
    pub(super) fn is_list(&self, method: &str, path: &str) -> bool {
        const OTHER: [&str; 8] = [
            "/me",
            "/gc",
            "/usage",
            "/usage/entries",
            "/audit",
            "/pipelines",
            "/keys",
            "/apply",
        ];
        let path = path.trim_start_matches("/api/v1");
        let reads = method == "GET" || path == "/v2/repository/index";
        reads && !path.contains('{') && !OTHER.contains(&path) && path != "/v2"
    }

    /// Whether a text holds something of the world.
    pub(super) fn is_told_of(&self, text: &str) -> bool {
        text.contains(ENDPOINT) || self.ids.values().any(|id| text.contains(id.as_str()))
    }

    /// The path with the world's objects in it.
    pub(super) fn filled(&self, path: &str, _turn: usize) -> String {
        let of = |kind: &str| self.id(kind).to_owned();
        let segments: Vec<&str> = path.split('/').collect();
        let filled = segments.iter().enumerate().map(|(at, segment)| {
            let before = at.checked_sub(1).map_or("", |at| segments[at]);
            match (*segment, before) {
                ("{id}", "artifacts") => of("artifact"),
                ("{id}", "conversions") => of("conversion"),
                ("{id}", "datasets") => "tickets".into(),
                ("{id}", "departments") => "it".into(),
                ("{id}", "deployments") => ENDPOINT.into(),
                ("{id}", "evaluation_runs") => of("evaluation_run"),
                ("{id}", "evaluations") => "e".into(),
                ("{id}", "grants") => of("grant"),
                ("{id}", "keys") => of("key"),
                ("{id}", "models") => "m".into(),
                ("{id}", "principals") => "ada".into(),
                ("{id}", "quotas") => of("quota"),
                ("{id}", "releases" | "work_orders") => of("work_order"),
                ("{id}", "tasks") => of("task"),
                ("{id}", "training_runs") => of("training_run"),
                ("{id}", "trainings") => "t".into(),
                ("{id}", "uploads") => of("upload"),
                ("{version}", _) if path.starts_with("/v2/") => "remote".into(),
                ("{version}", _) => "v1".into(),
                ("{number}", _) => "0".into(),
                ("{path}", _) => "a".into(),
                ("{event}", _) => "start".into(),
                ("{model}", _) => ENDPOINT.into(),
                ("names", _) => format!("names?ids={}", of("model")),
                (other, _) => {
                    assert!(!other.starts_with('{'), "{path}: what is {other}?");
                    other.to_owned()
                }
            }
        });
        filled.collect::<Vec<_>>().join("/")
    }
}
