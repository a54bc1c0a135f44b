//! Model versions: their lineage, and the way from a draft to approved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::datasets::{check_digest, number_of, refer_version};
use super::evaluation_runs::Reason;
use crate::api::call::{Answer, Body, Call, Desk, Items, NoBody, NoQuery, limit_of};
use crate::api::input::check_text;
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get, post};
use crate::api::resource::filter;
use crate::deploy::Dossier;
use crate::domain::gate::Approval;
use crate::domain::model_version::{ModelVersionEvent as Event, ModelVersionState};
use crate::domain::record::{
    Access, Artifact, ConversionRun, Deployment, EvaluationRun, Model, ModelVersion, Training,
    TrainingRun,
};
use crate::domain::roles::Verb;
use crate::domain::run::RunStatus;
use crate::id::{ArtifactId, ConversionRunId, DatasetVersionId, Id, ModelVersionId, TrainingRunId};
use crate::store::{Audit, Listing, Stored};

pub(crate) fn serve_all(api: &mut Registry) {
    use Verb::{ApproveVersion, EditCatalogue, RequestApproval, View};
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
    api.route(
        post(
            "/models/{id}/versions/{version}/archive",
            EditCatalogue,
            "Archive a version that is not live",
        ),
        archive,
    );
    api.route(
        post(
            "/models/{id}/versions/{version}/request_approval",
            RequestApproval,
            "Ask for approval after a passed evaluation",
        ),
        request_approval,
    );
    api.route(
        post(
            "/models/{id}/versions/{version}/request_override",
            RequestApproval,
            "Ask for approval in spite of a failed evaluation",
        ),
        request_override,
    );
    api.route(
        post(
            "/models/{id}/versions/{version}/approve",
            ApproveVersion,
            "Approve a version, if the gate is open",
        ),
        approve,
    );
    api.route(
        post(
            "/models/{id}/versions/{version}/reject",
            ApproveVersion,
            "Reject a version",
        ),
        reject,
    );
    api.route(
        post(
            "/models/{id}/versions/{version}/invalidate",
            ApproveVersion,
            "Send a version back to registered",
        ),
        invalidate,
    );
}

filter!(VersionFilter {
    state: ModelVersionState,
});

/// How a dataset version was used.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatasetLink {
    /// `dataset@v1`, or an id.
    dataset: String,
    /// `train`, `tune`, `calibrate`; `train` if absent.
    #[serde(default = "train")]
    use_of: String,
}

fn train() -> String {
    "train".to_owned()
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionFields {
    #[serde(default)]
    note: String,
    #[serde(default)]
    training_run: Option<String>,
    #[serde(default)]
    conversion_run: Option<String>,
    #[serde(default)]
    datasets: Vec<DatasetLink>,
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
async fn addressed<Q: Sync, B: Sync>(call: &Call<Q, B>) -> Result<Stored<ModelVersion>, Problem> {
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
    let (desk, fields) = (&call.desk, &call.body.0);
    let model = desk.find::<Model>(call.segment("id")).await?;
    check_text("note", &fields.note)?;
    let training_run = match &fields.training_run {
        Some(text) => Some(training_run_of(desk, &model, text).await?),
        None => None,
    };
    let conversion_run = match &fields.conversion_run {
        Some(text) => Some(conversion_run_of(desk, &model, text).await?),
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
    let place = format!("/models/{}/versions/{}", model.id, stored.number);
    Ok(Answer::record(stored).at(place))
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
async fn linked(
    desk: &Desk,
    links: &[DatasetLink],
) -> Result<Vec<(DatasetVersionId, String)>, Problem> {
    let mut found = Vec::with_capacity(links.len());
    for link in links {
        check_text("use_of", &link.use_of)?;
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
    artifact: Option<String>,
    /// For content that lies elsewhere: `sha256:` and 64 hexadecimal digits.
    #[serde(default)]
    digest: Option<String>,
}

async fn register(
    call: Call<NoQuery, Body<RegisterFields>>,
) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    let version = addressed(&call).await?;
    let (desk, fields) = (&call.desk, &call.body.0);
    let (artifact, digest) = match (&fields.artifact, &fields.digest) {
        (Some(text), None) => {
            let artifact = desk.refer::<Artifact>("artifact", text).await?;
            (Some(artifact.id), artifact.digest.clone())
        }
        (None, Some(digest)) => {
            check_digest("digest", digest)?;
            (None, digest.clone())
        }
        (None, None) => converted(desk, &version).await?,
        (Some(_), Some(_)) => {
            return Err(Problem::field(
                "artifact",
                "name either an artifact or a digest",
            ));
        }
    };
    let actor = desk.actor();
    let mut tx = desk.store.begin().await?;
    let begun = tx
        .transition::<ModelVersion>(&actor, version.id, call.expected, Event::Register, |_| {})
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
    Ok(Answer::record(stored))
}

/// What the conversion left that a version came from.
async fn converted(
    desk: &Desk,
    version: &ModelVersion,
) -> Result<(Option<ArtifactId>, String), Problem> {
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

/// Lets `event` happen to the version that the path names.
async fn happen<B: Sync>(
    call: &Call<NoQuery, B>,
    event: Event,
    reason: Option<String>,
) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    let version = addressed(call).await?;
    let actor = match reason {
        Some(reason) => call.desk.actor().because(reason),
        None => call.desk.actor(),
    };
    let stored = call
        .desk
        .store
        .transition::<ModelVersion>(&actor, version.id, call.expected, event, |it| {
            if event == Event::Invalidate {
                it.approver = None;
                it.approved_at = None;
                it.evidence = None;
            }
        })
        .await?;
    Ok(Answer::record(stored))
}

async fn archive(call: Call<NoQuery, NoBody>) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    happen(&call, Event::Archive, None).await
}

async fn request_approval(
    call: Call<NoQuery, NoBody>,
) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    happen(&call, Event::RequestApproval, None).await
}

pub(super) fn said(reason: &Reason) -> Result<String, Problem> {
    check_text("reason", &reason.reason)?;
    if reason.reason.trim().is_empty() {
        return Err(Problem::field("reason", "should say why"));
    }
    Ok(reason.reason.clone())
}

async fn request_override(
    call: Call<NoQuery, Body<Reason>>,
) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    let reason = said(&call.body.0)?;
    happen(&call, Event::RequestOverride, Some(reason)).await
}

async fn reject(
    call: Call<NoQuery, Body<Reason>>,
) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    let reason = said(&call.body.0)?;
    happen(&call, Event::Reject, Some(reason)).await
}

async fn invalidate(
    call: Call<NoQuery, Body<Reason>>,
) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    let reason = said(&call.body.0)?;
    happen(&call, Event::Invalidate, Some(reason)).await
}

/// How a version is approved.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApproveFields {
    /// The deployment whose clearance and policy count, by id or endpoint.
    #[serde(default)]
    deployment: Option<String>,
    /// Overrides what the deployment's policy lets be overridden; takes the right to.
    #[serde(default)]
    override_reason: Option<String>,
}

async fn approve(
    call: Call<NoQuery, Body<ApproveFields>>,
) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    let version = addressed(&call).await?;
    let (desk, fields) = (&call.desk, &call.body.0);
    let deployment = match &fields.deployment {
        Some(text) => Some(desk.refer::<Deployment>("deployment", text).await?),
        None => None,
    };
    if deployment
        .as_ref()
        .is_some_and(|it| it.model != version.model)
    {
        return Err(Problem::field("deployment", "is of another model"));
    }
    let approval = Approval {
        approver: desk.caller.principal,
        role: desk.caller.role,
        override_reason: fields.override_reason.clone(),
    };
    let mut actor = desk.actor();
    if let Some(reason) = &fields.override_reason {
        check_text("override_reason", reason)?;
        actor = actor.because(reason);
    }
    let mut tx = desk.store.begin().await?;
    let evidence = latest_run(desk, version.id).await?;
    let dossier = Dossier::of(
        &mut tx,
        &version,
        evidence.as_ref().map(|run| run.id),
        deployment.as_ref().map(|it| it.clearance),
        deployment.as_ref().map_or(&[], |it| &it.gate_policy.0),
    )
    .await?;
    let passed = dossier.check(&approval)?;
    let now = tx.now();
    let stored = tx
        .transition::<ModelVersion>(
            &actor,
            version.id,
            Some(call.expected.unwrap_or(version.version)),
            Event::Approve,
            |it| {
                it.approver = Some(approval.approver);
                it.approved_at = Some(now);
                it.evidence = evidence.map(|run| run.id);
            },
        )
        .await?;
    if !passed.overridden.is_empty() {
        let overridden: Vec<String> = passed.overridden.iter().map(ToString::to_string).collect();
        let audit = Audit::of(&actor, "override_gate", version.id)
            .detail(&json!({ "overridden": overridden }));
        tx.audit(&audit).await?;
    }
    tx.commit().await?;
    Ok(Answer::record(stored))
}

/// The newest finished run about the version that was not withdrawn.
async fn latest_run(
    desk: &Desk,
    version: ModelVersionId,
) -> Result<Option<Stored<EvaluationRun>>, Problem> {
    let listing = Listing::<EvaluationRun>::new()
        .is("model_version", &version)
        .is("status", &RunStatus::Succeeded)
        .is_null("withdrawn_at")
        .limit(1);
    Ok(desk.store.list(&listing).await?.items.pop())
}
