#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::super::rig::{Fresh, Somebody, on_both, somebody, system};
use super::super::{Json, tests};
use super::*;
use crate::domain::model_version::ModelVersionEvent;
use crate::domain::record::Principal;
use crate::domain::record::{
    Access, Dataset, DatasetVersion, Deployment, Evaluation, EvaluationMethod, EvaluationRun,
    Grant, Modality, Training, WorkOrder,
};
use crate::domain::roles::Role;
use crate::domain::run::RunEvent;
use crate::domain::work_order::WorkOrderEvent;
use crate::id::{DatasetId, Id as _, TrainingRunId};

pub(in crate::store) fn document() -> Document {
    Json(json!({}))
}

pub(in crate::store) fn deployment(who: &Somebody, model: ModelId, endpoint: &str) -> Deployment {
    Deployment {
        department: who.department,
        owner: Some(who.principal),
        model,
        endpoint: endpoint.into(),
        clearance: Secrecy::Internal,
        cpu_millis: 2000,
        gpus: 0,
        memory_bytes: 1 << 30,
        zone: None,
        replicas: 1,
        engine_options: document(),
        strategy: document(),
        gate_policy: Json(Vec::new()),
        open_to_all: false,
        adopted: false,
        live_version: None,
        live_digest: None,
        live_work_order: None,
    }
}

pub(in crate::store) fn work_order(
    deployment: DeploymentId,
    candidate: ModelVersionId,
) -> WorkOrder {
    WorkOrder {
        deployment,
        candidate,
        candidate_digest: "sha256:aa".into(),
        previous: None,
        author: None,
        approver: None,
        state: crate::domain::work_order::WorkOrderState::Pending,
        step: 0,
        snapshot: document(),
        evidence: None,
        override_reason: None,
        reason: "first".into(),
        release_state: None,
        restores: None,
        replaced: None,
        ended_because: None,
        finished_at: None,
    }
}

pub(in crate::store) async fn dataset_version(
    store: &Store,
    who: &Somebody,
    name: &str,
    secrecy: Secrecy,
) -> (DatasetId, DatasetVersionId) {
    let dataset = Dataset {
        department: who.department,
        owner: None,
        name: name.into(),
        description: String::new(),
        source: String::new(),
        modality: Modality::Text,
        secrecy,
    };
    let dataset = store.create(&who.actor, dataset).await.unwrap();
    let version = DatasetVersion {
        dataset: dataset.id,
        number: 0,
        author: Some(who.principal),
        artifact: None,
        digest: format!("sha256:{name}"),
        row_count: 10,
        bytes: 1000,
        schema_json: document(),
        statistics: document(),
        parent: None,
        note: String::new(),
    };
    let mut tx = store.begin().await.unwrap();
    let version = tx.add_dataset_version(&who.actor, version).await.unwrap();
    tx.commit().await.unwrap();
    (dataset.id, version.id)
}

pub(in crate::store) async fn evaluation_run(
    store: &Store,
    who: &Somebody,
    version: &Stored<ModelVersion>,
    test_set: DatasetVersionId,
    name: &str,
) -> Stored<EvaluationRun> {
    let evaluation = Evaluation {
        model: version.model,
        owner: None,
        name: name.into(),
        method: EvaluationMethod::Automatic,
        test_set: Some(test_set),
        metrics: document(),
        thresholds: document(),
        policy_digest: "sha256:pp".into(),
        settings: document(),
    };
    let evaluation = store.create(&who.actor, evaluation).await.unwrap();
    let run = EvaluationRun {
        evaluation: evaluation.id,
        model_version: version.id,
        task: None,
        author: Some(who.principal),
        status: RunStatus::Queued,
        artifact_digest: "sha256:aa".into(),
        test_set,
        policy_digest: evaluation.policy_digest.clone(),
        baseline_version: None,
        plan: document(),
        samples: 0,
        scores: document(),
        verdict: None,
        report: document(),
        withdrawn_at: None,
        error: None,
        started_at: None,
        finished_at: None,
    };
    store.create(&who.actor, run).await.unwrap()
}

async fn training_run(
    store: &Store,
    who: &Somebody,
    model: ModelId,
    data: DatasetVersionId,
) -> TrainingRunId {
    let training = Training {
        model,
        owner: None,
        name: "fine-tune".into(),
        base_version: None,
        recipe: "train".into(),
        hyperparameters: Json(json!({ "lr": 1e-4 })),
        resources: document(),
    };
    let mut tx = store.begin().await.unwrap();
    let training = tx.create(&who.actor, training).await.unwrap();
    tx.train_on(training.id, data).await.unwrap();
    tx.train_on(training.id, data)
        .await
        .expect("saying it twice is no error");
    let run = TrainingRun {
        training: training.id,
        task: None,
        author: Some(who.principal),
        status: RunStatus::Queued,
        params: document(),
        metrics: document(),
        inputs: document(),
        artifact: None,
        error: None,
        started_at: None,
        finished_at: None,
    };
    let run = tx.create(&who.actor, run).await.unwrap();
    tx.commit().await.unwrap();
    run.id
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "a story in order: training, evaluation, deployment, view"
)]
async fn one_call_tells_all_about_a_model() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let who = somebody(store, Role::Developer).await;
        let model = store
            .create(&who.actor, tests::model(who.department, "helpdesk"))
            .await
            .unwrap();
        let (_, trained_on) = dataset_version(store, &who, "tickets", Secrecy::Internal).await;
        let (secret, secret_version) =
            dataset_version(store, &who, "salaries", Secrecy::Secret).await;
        let run = training_run(store, &who, model.id, trained_on).await;

        let mut tx = store.begin().await.unwrap();
        let mut first = tests::version(model.id, Some(who.principal));
        first.training_run = Some(run);
        let first = tx.add_model_version(&who.actor, first).await.unwrap();
        let second = tx
            .add_model_version(&who.actor, tests::version(model.id, None))
            .await
            .unwrap();
        tx.link_dataset(first.id, trained_on, "train")
            .await
            .unwrap();
        tx.link_dataset(first.id, secret_version, "tune")
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert_eq!((first.number, second.number), (1, 2));

        let evaluated = evaluation_run(store, &who, &first, trained_on, "nightly").await;
        store
            .transition::<EvaluationRun>(&who.actor, evaluated.id, None, RunEvent::Start, |_| ())
            .await
            .unwrap();
        let done = store
            .transition::<EvaluationRun>(&who.actor, evaluated.id, None, RunEvent::Succeed, |it| {
                it.verdict = Some(Verdict::Passed);
                it.scores = Json(json!({ "exact_match": 0.93 }));
            })
            .await
            .unwrap();
        assert!(done.started_at.is_some() && done.finished_at.is_some());
        let at = store
            .create(&who.actor, deployment(&who, model.id, "helpdesk"))
            .await
            .unwrap();
        let order = store
            .create(&who.actor, work_order(at.id, first.id))
            .await
            .unwrap();

        let view = store.model_view(model.id, None).await.unwrap();
        assert_eq!(view.model, model);
        let numbers: Vec<i64> = view
            .versions
            .iter()
            .map(|view| view.version.number)
            .collect();
        assert_eq!(numbers, [2, 1], "newest first");
        let shown = &view.versions[1];
        assert_eq!(shown.training.as_ref().unwrap().id, run);
        assert_eq!(shown.evaluations[0].verdict, Some(Verdict::Passed));
        assert_eq!(shown.evaluations[0].scores.0["exact_match"], 0.93);
        assert_eq!(shown.deployments[0].work_order, Some(order.id));
        assert_eq!(
            shown.deployments[0].work_order_state,
            Some(WorkOrderState::Pending)
        );
        let names: Vec<&str> = shown.datasets.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["salaries", "tickets"]);
        let bare = &view.versions[0];
        assert!(
            bare.training.is_none() && bare.evaluations.is_empty() && bare.deployments.is_empty()
        );

        // Once nothing is under way, the deployment shows no work order.
        store
            .transition::<WorkOrder>(&who.actor, order.id, None, WorkOrderEvent::Abort, |_| ())
            .await
            .unwrap();
        let view = store.model_view(model.id, None).await.unwrap();
        assert_eq!(
            (view.deployments.len(), view.deployments[0].work_order),
            (1, None)
        );

        // The gate knows every dataset; a person only those within clearance and granted.
        let mut tx = store.begin().await.unwrap();
        let lineage = tx.lineage_datasets(first.id).await.unwrap();
        drop(tx);
        assert_eq!(
            lineage.iter().map(|it| it.version).collect::<Vec<_>>(),
            [trained_on, secret_version]
        );
        let seen = async || {
            let person = store.get::<Principal>(who.principal).await.unwrap();
            let viewer = Viewer {
                principal: person.id,
                department: Some(person.department),
                clearance: person.clearance,
                admin: false,
            };
            store
                .model_view(model.id, Some(viewer))
                .await
                .unwrap()
                .versions[1]
                .datasets
                .clone()
        };
        assert!(seen().await.is_empty(), "nothing was granted");
        let grant = Grant {
            object_kind: DatasetId::KIND.into(),
            object_id: secret.to_string(),
            principal: Some(who.principal),
            department: None,
            access: Access::Read,
        };
        store.grant(&system(), grant).await.unwrap();
        assert!(
            seen().await.is_empty(),
            "a grant without clearance shows nothing"
        );
        store
            .update::<Principal>(&system(), who.principal, None, |it| {
                it.clearance = Secrecy::Secret
            })
            .await
            .unwrap();
        assert_eq!(seen().await[0].name, "salaries");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_made_at_once_are_numbered_without_gap() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let who = somebody(store, Role::Developer).await;
        let model = store
            .create(&who.actor, tests::model(who.department, "m"))
            .await
            .unwrap();
        let made: Vec<_> = (0..12)
            .map(|_| {
                let (store, actor) = (store.clone(), who.actor.clone());
                tokio::spawn(async move {
                    let mut tx = store.begin().await.unwrap();
                    let made = tx
                        .add_model_version(&actor, tests::version(model.id, None))
                        .await
                        .unwrap();
                    tx.commit().await.unwrap();
                    made.number
                })
            })
            .collect();
        let mut numbers = Vec::new();
        for task in made {
            numbers.push(task.await.unwrap());
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_version_goes_live_only_through_the_whole_machine() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        use ModelVersionEvent::{
            Approve, Archive, Evaluate, EvaluationPass, GoLive, LeaveLive, Register,
            RegisterSucceed, RequestApproval,
        };
        let store = &fresh.store;
        let who = somebody(store, Role::Approver).await;
        let model = store
            .create(&who.actor, tests::model(who.department, "m"))
            .await
            .unwrap();
        let mut tx = store.begin().await.unwrap();
        let made = tx
            .add_model_version(&who.actor, tests::version(model.id, None))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let path = [
            Register,
            RegisterSucceed,
            Evaluate,
            EvaluationPass,
            RequestApproval,
            Approve,
            GoLive,
            LeaveLive,
            Archive,
        ];
        for event in path {
            store
                .transition::<ModelVersion>(&who.actor, made.id, None, event, |_| ())
                .await
                .unwrap();
        }
        let end = store
            .transition::<ModelVersion>(&who.actor, made.id, None, GoLive, |_| ())
            .await
            .unwrap_err();
        assert_eq!(
            end.to_string(),
            "a model version in state archived does not take \"go_live\"; it takes: unarchive, unarchive_approved, return"
        );
    })
    .await;
}
