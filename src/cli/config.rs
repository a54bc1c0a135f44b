//! `sluice config`: look at the configuration without serving.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use sluice_gateway::config::Config;

use super::output::{self, Format};
use super::plan::Plan;

/// Check a configuration file.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigVerb {
    #[command(subcommand)]
    verb: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    Check(Check),
}

/// Read a configuration file as `sluice serve` would, and say what it means.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice config check\n  sluice config check /etc/sluice.toml -o json     # with every default filled in\n\nEnds with status 1 and the field's name when something is wrong. Models are not loaded."
)]
struct Check {
    /// The file.
    #[arg(default_value = "sluice.toml")]
    file: PathBuf,
    /// How to print: `json` gives the whole configuration, defaults included.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl ConfigVerb {
    pub(crate) fn run(self) -> Result<()> {
        let ConfigCommand::Check(check) = self.verb;
        let config = Config::load(&check.file)?;
        Plan::of(&config)?;
        if check.output == Format::Json {
            return output::json(&config);
        }
        output::line(format!(
            "{} is right: listens on {}, data in {}",
            check.file.display(),
            config.listen,
            config.data.display()
        ))?;
        let rows: Vec<Vec<String>> = config
            .deployments
            .iter()
            .map(|deployment| {
                let (kind, source) = match &deployment.path {
                    Some(path) => ("local", path.display().to_string()),
                    None => ("remote", deployment.upstream.join(", ")),
                };
                vec![deployment.name.clone(), kind.to_owned(), source]
            })
            .collect();
        output::table(&["DEPLOYMENT", "KIND", "SOURCE"], &rows)
    }
}
