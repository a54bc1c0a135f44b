//! How long the pages of a large installation take: a million usage entries, a hundred thousand
//! evaluation samples.
//!
//!     cargo run --release -p sluice-control --example records_at_scale -- sqlite:/tmp/scale.db
//!
//! The database should be an empty one; filling it takes some minutes. One that this program has filled
//! before is measured again.
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
    Actor, Amounts, AuditFilter, EvaluationSample, Json, Listing, SampleFilter, Store, StoreError,
    StoreSettings, UsageEntry, UsageFilter, UsageGroup,
};
use sluice_control::time::Timestamp;

const ENTRIES: i64 = 1_000_000;
const SAMPLES: i64 = 100_000;
/// Side by side in one run.
const PROMPTS: [&str; 2] = ["prm_a", "prm_b"];
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
    let run = match filled(&store).await? {
        Some(run) => run,
        None => fill(&store, now).await?,
    };
    println!("{:56} {:>9} {:>9}", "page", "median ms", "worst ms");
    time_ledger(&store, now).await?;
    time_samples(&store, run).await
}

/// The run of samples that an earlier call of this program left.
async fn filled(store: &Store) -> Result<Option<EvaluationRunId>, StoreError> {
    let runs = store
        .list(&Listing::<EvaluationRun>::new().limit(1))
        .await?;
    Ok(runs.items.first().map(|run| run.id))
}

async fn fill(store: &Store, now: Timestamp) -> Result<EvaluationRunId, StoreError> {
    let started = Instant::now();
    fill_ledger(store, now).await?;
    println!(
        "{ENTRIES} usage entries written in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let started = Instant::now();
    let run = fill_samples(store, now).await?;
    println!(
        "{SAMPLES} samples written in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    Ok(run)
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
            .map(|n| (n / 2, PROMPTS[n as usize % 2]))
            .map(|(ordinal, prompt)| EvaluationSample {
                run,
                prompt_version: prompt.to_owned(),
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
        "{what:56} {:9.1} {:9.1}",
        taken[REPEATS / 2],
        taken[REPEATS - 1]
    );
    Ok(last)
}

async fn time_ledger(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    let all = UsageFilter::default();
    let of = |department: Option<&str>, principal: Option<&str>, deployment: Option<&str>| {
        let named = |name: Option<&str>| name.map(ToOwned::to_owned);
        UsageFilter {
            from: Some(now.before(DAY * 30)),
            department: named(department),
            principal: named(principal),
            deployment: named(deployment),
            ..UsageFilter::default()
        }
    };
    let department = of(Some("dep_7"), None, None);
    let long_past = |filter: UsageFilter| UsageFilter {
        from: Some(now.before(DAY * 80)),
        until: Some(now.before(DAY * 73)),
        ..filter
    };
    let first = store.usage_entries(&department, None, 50).await?;
    let next = first.next.as_deref();
    let pages = [
        ("newest 50", &all, None, 50),
        ("newest 500", &all, None, 500),
        (
            "a week long past",
            &long_past(of(None, None, None)),
            None,
            50,
        ),
        ("one department", &department, None, 50),
        ("one department, next page", &department, next, 50),
        (
            "one department, a week long past",
            &long_past(department.clone()),
            None,
            50,
        ),
        ("one person", &of(None, Some("usr_42"), None), None, 50),
        ("one deployment", &of(None, None, Some("dpl_12")), None, 50),
        (
            "one deployment, a week long past",
            &long_past(of(None, None, Some("dpl_12"))),
            None,
            50,
        ),
        (
            "one person at one deployment",
            &of(None, Some("usr_42"), Some("dpl_12")),
            None,
            50,
        ),
        (
            "one person, another's department",
            &of(Some("dep_7"), Some("usr_42"), None),
            None,
            50,
        ),
        (
            "one department, a deployment it never used",
            &of(Some("dep_7"), None, Some("dpl_12")),
            None,
            50,
        ),
        ("nobody", &of(None, Some("usr_none"), None), None, 50),
    ];
    for (what, filter, after, limit) in pages {
        time(&format!("entries: {what}"), || {
            store.usage_entries(filter, after, limit)
        })
        .await?;
    }
    time_sums(store, now, &all, &department).await
}

async fn time_sums(
    store: &Store,
    now: Timestamp,
    all: &UsageFilter,
    department: &UsageFilter,
) -> Result<(), StoreError> {
    let since = |days: u32| UsageFilter {
        from: Some(now.before(DAY * days)),
        ..UsageFilter::default()
    };
    let person = UsageFilter {
        principal: Some("usr_42".into()),
        ..since(30)
    };
    let deployment = UsageFilter {
        deployment: Some("dpl_12".into()),
        ..since(30)
    };
    use UsageGroup::{Day, Department, Deployment, Hour, ModelVersion, Principal};
    let pages = [
        ("a month of a department, by day", department, Some(Day)),
        (
            "a month of a department, by person",
            department,
            Some(Principal),
        ),
        ("a month of a department, by hour", department, Some(Hour)),
        (
            "a month of a person, by model version",
            &person,
            Some(ModelVersion),
        ),
        ("a month of a deployment, by hour", &deployment, Some(Hour)),
        (
            "a month of all, by department",
            &since(30),
            Some(Department),
        ),
        ("a month of all, by person", &since(30), Some(Principal)),
        ("a week of all, by hour", &since(7), Some(Hour)),
        ("a month of all, by hour", &since(30), Some(Hour)),
        ("90 days of all, in one", all, None),
        ("90 days of all, by day", all, Some(Day)),
        ("90 days of all, by deployment", all, Some(Deployment)),
        ("90 days of all, by hour", all, Some(Hour)),
    ];
    for (what, filter, by) in pages {
        time(&format!("sums: {what}"), || store.usage(filter, by)).await?;
    }
    let models = AuditFilter {
        object_kind: Some("model".into()),
        ..AuditFilter::default()
    };
    for (what, filter) in [
        ("newest 50", &AuditFilter::default()),
        ("newest 50 of a kind", &models),
    ] {
        time(&format!("audit: {what}"), || store.audit_events(filter, 50)).await?;
    }
    Ok(())
}

async fn time_samples(
    store: &Store,
    run: EvaluationRunId,
) -> Result<(), Box<dyn std::error::Error>> {
    let all = SampleFilter::default();
    let after = Some(format!("{}.{}", SAMPLES * 9 / 20, PROMPTS[1]));
    let prompt = Some(PROMPTS[1].to_owned());
    let item = |name: &str| SampleFilter {
        item: Some(name.to_owned()),
        ..all.clone()
    };
    let failed = SampleFilter {
        passed: Some(false),
        ..all.clone()
    };
    let low = SampleFilter {
        score_below: Some(0.01),
        ..all.clone()
    };
    let deep = |filter: &SampleFilter| SampleFilter {
        after: after.clone(),
        ..filter.clone()
    };
    let of_prompt = |filter: &SampleFilter| SampleFilter {
        prompt_version: prompt.clone(),
        ..filter.clone()
    };
    let low_failed = SampleFilter {
        passed: Some(false),
        ..low.clone()
    };
    let never = SampleFilter {
        score_below: Some(-1.0),
        ..all.clone()
    };
    let pages = [
        ("first 50", all.clone(), 50),
        ("first 500", all.clone(), 500),
        ("50 after nine tenths", deep(&all), 50),
        ("50 of one prompt", of_prompt(&all), 50),
        ("50 of one prompt, deep", of_prompt(&deep(&all)), 50),
        ("50 that failed", failed.clone(), 50),
        ("50 that failed, deep", deep(&failed), 50),
        ("50 that failed of one prompt", of_prompt(&failed), 50),
        ("50 below a score", low.clone(), 50),
        ("50 below a score, deep", deep(&low), 50),
        ("50 below a score that failed", low_failed.clone(), 50),
        (
            "50 below a score that failed, one prompt",
            of_prompt(&low_failed),
            50,
        ),
        ("none below a score", never, 50),
        ("one item", item("item-7777"), 50),
        ("an item that is not there", item("item-none"), 50),
    ];
    for (what, filter, limit) in &pages {
        time(&format!("samples: {what}"), || {
            store.samples(run, filter, *limit)
        })
        .await?;
    }
    Ok(())
}
