//! How values of the domain lie in columns: as text, 64-bit integers and doubles, which is what
//! SQLite, PostgreSQL and sqlx's `Any` driver have in common. Booleans are 0 and 1, since SQLite's are not
//! understood by that driver.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::error::BoxDynError;
use sqlx::{Arguments as _, Row as _, ValueRef as _};

use super::StoreError;
use crate::time::Timestamp;

/// One bound value. A null has a type, because PostgreSQL wants to know it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(Option<String>),
    Integer(Option<i64>),
    Real(Option<f64>),
}

/// A clause of the program's own with its `?` as places after the first `before`: `$3`, `$4`, …
pub(crate) fn placed(clause: &str, before: usize) -> String {
    let mut parts = clause.split('?');
    let mut text = parts.next().unwrap_or("").to_owned();
    for (part, place) in parts.zip(before + 1..) {
        text.push_str(&format!("${place}{part}"));
    }
    text
}

/// A type that fits into a column.
pub trait Column: Sized {
    /// The null of its column type.
    const NULL: Value;
    fn to_value(&self) -> Value;
    /// # Errors
    /// [`StoreError::Malformed`] if the column holds something else.
    fn read(row: &AnyRow, column: &str) -> Result<Self, StoreError>;
}

/// Reads `column` of a row of any query.
///
/// # Errors
/// [`StoreError::Malformed`] if it is missing or holds something else.
pub fn read<T: Column>(row: &AnyRow, column: &str) -> Result<T, StoreError> {
    T::read(row, column)
}

pub(crate) fn malformed(column: &str, problem: impl Into<BoxDynError>) -> StoreError {
    StoreError::Malformed {
        table: "a row",
        column: column.to_owned(),
        problem: problem.into().to_string(),
    }
}

impl Value {
    pub(crate) fn add_to(self, arguments: &mut AnyArguments) -> Result<(), StoreError> {
        match self {
            Self::Text(text) => arguments.add(text),
            Self::Integer(integer) => arguments.add(integer),
            Self::Real(real) => arguments.add(real),
        }
        .map_err(|error| StoreError::Database(sqlx::Error::Encode(error)))
    }
}

/// The arguments of a statement, for `$1`, `$2`, … in order.
///
/// # Errors
/// Only if the driver refuses to encode one, which it does for none of the three types.
pub fn arguments(values: impl IntoIterator<Item = Value>) -> Result<AnyArguments, StoreError> {
    let mut arguments = AnyArguments::default();
    for value in values {
        value.add_to(&mut arguments)?;
    }
    Ok(arguments)
}

/// Whether a statement with these values may be kept prepared. sqlx's `Any` declares a null double as a single:
/// kept, the statement would refuse the next one that is not null.
pub(crate) fn may_be_kept(values: &[Value]) -> bool {
    !values.contains(&Value::Real(None))
}

impl Column for String {
    const NULL: Value = Value::Text(None);
    fn to_value(&self) -> Value {
        Value::Text(Some(self.clone()))
    }
    fn read(row: &AnyRow, column: &str) -> Result<Self, StoreError> {
        row.try_get(column)
            .map_err(|error| malformed(column, error))
    }
}

impl Column for i64 {
    const NULL: Value = Value::Integer(None);
    fn to_value(&self) -> Value {
        Value::Integer(Some(*self))
    }
    fn read(row: &AnyRow, column: &str) -> Result<Self, StoreError> {
        row.try_get(column)
            .map_err(|error| malformed(column, error))
    }
}

impl Column for f64 {
    const NULL: Value = Value::Real(None);
    fn to_value(&self) -> Value {
        Value::Real(Some(*self))
    }
    fn read(row: &AnyRow, column: &str) -> Result<Self, StoreError> {
        row.try_get(column)
            .map_err(|error| malformed(column, error))
    }
}

impl Column for bool {
    const NULL: Value = Value::Integer(None);
    fn to_value(&self) -> Value {
        Value::Integer(Some(i64::from(*self)))
    }
    fn read(row: &AnyRow, column: &str) -> Result<Self, StoreError> {
        i64::read(row, column).map(|bit| bit != 0)
    }
}

impl Column for u32 {
    const NULL: Value = Value::Integer(None);
    fn to_value(&self) -> Value {
        Value::Integer(Some(i64::from(*self)))
    }
    fn read(row: &AnyRow, column: &str) -> Result<Self, StoreError> {
        Self::try_from(i64::read(row, column)?).map_err(|error| malformed(column, error))
    }
}

impl Column for Timestamp {
    const NULL: Value = Value::Integer(None);
    fn to_value(&self) -> Value {
        Value::Integer(Some(self.as_micros()))
    }
    fn read(row: &AnyRow, column: &str) -> Result<Self, StoreError> {
        i64::read(row, column).map(Self::from_micros)
    }
}

impl<T: Column> Column for Option<T> {
    const NULL: Value = T::NULL;
    fn to_value(&self) -> Value {
        self.as_ref().map_or(T::NULL, Column::to_value)
    }
    fn read(row: &AnyRow, column: &str) -> Result<Self, StoreError> {
        let raw = row
            .try_get_raw(column)
            .map_err(|error| malformed(column, error))?;
        if raw.is_null() {
            Ok(None)
        } else {
            T::read(row, column).map(Some)
        }
    }
}

/// A value kept as JSON text. The database never looks into it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Json<T>(pub T);

/// JSON without a type of its own: hyperparameters, schemas, engine options.
pub type Document = Json<serde_json::Value>;

impl<T: Serialize + DeserializeOwned> Column for Json<T> {
    const NULL: Value = Value::Text(None);
    fn to_value(&self) -> Value {
        // Only maps with keys that are not text fail, and no record has one. A null column would be
        // refused by the database rather than silently kept.
        Value::Text(serde_json::to_string(&self.0).ok())
    }
    fn read(row: &AnyRow, column: &str) -> Result<Self, StoreError> {
        let text = String::read(row, column)?;
        serde_json::from_str(&text)
            .map(Self)
            .map_err(|error| malformed(column, error))
    }
}

/// A column for a type that reads (`FromStr`) what it prints (`Display`).
macro_rules! text_column {
    ($name:ty) => {
        impl $crate::store::Column for $name {
            const NULL: $crate::store::Value = $crate::store::Value::Text(None);
            fn to_value(&self) -> $crate::store::Value {
                $crate::store::Value::Text(Some(self.to_string()))
            }
            fn read(
                row: &sqlx::any::AnyRow,
                column: &str,
            ) -> Result<Self, $crate::store::StoreError> {
                <String as $crate::store::Column>::read(row, column)?
                    .parse()
                    .map_err(|error| $crate::store::column::malformed(column, error))
            }
        }
    };
}
pub(crate) use text_column;
