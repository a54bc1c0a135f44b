//! `sluice config`: look at the configuration without serving.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Subcommand;

use super::output::{self, Format};
use super::preflight::{Examined, Moment};

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

/// Read a configuration file as `sluice serve` would, and say what it means, or all that is wrong with it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice config check\n  sluice config check /etc/sluice.toml -o json     # with every default filled in\n\nWhat `sluice serve` would refuse is refused here: values, and what they need of this machine, such as files,\nfolders, variables of the environment and GPUs. Every problem is named with its field, and the status is 1 then;\nwith -o json they are a list under `problems`. Models are not loaded, and nothing is made or connected to."
)]
struct Check {
    /// The file.
    #[arg(default_value = "sluice.toml")]
    file: PathBuf,
    /// How to print: `json` gives the whole configuration, defaults included, or a list of problems.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl ConfigVerb {
    pub(crate) fn run(self) -> Result<()> {
        let ConfigCommand::Check(check) = self.verb;
        let examined = Examined::of(Some(&check.file), Moment::Start, |_| Ok(()))?;
        if check.output == Format::Json && !examined.problems.is_empty() {
            output::json(&serde_json::json!({ "problems": examined.problems }))?;
            bail!(
                "{}: problems: {}",
                check.file.display(),
                examined.problems.len()
            );
        }
        let config = examined.right()?;
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
