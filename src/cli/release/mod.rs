//! `sluice release`: changes of what a deployment serves, step by step.
//!
//! Everything that is printed for people is made by pure functions from what the API tells ([`page`], [`replay`],
//! [`history`], [`pairs`]); [`ask`] and [`watch`] are the thin shell around them.

mod ask;
mod history;
mod page;
mod pairs;
mod replay;
mod simulate;
mod start;
mod steer;
mod view;
mod watch;
mod words;

use std::io::IsTerminal as _;

use anyhow::Result;
use clap::Subcommand;
use sluice_control::time::Timestamp;

use self::view::{Decision, Pair, View};
use super::client::{ApiClient, Server};
use super::output::{self, Shape};

pub(crate) use self::steer::Rollback;
pub(crate) use self::watch::{NotPromoted, StillWaits};

/// Releases: candidates that take traffic step by step, and are taken back by themselves.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:\n  sluice release start helpdesk --to v2 --watch\n  sluice release status helpdesk --watch\n  sluice release pause helpdesk --reason 'lunch'\n  sluice release history helpdesk\n  sluice release replay wo_…\n  sluice rollback helpdesk --reason 'wrong tickets'"
)]
pub(crate) struct Release {
    #[command(subcommand)]
    verb: ReleaseVerb,
}

#[derive(Debug, Subcommand)]
enum ReleaseVerb {
    Start(start::Start),
    Status(Status),
    Pause(steer::Pause),
    Resume(steer::Resume),
    Promote(steer::Promote),
    Abort(steer::Abort),
    History(History),
    Replay(Replay),
    Pairs(Pairs),
    Simulate(simulate::Simulate),
}

impl Release {
    pub(crate) async fn run(self) -> Result<()> {
        match self.verb {
            ReleaseVerb::Start(verb) => verb.run().await,
            ReleaseVerb::Status(verb) => verb.run().await,
            ReleaseVerb::Pause(verb) => verb.run().await,
            ReleaseVerb::Resume(verb) => verb.run().await,
            ReleaseVerb::Promote(verb) => verb.run().await,
            ReleaseVerb::Abort(verb) => verb.run().await,
            ReleaseVerb::History(verb) => verb.run().await,
            ReleaseVerb::Replay(verb) => verb.run().await,
            ReleaseVerb::Pairs(verb) => verb.run().await,
            ReleaseVerb::Simulate(verb) => verb.run(),
        }
    }
}

/// Show where a release stands, and the evidence for and against its candidate.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice release status                       # the one that is under way, else the latest\n  sluice release status helpdesk --watch      # live, until it is over\n  sluice release status wo_… -o json | jq .evidence.objectives\n\nWith --watch the exit status is 0 when it is promoted, 3 when it ends otherwise, and 4 when --until-paused or\n--within end the watch before. Without a terminal, a\nline is written for each change, and with -o json a document."
)]
struct Status {
    #[command(flatten)]
    server: Server,
    /// A deployment or the id of a release; may be left out while one is under way.
    #[arg(value_name = "DEPLOYMENT|ID")]
    release: Option<String>,
    /// Live, until it is over.
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    enough: watch::Enough,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

impl Status {
    async fn run(self) -> Result<()> {
        let client = ApiClient::new(&self.server)?;
        let named = ask::meant(&client, self.release, true).await?;
        if self.watch {
            return watch::watch(&client, &named, self.output, self.enough).await;
        }
        let shown = ask::show(&client, &named).await?;
        if self.output.document(&shown)? {
            return Ok(());
        }
        let view: View = ask::read(&shown)?;
        output::line(page::text(&page::page(&view, Timestamp::now())))
    }
}

/// List releases, newest first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice release history\n  sluice release history helpdesk --limit 5\n  sluice release history -o json | jq '.[] | select(.state == \"rolled_back\") | .ended_because'"
)]
struct History {
    #[command(flatten)]
    server: Server,
    /// Only of this one.
    deployment: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

impl History {
    async fn run(self) -> Result<()> {
        let client = ApiClient::new(&self.server)?;
        let items = ask::history(&client, self.deployment.as_deref(), self.limit as usize).await?;
        if self.output.document(&items)? {
            return Ok(());
        }
        let now = Timestamp::now();
        let rows = items.iter().map(|item| {
            let view = ask::read(item)?;
            Ok(history::row(&view, now))
        });
        output::table(&history::HEADINGS, &rows.collect::<Result<Vec<_>>>()?)
    }
}

/// Print each decision about a release with the evidence that it was made on.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice release replay wo_…\n  sluice release replay helpdesk            # the one under way, else the latest\n  sluice release replay wo_… -o json | jq '.[].evidence.verdict'"
)]
struct Replay {
    #[command(flatten)]
    server: Server,
    /// The id of a release, or a deployment.
    id: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

impl Replay {
    async fn run(self) -> Result<()> {
        let client = ApiClient::new(&self.server)?;
        let view: View = ask::read(&client.get(&ask::path(&self.id, "")).await?)?;
        let items = ask::decisions(&client, &view.id).await?;
        if self.output.document(&items)? {
            return Ok(());
        }
        let decisions: Vec<Decision> = items.iter().map(ask::read).collect::<Result<_>>()?;
        output::line(page::text(&replay::replay(&view, &decisions)))
    }
}

/// Show what stable and the candidate answered to the same requests, side by side.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice release pairs wo_…\n  sluice release pairs helpdesk --disagree --limit 5\n  sluice release pairs wo_… -o json | jq '.[].candidate.text'\n\nA sample of the copied requests is kept, of those that disagree first: `[control.releases] pairs` says how many."
)]
struct Pairs {
    #[command(flatten)]
    server: Server,
    /// The id of a release, or a deployment.
    id: String,
    /// Only those whose answers differ.
    #[arg(long)]
    disagree: bool,
    /// At most so many.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

/// Columns of a page of pairs where there is no terminal.
const COLUMNS: u16 = 120;

impl Pairs {
    async fn run(self) -> Result<()> {
        let client = ApiClient::new(&self.server)?;
        let filter = if self.disagree { "?agrees=false" } else { "" };
        let path = ask::path(&self.id, &format!("/pairs{filter}"));
        let items = ask::list(&client, &path, self.limit as usize).await?;
        if self.output.document(&items)? {
            return Ok(());
        }
        // An answer's lines are part of it; the page of pairs makes them harmless itself.
        let found: Vec<Pair> = items
            .iter()
            .map(ask::read_as_it_is)
            .collect::<Result<_>>()?;
        let size = match std::io::stdout().is_terminal() {
            true => ratatui::crossterm::terminal::size().ok(),
            false => None,
        };
        let columns = size.map_or(COLUMNS, |(columns, _)| columns);
        output::line(pairs::pairs(&found, columns.into()))
    }
}
