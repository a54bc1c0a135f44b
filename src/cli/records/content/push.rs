//! `sluice artifact push`: files of this machine become an artifact.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::API;
use super::files::{self, LocalFile};
use super::transfer::{Meter, again};
use crate::cli::client::{ApiClient, Server};
use crate::cli::output::{self, Shape};
use crate::cli::records::view::cell;

/// Send a folder or files as an artifact. What the server has already is not sent again: a push that broke off goes on
/// when it is repeated.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice artifact push checkpoints/v2 --name helpdesk-v2 --kind checkpoint\n  sluice artifact push test.jsonl --name tickets --kind dataset"
)]
pub(super) struct Push {
    #[command(flatten)]
    server: Server,
    /// Folders, whose files keep their paths below them, and files.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// What the artifact is called.
    #[arg(long)]
    name: String,
    /// checkpoint, model, dataset or report.
    #[arg(long, default_value = "model")]
    kind: String,
    /// Parts on their way at once; each is held in memory.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
    /// Files and folders whose names begin with a dot too.
    #[arg(long)]
    hidden: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

impl Push {
    pub(super) async fn run(self) -> Result<()> {
        let client = ApiClient::new(&self.server)?;
        let sender = Sender {
            client: &client,
            parallel: usize::from(self.parallel),
            hidden: self.hidden,
        };
        let artifact = sender.send(&self.paths, &self.name, &self.kind).await?;
        if !self.output.document(&artifact)? {
            output::line(cell(&artifact["id"]))?;
        }
        Ok(())
    }
}

/// How content is sent.
pub(super) struct Sender<'a> {
    pub client: &'a ApiClient,
    pub parallel: usize,
    pub hidden: bool,
}

impl Sender<'_> {
    /// Sends what lies at `paths`; the artifact.
    pub(super) async fn send(&self, paths: &[PathBuf], name: &str, kind: &str) -> Result<Value> {
        let found = files::found(paths, self.hidden)?;
        if found.hidden > 0 {
            output::note(format!(
                "{} left out whose names begin with a dot; --hidden sends them",
                found.hidden
            ));
        }
        let meter = Meter::new("sending", found.files.iter().map(|file| file.bytes).sum());
        let turns = Semaphore::new(self.parallel);
        let sent: Vec<Value> = stream::iter(found.files)
            .map(|file| self.file(file, &turns, &meter))
            .buffered(self.parallel)
            .try_collect()
            .await?;
        meter.end();
        let body = json!({ "name": name, "kind": kind, "files": sent });
        let artifact = self
            .client
            .call("POST", &format!("{API}/artifacts"), Some(&body), &[])
            .await?;
        output::note(format!(
            "{} {}: {} files, {} bytes, {}",
            cell(&artifact["kind"]),
            cell(&artifact["name"]),
            artifact["files"],
            artifact["bytes"],
            cell(&artifact["digest"])
        ));
        Ok(artifact)
    }

    /// Sends a file, or what of it is missing; how an artifact is made of it.
    async fn file(&self, file: LocalFile, turns: &Semaphore, meter: &Meter) -> Result<Value> {
        let digest = files::digest(file.place.clone()).await?;
        let asked = json!({ "path": file.path, "bytes": file.bytes, "digest": digest.to_string() });
        let uploads = format!("{API}/uploads");
        let upload = again(|| self.client.call("POST", &uploads, Some(&asked), &[])).await?;
        let id = upload["id"].as_str().context("the answer has no id")?;
        let made = json!({ "upload": id });
        if upload["state"] == "completed" {
            meter.add(file.bytes, &file.path);
            return Ok(made);
        }
        let size = upload["part_bytes"]
            .as_u64()
            .filter(|size| *size > 0)
            .context("the answer has no part_bytes")?;
        let there: Vec<u64> = upload["parts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|part| part["part"].as_u64())
            .collect();
        let missing = (0..file.bytes.div_ceil(size)).filter(|number| !there.contains(number));
        meter.add(
            size.saturating_mul(there.len() as u64).min(file.bytes),
            &file.path,
        );
        stream::iter(missing)
            .map(|number| self.part(&file, id, number, size, turns, meter))
            .buffer_unordered(self.parallel)
            .try_for_each(|()| async { Ok(()) })
            .await?;
        let complete = format!("{uploads}/{id}/complete");
        again(|| self.client.call("POST", &complete, None, &[]))
            .await
            .with_context(|| file.path.clone())?;
        Ok(made)
    }

    async fn part(
        &self,
        file: &LocalFile,
        upload: &str,
        number: u64,
        size: u64,
        turns: &Semaphore,
        meter: &Meter,
    ) -> Result<()> {
        // Before the read: no more parts are in memory than on their way.
        let _turn = turns.acquire().await?;
        let start = number * size;
        let length = usize::try_from((file.bytes - start).min(size))?;
        let (bytes, digest) = files::part(file.place.clone(), start, length).await?;
        let path = format!("{API}/uploads/{upload}/parts/{number}");
        let digest = digest.structured();
        again(|| self.client.put(&path, bytes.clone(), &digest))
            .await
            .with_context(|| format!("{}, part {number}", file.path))?;
        meter.add(length as u64, &file.path);
        Ok(())
    }
}
