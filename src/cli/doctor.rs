//! `sluice doctor`: what there is to run models on, and what to install for the rest.

mod access;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::Serialize;
use sluice_engine::inventory::{Inventory, State};

use self::access::AccessReview;
use super::model_host::available;
use super::output::{self, Format};
use super::plan::configuration;

/// Look at this machine: GPU, driver, CUDA, cuDNN, ONNX Runtime, TensorRT, isolation.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice doctor\n  sluice doctor -o json\n  sluice doctor --require cuda     # status 1 where provider = \"cuda\" cannot be served\n  sluice doctor access             # whose requests would be refused now\n\nNothing is loaded or changed. What is missing is no failure unless it is asked for."
)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Doctor {
    #[command(subcommand)]
    what: Option<What>,
    /// Configuration that names the data folder; ./sluice.toml when it exists.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Fail unless deployments with this provider can be served.
    #[arg(long, value_name = "PROVIDER", value_parser = ["cpu", "cuda", "tensorrt", "tensorrt-native"])]
    require: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What else can be looked at.
#[derive(Debug, clap::Subcommand)]
enum What {
    Access(AccessReview),
}

impl Doctor {
    pub(crate) async fn run(self) -> Result<()> {
        match self.what {
            Some(What::Access(review)) => review.run().await,
            None => self.machine(),
        }
    }

    fn machine(self) -> Result<()> {
        let config = configuration(self.config.as_deref())?;
        let library = config.data.join("lib/libonnxruntime.so");
        let inventory = Inventory::take(library.exists().then_some(&*library));
        match self.output {
            Format::Json => output::json(&Machine {
                inventory: &inventory,
                isolation: available().into_iter().collect(),
            })?,
            Format::Table => {
                print(&inventory)?;
                print_isolation()?;
            }
        }
        let asked = self.require.as_deref();
        match inventory
            .providers
            .iter()
            .find(|p| Some(p.provider) == asked)
        {
            Some(provider) if !provider.ready => bail!(
                "provider = \"{}\" cannot be served here: {}",
                provider.provider,
                provider.reason.as_deref().unwrap_or("unknown")
            ),
            _ => Ok(()),
        }
    }
}

/// All that was found.
#[derive(Serialize)]
struct Machine<'a> {
    #[serde(flatten)]
    inventory: &'a Inventory,
    /// Which kinds of isolation hold for models that nobody has approved.
    isolation: BTreeMap<&'static str, bool>,
}

fn print_isolation() -> Result<()> {
    let found = available();
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|(kind, holds)| {
            let here = match holds {
                true => "yes".to_owned(),
                false => format!("no: {}", lacking(kind)),
            };
            vec![(*kind).to_owned(), here]
        })
        .collect();
    output::line("")?;
    output::table(&["ISOLATION OF MODELS ON TRIAL", "HERE"], &rows)
}

fn lacking(kind: &str) -> &'static str {
    match kind {
        "system calls" => "the kernel has no seccomp, or the container forbids filters",
        _ => {
            "the kernel has no Landlock (5.13 for files, 6.7 for the network), or it is turned off"
        }
    }
}

fn print(inventory: &Inventory) -> Result<()> {
    let rows: Vec<Vec<String>> = inventory
        .findings
        .iter()
        .map(|finding| {
            let state = match finding.state {
                State::Found => "found",
                State::Missing => "missing",
                State::Unusable => "unusable",
            };
            let cells = [finding.part, state, &finding.detail];
            cells.map(str::to_owned).to_vec()
        })
        .collect();
    output::table(&["PART", "STATE", "DETAIL"], &rows)?;
    output::line("")?;
    let rows: Vec<Vec<String>> = inventory
        .providers
        .iter()
        .map(|provider| {
            let here = provider
                .reason
                .as_ref()
                .map_or("yes".to_owned(), |reason| format!("no: {reason}"));
            vec![provider.provider.to_owned(), here]
        })
        .collect();
    output::table(&["PROVIDER", "HERE"], &rows)?;
    let remedies: Vec<String> = inventory
        .findings
        .iter()
        .filter_map(|finding| Some(format!("{}: {}", finding.part, finding.remedy.as_ref()?)))
        .collect();
    if !remedies.is_empty() {
        output::line("\nTo serve on a GPU:")?;
    }
    remedies
        .iter()
        .try_for_each(|remedy| output::line(format!("  {remedy}")))
}
