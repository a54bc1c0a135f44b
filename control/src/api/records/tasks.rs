//! Tasks: what runs, how far it is, and stopping it.

use axum::response::Response;
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::call::{Answer, Call, Desk, NoBody, NoQuery};
use crate::api::caller::Caller;
use crate::api::events::{self, Batch, Event, Seen};
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get, post};
use crate::api::resource::{Resource, filter, in_department, serve_reads};
use crate::domain::record::Task;
use crate::domain::roles::Verb;
use crate::domain::task::TaskState;
use crate::id::{Id as _, TaskId};
use crate::store::{Listing, StoreError, Stored};

pub(crate) fn serve_all(api: &mut Registry) {
    serve_reads::<Task>(api, "List tasks", "Show a task");
    api.route(
        post("/tasks/{id}/cancel", Verb::CancelTask, "Cancel a task"),
        cancel,
    );
    api.raw(
        get(
            "/tasks/{id}/events",
            Verb::View,
            "Follow a task: its state, progress and log, as server-sent events",
        ),
        follow,
    );
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoFields {}

filter!(TaskFilter {
    /// `convert`, `evaluate`, `import`, …
    kind: String,
    /// Those in this state.
    state: TaskState,
    /// The id of the record that it works for.
    subject: String,
});

impl Resource for Task {
    type Fields = NoFields;
    type Filter = TaskFilter;
    const COLLECTION: &'static str = "/tasks";
    const ITEM: &'static str = "/tasks/{id}";
    const NAME: &'static str = "id";
    const EDIT: Verb = Verb::RunTask;

    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        in_department(listing, caller)
    }

    async fn select(
        _: &Desk,
        filter: &TaskFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        Ok(listing
            .is_if("kind", filter.kind.as_ref())
            .is_if("state", filter.state.as_ref())
            .is_if("subject_id", filter.subject.as_ref()))
    }

    fn fields(&self) -> NoFields {
        NoFields {}
    }

    async fn build(_: &Desk, _: &NoFields, current: Option<&Self>) -> Result<Self, Problem> {
        current
            .cloned()
            .ok_or_else(|| Problem::bad_request("a task is made by what it does"))
    }
}

/// Asks for it to stop. A task that waits is cancelled at once; of one that runs, its worker stops the work.
async fn cancel(call: Call<NoQuery, NoBody>) -> Result<Answer<Stored<Task>>, Problem> {
    let desk = &call.desk;
    let task = desk.find::<Task>(call.segment("id")).await?;
    if let Some(expected) = call.expected.filter(|version| *version != task.version) {
        let (kind, id, found) = (TaskId::KIND, task.id.to_string(), task.version);
        return Err(StoreError::Stale {
            kind,
            id,
            expected,
            found,
        }
        .into());
    }
    let stored = desk.open()?.queue.cancel(&desk.actor(), task.id).await?;
    Ok(Answer::record(stored))
}

/// Events of a task's log that are read at a time.
const LOGGED: u32 = 500;

async fn follow(call: Call<NoQuery, NoBody>, headers: HeaderMap) -> Result<Response, Problem> {
    let task = call.desk.find::<Task>(call.segment("id")).await?.id;
    let store = call.desk.store.clone();
    let last = events::last_event_id(&headers)?;
    let look = move |seen: Seen| {
        let store = store.clone();
        async move {
            let stored = store.get::<Task>(task).await?;
            let logged = store.task_events(task, seen.event, LOGGED).await?;
            let more = logged.len() as u32 >= LOGGED;
            let mut news: Vec<Event> = logged
                .iter()
                .map(|event| Event::new(Some(event.sequence), &event.kind, event))
                .collect();
            let mut over = false;
            // Once the log is read to its end, so that the last line comes before the end.
            if !more {
                over = stored.finished_at.is_some();
                if stored.version != seen.version {
                    news.push(Event::new(None, "task", &stored));
                }
            }
            Ok(Batch {
                news,
                over,
                more,
                version: stored.version,
            })
        }
    };
    Ok(events::stream(&call.desk.control, last, look))
}
