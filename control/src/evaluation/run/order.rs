//! Asking for a run: everything that can be known to be wrong is refused here, before anything is asked of a model.

use serde_json::json;

use super::Evaluate;
use super::plan::{InvalidPlan, Plan, Purpose, RunSettings};
use super::target::deployment_of;
use crate::domain::machine::Machine as _;
use crate::domain::model_version::ModelVersionState;
use crate::domain::record::{
    DatasetVersion, Deployment, Evaluation, EvaluationMethod, EvaluationRun, Model, ModelVersion,
    PromptVersion,
};
use crate::domain::run::RunStatus;
use crate::id::{DepartmentId, EvaluationRunId, Id as _, ModelVersionId, PromptVersionId};
use crate::store::{Actor, Json, Listing, MAX_LIMIT, Store, StoreError, Stored, Tx};
use crate::tasks::{NewTask, Queue, Task as _, TaskError};

/// What somebody wants to know.
#[derive(Debug, Clone)]
pub struct NewRun {
    pub evaluation: Stored<Evaluation>,
    pub version: Stored<ModelVersion>,
    /// Side by side; the verdict is the first one's. Empty: the evaluation's own, or the test set's text as it is.
    pub prompt_versions: Vec<PromptVersionId>,
    /// What it is compared with.
    pub baseline: Baseline,
    pub department: DepartmentId,
    pub priority: i64,
}

/// Which version a run is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// The live one, if there is one beside the candidate.
    Live,
    /// Whatever is live.
    Version(ModelVersionId),
    Nothing,
}

/// Why there is no run.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error(transparent)]
    Plan(#[from] InvalidPlan),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Task(#[from] TaskError),
}

fn invalid(field: &str, problem: impl Into<String>) -> OrderError {
    StoreError::invalid(field, problem).into()
}

/// Makes a run and the task that does it.
///
/// # Errors
/// [`OrderError`], naming the field.
pub async fn order(
    queue: &Queue,
    actor: &Actor,
    new: NewRun,
) -> Result<Stored<EvaluationRun>, OrderError> {
    let store = queue.store();
    let (evaluation, version) = (&new.evaluation, &new.version);
    if evaluation.method != EvaluationMethod::Automatic {
        return Err(invalid("evaluation", "is done by people, not by a task"));
    }
    if version.model != evaluation.model {
        return Err(invalid(
            "model_version",
            "is of another model than the evaluation",
        ));
    }
    let digest = measurable(version)?;
    let test_set = test_set(store, evaluation).await?;
    let settings = RunSettings::read(&evaluation.settings.0)?;
    let own = own_prompts(store, evaluation, &settings).await?;
    let prompt_versions = prompts(store, &new, &own).await?;
    let plan = Plan {
        purpose: Purpose::Verdict,
        prompts_chosen: prompt_versions != own,
        prompt_versions,
        metrics: evaluation.metrics.0.clone(),
        thresholds: evaluation.thresholds.0.clone(),
        settings: evaluation.settings.0.clone(),
    };
    plan.check()?;
    let baseline = baseline(store, &new, &settings).await?;
    let run = EvaluationRun {
        evaluation: evaluation.id,
        model_version: version.id,
        task: None,
        author: actor.principal,
        status: RunStatus::INITIAL,
        artifact_digest: digest,
        test_set: test_set.id,
        policy_digest: evaluation.policy_digest.clone(),
        baseline_version: baseline,
        plan: document(&plan),
        samples: 0,
        scores: Json(json!({})),
        verdict: None,
        report: Json(json!({})),
        withdrawn_at: None,
        error: None,
        started_at: None,
        finished_at: None,
    };
    let mut tx = store.begin().await?;
    let made = enqueue(&mut tx, queue, actor, &new, run).await?;
    tx.commit().await?;
    if let Some(task) = made.task {
        queue.announce(task);
    }
    Ok(made)
}

async fn enqueue(
    tx: &mut Tx,
    queue: &Queue,
    actor: &Actor,
    new: &NewRun,
    run: EvaluationRun,
) -> Result<Stored<EvaluationRun>, OrderError> {
    let id = EvaluationRunId::new();
    let mut task = NewTask::new(Evaluate::NAME, json!({"run": id}));
    task.department = Some(new.department);
    task.principal = actor.principal;
    task.subject = Some((EvaluationRunId::KIND.to_owned(), id.to_string()));
    task.priority = new.priority;
    let task = queue.enqueue_in(tx, actor, task).await?.id;
    let run = EvaluationRun {
        task: Some(task),
        ..run
    };
    Ok(tx.create_as(actor, id, run).await?)
}

/// The version's digest, if it may be measured.
fn measurable(version: &ModelVersion) -> Result<String, OrderError> {
    use ModelVersionState as State;
    let state = version.state;
    if matches!(
        state,
        State::Draft | State::Registering | State::RegisterFailed | State::Archived
    ) {
        let problem = format!("is {state}; a version is evaluated once it is registered");
        return Err(invalid("model_version", problem));
    }
    let digest = version.digest.clone();
    digest.ok_or_else(|| invalid("model_version", "has no digest; register it first"))
}

async fn test_set(
    store: &Store,
    evaluation: &Evaluation,
) -> Result<Stored<DatasetVersion>, OrderError> {
    let Some(id) = evaluation.test_set else {
        return Err(invalid(
            "test_set",
            "the evaluation has none; set it to a dataset's version",
        ));
    };
    let version = store.get::<DatasetVersion>(id).await?;
    if version.artifact.is_none() {
        let problem = "its content is not here; register the dataset's version with an artifact";
        return Err(invalid("test_set", problem));
    }
    Ok(version)
}

async fn own_prompts(
    store: &Store,
    evaluation: &Evaluation,
    settings: &RunSettings,
) -> Result<Vec<PromptVersionId>, OrderError> {
    let mut ids = Vec::with_capacity(settings.prompts.len());
    for text in &settings.prompts {
        ids.push(prompt_named(store, evaluation, text).await?);
    }
    Ok(ids)
}

/// Those that were asked for, or the evaluation's own.
async fn prompts(
    store: &Store,
    new: &NewRun,
    own: &[PromptVersionId],
) -> Result<Vec<PromptVersionId>, OrderError> {
    let ids = match new.prompt_versions.is_empty() {
        true => own.to_vec(),
        false => new.prompt_versions.clone(),
    };
    for (at, id) in ids.iter().enumerate() {
        if ids[..at].contains(id) {
            return Err(invalid("prompt_versions", format!("has {id} twice")));
        }
        let prompt = store.get::<PromptVersion>(*id).await?;
        if prompt.model != new.evaluation.model {
            return Err(invalid(
                "prompt_versions",
                format!("{id} is of another model"),
            ));
        }
    }
    Ok(ids)
}

/// A prompt version of the evaluation's model: `name@v2`, or its id.
///
/// # Errors
/// [`StoreError::Invalid`] where there is none.
pub async fn prompt_named(
    store: &Store,
    evaluation: &Evaluation,
    text: &str,
) -> Result<PromptVersionId, StoreError> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let number = |text: &str| text.strip_prefix('v').unwrap_or(text).parse::<i64>().ok();
    let named = text
        .rsplit_once('@')
        .and_then(|(name, version)| Some((name.to_owned(), number(version)?)));
    let listing = Listing::<PromptVersion>::new()
        .is("model", &evaluation.model)
        .limit(1);
    let found = match named {
        Some((name, number)) => {
            let listing = listing.is("name", &name).is("number", &number);
            store.list(&listing).await?.items.pop()
        }
        None => None,
    };
    found.map(|prompt| prompt.id).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        let problem = format!("the model has no prompt {shown}; name one as name@v1 or by its id");
        StoreError::invalid("prompt_versions", problem)
    })
}

async fn baseline(
    store: &Store,
    new: &NewRun,
    settings: &RunSettings,
) -> Result<Option<ModelVersionId>, OrderError> {
    let found = match new.baseline {
        Baseline::Nothing => None,
        Baseline::Version(id) => Some(store.get::<ModelVersion>(id).await?),
        Baseline::Live => live(store, new, settings).await?,
    };
    let Some(found) = found.filter(|found| found.id != new.version.id) else {
        return Ok(None);
    };
    if found.model != new.evaluation.model {
        return Err(invalid(
            "baseline",
            "is of another model than the evaluation",
        ));
    }
    measurable(&found)?;
    Ok(Some(found.id))
}

/// What the model's deployments serve; one of the settings' if they name one.
async fn live(
    store: &Store,
    new: &NewRun,
    settings: &RunSettings,
) -> Result<Option<Stored<ModelVersion>>, OrderError> {
    let model = store.get::<Model>(new.evaluation.model).await?;
    let mut versions: Vec<ModelVersionId> = match &settings.deployment {
        Some(_) => {
            let deployment = deployment_of(store, &model, settings).await?;
            deployment
                .and_then(|it| it.live_version)
                .into_iter()
                .collect()
        }
        None => {
            let listing = Listing::<Deployment>::new()
                .is("model", &model.id)
                .limit(MAX_LIMIT);
            let all = store.list(&listing).await?.items;
            all.iter().filter_map(|it| it.live_version).collect()
        }
    };
    versions.sort_unstable();
    versions.dedup();
    match versions[..] {
        [] => Ok(None),
        [only] => Ok(Some(store.get::<ModelVersion>(only).await?)),
        _ => Err(invalid(
            "baseline",
            format!(
                "{} deployments of {} serve different versions; name the version, or settings.deployment of the evaluation",
                versions.len(),
                model.name
            ),
        )),
    }
}

pub(super) fn document(plan: &Plan) -> crate::store::Document {
    // A struct of texts and JSON is always JSON.
    Json(serde_json::to_value(plan).unwrap_or_default())
}
