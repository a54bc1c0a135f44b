//! The `sluice` binary: parses the command line and runs one verb.

mod cli;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::Cli::parse().run_alone() {
        Ok(status) => status,
        Err(cli) => run(cli),
    }
}

/// A model that is still being loaded, or computes, does not keep the process.
const LEFT_BEHIND: Duration = Duration::from_millis(500);

fn run(cli: cli::Cli) -> ExitCode {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let threads @ 1.. = cli.threads() {
        runtime.worker_threads(threads);
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            cli::report(&error.into());
            return ExitCode::FAILURE;
        }
    };
    let status = runtime.block_on(ended(cli));
    runtime.shutdown_timeout(LEFT_BEHIND);
    status
}

async fn ended(cli: cli::Cli) -> ExitCode {
    match cli.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            cli::report(&error);
            cli::status(&error)
        }
    }
}

/// `sluice models | head` ends by a closed pipe: that is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
