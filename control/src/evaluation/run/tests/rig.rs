//! A serving process in small with a worker that evaluates, a model, and test sets as artifacts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use sluice_gateway::config::Config;

use super::super::*;
use crate::artifacts::{ArtifactSettings, NewArtifact};
use crate::deploy::tests::rig::{self as deploy, Folders, People, Rig};
use crate::domain::model_version::{ModelVersionEvent as Event, ModelVersionState as State};
use crate::domain::record::{
    self, ArtifactKind, Dataset, Evaluation, EvaluationMethod, Modality, PromptVersion,
};
use crate::domain::secrecy::Secrecy;
use crate::id::{DatasetVersionId, EvaluationId, ModelId, PromptVersionId};
use crate::store::rig::system;
use crate::store::{EvaluationSample, Json, SampleFilter};
use crate::tasks::executor::LocalExecutor;
use crate::tasks::{Backoff, Kinds, QueueSettings, Worker, WorkerSettings};

pub(super) struct Bench {
    pub(super) rig: Rig,
    pub(super) store: Store,
    pub(super) people: People,
    pub(super) model: ModelId,
    pub(super) product: deploy::Product,
    pub(super) name: String,
    pub(super) queue: Queue,
    artifacts: Artifacts,
    folder: tempfile::TempDir,
}

impl Bench {
    pub(super) async fn new(store: &Store) -> Self {
        Self::with(store, Folders::helpdesk().await).await
    }

    pub(super) async fn with(store: &Store, folders: Folders) -> Self {
        let data = tempfile::tempdir().unwrap();
        let rig = Rig::with_models(store, u64::MAX, Config::default(), data, folders).await;
        let people = deploy::people(store).await;
        let product = deploy::product(store, &people).await;
        let folder = tempfile::tempdir().unwrap();
        let settings = QueueSettings {
            lease: Duration::from_millis(600),
            backoff: Backoff {
                base: Duration::from_millis(20),
                ..Backoff::default()
            },
            ..QueueSettings::default()
        };
        Self {
            store: store.clone(),
            people,
            model: product.model,
            product,
            name: store
                .get::<Model>(product.model)
                .await
                .unwrap()
                .name
                .clone(),
            queue: Queue::new(store.clone(), settings),
            artifacts: Artifacts::open(store.clone(), ArtifactSettings::default(), folder.path())
                .unwrap(),
            folder,
            rig,
        }
    }

    pub(super) fn worker(&self) -> Worker {
        let settings = WorkerSettings {
            heartbeat: Duration::from_millis(50),
            poll: Duration::from_millis(20),
            sweep: Duration::from_millis(50),
            report: Duration::from_millis(50),
            ..WorkerSettings::new(self.folder.path().join("tasks"))
        };
        let evaluate = Evaluate::new(
            Arc::clone(&self.rig.gateway),
            Arc::clone(&self.rig.publisher),
            self.artifacts.clone(),
            RowLimits::default(),
        );
        let kinds = Kinds::new().with(evaluate);
        Worker::start(self.queue.clone(), kinds, Arc::new(LocalExecutor), settings)
    }

    /// A version of a folder, registered.
    pub(super) async fn version(&self, digest: &str) -> Stored<ModelVersion> {
        let draft = ModelVersion {
            model: self.model,
            number: 0,
            author: self.people.developer.actor.principal,
            state: State::Draft,
            artifact: None,
            digest: Some(digest.to_owned()),
            training_run: None,
            conversion_run: None,
            evidence: None,
            approver: None,
            approved_at: None,
            note: String::new(),
        };
        let mut tx = self.store.begin().await.unwrap();
        let id = tx.add_model_version(&system(), draft).await.unwrap().id;
        for event in [Event::Register, Event::RegisterSucceed] {
            tx.transition::<ModelVersion>(&system(), id, None, event, |_| {})
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        self.store.get(id).await.unwrap()
    }

    pub(super) async fn helpdesk(&self, folder: &str) -> Stored<ModelVersion> {
        let path = deploy::helpdesk(folder);
        let digest = crate::deploy::replicas::content(&path).await.unwrap();
        self.version(&digest).await
    }

    /// A dataset's version of these files.
    pub(super) async fn test_set(&self, files: &[(&str, String)]) -> DatasetVersionId {
        let mut stored = Vec::new();
        for (path, text) in files {
            let bytes = futures_util::stream::iter([Ok(Bytes::from(text.clone()))]);
            stored.push(self.artifacts.put(path, bytes).await.unwrap());
        }
        let new = NewArtifact {
            department: self.people.department,
            kind: ArtifactKind::Dataset,
            name: "questions".into(),
            source: None,
        };
        let artifact = self
            .artifacts
            .register(&system(), new, stored)
            .await
            .unwrap();
        let dataset = Dataset {
            department: self.people.department,
            owner: None,
            name: format!("questions-{}", uuid::Uuid::now_v7().simple()),
            description: String::new(),
            source: String::new(),
            modality: Modality::Text,
            secrecy: Secrecy::Internal,
        };
        let dataset = self.store.create(&system(), dataset).await.unwrap().id;
        let version = DatasetVersion {
            dataset,
            number: 0,
            author: None,
            artifact: Some(artifact.id),
            digest: artifact.digest.clone(),
            row_count: 0,
            bytes: artifact.bytes,
            schema_json: deploy::object(),
            statistics: deploy::object(),
            parent: None,
            note: String::new(),
        };
        let mut tx = self.store.begin().await.unwrap();
        let version = tx.add_dataset_version(&system(), version).await.unwrap();
        tx.commit().await.unwrap();
        version.id
    }

    pub(super) async fn evaluation(
        &self,
        test_set: DatasetVersionId,
        metrics: Value,
        thresholds: Value,
        settings: Value,
    ) -> EvaluationId {
        let evaluation = Evaluation {
            model: self.model,
            owner: None,
            name: format!("quality-{}", uuid::Uuid::now_v7().simple()),
            method: EvaluationMethod::Automatic,
            test_set: Some(test_set),
            policy_digest: format!("sha256:{thresholds}{metrics}"),
            metrics: Json(metrics),
            thresholds: Json(thresholds),
            settings: Json(settings),
        };
        self.store.create(&system(), evaluation).await.unwrap().id
    }

    pub(super) async fn prompt(&self, template: &str) -> PromptVersionId {
        let prompt = PromptVersion {
            model: self.model,
            author: None,
            name: "triage".into(),
            number: 0,
            digest: String::new(),
            template: template.into(),
            sampling: deploy::object(),
            note: String::new(),
        };
        let mut tx = self.store.begin().await.unwrap();
        let prompt = tx.add_prompt_version(&system(), prompt).await.unwrap();
        tx.commit().await.unwrap();
        prompt.id
    }

    pub(super) async fn order(
        &self,
        evaluation: EvaluationId,
        version: &Stored<ModelVersion>,
        prompt_versions: &[PromptVersionId],
    ) -> Stored<EvaluationRun> {
        let new = NewRun {
            evaluation: self.store.get(evaluation).await.unwrap(),
            version: self.store.get(version.id).await.unwrap(),
            prompt_versions: prompt_versions.to_vec(),
            baseline: Baseline::Live,
            department: self.people.department,
            priority: 0,
        };
        let actor = &self.people.developer.actor;
        order(&self.queue, actor, new).await.unwrap()
    }

    /// Until the run is over.
    pub(super) async fn ended(&self, run: EvaluationRunId) -> Stored<EvaluationRun> {
        loop {
            let run = self.store.get::<EvaluationRun>(run).await.unwrap();
            if run.finished_at.is_some() {
                return run;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until the run's task is over, which is a moment later.
    pub(super) async fn task_ended(&self, run: &EvaluationRun) -> Stored<record::Task> {
        loop {
            let task = self
                .store
                .get::<record::Task>(run.task.unwrap())
                .await
                .unwrap();
            if task.finished_at.is_some() {
                return task;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn samples(&self, run: EvaluationRunId) -> Vec<EvaluationSample> {
        let filter = SampleFilter::default();
        let page = self.store.samples(run, &filter, MAX_LIMIT).await.unwrap();
        page.items
    }

    pub(super) async fn state(&self, version: &Stored<ModelVersion>) -> State {
        self.rig.state(version.id).await
    }

    /// Lines of the metrics that hold all of `parts`.
    pub(super) fn metrics(&self, parts: &[&str]) -> Vec<String> {
        let gateway = &self.rig.gateway;
        let text = gateway
            .metrics()
            .expose(&gateway.routes(), sluice_gateway::metrics::Format::Text);
        String::from_utf8(text)
            .unwrap()
            .lines()
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .map(str::to_owned)
            .collect()
    }
}

/// The first rows of the helpdesk's test set, the first half of them tagged.
pub(super) fn tickets(count: usize) -> String {
    let text = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/helpdesk/test.jsonl"),
    )
    .unwrap();
    text.lines()
        .take(count)
        .enumerate()
        .map(|(at, line)| {
            let mut row: Value = serde_json::from_str(line).unwrap();
            row["id"] = json!(format!("ticket-{at}"));
            row["tags"] = match at < count / 2 {
                true => json!(["early", "a \"quoted\" one"]),
                false => json!(null),
            };
            format!("{row}\n")
        })
        .collect()
}

/// Tickets are right in every field, or not.
pub(super) fn by_fields() -> Value {
    json!({
        "ask": {
            "columns": {"reference": "ticket"},
            "sampling": {"max_tokens": 120},
        },
        "measure": [
            {"kind": "json_fields"},
            {"kind": "latency", "percentile": 90},
        ],
        "bootstrap": {"resamples": 200},
    })
}

pub(super) fn at_least(min: f64) -> Value {
    json!({"rules": [{"metric": "json_fields", "min": min}], "min_samples": 5})
}

/// As the tests' machines can hold several of.
pub(super) fn small() -> Value {
    json!({"engine_options": {"slots": 4, "context": 320}})
}
