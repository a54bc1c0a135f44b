//! The command line: one file a verb.

mod bench;
mod chat;
mod client;
mod completions;
mod config;
mod database;
mod doctor;
mod embed;
mod engine;
mod events;
mod model_host;
mod models;
mod output;
mod plan;
mod preflight;
mod records;
mod release;
mod serve;
mod top;
mod worker;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// An inference gateway with its control plane built in.
#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version,
    arg_required_else_help = true,
    after_help = "Examples:\n  sluice serve                        # ./sluice.toml\n  sluice models                       # what it serves\n  sluice chat 'Hello'                 # ask it something\n  sluice top                          # watch it work\n  sluice model show helpdesk          # versions, evaluations, deployments\n  sluice apply -f records.yaml        # everything as code\n  sluice release start helpdesk --to v2 --watch\n  sluice rollback helpdesk            # and back, at once\n  sluice completions bash > /etc/bash_completion.d/sluice\n\nEvery verb has its own --help with examples."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(serve::Serve),
    Chat(chat::Chat),
    Embed(embed::Embed),
    Models(models::Models),
    Top(top::Top),
    Worker(worker::Worker),
    Bench(bench::Bench),
    Config(config::ConfigVerb),
    Doctor(doctor::Doctor),
    Engine(engine::Engine),
    #[command(flatten)]
    Records(records::Noun),
    Apply(records::apply::Apply),
    Release(release::Release),
    Rollback(release::Rollback),
    Migrate(database::Migrate),
    Backup(database::Backup),
    Restore(database::Restore),
    Completions(completions::Completions),
    #[command(hide = true)]
    ModelHost(model_host::ModelHost),
}

impl Verb {
    /// Whether it writes what holds hashes, records or content: into files of the data folder, or copies of them.
    const fn keeps_records(&self) -> bool {
        match self {
            Self::Serve(_)
            | Self::Worker(_)
            | Self::Records(_)
            | Self::Apply(_)
            | Self::Migrate(_)
            | Self::Backup(_)
            | Self::Restore(_) => true,
            Self::Chat(_)
            | Self::Embed(_)
            | Self::Models(_)
            | Self::Top(_)
            | Self::Bench(_)
            | Self::Config(_)
            | Self::Doctor(_)
            | Self::Engine(_)
            | Self::Release(_)
            | Self::Rollback(_)
            | Self::Completions(_)
            | Self::ModelHost(_) => false,
        }
    }
}

impl Cli {
    /// What has to be done before there is a second thread, if that is all there is to do.
    #[expect(
        clippy::result_large_err,
        reason = "asked once a process, and what is handed back is the command itself"
    )]
    pub(crate) fn run_alone(self) -> Result<ExitCode, Self> {
        match self.verb {
            Verb::ModelHost(verb) => Ok(verb.run()),
            verb => Err(Self { verb }),
        }
    }

    /// The threads that connections are to be served by; 0 is one per CPU.
    pub(crate) fn threads(&self) -> usize {
        match &self.verb {
            Verb::Serve(verb) => verb.threads(),
            _ => 0,
        }
    }

    pub(crate) async fn run(self) -> Result<()> {
        if self.verb.keeps_records() {
            sluice_control::private::by_default();
        }
        match self.verb {
            Verb::Serve(verb) => verb.run().await,
            Verb::Chat(verb) => verb.run().await,
            Verb::Embed(verb) => verb.run().await,
            Verb::Models(verb) => verb.run().await,
            Verb::Top(verb) => verb.run().await,
            Verb::Worker(verb) => verb.run().await,
            Verb::Bench(verb) => verb.run().await,
            Verb::Config(verb) => verb.run(),
            Verb::Doctor(verb) => verb.run().await,
            Verb::Engine(verb) => verb.run().await,
            Verb::Records(noun) => noun.run().await,
            Verb::Apply(verb) => verb.run().await,
            Verb::Release(verb) => Box::pin(verb.run()).await,
            Verb::Rollback(verb) => verb.run().await,
            Verb::Migrate(verb) => verb.run().await,
            Verb::Backup(verb) => verb.run().await,
            Verb::Restore(verb) => verb.run().await,
            Verb::Completions(verb) => verb.run(),
            Verb::ModelHost(_) => anyhow::bail!("model-host runs by itself"),
        }
    }
}

/// The exit status of an error: 3 for a release that was watched and did not end well, 4 for one that goes on when it
/// is no longer watched, 1 for all else.
pub(crate) fn status(error: &anyhow::Error) -> ExitCode {
    if error.is::<release::NotPromoted>() {
        ExitCode::from(3)
    } else if error.is::<release::StillWaits>() {
        ExitCode::from(4)
    } else {
        ExitCode::FAILURE
    }
}

/// Tells the user what went wrong, with its causes, on one line.
pub(crate) fn report(error: &anyhow::Error) {
    output::note(format!("error: {}", in_full(error)));
}

/// An error and its causes, without those that its own text already repeats.
pub(crate) fn in_full(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
