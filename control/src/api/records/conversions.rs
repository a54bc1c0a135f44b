//! Conversions: a pipeline run over an artifact as a task, whose evidence stays in the model's lineage.

use futures_util::TryStreamExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::api::call::{Answer, Body, Call, Desk, Items, NoQuery};
use crate::api::caller::Caller;
use crate::api::input::{check_name, check_object};
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get, post};
use crate::api::resource::{Resource, filter, of_models, serve_reads};
use crate::domain::record::{Artifact, ConversionRun, Model};
use crate::domain::roles::Verb;
use crate::domain::run::RunStatus;
use crate::id::{ConversionRunId, Id as _};
use crate::pipelines::{
    BadParam, Checkpoint, ContentName, Convert, ConvertParams, Pipeline, check_params,
    check_source, discover, looks_into, named, trusting,
};
use crate::store::{Json, Listing, Stored};
use crate::tasks::{NewTask, Task as _};

pub(crate) fn serve_all(api: &mut Registry) {
    api.route(
        get(
            "/pipelines",
            Verb::View,
            "List the conversion pipelines with their parameters",
        ),
        pipelines,
    );
    api.route(
        post(
            "/models/{id}/conversions",
            Verb::RunTask,
            "Convert a checkpoint into what is served: a run with its task",
        ),
        convert,
    );
    serve_reads::<ConversionRun>(
        api,
        "List conversion runs",
        "Show a conversion run with its parity report",
    );
}

/// A program that converts.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PipelineView {
    name: String,
    summary: String,
    /// What its sources are made with.
    framework: String,
    /// A JSON Schema of its parameters; `null` where it does not tell. Those with `x-content` take `artifact:ID` or
    /// `artifact:ID/path`.
    parameters: Option<Value>,
}

/// The pipelines that lie beside this server. Empty where conversions are left to workers elsewhere.
async fn known(desk: &Desk) -> Result<Vec<Pipeline>, Problem> {
    let Some(folder) = desk.control.settings().pipelines.clone() else {
        return Ok(Vec::new());
    };
    let found = tokio::task::spawn_blocking(move || match folder.is_dir() {
        true => discover(&folder),
        false => Ok(Default::default()),
    });
    match found.await {
        Ok(Ok(found)) => Ok(found.into_values().collect()),
        failed => {
            tracing::error!(?failed, "control.tasks.pipelines: cannot be read");
            Err(Problem::unavailable(
                "the folder of pipelines cannot be read; the server's log says why",
            ))
        }
    }
}

async fn pipelines(call: Call) -> Result<Answer<Items<PipelineView>>, Problem> {
    let items = known(&call.desk).await?.into_iter().map(|it| PipelineView {
        name: it.name,
        summary: it.summary,
        framework: it.framework,
        parameters: it.parameters,
    });
    Ok(Answer::of(Items {
        items: items.collect(),
        next_cursor: None,
    }))
}

/// A conversion to run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConversionFields {
    /// Which pipeline, as `GET /pipelines` calls it.
    #[schemars(example = &"convert-causal-lm")]
    pipeline: String,
    /// The checkpoint: an artifact's id or digest, or `artifact:ID/path` for a file or folder in one.
    #[schemars(example = &"art_01kbeqw3c8f0v5m2n4p6r8t0ab")]
    source: String,
    /// The pipeline's other parameters, as `GET /pipelines` describes them; content is named `artifact:ID` or
    /// `artifact:ID/path`.
    #[serde(default = "object")]
    #[schemars(with = "Map<String, Value>", example = json!({ "precision": "int8" }))]
    params: Value,
    /// What the artifact is called that comes out; the model's name if absent.
    #[serde(default)]
    #[schemars(example = &"helpdesk-int8")]
    name: Option<String>,
}

fn object() -> Value {
    json!({})
}

async fn convert(
    call: Call<NoQuery, Body<ConversionFields>>,
) -> Result<Answer<Stored<ConversionRun>>, Problem> {
    let (desk, fields) = (&call.desk, &call.body.0);
    let model = desk.find::<Model>(call.segment("id")).await?;
    desk.allow(Some(model.department))?;
    let name = fields.name.as_ref().unwrap_or(&model.name);
    check_name("name", name)?;
    let (named, params) = parameters(desk, fields).await?;
    let pipeline = checked(desk, fields, &params, &named).await?;
    let source = named.artifact;
    let id = ConversionRunId::new();
    let asked = ConvertParams {
        pipeline: fields.pipeline.clone(),
        name: name.clone(),
        params: params.clone(),
    };
    let mut task = NewTask::new(Convert::NAME, json!(asked));
    task.department = Some(model.department);
    task.principal = Some(desk.caller.principal);
    task.subject = Some((ConversionRunId::KIND.to_owned(), id.to_string()));
    let queue = &desk.open()?.queue;
    let actor = desk.actor();
    let mut tx = desk.store.begin().await?;
    let task = queue.enqueue_in(&mut tx, &actor, task).await?;
    let run = ConversionRun {
        model: model.id,
        task: Some(task.id),
        author: Some(desk.caller.principal),
        status: RunStatus::Queued,
        source_artifact: Some(source),
        source_framework: pipeline.as_ref().map_or("", |it| &it.framework).to_owned(),
        exporter: fields.pipeline.clone(),
        opset: None,
        number_format: number_format(pipeline.as_ref(), &params),
        params: Json(params),
        parity: None,
        parity_passed: None,
        output_artifact: None,
        output_digest: None,
        error: None,
        started_at: None,
        finished_at: None,
    };
    let stored = tx.create_as(&actor, id, run).await?;
    tx.hold_artifact(source, id).await?;
    tx.commit().await?;
    queue.announce(task.id);
    let place = format!("/conversions/{id}");
    Ok(Answer::record(stored).at(place))
}

fn wrong(bad: BadParam) -> Problem {
    Problem::field(bad.field, bad.problem)
}

/// The content that is converted, and the parameters with `source` among them. All content that they name is there,
/// and the caller may see it.
async fn parameters(
    desk: &Desk,
    fields: &ConversionFields,
) -> Result<(ContentName, Value), Problem> {
    check_object("params", &fields.params)?;
    if !fields.params["source"].is_null() {
        return Err(Problem::field("params.source", "is given as source"));
    }
    let source = match ContentName::parse(&fields.source) {
        Some(name) => name.map_err(|problem| Problem::field("source", problem))?,
        None => ContentName {
            artifact: desk.refer::<Artifact>("source", &fields.source).await?.id,
            path: None,
        },
    };
    let others = named(&fields.params).map_err(wrong)?;
    let all = std::iter::once(("source".to_owned(), source.clone())).chain(others);
    for (field, name) in all {
        is_there(desk, &field, &name).await?;
    }
    let mut params = fields.params.clone();
    params["source"] = json!(source.to_string());
    Ok((source, params))
}

async fn is_there(desk: &Desk, field: &str, name: &ContentName) -> Result<(), Problem> {
    let artifact = desk
        .refer::<Artifact>(field, &name.artifact.to_string())
        .await?;
    let Some(path) = &name.path else {
        return Ok(());
    };
    let folder = format!("{path}/");
    let files = desk.store.artifact_files(artifact.id).await?;
    match files
        .iter()
        .any(|file| file.path == *path || file.path.starts_with(&folder))
    {
        true => Ok(()),
        false => Err(Problem::field(
            field,
            format!("the artifact {} has no {path}", artifact.name),
        )),
    }
}

/// The pipeline, if this server knows any, with nothing wrong in its parameters.
async fn checked(
    desk: &Desk,
    fields: &ConversionFields,
    params: &Value,
    source: &ContentName,
) -> Result<Option<Pipeline>, Problem> {
    if let Some(name) = trusting(params)
        && !desk.caller.role.may(Verb::Administer)
    {
        return Err(Problem::forbidden(format!(
            "params.{name}: what comes with a checkpoint is run on the server only for those who may {}",
            Verb::Administer
        ))
        .and(format!("params.{name}"), "is for administrators"));
    }
    let known = known(desk).await?;
    if known.is_empty() {
        check_name("pipeline", &fields.pipeline)?;
        return Ok(None);
    }
    let names: Vec<&str> = known.iter().map(|it| it.name.as_str()).collect();
    let unknown = format!("is none; there are {}", names.join(", "));
    let pipeline = known
        .iter()
        .find(|it| it.name == fields.pipeline)
        .ok_or_else(|| Problem::field("pipeline", unknown))?;
    if let Some(schema) = &pipeline.parameters {
        refuse(check_params(schema, params))?;
        if looks_into(schema) {
            let checkpoint = checkpoint(desk, source).await?;
            let others: Vec<(&str, &Value)> = known
                .iter()
                .filter_map(|it| Some((it.name.as_str(), it.parameters.as_ref()?)))
                .collect();
            refuse(check_source(schema, params, &checkpoint, &others))?;
        }
    }
    Ok(Some(pipeline.clone()))
}

/// All that is wrong at once.
fn refuse(bad: Vec<BadParam>) -> Result<(), Problem> {
    let mut bad = bad.into_iter();
    match bad.next().map(wrong) {
        Some(first) => Err(bad.fold(first, |problem, bad| problem.and(bad.field, bad.problem))),
        None => Ok(()),
    }
}

/// The folder that is converted, with its small files.
async fn checkpoint(desk: &Desk, source: &ContentName) -> Result<Checkpoint, Problem> {
    let artifacts = &desk.open()?.artifacts;
    let folder = source.path.as_ref().map(|path| format!("{path}/"));
    let below = |path: &str| match &folder {
        Some(folder) => path.strip_prefix(folder.as_str()).map(str::to_owned),
        None => Some(path.to_owned()),
    };
    let files = artifacts.files(source.artifact).await?;
    let there = files
        .iter()
        .filter_map(|file| Some((below(&file.path)?, file.bytes)));
    let mut checkpoint = Checkpoint::new(there);
    for name in checkpoint.reads() {
        let file = files
            .iter()
            .find(|it| below(&it.path).as_deref() == Some(name));
        let Some(file) = file else { continue };
        let pieces = artifacts.read(file.digest).await?;
        let whole = pieces.try_fold(Vec::new(), async |mut whole, piece| {
            whole.extend_from_slice(&piece);
            Ok(whole)
        });
        checkpoint.texts.insert(name, whole.await?);
    }
    Ok(checkpoint)
}

/// What was asked for, or what the pipeline does by itself.
fn number_format(pipeline: Option<&Pipeline>, params: &Value) -> String {
    let default = pipeline
        .and_then(|it| it.parameters.as_ref())
        .and_then(|schema| schema["properties"]["precision"]["default"].as_str());
    let asked = params["precision"].as_str().or(default);
    asked.unwrap_or("fp32").to_owned()
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoFields {}

filter!(ConversionFilter {
    /// Id or name.
    model: String,
    /// Those that stand so.
    status: RunStatus,
});

impl Resource for ConversionRun {
    type Fields = NoFields;
    type Filter = ConversionFilter;
    const COLLECTION: &'static str = "/conversions";
    const ITEM: &'static str = "/conversions/{id}";
    const NAME: &'static str = "id";
    const EDIT: Verb = Verb::RunTask;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        of_models(listing, caller)
    }

    async fn select(
        desk: &Desk,
        filter: &ConversionFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        let model = desk
            .refer_if::<Model>("model", filter.model.as_deref())
            .await?;
        Ok(listing
            .is_if("model", model.as_ref())
            .is_if("status", filter.status.as_ref()))
    }

    fn fields(&self) -> NoFields {
        NoFields {}
    }

    async fn build(_: &Desk, _: &NoFields, current: Option<&Self>) -> Result<Self, Problem> {
        current
            .cloned()
            .ok_or_else(|| Problem::bad_request("a conversion run is made by a conversion"))
    }
}
