//! Deployments: what is served under which name, and with which resources.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sluice_gateway::config::ReleasesConfig;

use super::approvals::said;
use super::evaluation_runs::Reason;
use super::models::home;
use super::resources;
use super::taken_back::{BackTo, TakenBackView};
use crate::api::call::{Answer, Body, Call, Desk, NoQuery};
use crate::api::caller::Caller;
use crate::api::input::{check_label, check_object, check_text};
use crate::api::problem::Problem;
use crate::api::registry::{Registry, post};
use crate::api::resource::{Resource, Summaries, check_owner, filter, in_department, serve};
use crate::deploy::{Deployments, Returned, Settings};
use crate::domain::gate::Requirement;
use crate::domain::record::{Department, Deployment, Model, Principal};
use crate::domain::roles::Verb;
use crate::domain::secrecy::Secrecy;
use crate::store::{Json, Listing, Stored};

pub(crate) fn serve_all(api: &mut Registry) {
    serve::<Deployment>(
        api,
        &Summaries {
            list: "List deployments",
            show: "Show a deployment",
            create: "Define a deployment; it serves once a work order was promoted",
            update: "Change a deployment; what runs changes by a work order",
            delete: "Put a deployment away that serves nothing",
        },
    );
    api.route(
        post(
            "/deployments/{id}/rollback",
            Verb::OperateRelease,
            "Take the release under way back, or go back to the revision before the live one, or to another that was live",
        ),
        roll_back,
    );
    api.route(
        post(
            "/deployments/{id}/stop",
            Verb::OperateRelease,
            "Serve nothing any more; requests in flight end as they would have",
        ),
        stop,
    );
}

async fn roll_back(call: Call<NoQuery, Body<BackTo>>) -> Result<Answer<TakenBackView>, Problem> {
    let (desk, fields) = (&call.desk, &call.body.0);
    check_text("reason", &fields.reason)?;
    let id = desk.find::<Deployment>(call.segment("id")).await?.id;
    let (caller, reason, to) = (desk.deployer(), &fields.reason, fields.to.as_deref());
    let view = match desk.control.releases() {
        Some(releases) => {
            let back = releases.roll_back(&caller, id, reason, to).await?;
            TakenBackView::of(releases, id, back)
        }
        None => {
            let repeats = ReleasesConfig::default().rollback_repeats;
            let calls = desk.deployments();
            match calls.roll_back(&caller, id, reason, to, repeats).await? {
                Returned::Ordered(order) => TakenBackView::ordered(*order, None),
                Returned::Already(already) => TakenBackView::already(already),
            }
        }
    };
    let place = view.place();
    let answer = Answer::of(view);
    Ok(match place {
        Some(place) => answer.at(place),
        None => answer,
    })
}

async fn stop(call: Call<NoQuery, Body<Reason>>) -> Result<Answer<Stored<Deployment>>, Problem> {
    let desk = &call.desk;
    let id = desk.find::<Deployment>(call.segment("id")).await?.id;
    let (calls, reason) = (desk.deployments(), said(&call.body.0)?);
    let stopped = calls
        .stop(&desk.deployer(), id, call.expected, &reason)
        .await?;
    Ok(Answer::record(stopped))
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeploymentFields {
    /// What requests give as their model: 1 to 256 bytes without blanks and @.
    #[schemars(length(min = 1, max = 256), example = &"helpdesk")]
    pub endpoint: String,
    /// What is served, by id or name.
    #[schemars(example = &"helpdesk")]
    pub model: String,
    /// Whose it is, by id or name; the caller's own department if absent.
    #[serde(default)]
    #[schemars(example = &"it")]
    pub department: Option<String>,
    /// Who answers for it, by id or name; the caller if absent.
    #[serde(default)]
    #[schemars(example = &"ada")]
    pub owner: Option<String>,
    /// How secret the data behind a version may be that is served here.
    #[serde(default = "internal")]
    #[schemars(example = &"confidential")]
    pub clearance: Secrecy,
    /// Thousandths of a core; 0 leaves it to the engine. Counts against quotas.
    #[serde(default = "one_core")]
    #[schemars(range(min = 0, max = 1_000_000), example = 4000)]
    pub cpu_millis: i64,
    /// GPUs, against quotas; counted by itself where engine_options name what it is computed on here.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1024), example = 1)]
    pub gpus: Option<i64>,
    /// Bytes for weights and K/V; 0 is as much as the model needs. Counts against quotas.
    #[serde(default)]
    #[schemars(range(min = 0), example = 8_589_934_592_i64)]
    pub memory_bytes: i64,
    /// Not used yet, and refused until it is: where it is served.
    #[serde(default)]
    #[schemars(example = &"eu-west")]
    pub zone: Option<String>,
    /// Each serving process holds one. Another number is refused until processes share them out; `devices` and `upstream`
    /// of engine_options serve one deployment by several.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1024), example = 1)]
    pub replicas: i64,
    /// What `[[deployment]]` of sluice.example.toml knows: slots, context, memory, threads, max_waiting, prefill_chunk,
    /// provider (cpu, cuda, tensorrt, tensorrt-native), devices, cuda, tensorrt; for other servers upstream, model and
    /// api_key_env.
    #[serde(default = "object")]
    #[schemars(with = "Map<String, Value>", example = json!({ "slots": 8, "context": 4096 }))]
    pub engine_options: Value,
    /// How a work order moves traffic: steps, cohorts, sticky, objectives, on_breach, on_inconclusive, keep_warm, all in
    /// docs/release-analysis.md. All at once if empty.
    #[serde(default = "object")]
    #[schemars(with = "Map<String, Value>", example = json!({ "steps": [{ "weight": 10 }, { "analyse": { "max_duration": "15m" } }] }))]
    pub strategy: Value,
    /// What an approver may override here.
    #[serde(default)]
    #[schemars(example = ["verdict"])]
    pub gate_policy: Vec<Requirement>,
    /// All departments may use it, given the clearance; otherwise its own, and whom it is granted to.
    #[serde(default)]
    #[schemars(example = true)]
    pub open_to_all: bool,
    /// It may stand in for a deployment of the same name in the configuration: for an administrator to say, who says it by
    /// making the deployment, too.
    #[serde(default)]
    #[schemars(example = true)]
    pub adopted: Option<bool>,
}

fn internal() -> Secrecy {
    Secrecy::Internal
}
fn one_core() -> i64 {
    1000
}
fn one() -> i64 {
    1
}
fn object() -> Value {
    json!({})
}

filter!(DeploymentFilter {
    /// The whole name.
    endpoint: String,
    /// Id or name.
    model: String,
    /// Id or name.
    department: String,
});

/// What neither types nor the settings' own check say.
fn check(fields: &DeploymentFields) -> Result<(), Problem> {
    let printable = fields
        .endpoint
        .chars()
        .all(|c| !c.is_control() && !c.is_whitespace());
    if fields.endpoint.is_empty()
        || fields.endpoint.len() > 256
        || !printable
        || fields.endpoint.contains('@')
    {
        return Err(Problem::field(
            "endpoint",
            "should be 1 to 256 bytes without blanks and @, which addresses versions",
        ));
    }
    let ranges = [
        ("cpu_millis", fields.cpu_millis, 0, 1_000_000),
        ("gpus", fields.gpus.unwrap_or(0), 0, 1024),
        ("memory_bytes", fields.memory_bytes, 0, i64::MAX),
        ("replicas", fields.replicas, 1, 1024),
    ];
    for (field, value, least, most) in ranges {
        if !(least..=most).contains(&value) {
            return Err(Problem::field(
                field,
                format!("is {value}, should be {least} to {most}"),
            ));
        }
    }
    check_object("engine_options", &fields.engine_options)?;
    check_object("strategy", &fields.strategy)?;
    check_label("zone", fields.zone.as_deref().unwrap_or(""))
}

/// Whether it stands in for what the configuration serves under its name. That takes an administrator: everybody's requests
/// would go to it.
fn adopted(
    desk: &Desk,
    fields: &DeploymentFields,
    current: Option<&Deployment>,
) -> Result<bool, Problem> {
    let admin = desk.caller.is_admin();
    let same_name = current.filter(|it| it.endpoint == fields.endpoint);
    let was = same_name.is_some_and(|it| it.adopted);
    let configured = desk.control.is_configured(&fields.endpoint);
    let adopted = match fields.adopted {
        Some(wanted) if wanted != was && !admin => {
            return Err(Problem::forbidden(
                "adopted: only an administrator lets a deployment stand in for one of the configuration",
            ));
        }
        Some(wanted) => wanted,
        None => was || configured && admin,
    };
    if configured && !adopted && same_name.is_none() {
        let detail = format!(
            "endpoint: the configuration serves {} already; an administrator may adopt the name (adopted: true)",
            fields.endpoint
        );
        return Err(match admin {
            true => Problem::conflict("configured", detail),
            false => Problem::forbidden(detail),
        });
    }
    Ok(adopted)
}

/// Whether what is live may be served for the clearance that it is given now: it was let in for the one that it had.
async fn holds_lineage(
    desk: &Desk,
    fields: &DeploymentFields,
    current: &Deployment,
) -> Result<(), Problem> {
    let Some(live) = current.live_version else {
        return Ok(());
    };
    if current.clearance.within(fields.clearance) {
        return Ok(());
    }
    let mut tx = desk.store.begin().await?;
    let lineage = tx.lineage_datasets(live).await?;
    match lineage
        .iter()
        .find(|it| !it.secrecy.within(fields.clearance))
    {
        None => Ok(()),
        Some(beyond) => Err(Problem::conflict(
            "secrecy",
            format!(
                "clearance: what is live was made of a dataset that is {}; serve another version first",
                beyond.secrecy
            ),
        )),
    }
}

impl Resource for Deployment {
    type Fields = DeploymentFields;
    type Filter = DeploymentFilter;
    const COLLECTION: &'static str = "/deployments";
    const ITEM: &'static str = "/deployments/{id}";
    const NAME: &'static str = "endpoint";
    const EDIT: Verb = Verb::EditDeployment;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        in_department(listing, caller)
    }

    async fn select(
        desk: &Desk,
        filter: &DeploymentFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        let model = desk
            .refer_if::<Model>("model", filter.model.as_deref())
            .await?;
        let department = desk
            .refer_if::<Department>("department", filter.department.as_deref())
            .await?;
        Ok(listing
            .is_if("endpoint", filter.endpoint.as_ref())
            .is_if("model", model.as_ref())
            .is_if("department", department.as_ref()))
    }

    fn takes(&self) -> Option<Secrecy> {
        Some(self.clearance)
    }

    fn fields(&self) -> DeploymentFields {
        DeploymentFields {
            endpoint: self.endpoint.clone(),
            model: self.model.to_string(),
            department: Some(self.department.to_string()),
            owner: self.owner.map(|id| id.to_string()),
            clearance: self.clearance,
            cpu_millis: self.cpu_millis,
            gpus: Some(self.gpus),
            memory_bytes: self.memory_bytes,
            zone: self.zone.clone(),
            replicas: self.replicas,
            engine_options: self.engine_options.0.clone(),
            strategy: self.strategy.0.clone(),
            gate_policy: self.gate_policy.0.clone(),
            open_to_all: self.open_to_all,
            adopted: Some(self.adopted),
        }
    }

    async fn changeable(
        desk: &Desk,
        stored: &Stored<Self>,
        fields: &DeploymentFields,
    ) -> Result<(), Problem> {
        check_owner(desk, stored.owner, fields.owner.as_deref()).await
    }

    async fn build(
        desk: &Desk,
        fields: &DeploymentFields,
        current: Option<&Self>,
    ) -> Result<Self, Problem> {
        check(fields)?;
        resources::check_used(fields, current)?;
        desk.caller.cleared("clearance", fields.clearance)?;
        let adopted = adopted(desk, fields, current)?;
        if let Some(current) = current {
            holds_lineage(desk, fields, current).await?;
        }
        let model = desk.refer::<Model>("model", &fields.model).await?;
        let kept = current.and_then(|it| it.owner);
        let owner = desk
            .refer_or_keep::<Principal>("owner", fields.owner.as_deref(), kept)
            .await?;
        let department = match (current, &fields.department) {
            (Some(current), None) => current.department,
            (_, named) => home(desk, named.as_deref()).await?,
        };
        let deployment = Self {
            department,
            owner: owner.or_else(|| current.is_none().then_some(desk.caller.principal)),
            model: model.id,
            endpoint: fields.endpoint.clone(),
            clearance: fields.clearance,
            cpu_millis: fields.cpu_millis,
            gpus: resources::gpus(fields, current)?,
            memory_bytes: fields.memory_bytes,
            zone: fields.zone.clone(),
            replicas: fields.replicas,
            engine_options: Json(fields.engine_options.clone()),
            strategy: Json(fields.strategy.clone()),
            gate_policy: Json(fields.gate_policy.clone()),
            open_to_all: fields.open_to_all,
            adopted,
            live_version: current.and_then(|it| it.live_version),
            live_digest: current.and_then(|it| it.live_digest.clone()),
            live_work_order: current.and_then(|it| it.live_work_order),
        };
        Deployments::check(&deployment)?;
        Settings::of(&deployment).check_allowed(&desk.control.settings().allow)?;
        Ok(deployment)
    }

    async fn removable(desk: &Desk, stored: &Stored<Self>) -> Result<(), Problem> {
        if stored.live_version.is_some() || desk.store.active_work_order(stored.id).await?.is_some()
        {
            return Err(Problem::conflict(
                "reference",
                "the deployment serves a version or has an unfinished work order; stop it first",
            ));
        }
        Ok(())
    }
}
