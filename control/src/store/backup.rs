//! All records in one file, and back: consistent while others write, and the same for both databases, so that a
//! backup of one can be restored into the other.
//!
//! The file is JSON, a line at a time: a header, then for each table its columns and its rows as arrays, then the
//! number of rows, by which a file that was cut off is known. Tables and columns are read from the migrations, which
//! also say in which order they can be filled: a table refers only to those made before it.

use std::io::{BufRead, Write};

use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _};

use super::column::{Column, Value, arguments, read};
use super::evaluation::places;
use super::migration::{STEPS, migrator_to};
use super::{Dialect, Store, StoreError};
use crate::time::Timestamp;

const FORMAT: &str = "sluice-backup-1";
/// Values of one statement at most; both databases bind more.
const VALUES: usize = 7_500;

/// Why there is no backup, or it was not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the backup cannot be read or written")]
    File(#[from] std::io::Error),
    #[error("line {line} of the backup is damaged: {problem}")]
    Damaged { line: usize, problem: String },
    #[error("the database already holds records; restore into an empty one")]
    NotEmpty,
    #[error(
        "the backup is of schema {found}, and this is sluice {}, which knows schemas up to {known}; restore it with the \
         version that made it, or a later one",
        env!("CARGO_PKG_VERSION")
    )]
    Newer { found: i64, known: i64 },
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    schema: i64,
    made_at: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct TableHead {
    table: String,
    columns: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct End {
    rows: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Real,
}

/// A table as the migrations describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    name: String,
    columns: Vec<(String, Kind)>,
}

/// The tables of a schema, in an order in which they can be filled.
fn tables(schema: i64) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let steps = STEPS.iter().filter(|(version, ..)| *version <= schema);
    let lines = steps.flat_map(|(_, _, sql)| sql.lines()).map(str::trim);
    // Without comments, which may hold anything.
    let sql: Vec<&str> = lines.filter(|line| !line.starts_with("--")).collect();
    for statement in sql.join("\n").split(';') {
        let lines: Vec<&str> = statement.lines().filter(|line| !line.is_empty()).collect();
        let words: Vec<&str> = lines
            .first()
            .map(|line| line.split_whitespace().collect())
            .unwrap_or_default();
        match words.as_slice() {
            ["CREATE", "TABLE", name, ..] => tables.push(Table {
                name: (*name).to_owned(),
                columns: lines
                    .iter()
                    .skip(1)
                    .filter_map(|line| column(line))
                    .collect(),
            }),
            ["ALTER", "TABLE", name, "ADD", "COLUMN", rest @ ..] => {
                let table = tables.iter_mut().find(|table| table.name == *name);
                if let (Some(table), Some(column)) = (table, column(&rest.join(" "))) {
                    table.columns.push(column);
                }
            }
            ["DROP", "TABLE", name, ..] => tables.retain(|table| table.name != *name),
            _ => {}
        }
    }
    tables
}

fn column(line: &str) -> Option<(String, Kind)> {
    let mut words = line.split([' ', ',']);
    let name = words.next()?;
    let kind = match words.next()? {
        "TEXT" => Kind::Text,
        "BIGINT" => Kind::Integer,
        "DOUBLE" => Kind::Real,
        _ => return None,
    };
    Some((name.to_owned(), kind))
}

impl Kind {
    fn to_json(self, row: &AnyRow, column: &str) -> Result<serde_json::Value, StoreError> {
        Ok(match self {
            Self::Text => read::<Option<String>>(row, column)?.into(),
            Self::Integer => read::<Option<i64>>(row, column)?.into(),
            Self::Real => read::<Option<f64>>(row, column)?.into(),
        })
    }

    fn of_json(self, value: &serde_json::Value) -> Option<Value> {
        Some(match self {
            _ if value.is_null() => match self {
                Self::Text => String::NULL,
                Self::Integer => i64::NULL,
                Self::Real => f64::NULL,
            },
            Self::Text => Value::Text(Some(value.as_str()?.to_owned())),
            Self::Integer => Value::Integer(Some(value.as_i64()?)),
            Self::Real => Value::Real(Some(value.as_f64()?)),
        })
    }
}

fn line(file: &mut (impl Write + ?Sized), value: &impl Serialize) -> Result<(), BackupError> {
    serde_json::to_writer(&mut *file, value).map_err(std::io::Error::from)?;
    file.write_all(b"\n")?;
    Ok(())
}

impl Store {
    /// Writes all records, as they are at one instant, to `file`; returns the number of rows.
    ///
    /// # Errors
    /// [`BackupError::Store`], among them [`StoreError::NewerSchema`], or [`BackupError::File`].
    pub async fn back_up(&self, file: &mut (impl Write + Send)) -> Result<u64, BackupError> {
        self.check_schema().await?;
        let schema = self.schema().await?;
        let mut reader = self.reader().await?;
        let begin = match self.dialect {
            // A reader of SQLite's log sees one instant from its first statement to its last.
            Dialect::Sqlite => "BEGIN",
            Dialect::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        let mut snapshot = reader.begin_with(begin).await.map_err(StoreError::from)?;
        let header = Header {
            format: FORMAT.to_owned(),
            schema,
            made_at: Timestamp::now(),
        };
        line(file, &header)?;
        let mut rows = 0;
        for table in tables(schema) {
            rows += write_table(&mut snapshot, &table, file).await?;
        }
        line(file, &End { rows })?;
        file.flush()?;
        snapshot.rollback().await.map_err(StoreError::from)?;
        Ok(rows)
    }

    /// Fills an empty database from a backup and brings its schema up to date; returns the number of rows. All of it
    /// is written or nothing.
    ///
    /// # Errors
    /// [`BackupError`]
    pub async fn restore(&self, file: &mut (impl BufRead + Send)) -> Result<u64, BackupError> {
        let mut lines = Lines { file, number: 0 };
        let header: Header = lines.next()?;
        if header.format != FORMAT {
            return Err(lines.damaged("it is of another format"));
        }
        let known = Self::latest_schema();
        if header.schema > known {
            return Err(BackupError::Newer {
                found: header.schema,
                known,
            });
        }
        self.check_schema().await?;
        if self.schema().await? > 0 {
            self.check_empty().await?;
        }
        if self.schema().await? < header.schema {
            migrator_to(header.schema)
                .run(&self.writers)
                .await
                .map_err(StoreError::Migration)?;
        }
        let rows = self.fill(&mut lines, header.schema).await?;
        self.migrate().await?;
        Ok(rows)
    }

    async fn check_empty(&self) -> Result<(), BackupError> {
        let row = sqlx::query("SELECT COUNT(*) AS found FROM audit_events")
            .fetch_one(&mut *self.reader().await?)
            .await
            .map_err(StoreError::from)?;
        if read::<i64>(&row, "found")? > 0 {
            return Err(BackupError::NotEmpty);
        }
        Ok(())
    }

    async fn fill<R: BufRead + Send>(
        &self,
        lines: &mut Lines<'_, R>,
        schema: i64,
    ) -> Result<u64, BackupError> {
        let known = tables(schema);
        let mut tx = self.begin().await?;
        let mut filling: Option<Filling> = None;
        let mut rows = 0;
        loop {
            let value: serde_json::Value = lines.next()?;
            if let Some(values) = value.as_array() {
                let Some(filling) = &mut filling else {
                    return Err(lines.damaged("a row before its table"));
                };
                filling
                    .add(values)
                    .map_err(|problem| lines.damaged(&problem))?;
                rows += 1;
                if filling.values.len() + filling.columns.len() > VALUES {
                    filling.write(tx.connection()).await?;
                }
                continue;
            }
            if let Some(mut filling) = filling.take() {
                filling.write(tx.connection()).await?;
            }
            if let Some(expected) = value["rows"].as_u64() {
                if expected != rows {
                    return Err(lines.damaged("it does not hold as many rows as it says"));
                }
                tx.commit().await?;
                return Ok(rows);
            }
            let head: TableHead =
                serde_json::from_value(value).map_err(|error| lines.damaged(&error.to_string()))?;
            filling = Some(Filling::of(&head, &known).map_err(|problem| lines.damaged(&problem))?);
        }
    }
}

async fn write_table(
    connection: &mut AnyConnection,
    table: &Table,
    file: &mut (impl Write + Send),
) -> Result<u64, BackupError> {
    let columns: Vec<String> = table.columns.iter().map(|(name, _)| name.clone()).collect();
    let sql = format!(
        "SELECT {} FROM {} ORDER BY 1",
        columns.join(", "),
        table.name
    );
    let head = TableHead {
        table: table.name.clone(),
        columns,
    };
    line(file, &head)?;
    // Safe: table and columns are constants of the migrations.
    let mut found = sqlx::query(AssertSqlSafe(sql)).fetch(connection);
    let mut rows = 0;
    while let Some(row) = found.try_next().await.map_err(StoreError::from)? {
        let values = table
            .columns
            .iter()
            .map(|(name, kind)| kind.to_json(&row, name))
            .collect::<Result<Vec<_>, _>>()?;
        line(file, &values)?;
        rows += 1;
    }
    Ok(rows)
}

/// The lines of a backup, with their numbers.
struct Lines<'a, R> {
    file: &'a mut R,
    number: usize,
}

impl<R: BufRead> Lines<'_, R> {
    fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, BackupError> {
        let mut text = String::new();
        self.number += 1;
        if self.file.read_line(&mut text)? == 0 {
            return Err(self.damaged("it ends here, too early"));
        }
        serde_json::from_str(&text).map_err(|error| self.damaged(&error.to_string()))
    }

    fn damaged(&self, problem: &str) -> BackupError {
        BackupError::Damaged {
            line: self.number,
            problem: problem.to_owned(),
        }
    }
}

/// A table that is being filled.
struct Filling {
    insert: String,
    columns: Vec<Kind>,
    values: Vec<Value>,
}

impl Filling {
    /// Names from the file go into SQL only if the migrations have them.
    fn of(head: &TableHead, known: &[Table]) -> Result<Self, String> {
        let table = known
            .iter()
            .find(|table| table.name == head.table)
            .ok_or_else(|| format!("there is no table {}", head.table))?;
        let columns = head
            .columns
            .iter()
            .map(|column| {
                let found = table.columns.iter().find(|(name, _)| name == column);
                found
                    .map(|(_, kind)| *kind)
                    .ok_or_else(|| format!("{} has no column {column}", table.name))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            insert: format!(
                "INSERT INTO {} ({}) VALUES ",
                table.name,
                head.columns.join(", ")
            ),
            columns,
            values: Vec::new(),
        })
    }

    fn add(&mut self, row: &[serde_json::Value]) -> Result<(), String> {
        if row.len() != self.columns.len() {
            return Err("a row has another number of values than its table has columns".into());
        }
        for (value, kind) in row.iter().zip(&self.columns) {
            let value = kind.of_json(value).ok_or("a value is of another type")?;
            self.values.push(value);
        }
        Ok(())
    }

    async fn write(&mut self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        let rows = self.values.len() / self.columns.len().max(1);
        if rows == 0 {
            return Ok(());
        }
        let sql = format!("{}{}", self.insert, places(rows, self.columns.len()));
        let values = arguments(self.values.drain(..))?;
        // Safe: table and columns are among those of the migrations.
        sqlx::query_with(AssertSqlSafe(sql), values)
            .execute(connection)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
