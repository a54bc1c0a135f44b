//! People, where they belong, and what they show at the door.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::domain::words::words;
use crate::id::{DepartmentId, PrincipalId};
use crate::store::Json;
use crate::time::Timestamp;

/// Records, quotas and roles belong to one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Department {
    pub name: String,
    pub description: String,
}

/// A person, or a program that acts under a name of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Principal {
    pub department: DepartmentId,
    pub name: String,
    pub email: Option<String>,
    pub role: Role,
    /// The most secret data it may see, given a grant.
    pub clearance: Secrecy,
    /// Its keys are refused.
    pub disabled: bool,
}

words! {
    /// What a key may be used for; a subset of what its principal's role may.
    pub enum Scope ("scope of an api key") {
        /// Requests to models: `/v1`, `/v2`.
        Inference = "inference",
        /// Reading `/api/v1`.
        Read = "read",
        /// Writing through `/api/v1`.
        Write = "write",
    }
}

/// A key, without its secret: that was shown once, when the key was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApiKey {
    pub principal: PrincipalId,
    pub name: String,
    /// The first characters, for people to recognise it by.
    pub prefix: String,
    /// sha256 of the secret. Never leaves the store, not even into the audit log.
    #[serde(skip_serializing, default)]
    #[schemars(skip)]
    pub hash: String,
    pub scopes: Json<Vec<Scope>>,
    pub expires_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
}

words! {
    /// What a grant allows.
    pub enum Access ("access") {
        Read = "read",
        /// Read, and use in trainings, evaluations and deployments.
        Use = "use",
        /// Use, and change.
        Edit = "edit",
    }
}

/// Access to one object beyond the role, for a person or a whole department: exactly one of the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Grant {
    pub object_kind: String,
    pub object_id: String,
    pub principal: Option<PrincipalId>,
    pub department: Option<DepartmentId>,
    pub access: Access,
}
