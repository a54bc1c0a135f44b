//! Which evaluations a model or a deployment requires of what it is to serve, who may change that, and how a version stands
//! against it. Whoever made a version that is not decided yet does not lower what it has to pass.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::versions::addressed;
use crate::api::call::{Answer, Body, Call, Desk, Items, NoQuery, Paging};
use crate::api::input::check_text;
use crate::api::problem::{FieldError, Problem};
use crate::api::registry::{Registry, get, post};
use crate::deploy::{DeployError, Dossier};
use crate::domain::Verdict;
use crate::domain::gate::{self, Allowance, Approval, Demand, RequiredEvaluation};
use crate::domain::model_version::{ModelVersionEvent, ModelVersionState as State};
use crate::domain::record::{Department, Deployment, Evaluation, Model, ModelVersion};
use crate::domain::roles::{Role, Verb};
use crate::id::{DeploymentId, EvaluationId, EvaluationRunId, Id as _, ModelId, PrincipalId};
use crate::store::{Actor, Stored, Tx};
use crate::time::Timestamp;

pub(crate) fn serve_all(api: &mut Registry) {
    api.route(
        get(
            "/models/{id}/requirements",
            Verb::View,
            "The evaluations that a model and its deployments require, as they were when they were required",
        ),
        list,
    );
    api.route(
        post(
            "/models/{id}/require",
            Verb::RequireEvaluation,
            "Require an evaluation of every version of a model, as it stands now",
        ),
        require_of_model,
    );
    api.route(
        post(
            "/models/{id}/unrequire",
            Verb::RequireEvaluation,
            "Require an evaluation no more; not by the author of a version that is not decided yet",
        ),
        unrequire_of_model,
    );
    api.route(
        post(
            "/deployments/{id}/require",
            Verb::RequireEvaluation,
            "Require an evaluation of every version that a deployment is to serve, beside what the model requires",
        ),
        require_of_deployment,
    );
    api.route(
        post(
            "/deployments/{id}/unrequire",
            Verb::RequireEvaluation,
            "Require an evaluation no more of what a deployment is to serve",
        ),
        unrequire_of_deployment,
    );
    api.route(
        get(
            "/models/{id}/versions/{version}/gate",
            Verb::View,
            "What the approval gate misses of a version, and the newest verdict of each required evaluation",
        ),
        show_gate,
    );
    api.route(
        get(
            "/departments/{id}/gate_policy",
            Verb::View,
            "What a department lets pass at its gates",
        ),
        show_policy,
    );
    api.route(
        post(
            "/departments/{id}/gate_policy",
            Verb::OverrideGate,
            "Change what a department lets pass at its gates",
        ),
        set_policy,
    );
}

/// Which evaluation, and why.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequireFields {
    /// Which evaluation, by id or name.
    #[schemars(example = &"safety")]
    evaluation: String,
    /// Why; kept in the audit log.
    #[serde(default)]
    #[schemars(example = &"asked for by the works council")]
    reason: String,
}

/// All of them, on one page.
async fn list(call: Call<Paging>) -> Result<Answer<Items<RequiredEvaluation>>, Problem> {
    let model = call.desk.find::<Model>(call.segment("id")).await?;
    let mut tx = call.desk.store.begin().await?;
    let histories = tx.required_of(model.id).await?;
    let mut items: Vec<RequiredEvaluation> = histories
        .values()
        .filter_map(|history| gate::in_force(history, None).cloned())
        .collect();
    items.sort_by_key(|it| (it.deployment, it.evaluation));
    Ok(Answer::of(Items {
        items,
        next_cursor: None,
    }))
}

/// What is so now.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NowRequired {
    evaluation: String,
    /// `null` where the model itself asks.
    deployment: Option<DeploymentId>,
    required: bool,
}

type RequireCall = Call<NoQuery, Body<RequireFields>>;
type Required = Result<Answer<NowRequired>, Problem>;

async fn require_of_model(call: RequireCall) -> Required {
    let model = call.desk.find::<Model>(call.segment("id")).await?;
    ask(&call, model.id, None, true).await
}

async fn unrequire_of_model(call: RequireCall) -> Required {
    let model = call.desk.find::<Model>(call.segment("id")).await?;
    ask(&call, model.id, None, false).await
}

async fn require_of_deployment(call: RequireCall) -> Required {
    let at = call.desk.find::<Deployment>(call.segment("id")).await?;
    ask(&call, at.model, Some(at.id), true).await
}

async fn unrequire_of_deployment(call: RequireCall) -> Required {
    let at = call.desk.find::<Deployment>(call.segment("id")).await?;
    ask(&call, at.model, Some(at.id), false).await
}

async fn ask(
    call: &RequireCall,
    model: ModelId,
    deployment: Option<DeploymentId>,
    required: bool,
) -> Required {
    let (desk, fields) = (&call.desk, &call.body.0);
    check_text("reason", &fields.reason)?;
    let evaluation = desk
        .refer::<Evaluation>("evaluation", &fields.evaluation)
        .await?;
    if evaluation.model != model {
        return Err(Problem::field("evaluation", "is of another model"));
    }
    let department = desk.store.get::<Model>(model).await?.department;
    desk.allow(Some(department))?;
    let actor = match fields.reason.trim() {
        "" => desk.actor(),
        reason => desk.actor().because(reason),
    };
    let mut tx = desk.store.begin().await?;
    let act = Act {
        actor,
        author: desk.caller.author(),
        name: desk.caller.name.clone(),
        confirms: true,
    };
    change(&mut tx, &act, &evaluation, deployment, required).await?;
    tx.commit().await?;
    Ok(Answer::of(NowRequired {
        evaluation: evaluation.name.clone(),
        deployment,
        required,
    }))
}

/// Who changes what is required.
struct Act {
    actor: Actor,
    author: Option<PrincipalId>,
    name: String,
    /// Whether saying again what somebody else has lowered confirms it.
    confirms: bool,
}

/// Writes down that `evaluation`, as it stands, is required at a place, or is no more. Versions that have passed it by other
/// terms and are not approved yet have to be evaluated again.
async fn change(
    tx: &mut Tx,
    act: &Act,
    evaluation: &Stored<Evaluation>,
    deployment: Option<DeploymentId>,
    required: bool,
) -> Result<(), Problem> {
    let author = act.author;
    let histories = tx.required_of(evaluation.model).await?;
    let history = histories.get(&(evaluation.id, deployment));
    let history = history.map_or(&[][..], Vec::as_slice);
    let terms = tx.terms_of(evaluation).await?;
    let before = history.first();
    let is_so = match before {
        Some(row) if act.confirms && row.relaxes && row.author != author => false,
        Some(row) => row.required == required && (row.terms == terms || !required),
        None => !required,
    };
    if is_so {
        return Ok(());
    }
    let relaxes = gate::relaxes(history, author, required.then_some(&terms));
    if relaxes && let Some(author) = author {
        refuse_authors(tx, evaluation, author).await?;
    }
    let ends = before.is_some_and(|row| row.required && required && row.terms.differ_from(&terms));
    let row = RequiredEvaluation {
        evaluation: evaluation.id,
        name: evaluation.name.clone(),
        deployment,
        number: 0,
        required,
        relaxes,
        author,
        author_name: Some(act.name.clone()),
        at: Timestamp::now(),
        terms,
    };
    tx.require(&act.actor, before, row).await?;
    if ends && deployment.is_none() {
        end_passes(tx, &act.actor, evaluation).await?;
    }
    Ok(())
}

async fn refuse_authors(
    tx: &mut Tx,
    evaluation: &Evaluation,
    author: PrincipalId,
) -> Result<(), Problem> {
    if !tx.has_undecided_versions(evaluation.model, author).await? {
        return Ok(());
    }
    let model = tx.get::<Model>(evaluation.model).await?;
    Err(Problem::forbidden(format!(
        "you are the author of a version of {} that is not approved yet: what {} asks of it is lowered by somebody else, \
         another developer, an approver or an administrator (sluice model require, unrequire)",
        model.name, evaluation.name
    )))
}

/// What was passed by other terms is not passed any more.
async fn end_passes(
    tx: &mut Tx,
    actor: &Actor,
    evaluation: &Stored<Evaluation>,
) -> Result<(), Problem> {
    let because = format!("what {} asks for was changed", evaluation.name);
    let actor = match &actor.reason {
        Some(_) => actor.clone(),
        None => actor.clone().because(because),
    };
    for version in tx.evaluated_versions(evaluation.model).await? {
        if !tx.verdicts_on(version).await?.contains_key(&evaluation.id) {
            continue;
        }
        let event = ModelVersionEvent::Invalidate;
        tx.transition::<ModelVersion>(&actor, version, None, event, |it| it.evidence = None)
            .await?;
    }
    Ok(())
}

/// Follows a change of an evaluation wherever it is required. `required` is what its fields say: `None` leaves it, and
/// makes a new one required.
pub(super) async fn follow(
    tx: &mut Tx,
    desk: &Desk,
    evaluation: &Stored<Evaluation>,
    required: Option<bool>,
) -> Result<(), Problem> {
    let histories = tx.required_of(evaluation.model).await?;
    let at_model = histories.get(&(evaluation.id, None));
    let stands = at_model.and_then(|history| history.first());
    let is_new = evaluation.version == 1 && stands.is_none();
    let required = match required {
        Some(said) => said,
        None if is_new => evaluation.method == crate::domain::record::EvaluationMethod::Automatic,
        None => stands.is_some_and(|row| row.required),
    };
    let act = Act {
        actor: desk.actor(),
        author: desk.caller.author(),
        name: desk.caller.name.clone(),
        confirms: false,
    };
    change(tx, &act, evaluation, None, required).await?;
    for ((found, deployment), history) in &histories {
        let is_required = history.first().is_some_and(|row| row.required);
        if *found == evaluation.id && deployment.is_some() && is_required {
            change(tx, &act, evaluation, *deployment, true).await?;
        }
    }
    Ok(())
}

/// Whether an evaluation is required anywhere; it is not put away then.
pub(super) async fn is_required(
    desk: &Desk,
    evaluation: &Stored<Evaluation>,
) -> Result<bool, Problem> {
    let mut tx = desk.store.begin().await?;
    let histories = tx.required_of(evaluation.model).await?;
    Ok(histories.iter().any(|((found, _), history)| {
        *found == evaluation.id && history.first().is_some_and(|row| row.required)
    }))
}

/// Which deployment would serve it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GateQuery {
    /// Id or endpoint; its own list and clearance are asked too.
    deployment: Option<String>,
}

/// How a version stands at the gate.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GateView {
    /// Whether it would be let through by an approver who is not its author.
    open: bool,
    /// It is approved or live, and what let it through does not hold any more. It stays live; it rises no further.
    evidence_outdated: bool,
    missing: Vec<FieldError>,
    /// What is required of it, and the newest verdict of each.
    evaluations: Vec<DemandView>,
}

/// One required evaluation and what it says of a version.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DemandView {
    evaluation: EvaluationId,
    name: String,
    deployment: Option<DeploymentId>,
    run: Option<EvaluationRunId>,
    verdict: Option<Verdict>,
    holds: bool,
    required: RequiredEvaluation,
}

async fn show_gate(call: Call<GateQuery>) -> Result<Answer<GateView>, Problem> {
    let version = addressed(&call).await?;
    let desk = &call.desk;
    let deployment = match &call.query.deployment {
        Some(text) => Some(desk.refer::<Deployment>("deployment", text).await?),
        None => None,
    };
    let mut tx = desk.store.begin().await?;
    let dossier = Dossier::of(
        &mut tx,
        &version,
        deployment.as_ref().map(|it| it.id),
        deployment.as_ref().map(|it| it.clearance),
        &[],
    )
    .await?;
    let somebody = Approval {
        approver: PrincipalId::new(),
        role: Role::Approver,
        override_reason: None,
    };
    let missing = match dossier.check(&somebody) {
        Ok(_) => Vec::new(),
        Err(DeployError::Gate(missing)) => missing,
        Err(error) => return Err(error.into()),
    };
    let digest = version.digest.as_deref().unwrap_or_default();
    let stands = matches!(version.state, State::Approved | State::Live);
    Ok(Answer::of(GateView {
        open: missing.is_empty(),
        evidence_outdated: stands && !dossier.missing_evidence().is_empty(),
        missing: missing
            .iter()
            .map(|it| FieldError {
                field: it.requirement().word().to_owned(),
                message: it.to_string(),
            })
            .collect(),
        evaluations: dossier
            .demands()
            .iter()
            .map(|demand| DemandView::of(demand, digest))
            .collect(),
    }))
}

impl DemandView {
    fn of(demand: &Demand, digest: &str) -> Self {
        let evidence = demand.evidence.as_ref();
        Self {
            evaluation: demand.requirement.evaluation,
            name: demand.requirement.name.clone(),
            deployment: demand.requirement.deployment,
            run: evidence.map(|it| it.run),
            verdict: evidence.and_then(|it| it.verdict),
            holds: demand.missing(digest).is_empty(),
            required: demand.requirement.clone(),
        }
    }
}

/// What a department lets pass at its gates, by name.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GatePolicy {
    allows: Vec<Allowance>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatePolicyFields {
    /// What is let pass; nothing if the list is empty.
    #[schemars(example = ["no_required_evaluations"])]
    allows: Vec<Allowance>,
    /// Why; kept in the audit log.
    #[schemars(length(min = 1), example = &"a pilot")]
    reason: String,
}

async fn show_policy(call: Call) -> Result<Answer<GatePolicy>, Problem> {
    let department = call.desk.find::<Department>(call.segment("id")).await?;
    let allows = call.desk.store.gate_policy_of(department.id).await?;
    Ok(Answer::of(GatePolicy { allows }))
}

async fn set_policy(
    call: Call<NoQuery, Body<GatePolicyFields>>,
) -> Result<Answer<GatePolicy>, Problem> {
    let desk = &call.desk;
    let department = desk.find::<Department>(call.segment("id")).await?;
    desk.allow(Some(department.id))?;
    let GatePolicyFields { mut allows, reason } = call.body.0;
    check_text("reason", &reason)?;
    if reason.trim().is_empty() {
        return Err(Problem::field("reason", "should say why"));
    }
    allows.sort_unstable();
    allows.dedup();
    let mut tx = desk.store.begin().await?;
    let actor = desk.actor().because(reason);
    tx.set_gate_policy(&actor, department.id, allows.clone())
        .await?;
    tx.commit().await?;
    Ok(Answer::of(GatePolicy { allows }))
}
