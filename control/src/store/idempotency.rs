//! Writes that may be repeated: a client that did not hear the answer asks again with the same key and
//! gets the answer of the first time.

use std::time::Duration;

use super::column::{Column, arguments, read};
use super::{Store, StoreError};
use crate::id::PrincipalId;
use crate::time::Timestamp;

/// What is known about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idempotency {
    /// Not seen before: go on, then call [`Store::finish_idempotent`].
    New,
    /// The first request is still under way: 409, try again.
    InProgress,
    /// Already answered: send this.
    Answered { status: i64, response: String },
    /// The key came with another request before: 422.
    OtherRequest,
}

impl Store {
    /// Claims `key` for a request whose digest is `request`, for `keep`. A claim that was never finished,
    /// its process having died, is free again after that time.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn begin_idempotent(
        &self,
        principal: PrincipalId,
        key: &str,
        request: &str,
        keep: Duration,
    ) -> Result<Idempotency, StoreError> {
        let mut tx = self.begin().await?;
        let now = tx.now();
        let (who, key) = (principal.to_value(), key.to_owned().to_value());
        sqlx::query_with(
            "DELETE FROM idempotency_keys WHERE principal = $1 AND idempotency_key = $2 AND expires_at <= $3",
            arguments([who.clone(), key.clone(), now.to_value()])?,
        )
        .execute(tx.connection())
        .await?;
        let claimed = sqlx::query_with(
            "INSERT INTO idempotency_keys (principal, idempotency_key, request_digest, status, response, created_at, \
             expires_at) VALUES ($1, $2, $3, NULL, NULL, $4, $5) ON CONFLICT (principal, idempotency_key) DO NOTHING",
            arguments([
                who.clone(),
                key.clone(),
                request.to_owned().to_value(),
                now.to_value(),
                now.after(keep).to_value(),
            ])?,
        )
        .execute(tx.connection())
        .await?;
        if claimed.rows_affected() == 1 {
            tx.commit().await?;
            return Ok(Idempotency::New);
        }
        let row = sqlx::query_with(
            "SELECT request_digest, status, response FROM idempotency_keys WHERE principal = $1 AND idempotency_key = $2",
            arguments([who, key])?,
        )
        .fetch_optional(tx.connection())
        .await?;
        // Given up between the two statements: as if it were still under way.
        let Some(row) = row else {
            return Ok(Idempotency::InProgress);
        };
        if read::<String>(&row, "request_digest")? != request {
            return Ok(Idempotency::OtherRequest);
        }
        Ok(match (read(&row, "status")?, read(&row, "response")?) {
            (Some(status), Some(response)) => Idempotency::Answered { status, response },
            _ => Idempotency::InProgress,
        })
    }

    /// Keeps the answer for those who ask again.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn finish_idempotent(
        &self,
        principal: PrincipalId,
        key: &str,
        status: i64,
        response: &str,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query_with(
            "UPDATE idempotency_keys SET status = $1, response = $2 WHERE principal = $3 AND idempotency_key = $4",
            arguments([
                status.to_value(),
                response.to_owned().to_value(),
                principal.to_value(),
                key.to_owned().to_value(),
            ])?,
        )
        .execute(tx.connection())
        .await?;
        tx.commit().await
    }

    /// Frees a key whose request failed in a way that is worth repeating.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn abandon_idempotent(
        &self,
        principal: PrincipalId,
        key: &str,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query_with(
            "DELETE FROM idempotency_keys WHERE principal = $1 AND idempotency_key = $2 AND status IS NULL",
            arguments([principal.to_value(), key.to_owned().to_value()])?,
        )
        .execute(tx.connection())
        .await?;
        tx.commit().await
    }

    /// Forgets keys that expired before `now`; returns how many.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn forget_idempotent(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let gone = sqlx::query_with(
            "DELETE FROM idempotency_keys WHERE expires_at <= $1",
            arguments([now.to_value()])?,
        )
        .execute(tx.connection())
        .await?
        .rows_affected();
        tx.commit().await?;
        Ok(gone)
    }
}

#[cfg(test)]
mod tests;
