//! Who may take back while the database does not answer: by the keys and deployments that were published last, and by nothing
//! beyond them. Scope, role, department and clearance are asked as when the database answers.

use http::StatusCode;
use http::request::Parts;
use sluice_gateway::RequestContext;

use super::problem::Problem;
use crate::control::Control;
use crate::deploy::Caller;
use crate::domain::record::Scope;
use crate::domain::roles::{Role, Verb};
use crate::domain::secrecy::Secrecy;
use crate::id::{DepartmentId, DeploymentId};
use crate::publish::{PublishedKey, Snapshot, Standing};
use crate::store::{Actor, DeploymentAudience};

/// What is known of somebody.
struct Known {
    actor: Actor,
    role: Role,
    clearance: Secrecy,
    /// `None` for one of no department that is published.
    department: Option<DepartmentId>,
    may_write: bool,
}

/// Who asks, if he may take this deployment back.
pub(super) fn caller(
    control: &Control,
    published: &Snapshot,
    parts: &Parts,
    deployment: DeploymentId,
    not_there: impl Fn() -> Problem,
) -> Result<Caller, Problem> {
    let context = parts.extensions.get::<RequestContext>();
    let principal = context.and_then(|context| context.principal.as_ref());
    let Some(principal) = principal else {
        if control.settings().open {
            return Ok(Caller {
                actor: Actor::system("local"),
                role: Role::Admin,
                department: None,
            });
        }
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "send an API key as `Authorization: Bearer KEY`",
        ));
    };
    let refused = || Problem::forbidden("this key may not operate releases");
    let known = match &principal.owner {
        Some(owner) => {
            let is_it = |key: &&PublishedKey| *key.key.to_string() == *owner.key;
            of_records(published.keys.iter().find(is_it).ok_or_else(refused)?)
                .ok_or_else(refused)?
        }
        None => of_file(control, published, principal).ok_or_else(refused)?,
    };
    if !known.may_write || !known.role.may(Verb::OperateRelease) {
        return Err(refused());
    }
    let audiences = &published.audiences;
    let audience = audiences.iter().find(|it| it.deployment == deployment);
    // What an earlier binary published says nothing of it: then nobody may but an administrator cleared for all.
    let clearance = audience.map_or(Secrecy::Secret, |it| it.clearance);
    let owner = audience.map(|it| it.department);
    if known.role != Role::Admin && (owner.is_none() || owner != known.department) {
        return Err(not_there());
    }
    if !clearance.within(known.clearance) {
        return Err(Problem::forbidden(format!(
            "deployment: {clearance} is beyond your clearance, {}",
            known.clearance
        )));
    }
    Ok(Caller {
        actor: known.actor,
        role: known.role,
        department: known.department.or(owner),
    })
}

/// What was published of a key; `None` if it was by an earlier binary, which did not say enough.
fn of_records(key: &PublishedKey) -> Option<Known> {
    Some(Known {
        actor: Actor::person(key.principal, key.name.clone()),
        role: key.role?,
        clearance: key.clearance,
        department: Some(key.department),
        may_write: key.scopes.contains(&Scope::Write),
    })
}

/// A key of the keys file, which is at hand whatever the database does.
fn of_file(
    control: &Control,
    published: &Snapshot,
    principal: &sluice_gateway::Principal,
) -> Option<Known> {
    let standing = Standing::in_file(&control.file_key(&principal.key_id)?)?;
    let mut actor = Actor::system("keys file");
    actor.name = principal.name.to_string();
    let named = principal.rights.department.as_deref();
    let is_named = |it: &&DeploymentAudience| Some(it.department_name.as_str()) == named;
    let department = published.audiences.iter().find(is_named);
    Some(Known {
        actor,
        role: standing.role,
        clearance: standing.clearance,
        department: department.map(|it| it.department),
        may_write: true,
    })
}

#[cfg(test)]
mod tests;
