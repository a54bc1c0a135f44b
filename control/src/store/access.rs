//! Departments, principals, grants and API keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
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
    editable [department, name, email, role, clearance, disabled]
}
mapped! {
    ApiKey(ApiKeyId) in "api_keys":
    fixed [principal, prefix, hash],
    editable [name, scopes, expires_at, last_used_at]
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
    /// Makes a key for `principal`.
    ///
    /// # Errors
    /// [`StoreError::Reference`] if there is no such principal, [`StoreError::Unavailable`] if the
    /// system has no randomness.
    pub async fn issue_key(
        &mut self,
        actor: &Actor,
        principal: PrincipalId,
        name: &str,
        scopes: Vec<Scope>,
        expires_at: Option<Timestamp>,
    ) -> Result<IssuedKey, StoreError> {
        let mut random = [0u8; SECRET_BYTES];
        rand::rngs::OsRng
            .try_fill_bytes(&mut random)
            .map_err(|error| {
                StoreError::Unavailable(sqlx::Error::Io(std::io::Error::other(error)))
            })?;
        let secret = format!("{KEY_MARK}{}", URL_SAFE_NO_PAD.encode(random));
        let record = ApiKey {
            principal,
            name: name.to_owned(),
            prefix: secret[..PREFIX_LENGTH].to_owned(),
            hash: hash_of(&secret),
            scopes: Json(scopes),
            expires_at,
            last_used_at: None,
        };
        let key = self.create(actor, record).await?;
        Ok(IssuedKey { key, secret })
    }
}

impl Store {
    /// [`Tx::issue_key`] in a transaction of its own.
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
        let mut tx = self.begin().await?;
        let issued = tx
            .issue_key(actor, principal, name, scopes, expires_at)
            .await?;
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
        Ok(owners)
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
    !principal.disabled && key.expires_at.is_none_or(|end| now < end)
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
    Ok(in_force(&key, &principal, now).then_some(KeyOwner { key, principal }))
}

#[cfg(test)]
mod tests;
