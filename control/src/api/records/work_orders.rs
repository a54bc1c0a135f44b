//! Work orders: what was asked for, by whom, and each step of it.

use axum::response::Response;
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::approvals::said;
use super::datasets::number_of;
use super::evaluation_runs::Reason;
use super::versions::{refer_model_version, version_of};
use crate::api::call::{Answer, Body, Call, Desk, Items, NoBody, NoQuery};
use crate::api::caller::Caller;
use crate::api::events::{self, Batch, Event, Seen};
use crate::api::input::check_text;
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get, post};
use crate::api::resource::{Resource, filter, serve_reads};
use crate::deploy::NewWorkOrder;
use crate::domain::record::{Deployment, Model, WorkOrder, WorkOrderStep};
use crate::domain::roles::Verb;
use crate::domain::work_order::WorkOrderState;
use crate::id::{ModelVersionId, WorkOrderId};
use crate::store::{Column as _, Listing, MAX_LIMIT, Stored};

pub(crate) fn serve_all(api: &mut Registry) {
    serve_reads::<WorkOrder>(api, "List work orders", "Show a work order");
    api.route(
        post(
            WorkOrder::COLLECTION,
            Verb::CreateWorkOrder,
            "Ask for a version to be served by a deployment",
        ),
        order,
    );
    api.route(
        post(
            "/work_orders/{id}/approve",
            Verb::ApproveWorkOrder,
            "Let a work order through the gate and the quotas; it is carried out then",
        ),
        approve,
    );
    api.route(
        post(
            "/work_orders/{id}/reject",
            Verb::ApproveWorkOrder,
            "Refuse a work order that is pending",
        ),
        reject,
    );
    api.route(
        post(
            "/work_orders/{id}/abort",
            Verb::OperateRelease,
            "End a work order that has taken no traffic yet",
        ),
        abort,
    );
    api.route(
        get(
            "/work_orders/{id}/steps",
            Verb::View,
            "What was done for a work order, step by step",
        ),
        steps,
    );
    api.raw(
        get(
            "/work_orders/{id}/events",
            Verb::View,
            "Follow a work order, as server-sent events",
        ),
        follow,
    );
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoFields {}

filter!(WorkOrderFilter {
    /// Id or endpoint.
    deployment: String,
    /// Those in this state.
    state: WorkOrderState,
});

impl Resource for WorkOrder {
    type Fields = NoFields;
    type Filter = WorkOrderFilter;
    const COLLECTION: &'static str = "/work_orders";
    const ITEM: &'static str = "/work_orders/{id}";
    const NAME: &'static str = "id";
    const EDIT: Verb = Verb::CreateWorkOrder;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        match caller.scope() {
            Some(department) => listing.where_clause(
                "deployment IN (SELECT d.id FROM deployments d WHERE d.department = ?)".into(),
                vec![department.to_value()],
            ),
            None => listing,
        }
    }

    async fn select(
        desk: &Desk,
        filter: &WorkOrderFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        let deployment = desk
            .refer_if::<Deployment>("deployment", filter.deployment.as_deref())
            .await?;
        Ok(listing
            .is_if("deployment", deployment.as_ref())
            .is_if("state", filter.state.as_ref()))
    }

    fn fields(&self) -> NoFields {
        NoFields {}
    }

    async fn build(_: &Desk, _: &NoFields, current: Option<&Self>) -> Result<Self, Problem> {
        current
            .cloned()
            .ok_or_else(|| Problem::bad_request("a work order is made for a deployment"))
    }
}

/// What is to be served, and why.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderFields {
    /// Where it is to be served, by id or endpoint.
    #[schemars(example = &"helpdesk")]
    pub(super) deployment: String,
    /// A version of the deployment's model, as v2, model@v2 or by its id. The one that is live is served by the
    /// deployment's settings of now.
    #[schemars(example = &"v2")]
    pub(super) version: String,
    /// Why; kept with it.
    #[serde(default)]
    #[schemars(example = &"better answers")]
    pub(super) reason: String,
}

async fn order(
    call: Call<NoQuery, Body<OrderFields>>,
) -> Result<Answer<Stored<WorkOrder>>, Problem> {
    let (desk, fields) = (&call.desk, &call.body.0);
    let deployment = desk
        .refer::<Deployment>("deployment", &fields.deployment)
        .await?;
    let candidate = version_for(desk, &deployment, &fields.version).await?;
    let stored = ordered(desk, &deployment, candidate, &fields.reason).await?;
    let place = format!("/work_orders/{}", stored.id);
    Ok(Answer::record(stored).at(place))
}

/// A pending order for a version.
pub(super) async fn ordered(
    desk: &Desk,
    deployment: &Stored<Deployment>,
    candidate: ModelVersionId,
    reason: &str,
) -> Result<Stored<WorkOrder>, Problem> {
    check_text("reason", reason)?;
    let new = NewWorkOrder::new(deployment.id, candidate, reason);
    Ok(desk.deployments().order(&desk.deployer(), new).await?)
}

/// `v2` is one of the deployment's model.
pub(super) async fn version_for(
    desk: &Desk,
    deployment: &Deployment,
    text: &str,
) -> Result<ModelVersionId, Problem> {
    if number_of(text).is_none() {
        return Ok(refer_model_version(desk, "version", text).await?.id);
    }
    let model = desk.store.get::<Model>(deployment.model).await?;
    let found = version_of(desk, &model, text).await;
    found.map(|version| version.id).map_err(|_| {
        let name = &model.name;
        Problem::field("version", format!("the model {name} has no version {text}"))
    })
}

/// How a work order is approved.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApproveOrderFields {
    /// Overrides what the deployment's policy lets be overridden, and is written to the audit log.
    #[serde(default)]
    #[schemars(example = &"a pilot of ten people")]
    override_reason: Option<String>,
}

/// The order that a client calls `text`, if the caller may touch its deployment.
async fn touched(desk: &Desk, text: &str) -> Result<WorkOrderId, Problem> {
    let order = desk.find::<WorkOrder>(text).await?;
    desk.find::<Deployment>(&order.deployment.to_string())
        .await?;
    Ok(order.id)
}

async fn approve(
    call: Call<NoQuery, Body<ApproveOrderFields>>,
) -> Result<Answer<Stored<WorkOrder>>, Problem> {
    let desk = &call.desk;
    let id = touched(desk, call.segment("id")).await?;
    let reason = call.body.0.override_reason.clone();
    check_text("override_reason", reason.as_deref().unwrap_or(""))?;
    let calls = desk.deployments();
    let approved = calls
        .approve(&desk.deployer(), id, call.expected, reason)
        .await?;
    Ok(Answer::record(approved))
}

async fn reject(call: Call<NoQuery, Body<Reason>>) -> Result<Answer<Stored<WorkOrder>>, Problem> {
    let desk = &call.desk;
    let id = touched(desk, call.segment("id")).await?;
    let (calls, reason) = (desk.deployments(), said(&call.body.0)?);
    let rejected = calls
        .reject(&desk.deployer(), id, call.expected, &reason)
        .await?;
    Ok(Answer::record(rejected))
}

async fn abort(call: Call<NoQuery, Body<Reason>>) -> Result<Answer<Stored<WorkOrder>>, Problem> {
    let desk = &call.desk;
    let id = touched(desk, call.segment("id")).await?;
    let (calls, reason) = (desk.deployments(), said(&call.body.0)?);
    let aborted = calls
        .abort(&desk.deployer(), id, call.expected, &reason)
        .await?;
    Ok(Answer::record(aborted))
}

async fn steps(call: Call) -> Result<Answer<Items<Stored<WorkOrderStep>>>, Problem> {
    let order = call.desk.find::<WorkOrder>(call.segment("id")).await?;
    let listing = Listing::<WorkOrderStep>::new()
        .is("work_order", &order.id)
        .oldest_first()
        .limit(MAX_LIMIT);
    Ok(Answer::of(call.desk.store.list(&listing).await?.into()))
}

async fn follow(call: Call<NoQuery, NoBody>, headers: HeaderMap) -> Result<Response, Problem> {
    let order = call.desk.find::<WorkOrder>(call.segment("id")).await?.id;
    let store = call.desk.store.clone();
    let last = events::last_event_id(&headers)?;
    let look = move |seen: Seen| {
        let store = store.clone();
        async move {
            let stored = store.get::<WorkOrder>(order).await?;
            let mut news: Vec<Event> = store
                .transitions(order, seen.event)
                .await?
                .iter()
                .map(|made| Event::new(Some(made.object_version), "transition", made))
                .collect();
            if stored.version != seen.version {
                news.push(Event::new(None, "work_order", &stored));
            }
            Ok(Batch {
                news,
                over: stored.finished_at.is_some(),
                more: false,
                version: stored.version,
            })
        }
    };
    Ok(events::stream(&call.desk.control, last, look))
}
