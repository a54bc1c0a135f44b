//! Rights over content: what a grant on a dataset reaches, who may name content by its digest, and what stays hidden of an
//! evaluation. Secrecy and the right of use hang on the digest, wherever it is named.

use crate::api::call::Desk;
use crate::api::problem::Problem;
use crate::api::resource::Resource as _;
use crate::domain::record::{Access, Artifact, Dataset, DatasetVersion, ModelVersion, Principal};
use crate::domain::secrecy::Secrecy;
use crate::id::{ArtifactId, DatasetId, DatasetVersionId, Id as _};
use crate::store::{Column as _, Listing, MAX_LIMIT, Viewer};

/// Refuses who may see the dataset and may not do this with it.
pub(super) async fn require_access(
    desk: &Desk,
    dataset: DatasetId,
    needed: Access,
) -> Result<(), Problem> {
    let viewer = desk.caller.viewer();
    match desk.store.dataset_access(viewer, dataset).await? {
        Some(access) if access >= needed => Ok(()),
        Some(access) => Err(Problem::forbidden(format!(
            "your access to the dataset is {access}; this takes {needed}, which its owner, an approver or an administrator \
             can grant"
        ))),
        None => Err(Problem::not_found(DatasetId::KIND, &dataset.to_string())),
    }
}

/// Secrecy never falls by derivation.
pub(super) fn check_secrecy(
    field: &str,
    secrecy: Secrecy,
    least: Option<Secrecy>,
) -> Result<(), Problem> {
    match least {
        Some(least) if secrecy < least => Err(Problem::field(
            field,
            format!("is {least}, and what is made of it is so too; the dataset is {secrecy}"),
        )),
        _ => Ok(()),
    }
}

/// Whether the caller may name content by its digest: what nobody knows here, and what the caller could use by another name.
pub(super) async fn check_content(desk: &Desk, field: &str, digest: &str) -> Result<(), Problem> {
    let named = digest.to_owned();
    let data = Listing::<DatasetVersion>::new().is("digest", &named);
    let data = desk.store.list(&data.limit(MAX_LIMIT)).await?.items;
    let viewer = desk.caller.viewer();
    for version in &data {
        let access = desk.store.dataset_access(viewer, version.dataset).await?;
        if access.is_some_and(|it| it >= Access::Use) {
            return Ok(());
        }
    }
    let models = Listing::<ModelVersion>::new().is("digest", &named).limit(1);
    let known = desk.store.list(&models).await?.items;
    if !known.is_empty() {
        let own = match desk.caller.scope() {
            Some(department) => models.where_clause(
                "model IN (SELECT m.id FROM models m WHERE m.department = ?)".into(),
                vec![department.to_value()],
            ),
            None => models,
        };
        if !desk.store.list(&own).await?.items.is_empty() {
            return Ok(());
        }
    }
    let artifacts = Listing::<Artifact>::new().is("digest", &named).limit(1);
    let stored = desk.store.list(&artifacts).await?.items;
    let visible = Artifact::restrict(artifacts, &desk.caller);
    if data.is_empty() && !desk.store.list(&visible).await?.items.is_empty() {
        return Ok(());
    }
    if data.is_empty() && known.is_empty() && stored.is_empty() {
        return Ok(());
    }
    Err(Problem::forbidden(format!(
        "{field}: this content is known here, and you have no right to use it; push it yourself, or ask its owner for a grant"
    )))
}

/// Whether the caller may use an artifact that it sees: one that it sees by a grant to read a dataset is for reading.
pub(super) async fn check_artifact(
    desk: &Desk,
    field: &str,
    artifact: ArtifactId,
) -> Result<(), Problem> {
    let listing = Listing::<DatasetVersion>::new()
        .is("artifact", &artifact)
        .limit(MAX_LIMIT);
    let viewer = desk.caller.viewer();
    let mut best = None;
    for version in desk.store.list(&listing).await?.items {
        best = best.max(desk.store.dataset_access(viewer, version.dataset).await?);
    }
    match best {
        Some(Access::Read) => Err(Problem::forbidden(format!(
            "{field}: your access to the dataset that holds it is read; this takes use"
        ))),
        Some(Access::Use | Access::Edit) | None => Ok(()),
    }
}

/// Why the caller does not see what rows of a test set were asked and answered, and who can change that; `None` where it
/// does. Verdicts and numbers are no rows.
pub(super) async fn hidden(
    desk: &Desk,
    test_set: DatasetVersionId,
) -> Result<Option<String>, Problem> {
    let seen = Listing::<DatasetVersion>::new()
        .is("id", &test_set)
        .limit(1)
        .where_clause(
            format!("dataset IN ({})", Viewer::DATASETS),
            desk.caller.viewer().values(),
        );
    if !desk.store.list(&seen).await?.items.is_empty() {
        return Ok(None);
    }
    let version = desk.store.get::<DatasetVersion>(test_set).await?;
    let dataset = desk.store.get::<Dataset>(version.dataset).await?;
    if !dataset.secrecy.within(desk.caller.clearance) {
        return Ok(Some("hidden: its test set is beyond your clearance".into()));
    }
    let owner = match dataset.owner {
        Some(owner) => format!(
            "{}, who owns it,",
            desk.store.get::<Principal>(owner).await?.name
        ),
        None => "an approver who sees it".into(),
    };
    Ok(Some(format!(
        "hidden: no grant on {name}; {owner} or an administrator can give one (sluice grant create dataset={name} \
         principal={who} access=read)",
        name = dataset.name,
        who = desk.caller.name,
    )))
}
