//! Datasets and their versions. Who lacks clearance or grant does not learn that there is one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::content_rows::{Content, content};
use super::models::home;
use super::secrecy::{check_secrecy, require_access};
use crate::api::call::{Answer, Body, Call, Desk, Items, NoQuery, Paging, limit_of};
use crate::api::caller::Caller;
use crate::api::input::{check_name, check_object, check_text};
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get, post};
use crate::api::resource::{LookedUp, Resource, Summaries, filter, serve};
use crate::domain::record::{Access, Dataset, DatasetVersion, Department, Modality, Principal};
use crate::domain::roles::Verb;
use crate::domain::secrecy::Secrecy;
use crate::id::{DatasetVersionId, DepartmentId, Id, PrincipalId};
use crate::store::{Json, Listing, Stored, Tx, Viewer};

pub(crate) fn serve_all(api: &mut Registry) {
    serve::<Dataset>(
        api,
        &Summaries {
            list: "List the datasets that the caller may see",
            show: "Show a dataset",
            create: "Register a dataset; its owner sees it, others by grant",
            update: "Change a dataset",
            delete: "Put a dataset away",
        },
    );
    api.route(
        get(
            "/datasets/{id}/versions",
            Verb::ViewGranted,
            "List a dataset's versions",
        ),
        versions,
    );
    api.route(
        post(
            "/datasets/{id}/versions",
            Verb::EditCatalogue,
            "Register the next version of a dataset",
        ),
        add_version,
    );
    api.route(
        get(
            "/datasets/{id}/versions/{version}",
            Verb::ViewGranted,
            "Show a version of a dataset: by number, v2, or id",
        ),
        version,
    );
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatasetFields {
    /// What it is called: 1 to 128 letters, digits, dots, hyphens and underscores.
    #[schemars(length(min = 1, max = 128), example = &"tickets")]
    pub name: String,
    /// For people to read.
    #[serde(default)]
    #[schemars(example = &"Tickets of the first line, without names")]
    pub description: String,
    /// Whose it is, by id or name; the caller's own department if absent.
    #[serde(default)]
    #[schemars(example = &"it")]
    pub department: Option<String>,
    /// Who decides about it, by id or name; the caller if absent.
    #[serde(default)]
    #[schemars(example = &"ada")]
    pub owner: Option<String>,
    /// Where it came from, for people to read; nothing is fetched from there.
    #[serde(default)]
    #[schemars(example = &"hdfs://namenode:8020/exports/tickets")]
    pub source: String,
    /// What the rows are.
    #[serde(default = "text")]
    #[schemars(example = &"image")]
    pub modality: Modality,
    /// Who may see it, beside a grant: those with this clearance. What is made of it is as secret.
    #[serde(default = "internal")]
    #[schemars(example = &"confidential")]
    pub secrecy: Secrecy,
}

fn text() -> Modality {
    Modality::Text
}

fn internal() -> Secrecy {
    Secrecy::Internal
}

filter!(DatasetFilter {
    /// The whole name.
    name: String,
    /// Those of this kind.
    modality: Modality,
    /// Those that are as secret.
    secrecy: Secrecy,
    /// Id or name.
    department: String,
});

impl Resource for Dataset {
    type Fields = DatasetFields;
    type Filter = DatasetFilter;
    const COLLECTION: &'static str = "/datasets";
    const ITEM: &'static str = "/datasets/{id}";
    const NAME: &'static str = "name";
    const EDIT: Verb = Verb::EditCatalogue;
    const VIEW: Verb = Verb::ViewGranted;

    /// By clearance and grant; a grant reaches across departments.
    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        listing.where_clause(
            format!("id IN ({})", Viewer::DATASETS),
            caller.viewer().values(),
        )
    }

    async fn select(
        desk: &Desk,
        filter: &DatasetFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        let department = desk
            .refer_if::<Department>("department", filter.department.as_deref())
            .await?;
        Ok(listing
            .is_if("name", filter.name.as_ref())
            .is_if("modality", filter.modality.as_ref())
            .is_if("secrecy", filter.secrecy.as_ref())
            .is_if("department", department.as_ref()))
    }

    fn fields(&self) -> DatasetFields {
        DatasetFields {
            name: self.name.clone(),
            description: self.description.clone(),
            department: Some(self.department.to_string()),
            owner: self.owner.map(|id| id.to_string()),
            source: self.source.clone(),
            modality: self.modality,
            secrecy: self.secrecy,
        }
    }

    async fn build(
        desk: &Desk,
        fields: &DatasetFields,
        current: Option<&Self>,
    ) -> Result<Self, Problem> {
        check_name("name", &fields.name)?;
        check_text("description", &fields.description)?;
        check_text("source", &fields.source)?;
        if !fields.secrecy.within(desk.caller.clearance) {
            return Err(Problem::field("secrecy", "is beyond your own clearance"));
        }
        let owner = owner_of(desk, fields, current).await?;
        let department = match current {
            Some(current) => department_of(desk, fields, current).await?,
            None => home(desk, fields.department.as_deref()).await?,
        };
        Ok(Self {
            department,
            owner: owner.or_else(|| current.is_none().then_some(desk.caller.principal)),
            name: fields.name.clone(),
            description: fields.description.clone(),
            source: fields.source.clone(),
            modality: fields.modality,
            secrecy: fields.secrecy,
        })
    }

    /// `read` reads, `use` uses, `edit` edits. Owner, secrecy and department are the owner's, or an administrator's.
    async fn changeable(
        desk: &Desk,
        stored: &Stored<Self>,
        fields: &DatasetFields,
    ) -> Result<(), Problem> {
        require_access(desk, stored.id, Access::Edit).await?;
        let department = department_of(desk, fields, stored).await?;
        let moves = department != stored.department;
        let owns = stored.owner == Some(desk.caller.principal) || desk.caller.is_admin();
        let next = owner_of(desk, fields, Some(&stored.record)).await?;
        let kept = [
            ("owner", next == stored.owner),
            ("secrecy", fields.secrecy == stored.secrecy),
            ("department", !moves),
        ];
        if let Some((field, _)) = kept.iter().find(|(_, kept)| !kept && !owns) {
            return Err(Problem::forbidden(format!(
                "{field}: is changed by the dataset's owner, or by an administrator; a grant does not reach so far"
            )));
        }
        if moves && !desk.caller.is_admin() {
            desk.allow(Some(department))?;
        }
        if fields.secrecy < stored.secrecy {
            let mut tx = desk.store.begin().await?;
            let least = tx.least_secrecy(stored.id).await?;
            check_secrecy("secrecy", fields.secrecy, least)?;
        }
        Ok(())
    }

    /// What was made from a dataset that has become more secret is as secret as it.
    async fn written(
        desk: &Desk,
        tx: &mut Tx,
        _: &DatasetFields,
        stored: &Stored<Self>,
        _: &LookedUp,
    ) -> Result<(), Problem> {
        let actor = desk
            .actor()
            .because(format!("it was made from {}", stored.name));
        for derived in tx.derived_below(stored.id, stored.secrecy).await? {
            tx.update::<Self>(&actor, derived, None, |it| it.secrecy = stored.secrecy)
                .await?;
        }
        Ok(())
    }

    async fn removable(desk: &Desk, stored: &Stored<Self>) -> Result<(), Problem> {
        if stored.owner == Some(desk.caller.principal) || desk.caller.is_admin() {
            return Ok(());
        }
        Err(Problem::forbidden(
            "a dataset is put away by its owner, or by an administrator",
        ))
    }
}

/// The owner that the fields name. Who edits by a grant from another department does not know the owner, who stays.
async fn owner_of(
    desk: &Desk,
    fields: &DatasetFields,
    current: Option<&Dataset>,
) -> Result<Option<PrincipalId>, Problem> {
    let kept = current.and_then(|it| it.owner);
    desk.refer_or_keep::<Principal>("owner", fields.owner.as_deref(), kept)
        .await
}

/// The same for the department.
async fn department_of(
    desk: &Desk,
    fields: &DatasetFields,
    current: &Dataset,
) -> Result<DepartmentId, Problem> {
    match fields.department.as_deref() {
        Some(named) if named != current.department.to_string() => {
            Ok(desk.refer::<Department>("department", named).await?.id)
        }
        _ => Ok(current.department),
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatasetVersionFields {
    /// Its content, an artifact's id or digest; digest, bytes and rows are then what it holds.
    #[serde(default)]
    #[schemars(example = &"art_01kbeqw3c8f0v5m2n4p6r8t0ab")]
    pub artifact: Option<String>,
    /// For content that lies elsewhere: `sha256:` and 64 hexadecimal digits.
    #[serde(default)]
    #[schemars(example = &"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub digest: Option<String>,
    /// Rows. Counted in .jsonl, .csv, .tsv and .parquet files that lie here, and then leave it out: another number is refused.
    #[serde(default)]
    #[schemars(range(min = 0), example = 1200)]
    pub row_count: Option<i64>,
    /// Bytes; those of the artifact where there is one.
    #[serde(default)]
    #[schemars(range(min = 0), example = 483_200)]
    pub bytes: Option<i64>,
    /// A JSON Schema of one row; JSON lines that lie here are held against the types of its `properties` and `required`.
    #[serde(default = "object")]
    #[schemars(with = "Map<String, Value>", example = json!({ "properties": { "text": { "type": "string" } }, "required": ["text"] }))]
    pub schema: Value,
    /// Numbers about the rows, for people to read.
    #[serde(default = "object")]
    #[schemars(with = "Map<String, Value>", example = json!({ "languages": { "de": 900, "en": 300 } }))]
    pub statistics: Value,
    /// The version that it was made from: `name@v1`, or an id.
    #[serde(default)]
    #[schemars(example = &"tickets@v1")]
    pub parent: Option<String>,
    /// For people to read.
    #[serde(default)]
    #[schemars(example = &"without duplicates")]
    pub note: String,
}

fn object() -> Value {
    json!({})
}

/// `sha256:` and 64 hexadecimal digits.
pub(super) fn check_digest(field: &str, digest: &str) -> Result<(), Problem> {
    let fine = digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    });
    if fine {
        Ok(())
    } else {
        Err(Problem::field(
            field,
            "should be sha256: and 64 lower-case hexadecimal digits",
        ))
    }
}

/// A dataset version that the caller may see: by id, or `name@v2`.
pub(super) async fn refer_version(
    desk: &Desk,
    field: &str,
    text: &str,
    needed: Access,
) -> Result<Stored<DatasetVersion>, Problem> {
    let missing = || {
        let shown: String = text.chars().take(64).collect();
        Problem::field(
            field,
            format!("there is no dataset version {shown}; name one as dataset@v1 or by its id"),
        )
    };
    let restricted = Listing::<DatasetVersion>::new().limit(1).where_clause(
        format!("dataset IN ({})", Viewer::DATASETS),
        desk.caller.viewer().values(),
    );
    let listing = match (text.parse::<DatasetVersionId>(), text.split_once('@')) {
        (Ok(id), _) => restricted.is("id", &id),
        (Err(_), Some((name, number))) => {
            let dataset = desk.refer::<Dataset>(field, name).await?;
            let number = number_of(number).ok_or_else(missing)?;
            restricted.is("dataset", &dataset.id).is("number", &number)
        }
        (Err(_), None) => return Err(missing()),
    };
    let version = desk
        .store
        .list(&listing)
        .await?
        .items
        .pop()
        .ok_or_else(missing)?;
    let viewer = desk.caller.viewer();
    let access = desk.store.dataset_access(viewer, version.dataset).await?;
    match access {
        Some(access) if access >= needed => Ok(version),
        Some(access) => Err(Problem::forbidden(format!(
            "{field}: your access to the dataset is {access}; this takes {needed}"
        ))),
        None => Err(missing()),
    }
}

/// `2` or `v2`.
pub(super) fn number_of(text: &str) -> Option<i64> {
    text.strip_prefix('v').unwrap_or(text).parse().ok()
}

async fn versions(call: Call<Paging>) -> Result<Answer<Items<Stored<DatasetVersion>>>, Problem> {
    let dataset = call.desk.find::<Dataset>(call.segment("id")).await?;
    let listing = Listing::<DatasetVersion>::new()
        .is("dataset", &dataset.id)
        .limit(limit_of(call.query.limit))
        .after(call.query.cursor);
    Ok(Answer::of(call.desk.store.list(&listing).await?.into()))
}

async fn version(call: Call) -> Result<Answer<Stored<DatasetVersion>>, Problem> {
    let dataset = call.desk.find::<Dataset>(call.segment("id")).await?;
    let text = call.segment("version");
    let listing = Listing::<DatasetVersion>::new().is("dataset", &dataset.id);
    let listing = match (text.parse::<DatasetVersionId>(), number_of(text)) {
        (Ok(id), _) => listing.is("id", &id),
        (Err(_), Some(number)) => listing.is("number", &number),
        (Err(_), None) => return Err(Problem::not_found(DatasetVersionId::KIND, text)),
    };
    let found = call.desk.store.list(&listing.limit(1)).await?.items.pop();
    found
        .map(Answer::record)
        .ok_or_else(|| Problem::not_found(DatasetVersionId::KIND, text))
}

async fn add_version(
    call: Call<NoQuery, Body<DatasetVersionFields>>,
) -> Result<Answer<Stored<DatasetVersion>>, Problem> {
    let dataset = call.desk.find::<Dataset>(&call.path["id"]).await?;
    let stored = version_added(&call.desk, &dataset, call.body.0).await?;
    let place = format!("/datasets/{}/versions/{}", dataset.id, stored.number);
    Ok(Answer::record(stored).at(place))
}

/// The next version of a dataset.
pub(super) async fn version_added(
    desk: &Desk,
    dataset: &Stored<Dataset>,
    fields: DatasetVersionFields,
) -> Result<Stored<DatasetVersion>, Problem> {
    require_access(desk, dataset.id, Access::Edit).await?;
    check_object("schema", &fields.schema)?;
    check_object("statistics", &fields.statistics)?;
    check_text("note", &fields.note)?;
    let Content {
        artifact,
        digest,
        bytes,
        rows,
    } = content(desk, &fields).await?;
    let parent = match &fields.parent {
        Some(text) => Some(refer_version(desk, "parent", text, Access::Use).await?.id),
        None => None,
    };
    let version = DatasetVersion {
        dataset: dataset.id,
        number: 0,
        author: Some(desk.caller.principal),
        bytes,
        artifact: artifact.as_ref().map(|artifact| artifact.id),
        digest,
        row_count: rows,
        schema_json: Json(fields.schema),
        statistics: Json(fields.statistics),
        parent,
        note: fields.note,
    };
    let mut tx = desk.store.begin().await?;
    if let Some(parent) = parent {
        check_secrecy("parent", dataset.secrecy, tx.secrecy_of_data(parent).await?)?;
    }
    let content = tx.secrecy_of_content(&version.digest).await?;
    let field = artifact.as_ref().map_or("digest", |_| "artifact");
    check_secrecy(field, dataset.secrecy, content)?;
    let stored = tx.add_dataset_version(&desk.actor(), version).await?;
    if let Some(artifact) = artifact {
        tx.hold_artifact(artifact.id, stored.id).await?;
    }
    tx.commit().await?;
    Ok(stored)
}
