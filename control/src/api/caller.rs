//! Who asks: the owner of a key in the store, a key of the gateway's file with a role, or, where
//! authentication is off, the local administrator. All three are principals in the store, so that what they do
//! has an owner and a name in the audit log.

use http::request::Parts;
use sluice_gateway::RequestContext;
use sluice_gateway::auth::presented;

use super::file_people::{LOCAL, Wanted, ensure};
use super::problem::Problem;
use crate::control::Control;
use crate::domain::record::{Principal, Scope};
use crate::domain::roles::{Role, Verb};
use crate::domain::secrecy::Secrecy;
use crate::id::{DepartmentId, PrincipalId};
use crate::publish::{Standing, both, secrecy};
use crate::store::{KeyOwner, Store, Stored};
use crate::time::Timestamp;

/// A principal with what this request may use of its rights.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub principal: PrincipalId,
    pub name: String,
    pub role: Role,
    pub department: DepartmentId,
    pub clearance: Secrecy,
    /// What its key is limited to.
    pub key: KeyBounds,
    /// The administrator of a process without authentication: anybody, and so nobody in particular.
    pub anybody: bool,
}

/// How far a key reaches, of what its principal may. What it makes reaches no further.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyBounds {
    /// `None` for keys that are not limited to scopes: those of the gateway's file.
    pub scopes: Option<Vec<Scope>>,
    /// Deployments by endpoint; `None` is all.
    pub models: Option<Vec<String>>,
    pub expires_at: Option<Timestamp>,
    /// What stands in the records for it as a maker; `None` where there is no key.
    pub line: Option<String>,
}

impl Caller {
    fn of(principal: &Stored<Principal>, key: KeyBounds) -> Self {
        Self {
            principal: principal.id,
            name: principal.name.clone(),
            role: principal.role,
            department: principal.department,
            clearance: principal.clearance,
            key,
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

    /// Whether something of this secrecy is within the caller's clearance, to be touched or given.
    ///
    /// # Errors
    /// 403, naming the field.
    pub(super) fn cleared(&self, field: &str, secrecy: Secrecy) -> Result<(), Problem> {
        if secrecy.within(self.clearance) {
            return Ok(());
        }
        Err(Problem::forbidden(format!(
            "{field}: {secrecy} is beyond your clearance, {}",
            self.clearance
        )))
    }

    /// Whether the role has the right and the key the scope.
    pub(super) fn check(&self, verb: Verb, writes: bool) -> Result<(), Problem> {
        crate::domain::roles::authorize(self.role, self.department, verb, None)?;
        let needed = if writes { Scope::Write } else { Scope::Read };
        match &self.key.scopes {
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
        return of_store(control, store, &owner);
    }
    let of_gateway = parts
        .extensions
        .get::<RequestContext>()
        .and_then(|context| context.principal.clone());
    if let Some(principal) = of_gateway {
        return of_key_file(store, &principal).await;
    }
    if control.settings().open {
        let local = ensure(store, Wanted::local()).await?;
        return Ok(Caller {
            anybody: true,
            ..Caller::of(&local, KeyBounds::default())
        });
    }
    Err(unauthorized())
}

fn unauthorized() -> Problem {
    Problem::new(
        http::StatusCode::UNAUTHORIZED,
        "unauthorized",
        "send an API key as `Authorization: Bearer KEY`; this one is missing, unknown, expired or withdrawn",
    )
}

/// A key of the records. Where its principal is a key of the file, it may what the file says of that one now.
fn of_store(control: &Control, store: &Store, owner: &KeyOwner) -> Result<Caller, Problem> {
    let file = |id: &str| control.file_key(id);
    let standing = Standing::of(&owner.principal, &file).ok_or_else(unauthorized)?;
    let own = owner.key.models.as_ref().map(|models| models.0.clone());
    note_use(store, owner);
    let bounds = KeyBounds {
        scopes: Some(owner.key.scopes.0.clone()),
        models: both(own, standing.models),
        expires_at: owner.key.expires_at,
        line: Some(owner.key.line().to_string()),
    };
    Ok(Caller {
        role: standing.role,
        clearance: standing.clearance,
        ..Caller::of(&owner.principal, bounds)
    })
}

/// Writes down that a key was used, beside the request and at most once a minute.
fn note_use(store: &Store, owner: &KeyOwner) {
    const TO_THE: std::time::Duration = std::time::Duration::from_secs(60);
    let now = Timestamp::now();
    let noted = owner.key.last_used_at;
    if noted.is_none_or(|at| at.after(TO_THE) <= now) {
        let (store, key) = (store.clone(), owner.key.id);
        tokio::spawn(async move {
            if let Err(error) = store.note_key_use(key, now).await {
                tracing::debug!(%error, "the use of a key was not noted");
            }
        });
    }
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
    let wanted = Wanted {
        name: &principal.name,
        file_key: Some(&principal.key_id),
        department: principal.rights.department.as_deref().unwrap_or(LOCAL),
        role,
        clearance: secrecy(principal.rights.clearance),
    };
    let person = ensure(store, wanted).await?;
    if person.disabled {
        return Err(Problem::forbidden("this principal is disabled"));
    }
    let models = principal.models.as_ref();
    let bounds = KeyBounds {
        models: models.map(|models| models.iter().map(ToString::to_string).collect()),
        line: Some(format!("file:{}", principal.key_id)),
        ..KeyBounds::default()
    };
    Ok(Caller {
        role,
        clearance: wanted.clearance,
        ..Caller::of(&person, bounds)
    })
}
