mod bench;
mod chat;
mod client;
mod embed;
mod models;
mod output;
mod top;
use clap::Parser;
#[derive(Parser)]
enum Cli {
    Chat(chat::Chat),
    Embed(embed::Embed),
    Models(models::Models),
    Bench(bench::Bench),
    Top(top::Top),
}
pub(crate) async fn run() -> anyhow::Result<()> {
    match Cli::parse() {
        Cli::Chat(x) => x.run().await,
        Cli::Embed(x) => x.run().await,
        Cli::Models(x) => x.run().await,
        Cli::Bench(x) => x.run().await,
        Cli::Top(x) => x.run().await,
    }
}
