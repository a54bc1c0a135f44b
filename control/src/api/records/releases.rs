//! Releases: work orders whose traffic moves in steps. Started, watched, steered and read back here.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::work_orders::version_for;
use crate::api::call::NoQuery;
use crate::api::call::{Answer, Body, Call, Desk, Items, Paging, limit_of};
use crate::api::input::check_text;
use crate::api::problem::Problem;
use crate::api::records::releases_view::{ReleaseSummary, ReleaseView, view};
use crate::api::registry::{Registry, get, post};
use crate::api::resource::{Resource, filter};
use crate::domain::record::{Deployment, ReleaseDecision, ReleasePair, WorkOrder};
use crate::domain::roles::Verb;
use crate::id::ModelVersionId;
use crate::release::controller::{Gathered, NewRelease, Releases};
use crate::release::planner::Command;
use crate::store::{Listing, Stored};

pub(crate) fn serve_all(api: &mut Registry) {
    api.route(
        get("/releases", Verb::View, "List releases, newest first"),
        list,
    );
    api.route(
        post(
            "/releases",
            Verb::CreateWorkOrder,
            "Start a release of a version, or of other servers",
        ),
        start,
    );
    api.route(
        get(
            "/releases/{id}",
            Verb::View,
            "Show a release with the evidence of this process",
        ),
        show,
    );
    api.route(
        get(
            "/releases/{id}/decisions",
            Verb::View,
            "What was decided about a release, and on which evidence",
        ),
        decisions,
    );
    api.route(
        get(
            "/releases/{id}/pairs",
            // They hold what people have asked.
            Verb::OperateRelease,
            "Requests that were copied, with both answers side by side",
        ),
        pairs,
    );
    for (path, summary, asked) in COMMANDS {
        api.route(post(path, Verb::OperateRelease, summary), move |call| {
            steer(call, asked)
        });
    }
}

const COMMANDS: [(&str, &str, Command); 5] = [
    (
        "/releases/{id}/pause",
        "Hold a release where it is",
        Command::Pause,
    ),
    (
        "/releases/{id}/resume",
        "Let a release go on",
        Command::Resume,
    ),
    (
        "/releases/{id}/promote",
        "Leave out the remaining steps; the gate is asked all the same",
        Command::Promote,
    ),
    ("/releases/{id}/abort", "Give a release up", Command::Abort),
    (
        "/releases/{id}/rollback",
        "Take a release back",
        Command::RollBack,
    ),
];

filter!(ReleaseFilter {
    /// Id or endpoint.
    deployment: String,
    /// Only those that are, or are not, over.
    active: bool,
});

async fn list(call: Call<ReleaseFilter>) -> Result<Answer<Items<ReleaseSummary>>, Problem> {
    let (desk, query) = (&call.desk, &call.query);
    let deployment = desk
        .refer_if::<Deployment>("deployment", query.deployment.as_deref())
        .await?;
    let mut listing = WorkOrder::restrict(Listing::new(), &desk.caller)
        .is_if("deployment", deployment.as_ref())
        .where_clause(RELEASES.into(), Vec::new())
        .limit(limit_of(query.limit))
        .after(query.cursor.clone());
    if query.oldest_first == Some(true) {
        listing = listing.oldest_first();
    }
    match query.active {
        Some(true) => listing = listing.is_null("finished_at"),
        Some(false) => listing = listing.where_clause("finished_at IS NOT NULL".into(), Vec::new()),
        None => {}
    }
    let page = desk.store.list(&listing).await?;
    let mut items = Vec::with_capacity(page.items.len());
    for order in &page.items {
        let gathered = gathered(desk, order);
        items.push(view(desk, order, gathered).await?.summary);
    }
    Ok(Answer::of(Items {
        items,
        next_cursor: page.next,
    }))
}

/// Orders that are releases, or would be once they are prepared.
const RELEASES: &str = "(release_state IS NOT NULL OR (restores IS NULL AND previous IS NOT NULL \
    AND snapshot LIKE '%\"strategy\":{\"%'))";

/// What is to be released, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseFields {
    /// Where it is released, by id or endpoint.
    #[schemars(example = &"helpdesk")]
    pub(super) deployment: String,
    /// A version of the deployment's model, as v2, model@v2 or by its id; the live one if only `upstream` changes.
    #[serde(default)]
    #[schemars(example = &"v2")]
    version: Option<String>,
    /// Base URLs of the servers that hold the candidate, where this process does not.
    #[serde(default)]
    #[schemars(example = ["http://10.0.0.7:8000/v1"])]
    pub(super) upstream: Vec<String>,
    /// How traffic moves, instead of the deployment's own strategy; see docs/release-analysis.md.
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>", example = json!({ "steps": [{ "weight": 10 }, { "analyse": { "max_duration": "15m" } }] }))]
    strategy: Option<Value>,
    /// Why; kept with it.
    #[serde(default)]
    #[schemars(example = &"better answers")]
    reason: String,
    /// Approve it at once, if the caller may and the gate lets it; else it waits for somebody who may.
    #[serde(default = "yes")]
    #[schemars(example = false)]
    approve: bool,
}

const fn yes() -> bool {
    true
}

async fn start(call: Call<NoQuery, Body<ReleaseFields>>) -> Result<Answer<ReleaseView>, Problem> {
    let (desk, fields) = (&call.desk, &call.body.0);
    let deployment = desk
        .refer::<Deployment>("deployment", &fields.deployment)
        .await?;
    let candidate = candidate(desk, &deployment, fields).await?;
    let (order, waits_for) = begun(desk, &deployment, candidate, fields).await?;
    let place = format!("/releases/{}", order.id);
    let mut made = view(desk, &order, None).await?;
    if waits_for.is_some() {
        made.summary.waits_for = waits_for;
    }
    Ok(Answer::of(made).at(place))
}

/// The version that is to be released.
pub(super) async fn candidate(
    desk: &Desk,
    deployment: &Stored<Deployment>,
    fields: &ReleaseFields,
) -> Result<ModelVersionId, Problem> {
    Ok(match &fields.version {
        Some(version) => version_for(desk, deployment, version).await?,
        None if fields.upstream.is_empty() => {
            return Err(Problem::field(
                "version",
                "name what is released: a version such as v2, or upstream with the URLs of other servers",
            ));
        }
        None => deployment.live_version.ok_or_else(|| {
            Problem::conflict(
                "nothing_live",
                "the deployment serves nothing; name a version",
            )
        })?,
    })
}

/// An order that is a release, and what it waits for.
pub(super) async fn begun(
    desk: &Desk,
    deployment: &Stored<Deployment>,
    candidate: ModelVersionId,
    fields: &ReleaseFields,
) -> Result<(Stored<WorkOrder>, Option<String>), Problem> {
    check_text("reason", &fields.reason)?;
    let reach = desk.control.settings().allow.reach();
    for url in &fields.upstream {
        reach
            .check(url)
            .map_err(|problem| Problem::field("upstream", problem))?;
    }
    let new = NewRelease {
        deployment: deployment.id,
        candidate,
        upstream: fields.upstream.clone(),
        strategy: fields.strategy.clone(),
        reason: fields.reason.clone(),
        approve: fields.approve,
    };
    releases(desk)?;
    let deployments = desk.deployments();
    Ok(Releases::start(&deployments, &desk.deployer(), new).await?)
}

async fn show(call: Call) -> Result<Answer<ReleaseView>, Problem> {
    let order = find(&call.desk, call.segment("id")).await?;
    let gathered = gathered(&call.desk, &order);
    Ok(Answer::of(view(&call.desk, &order, gathered).await?))
}

/// What this process knows of the candidate.
fn gathered(desk: &Desk, order: &Stored<WorkOrder>) -> Option<Gathered> {
    desk.control.releases()?.gathered(order.id)
}

/// Why; may be left out, since whoever takes something back has other things to do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Because {
    /// Why; kept in the history.
    #[serde(default)]
    #[schemars(example = &"answers are slower")]
    pub reason: String,
}

async fn steer(
    call: Call<NoQuery, Body<Because>>,
    asked: Command,
) -> Result<Answer<ReleaseView>, Problem> {
    let (desk, reason) = (&call.desk, &call.body.0.reason);
    check_text("reason", reason)?;
    let order = find(desk, call.segment("id")).await?;
    let releases = releases(desk)?;
    let order = releases
        .command(&desk.deployer(), order.id, asked, reason)
        .await?;
    let gathered = releases.gathered(order.id);
    Ok(Answer::of(view(desk, &order, gathered).await?))
}

async fn decisions(call: Call<Paging>) -> Result<Answer<Items<Stored<ReleaseDecision>>>, Problem> {
    let order = find(&call.desk, call.segment("id")).await?;
    let listing = Listing::<ReleaseDecision>::new()
        .is("work_order", &order.id)
        .oldest_first()
        .limit(limit_of(call.query.limit))
        .after(call.query.cursor.clone());
    Ok(Answer::of(call.desk.store.list(&listing).await?.into()))
}

/// Which pairs, and which page of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PairFilter {
    /// Only those whose answers say the same, or do not.
    agrees: Option<bool>,
    /// Items a page, 1 to 500; 50 if absent.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

async fn pairs(call: Call<PairFilter>) -> Result<Answer<Items<Stored<ReleasePair>>>, Problem> {
    let order = find(&call.desk, call.segment("id")).await?;
    let query = &call.query;
    let listing = Listing::<ReleasePair>::new()
        .is("work_order", &order.id)
        .is_if("agrees", query.agrees.as_ref())
        .limit(limit_of(query.limit))
        .after(query.cursor.clone());
    Ok(Answer::of(call.desk.store.list(&listing).await?.into()))
}

/// By its own id; or by its deployment's id or endpoint: the one under way, else the latest.
pub(super) async fn find(desk: &Desk, text: &str) -> Result<Stored<WorkOrder>, Problem> {
    if text.starts_with("wo_") {
        let order = desk.find::<WorkOrder>(text).await?;
        if desk.writes {
            // Its clearance, too.
            desk.find::<Deployment>(&order.deployment.to_string())
                .await?;
        }
        return Ok(order);
    }
    let deployment = desk.find::<Deployment>(text).await?;
    let releases = || {
        Listing::<WorkOrder>::new()
            .is("deployment", &deployment.id)
            .where_clause(RELEASES.into(), Vec::new())
            .limit(1)
    };
    let under_way = desk.store.list(&releases().is_null("finished_at")).await?;
    let found = match under_way.items.into_iter().next() {
        Some(order) => Some(order),
        None => desk.store.list(&releases()).await?.items.into_iter().next(),
    };
    found.ok_or_else(|| {
        let detail = format!("{} has no release yet", deployment.endpoint);
        Problem::new(http::StatusCode::NOT_FOUND, "not_found", detail)
    })
}

pub(super) fn releases(desk: &Desk) -> Result<&Releases, Problem> {
    desk.control
        .releases()
        .ok_or_else(|| Problem::unavailable("this process serves no models; ask one that does"))
}
