//! What a principal may be: as its record says, or, for one that is a key of the keys file, as the file says now.

use sluice_gateway::access::Clearance;
use sluice_gateway::auth::KeyEntry;

use super::snapshot::FileKeys;
use crate::domain::record::Principal;
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;

/// What holds for all keys of a principal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    pub(crate) role: Role,
    pub(crate) clearance: Secrecy,
    /// Deployments by endpoint; `None` is all.
    pub(crate) models: Option<Vec<String>>,
}

impl Standing {
    /// `None` if the principal is a key that the keys file does not have any more, or gives no role.
    pub(crate) fn of(principal: &Principal, file: FileKeys<'_>) -> Option<Self> {
        let Some(id) = &principal.file_key else {
            return Some(Self {
                role: principal.role,
                clearance: principal.clearance,
                models: None,
            });
        };
        Self::in_file(&file(id)?)
    }

    /// What the file says of a key; `None` without a role that is one.
    pub(crate) fn in_file(entry: &KeyEntry) -> Option<Self> {
        let models = entry.models.as_ref();
        Some(Self {
            role: entry.role.as_deref()?.parse().ok()?,
            clearance: secrecy(entry.rights.clearance),
            models: models.map(|models| models.iter().map(ToString::to_string).collect()),
        })
    }
}

/// What both lists hold; `None` holds everything.
pub(crate) fn both(one: Option<Vec<String>>, other: Option<Vec<String>>) -> Option<Vec<String>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.into_iter().filter(|it| other.contains(it)).collect()),
        (one, other) => one.or(other),
    }
}

/// The gateway's levels in the records' words.
pub(crate) fn secrecy(clearance: Clearance) -> Secrecy {
    match clearance {
        Clearance::Public => Secrecy::Public,
        Clearance::Internal => Secrecy::Internal,
        Clearance::Confidential => Secrecy::Confidential,
        Clearance::Secret => Secrecy::Secret,
    }
}

/// The other way round.
pub(crate) fn clearance(secrecy: Secrecy) -> Clearance {
    match secrecy {
        Secrecy::Public => Clearance::Public,
        Secrecy::Internal => Clearance::Internal,
        Secrecy::Confidential => Clearance::Confidential,
        Secrecy::Secret => Clearance::Secret,
    }
}
