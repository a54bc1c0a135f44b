//! What a roll-back is asked with, and what it came to.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::registry::BASE;
use crate::deploy::Already;
use crate::domain::record::WorkOrder;
use crate::id::{DeploymentId, WorkOrderId};
use crate::release::controller::{Releases, TakenBackTo};
use crate::store::Stored;

/// What is to be taken back, and why; all of it may be left out, since whoever takes back has other things to do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackTo {
    /// Why; kept in the audit log.
    #[serde(default)]
    #[schemars(example = &"wrong tickets")]
    pub reason: String,
    /// A revision that was live here (v2-k3x9qa), or a version (v2: its newest revision that was). Without, the release
    /// under way ends, or else the revision before the live one returns.
    #[serde(default)]
    #[schemars(example = &"v2")]
    pub to: Option<String>,
}

/// What a roll-back came to.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TakenBackView {
    /// The order that did it, or does it: of the release that ended, or of the revision that returns.
    #[serde(flatten)]
    order: Option<Stored<WorkOrder>>,
    /// Its id; `null` before it is written down.
    work_order: Option<WorkOrderId>,
    /// Nothing was moved: it had been done before.
    already: bool,
    /// It holds in this process, also after a crash, and is written down when the database answers.
    queued: bool,
    /// What answers now, or will once it is loaded.
    revision: Option<String>,
    /// In words.
    message: String,
    /// What `to` may name to go further back, the nearest first.
    further: Vec<String>,
}

impl TakenBackView {
    pub(crate) fn of(releases: &Releases, id: DeploymentId, back: TakenBackTo) -> Self {
        match back {
            TakenBackTo::Recorded(order) => Self::ordered(*order, releases.answering(id)),
            TakenBackTo::Queued {
                revision,
                loads_first,
            } => Self::queued(revision, loads_first),
            TakenBackTo::Already(already) => Self::already(already),
        }
    }

    /// `answers`: what answers in this process.
    pub(crate) fn ordered(order: Stored<WorkOrder>, answers: Option<String>) -> Self {
        let (id, state) = (order.id, order.state.to_string().replace('_', " "));
        let message = match (order.restores.is_some(), order.finished_at.is_some()) {
            (false, _) => format!("the release {id} is {state}"),
            (true, true) => format!("the earlier revision is back: {id} is {state}"),
            (true, false) => format!("the earlier revision comes back: {id} is {state}"),
        };
        Self {
            work_order: Some(id),
            already: false,
            queued: false,
            revision: answers,
            message,
            further: Vec::new(),
            order: Some(order),
        }
    }

    fn queued(revision: String, loads_first: bool) -> Self {
        let message = match loads_first {
            true => format!(
                "{revision} is loaded and answers then, also after a restart; written down when the database answers"
            ),
            false => "taken back; written down when the database answers".to_owned(),
        };
        Self {
            order: None,
            work_order: None,
            already: false,
            queued: true,
            revision: Some(revision),
            message,
            further: Vec::new(),
        }
    }

    pub(crate) fn already(already: Already) -> Self {
        let Already {
            answers,
            because,
            further,
        } = already;
        let rest = match further.first() {
            Some(next) => format!("to go further, name what to go to: {next} would answer then"),
            None => "there is nothing earlier to go to".to_owned(),
        };
        Self {
            order: None,
            work_order: None,
            already: true,
            queued: false,
            revision: Some(answers),
            message: format!("already taken back: {because}; nothing was moved; {rest}"),
            further,
        }
    }

    /// Where the order is.
    pub(crate) fn place(&self) -> Option<String> {
        let order = self.work_order?;
        Some(format!("/work_orders/{order}"))
    }

    /// The answer where no handler makes one. `endpoint` is the deployment's.
    pub(crate) fn into_response(self, endpoint: &str) -> Response {
        let status = match (self.queued, self.work_order) {
            (true, _) => StatusCode::ACCEPTED,
            (false, Some(_)) => StatusCode::CREATED,
            (false, None) => StatusCode::OK,
        };
        let place = self.place().map(|path| format!("{BASE}{path}"));
        let version = self.order.as_ref().map(|order| order.version);
        let mut body = serde_json::to_value(&self).unwrap_or_default();
        if self.order.is_none() {
            body["deployment"] = endpoint.into();
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        if let Some(place) = place.and_then(|it| HeaderValue::try_from(it).ok()) {
            headers.insert(header::LOCATION, place);
        }
        if let Some(tag) = version.and_then(|it| HeaderValue::try_from(format!("\"{it}\"")).ok()) {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}
