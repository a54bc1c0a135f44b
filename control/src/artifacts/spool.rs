//! Where bytes wait until it is known what they are. Files here have names by chance, are digested while they
//! are written, and are gone when dropped; what a killed process left is swept by age.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::digest::Digest;
use super::error::ArtifactError;

/// Bytes that are gathered before they are digested and written, off the threads that serve requests.
const BATCH: usize = 1 << 20;
const PREFIX: &str = "in-";

/// A folder for files on their way in.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    folder: PathBuf,
}

/// A whole file that has arrived, with the digest of what was written.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) file: NamedTempFile,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

/// The most bytes that a stream may bring, and whose limit that is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) bytes: u64,
    pub(super) setting: &'static str,
}

impl Limit {
    pub(super) fn exceeded(&self, what: &str) -> ArtifactError {
        ArtifactError::TooLarge {
            what: what.to_owned(),
            limit: self.bytes,
            setting: self.setting,
        }
    }
}

impl Spool {
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Writes a stream into a new file. Holds one batch of 1 MiB and one chunk of the stream at a time.
    pub(super) async fn take<S>(
        &self,
        what: &str,
        source: S,
        limit: Limit,
    ) -> Result<Spooled, ArtifactError>
    where
        S: Stream<Item = Result<Bytes, ArtifactError>>,
    {
        let mut source = std::pin::pin!(source);
        let mut writer = Writer::new(self.file()?);
        while let Some(chunk) = source.next().await {
            let chunk = chunk?;
            if writer.bytes + chunk.len() as u64 > limit.bytes {
                return Err(limit.exceeded(what));
            }
            writer.write(&chunk).await?;
        }
        writer.finish().await
    }

    pub(super) fn file(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(PREFIX)
            .tempfile_in(&self.folder)
    }

    /// Deletes what processes that were killed left behind: files that nobody wrote to for `age`.
    pub(super) fn sweep(&self, age: Duration) -> io::Result<u64> {
        let mut swept = 0;
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
                continue;
            }
            let written = entry.metadata().and_then(|data| data.modified());
            let old = written.is_ok_and(|at| {
                SystemTime::now()
                    .duration_since(at)
                    .is_ok_and(|since| since >= age)
            });
            // Another process may sweep too.
            if old && std::fs::remove_file(entry.path()).is_ok() {
                swept += 1;
            }
        }
        Ok(swept)
    }
}

struct Writer {
    /// Away while a batch is being written.
    state: Option<(NamedTempFile, Sha256)>,
    batch: Vec<u8>,
    bytes: u64,
}

impl Writer {
    fn new(file: NamedTempFile) -> Self {
        Self {
            state: Some((file, Sha256::new())),
            batch: Vec::new(),
            bytes: 0,
        }
    }

    async fn write(&mut self, chunk: &[u8]) -> Result<(), ArtifactError> {
        self.bytes += chunk.len() as u64;
        self.batch.extend_from_slice(chunk);
        if self.batch.len() >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ArtifactError> {
        let Some((mut file, mut hasher)) = self.state.take() else {
            return Err(ArtifactError::Interrupted("an earlier write failed".into()));
        };
        let mut batch = std::mem::take(&mut self.batch);
        let (file, hasher, batch) = blocking(move || {
            file.write_all(&batch)?;
            hasher.update(&batch);
            batch.clear();
            Ok((file, hasher, batch))
        })
        .await?;
        self.state = Some((file, hasher));
        self.batch = batch;
        Ok(())
    }

    async fn finish(mut self) -> Result<Spooled, ArtifactError> {
        self.flush().await?;
        let Some((file, hasher)) = self.state.take() else {
            return Err(ArtifactError::Interrupted("an earlier write failed".into()));
        };
        Ok(Spooled {
            file,
            digest: Digest::finish(hasher),
            bytes: self.bytes,
        })
    }
}

/// Runs work that waits for the disk on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(ArtifactError::Interrupted(error.to_string())),
    }
}

/// The bytes of a file of this machine, in batches.
pub(super) fn read_file(file: File) -> impl Stream<Item = Result<Bytes, ArtifactError>> + Send {
    futures_util::stream::try_unfold(file, |mut file| async move {
        blocking(move || {
            use std::io::Read as _;
            let mut batch = Vec::with_capacity(BATCH);
            (&mut file).take(BATCH as u64).read_to_end(&mut batch)?;
            Ok((!batch.is_empty()).then(|| (Bytes::from(batch), file)))
        })
        .await
    })
}
