//! `sluice worker`: work the queue of tasks, beside a server or without one.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sluice_control::store::DatabaseUrl;
use sluice_control::work;
use tokio::signal::unix::{SignalKind, signal};

use super::plan::{Plan, configuration};
use super::{output, serve};

/// Do the long work, such as conversions: any number of workers may share a database.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice worker                                        # on ./data/sluice.db\n  sluice worker --database postgres://sluice@db/sluice --slots 8\n\nSIGTERM lets short tasks end and gives the others back; a second one stops at once."
)]
pub(crate) struct Worker {
    /// Configuration; ./sluice.toml when it exists. Its [control] counts, and options win over it.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The database: sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE; sqlite:DATA/sluice.db by default.
    #[arg(
        long,
        env = "SLUICE_DATABASE",
        hide_env_values = true,
        value_name = "URL"
    )]
    database: Option<DatabaseUrl>,
    /// Folder for Python environments, logs and results; "data" by default.
    #[arg(long, env = "SLUICE_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Where conversion pipelines lie; "pipelines" by default.
    #[arg(long, value_name = "FOLDER")]
    pipelines: Option<PathBuf>,
    /// Tasks at once; 2 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    slots: Option<u16>,
    /// Conversions at once, on all workers together; 1 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    conversions: Option<u32>,
    /// Memory of one conversion with all its processes, in MiB; it fails when it uses more.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    memory: Option<u64>,
    /// How long running tasks may go on after SIGTERM, in seconds; 20 by default.
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
}

impl Worker {
    pub(crate) async fn run(self) -> Result<()> {
        serve::start_log();
        let _too_large = serve::outlive_file_limit()?;
        // It writes no log of its own that could be rotated; what is sent to all of a service must not end its tasks.
        let _rotations = serve::Rotations::heed().context("signal handlers")?;
        let plan = self.plan()?;
        let folder = &plan.work.data;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("data: cannot make {}", folder.display()))?;
        plan.tighten();
        let open = plan.open().await?;
        let kinds =
            work::kinds(&open, &plan.work).context("pipelines (--pipelines names their folder)")?;
        let mut terminate = signal(SignalKind::terminate()).context("signal handlers")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("signal handlers")?;
        let mut told = async move || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let worker = work::start(&open, kinds.clone(), &plan.work);
        output::note(format!(
            "Worker {} takes {kinds:?} from {}",
            worker.name(),
            plan.url
        ));
        told().await;
        output::note("Stopping: running tasks may end, others are given back");
        tokio::select! {
            () = worker.drain() => {}
            // Their leases run out; another worker, or the next start of this one, goes on.
            () = told() => output::note("Stopped at once"),
        }
        open.store.close().await;
        Ok(())
    }

    /// The configuration's, with what the options say.
    fn plan(&self) -> Result<Plan> {
        let mut config = configuration(self.config.as_deref())?;
        let tasks = &mut config.control.tasks;
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        if let Some(pipelines) = &self.pipelines {
            tasks.pipelines.clone_from(pipelines);
        }
        tasks.slots = self.slots.map_or(tasks.slots.max(1), usize::from);
        tasks.conversions = self.conversions.unwrap_or(tasks.conversions);
        tasks.drain = self.drain.map_or(tasks.drain, Duration::from_secs);
        let mut plan = Plan::of(&config)?;
        if let Some(mib) = self.memory {
            plan.work.memory = Some(mib.saturating_mul(1 << 20));
        }
        if let Some(url) = &self.database {
            plan.url.clone_from(url);
        }
        Ok(plan)
    }
}
