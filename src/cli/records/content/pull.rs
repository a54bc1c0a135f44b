//! `sluice artifact pull`: an artifact becomes a folder of this machine, every file checked.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http_body_util::BodyExt as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sluice_control::artifacts::{Digest, check_path};
use tokio::io::AsyncWriteExt as _;

use super::API;
use super::files;
use super::transfer::{Meter, again};
use crate::cli::client::{ApiClient, Server};
use crate::cli::output;
use crate::cli::records::fields::encoded;

/// Fetch an artifact into a folder. Files that are there and right are not fetched again.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice artifact pull art_… helpdesk-v2\n  sluice serve helpdesk=helpdesk-v2"
)]
pub(super) struct Pull {
    #[command(flatten)]
    server: Server,
    /// The artifact, by id or digest.
    #[arg(value_name = "ID")]
    artifact: String,
    /// Where its files go; made if it is not there.
    folder: PathBuf,
    /// Files on their way at once.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
}

/// A file as the server lists it.
struct RemoteFile {
    path: String,
    digest: Digest,
    bytes: u64,
}

impl Pull {
    pub(super) async fn run(self) -> Result<()> {
        let client = ApiClient::new(&self.server)?;
        let base = format!("{API}/artifacts/{}/files", encoded(&self.artifact));
        let listed = again(|| client.get(&base)).await?;
        let listed = listed["items"].as_array().cloned().unwrap_or_default();
        let files = listed.iter().map(listed_file).collect::<Result<Vec<_>>>()?;
        let meter = Meter::new("fetching", files.iter().map(|file| file.bytes).sum());
        let count = files.len();
        stream::iter(files)
            .map(|file| self.file(&client, &base, file, &meter))
            .buffer_unordered(usize::from(self.parallel))
            .try_for_each(|()| async { Ok(()) })
            .await?;
        meter.end();
        output::note(format!("{count} files in {}", self.folder.display()));
        Ok(())
    }

    async fn file(
        &self,
        client: &ApiClient,
        base: &str,
        file: RemoteFile,
        meter: &Meter,
    ) -> Result<()> {
        let target = self.folder.join(&file.path);
        if target.is_file() && files::digest(target.clone()).await? == file.digest {
            meter.add(file.bytes, &file.path);
            return Ok(());
        }
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        // A file appears under its name once it is whole and right.
        let mut part = target.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let url = format!("{base}/{}", encoded(&file.path));
        let fetched = again(|| fetch(client, &url, &part, &file)).await;
        if let Err(error) = fetched {
            // Nobody should take it for the file.
            _ = std::fs::remove_file(&part);
            return Err(error.context(file.path));
        }
        std::fs::rename(&part, &target).with_context(|| target.display().to_string())?;
        meter.add(file.bytes, &file.path);
        Ok(())
    }
}

/// What the server says is as little trusted as what an archive says: a path must not lead out of the folder.
fn listed_file(item: &Value) -> Result<RemoteFile> {
    let text = |name: &str| {
        item[name]
            .as_str()
            .with_context(|| format!("the list of files has one without {name}"))
    };
    let path = text("path")?.to_owned();
    check_path(&path)?;
    Ok(RemoteFile {
        path,
        digest: text("blob")?.parse()?,
        bytes: item["bytes"].as_u64().unwrap_or_default(),
    })
}

async fn fetch(client: &ApiClient, url: &str, place: &Path, file: &RemoteFile) -> Result<()> {
    let mut body = client.bytes(url).await?;
    let mut target = tokio::fs::File::create(place)
        .await
        .with_context(|| place.display().to_string())?;
    let mut hasher = Sha256::new();
    while let Some(frame) = body.frame().await {
        // Without its cause: a connection that breaks is an error of input and output too, and worth another try.
        let frame = frame.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
        if let Ok(bytes) = frame.into_data() {
            hasher.update(&bytes);
            target.write_all(&bytes).await?;
        }
    }
    target.flush().await?;
    let found = Digest::from_bytes(hasher.finalize().into());
    if found != file.digest {
        bail!("arrived as {found}, should be {}", file.digest);
    }
    Ok(())
}
