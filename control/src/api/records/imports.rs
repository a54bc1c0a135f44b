//! Content that the server fetches by itself, and content that it takes away: both are tasks.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::models::home;
use crate::api::call::{Answer, Body, Call, Desk, NoBody, NoQuery};
use crate::api::input::check_name;
use crate::api::problem::Problem;
use crate::api::registry::{Registry, post};
use crate::artifacts::{Source, check_path};
use crate::domain::record::{ArtifactKind, Task};
use crate::domain::roles::Verb;
use crate::id::DepartmentId;
use crate::store::Stored;
use crate::tasks::{NewTask, Task as _};
use crate::work::{CollectGarbage, ImportArtifact, ImportParams};

pub(crate) fn serve_all(api: &mut Registry) {
    api.route(
        post(
            "/imports",
            Verb::EditCatalogue,
            "Bring an artifact in from a URL, S3, HDFS, or a folder or file of the server: a task",
        ),
        import,
    );
    api.route(
        post(
            "/gc",
            Verb::Administer,
            "Take unused content away now rather than with the hourly round: a task",
        ),
        collect,
    );
}

/// What to import, and as what.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportFields {
    /// `https://…`, `s3://bucket/prefix`, `hdfs://host:port/path`, `webhdfs://host:port/path`, or an absolute path of
    /// the server. The configuration says which of them may be imported from.
    #[schemars(example = &"s3://models/helpdesk/v2")]
    from: String,
    /// What the artifact is called: 1 to 128 letters, digits, dots, hyphens and underscores.
    #[schemars(length(min = 1, max = 128), example = &"helpdesk-v2")]
    name: String,
    /// What it is for.
    #[schemars(example = &"checkpoint")]
    kind: ArtifactKind,
    /// Take a .tar, .tar.gz, .tgz or .zip apart.
    #[serde(default)]
    #[schemars(example = true)]
    unpack: bool,
    /// What a single file is called, if not as where it comes from; not with `unpack`.
    #[serde(default)]
    #[schemars(example = &"rows.jsonl")]
    file_name: Option<String>,
    /// Whose it is, by id or name; the caller's own department if absent.
    #[serde(default)]
    #[schemars(example = &"it")]
    department: Option<String>,
}

async fn import(call: Call<NoQuery, Body<ImportFields>>) -> Result<Answer<Stored<Task>>, Problem> {
    let Call { desk, body, .. } = call;
    let fields = body.0;
    fields.from.parse::<Source>()?;
    check_name("name", &fields.name)?;
    if fields.unpack && fields.file_name.is_some() {
        return Err(Problem::field(
            "file_name",
            "is what a single file is called, and unpack takes an archive apart; leave one of them out",
        ));
    }
    if let Some(name) = &fields.file_name {
        check_path(name).map_err(|error| Problem::field("file_name", error.to_string()))?;
    }
    let department = home(&desk, fields.department.as_deref()).await?;
    let params = ImportParams {
        from: fields.from,
        name: fields.name,
        kind: fields.kind,
        unpack: fields.unpack,
        file_name: fields.file_name,
    };
    start(&desk, ImportArtifact::NAME, json!(params), Some(department)).await
}

async fn collect(call: Call<NoQuery, NoBody>) -> Result<Answer<Stored<Task>>, Problem> {
    start(&call.desk, CollectGarbage::NAME, json!({}), None).await
}

async fn start(
    desk: &Desk,
    kind: &'static str,
    params: Value,
    department: Option<DepartmentId>,
) -> Result<Answer<Stored<Task>>, Problem> {
    let mut new = NewTask::new(kind, params);
    new.department = department;
    new.principal = Some(desk.caller.principal);
    let task = desk.open()?.queue.enqueue(&desk.actor(), new).await?;
    let place = format!("/tasks/{}", task.id);
    Ok(Answer::record(task).at(place))
}
