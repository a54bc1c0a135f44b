//! How long the pages of a large installation take: a million usage entries, a hundred thousand
//! evaluation samples.
//!
//!     cargo run --release -p sluice-control --example records_at_scale -- sqlite:/tmp/scale.db
//!
//! The database should be an empty one; filling it takes a minute or two.
#![expect(clippy::print_stdout, reason = "a report")]

use std::future::Future;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_control::domain::model_version::ModelVersionState;
use sluice_control::domain::record::{
    Dataset, DatasetVersion, Department, Evaluation, EvaluationMethod, EvaluationRun, Modality,
    Model, ModelVersion,
};
use sluice_control::domain::run::RunStatus;
use sluice_control::domain::secrecy::Secrecy;
use sluice_control::id::{EvaluationRunId, Id as _, UsageId};
use sluice_control::store::{
    Actor, Amounts, AuditFilter, EvaluationSample, Json, SampleFilter, Store, StoreError,
    StoreSettings, UsageEntry, UsageFilter, UsageGroup,
};
use sluice_control::time::Timestamp;

const ENTRIES: i64 = 1_000_000;
const SAMPLES: i64 = 100_000;
const BATCH: i64 = 5_000;
const REPEATS: usize = 20;
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("usage: records_at_scale DATABASE")?
        .parse()?;
    let store = Store::open(&url, &StoreSettings::default()).await?;
    let now = Timestamp::now();
    let started = Instant::now();
    fill_ledger(&store, now).await?;
    println!(
        "{ENTRIES} usage entries written in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let started = Instant::now();
    let run = fill_samples(&store, now).await?;
    println!(
        "{SAMPLES} samples written in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    println!("{:44} {:>9} {:>9}", "page", "median ms", "worst ms");
    time_ledger(&store, now).await?;
    time_samples(&store, run).await
}

/// Ninety days of 20 departments, 200 people and 30 deployments.
async fn fill_ledger(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    for start in (0..ENTRIES).step_by(BATCH as usize) {
        let entries: Vec<UsageEntry> = (start..start + BATCH).map(|n| entry(n, now)).collect();
        let mut tx = store.begin().await?;
        tx.record_usage(&entries).await?;
        tx.commit().await?;
    }
    Ok(())
}

fn entry(n: i64, now: Timestamp) -> UsageEntry {
    let age = DAY * 90 / ENTRIES as u32 * (ENTRIES - n) as u32;
    let person = n * 7919 % 200;
    UsageEntry {
        id: UsageId::new(),
        at: now.before(age),
        department: format!("dep_{}", person % 20),
        principal: format!("usr_{person}"),
        api_key: format!("key_{person}"),
        deployment: format!("dpl_{}", n * 31 % 30),
        model_version: format!("mdv_{}", n * 31 % 30),
        request: format!("req_{n}"),
        status: if n % 50 == 0 { 503 } else { 200 },
        amounts: Amounts {
            requests: 1,
            input_tokens: n % 900,
            output_tokens: n % 300,
            ..Amounts::default()
        },
    }
}

async fn fill_samples(store: &Store, now: Timestamp) -> Result<EvaluationRunId, StoreError> {
    let run = evaluation_run(store).await?;
    for start in (0..SAMPLES).step_by(BATCH as usize) {
        let samples: Vec<EvaluationSample> = (start..start + BATCH)
            .map(|ordinal| EvaluationSample {
                run,
                prompt_version: String::new(),
                ordinal,
                item: format!("item-{ordinal}"),
                input: Json(json!([{ "role": "user", "content": "x".repeat(400) }])),
                expected: Some(Json(json!("vpn"))),
                output: Some(Json(json!("y".repeat(400)))),
                scores: Json(json!({ "exact_match": 1.0, "f1": 0.9 })),
                score: Some((ordinal * 37 % 1000) as f64 / 1000.0),
                passed: ordinal % 20 != 0,
                error: None,
                latency_us: 120_000,
                first_token_us: None,
                input_tokens: 100,
                output_tokens: 100,
                tags: Json(Vec::new()),
                detail: None,
                at: now,
            })
            .collect();
        let mut tx = store.begin().await?;
        tx.add_samples(&samples).await?;
        tx.commit().await?;
    }
    Ok(run)
}

/// The records that a run hangs on.
async fn evaluation_run(store: &Store) -> Result<EvaluationRunId, StoreError> {
    let actor = Actor::system("records at scale");
    let empty = || Json(json!({}));
    let text = String::new;
    let mut tx = store.begin().await?;
    let department = Department {
        name: Timestamp::now().to_string(),
        description: text(),
    };
    let department = tx.create(&actor, department).await?.id;
    let model = Model {
        department,
        owner: None,
        name: Timestamp::now().to_string(),
        description: text(),
        train_framework: text(),
        inference_framework: text(),
        code_url: None,
        dashboard_url: None,
    };
    let model = tx.create(&actor, model).await?.id;
    let version = ModelVersion {
        model,
        number: 0,
        author: None,
        state: ModelVersionState::Draft,
        artifact: None,
        digest: None,
        training_run: None,
        conversion_run: None,
        evidence: None,
        approver: None,
        approved_at: None,
        note: text(),
    };
    let version = tx.add_model_version(&actor, version).await?.id;
    let dataset = Dataset {
        department,
        owner: None,
        name: "tests".into(),
        description: text(),
        source: text(),
        modality: Modality::Text,
        secrecy: Secrecy::Internal,
    };
    let dataset = tx.create(&actor, dataset).await?.id;
    let test_set = DatasetVersion {
        dataset,
        number: 0,
        author: None,
        artifact: None,
        digest: text(),
        row_count: SAMPLES,
        bytes: 0,
        schema_json: empty(),
        statistics: empty(),
        parent: None,
        note: text(),
    };
    let test_set = tx.add_dataset_version(&actor, test_set).await?.id;
    let evaluation = Evaluation {
        model,
        owner: None,
        name: "nightly".into(),
        method: EvaluationMethod::Automatic,
        test_set: Some(test_set),
        metrics: empty(),
        thresholds: empty(),
        policy_digest: text(),
        settings: empty(),
    };
    let evaluation = tx.create(&actor, evaluation).await?.id;
    let run = EvaluationRun {
        evaluation,
        model_version: version,
        task: None,
        author: None,
        status: RunStatus::Queued,
        artifact_digest: text(),
        test_set,
        policy_digest: text(),
        baseline_version: None,
        plan: empty(),
        samples: SAMPLES,
        scores: empty(),
        verdict: None,
        report: empty(),
        withdrawn_at: None,
        error: None,
        started_at: None,
        finished_at: None,
    };
    let run = tx.create(&actor, run).await?.id;
    tx.commit().await?;
    Ok(run)
}

async fn time<T, E, F: Future<Output = Result<T, E>>>(
    what: &str,
    page: impl Fn() -> F,
) -> Result<T, E> {
    let mut last = page().await?;
    let mut taken = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let started = Instant::now();
        last = page().await?;
        taken.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    taken.sort_by(f64::total_cmp);
    println!(
        "{what:44} {:9.1} {:9.1}",
        taken[REPEATS / 2],
        taken[REPEATS - 1]
    );
    Ok(last)
}

async fn time_ledger(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    let all = UsageFilter::default();
    let month = UsageFilter {
        from: Some(now.before(DAY * 30)),
        ..all.clone()
    };
    let one = UsageFilter {
        department: Some("dep_7".into()),
        ..month.clone()
    };
    let person = UsageFilter {
        principal: Some("usr_42".into()),
        ..month.clone()
    };
    let week = UsageFilter {
        from: Some(now.before(DAY * 40)),
        until: Some(now.before(DAY * 33)),
        ..one.clone()
    };
    time("ledger: newest 50", || store.usage_entries(&all, None, 50)).await?;
    let first = store.usage_entries(&one, None, 50).await?;
    time("ledger: one department, 50", || {
        store.usage_entries(&one, None, 50)
    })
    .await?;
    time("ledger: its next page", || {
        store.usage_entries(&one, first.next.as_deref(), 50)
    })
    .await?;
    time("ledger: one department, a week long past", || {
        store.usage_entries(&week, None, 50)
    })
    .await?;
    time("sum: a month of one department by day", || {
        store.usage(&one, Some(UsageGroup::Day))
    })
    .await?;
    time("sum: a month of one person by model", || {
        store.usage(&person, Some(UsageGroup::ModelVersion))
    })
    .await?;
    time("sum: a month of all by department", || {
        store.usage(&month, Some(UsageGroup::Department))
    })
    .await?;
    time("sum: all 90 days by department", || {
        store.usage(&all, Some(UsageGroup::Department))
    })
    .await?;
    let every = AuditFilter::default();
    time("audit: newest 50", || store.audit_events(&every, 50)).await?;
    let kind = AuditFilter {
        object_kind: Some("model".into()),
        ..AuditFilter::default()
    };
    time("audit: newest 50 of a kind", || {
        store.audit_events(&kind, 50)
    })
    .await?;
    Ok(())
}

async fn time_samples(
    store: &Store,
    run: EvaluationRunId,
) -> Result<(), Box<dyn std::error::Error>> {
    let all = SampleFilter::default();
    let deep = SampleFilter {
        after: Some("90000.".into()),
        ..SampleFilter::default()
    };
    let failed = SampleFilter {
        passed: Some(false),
        ..SampleFilter::default()
    };
    let low = SampleFilter {
        score_below: Some(0.01),
        ..SampleFilter::default()
    };
    let item = SampleFilter {
        item: Some("item-77777".into()),
        ..SampleFilter::default()
    };
    time("samples: first 50", || store.samples(run, &all, 50)).await?;
    time("samples: 50 after the 90,000th", || {
        store.samples(run, &deep, 50)
    })
    .await?;
    time("samples: 50 that failed", || {
        store.samples(run, &failed, 50)
    })
    .await?;
    time("samples: 50 below a score", || store.samples(run, &low, 50)).await?;
    time("samples: one item", || store.samples(run, &item, 50)).await?;
    Ok(())
}
