//! Where content lies, and every limit on what is taken. Sizes are bytes, times are seconds.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use sluice_gateway::config::{Problem, Problems};

use super::error::ArtifactError;
use super::location::Location;

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

/// Seconds of a hundred years: added to the time of now, they still are a time.
const LONGEST_S: u64 = 36_500 * DAY_S;

impl ArtifactSettings {
    /// All that is wrong with the section, by the fields' paths in the configuration. No folder is made and no store
    /// is asked.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Problems::default();
        if let Err(error) = Location::parse("location", &self.location) {
            let message = match error {
                ArtifactError::Invalid { problem, .. } => problem,
                other => other.to_string(),
            };
            problems.add("control.artifacts.location", message);
        }
        if let Some(endpoint) = &self.s3_endpoint {
            let url = reqwest::Url::parse(endpoint).ok();
            let right = url.is_some_and(|it| matches!(it.scheme(), "http" | "https"));
            let message = "must look like https://host:port";
            problems.expect(right, "control.artifacts.s3_endpoint", message);
        }
        let region = self.s3_region.as_ref().is_none_or(|it| !it.is_empty());
        problems.expect(
            region,
            "control.artifacts.s3_region",
            "must not be empty; leave it out instead",
        );
        self.check_numbers(&mut problems);
        for (index, folder) in self.import.folders.iter().enumerate() {
            let field = format!("control.artifacts.import.folders.{index}");
            problems.expect(folder.is_absolute(), &field, "must be an absolute path");
        }
        for (list, names) in [
            ("buckets", &self.import.buckets),
            ("trusted_hosts", &self.import.trusted_hosts),
        ] {
            for (index, name) in names.iter().enumerate() {
                let field = format!("control.artifacts.import.{list}.{index}");
                let plain = !name.is_empty() && !name.contains('/');
                problems.expect(plain, &field, "must be a name, without a scheme or a path");
            }
        }
        problems.into_inner()
    }

    fn check_numbers(&self, problems: &mut Problems) {
        let (upload, import, collection) = (&self.upload, &self.import, &self.collection);
        for (field, number) in [
            ("upload.part_bytes", upload.part_bytes),
            ("upload.max_part_bytes", upload.max_part_bytes),
            ("upload.max_bytes", upload.max_bytes),
            ("upload.max_parts", upload.max_parts),
            ("upload.max_open", upload.max_open),
            ("upload.expires_s", upload.expires_s),
            ("import.max_bytes", import.max_bytes),
            ("import.max_files", import.max_files),
            ("import.max_ratio", import.max_ratio),
            ("import.idle_s", import.idle_s),
            ("collection.blob_grace_s", collection.blob_grace_s),
            ("collection.artifact_grace_s", collection.artifact_grace_s),
        ] {
            let field = format!("control.artifacts.{field}");
            problems.expect(number > 0, &field, "must be at least 1");
            let within = !field.ends_with("_s") || number <= LONGEST_S;
            problems.expect(
                within,
                &field,
                "must be at most 3153600000: a hundred years",
            );
            // The database's numbers are signed.
            let fits = i64::try_from(number).is_ok();
            problems.expect(fits, &field, "must be at most 9223372036854775807");
        }
        problems.expect(
            upload.part_bytes <= upload.max_part_bytes,
            "control.artifacts.upload.part_bytes",
            "must not exceed `control.artifacts.upload.max_part_bytes`",
        );
        let longest = upload.max_part_bytes.saturating_mul(upload.max_parts);
        problems.expect(
            upload.max_bytes <= longest,
            "control.artifacts.upload.max_bytes",
            "must not exceed `max_parts` times `max_part_bytes`: a file so large could not be sent",
        );
    }
}
