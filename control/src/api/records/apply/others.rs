//! What is applied otherwise than field by field: grants, keys and versions, which do not change once they are there,
//! and orders, which are given.

use serde_json::{Map, Value, json};

use super::{Outcome, allowed, shown};
use crate::api::call::Desk;
use crate::api::input;
use crate::api::problem::Problem;
use crate::api::records::datasets::{
    DatasetVersionFields, number_of, refer_version, version_added,
};
use crate::api::records::granting;
use crate::api::records::keys::{self, KeyFields};
use crate::api::records::people::GrantFields;
use crate::api::records::releases::{self, ReleaseFields};
use crate::api::records::versions::{self, RegisterFields, VersionFields};
use crate::api::records::work_orders::{OrderFields, ordered, version_for};
use crate::api::resource::{Resource, changed, made};
use crate::deploy::Settings;
use crate::domain::apply::Applied;
use crate::domain::record::{
    Access, ApiKey, Artifact, Dataset, DatasetVersion, Department, Deployment, Grant, Model,
    ModelVersion, Principal, WorkOrder,
};
use crate::domain::roles::Verb;
use crate::id::ModelVersionId;
use crate::store::{Listing, Record, Stored};

/// Found by whom it gives access, and to what; only the access changes.
pub(super) async fn grant(desk: &Desk, said: Map<String, Value>) -> Result<Outcome, Problem> {
    let desk = &allowed(desk, Grant::EDIT)?;
    let fields: GrantFields = input::typed(Value::Object(said))?;
    let text = |it: &Option<String>| it.clone().unwrap_or_default();
    let name = format!(
        "{}{}{} to {}{}",
        text(&fields.dataset),
        text(&fields.model),
        text(&fields.deployment),
        text(&fields.principal),
        text(&fields.department)
    );
    let (kind, object) = granting::object(desk, &fields).await?;
    let principal = fields.principal.as_deref();
    let principal = granting::to::<Principal>(desk, kind, "principal", principal).await?;
    let department = fields.department.as_deref();
    let department = granting::to::<Department>(desk, kind, "department", department).await?;
    let listing = Grant::restrict(Listing::new(), &desk.caller)
        .is("object_kind", &kind.to_owned())
        .is("object_id", &object)
        .limit(1);
    let listing = match (&principal, &department) {
        (Some(principal), None) => listing.is("principal", principal),
        (None, Some(department)) => listing.is("department", department),
        // Refused where it is made.
        _ => listing.is_null("object_kind"),
    };
    let Some(current) = desk.store.list(&listing).await?.items.pop() else {
        let stored = made::<Grant>(desk, &fields).await?;
        let after = shown::<Grant>(&stored.record);
        return Ok(Outcome::new(name, &stored.id, Applied::Created, after));
    };
    let before = shown::<Grant>(&current.record);
    if current.access == fields.access {
        return Ok(Outcome::unchanged(name, &current.id, before));
    }
    let wanted = GrantFields {
        access: fields.access,
        ..current.record.fields()
    };
    let stored = changed::<Grant>(desk, &current, &wanted, None).await?;
    let after = shown::<Grant>(&stored.record);
    Ok(Outcome {
        before,
        ..Outcome::new(name, &stored.id, Applied::Updated, after)
    })
}

/// Found by its principal and its name. What is there stays as it is: keys are rotated, not changed.
pub(super) async fn key(desk: &Desk, mut said: Map<String, Value>) -> Result<Outcome, Problem> {
    let desk = &allowed(desk, Verb::ManageOwnKeys)?;
    let hash = said.remove("sha256").map(|it| hash(&it)).transpose()?;
    let fields: KeyFields = input::typed(Value::Object(said))?;
    let name = fields.name.clone();
    let whose = keys::owner(desk, fields.principal.as_deref()).await?;
    let there = keys::in_force(desk, &fields.name, Some(whose)).await?;
    if let Some(current) = there.into_iter().next() {
        check_same(&current, &fields, hash.as_deref())?;
        return Ok(Outcome::unchanged(
            name,
            &current.id,
            value(&current.record),
        ));
    }
    let new = keys::asked(desk, &fields).await?;
    let mut tx = desk.store.begin().await?;
    let (key, secret) = match hash {
        Some(hash) => (tx.issue_hashed(&desk.actor(), new, hash).await?, None),
        None => {
            let issued = tx.issue(&desk.actor(), new).await?;
            (issued.key, Some(issued.secret))
        }
    };
    tx.commit().await?;
    Ok(Outcome {
        secret,
        ..Outcome::new(name, &key.id, Applied::Created, value(&key.record))
    })
}

fn hash(said: &Value) -> Result<String, Problem> {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    match said.as_str() {
        Some(text) if text.len() == 64 && text.chars().all(is_hex) => Ok(text.to_owned()),
        _ => Err(Problem::field(
            "sha256",
            "should be 64 lower-case hexadecimal digits, as `printf %s KEY | sha256sum` writes them",
        )),
    }
}

/// Whether a key is as the document says, in all that it says.
fn check_same(is: &ApiKey, said: &KeyFields, hash: Option<&str>) -> Result<(), Problem> {
    let differs = [
        ("sha256", hash.is_some_and(|hash| hash != is.hash)),
        (
            "scopes",
            said.scopes.as_ref().is_some_and(|it| *it != is.scopes.0),
        ),
        (
            "expires_at",
            said.expires_at.is_some() && said.expires_at != is.expires_at,
        ),
        (
            "models",
            said.models.is_some() && said.models != is.models.as_ref().map(|it| it.0.clone()),
        ),
        (
            "requests_per_minute",
            said.requests_per_minute.is_some()
                && said.requests_per_minute != is.requests_per_minute,
        ),
        (
            "tokens_per_minute",
            said.tokens_per_minute.is_some() && said.tokens_per_minute != is.tokens_per_minute,
        ),
        (
            "requests_per_month",
            said.requests_per_month.is_some() && said.requests_per_month != is.requests_per_month,
        ),
        (
            "tokens_per_month",
            said.tokens_per_month.is_some() && said.tokens_per_month != is.tokens_per_month,
        ),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        Some((field, _)) => Err(Problem::field(
            *field,
            "is another than that of the key that is there, and keys do not change: give it another name, or withdraw \
             the old one first",
        )),
        None => Ok(()),
    }
}

/// The next version of a model or a dataset, unless it is there.
pub(super) async fn version(desk: &Desk, mut said: Map<String, Value>) -> Result<Outcome, Problem> {
    let number = match (said.remove("number"), said.remove("version")) {
        (None, None) => None,
        (Some(said), None) | (None, Some(said)) => Some(number(&said)?),
        (Some(_), Some(_)) => {
            return Err(Problem::field(
                "version",
                "and number are the same; name one",
            ));
        }
    };
    let mut text = |field: &str| match said.remove(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Problem::field(field, "should be a name or an id")),
    };
    match (text("model")?, text("dataset")?) {
        (Some(model), None) => model_version(desk, &model, number, said).await,
        (None, Some(dataset)) => dataset_version(desk, &dataset, number, said).await,
        _ => Err(Problem::field("model", "name either a model or a dataset")),
    }
}

fn number(said: &Value) -> Result<i64, Problem> {
    let number = match said {
        Value::String(text) => number_of(text),
        other => other.as_i64(),
    };
    let right = || Problem::field("number", "should be a number from 1, such as 2 or v2");
    number.filter(|it| *it > 0).ok_or_else(right)
}

async fn model_version(
    desk: &Desk,
    model: &str,
    number: Option<i64>,
    mut said: Map<String, Value>,
) -> Result<Outcome, Problem> {
    let desk = &allowed(desk, Verb::EditCatalogue)?;
    let model = desk.refer::<Model>("model", model).await?;
    let mut content = Map::new();
    for field in ["artifact", "digest"] {
        if let Some(named) = said.remove(field) {
            content.insert(field.to_owned(), named);
        }
    }
    let content: RegisterFields = input::typed(Value::Object(content))?;
    let content = versions::content(desk, &content).await?;
    let fields: VersionFields = input::typed(Value::Object(said))?;
    let digest = content.as_ref().map(|(_, digest)| digest);
    let own = Listing::<ModelVersion>::new().is("model", &model.id);
    let found = found(desk, own, number, digest).await?;
    if let Some(current) = found.current {
        check_unchanged(&current, &fields)?;
        check_lineage(desk, &current, &fields).await?;
        let name = format!("{}@v{}", model.name, current.number);
        let before = value(&current.record);
        return match (&current.digest, content) {
            (Some(is), Some((_, digest))) if *is != digest => Err(other_content(current.number)),
            (None, Some(content)) => {
                let stored = versions::registered(desk, &current, None, content).await?;
                let after = value(&stored.record);
                Ok(Outcome {
                    before,
                    ..Outcome::new(name, &stored.id, Applied::Updated, after)
                })
            }
            _ => Ok(Outcome::unchanged(name, &current.id, before)),
        };
    }
    let mut stored = versions::made(desk, &model, &fields).await?;
    found.check(stored.number)?;
    if let Some(content) = content {
        stored = versions::registered(desk, &stored, None, content).await?;
    }
    let name = format!("{}@v{}", model.name, stored.number);
    let after = value(&stored.record);
    Ok(Outcome::new(name, &stored.id, Applied::Created, after))
}

fn other_content(number: i64) -> Problem {
    Problem::field(
        "digest",
        format!("is not that of v{number}, and versions do not change: add the next one"),
    )
}

/// What a version says of itself beside its content does not change.
fn check_unchanged(is: &ModelVersion, said: &VersionFields) -> Result<(), Problem> {
    let run = |said: &Option<String>, is: Option<String>| said.is_some() && *said != is;
    let training = is.training_run.map(|it| it.to_string());
    let conversion = is.conversion_run.map(|it| it.to_string());
    let differs = [
        ("note", !said.note.is_empty() && said.note != is.note),
        ("training_run", run(&said.training_run, training)),
        ("conversion_run", run(&said.conversion_run, conversion)),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        Some((field, _)) => Err(Problem::field(
            *field,
            format!(
                "is another than that of v{}, and versions do not change: add the next one",
                is.number
            ),
        )),
        None => Ok(()),
    }
}

/// The data that a document names is behind the version already.
async fn check_lineage(
    desk: &Desk,
    is: &Stored<ModelVersion>,
    said: &VersionFields,
) -> Result<(), Problem> {
    let named = versions::linked(desk, &said.datasets).await?;
    if named.is_empty() {
        return Ok(());
    }
    let mut tx = desk.store.begin().await?;
    let known = tx.lineage_datasets(is.id).await?;
    let is_known = |data| known.iter().any(|it| it.version == data);
    match named.iter().all(|(data, _)| is_known(*data)) {
        true => Ok(()),
        false => Err(Problem::field(
            "datasets",
            format!(
                "name data that v{} does not come from, and versions do not change by a document: `sluice model link` \
                 adds to the lineage of one that is not approved yet",
                is.number
            ),
        )),
    }
}

async fn dataset_version(
    desk: &Desk,
    dataset: &str,
    number: Option<i64>,
    said: Map<String, Value>,
) -> Result<Outcome, Problem> {
    let desk = &allowed(desk, Verb::EditCatalogue)?;
    let dataset = desk.refer::<Dataset>("dataset", dataset).await?;
    let fields: DatasetVersionFields = input::typed(Value::Object(said))?;
    let digest = match &fields.artifact {
        Some(text) => Some(
            desk.refer::<Artifact>("artifact", text)
                .await?
                .digest
                .clone(),
        ),
        None => fields.digest.clone(),
    };
    let own = Listing::<DatasetVersion>::new().is("dataset", &dataset.id);
    let found = found(desk, own, number, digest.as_ref()).await?;
    if let Some(current) = found.current {
        if digest.is_some_and(|digest| digest != current.digest) {
            return Err(other_content(current.number));
        }
        check_same_data(desk, &current, &fields).await?;
        let name = format!("{}@v{}", dataset.name, current.number);
        return Ok(Outcome::unchanged(
            name,
            &current.id,
            value(&current.record),
        ));
    }
    let stored = version_added(desk, &dataset, fields).await?;
    found.check(stored.number)?;
    let name = format!("{}@v{}", dataset.name, stored.number);
    let after = value(&stored.record);
    Ok(Outcome::new(name, &stored.id, Applied::Created, after))
}

/// What a dataset's version says of itself beside its content does not change either.
async fn check_same_data(
    desk: &Desk,
    is: &DatasetVersion,
    said: &DatasetVersionFields,
) -> Result<(), Problem> {
    let parent = match &said.parent {
        Some(text) => Some(refer_version(desk, "parent", text, Access::Use).await?.id),
        None => None,
    };
    let differs = [
        ("note", !said.note.is_empty() && said.note != is.note),
        (
            "row_count",
            said.row_count.is_some_and(|it| it != is.row_count),
        ),
        ("bytes", said.bytes.is_some_and(|it| it != is.bytes)),
        ("parent", parent.is_some() && parent != is.parent),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        Some((field, _)) => Err(Problem::field(
            *field,
            format!(
                "is another than that of v{}, and versions do not change: add the next one",
                is.number
            ),
        )),
        None => Ok(()),
    }
}

/// The version that a document means, if it is there.
struct Found<R: Record> {
    current: Option<Stored<R>>,
    number: Option<i64>,
}

impl<R: Record> Found<R> {
    /// Whether a version that was just added has the number that the document gives it.
    fn check(&self, next: i64) -> Result<(), Problem> {
        match self.number {
            Some(number) if number != next => Err(Problem::field(
                "number",
                format!("is v{number}; the next version is v{next}"),
            )),
            _ => Ok(()),
        }
    }
}

/// By its number, or else by its content.
async fn found<R: Record>(
    desk: &Desk,
    own: Listing<R>,
    number: Option<i64>,
    digest: Option<&String>,
) -> Result<Found<R>, Problem> {
    let listing = match (&number, digest) {
        (Some(number), _) => own.is("number", number),
        (None, Some(digest)) => own.is("digest", digest),
        (None, None) => {
            return Err(Problem::field(
                "number",
                "is missing: without it or its content (artifact or digest) nobody can tell whether it is there",
            ));
        }
    };
    let current = desk.store.list(&listing.limit(1)).await?.items.pop();
    Ok(Found { current, number })
}

/// Where the deployment does not serve that version by its settings of now, and none is on its way there.
pub(super) async fn work_order(desk: &Desk, said: Map<String, Value>) -> Result<Outcome, Problem> {
    let desk = &allowed(desk, Verb::CreateWorkOrder)?;
    let fields: OrderFields = input::typed(Value::Object(said))?;
    let deployment = &fields.deployment;
    let deployment = desk.refer::<Deployment>("deployment", deployment).await?;
    let candidate = version_for(desk, &deployment, &fields.version).await?;
    let name = format!("{} {}", deployment.endpoint, fields.version);
    let wanted = Settings::of(&deployment);
    if let Some(order) = standing(desk, &deployment, candidate, &wanted).await? {
        return Ok(Outcome::unchanged(
            name,
            &order.id,
            order_shown(&order, None),
        ));
    }
    let order = ordered(desk, &deployment, candidate, &fields.reason).await?;
    let after = order_shown(&order, Some("approval"));
    Ok(Outcome::new(name, &order.id, Applied::Ordered, after))
}

/// The same for a release.
pub(super) async fn release(desk: &Desk, said: Map<String, Value>) -> Result<Outcome, Problem> {
    let desk = &allowed(desk, Verb::CreateWorkOrder)?;
    let fields: ReleaseFields = input::typed(Value::Object(said))?;
    let deployment = &fields.deployment;
    let deployment = desk.refer::<Deployment>("deployment", deployment).await?;
    let candidate = releases::candidate(desk, &deployment, &fields).await?;
    let name = deployment.endpoint.clone();
    let mut wanted = Settings::of(&deployment);
    if !fields.upstream.is_empty() {
        wanted.move_to(&fields.upstream)?;
    }
    if let Some(order) = standing(desk, &deployment, candidate, &wanted).await? {
        return Ok(Outcome::unchanged(
            name,
            &order.id,
            order_shown(&order, None),
        ));
    }
    let (order, waits) = releases::begun(desk, &deployment, candidate, &fields).await?;
    let after = order_shown(&order, waits.as_deref());
    Ok(Outcome::new(name, &order.id, Applied::Ordered, after))
}

/// The order by which a deployment serves a version as is wanted, or is about to serve it.
async fn standing(
    desk: &Desk,
    deployment: &Stored<Deployment>,
    candidate: ModelVersionId,
    wanted: &Settings,
) -> Result<Option<Stored<WorkOrder>>, Problem> {
    if let Some(active) = desk.store.active_work_order(deployment.id).await? {
        return Ok(Some(active).filter(|it| it.candidate == candidate));
    }
    let Some(live) = deployment.live_work_order else {
        return Ok(None);
    };
    let order = desk.store.get::<WorkOrder>(live).await?;
    let same = deployment.live_version == Some(candidate)
        && Settings::read(&order.snapshot)?.serves_as(wanted);
    Ok(Some(order).filter(|_| same))
}

fn order_shown(order: &WorkOrder, waits_for: Option<&str>) -> Value {
    json!({
        "deployment": order.deployment,
        "version": order.candidate,
        "state": order.state,
        "reason": order.reason,
        "waits_for": waits_for,
    })
}

fn value(record: &impl serde::Serialize) -> Value {
    serde_json::to_value(record).unwrap_or(Value::Null)
}
