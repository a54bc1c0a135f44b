//! Pairs of answers that are kept for reading. They hold prompts, so that they are written without the audit log,
//! which every other record goes through.

use sqlx::AssertSqlSafe;

use super::column::Column as _;
use super::evaluation::places;
use super::record::{COMMON, columns};
use super::{Record as _, Store, StoreError, Tx, arguments, mapped, read};
use crate::domain::record::ReleasePair;
use crate::id::{Id as _, ReleasePairId, WorkOrderId};
use crate::release::sample::{Offered, Sample};
use crate::time::Timestamp;

mapped! {
    ReleasePair(ReleasePairId) in "release_pairs":
    fixed [work_order, at, request_id, unit, agrees, similarity, how, draw, request, live, candidate],
    editable []
}

impl Tx {
    /// Adds pairs to those of a release, and removes what they take the place of: see [`Sample`]. Returns how many
    /// the release has now.
    ///
    /// # Errors
    /// [`StoreError::Reference`] if there is no such release.
    pub async fn add_release_pairs(
        &mut self,
        release: WorkOrderId,
        pairs: Vec<ReleasePair>,
        most: usize,
    ) -> Result<usize, StoreError> {
        // Processes that add at once would each leave room for their own.
        self.lock_work_order(release).await?;
        let rows = sqlx::query_with(
            "SELECT id, agrees, draw FROM release_pairs WHERE work_order = $1",
            arguments([release.to_value()])?,
        )
        .fetch_all(self.connection())
        .await?;
        let mut sample = Sample::new(most);
        let mut gone = Vec::new();
        let mut offer = |agrees, draw, id| match sample.offer(agrees, draw, id) {
            Offered::Kept => {}
            Offered::Instead(other) => gone.push(other),
            Offered::Refused => gone.push(id),
        };
        for row in &rows {
            offer(read(row, "agrees")?, read(row, "draw")?, read(row, "id")?);
        }
        let pairs: Vec<(ReleasePairId, ReleasePair)> = pairs
            .into_iter()
            .map(|pair| (ReleasePairId::new(), pair))
            .collect();
        for (id, pair) in &pairs {
            offer(pair.agrees, pair.draw, *id);
        }
        for (id, pair) in pairs.iter().filter(|(id, _)| !gone.contains(id)) {
            self.insert_pair(*id, pair).await?;
        }
        for id in gone {
            sqlx::query_with(
                "DELETE FROM release_pairs WHERE id = $1",
                arguments([id.to_value()])?,
            )
            .execute(self.connection())
            .await?;
        }
        Ok(sample.len())
    }

    async fn insert_pair(
        &mut self,
        id: ReleasePairId,
        pair: &ReleasePair,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "INSERT INTO release_pairs ({}) VALUES {}",
            columns::<ReleasePair>(),
            places(1, COMMON.len() + ReleasePair::COLUMNS.len())
        );
        let now = self.now();
        let common = [
            id.to_value(),
            1i64.to_value(),
            now.to_value(),
            now.to_value(),
            None::<Timestamp>.to_value(),
        ];
        let values = arguments(common.into_iter().chain(pair.values()))?;
        // Safe: constants of the program and places.
        sqlx::query_with(AssertSqlSafe(sql), values)
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

impl Store {
    /// Forgets the pairs of requests that ended before `at`. Returns how many.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn forget_release_pairs(&self, at: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let done = sqlx::query_with(
            "DELETE FROM release_pairs WHERE at < $1",
            arguments([at.to_value()])?,
        )
        .execute(tx.connection())
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }
}

#[cfg(test)]
mod tests;
