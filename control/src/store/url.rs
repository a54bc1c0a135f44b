//! Which database: a file, or a PostgreSQL server.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::ConnectOptions as _;
use sqlx::any::AnyConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::StoreError;

/// Where the records are: `sqlite:PATH`, or `postgres://USER:PASSWORD@HOST/DATABASE`.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    Sqlite(PathBuf),
    Postgres(String),
}

/// A text that names no database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("database: should be sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
pub struct DatabaseUrlError;

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;
    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            text.parse::<AnyConnectOptions>()
                .map_err(|_| DatabaseUrlError)?;
            return Ok(Self::Postgres(text.to_owned()));
        }
        match text
            .strip_prefix("sqlite://")
            .or_else(|| text.strip_prefix("sqlite:"))
        {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(PathBuf::from(path))),
            _ => Err(DatabaseUrlError),
        }
    }
}

impl DatabaseUrl {
    /// For the first connection, which makes SQLite's file where there is none.
    pub(super) fn connect_options(&self) -> Result<AnyConnectOptions, StoreError> {
        self.options(true)
    }

    /// For a database that is there.
    pub(super) fn options_of_existing(&self) -> Result<AnyConnectOptions, StoreError> {
        self.options(false)
    }

    fn options(&self, create: bool) -> Result<AnyConnectOptions, StoreError> {
        match self {
            Self::Sqlite(path) => {
                let url = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(create)
                    .to_url_lossy();
                Ok(AnyConnectOptions::from_url(&url)?)
            }
            Self::Postgres(url) => Ok(url.parse()?),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    /// Without the password: this goes into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
                let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                write!(f, "{scheme}://{host}")
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
