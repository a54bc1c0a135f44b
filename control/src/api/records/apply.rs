//! Records as a document: what it says is made where it is missing, changed where it differs, and left alone where it
//! does not, so that the same document can be applied again and again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
            "Make or change records as a document says; with dry_run tell what would change",
        ),
        apply,
    );
}

/// A record: its kind, and the fields that making one takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct ApplyItem {
    kind: Kind,
    /// As for `POST` on the kind's collection.
    #[serde(flatten)]
    fields: Map<String, Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApplyFields {
    /// In order: a record may refer to earlier ones. Those before a refused one stay applied.
    #[schemars(length(max = 500))]
    records: Vec<ApplyItem>,
    /// Change nothing; tell what would.
    #[serde(default)]
    dry_run: bool,
}

/// What became of one record of the document.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ApplyResult {
    kind: Kind,
    /// `null` while it is not made.
    id: Option<String>,
    outcome: Applied,
    /// Its fields before; `null` for a new one.
    before: Value,
    after: Value,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ApplyResults {
    results: Vec<ApplyResult>,
}

async fn apply(call: Call<NoQuery, Body<ApplyFields>>) -> Result<Answer<ApplyResults>, Problem> {
    let ApplyFields { records, dry_run } = call.body.0;
    if records.len() > 500 {
        return Err(Problem::field(
            "records",
            "should be 500 at most; apply them in parts",
        ));
    }
    let mut results = Vec::with_capacity(records.len());
    for (index, item) in records.into_iter().enumerate() {
        let fields = Value::Object(item.fields);
        let result = match item.kind {
            Kind::Department => one::<Department>(&call.desk, item.kind, fields, dry_run).await,
            Kind::Principal => one::<Principal>(&call.desk, item.kind, fields, dry_run).await,
            Kind::Model => one::<Model>(&call.desk, item.kind, fields, dry_run).await,
            Kind::Dataset => one::<Dataset>(&call.desk, item.kind, fields, dry_run).await,
            Kind::Training => one::<Training>(&call.desk, item.kind, fields, dry_run).await,
            Kind::Evaluation => one::<Evaluation>(&call.desk, item.kind, fields, dry_run).await,
            Kind::Deployment => one::<Deployment>(&call.desk, item.kind, fields, dry_run).await,
            Kind::Quota => one::<Quota>(&call.desk, item.kind, fields, dry_run).await,
        };
        results.push(result.map_err(|problem| problem.within(&format!("records[{index}]")))?);
    }
    Ok(Answer::of(ApplyResults { results }))
}

async fn one<R: Resource>(
    desk: &Desk,
    kind: Kind,
    said: Value,
    dry_run: bool,
) -> Result<ApplyResult, Problem> {
    desk.caller.check(R::EDIT, !dry_run)?;
    let desk = &Desk {
        verb: R::EDIT,
        ..desk.clone()
    };
    let fields: R::Fields = input::typed(said.clone())?;
    let Some(current) = R::existing(desk, &fields).await? else {
        let (id, after) = if dry_run {
            (None, said)
        } else {
            let stored = made::<R>(desk, &fields).await?;
            (Some(stored.id.to_string()), shown::<R>(&stored.record))
        };
        return Ok(ApplyResult {
            kind,
            id,
            outcome: Applied::Created,
            before: Value::Null,
            after,
        });
    };
    let before = shown::<R>(&current.record);
    let fields: R::Fields = input::typed(input::merged(before.clone(), said))?;
    let wanted = R::build(desk, &fields, Some(&current.record)).await?;
    let outcome = if wanted == current.record {
        Applied::Unchanged
    } else {
        Applied::Updated
    };
    let after = shown::<R>(&wanted);
    if !dry_run {
        // Also where nothing changes: what is written along with a record, such as a training's datasets.
        changed::<R>(desk, &current, &fields, None).await?;
    }
    Ok(ApplyResult {
        kind,
        id: Some(current.id.to_string()),
        outcome,
        before,
        after,
    })
}

fn shown<R: Resource>(record: &R) -> Value {
    serde_json::to_value(record.fields()).unwrap_or(Value::Null)
}
