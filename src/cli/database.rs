//! `sluice migrate`, `backup`, `restore`: the records' database, without a server.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sluice_control::store::{DatabaseUrl, Store, StoreSettings};

use super::output;
use super::plan::Plan;

/// Which database: the configuration's, unless named.
#[derive(Debug, clap::Args)]
struct Source {
    /// Configuration that names it; ./sluice.toml when it exists.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`, instead of the configuration's.
    #[arg(
        long,
        env = "SLUICE_DATABASE",
        hide_env_values = true,
        value_name = "URL"
    )]
    database: Option<DatabaseUrl>,
}

impl Source {
    fn resolve(&self) -> Result<(DatabaseUrl, StoreSettings)> {
        let plan = Plan::read(self.config.as_deref())?;
        let url = self.database.clone().unwrap_or(plan.url);
        Ok((url, plan.store))
    }

    async fn connect(&self) -> Result<(DatabaseUrl, Store)> {
        let (url, settings) = self.resolve()?;
        let store = Store::connect(&url, &settings)
            .await
            .with_context(|| url.to_string())?;
        Ok((url, store))
    }
}

/// Bring the database's schema up to date.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice migrate\n  sluice migrate --database postgres://sluice@db/sluice\n\n`sluice serve` does this by itself; this is for doing it before, or with other rights."
)]
pub(crate) struct Migrate {
    #[command(flatten)]
    source: Source,
}

impl Migrate {
    pub(crate) async fn run(self) -> Result<()> {
        let (url, store) = self.source.connect().await?;
        let before = store.schema().await?;
        store.migrate().await?;
        let after = store.schema().await?;
        store.close().await;
        output::line(match before == after {
            true => format!("{url} is at schema {after} already"),
            false => format!("{url} went from schema {before} to {after}"),
        })
    }
}

/// Write all records to a file, while the server runs.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice backup records.jsonl\n  sluice backup --database postgres://sluice@db/sluice records.jsonl\n\nThe file is of one instant, and can be restored into SQLite and PostgreSQL alike. It holds\nthe hashes of keys: keep it as safe as the database. Artifacts' bytes are not in it."
)]
pub(crate) struct Backup {
    #[command(flatten)]
    source: Source,
    /// The file; one that is there is replaced once the new one is whole.
    file: PathBuf,
}

impl Backup {
    pub(crate) async fn run(self) -> Result<()> {
        let (url, store) = self.source.connect().await?;
        anyhow::ensure!(store.schema().await? > 0, "{url} holds no records");
        let mut name = self.file.clone().into_os_string();
        name.push(".part");
        let part = PathBuf::from(name);
        let rows = write(&store, &part).await;
        store.close().await;
        match rows {
            Ok(rows) => {
                std::fs::rename(&part, &self.file)
                    .with_context(|| self.file.display().to_string())?;
                output::line(format!("{rows} rows of {url} in {}", self.file.display()))
            }
            Err(error) => {
                // Half a backup is of no use; where it cannot be removed, its name says what it is.
                let _ = std::fs::remove_file(&part);
                Err(error)
            }
        }
    }
}

async fn write(store: &Store, path: &Path) -> Result<u64> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| path.display().to_string())?;
    let mut file = BufWriter::new(file);
    let rows = store.back_up(&mut file).await?;
    let file = file.into_inner().map_err(|error| error.into_error())?;
    file.sync_all()?;
    Ok(rows)
}

/// Fill an empty database from a backup.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice restore records.jsonl\n  sluice restore --database postgres://sluice@db/sluice records.jsonl\n\nAll of it is written, or nothing. Stop the server first, or restore into a database that\nno server has opened."
)]
pub(crate) struct Restore {
    #[command(flatten)]
    source: Source,
    /// The file that `sluice backup` wrote.
    file: PathBuf,
}

impl Restore {
    pub(crate) async fn run(self) -> Result<()> {
        let file = File::open(&self.file).with_context(|| self.file.display().to_string())?;
        let (url, store) = self.source.connect().await?;
        let restored = store.restore(&mut BufReader::new(file)).await;
        store.close().await;
        let rows = restored.with_context(|| self.file.display().to_string())?;
        output::line(format!("{rows} rows restored into {url}"))
    }
}
