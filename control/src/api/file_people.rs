//! People whom the records have because the configuration does: the keys of its file, and the person at an installation
//! without authentication. A key of the file is known by the key, not by a name, which somebody else may have.

use crate::domain::record::{Department, Principal};
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::id::DepartmentId;
use crate::store::{Actor, AuditFilter, Listing, Record, Store, StoreError, Stored};

/// The department and the person of an installation without authentication.
pub(crate) const LOCAL: &str = "local";

/// Somebody whom the records should have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub name: &'a str,
    /// Of the keys file, by its id.
    pub file_key: Option<&'a str>,
    /// By name.
    pub department: &'a str,
    pub role: Role,
    pub clearance: Secrecy,
}

impl Wanted<'_> {
    /// Who works without authentication.
    pub(crate) fn local() -> Wanted<'static> {
        Wanted {
            name: LOCAL,
            file_key: None,
            department: LOCAL,
            role: Role::Admin,
            clearance: Secrecy::Secret,
        }
    }
}

/// The principal, made when it is seen for the first time, and changed when the configuration has changed.
pub(crate) async fn ensure(
    store: &Store,
    wanted: Wanted<'_>,
) -> Result<Stored<Principal>, StoreError> {
    let Some(key) = wanted.file_key else {
        return match named(store, wanted.name).await? {
            Some(found) => Ok(found),
            None => made(store, wanted, wanted.name.to_owned()).await,
        };
    };
    if let Some(known) = of_key(store, key).await? {
        return followed(store, wanted, known).await;
    }
    let same_name: Option<Stored<Principal>> = named(store, wanted.name).await?;
    match same_name {
        None => made(store, wanted, wanted.name.to_owned()).await,
        Some(found) if is_of_the_file(store, &found).await? => followed(store, wanted, found).await,
        // Somebody else's.
        Some(_) => made(store, wanted, format!("{} ({key})", wanted.name)).await,
    }
}

/// What the file says of it, written down where it differs: for those who read the records.
async fn followed(
    store: &Store,
    wanted: Wanted<'_>,
    known: Stored<Principal>,
) -> Result<Stored<Principal>, StoreError> {
    let department = department(store, wanted.department).await?;
    let is_same = known.role == wanted.role
        && known.clearance == wanted.clearance
        && known.department == department
        && known.file_key.as_deref() == wanted.file_key;
    if is_same {
        return Ok(known);
    }
    let file_key = wanted.file_key.map(str::to_owned);
    let follow = move |it: &mut Principal| {
        it.role = wanted.role;
        it.clearance = wanted.clearance;
        it.department = department;
        it.file_key = file_key;
    };
    store
        .update::<Principal>(&actor(), known.id, None, follow)
        .await
}

async fn made(
    store: &Store,
    wanted: Wanted<'_>,
    name: String,
) -> Result<Stored<Principal>, StoreError> {
    let person = Principal {
        department: department(store, wanted.department).await?,
        name: name.clone(),
        email: None,
        role: wanted.role,
        clearance: wanted.clearance,
        disabled: false,
        file_key: wanted.file_key.map(str::to_owned),
    };
    // Two first requests at once both make it; the slower finds the other's.
    match store.create(&actor(), person).await {
        Err(conflict @ StoreError::Conflict { .. }) => match wanted.file_key {
            Some(key) => of_key(store, key).await?.ok_or(conflict),
            None => named(store, &name).await?.ok_or(conflict),
        },
        other => other,
    }
}

async fn department(store: &Store, name: &str) -> Result<DepartmentId, StoreError> {
    if let Some(found) = named::<Department>(store, name).await? {
        return Ok(found.id);
    }
    let made = Department {
        name: name.to_owned(),
        description: match name {
            LOCAL => "Made with the installation".into(),
            _ => "Named by the keys file".into(),
        },
    };
    match store.create(&actor(), made).await {
        Err(conflict @ StoreError::Conflict { .. }) => {
            let found = named::<Department>(store, name).await?;
            found.map(|found| found.id).ok_or(conflict)
        }
        other => other.map(|made| made.id),
    }
}

/// Whether an earlier binary, which knew keys of the file by their names, made the principal for one.
async fn is_of_the_file(store: &Store, person: &Stored<Principal>) -> Result<bool, StoreError> {
    let filter = AuditFilter {
        object: Some(person.id.to_string()),
        verb: Some("create".into()),
        ..AuditFilter::default()
    };
    let events = store.audit_events(&filter, 1).await?;
    let by_the_file = events
        .iter()
        .any(|event| event.actor_name == actor().name && event.actor.is_none());
    Ok(person.file_key.is_none() && by_the_file)
}

fn actor() -> Actor {
    Actor::system("keys file")
}

async fn of_key(store: &Store, key: &str) -> Result<Option<Stored<Principal>>, StoreError> {
    let listing = Listing::<Principal>::new()
        .is("file_key", &key.to_owned())
        .limit(1);
    Ok(store.list(&listing).await?.items.pop())
}

async fn named<R: Record>(store: &Store, name: &str) -> Result<Option<Stored<R>>, StoreError> {
    let listing = Listing::<R>::new().is("name", &name.to_owned()).limit(1);
    Ok(store.list(&listing).await?.items.pop())
}
