//! `sluice artifact import` and `gc`: what the server does by itself, as a task.

use anyhow::Result;
use serde_json::{Value, json};

use super::API;
use crate::cli::client::{ApiClient, Server};
use crate::cli::output::{self, Shape};
use crate::cli::records::view::cell;
use crate::cli::records::watch;

/// Have the server bring an artifact in: from a URL, S3, HDFS, or a folder or file of its own.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice artifact import https://example.com/model.tar.gz --name m --unpack --wait\n  sluice artifact import hdfs://namenode:8020/models/m --name m --wait\n  sluice artifact import s3://bucket/models/m --name m --wait\n  sluice artifact import /srv/models/m --name m --wait\n\nWhich folders, buckets and private addresses may be imported from is in [control.artifacts.import]."
)]
pub(super) struct Import {
    #[command(flatten)]
    server: Server,
    /// https://…, s3://…, hdfs://…, webhdfs://…, or an absolute path of the server.
    source: String,
    /// What the artifact is called.
    #[arg(long)]
    name: String,
    /// checkpoint, model, dataset or report.
    #[arg(long, default_value = "model")]
    kind: String,
    /// Take a .tar, .tar.gz, .tgz or .zip apart.
    #[arg(long)]
    unpack: bool,
    /// What a single file is called, if not as where it comes from.
    #[arg(long, value_name = "NAME")]
    file_name: Option<String>,
    #[command(flatten)]
    ending: Ending,
}

/// Take content that nobody needs away now, rather than with the hourly round.
#[derive(Debug, clap::Args)]
pub(super) struct Collect {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    ending: Ending,
}

/// What a verb does when its task has begun.
#[derive(Debug, clap::Args)]
struct Ending {
    /// Wait until it is over, with a progress bar.
    #[arg(long)]
    wait: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

impl Import {
    pub(super) async fn run(self) -> Result<()> {
        let body = json!({
            "from": self.source,
            "name": self.name,
            "kind": self.kind,
            "unpack": self.unpack,
            "file_name": self.file_name,
        });
        self.ending.of(&self.server, "/imports", &body).await
    }
}

impl Collect {
    pub(super) async fn run(self) -> Result<()> {
        self.ending.of(&self.server, "/gc", &json!({})).await
    }
}

impl Ending {
    async fn of(&self, server: &Server, path: &str, body: &Value) -> Result<()> {
        let client = ApiClient::new(server)?;
        let task = client.post(&format!("{API}{path}"), body).await?;
        if !self.wait {
            if !self.output.document(&task)? {
                output::line(cell(&task["id"]))?;
            }
            return Ok(());
        }
        let path = format!("{API}/tasks/{}", cell(&task["id"]));
        let task = watch::at_end(&client, &path).await?;
        if !self.output.document(&task)? {
            for (name, value) in task["result"].as_object().into_iter().flatten() {
                output::line(format!("{name} {}", cell(value)))?;
            }
        }
        watch::succeeded(&task)
    }
}
