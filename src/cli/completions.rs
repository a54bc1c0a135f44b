//! `sluice completions`: for the user's shell.

use anyhow::Result;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, output};

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice completions bash > /etc/bash_completion.d/sluice\n  sluice completions zsh > ~/.zfunc/_sluice\n  sluice completions fish > ~/.config/fish/completions/sluice.fish"
)]
pub(crate) struct Completions {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut shown(), "sluice", &mut script);
        output::fragment(&String::from_utf8(script)?)
    }
}

/// The commands that people type: clap_complete offers those that are hidden, too.
fn shown() -> Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|it| !it.is_hide_set());
    Command::new("sluice")
        .version(env!("CARGO_PKG_VERSION"))
        .args(all.get_arguments().cloned())
        .subcommands(shown.cloned())
}
