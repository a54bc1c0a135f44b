//! `sluice convert parameters`: what a pipeline takes, as the server has it.

use anyhow::{Context as _, Result};

use super::API;
use crate::cli::client::{ApiClient, Server};
use crate::cli::output::{self, Shape};
use crate::cli::records::help;
use crate::cli::records::view::cell;

/// List what a pipeline takes as PARAM=VALUE.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice convert pipelines\n  sluice convert parameters convert-causal-lm\n  sluice model convert helpdesk --pipeline convert-causal-lm --source checkpoints/v2 precision=int8 --add-version"
)]
pub(super) struct Parameters {
    #[command(flatten)]
    server: Server,
    /// Which pipeline; `sluice convert pipelines` lists them.
    #[arg(value_name = "PIPELINE")]
    pipeline: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

impl Parameters {
    pub(super) async fn run(self) -> Result<()> {
        let client = ApiClient::new(&self.server)?;
        let listed = client.get(&format!("{API}/pipelines")).await?;
        let items = listed["items"].as_array().map_or(&[][..], Vec::as_slice);
        let found = items.iter().find(|it| it["name"] == self.pipeline.as_str());
        let found = found.with_context(|| {
            let names: Vec<String> = items.iter().map(|it| cell(&it["name"])).collect();
            match names.is_empty() {
                true => {
                    "the server has no pipelines; the workers that convert have them".to_owned()
                }
                false => format!("{} is none; there are {}", self.pipeline, names.join(", ")),
            }
        })?;
        if self.output.document(&found["parameters"])? {
            return Ok(());
        }
        output::line(cell(&found["summary"]))?;
        // Said by --source.
        let title = "Parameters, each as PARAM=VALUE:";
        output::line(help::parameters(title, &found["parameters"], &["source"]))
    }
}
