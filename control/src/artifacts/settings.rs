//! Where content lies, and every limit on what is taken. Sizes are bytes, times are seconds.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY_S: u64 = 24 * 3600;

/// The section `[control.artifacts]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArtifactSettings {
    /// `fs:PATH`, `s3://BUCKET/PREFIX`, `webhdfs://HOST:PORT/PATH` or `hdfs://HOST:PORT/PATH`. A relative path of `fs:`
    /// is taken from the data directory.
    pub location: String,
    /// The endpoint of an S3 that is not Amazon's. Keys come from the usual `AWS_…` variables and files.
    pub s3_endpoint: Option<String>,
    pub s3_region: Option<String>,
    /// Content up to so many bytes is counted when a dataset's version is registered; of more, the number of rows is what
    /// the version says.
    pub count_rows_bytes: u64,
    pub upload: UploadSettings,
    pub import: ImportSettings,
    pub collection: CollectionSettings,
}

/// Files on their way in, in parts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UploadSettings {
    /// The size of a part that is offered to clients; all but the last have the one that the upload was made with.
    pub part_bytes: u64,
    pub max_part_bytes: u64,
    /// One file.
    pub max_bytes: u64,
    /// Parts of one upload.
    pub max_parts: u64,
    /// Open uploads of one department.
    pub max_open: u64,
    /// An upload that no part came to for so long is given up.
    pub expires_s: u64,
}

/// What may be brought in from elsewhere.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImportSettings {
    /// Bytes of one artifact, unpacked.
    pub max_bytes: u64,
    /// Files of one artifact; entries of one archive.
    pub max_files: u64,
    /// How many times its own size an archive may unpack to.
    pub max_ratio: u64,
    pub max_redirects: usize,
    /// A source that sends nothing for so long is given up.
    pub idle_s: u64,
    /// Folders of this machine that may be imported from, with all below them. None by default.
    pub folders: Vec<PathBuf>,
    /// Buckets of S3 that may be imported from, with the server's own keys. None by default.
    pub buckets: Vec<String>,
    /// Whether URLs may lead to private, loopback and link-local addresses.
    pub private_addresses: bool,
    /// Hosts, by the name that a URL gives, that are exempt from that rule.
    pub trusted_hosts: Vec<String>,
}

/// When unused content goes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectionSettings {
    /// Bytes that nothing refers to are condemned after so long, and deleted after as long again.
    pub blob_grace_s: u64,
    /// An artifact that no record refers to is put away after so long.
    pub artifact_grace_s: u64,
}

impl Default for ArtifactSettings {
    fn default() -> Self {
        Self {
            location: "fs:artifacts".into(),
            s3_endpoint: None,
            s3_region: None,
            count_rows_bytes: GIB,
            upload: UploadSettings::default(),
            import: ImportSettings::default(),
            collection: CollectionSettings::default(),
        }
    }
}

impl Default for UploadSettings {
    fn default() -> Self {
        Self {
            part_bytes: 16 * MIB,
            max_part_bytes: 256 * MIB,
            max_bytes: 1024 * GIB,
            max_parts: 100_000,
            max_open: 256,
            expires_s: DAY_S,
        }
    }
}

impl Default for ImportSettings {
    fn default() -> Self {
        Self {
            max_bytes: 1024 * GIB,
            max_files: 20_000,
            max_ratio: 200,
            max_redirects: 5,
            idle_s: 60,
            folders: Vec::new(),
            buckets: Vec::new(),
            private_addresses: false,
            trusted_hosts: Vec::new(),
        }
    }
}

impl Default for CollectionSettings {
    fn default() -> Self {
        Self {
            blob_grace_s: DAY_S,
            artifact_grace_s: 7 * DAY_S,
        }
    }
}

impl CollectionSettings {
    pub(super) const fn blob_grace(&self) -> Duration {
        Duration::from_secs(self.blob_grace_s)
    }

    pub(super) const fn artifact_grace(&self) -> Duration {
        Duration::from_secs(self.artifact_grace_s)
    }
}
