//! Verbs that move content: more than one request each, so that they are no lines of a table.

mod before;
mod convert;
mod fetch;
mod files;
mod parameters;
mod pull;
mod push;
mod transfer;

use anyhow::Result;
use clap::{ArgMatches, Args as _, Command};

use convert::Convert;
use fetch::{Collect, Import};
use parameters::Parameters;
use pull::Pull;
use push::Push;

/// Where all of the API is.
const API: &str = "/api/v1";

/// Adds the verbs of a noun.
pub(super) fn described(noun: &str, command: Command) -> Command {
    match noun {
        "artifact" => command
            .subcommand(Push::augment_args(Command::new("push")))
            .subcommand(Pull::augment_args(Command::new("pull")))
            .subcommand(Import::augment_args(Command::new("import")))
            .subcommand(Collect::augment_args(Command::new("gc"))),
        "convert" => command.subcommand(Parameters::augment_args(Command::new("parameters"))),
        "model" => command.subcommand(Convert::augment_args(Command::new("convert"))),
        _ => command,
    }
}

/// Does a verb if it is one of these; `None` if not.
pub(super) async fn run(noun: &str, verb: &str, typed: &ArgMatches) -> Option<Result<()>> {
    let done = match (noun, verb) {
        ("artifact", "push") => Box::pin(Push::of(typed).run()).await,
        ("artifact", "pull") => Box::pin(Pull::of(typed).run()).await,
        ("artifact", "import") => Box::pin(Import::of(typed).run()).await,
        ("artifact", "gc") => Box::pin(Collect::of(typed).run()).await,
        ("convert", "parameters") => Box::pin(Parameters::of(typed).run()).await,
        ("model", "convert") => Box::pin(Convert::of(typed).run()).await,
        _ => return None,
    };
    Some(done)
}

/// What clap has checked by the same description.
trait Typed: clap::FromArgMatches {
    fn of(typed: &ArgMatches) -> Self {
        Self::from_arg_matches(typed).unwrap_or_else(|error| error.exit())
    }
}

impl<T: clap::FromArgMatches> Typed for T {}
