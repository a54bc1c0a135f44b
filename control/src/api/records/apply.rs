//! Records as a document: what it says is made where it is missing, changed where it differs, and left alone where it
//! does not, so that the same document can be applied again and again.
//!
//! All of it is one transaction: it is done, or nothing of it is. A dry run is the same, undone at the end, so that it
//! says what would be. Work orders and releases are ordered in it; whoever carries them out finds them once it is
//! committed.

mod others;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::api::call::{Answer, Body, Call, Desk, NoQuery};
use crate::api::input;
use crate::api::problem::Problem;
use crate::api::registry::{Registry, post};
use crate::api::resource::{Resource, changed, made};
use crate::domain::apply::{Applied, Kind};
use crate::domain::record::{
    Dataset, Department, Deployment, Evaluation, Model, Principal, Quota, Training,
};
use crate::domain::roles::Verb;

pub(crate) fn serve_all(api: &mut Registry) {
    // Each kind takes its own right, which is asked for document by document.
    api.route(
        post(
            "/apply",
            Verb::View,
            "Make or change records as a document says, all of them or none; with dry_run tell what would change",
        ),
        apply,
    );
}

/// A record: its kind, and the fields that making one takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct ApplyItem {
    /// What it is; the other fields are those that making one takes.
    #[schemars(example = &"model")]
    kind: Kind,
    /// As for `POST` on the kind's collection. A `version` also names its `model` or `dataset`, and by `number` or by its
    /// content which one it is; a `key` may give the `sha256` of its secret instead of being given one.
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// Records of one document at most.
const MOST: usize = 500;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApplyFields {
    /// In order: a record may refer to earlier ones. Where one is refused, nothing of the document is done.
    #[schemars(length(max = 500), example = json!([{ "kind": "model", "name": "helpdesk" }]))]
    records: Vec<ApplyItem>,
    /// Change nothing; tell what would.
    #[serde(default)]
    #[schemars(example = true)]
    dry_run: bool,
}

/// What became of one record of the document.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ApplyResult {
    kind: Kind,
    /// What it is called, for people.
    name: String,
    /// `null` while it is not made.
    id: Option<String>,
    outcome: Applied,
    /// Its fields before; `null` for a new one.
    before: Value,
    after: Value,
    /// Of a new key: shown here and never again. `null` in a dry run, where the key's hash was given, and in the answer to
    /// a repeated request.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ApplyResults {
    results: Vec<ApplyResult>,
}

/// A record as the document has it, and what becomes of it.
struct Outcome {
    name: String,
    id: Option<String>,
    outcome: Applied,
    before: Value,
    after: Value,
    secret: Option<String>,
}

impl Outcome {
    fn new(name: String, id: &impl ToString, outcome: Applied, after: Value) -> Self {
        Self {
            name,
            id: Some(id.to_string()),
            outcome,
            before: Value::Null,
            after,
            secret: None,
        }
    }

    /// One that is there, and as the document says.
    fn unchanged(name: String, id: &impl ToString, is: Value) -> Self {
        Self {
            before: is.clone(),
            ..Self::new(name, id, Applied::Unchanged, is)
        }
    }
}

async fn apply(call: Call<NoQuery, Body<ApplyFields>>) -> Result<Answer<ApplyResults>, Problem> {
    let ApplyFields { records, dry_run } = call.body.0;
    if records.len() > MOST {
        return Err(Problem::field(
            "records",
            format!("should be {MOST} at most; apply them in parts"),
        ));
    }
    let store = &call.desk.store;
    let whole = store.whole().await?;
    let desk = Desk {
        store: whole.clone(),
        ..call.desk.clone()
    };
    let mut results = Vec::with_capacity(records.len());
    for (index, item) in records.into_iter().enumerate() {
        let kind = item.kind;
        let done = one(&desk, item).await;
        let outcome = done.map_err(|problem| problem.within(&format!("records[{index}]")))?;
        results.push(result(kind, outcome, dry_run));
    }
    if dry_run {
        store.undo_whole(whole).await?;
        return Ok(Answer::of(ApplyResults { results }));
    }
    store.commit_whole(whole).await?;
    Ok(shown_once(results))
}

fn result(kind: Kind, outcome: Outcome, dry_run: bool) -> ApplyResult {
    let is_new = matches!(outcome.outcome, Applied::Created | Applied::Ordered);
    ApplyResult {
        kind,
        name: outcome.name,
        id: outcome.id.filter(|_| !(dry_run && is_new)),
        outcome: outcome.outcome,
        before: outcome.before,
        after: outcome.after,
        secret: outcome.secret.filter(|_| !dry_run),
    }
}

/// Secrets are not kept for those who repeat the request.
fn shown_once(results: Vec<ApplyResult>) -> Answer<ApplyResults> {
    let secrets = results.iter().any(|it| it.secret.is_some());
    let answer = ApplyResults { results };
    let kept = secrets.then(|| {
        let mut kept = serde_json::to_value(&answer).unwrap_or_default();
        for result in kept["results"].as_array_mut().into_iter().flatten() {
            if let Some(result) = result.as_object_mut() {
                result.remove("secret");
            }
        }
        kept
    });
    Answer {
        kept,
        ..Answer::of(answer)
    }
}

async fn one(desk: &Desk, item: ApplyItem) -> Result<Outcome, Problem> {
    let fields = item.fields;
    match item.kind {
        Kind::Department => record::<Department>(desk, fields).await,
        Kind::Principal => record::<Principal>(desk, fields).await,
        Kind::Model => record::<Model>(desk, fields).await,
        Kind::Dataset => record::<Dataset>(desk, fields).await,
        Kind::Training => record::<Training>(desk, fields).await,
        Kind::Evaluation => record::<Evaluation>(desk, fields).await,
        Kind::Deployment => record::<Deployment>(desk, fields).await,
        Kind::Quota => record::<Quota>(desk, fields).await,
        Kind::Grant => others::grant(desk, fields).await,
        Kind::Key => others::key(desk, fields).await,
        Kind::Version => others::version(desk, fields).await,
        Kind::WorkOrder => others::work_order(desk, fields).await,
        Kind::Release => others::release(desk, fields).await,
    }
}

/// With the right that a kind takes.
fn allowed(desk: &Desk, verb: Verb) -> Result<Desk, Problem> {
    desk.caller.check(verb, true)?;
    Ok(Desk {
        verb,
        ..desk.clone()
    })
}

async fn record<R: Resource>(desk: &Desk, said: Map<String, Value>) -> Result<Outcome, Problem> {
    let desk = &allowed(desk, R::EDIT)?;
    let name = called(&said);
    let said = Value::Object(said);
    let fields: R::Fields = input::typed(said.clone())?;
    let Some(current) = R::existing(desk, &fields).await? else {
        let stored = made::<R>(desk, &fields).await?;
        let after = shown::<R>(&stored.record);
        return Ok(Outcome::new(name, &stored.id, Applied::Created, after));
    };
    let before = shown::<R>(&current.record);
    let fields: R::Fields = input::typed(input::merged(before.clone(), said))?;
    // Also where nothing changes: what is written along with a record, such as a training's datasets.
    let stored = changed::<R>(desk, &current, &fields, None).await?;
    let outcome = match stored.record == current.record {
        true => Applied::Unchanged,
        false => Applied::Updated,
    };
    Ok(Outcome {
        before,
        ..Outcome::new(name, &stored.id, outcome, shown::<R>(&stored.record))
    })
}

/// What a document calls a record, or whose it is.
fn called(said: &Map<String, Value>) -> String {
    let mut names = ["name", "endpoint", "principal", "department"]
        .iter()
        .filter_map(|field| said.get(*field)?.as_str());
    names.next().unwrap_or_default().to_owned()
}

fn shown<R: Resource>(record: &R) -> Value {
    serde_json::to_value(record.fields()).unwrap_or(Value::Null)
}
