//! `sluice release`: changes of what a deployment serves, step by step.

mod simulate;

use anyhow::Result;
use clap::Subcommand;

/// Releases: candidates that take traffic step by step, and are taken back by themselves.
#[derive(Debug, clap::Args)]
pub(crate) struct Release {
    #[command(subcommand)]
    verb: ReleaseVerb,
}

#[derive(Debug, Subcommand)]
enum ReleaseVerb {
    Simulate(simulate::Simulate),
}

impl Release {
    pub(crate) fn run(self) -> Result<()> {
        match self.verb {
            ReleaseVerb::Simulate(verb) => verb.run(),
        }
    }
}
