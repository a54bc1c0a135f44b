//! Writes that may be repeated: a client that did not hear the answer asks again with the same key and
//! gets the answer of the first time.
//!
//! A key is claimed for a while at a time, and the claim renewed while the request goes on. One whose process died runs
//! out, and the next who asks takes it over. What the request writes and what is answered are committed together
//! ([`Store::holding`]), under the claim: so after a crash it is done and can be answered again, or it is not done, and one
//! whose claim was taken over meanwhile has changed nothing.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::column::{Column, arguments, read};
use super::{Store, StoreError, Tx};
use crate::id::PrincipalId;
use crate::time::Timestamp;

/// What is known about a key.
#[derive(Debug)]
pub enum Idempotency {
    /// Not seen before, or given up by who had it: go on, then call [`Store::finish_idempotent`].
    New(Claim),
    /// The first request is still under way.
    InProgress,
    /// Already answered: send this.
    Answered { status: i64, response: String },
    /// The key came with another request before: 422.
    OtherRequest,
}

/// How long claims and answers last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyTimes {
    /// Until a claim that is not renewed is free for the next.
    pub lease: Duration,
    /// Until an answer is forgotten.
    pub keep: Duration,
}

/// A key that is held for one request. Clones are the same claim.
#[derive(Debug, Clone)]
pub struct Claim(Arc<Held>);

#[derive(Debug)]
struct Held {
    principal: PrincipalId,
    key: String,
    owner: String,
    /// What the request has written and not committed: it waits for the answer, or for who wants to read it.
    pending: Mutex<Option<Tx>>,
}

impl Claim {
    fn new(principal: PrincipalId, key: &str) -> Self {
        Self(Arc::new(Held {
            principal,
            key: key.to_owned(),
            owner: Uuid::now_v7().simple().to_string(),
            pending: Mutex::new(None),
        }))
    }

    /// Keeps what was written until the answer is known.
    pub(super) fn put(&self, tx: Tx) {
        *self.0.pending.lock() = Some(tx);
    }

    fn take(&self) -> Option<Tx> {
        self.0.pending.lock().take()
    }

    /// Commits what waits: the request goes on to read or to write more.
    pub(super) async fn settle(&self) -> Result<(), StoreError> {
        match self.take() {
            Some(tx) => tx.commit().await,
            None => Ok(()),
        }
    }
}

impl Store {
    /// Claims `key` for a request whose digest is `request`. A claim that was not renewed in time, its process having
    /// died, is free again.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn begin_idempotent(
        &self,
        principal: PrincipalId,
        key: &str,
        request: &str,
        times: IdempotencyTimes,
    ) -> Result<Idempotency, StoreError> {
        let mut tx = self.begin().await?;
        let now = tx.now();
        let claim = Claim::new(principal, key);
        let (who, key) = (principal.to_value(), key.to_owned().to_value());
        sqlx::query_with(
            "DELETE FROM idempotency_keys WHERE principal = $1 AND idempotency_key = $2 AND expires_at <= $3",
            arguments([who.clone(), key.clone(), now.to_value()])?,
        )
        .execute(tx.connection())
        .await?;
        let claimed = sqlx::query_with(
            "INSERT INTO idempotency_keys (principal, idempotency_key, request_digest, status, response, created_at, \
             expires_at, owner, held_until) VALUES ($1, $2, $3, NULL, NULL, $4, $5, $6, $7) \
             ON CONFLICT (principal, idempotency_key) DO UPDATE SET owner = excluded.owner, \
             held_until = excluded.held_until, expires_at = excluded.expires_at \
             WHERE idempotency_keys.status IS NULL \
             AND idempotency_keys.request_digest = excluded.request_digest \
             AND COALESCE(idempotency_keys.held_until, 0) <= $8",
            arguments([
                who.clone(),
                key.clone(),
                request.to_owned().to_value(),
                now.to_value(),
                now.after(times.keep).to_value(),
                claim.0.owner.to_value(),
                now.after(times.lease).to_value(),
                now.to_value(),
            ])?,
        )
        .execute(tx.connection())
        .await?;
        if claimed.rows_affected() == 1 {
            tx.commit().await?;
            return Ok(Idempotency::New(claim));
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

    /// The same database for the request that holds `claim`: what it commits last waits for
    /// [`Store::finish_idempotent`], which commits it together with the answer. What it reads after writing is committed
    /// before. Between the last commit and the end, other stores' writes would wait for this one's.
    #[must_use]
    pub fn holding(&self, claim: Claim) -> Self {
        Self {
            claim: Some(claim),
            ..self.clone()
        }
    }

    /// Holds a claim for longer. `false` where somebody took it over.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn renew_idempotent(
        &self,
        claim: &Claim,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let until = tx.now().after(lease);
        let done = sqlx::query_with(
            "UPDATE idempotency_keys SET held_until = $1 WHERE principal = $2 AND idempotency_key = $3 AND owner = $4 \
             AND status IS NULL",
            arguments([
                until.to_value(),
                claim.0.principal.to_value(),
                claim.0.key.to_value(),
                claim.0.owner.to_value(),
            ])?,
        )
        .execute(tx.connection())
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Commits what the request wrote last, and its answer for those who ask again. `false` where somebody took the
    /// claim over: then nothing of it is written.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn finish_idempotent(
        &self,
        claim: &Claim,
        status: i64,
        response: &str,
    ) -> Result<bool, StoreError> {
        let mut tx = match claim.take() {
            Some(tx) => tx,
            None => self.begin().await?,
        };
        let done = sqlx::query_with(
            "UPDATE idempotency_keys SET status = $1, response = $2, held_until = NULL \
             WHERE principal = $3 AND idempotency_key = $4 AND owner = $5 AND status IS NULL",
            arguments([
                status.to_value(),
                response.to_owned().to_value(),
                claim.0.principal.to_value(),
                claim.0.key.to_value(),
                claim.0.owner.to_value(),
            ])?,
        )
        .execute(tx.connection())
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Frees a key whose request failed in a way that is worth repeating; what it wrote last is undone.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn abandon_idempotent(&self, claim: &Claim) -> Result<(), StoreError> {
        drop(claim.take());
        let mut tx = self.begin().await?;
        sqlx::query_with(
            "DELETE FROM idempotency_keys WHERE principal = $1 AND idempotency_key = $2 AND owner = $3 \
             AND status IS NULL",
            arguments([
                claim.0.principal.to_value(),
                claim.0.key.to_value(),
                claim.0.owner.to_value(),
            ])?,
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
