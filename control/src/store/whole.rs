//! Many writes as one: a store whose transactions are parts of one, and which reads what they wrote. All of it is
//! committed together, or none is.
//!
//! A part that is dropped without [`Tx::commit`](super::Tx::commit) is undone and leaves the others, as if it had been
//! a transaction of its own. There is one connection for all: whoever holds a part reads through it, and not through
//! the store.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, Transaction};
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard};

use super::{Source, Store, StoreError, Tx};
use crate::time::Timestamp;

/// A transaction that is made of others.
#[derive(Debug, Clone)]
pub struct Whole {
    shared: Arc<Mutex<Option<Open>>>,
    now: Timestamp,
}

/// The transaction, until it is over.
#[derive(Debug)]
pub(super) struct Open {
    transaction: Transaction<'static, Any>,
    /// A part was begun, and not committed: what it wrote is to be undone before anything else.
    undo: bool,
}

/// The connection of a whole, as long as one part or one reader has it.
pub(super) type Lent = OwnedMappedMutexGuard<Option<Open>, Open>;

impl Open {
    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    /// Undoes a part that was dropped.
    async fn tidy(&mut self) -> Result<(), StoreError> {
        if self.undo {
            self.say("ROLLBACK TO SAVEPOINT part").await?;
            self.say("RELEASE SAVEPOINT part").await?;
            self.undo = false;
        }
        Ok(())
    }

    async fn say(&mut self, statement: &'static str) -> Result<(), StoreError> {
        sqlx::query(statement).execute(self.connection()).await?;
        Ok(())
    }

    async fn begin_part(&mut self) -> Result<(), StoreError> {
        self.say("SAVEPOINT part").await?;
        self.undo = true;
        Ok(())
    }

    pub(super) async fn keep_part(&mut self) -> Result<(), StoreError> {
        self.say("RELEASE SAVEPOINT part").await?;
        self.undo = false;
        Ok(())
    }
}

impl Whole {
    pub(super) const fn now(&self) -> Timestamp {
        self.now
    }

    /// The connection, once nobody else has it.
    async fn lent(&self, patience: Duration) -> Result<Lent, StoreError> {
        let over = || unavailable("the transaction is over");
        let guard = tokio::time::timeout(patience, Arc::clone(&self.shared).lock_owned());
        let guard = guard
            .await
            .map_err(|_| unavailable("a part of the transaction does not end"))?;
        let mut lent = OwnedMutexGuard::try_map(guard, Option::as_mut).map_err(|_| over())?;
        lent.tidy().await?;
        Ok(lent)
    }

    pub(super) async fn part(&self, patience: Duration) -> Result<Lent, StoreError> {
        let mut lent = self.lent(patience).await?;
        lent.begin_part().await?;
        Ok(lent)
    }
}

fn unavailable(why: &'static str) -> StoreError {
    StoreError::Unavailable(sqlx::Error::Io(std::io::Error::other(why)))
}

impl Store {
    /// A store whose transactions are parts of one that begins now. Dropped without [`Store::commit_whole`], nothing of
    /// it is written.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn whole(&self) -> Result<Self, StoreError> {
        let tx = self.begin().await?;
        let now = tx.now();
        let Source::Own(transaction) = tx.source else {
            return Err(unavailable("a part is no whole"));
        };
        let open = Open {
            transaction,
            undo: false,
        };
        let whole = Whole {
            shared: Arc::new(Mutex::new(Some(open))),
            now,
        };
        Ok(Self {
            whole: Some(whole),
            claim: None,
            ..self.clone()
        })
    }

    /// Commits all parts of `whole`, which was made by [`Store::whole`] of this one; with the answer, if that is kept.
    ///
    /// # Errors
    /// As [`Tx::commit`].
    pub async fn commit_whole(&self, whole: Self) -> Result<(), StoreError> {
        let Some(Whole { shared, now }) = whole.whole else {
            return Ok(());
        };
        let Some(mut open) = shared.lock().await.take() else {
            return Err(unavailable("the transaction is over"));
        };
        open.tidy().await?;
        let tx = Tx {
            source: Source::Own(open.transaction),
            dialect: self.dialect,
            now,
            health: Arc::clone(&self.health),
            patience: self.patience,
            claim: self.claim.clone(),
        };
        tx.commit().await
    }

    /// Undoes all parts of `whole`.
    ///
    /// # Errors
    /// Only the database's own; nothing is written then either.
    pub async fn undo_whole(&self, whole: Self) -> Result<(), StoreError> {
        let Some(Whole { shared, .. }) = whole.whole else {
            return Ok(());
        };
        if let Some(open) = shared.lock().await.take() {
            open.transaction.rollback().await?;
        }
        Ok(())
    }
}

/// A connection for reading.
#[derive(Debug)]
pub enum Reader {
    Own(PoolConnection<Any>),
    /// That of a whole, so that what its parts wrote is read.
    Part(Part),
}

/// Keeps its field from those outside.
#[derive(Debug)]
pub struct Part(Lent);

impl Reader {
    pub(super) async fn of(whole: &Whole, patience: Duration) -> Result<Self, StoreError> {
        Ok(Self::Part(Part(whole.lent(patience).await?)))
    }
}

impl Deref for Reader {
    type Target = AnyConnection;
    fn deref(&self) -> &AnyConnection {
        match self {
            Self::Own(connection) => connection,
            Self::Part(Part(lent)) => &lent.transaction,
        }
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        match self {
            Self::Own(connection) => connection,
            Self::Part(Part(lent)) => lent.connection(),
        }
    }
}

#[cfg(test)]
mod tests;
