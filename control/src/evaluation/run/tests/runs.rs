use std::sync::Arc;

use serde_json::json;

use super::super::*;
use super::rig::*;
use crate::deploy::tests::rig as deploy;
use crate::domain::model_version::ModelVersionState as State;
use crate::domain::task::TaskState;
use crate::store::SampleFilter;
use crate::store::rig::{Fresh, on_both};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_version_passes_and_a_bad_one_fails_with_the_numbers() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store).await;
        let worker = bench.worker();
        let test_set = bench.test_set(&[("test.jsonl", tickets(16))]).await;
        let evaluation = bench
            .evaluation(test_set, by_fields(), at_least(0.95), small())
            .await;
        let (good, bad) = (bench.helpdesk("v2").await, bench.helpdesk("v3").await);
        let good_run = bench.order(evaluation, &good, &[]).await;
        assert_eq!(good_run.status, RunStatus::Queued);
        let bad_run = bench.order(evaluation, &bad, &[]).await;

        assert_passed(&bench, good_run.id, &good).await;
        let run = bench.ended(bad_run.id).await;
        assert_eq!(run.verdict, Some(Verdict::Failed));
        assert_eq!(bench.state(&bad).await, State::EvalFailed);
        let reason = run.report.0["reasons"][0]["text"].as_str().unwrap();
        assert!(
            reason.starts_with("json_fields is 0.") && reason.contains("below min 0.95"),
            "{reason}"
        );

        assert_all_is_kept(&bench, &run).await;
        assert_difference(&bench, good_run.id, &run).await;

        // Nothing is left behind: trials are ended, and their memory is given back.
        worker.drain().await;
        bench.rig.until_held(0).await;
        assert!(
            bench
                .rig
                .gateway
                .routes()
                .find(&format!("{}@v1", bench.name))
                .is_none()
        );
    })
    .await;
}

async fn assert_passed(bench: &Bench, run: EvaluationRunId, version: &Stored<ModelVersion>) {
    let run = bench.ended(run).await;
    assert_eq!(
        (run.error.as_deref(), run.verdict),
        (None, Some(Verdict::Passed))
    );
    assert_eq!(run.samples, 16);
    assert!(run.scores.0["json_fields"].as_f64().unwrap() >= 0.95);
    let now = bench.store.get::<ModelVersion>(version.id).await.unwrap();
    assert_eq!(now.state, State::EvalPassed);
    assert_eq!(now.evidence, Some(run.id));
    // What evidence has to name.
    assert_eq!(Some(&run.artifact_digest), version.digest.as_ref());
    let task = bench.task_ended(&run).await;
    assert_eq!(task.state, TaskState::Succeeded);
    assert_eq!(task.result.as_ref().unwrap().0["verdict"], "passed");
    let prompts = &run.report.0["prompts"];
    assert_eq!(prompts[0]["failed"], 0);
    assert!(prompts[0]["latency_us"]["p99"].as_f64() >= prompts[0]["latency_us"]["p50"].as_f64());
    assert!(prompts[0]["first_token_us"]["p50"].as_f64().unwrap() > 0.0);
    assert!(prompts[0]["measurements"][0]["interval"]["low"].is_f64());
    assert!(prompts[0]["tokens"]["output"].as_u64().unwrap() > 16);
}

/// Every input and output is there to be looked at.
async fn assert_all_is_kept(bench: &Bench, run: &Stored<EvaluationRun>) {
    let samples = bench.samples(run.id).await;
    assert_eq!(samples.len(), 16);
    let first = &samples[0];
    assert_eq!(first.item, "ticket-0");
    assert!(
        first.input.0["messages"][0]["content"]
            .as_str()
            .unwrap()
            .contains("REQ-76109")
    );
    assert!(
        first.expected.as_ref().unwrap().0["texts"][0]
            .as_str()
            .unwrap()
            .contains("password_reset")
    );
    assert!(
        first.output.as_ref().unwrap().0["text"]
            .as_str()
            .unwrap()
            .starts_with('{')
    );
    assert!(first.input_tokens > 0 && first.output_tokens > 0 && first.latency_us > 0);
    assert_eq!(first.detail.as_ref().unwrap().0["finish_reason"], "stop");
    let count = async |filter: SampleFilter| {
        bench
            .store
            .samples(run.id, &filter, 100)
            .await
            .unwrap()
            .items
            .len()
    };
    let failed = count(SampleFilter {
        passed: Some(false),
        ..SampleFilter::default()
    })
    .await;
    let passed = count(SampleFilter {
        passed: Some(true),
        ..SampleFilter::default()
    })
    .await;
    assert!(
        failed > 0 && failed + passed == 16,
        "{failed} failed, {passed} passed"
    );
    let tag = |tag: &str| SampleFilter {
        tag: Some(tag.into()),
        ..SampleFilter::default()
    };
    assert_eq!(
        (
            count(tag("early")).await,
            count(tag("a \"quoted\" one")).await,
            count(tag("earl")).await
        ),
        (8, 8, 0)
    );
    let found = SampleFilter {
        contains: Some("req-76109. my".into()),
        ..SampleFilter::default()
    };
    assert_eq!(count(found).await, 1);
}

/// The two runs side by side.
async fn assert_difference(bench: &Bench, good: EvaluationRunId, bad: &Stored<EvaluationRun>) {
    let part = |run| Part {
        run,
        prompt: String::new(),
    };
    let wanted = Difference {
        before: part(good),
        after: part(bad.id),
        metric: None,
        tolerance: 0.0,
        change: None,
        offset: 0,
        limit: 3,
    };
    let diff = compare(&bench.store, &bad.plan.0, &wanted).await.unwrap();
    assert_eq!(diff.worse + diff.same + diff.better + diff.unknown, 16);
    assert!(diff.worse > 0 && diff.rows.len() == 3 && diff.next == Some(3));
    let worst = &diff.rows[0];
    assert!(worst.gain.unwrap() < 0.0 && !worst.text.is_empty());
    let rest = Difference {
        offset: 3,
        limit: 100,
        ..wanted
    };
    assert_eq!(
        compare(&bench.store, &bad.plan.0, &rest)
            .await
            .unwrap()
            .rows
            .len(),
        13
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_live_version_is_measured_once_and_its_traffic_is_left_alone() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store).await;
        let worker = bench.worker();
        let product = bench.product;
        let at = deploy::deployment(
            &bench.store,
            &bench.people,
            &product,
            "helpdesk",
            json!({"slots": 4, "context": 320}),
        )
        .await;
        let v1 = deploy::passed(&bench.store, &bench.people, &product, "v1").await;
        bench.rig.deploy(&bench.people, &at, v1).await;
        assert_eq!(bench.rig.chat("helpdesk", None).await.0, 200);
        let served = bench.metrics(&["sluice_requests_total", "deployment=\"helpdesk\""]);

        let test_set = bench.test_set(&[("test.jsonl", tickets(12))]).await;
        let thresholds = json!({
            "rules": [{"metric": "json_fields", "max_regression": {"by": 0.02}}],
            "min_samples": 5,
        });
        // Without settings of its own the version is loaded as its deployment serves.
        let evaluation = bench
            .evaluation(test_set, by_fields(), thresholds, json!({}))
            .await;
        let v2 = bench.helpdesk("v2").await;
        let run = bench.order(evaluation, &v2, &[]).await;
        assert_eq!(run.baseline_version, Some(v1));
        let run = bench.ended(run.id).await;
        assert_eq!(
            (run.error.as_deref(), run.verdict),
            (None, Some(Verdict::Passed))
        );
        let reason = run.report.0["reasons"][0]["text"].as_str().unwrap();
        assert!(
            reason.contains("differs from the live version by"),
            "{reason}"
        );
        let baseline = run.report.0["baseline"]["run"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let baseline = bench.store.get::<EvaluationRun>(baseline).await.unwrap();
        assert_eq!(
            (baseline.model_version, baseline.status),
            (v1, RunStatus::Succeeded)
        );
        assert_eq!((baseline.verdict, baseline.task), (None, run.task));
        assert_eq!(bench.samples(baseline.id).await.len(), 12);
        assert_eq!(bench.rig.state(v1).await, State::Live);

        // The next candidate is compared with the same answers.
        let v3 = bench.helpdesk("v3").await;
        let run = bench.order(evaluation, &v3, &[]).await;
        let run = bench.ended(run.id).await;
        assert_eq!(run.report.0["baseline"]["run"], baseline.id.to_string());
        assert_ne!(
            run.verdict,
            Some(Verdict::Passed),
            "{}",
            run.report.0["reasons"]
        );
        assert_eq!(bench.state(&v3).await, State::EvalFailed);

        // Clients' numbers are clients'.
        let now = bench.metrics(&["sluice_requests_total", "deployment=\"helpdesk\""]);
        assert_eq!(served, now);
        assert_eq!(bench.rig.chat("helpdesk", None).await.0, 200);
        worker.drain().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompt_versions_stand_side_by_side_and_the_first_one_decides() {
    let fresh = Fresh::sqlite().await;
    let bench = Bench::new(&fresh.store).await;
    let worker = bench.worker();
    let test_set = bench.test_set(&[("test.jsonl", tickets(8))]).await;
    let evaluation = bench
        .evaluation(test_set, by_fields(), at_least(0.9), small())
        .await;
    let plain = bench.prompt("{{ messages[-1].content }}").await;
    let framed = bench
        .prompt(r#"[{"role": "user", "content": "Thanks! {{ ticket.intent }}"}]"#)
        .await;
    let v2 = bench.helpdesk("v2").await;
    let run = bench.order(evaluation, &v2, &[plain, framed]).await;
    let run = bench.ended(run.id).await;
    assert_eq!((run.error.as_deref(), run.samples), (None, 16));
    let prompts = run.report.0["prompts"].as_array().unwrap();
    assert_eq!(
        (&prompts[0]["prompt"], &prompts[1]["prompt"]),
        (&json!("triage@v1"), &json!("triage@v2"))
    );
    assert_eq!(prompts[0]["judgement"]["verdict"], "passed");
    assert_eq!(prompts[1]["judgement"]["verdict"], "failed");
    assert_eq!(run.verdict, Some(Verdict::Passed));
    assert_eq!(prompts[0].get("against_first"), None);
    let against = &prompts[1]["against_first"][0];
    assert!(
        against["paired"]["difference"].as_f64().unwrap() < 0.0,
        "{against}"
    );
    let sent: Vec<_> = bench
        .samples(run.id)
        .await
        .into_iter()
        .filter(|sample| sample.prompt_version == framed.to_string())
        .map(|sample| sample.input.0["messages"][0]["content"].clone())
        .collect();
    assert_eq!(sent[0], "Thanks! password_reset");
    worker.drain().await;
}
