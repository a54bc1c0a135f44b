//! `sluice worker`: work the queue of tasks, beside a server or without one.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use sluice_control::pipelines::{Convert, KeepInFolder, Pipelines};
use sluice_control::store::{DatabaseUrl, Store, StoreSettings};
use sluice_control::tasks::executor::{Limits, LocalExecutor};
use sluice_control::tasks::{Kinds, Queue, QueueSettings, Worker as TaskWorker, WorkerSettings};
use tokio::signal::unix::{SignalKind, signal};

use super::{output, serve};

/// Do the long work, such as conversions: any number of workers may share a database.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice worker                                        # on ./data/sluice.db\n  sluice worker --database postgres://sluice@db/sluice --slots 8\n\nSIGTERM lets short tasks end and gives the others back; a second one stops at once."
)]
pub(crate) struct Worker {
    /// The database: sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE; sqlite:DATA/sluice.db by default.
    #[arg(
        long,
        env = "SLUICE_DATABASE",
        hide_env_values = true,
        value_name = "URL"
    )]
    database: Option<DatabaseUrl>,
    /// Folder for Python environments, logs and results.
    #[arg(
        long,
        env = "SLUICE_DATA",
        default_value = "data",
        value_name = "FOLDER"
    )]
    data: PathBuf,
    /// Where conversion pipelines lie.
    #[arg(long, default_value = "pipelines", value_name = "FOLDER")]
    pipelines: PathBuf,
    /// Tasks at once.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    slots: u16,
    /// Conversions at once, on all workers together; as many as there are slots if absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    conversions: Option<u32>,
    /// Memory of one conversion with all its processes, in MiB; it fails when it uses more.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    memory: Option<u64>,
    /// How long running tasks may go on after SIGTERM, in seconds.
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    drain: u64,
}

impl Worker {
    pub(crate) async fn run(self) -> Result<()> {
        serve::start_log();
        std::fs::create_dir_all(&self.data)
            .with_context(|| format!("data: cannot make {}", self.data.display()))?;
        let url = self
            .database
            .clone()
            .unwrap_or_else(|| DatabaseUrl::Sqlite(self.data.join("sluice.db")));
        let kinds = self.kinds()?;
        let store = Store::open(&url, &StoreSettings::default())
            .await
            .with_context(|| format!("database {url}"))?;
        let settings = WorkerSettings {
            slots: self.slots.into(),
            drain: std::time::Duration::from_secs(self.drain),
            ..WorkerSettings::new(self.data.join("tasks"))
        };
        let mut terminate = signal(SignalKind::terminate()).context("signal handlers")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("signal handlers")?;
        let mut told = async move || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let queue = Queue::new(store.clone(), QueueSettings::default());
        let worker = TaskWorker::start(queue, kinds.clone(), Arc::new(LocalExecutor), settings);
        output::note(format!(
            "Worker {} takes {kinds:?} from {url}",
            worker.name()
        ));
        told().await;
        output::note("Stopping: running tasks may end, others are given back");
        tokio::select! {
            () = worker.drain() => {}
            // Their leases run out; another worker, or the next start of this one, goes on.
            () = told() => output::note("Stopped at once"),
        }
        store.close().await;
        Ok(())
    }

    fn kinds(&self) -> Result<Kinds> {
        let limits = Limits {
            memory: self.memory.map(|mib| mib.saturating_mul(1 << 20)),
            ..Limits::default()
        };
        let pipelines = Pipelines::new(&self.pipelines, self.data.join("venv"), limits)
            .context("pipelines (--pipelines names their folder)")?;
        let convert = Convert {
            pipelines,
            keep: KeepInFolder(self.data.join("conversions")),
        };
        Ok(match self.conversions {
            Some(limit) => Kinds::new().with_limit(convert, limit),
            None => Kinds::new().with(convert),
        })
    }
}
