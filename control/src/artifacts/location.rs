//! From an address of storage to something that reads and writes there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use opendal::layers::{RetryLayer, TimeoutLayer};
use opendal::services::{Fs, HdfsNative, S3, Webhdfs};
use opendal::{Builder, HttpTransporter, OperationContext, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;

use super::error::ArtifactError;
use super::settings::ArtifactSettings;

/// More tries of one request to a remote store, with pauses that double from one second on.
const RETRIES: usize = 3;
/// What a remote store may take for one step: a lookup, a piece of data.
const PATIENCE: Duration = Duration::from_secs(60);

/// A parsed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    Folder(PathBuf),
    S3 { bucket: String, prefix: String },
    WebHdfs { host: String, path: String },
    Hdfs { host: String, path: String },
}

impl Location {
    /// # Errors
    /// [`ArtifactError::Invalid`] for `field` says which forms there are.
    pub(super) fn parse(field: &'static str, text: &str) -> Result<Self, ArtifactError> {
        let wrong = || ArtifactError::Invalid {
            field,
            problem: format!(
                "\"{}\" should be fs:PATH, s3://BUCKET/PREFIX, webhdfs://HOST:PORT/PATH or hdfs://HOST:PORT/PATH",
                super::path::shown(text)
            ),
        };
        if let Some(path) = text.strip_prefix("fs:") {
            return (!path.is_empty())
                .then(|| Self::Folder(path.into()))
                .ok_or_else(wrong);
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        // Keys come from the environment: in an address they would be seen in logs.
        if host.is_empty() || host.contains('@') || path.split('/').any(|name| name == "..") {
            return Err(wrong());
        }
        let (host, path) = (host.to_owned(), path.trim_end_matches('/').to_owned());
        match scheme {
            "s3" => Ok(Self::S3 {
                bucket: host,
                prefix: path,
            }),
            "webhdfs" => Ok(Self::WebHdfs { host, path }),
            "hdfs" => Ok(Self::Hdfs { host, path }),
            _ => Err(wrong()),
        }
    }

    /// The host that it leads to, if the address names one.
    pub(super) fn host(&self) -> Option<&str> {
        match self {
            Self::WebHdfs { host, .. } | Self::Hdfs { host, .. } => Some(host),
            Self::Folder(_) | Self::S3 { .. } => None,
        }
    }

    /// An operator whose root is `root` of the location: its prefix or path, or the folder above it.
    pub(super) fn operator(
        &self,
        root: &str,
        settings: &ArtifactSettings,
        client: reqwest::Client,
    ) -> Result<Operator, ArtifactError> {
        let root = format!("/{}", root.trim_matches('/'));
        match self {
            Self::Folder(folder) => Ok(Operator::new(Fs::default().root(&text(folder)?))?),
            Self::S3 { bucket, .. } => remote(s3(bucket, settings).root(&root), client),
            Self::WebHdfs { host, .. } => {
                let builder = Webhdfs::default()
                    .endpoint(&format!("http://{host}"))
                    .root(&root);
                // Listing in batches is not everywhere.
                remote(builder.disable_list_batch(), client)
            }
            Self::Hdfs { host, .. } => remote(
                HdfsNative::default()
                    .name_node(&format!("hdfs://{host}"))
                    .root(&root),
                client,
            ),
        }
    }

    /// The path below the host or bucket.
    pub(super) fn path(&self) -> &str {
        match self {
            Self::Folder(_) => "",
            Self::S3 { prefix: path, .. }
            | Self::WebHdfs { path, .. }
            | Self::Hdfs { path, .. } => path,
        }
    }
}

fn text(path: &Path) -> Result<String, ArtifactError> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| ArtifactError::Invalid {
            field: "artifacts.location",
            problem: "the path should be UTF-8".into(),
        })
}

fn s3(bucket: &str, settings: &ArtifactSettings) -> S3 {
    let mut builder = S3::default().bucket(bucket);
    if let Some(endpoint) = &settings.s3_endpoint {
        builder = builder.endpoint(endpoint);
    }
    let region = settings.s3_region.clone().or_else(|| {
        std::env::var("AWS_REGION")
            .or_else(|_| std::env::var("AWS_DEFAULT_REGION"))
            .ok()
    });
    // Stores that are not Amazon's rarely care, but the signature wants one.
    builder.region(region.as_deref().unwrap_or("us-east-1"))
}

fn remote(builder: impl Builder, client: reqwest::Client) -> Result<Operator, ArtifactError> {
    let transport = HttpTransporter::new(ReqwestTransport::new(client));
    let context = OperationContext::new().with_http_transport(transport);
    Ok(Operator::new(builder)?
        .with_context(context)
        .layer(
            TimeoutLayer::new()
                .with_timeout(PATIENCE)
                .with_io_timeout(PATIENCE),
        )
        .layer(RetryLayer::new().with_max_times(RETRIES).with_jitter()))
}
