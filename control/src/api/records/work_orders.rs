//! Work orders: what was asked for, by whom, and each step of it.

use axum::response::Response;
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::call::{Answer, Call, Desk, Items, NoBody, NoQuery};
use crate::api::caller::Caller;
use crate::api::events::{self, Batch, Event, Seen};
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get};
use crate::api::resource::{Resource, filter, serve_reads};
use crate::domain::record::{Deployment, WorkOrder, WorkOrderStep};
use crate::domain::roles::Verb;
use crate::domain::work_order::WorkOrderState;
use crate::store::{Column as _, Listing, MAX_LIMIT, Stored};

pub(crate) fn serve_all(api: &mut Registry) {
    serve_reads::<WorkOrder>(api, "List work orders", "Show a work order");
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
                version: stored.version,
            })
        }
    };
    Ok(events::stream(&call.desk.control, last, look))
}
