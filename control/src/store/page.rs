//! Lists, a page at a time. A page continues after the last id of the one before, so that rows which
//! come or go meanwhile neither shift it nor show up twice.

use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sqlx::AssertSqlSafe;

use super::column::{Column, Value, arguments, placed};
use super::record::{COMMON, Record, Stored, columns};
use super::{Store, StoreError};
use crate::id::Id;

/// Rows a page if none are asked for.
pub const DEFAULT_LIMIT: u32 = 50;
/// The most rows a page.
pub const MAX_LIMIT: u32 = 500;

/// A page, and where the next begins.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Hand it to the next request as it is; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What to list: conditions that all have to hold, order, and the page.
#[derive(Debug, Clone)]
pub struct Listing<R: Record> {
    conditions: Vec<(String, Condition)>,
    limit: u32,
    oldest_first: bool,
    after: Option<String>,
    with_deleted: bool,
    record: PhantomData<R>,
}

#[derive(Debug, Clone)]
enum Condition {
    Is(Value),
    IsOneOf(Vec<Value>),
    IsNull,
    AtLeast(Value),
    Below(Value),
    Contains(String),
    /// A clause of the program's own with `?` for its values.
    Clause(String, Vec<Value>),
}

impl<R: Record> Default for Listing<R> {
    fn default() -> Self {
        Self {
            conditions: Vec::new(),
            limit: DEFAULT_LIMIT,
            oldest_first: false,
            after: None,
            with_deleted: false,
            record: PhantomData,
        }
    }
}

impl<R: Record> Listing<R> {
    /// All that are not put away, newest first.
    pub fn new() -> Self {
        Self::default()
    }

    fn when(mut self, field: &str, condition: Condition) -> Self {
        self.conditions.push((field.to_owned(), condition));
        self
    }

    /// Only those whose `field` is `value`. The field may come from a client: an unknown one makes
    /// [`Store::list`] answer [`StoreError::Invalid`] with the known ones.
    #[must_use]
    pub fn is(self, field: &str, value: &impl Column) -> Self {
        let value = value.to_value();
        self.when(field, Condition::Is(value))
    }

    /// The same for a value that may not have been asked for.
    #[must_use]
    pub fn is_if(self, field: &str, value: Option<&impl Column>) -> Self {
        match value {
            Some(value) => self.is(field, value),
            None => self,
        }
    }

    #[must_use]
    pub fn is_one_of<C: Column>(self, field: &str, values: &[C]) -> Self {
        let values = values.iter().map(Column::to_value).collect();
        self.when(field, Condition::IsOneOf(values))
    }

    #[must_use]
    pub fn is_null(self, field: &str) -> Self {
        self.when(field, Condition::IsNull)
    }

    #[must_use]
    pub fn at_least(self, field: &str, value: &impl Column) -> Self {
        let value = value.to_value();
        self.when(field, Condition::AtLeast(value))
    }

    #[must_use]
    pub fn below(self, field: &str, value: &impl Column) -> Self {
        let value = value.to_value();
        self.when(field, Condition::Below(value))
    }

    /// Only those whose text holds `part`, in whatever case. Reads every row that the other conditions leave.
    #[must_use]
    pub fn contains(self, field: &str, part: &str) -> Self {
        self.when(field, Condition::Contains(part.to_owned()))
    }

    /// Only those for which a clause of the program's own holds; `?` stands for each of `values` in turn.
    #[must_use]
    pub(crate) fn where_clause(self, clause: String, values: Vec<Value>) -> Self {
        self.when("id", Condition::Clause(clause, values))
    }

    #[must_use]
    pub fn oldest_first(mut self) -> Self {
        self.oldest_first = true;
        self
    }

    #[must_use]
    pub fn with_deleted(mut self) -> Self {
        self.with_deleted = true;
        self
    }

    /// Rows a page: 1 to [`MAX_LIMIT`].
    #[must_use]
    pub const fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Continues where a page ended; takes its `next`.
    #[must_use]
    pub fn after(mut self, cursor: Option<String>) -> Self {
        self.after = cursor;
        self
    }

    /// The statement and its values.
    fn statement(&self) -> Result<(String, Vec<Value>), StoreError> {
        let mut sql = Where::default();
        if !self.with_deleted {
            sql.clause("deleted_at IS NULL");
        }
        for (field, condition) in &self.conditions {
            sql.condition(known_field::<R>(field)?, condition);
        }
        if let Some(cursor) = &self.after {
            let last = decode_cursor::<R>(cursor, self.oldest_first)?;
            let place = sql.place(last.to_value());
            sql.clause(&format!(
                "id {} {place}",
                if self.oldest_first { ">" } else { "<" }
            ));
        }
        let limit = sql.place(Value::Integer(Some(i64::from(self.limit) + 1)));
        let clauses = if sql.clauses.is_empty() {
            "TRUE".to_owned()
        } else {
            sql.clauses.join(" AND ")
        };
        let text = format!(
            "SELECT {} FROM {} WHERE {clauses} ORDER BY id {} LIMIT {limit}",
            columns::<R>(),
            R::TABLE,
            if self.oldest_first { "ASC" } else { "DESC" },
        );
        Ok((text, sql.values))
    }
}

/// A WHERE under construction.
#[derive(Default)]
struct Where {
    clauses: Vec<String>,
    values: Vec<Value>,
}

impl Where {
    fn clause(&mut self, clause: &str) {
        self.clauses.push(clause.to_owned());
    }

    fn place(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    fn condition(&mut self, field: &'static str, condition: &Condition) {
        let clause = match condition {
            Condition::Is(value) => format!("{field} = {}", self.place(value.clone())),
            Condition::IsOneOf(values) if values.is_empty() => "FALSE".to_owned(),
            Condition::IsOneOf(values) => {
                let places: Vec<String> = values
                    .iter()
                    .map(|value| self.place(value.clone()))
                    .collect();
                format!("{field} IN ({})", places.join(", "))
            }
            Condition::IsNull => format!("{field} IS NULL"),
            Condition::AtLeast(value) => format!("{field} >= {}", self.place(value.clone())),
            Condition::Below(value) => format!("{field} < {}", self.place(value.clone())),
            Condition::Clause(clause, values) => {
                let text = placed(clause, self.values.len());
                self.values.extend(values.iter().cloned());
                format!("({text})")
            }
            Condition::Contains(part) => {
                let escaped = part
                    .to_lowercase()
                    .replace('\\', "\\\\")
                    .replace('%', "\\%")
                    .replace('_', "\\_");
                let place = self.place(Value::Text(Some(format!("%{escaped}%"))));
                format!("lower({field}) LIKE {place} ESCAPE '\\'")
            }
        };
        self.clauses.push(clause);
    }
}

/// The program's own constant for a field that a client named: what goes into SQL is never the client's text.
fn known_field<R: Record>(field: &str) -> Result<&'static str, StoreError> {
    R::COLUMNS
        .iter()
        .chain(COMMON)
        .copied()
        .find(|known| *known == field)
        .ok_or_else(|| {
            let shown: String = field.chars().take(64).collect();
            StoreError::invalid(
                shown,
                format!(
                    "no such field to filter by; there are {}",
                    R::COLUMNS.join(", ")
                ),
            )
        })
}

fn encode_cursor(id: impl Id, oldest_first: bool) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}{}", if oldest_first { '+' } else { '-' }, id))
}

fn decode_cursor<R: Record>(cursor: &str, oldest_first: bool) -> Result<R::Id, StoreError> {
    let refused = || {
        StoreError::invalid(
            "cursor",
            "is not one that a list of this kind and order gave",
        )
    };
    let text = URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(refused)?;
    let id = text
        .strip_prefix(if oldest_first { '+' } else { '-' })
        .ok_or_else(refused)?;
    id.parse().map_err(|_| refused())
}

impl Store {
    /// # Errors
    /// [`StoreError::Invalid`] for an unknown field, a limit out of range or a foreign cursor.
    pub async fn list<R: Record>(
        &self,
        listing: &Listing<R>,
    ) -> Result<Page<Stored<R>>, StoreError> {
        if !(1..=MAX_LIMIT).contains(&listing.limit) {
            return Err(StoreError::invalid(
                "limit",
                format!("is {}, should be 1 to {MAX_LIMIT}", listing.limit),
            ));
        }
        let (sql, values) = listing.statement()?;
        // Safe: made of the program's constants and places; every value is bound.
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments(values)?)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        let limit = listing.limit as usize;
        let more = rows.len() > limit;
        let items = rows
            .iter()
            .take(limit)
            .map(Stored::from_row)
            .collect::<Result<Vec<Stored<R>>, _>>()?;
        let next = items
            .last()
            .filter(|_| more)
            .map(|last| encode_cursor(last.id, listing.oldest_first));
        Ok(Page { items, next })
    }
}

#[cfg(test)]
mod tests;
