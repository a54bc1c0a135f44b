use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::*;
use super::rig::*;
use crate::domain::model_version::ModelVersionState as State;
use crate::store::rig::{Fresh, on_both};

/// Slow enough that a test can come between.
fn one_by_one() -> Value {
    json!({"engine_options": {"slots": 4, "context": 320}, "concurrency": 1})
}

/// Until some samples are stored.
async fn under_way(bench: &Bench, run: EvaluationRunId) {
    while bench.samples(run).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_leaves_a_run_that_another_goes_on_with() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store).await;
        let test_set = bench.test_set(&[("test.jsonl", tickets(150))]).await;
        let evaluation = bench
            .evaluation(test_set, by_fields(), at_least(0.9), one_by_one())
            .await;
        let v2 = bench.helpdesk("v2").await;
        let worker = bench.worker();
        let run = bench.order(evaluation, &v2, &[]).await;
        under_way(&bench, run.id).await;
        drop(worker);
        let before = bench.samples(run.id).await;
        assert!(before.len() < 150, "nothing is left to resume");
        assert_eq!(bench.state(&v2).await, State::Evaluating);

        let worker = bench.worker();
        let run = bench.ended(run.id).await;
        assert_eq!(
            (run.error.as_deref(), run.verdict),
            (None, Some(Verdict::Passed))
        );
        let after = bench.samples(run.id).await;
        assert_eq!((after.len(), run.samples), (150, 150));
        // What was answered is not asked again: it stands as it was, instant and all.
        assert_eq!(after[..before.len()], before[..]);
        assert_eq!(bench.state(&v2).await, State::EvalPassed);
        worker.drain().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_gives_its_version_and_its_memory_back() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store).await;
        let test_set = bench.test_set(&[("test.jsonl", tickets(200))]).await;
        let evaluation = bench
            .evaluation(test_set, by_fields(), at_least(0.9), one_by_one())
            .await;
        let v2 = bench.helpdesk("v2").await;
        // One that nobody began, and one that is going on.
        let waiting = bench.order(evaluation, &v2, &[]).await;
        let actor = &bench.people.developer.actor;
        bench
            .queue
            .cancel(actor, waiting.task.unwrap())
            .await
            .unwrap();
        let worker = bench.worker();
        let run = bench.ended(waiting.id).await;
        assert_eq!(
            (run.status, run.error.as_deref()),
            (RunStatus::Cancelled, Some("it was cancelled"))
        );
        assert_eq!(bench.state(&v2).await, State::Registered);

        let run = bench.order(evaluation, &v2, &[]).await;
        under_way(&bench, run.id).await;
        bench.queue.cancel(actor, run.task.unwrap()).await.unwrap();
        let run = bench.ended(run.id).await;
        assert_eq!((run.status, run.verdict), (RunStatus::Cancelled, None));
        // What was answered until then stays, to be looked at.
        let kept = bench.samples(run.id).await.len();
        assert!(kept > 0 && kept < 200, "{kept}");
        assert_eq!(bench.state(&v2).await, State::Registered);
        bench.rig.until_held(0).await;
        worker.drain().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_evaluated_says_which_row_or_setting_is_at_fault() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store).await;
        let worker = bench.worker();
        let v2 = bench.helpdesk("v2").await;
        let rows = format!("{}{{\"id\": \"odd\", \"messages\": []}}\n", tickets(2));
        let fault = async |metrics: Value, rows: String, settings: Value| {
            let test_set = bench.test_set(&[("rows.jsonl", rows)]).await;
            let evaluation = bench
                .evaluation(test_set, metrics, at_least(0.9), settings)
                .await;
            let run = bench.order(evaluation, &v2, &[]).await;
            let run = bench.ended(run.id).await;
            assert_eq!((run.status, run.verdict), (RunStatus::Failed, None));
            assert_eq!(bench.state(&v2).await, State::Registered);
            run.error.clone().unwrap()
        };
        let why = fault(by_fields(), rows, small()).await;
        assert!(
            why.contains("row odd: `messages` should be a list"),
            "{why}"
        );
        let mut metrics = by_fields();
        metrics["ask"]["sampling"]["max_tokens"] = json!("many");
        let why = fault(metrics, tickets(30), small()).await;
        assert!(
            why.contains("20 requests") && why.contains("max_tokens"),
            "{why}"
        );
        let why = fault(by_fields(), "{}\n{\n".into(), small()).await;
        assert!(
            why.contains("rows.jsonl, line 2: should be a JSON object"),
            "{why}"
        );
        worker.drain().await;
    })
    .await;
}
