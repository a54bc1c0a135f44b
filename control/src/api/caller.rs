//! Who asks: the owner of a key in the store, a key of the gateway's file with a role, or, where
//! authentication is off, the local administrator. All three are principals in the store, so that what they do
//! has an owner and a name in the audit log.

use http::request::Parts;
use sluice_gateway::RequestContext;
use sluice_gateway::auth::presented;

use super::problem::Problem;
use crate::control::Control;
use crate::domain::record::{Department, Principal, Scope};
use crate::domain::roles::{Role, Verb};
use crate::domain::secrecy::Secrecy;
use crate::id::{DepartmentId, PrincipalId};
use crate::store::{Actor, Listing, Record, Store, StoreError, Stored};
use crate::time::Timestamp;

/// The department and the person of an installation without authentication.
const LOCAL: &str = "local";

/// A principal with what this request may use of its rights.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub principal: PrincipalId,
    pub name: String,
    pub role: Role,
    pub department: DepartmentId,
    pub clearance: Secrecy,
    /// `None` for keys that are not limited to scopes: those of the gateway's file.
    pub scopes: Option<Vec<Scope>>,
    /// The administrator of a process without authentication: anybody, and so nobody in particular.
    pub anybody: bool,
}

impl Caller {
    fn of(principal: &Stored<Principal>, scopes: Option<Vec<Scope>>) -> Self {
        Self {
            principal: principal.id,
            name: principal.name.clone(),
            role: principal.role,
            department: principal.department,
            clearance: principal.clearance,
            scopes,
            anybody: false,
        }
    }

    /// Who is written down as the author, whom the gate keeps from approving his own work. Without authentication
    /// there is no telling one person from another.
    pub(super) fn author(&self) -> Option<PrincipalId> {
        (!self.anybody).then_some(self.principal)
    }

    pub(super) fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// The department that lists are restricted to; an admin sees all.
    pub(super) fn scope(&self) -> Option<DepartmentId> {
        (!self.is_admin()).then_some(self.department)
    }

    /// Whether the role has the right and the key the scope.
    pub(super) fn check(&self, verb: Verb, writes: bool) -> Result<(), Problem> {
        crate::domain::roles::authorize(self.role, self.department, verb, None)?;
        let needed = if writes { Scope::Write } else { Scope::Read };
        match &self.scopes {
            Some(scopes) if !scopes.contains(&needed) => Err(Problem::forbidden(format!(
                "the key does not have the scope {needed}"
            ))),
            _ => Ok(()),
        }
    }
}

/// The caller of a request.
pub(super) async fn identify(
    control: &Control,
    store: &Store,
    parts: &Parts,
) -> Result<Caller, Problem> {
    if let Some(key) = presented(&parts.headers).and_then(|key| std::str::from_utf8(key).ok())
        && let Some(owner) = store.key_owner(key, Timestamp::now()).await?
    {
        let scopes = owner.key.scopes.0.clone();
        return Ok(Caller::of(&owner.principal, Some(scopes)));
    }
    let of_gateway = parts
        .extensions
        .get::<RequestContext>()
        .and_then(|context| context.principal.clone());
    if let Some(principal) = of_gateway {
        return of_key_file(store, &principal).await;
    }
    if control.settings().open {
        let local = ensure(store, LOCAL, Role::Admin).await?;
        return Ok(Caller {
            anybody: true,
            ..Caller::of(&local, None)
        });
    }
    Err(Problem::new(
        http::StatusCode::UNAUTHORIZED,
        "unauthorized",
        "send an API key as `Authorization: Bearer KEY`; this one is missing, unknown, expired or withdrawn",
    ))
}

async fn of_key_file(
    store: &Store,
    principal: &sluice_gateway::Principal,
) -> Result<Caller, Problem> {
    let Some(word) = &principal.role else {
        return Err(Problem::forbidden(format!(
            "the key \"{}\" has no role for the control plane; its entry in the keys file may say role = \"viewer\"",
            principal.name
        )));
    };
    let role: Role = word
        .parse()
        .map_err(|error| Problem::forbidden(format!("the keys file: {error}")))?;
    let person = ensure(store, &principal.name, role).await?;
    if person.disabled {
        return Err(Problem::forbidden("this principal is disabled"));
    }
    let mut caller = Caller::of(&person, None);
    // The operator's file says what its key may, whatever the record says.
    caller.role = role;
    Ok(caller)
}

/// The principal of this name, made in the department `local` when it is seen for the first time.
async fn ensure(store: &Store, name: &str, role: Role) -> Result<Stored<Principal>, StoreError> {
    if let Some(found) = named(store, name).await? {
        return Ok(found);
    }
    let actor = Actor::system("keys file");
    let department = match named::<Department>(store, LOCAL).await? {
        Some(found) => found,
        None => {
            let made = Department {
                name: LOCAL.to_owned(),
                description: "Made with the installation".to_owned(),
            };
            made_or_found(store, &actor, made, LOCAL).await?
        }
    };
    let clearance = match role {
        Role::Admin => Secrecy::Secret,
        _ => Secrecy::Internal,
    };
    let person = Principal {
        department: department.id,
        name: name.to_owned(),
        email: None,
        role,
        clearance,
        disabled: false,
    };
    made_or_found(store, &actor, person, name).await
}

async fn named<R: Record>(store: &Store, name: &str) -> Result<Option<Stored<R>>, StoreError> {
    let listing = Listing::<R>::new().is("name", &name.to_owned()).limit(1);
    Ok(store.list(&listing).await?.items.pop())
}

/// Two first requests at once both make it; the slower finds the other's.
async fn made_or_found<R: Record>(
    store: &Store,
    actor: &Actor,
    record: R,
    name: &str,
) -> Result<Stored<R>, StoreError> {
    match store.create(actor, record).await {
        Err(conflict @ StoreError::Conflict { .. }) => named(store, name).await?.ok_or(conflict),
        other => other,
    }
}
