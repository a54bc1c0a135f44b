//! `sluice release start`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use sluice_control::release::strategy::Strategy;
use sluice_control::time::Timestamp;

use super::view::View;
use super::{ask, page, watch};
use crate::cli::client::{ApiClient, Server};
use crate::cli::output::{self, Shape};

/// Release a version, or other servers, step by step.
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("what").required(true).multiple(true).args(["to", "upstream"])),
    after_help = "Examples:\n  sluice release start helpdesk --to v2 --reason 'better answers' --watch\n  sluice release start helpdesk --to v2 --strategy strategy.yaml\n  sluice release start big --upstream http://10.0.0.7:8000/v1   # the same version, by another server\n  sluice release start helpdesk --to v2 --no-approve            # waits for `sluice workorder approve wo_…`\n\nThe strategy is YAML or JSON; docs/release-analysis.md has its fields, and `sluice release simulate` tries it.\nWithout --strategy the deployment's own is followed. With --watch the exit status is 0 when the candidate is\npromoted, 3 when the release ends otherwise, and 4 when --until-paused or --within end the watch before."
)]
pub(super) struct Start {
    #[command(flatten)]
    server: Server,
    /// Whose traffic it is about.
    deployment: String,
    /// The version: v2, MODEL@v2 or its id.
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Base URL of a server that holds the candidate, instead of this one; may be given several times.
    #[arg(long, value_name = "URL")]
    upstream: Vec<String>,
    /// Steps and objectives, instead of the deployment's.
    #[arg(short, long, value_name = "FILE")]
    strategy: Option<PathBuf>,
    /// Why, for the history.
    #[arg(short, long, default_value = "")]
    reason: String,
    /// Leave it to somebody else to approve.
    #[arg(long)]
    no_approve: bool,
    /// Follow it until it is over.
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    enough: watch::Enough,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

impl Start {
    pub(super) async fn run(self) -> Result<()> {
        let strategy = self.strategy.as_deref().map(strategy).transpose()?;
        let client = ApiClient::new(&self.server)?;
        let made = client
            .post("/api/v1/releases", &self.body(strategy))
            .await?;
        let view: View = ask::read(&made)?;
        if let Some(waits_for) = &view.waits_for
            && view.state == "pending"
        {
            output::note(format!("{} waits for {waits_for}", view.id));
        }
        if self.watch {
            return watch::watch(&client, &view.id, self.output, self.enough).await;
        }
        if self.output.document(&made)? {
            return Ok(());
        }
        output::line(page::text(&page::page(&view, Timestamp::now())))
    }

    fn body(&self, strategy: Option<Value>) -> Value {
        let mut body = Map::new();
        body.insert("deployment".into(), json!(self.deployment));
        if let Some(version) = &self.to {
            body.insert("version".into(), json!(version));
        }
        if !self.upstream.is_empty() {
            body.insert("upstream".into(), json!(self.upstream));
        }
        if let Some(strategy) = strategy {
            body.insert("strategy".into(), strategy);
        }
        body.insert("reason".into(), json!(self.reason));
        body.insert("approve".into(), json!(!self.no_approve));
        Value::Object(body)
    }
}

/// A strategy as it is to be sent, checked here: whoever wrote it sees file and field at once.
fn strategy(path: &Path) -> Result<Value> {
    let mut value = read(path)?;
    // A deployment's own file holds it under its name.
    if let Some(inner) = value.get_mut("strategy") {
        value = inner.take();
    }
    Strategy::parse(value.clone()).with_context(|| path.display().to_string())?;
    Ok(value)
}

/// A YAML or JSON document.
pub(super) fn read(path: &Path) -> Result<Value> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).with_context(|| name.clone())?;
    serde_norway::from_str(&text).with_context(|| name)
}

#[cfg(test)]
mod tests;
