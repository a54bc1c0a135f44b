//! Model versions: what they consist of, and their lineage. What is decided about them is in [`approvals`](super::approvals).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::datasets::{check_digest, number_of, refer_version};
use super::secrecy::{check_artifact, check_content};
use crate::api::call::{Answer, Body, Call, Desk, Items, NoQuery, limit_of};
use crate::api::input::check_text;
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get, post};
use crate::api::resource::filter;
use crate::domain::model_version::{ModelVersionEvent as Event, ModelVersionState};
use crate::domain::record::{
    Access, Artifact, ConversionRun, Model, ModelVersion, Training, TrainingRun,
};
use crate::domain::roles::Verb;
use crate::id::{ArtifactId, ConversionRunId, DatasetVersionId, Id, ModelVersionId, TrainingRunId};
use crate::store::{Listing, Stored};

pub(crate) fn serve_all(api: &mut Registry) {
    use Verb::{EditCatalogue, View};
    api.route(
        get("/models/{id}/versions", View, "List a model's versions"),
        list,
    );
    api.route(
        post(
            "/models/{id}/versions",
            EditCatalogue,
            "Add the next version of a model, with its lineage",
        ),
        create,
    );
    api.route(
        get(
            "/models/{id}/versions/{version}",
            View,
            "Show a version: by number, v2, or id",
        ),
        show,
    );
    api.route(
        post(
            "/models/{id}/versions/{version}/register",
            EditCatalogue,
            "Register a draft's artifact",
        ),
        register,
    );
    api.route(
        post(
            "/models/{id}/versions/{version}/datasets",
            EditCatalogue,
            "Add a dataset version to the lineage",
        ),
        link,
    );
}

filter!(VersionFilter {
    /// Those in this state.
    state: ModelVersionState,
});

/// How a dataset version was used.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatasetLink {
    /// A version of a dataset: `dataset@v1`, or an id.
    #[schemars(example = &"tickets@v1")]
    dataset: String,
    /// What it was used for.
    #[serde(default = "train")]
    #[schemars(extend("enum" = USES), example = &"tune")]
    use_of: String,
}

/// What a dataset version is used for.
const USES: &[&str] = &["train", "tune", "calibrate"];

fn train() -> String {
    "train".to_owned()
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionFields {
    /// For people to read.
    #[serde(default)]
    #[schemars(example = &"with the tickets of March")]
    pub(super) note: String,
    /// The run of a training of this model that it came from, by id.
    #[serde(default)]
    #[schemars(example = &"trr_01kbeqw3c8f0v5m2n4p6r8t0ab")]
    pub(super) training_run: Option<String>,
    /// The conversion of this model that it came from, by id.
    #[serde(default)]
    #[schemars(example = &"cnr_01kbeqw3c8f0v5m2n4p6r8t0ab")]
    pub(super) conversion_run: Option<String>,
    /// The data behind it.
    #[serde(default)]
    #[schemars(example = json!([{ "dataset": "tickets@v1", "use_of": "train" }]))]
    pub(super) datasets: Vec<DatasetLink>,
}

/// A version by `model@v2` or its id, for a field of a body.
pub(super) async fn refer_model_version(
    desk: &Desk,
    field: &str,
    text: &str,
) -> Result<Stored<ModelVersion>, Problem> {
    let missing = || {
        let shown: String = text.chars().take(64).collect();
        Problem::field(
            field,
            format!("there is no model version {shown}; name one as model@v1 or by its id"),
        )
    };
    if let Ok(id) = text.parse::<ModelVersionId>() {
        let version = desk
            .store
            .get::<ModelVersion>(id)
            .await
            .map_err(|_| missing())?;
        desk.find::<Model>(&version.model.to_string())
            .await
            .map_err(|_| missing())?;
        return Ok(version);
    }
    let (name, number) = text.split_once('@').ok_or_else(missing)?;
    let model = desk.refer::<Model>(field, name).await?;
    version_of(desk, &model, number)
        .await
        .map_err(|_| missing())
}

pub(super) async fn version_of(
    desk: &Desk,
    model: &Stored<Model>,
    text: &str,
) -> Result<Stored<ModelVersion>, Problem> {
    let listing = Listing::<ModelVersion>::new()
        .is("model", &model.id)
        .limit(1);
    let listing = match (text.parse::<ModelVersionId>(), number_of(text)) {
        (Ok(id), _) => listing.is("id", &id),
        (Err(_), Some(number)) => listing.is("number", &number),
        (Err(_), None) => return Err(Problem::not_found(ModelVersionId::KIND, text)),
    };
    let found = desk.store.list(&listing).await?.items.pop();
    found.ok_or_else(|| Problem::not_found(ModelVersionId::KIND, text))
}

/// The version that the path names.
pub(super) async fn addressed<Q: Sync, B: Sync>(
    call: &Call<Q, B>,
) -> Result<Stored<ModelVersion>, Problem> {
    let model = call.desk.find::<Model>(call.segment("id")).await?;
    version_of(&call.desk, &model, call.segment("version")).await
}

async fn list(call: Call<VersionFilter>) -> Result<Answer<Items<Stored<ModelVersion>>>, Problem> {
    let model = call.desk.find::<Model>(call.segment("id")).await?;
    let mut listing = Listing::<ModelVersion>::new()
        .is("model", &model.id)
        .is_if("state", call.query.state.as_ref())
        .limit(limit_of(call.query.limit))
        .after(call.query.cursor);
    if call.query.oldest_first == Some(true) {
        listing = listing.oldest_first();
    }
    Ok(Answer::of(call.desk.store.list(&listing).await?.into()))
}

async fn show(call: Call) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    addressed(&call).await.map(Answer::record)
}

async fn create(
    call: Call<NoQuery, Body<VersionFields>>,
) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    let model = call.desk.find::<Model>(call.segment("id")).await?;
    let stored = made(&call.desk, &model, &call.body.0).await?;
    let place = format!("/models/{}/versions/{}", model.id, stored.number);
    Ok(Answer::record(stored).at(place))
}

/// The next version of a model.
pub(super) async fn made(
    desk: &Desk,
    model: &Stored<Model>,
    fields: &VersionFields,
) -> Result<Stored<ModelVersion>, Problem> {
    check_text("note", &fields.note)?;
    let training_run = match &fields.training_run {
        Some(text) => Some(training_run_of(desk, model, text).await?),
        None => None,
    };
    let conversion_run = match &fields.conversion_run {
        Some(text) => Some(conversion_run_of(desk, model, text).await?),
        None => None,
    };
    let datasets = linked(desk, &fields.datasets).await?;
    let version = ModelVersion {
        model: model.id,
        number: 0,
        author: desk.caller.author(),
        state: ModelVersionState::Draft,
        artifact: None,
        digest: None,
        training_run,
        conversion_run,
        evidence: None,
        approver: None,
        approved_at: None,
        note: fields.note.clone(),
    };
    let mut tx = desk.store.begin().await?;
    let stored = tx.add_model_version(&desk.actor(), version).await?;
    for (dataset, use_of) in &datasets {
        tx.link_dataset(stored.id, *dataset, use_of).await?;
    }
    tx.commit().await?;
    Ok(stored)
}

async fn training_run_of(
    desk: &Desk,
    model: &Stored<Model>,
    text: &str,
) -> Result<TrainingRunId, Problem> {
    let missing = || Problem::field("training_run", "is no training run of this model");
    let id: TrainingRunId = text.parse().map_err(|_| missing())?;
    let run = desk
        .store
        .get::<TrainingRun>(id)
        .await
        .map_err(|_| missing())?;
    let training = desk.store.get::<Training>(run.training).await?;
    if training.model == model.id {
        Ok(id)
    } else {
        Err(missing())
    }
}

async fn conversion_run_of(
    desk: &Desk,
    model: &Stored<Model>,
    text: &str,
) -> Result<ConversionRunId, Problem> {
    let missing = || Problem::field("conversion_run", "is no conversion run of this model");
    let id: ConversionRunId = text.parse().map_err(|_| missing())?;
    let run = desk
        .store
        .get::<ConversionRun>(id)
        .await
        .map_err(|_| missing())?;
    if run.model == model.id {
        Ok(id)
    } else {
        Err(missing())
    }
}

/// Data that the caller may use.
pub(super) async fn linked(
    desk: &Desk,
    links: &[DatasetLink],
) -> Result<Vec<(DatasetVersionId, String)>, Problem> {
    let mut found = Vec::with_capacity(links.len());
    for link in links {
        if !USES.contains(&link.use_of.as_str()) {
            let message = format!("should be one of {}", USES.join(", "));
            return Err(Problem::field("use_of", message));
        }
        let version = refer_version(desk, "dataset", &link.dataset, Access::Use).await?;
        found.push((version.id, link.use_of.clone()));
    }
    Ok(found)
}

async fn link(
    call: Call<NoQuery, Body<DatasetLink>>,
) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    let version = addressed(&call).await?;
    let desk = &call.desk;
    if !matches!(
        version.state,
        ModelVersionState::Draft | ModelVersionState::Registered
    ) {
        return Err(Problem::conflict(
            "illegal_transition",
            format!(
                "the lineage of a version that is {} stays as it is",
                version.state
            ),
        ));
    }
    let datasets = linked(desk, std::slice::from_ref(&call.body.0)).await?;
    let mut tx = desk.store.begin().await?;
    for (dataset, use_of) in &datasets {
        tx.link_dataset(version.id, *dataset, use_of).await?;
    }
    tx.commit().await?;
    Ok(Answer::record(version))
}

/// What a version consists of: the output of its conversion run, if nothing is named.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegisterFields {
    /// An artifact of this department, by id or digest.
    #[serde(default)]
    #[schemars(example = &"art_01kbeqw3c8f0v5m2n4p6r8t0ab")]
    pub(super) artifact: Option<String>,
    /// For content that lies elsewhere: `sha256:` and 64 hexadecimal digits.
    #[serde(default)]
    #[schemars(example = &"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub(super) digest: Option<String>,
}

async fn register(
    call: Call<NoQuery, Body<RegisterFields>>,
) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    let version = addressed(&call).await?;
    let desk = &call.desk;
    let content = match content(desk, &call.body.0).await? {
        Some(content) => content,
        None => converted(desk, &version).await?,
    };
    let stored = registered(desk, &version, call.expected, content).await?;
    Ok(Answer::record(stored))
}

/// Artifact and digest.
pub(super) type Content = (Option<ArtifactId>, String);

/// The content that is named, if the caller may use it; `None` where none is.
pub(super) async fn content(
    desk: &Desk,
    fields: &RegisterFields,
) -> Result<Option<Content>, Problem> {
    Ok(match (&fields.artifact, &fields.digest) {
        (Some(text), None) => {
            let artifact = desk.refer::<Artifact>("artifact", text).await?;
            check_artifact(desk, "artifact", artifact.id).await?;
            Some((Some(artifact.id), artifact.digest.clone()))
        }
        (None, Some(digest)) => {
            check_digest("digest", digest)?;
            check_content(desk, "digest", digest).await?;
            Some((None, digest.clone()))
        }
        (None, None) => None,
        (Some(_), Some(_)) => {
            return Err(Problem::field(
                "artifact",
                "name either an artifact or a digest",
            ));
        }
    })
}

/// A draft with its content.
pub(super) async fn registered(
    desk: &Desk,
    version: &Stored<ModelVersion>,
    expected: Option<i64>,
    (artifact, digest): Content,
) -> Result<Stored<ModelVersion>, Problem> {
    let actor = desk.actor();
    let mut tx = desk.store.begin().await?;
    let begun = tx
        .transition::<ModelVersion>(&actor, version.id, expected, Event::Register, |_| {})
        .await?;
    let stored = tx
        .transition::<ModelVersion>(
            &actor,
            version.id,
            Some(begun.version),
            Event::RegisterSucceed,
            |it| {
                it.artifact = artifact;
                it.digest = Some(digest);
            },
        )
        .await?;
    if let Some(artifact) = artifact {
        tx.hold_artifact(artifact, version.id).await?;
    }
    tx.commit().await?;
    Ok(stored)
}

/// What the conversion left that a version came from.
async fn converted(desk: &Desk, version: &ModelVersion) -> Result<Content, Problem> {
    let missing = || {
        Problem::field(
            "artifact",
            "name an artifact or a digest; only a version with a conversion run that succeeded needs neither",
        )
    };
    let run = version.conversion_run.ok_or_else(missing)?;
    let run = desk.store.get::<ConversionRun>(run).await?.record;
    match (run.output_artifact, run.output_digest) {
        (Some(artifact), Some(digest)) => Ok((Some(artifact), digest)),
        _ => Err(missing()),
    }
}
