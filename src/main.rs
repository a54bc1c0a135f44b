//! The `sluice` binary.
mod cli;
fn main() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(cli::run())
}
