//! Bringing an artifact in from elsewhere: a folder or file of this machine, a URL, HDFS or S3. An archive is
//! unpacked on the way, if asked.
//!
//! Whatever comes is distrusted: names, numbers and sizes are checked before a byte of theirs is kept, and nothing
//! is unpacked onto a disk under a name of the sender's choice.

mod archive;
mod source;
mod tar;
mod walk;
mod zip;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream::try_unfold;
use futures_util::{Stream, TryStreamExt as _};
use opendal::ErrorKind;

pub use source::Source;

use archive::{Form, Piece};
use source::Place;

use super::blobs::read_object;
use super::location::Location;
use super::path::{PathSet, check};
use super::spool::{Limit, Spooled, read_file};
use super::{ArtifactError, Artifacts, File, NewArtifact};
use crate::domain::record::Artifact;
use crate::store::{Actor, Stored};

/// What is to be imported.
#[derive(Debug, Clone)]
pub struct Import {
    pub artifact: NewArtifact,
    pub from: Source,
    /// Whether a `.tar`, `.tar.gz`, `.tgz` or `.zip` is taken apart. Otherwise it is one file.
    pub unpack: bool,
    /// The name of a single file, if not the one that it has where it comes from.
    pub file_name: Option<String>,
}

/// How far an import has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The file that is being taken.
    pub path: String,
    /// Files that were taken.
    pub files: u64,
    /// Bytes that were taken.
    pub bytes: u64,
    /// Bytes of all, where the source says so beforehand.
    pub of_bytes: Option<u64>,
}

impl Artifacts {
    /// Imports an artifact. `progress` is called before each file and after each piece of one. Dropping the future
    /// cancels the import; nothing is registered then.
    ///
    /// # Errors
    /// [`ArtifactError::Forbidden`], [`ArtifactError::Source`], [`ArtifactError::TooLarge`], [`ArtifactError::Entry`],
    /// [`ArtifactError::Path`] among others.
    pub async fn import(
        &self,
        actor: &Actor,
        import: Import,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Stored<Artifact>, ArtifactError> {
        let mut intake = Intake::new(self, progress);
        match &import.from.0 {
            Place::Local(path) => intake.local(&import, path).await?,
            Place::Url(url) => intake.url(&import, url).await?,
            Place::Remote(location) => intake.remote(&import, location).await?,
        }
        let files = intake.files;
        let source = Some(import.from.to_string());
        self.register(
            actor,
            NewArtifact {
                source,
                ..import.artifact
            },
            files,
        )
        .await
    }
}

/// For a folder that a program of ours made.
impl Artifacts {
    /// Makes an artifact of all that is in a folder of this machine. A link that leads out of it is refused, so that a
    /// program that was tricked cannot pass on what lies elsewhere.
    ///
    /// # Errors
    /// [`ArtifactError::Forbidden`], [`ArtifactError::Path`], [`ArtifactError::TooLarge`], [`ArtifactError::Empty`].
    pub async fn take_folder(
        &self,
        actor: &Actor,
        new: NewArtifact,
        folder: &Path,
    ) -> Result<Stored<Artifact>, ArtifactError> {
        let mut intake = Intake::new(self, &|_| ());
        match intake.walk(folder, vec![folder.to_owned()]).await? {
            walk::Found::Folder(files) => intake.folder(files).await?,
            walk::Found::File(_) => return Err(ArtifactError::Empty),
        }
        let files = intake.files;
        self.register(actor, new, files).await
    }
}

/// The files that an import has brought so far, and what it may still bring.
struct Intake<'a> {
    artifacts: &'a Artifacts,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
    paths: PathSet,
    files: Vec<File>,
    bytes: u64,
    of_bytes: Option<u64>,
}

impl<'a> Intake<'a> {
    fn new(artifacts: &'a Artifacts, progress: &'a (dyn Fn(Progress) + Send + Sync)) -> Self {
        Self {
            artifacts,
            progress,
            paths: PathSet::default(),
            files: Vec::new(),
            bytes: 0,
            of_bytes: None,
        }
    }

    fn limit(&self) -> Limit {
        Limit {
            bytes: self.artifacts.settings().import.max_bytes - self.bytes,
            setting: "import.max_bytes",
        }
    }

    /// Takes one file.
    async fn take<S>(&mut self, path: &str, source: S) -> Result<(), ArtifactError>
    where
        S: Stream<Item = Result<Bytes, ArtifactError>> + Send,
    {
        self.paths.add(path)?;
        let most = self.artifacts.settings().import.max_files;
        if self.files.len() as u64 >= most {
            return Err(ArtifactError::TooLarge {
                what: "the number of files".into(),
                limit: most,
                setting: "import.max_files",
            });
        }
        let spooled = self.spool(path, source).await?;
        self.bytes += spooled.bytes;
        self.files.push(File {
            path: path.to_owned(),
            digest: spooled.digest,
            bytes: spooled.bytes,
        });
        self.artifacts.keep(spooled).await
    }

    async fn spool<S>(&self, path: &str, source: S) -> Result<Spooled, ArtifactError>
    where
        S: Stream<Item = Result<Bytes, ArtifactError>> + Send,
    {
        self.report(path, self.bytes);
        let mut bytes = self.bytes;
        let watched = source.inspect_ok(move |piece| {
            bytes += piece.len() as u64;
            self.report(path, bytes);
        });
        self.artifacts
            .0
            .spool
            .take(path, watched, self.limit())
            .await
    }

    fn report(&self, path: &str, bytes: u64) {
        (self.progress)(Progress {
            path: path.to_owned(),
            files: self.files.len() as u64,
            bytes,
            of_bytes: self.of_bytes,
        });
    }

    /// Takes a single file, or what is in it if it is an archive and that is wanted.
    async fn single<S>(
        &mut self,
        import: &Import,
        name: &str,
        source: S,
    ) -> Result<(), ArtifactError>
    where
        S: Stream<Item = Result<Bytes, ArtifactError>> + Send,
    {
        let name = import.file_name.as_deref().unwrap_or(name);
        check(name)?;
        match Form::of(name).filter(|_| import.unpack) {
            None => self.take(name, source).await,
            Some(form) => {
                let archive = self.spool(name, source).await?;
                self.of_bytes = None;
                self.unpack(form, archive).await
            }
        }
    }

    async fn unpack(&mut self, form: Form, archive: Spooled) -> Result<(), ArtifactError> {
        let mut pieces = archive::unpack(
            form,
            &archive,
            self.limit(),
            &self.artifacts.settings().import,
        )?;
        loop {
            match pieces.recv().await {
                Some(Ok(Piece::File(path))) => {
                    let bytes = try_unfold(&mut pieces, |pieces| async move {
                        match pieces.recv().await {
                            Some(Ok(Piece::Bytes(bytes))) => Ok(Some((bytes, pieces))),
                            Some(Ok(Piece::EndOfFile)) => Ok(None),
                            Some(Err(error)) => Err(error),
                            Some(Ok(Piece::File(_) | Piece::EndOfArchive)) | None => Err(stopped()),
                        }
                    });
                    self.take(&path, bytes).await?;
                }
                Some(Ok(Piece::EndOfArchive)) => return Ok(()),
                Some(Err(error)) => return Err(error),
                Some(Ok(Piece::Bytes(_) | Piece::EndOfFile)) | None => return Err(stopped()),
            }
        }
    }

    async fn local(&mut self, import: &Import, path: &Path) -> Result<(), ArtifactError> {
        let folders = self.artifacts.settings().import.folders.clone();
        match self.walk(path, folders).await? {
            walk::Found::File(file) => {
                self.of_bytes = Some(file.bytes);
                self.single(import, &file.path, read_file(file.open()?))
                    .await
            }
            walk::Found::Folder(files) => self.folder(files).await,
        }
    }

    async fn walk(&self, path: &Path, allowed: Vec<PathBuf>) -> Result<walk::Found, ArtifactError> {
        let most = self.artifacts.settings().import.max_files;
        let path = path.to_owned();
        super::spool::blocking(move || walk::walk(&path, &allowed, most)).await
    }

    async fn folder(&mut self, files: Vec<walk::LocalFile>) -> Result<(), ArtifactError> {
        self.of_bytes = Some(files.iter().map(|file| file.bytes).sum());
        for file in files {
            self.take(&file.path, read_file(file.open()?)).await?;
        }
        Ok(())
    }

    async fn url(&mut self, import: &Import, url: &reqwest::Url) -> Result<(), ArtifactError> {
        let guard = &self.artifacts.0.guard;
        guard.check_url(url)?;
        let name = source::file_name(url).or_else(|error| match import.file_name {
            Some(_) => Ok(String::new()),
            None => Err(error),
        })?;
        let client = guard.client(&self.artifacts.settings().import)?;
        let place = import.from.to_string();
        let failed = |error: reqwest::Error| source::request_failed(&place, &error);
        let answer = client.get(url.clone()).send().await.map_err(failed)?;
        let answer = answer.error_for_status().map_err(failed)?;
        // A redirect to what is no HTTP at all is not followed, and its own body is not what was asked for.
        if !answer.status().is_success() {
            return Err(ArtifactError::Source {
                place,
                problem: format!("answers {}", answer.status()),
            });
        }
        self.of_bytes = answer.content_length();
        if self
            .of_bytes
            .is_some_and(|bytes| bytes > self.limit().bytes)
        {
            return Err(self.limit().exceeded(&place));
        }
        let bytes = answer.bytes_stream().map_err(failed);
        self.single(import, &name, bytes).await
    }

    async fn remote(&mut self, import: &Import, location: &Location) -> Result<(), ArtifactError> {
        let settings = self.artifacts.settings();
        if let Location::S3 { bucket, .. } = location
            && !settings.import.buckets.contains(bucket)
        {
            return Err(ArtifactError::Forbidden(format!(
                "the bucket \"{bucket}\" is none of those that may be imported from (import.buckets)"
            )));
        }
        if let Some(host) = location.host() {
            self.artifacts.0.guard.check_host(host).await?;
        }
        let client = match location {
            // Its endpoint is the configuration's.
            Location::S3 { .. } => super::guard::plain_client()?,
            _ => self.artifacts.0.guard.client(&settings.import)?,
        };
        let operator = location.operator("", settings, client)?;
        let place = import.from.to_string();
        let failed = |error: opendal::Error| ArtifactError::Source {
            place: place.clone(),
            problem: error.to_string(),
        };
        let path = location.path();
        let single = match operator.stat(path).await {
            Ok(found) if !found.is_dir() && !path.is_empty() => Some(found.content_length()),
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if let Some(bytes) = single {
            self.of_bytes = Some(bytes);
            let name = path.rsplit('/').next().unwrap_or(path);
            let source = read_object(&operator, path, bytes).await.map_err(failed)?;
            return self.single(import, name, source.map_err(failed)).await;
        }
        let folder = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let files = self.list(&operator, &folder, &place).await?;
        self.of_bytes = Some(files.iter().map(|(_, bytes)| bytes).sum());
        for (path, bytes) in files {
            let source = read_object(&operator, &format!("{folder}{path}"), bytes)
                .await
                .map_err(failed)?;
            self.take(&path, source.map_err(failed)).await?;
        }
        Ok(())
    }

    /// The files below a folder, with their sizes.
    async fn list(
        &self,
        operator: &opendal::Operator,
        folder: &str,
        place: &str,
    ) -> Result<Vec<(String, u64)>, ArtifactError> {
        let failed = |error: opendal::Error| ArtifactError::Source {
            place: place.to_owned(),
            problem: match error.kind() {
                ErrorKind::NotFound => "there is nothing there".into(),
                _ => error.to_string(),
            },
        };
        let most = self.artifacts.settings().import.max_files;
        let mut files = Vec::new();
        let mut entries = operator
            .lister_with(folder)
            .recursive(true)
            .await
            .map_err(failed)?;
        while let Some(entry) = entries.try_next().await.map_err(failed)? {
            if entry.metadata().is_dir() {
                continue;
            }
            let path = entry.path().strip_prefix(folder).unwrap_or(entry.path());
            check(path)?;
            if files.len() as u64 >= most {
                return Err(ArtifactError::TooLarge {
                    what: format!("the number of files in {place}"),
                    limit: most,
                    setting: "import.max_files",
                });
            }
            files.push((path.to_owned(), entry.metadata().content_length()));
        }
        if files.is_empty() {
            return Err(ArtifactError::Source {
                place: place.to_owned(),
                problem: "there is no file there".into(),
            });
        }
        Ok(files)
    }
}

fn stopped() -> ArtifactError {
    ArtifactError::Interrupted("reading the archive ended early".into())
}

#[cfg(test)]
mod tests;
