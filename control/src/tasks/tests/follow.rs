//! A run is where its task is, whoever moved that.

use super::*;
use crate::domain::record::{ConversionRun, Model};
use crate::domain::roles::Role;
use crate::domain::run::RunStatus;
use crate::id::{ConversionRunId, Id as _};
use crate::store::rig::somebody;

/// A run with its task in the queue.
async fn begun(queue: &Queue, edit: impl FnOnce(&mut NewTask)) -> (ConversionRunId, TaskId) {
    let store = queue.store();
    let who = somebody(store, Role::Developer).await;
    let model = Model {
        department: who.department,
        owner: None,
        name: who.department.to_string(),
        description: String::new(),
        train_framework: String::new(),
        inference_framework: String::new(),
        code_url: None,
        dashboard_url: None,
    };
    let model = store.create(&system(), model).await.unwrap().id;
    let id = ConversionRunId::new();
    let mut new = NewTask::new("k", Json::Null);
    new.subject = Some((ConversionRunId::KIND.to_owned(), id.to_string()));
    edit(&mut new);
    let mut tx = store.begin().await.unwrap();
    let task = queue.enqueue_in(&mut tx, &system(), new).await.unwrap().id;
    let run = ConversionRun {
        model,
        task: Some(task),
        author: None,
        status: RunStatus::Queued,
        source_artifact: None,
        source_framework: String::new(),
        exporter: "x".into(),
        opset: None,
        number_format: "fp32".into(),
        params: crate::store::Json(json!({})),
        parity: None,
        parity_passed: None,
        output_artifact: None,
        output_digest: None,
        error: None,
        started_at: None,
        finished_at: None,
    };
    tx.create_as(&system(), id, run).await.unwrap();
    tx.commit().await.unwrap();
    (id, task)
}

async fn run_of(queue: &Queue, id: ConversionRunId) -> Stored<ConversionRun> {
    queue.store().get(id).await.unwrap()
}

async fn next(queue: &Queue) -> Claim {
    loop {
        queue.sweep().await.unwrap();
        if let Some(claim) = queue.claim("w", &kinds(&["k"]), 1).await.unwrap().pop() {
            return claim;
        }
    }
}

#[tokio::test]
async fn a_run_follows_attempts_to_their_end() {
    on_both(async |fresh| {
        let queue = Queue::new(fresh.store.clone(), settings());
        let (id, _) = begun(&queue, |new| new.max_attempts = 2).await;
        let mut claim = next(&queue).await;
        assert_eq!(run_of(&queue, id).await.status, RunStatus::Queued);
        queue.start(&mut claim).await.unwrap();
        assert_eq!(run_of(&queue, id).await.status, RunStatus::Running);
        let flaky = TaskFailure::passing("flaky", "try again");
        queue.fail(&claim, &flaky).await.unwrap();
        // Nothing of an attempt that is followed by another is the run's result.
        let run = run_of(&queue, id).await;
        assert_eq!((run.status, &run.error), (RunStatus::Queued, &None));
        let mut claim = next(&queue).await;
        queue.start(&mut claim).await.unwrap();
        let parity = TaskFailure::lasting("parity_failed", "0.3 > 0.1")
            .with(json!({ "parity": { "passed": false, "measures": {} } }));
        queue.fail(&claim, &parity).await.unwrap();
        let run = run_of(&queue, id).await;
        assert_eq!(run.status, RunStatus::Failed);
        assert_eq!(run.error.as_deref(), Some("0.3 > 0.1 (parity_failed)"));
        assert_eq!(run.parity_passed, Some(false));
        assert!(run.finished_at.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_run_ends_with_a_worker_that_is_gone_and_with_a_task_that_never_began() {
    on_both(async |fresh| {
        let queue = Queue::new(fresh.store.clone(), hasty());
        let (lost, _) = begun(&queue, |new| new.max_attempts = 1).await;
        let mut claim = next(&queue).await;
        queue.start(&mut claim).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        queue.sweep().await.unwrap();
        let run = run_of(&queue, lost).await;
        assert_eq!(run.status, RunStatus::Failed);
        assert!(run.error.as_ref().unwrap().contains("lost"));

        let (cancelled, task) = begun(&queue, |_| {}).await;
        queue.cancel(&system(), task).await.unwrap();
        assert_eq!(run_of(&queue, cancelled).await.status, RunStatus::Cancelled);

        let (expired, _) = begun(&queue, |new| new.queue_timeout = Some(Duration::ZERO)).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        queue.sweep().await.unwrap();
        let run = run_of(&queue, expired).await;
        assert_eq!(run.status, RunStatus::Cancelled);
        assert!(run.error.as_ref().unwrap().contains("queue_timeout"));
    })
    .await;
}
