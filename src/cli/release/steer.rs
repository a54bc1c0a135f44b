//! Commands to a release: pause, resume, promote, abort; and `sluice rollback`.

use anyhow::Result;
use serde_json::{Value, json};

use super::view::View;
use super::{ask, page};
use crate::cli::client::{ApiClient, Server};
use crate::cli::output::{self, Shape};
use crate::cli::records::encoded;

/// Hold a release where it is; its candidate keeps its share, and is still taken back when it breaks an objective.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice release pause helpdesk --reason 'lunch'\n  sluice release pause                        # the one that is under way"
)]
pub(super) struct Pause {
    #[command(flatten)]
    order: Order,
}

/// Let a paused release go on; where the strategy waits for a person, this is their word.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice release resume helpdesk\n  sluice release resume wo_… --reason 'read the pairs, they are better'"
)]
pub(super) struct Resume {
    #[command(flatten)]
    order: Order,
}

/// Leave out the remaining steps and give the candidate all traffic, if the approval gate lets it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice release promote helpdesk --reason 'urgent fix'\n\nRefused while an objective is broken or the gate is closed."
)]
pub(super) struct Promote {
    #[command(flatten)]
    order: Order,
}

/// Give a release up: all traffic goes back to stable.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice release abort helpdesk --reason 'wrong version'\n\n`sluice rollback` does the same, and brings the revision before back when no release is under way."
)]
pub(super) struct Abort {
    #[command(flatten)]
    order: Order,
}

impl Pause {
    pub(super) async fn run(self) -> Result<()> {
        self.order.give("/pause").await
    }
}

impl Resume {
    pub(super) async fn run(self) -> Result<()> {
        self.order.give("/resume").await
    }
}

impl Promote {
    pub(super) async fn run(self) -> Result<()> {
        self.order.give("/promote").await
    }
}

impl Abort {
    pub(super) async fn run(self) -> Result<()> {
        self.order.give("/abort").await
    }
}

#[derive(Debug, clap::Args)]
struct Order {
    #[command(flatten)]
    server: Server,
    /// A deployment or the id of a release; may be left out while one is under way.
    #[arg(value_name = "DEPLOYMENT|ID")]
    release: Option<String>,
    /// Why, for the history.
    #[arg(short, long, default_value = "")]
    reason: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

impl Order {
    async fn give(self, command: &str) -> Result<()> {
        let client = ApiClient::new(&self.server)?;
        let named = ask::meant(&client, self.release, false).await?;
        let path = ask::path(&named, command);
        let after = client.post(&path, &json!({"reason": self.reason})).await?;
        if self.output.document(&after)? {
            return Ok(());
        }
        if after["queued"] == true || after["already"] == true {
            return output::line(taken_back(&named, &after));
        }
        output::line(page::line_with_waits(&ask::read::<View>(&after)?))
    }
}

/// Take a deployment back: the release under way ends, or the revision before the live one returns.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice rollback helpdesk\n  sluice rollback helpdesk --reason 'wrong tickets'\n  sluice rollback helpdesk --to v1             # further back, or from what was brought back\n\nThe traffic moves within milliseconds while the old revision is loaded (`keep_warm`), also when the database does\nnot answer: the records follow then. Asked again, or after the analysis has done it, it moves nothing and says so."
)]
pub(crate) struct Rollback {
    #[command(flatten)]
    server: Server,
    /// What is taken back.
    deployment: String,
    /// What to go back to: a revision that was live here (v2-k3x9qa), or a version (v2: its newest revision that was).
    #[arg(long, value_name = "REVISION|VERSION")]
    to: Option<String>,
    /// Why, for the history.
    #[arg(short, long, default_value = "")]
    reason: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

impl Rollback {
    pub(crate) async fn run(self) -> Result<()> {
        let client = ApiClient::new(&self.server)?;
        let path = format!("/api/v1/deployments/{}/rollback", encoded(&self.deployment));
        let mut body = json!({"reason": self.reason});
        if let Some(to) = &self.to {
            body["to"] = json!(to);
        }
        let answer = client.post(&path, &body).await?;
        if self.output.document(&answer)? {
            return Ok(());
        }
        output::line(taken_back(&self.deployment, &answer))
    }
}

/// What a roll-back came to: the work order, or that it waits for the database to be written down.
fn taken_back(deployment: &str, answer: &Value) -> String {
    let text = |field: &str| answer[field].as_str().unwrap_or_default();
    if answer["already"] == true {
        let mut said = format!("{deployment}  {}", text("message"));
        if let Some(next) = answer["further"][0].as_str() {
            said = format!("{said}\n`sluice rollback {deployment} --to {next}` does that");
        }
        return said;
    }
    if answer["queued"] == true {
        let (revision, message) = (text("revision"), text("message"));
        return match message.starts_with(revision) {
            true => format!("{deployment}  {message}"),
            false => format!("{deployment}  {revision} answers; {message}"),
        };
    }
    let (id, state) = (text("id"), text("state").replace('_', " "));
    match (
        answer["restores"].is_string(),
        answer["finished_at"].is_string(),
    ) {
        (false, true) => format!("{deployment}  the release {id} is {state}"),
        (false, false) => format!("{deployment}  the release {id} is taken back ({state})"),
        (true, true) => format!("{deployment}  the revision before is back: {id} is {state}"),
        (true, false) => format!(
            "{deployment}  the revision before comes back: {id} is {state}; `sluice workorder watch {id}` follows it"
        ),
    }
}

#[cfg(test)]
mod tests;
