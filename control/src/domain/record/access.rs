//! People, where they belong, and what they show at the door.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::domain::words::words;
use crate::id::{ApiKeyId, DepartmentId, PrincipalId};
use crate::store::{Json, Stored};
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
    /// The key of the keys file that it is, by that one's id; the file says then what it may.
    pub file_key: Option<String>,
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
    /// When it was last shown, to the minute: to a model, or to the control plane.
    pub last_used_at: Option<Timestamp>,
    /// Deployments that it may ask, by endpoint; `null` is all that its principal may.
    pub models: Option<Json<Vec<String>>>,
    pub requests_per_minute: Option<i64>,
    pub tokens_per_minute: Option<i64>,
    /// Of a calendar month (UTC), as are the tokens.
    pub requests_per_month: Option<i64>,
    pub tokens_per_month: Option<i64>,
    /// The key that it was made with: the first of that one's line, or `file:` and the id of a key of the keys file.
    pub made_by: Option<String>,
    /// It counts only as long as a key of that line does: made by a key for that one's own principal.
    pub ends_with_maker: bool,
    /// The first key of its line, where it was rotated into this one.
    pub line: Option<ApiKeyId>,
}

impl Stored<ApiKey> {
    /// What stands for the key and for what it was rotated into.
    pub fn line(&self) -> ApiKeyId {
        self.record.line.unwrap_or(self.id)
    }
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
