//! Everything that can go wrong with a record, in the words of the caller rather than the database.

use super::StorageFault;
use crate::domain::machine::Illegal;

/// Why the store did not do it. The comment of each says what it becomes over HTTP.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// 404.
    #[error("there is no {kind} {id}")]
    NotFound { kind: &'static str, id: String },
    /// 409: somebody else was faster.
    #[error(
        "{kind} {id} was changed meanwhile: it is at version {found}, the change was made against {expected}; read it again"
    )]
    Stale {
        kind: &'static str,
        id: String,
        expected: i64,
        found: i64,
    },
    /// 409: another record has this value already.
    #[error("there is another {kind} with this {field}")]
    Conflict { kind: String, field: String },
    /// 409, with the events that would be legal.
    #[error(transparent)]
    IllegalTransition(#[from] Illegal),
    /// 409: other records still refer to it, or it refers to one that does not exist.
    #[error("a record that this one refers to does not exist, or others still refer to this one")]
    Reference,
    /// 422: the field is set once.
    #[error("{field} of a {kind} is set when it is created and stays")]
    Fixed {
        kind: &'static str,
        field: &'static str,
    },
    /// 422.
    #[error("{field}: {problem}")]
    Invalid { field: String, problem: String },
    /// 503, and worth another try: the database cannot be reached, is busy or is starting.
    #[error("the database does not answer")]
    Unavailable(#[source] sqlx::Error),
    /// 503, and worth another try: the disk or the server takes no writes. Nothing was written.
    #[error("{fault}")]
    Storage {
        fault: StorageFault,
        #[source]
        cause: Option<sqlx::Error>,
    },
    /// The schema has steps that this binary does not know: it could lose or damage what they hold.
    #[error(
        "the database is at schema {found}, and this is sluice {}, which knows schemas up to {known}: use the version \
         that brought it there, or a later one",
        env!("CARGO_PKG_VERSION")
    )]
    NewerSchema { found: i64, known: i64 },
    /// 500: a column holds what this binary cannot read, a newer one's word for example.
    #[error("column {column} of {table} cannot be read: {problem}")]
    Malformed {
        table: &'static str,
        column: String,
        problem: String,
    },
    /// 500.
    #[error("the database schema could not be brought up to date")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// 500.
    #[error("the database refused a statement")]
    Database(#[source] sqlx::Error),
}

impl StoreError {
    /// A field's value that is not acceptable, and what would be.
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            problem: problem.into(),
        }
    }

    /// Whether the same call may succeed if it is made again, unchanged, a little later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Storage { .. })
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::error::ErrorKind;
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::Database(refusal) => match refusal.kind() {
                ErrorKind::UniqueViolation => collision(refusal.as_ref()),
                ErrorKind::ForeignKeyViolation => Self::Reference,
                _ => match StorageFault::of(refusal.as_ref()) {
                    Some(fault) => Self::Storage {
                        fault,
                        cause: Some(error),
                    },
                    None if passes(refusal.code().as_deref()) => Self::Unavailable(error),
                    None => Self::Database(error),
                },
            },
            _ => Self::Database(error),
        }
    }
}

/// Codes of refusals that a later try may not meet. SQLite: busy and locked, with their extended
/// forms, and a file that cannot be opened. PostgreSQL: class 08 (connection), 28 (a login that is refused: passwords
/// are rotated), 3D (the database is not there), 40 (serialization, deadlock), 53 (out of something), 55P03 (lock), 57P
/// (shutting down, starting up).
fn passes(code: Option<&str>) -> bool {
    let Some(code) = code else { return false };
    if code.len() == 5 {
        return ["08", "28", "3D", "40", "53", "55P03", "57P"]
            .iter()
            .any(|class| code.starts_with(class));
    }
    // The low byte of an extended SQLite code is its primary code.
    matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(5 | 6 | 14))
}

/// PostgreSQL names the index (`models__name_unique`), SQLite the columns (`models.department,
/// models.name`): the naming rule of the migrations makes both say table and field.
fn collision(refusal: &dyn sqlx::error::DatabaseError) -> StoreError {
    let (table, field) = match refusal.constraint() {
        Some(index) => index
            .strip_suffix("_unique")
            .and_then(|index| index.split_once("__")),
        None => refusal
            .message()
            .rsplit([' ', ','])
            .next()
            .and_then(|column| column.split_once('.')),
    }
    .unwrap_or(("records", "identity"));
    let singular = table.strip_suffix('s').unwrap_or(table).replace('_', " ");
    StoreError::Conflict {
        kind: singular,
        field: field.to_owned(),
    }
}
