//! The way of a version from evaluated to approved, and off it.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::evaluation_runs::Reason;
use super::versions::addressed;
use crate::api::call::{Answer, Body, Call, Desk, NoBody, NoQuery};
use crate::api::input::check_text;
use crate::api::problem::Problem;
use crate::api::registry::{Registry, post};
use crate::deploy::{DeployError, Dossier, held};
use crate::domain::gate::Approval;
use crate::domain::model_version::{ModelVersionEvent as Event, ModelVersionState as State};
use crate::domain::record::{Deployment, ModelVersion};
use crate::domain::roles::Verb;
use crate::store::{Audit, Stored};

pub(crate) fn serve_all(api: &mut Registry) {
    use Verb::{ApproveVersion, EditCatalogue, RequestApproval};
    api.route(
        post(
            "/models/{id}/versions/{version}/archive",
            EditCatalogue,
            "Archive a version that is not live, no candidate, and not what a roll-back would bring back",
        ),
        archive,
    );
    api.route(
        post(
            "/models/{id}/versions/{version}/unarchive",
            EditCatalogue,
            "Take the archiving of a version back",
        ),
        unarchive,
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
    let version = addressed(&call).await?;
    let (desk, actor) = (&call.desk, call.desk.actor());
    let mut tx = desk.store.begin().await?;
    let held = held(&desk.store, &mut tx, &version).await?;
    if !held.is_empty() {
        let why: Vec<String> = held.iter().map(ToString::to_string).collect();
        return Err(Problem::conflict(
            "held",
            format!("the version cannot be archived: {}", why.join("; ")),
        ));
    }
    let stored = tx
        .transition::<ModelVersion>(&actor, version.id, call.expected, Event::Archive, |_| {})
        .await?;
    tx.commit().await?;
    Ok(Answer::record(stored))
}

/// To where it stood, if that was approved; else to where it has to be evaluated.
async fn unarchive(call: Call<NoQuery, NoBody>) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    let event = match addressed(&call).await?.approved_at {
        Some(_) => Event::UnarchiveApproved,
        None => Event::Unarchive,
    };
    happen(&call, event, None).await
}

async fn request_approval(
    call: Call<NoQuery, NoBody>,
) -> Result<Answer<Stored<ModelVersion>>, Problem> {
    let version = addressed(&call).await?;
    let event = match version.state {
        State::Registered => unevaluated(&call.desk, &version).await?,
        _ => Event::RequestApproval,
    };
    happen(&call, event, None).await
}

/// A version that no evaluation is required of needs none, if its department lets that pass.
async fn unevaluated(desk: &Desk, version: &Stored<ModelVersion>) -> Result<Event, Problem> {
    let mut tx = desk.store.begin().await?;
    let dossier = Dossier::of(&mut tx, version, None, None, &[]).await?;
    if !dossier.demands().is_empty() {
        return Ok(Event::RequestApproval);
    }
    match dossier.missing_evidence() {
        missing if missing.is_empty() => Ok(Event::RequestUnevaluated),
        missing => Err(DeployError::Gate(missing).into()),
    }
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
    #[schemars(example = &"helpdesk")]
    deployment: Option<String>,
    /// Overrides what the deployment's policy lets be overridden; takes the right to, and is kept in the audit log.
    #[serde(default)]
    #[schemars(example = &"a pilot of ten people")]
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
    let dossier = Dossier::of(
        &mut tx,
        &version,
        deployment.as_ref().map(|it| it.id),
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
                it.evidence = dossier.newest_run();
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
