//! Trainings and their runs: registered by whoever trains, wherever that is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::datasets::refer_version;
use super::versions::refer_model_version;
use crate::api::call::{Answer, Body, Call, Desk, Items, NoQuery, Paging, limit_of};
use crate::api::caller::Caller;
use crate::api::input::{check_name, check_object, check_text};
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get, post};
use crate::api::resource::{LookedUp, Resource, Summaries, check_owner, filter, of_models, serve};
use crate::domain::record::{Access, Artifact, Model, Principal, Training, TrainingRun};
use crate::domain::roles::Verb;
use crate::domain::run::{RunEvent, RunStatus};
use crate::id::{DatasetVersionId, Id, TrainingRunId};
use crate::store::{Json, Listing, Stored, Tx};

pub(crate) fn serve_all(api: &mut Registry) {
    serve::<Training>(
        api,
        &Summaries {
            list: "List trainings",
            show: "Show a training",
            create: "Register a training: which data, from which version, by which recipe",
            update: "Change a training",
            delete: "Put a training away",
        },
    );
    api.route(
        get(
            "/trainings/{id}/datasets",
            Verb::View,
            "The dataset versions of a training that the caller may see",
        ),
        datasets,
    );
    api.route(
        get("/trainings/{id}/runs", Verb::View, "List a training's runs"),
        runs,
    );
    api.route(
        post(
            "/trainings/{id}/runs",
            Verb::RunTask,
            "Register a run of a training",
        ),
        add_run,
    );
    api.route(
        get(
            "/training_runs/{id}",
            Verb::View,
            "Show a run of a training",
        ),
        run,
    );
    api.route(
        post(
            "/training_runs/{id}/{event}",
            Verb::RunTask,
            "Tell what became of a run: start, succeed, fail, cancel",
        ),
        tell,
    );
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainingFields {
    /// What is trained, by id or name.
    #[schemars(example = &"helpdesk")]
    pub model: String,
    /// What it is called: 1 to 128 letters, digits, dots, hyphens and underscores.
    #[schemars(length(min = 1, max = 128), example = &"nightly")]
    pub name: String,
    /// Who answers for it, by id or name; the caller if absent.
    #[serde(default)]
    #[schemars(example = &"ada")]
    pub owner: Option<String>,
    /// The version that it starts from: `model@v1`, or an id.
    #[serde(default)]
    #[schemars(example = &"helpdesk@v1")]
    pub base_version: Option<String>,
    /// How it is trained, a pipeline's name or a command; kept in the lineage, and run by whoever trains.
    #[serde(default)]
    #[schemars(example = &"python train.py")]
    pub recipe: String,
    /// What it is trained with; kept in the lineage.
    #[serde(default = "object")]
    #[schemars(with = "Map<String, Value>", example = json!({ "lr": 0.0001, "epochs": 3 }))]
    pub hyperparameters: Value,
    /// Not used yet, and refused until it is: what a training reserves.
    #[serde(default = "object")]
    #[schemars(with = "Map<String, Value>", example = json!({ "gpus": 1 }))]
    pub resources: Value,
    /// Dataset versions that are added to those that it uses: `dataset@v1`, or ids.
    #[serde(default)]
    #[schemars(example = ["tickets@v1"])]
    pub datasets: Vec<String>,
}

fn object() -> Value {
    json!({})
}

filter!(TrainingFilter {
    /// Id or name.
    model: String,
    /// The whole name.
    name: String,
});

impl Resource for Training {
    type Fields = TrainingFields;
    type Filter = TrainingFilter;
    const COLLECTION: &'static str = "/trainings";
    const ITEM: &'static str = "/trainings/{id}";
    const NAME: &'static str = "name";
    const EDIT: Verb = Verb::EditCatalogue;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        of_models(listing, caller)
    }

    async fn select(
        desk: &Desk,
        filter: &TrainingFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        let model = desk
            .refer_if::<Model>("model", filter.model.as_deref())
            .await?;
        Ok(listing
            .is_if("model", model.as_ref())
            .is_if("name", filter.name.as_ref()))
    }

    fn fields(&self) -> TrainingFields {
        TrainingFields {
            model: self.model.to_string(),
            name: self.name.clone(),
            owner: self.owner.map(|id| id.to_string()),
            base_version: self.base_version.map(|id| id.to_string()),
            recipe: self.recipe.clone(),
            hyperparameters: self.hyperparameters.0.clone(),
            resources: self.resources.0.clone(),
            datasets: Vec::new(),
        }
    }

    async fn changeable(
        desk: &Desk,
        stored: &Stored<Self>,
        fields: &TrainingFields,
    ) -> Result<(), Problem> {
        check_owner(desk, stored.owner, fields.owner.as_deref()).await
    }

    async fn build(
        desk: &Desk,
        fields: &TrainingFields,
        current: Option<&Self>,
    ) -> Result<Self, Problem> {
        check_name("name", &fields.name)?;
        check_text("recipe", &fields.recipe)?;
        check_object("hyperparameters", &fields.hyperparameters)?;
        check_object("resources", &fields.resources)?;
        check_resources(fields, current)?;
        let model = desk.refer::<Model>("model", &fields.model).await?;
        let kept = current.and_then(|it| it.owner);
        let owner = desk
            .refer_or_keep::<Principal>("owner", fields.owner.as_deref(), kept)
            .await?;
        let base_version = match &fields.base_version {
            Some(text) => Some(refer_model_version(desk, "base_version", text).await?.id),
            None => None,
        };
        Ok(Self {
            model: model.id,
            owner: owner.or_else(|| current.is_none().then_some(desk.caller.principal)),
            name: fields.name.clone(),
            base_version,
            recipe: fields.recipe.clone(),
            hyperparameters: Json(fields.hyperparameters.clone()),
            resources: Json(fields.resources.clone()),
        })
    }

    async fn looked_up(desk: &Desk, fields: &TrainingFields) -> Result<LookedUp, Problem> {
        let mut known = LookedUp::default();
        for text in &fields.datasets {
            let data = refer_version(desk, "datasets", text, Access::Use).await?;
            known.data.push(data.id);
        }
        Ok(known)
    }

    async fn written(
        _: &Desk,
        tx: &mut Tx,
        _: &TrainingFields,
        stored: &Stored<Self>,
        known: &LookedUp,
    ) -> Result<(), Problem> {
        for data in &known.data {
            tx.train_on(stored.id, *data).await?;
        }
        Ok(())
    }
}

/// What nothing would reserve. What an earlier version took may stay as it is.
fn check_resources(fields: &TrainingFields, current: Option<&Training>) -> Result<(), Problem> {
    let empty = fields.resources.as_object().is_some_and(Map::is_empty);
    if empty || current.is_some_and(|it| it.resources.0 == fields.resources) {
        return Ok(());
    }
    Err(Problem::field(
        "resources",
        "are not used yet, so they are not taken: whoever trains reserves them; leave it out",
    ))
}

/// The dataset versions that a training uses.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TrainingData {
    dataset_versions: Vec<DatasetVersionId>,
}

async fn datasets(call: Call) -> Result<Answer<TrainingData>, Problem> {
    let training = call.desk.find::<Training>(call.segment("id")).await?;
    let viewer = call.desk.caller.viewer();
    let dataset_versions = call.desk.store.training_data(training.id, viewer).await?;
    Ok(Answer::of(TrainingData { dataset_versions }))
}

async fn runs(call: Call<Paging>) -> Result<Answer<Items<Stored<TrainingRun>>>, Problem> {
    let training = call.desk.find::<Training>(call.segment("id")).await?;
    let listing = Listing::<TrainingRun>::new()
        .is("training", &training.id)
        .limit(limit_of(call.query.limit))
        .after(call.query.cursor);
    let mut page = call.desk.store.list(&listing).await?;
    for run in &mut page.items {
        hide_inputs(&call.desk, run).await?;
    }
    Ok(Answer::of(page.into()))
}

/// A run's inputs name its datasets: they are shown to those who may see all of them.
async fn hide_inputs(desk: &Desk, run: &mut Stored<TrainingRun>) -> Result<(), Problem> {
    let viewer = desk.caller.viewer();
    if desk.store.training_is_hidden(run.training, viewer).await? {
        run.record.inputs = Json(Value::Null);
    }
    Ok(())
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainingRunFields {
    /// The hyperparameters of this run.
    #[serde(default = "object")]
    #[schemars(with = "Map<String, Value>", example = json!({ "lr": 0.0001 }))]
    params: Value,
    /// The exact inputs, by digest.
    #[serde(default = "object")]
    #[schemars(with = "Map<String, Value>", example = json!({ "tickets@v1": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }))]
    inputs: Value,
}

async fn add_run(
    call: Call<NoQuery, Body<TrainingRunFields>>,
) -> Result<Answer<Stored<TrainingRun>>, Problem> {
    let training = call.desk.find::<Training>(call.segment("id")).await?;
    let fields = call.body.0;
    check_object("params", &fields.params)?;
    check_object("inputs", &fields.inputs)?;
    let run = TrainingRun {
        training: training.id,
        task: None,
        author: Some(call.desk.caller.principal),
        status: RunStatus::Queued,
        params: Json(fields.params),
        metrics: Json(json!({})),
        inputs: Json(fields.inputs),
        artifact: None,
        error: None,
        started_at: None,
        finished_at: None,
    };
    let stored = call.desk.store.create(&call.desk.actor(), run).await?;
    let place = format!("/training_runs/{}", stored.id);
    Ok(Answer::record(stored).at(place))
}

async fn find_run(desk: &Desk, text: &str) -> Result<Stored<TrainingRun>, Problem> {
    let missing = || Problem::not_found(TrainingRunId::KIND, text);
    let id: TrainingRunId = text.parse().map_err(|_| missing())?;
    let run = desk.store.get::<TrainingRun>(id).await?;
    desk.find::<Training>(&run.training.to_string())
        .await
        .map_err(|_| missing())?;
    Ok(run)
}

async fn run(call: Call) -> Result<Answer<Stored<TrainingRun>>, Problem> {
    let mut run = find_run(&call.desk, call.segment("id")).await?;
    hide_inputs(&call.desk, &mut run).await?;
    Ok(Answer::record(run))
}

/// What became of a run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunOutcome {
    /// Numbers of the run; they replace earlier ones.
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>", example = json!({ "loss": 1.2 }))]
    metrics: Option<Value>,
    /// What it left, an artifact's id or digest: for `succeed` and `fail`.
    #[serde(default)]
    #[schemars(example = &"art_01kbeqw3c8f0v5m2n4p6r8t0ab")]
    artifact: Option<String>,
    /// What went wrong: for `fail` and `cancel`.
    #[serde(default)]
    #[schemars(example = &"out of memory")]
    error: Option<String>,
}

/// What a run left is told at its end, and what went wrong where something did.
fn check_outcome(event: RunEvent, outcome: &RunOutcome) -> Result<(), Problem> {
    check_text("error", outcome.error.as_deref().unwrap_or(""))?;
    let (leaves, fails) = match event {
        RunEvent::Start | RunEvent::Requeue => (false, false),
        RunEvent::Succeed => (true, false),
        RunEvent::Fail => (true, true),
        RunEvent::Cancel => (false, true),
    };
    let beside = |field: &str, event: RunEvent| {
        let message = format!("does not go with {event}; leave it out");
        Err(Problem::field(field, message))
    };
    if outcome.artifact.is_some() && !leaves {
        return beside("artifact", event);
    }
    if outcome.error.is_some() && !fails {
        return beside("error", event);
    }
    Ok(())
}

async fn tell(
    call: Call<NoQuery, Body<RunOutcome>>,
) -> Result<Answer<Stored<TrainingRun>>, Problem> {
    let desk = &call.desk;
    let run = find_run(desk, call.segment("id")).await?;
    let event: RunEvent =
        call.segment("event")
            .parse()
            .map_err(|error: crate::domain::words::WordError| {
                Problem::not_found("event", &error.to_string())
            })?;
    let outcome = &call.body.0;
    if let Some(metrics) = &outcome.metrics {
        check_object("metrics", metrics)?;
    }
    check_outcome(event, outcome)?;
    let artifact = match &outcome.artifact {
        Some(text) => Some(desk.refer::<Artifact>("artifact", text).await?.id),
        None => None,
    };
    let mut tx = desk.store.begin().await?;
    let mut stored = tx
        .transition::<TrainingRun>(&desk.actor(), run.id, call.expected, event, |it| {
            if let Some(metrics) = &outcome.metrics {
                it.metrics = Json(metrics.clone());
            }
            it.artifact = artifact.or(it.artifact);
            it.error = outcome.error.clone().or(it.error.take());
        })
        .await?;
    if let Some(artifact) = artifact {
        tx.hold_artifact(artifact, stored.id).await?;
    }
    tx.commit().await?;
    hide_inputs(desk, &mut stored).await?;
    Ok(Answer::record(stored))
}
