//! Who may give access to what.
//!
//! The owner of a dataset or a model, whose right is `manage_grants`, and of deployments the operators of their department,
//! may give it. A deployment is given to people and departments everywhere; what it answers is not the data behind it. A
//! grant lifts nobody over a clearance.

use super::people::GrantFields;
use crate::api::call::Desk;
use crate::api::caller::Caller;
use crate::api::problem::Problem;
use crate::api::resource::Resource;
use crate::domain::record::{Access, Dataset, Deployment, Grant, Model};
use crate::domain::roles::Verb;
use crate::id::{DatasetId, Id};
use crate::store::{Column as _, Listing};

/// Only grants on what is the caller's department's; without the right to manage grants, on what he may give himself, and
/// those that he was given.
pub(super) fn seen_by(listing: Listing<Grant>, caller: &Caller) -> Listing<Grant> {
    let listing = match caller.scope() {
        Some(department) => listing
            .where_clause(
                "object_kind <> 'model' OR object_id IN (SELECT m.id FROM models m WHERE m.department = ?)"
                    .into(),
                vec![department.to_value()],
            )
            .where_clause(
                "object_kind <> 'deployment' OR object_id IN (SELECT d.id FROM deployments d WHERE d.department = ?)"
                    .into(),
                vec![department.to_value()],
            ),
        None => listing,
    };
    if caller.role.may(Verb::ManageGrants) {
        return listing;
    }
    let deployments = match caller.role.may(Verb::EditDeployment) {
        true => "object_kind = 'deployment'",
        false => "1 = 0",
    };
    let own = caller.principal.to_value();
    listing.where_clause(
        format!(
            "principal = ? OR object_id IN (SELECT d.id FROM datasets d WHERE d.owner = ?) \
             OR object_id IN (SELECT m.id FROM models m WHERE m.owner = ?) OR {deployments}"
        ),
        vec![own.clone(), own.clone(), own],
    )
}

/// The kind and the id of what a grant is on.
pub(super) async fn object(
    desk: &Desk,
    fields: &GrantFields,
) -> Result<(&'static str, String), Problem> {
    match (&fields.dataset, &fields.model, &fields.deployment) {
        (Some(dataset), None, None) => {
            let dataset = granted_dataset(desk, dataset).await?;
            Ok(("dataset", dataset.to_string()))
        }
        (None, Some(model), None) => {
            let model = desk.refer::<Model>("model", model).await?;
            Ok(("model", model.id.to_string()))
        }
        (None, None, Some(deployment)) => {
            let deployment = desk.refer::<Deployment>("deployment", deployment).await?;
            Ok(("deployment", deployment.id.to_string()))
        }
        _ => Err(Problem::field(
            "dataset",
            "name either a dataset, a model or a deployment",
        )),
    }
}

/// Whether the caller may give, change and take back access to an object that he knows of.
///
/// # Errors
/// 403.
pub(super) async fn may_give(desk: &Desk, kind: &str, id: &str) -> Result<(), Problem> {
    let caller = &desk.caller;
    let owner = match kind {
        "dataset" => desk.find::<Dataset>(id).await.ok().and_then(|it| it.owner),
        "model" => desk.find::<Model>(id).await.ok().and_then(|it| it.owner),
        _ => {
            // Its clearance, too: what one may not touch one does not give.
            desk.find::<Deployment>(id).await?;
            None
        }
    };
    let by_role = caller.role.may(Verb::ManageGrants)
        || kind == "deployment" && caller.role.may(Verb::EditDeployment);
    if by_role || owner == Some(caller.principal) {
        return Ok(());
    }
    Err(Problem::forbidden(format!(
        "the role {} may not give access to a {kind} of somebody else; its owner may, or an approver",
        caller.role
    )))
}

/// A deployment is used or not.
pub(super) fn check_access(kind: &str, access: Access) -> Result<(), Problem> {
    match (kind, access) {
        ("deployment", Access::Read | Access::Edit) => {
            Err(Problem::field("access", "of a deployment is `use`"))
        }
        _ => Ok(()),
    }
}

/// Whom a grant is for: of a deployment, of other departments too, by id or exact name.
pub(super) async fn to<R: Resource>(
    desk: &Desk,
    kind: &str,
    field: &str,
    text: Option<&str>,
) -> Result<Option<R::Id>, Problem> {
    let Some(text) = text else { return Ok(None) };
    if kind != "deployment" {
        return desk.refer_if::<R>(field, Some(text)).await;
    }
    let listing = Listing::<R>::new().limit(1);
    let listing = match text.parse::<R::Id>() {
        Ok(id) => listing.is("id", &id),
        Err(_) => listing.is(R::NAME, &text.to_owned()),
    };
    let found = desk.store.list(&listing).await?.items.pop();
    let found = found.ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        Problem::field(field, format!("there is no {} {shown}", R::Id::KIND))
    })?;
    Ok(Some(found.id))
}

/// A dataset that the caller may give access to: one that it sees, or, for an admin with the clearance, any by its id, so that a
/// dataset whose owner is gone is not lost.
async fn granted_dataset(desk: &Desk, text: &str) -> Result<DatasetId, Problem> {
    let found = desk.refer::<Dataset>("dataset", text).await;
    if let (Err(problem), true, Ok(id)) =
        (&found, desk.caller.is_admin(), text.parse::<DatasetId>())
    {
        let dataset = desk.store.get::<Dataset>(id).await;
        return match dataset {
            Ok(dataset) if dataset.secrecy.within(desk.caller.clearance) => Ok(dataset.id),
            _ => Err(problem.clone()),
        };
    }
    let dataset = found?;
    if !dataset.secrecy.within(desk.caller.clearance) {
        return Err(Problem::not_found(DatasetId::KIND, text));
    }
    Ok(dataset.id)
}
