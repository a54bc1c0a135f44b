//! Who alone may do something for a while. Instants are those of the machine that asks: their clocks may
//! differ by less than a lease's length.

use std::time::Duration;

use super::column::Column;
use super::{Store, StoreError, Tx, arguments, read};

/// Held until it expires, is given back, or someone else finds it expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub name: String,
    pub holder: String,
    /// Goes up with every change of hands.
    pub token: i64,
}

impl Store {
    /// Takes a lease that is free, expired or the holder's own; `None` while another holds it.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn take_lease(
        &self,
        name: &str,
        holder: &str,
        length: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let mut tx = self.begin().await?;
        let (now, until) = (tx.now(), tx.now().after(length));
        let row = sqlx::query_with(
            "INSERT INTO leases (name, holder, token, expires_at) VALUES ($1, $2, 1, $3) \
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = leases.token + 1, \
             expires_at = excluded.expires_at WHERE leases.expires_at < $4 OR leases.holder = excluded.holder \
             RETURNING token",
            arguments([
                name.to_owned().to_value(),
                holder.to_owned().to_value(),
                until.to_value(),
                now.to_value(),
            ])?,
        )
        .fetch_optional(tx.connection())
        .await?;
        tx.commit().await?;
        let lease = |token| Lease {
            name: name.to_owned(),
            holder: holder.to_owned(),
            token,
        };
        row.map(|row| read(&row, "token").map(lease)).transpose()
    }

    /// Lets others have everything that `holder` holds.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn give_leases_back(&self, holder: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query_with(
            "UPDATE leases SET expires_at = 0 WHERE holder = $1",
            arguments([holder.to_owned().to_value()])?,
        )
        .execute(tx.connection())
        .await?;
        tx.commit().await
    }

    /// Lets others have it at once.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn give_lease_back(&self, lease: &Lease) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query_with(
            "UPDATE leases SET expires_at = 0 WHERE name = $1 AND holder = $2 AND token = $3",
            arguments([
                lease.name.to_value(),
                lease.holder.to_value(),
                lease.token.to_value(),
            ])?,
        )
        .execute(tx.connection())
        .await?;
        tx.commit().await
    }
}

impl Tx {
    /// Prolongs a lease, and holds its row until the transaction ends: what is written along with it is
    /// written by the one who holds it. `false` when it has changed hands.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn prolong(&mut self, lease: &Lease, length: Duration) -> Result<bool, StoreError> {
        let until = self.now().after(length);
        let done = sqlx::query_with(
            "UPDATE leases SET expires_at = $1 WHERE name = $2 AND holder = $3 AND token = $4",
            arguments([
                until.to_value(),
                lease.name.to_value(),
                lease.holder.to_value(),
                lease.token.to_value(),
            ])?,
        )
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::super::rig::{Fresh, on_both};
    use super::*;

    #[tokio::test]
    async fn a_lease_has_one_holder_and_a_late_one_is_known_by_its_token() {
        on_both(async |fresh: std::sync::Arc<Fresh>| {
            let (store, hour) = (&fresh.store, Duration::from_secs(3600));
            let first = store.take_lease("x", "a", hour).await.unwrap().unwrap();
            assert_eq!(store.take_lease("x", "b", hour).await.unwrap(), None);
            assert!(store.take_lease("y", "b", hour).await.unwrap().is_some());
            let mut tx = store.begin().await.unwrap();
            assert!(tx.prolong(&first, Duration::ZERO).await.unwrap());
            tx.commit().await.unwrap();
            let second = store.take_lease("x", "b", hour).await.unwrap().unwrap();
            assert!(second.token > first.token);
            let mut tx = store.begin().await.unwrap();
            assert!(!tx.prolong(&first, hour).await.unwrap(), "it was too slow");
            drop(tx);
            store.give_lease_back(&first).await.unwrap();
            assert_eq!(store.take_lease("x", "c", hour).await.unwrap(), None);
            store.give_lease_back(&second).await.unwrap();
            assert!(store.take_lease("x", "c", hour).await.unwrap().is_some());
        })
        .await;
    }
}
