//! Departments, principals, grants and API keys.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::AnyConnection;

use super::column::{Column, arguments, read};
use super::record::{find, get};
use super::{Actor, Json, Store, StoreError, Stored, Tx, Viewer, mapped};
use crate::domain::record::{Access, ApiKey, Dataset, Department, Grant, Principal, Scope};
use crate::id::{ApiKeyId, DatasetId, DepartmentId, GrantId, Id as _, PrincipalId};
use crate::time::Timestamp;

mapped! { Department(DepartmentId) in "departments": fixed [], editable [name, description] }
mapped! {
    Principal(PrincipalId) in "principals":
    fixed [],
    editable [department, name, email, role, clearance, disabled, file_key]
}
mapped! {
    ApiKey(ApiKeyId) in "api_keys":
    fixed [principal, prefix, hash, made_by, ends_with_maker, line],
    editable [
        name, scopes, expires_at, last_used_at, models, requests_per_minute, tokens_per_minute, requests_per_month,
        tokens_per_month,
    ]
}
mapped! {
    Grant(GrantId) in "grants":
    fixed [object_kind, object_id, principal, department],
    editable [access]
}

/// Marks our keys, so that a scanner for leaked secrets can find them.
const KEY_MARK: &str = "sk-sluice-";
const SECRET_BYTES: usize = 32;
/// How much of a key is kept for people to recognise it by: 6 characters of its 43 random ones.
const PREFIX_LENGTH: usize = KEY_MARK.len() + 6;

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub principal: PrincipalId,
    pub name: String,
    pub scopes: Vec<Scope>,
    pub expires_at: Option<Timestamp>,
    pub models: Option<Vec<String>>,
    pub limits: KeyLimits,
    pub made_by: Option<String>,
    pub ends_with_maker: bool,
    pub line: Option<ApiKeyId>,
}

/// How much a key may ask; `None` is without limit, 0 nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeyLimits {
    pub requests_per_minute: Option<i64>,
    pub tokens_per_minute: Option<i64>,
    pub requests_per_month: Option<i64>,
    pub tokens_per_month: Option<i64>,
}

impl KeyLimits {
    pub fn of(key: &ApiKey) -> Self {
        Self {
            requests_per_minute: key.requests_per_minute,
            tokens_per_minute: key.tokens_per_minute,
            requests_per_month: key.requests_per_month,
            tokens_per_month: key.tokens_per_month,
        }
    }

    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

impl NewKey {
    /// One without limits, made by nobody's key.
    pub fn new(principal: PrincipalId, name: impl Into<String>, scopes: Vec<Scope>) -> Self {
        Self {
            principal,
            name: name.into(),
            scopes,
            expires_at: None,
            models: None,
            limits: KeyLimits::default(),
            made_by: None,
            ends_with_maker: false,
            line: None,
        }
    }

    /// The next key of another's line: the same but for its secret.
    pub fn after(key: &Stored<ApiKey>) -> Self {
        Self {
            principal: key.principal,
            name: key.name.clone(),
            scopes: key.scopes.0.clone(),
            expires_at: key.expires_at,
            models: key.models.as_ref().map(|models| models.0.clone()),
            limits: KeyLimits::of(key),
            made_by: key.made_by.clone(),
            ends_with_maker: key.ends_with_maker,
            line: Some(key.line()),
        }
    }
}

/// A key that was just made. The secret is shown to its owner now and never again.
pub struct IssuedKey {
    pub key: Stored<ApiKey>,
    pub secret: String,
}

impl std::fmt::Debug for IssuedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedKey")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A key that is in force, and whose it is.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyOwner {
    pub key: Stored<ApiKey>,
    pub principal: Stored<Principal>,
}

/// The sha256 of a key, in hexadecimal. A slow hash would protect guessable passwords; 256 random bits
/// cannot be guessed, and every request is hashed.
fn hash_of(secret: &str) -> String {
    format!("{:x}", Sha256::digest(secret.as_bytes()))
}

impl Tx {
    /// Makes a key.
    ///
    /// # Errors
    /// [`StoreError::Reference`] if there is no such principal, [`StoreError::Unavailable`] if the
    /// system has no randomness.
    pub async fn issue(&mut self, actor: &Actor, new: NewKey) -> Result<IssuedKey, StoreError> {
        let mut random = [0u8; SECRET_BYTES];
        rand::rngs::OsRng
            .try_fill_bytes(&mut random)
            .map_err(|error| {
                StoreError::Unavailable(sqlx::Error::Io(std::io::Error::other(error)))
            })?;
        let secret = format!("{KEY_MARK}{}", URL_SAFE_NO_PAD.encode(random));
        let prefix = secret[..PREFIX_LENGTH].to_owned();
        let key = self.keep_key(actor, new, prefix, hash_of(&secret)).await?;
        Ok(IssuedKey { key, secret })
    }

    /// Makes a key whose secret somebody else knows: `hash` is the SHA-256 of that, 64 hexadecimal digits.
    ///
    /// # Errors
    /// As [`Tx::issue`]; [`StoreError::Conflict`] if there is a key with this secret.
    pub async fn issue_hashed(
        &mut self,
        actor: &Actor,
        new: NewKey,
        hash: String,
    ) -> Result<Stored<ApiKey>, StoreError> {
        let prefix = format!("sha256:{}", hash.get(..6).unwrap_or(&hash));
        self.keep_key(actor, new, prefix, hash).await
    }

    async fn keep_key(
        &mut self,
        actor: &Actor,
        new: NewKey,
        prefix: String,
        hash: String,
    ) -> Result<Stored<ApiKey>, StoreError> {
        let record = ApiKey {
            principal: new.principal,
            name: new.name,
            prefix,
            hash,
            scopes: Json(new.scopes),
            expires_at: new.expires_at,
            last_used_at: None,
            models: new.models.map(Json),
            requests_per_minute: new.limits.requests_per_minute,
            tokens_per_minute: new.limits.tokens_per_minute,
            requests_per_month: new.limits.requests_per_month,
            tokens_per_month: new.limits.tokens_per_month,
            made_by: new.made_by,
            ends_with_maker: new.ends_with_maker,
            line: new.line,
        };
        self.create(actor, record).await
    }
}

impl Tx {
    /// As [`Store::note_key_use`].
    pub(super) async fn note_key_use(
        &mut self,
        key: &str,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query_with(
            "UPDATE api_keys SET last_used_at = $1 WHERE id = $2 AND (last_used_at IS NULL OR last_used_at < $1)",
            arguments([at.to_value(), key.to_owned().to_value()])?,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl Store {
    /// A key without limits, in a transaction of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn issue_key(
        &self,
        actor: &Actor,
        principal: PrincipalId,
        name: &str,
        scopes: Vec<Scope>,
        expires_at: Option<Timestamp>,
    ) -> Result<IssuedKey, StoreError> {
        let mut new = NewKey::new(principal, name, scopes);
        new.expires_at = expires_at;
        self.issue(actor, new).await
    }

    /// [`Tx::issue`] in a transaction of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn issue(&self, actor: &Actor, new: NewKey) -> Result<IssuedKey, StoreError> {
        let mut tx = self.begin().await?;
        let issued = tx.issue(actor, new).await?;
        tx.commit().await?;
        Ok(issued)
    }

    /// Whose key this is, if it is in force at `now`: neither withdrawn nor expired, its principal
    /// neither disabled nor gone.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn key_owner(
        &self,
        secret: &str,
        now: Timestamp,
    ) -> Result<Option<KeyOwner>, StoreError> {
        let mut reader = self.reader().await?;
        let Some(key) = find::<ApiKey>(&mut reader, "hash", hash_of(secret).to_value()).await?
        else {
            return Ok(None);
        };
        owner(&mut reader, key, now).await
    }

    /// Notes that a key was used at `at`. No change that anybody has to see: neither its version nor the audit log
    /// follows.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn note_key_use(&self, key: ApiKeyId, at: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.note_key_use(&key.to_string(), at).await?;
        tx.commit().await
    }

    /// The same for many, in one transaction.
    ///
    /// # Errors
    /// As there.
    pub async fn note_key_uses(&self, used: &HashMap<String, Timestamp>) -> Result<(), StoreError> {
        // In one order, so that two processes do not wait for each other.
        let sorted: BTreeMap<&String, &Timestamp> = used.iter().collect();
        let mut tx = self.begin().await?;
        for (key, at) in sorted {
            tx.note_key_use(key, *at).await?;
        }
        tx.commit().await
    }

    /// Every key in force at `now` with the hash of its secret: what the gateway checks requests by
    /// without asking the database.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn keys_in_force(&self, now: Timestamp) -> Result<Vec<KeyOwner>, StoreError> {
        let mut reader = self.reader().await?;
        let select = |table: &str, columns: String| {
            format!("SELECT {columns} FROM {table} WHERE deleted_at IS NULL")
        };
        // Safe: tables and columns are constants of the program.
        let keys = sqlx::query(sqlx::AssertSqlSafe(select(
            "api_keys",
            super::columns::<ApiKey>(),
        )))
        .fetch_all(&mut *reader)
        .await?;
        let people = sqlx::query(sqlx::AssertSqlSafe(select(
            "principals",
            super::columns::<Principal>(),
        )))
        .fetch_all(&mut *reader)
        .await?;
        let people: std::collections::HashMap<PrincipalId, Stored<Principal>> = people
            .iter()
            .map(|row| {
                Stored::<Principal>::from_row(row).map(|principal| (principal.id, principal))
            })
            .collect::<Result<_, _>>()?;
        let mut owners = Vec::with_capacity(keys.len());
        for row in &keys {
            let key = Stored::<ApiKey>::from_row(row)?;
            let Some(principal) = people.get(&key.principal) else {
                continue;
            };
            if in_force(&key, principal, now) {
                owners.push(KeyOwner {
                    key,
                    principal: principal.clone(),
                });
            }
        }
        Ok(lines::with_makers(owners))
    }

    /// What `viewer` may do with `dataset`: nothing without the clearance; with it, what was granted
    /// to it or its department, and everything if it owns the dataset or is an administrator.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it does not exist.
    pub async fn dataset_access(
        &self,
        viewer: Viewer,
        dataset: DatasetId,
    ) -> Result<Option<Access>, StoreError> {
        let mut reader = self.reader().await?;
        let data = get::<Dataset>(&mut reader, dataset).await?;
        if !data.secrecy.within(viewer.clearance) {
            return Ok(None);
        }
        if viewer.admin || data.owner == Some(viewer.principal) {
            return Ok(Some(Access::Edit));
        }
        let rows = sqlx::query_with(
            "SELECT access FROM grants WHERE object_kind = 'dataset' AND object_id = $1 \
             AND (principal = $2 OR department = $3) AND deleted_at IS NULL",
            arguments([
                dataset.to_value(),
                viewer.principal.to_value(),
                viewer.department.to_value(),
            ])?,
        )
        .fetch_all(&mut *reader)
        .await?;
        let granted = rows
            .iter()
            .map(|row| read::<Access>(row, "access"))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(granted.into_iter().max())
    }

    /// Gives `access` to an object: `principal` or `department`, exactly one of them.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if both or neither are named.
    pub async fn grant(&self, actor: &Actor, grant: Grant) -> Result<Stored<Grant>, StoreError> {
        if grant.principal.is_some() == grant.department.is_some() {
            return Err(StoreError::invalid(
                "principal",
                "name either a principal or a department",
            ));
        }
        self.create(actor, grant).await
    }
}

fn in_force(key: &ApiKey, principal: &Principal, now: Timestamp) -> bool {
    !principal.disabled && is_unexpired(key, now)
}

fn is_unexpired(key: &ApiKey, now: Timestamp) -> bool {
    key.expires_at.is_none_or(|end| now < end)
}

async fn owner(
    connection: &mut AnyConnection,
    key: Stored<ApiKey>,
    now: Timestamp,
) -> Result<Option<KeyOwner>, StoreError> {
    let principal = match get::<Principal>(connection, key.principal).await {
        Ok(principal) => principal,
        Err(StoreError::NotFound { kind, .. }) if kind == PrincipalId::KIND => return Ok(None),
        Err(error) => return Err(error),
    };
    if !in_force(&key, &principal, now)
        || !lines::is_made_by_one_in_force(connection, &key, now).await?
    {
        return Ok(None);
    }
    Ok(Some(KeyOwner { key, principal }))
}

mod audiences;
mod lines;
#[cfg(test)]
mod tests;

pub use audiences::DeploymentAudience;
