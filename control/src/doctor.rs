//! Who has used which deployment and may not any more: what an operator asks after an upgrade, or before he changes a clearance.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use sluice_gateway::access::{Audience, Rights};
use sluice_gateway::auth::KeyEntry;
use sluice_gateway::auth::keys::key_id;

use crate::api::file_people::{LOCAL, Wanted, ensure};
use crate::domain::record::{Access, ApiKey, Department, Grant, Principal};
use crate::domain::roles::Role;
use crate::id::{ApiKeyId, DeploymentId, PrincipalId};
use crate::publish::{Standing, rights, secrecy, told};
use crate::store::{Actor, KeyUse, Store, StoreError, Stored};
use crate::time::Timestamp;

/// A key that used a deployment, and would be refused now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Refused {
    /// The key's id; of one of the keys file, the first digits of its digest.
    pub key: String,
    /// Whose it is.
    pub holder: String,
    /// The holder's, where there is one.
    pub department: Option<String>,
    /// The deployment's endpoint.
    pub deployment: String,
    pub requests: i64,
    pub last: Timestamp,
    pub why: &'static str,
    /// Whether a grant would let it in.
    pub can_be_granted: bool,
    #[serde(skip)]
    whom: Whom,
    #[serde(skip)]
    what: Option<DeploymentId>,
}

/// Whom a grant would name.
#[derive(Debug, Clone, PartialEq)]
enum Whom {
    Person(PrincipalId),
    FileKey {
        id: Arc<str>,
        name: String,
        department: Option<Arc<str>>,
    },
}

/// A key that counts, with its rights.
struct Holder {
    name: String,
    department: Option<String>,
    rights: Rights,
    whom: Whom,
}

/// Pairs of key and deployment in the ledger since `since` that the rights of now do not hold for. Keys that do not count
/// any more are left out, and so is what the configuration serves.
///
/// # Errors
/// Only the database's own.
pub async fn refused(
    store: &Store,
    since: Timestamp,
    file_keys: &[KeyEntry],
) -> Result<Vec<Refused>, StoreError> {
    let audiences = store.deployment_audiences().await?;
    let by_id: HashMap<String, _> = audiences
        .iter()
        .map(|it| (it.deployment.to_string(), it))
        .collect();
    let mut found = Vec::new();
    for used in store.used_by_keys(since).await? {
        let Some(audience) = by_id.get(&used.deployment) else {
            continue;
        };
        let Some(holder) = holder(store, &used, file_keys).await? else {
            continue;
        };
        let takes = told(audience);
        if takes.admits(&holder.rights) {
            continue;
        }
        let (why, can_be_granted) = reason(&takes, &holder.rights);
        found.push(Refused {
            key: used.key.clone(),
            holder: holder.name,
            department: holder.department,
            deployment: used.endpoint.clone(),
            requests: used.requests,
            last: used.last,
            why,
            can_be_granted,
            whom: holder.whom,
            what: Some(audience.deployment),
        });
    }
    Ok(found)
}

/// What keeps it out: a grant helps against the department, not against the clearance.
fn reason(takes: &Audience, rights: &Rights) -> (&'static str, bool) {
    let granted = rights.person.iter().cloned().collect();
    match takes.clone().granted(granted, Vec::new()).admits(rights) {
        true => ("of another department", true),
        false => ("its clearance is too low", false),
    }
}

async fn holder(
    store: &Store,
    used: &KeyUse,
    file_keys: &[KeyEntry],
) -> Result<Option<Holder>, StoreError> {
    let file = |id: &str| {
        let is_it = |entry: &&KeyEntry| *key_id(&entry.digest) == *id;
        file_keys.iter().find(is_it).cloned()
    };
    let Ok(id) = used.key.parse::<ApiKeyId>() else {
        return Ok(file(&used.key).map(|entry| Holder {
            whom: Whom::FileKey {
                id: key_id(&entry.digest),
                name: entry.name.clone(),
                department: entry.rights.department.clone(),
            },
            department: entry.rights.department.as_deref().map(str::to_owned),
            name: entry.name,
            rights: entry.rights,
        }));
    };
    let key: Stored<ApiKey> = match store.get(id).await {
        Ok(key) => key,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let person: Stored<Principal> = match store.get(key.principal).await {
        Ok(person) => person,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_over = key.expires_at.is_some_and(|end| end <= Timestamp::now());
    let Some(standing) = Standing::of(&person, &file).filter(|_| !person.disabled && !is_over)
    else {
        return Ok(None);
    };
    let department = store.get::<Department>(person.department).await?;
    Ok(Some(Holder {
        rights: rights(
            standing.role,
            standing.clearance,
            &department.name,
            person.id,
        ),
        name: person.name.clone(),
        department: Some(department.name.clone()),
        whom: Whom::Person(person.id),
    }))
}

/// Grants each holder the use of the deployment, where that helps. Returns how many grants were made.
///
/// # Errors
/// Only the database's own.
pub async fn grant(store: &Store, refused: &[Refused]) -> Result<usize, StoreError> {
    let actor =
        Actor::system("doctor access").because("used in the last days before access was checked");
    let mut made = Vec::new();
    for it in refused.iter().filter(|it| it.can_be_granted) {
        let Some(deployment) = it.what else { continue };
        let person = match &it.whom {
            Whom::Person(person) => *person,
            Whom::FileKey {
                id,
                name,
                department,
            } => {
                let wanted = Wanted {
                    name,
                    file_key: Some(id),
                    department: department.as_deref().unwrap_or(LOCAL),
                    role: Role::Viewer,
                    clearance: secrecy(sluice_gateway::access::Clearance::Internal),
                };
                ensure(store, wanted).await?.id
            }
        };
        // A person's keys are granted once.
        if made.contains(&(person, deployment)) {
            continue;
        }
        let grant = Grant {
            object_kind: "deployment".into(),
            object_id: deployment.to_string(),
            principal: Some(person),
            department: None,
            access: Access::Use,
        };
        store.grant(&actor, grant).await?;
        made.push((person, deployment));
    }
    Ok(made.len())
}

#[cfg(test)]
mod tests;
