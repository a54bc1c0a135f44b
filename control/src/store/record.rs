//! What every record can do: be created, read, listed, edited and put away. A record's own file says
//! only which columns it has.

use std::fmt::Debug;
use std::ops::Deref;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe};

use super::audit::{Actor, Audit};
use super::column::{Column, Value, arguments, may_be_kept, read};
use super::{Store, StoreError, Tx};
use crate::id::Id;
use crate::time::Timestamp;

/// A kind of row that is edited under an optimistic lock and put away softly. Implemented by
/// [`mapped!`](super::mapped).
pub trait Record:
    Clone + PartialEq + Debug + Serialize + JsonSchema + Send + Sync + Unpin + 'static
{
    type Id: Id + Column + Serialize + JsonSchema;
    const TABLE: &'static str;
    /// Its own columns; `id`, `version` and the three instants come on top.
    const COLUMNS: &'static [&'static str];

    /// In the order of `COLUMNS`.
    fn values(&self) -> Vec<Value>;
    /// # Errors
    /// [`StoreError::Malformed`].
    fn read(row: &AnyRow) -> Result<Self, StoreError>;
    /// A field that is set once and differs between the two.
    fn fixed_field_changed(&self, other: &Self) -> Option<&'static str>;
}

/// A record as it lies in the database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(bound = "R: JsonSchema, R::Id: JsonSchema", rename = "{R}Record")]
pub struct Stored<R: Record> {
    pub id: R::Id,
    /// Goes up by one with every change; a change names the one it was made against.
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deleted_at: Option<Timestamp>,
    #[serde(flatten)]
    pub record: R,
}

impl<R: Record> Deref for Stored<R> {
    type Target = R;
    fn deref(&self) -> &R {
        &self.record
    }
}

impl<R: Record> Stored<R> {
    /// # Errors
    /// [`StoreError::Malformed`], naming the table.
    pub fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        Self::columns_of(row).map_err(|error| match error {
            StoreError::Malformed {
                column, problem, ..
            } => StoreError::Malformed {
                table: R::TABLE,
                column,
                problem,
            },
            other => other,
        })
    }

    fn columns_of(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: read(row, "id")?,
            version: read(row, "version")?,
            created_at: read(row, "created_at")?,
            updated_at: read(row, "updated_at")?,
            deleted_at: read(row, "deleted_at")?,
            record: R::read(row)?,
        })
    }
}

/// Columns that every record has beside its own.
pub(super) const COMMON: &[&str] = &["id", "version", "created_at", "updated_at", "deleted_at"];

/// `id, version, …, name, description` for a SELECT of this record.
pub fn columns<R: Record>() -> String {
    [COMMON, R::COLUMNS].concat().join(", ")
}

/// Maps a record to its table: `mapped! { Model(ModelId) in "models": fixed [department], editable [name] }`.
/// A field has its column's name. Those under `fixed` are set by `create` and never edited.
macro_rules! mapped {
    ($record:ident($id:ty) in $table:literal: fixed [$($fixed:ident),* $(,)?], editable [$($editable:ident),* $(,)?]) => {
        impl $crate::store::Record for $record {
            type Id = $id;
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] = &[$(stringify!($fixed),)* $(stringify!($editable),)*];

            fn values(&self) -> Vec<$crate::store::Value> {
                vec![
                    $($crate::store::Column::to_value(&self.$fixed),)*
                    $($crate::store::Column::to_value(&self.$editable),)*
                ]
            }

            fn read(row: &sqlx::any::AnyRow) -> Result<Self, $crate::store::StoreError> {
                Ok(Self {
                    $($fixed: $crate::store::read(row, stringify!($fixed))?,)*
                    $($editable: $crate::store::read(row, stringify!($editable))?,)*
                })
            }

            fn fixed_field_changed(&self, other: &Self) -> Option<&'static str> {
                $(if self.$fixed != other.$fixed { return Some(stringify!($fixed)); })*
                let _ = other;
                None
            }
        }
    };
}
pub(crate) use mapped;

/// Reads one record that is not put away.
///
/// # Errors
/// [`StoreError::NotFound`] among others.
pub async fn get<R: Record>(
    connection: &mut AnyConnection,
    id: R::Id,
) -> Result<Stored<R>, StoreError> {
    find::<R>(connection, "id", id.to_value())
        .await?
        .ok_or_else(|| not_found::<R>(id))
}

/// Reads the record whose `column` is `value`, if there is one. `column` must be unique among those
/// that are not put away.
pub(super) async fn find<R: Record>(
    connection: &mut AnyConnection,
    column: &'static str,
    value: Value,
) -> Result<Option<Stored<R>>, StoreError> {
    let sql = format!(
        "SELECT {} FROM {} WHERE {column} = $1 AND deleted_at IS NULL",
        columns::<R>(),
        R::TABLE
    );
    // Safe: table and columns are constants of the program.
    let row = sqlx::query_with(AssertSqlSafe(sql), arguments([value])?)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(Stored::from_row).transpose()
}

pub(super) fn not_found<R: Record>(id: R::Id) -> StoreError {
    StoreError::NotFound {
        kind: R::Id::KIND,
        id: id.to_string(),
    }
}

pub(super) fn expect_version<R: Record>(
    before: &Stored<R>,
    expected: Option<i64>,
) -> Result<(), StoreError> {
    match expected {
        Some(expected) if expected != before.version => Err(StoreError::Stale {
            kind: R::Id::KIND,
            id: before.id.to_string(),
            expected,
            found: before.version,
        }),
        _ => Ok(()),
    }
}

impl Tx {
    /// # Errors
    /// [`StoreError::Conflict`] or [`StoreError::Reference`] among others.
    pub async fn create<R: Record>(
        &mut self,
        actor: &Actor,
        record: R,
    ) -> Result<Stored<R>, StoreError> {
        self.create_as(actor, R::Id::new(), record).await
    }

    /// Like [`create`](Self::create), with an id that was made before: for records that refer to each other.
    ///
    /// # Errors
    /// As `create`.
    pub async fn create_as<R: Record>(
        &mut self,
        actor: &Actor,
        id: R::Id,
        record: R,
    ) -> Result<Stored<R>, StoreError> {
        let now = self.now();
        let stored = Stored {
            id,
            version: 1,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            record,
        };
        let names = columns::<R>();
        let places = (1..=COMMON.len() + R::COLUMNS.len())
            .map(|n| format!("${n}"))
            .collect::<Vec<_>>();
        let sql = format!(
            "INSERT INTO {} ({names}) VALUES ({})",
            R::TABLE,
            places.join(", ")
        );
        let common = [
            id.to_value(),
            1i64.to_value(),
            now.to_value(),
            now.to_value(),
            None::<Timestamp>.to_value(),
        ];
        let own = stored.record.values();
        let kept = may_be_kept(&own);
        let values = arguments(common.into_iter().chain(own))?;
        // Safe: table and columns are constants of the program.
        sqlx::query_with(AssertSqlSafe(sql), values)
            .persistent(kept)
            .execute(self.connection())
            .await?;
        self.audit(&Audit::of(actor, "create", id).after(&stored))
            .await?;
        Ok(stored)
    }

    /// Edits a record. `expected` is the version that the change was made against; `None` takes it as
    /// it is now, which is for the system's own bookkeeping.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Stale`], [`StoreError::Fixed`] among others.
    pub async fn update<R: Record>(
        &mut self,
        actor: &Actor,
        id: R::Id,
        expected: Option<i64>,
        edit: impl FnOnce(&mut R) + Send,
    ) -> Result<Stored<R>, StoreError> {
        let before = get::<R>(self.connection(), id).await?;
        expect_version(&before, expected)?;
        let mut record = before.record.clone();
        edit(&mut record);
        if let Some(field) = before.record.fixed_field_changed(&record) {
            return Err(StoreError::Fixed {
                kind: R::Id::KIND,
                field,
            });
        }
        if record == before.record {
            return Ok(before);
        }
        let after = self.replace(&before, record).await?;
        self.audit(&Audit::of(actor, "update", id).before(&before).after(&after))
            .await?;
        Ok(after)
    }

    /// Puts a record away: it is no longer found or listed, and its name may be used again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Stale`] among others.
    pub async fn delete<R: Record>(
        &mut self,
        actor: &Actor,
        id: R::Id,
        expected: Option<i64>,
    ) -> Result<(), StoreError> {
        let before = get::<R>(self.connection(), id).await?;
        expect_version(&before, expected)?;
        let sql = format!(
            "UPDATE {} SET deleted_at = $1, updated_at = $1, version = version + 1 \
             WHERE id = $2 AND version = $3 AND deleted_at IS NULL",
            R::TABLE
        );
        let values = arguments([
            self.now().to_value(),
            id.to_value(),
            before.version.to_value(),
        ])?;
        // Safe: the table is a constant of the program.
        let done = sqlx::query_with(AssertSqlSafe(sql), values)
            .execute(self.connection())
            .await?;
        self.changed_one(done.rows_affected(), &before).await?;
        self.audit(&Audit::of(actor, "delete", id).before(&before))
            .await
    }

    /// Writes all columns of `record` over `before`, unless somebody else changed it meanwhile.
    pub(crate) async fn replace<R: Record>(
        &mut self,
        before: &Stored<R>,
        record: R,
    ) -> Result<Stored<R>, StoreError> {
        let after = Stored {
            version: before.version + 1,
            updated_at: self.now(),
            record,
            ..before.clone()
        };
        let assignments: Vec<String> = R::COLUMNS
            .iter()
            .zip(5..)
            .map(|(column, place)| format!("{column} = ${place}"))
            .collect();
        let sql = format!(
            "UPDATE {} SET version = $1, updated_at = $2{}{} WHERE id = $3 AND version = $4 AND deleted_at IS NULL",
            R::TABLE,
            if assignments.is_empty() { "" } else { ", " },
            assignments.join(", "),
        );
        let common = [
            after.version.to_value(),
            after.updated_at.to_value(),
            before.id.to_value(),
            before.version.to_value(),
        ];
        let own = after.record.values();
        let kept = may_be_kept(&own);
        let values = arguments(common.into_iter().chain(own))?;
        // Safe: table and columns are constants of the program.
        let done = sqlx::query_with(AssertSqlSafe(sql), values)
            .persistent(kept)
            .execute(self.connection())
            .await?;
        self.changed_one(done.rows_affected(), before).await?;
        Ok(after)
    }

    /// Turns "no row changed" into the reason: someone was faster, or put it away.
    async fn changed_one<R: Record>(
        &mut self,
        rows: u64,
        before: &Stored<R>,
    ) -> Result<(), StoreError> {
        if rows == 1 {
            return Ok(());
        }
        let now = get::<R>(self.connection(), before.id).await?;
        Err(StoreError::Stale {
            kind: R::Id::KIND,
            id: before.id.to_string(),
            expected: before.version,
            found: now.version,
        })
    }

    /// # Errors
    /// [`StoreError::NotFound`] among others.
    pub async fn get<R: Record>(&mut self, id: R::Id) -> Result<Stored<R>, StoreError> {
        get(self.connection(), id).await
    }
}

/// The same, each in a transaction of its own.
impl Store {
    /// # Errors
    /// [`StoreError::NotFound`] among others.
    pub async fn get<R: Record>(&self, id: R::Id) -> Result<Stored<R>, StoreError> {
        get(&mut *self.reader().await?, id).await
    }

    /// # Errors
    /// As [`Tx::create`].
    pub async fn create<R: Record>(
        &self,
        actor: &Actor,
        record: R,
    ) -> Result<Stored<R>, StoreError> {
        let mut tx = self.begin().await?;
        let stored = tx.create(actor, record).await?;
        tx.commit().await?;
        Ok(stored)
    }

    /// # Errors
    /// As [`Tx::update`].
    pub async fn update<R: Record>(
        &self,
        actor: &Actor,
        id: R::Id,
        expected: Option<i64>,
        edit: impl FnOnce(&mut R) + Send,
    ) -> Result<Stored<R>, StoreError> {
        let mut tx = self.begin().await?;
        let stored = tx.update(actor, id, expected, edit).await?;
        tx.commit().await?;
        Ok(stored)
    }

    /// # Errors
    /// As [`Tx::delete`].
    pub async fn delete<R: Record>(
        &self,
        actor: &Actor,
        id: R::Id,
        expected: Option<i64>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.delete::<R>(actor, id, expected).await?;
        tx.commit().await
    }
}

/// For records that are counted within another.
impl Tx {
    /// Takes a row's lock until the transaction ends: those who number things within it come one after
    /// the other. An UPDATE that changes nothing is a lock on both databases.
    pub(super) async fn lock(&mut self, table: &'static str, id: Value) -> Result<(), StoreError> {
        let sql = format!("UPDATE {table} SET updated_at = updated_at WHERE id = $1");
        // Safe: the table is a constant of the program.
        sqlx::query_with(AssertSqlSafe(sql), arguments([id])?)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// One more than the greatest `number` among the rows of `table` whose `parent` column is `id`. Numbers
    /// of rows that were put away are not given again.
    pub(super) async fn next_number(
        &mut self,
        table: &'static str,
        parent: &'static str,
        id: Value,
    ) -> Result<i64, StoreError> {
        let sql =
            format!("SELECT COALESCE(MAX(number), 0) + 1 AS next FROM {table} WHERE {parent} = $1");
        // Safe: table and column are constants of the program.
        let row = sqlx::query_with(AssertSqlSafe(sql), arguments([id])?)
            .fetch_one(self.connection())
            .await?;
        read(&row, "next")
    }
}
