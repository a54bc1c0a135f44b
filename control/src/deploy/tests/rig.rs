//! A serving process in small: gateway, server, publisher and driver, with people and versions.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sluice_gateway::Gateway;
use sluice_gateway::config::Config;
use sluice_gateway::server::{Server, StopHandle};
use tokio::sync::Notify;

use super::super::*;
use crate::domain::Verdict;
use crate::domain::model_version::{ModelVersionEvent, ModelVersionState};
use crate::domain::record::{
    Dataset, DatasetVersion, Department, Deployment, Evaluation, EvaluationMethod, EvaluationRun,
    Modality, Model, ModelVersion, Principal, WorkOrder,
};
use crate::domain::run::RunStatus;
use crate::domain::secrecy::Secrecy;
use crate::id::{ArtifactId, DatasetVersionId, EvaluationId, ModelId, ModelVersionId};
use crate::publish::{Publisher, SnapshotFile};
use crate::release::controller::{Controller, Recorder, Releases};
use crate::sandbox::in_process::InProcess;
use crate::store::rig::require;
use crate::store::{Json, Store, Stored};

/// Folders of this machine, by what their content digests to.
#[derive(Debug, Default)]
pub(crate) struct Folders(HashMap<String, PathBuf>);

impl Folders {
    pub(crate) async fn helpdesk() -> Self {
        Self::of(&["v1", "v2", "v3"].map(helpdesk)).await
    }

    pub(crate) async fn of(paths: &[PathBuf]) -> Self {
        let mut all = HashMap::new();
        for path in paths {
            all.insert(replicas::content(path).await.unwrap(), path.clone());
        }
        Self(all)
    }
}

impl Artifacts for Folders {
    fn materialise<'a>(
        &'a self,
        _artifact: Option<ArtifactId>,
        digest: &'a str,
    ) -> BoxFuture<'a, Result<Materialised, String>> {
        Box::pin(async move {
            let folder = self.0.get(digest).ok_or("there is no such artifact")?;
            if replicas::content(folder).await? != digest {
                return Err("the files are not what the digest says".into());
            }
            Ok(Materialised {
                folder: folder.clone(),
                bytes: 1,
            })
        })
    }
}

pub(crate) fn helpdesk(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/helpdesk/models")
        .join(version)
}

/// The people of one department, each in one role.
pub(crate) struct People {
    pub(crate) department: DepartmentId,
    pub(crate) developer: Caller,
    pub(crate) approver: Caller,
    pub(crate) operator: Caller,
}

pub(crate) struct Rig {
    pub(crate) store: Store,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) driver: Driver,
    pub(crate) deployments: Deployments,
    pub(crate) wake: Arc<Notify>,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client<HttpConnector, Full<Bytes>>,
    pub(crate) data: tempfile::TempDir,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) controller: Controller,
    pub(crate) releases: Releases,
    _stop: StopHandle,
}

impl Rig {
    pub(crate) async fn new(store: &Store) -> Self {
        Self::with_budget(store, u64::MAX).await
    }

    pub(crate) async fn with_budget(store: &Store, budget: u64) -> Self {
        Self::with(
            store,
            budget,
            Config::default(),
            tempfile::tempdir().unwrap(),
        )
        .await
    }

    pub(crate) async fn with(
        store: &Store,
        budget: u64,
        config: Config,
        data: tempfile::TempDir,
    ) -> Self {
        Self::with_models(store, budget, config, data, Folders::helpdesk().await).await
    }

    pub(crate) async fn with_models(
        store: &Store,
        budget: u64,
        mut config: Config,
        data: tempfile::TempDir,
        folders: Folders,
    ) -> Self {
        config.listen.set_port(0);
        config.control.allow.upstreams = vec!["127.0.0.0/8".into()];
        config.data = std::env::var_os("SLUICE_DATA").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../data"),
            PathBuf::from,
        );
        let gateway = Gateway::new(config).unwrap();
        gateway.set_ready(true);
        let server = Server::bind(Arc::clone(&gateway)).await.unwrap();
        let address = server.address();
        let (handle, stop) = StopHandle::new();
        tokio::spawn(server.run(stop));
        let replicas = Replicas::new(Arc::clone(&gateway), Arc::new(folders), budget);
        let file = SnapshotFile::in_folder(data.path().join("control"));
        let hosts = Arc::new(InProcess(Arc::clone(&gateway)));
        let publisher = Publisher::new(Arc::clone(&gateway), Arc::clone(&replicas), hosts, file);
        publisher.follow(store.clone());
        let wake = Arc::new(Notify::new());
        let deployments = Deployments::new(store.clone(), Arc::clone(&wake));
        let recorder = Recorder::new(Arc::clone(&publisher), data.path());
        recorder.follow(store.clone(), deployments.clone());
        let (of, by) = (Arc::clone(&publisher), Arc::clone(&recorder));
        let releases = Releases::new(of, by, Arc::clone(&wake));
        releases.follow(store.clone(), deployments.clone());
        let (of, by) = (Arc::clone(&publisher), Arc::clone(&recorder));
        Self {
            controller: Controller::new(store.clone(), of, by),
            recorder,
            releases,
            driver: Driver::new(
                store.clone(),
                Arc::clone(&replicas),
                Arc::clone(&publisher),
                DriverSettings::default(),
            ),
            deployments,
            store: store.clone(),
            gateway,
            replicas,
            publisher,
            wake,
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
            data,
            _stop: handle,
        }
    }

    /// A request to `/v1/chat/completions`: status and revision.
    pub(crate) async fn chat(&self, model: &str, key: Option<&str>) -> (StatusCode, String) {
        let (status, revision, _) = self.ask(model, key).await;
        (status, revision)
    }

    /// The status, unless the connection breaks.
    pub(crate) async fn try_chat(&self, model: &str) -> Option<StatusCode> {
        let answer = self.client.request(self.request(model, None)).await.ok()?;
        let status = answer.status();
        answer.into_body().collect().await.ok()?;
        Some(status)
    }

    fn request(&self, model: &str, key: Option<&str>) -> Request<Full<Bytes>> {
        let body = json!({
            "model": model, "max_tokens": 4, "temperature": 0,
            "messages": [{"role": "user", "content": "My VPN is down"}],
        });
        let mut request = Request::post(format!("http://{}/v1/chat/completions", self.address))
            .header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        request.body(Full::new(body.to_string().into())).unwrap()
    }

    pub(crate) async fn ask(
        &self,
        model: &str,
        key: Option<&str>,
    ) -> (StatusCode, String, http::Response<Bytes>) {
        let request = self.request(model, key);
        let answer = self.client.request(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let revision = parts.headers["x-sluice-revision"]
            .to_str()
            .unwrap()
            .to_owned();
        let status = parts.status;
        (status, revision, http::Response::from_parts(parts, body))
    }

    /// Orders, approves and carries out.
    pub(crate) async fn deploy(
        &self,
        people: &People,
        at: &Stored<Deployment>,
        version: ModelVersionId,
    ) -> Stored<WorkOrder> {
        let order = self.order(people, at, version).await;
        self.approve(people, order.id).await;
        self.driver.round().await.unwrap();
        self.store.get(order.id).await.unwrap()
    }

    pub(crate) async fn order(
        &self,
        people: &People,
        at: &Stored<Deployment>,
        version: ModelVersionId,
    ) -> Stored<WorkOrder> {
        let new = NewWorkOrder::new(at.id, version, "a test");
        self.deployments
            .order(&people.developer, new)
            .await
            .unwrap()
    }

    pub(crate) async fn approve(&self, people: &People, id: crate::id::WorkOrderId) {
        self.deployments
            .approve(&people.approver, id, None, None)
            .await
            .unwrap();
    }

    pub(crate) async fn state(&self, version: ModelVersionId) -> ModelVersionState {
        self.store.get::<ModelVersion>(version).await.unwrap().state
    }

    /// Until nothing but `count` replicas is held: requests end in their own time.
    pub(crate) async fn until_held(&self, count: usize) {
        while self.replicas.count() != count {
            self.publisher.tick().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn system() -> Actor {
    Actor::system("test")
}

pub(crate) async fn people(store: &Store) -> People {
    let mark = uuid::Uuid::now_v7().simple();
    let department = Department {
        name: format!("helpdesk {mark}"),
        description: String::new(),
    };
    let department = store.create(&system(), department).await.unwrap().id;
    let person = async |role: Role| {
        let principal = Principal {
            department,
            name: format!("{role} {mark}"),
            email: None,
            role,
            clearance: Secrecy::Internal,
            disabled: false,
            file_key: None,
        };
        let principal = store.create(&system(), principal).await.unwrap();
        Caller {
            actor: Actor::person(principal.id, principal.name.clone()),
            role,
            department: Some(department),
        }
    };
    People {
        department,
        developer: person(Role::Developer).await,
        approver: person(Role::Approver).await,
        operator: person(Role::Operator).await,
    }
}

pub(crate) fn object() -> crate::store::Document {
    Json(json!({}))
}

/// A model with the evaluation that its versions are measured by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    pub(crate) model: ModelId,
    pub(crate) evaluation: EvaluationId,
    pub(crate) test_set: DatasetVersionId,
}

pub(crate) async fn product(store: &Store, people: &People) -> Product {
    let mark = uuid::Uuid::now_v7().simple();
    let model = Model {
        department: people.department,
        owner: people.developer.actor.principal,
        name: format!("helpdesk-{mark}"),
        description: String::new(),
        train_framework: "pytorch".into(),
        inference_framework: "onnxruntime".into(),
        code_url: None,
        dashboard_url: None,
    };
    let model = store.create(&system(), model).await.unwrap().id;
    let dataset = Dataset {
        department: people.department,
        owner: None,
        name: format!("tickets {mark}"),
        description: String::new(),
        source: String::new(),
        modality: Modality::Text,
        secrecy: Secrecy::Internal,
    };
    let dataset = store.create(&system(), dataset).await.unwrap().id;
    let version = DatasetVersion {
        dataset,
        number: 0,
        author: None,
        artifact: None,
        digest: format!("sha256:tickets {mark}"),
        row_count: 1,
        bytes: 1,
        schema_json: object(),
        statistics: object(),
        parent: None,
        note: String::new(),
    };
    let mut tx = store.begin().await.unwrap();
    let test_set = tx.add_dataset_version(&system(), version).await.unwrap().id;
    tx.commit().await.unwrap();
    let evaluation = Evaluation {
        model,
        owner: None,
        name: "quality".into(),
        method: EvaluationMethod::Automatic,
        test_set: Some(test_set),
        metrics: object(),
        thresholds: object(),
        policy_digest: "sha256:pp".into(),
        settings: object(),
    };
    let evaluation = store.create(&system(), evaluation).await.unwrap().id;
    require(store, evaluation).await;
    Product {
        model,
        evaluation,
        test_set,
    }
}

/// A version of this folder, evaluated with this verdict, and approved unless it failed.
pub(crate) async fn version(
    store: &Store,
    people: &People,
    product: &Product,
    digest: &str,
    verdict: Verdict,
) -> ModelVersionId {
    use ModelVersionEvent as Event;
    let draft = ModelVersion {
        model: product.model,
        number: 0,
        author: people.developer.actor.principal,
        state: ModelVersionState::Draft,
        artifact: None,
        digest: Some(digest.to_owned()),
        training_run: None,
        conversion_run: None,
        evidence: None,
        approver: None,
        approved_at: None,
        note: String::new(),
    };
    let mut tx = store.begin().await.unwrap();
    let id = tx.add_model_version(&system(), draft).await.unwrap().id;
    let run = EvaluationRun {
        evaluation: product.evaluation,
        model_version: id,
        task: None,
        author: None,
        status: RunStatus::Succeeded,
        artifact_digest: digest.to_owned(),
        test_set: product.test_set,
        policy_digest: "sha256:pp".into(),
        baseline_version: None,
        plan: object(),
        samples: 1,
        scores: object(),
        verdict: Some(verdict),
        report: object(),
        withdrawn_at: None,
        error: None,
        started_at: None,
        finished_at: None,
    };
    let run = tx.create(&system(), run).await.unwrap().id;
    let ways = match verdict {
        Verdict::Passed => [Event::EvaluationPass, Event::RequestApproval],
        _ => [Event::EvaluationFail, Event::RequestOverride],
    };
    let events = [Event::Register, Event::RegisterSucceed, Event::Evaluate];
    for event in events.into_iter().chain(ways).chain([Event::Approve]) {
        tx.transition::<ModelVersion>(&system(), id, None, event, |it| it.evidence = Some(run))
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    id
}

pub(crate) async fn passed(
    store: &Store,
    people: &People,
    product: &Product,
    folder: &str,
) -> ModelVersionId {
    let digest = replicas::content(&helpdesk(folder)).await.unwrap();
    version(store, people, product, &digest, Verdict::Passed).await
}

pub(crate) async fn deployment(
    store: &Store,
    people: &People,
    product: &Product,
    endpoint: &str,
    engine_options: Value,
) -> Stored<Deployment> {
    let deployment = Deployment {
        department: people.department,
        owner: people.operator.actor.principal,
        model: product.model,
        endpoint: endpoint.into(),
        clearance: Secrecy::Internal,
        cpu_millis: 1000,
        gpus: 0,
        memory_bytes: 0,
        zone: None,
        replicas: 1,
        engine_options: Json(engine_options),
        strategy: object(),
        gate_policy: Json(Vec::new()),
        open_to_all: false,
        adopted: false,
        live_version: None,
        live_digest: None,
        live_work_order: None,
    };
    Deployments::check(&deployment).unwrap();
    store
        .create(&people.operator.actor, deployment)
        .await
        .unwrap()
}

/// Small, so that several fit and load fast.
pub(crate) fn small() -> Value {
    json!({"slots": 4, "context": 128})
}
