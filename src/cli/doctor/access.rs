//! `sluice doctor access`: which keys have used which deployments and would be refused now.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sluice_control::doctor::{self, Refused};
use sluice_control::store::Store;
use sluice_control::time::Timestamp;
use sluice_gateway::auth::keys;

use crate::cli::output::{self, Format};
use crate::cli::plan::{Plan, configuration};

/// List keys that used a deployment lately and would be refused now, and grant them its use.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice doctor access                 # after an upgrade: what would be refused\n  sluice doctor access --days 7\n  sluice doctor access --grant         # grant each the use of what it used\n\nIt reads the ledger in the database, beside a server or without one. A grant helps against another\ndepartment, not against a clearance that is too low. Status 1 while something is left that would be refused."
)]
pub(super) struct AccessReview {
    /// Configuration that names the database; ./sluice.toml when it exists.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How far back the ledger is read.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Grant each holder the use of the deployment, where a grant helps.
    #[arg(long)]
    grant: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl AccessReview {
    pub(super) async fn run(self) -> Result<()> {
        let config = configuration(self.config.as_deref())?;
        let plan = Plan::of(&config)?;
        let file_keys = match &config.auth.keys_file {
            Some(path) => keys::read_file(path)?,
            None => Vec::new(),
        };
        // Opened as `serve` does it: an older schema is brought up to date.
        let store = Store::open(&plan.url, &plan.store)
            .await
            .with_context(|| format!("database {}", plan.url))?;
        let days = Duration::from_secs(u64::from(self.days) * 24 * 3600);
        let since = Timestamp::now().before(days);
        let mut refused = doctor::refused(&store, since, &file_keys).await?;
        if self.grant {
            let made = doctor::grant(&store, &refused).await?;
            output::note(format!("{made} grants made"));
            refused = doctor::refused(&store, since, &file_keys).await?;
        }
        store.close().await;
        match self.output {
            Format::Json => output::json(&refused)?,
            Format::Table => print(&refused)?,
        }
        match refused.len() {
            0 => Ok(()),
            1 => bail!("1 key would be refused what it has used"),
            some => bail!("{some} pairs of key and deployment would be refused"),
        }
    }
}

fn print(refused: &[Refused]) -> Result<()> {
    if refused.is_empty() {
        return output::line("Nobody would be refused what he has used.");
    }
    let rows: Vec<Vec<String>> = refused
        .iter()
        .map(|it| {
            vec![
                it.holder.clone(),
                it.key.clone(),
                it.department.clone().unwrap_or_default(),
                it.deployment.clone(),
                it.requests.to_string(),
                it.last.to_string(),
                it.why.to_owned(),
            ]
        })
        .collect();
    let heads = [
        "HOLDER",
        "KEY",
        "DEPARTMENT",
        "DEPLOYMENT",
        "REQUESTS",
        "LAST",
        "REFUSED: IT IS",
    ];
    output::table(&heads, &rows)
}
